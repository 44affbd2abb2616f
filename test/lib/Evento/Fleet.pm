# Evento::Fleet
#   A database with the extension, evento proxies on it, and HAProxy before
#   them, on free ports, in the directory of an Evento::Host.  "make run" and
#   "make bench" start one.
package Evento::Fleet;

use strict;
use warnings;

use HTTP::Tiny;
use IO::Socket::INET;
use Time::HiRes qw(sleep time);

use Evento::Host;

# Builds what a fleet consists of, in the checkout, as the user that calls;
# copies of the programs go where the unprivileged user can run them.  parts:
# those of proxy, sim and bench that are needed besides the extension.  Gives
# their paths by name, and bin, where PostgreSQL's programs are.
sub build
{
	my ($host, $top, @parts) = @_;
	my %step = (proxy => [ $top, 'proxy' ], sim => ["$top/test/sim"], bench => ["$top/test/bench"]);
	my $log = "$host->{dir}/log/build.log";
	# Where the unprivileged user cannot read the checkout, the tree is not kept.
	local $ENV{PGTREE} = "$host->{dir}/pgtree" if $host->run([ 'test', '-r', "$top/Makefile" ], out => $log) != 0;
	my $bin = `'$top/test/lib/pgtree'`;
	die "the extension was not built\n" if $? != 0;
	chomp $bin;
	for my $step (@step{@parts})
	{
		if (system("make -s -C '$step->[0]' @$step[1 .. $#$step] MAKEFLAGS=-j2 >'$log' 2>&1") != 0)
		{
			print Evento::Host::slurp($log);
			die "the build of $step->[0] failed\n";
		}
	}
	my %built = (bin => $bin);
	my $to = $host->mkdir("$host->{dir}/bin");
	for my $program (qw(evento-proxy evento-sim bench-load bench-latency bench-relay))
	{
		next if !-x "$top/build/$program";
		system('cp', "$top/build/$program", $to) == 0 or die "cannot copy $program to $to\n";
		chmod 0755, "$to/$program";
		$built{$program} = "$to/$program";
	}
	return \%built;
}

