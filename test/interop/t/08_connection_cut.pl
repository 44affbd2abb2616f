# The connection of a bundle cut in the middle of commands: of the caller, of the handler, and both come back at another proxy.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Interop;
use Test::More;

use Time::HiRes qw(sleep time);

my $t = Interop->new;
$t->start_postgres;
# Who is cut off comes back before he is given up, on a busy machine too.
my @proxies = map { $t->add_proxy("proxy$_", 'cut-time' => '20s') } 1 .. 2;
my $handler = $t->start_forwarder($proxies[0]);
my $caller = $t->start_forwarder($proxies[0]);
my $projection = $t->start_forwarder($proxies[0]);
$t->start_bundle('command', $handler);
$t->start_bundle('query', $projection);
$t->await_bundles;

# Starts commands and queries, waits until the handlers of all of them run (and
# those that ask a query have its answer: what is lost on the way in a cut is
# nobody's to answer), calls the action, and then checks that each was answered,
# and each command handled once.
sub in_flight
{
	my ($label, $action, @arguments) = @_;
	my $count = 12;
	my $child = $t->start_invoker('inflight', $caller, '--count', $count, '--sleep-millis', 4000, @arguments);
	my $run = $t->await_line($child, 'RUN (\S+)');
	$t->await(sub {
			my @trace = $t->trace;
			$count == grep({ $_->{what} eq ($_->{command} eq 'StockCount' ? 'asked' : 'begin') && $_->{marker} =~ /^\Q$run\E-flight-/ } @trace)
			  && 3 == grep({ $_->{what} eq 'begin' && $_->{command} eq 'OrderFind' && $_->{marker} =~ /^\Q$run\E-/ } @trace);
		}, 60) or $t->give_up($child, 'had not all of its commands begun');
	$action->();
	$t->finish($child, $label);
	$t->check_handled_once($label, "$run-") if !@arguments;
	return $run;
}

in_flight('nobody cut', sub { });
in_flight('caller cut', sub { $t->forwarder($caller, 'cut') });
in_flight('handler cut', sub { $t->forwarder($handler, 'cut') });
in_flight('handler away for a while', sub {
	$t->forwarder($handler, 'down');
	sleep 1;
	$t->forwarder($handler, 'up');
});
in_flight('both cut', sub { $t->forwarder($_, 'cut') for $handler, $caller });

in_flight('query side cut', sub { $t->forwarder($projection, 'cut') });

# Back at another proxy.
in_flight('caller comes back at another proxy', sub {
	$t->forwarder($caller, "target 127.0.0.1:$proxies[1]{bundle}");
	$t->forwarder($caller, 'cut');
});
in_flight('handler comes back at another proxy', sub {
	$t->forwarder($handler, "target 127.0.0.1:$proxies[1]{bundle}");
	$t->forwarder($handler, 'cut');
});
ok($t->await(sub { ($t->proxy_of($t->{bundles}[0]{instance}) // {})->{name} eq 'proxy2' }), 'the command side is at the other proxy');
in_flight('handler comes back across', sub {
	$t->forwarder($handler, "target 127.0.0.1:$proxies[0]{bundle}");
	$t->forwarder($handler, 'cut');
});

# A handler that stays away is given up: commands of orders go to another
# instance, since nothing of theirs was stored.
$t->start_bundle('command', $proxies[1]);
$t->await_bundles;
my $run = in_flight('handler stays away', sub { $t->forwarder($handler, 'down') }, '--services', 'no', '--timeout-millis', 120_000);
my %handled;
$handled{ $_->{marker} }{ $_->{instance} } = 1 for grep { $_->{what} eq 'begin' && $_->{marker} =~ /^\Q$run\E-flight-/ } $t->trace;
ok((grep { keys %$_ == 2 } values %handled), 'commands that the one had begun were handled by the other');
$t->forwarder($handler, 'up');
$t->check_log('cut');
$t->proxies_run;

done_testing();
