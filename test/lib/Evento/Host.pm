# Evento::Host
#   What the drivers of "make check", "make run" and "make bench" share: a
#   private directory, the unprivileged user that PostgreSQL runs as, processes
#   that end with the driver, free ports, and a private PostgreSQL.
package Evento::Host;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use POSIX qw(:sys_wait_h setpgid);
use Time::HiRes qw(sleep time);

# Makes a private directory. top: the checkout. name: what the directory is
# called after. It goes, and every process started here with it, in cleanup().
sub new
{
	my ($class, %args) = @_;
	my $base = $ENV{TMPDIR} // '/var/tmp';
	my $dir = abs_path(tempdir("evento-$args{name}.XXXXXX", DIR => $base));
	my $self = bless {
		top => $args{top},
		dir => $dir,
		user => undef,
		children => {},
		databases => [],
	}, $class;
	if ($> == 0)
	{
		chomp(my $user = `set -eu; . '$args{top}/test/lib/common.sh'; unprivileged_user`);
		die "no unprivileged user to run PostgreSQL as\n" if $user eq '';
		$self->{user} = $user;
		chown((getpwnam($user))[ 2, 3 ], $dir) or die "chown $dir: $!\n";
	}
	chmod 0755, $dir;
	$self->mkdir($_) for "$dir/tmp", "$dir/home", "$dir/log";
	return $self;
}

sub dir { return $_[0]->{dir} }

# Makes a directory that belongs to the unprivileged user.
sub mkdir
{
	my ($self, $path) = @_;
	make_path($path, $self->{user} ? { owner => $self->{user}, group => (getpwnam($self->{user}))[3] } : {});
	return $path;
}

# Mounts a small file system in memory that belongs to the unprivileged user, for
# what is to run out of space. Gives where, or undef where this machine has no
# such thing for us (only root may, and not in every container).
sub mount_small_disk
{
	my ($self, $megabytes) = @_;
	my $path = "$self->{dir}/small";
	return if $> != 0;
	make_path($path);
	system('sh', '-c', 'mount -t tmpfs -o "size=$1m,uid=$2,mode=0700" evento-small "$3" 2>/dev/null', 'sh', $megabytes, (getpwnam($self->{user}))[2], $path) == 0 or return;
	$self->{small} = $path;
	return $path;
}

# Takes it away again, once nobody uses it.
sub unmount_small_disk
{
	my ($self) = @_;
	system('umount', '-l', delete $self->{small}) if $self->{small};
	return;
}

# Copies the sources of the checkout, without what builds leave behind, to
# DIR/src, and gives that path.
sub copy_sources
{
	my ($self) = @_;
	my $src = "$self->{dir}/src";
	make_path($src);
	# The script of the version at hand is made of sql/evento.sql; those from version to version are sources.
	my @made = map { s{^\Q$self->{top}\E}{.}r } grep { !/--.*--/ } glob "$self->{top}/sql/evento--*.sql";
	my @exclude = map { "--exclude=$_" } qw(./.git ./build .server *.o *.so *.a *.bc target node_modules tmp_check results), @made;
	system('sh', '-c', 'cd "$1" && shift && to=$1 && shift && tar -cf - "$@" . | tar -xf - -C "$to"', 'sh',
		$self->{top}, $src, @exclude) == 0
	  or die "could not copy the sources to $src\n";
	if ($self->{user})
	{
		system('chown', '-R', "$self->{user}:", $src) == 0 or die "chown $src failed\n";
	}
	return $src;
}

