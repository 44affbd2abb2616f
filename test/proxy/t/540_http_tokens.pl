# 540_http_tokens.pl
#   Tokens of the database as bearer tokens over HTTP.
use strict;
use warnings;

use Test::More;

use Evento::Http;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $proxy = $test->start(flags => { 'http-address' => '0.0.0.0' });
my $http = Evento::Http->new($proxy->{http});
my $event = '{"type":"T","data":{}}';

sub token { return $test->sql("SELECT evento.create_bundle_token('web', http => '$_[0]')") }
sub bearer { return (Authorization => "Bearer $_[0]") }

# The status of a request with a token, once it is the expected one: proxies hear of tokens a moment later.
sub comes_to
{
	my ($status, $what, $code) = @_;
	my $last;
	$proxy->wait_for(sub { $last = $code->(); return $last == $status });
	return is($last, $status, $what);
}

# Whether a stream ends, with what comes until then passed over.
sub ends
{
	my ($stream) = @_;
	my $until = time + 60;
	$stream->block(1) until $stream->{ended} || time > $until;
	return $stream->{ended};
}

my ($none, $read, $write) = map { token($_) } qw(none read write);
is($http->get('/events')->{status}, 401, 'without a token');
comes_to(200, 'a token that may read', sub { $http->get('/events', bearer($read))->{status} });
is($http->post('/streams/s-1', $event, bearer($read))->{status}, 403, 'may not append');
comes_to(201, 'one that may append', sub { $http->post('/streams/s-1', $event, bearer($write))->{status} });
is($http->get('/streams/s-1', bearer($write))->{status}, 200, 'may read as well');
is($http->get('/events', bearer($none))->{status}, 403, 'one that is for bundles alone');
is($http->get('/events', bearer(substr($read, 0, -1)))->{status}, 403, 'one that lacks its last character');
is($http->get('/events', bearer("$read$read"))->{status}, 403, 'one that is too long');
is($http->get('/events', Authorization => 'Basic eDp5')->{status}, 403, 'other credentials');

# What is under way with a token ends with it, and nothing else does.
my $live = $http->events('/events?after=0', bearer($read));
like($live->head, qr{^HTTP/1\.\d 200 }, 'a stream of events');
my $stays = $http->events('/events?after=0', bearer($write));
$stays->head;
my $long = $http->raw("GET /events?after=999&wait=60s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer $read\r\n\r\n");
ok($proxy->wait_for(sub { $proxy->metric('http_waiting') == 3 }), 'requests wait for events');
$test->sql(q{SELECT evento.drop_bundle_token(token_id) FROM evento.bundle_tokens WHERE http = 'read'});
comes_to(403, 'one that was dropped', sub { $http->get('/events', bearer($read))->{status} });
ok($proxy->wait_for(sub { $proxy->metric('http_waiting') == 1 }), 'what waited with it does no longer');
ok(ends($live), 'its stream ends');
like(Evento::Http::read_until($long, sub { $_[0] =~ /\r\n\r\n/ }), qr{^HTTP/1\.1 403 }, 'a request that waits is refused');
is($http->post('/streams/s-2', $event, bearer($write))->{status}, 201, 'an append');
my $seen = '';
$seen .= ($stays->block(60) // last)->{data} // '' until $seen =~ /"stream":"s-2"/;
like($seen, qr/"stream":"s-2"/, 'that the stream of another token brings');
$stays->close;
# It has to be used before it expires, which a busy machine may need more time for.
my $short;
undef $live;
for my $seconds (3, 10, 30)
{
	$short = $test->sql("SELECT evento.create_bundle_token('web', expires => clock_timestamp() + interval '$seconds seconds', http => 'read')");
	$proxy->wait_for(sub { $http->get('/events', bearer($short))->{status} == 200 }, $seconds) or next;
	$live = $http->events('/events?after=0', bearer($short));
	last if $live->head =~ m{^HTTP/1\.\d 200 };
}
like($live && $live->head, qr{^HTTP/1\.\d 200 }, 'a stream of events with one that expires soon');
comes_to(403, 'when it has expired', sub { $http->get('/events', bearer($short))->{status} });
ok(ends($live), 'its stream has ended');
unlike($proxy->log, qr/\Q$_\E/, 'the log tells no token') for $read, $write, $short;

# ---- while nobody knows whose token it is ----

$test->node->stop;
my $new = $test->start(flags => { 'http-address' => '0.0.0.0' }, wait => 0);
my $early = Evento::Http->new($new->{http});
my $answer = $early->get('/events', bearer($write));
is($answer->{status}, 503, 'a token that the proxy cannot know yet');
is($answer->{json}{type}, 'urn:evento:not-ready', 'is not refused for good');
ok($answer->{headers}{'retry-after'}, 'but later');
is($early->get('/events')->{status}, 401, 'without one it is');
is($early->get('/healthz', bearer($write))->{status}, 200, 'what is open needs none');
$test->node->start;
ok($new->wait_for(sub { ($answer = $early->get('/events', bearer($write)))->{status} != 503 }), 'when the database is back');
is($answer->{status}, 200, 'it is known');

done_testing();
