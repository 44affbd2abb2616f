# 610_bundle_consumers.pl
#   Consumers of bundles and executors in the views: what bundles register and
#   tell of them, where their fetches are, at two proxies, over reconnects.
use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my @proxies = map { $test->start(flags => { 'telemetry-interval' => '100ms', 'fetch-hold' => '5min' }) } 1 .. 2;
# Fetches are held until there is an event.
my %held = (timeout => 300_000);
my $encode = JSON::PP->new->canonical;

sub rows
{
	my ($sql) = @_;
	return JSON::PP->new->utf8->decode($test->sql("SELECT coalesce(json_agg(row_to_json(q)), '[]') FROM ($sql) q"));
}

sub rows_are
{
	my ($sql, $wanted, $what) = @_;
	my $rows;
	$proxies[0]->wait_for(sub { $rows = rows($sql); return $encode->encode($rows) eq $encode->encode($wanted) });
	return is_deeply($rows, $wanted, $what);
}

sub true { return JSON::PP::true }
sub false { return JSON::PP::false }

my ($projector, $saga, $ctx) = ('shop_OrderProjector_1_*', 'shop_OrderSaga_1_*', 'shop_OrderProjector_1_eu');
my $consumers = q{SELECT consumer, state, position, live, owner, context, version, component_type, component, instances, lag_events FROM evento.consumers WHERE kind = 'bundle' ORDER BY consumer};

sub consumer
{
	my ($id, %more) = @_;
	my ($component, $context) = $id =~ /_(.*)_1_(.*)/;
	return { consumer => $id, state => 'starting', position => undef, live => true, context => undef, version => 1, instances => 1, lag_events => undef,
		component_type => $component =~ /Saga/ ? 'Saga' : 'Projector', component => $component, %more };
}

# ---- registration ----

my $a = $proxies[0]->bundle(bundle => 'shop', instance => 'a');
$a->consumers(Projector => { OrderProjector => [ $projector, $ctx ] }, Saga => { OrderSaga => [$saga] });
rows_are($consumers, [ map { consumer($_, owner => 'a') } $projector, $ctx, $saga ], 'what a bundle registers');
is($test->sql(q{SELECT string_agg(DISTINCT bundle, ' ') FROM evento.consumers}), 'shop', 'with its bundle');

# ---- fetches ----

$test->sql(q{SELECT evento.append('order-1', 'OrderPlaced', '{}', context => 'eu'), evento.append('order-1', 'OrderPaid', '{}', context => 'us'), evento.append('order-1', 'OrderShipped', '{}', context => 'us')});
$test->sql('CALL evento.wait(NULL)');
my %fetch;
my $answer = $a->answer($a->fetch(0, component => 'OrderProjector', limit => 2));
is(scalar @{ $answer->{body}{events}[1] }, 2, 'a projector fetches');
rows_are("$consumers LIMIT 1", [ consumer($projector, owner => 'a', context => '*', state => 'running', position => 0, lag_events => 3) ], 'and stands where its fetch was');
$fetch{all} = $a->fetch(2, component => 'OrderProjector', limit => 1);
ok($a->answer($fetch{all}), 'it goes on');
rows_are("$consumers LIMIT 1", [ consumer($projector, owner => 'a', context => '*', state => 'running', position => 2, lag_events => 1) ], 'one event is left');
cmp_ok($test->sql(qq{SELECT lag_seconds FROM evento.consumers WHERE consumer = '$projector'}), '>', 0, 'whose age shows');
$a->fetch(3, component => 'OrderProjector', %held);
$a->fetch(1, component => 'OrderProjector', context => 'eu', %held);
my @at_head = (consumer($projector, owner => 'a', context => '*', state => 'waiting', position => 3, lag_events => 0),
	consumer($ctx, owner => 'a', context => 'eu', state => 'waiting', position => 3, lag_events => 0));
