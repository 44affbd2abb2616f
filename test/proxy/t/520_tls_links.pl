# 520_tls_links.pl
#   TLS between proxies and over HTTP: who has no certificate of the CA, or only
#   stands in between, does not get in; certificates are renewed while links
#   stand.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use Test::More;
use Time::HiRes qw(sleep);

use Evento::Bundle;
use Evento::Certs;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $ca = Evento::Certs->new;
my $stranger = Evento::Certs->new(name => 'another CA');

sub files
{
	my (%opt) = @_;
	my $from = $opt{from} // $ca;
	my ($cert, $key) = $from->cert(cn => 'proxy', days => $opt{days} // 30);
	return ('tls-cert' => $cert, 'tls-key' => $key, 'tls-ca' => $ca->ca);
}

# ---- a sidecar: clear on loopback, TLS to everything else ----

my %files = files();
my $a = $test->start(flags => {%files});
my $b = $test->start(flags => { files(), 'http-tls' => 'on' });
my $caller = $a->bundle(bundle => 'caller');
my $handler = $b->bundle(bundle => 'handler', names => [ 'Probe', 'BigQuery' ]);
ok($caller->reaches($handler), 'a query crosses a link with TLS, from and to bundles without');
ok($a->wait_for(sub { $a->metric('links') == 2 }), 'one each way');
my $big = 'x' x 15_000_000;
my $id = $caller->query('BigQuery', qq({"text":"$big"}), timeout => 120_000);
my $req = $handler->recv('REQ', timeout => 120);
ok(index($req->{payload}, $big) > 0, 'a long one, too');
$handler->respond($req, Evento::Bundle::single($big));
is($caller->answer($id, timeout => 120)->{body}{data}, $big, 'and its answer');

# ---- HTTP ----

is(($b->get('/healthz'))[1], "ok\n", 'HTTP with TLS');
is(($b->get('/nothing'))[0], 404, 'with its errors');
my $clear = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $b->{http});
syswrite $clear, "GET /healthz HTTP/1.0\r\n\r\n";
my $said = do { local $/; <$clear> } // '';
unlike($said, qr/ok/, 'and not without');
like(qx(openssl s_client -tls1_1 -cipher ALL:\@SECLEVEL=0 -connect 127.0.0.1:$b->{http} </dev/null 2>&1), qr/alert|error/i, 'nor with TLS 1.1');

# ---- renewed ----

for my $proxy ($a, $b)
{
	my ($cert, $key) = $ca->cert(cn => 'renewed');
	rename $cert, $proxy->{flags}{'tls-cert'} or die $!;
	rename $key, $proxy->{flags}{'tls-key'} or die $!;
	kill 'HUP', $proxy->{pid};
	ok($proxy->wait_log('certificates were read again'), 'certificates are read again');
}
ok($caller->reaches($handler), 'links go on');
ok($a->wait_for(sub { $a->metric('links') == 2 }), 'as many');
like(qx(openssl s_client -connect 127.0.0.1:$b->{http} </dev/null 2>/dev/null), qr/subject=CN ?= ?renewed$/m, 'HTTP shows the new one');
my $c = $test->start(flags => { files() });
my $far = $c->bundle(bundle => 'far', names => ['FarProbe']);
ok($caller->reaches($far, 'FarProbe'), 'and proxies that come later');
is($c->stop, 0, 'it ends in order');

# ---- who does not get in ----

for my $case (
	[ 'of another CA', { files(from => $stranger) }, 'unable to get local issuer|self.signed|unable to verify' ],
	[ 'that has expired', { files(days => -1) }, 'certificate has expired' ],
	[ 'with no certificate, in the clear', {}, 'wrong version number|unexpected|bad|packet length|record' ])
{
	my ($what, $flags, $reason) = @$case;
	my $proxy = $test->start(flags => $flags);
	ok($a->wait_log("warning link \\S+:$proxy->{internal}: to proxy \\d+: "), "no link to a proxy $what");
	my $no = $test->sql("SELECT proxy_id FROM evento.proxies WHERE name = '$proxy->{name}'");
	is(scalar grep({ /connected to proxy $no$|connection from proxy $no$/m } $a->log), 0, 'at no time');
	ok($a->wait_for(sub { grep { /warning link \S+: from proxy \d+: .*($reason)/i } split /\n/, $a->log }), 'nor from it');
	is($proxy->stop, 0, 'it ends in order');
}

# Whoever has some certificate of the CA, a bundle's say, and stands in between reads nothing: the proofs are bound to the connection.
{
	my ($cert, $key) = $ca->cert(cn => 'orders');
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $proxy = $test->start(flags => { files(), 'internal-advertised' => "127.0.0.1:$port" });
	my $between = fork // die $!;
	if (!$between)
	{
		setpgrp;
		my @ends = ('-CAfile', $ca->ca, '-cert', $cert, '-key', $key, '-quiet');
		# Again, where neither proxy has come before the other end was given up.
		while (1)
		{
			socketpair(my $x, my $y, Socket::AF_UNIX, Socket::SOCK_STREAM, Socket::PF_UNSPEC) or POSIX::_exit(1);
			for my $end ([ $x, 's_server', '-accept', $port, '-naccept', 1, '-Verify', 1 ], [ $y, 's_client', '-connect', "127.0.0.1:$proxy->{internal}", '-nocommands' ])
			{
				my ($socket, @args) = @$end;
				next if fork;
				open(STDIN, '<&', $socket) or POSIX::_exit(1);
				open(STDOUT, '>&', $socket) or POSIX::_exit(1);
				open(STDERR, '>', '/dev/null') or POSIX::_exit(1);
				exec 'openssl', @args, @ends or POSIX::_exit(1);
			}
			close $_ for $x, $y;
			1 while wait > 0;
		}
	}
	ok($a->wait_for(sub { grep { / link 127\.0\.0\.1:$port: to proxy \d+: it does not know the cluster's secret/ } map { split /\n/, $_->log } $a, $b }),
		'who stands in between is found out');
	kill 'KILL', -$between;
	waitpid $between, 0;
	is($proxy->stop, 0, 'it ends in order');
}

my $none = Evento::Bundle->new($a->{internal}, tls => { ca => $ca->ca });
ok($none->wait_closed, 'the internal port wants a certificate');
my $some = Evento::Bundle->new($a->{internal}, tls => $ca->client(cn => 'orders'));
$some->hello(bundle => 'orders');
ok($some->wait_closed, 'and who has one still has to prove to be a proxy');
my ($some_cert, $some_key) = $ca->cert(cn => 'orders');
my $shake = "openssl s_client -connect 127.0.0.1:$a->{internal} -cert $some_cert -key $some_key </dev/null 2>&1";
like(qx($shake), qr/TLSv1\.3/, 'proxies speak TLS 1.3');
like(qx(echo | $shake -tls1_2), qr/alert protocol version/i, 'and nothing older, whose connections can be made to look like one another');
my $silent = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $a->{internal});
ok(IO::Select->new($silent)->can_read(60), 'who says nothing is closed');
is(sysread($silent, my $x, 1), 0, 'without a word');

ok($caller->reaches($handler), 'none of it disturbed the links');
is($_->stop, 0, 'ends in order') for $a, $b;
done_testing();
