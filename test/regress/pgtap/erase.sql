-- erase.sql: erase_stream, what it leaves, and what reads give of it.
\ir helpers.psql
SELECT plan(63);

SELECT count(evento.append('e-' || 1 + n % 2, 'T' || n, to_json(repeat('secret', n * 100)), '{"user": "ann"}', id => ('00000000-0000-0000-0000-00000000000' || n)::uuid, class => 'x.T', context => 'c' || n)) FROM generate_series(1, 8) n \gset g_
SELECT evento.append('e-1', 'Big', to_json((SELECT string_agg(md5(n::text), '') FROM generate_series(1, 3000) n))), evento.append('e-1', 'Service', '"secret"', kind => 'service') \gset g_
SELECT evento.save_snapshot('e-1', 2, '"secret"', 'x.S'), evento.save_snapshot('e-2', 2, '"other"'), evento.set_stream_metadata('e-1', '"secret"'), evento.set_stream_metadata('e-2', '"other"') \gset g_
CALL evento.wait(NULL) \gset
CREATE TEMP TABLE before AS SELECT * FROM evento.events;
SELECT reltoastrelid::regclass AS toast FROM pg_class WHERE oid = 'evento._events'::regclass \gset
SELECT count(*) > 0 AS toasted FROM :toast \gset
SELECT ok(:'toasted', 'a large event lies in the TOAST table');

-- ---- what is refused ----

SELECT is((SELECT state FROM pg_temp.catch('SELECT evento.erase_stream(' || a || ')')), '22023', 'refused: erase_stream(' || left(a, 40) || ')')
  FROM unnest(ARRAY[$$NULL, 'r'$$, $$'', 'r'$$, $$repeat('s', 513), 'r'$$, $$'e-1', NULL$$, $$'e-1', ''$$, $$'e-1', E' \n\t'$$, $$'e-1', repeat('r', 4097)$$]) a;
SELECT throws_ok($$SELECT evento.erase_stream('e-9', 'r')$$, 'V0001', NULL, 'a stream that is not there');
SELECT throws_ok($$SELECT evento.append('e-1', 'T', '1'), evento.erase_stream('e-1', 'r')$$, '55000', NULL, 'one that this transaction has appended to');
SELECT throws_ok($$SELECT evento.append('e-9', 'T', '1'), evento.erase_stream('e-9', 'r')$$, '55000', NULL, 'also where it is new');
SELECT is_empty('SELECT 1 FROM evento.erasures', 'nothing is recorded');
SELECT results_eq('SELECT e::text FROM evento.events e ORDER BY position', 'SELECT b::text FROM before b ORDER BY position', 'nothing has changed');
BEGIN;
SELECT is(evento.erase_stream('e-1', 'not yet'), 6::bigint, 'erased');
SELECT is((SELECT count(data) FROM evento.read_stream('e-1')), 0::bigint, 'for itself');
ROLLBACK;
SELECT results_eq('SELECT e::text FROM evento.events e ORDER BY position', 'SELECT b::text FROM before b ORDER BY position', 'not with a rollback');
SELECT is((SELECT count(*) FROM evento.erasures) + (SELECT count(*) FROM evento._snapshots WHERE stream = 'e-1'), 1::bigint, '…');

-- ---- what is left ----

-- By whoever has logged in, whatever role they take.
SET ROLE evento_admin;
SELECT evento.erase_stream('e-1', 'asked by letter of May 3rd') AS events \gset erased_
RESET ROLE;
SELECT is(:erased_events::bigint, 6::bigint, 'erased: gives the number of events');
SELECT results_eq('SELECT position, stream, version, id, type, context, kind, class, "timestamp", recorded_at, force_telemetry FROM evento.events ORDER BY position',
  'SELECT position, stream, version, id, type, context, kind, class, "timestamp", recorded_at, force_telemetry FROM before ORDER BY position', 'all else stays');
