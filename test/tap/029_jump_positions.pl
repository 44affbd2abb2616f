# jump_positions: while writers run, together with others of its kind, rolled
# back, before anything was appended; on record, and no position twice.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->started('main', conf => "evento.position_jump = 100000\nmax_prepared_transactions = 2\n");

my ($last, $first) = split /\|/, $node->safe_psql('postgres', q{SELECT * FROM evento.jump_positions()});
is($last, '0', 'before the first event');
cmp_ok($first, '>', 100000, 'as far as the setting says');
is($node->safe_psql('postgres', q{SELECT evento.append('s', 'T', '1') AS v \gset
SELECT first FROM evento.last_append()}), $first, 'the first event has the position that was said');
is($node->safe_psql('postgres', q{SELECT last_position, next_position, reason FROM evento._jumps}), "0|$first|asked for by the administrator", 'it is on record');
is($node->settle, $first, 'the watermark goes on');
is($node->state_of(q{SELECT evento.jump_positions('')}), '22023', 'a reason is wanted');
is($node->state_of(q{SELECT evento.jump_positions(NULL)}), '22023', 'and NULL is none');

# ---- while writers run ----

my $script = $node->basedir . '/append.sql';
append_to_file($script, "BEGIN;\nSELECT evento.append('s-' || (random() * 50)::int, 'T', '1'), evento.append('c-' || :client_id, 'T', '1');\nCOMMIT;\n");
my $writers = $node->launch('pgbench', '-n', '-c', '8', '-t', '400', '-f', $script, 'postgres');
my @jumpers = map {
	my $file = $node->basedir . "/jump$_.sql";
	append_to_file($file, "SELECT evento.jump_positions('round');\n" . ($_ == 2 ? "BEGIN; SELECT evento.jump_positions('rolled back'); ROLLBACK;\nBEGIN; SELECT evento.append('own', 'T', '1'); SELECT evento.jump_positions('with an append'); COMMIT;\n" : ''));
	$node->launch('pgbench', '-n', '-c', '2', '-t', '10', '-f', $file, 'postgres');
} 1, 2;
is($node->finish($_, 120), 0, 'the jumpers are done') for @jumpers;
is($node->finish($writers, 120), 0, 'the writers have met with no error');
my $watermark = $node->settle;
$node->log_is_sound('after the jumps');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento.events'), 6400 + 20 + 1, 'every event is there, and in the view');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), 1 + 20 + 20 + 20, 'every jump that was committed is on record');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._events e JOIN evento._jumps j ON e.position > j.last_position AND e.position < j.next_position'), '0', 'no event lies in a gap that is on record');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps a JOIN evento._jumps b ON a.ctid <> b.ctid AND a.next_position > b.last_position + 1 AND a.last_position < b.next_position - 1'), '0', 'nor do gaps overlap');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps WHERE next_position - last_position <= 100000'), '0', 'each as wide as the setting says');
like($node->safe_psql('postgres', 'SELECT * FROM evento.doctor()'), qr/^info\|positions\|On .* positions jumped from \d+ to \d+: round/m, 'doctor knows of them');

# ---- they hold after a crash ----

my $next = $node->safe_psql('postgres', q{SELECT next_position FROM evento.jump_positions('before a crash')});
$node->stop('immediate');
$node->start;
cmp_ok($node->safe_psql('postgres', q{SELECT evento.append('s', 'T', '1') AS v \gset
SELECT first FROM evento.last_append()}), '>=', $next, 'a crash after the jump takes nothing back');
$node->settle;
$node->log_is_sound('after the crash');

# ---- a jump of nothing, with writers ----

$node->append_conf('postgresql.conf', 'evento.position_jump = 0');
$node->reload;
$writers = $node->launch('pgbench', '-n', '-c', '6', '-t', '300', '-f', $script, 'postgres');
my $file = $node->basedir . '/none.sql';
append_to_file($file, "SELECT evento.jump_positions('none');\n");
is($node->finish($node->launch('pgbench', '-n', '-c', '1', '-t', '50', '-f', $file, 'postgres'), 120), 0, 'jumps of nothing');
is($node->finish($writers, 120), 0, 'beside writers');
$node->settle;
$node->log_is_sound('after these');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento.events'), 6400 + 20 + 1 + 1 + 3600, 'every event is in the view');

# ---- in a savepoint that is rolled back, as the first thing in a log ----

# What says whose positions these are went with the savepoint, and a promotion could not be told.
for my $case ([ 'append' => q{SELECT evento.append('s', 'T', '1')} ], [ 'jump' => 'SELECT evento.jump_positions()' ], [ 'nothing' => 'SELECT 1' ])
{
	my ($db, $then) = @$case;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION evento');
	$node->safe_psql($db, "BEGIN; SAVEPOINT a; SELECT evento.jump_positions('gone'); ROLLBACK TO a; $then; COMMIT");
	$node->safe_psql($db, q{SELECT evento.append('s', 'T', '1')});
	is($node->safe_psql($db, 'SELECT count(*) FROM evento._identity'), '1', "rolled back to a savepoint, then $db: the log is this server's");
	$node->settle($db);
	$node->log_is_sound("rolled back to a savepoint, then $db", $db);
}

# ---- a jump that is not on record yet ----

# The log belongs to a timeline before this one, and has no event, so that not the worker jumps but a session.
$node->safe_psql('postgres', 'CREATE DATABASE behind');
$node->safe_psql('behind', 'CREATE EXTENSION evento');
$node->safe_psql('behind', 'INSERT INTO evento._identity SELECT true, s.system_identifier, d.oid, 0 FROM pg_control_system() s, pg_database d WHERE datname = current_database()');
my $session = $node->background_psql('behind');
$session->query_safe('BEGIN; SELECT evento._numbers_check()');
my $behind = $node->safe_psql('behind', q{SELECT evento.append('s', 'T', '1') AS v \gset
SELECT first FROM evento.last_append()});
is($node->safe_psql('behind', q{SELECT evento.watermark() || ' ' || (SELECT count(*) FROM evento.read_all()) || ' ' || (SELECT count(*) FROM evento.jumps)}), '0 0 0', 'while a jump is not committed nobody reads behind it');
$session->query_safe('COMMIT');
$session->quit;
is($node->settle('behind'), $behind, 'then all do');
is($node->safe_psql('behind', "SELECT last_position || ' ' || (next_position <= $behind) FROM evento.jumps"), '0 true', 'and find it on record');
$node->log_is_sound('after a jump that was late', 'behind');

# ---- a transaction that another session ends ----

is($node->state_of(q{BEGIN; SELECT evento.jump_positions('two'); PREPARE TRANSACTION 'two'}), 'V0007', 'a jump cannot be prepared');
is($node->state_of(q{BEGIN; DELETE FROM evento._streams WHERE false; PREPARE TRANSACTION 'two'}), 'V0007', 'nor can a repair of the tables by hand');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '0', 'neither is');
$node->safe_psql('postgres', q{SELECT evento.append('s', 'T', '1')});
is($node->state_of(q{BEGIN; CREATE TABLE own (); PREPARE TRANSACTION 'own'}), '', 'one that did so in a session before holds up no other');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'own'});
$node->settle;
$node->log_is_sound('after these');
$node->stop;
done_testing();
