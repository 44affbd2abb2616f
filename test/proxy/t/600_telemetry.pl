# 600_telemetry.pl
#   What bundles tell of their handlers is in handler_statistics, handler_history
#   and invocations: summed over instances and proxies, exactly, also when the
#   database goes away in between; bounded, and none of it needed for anything else.
use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my @proxies = map { $test->start(flags => { 'telemetry-interval' => '100ms', 'telemetry-entries' => 40 }) } 1 .. 2;

sub rows
{
	my ($sql) = @_;
	return JSON::PP->new->utf8->decode($test->sql("SELECT coalesce(json_agg(row_to_json(q)), '[]') FROM ($sql) q"));
}

# Waits for rows; fails with those that there are.
sub rows_are
{
	my ($sql, $wanted, $what) = @_;
	my $encode = JSON::PP->new->canonical;
	my $rows;
	$proxies[0]->wait_for(sub { $rows = rows($sql); return $encode->encode($rows) eq $encode->encode($wanted) });
	return is_deeply($rows, $wanted, $what);
}

my $statistics = 'SELECT bundle, version, component_type, component, handler_type, action, handled, mean_ms, max_ms, total_ms FROM evento.handler_statistics ORDER BY bundle COLLATE "C", component COLLATE "C", action COLLATE "C"';
my $invocations = 'SELECT bundle, component, action, invoked, kind, lines, invocations FROM evento.invocations ORDER BY component COLLATE "C", action COLLATE "C", invoked COLLATE "C"';

# ---- two instances at two proxies ----

