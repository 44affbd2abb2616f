# 450_bounds.pl
#   More bounds that are met on purpose: how long and how much of answers is
#   kept, times and tries of commands, stories, discoveries, what waits for the
#   database in bytes, what waits for all connections, connections over HTTP.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;

sub start
{
	my (%flags) = @_;
	my $proxy = $test->start(flags => \%flags);
	my $handler = $proxy->bundle(bundle => 'shop', instance => 'h', names => [qw(Place Notify Find Probe)]);
	my $caller = $proxy->bundle(bundle => 'web', instance => 'c');
	$caller->reaches($handler);
	return ($proxy, $handler, $caller);
}

# The size of a queue as /metrics has it.
sub queue
{
	my ($proxy, $unit, $name) = @_;
	return ($proxy->get('/metrics'))[1] =~ /^evento_proxy_queue_$unit\{queue="$name"\} (\d+)$/m ? $1 : undef;
}

# A service command that stores nothing, answered with an exception of that text.
sub notify
{
	my ($handler, $caller, $text, %how) = @_;
	my $id = $caller->service_command('Notify', '{}', %how);
	my $req = $handler->recv('REQ') or return;
	$handler->respond($req, Evento::Bundle::exception('shop.Refused', $text));
	$caller->answer($id) or return;
	return $id;
}

# What a repeat gets: the text of the first answer, or 'anew' where the handler is asked again.
sub repeat
{
	my ($handler, $caller, $id) = @_;
	$caller->service_command('Notify', '{}', correlation => $id);
	my $got = '';
	$caller->{test_proxy}->wait_for(sub {
		if (my $rsp = $caller->answer($id, timeout => 0.01)) { $got = $rsp->{body}{message} }
		elsif (my $req = $handler->recv('REQ', timeout => 0.01))
		{
			$handler->respond($req, Evento::Bundle::exception('shop.Refused', 'anew'));
			$caller->answer($id);
			$got = 'anew';
		}
		return $got ne '';
	});
	return $got;
}

# What code gives when it takes less than so many seconds, in one of a few tries; behind that its answer says nothing.
sub within
{
	my ($seconds, $code) = @_;
	for (1 .. 10)
	{
		my $start = time;
		my $got = $code->();
		return $got if time - $start < $seconds;
	}
	return 'never in time';
}

# ---- answers that are kept ----

