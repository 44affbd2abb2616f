# Streams as a whole across crashes, standbys, dumps and the upgrade: what was
# ended stays so, what was erased stays away, and metadata and the record of
# erasures are kept.
use strict;
use warnings;

use Evento::Cluster;
use File::Copy ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = Evento::Cluster->started('main', conf => "wal_writer_delay = 10s\nautovacuum = off\n");
my @state = (
	q{SELECT string_agg(concat_ws(' ', stream, version, deleted_at, tombstone, metadata, metadata_revision), E'\n' ORDER BY stream) FROM evento.streams},
	q{SELECT string_agg(e::text, E'\n' ORDER BY erased_at) FROM evento.erasures e},
	q{SELECT string_agg(concat_ws(' ', position, stream, version, type, COALESCE(data::text, 'erased')), E'\n' ORDER BY position) FROM evento.read_all(0, NULL)},
	q{SELECT evento.stream_metadata('noted')});

sub state_of_streams { return join "\n--\n", map { $_[0]->safe_psql($_[1] // 'postgres', $_) } @state }

# What must hold wherever these streams have come.
sub refuses
{
	my ($server, $what, $db) = @_;
	for my $stream ('ended', 'hot', 'never', 'own')
	{
		is($server->state_of(qq{SELECT evento.append('$stream', 'T', '1')}, $db), 'V0003', "$what: no append to $stream");
	}
	is($server->safe_psql($db // 'postgres', q{SELECT count(*) FROM evento.read_all(0, NULL) WHERE stream IN ('ended', 'hot', 'never', 'own', 'gone')}), '0', "$what: nothing of them is read");
	return;
}

# ---- crashes: a session with asynchronous commit has its word kept all the same ----

$node->safe_psql('postgres', q{SELECT evento.append(s, 'T', to_json(s || n), '{"m": 1}') FROM unnest(ARRAY['ended', 'hot', 'gone', 'erased', 'kept']) s, generate_series(1, 5) n; SELECT evento.save_snapshot('erased', 3, '1')});
# One session appends to it all the time, so that its head is cached; another ends it.
my $writer = $node->background_psql('postgres', on_error_stop => 0);
$writer->query_safe(q{SELECT evento.append('hot', 'T', '1') FROM generate_series(1, 20)});
my $number = $node->safe_psql('postgres', <<'SQL');
SET synchronous_commit = off;
SELECT evento.tombstone_stream('ended') AS x, evento.tombstone_stream('never') AS y, evento.tombstone_stream('hot', 25) AS z \gset
BEGIN;
SELECT evento.append('own', 'T', '1') AS x, evento.tombstone_stream('own') AS y \gset
COMMIT;
SELECT evento.delete_stream('gone') AS x, evento.set_stream_metadata('noted', '{"a": 1.10}') AS y, evento.set_stream_metadata('kept', '1') AS z \gset
SELECT evento.erase_stream('erased', 'asked by letter');
SQL
is($number, '5', 'erased');
refuses($node, 'before the crash');
my ($out, $result) = $writer->query(q{SELECT evento.append('hot', 'T', '1')});
like($writer->{stderr}, qr/was deleted for good/, 'the session that appended to it is refused, too');
eval { $writer->quit };
$node->settle;
my $before = state_of_streams($node);
$node->kill9;
for (1 .. 300)
{
	last if $node->start(fail_ok => 1);
	$node->{_pid} = undef;
	sleep 0.1;
}
refuses($node, 'after kill -9');
$node->settle;
is(state_of_streams($node), $before, 'after kill -9: as it was acknowledged');
is($node->safe_psql('postgres', q{SELECT count(data) + count(metadata) FROM evento.read_stream('erased')}), '0', 'after kill -9: erased');
is($node->safe_psql('postgres', q{SELECT evento.append('gone', 'T', '6', expected => 5)}), '6', 'after kill -9: what was deleted goes on');
$node->safe_psql('postgres', q{SELECT evento.delete_stream('gone')});
$node->log_is_sound('after kill -9');

# A crash in the middle of an erasure erases nothing.
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe(q{BEGIN; SELECT evento.erase_stream('kept', 'cut off'); SELECT evento.tombstone_stream('kept'); SELECT pg_switch_wal()});
$node->stop('immediate');
eval { $session->quit };
$node->start;
is($node->safe_psql('postgres', q{SELECT count(data) FROM evento.read_stream('kept')}), '5', 'an erasure that a crash cut off has erased nothing');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.erasures}), '1', 'and is not on record');
is($node->safe_psql('postgres', q{SELECT evento.append('kept', 'T', '6')}), '6', 'nor is the stream ended');

# ---- a standby ----

my $standby = $node->standby('standby');
$node->safe_psql('postgres', q{SELECT evento.append('late', 'T', '"secret"', '1'), evento.append('later', 'T', '1')});
$node->safe_psql('postgres', q{SELECT evento.erase_stream('late', 'asked by letter'), evento.tombstone_stream('later')});
$node->followed_by($standby);
is(state_of_streams($standby), state_of_streams($node), 'a standby shows the same');
for my $write (q{SELECT evento.tombstone_stream('kept')}, q{SELECT evento.erase_stream('kept', 'r')}, q{SELECT evento.set_stream_metadata('kept', '1')}, q{SELECT evento.delete_stream('kept')})
{
	is($standby->state_of($write), 'V0005', "refused there: $write");
}

# ---- a dump ----

$before = state_of_streams($node);
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
my $other = Evento::Cluster->make('other');
$other->start;
$other->safe_psql('postgres', 'CREATE DATABASE restored TEMPLATE template0');
$other->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $other->connstr('restored'), '-f', $dump ], 'restored');
$other->settle('restored');
is(state_of_streams($other, 'restored'), $before, 'a restored dump has all of it');
refuses($other, 'restored', 'restored');
# Transaction ids start again in a new cluster: numbers made of them must not meet restored ones.
my $least = $other->safe_psql('restored', 'SELECT min(stream_no) FROM evento._streams');
cmp_ok($least, '<', 0, 'a stream without events has a number of its own');
$other->safe_psql('restored', q{UPDATE evento._streams SET stream_no = -(((pg_current_xact_id()::text::bigint + 1) << 20) | 0) WHERE name = 'never'});
is($other->safe_psql('restored', q{SELECT evento.tombstone_stream('never-2')}), '0', 'and the next one another');
is($other->safe_psql('restored', 'SELECT count(DISTINCT stream_no) FROM evento._streams WHERE stream_no < 0'), '2', '…');
is($other->state_of('DELETE FROM evento._erasures', 'restored'), '55000', 'the record of erasures is kept there as well');
$other->log_is_sound('restored', 'restored');
$other->stop;

# ---- promotion ----

$node->stop;
$standby->promote;
is($standby->safe_psql('postgres', q{SELECT evento.append('kept', 'T', '7', expected => 6)}), '7', 'a promoted standby appends');
refuses($standby, 'promoted');
is($standby->safe_psql('postgres', q{SELECT evento.erase_stream('kept', 'asked by letter')}), '7', 'and erases');
$standby->stop;
done_testing();
