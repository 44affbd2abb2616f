# Evento::Http
#   A client of the proxy's HTTP port, for tests: requests, and streams of
#   server-sent events.
package Evento::Http;

use strict;
use warnings;

use Carp qw(croak);
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Time::HiRes qw(time);

# A client of the proxy at a port.
sub new
{
	my ($class, $port) = @_;
	return bless { port => $port, http => HTTP::Tiny->new(timeout => 120, keep_alive => 1), seen => [] }, $class;
}

# Sends a request; gives status, headers, body, and json where the body is JSON.
sub request
{
	my ($self, $method, $path, %opt) = @_;
	my %headers = %{ $opt{headers} // {} };
	$headers{'Content-Type'} //= 'application/json' if defined $opt{body};
	my $response = $self->{http}->request($method, "http://127.0.0.1:$self->{port}$path", { headers => \%headers, defined $opt{body} ? (content => $opt{body}) : () });
	my $answer = { status => $response->{status}, headers => $response->{headers}, body => $response->{content}, method => $method, path => $path };
	croak "$method $path: $response->{content}" if $response->{status} == 599;
	$answer->{json} = eval { JSON::PP->new->utf8->decode($response->{content}) } if ($response->{headers}{'content-type'} // '') =~ /json/;
	push @{ $self->{seen} }, $answer;
	return $answer;
}

sub get { my ($self, $path, %headers) = @_; return $self->request('GET', $path, headers => \%headers) }

sub post { my ($self, $path, $body, %headers) = @_; return $self->request('POST', $path, body => $body, headers => \%headers) }

# What was asked and answered so far.
sub seen { return @{ $_[0]->{seen} } }

# A connection that has sent some bytes.
sub raw
{
	my ($self, $bytes) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 60) or croak "connect: $@";
	$socket->autoflush(1);
	# Whoever refuses it may have closed before all of it is written.
	local $SIG{PIPE} = 'IGNORE';
	print $socket $bytes if defined $bytes;
	return $socket;
}

# All that a connection gives until code says that it is enough, it is closed, or time is up.
sub read_until
{
	my ($socket, $enough, $seconds) = @_;
	my $select = IO::Select->new($socket);
	my $until = time + ($seconds // 60);
	my $text = '';
	while (!$enough->($text) && (my $left = $until - time) > 0)
	{
		next if !$select->can_read($left);
		last if !sysread $socket, $text, 65536, length $text;
	}
	return $text;
}

# A stream of server-sent events.
sub events
{
	my ($self, $path, %headers) = @_;
	my $socket = $self->raw("GET $path HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n" . join('', map { "$_: $headers{$_}\r\n" } sort keys %headers) . "\r\n");
	return Evento::Http::Stream->new($socket);
}

package Evento::Http::Stream;

use strict;
use warnings;

use IO::Select;
use JSON::PP;
use Time::HiRes qw(time);

sub new { my ($class, $socket) = @_; return bless { socket => $socket, select => IO::Select->new($socket), text => '' }, $class }

# Reads what has come, waiting at most so long; false at the end.
sub fill
{
	my ($self, $seconds) = @_;
	return 1 if !$self->{select}->can_read($seconds);
	$self->{ended} = 1 if !sysread $self->{socket}, $self->{text}, 65536, length $self->{text};
	return !$self->{ended};
}

# The head of the answer.
sub head
{
	my ($self, $seconds) = @_;
	my $until = time + ($seconds // 60);
	while (!defined $self->{head} && !$self->{ended} && time < $until)
	{
		$self->fill($until - time);
		$self->{head} = $1 if $self->{text} =~ s/\A(.*?)\r\n\r\n//s;
	}
	return $self->{head} // '';
}

# The next block: { id, event, data, comment }, undef where none comes in time or the stream has ended.
sub block
{
	my ($self, $seconds) = @_;
	my $until = time + ($seconds // 60);
	$self->head($seconds);
	while (1)
	{
		if ($self->{text} =~ s/\A(.*?)\n\n//s)
		{
			my %block;
			for my $line (split /\n/, $1)
			{
				my ($name, $value) = $line =~ /\A([a-z]*): ?(.*)\z/s or next;
				$block{ $name eq '' ? 'comment' : $name } = $name eq 'data' && defined $block{data} ? "$block{data}\n$value" : $value;
			}
			$self->{last} = $block{id} if defined $block{id};
			return \%block;
		}
		return undef if $self->{ended} || time >= $until;
		$self->fill($until - time);
	}
}

# The next event, decoded, with its text and id; those of other kinds are passed over, as by EventSource. kind: of that one, instead.
sub event
{
	my ($self, $seconds, $kind) = @_;
	my $until = time + ($seconds // 60);
	while (my $block = $self->block($until > time ? $until - time : 0))
	{
		next if !defined $block->{data} || ($block->{event} // 'message') ne ($kind // 'message');
		my $event = JSON::PP->new->utf8->decode($block->{data});
		return { %$event, id_sent => $block->{id}, text => $block->{data} };
	}
	return undef;
}

# The id that was sent last.
sub last_id { return $_[0]->{last} }

sub close { my ($self) = @_; close $self->{socket}; return }

1;
