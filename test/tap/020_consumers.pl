# Exactly once and in order: two consumers of the log, two processes competing
# for each, while writers commit late, owners dawdle past their lease, are
# terminated and killed, and strangers' transactions stay open all the while.
# Checkpoints survive a dump.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{EVENTO_LONG} ? 12 : 3;
my $node = Evento::Cluster->started('main', conf => "autovacuum_naptime = 1\n");
my @started;
my ($stop_writers, $stop_consumers) = map { $node->basedir . "/stop_$_" } 'writers', 'consumers';

# ---- what is made of the events, and by whom ----

# applied is written by nothing but the effect of a consumer: n is the order in which that was done.
$node->safe_psql('postgres', q{
CREATE TABLE applied (consumer text, n bigserial, position bigint, worker text, epoch bigint);
CREATE PROCEDURE project(consumer text, categories text[], worker text) LANGUAGE plpgsql AS $$
DECLARE
  owned bigint;
  upto bigint;
  event record;
  readable bigint;
BEGIN
  LOOP
    SELECT c.epoch, c.position INTO owned, upto FROM evento.consumer_claim(consumer, '700 ms', categories => project.categories, held => owned) c;
    COMMIT;
    IF owned IS NULL THEN
      PERFORM pg_sleep(0.05);
      CONTINUE;
    END IF;
    FOR event IN SELECT * FROM evento.consumer_fetch(consumer, 30) LOOP
      upto := event.scanned;
      CONTINUE WHEN event.position IS NULL;
      INSERT INTO applied (consumer, position, worker, epoch) VALUES (project.consumer, event.position, project.worker, owned);
      IF random() < 0.002 THEN
        PERFORM pg_sleep(1.2);  -- past its lease, in the middle
      END IF;
    END LOOP;
    PERFORM evento.consumer_ack(consumer, upto, owned);
    COMMIT;
    CALL evento.wait(upto, '100 ms', readable);
  END LOOP;
END
$$});

my @consumers = (launch_consumer('all', 'NULL', 1), launch_consumer('all', 'NULL', 2), launch_consumer('part', q{'{p}'}, 1), launch_consumer('part', q{'{p}'}, 2));

# Whatever happens, they end.
END
{
	my $status = $?;
	kill 'KILL', grep { $_ } map { $_->{pid} } grep { $_ } @started;
	$? = $status;
}

sub launch_consumer
{
	my ($consumer, $categories, $worker) = @_;
	my $sql = "CALL project('$consumer', $categories, '$worker')";
	push @started, $node->launch('sh', '-c', qq{until [ -e $stop_consumers ]; do psql -XAtq -v VERBOSITY=verbose -d postgres -c "SET application_name = 'project $consumer $worker'" -c "$sql"; sleep 0.1; done});
	return $started[-1];
}

my %scripts = (
	plain => q{
\set s random(1, 200)
SELECT evento.append('p-' || :s, 'Plain', '1');
},
	late => q{
\set s random(1, 200)
\set ms random(0, 60)
BEGIN;
SELECT evento.append('q' || :client_id || '-' || :s, 'Late', '1');
\sleep :ms ms
SELECT evento.append(NULL, 'Late', '2');
COMMIT;
},
	gone => q{
BEGIN;
SELECT evento.append('p-' || :client_id, 'Gone', '1');
\sleep 5 ms
ROLLBACK;
});
append_to_file($node->basedir . "/$_.pgbench", "$scripts{$_}\\sleep 20 ms\n") for keys %scripts;
my $files = join ' ', map { '-f ' . $node->basedir . "/$_.pgbench" } sort keys %scripts;
my $writers = $node->launch('sh', '-c', "until [ -e $stop_writers ]; do pgbench -n -c 8 -j 1 -T 2 $files postgres; sleep 0.2; done");
push @started, $writers;

# A stranger: it has appended, has a snapshot, and looks on.
sub stranger
{
	my $session = $node->background_psql('postgres');
	$session->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ});
	$session->query_safe($_) for q{SELECT evento.append('stranger', 'Never', '1')}, 'SELECT * FROM evento.consumers', 'SELECT count(*) FROM evento.events', 'SELECT count(*) FROM applied';
	return $session;
}

