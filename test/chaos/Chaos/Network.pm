# Chaos::Network
#   Machines that are network namespaces: each has an address and a link to a
#   bridge in the namespace of the program that makes them, which is one of its
#   own (Evento::Partition::enter).  A link can be pulled, and what comes from one
#   machine be dropped at another, one way or both.
package Chaos::Network;

use strict;
use warnings;

use Carp qw(croak);
use Time::HiRes qw(sleep time);

use Evento::Partition;

use constant {
	NET => '10.99.0',
	HERE => 1,         # the bridge's, where the program itself, its callers and the balancer are
};

my @all;

# machines: their names, whose addresses follow one another from 11 on.
sub new
{
	my ($class, @machines) = @_;
	my $self = bless { machines => {} }, $class;
	push @all, $self;
	ip(qw(link add bridge type bridge));
	ip('addr', 'add', NET . '.' . HERE . '/24', 'dev', 'bridge');
	ip(qw(link set bridge up));
	my $n = 10;
	$self->add($_, NET . '.' . ++$n) for @machines;
	return $self;
}

sub network { return NET . '.0/24' }

sub ip
{
	my (@args) = @_;
	system('ip', @args) == 0 or croak "ip @args: $?";
	return;
}

# A machine is a process that does nothing but hold its namespace, and ends with this one.
sub add
{
	my ($self, $name, $address) = @_;
	my $ours = readlink '/proc/self/ns/net' or croak "/proc/self/ns/net: $!";
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		# It holds no file of ours open, so that who reads our output sees its end.
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>', '/dev/null');
		open(STDERR, '>&', \*STDOUT);
		exec qw(setpriv --pdeathsig KILL unshare --net -- sleep infinity) or POSIX::_exit(127);
	}
	my $machine = $self->{machines}{$name} = { name => $name, address => $address, holder => $pid, link => "to-$name" };
	my $until = time + 30;
	until (($machine->{namespace} = readlink("/proc/$pid/ns/net") // $ours) ne $ours)
	{
		croak "$name has no namespace" if time > $until || waitpid($pid, POSIX::WNOHANG()) != 0;
		sleep 0.02;
	}
	ip('link', 'add', $machine->{link}, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', $pid);
	ip('link', 'set', $machine->{link}, 'master', 'bridge', 'up');
	my @inside = $self->within($name);
	for my $command ([ qw(addr add), "$address/24", qw(dev eth0) ], [qw(link set eth0 up)], [qw(link set lo up)])
	{
		system(@inside, 'ip', @$command) == 0 or croak "ip @$command of $name: $?";
	}
	return;
}

sub address { return $_[0]{machines}{ $_[1] }{address} }

# What before a command has it run on a machine, with the same pid.
sub within { return ('nsenter', "--net=/proc/$_[0]{machines}{$_[1]}{holder}/ns/net", '--') }

# The pids of all that runs on a machine.
sub processes
{
	my ($self, $name) = @_;
	my $machine = $self->{machines}{$name};
	return grep { $_ != $machine->{holder} && (readlink("/proc/$_/ns/net") // '') eq $machine->{namespace} } map { m{/(\d+)$} } glob '/proc/[0-9]*';
}

# Ends all that runs on a machine at once, as the loss of its power does.
sub power_off
{
	my ($self, $name) = @_;
	my $until = time + 30;
	while (my @pids = $self->processes($name))
	{
		kill 'KILL', @pids;
		waitpid $_, POSIX::WNOHANG() for @pids;
		croak "@pids of $name do not end" if time > $until;
		sleep 0.01;
	}
	return;
}

# Freezes a machine, and lets it go on.
sub freeze { my ($self, $name) = @_; kill 'STOP', $self->processes($name); return }

sub thaw { my ($self, $name) = @_; kill 'CONT', $self->processes($name); return }

# Pulls a machine's link, or puts it back.
sub pull { my ($self, $name) = @_; ip('link', 'set', $self->{machines}{$name}{link}, 'down'); return }

sub plug { my ($self, $name) = @_; ip('link', 'set', $self->{machines}{$name}{link}, 'up'); return }

# Drops at one machine what comes from another.
sub drop
{
	my ($self, $from, $at) = @_;
	my $machine = $self->{machines}{$at};
	system($self->within($at), Evento::Partition::program(), '-w', '-A', 'INPUT', '-s', $self->address($from), '-j', 'DROP') == 0 or croak "iptables at $at: $?";
	$machine->{rules} = 1;
	return;
}

# Cuts machines off from others.  way: to (what goes to the former is lost), from, both.
sub cut
{
	my ($self, $way, $these, $others) = @_;
	for my $this (@$these)
	{
		for my $other (grep { $_ ne $this } @$others)
		{
			$self->drop($other, $this) if $way ne 'from';
			$self->drop($this, $other) if $way ne 'to';
		}
	}
	return;
}

sub heal
{
	my ($self) = @_;
	for my $name (sort keys %{ $self->{machines} })
	{
		$self->plug($name);
		next if !delete $self->{machines}{$name}{rules};
		system($self->within($name), Evento::Partition::program(), '-w', '-F', 'INPUT') == 0 or croak "iptables -F at $name: $?";
	}
	return;
}

# Ends all that runs on the machines, and them.
sub end
{
	my ($self) = @_;
	for my $name (keys %{ $self->{machines} })
	{
		$self->power_off($name);
		my $machine = delete $self->{machines}{$name};
		kill 'KILL', $machine->{holder};
		waitpid $machine->{holder}, 0;
	}
	return;
}

END
{
	my $status = $?;
	$_->end for @all;
	$? = $status;
}

1;
