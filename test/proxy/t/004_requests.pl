# 004_requests.pl
#   Requests and their answers: queries, commands, repeats, callers and handlers
#   that go away, fetches.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $proxy = $test->start(flags => { 'cut-time' => '10s', 'answer-again' => '1min' });
my $caller = $proxy->bundle(bundle => 'caller', instance => 'c');
my $handler = $proxy->bundle(bundle => 'handler', instance => 'h', names => [qw(Ask Make Serve OwnQuery)]);

sub single { return Evento::Bundle::single([ 'shop.View', map_(text => $_[0]) ]) }

# ---- queries ----

my $id = $caller->query('Ask', '{"n":1.10}');
my $req = $handler->recv('REQ');
is($req->{payloadType}, 'Ask', 'a query reaches the handler');
is($req->{sourceBundleId}, 'caller', 'with the source fields of the caller');
is(cbor_decode($req->{payload})->[1]{body}[1]{serializedPayload}[1]{serializedObject}, '["shop.Ask",{"n":1.10}]', 'and the payload as it was written');
$handler->respond($req, single('found'));
my $rsp = $caller->answer($id);
is($rsp->{body}{data}[1]{text}, 'found', 'the answer reaches the caller');
is($rsp->{failure}, undef, 'without failure');

$id = $handler->query('OwnQuery');
$req = $handler->recv('REQ');
$handler->respond($req, single('to myself'));
is($handler->answer($id)->{body}{data}[1]{text}, 'to myself', 'a bundle may ask itself');

my @ids = map { $caller->query('Ask', qq({"n":$_})) } 1 .. 30;
my @reqs = map { $handler->recv('REQ') } 1 .. 30;
$handler->respond($_, single(cbor_decode($_->{payload})->[1]{body}[1]{serializedPayload}[1]{serializedObject})) for reverse @reqs;
is(join(' ', map { $caller->answer($ids[$_])->{body}{data}[1]{text} eq qq(["shop.Ask",{"n":@{[ $_ + 1 ]}}]) ? 'ok' : 'other' } 0 .. 29), join(' ', ('ok') x 30),
	'30 in flight, answered in another order');

$id = $caller->query('Ask');
$handler->fail($handler->recv('REQ'), 'java.lang.IllegalArgumentException', 'no such thing');
$rsp = $caller->answer($id);
is($rsp->{failure}{message}, 'no such thing', 'a failure of a query is passed on');

$id = $caller->query('Ask', '{}', timeout => 400);
$req = $handler->recv('REQ');
my $start = time;
$rsp = $caller->answer($id);
is($rsp->{failure}{exceptionClassName}, 'com.evento.transport.RequestTimeoutException', 'a query that is not answered times out');
cmp_ok(time - $start, '<', 25, 'in its time, and not in that of others');
my $unmatched = $proxy->metric('responses_unmatched_total');
$handler->respond($req, single('late'));
ok($handler->alive, 'a late answer is no reason to close');
is($proxy->metric('responses_unmatched_total'), $unmatched + 1, 'but counted');

# ---- domain commands ----

sub story { return cbor_decode($_[0]{payload})->[1]{body}[1]{eventStream}[1] }
sub state_of { return cbor_decode($_[0]{payload})->[1]{body}[1]{serializedAggregateState}[1] }

$id = $caller->command('Make', 'thing-1', '{"a":1}');
$req = $handler->recv('REQ');
is($req->{sourceBundleId}, 'evento-server', 'a command comes from the server');
isnt($req->{correlationId}, $id, 'under another correlation id');
my $decorated = cbor_decode($req->{payload})->[1]{body};
like($decorated->[0], qr/DecoratedDomainCommandMessage$/, 'decorated');
is_deeply(story($req), [], 'with an empty story');
is(state_of($req)->{objectClass}, undef, 'and no state');
$handler->respond($req, Evento::Bundle::domain_response('Made', '{"price":1.10}'));
$rsp = $caller->answer($id);
is($rsp->{class}, 'DomainEventMessage', 'answered with the event');
is($rsp->{body}{serializedPayload}[1]{serializedObject}, '["shop.Made",{"price":1.10}]', 'as the handler wrote it');
is($test->sql("SELECT version, type, data, class, kind FROM evento.read_stream('thing-1')"), '1|Made|{"price":1.10}|shop.Made|domain', 'and the log has it');

