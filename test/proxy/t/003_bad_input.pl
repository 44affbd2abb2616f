# 003_bad_input.pl
#   What a proxy is not meant to get: each is answered as the protocol says, or
#   the connection is closed with one log line that names peer and reason; an
#   innocent connection goes on through all of it.
use strict;
use warnings;

use IO::Select;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $proxy = $test->start(flags => {
		'hello-timeout' => '10s', 'frame-timeout' => '4s', 'chunk-timeout' => '4s', 'max-names' => 50, 'max-requests' => 20, 'output-bytes' => '16MB', 'input-bytes' => '32MB' });
my $innocent = $proxy->bundle(bundle => 'innocent', instance => 'i', names => ['InnocentQuery']);
my $breaches = $proxy->metric('protocol_errors_total');

# The connection is closed, with one line; nobody else is touched.  others: connections that are not closed yet, and will be,
# so that the count tells nothing now.
sub closed
{
	my ($c, $reason, $what, $others) = @_;
	subtest $what => sub {
		ok($c->wait_closed, 'closed');
		is(scalar $proxy->wait_log_since($c, "warning session \Q$c->{peer}\E(?: \\S+)?: closed: $reason"), 1, 'one line names peer and reason');
		is(scalar $proxy->wait_log_since($c, "session \Q$c->{peer}\E[ :].*closed"), 1, 'and no other');
		ok($innocent->alive, 'another connection goes on');
		$breaches++;
		is($proxy->metric('protocol_errors_total'), $breaches, 'counted') if !$others;
	};
	return;
}

# Every breach is tried by a stranger and by a bundle that was welcomed.
my %who = (stranger => sub { return $proxy->connection }, bundle => sub { return $proxy->bundle(bundle => 'guilty') });

