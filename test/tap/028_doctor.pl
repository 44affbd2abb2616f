# doctor() in a server that is not as it should be.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = Evento::Cluster->make('main', conf => "evento.max_databases = 2\nevento.max_streams_per_transaction = 100000\nmax_prepared_transactions = 2\nfull_page_writes = off\nautovacuum = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION evento');
$node->safe_psql('postgres', q{SELECT evento.append('s', 'T', '1')});
$node->settle;

sub found
{
	my ($severity, $subject, $finding, $what) = @_;
	like($node->safe_psql('postgres', 'SELECT severity, subject, finding, advice FROM evento.doctor()'), qr/^\Q$severity|$subject|\E.*$finding.*\|.+$/m, $what);
	return;
}

# ---- settings ----

found('warning', 'full_page_writes', 'torn pages', 'full_page_writes off');
found('warning', 'autovacuum', 'off', 'autovacuum off');
found('warning', 'evento.max_streams_per_transaction', '100000 streams', 'more streams than locks');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.doctor() WHERE severity = 'ok'}), '0', 'then nothing is ok');
$node->append_conf('postgresql.conf', "fsync = off\nfull_page_writes = on\nautovacuum = on\nevento.max_streams_per_transaction = 1000\n");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT string_agg(severity || ' ' || subject, ',') = 'error fsync' FROM evento.doctor()}), 'fsync off, and the others mended');
$node->append_conf('postgresql.conf', "fsync = on\n");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT string_agg(severity, ',') = 'ok' FROM evento.doctor()}), 'all is well');

$node->safe_psql('postgres', 'CREATE ROLE lazy; ALTER ROLE lazy SET synchronous_commit = off; ALTER DATABASE postgres SET synchronous_commit = local');
is($node->safe_psql('postgres', q{SELECT string_agg(severity || ' ' || finding, E'\n' ORDER BY finding) FROM evento.doctor() WHERE subject = 'synchronous_commit'}),
	"info synchronous_commit is local for database postgres.\ninfo synchronous_commit is off for role lazy.", 'who has set synchronous_commit');
like($node->safe_psql('postgres', q{SELECT severity FROM evento.doctor()}), qr/^ok$/m, 'which is no fault');
$node->safe_psql('postgres', 'ALTER ROLE lazy RESET synchronous_commit; ALTER DATABASE postgres RESET synchronous_commit');

# ---- databases ----

$node->safe_psql('postgres', 'CREATE DATABASE two');
$node->safe_psql('two', q{CREATE EXTENSION evento; SELECT evento.append('s', 'T', '1')});
found('warning', 'evento.max_databases', 'All of its 2 places', 'evento.max_databases used up');
$node->safe_psql('postgres', 'DROP DATABASE two');

# ---- a reader's view of it ----

$node->safe_psql('postgres', 'CREATE ROLE watcher LOGIN IN ROLE evento_reader');
my $writer = $node->background_psql('postgres', on_error_stop => 0);
$node->set_synchronous('nobody');
my $pid = Evento::Cluster::backend_pid($writer);
Evento::Cluster::send_to($writer, q{SELECT evento.append('secret-name', 'T', '1');});
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM evento.doctor() WHERE subject = 'watermark'"), 'somebody holds the watermark back');
my $seen = $node->safe_psql('postgres', 'SET ROLE watcher; SELECT * FROM evento.doctor()');
like($seen, qr/^(?:warning|error)\|watermark\|Process $pid /m, 'a reader learns who');
unlike($seen, qr/secret-name/, 'but not what');
$node->adjust_conf('postgresql.conf', 'synchronous_standby_names', "''");
$node->reload;
Evento::Cluster::answer_of($writer);
$writer->quit;
$node->settle;

# ---- a prepared transaction, an idle slot, an old snapshot: only old ones are named ----

$node->safe_psql('postgres', q{BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'it''s'});
$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('idle', true)});
is($node->safe_psql('postgres', q{SELECT string_agg(severity, ',') FROM evento.doctor()}), 'ok', 'what has just come is not named');
# The part of doctor that looks for them, with a clock of its own.
$node->safe_psql('postgres', q{DO $$ BEGIN EXECUTE replace(replace(replace(pg_get_functiondef('evento._doctor_old_snapshots'::regproc), 'interval ''10 minutes''', 'interval ''0'''), '1073741824', '-1'), 'evento._doctor_old_snapshots()', 'public.impatient()'); END $$});
my $old = $node->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
my $impatient = $node->safe_psql('postgres', 'SELECT * FROM public.impatient()');
my $old_pid = Evento::Cluster::backend_pid($old);
like($impatient, qr/^info\|old snapshot\|Process $old_pid /m, 'who holds an old snapshot');
like($impatient, qr/^warning\|prepared transaction\|The prepared transaction 'it''s' .*\|.*ROLLBACK PREPARED 'it''s'/m, 'a prepared transaction');
like($impatient, qr/^warning\|replication slot\|The slot idle is not active and keeps .* of WAL\.\|.*pg_drop_replication_slot\('idle'\)/m, 'a slot that nobody reads');
$old->quit;
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'it''s'});
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('idle')});

# ---- versions, and no preload ----

my $version = $node->safe_psql('postgres', 'SELECT version FROM evento._library()');
is($version, $node->safe_psql('postgres', q{SELECT default_version FROM pg_available_extensions WHERE name = 'evento'}), 'the library knows its version');
$node->safe_psql('postgres', q{UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'evento'});
found('warning', 'extension', 'has version 0\.0\.9', 'an extension older than the library');
$node->safe_psql('postgres', qq{UPDATE pg_extension SET extversion = '$version' WHERE extname = 'evento'});

$node->safe_psql('postgres', 'ALTER DATABASE postgres ALLOW_CONNECTIONS true; CREATE DATABASE shut');
$node->safe_psql('shut', q{CREATE EXTENSION evento; SELECT evento.append('s', 'T', '1')});
$node->settle('shut');
my $inside = $node->background_psql('shut');
my $worker = $inside->query_safe('SELECT worker_pid FROM evento.stats');
$node->safe_psql('postgres', 'ALTER DATABASE shut ALLOW_CONNECTIONS false');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
my $no = '';
for (my $until = time + 60; time < $until && $no !~ /lets nobody in/; sleep 0.1)
{
	$inside->query_safe(q{SELECT evento.append('s', 'T', '1')});
	$no = $inside->query_safe('SELECT severity, subject, finding FROM evento.doctor()');
}
like($no, qr/^error\|worker\|.*lets nobody in/m, 'a database that lets nobody in');
$inside->quit;

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;
found('error', 'library', 'not preloaded', 'without preload doctor works');
is($node->state_of('SELECT * FROM evento.stats'), 'V0004', 'stats says that it does not');
is($node->state_of('SELECT evento.jump_positions()'), 'V0004', 'nor jump_positions');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento.events'), '2', 'the view goes on');
$node->stop;
done_testing();
