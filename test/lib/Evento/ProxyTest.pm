# Evento::ProxyTest
#   A PostgreSQL with the extension and evento-proxy processes on it, for the
#   tests of the proxy.
package Evento::ProxyTest;

use strict;
use warnings;

use Carp qw(croak);
use IO::Socket::INET;
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Deaf;

my %pids;

# EVENTO_PROXY, or the one that "make" has built.
sub program
{
	return $ENV{EVENTO_PROXY} // __FILE__ =~ s{test/lib/Evento/ProxyTest\.pm$}{build/evento-proxy}r;
}

# A database.  conf: lines for postgresql.conf; or node: one that is there, something with a connstr.
sub new
{
	my ($class, %opt) = @_;
	return bless { node => $opt{node}, proxies => 0 }, $class if $opt{node};
	my $node = PostgreSQL::Test::Cluster->new($opt{name} // 'main');
	$node->init;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'evento'\nfsync = off\n" . ($opt{conf} // ''));
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION evento; CREATE ROLE proxy LOGIN IN ROLE evento_proxy');
	return bless { node => $node, proxies => 0 }, $class;
}

sub node { return $_[0]->{node} }

# Events show in the view a moment after they are committed.
sub sql
{
	my ($self, $sql) = @_;
	$sql = "\\o /dev/null\nCALL evento.wait(NULL, '20s');\n\\o\n$sql" if $sql =~ /evento\.events\b/;
	return $self->{node}->safe_psql('postgres', $sql);
}

# Starts a standby of the database.  The database was made with max_wal_senders above 0.
sub standby
{
	my ($self, $name) = @_;
	my $primary = $self->{node};
	my $standby = PostgreSQL::Test::Cluster->new($name // 'standby');
	$primary->backup('for_' . $standby->name);
	$standby->init_from_backup($primary, 'for_' . $standby->name, has_streaming => 1);
	$standby->start;
	return $standby;
}

# Whether something is done within seconds, in one of a few tries: a busy machine makes any of them late, but not all.
# try: does it, and gives how long it took.
sub soon
{
	my ($seconds, $try) = @_;
	for (1 .. 10)
	{
		return 1 if $try->() < $seconds;
	}
	return 0;
}

# What code gives, a text, is expected to be this in one of a few tries: a proxy whose registration was not renewed in time, as
# where a process gets no CPU, leaves out what is only quicker.  code: gets the number of the try.
sub in_some_try
{
	my ($expected, $code) = @_;
	my $got;
	for my $try (1 .. 10)
	{
		$got = $code->($try);
		last if $got eq $expected;
	}
	return $got;
}

# One that commits wait for from then on.
sub synchronous_standby
{
	my ($self) = @_;
	my $standby = $self->standby;
	my $primary = $self->{node};
	$primary->append_conf('postgresql.conf', "synchronous_standby_names = '*'\n");
	$primary->reload;
	$primary->poll_query_until('postgres', q(SELECT sync_state = 'sync' FROM pg_stat_replication)) or die 'the standby is not synchronous';
	return $standby;
}

# Makes commits wait for a synchronous standby that is not there (1), or not any more (0).  The database was made with
# max_wal_senders above 0.
sub standby_missing
{
	my ($self, $missing) = @_;
	my $node = $self->{node};
	$node->safe_psql('postgres', $missing ? q(ALTER SYSTEM SET synchronous_standby_names = 'nobody') : 'ALTER SYSTEM RESET synchronous_standby_names');
	$node->reload;
	# It is in force when commits behave so, which this server process alone decides.
	my $until = time + 60;
	for (my $ms = 50; time < $until; $ms += 10)
	{
		my $err = '';
		$node->psql('postgres', qq(SET statement_timeout = '${ms}ms'; DO \$\$ BEGIN PERFORM pg_logical_emit_message(true, 'probe', ''); COMMIT; END \$\$), stderr => \$err);
		# A statement that does not get as far as its commit in time says nothing.
		return if $missing ? $err =~ /synchronous replication/ : $err eq '';
		sleep 0.02;
	}
	croak 'the setting does not come into force';
}

# Starts a proxy and waits until it is ready.  flags: settings, undef for one that is not given; wait => 0: only until it listens;
# program: another one than that of program().
sub start
{
	my ($self, %opt) = @_;
	my $n = ++$self->{proxies};
	my $proxy = bless { test => $self, name => "proxy$n", log => "$PostgreSQL::Test::Utils::log_path/proxy$n.log", flags => $opt{flags} // {},
		program => $opt{program} // program() }, 'Evento::ProxyTest::Proxy';
	for my $again (reverse 0 .. 4)
	{
		@$proxy{qw(port internal http)} = map { $opt{flags}{$_} // PostgreSQL::Test::Cluster::get_free_port() } 'bundle-port', 'internal-port', 'http-port';
		$proxy->run;
		return $proxy if eval { $proxy->wait_http($opt{wait} // 1 ? '/readyz' : '/healthz'); 1 };
		# Who knows nothing of our ports may have taken one.
		die $@ if !$again || $proxy->running || $proxy->log !~ /Address already in use/;
		unlink $proxy->{log};
	}
	return;
}

# Runs the program and gives its exit status, output and errors.
sub run_program
{
	my (@args) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ program(), @args ], '>', \$out, '2>', \$err, IPC::Run::timeout(120));
	return ($? >> 8, $out, $err);
}

# Starts a program beside the test, with all that it prints in a file, which is there from then on; gives its process id.
sub run_beside
{
	my ($log, @command) = @_;
	PostgreSQL::Test::Utils::append_to_file($log, '');
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		open(STDOUT, '>', $log) or POSIX::_exit(127);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	started($pid);
	return $pid;
}

sub started { $pids{ $_[0] } = 1; return }

sub ended { delete $pids{ $_[0] }; return }

END
{
	my $status = $?;
	for my $pid (keys %pids)
	{
		kill 'KILL', $pid;
		waitpid $pid, 0;
	}
	$? = $status;
}

package Evento::ProxyTest::Proxy;

use strict;
use warnings;

use Carp qw(croak);
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);

# Starts the process, again with the same ports where it ran before.
sub run
{
	my ($self) = @_;
	my $node = $self->{test}->node;
	my %flags = (
		name => $self->{name}, database => $node->connstr('postgres') . ' user=proxy',
		'bundle-address' => '127.0.0.1', 'bundle-port' => $self->{port}, 'internal-port' => $self->{internal},
		'http-port' => $self->{http}, 'log-level' => 'debug',
		# A test looks after one connection at a time, and may take its time on a slow machine.
		'idle-timeout' => '10min', %{ $self->{flags} });
	my @args = map { ("--$_", $flags{$_}) } grep { defined $flags{$_} } sort keys %flags;
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		open(STDERR, '>>', $self->{log}) or POSIX::_exit(127);
		open(STDOUT, '>&', \*STDERR) or POSIX::_exit(127);
		exec { $self->{program} } $self->{program}, @args or POSIX::_exit(127);
	}
	Evento::ProxyTest::started($pid);
	$self->{pid} = $pid;
	return;
}

# The status and the body of a GET; status 0 where there is no answer.
sub get
{
	my ($self, $path, $method) = @_;
	my $tls = ($self->{flags}{'http-tls'} // 'off') eq 'on' && Evento::Bundle->new($self->{http}, tls => { ca => $self->{flags}{'tls-ca'} });
	my $socket = $tls ? $tls->{socket} : IO::Socket::INET->new(PeerAddr => $self->{flags}{'http-address'} // '127.0.0.1', PeerPort => $self->{http}, Timeout => 10);
	return (0, '') if !$socket;
	local $SIG{PIPE} = 'IGNORE';
	syswrite $socket, ($method // 'GET') . " $path HTTP/1.0\r\n\r\n";
	my $text = do { local $/; <$socket> } // '';
	my ($head, $body) = split /\r\n\r\n/, $text, 2;
	return ($head // '') =~ m{^HTTP/1\.\d (\d+)} ? ($1, $body) : (0, '');
}

sub wait_http
{
	my ($self, $path, $seconds) = @_;
	my $until = time + ($seconds // 120);
	while (time < $until)
	{
		croak "the proxy has ended:\n" . $self->log if !$self->running;
		return if ($self->get($path))[0] == 200;
		sleep 0.05;
	}
	croak "$path is not 200:\n" . $self->log;
}

sub metric
{
	my ($self, $name) = @_;
	return ($self->get('/metrics'))[1] =~ /^evento_proxy_$name (\d+)$/m ? $1 : undef;
}

# Waits until code gives true; false where it does not in time.
sub wait_for
{
	my ($self, $code, $seconds) = @_;
	my $until = time + ($seconds // 60);
	while (1)
	{
		return 1 if $code->();
		return 0 if time >= $until;
		sleep 0.02;
	}
}

sub log { my ($self) = @_; return PostgreSQL::Test::Utils::slurp_file($self->{log}) }

# Waits for a line in the log that matches; gives the lines that do.
sub wait_log
{
	my ($self, $pattern, $seconds) = @_;
	my @found;
	$self->wait_for(sub { @found = grep { /$pattern/ } split /\n/, $self->log }, $seconds);
	return @found;
}

# The same of the log since one of its connections was made, or since another point of it: an earlier line may look the same.
sub wait_log_since
{
	my ($self, $connection, $pattern) = @_;
	my @found;
	$self->wait_for(sub { @found = grep { /$pattern/ } split /\n/, substr($self->log, $connection->{log_from}) });
	return @found;
}

sub running
{
	my ($self) = @_;
	return 0 if !defined $self->{pid};
	return 1 if waitpid($self->{pid}, WNOHANG) == 0;
	$self->{status} = $?;
	Evento::ProxyTest::ended($self->{pid});
	undef $self->{pid};
	return 0;
}

# Sends a signal and waits for the end; gives the wait status, undef where it does not end.
sub stop
{
	my ($self, $signal, $seconds) = @_;
	kill $signal // 'TERM', $self->{pid} if defined $self->{pid};
	$self->wait_for(sub { !$self->running }, $seconds) or return undef;
	return $self->{status};
}

# The number of its registration.
sub number { my ($self) = @_; return $self->{test}->sql("SELECT max(proxy_id) FROM evento._proxies WHERE name = '$self->{name}'") }

# Whether the database has heard that the proxy left, which had that number and was stopped.  It does not wait long for that,
# so where the database takes its time it is started and stopped again.
sub has_left
{
	my ($self, $number) = @_;
	for (1 .. 5)
	{
		my $rows = "SELECT (SELECT count(*) FROM evento._proxies WHERE proxy_id = $number) + (SELECT count(*) FROM evento._sessions WHERE proxy_id = $number)";
		return 1 if $self->wait_for(sub { $self->{test}->sql($rows) == 0 }, 5);
		$self->run;
		$self->wait_http('/readyz');
		$number = $self->number;
		$self->stop;
	}
	return 0;
}

# A connected bundle.
sub bundle
{
	my ($self, %opt) = @_;
	my $from = -s $self->{log};
	my $bundle = Evento::Bundle->connected($self->{port}, %opt);
	$bundle->{log_from} = $from;
	return $bundle;
}

# A connection that has said nothing yet.
sub connection
{
	my ($self, %opt) = @_;
	my $from = -s $self->{log};
	my $connection = Evento::Bundle->new($self->{port}, %opt);
	$connection->{log_from} = $from;
	return $connection;
}

1;
