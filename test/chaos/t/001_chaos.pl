# 001_chaos.pl
#   A cluster is broken at random: three PostgreSQL under Patroni with an etcd
#   each and synchronous replication, three proxies, and a balancer before them,
#   each node on a machine (a network namespace) of its own.  Callers and
#   consumers keep a record, which is held against the log in the end.  Prints how
#   long callers were without progress, by kind of fault.
#
#   EVENTO_CHAOS_SECONDS: for how long; EVENTO_CHAOS_SEED: a number, which gives
#   the same faults again, or "random"; EVENTO_CHAOS_KINDS: only kinds of faults
#   that match this pattern.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/..";

use Evento::Partition;

BEGIN { Evento::Partition::enter('--mount') }

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(clock_gettime sleep time CLOCK_MONOTONIC);

use Chaos::Clock;
use Chaos::Faults;
use Chaos::Load;
use Chaos::Network;
use Chaos::Proxies;
use Chaos::Schedule;
use Chaos::Verdict;
use Evento::Patroni;

use constant {
	CALLERS => 6,
	HANDLERS => 6,
	CONSUMERS => 3,
	FEW => 3,              # faults at least, however long they take
	DISK => 600,           # MB for each node of the database
	AGAIN => 120,          # seconds for callers to get through again; generous, since the machine may be busy
	WHOLE => 90,           # and for a node to come back, before it is made anew
	EVENTS => q(SELECT position, stream, version, data->>'tag', data->>'try', data->>'revision' FROM evento.events ORDER BY position),
};

my $seconds = $ENV{EVENTO_CHAOS_SECONDS} || 60;
my $seed = $ENV{EVENTO_CHAOS_SEED} // 20;
$seed = (time ^ $$ << 8) & 0x7fffffff if $seed eq 'random';
my $kinds = qr/@{[ $ENV{EVENTO_CHAOS_KINDS} || '.' ]}/;
# A run of ten minutes and more is held to these; a shorter one may be on a slow machine.
my ($least_faults, $least_answered) = $seconds >= 600 ? (40, 10_000) : (FEW, 2 * $seconds);

for my $why (Evento::Partition::why(), Evento::Patroni::why_not())
{
	plan skip_all => $why if defined $why;
}
$| = 1;
# END blocks end what was started.
$SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);

my ($network, $database, $proxies, $load, $faults);
my $dir = PostgreSQL::Test::Utils::tempdir('chaos');
my @nodes = map { "pg$_" } 1 .. 3;
my @proxies = map { "proxy$_" } 1 .. 3;
my (%disk, %clock, @without, @anew);

sub monotonic { return clock_gettime(CLOCK_MONOTONIC) }

# PostgreSQL's programs, of which the server is one that has a clock of its own.
sub programs
{
	my ($name) = @_;
	my $bin = "$dir/bin-$name";
	mkdir $bin or die "$bin: $!";
	symlink $_, "$bin/" . s{.*/}{}r for grep { !m{/postgres$} } glob "$ENV{EVENTO_BINDIR}/*";
	my %env = $clock{$name}->environment;
	open(my $fh, '>', "$bin/postgres") or die "$bin/postgres: $!";
	print $fh "#!/bin/sh\nexec env", (map { " $_='$env{$_}'" } sort keys %env), " '$ENV{EVENTO_BINDIR}/postgres' \"\$@\"\n";
	close $fh or die "$bin/postgres: $!";
	chmod 0755, "$bin/postgres";
	return $bin;
}

sub start_all
{
	$network = Chaos::Network->new(@nodes, @proxies);
	for my $name (@nodes)
	{
		$disk{$name} = "$dir/disk-$name";
		mkdir $disk{$name} or die "$disk{$name}: $!";
		# In the mount namespace of this program, with which it ends.
		my $said = `mount -t tmpfs -o size=@{[DISK]}m,mode=0700 evento-chaos '$disk{$name}' 2>&1`;
		push @without, 'disk full', 'no space for WAL' if $? != 0;
		diag("no disk of its own for $name: $said") if $? != 0;
		$clock{$name} = Chaos::Clock->new("$dir/$name.clock");
	}
	push @without, 'clock of a node', 'clock of a proxy' if Chaos::Clock::why_not();
	# Quicker than docker/postgres/patroni.yaml, so that ten minutes have more faults, and with little WAL, since disks are small.
	$database = Evento::Patroni->new(
		nodes => 3, etcds => 3, network => Chaos::Network::network(), ttl => 10, loop_wait => 2, retry_timeout => 4,
		places => [ map { { address => $network->address($_), within => [ $network->within($_) ], data => "$disk{$_}/data", bin => programs($_) } } @nodes ],
		parameters => "    wal_sender_timeout: 5s\n    wal_receiver_timeout: 5s\n    wal_keep_size: 64MB\n    max_wal_size: 128MB\n    log_min_messages: info\n");
	$database->start_all(240) or BAIL_OUT(join "\n", map { $database->log($_) } $database->names);
	$database->sql('CREATE EXTENSION evento; CREATE ROLE proxy LOGIN IN ROLE evento_proxy');
	$proxies = Chaos::Proxies->new(network => $network, names => \@proxies, database => $database->hosts . ' user=proxy', dir => $dir, logs => $PostgreSQL::Test::Utils::log_path);
	$load = Chaos::Load->start(port => $proxies->{port}, dir => $PostgreSQL::Test::Utils::log_path, callers => CALLERS, handlers => HANDLERS, consumers => CONSUMERS);
	$faults = Chaos::Faults->new(network => $network, database => $database, proxies => $proxies, clocks => \%clock, disks => \%disk);
	return;
}

