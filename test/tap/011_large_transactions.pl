# Transactions that append more than their memory holds: what they take of the
# machine, and their end by force at any moment: while they buffer, while they
# write in their commit, behind that, by a crash. Nothing of them is left, and
# nobody waits for them.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $events = $ENV{EVENTO_LONG} ? 1_000_000 : 100_000;
my $node = Evento::Cluster->started('primary', preload => 'evento,' . Evento::Cluster::pause_module(), conf => "shared_buffers = 16MB\nautovacuum = off\nevento.max_transaction_size = 16GB\n");
$node->safe_psql('postgres', q{SELECT evento.append('kept-1', 'T', '1')});

sub fill
{
	my ($category, $n) = @_;
	return "SELECT count(evento.append('$category-' || n % 1000, 'T', json_build_object('n', n, 'pad', repeat('x', 250)))) FROM generate_series(1, $n) n";
}

# Nothing is left of a transaction that came to an end by force.
my %version = (kept => 1);

sub left_nothing
{
	my ($what, $category) = @_;
	ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM evento.appending'), "$what: it is out of appending");
	is($node->safe_psql('postgres', "SELECT count(*) FROM evento.streams WHERE category = '$category'"), '0', "$what: nothing is stored");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_ls_tmpdir()'), '0', "$what: its file is gone");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_locks WHERE locktype = \'advisory\' AND classid <> 0 AND objsubid > 2'), '0', "$what: its locks are gone");
	is($node->safe_psql('postgres', "SELECT evento.append('kept-1', 'T', '1', expected => $version{kept})"), ++$version{kept}, "$what: others go on");
	my $last = $node->settle;
	is($node->safe_psql('postgres', 'SELECT max(position) FROM evento.events'), $last, "$what: and are shown");
	return;
}

# ---- what they take of the machine ----

sub peak_of
{
	my ($memory, $category) = @_;
	my $session = $node->background_psql('postgres');
	my $pid = Evento::Cluster::backend_pid($session);
	$session->query_safe("SET evento.append_memory = '$memory'");
	$session->query_safe(fill($category, $events));
	my ($peak) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;
	$session->quit;
	return $peak / 1024;
}

SKIP:
{
	skip 'no /proc/PID/status', 2 unless -r "/proc/$$/status";
	my $bounded = peak_of('8MB', 'bounded');
	my $unbounded = peak_of('4GB', 'unbounded');
	my $list = $events * 80 / 1024 / 1024;
	cmp_ok($bounded, '<', 60 + $list, sprintf('with 8 MB, the session took %.0f MB at most, its commit included', $bounded));
	cmp_ok($unbounded, '>', 60 + $list, sprintf('with 4 GB, %.0f MB: the test can tell', $unbounded));
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.streams WHERE category IN ('bounded', 'unbounded') AND version = } . $events / 1000), '2000', 'both are stored');
$node->log_is_sound('two large transactions');

# ---- ended while they buffer ----

my $session;
my $pid;

sub begin
{
	$session = $node->background_psql('postgres', on_error_stop => 0);
	$pid = Evento::Cluster::backend_pid($session);
	$session->query_safe(q{SET evento.append_memory = '1MB'});
	return;
}

begin();
Evento::Cluster::send_to($session, fill('buffering', 100_000_000) . ';');
$node->poll_query_until('postgres', 'SELECT count(*) > 0 FROM pg_ls_tmpdir()') or die 'no temporary file';
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
Evento::Cluster::answer_of($session);
like($session->{stderr}, qr/canceling statement due to user request/, 'cancelled while it buffers');
left_nothing('cancelled while it buffers', 'buffering');
$session->{stderr} = '';

# The same behind a savepoint: what was before it stays.
$session->query_safe('BEGIN');
$session->query_safe(fill('before', 5000));
$session->query_safe('SAVEPOINT a');
$session->query_safe(q{SET LOCAL statement_timeout = '2s'});
Evento::Cluster::send_to($session, fill('buffering', 100_000_000) . ';');
Evento::Cluster::answer_of($session);
like($session->{stderr}, qr/canceling statement due to statement timeout/, 'statement_timeout while it buffers');
$session->{stderr} = '';
$session->query_safe('ROLLBACK TO a');
$session->query_safe(fill('before', 3000));
$session->query_safe('COMMIT');
is($node->safe_psql('postgres', q{SELECT sum(version) FROM evento.streams WHERE category = 'before'}), '8000', 'what was before the savepoint and behind it is stored');
left_nothing('statement_timeout', 'buffering');
$session->quit;

# ---- ended while they write, in the commit ----

for my $end ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $tries = 0;
	my $ended = 0;
	my $before;
	while (!$ended && $tries++ < 5)
	{
		begin();
		$session->query_safe('BEGIN');
		$session->query_safe(fill("$end$tries", $events));
		$before = $node->settle;
		Evento::Cluster::send_to($session, 'COMMIT;');
		$node->poll_query_until('postgres', "SELECT evento.watermark() > $before OR EXISTS (SELECT FROM evento.appending WHERE pid = $pid)");
		$node->safe_psql('postgres', "SELECT $end($pid)");
		$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state <> 'idle'") or die 'it has not ended';
		$ended = $node->safe_psql('postgres', "SELECT count(*) FROM evento.streams WHERE category = '$end$tries'") eq '0';
		eval { $session->quit };
	}
	ok($ended, "$end: the commit was met while it wrote");
	is($node->settle, $before + $events, "$end: its positions stay empty, all of them, and readers go past");
	left_nothing($end, "$end$tries");
}

# ---- and behind that ----

my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(42)');
begin();
$session->query_safe(q{SET evento_pause.lock = 42; SET statement_timeout = '6s'; SET evento.append_memory = 64});
Evento::Cluster::send_to($session, 'DO $$ BEGIN PERFORM ' . (fill('paused', 3000) =~ s/^SELECT //r) . '; COMMIT; END $$;');
Evento::Cluster::answer_of($session);
like($session->{stderr}, qr/canceling statement due to statement timeout/, 'statement_timeout reaches a commit in a procedure');
$session->quit;
$gate->query_safe('SELECT pg_advisory_unlock(42)');
left_nothing('statement_timeout in a commit', 'paused');
$node->log_is_sound('after all of these');
unlike(slurp_file($node->logfile), qr/leak|not closed at end-of-transaction|PANIC|terminated by signal/, 'the server complains of nothing');

# ---- a crash while one writes ----

begin();
$session->query_safe('BEGIN');
$session->query_safe(fill('crashed', $events));
my $before = $node->settle;
Evento::Cluster::send_to($session, 'COMMIT;');
$node->poll_query_until('postgres', "SELECT evento.watermark() > $before OR EXISTS (SELECT FROM evento.appending WHERE pid = $pid)");
kill 'KILL', $pid;
eval { $session->quit };
eval { $gate->quit };
ok($node->wait_back($pid), 'the server is back after a crash in the midst of it');
my $stored = $node->safe_psql('postgres', q{SELECT count(*) FROM evento.streams WHERE category = 'crashed'});
like($stored, qr/^(0|1000)$/, 'all of it is stored or nothing');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_ls_tmpdir()'), '0', 'no temporary file is left');
is($node->safe_psql('postgres', "SELECT evento.append('kept-1', 'T', '1', expected => $version{kept})"), ++$version{kept}, 'what was acknowledged is there');
$node->settle;
$node->log_is_sound('after the crash');
$node->stop;
done_testing();
