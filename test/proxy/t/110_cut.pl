# 110_cut.pl
#   Connections that are cut in the middle of requests, the handler's and the
#   caller's, and proxies that are killed: what was asked is handled once and
#   answered, wherever its ends come back.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my %flags = ('cut-time' => '12s');
my @proxy = map { $test->start(flags => \%flags) } 1 .. 3;

sub linked
{
	my ($proxy, $others) = @_;
	return $proxy->wait_for(sub { $proxy->metric('links') == 2 * $others });
}

sub wait_enabled
{
	my ($instance) = @_;
	my $enabled = $proxy[0]->wait_for(sub { $test->sql("SELECT enabled FROM evento.bundles WHERE instance = '$instance'") eq 't' });
	# The other proxies learn of it within 100 ms.
	sleep 0.1;
	return $enabled;
}

# Connects a handler of everything here; it is enabled when this returns.
sub handler
{
	my ($proxy, $instance) = @_;
	my $handler = $proxy->bundle(bundle => 'shop', instance => $instance, names => [ 'Place', 'Notify', 'Find' ]);
	ok(wait_enabled($instance), "$instance is enabled at $proxy->{name}");
	return $handler;
}

sub events { return $test->sql("SELECT count(*) FROM evento.events WHERE stream = '$_[0]'") }

sub wait_events
{
	my ($stream, $n) = @_;
	return $proxy[0]->wait_for(sub { events($stream) == $n });
}

sub placed { return Evento::Bundle::domain_response('Placed', '{"n":1}') }

ok(linked($_, 2), "$_->{name} is linked with the others") for @proxy;
my $caller = $proxy[0]->bundle(bundle => 'web', instance => 'caller');

# ---- the handler's connection is cut, and it comes back ----

my $n = 0;
for my $case ([ 0, 0, 'the caller\'s proxy' ], [ 0, 1, 'the caller\'s proxy, and comes back at another' ], [ 1, 1, 'another proxy' ], [ 1, 2, 'another proxy, and comes back at a third' ],
	[ 1, 0, 'another proxy, and comes back at the caller\'s' ])
{
	my ($from, $to, $where) = @$case;
	for my $kind ('command', 'service_command')
	{
		my $stream = 'order-' . ++$n;
		my $handler = handler($proxy[$from], 'h');
		my $id = $kind eq 'command' ? $caller->command('Place', $stream) : $caller->service_command('Notify', '{}', stream => $stream);
		my $req = $handler->recv('REQ');
		ok($req, "$kind: the handler is at $where");
		$handler->cut;
		ok(!$caller->answer($id, timeout => 0.2), 'the caller waits while the handler is cut');
		$handler = handler($proxy[$to], 'h');
		my $repeat = $handler->recv('REQ');
		is($repeat && $repeat->{correlationId}, $req->{correlationId}, 'it is asked again under the same correlationId');
		is($repeat && $repeat->{payload}, $req->{payload}, 'with the same bytes');
		$handler->respond($req, $kind eq 'command' ? placed() : Evento::Bundle::event_message('Service', 'Notified', '{}'));
		my $answer = $caller->answer($id);
		is($answer && $answer->{class}, $kind eq 'command' ? 'DomainEventMessage' : 'ServiceEventMessage', 'and the caller has its answer');
		ok(wait_events($stream, 1), 'the event is stored once');
		ok(!$handler->recv('REQ', timeout => 0.1), 'nothing else is asked');
		$handler->close;
		ok($proxy[0]->wait_for(sub { $test->sql("SELECT count(*) FROM evento._sessions WHERE instance = 'h'") == 0 }), 'it leaves');
	}
}

# An answer that the handler gives unasked as soon as it is back, before it enables.
{
	my $handler = handler($proxy[1], 'eager');
	my $id = $caller->command('Place', 'order-eager');
	my $req = $handler->recv('REQ');
	$handler->cut;
	my $back = $proxy[1]->connection;
	$back->hello(bundle => 'shop', instance => 'eager');
	$back->recv('WLC');
	$back->respond($req, placed());
	$back->register('Place');
	$back->discovery;
	$back->notify('evento:enable');
	$back->consumers;
	# A bundle answers what it has answered before with the same bytes.
	ok($caller->answer_while($id, $back, sub { $back->respond($_[0], placed()) }), 'an answer that comes with the reconnect, and again when asked, does its work');
	ok(wait_events('order-eager', 1), 'once');
	$back->close;
}

