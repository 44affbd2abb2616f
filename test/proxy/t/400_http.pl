# 400_http.pl
#   The API over HTTP: appends with versions and ids, reads with pages, the
#   log with filters and waiting, refusals as problems.
use strict;
use warnings;

use IO::Select;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Http;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $node = $test->node;
my $proxy = $test->start(flags => { 'http-body' => '64kB', 'http-answer' => '16kB' });
my $http = Evento::Http->new($proxy->{http});
my ($r, $start);

sub problem
{
	my ($answer, $status, $type, $what) = @_;
	is($answer->{status}, $status, $what) or diag $answer->{body};
	like($answer->{headers}{'content-type'} // '', qr{^application/problem\+json}, "$what: a problem");
	is($answer->{json}{type}, "urn:evento:$type", "$what: its type") or diag $answer->{body};
	is($answer->{json}{status}, $status, "$what: its status");
	return $answer->{json};
}

# ---- appends ----

my $odd = "{ \"b\" :1.0,\r\n\t\"a\": [ 1e2 , \"\\u00fc\xc3\xbc\" ],\"b\":2}";
my $id = '6a5f4de2-3f7a-4e2c-9a51-111111111111';
$r = $http->post('/streams/order-1', qq({"type":"Placed","data":$odd,"metadata": [ 1 ] }), 'Evento-Expected-Version' => 0, 'Evento-Event-Id' => $id);
is($r->{status}, 201, 'an event is appended') or diag $r->{body};
is_deeply($r->{json}, { stream => 'order-1', first => 1, last => 1, ids => [$id] }, 'with its version and id');
is($r->{headers}{'evento-stream-version'}, 1, 'and the version in a header');
is($node->safe_psql('postgres', q(SELECT md5(convert_to(data::text, 'UTF8')) || metadata::text FROM evento.read_stream('order-1'))),
	do { require Digest::MD5; Digest::MD5::md5_hex($odd) } . '[ 1 ]', 'its data is stored byte for byte');
$r = $http->post('/streams/order-1', qq({"type":"Placed","data":$odd,"metadata": [ 1 ] }), 'Evento-Expected-Version' => 0, 'Evento-Event-Id' => $id);
is($r->{status}, 200, 'the same again is a success');
is_deeply($r->{json}, { stream => 'order-1', first => 1, last => 1, ids => [$id] }, 'with the first answer');
my $p = problem($http->post('/streams/order-1', '{"type":"Placed","data":{}}', 'Evento-Event-Id' => $id), 409, 'id-used', 'the id for other content');
is($p->{sqlstate}, 'V0002', 'with the SQLSTATE');

$p = problem($http->post('/streams/order-1', '{"type":"Paid","data":1}', 'Evento-Expected-Version' => 0), 409, 'wrong-version', 'no stream was expected');
is_deeply([ @{$p}{qw(sqlstate expected found)} ], [ 'V0001', 0, 1 ], 'expected and found');
$p = problem($http->post('/streams/other', '{"type":"Paid","data":1}', 'Evento-Expected-Version' => 'exists'), 409, 'wrong-version', 'a stream was expected');
is_deeply([ @{$p}{qw(expected found)} ], [ -4, 0 ], 'expected and found');
for my $expected (1, 'any', 'exists', -4)
{
	$r = $http->post('/streams/order-1', '{"type":"Paid","data":1,"kind":"service","context":"c1","class":"x.Paid","id":null,"metadata":null}', 'Evento-Expected-Version' => $expected);
	is($r->{status}, 201, "expected $expected") or diag $r->{body};
}
is($http->post('/streams/order-2', '[{"type":"A","data":1},{"type":"B","data":2},{"type":"C","data":null}]', 'Evento-Expected-Version' => 'none')->{json}{last}, 3, 'several at once');
problem($http->post('/streams/order-2', '[{"type":"A","data":1},{"type":"B","data":2}]', 'Evento-Expected-Version' => 7), 409, 'wrong-version', 'all or none');
is($node->safe_psql('postgres', q(SELECT count(*) FROM evento.read_stream('order-2'))), 3, 'none it is');
is($http->post('/streams/a%2Fb%20%C3%BC%3F', '{"type":"A","data":1}')->{json}{stream}, "a/b \x{fc}?", 'a name with all kinds of characters');
is($http->get('/streams/a/b%20%C3%BC%3F')->{json}{stream}, "a/b \x{fc}?", 'read again');

# ---- what is refused ----

for my $case (
	[ '', 400 ], [ '{', 400 ], [ '{"type":"A","data":1}x', 400 ], [ '[{"type":"A","data":1},]', 400 ], [ '{"type":"A","data":tru}', 400 ], [ '{"type":"A" "data":1}', 400 ],
	[ '[]', 422 ], [ '1', 422 ], [ '[1]', 422 ], [ '{"data":1}', 422 ], [ '{"type":"A"}', 422 ], [ '{"type":1,"data":1}', 422 ], [ '{"type":"","data":1}', 422 ],
	[ '{"type":"A","data":1,"data":2}', 422 ], [ '{"type":"A","data":1,"more":2}', 422 ], [ '{"type":"A","data":1,"id":"x"}', 422 ], [ '{"type":"A","data":1,"kind":"x"}', 422 ],
	[ '{"type":"A\u0000","data":1}', 422 ], [ '{"type":"' . 'A' x 256 . '","data":1}', 422 ], [ '{"type":"A","data":' . '[' x 400 . ']' x 400 . '}', 422 ],
	[ "{\"type\":\"A\xff\",\"data\":1}", 422 ], [ "{\"type\":\"A\",\"data\":\"\xff\"}", 422 ],
	[ qq([{"type":"A","data":1,"id":"$id"},{"type":"A","data":1}]), 422 ])
{
	my ($body, $status) = @$case;
	problem($http->post('/streams/bad', $body), $status, $status == 400 ? 'bad-request' : 'not-acceptable', 'body ' . substr $body, 0, 50);
}
is($node->safe_psql('postgres', q(SELECT count(*) FROM evento.read_stream('bad'))), 0, 'nothing of it was stored');
problem($http->post('/streams/bad', '{"type":"A","data":1}', 'Evento-Expected-Version' => $_), 400, 'bad-request', "expected \"$_\"") for '-1', 'x', '1x', '99999999999999999999';
problem($http->post('/streams/bad', '{"type":"A","data":1}', 'Evento-Event-Id' => 'x'), 400, 'bad-request', 'an id that is none');
problem($http->post('/streams/bad', '[{"type":"A","data":1},{"type":"A","data":1}]', 'Evento-Event-Id' => $id), 400, 'bad-request', 'one id for two events');
problem($http->post('/streams/bad', '{"type":"A","data":1}', 'Content-Type' => 'text/plain'), 415, 'media-type', 'another type of body');
problem($http->post('/streams/bad?x=1', '{"type":"A","data":1}'), 400, 'bad-request', 'a parameter');
problem($http->post('/streams/' . 'x' x 513, '{"type":"A","data":1}'), 400, 'bad-request', 'a name that is too long');
problem($http->post('/streams/x%00', '{"type":"A","data":1}'), 400, 'bad-request', 'a name with a zero byte');
problem($http->post('/streams/x%f', '{"type":"A","data":1}'), 400, 'bad-request', 'a name that is not encoded well');
problem($http->post('/streams/x%ff', '{"type":"A","data":1}'), 422, 'not-acceptable', 'a name that is not UTF-8');
problem($http->post('/streams/bad', '{"type":"A","data":"' . 'x' x 70000 . '"}'), 413, 'too-large', 'a body that is too large');
problem($http->get('/streams/order-1?' . $_), 400, 'bad-request', "stream with $_") for 'from=0', 'from=x', 'max=0', 'backwards=2', 'after=1', 'from=1&from=2', '%';
problem($http->get('/events?' . $_), 400, 'bad-request', "events with $_")
	for 'after=-1', 'after=', 'max=99999999999999999999', 'types=', 'types=a,,b', 'types=%g0', 'context=', 'wait=1h', 'from=1', 'types=' . join(',', 1 .. 101);
problem($http->get('/cluster?x'), 400, 'bad-request', 'cluster with a parameter');
problem($http->get('/events', 'Accept' => 'text/event-stream', 'Last-Event-ID' => 'x'), 400, 'bad-request', 'a last id that is none');
$p = problem($http->get('/nothing'), 404, 'no-path', 'another path');
ok(grep({ $_ eq 'GET /events' } @{ $p->{paths} }), 'is told what there is');
problem($http->get('/streams/'), 404, 'no-path', 'no name');
$r = $http->request('DELETE', '/streams/order-1');
problem($r, 405, 'method', 'another method');
is($r->{headers}{allow}, 'GET, HEAD, POST', 'is told those there are');
is($http->post('/events', '1')->{headers}{allow}, 'GET, HEAD', 'of the path');

# ---- one stream ----

problem($http->get('/streams/unknown'), 404, 'no-stream', 'an unknown stream');
$r = $http->get('/streams/order-1');
is($r->{status}, 200, 'a stream');
is($r->{headers}{'evento-stream-version'}, 5, 'its version is in a header');
like($r->{body}, qr/"data":\Q$odd\E,"metadata":\[ 1 \]\}/, 'data and metadata are given byte for byte');
my $first = $r->{json}{events}[0];
is_deeply([ @{$first}{qw(position stream version id type context kind class erased)} ], [ 1, 'order-1', 1, $id, 'Placed', 'default', 'domain', undef, JSON::PP::false ], 'an event');
like($first->{$_}, qr/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, $_) for 'timestamp', 'recorded_at';
is_deeply([ @{ $r->{json}{events}[1] }{qw(kind context class metadata)} ], [ 'service', 'c1', 'x.Paid', undef ], 'another');
is($r->{json}{next}, undef, 'no more pages');

