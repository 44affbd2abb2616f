# 620_administration.pl
#   The administration of bundles' consumers from SQL: status, dead-letter queue,
#   retry, delete, process, for an instance at any proxy; failures, timeouts,
#   instances that go, and who may.
use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

use constant CONSUMER => 'com.evento.common.modeling.messaging.message.internal.consumer.';

my $test = Evento::ProxyTest->new;
my @proxies = map { $test->start(flags => { 'telemetry-interval' => '100ms' }) } 1 .. 2;
my $node = $test->node;
$node->safe_psql('postgres', 'CREATE ROLE boss LOGIN IN ROLE evento_admin; CREATE ROLE reader LOGIN IN ROLE evento_reader');

my $id = 'shop_OrderProjector_1_*';
my ($a, $b) = map { my $c = $proxies[$_]->bundle(bundle => 'shop', instance => ('a', 'b')[$_]); $c->consumers(Projector => { OrderProjector => [$id] }); $c } 0, 1;
ok($proxies[0]->wait_for(sub { $test->sql("SELECT instances FROM evento.consumers WHERE consumer = '$id'") eq '2' }), 'two instances have a consumer');
$b->fetch(0, component => 'OrderProjector');
ok($proxies[0]->wait_for(sub { $test->sql("SELECT owner FROM evento.consumers WHERE consumer = '$id'") eq 'b' }), 'one of them fetches');