# Both consumers get beyond where the log ends now.
sub all_go_on
{
	my ($what) = @_;
	my $until = time + 120;
	my $end;
	while (!defined $end && time < $until)
	{
		$end = eval { $node->settle };
		sleep 0.2 if !defined $end;
	}
	ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM evento.consumers WHERE position >= $end"), "$what: both go on, past $end");
	return;
}

$node->poll_query_until('postgres', 'SELECT count(*) = 2 FROM evento.consumers WHERE position > 100') or die 'the consumers do not move';
my $stranger = stranger();
all_go_on('at first');
for my $round (1 .. $rounds)
{
	# Without its lease having run out, another takes over as soon as that has.
	my ($consumer, $pid, $epoch) = split /\|/, $node->safe_psql('postgres', 'SELECT consumer, owner_pid, epoch FROM evento.consumers WHERE live ORDER BY random() LIMIT 1') || 'all|0|0';
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)") if $pid;
	ok($node->poll_query_until('postgres', "SELECT epoch > $epoch FROM evento.consumers WHERE consumer = '$consumer'"), "round $round: an owner is terminated, another takes over");
	all_go_on("round $round, one terminated");
	my $was = $stranger->query_safe('SELECT min(position) FROM evento.consumers');
	ok($node->poll_query_until('postgres', "SELECT min(position) > $was FROM evento.consumers"), "round $round: the stranger looks at what was");
	if ($round == 2 || $round % 4 == 0)
	{
		# All sessions end with the one that is killed.
		$pid = $node->safe_psql('postgres', 'SELECT owner_pid FROM evento.consumers WHERE live LIMIT 1') until $pid && kill 0, $pid;
		kill 'KILL', $pid;
		eval { $stranger->quit };
		$node->wait_back($pid) or die 'the server did not come back';
		all_go_on("round $round, one killed");
		$stranger = stranger();
	}
}

# One that surely dawdles, and is fenced.
my ($dawdler, $other) = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
$dawdler->query_safe(q{SELECT set_config('test.epoch', epoch::text, false) FROM evento.consumer_claim('fenced', '10 ms')});
$dawdler->query_safe(q{BEGIN; INSERT INTO applied (consumer, position) SELECT 'fenced', position FROM evento.consumer_fetch('fenced', 5) WHERE position IS NOT NULL});
$node->poll_query_until('postgres', q{SELECT NOT live FROM evento.consumers WHERE consumer = 'fenced'});
$other->query_safe(q{SELECT set_config('test.epoch', epoch::text, false) FROM evento.consumer_claim('fenced', '1 min')});
$other->query_safe(q{BEGIN; INSERT INTO applied (consumer, position) SELECT 'fenced', position FROM evento.consumer_fetch('fenced', 3) WHERE position IS NOT NULL; SELECT evento.consumer_ack('fenced', 3, current_setting('test.epoch')::bigint); COMMIT});
$dawdler->query(q{SELECT evento.consumer_ack('fenced', 5, current_setting('test.epoch')::bigint); COMMIT});
like($dawdler->{stderr}, qr/consumer "fenced" is not held with the epoch given/, 'who dawdled is fenced');
is($node->safe_psql('postgres', q{SELECT string_agg(position::text, ' ' ORDER BY position) FROM applied WHERE consumer = 'fenced'}), '1 2 3', 'and what it did is undone');
$node->safe_psql('postgres', q{SELECT evento.consumer_drop('fenced')});
$_->quit for $dawdler, $other;

# ---- the end ----

$node->poll_query_until('postgres', 'SELECT count(*) > 600 FROM evento._events') or die 'nobody writes';
append_to_file($stop_writers, 'now');
is($node->finish($writers, 60) & 127, 0, 'writers have ended');
my $end = $node->settle;
ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM evento.consumers WHERE position >= $end AND lag_events = 0 AND lag_seconds = 0"), "both are at the end, $end");
is($stranger->query_safe('SELECT 1'), '1', 'with a stranger still open');
append_to_file($stop_consumers, 'now');
# The procedures do not look; their sessions are ended.
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL project%'});
$node->finish($_, 60) for @consumers;
@started = ();
$stranger->quit;

