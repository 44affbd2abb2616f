# Evento::Contents
#   What a log holds that has to survive a dump, a restore and an upgrade, as
#   fingerprints that can be compared; and a log that has some of everything.
package Evento::Contents;

use strict;
use warnings;

use PostgreSQL::Test::Utils ();
use Test::More;

# Fills a database with some of everything, of whatever version its schema is.
sub fill
{
	my ($node, $db, $n) = @_;
	$n //= 3000;
	# Which a log takes before anything is appended.
	fill_import($node, $db) if has($node, $db, 'evento.import_message_db') && $node->safe_psql($db, 'SELECT count(*) FROM evento._events') eq '0';
	$node->safe_psql($db, "SELECT evento.append('s-' || n % 50, 'T' || n % 3, to_json(repeat('x', n % 400)), to_json(n), id => md5('fill' || n)::uuid, context => 'c' || n % 2) FROM generate_series(1, $n) n");
	$node->safe_psql($db, q{SELECT evento.append(NULL, 'Loose', '1', kind => 'service'), evento.append('big', 'T', to_json(repeat('y', 500000)))});
	$node->safe_psql($db, q{SELECT evento.append('odd', 'T', '{"b":  1.10, "a": "\u0000", "a": 2}', '[ ]', class => 'com.acme.T')});
	# Positions that nobody has, and those of events that are rolled back with their stream.
	$node->safe_psql($db, q{BEGIN; SELECT evento.append('never', 'T', '1'); ROLLBACK});
	$node->safe_psql($db, q{SELECT evento.save_snapshot('s-1', 3, '{"at":  3}', 'x.S'), evento.save_snapshot('s-2', 1, '1')});
	$node->safe_psql($db, q{SELECT evento.delete_stream('s-2'); SELECT evento.delete_stream('s-3'); SELECT evento.append('s-3', 'T', '1')});
	$node->safe_psql($db, q{SELECT evento._proxy_register('p', 'a', 'b', NULL, 'v'); SELECT evento._class_seen('T', 'com.acme.T')});
	$node->safe_psql($db, q{SELECT evento._session_sync((SELECT max(proxy_id) FROM evento.proxies), '{}', '{0}', '{orders}', '{orders-1}', '{3}', '{0}', '{t}', '{Create}', '{1}')});
	$node->safe_psql($db, q{SELECT evento._discover('orders', 3, '{"description": "Orders", "handlers": [{"componentType": "Aggregate", "componentName": "A", "handlerType": "H", "handledPayload": "Create"}], "payloadInfo": {"Create": {"domain": "sales", "line": 5}}}')});
	$node->safe_psql($db, q{SELECT count(*) FROM evento._lock_take((SELECT max(proxy_id) FROM evento.proxies), '{l}', '{30000}')});
	# What later versions have.
	$node->safe_psql($db, q{SELECT evento.add_access_rule('10.0.0.0/8', 'orders*', 'token'), evento.create_bundle_token('orders', may_send => '{Create}')}) if has($node, $db, 'evento.add_access_rule');
	$node->safe_psql($db, q{SELECT evento.tombstone_stream('s-4')}) if has($node, $db, 'evento.tombstone_stream');
	$node->safe_psql($db, q{SELECT evento.erase_stream('s-5', 'asked for')}) if has($node, $db, 'evento.erase_stream');
	$node->safe_psql($db, q{UPDATE evento._streams SET tombstone = true, deleted_version = 60, deleted_at = now() WHERE name = 's-6'});
	fill_consumers($node, $db) if has($node, $db, 'evento.consumer_claim');
	$node->safe_psql($db, q{SELECT evento.set_stream_metadata('s-7', '{"owner":  "ann"}'), evento.set_stream_metadata('s-8', '1'), evento.set_stream_metadata('s-8', '[2]')}) if has($node, $db, 'evento.set_stream_metadata');
	$node->settle($db);
	return;
}

# Consumers at different places: one in the middle, one with a filter and no owner any more, one that has only begun.
sub fill_consumers
{
	my ($node, $db) = @_;
	$node->settle($db);
	$node->safe_psql($db, q{SELECT epoch AS e FROM evento.consumer_claim('half', '1 hour') \gset
SELECT evento.consumer_ack('half', 1000, :e), evento.consumer_ack('half', 1500, :e);
SELECT epoch AS e FROM evento.consumer_claim('some', '1 hour', context => 'c1', types => '{T1,T2}', categories => '{s}') \gset
SELECT evento.consumer_ack('some', 700, :e);
SELECT evento.consumer_release('some', :e);
SELECT count(*) FROM evento.consumer_claim('new', '1 hour')});
	return;
}

# What comes from another store, and how far that has come.
sub fill_import
{
	my ($node, $db) = @_;
	$node->safe_psql($db, q{CREATE SCHEMA other_store;
CREATE TABLE other_store.messages (global_position bigint, position bigint, time timestamp, stream_name text, type text, data jsonb, metadata jsonb, id uuid);
INSERT INTO other_store.messages SELECT 1 + n, n / 3, '2024-02-03 04:05:06', 'account-' || n % 3, 'Opened', '{"a": 1}', NULL, md5('import' || n)::uuid FROM generate_series(0, 29) n;
CALL evento.import_message_db('other_store.messages');
DROP SCHEMA other_store CASCADE});
	return;
}

