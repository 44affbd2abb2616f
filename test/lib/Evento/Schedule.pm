# Evento::Schedule
#   Runs the items of "make check" side by side, so many at a time.
#
#   An item is a hash with, where it applies: lane, of which one runs at a time;
#   early, where the lane is long and the rest is to run beside it; alone, the
#   reason why nothing may run beside it, for which it comes last.
package Evento::Schedule;

use strict;
use warnings;

use List::Util qw(first max min);
use Time::HiRes qw(sleep);

# What is to be there of memory for each file and its servers, in MB. Those that
# take more share a lane.
use constant ROOM => 2000;

# How many files this machine runs at a time: one a core, four at most.
sub default_jobs
{
	chomp(my $cores = `nproc 2>/dev/null` || 1);
	return max(1, min($cores, 4, int(memory() / ROOM)));
}

# The memory that is there, in MB: the machine's or, where it has less, the container's.
sub memory
{
	my $available = content('/proc/meminfo') =~ /^MemAvailable:\s+(\d+) kB/m ? $1 / 1024 : ROOM;
	return content('/sys/fs/cgroup/memory.max') =~ /^(\d+)$/m ? min($available, $1 / 1048576) : $available;
}

# Why a file asks for the machine for itself: what a line "# alone: …" says in
# the comment that it begins with; undef where there is none.
sub alone
{
	my ($file) = @_;
	my ($header) = content($file) =~ /\A((?:#.*\n)+)/ or return;
	return $header =~ /^# alone: +(\S.*)$/m ? $1 : undef;
}

# Runs the items: begin is called with each, and then done, over and over, until
# it gives true. With one at a time the order is that of the items.
sub run
{
	my ($jobs, $begin, $done, @items) = @_;
	my @waiting = $jobs == 1 ? @items : ((grep { $_->{early} } @items), (grep { !$_->{early} && !$_->{alone} } @items), grep { !$_->{early} && $_->{alone} } @items);
	my @running;
	while (@waiting || @running)
	{
		while (@running < $jobs && defined(my $n = first { fits($waiting[$_], @running) } 0 .. $#waiting))
		{
			my ($item) = splice @waiting, $n, 1;
			$begin->($item);
			push @running, $item;
		}
		@running = grep { !$done->($_) } @running;
		sleep 0.02;
	}
	return;
}

# Whether an item may run beside others.
sub fits
{
	my ($item, @running) = @_;
	return !@running if $item->{alone};
	return !grep { $_->{alone} || defined $_->{lane} && $_->{lane} eq ($item->{lane} // '') } @running;
}

sub content
{
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	local $/;
	return <$fh> // '';
}

1;
