# 405_http_drain.pl
#   SIGTERM and HTTP: what was asked is answered, who waits for events is let
#   go, streams end behind an event, connections are not kept; and behind the
#   last of it requests are refused with nothing done.  In the clear and with TLS.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use Evento::Bundle;
use Evento::Certs;
use Evento::Http;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $ca = Evento::Certs->new;
my ($cert, $key) = $ca->cert(cn => 'proxy');
my %tls = ('tls-cert' => $cert, 'tls-key' => $key, 'tls-ca' => $ca->ca, 'bundle-tls' => 'on', 'http-tls' => 'on');
my %times = ('drain-time' => '4min', 'cut-time' => '1s', 'http-timeout' => '4min', 'http-wait' => '4min');

# A connection to a port, in the clear or not.
sub connection { my ($port, $tls) = @_; return Evento::Bundle->new($port, $tls ? (tls => { ca => $ca->ca }) : ()) }

sub ask
{
	my ($c, $method, $path, $headers, $body) = @_;
	my $text = "$method $path HTTP/1.1\r\nHost: localhost\r\n" . join('', map { "$_: $headers->{$_}\r\n" } sort keys %{ $headers // {} });
	$text .= "Content-Type: application/json\r\nContent-Length: " . length($body) . "\r\n" if defined $body;
	return $c->send_raw("$text\r\n" . ($body // ''));
}

# All that comes until enough of it is there; to the end where enough is not given.
sub answer { my ($c, $enough) = @_; return Evento::Http::read_until($c->{socket}, $enough // sub { 0 }, 60) }

# One answer on a connection that goes on.
sub whole { return $_[0] =~ /\r\n\r\n/ && $_[0] =~ /^Content-Length: (\d+)\r$/mi && length(($_[0] =~ /\r\n\r\n(.*)\z/s)[0]) >= $1 }

for my $with (0, 1)
{
	my $how = $with ? 'TLS' : 'clear';
	my $proxy = $test->start(flags => { %times, $with ? %tls : () });
	$test->sql("SELECT evento.append('before-$with', 'T', '1')");
	my $after = $test->sql('CALL evento.wait(NULL)');

	# Requests of every kind are open.
	my $session = $test->node->background_psql('postgres');
	$session->query_safe("BEGIN; SELECT evento.append('held-$with', 'T', '{\"n\":0}')");
	my ($append, $poll, $stream, $kept) = map { connection($proxy->{http}, $with) } 1 .. 4;
	ask($append, 'POST', "/streams/held-$with", {}, '{"type":"T","data":{"n":1}}');
	ask($poll, 'GET', "/events?after=$after&wait=240s");
	ask($stream, 'GET', '/events?after=' . ($after - 1), { Accept => 'text/event-stream' });
	my $came = answer($stream, sub { $_[0] =~ /^id: $after\n/m });
	like($came, qr/^id: $after\n/m, "$how: a stream has begun");
	ask($kept, 'GET', "/streams/before-$with");
	my $first = answer($kept, \&whole);
	like($first, qr{^HTTP/1.1 200 }, "$how: a connection that is kept");
	unlike($first, qr/^Connection: close/mi, "$how: as long as the proxy runs");
	my ($handler, $caller) = map { $proxy->bundle(%$_, $with ? (tls => { ca => $ca->ca }) : ()) }
	  { bundle => 'slow', instance => "slow$with", names => ['Slow'] }, { bundle => 'web', instance => "web$with" };
	ok($proxy->wait_for(sub { $test->sql("SELECT count(*) FROM evento.bundles WHERE instance = 'slow$with' AND enabled") == 1 }), "$how: a handler");
	# Its command is open until somebody else lets go of its stream.
	my $slow = $test->node->background_psql('postgres');
	$slow->query_safe("BEGIN; SELECT evento.append('order-$with', 'T', '0')");
	$caller->command('Slow', "order-$with", timeout => 240_000);
	$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Done', '{}'));
	ok($proxy->wait_for(sub { $proxy->metric("http_waiting") == 2 && $proxy->metric(q(queue_items\{queue="appends"\})) == 2 }), "$how: poll, stream, append and command are open")
	  or diag(($proxy->get('/metrics'))[1]);

	kill 'TERM', $proxy->{pid};
	my $end = answer($poll);
	like($end, qr{^HTTP/1.1 200 .*\{"events":\[\],"position":$after\}\n\z}s, "$how: the poll is answered with what there is");
	like($end, qr/^Connection: close\r$/mi, "$how: and its connection goes");
	$came .= answer($stream, sub { $_[0] =~ /\r\n0\r\n\r\n\z/ || $_[0] =~ /\A0\r\n\r\n\z/ });
	like($came, qr/0\r\n\r\n\z/, "$how: the stream ends with its last chunk");
	ok($_->wait_closed, "$how: the bundle is let go") for $handler, $caller;
	$_->close for $handler, $caller;
	# The command is still open, so HTTP is served.
	ask($kept, 'GET', "/streams/before-$with");
	like(answer($kept), qr{^HTTP/1.1 200 .*^Connection: close\r$}ms, "$how: the next answer on a kept connection is its last");
	my $late = connection($proxy->{http}, $with);
	ask($late, 'GET', '/events?after=0', { Accept => 'text/event-stream' });
	like(answer($late), qr{^HTTP/1.1 200 .*^retry: \d+\n}ms, "$how: a stream that comes now ends at once, and its client knows when to come back");
	is(($proxy->get('/healthz'))[0], 503, "$how: balancers are told");

	# Behind its end only the append is left.
	$slow->query_safe('ROLLBACK');
	$slow->quit;
	ok($proxy->wait_for(sub { ($proxy->get("/streams/before-$with"))[0] == 503 }), "$how: in the end requests are refused");
	$late = connection($proxy->{http}, $with);
	ask($late, 'POST', "/streams/late-$with", {}, '{"type":"T","data":1}');
	$end = answer($late);
	like($end, qr{^HTTP/1.1 503 .*urn:evento:stopping}ms, "$how: an append too");
	like($end, qr/^Retry-After: \d+\r$/m, "$how: with the time to come back");
	ok($proxy->running, "$how: the append that waits holds the proxy");
	$session->query_safe('COMMIT');
	$session->quit;
	$end = answer($append);
	like($end, qr{^HTTP/1.1 201 .*"first":2}ms, "$how: the append is answered");
	like($end, qr/^Connection: close\r$/mi, "$how: and its connection goes");
	ok($proxy->wait_for(sub { !$proxy->running }), "$how: then the proxy ends");
	is($proxy->{status}, 0, "$how: with status 0");
	is(scalar(grep { /info drain: finished in/ } split /\n/, $proxy->log), 1, "$how: it had finished everything") or diag($proxy->log);
	is($test->sql("SELECT count(*) FROM evento.events WHERE stream = 'held-$with'"), 2, "$how: what was answered is in the log");
	is($test->sql("SELECT count(*) FROM evento.events WHERE stream = 'late-$with'"), 0, "$how: what was refused is not");
}

# ---- an append that does not end ----

{
	my $proxy = $test->start(flags => { %times, 'drain-time' => '700ms' });
	my $session = $test->node->background_psql('postgres');
	$session->query_safe(q(BEGIN; SELECT evento.append('stuck', 'T', '0')));
	my $append = connection($proxy->{http});
	ask($append, 'POST', '/streams/stuck', {}, '{"type":"T","data":1}');
	ok($proxy->wait_for(sub { $proxy->metric(q(queue_items\{queue="appends"\})) == 1 }), 'an append waits') or diag(($proxy->get('/metrics'))[1]);
	is($proxy->stop('TERM'), 0, 'the proxy ends all the same');
	like(answer($append), qr{^HTTP/1.1 503 .*"ids":\["|^HTTP/1.1 503 .*stopping}ms, 'and the client hears of it');
	is(scalar(grep { /warning drain: after \d+ ms: .* 1 HTTP requests are left/ } split /\n/, $proxy->log), 1, 'the log says what was left');
	$session->query_safe('ROLLBACK');
	$session->quit;
}

done_testing();
