# The watermark without luck: a transaction is stopped between taking its
# position and committing. Until it goes on, or is gone, nothing behind that
# position is shown to anyone who reads in the global order.
use strict;
use warnings;

use Cwd qw(abs_path);
use Evento::Cluster;
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->started('primary', preload => 'evento,' . Evento::Cluster::pause_module(), conf => "bgwriter_lru_maxpages = 0\nshared_buffers = 64MB\nwal_buffers = 8MB\n");
my $standby = $node->standby('standby');
my ($gate, $paused, $waiter, $waiter_null, $listener) = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 5;
my $waiter_standby = $standby->background_psql('postgres');
my $paused_pid = Evento::Cluster::backend_pid($paused);

$node->safe_psql('postgres', q{SELECT evento.append('start', 'T', '1')});
is($node->settle, '1', 'one event');
$gate->query_safe('SELECT pg_advisory_lock(42)');
$paused->query_safe('SET evento_pause.lock = 42');
$listener->query_safe('LISTEN evento');

# Sends a commit that will be stopped, and waits until it is.
sub stop_in_commit
{
	my ($sql) = @_;
	Evento::Cluster::send_to($paused, $sql);
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $paused_pid AND wait_event_type = 'Lock' AND wait_event = 'advisory'")
	  or die 'the transaction was not stopped';
	return;
}

# Everything that reads in the global order sees events up to this position and no more.
sub all_see
{
	my ($last, $what) = @_;
	is($node->safe_psql('postgres', 'SELECT evento.watermark()'), $last, "$what: watermark()");
	is($node->safe_psql('postgres', 'SELECT max(position) FROM evento.events'), $last, "$what: events");
	is($node->safe_psql('postgres', 'SELECT max(position) FROM evento.read_all()'), $last, "$what: read_all");
	is($node->safe_psql('postgres', 'SELECT max(scanned) FROM evento.scan_all()'), $last, "$what: scan_all");
	is($node->safe_psql('postgres', q{SELECT max(scanned) FROM evento.scan_all(types => '{Nothing}')}), $last, "$what: scan_all, how far it looked");
	is($node->safe_psql('postgres', "BEGIN ISOLATION LEVEL $_; SELECT max(position) FROM evento.read_all(); COMMIT"), $last, "$what: read_all in $_") for 'REPEATABLE READ', 'SERIALIZABLE';
	# The watermark is committed asynchronously: a commit that is not brings it to disk.
	$node->safe_psql('postgres', q{SELECT pg_logical_emit_message(true, 'test', '')});
	$node->wait_for_catchup($standby);
	$standby->safe_psql('postgres', "CALL evento.wait($last - 1, '60s')");
	is($standby->safe_psql('postgres', 'SELECT max(position) FROM evento.events'), $last, "$what: events on the standby");
	is($standby->safe_psql('postgres', 'SELECT max(position) FROM evento.read_all()'), $last, "$what: read_all on the standby");
	return;
}

# ---- one that is stopped and goes on ----

stop_in_commit(q{SELECT evento.append('s-1', 'Stopped', '1');});
is($node->safe_psql('postgres', 'SELECT pid, first_position, wait_event_type, wait_event, state FROM evento.appending'), "$paused_pid|2|Lock|advisory|active", 'appending names it');
like($node->safe_psql('postgres', 'SELECT query FROM evento.appending'), qr/append\('s-1'/, 'with its query');
is($node->safe_psql('postgres', q{SELECT transaction_age BETWEEN '0' AND '5 min' AND "user" = current_user FROM evento.appending}), 't', 'its age and user');

is($node->safe_psql('postgres', q{SELECT evento.append('s-2', 'Later', '1') AS v \gset
SELECT first, last FROM evento.last_append()}), '3|3', 'another one commits behind it, without waiting');
is($node->safe_psql('postgres', 'SELECT max(position) FROM evento._events'), '3', 'its row is there');
is($node->safe_psql('postgres', q{SELECT type FROM evento.read_stream('s-2')}), 'Later', 'and its stream can be read');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.load_stream('s-2') WHERE part = 'event'}), '1', 'and loaded');
all_see(1, 'while it is stopped');

