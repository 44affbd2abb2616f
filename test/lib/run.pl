#!/usr/bin/perl
# run.pl
#   The demonstration of "make run": a private PostgreSQL, three proxies and
#   HAProxy before them; bundles of an order application handle commands that
#   come in through every proxy; then the log is asked in SQL what it holds.
#   Stays until Ctrl-C, or with --once ends with the demonstration's result.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Time::HiRes qw(sleep time);

my $top;
BEGIN { $top = abs_path(dirname(__FILE__) . '/../..') }
use lib "$top/test/lib";
use Evento::Fleet;
use Evento::Host;

use constant COMMANDS => 6000;
use constant CALLERS => 48;

my $once = grep { $_ eq '--once' } @ARGV;
if (my ($unknown) = grep { $_ ne '--once' } @ARGV)
{
	print STDERR "unknown argument $unknown; ARGS=--once is the only one\n";
	exit 2;
}
my $host;

$| = 1;
$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub {
	$SIG{$_} = 'IGNORE' for qw(INT TERM HUP);
	print "\nStopping.\n";
	exit($once ? 130 : 0);
};
END { my $status = $?; $host->cleanup if $host; $? = $status }

exit main();

sub main
{
	$host = Evento::Host->new(top => $top, name => 'run');
	print "Building.\n";
	my $built = Evento::Fleet::build($host, $top, qw(proxy sim));
	print "Starting a private PostgreSQL, three proxies, and HAProxy before them.\n";
	my $cluster = Evento::Fleet->start(host => $host, built => $built, proxies => 3, haproxy => 1);
	printf "  %-10s %s   HTTP http://127.0.0.1:%d\n", @{$_}{qw(name address http)} for @{ $cluster->{proxies} };
	printf "  %-10s %s\n\n", 'HAProxy', $cluster->{haproxy}{address};

	my $ok = demonstrate($cluster);
	print $ok ? "\nThe demonstration succeeded.\n" : "\nThe demonstration FAILED.\n";
	return $ok ? 0 : 1 if $once;
	invite($cluster);
	return stay($cluster);
}

# Plays both parts; true where every figure is as expected.
sub demonstrate
{
	my ($cluster) = @_;
	my @proxies = @{ $cluster->{proxies} };
	my $ok = 1;

	print "Two instances each of a command bundle and a query bundle connect, spread over the proxies.\n";
	$cluster->start_handlers(2);
	printf "%s commands (place an order, change it) from %d callers through all three proxies:\n\n", thousands(COMMANDS), CALLERS;
	my $direct = $cluster->callers('direct', '--callers', CALLERS, '--connections', 6, '--consumers', 1, '--count', COMMANDS,
		'--proxies', join(',', map { $_->{address} } @proxies));
	$ok &&= report($cluster, 'direct', $direct, @proxies);

	printf "\nThe same through HAProxy, %s commands:\n\n", thousands(COMMANDS / 3);
	my $balanced = $cluster->callers('balanced', '--callers', CALLERS, '--connections', 6, '--consumers', 1, '--count', COMMANDS / 3,
		'--proxies', $cluster->{haproxy}{address});
	$ok = report($cluster, 'balanced', $balanced, { name => 'HAProxy', address => $cluster->{haproxy}{address} }) && $ok;

	printf "\nOne caller alone, its consumer at another proxy, %s commands one after the other:\n\n", thousands(COMMANDS / 20);
	my $alone = $cluster->callers('alone', '--callers', 1, '--connections', 1, '--consumers', 1, '--count', COMMANDS / 20,
		'--proxies', join(',', map { $_->{address} } @proxies));
	print "The simulator's checks did not hold:\n$alone->{text}\n" if !$alone->{ok};
	delays_of($alone);
	return $ok && $alone->{ok};
}

