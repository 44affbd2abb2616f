# Orders deleted, also at the very command that brings a snapshot: later commands are refused.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Interop;
use Test::More;

my $t = Interop->new;
$t->start_postgres;
my @proxies = map { $t->add_proxy("proxy$_") } 1 .. 2;
$t->start_bundle('command', $proxies[0]);
$t->start_bundle('query', $proxies[0]);
$t->await_bundles;

$t->play('deletion', $proxies[0], 'one proxy');
$t->play('deletion', $proxies[1], 'from another proxy');
$t->check_log('deletion');

is($t->sql(q{SELECT count(*) FROM evento.events WHERE type = 'OrderDeleted'}), 16, 'the deletions are in the log');
is($t->sql(q{SELECT count(*) FROM evento._snapshots s JOIN evento.events e ON e.stream = s.stream AND e.type = 'OrderDeleted'}), 0,
	'no deleted order has a snapshot');
is($t->sql(q{
	SELECT count(*) FROM evento.events d JOIN evento.events e ON e.stream = d.stream AND e.version > d.version WHERE d.type = 'OrderDeleted'}), 0,
	'no deleted order has an event behind its deletion');
$t->proxies_run;

done_testing();
