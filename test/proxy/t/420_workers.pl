# 420_workers.pl
#   --workers: processes on one bundle port, each a proxy of its own; one that
#   dies is started again; signals are passed on.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Evento::Bundle;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;

# The first of some ports that follow one another.
sub free_row
{
	my ($n) = @_;
	my @row = PostgreSQL::Test::Cluster::get_free_port();
	while (@row < $n)
	{
		my $port = PostgreSQL::Test::Cluster::get_free_port();
		@row = () if $port != $row[-1] + 1;
		push @row, $port;
	}
	return $row[0];
}

my ($internal, $http) = (free_row(3), free_row(3));
my $file = PostgreSQL::Test::Utils::tempdir() . '/proxy.ini';
append_to_file($file, "max-calls = 1111\n");
my $parent = $test->start(flags => { config => $file, name => 'p', workers => 3, 'internal-port' => $internal, 'http-port' => $http }, wait => 0);
# A worker, for what is asked over HTTP.
my @worker = map { bless { %$parent, http => $http + $_, name => 'p-' . ($_ + 1) }, 'Evento::ProxyTest::Proxy' } 0 .. 2;

sub healthy { my ($worker) = @_; return $parent->wait_for(sub { ($worker->get('/readyz'))[0] == 200 }) }

sub process
{
	my ($n) = @_;
	my @found = $parent->log =~ /worker $n is process (\d+)/g;
	return $found[-1];
}

ok(healthy($_), "$_->{name} is ready") for @worker;
ok($parent->wait_for(sub { $test->sql(q(SELECT string_agg(name, ' ' ORDER BY name) FROM evento.proxies WHERE live)) eq 'p-1 p-2 p-3' }), 'each is a proxy of the cluster');
is($test->sql('SELECT count(DISTINCT internal), count(DISTINCT advertised) FROM evento._proxies'), '3|1', 'under its own internal address, and the same for bundles');
ok($parent->wait_for(sub { $_->metric('links') == 4 }), "$_->{name} has its links") for @worker;

# ---- connections are spread, and requests go between workers ----

my @bundles = map { $parent->bundle(bundle => 'b', instance => "i$_", names => ["Find$_"]) } 1 .. 24;
my @sessions = map { $_->metric('sessions') } @worker;
is($sessions[0] + $sessions[1] + $sessions[2], 24, 'all bundles are connected');
cmp_ok(scalar(grep { $_ > 0 } @sessions), '>', 1, "to more than one worker: @sessions");
ok($parent->wait_for(sub { $test->sql('SELECT count(*) FROM evento.bundles WHERE enabled') == 24 }), 'all are enabled');
my $answered = 0;
for my $n (2 .. 24)
{
	my $id = $bundles[0]->query("Find$n");
	my $req = $bundles[ $n - 1 ]->recv('REQ') or next;
	$bundles[ $n - 1 ]->respond($req, Evento::Bundle::single("$n"));
	my $answer = $bundles[0]->answer($id);
	$answered++ if $answer && $answer->{body}{data} eq $n;
}
is($answered, 23, 'every one is reached from the first');

# ---- one dies ----

my $pid = process(2);
my $killed = time;
kill 'KILL', $pid;
ok($parent->wait_log(qr/worker 2 was ended by a signal: Killed/), 'a worker is killed');
ok($parent->wait_for(sub { process(2) != $pid }), 'it is started again');
ok(healthy($worker[1]), 'and ready again');
# One that has run for 10 s is started at once, as the first time: then another try is needed.
for my $try (1 .. 5)
{
	$pid = process(2);
	my $start = time;
	kill 'KILL', $pid;
	ok($parent->wait_for(sub { process(2) != $pid }), 'a second time');
	my $took = time - $start;
	my $young = time - $killed < 10;
	$killed = $start;
	ok(healthy($worker[1]), 'ready again');
	next if !$young && $try < 5;
	ok($young && $took > 0.2, "not at once: $took s");
	last;
}

# ---- signals ----

kill 'HUP', $parent->{pid};
ok($parent->wait_for(sub { 3 == (() = $parent->log =~ /reads its settings again/g) }), 'SIGHUP reaches every worker');
# One that is started later has what the others have taken over.
sub most_calls { return ($_[0]->get('/metrics'))[1] =~ /^evento_proxy_queue_limit_items\{queue="calls"\} (\d+)$/m ? $1 : '' }

is(join(' ', map { most_calls($_) } @worker), '1111 1111 1111', 'a setting of the file');
unlink $file;
append_to_file($file, "max-calls = 2222\n");
is(most_calls($worker[1]), 1111, 'changed, it is not read before SIGHUP');
kill 'HUP', $parent->{pid};
ok($parent->wait_for(sub { join(' ', map { most_calls($_) } @worker) eq '2222 2222 2222' }), 'SIGHUP changes it');
$pid = process(2);
kill 'KILL', $pid;
ok($parent->wait_for(sub { process(2) != $pid }), 'a worker is killed and started again');
ok(healthy($worker[1]), 'ready again');
is(most_calls($worker[1]), 2222, 'with the setting that the others have');

is((() = $parent->log =~ /needs a restart/g), 0, 'what differs between workers is no change');
$_->close for @bundles;
is($parent->stop('TERM'), 0, 'SIGTERM ends all with status 0');
is((() = $parent->log =~ /drain: finished/g), 3, 'each has drained');
# Those that were killed are void 5 s after that.
ok($parent->wait_for(sub { $test->sql('SELECT count(*) FROM evento.proxies WHERE live') == 0 }), 'and left the cluster');
is((grep { kill 0, process($_) } 1 .. 3), 0, 'none is left');

# A parent that is killed leaves no workers behind.
$parent->run;
ok(healthy($_), "$_->{name} is ready") for @worker;
my @pids = map { process($_) } 1 .. 3;
$parent->stop('KILL');
ok($parent->wait_for(sub { !grep { kill 0, $_ } @pids }), 'workers end when their parent is killed') or kill 'KILL', @pids;

# A worker that cannot start ends all of it.
my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $http + 1, Listen => 1, ReuseAddr => 1) or die $@;
my ($status, $out, $err) = Evento::ProxyTest::run_program('--database', 'host=/nonexistent', '--bundle-address', '127.0.0.1', '--bundle-port', $parent->{port},
	'--workers', 3, '--internal-port', $internal, '--http-port', $http);
is($status, 1, 'a port that is taken ends parent and workers');
like($err, qr/port @{[ $http + 1 ]}: Address already in use/, 'with the reason');
($status, $out, $err) = Evento::ProxyTest::run_program('--workers', 3, '--internal-port', 4000, '--http-port', 4002);
is($err, "evento-proxy: --workers: the ports from --internal-port and --http-port on must not meet each other, nor --bundle-port\n", 'ports that would meet are refused');

done_testing();
