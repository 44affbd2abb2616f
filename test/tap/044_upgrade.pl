# ALTER EXTENSION evento UPDATE from every earlier version: the new library
# serves the old schema; the update runs under load and loses nothing; what it
# makes is what CREATE EXTENSION makes; and dumps of the old schema restore.
use strict;
use warnings;

use Evento::Catalog;
use Evento::Cluster;
use Evento::Contents;
use Evento::Ledger;
use File::Basename qw(basename dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = dirname(__FILE__) . '/../upgrade';
my @versions = map { basename($_) =~ /^evento--(\d+\.\d+\.\d+)\.sql$/ } sort glob "$dir/evento--*.sql";
my $node = Evento::Cluster->make('main', conf => "max_worker_processes = 40\n");
$node->start;
my $current = $node->safe_psql('postgres', q{SELECT default_version FROM pg_available_extensions WHERE name = 'evento'});
cmp_ok(scalar @versions, '>', 0, 'there are earlier versions');

# Runs a script as users do, and gives what it prints.
sub output_of
{
	my ($db, $script) = @_;
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XqAt', '-d', $node->connstr($db), '-f', $script ], '>', \$out, '2>', \$err) or die "psql: $err";
	return $out . ($err =~ /\S/ ? "stderr:\n$err" : '');
}

sub create
{
	my ($db, $version, $settings) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
	$node->safe_psql($db, ($settings // '') . 'CREATE EXTENSION evento' . ($version ? " VERSION '$version'" : ''));
	return;
}

# What a version offered works as it did, whatever the schema.
sub does_as_before
{
	my ($db, $version, $what) = @_;
	my $out = output_of($db, "$dir/use-$version.sql");
	my $wanted = slurp_file("$dir/use-$version.out");
	ok($out eq $wanted, "$what: all of $version works as it did") and return;
	my $file = $node->basedir . "/use-$db.out";
	append_to_file($file, $out);
	diag(scalar `diff -u '$dir/use-$version.out' '$file'`);
	return;
}

# ALTER EXTENSION UPDATE while writers and readers run.  What they meet must be
# what a client repeats anyway.
sub update_under_load
{
	my ($version, $db) = @_;
	create($db, $version);
	$node->safe_psql($db, q{SELECT evento.append('s-1', 'T', '1') FROM generate_series(1, 10)});
	my $before = $node->safe_psql($db, 'SELECT max(position) FROM evento._events');
	my $ledger = Evento::Ledger->new($node, db => $db, name => "_$db");
	$ledger->write(clients => 8, streams => 15, batch => 1, positions => 1);
	$ledger->read($node, $_) for qw(read_all view wait notify);
	# Sessions that have prepared their statements.
	my %prepared = (
		append => q{SELECT evento.append('prepared', 'T', '1')},
		read_all => 'SELECT position, stream, type FROM evento.read_all(0, 3)',
		all_of_read_all => 'SELECT * FROM evento.read_all(0, 3)',
		events => 'SELECT position, stream, data FROM evento.events ORDER BY position LIMIT 3',
		all_of_events => 'SELECT * FROM evento.events ORDER BY position LIMIT 3',
		read_stream => q{SELECT version, data FROM evento.read_stream('s-1')},
		load_stream => q{SELECT * FROM evento.load_stream('s-1')},
		scan_all => 'SELECT * FROM evento.scan_all(0, 3)',
		streams => 'SELECT stream, version FROM evento.streams');
	my $session = $node->background_psql($db, on_error_stop => 0);
	for my $name (sort keys %prepared)
	{
		$session->query_safe("PREPARE $name AS $prepared{$name}");
		# Often enough for a generic plan.
		$session->query_safe("EXECUTE $name") for 1 .. 6;
	}
	$ledger->acknowledged(300);
	# A transaction that has appended and then reads a view may meet the update in a deadlock; whoever is the victim repeats.
	my $tries = 0;
	my $state;
	do { $state = $node->state_of(q{SET lock_timeout = '60s'; ALTER EXTENSION evento UPDATE}, $db) } while ($state eq '40P01' && ++$tries < 5);
	is($state, '', "$version: updated while writers and readers run, after $tries deadlocks");
	is($node->safe_psql($db, q{SELECT extversion FROM pg_extension WHERE extname = 'evento'}), $current, "$version: to $current");
	$ledger->acknowledged(300);
	for my $name (sort keys %prepared)
	{
		$session->{stderr} = '';
		$session->query("EXECUTE $name");
		my ($error) = $session->{stderr} =~ /ERROR:\s+(.*)/;
		# One that asked for every column gets others than it knows, and is prepared again by its client.
		my $allowed = $name =~ /^all_of_/ ? qr/^$|cached plan must not change result type/ : qr/^$/;
		like($error // '', $allowed, "$version: a statement prepared before goes on: $prepared{$name}");
		$session->{stderr} = '';
		$session->query_safe("DEALLOCATE $name; PREPARE $name AS $prepared{$name}");
		is($session->query("EXECUTE $name") eq '', '', "$version: and is prepared again: $name");
	}
	$session->quit;
	my $n = $ledger->survived("updated from $version under load", lossless => 1);
	cmp_ok($n->{acknowledged}, '>=', 600, "$version: $n->{acknowledged} operations were acknowledged");
	my %why;
	for my $file (map { $_->{file} } @{ $ledger->{writers} })
	{
		for my $line (split /\n/, slurp_file($file))
		{
			$why{$1}++ if $line =~ /^(?:E \S+ \d+ failed|U \S+ \d+) (\S+)/;
		}
	}
	note("$version: operations that ended otherwise: ", join(', ', map { "$_ $why{$_} times" } sort keys %why));
	# Rolled back by intent; a stream that is busy; a conflict between transactions: to be repeated.
	delete @why{qw(rolled-back 55P03 40001 40P01)};
	is(join(' ', sort keys %why), '', "$version: writers meet no other errors than those that are repeated");
	cmp_ok($node->settle($db), '>', $before, "$version: the watermark goes on");
	is($node->safe_psql($db, 'SELECT count(*) FROM evento._jumps'), '0', "$version: an update is no jump");
	$node->log_is_sound("updated from $version under load", $db);

	# What is updated can be dumped and restored.
	Evento::Contents::fill($node, $db, 500);
	my $contents = Evento::Contents::of($node, $db);
	my $dump = $node->basedir . "/dump_$db";
	$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr($db) ], "$version: dumped after the update");
	$node->safe_psql('postgres', "CREATE DATABASE ${db}_restored TEMPLATE template0");
	$node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr("${db}_restored"), $dump ], "$version: and restored");
	$node->settle("${db}_restored");
	Evento::Contents::same(Evento::Contents::of($node, "${db}_restored"), $contents, "$version: with all that it has");
	return;
}

