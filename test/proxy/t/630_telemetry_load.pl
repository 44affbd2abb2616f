# 630_telemetry_load.pl
#   Telemetry under load: simulated bundles at two proxies tell of every call,
#   and each call is counted, while their consumers answer to SQL.
use strict;
use warnings;

use IPC::Run;
use Test::More;
use Time::HiRes qw(sleep);

use Evento::ProxyTest;

my $sim = $ENV{EVENTO_SIM} // __FILE__ =~ s{test/proxy/t/[^/]*$}{build/evento-sim}r;
plan skip_all => "there is no evento-sim at $sim" if !-x $sim;
my $count = $ENV{EVENTO_LONG} ? 100_000 : 3_000;

my $test = Evento::ProxyTest->new;
my @proxies = map { $test->start(flags => { 'telemetry-interval' => '100ms', 'log-level' => 'info' }) } 1 .. 2;
my ($out, $err) = ('', '');
# Longer than anything here takes: a signal ends the load.
my $run = IPC::Run::start([ $sim, '--proxies', join(',', map { "127.0.0.1:$_->{port}" } @proxies), '--telemetry', '--handlers', 2, '--callers', 16, '--consumers', 1,
		'--count', 1_000_000_000 ], '>', \$out, '2>', \$err, IPC::Run::timeout(280));
ok($proxies[0]->wait_for(sub { $test->sql(q{SELECT count(*) FROM evento.consumers WHERE consumer = 'sim-consumer_SimProjector_1_*' AND position > 0}) == 1 }), 'a consumer fetches');
my $status = '';
$test->node->psql('postgres', q{CALL evento.consumer_status('sim-consumer_SimProjector_1_*', timeout => '60s')}, stdout => \$status, stderr => \my $why);
like($status, qr/"lastEventSequenceNumber": \d+/, 'and answers meanwhile') or diag $why;
ok($proxies[0]->wait_for(sub { ($test->sql(q{SELECT sum(handled) FROM evento.handler_statistics WHERE bundle = 'sim-command'}) || 0) >= $count }, 200), "$count calls are told of");
$run->signal('TERM');
ok($run->finish, 'all answers and events were right') or diag "$out\n$err";

# The simulated handlers tell of a call right behind its answer.
my $handled = q{SELECT sum(handled) FROM evento.handler_statistics WHERE bundle = 'sim-command'};
my $events = q{SELECT count(*) FROM evento.events WHERE kind = 'domain'};
ok($proxies[0]->wait_for(sub { ($test->sql($handled) || 0) >= $test->sql($events) }), 'each call was counted')
  or diag $test->sql($handled) . ' calls, ' . $test->sql($events) . ' events';
is($test->sql(q{SELECT string_agg(DISTINCT component_type || ' ' || handler_type, ', ') FROM evento.handler_statistics WHERE bundle = 'sim-command'}), 'Aggregate AggregateCommandHandler', 'at the handler that discovery names');
is($_->metric('telemetry_dropped_total'), 0, "$_->{name} has left out nothing") for @proxies;
is($_->stop, 0, 'ends') for @proxies;
done_testing();
