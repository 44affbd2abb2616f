-- Imports from a Java Evento server's tables and from message-db.
SELECT plan(49);

-- The rows of a query, a line each.
CREATE FUNCTION pg_temp.rows(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  found text;
BEGIN
  EXECUTE format('SELECT string_agg(r::text, E''\n'') FROM (%s) r', query) INTO found;
  RETURN found;
END
$$;

-- What such a server writes: messages as its library serializes them.
CREATE TABLE es__events (
  event_sequence_number bigint PRIMARY KEY, aggregate_id text, event_message text NOT NULL, event_name text NOT NULL, context text,
  created_at timestamptz DEFAULT now(), deleted_at timestamptz);
CREATE TABLE es__snapshot (aggregate_id text PRIMARY KEY, event_sequence_number bigint, aggregate_state text, updated_at timestamptz, deleted_at timestamptz);
CREATE FUNCTION message(kind text, class text, object text, ms bigint, metadata text DEFAULT 'null', telemetry text DEFAULT 'false') RETURNS text LANGUAGE sql AS $$
  SELECT format('["com.evento.common.modeling.messaging.message.application.%sEventMessage",{"serializedPayload":["com.evento.common.modeling.messaging.message.application.SerializedPayload",{"serializedObject":%s,"objectClass":%s}],"timestamp":%s,"metadata":%s,"forceTelemetry":%s,"context":"default"}]',
    kind, to_json(object), to_json(class), ms, metadata, telemetry)
$$;
INSERT INTO es__events VALUES
  (1573675342192967680, 'order-1', message('Domain', 'class com.acme.OrderPlaced', '["com.acme.OrderPlaced",{"context":"default","amount":1.10,"tags":["java.util.ArrayList",["a","b\u0000c"]]}]', 1700000000123,
     '["com.evento.common.modeling.messaging.message.application.Metadata",{"user":"x\u0000y"}]'), 'OrderPlaced', 'default', '2023-11-14 22:13:20.5+00'),
  (1573675342192967681, NULL, message('Service', 'class com.acme.Marked', '["com.acme.Marked",{"note":"n"}]', 1700000000124, 'null', 'true'), 'Marked', 'shop', '2023-11-14 22:13:21+00'),
  (1573675342192967690, 'order-2', message('Domain', 'class com.acme.OrderPlaced', '["com.acme.OrderPlaced",{"amount":2}]', 1700000001000), 'OrderPlaced', NULL, '2023-11-14 22:13:22+00'),
  (1573675342192967691, 'order-1', message('Domain', 'class com.acme.Odd', '["com.acme.Odd", {"n":1}]', 1700000001001), 'Odd', 'default', '2023-11-14 22:13:22+00'),
  (1573675342192967692, 'order-1', message('Domain', 'com.acme.Bare', '{"n":2}', 1700000001002), 'Bare', 'default', '2023-11-14 22:13:22+00'),
  (1573675342192967700, 'order-3', message('Domain', 'class com.acme.OrderPlaced', '["com.acme.OrderPlaced",{"amount":3}]', 1700000001003), 'OrderPlaced', 'default', '2023-11-14 22:13:23+00');
UPDATE es__events SET deleted_at = '2024-01-01 00:00+00' WHERE aggregate_id = 'order-3';
INSERT INTO es__snapshot VALUES
  ('order-1', 1573675342192967691, '["com.evento.common.modeling.state.SerializedAggregateState",{"serializedObject":"[\"com.acme.Order\",{\"deleted\":false,\"n\":3}]","objectClass":"class com.acme.Order"}]', '2023-11-15 00:00+00'),
  ('order-2', 1573675342192967690, '["com.evento.common.modeling.state.SerializedAggregateState",{"serializedObject":"[\"com.acme.Order\",{\"deleted\":true,\"n\":3}]","objectClass":"class com.acme.Order"}]', '2023-11-15 00:00+00'),
  ('order-9', 1573675342192967690, '["com.evento.common.modeling.state.SerializedAggregateState",{"serializedObject":"[\"com.acme.Order\",{\"n\":3}]","objectClass":"class com.acme.Order"}]', '2023-11-15 00:00+00');

SET client_min_messages = warning;
SELECT throws_ok($$CALL evento.import_evento('nowhere.es__events')$$, '42P01', 'there is no table nowhere.es__events', 'a table that is not there');
SELECT throws_ok($$CALL evento.import_evento(batch => 0)$$, '22023', NULL, 'a batch of none');

-- Psql's own CALL: a procedure that commits cannot run within lives_ok.
CALL evento.import_evento(batch => 2) \gset
SELECT is(:imported, 6, 'six events came in');
CALL evento.wait(NULL) \gset
SELECT is(:watermark, 1573675342192967700, 'and can be read');
SELECT is(pg_temp.rows('SELECT position, stream, version, type, context, kind, class, force_telemetry FROM evento.events ORDER BY position'),
'(1573675342192967680,order-1,1,OrderPlaced,default,domain,com.acme.OrderPlaced,f)
(1573675342192967681,,,Marked,shop,service,com.acme.Marked,t)
(1573675342192967690,order-2,1,OrderPlaced,default,domain,com.acme.OrderPlaced,f)
(1573675342192967691,order-1,2,Odd,default,domain,"class com.acme.Odd",f)
(1573675342192967692,order-1,3,Bare,default,domain,=com.acme.Bare,f)', 'positions are kept, versions are dense, what was deleted is hidden');
SELECT is((SELECT data::text FROM evento.events WHERE position = 1573675342192967680), '{"context":"default","amount":1.10,"tags":["java.util.ArrayList",["a","b\u0000c"]]}', 'data is the very text of the object');
SELECT is((SELECT metadata::text FROM evento.events WHERE position = 1573675342192967680), '{"user":"x\u0000y"}', 'and metadata');
SELECT is((SELECT data::text FROM evento.events WHERE position = 1573675342192967691), '["com.acme.Odd", {"n":1}]', 'what has another shape is kept whole');
SELECT is((SELECT "timestamp" FROM evento.events WHERE position = 1573675342192967680), '2023-11-14 22:13:20.123+00'::timestamptz, 'the message''s time');
SELECT is((SELECT recorded_at FROM evento.events WHERE position = 1573675342192967680), '2023-11-14 22:13:20.5+00'::timestamptz, 'the time it was stored');
SELECT isnt((SELECT deleted_at FROM evento.streams WHERE stream = 'order-3'), NULL, 'a deleted aggregate is a deleted stream');
SELECT is(pg_temp.rows($$SELECT part, version, class, data->>'n' FROM evento.load_stream('order-1')$$), E'(head,3,,)\n(snapshot,2,com.acme.Order,3)\n(event,3,=com.acme.Bare,2)', 'a snapshot stands at the version of its event');
SELECT is(pg_temp.rows($$SELECT part FROM evento.load_stream('order-2')$$), E'(head)\n(event)', 'a state that says deleted is not kept');
SELECT is(pg_temp.rows('SELECT source, kind, last_position, events, snapshots, finished_at IS NOT NULL FROM evento.imports'), '(public.es__events,evento,1573675342192967700,6,1,t)', 'imports tells how it went');

-- What has come since, and nothing twice.
INSERT INTO es__events VALUES (1573675342192967800, 'order-2', message('Domain', 'class com.acme.OrderPaid', '["com.acme.OrderPaid",{"by":"card"}]', 1700000002000), 'OrderPaid', 'default', '2023-11-14 22:14:00+00'),
  (1573675342192967801, 'order-3', message('Domain', 'class com.acme.OrderPaid', '["com.acme.OrderPaid",{"by":"card"}]', 1700000002000), 'OrderPaid', 'default', '2023-11-14 22:14:00+00');
CALL evento.import_evento() \gset
SELECT is(:imported, 8, 'a later call brings what is new');
SELECT is(pg_temp.rows($$SELECT version, type FROM evento.read_stream('order-2')$$), E'(1,OrderPlaced)\n(2,OrderPaid)', 'behind what was there');
SELECT is(pg_temp.rows($$SELECT version, type FROM evento.read_stream('order-3')$$), '(2,OrderPaid)', 'a deleted stream goes on with its versions');
SELECT is((SELECT deleted_at FROM evento.streams WHERE stream = 'order-3'), NULL, 'and is no longer deleted');

-- A message that cannot be read is named, and what came before it stays.
INSERT INTO es__events VALUES (1573675342192967900, 'order-2', message('Domain', 'class com.acme.OrderPaid', '["com.acme.OrderPaid",{}]', 1700000002000), 'OrderPaid', 'default', now()),
  (1573675342192967901, 'order-2', 'no JSON', 'OrderPaid', 'default', now());
\set ON_ERROR_STOP 0
CALL evento.import_evento(batch => 1);
\set ON_ERROR_STOP 1
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '22P02', 'a message that is no JSON');
SELECT is(:'LAST_ERROR_MESSAGE'::text ~ '1573675342192967901', true, 'is named by its position');
SELECT is((SELECT events FROM evento.imports), 9::bigint, 'and what came before it is in');
SELECT is((SELECT finished_at FROM evento.imports), NULL, 'the import is not finished');
DELETE FROM es__events WHERE event_sequence_number = 1573675342192967901;
CALL evento.import_evento() \gset
SELECT is(:imported, 9, 'a repaired source goes on');

-- Nor one that could not be stored as an append stores it: each is named, too.
INSERT INTO es__events VALUES (1573675342192967902, 'order-2', '[null,{"timestamp":1,"serializedPayload":["P",{"serializedObject":"{}","objectClass":"c"}]}]', 'OrderPaid', 'default', now());
\set ON_ERROR_STOP 0
CALL evento.import_evento();
\set ON_ERROR_STOP 1
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '22023', 'a message without a class');
SELECT ok(:'LAST_ERROR_MESSAGE'::text ~ '1573675342192967902.*no class', 'is named');
UPDATE es__events SET event_message = message('Domain', 'class com.acme.OrderPaid', '["com.acme.OrderPaid",{}]', 1700000002000), created_at = 'infinity' WHERE event_sequence_number = 1573675342192967902;
\set ON_ERROR_STOP 0
CALL evento.import_evento();
\set ON_ERROR_STOP 1
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '22023', 'a time without end');
SELECT ok(:'LAST_ERROR_MESSAGE'::text ~ '1573675342192967902.*infinite', 'is named');
UPDATE es__events SET created_at = now(), event_message = message('Domain', 'class com.acme.OrderPaid', '["com.acme.OrderPaid",{}]', 1700000002000, '["M",' || repeat('[', 20000) || repeat(']', 20000) || ']') WHERE event_sequence_number = 1573675342192967902;
\set ON_ERROR_STOP 0
CALL evento.import_evento();
\set ON_ERROR_STOP 1
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '54001', 'JSON that is too deep');
SELECT ok(:'LAST_ERROR_MESSAGE'::text ~ '1573675342192967902', 'is named');
UPDATE es__events SET event_sequence_number = 9223372036854775807, event_message = message('Domain', 'class com.acme.OrderPaid', '["com.acme.OrderPaid",{}]', 1700000002000) WHERE event_sequence_number = 1573675342192967902;
\set ON_ERROR_STOP 0
CALL evento.import_evento();
\set ON_ERROR_STOP 1
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '22023', 'a position at the end of bigint');
SELECT ok(:'LAST_ERROR_MESSAGE'::text ~ '9223372036854775807.*no room', 'is named');
DELETE FROM es__events WHERE event_sequence_number = 9223372036854775807;

