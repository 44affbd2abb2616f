# What real bundles tell of their handlers and consumers is in the views, and
# their consumers answer to the procedures of SQL, at either of two proxies.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Interop;
use Test::More;
use Time::HiRes qw(sleep time);

my $t = Interop->new;
$t->start_postgres;
my ($first, $second) = map { $t->add_proxy("proxy$_", 'telemetry-interval' => '200ms') } 1, 2;
$t->start_bundle('command', $first);
$t->start_bundle($_, $second) for qw(query process);
$t->await_bundles;

sub becomes
{
	my ($sql, $wanted, $what) = @_;
	my $until = time + Interop::PATIENCE;
	my $got;
	sleep 0.1 while ($got = $t->sql($sql)) ne $wanted && time < $until;
	return is($got, $wanted, $what);
}

becomes(q{SELECT string_agg(consumer || ' ' || component_type, ', ' ORDER BY consumer) FROM evento.consumers WHERE kind = 'bundle'},
	join(', ', 'interop-process_OrderObserver_1_* Observer', 'interop-process_OrderSaga_1_* Saga', 'interop-query_OrderProjector_1_* Projector', 'interop-query_StockProjector_1_stock Projector'),
	'the consumers are in their view');
$t->play('basic', $first, 'basic');

# A bundle tells of a part of its calls only where its performance rate says so.
for my $action (qw(OrderCreate OrderChange StockCount))
{
	becomes("SELECT COALESCE(sum(handled), 0) > 0 FROM evento.handler_statistics WHERE bundle = 'interop-command' AND action = '$action'", 't', "calls of $action are counted")
	  or diag $t->sql('SELECT bundle, component, action, handled, total_ms FROM evento.handler_statistics');
}
# (Consumers tell of every event that they get, whether there is a handler for it or not.)
becomes(q{SELECT string_agg(DISTINCT component_type || ' ' || handler_type, ', ') FROM evento.handler_statistics WHERE component = 'OrderAggregate'},
	'Aggregate AggregateCommandHandler', 'at the handlers that discovery names');
becomes(q{SELECT string_agg(DISTINCT component_type, ' ' ORDER BY component_type) FROM evento.handler_statistics}, 'Aggregate Invoker Observer Projection Projector Saga Service', 'of every kind');
is($t->sql(q{SELECT bool_and(mean_ms <= max_ms AND max_ms <= 60000 AND total_ms >= max_ms) FROM evento.handler_statistics WHERE timed > 0}), 't', 'with times that make sense');
becomes(q{SELECT bool_and(invocations > 0) FROM evento.invocations WHERE bundle = 'interop-process' AND kind = 'command'}, 't', 'what saga and observer invoke, they have invoked');
becomes(q{SELECT string_agg(DISTINCT state || ' ' || lag_events, ', ') FROM evento.consumers WHERE kind = 'bundle'}, 'waiting 0', 'the consumers are at the head of the log');
becomes(q{SELECT bool_and(position = evento.watermark()) FROM evento.consumers WHERE kind = 'bundle'}, 't', 'and say so');

# Administration.
for my $consumer (split /\n/, $t->sql(q{SELECT consumer FROM evento.consumers WHERE kind = 'bundle' ORDER BY 1}))
{
	my $status = $t->sql("CALL evento.consumer_status('$consumer')");
	like($status, qr/"deadEventCount": 0/, "$consumer says how it stands");
	my ($last) = $status =~ /"lastEventSequenceNumber": (\d+)/;
	ok($last > 0 && $last <= $t->sql('SELECT evento.watermark()'), 'with the last event that it has handled');
	becomes("SELECT dead_events || ' ' || (status->>'lastEventSequenceNumber') FROM evento.consumers WHERE consumer = '$consumer'", "0 $last", 'which the view shows');
	is($t->sql("CALL evento.consumer_dead_events('$consumer')"), '[]', 'it has no dead events');
	is($t->sql("CALL evento.consumer_process_events('$consumer')"), 't', 'and processes none');
	is($t->sql("CALL evento.consumer_retry_event('$consumer', 1)"), 't', 'retry is answered');
	is($t->sql("CALL evento.consumer_delete_event('$consumer', 1)"), 't', 'delete is answered');
}
$t->proxies_run;
done_testing();