# ---- it does not come back ----

{
	ok($proxy[0]->wait_for(sub { $test->sql("SELECT count(*) FROM evento._sessions WHERE bundle = 'shop'") == 0 }), 'no handler is left');
	my $handler = handler($proxy[1], 'goes');
	my $command = $caller->command('Place', 'order-gone');
	my $service = $caller->service_command('Notify', '{}', stream => 'service-gone');
	my $query = $caller->query('Find');
	my %req = map { my $r = $handler->recv('REQ'); ($r->{payloadType} => $r) } 1 .. 3;
	my $other = handler($proxy[2], 'stays');
	my $start = time;
	$handler->cut;
	my $moved = $other->recv('REQ');
	is($moved->{payloadType}, 'Find', 'a query moves to another instance');
	cmp_ok(time - $start, '<', 11.9, 'without waiting for the first');
	isnt($moved->{correlationId}, $req{Find}{correlationId}, 'under a fresh correlationId');
	$other->respond($moved, Evento::Bundle::single('moved'));
	is($caller->answer($query)->{body}{data}, 'moved', 'and is answered');
	$moved = $other->recv('REQ');
	is($moved->{payloadType}, 'Place', 'an aggregate command moves to another instance');
	cmp_ok(time - $start, '>', 11.9, 'when the first has not come back in its time');
	isnt($moved->{correlationId}, $req{Place}{correlationId}, 'under a fresh correlationId');
	$other->respond($moved, placed());
	is($caller->answer($command)->{class}, 'DomainEventMessage', 'and is answered');
	ok(wait_events('order-gone', 1), 'its event is stored once');
	my $answer = $caller->answer($service);
	ok($answer && ($answer->{failure} || $answer->{class} eq 'ExceptionWrapper'), 'a service command fails: it may have run');
	cmp_ok(time - $start, '<', 25, 'as soon as its handler is gone');
	is(events('service-gone'), 0, 'nothing is stored for it');
	ok(!$other->recv('REQ', timeout => 0.1), 'and it is not run elsewhere');

	# The one that was gone comes back and answers what was asked of it.
	my $unmatched = $proxy[1]->metric('responses_unmatched_total');
	my $back = handler($proxy[1], 'goes');
	$back->respond($req{Place}, placed());
	$back->respond($req{Notify}, Evento::Bundle::event_message('Service', 'Notified', '{}'));
	ok($proxy[1]->wait_for(sub { $proxy[1]->metric('responses_unmatched_total') == $unmatched + 2 }), 'answers that come too late are counted')
	  or diag($proxy[1]->metric('responses_unmatched_total') . " and not 2 more than $unmatched");
	ok($back->alive, 'and dropped');
	is(events('order-gone'), 1, 'they store nothing');
	# Nor can one bundle answer for another.
	my $id = $caller->command('Place', 'order-other');
	my ($owner, $asked);
	$proxy[1]->wait_for(sub {
		for my $bundle ($back, $other)
		{
			$asked = $bundle->recv('REQ', timeout => 0.05) or next;
			$owner = $bundle;
			return 1;
		}
		return 0;
	});
	my $stranger = $proxy[1]->bundle(bundle => 'stranger', instance => 'stranger');
	$stranger->respond($asked, placed());
	ok($stranger->alive, 'a bundle answers what another was asked');
	ok(!$caller->answer($id, timeout => 0.3), 'it is not taken for the answer');
	$owner->respond($asked, placed());
	is($caller->answer($id)->{class}, 'DomainEventMessage', 'that of the other is');
	$_->close for $back, $other, $stranger;
}

# ---- proxies are killed ----

