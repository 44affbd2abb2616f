# 703_partitions.pl
#   Half-open connections and partitions, one way and both ways: a caller's
#   connection, a handler's, the links between proxies, a proxy's and all
#   proxies' connections to the database.  No request waits longer than its
#   timeout, all goes on by itself within 10 s, and nothing of before is left.
#   EVENTO_LONG=1: all ways each, and for longer.
use strict;
use warnings;

use Evento::Partition;

BEGIN { Evento::Partition::enter() }

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::ProxyTest;
use Evento::Traffic;

plan skip_all => Evento::Partition::why() if defined Evento::Partition::why();

my $test = Evento::ProxyTest->new(conf => "listen_addresses = '*'\n");
my $node = $test->node;
$node->append_conf('pg_hba.conf', "host all all 127.0.0.0/8 trust\n");
$node->reload;
# Each proxy knows the database by an address of its own.
my @proxy = map { $test->start(flags => { database => "host=127.0.0." . ($_ + 1) . ' port=' . $node->port . ' dbname=postgres user=proxy',
			'cut-time' => '2s', 'ping-interval' => '1s', 'idle-timeout' => '4s' }) } 1 .. 2;
my $traffic = Evento::Traffic->new(proxies => \@proxy, callers => 4, handlers => 2, timeout => 4000);
my $long = $ENV{EVENTO_LONG};

sub sql { return $test->sql($_[0]) }

sub linked
{
	my ($proxy) = @_;
	return $proxy->wait_for(sub { $traffic->turn(0.02, 1); ($proxy->metric('links') // 0) == 2 }, 60);
}

my %what = (to => 'what goes to it is lost', from => 'what comes from it is lost', both => 'nothing passes');

# Runs load for so long while something is cut, heals it, and sees everything go on.
sub partition
{
	my ($seconds, $what, $direction, $cut) = @_;
	$what .= ", $what{$direction}";
	$cut->();
	$traffic->run($long ? 3 * $seconds : $seconds);
	Evento::Partition::heal();
	$traffic->recovers(10, $what);
	ok(linked($_), "$what: $_->{name} has its links") for @proxy;
	# Whoever lost a connection came back, and is known where it is alone.
	my $all = '';
	ok($proxy[0]->wait_for(sub { $traffic->turn(0.02, 1); $all = sql(q(SELECT string_agg(instance, ' ' ORDER BY instance) FROM evento.bundles WHERE enabled)); $all eq 'c1 c2 c3 c4 h1 h2' }, 60),
		"$what: all instances are there, once") or diag($all);
	return;
}

sub cut_end
{
	my ($direction, $end) = @_;
	$traffic->run(60, sub { $end->{ready} && $end->{b} }) or die "$end->{instance} is not connected";
	Evento::Partition::cut($direction, $end->{proxy}{port}, peer => $end->{b}{socket}->sockport);
	return;
}

ok($traffic->run(30, sub { 30 < grep { defined $_->{object} } @{ $traffic->{commands} } }), 'there is load');

for my $direction ($long ? qw(to from both) : qw(to from))
{
	partition(4, 'the connection of a caller', $direction, sub { cut_end($direction, ($traffic->callers)[0]) });
	partition(4, 'the connection of a handler', $direction, sub { cut_end($direction, ($traffic->handlers)[0]) });
}

for my $direction ($long ? qw(to from both) : qw(to both))
{
	# From the first proxy's point of view: on the link that it made, and on the one that was made to it.
	partition(5, 'the links', $direction, sub {
			Evento::Partition::cut($direction, $proxy[1]{internal});
			Evento::Partition::cut($direction eq 'to' ? 'from' : $direction eq 'from' ? 'to' : 'both', $proxy[0]{internal});
		});
}

# Sessions of a connection that its proxy has given up, which the server knows nothing of, would keep what they hold.
sub no_old_sessions
{
	my ($what) = @_;
	my $pids = q(SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%');
	ok($proxy[0]->wait_for(sub { $traffic->turn(0.02, 1); sql($pids) <= 12 }, 60), "$what: the server has no sessions of before") or diag(sql($pids));
	return;
}

for my $direction (qw(to from both))
{
	# Commands that outlive the fault, and such that do not.
	$traffic->{timeout} = $direction eq 'both' ? 4000 : 12000;
	partition(6, 'the database for one proxy', $direction, sub { Evento::Partition::cut($direction, $node->port, address => '127.0.0.2') });
	no_old_sessions("the database for one proxy, $what{$direction}");
}
partition(6, 'the database for all proxies', 'both', sub { Evento::Partition::cut('both', $node->port) });
no_old_sessions('the database for all proxies');

$traffic->check(\&sql, 'all partitions');
is($_->stop, 0, "$_->{name} ends in order") for @proxy;
done_testing();
