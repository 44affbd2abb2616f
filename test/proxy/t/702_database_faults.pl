# 702_database_faults.pl
#   The database is killed, stopped, slow, out of connections, and fails over to
#   a standby, under load: no request waits longer than its timeout, all goes on
#   by itself within 10 s of the fault's end, and the log has what was answered.
#   EVENTO_LONG=1: each three times.
use strict;
use warnings;

use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::ProxyTest;
use Evento::Traffic;

my $test = Evento::ProxyTest->new(conf => "wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\nhot_standby_feedback = on\nmax_connections = 40\nrestart_after_crash = on\n");
my $primary = $test->node;
my $node = $primary;    # who takes writes
my $standby = $test->synchronous_standby;

my $hosts = sprintf 'host=%s,%s port=%s,%s dbname=postgres user=proxy', $standby->host, $primary->host, $standby->port, $primary->port;
my @proxy = map { $test->start(flags => { database => $hosts, 'cut-time' => '2s', 'database-wait' => '10s' }) } 1 .. 2;
# The faults last longer than that.
my $traffic = Evento::Traffic->new(proxies => \@proxy, callers => 4, handlers => 2, timeout => 2500);
my $rounds = $ENV{EVENTO_LONG} ? 3 : 1;

sub sql { return $node->safe_psql('postgres', $_[0]) }

# A backend of the proxies that runs append_batch, or the one that did last.
sub append_backend { return sql(q(SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%' AND query LIKE '%append_batch%' ORDER BY state = 'active' DESC LIMIT 1)) }

# Holds something in a session of its own while there is load.
sub while_held
{
	my ($sql, $seconds, $what) = @_;
	my $session = $node->background_psql('postgres');
	$session->query_safe("BEGIN; $sql");
	my $failed = grep { defined $_->{failure} } @{ $traffic->{commands} };
	$traffic->run($seconds);
	$session->query_safe('ROLLBACK');
	$session->quit;
	$traffic->recovers(10, $what);
	note sprintf '%s: %d failed', $what, (grep { defined $_->{failure} } @{ $traffic->{commands} }) - $failed;
	return;
}

# Takes all the connections there are, for so many seconds.
sub without_connections
{
	my ($seconds) = @_;
	my @taken;
	my $until = time + $seconds;
	my $startup = pack('N', 196608) . "user\0proxy\0database\0postgres\0application_name\0taken\0\0";
	while (time < $until)
	{
		for (1 .. 40)
		{
			my $socket = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port) or last;
			syswrite $socket, pack('N', 4 + length $startup) . $startup;
			sysread $socket, my $answer, 1;
			# An error: none is left.
			last if ($answer // 'E') ne 'R';
			push @taken, $socket;
		}
		# The ones that the proxies still have: there is none to replace them.  Who begins a session may have the last of those that are
		# kept for superusers for a moment.
		eval { sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%')) } if @taken && time < $until - $seconds / 2;
		$traffic->run(0.2);
	}
	close $_ for @taken;
	return scalar @taken;
}

ok($traffic->run(60, sub { 30 < grep { defined $_->{object} } @{ $traffic->{commands} } }), 'there is load');

for my $round (1 .. $rounds)
{
	# ---- killed ----

	# The server ends all sessions, recovers, and goes on.
	kill 'KILL', append_backend();
	$traffic->run(1);
	$traffic->recovers(10, 'a backend is killed in the middle of appends');

	sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%'));
	$traffic->recovers(10, 'all sessions of the proxies are ended');

	# ---- stopped ----

	$node->stop('immediate');
	$traffic->run(5);
	$node->start;
	$traffic->recovers(10, 'the server is down for 5 s');

	# It takes connections and answers nothing.
	my $backend = append_backend();
	kill 'STOP', $backend;
	$traffic->run(4);
	kill 'CONT', $backend;
	$traffic->recovers(10, 'a backend stands still for 4 s');

	# ---- slow ----

	sql(q(SELECT evento.append('common', 'Placed', '{}'))) if $round == 1;
	while_held(q(SELECT evento.append('common', 'Placed', '{}')), 4, 'another transaction holds a stream for 4 s');
	while_held('LOCK TABLE evento._events IN SHARE ROW EXCLUSIVE MODE', 4, 'nobody can append for 4 s');
	while_held('LOCK TABLE evento._events IN ACCESS EXCLUSIVE MODE', 4, 'nobody can read or append for 4 s');

	# ---- out of connections ----

	cmp_ok(without_connections(4), '>', 10, 'all connections are taken for 4 s');
	$traffic->recovers(10, 'out of connections');
}

# ---- failover ----

$node->stop('immediate');
$traffic->run(1);
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
$standby->promote;
$node = $standby;
$traffic->recovers(10, 'failover');

$traffic->check(\&sql, 'all faults');
is($_->stop, 0, "$_->{name} ends in order") for @proxy;
done_testing();
