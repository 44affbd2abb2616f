# 440_limits.pl
#   Every bound of the proxy is met on purpose: what is too much is refused with
#   a reason, and others go on; a flood gets its share of the loop; what a
#   connection takes that does nothing.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

# As README.md states it.
use constant IDLE_BYTES => 8192;

my $test = Evento::ProxyTest->new(conf => "max_connections = 50\n");

# The failures of these requests, by their text, and how many were answered.
sub outcomes
{
	my ($caller, @ids) = @_;
	my %seen;
	for my $id (@ids)
	{
		my $rsp = $caller->answer($id, timeout => 60);
		$seen{ !$rsp ? 'nothing' : $rsp->{failure} ? $rsp->{failure}{message} : $rsp->{class} eq 'ExceptionWrapper' ? $rsp->{body}{message} : 'answered' }++;
	}
	return \%seen;
}

sub ready
{
	my ($proxy, $n) = @_;
	return $proxy->wait_for(sub { $test->sql("SELECT count(*) FROM evento.bundles WHERE enabled AND proxy = '$proxy->{name}'") == $n });
}

# Answers so many requests that come.
sub serve
{
	my ($handler, $n) = @_;
	for (1 .. $n)
	{
		my $req = $handler->recv('REQ', timeout => 60) or return;
		$handler->respond($req, $req->{payloadType} eq 'Find' ? Evento::Bundle::single('x') :
			  $req->{payloadType} eq 'Notify' ? Evento::Bundle::event_message('Service', 'Notified', '{}') : Evento::Bundle::domain_response('Placed', '{"n":1}'));
	}
	return;
}

# ---- what is kept ----

{
	my $proxy = $test->start(flags => { 'answer-bytes' => '1MB', 'answer-again' => '10s' });
	my $handler = $proxy->bundle(bundle => 'shop', instance => 'h', names => [ 'Place', 'Find' ]);
	my $caller = $proxy->bundle(bundle => 'web', instance => 'c');
	ok(ready($proxy, 2), 'a handler and a caller');
	my $command = $caller->command('Place', 'order-1', '{}');
	serve($handler, 1);
	ok($caller->answer($command), 'a command is answered');
	my $most = 0;
	for (1 .. 100)
	{
		my $id = $caller->query('Find');
		$handler->respond($handler->recv('REQ', timeout => 60), Evento::Bundle::single('x' x 30000));
		$caller->answer($id);
		my $kept = $proxy->metric('answers_kept_bytes');
		$most = $kept if $kept > $most;
	}
	cmp_ok($most, '<=', 1 << 20, 'answer-bytes: no more is kept of the answers of a hundred queries');
	cmp_ok($most, '>', 1 << 18, 'but much of them is');
	ok($proxy->wait_for(sub { $proxy->metric('answers_kept') == 1 }), 'answer-again: only the answer of the command stays');
	is($proxy->stop('KILL'), 9, 'enough of it');
}

# ---- what is open ----

{
	my $proxy = $test->start(flags => { 'max-calls' => 3, 'max-requests-total' => 20, 'request-bytes' => '16MB', 'lock-queue' => 16 });
	my $handler = $proxy->bundle(bundle => 'shop', instance => 'h', names => [ 'Place', 'Notify', 'Find' ]);
	my @caller = map { $proxy->bundle(bundle => 'web', instance => "c$_") } 1 .. 2;
	ok(ready($proxy, 3), 'a handler and two callers');
	my @ids = map { $caller[0]->query('Find') } 1 .. 5;
	serve($handler, 3);
	is_deeply(outcomes($caller[0], @ids), { answered => 3, 'too many open calls to handlers' => 2 }, 'max-calls: two of five are refused');

	is($proxy->stop('KILL'), 9, 'enough of it');
	$_->close for $handler, @caller;

	delete $proxy->{flags}{'max-calls'};
	$proxy->run;
	$proxy->wait_http('/readyz');
	$handler = $proxy->bundle(bundle => 'shop', instance => 'h', names => [ 'Place', 'Notify', 'Find' ]);
	@caller = map { $proxy->bundle(bundle => 'web', instance => "c$_") } 1 .. 2;
	ok(ready($proxy, 3), 'anew');
	@ids = map { $caller[0]->query('Find', '{}', timeout => 120_000) } 1 .. 20;
	ok($proxy->wait_for(sub { $proxy->metric('requests_open') == 20 }), 'max-requests-total: as many as there may be are open');
	my $refused = $caller[1]->answer($caller[1]->query('Find'));
	is($refused && $refused->{failure}{message}, 'this proxy has too many open requests', 'another caller is told that it is one too many');
	serve($handler, 20);
	is_deeply(outcomes($caller[0], @ids), { answered => 20 }, 'those are answered');
	my $large = '{"x":"' . 'x' x (6 << 20) . '"}';
	@ids = map { $caller[0]->query('Find', $large, timeout => 120_000) } 1 .. 3;
	serve($handler, 2);
	is_deeply(outcomes($caller[0], @ids), { answered => 2, 'this proxy has too many open requests' => 1 }, 'request-bytes: the third large one is refused');

	my $before = $proxy->metric('requests_total');
	@ids = map { $caller[0]->command('Place', "locked-$_", '{}', lock => "lock-$_", timeout => 120_000) } 1 .. 18;
	ok($proxy->wait_for(sub { $proxy->metric('requests_total') == $before + 18 && $proxy->metric('requests_open') == 16 }), 'all have come');
	serve($handler, 16);
	my $got = outcomes($caller[0], @ids);
	is($got->{answered}, 16, 'lock-queue: sixteen commands hold their locks');
	is(scalar(keys %$got), 2, 'two are refused') or diag(explain $got);
	is($proxy->stop, 0, 'it ends');
}

