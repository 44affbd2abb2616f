# Evento::Traffic
#   Callers and handlers at several proxies, in the test's own process, for
#   tests of faults: they come back wherever they find a proxy, and callers
#   repeat what is open under the same correlationId.  Keeps a record of every
#   command, and compares it with the log: what was answered is stored once and
#   as it was answered, what was not is stored once at most.
package Evento::Traffic;

use strict;
use warnings;

use IO::Select;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;

use constant {
	PING => 0.5,        # seconds between pings
	SILENCE => 3,       # a connection on which a ping is not answered for so long is given up
	GREETING => 3,      # so long for the welcome
	AGAIN => 0.2,       # between attempts to connect
	LATE => 1,          # beyond its timeout, for a busy machine
	PONG => 0.25,       # what is not heard of a proxy for longer than PING and this has stood still, or the test has
};

# proxies: the Evento::ProxyTest::Proxy objects; callers, handlers: how many, spread over the proxies; open: commands that a
# caller has open at once; rest: seconds between its commands; timeout: of a command, in ms.  Commands are domain commands (Place) and service commands on a
# stream (Notify), some of them under a lock.  repeat => 0: a caller that comes back does not repeat what is open, and waits
# for its answer.  dials: seconds that one whose connection was lost waits before it connects again.  shared => 0: no locks, and no
# stream that several change.  beside: what has its turn beside them, Evento::Follow's for one.  silence: instead of SILENCE and
# GREETING, longer where no connection is to be lost: a proxy may get no processor for some seconds.
sub new
{
	my ($class, %opt) = @_;
	my $self = bless { open => 2, rest => 0.02, timeout => 8000, repeat => 1, shared => 1, silence => undef, beside => [], sent => 0, %opt, commands => [], by_id => {}, ends => [], tries => 0, wrong => [] }, $class;
	push @{ $self->{ends} }, { kind => 'handler', bundle => 'shop', instance => "h$_", at => $_ - 1, names => [qw(Place Notify)] } for 1 .. $opt{handlers} // 2;
	push @{ $self->{ends} }, { kind => 'caller', bundle => 'web', instance => "c$_", at => $_ - 1, names => [], open => {} } for 1 .. $opt{callers} // 4;
	$_->{next} = 0 for @{ $self->{ends} };
	return $self;
}

sub callers { return grep { $_->{kind} eq 'caller' } @{ $_[0]{ends} } }

sub handlers { return grep { $_->{kind} eq 'handler' } @{ $_[0]{ends} } }

# ---- connections ----

# Connects to the next proxy and says hello; what follows the welcome is said in look_after.
sub connect_end
{
	my ($self, $end) = @_;
	my $proxy = $self->{proxies}[ $end->{at} % @{ $self->{proxies} } ];
	$end->{next} = time + AGAIN;
	$end->{b} = eval { Evento::Bundle->new($proxy->{port}, timeout => 1) };
	if (!$end->{b})
	{
		$end->{at}++;
		return;
	}
	$end->{proxy} = $proxy;
	$end->{since} = $end->{heard} = $end->{waiting} = time;
	$end->{pinged} = 0;
	$end->{ready} = 0;
	$end->{b}->hello(bundle => $end->{bundle}, instance => $end->{instance});
	return;
}

# Gives up a connection; the next one is at another proxy.
sub lose
{
	my ($self, $end) = @_;
	$end->{b}->cut if $end->{b} && !$end->{b}{closed};
	delete $end->{b};
	$end->{at}++;
	$end->{next} = time + $self->{dials} if $self->{dials};
	return;
}

sub welcomed
{
	my ($self, $end) = @_;
	my $bundle = $end->{b};
	$end->{ready} = 1;
	$bundle->register(@{ $end->{names} });
	$bundle->discovery;
	$bundle->notify('evento:enable');
	$bundle->consumers;
	if ($end->{kind} eq 'caller')
	{
		for my $c (sort { $a->{n} <=> $b->{n} } values %{ $end->{open} })
		{
			next if !$self->{repeat} && $c->{transmitted};
			$c->{repeats}++;
			$self->transmit($end, $c);
		}
	}
	return;
}

