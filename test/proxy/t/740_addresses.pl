# 740_addresses.pl
#   Clients that list the addresses of three proxies live through the loss of
#   each: a simulator's bundles, and the loop with curl of docs/http.md.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Docs;
use Evento::ProxyTest;

my $sim = $ENV{EVENTO_SIM} // __FILE__ =~ s{test/proxy/t/[^/]+$}{build/evento-sim}r;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $test = Evento::ProxyTest->new;
my @proxy = map { $test->start } 1 .. 3;

# What a request that was under way at a proxy that is killed comes to, nobody can tell its caller: such may fail, and nothing else.
my $sim_pid = Evento::ProxyTest::run_beside("$dir/sim.log", $sim, '--proxies', join(',', map { "127.0.0.1:$_->{port}" } @proxy), '--callers', 8, '--connections', 6, '--consumers', 2,
	'--seconds', 3600, '--rate', 20, '--timeout', 8000, '--allow-failures');
ok($proxy[0]->wait_for(sub { slurp_file("$dir/sim.log") =~ /^ready run (\S+)/m }, 60), 'a simulator that lists three proxies plays bundles');
my ($run) = slurp_file("$dir/sim.log") =~ /^ready run (\S+)/m;

# The client over HTTP appends one event behind the other, each with an id of its own.
my ($append) = Evento::Docs::blocks('http', 'At whichever proxy answers', 'sh');
append_to_file("$dir/append.sh", $append . <<'SH');
n=0
while [ ! -e "$1/stop" ]; do
  n=$((n + 1))
  append by-curl "$(printf '00000000-0000-4000-8000-%012d' $n)" "{\"type\": \"N\", \"data\": $n}" || exit 1
  echo $n >"$1/told.new" && mv "$1/told.new" "$1/told"
done
SH
$ENV{PROXIES} = join ' ', map { "127.0.0.1:$_->{http}" } @proxy;
my $curl_pid = Evento::ProxyTest::run_beside("$dir/append.log", 'sh', '-u', "$dir/append.sh", $dir);

sub told { return -e "$dir/told" ? slurp_file("$dir/told") + 0 : 0 }

sub orders { return $test->sql("SELECT count(*) FROM evento.events WHERE stream LIKE '$run-%'") }

# Both clients get on by so many.
sub get_on
{
	my ($what) = @_;
	my ($orders, $told) = (orders() + 5, told() + 10);
	ok($proxy[0]->wait_for(sub { sleep 0.05; orders() >= $orders }, 60), "$what: the simulator's bundles go on");
	ok($proxy[0]->wait_for(sub { told() >= $told }, 120), "$what: and the client over HTTP does");
	return;
}

get_on('all proxies are there');
for my $proxy (@proxy)
{
	$proxy->stop('KILL');
	get_on("$proxy->{name} is killed");
	$proxy->run;
	$proxy->wait_http('/readyz', 60);
}
get_on('all proxies are back');

kill 'TERM', $sim_pid;
ok($proxy[0]->wait_for(sub { waitpid($sim_pid, POSIX::WNOHANG()) == $sim_pid }, 120), 'the simulator ends');
my $status = $?;
Evento::ProxyTest::ended($sim_pid);
is($status, 0, 'every answer was right, and consumers saw every event once, in order') or diag(slurp_file("$dir/sim.log"));
append_to_file("$dir/stop", '');
ok($proxy[0]->wait_for(sub { waitpid($curl_pid, POSIX::WNOHANG()) == $curl_pid }, 60), 'the client over HTTP ends');
$status = $?;
Evento::ProxyTest::ended($curl_pid);
is($status, 0, 'it was never refused') or diag(slurp_file("$dir/append.log"));
$test->sql('CALL evento.wait(NULL)');
my $n = told();
is($test->sql(q(SELECT string_agg(data::text, ' ' ORDER BY position) FROM evento.events WHERE stream = 'by-curl')), join(' ', 1 .. $n), "and each of its $n events is stored once, in its order");
is($_->stop, 0, "$_->{name} ends in order") for @proxy;
done_testing();
