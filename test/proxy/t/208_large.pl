# 208_large.pl
#   A command whose payload is larger than a frame, with an event, a snapshot, a
#   story and a fetch as large; and small ones that pass it on the way.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

use constant SIZE => 20 * 1024 * 1024;

my $test = Evento::ProxyTest->new;
my ($one, $two) = ($test->start, $test->start);
my $caller = $one->bundle(bundle => 'caller', instance => 'c1');
my $handler = $two->bundle(bundle => 'orders', instance => 'h1', names => [qw(Create Change Probe)]);
$caller->reaches($handler);

# JSON of that size, and messages in chunks where they need it.
my $json = '{"x":"' . 'ab' x (SIZE / 2) . '"}';
{
	no warnings 'redefine';
	my $send = \&Evento::Bundle::send_message;
	*Evento::Bundle::send_message = sub {
		my ($self, @pairs) = @_;
		my $message = cbor_encode(map_(@pairs));
		return $self->send_chunks($message, 4 * 1024 * 1024) if length $message > 8 * 1024 * 1024;
		return $self->send_raw(Evento::Bundle::frame($message));
	};
}

# What a decorated command brought, as lengths.
sub story_of
{
	my ($req) = @_;
	my $decorated = cbor_decode($req->{payload})->[1]{body}[1];
	return (length $decorated->{serializedAggregateState}[1]{serializedObject},
		map { length $_->[1]{serializedPayload}[1]{serializedObject} } @{ $decorated->{eventStream}[1] });
}

my $id = $caller->command('Create', 'large', $json, timeout => 240000);
my $req = $handler->recv('REQ', timeout => 240);
ok($req, 'a large command reaches a handler at another proxy');
ok(cbor_decode($req->{payload})->[1]{body}[1]{commandMessage}[1]{serializedPayload}[1]{serializedObject} eq qq(["shop.Create",$json]), 'whole');
$handler->respond($req, Evento::Bundle::domain_response('Created', $json));
my $small = $caller->command('Create', 'small', '{}', timeout => 240000);
my $answer = $caller->answer($id, timeout => 240);
ok($answer->{body}{serializedPayload}[1]{serializedObject} eq qq(["shop.Created",$json]), 'and its large event comes back');
my $other = $handler->recv('REQ', timeout => 240);
$handler->respond($other, Evento::Bundle::domain_response('Created', '{}'));
ok($caller->answer($small, timeout => 240), 'a small command passes');
is($test->sql(q(SELECT length(data::text) FROM evento.read_stream('large'))), length $json, 'the large event is in the log');

$id = $caller->command('Change', 'large', '{}', timeout => 240000);
$req = $handler->recv('REQ', timeout => 240);
is_deeply([ story_of($req) ], [ 4, length($json) + 17 ], 'it is sent with the story');
$handler->respond($req, Evento::Bundle::domain_response('Changed', '{}', state => $json));
ok($caller->answer($id, timeout => 240), 'a large snapshot is taken');
$id = $caller->command('Change', 'large', '{}', timeout => 240000);
$req = $handler->recv('REQ', timeout => 240);
is_deeply([ story_of($req) ], [ length($json) + 15 ], 'and sent in place of the story');
$handler->respond($req, Evento::Bundle::domain_response('Changed', '{}'));
ok($caller->answer($id, timeout => 240), 'and the command is answered');

$test->sql('CALL evento.wait(NULL)');
$answer = $caller->answer($caller->fetch(undef, timeout => 240000), timeout => 240);
my @events = @{ $answer->{body}{events}[1] };
is($events[0][1]{eventSequenceNumber}, 1, 'a consumer fetches it');
ok($events[0][1]{eventMessage}[1]{serializedPayload}[1]{serializedObject} eq qq(["shop.Created",$json]), 'whole');

$id = $caller->command('Create', 'too-large', '{}', timeout => 240000);
$req = $handler->recv('REQ', timeout => 240);
$handler->respond($req, Evento::Bundle::domain_response('Created', '{"x":"' . 'a' x (65 * 1024 * 1024) . '"}'));
like($caller->answer($id, timeout => 240)->{failure}{message}, qr/SQLSTATE 22023|54000/, 'an event beyond the bound of the database is refused');
ok($caller->alive && $handler->alive, 'and the connections live on');

is($_->stop, 0, 'a proxy ends in order') for $one, $two;
done_testing();
