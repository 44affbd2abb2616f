# 202_service.pl
#   Service commands: with and without an event, with and without a stream, here
#   and at another proxy.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my ($one, $two) = ($test->start, $test->start);
my $caller = $one->bundle(bundle => 'caller', instance => 'c1');
my $handler = $two->bundle(bundle => 'mail', instance => 'h1', names => [qw(Send Probe)]);
$caller->reaches($handler);
my $id;

sub events { return $test->sql("CALL evento.wait(NULL); SELECT coalesce(stream, '-') || ' ' || kind || ' ' || type || ' ' || data::text FROM evento.events ORDER BY position") =~ s/^\d+\n//r }

# A command that its handler at the other proxy answers with this body.
sub call
{
	my ($json, $body, %opt) = @_;
	$id = $caller->service_command('Send', $json, %opt);
	my $req = $handler->recv('REQ') or return undef;
	$handler->respond($req, $body);
	return ($caller->answer($id), $req);
}

my ($answer, $req) = call('{"to":"a"}', Evento::Bundle::event_message('Service', 'Sent', '{"to":"a"}'));
is($answer->{class}, 'ServiceEventMessage', 'a service command is answered with its event');
is($req->{sourceBundleId}, 'evento-server', 'the handler is asked in the name of the server');
my $request = cbor_decode($req->{payload});
like($request->[1]{body}[0], qr/\.ServiceCommandMessage$/, 'with the command itself');
is($request->[1]{body}[1]{serializedPayload}[1]{serializedObject}, '["shop.Send",{"to":"a"}]', 'unchanged');
is(events(), '- service Sent {"to":"a"}', 'without aggregateId the event is in no stream');

call('{}', Evento::Bundle::event_message('Service', 'Sent', '{"to":"b"}'), stream => 'mail-1');
is($test->sql(q(SELECT version, kind, type, class FROM evento.read_stream('mail-1'))), '1|service|Sent|shop.Sent', 'with an aggregateId it is in that stream');
call('{}', Evento::Bundle::event_message('Service', 'Sent', '{"to":"c"}'), stream => 'mail-1');
is($test->sql(q(SELECT count(*) FROM evento.read_stream('mail-1'))), 2, 'whatever stands there already');

my $before = events();
($answer) = call('{}', Evento::Bundle::event_message('Service'));
is($answer->{class}, 'ServiceEventMessage', 'without an event the answer is the same kind');
is($answer->{body}{serializedPayload}[1]{objectClass}, undef, 'with nothing in it');
is(events(), $before, 'and nothing is stored');

($answer) = call('{}', Evento::Bundle::exception('mail.Full', 'no room'), stream => 'mail-1');
is("$answer->{class} $answer->{body}{throwable}: $answer->{body}{message}", 'ExceptionWrapper mail.Full: no room', 'an exception passes as it is');
is(events(), $before, 'and stores nothing');

$id = $caller->service_command('Send', '{}');
$handler->fail($handler->recv('REQ'), 'x.Y', 'broken');
$answer = $caller->answer($id);
is("$answer->{class} $answer->{body}{throwable}: $answer->{body}{message}", 'ExceptionWrapper java.lang.RuntimeException: broken', 'a failing handler is an exception for the caller');

$id = $caller->service_command('Nobody', '{}');
is($caller->answer($id)->{failure}{message}, 'no handler for Nobody', 'a name no one handles');

# Many at once: they do not wait for each other.
my @ids = map { $caller->service_command('Send', qq({"n":$_})) } 1 .. 30;
my @reqs = map { $handler->recv('REQ') } 1 .. 30;
is(scalar(grep { defined } @reqs), 30, 'thirty commands are with the handler at once');
$handler->respond($_, Evento::Bundle::event_message('Service', 'Sent', '{"many":true}')) for reverse @reqs;
is(scalar(grep { ($caller->answer($_)->{class} // '') eq 'ServiceEventMessage' } @ids), 30, 'and all are answered');
$test->sql('CALL evento.wait(NULL)');
is($test->sql(q(SELECT count(*) FROM evento.events WHERE data->>'many' = 'true')), 30, 'and stored');

is($_->stop, 0, 'a proxy ends in order') for $one, $two;
done_testing();
