# Evento::Simulator
#   evento-sim beside a test: bundles that handle and call, at one address, which
#   is a balancer's, say.  They go on through faults, and what became of every
#   command is on record, which is held against the log in the end: what was
#   answered is stored once, as it was answered, and what was not, once at most.
package Evento::Simulator;

use strict;
use warnings;

use File::Temp qw(tempdir);
use POSIX qw(:sys_wait_h);
use Test::More;
use Time::HiRes qw(sleep time);

my @started;

# Starts it.  program; at: host:port; run: the name that its orders begin with;
# options: more of its own.  Returns when commands are sent; undef where it has not
# come so far.
sub start
{
	my ($class, %opt) = @_;
	my $dir = tempdir('evento-sim.XXXXXX', TMPDIR => 1, CLEANUP => 1);
	my $self = bless { %opt, out => "$dir/out", record => "$dir/record", made => $$ }, $class;
	$self->{pid} = fork() // die "fork: $!\n";
	if ($self->{pid} == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>', $self->{out}) or die "$self->{out}: $!\n";
		open(STDERR, '>&', \*STDOUT);
		exec($opt{program}, '--proxies', $opt{at}, '--run', $opt{run}, '--record', $self->{record}, '--seconds', 3600, '--allow-failures', @{ $opt{options} // [] })
		  or POSIX::_exit(127);
	}
	push @started, $self;
	for (1 .. 600)
	{
		return $self if slurp($self->{out}) =~ /^ready /m;
		last if waitpid($self->{pid}, WNOHANG) != 0;
		sleep 0.1;
	}
	diag(slurp($self->{out}));
	return;
}

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	local $/;
	return <$fh> // '';
}

# The commands that have ended: [ answered or failed, seconds since 1970, order, … ].
sub ended
{
	my ($self) = @_;
	# The last line may be half written.
	my @ended = map { [split] } slurp($self->{record}) =~ /^(.*)\n/mg;
	$_->[1] /= 1000 for @ended;
	return @ended;
}

# The times at which commands were answered behind that one.
sub answered_after
{
	my ($self, $time) = @_;
	return map { $_->[1] } grep { $_->[0] eq 'answered' && $_->[1] > $time } $self->ended;
}

# Waits until so many have been answered behind that time; false where they are not.
sub goes_on
{
	my ($self, $n, $time, $timeout) = @_;
	my $until = time + $timeout;
	while ($self->answered_after($time) < $n)
	{
		return 0 if time > $until;
		sleep 0.2;
	}
	return 1;
}

# The longest time without an answer between two times.
sub longest_gap
{
	my ($self, $from, $to) = @_;
	my ($longest, $last) = (0, $from);
	for my $at (grep({ $_ < $to } $self->answered_after($from)), $to)
	{
		$longest = $at - $last if $at - $last > $longest;
		$last = $at;
	}
	return $longest;
}

# Ends the load, waits for the last answers and events, and tests that the checks
# of its own have held.
sub finish
{
	my ($self, $what) = @_;
	kill 'TERM', $self->{pid};
	my $until = time + 180;
	my $done = 0;
	while (!$done && time < $until)
	{
		$done = waitpid($self->{pid}, WNOHANG) != 0;
		sleep 0.1;
	}
	my $status = $?;
	$self->{over} = $done;
	my $out = slurp($self->{out});
	ok($done && $status == 0 && $out =~ /^wrong 0\n/m, "$what: its own checks of answers and events have held") or diag($out);
	note($out);
	return;
}

# Holds the record against the log.  stored: lines of order, revision and amount,
# with | between them, by position.
sub check
{
	my ($self, $what, $stored) = @_;
	my (%stored, %next, %answered, %failed, @wrong);
	my $n = 0;
	for my $line (split /\n/, $stored)
	{
		my ($name, $revision, $amount) = split /\|/, $line;
		my ($order) = $name =~ /^\Q$self->{run}\E-(\d+)$/ or next;
		my $due = ++$next{$order};
		push @wrong, "order $order has revision $revision where $due was due" if $revision != $due;
		$stored{"$order $revision"} = $amount;
	}
	for my $c ($self->ended)
	{
		my ($how, undef, $order, @more) = @$c;
		if ($how eq 'failed')
		{
			$failed{"$order $more[0]"}++;
			next;
		}
		my ($revision, $amount) = @more;
		$n++;
		push @wrong, "order $order was answered twice with revision $revision" if $answered{"$order $revision"}++;
		push @wrong, "order $order was answered with revision $revision, amount $amount; stored: " . ($stored{"$order $revision"} // 'nothing')
		  if ($stored{"$order $revision"} // '') ne $amount;
	}
	for my $key (grep { !$answered{$_} } keys %stored)
	{
		my ($order) = split / /, $key;
		push @wrong, "order and revision $key is of no command that was answered, nor of one that failed" if ($failed{"$order $stored{$key}"} //= 0)-- <= 0;
	}
	return is(join("\n", @wrong[ 0 .. ($#wrong < 9 ? $#wrong : 9) ]), '', "$what: every answered command is in the log exactly once, others once at most: $n");
}

END
{
	my $status = $?;
	for my $left (grep { !$_->{over} && $_->{made} == $$ } @started)
	{
		kill 'KILL', $left->{pid};
		waitpid $left->{pid}, 0;
	}
	$? = $status;
}

1;
