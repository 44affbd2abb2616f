#!/usr/bin/perl
# check.pl
#   The driver of "make check": copies the sources to a private directory,
#   builds them there with warnings as errors, runs the suites as an
#   unprivileged user, JOBS files at a time, and closes with "N passed, N failed,
#   N skipped".  test/README.md says what the suites may rely on.
#
#   check.pl [--long] [--logs=NAME] [--follow] [--timeout=SECONDS]
#            [--asserts | --valgrind=SUPPRESSIONS]
#
#   --long: the long forms of tests. --logs: output goes to build/NAME, by
#   default build/check. --follow: shows what programs say while they run.
#   --timeout: a file may take so long. --asserts: takes only a server that has
#   assertions. --valgrind: the server of the SQL tests runs under valgrind;
#   SUPPRESSIONS is the server's own list of what to pass over.
use strict;
use warnings;

use Cwd qw(abs_path);
use Fcntl qw(:flock);
use File::Basename qw(dirname basename);
use File::Path qw(make_path);
use Getopt::Long;
use Time::HiRes qw(time);

my $top;
BEGIN { $top = abs_path(dirname(__FILE__) . '/../..') }
use lib "$top/test/lib";
use Evento::Host;
use Evento::Results;
use Evento::Schedule;
use Evento::Valgrind;

