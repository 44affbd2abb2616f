# 121_link_slots.pl
#   Silent connections to the internal port, more than are let greet, opened
#   again as soon as they are closed: other proxies get through all the same.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Test::More;

use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $one = $test->start;

# From an address of their own, and from that of the proxies.
for my $from ('127.0.0.2', '127.0.0.1')
{
	my $log_from = -s $one->{log};
	pipe(my $told, my $tell) or die "pipe: $!";
	my $pid = fork // die "fork: $!";
	if (!$pid)
	{
		my %open;
		my $select = IO::Select->new;
		my $told_full = 0;
		while (1)
		{
			while (keys %open < 100)
			{
				my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $one->{internal}, LocalAddr => $from, Timeout => 5) or last;
				$open{ fileno $socket } = $socket;
				$select->add($socket);
			}
			syswrite $tell, 'x' if keys %open == 100 && !$told_full++;
			for my $socket ($select->can_read(0.01))
			{
				# What comes is the end: the proxy waits for a greeting.
				next if sysread $socket, my $bytes, 100;
				$select->remove($socket);
				delete $open{ fileno $socket };
				$socket->close;
			}
		}
	}
	Evento::ProxyTest::started($pid);
	close $tell;
	is(sysread($told, my $full, 1), 1, "$from: silent connections");
	ok(scalar $one->wait_log_since({ log_from => $log_from }, 'too many connections that have proven nothing'), "$from: are more than are let greet");
	my $two = $test->start;
	ok($one->wait_for(sub { $one->metric('links') == 2 && $two->metric('links') == 2 }), "$from: another proxy is linked all the same")
	  or diag('links: ' . $one->metric('links') . ' and ' . $two->metric('links'));
	ok($one->wait_for(sub { kill 0, $pid }, 0), "$from: while they go on");
	# An address that has a few is not asked to make room for one that has many.
	my @refused = grep { /warning link 127\.0\.0\.1:$one->{internal}: to proxy/ } split /\n/, $two->log;
	# Between proxies that get no CPU time it may take several.
	@refused = grep { !/no (?:greeting|connection) in time/ } @refused;
	is("@refused", '', "$from: at the first attempt") if $from ne '127.0.0.1';
	note("$from: @refused");
	is($two->stop, 0, "$from: it leaves");
	kill 'KILL', $pid;
	waitpid $pid, 0;
	Evento::ProxyTest::ended($pid);
}
is($one->stop, 0, 'the proxy ends');

done_testing();
