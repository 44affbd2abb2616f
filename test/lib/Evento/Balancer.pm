# Evento::Balancer
#   HAProxy before evento proxies, for bundles and for HTTP, set up as
#   docker/haproxy/haproxy.cfg has it, but with more patience, for tests.
package Evento::Balancer;

use strict;
use warnings;

use Carp qw(croak);
use HTTP::Tiny;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

use Evento::ProxyTest;

sub program
{
	my ($program) = grep { -x } '/usr/sbin/haproxy', map { "$_/haproxy" } split /:/, $ENV{PATH};
	return $program;
}

# Why it cannot be had on this machine; undef where it can.
sub why_not { return defined program() ? undef : 'no HAProxy (Debian: apt-get install haproxy)' }

# Starts it before proxies (Evento::ProxyTest::Proxy).  Gives an object with bundles and http, its ports.
sub new
{
	my ($class, @proxies) = @_;
	my $self = bless { map { $_ => PostgreSQL::Test::Cluster::get_free_port() } qw(bundles http health) }, $class;
	my $file = "$PostgreSQL::Test::Utils::log_path/balancer-$self->{bundles}.cfg";
	my $servers = sub { my ($port) = @_; return join '', map { "\tserver $_->{name} 127.0.0.1:$_->{$port} check port $_->{http}\n" } @proxies };
	append_to_file($file, <<"CFG");
defaults
	maxconn 1000
	timeout connect 20s
	timeout client 90s
	timeout server 90s
	timeout http-request 30s
	# A proxy that stands still on a busy machine is not down.
	timeout check 20s
	option redispatch 1
	retries 3
	default-server inter 250ms fall 2 rise 1 on-marked-down shutdown-sessions
listen bundles
	bind 127.0.0.1:$self->{bundles}
	mode tcp
	balance leastconn
	option httpchk GET /healthz
	http-check expect status 200 error-status L7OKC
@{[ $servers->('port') ]}
listen http
	bind 127.0.0.1:$self->{http}
	mode http
	balance leastconn
	option httpchk GET /healthz
	http-check expect status 200 error-status L7OKC
@{[ $servers->('http') ]}
frontend health
	bind 127.0.0.1:$self->{health}
	mode http
	monitor-uri /healthz
	acl some_away nbsrv(bundles) lt @{[ scalar @proxies ]}
	monitor fail if some_away
CFG
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		open(STDOUT, '>', "$file.log") or POSIX::_exit(127);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
		exec { program() } 'haproxy', '-db', '-f', $file or POSIX::_exit(127);
	}
	Evento::ProxyTest::started($pid);
	$self->{pid} = $pid;
	$self->{log} = "$file.log";
	my $until = time + 120;
	until ($self->has_all)
	{
		croak 'HAProxy does not start: ' . slurp_file("$file.log") if time > $until;
		sleep 0.05;
	}
	return $self;
}

# Does it take all of the proxies for live?
sub has_all { my ($self) = @_; return HTTP::Tiny->new(timeout => 20)->get("http://127.0.0.1:$self->{health}/healthz")->{success} }

# Has it said that a proxy gets no more of what comes over HTTP?
sub left_out { my ($self, $name) = @_; return slurp_file($self->{log}) =~ m{Server http/\Q$name\E is (?:stopping|DOWN)} }

sub stop
{
	my ($self) = @_;
	kill 'TERM', $self->{pid};
	waitpid $self->{pid}, 0;
	Evento::ProxyTest::ended($self->{pid});
	return;
}

1;
