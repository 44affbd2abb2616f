# A session that holds an old snapshot for long: the row of the watermark does
# not make its table and its readers slow, nobody waits, and nobody is told
# what its snapshot cannot know. And who LISTENs and does not read, and many who wait.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{EVENTO_LONG} ? 600 : 14;
my $node = Evento::Cluster->started('main', conf => "max_connections = 260\nmax_wal_senders = 4\nwal_level = logical\nshared_buffers = 64MB\n");
my $standby = $node->standby('standby');
my $major = int($node->safe_psql('postgres', 'SHOW server_version_num') / 10000);

my $script = $node->basedir . '/append.sql';
append_to_file($script, <<'SQL');
BEGIN;
SELECT evento.append('s-' || (random() * 300)::int, 'T', '{"a": 1}');
SAVEPOINT a;
SELECT evento.append('s-' || (random() * 300)::int, 'T', '{"b": 2}');
ROLLBACK TO a;
COMMIT;
SQL
$node->safe_psql('postgres', q{SELECT evento.append('s-0', 'T', '1') FROM generate_series(1, 100)});
$node->settle;

# ---- old snapshots: of a session, and of slots nobody reads ----

my $old = $node->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($old->query_safe('SELECT count(*) FROM evento.events'), '100', 'one holds a snapshot');
$node->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('nobody', 'test_decoding')});

# ---- readers meanwhile, whose snapshots are older than what they ask ----

my $stop = $node->basedir . '/stop';
my %readers = (
	'the view' => { node => $node, sql => 'SELECT position FROM evento.events WHERE position > %d ORDER BY position LIMIT 1000' },
	'a late look' => { node => $node, sql => 'WITH s AS MATERIALIZED (SELECT pg_sleep(0.02)) SELECT position FROM s CROSS JOIN LATERAL (SELECT position FROM evento.events WHERE position > %d AND s IS NOT NULL ORDER BY position LIMIT 1000) e' },
	'REPEATABLE READ, the view' => { node => $node, begin => 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; SELECT pg_sleep(0.01)', sql => 'SELECT position FROM evento.events WHERE position > %d ORDER BY position LIMIT 1000', end => 'COMMIT' },
	'SERIALIZABLE, scan_all' => { node => $node, begin => 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1; SELECT pg_sleep(0.005)', sql => 'SELECT position FROM evento.scan_all(%d, 1000) WHERE position IS NOT NULL', end => 'COMMIT' },
	'the standby' => { node => $standby, sql => 'SELECT position FROM evento.events WHERE position > %d ORDER BY position LIMIT 1000' });
for my $name (sort keys %readers)
{
	my $reader = $readers{$name};
	$reader->{file} = $node->basedir . '/reader_' . ($name =~ s/\W/_/gr);
	$reader->{pid} = fork() // die "fork: $!";
	next if $reader->{pid};
	open(my $out, '>', $reader->{file}) or die $!;
	my $session = $reader->{node}->background_psql('postgres');
	my ($after, $stopped) = (0, 0);
	while (1)
	{
		$stopped ||= -e $stop;
		$session->query_safe($reader->{begin}) if $reader->{begin};
		my @positions = split /\n/, $session->query_safe(sprintf $reader->{sql}, $after);
		$session->query_safe($reader->{end}) if $reader->{end};
		print $out "$_\n" for @positions;
		$after = $positions[-1] if @positions;
		last if $stopped && !@positions;
		# Each statement goes to a log: not thousands a second.
		sleep 0.02;
	}
	close $out;
	$session->quit;
	POSIX::_exit(0);
}

my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN evento');
my $listener_pid = Evento::Cluster::backend_pid($listener);
$listener->query_safe('BEGIN; SELECT 1');

my ($reads, $seen, $began) = (0, 0, time);
my $own = $node->background_psql('postgres');
# On a machine that is slow they write again, until there is enough of it.
for (1 .. 10)
{
	my $writers = $node->launch('pgbench', '-n', '-c', '12', '-j', '2', '-T', $seconds, '-f', $script, 'postgres');
	for (my $until = time + $seconds; time < $until; sleep 0.1)
	{
		# Own writes, at once after wait().
		$reads++;
		$seen++ if $own->query_safe("SELECT evento.append('own', 'T', '1') AS v \\gset\nCALL evento.wait(NULL) \\gset\nSELECT max(version) = :v FROM evento.events WHERE stream = 'own'") eq 't';
	}
	is($node->finish($writers, 60), 0, 'the writers are done');
	last if $node->safe_psql('postgres', 'SELECT advances > 600 FROM evento.stats') eq 't';
}
is($seen, $reads, "own writes are in the view after wait, $reads times");
# The standby's reader is not to stop before that has all of it.
$node->followed_by($standby);
append_to_file($stop, '');
waitpid($readers{$_}{pid}, 0) for sort keys %readers;

my ($advances, $writes, $pages) = split /\|/, $node->safe_psql('postgres', q{SELECT advances, row_writes, pg_relation_size('evento._watermark') / 8192 FROM evento.stats});
my $took = time - $began;
note "$advances advances, $writes writes of the row, $pages pages in $took s";
cmp_ok($advances, '>', 500, 'the watermark has moved many times');
# 180 versions to a page; ten a second once nine pages are full.
cmp_ok($pages, '<=', 13 + $took / 15, 'the table of the row has stayed small');
# Others may make a session look up the extension's tables anew, as autovacuum does.
my $plan = '';
for (1 .. 20)
{
	$plan = $own->query_safe('SELECT evento._watermark_seen(); EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) SELECT evento._watermark_seen()');
	last if $plan !~ /Buffers: shared/;
}
like($plan, qr/Result \(actual rows=1(?:\.00)? loops=1\)\n(?!.*Buffers: shared)/, 'and readers do not look at it');
is($old->query_safe('SELECT count(*) FROM evento.events'), '100', 'the old snapshot sees what it saw');
is($old->query_safe('SELECT count(*) FROM evento.read_all(0, NULL)'), '100', 'by read_all, too');

$node->wait_for_catchup($standby);
ok($standby->poll_query_until('postgres', 'SELECT position >= ' . $node->safe_psql('postgres', 'SELECT watermark FROM evento.stats') . ' FROM evento._watermark'), 'standbys come to the end');
my $all = join "\n", split /\n/, $node->safe_psql('postgres', 'SELECT position FROM evento._events ORDER BY position');
for my $name (sort keys %readers)
{
	my @got = split /\n/, slurp_file($readers{$name}{file});
	my %got = map { $_ => 1 } @got;
	my $last = $got[-1] // 0;
	my @skipped = grep { $_ <= $last && !$got{$_} } split /\n/, $all;
	is(scalar(@skipped), 0, "$name: nothing skipped");
	cmp_ok(scalar(@got), '>', 300, "$name: has read");
	is(scalar(keys %got), scalar(@got), "$name: nothing twice");
}

# ---- the snapshot goes ----

$old->query_safe('COMMIT');
$old->quit;
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('nobody')});
$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '1')}) for 1 .. 20;
ok($node->poll_query_until('postgres', q{SELECT evento.append('s-1', 'T', '1') IS NOT NULL AND (SELECT row_writes FROM evento.stats) > } . ($writes + 20)), 'then the row is written as often as before');

