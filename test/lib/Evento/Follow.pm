# Evento::Follow
#   What follows the log while something happens, in the test's own process
#   beside Evento::Traffic (beside => [...]): a stream of server-sent events, a
#   bundle's consumer, a client that appends over HTTP.  Each comes back by
#   itself wherever it is let in, keeps a record, and compares it with the log.
package Evento::Follow;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_ERROR);
use Test::More;
use Time::HiRes qw(time);

use constant AGAIN => 0.2;    # seconds between attempts to connect

# name; port: where it connects; after: the position that it begins behind; timeout: of a consumer's fetch, in seconds.
sub new
{
	my ($class, %opt) = @_;
	return bless { after => 0, next => 0, seen => [], at => [], wrong => [], comes => 0, %opt }, $class;
}

# Its socket, for a select; undef while it has none.
sub socket { my ($self) = @_; return $self->{socket} }

# What is due; called over and over.
sub turn
{
	my ($self) = @_;
	if (!$self->{socket})
	{
		return if time < $self->{next};
		$self->{next} = time + AGAIN;
		$self->{socket} = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 2) or return;
		$self->{text} = '';
		$self->{comes}++;
		$self->begin;
	}
	while ($self->{socket} && IO::Select->new($self->{socket})->can_read(0))
	{
		if (!sysread $self->{socket}, $self->{text}, 1 << 20, length $self->{text}) { $self->lose }
		else { $self->take }
	}
	return;
}

sub lose { my ($self) = @_; $self->{socket}->close; delete $self->{socket}; return }

# An event has come.
sub got
{
	my ($self, $position) = @_;
	push @{ $self->{wrong} }, "$position behind $self->{after}" if $position <= $self->{after};
	$self->{after} = $position;
	push @{ $self->{seen} }, $position;
	push @{ $self->{at} }, time;
	return;
}

# The longest time between two events, in seconds.
sub longest_gap
{
	my ($self, $from, $to) = @_;
	my ($longest, $last) = (0, $from);
	for my $at ((grep { $_ > $from && $_ < $to } @{ $self->{at} }), $to)
	{
		$longest = $at - $last if $at - $last > $longest;
		$last = $at;
	}
	return $longest;
}

# Has it come to a position?
sub reached { my ($self, $position) = @_; return $self->{after} >= $position }

# Compares what it has seen with the positions that the log has.
sub check
{
	my ($self, $what, @positions) = @_;
	my %count;
	$count{$_}++ for @{ $self->{seen} };
	my @missed = grep { !$count{$_} } @positions;
	is("@{ $self->{wrong} }[0 .. ($#{ $self->{wrong} } < 4 ? $#{ $self->{wrong} } : 4)]", '', "$what: $self->{name} has each event once, in order");
	is("@missed[0 .. ($#missed < 4 ? $#missed : 4)]", '', "$what: $self->{name} missed none of " . @positions);
	cmp_ok(scalar @{ $self->{seen} }, '==', scalar @positions, "$what: $self->{name} saw no other");
	note("$what: $self->{name} came $self->{comes} times");
	return;
}

# ---- server-sent events ----

package Evento::Follow::Stream;

use strict;
use warnings;
use parent -norequire, 'Evento::Follow';

sub begin
{
	my ($self) = @_;
	local $SIG{PIPE} = 'IGNORE';
	syswrite $self->{socket}, "GET /events?after=0 HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\nLast-Event-ID: $self->{after}\r\n\r\n";
	delete $self->{head};
	return;
}