sub pages
{
	my ($path) = @_;
	my @pages;
	while (defined $path && @pages < 20)
	{
		my $page = $http->get($path)->{json};
		push @pages, join ',', map { $_->{version} } @{ $page->{events} };
		$path = $page->{next};
	}
	return join ' ', @pages;
}

is(pages('/streams/order-1?max=2'), '1,2 3,4 5', 'pages');
is(pages('/streams/order-1?max=5'), '1,2,3,4,5', 'a page that is just full');
is(pages('/streams/order-1?max=2&backwards=true'), '5,4 3,2 1', 'backwards');
is(pages('/streams/order-1?max=2&backwards&from=3'), '3,2 1', 'backwards from');
is(pages('/streams/order-1?from=4&max=9999999'), '4,5', 'from');
is(pages('/streams/order-1?from=9'), '', 'from beyond the end');
$http->post('/streams/large', '{"type":"L","data":"' . 'x' x 9000 . '"}') for 1 .. 4;
is(pages('/streams/large'), '1 2 3 4', 'a page ends by its size');
$node->safe_psql('postgres', q(SELECT evento.append('huge', 'H', to_json(repeat('x', 100000))) FROM generate_series(1, 2)));
is(pages('/streams/huge'), '1 2', 'and has one event at least');
$node->safe_psql('postgres', q(SELECT evento.delete_stream('large')));
problem($http->get('/streams/large'), 404, 'no-stream', 'a deleted stream');
$node->safe_psql('postgres', q(SELECT evento.tombstone_stream('large')));
problem($http->get('/streams/large'), 410, 'stream-gone', 'a stream that was deleted for good');
is(problem($http->post('/streams/large', '{"type":"L","data":1}'), 410, 'stream-gone', 'an append to it')->{sqlstate}, 'V0003', 'with the SQLSTATE');
$node->safe_psql('postgres', q(SELECT evento.append('gone', 'G', '{"secret":1}'); SELECT evento.erase_stream('gone', 'test')));
$r = $http->get('/streams/gone')->{json}{events}[0];
ok($r->{erased} && !defined $r->{data}, 'an erased event is shown as such');

