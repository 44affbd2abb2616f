# The log survives pg_dump: positions, versions, snapshots, deletions; the
# restored one goes on behind a jump, and everything restored can be read.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->started('main');
$node->safe_psql('postgres', q{SELECT evento.append('s-' || n % 50, 'T', to_json(repeat('x', n % 400)), to_json(n)) FROM generate_series(1, 3000) n});
$node->safe_psql('postgres', q{SELECT evento.append(NULL, 'Loose', '1', kind => 'service'), evento.append('big', 'T', to_json(repeat('y', 500000)))});
$node->safe_psql('postgres', q{SELECT evento.save_snapshot('s-1', 3, '{"at":  3}', 'x.S')});
$node->safe_psql('postgres', q{SELECT evento.delete_stream('s-2'); SELECT evento.delete_stream('s-3'); SELECT evento.append('s-3', 'T', '1')});
$node->safe_psql('postgres', q{SELECT evento._proxy_register('p', 'a', 'b', NULL, 'v'); SELECT evento._class_seen('T', 'com.acme.T')});
$node->settle;
my @same = ('SELECT md5(string_agg(e::text, E\'\n\' ORDER BY position)) FROM evento.events e', 'SELECT md5(string_agg(e::text, E\'\n\' ORDER BY position)) FROM evento.read_all(0, NULL) e',
	'SELECT md5(string_agg(e::text, E\'\n\' ORDER BY stream)) FROM evento.streams e', q{SELECT md5(string_agg(e::text, E'\n')) FROM evento.load_stream('s-1') e}, q{SELECT evento._class_of('T')});
my @original = map { $node->safe_psql('postgres', $_) } @same;
my $last = $node->safe_psql('postgres', 'SELECT max(position) FROM evento._events');
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-Fd', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'pg_dump', '-f', "$dump.sql", $node->connstr('postgres') ], 'pg_dump as SQL');

my $other = Evento::Cluster->make('other');
$other->start;
for my $case ([ $node, 'SQL, the same server' ], [ $node, 'pg_restore -j 2, the same server' ], [ $other, 'SQL, another server' ], [ $other, 'pg_restore -j 2, another server' ])
{
	my ($server, $what) = @$case;
	my $db = 'restored_' . ($what =~ /^SQL/ ? 'sql' : 'parallel');
	$server->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0");
	$server->command_ok($what =~ /^SQL/ ? [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $server->connstr($db), '-f', "$dump.sql" ] : [ 'pg_restore', '-e', '-j', '2', '-d', $server->connstr($db), $dump ], "$what: restored");
	cmp_ok($server->settle($db), '>=', $last, "$what: the watermark covers it");
	is($server->safe_psql($db, $same[$_]), $original[$_], "$what: the same: $same[$_]") for 0 .. $#same;
	is($server->safe_psql($db, 'SELECT (SELECT count(*) FROM evento._secret) + (SELECT count(*) FROM evento._proxies)'), '0', "$what: without secret and leases");

	my $next = $server->safe_psql($db, q{SELECT evento.append('s-1', 'T', '1', expected => 60) AS v \gset
SELECT last FROM evento.last_append()});
	cmp_ok($next, '>=', $last + 100000, "$what: it goes on behind a jump");
	is($server->safe_psql($db, 'SELECT last_position FROM evento._jumps'), $last, "$what: which is on record");
	cmp_ok($server->settle($db), '>=', $next, "$what: the watermark goes on");
	is($server->safe_psql($db, 'SELECT max(position) FROM evento.events'), $next, "$what: and shows it");
	$server->log_is_sound($what, $db);
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '0', 'the original has not jumped');
$other->stop;
$node->stop;
done_testing();