for my $who (sort keys %who)
{
	my $send = sub {
		my ($bytes, $reason, $what) = @_;
		my $c = $who{$who}->();
		$c->send_raw($bytes);
		closed($c, $reason, "$who: $what");
	};
	$send->(pack('N', 16 * 1024 * 1024 - 3) . "\0", 'frame too long', 'a frame that is too long');
	$send->("\xff\xff\xff\xff", 'frame too long', 'a frame of 4 GB');
	$send->("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 'frame too long', 'HTTP');
	$send->("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 'frame too long', 'a TLS hello');
	$send->(pack('N', 3) . "\x02\xa0\xa0", 'unknown frame type', 'an unknown first byte');
	$send->(pack('N', 5) . "\x01abcd", 'malformed chunk', 'a chunk without its head');
	$send->(pack('N', 19) . "\x01" . 'i' x 16 . "\x02" . 'x', 'malformed chunk', 'a chunk whose last is 2');
	$send->(Evento::Bundle::frame("\xbf\x62\x40\x74"), 'unreadable message: ', 'CBOR that is cut off');
	$send->(Evento::Bundle::frame("\xff"), 'unreadable message: ', 'a lone break');
	$send->(Evento::Bundle::frame("\x81" x 100000 . "\x00"), 'unreadable message: ', 'deep nesting');
	$send->(Evento::Bundle::frame("\xbf\x62\x40\x74\x63HEL\x61x" . "\x9f" x 100000), 'unreadable message: ', 'deep nesting in an unknown field');
	$send->(Evento::Bundle::frame(cbor_encode([])), 'unreadable message: ', 'an array');
	$send->(Evento::Bundle::frame(cbor_encode('HEL')), 'unreadable message: ', 'a text');
	$send->(Evento::Bundle::frame(cbor_encode(map_())), 'unreadable message: ', 'an empty map');
	$send->(Evento::Bundle::frame(cbor_encode(map_('@t' => 'ZZZ'))), 'unreadable message: ', 'an unknown message');
	$send->(Evento::Bundle::frame(cbor_encode(map_('@t' => int_(1)))), 'unreadable message: ', 'a type that is a number');
	$send->(Evento::Bundle::frame(cbor_encode(map_('@t' => 'HEL', bundleId => int_(5)))), 'unreadable message: ', 'a bundle id that is a number');
	$send->(Evento::Bundle::frame(cbor_encode(map_('@t' => 'REQ', correlationId => [], payloadType => 'x', payload => \''))), 'unreadable message: ', 'a correlation id that is an array');
	$send->(Evento::Bundle::frame(cbor_encode(map_('@t' => 'PNG', correlationId => \'short'))), 'unreadable message: ', 'a correlation id of five bytes');
	$send->(Evento::Bundle::frame("\xbf\x62\x40\x74\x63HEL\x68bundleId\x62\xc3\x28\xff"), 'unreadable message: ', 'text that is not UTF-8');
	$send->(Evento::Bundle::frame(cbor_encode(map_('@t' => 'REQ', correlationId => undef, payloadType => 'x', payload => \''))), 'request without correlationId', 'a request without correlation id');
	$send->(Evento::Bundle::frame(cbor_encode(map_('@t' => 'WLC', correlationId => \Evento::Bundle::uuid(), protocolVersion => int_(2)))), 'WLC from a bundle', 'a welcome');

	# What is not finished: all at once, for each takes its time.
	my @unfinished = (
		[ "\0\0", 'frame not finished in time', 'half a length' ],
		[ pack('N', 100) . "\0abc", 'frame not finished in time', 'an unfinished frame' ],
		[ pack('N', 28) . "\x01" . 'i' x 16 . "\0" . 'x' x 10, 'chunk stream not finished in time', 'an unfinished chunk stream' ]);
	push @$_, $who{$who}->() for @unfinished;
	$_->[3]->send_raw($_->[0]) for @unfinished;
	my $slow = $who{$who}->();
	my $start = time;
	my $bytes = pack('N', 1000) . "\0" . 'x' x 999;
	while (time < $start + 40 && !$slow->{closed})
	{
		$slow->send_raw(substr($bytes, 0, 1, ''));
		$slow->pump(0.1);
	}
	closed($_->[3], $_->[1], "$who: $_->[2]", 1) for @unfinished;
	closed($slow, 'frame not finished in time', "$who: a connection that sends a byte at a time");
}

# A frame that is slow, but not that slow, may take longer than the timeout.
my $steady = $proxy->bundle(bundle => 'steady');
my $frame = Evento::Bundle::frame(cbor_encode(map_('@t' => 'PNG', correlationId => \'0123456789abcdef', sequence => int_(1), timestampMs => int_(1), padding => 'x' x 400000)));
while (length $frame)
{
	$steady->send_raw(substr($frame, 0, 20000, ''));
	$steady->pump(0.25);
}
ok($steady->recv('PON'), 'a large frame that makes progress is given time');

# Empty frames are nothing.
my $c = $proxy->connection;
$c->send_raw("\0\0\0\0" x 1000);
ok($c->alive, 'empty frames are ignored');
$c->close;

# ---- hello ----

my $mute = $proxy->connection;
my $pinging = $proxy->connection;
my $start = time;
while (time < $start + 40 && !$pinging->{closed})
{
	$pinging->send_message('@t' => 'PNG', correlationId => \Evento::Bundle::uuid(), sequence => int_(1), timestampMs => int_(1));
	$pinging->pump(0.2);
}
closed($mute, 'no hello within 10000 ms', 'no hello', 1);
closed($pinging, 'no hello within 10000 ms', 'pings are no hello');

$c = $proxy->bundle(bundle => 'twice');
$c->hello(bundle => 'twice', instance => $c->{instance});
closed($c, 'second hello on one connection', 'a hello twice');

my $n = 0;
for my $ids ([ 'x' x 10000, 'i', 'bundle id is longer than 512 bytes' ], [ '', 'i', 'bundle id is missing' ], [ 'b', '', 'instance id is missing' ],
	[ 'b', 'y' x 513, 'instance id is longer than 512 bytes' ], [ "b\0c", 'i', 'bundle id ' ])
{
	$c = $proxy->connection;
	$c->hello(bundle => $ids->[0], instance => $ids->[1]);
	my $reject = $c->recv('REJ');
	if ($reject)
	{
		is($reject->{code}, 'UNKNOWN_BUNDLE', "rejected: $ids->[2]");
		like($reject->{reason}, qr/^\Q$ids->[2]\E/, 'with a reason');
		ok($c->wait_closed, 'and closed');
		is(scalar $proxy->wait_log_since($c, "warning session \Q$c->{peer}\E: rejected with UNKNOWN_BUNDLE: "), 1, 'one line');
		$breaches++;
	}
	else
	{
		closed($c, '', "refused: $ids->[2]");
	}
	$n++;
}
is($n, 5, 'five bad hellos');
is($proxy->metric('protocol_errors_total'), $breaches, 'all counted');

$c = $proxy->connection;
$c->hello(bundle => 'b' x 512, instance => 'i' x 512);
ok($c->recv('WLC'), 'ids of 512 bytes are welcome');
$c->close;

# Control characters in a name do not reach the log as such.
$c = $proxy->connection;
$c->hello(bundle => "evil\n2026 error", instance => "\e[31m");
$c->recv('WLC');
$c->close;
is(scalar $proxy->wait_log('evil\\\\x0a2026 error/\\\\x1b\\[31m: connected'), 1, 'control characters are written as \\x0a');

# ---- before and beside a session ----

$c = $proxy->connection;
my $id = $c->request_raw('Anything', 'xx');
my $rsp = $c->recv('RSP', correlation => $id);
is($rsp->{failure}{exceptionClassName}, 'java.lang.IllegalStateException', 'a request before hello gets a failure');
is($rsp->{failure}{message}, 'handshake required before requests', 'that says why');
is($rsp->{payload}, undef, 'and no payload');
$c->notify('evento:enable');
$c->send_message('@t' => 'RSP', correlationId => \Evento::Bundle::uuid(), payloadType => 'x', payload => \'', failure => undef, timestampMs => int_(1));
ok($c->alive, 'it stays open');
$c->hello(bundle => 'after-all');
ok($c->recv('WLC'), 'and may say hello after all');

# ---- notifications ----

$c->notify('evento:no-such-thing', 'xyz');
$c->notify('evento:bundle-admin-notification', 'not CBOR');
$c->notify('evento:bundle-discovery', "\x9f\x9f");
ok($c->alive, 'unknown notifications and those that are for people only are no reason to close');
is(scalar $proxy->wait_log_since($c, "warning session \Q$c->{peer}\E \\S+: discovery is left out of the catalogue: "), 1, 'an unreadable discovery is logged');
for my $bad ([ 'not CBOR', "xyz" ], [ 'a number', cbor_encode(int_(1)) ], [ 'names that are no list', cbor_encode(map_(bundleVersion => int_(1), handlerPayloadTypes => 'x')) ],
	[ 'a name that is a number', cbor_encode(map_(bundleVersion => int_(1), handlerPayloadTypes => [ int_(5) ])) ])
{
	$c = $proxy->bundle(bundle => 'guilty');
	$c->notify('evento:bundle-registration', $bad->[1]);
	subtest "a registration: $bad->[0]" => sub {
		ok($c->wait_closed, 'closed');
		is(scalar $proxy->wait_log_since($c, "warning session \Q$c->{peer}\E \\S+: closed: unreadable registration"), 1, 'one line');
	};
	$breaches++;
}
$c = $proxy->bundle(bundle => 'guilty');
$c->register(map { "Name$_" } 1 .. 51);
closed($c, 'registers more payload names than max-names', 'too many names');

# ---- requests ----

$c = $proxy->bundle(bundle => 'caller');
my $unmatched = $proxy->metric('responses_unmatched_total');
$c->send_message('@t' => 'RSP', correlationId => \Evento::Bundle::uuid(), payloadType => 'x', payload => \'abc', failure => undef, timestampMs => int_(1));
$c->send_message('@t' => 'RSP', correlationId => undef, payloadType => undef, payload => undef, failure => undef, timestampMs => int_(1));
ok($c->alive, 'a response to a request never made is no reason to close');
is($proxy->metric('responses_unmatched_total'), $unmatched + 2, 'and counted');

for my $bad ([ 'not CBOR', 'xyz' ], [ 'empty', '' ], [ 'cut off', "\x9f\x63abc" ], [ 'no object graph', cbor_encode(map_(a => 'b')) ],
	[ 'another class', cbor_encode([ 'com.acme.Other', map_() ]) ], [ 'deep nesting', "\x9f" x 5000 ],
	[ 'a body that is text', cbor_encode([ Evento::Bundle::MESSAGE . '.internal.EventoRequest', map_(body => 'text') ]) ],
	[ 'wrong types', cbor_encode([ Evento::Bundle::MESSAGE . '.internal.EventoRequest', map_(correlationId => int_(5), body => int_(7)) ]) ])
{
	$id = $c->request_raw('Anything', $bad->[1]);
	$rsp = $c->recv('RSP', correlation => $id);
	ok($rsp && $rsp->{failure}{message}, "a payload that is unreadable gets a failure: $bad->[0]");
	is($rsp->{payload}, undef, 'and no payload');
}
$id = $c->query('NoOneHandlesThis');
$rsp = $c->answer($id);
is_deeply({ %{ $rsp->{failure} }, stackTrace => 0 }, { exceptionClassName => 'java.lang.IllegalStateException', message => 'no handler for NoOneHandlesThis', stackTrace => 0 }, 'a query that no one handles');
$rsp = $c->answer($c->command('NoOneHandlesThat', 'aggregate-1'));
is($rsp->{failure}{message}, 'no handler for NoOneHandlesThat', 'a command that no one handles');
$rsp = $c->answer($c->service_command('NorThis'));
is($rsp->{failure}{message}, 'no handler for NorThis', 'a service command that no one handles');
$rsp = $c->answer($c->command('NoAggregate', undef, '{}', lock => undef));
ok($rsp->{failure} || $rsp->{class} eq 'ExceptionWrapper', 'a domain command without aggregate fails');
$rsp = $c->answer($c->command('LongAggregate', 'a' x 10000, '{}', lock => undef));
ok($rsp->{failure} || $rsp->{class} eq 'ExceptionWrapper', 'a domain command with an aggregate id of 10,000 characters fails');
$rsp = $c->answer($c->command('LongLock', 'a', '{}', lock => 'l' x 10000));
ok($rsp->{failure} || $rsp->{class} eq 'ExceptionWrapper', 'a domain command with a lock id of 10,000 characters fails');
ok($c->alive, 'the connection stays open through all of them');

# A handler's event that the log refuses.
my $handler = $proxy->bundle(bundle => 'handler', instance => 'h', names => [ 'Make', 'Serve' ]);
for my $bad ([ 'no JSON', 'this is not JSON' ], [ 'cut off', '["shop.Made",{"a":' ], [ 'a bare surrogate', '["shop.Made",{"a":"\ud800"' ], [ 'too deep', '["shop.Made",' . '[' x 100000 . ']' x 100000 . ']' ])
{
	$id = $c->command('Make', 'bad-1');
	my $req = $handler->recv('REQ');
	$handler->respond($req, Evento::Bundle::domain_response('Made', '{}', serialized => Evento::Bundle::serialized($bad->[1], 'shop.Made')));
	$rsp = $c->answer($id);
	ok($rsp && ($rsp->{failure} || $rsp->{class} eq 'ExceptionWrapper'), "an event whose data is not JSON is refused: $bad->[0]");
}
$id = $c->command('Make', 'bad-2');
my $req = $handler->recv('REQ');
$handler->send_message('@t' => 'RSP', correlationId => \$req->{correlationId}, payloadType => 'Make', payload => \'rubbish', failure => undef, timestampMs => int_(1));
$rsp = $c->answer($id);
ok($rsp && ($rsp->{failure} || $rsp->{class} eq 'ExceptionWrapper'), 'an answer of a handler that cannot be read');
ok($handler->alive, 'and the handler stays');
is($test->sql("SELECT count(*) FROM evento.read_stream('bad-1')") + $test->sql("SELECT count(*) FROM evento.read_stream('bad-2')"), 0, 'nothing of that is in the log');
my ($rc, $out, $err) = $test->node->psql('postgres', "SELECT evento.append('s', 'T', '{}', expected => -1)");
like($err, qr/ERROR: .*-1/, 'an expected version of -1 is refused');

# ---- bounds ----

# More open requests than one instance may have: the rest is refused at once, and the first ones are served.
my $silent = $proxy->bundle(bundle => 'silent', instance => 's', names => ['SilentQuery']);
my $busy = $proxy->bundle(bundle => 'busy', instance => 'b');
my @ids = map { $busy->query('SilentQuery', '{}', timeout => 20000) } 1 .. 25;
for my $i (20 .. 24)
{
	$rsp = $busy->answer($ids[$i]);
	is($rsp->{failure}{exceptionClassName}, 'com.evento.transport.TooManyPendingRequestsException', "request $i of 20 is refused");
}
for my $i (0 .. 19)
{
	my $req = $silent->recv('REQ') or last;
	$silent->respond($req, Evento::Bundle::single(undef));
}
is(scalar(grep { defined && !$_->{failure} } map { $busy->answer($_) } @ids[ 0 .. 19 ]), 20, 'the others are answered');

# A connection that asks and does not read is closed when too much waits for it, and takes nothing with it.
my $deaf = $proxy->connection(rcvbuf => 4096);
$deaf->hello(bundle => 'deaf', instance => 'd');
$deaf->recv('WLC');
my $large = 'z' x (4 << 20);
for (1 .. 8)
{
	last if $proxy->log =~ m{deaf/d: closed};
	$deaf->query('SilentQuery', '{}', timeout => 20000);
	my $req = $silent->recv('REQ') or last;
	$silent->respond($req, Evento::Bundle::single($large));
	$silent->alive;
}
is(scalar $proxy->wait_log_since($deaf, "session \Q$deaf->{peer}\E deaf/d: closed: output passes output-bytes"), 1, 'a connection that does not read is closed');
ok($innocent->alive, 'another connection goes on');

# Many that begin large messages: the proxy holds no more than it may.
my @greedy;
for my $i (1 .. 6)
{
	my $g = $proxy->bundle(bundle => 'greedy', instance => "g$i");
	push @greedy, $g;
	$g->send_raw(pack('N', 15 << 20) . "\0" . 'x' x (10 << 20));
}
$proxy->wait_for(sub { return 3 <= grep { $_->pump(0); $_->{closed} } @greedy });
cmp_ok(scalar(grep { $_->{closed} } @greedy), '>=', 3, 'unfinished input is bounded over all connections');
cmp_ok($proxy->metric('input_bytes'), '<=', 32 << 20, 'to what was set');
ok($innocent->alive, 'another connection goes on');

# More connections than there may be: the ones too many are dropped, the others stay.
my $small = $test->start(flags => { 'max-connections' => 3 });
my @held = map { $small->bundle(bundle => 'held', instance => "h$_") } 1 .. 3;
$start = time;
for (1 .. 5)
{
	my $extra = $small->connection;
	ok($extra->wait_closed, 'a connection too many is closed');
}
my $took = time - $start;
is(scalar(grep { $_->alive } @held), 3, 'the others stay');
# One a second at most.
my @refusals = $small->wait_log('warning server: refused \d+ connections: there are 3, as many as max-connections allows');
like($refusals[0], qr/refused 1 connections/, 'the log says so');
cmp_ok(scalar @refusals, '<=', 1 + $took, 'with one line for many');
$held[0]->close;
ok($small->wait_for(sub { my $next = eval { $small->bundle(bundle => 'held', instance => 'h4') } or return 0; $next->alive }), 'when one has gone there is room again');
is($small->stop, 0, 'the small proxy ends');

# ---- rubbish ----

srand 20;
for my $round (1 .. 60)
{
	my $r = $round % 2 ? $proxy->connection : $proxy->bundle(bundle => 'random');
	my $bytes = join '', map { chr int rand 256 } 1 .. 1 + rand 3000;
	$r->send_raw($round % 3 ? Evento::Bundle::frame($bytes) : $bytes);
	$r->close;
}
ok($innocent->alive, 'after a hail of rubbish the innocent connection is still there');
$c = $proxy->bundle(bundle => 'asks');
my $q = $c->query('InnocentQuery');
$req = $innocent->recv('REQ');
ok($req, 'and gets requests');
$innocent->respond($req, Evento::Bundle::single(undef)) if $req;
ok($c->answer($q), 'which are answered');
is(scalar(grep { /\berror\b session/ } split /\n/, $proxy->log), 0, 'the proxy has logged no error of its own');
is($proxy->stop, 0, 'and ends as it should');

done_testing();
