# Command side, query side and invoker each on a different proxy of three.
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
$t->start_bundle('process', $proxies[2]);
$t->await_bundles;
for my $bundle (@{ $t->{bundles} })
{
	is($t->proxy_of($bundle->{instance})->{bundle}, $proxies[ { command => 0, query => 1, process => 2 }->{ $bundle->{name} =~ s/-.*//r } ]{bundle},
		"$bundle->{name} is at its proxy");
}
$t->play('basic', $proxies[2], 'basic');
$t->check_log('basic');
$t->check_handled_once('basic');

# A second query bundle builds its projection from the whole log before it takes requests.
$t->start_bundle('query', $proxies[0]);
$t->await_bundles;
my $load = $t->start_load($proxies[1], 3, 12_000);
$t->finish($load, 'load');
is(scalar(grep { $_->{what} eq 'failed' } $t->record($load)), 0, 'load: no command failed');
# Queries go to either: both must be complete.
$t->verify($proxies[$_], "verify at proxy " . ($_ + 1)) for 0, 1;
$t->check_log('load');
$t->proxies_run;

done_testing();
