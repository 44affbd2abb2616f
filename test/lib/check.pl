#!/usr/bin/perl
# check.pl
#   The driver of "make check": copies the sources to a private directory,
#   builds them there with warnings as errors, runs the suites as an
#   unprivileged user, and closes with "N passed, N failed, N skipped".
#   test/README.md says what the suites may rely on.
#
#   check.pl [--long] [--logs=NAME] [--asserts | --valgrind=SUPPRESSIONS]
#
#   --long: the long forms of tests. --logs: output goes to build/NAME, by
#   default build/check. --asserts: takes only a server that has assertions.
#   --valgrind: the server of the SQL tests runs under valgrind; SUPPRESSIONS
#   is the server's own list of what to pass over.
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
use Evento::Valgrind;

my ($long, $asserts, $suppressions, $logs) = (0, 0, undef, 'check');
GetOptions('long' => \$long, 'asserts' => \$asserts, 'valgrind=s' => \$suppressions, 'logs=s' => \$logs) or exit 2;
$logs = "$top/build/$logs";
# A file may take so long, in seconds, and all of them together.
my $slow = $long || $suppressions;
my $file_timeout = $slow ? 3600 : $asserts ? 900 : 300;
my $all_timeout = $slow ? 36000 : $asserts ? 7200 : 2400;
my @wanted = split ' ', $ENV{TESTS} // '';
my $logs_lock;
my $host;
my %log_read;
my ($passed, $failed, $skipped) = (0, 0, 0);
my (@failures, @skips);
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
	print "\ninterrupted: ending what was started\n";
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
	my $with_proxy = $with_java || grep { $_->{name} =~ m{^test/(?:proxy|packages)/} } @items;
	my $with_ledger = grep { $_->{name} =~ m{^test/tap/} } @items;
	my $env = build($src, $with_proxy, $with_java, $with_ledger) or return 1;
	check_tools($env) if $asserts || $suppressions;
	for my $item (@items)
	{
		if (time - $began > $all_timeout)
		{
			failure($item->{name}, 'not run: the time for all tests was over');
			next;
		}
		run_item($item, $env);
	}
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

