# Evento::Bundle
#   The bundle's end of a connection to a proxy, for tests: builds frames and
#   object graphs, gives messages as they come.
package Evento::Bundle;

use strict;
use warnings;

use Carp qw(croak);
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(AF_UNIX PF_UNSPEC SOCK_STREAM SOL_SOCKET SO_LINGER SO_RCVBUF);
use Time::HiRes qw(time);

use Evento::Cbor;

use constant MESSAGE => 'com.evento.common.modeling.messaging.message';

my $counter = 0;

# Connects.  port; rcvbuf: a small receive buffer, for a peer that does not read; tls: { ca, cert, key, args };
# timeout: seconds to connect (20); host: an address (127.0.0.1).
sub new
{
	my ($class, $port, %opt) = @_;
	my $self = bless { port => $port, in => '', queue => [], chunks => {}, closed => 0 }, $class;
	if ($opt{tls})
	{
		$self->{socket} = $self->tunnel(%{ $opt{tls} });
		$self->{peer} = 'unknown';
		return $self;
	}
	my $socket = IO::Socket::INET->new(PeerAddr => $opt{host} // '127.0.0.1', PeerPort => $port, Proto => 'tcp', Timeout => $opt{timeout} // 20)
	  or croak "cannot connect to port $port: $@";
	setsockopt($socket, SOL_SOCKET, SO_RCVBUF, pack('i', $opt{rcvbuf})) if $opt{rcvbuf};
	$self->{socket} = $socket;
	$self->{peer} = '127.0.0.1:' . $socket->sockport;
	return $self;
}

# Lets openssl speak TLS to the port, and gives the clear end of it.
sub tunnel
{
	my ($self, %tls) = @_;
	my @args = ('-connect', "127.0.0.1:$self->{port}", '-quiet', '-nocommands', '-no_ign_eof', '-verify_return_error');
	push @args, '-CAfile', $tls{ca} if $tls{ca};
	push @args, '-cert', $tls{cert}, '-key', $tls{key} if $tls{cert};
	push @args, @{ $tls{args} // [] };
	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or croak "socketpair: $!";
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		CORE::close($ours);
		open(STDIN, '<&', $theirs) or POSIX::_exit(127);
		open(STDOUT, '>&', $theirs) or POSIX::_exit(127);
		open(STDERR, '>', '/dev/null') or POSIX::_exit(127);
		exec 'openssl', 's_client', @args or POSIX::_exit(127);
	}
	CORE::close($theirs);
	$self->{tunnel} = $pid;
	return $ours;
}

# Ends the process that speaks TLS.
sub DESTROY
{
	my ($self) = @_;
	local $?;
	if (my $pid = delete $self->{tunnel})
	{
		kill 'KILL', $pid;
		waitpid $pid, 0;
	}
	return;
}

# Connects and says hello, registers, describes itself and enables; waits for the welcome.
# bundle, instance, token, names, enable (1), tls, host.
sub connected
{
	my ($class, $port, %opt) = @_;
	my $self = $class->new($port, tls => $opt{tls}, host => $opt{host});
	$self->hello(%opt);
	my $welcome = $self->recv('WLC') or croak 'no welcome' . ($self->{queue}[0] ? ": $self->{queue}[0]{'@t'} " . ($self->{queue}[0]{reason} // '') : '');
	$self->{welcome} = $welcome;
	$self->register(@{ $opt{names} // [] });
	$self->discovery;
	if ($opt{enable} // 1)
	{
		$self->notify('evento:enable');
		$self->consumers;
	}
	return $self;
}

sub uuid
{
	return pack('NNNN', $$, time * 1000 & 0xffffffff, ++$counter, int rand 4294967296);
}

sub now_ms { return int_(int(time * 1000)) }

# ---- sending ----

# Bytes as they are; false where the proxy has closed.
sub send_raw
{
	my ($self, $bytes) = @_;
	local $SIG{PIPE} = 'IGNORE';
	while (length $bytes)
	{
		my $n = syswrite($self->{socket}, $bytes);
		return 0 if !defined $n;
		substr($bytes, 0, $n, '');
	}
	return 1;
}

sub frame { return pack('N', 1 + length $_[0]) . "\0" . $_[0] }

sub send_message
{
	my ($self, @pairs) = @_;
	return $self->send_raw(frame(cbor_encode(map_(@pairs))));
}

sub send_chunks
{
	my ($self, $message, $size) = @_;
	my $id = uuid();
	while (1)
	{
		my $part = substr($message, 0, $size, '');
		my $body = "\x01$id" . (length $message ? "\0" : "\x01") . $part;
		$self->send_raw(pack('N', length $body) . $body);
		return if !length $message;
	}
}

sub hello
{
	my ($self, %opt) = @_;
	$self->{bundle} = $opt{bundle} // 'test';
	$self->{instance} = $opt{instance} // ('instance-' . unpack('H*', uuid()));
	return $self->send_message('@t' => 'HEL', correlationId => \uuid(), protocolVersion => int_($opt{version} // 2), bundleId => $self->{bundle},
		instanceId => $self->{instance}, bundleVersion => '1', capabilities => [], authToken => $opt{token}, timestampMs => now_ms());
}

sub notify
{
	my ($self, $type, $payload) = @_;
	return $self->send_message('@t' => 'NTF', correlationId => \uuid(), payloadType => $type, payload => \($payload // ''), timestampMs => now_ms());
}

sub register
{
	my ($self, @names) = @_;
	return $self->notify('evento:bundle-registration', cbor_encode(map_(bundleVersion => int_(1), handlerPayloadTypes => \@names)));
}

sub discovery
{
	my ($self, @handlers) = @_;
	return $self->notify('evento:bundle-discovery', cbor_encode(map_(bundleVersion => int_(1), description => 'a test bundle', detail => undef,
				repositoryUrl => undef, linePrefix => undef, handlers => \@handlers, payloadInfo => map_())));
}

# An admin notification with this body.
sub admin_notification
{
	my ($self, $body) = @_;
	return $self->notify('evento:bundle-admin-notification', cbor_encode([ MESSAGE . '.internal.EventoMessage',
				map_(sourceBundleId => $self->{bundle}, sourceInstanceId => $self->{instance}, sourceBundleVersion => int_(1), body => $body) ]));
}

# The one that follows enable.  Projector, Saga, Observer: the ids of its consumers by component.
sub consumers
{
	my ($self, %by_type) = @_;
	my $of = sub {
		my ($components) = @_;
		return [ 'java.util.HashMap', map_(map { $_ => [ 'java.util.HashSet', $components->{$_} ] } sort keys %{ $components // {} }) ];
	};
	return $self->admin_notification([ MESSAGE . '.internal.discovery.BundleConsumerRegistrationMessage',
			map_(projectorConsumers => $of->($by_type{Projector}), sagaConsumers => $of->($by_type{Saga}), observerConsumers => $of->($by_type{Observer})) ]);
}

# What a bundle tells of a call of a handler: how long it took, and what it invoked (name to count).
sub service_time
{
	my ($self, $component, $action, $ms) = @_;
	my $start = int(time * 1000) - $ms;
	return $self->admin_notification([ 'com.evento.common.performance.PerformanceServiceTimeMessage', map_(bundle => $self->{bundle}, component => $component,
				action => $action, start => int_($start), end => int_($start + $ms), instanceId => $self->{instance}) ]);
}

sub invocations
{
	my ($self, $component, $action, %count) = @_;
	return $self->admin_notification([ 'com.evento.common.performance.PerformanceInvocationsMessage', map_(bundle => $self->{bundle}, component => $component,
				action => $action, invocations => [ 'java.util.HashMap', map_(map { $_ => int_($count{$_}) } sort keys %count) ], instanceId => $self->{instance}) ]);
}

# What a bundle with consumer executors tells of them: lists of field => number, with name, or consumerId and componentName.
sub statistics
{
	my ($self, $executors, $consumers) = @_;
	my $stats = MESSAGE . '.internal.consumer.ConsumerStatsMessage';
	my $of = sub {
		my ($class, $h) = @_;
		return [ "$stats\$$class", map_(map { $_ => $h->{$_} =~ /^[0-9]+$/ ? int_($h->{$_}) : $h->{$_} } sort keys %$h) ];
	};
	return $self->admin_notification([ $stats, map_(executors => [ 'java.util.ArrayList', [ map { $of->('ExecutorStats', $_) } @$executors ] ],
				consumers => [ 'java.util.ArrayList', [ map { $of->('ConsumerStats', $_) } @$consumers ] ]) ]);
}

# A request with this payload; gives its correlationId.
sub request_raw
{
	my ($self, $type, $payload, %opt) = @_;
	my $id = $opt{correlation} // uuid();
	$self->send_message('@t' => 'REQ', correlationId => \$id, sourceBundleId => $self->{bundle} // 'test',
		sourceInstanceId => $self->{instance} // 'none', sourceBundleVersion => '1', payloadType => $type, payload => \$payload,
		timeoutMillis => int_($opt{timeout} // 30000), timestampMs => now_ms());
	return $id;
}

# A request whose EventoRequest has this body.
sub request
{
	my ($self, $type, $body, %opt) = @_;
	my $payload = cbor_encode([ MESSAGE . '.internal.EventoRequest', map_(sourceBundleId => $self->{bundle}, sourceInstanceId => $self->{instance},
				correlationId => 'inner-' . ++$counter, sourceBundleVersion => int_(1), body => $body, timestamp => now_ms(),
				timeout => int_(30), unit => 'SECONDS') ]);
	return $self->request_raw($type, $payload, %opt);
}

sub serialized
{
	my ($text, $class) = @_;
	return [ MESSAGE . '.application.SerializedPayload', map_(serializedObject => $text // 'null', objectClass => defined $class ? "class $class" : undef) ];
}

sub payload_of
{
	my ($name, $json) = @_;
	return serialized(qq(["shop.$name",$json]), "shop.$name");
}

sub query
{
	my ($self, $name, $json, %opt) = @_;
	return $self->request($name, [ MESSAGE . '.application.QueryMessage', map_(serializedPayload => payload_of($name, $json // '{}'),
				timestamp => now_ms(), metadata => undef, forceTelemetry => bool_(0)) ], %opt);
}

# aggregate; lock (the aggregate): undef means none.
sub command
{
	my ($self, $name, $aggregate, $json, %opt) = @_;
	return $self->request($name, [ MESSAGE . '.application.DomainCommandMessage', map_(serializedPayload => payload_of($name, $json // '{}'),
				timestamp => now_ms(), metadata => undef, forceTelemetry => bool_(0), aggregateId => $aggregate,
				lockId => exists $opt{lock} ? $opt{lock} : $aggregate, invalidateAggregateCaches => bool_(0),
				invalidateAggregateSnapshot => bool_(0)) ], %opt);
}

sub service_command
{
	my ($self, $name, $json, %opt) = @_;
	return $self->request($name, [ MESSAGE . '.application.ServiceCommandMessage', map_(serializedPayload => payload_of($name, $json // '{}'),
				timestamp => now_ms(), metadata => undef, forceTelemetry => bool_(0), aggregateId => $opt{stream},
				lockId => $opt{lock}) ], %opt);
}

sub fetch
{
	my ($self, $after, %opt) = @_;
	return $self->request('EventFetchRequest', [ 'com.evento.common.messaging.consumer.EventFetchRequest', map_(context => $opt{context} // '*',
				lastSequenceNumber => defined $after ? int_($after) : undef, limit => int_($opt{limit} // 1000),
				componentName => $opt{component} // 'Component') ], %opt);
}

sub last_sequence
{
	my ($self) = @_;
	return $self->request('EventLastSequenceNumberRequest', [ 'com.evento.common.messaging.consumer.EventLastSequenceNumberRequest', map_() ]);
}

# Waits until what this bundle asks reaches a handler, at whichever proxy that is: the other proxies hear of it a little
# later than its own.  probe: a name of the handler's registration that no other handler has (Probe).
sub reaches
{
	my ($self, $handler, $probe) = @_;
	my $until = time + 60;
	while (time < $until && !$self->{closed})
	{
		my $id = $self->query($probe // 'Probe');
		while (!$self->{closed} && ($self->pump(0.01) || !grep { $_->{'@t'} eq 'RSP' && $_->{correlationId} eq $id } @{ $self->{queue} }))
		{
			my $req = $handler->recv('REQ', timeout => 0.01) or next;
			$handler->respond($req, single(undef));
		}
		return 1 if !defined(($self->answer($id) // { failure => 'closed' })->{failure});
	}
	croak 'the handler is not reached';
}

# ---- answering ----

# Sends an answer, and remembers it: where a link between proxies was lost, or a connection, the same may be asked again, and
# a bundle then sends again what it has said.
sub say
{
	my ($self, $correlation, @message) = @_;
	$self->{said}{$correlation} = \@message;
	push @{ $self->{said_last} }, $correlation;
	delete $self->{said}{ shift @{ $self->{said_last} } } if @{ $self->{said_last} } > 100;
	return $self->send_message(@message);
}

# Is a message a request that was answered before?  Then the answer goes out again.
sub said
{
	my ($self, $message) = @_;
	my $answer = $message->{'@t'} eq 'REQ' && defined $message->{correlationId} && $self->{said}{ $message->{correlationId} } or return 0;
	$self->send_message(@$answer);
	return 1;
}

sub respond
{
	my ($self, $req, $body) = @_;
	my $inner = cbor_decode($req->{payload});
	my $payload = cbor_encode([ MESSAGE . '.internal.EventoResponse', map_(correlationId => $inner->[1]{correlationId}, body => $body,
				timestamp => now_ms(), requestTimestamp => now_ms(), timeout => int_(30), unit => 'SECONDS') ]);
	return $self->say($req->{correlationId}, '@t' => 'RSP', correlationId => \$req->{correlationId}, payloadType => $req->{payloadType}, payload => \$payload,
		failure => undef, timestampMs => now_ms());
}

sub fail
{
	my ($self, $req, $class, $message) = @_;
	return $self->say($req->{correlationId}, '@t' => 'RSP', correlationId => \$req->{correlationId}, payloadType => undef, payload => undef,
		failure => map_(exceptionClassName => $class, message => $message, stackTrace => ''), timestampMs => now_ms());
}

sub single { return [ 'com.evento.common.modeling.messaging.query.Single', map_(data => $_[0]) ] }

sub exception
{
	my ($class, $message) = @_;
	return [ 'com.evento.common.modeling.exceptions.ExceptionWrapper', map_(throwable => $class, message => $message, stackTrace => [], cause => undef) ];
}

sub event_message
{
	my ($kind, $name, $json, %opt) = @_;
	return [ MESSAGE . ".application.${kind}EventMessage", map_(serializedPayload => defined $name ? ($opt{serialized} // payload_of($name, $json)) : serialized(),
			timestamp => now_ms(), metadata => undef, forceTelemetry => bool_(0), context => $opt{context} // 'default') ];
}

# The answer to a domain command.  state: JSON of a snapshot; deleted.
sub domain_response
{
	my ($name, $json, %opt) = @_;
	return [ MESSAGE . '.application.DomainCommandResponseMessage', map_(domainEventMessage => event_message('Domain', $name, $json, %opt),
			serializedAggregateState => defined $opt{state}
			? [ 'com.evento.common.modeling.state.SerializedAggregateState', map_(serializedObject => qq(["shop.State",$opt{state}]), objectClass => 'class shop.State') ]
			: undef,
			aggregateDeleted => bool_($opt{deleted} // 0)) ];
}

# ---- receiving ----

# Reads what there is, for at most so many seconds; false where nothing came.
sub pump
{
	my ($self, $seconds) = @_;
	return 0 if $self->{closed} || !IO::Select->new($self->{socket})->can_read($seconds);
	my $n = sysread($self->{socket}, $self->{in}, 1 << 20, length $self->{in});
	if (!$n)
	{
		$self->{closed} = 1;
		return 0;
	}
	while (length $self->{in} >= 4)
	{
		my $len = unpack('N', $self->{in});
		last if length $self->{in} < 4 + $len;
		my $body = substr($self->{in}, 4, $len);
		substr($self->{in}, 0, 4 + $len, '');
		$self->body($body) if $len;
	}
	return 1;
}

sub body
{
	my ($self, $body) = @_;
	my $type = ord $body;
	return $self->take(cbor_decode(substr($body, 1))) if $type == 0;
	croak "frame of type $type" if $type != 1;
	my ($id, $last) = (substr($body, 1, 16), ord substr($body, 17, 1));
	$self->{chunks}{$id} .= substr($body, 18);
	return $last && $self->take(cbor_decode(delete $self->{chunks}{$id}));
}

sub take
{
	my ($self, $message) = @_;
	push @{ $self->{queue} }, $message if !$self->said($message);
	return;
}

# The next message of a type (others stay), undef where none comes within the
# time.  Pings are answered on the way.  correlation: only with that one.
sub recv
{
	my ($self, $type, %opt) = @_;
	my $until = time + ($opt{timeout} // 40);
  RECV:
	while (1)
	{
		for my $i (0 .. $#{ $self->{queue} })
		{
			my $m = $self->{queue}[$i];
			next if $m->{'@t'} ne $type || defined $opt{correlation} && $m->{correlationId} ne $opt{correlation};
			splice @{ $self->{queue} }, $i, 1;
			return $m if !$self->said($m);
			redo RECV;
		}
		my $left = $until - time;
		return undef if $left <= 0 || $self->{closed};
		$self->pump($left);
	}
}

# The answer to a request: the RSP, with what its payload holds in {body}.
sub answer
{
	my ($self, $correlation, %opt) = @_;
	my $rsp = $self->recv('RSP', correlation => $correlation, %opt) or return undef;
	if (defined $rsp->{payload})
	{
		my $graph = cbor_decode($rsp->{payload});
		$rsp->{graph} = $graph->[1];
		$rsp->{class} = ref $graph->[1]{body} eq 'ARRAY' ? $graph->[1]{body}[0] =~ s/.*\.//r : undef;
		$rsp->{body} = ref $graph->[1]{body} eq 'ARRAY' ? $graph->[1]{body}[1] : undef;
	}
	return $rsp;
}

# The answer to a request, where a handler may be asked any number of times before it comes: code answers each time.
sub answer_while
{
	my ($self, $correlation, $handler, $code, %opt) = @_;
	my $until = time + ($opt{timeout} // 60);
	while (time < $until)
	{
		while (my $req = $handler->recv('REQ', timeout => 0.02)) { $code->($req) }
		my $rsp = $self->answer($correlation, timeout => 0.02);
		return $rsp if $rsp;
	}
	return undef;
}

# Waits until the proxy has closed the connection; false where it does not.
sub wait_closed
{
	my ($self, $seconds) = @_;
	my $until = time + ($seconds // 60);
	$self->pump($until - time) while !$self->{closed} && time < $until;
	return $self->{closed};
}

# Does the connection work?  A ping is answered.
sub alive
{
	my ($self) = @_;
	my $id = uuid();
	$self->send_message('@t' => 'PNG', correlationId => \$id, sequence => int_(1), timestampMs => int_(123)) or return 0;
	my $pong = $self->recv('PON', correlation => $id) or return 0;
	return $pong->{originTimestampMs} == 123;
}

sub close
{
	my ($self) = @_;
	$self->{closed} = 1;
	return close $self->{socket};
}

# Closes with a reset, as a cut connection does.
sub cut
{
	my ($self) = @_;
	setsockopt($self->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
	return $self->close;
}

1;
