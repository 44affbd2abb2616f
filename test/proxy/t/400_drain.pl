# 400_drain.pl
#   SIGTERM: a proxy lets its bundles go, finishes what it was asked, leaves the
#   cluster and ends; under load no command fails for it.
use strict;
use warnings;

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;

my $sim = $ENV{EVENTO_SIM} // __FILE__ =~ s{test/proxy/t/[^/]+$}{build/evento-sim}r;
my $test = Evento::ProxyTest->new;
# Nothing here is about how soon a bundle comes back, nor about how long the whole may take.
my %patient = ('drain-time' => '2min', 'cut-time' => '1min');
my @proxy = map { $test->start(flags => {%patient}) } 1 .. 2;
ok($_->wait_for(sub { $_->metric('links') == 2 }), "$_->{name} is linked") for @proxy;

sub wait_instance
{
	my ($instance, $at) = @_;
	return $at->wait_for(sub { $test->sql("SELECT count(*) FROM evento.bundles WHERE instance = '$instance' AND enabled AND proxy = '$at->{name}'") == 1 });
}

# ---- what is open when it is told to stop ----

{
	my ($from, $to) = @proxy;
	my %handler = (bundle => 'shop', instance => 'handler', names => [ 'Place', 'Notify', 'Find' ]);
	my %caller = (bundle => 'web', instance => 'caller');
	my $handler = $from->bundle(%handler);
	my $caller = $from->bundle(%caller);
	ok(wait_instance($_, $from), "$_ is connected") for 'handler', 'caller';
	my $place = $caller->command('Place', 'order-1');
	my $notify = $caller->service_command('Notify', '{}', stream => 'service-1');
	my $fetch = $caller->fetch(undef);
	my %asked = map { my $r = $handler->recv('REQ'); ($r->{payloadType} => $r) } 1 .. 2;
	is_deeply([ sort keys %asked ], [ 'Notify', 'Place' ], 'a handler has been asked');

	kill 'TERM', $from->{pid};
	ok($from->wait_log(qr/stops at/), 'it is told to stop');
	is(($from->get('/healthz'))[0], 503, '/healthz tells balancers');
	is_deeply([ $from->get('/readyz') ], [ 503, "about to stop\n" ], '/readyz as well');
	ok(!IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $from->{port}), 'no connection is accepted any more');
	# Written before the end of the stream is read, as a bundle does that has not noticed yet.
	my $late = $caller->command('Place', 'order-2');
	ok($caller->wait_closed, 'the caller is let go');
	ok($handler->wait_closed, 'the handler too');
	$_->close for $caller, $handler;

	$handler = $to->bundle(%handler);
	my %again = map { my $r = $handler->recv('REQ'); ($r ? $r->{correlationId} : '' => $r) } 1 .. 3;
	for my $name ('Notify', 'Place')
	{
		my $repeat = $again{ $asked{$name}{correlationId} };
		is($repeat && $repeat->{payload}, $asked{$name}{payload}, "$name is asked again, where the handler has come back");
	}
	for my $req (values %again)
	{
		$handler->respond($req, $req->{payloadType} eq 'Place' ? Evento::Bundle::domain_response('Placed', '{"n":1}') : Evento::Bundle::event_message('Service', 'Notified', '{}'));
	}
	$caller = $to->bundle(%caller);
	is($caller->answer($place)->{class}, 'DomainEventMessage', 'the command is answered where the caller has come back');
	is($caller->answer($notify)->{class}, 'ServiceEventMessage', 'the service command');
	is($caller->answer($late)->{class}, 'DomainEventMessage', 'and the command that was on its way when the caller was let go');
	ok($caller->answer($fetch), 'and the fetch');
	ok($from->wait_for(sub { !$from->running }), 'the proxy ends');
	is($from->{status}, 0, 'with status 0');
	ok((grep { /drain: finished in/ } split /\n/, $from->log), 'it had finished everything');
	is($test->sql(q(SELECT string_agg(stream, ' ' ORDER BY stream) FROM evento.events)), 'order-1 order-2 service-1', 'each event is stored once');
	is($test->sql(q(SELECT string_agg(name, ' ') FROM evento.proxies)), 'proxy2', 'it has left the cluster') or diag($from->log);
	$_->close for $caller, $handler;
	$from->run;
	$from->wait_http('/readyz');
}

