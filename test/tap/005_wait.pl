# wait: returns when it should and not before, holds no snapshot, can be
# cancelled, is refused where it would hold one; and who LISTENs hears.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = Evento::Cluster->started('main');

# ---- time ----

my $start = time;
is($node->safe_psql('postgres', q{CALL evento.wait(0, '300ms')}), '0', 'nothing there: the time runs out');
my $took = time - $start;
cmp_ok($took, '>=', 0.3, 'not before');
cmp_ok($took, '<', 20, 'and not long after');
is($node->safe_psql('postgres', q{CALL evento.wait(NULL)}), '0', 'wait(NULL) of an empty log returns at once');
is($node->safe_psql('postgres', q{CALL evento.wait(-1, '20s')}), '0', 'as does what has passed already');
is($node->safe_psql('postgres', q{CALL evento.wait(0, '0')}), '0', 'a timeout of nothing only looks');

# ---- woken ----

my @waiters = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 12;
my @pids = map { Evento::Cluster::backend_pid($_) } @waiters;
my $pids = join ',', @pids;
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN evento');
Evento::Cluster::send_to($_, q{CALL evento.wait(0, '120s');}) for @waiters;
ok($node->poll_query_until('postgres', "SELECT count(*) = 12 FROM pg_stat_activity WHERE pid IN ($pids) AND state = 'active' AND wait_event_type = 'Extension'"), 'twelve wait');
is($node->safe_psql('postgres', "SELECT count(backend_xmin) || ' ' || count(backend_xid) FROM pg_stat_activity WHERE pid IN ($pids)"), '0 0', 'they hold no snapshot and no transaction id');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE pid IN ($pids) AND mode NOT IN ('AccessShareLock', 'ExclusiveLock')"), '0', 'nor a lock that others could wait for');
$start = time;
$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '1')});
is(join(' ', map { Evento::Cluster::answer_of($_) } @waiters), join(' ', (1) x 12), 'an append wakes all of them');
cmp_ok(time - $start, '<', 20, 'soon');
is($waiters[0]->query_safe('SELECT max(position) FROM evento.events'), '1', 'and then the event is there');
like($listener->query_safe('SELECT 1'), qr/Asynchronous notification "evento" with payload "1"/, 'who LISTENs hears of it');

# wait(NULL) reads one's own writes, every time
my @seen = map { $waiters[0]->query_safe("SELECT evento.append('own', 'T', '$_') AS v \\gset\nCALL evento.wait(NULL) \\gset\nSELECT max(version) FROM evento.events WHERE stream = 'own'") } 1 .. 50;
is("@seen", join(' ', 1 .. 50), 'wait(NULL), and own events are there');
@seen = map { $waiters[0]->query_safe("SELECT evento.append('own', 'T', '$_') AS v \\gset\nSELECT last - 1 AS p FROM evento.last_append() \\gset\nCALL evento.wait(:p) \\gset\nSELECT max(version) FROM evento.events WHERE stream = 'own'") } 51 .. 80;
is("@seen", join(' ', 51 .. 80), 'so with the token of last_append');

# ---- cancelled, terminated ----

Evento::Cluster::send_to($waiters[0], q{CALL evento.wait(999999, '120s');});
$node->poll_query_until('postgres', "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pids[0]") or die 'does not wait';
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pids[0])");
Evento::Cluster::answer_of($waiters[0]);
like($waiters[0]->{stderr}, qr/canceling statement due to user request/, 'a wait can be cancelled');
$waiters[0]->{stderr} = '';
is($waiters[0]->query('SELECT 1'), '1', 'its session goes on');
is($waiters[0]->query(q{CALL evento.wait(0, '20s')}), '81', 'and waits again');
is($node->state_of(q{SET statement_timeout = '100ms'; CALL evento.wait(999999, '120s')}), '57014', 'statement_timeout ends a wait');
Evento::Cluster::send_to($waiters[1], q{CALL evento.wait(999999, '120s');});
$node->poll_query_until('postgres', "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pids[1]") or die 'does not wait';
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pids[1])");
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pids[1]"), 'a waiter can be terminated');

# ---- refused ----

my %refused = (
	'a transaction block' => [ '25001', q{BEGIN; CALL evento.wait(NULL, '1s'); COMMIT} ],
	'a function' => [ '25001', q{CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE plpgsql AS $$ DECLARE w bigint; BEGIN CALL evento.wait(NULL, '1s', w); END $$; SELECT pg_temp.f()} ],
	'REPEATABLE READ' => [ '25001', q{SET default_transaction_isolation = 'repeatable read'; CALL evento.wait(NULL, '1s')} ],
	'SERIALIZABLE' => [ '25001', q{SET default_transaction_isolation = 'serializable'; CALL evento.wait(NULL, '1s')} ],
	'a negative timeout' => [ '22023', q{CALL evento.wait(NULL, '-1s')} ],
	'a timeout of NULL' => [ '22023', q{CALL evento.wait(NULL, NULL)} ]);
is($node->state_of($refused{$_}[1]), $refused{$_}[0], "refused: $_") for sort keys %refused;

# ---- in a procedure, where it is allowed ----

$node->safe_psql('postgres', 'CREATE TABLE seen (n bigint)');
is($node->state_of(q{DO $$ DECLARE w bigint; r record; BEGIN
  PERFORM evento.append('own', 'T', '0'); COMMIT;
  CALL evento.wait(NULL, '20s', w);
  INSERT INTO seen SELECT max(version) FROM evento.events WHERE stream = 'own';
  FOR r IN SELECT position FROM evento.events ORDER BY position LIMIT 3 LOOP
    CALL evento.wait(0, '20s', w);
  END LOOP;
  COMMIT;
END $$}), '', 'a procedure may wait, and go on');
is($node->safe_psql('postgres', 'SELECT max(n) FROM seen'), '81', 'and has read its own write');

# ---- a very long time is no overflow ----

$start = time;
is($node->state_of(q{SET statement_timeout = '300ms'; CALL evento.wait(999999, '1000000 years')}), '57014', 'a million years');
is($node->state_of(q{SET statement_timeout = '300ms'; CALL evento.wait(9223372036854775807, '1 day')}), '57014', 'for the last position there could be');

$_->quit for grep { $_ != $waiters[1] } @waiters;
eval { $waiters[1]->quit };
$listener->quit;
$node->stop;
done_testing();
