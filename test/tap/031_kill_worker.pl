# kill -9 of the worker of a database and of the launcher, and the same with
# SIGTERM, which takes nobody else along: both come back, waiting sessions are
# woken, readers go on.
use strict;
use warnings;

use Evento::Cluster;
use Evento::Ledger;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{EVENTO_LONG} ? 20 : 1;
my $node = Evento::Cluster->started('primary', conf => "wal_writer_delay = 10s\n");
my $standby = $node->standby('standby');
my $ledger = Evento::Ledger->new($node);
$ledger->write(clients => 6, streams => 12, batch => 1);
$ledger->read($node, $_) for qw(read_all view wait notify consumer);
$ledger->read($standby, $_) for qw(read_all view wait);

# The pid of one of ours on a server, waited for.
sub pid_of
{
	my ($server, $type) = @_;
	my $sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND ('$type' = 'evento launcher' OR datname = 'postgres')";
	$server->poll_query_until('postgres', $sql =~ s/SELECT pid/SELECT count(*) = 1/r) or die "no $type";
	return $server->safe_psql('postgres', $sql);
}

for my $round (1 .. $rounds)
{
	for my $case ([ $node, 'evento worker' ], [ $node, 'evento launcher' ], [ $standby, 'evento worker' ], [ $standby, 'evento launcher' ])
	{
		my ($server, $type) = @$case;
		for my $signal ('TERM', 'KILL')
		{
			my $what = "round $round, " . $server->name . ", SIG$signal of the $type";
			$ledger->acknowledged(100);
			my $pid = pid_of($server, $type);
			my $before = -s $server->logfile;
			is(kill($signal, $pid), 1, $what);
			$server->wait_for_log(qr/all server processes terminated; reinitializing/, $before) if $signal eq 'KILL';
			$server->wait_back or die "$what: the server did not come back";
			$server->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
			isnt(pid_of($server, $type), $pid, "$what: there is another");
		}
	}
}
$ledger->acknowledged(300);
my $last = $node->safe_psql('postgres', 'SELECT max(position) FROM evento._events');
cmp_ok($node->safe_psql('postgres', "CALL evento.wait($last - 1, '60s')"), '>=', $last, 'sessions that wait are woken');
$ledger->survived('kill of workers and launchers', standbys => [$standby]);
$node->log_is_sound('in the end');
$standby->stop;
$node->stop;
done_testing();