rows_are("$consumers LIMIT 2", \@at_head, 'at the head they wait, whatever events of other contexts there are');
is($test->sql(q{SELECT string_agg(lag_seconds::text, ' ') FROM evento.consumers WHERE position IS NOT NULL}), '0.000 0.000', 'and are not late');
$test->sql(q{SELECT evento.append('order-2', 'OrderPlaced', '{}', context => 'us')});
$test->sql('CALL evento.wait(NULL)');
$at_head[0]{state} = 'running';
$at_head[0]{lag_events} = 1;
$at_head[1]{position} = 4;
ok($a->recv('RSP'), 'a held fetch gets an event');
rows_are("$consumers LIMIT 2", [ { %{ $at_head[0] }, state => 'waiting' }, $at_head[1] ], 'of a context that another does not wait for');
is($test->sql(q{SELECT string_agg(DISTINCT kind, ' ' ORDER BY kind) FROM evento.consumers, (SELECT count(*) FROM evento.consumer_claim('in-sql', '1 h')) c}), 'bundle', 'beside consumers in SQL');
is($test->sql(q{SELECT string_agg(kind || ' ' || state, ', ' ORDER BY kind, state) FROM evento.consumers WHERE consumer IN ('in-sql', '} . "$ctx')"), 'bundle waiting, sql running', 'which have their own state');

# ---- a second instance, at the other proxy, takes over ----

my $b = $proxies[1]->bundle(bundle => 'shop', instance => 'b');
$b->consumers(Projector => { OrderProjector => [$projector] });
rows_are("$consumers LIMIT 1", [ { %{ $at_head[0] }, state => 'waiting', instances => 2 } ], 'two instances have a consumer');
$a->close;
rows_are("$consumers LIMIT 1", [ { %{ $at_head[0] }, state => 'waiting' } ], 'one is gone: the other has it, and has not fetched yet');
$b->fetch(4, component => 'OrderProjector', %held);
rows_are("$consumers LIMIT 1", [ consumer($projector, owner => 'b', context => '*', state => 'waiting', position => 4, lag_events => 0) ], 'it goes on');
is($test->sql(qq{SELECT string_agg(instance, ' ') FROM evento._bundle_consumers WHERE consumer = '$projector'}), 'b', 'and the row of the other goes');
is($test->sql(qq{SELECT state || ' ' || live FROM evento.consumers WHERE consumer = '$ctx'}), 'stopped false', 'a consumer that no instance has is stopped');

# ---- statistics ----

my @executors = ({ name => 'fast', capacity => 8, inFlight => 2, admitted => 100, rejected => 3, completed => 97, failed => 1 }, { name => 'slow', capacity => 1, inFlight => 0, admitted => 5, rejected => 0, completed => 5, failed => 0 });
my $statistics = q{SELECT bundle, version, instance, executor AS name, capacity, in_flight AS "inFlight", admitted, rejected, completed, failed FROM evento.executors ORDER BY executor};
$b->statistics(\@executors, [ { consumerId => $projector, componentName => 'OrderProjector', inFlight => 4, submitTimeouts => 5, transientFailures => 6 } ]);
my @of_b = (bundle => 'shop', version => 1, instance => 'b');
rows_are($statistics, [ map { { @of_b, %$_ } } @executors ], 'executors are as a bundle tells');
my $numbers = qq{SELECT in_flight, submit_timeouts, transient_failures, reported_at > now() - interval '1 minute' AS fresh FROM evento.consumers WHERE consumer = '$projector'};
rows_are($numbers, [ { in_flight => 4, submit_timeouts => 5, transient_failures => 6, fresh => true } ], 'and so are its consumers');
$executors[0]{$_}++ for qw(admitted completed);
$b->statistics([ $executors[0] ], []);
rows_are($statistics, [ map { { @of_b, %$_ } } @executors ], 'the newest hold');
my $c = $proxies[0]->bundle(bundle => 'shop', instance => 'c');
$c->statistics([], [ { consumerId => $projector, componentName => 'OrderProjector', inFlight => 1, submitTimeouts => 0, transientFailures => 0 } ]);
rows_are($numbers, [ { in_flight => 5, submit_timeouts => 5, transient_failures => 6, fresh => true } ], 'instances are summed');

# ---- the proxy dies ----

$proxies[1]->stop('KILL');
ok($proxies[0]->wait_for(sub { $test->sql('SELECT count(*) FROM evento.executors') == 0 }), 'with a proxy its instances are gone from executors');
rows_are("SELECT state, instances, in_flight FROM evento.consumers WHERE consumer = '$projector'", [ { state => 'waiting', instances => 1, in_flight => 1 } ], 'and from consumers');
$c->close;
rows_are("SELECT state, instances, live, position FROM evento.consumers WHERE consumer = '$projector'", [ { state => 'stopped', instances => 0, live => false, position => 4 } ],
	'where the position stays');
$test->sql(q{SELECT evento.append('order-3', 'OrderPlaced', '{}'); UPDATE evento._events SET recorded_at = recorded_at - interval '1 hour' WHERE position > 4});
$test->sql('CALL evento.wait(NULL)');
is($test->sql(qq{SELECT lag_events || ' ' || (lag_seconds > 3000) FROM evento.consumers WHERE consumer = '$projector'}), '1 true', 'and the lag grows');
like($test->sql('SELECT advice FROM evento.doctor() WHERE subject = ' . "'consumer $projector'"), qr/Start an instance of bundle shop/, 'of which doctor() tells');

# ---- a newer version of the bundle ----

my $new = $proxies[0]->connection;
$new->hello(bundle => 'shop', instance => 'new');
$new->recv('WLC') or die 'no welcome';
$new->notify('evento:bundle-registration', cbor_encode(map_(bundleVersion => int_(2), handlerPayloadTypes => [])));
$new->notify('evento:enable');
$new->consumers(Projector => { OrderProjector => ['shop_OrderProjector_2_*'] });
rows_are("SELECT consumer, version FROM evento.consumers WHERE kind = 'bundle'", [ { consumer => 'shop_OrderProjector_2_*', version => 2 } ], 'a newer version takes the place of one that nobody has');

is($proxies[0]->stop, 0, 'ends');
done_testing();
