# Standbys: reads and waits there, writes refused, synchronous replication, and
# a promotion.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->started('primary');
$node->safe_psql('postgres', q{SELECT evento.append('s-' || n % 7, 'T', to_json(n), id => ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid) FROM generate_series(1, 500) n});
$node->safe_psql('postgres', q{SELECT evento.save_snapshot('s-1', 5, '{"at": 5}')});
$node->settle;
my $standby = $node->standby('standby');

# ---- reads ----

my @reads = ('SELECT md5(string_agg(e::text, E\'\n\' ORDER BY position)) FROM evento.events e', 'SELECT md5(string_agg(e::text, E\'\n\' ORDER BY position)) FROM evento.read_all(0, NULL) e',
	q{SELECT md5(string_agg(e::text, E'\n' ORDER BY version)) FROM evento.read_stream('s-3') e}, q{SELECT md5(string_agg(e::text, E'\n')) FROM evento.load_stream('s-1', '00000000-0000-0000-0000-000000000008') e},
	q{SELECT max(scanned) FROM evento.scan_all(0, 10, types => '{Nothing}')}, 'SELECT md5(string_agg(e::text, E\'\n\' ORDER BY stream)) FROM evento.streams e', 'SELECT evento.watermark()');
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $_), $node->safe_psql('postgres', $_), "the same on both: $_") for @reads;
is($standby->safe_psql('postgres', "BEGIN ISOLATION LEVEL REPEATABLE READ; $reads[1]; COMMIT"), $node->safe_psql('postgres', $reads[1]), 'in REPEATABLE READ too');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM evento.appending'), '0', 'nobody appends there');

# ---- writes ----

for my $write (q{SELECT evento.append('s-1', 'T', '1')}, q{SELECT evento.append_events('s-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[])},
	q{SELECT * FROM evento.append_batch('\x00')}, q{SELECT evento.delete_stream('s-1')}, q{SELECT evento.save_snapshot('s-1', 6, '1')}, q{SELECT evento.drop_snapshots('s-1')})
{
	my ($state, $text) = $standby->state_of($write);
	is($state, 'V0005', "refused: $write");
	like($text, qr/HINT/, 'with a hint');
}

# ---- the watermark follows, waiters are woken ----

my $session = $standby->background_psql('postgres');
my $pid = Evento::Cluster::backend_pid($session);
Evento::Cluster::send_to($session, q{CALL evento.wait(500, '60s');});
$standby->poll_query_until('postgres', "SELECT state = 'active' AND wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pid") or die 'does not wait';
is($standby->safe_psql('postgres', "SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid"), 't', 'a waiter on the standby holds no snapshot');
$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '501')});
is(Evento::Cluster::answer_of($session), '501', 'and is woken');
is($session->query_safe('SELECT max(position) FROM evento.events'), '501', 'then the event is there');
is($standby->safe_psql('postgres', q{CALL evento.wait(501, '300ms')}), '501', 'the time can run out there too');
is($standby->safe_psql('postgres', q{CALL evento.wait(NULL, '10s')}), '501', 'wait(NULL) there: what is replayed');
$session->quit;

# ---- the restart of a standby ----

$standby->restart;
is($standby->safe_psql('postgres', 'SELECT max(position) FROM evento.read_all(0, NULL)'), '501', 'a standby that starts anew reads at once');
is($standby->safe_psql('postgres', q{CALL evento.wait(500, '20s')}), '501', 'and waits');

# ---- a synchronous standby that is missing ----

$node->set_synchronous('*');
$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '502')});
$standby->stop;
my ($writer, $again, $loader) = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 3;
my $writer_pid = Evento::Cluster::backend_pid($writer);
Evento::Cluster::send_to($writer, q{SELECT evento.append('y-1', 'T', '503', id => '00000000-0000-0000-0000-000000000503');});
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM evento.appending WHERE pid = $writer_pid AND wait_event = 'SyncRep'"), 'appending says that a standby is missing');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.read_stream('y-1')}), '0', 'what is not replicated is not shown');
is($node->safe_psql('postgres', q{SET synchronous_commit = local; SELECT evento.append('y-2', 'T', '504')}), '1', 'who commits locally does so');
is($node->safe_psql('postgres', q{CALL evento.wait(502, '200ms')}), '502', 'but the order waits');

# The wait is cut off: the event is there, and its writer does not know of the standby.
$node->safe_psql('postgres', "SELECT pg_cancel_backend($writer_pid)");
is(Evento::Cluster::answer_of($writer), '1', 'a wait that is cut short');
like($writer->{stderr}, qr/WARNING.*canceling wait for synchronous replication/, 'is a warning');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.read_stream('y-1')}), '1', 'and the event is there');

# Whoever answers that it is stored waits for the standby as well.
my ($again_pid, $loader_pid) = map { Evento::Cluster::backend_pid($_) } $again, $loader;
Evento::Cluster::send_to($again, q{SELECT evento.append('y-1', 'T', '503', id => '00000000-0000-0000-0000-000000000503');});
Evento::Cluster::send_to($loader, q{SELECT count(*) FROM evento.load_stream('y-1', '00000000-0000-0000-0000-000000000503');});
ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM pg_stat_activity WHERE pid IN ($again_pid, $loader_pid) AND wait_event = 'SyncRep'"), 'a repeat and load_stream wait for the standby');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.load_stream('y-1', '00000000-0000-0000-0000-000000000999')}), '2', 'load_stream without a find does not');
ok(!Evento::Cluster::answered($_), 'no answer yet') for $again, $loader;
$standby->start;
is(Evento::Cluster::answer_of($again), '1', 'the standby is back: the repeat is answered');
is(Evento::Cluster::answer_of($loader), '3', 'and the load');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento.appending'), '0', 'nobody is in the middle of a commit');
is($node->settle, '504', 'and the order goes on');
$_->quit for $writer, $again, $loader;

# ---- promotion ----

$node->wait_for_catchup($standby);
$node->stop;
$standby->promote;
$standby->adjust_conf('postgresql.conf', 'synchronous_standby_names', undef);
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->reload;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM evento.read_all(0, NULL)'), '504', 'a promoted standby reads');
my $jumped = $standby->safe_psql('postgres', q{SELECT evento.append('s-1', 'After', '1') AS v \gset
SELECT last FROM evento.last_append()});
cmp_ok($jumped, '>', 1_000_000_000, 'and appends behind a jump');
is($standby->safe_psql('postgres', 'SELECT last_position, next_position <= ' . $jumped . ' FROM evento._jumps'), '504|t', 'which is on record');
is($standby->safe_psql('postgres', q{SELECT max(version) FROM evento.read_stream('s-1')}), $standby->safe_psql('postgres', q{SELECT version FROM evento.streams WHERE stream = 's-1'}), 'versions are dense over the jump');
cmp_ok($standby->safe_psql('postgres', q{CALL evento.wait(NULL, '20s')}), '>=', $jumped, 'its own worker moves the watermark');
is($standby->safe_psql('postgres', "SELECT count(*) FROM evento.events"), '505', 'all of it is readable');
$standby->restart;
$standby->safe_psql('postgres', q{SELECT evento.append('s-1', 'After', '2')});
is($standby->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '1', 'a restart is no second jump');
$standby->log_is_sound('after the promotion');
$standby->stop;
done_testing();
