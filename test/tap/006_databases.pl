# Several databases in one server, each with a log of its own; the worker of
# each; DROP and CREATE of extension and database.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = Evento::Cluster->make('main', conf => "evento.max_databases = 5\nmax_worker_processes = 20\n");
$node->start;

# What a database with the extension must do: append, and show it.
sub works
{
	my ($db, $what, $after) = @_;
	my $position = $node->safe_psql($db, q{SELECT evento.append('w', 'T', '1') AS v \gset
SELECT last FROM evento.last_append()});
	cmp_ok($node->settle($db), '>=', $position, "$what: the watermark moves");
	is($node->safe_psql($db, "SELECT count(*) FROM evento.events WHERE position = $position"), '1', "$what: the event is there");
	return $position;
}

sub worker_of
{
	my ($db) = @_;
	my $pid = '';
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'evento worker' AND datname = '$db'") or return;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'evento worker' AND datname = '$db'");
}

# ---- logs of their own ----

for my $db ('one', 'two')
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION evento');
	is(works($db, "$db, made while the server runs"), '1', "$db starts at position 1");
	ok(worker_of($db), "$db has a worker");
}
$node->safe_psql('one', q{SELECT evento.append('s-1', 'T', '1') FROM generate_series(1, 2000)});
is($node->settle('one'), '2001', 'one goes on');
is(works('two', 'two'), '2', 'two does not care');
is($node->safe_psql('two', q{SELECT count(*) FROM evento.read_stream('s-1')}), '0', 'nor see it');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'evento worker'}), '2', 'no worker where there is no extension');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'evento launcher'}), '1', 'one launcher');

# ---- a worker that dies ----

my $listener = $node->background_psql('one');
$listener->query_safe('LISTEN evento');
for my $round (1 .. 2)
{
	my $worker = worker_of('one');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
	works('one', "round $round, the worker was terminated");
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'evento worker' AND datname = 'one' AND pid <> $worker"), 'a new one runs');
}
$listener->quit;

# ---- the launcher dies ----

my $launcher = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'evento launcher'});
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
works('one', 'without a launcher');
$node->safe_psql('postgres', 'CREATE DATABASE three');
$node->safe_psql('three', 'CREATE EXTENSION evento');
works('three', 'made without a launcher');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'evento launcher' AND pid <> $launcher"), 'the launcher is back');

# ---- a restart finds them all ----

$node->restart;
ok(worker_of($_), "after a restart $_ has a worker before anyone asks") for 'one', 'two', 'three';
works($_, "$_ after a restart") for 'one', 'two', 'three';

# ---- commands that want the database to themselves ----

is($node->state_of('CREATE DATABASE copy TEMPLATE one'), '', 'a database with a worker can be copied');
cmp_ok($node->safe_psql('copy', 'SELECT count(*) FROM evento.read_all(0, NULL)'), '>', 2000, 'the copy has its events');
my $last = $node->safe_psql('copy', 'SELECT max(position) FROM evento._events');
cmp_ok(works('copy', 'the copy'), '>', $last + 100000, 'and goes on behind a jump');
is($node->safe_psql('copy', 'SELECT count(*) FROM evento._jumps WHERE last_position = ' . $last), '1', 'which is on record');
works('one', 'the original');
is($node->safe_psql('one', 'SELECT count(*) FROM evento._jumps'), '0', 'which has not jumped');
is($node->state_of('ALTER DATABASE two RENAME TO zwei'), '', 'it can be renamed');
works('zwei', 'renamed');
is($node->state_of('DROP DATABASE zwei'), '', 'and dropped');
my $holder = $node->background_psql('three');
is($node->state_of('DROP DATABASE three'), '55006', 'not while others are connected');
works('three', 'still there');
$holder->quit;

