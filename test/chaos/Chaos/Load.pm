# Chaos::Load
#   Callers, handlers and consumers behind the balancer, in a process of their
#   own, and the record of what they sent, were answered and saw: a file of
#
#	S at n caller kind stream timeout	a caller sends command n for the first time
#	R at n								and again, with the same correlationId, some after F or G
#	A at n try revision					its answer
#	L at n try revision					another one, or one that came too late; n is 0 where nobody has asked
#	F at n why							it was refused, or failed
#	G at n								the caller has given it up
#	C at consumer from					a consumer goes on from its checkpoint
#	E at consumer sequence n			it sees the event of command n
#
#   Times are seconds of the monotonic clock.
package Chaos::Load;

use strict;
use warnings;

use parent 'Evento::Traffic';

use Carp qw(croak);
use IO::Handle;
use POSIX qw(WNOHANG);
use Time::HiRes qw(clock_gettime sleep time CLOCK_MONOTONIC);

use Evento::Bundle;
use Evento::Cbor;

use constant {
	REST => 0.04,         # between commands of a caller
	FINISH => 180,        # for all to come to its end
	HOLD => 25,           # a fetch without an answer is asked again
	RESTART => 20,        # so often a consumer dies and goes on from its checkpoint
	AT_ONCE => 1,         # what fails earlier was refused
	CUT => 5,             # so often a caller loses its connection, and repeats what is open at the next
};

sub now { return sprintf '%.6f', clock_gettime(CLOCK_MONOTONIC) }

# ---- the process ----

# Starts it.  port: the balancer's; dir: for its files; callers, handlers, consumers.
sub start
{
	my ($class, %opt) = @_;
	my $handle = bless { file => "$opt{dir}/record", errors => "$opt{dir}/load.log", read => 0, last => {} }, 'Chaos::Load::Handle';
	open(my $fh, '>', $handle->{file}) or croak "$handle->{file}: $!";
	$fh->autoflush(0);
	STDOUT->flush;
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		$SIG{$_} = 'DEFAULT' for qw(INT HUP);
		open(STDERR, '>>', $handle->{errors}) or POSIX::_exit(127);
		open(STDOUT, '>&', \*STDERR) or POSIX::_exit(127);
		eval { $class->play($fh, %opt); 1 } or print STDERR $@;
		$fh->close;
		# What the parent has to clean up is the parent's.
		POSIX::_exit($@ ? 1 : 0);
	}
	close $fh;
	$handle->{pid} = $pid;
	return $handle;
}

