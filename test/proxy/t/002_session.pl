# 002_session.pl
#   The rules of a session: hello, welcome, reject, supersede, pings, idle,
#   registration, enable and disable, discovery, chunks.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $proxy = $test->start(flags => { 'discovery-wait' => '1s', 'discovery-settle' => '300ms' });

# ---- hello ----

my $a = $proxy->connection;
$a->hello(bundle => 'first', instance => 'i1');
my $welcome = $a->recv('WLC');
ok($welcome, 'a hello is welcomed');
is($welcome->{protocolVersion}, 2, 'with the protocol version');
is(length $welcome->{correlationId}, 16, 'and the correlation id of the hello');
is_deeply($welcome->{acceptedCapabilities}, [], 'no capabilities');
like($welcome->{serverInstanceId}, qr/^proxy1-/, 'the server names itself');

my $b = $proxy->connection;
$b->hello(bundle => 'first', instance => 'i2', version => 1);
my $reject = $b->recv('REJ');
is($reject->{code}, 'PROTOCOL_VERSION', 'another protocol version is rejected');
is($reject->{reason}, 'server speaks v2, client offered v1', 'with a reason');
ok($b->wait_closed, 'and closed');
is(scalar $proxy->wait_log("warning session \Q$b->{peer}\E: rejected with PROTOCOL_VERSION: "), 1, 'one line in the log');

# ---- pings ----

ok($a->alive, 'a ping is answered');

my $impatient = $test->start(flags => { 'ping-interval' => '200ms', 'idle-timeout' => '6s' });
my $quiet = $impatient->bundle(bundle => 'quiet', instance => 'q');
my $ping = $quiet->recv('PNG');
ok($ping, 'the proxy pings where it has not written');
is($ping->{sequence}, 1, 'from 1');
is($quiet->recv('PNG')->{sequence}, 2, 'and counts');
my $answering = $impatient->bundle(bundle => 'answering', instance => 'a');
my $until = time + 8;
while (time < $until)
{
	my $p = $answering->recv('PNG', timeout => 4) or last;
	$answering->send_message('@t' => 'PON', correlationId => \$p->{correlationId}, sequence => int_($p->{sequence}), timestampMs => int_(0), originTimestampMs => int_(0));
}
ok($answering->alive, 'who answers pings stays');
ok($quiet->wait_closed, 'it closes where nothing comes');
is(scalar $impatient->wait_log("warning session \Q$quiet->{peer}\E quiet/q: closed: nothing came for 6000 ms"), 1, 'with one line in the log');
is($impatient->stop, 0, 'the second proxy ends');

# ---- supersede ----

my $old = $proxy->bundle(bundle => 'twice', instance => 'same', names => ['TwiceQuery']);
my $new = $proxy->bundle(bundle => 'twice', instance => 'same', names => ['TwiceQuery']);
ok($old->wait_closed, 'a second session of the same instance closes the first');
ok($new->alive, 'and stays');
is(scalar $proxy->wait_log("info session \Q$old->{peer}\E twice/same: closed: superseded"), 1, 'with one line in the log');
ok($proxy->wait_for(sub { $test->sql("SELECT count(*) FROM evento.bundles WHERE bundle = 'twice'") == 1 }), 'one of them is in the view bundles');

# ---- registration ----

$new->register('TwiceQuery', 'Other');
ok($proxy->wait_for(sub { $test->sql("SELECT names FROM evento.bundles WHERE bundle = 'twice'") eq '{TwiceQuery,Other}' }), 'a registration shows in the view');
$new->register('Third');
ok($proxy->wait_for(sub { $test->sql("SELECT names FROM evento.bundles WHERE bundle = 'twice'") eq '{Third}' }), 'a second one replaces it');

# ---- enable, disable, discovery ----

# Asks a query and says whether the handler gets it within so long.
sub reaches
{
	my ($caller, $handler, $name, $seconds) = @_;
	my $id = $caller->query($name, '{}');
	my $req = $handler->recv('REQ', timeout => $seconds) or return 0;
	$handler->respond($req, Evento::Bundle::single([ 'shop.View', map_(n => int_(1)) ]));
	my $rsp = $caller->answer($id);
	return $rsp && $rsp->{class} eq 'Single' ? 1 : 0;
}

my $caller = $proxy->bundle(bundle => 'caller');
my $handler = $proxy->connection;
$handler->hello(bundle => 'handler', instance => 'h');
$handler->recv('WLC');
$handler->register('GateQuery');
$handler->discovery;
ok($handler->alive, 'a bundle that has not enabled yet');
sleep 0.4;
my $waiting = $caller->query('GateQuery', '{}');
ok(!$handler->recv('REQ', timeout => 0.5), 'gets no request');
$handler->notify('evento:enable');
my $req = $handler->recv('REQ');
ok($req, 'and gets it when it enables');
$handler->respond($req, Evento::Bundle::single(undef));
ok($caller->answer($waiting), 'which is answered');
$handler->notify('evento:disable');
ok($handler->alive, 'after disable');
$waiting = $caller->query('GateQuery', '{}');
ok(!$handler->recv('REQ', timeout => 0.5), 'it gets none');
$handler->notify('evento:enable');
$req = $handler->recv('REQ');
ok($req, 'and again after enable');
$handler->respond($req, Evento::Bundle::single(undef)) if $req;
ok($caller->answer($waiting), 'which is answered too');