# ---- commands ----

sub transmit
{
	my ($self, $end, $c) = @_;
	my @how = (correlation => $c->{id}, timeout => $c->{timeout});
	$c->{transmitted} = 1;
	if ($c->{kind} eq 'Place') { $end->{b}->command('Place', $c->{stream}, $c->{json}, @how) }
	else { $end->{b}->service_command('Notify', $c->{json}, stream => $c->{stream}, lock => $c->{lock}, @how) }
	return;
}

# A new command of a caller.  stream, kind (Place, Notify), timeout.  Each caller counts by itself: callers that keep step would send one kind for ever.
sub send_command
{
	my ($self, $end, %opt) = @_;
	my $n = ++$self->{sent};
	my $c = {
		n => $n, tag => "t$n", id => Evento::Bundle::uuid(), caller => $end->{instance}, json => qq({"tag":"t$n"}),
		kind => $end->{sent}++ % 3 ? 'Place' : 'Notify', timeout => $self->{timeout}, sent => time, stood => stood_still($end, time), repeats => 0, %opt };
	# Every caller has streams of its own, and all have one in common.
	$c->{stream} //= $c->{kind} eq 'Notify' ? "service-$end->{instance}" : $n % 4 || !$self->{shared} ? "own-$end->{instance}-" . $n % 5 : 'common';
	$c->{lock} = $n % 5 ? "lock-$end->{instance}" : 'lock-common' if $c->{kind} eq 'Notify' && $n % 2 && $self->{shared};
	push @{ $self->{commands} }, $self->{by_id}{ $c->{id} } = $c;
	$end->{open}{ $c->{id} } = $c;
	$self->transmit($end, $c) if $end->{ready};
	return $c;
}

# A handler answers at once: with the command's tag, and which try of a handler this is.
sub handle
{
	my ($self, $end, $req) = @_;
	my ($tag) = $req->{payload} =~ /\\?"tag\\?":\\?"(t\d+)/ or die 'a request without a tag';
	my $try = ++$self->{tries};
	my $json = qq({"tag":"$tag","try":$try});
	$end->{b}->respond($req, $req->{payloadType} eq 'Place' ? Evento::Bundle::domain_response('Placed', $json, state => qq({"try":$try}))
		: Evento::Bundle::event_message('Service', 'Notified', $json));
	return;
}

sub take_answer
{
	my ($self, $end, $rsp) = @_;
	my $c = delete $end->{open}{ $rsp->{correlationId} };
	if (!$c)
	{
		# A second answer to a repeat is the caller's to drop; it must be the same one.
		my $old = $self->{by_id}{ $rsp->{correlationId} };
		push @{ $self->{wrong} }, 'an answer to nothing' if !$old;
		push @{ $self->{wrong} }, "$old->{tag}: a second answer differs" if $old && defined $old->{object} && defined $rsp->{payload} && object_of($rsp) ne $old->{object};
		return;
	}
	$self->waited_too_long($end, $c);
	if (defined $rsp->{failure}) { $c->{failure} = "$rsp->{failure}{exceptionClassName}: $rsp->{failure}{message}" }
	else
	{
		my $object = object_of($rsp);
		if (defined $object) { @$c{qw(object answered)} = ($object, time) }
		else { $c->{failure} = 'an exception in the answer' }
	}
	return;
}

# The event in an answer, as text.
sub object_of
{
	my ($rsp) = @_;
	my $body = cbor_decode($rsp->{payload})->[1]{body};
	return ref $body eq 'ARRAY' && $body->[0] =~ /EventMessage$/ ? $body->[1]{serializedPayload}[1]{serializedObject} : undef;
}

# ---- the course of it ----

