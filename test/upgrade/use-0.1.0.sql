-- use-0.1.0.sql: everything that version 0.1.0 offered, once, in a database
-- where nobody else appends.  What it prints (use-0.1.0.out) is what the library
-- of 0.1.0 printed: a later library has to do the same over the schema of 0.1.0,
-- and over that which ALTER EXTENSION UPDATE or CREATE EXTENSION makes.
\set VERBOSITY verbose
\set SHOW_CONTEXT never
\ir ../regress/pgtap/helpers.psql
\t on
\pset format unaligned

\echo == append
SELECT evento.append('order-1', 'Placed', '{"b":  1.10, "a": "\u0000"}', '{"m":1}', 0, '00000000-0000-0000-0000-000000000001', 'sales', 'x.Placed');
SELECT evento.append('order-1', 'Placed', '{"b":  1.10, "a": "\u0000"}', '{"m":1}', 0, '00000000-0000-0000-0000-000000000001', 'sales', 'x.Placed');
SELECT evento.append('order-1', 'Paid', '2', expected => 1);
SELECT evento.append('order-1', 'Paid', '3', expected => -4);
SELECT state, CASE WHEN state = 'V0001' THEN detail END FROM pg_temp.catch($$SELECT evento.append('order-1', 'Paid', '2', expected => 1)$$);
SELECT state, CASE WHEN state = 'V0001' THEN detail END FROM pg_temp.catch($$SELECT evento.append('order-1', 'Other', '2', id => '00000000-0000-0000-0000-000000000001')$$);
SELECT state, CASE WHEN state = 'V0001' THEN detail END FROM pg_temp.catch($$SELECT evento.append('', 'Other', '2')$$);
SELECT state, CASE WHEN state = 'V0001' THEN detail END FROM pg_temp.catch($$SELECT evento.append('order-1', 'Other', '2', expected => -1)$$);
SELECT evento.append(NULL, 'Loose', '1', kind => 'service') IS NULL;
SELECT evento.append_events('order-2', ARRAY[ROW('A', '1', '{}', '00000000-0000-0000-0000-000000000011', 'c', 'k.A', 'domain'), ROW('B', '2', NULL, NULL, NULL, NULL, 'service')]::evento.new_event[], 0);
BEGIN;
SELECT evento.append('order-3', 'A', '1');
SAVEPOINT s;
SELECT evento.append('order-3', 'B', '2');
ROLLBACK TO s;
SELECT evento.append('order-3', 'C', '3');
COMMIT;
BEGIN;
SELECT evento.append('order-4', 'A', '1');
ROLLBACK;
SELECT first, last FROM evento.last_append();

\echo == append_batch
SELECT outcome, first_version, last_version, CASE outcome WHEN '00000' THEN detail END FROM evento.append_batch(pg_temp.batch(
  pg_temp.item('b-1', ARRAY[pg_temp.event('A', '1'), pg_temp.event('B', '{"x": 2}', metadata => '{}', class => 'x.B', context => 'c', ms => 1700000000000, telemetry => true)], 0),
  pg_temp.item('b-1', ARRAY[pg_temp.event('A', '1')], 7),
  pg_temp.item(NULL, ARRAY[pg_temp.event('S', '1', '00000000-0000-0000-0000-000000000021', service => true)], since => 0),
  pg_temp.item('b-2', ARRAY[pg_temp.event('A', 'no json')]),
  pg_temp.item('b-3', ARRAY[pg_temp.event('A', '1')], snapshot_class => 'x.S', state => '{"s": 1}')));
SELECT outcome FROM evento.append_batch(pg_temp.batch(pg_temp.item('b-1', ARRAY[pg_temp.event('A', '1')], lock => 'l', fence => 1)));
SELECT (pg_temp.catch($$SELECT * FROM evento.append_batch('\x00')$$)).state;

\echo == streams
SELECT evento.save_snapshot('order-1', 2, '{"at":  2}', 'x.State'), evento.save_snapshot('order-1', 1, '1');
SELECT state, CASE WHEN state = 'V0001' THEN detail END FROM pg_temp.catch($$SELECT evento.save_snapshot('order-1', 9, '1')$$);
SELECT evento.drop_snapshots('b-3'), evento.drop_snapshots('b-3');
SELECT evento.append('gone-' || n, 'T', to_json(n)) FROM generate_series(1, 3) n;
SELECT evento.delete_stream('gone-1'), evento.delete_stream('gone-2', 1);
SELECT state, CASE WHEN state = 'V0001' THEN detail END FROM pg_temp.catch($$SELECT evento.delete_stream('gone-3', 5)$$);
SELECT evento.append('gone-1', 'T', '2', expected => 0);
UPDATE evento._streams SET deleted_version = 1, deleted_at = now(), tombstone = true WHERE name = 'gone-3';
SELECT state, CASE WHEN state = 'V0001' THEN detail END FROM pg_temp.catch($$SELECT evento.append('gone-3', 'T', '2')$$);
CALL evento.wait(NULL);

