# 120_links.pl
#   The links between proxies: broken, silent, refused; strangers on the internal
#   port; proxies that stand still or lose the database while links go on.
use strict;
use warnings;

use Digest::SHA qw(hmac_sha256);
use IO::Handle;
use IO::Socket::INET;
use IPC::Open2;
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $forwarder = __FILE__ =~ s{test/proxy/t/[^/]+$}{test/lib/tcp-forwarder}r;
my $test = Evento::ProxyTest->new;
my (@proxy, @forward);

# Three proxies, each of which the others reach through a forwarder.
for my $i (0 .. 2)
{
	my ($port, $internal) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;
	my $pid = open2(my $out, my $in, $^X, $forwarder, $port, "127.0.0.1:$internal");
	Evento::ProxyTest::started($pid);
	$in->autoflush(1);
	readline $out;
	$forward[$i] = { pid => $pid, in => $in, out => $out };
	$proxy[$i] = $test->start(flags => { 'internal-port' => $internal, 'internal-advertised' => "127.0.0.1:$port", 'cut-time' => '12s' });
	$proxy[$i]{internal} = $internal;
}

sub forwarder_do
{
	my ($i, $command) = @_;
	print { $forward[$i]{in} } "$command\n";
	return readline $forward[$i]{out};
}

sub linked
{
	my ($proxy, $links, $seconds) = @_;
	return $proxy->wait_for(sub { $proxy->metric('links') == $links }, $seconds);
}

sub wait_enabled
{
	my ($instance) = @_;
	my $enabled = $proxy[0]->wait_for(sub { $test->sql("SELECT enabled FROM evento.bundles WHERE instance = '$instance'") eq 't' });
	sleep 0.1;
	return $enabled;
}

