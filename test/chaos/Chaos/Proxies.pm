# Chaos::Proxies
#   Three proxies, each on a machine of its own, and HAProxy before them, on the
#   machine of the callers.
package Chaos::Proxies;

use strict;
use warnings;

use Carp qw(croak);
use HTTP::Tiny;
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

use Chaos::Clock;
use Evento::ProxyTest;

use constant { BUNDLES => 3030, INTERNAL => 3031, HTTP => 3032 };

my %running;

# network; names: of the machines; database: connection string; logs, dir: directories.
sub new
{
	my ($class, %opt) = @_;
	my $self = bless { %opt, proxies => {} }, $class;
	$self->{proxies}{$_} = { clock => Chaos::Clock->new("$opt{dir}/$_.clock") } for @{ $opt{names} };
	# The first reads from the primary, the others as docker/compose-ha.yaml has it.
	$_->{flags} = [qw(--read-from standby --read-connections 3)] for @{ $self->{proxies} }{ @{ $opt{names} }[ 1 .. $#{ $opt{names} } ] };
	$self->start($_) for @{ $opt{names} };
	$self->wait_ready($_, '/readyz', 120) for @{ $opt{names} };
	$self->start_balancer;
	return $self;
}

sub spawn
{
	my ($self, $name, $env, @command) = @_;
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		open(STDIN, '<', '/dev/null') or POSIX::_exit(127);
		open(STDOUT, '>>', "$self->{logs}/$name.log") or POSIX::_exit(127);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
		delete @ENV{ grep { /^PG/ } keys %ENV };
		@ENV{ keys %$env } = values %$env;
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	$running{$pid} = $name;
	return $pid;
}

sub start
{
	my ($self, $name) = @_;
	my $proxy = $self->{proxies}{$name};
	my $address = $self->{network}->address($name);
	$proxy->{pid} = $self->spawn($name, { $proxy->{clock}->environment }, $self->{network}->within($name), Evento::ProxyTest::program(), '--name', $name,
		'--database', $self->{database}, '--bundle-address', $address, '--bundle-port', BUNDLES, '--advertised', "$address:" . BUNDLES,
		'--internal-address', $address, '--internal-port', INTERNAL, '--http-address', $address, '--http-port', HTTP, @{ $proxy->{flags} // [] });
	return;
}

sub log { my ($self, $name) = @_; return PostgreSQL::Test::Utils::slurp_file("$self->{logs}/$name.log") }

# Whether a proxy answers 200.
sub says_well
{
	my ($self, $name, $path) = @_;
	return HTTP::Tiny->new(timeout => 2)->get('http://' . $self->{network}->address($name) . ':' . HTTP . $path)->{status} == 200;
}

sub wait_ready
{
	my ($self, $name, $path, $seconds) = @_;
	my $until = time + $seconds;
	until ($self->says_well($name, $path))
	{
		croak "$name has ended: see $name.log" if waitpid($self->{proxies}{$name}{pid}, WNOHANG) != 0;
		croak "$name does not say that it is well" if time > $until;
		sleep 0.1;
	}
	return;
}

# Ends a proxy; gives its status, undef where it does not end in time, and was killed.
sub stop
{
	my ($self, $name, $signal, $seconds) = @_;
	my $pid = $self->{proxies}{$name}{pid};
	my $until = time + $seconds;
	kill $signal, $pid;
	until (waitpid($pid, WNOHANG) != 0)
	{
		if (time > $until)
		{
			kill 'KILL', $pid;
			waitpid $pid, 0;
			delete $running{$pid};
			return;
		}
		sleep 0.02;
	}
	my $status = $?;
	delete $running{$pid};
	return $status;
}

# As docs/cluster.md has it: alive is who answers /healthz, and the connections of one that does not are cut.
sub start_balancer
{
	my ($self) = @_;
	$self->{port} = PostgreSQL::Test::Cluster::get_free_port();
	my $file = "$self->{dir}/haproxy.cfg";
	open(my $fh, '>', $file) or croak "$file: $!";
	print $fh <<"CONF";
global
    maxconn 1000
defaults
    mode tcp
    timeout connect 2s
    timeout client 90s
    timeout server 90s
    option redispatch 1
    retries 3
listen bundles
    bind 127.0.0.1:$self->{port}
    balance leastconn
    option httpchk GET /healthz
    http-check expect status 200 error-status L7OKC
    default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
CONF
	printf $fh "    server %s %s:%d check port %d\n", $_, $self->{network}->address($_), BUNDLES, HTTP for @{ $self->{names} };
	close $fh or croak "$file: $!";
	my ($program) = grep { -x } map { "$_/haproxy" } split(/:/, $ENV{PATH}), '/usr/sbin';
	$self->spawn('haproxy', {}, $program // croak('haproxy is not installed'), '-db', '-f', $file);
	return;
}

END
{
	my $status = $?;
	kill 'KILL', keys %running;
	waitpid $_, 0 for keys %running;
	$? = $status;
}

1;