# One whose worker is just about to start.
for my $round (1 .. 25)
{
	my $pause = 0.001 * ($round - 1);
	my ($state, $text) = $node->state_of("CREATE DATABASE brief;\n\\c brief\nCREATE EXTENSION evento; SELECT evento.append('s', 'T', '1'); SELECT pg_sleep($pause);\n\\c postgres\nDROP DATABASE brief");
	is($state, '', "dropped $pause s after the first use") or diag($text);
	$node->state_of('DROP DATABASE IF EXISTS brief');
}

# ---- the extension goes and comes ----

my $session = $node->background_psql('three');
$session->query_safe(q{SELECT evento.append('s-1', 'T', '1')});
$node->safe_psql('three', 'DROP EXTENSION evento');
$node->safe_psql('three', 'CREATE EXTENSION evento');
is($session->query_safe(q{SELECT evento.append('s-1', 'T', '1', expected => 0)}), '1', 'a session of before goes on');
is($session->query_safe('SELECT first, last FROM evento.last_append()'), '1|1', 'from position 1');
is($node->settle('three'), '1', 'the watermark starts anew');
is($node->safe_psql('three', 'SELECT count(*) FROM evento.events'), '1', 'and shows the event');
works('three', 'made again');
for my $round (1 .. 3)
{
	$node->safe_psql('three', 'BEGIN; DROP EXTENSION evento; CREATE EXTENSION evento; COMMIT');
	is(works('three', "made again in one transaction, $round"), '1', 'from position 1');
}
$node->safe_psql('three', 'BEGIN; DROP EXTENSION evento; ROLLBACK');
is(works('three', 'a DROP rolled back'), '2', 'changes nothing');
$session->quit;

# ---- one that lets nobody in keeps what its sessions use ----

my $inside = $node->background_psql('three');
my $inside_last = $inside->query_safe(q{SELECT evento.append('s-2', 'T', '1') AS v \gset
SELECT last FROM evento.last_append()});
$node->safe_psql('postgres', 'ALTER DATABASE three ALLOW_CONNECTIONS false');
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . worker_of('three') . ')');
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'evento worker' AND datname = 'three'}) or die 'the worker stays';
# The launcher looks at it again a second after its worker went.
my $appended = 0;
for (my $until = time + 3; time < $until; $appended++)
{
	$inside->query_safe(q{SELECT evento.append('s-2', 'T', '2')});
	sleep 0.05;
}
$node->safe_psql('postgres', 'CREATE DATABASE four');
$node->safe_psql('four', 'CREATE EXTENSION evento');
is(works('four', 'a new database meanwhile'), '1', 'has a log of its own');
is($inside->query_safe(q{SELECT evento.append('s-2', 'T', '3') AS v \gset
SELECT last FROM evento.last_append()}), $inside_last + $appended + 1, 'its positions go on');
is(works('four', 'the new one'), '2', 'as do those of the new one');
$node->safe_psql('postgres', 'ALTER DATABASE three ALLOW_CONNECTIONS true');
works('three', 'open again');
$inside->quit;
is($node->state_of('DROP DATABASE four'), '', 'the new one is dropped');

# ---- limits ----

$node->safe_psql('postgres', "CREATE DATABASE d$_") for 4 .. 6;
my @states;
for (4 .. 6)
{
	$node->safe_psql("d$_", 'CREATE EXTENSION evento');
	push @states, scalar $node->state_of(q{SELECT evento.append('s', 'T', '1')}, "d$_");
}
is(join(' ', grep { $_ ne '' } @states), '53400', 'more databases than evento.max_databases: a clear error');
works('one', 'the others go on');
is($node->state_of('DROP DATABASE d4'), '', 'one is dropped');
is($node->state_of(q{SELECT evento.append('s', 'T', '1')}, 'd6'), '', 'and makes room');

$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
is($node->state_of('CREATE EXTENSION evento', 'latin'), '0A000', 'UTF8 databases only');
$node->log_is_sound('one', 'one');
$node->stop;
done_testing();
