-- index.sql: create_index and drop_index; appends under each kind of index.
\ir helpers.psql
SELECT plan(51);

SELECT evento.append('order-1', 'A', '{"orderId":1,"customer":{"id":"c1"}}', '{"tenant":"t1"}') \gset
SELECT is_empty('SELECT * FROM evento.indexes', 'there are none but those that carry the log');

-- ---- what can be asked for ----

CREATE TEMP TABLE plans AS SELECT w, (evento._index_plan(w)).* FROM unnest(ARRAY['category', 'type', 'context', 'time', 'data.orderId', 'data.customer.id', 'metadata.tenant',
  'data."customer"."id"', 'data."a.b"', 'data."a""b"', $$data."it's"$$, $$data."back\slash"$$, 'data."with space"', 'data."; DROP TABLE x"', 'data.""', 'data.0', 'data.größe', 'data.a-b_c$d@e', 'data.' || repeat('k', 507)]) w;
SELECT is((SELECT string_agg(w || ' -> ' || what, ', ') FROM plans WHERE w <> what), 'data."customer"."id" -> data.customer.id', 'one form for each');
SELECT is((SELECT count(DISTINCT index_name) FROM plans), (SELECT count(*) - 1 FROM plans), 'and one name');
SELECT is_empty('SELECT index_name FROM plans WHERE octet_length(index_name) > 63', 'which is short enough');
SELECT is((SELECT statement FROM plans WHERE w = $$data."it's"$$) LIKE $$%evento.text(data, 'it''s') %$$, true, 'keys are literals');
SELECT is((SELECT statement FROM plans WHERE w = $$data."back\slash"$$) LIKE $$%evento.text(data,  E'back\\\\slash') %$$ OR (SELECT statement FROM plans WHERE w = $$data."back\slash"$$) LIKE $$%evento.text(data, E'back\\\\slash') %$$, true, 'with backslashes too');
SELECT is((SELECT state FROM pg_temp.catch('SELECT evento._index_plan(' || quote_literal(w) || ')')), '22023', 'refused: ' || left(w, 30))
  FROM unnest(ARRAY['', 'data', 'data.', '.a', 'data..a', 'data.a.', 'data.a b', 'data."a', 'data."a"b', 'data.a"b"', 'id', 'Type', 'data.a;b', 'metadata', 'payload.a', 'data.' || repeat('k', 508)]) w;
SELECT is((SELECT state FROM pg_temp.catch($$CALL evento.create_index('type')$$)), '25001', 'not inside a function');
BEGIN;
\set ON_ERROR_STOP 0
CALL evento.create_index('type');
\set state :SQLSTATE
ROLLBACK;
SELECT is(:'state'::text, '25001', 'not inside a transaction block');
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL evento.drop_index('type');
\set state :SQLSTATE
ROLLBACK;
SELECT is(:'state'::text, '25001', 'drop_index neither');
CALL evento.create_index('nothing');
SELECT is(:'SQLSTATE'::text, '22023', 'what cannot be read is refused');
CALL evento.drop_index(NULL);
SELECT is(:'SQLSTATE'::text, '22023', 'NULL too, where something is dropped');
DO $$ BEGIN PERFORM evento.append('order-1', 'B', '{}'); CALL evento.create_index('type'); END $$;
\set state :SQLSTATE
SELECT is(:'state'::text, '25001', 'not behind an append in the same transaction, which it would wait for');
\set ON_ERROR_STOP 1

-- ---- they are made ----

CALL evento.create_index('type');
CALL evento.create_index('context');
CALL evento.create_index('category');
CALL evento.create_index('time');
CALL evento.create_index('data.orderId');
CALL evento.create_index('data.customer.id');
CALL evento.create_index('metadata.tenant');
SELECT results_eq('SELECT what, valid, present, size > 0 FROM evento.indexes ORDER BY what',
  $$SELECT w COLLATE "C", true, true, true FROM unnest(ARRAY['category', 'context', 'data.customer.id', 'data.orderId', 'metadata.tenant', 'time', 'type']) w$$, 'all of them');
SELECT is_empty($$SELECT i.index_name FROM evento.indexes i JOIN pg_class c ON c.relname = i.index_name WHERE c.relowner <> (SELECT extowner FROM pg_extension WHERE extname = 'evento')$$, 'they belong to who made the extension');
SET client_min_messages = warning;
CALL evento.create_index('type');
RESET client_min_messages;
SELECT is((SELECT count(*) FROM evento.indexes), 7::bigint, 'one that is there is not made twice');

-- ---- appends under them ----