# ---- a caller whose first request is on its way ----

{
	my ($from, $to) = @proxy;
	my %caller = (bundle => 'web', instance => 'first');
	my $handler = $to->bundle(bundle => 'shop', instance => 'stays', names => ['Place']);
	my $caller = $from->bundle(%caller);
	ok(wait_instance('stays', $to), 'a handler');
	ok($from->wait_for(sub { $from->metric('sessions') == 1 }), 'a caller elsewhere');
	kill 'TERM', $from->{pid};
	ok($from->wait_for(sub { ($from->get('/healthz'))[0] == 503 }), 'its proxy is told to stop');
	my $first = $caller->command('Place', 'order-4');
	ok($caller->wait_closed, 'it is let go behind its first request');
	$caller->close;
	$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Placed', '{"n":1}'));
	ok($to->wait_for(sub { $test->sql(q(SELECT count(*) FROM evento.events WHERE stream = 'order-4')) == 1 }), 'its event is stored');
	ok(!$from->wait_for(sub { !$from->running }, 1), 'its answer waits for it');
	$caller = $to->bundle(%caller);
	is($caller->answer($first)->{class}, 'DomainEventMessage', 'and comes where it comes back');
	ok($from->wait_for(sub { !$from->running }), 'then the proxy ends');
	is($from->{status}, 0, 'with status 0');
	$_->close for $caller, $handler;
	$from->run;
	$from->wait_http('/readyz');
	ok($_->wait_for(sub { $_->metric('links') == 2 }), "$_->{name} is linked again") for @proxy;
}

# ---- a proxy that stands still while it lets a bundle go ----

# What the bundle had written by then is taken all the same. Whether the proxy is stopped before its patience ends is luck.
for my $try (1 .. 5)
{
	my $from = $test->start(flags => { 'drain-time' => '20s', 'cut-time' => '1min' });
	my $to = $proxy[1];
	my %caller = (bundle => 'web', instance => "still-$try");
	my $handler = $to->bundle(bundle => 'shop', instance => "awake-$try", names => ['Stand']);
	my $caller = $from->bundle(%caller);
	$caller->reaches($handler, 'Stand');
	kill 'TERM', $from->{pid};
	$from->wait_log(qr/is let go/);
	kill 'STOP', $from->{pid};
	my $last = $caller->command('Stand', "order-stand-$try");
	my $late = $from->log =~ /does not hang up/;
	# A quarter of drain-time it waits for a bundle to hang up.
	sleep 5.5 if !$late;
	kill 'CONT', $from->{pid};
	$caller->close if $late;
	my $req = $late ? undef : $handler->recv('REQ');
	if (!$late)
	{
		ok($req, 'a command that lay in the socket is asked for');
		ok($caller->wait_closed, 'and its caller is let go');
		$caller->close;
		$handler->respond($req, Evento::Bundle::domain_response('Stood', '{}'));
		$caller = $to->bundle(%caller);
		is($caller->answer($last)->{class}, 'DomainEventMessage', 'who has its answer where it comes back');
	}
	ok($from->wait_for(sub { !$from->running }), 'the proxy ends');
	$_->close for $handler, $caller;
	last if !$late;
	fail('it was too late each time') if $try == 5;
}

# ---- what does not come to an end ----

