# 741_names.pl
#   One name for three proxies and one for the database, told by a resolver of
#   the test's own: bundles, HTTP clients and proxies try all addresses of a
#   name, and live through the loss of each; a name that the resolver is silent
#   about does not hold up the others.  A client that takes the first
#   address alone, as the library does, needs a resolver that changes the order.
use strict;
use warnings;

use Evento::Names;

BEGIN { Evento::Names::enter() }

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket qw(inet_ntoa);
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Docs;
use Evento::ProxyTest;

plan skip_all => Evento::Names::why() if defined Evento::Names::why();

my $sim = $ENV{EVENTO_SIM} // __FILE__ =~ s{test/proxy/t/[^/]+$}{build/evento-sim}r;
my $dir = PostgreSQL::Test::Utils::tempdir();
my @addresses = map { "127.0.1.$_" } 1 .. 3;
# The database is at the last of its addresses; at the others nobody listens.
my %names = ('proxies.test' => \@addresses, 'db.test' => [ map { "127.0.2.$_" } 1 .. 3 ]);
Evento::Names::start(%names);
my $test = Evento::ProxyTest->new(conf => "listen_addresses = '127.0.2.3'\n");
my $node = $test->node;
$node->append_conf('pg_hba.conf', "host all all 127.0.0.0/8 trust\n");
$node->reload;

