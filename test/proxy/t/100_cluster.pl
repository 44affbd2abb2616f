# 100_cluster.pl
#   Three proxies on one database: any bundle on any proxy, instances that move,
#   proxies that come and go.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my @proxy = map { $test->start } 1 .. 3;

# Waits until a proxy has links in both directions with so many others.
sub linked
{
	my ($proxy, $others) = @_;
	return $proxy->wait_for(sub { $proxy->metric('links') == 2 * $others });
}

# Waits until the name has an enabled instance that the database knows: every proxy knows it milliseconds later.
sub wait_enabled
{
	my ($instance) = @_;
	return $proxy[0]->wait_for(sub { $test->sql("SELECT enabled FROM evento.bundles WHERE instance = '$instance'") eq 't' });
}

# A query from a bundle that the handler answers with this data; gives the answer.
sub ask
{
	my ($caller, $name, $handler, $data) = @_;
	my $id = $caller->query($name, '{"a":1}');
	my $req = $handler->recv('REQ') or return undef;
	$handler->respond($req, Evento::Bundle::single($data));
	return $caller->answer($id);
}

ok(linked($_, 2), "$_->{name} is linked with the others") for @proxy;

# ---- a query that is handled at another proxy ----

my $handler = $proxy[0]->bundle(bundle => 'shop', instance => 'handler', names => ['FindOrder']);
ok(wait_enabled('handler'), 'a handler is enabled');
my $caller = $proxy[1]->bundle(bundle => 'web', instance => 'caller');

my $id = $caller->query('FindOrder', '{"order":"o1"}');
my $req = $handler->recv('REQ');
ok($req, 'a query reaches a handler at another proxy');
is($req->{sourceBundleId}, 'web', 'as it was sent: its bundle');
is($req->{sourceInstanceId}, 'caller', 'its instance');
is($req->{payloadType}, 'FindOrder', 'its payload type');
cmp_ok($req->{timeoutMillis}, '>', 25000, 'and what is left of its time');
my $body = cbor_decode($req->{payload})->[1]{body};
is($body->[1]{serializedPayload}[1]{serializedObject}, '["shop.FindOrder",{"order":"o1"}]', 'with its payload');
$handler->respond($req, Evento::Bundle::single([ 'shop.Order', map_(id => 'o1') ]));
my $answer = $caller->answer($id);
ok($answer, 'the answer comes back');
is($answer->{class}, 'Single', 'as it was given');
is_deeply($answer->{body}{data}, [ 'shop.Order', { id => 'o1' } ], 'with its data');

$id = $caller->query('FindOrder');
$req = $handler->recv('REQ');
$handler->fail($req, 'java.lang.IllegalArgumentException', 'no such order');
$answer = $caller->answer($id);
is($answer->{failure}{message}, 'no such order', 'a failure comes back too');

$id = $caller->query('FindNothing');
is($caller->answer($id)->{failure}{message}, 'no handler for FindNothing', 'a name that nobody handles fails at once');

# Whoever asks behind the word that a name is handled finds the handler, however new it is.
my $found = 0;
for my $n (1 .. 20)
{
	$handler->register("FindOrder", "New$n");
	$proxy[0]->wait_for(sub { $test->sql("SELECT 'New$n' = ANY (names) FROM evento.bundles WHERE instance = 'handler'") eq 't' });
	$id = $caller->query("New$n");
	$req = $handler->recv('REQ') or next;
	$handler->respond($req, Evento::Bundle::single($n));
	$found++ if $caller->answer($id)->{body}{data} == $n;
}
is($found, 20, 'names are found as soon as the database knows them');