my $again = $caller->command('Make', 'thing-1', '{"a":1}', correlation => $id);
$rsp = $caller->answer($id);
is($rsp->{body}{serializedPayload}[1]{serializedObject}, '["shop.Made",{"price":1.10}]', 'the same request again gets the same answer');
ok(!$handler->recv('REQ', timeout => 0.3), 'and no handler is asked');
is($test->sql("SELECT count(*) FROM evento.read_stream('thing-1')"), 1, 'nor anything stored');

my $open = $caller->command('Make', 'thing-1', '{"a":2}');
$req = $handler->recv('REQ');
is(scalar @{ story($req) }, 1, 'the next command gets the story');
is(story($req)->[0][1]{serializedPayload}[1]{serializedObject}, '["shop.Made",{"price":1.10}]', 'with the very same text');
$caller->command('Make', 'thing-1', '{"a":2}', correlation => $open);
my $queued = $caller->command('Make', 'thing-1', '{"a":3}');
ok(!$handler->recv('REQ', timeout => 0.3), 'a repeat in flight is dropped, and a second command on the aggregate waits');
$handler->respond($req, Evento::Bundle::domain_response('Made', '{"n":2}', state => '{"n":2}'));
ok($caller->answer($open), 'answered');
$req = $handler->recv('REQ');
ok($req, 'the second command follows');
is(state_of($req)->{serializedObject}, '["shop.State",{"n":2}]', 'with the snapshot that the first one brought');
is(scalar @{ story($req) }, 0, 'and nothing behind it');
$handler->respond($req, Evento::Bundle::exception('com.acme.Refused', 'not yet, as far as I know'));
$rsp = $caller->answer_while($queued, $handler, sub { $handler->respond($_[0], Evento::Bundle::exception('com.acme.Refused', 'no')) });
is($rsp->{class}, 'ExceptionWrapper', 'an exception comes back');
is($rsp->{body}{throwable}, 'com.acme.Refused', 'as it is');
is($test->sql("SELECT count(*) FROM evento.read_stream('thing-1')"), 2, 'and stores nothing');

# Once on the story that was kept, and once on the one that was loaded.
my $broke = 0;
$rsp = $caller->answer_while($caller->command('Make', 'thing-1', '{}'), $handler, sub { $handler->fail($_[0], 'com.acme.Broken', 'broke ' . ++$broke) });
is($rsp->{failure}, undef, 'a failure of a command is no failure to the caller');
is_deeply([ $rsp->{class}, $rsp->{body}{throwable}, $rsp->{body}{message} ], [ 'ExceptionWrapper', 'java.lang.RuntimeException', "broke $broke" ], 'but an exception');

# A forced conflict: SQL appends behind the handler's back.
$id = $caller->command('Make', 'thing-2', '{}');
my $first = $handler->recv('REQ');
$test->sql("SELECT evento.append('thing-2', 'Other', '{}')");
$handler->respond($first, Evento::Bundle::domain_response('Made', '{}'));
my $second = $handler->recv('REQ');
ok($second, 'after a conflict the handler is asked again');
isnt($second->{correlationId}, $first->{correlationId}, 'under a fresh correlation id');
is(scalar @{ story($second) }, 1, 'on the newer story');
$handler->respond($second, Evento::Bundle::domain_response('Made', '{}'));
ok($caller->answer($id), 'and the caller is answered');
is($test->sql("SELECT string_agg(type, ',' ORDER BY version) FROM evento.read_stream('thing-2')"), 'Other,Made', 'both are in the log');

