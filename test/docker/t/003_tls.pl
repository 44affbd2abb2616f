# docker/compose-tls.yaml behind compose.yaml: bundles and HTTP speak TLS with the
# certificate that was given, at each proxy and through HAProxy, and nothing is
# taken in the clear.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use FindBin;
use Test::More;

use Evento::Certs;
use Evento::Compose;

my $top = abs_path("$FindBin::RealBin/../../..");
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
my $c = Evento::Compose->new(top => $top, file => 'compose.yaml', more => ['compose-tls.yaml'], project => 'evento-tls');

# What a port answers over TLS that is checked against the CA.
sub over_tls
{
	my ($port, $text) = @_;
	my $out = '';
	IPC::Run::run([ 'timeout', '10', 'openssl', 's_client', '-quiet', '-verify_return_error', '-verify_hostname', 'localhost', '-CAfile', $certs->ca, '-connect', "127.0.0.1:$port" ],
		'<', \$text, '>', \$out, '2>', \my $err);
	return $out;
}

sub get { return "GET $_[0] HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" }

$c->up;
$c->wait_healthy('compose says that everything is healthy') or die "it is not up\n";
for my $port (3032, 3132, 3232, 3332)
{
	like(over_tls($port, get('/cluster')), qr{^HTTP/1.1 200 .*"proxies":}s, "port $port: HTTP over TLS");
	isnt($c->request('GET', $port, '/healthz')->{status}, 200, 'and not in the clear');
}
# Whether the server at an address shows a certificate of the CA.
sub shows_certificate
{
	my ($at) = @_;
	my $out = '';
	IPC::Run::run([ 'timeout', '10', 'openssl', 's_client', '-verify_return_error', '-CAfile', $certs->ca, '-cert', $cert, '-key', $key, '-connect', $at ],
		'<', \'', '>', \$out, '2>', \my $err);
	return $out =~ /^Verify return code: 0 \(ok\)|Verification: OK/m;
}
ok(shows_certificate("127.0.0.1:$_"), "port $_: bundles over TLS") for 3030, 3130;
my $address = $c->inspect('proxy1')->{NetworkSettings}{Networks}{'evento-tls_default'}{IPAddress};
ok(shows_certificate("$address:3031"), 'and proxies among each other');
for my $port (3132, 3232, 3332)
{
	is(() = over_tls($port, get('/cluster')) =~ /"live"\s*:\s*true/g, 3, "port $port: all three are live");
}

is($c->down, '', 'behind "down -v" nothing is left');
done_testing();
