# The library's lower-level client speaks TLS and sends a token; unmodified applications stand behind proxies as sidecars.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib", "$FindBin::RealBin/../../lib";
use Evento::Certs;
use Interop;
use PostgreSQL::Test::Utils;
use Test::More;

my $t = Interop->new;
$t->start_postgres;
my $ca = Evento::Certs->new;
my $stranger = Evento::Certs->new(name => 'another CA');

sub files
{
	my ($cert, $key) = $ca->cert;
	return ('tls-cert' => $cert, 'tls-key' => $key, 'tls-ca' => $ca->ca);
}

# ---- sidecars: clear to their application, TLS to everything else ----

my @sidecars = map { $t->add_proxy("sidecar$_", files()) } 1 .. 3;
$t->start_bundle('command', $sidecars[0]);
$t->start_bundle('query', $sidecars[1]);
$t->start_bundle('process', $sidecars[1]);
$t->await_bundles;
$t->play('basic', $sidecars[2], 'basic');
$t->check_log('basic');
$t->check_handled_once('basic');

# ---- the lower-level client ----

my $proxy = $t->add_proxy('secure', files(), 'bundle-tls' => 'on', 'tls-client-cert' => 'optional');

my $child = $t->java('client', 'client', '--host', '127.0.0.1', '--port', $proxy->{bundle});
my $asked = 0;

# What the client says when it has tried with these.
sub client
{
	my (@options) = @_;
	my @said;
	print { $child->{in} } "@options\n";
	$asked++;
	$t->await(sub { !$t->running($child) || (@said = slurp_file($child->{out}) =~ /^((?:END|FAILED|REFUSED).*)\n/mg) >= $asked });
	@said >= $asked or $t->give_up($child, 'does not answer');
	return $said[ $asked - 1 ];
}

my @tls = ('--bundle', 'reports', '--ca', $ca->ca);
my $end = 'END ' . $t->sql('SELECT max(position) FROM evento.events');
is(client(@tls), $end, 'TLS');
like(client('--bundle', 'reports', '--ca', $stranger->ca), qr/^REFUSED/, 'a proxy of another CA is not spoken to');
like(client('--bundle', 'reports'), qr/^REFUSED/, 'nor does one with TLS speak without');

$t->sql(q(SELECT evento.add_access_rule('127.0.0.1', 'reports', 'token'), evento.add_access_rule('127.0.0.1', 'certain', 'cert'), evento.add_access_rule(NULL, 'interop-*', 'trust')));
my $token = $t->sql(q(SELECT evento.create_bundle_token('reports')));
my $limited = $t->sql(q(SELECT evento.create_bundle_token('reports', may_send => '{Report*}')));
my %file = (good => $token, limited => $limited, wrong => "$token!");
for my $name (keys %file)
{
	append_to_file("$t->{dir}/$name", "$file{$name}\n");
	$file{$name} = "$t->{dir}/$name";
}
is(client(@tls, '--token-file', $file{good}), $end, 'a token');
like(client(@tls), qr/^REFUSED/, 'none');
like(client(@tls, '--token-file', $file{wrong}), qr/^REFUSED/, 'a wrong one');
like(client(@tls, '--token-file', $file{limited}), qr/^FAILED .*the token of this bundle does not allow it to send EventLastSequenceNumberRequest/, 'one with limits');
my ($cert, $key) = $ca->cert(cn => 'certain');
my @certain = ('--bundle', 'certain', '--ca', $ca->ca);
is(client(@certain, '--cert', $cert, '--key', $key), $end, 'a certificate');
like(client(@certain), qr/^REFUSED/, 'none');
like(client('--bundle', 'reports', '--ca', $ca->ca, '--cert', $cert, '--key', $key), qr/^REFUSED/, 'that of another bundle');

is($t->sql(q(SELECT count(*) FROM evento.bundles WHERE bundle LIKE 'interop-%' AND enabled)), 3, 'the applications are connected all the while');
close $child->{in};
$t->proxies_run;
done_testing();
