# 204_locks.pl
#   Locks of commands: one at a time across proxies, taken over from a proxy that
#   was killed, and in no one's way otherwise.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new(conf => "wal_level = replica\nmax_wal_senders = 4\n");
my ($one, $two) = ($test->start, $test->start);
my @caller = ($one->bundle(bundle => 'caller', instance => 'c1'), $two->bundle(bundle => 'caller', instance => 'c2'));
my $handler = $two->bundle(bundle => 'work', instance => 'h1', names => [qw(Do Change Probe)]);
$_->reaches($handler) for @caller;
my $done = Evento::Bundle::event_message('Service', 'Done', '{}');

# The number that a command was given.
sub number { return cbor_decode($_[0]{payload})->[1]{body}[1]{serializedPayload}[1]{serializedObject} =~ /"n":(\d+)/ ? $1 : undef }

sub locks { return $test->sql('SELECT count(*) FROM evento._locks') }

# ---- twenty at once on one lock, at two proxies ----

# Those of either proxy in the order in which they came, unless tickets could not be taken at once and were asked for again.
my @order;
my $in_order = join ' ', (map { 2 * $_ } 1 .. 10), (map { 2 * $_ - 1 } 1 .. 10);
is(Evento::ProxyTest::in_some_try($in_order, sub {
	my $lock = "one-$_[0]";
	my @ids = map { [ $caller[ $_ % 2 ], $caller[ $_ % 2 ]->service_command('Do', qq({"n":$_}), lock => $lock, stream => $lock, timeout => 120000) ] } 1 .. 20;
	my ($runs, $together) = (0, 0);
	@order = ();
	while (my $req = $handler->recv('REQ'))
	{
		$runs++;
		push @order, number($req);
		if ($handler->recv('REQ', timeout => 0.02))
		{
			$together++;
		}
		$handler->respond($req, $done);
		last if $runs == 20;
	}
	is($runs, 20, 'twenty commands on one lock all run');
	is($together, 0, 'one after the other');
	is(scalar(grep { !defined $_->[0]->answer($_->[1])->{failure} } @ids), 20, 'and are answered');
	return join ' ', (grep { $_ % 2 == 0 } @order), (grep { $_ % 2 } @order);
}), $in_order, 'those of each proxy in the order in which they came');
ok($one->wait_for(sub { locks() == 0 }), 'the lock is given back');

# ---- nobody overtakes, from whichever proxy ----

my @turns;
for my $n (1 .. 6)
{
	my $from = $caller[ $n % 2 ];
	push @turns, [ $from, $from->service_command('Do', qq({"n":$n}), lock => 'turn') ];
	$one->wait_for(sub { locks() == $n });
}
is(locks(), 6, 'one holds a lock, and five wait for it, of either proxy in turn');
@order = ();
for (1 .. 6)
{
	my $req = $handler->recv('REQ') or last;
	push @order, number($req);
	$handler->respond($req, $done);
}
is("@order", '1 2 3 4 5 6', 'it goes from one to the next in the order of their tickets');
is(scalar(grep { !defined $_->[0]->answer($_->[1])->{failure} } @turns), 6, 'and all are answered');
ok($one->wait_for(sub { locks() == 0 }), 'the lock is given back');

# ---- many at once are taken together ----

sub statements { return ($one->get('/metrics'))[1] =~ /^evento_proxy_db_statement_duration_seconds_count\{lane="lock"\} (\d+)$/m ? $1 : undef }

