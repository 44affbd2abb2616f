# 406_drain_balanced.pl
#   Many bundles through HAProxy, in TCP mode, in the clear and with TLS: each of
#   three proxies is told to stop and started again under load, and no request
#   fails for it.  Nor does one over HTTP that takes longer than HAProxy needs to
#   see that its proxy drains.
use strict;
use warnings;

use IO::Select;
use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Balancer;
use Evento::Certs;
use Evento::Http;
use Evento::ProxyTest;

my $why = Evento::Balancer::why_not();
plan skip_all => $why if $why;

my $sim = $ENV{EVENTO_SIM} // __FILE__ =~ s{test/proxy/t/[^/]+$}{build/evento-sim}r;
my $test = Evento::ProxyTest->new(conf => "max_connections = 100\n");
my $ca = Evento::Certs->new;
my ($cert, $key) = $ca->cert(cn => 'proxy');
my %tls = ('tls-cert' => $cert, 'tls-key' => $key, 'tls-ca' => $ca->ca, 'bundle-tls' => 'on', 'internal-tls' => 'on');

use constant { HANDLERS => 20, CONNECTIONS => 150 };

for my $with (0, 1)
{
	my $how = $with ? 'TLS' : 'clear';
	my @proxy = map { $test->start(flags => { 'drain-time' => '2min', 'cut-time' => '1min', $with ? %tls : () }) } 1 .. 3;
	for my $proxy (@proxy)
	{
		ok($proxy->wait_for(sub { $proxy->metric('links') == 4 }), "$how: $proxy->{name} is linked");
	}
	my $balancer = Evento::Balancer->new(@proxy);
	my $log = "$PostgreSQL::Test::Utils::log_path/sim-$how.log";
	my $load = Evento::ProxyTest::run_beside($log, $sim, '--proxies', "127.0.0.1:$balancer->{bundles}", '--handlers', HANDLERS, '--callers', CONNECTIONS, '--connections', CONNECTIONS,
		'--rate', 300, '--seconds', 250, '--timeout', 120_000, '--run', 'drain' . lc $how, $with ? ('--tls-ca', $ca->ca) : ());
	my $sessions = sub { my ($sum) = (0); $sum += $_->metric('sessions') for grep { $_->running } @proxy; return $sum };
	ok($proxy[0]->wait_for(sub { $sessions->() >= HANDLERS + CONNECTIONS }), "$how: all bundles are connected") or diag($sessions->());
	for my $proxy (@proxy)
	{
		cmp_ok($proxy->metric('sessions'), '>', 20, "$how: $proxy->{name} has its share of them");
		ok($proxy->wait_for(sub { ($proxy->metric('requests_total') // 0) > 100 }), "$how: and is loaded");
		is($proxy->stop('TERM'), 0, "$how: it is told to stop and ends with status 0");
		ok($proxy->wait_for(sub { $sessions->() >= HANDLERS + CONNECTIONS }), "$how: all bundles are elsewhere") or diag($sessions->());
		$proxy->run;
		$proxy->wait_http('/readyz');
		ok($proxy->wait_for(sub { $proxy->metric('links') == 4 }), "$how: it is back");
	}
	kill 'TERM', $load;
	waitpid $load, 0;
	my $status = $?;
	Evento::ProxyTest::ended($load);
	is($status, 0, "$how: no request failed, and no answer was wrong") or diag(slurp_file($log));
	is(scalar(grep { /drain: after/ } map { split /\n/, $_->log } @proxy), 0, "$how: nothing was left when they ended");
	$balancer->stop;
	$_->stop('KILL') for @proxy;
}

# ---- over HTTP ----

my @proxy = map { $test->start(flags => { 'drain-time' => '2min', 'drain-delay' => '1s', 'http-timeout' => '2min', 'database-wait' => '2min' }) } 1 .. 2;
my $balancer = Evento::Balancer->new(@proxy);
my $session = $test->node->background_psql('postgres');
$session->query_safe(q(BEGIN; SELECT evento.append('held', 'First', '{}')));
my $body = '{"type": "Second", "data": {}}';
my $asked = Evento::Http->new($balancer->{http})->raw("POST /streams/held HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
	  . length($body) . "\r\n\r\n$body");
my $drains;
ok($proxy[0]->wait_for(sub { ($drains) = grep { $_->metric(q(queue_items\{queue="appends"\})) } @proxy }), 'an append waits');
kill 'TERM', $drains->{pid};
ok($drains->wait_for(sub { $balancer->left_out($drains->{name}) }), 'its proxy drains, and gets no more from HAProxy');
my ($goes_on) = grep { $_ != $drains } @proxy;
is(Evento::Http->new($balancer->{http})->post('/streams/other', $body)->{status}, 201, 'another append is done elsewhere');
ok(!IO::Select->new($asked)->can_read(0), 'the one that waits is not cut off');
$session->query_safe('COMMIT');
$session->quit;
like(do { local $/; <$asked> }, qr{^HTTP/1.1 201 }, 'and is answered');
ok($drains->wait_for(sub { !$drains->running }), 'then its proxy ends');
is($drains->{status}, 0, 'in order');
$balancer->stop;
is($goes_on->stop, 0, 'as does the other');

done_testing();
