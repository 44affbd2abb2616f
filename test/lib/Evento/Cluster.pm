# Evento::Cluster
#   PostgreSQL::Test::Cluster with the extension in it, and what the TAP tests
#   of the extension ask again and again.
package Evento::Cluster;

use strict;
use warnings;

use parent -norequire, 'PostgreSQL::Test::Cluster';

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Path qw(make_path);
use Evento::Deaf;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(sleep time);

# A server that preloads the extension, initialized and not started. conf: more
# settings; preload: what to preload instead of 'evento'; install_path: of
# another PostgreSQL than the one in PATH; bindir: its executables; initdb: more
# of its options.
sub make
{
	my ($class, $name, %opt) = @_;
	my $install = $opt{install_path} // ($opt{bindir} ? dirname($opt{bindir}) : undef);
	my $node = bless PostgreSQL::Test::Cluster->new($name, defined $install ? (install_path => $install) : ()), $class;
	$node->init(allows_streaming => $opt{streaming} // 1, $opt{initdb} ? (extra => $opt{initdb}) : ());
	my $preload = $opt{preload} // 'evento';
	$node->append_conf('postgresql.conf', <<"CONF" . ($opt{conf} // ''));
shared_preload_libraries = '$preload'
max_connections = 100
max_prepared_transactions = 0
restart_after_crash = on
hot_standby_feedback = on
log_min_messages = info
log_statement = none
max_wal_size = 512MB
CONF
	return $node;
}

# The same, started, with the extension in database postgres.
sub started
{
	my ($class, $name, %opt) = @_;
	my $node = $class->make($name, %opt);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION evento');
	return $node;
}

# The module that stops a commit (evento_pause.lock), installed as "make check" does, or else built here: for preload.
sub pause_module
{
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
	chomp(my $libdir = `'$pg_config' --pkglibdir`);
	return 'evento_pause' if -e "$libdir/evento_pause.so";
	my $source = abs_path(dirname(__FILE__) . '/../../modules/evento_pause');
	my $built = "$PostgreSQL::Test::Utils::tmp_check/evento_pause";
	make_path($built);
	copy("$source/$_", $built) or die "copy $source/$_: $!" for 'Makefile', 'evento_pause.c';
	my $log = `make -C '$built' PG_CONFIG='$pg_config' 2>&1`;
	die "evento_pause was not built:\n$log" if $? != 0;
	return "$built/evento_pause";
}

# A streaming standby of a server, started, caught up.
sub standby
{
	my ($primary, $name, %opt) = @_;
	$primary->backup("for_$name");
	my $node = bless PostgreSQL::Test::Cluster->new($name), ref $primary;
	$node->init_from_backup($primary, "for_$name", has_streaming => 1);
	$node->append_conf('postgresql.conf', $opt{conf}) if $opt{conf};
	$node->start;
	$primary->wait_for_catchup($node);
	return $node;
}

# A session beside the test. The time that it has is for all of it, and a slow machine may take long for the rest of a test.
sub background_psql
{
	my ($self, $db, %opt) = @_;
	return $self->SUPER::background_psql($db, timeout => 900, %opt);
}

# Waits until a standby shows all that this server does by now, and gives the watermark. The watermark is committed
# asynchronously, so that what is on disk does not tell: a commit that is not brings it there.
sub followed_by
{
	my ($self, $standby, $db) = @_;
	$db //= 'postgres';
	my $last = $self->settle($db);
	$self->safe_psql($db, q{SELECT pg_logical_emit_message(true, 'test', '')});
	$self->wait_for_catchup($standby);
	my $there = $standby->safe_psql($db, "CALL evento.wait($last - 1, '60s')");
	die "the standby is at $there, not $last" if $there < $last;
	return $last;
}

# Sets for which standbys commits wait, and waits until they do. New sessions have the setting once the postmaster has told
# everybody; that a missing one is waited for is the checkpointer's doing, which does not end a checkpoint of later without it.
sub set_synchronous
{
	my ($self, $names) = @_;
	$self->append_conf('postgresql.conf', "synchronous_standby_names = '$names'");
	$self->reload;
	$self->poll_query_until('postgres', "SELECT current_setting('synchronous_standby_names') = '$names'") or die 'the setting does not come';
	# The one that is under way as it is told may have looked before.
	$self->safe_psql('postgres', 'CHECKPOINT') for 1 .. 2;
	return;
}

# What the loss of its machine does to a server: every process ends at once,
# where it stands.
sub lose_power
{
	my ($node) = @_;
	my $postmaster = $node->{_pid} // die 'is not running';
	my %pids = ($postmaster => 1);
	# Who is stopped makes no more of them; the second time finds the last.
	for (1 .. 2)
	{
		kill('STOP', keys %pids);
		for my $stat (glob '/proc/[0-9]*/stat')
		{
			open(my $file, '<', $stat) or next;
			my ($pid, $parent) = (<$file> // '') =~ /^(\d+) \(.*\) \S (\d+) / or next;
			$pids{$pid} = 1 if $parent == $postmaster;
		}
	}
	kill('STOP', keys %pids);
	kill('KILL', keys %pids);
	my $until = time + 60;
	while (kill(0, $postmaster)) { sleep 0.02; die 'the postmaster is still there' if time > $until }
	$node->{_pid} = undef;
	return;
}

# Waits until the server takes connections again after a crash; false where it does not in time. pid: who was killed. As long as
# that is not gone, and the postmaster has not heard of it, the server takes connections as if nothing had been.
sub wait_back
{
	my ($self, $pid) = @_;
	for (1 .. 1800)
	{
		last if !$pid || !kill(0, $pid);
		sleep 0.1;
	}
	return $self->poll_query_until('postgres', 'SELECT true');
}

# A connection string for whoever of several servers takes writes.
sub read_write
{
	my ($db, @nodes) = @_;
	return sprintf 'host=%s port=%s dbname=%s target_session_attrs=read-write connect_timeout=5', join(',', map { $_->host } @nodes), join(',', map { $_->port } @nodes), $db;
}

# The SQLSTATE that a statement ends with, '' where it succeeds. Whole message
# in list context.
sub state_of
{
	my ($node, $sql, $db) = @_;
	my ($out, $err) = ('', '');
	$node->psql($db // 'postgres', $sql, stdout => \$out, stderr => \$err, on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	my $state = $err =~ /(?:ERROR|FATAL):\s+(\w{5}):/ ? $1 : $err =~ /(?:ERROR|FATAL)/ ? '?????' : '';
	return wantarray ? ($state, $err) : $state;
}

# Waits until all that is committed can be read; gives the watermark.
sub settle
{
	my ($node, $db) = @_;
	return $node->safe_psql($db // 'postgres', "CALL evento.wait(NULL, '60s')");
}

# Starts a command with the environment of this server; gives a handle with the
# keys pid, out and err (file names). Ends with finish().
my $commands = 0;

sub launch
{
	my ($node, @command) = @_;
	my $base = $node->basedir . '/command' . ++$commands;
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		local %ENV = $node->_get_env();
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>', "$base.out") or die $!;
		open(STDERR, '>', "$base.err") or die $!;
		exec(@command) or POSIX::_exit(127);
	}
	return { pid => $pid, out => "$base.out", err => "$base.err" };
}

# Waits for a launched command, or ends it after so many seconds; gives its
# exit status.
sub finish
{
	my ($node, $handle, $timeout) = @_;
	my $until = time + ($timeout // 60);
	while (1)
	{
		my $done = waitpid($handle->{pid}, 1);
		return $? if $done == $handle->{pid};
		return -1 if $done < 0;
		if (time > $until)
		{
			kill 'KILL', $handle->{pid};
			$until = time + 10;
		}
		sleep 0.02;
	}
}

# The pid of a background session.
sub backend_pid
{
	my ($session) = @_;
	return $session->query_safe('SELECT pg_backend_pid()');
}

# Sends a statement to a background session without waiting for its end.
sub send_to
{
	my ($session, $sql) = @_;
	$session->{stdin} .= "$sql\n\\echo done-with-this\n";
	$session->{run}->pump_nb;
	return;
}

# Waits for the end of what send_to sent; gives its output.
sub answer_of
{
	my ($session) = @_;
	my $until = time + 60;
	until ($session->{stdout} =~ /done-with-this\n/)
	{
		die "no answer: $session->{stdout} $session->{stderr}" if time > $until;
		$session->{run}->pump_nb;
		sleep 0.005;
	}
	# What it has said on stderr before, it has said by now.
	$session->{run}->pump_nb;
	my $out = $session->{stdout};
	$session->{stdout} = '';
	$out =~ s/done-with-this\n//;
	chomp $out;
	return $out;
}

# Whether the end of it has come.
sub answered
{
	my ($session) = @_;
	$session->{run}->pump_nb;
	return $session->{stdout} =~ /done-with-this\n/ ? 1 : 0;
}

# What must hold of every log, asked on any server: versions dense, and no
# stream whose number is not the position of its first event.
sub log_is_sound
{
	my ($node, $what, $db) = @_;
	$db //= 'postgres';
	is($node->safe_psql($db, 'SELECT count(*) FROM (SELECT 1 FROM evento._events WHERE stream_no IS NOT NULL GROUP BY stream_no HAVING min(version) <> 1 OR max(version) <> count(*)) x'),
		'0', "$what: versions are dense");
	is($node->safe_psql($db, 'SELECT count(*) FROM evento._events e LEFT JOIN evento._streams s USING (stream_no) WHERE e.stream_no IS NOT NULL AND (s.stream_no IS NULL OR e.version = 1 AND e.position <> e.stream_no)'),
		'0', "$what: every event has its stream");
	is($node->safe_psql($db, 'SELECT count(*) FROM (SELECT 1 FROM evento._events GROUP BY position HAVING count(*) > 1) x'),
		'0', "$what: no position twice");
	return;
}

1;
