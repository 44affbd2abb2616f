# 205_fetch.pl
#   Consumers: fetches with limit and context, held and not, and the last
#   sequence number.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $proxy = $test->start(flags => { 'fetch-hold' => '12s', 'fetch-bytes' => '1MB' });
my $consumer = $proxy->bundle(bundle => 'view', instance => 'v1');
my $silent = $proxy->bundle(bundle => 'view', instance => 'v2', enable => 0);

sub fetch
{
	my ($bundle, $after, %opt) = @_;
	my $rsp = $bundle->answer($bundle->fetch($after, %opt), timeout => 40) or return undef;
	$rsp->{events} = [ map { $_->[1] } @{ $rsp->{body}{events}[1] } ] if !defined $rsp->{failure};
	return $rsp;
}

sub numbers { return join ' ', map { $_->{eventSequenceNumber} } @{ $_[0]->{events} } }

sub append
{
	my ($sql) = @_;
	return $test->sql("SELECT evento.append($sql); CALL evento.wait(NULL)");
}

# ---- an empty log ----

my ($start, $rsp);
ok(Evento::ProxyTest::soon(1, sub { $start = time; $rsp = fetch($silent, undef); return time - $start }), 'a fetch is answered at once where the instance is not enabled');
is($rsp->{class}, 'EventFetchResponse', 'with a response');
is($rsp->{body}{events}[0], 'java.util.ArrayList', 'that has a list');
is(numbers($rsp), '', 'and that is empty');
$start = time;
is(numbers(fetch($consumer, undef)), '', 'an enabled instance gets it too');
cmp_ok(time - $start, '>', 11.5, 'but after a while');
is($consumer->answer($consumer->last_sequence)->{body}{number}, 0, 'the last sequence number of an empty log is 0');

# ---- what events look like ----

$test->sql(q(SELECT evento.append('order-1', 'Created', '{"a": 1.10}', '{"user":"ann"}', class => 'shop.Created')));
$rsp = fetch($consumer, undef);
my $event = $rsp->{events}[0];
is(scalar @{ $rsp->{events} }, 1, 'the first event');
is($event->{eventSequenceNumber}, 1, 'with its position');
is($event->{aggregateId}, 'order-1', 'its stream');
is($event->{eventName}, 'Created', 'its name');
cmp_ok(abs($event->{createdAt} - time * 1000), '<', 60000, 'its time in milliseconds');
like($event->{eventMessage}[0], qr/\.DomainEventMessage$/, 'its kind');
my $message = $event->{eventMessage}[1];
is($message->{serializedPayload}[1]{serializedObject}, '["shop.Created",{"a": 1.10}]', 'its payload, word for word');
is($message->{serializedPayload}[1]{objectClass}, 'class shop.Created', 'its class');
is($message->{context}, 'default', 'its context');
is($message->{metadata}[1]{user}, 'ann', 'and its metadata');
# An instance that is not enabled is told all that there is when it asks.
append(q('order-1', 'Created', '{"b":2}'));
append(q('order-1', 'Unseen', '{"c":3}', kind => 'service', context => 'other'));
append(q(NULL, 'Loose', '{}'));
$rsp = fetch($silent, 1);
is(numbers($rsp), '2 3 4', 'the events behind a position');
like($rsp->{events}[0]{eventMessage}[1]{serializedPayload}[1]{objectClass}, qr/^class (shop\.)?Created$/, 'an event without a class is given one');
like($rsp->{events}[1]{eventMessage}[0], qr/\.ServiceEventMessage$/, 'a service event is one');
is($rsp->{events}[1]{eventMessage}[1]{serializedPayload}[1]{objectClass}, 'class Unseen', 'a type never seen is its own class');
is($rsp->{events}[2]{aggregateId}, undef, 'an event may have no stream');
is($consumer->answer($consumer->last_sequence)->{body}{number}, 4, 'the last sequence number');

# ---- limit, context, bytes ----