# ---- who LISTENs and does not read ----

my ($left_out) = $node->safe_psql('postgres', 'SELECT notifies_left_out FROM evento.stats');
cmp_ok($node->safe_psql('postgres', 'SELECT pg_notification_queue_usage()'), '>', 0, 'a listener in a transaction keeps notifications');
is($node->safe_psql('postgres', 'SELECT count(*) > 0 FROM evento.stats WHERE notifies > 500'), 't', 'which are sent all the while');
if ($major >= 17)
{
	$node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($listener_pid)");
	eval { $listener->quit };
	$node->restart;
	$node->settle;
	$listener = $node->background_psql('postgres');
	$listener->query_safe('LISTEN evento');
	$listener_pid = Evento::Cluster::backend_pid($listener);
	$listener->query_safe('BEGIN; SELECT 1');
	$node->safe_psql('postgres', q{SELECT count(pg_notify('other', i || repeat('x', 7000))) FROM generate_series(1, 45) i});
	$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '1')}) for 1 .. 10;
	$node->settle;
	my $file = $node->basedir . '/few.sql';
	append_to_file($file, q{SELECT evento.append('s-' || (random() * 300)::int, 'T', '1');});
	# It looks at the queue once in 256 notifications, of which one may tell of many appends.
	my ($failed, $left_out) = (0, 'f');
	for (1 .. 30)
	{
		$failed ||= $node->finish($node->launch('pgbench', '-n', '-c', '2', '-t', '500', '-f', $file, 'postgres'), 120);
		$left_out = $node->safe_psql('postgres', 'SELECT notifies_left_out > 0 FROM evento.stats');
		last if $failed || $left_out eq 't';
	}
	is($failed, 0, 'a full queue stops no writer');
	is($left_out, 't', 'the worker sends none then');
	like($node->safe_psql('postgres', 'SELECT severity, subject FROM evento.doctor()'), qr/^warning\|notifications$/m, 'doctor says so');
	my $position = $node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '1') AS v \gset
SELECT last FROM evento.last_append()});
	cmp_ok($node->settle, '>=', $position, 'and the watermark moves');
}
# What it has missed would fill the page.
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $listener_pid . ')');
eval { $listener->quit };
$own->quit;

# ---- many who wait ----

my $waiting = $node->basedir . '/wait.sql';
append_to_file($waiting, 'CALL evento.wait((SELECT watermark FROM evento.stats), \'200s\');');
my $position = $node->settle;
unlink $waiting;
append_to_file($waiting, "CALL evento.wait($position, '200s');");
my $waiters = $node->launch('pgbench', '-n', '-c', '200', '-j', '2', '-t', '1', '-f', $waiting, 'postgres');
ok($node->poll_query_until('postgres', 'SELECT waiting = 200 FROM evento.stats'), '200 sessions wait');
my $before = $node->safe_psql('postgres', "SELECT worker_pid FROM evento.stats");
my $ticks = sub { my $stat = slurp_file("/proc/$before/stat"); my @f = split / /, $stat; return $f[13] + $f[14] };
my $used = $ticks->();
sleep 2;
cmp_ok($ticks->() - $used, '<=', 5, 'the worker does nothing meanwhile');
is($node->safe_psql('postgres', q{SELECT count(backend_xmin) FROM pg_stat_activity WHERE query LIKE 'CALL%'}), '0', 'none of them holds a snapshot');
$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '1')});
is($node->finish($waiters, 120), 0, 'one append wakes all of them');
is($node->safe_psql('postgres', 'SELECT waiting FROM evento.stats'), '0', 'and they are gone');
$node->log_is_sound('at the end');
$standby->stop;
$node->stop;
done_testing();