# What is due on one connection.
sub look_after
{
	my ($self, $end) = @_;
	my $now = time;
	if (!$end->{b})
	{
		$self->connect_end($end) if $now >= $end->{next} && !$end->{away};
		return;
	}
	my $b = $end->{b};
	while (!$b->{closed} && IO::Select->new($b->{socket})->can_read(0))
	{
		$b->pump(0);
		$end->{stood} = stood_still($end, $now);
		$end->{heard} = $now;
		delete $end->{waiting};
	}
	my @messages = splice @{ $b->{queue} };
	for my $m (@messages)
	{
		if ($m->{'@t'} eq 'WLC') { $self->welcomed($end) }
		elsif ($m->{'@t'} eq 'REQ') { $self->handle($end, $m) }
		elsif ($m->{'@t'} eq 'RSP') { $self->take_answer($end, $m) }
	}
	if ($b->{closed} || $now - ($end->{waiting} // $now) > ($self->{silence} // ($end->{ready} ? SILENCE : GREETING)))
	{
		$self->lose($end);
		return;
	}
	if ($end->{ready} && $now - $end->{pinged} >= PING)
	{
		$end->{pinged} = $now;
		$end->{waiting} //= $now;
		$b->send_message('@t' => 'PNG', correlationId => \Evento::Bundle::uuid(), sequence => int_(1), timestampMs => int_(int($now * 1000)));
	}
	return;
}

# For how long, all together, nothing was heard on an end's connections that should have been: its proxy has stood still, or this
# process has, which reads answers later then than they came.
sub stood_still
{
	my ($end, $now) = @_;
	my $more = $end->{b} && $end->{ready} ? $now - $end->{heard} - PING - PONG : 0;
	return ($end->{stood} // 0) + ($more > 0 ? $more : 0);
}

# Whether it is past a command's time, while its proxy and this process did not stand still; notes it where its caller has heard
# its proxy all the time.
sub waited_too_long
{
	my ($self, $end, $c) = @_;
	my $now = time;
	my $took = $now - $c->{sent} - (stood_still($end, $now) - $c->{stood});
	return 0 if $took < $c->{timeout} / 1000 + LATE;
	push @{ $self->{wrong} }, sprintf '%s of %s on %s has waited for %.1f s', $c->{tag}, $c->{caller}, $c->{stream}, $took
	  if $end->{ready} && !$c->{repeats} && $end->{since} < $c->{sent};
	return 1;
}

# Gives up commands past their time, as a caller does.
sub forget_late
{
	my ($self, $end) = @_;
	for my $c (values %{ $end->{open} })
	{
		delete $end->{open}{ $c->{id} } if $self->waited_too_long($end, $c);
	}
	return;
}

sub turn
{
	my ($self, $seconds, $load) = @_;
	my @sockets = map { $_->{b} && !$_->{b}{closed} ? $_->{b}{socket} : () } @{ $self->{ends} };
	push @sockets, grep { defined } map { $_->socket } @{ $self->{beside} };
	@sockets ? IO::Select->new(@sockets)->can_read($seconds) : sleep $seconds;
	$_->turn for @{ $self->{beside} };
	for my $end (@{ $self->{ends} })
	{
		$self->look_after($end);
		next if $end->{kind} ne 'caller';
		$self->forget_late($end);
		next if !$load || !$end->{ready} || !$end->{b};
		# Some rest between commands: the machine is not the test's alone.
		if (keys %{ $end->{open} } < $self->{open} && time >= ($end->{rest} // 0))
		{
			$self->send_command($end);
			$end->{rest} = time + $self->{rest};
		}
	}
	return;
}

# Runs with load for so many seconds, or until code says so (then false where it does not in time).
sub run
{
	my ($self, $seconds, $code) = @_;
	my $until = time + $seconds;
	while (time < $until)
	{
		$self->turn(0.02, 1);
		return 1 if $code && $code->();
	}
	return !$code;
}

# Runs without new commands until none is open; false where some are in the end.
sub finish
{
	my ($self, $seconds) = @_;
	my $until = time + ($seconds // 30);
	while (grep { keys %{ $_->{open} } } $self->callers)
	{
		return 0 if time > $until;
		$self->turn(0.02, 0);
	}
	return 1;
}

# Closes all connections.
sub leave
{
	my ($self) = @_;
	$_->lose for grep { $_->socket } @{ $self->{beside} };
	$self->lose($_) for grep { $_->{b} } @{ $self->{ends} };
	return;
}

# Every caller gets a command of its own through: all has recovered, which takes a proxy so many seconds at most, and a busy machine thrice that.
sub recovers
{
	my ($self, $seconds, $what) = @_;
	my $from = @{ $self->{commands} };
	my $start = time;
	my (%through, $ok);
	while (!$ok && time < $start + 3 * $seconds)
	{
		$self->turn(0.02, 1);
		my $commands = $self->{commands};
		$through{"$_->{caller} $_->{kind}"} = 1 for grep { defined $_->{object} } @$commands[ $from .. $#$commands ];
		$ok = keys %through == 2 * $self->callers;
	}
	note sprintf '%s: after %.1f s', $what, time - $start;
	return ok($ok, "$what: every caller gets through") || diag("through: @{[ sort keys %through ]}");
}

# ---- the record ----

# Begins the record anew: what was sent so far is not looked for in the log any more.  None of it is open.
sub begin_anew
{
	my ($self) = @_;
	$self->{commands} = [];
	return;
}

# The longest time that any caller was without a success between two times, in seconds, and when that ended.
sub longest_gap
{
	my ($self, $from, $to) = @_;
	my ($longest, $ended) = (0, $from);
	for my $end ($self->callers)
	{
		my @at = sort { $a <=> $b } grep { $_ > $from && $_ < $to } map { $_->{caller} eq $end->{instance} && $_->{answered} || () } @{ $self->{commands} };
		my $last = $from;
		for my $at (@at, $to)
		{
			($longest, $ended) = ($at - $last, $at) if $at - $last > $longest;
			$last = $at;
		}
	}
	return wantarray ? ($longest, $ended) : $longest;
}

# Compares the record with the log.  sql: a function that runs SQL.
sub check
{
	my ($self, $sql, $what) = @_;
	ok($self->finish, "$what: no request is open in the end");
	$sql->('CALL evento.wait(NULL)');
	my (%times, %stored);
	for my $line (split /\n/, $sql->(q(SELECT stream, data->>'tag', data->>'try', type FROM evento.events WHERE data->>'tag' IS NOT NULL)))
	{
		my ($stream, $tag, $try, $type) = split /\|/, $line;
		$times{$tag}++;
		$stored{$tag} = qq($stream ["shop.$type",{"tag":"$tag","try":$try}]);
	}
	my (@lost, @twice, @other);
	my ($answered, $failed, $unanswered) = (0, 0, 0);
	for my $c (@{ $self->{commands} })
	{
		my $n = $times{ $c->{tag} } // 0;
		push @twice, "$c->{tag} $n times" if $n > 1;
		defined $c->{object} ? $answered++ : defined $c->{failure} ? $failed++ : $unanswered++;
		next if !defined $c->{object};
		push @lost, "$c->{tag} of $c->{caller} on $c->{stream}" if !$n;
		push @other, "$c->{tag}: stored $stored{$c->{tag}}, answered $c->{object}" if $n && $stored{ $c->{tag} } ne "$c->{stream} $c->{object}";
	}
	is("@lost[0 .. ($#lost < 4 ? $#lost : 4)]", '', "$what: what was answered is in the log");
	is("@twice[0 .. ($#twice < 4 ? $#twice : 4)]", '', "$what: nothing is there twice");
	is("@other[0 .. ($#other < 4 ? $#other : 4)]", '', "$what: answers are the stored events");
	is(join('; ', @{ $self->{wrong} }), '', "$what: no request waits longer than its timeout, and none has two answers");
	$self->{wrong} = [];
	cmp_ok($answered, '>', 0, "$what: commands were answered");
	my %why;
	$why{ $_->{failure} }++ for grep { defined $_->{failure} } @{ $self->{commands} };
	note("$what: $answered answered, $failed failed, $unanswered without an answer");
	note("  $why{$_} times $_") for sort keys %why;
	return ($answered, $failed, $unanswered);
}

1;