-- An event that was committed late below what has been read.
INSERT INTO es__events VALUES (1573675342192967850, 'order-2', message('Domain', 'class com.acme.OrderPaid', '["com.acme.OrderPaid",{}]', 1700000002000), 'OrderPaid', 'default', now());
\set ON_ERROR_STOP 0
CALL evento.import_evento();
\set ON_ERROR_STOP 1
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '55000', 'a late event is found out');
DELETE FROM es__events WHERE event_sequence_number = 1573675342192967850;

-- Columns as other versions of the server have them; no snapshots. An operator that another has planted in the caller's search_path is not used.
CREATE FUNCTION planted(bigint, numeric) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$;
CREATE OPERATOR / (LEFTARG = bigint, RIGHTARG = numeric, FUNCTION = planted);
CREATE TABLE old_events (event_sequence_number bigint, aggregate_id varchar(100), event_message jsonb, event_name varchar(100), created_at bigint);
ALTER TABLE old_events ADD context varchar(100);
INSERT INTO old_events SELECT 1573675342300000000 + n, 'bulk-' || n % 7, message('Domain', 'class com.acme.B', format('["com.acme.B",{"n":%s}]', n), 1700000000000)::jsonb, 'B', 1700000000000 + n, 'default' FROM generate_series(1, 2500) n;
CALL evento.import_evento('old_events', NULL, 1000) \gset
SELECT is(:imported, 2500, 'another table, in batches');
DROP OPERATOR / (bigint, numeric);
SELECT is((SELECT recorded_at FROM evento.read_stream('bulk-1', 1, 1)), '2023-11-14 22:13:20.001+00'::timestamptz, 'milliseconds as time');
SELECT is((SELECT count(*) FROM (SELECT version, row_number() OVER (PARTITION BY stream ORDER BY position) AS n FROM evento._events e JOIN evento._streams s USING (stream_no), LATERAL (SELECT s.name AS stream) x WHERE s.name LIKE 'bulk-%') v WHERE v.version <> v.n), 0::bigint, 'versions are dense across batches');

