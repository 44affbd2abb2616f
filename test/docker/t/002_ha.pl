# docker/compose-ha.yaml: one command and it is ready; networks are separate; reads
# come from standbys; a proxy and the primary are killed while bundles send commands
# and events are appended over HTTP, through HAProxy: Patroni promotes, all goes on
# by itself, and the log has what was acknowledged, once; the killed node comes back
# as a standby; nothing is left behind "down -v".
use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Compose;

my $top = abs_path("$FindBin::RealBin/../../..");
my $c = Evento::Compose->new(top => $top, file => 'compose-ha.yaml', project => 'evento-ha');
my %port = (balancer => 3032, proxy1 => 3132, proxy2 => 3232, proxy3 => 3332);
my @proxies = qw(proxy1 proxy2 proxy3);
my @servers = qw(postgres1 postgres2 postgres3);
my $writer;
my ($version) = Evento::Compose::slurp("$top/evento.control") =~ /^default_version *= *'(.*)'/m;

# The server that takes writes, among those that are asked.
sub primary
{
	my (@among) = @_;
	for my $server (@among)
	{
		return $server if ($c->sql($server, 'SELECT NOT pg_is_in_recovery()') // '') eq 't';
	}
	return;
}

# Tests that a value is given in the end: who is asked may be busy, or a moment behind.
sub becomes
{
	my ($code, $wanted, $what) = @_;
	my $got;
	Evento::Compose::until_true(120, sub { ($got = $code->() // '') eq $wanted });
	return is($got, $wanted, $what);
}

# ---- up ----

$c->up;
$c->wait_healthy('compose says that everything is healthy') or die "it is not up\n";
my $primary = Evento::Compose::until_true(120, sub { primary(@servers) });
ok($primary, 'there is a primary') or BAIL_OUT('no primary');
for my $server (@servers)
{
	becomes(sub { $c->sql($server, q{SELECT extversion FROM pg_extension WHERE extname = 'evento'}) }, $version, "$server has the extension");
}
is($c->sql($primary, q{SELECT current_setting('server_version_num')::int / 10000}), $ENV{EVENTO_PG}, 'in the PostgreSQL that was asked for');
like($c->sql($primary, 'SHOW synchronous_standby_names'), qr/postgres[123]/, 'a commit waits for a standby');

# ---- secrets ----

my %password = map { my ($name) = m{(\w+)_password$}; $name => ($c->execute($primary, 'cat', "/run/secrets/$_"))[1] } split /\n/, ($c->execute($primary, 'ls', '/run/secrets'))[1];
is_deeply([ sort keys %password ], [qw(proxy replication restapi rewind superuser)], 'passwords were made');
is(scalar(grep { !/^[0-9a-f]{64}$/ } values %password), 0, 'of 256 bits');
$c->keeps_secret(\%password, 'secrets', @servers, qw(etcd1 proxy1 haproxy));
isnt(($c->execute('etcd1', 'test', '-e', '/run/secrets'))[0], 0, 'etcd has none of them');

# ---- who reaches whom ----

sub reaches
{
	my ($network, $host, $port, $seconds) = @_;
	my $image = $c->inspect('haproxy')->{Config}{Image};
	my ($status) = $c->command('docker', 'run', '--rm', '--network', "evento-ha_$network", '--entrypoint', 'timeout', $image, $seconds, 'bash', '-c', "exec 3<>/dev/tcp/$host/$port");
	return $status == 0 ? 1 : 0;
}
ok(reaches('external', 'proxies', 3030, 60), 'on the external network bundles reach the proxies by one name');
ok(!reaches('external', 'proxy1', 3031, 3), 'the port for other proxies is not open there');
ok(reaches('internal', 'proxy1', 3031, 60), 'but on the internal one');
ok(!reaches('external', $primary, 5432, 3), 'PostgreSQL is not reached from the external network');
my $address = $c->inspect($primary)->{NetworkSettings}{Networks}{'evento-ha_internal'}{IPAddress};
ok(!reaches('external', $address, 5432, 3), 'nor by its address');
ok(!reaches('internal', 'etcd1', 2379, 3), 'and etcd from neither');

becomes(sub { $c->request('GET', $port{balancer}, '/cluster')->{status} }, 401, 'without a token nothing is told');
$c->make_token((grep { $_ ne $primary } @servers)[0]);

for my $proxy (@proxies)
{
	is(Evento::Compose::until_true(120, sub { $c->request('GET', $port{$proxy}, '/cluster')->{success} }), 1, "$proxy: it opens this one");
}

my $listed;
becomes(sub {
		$listed = ($c->execute('postgres1', qw(patronictl -c /etc/evento/patroni.yaml list)))[1];
		return scalar(() = $listed =~ /\bpostgres[123]\b.*\b(?:Leader|Sync Standby|Quorum Standby|Replica)\b.*\b(?:running|streaming)\b/g);
	}, 3, 'patronictl lists three nodes that run') or diag($listed);

# ---- through HAProxy and at each proxy ----

my $id = '11111111-1111-4111-8111-111111111111';
ok($c->append_surely($port{balancer}, 'order-1', $id, { n => 1 }), 'an event is appended through HAProxy');
$c->each_serves('order-1', $id, map { $_ => $port{$_} } @proxies);
sub nodes { return @{ ($c->request('GET', $port{proxy1}, '/cluster')->{json} // {})->{nodes} // [] } }
becomes(sub { join ' ', sort map { $_->{role} } nodes() }, 'primary standby standby', 'and three nodes of the database');
becomes(sub { scalar grep { $_->{role} eq 'standby' && defined $_->{lag_bytes} } nodes() }, 2, 'with the lag of each standby');
becomes(sub { $c->balanced_sql($servers[0], 5432, 'SELECT pg_is_in_recovery()') }, 'f', 'one endpoint leads SQL to the primary');
becomes(sub { $c->balanced_sql($servers[0], 5433, 'SELECT pg_is_in_recovery()') }, 't', 'and another to a standby');

# ---- reads from standbys ----

# Where a proxy reads events: the standbys, where it has near ones of these alone.
sub reads_from
{
	my ($proxy, @standbys) = @_;
	my $reads = ($c->request('GET', $port{$proxy}, '/cluster')->{json} // {})->{reads} or return;
	my %is = map { $_ => 1 } @standbys;
	return if $reads->{from} ne 'standby' || grep { !$is{ $_->{host} } } @{ $reads->{standbys} };
	return 1;
}

sub standby_reads
{
	my ($proxy) = @_;
	return ($c->request('GET', $port{$proxy}, '/metrics')->{content} =~ /^evento_proxy_standby_reads_total(?:\{\})? (\d+)/m)[0];
}

my @standbys = grep { $_ ne $primary } @servers;
for my $proxy (@proxies)
{
	ok(Evento::Compose::until_true(120, sub { reads_from($proxy, @standbys) }), "$proxy reads events from standbys") or diag(explain($c->request('GET', $port{$proxy}, '/cluster')->{json}{reads}));
	my $before = standby_reads($proxy) // 0;
	# One that is behind for a moment is not read from.
	ok(Evento::Compose::until_true(120, sub {
				my $read = $c->request_surely('GET', $port{$proxy}, '/streams/order-1')->{json};
				return ($read->{events}[0]{id} // '') eq $id && (standby_reads($proxy) // 0) > $before;
			}), 'over HTTP, too, which it counts');
}

# ---- a proxy is killed ----

my $sim = $c->simulate('ha', 30000);
ok($sim->goes_on(100, 0, 120), 'commands of bundles are answered');
my $proxy_killed_at = time;
$c->kill_container('proxy1');
ok($c->append_surely($port{balancer}, 'order-1', '11111111-1111-4111-8111-111111111112', { n => 2 }), 'with a proxy killed, appends through HAProxy go on');
is($c->request_surely('GET', $port{proxy3}, '/streams/order-1', headers => { 'Evento-Stream-Version' => 2 })->{json}{version}, 2, 'and are read at another');
ok($sim->goes_on(200, $proxy_killed_at + 1, 120), 'and commands of bundles go on');
note(sprintf 'the longest time without an answer to a bundle: %.1f s', $sim->longest_gap($proxy_killed_at - 2, time));
$c->start_container('proxy1');
$c->wait_healthy('started again, it is healthy', 'proxy1');

# ---- the primary is killed ----

# A writer beside us: one event after the other through HAProxy, each sent again
# with its id until it is acknowledged; prints the number and the time of each.
my $log = ($ENV{TESTDIR} // '/tmp') . "/acknowledged.$$";
$writer = fork() // die "fork: $!\n";
if ($writer == 0)
{
	open(my $fh, '>', $log) or die "$log: $!\n";
	$fh->autoflush(1);
	for my $n (1 .. 1_000_000)
	{
		my $event = sprintf '33333333-3333-4333-8333-%012d', $n;
		until ($c->append($port{balancer}, 'count-1', $event, { n => $n })->{success}) { sleep 0.1 }
		printf $fh "%d %.3f\n", $n, time;
	}
	require POSIX;
	POSIX::_exit(0);
}
END
{
	my $status = $?;
	kill 'TERM', $writer if $writer;
	$? = $status;
}
sub acknowledged { return map { [split] } split /\n/, -e $log ? Evento::Compose::slurp($log) : '' }

ok(Evento::Compose::until_true(120, sub { acknowledged() >= 50 }), 'events are appended');
my $killed_at = time;
$c->kill_container($primary);
my $before = (grep { $_->[1] < $killed_at } acknowledged())[-1][0];
my @others = grep { $_ ne $primary } @servers;
my $promoted = Evento::Compose::until_true(180, sub { primary(@others) });
my $promoted_at = time;
ok($promoted, 'the primary killed, a standby is promoted') or BAIL_OUT('no primary');
my $more = Evento::Compose::until_true(180, sub { my @a = acknowledged(); @a >= $before + 50 ? \@a : undef });
ok($more, 'and appends are acknowledged again, without a hand') or diag(map { "$_->{name} $_->{role} $_->{state}\n" } @{ $c->request('GET', $port{proxy1}, '/cluster')->{json}{nodes} // [] });
my ($first) = grep { $_->[0] > $before && $_->[1] > $killed_at + 1 } acknowledged();
ok($sim->goes_on(200, $promoted_at, 180), 'and so are commands of bundles');
note(sprintf 'the longest time without an answer to a bundle: %.1f s', $sim->longest_gap($killed_at - 2, time));
note(sprintf 'promoted %.1f s after the kill, acknowledged again after %.1f s', $promoted_at - $killed_at, ($first // [ 0, 0 ])->[1] - $killed_at);

# ---- it comes back ----

$c->start_container($primary);
$c->wait_healthy('the node that was killed comes back', $primary);
becomes(sub { $c->sql($primary, 'SELECT pg_is_in_recovery()') }, 't', 'as a standby');
kill 'TERM', $writer;
waitpid $writer, 0;
$writer = 0;
my @acknowledged = map { $_->[0] } acknowledged();
$c->sql($promoted, 'CALL evento.wait(NULL)');
my $in_log = $c->sql($promoted, q{SELECT string_agg(data->>'n', ' ' ORDER BY version) FROM evento.events WHERE stream = 'count-1'}) // '';
# The last one may have been stored and not acknowledged, since the writer was ended.
my @stored = split ' ', $in_log;
ok("$in_log " =~ /\A\Q@acknowledged \E/, 'every acknowledged event is in the log, once, in order: ' . @acknowledged) or diag("acknowledged: @acknowledged\nin the log: $in_log");
cmp_ok(scalar @stored, '<=', @acknowledged + 1, 'and no other');
my $there = Evento::Compose::until_true(120, sub { ($c->sql($primary, q{SELECT count(*) FROM evento.events WHERE stream = 'count-1'}) // '') eq @stored });
ok($there, 'the node that came back has them all');
$c->shows_live($port{proxy2}, \@proxies, 'all proxies are live');
becomes(sub { $c->balanced_sql($promoted, 5432, 'SELECT pg_is_in_recovery()') }, 'f', 'the endpoint of SQL leads to the new primary');
$c->wait_healthy('and everything is healthy');
$c->end_simulation($sim, $promoted, 'a proxy and the primary killed');
@standbys = grep { $_ ne $promoted } @servers;
ok(Evento::Compose::until_true(120, sub { reads_from($_, @standbys) }), "$_ reads from the standbys of now") for @proxies;

is(($c->execute('postgres2', qw(patronictl -c /etc/evento/patroni.yaml edit-config --force -s synchronous_mode_strict=false)))[0], 0, 'patronictl changes what Patroni does');

# Sizes, as in 001_single.pl.
my $page = Evento::Compose::slurp("$top/docs/cluster.md");
for my $service (qw(postgres1 etcd1))
{
	my $image = $c->inspect($service)->{Config}{Image};
	next if $image !~ /-pg/ && $ENV{EVENTO_RELEASE} ne 'bookworm';
	my $size = $c->must('docker', 'image', 'inspect', '--format', '{{.Size}}', $image) / 1e6;
	my ($stated) = $page =~ /^\| `\Q$image\E` \|.*\| *(\d+) MB *\|$/m;
	cmp_ok(abs($size - ($stated // 0)), '<', $size / 10, sprintf('%s has the size that is stated: %.0f MB', $image, $size));
}

is($c->down, '', 'behind "down -v" nothing is left');
unlink $log;
done_testing();