{
	# The server process that takes them stands still until all of them are there.
	my @backends = split /\n/, $test->sql(q(SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%' AND query LIKE '%_lock_%'));
	ok(scalar @backends, 'some server process takes locks');
	my $before = statements();
	kill 'STOP', @backends;
	my @ids = map { $caller[0]->service_command('Do', '{}', lock => "many-$_") } 1 .. 100;
	ok($one->wait_for(sub { $one->metric('locks_waiting') == 100 }), 'a hundred commands want a lock each');
	kill 'CONT', @backends;
	my @reqs = map { $handler->recv('REQ') } @ids;
	is(scalar(grep { defined } @reqs), 100, 'and have it');
	cmp_ok(statements() - $before, '<', 20, 'by few statements');
	$handler->respond($_, $done) for @reqs;
	is(scalar(grep { !defined $caller[0]->answer($_)->{failure} } @ids), 100, 'all are answered');
	ok($one->wait_for(sub { locks() == 0 }), 'the locks are given back');
}

# ---- locks of other names are not in the way ----

my $held = $caller[0]->service_command('Do', '{}', lock => 'a');
my $req = $handler->recv('REQ');
my $other = $caller[0]->service_command('Do', '{}', lock => 'b');
my $second = $handler->recv('REQ');
ok($second, 'a lock of another name is free');
$handler->respond($second, $done);
ok($caller[0]->answer($other), 'and its command is answered');

# ---- in time ----

my $start = time;
my $late = $caller[1]->service_command('Do', '{}', lock => 'a', timeout => 1500);
my $answer = $caller[1]->answer($late);
is($answer->{failure}{exceptionClassName}, 'com.evento.transport.RequestTimeoutException', 'who waits longer than its time gets a timeout');
cmp_ok(time - $start, '<', 20, 'in time, and not that of others');
is($handler->recv('REQ', timeout => 0.2), undef, 'and does not run');
$handler->respond($req, $done);
ok($caller[0]->answer($held), 'the holder is answered');
ok($one->wait_for(sub { locks() == 0 }), 'no ticket is left over');

# ---- an aggregate and a lock of its name ----

# The command on the aggregate asks its handler, but is not stored while others have the lock; commands on others are.
my ($change, $free);
is(Evento::ProxyTest::in_some_try('not stored, others are; then it is, without asking again', sub {
	my ($try) = @_;
	my ($stream, $asked) = ($try == 1 ? 'order-1' : "order-1-$try", 0);
	$held = $caller[0]->service_command('Do', '{}', lock => $stream);
	$req = $handler->recv('REQ');
	is($req->{payloadType}, 'Do', 'a service command holds the lock of an aggregate');
	my $handle = sub { $asked++ if $_[0]{payloadType} eq 'Change'; $handler->respond($_[0], Evento::Bundle::domain_response('Changed', '{}')) };
	$change = $caller[1]->command('Change', $stream);
	$handle->($handler->recv('REQ'));
	my $got = $caller[1]->answer($change, timeout => 0.5) ? 'stored' : 'not stored';
	$free = $caller[1]->command('Change', "free-of-$stream", '{}', lock => undef);
	$handle->($handler->recv('REQ'));
	$got .= ', others are' if $caller[1]->answer($free);
	$handler->respond($req, $done);
	ok($caller[0]->answer($held), 'the holder ends');
	$asked = 0;
	is(($caller[1]->answer_while($change, $handler, $handle) // {})->{class}, 'DomainEventMessage', 'then it is stored');
	is($test->sql("SELECT count(*) FROM evento.read_stream('$stream')"), 1, 'once');
	return "$got; then it is, " . ($asked || $handler->recv('REQ', timeout => 0.2) ? 'and the handler was asked again' : 'without asking again');
}), 'not stored, others are; then it is, without asking again', 'a command on an aggregate whose lock others have');
ok($one->wait_for(sub { locks() == 0 }), 'and no ticket is left over');

# An aggregate without contention takes no ticket at all.
my $tickets = $test->sql('SELECT last_value FROM evento._tickets');
for my $n (1 .. 5)
{
	my $id = $caller[0]->command('Change', 'order-1');
	$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Changed', '{}'));
	$caller[0]->answer($id);
}
is($test->sql('SELECT last_value FROM evento._tickets'), $tickets, 'a command that locks its own aggregate takes no ticket where nobody else does');

# lockId null: no lock at all, though others hold it.
$held = $caller[0]->service_command('Do', '{}', lock => 'order-3');
$req = $handler->recv('REQ');
$change = $caller[1]->command('Change', 'order-3', '{}', lock => undef);
$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Changed', '{}'));
ok($caller[1]->answer($change), 'lockId null passes by a lock');
$handler->respond($req, $done);
$caller[0]->answer($held);

# A lockId of another name.
$held = $caller[0]->command('Change', 'order-4', '{}', lock => 'shop');
$req = $handler->recv('REQ');
$change = $caller[1]->command('Change', 'order-5', '{}', lock => 'shop');
is($handler->recv('REQ', timeout => 0.5), undef, 'a lockId holds back commands on other aggregates');
$handler->respond($req, Evento::Bundle::domain_response('Changed', '{}'));
# The holder is run again where the registration was not renewed in time.
undef $req;
ok($caller[0]->answer_while($held, $handler, sub {
	my $order = cbor_decode($_[0]{payload})->[1]{body}[1]{commandMessage}[1]{aggregateId};
	$order eq 'order-4' ? $handler->respond($_[0], Evento::Bundle::domain_response('Changed', '{}')) : ($req = $_[0]);
}), 'until its holder is done');
$req //= $handler->recv('REQ');
$handler->respond($req, Evento::Bundle::domain_response('Changed', '{}'));
ok($caller[1]->answer($change), 'then they run');
ok($one->wait_for(sub { locks() == 0 }), 'and no ticket is left over');

# ---- a stranger's open transaction delays its own stream only ----

my $stranger = $test->node->background_psql('postgres');
$stranger->query_safe(q(BEGIN; SELECT evento.append('stuck', 'X', '{}')));
$change = $caller[0]->command('Change', 'stuck', '{}', timeout => 20000);
$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Changed', '{}'));
my $blocked = $caller[0]->service_command('Do', '{}', lock => 'stuck', timeout => 20000);
for my $n (1 .. 10)
{
	my $id = $caller[0]->command('Change', "free-$n");
	$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Changed', '{}'));
	ok($caller[0]->answer($id), 'an append to another stream goes on') or last;
	$id = $caller[0]->service_command('Do', '{}', lock => "free-$n");
	$handler->respond($handler->recv('REQ'), $done);
	ok($caller[0]->answer($id), 'and so does a lock of another name') or last;
}
is($caller[0]->answer($change, timeout => 0), undef, 'while the command on its stream waits');
$answer = $caller[0]->answer($change);
is($answer->{failure}{exceptionClassName}, 'com.evento.transport.RequestTimeoutException', 'the command on its stream has a timeout');
like($answer->{failure}{message}, qr/busy/, 'that says why');
is($caller[0]->answer($blocked)->{failure}{exceptionClassName}, 'com.evento.transport.RequestTimeoutException', 'and so has the one that wants a lock of its name');
$stranger->query_safe('COMMIT');
$change = $caller[0]->command('Change', 'stuck');
$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Changed', '{}'));
ok($caller[0]->answer($change), 'after the commit it goes on');
$stranger->quit;

# ---- a ticket that was taken over a connection that was lost ----

for my $function (qw(pg_terminate_backend pg_cancel_backend))
{
	$test->standby_missing(1);
	$held = $caller[0]->service_command('Do', '{}', lock => "stray-$function", timeout => 120000);
	my $waits = q(FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%_lock_take%');
	$test->node->poll_query_until('postgres', "SELECT count(*) > 0 $waits") or die 'no take waits';
	$test->sql("SELECT $function(pid) $waits");
	$test->standby_missing(0);
	$req = $handler->recv('REQ');
	ok($req, "a ticket that nobody heard of ($function) is given back, and another taken");
	$handler->respond($req, $done);
	ok($caller[0]->answer($held), 'and the command is answered');
	ok($one->wait_for(sub { locks() == 0 }), 'no ticket is left over');
}

# ---- the holder's proxy is frozen, and wakes up when others have the lock ----

my $near = $one->bundle(bundle => 'near', instance => 'n1', names => [qw(Near Alter ProbeNear)]);
$caller[0]->reaches($near, 'ProbeNear');
$held = $caller[0]->service_command('Near', '{}', lock => 'frozen', stream => 'frozen', timeout => 120000);
$req = $near->recv('REQ');
my $altered = $caller[0]->command('Alter', 'frozen-2', '{}', lock => 'frozen-2-lock', timeout => 120000);
my $altering = $near->recv('REQ');
kill 'STOP', $one->{pid};
my $taker = $caller[1]->service_command('Do', '{}', lock => 'frozen', stream => 'frozen', timeout => 120000);
my $taken = $handler->recv('REQ');
ok($taken, 'the lock of a proxy that is frozen goes to the next');
$handler->respond($taken, $done);
ok(!defined $caller[1]->answer($taker)->{failure}, 'which is stored');
# The answers lie in the socket of the frozen proxy: it reads them before it knows how long it was away.
$near->respond($req, Evento::Bundle::event_message('Service', 'Late', '{}'));
$near->respond($altering, Evento::Bundle::domain_response('Altered', '{}'));
kill 'CONT', $one->{pid};
$answer = $caller[0]->answer($held);
like($answer->{failure}{message} // '', qr/the lock was lost/, 'what the former holder brings is not stored, and its caller hears so');
is($test->sql(q(SELECT string_agg(type, ' ') FROM evento.read_stream('frozen'))), 'Done', 'the fence kept it out');
# A domain command is begun again: with another lock, and its handler asked anew, or under the one it has.
is($caller[0]->answer_while($altered, $near, sub { $near->respond($_[0], Evento::Bundle::domain_response('Altered', '{}')) })->{class}, 'DomainEventMessage', 'a domain command that lost its lock is done again');
is($test->sql(q(SELECT count(*) FROM evento.read_stream('frozen-2'))), 1, 'and stored once');
ok($two->wait_for(sub { locks() == 0 }), 'no ticket is left over');
$one->wait_http('/readyz');
$caller[0]->reaches($handler);

# ---- the holder's proxy is killed ----

# The database sees that its connections are gone: nobody waits for the end of its lease, which is 4 s away at least.
my $n = 0;
ok(Evento::ProxyTest::soon(3, sub {
	my $name = 'inherited-' . ++$n;
	$held = $caller[0]->service_command('Do', '{"who":"first"}', lock => $name, stream => $name);
	$req = $handler->recv('REQ');
	my $next = $caller[1]->service_command('Do', '{"who":"second"}', lock => $name, stream => $name);
	is($handler->recv('REQ', timeout => 0.5), undef, 'the second waits for the first');
	$start = time;
	$one->stop('KILL');
	my $heir = $handler->recv('REQ');
	my $took = time - $start;
	ok($heir, 'when the proxy of the holder is killed, the next one has the lock');
	$handler->respond($req, $done);
	$handler->respond($heir, $done);
	ok(!defined $caller[1]->answer($next)->{failure}, 'and is answered');
	is($test->sql("SELECT count(*) FROM evento.read_stream('$name')"), 1, 'one event: what the first one brought has no one to store it');
	ok($two->wait_for(sub { locks() == 0 }), 'no ticket is left over');
	$one->run;
	$one->wait_http('/readyz');
	$caller[0] = $one->bundle(bundle => 'caller', instance => 'c1');
	$caller[0]->reaches($handler);
	return $took;
}), 'before its lease has run out');

# ---- one whose control connection is cut keeps what it has ----

# The session by which it shows that it is there: see extension/presence.c.
my $control = sub { return $test->sql("SELECT l.pid FROM pg_locks l JOIN evento._proxies p ON p.proxy_id = l.classid::bigint << 32 | l.objid::bigint
	WHERE l.locktype = 'advisory' AND l.mode = 'ShareLock' AND p.name = '$one->{name}'") };
# A second after it has renewed its lease last another may take the lock: where it did not get to connect by then, once more.
my ($kept, $stored);
for my $try (1 .. 10)
{
	my $name = "kept-$try";
	$held = $caller[0]->service_command('Do', '{"who":"first"}', lock => $name, stream => $name);
	$req = $handler->recv('REQ');
	my $waiting = $caller[1]->service_command('Do', '{"who":"second"}', lock => $name, stream => $name);
	$one->wait_for(sub { locks() == 2 });
	my $first = $test->sql('SELECT min(ticket) FROM evento._locks');
	my $cut = $control->();
	like($cut, qr/^\d+$/, 'it has a control connection');
	$test->sql("SELECT pg_terminate_backend($cut)");
	ok($one->wait_for(sub { my $now = $control->(); $now =~ /^\d+$/ && $now ne $cut }), 'that is cut, and made anew');
	$test->sql(q(UPDATE evento._proxies SET renewed_at = clock_timestamp() - interval '2 s'; SELECT evento._lock_poll(ARRAY(SELECT ticket FROM evento._locks))));
	$kept = $test->sql('SELECT min(ticket) FROM evento._locks') == $first;
	$handler->respond($req, $done);
	$stored = !defined $caller[0]->answer($held)->{failure} && $test->sql("SELECT count(*) FROM evento.read_stream('$name')") == 1;
	$handler->respond($handler->recv('REQ'), $done);
	ok(!defined $caller[1]->answer($waiting)->{failure}, 'the next one is answered');
	$one->wait_for(sub { locks() == 0 });
	last if $kept && $stored;
}
ok($kept, 'nobody takes its lock over');
ok($stored, 'and what it holds is stored');

is($two->stop, 0, 'the proxy ends in order');
done_testing();