is((gethostbyname 'nobody.test')[4], undef, 'a name that the resolver does not know');
my @found = gethostbyname 'proxies.test';
is(join(' ', sort map { inet_ntoa($_) } @found[ 4 .. $#found ]), "@addresses", 'and one that it knows');

# ---- proxies find the database by its name ----

my ($port, $http) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;
my $database = 'host=db.test port=' . $node->port . ' dbname=postgres user=proxy';
my @proxy = map { $test->start(flags => { database => $database, 'bundle-address' => $_, 'bundle-port' => $port, 'http-address' => $_, 'http-port' => $http,
			'http-api' => 'open', 'database-wait' => '2min' }) } @addresses;
pass('proxies find the database by its name, at the last of its addresses');
is(`psql -XAtd '$database' -c 'SELECT inet_server_addr()'`, "127.0.2.3\n", 'psql does');

# ---- clients find the proxies by their name ----

# Each of its connections begins with another of the addresses.
Evento::Names::set(%names, fixed => 1);
my $sim_pid = Evento::ProxyTest::run_beside("$dir/sim.log", $sim, '--proxies', "proxies.test:$port", '--callers', 8, '--connections', 6, '--consumers', 2,
	'--seconds', 3600, '--rate', 20, '--timeout', 8000, '--allow-failures');
ok($proxy[0]->wait_for(sub { slurp_file("$dir/sim.log") =~ /^ready run (\S+)/m }, 60), 'a simulator that knows the name plays bundles');
my ($run) = slurp_file("$dir/sim.log") =~ /^ready run (\S+)/m;
my ($append) = Evento::Docs::blocks('http', 'At whichever proxy answers', 'sh');
append_to_file("$dir/append.sh", $append);
my $told = 0;

# Appends an event over HTTP, under the name.
sub by_curl
{
	$told++;
	local $ENV{PROXIES} = "proxies.test:$http";
	return system('sh', '-c', q(. "$1/append.sh"; append by-curl "$2" "$3"), 'append', $dir, sprintf('00000000-0000-4000-8000-%012d', $told), qq({"type": "N", "data": $told})) == 0;
}

sub orders { return $test->sql("SELECT count(*) FROM evento.events WHERE stream LIKE '$run-%'") }

sub get_on
{
	my ($what) = @_;
	my $orders = orders() + 5;
	ok($proxy[0]->wait_for(sub { sleep 0.05; orders() >= $orders }, 60), "$what: the simulator's bundles go on");
	is(scalar(grep { !by_curl() } 1 .. 4), 0, "$what: and curl gets through");
	return;
}

# What the library does: asks for the name, and dials the first address alone.
sub dial_first
{
	my @found = gethostbyname 'proxies.test' or return undef;
	my $address = inet_ntoa($found[4]);
	my $bundle = eval { Evento::Bundle->connected($port, host => $address, bundle => 'shop', instance => 'first') } or return undef;
	return [ $address, $bundle ];
}

get_on('all proxies are there');
ok($proxy[0]->wait_for(sub { $test->sql('SELECT count(*) FROM evento.proxies WHERE instances > 0') eq '3' }), 'bundles are at all three');
for my $proxy (@proxy)
{
	my $address = $proxy->{flags}{'http-address'};
	my $what = "$proxy->{name} is killed";

	# The worst order: the one that is gone comes first.
	Evento::Names::set(%names, 'proxies.test' => [ $address, grep { $_ ne $address } @addresses ], fixed => 1);
	$proxy->stop('KILL');
	get_on($what);
	# Two handlers, six connections of callers, two consumers.
	ok($proxy->wait_for(sub { sleep 0.05; $test->sql(q(SELECT count(*) FROM evento.bundles WHERE bundle LIKE 'sim-%')) eq '10' }, 60), "$what: all the simulator's bundles are at other addresses of the name");
	is(scalar(grep { dial_first() } 1 .. 3), 0, "$what: who dials the first address alone does not get in where the order stays");
	Evento::Names::set(%names);
	my $first;
	ok($proxy->wait_for(sub { $first = dial_first() }, 60), "$what: and does where it changes");
	isnt($first->[0], $address, "$what: elsewhere");
	ok($first->[1]->alive, "$what: and is served");
	$first->[1]->close;
	$proxy->run;
	$proxy->wait_http('/readyz', 60);
}
get_on('all proxies are back');

# ---- the database moves, and its name with it ----

$node->append_conf('postgresql.conf', "listen_addresses = '127.0.2.4'\n");
$node->stop('fast');
Evento::Names::set(%names, 'db.test' => [qw(127.0.2.4 127.0.2.1)]);
$node->start;
get_on('the database has moved under its name');
is(`psql -XAtd '$database' -c 'SELECT inet_server_addr()'`, "127.0.2.4\n", 'psql follows');

# ---- names that are not answered do not hold up the others ----

Evento::Names::set(%names, 'db.test' => ['127.0.2.4'], 'gone1.test' => undef, 'gone2.test' => undef);
my $listed = $test->start(flags => { database => $database =~ s/host=db.test/host=gone1.test,gone2.test,db.test/r });
pass('a proxy finds the database behind two names that the resolver does not answer for');
push @proxy, $listed;

# The process ids of its connections.
sub sessions { return split /\n/, $test->sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'evento-proxy/$listed->{name}'") }
# One for its registration, one for locks, two that append and two that read.
my $wanted = 6;
ok($listed->wait_for(sub { sleep 0.2; sessions() >= $wanted }, 60), 'with all its connections') or diag(scalar sessions(), " of $wanted");
my %before = map { $_ => 1 } sessions();
$test->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'evento-proxy/$listed->{name}'");
ok($listed->wait_for(sub { sleep 0.2; $wanted <= grep { !$before{$_} } sessions() }, 60), 'cut, it has all of them again') or diag(scalar sessions(), " of $wanted");
# What is under way is asked for again.
Evento::Names::set(%names, 'db.test' => ['127.0.2.4'], 'gone1.test' => [], 'gone2.test' => []);

kill 'TERM', $sim_pid;
ok($proxy[0]->wait_for(sub { waitpid($sim_pid, POSIX::WNOHANG()) == $sim_pid }, 120), 'the simulator ends');
my $status = $?;
Evento::ProxyTest::ended($sim_pid);
is($status, 0, 'every answer was right, and consumers saw every event once, in order') or diag(slurp_file("$dir/sim.log"));
$test->sql('CALL evento.wait(NULL)');
is($test->sql(q(SELECT string_agg(data::text, ' ' ORDER BY position) FROM evento.events WHERE stream = 'by-curl')), join(' ', 1 .. $told), "each of curl's $told events is stored once");
is($_->stop, 0, "$_->{name} ends in order") for @proxy;
done_testing();