# Gives the items in the order in which they run: { name, kind, … }; parts are
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
	push @items, map { { name => short($src, $_), kind => 'regress', file => $_ } } sort glob "$src/test/regress/sql/*.sql";
	push @items, map { { name => short($src, $_), kind => 'pgtap', file => $_ } } sort glob "$src/test/regress/pgtap/*.sql";
	push @items, map { { name => short($src, $_), kind => 'isolation', file => $_ } } sort glob "$src/test/isolation/specs/*.spec";
	push @items, map { { name => short($src, $_), kind => 'perl', file => $_ } } map { sort glob "$src/$_" } qw(test/tap/*.pl test/proxy/t/*.pl test/interop/t/*.pl test/packages/t/*.pl);
	return @items;
}

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
	printf "  %.0f s\n", time - $start;

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

# ---- running ----

sub run_item
{
	my ($item, $env) = @_;
	my $base = $item->{name} =~ s{^test/}{}r =~ s{[^\w.-]+}{-}gr;
	my ($out, $err) = ("$logs/$base.out", "$logs/$base.err");
	my $start = time;
	printf '%-56s ', $item->{name};

	my ($status, $why) = (0, '');
	my $counts = eval {
		my $kind = $item->{kind};
		($status, $why) =
			$kind eq 'make' ? run_make($item, $env, $out, $err)
		  : $kind eq 'perl' ? run_perl($item, $env, $out, $err, $base)
		  : $kind eq 'pgtap' ? run_pgtap($item, $env, $out, $err)
		  : run_regress($item, $env, $out, $err, $base);
		$kind eq 'regress' || $kind eq 'isolation' ? parse_regress(Evento::Host::slurp($out)) : parse_tap(Evento::Host::slurp($out), $kind ne 'make');
	};
	my $died = $@;
	my @left = $item->{kind} eq 'perl' ? grep { !/^(?:sh|perl)$/ } $host->end_processes : ();
	$host->unmount_small_disk;

	my @bad = $counts ? @{ $counts->{bad} } : ();
	push @bad, "could not be run: $died" if $died;
	push @bad, "took longer than $file_timeout s" if $why eq 'timeout';
	push @bad, 'left processes behind: ' . join(', ', @left) if @left;
	push @bad, crashes($base), memory_errors($base);
	my $n = $counts ? $counts->{passed} : 0;
	push @bad, 'ran no test' if !@bad && $counts && !$n && !@{ $counts->{skips} };
	push @bad, sprintf('ended with %s %d', $status & 127 ? ('signal', $status & 127) : ('status', $status >> 8)) if $status != 0 && (!@bad || !$n);

	$passed += $counts->{passed} if $counts;
	for my $skip ($counts ? @{ $counts->{skips} } : ())
	{
		$skipped++;
		push @skips, "$item->{name}: $skip";
	}
	failure($item->{name}, $_) for @bad;
	printf "%s %3d passed%s%s  %.1f s\n", @bad ? 'FAILED' : 'ok    ', $n, (@bad ? ', ' . @bad . ' failed' : ''),
	  ($counts && @{ $counts->{skips} } ? ', ' . @{ $counts->{skips} } . ' skipped' : ''), time - $start;
	if (@bad)
	{
		# What the servers of the test had to say outlives the private directory.
		system('cp', '-r', $_, "$logs/$base.log") for grep { -d } "$host->{dir}/run/$base/tmp_check/log", "$host->{dir}/run/$base/log";
		print "    $_\n" for map { s/\n+$//r =~ s/\n/\n      /gr } @bad;
		print map { "    | $_\n" } tail($err, 30), $item->{kind} =~ /make|pgtap/ ? tail($out, 30) : (), diffs($item, $env, $base);
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

sub run_make
{
	my ($item, $env, $out, $err) = @_;
	return $host->wait($host->start([ 'make', '-s', @{ $item->{goal} }, 'WERROR=1' ], out => $out, err => $err, cwd => $env->{src}, env => $env->{vars}), $file_timeout);
}

# A TAP program in Perl, with a directory of its own for what it makes.
sub run_perl
{
	my ($item, $env, $out, $err, $base) = @_;
	stop_sql_server();
	my $dir = $host->mkdir("$host->{dir}/run/$base");
	my $small = Evento::Host::slurp($item->{file}) =~ /EVENTO_SMALL_DISK/ ? $host->mount_small_disk(96) : undef;
	my %vars = (%{ $env->{vars} }, ($small ? (EVENTO_SMALL_DISK => $small) : ()), TESTDIR => $dir, TESTDATADIR => $dir, TESTLOGDIR => "$dir/log", PGPORT => ($host->free_ports(1))[0]);
	return $host->wait($host->start([ 'perl', $item->{file} ], out => $out, err => $err, cwd => $env->{src}, env => \%vars), $file_timeout);
}

# One server for all SQL tests, made when the first needs it.
my $server;
my $memcheck;

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

# Ends that server, so that what runs after a TAP program is known to be its own.
sub stop_sql_server
{
	return if !$server;
	# What the server does as it ends is tested as well.
	$host->run([ "$server->{bin}/pg_ctl", '-D', $server->{data}, '-m', 'fast', '-t', $suppressions ? 300 : 60, 'stop' ], out => "$server->{log}.stop");
	failure('the server of the SQL tests', $_) for crashes(''), memory_errors('sql-server');
	system('cp', $server->{log}, "$logs/sql-server.log");
	$host->end_processes;
	undef $server;
	return;
}

# A pgTAP script, in a database of its own that has pgTAP and the extension.
sub run_pgtap
{
	my ($item, $env, $out, $err) = @_;
	my $pg = sql_server($env);
	my $db = 'pgtap_' . basename($item->{file}, '.sql');
	$host->psql($pg, 'postgres', "CREATE DATABASE \"$db\"");
	$host->psql($pg, $db, 'CREATE EXTENSION pgtap; CREATE EXTENSION evento');
	return $host->wait($host->start([ "$pg->{bin}/psql", '-XqAt', '-v', 'ON_ERROR_STOP=1', '-P', 'pager=off', '-h', $pg->{sock}, '-p', $pg->{port},
			'-U', 'postgres', '-d', $db, '-f', $item->{file} ], out => $out, err => $err, cwd => dirname($item->{file}), env => $env->{vars}), $file_timeout);
}

# A file of pg_regress or an isolation specification, in a fresh database that
# has the extension.
sub run_regress
{
	my ($item, $env, $out, $err, $base) = @_;
	my $pg = sql_server($env);
	my $isolation = $item->{kind} eq 'isolation';
	my $dir = $host->mkdir("$host->{dir}/run/$base");
	my $program = "$env->{pgxs}/test/" . ($isolation ? 'isolation/pg_isolation_regress' : 'regress/pg_regress');
	my $name = basename($item->{file}) =~ s/\.\w+$//r;
	return $host->wait($host->start([ $program, '--inputdir=' . dirname(dirname($item->{file})), "--outputdir=$dir", "--bindir=$pg->{bin}",
			"--host=$pg->{sock}", "--port=$pg->{port}", '--user=postgres', '--dbname=regress_' . ($name =~ s/\W/_/gr), '--load-extension=evento', $name ],
			out => $out, err => $err, cwd => $dir, env => $env->{vars}), $file_timeout);
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
		if ($fault ne 'assertion' ? $memcheck->errors : crashes(''))
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
	crashes('');
	return;
}

# Failed assertions and crashes that the servers' logs tell of: those of the SQL
# tests' server since the last call, and those of a TAP program's. A process
# that a test ends with SIGKILL is none, nor is one that had no space for WAL.
sub crashes
{
	my ($base) = @_;
	my @found;
	my @files = $base ne '' ? split(/\n/, `find '$host->{dir}/run/$base' -name '*.log' -type f 2>/dev/null`) : ();
	push @files, $server->{log} if $server;
	for my $file (@files)
	{
		open(my $fh, '<', $file) or next;
		seek($fh, $log_read{$file} // 0, 0);
		my %no_space;
		while (my $line = <$fh>)
		{
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

# ---- reading results ----

# Counts what a TAP stream says, or several, one behind the other.
sub parse_tap
{
	my ($text, $single) = @_;
	my %r = (passed => 0, bad => [], skips => []);
	my ($plan, $seen, $at_end) = (undef, 0, 0);
	my $close = sub {
		push @{ $r{bad} }, "planned $plan tests and ran $seen" if defined $plan && $plan != $seen;
		push @{ $r{bad} }, "ran $seen tests without a plan" if !defined $plan && $seen;
		($plan, $seen, $at_end) = (undef, 0, 0);
	};
	for my $line (split /\n/, $text)
	{
		if ($line =~ /^1\.\.(\d+)(?:\s*#\s*skip\S*\s*(.*))?/i)
		{
			my ($n, $reason) = ($1, $2);
			$close->() if defined $plan;
			($plan, $at_end) = ($n, $seen > 0);
			push @{ $r{skips} }, $reason // 'no reason given' if $n == 0;
			$close->() if $at_end;
		}
		elsif ($line =~ /^(not )?ok\b(.*)/)
		{
			my ($not, $rest) = ($1, $2);
			$close->() if !$single && defined $plan && $seen == $plan;
			$seen++;
			if ($rest =~ /#\s*skip\S*\s*(.*)/i) { push @{ $r{skips} }, $1 }
			elsif (!$not || $rest =~ /#\s*todo\b/i) { $r{passed}++ }
			else { push @{ $r{bad} }, "not ok$rest" }
		}
		elsif ($line =~ /^Bail out!\s*(.*)/)
		{
			push @{ $r{bad} }, "bailed out: $1";
		}
	}
	$close->();
	return \%r;
}

# Counts what pg_regress and pg_isolation_regress say, of either form.
sub parse_regress
{
	my ($text) = @_;
	my %r = (passed => 0, bad => [], skips => []);
	for my $line (split /\n/, $text)
	{
		if ($line =~ /^(?:test\s+(\S+)\s+\.\.\. ok|ok \d+\s+[-+]\s+(\S+))/) { $r{passed}++ }
		elsif ($line =~ /^(?:test\s+(\S+)\s+\.\.\. (?:FAILED|failed)|not ok \d+\s+[-+]\s+(\S+))/) { push @{ $r{bad} }, 'differs from what is expected' }
	}
	return \%r;
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
	my ($item, $env, $base) = @_;
	system('cp', $_, "$logs/$base.result") for glob "$host->{dir}/run/$base/results/*.out";
	my $file = "$host->{dir}/run/$base/regression.diffs";
	return () if !-e $file;
	system('cp', $file, "$logs/$base.diffs");
	return tail($file, 60);
}

sub summary
{
	stop_sql_server();
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
