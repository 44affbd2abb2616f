# 560_database_tls.pl
#   TLS to PostgreSQL, as libpq's sslmode says: whose certificate is taken, one
#   of the proxy's own, a server that wants it or has none, and all that goes
#   over such connections.
use strict;
use warnings;

use File::Copy qw(copy);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use Evento::Bundle;
use Evento::Certs;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new(conf => "listen_addresses = '127.0.0.1'\n");
my $node = $test->node;
my $ca = Evento::Certs->new;
my $stranger = Evento::Certs->new(name => 'another CA');

# The certificate of the server, from its next start on.
sub serve
{
	my ($cert, $key) = @_;
	for my $case ([ $cert, 'server.crt' ], [ $key, 'server.key' ], [ $ca->ca, 'root.crt' ])
	{
		my $file = $node->data_dir . "/$case->[1]";
		unlink $file;
		copy($case->[0], $file) or die "$file: $!";
		chmod 0600, $file;
	}
	return;
}

# Who may come over TCP.
my $hba = slurp_file($node->data_dir . '/pg_hba.conf');

sub admit
{
	my ($line) = @_;
	my $file = $node->data_dir . '/pg_hba.conf';
	unlink $file;
	append_to_file($file, "$line\n" . join '', map { "$_\n" } grep { !/^host/ } split /\n/, $hba);
	# Not by a signal, of which nobody says when it was heeded.
	$node->restart;
	return;
}

serve($ca->cert(cn => 'localhost', alt => 'DNS:localhost'));
$node->append_conf('postgresql.conf', "ssl = on\nssl_ca_file = 'root.crt'\n");
admit('hostssl all proxy 127.0.0.1/32 trust');

sub target
{
	my (%more) = @_;
	my %all = (host => 'localhost', port => $node->port, dbname => 'postgres', user => 'proxy', %more);
	return join ' ', map { "$_=$all{$_}" } sort keys %all;
}

# Whether a proxy reaches the database, and otherwise that its log says why.
sub reaches
{
	my ($what, $expected, %more) = @_;
	my $proxy = $test->start(flags => { database => target(%more) }, wait => 0);
	if (!defined $expected)
	{
		$proxy->wait_http('/readyz');
		pass("$what: it reaches the database");
	}
	else
	{
		ok(scalar $proxy->wait_log($expected), "$what: it does not, and says why") or diag($proxy->log);
		is(($proxy->get('/readyz'))[0], 503, 'nor is it ready');
	}
	return $proxy->stop;
}

# ---- all that goes over it ----

my $proxy = $test->start(flags => { database => target(sslmode => 'verify-full', sslrootcert => $ca->ca) });
my $sessions = q(SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'evento-proxy/%');
like($test->sql($sessions), qr/^[1-9]\d*\|0$/, 'verify-full: all its connections have TLS');
my $handler = $proxy->bundle(bundle => 'orders', names => [qw(Change Probe)]);
my $caller = $proxy->bundle(bundle => 'caller');
$caller->reaches($handler);

sub change
{
	my ($stream, $json) = @_;
	my $id = $caller->command('Change', $stream);
	my $req = $handler->recv('REQ') or return;
	$handler->respond($req, Evento::Bundle::domain_response('Changed', $json));
	return $caller->answer($id, timeout => 60);
}

for my $size (10, 8_192, 16_384, 100_000, 5_000_000)
{
	my $json = '{"x":"' . 'x' x $size . '"}';
	is((change("size-$size", $json) // {})->{class}, 'DomainEventMessage', "an event of $size bytes is stored");
	is($test->sql("SELECT data::text = '$json' FROM evento.read_stream('size-$size')"), 't', 'whole') if $size < 100_000;
	is($test->sql("SELECT length(data::text) FROM evento.read_stream('size-$size')"), length $json, 'in its length');
}
my @ids = map { $caller->command('Change', "many-$_") } 1 .. 200;
my @reqs = map { $handler->recv('REQ') } @ids;
$handler->respond($_, Evento::Bundle::domain_response('Changed', '{}')) for @reqs;
is(scalar(grep { ($caller->answer($_) // {})->{class} eq 'DomainEventMessage' } @ids), 200, 'two hundred at once');
$test->sql('CALL evento.wait(NULL)');
my $events = $caller->answer($caller->fetch(0), timeout => 60)->{body}{events}[1];
is(scalar(@$events), $test->sql('SELECT count(*) FROM evento.events'), 'a consumer reads all of it');
my $held = $caller->fetch($test->sql('SELECT max(position) FROM evento.events'));
ok(!$caller->recv('RSP', timeout => 0.3), 'waits at the head');
$test->sql(q(SELECT evento.append('fresh', 'Fresh', '{}')));
is($caller->answer($held)->{body}{events}[1][0][1]{eventName}, 'Fresh', 'and gets the next one');
my $connects = $proxy->metric('db_connects_total');
my $count = $test->sql(q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%'));
ok($proxy->wait_for(sub { $proxy->metric('db_connects_total') >= $connects + $count }), 'connections that are lost are made again');
is((change('again', '{}') // {})->{class}, 'DomainEventMessage', 'and serve');
like($test->sql($sessions), qr/^[1-9]\d*\|0$/, 'with TLS');
is($proxy->stop, 0, 'it ends in order');

# ---- whose certificate ----

reaches('verify-full, another CA', qr/certificate verify failed/, sslmode => 'verify-full', sslrootcert => $stranger->ca);
reaches('require', undef, sslmode => 'require');
reaches('without TLS, where the server wants it', qr/no pg_hba\.conf entry .* no encryption/, sslmode => 'disable');
serve($ca->cert(cn => 'elsewhere', alt => 'DNS:elsewhere'));
$node->restart;
reaches('verify-full, a certificate of another name', qr/does not match host name "localhost"/, sslmode => 'verify-full', sslrootcert => $ca->ca);
reaches('verify-ca, a certificate of another name', undef, sslmode => 'verify-ca', sslrootcert => $ca->ca);

# ---- one of the proxy's own ----

serve($ca->cert(cn => 'localhost', alt => 'DNS:localhost'));
admit('hostssl all proxy 127.0.0.1/32 cert');
my %verify = (sslmode => 'verify-full', sslrootcert => $ca->ca);
my ($cert, $key) = $ca->cert(cn => 'proxy');
chmod 0600, $key;
reaches('a certificate of the proxy', undef, %verify, sslcert => $cert, sslkey => $key);
reaches('none', qr/requires a valid client certificate/, %verify);

# ---- a server that refuses TLS, and one that has none ----

# libpq tries the other way then, over a new connection.
admit('hostnossl all proxy 127.0.0.1/32 trust');
reaches('prefer, where the server wants none', undef, sslmode => 'prefer');
admit('hostssl all proxy 127.0.0.1/32 trust');
reaches('allow, where the server wants it', undef, sslmode => 'allow');
$node->append_conf('postgresql.conf', "ssl = off\n");
admit('host all proxy 127.0.0.1/32 trust');
reaches('prefer, where the server has none', undef, sslmode => 'prefer');
reaches('require, where the server has none', qr/server does not support SSL/, sslmode => 'require');

done_testing();