# ---- the log ----

$node->safe_psql('postgres', 'CALL evento.wait(NULL)');
my $head = $node->safe_psql('postgres', 'SELECT max(position) FROM evento.events');
sub log_of { my ($query) = @_; my $r = $http->get("/events?$query")->{json}; return (join(' ', map { "$_->{stream}:$_->{version}" } @{ $r->{events} }), $r->{position}) }
is_deeply([ log_of('max=2') ], [ 'order-1:1 order-1:2', 2 ], 'the beginning of the log');
is_deeply([ log_of('after=2&max=2') ], [ 'order-1:3 order-1:4', 4 ], 'behind a position');
is((log_of('types=A,C&categories=order'))[0], 'order-2:1 order-2:3', 'by type and category');
is((log_of('types=A&types=C'))[0], "order-2:1 order-2:3 a/b \x{fc}?:1", 'types given one by one');
is((log_of('context=c*'))[0], 'order-1:2 order-1:3 order-1:4 order-1:5', 'by context');
my ($none, $at) = log_of('types=Never');
is($none, '', 'none of a type');
cmp_ok($at, '>=', $head, 'the position goes on all the same');
is_deeply([ log_of("after=$at") ], [ '', $at ], 'nothing behind the end');
$start = time;
is((log_of("after=$at&wait=300ms"))[0], '', 'nothing comes');
# The proxy's clock has whole milliseconds.
cmp_ok(time - $start, '>=', 0.29, 'until the wait is over');
for my $filter ('', '&types=Wanted', '&categories=cat', '&context=c*x')
{
	my $waiter = $http->raw("GET /events?after=$at&wait=30s$filter HTTP/1.0\r\nHost: localhost\r\n\r\n");
	ok($proxy->wait_for(sub { $proxy->metric('http_waiting') == 1 }), 'a request waits');
	$http->post('/streams/dog-1', '{"type":"Other","data":1}') if $filter ne '';
	$http->post('/streams/cat-1', '{"type":"Wanted","data":2,"context":"cx"}');
	my $text = Evento::Http::read_until($waiter, sub { 0 });
	like($text, qr/"stream":"cat-1","version":\d+,.*"data":2,/, "an event that comes ends it $filter");
	unlike($text, qr/dog-1/, 'another does not');
	($at) = $text =~ /"position":(\d+)\}\n\z/;
}

