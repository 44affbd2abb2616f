# Many clients on few streams: recorded histories are linearizable per stream,
# and every reader's view is a prefix of one order; also while statements are
# cancelled and sessions are ended at random.
use strict;
use warnings;

use Evento::Cluster;
use Evento::Ledger;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = Evento::Cluster->started('primary', conf => "evento.cached_streams = 64\ncommit_delay = 1000\ncommit_siblings = 1\n");
my $ledger = Evento::Ledger->new($node);
$ledger->write(clients => 16, streams => 6, batch => 1, max_pause => 10);
$ledger->read($node, $_) for qw(read_all view wait notify);
$ledger->acknowledged(1000);
my $n = $ledger->survived('many clients on few streams');
cmp_ok($n->{conflicts}, '>', 50, "$n->{conflicts} conflicts");
$node->stop;
done_testing();