-- message-db, its table as its installation makes it.
CREATE SCHEMA message_store;
CREATE TABLE message_store.messages (global_position bigserial PRIMARY KEY, position bigint NOT NULL, time timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
  stream_name text NOT NULL, type text NOT NULL, data jsonb, metadata jsonb, id uuid NOT NULL DEFAULT gen_random_uuid());
SELECT setval('message_store.messages_global_position_seq', 1573675342400000000);
INSERT INTO message_store.messages (position, time, stream_name, type, data, metadata, id) VALUES
  (0, '2024-02-03 04:05:06', 'account-1', 'Opened', '{"a": 1}', '{"m": 1}', '00000000-0000-4000-8000-000000000001'),
  (1, '2024-02-03 04:05:07', 'account-1', 'Deposited', NULL, NULL, '00000000-0000-4000-8000-000000000002'),
  (0, '2024-02-03 04:05:08', 'account-2', 'Opened', '{}', NULL, '00000000-0000-4000-8000-000000000003');
CALL evento.import_message_db() \gset
SELECT is(:imported, 3, 'message-db');
SELECT is(pg_temp.rows($$SELECT version, right(id::text, 1), type, kind, data->>'a' AS a, json_typeof(data), metadata->>'m' AS m, recorded_at AT TIME ZONE 'UTC' FROM evento.read_stream('account-1')$$),
E'(1,1,Opened,domain,1,object,1,"2024-02-03 04:05:06")\n(2,2,Deposited,domain,,null,,"2024-02-03 04:05:07")', 'ids, versions from 1, times in UTC');
SELECT is((SELECT position FROM evento.read_stream('account-2')), (SELECT global_position FROM message_store.messages WHERE stream_name = 'account-2'), 'global positions are kept');
INSERT INTO message_store.messages (position, stream_name, type) VALUES (5, 'account-2', 'Gap');
\set ON_ERROR_STOP 0
CALL evento.import_message_db();
\set ON_ERROR_STOP 1
SELECT is(:'LAST_ERROR_SQLSTATE'::text, 'V0001', 'a gap in a stream is refused');
UPDATE message_store.messages SET position = 1 WHERE type = 'Gap';
CALL evento.import_message_db() \gset
SELECT is(:imported, 4, 'a repaired source goes on here, too');

