# Many requests at once on one connection, and on one lock.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Interop;
use Test::More;

my $t = Interop->new;
$t->start_postgres;
my @proxies = map { $t->add_proxy("proxy$_") } 1 .. 2;
$t->start_bundle('command', $proxies[0]);
$t->start_bundle('query', $proxies[0]);
$t->await_bundles;

$t->play('many', $proxies[0], 'one proxy');
$t->check_alone('one proxy', qr/-lock-(?:reserve|count)-/);
$t->check_handled_once('one proxy');

# A second instance of the command side, elsewhere: the lock is the cluster's.
$t->start_bundle('command', $proxies[1]);
$t->await_bundles;
$t->play('many', $proxies[1], 'two proxies, two command sides');
$t->check_alone('two proxies, two command sides', qr/-lock-(?:reserve|count)-/);
my %instances = map { $_->{instance} => 1 } grep { $_->{what} eq 'begin' } $t->trace;
is(scalar(keys %instances), 2, 'both command sides were asked');
$t->check_log('many');
$t->proxies_run;

done_testing();