SELECT is_empty($$SELECT 1 FROM evento.events WHERE stream = 'e-1' AND (data IS NOT NULL OR metadata IS NOT NULL)$$, 'data and metadata are gone');
SELECT results_eq($$SELECT e::text FROM evento.events e WHERE stream = 'e-2' ORDER BY position$$, $$SELECT b::text FROM before b WHERE stream = 'e-2' ORDER BY position$$, 'of no other stream');
SELECT is_empty($$SELECT 1 FROM evento._snapshots WHERE stream = 'e-1'$$, 'its snapshot is gone');
SELECT is(evento.stream_metadata('e-1')::text, NULL, 'and its metadata');
SELECT results_eq($$SELECT (SELECT state::text FROM evento._snapshots WHERE stream = 'e-2'), evento.stream_metadata('e-2')::text$$, $$VALUES ('"other"', '"other"')$$, 'not those of another');
SELECT is((SELECT count(*) FROM :toast), 0::bigint, 'nor is anything left in the TOAST table');
SELECT is((SELECT string_agg(concat_ws('|', stream, reason, erased_by, first_version, last_version, events, erased_at > now() - interval '1 hour'), ' ') FROM evento.erasures),
  concat_ws('|', 'e-1', 'asked by letter of May 3rd', session_user, 1, 6, 6, true), 'recorded');

-- ---- reads ----

SELECT results_eq($$SELECT version, data::text, type FROM evento.read_stream('e-1', 5)$$, $$VALUES (5::bigint, NULL, 'Big'::text COLLATE "C"), (6, NULL, 'Service')$$, 'read_stream');
SELECT results_eq($$SELECT version FROM evento.read_stream('e-1', NULL, 2, true)$$, $$VALUES (6::bigint), (5)$$, 'backwards');
SELECT results_eq($$SELECT part, version, data::text FROM evento.load_stream('e-1', '00000000-0000-0000-0000-000000000002')$$,
  $$VALUES ('head', 6::bigint, NULL), ('stored', 1, NULL), ('event', 1, NULL), ('event', 2, NULL), ('event', 3, NULL), ('event', 4, NULL), ('event', 5, NULL), ('event', 6, NULL)$$, 'load_stream');
SELECT is((SELECT count(*) FROM evento.read_all(0, 100)), 10::bigint, 'read_all');
SELECT is((SELECT count(*) FROM evento.read_all(0, 100, types => '{Big,T2}')), 2::bigint, 'with a filter');
SELECT is((SELECT count(*) FROM evento.read_all(0, 100, categories => '{e}')), 10::bigint, '…');
SELECT is((SELECT count(*) FROM evento.scan_all(0, 100)), 11::bigint, 'scan_all');
SELECT is((SELECT count(*) FROM evento.scan_all(0, 100, max_bytes => 1)), 2::bigint, 'bounded in bytes: one event at least');
SELECT is((SELECT count(*) FROM evento.scan_all(8, 100, max_bytes => 1)), 3::bigint, 'erased events have none');
SELECT is((SELECT version FROM evento.streams WHERE stream = 'e-1'), 6::bigint, 'streams');

-- ---- afterwards ----

SELECT is(evento.append('e-1', 'T', '"new"', expected => 6), 7::bigint, 'the stream goes on');
SELECT is(evento.set_stream_metadata('e-1', '"new"', 2), 3::bigint, 'so do the revisions of its metadata');
SELECT ok(evento.save_snapshot('e-1', 7, '"new"'), 'and its snapshots');
SELECT is((SELECT string_agg(data::text, ' ') FROM evento.read_stream('e-1')), '"new"', 'what is new is there');
SELECT is(evento.erase_stream('e-1', 'again'), 1::bigint, 'erased again: what has come since');
SELECT is(evento.erase_stream('e-1', 'and again'), 0::bigint, 'and nothing');
SELECT results_eq($$SELECT reason, first_version, last_version, events FROM evento.erasures ORDER BY erased_at$$,
  $$VALUES ('asked by letter of May 3rd', 1::bigint, 6::bigint, 6::bigint), ('again', 7, 7, 1), ('and again', NULL, NULL, 0)$$, 'each on record');
