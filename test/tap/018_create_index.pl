# create_index beside writers, behind old snapshots, cut off in every way, two
# at once, after a dump, and on a standby.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->started('main', conf => "max_worker_processes = 16\nautovacuum = off\n");
$node->safe_psql('postgres', q{SELECT evento.append('order-' || n % 200, 'T' || n % 9, json_build_object('k', n % 100, 'pad', repeat('x', 100))) FROM generate_series(1, 3000) n});
$node->settle;

# What the index finds and what a scan of everything finds.
sub index_is_right
{
	my ($what, $where) = @_;
	my $with = $node->safe_psql('postgres', "SET enable_seqscan = off; SELECT count(*), sum(position) FROM evento._events WHERE $where");
	my $without = $node->safe_psql('postgres', "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; SELECT count(*), sum(position) FROM evento._events WHERE $where");
	is($with, $without, "$what: the index has what the table has");
	like($node->safe_psql('postgres', "SET enable_seqscan = off; EXPLAIN (COSTS OFF) SELECT * FROM evento._events WHERE $where"), qr/Index/, "$what: it is used");
	return;
}

sub indexes { return $node->safe_psql('postgres', 'SELECT what, present, valid FROM evento.indexes ORDER BY what') }

# Starts a CALL in a session of its own, and waits until its statement waits for an old snapshot.
sub call_that_waits
{
	my ($call) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = Evento::Cluster::backend_pid($session);
	Evento::Cluster::send_to($session, "$call;");
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'evento index' AND wait_event_type = 'Lock' AND query LIKE 'CREATE INDEX%'})
	  or die "$call does not wait";
	return ($session, $pid);
}

sub worker_gone { return $node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'evento index'}) }

# A session that keeps its snapshot.
sub old_snapshot
{
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM evento._events');
	return $session;
}

# ---- beside writers ----

append_to_file($node->basedir . '/append.sql', <<'SQL');
\set n random(1, 200)
SELECT evento.append('order-' || :n, 'T' || :n % 9, json_build_object('k', :n % 100), context => 'c' || :n % 3);
SQL
my $writers = $node->launch('pgbench', '-n', '-c', '4', '-T', '8', '-f', $node->basedir . '/append.sql', 'postgres');
$node->poll_query_until('postgres', 'SELECT count(*) > 3100 FROM evento._events') or die 'no writers';
for my $what ('type', 'data.k', 'context', 'time', 'category')
{
	is($node->state_of("CALL evento.create_index('$what')"), '', "$what is built beside writers");
}
is($node->finish($writers, 120), 0, 'that go on without an error');
like(PostgreSQL::Test::Utils::slurp_file($writers->{out}), qr/number of failed transactions: 0/, 'at all');
index_is_right('type', q{type = 'T3'});
index_is_right('context', q{context = 'c1'});
index_is_right('time', q{recorded_at > now() - interval '1 hour'});
index_is_right('data.k', q{evento.text(data, 'k') = '42'});
is(indexes(), join("\n", map { "$_|t|t" } qw(category context data.k time type)), 'indexes has them');
$node->log_is_sound('after the builds');

# ---- who may ----

is($node->state_of("SET ROLE evento_writer; CALL evento.create_index('type')"), '42501', 'a writer may not');
is($node->state_of("SET ROLE evento_admin; CALL evento.drop_index('type')"), '', 'an admin may drop');
is($node->state_of("SET ROLE evento_admin; CALL evento.create_index('type')"), '', 'and create');
is($node->state_of("SET ROLE evento_reader; SELECT * FROM evento.indexes"), '', 'a reader sees them');

# What the database sets for its sessions is for these; the caller has been asked already.
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET default_transaction_read_only = on');
is($node->state_of(q{CALL evento.create_index('data.settings')}), '25006', 'a session that only reads may not');
is($node->state_of(q{SET default_transaction_read_only = off; CALL evento.create_index('data.settings'); CALL evento.drop_index('data.settings')}), '', 'one that writes may, whatever is the default');
$node->safe_psql('postgres', 'SET default_transaction_read_only = off; ALTER DATABASE postgres RESET ALL');

# ---- behind an old snapshot ----

my $old = old_snapshot();
my ($session, $pid) = call_that_waits("CALL evento.create_index('data.old')");
is($node->safe_psql('postgres', "SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid"), 't', 'who waits holds no snapshot');
is($node->state_of(q{SELECT evento.append('order-1', 'T', '{"old":1}')}), '', 'appends go on while it waits');
is(indexes() =~ /data\.old\|t\|f/ ? 1 : 0, 1, 'indexes shows it as not valid');
$old->query_safe('COMMIT');
Evento::Cluster::answer_of($session);
is(indexes() =~ /data\.old\|t\|t/ ? 1 : 0, 1, 'it is valid when the snapshot has gone');
$session->quit;