sub described
{
	my ($proxy, $instance) = @_;
	my $b = $proxy->connection;
	$b->hello(bundle => 'shop', instance => $instance);
	$b->recv('WLC') or die 'no welcome';
	$b->register('OrderPlace', 'OrderFind');
	my $handler = sub {
		my ($type, $component, $handler_type, $payload, %more) = @_;
		return map_(componentType => $type, componentName => $component, handlerType => $handler_type, handledPayloadType => 'X', handledPayload => $payload,
			invokedCommands => map_(@{ $more{commands} // [] }), invokedQueries => map_(@{ $more{queries} // [] }));
	};
	$b->discovery($handler->('Aggregate', 'Order', 'AggregateCommandHandler', 'OrderPlace'), $handler->('Projection', 'Orders', 'QueryHandler', 'OrderFind'),
		$handler->('Invoker', 'Shop', 'InvocationHandler', 'Shop::buy', commands => [ int_(12) => 'OrderPlace', int_(7) => 'OrderPlace' ], queries => [ int_(3) => 'OrderFind' ]));
	$b->notify('evento:enable');
	$b->consumers;
	return $b;
}
my @bundles = map { described($proxies[$_], "shop-$_") } 0, 1;

rows_are($invocations, [ { bundle => 'shop', component => 'Shop', action => 'Shop::buy', invoked => 'OrderFind', kind => 'query', lines => [3], invocations => 0 },
		{ bundle => 'shop', component => 'Shop', action => 'Shop::buy', invoked => 'OrderPlace', kind => 'command', lines => [ 7, 12 ], invocations => 0 } ],
	'what discovery says of who invokes what');
is_deeply(rows($statistics), [], 'no handler has been called');

$bundles[0]->service_time('Order', 'OrderPlace', $_) for 1, 2, 3;
$bundles[1]->service_time('Order', 'OrderPlace', $_) for 10, 20;
$bundles[1]->invocations('Orders', 'OrderFind');
$bundles[0]->service_time('Shop', 'Shop::buy', 7);
$bundles[$_]->invocations('Shop', 'Shop::buy', OrderPlace => 2, OrderFind => 1) for 0, 1;
$bundles[0]->invocations('Shop', 'Shop::buy', Unknown => 5);
$bundles[0]->invocations('Shop', 'Shop::buy');
my @shop = (bundle => 'shop', version => 1);
my @wanted = (
	{ @shop, component_type => 'Aggregate', component => 'Order', handler_type => 'AggregateCommandHandler', action => 'OrderPlace', handled => 5, mean_ms => 7.2, max_ms => 20, total_ms => 36 },
	{ @shop, component_type => 'Projection', component => 'Orders', handler_type => 'QueryHandler', action => 'OrderFind', handled => 1, mean_ms => undef, max_ms => undef, total_ms => 0 },
	{ @shop, component_type => 'Invoker', component => 'Shop', handler_type => 'InvocationHandler', action => 'Shop::buy', handled => 4, mean_ms => 7, max_ms => 7, total_ms => 7 });
rows_are($statistics, \@wanted, 'calls of two instances at two proxies are summed');
my @invoked = (
	{ bundle => 'shop', component => 'Shop', action => 'Shop::buy', invoked => 'OrderFind', kind => 'query', lines => [3], invocations => 2 },
	{ bundle => 'shop', component => 'Shop', action => 'Shop::buy', invoked => 'OrderPlace', kind => 'command', lines => [ 7, 12 ], invocations => 4 },
	{ bundle => 'shop', component => 'Shop', action => 'Shop::buy', invoked => 'Unknown', kind => undef, lines => undef, invocations => 5 });
rows_are($invocations, \@invoked, 'and so is what they invoked, be it in discovery or not');
is($test->sql('SELECT bool_and(hour <= first_at AND first_at <= last_at AND last_at <= clock_timestamp()) FROM evento.handler_history'), 't', 'each in its hour');

# ---- what cannot be summed ----

my $dropped = sub { $proxies[0]->metric('telemetry_dropped_total') };
is($dropped->(), 0, 'nothing was left out');
$bundles[0]->service_time('x' x 513, 'OrderPlace', 1);
$bundles[0]->service_time('Order', '', 1);
$bundles[0]->admin_notification(undef);
$bundles[0]->admin_notification([ 'com.evento.common.performance.PerformanceServiceTimeMessage', map_() ]);
$bundles[0]->admin_notification([ 'com.evento.common.performance.PerformanceServiceTimeMessage', [] ]);
$bundles[0]->notify('evento:bundle-admin-notification', 'no CBOR');
ok($bundles[0]->alive, 'a bundle whose notifications cannot be read stays connected');
is($dropped->(), 6, 'and they are counted');
$bundles[0]->admin_notification([ 'com.acme.Unknown', map_(a => int_(1)) ]);
$bundles[0]->admin_notification([ 'com.evento.common.performance.PerformanceServiceTimeMessage',
		map_(end => int_(5), instanceId => undef, action => 'OrderPlace', later => [], component => 'Order', start => int_(2000)) ]);
$wanted[0]{handled}++;
$wanted[0]{mean_ms} = 6;
rows_are($statistics, \@wanted, 'other order, unknown fields, and a clock that was set back: a call without a time');
is($dropped->(), 6, 'unknown notifications are passed over');

# ---- bounds ----

$bundles[1]->service_time('Many', "Name$_", 1) for 1 .. 100;
rows_are(q{SELECT count(*) FROM evento.handler_statistics WHERE component = 'Many'}, [ { count => 35 } ], 'so many things are summed, and no more');
is($proxies[1]->metric('telemetry_dropped_total'), 65, 'the others are counted');
$bundles[1]->service_time('Order', 'OrderPlace', 30);
$wanted[0] = { %{ $wanted[0] }, handled => 7, mean_ms => 9.429, max_ms => 30, total_ms => 66 };
rows_are("SELECT * FROM ($statistics) s WHERE component <> 'Many'", \@wanted, 'what is known goes on');
$test->sql(q{DELETE FROM evento._handler_statistics WHERE component = 'Many'});

# ---- the database goes away, and comes back ----

my ($sent, $placed) = (0, 7);
for my $round (1 .. 3)
{
	for (1 .. 50) { $bundles[ $_ % 2 ]->service_time('Order', 'OrderPlace', 1); $sent++ }
	$test->node->stop('immediate') if $round == 2;
	for (1 .. 50) { $bundles[ $_ % 2 ]->service_time('Order', 'OrderPlace', 1); $sent++ }
	$_->alive or die for @bundles;
	$test->node->start if $round == 2;
}
$_->wait_http('/readyz') for @proxies;
rows_are(q{SELECT handled FROM evento.handler_statistics WHERE component = 'Order'}, [ { handled => $placed + $sent } ], 'every call counts once, whatever happened to the database');

# ---- a statement that comes twice, and old rows ----

my @again = map { $test->sql(q{SELECT evento._telemetry('00000000-0000-0000-0000-000000000001', 1, '{b}', '{1}', '{c}', '{a}', '{""}', '{3}', '{3}', '{9}', '{5}')}) } 1, 2;
is_deeply([ @again, $test->sql(q{SELECT handled FROM evento.handler_statistics WHERE bundle = 'b'}) ], [ 't', 'f', 3 ], 'a statement that is repeated adds nothing');
$test->sql(q{UPDATE evento._handler_statistics SET hour = hour - interval '8 days' WHERE bundle = 'b'; UPDATE evento._invocation_statistics SET hour = hour - interval '8 days' WHERE invoked = 'Unknown';
	UPDATE evento._telemetry_sources SET stored_at = stored_at - interval '2 days' WHERE source = '00000000-0000-0000-0000-000000000001'});
is($test->sql(q{SELECT evento._telemetry('00000000-0000-0000-0000-000000000002', 1, '{b}', '{1}', '{c}', '{new}', '{""}', '{1}', '{1}', '{1}', '{1}')}), 't', 'a process that is new clears away');
is($test->sql(q{SELECT string_agg(action, ' ') FROM evento.handler_history WHERE bundle = 'b'}), 'new', 'what is older than a week');
is($test->sql(q{SELECT count(*) FROM evento.invocations WHERE invoked = 'Unknown'}), 0, 'of invocations too');
is($test->sql(q{SELECT count(*) FROM evento._telemetry_sources WHERE source = '00000000-0000-0000-0000-000000000001'}), 0, 'and processes that are gone');

# ---- an orderly end ----

my $before = $test->sql(q{SELECT handled FROM evento.handler_statistics WHERE component = 'Order'});
my $late = $test->start(flags => { 'telemetry-interval' => '10min' });
my $b = described($late, 'shop-late');
$b->service_time('Order', 'OrderPlace', 1) for 1 .. 5;
$b->alive or die;
is($late->stop, 0, 'a proxy ends');
is($test->sql(q{SELECT handled FROM evento.handler_statistics WHERE component = 'Order'}), $before + 5, 'having written what it had');

# A stranger that holds a row keeps nobody's registration from being renewed.
my $stranger = $test->node->background_psql('postgres');
$stranger->query_safe(q{BEGIN; LOCK TABLE evento._handler_statistics IN ACCESS EXCLUSIVE MODE});
$bundles[$_]->service_time('Order', 'OrderPlace', 1) for 0, 1;
my $registered = $test->sql('SELECT max(proxy_id) FROM evento._proxies');
# A busy machine makes any renewal late, but not always.
my $late_each_time = 1;
for (1 .. 5)
{
	last if !($late_each_time = $proxies[0]->wait_for(sub { $test->sql('SELECT bool_and(renewed_at > clock_timestamp() - interval \'3 seconds\') FROM evento._proxies') eq 'f' }, 4));
}
ok(!$late_each_time, 'locked statistics hold up no renewal');
is($test->sql('SELECT max(proxy_id) FROM evento._proxies'), $registered, 'and no proxy loses its registration');
$stranger->query_safe('ROLLBACK');
$stranger->quit;
rows_are(q{SELECT handled FROM evento.handler_statistics WHERE component = 'Order'}, [ { handled => $before + 7 } ], 'what waited is added once the lock is gone');

is($_->stop, 0, 'ends') for @proxies;
done_testing();
