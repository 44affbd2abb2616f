-- load.sql: load_stream, save_snapshot, drop_snapshots.
\ir helpers.psql
SELECT plan(41);

SELECT results_eq($$SELECT part, version, position, data::text FROM evento.load_stream('l-1')$$, $$VALUES ('head', 0::bigint, NULL::bigint, NULL)$$, 'a stream that is not there');
SELECT count(evento.append('l-1', 'T', to_json(n), id => ('00000000-0000-0000-0000-00000000000' || n)::uuid, class => 'x.T')) FROM generate_series(1, 5) n \gset
SELECT evento.append('l-2', 'T', '1', id => '00000000-0000-0000-0000-000000000009') \gset
SELECT results_eq($$SELECT part, version, data::text FROM evento.load_stream('l-1')$$,
  $$VALUES ('head', 5::bigint, NULL), ('event', 1, '1'), ('event', 2, '2'), ('event', 3, '3'), ('event', 4, '4'), ('event', 5, '5')$$, 'head and events');
SELECT results_eq($$SELECT position, version, id, type, context, kind, data::text, metadata::text, class, "timestamp", recorded_at, force_telemetry FROM evento.load_stream('l-1') WHERE part = 'event'$$,
  $$SELECT position, version, id, type COLLATE "default", context COLLATE "default", kind COLLATE "default", data::text, metadata::text, class COLLATE "default", "timestamp", recorded_at, force_telemetry FROM evento.read_stream('l-1')$$, 'whole events');

-- ---- snapshots ----

SELECT ok(evento.save_snapshot('l-1', 3, '{"at":  3}', 'x.State'), 'a snapshot is kept');
SELECT results_eq($$SELECT part, version, data::text, class FROM evento.load_stream('l-1')$$,
  $$VALUES ('head', 5::bigint, NULL, NULL::text), ('snapshot', 3, '{"at":  3}', 'x.State'), ('event', 4, '4', 'x.T'), ('event', 5, '5', 'x.T')$$, 'and loaded, with the events behind it');
SELECT is((SELECT count(*) FROM evento.load_stream('l-1', snapshot => false)), 6::bigint, 'or not');
SELECT results_eq($$SELECT part, version FROM evento.load_stream('l-1', '00000000-0000-0000-0000-000000000002', NULL)$$, $$VALUES ('head', 5::bigint), ('stored', 2)$$, 'or only head and stored');
SELECT ok(NOT evento.save_snapshot('l-1', 2, '{"at": 2}'), 'an older one is not kept');
SELECT is((SELECT version FROM evento.load_stream('l-1') WHERE part = 'snapshot'), 3::bigint, '…');
SELECT ok(NOT evento.save_snapshot('l-1', 3, '{"at": 33}'), 'nor one of the same version');
SELECT results_eq($$SELECT data::text, class FROM evento.load_stream('l-1') WHERE part = 'snapshot'$$, $$VALUES ('{"at":  3}', 'x.State')$$, 'the first one stays');
SELECT ok(evento.save_snapshot('l-1', 5, to_json(repeat('x', 3000000))), 'a large one at the head');
SELECT results_eq($$SELECT part, version FROM evento.load_stream('l-1')$$, $$VALUES ('head', 5::bigint), ('snapshot', 5)$$, 'leaves no events');
SELECT is((SELECT length(data #>> '{}') FROM evento.load_stream('l-1') WHERE part = 'snapshot'), 3000000, 'and is whole');
SELECT throws_ok($$SELECT evento.save_snapshot('l-1', 6, '1')$$, 'V0001', NULL, 'a version that the stream has not got');
SELECT throws_ok($$SELECT evento.save_snapshot('l-9', 1, '1')$$, 'V0001', NULL, 'a stream that is not there');
SELECT is((SELECT state FROM pg_temp.catch('SELECT evento.save_snapshot(' || a || ')')), '22023', 'refused: save_snapshot(' || left(a, 40) || ')')
  FROM unnest(ARRAY[$$NULL, 1, '1'$$, $$'', 1, '1'$$, $$repeat('s', 513), 1, '1'$$, $$'l-1', 0, '1'$$, $$'l-1', NULL, '1'$$, $$'l-1', 5, NULL$$, $$'l-1', 5, '1', repeat('k', 1025)$$]) a;
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.save_snapshot('l-1', 5, (repeat('[', 300) || repeat(']', 300))::json)$$)), '22P02', 'a state that is nested too deep');
SELECT is((SELECT array_agg(evento.drop_snapshots('l-1') AND evento.save_snapshot('l-1', n, to_json(n)) ORDER BY n) FROM generate_series(3, 5) n), '{t,t,t}'::boolean[], 'several in one statement');

BEGIN;
SELECT is(evento.append('l-1', 'T', '6'), 6::bigint, 'in the transaction that appends');
SELECT ok(evento.save_snapshot('l-1', 6, '{"at": 6}'), 'a snapshot at its version is kept');
ROLLBACK;
SELECT is((SELECT version FROM evento.load_stream('l-1') WHERE part = 'snapshot'), 5::bigint, 'and gone with it');

SELECT ok(evento.drop_snapshots('l-1'), 'dropped');
SELECT ok(NOT evento.drop_snapshots('l-1'), 'once');
SELECT is((SELECT count(*) FROM evento.load_stream('l-1') WHERE part = 'snapshot'), 0::bigint, 'gone');
SELECT is((SELECT state FROM pg_temp.catch('SELECT evento.drop_snapshots(NULL)')), '22023', 'of no stream');

-- ---- the event with an id ----

SELECT results_eq($$SELECT part, version, data::text, id FROM evento.load_stream('l-1', '00000000-0000-0000-0000-000000000004') LIMIT 2$$,
  $$VALUES ('head', 5::bigint, NULL, NULL::uuid), ('stored', 4, '4', '00000000-0000-0000-0000-000000000004')$$, 'the stored event comes second');
SELECT is((SELECT count(*) FROM evento.load_stream('l-1', '00000000-0000-0000-0000-000000000004')), 7::bigint, 'and the rest as ever');
SELECT is((SELECT count(*) FROM evento.load_stream('l-1', '00000000-0000-0000-0000-000000000009') WHERE part = 'stored'), 0::bigint, 'an id of another stream');
SELECT is((SELECT count(*) FROM evento.load_stream('l-9', '00000000-0000-0000-0000-000000000009')), 1::bigint, 'of no stream');
-- what says "stored" is a commit that waits for the standby, so it has a transaction id
BEGIN;
SELECT count(*) FROM evento.load_stream('l-1', '00000000-0000-0000-0000-000000000009') \gset
SELECT is(pg_current_xact_id_if_assigned(), NULL::xid8, 'nothing stored, nothing written');
SELECT count(*) FROM evento.load_stream('l-1', '00000000-0000-0000-0000-000000000004') \gset
SELECT isnt(pg_current_xact_id_if_assigned(), NULL::xid8, 'stored: the transaction has an id');
COMMIT;

SELECT is((SELECT state FROM pg_temp.catch('SELECT * FROM evento.load_stream(' || a || ')')), '22023', 'refused: load_stream(' || left(a, 40) || ')')
  FROM unnest(ARRAY['NULL', $$''$$, $$repeat('s', 513)$$]) a;
SELECT * FROM finish();
