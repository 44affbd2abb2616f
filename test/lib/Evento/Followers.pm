# Evento::Followers
#   Those who follow the log beside the traffic of a test that restores the
#   database: a consumer in SQL, in a process of its own, a client of the
#   server-sent events and a bundle's consumer, whose positions are their own.
#   Each keeps what it saw.
package Evento::Followers;

use strict;
use warnings;

use POSIX ();
use Test::More;
use Time::HiRes qw(time);

use Evento::Http;
use Evento::ProxyTest;

use constant PING => 2;

# proxies: the first serves the stream and the last the bundle; connstr: of the database; dir: for files.
sub new
{
	my ($class, %opt) = @_;
	my $self = bless { %opt, stream_at => 0, streamed => [], fetched => [], position => 0 }, $class;
	$self->start_turns;
	return $self;
}

# What the process of the consumer in SQL does, once: what it makes of events, and its checkpoint, in one transaction.
sub turn_sql
{
	return <<'SQL';
BEGIN;
SELECT epoch FROM evento.consumer_claim('audit', ttl => '0') \gset
WITH f AS MATERIALIZED (SELECT * FROM evento.consumer_fetch('audit', 200)),
     w AS (INSERT INTO audit (position) SELECT f.position FROM f WHERE f.position IS NOT NULL ORDER BY 1)
SELECT evento.consumer_ack('audit', (SELECT max(scanned) FROM f), :epoch);
COMMIT;
SQL
}

# The table of its read model.
sub table_sql { return 'CREATE TABLE audit (n bigserial, position bigint NOT NULL)' }

sub start_turns
{
	my ($self) = @_;
	my $file = "$self->{dir}/turn.sql";
	PostgreSQL::Test::Utils::append_to_file($file, turn_sql());
	my $pid = fork // die "fork: $!";
	if (!$pid)
	{
		open(STDOUT, '>', '/dev/null') or POSIX::_exit(127);
		open(STDERR, '>', "$self->{dir}/turns.log") or POSIX::_exit(127);
		$ENV{PGCONNECT_TIMEOUT} = 5;
		exec 'sh', '-c', 'while :; do psql -Xq -v ON_ERROR_STOP=1 -d "$1" -f "$2"; sleep 0.3; done', 'turns', $self->{connstr}, $file or POSIX::_exit(127);
	}
	Evento::ProxyTest::started($pid);
	$self->{turns} = $pid;
	return;
}

# Takes what has come, and sees to it that more does; never waits.
sub look
{
	my ($self) = @_;
	my @proxies = @{ $self->{proxies} };
	if (!$self->{stream} || $self->{stream}{ended})
	{
		$self->{stream_begun}++;
		my $http = Evento::Http->new($proxies[0]{http});
		$self->{stream} = $http->events('/events?after=0', 'Last-Event-ID' => $self->{stream_at});
	}
	while (my $event = $self->{stream}->event(0.01))
	{
		push @{ $self->{streamed} }, $event->{position};
		$self->{stream_at} = $event->{id_sent};
	}
	$self->look_after_bundle($proxies[-1]);
	return;
}

sub look_after_bundle
{
	my ($self, $proxy) = @_;
	my $b = $self->{bundle};
	if (!$b || $b->{closed})
	{
		$b = $self->{bundle} = $proxy->bundle(bundle => 'reader', instance => 'r1');
		$b->consumers(Projector => { Follower => [ consumer() ] });
		$self->{bundle_begun}++;
		delete $self->{asked};
	}
	if (time > ($self->{pinged} // 0) + PING)
	{
		$self->{pinged} = time;
		$b->send_message('@t' => 'PNG', correlationId => \Evento::Bundle::uuid(), sequence => Evento::Cbor::int_(1), timestampMs => Evento::Cbor::int_(1));
	}
	$b->pump(0);
	if (defined $self->{asked} && (my $answer = $b->answer($self->{asked}, timeout => 0)))
	{
		delete $self->{asked};
		for my $event (defined $answer->{failure} ? () : @{ $answer->{body}{events}[1] })
		{
			push @{ $self->{fetched} }, $event->[1]{eventSequenceNumber};
			$self->{position} = $event->[1]{eventSequenceNumber};
		}
	}
	$self->{asked} //= $b->fetch($self->{position}, component => 'Follower') if !$b->{closed};
	$b->{queue} = [ grep { $_->{'@t'} eq 'RSP' } @{ $b->{queue} } ];
	return;
}

# The bundle's consumer as the database knows it.
sub consumer { return 'reader_Follower_1_*' }

# Runs until all of them have come to a position; false where they do not in time.
sub reach
{
	my ($self, $sql, $position, $beside) = @_;
	my $until = time + 60;
	while (time < $until)
	{
		$beside->() if $beside;
		$self->look;
		select undef, undef, undef, 0.05;
		next if grep { ($_->[-1] // 0) < $position } $self->{streamed}, $self->{fetched};
		return 1 if $sql->('SELECT COALESCE(max(position), 0) FROM audit') >= $position;
	}
	diag "wanted $position, the stream is at $self->{stream_at}, the bundle at $self->{position}, in SQL " . $sql->('SELECT max(position) FROM audit');
	return 0;
}

# What the log has, and what each saw.
sub seen
{
	my ($self, $sql) = @_;
	return (
		log => [ split /\n/, $sql->('SELECT position FROM evento.events ORDER BY position') ],
		'a consumer in SQL' => [ split /\n/, $sql->('SELECT position FROM audit ORDER BY n') ],
		'a stream over HTTP' => [ @{ $self->{streamed} } ],
		'a consumer of a bundle' => [ @{ $self->{fetched} } ]);
}

# Each saw the log: in order, every event once.  Of those in lost (position => 1) the two whose position is their own saw all, too.
sub check
{
	my ($self, $sql, $what, $lost) = @_;
	my %seen = $self->seen($sql);
	my $log = delete $seen{log};
	for my $who (sort keys %seen)
	{
		my @gone = grep { $lost->{$_} } @{ $seen{$who} };
		my @own = $who eq 'a consumer in SQL' ? () : sort { $a <=> $b } keys %{ $lost // {} };
		is("@gone", "@own", "$what: $who has seen " . (@own ? 'what is lost, once' : 'nothing that is lost'));
		is(difference([ grep { !$lost->{$_} } @{ $seen{$who} } ], $log), '', "$what: $who has seen every event of the log once, in order");
	}
	return;
}

sub difference
{
	my ($got, $wanted) = @_;
	for my $i (0 .. (@$got > @$wanted ? $#$got : $#$wanted))
	{
		return "the " . ($i + 1) . ". is " . ($got->[$i] // 'missing') . ", not " . ($wanted->[$i] // 'there') if ($got->[$i] // '') ne ($wanted->[$i] // '');
	}
	return '';
}

sub stop
{
	my ($self) = @_;
	if (my $pid = delete $self->{turns})
	{
		kill 'KILL', $pid;
		waitpid $pid, 0;
		Evento::ProxyTest::ended($pid);
	}
	return;
}

1;