BEGIN;
SELECT is(evento.erase_stream('e-2', 'in a transaction'), 4::bigint, 'with an append behind it');
SELECT is(evento.append('e-2', 'T', '"kept"', expected => 4), 5::bigint, '…');
SAVEPOINT x;
SELECT throws_ok($$SELECT evento.erase_stream('e-2', 'more')$$, '55000', NULL, 'which cannot be erased before its commit');
COMMIT;
SELECT is((SELECT string_agg(data::text, ' ') FROM evento.read_stream('e-2')), '"kept"', 'and is not');
SELECT evento.append('e-3', 'T', '"hidden"') \gset g_
SELECT evento.delete_stream('e-3'), evento.append('e-3', 'T', '"shown"') \gset g_
SELECT is(evento.erase_stream('e-3', 'hidden ones too'), 2::bigint, 'what a deletion has hidden is erased too');
SELECT evento.append('e-4', 'T', '1'), evento.tombstone_stream('e-4') \gset g_
SELECT is(evento.erase_stream('e-4', 'behind its end'), 1::bigint, 'as is a stream with a tombstone');
SELECT evento.set_stream_metadata('e-5', '"secret"') \gset g_
SELECT is(evento.erase_stream('e-5', 'metadata alone'), 0::bigint, 'and one that has metadata and no event');
SELECT is(evento.stream_metadata('e-5')::text, NULL, '…');
SELECT is((SELECT count(data) FROM evento._events), 1::bigint, 'what is left');

-- ---- indexes of users' own, a large stream, a cancel ----

CREATE INDEX ON evento._events ((data #>> '{}'));
CREATE INDEX ON evento._events (type) WHERE data IS NOT NULL;
SELECT count(evento.append('l-1', 'T', to_json(repeat('x', 200)), '1')) FROM generate_series(1, 12000) \gset g_
BEGIN;
SET LOCAL statement_timeout = '2ms';
\set ON_ERROR_STOP 0
SELECT evento.erase_stream('l-1', 'cut short');
\set state :SQLSTATE
\set ON_ERROR_STOP 1
ROLLBACK;
SELECT is(:'state'::text, '57014', 'an erasure can be cancelled');
SELECT results_eq($$SELECT count(*), count(data), count(metadata) FROM evento.read_stream('l-1')$$, $$VALUES (12000::bigint, 12000::bigint, 12000::bigint)$$, 'then nothing is erased');
SELECT is(evento.erase_stream('l-1', 'all of it'), 12000::bigint, 'a large one');
SELECT results_eq($$SELECT count(*), count(data), count(metadata), max(version) FROM evento.read_stream('l-1')$$, $$VALUES (12000::bigint, 0::bigint, 0::bigint, 12000::bigint)$$, '…');
SET enable_seqscan = off;
SELECT is((SELECT count(*) FROM evento._events WHERE data #>> '{}' = repeat('x', 200)), 0::bigint, 'indexes of others follow');
SELECT is((SELECT count(*) FROM evento._events WHERE type = 'T' AND data IS NOT NULL), 1::bigint, '…');
RESET enable_seqscan;
SELECT is(evento.append('l-1', 'T', '1'), 12001::bigint, 'and it goes on');

-- ---- the record ----

SELECT is((SELECT state FROM pg_temp.catch(s)), '55000', 'refused: ' || s) FROM unnest(ARRAY[$$UPDATE evento._erasures SET reason = 'x'$$, 'DELETE FROM evento._erasures', 'TRUNCATE evento._erasures']) s;
SELECT is((SELECT relreplident::text || ' ' || i.indexrelid::regclass FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident WHERE c.oid = 'evento._events'::regclass), 'i evento._events_position', 'erasures can be replicated');
SELECT * FROM finish();
