# Evento::Partition
#   Connections that carry nothing any more, in either or one direction, without
#   an end being told: iptables DROP, in a network namespace of the test's own.
package Evento::Partition;

use strict;
use warnings;

use Carp qw(croak);

my $iptables;
my $why;

# Runs the program that calls this again in a network namespace of its own, where its user may set rules; returns there.
# Where this machine lets nobody do so it returns too, and why() gives the reason.  more: what else of its own it is to have,
# as unshare names it.
sub enter
{
	my (@more) = @_;
	if (!$ENV{EVENTO_IN_NAMESPACE})
	{
		my @unshare = (qw(unshare --user --map-current-user --keep-caps --net), @more, '--');
		my $said = `@unshare true 2>&1`;
		if ($? == 0)
		{
			$ENV{EVENTO_IN_NAMESPACE} = 1;
			exec @unshare, $^X, $0, @ARGV or die "unshare: $!\n";
		}
		$why = 'no network namespace here: ' . (split /\n/, $said || 'unshare is not there')[0];
		return;
	}
	$ENV{PATH} = "$ENV{PATH}:/usr/sbin:/sbin";
	# The older of the two has a lock file, which is root's elsewhere.
	$ENV{XTABLES_LOCKFILE} = "$ENV{TESTDIR}/xtables.lock" if defined $ENV{TESTDIR};
	my $said = `ip link set lo up 2>&1`;
	if ($? != 0)
	{
		$why = "no loopback in the namespace: $said";
		return;
	}
	for my $program (qw(iptables iptables-nft iptables-legacy))
	{
		$said = `$program -w -A INPUT -i lo -p tcp --dport 1 -j DROP 2>&1 && $program -w -F INPUT 2>&1`;
		next if $? != 0;
		$iptables = $program;
		return;
	}
	$why = 'no iptables here: ' . (split /\n/, $said)[0];
	return;
}

sub why { return $why }

# What sets rules here.
sub program { return $iptables }

# Drops what a rule matches, until heal.
sub drop
{
	my (@match) = @_;
	system($iptables, '-w', '-A', 'INPUT', '-i', 'lo', '-p', 'tcp', @match, '-j', 'DROP') == 0 or croak "iptables @match: $?";
	return;
}

# Drops what goes to a listening port, and what comes from it.  direction: to, from, both; address: the listener's; peer: only
# with the connection from this port.
sub cut
{
	my ($direction, $port, %opt) = @_;
	drop('--dport', $port, ($opt{address} ? ('-d', $opt{address}) : ()), ($opt{peer} ? ('--sport', $opt{peer}) : ())) if $direction ne 'from';
	drop('--sport', $port, ($opt{address} ? ('-s', $opt{address}) : ()), ($opt{peer} ? ('--dport', $opt{peer}) : ())) if $direction ne 'to';
	return;
}

sub heal
{
	system($iptables, '-w', '-F', 'INPUT') == 0 or croak "iptables -F: $?";
	return;
}

1;
