# Reads in every isolation level while streams change under them; cancelled
# reads; huge arguments.  A session keeps what it knows of streams: here it is
# made wrong in every way.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->started('main');
$node->safe_psql('postgres', q{SELECT evento.append('s-' || n % 10, 'T', to_json(n)) FROM generate_series(1, 100) n});
$node->settle;

# How many events of each stream that is not whole, as read_all sees them.
my $seen = q{SELECT COALESCE(string_agg(stream || '=' || n, ' ' ORDER BY stream), '') FROM (SELECT stream, count(*) AS n FROM evento.read_all(0, NULL) GROUP BY stream) x WHERE n <> 10};
my $missing = q{SELECT COALESCE(string_agg(s, ' ' ORDER BY s), '') FROM (SELECT 's-' || n AS s FROM generate_series(0, 9) n EXCEPT SELECT DISTINCT stream FROM evento.read_all(0, NULL)) x};

my $reader = $node->background_psql('postgres');
is($reader->query_safe($missing), '', 'all streams are there');

# ---- a deletion by another ----

$node->safe_psql('postgres', q{SELECT evento.delete_stream('s-1')});
is($reader->query_safe($missing), 's-1', 'a deletion by another session is seen at once');
$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '101')});
$node->settle;
is($reader->query_safe($seen), 's-1=1', 'and that the stream goes on');

# ---- by itself, rolled back ----

$reader->query_safe(q{BEGIN; SELECT evento.delete_stream('s-2')});
is($reader->query_safe($missing), 's-2', 'one of its own, not committed');
$reader->query_safe('ROLLBACK');
is($reader->query_safe($missing), '', 'and rolled back');
$reader->query_safe(q{BEGIN; SAVEPOINT a; SELECT evento.delete_stream('s-2')});
is($reader->query_safe($missing), 's-2', 'in a savepoint');
$reader->query_safe('ROLLBACK TO a');
is($reader->query_safe($missing), '', 'that is rolled back');
$reader->query_safe('COMMIT');

# ---- one that is open, then committed; then rolled back ----

my $other = $node->background_psql('postgres');
for my $end ('COMMIT', 'ROLLBACK')
{
	my $stream = $end eq 'COMMIT' ? 's-3' : 's-4';
	$other->query_safe("BEGIN; SELECT evento.delete_stream('$stream')");
	is($reader->query_safe($missing), $end eq 'COMMIT' ? '' : 's-3', "$end: not seen before");
	is($reader->query_safe($missing), $end eq 'COMMIT' ? '' : 's-3', "$end: nor when it has looked at the row before");
	$other->query_safe($end);
	is($reader->query_safe($missing), 's-3', "$end: seen as it ended");
}

# ---- a transaction that keeps its snapshot ----

$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($reader->query_safe($missing), 's-3', 'REPEATABLE READ: its snapshot');
$node->safe_psql('postgres', q{SELECT evento.delete_stream('s-5')});
is($reader->query_safe($missing), 's-3', 'is kept');
is($node->safe_psql('postgres', $missing), 's-3 s-5', 'others see more');
$reader->query_safe('COMMIT');
is($reader->query_safe($missing), 's-3 s-5', 'and so does it then');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM evento.events');
$node->safe_psql('postgres', q{SELECT evento.append('s-6', 'T', '1')});
$node->settle;
is($reader->query_safe(q{SELECT count(*) FROM evento.read_stream('s-6')}), '10', 'read_stream in it');
is($reader->query_safe(q{SELECT count(*) FROM evento.read_all(0, NULL) WHERE stream = 's-6'}), '10', 'read_all in it');
is($reader->query_safe(q{SELECT count(*) - 1 FROM evento.load_stream('s-6')}), '10', 'load_stream in it');
$reader->query_safe('COMMIT');
is($reader->query_safe(q{SELECT count(*) FROM evento.read_stream('s-6')}), '11', 'and behind it');

# ---- rows that are moved and changed by another way ----

$node->safe_psql('postgres', 'VACUUM FULL evento._streams');
is($reader->query_safe($missing), 's-3 s-5', 'VACUUM FULL changes nothing');
$node->safe_psql('postgres', q{ALTER TABLE evento._streams DISABLE TRIGGER ALL; UPDATE evento._streams SET deleted_version = 0; ALTER TABLE evento._streams ENABLE ALWAYS TRIGGER _streams_loaded});
is($reader->query_safe($missing), '', 'an UPDATE that nobody was told of is seen');
$node->safe_psql('postgres', 'UPDATE evento._streams SET deleted_version = 0; VACUUM evento._streams; UPDATE evento._streams SET deleted_version = 0; VACUUM FREEZE evento._streams');
is($reader->query_safe($missing), '', 'rows that were moved are found');
$node->safe_psql('postgres', 'DROP EXTENSION evento; CREATE EXTENSION evento');
$node->safe_psql('postgres', q{SELECT evento.append('other-' || n % 10, 'T', to_json(n)) FROM generate_series(1, 100) n});
$node->settle;
is($reader->query_safe(q{SELECT count(*) FILTER (WHERE stream LIKE 'other-%'), count(*) FILTER (WHERE category = 'other') FROM evento.read_all(0, NULL)}), '100|100', 'another log with the same numbers has its own names');

# ---- more streams than a session keeps, long names ----

$node->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 0 .. 39 LOOP PERFORM evento.append(rpad('many-' || n, 20 + n % 480, 'x'), 'T', '1') FROM generate_series(i * 1000 + 1, i * 1000 + 1000) n; COMMIT; END LOOP; END $$});
$node->settle;
is($reader->query_safe(q{SELECT count(*) FROM evento.read_all(0, NULL) r JOIN evento._events e USING (position) JOIN evento._streams s USING (stream_no) WHERE r.stream = s.name AND r.category = split_part(s.name, '-', 1)}), '40100', "round $_: every event has its stream's name") for 1, 2;

# ---- a standby ----

my $standby = $node->standby('standby');
my $there = $standby->background_psql('postgres');
my $count = q{SELECT count(*) FROM evento.read_all(0, 200) WHERE stream = 'other-1'};
is($there->query_safe($count), '10', 'on a standby');
$node->safe_psql('postgres', q{SELECT evento.delete_stream('other-1')});
$node->wait_for_catchup($standby);
is($there->query_safe($count), '0', 'a deletion is seen when it is replayed');
$there->quit;
$standby->stop;

# ---- cancelled, and huge arguments ----

is($node->state_of("SET statement_timeout = '1ms'; SELECT count(*) FROM generate_series(1, 1000), LATERAL evento.read_all(0, NULL, types => '{Nothing}')"), '57014', 'a read is cancelled');
is($node->safe_psql('postgres', "SELECT count(*) FROM $_"), '0', $_)
  for 'evento.read_all(9223372036854775807, 9223372036854775807)', q{evento.read_stream('other-2', 9223372036854775807)}, q{evento.read_stream('other-2', 1, 0)}, q{evento.read_all(0, 0)};
is($node->safe_psql('postgres', "SELECT count(*) FROM $_"), '10', $_)
  for q{evento.read_stream('other-2', 9223372036854775807, 9223372036854775807, true)}, q{evento.read_stream('other-2', NULL, NULL, NULL)}, 'evento.read_all(NULL, 10, NULL, NULL, NULL)';
is($node->state_of("SELECT * FROM evento.read_stream('other-2', $_)"), '22023', "from_version $_ is refused") for 0, -9223372036854775807;
$reader->quit;
$other->quit;
$node->stop;
done_testing();
