# docker/compose.yaml: one command and it is ready; what is appended through
# HAProxy at one proxy is read at another; a proxy that is killed harms nobody,
# neither who appends over HTTP nor bundles, whose commands are in the log once;
# what was made at the first start is there at the next, and nothing behind
# "down -v".
use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time);

use Evento::Compose;

my $top = abs_path("$FindBin::RealBin/../../..");
my $c = Evento::Compose->new(top => $top, file => 'compose.yaml', project => 'evento-single');
my %port = (balancer => 3032, proxy1 => 3132, proxy2 => 3232, proxy3 => 3332);
my @proxies = qw(proxy1 proxy2 proxy3);
my ($version) = Evento::Compose::slurp("$top/evento.control") =~ /^default_version *= *'(.*)'/m;

# ---- up ----

$c->up;
$c->wait_healthy('compose says that everything is healthy') or die "it is not up\n";
is($c->sql('postgres', q{SELECT extversion FROM pg_extension WHERE extname = 'evento'}), $version, 'the extension is there, in the version of the images');
is($c->sql('postgres', q{SELECT current_setting('server_version_num')::int / 10000}), $ENV{EVENTO_PG}, 'in the PostgreSQL that was asked for');

# ---- images ----

for my $service (@proxies, qw(postgres haproxy))
{
	my $is = $c->inspect($service);
	my $image = $is->{Config}{Image};
	like($image, qr/^evento-\w+:\Q$version\E(?:-pg\d+)?$/, "$service: its image has the version in its tag");
	ok($is->{HostConfig}{ReadonlyRootfs}, "$service: its root cannot be written");
	is(($c->execute($service, 'id', '-u'))[1] > 0, 1, "$service: its user is not root");
	isnt(($c->execute($service, 'touch', '/usr/local/bin/new'))[0], 0, "$service: it cannot change its programs");
}
my $password = ($c->execute('postgres', 'cat', '/run/secrets/proxy_password'))[1];
like($password, qr/^[0-9a-f]{64}$/, 'a password was made');
$c->keeps_secret({ proxy => $password }, qw(secrets postgres proxy1 haproxy));
isnt(($c->execute('proxy1', 'test', '-e', '/run/secrets/proxy_password'))[0], 0, 'a proxy has its own password file alone');
is(($c->execute('proxy1', 'sh', '-c', 'ls /run/secrets'))[1], 'passfile', 'and that is all it has');

# docs/cluster.md states sizes, of images without a "pg" those with packages of
# Debian 12; packages change, so a tenth is granted.
my $page = Evento::Compose::slurp("$top/docs/cluster.md");
for my $service (qw(postgres proxy1 haproxy))
{
	my $image = $c->inspect($service)->{Config}{Image};
	next if $image !~ /-pg/ && $ENV{EVENTO_RELEASE} ne 'bookworm';
	my $size = $c->must('docker', 'image', 'inspect', '--format', '{{.Size}}', $image) / 1e6;
	my ($stated) = $page =~ /^\| `\Q$image\E` \|.*\| *(\d+) MB *\|$/m;
	$stated //= 0;
	cmp_ok(abs($size - $stated), '<', $stated / 10, sprintf('%s has the size that is stated: %.0f MB', $image, $size)) or diag("stated: $stated MB");
}

# ---- through HAProxy and at each proxy ----

my $id = '11111111-1111-4111-8111-111111111111';
ok($c->append_surely($port{balancer}, 'order-1', $id, { n => 1 }), 'an event is appended through HAProxy');
$c->each_serves('order-1', $id, map { $_ => $port{$_} } @proxies);
my $cluster = $c->request_surely('GET', $port{balancer}, '/cluster')->{json};
is_deeply([ sort map { $_->{advertised} } grep { $_->{live} } @{ $cluster->{proxies} } ], [ 'localhost:3130', 'localhost:3230', 'localhost:3330' ], 'with addresses that lead to them from this machine');
is(scalar @{ $cluster->{nodes} }, 1, 'and the one database');
for my $bundles (3030, 3130, 3230, 3330)
{
	ok(IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $bundles, Timeout => 60), "bundles are let in at port $bundles");
}

# ---- a proxy is killed ----

my $sim = $c->simulate('single', 20000);
ok($sim->goes_on(100, 0, 120), 'commands of bundles are answered');
my $killed_at = time;
$c->kill_container('proxy2');
my @refused;
for my $n (1 .. 60)
{
	my $event = sprintf '22222222-2222-4222-8222-%012d', $n;
	push @refused, $n if !$c->append_surely($port{balancer}, 'order-2', $event, { n => $n });
}
is("@refused", '', 'with one proxy killed, appends through HAProxy go on');
is($c->sql('postgres', q{SELECT count(*) || ' ' || count(DISTINCT id) || ' ' || max(version) FROM evento.events WHERE stream = 'order-2'}), '60 60 60', 'each is in the log once');
is($c->request_surely('GET', $port{proxy3}, '/streams/order-2?max=1')->{json}{version}, 60, 'another proxy reads them');
$c->wait_healthy('all others are healthy', qw(proxy1 proxy3 haproxy postgres));
$c->shows_live($port{proxy1}, [qw(proxy1 proxy3)], '/cluster shows that it is gone');
ok($sim->goes_on(200, $killed_at + 1, 120), 'and commands of bundles go on');
note(sprintf 'the longest time without an answer: %.1f s', $sim->longest_gap($killed_at - 2, time));
$c->start_container('proxy2');
$c->wait_healthy('started again, it is healthy', 'proxy2');
$c->shows_live($port{proxy3}, \@proxies, 'and a member again');
$c->end_simulation($sim, 'postgres', 'a proxy killed');

# ---- down and up ----

$c->compose('down');
$c->forget;
$c->up;
$c->wait_healthy('down and up again, everything is healthy');
is($c->request_surely('GET', $port{balancer}, '/streams/order-2?max=1')->{json}{version}, 60, 'the events are there');
is(($c->execute('postgres', 'cat', '/run/secrets/proxy_password'))[1], $password, 'and the password');
is($c->append_surely($port{balancer}, 'order-2', '22222222-2222-4222-8222-000000000060', { n => 60 })->{status}, 200, 'an event that is sent again is known');

is($c->down, '', 'behind "down -v" nothing is left');
done_testing();
