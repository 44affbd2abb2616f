# The primary loses its power in full load, a standby is promoted, and writers
# and readers go on there by themselves.  With a synchronous standby nothing
# acknowledged is lost; with an asynchronous one that is behind, what is lost
# keeps its positions, and the old primary comes back by pg_rewind.
use strict;
use warnings;

use Evento::Cluster;
use Evento::Ledger;
use PostgreSQL::Test::Utils;
use Test::More;

my $long = $ENV{EVENTO_LONG} ? 10 : 1;
my $count = 0;

# The worker of database postgres.
sub worker_of
{
	my ($node) = @_;
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'evento worker%' AND datname = 'postgres'}) or die 'no worker';
	return $node->safe_psql('postgres', q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type LIKE 'evento worker%' AND datname = 'postgres'});
}

# A primary, a standby, and writers and readers on whoever takes writes.
sub pair
{
	my (%opt) = @_;
	$count++;
	my $primary = Evento::Cluster->started("primary$count", conf => "wal_log_hints = on\nwal_keep_size = 512MB\nwal_receiver_status_interval = 1s\n");
	my $standby = $primary->standby("standby$count");
	if ($opt{synchronous})
	{
		$primary->append_conf('postgresql.conf', "synchronous_commit = $opt{synchronous}");
		$primary->set_synchronous($standby->name);
	}
	my $ledger = Evento::Ledger->new($primary, conninfo => Evento::Cluster::read_write('postgres', $primary, $standby));
	$ledger->write(clients => 8, streams => 12, batch => 1, positions => 1);
	$ledger->write(clients => 4, streams => 12, positions => 1);
	$ledger->read($ledger->{conninfo}, $_) for qw(read_all view wait);
	$ledger->read($standby, $_) for qw(read_all view wait);
	$ledger->acknowledged(300 * $long);
	return ($primary, $standby, $ledger);
}

# Somebody who waits on the standby for what only comes once it is promoted.
sub waiter
{
	my ($standby) = @_;
	my $session = $standby->background_psql('postgres');
	my $pid = Evento::Cluster::backend_pid($session);
	# Behind everything that the primary will ever have told.
	Evento::Cluster::send_to($session, q{CALL evento.wait(1000000000, '120s');});
	$standby->poll_query_until('postgres', "SELECT state = 'active' AND wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = $pid") or die 'does not wait';
	return $session;
}

# What holds of every promotion.
sub promoted
{
	my ($standby, $ledger, $session, $worker, $what) = @_;
	cmp_ok(Evento::Cluster::answer_of($session), '>', 1_000_000_000, "$what: a wait that began on the standby ends on the new primary");
	$session->quit;
	is(worker_of($standby), $worker, "$what: the worker of the standby goes on as the primary's");
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '1', "$what: one jump is on record");
	is($standby->safe_psql('postgres', q{SELECT reason FROM evento._jumps}), 'another timeline: a promotion or a recovery to a point in time', "$what: with its reason");
	is($standby->safe_psql('postgres', q{SELECT count(*) FROM evento._events e, evento._jumps j WHERE e.position > j.last_position AND e.position < j.next_position}), '0', "$what: nothing has a position in between");
	$standby->log_is_sound($what);
	return;
}

# ---- synchronous: nothing acknowledged is lost ----

for my $level ('on', $ENV{EVENTO_LONG} ? 'remote_apply' : ())
{
	my ($primary, $standby, $ledger) = pair(synchronous => $level);
	my $session = waiter($standby);
	my $worker = worker_of($standby);
	like($worker, qr/^\d+$/, 'the standby has a worker');
	$ledger->acknowledged(200 * $long);
	$primary->lose_power;
	$standby->promote;
	$ledger->acknowledged(300 * $long);
	my $n = $ledger->survived("a synchronous standby ($level) is promoted", on => $standby, lossless => 1);
	is($n->{lost}, 0, "$level: none of $n->{acknowledged} acknowledged operations is lost");
	promoted($standby, $ledger, $session, $worker, $level);
	$standby->stop;
}

# ---- asynchronous, and behind ----

my ($primary, $standby, $ledger) = pair();
my $session = waiter($standby);
my $worker = worker_of($standby);
my $receiver = $standby->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'});
$ledger->acknowledged(200 * $long);

# From here on the standby gets nothing.
my $behind_since = $ledger->now;
kill('STOP', $receiver);
$ledger->acknowledged(300 * $long);
my $told = $primary->safe_psql('postgres', 'SELECT max(position) FROM evento._events');
$primary->lose_power;
kill('CONT', $receiver);
$standby->promote;
$ledger->acknowledged(300 * $long);
my $n = $ledger->survived('an asynchronous standby that is behind is promoted', on => $standby, lossy_after => $behind_since);
cmp_ok($n->{lost}, '>', 0, "$n->{lost} of $n->{acknowledged} acknowledged operations are lost");
cmp_ok($standby->safe_psql('postgres', 'SELECT next_position FROM evento._jumps'), '>', $told, 'positions go on behind those that readers have seen');
promoted($standby, $ledger, $session, $worker, 'asynchronous');

# ---- the old primary comes back as a standby of the new one ----

my $again = Evento::Ledger->new($standby, name => 'again', conninfo => Evento::Cluster::read_write('postgres', $primary, $standby));
$again->write(clients => 4, streams => 5);
my $conf = slurp_file($primary->data_dir . '/postgresql.conf');
$standby->safe_psql('postgres', 'CHECKPOINT');
command_ok([ 'pg_rewind', '--no-sync', '--source-server', $standby->connstr('postgres'), '--target-pgdata', $primary->data_dir ], 'pg_rewind of the old primary');
unlink $primary->data_dir . '/postgresql.conf';
append_to_file($primary->data_dir . '/postgresql.conf', $conf);
$primary->enable_streaming($standby);
$primary->start;
$again->acknowledged(50);
$standby->wait_for_catchup($primary);
my $last = $standby->safe_psql('postgres', 'SELECT max(position) FROM evento.events');
cmp_ok($primary->safe_psql('postgres', sprintf q{CALL evento.wait(%s, '60s')}, $last - 1), '>=', $last, 'it follows the new one');
is($primary->state_of(q{SELECT evento.append('s', 'T', '1')}), 'V0005', 'and takes no writes');
ok($again->stop_writers, 'writers end');
$last = $standby->followed_by($primary);
my $all = q{SELECT count(*) || ' ' || md5(string_agg(e::text, E'\n' ORDER BY position)) FROM evento.read_all(0, NULL) e};
is($primary->safe_psql('postgres', $all), $standby->safe_psql('postgres', $all), 'both have the same log');

# And forth.
$standby->stop;
$primary->promote;
my $forth = $primary->safe_psql('postgres', q{SELECT evento.append('back-' || n, 'T', '1') FROM generate_series(1, 3) n} . ";\nSELECT last FROM evento.last_append()");
cmp_ok((split /\n/, $forth)[-1], '>', $last + 999_999_999, 'promoted again, it jumps again');
is($primary->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '2', 'and records that');
$primary->log_is_sound('there and back');
$primary->stop;
done_testing();
