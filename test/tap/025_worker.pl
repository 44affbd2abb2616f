# Launcher and worker where much goes wrong: DROP and CREATE EXTENSION under
# load, commands that want the database to themselves, no place for a worker, a
# worker that fails or is killed, shutdowns.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = Evento::Cluster->make('main', conf => "max_worker_processes = 8\nevento.max_databases = 70\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION evento');

# Appends, and sees it.
sub works
{
	my ($what, $db) = @_;
	$db //= 'postgres';
	my $position = $node->safe_psql($db, q{SELECT evento.append('w', 'T', '1') AS v \gset
SELECT last FROM evento.last_append()});
	my $watermark = $node->settle($db);
	cmp_ok($watermark, '>=', $position, "$what: the watermark moves");
	return;
}

sub worker_of
{
	my ($db) = @_;
	return $node->safe_psql('postgres', "SELECT COALESCE(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'evento worker' AND datname = '$db'");
}

sub lines
{
	my ($pattern) = @_;
	my @found = grep { /$pattern/ } split /\n/, slurp_file($node->logfile);
	return scalar @found;
}

# Writers that go on through errors, in sessions of their own, until told to stop.
sub writers
{
	my ($n, $db) = @_;
	my $stop = $node->basedir . '/stop' . int(rand(1e9));
	my @pids = map {
		my $pid = fork() // die "fork: $!";
		if ($pid == 0)
		{
			my $i = 0;
			until (-e $stop)
			{
				my $out = '';
				$node->psql($db, join('', map { "SELECT evento.append('s-' || (random() * 20)::int, 'T', '1');\n" } 1 .. 50), stdout => \$out, stderr => \my $err, on_error_stop => 0);
				$i++;
			}
			POSIX::_exit(0);
		}
		$pid;
	} 1 .. $n;
	return sub { append_to_file($stop, ''); waitpid($_, 0) for @pids; return };
}

works('at first');

# ---- the extension goes, and its worker with it ----

$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', 'CREATE EXTENSION evento');
works('another database', 'other');
cmp_ok(worker_of('other'), '>', 0, 'it has a worker');
my $start = time;
$node->safe_psql('other', 'DROP EXTENSION evento');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'evento worker' AND datname = 'other'"), 'which leaves when the extension is dropped');
cmp_ok(time - $start, '<', 20, 'soon, with nobody asking');
$node->safe_psql('other', 'CREATE EXTENSION evento; BEGIN; DROP SCHEMA evento CASCADE; ROLLBACK');
works('made again, a DROP rolled back', 'other');
my $pid = worker_of('other');
$node->safe_psql('other', 'DROP SCHEMA evento CASCADE');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"), 'also with DROP SCHEMA … CASCADE');

# ---- DROP and CREATE in a loop, with writers ----

# Writers may meet it in a deadlock; whoever is the victim repeats.
sub repeated
{
	my ($sql) = @_;
	my $state;
	for (1 .. 20)
	{
		$state = $node->state_of($sql, 'other');
		last if $state ne '40P01';
	}
	return $state;
}

my $stop = writers(4, 'other');
my ($made, $dropped) = (0, 0);
my $rounds = $ENV{EVENTO_LONG} ? 40 : 6;
for my $round (1 .. $rounds)
{
	$made++ if repeated('CREATE EXTENSION evento') eq '';
	sleep 0.2 if $round % 3;
	$dropped++ if repeated('DROP EXTENSION evento') eq '';
}
is("$made $dropped", "$rounds $rounds", 'DROP and CREATE EXTENSION in a loop, with writers');
$node->safe_psql('other', 'CREATE EXTENSION evento');
$stop->();
works('after that', 'other');
$node->log_is_sound('after that', 'other');
is($node->safe_psql('other', 'SELECT max(position) - (SELECT position FROM evento._watermark) FROM evento._events'), '0', 'the row of the watermark is that of the new extension');
is($node->safe_psql('other', 'SELECT count(*) - (SELECT count(*) FROM evento._events) FROM evento.events'), '0', 'and the view shows all there is, and no more');

# ---- commands that want the database to themselves, while it is busy ----