# ---- the database does not keep up ----

{
	my $proxy = $test->start(flags => { 'append-queue' => 16, 'db-queue' => 16, 'database-wait' => '5min' });
	my $handler = $proxy->bundle(bundle => 'shop', instance => 'h', names => [ 'Place', 'Notify', 'Find' ]);
	my $caller = $proxy->bundle(bundle => 'web', instance => 'c');
	ok(ready($proxy, 2), 'a handler and a caller');
	my $blocker = $test->node->background_psql('postgres');
	$blocker->query_safe('BEGIN; LOCK TABLE evento._events, evento._streams IN ACCESS EXCLUSIVE MODE');
	my @ids = map { $caller->service_command('Notify', '{}', timeout => 120_000) } 1 .. 20;
	serve($handler, 20);
	my $query = $caller->query('Find');
	serve($handler, 1);
	ok($caller->answer($query), 'queries go on while the database stands still');
	# Room comes back as the caller is told; what waits is stored when the lock is gone.
	ok($proxy->wait_for(sub { ($proxy->get('/metrics'))[1] =~ /^evento_proxy_queue_items\{queue="appends"\} 16$/m }), 'append-queue: sixteen appends wait');
	my $before = $proxy->metric('requests_total');
	my @more = map { $caller->command('Place', "order-$_", '{}', timeout => 120_000) } 1 .. 40;
	ok($proxy->wait_for(sub { $proxy->metric('requests_total') == $before + 40 && ($proxy->get('/metrics'))[1] =~ /^evento_proxy_queue_items\{queue="db_read"\} 16$/m }), 'db-queue: sixteen loads wait');
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	my $got = outcomes($caller, @ids);
	is_deeply($got, { answered => 16, 'too many events wait for the database' => 4 }, 'four of twenty are refused') or diag(explain $got);
	# No more answers at a time than appends may wait.
	for my $left (24, 16, 8, 0)
	{
		serve($handler, 8);
		$proxy->wait_for(sub { ($proxy->metric('requests_open') // 0) <= $left });
	}
	$got = outcomes($caller, @more);
	is($got->{answered}, 32, 'those in flight and those that waited are answered') or diag(explain $got);
	is((grep { /too many statements wait for the database/ } keys %$got), 1, 'the rest is refused');
	is($proxy->stop, 0, 'it ends');
}

# ---- messages ----

{
	my $proxy = $test->start(flags => { 'max-chunk-streams' => 2, 'max-message' => '1MB', 'max-names' => 3, 'max-discovery' => '1kB' });
	my $innocent = $proxy->bundle(bundle => 'innocent', instance => 'i');
	my $c = $proxy->bundle(bundle => 'b', instance => 'streams');
	$c->send_raw(pack('N', 28) . "\x01" . chr($_) x 16 . "\0" . 'x' x 10) for 1 .. 3;
	ok($c->wait_closed, 'max-chunk-streams: a connection with three is closed');
	ok(scalar($proxy->wait_log(qr/b\/streams: closed: too many/)), 'with the reason');
	$c = $proxy->bundle(bundle => 'b', instance => 'message');
	$c->send_chunks('x' x (2 << 20), 300_000);
	ok($c->wait_closed, 'max-message: a connection with a longer one is closed');
	ok(scalar($proxy->wait_log(qr/b\/message: closed: .*too long/)), 'with the reason');
	$c = $proxy->bundle(bundle => 'b', instance => 'names', names => [ 1 .. 4 ]);
	ok($c->wait_closed, 'max-names: a connection with more is closed');
	$c = $proxy->bundle(bundle => 'b', instance => 'discovery', names => ['Name']);
	ok($proxy->wait_for(sub { $test->sql(q(SELECT enabled FROM evento.bundles WHERE instance = 'discovery')) eq 't' }), 'a bundle with a discovery');
	ok($innocent->alive && $c->alive, 'others go on');
	is($proxy->stop, 0, 'it ends');
}

# ---- a flood ----

{
	my $proxy = $test->start(flags => { 'log-level' => 'info' });
	my $flooding = $proxy->bundle(bundle => 'flood', instance => 'f');
	my $innocent = $proxy->bundle(bundle => 'innocent', instance => 'i');
	my $frame = Evento::Bundle::frame(cbor_encode(map_('@t' => 'NTF', correlationId => \Evento::Bundle::uuid(), payloadType => 'evento:nothing', payload => \'', timestampMs => int_(1))));
	my $writer = fork // die "fork: $!";
	if (!$writer)
	{
		# Notifications as fast as they are taken.
		$flooding->send_raw($frame x 2000) while 1;
		POSIX::_exit(0);
	}
	Evento::ProxyTest::started($writer);
	my $before = 0;
	ok($proxy->wait_for(sub { ($proxy->metric('reads_paused_total') // 0) > 20 }), 'a connection that floods is read from in turns');
	my @times;
	for (1 .. 50)
	{
		my $start = time;
		$innocent->alive or last;
		push @times, time - $start;
	}
	is(scalar @times, 50, 'another one is answered all the time');
	note(sprintf 'pings beside a flood: median %.1f ms, longest %.1f ms', 1000 * (sort { $a <=> $b } @times)[25], 1000 * (sort { $a <=> $b } @times)[-1]);
	kill 'KILL', $writer;
	waitpid $writer, 0;
	Evento::ProxyTest::ended($writer);
	is($proxy->stop, 0, 'it ends');
}

# ---- connections that do nothing ----

SKIP:
{
	my $n = $ENV{EVENTO_LONG} ? 10_000 : 2_000;
	my ($files) = `sh -c 'ulimit -Hn'` =~ /(\d+|unlimited)/;
	skip "$n connections need more than $files open files", 4 if $files ne 'unlimited' && $files < $n + 100;
	# Nobody answers pings while so many connect.
	my $proxy = $test->start(flags => { 'log-level' => 'warning', 'ping-interval' => '9min', 'idle-timeout' => '10min' });
	my $resident = sub { return slurp_file("/proc/$proxy->{pid}/statm") =~ /^\d+ (\d+)/ ? $1 * 4096 : 0 };
	# What the first ones make is everybody's.
	my @idle = map { my $c = $proxy->connection; $c->hello(bundle => 'idle', instance => "first-$_"); $c } 1 .. 50;
	$_->recv('WLC') for @idle;
	ok($proxy->wait_for(sub { $test->sql('SELECT count(*) FROM evento._sessions') == 50 }), 'the first connections');
	my $before = $resident->();
	for my $i (1 .. $n)
	{
		my $c = $proxy->connection;
		$c->hello(bundle => 'idle', instance => sprintf('%08d-1111-2222-3333-444455556666', $i));
		$c->register('Command');
		push @idle, $c;
		$idle[-50]->recv('WLC') if $i % 50 == 0;
	}
	ok($proxy->wait_for(sub { $proxy->metric('sessions') == @idle }, 60), "$n bundles are connected");
	ok($proxy->wait_for(sub { $test->sql('SELECT count(*) FROM evento._sessions') == @idle }, 60), 'and registered');
	my $each = ($resident->() - $before) / $n;
	cmp_ok($each, '<', IDLE_BYTES, sprintf('a connection takes %d bytes', $each));
	$proxy->stop('KILL');
}

done_testing();