{
	my $proxy = $test->start(flags => { 'drain-time' => '700ms' });
	my $handler = $proxy->bundle(bundle => 'slow', instance => 'slow', names => ['Slow']);
	my $caller = $proxy->bundle(bundle => 'web', instance => 'patient');
	ok(wait_instance('slow', $proxy), 'a slow handler');
	$caller->command('Slow', 'order-slow');
	ok($handler->recv('REQ'), 'is asked');
	my $start = time;
	is($proxy->stop('TERM'), 0, 'the proxy ends with status 0 all the same');
	cmp_ok(time - $start, '>', 0.6, 'when drain-time has passed');
	cmp_ok(time - $start, '<', 25, 'not when the request has no time left');
	ok((grep { /warning drain: after \d+ ms: .* 1 requests/ } split /\n/, $proxy->log), 'and says what was left');

	$proxy->{flags}{'drain-time'} = '60s';
	$proxy->run;
	$proxy->wait_http('/readyz');
	$handler = $proxy->bundle(bundle => 'slow', instance => 'slow', names => ['Slow']);
	$caller = $proxy->bundle(bundle => 'web', instance => 'patient');
	ok(wait_instance('slow', $proxy), 'the slow handler again');
	$caller->command('Slow', 'order-slow-2');
	ok($handler->recv('REQ'), 'is asked');
	kill 'TERM', $proxy->{pid};
	ok($proxy->wait_for(sub { ($proxy->get('/healthz'))[0] == 503 }), 'a signal');
	$start = time;
	is($proxy->stop('TERM'), 1 << 8, 'a second one ends it at once, with status 1');
	cmp_ok(time - $start, '<', 25, 'at once');
	my $stranger = $proxy[0]->connection;
	$proxy[0]->wait_for(sub { $proxy[0]->metric('connections') == 1 });
	$start = time;
	is($proxy[0]->stop('TERM'), 0, 'a connection that says nothing');
	cmp_ok(time - $start, '<', 25, 'holds nothing up');
	$proxy[0]->run;
	$proxy[0]->wait_http('/readyz');
}

is($_->stop, 0, "$_->{name} ends") for @proxy;

# ---- under load ----

for my $kind ('aggregate', 'service', 'query')
{
	# New ones each time, who wait for nobody of the load before.
	@proxy = map { $test->start(flags => {%patient}) } 1 .. 2;
	ok($_->wait_for(sub { $_->metric('links') == 2 }), "$kind: $_->{name} is linked") for @proxy;
	my $log = "$PostgreSQL::Test::Utils::log_path/sim-$kind.log";
	my $proxies = join ',', map { "127.0.0.1:$_->{port}" } @proxy;
	my $pid = fork // die "fork: $!";
	if (!$pid)
	{
		open(STDOUT, '>', $log) or POSIX::_exit(127);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
		exec { $sim } $sim, '--proxies', $proxies, '--kind', $kind, '--handlers', 2, '--callers', 32, '--connections', 4, '--seconds', 250, '--timeout', 120_000, '--run', "drain$kind" or POSIX::_exit(127);
	}
	Evento::ProxyTest::started($pid);
	for my $proxy (@proxy)
	{
		my $other = (grep { $_ != $proxy } @proxy)[0];
		my $before = $proxy->metric('requests_total');
		ok($proxy->wait_for(sub { $proxy->metric('requests_total') > $before + 500 }), "$kind: $proxy->{name} is loaded");
		is($proxy->stop('TERM'), 0, "$kind: $proxy->{name} is told to stop and ends with status 0");
		ok($proxy->wait_for(sub { $other->metric('sessions') >= 9 }), "$kind: all bundles are at the other one") or diag($other->metric('sessions'));
		$proxy->run;
		$proxy->wait_http('/readyz');
		ok($other->wait_for(sub { $other->metric('links') == 2 }), "$kind: it is back");
	}
	my $moved = $proxy[0]->metric('requests_total');
	ok($proxy[0]->wait_for(sub { $proxy[0]->metric('requests_total') > $moved + 100 }), "$kind: the load goes on");
	kill 'TERM', $pid;
	waitpid $pid, 0;
	my $status = $?;
	Evento::ProxyTest::ended($pid);
	is($status, 0, "$kind: no request failed, and no answer was wrong") or diag(slurp_file($log));
	is(scalar(grep { /drain: after/ } map { split /\n/, $_->log } @proxy), 0, "$kind: nothing was left when they ended");
	$_->stop('KILL') for @proxy;
}

done_testing();