# What a query is answered; the handler answers whatever it is asked until then.
sub ask
{
	my ($caller, $handler, $data) = @_;
	my $answer = $caller->answer_while($caller->query('Find'), $handler, sub { $handler->respond($_[0], Evento::Bundle::single($data)) });
	return ($answer // {})->{body}{data} // 'no answer';
}

ok(linked($_, 4), "$_->{name} is linked with the others") for @proxy;
my $caller = $proxy[0]->bundle(bundle => 'web', instance => 'caller');
my $handler = $proxy[1]->bundle(bundle => 'shop', instance => 'handler', names => [ 'Find', 'Place', 'Notify' ]);
ok(wait_enabled('handler'), 'a handler');
is(ask($caller, $handler, 'through'), 'through', 'queries go through the forwarder');

# ---- a link is cut ----

my $command = $caller->command('Place', 'order-1');
my $service = $caller->service_command('Notify', '{}', stream => 'service-1');
my %req = map { my $r = $handler->recv('REQ'); ($r->{payloadType} => $r) } 1 .. 2;
is(scalar(keys %req), 2, 'two commands are with the handler');
my %since = (log_from => -s $proxy[0]{log});
forwarder_do(1, 'cut');
ok(scalar $proxy[0]->wait_log_since(\%since, 'warning link \S+ to proxy \d+: '), 'the link breaks: a line in the log');
my %again = map { my $r = $handler->recv('REQ'); ($r->{payloadType} => $r) } 1 .. 2;
is($again{$_}{correlationId}, $req{$_}{correlationId}, "$_ comes again over the new link, the same") for sort keys %req;
$handler->respond($req{Place}, Evento::Bundle::domain_response('Placed', '{}'));
$handler->respond($req{Notify}, Evento::Bundle::event_message('Service', 'Notified', '{}'));
is($caller->answer($command)->{class}, 'DomainEventMessage', 'the aggregate command is answered');
is($caller->answer($service)->{class}, 'ServiceEventMessage', 'the service command is answered');
is($test->sql("SELECT count(*) FROM evento.events WHERE stream IN ('order-1', 'service-1')"), 2, 'both events are stored once');
ok(linked($_, 4), "$_->{name} is linked again") for @proxy;

# ---- a link cannot be made for some time ----

forwarder_do(1, 'down');
ok(linked($proxy[0], 3), 'a proxy cannot be reached any more');
my $id = $caller->query('Find');
ok(!$caller->answer($id, timeout => 0.5), 'what it handles waits');
forwarder_do(1, 'up');
my $req = $handler->recv('REQ');
ok($req, 'until it is reached again');
$handler->respond($req, Evento::Bundle::single('late'));
is($caller->answer($id)->{body}{data}, 'late', 'and is answered');

# What an aggregate was asked over it moves to another instance; what may have done something where it is does not.
my %asked = (Place => $caller->command('Place', 'order-2', '{}', timeout => 60000), Notify => $caller->service_command('Notify', '{}', stream => 'service-2', timeout => 60000));
is(scalar(grep { $handler->recv('REQ', timeout => 30) } keys %asked), 2, 'two commands are with the handler');
my $third = $proxy[2]->bundle(bundle => 'shop', instance => 'third', names => [ 'Place', 'Notify' ]);
ok(wait_enabled('third'), 'there is another instance');
forwarder_do(1, 'down');
my $moved = $third->recv('REQ');
is($moved && $moved->{payloadType}, 'Place', 'what an aggregate was asked over a link that is lost moves to another instance');
$third->respond($moved, Evento::Bundle::domain_response('Placed', '{"by":"third"}')) if $moved;
is($caller->answer($asked{Place})->{class}, 'DomainEventMessage', 'which answers it');
ok(!$caller->recv('RSP', correlation => $asked{Notify}, timeout => 0), 'long before its own counts as gone');
like($caller->answer($asked{Notify}, timeout => 40)->{failure}{message}, qr/it may have run/, 'a service command waits for its own, until that counts as gone');
$third->close;
forwarder_do(1, 'up');
ok(linked($_, 4), "$_->{name} is linked again") for @proxy;
ok($proxy[0]->wait_for(sub { ask($caller, $handler, 'back') eq 'back' }), 'and reached');

forwarder_do(1, 'down');
ok(linked($proxy[0], 3), 'it cannot be reached again');
my $elsewhere = $proxy[2]->bundle(bundle => 'shop', instance => 'elsewhere', names => ['Find']);
ok(wait_enabled('elsewhere'), 'another instance at a third proxy');
is(ask($caller, $elsewhere, 'there'), 'there', 'is asked instead');
$elsewhere->close;
$id = $caller->query('Find', '{}', timeout => 60000);
is($caller->answer($id, timeout => 50)->{failure}{message}, 'no handler for Find', 'a handler that cannot be reached for long counts as gone');
forwarder_do(1, 'up');
ok(linked($proxy[0], 4), 'the link is made again');
ok($proxy[0]->wait_for(sub { ask($caller, $handler, 'again') eq 'again' }), 'and the handler is there again');

# ---- a link that is silent ----

$since{log_from} = -s $proxy[0]{log};
my $start = time;
# So that something has come just now.
is(ask($caller, $handler, 'before'), 'before', 'a link is used');
kill 'STOP', $forward[1]{pid};
ok(scalar $proxy[0]->wait_log_since(\%since, 'to proxy \d+: silent for 3 s'), 'when nothing comes on it, it is given up');
cmp_ok(time - $start, '>', 2, 'not at once');
cmp_ok(time - $start, '<', 30, 'after 3 s');
kill 'CONT', $forward[1]{pid};
ok(linked($_, 4), "$_->{name} is linked again") for @proxy;
is(ask($caller, $handler, 'heard'), 'heard', 'it goes on');

# ---- a proxy that stands still ----

my $number = $test->sql("SELECT proxy_id FROM evento.proxies WHERE name = 'proxy2'");
kill 'STOP', $proxy[1]{pid};
ok($proxy[0]->wait_for(sub { $test->sql("SELECT live FROM evento.proxies WHERE name = 'proxy2'") eq 'f' }), 'a proxy stands still: its registration runs out');
kill 'CONT', $proxy[1]{pid};
ok($proxy[0]->wait_for(sub { $test->sql("SELECT live FROM evento.proxies WHERE name = 'proxy2'") eq 't' }), 'it goes on, and registers again');
isnt($test->sql("SELECT proxy_id FROM evento.proxies WHERE name = 'proxy2'"), $number, 'under a new number');
is($test->sql("SELECT count(*) FROM evento.proxies"), 3, 'the old one is gone');
ok($proxy[0]->wait_for(sub { $test->sql("SELECT count(*) FROM evento.bundles WHERE instance = 'handler' AND proxy = 'proxy2'") == 1 }), 'its bundles are there under the new one');
ok($handler->alive, 'which has kept its connection');
ok(linked($_, 4), "$_->{name} is linked again") for @proxy;
ok($proxy[0]->wait_for(sub { ask($caller, $handler, 'on') eq 'on' }), 'and is asked again');

# ---- the database is away ----

$test->node->stop('immediate');
ok($proxy[0]->wait_for(sub { ($_->get('/readyz'))[0] == 503 }), "$_->{name} has lost the database") for @proxy;
is(ask($caller, $handler, 'without'), 'without', 'queries go on over links');
# Longer than the registrations last: all of them are void when it is back.
sleep 6;
is(ask($caller, $handler, 'still'), 'still', 'and on');
my $moving = $proxy[2]->bundle(bundle => 'web', instance => 'caller', names => ['Local']);
is(ask($moving, $handler, 'from here'), 'from here', 'an instance that moves meanwhile is served where it is');
my ($asked, $answered) = (0, 0);
$test->node->start;
# Nothing is felt while all proxies register again.
$start = time;
while (time - $start < 2.5)
{
	$asked++;
	$answered++ if ask($moving, $handler, "turn $asked") eq "turn $asked";
	sleep 0.02;
}
is($answered, $asked, 'all queries are answered while the proxies register again');
$_->wait_http('/readyz') for @proxy;
ok($proxy[0]->wait_for(sub { $test->sql('SELECT count(*) FROM evento.proxies WHERE live') == 3 }), 'all are registered again');
ok($proxy[0]->wait_for(sub { $test->sql("SELECT count(*), min(proxy) FROM evento.bundles WHERE instance = 'caller'") eq '1|proxy3' }), 'the one that moved is where it is');
ok($caller->wait_closed, 'and was let go where it was');
ok(linked($_, 4), "$_->{name} has its links") for @proxy;
$caller = $moving;

# ---- strangers on the internal port ----

my ($proxy) = @proxy;

sub stranger
{
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $proxy->{internal}, Timeout => 5) or die $@;
	$socket->autoflush(1);
	return $socket;
}