{
	ok($proxy[0]->wait_for(sub { $test->sql("SELECT count(*) FROM evento.bundles WHERE bundle = 'shop'") == 0 }), 'no handler is left');
	my $handler = handler($proxy[1], 'survivor');
	my @ids = map { $caller->command('Place', "order-kill-$_") } 1 .. 5;
	my @reqs = map { $handler->recv('REQ') } @ids;
	is(scalar(grep { $_ } @reqs), 5, 'five commands are with a handler');
	$proxy[1]->stop('KILL');
	$handler->close;
	$handler = $proxy[2]->bundle(bundle => 'shop', instance => 'survivor', names => [ 'Place', 'Notify', 'Find' ]);
	my %again = map { my $r = $handler->recv('REQ'); ($r ? $r->{correlationId} : '' => $r) } 1 .. 5;
	is_deeply([ sort keys %again ], [ sort map { $_->{correlationId} } @reqs ], 'its proxy is killed: at the next one it is asked the same again');
	$handler->respond($_, placed()) for values %again;
	is(scalar(grep { my $a = $caller->answer($_); $a && $a->{class} eq 'DomainEventMessage' } @ids), 5, 'all are answered');
	ok(wait_events("order-kill-$_", 1), "event $_ is stored once") for 1 .. 5;

	# Neither end on the killed one: nothing is felt.
	my $n = 0;
	ok(Evento::ProxyTest::soon(1, sub {
		my $before = time;
		my $id = $caller->command('Place', 'order-unaffected-' . ++$n);
		$handler->respond($handler->recv('REQ'), placed());
		ok($caller->answer($id), 'commands between the others go on');
		return time - $before;
	}), 'at once');
	$proxy[1]->run;
	$proxy[1]->wait_http('/readyz');
	ok(linked($_, 2), "$_->{name} is linked again with the others") for @proxy;
	my $new = handler($proxy[1], 'fresh');
	$handler->close;
	ok($proxy[0]->wait_for(sub { $test->sql("SELECT count(*) FROM evento.bundles WHERE instance = 'survivor'") == 0 }), 'the first handler leaves');
	sleep 0.1;
	my $id = $caller->query('Find');
	my $req = $new->recv('REQ');
	ok($req, 'a bundle at the restarted proxy is asked');
	$new->respond($req, Evento::Bundle::single('back'));
	is($caller->answer($id)->{body}{data}, 'back', 'and answers');
	$new->close;
}

# ---- the caller's connection is cut ----

{
	my $handler = handler($proxy[1], 'answerer');
	for my $case ([ 0, 0, 'the same proxy' ], [ 0, 1, 'the handler\'s proxy' ], [ 0, 2, 'a third proxy' ])
	{
		my ($from, $to, $where) = @$case;
		for my $when ('before', 'after')
		{
			my $stream = 'caller-' . ++$n;
			my $web = $proxy[$from]->bundle(bundle => 'web', instance => 'mobile');
			ok(wait_enabled('mobile'), 'a caller');
			my $id = $web->command('Place', $stream);
			my $req = $handler->recv('REQ');
			$web->cut;
			if ($when eq 'before')
			{
				$handler->respond($req, placed());
				ok(wait_events($stream, 1), 'the answer is there before it comes back');
			}
			$web = $proxy[$to]->bundle(bundle => 'web', instance => 'mobile');
			if ($when eq 'after')
			{
				ok(wait_enabled('mobile'), 'it comes back before the answer is there');
				$handler->respond($req, placed());
			}
			my $answer = $web->answer($id);
			is($answer && $answer->{class}, 'DomainEventMessage', "a caller that comes back at $where has its answer");
			is(events($stream), 1, 'the event is stored once');
			$web->close;
			ok($proxy[0]->wait_for(sub { $test->sql("SELECT count(*) FROM evento._sessions WHERE instance = 'mobile'") == 0 }), 'it leaves');
		}
	}
}

is(scalar(grep { $_->running } @proxy), 3, 'all three proxies still run');
is($_->stop, 0, "$_->{name} ends") for @proxy;

done_testing();
