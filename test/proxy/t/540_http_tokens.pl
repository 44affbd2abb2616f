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

$test->sql(q{SELECT evento.drop_bundle_token(token_id) FROM evento.bundle_tokens WHERE http = 'read'});
comes_to(403, 'one that was dropped', sub { $http->get('/events', bearer($read))->{status} });
my $short = $test->sql(q{SELECT evento.create_bundle_token('web', expires => clock_timestamp() + interval '3 seconds', http => 'read')});
comes_to(200, 'one that expires soon', sub { $http->get('/events', bearer($short))->{status} });
comes_to(403, 'when it has expired', sub { $http->get('/events', bearer($short))->{status} });
unlike($proxy->log, qr/\Q$_\E/, 'the log tells no token') for $read, $write, $short;

done_testing();