# Everything until the other end closes, or undef where it does not in time.
sub read_to_end
{
	my ($socket, $seconds) = @_;
	my $all = '';
	my $until = time + ($seconds // 40);
	while (1)
	{
		my $left = $until - time;
		return undef if $left <= 0 || !IO::Select->new($socket)->can_read($left);
		my $n = sysread($socket, $all, 65536, length $all);
		return $all if !$n;
	}
}

sub frame { my ($head, $message) = @_; return pack('NN', length $head, length($message // '')) . $head . ($message // '') }

sub read_frame
{
	my ($socket) = @_;
	my $bytes = '';
	while (length $bytes < 8 || length $bytes < 8 + unpack('N', $bytes))
	{
		IO::Select->new($socket)->can_read(40) or return undef;
		sysread($socket, $bytes, 8 + (length $bytes < 8 ? 0 : unpack('N', $bytes)) - length $bytes, length $bytes) or return undef;
	}
	return substr($bytes, 8);
}

for my $case (
	[ "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 'frame too long', 'an HTTP request' ],
	[ "\0" x 4096, 'empty frame', 'zeros' ],
	[ "\xff" x 4096, 'frame too long', 'ones' ],
	[ frame("\x01EVPX\x01" . "\0" x 40), 'not a proxy', 'another protocol' ],
	[ frame("\x01EVPL\x02" . "\0" x 40), 'another version of the protocol between proxies', 'another version' ],
	[ frame("\x01EVPL\x01" . "\0" x 39), 'malformed frame', 'a hello that is too short' ],
	[ frame("\x05"), 'greeting out of order', 'a ping before the greeting' ],
	[ frame("\x03" . "\0" x 32), 'greeting out of order', 'a proof before the hello' ],
	[ frame("\x07" . "\0" x 28 . "\0\x01b\0\x01i", 'REQ'), 'frame too long', 'a call before the greeting' ])
{
	my ($bytes, $reason, $what) = @$case;
	my %from = (log_from => -s $proxy->{log});
	my $socket = stranger();
	my $peer = '127.0.0.1:' . $socket->sockport;
	syswrite($socket, $bytes);
	ok(defined read_to_end($socket), "$what: closed");
	is(scalar $proxy->wait_log_since(\%from, "warning link \Q$peer\E: from proxy 0: $reason\$"), 1, 'with one line in the log');
}

# The proof, with the right secret and with wrong ones.
my $secret = pack('H*', $test->sql(q(SELECT encode(secret, 'hex') FROM evento._secret)));

# Says hello and answers the challenge with this secret; gives the socket and what comes then.
sub greet
{
	my ($key, %opt) = @_;
	my $socket = stranger();
	my $nonce = 'n' x 32;
	syswrite($socket, frame("\x01EVPL\x01$nonce" . pack('Q>', 4711)));
	# One that takes its time is closed.
	my $challenge = read_frame($socket) // return $socket;
	my ($theirs, $id, $mac) = unpack('x a32 a8 a32', $challenge);
	my $text = sub { return pack('a32', "evento link 1: $_[0]") . $nonce . $theirs . pack('Q>', 4711) . $id };
	${ $opt{proven} } = $mac eq hmac_sha256($text->('acceptor'), $secret) if $opt{proven};
	my $role = $opt{role} // 'dialler';
	syswrite($socket, frame("\x03" . ($opt{mac} ? $opt{mac}->($mac) : hmac_sha256($text->($role), $key))));
	return $socket;
}

# This test is a peer that says nothing while it waits, so where it was held up its link may be closed in the middle: then once more.
my ($socket, $proven, $welcome, $ping, $refusal);
for (1 .. 5)
{
	local $SIG{PIPE} = 'IGNORE';
	$socket = greet($secret, proven => \$proven);
	$welcome = read_frame($socket);
	$ping = read_frame($socket);
	syswrite($socket, frame("\x07" . pack('a16 Q> N', 'id', 0, 1000) . "\0\x04none" . "\0\x04none", 'REQ'));
	do { $refusal = read_frame($socket) } while defined $refusal && $refusal eq "\x05";
	last if defined $refusal;
}
ok($proven, 'the proxy proves itself first');
is($welcome, "\x04", 'who knows the secret is welcome');
is($ping, "\x05", 'and pinged');
is($refusal, "\x0b" . pack('a16 Q> C', 'id', 0, 1), 'a call for nobody is refused');
{
	local $SIG{PIPE} = 'IGNORE';
	syswrite($socket, frame("\x0a" . "\0" x 24));
}
ok(defined read_to_end($socket), 'a frame that does not belong there ends it');
for my $case ([ 'x' x 32 ], [ '' ], [ $secret, role => 'acceptor' ], [ $secret, mac => sub { $_[0] } ], [ $secret, mac => sub { "\0" x 32 } ])
{
	my ($key, @how) = @$case;
	my ($end, $why);
	for (1 .. 5)
	{
		local $SIG{PIPE} = 'IGNORE';
		my $from = -s $proxy->{log};
		$socket = greet($key, @how);
		my $peer = '127.0.0.1:' . $socket->sockport;
		$end = read_to_end($socket);
		($why) = map { /warning link \Q$peer\E: from proxy \d+: (.*)/ ? $1 : () } $proxy->wait_log_since({ log_from => $from }, "warning link \Q$peer\E: ");
		last if ($why // '') ne 'no greeting in time';
	}
	is($end, '', 'a proof that is wrong ends it: ' . (join ' ', grep { !ref } @how) . unpack('H*', substr($key, 0, 2)));
	is($why, "it does not know the cluster's secret", 'with a line in the log');
}

# Many that say nothing: bounded in number and in time, and real ones are not kept out.
my @silent = map { stranger() } 1 .. 70;
ok(scalar $proxy->wait_log('too many connections that have proven nothing'), 'only so many may prove nothing');
my $until = time + 40;
is(scalar(grep { defined read_to_end($_, $until - time) } @silent), 70, 'and all are closed in time');
# One byte now and then does not keep one alive.
$socket = stranger();
my $gone = $proxy->wait_for(sub { local $SIG{PIPE} = 'IGNORE'; !defined syswrite($socket, "\0") || IO::Select->new($socket)->can_read(0.3) }, 40);
ok($gone, 'one that sends a byte now and then is closed');

ok(linked($_, 4), "$_->{name} has its links") for @proxy;
is(ask($caller, $handler, 'unmoved'), 'unmoved', 'links are not disturbed');

is(scalar(grep { $_->running } @proxy), 3, 'all three proxies still run');
is($_->stop, 0, "$_->{name} ends") for @proxy;
for my $f (@forward)
{
	close $f->{in};
	waitpid $f->{pid}, 0;
	Evento::ProxyTest::ended($f->{pid});
}

done_testing();