my ($long, $follow, $timeout, $asserts, $suppressions, $logs) = (0, 0, undef, 0, undef, 'check');
GetOptions('long' => \$long, 'follow' => \$follow, 'timeout=i' => \$timeout, 'asserts' => \$asserts, 'valgrind=s' => \$suppressions, 'logs=s' => \$logs) or exit 2;
$logs = "$top/build/$logs";
my $jobs = ($ENV{JOBS} // '') ne '' ? $ENV{JOBS} : Evento::Schedule::default_jobs();
$jobs =~ /^[1-9]\d{0,2}$/ or die "JOBS must be a number from 1 on, not \"$jobs\"\n";
# A file may take so long, in seconds, and longer beside others; and all of them together.
my $slow = $long || $suppressions;
my $file_timeout = ($timeout // ($slow ? 3600 : $asserts ? 900 : 300)) * (1 + ($jobs - 1) / 2);
# What is built before it is run takes longer.
my $make_timeout = 3 * $file_timeout;
# As does what makes images of nothing.
my $docker_timeout = $slow ? 3600 : 2400;
my $all_timeout = $slow ? 36000 : 7200;
my @wanted = split ' ', $ENV{TESTS} // '';
my $logs_lock;
my $host;
# One server for all SQL tests, made when the first needs it, and memcheck's view of it.
my ($server, $memcheck);
my %log_read;
my ($passed, $failed, $skipped) = (0, 0, 0);
my (@failures, @skips, %running, %took);
my $began = time;

$| = 1;
$SIG{INT} = sub { interrupted(2) };
$SIG{TERM} = sub { interrupted(15) };
$SIG{HUP} = sub { interrupted(1) };
END { my $status = $?; $host->cleanup if $host; $? = $status }

exit main();

sub interrupted
{
	my ($signal) = @_;
	$SIG{$_} = 'IGNORE' for qw(INT TERM HUP);
	print "\ninterrupted: ending what was started\n", map { "  $_\n" } sort keys %running;
	exit(128 + $signal);
}

sub main
{
	$host = Evento::Host->new(top => $top, name => 'check');
	my $src = $host->copy_sources;
	my @items = grep { wanted($_) } discover($src);
	if (!@items)
	{
		print "no test matches TESTS='$ENV{TESTS}'\n";
		return 1;
	}
	take_logs();

	my $with_java = grep { $_->{name} =~ m{^test/interop/} } @items;
	my $with_proxy = $with_java || grep { $_->{name} =~ m{^test/(?:proxy|bench|chaos|packages|docker)/} } @items;
	my $with_ledger = grep { $_->{name} =~ m{^test/tap/} } @items;
	my $env = build($src, $with_proxy, $with_java, $with_ledger) or return 1;
	check_tools($env) if $asserts || $suppressions;
	my $sql = grep { is_sql($_) } @items;
	Evento::Schedule::run(
		$jobs,
		sub { begin_item($_[0], $env) },
		sub {
			my ($item) = @_;
			ended($item) or return 0;
			report_item($item, $env);
			stop_sql_server() if is_sql($item) && !--$sql;
			return 1;
		},
		@items);
	return summary();
}

# Empties the directory for output; a run beside this one has another.
sub take_logs
{
	make_path("$top/build");
	my $lock = "$top/build/." . basename($logs) . '.lock';
	open($logs_lock, '>', $lock) or die "$lock: $!\n";
	$logs .= "-$$" if !flock($logs_lock, LOCK_EX | LOCK_NB);
	system('rm', '-rf', $logs);
	make_path($logs);
	return;
}

# ---- what there is to run ----

# Gives the items: { name, kind, … }, and what Evento::Schedule takes; parts are
# the files that one item runs together.
sub discover
{
	my ($src) = @_;
	my @items;
	for my $dir (grep { -e "$src/$_/Makefile" } qw(test/unit test/fuzz))
	{
		my %make = (kind => 'make', parts => [ map { short($src, $_) } glob "$src/$dir/*.c" ]);
		push @items, { %make, name => $dir, goal => [ '-C', "$src/$dir", 'check' ] };
		push @items, { %make, name => "$dir (address and undefined behaviour sanitizers)", goal => [ '-C', "$src/$dir", 'check', 'SANITIZE=1' ] }
		  if $dir eq 'test/unit';
	}
	# One server for these, and the machine's memory for those.
	my $add = sub { my ($kind, %more) = @_; return map { { name => short($src, $_), kind => $kind, file => $_, %more } } sort glob "$src/test/$more{glob}" };
	push @items, $add->('regress', glob => 'regress/sql/*.sql', lane => 'sql'), $add->('pgtap', glob => 'regress/pgtap/*.sql', lane => 'sql'),
	  $add->('isolation', glob => 'isolation/specs/*.spec', lane => 'sql');
	push @items, $add->('perl', glob => 'tap/*.pl'), $add->('perl', glob => 'proxy/t/*.pl'), $add->('perl', glob => 'chaos/t/*.pl'), $add->('perl', glob => 'interop/t/*.pl', lane => 'java', early => 1),
	  $add->('perl', glob => 'packages/t/*.pl');
	# What measures is no test: it is run where it is asked for by its whole name.
	push @items, grep { my $name = $_->{name}; grep { $_ eq $name } @wanted } $add->('perl', glob => 'bench/progress.pl');
	push @items, $add->('docker', glob => 'docker/*.pl', early => 1);
	$_->{alone} = Evento::Schedule::alone($_->{file}) for grep { $_->{kind} eq 'perl' } @items;
	return @items;
}

# Whether it runs on the server of the SQL tests.
sub is_sql { return $_[0]->{kind} =~ /^(?:regress|pgtap|isolation)$/ }

sub short
{
	my ($src, $file) = @_;
	return substr($file, length($src) + 1);
}

# An item is wanted where one of the words in TESTS is a part of its name, or
# of the name of a file that it runs together with others.
sub wanted
{
	my ($item) = @_;
	return 1 if !@wanted;
	for my $name ($item->{name}, @{ $item->{parts} // [] })
	{
		return 1 if grep { index($name, $_) >= 0 } @wanted;
	}
	return 0;
}

# ---- building ----

# Builds in the copy the extension, the proxy with its simulator and the ledger
# where they are wanted; gives the environment for the suites.
sub build
{
	my ($src, $with_proxy, $with_java, $with_ledger) = @_;
	my $log = "$logs/build.log";
	print "building in $src as ", ($host->{user} // scalar getpwuid($>)), ', warnings are errors';
	my $start = time;
	my @steps = ([ "$src/test/lib/pgtree" ]);
	push @steps, [ 'make', '-s', '-C', $src, 'proxy', 'WERROR=1' ], [ 'make', '-s', '-C', "$src/test/sim", 'WERROR=1' ] if $with_proxy;
	push @steps, [ 'make', '-s', '-C', "$src/test/ledger", 'WERROR=1' ] if $with_ledger;
	my $bin;
	for my $step (@steps)
	{
		my $out = "$host->{dir}/log/step.out";
		unlink $out;
		my $status = $host->run($step, out => $out, err => $log, cwd => $src, env => { WERROR => 1, MAKEFLAGS => '-j2' });
		if ($status != 0)
		{
			print "\n", Evento::Host::slurp($log), Evento::Host::slurp($out), "the build failed: @$step\n";
			return;
		}
		$bin //= (split /\n/, Evento::Host::slurp($out))[-1];
	}
	printf "  %.0f s\n%s", time - $start, $jobs > 1 ? "$jobs files at a time\n" : '';

	chomp(my $pgxs = `'$bin/pg_config' --pgxs`);
	my $pgxs_src = dirname(dirname($pgxs));
	return {
		src => $src,
		bin => $bin,
		pgxs => $pgxs_src,
		vars => {
			PATH => "$bin:$ENV{PATH}",
			PG_CONFIG => "$bin/pg_config",
			EVENTO_BINDIR => $bin,
			EVENTO_PROXY => "$src/build/evento-proxy",
			EVENTO_SIM => "$src/build/evento-sim",
			EVENTO_LEDGER => "$src/build/evento-ledger",
			EVENTO_LONG => $long ? 1 : 0,
			# A copy of the sources has other neighbours than the checkout.
			(-d "$top/../shared/maven" ? (EVENTO_MAVEN_REPOSITORY => abs_path("$top/../shared/maven")) : ()),
			(defined $host->{user} && $with_java ? (MAVEN_LOCAL_REPOSITORY => maven_cache()) : ()),
			PG_TEST_PORT_DIR => port_dir(),
			# As long as what a test waits for otherwise.
			PGCTLTIMEOUT => 180,
			PERL5LIB => "$pgxs_src/test/perl:$src/test/lib",
			PG_REGRESS => "$pgxs_src/test/regress/pg_regress",
			CMOCKA_MESSAGE_OUTPUT => 'TAP',
		},
	};
}

# Where Maven keeps what it has downloaded, for a user without a home of his
# own.  It stays for the next run.
sub maven_cache
{
	my $dir = '/var/tmp/evento-maven-' . (getpwnam($host->{user}))[2];
	$host->mkdir($dir);
	return $dir;
}

# Where PostgreSQL::Test notes who has which port: one place for all files, and
# for a run beside this one.
sub port_dir
{
	my $uid = defined $host->{user} ? (getpwnam($host->{user}))[2] : $>;
	my $dir = "/var/tmp/evento-ports-$uid";
	eval { $host->mkdir($dir) };
	my ($owner) = (lstat $dir)[4];
	return defined $owner && $owner == $uid && -d _ ? $dir : $host->mkdir("$host->{dir}/ports");
}

# ---- running ----

# Starts an item, of which begin, the outputs, the directory for its files and the
# process are noted in it; died, where it could not be started.
my $number = 0;

sub begin_item
{
	my ($item, $env) = @_;
	my $base = $item->{base} = $item->{name} =~ s{^test/}{}r =~ s{[^\w.-]+}{-}gr;
	$item->{$_} = "$logs/$base.$_" for qw(out err);
	$item->{begin} = time;
	$running{ $item->{name} } = 1;
	if (time - $began > $all_timeout)
	{
		$item->{died} = 'the time for all tests was over';
		return;
	}
	$item->{limit} = { seconds => $item->{kind} eq 'docker' ? $docker_timeout : $item->{kind} eq 'make' ? $make_timeout : $file_timeout };
	$item->{limit}{until} = time + $item->{limit}{seconds};
	$item->{dir} = $host->mkdir("$host->{dir}/run/$base");
	# Short, since the names of sockets may not be long.
	my %env = (%{ $env->{vars} }, TMPDIR => $host->mkdir("$host->{dir}/tmp/" . ++$number));
	eval {
		my $kind = $item->{kind};
		my ($command, $cwd, %more) =
			$kind eq 'make' ? ([ 'make', '-s', @{ $item->{goal} }, 'WERROR=1' ], $env->{src})
		  : $kind =~ /^(?:perl|docker)$/ ? perl_command($item, $env)
		  : $kind eq 'pgtap' ? pgtap_command($item, $env)
		  : regress_command($item, $env);
		$item->{pid} = $host->start($command, out => $item->{out}, err => $item->{err}, cwd => $cwd, part => $base, env => { %env, %more },
			# Who starts a Docker daemon is root, where we are.
			privileged => $kind eq 'docker');
	};
	$item->{died} = $@;
	return;
}

# Whether an item has come to its end, with its status; one that takes too long is ended.
sub ended
{
	my ($item) = @_;
	return 1 if $item->{died};
	$item->{status} = $host->status_of($item->{pid});
	show_more($item) if $follow;
	return 1 if defined $item->{status};
	$host->end_if_late($item->{pid}, $item->{limit});
	return 0;
}

# Shows the lines that an item has said since they were shown last.
sub show_more
{
	my ($item) = @_;
	my $said = substr(Evento::Host::slurp($item->{out}), $item->{shown} // 0) =~ s/[^\n]+\z//r;
	$item->{shown} += length $said;
	print $said;
	return;
}

# Clears up behind an item, and tells what came of it.
sub report_item
{
	my ($item, $env) = @_;
	my ($name, $base, $died) = @$item{qw(name base died)};
	my $status = $item->{status} // 0;
	my (@left, $counts);
	if ($item->{pid})
	{
		$host->wait_for_last(qr/(?:sh|perl)/, part => $base, dir => $item->{dir});
		@left = grep { !/^(?:sh|perl)$/ } $host->end_processes(part => $base, dir => $item->{dir});
		$host->unmount_small_disk("$item->{dir}/small");
		my $text = Evento::Host::slurp($item->{out});
		$counts = $item->{kind} =~ /^(?:regress|isolation)$/ ? Evento::Results::of_regress($text) : Evento::Results::of_tap($text, $item->{kind} ne 'make');
	}

	my @bad = $counts ? @{ $counts->{bad} } : ();
	push @bad, "could not be run: $died" if $died;
	push @bad, "took longer than $item->{limit}{seconds} s" if $item->{limit}{late};
	push @bad, 'left processes behind: ' . join(', ', @left) if @left;
	push @bad, is_sql($item) ? (crashes($server ? $server->{log} : ()), memory_errors($base)) : $item->{pid} ? crashes(split /\n/, `find '$item->{dir}' -name '*.log' -type f 2>/dev/null`) : ();
	my $n = $counts ? $counts->{passed} : 0;
	push @bad, 'ran no test' if !@bad && $counts && !$n && !@{ $counts->{skips} };
	push @bad, sprintf('ended with %s %d', $status & 127 ? ('signal', $status & 127) : ('status', $status >> 8)) if $status != 0 && (!@bad || !$n);

	$passed += $n;
	for my $skip ($counts ? @{ $counts->{skips} } : ())
	{
		$skipped++;
		push @skips, "$name: $skip";
	}
	failure($name, $_) for @bad;
	$took{$name} = time - $item->{begin};
	delete $running{$name};
	printf "%-56s %s %3d passed%s%s  %.1f s\n", $name, @bad ? 'FAILED' : 'ok    ', $n, (@bad ? ', ' . @bad . ' failed' : ''),
	  ($counts && @{ $counts->{skips} } ? ', ' . @{ $counts->{skips} } . ' skipped' : ''), $took{$name};
	if (@bad)
	{
		# What the servers of the test had to say outlives the private directory.
		system('cp', '-r', $_, "$logs/$base.log") for grep { -d } map { "$host->{dir}/run/$base/$_" } qw(tmp_check/log log);
		print "    $_\n" for map { s/\n+$//r =~ s/\n/\n      /gr } @bad;
		print map { "    | $_\n" } tail($item->{err}, 30), $item->{kind} =~ /make|pgtap/ ? tail($item->{out}, 30) : (), diffs($item);
	}
	return;
}

sub failure
{
	my ($name, $what) = @_;
	$failed++;
	push @failures, "$name: $what";
	return;
}

# The commands of items: the command, where it runs, and more of its environment.

# A TAP program in Perl, with a directory of its own for what it makes.
sub perl_command
{
	my ($item, $env) = @_;
	my $dir = $item->{dir};
	my $small = Evento::Host::slurp($item->{file}) =~ /EVENTO_SMALL_DISK/ ? $host->mount_small_disk("$dir/small", 96) : undef;
	return ([ 'perl', $item->{file} ], $env->{src}, ($small ? (EVENTO_SMALL_DISK => $small) : ()), TESTDIR => $dir, TESTDATADIR => $dir, TESTLOGDIR => "$dir/log", PGPORT => ($host->free_ports(1))[0]);
}

# The server of the SQL tests.
sub sql_server
{
	my ($env) = @_;
	return $server if $server;
	my @under;
	if ($suppressions)
	{
		$memcheck //= Evento::Valgrind->new(logs => $host->mkdir("$host->{dir}/valgrind"), suppressions => $suppressions);
		@under = (under => [ $memcheck->command ]);
	}
	$server = $host->start_postgres(bin => $env->{bin}, name => 'sql', @under, conf => <<'CONF');
# Each file has a database of its own, and each database a worker.
max_worker_processes = 200
max_prepared_transactions = 10
wal_level = logical
fsync = off
CONF
	return $server;
}

# Ends that server.
sub stop_sql_server
{
	return if !$server;
	# What the server does as it ends is tested as well.
	$host->run([ "$server->{bin}/pg_ctl", '-D', $server->{data}, '-m', 'fast', '-t', $suppressions ? 300 : 60, 'stop' ], out => "$server->{log}.stop");
	failure('the server of the SQL tests', $_) for crashes($server->{log}), memory_errors('sql-server');
	system('cp', $server->{log}, "$logs/sql-server.log");
	$host->end_processes(part => 'sql', dir => $server->{data});
	undef $server;
	return;
}

# A pgTAP script, in a database of its own that has pgTAP and the extension.
sub pgtap_command
{
	my ($item, $env) = @_;
	my $pg = sql_server($env);
	my $db = 'pgtap_' . basename($item->{file}, '.sql');
	$host->psql($pg, 'postgres', "CREATE DATABASE \"$db\"");
	$host->psql($pg, $db, 'CREATE EXTENSION pgtap; CREATE EXTENSION evento');
	return ([ "$pg->{bin}/psql", '-XqAt', '-v', 'ON_ERROR_STOP=1', '-P', 'pager=off', '-h', $pg->{sock}, '-p', $pg->{port}, '-U', 'postgres', '-d', $db, '-f', $item->{file} ],
		dirname($item->{file}));
}

# A file of pg_regress or an isolation specification, in a fresh database that
# has the extension.
sub regress_command
{
	my ($item, $env) = @_;
	my $pg = sql_server($env);
	my $program = "$env->{pgxs}/test/" . ($item->{kind} eq 'isolation' ? 'isolation/pg_isolation_regress' : 'regress/pg_regress');
	my $name = basename($item->{file}) =~ s/\.\w+$//r;
	return ([ $program, '--inputdir=' . dirname(dirname($item->{file})), "--outputdir=$item->{dir}", "--bindir=$pg->{bin}", "--host=$pg->{sock}", "--port=$pg->{port}",
			'--user=postgres', '--dbname=regress_' . ($name =~ s/\W/_/gr), '--load-extension=evento', $name ], $item->{dir});
}

# ---- crashes and errors in memory ----

# Shows, before anything is said of our code, that a fault would be seen.
sub check_tools
{
	my ($env) = @_;
	my $source = "$env->{src}/test/modules/evento_fault";
	$host->run([ 'make', '-s', '-C', $source, "PG_CONFIG=$env->{bin}/pg_config" ], out => "$logs/evento_fault.log") == 0
	  or die "evento_fault was not built:\n" . Evento::Host::slurp("$logs/evento_fault.log");
	my $pg = sql_server($env);
	$host->psql($pg, 'postgres', "CREATE FUNCTION evento_fault_$_() RETURNS bool LANGUAGE c AS '$source/evento_fault', 'evento_fault_$_'") for qw(uninitialised freed assertion);
	my @faults = $suppressions ? qw(uninitialised freed) : qw(assertion);
	for my $fault (@faults)
	{
		my $name = "a planted fault is found: $fault";
		printf '%-56s ', $name;
		eval { $host->psql($pg, 'postgres', "SELECT evento_fault_$fault()") };
		if ($fault ne 'assertion' ? $memcheck->errors : crashes($pg->{log}))
		{
			$passed++;
			print "ok      1 passed\n";
		}
		else
		{
			failure($name, 'it was not; what is said of the code means nothing');
			print "FAILED   0 passed, 1 failed\n";
		}
	}
	$memcheck->reset if $memcheck;
	return if !$asserts;
	# The server tells of the end of that process later, and starts again by itself.
	for (1 .. 600)
	{
		last if Evento::Host::slurp($pg->{log}) =~ /was terminated by signal 6\b/ && eval { $host->psql($pg, 'postgres', 'SELECT 1') };
		Time::HiRes::sleep(0.1);
	}
	crashes($pg->{log});
	return;
}

# Failed assertions and crashes that servers' logs tell of since the last call. A
# process that a test ends with SIGKILL is none, nor is one that had no space for WAL.
sub crashes
{
	my (@files) = @_;
	my @found;
	for my $file (@files)
	{
		open(my $fh, '<', $file) or next;
		seek($fh, $log_read{$file} // 0, 0);
		my %no_space;
		while (my $line = <$fh>)
		{
			# A line may have 64 MB of a statement.
			next if !grep { index($line, $_) >= 0 } 'TRAP:', ' PANIC: ', 'was terminated by signal';
			$no_space{$1} = 1 if $line =~ /\[(\d+)\].* PANIC:  .*No space left on device/;
			next if $line =~ /\(PID (\d+)\) was terminated by signal 6\b/ && $no_space{$1};
			push @found, "the server's log says: $line" if $line =~ /^TRAP:|was terminated by signal (?:4|6|7|8|11)\b/;
		}
		$log_read{$file} = tell $fh;
	}
	return @found;
}

# Errors in our code that memcheck has found since the last call; they are kept
# whole beside the logs.
sub memory_errors
{
	my ($base) = @_;
	return if !$memcheck;
	my @errors = $memcheck->errors or return;
	open(my $fh, '>>', "$logs/$base.memcheck") or die "$logs/$base.memcheck: $!\n";
	print $fh map { "$_\n" } @errors;
	close $fh;
	return map { "memcheck: $_" } @errors;
}

sub tail
{
	my ($file, $n) = @_;
	my @lines = split /\n/, Evento::Host::slurp($file);
	return @lines > $n ? @lines[ -$n .. -1 ] : @lines;
}

# The differences that pg_regress found; what it got is kept beside the logs.
sub diffs
{
	my ($item) = @_;
	my ($dir, $base) = @$item{qw(dir base)};
	return () if !defined $dir;
	system('cp', $_, "$logs/$base.result") for glob "$dir/results/*.out";
	my $file = "$dir/regression.diffs";
	return () if !-e $file;
	system('cp', $file, "$logs/$base.diffs");
	return tail($file, 60);
}

sub summary
{
	stop_sql_server();
	failure('all tests together', "left processes behind: $_") for $host->end_processes;
	my @slowest = sort { $took{$b} <=> $took{$a} } keys %took;
	if (@slowest > 10)
	{
		print "\nslowest:\n", map { sprintf "  %6.1f s  %s\n", $took{$_}, $_ } @slowest[ 0 .. 9 ];
	}
	if (@skips)
	{
		print "\nskipped:\n", map { "  $_\n" } @skips;
	}
	if (@failures)
	{
		print "\nfailed (output is in $logs):\n", map { '  ' . s/\n.*//sr . "\n" } @failures;
	}
	if ($memcheck)
	{
		system('cp', '-r', $memcheck->{logs}, "$logs/valgrind");
		print "\nmemcheck: $memcheck->{ours} errors in evento's code, $memcheck->{others} elsewhere (all are in $logs/valgrind)\n";
	}
	printf "\n%.0f s\n%d passed, %d failed, %d skipped\n", time - $began, $passed, $failed, $skipped;
	return $failed || !($passed + $skipped) ? 1 : 0;
}
