# Evento::Names
#   A resolver of the test's own, in a network and mount namespace of its own:
#   names and their addresses are the test's, and nothing of the machine's is
#   asked or changed.
package Evento::Names;

use strict;
use warnings;

use Carp qw(croak);
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils ();
use Socket qw(inet_aton);

use Evento::ProxyTest;

my $why;
my $file;

# Runs the program that calls this again in namespaces of its own; returns there.  Where this machine lets nobody do so it
# returns too, and why() gives the reason.
sub enter
{
	if (!$ENV{EVENTO_IN_NAMESPACE})
	{
		my @unshare = qw(unshare --user --map-current-user --keep-caps --net --mount --);
		my $said = `@unshare true 2>&1`;
		if ($? == 0)
		{
			$ENV{EVENTO_IN_NAMESPACE} = 1;
			exec @unshare, $^X, $0, @ARGV or die "unshare: $!\n";
		}
		$why = 'no network and mount namespaces here: ' . (split /\n/, $said || 'unshare is not there')[0];
		return;
	}
	$ENV{PATH} = "$ENV{PATH}:/usr/sbin:/sbin";
	my $dir = $ENV{TESTDIR} // '/tmp';
	my %instead = ('/etc/resolv.conf' => "nameserver 127.0.0.1\noptions timeout:5 attempts:5\n", '/etc/nsswitch.conf' => "hosts: files dns\n");
	my $said = `ip link set lo up 2>&1`;
	for my $path (sort keys %instead)
	{
		last if $? != 0;
		my $own = "$dir/" . ($path =~ s{.*/}{}r);
		open(my $to, '>', $own) or die "$own: $!\n";
		print $to $instead{$path};
		close $to or die "$own: $!\n";
		$said = `mount --bind '$own' '$path' 2>&1`;
	}
	$why = "no resolver in the namespace: $said" if $? != 0;
	return;
}

sub why { return $why }

# Sets the addresses of names: name => [ address, … ], or undef for one that is never answered, for which who asks waits 25 s.  fixed => 1: they are always given in this order, else each answer
# begins with the next.
sub set
{
	my (%names) = @_;
	my $fixed = delete $names{fixed} ? 1 : 0;
	PostgreSQL::Test::Utils::append_to_file("$file.new", join '', "fixed $fixed\n", map { "$_ @{ $names{$_} // ['-'] }\n" } sort keys %names);
	rename "$file.new", $file or croak "rename: $!";
	return;
}

# Starts to answer.
sub start
{
	my (%names) = @_;
	$file = PostgreSQL::Test::Utils::tempdir() . '/names';
	set(%names);
	my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 53, Proto => 'udp') or croak "bind port 53: $@";
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		serve($socket);
		POSIX::_exit(1);
	}
	Evento::ProxyTest::started($pid);
	close $socket;
	return;
}

sub serve
{
	my ($socket) = @_;
	my $turn = 0;
	while (defined(my $peer = $socket->recv(my $query, 4096)))
	{
		my $answer = answer($query, $turn++) // next;
		$socket->send($answer, 0, $peer);
	}
	return;
}

sub known
{
	open(my $in, '<', $file) or return {};
	return { map { my ($name, @rest) = split; $name => \@rest } <$in> };
}

# An answer to a query with one question: the A records of a name, none of another type, and that there is no other name.
# undef: there is none.
sub answer
{
	my ($query, $turn) = @_;
	return undef if length $query < 17;
	my ($id, $flags, $questions) = unpack 'nnn', $query;
	my ($at, @labels) = (12);
	while ($at < length $query && (my $n = ord substr $query, $at, 1))
	{
		push @labels, substr $query, $at + 1, $n;
		$at += 1 + $n;
	}
	return undef if $questions != 1 || $flags & 0x8000 || $at + 5 > length $query;
	my $type = unpack 'n', substr $query, $at + 1, 2;
	my $known = known();
	my $addresses = $known->{ lc join '.', @labels };
	return undef if $addresses && "@$addresses" eq '-';
	my @given = $type == 1 ? @{ $addresses // [] } : ();
	push @given, splice @given, 0, $turn % @given if @given && !$known->{fixed}[0];
	return pack('nnnnnn', $id, 0x8580 | ($flags & 0x0100) | ($addresses ? 0 : 3), 1, scalar @given, 0, 0) . substr($query, 12, $at + 5 - 12)
	  . join '', map { pack('nnnNn', 0xc00c, 1, 1, 0, 4) . inet_aton($_) } @given;
}

1;
