# A server that does not preload the extension: what needs shared memory says
# so, the rest works.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->make('main');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION evento');
$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '1', id => '00000000-0000-0000-0000-000000000001')});
$node->settle;
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;

for my $call (q{SELECT evento.append('s-1', 'T', '2')}, q{SELECT evento.append_events('s-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[])},
	q{SELECT * FROM evento.append_batch('\x00')}, q{SELECT evento.delete_stream('s-1')}, q{SELECT evento.save_snapshot('s-1', 1, '1')}, q{SELECT evento.drop_snapshots('s-1')},
	'SELECT * FROM evento.read_all()', 'SELECT * FROM evento.scan_all()', 'SELECT evento.watermark()', 'CALL evento.wait(NULL)', 'SELECT * FROM evento.appending', 'SELECT * FROM evento.last_append()')
{
	my ($state, $text) = $node->state_of($call);
	is($state, 'V0004', "refused: $call");
	like($text, qr/HINT:.*shared_preload_libraries/, 'with a hint');
}
is($node->safe_psql('postgres', q{SELECT data::text FROM evento.read_stream('s-1')}), '1', 'a stream can be read');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.load_stream('s-1', '00000000-0000-0000-0000-000000000001')}), '3', 'and loaded');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento.events'), '1', 'and events, up to where it was');
is($node->safe_psql('postgres', 'BEGIN; SELECT 1; COMMIT'), '1', 'transactions go on');
$node->safe_psql('postgres', 'DROP EXTENSION evento');
$node->safe_psql('postgres', 'CREATE EXTENSION evento');
is($node->state_of(q{SELECT evento.append('s-1', 'T', '2')}), 'V0004', 'made there, the same');
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "'evento'");
$node->restart;
is($node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '2')}), '1', 'preloaded, it appends');
is($node->settle, '1', 'and shows');
$node->stop;
done_testing();
