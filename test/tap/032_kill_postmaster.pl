# kill -9 of the postmaster, whose backends go on for a moment without it, and
# stop -m immediate, under load; the same on the standby.
use strict;
use warnings;

use Evento::Cluster;
use Evento::Ledger;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{EVENTO_LONG} ? 20 : 3;
my $node = Evento::Cluster->started('primary', conf => "wal_writer_delay = 10s\nevento.cached_streams = 64\n");
my $standby = $node->standby('standby');
my $ledger = Evento::Ledger->new($node);
$ledger->write(clients => 8, streams => 12, batch => 1);
$ledger->write(clients => 4, streams => 12, batch => 1, conninfo => $node->connstr('postgres') . q{ options='-c synchronous_commit=off'});
$ledger->read($node, $_) for qw(read_all view wait notify consumer);
$ledger->read($standby, $_) for qw(read_all view);

# Starts a server again at once; as long as backends of the one before are
# there, that is refused.
sub start_again
{
	my ($server) = @_;
	for (1 .. 600)
	{
		return if $server->start(fail_ok => 1);
		# A start that fails leaves the pid of the one before.
		$server->{_pid} = undef;
		sleep 0.1;
	}
	die 'the server did not start';
}

for my $round (1 .. $rounds)
{
	for my $server ($node, $standby)
	{
		$ledger->acknowledged(200);
		$server->kill9;
		start_again($server);
		pass("round $round: kill -9 of the postmaster, " . $server->name);
		$ledger->acknowledged(200);
		$server->stop('immediate');
		start_again($server);
		pass("round $round: stop -m immediate, " . $server->name);
	}
}
$ledger->acknowledged(300);
my $n = $ledger->survived('kill -9 of the postmaster', standbys => [$standby]);
cmp_ok($n->{acknowledged}, '>', 800 * $rounds, "$n->{acknowledged} operations were acknowledged");
$node->log_is_sound('in the end');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '0', 'a crash is no jump');
$standby->stop;
$node->stop;
done_testing();