# Whether there is a function of that name.
sub has
{
	my ($node, $db, $name) = @_;
	return $node->safe_psql($db, "SELECT count(*) > 0 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname || '.' || p.proname = '$name'") eq 't';
}

# Tables whose rows a dump does not carry, by intent.
our @not_dumped = qw(_asks _bundle_consumers _executors _handler_statistics _invocation_statistics _locks _lost_reads _proxies _secret _sessions _telemetry_sources _watermark);

# What is dumped and has no row in a log that fill has filled.
sub empty
{
	my ($contents) = @_;
	return grep { $contents->{$_} =~ /^0 rows/ } sort keys %$contents;
}

# Tables that a server writes for itself once it goes on.
my %of_the_server = map { $_ => 1 } qw(_identity _jumps);

# Fingerprints of all that must be kept: name to text.  Needs no object by name
# but the views: a table that is dumped is looked at because it is.
sub of
{
	my ($node, $db) = @_;
	my %contents;
	my @tables = split /\n/, $node->safe_psql($db, q{SELECT c.relname || ' ' || u.w FROM pg_extension e, unnest(e.extconfig, e.extcondition) u (c, w) JOIN pg_class c ON c.oid = u.c WHERE e.extname = 'evento' AND c.relkind = 'r'});
	for my $table (@tables)
	{
		my ($name, $where) = split / /, $table, 2;
		next if $of_the_server{$name};
		$contents{$name} = $node->safe_psql($db, "SELECT count(*) || ' rows ' || COALESCE(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '') FROM (SELECT * FROM evento.$name $where) t");
	}
	my %views = (
		events => 'SELECT e.* FROM evento.events e ORDER BY position',
		read_all => 'SELECT e.* FROM evento.read_all(0, NULL) e ORDER BY position',
		streams => 'SELECT e.* FROM evento.streams e ORDER BY stream',
		load_stream => q{SELECT e.* FROM evento.load_stream('s-1') e},
		class_of => q{SELECT evento._class_of('T')});
	# Of a consumer all but what follows from the clock and from later events.
	$views{consumers} = 'SELECT consumer, position, epoch, owner, lease_until, context, types, categories, created_at, claimed_at, acked_at, owner_pid, application FROM evento.consumers ORDER BY consumer' if has($node, $db, 'evento.consumer_claim');
	$views{access_rules} = q{SELECT * FROM evento.access_rules} if has($node, $db, 'evento.add_access_rule');
	$views{imports} = 'SELECT * FROM evento.imports ORDER BY source' if has($node, $db, 'evento.import_message_db');
	$views{stream_metadata} = q{SELECT s, evento.stream_metadata(s)::text FROM unnest('{s-7,s-8,s-9}'::text[]) s} if has($node, $db, 'evento.set_stream_metadata');
	$contents{"view $_"} = $node->safe_psql($db, "SELECT count(*) || ' rows ' || COALESCE(md5(string_agg(t::text, E'\\n')), '') FROM ($views{$_}) t") for keys %views;
	return \%contents;
}

# Compares two of these; one test.
sub same
{
	my ($got, $wanted, $what) = @_;
	return is_deeply($got, $wanted, $what);
}

# Tables of the extension whose rows a dump leaves out.
sub not_dumped
{
	my ($node, $db) = @_;
	return split /\n/, $node->safe_psql($db, q{SELECT c.relname FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass
		JOIN pg_class c ON c.oid = d.objid WHERE e.extname = 'evento' AND c.relkind = 'r' AND c.oid <> ALL (COALESCE(e.extconfig, '{}')) ORDER BY 1});
}

# What holds after a restore: the next position lies above every one before, the
# jump is on record, versions go on, all of it can be read.
sub goes_on
{
	my ($node, $db, $last, $what, %opt) = @_;
	my $version = $node->safe_psql($db, q{SELECT COALESCE((SELECT version FROM evento.streams WHERE stream = 's-1'), 0)});
	my $jumps = $node->safe_psql($db, 'SELECT count(*) FROM evento._jumps');
	my ($got, $next) = split /\n/, $node->safe_psql($db, "SELECT evento.append('s-1', 'After', '1', expected => $version);\nSELECT last FROM evento.last_append()");
	is($got, $version + 1, "$what: versions go on");
	cmp_ok($next, '>=', $last + ($opt{jump} // 1_000_000_000), "$what: positions go on behind a jump");
	is($node->safe_psql($db, "SELECT last_position || ' ' || (next_position <= $next) FROM evento._jumps ORDER BY next_position DESC LIMIT 1"), "$last true", "$what: which is on record");
	cmp_ok($node->settle($db), '>=', $next, "$what: the watermark goes on");
	is($node->safe_psql($db, 'SELECT max(position) FROM evento.events'), $next, "$what: and shows it");
	is($node->safe_psql($db, "SELECT string_agg(type, ' ') FROM evento.read_all($last, 10)"), 'After', "$what: a reader with a checkpoint from before goes on with it");
	return $next;
}

1;