sub take
{
	my ($self) = @_;
	if (!defined $self->{head})
	{
		$self->{text} =~ s/\A(HTTP[^\r]*).*?\r\n\r\n//s or return;
		$self->{head} = $1;
		if ($self->{head} !~ / 200 /)
		{
			# What a client is told to come back for is no fault.
			push @{ $self->{wrong} }, $self->{head} if $self->{head} !~ / 503 /;
			$self->{refused}++;
			$self->lose;
			return;
		}
	}
	while ($self->{text} =~ s/\A(.*?)\n\n//s)
	{
		my $block = $1;
		my ($id) = $block =~ /^id: (\d+)$/m or next;
		if ($block =~ /^data: /m) { $self->got($id) }
		else { $self->{after} = $id }
	}
	return;
}

# ---- a bundle's consumer ----

package Evento::Follow::Consumer;

use strict;
use warnings;
use parent -norequire, 'Evento::Follow';

use Evento::Bundle;
use Evento::Cbor;
use Time::HiRes qw(time);

use constant PING => 5;

sub socket { my ($self) = @_; return $self->{b} && $self->{b}{socket} }

sub lose { my ($self) = @_; $self->{b}->close; delete $self->{b}; return }

sub turn
{
	my ($self) = @_;
	if (!$self->{b})
	{
		return if time < $self->{next};
		$self->{next} = time + Evento::Follow::AGAIN;
		$self->{b} = eval { Evento::Bundle->new($self->{port}, timeout => 2) } or return;
		$self->{comes}++;
		$self->{b}->hello(bundle => 'follower', instance => $self->{name});
	}
	my $b = $self->{b};
	while ($b->pump(0)) { }
	$self->message($_) for splice @{ $b->{queue} };
	if ($b->{closed}) { $self->lose }
	elsif ($self->{pinged} && time - $self->{pinged} > PING)
	{
		$self->{pinged} = time;
		$b->send_message('@t' => 'PNG', correlationId => \Evento::Bundle::uuid(), sequence => int_(1), timestampMs => int_(int(time * 1000)));
	}
	return;
}

sub message
{
	my ($self, $m) = @_;
	my $b = $self->{b};
	if ($m->{'@t'} eq 'WLC')
	{
		$b->register;
		$b->discovery;
		$b->notify('evento:enable');
		$b->consumers(Projector => { Follower => ["follower_Follower_1_$self->{name}"] });
		$self->{pinged} = time;
	}
	elsif ($m->{'@t'} eq 'RSP' && $m->{correlationId} eq $self->{asked})
	{
		if (defined $m->{failure}) { push @{ $self->{wrong} }, $m->{failure}{message} }
		else { $self->got($_->[1]{eventSequenceNumber}) for @{ cbor_decode($m->{payload})->[1]{body}[1]{events}[1] } }
	}
	else { return }
	$self->{asked} = $b->fetch($self->{after}, component => 'Follower', timeout => ($self->{timeout} // 30) * 1000);
	return;
}

# ---- appends over HTTP ----

package Evento::Follow::Appender;

use strict;
use warnings;
use parent -norequire, 'Evento::Follow';

use Test::More;
use Time::HiRes qw(time);

# One request a connection, as curl does it, and the next one 50 ms later.
sub begin
{
	my ($self) = @_;
	my $n = ++$self->{sent};
	my $body = qq({"type":"Appended","data":{"n":$n}});
	local $SIG{PIPE} = 'IGNORE';
	syswrite $self->{socket}, "POST /streams/$self->{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: "
	  . length($body) . "\r\n\r\n$body";
	return;
}

sub lose
{
	my ($self) = @_;
	my ($status) = $self->{text} =~ m{\AHTTP/1\.1 (\d+)};
	if (($status // '') eq '201' && $self->{text} =~ /"first":(\d+)/)
	{
		push @{ $self->{answered} }, "$1 $self->{sent}";
		push @{ $self->{at} }, time;
	}
	else { push @{ $self->{wrong} }, "$self->{sent}: " . ($self->{text} =~ s/[\r\n]+/ /gr || 'no answer') }
	$self->SUPER::lose;
	$self->{next} = $self->{ending} ? 9e9 : time + 0.05;
	return;
}

sub take { return }

# No further one; true once none is open.
sub ended { my ($self) = @_; $self->{ending} = 1; $self->{next} = 9e9; return !$self->{socket} }

# Compares what it was answered with the events of its stream, "version n" each.
sub check
{
	my ($self, $what, @events) = @_;
	is(join(' ', @{ $self->{wrong} }), '', "$what: $self->{name}: no append over HTTP fails");
	is(join(', ', @{ $self->{answered} }), join(', ', @events), "$what: $self->{name}: each is stored once, as it was answered");
	cmp_ok(scalar @{ $self->{answered} }, '>', 0, "$what: $self->{name} has appended");
	return;
}

1;