is(numbers(fetch($silent, undef, limit => 2)), '1 2', 'limit');
is(numbers(fetch($silent, 2, limit => 1)), '3', 'limit behind a position');
is(numbers(fetch($silent, undef, context => 'other')), '3', 'one context');
is(numbers(fetch($silent, undef, context => 'oth*')), '3', 'a pattern');
is(numbers(fetch($silent, undef, context => '*e*')), '1 2 3 4', 'another pattern');
is(numbers(fetch($silent, undef, context => 'none')), '', 'a context that nobody used');
append(q('big', 'Big', json_build_object('x', repeat('x', 600000)))) for 1 .. 3;
is(numbers(fetch($silent, 4)), '5', 'an answer is bounded in bytes');
is(numbers(fetch($silent, 5)), '6', 'but has one event at least');
append(q('big', 'Big', json_build_object('x', repeat('x', 3000000))));
is(numbers(fetch($silent, 7)), '8', 'even one that is larger than the bound');
$test->sql(q(SELECT evento.append('many', 'M', '{}') FROM generate_series(1, 2500); CALL evento.wait(NULL)));
my ($after, @got) = (8);
while (@got < 2500)
{
	$rsp = fetch($silent, $after, limit => 1000);
	last if !@{ $rsp->{events} };
	push @got, map { $_->{eventSequenceNumber} } @{ $rsp->{events} };
	$after = $got[-1];
}
is_deeply(\@got, [ 9 .. 2508 ], 'a consumer that is behind reads everything in order');

# ---- holding ----

is($consumer->answer($consumer->fetch($after), timeout => 0.5), undef, 'at the head a fetch is held');
my $id = $consumer->fetch($after, component => 'Another');
sleep 0.3;
append(q('order-2', 'Created', '{}'));
is(numbers({ events => [ map { $_->[1] } @{ $consumer->answer($id)->{body}{events}[1] } ] }), '2509', 'until there is an event');

$id = $consumer->fetch(2509, context => 'rare');
append(q('order-2', 'Created', '{}'));
is($consumer->answer($id, timeout => 0.5), undef, 'an event of another context does not end it');
append(q('order-2', 'Rare', '{}', context => 'rare'));
my $found = $consumer->answer($id);
is($found->{body}{events}[1][0][1]{eventSequenceNumber}, 2511, 'one of its own does');

# By notification: the proxy's own look at the log comes once a second only.
my $least = 9;
for my $n (1 .. 5)
{
	my $at = 2510 + $n;
	$id = $consumer->fetch($at, component => 'Quick');
	sleep 0.05;
	append(q('order-2', 'Quick', '{}'));
	$start = time;
	is($consumer->answer($id)->{body}{events}[1][0][1]{eventSequenceNumber}, $at + 1, 'a held fetch gets the next event');
	$least = time - $start if time - $start < $least;
}
cmp_ok($least, '<', 0.9, 'without waiting for a timer');

# Statements that read, of which there are some for looking how far the log is as well.
sub reads { return ($proxy->get('/metrics'))[1] =~ /^evento_proxy_db_statement_duration_seconds_count\{lane="read"\} (\d+)$/m ? $1 : undef }

my @consumers = map { $consumer->fetch(2516, component => "C$_") } 1 .. 50;
ok($proxy->wait_for(sub { $proxy->metric('requests_open') == 50 }), 'fifty consumers wait at the head');
my $before = reads();
$start = time;
append(q('order-2', 'Created', '{}'));
is(scalar(grep { ($consumer->answer($_)->{body}{events}[1][0][1]{eventSequenceNumber} // 0) == 2517 } @consumers), 50, 'and all get the next event');
cmp_ok(reads() - $before, '<=', 10 + 2 * (time - $start), 'by one read of the log, not by one each');

ok(Evento::ProxyTest::soon(1, sub {
	$consumer->notify('evento:enable');
	$id = $consumer->fetch(2517);
	sleep 0.3;
	$start = time;
	$consumer->notify('evento:disable');
	ok($consumer->answer($id), 'a held fetch is let go when its instance says disable');
	return time - $start;
}), 'at once');
ok(Evento::ProxyTest::soon(1, sub { $start = time; is(numbers(fetch($consumer, 2517)), '', 'and the next one is not held'); return time - $start }), 'either');

# A fetch is answered before its own time is up, and one that is held does not keep others waiting.
$consumer->notify('evento:enable');
ok(Evento::ProxyTest::soon(1, sub { $start = time; ok(fetch($consumer, 2517, timeout => 1000), 'a fetch with little time is answered'); return time - $start }), 'within it');
$id = $consumer->fetch(2517);
is($consumer->answer($consumer->last_sequence)->{body}{number}, 2517, 'other requests pass a held fetch');

is($proxy->stop, 0, 'the proxy ends in order, with a fetch held');
done_testing();
