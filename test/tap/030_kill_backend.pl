# kill -9 of a backend in the middle of its commits, again and again: the
# server restarts all of its processes, and loses and mixes up nothing.
use strict;
use warnings;

use Evento::Cluster;
use Evento::Ledger;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{EVENTO_LONG} ? 40 : 5;

# Without the forced flush of an append, acknowledged events would wait ten seconds for the WAL writer.
my $node = Evento::Cluster->started('primary', conf => "wal_writer_delay = 10s\nevento.cached_streams = 64\n");
my $standby = $node->standby('standby');
my $ledger = Evento::Ledger->new($node);
$ledger->write(clients => 8, streams => 12, batch => 1);
$ledger->write(clients => 4, streams => 12, batch => 1, conninfo => $node->connstr('postgres') . q{ options='-c synchronous_commit=off'});
$ledger->read($node, $_) for qw(read_all view wait notify consumer);
$ledger->read($standby, $_) for qw(read_all view wait);

my $killed = 0;
for my $round (1 .. $rounds)
{
	$ledger->acknowledged(300);
	my $pid = '';
	# One that is committing, where one is met.
	for (1 .. 50)
	{
		$pid = $node->safe_psql('postgres', q{SELECT pid FROM evento.appending LIMIT 1});
		last if $pid ne '';
	}
	$pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'evento-ledger' AND backend_type = 'client backend' ORDER BY (state = 'active') DESC, random() LIMIT 1})
	  if $pid eq '';
	my $before = -s $node->logfile;
	$killed += kill('KILL', $pid);
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $before);
	$node->wait_back or die 'the server did not come back';
}
is($killed, $rounds, "$killed backends were killed");
$ledger->acknowledged(300);
my $n = $ledger->survived('kill -9 of backends', standbys => [$standby]);
cmp_ok($n->{acknowledged}, '>', 300 * $rounds, "$n->{acknowledged} operations were acknowledged");
$node->log_is_sound('in the end');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '0', 'a crash is no jump');
$standby->stop;
$node->stop;
done_testing();
