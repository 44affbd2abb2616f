# 209_erased.pl
#   Streams that were erased or ended in the database: bundles are not given
#   erased events, neither in stories nor in feeds, and go on; a tombstone
#   refuses their commands.
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
my $handler = $proxy->bundle(bundle => 'orders', instance => 'h1', names => [qw(OrderCreate OrderChange Probe)]);
my $consumer = $proxy->bundle(bundle => 'view', instance => 'v1');
my $silent = $proxy->bundle(bundle => 'view', instance => 'v2', enable => 0);

# The next command that the handler gets: the request, the payloads of the story's events, the snapshot.
sub next_call
{
	my ($timeout) = @_;
	my $req = $handler->recv('REQ', timeout => $timeout // 40) or return undef;
	my $decorated = cbor_decode($req->{payload})->[1]{body}[1];
	$req->{events} = [ map { $_->[1]{serializedPayload}[1]{serializedObject} } @{ $decorated->{eventStream}[1] } ];
	$req->{state} = $decorated->{serializedAggregateState}[1]{serializedObject};
	return $req;
}

# Positions of the events that a fetch gives.
sub fetched
{
	my ($bundle, $after) = @_;
	my $rsp = $bundle->answer($bundle->fetch($after)) or return 'no answer';
	return $rsp->{failure} // join ' ', map { $_->[1]{eventSequenceNumber} } @{ $rsp->{body}{events}[1] };
}

$test->sql(q(SELECT evento.append('order-1', 'OrderCreated', '{"name":"ann"}', '{"user":"ann"}', class => 'shop.OrderCreated')));
$test->sql(q(SELECT evento.append('order-2', 'OrderCreated', '{"name":"bob"}', class => 'shop.OrderCreated')));
my $id = $caller->command('OrderChange', 'order-1', '{"n":1}');
my $call = next_call();
$handler->respond($call, Evento::Bundle::domain_response('OrderChanged', '{"n":1}'));
ok($caller->answer($id), 'a command before the erasure');
$test->sql(q(SELECT evento.save_snapshot('order-1', 1, '{"name":"ann"}'); CALL evento.wait(NULL)));
is(fetched($silent, undef), '1 2 3', 'the feed before the erasure');

is($test->sql(q(SELECT evento.erase_stream('order-1', 'asked by letter'))), '2', 'erased');
$test->sql(q(SELECT evento.append('order-2', 'OrderChanged', '{"n":2}'); CALL evento.wait(NULL)));

$test->sql(q(SELECT evento.append('order-3', 'OrderCreated', '{"name":"cyd"}') FROM generate_series(1, 3)));
$test->sql(q(SELECT evento.erase_stream('order-3', 'asked by letter'); CALL evento.wait(NULL)));

# ---- feeds: another proxy, whose memory has nothing of before ----

my $fresh = $test->start;
my $reader = $fresh->bundle(bundle => 'report', instance => 'r1', enable => 0);
my $holder = $fresh->bundle(bundle => 'report', instance => 'r2');
is(fetched($reader, undef), '2 4', 'a feed from the start leaves erased events out');
is(fetched($reader, 2), '4', 'from between them too');
is(fetched($reader, 4), '', 'where only erased events are left there are none');
$id = $holder->fetch(4);
is($holder->answer($id, timeout => 0.5), undef, 'a fetch at such an end is held');
$test->sql(q(SELECT evento.append('order-2', 'OrderChanged', '{"n":3}'); CALL evento.wait(NULL)));
my $rsp = $holder->answer($id);
is(join(' ', map { $_->[1]{eventSequenceNumber} } @{ $rsp->{body}{events}[1] }), '8', 'until there is another event');
# Appended and erased before anyone could have read it: the newest events, as they come in.
$id = $holder->fetch(8);
$test->sql(q(SELECT evento.append('order-4', 'OrderCreated', '{}')));
$test->sql(q(SELECT evento.erase_stream('order-4', 'a mistake'); SELECT evento.append('order-2', 'OrderChanged', '{"n":4}'); CALL evento.wait(NULL)));
$rsp = $holder->answer($id);
my @got = $rsp ? map { $_->[1]{eventSequenceNumber} } @{ $rsp->{body}{events}[1] } : ();
push @got, split / /, fetched($holder, $got[-1] // 8) while !grep { $_ == 10 } @got and @got < 5;
is($got[-1], 10, 'a feed at the head goes on behind an erased event');

# ---- stories ----

$id = $caller->command('OrderChange', 'order-1', '{"n":5}');
$call = next_call();
ok($call, 'a command for an erased aggregate is handled');
is_deeply($call->{events}, [], 'with a story that has no erased events');
is($call->{state}, 'null', 'and no snapshot');
$handler->respond($call, Evento::Bundle::domain_response('OrderChanged', '{"n":5}'));
my $answer = $caller->answer($id);
is($answer->{failure}, undef, 'and answered');
is($test->sql(q(SELECT string_agg(version || ':' || COALESCE(data::text, 'erased'), ' ' ORDER BY version) FROM evento.read_stream('order-1'))), '1:erased 2:erased 3:{"n":5}', 'its event comes behind the erased ones');
$id = $caller->command('OrderChange', 'order-1', '{"n":6}');
$call = next_call();
is_deeply($call->{events}, ['["shop.OrderChanged",{"n":5}]'], 'the next story has what is new');

# A request whose event was erased is repeated at another proxy when the first is gone: that knows of it by the log alone.
$handler->respond($call, Evento::Bundle::domain_response('OrderChanged', '{"n":6}'));
ok($caller->answer($id), 'answered');
my $head = $test->sql(q(SELECT version FROM evento.streams WHERE stream = 'order-1'));
is($head, '4', 'and stored');
$test->sql(q(SELECT evento.erase_stream('order-1', 'once more')));
is($proxy->stop, 0, 'the first proxy ends in order');
$handler = $fresh->bundle(bundle => 'orders', instance => 'h1', names => [qw(OrderCreate OrderChange Probe)]);
$caller = $fresh->bundle(bundle => 'caller', instance => 'c1');
$caller->reaches($handler);
$caller->command('OrderChange', 'order-1', '{"n":6}', correlation => $id);
my $repeat = $caller->answer($id);
is($repeat->{failure}, undef, 'a repeat of it is answered');
is($repeat->{body}{serializedPayload}[1]{serializedObject}, 'null', 'with an event without payload');
is($handler->recv('REQ', timeout => 0.3), undef, 'without asking the handler');
is($test->sql(q(SELECT version FROM evento.streams WHERE stream = 'order-1')), $head, 'and stores nothing');

# ---- a tombstone ----

$test->sql(q(SELECT evento.tombstone_stream('order-2')));
$id = $caller->command('OrderChange', 'order-2', '{"n":7}');
$call = next_call();
is_deeply($call->{events}, [], 'a stream with a tombstone has no story');
$answer = undef;
for (my $until = time + 60; !$answer && time < $until; $call = next_call(0.1))
{
	# The handler is asked again where the proxy hears of the tombstone while it is at work.
	$handler->respond($call, Evento::Bundle::domain_response('OrderChanged', '{"n":7}')) if $call;
	$answer = $caller->answer($id, timeout => 0.5);
}
like($answer && $answer->{failure} ? $answer->{failure}{message} : 'no answer', qr/deleted for good/, 'and its commands fail, and say why');
$test->sql('CALL evento.wait(NULL)');
is(fetched($reader, undef), join(' ', split /\n/, $test->sql(q(SELECT position FROM evento.events WHERE data IS NOT NULL ORDER BY position))), 'feeds have nothing of it');

is($fresh->stop, 0, 'the proxy ends in order');
done_testing();