# Both directions at once, and answers in another order than the questions.
$caller->register('FindCustomer');
ok($proxy[1]->wait_for(sub { $test->sql("SELECT names FROM evento.bundles WHERE instance = 'caller'") eq '{FindCustomer}' }), 'the caller handles something too');
my @ids = map { $caller->query('FindOrder', qq({"n":$_})) } 0 .. 49;
my @back = map { $handler->query('FindCustomer', qq({"n":$_})) } 0 .. 49;
my @asked = map { $handler->recv('REQ') } 0 .. 49;
my @asked_back = map { $caller->recv('REQ') } 0 .. 49;
sub number { return cbor_decode($_[0]{payload})->[1]{body}[1]{serializedPayload}[1]{serializedObject} =~ /"n":(\d+)/ ? $1 : -1 }
$handler->respond($_, Evento::Bundle::single('order ' . number($_))) for reverse @asked;
$caller->respond($_, Evento::Bundle::single('customer ' . number($_))) for reverse @asked_back;
is(scalar(grep { ($caller->answer($ids[$_]) // {})->{body}{data} eq "order $_" } 0 .. 49), 50, '50 queries at once to another proxy, each with its own answer');
is(scalar(grep { ($handler->answer($back[$_]) // {})->{body}{data} eq "customer $_" } 0 .. 49), 50, 'and 50 the other way');

# A large one.
my $large = 'x' x 3_000_000;
$id = $caller->query('FindOrder', qq({"large":"$large"}));
$req = $handler->recv('REQ');
is(length cbor_decode($req->{payload})->[1]{body}[1]{serializedPayload}[1]{serializedObject}, 3_000_000 + length '["shop.FindOrder",{"large":""}]', 'a query of 3 MB');
$handler->respond($req, Evento::Bundle::single($large));
is($caller->answer($id)->{body}{data}, $large, 'and an answer of 3 MB');

# ---- several instances ----

my $second = $proxy[2]->bundle(bundle => 'shop', instance => 'second', names => [ 'FindOrder', 'Probe' ]);
ok(wait_enabled('second'), 'a second instance at a third proxy');
# The caller's proxy knows others that handle the name, so it does not ask the database for more.
$caller->reaches($second);
my $third = $proxy[1]->bundle(bundle => 'shop', instance => 'third', names => ['FindOrder']);
ok(wait_enabled('third'), 'and a third at the caller\'s');
@ids = map { $caller->query('FindOrder') } 1 .. 30;
my @per = map { my $b = $_; my @r; while (@r < 10 && (my $r = $b->recv('REQ'))) { push @r, $r } \@r } ($handler, $second, $third);
is_deeply([ map { scalar @$_ } @per ], [ 10, 10, 10 ], '30 open queries are spread evenly over three instances at three proxies');
$handler->respond($_, Evento::Bundle::single(1)) for @{ $per[0] };
$second->respond($_, Evento::Bundle::single(2)) for @{ $per[1] };
$third->respond($_, Evento::Bundle::single(3)) for @{ $per[2] };
is(scalar(grep { $caller->answer($_) } @ids), 30, 'all are answered');

# disable takes an instance out, at every proxy, within milliseconds; enable brings it back.
$third->notify('evento:disable');
$second->notify('evento:disable');
ok($proxy[0]->wait_for(sub { $test->sql("SELECT count(*) FROM evento.bundles WHERE instance IN ('second', 'third') AND NOT enabled") == 2 }), 'disabled ones show as such');
sleep 0.1;
is((ask($caller, 'FindOrder', $handler, 'first') // {})->{body}{data}, 'first', 'and get nothing any more');
ok(!$second->recv('REQ', timeout => 0.1) && !$third->recv('REQ', timeout => 0.1), 'neither of them');

# A name with connected instances that are not enabled waits for them.
ok(Evento::ProxyTest::soon(0.5, sub {
	$_->notify('evento:disable') for $handler, $second;
	ok($proxy[0]->wait_for(sub { $test->sql("SELECT count(*) FROM evento.bundles WHERE bundle = 'shop' AND enabled") == 0 }), 'none is enabled');
	sleep 0.1;
	$id = $caller->query('FindOrder');
	ok(!$caller->answer($id, timeout => 0.3), 'a query waits');
	my $start = time;
	$second->notify('evento:enable');
	$second->consumers;
	$req = $second->recv('REQ');
	my $took = time - $start;
	ok($req, 'until one is enabled, at another proxy');
	return 0 if !$req || $took < 0.5;
	$second->respond($req, Evento::Bundle::single('waited'));
	ok($caller->answer($id), 'which answers');
	return $took;
}), 'and gets it at once');
$second->respond($req, Evento::Bundle::single('waited'));
is($caller->answer($id)->{body}{data}, 'waited', 'the answer');

# ---- supersede ----

my $again = $proxy[0]->bundle(bundle => 'shop', instance => 'second', names => ['FindOrder']);
ok($second->wait_closed, 'an instance that connects at another proxy is let go at the first');
ok(scalar $proxy[2]->wait_log('shop/second: closed: superseded by proxy \d+'), 'with one line in the log');
ok($again->alive, 'the new connection stays');
ok(wait_enabled('second'), 'and is enabled');
is($test->sql("SELECT count(*) FROM evento._sessions WHERE instance = 'second'"), 1, 'one session is left');
is((ask($caller, 'FindOrder', $again, 'moved') // {})->{body}{data}, 'moved', 'and queries follow it');

# Back and forth while the database is held up: what counts is the order in which it connected.
my $last;
my $holder = $test->node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE evento._sessions IN SHARE MODE');
for my $i (0 .. 11)
{
	$last = $proxy[ $i % 3 ]->connection;
	$last->hello(bundle => 'shop', instance => 'hopper');
	$last->recv('WLC');
	$last->register('Hop');
	sleep 0.1;
}
$holder->query_safe('COMMIT');
$holder->quit;
$last->discovery;
$last->notify('evento:enable');
$last->consumers;
ok(wait_enabled('hopper'), 'twelve connections of one instance in a row');
is($test->sql("SELECT count(*) FROM evento._sessions WHERE instance = 'hopper'"), 1, 'leave one');
sleep 0.2;
is((ask($caller, 'Hop', $last, 'here') // {})->{body}{data}, 'here', 'the last one, which is asked');

# ---- proxies come and go ----

my $fourth = $test->start;
ok(linked($fourth, 3), 'a fourth proxy is linked with all');
my $late = $fourth->bundle(bundle => 'late', instance => 'late', names => ['Late']);
ok(wait_enabled('late'), 'a bundle at the fourth');
is((ask($caller, 'Late', $late, 'late') // {})->{body}{data}, 'late', 'is asked from the others');
is((ask($late, 'Hop', $last, 'hop') // {})->{body}{data}, 'hop', 'and asks them');
is($fourth->stop('TERM'), 0, 'it ends');
ok($proxy[0]->wait_for(sub { $test->sql('SELECT count(*) FROM evento.proxies WHERE live') == 3 }), 'and has left');
ok(linked($_, 2), "$_->{name} has let it go") for @proxy;
$id = $caller->query('Late', '{}', timeout => 60000);
is($caller->answer($id, timeout => 60)->{failure}{message}, 'no handler for Late', 'its bundle is gone after its time');

is($test->sql("SELECT count(*) FROM evento.handlers"), 0, 'nothing was described');
is(scalar(grep { $_->running } @proxy), 3, 'all three proxies still run');
is($_->stop, 0, "$_->{name} ends") for @proxy;

done_testing();
