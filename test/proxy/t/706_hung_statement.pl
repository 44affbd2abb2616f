# 706_hung_statement.pl
#   Statements of the proxy that the server does not get to: requests are
#   answered when their time is up, whatever hangs, and nothing is left behind.
use strict;
use warnings;

use List::Util qw(max min);
use Test::More;
use Time::HiRes qw(time);

use Evento::Bundle;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $proxy = $test->start;
my $caller = $proxy->bundle(bundle => 'caller', instance => 'c1');
my $handler = $proxy->bundle(bundle => 'orders', instance => 'h1', names => ['Change']);
ok($proxy->wait_for(sub { $test->sql(q(SELECT count(*) FROM evento.bundles WHERE instance = 'h1' AND enabled)) == 1 }), 'a handler');

sub change
{
	my ($stream) = @_;
	my $id = $caller->command('Change', $stream);
	$handler->respond($handler->recv('REQ') // return, Evento::Bundle::domain_response('Changed', '{}'));
	return $caller->answer($id);
}
is(change('a')->{class}, 'DomainEventMessage', 'a command is stored');

my $session = $test->node->background_psql('postgres');
$session->query_safe('BEGIN; LOCK TABLE evento._streams, evento._events IN ACCESS EXCLUSIVE MODE');
my ($asked, $answered) = (0, 0);

# How late the first of some answers is, in seconds.
sub least_late
{
	my (%ends, @late);
	for (1 .. 15)
	{
		my $timeout = 1000 + 37 * $_;
		$ends{ $caller->command('Change', 'stuck-' . ++$asked, undef, timeout => $timeout) } = time + $timeout / 1000;
	}
	for my $id (sort { $ends{$a} <=> $ends{$b} } keys %ends)
	{
		my $answer = $caller->answer($id) or next;
		push @late, time - $ends{$id};
		$answered++ if ($answer->{failure}{exceptionClassName} // '') =~ /Timeout|IllegalState/;
	}
	note(sprintf 'late by %.0f to %.0f ms', 1000 * min(@late), 1000 * max(@late)) if @late;
	return min(@late) // 9;
}

# A busy machine makes any of them late, and all of one try.  Those that the server has are waited for to the end.
ok(Evento::ProxyTest::soon(0.3, \&least_late), 'some are answered when their time is up');
is($answered, $asked, 'every one is answered');
is($handler->recv('REQ', timeout => 0.1), undef, 'no handler was asked');
$session->query_safe('COMMIT');
$session->quit;
is(change('b')->{class}, 'DomainEventMessage', 'then commands go on');
is($test->sql(q(SELECT count(*) FROM evento.events WHERE stream LIKE 'stuck-%')), 0, 'and nothing came of those that were given up');
ok($proxy->wait_for(sub { $proxy->metric(q(queue_items\{queue="requests"\})) == 0 }), 'none is open');
is($proxy->stop, 0, 'the proxy ends');

done_testing();
