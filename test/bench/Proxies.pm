# Proxies.pm
#   Proxies as the simulator sees them: commands, queries, latencies, what a
#   proxy takes and how soon it answers.
package Proxies;

use strict;
use warnings;

use HTTP::Tiny;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);

use Bench qw(host built conf runs seconds server forget_server load pgbench median compare checkpoint);
use Evento::Fleet;

use constant EVENT => '{"orderId": "order-17", "amount": 42, "pad": "' . ('x' x 100) . '"}';

my ($one, $names);

sub benches
{
	return (
		[ commands_vs_batch => '0.2', \&commands_vs_batch ],
		[ commands_vs_single => '1.5', \&commands_vs_single ],
		[ commands_one_aggregate => '0.05', \&commands_one_aggregate ],
		[ round_trips_per_command => '1.2 <', \&round_trips ],
		[ processor_us_per_command => undef, \&processor_time ],
		[ queries_vs_relay => '0.6', \&queries_vs_relay ],
		[ queries_elsewhere => '0.5', \&queries_elsewhere ],
		[ p99_vs_p50 => '5 <', \&p99_vs_p50 ],
		[ memory_mb => '64 <', \&memory ],
		[ start_seconds => '0.3 <', \&start ],
		[ commands_per_second => undef, \&commands ]);
}

# ---- a database with one proxy and its handlers, for most of them ----

sub fleet
{
	return $one if $one;
	$one = Evento::Fleet->start(host => host(), built => built(), proxies => 1, conf => conf(), name => 'pg-proxy');
	$one->{handlers} = $one->start_handlers(2);
	return $one;
}

# One run of the simulator's callers; its figures.
sub run
{
	my ($fleet, @options) = @_;
	my $figures = $fleet->callers('bench' . ++$names, '--consumers', 0, '--seconds', seconds(), '--connections', 6, @options);
	die "the simulator's checks did not hold:\n$figures->{text}" if !$figures->{ok};
	return $figures;
}

sub per_second { return run(@_)->{per_second} }

# The proxies of a fleet, for --proxies.
sub at { return ('--proxies', join(',', map { $_->{address} } @_)) }

sub metric
{
	my ($proxy, $name) = @_;
	my $text = HTTP::Tiny->new->get("http://127.0.0.1:$proxy->{http}/metrics")->{content};
	my $sum = 0;
	$sum += $1 while $text =~ /^evento_proxy_$name(?:\{[^}]*\})? ([\d.e+]+)$/mg;
	return $sum;
}

# ---- commands ----

sub commands_vs_batch
{
	my $fleet = fleet();
	my $pg = server();
	print "# aggregate commands of 64 callers, an aggregate each, through one proxy; append_batch of 100, 2 clients\n";
	return compare('/s',
		'commands' => sub { checkpoint($fleet->{pg}, 'evento'); per_second($fleet, at(@{ $fleet->{proxies} })) },
		'append_batch, events' => sub { checkpoint($pg, 'bench'); load($pg, 'append', 2, 100) });
}

sub commands_vs_single
{
	my $fleet = fleet();
	print "# the same; one append a transaction, 32 clients\n";
	return compare('/s',
		'commands' => sub { checkpoint($fleet->{pg}, 'evento'); per_second($fleet, at(@{ $fleet->{proxies} })) },
		'append' => sub {
			checkpoint($fleet->{pg}, 'evento');
			pgbench($fleet->{pg}, 'single', 'evento', 32, "\\set s random(1, 10000)\nSELECT evento.append('single-' || :s, 'OrderChanged', '${\EVENT}');\n");
		});
}

sub commands_one_aggregate
{
	my $fleet = fleet();
	print "# aggregate commands of 64 callers on one aggregate; on an aggregate each\n";
	return compare('/s',
		'one aggregate' => sub { per_second($fleet, at(@{ $fleet->{proxies} }), '--orders', 1) },
		'distinct' => sub { per_second($fleet, at(@{ $fleet->{proxies} })) });
}

# Statements of loads and appends, by the proxy's own count.
sub round_trips
{
	my $fleet = fleet();
	my $proxy = $fleet->{proxies}[0];
	my @ratios;
	for (1 .. runs())
	{
		my $before = metric($proxy, 'story_loads_total') + metric($proxy, 'append_batches_total');
		my $figures = run($fleet, at($proxy));
		push @ratios, (metric($proxy, 'story_loads_total') + metric($proxy, 'append_batches_total') - $before) / $figures->{answered};
	}
	printf "# stories loaded and batches appended for each command of 64 callers, an aggregate each: %s\n", join(' ', map { sprintf '%.2f', $_ } @ratios);
	return median(@ratios);
}