\echo == reading
SELECT position, stream, version, type, context, kind, data, metadata, class, force_telemetry FROM evento.events ORDER BY position;
SELECT stream, category, version, first_recorded_at <= last_recorded_at, deleted_at IS NOT NULL, tombstone FROM evento.streams ORDER BY stream;
SELECT position, version, type, data FROM evento.read_stream('order-1');
SELECT position, version, type, data FROM evento.read_stream('order-1', 2, 1, true);
SELECT position, stream, version, type FROM evento.read_all(3, 3);
SELECT position, stream, version, type FROM evento.read_all(0, NULL, 's*', '{Placed,Paid}', '{order}');
SELECT scanned, position, stream, version, type, kind FROM evento.scan_all(0, 2, types => '{A}', max_scan => 1000);
SELECT scanned, position FROM evento.scan_all(0, 10, '*', '{Nothing}', NULL, 1000, 1000000);
SELECT part, position, version, id IS NULL, type, data FROM evento.load_stream('order-1', '00000000-0000-0000-0000-000000000001');
SELECT part, version FROM evento.load_stream('order-2', NULL, NULL);
SELECT part, version, data FROM evento.load_stream('order-1', snapshot => false);
SELECT evento.watermark();
CALL evento.wait(1, '10s');
CALL evento.wait(1000, '10ms');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*), max(position) FROM evento.events;
COMMIT;
PREPARE everything AS SELECT count(*) FROM evento.events;
EXECUTE everything;
SELECT count(*) FROM evento.appending;
SELECT count(*) FROM evento._appending();

\echo == the cluster
-- A lease lasts 5 s, in which a slow machine does not come far: what is renewed here is renewed an hour ahead.
CREATE FUNCTION pg_temp.renewed_ahead() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.renewed_at := NEW.renewed_at + interval '1 hour'; RETURN NEW; END$$;
CREATE TRIGGER renewed_ahead BEFORE INSERT OR UPDATE ON evento._proxies FOR EACH ROW WHEN (NEW.renewed_at > clock_timestamp() - interval '4 seconds') EXECUTE FUNCTION pg_temp.renewed_ahead();
-- Numbers of version 0.1.0 began at 1, later ones' do where nobody else can have had them.
SELECT setval(s, 1, false) FROM unnest('{evento._proxies_proxy_id_seq,evento._sessions_seq,evento._tickets}'::regclass[]) s \g /dev/null
SELECT proxy_id, octet_length(secret) FROM evento._proxy_register('one', 'h1:1', 'h1:2', 'h1:3', '0.1');
SELECT proxy_id, octet_length(secret) FROM evento._proxy_register('two', 'h2:1', 'h2:2', NULL, '0.1', NULL);
SELECT evento._proxy_renew(1, '{"requests": 7}'), evento._proxy_renew(77, '{}');
SELECT * FROM evento._session_sync(1, '{}', '{0,0}', '{orders,stock}', '{orders-1,stock-1}', '{3,1}', '{0,0}', '{t,f}', '{Create,Find}', '{2,0}');
SELECT proxy_id, internal, session_no, bundle, instance, bundle_version, enabled, names FROM evento._cluster() ORDER BY 1, 3;
SELECT evento._discover('orders', 3, '{"description": "Orders", "handlers": [{"componentType": "Aggregate", "componentName": "A", "handlerType": "H", "handledPayload": "Create", "componentLine": 12}], "payloadInfo": {"Create": {"domain": "sales", "line": 5}}}');
SELECT evento._class_seen('Placed', 'x.Placed');
SELECT evento._class_of('Placed');
SELECT evento._line('7');
SELECT ticket, fence FROM evento._lock_take(1, '{l,l,m}', '{30000,30000,30000}') ORDER BY 1;
SELECT ticket, fence FROM evento._lock_poll('{1,2,3}') ORDER BY 1;
SELECT fence FROM evento._locks WHERE name = 'l' AND fence IS NOT NULL \gset
SELECT outcome, first_version FROM evento.append_batch(pg_temp.batch(pg_temp.item('b-1', ARRAY[pg_temp.event('A', '1')], lock => 'l', fence => :fence), pg_temp.item('l', ARRAY[pg_temp.event('A', '1')], flags => 4)));
SELECT evento._lock_release('{1}');
SELECT ticket, fence FROM evento._lock_poll('{2}');
SELECT evento._lock_keep(1, '{2}');
SELECT count(*) FROM evento._locks;
BEGIN;
SELECT evento._lock_key('l');
COMMIT;
SELECT name, advertised, internal, http, version, instances, load FROM evento.proxies ORDER BY proxy_id;
SELECT bundle, version, instance, enabled, proxy, names, description FROM evento.bundles ORDER BY 1;
SELECT bundle, version, component_type, component, handler_type, payload, component_line FROM evento.handlers;
SELECT name, domain, line, described_by FROM evento.payloads;
SELECT evento._proxy_leave(2);
SELECT proxy_id FROM evento._cluster() ORDER BY 1;

CALL evento.wait(NULL) \gset
\echo == roles
SET ROLE evento_reader;
SELECT count(*) FROM evento.events;
SELECT count(*) FROM evento.read_all();
SELECT (pg_temp.catch($$SELECT evento.append('order-1', 'T', '1')$$)).state;
SET ROLE evento_writer;
SELECT evento.append('order-1', 'Role', '1');
SELECT (pg_temp.catch($$SELECT evento.delete_stream('order-1')$$)).state;
SELECT (pg_temp.catch($$INSERT INTO evento._watermark VALUES (true, 1)$$)).state;
SET ROLE evento_proxy;
SELECT evento._proxy_renew(1, '{}');
SET ROLE evento_admin;
SELECT evento.delete_stream('order-2');
RESET ROLE;

\echo == rows that a superuser brings
DELETE FROM evento._events WHERE stream_no IS NULL;
INSERT INTO evento._events (position, "timestamp", recorded_at, id, service, force_telemetry, type, context, data) VALUES (5000, now(), now(), '00000000-0000-0000-0000-000000000099', false, false, 'Loaded', 'default', '1');
SELECT evento.append('order-1', 'After', '1');
SELECT last > 5000 FROM evento.last_append();
CALL evento.wait(NULL) \gset
SELECT type, position > 5000 FROM evento.read_all(4999);