# Load until SIGTERM; then what is open ends, and consumers come to the head.
sub play
{
	my ($class, $fh, %opt) = @_;
	my $self = $class->new(proxies => [ { port => $opt{port}, name => 'the balancer' } ], callers => $opt{callers}, handlers => $opt{handlers}, rest => REST);
	$self->{record} = $fh;
	for my $n (1 .. $opt{consumers})
	{
		push @{ $self->{ends} }, { kind => 'consumer', bundle => 'follower', instance => "f$n", at => 0, names => [], next => 0, checkpoint => 0,
			restart => time + RESTART * $n / $opt{consumers} };
	}
	my $n = 0;
	$_->{restart} = time + CUT * ++$n / $opt{callers} for $self->callers;
	my $stop = 0;
	local $SIG{TERM} = sub { $stop = 1 };
	until ($stop) { $self->turn(0.02, 1); $fh->flush }
	$self->{ending} = time + FINISH;
	$self->turn_until(sub { !grep { keys %{ $_->{open} } } $self->callers }, 'commands stay open');
	# Who has seen the event of this one has seen all that was answered before.
	my $last;
	my ($caller) = $self->callers;
	$self->turn_until(sub {
			$last = $self->send_command($caller) if $caller->{b} && $caller->{ready} && (!$last || !$caller->{open}{ $last->{id} } && !defined $last->{object});
			return $last && defined $last->{object};
		}, 'the last command is not answered');
	$self->turn_until(sub { !grep { $_->{kind} eq 'consumer' && ($_->{seen} // 0) != $last->{n} } @{ $self->{ends} } }, 'consumers do not come to the end');
	return;
}

# Turns without new load, and without faults.
sub turn_until
{
	my ($self, $code, $what) = @_;
	until ($code->())
	{
		die "$what\n" if time > $self->{ending};
		$self->turn(0.02, 0);
	}
	return;
}

sub write { my ($self, @what) = @_; print { $self->{record} } "@what\n" or die "the record: $!"; return }

# ---- callers ----

sub transmit
{
	my ($self, $end, $c) = @_;
	if (!$c->{repeats}) { $self->write('S', now(), $c->{n}, $c->{caller}, $c->{kind}, $c->{stream}, $c->{timeout}) }
	else { $self->write('R', now(), $c->{n}) }
	return $self->SUPER::transmit($end, $c);
}

sub take_answer
{
	my ($self, $end, $rsp) = @_;
	return $self->take_events($end, $rsp) if $end->{kind} eq 'consumer';
	my $c = $end->{open}{ $rsp->{correlationId} };
	$self->SUPER::take_answer($end, $rsp);
	if (!$c)
	{
		my $object = defined $rsp->{failure} ? undef : Evento::Traffic::object_of($rsp);
		my $asked = $self->{by_id}{ $rsp->{correlationId} };
		$self->write('L', now(), $asked ? $asked->{n} : 0, in_answer($object)) if defined $object || !$asked;
	}
	elsif (defined $c->{object}) { $self->write('A', now(), $c->{n}, in_answer($c->{object})) }
	else
	{
		$self->write('F', now(), $c->{n}, $c->{failure} =~ s/\s+/ /gr);
		$self->try_again($end, $c);
	}
	return;
}

sub forget_late
{
	my ($self, $end) = @_;
	for my $c (grep { $self->waited_too_long($end, $_) } values %{ $end->{open} })
	{
		delete $end->{open}{ $c->{id} };
		$self->try_again($end, $c);
	}
	return;
}

# Of what has failed, or had no answer, a caller repeats two of three, once and over another connection: some of these are
# stored.  Not so what was refused at once.
sub try_again
{
	my ($self, $end, $c) = @_;
	return if $c->{n} % 3 == 0 || $c->{again} || $self->{ending} || time - $c->{sent} < AT_ONCE;
	$c->{again} = 1;
	delete $c->{failure};
	$c->{sent} = time;
	$end->{open}{ $c->{id} } = $c;
	$end->{restart} = time;
	return;
}

# Which try of a handler an answer is, and the revision that it has counted.
sub in_answer
{
	my ($object) = @_;
	return (0, 0) if !defined $object;
	my @what = $object =~ /"try":(\d+),"revision":(\d+)/ or die "an answer is not what a handler gives: $object\n";
	return @what;
}

# The time is looked at where the record is: the machine may be busy.
sub waited_too_long
{
	my ($self, $end, $c) = @_;
	return 0 if time - $c->{sent} < $c->{timeout} / 1000 + Evento::Traffic::LATE;
	$self->write('G', now(), $c->{n}) if $end->{open}{ $c->{id} };
	return 1;
}

# ---- handlers ----

# The revision of an aggregate follows from its story alone; with every 20th comes a snapshot.
sub handle
{
	my ($self, $end, $req) = @_;
	my $body = cbor_decode($req->{payload})->[1]{body}[1];
	my ($tag) = $req->{payload} =~ /\\?"tag\\?":\\?"(t\d+)/ or die "a request without a tag\n";
	my $try = ++$self->{tries};
	if ($req->{payloadType} ne 'Place')
	{
		$end->{b}->respond($req, Evento::Bundle::event_message('Service', 'Notified', qq({"tag":"$tag","try":$try,"revision":0})));
		return;
	}
	my @story = @{ ($body->{eventStream} // [])->[1] // [] };
	my $last = @story ? $story[-1][1]{serializedPayload}[1]{serializedObject} : ($body->{serializedAggregateState} // [])->[1]{serializedObject};
	my $revision = 1 + (($last // '') =~ /"revision": ?(\d+)/ ? $1 : 0);
	my @snapshot = $revision % 20 ? () : (state => qq({"revision":$revision}));
	$end->{b}->respond($req, Evento::Bundle::domain_response('Placed', qq({"tag":"$tag","try":$try,"revision":$revision}), @snapshot));
	return;
}

# ---- consumers ----

sub welcomed
{
	my ($self, $end) = @_;
	$self->SUPER::welcomed($end);
	return if $end->{kind} ne 'consumer';
	$end->{b}->consumers(Projector => { Follower => ["follower_$end->{instance}_1_*"] });
	$self->write('C', now(), $end->{instance}, $end->{checkpoint});
	$self->fetch($end);
	return;
}

sub fetch
{
	my ($self, $end) = @_;
	$end->{asked} = $end->{b}->fetch($end->{checkpoint}, component => $end->{instance});
	$end->{asked_at} = time;
	return;
}

sub take_events
{
	my ($self, $end, $rsp) = @_;
	return if ($end->{asked} // '') ne $rsp->{correlationId};
	if (!defined $rsp->{failure})
	{
		my @events = map { $_->[1] } @{ cbor_decode($rsp->{payload})->[1]{body}[1]{events}[1] };
		for my $e (@events)
		{
			my ($n) = $e->{eventMessage}[1]{serializedPayload}[1]{serializedObject} =~ /"tag": ?"t(\d+)"/;
			$self->write('E', now(), $end->{instance}, $e->{eventSequenceNumber}, $n // 0);
			$end->{checkpoint} = $e->{eventSequenceNumber};
			# The last is looked for where events come in any order.
			$end->{seen} = $n if defined $n && $n > ($end->{seen} // 0);
		}
	}
	$self->fetch($end);
	return;
}

sub look_after
{
	my ($self, $end) = @_;
	my $now = time;
	if ($end->{restart} && $now > $end->{restart} && $end->{b} && $end->{ready} && !$self->{ending})
	{
		$end->{restart} = $now + ($end->{kind} eq 'consumer' ? RESTART : CUT);
		return $self->lose($end);
	}
	$self->fetch($end) if $end->{kind} eq 'consumer' && $end->{b} && $end->{ready} && $now > $end->{asked_at} + HOLD;
	return $self->SUPER::look_after($end);
}

package Chaos::Load::Handle;

use strict;
use warnings;

use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

# Reads on in the record: when each caller sent what it was last answered.
sub look
{
	my ($self) = @_;
	open(my $fh, '<', $self->{file}) or die "$self->{file}: $!";
	seek $fh, $self->{read}, 0;
	while (my $line = <$fh>)
	{
		last if $line !~ /\n\z/;
		$self->{read} += length $line;
		my ($what, $at, $n, $caller) = split ' ', $line;
		if ($what eq 'S') { $self->{sent}{$n} = [ $at, $caller ]; $self->{last}{$caller} //= 0 }
		elsif ($what eq 'A')
		{
			# One that was repeated after it failed is not looked at.
			my $sent = delete $self->{sent}{$n} // next;
			$self->{last}{ $sent->[1] } = $sent->[0];
		}
		elsif ($what eq 'F' || $what eq 'G') { delete $self->{sent}{$n} }
	}
	return;
}

sub alive { my ($self) = @_; return $self->{pid} && waitpid($self->{pid}, WNOHANG) == 0 }

# Whether every caller has got something through that it sent after a time, within so many seconds.
sub goes_on
{
	my ($self, $callers, $since, $seconds) = @_;
	my $until = time + $seconds;
	while (1)
	{
		die "the load has ended: see $self->{errors}\n" if !$self->alive;
		$self->look;
		return 1 if $callers == grep { $_ > $since } values %{ $self->{last} };
		return 0 if time > $until;
		sleep 0.1;
	}
}

# Ends it in order; true where it did.
sub finish
{
	my ($self) = @_;
	kill 'TERM', $self->{pid};
	waitpid delete $self->{pid}, 0;
	return $? == 0;
}

1;