# A statement as a role, in the background; begin gives a handle, ended its output, errors and SQLSTATE.
sub begin
{
	my ($sql, %opt) = @_;
	my %h = (in => '', out => '', err => '');
	# A call has ten seconds; those that are not about that get more.
	$sql =~ s/^(CALL evento\.consumer_\w+\((?!.*timeout).*)\)$/$1, timeout => '1min')/ if !ref $sql && !$opt{as_it_is};
	my $path = "host=" . $node->host . " port=" . $node->port . " dbname=postgres user=" . ($opt{role} // 'boss');
	$h{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d', $path, map { ('-c', $_) } ref $sql ? @$sql : $sql ], '<', \$h{in}, '>', \$h{out}, '2>', \$h{err}, IPC::Run::timeout(120));
	return \%h;
}

sub ended
{
	my ($h) = @_;
	eval { $h->{run}->finish };
	chomp $h->{out};
	my ($state, $message) = $h->{err} =~ /ERROR:  (\w{5}): (.*)/;
	return { out => $h->{out}, state => $state // '', message => $message // '', detail => ($h->{err} =~ /DETAIL:  (.*)/)[0] // '', hint => ($h->{err} =~ /HINT:  (.*)/)[0] // '' };
}

# What an instance is asked: class, fields and all that is around them.
sub asked
{
	my ($bundle) = @_;
	my $req = $bundle->recv('REQ') or return;
	my $graph = cbor_decode($req->{payload});
	return ($req, $graph->[1]{body}[0] =~ s/.*\.//r, $graph->[1]{body}[1], $graph);
}

# ---- status ----

my $h = begin("CALL evento.consumer_status('$id')", as_it_is => 1);
my ($req, $class, $fields, $graph) = asked($b);
is($class, 'ConsumerFetchStatusRequestMessage', 'the instance that fetches is asked, at its proxy');
is_deeply($fields, { consumerId => $id, componentType => 'Projector' }, 'for its consumer');
is_deeply([ @$req{qw(payloadType sourceBundleId sourceBundleVersion)} ], [ 'evento:server-admin-request', 'evento-server', '0' ], 'by the server');
is($graph->[0], 'com.evento.common.modeling.messaging.message.internal.EventoRequest', 'in the usual way');
is_deeply([ @{ $graph->[1] }{qw(sourceBundleId sourceBundleVersion unit)} ], [ 'evento-server', 0, 'MILLISECONDS' ], 'with what belongs to it');
cmp_ok($req->{timeoutMillis}, '<=', 10000, 'and the time there is');

sub exception { return Evento::Bundle::exception(@_) }
my $dead = [ CONSUMER . 'x.DeadPublishedEvent', map_(consumerId => $id, eventName => 'OrderPlaced', aggregateId => 'order-1', context => 'default', eventSequenceNumber => '7', event => undef,
		retry => bool_(0), exception => exception('java.lang.RuntimeException', "no \x{1f680}"), deadAt => raw_("\xfb\x41\xd9\x40\x00\x00\x20\x00\x00")) ];

sub status
{
	my (@dead) = @_;
	return [ CONSUMER . 'ConsumerFetchStatusResponseMessage', map_(lastEventSequenceNumber => int_(2956), deadEvents => [ 'java.util.ImmutableCollections$ListN', \@dead ], isInError => bool_(1),
			errorStartAt => undef, lastErrorAt => undef, errorCount => int_(3), error => 'it broke', enabled => bool_(1), asyncInFlight => int_(0), asyncSubmitTimeouts => int_(0),
			asyncTransientFailures => int_(0), asyncExecutors => [ 'java.util.ImmutableCollections$SetN', ['fast'] ], inError => bool_(1)) ];
}
$b->respond($req, status($dead, $dead));
my $end = ended($h);
is($end->{state}, '', 'it answers');
is_deeply(JSON::PP->new->utf8->decode($end->{out}), { lastEventSequenceNumber => 2956, isInError => JSON::PP::true, errorStartAt => undef, lastErrorAt => undef, errorCount => 3, error => 'it broke',
		enabled => JSON::PP::true, asyncInFlight => 0, asyncSubmitTimeouts => 0, asyncTransientFailures => 0, asyncExecutors => ['fast'], inError => JSON::PP::true, deadEventCount => 2 }, 'with its status');
is($test->sql("SELECT state || ' ' || dead_events || ' ' || (status->>'error') || ' ' || (status_at > now() - interval '1 minute') FROM evento.consumers WHERE consumer = '$id'"), 'error 2 it broke true', 'which the view shows from then on');
like($test->sql("SELECT finding FROM evento.doctor() WHERE subject = 'consumer $id'"), qr/could not handle 2 events/, 'as does doctor()');

# ---- the dead-letter queue ----

$h = begin("CALL evento.consumer_dead_events('$id')");
$b->respond((asked($b))[0], status($dead));
is_deeply(JSON::PP->new->utf8->decode(ended($h)->{out}), [ { consumerId => $id, eventName => 'OrderPlaced', aggregateId => 'order-1', context => 'default', eventSequenceNumber => '7', event => undef,
		retry => JSON::PP::false, deadAt => 1694498816.5, exception => { throwable => 'java.lang.RuntimeException', message => "no \x{1f680}", stackTrace => [], cause => undef } } ], 'the dead events');
$h = begin("CALL evento.consumer_dead_events('$id')");
$b->respond((asked($b))[0], status());
is(ended($h)->{out}, '[]', 'or none');

for my $case ([ "consumer_retry_event('$id', 7)", 'ConsumerSetEventRetryRequestMessage', { eventSequenceNumber => 7, retry => 1 } ],
	[ "consumer_retry_event('$id', 8, retry => false)", 'ConsumerSetEventRetryRequestMessage', { eventSequenceNumber => 8, retry => 0 } ],
	[ "consumer_delete_event('$id', 9223372036854775807)", 'ConsumerDeleteDeadEventRequestMessage', { eventSequenceNumber => 9223372036854775807 } ],
	[ "consumer_process_events('$id')", 'ConsumerProcessDeadQueueRequestMessage', {} ])
{
	my ($call, $wanted, $more) = @$case;
	$h = begin("CALL evento.$call");
	($req, $class, $fields) = asked($b);
	is($class, $wanted, $call);
	is_deeply($fields, { consumerId => $id, componentType => 'Projector', %$more }, 'with what it says');
	$b->respond($req, [ CONSUMER . 'ConsumerResponseMessage', map_(success => bool_(1)) ]);
	is(ended($h)->{out}, 't', 'is done');
}
$h = begin("CALL evento.consumer_process_events('$id')");
$b->respond((asked($b))[0], [ CONSUMER . 'ConsumerResponseMessage', map_(success => bool_(0)) ]);
is(ended($h)->{out}, 'f', 'or is not');

# ---- another instance, by name ----

$h = begin("CALL evento.consumer_status('$id', instance => 'a')");
$a->respond((asked($a))[0], status());
is(JSON::PP->new->utf8->decode(ended($h)->{out})->{deadEventCount}, 0, 'an instance that is named is asked');

# ---- several at a time ----

my @many = map { begin("CALL evento.consumer_delete_event('$id', $_)") } 1 .. 8;
my @requests = map { [ asked($b) ] } 1 .. 8;
$b->respond($_->[0], [ CONSUMER . 'ConsumerResponseMessage', map_(success => bool_($_->[2]{eventSequenceNumber} % 2)) ]) for reverse @requests;
is(join(' ', map { ended($_)->{out} } @many), join(' ', map { $_ % 2 ? 't' : 'f' } 1 .. 8), 'eight at a time, each gets its answer');

# ---- failures ----

$h = begin("CALL evento.consumer_status('$id')");
$b->respond((asked($b))[0], exception('java.lang.IllegalStateException', 'no such consumer'));
$end = ended($h);
is_deeply([ @$end{qw(state message)} ], [ '38000', qq(consumer "$id": no such consumer) ], 'an exception is raised');
like($end->{detail}, qr/Instance "b" of bundle "shop" answered with java\.lang\.IllegalStateException/, 'with its class and whose it is');
$h = begin("CALL evento.consumer_delete_event('$id', 1)");
$b->fail((asked($b))[0], 'java.lang.Error', 'broken');
is_deeply([ @{ $end = ended($h) }{qw(state message)} ], [ '38000', qq(consumer "$id": broken) ], 'as is a failure');
for my $odd ([ undef, 'null' ], [ raw_("\x82\x01\x02"), 'not a typed object' ], [ [ 'a.B', [] ], 'a list' ])
{
	$h = begin("CALL evento.consumer_delete_event('$id', 1)");
	$b->respond((asked($b))[0], $odd->[0]);
	is(ended($h)->{state}, '38000', "an answer that is none: $odd->[1]");
}
$h = begin("CALL evento.consumer_delete_event('$id', 1)");
$req = (asked($b))[0];
$b->send_message('@t' => 'RSP', correlationId => \$req->{correlationId}, payloadType => 'x', payload => \'no CBOR', failure => undef, timestampMs => int_(1));
like(ended($h)->{message}, qr/unreadable answer/, 'and one that cannot be read');

# It has to come to the instance before that, which a busy machine may need more time for.
for my $ms (700, 5000, 20_000)
{
	my $t = time;
	$end = ended(begin("CALL evento.consumer_delete_event('$id', 1, timeout => '${ms}ms')"));
	my $took = time - $t;
	$req = $b->recv('REQ', timeout => 1);
	next if $end->{state} eq '55000' && $ms < 20_000;
	is_deeply([ @$end{qw(state message)} ], [ '40003', qq(consumer "$id": no answer in time) ], 'no answer within the timeout');
	cmp_ok($took, '>=', $ms / 1000, 'which is waited for');
	last;
}
$b->respond($req, [ CONSUMER . 'ConsumerResponseMessage', map_(success => bool_(1)) ]);
ok($b->alive, 'an answer that is late harms nobody');

# ---- an answer from somebody else ----

$h = begin("CALL evento.consumer_delete_event('$id', 2)");
$req = (asked($b))[0];
my $other = $proxies[1]->bundle(bundle => 'shop', instance => 'other');
$other->respond($req, [ CONSUMER . 'ConsumerResponseMessage', map_(success => bool_(0)) ]);
$other->alive or die;
$b->respond($req, [ CONSUMER . 'ConsumerResponseMessage', map_(success => bool_(1)) ]);
is(ended($h)->{out}, 't', 'only the instance that was asked answers');

# ---- instances that go ----

$h = begin("CALL evento.consumer_status('$id')");
asked($b);
$b->close;
like(ended($h)->{message}, qr/connection ended before it answered/, 'an instance that goes while it is asked');
ok($proxies[0]->wait_for(sub { $test->sql(q{SELECT evento._connected('shop', 'b')}) eq 'f' }), 'it is gone');
$h = begin("CALL evento.consumer_status('$id')");
$a->respond((asked($a))[0], status());
is(ended($h)->{state}, '', 'the other instance is asked then');

$h = begin("CALL evento.consumer_status('$id', 'b')");
is(($end = ended($h))->{state}, '55000', 'one that is gone is not asked');
like($end->{detail}, qr/"b" of bundle "shop"/, 'and is named');
is(ended(begin("CALL evento.consumer_status('nobody')"))->{state}, '42704', 'a consumer that nobody knows');
is(ended(begin("CALL evento.consumer_status('$id', 'nobody')"))->{state}, '42704', 'an instance that nobody knows');
is(ended(begin("CALL evento.consumer_status(NULL)"))->{state}, '22023', 'no consumer');
is(ended(begin("CALL evento.consumer_retry_event('$id', NULL)"))->{state}, '22023', 'no position');
is(ended(begin("CALL evento.consumer_status('$id', timeout => '$_')"))->{state}, '22023', "a timeout of $_") for '0s', '-1s', '11min';

# A proxy that is stopped holds its instance, and takes nothing.
kill 'STOP', $proxies[0]{pid};
$end = ended(begin("CALL evento.consumer_status('$id', timeout => '1500ms')"));
kill 'CONT', $proxies[0]{pid};
is_deeply([ @$end{qw(state message)} ], [ '55000', qq(consumer "$id": the request reached no proxy in time) ], 'a request that no proxy takes');
is($a->recv('REQ', timeout => 1), undef, 'is not carried out later');

# The instance moves to another proxy before its request is taken.
kill 'STOP', $proxies[0]{pid};
$h = begin("CALL evento.consumer_status('$id', timeout => '30s')");
ok($proxies[1]->wait_for(sub { $test->sql('SELECT count(*) FROM evento._asks WHERE taken_at IS NULL AND deadline > now()') == 1 }), 'a request waits');
my $moved = $proxies[1]->bundle(bundle => 'shop', instance => 'a');
$moved->consumers(Projector => { OrderProjector => [$id] });
$moved->respond((asked($moved))[0], status());
is(ended($h)->{state}, '', 'an instance that comes back at another proxy is asked there');
kill 'CONT', $proxies[0]{pid};
ok($a->wait_closed, 'its old connection is superseded');

# ---- where it cannot be called, and by whom ----

is(ended(begin([ 'BEGIN', "CALL evento.consumer_status('$id')" ]))->{state}, '25001', 'not in a transaction block');
$end = ended(begin("CALL evento.consumer_status('$id'); SELECT 1"));
is($end->{state}, '25001', 'nor among other statements');
like($end->{message}, qr/^evento\.consumer_status\(\) cannot be called inside a transaction block or a function/, 'which it says');
is(ended(begin([ 'SET default_transaction_isolation = serializable', "CALL evento.consumer_status('$id')" ]))->{state}, '25001', 'nor under SERIALIZABLE');
$h = begin("DO \$\$ DECLARE s jsonb; BEGIN FOR i IN 1 .. 2 LOOP CALL evento.consumer_status('$id', status => s); RAISE NOTICE 'at %', s->'lastEventSequenceNumber'; END LOOP; END \$\$");
$moved->respond((asked($moved))[0], status()) for 1 .. 2;
is(ended($h)->{state}, '', 'in code that may commit it works');
is(scalar(() = $h->{err} =~ /at 2956/g), 2, 'more than once');
is(ended(begin("CALL evento.consumer_status('$id')", role => 'reader'))->{state}, '42501', 'a reader may not');
is(ended(begin("CALL evento._ask_and_wait('x', 'status', '$id', NULL, NULL, NULL, '1s', NULL)", role => 'reader'))->{state}, '42501', 'in no way');

# ---- cancelled, and cleared away ----

$h = begin("CALL evento.consumer_status('$id')");
$req = (asked($moved))[0];
$test->sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL evento.consumer_status%' AND usename = 'boss'});
is(ended($h)->{state}, '57014', 'a call can be cancelled');
$moved->respond($req, status());
ok($moved->alive, 'whose answer harms nobody');
$test->sql(q{UPDATE evento._asks SET deadline = deadline - interval '1 hour'});
$h = begin("CALL evento.consumer_process_events('$id')");
$moved->respond((asked($moved))[0], [ CONSUMER . 'ConsumerResponseMessage', map_(success => bool_(1)) ]);
is(ended($h)->{out}, 't', 'the next call');
is($test->sql('SELECT count(*) FROM evento._asks'), 1, 'clears old requests away');

# ---- a queue of some size ----

$h = begin("CALL evento.consumer_dead_events('$id')");
$moved->respond((asked($moved))[0], status(($dead) x 20000));
is(scalar @{ JSON::PP->new->utf8->decode(ended($h)->{out}) }, 20000, 'twenty thousand dead events');

is($_->stop, 0, 'ends') for @proxies;
done_testing();
