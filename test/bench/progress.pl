# progress.pl
#   "make progress": how long a caller goes without a success while a part of
#   the cluster fails: three proxies with HAProxy before them on a PostgreSQL,
#   and then on three PostgreSQL under Patroni, callers and handlers that come
#   through the balancer and wait 0.5 s before they dial again, as bundles do.
#   Each caller has four commands open, of aggregates and services of its own.
#   Prints a table: each kind of fault, the bar, and the longest time of each
#   run.  What is PostgreSQL's or Patroni's own is taken from their logs.
#
#   FAULTS   faults that are made, or parts of their names; without, all
#   RUNS     how often each fault is made (3)
#   STRICT   synchronous_mode_strict of Patroni (true)
use strict;
use warnings;

use Evento::Partition;

BEGIN { Evento::Partition::enter() }

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Fleet;
use Evento::Patroni;
use Evento::ProxyTest;
use Evento::Traffic;

my $runs = $ENV{RUNS} || 3;
my @wanted = split ' ', $ENV{FAULTS} // '';
my $strict = $ENV{STRICT} || 'true';
my @rows;
my ($test, @proxy, $traffic, $haproxy);

# HAProxy before the proxies, something that Evento::Traffic takes for a proxy.
sub balancer
{
	my $program = Evento::Fleet::haproxy_program() // plan(skip_all => 'no haproxy here');
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $file = "$PostgreSQL::Test::Utils::tmp_check/haproxy-$port.cfg";
	PostgreSQL::Test::Utils::append_to_file($file, Evento::Fleet::haproxy_configuration($port, map { { name => $_->{name}, address => "127.0.0.1:$_->{port}", http => $_->{http} } } @proxy));
	$haproxy = fork // die "fork: $!";
	if (!$haproxy)
	{
		open(STDOUT, '>', "$PostgreSQL::Test::Utils::log_path/haproxy-$port.log") or POSIX::_exit(127);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
		exec { $program } $program, '-db', '-f', $file or POSIX::_exit(127);
	}
	Evento::ProxyTest::started($haproxy);
	return { name => 'balancer', port => $port };
}

# Load through the balancer.
sub load
{
	$traffic = Evento::Traffic->new(proxies => [ balancer() ], callers => 6, handlers => 3, open => 4, dials => 0.5, shared => 0);
	ok($traffic->run(60, sub { 100 < grep { defined $_->{object} } @{ $traffic->{commands} } }), 'there is load');
	return;
}