# Faults until the time is up: each once more when every caller gets through again.  Gives them with their times.
sub break_things
{
	my $schedule = Chaos::Schedule->new($seed, @without, grep { $_ !~ $kinds } Chaos::Schedule::kinds());
	my $until = time + $seconds;
	my @done;
	while (time < $until || @done < FEW)
	{
		my $fault = $schedule->next;
		if ($fault->{database} && !whole())
		{
			fail('every node of the database comes back') or diag(map { last_lines($_) } @nodes);
			last;
		}
		$fault->{from} = monotonic();
		my $whom = $faults->strike($fault);
		$fault->{healed} = monotonic();
		my $ok = $load->goes_on(CALLERS, $fault->{healed}, AGAIN);
		$fault->{to} = monotonic();
		push @done, $fault;
		my $what = sprintf '%s (%s)%s', $fault->{kind}, $whom, $fault->{hold} ? " for $fault->{hold} s" : '';
		ok($ok, sprintf '%s: every caller gets through again, %.1f s after its end', $what, $fault->{to} - $fault->{healed}) or last;
		sleep $fault->{rest};
	}
	return @done;
}

# Waits until every node of the database follows the primary.  One that does not by itself is made anew, as its operator would
# do: where two nodes were promoted, one behind the other and before either saw the other's timeline, both have the same
# number for theirs, and Patroni takes one for the other.
sub whole
{
	return 1 if Evento::Patroni::until_true(WHOLE, sub { $database->whole });
	for my $name ($database->astray)
	{
		push @anew, $name;
		diag("$name does not follow the primary, and is made anew: " . $database->ctl_beside(sub { sleep 0.02 }, 'reinit', 'evento', $name, '--force'));
	}
	return Evento::Patroni::until_true(WHOLE, sub { $database->whole });
}

sub last_lines
{
	my ($name) = @_;
	my @lines = split /\n/, $database->log($name);
	return map { "$name: $_\n" } @lines > 20 ? @lines[ -20 .. -1 ] : @lines;
}

sub verify
{
	my (@done) = @_;
	ok(whole(), 'every node of the database is there in the end');
	ok($load->finish, 'the load ends: nothing stays open, and consumers come to its end') or diag(PostgreSQL::Test::Utils::slurp_file($load->{errors}));
	is(join('; ', $faults->wrong), '', 'proxies end in order, what Patroni is told it does, and clocks and disks are as faults have them');
	$database->sql('CALL evento.wait(NULL)');
	my $log = $database->sql(EVENTS);
	is(join(' ', grep { my $name = $_; !Evento::Patroni::until_true(WHOLE, sub { $database->sql(EVENTS, $name) eq $log }) } @nodes), '', 'all nodes of the database have the same log');
	my $verdict = Chaos::Verdict->new($load->{file}, $log);
	none('every answered command is in the log', $verdict->lost);
	none('no command is there twice', $verdict->twice);
	none('answers are what is stored', $verdict->different);
	none('streams are linearizable', $verdict->not_linearizable);
	none('every consumer has seen every event once, in order', $verdict->not_seen);
	is($database->sql('SELECT count(*) FROM evento.consumers WHERE lost_range'), '0', 'no consumer is named for events that were lost');
	my ($sent, $answered) = ($verdict->sent, $verdict->answered);
	cmp_ok($answered, '>=', $least_answered, 'commands were answered');
	# Of few commands those that a fault takes may be more than a tenth: all that callers have open.
	cmp_ok($answered, '>=', 0.9 * $sent - ($seconds >= 600 ? 0 : 2 * CALLERS * @done), 'nearly all that were sent');
	cmp_ok(scalar @done, '>=', $least_faults, 'there were faults');
	my %why = $verdict->failures;
	note(sprintf '%d faults, %d commands sent, %d answered (%.2f %%), %d repeats', scalar @done, $sent, $answered, 100 * $answered / ($sent || 1), $verdict->{repeats});
	note('  made anew: ' . (join(' ', @anew) || 'no node of the database'));
	note("  $why{$_} times " . ($_ || 'no answer')) for sort keys %why;
	report($verdict, @done);
	return;
}

sub none
{
	my ($what, @found) = @_;
	return is(join('; ', @found[ 0 .. ($#found < 4 ? $#found : 4) ]), '', $what);
}

# By kind: how often, and the longest time that any caller was without a success from the fault's beginning until all got through.
sub report
{
	my ($verdict, @done) = @_;
	my (%n, %longest);
	for my $f (@done)
	{
		my $gap = $verdict->longest_gap(@$f{qw(from to)});
		$n{ $f->{kind} }++;
		$longest{ $f->{kind} } = $gap if $gap > ($longest{ $f->{kind} } // 0);
	}
	note('longest time without progress of any caller:');
	note(sprintf '  %-38s %2d times  %5.1f s', $_, $n{$_}, $longest{$_}) for sort keys %n;
	return;
}

note("seed $seed, $seconds s; the same again: make chaos SECONDS=$seconds SEED=$seed", $ENV{EVENTO_CHAOS_KINDS} ? " KINDS='$ENV{EVENTO_CHAOS_KINDS}'" : ());
start_all();
ok($load->goes_on(CALLERS, 0, AGAIN), 'there is load');
my @done = break_things();
verify(@done);
done_testing();