{
	my ($proxy, $handler, $caller) = start('answer-keep' => '4s', 'answer-away' => '4s', 'answer-bytes' => '1MB', 'max-timeout' => '4s', 'command-tries' => 2);
	$caller->{test_proxy} = $proxy;
	my $id;
	is(within(4, sub { $id = notify($handler, $caller, 'first'); $id && repeat($handler, $caller, $id) }), 'first', 'a service command that is repeated has the same answer');
	ok($proxy->wait_for(sub { $proxy->metric('answers_kept') == 0 }), 'answer-keep: which is kept for so long');
	is(repeat($handler, $caller, $id), 'anew', 'and no longer');

	my $bytes;
	is(within(4, sub {
		my @large = map { notify($handler, $caller, $_ x 400_000) } qw(a b c);
		$bytes = $proxy->metric('answers_kept_bytes');
		return join ' ', @large == 3 ? map { substr repeat($handler, $caller, $_), 0, 4 } @large[ 2, 0 ] : () }), 'cccc anew', 'answer-bytes: the newest of three large answers is kept, the oldest is not');
	cmp_ok($bytes, '<=', 1 << 20, 'they are bounded together');

	# Away for less, and for more; undef where that is not sure.
	my $away = sub {
		my ($long) = @_;
		$proxy->wait_for(sub { $proxy->metric('answers_kept') == 0 });
		my $begun = time;
		$id = $caller->service_command('Notify');
		my $req = $handler->recv('REQ');
		$caller->cut;
		$proxy->wait_for(sub { $proxy->metric('sessions') == 1 });
		$handler->respond($req, Evento::Bundle::exception('shop.Refused', 'away'));
		my $kept = $proxy->wait_for(sub { $proxy->metric('answers_kept') == 1 }, 4);
		my $sure = time - $begun < 4;
		$proxy->wait_for(sub { $proxy->metric('answers_kept') == 0 }) if $long;
		$caller = $proxy->bundle(bundle => 'web', instance => 'c');
		my $got = $caller->answer($id, timeout => $long ? 0.5 : 4) ? 'its answer' : 'none';
		$sure = time - $begun < 4 if !$long;
		return $sure ? $kept && $got : undef;
	};
	for my $case ([ 0, 'its answer', 'answer-away: a caller that is away for less has its answer' ], [ 1, 'none', 'one that is away for longer has none' ])
	{
		my ($long, $expected, $what) = @$case;
		my $had;
		for (1 .. 10) { last if defined($had = $away->($long)) }
		is($had, $expected, $what);
	}

	# ---- times and tries ----

	$id = $caller->query('Find', '{}', timeout => 60000);
	my $req = $handler->recv('REQ');
	cmp_ok($req->{timeoutMillis}, '<=', 4000, 'max-timeout: a handler is given no more');
	is(($caller->answer($id) // {})->{failure}{exceptionClassName}, 'com.evento.transport.RequestTimeoutException', 'and then the request fails');
	my ($tries, $rsp, $n);
	within(4, sub {
		($tries, $rsp) = (0, undef);
		my $stream = 'tries-' . ++$n;
		$id = $caller->command('Place', $stream);
		$proxy->wait_for(sub {
			if ($req = $handler->recv('REQ', timeout => 0.01))
			{
				$tries++;
				$test->sql("SELECT evento.append('$stream', 'Other', '{}')");
				$handler->respond($req, Evento::Bundle::domain_response('Placed', '{}'));
			}
			return $rsp = $caller->answer($id, timeout => 0.01);
		});
		return 1;
	});
	is($tries, 2, 'command-tries: a handler is asked so often');
	like($rsp && $rsp->{body}{message}, qr/changed under the command 2 times/, 'and then the command fails');
	is($proxy->stop, 0, 'it ends');
}

# ---- what is kept of stories and discoveries ----

{
	my ($proxy, $handler, $caller) = start('story-cache' => '1MB', 'max-discovery' => '2kB');
	my $place = sub {
		my ($stream) = @_;
		my $id = $caller->command('Place', $stream);
		my $req = $handler->recv('REQ') or return 0;
		$handler->respond($req, Evento::Bundle::domain_response('Placed', '{}', state => '{"x":"' . 'x' x 100_000 . '"}'));
		return $caller->answer($id) ? 1 : 0;
	};
	my ($done, $most) = (0, 0);
	for my $n (1 .. 24)
	{
		$done += $place->("story-$n");
		my $bytes = $proxy->metric('story_bytes');
		$most = $bytes if $bytes > $most;
	}
	is($done, 24, 'aggregates with large states');
	cmp_ok($most, '<=', 1 << 20, 'story-cache: their stories are bounded together');
	cmp_ok($most, '>', 500_000, 'but kept');
	my $loads = $proxy->metric('story_loads_total');
	ok($place->('story-24'), 'the newest');
	is($proxy->metric('story_loads_total'), $loads, 'is there');
	ok($place->('story-1'), 'the oldest');
	is($proxy->metric('story_loads_total'), $loads + 1, 'has to be loaded');

	my $described = sub {
		my ($instance, $size) = @_;
		my $b = $proxy->connection;
		$b->hello(bundle => $instance, instance => $instance);
		$b->recv('WLC');
		$b->register('Described');
		$b->discovery(map_(componentType => 'Projection', componentName => 'Projection', handlerType => 'QueryHandler', handledPayloadType => 'Query',
				handledPayload => 'Described', returnType => 'View', returnIsMultiple => bool_(0), associationProperty => undef,
				componentDescription => 'd' x $size, componentDetail => '', componentPath => 'a/B.java', componentLine => int_(7), handlerLine => int_(9),
				executor => undef, invokedCommands => map_(), invokedQueries => map_()));
		$b->notify('evento:enable');
		$b->consumers;
		return $proxy->wait_for(sub { $test->sql("SELECT enabled FROM evento.bundles WHERE instance = '$instance'") eq 't' }) ? $b : undef;
	};
	my @b = map { $described->("bundle-$_", $_) } 100, 5000;
	is(scalar(grep { $_ } @b), 2, 'bundles with a short discovery and a long one are connected');
	is(scalar $proxy->wait_log(qr{bundle-5000/bundle-5000: discovery is left out of the catalogue: }), 1, 'max-discovery: the long one is left out, as the log says');
	ok($proxy->wait_for(sub { $test->sql(q(SELECT string_agg(bundle, ' ') FROM evento.handlers)) eq 'bundle-100' }), 'the other is in the catalogue');
	is($proxy->stop, 0, 'it ends');
}

# ---- what waits for the database, in bytes ----

{
	my ($proxy, $handler, $caller) = start('append-queue-bytes' => '16MB', 'db-queue-bytes' => '1MB', 'database-wait' => '5min');
	my $blocker = $test->node->background_psql('postgres');
	$blocker->query_safe('BEGIN; LOCK TABLE evento._events, evento._streams IN ACCESS EXCLUSIVE MODE');
	my @ids;
	my $refused = 0;
	for my $n (1 .. 6)
	{
		push @ids, $caller->service_command('Notify', '{}', timeout => 120_000);
		$handler->respond($handler->recv('REQ'), Evento::Bundle::event_message('Service', 'Notified', '{"x":"' . 'x' x (3 << 20) . '"}'));
		$handler->alive;
	}
	my $said = $caller->recv('RSP');
	is($said && $said->{failure}{message}, 'too many events wait for the database', 'append-queue-bytes: what is beyond is refused');
	cmp_ok(queue($proxy, 'bytes', 'appends'), '<=', 16 << 20, 'the rest waits');
	# Names of 512 bytes: not all of them are in flight or find room.
	my $long = 's' x 500;
	$caller->command('Place', sprintf('%s-%06d', $long, $_), '{}', lock => undef, timeout => 120_000) for 1 .. 5000;
	my %why;
	$proxy->wait_for(sub {
		while (my $rsp = $caller->recv('RSP', timeout => 0.01)) { $why{ $rsp->{failure}{message} // 'answered' }++ }
		return keys %why;
	});
	is(join(' ', grep { !/too many statements wait for the database/ } keys %why), '', 'db-queue-bytes: loads of stories beyond are refused');
	is(scalar(keys %why), 1, 'and told so');
	cmp_ok(queue($proxy, 'bytes', 'db_read'), '<=', 1 << 20, 'the rest waits');
	my $query = $caller->query('Find');
	my $req = $handler->recv('REQ');
	$handler->respond($req, Evento::Bundle::single('meanwhile'));
	is($caller->answer($query)->{body}{data}, 'meanwhile', 'queries go on');
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	my $answered = 0;
	for my $id (@ids)
	{
		next if $said && $id eq $said->{correlationId};
		my $rsp = $caller->answer($id, timeout => 60);
		$answered++ if $rsp && !$rsp->{failure};
	}
	is($answered, 5, 'what waited is stored when the database goes on');
	$proxy->stop('KILL');
}

# ---- those who read the log at once ----

{
	$test->sql(q(SELECT evento.append('read', 'Read', '{}') FROM generate_series(1, 10); CALL evento.wait(NULL)));
	# Begun behind all that is read here: none of it is in the newest events, which are in memory.
	my ($proxy, $handler, $caller) = start('feed-readers' => 1, 'http-readers' => 1, 'database-wait' => '5min');
	my $blocker = $test->node->background_psql('postgres');
	$blocker->query_safe('BEGIN; LOCK TABLE evento._events IN ACCESS EXCLUSIVE MODE');
	my @ids = map { $caller->fetch(0, component => "C$_", limit => 5, timeout => 120_000) } 1 .. 8;
	my @http = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $proxy->{http}, Timeout => 60) } 1 .. 8;
	syswrite $_, "GET /events?after=0&max=5 HTTP/1.0\r\n\r\n" for @http;
	ok($proxy->wait_for(sub { $proxy->metric('requests_open') == 8 && $proxy->metric('http_requests_open') >= 8 }), 'eight consumers are behind, and eight readers over HTTP');
	my $sent = sub { return ($proxy->get('/metrics'))[1] =~ /^evento_proxy_db_statements_in_flight\{lane="read"\} (\d+)$/m ? $1 + queue($proxy, 'items', 'db_read') : -1 };
	ok($proxy->wait_for(sub { $sent->() >= 2 }), 'they read');
	# Besides one that asks how far the log is.
	cmp_ok($sent->(), '<=', 4, 'feed-readers, http-readers: but not all at once');
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	is(scalar(grep { my $rsp = $caller->answer($_, timeout => 60); $rsp && @{ $rsp->{body}{events}[1] } == 5 } @ids), 8, 'the consumers get what they wanted');
	is(scalar(grep { (do { local $/; <$_> } // '') =~ m{^HTTP/1\.\d 200 } } @http), 8, 'and the readers over HTTP');
	is($proxy->stop, 0, 'it ends');
}

# ---- what waits for all connections ----

{
	my ($proxy, $handler, $caller) = start('output-total' => '16MB');
	# Both ask for much and read nothing yet.
	my %deaf;
	for my $name (qw(greedy modest))
	{
		$deaf{$name} = Evento::Bundle->new($proxy->{port}, ($name eq 'greedy' ? (rcvbuf => 4096) : ()));
		$deaf{$name}->hello(bundle => 'deaf', instance => $name);
		$deaf{$name}->recv('WLC');
	}
	my $large = 'z' x (3 << 20);
	my $give = sub {
		my ($deaf) = @_;
		my $id = $deaf->query('Find');
		my $req = $handler->recv('REQ') or return;
		$handler->respond($req, Evento::Bundle::single($large));
		return $handler->alive ? $id : undef;
	};
	my $own = $give->($deaf{modest});
	my $closed = qr{deaf/greedy: closed: output of all connections passes output-total};
	for (1 .. 20)
	{
		$give->($deaf{greedy});
		last if grep { $_ =~ $closed } split /\n/, $proxy->log;
	}
	is(scalar $proxy->wait_log($closed), 1, 'output-total: who has most waiting is closed');
	cmp_ok($proxy->metric('output_bytes'), '<=', 16 << 20, 'the bound holds');
	is(length(($deaf{modest}->answer($own, timeout => 60) // {})->{body}{data} // ''), 3 << 20, 'another gets what waits for it');
	ok($caller->alive, 'and others go on');
	is($proxy->stop, 0, 'it ends');
}

# ---- what comes in and is not complete ----

{
	my ($proxy, $handler, $caller) = start('input-bytes' => '32MB');
	my @greedy = map { $proxy->bundle(bundle => 'greedy', instance => "g$_") } 1 .. 2;
	$_->send_raw(pack('N', 15 << 20) . "\0" . 'x' x (14 << 20)) for @greedy;
	ok($proxy->wait_for(sub { $proxy->metric('input_bytes') >= 28 << 20 }), 'two connections have sent most of large messages');
	my $modest = $proxy->bundle(bundle => 'modest', instance => 'm');
	my $frame = Evento::Bundle::frame(cbor_encode(map_('@t' => 'PNG', correlationId => \'0123456789abcdef', sequence => int_(1), timestampMs => int_(1), padding => 'x' x (6 << 20))));
	my $end = substr($frame, -1, 1, '');
	$modest->send_raw($frame);
	ok(scalar $proxy->wait_log(qr{greedy/g\d: closed: unfinished input of all connections passes input-bytes}), 'input-bytes: a third passes the bound, and who holds most is closed');
	ok($proxy->wait_for(sub { $proxy->metric('input_bytes') >= 20 << 20 }), 'the others go on');
	$modest->send_raw($end);
	ok($modest->recv('PON'), 'the one that passed it too');
	is(scalar(grep { /passes input-bytes/ } split /\n/, $proxy->log), 1, 'one was enough');
	is($proxy->stop, 0, 'it ends');
}

# ---- connections over HTTP ----

{
	my ($proxy, $handler, $caller) = start('http-connections' => 4);
	my @held = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $proxy->{http}, Timeout => 60) } 1 .. 4;
	# They are taken in the order in which they come.
	my $more = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $proxy->{http}, Timeout => 60);
	syswrite $more, "GET /healthz HTTP/1.0\r\n\r\n";
	ok(!IO::Select->new($more)->can_read(1), 'http-connections: one too many is not served');
	ok($caller->alive, 'bundles go on');
	close $held[0];
	ok(IO::Select->new($more)->can_read(60), 'until another has gone');
	like(do { local $/; <$more> } // '', qr{^HTTP/1\.\d 200 }, 'then it is answered');
	close $_ for @held[ 1 .. 3 ], $more;
	is($proxy->stop, 0, 'it ends');
}

done_testing();