# Deletion drops snapshots, also one that comes with it.
$id = $caller->command('Make', 'thing-1', '{}');
$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Removed', '{}', deleted => 1, state => '{"n":3}'));
ok($caller->answer($id), 'a command that deletes');
$id = $caller->command('Make', 'thing-1', '{}');
$req = $handler->recv('REQ');
is(state_of($req)->{objectClass}, undef, 'afterwards there is no snapshot');
is(scalar @{ story($req) }, 3, 'and the whole story');
$handler->respond($req, Evento::Bundle::exception('com.acme.Deleted', 'gone'));
$caller->answer($id);

# ---- service commands ----

$id = $caller->service_command('Serve', '{"s":1}', lock => 'a-lock', stream => 'service-1');
$req = $handler->recv('REQ');
is($req->{sourceBundleId}, 'evento-server', 'a service command comes from the server');
$handler->respond($req, Evento::Bundle::event_message('Service', 'Served', '{"x":1}'));
is($caller->answer($id)->{class}, 'ServiceEventMessage', 'answered with its event');
is($test->sql("SELECT version, type, kind FROM evento.read_stream('service-1')"), '1|Served|service', 'which is in the log');
$id = $caller->service_command('Serve', '{}');
$handler->respond($handler->recv('REQ'), Evento::Bundle::event_message('Service', 'Loose', '{}'));
ok($caller->answer($id), 'one without a stream');
ok($proxy->wait_for(sub { $test->sql("SELECT stream IS NULL FROM evento.events WHERE type = 'Loose'") eq 't' }), 'is in the log');
$id = $caller->service_command('Serve', '{}');
$handler->respond($handler->recv('REQ'), Evento::Bundle::event_message('Service', undef));
is($caller->answer($id)->{class}, 'ServiceEventMessage', 'one without an event');

# One lock at a time.
@ids = map { $caller->service_command('Serve', qq({"n":$_}), lock => 'shared') } 1 .. 5;
for my $n (1 .. 5)
{
	my $one = $handler->recv('REQ');
	ok($one, "lock holder $n");
	ok(!$handler->recv('REQ', timeout => 0.1), 'is alone');
	$handler->respond($one, Evento::Bundle::event_message('Service', 'Served', '{}'));
}
is(scalar(grep { $caller->answer($_) } @ids), 5, 'all are answered');

# ---- callers that go away ----

$id = $caller->command('Make', 'away-1', '{}');
$req = $handler->recv('REQ');
$caller->cut;
ok($proxy->wait_log("session \Q$caller->{peer}\E caller/c: closed: "), 'the caller is cut off');
$handler->respond($req, Evento::Bundle::domain_response('Made', '{}'));
ok($proxy->wait_for(sub { $test->sql("SELECT count(*) FROM evento.read_stream('away-1')") == 1 }), 'its command is carried out');
$caller = $proxy->bundle(bundle => 'caller', instance => 'c');
is($caller->answer($id)->{class}, 'DomainEventMessage', 'and answered when it is back');

$id = $caller->query('Ask');
$req = $handler->recv('REQ');
$caller->cut;
my $stranger = $proxy->bundle(bundle => 'caller', instance => 'another');
$caller = $proxy->bundle(bundle => 'caller', instance => 'c');
$handler->respond($req, single('for you'));
is($caller->answer($id)->{body}{data}[1]{text}, 'for you', 'an answer that comes after the caller is back');
ok($stranger->alive && !$stranger->recv('RSP', timeout => 0.2), 'goes to it alone');
$caller->cut;
$caller = $proxy->bundle(bundle => 'caller', instance => 'c');
is($caller->answer($id)->{body}{data}[1]{text}, 'for you', 'one that was sent right before a cut is sent again');
$caller->cut;
$caller = $proxy->bundle(bundle => 'caller', instance => 'c');
is($caller->answer($id)->{body}{data}[1]{text}, 'for you', 'and once more after the next cut');

# ---- handlers that go away ----

$id = $caller->command('Make', 'cut-1', '{}');
$req = $handler->recv('REQ');
$handler->cut;
$handler = $proxy->bundle(bundle => 'handler', instance => 'h', names => [qw(Ask Make Serve OwnQuery)]);
my $same = $handler->recv('REQ');
is($same->{correlationId}, $req->{correlationId}, 'a handler that was cut off gets the same request again');
$handler->respond($same, Evento::Bundle::domain_response('Made', '{}'));
is($caller->answer($id)->{class}, 'DomainEventMessage', 'and the caller its answer');

