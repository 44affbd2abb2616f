# A database that still has the first version's objects under the new library:
# all that it had for streams goes on, and what is new comes with the update.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $sharedir = `$ENV{PG_CONFIG} --sharedir`;
chomp $sharedir;
plan skip_all => 'the first version is not there to be installed: test/lib/pgtree makes a PostgreSQL that has it' if !-e "$sharedir/extension/evento--0.1.0.sql";

my $node = Evento::Cluster->make('main');
$node->start;
$node->safe_psql('postgres', q{CREATE EXTENSION evento VERSION '0.1.0'});

# ---- the first version's objects ----

sub gives
{
	my ($sql, $expected, $what) = @_;
	return is($node->safe_psql('postgres', $sql), $expected, $what);
}
gives(q{SELECT evento.append('s-1', 'T', to_json(n), '{"u": 1}') FROM generate_series(1, 3) n}, "1\n2\n3", 'append');
gives(q{SELECT evento.append('s-2', 'T', to_json(repeat('x', 5000)))}, '1', '…');
gives(q{SELECT evento.save_snapshot('s-1', 2, '"two"')}, 't', 'save_snapshot');
gives(q{SELECT evento.save_snapshot('s-1', 2, '"two again"')}, 'f', 'of the same version: the first stays');
gives(q{SELECT string_agg(part || version, ' ') FROM evento.load_stream('s-1')}, 'head3 snapshot2 event3', 'load_stream');
gives(q{SELECT evento.delete_stream('s-2', 1)}, '1', 'delete_stream');
gives(q{SELECT evento.append('s-2', 'T', '2', expected => 0)}, '2', 'and the stream goes on');
gives(q{BEGIN; SELECT evento.append('s-3', 'T', '1'), evento.delete_stream('s-3'); COMMIT; SELECT evento.append('s-3', 'T', '2', expected => 0)}, "1|1\n2", 'a deletion sees what its transaction appended');
gives(q{BEGIN; SELECT evento.append('s-4', 'T', '1'); SAVEPOINT x; SELECT evento.delete_stream('s-4'); ROLLBACK TO x; COMMIT; SELECT version FROM evento.read_stream('s-4')}, "1\n1\n1", 'and a savepoint undoes it');
gives(q{SELECT evento.drop_snapshots('s-1')}, 't', 'drop_snapshots');
gives(q{SELECT stream || version || (deleted_at IS NOT NULL) FROM evento.streams ORDER BY stream}, "s-13false\ns-22false\ns-32false\ns-41false", 'streams');
is($node->state_of(q{SELECT evento.tombstone_stream('s-1')}), '42883', 'what is new is not there yet');
$node->settle;
my $log = q{SELECT md5(string_agg(concat_ws('|', position, stream, version, id, type, data, metadata, recorded_at), E'\n' ORDER BY position)) FROM evento.events};
my $before = $node->safe_psql('postgres', $log);

# ---- the update, with a session in it that has appended ----

my $session = $node->background_psql('postgres');
$session->query_safe(q{SELECT evento.append('s-5', 'T', '1')});
$node->safe_psql('postgres', 'ALTER EXTENSION evento UPDATE');
gives($log =~ s/FROM evento.events/FROM evento.events WHERE stream <> 's-5'/r, $before, 'the update leaves the log as it was');
is($session->query_safe(q{BEGIN; SELECT evento.append('s-5', 'T', '2'); SELECT evento.delete_stream('s-5', 2); COMMIT; SELECT evento.append('s-5', 'T', '3')}), "2\n2\n3", 'a session of before goes on');
$session->quit;
gives(q{SELECT evento.set_stream_metadata('s-1', '{"a": 1}', 0)}, '1', 'metadata');
gives(q{SELECT metadata->>'a' FROM evento.streams WHERE stream = 's-1'}, '1', 'in streams');
gives(q{SELECT evento.erase_stream('s-1', 'asked by letter')}, '3', 'erase_stream');
gives(q{SELECT count(*), count(data), count(metadata) FROM evento.read_stream('s-1')}, '3|0|0', '…');
gives(q{SELECT evento.tombstone_stream('s-2')}, '2', 'tombstone_stream');
is($node->state_of(q{SELECT evento.append('s-2', 'T', '1')}), 'V0003', '…');

# ---- the same objects as a new database has ----

$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION evento');
my %same = (
	'columns of tables and views' => q{SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation::regcollation, a.attnum FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'evento'::regnamespace AND c.relname IN ('_events', '_streams', '_snapshots', '_stream_metadata', '_erasures', 'streams', 'erasures') AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 6},
	'comments' => q{SELECT p.oid::regprocedure, md5(obj_description(p.oid, 'pg_proc')), p.proacl FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND p.proname IN ('delete_stream', 'save_snapshot', 'tombstone_stream', 'erase_stream', 'set_stream_metadata', 'stream_metadata', '_erasures_kept') ORDER BY 1::text},
	'views' => q{SELECT c.relname, pg_get_viewdef(c.oid), md5(obj_description(c.oid, 'pg_class')), c.relacl FROM pg_class c WHERE c.oid IN ('evento.streams'::regclass, 'evento.erasures'::regclass) ORDER BY 1},
	'triggers and indexes' => q{SELECT tgrelid::regclass::text, tgname::text, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal UNION ALL SELECT indrelid::regclass::text, indexrelid::regclass::text, CASE WHEN indisreplident THEN 'i' ELSE '-' END FROM pg_index WHERE indrelid IN ('evento._events'::regclass, 'evento._stream_metadata'::regclass, 'evento._erasures'::regclass) ORDER BY 1, 2},
	'what a dump takes' => q{SELECT string_agg(t::regclass::text, ' ' ORDER BY t::regclass::text) FROM pg_extension, unnest(extconfig) t WHERE extname = 'evento' AND t::regclass::text ~ 'stream|eras'});
is($node->safe_psql('postgres', $same{$_}), $node->safe_psql('fresh', $same{$_}), "the update has made the same: $_") for sort keys %same;
$node->log_is_sound('updated');
$node->stop;
done_testing();
