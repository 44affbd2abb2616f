# 140_choice.pl
#   Which instance is asked, here and at another proxy: one that does not answer
#   is given less until it does; one that says disable finishes what it has; and
#   what one caller asks comes in the order in which it asked.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my @proxy = map { $test->start(flags => { 'avoid-time' => '2s' }) } 1 .. 2;
ok($_->wait_for(sub { $_->metric('links') == 2 }), "$_->{name} is linked") for @proxy;
my $caller = $proxy[0]->bundle(bundle => 'web', instance => 'caller');

# Waits until an instance is (not) asked by the caller's proxy: it hears of changes milliseconds after the database.
sub wait_enabled
{
	my ($instance, $enabled) = @_;
	my $ok = $proxy[0]->wait_for(sub { $test->sql("SELECT enabled FROM evento.bundles WHERE instance = '$instance'") eq ($enabled // 't') });
	sleep 0.2;
	return $ok;
}

sub data { return ($_[0] // {})->{body}{data} // '' }

sub answer { my ($handler, $req) = @_; return $handler->respond($req, Evento::Bundle::single($handler->{instance})) }

# The number that a query was given.
sub number { return $_[0] && cbor_decode($_[0]{payload})->[1]{body}[1]{serializedPayload}[1]{serializedObject} =~ /"n":(\d+)/ ? $1 : '-' }

# Asks once; gives the handler that was asked, which answers where it is not the silent one, and the failure.
my $questions = 0;

sub ask
{
	my ($name, $silent, @handlers) = @_;
	my $n = ++$questions;
	my $id = $caller->query($name, qq({"n":$n}), timeout => 700);
	my $asked;
	$proxy[0]->wait_for(sub {
		for my $handler (@handlers)
		{
			# One that came after its time is nobody's any more.
			my $req = $handler->recv('REQ', timeout => 0.01) or next;
			next if number($req) != $n;
			$asked = $handler;
			answer($handler, $req) if !$silent || $handler != $silent;
			return 1;
		}
		$caller->pump(0);
		return scalar grep { $_->{'@t'} eq 'RSP' && $_->{correlationId} eq $id } @{ $caller->{queue} };
	}) or return;
	my $rsp = $caller->answer($id) or return;
	return ($asked, $rsp->{failure});
}

# ---- one that does not answer ----

# Where this test was held up, the other has not answered in time either: then nothing is to be learned, and others are tried.
my $tries = 0;
for my $at (0, 1)
{
	my $where = $at ? 'at another proxy' : 'here';
	my ($name, $silent, $good, $first, $counted, $most, %count);
	for my $try (1 .. 10)
	{
		$name = 'Find' . ++$tries;
		$silent = $proxy[$at]->bundle(bundle => 'shop', instance => "silent$tries", names => [$name]);
		$good = $proxy[$at]->bundle(bundle => 'shop', instance => "good$tries", names => [$name]);
		ok(wait_enabled($_->{instance}), "$_->{instance} is enabled $where") for $silent, $good;
		my $before = $proxy[0]->metric('calls_unanswered_total');
		my $start = time;
		my $good_failed = 0;
		for (1 .. 2)
		{
			my ($asked, $failure) = ask($name, $silent, $silent, $good);
			$good_failed ||= !$asked || $asked == $good && $failure;
			$first = $failure if $asked && $asked == $silent;
		}
		$counted = $proxy[0]->metric('calls_unanswered_total') - $before;
		%count = (good => 0, silent => 0);
		for (1 .. 30)
		{
			my ($asked, $failure) = ask($name, $silent, $silent, $good);
			$good_failed ||= !$asked || $asked == $good && $failure;
			$count{ $asked == $silent ? 'silent' : 'good' }++ if $asked;
		}
		# After one second, and then every two.
		$most = 1 + (time - $start) / 2;
		last if !$good_failed || $try == 10;
		$_->close for $silent, $good;
	}
	is($first && $first->{exceptionClassName}, 'com.evento.transport.RequestTimeoutException', "$where: of two that are asked in turn one does not answer");
	is($counted, 1, 'which is counted');
	is($count{good} + $count{silent}, 30, 'thirty more are asked');
	cmp_ok($count{silent}, '<=', $most, 'that one is given a call now and then') or diag(explain \%count);
	# From now on it answers.
	my %answers;
	ok($proxy[0]->wait_for(sub {
		my ($asked, $failure) = ask($name, undef, $silent, $good);
		%answers = () if !$asked || $failure;
		$answers{$asked} = 1 if $asked && !$failure;
		return $answers{$silent} && $answers{$good};
	}), 'it is tried again');
	my @ids = map { $caller->query($name, '{}') } 1 .. 10;
	my @reqs = map { my $b = $_; [ grep { defined } map { $b->recv('REQ', timeout => 20) } 1 .. 5 ] } $silent, $good;
	is_deeply([ map { scalar @$_ } @reqs ], [ 5, 5 ], 'and when it answers it has its share again');
	answer($silent, $_) for @{ $reqs[0] };
	answer($good, $_) for @{ $reqs[1] };
	is(scalar(grep { data($caller->answer($_)) } @ids), 10, 'all are answered');
	$_->close for $silent, $good;
}

# ---- one that drains ----

for my $at (0, 1)
{
	my $where = $at ? 'at another proxy' : 'here';
	my @names = map { "$_$at" } qw(Find Place Notify);
	my $leaving = $proxy[$at]->bundle(bundle => 'stock', instance => "leaving$at", names => \@names);
	ok(wait_enabled("leaving$at"), "an instance $where");
	my $query = $caller->query($names[0]);
	my $command = $caller->command($names[1], "order-$at");
	my $service = $caller->service_command($names[2], '{}', stream => "service-$at");
	my %req = map { my $r = $leaving->recv('REQ'); ($r->{payloadType} => $r) } 1 .. 3;
	is(scalar(keys %req), 3, 'is asked three things');
	$leaving->notify('evento:disable');
	ok(wait_enabled("leaving$at", 'f'), 'and says disable');
	my $later = $caller->query($names[0]);
	ok(!$leaving->recv('REQ', timeout => 0.3), 'it is asked nothing more, nor the same again');
	answer($leaving, $req{ $names[0] });
	$leaving->respond($req{ $names[1] }, Evento::Bundle::domain_response('Placed', '{}'));
	$leaving->respond($req{ $names[2] }, Evento::Bundle::event_message('Service', 'Notified', '{}'));
	is(data($caller->answer($query)), "leaving$at", 'what it has it finishes: the query');
	is(($caller->answer($command) // {})->{class}, 'DomainEventMessage', 'the command');
	is(($caller->answer($service) // {})->{class}, 'ServiceEventMessage', 'the service command');
	is($test->sql("SELECT count(*) FROM evento.read_stream('order-$at')") + $test->sql("SELECT count(*) FROM evento.read_stream('service-$at')"), 2, 'both are stored');
	# Its own requests are served still.
	ok(!$leaving->answer($leaving->last_sequence)->{failure}, 'it may still ask');
	my $other = $proxy[$at]->bundle(bundle => 'stock', instance => "other$at", names => \@names);
	my $req = $other->recv('REQ');
	ok($req, 'what came later goes to another');
	answer($other, $req) if $req;
	is(data($caller->answer($later)), "other$at", 'which answers');
	$_->close for $leaving, $other;
}

# ---- order ----

my $handler = $proxy[1]->bundle(bundle => 'last', instance => 'last', names => ['Order']);
ok(wait_enabled('last'), 'a handler at another proxy');
my @ids = map { $caller->query('Order', qq({"n":$_})) } 1 .. 200;
my @reqs = map { $handler->recv('REQ') } @ids;
is(join(' ', map { number($_) } @reqs), join(' ', 1 .. 200),
	'what one caller asks comes there in its order');
answer($handler, $_) for @reqs;
is(scalar(grep { data($caller->answer($_)) eq 'last' } @ids), 200, 'and is answered');

is($_->stop, 0, "$_->{name} ends") for @proxy;
done_testing();
