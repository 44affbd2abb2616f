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
		disks => {},
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
# what is to run out of space. Gives the path, or undef where this machine has no
# such thing for us (only root may, and not in every container).
sub mount_small_disk
{
	my ($self, $path, $megabytes) = @_;
	return if $> != 0;
	make_path($path);
	system('sh', '-c', 'mount -t tmpfs -o "size=$1m,uid=$2,mode=0700" evento-small "$3" 2>/dev/null', 'sh', $megabytes, (getpwnam($self->{user}))[2], $path) == 0 or return;
	$self->{disks}{$path} = 1;
	return $path;
}

# Takes it away again, once nobody uses it.
sub unmount_small_disk
{
	my ($self, $path) = @_;
	system('umount', '-l', $path) if delete $self->{disks}{$path};
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
# out, err: files for its output; env: variables; cwd; part: a name for it and
# all that it starts, by which processes() tells them; privileged: as this user,
# who may be root. Gives the pid.
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
		$ENV{EVENTO_PART} = $opt{part} // '';
		$ENV{TMPDIR} = "$self->{dir}/tmp";
		if ($self->{user})
		{
			$ENV{HOME} = "$self->{dir}/home";
			$ENV{USER} = $ENV{LOGNAME} = $self->{user};
		}
		$ENV{$_} = $opt{env}{$_} for keys %{ $opt{env} // {} };
		chdir($opt{cwd} // $self->{dir}) or die "chdir: $!\n";
		my @as = $self->{user} && !$opt{privileged}
		  ? ('setpriv', "--reuid=$self->{user}", '--regid=' . (getpwnam($self->{user}))[3], '--init-groups', '--')
		  : ();
		exec(@as, @$command) or POSIX::_exit(127);
	}
	setpgid($pid, $pid);
	$self->{children}{$pid} = $opt{what} // $command->[0];
	return $pid;
}

# The exit status, as $?, of a child that has ended, which is told once; undef of one that runs.
sub status_of
{
	my ($self, $pid) = @_;
	return if waitpid($pid, WNOHANG) == 0;
	delete $self->{children}{$pid};
	return $?;
}

# Waits for a child; after timeout seconds (none: for ever) its process group
# is ended. Gives the exit status as $?.
sub wait
{
	my ($self, $pid, $timeout) = @_;
	my $limit = { until => $timeout ? time + $timeout : undef };
	while (1)
	{
		my $status = $self->status_of($pid);
		return $status if defined $status;
		$self->end_if_late($pid, $limit);
		sleep 0.02;
	}
}

# Ends a child's process group where it is past its limit, { until }: first
# gently, which counts in late.
sub end_if_late
{
	my ($self, $pid, $limit) = @_;
	return if !$limit->{until} || time < $limit->{until};
	kill($limit->{late}++ ? 'KILL' : 'TERM', -$pid);
	$limit->{until} = time + 10;
	return;
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
	return $self->{children}{$pid} && !defined $self->status_of($pid) ? 1 : 0;
}

# Processes that were started here or by those that were, wherever they went:
# told by their environment, and by an executable in the directory (PostgreSQL
# writes its title over its environment). part, dir: only those of a part, told
# by the environment, by working in its directory, as PostgreSQL's do, or by a
# parent that is one of them. Gives [ pid, executable ] of each.
sub processes
{
	my ($self, %of) = @_;
	my (%exe, %parent, %found);
	for my $proc (glob '/proc/[0-9]*')
	{
		my ($pid) = $proc =~ /(\d+)$/;
		next if $pid == $$;
		my $exe = readlink("$proc/exe") // next;
		my $environ = "\0" . slurp("$proc/environ");
		next if index($exe, "$self->{dir}/") != 0 && index($environ, "\0EVENTO_HOST=$self->{dir}\0") < 0;
		$exe{$pid} = $exe;
		($parent{$pid}) = slurp("$proc/stat") =~ /^\d+ \(.*\) \S (\d+) /s;
		$found{$pid} = 1
		  if !%of || index($environ, "\0EVENTO_PART=$of{part}\0") >= 0 || index((readlink("$proc/cwd") // '') . '/', "$of{dir}/") == 0;
	}
	my $more = 1;
	while ($more)
	{
		my @children = grep { !$found{$_} && $found{ $parent{$_} // 0 } } keys %exe;
		$found{$_} = 1 for @children;
		$more = @children;
	}
	return map { [ $_, $exe{$_} ] } keys %found;
}

# Waits a moment for processes that are on their way out: the postmaster goes a little later than its pid file, which is what
# pg_ctl waits for. Those of these names are not waited for.
sub wait_for_last
{
	my ($self, $names, %of) = @_;
	my $until = time + 10;
	sleep 0.05 while time < $until && grep { $_->[1] !~ m{/$names$} } $self->processes(%of);
	return;
}

# Ends all of these processes. Gives the names of those that were there.
sub end_processes
{
	my ($self, %of) = @_;
	my %names;
	for my $round (0 .. 60)
	{
		my @left = $self->processes(%of) or last;
		for my $p (@left)
		{
			my ($pid, $exe) = @$p;
			$names{ $exe =~ s{^.*/}{}r =~ s/ \(deleted\)$//r } = 1 if $round == 0;
			my $signal = $round > 30 ? 'KILL' : $exe =~ m{/postgres\b} ? 'QUIT' : 'TERM';
			kill($signal, $pid) if $round % 15 == 0 || $signal eq 'KILL';
			# One that is stopped hears of it when it goes on.
			kill('CONT', $pid) if $round == 15;
		}
		# What ended already has no executable any more.
		if (!%of) { $self->status_of($_) for keys %{ $self->{children} } }
		sleep 0.1;
	}
	return sort keys %names;
}

# Ends what runs and removes the directory.
sub cleanup
{
	my ($self) = @_;
	return if !$self->{dir} || $self->{clean}++;
	$self->end_processes;
	$self->unmount_small_disk($_) for keys %{ $self->{disks} };
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
		$self->start([ @{ $opt{under} }, "$opt{bin}/postgres", '-D', $data ], out => $log, part => $opt{name});
		for (1 .. 600)
		{
			return $server if $self->run([ "$opt{bin}/pg_isready", '-q', '-h', $sock, '-p', $port ]) == 0;
			sleep 0.5;
		}
		die "PostgreSQL did not start:\n" . slurp($log);
	}
	$self->run([ "$opt{bin}/pg_ctl", '-D', $data, '-l', $log, '-w', '-t', '300', 'start' ], out => "$log.start", part => $opt{name}) == 0
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