# Forks a command as the unprivileged user, in a process group of its own.
# out, err: files for its output; env: variables; cwd. Gives the pid.
sub start
{
	my ($self, $command, %opt) = @_;
	my $pid = fork() // die "fork: $!\n";
	if ($pid == 0)
	{
		setpgid(0, 0);
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', $opt{out}) or die "$opt{out}: $!" if $opt{out};
		if ($opt{err}) { open(STDERR, '>>', $opt{err}) or die "$opt{err}: $!" }
		elsif ($opt{out}) { open(STDERR, '>&', \*STDOUT) }
		# Settings of the caller's would reach PostgreSQL, its clients and make.
		delete @ENV{ grep { /^(?:PG(?!_CONFIG$)|LC_|LANGUAGE$|MAKE|MFLAGS)/ } keys %ENV };
		$ENV{LANG} = 'C.UTF-8';
		$ENV{EVENTO_HOST} = $self->{dir};
		$ENV{TMPDIR} = "$self->{dir}/tmp";
		if ($self->{user})
		{
			$ENV{HOME} = "$self->{dir}/home";
			$ENV{USER} = $ENV{LOGNAME} = $self->{user};
		}
		$ENV{$_} = $opt{env}{$_} for keys %{ $opt{env} // {} };
		chdir($opt{cwd} // $self->{dir}) or die "chdir: $!\n";
		my @as = $self->{user}
		  ? ('setpriv', "--reuid=$self->{user}", '--regid=' . (getpwnam($self->{user}))[3], '--init-groups', '--')
		  : ();
		exec(@as, @$command) or POSIX::_exit(127);
	}
	setpgid($pid, $pid);
	$self->{children}{$pid} = $opt{what} // $command->[0];
	return $pid;
}

# Waits for a child; after timeout seconds (none: for ever) its process group
# is ended. tick is called while it waits. Gives the exit status as $?, and
# 'timeout' in list context where it ran out.
sub wait
{
	my ($self, $pid, $timeout, $tick) = @_;
	my $until = $timeout ? time + $timeout : undef;
	my $late = 0;
	while (1)
	{
		my $done = waitpid($pid, WNOHANG);
		if ($done == $pid || $done < 0)
		{
			my $status = $?;
			delete $self->{children}{$pid};
			return wantarray ? ($status, $late ? 'timeout' : '') : $status;
		}
		if ($until && time > $until)
		{
			kill($late < 2 ? 'TERM' : 'KILL', -$pid);
			$late++;
			$until = time + 5;
		}
		$tick->() if $tick;
		sleep 0.02;
	}
}

# start and wait in one.
sub run
{
	my ($self, $command, %opt) = @_;
	return $self->wait($self->start($command, %opt), $opt{timeout});
}

# True while a child runs.
sub alive
{
	my ($self, $pid) = @_;
	return 0 unless $self->{children}{$pid};
	my $done = waitpid($pid, WNOHANG);
	return 1 if $done == 0;
	delete $self->{children}{$pid};
	return 0;
}

# Processes that were started here or by those that were, wherever they went:
# told by their environment, and by an executable in the directory (PostgreSQL
# writes its title over its environment).
sub processes
{
	my ($self) = @_;
	my @found;
	for my $proc (glob '/proc/[0-9]*')
	{
		my ($pid) = $proc =~ /(\d+)$/;
		next if $pid == $$;
		my $exe = readlink("$proc/exe") // next;
		if (index($exe, "$self->{dir}/") == 0)
		{
			push @found, [ $pid, $exe ];
			next;
		}
		open(my $fh, '<', "$proc/environ") or next;
		local $/;
		my $environ = <$fh> // '';
		push @found, [ $pid, $exe ] if index("\0$environ", "\0EVENTO_HOST=$self->{dir}\0") >= 0;
	}
	return @found;
}

# Ends all processes that were started here. Gives the names of those that
# were there.
sub end_processes
{
	my ($self) = @_;
	my @were = $self->processes;
	for my $round (0 .. 60)
	{
		my @left = $self->processes or last;
		for my $p (@left)
		{
			my $signal = $round > 30 ? 'KILL' : $p->[1] =~ m{/postgres\b} ? 'QUIT' : 'TERM';
			kill($signal, $p->[0]) if $round % 15 == 0 || $signal eq 'KILL';
		}
		1 while waitpid(-1, WNOHANG) > 0;
		sleep 0.1;
	}
	1 while waitpid(-1, WNOHANG) > 0;
	$self->{children} = {};
	my %names;
	$names{ $_->[1] =~ s{^.*/}{}r =~ s/ \(deleted\)$//r }++ for @were;
	return sort keys %names;
}

# Ends what runs and removes the directory.
sub cleanup
{
	my ($self) = @_;
	return if !$self->{dir} || $self->{clean}++;
	$self->end_processes;
	$self->unmount_small_disk;
	remove_tree($self->{dir}, { safe => 0, error => \my $ignored });
	return;
}

# Ports that are free at the moment on 127.0.0.1, below the range from which
# the kernel takes outgoing ones, so that they stay free.
sub free_ports
{
	my ($self, $n) = @_;
	my (@ports, %seen);
	for (1 .. 10000)
	{
		last if @ports == $n;
		my $port = 10240 + int(rand(22000));
		next if $seen{$port}++;
		my $probe = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Proto => 'tcp', Listen => 1, ReuseAddr => 1) or next;
		close $probe;
		push @ports, $port;
	}
	die "no free ports\n" if @ports < $n;
	return @ports;
}

# Makes and starts a PostgreSQL with the extension loaded. bin: where its
# executables are; name; port; conf: lines for postgresql.conf; tcp: listens on
# 127.0.0.1 besides its socket; under: a command that runs the server as its
# child or in itself. Gives { data, port, sock, bin, log }.
sub start_postgres
{
	my ($self, %opt) = @_;
	my $data = "$self->{dir}/$opt{name}";
	my $sock = "$self->{dir}/tmp";
	my ($port) = $opt{port} // $self->free_ports(1);
	my $log = "$self->{dir}/log/$opt{name}.log";
	$self->run([ "$opt{bin}/initdb", '-D', $data, '-N', '-A', 'trust', '-U', 'postgres', '-E', 'UTF8', '--locale=C.UTF-8' ], out => "$log.initdb") == 0
	  or die "initdb failed:\n" . slurp("$log.initdb");
	open(my $fh, '>>', "$data/postgresql.conf") or die "$data/postgresql.conf: $!\n";
	print $fh "port = $port\nunix_socket_directories = '$sock'\nlisten_addresses = '", ($opt{tcp} ? '127.0.0.1' : ''), "'\n",
	  "shared_preload_libraries = 'evento'\nlc_messages = 'C'\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n", $opt{conf} // '';
	close $fh;
	my $server = { data => $data, port => $port, sock => $sock, bin => $opt{bin}, log => $log };
	if ($opt{under})
	{
		$self->start([ @{ $opt{under} }, "$opt{bin}/postgres", '-D', $data ], out => $log);
		for (1 .. 600)
		{
			return $server if $self->run([ "$opt{bin}/pg_isready", '-q', '-h', $sock, '-p', $port ]) == 0;
			sleep 0.5;
		}
		die "PostgreSQL did not start:\n" . slurp($log);
	}
	$self->run([ "$opt{bin}/pg_ctl", '-D', $data, '-l', $log, '-w', '-t', '60', 'start' ], out => "$log.start") == 0
	  or die "PostgreSQL did not start:\n" . slurp("$log.start") . (-e $log ? slurp($log) : '');
	return $server;
}

# Runs SQL with psql on such a server and gives what it prints, unaligned and
# without headers; dies where it fails.
sub psql
{
	my ($self, $server, $db, $sql) = @_;
	my $out = "$self->{dir}/tmp/psql.$$";
	unlink $out, "$out.err";
	my $status = $self->run([ "$server->{bin}/psql", '-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', $server->{sock}, '-p', $server->{port}, '-U', 'postgres', '-d', $db, '-c', $sql ],
		out => $out, err => "$out.err");
	my ($text, $error) = (slurp($out), slurp("$out.err"));
	die "psql: $error\n" if $status != 0;
	chomp $text;
	return $text;
}

# The content of a file.
sub slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	local $/;
	return <$fh> // '';
}

1;
