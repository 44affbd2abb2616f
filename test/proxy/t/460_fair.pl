# 460_fair.pl
#   One bundle floods, another asks for little: wherever requests wait, the two
#   take turns.  Each part makes requests wait behind something that is held, lets
#   it go, and counts how many of the flood came before the other's: by the order
#   of what was stored, called or read, not by time.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Bundle;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new(conf => "log_statement = all\n");
# One connection of each kind: of two that the server runs, either may stand still for a while.
my $proxy = $test->start(flags => { 'feed-readers' => 1, 'append-connections' => 1, 'read-connections' => 1, 'fetch-hold' => '1s', 'database-wait' => '5min' });
# Nor does anything here end by itself.
my %patient = (timeout => 300_000);
my $handler = $proxy->bundle(bundle => 'shop', instance => 'h', names => [ 'Place', 'Notify' ]);
my $flood = $proxy->bundle(bundle => 'flood', instance => 'f');
my $quiet = $proxy->bundle(bundle => 'quiet', instance => 'q');
ok($proxy->wait_for(sub { $test->sql('SELECT count(*) FROM evento.bundles WHERE enabled') == 3 }), 'a handler and two callers');

# Stands in the way of every statement on the log until it is quit.
sub block
{
	my $session = $test->node->background_psql('postgres');
	$session->query_safe('BEGIN; LOCK TABLE evento._events, evento._streams IN ACCESS EXCLUSIVE MODE');
	return $session;
}

sub release
{
	my ($session) = @_;
	$session->query_safe('COMMIT');
	return $session->quit;
}

# How much is in one of the proxy's queues.
sub in_queue
{
	my ($queue) = @_;
	return ($proxy->get('/metrics'))[1] =~ /^evento_proxy_queue_items\{queue="$queue"\} (\d+)$/m ? $1 : -1;
}

# Waits until so much is.
sub queued
{
	my ($queue, $n) = @_;
	return $proxy->wait_for(sub { in_queue($queue) >= $n }, 120);
}

# Answers a handler's calls until a condition holds; gives which of them, from 1 on, was the first of the quiet one.
sub serve_until
{
	my ($to, $condition) = @_;
	my ($calls, $place) = (0);
	$proxy->wait_for(
		sub {
			while (my $req = $to->recv('REQ', timeout => 0.1))
			{
				my ($who) = $req->{payload} =~ /"who":"(\w+)"/;
				$calls++;
				$place //= $calls if $who eq 'Quiet';
				$to->respond($req, $req->{payloadType} eq 'Notify' ? Evento::Bundle::event_message('Service', $who, '{}') :
					  $req->{payloadType} eq 'Place' ? Evento::Bundle::domain_response($who, '{}') : Evento::Bundle::single('x'));
			}
			return $condition->();
		}, 120);
	return $place;
}

# All that was asked has its answer.
sub none_open { return in_queue('requests') == 0 }

# All of these were answered without a failure.
sub answered
{
	my ($caller, @ids) = @_;
	return @ids == grep { my $rsp = $caller->answer($_, timeout => 120); $rsp && !$rsp->{failure} } @ids;
}

sub flood { return '{"who":"Flood"}' }
sub quiet { return '{"who":"Quiet"}' }

# ---- appends ----

{
	my $blocker = block();
	my @flood = map { $flood->service_command('Notify', flood(), %patient) } 1 .. 1200;
	serve_until($handler, sub { in_queue('appends') >= 1200 });
	is(in_queue('appends'), 1200, 'appends of one wait');
	my @quiet = map { $quiet->service_command('Notify', quiet(), %patient) } 1 .. 5;
	serve_until($handler, sub { in_queue('appends') >= 1205 });
	is(in_queue('appends'), 1205, 'and some of another');
	release($blocker);
	ok(answered($quiet, @quiet), 'these are answered');
	ok(answered($flood, @flood), 'and those');
	# A batch was in flight, and has 250 appends at most.
	my $before = $test->sql(q{SELECT count(*) FROM evento.events WHERE type = 'Flood' AND position < (SELECT max(position) FROM evento.events WHERE type = 'Quiet')});
	cmp_ok($before, '<=', 600, 'of 1200 that were there before, a batch or two were stored first');
}

# ---- stories ----

{
	my $blocker = block();
	my @flood = map { $flood->command('Place', "order-$_", flood(), %patient) } 1 .. 500;
	ok(queued('requests', 500) && queued('db_read', 484), 'stories that one needs wait, but for those in flight');
	my @quiet = $quiet->command('Place', 'order-quiet', quiet(), %patient);
	ok(queued('requests', 501) && queued('db_read', 485), 'and one of another');
	release($blocker);
	cmp_ok(serve_until($handler, \&none_open) // 501, '<=', 60, 'the handler is soon asked on that one');
	ok(answered($quiet, @quiet) && answered($flood, @flood), 'all are answered');
}

# ---- one aggregate ----

{
	my @flood = map { $flood->command('Place', 'hot', flood(), %patient) } 1 .. 200;
	ok(queued('requests', 200), 'commands of one wait for an aggregate');
	my @quiet = $quiet->command('Place', 'hot', quiet(), %patient);
	ok(queued('requests', 201), 'and one of another');
	cmp_ok(serve_until($handler, \&none_open) // 201, '<=', 10, 'it is among the first to have its turn');
	ok(answered($quiet, @quiet) && answered($flood, @flood), 'all are answered');
	is($test->sql(q{SELECT string_agg(type, ',' ORDER BY version) ~ '^(Flood,){1,10}Quiet,' FROM evento.events WHERE stream = 'hot'}), 't', 'and stored in this order');
}

# ---- calls that wait for their handler ----

{
	my $late = $proxy->bundle(bundle => 'late', instance => 'l', names => ['Late'], enable => 0);
	ok($proxy->wait_for(sub { $test->sql(q{SELECT count(*) FROM evento.bundles WHERE bundle = 'late'}) == 1 }), 'a handler that is not ready');
	my @flood = map { $flood->query('Late', flood(), %patient) } 1 .. 300;
	ok(queued('calls', 300), 'queries of one wait for it');
	my @quiet = $quiet->query('Late', quiet(), %patient);
	ok(queued('calls', 301), 'and one of another');
	$late->notify('evento:enable');
	$late->consumers;
	cmp_ok(serve_until($late, \&none_open) // 301, '<=', 3, 'it is asked for the other before it has seen three');
	ok(answered($quiet, @quiet) && answered($flood, @flood), 'all are answered');
}

# ---- fetches ----

{
	my $log = $test->node->logfile;
	my $begin = -s $log;
	my $blocker = block();
	$flood->fetch(1, context => 'flood', component => "C$_", %patient) for 1 .. 200;
	ok(queued('requests', 200), 'fetches of one wait for a reader');
	$quiet->fetch(1, context => 'quiet', %patient);
	ok(queued('requests', 201), 'and one of another');
	release($blocker);
	my @read;
	ok($proxy->wait_for(sub { @read = slurp_file($log, $begin) =~ /\$3 = '(flood|quiet)'/g; grep { $_ eq 'quiet' } @read }, 60), 'that is read for');
	my ($before) = grep { $read[$_] eq 'quiet' } 0 .. $#read;
	cmp_ok($before // 200, '<=', 5, 'before most of the others');
}

is($proxy->stop('KILL'), 9, 'enough of it');
done_testing();
