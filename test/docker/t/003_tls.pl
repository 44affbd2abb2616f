# docker/compose-tls.yaml behind each of the other files, up with the command that
# docs/cluster.md gives: bundles and HTTP speak TLS with the certificate that was
# given, at each proxy and through HAProxy, and so do proxies among each other, on
# the internal network where there is one; nothing is taken in the clear; HAProxy
# still finds its servers.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use Evento::Bundle;
use Evento::Certs;
use Evento::Compose;

my $top = abs_path("$FindBin::RealBin/../../..");
my $page = Evento::Compose::slurp("$top/docs/cluster.md");
my $certs = Evento::Certs->new;
my ($cert, $key) = $certs->cert(cn => 'proxies', alt => 'DNS:localhost,DNS:proxies,IP:127.0.0.1');
my $dir = tempdir('evento-tls.XXXXXX', TMPDIR => 1, CLEANUP => 1);
my %from = ('proxy.crt' => $cert, 'proxy.key' => $key, 'ca.crt' => $certs->ca);
for my $name (keys %from)
{
	system('cp', $from{$name}, "$dir/$name") == 0 or die "cp: $?\n";
	chown 10001, 10001, "$dir/$name";
	chmod 0400, "$dir/$name";
}
chmod 0755, $dir;
$ENV{EVENTO_TLS} = $dir;
my @http = (3032, 3132, 3232, 3332);
my @bundles = (3030, 3130, 3230, 3330);
my $event = '11111111-1111-4111-8111-111111111111';

# What openssl's s_client gets and says at an address, where it checks the
# certificate against the CA.
sub s_client
{
	my ($at, $text, @args) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'timeout', '60', 'openssl', 's_client', '-verify_return_error', '-CAfile', $certs->ca, '-connect', $at, @args ], '<', \$text, '>', \$out, '2>', \$err);
	return $out;
}

# What a port answers to a request over HTTP with TLS.  Tests wait for it (answers),
# since a proxy may just have lost its database for a moment on a busy machine.
sub over_tls
{
	my ($c, $port, $what, $body, %headers) = @_;
	%headers = (Host => 'localhost', Connection => 'close', %headers);
	$headers{Authorization} = "Bearer $c->{token}" if $c->{token};
	@headers{ 'Content-Type', 'Content-Length' } = ('application/json', length $body) if defined $body;
	my $text = join "\r\n", "$what HTTP/1.1", (map { "$_: $headers{$_}" } sort keys %headers), '', $body // '';
	return s_client("127.0.0.1:$port", $text, '-quiet', '-verify_hostname', 'localhost');
}

sub answers
{
	my ($what, $right, @request) = @_;
	my $answer = '';
	ok(Evento::Compose::until_true(120, sub { ($answer = over_tls(@request)) =~ $right }), $what) or diag($answer);
	return;
}

# Whether a port closes the connection of a bundle that speaks in the clear, and says nothing before.
sub refuses_clear
{
	my ($host, $port) = @_;
	my $bundle = Evento::Bundle->new($port, host => $host);
	$bundle->hello(bundle => 'clear');
	return $bundle->wait_closed && !@{ $bundle->{queue} };
}

sub speaks_tls
{
	my ($c, $network) = @_;
	my $file = $c->{file};

	# ---- HTTP ----

	for my $port (@http)
	{
		answers("$file: port $port: HTTP over TLS, and all three proxies are live", qr{^HTTP/1.1 200 .*"proxies":(?:.*"live"\s*:\s*true){3}}s, $c, $port, 'GET /cluster');
		isnt($c->request('GET', $port, '/healthz')->{status}, 200, 'nothing in the clear');
	}
	answers('an event is appended through HAProxy', qr{^HTTP/1.1 20[01] }, $c, 3032, 'POST /streams/order-1', '{"type":"Counted","data":{}}', 'Evento-Event-Id' => $event);
	answers("and read at port $_", qr{^HTTP/1.1 200 .*\Q$event}s, $c, $_, 'GET /streams/order-1', undef, 'Evento-Stream-Version' => 1) for @http[ 1 .. 3 ];

	# ---- bundles ----

	my %tls = (tls => { ca => $certs->ca, args => [ '-verify_hostname', 'localhost' ] });
	# HAProxy may take a proxy for gone for a moment on a busy machine.
	my $bundle = sub {
		my @how = (@_, %tls);
		return Evento::Compose::until_true(120, sub { eval { Evento::Bundle->connected(@how) } }) || die "no bundle is let in: $@";
	};
	my $handler = $bundle->(3230, bundle => 'handler', names => ['Probe']);
	my $caller = $bundle->(3130, bundle => 'caller');
	ok($caller->reaches($handler), "$file: with TLS a bundle at proxy 1 reaches a handler at proxy 2");
	ok($bundle->(3030, bundle => 'balanced')->reaches($handler), 'and so does one behind HAProxy');
	ok(refuses_clear('127.0.0.1', $_), "port $_: no bundle in the clear") for @bundles;

	# ---- proxies among each other ----

	my $address = $c->inspect('proxy2')->{NetworkSettings}{Networks}{"$c->{project}_$network"}{IPAddress};
	# Without a handshake s_client says that verification was OK.
	my $said;
	Evento::Compose::until_true(120, sub { ($said = s_client("$address:3031", '', '-cert', $cert, '-key', $key)) =~ /^New, TLS/m });
	like($said, qr/^subject=CN ?= ?proxies\n.*^New, TLSv1\.3, Cipher is /ms, "$file: proxies speak TLS among each other, on the network \"$network\"");
	ok(refuses_clear($address, 3031), 'and nothing else');
	answers("port $_: it has links to and from both others", qr/^evento_proxy_links(?:\{\})? 4\b/m, $c, $_, 'GET /metrics') for @http[ 1 .. 3 ];
	return;
}

sub up
{
	my ($file, $project) = @_;
	like($page, qr/^    EVENTO_TLS=\S+ docker-compose -p \S+ -f docker\/\Q$file\E -f docker\/compose-tls.yaml up -d$/m, "$file: the command is documented");
	my $c = Evento::Compose->new(top => $top, file => $file, more => ['compose-tls.yaml'], project => $project);
	$c->up;
	$c->wait_healthy("$file: compose says that everything is healthy") or die "it is not up\n";
	return $c;
}

# ---- one machine ----

my $single = up('compose.yaml', 'evento-tls');
speaks_tls($single, 'default');
is($single->down, '', 'behind "down -v" nothing is left');

# ---- two networks ----

my $ha = up('compose-ha.yaml', 'evento-ha-tls');
answers('without a token nothing is told', qr{^HTTP/1.1 401 }, $ha, 3032, 'GET /cluster');
$ha->make_token('postgres1');
speaks_tls($ha, 'internal');
for my $case ([ 5432, 'f', 'the primary' ], [ 5433, 't', 'a standby' ])
{
	my ($port, $recovers, $what) = @$case;
	ok(Evento::Compose::until_true(120, sub { $ha->balanced_sql('postgres1', $port, 'SELECT pg_is_in_recovery()') eq $recovers }), "SQL through HAProxy still leads to $what");
}
is($ha->down, '', 'behind "down -v" nothing is left');
done_testing();