-- The log goes on behind the import; then nothing can be imported any more.
SELECT is(evento.append('order-2', 'OrderShipped', '{}', expected => 3), 4::bigint, 'an append goes on with the versions');
SELECT ok((SELECT last FROM evento.last_append()) > 1573675342400000000, 'and behind the positions');
CALL evento.import_evento() \gset
SELECT is(:imported, 9, 'a call that finds nothing new succeeds');
INSERT INTO es__events VALUES (1573675342192967902, 'order-2', message('Domain', 'class com.acme.OrderPaid', '["com.acme.OrderPaid",{}]', 1700000002000), 'OrderPaid', 'default', now());
\set ON_ERROR_STOP 0
CALL evento.import_evento();
\set ON_ERROR_STOP 1
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '55000', 'but nothing new is taken any more');

-- The rights are those of who calls.
CREATE ROLE importer LOGIN IN ROLE evento_admin;
SET ROLE importer;
\set ON_ERROR_STOP 0
CALL evento.import_evento();
\set ON_ERROR_STOP 1
RESET ROLE;
SELECT is(:'LAST_ERROR_SQLSTATE'::text, '42501', 'an admin reads no table of others');
GRANT SELECT ON es__events, es__snapshot TO importer;
DELETE FROM es__events WHERE event_sequence_number = 1573675342192967902;
SET ROLE importer;
CALL evento.import_evento() \gset
RESET ROLE;
SELECT is(:imported, 9, 'with the right to read them, an admin imports');
DROP OWNED BY importer;
DROP ROLE importer;

-- A tombstone stays one; a name of a table is no SQL.
SELECT throws_ok($$CALL evento.import_evento('es__events; DROP TABLE es__events')$$, NULL, NULL, 'a name is a name');
SELECT has_table('es__events'::name);
SELECT is((SELECT count(*) FROM evento.imports), 3::bigint, 'three sources');
SELECT * FROM finish();