# A dump of the old version restores into the new one.
sub dump_of_the_old
{
	my ($version, $db) = @_;
	create($db, $version);
	Evento::Contents::fill($node, $db, 500);
	my $dump = $node->basedir . "/dump_$db";
	my %before = %{ Evento::Contents::of($node, $db) };
	my $last = $node->safe_psql($db, 'SELECT max(position) FROM evento._events');
	$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr($db) ], "a dump of $version");
	$node->safe_psql('postgres', "CREATE DATABASE ${db}_new TEMPLATE template0");
	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr("${db}_new"), '-f', $dump ], "$version: restored");
	is($node->safe_psql("${db}_new", q{SELECT extversion FROM pg_extension WHERE extname = 'evento'}), $current, "$version: as $current");
	$node->settle("${db}_new");
	$node->safe_psql($db, 'ALTER EXTENSION evento UPDATE');
	Evento::Contents::same(Evento::Contents::of($node, "${db}_new"), Evento::Contents::of($node, $db), "$version: a dump from before has what an update in place has");
	my %after = %{ Evento::Contents::of($node, $db) };
	# Views may have got more columns.
	is_deeply({ map { $_ => $after{$_} } grep { !/^view/ } keys %before }, { map { $_ => $before{$_} } grep { !/^view/ } keys %before }, "$version: and the update changes no row");
	Evento::Contents::goes_on($node, "${db}_new", $last, "a dump of $version");
	return;
}

# A server that was not restarted runs on with a library that is older than the schema.
sub library_of_old
{
	create('later');
	$node->safe_psql('later', q(SELECT evento.append('s-1', 'T', '1'); CALL evento.wait(NULL)));
	$node->safe_psql('later', 'CREATE OR REPLACE VIEW evento.events AS SELECT v.*, 1 AS later FROM (' . $node->safe_psql('later', q(SELECT rtrim(pg_get_viewdef('evento.events'), ';'))) . ') v');
	$node->safe_psql('later', "ALTER TYPE evento.$_ ADD ATTRIBUTE later bigint") for qw(scanned_event stream_part);
	for my $function (q(read_all(0)), q(scan_all(0)), q(read_stream('s-1')), q(load_stream('s-1')))
	{
		my ($state, $message) = $node->state_of("SELECT count(*) FROM evento.$function", 'later');
		is($state, '55000', "a row type that the library does not know: $function is refused");
		like($message, qr/Restart the server/, 'and says what to do');
	}
	is($node->safe_psql('later', 'SELECT count(later) FROM evento.events'), 1, 'the view itself is read');
	return;
}

# The roles of the cluster, too, come from the first that made them.  A database
# may take the backslashes of strings in the old way (until 18).
my $old_strings = $node->safe_psql('postgres', 'SHOW server_version_num') < 190000 ? 'SET standard_conforming_strings = off; ' : '';
my %updated;
for my $version (@versions)
{
	my $tag = $version =~ tr/./_/r;
	create("updated_$tag", $version);
	$node->safe_psql("updated_$tag", "${old_strings}ALTER EXTENSION evento UPDATE");
	$updated{$version} = Evento::Catalog::of($node, "updated_$tag");
}
create('fresh', undef, $old_strings);
my $fresh = Evento::Catalog::of($node, 'fresh');
for my $version (@versions)
{
	my $tag = $version =~ tr/./_/r;
	create("old_$tag", $version);
	does_as_before("old_$tag", $version, 'the new library over the old schema');
	does_as_before("updated_$tag", $version, 'after the update');
	create("fresh_$tag");
	does_as_before("fresh_$tag", $version, 'in a fresh database');

	my @differences = Evento::Catalog::differences($updated{$version}, $fresh, 'the updated', 'a fresh one');
	ok(!@differences, "updated from $version: the catalogs say the same as of a fresh one");
	diag("$_") for @differences;
	update_under_load($version, "loaded_$tag");
	dump_of_the_old($version, "dumped_$tag");
}
library_of_old();
$node->stop;
done_testing();
