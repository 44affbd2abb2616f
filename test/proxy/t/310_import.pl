# 310_import.pl
#   After the import of a Java server's log a bundle finds what it had there: the
#   same events at the same sequence numbers, word for word, its aggregates with
#   their snapshots, and its consumers go on at the positions they have stored.
use strict;
use warnings;

use Test::More;

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my @stored = (
	# number, aggregate, kind, class, payload
	[ 1573675342192967680, 'order-1', 'Domain', 'shop.OrderPlaced', '["shop.OrderPlaced",{"orderId":"order-1","amount":1.10,"tags":["java.util.ArrayList",["a\u0000"]]}]' ],
	[ 1573675342192967681, undef, 'Service', 'shop.Marked', '["shop.Marked",{"note":"n"}]' ],
	[ 1573675342192967690, 'order-1', 'Domain', 'shop.OrderPaid', '["shop.OrderPaid",{"by":"card"}]' ],
	[ 1573675342192967699, 'order-1', 'Domain', 'shop.OrderPaid', '["shop.OrderPaid", {"spaced":true}]' ]);

sub quoted { return defined $_[0] ? "'" . $_[0] =~ s/'/''/gr . "'" : 'NULL' }

$test->sql('CREATE TABLE es__events (event_sequence_number bigint PRIMARY KEY, aggregate_id text, event_message text, event_name text, context text, created_at timestamp, deleted_at timestamp)');
$test->sql('CREATE TABLE es__snapshot (aggregate_id text PRIMARY KEY, event_sequence_number bigint, aggregate_state text, updated_at timestamptz, deleted_at timestamptz)');
for my $e (@stored)
{
	my ($number, $aggregate, $kind, $class, $payload) = @$e;
	my $object = $test->sql('SELECT to_json(' . quoted($payload) . '::text)');
	my $message = qq(["com.evento.common.modeling.messaging.message.application.${kind}EventMessage",{"serializedPayload":["com.evento.common.modeling.messaging.message.application.SerializedPayload",{"serializedObject":$object,"objectClass":"class $class"}],"timestamp":1700000000123,"metadata":["com.evento.common.modeling.messaging.message.application.Metadata",{"user":"ann"}],"forceTelemetry":false,"context":"default"}]);
	$test->sql("INSERT INTO es__events VALUES ($number, " . join(', ', map { quoted($_) } $aggregate, $message, $class =~ s/.*\.//r, 'default') . ", '2023-11-14 22:13:20')");
}
$test->sql(q(INSERT INTO es__snapshot VALUES ('order-1', 1573675342192967690, '["com.evento.common.modeling.state.SerializedAggregateState",{"serializedObject":"[\"shop.Order\",{\"paid\":true}]","objectClass":"class shop.Order"}]', now())));
is($test->sql('CALL evento.import_evento()'), scalar @stored, 'the log is imported');
$test->sql('CALL evento.wait(NULL)');

my $proxy = $test->start;
my $bundle = $proxy->bundle(bundle => 'shop', instance => 's1', names => ['OrderShip']);
my $rsp = $bundle->answer($bundle->fetch(undef));
my @events = map { $_->[1] } @{ $rsp->{body}{events}[1] };
is(join(' ', map { $_->{eventSequenceNumber} } @events), join(' ', map { $_->[0] } @stored), 'a fetch gives the events at the numbers they had');
is(join("\n", map { $_->{eventMessage}[1]{serializedPayload}[1]{serializedObject} } @events), join("\n", map { $_->[4] } @stored), 'with their payloads, word for word');
is(join("\n", map { $_->{eventMessage}[1]{serializedPayload}[1]{objectClass} } @events), join("\n", map { "class $_->[3]" } @stored), 'and classes');
is(join(' ', map { $_->{eventMessage}[0] =~ /\.(\w+)EventMessage$/ } @events), join(' ', map { $_->[2] } @stored), 'and kinds');
is($events[0]{eventMessage}[1]{timestamp}, 1700000000123, 'and times');
is($events[0]{eventMessage}[1]{metadata}[1]{user}, 'ann', 'and metadata');
$rsp = $bundle->answer($bundle->fetch($stored[1][0]));
is(join(' ', map { $_->[1]{eventSequenceNumber} } @{ $rsp->{body}{events}[1] }), join(' ', map { $stored[$_][0] } 2, 3), 'a consumer goes on behind the position it has stored');

my $id = $bundle->command('OrderShip', 'order-1');
my $req = $bundle->recv('REQ');
my $decorated = cbor_decode($req->{payload})->[1]{body}[1];
is($decorated->{serializedAggregateState}[1]{serializedObject}, '["shop.Order",{"paid":true}]', 'a command gets the snapshot');
is(join(' ', map { $_->[1]{serializedPayload}[1]{serializedObject} } @{ $decorated->{eventStream}[1] }), $stored[3][4], 'and the events behind it');
$bundle->respond($req, Evento::Bundle::domain_response('OrderShipped', '{}'));
ok(!defined $bundle->answer($id)->{failure}, 'and its event is appended');
is($test->sql(q(SELECT version, type, position > 1573675342192967699 FROM evento.read_stream('order-1', 4))), '4|OrderShipped|t', 'behind all that was imported');

is($proxy->stop, 0, 'the proxy ends in order');
done_testing();
