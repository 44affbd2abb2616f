# pg_basebackup while writers run, started with the archive (recovery.signal)
# and without: what was acknowledged before it is there, nothing is torn, and
# positions that readers of the original have seen are not given again.
use strict;
use warnings;

use Evento::Cluster;
use Evento::Contents;
use Evento::Ledger;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->make('main');
$node->enable_archiving;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION evento');
my $ledger = Evento::Ledger->new($node);
$ledger->write(clients => 8, streams => 20, batch => 1, positions => 1);
$ledger->read($node, $_) for qw(read_all wait);
$ledger->acknowledged(300);

my $before_backup = $ledger->now;
$node->backup('backup');
command_ok([ 'pg_verifybackup', '-n', $node->backup_dir . '/backup' ], 'the backup is whole');
my $after_backup = $ledger->now;
$ledger->acknowledged(300);
my $archived_before = $ledger->now;
my $segment = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
$ledger->acknowledged(300);
$node->poll_query_until('postgres', qq{SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver}) or die 'the segment is not archived';

# What readers of the original have been told by now.
sub told { return $node->safe_psql('postgres', 'SELECT evento.watermark()') }

# Writers and readers on a server that was restored; all of the original's events are others' there.
sub goes_on
{
	my ($server, $what) = @_;
	my $own = Evento::Ledger->new($server, name => "_$what");
	$own->write(clients => 4, streams => 5, batch => 1);
	$own->read($server, $_) for qw(read_all view);
	$own->acknowledged(100);
	$own->stop_writers;
	$server->settle;
	ok($own->stop_readers, "$what: writers and readers go on");
	$server->log_is_sound($what);
	return;
}

# ---- with recovery.signal: the end of the archive is the end ----

my $restored = bless PostgreSQL::Test::Cluster->new('restored'), 'Evento::Cluster';
$restored->init_from_backup($node, 'backup', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf', 'archive_mode = off');
$restored->start;
$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'does not end recovery';
my ($well, $n, $text) = $ledger->check($restored, lossy_after => $archived_before);
ok($well, 'with recovery.signal: what was acknowledged before the last segment is there, nothing is torn, nothing twice') or diag($text);
cmp_ok($n->{lost}, '>', 0, "and $n->{lost} later operations are lost");
my $told = told();
my $first = $restored->safe_psql('postgres', q{SELECT evento.append('new', 'T', '1') AS v \gset
SELECT first FROM evento.last_append()});
cmp_ok($first, '>', $told, 'its positions go on behind what readers of the original have seen');
is($restored->safe_psql('postgres', q{SELECT reason FROM evento._jumps}), 'another timeline: a promotion or a recovery to a point in time', 'and the jump is on record');
goes_on($restored, 'with_recovery_signal');
$restored->stop;

# ---- without: it cannot know, and is told ----

my $copy = bless PostgreSQL::Test::Cluster->new('copy'), 'Evento::Cluster';
$copy->init_from_backup($node, 'backup');
$copy->append_conf('postgresql.conf', 'archive_mode = off');
$copy->start;
is($copy->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'f', 'without recovery.signal it starts at once');
($well, $n, $text) = $ledger->check($copy, lossy_after => $before_backup, absent_after => $after_backup);
ok($well, 'without recovery.signal: what was acknowledged before the backup is there, nothing is torn, nothing twice') or diag($text);
cmp_ok($n->{events}, '>', 300, "$n->{events} events");
is($copy->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '0', 'it looks like the original after a crash');
SKIP:
{
	skip 'there is no evento.jump_positions', 2 if !Evento::Contents::has($copy, 'postgres', 'evento.jump_positions');
	$copy->safe_psql('postgres', q{SELECT evento.jump_positions()});
	$told = told();
	$first = $copy->safe_psql('postgres', q{SELECT evento.append('new', 'T', '1') AS v \gset
SELECT first FROM evento.last_append()});
	cmp_ok($first, '>', $told, 'told by jump_positions(), its positions go on behind what readers of the original have seen');
	is($copy->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '1', 'and the jump is on record');
}
goes_on($copy, 'without_recovery_signal');
$copy->stop;

$n = $ledger->survived('the original', lossless => 1);
cmp_ok($n->{acknowledged}, '>=', 900, "$n->{acknowledged} operations were acknowledged");
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '0', 'which has not jumped');
$node->stop;
done_testing();