$stop = writers(2, 'postgres');
my $spc = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$spc'");
for my $round (1 .. ($ENV{EVENTO_LONG} ? 5 : 2))
{
	# Nobody else is connected, but the worker, which has just been given work.
	$node->safe_psql('other', q{SELECT evento.append('m', 'T', '1') FROM generate_series(1, 100)});
	is($node->state_of('ALTER DATABASE other SET TABLESPACE ' . ($round % 2 ? 'elsewhere' : 'pg_default')), '', "round $round: moved to another tablespace");
	$node->safe_psql('other', q{SELECT evento.append('m', 'T', '1')});
	is($node->state_of('ALTER DATABASE other RENAME TO another'), '', 'renamed');
	$node->safe_psql('another', q{SELECT evento.append('m', 'T', '1')});
	is($node->state_of('ALTER DATABASE another RENAME TO other'), '', 'and back');
	is($node->state_of("CREATE DATABASE copy$round TEMPLATE other"), '', 'copied');
	is($node->state_of("DROP DATABASE copy$round WITH (FORCE)"), '', 'the copy dropped WITH (FORCE)');
}
my $session = $node->background_psql('other', on_error_stop => 0);
$session->query_safe(q{SELECT evento.append('m', 'T', '1')});
is($node->state_of('DROP DATABASE other'), '55006', 'not dropped while somebody else is connected');
works('then', 'other');
is($node->state_of('DROP DATABASE other WITH (FORCE)'), '', 'dropped WITH (FORCE)');
eval { $session->quit };
$stop->();
works('the busy one');

# ---- a template with the extension, many databases ----

$node->safe_psql('template1', 'CREATE EXTENSION evento');
is($node->safe_psql('template1', q{SELECT evento.append('t', 'T', '1')}), '1', 'template1 has the extension');
$node->settle('template1');
my @many = map { "d$_" } 1 .. ($ENV{EVENTO_LONG} ? 60 : 9);
my @failed = grep { $node->state_of("CREATE DATABASE $_") ne '' } @many;
is("@failed", '', 'databases made from it, which has a worker');
@failed = grep { $node->state_of(q{SELECT evento.append('t', 'T', '2')}, $_) ne '' } @many;
is("@failed", '', 'each can be appended to');
is($node->safe_psql($many[0], q{SELECT string_agg(version::text, ' ' ORDER BY version) FROM evento.read_stream('t')}), '1 2', 'behind what was in the template');

# ---- no place for all their workers ----

ok($node->poll_query_until('postgres', q{SELECT count(*) BETWEEN 3 AND 7 FROM pg_stat_activity WHERE backend_type = 'evento worker'}), 'workers as many as there are places');
my $without;
for (1 .. 100)
{
	# The worker of a database leaves no place to others while it lives.
	($without) = grep { $node->safe_psql($_, q{SELECT worker_state FROM evento.stats}) eq 'no place' } @many[-3 .. -1];
	last if $without;
	sleep 0.2;
}
ok($without, 'for one there is none, and stats says so');
like($node->safe_psql($without, 'SELECT severity, subject, finding FROM evento.doctor()'), qr/^error\|worker\|.*max_worker_processes/m, 'doctor names max_worker_processes');
cmp_ok(lines('no background worker is free'), '<=', scalar(@many) + 5, 'the log is told once for each');
$node->safe_psql('postgres', "DROP DATABASE $_") for grep { $_ ne $without } @many;
ok($node->poll_query_until($without, q{SELECT worker_state = 'running' FROM evento.stats}), 'when there is a place again, it gets its worker');
works('by itself', $without);
$node->safe_psql('postgres', "DROP DATABASE $without");
$node->safe_psql('template1', 'DROP EXTENSION evento');

# ---- a worker that fails ----

$node->safe_psql('postgres', 'ALTER EXTENSION evento DROP TABLE evento._watermark; ALTER TABLE evento._watermark ADD COLUMN more integer');
$node->safe_psql('postgres', q{SELECT evento.append('f', 'T', '1')});
ok($node->poll_query_until('postgres', q{SELECT worker_state = 'failing' AND worker_error LIKE '%more%' FROM evento.stats}), 'a worker that cannot write its row says so');
like($node->safe_psql('postgres', 'SELECT severity, subject, finding FROM evento.doctor()'), qr/^error\|worker\|The worker cannot publish.*more/m, 'as does doctor');
$pid = worker_of('postgres');
$node->safe_psql('postgres', join '', map { q{SELECT evento.append('f', 'T', '1');} . "\n" } 1 .. 50);
sleep 3;
is(worker_of('postgres'), $pid, 'it stays');
cmp_ok($node->safe_psql('postgres', 'SELECT worker_errors FROM evento.stats'), '<=', 6, 'and does not try again at each commit');
is(lines('ERROR:.*has been given a column'), 1, 'nor fill the log');
$node->safe_psql('postgres', 'ALTER TABLE evento._watermark DROP COLUMN more; ALTER EXTENSION evento ADD TABLE evento._watermark');
ok($node->poll_query_until('postgres', q{SELECT worker_state = 'running' FROM evento.stats}), 'mended, it goes on');
works('mended');

# ---- who locks the table of the watermark holds back nobody here ----

