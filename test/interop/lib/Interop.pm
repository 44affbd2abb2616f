# Interop
#   What the interoperability tests share: a private PostgreSQL, proxies, HAProxy,
#   cutting forwarders and the bundles of the order application, with what is
#   checked in the log behind every scenario. All that is started here ends with
#   the test.
package Interop;

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use HTTP::Tiny;
use IO::Handle;
use IO::Socket::INET;
use POSIX qw(:sys_wait_h setpgid);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(sleep time);

my $top = abs_path(dirname(__FILE__) . '/../../..');

# How long something that must happen may take, in seconds: starting a JVM, too, takes its time on a busy machine.
use constant PATIENCE => 180;

my %children;    # pid => name
my $parent = $$;

END
{
	if ($$ == $parent)
	{
		my $status = $?;
		end_children();
		$? = $status;
	}
}
$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub { exit 130 };
$SIG{PIPE} = 'IGNORE';

# Makes the environment of a test file, or skips the file with the reason.
sub new
{
	my ($class) = @_;
	my $self = bless { stamp => 0, records => [] }, $class;
	$self->{proxy} = $ENV{EVENTO_PROXY} // "$top/build/evento-proxy";
	my $build = "$top/test/interop/build";
	chomp(my @built = `$build 2>&1`);
	if ($? >> 8 == 77)
	{
		plan(skip_all => "@built");
	}
	$? == 0 or die join("\n", "the order application was not built:", @built, '');
	($self->{java}, $self->{jar}) = @built[ -2, -1 ];
	-x $self->{proxy} or die "there is no evento-proxy at $self->{proxy}\n";
	$self->{dir} = $PostgreSQL::Test::Utils::tmp_check;
	$self->{log} = "$self->{dir}/interop";
	make_path($self->{log});
	$self->{trace} = "$self->{log}/trace";
	return $self;
}

# ---- ports and processes ----

sub port { return PostgreSQL::Test::Cluster::get_free_port() }

# Starts a program with its output in files; gives { pid, in, out, err, name }.
# Its standard input is a pipe that ends with this test, however that ends.
sub start
{
	my ($self, $name, @command) = @_;
	my $file = sprintf('%s/%02d-%s', $self->{log}, ++$self->{stamp}, $name);
	pipe(my $read, my $write) or die "pipe: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		setpgid(0, 0);
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
		open(STDIN, '<&', $read) or POSIX::_exit(127);
		open(STDOUT, '>', "$file.out") or POSIX::_exit(127);
		open(STDERR, '>', "$file.err") or POSIX::_exit(127);
		$ENV{EVENTO_INTEROP_TRACE} = $self->{trace};
		exec(@command) or POSIX::_exit(127);
	}
	close $read;
	$write->autoflush(1);
	fcntl($write, POSIX::F_SETFD(), POSIX::FD_CLOEXEC());
	$children{$pid} = $name;
	return { name => $name, pid => $pid, in => $write, out => "$file.out", err => "$file.err" };
}

# Whether a child still runs; its status is kept once it ended.
sub running
{
	my ($self, $child) = @_;
	return 0 if exists $child->{status};
	my $done = waitpid($child->{pid}, WNOHANG);
	return 1 if $done == 0;
	$child->{status} = $?;
	delete $children{ $child->{pid} };
	return 0;
}

