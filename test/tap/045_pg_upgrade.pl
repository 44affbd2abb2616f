# pg_upgrade from an older PostgreSQL: everything is kept, positions go on
# behind a jump, ALTER EXTENSION has nothing to do.  EVENTO_OLD_BINDIR names the
# executables of the older one.
use strict;
use warnings;

use Evento::Catalog;
use Evento::Cluster;
use Evento::Contents;
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $old_pg = $ENV{EVENTO_OLD_BINDIR} // '';
plan skip_all => 'EVENTO_OLD_BINDIR does not name the executables of an older PostgreSQL' if !-x "$old_pg/postgres";
my ($old_major, $new_major) = map { scalar(`'$_/pg_config' --version` =~ /(\d+)/ ? $1 : 0) } $old_pg, $ENV{EVENTO_BINDIR};
plan skip_all => "EVENTO_OLD_BINDIR has PostgreSQL $old_major, not older than $new_major" if $old_major >= $new_major;

# The older one with the extension in it, in a tree of its own.
my $old_bin = do {
	local $ENV{PGTREE} = "$ENV{TESTDIR}/old-tree";
	local $ENV{PATH} = "$old_pg:$ENV{PATH}";
	local @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL)};
	my $lib = dirname(__FILE__) . '/../lib';
	my $out = `WERROR=1 '$lib/pgtree' '$old_pg/pg_config'`;
	die "pgtree: $out" if $? != 0;
	(split /\n/, $out)[-1];
};

my @initdb = ('--encoding=UTF8', '--locale=C');
my $old = Evento::Cluster->make('old', bindir => $old_bin, initdb => [ @initdb ]);
$old->start;
like($old->safe_psql('postgres', 'SHOW server_version'), qr/^$old_major\b/, "the older server is $old_major");
$old->safe_psql('postgres', 'CREATE DATABASE other');
for my $db (qw(postgres other))
{
	$old->safe_psql($db, 'CREATE EXTENSION evento');
	Evento::Contents::fill($old, $db);
}
# What users add to the tables.
$old->safe_psql('postgres', q{CREATE INDEX by_type ON evento._events (type, position)});
$old->safe_psql('postgres', q{CREATE TABLE own (stream text PRIMARY KEY, n bigint); INSERT INTO own SELECT stream, version FROM evento.streams});
$old->safe_psql('postgres', q{CREATE ROLE ann LOGIN; GRANT evento_writer TO ann; GRANT SELECT ON evento.events TO ann});
my %contents = map { $_ => Evento::Contents::of($old, $_) } qw(postgres other);
my %last = map { $_ => $old->safe_psql($_, 'SELECT max(position) FROM evento._events') } qw(postgres other);
$old->stop;

for my $mode (qw(--copy --link))
{
	my $new = Evento::Cluster->make('new' . $mode =~ tr/-//dr, initdb => [ @initdb, $new_major >= 18 ? '--no-data-checksums' : () ]);
	my $log = $new->basedir . '/upgrade';
	mkdir $log;
	chdir $log or die "$log: $!";
	command_ok([ 'pg_upgrade', '--no-sync', $mode, '-d', $old->data_dir, '-D', $new->data_dir, '-b', $old_bin, '-B', $ENV{EVENTO_BINDIR}, '-s', $new->host, '-p', $old->port, '-P', $new->port ], "pg_upgrade $mode")
	  or diag(map { slurp_file($_) } glob($new->data_dir . '/pg_upgrade_output.d/*/log/*'));
	chdir '/';
	$new->start;
	like($new->safe_psql('postgres', 'SHOW server_version'), qr/^$new_major\b/, "$mode: the server is $new_major");
	for my $db (qw(postgres other))
	{
		my $what = "$mode, database $db";
		cmp_ok($new->settle($db), '>=', $last{$db}, "$what: the watermark covers it");
		Evento::Contents::same(Evento::Contents::of($new, $db), $contents{$db}, "$what: all is kept");
		Evento::Contents::goes_on($new, $db, $last{$db}, $what);
		$new->log_is_sound($what, $db);
		is($new->state_of('ALTER EXTENSION evento UPDATE', $db), '', "$what: ALTER EXTENSION UPDATE has nothing to do");
	}
	is($new->safe_psql('postgres', q{SELECT count(*) FROM own WHERE n > 0}), $new->safe_psql('postgres', 'SELECT count(*) FROM own'), "$mode: users' tables too");
	like($new->safe_psql('postgres', q{SET enable_seqscan = off; EXPLAIN (COSTS off) SELECT position FROM evento._events WHERE type = 'T1'}), qr/by_type/, "$mode: and users' indexes");
	is($new->safe_psql('postgres', q{SET ROLE ann; SELECT evento.append('ann-1', 'T', '1')}), '1', "$mode: and their roles");

	$new->safe_psql('postgres', 'CREATE DATABASE fresh TEMPLATE template0');
	$new->safe_psql('fresh', 'CREATE EXTENSION evento');
	my @differences = grep { !/by_type/ } Evento::Catalog::differences(Evento::Catalog::of($new, 'other'), Evento::Catalog::of($new, 'fresh'), 'the upgraded', 'a fresh one');
	ok(!@differences, "$mode: the catalogs say the same as of a fresh database");
	diag($_) for @differences;
	$new->stop;
}
done_testing();