# Prints what the callers were answered beside what the log and a consumer's
# projection hold; true where all agree.
sub report
{
	my ($cluster, $run, $figures, @proxies) = @_;
	my @bad;

	if (!$figures->{ok})
	{
		print "The simulator's checks did not hold:\n$figures->{text}\n";
		push @bad, 'the simulator';
	}
	for my $proxy (@proxies)
	{
		my $n = $figures->{"answered_at $proxy->{address}"} // 0;
		printf "  commands answered through %-8s %8s\n", $proxy->{name}, thousands($n);
		push @bad, "no command went through $proxy->{name}" if !$n;
	}
	my ($events, $total, $orders, $dense) = split /\|/, $cluster->sql(<<"SQL");
SELECT count(*), coalesce(sum((data->>'amount')::bigint), 0), count(DISTINCT stream),
       (SELECT count(*) FROM (SELECT FROM evento.events WHERE stream LIKE '$run-%' GROUP BY stream HAVING max(version) = count(*)) d)
  FROM evento.events WHERE stream LIKE '$run-%'
SQL
	printf "\n  %-25s %16s %16s %16s\n", '', 'as answered', 'log, in SQL', 'projection';
	for my $row (
		[ 'events', $figures->{answered}, $events, $figures->{projected_revisions} ],
		[ 'sum of their amounts', $figures->{answered_total}, $total, $figures->{projected_total} ],
		[ 'orders', CALLERS, $orders ],
		[ 'orders without a gap', CALLERS, $dense ])
	{
		my ($what, @numbers) = @$row;
		my $same = !grep { !defined || $_ != ($numbers[0] // -1) } @numbers;
		printf "  %-25s%s%s\n", $what, join('', map { sprintf ' %16s', thousands($_) } @numbers), $same ? '' : '   <-- differs';
		push @bad, $what if !$same;
	}
	print "\n";
	delays_of($figures);
	return !@bad;
}

# Prints how long things took.
sub delays_of
{
	my ($figures) = @_;
	printf "  %s commands a second, each answered after %s\n", thousands($figures->{per_second}), delays($figures->{latency_ms});
	printf "  from a command to its event at a consumer on another connection: %s\n", delays($figures->{command_to_event_ms});
	return;
}

sub thousands
{
	my ($n) = @_;
	return '-' if !defined $n;
	1 while $n =~ s/^(\d+)(\d{3})/$1,$2/;
	return $n;
}

# "p50 1.20 p99 3.40" as "1.20 ms (median), 3.40 ms (99 %)".
sub delays
{
	my %at = ($_[0] // '') =~ /(p\d+) ([\d.]+)/g;
	return sprintf '%s ms (median), %s ms (99 %%)', map { $at{$_} // '-' } qw(p50 p99);
}

sub invite
{
	my ($cluster) = @_;
	my $pg = $cluster->{pg};
	print <<"TEXT";

Everything stays up until Ctrl-C. Bundles connect to $cluster->{haproxy}{address}, or to any of the proxies above. SQL to try:

  $pg->{bin}/psql -h $pg->{sock} -p $pg->{port} -U postgres evento

  SELECT stream, version FROM evento.streams LIMIT 5;
  SELECT position, stream, version, type, data FROM evento.events ORDER BY position DESC LIMIT 5;
  SELECT evento.append('order-1', 'OrderPlaced', '{"amount": 10}', expected => 0);
  SELECT version, type, data FROM evento.read_stream('order-1');
  SELECT name, advertised, live, instances FROM evento.proxies;
  SELECT bundle, instance, proxy, enabled FROM evento.bundles;

  curl http://127.0.0.1:$cluster->{proxies}[0]{http}/metrics

Logs are in $host->{dir}/log.
TEXT
	return;
}

# Waits for Ctrl-C; a part that ends by itself is said, and ends it.
sub stay
{
	my ($cluster) = @_;
	while (1)
	{
		for my $part (@{ $cluster->{proxies} }, { name => 'HAProxy', %{ $cluster->{haproxy} } })
		{
			next if $host->alive($part->{pid});
			print "$part->{name} has ended by itself:\n", Evento::Host::slurp($part->{log});
			return 1;
		}
		sleep 0.5;
	}
}
