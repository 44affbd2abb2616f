# All bundles of an unmodified application on one proxy.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Interop;
use Test::More;

my $t = Interop->new;
$t->start_postgres;
my $proxy = $t->add_proxy('proxy1');
$t->start_bundle($_, $proxy) for qw(command query process);
$t->await_bundles;

$t->play('basic', $proxy, 'basic');
$t->check_log('basic');
$t->check_handled_once('basic');

# What the bundles said of themselves is in the views.
is($t->sql(q{SELECT string_agg(bundle, ' ' ORDER BY bundle) FROM evento.bundles WHERE bundle <> 'interop-invoker'}),
	'interop-command interop-process interop-query', 'the bundles are in their view');
is($t->sql(q{SELECT string_agg(DISTINCT component_type, ' ' ORDER BY component_type) FROM evento.handlers}),
	'Aggregate Invoker Observer Projection Projector Saga Service', 'every kind of component was discovered');
is($t->sql(q{SELECT component || ' ' || handler_type || ' ' || return_type FROM evento.handlers WHERE payload = 'OrderChange' AND handler_type = 'AggregateCommandHandler'}),
	'OrderAggregate AggregateCommandHandler OrderChanged', 'a handler is in its view');
is($t->sql(q{SELECT return_is_multiple FROM evento.handlers WHERE payload = 'OrderList' AND handler_type = 'QueryHandler'}), 't', 'as is what a query gives');
like($t->sql(q{SELECT schema FROM evento.payloads WHERE name = 'OrderCreated'}), qr/"customer"/, 'a payload is in its view, with its schema');
is($t->sql(q{SELECT DISTINCT class FROM evento.events WHERE type = 'OrderCreated'}), 'interop.api.OrderCreated', 'an event carries its class');
is($t->sql(q{SELECT string_agg(DISTINCT type, ' ' ORDER BY type) FROM evento.events WHERE context = 'stock'}), 'OrderReserved StockCounted', 'and its context');
is($t->sql(q{SELECT string_agg(DISTINCT type, ' ' ORDER BY type) FROM evento.events WHERE kind = 'service'}), 'CustomerNotified InvoiceIssued StockCounted', 'and its kind');
is($t->sql(q{SELECT count(*) FROM evento.events WHERE type = 'CustomerNotified' AND stream IS NOT NULL}), 0, 'a service event may have no stream');
like($t->sql(q{SELECT metadata FROM evento.events WHERE metadata IS NOT NULL LIMIT 1}), qr/traceId/, 'metadata is with its event');

# An event that SQL appends reaches the bundles: its class is the one last seen.
$t->sql(q{SELECT evento.append('sql-1', 'OrderCreated', '{"orderId":"sql-1","marker":"by-sql","revision":1,"amount":7,"customer":"Ol\u00e9"}')});
$t->sql(q{SELECT evento.append('sql-1', 'OrderChanged', '{"orderId":"sql-1","marker":"by-sql-2","revision":2,"amount":8}', expected => 1)});
my $record = "$t->{log}/by-sql";
open(my $fh, '>', $record) or die $!;
print $fh "sent 0 by-sql sql-1\nanswered 0 by-sql sql-1 1 0\nsent 0 by-sql-2 sql-1\nanswered 0 by-sql-2 sql-1 2 0\n";
close $fh;
$t->play('verify', $proxy, 'events of SQL', '--record', $record);
$t->proxies_run;

done_testing();