$id = $caller->service_command('Serve', '{}');
$handler->recv('REQ');
$handler->cut;
$rsp = $caller->answer($id);
ok($rsp && $rsp->{failure}, 'a service command whose handler is gone fails');
$rsp = $caller->answer($caller->query('Ask'));
is($rsp->{failure}{message}, 'no handler for Ask', 'and its names have no handler any more');
$handler = $proxy->bundle(bundle => 'handler', instance => 'h2', names => [qw(Ask Make Serve OwnQuery)]);

# ---- fetches ----

my $head = $test->sql('CALL evento.wait(NULL)');
$rsp = $caller->answer($caller->last_sequence);
is($rsp->{class}, 'EventLastSequenceNumberResponse', 'the last sequence number');
is($rsp->{body}{number}, $head, 'is the watermark');

my $behind = $proxy->bundle(bundle => 'behind', enable => 0);
$rsp = $behind->answer($behind->fetch(undef));
is($rsp->{class}, 'EventFetchResponse', 'a fetch from the start');
my @events = map { $_->[1] } @{ $rsp->{body}{events}[1] };
is($rsp->{body}{events}[0], 'java.util.ArrayList', 'gives an ArrayList');
is(scalar @events, $test->sql('SELECT count(*) FROM evento.events'), 'of all events');
is(join(' ', map { $_->{eventSequenceNumber} } @events), $test->sql(q(SELECT string_agg(position::text, ' ' ORDER BY position) FROM evento.events)), 'in order');
is($events[0]{eventMessage}[1]{serializedPayload}[1]{serializedObject}, '["shop.Made",{"price":1.10}]', 'with the very same text');
$rsp = $behind->answer($behind->fetch($events[1]{eventSequenceNumber}, limit => 2));
is(join(' ', map { $_->[1]{eventSequenceNumber} } @{ $rsp->{body}{events}[1] }), join(' ', map { $_->{eventSequenceNumber} } @events[ 2, 3 ]), 'from a position, up to a limit');

$start = time;
$rsp = $behind->answer($behind->fetch($head));
is_deeply($rsp->{body}{events}[1], [], 'at the head it is empty');
cmp_ok(time - $start, '<', 15, 'and is not held, since the instance is not enabled');

my $consumer = $proxy->bundle(bundle => 'consumer');
$id = $consumer->fetch($head);
ok(!$consumer->recv('RSP', correlation => $id, timeout => 0.5), 'an enabled one is held');
$test->sql(q(SELECT evento.append('fresh-1', 'Fresh', '{}')));
$start = time;
$rsp = $consumer->answer($id);
is($rsp && $rsp->{body}{events}[1][0][1]{eventName}, 'Fresh', 'until there is an event');
cmp_ok(time - $start, '<', 15, 'and is answered then');
$head = $test->sql('SELECT evento.watermark()');
$id = $consumer->fetch($head, context => 'no*');
$test->sql(q(SELECT evento.append('fresh-1', 'Fresh', '{}')));
ok(!$consumer->recv('RSP', correlation => $id, timeout => 0.3), 'an event of another context does not end it');
$test->sql(q(SELECT evento.append('fresh-1', 'North', '{}', context => 'north')));
$rsp = $consumer->answer($id);
is(join(' ', map { $_->[1]{eventName} } @{ $rsp->{body}{events}[1] }), 'North', 'one that matches does');
$head = $test->sql('SELECT evento.watermark()');
$id = $consumer->fetch($head);
ok(!$consumer->recv('RSP', correlation => $id, timeout => 0.3), 'held again');
$consumer->notify('evento:disable');
ok($consumer->answer($id, timeout => 15), 'and let go at disable');

is($proxy->stop, 0, 'the proxy ends');
is(scalar(grep { / error / } split /\n/, $proxy->log), 0, 'without an error in its log');
done_testing();