my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE evento._watermark');
works('while its table is locked');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.events WHERE stream = 'w' AND position > (SELECT max(position) - 1 FROM evento.events)}), '1', 'the view reads past it');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM evento.doctor() WHERE severity = 'error' AND subject = 'evento._watermark' AND finding ~ '^Process \d+ .*locked'}), 'doctor names who has it');
$locker->query_safe('COMMIT');
$locker->quit;
my $last = $node->safe_psql('postgres', 'SELECT watermark FROM evento.stats');
ok($node->poll_query_until('postgres', "SELECT position >= $last FROM evento._watermark"), 'then the row is written, with no append');

# ---- killed ----

$pid = worker_of('postgres');
kill 'TERM', $pid;
ok($node->poll_query_until('postgres', "SELECT worker_pid <> $pid FROM evento.stats"), 'ended by SIGTERM, it comes back with nobody appending');
$pid = worker_of('postgres');
cmp_ok($pid, '>', 0, 'it is there');
kill 'KILL', $pid;
$node->wait_back($pid) or die 'the server is gone';
ok($node->poll_query_until('postgres', 'SELECT worker_pid IS NOT NULL FROM evento.stats'), 'killed, the server starts anew, and the worker with it');
works('after kill -9');
is($node->safe_psql('postgres', q{SELECT worker_starts FROM evento.stats}), '1', 'counters start anew');

# ---- shutdowns, with waiters and writers ----

for my $mode ('fast', 'smart')
{
	my @waiters = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 3;
	my $pids = join ',', map { Evento::Cluster::backend_pid($_) } @waiters;
	my $ender = $node->background_psql('postgres');
	Evento::Cluster::send_to($_, q{CALL evento.wait(9e17::bigint, '300s');}) for @waiters;
	$node->poll_query_until('postgres', "SELECT count(*) = 3 FROM pg_stat_activity WHERE pid IN ($pids) AND wait_event_type = 'Extension'") or die 'they do not wait';
	is($node->safe_psql('postgres', 'SELECT waiting FROM evento.stats'), 3, 'stats counts who waits') if $mode eq 'fast';
	my $before = $node->safe_psql('postgres', 'SELECT transactions FROM evento.stats');
	my $writer = $node->launch('pgbench', '-n', '-c', '4', '-t', $mode eq 'fast' ? 100000 : 300, '-f', do { my $f = $node->basedir . '/w.sql'; unlink $f; append_to_file($f, "SELECT evento.append('s-' || (random() * 20)::int, 'T', '1');\n"); $f }, 'postgres');
	$node->poll_query_until('postgres', "SELECT transactions > $before + 20 FROM evento.stats") or die 'nobody writes';
	$start = time;
	if ($mode eq 'smart')
	{
		my $stopper = $node->launch('pg_ctl', '-D', $node->data_dir, '-m', 'smart', '-w', '-t', '100', 'stop');
		# Writers come to their end, waiters to theirs; then sessions go.
		$node->finish($writer, 60);
		$ender->query_safe("SELECT pg_cancel_backend(pid) FROM unnest('{$pids}'::int[]) pid");
		$ender->quit;
		Evento::Cluster::answer_of($_) for @waiters;
		eval { $_->quit } for @waiters;
		is($node->finish($stopper, 100), 0, 'a smart shutdown waits for the sessions only');
		$node->{_pid} = undef;
	}
	else
	{
		$node->stop('fast');
		cmp_ok(time - $start, '<', 30, 'a fast shutdown is prompt');
		$node->finish($writer, 30);
		eval { $_->quit } for @waiters, $ender;
	}
	$node->start;
	$node->log_is_sound("after a $mode shutdown");
	works("after a $mode shutdown");
}

# ---- single-user mode, and binary upgrade ----

$node->stop;
my ($out, $err) = ('', '');
IPC::Run::run([ 'postgres', '--single', '-D', $node->data_dir, 'postgres' ], '<', \"SELECT evento.append('single', 'T', '1')\n", '>', \$out, '2>', \$err);
like($out, qr/append = "1"/, 'single-user mode appends');
$node->start;
works('after single-user mode');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.events WHERE stream = 'single'}), '1', 'and the event is there');
$node->stop;
command_ok([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-w', '-o', '-b', 'start' ], 'a server for binary upgrade starts');
IPC::Run::run([ 'psql', '-XAtc', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'evento%'}, '-d', $node->connstr('postgres') ], '>', \$out, '2>', \$err);
is($out, "0\n", 'with neither launcher nor worker');
command_ok([ 'pg_ctl', '-D', $node->data_dir, '-w', '-m', 'fast', 'stop' ], 'and stops');
done_testing();
