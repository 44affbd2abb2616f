# 201_aggregate.pl
#   Domain commands: story, append, conflict, snapshot, deletion, failures.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $proxy = $test->start;
my $caller = $proxy->bundle(bundle => 'caller', instance => 'c1');
my $handler = $proxy->bundle(bundle => 'orders', instance => 'h1', names => [qw(OrderCreate OrderChange OrderDelete OrderFail)]);

# A REQ with its story: the decorated command's fields, the types of its events,
# the snapshot's text.
sub call_of
{
	my ($req) = @_;
	my $request = cbor_decode($req->{payload});
	my $decorated = $request->[1]{body}[1];
	$req->{request} = $request->[1];
	$req->{body_class} = $request->[1]{body}[0];
	$req->{command} = $decorated->{commandMessage}[1];
	$req->{events} = [ map { $_->[1]{serializedPayload}[1]{serializedObject} } @{ $decorated->{eventStream}[1] } ];
	$req->{state} = $decorated->{serializedAggregateState}[1]{serializedObject};
	$req->{state_class} = $decorated->{serializedAggregateState}[1]{objectClass};
	return $req;
}

# The next that the handler gets.
sub next_call { return call_of($handler->recv('REQ') // return undef) }

sub log_of { return $test->sql("SELECT string_agg(version || ':' || type || ':' || data::text, ' ' ORDER BY version) FROM evento.read_stream('$_[0]')") }

# ---- create, change ----

my $id = $caller->command('OrderCreate', 'order-1', '{"n":1}');
my $call = next_call();
ok($call, 'the handler is asked');
is($call->{payloadType}, 'OrderCreate', 'with the payload type of the command');
isnt($call->{correlationId}, $id, 'under another correlationId');
is($call->{sourceBundleId}, 'evento-server', 'in the name of the server');
is($call->{sourceBundleVersion}, '0', 'which has version 0');
like($call->{body_class}, qr/\.DecoratedDomainCommandMessage$/, 'with a decorated command');
is($call->{request}{sourceBundleId}, 'caller', 'inside which the caller stands');
is_deeply($call->{events}, [], 'without events');
is($call->{state}, 'null', 'without a snapshot');
is($call->{state_class}, undef, 'which has no class');
is($call->{command}{serializedPayload}[1]{serializedObject}, '["shop.OrderCreate",{"n":1}]', 'and with its payload as it was');
$handler->respond($call, Evento::Bundle::domain_response('OrderCreated', '{"n":1, "a": 1.10}'));
my $answer = $caller->answer($id);
is($answer->{failure}, undef, 'the caller is answered');
is($answer->{class}, 'DomainEventMessage', 'with the event');
is($answer->{body}{serializedPayload}[1]{serializedObject}, '["shop.OrderCreated",{"n":1, "a": 1.10}]', 'as the handler gave it');
is(log_of('order-1'), '1:OrderCreated:{"n":1, "a": 1.10}', 'the event is in the log, word for word');
is($test->sql("SELECT class, kind, context FROM evento.read_stream('order-1')"), 'shop.OrderCreated|domain|default', 'with class, kind and context');

$id = $caller->command('OrderChange', 'order-1', '{"n":2}');
$call = next_call();
is_deeply($call->{events}, ['["shop.OrderCreated",{"n":1, "a": 1.10}]'], 'the next command is sent with the story');
$handler->respond($call, Evento::Bundle::domain_response('OrderChanged', '{"n":2}', context => 'special'));
ok($caller->answer($id), 'and answered');
is($test->sql("SELECT context FROM evento.read_stream('order-1') WHERE version = 2"), 'special', 'the context of an event is kept');

# Service events are no part of the story; events that SQL appended are, with the class last seen.
my @stories = ('["shop.OrderCreated",{"n":1}]', '["shop.OrderCreated",{"n":1}] ["shop.OrderChanged",{"n":2}]');
is(Evento::ProxyTest::in_some_try(join("\n", @stories), sub {
	my $stream = "behind-$_[0]";
	my $first = $caller->command('OrderCreate', $stream);
	$handler->respond(next_call(), Evento::Bundle::domain_response('OrderCreated', '{"n":1}'));
	$caller->answer($first);
	$test->sql("SELECT evento.append('$stream', 'Noise', '{}', kind => 'service')");
	$test->sql("SELECT evento.append('$stream', 'OrderChanged', '{\"n\":2}')");
	my @met;
	$caller->answer_while($caller->command('OrderChange', $stream), $handler, sub {
		push @met, join(' ', @{ call_of($_[0])->{events} });
		$handler->respond($_[0], Evento::Bundle::domain_response('OrderChanged', '{}'));
	});
	return join "\n", @met;
}), join("\n", @stories), 'the story kept from the last command lacks what others have appended; the next has the domain events, those of SQL too');

# ---- conflict ----

my $conflicts = $proxy->metric('conflicts_total');
$test->sql(q(SELECT evento.append('order-1', 'OrderChanged', '{"n":3}')));
$id = $caller->command('OrderChange', 'order-1');
$call = next_call();
$test->sql(q(SELECT evento.append('order-1', 'OrderChanged', '{"n":4}')));
$handler->respond($call, Evento::Bundle::domain_response('OrderChanged', '{"stale":true}'));
my $again = next_call();
ok($again, 'on a conflict the handler is asked again');
isnt($again->{correlationId}, $call->{correlationId}, 'under a fresh correlationId');
is(scalar @{ $again->{events} }, 4, 'on the newer story');
$handler->respond($again, Evento::Bundle::domain_response('OrderChanged', '{"n":5}'));
is($caller->answer($id)->{body}{serializedPayload}[1]{serializedObject}, '["shop.OrderChanged",{"n":5}]', 'and its second event is the answer');
unlike(log_of('order-1'), qr/stale/, 'the first one is not in the log');
is($proxy->metric('conflicts_total') - $conflicts, 1, 'the conflict is counted');

is(Evento::ProxyTest::in_some_try('10', sub {
	my $tries = 0;
	$answer = $caller->answer_while($caller->command('OrderChange', 'order-1', '{}', timeout => 60000), $handler, sub {
		$tries++;
		$test->sql(q(SELECT evento.append('order-1', 'OrderChanged', '{"other":true}')));
		$handler->respond($_[0], Evento::Bundle::domain_response('OrderChanged', '{"never":true}'));
	});
	return "$tries";
}), '10', 'conflict after conflict the handler is asked ten times');
is($answer->{class}, 'ExceptionWrapper', 'then the caller gets an exception');
is($answer->{body}{throwable}, 'java.lang.RuntimeException', 'of the general kind');
like($answer->{body}{message}, qr/changed under the command 10 times/, 'that says why');
unlike(log_of('order-1'), qr/never/, 'and nothing is stored');

# ---- snapshots ----

$id = $caller->command('OrderCreate', 'order-2');
$handler->respond(next_call(), Evento::Bundle::domain_response('OrderCreated', '{}', state => '{"s":1}'));
$caller->answer($id);
$id = $caller->command('OrderChange', 'order-2');
$call = next_call();
is($call->{state}, '["shop.State",{"s":1}]', 'a snapshot is sent with the next command');
is($call->{state_class}, 'class shop.State', 'with its class');
is_deeply($call->{events}, [], 'in place of the events it covers');
$handler->respond($call, Evento::Bundle::domain_response('OrderChanged', '{"x":1}'));
$caller->answer($id);
$id = $caller->command('OrderChange', 'order-2');
$call = next_call();
is_deeply($call->{events}, ['["shop.OrderChanged",{"x":1}]'], 'and the events behind it');
$handler->respond($call, Evento::Bundle::domain_response('OrderChanged', '{"x":2}', state => '{"s":3}'));
$caller->answer($id);
is($test->sql(q(SELECT version FROM evento._snapshots WHERE stream = 'order-2')), 3, 'the newer snapshot takes its place');

# ---- deletion, which also brings a snapshot ----

$id = $caller->command('OrderDelete', 'order-2');
$handler->respond(next_call(), Evento::Bundle::domain_response('OrderDeleted', '{}', state => '{"gone":true}', deleted => 1));
is($caller->answer($id)->{class}, 'DomainEventMessage', 'a deletion is answered with its event');
is($test->sql(q(SELECT count(*) FROM evento._snapshots WHERE stream = 'order-2')), 0, 'no snapshot is kept');
$id = $caller->command('OrderChange', 'order-2');
$call = next_call();
is(scalar @{ $call->{events} }, 4, 'a later command is sent the whole story');
is($call->{state}, 'null', 'without a snapshot');
$handler->respond($call, Evento::Bundle::exception('shop.Deleted', 'it is gone'));
$answer = $caller->answer($id);
is("$answer->{class} $answer->{body}{throwable} $answer->{body}{message}", 'ExceptionWrapper shop.Deleted it is gone', 'its refusal goes to the caller as it is');
is($test->sql(q(SELECT count(*) FROM evento.read_stream('order-2'))), 4, 'and stores nothing');

# ---- failures ----

$id = $caller->command('OrderFail', 'order-3');
$handler->fail(next_call(), 'shop.Bad', 'not today');
$answer = $caller->answer($id);
is($answer->{failure}, undef, 'a failing handler is no failure of the request');
is("$answer->{body}{throwable}: $answer->{body}{message}", 'java.lang.RuntimeException: not today', 'but an exception for the caller');

$id = $caller->command('Unknown', 'order-3');
$answer = $caller->answer($id);
is("$answer->{failure}{exceptionClassName}: $answer->{failure}{message}", 'java.lang.IllegalStateException: no handler for Unknown', 'a name no one handles');

$id = $caller->command('OrderCreate', undef);
like($caller->answer($id)->{failure}{message}, qr/no aggregateId/, 'no aggregateId');
$id = $caller->command('OrderCreate', 'x' x 513);
like($caller->answer($id)->{failure}{message}, qr/aggregateId is not of 1 to 512 bytes/, 'an aggregateId that is too long');

$id = $caller->command('OrderCreate', 'order-4');
$handler->respond(next_call(), Evento::Bundle::domain_response('OrderCreated', '{broken'));
like($caller->answer($id)->{failure}{message}, qr/22P02/, 'data that is no JSON is refused');
$id = $caller->command('OrderCreate', 'order-4');
$handler->respond(next_call(), Evento::Bundle::domain_response('OrderCreated', '{}'));
is($caller->answer($id)->{class}, 'DomainEventMessage', 'and the aggregate goes on');

$id = $caller->command('OrderCreate', 'order-5', '{}', timeout => 5000);
$call = next_call();
$answer = $caller->answer($id);
is($answer->{failure}{exceptionClassName}, 'com.evento.transport.RequestTimeoutException', 'a handler that does not answer');
$handler->respond($call, Evento::Bundle::domain_response('OrderCreated', '{}'));
ok($handler->alive, 'its late answer does no harm');
is($test->sql(q(SELECT count(*) FROM evento.read_stream('order-5'))), 0, 'and is not stored');

# ---- many at once on one aggregate: one after the other, no conflict ----

$conflicts = $proxy->metric('conflicts_total');
my @ids = map { $caller->command('OrderChange', 'order-6', qq({"k":$_})) } 1 .. 20;
for my $n (0 .. 19)
{
	$call = next_call();
	is(scalar @{ $call->{events} }, $n, "command $n meets $n events") or last;
	$handler->respond($call, Evento::Bundle::domain_response('OrderChanged', $call->{command}{serializedPayload}[1]{serializedObject} =~ s/^\["shop.OrderChange",(.*)\]$/$1/r));
}
is(scalar(grep { $caller->answer($_)->{class} eq 'DomainEventMessage' } @ids), 20, 'all are answered');
is($test->sql(q(SELECT string_agg(data->>'k', ' ' ORDER BY version) FROM evento.read_stream('order-6'))), join(' ', 1 .. 20), 'in the order in which they came');
is($proxy->metric('conflicts_total'), $conflicts, 'without a conflict');

# ---- a batch with one bad event: the others are stored ----

@ids = map { $caller->command('OrderCreate', "batch-$_") } 1 .. 10;
my @calls = map { next_call() } 1 .. 10;
$handler->respond($calls[$_], Evento::Bundle::domain_response('OrderCreated', $_ == 4 ? '[1' : '{}')) for 0 .. 9;
my @answers = map { $caller->answer($_) } @ids;
is(scalar(grep { !defined $_->{failure} } @answers), 9, 'one bad event among many at once fails alone');
$test->sql('CALL evento.wait(NULL)');
is($test->sql(q(SELECT count(*) FROM evento.events WHERE stream LIKE 'batch-%')), 9, 'and the others are stored once');

is($proxy->stop, 0, 'the proxy ends in order');
done_testing();
