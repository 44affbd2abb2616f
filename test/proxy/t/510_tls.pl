# 510_tls.pl
#   TLS on the bundle port: certificates of proxy and bundles, what is refused,
#   garbage and silence in the handshake, large messages, slow readers, and new
#   certificates under load.
use strict;
use warnings;

use IO::Socket::INET;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Certs;
use Evento::Cbor;
use Evento::ProxyTest;

my $sim = $ENV{EVENTO_SIM} // __FILE__ =~ s{test/proxy/t/[^/]*$}{build/evento-sim}r;
my $test = Evento::ProxyTest->new;
my $ca = Evento::Certs->new;
my $stranger = Evento::Certs->new(name => 'another CA');
my ($cert, $key) = $ca->cert(cn => 'proxy');
my %files = ('tls-cert' => $cert, 'tls-key' => $key, 'tls-ca' => $ca->ca);

# Whether a hello gets through: WLC, REJ with its reason, or closed.
sub outcome
{
	my ($proxy, $tls, %opt) = @_;
	my $c = $proxy->connection(tls => $tls);
	$c->hello(bundle => 'orders', %opt);
	my $until = time + 60;
	$c->pump(1) while !@{ $c->{queue} } && !$c->{closed} && time < $until;
	my $m = $c->{queue}[0];
	return $m ? $m->{'@t'} eq 'REJ' ? "REJ $m->{reason}" : $m->{'@t'} : $c->{closed} ? 'closed' : 'nothing';
}

# ---- a certificate of the proxy alone ----

my $plain = $test->start(flags => { %files, 'bundle-tls' => 'on', 'hello-timeout' => '1min' });
is(scalar $plain->wait_log('info server: bundles connect to 127.0.0.1 port \d+ with TLS'), 1, 'it says that it speaks TLS');
is(outcome($plain, { ca => $ca->ca }), 'WLC', 'a bundle that trusts the CA');
is(outcome($plain, { ca => $stranger->ca }), 'closed', 'one that trusts another goes away');
is(outcome($plain, { ca => $ca->ca, args => ['-tls1_2'] }), 'WLC', 'TLS 1.2');
is(outcome($plain, { ca => $ca->ca, args => ['-tls1_3'] }), 'WLC', 'TLS 1.3');
is(outcome($plain, { ca => $ca->ca, args => [ '-tls1_1', '-cipher', 'ALL:@SECLEVEL=0' ] }), 'closed', 'nothing older');
is(outcome($plain, undef), 'closed', 'what is clear is closed');
ok(scalar $plain->wait_log('warning session \S+: closed: (wrong version number|http request|unexpected|packet length|bad|record)'), 'with a line in the log');
my $counted = $plain->metric('protocol_errors_total');
cmp_ok($counted, '>', 0, 'and counted');

my $b = $plain->bundle(bundle => 'talks', names => ['EchoQuery'], tls => { ca => $ca->ca });
ok($b->alive, 'a ping is answered');
ok($b->reaches($b, 'EchoQuery'), 'a query comes back');

# Large messages go both ways, byte for byte: several records, several writes.
for my $size (1, 16383, 16384, 16385, 200_000, 15_000_000)
{
	my $text = join '', map { chr(97 + $_ % 26) } 1 .. ($size > 1000 ? 1000 : $size);
	my $body = substr($text x ($size / length($text) + 1), 0, $size);
	my $id = $b->query('EchoQuery', qq({"text":"$body"}), timeout => 120_000);
	my $req = $b->recv('REQ', timeout => 120);
	my $inner = cbor_decode($req->{payload});
	ok(index($inner->[1]{body}[1]{serializedPayload}[1]{serializedObject}, $body) >= 0, "$size bytes come whole");
	$b->respond($req, Evento::Bundle::single([ 'x', map_(text => $body) ]));
	is($b->answer($id, timeout => 120)->{body}{data}[1]{text}, $body, 'and go back whole');
}

# A byte at a time is still TLS: openssl talks through a slow hand.
{
	my $listener = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
	my $relay = fork // die $!;
	if (!$relay)
	{
		my $in = $listener->accept or POSIX::_exit(1);
		my $out = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $plain->{port}) or POSIX::_exit(1);
		$out->setsockopt(6, 1, 1);
		my $select = IO::Select->new($in, $out);
		while (my @ready = $select->can_read)
		{
			for my $from (@ready)
			{
				my $n = sysread $from, my $bytes, 65536;
				POSIX::_exit(0) if !$n;
				my $to = $from == $in ? $out : $in;
				syswrite $to, $_ for $from == $in ? split(//, $bytes) : $bytes;
			}
		}
		POSIX::_exit(0);
	}
	my $slow = Evento::Bundle->connected($listener->sockport, bundle => 'slow', tls => { ca => $ca->ca });
	ok($slow->alive, 'a byte at a time');
	kill 'KILL', $relay;
	waitpid $relay, 0;
}

