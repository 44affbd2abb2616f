# 401_http_sse.pl
#   Server-sent events: from the beginning, live, through two proxies, over
#   restarts and a database that is away; clients that are slow or many.
use strict;
use warnings;

use IO::Select;
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Http;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $node = $test->node;
my %flags = ('http-keep-alive' => '300ms', 'http-waiting' => 8, 'http-wait' => '5min', 'database-wait' => '2s', 'feed-bytes' => '1MB', 'http-timeout' => '5min');
my $one = $test->start(flags => {%flags});
my $two = $test->start(flags => {%flags});
my ($http, $other) = map { Evento::Http->new($_->{http}) } $one, $two;
my ($event, $block);

sub append { my ($stream, $data, $type) = @_; return $node->safe_psql('postgres', "SELECT evento.append('$stream', '" . ($type // 'T') . "', '$data')") }

# ---- from the beginning, then live ----

append('s-1', qq({"n":\n1,\r\n"s":"\\u000a"})) for 1 .. 3;
my $live = $http->events('/events?after=0');
like($live->head, qr{^HTTP/1\.\d 200 .*^Content-Type: text/event-stream\r$}ms, 'a stream of events');
for my $n (1 .. 3)
{
	$event = $live->event;
	is_deeply([ @{$event}{qw(id_sent position version data)} ], [ $n, $n, $n, { n => 1, s => "\n" } ], "event $n, from the log");
}
like($event->{text}, qr/"data":\{"n":\n1,\n\n?"s":"\\u000a"\}/, 'data over several lines');
is($http->post('/streams/s-1', '{"type":"T","data":{"n":4}}')->{status}, 201, 'an append here');
is($live->event->{data}{n}, 4, 'shows');
is($other->post('/streams/s-1', '{"type":"T","data":{"n":5}}')->{status}, 201, 'an append at the other proxy');
is($live->event->{data}{n}, 5, 'shows');
append('s-2', '{"n":6}');
is($live->event->{data}{n}, 6, 'and one in SQL');
while (($block = $live->block) && !defined $block->{comment}) { }
is($block->{comment}, 'keep-alive', 'a sign of life where there is nothing');

my $rare = $http->events('/events?after=0&types=Rare&categories=r&context=d*');
append('s-3', $_) for 7 .. 9;
append('r-1', '10', 'Rare');
$event = $rare->event;
is_deeply([ @{$event}{qw(stream data)} ], [ 'r-1', 10 ], 'a filter');
append('s-3', 11);
my $head = $node->safe_psql('postgres', 'CALL evento.wait(NULL)');
ok($one->wait_for(sub { $rare->block(2); ($rare->last_id // 0) >= $head }), 'tells how far it has looked, too');
is($live->event->{data}, $_, "the other stream has event $_") for 7 .. 11;
$rare->close;
ok($one->wait_for(sub { $one->metric('http_waiting') == 1 }), 'who goes is forgotten');

# One read of the log serves all who wait.
my @many = map { $http->events("/events?after=$head") } 1 .. 5;
ok($one->wait_for(sub { $one->metric('http_waiting') == 6 }), 'six wait');
append('s-4', 12);
is($_->event->{data}, 12, 'each gets it') for @many, $live;
# One after the other.
my (@more, @heads);
for (1 .. 3)
{
	push @more, $http->events("/events?after=$head");
	push @heads, $more[-1]->head =~ m{ (\d+)};
}
is_deeply(\@heads, [ 200, 200, 503 ], 'more than http-waiting are refused');
$_->close for @many, @more;
ok($one->wait_for(sub { $one->metric('http_waiting') == 1 }), 'those that go are forgotten');

# ---- a slow client ----

my $before = $node->safe_psql('postgres', 'CALL evento.wait(NULL)');
my $slow = $http->events("/events?after=$before");
$slow->head;
my $rss = sub { my ($kb) = PostgreSQL::Test::Utils::slurp_file("/proc/$one->{pid}/status") =~ /^VmRSS:\s+(\d+)/m; return $kb };
my $small = $rss->();
for my $round (1 .. 40)
{
	$node->safe_psql('postgres', q(SELECT evento.append('big', 'B', to_json(repeat('x', 50000))) FROM generate_series(1, 20)));
}
$node->safe_psql('postgres', 'CALL evento.wait(NULL)');
ok($one->wait_for(sub { $live->block(2); ($live->last_id // 0) >= $before + 800 }, 120), 'a fast client is not held up by one that does not read');
cmp_ok($rss->() - $small, '<', 20000, 'and the proxy does not grow by the 40 MB it has not read');
cmp_ok($one->metric('http_held_bytes'), '<', 1_000_000, 'a piece is held for it');
my $count = 0;
my $until = time + 120;
while ($count < 800 && time < $until && ($block = $slow->block(60))) { $count++ if ($block->{data} // '') =~ /"stream":"big"/ }
is($count, 800, 'it gets all of it when it reads');
$_->close for $slow, $live;

# ---- restarts ----

my $from = $node->safe_psql('postgres', 'CALL evento.wait(NULL)');
my (@got, %twice);
my $stream = $http->events("/events?after=$from");
my $last = $from;
my $at = 0;
my @proxies = ($one, $two);

# Takes what comes until the stream ends or a number of events is there, and goes on at the next proxy.
sub follow
{
	my ($until) = @_;
	my $give_up = time + 120;
	while (@got < $until && time < $give_up)
	{
		my $event = $stream->event(5);
		if ($event)
		{
			push @got, $event->{data};
			$last = $event->{id_sent};
			next;
		}
		next if !$stream->{ended};
		$at = 1 - $at;
		$stream = eval { Evento::Http->new($proxies[$at]{http})->events('/events?after=0', 'Last-Event-ID' => $last) } // $stream;
		sleep 0.1;
	}
	return scalar @got;
}

append('r', $_) for 1 .. 10;
is(follow(10), 10, 'events before');
is($one->stop('TERM'), 0, 'the proxy of a stream is stopped');
append('r', $_) for 11 .. 20;
is(follow(20), 20, 'the client goes on at the other proxy');
$one->run;
$one->wait_http('/readyz');
append('r', $_) for 21 .. 25;
is(follow(25), 25, 'more of them');
$two->stop('KILL');
append('r', $_) for 26 .. 30;
is(follow(30), 30, 'that one is killed');
is_deeply(\@got, [ 1 .. 30 ], 'none is lost, none comes twice');
$two->run;
$two->wait_http('/readyz');

# ---- the database is away ----

$stream->close;
ok($one->wait_for(sub { $one->metric('http_waiting') == 0 }), 'nobody waits');
$stream = $http->events("/events?after=$last");
$stream->head;
undef $block;
my $waiter = $http->raw("GET /events?after=$last&wait=300s HTTP/1.0\r\nHost: localhost\r\n\r\n");
# The reads that they begin with have ended.
ok($one->wait_for(sub { my $m = ($one->get('/metrics'))[1]; $one->metric('http_waiting') == 2
		&& $m =~ /^evento_proxy_db_statements_in_flight\{lane="read"\} 0$/m && $m =~ /^evento_proxy_queue_items\{queue="db_read"\} 0$/m }), 'a stream and a request wait');
ok($one->wait_for(sub { 2 == grep { $_->{live} } @{ $http->get('/cluster')->{json}{proxies} } }), 'the cluster is known');
is($http->get('/cluster')->{json}{database}, JSON::PP::true, 'and that there is a database');
$node->stop('fast');
ok($one->wait_for(sub { $one->metric('db_up') == 0 }), 'the database goes');
my $cluster = $http->get('/cluster');
is($cluster->{status}, 200, 'the cluster is still told');
is($cluster->{json}{database}, JSON::PP::false, 'and that the database is away');
is(join(' ', sort map { $_->{name} } grep { $_->{live} } @{ $cluster->{json}{proxies} }), 'proxy1 proxy2', 'from memory');
cmp_ok($cluster->{json}{age_seconds}, '>', 0, 'with its age');
for my $case ([ GET => '/events?after=0' ], [ GET => '/streams/s-1' ], [ POST => '/streams/s-1', '{"type":"T","data":1}' ])
{
	my ($method, $path, $body) = @$case;
	my $start = time;
	my $answer = $http->request($method, $path, defined $body ? (body => $body) : ());
	is_deeply([ $answer->{status}, $answer->{json}{type}, $answer->{headers}{'retry-after'} ], [ 503, 'urn:evento:database-away', 1 ], "$method $path") or diag $answer->{body};
	cmp_ok(time - $start, '<', 28, 'in time');
	is(scalar @{ $answer->{json}{ids} }, 1, 'an append is told the id to repeat it with') if $method eq 'POST';
}
# Not one that came before.
1 while $stream->block(0.01);
$block = $stream->block(5) // {} until defined $block->{comment} || $stream->{ended};
is($block->{comment}, 'keep-alive', 'streams go on');
my $behind = $http->events('/events?after=0');
is($behind->block->{retry}, 1000, 'one can begin');
$node->start;
$one->wait_http('/readyz');
append('back', '"again"');
is($stream->event->{stream}, 'back', 'and have what comes when the database is back');
is($behind->event->{position}, 1, 'also from the beginning');
like(Evento::Http::read_until($waiter, sub { 0 }), qr/"stream":"back"/, 'a request that waited, too');

# ---- the end ----

is($one->stop('TERM'), 0, 'an orderly end');
ok($one->wait_for(sub { $stream->block(1); $stream->{ended} }), 'ends the streams');
like($one->log, qr/ stopped\n\z/, 'and all of it');
unlike($one->log, qr/handle was left open|ERROR/, 'cleanly');
$two->stop('TERM');
# ---- the log grows while nobody can say where it left positions out ----

my $held = $node->background_psql('postgres');
$held->query_safe('BEGIN; LOCK TABLE evento._jumps');
my $proxy = $test->start(flags => { %flags, 'read-connections' => 4, 'http-wait' => '2min' });
my $kept = Evento::Http->new($proxy->{http})->raw("GET /events?after=1&types=Wanted&wait=120s HTTP/1.0\r\nHost: localhost\r\n\r\n");
ok($proxy->wait_for(sub { $proxy->metric('http_waiting') == 1 }), 'a request waits');
for my $n (1 .. 10)
{
	$test->sql(qq(SELECT evento.append('grows', 'Other', '{}'); CALL evento.wait(NULL)));
	ok($proxy->wait_for(sub { IO::Select->new($kept)->can_read(0) || ($proxy->get('/healthz'))[0] == 200 }), "the proxy goes on, $n") or last;
}
$held->query_safe('COMMIT');
$held->quit;
$test->sql(q(SELECT evento.append('grows', 'Wanted', '{}')));
like(do { local $/; <$kept> }, qr{^HTTP/1.\d 200 .*"type":"Wanted"}s, 'and the request has its event');
is($proxy->stop, 0, 'the proxy ends in order');

$node->stop;
done_testing();