# Starts a database "evento" and n proxies on it, and waits until they are
# ready.  conf: lines for postgresql.conf.  haproxy: with HAProxy before them.
sub start
{
	my ($class, %opt) = @_;
	my $host = $opt{host};
	my $self = bless { host => $host, built => $opt{built}, proxies => [] }, $class;
	$self->{pg} = $host->start_postgres(bin => $opt{built}{bin}, name => $opt{name} // 'pg', conf => $opt{conf});
	$host->psql($self->{pg}, 'postgres', 'CREATE DATABASE evento');
	$host->psql($self->{pg}, 'evento', 'CREATE EXTENSION evento; CREATE ROLE proxy LOGIN IN ROLE evento_proxy');
	$self->start_proxy($_) for 1 .. $opt{proxies};
	$self->wait_ready($_) for @{ $self->{proxies} };
	$self->start_haproxy if $opt{haproxy};
	return $self;
}

# Starts one proxy.
sub start_proxy
{
	my ($self, $n) = @_;
	my $host = $self->{host};
	my ($bundles, $internal, $http) = $host->free_ports(3);
	my $proxy = { name => "proxy$n", address => "127.0.0.1:$bundles", bundles => $bundles, http => $http, log => "$host->{dir}/log/proxy$n.log" };
	$proxy->{pid} = $host->start([ $self->{built}{'evento-proxy'},
			'--name', $proxy->{name}, '--database', "host=$self->{pg}{sock} port=$self->{pg}{port} dbname=evento user=proxy",
			'--bundle-address', '127.0.0.1', '--bundle-port', $bundles, '--advertised', $proxy->{address},
			'--internal-address', '127.0.0.1', '--internal-port', $internal,
			'--http-address', '127.0.0.1', '--http-port', $http, '--log-level', 'info' ], out => $proxy->{log});
	push @{ $self->{proxies} }, $proxy;
	return $proxy;
}

# Waits until a proxy says it is ready.
sub wait_ready
{
	my ($self, $proxy) = @_;
	my $http = HTTP::Tiny->new(timeout => 2);
	my $until = time + 120;
	while (time < $until)
	{
		die "$proxy->{name} ended at once:\n" . Evento::Host::slurp($proxy->{log}) if !$self->{host}->alive($proxy->{pid});
		return if $http->get("http://127.0.0.1:$proxy->{http}/readyz")->{status} == 200;
		sleep 0.05;
	}
	die "$proxy->{name} was not ready in 120 s:\n" . Evento::Host::slurp($proxy->{log});
}

# A configuration of HAProxy at a port: it looks at the health of proxies (name, address, http) over HTTP, and cuts the
# connections to one that went down, so that bundles connect anew.
sub haproxy_configuration
{
	my ($port, @proxies) = @_;
	my $text = <<"CONF";
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 90s
    timeout server 90s
    option redispatch 1
listen bundles
    bind 127.0.0.1:$port
    balance leastconn
    option httpchk GET /healthz
    http-check expect status 200 error-status L7OKC
    default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
CONF
	return join '', $text, map { "    server $_->{name} $_->{address} check port $_->{http}\n" } @proxies;
}

# Where HAProxy is on this machine.
sub haproxy_program { return (grep { -x } map { "$_/haproxy" } split(/:/, $ENV{PATH}), '/usr/sbin')[0] }

# HAProxy before the proxies.
sub start_haproxy
{
	my ($self) = @_;
	my $host = $self->{host};
	my ($port) = $host->free_ports(1);
	my $file = "$host->{dir}/haproxy.cfg";
	open(my $fh, '>', $file) or die "$file: $!\n";
	print $fh haproxy_configuration($port, @{ $self->{proxies} });
	close $fh;
	$self->{haproxy} = { address => "127.0.0.1:$port", log => "$host->{dir}/log/haproxy.log" };
	my $program = haproxy_program() // die "haproxy is not installed\n";
	$self->{haproxy}{pid} = $host->start([ $program, '-db', '-f', $file ], out => $self->{haproxy}{log});
	my $until = time + 120;
	until (IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port))
	{
		die "HAProxy ended:\n" . Evento::Host::slurp($self->{haproxy}{log}) if !$host->alive($self->{haproxy}{pid}) || time > $until;
		sleep 0.05;
	}
	return;
}

# SQL in its database.
sub sql
{
	my ($self, $sql) = @_;
	return $self->{host}->psql($self->{pg}, 'evento', $sql);
}

# Starts a simulator that only handles, with n instances of each bundle.
sub start_handlers
{
	my ($self, $n) = @_;
	my $log = "$self->{host}{dir}/log/handlers.log";
	my $pid = $self->{host}->start([ $self->{built}{'evento-sim'}, '--callers', 0, '--handlers', $n, '--proxies', join(',', map { $_->{address} } @{ $self->{proxies} }) ],
		out => $log);
	my $until = time + 120;
	until (Evento::Host::slurp($log) =~ /^ready /m)
	{
		die "the handlers did not start:\n" . Evento::Host::slurp($log) if !$self->{host}->alive($pid) || time > $until;
		sleep 0.05;
	}
	return $pid;
}

# Runs the simulator's callers with these options; gives its figures by name,
# the rest of a line as the value, "answered_at HOST:PORT" with its address.
# ok: whether all its checks held; text: what it printed.
sub callers
{
	my ($self, $name, @options) = @_;
	my $log = "$self->{host}{dir}/log/$name.log";
	unlink $log;
	my $status = $self->{host}->run([ $self->{built}{'evento-sim'}, '--handlers', 0, '--run', $name, @options ], out => $log, timeout => 300);
	my $text = Evento::Host::slurp($log);
	my %figures = (ok => $status == 0, text => $text);
	for (split /\n/, $text)
	{
		if (/^(answered_at \S+) (.*)/ || /^(\w+) (.*)/) { $figures{$1} = $2 }
		while (/(\w+_(?:revisions|total)) (\d+)/g) { $figures{$1} = $2 }
	}
	return \%figures;
}

1;