# ---- garbage and silence ----

my $strict = $test->start(flags => { %files, 'bundle-tls' => 'on', 'hello-timeout' => '3s' });
my $begun = time;
my @silent = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $strict->{port}) } 1 .. 5;
print { $silent[1] } "\x16\x03\x01";
print { $silent[2] } "\x16\x03\x01\x40\x00" . "\x01\x00\x3f\xfc" . "\x03\x03";
for my $s (@silent)
{
	my $left = IO::Select->new($s)->can_read(60) ? sysread($s, my $x, 1) : -1;
	is($left, 0, 'who does not shake hands is closed');
}
cmp_ok(time - $begun, '>=', 2, 'not before hello-timeout');
is($strict->stop, 0, 'it ends in order');
srand 42;
for my $round (1 .. 60)
{
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $plain->{port}) or die $!;
	my $garbage = join '', map { chr int rand 256 } 1 .. 1 + int rand 2000;
	substr($garbage, 0, 3, "\x16\x03\x01") if $round % 2;
	substr($garbage, 3, 2, pack('n', length($garbage) - 5)) if $round % 4 == 1 && length $garbage > 5;
	local $SIG{PIPE} = 'IGNORE';
	syswrite $s, $garbage;
	close $s;
}
ok($b->alive, 'garbage disturbs nobody');

# A reader that stops does not make others wait, nor the proxy grow without end.
my $tight = $test->start(flags => { %files, 'bundle-tls' => 'on', 'output-bytes' => '16MB' });
my $lazy = $tight->bundle(bundle => 'lazy', names => ['LazyQuery'], tls => { ca => $ca->ca });
my $caller = $tight->bundle(bundle => 'caller', names => [], tls => { ca => $ca->ca });
my $big = 'x' x 1_000_000;
$tight->wait_for(sub { $test->sql(q(SELECT count(*) FROM evento.bundles WHERE bundle = 'lazy' AND enabled)) == 1 });
$caller->query('LazyQuery', qq({"text":"$big"}), timeout => 60000) for 1 .. 40;
ok($tight->wait_log('lazy/\S+: closed: output passes output-bytes'), 'one that does not read is closed at its bound');
ok($caller->alive, 'others go on');
is($tight->stop, 0, 'it ends in order');

# ---- certificates of bundles ----

my $good = $ca->client(cn => 'orders');
my $named = $ca->client(cn => 'something', alt => 'DNS:orders,DNS:billing');
my $expired = $ca->client(cn => 'orders', days => -1);
my $foreign = { %{ $stranger->client(cn => 'orders') }, ca => $ca->ca };
my $required = $test->start(flags => { %files, 'bundle-tls' => 'on', 'tls-client-cert' => 'required' });
is(outcome($required, $good), 'WLC', 'required: a good one');
is(outcome($required, { ca => $ca->ca }), 'closed', 'required: none');
ok(scalar $required->wait_log('closed: peer did not return a certificate'), 'with the reason in the log');
is(outcome($required, $expired), 'closed', 'required: one that has expired');
ok(scalar $required->wait_log('closed: certificate has expired'), 'with the reason in the log');
is(outcome($required, $foreign), 'closed', 'required: one of another CA');
ok(scalar $required->wait_log('closed: (self.signed|unable to get local issuer|unable to verify)'), 'with the reason in the log');
is(outcome($required, { %$good, key => $good->{key}, args => ['-tls1_2'] }), 'WLC', 'with TLS 1.2');
is(outcome($required, { ca => $ca->ca, args => ['-tls1_2'] }), 'closed', 'none with TLS 1.2');
my $optional = $test->start(flags => { %files, 'bundle-tls' => 'on', 'tls-client-cert' => 'optional' });
is(outcome($optional, $good), 'WLC', 'optional: a good one');
is(outcome($optional, { ca => $ca->ca }), 'WLC', 'optional: none');
is(outcome($optional, $expired), 'closed', 'optional: one that has expired');

$test->sql(q(SELECT evento.add_access_rule(NULL, '*', 'cert')));
ok($optional->wait_for(sub { outcome($optional, { ca => $ca->ca }) eq 'REJ a client certificate is needed' }), 'cert: none');
is(outcome($optional, $good), 'WLC', 'cert: the common name');
is(outcome($optional, $named), 'WLC', 'cert: a DNS name');
is(outcome($optional, $good, bundle => 'billing'), 'REJ the client certificate is for another name', 'cert: another name');
is(outcome($optional, $named, bundle => 'billing'), 'WLC', 'cert: another DNS name');
is(outcome($optional, $named, bundle => 'something'), 'WLC', 'cert: the common name beside DNS names');
ok($plain->wait_for(sub { outcome($plain, $good) eq 'REJ a client certificate is needed' }), 'cert: where none is asked for there is none');
$test->sql(q(SELECT evento.drop_access_rule(1)));
ok($_->wait_for(sub { outcome($_, { ca => $ca->ca }) eq 'WLC' }), 'without the rule it is not needed') for $optional, $plain;
is($_->stop, 0, 'it ends in order') for $required, $optional;

