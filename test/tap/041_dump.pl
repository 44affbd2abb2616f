# The log survives pg_dump and a restore in every format, into an empty server
# and into one that runs: positions, versions, ids, snapshots, deletions,
# catalogue.  The restored one goes on behind a jump.
use strict;
use warnings;

use Evento::Cluster;
use Evento::Contents;
use Evento::Ledger;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->started('main', conf => "max_worker_processes = 40\n");
Evento::Contents::fill($node, 'postgres');
my $contents = Evento::Contents::of($node, 'postgres');
is(join(' ', Evento::Contents::empty($contents)), '_indexes', 'there is something of everything to keep');
my $last = $node->safe_psql('postgres', 'SELECT max(position) FROM evento._events');
my $other = Evento::Cluster->make('other', conf => "max_worker_processes = 40\n");
$other->start;

# Who adds a table decides whether a dump carries it.
is_deeply([ Evento::Contents::not_dumped($node, 'postgres') ], \@Evento::Contents::not_dumped, 'a dump leaves out what belongs to the running server alone');

is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_constraint k JOIN pg_extension e ON k.conrelid = ANY (e.extconfig) AND e.extname = 'evento' WHERE k.contype = 'f'}),
	'0', 'no table that is dumped has a foreign key: a parallel restore would load them in any order');

my %dump = (
	plain => [ '-Fp' ],
	custom => [ '-Fc' ],
	directory => [ '-Fd', '-j', '2' ],
	tar => [ '-Ft' ],
	schema => [ '-Fp', '--schema-only' ],
	data => [ '-Fp', '--data-only' ],
	data_without_triggers => [ '-Fp', '--data-only', '--disable-triggers' ],
	clean => [ '-Fc', '--clean' ]);
my $base = $node->basedir;
$node->command_ok([ 'pg_dump', @{ $dump{$_} }, '-f', "$base/dump_$_", $node->connstr('postgres') ], "pg_dump @{ $dump{$_} }") for sort keys %dump;

sub new_database
{
	my ($server, $db) = @_;
	$server->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
	return;
}

# Restores a dump; options go to psql or pg_restore.
sub restore
{
	my ($server, $db, $format, @options) = @_;
	return $format =~ /^(?:custom|directory|tar|clean)$/
	  ? [ 'pg_restore', '-e', @options, '-d', $server->connstr($db), "$base/dump_$format" ]
	  : [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', @options, '-d', $server->connstr($db), '-f', "$base/dump_$format" ];
}

sub is_restored
{
	my ($server, $db, $what, %opt) = @_;
	cmp_ok($server->settle($db), '>=', $last, "$what: the watermark covers it");
	Evento::Contents::same(Evento::Contents::of($server, $db), $contents, "$what: all is kept");
	is($server->safe_psql($db, 'SELECT (SELECT count(*) FROM evento._secret) + (SELECT count(*) FROM evento._proxies) + (SELECT count(*) FROM evento._locks)'), '0', "$what: without secret, leases and locks");
	my $next = Evento::Contents::goes_on($server, $db, $last, $what, %opt);
	$server->log_is_sound($what, $db);
	return $next;
}

# ---- every format, into an empty server and into one that runs ----

my $given;
for my $case ([ $node, 'plain' ], [ $node, 'directory', '-j', '3' ], [ $node, 'tar', '-1' ], [ $other, 'plain', '-1' ], [ $other, 'custom' ], [ $other, 'directory', '-j', '3' ])
{
	my ($server, $format, @options) = @$case;
	my $db = "restored_$format";
	my $what = "$format @options, " . ($server == $node ? 'the same server' : 'another server');
	new_database($server, $db);
	$server->command_ok(restore($server, $db, $format, @options), "$what: restored");
	my $next = is_restored($server, $db, $what);
	cmp_ok($next, '>', $given, "$what: its positions are not those that a restore before has given") if defined $given;
	$given = $next;
}

# What is restored can be dumped and restored again.
$other->command_ok([ 'pg_dump', '-Fc', '-f', "$base/dump_again", $other->connstr('restored_custom') ], 'a dump of what was restored');
new_database($other, 'again');
$other->command_ok([ 'pg_restore', '-e', '-d', $other->connstr('again'), "$base/dump_again" ], 'is restored');
Evento::Contents::same(Evento::Contents::of($other, 'again'), Evento::Contents::of($other, 'restored_custom'), 'with all that it has');
my $before = $other->safe_psql('again', 'SELECT max(position) FROM evento._events');
is($other->safe_psql('again', 'SELECT last_position FROM evento._jumps ORDER BY next_position LIMIT 1'), $last, 'and the first jump');
Evento::Contents::goes_on($other, 'again', $before, 'restored twice');

# ---- schema and data apart ----

new_database($other, 'apart');
$other->command_ok(restore($other, 'apart', 'schema'), '--schema-only: restored');
is($other->safe_psql('apart', 'SELECT (SELECT count(*) FROM evento._events) + (SELECT count(*) FROM evento._identity)'), '0', '--schema-only makes an empty log');
$other->command_ok(restore($other, 'apart', 'data'), '--data-only: restored into it');
is_restored($other, 'apart', '--schema-only, then --data-only');
new_database($other, 'used');
$other->safe_psql('used', q{CREATE EXTENSION evento; SELECT evento.append('mine', 'T', '1')});
is($other->safe_psql('used', 'SELECT max(position) FROM evento._events'), '1', 'a log that is used');
$other->command_fails(restore($other, 'used', 'data', '-1'), '--data-only into a log that is used fails');
is($other->safe_psql('used', q{SELECT evento.append('mine', 'T', '2') || ' ' || (SELECT count(*) FROM evento._events)}), '2 1', 'and leaves it as it was');
new_database($other, 'silent');
$other->safe_psql('silent', 'CREATE EXTENSION evento');
$other->command_ok(restore($other, 'silent', 'data_without_triggers', '-1'), '--data-only --disable-triggers: restored');
is_restored($other, 'silent', '--disable-triggers');

# ---- into the place of the original ----

# Later events are lost by that, and readers have seen them.
$node->safe_psql('postgres', q{SELECT evento.append('later-' || n % 5, 'Later', '1') FROM generate_series(1, 3000) n});
my $seen = $node->safe_psql('postgres', 'SELECT max(position) FROM evento._events');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '0', 'the original has not jumped');
$node->command_ok(restore($node, 'postgres', 'clean', '--clean', '--if-exists'), 'pg_restore --clean over the original');
my $next = is_restored($node, 'postgres', '--clean');
cmp_ok($next, '>', $seen, '--clean: no position that readers have seen is given again');
is($node->safe_psql('postgres', 'SELECT reason FROM evento._jumps'), 'rows that were loaded: a restore', '--clean: what is on record says so');