is($node->safe_psql('postgres', q{CALL evento.wait(1, '200ms')}), '1', 'wait(1) does not return early');
is($node->safe_psql('postgres', q{CALL evento.wait(NULL, '200ms')}), '1', 'nor does wait(NULL)');
is($node->safe_psql('postgres', q{CALL evento.wait(0, '20s')}), '1', 'what has passed already does');
is($standby->safe_psql('postgres', q{CALL evento.wait(1, '200ms')}), '1', 'nor on the standby');
Evento::Cluster::send_to($waiter, q{CALL evento.wait(1, '60s');});
Evento::Cluster::send_to($waiter_null, q{CALL evento.wait(NULL, '60s');});
Evento::Cluster::send_to($waiter_standby, q{CALL evento.wait(1, '60s');});
$node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'CALL evento.wait%' AND state = 'active' AND wait_event_type = 'Extension'}) or die 'nobody waits';

# Others go on as ever: more commits, an open transaction, one rolled back.
$node->safe_psql('postgres', q{BEGIN; SELECT evento.append('s-3', 'Gone', '1'); ROLLBACK; SELECT evento.append('s-3', 'Later', '1') FROM generate_series(1, 50)});
all_see(1, 'while others go on');
ok(!Evento::Cluster::answered($_), 'a waiter still waits') for $waiter, $waiter_null, $waiter_standby;

$gate->query_safe('SELECT pg_advisory_unlock(42)');
is(Evento::Cluster::answer_of($paused), '1', 'it goes on');
cmp_ok(Evento::Cluster::answer_of($waiter), '>=', 2, 'the waiter is woken');
cmp_ok(Evento::Cluster::answer_of($waiter_null), '>=', 3, 'and the one that waits for all');
cmp_ok(Evento::Cluster::answer_of($waiter_standby), '>=', 2, 'and the one on the standby');
is($node->settle, '53', 'the watermark is at the end');
all_see(53, 'afterwards');
is($node->safe_psql('postgres', q{SELECT string_agg(stream, ' ' ORDER BY position) FROM evento.read_all(1, 2)}), 's-1 s-2', 'in the order of positions');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento.appending'), '0', 'nobody holds it back');
like($listener->query_safe('SELECT 1'), qr/1/, 'the listener is there');

# ---- one that is stopped and ends otherwise ----

for my $end ('cancelled', 'terminated')
{
	my $before = $node->settle;
	$gate->query_safe('SELECT pg_advisory_lock(42)');
	stop_in_commit(q{SELECT evento.append('s-9', 'Stopped', '1');});
	$node->safe_psql('postgres', q{SELECT evento.append('s-2', 'Later', '1')});
	all_see($before, "before it is $end");
	$node->safe_psql('postgres', 'SELECT ' . ($end eq 'cancelled' ? 'pg_cancel_backend' : 'pg_terminate_backend') . "($paused_pid)");
	is($node->settle, $before + 2, "$end: its position stays empty, the watermark goes past it");
	all_see($before + 2, $end);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.read_stream('s-9')}), '0', "$end: nothing of it is stored");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM evento.appending'), '0', "$end: it is out of appending");
	$gate->query_safe('SELECT pg_advisory_unlock(42)');
	Evento::Cluster::answer_of($paused) if $end eq 'cancelled';
}

# ---- what a failed commit leaves in the index misleads nobody ----