# All proxies are at work, with as many connections each as they get from the balancer.
sub settle
{
	my ($what) = @_;
	$_->wait_http('/readyz', 60) for @proxy;
	$traffic->run(60, sub { Evento::Patroni::every(0.2, sub { !grep { $_->metric('links') != 2 * $#proxy } @proxy }) });
	$traffic->lose($_) for @{ $traffic->{ends} };
	$traffic->recovers(60, $what);
	$traffic->run(3);
	return;
}

sub end
{
	my ($sql, $what) = @_;
	$traffic->check($sql, $what);
	kill 'TERM', $haproxy;
	waitpid $haproxy, 0;
	Evento::ProxyTest::ended($haproxy);
	$_->stop for @proxy;
	return;
}

sub wanted { my ($fault) = @_; return !@wanted || grep { index($fault, $_) >= 0 } @wanted }

# Makes a fault so many times.  bar: seconds, besides what code gives as not ours; code: makes the fault, lets the traffic go on
# and gives that time, and words on it.
sub measure
{
	my ($fault, $bar, $code) = @_;
	my (@gaps, @words, $missed);
	return if !wanted($fault);
	for my $run (1 .. $runs)
	{
		# What callers have in common is contended some seconds later.
		$traffic->run(4);
		my $since = time;
		my ($own, $words) = $code->($run);
		my $gap = $traffic->longest_gap($since - 0.3, time);
		push @gaps, sprintf defined $own ? '%.1f (%.1f + %.1f)' : '%.1f', $gap, $own // (), defined $own ? $gap - $own : ();
		push @words, $words // ();
		$missed ||= $gap - ($own // 0) > $bar;
		settle("$fault, run $run");
	}
	push @rows, [ $fault, $bar, \@gaps, \@words, $missed ];
	return;
}

# ---- proxies, and one server ----

$test = Evento::ProxyTest->new;
@proxy = map { $test->start } 1 .. 3;
load();
settle('at rest');

# One with callers on it; the others have the handlers that they reach.
my $turn = 0;
sub victim { return $proxy[ $turn++ % @proxy ] }

measure('proxy killed, clients through the balancer', 1.5, sub {
	my $victim = victim();
	$victim->stop('KILL');
	$traffic->run(6);
	$victim->run;
	return;
});

# What others have of a lock, or of an aggregate that is contended, is theirs until their lease ends.
$traffic->{shared} = 1;
measure('the same, with locks and an aggregate that all callers change', 1.5, sub {
	my $victim = victim();
	$victim->stop('KILL');
	$traffic->run(10);
	$victim->run;
	return;
});
$traffic->{shared} = 0;

measure('proxy frozen', 10, sub {
	my $victim = victim();
	kill 'STOP', $victim->{pid};
	$traffic->run(14);
	kill 'CONT', $victim->{pid};
	return;
});

measure('database restarted', 1, sub {
	my $began = time;
	my $pid = fork // die "fork: $!";
	if (!$pid)
	{
		open(STDOUT, '>', '/dev/null');
		exec { 'pg_ctl' } 'pg_ctl', '-D', $test->node->data_dir, '-l', $test->node->logfile, '-m', 'fast', 'restart' or POSIX::_exit(127);
	}
	my $took;
	$traffic->run(60, sub { waitpid($pid, POSIX::WNOHANG) ? ($took = time - $began) : 0 });
	$traffic->run(4);
	return $took;
});

# All links are cut, those among the others too: by address and port it is not to be told where a connection on loopback
# comes from.  Each proxy has a handler of its own, or none would be reachable.
if (defined Evento::Partition::why()) { push @rows, [ 'proxies cut from each other', 4, [ Evento::Partition::why() ], [], 0 ] }
else
{
	$traffic->{proxies} = \@proxy;
	for my $ends ([ $traffic->callers ], [ $traffic->handlers ])
	{
		$ends->[$_]{at} = $_ for 0 .. $#$ends;
	}
	settle('straight to the proxies');
	measure('proxies cut from each other', 4, sub {
		Evento::Partition::cut('both', $_->{internal}) for @proxy;
		$traffic->run(10);
		Evento::Partition::heal();
		$traffic->run(5);
		return;
	});
}

end(sub { $test->sql($_[0]) }, 'one server');
$test->node->stop('immediate');

# ---- Patroni ----

my $cluster;

# Patroni moves the lead to another node: how long callers are without a success until it takes writes, and what was when.
sub moves
{
	my ($old, $since) = @_;
	my $new;
	ok($traffic->run(90, sub { Evento::Patroni::every(0.5, sub { $new = $cluster->primary; defined $new && $new ne $old }) }), 'another node is the primary') or return;
	$traffic->recovers(60, "$new after $old");
	my ($third) = grep { $_ ne $old && $_ ne $new } $cluster->names;
	my $down = $cluster->said($old, $since, 'received fast shutdown request');
	my $told = $cluster->said($new, $since, 'received promote request');
	my $ready = $told && $cluster->said($new, $told - 0.001, 'database system is ready to accept connections');
	my $follows = $told && $cluster->said($third, $told, 'started streaming WAL from primary');
	my ($connected) = sort { $a <=> $b } grep { defined } map { connected($_, $told, $cluster->{nodes}{$new}{port}) } @proxy;
	my @when = map { $_->[1] ? sprintf('%s %.2f s', $_->[0], $_->[1] - $since) : () } [ 'shut down', $down ], [ 'told', $told ], [ 'writable', $ready ],
	  [ 'the first proxy is connected', $connected ], [ 'the other standby follows', $follows ], [ 'first success', ($traffic->longest_gap($since - 0.3, time))[1] ];
	return ($ready ? $ready - $since : undef, join ', ', @when);
}

# When a proxy was connected to a server first since a time.
sub connected
{
	my ($proxy, $since, $port) = @_;
	for my $line (split /\n/, $proxy->log)
	{
		my ($h, $m, $s) = $line =~ /T(\d+):(\d+):(\d+\.\d+)Z? .*connected to 127\.0\.0\.1 port $port\b/ or next;
		my $at = int($since / 86400) * 86400 + $h * 3600 + $m * 60 + $s;
		return $at if $at > $since;
	}
	return;
}

my $why = Evento::Patroni::why_not();
if ($why)
{
	push @rows, map { [ $_, 0, [$why], [], 0 ] } 'primary killed', 'switchover';
}
elsif (grep { wanted($_) } 'switchover', 'primary killed')
{
	$cluster = Evento::Patroni->new(nodes => 3, ttl => 10, loop_wait => 2, retry_timeout => 4, synchronous_mode_strict => $strict);
	$cluster->start_all(120) or BAIL_OUT(join "\n", map { $cluster->log($_) } $cluster->names);
	$cluster->sql('CREATE EXTENSION evento; CREATE ROLE proxy LOGIN IN ROLE evento_proxy');
	$test = Evento::ProxyTest->new(node => $cluster);
	@proxy = map { $test->start(flags => { name => "patroni$_", database => $cluster->hosts . ' user=proxy' }) } 1 .. 3;
	load();

	measure("switchover: patronictl switchover, synchronous_mode_strict $strict", 3, sub {
		my $old = $cluster->primary;
		my $since = time;
		$cluster->ctl_beside(sub { $traffic->run(0.1) }, 'switchover', 'evento', '--leader', $old, '--force');
		my ($own, $words) = moves($old, $since);
		$traffic->run(90, sub { Evento::Patroni::every(0.5, sub { $cluster->whole }) });
		return (undef, $words);
	});
	measure("switchover: the primary's node is stopped in order, synchronous_mode_strict $strict", 3, sub {
		my $old = $cluster->primary;
		my $since = time;
		$cluster->stop_beside(sub { $traffic->run(0.1) }, $old);
		my ($own, $words) = moves($old, $since);
		$cluster->start($old);
		$traffic->run(90, sub { Evento::Patroni::every(0.5, sub { $cluster->whole }) });
		return (undef, $words);
	});
	measure("primary killed, ttl 10, synchronous_mode_strict $strict", 2, sub {
		my $old = $cluster->primary;
		my $since = time;
		$cluster->kill_node($old);
		my ($own, $words) = moves($old, $since);
		$cluster->start($old);
		$traffic->run(120, sub { Evento::Patroni::every(0.5, sub { $cluster->whole }) });
		return ($own, $words);
	});
	end(sub { $cluster->sql($_[0]) }, 'Patroni');
	$cluster->stop;
}

# ---- the table ----

# PostgreSQL::Test has taken STDOUT for its log.
my $out = Test::More->builder->output;
print $out "longest time of any caller without a success, in seconds\n\n| fault | bar | measured | |\n|---|---|---|---|\n";
for my $row (@rows)
{
	my ($fault, $bar, $gaps, $words, $missed) = @$row;
	my $own = $gaps->[0] =~ /\+/ ? 'its own time + ' : '';
	print $out "| $fault | $own$bar | ", join(', ', @$gaps), ' | ', $missed ? 'missed' : '', " |\n";
}
print $out "\nin brackets: until the server takes writes + until the caller has a success\n";
for my $row (@rows)
{
	print $out "$row->[0]: $_\n" for @{ $row->[3] };
}
done_testing();