# ---- dumps that are taken while writers run ----

$node->safe_psql('postgres', 'CREATE DATABASE busy TEMPLATE template0');
$node->safe_psql('busy', 'CREATE EXTENSION evento');
my $ledger = Evento::Ledger->new($node, db => 'busy');
$ledger->write(clients => 6, streams => 15, batch => 1, positions => 1);
$ledger->read($node, $_) for qw(read_all view);
for my $format (qw(custom directory))
{
	my $what = "$format, dumped under load";
	$ledger->acknowledged(200);
	my $before = $ledger->now;
	$node->command_ok([ 'pg_dump', @{ $dump{$format} }, '-f', "$base/dump_busy_$format", $node->connstr('busy') ], $what);
	my $after = $ledger->now;
	$ledger->acknowledged(50);
	new_database($node, "busy_$format");
	$node->command_ok([ 'pg_restore', '-e', ($format eq 'directory' ? ('-j', '3') : ()), '-d', $node->connstr("busy_$format"), "$base/dump_busy_$format" ], "$what: restored beside it");
	my ($well, $n, $text) = $ledger->check($node, db => "busy_$format", lossy_after => $before, absent_after => $after);
	ok($well, "$what: it has what was acknowledged before, nothing torn, versions dense") or diag($text);
	my $told = $node->safe_psql('busy', 'SELECT evento.watermark()');
	my $first = $node->safe_psql("busy_$format", q{SELECT evento.append('new', 'After', '1') AS v \gset
SELECT first FROM evento.last_append()});
	cmp_ok($first, '>', $told, "$what: positions go on behind what readers of the original have seen");
	my $own = Evento::Ledger->new($node, db => "busy_$format", name => "_$format");
	$own->write(clients => 3, streams => 5);
	$own->read($node, 'read_all');
	$own->acknowledged(50);
	ok($own->stop_writers, "$what: writers go on");
	$node->settle("busy_$format");
	ok($own->stop_readers, "$what: and readers");
	$node->log_is_sound($what, "busy_$format");
}
$ledger->survived('the original of these dumps', lossless => 1);
is($node->safe_psql('busy', 'SELECT count(*) FROM evento._jumps'), '0', 'it has not jumped');

$other->stop;
$node->stop;
done_testing();