# ---- what commands and appends cost ----

# CPU seconds that the processes of a server, and others by name, have taken; ended children of ours are "clients".
sub processor_seconds
{
	my ($pg, %pids) = @_;
	my ($postmaster) = Evento::Host::slurp("$pg->{data}/postmaster.pid") =~ /^(\d+)/;
	my %name_of = reverse %pids;
	my %seconds = (clients => (times)[2] + (times)[3]);
	for my $dir (glob '/proc/[0-9]*')
	{
		my ($pid) = $dir =~ /(\d+)/;
		my ($parent, $user, $system, @ended) = (split ' ', Evento::Host::slurp("$dir/stat") =~ s/.*\)//sr)[ 1, 11 .. 14 ];
		next if !defined $system;
		$seconds{server} += ($ended[0] + $ended[1]) / POSIX::sysconf(POSIX::_SC_CLK_TCK()) if $pid == $postmaster;
		my $name = $name_of{$pid};
		$name = Evento::Host::slurp("$dir/cmdline") =~ /evento worker/ ? 'worker' : 'server' if $parent == $postmaster;
		$seconds{$name} += ($user + $system) / POSIX::sysconf(POSIX::_SC_CLK_TCK()) if $name;
	}
	return %seconds;
}

# Runs something that gives a number of times it was done; CPU microseconds of each process for one.
sub processor_us
{
	my ($run, @of) = @_;
	my %before = processor_seconds(@of);
	my $count = $run->();
	my %after = processor_seconds(@of);
	return map { $_ => ($after{$_} - ($before{$_} // 0)) * 1e6 / $count } keys %after;
}

# The same, by the medians of several runs, in a line; gives what all take together.
sub say_processor_us
{
	my ($what, $run, @of) = @_;
	my %us;
	for (1 .. runs())
	{
		my %one = processor_us($run, @of);
		push @{ $us{$_} }, $one{$_} for keys %one;
	}
	my %median = map { $_ => median(@{ $us{$_} }) } keys %us;
	my $all = 0;
	$all += $_ for values %median;
	printf "# CPU of %-30s %3.0f us: %s\n", $what, $all, join(', ', map { sprintf '%s %.0f', $_, $median{$_} } sort { $median{$b} <=> $median{$a} } keys %median);
	return $all;
}

# Beside what appends take that go to the server without a proxy.  A machine that does other work changes these figures little.
sub processor_time
{
	my $fleet = fleet();
	my $pg = server();
	my @proxies = at($fleet->{proxies}[0]);
	say_processor_us('append_batch of 100, an event', sub { load($pg, 'append', 2, 100) * seconds() }, $pg);
	say_processor_us('one append a transaction',
		sub { pgbench($pg, 'single', 'bench', 32, "\\set s random(1, 10000)\nSELECT evento.append('single-' || :s, 'OrderChanged', '${\EVENT}');\n") * seconds() }, $pg);
	return say_processor_us('a command through a proxy', sub { run($fleet, @proxies)->{answered} }, $fleet->{pg}, proxy => $fleet->{proxies}[0]{pid}, handlers => $fleet->{handlers});
}

# ---- queries ----

sub queries_vs_relay
{
	my $fleet = fleet();
	my $proxy = $fleet->{proxies}[0];
	my ($echo, $relay) = host()->free_ports(2);
	my $before = metric($proxy, 'received_bytes_total');
	my $answered = run($fleet, at($proxy), '--kind', 'query')->{answered};
	# Each query comes in twice, as the caller's request and as the handler's answer.
	my $bytes = int((metric($proxy, 'received_bytes_total') - $before) / (2 * $answered));
	my @pids = map { host()->start($_->{command}, out => $_->{log}) } (
		{ command => [ built()->{'bench-relay'}, 'echo', $echo ], log => host()->{dir} . '/log/echo.log' },
		{ command => [ built()->{'bench-relay'}, 'relay', $relay, $echo ], log => host()->{dir} . '/log/relay.log' });
	wait_port($_) for $echo, $relay;
	print "# queries of 64 callers through one proxy; messages of $bytes bytes through a relay that looks at nothing\n";
	my $exchanges = sub {
		my $said = Bench::run_client('bench-relay', built()->{'bench-relay'}, 'load', $relay, seconds(), 6, 64, $bytes, @_);
		return $said =~ m{^(\d+) exchanges/s} ? $1 : die "bench-relay said: $said";
	};
	my $ratio = compare('/s', 'queries' => sub { per_second($fleet, at($proxy), '--kind', 'query') }, 'relay' => $exchanges);
	# What the relay could do at most: the simulator's callers gather as well, what they have to say and not what they have read.
	printf "# %-28s median %7.0f /s\n", 'relay, answers gathered', median(map { $exchanges->('gather') } 1 .. runs());
	kill 'TERM', @pids;
	return $ratio;
}

sub wait_port
{
	my ($port) = @_;
	for (1 .. 200)
	{
		return if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
		sleep 0.02;
	}
	die "nobody listens at $port\n";
}

# Handlers at one proxy, callers there or at another one.
sub queries_elsewhere
{
	my $fleet = fleet();
	my ($here) = @{ $fleet->{proxies} };
	my $there = $fleet->{proxies}[1] // $fleet->start_proxy(2);
	$fleet->wait_ready($there);
	print "# queries of 64 callers, handled at another proxy; at the same\n";
	return compare('/s',
		'at another' => sub { per_second($fleet, at($there), '--kind', 'query') },
		'at the same' => sub { per_second($fleet, at($here), '--kind', 'query') });
}

# ---- latency, memory, start ----

sub p99_vs_p50
{
	my $fleet = fleet();
	my @proxies = at($fleet->{proxies}[0]);
	my @ratios;
	for (1 .. runs())
	{
		my $most = per_second($fleet, @proxies);
		my $figures = run($fleet, @proxies, '--rate', int($most / 2));
		my ($p50, $p99) = $figures->{latency_ms} =~ /p50 ([\d.]+) .*p99 ([\d.]+)/;
		printf "# aggregate commands at %d/s, half of the most: %s\n", $most / 2, $figures->{latency_ms};
		push @ratios, $p99 / ($p50 || 0.01);
	}
	return median(@ratios);
}

sub memory
{
	my $fleet = fleet();
	my $proxy = $fleet->start_proxy(scalar(@{ $fleet->{proxies} }) + 1);
	$fleet->wait_ready($proxy);
	my $figures = run($fleet, at($proxy), '--callers', 1000, '--connections', 1000);
	my ($peak) = Evento::Host::slurp("/proc/$proxy->{pid}/status") =~ /^VmHWM:\s+(\d+) kB/m;
	printf "# most resident memory of a proxy, 1,000 connections with a caller each, %s commands/s: %.1f MB\n", $figures->{per_second}, $peak / 1024;
	return $peak / 1024;
}

# From the start of the process to the first request that it answers over HTTP with the database's help.
sub start
{
	my $fleet = fleet();
	my @times;
	for my $run (1 .. runs())
	{
		my $begin = time;
		my $proxy = $fleet->start_proxy(100 + $run);
		my $http = HTTP::Tiny->new(timeout => 1);
		until ($http->get("http://127.0.0.1:$proxy->{http}/streams/none")->{status} =~ /^(?:200|404)$/)
		{
			die "no answer in 30 s\n" if time - $begin > 30;
			sleep 0.002;
		}
		push @times, time - $begin;
		kill 'TERM', $proxy->{pid};
		pop @{ $fleet->{proxies} };
	}
	printf "# start of a proxy to its first answer from the database, s: %s\n", join(' ', map { sprintf '%.3f', $_ } @times);
	return median(@times);
}

# ---- three proxies ----

sub commands
{
	my $cluster = Evento::Fleet->start(host => host(), built => built(), proxies => 3, conf => conf(), name => 'pg-cluster');
	$cluster->start_handlers(2);
	my @per_second;
	for (1 .. runs())
	{
		my $figures = run($cluster, '--consumers', 1, at(@{ $cluster->{proxies} }));
		print "# aggregate commands, 64 callers, 3 proxies: $figures->{per_second}/s, latency $figures->{latency_ms}, command to event $figures->{command_to_event_ms}\n";
		push @per_second, $figures->{per_second};
	}
	host()->end_processes;
	forget_server();
	undef $one;
	return median(@per_second);
}

1;
