# A command, event, story, snapshot, query answer and fetch that fit no single frame, over links between proxies.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Interop;
use Test::More;

my $t = Interop->new;
$t->start_postgres;
my @proxies = map { $t->add_proxy("proxy$_") } 1 .. 3;
$t->start_bundle('command', $proxies[0]);
$t->start_bundle('query', $proxies[1]);
$t->await_bundles;

$t->play('large', $proxies[2], 'over links', '--timeout-millis', 120_000);
$t->play('large', $proxies[0], 'beside the command side', '--timeout-millis', 120_000);
$t->check_log('large');
$t->check_handled_once('large');
is($t->sql(q{SELECT count(*) FROM evento.events WHERE octet_length(data->>'text') = 20000000}), 4, 'the large events are in the log as they were sent');
# A new projector fetches them all, from the start.
$t->start_bundle('query', $proxies[2]);
$t->await_bundles;
$t->proxies_run;

done_testing();