# As after a reconnect: enable first, discovery later.
sub reconnected
{
	my ($instance, $name) = @_;
	my $c = $proxy->connection;
	$c->hello(bundle => 'late', instance => $instance);
	$c->recv('WLC');
	$c->register($name);
	$c->{enabled} = time;
	$c->notify('evento:enable');
	return $c;
}

# How long such a one waits for its first request, with what it says before: from that on, or from enable where it says nothing.
my $reconnections = 0;

sub waits
{
	my (@says) = @_;
	my $name = 'LateQuery' . ++$reconnections;
	my $late = reconnected("l$reconnections", $name);
	my $start = @says ? time : $late->{enabled};
	$late->$_ for @says;
	ok(reaches($caller, $late, $name, 40), 'it gets requests');
	return time - $start;
}

my $least = 9;
ok(Evento::ProxyTest::soon(0.9, sub { my $took = waits('discovery'); $least = $took if $took < $least; return $took }), 'enabled, then described: not as late as without a discovery');
cmp_ok($least, '>', 0.28, 'nor before it has settled');
ok(Evento::ProxyTest::soon(0.28, sub { waits('discovery', 'consumers') }), 'with its consumers registered: at once');
cmp_ok(waits(), '>', 0.9, 'without any discovery: after the time for it');

# ---- the catalogue ----

$handler->discovery(map_(componentType => 'Projection', componentName => 'GateProjection', handlerType => 'QueryHandler', handledPayloadType => 'Query',
		handledPayload => 'GateQuery', returnType => 'View', returnIsMultiple => bool_(0), associationProperty => undef, componentDescription => '',
		componentDetail => '', componentPath => 'a/B.java', componentLine => int_(7), handlerLine => int_(9), executor => undef,
		invokedCommands => raw_("\xa1\x18\x2a\x63Cmd"), invokedQueries => map_()));
ok($proxy->wait_for(sub { $test->sql("SELECT count(*) FROM evento.handlers WHERE bundle = 'handler'") == 1 }), 'a discovery is filed');
is($test->sql("SELECT component_type, component, payload, component_line, invoked_commands FROM evento.handlers WHERE bundle = 'handler'"),
	'Projection|GateProjection|GateQuery|7|{"42": "Cmd"}', 'in the view handlers');

# ---- chunks ----

my $big = 'x' x 300000;
my $payload = cbor_encode([ Evento::Bundle::MESSAGE . '.internal.EventoRequest', map_(sourceBundleId => 'c', sourceInstanceId => 'c', correlationId => 'in',
		sourceBundleVersion => int_(1), body => [ Evento::Bundle::MESSAGE . '.application.QueryMessage',
			map_(serializedPayload => Evento::Bundle::payload_of('GateQuery', qq({"big":"$big"})), timestamp => int_(1), metadata => undef, forceTelemetry => bool_(0)) ],
		timestamp => int_(1), timeout => int_(30), unit => 'SECONDS') ]);
my $id = Evento::Bundle::uuid();
$caller->send_chunks(cbor_encode(map_('@t' => 'REQ', correlationId => \$id, sourceBundleId => 'c', sourceInstanceId => 'c', sourceBundleVersion => '1',
			payloadType => 'GateQuery', payload => \$payload, timeoutMillis => int_(10000), timestampMs => int_(1))), 7000);
$req = $handler->recv('REQ');
is($req->{payload}, $payload, 'a message in chunks arrives with the very same payload');
$handler->respond($req, Evento::Bundle::single($big));
is(length $caller->answer($id)->{body}{data}, 300000, 'and is answered');

# Larger than a frame: the proxy has to make chunks.
my $huge = 'y' x (20 << 20);
$payload = cbor_encode([ Evento::Bundle::MESSAGE . '.internal.EventoRequest', map_(sourceBundleId => 'c', sourceInstanceId => 'c', correlationId => 'in',
		sourceBundleVersion => int_(1), body => [ Evento::Bundle::MESSAGE . '.application.QueryMessage',
			map_(serializedPayload => Evento::Bundle::payload_of('GateQuery', qq({"big":"$huge"})), timestamp => int_(1), metadata => undef, forceTelemetry => bool_(0)) ],
		timestamp => int_(1), timeout => int_(30), unit => 'SECONDS') ]);
$id = Evento::Bundle::uuid();
$caller->send_chunks(cbor_encode(map_('@t' => 'REQ', correlationId => \$id, sourceBundleId => 'c', sourceInstanceId => 'c', sourceBundleVersion => '1',
			payloadType => 'GateQuery', payload => \$payload, timeoutMillis => int_(120000), timestampMs => int_(1))), 5 << 20);
$req = $handler->recv('REQ', timeout => 120);
ok(defined $req && $req->{payload} eq $payload, 'a message larger than a frame arrives whole');
$handler->respond($req, Evento::Bundle::single(undef));
ok($caller->answer($id, timeout => 120), 'and is answered');

is($proxy->stop, 0, 'the proxy ends');
done_testing();