# ---- new certificates under load ----

$b = $plain->bundle(bundle => 'talks', tls => { ca => $ca->ca });
my @run = ($sim, '--proxies', "127.0.0.1:$plain->{port}", '--tls-ca', $ca->ca, '--callers', 8, '--connections', 4, '--consumers', 1, '--seconds', 8);
my ($out, $err) = ('', '');
my $load = IPC::Run::start(\@run, '<', \'', '>', \$out, '2>', \$err);
ok($plain->wait_for(sub { ($plain->metric('appends_total') // 0) > 20 }), 'the load runs');
for my $round (1 .. 5)
{
	my ($new_cert, $new_key) = $ca->cert(cn => "proxy $round");
	rename $new_cert, $cert or die $!;
	rename $new_key, $key or die $!;
	kill 'HUP', $plain->{pid};
	ok($plain->wait_for(sub { scalar(grep { /certificates were read again/ } split /\n/, $plain->log) == $round }), "certificates are read again, $round");
	my $shown = qx(openssl s_client -connect 127.0.0.1:$plain->{port} -CAfile @{[ $ca->ca ]} </dev/null 2>/dev/null);
	like($shown, qr/subject=CN ?= ?proxy $round$/m, 'and shown to who connects');
}
append_to_file("$key.bad", "no key\n");
rename $key, "$key.good";
rename "$key.bad", $key;
kill 'HUP', $plain->{pid};
is(scalar $plain->wait_log('error tls: certificates stay what they were'), 1, 'files that are of no use are not taken');
is(outcome($plain, { ca => $ca->ca }), 'WLC', 'and those of before stay');
rename "$key.good", $key;
$load->finish;
is($load->result(0), 0, 'the load held all its checks') or diag("$out$err");
is($err, '', 'and lost no connection');
ok($b->alive, 'nor did who was connected before');

# ---- TLS and tokens together ----

$test->sql(q(SELECT evento.add_access_rule(NULL, 'sim-*', 'token')));
my %token = map { ($_ => $test->sql("SELECT evento.create_bundle_token('$_')")) } qw(sim-command sim-query sim-caller sim-consumer);
ok($plain->wait_for(sub { outcome($plain, { ca => $ca->ca }, bundle => 'sim-query') eq 'REJ a token is needed' }), 'the rule is in force');
for my $bundle (sort keys %token)
{
	ok($plain->wait_for(sub { outcome($plain, { ca => $ca->ca }, bundle => $bundle, token => $token{$bundle}) eq 'WLC' }), "the token of $bundle is known");
}
my $ok = IPC::Run::run([ $sim, '--proxies', "127.0.0.1:$plain->{port}", '--tls-ca', $ca->ca, '--callers', 4, '--consumers', 1, '--count', 100, map { ('--token', "$_=$token{$_}") } sort keys %token ],
	'<', \'', '>', \$out, '2>', \$err, IPC::Run::timeout(150));
ok($ok, 'a load of bundles with tokens') or diag("$out$err");
is($plain->stop, 0, 'it ends in order');

# ---- settings that make no sense ----

my $database = $test->node->connstr('postgres') . ' user=proxy';
for my $case (
	[ [ '--bundle-tls', 'on' ], 'TLS needs --tls-cert and --tls-key' ],
	[ [ '--bundle-tls', 'maybe' ], '--bundle-tls must be off or on, not "maybe"' ],
	[ [ '--tls-client-cert', 'x' ], '--tls-client-cert must be none, optional or required, not "x"' ],
	[ [ '--tls-min-version', '1.1' ], '--tls-min-version must be 1.2 or 1.3, not "1.1"' ],
	[ [ '--bundle-tls', 'on', '--internal-tls', 'off', '--tls-cert', $cert, '--tls-key', $key, '--tls-client-cert', 'required' ], '--tls-client-cert needs --tls-ca' ],
	[ [ '--tls-cert', $cert, '--tls-key', $key ], '--internal-tls needs --tls-ca' ],
	[ [ '--bundle-tls', 'on', '--tls-cert', '/nowhere', '--tls-key', $key, '--tls-ca', $ca->ca ], '--tls-cert /nowhere' ],
	[ [ '--bundle-tls', 'on', '--tls-cert', $cert, '--tls-key', $good->{key}, '--tls-ca', $ca->ca ], 'key values mismatch' ],
	[ [ '--http-tls', 'on', '--internal-tls', 'off', '--tls-cert', $cert, '--tls-key', $good->{key} ], 'key values mismatch' ])
{
	my ($status, undef, $said) = Evento::ProxyTest::run_program('--database', $database, @{ $case->[0] });
	is($status, 1, "refused: @{ $case->[0] }[0, 1]");
	like($said, qr/\Q$case->[1]\E/, 'with the reason');
}
done_testing();