# Ends a child with a signal and waits for its end.
sub stop
{
	my ($self, $child, $signal) = @_;
	return if exists $child->{status};
	kill($signal // 'TERM', $child->{pid});
	my $until = time + 20;
	while ($self->running($child))
	{
		if (time > $until)
		{
			kill('KILL', $child->{pid});
			$until = time + 20;
		}
		sleep 0.02;
	}
	return;
}

# Ends all that runs, bundles before proxies.
sub end_children
{
	for my $round (0 .. 100)
	{
		for my $pid (keys %children)
		{
			if (waitpid($pid, WNOHANG) != 0) { delete $children{$pid} }
			elsif ($round == 0) { kill('TERM', $pid) }
			elsif ($round == 50) { kill('KILL', $pid) }
		}
		last if !%children;
		sleep 0.05;
	}
	return;
}

# Waits until the condition gives a true value, and gives that; undef when the
# time is over.
sub await
{
	my ($self, $condition, $seconds) = @_;
	my $until = time + ($seconds // PATIENCE);
	while (1)
	{
		my $value = $condition->();
		return $value if $value;
		return if time > $until;
		sleep 0.05;
	}
}

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	local $/;
	return <$fh> // '';
}

# Ends the test, with the last lines of a child's output.
sub give_up
{
	my ($self, $child, $what) = @_;
	my @lines = map { split /\n/, slurp($child->{$_}) } qw(out err);
	@lines = @lines[ -30 .. -1 ] if @lines > 30;
	BAIL_OUT_HERE(join("\n", "$child->{name} $what", map { "  | $_" } @lines));
	return;
}

sub BAIL_OUT_HERE
{
	my ($why) = @_;
	fail('the test can go on');
	diag($why);
	done_testing();
	exit 1;
}

# ---- the database ----

sub start_postgres
{
	my ($self, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new('interop');
	$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'evento'
log_statement = none
log_min_messages = warning
log_line_prefix = '%m %a[%p] '
max_connections = 200
fsync = on
autovacuum = on
@{[ $opt{conf} // '' ]}
CONF
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION evento; CREATE ROLE gate LOGIN; GRANT evento_proxy TO gate');
	$self->{node} = $node;
	return $node;
}

sub sql
{
	my ($self, $sql) = @_;
	return $self->{node}->safe_psql('postgres', $sql);
}

# Restarts the database as a crash would.
sub restart_postgres
{
	my ($self) = @_;
	my $node = $self->{node};
	system('pg_ctl', '--pgdata', $node->data_dir, '--log', $node->logfile, '--mode', 'immediate', '--wait', '--timeout', 60, '--silent', 'restart') == 0
	  or die "pg_ctl restart failed\n";
	$node->_update_pid(1);
	return;
}

# ---- proxies ----

# Makes a proxy with ports of its own and starts it.  flags: more of the command line.
sub add_proxy
{
	my ($self, $name, %flags) = @_;
	my $proxy = { name => $name, flags => { %flags } };
	push @{ $self->{proxies} }, $proxy;
	for my $again (reverse 0 .. 4)
	{
		@$proxy{qw(bundle internal http)} = map { $self->port } 1 .. 3;
		my $child = $self->run_proxy($proxy);
		last if $self->running($child) || !$again || slurp($child->{err}) !~ /Address already in use/;
	}
	$self->give_up($proxy->{child}, 'ended at its start') if !$self->running($proxy->{child});
	return $proxy;
}

# Starts a proxy again at its ports.
sub start_proxy
{
	my ($self, $proxy) = @_;
	my $child = $self->run_proxy($proxy);
	$self->give_up($child, 'ended at its start') if !$self->running($child);
	return $child;
}

# Starts a proxy and waits until it is ready, or has ended.
sub run_proxy
{
	my ($self, $proxy) = @_;
	my $node = $self->{node};
	my $child = $self->start($proxy->{name}, $self->{proxy},
		'--database', sprintf('host=%s port=%d dbname=postgres user=gate application_name=%s', $node->host, $node->port, $proxy->{name}),
		'--bundle-address', '127.0.0.1', '--bundle-port', $proxy->{bundle},
		'--internal-address', '127.0.0.1', '--internal-port', $proxy->{internal},
		'--advertised', "127.0.0.1:$proxy->{bundle}",
		'--http-address', '127.0.0.1', '--http-port', $proxy->{http},
		'--log-level', $ENV{EVENTO_INTEROP_LOG_LEVEL} // 'info', '--name', $proxy->{name}, map { ("--$_", $proxy->{flags}{$_}) } sort keys %{ $proxy->{flags} });
	$proxy->{child} = $child;
	$self->await(sub {
			!$self->running($child) || HTTP::Tiny->new(timeout => 2)->get("http://127.0.0.1:$proxy->{http}/readyz")->{success};
		}, PATIENCE) or $self->give_up($child, 'is not ready after ' . PATIENCE . ' s');
	return $child;
}

sub kill_proxy
{
	my ($self, $proxy) = @_;
	$self->stop($proxy->{child}, 'KILL');
	return;
}

# Every proxy still runs, but those that were killed on purpose.
sub proxies_run
{
	my ($self) = @_;
	for my $proxy (@{ $self->{proxies} })
	{
		my $runs = $self->running($proxy->{child});
		ok($runs, "$proxy->{name} runs");
		diag(sprintf('%s ended with status %#x: %s', $proxy->{name}, $proxy->{child}{status}, join("\n", (split /\n/, slurp($proxy->{child}{err}))[ -20 .. -1 ] // ())))
		  if !$runs;
	}
	return;
}

# A proxy's metrics: name with labels => value.
sub metrics
{
	my ($self, $proxy) = @_;
	my $text = HTTP::Tiny->new(timeout => 5)->get("http://127.0.0.1:$proxy->{http}/metrics")->{content};
	return map { /^([a-z]\S*)\s+(\S+)$/ ? ($1 => $2) : () } split /\n/, $text;
}

# HAProxy before all proxies; gives { port }.
sub start_haproxy
{
	my ($self) = @_;
	my $port = $self->port;
	my $file = "$self->{log}/haproxy.cfg";
	open(my $fh, '>', $file) or die "$file: $!";
	print $fh <<"CFG";
global
	maxconn 1000
defaults
	mode tcp
	timeout connect 2s
	# A proxy that stands still on a busy machine is not one that is gone.
	timeout check 30s
	timeout client 1h
	timeout server 1h
	retries 3
	option redispatch 1
listen bundles
	bind 127.0.0.1:$port
	balance leastconn
	option httpchk GET /healthz
	http-check expect status 200 error-status L7OKC
	default-server inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions
CFG
	print $fh "\tserver $_->{name} 127.0.0.1:$_->{bundle} check port $_->{http}\n" for @{ $self->{proxies} };
	close $fh;
	my ($program) = grep { -x } '/usr/sbin/haproxy', map { "$_/haproxy" } split /:/, $ENV{PATH};
	my $child = $self->start('haproxy', $program, '-db', '-f', $file);
	$self->await(sub { !$self->running($child) || IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") }) or $self->give_up($child, 'does not listen');
	$self->give_up($child, 'ended at its start') if !$self->running($child);
	return { name => 'haproxy', bundle => $port, child => $child };
}

sub has_haproxy
{
	return scalar grep { -x } '/usr/sbin/haproxy', map { "$_/haproxy" } split /:/, $ENV{PATH};
}

# A forwarder to a proxy, whose connections can be cut.
sub start_forwarder
{
	my ($self, $proxy) = @_;
	my $port = $self->port;
	my $child = $self->start('forwarder', $^X, "$top/test/lib/tcp-forwarder", $port, "127.0.0.1:$proxy->{bundle}");
	my $forwarder = { name => 'forwarder', bundle => $port, child => $child, answers => 1 };
	$self->await(sub { slurp($child->{out}) =~ /^listening/ }) or $self->give_up($child, 'does not listen');
	return $forwarder;
}

# Gives a forwarder a command and waits until it is done.
sub forwarder
{
	my ($self, $forwarder, $command) = @_;
	print { $forwarder->{child}{in} } "$command\n";
	my $wanted = ++$forwarder->{answers};
	my $lines;
	$self->await(sub { ($lines = () = slurp($forwarder->{child}{out}) =~ /\n/g) >= $wanted }, 10) or $self->give_up($forwarder->{child}, "does not do $command");
	return (split /\n/, slurp($forwarder->{child}{out}))[ $wanted - 1 ];
}

# ---- bundles ----

sub java
{
	my ($self, $name, @arguments) = @_;
	# Quick to start rather than quick at its peak; the large messages need room.
	return $self->start($name, $self->{java}, '-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC', '-Xmx1500m', '-jar', $self->{jar}, @arguments);
}

# Starts a bundle of handlers at a proxy (or what stands before it).
sub start_bundle
{
	my ($self, $kind, $at, %opt) = @_;
	my $instance = $opt{instance} // "$kind-" . ++$self->{instances};
	my $child = $self->java($instance, $kind, '--host', '127.0.0.1', '--port', $at->{bundle}, '--instance', $instance);
	$child->{instance} = $instance;
	push @{ $self->{bundles} }, $child;
	return $child;
}

# Waits until every bundle that was started takes requests.
sub await_bundles
{
	my ($self) = @_;
	for my $bundle (@{ $self->{bundles} })
	{
		$self->await(sub { !$self->running($bundle) || slurp($bundle->{out}) =~ /^READY/m }) or $self->give_up($bundle, 'did not start');
		$self->give_up($bundle, 'ended at its start') if !$self->running($bundle);
	}
	my $list = join(', ', map { "'$_->{instance}'" } @{ $self->{bundles} });
	$self->await(sub { $self->sql("SELECT count(*) FROM evento.bundles WHERE enabled AND instance IN ($list)") == @{ $self->{bundles} } })
	  or BAIL_OUT_HERE("evento.bundles lacks an instance of $list: " . $self->sql('SELECT instance, enabled, proxy FROM evento.bundles'));
	return;
}

# The name of the proxy that holds an instance now.
sub proxy_of
{
	my ($self, $instance) = @_;
	my $name = $self->await(sub { $self->sql("SELECT proxy FROM evento.bundles WHERE instance = '$instance'") }) // return;
	return (grep { $_->{name} eq $name } @{ $self->{proxies} })[0];
}

# Starts a scenario of the invoker.
sub start_invoker
{
	my ($self, $scenario, $at, @arguments) = @_;
	my $instance = 'invoker-' . ++$self->{instances};
	my $child = $self->java("$instance-$scenario", 'invoker', $scenario, '--host', '127.0.0.1', '--port', $at->{bundle}, '--instance', $instance, @arguments);
	$child->{instance} = $instance;
	$child->{scenario} = $scenario;
	return $child;
}

# Waits until the invoker has printed a line that matches.
sub await_line
{
	my ($self, $child, $pattern) = @_;
	my $found;
	$self->await(sub { ($found) = slurp($child->{out}) =~ /^$pattern/m; defined $found || !$self->running($child) });
	$self->give_up($child, "did not say $pattern") if !defined $found;
	return $found;
}

# Waits for the end of a scenario, which callers for some time are told to come to, and makes each of its checks one of ours.
sub finish
{
	my ($self, $child, $label, $seconds) = @_;
	$seconds //= 240;
	PostgreSQL::Test::Utils::append_to_file("$child->{record}.enough", '') if $child->{record};
	my $ended = $self->await(sub { !$self->running($child) }, $seconds);
	$self->stop($child, 'KILL') if !$ended;
	my ($checks, $wrong, $end) = (0, 0, '');
	for my $line (split /\n/, slurp($child->{out}))
	{
		if ($line =~ /^(not )?ok - (.*)/)
		{
			$checks++;
			$wrong++ if $1;
			ok(!$1, "$label: $2");
		}
		elsif ($line =~ /^# (.*)/) { note("$label: $1") }
		elsif ($line =~ /^(?:OK|FAILED)/) { $end = $line }
	}
	ok($ended, "$label: ends within $seconds s") if !$ended;
	is($end, "OK $checks checks", "$label: says that all was right");
	is($child->{status}, 0, "$label: ends with status 0");
	diag(map { "$label | $_\n" } grep { !/SLF4J|deserialization_open|PayloadTypeAllowlist/ } split /\n/, substr(slurp($child->{err}), 0, 8000)) if $wrong || !$ended || $end eq '';
	return !$wrong && $ended;
}

# Runs a scenario from start to end.
sub play
{
	my ($self, $scenario, $at, $label, @arguments) = @_;
	return $self->finish($self->start_invoker($scenario, $at, @arguments), $label);
}

# Starts callers that run for some seconds, and until finish is called, each command with such a timeout.
sub start_load
{
	my ($self, $at, $seconds, $timeout) = @_;
	my $number = ++$self->{loads};
	my $record = "$self->{log}/record-$number";
	my $child = $self->start_invoker('load', $at, '--seconds', $seconds, '--record', $record, '--until', "$record.enough", '--prefix', "load$number", '--timeout-millis', $timeout);
	$child->{record} = $record;
	push @{ $self->{records} }, $record;
	return $child;
}

# Waits until a load has been answered a command behind a time; false where it is not.
sub goes_on
{
	my ($self, $child, $time) = @_;
	return $self->await(sub { scalar grep { $_->{what} eq 'answered' && $_->{time} > $time } $self->record($child) }, 2 * PATIENCE);
}

# The lines of a load's record: { what, time, marker, order, rest }.
sub record
{
	my ($self, $child) = @_;
	return map {
		my ($what, $time, $marker, $order, $rest) = split / /, $_, 5;
		{ what => $what, time => $time / 1000, marker => $marker, order => $order, rest => $rest }
	} split /\n/, slurp($child->{record});
}

# The local ports of a process's connections to a port: the same as long as
# none was made anew.
sub connections
{
	my ($self, $child, $port) = @_;
	my %inodes;
	for my $fd (glob "/proc/$child->{pid}/fd/*")
	{
		my $to = readlink($fd) // next;
		$inodes{$1} = 1 if $to =~ /^socket:\[(\d+)\]/;
	}
	my @found;
	for my $table (qw(tcp tcp6))
	{
		for my $line (split /\n/, slurp("/proc/$child->{pid}/net/$table"))
		{
			my @f = split ' ', $line;
			next if ($f[3] // '') ne '01' || !$inodes{ $f[9] };
			my ($local) = $f[1] =~ /:(\w+)$/;
			my ($remote) = $f[2] =~ /:(\w+)$/;
			push @found, hex $local if hex($remote) == $port;
		}
	}
	return join(' ', sort @found);
}

# ---- what must be true of the log and of the handlers ----

# Checks the log: dense versions, dense revisions, and every answered command
# of the records exactly once, where its answer said.
sub check_log
{
	my ($self, $label) = @_;
	$self->sql('CALL evento.wait(NULL)');
	is($self->sql(q{
		SELECT count(*) FROM (SELECT FROM evento.events WHERE stream IS NOT NULL GROUP BY stream
			HAVING min(version) <> 1 OR max(version) <> count(*) OR count(DISTINCT version) <> count(*)) s}), 0, "$label: versions are dense in every stream");
	is($self->sql('SELECT count(*) - count(DISTINCT position) FROM evento.events'), 0, "$label: no position is used twice");
	is($self->sql(q{SELECT count(*) FROM evento.events WHERE type LIKE 'Order%' AND (data->>'revision')::bigint IS DISTINCT FROM version}), 0,
		"$label: every event stands at the version that its handler computed from the story");
	is($self->sql(q{
		SELECT count(*) FROM (SELECT FROM evento.events WHERE data->>'marker' IS NOT NULL GROUP BY data->>'marker' HAVING count(*) > 1) m}), 0,
		"$label: no command is in the log twice");
	is($self->sql(q{SELECT count(*) FROM evento.streams WHERE stream LIKE 'stock:%'}), 0, "$label: a lock is no stream");
	$self->check_records($label) if @{ $self->{records} };
	return;
}

sub check_records
{
	my ($self, $label) = @_;
	my $file = "$self->{log}/answered";
	open(my $fh, '>', $file) or die "$file: $!";
	my $count = 0;
	for my $record (@{ $self->{records} })
	{
		for my $line (grep { /^answered/ } split /\n/, slurp($record))
		{
			my (undef, undef, $marker, $order, $revision) = split / /, $line;
			print $fh "$marker\t$order\t$revision\n";
			$count++;
		}
	}
	close $fh;
	my $wrong = $self->sql(qq{
		SET client_min_messages = error;
		CREATE TEMP TABLE answered (marker text, stream text, version bigint);
		COPY answered FROM '$file';
		SELECT string_agg(marker, ' ') FROM (
			SELECT a.marker FROM answered a
			  LEFT JOIN (SELECT data->>'marker' AS marker, stream, version FROM evento.events WHERE kind = 'domain') e
			    ON e.marker = a.marker AND e.stream = a.stream AND e.version = a.version
			 WHERE e.marker IS NULL LIMIT 10) w});
	is($wrong, '', "$label: all $count answered commands are in the log, where their answers said");
	return;
}

# Asks the projection for all that the records say.
sub verify
{
	my ($self, $at, $label) = @_;
	return $self->play('verify', $at, $label, map { ('--record', $_) } @{ $self->{records} });
}

# The lines of the handlers' trace: { what, command, marker, revision, instance, time (microseconds) }.
sub trace
{
	my ($self) = @_;
	my @lines;
	for my $line (split /\n/, slurp($self->{trace}))
	{
		my %t;
		@t{qw(what command marker revision instance time)} = split / /, $line;
		push @lines, \%t;
	}
	return @lines;
}

# Checks that the handler of each command in the log whose marker begins so ran
# once.
sub check_handled_once
{
	my ($self, $label, $prefix) = @_;
	$prefix //= '';
	my %runs;
	$runs{ $_->{marker} }++ for grep { $_->{what} eq 'begin' } $self->trace;
	my @markers = split /\n/, $self->sql(qq{SELECT DISTINCT data->>'marker' FROM evento.events WHERE starts_with(data->>'marker', '$prefix')});
	my @wrong = grep { ($runs{$_} // 0) != 1 } @markers;
	@wrong = @wrong[ 0 .. 9 ] if @wrong > 10;
	ok(@markers && !@wrong, "$label: the handler of each of " . @markers . ' commands in the log ran once');
	diag(map { "$_ ran " . ($runs{$_} // 0) . " times\n" } @wrong) if @wrong;
	return;
}

# Checks that runs of handlers whose markers match never overlap, wherever they ran.
sub check_alone
{
	my ($self, $label, $pattern) = @_;
	my ($inside, $overlaps, $runs) = (0, 0, 0);
	for my $line (sort { $a->{time} <=> $b->{time} } grep { $_->{marker} =~ $pattern } $self->trace)
	{
		if ($line->{what} eq 'begin')
		{
			$runs++;
			$overlaps++ if $inside++;
		}
		elsif ($line->{what} eq 'end') { $inside-- }
	}
	ok($runs > 1 && !$overlaps, "$label: $runs handlers under one lock, none beside another");
	return;
}

1;