# ---- other things about HTTP ----

$r = $http->request('HEAD', '/streams/order-1');
is_deeply([ $r->{status}, $r->{body} // '' ], [ 200, '' ], 'HEAD of a stream');
is($r->{headers}{'evento-stream-version'}, 5, 'gives its version');
is($http->request('HEAD', "/events?after=$at&types=Never&wait=30s", headers => { Accept => 'text/event-stream' })->{status}, 200, 'HEAD does not wait');
my $socket = $http->raw;
my $body = '{"type":"Split","data":[1,2,3]}';
for my $byte (split //, "POST /streams/split HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
	. sprintf("%x\r\n%s\r\n", 10, substr $body, 0, 10) . sprintf("%x\r\n%s\r\n0\r\n\r\n", length($body) - 10, substr $body, 10))
{
	syswrite $socket, $byte;
}
like(Evento::Http::read_until($socket, sub { 0 }), qr{^HTTP/1.1 201 .*"stream":"split","first":1,"last":1}s, 'a request in single bytes, in chunks');
$socket = $http->raw(join '', map { "POST /streams/pipe HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 21\r\n" . ($_ == 5 ? "Connection: close\r\n" : '') . qq(\r\n{"type":"P","data":$_}) } 1 .. 5);
my $text = Evento::Http::read_until($socket, sub { 0 });
is(join(',', $text =~ /"last":(\d)/g), '1,2,3,4,5', 'requests that come at once are answered in order');
is(join(',', map { $_->{data} } @{ $http->get('/streams/pipe')->{json}{events} }), '1,2,3,4,5', 'and done in order');
$socket = $http->raw("POST /streams/over HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" . ("4000\r\n" . 'x' x 16384 . "\r\n") x 8 . "0\r\n\r\n");
like(Evento::Http::read_until($socket, sub { 0 }), qr{^HTTP/1.1 413 }, 'a body without a length that is too large');
$socket = $http->raw("POST /streams/over HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
like(Evento::Http::read_until($socket, sub { 0 }), qr{^HTTP/1.1 413 }, 'a length that is too large is refused before the body');
for my $bytes ("GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n", "GET /" . 'x' x 40000 . " HTTP/1.1\r\n\r\n", "GET /events HTTP/1.1\r\n" . "A: b\r\n" x 20000 . "\r\n", "POST /streams/x HTTP/1.1\r\nContent-Length: -5\r\n\r\n")
{
	# An answer, an end, or nothing: the beginning of what may become a request.
	my $answer = Evento::Http::read_until($http->raw($bytes), sub { $_[0] ne '' }, 2);
	unlike($answer, qr{^HTTP/1.\d 2}, 'what is no request');
}
{
	my $half = $http->raw("POST /streams/half HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"type\":");
	my $gone = $http->raw("GET /events?after=$at&types=Never&wait=30s HTTP/1.1\r\nHost: localhost\r\n\r\n");
	ok($proxy->wait_for(sub { $proxy->metric('http_waiting') == 1 }), 'a client that goes away');
}
like(Evento::Http::read_until($http->raw("GET /streams/order-1 HTTP/1.0\r\nHost: evil.example:80\r\n\r\n"), sub { 0 }), qr{^HTTP/1.\d 401 }, 'a page of another host cannot use the loopback address');
like(Evento::Http::read_until($http->raw("GET /streams/order-1 HTTP/1.0\r\nHost: [::1]:3032\r\n\r\n"), sub { 0 }), qr{^HTTP/1.\d 200 }, 'names of this machine can');
is($http->get('/healthz')->{body}, "ok\n", 'all is well');
ok($proxy->wait_for(sub { $proxy->metric('http_held_bytes') == 0 }), 'and nothing is held');

# ---- memory ----

my $tight = $test->start(flags => { 'http-bytes' => '1MB', 'http-body' => '4MB' });
my $narrow = Evento::Http->new($tight->{http});
$r = $narrow->post('/streams/wide', '{"type":"W","data":"' . 'x' x 2000000 . '"}');
problem($r, 503, 'busy', 'a body beyond what all may take');
is($r->{headers}{'retry-after'}, 1, 'is told to come again');
is($narrow->post('/streams/wide', '{"type":"W","data":"' . 'x' x 900000 . '"}')->{status}, 201, 'one within it is taken');
ok($tight->wait_for(sub { $tight->metric('http_held_bytes') == 0 }), 'and nothing is held');
$tight->stop('TERM');

$SIG{PIPE} = 'IGNORE';

# Requests that come in by a byte now and then, in head and body, are not waited for.
my $hasty = $test->start(flags => { 'http-timeout' => '1s' });
for my $begin ('', "POST /streams/slow HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
{
	my $creeping = Evento::Http->new($hasty->{http})->raw($begin . 'G');
	my $closed = 0;
	$start = time;
	while (!$closed && time - $start < 60)
	{
		syswrite $creeping, 'E';
		$closed = IO::Select->new($creeping)->can_read(0.2) && !sysread $creeping, my $any, 1000;
	}
	ok($closed, 'a request that creeps is let go') or diag time - $start;
}
# Any of them is, of whom nothing comes for a second.
ok($hasty->wait_for(sub { ($hasty->get('/healthz'))[0] == 200 }), 'others are not');
$hasty->stop('TERM');

# ---- the end ----

# A request whose last byte comes in when the proxy stops for good: it stands still while its time for that passes.  It has
# to be stopped before that, which needs more than one try on a busy machine.
for my $try (1 .. 5)
{
	my $last = $test->start(flags => { 'drain-time' => '1s' });
	my $holder = $node->background_psql('postgres');
	my $held = Evento::Http->new($last->{http})->raw("GET /events?after=$at&types=Never&wait=30s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{");
	ok($last->wait_for(sub { $last->metric('http_requests_open') == 2 }), 'a request that has begun');
	$holder->query_safe('BEGIN; LOCK TABLE evento._proxies');
	kill 'TERM', $last->{pid};
	ok($last->wait_log('drain: after .* 1 HTTP requests'), 'a proxy that is told to stop, and cannot leave the cluster');
	kill 'STOP', $last->{pid};
	my $late = $last->log =~ /the database was not told that this proxy leaves/;
	# It leaves the database 5 s to hear of it.
	sleep 5.5 if !$late;
	syswrite $held, '}';
	kill 'CONT', $last->{pid};
	like(Evento::Http::read_until($held, sub { 0 }), qr{^HTTP/1.1 503 .*"urn:evento:stopping"}s, 'refuses what would wait') if !$late;
	ok($last->wait_for(sub { !$last->running }), 'ends');
	is($last->{status}, 0, 'in order');
	$holder->quit;
	last if !$late;
	fail('it was too late each time') if $try == 5;
}

is($proxy->stop('TERM'), 0, 'an orderly end');
$node->stop;
done_testing();