my $events = $node->safe_psql('postgres', 'SELECT count(*) FROM evento.events');
cmp_ok($events, '>', 500, "$events events");
for my $case ([ 'all', 'true' ], [ 'part', q{stream LIKE 'p-%'} ])
{
	my ($consumer, $where) = @$case;
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT position) FROM applied WHERE consumer = '$consumer'"), $node->safe_psql('postgres', "SELECT count(*), count(*) FROM evento.events WHERE $where"), "$consumer: as many effects as events, none twice");
	is($node->safe_psql('postgres', "SELECT count(*) FROM (SELECT position FROM applied WHERE consumer = '$consumer' EXCEPT SELECT position FROM evento.events WHERE $where) x"), '0', "$consumer: each an event's");
	is($node->safe_psql('postgres', "SELECT count(*) FROM (SELECT position < lag(position) OVER (ORDER BY n) AS back FROM applied WHERE consumer = '$consumer') x WHERE back"), '0', "$consumer: in order");
	cmp_ok($node->safe_psql('postgres', "SELECT count(DISTINCT epoch) FROM applied WHERE consumer = '$consumer'"), '>', 1, "$consumer: by several owners");
}
my $fenced = () = join('', map { slurp_file($_->{err}) } @consumers) =~ /ERROR:  V0008/g;
note "$fenced acks of former owners were refused";
unlike(join('', map { slurp_file($_->{err}) } @consumers), qr/ERROR:  (?!V0008|57P0|XX000: server)\w{5}/, 'no other error met them');

# ---- deleted and erased streams ----

$node->safe_psql('postgres', q{SELECT evento.append('doomed', 'Doomed', '1') FROM generate_series(1, 3); SELECT evento.append('kept', 'Kept', '1'); SELECT evento.append('erased', 'Erased', '1'); SELECT evento.append('kept', 'Kept', '2')});
my $last = $node->settle;
$node->safe_psql('postgres', q{SELECT evento.delete_stream('doomed')});
$node->safe_psql('postgres', q{SELECT evento.erase_stream('erased', 'for the test')}) if $node->safe_psql('postgres', q{SELECT count(*) FROM pg_proc WHERE proname = 'erase_stream' AND pronamespace = 'evento'::regnamespace});
is($node->safe_psql('postgres', q{SELECT string_agg(type, ' ' ORDER BY scanned), max(scanned) FROM evento.consumer_fetch('all')}), "Kept Erased Kept|$last", 'what was deleted is not given, what was erased keeps its place');
is($node->safe_psql('postgres', q{SELECT max(scanned) FROM evento.consumer_fetch('part')}), $last, 'a filter looks past all of them');

# ---- a dump ----

my $columns = 'consumer, kind, position, epoch, owner, lease_until, context, types, categories, created_at, claimed_at, acked_at, lost_range';
my $before = $node->safe_psql('postgres', "SELECT $columns FROM evento.consumers ORDER BY 1");
$node->command_ok([ 'pg_dump', '-Fc', '-f', $node->basedir . '/dump', $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr('restored'), $node->basedir . '/dump' ], 'pg_restore');
is($node->safe_psql('restored', "SELECT $columns FROM evento.consumers ORDER BY 1"), $before, 'consumers are restored as they were');
my $next = $node->safe_psql('restored', q{SELECT evento.append('kept', 'New', '1') AS v \gset
SELECT last FROM evento.last_append()});
$node->settle('restored');
cmp_ok($next, '>', $last + 1000000, 'the log goes on behind a jump');
is($node->safe_psql('restored', q{SELECT lag_events FROM evento.consumers WHERE consumer = 'all'}), '7', 'that does not count as lag');
is($node->safe_psql('restored', q{SELECT string_agg(position::text, ' ' ORDER BY scanned) FROM evento.consumer_fetch('all') WHERE type = 'New'}), $next, 'the consumer finds what is new');
is($node->safe_psql('restored', qq{SELECT evento.consumer_ack('all', $next, epoch) FROM evento.consumer_claim('all', '1 min')}), 't', 'and goes on');
is($node->safe_psql('restored', q{SELECT lag_events, lag_seconds = 0 FROM evento.consumers WHERE consumer = 'all'}), '0|t', 'to the end');
$node->stop;
done_testing();