SELECT evento.append('order-1', repeat('T', 255), '{"orderId":2}', context => repeat('c', 512)) \gset
SELECT evento.append(rpad('c-', 512, 'x'), 'B', '{"orderId":null}') \gset
SELECT evento.append(NULL, 'S', '{"orderId":"\u0000 and \ud800"}') \gset
SELECT evento.append('long', 'L', json_build_object('orderId', repeat('x', 3000000))) \gset
SELECT evento.append('long', 'L', json_build_object('orderId', repeat('x', 3000000) || 'y')) \gset
SELECT evento.append('long', 'L', json_build_object('orderId', string_agg(md5(n::text), ''))) FROM generate_series(1, 40000) n \gset
SELECT evento.append('long', 'L', json_build_object('orderId', repeat('x', 255))) \gset
SELECT evento.append('long', 'L', json_build_object('orderId', repeat('x', 256))) \gset
SELECT evento.append('long', 'L', json_build_object('orderId', repeat('[', 1), 'customer', (repeat('[', 200) || repeat(']', 200))::json)) \gset
SELECT count(evento.append('order-' || n % 50, 'N', json_build_object('orderId', n, 'customer', json_build_object('id', n % 7)), json_build_object('tenant', n % 2))) FROM generate_series(1000, 3999) n \gset
CALL evento.wait(NULL) \gset
SET enable_seqscan = off;
SET enable_indexscan = off;
SELECT results_eq($$SELECT stream, version FROM evento.events WHERE evento.text(data, 'orderId') = repeat('x', 3000000)$$, $$VALUES ('long' COLLATE "C", 1::bigint)$$, 'a value of 3 MB is found');
SELECT is((SELECT version FROM evento.events WHERE evento.text(data, 'orderId') = (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 40000) n)), 3::bigint, 'and one that is not compressed');
SELECT is((SELECT array_agg(version) FROM evento.events WHERE evento.text(data, 'orderId') = repeat('x', 255)), '{4}', 'one as long as an entry');
SELECT is((SELECT array_agg(version) FROM evento.events WHERE evento.text(data, 'orderId') = repeat('x', 256)), '{5}', 'one that is longer');
SELECT is((SELECT count(*) FROM evento.events WHERE evento.text(data, 'orderId') = U&'\FFFD and \FFFD'), 1::bigint, 'a \u0000 is found as text gives it');
SELECT is((SELECT count(*) FROM evento.events WHERE evento.text(data, 'orderId') IN ('1', '2', '1500')), 3::bigint, 'several values');
SELECT is((SELECT count(*) FROM evento.events WHERE evento.text(data, 'orderId') = ''), 0::bigint, 'no value');
SELECT is((SELECT count(*) FROM evento.events WHERE evento.text(metadata, 'tenant') = '1'), 1500::bigint, 'a frequent value');
SELECT is((SELECT count(*) FROM evento.events WHERE type = repeat('T', 255)), 1::bigint, 'the longest type');
SELECT is((SELECT count(*) FROM evento.events WHERE category = 'c'), 1::bigint, 'a category');
RESET enable_seqscan;
RESET enable_indexscan;
SELECT is((SELECT count(*) FROM evento.events WHERE evento.text(data, 'orderId') IS NULL), 1::bigint, 'null has no entry and is found all the same');

-- one who may append and nothing else
CREATE ROLE pgtap_appender;
GRANT USAGE ON SCHEMA evento TO pgtap_appender;
GRANT EXECUTE ON FUNCTION evento.append(text, text, json, json, bigint, uuid, text, text, text) TO pgtap_appender;
SET ROLE pgtap_appender;
SELECT evento.append('order-1', 'Z', '{"orderId":"by another"}') \gset
RESET ROLE;
DROP OWNED BY pgtap_appender;
DROP ROLE pgtap_appender;
CALL evento.wait(NULL) \gset
SELECT is((SELECT count(*) FROM evento.events WHERE evento.text(data, 'orderId') = 'by another'), 1::bigint, 'who may not call text can append under an index on it');

-- ---- what is left of a build that was cut off ----

UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'evento._events_type'::regclass;
DROP INDEX evento._events_time;
SELECT results_eq($$SELECT what, valid, present FROM evento.indexes WHERE NOT valid ORDER BY what$$, $$VALUES ('time' COLLATE "C", false, false), ('type', false, true)$$, 'indexes shows what is not there, or not valid');
SELECT is((SELECT definition FROM evento.indexes WHERE what = 'time'), 'CREATE INDEX CONCURRENTLY _events_time ON evento._events (recorded_at)', 'and how it would be made');
SET client_min_messages = warning;
CALL evento.create_index(NULL);
RESET client_min_messages;
SELECT is((SELECT bool_and(valid) FROM evento.indexes), true, 'create_index(NULL) makes them all');

-- ---- they are dropped ----

CALL evento.drop_index('data.customer.id');
SET client_min_messages = warning;
CALL evento.drop_index('data.customer.id');
RESET client_min_messages;
SELECT is((SELECT count(*) FROM evento.indexes), 6::bigint, 'drop_index drops one');
SELECT is_empty($$SELECT relname FROM pg_class WHERE relname LIKE '\_events\_data\_customer%'$$, 'wholly');

-- ---- event triggers ----

CREATE TABLE commands (tag text, identity text);
CREATE FUNCTION note_command() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.commands SELECT command_tag, object_identity FROM pg_event_trigger_ddl_commands(); END $$;
CREATE FUNCTION note_dropped() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.commands SELECT TG_TAG, object_identity FROM pg_event_trigger_dropped_objects(); END $$;
CREATE EVENT TRIGGER note_command ON ddl_command_end EXECUTE FUNCTION note_command();
CREATE EVENT TRIGGER note_dropped ON sql_drop EXECUTE FUNCTION note_dropped();
CALL evento.create_index('data.customer.id');
SELECT is((SELECT bool_and(valid) FROM evento.indexes WHERE what = 'data.customer.id'), true, 'an index is made where event triggers run SQL');
CALL evento.drop_index('data.customer.id');
SELECT is_empty($$SELECT * FROM evento.indexes WHERE what = 'data.customer.id'$$, 'and dropped');
SELECT results_eq('SELECT * FROM commands', $$SELECT tag, 'evento.' || index_name FROM unnest(ARRAY['CREATE INDEX', 'DROP INDEX']) tag, evento._index_plan('data.customer.id')$$, 'they hear of both');
DROP EVENT TRIGGER note_command;
DROP EVENT TRIGGER note_dropped;
SELECT * FROM finish();
