# 001_start.pl
#   Flags, files, ports that are taken, health, and an orderly end.
use strict;
use warnings;

use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Evento::ProxyTest;

sub free_port { return PostgreSQL::Test::Cluster::get_free_port() }

# ---- flags and files ----

my ($status, $out, $err) = Evento::ProxyTest::run_program('--help');
is($status, 0, '--help succeeds');
is($err, '', '--help writes no errors');
for my $setting (
	'--database', '--bundle-address (default: 0.0.0.0)', '--bundle-port (default: 3030)', '--internal-port (default: 3031)',
	'--http-port (default: 3032)', '--advertised', '--log-level (default: info)', '--hello-timeout (default: 10s)', '--config FILE')
{
	like($out, qr/^\s+\Q$setting\E/m, "--help shows $setting");
}
($status, $out) = Evento::ProxyTest::run_program('--version');
is($status, 0, '--version succeeds');
like($out, qr/^evento-proxy \d+\.\d+\.\d+$/, '--version gives the version');

($status, $out, $err) = Evento::ProxyTest::run_program('--bundle-port', 'many');
is($status, 1, 'a bad value ends it');
is($err, qq(evento-proxy: --bundle-port must be a whole number, not "many"\n), 'and the error names the flag');

my $ini = "$PostgreSQL::Test::Utils::tmp_check/proxy.ini";
append_to_file($ini, "name = p\nlog-level = shouting\n");
($status, $out, $err) = Evento::ProxyTest::run_program('--config', $ini);
is($status, 1, 'a bad file ends it');
is($err, qq(evento-proxy: $ini line 2: log-level must be error, warning, info or debug, not "shouting"\n), 'and the error names file and line');

my $sample = __FILE__ =~ s{test/proxy/t/[^/]+$}{proxy/evento-proxy.ini}r;
($status, $out, $err) = Evento::ProxyTest::run_program('--config', $sample, '--log-level', 'shouting');
is($err, qq(evento-proxy: --log-level must be error, warning, info or debug, not "shouting"\n), 'the sample file has no mistake before the flag');

# ---- ports ----

for my $setting ('bundle', 'internal', 'http')
{
	my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 1) or die $@;
	my %port = (bundle => free_port(), internal => free_port(), http => free_port(), $setting => $taken->sockport);
	my $start = time;
	($status, $out, $err) = Evento::ProxyTest::run_program('--database', 'host=/nonexistent', '--bundle-address', '127.0.0.1', map { ("--$_-port", $port{$_}) } keys %port);
	is($status, 1, "a $setting port that is taken ends it");
	like($err, qr/error \S+: .*$port{$setting}.*Address already in use.*--$setting-port/, 'with an error that names port and flag');
	cmp_ok(time - $start, '<', 60, 'and does not wait for the database');
}

# ---- health ----

my $test = Evento::ProxyTest->new;
my $proxy = $test->start(flags => { advertised => 'proxy.example:3030', 'drain-time' => '1min' });
is_deeply([ $proxy->get('/healthz') ], [ 200, "ok\n" ], '/healthz');
is_deeply([ $proxy->get('/readyz') ], [ 200, "ready\n" ], '/readyz');
is(($proxy->get('/nothing'))[0], 404, 'another path is not found');
is(($proxy->get('/metrics', 'POST'))[0], 405, 'another method is refused');
my ($code, $metrics) = $proxy->get('/metrics');
is($code, 200, '/metrics');
like($metrics, qr/^# TYPE evento_proxy_sessions gauge\nevento_proxy_sessions 0$/m, 'has metrics with their types');
is($proxy->metric('db_up'), 1, 'the database is up');
is($test->sql(q(SELECT name, advertised, live FROM evento.proxies)), 'proxy1|proxy.example:3030|t', 'the proxy shows in the view proxies');

# ---- the end ----

my $bundle = $proxy->bundle(bundle => 'b', names => ['Something']);
ok($bundle->alive, 'a bundle is connected');
my $number = $proxy->number;
my $start = time;
is($proxy->stop('TERM'), 0, 'SIGTERM ends it with status 0');
cmp_ok(time - $start, '<', 45, 'before drain-time is over');
ok($bundle->wait_closed, 'its bundles are let go');
ok($proxy->has_left($number), 'it has left the cluster, with its bundles');

$proxy->run;
$proxy->wait_http('/readyz');
is($proxy->stop('INT'), 0, 'it starts again on its ports, and SIGINT ends it with status 0');

# Without a database it serves, says that it is not ready, and still ends in time.
$test->node->stop('fast');
$proxy->run;
$proxy->wait_http('/healthz');
is_deeply([ $proxy->get('/readyz') ], [ 503, "the database is not reachable\n" ], '/readyz without a database');
$start = time;
is($proxy->stop('TERM'), 0, 'SIGTERM ends it without a database');
cmp_ok(time - $start, '<', 45, 'before drain-time is over');
$test->node->start;

done_testing();
