# Recovery to a point in time, in the middle of full load, by each kind of
# target: all that was acknowledged before it is there, nothing that began
# after it, nothing torn; versions are dense, positions jump, and that is on record.
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
my $has_consumers = Evento::Contents::has($node, 'postgres', 'evento.consumer_claim');
$node->safe_psql('postgres', q{SELECT * FROM evento.consumer_claim('behind', '1 hour') a, evento.consumer_claim('ahead', '1 hour') b}) if $has_consumers;
$node->backup('backup');
$ledger->write(clients => 8, streams => 20, batch => 1, positions => 1);
$ledger->write(clients => 4, streams => 20, positions => 1);
$ledger->read($node, $_) for qw(read_all view wait);

# Moments, each with the latest time of what has to be there and the earliest of
# what must not.
my @targets;

sub target
{
	my ($kind, $sql) = @_;
	$ledger->acknowledged(200);
	my $before = $ledger->now;
	my $value = $node->safe_psql('postgres', $sql);
	push @targets, { kind => $kind, value => (split /\n/, $value)[-1], lossy_after => $before, absent_after => $ledger->now };
	return;
}

target('lsn', 'SELECT pg_current_wal_insert_lsn()');
target('time', 'SELECT clock_timestamp()');
target('xid', q{BEGIN; SELECT evento.append('target', 'T', '1'); SELECT pg_current_xact_id(); COMMIT});
target('name', q{SELECT pg_create_restore_point('here') \g /dev/null
SELECT 'here'});
$ledger->acknowledged(200);
my $segment = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
$ledger->acknowledged(50);
$node->poll_query_until('postgres', qq{SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver}) or die 'the segment is not archived';
my $n = $ledger->survived('the original', lossless => 1);
my $told = $node->settle;
$node->stop;

for my $target (@targets)
{
	my $what = "to a $target->{kind}";
	my $restored = bless PostgreSQL::Test::Cluster->new("restored_$target->{kind}"), 'Evento::Cluster';
	$restored->init_from_backup($node, 'backup', has_restoring => 1, standby => 0);
	$restored->append_conf('postgresql.conf', <<"CONF");
archive_mode = off
recovery_target_$target->{kind} = '$target->{value}'
recovery_target_action = promote
recovery_target_inclusive = @{[ $target->{kind} eq 'lsn' ? 'off' : 'on' ]}
CONF
	$restored->start;
	$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'does not end recovery';
	my $last = $restored->safe_psql('postgres', 'SELECT max(position) FROM evento._events');
	my ($well, $found, $text) = $ledger->check($restored, lossy_after => $target->{lossy_after}, absent_after => $target->{absent_after});
	ok($well, "$what: all that was acknowledged before is there, nothing from later, nothing torn, nothing twice") or diag($text);
	cmp_ok($found->{lost}, '>', 0, "$what: $found->{lost} of $found->{acknowledged} operations came later");
	is($restored->safe_psql('postgres', q{SELECT count(*) FROM evento.read_stream('target')}), $target->{kind} =~ /xid|name/ ? '1' : '0', "$what: the transaction of the target itself");

	# Checkpoints of before go on with what is new.
	if ($has_consumers)
	{
		$restored->safe_psql('postgres', "SELECT evento.consumer_reset('ahead', $told)");
		# The worker sees to it that they jump, or the next append.
		$restored->poll_query_until('postgres', 'SELECT count(*) = 1 FROM evento._jumps') or die 'no jump';
		my $doctor = $restored->safe_psql('postgres', 'SELECT severity, subject, finding FROM evento.doctor()');
		like($doctor, qr/^info\|positions\|On .* positions jumped from $last to \d+: another timeline: a promotion or a recovery to a point in time\.$/m, "$what: doctor knows of the jump");
		like($doctor, qr/^error\|consumer ahead\|Its checkpoint $told lies among positions that were left out/m, "$what: and whose checkpoint lies among what is lost");
		unlike($doctor, qr/^(?:error|warning)\|[^\n]*\bbehind\b/m, "$what: not one that lies before it");
		like($restored->safe_psql('postgres', 'SELECT c::text FROM evento.consumers c'), qr/ahead/, "$what: consumers are there");
	}
	my $first = $restored->safe_psql('postgres', q{SELECT evento.append('target', 'After', '1') AS v \gset
SELECT first FROM evento.last_append()});
	cmp_ok($first, '>', $told, "$what: positions go on behind all that readers have seen");
	is($restored->safe_psql('postgres', 'SELECT last_position, next_position > last_position + 1000000000 FROM evento._jumps'), "$last|t", "$what: the jump is on record");
	$restored->settle;
	is($restored->safe_psql('postgres', "SELECT string_agg(type, ' ') FROM evento.read_all($told)"), 'After', "$what: a reader that was ahead goes on with what is new");
	$restored->log_is_sound($what);
	$restored->stop;
}
done_testing();