my $helpers = abs_path(dirname(__FILE__) . '/../regress/pgtap/helpers.psql');
eval { $paused->quit };
$paused = $node->background_psql('postgres', on_error_stop => 0);
$paused_pid = Evento::Cluster::backend_pid($paused);
$paused->query_safe('SET evento_pause.lock = 42');
$node->safe_psql('postgres', q{SELECT evento.append('k-1', 'T', '1', id => '00000000-0000-0000-0000-000000000001')});
$gate->query_safe('SELECT pg_advisory_lock(42)');
stop_in_commit(q{SELECT evento.append('k-1', 'T', '2');});
$node->safe_psql('postgres', "SELECT pg_cancel_backend($paused_pid)");
Evento::Cluster::answer_of($paused);
$gate->query_safe('SELECT pg_advisory_unlock(42)');
is($node->safe_psql('postgres', "\\i $helpers\nSELECT outcome, first_version, detail FROM evento.append_batch(pg_temp.batch(pg_temp.item('k-1', ARRAY[pg_temp.event('T', '1', '00000000-0000-0000-0000-000000000001')], 0, 64)))"),
	'00000|1|repeat', 'an id is found behind it, also in the smallest window');
is($node->safe_psql('postgres', q{SELECT evento.append('k-1', 'T', '2', expected => 1)}), '2', 'and its version is free');

# ---- a crash while one is stopped ----

my $before = $node->settle;
$gate->query_safe('SELECT pg_advisory_lock(42)');
stop_in_commit(q{SELECT evento.append('s-8', 'Stopped', '1');});
my $later = $node->safe_psql('postgres', q{SELECT evento.append('s-2', 'Later', '1') AS v \gset
SELECT last FROM evento.last_append()});
$node->stop('immediate');
eval { $_->quit } for $gate, $paused, $waiter, $waiter_null, $listener;
$node->start;
cmp_ok($node->settle, '>=', $later, 'after a crash nothing holds the watermark back');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.events WHERE stream = 's-8'}), '0', 'what was stopped is gone');
is($node->safe_psql('postgres', "SELECT count(*) FROM evento.events WHERE position = $later"), '1', 'what was acknowledged behind it is there');

# ---- positions of a commit that failed, which readers went past, and a crash ----

# Their reservation must not be lost for want of a commit that brings it to disk.
# So that nobody else does, the WAL writer is stopped.
# A checkpoint makes the next reservation write a record of its own.
($gate, $paused) = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
$paused_pid = Evento::Cluster::backend_pid($paused);
$gate->query_safe('SELECT pg_advisory_lock(42)');
$paused->query_safe('SET evento_pause.lock = 42');
my $walwriter = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
$node->safe_psql('postgres', 'CHECKPOINT');
kill 'STOP', $walwriter;
stop_in_commit(q{SELECT evento.append_events('s-7', ARRAY(SELECT ROW('Stopped', '1', NULL, NULL, NULL, NULL, NULL)::evento.new_event FROM generate_series(1, 1100)));});
$node->safe_psql('postgres', "SELECT pg_cancel_backend($paused_pid)");
Evento::Cluster::answer_of($paused);
my $past = $node->settle;
is($node->safe_psql('postgres', 'SELECT max(scanned) FROM evento.scan_all(0, NULL, max_scan => NULL)'), $past, 'readers are past the positions of a commit that failed');
kill 'KILL', $walwriter;
eval { $_->quit } for $gate, $paused;
$node->wait_back($walwriter) or die 'the server did not come back';
cmp_ok($node->safe_psql('postgres', q{SELECT evento.append('s-7', 'T', '1') AS v \gset
SELECT first FROM evento.last_append()}), '>', $past, 'after a crash they are not given to others');

# ---- a worker that looks before it has been told that the extension is gone ----

$node->safe_psql('postgres', 'CREATE DATABASE brief');
$node->safe_psql('brief', q{CREATE EXTENSION evento; SELECT evento.append('s', 'T', '1')});
$node->settle('brief');
my $dropper = $node->background_psql('brief');
$dropper->query_safe('SET evento_pause.committed_ms = 500');
$dropper->query_safe('DROP EXTENSION evento');
my ($left, $until) = (1, time + 30);
sleep 0.1 while ($left = $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'evento worker' AND datname = 'brief'})) && time < $until;
is($left, '0', 'goes all the same');
$dropper->quit;

$waiter_standby->quit;
$standby->stop;
$node->stop;
done_testing();
