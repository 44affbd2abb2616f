# 705_connections_killed.pl
#   Connections of the proxies to the database are ended all the time, whatever
#   runs on them: no request fails, each command's event is stored once, and
#   reads over HTTP are answered.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Http;
use Evento::ProxyTest;

my $sim = $ENV{EVENTO_SIM} // __FILE__ =~ s{test/proxy/t/[^/]+$}{build/evento-sim}r;
my $test = Evento::ProxyTest->new;
my $node = $test->node;
my @proxy = map { $test->start } 1 .. 2;
ok($_->wait_for(sub { $_[0] // $_->metric('links') == 2 }), "$_->{name} is linked") for @proxy;
$test->sql(q(SELECT evento.append('read', 'T', to_json(n)) FROM generate_series(1, 50) n));

# Ends a connection of a proxy, over and over, in a session of the server's own: now one at work, now any:
# control, locks, appends and reads all go.
my $seconds = $ENV{EVENTO_LONG} ? 120 : 15;
my $killed = "$PostgreSQL::Test::Utils::log_path/killed";
my $killer = fork // die "fork: $!";
if (!$killer)
{
	open(STDIN, '<', '/dev/null') or POSIX::_exit(127);
	open(STDOUT, '>', $killed) or POSIX::_exit(127);
	open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
	exec 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', <<"SQL" or POSIX::_exit(127);
DO \$\$
DECLARE
	until timestamptz := clock_timestamp() + interval '$seconds seconds';
	n int := 0;
	victim int;
BEGIN
	WHILE clock_timestamp() < until OR n < 60 LOOP
		SELECT pid INTO victim FROM pg_stat_activity WHERE usename = 'proxy' ORDER BY n % 2 = 0 AND state = 'active' DESC, random() LIMIT 1;
		IF pg_terminate_backend(victim) THEN
			n := n + 1;
		END IF;
		PERFORM pg_stat_clear_snapshot();
		PERFORM pg_sleep(0.03);
	END LOOP;
	RAISE NOTICE 'ended %', n;
END \$\$
SQL
}
Evento::ProxyTest::started($killer);

my $log = "$PostgreSQL::Test::Utils::log_path/sim.log";
my $load = fork // die "fork: $!";
if (!$load)
{
	open(STDOUT, '>', $log) or POSIX::_exit(127);
	open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
	exec { $sim } $sim, '--proxies', join(',', map { "127.0.0.1:$_->{port}" } @proxy), '--handlers', 2, '--callers', 24, '--orders', 400, '--connections', 4,
	  '--mixed-locks', '--seconds', $seconds, '--run', 'killed' or POSIX::_exit(127);
}
Evento::ProxyTest::started($load);

# Meanwhile reads over HTTP: of a stream, and of the log.
my ($reads, @bad) = (0);
my $http = Evento::Http->new($proxy[0]{http});
while (waitpid($killer, POSIX::WNOHANG()) == 0)
{
	for my $path ('/streams/read?max=1', '/events?after=0&max=1')
	{
		my $answer = $http->get($path);
		$reads++;
		push @bad, "$path: $answer->{status} $answer->{body}" if $answer->{status} != 200;
	}
	sleep 0.005;
}
Evento::ProxyTest::ended($killer);
my ($ended) = slurp_file($killed) =~ /ended (\d+)/;
cmp_ok($ended // 0, '>', 50, 'connections were ended') or diag(slurp_file($killed));
is(scalar(@bad), 0, "no read over HTTP failed, of $reads") or diag(join "\n", @bad[ 0 .. ($#bad > 4 ? 4 : $#bad) ]);
waitpid $load, 0;
my $status = $?;
Evento::ProxyTest::ended($load);
is($status, 0, 'no request failed, and each command is in the log once') or diag(slurp_file($log));
note(slurp_file($log));
for my $proxy (@proxy)
{
	cmp_ok($proxy->metric('db_connects_total') // 0, '>', 10, "$proxy->{name} has connected again and again") or diag(($proxy->get('/metrics'))[1]);
	ok($proxy->wait_for(sub { ($proxy->get('/readyz'))[0] == 200 }), "$proxy->{name} is ready");
	is($proxy->stop, 0, "$proxy->{name} ends");
}

done_testing();