# ---- cut off ----

for my $how ('cancel', 'terminate')
{
	$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM evento._events');
	($session, $pid) = call_that_waits("CALL evento.create_index('data.cut')");
	$node->safe_psql('postgres', "SELECT pg_${how}_backend($pid)");
	if ($how eq 'cancel')
	{
		Evento::Cluster::answer_of($session);
		like($session->{stderr}, qr/canceling statement due to user request/, 'a cancelled call ends at once');
	}
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active'") or die 'goes on';
	$old->query_safe('COMMIT');
	ok(worker_gone(), "$how: the worker ends");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_class WHERE relname LIKE '\_events\_data\_cut%'}), '0', "$how: it leaves no index");
	unlike(indexes(), qr/data\.cut/, "$how: nor a row of indexes");
	eval { $session->quit };
}

$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM evento._events');
($session, $pid) = call_that_waits("CALL evento.create_index('data.cut')");
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'evento index'});
Evento::Cluster::answer_of($session);
like($session->{stderr}, qr/has ended early|terminating background worker/, 'a worker that is terminated is told');
$old->query_safe('COMMIT');
like(indexes(), qr/data\.cut\|t\|f/, 'what it leaves is in indexes');
is($node->state_of("CALL evento.create_index('data.cut')"), '', 'the next call makes it anew');
like(indexes(), qr/data\.cut\|t\|t/, 'and valid');
eval { $session->quit };

$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM evento._events');
($session, $pid) = call_that_waits("CALL evento.create_index('data.crash')");
my $worker = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'evento index'});
kill 'KILL', $worker;
eval { $session->quit };
eval { $old->quit };
$node->wait_back($worker) or die 'no restart';
like(indexes(), qr/data\.crash\|t\|f/, 'after a crash in the middle indexes has it');
is($node->state_of('CALL evento.create_index(NULL)'), '', 'create_index(NULL)');
unlike(indexes(), qr/\|f/, 'makes all that misses');

# ---- two at once ----

my @both = map { $node->launch('psql', '-Xq', '-d', 'postgres', '-c', "CALL evento.create_index('data.$_')", '-c', "CALL evento.drop_index('data.$_')", '-c', "CALL evento.create_index('data.$_')") } ('one', 'two', 'one');
is($node->finish($_, 120), 0, 'calls at once wait for each other') for @both;
$node->state_of("CALL evento.drop_index('data.$_')") for 'one', 'two', 'crash', 'cut', 'old';
is(indexes(), join("\n", map { "$_|t|t" } qw(category context data.k time type)), 'drop_index');

# ---- a dump has what was asked for ----

my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'restored', '-f', $dump ], 'restore');
is($node->safe_psql('restored', 'SELECT count(*) FILTER (WHERE NOT present), count(*) FROM evento.indexes'), '5|5', 'what was asked for is there, the indexes are not');
is($node->state_of('CALL evento.create_index(NULL)', 'restored'), '', 'create_index(NULL) there');
is($node->safe_psql('restored', 'SELECT count(*) FILTER (WHERE valid), count(*) FROM evento.indexes'), '5|5', 'makes them');

# ---- a standby ----

my $standby = $node->standby('standby');
is($standby->state_of("CALL evento.create_index('data.s')"), 'V0005', 'not on a standby');
like($standby->safe_psql('postgres', q{SET enable_seqscan = off; EXPLAIN (COSTS OFF) SELECT * FROM evento.events WHERE evento.text(data, 'k') = '42'}), qr/_events_data_k/, 'which uses what the primary has');
is($standby->safe_psql('postgres', q{SET enable_seqscan = off; SELECT count(*) FROM evento.events WHERE evento.text(data, 'k') = '42'}),
	$node->safe_psql('postgres', q{SET enable_seqscan = off; SELECT count(*) FROM evento.events WHERE evento.text(data, 'k') = '42'}), 'and finds the same');
$standby->stop;

# ---- no worker is free ----

$node->append_conf('postgresql.conf', 'max_worker_processes = 4');
$node->safe_psql('postgres', 'DROP DATABASE restored');
$node->restart;
$node->settle;
my ($state, $text) = $node->state_of(q{CALL evento.create_index('data.a')});
ok($state eq '' || $state eq '53400', 'with few workers it is built or refused');
$node->append_conf('postgresql.conf', "max_worker_processes = 1");
$node->restart;
($state, $text) = $node->state_of(q{CALL evento.create_index('data.b')});
is($state, '53400', 'without a worker it is refused');
like($text, qr/max_worker_processes/, 'with a hint');
$node->stop;
done_testing();
