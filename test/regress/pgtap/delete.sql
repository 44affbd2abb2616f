-- delete.sql: delete_stream, and what a deleted stream is to reads and appends.
\ir helpers.psql
SELECT plan(44);

SELECT is(evento.delete_stream('d-0'), 0::bigint, 'a stream that is not there, any expected: nothing to do');
SELECT is(evento.delete_stream('d-0', 0), 0::bigint, 'or expected so');
SELECT throws_ok($$SELECT evento.delete_stream('d-0', 1)$$, 'V0001', NULL, 'but it was expected');
SELECT throws_ok($$SELECT evento.delete_stream('d-0', -4)$$, 'V0001', NULL, 'to be there');
SELECT is_empty($$SELECT 1 FROM evento.streams WHERE stream = 'd-0'$$, 'no stream was made');

SELECT count(evento.append('d-1', 'T', to_json(n), id => ('00000000-0000-0000-0000-00000000000' || n)::uuid)) FROM generate_series(1, 3) n \gset
SELECT evento.append('d-2', 'T', '9') \gset
SELECT evento.save_snapshot('d-1', 2, '{"secret": 1}') \gset
SELECT throws_ok($$SELECT evento.delete_stream('d-1', 2)$$, 'V0001', NULL, 'wrong expected version');
SELECT throws_ok($$SELECT evento.delete_stream('d-1', 0)$$, 'V0001', NULL, 'expected not to be there');
SELECT is((SELECT state FROM pg_temp.catch(format($$SELECT evento.delete_stream('d-1', %s)$$, e))), '22023', 'expected ' || e || ' is refused') FROM unnest(ARRAY[-1, -2, -3]) e;
SELECT is((SELECT count(*) FROM evento.read_stream('d-1')), 3::bigint, 'nothing was deleted');

BEGIN;
SELECT is(evento.delete_stream('d-1', 3), 3::bigint, 'deleted, in a transaction');
SELECT is_empty($$SELECT 1 FROM evento.read_stream('d-1')$$, 'is deleted for itself');
ROLLBACK;
SELECT is((SELECT count(*) FROM evento.load_stream('d-1') WHERE part IN ('snapshot', 'event')), 2::bigint, 'and back with its rollback, snapshot and all');

SELECT is(evento.delete_stream('d-1', -4), 3::bigint, 'gives the last version');
CALL evento.wait(NULL) \gset
SELECT is_empty($$SELECT 1 FROM evento.read_stream('d-1')$$, 'read_stream has none of it');
SELECT is_empty($$SELECT 1 FROM evento.read_stream('d-1', 2, 5, true)$$, 'in no direction');
SELECT results_eq($$SELECT stream FROM evento.events$$, $$VALUES ('d-2'::text COLLATE "C")$$, 'nor has events');
SELECT results_eq($$SELECT stream FROM evento.read_all()$$, $$VALUES ('d-2'::text COLLATE "C")$$, 'nor read_all');
SELECT results_eq($$SELECT stream, scanned FROM evento.scan_all()$$, $$VALUES ('d-2'::text, 4::bigint), (NULL, 4)$$, 'nor scan_all');
SELECT results_eq($$SELECT part, version FROM evento.load_stream('d-1', '00000000-0000-0000-0000-000000000002')$$, $$VALUES ('head', 3::bigint)$$, 'load_stream only knows where it goes on');
SELECT is_empty($$SELECT 1 FROM evento._snapshots WHERE stream = 'd-1'$$, 'its snapshot is gone');
SELECT results_eq($$SELECT version, deleted_at IS NOT NULL, tombstone, first_recorded_at IS NULL FROM evento.streams WHERE stream = 'd-1'$$, $$VALUES (3::bigint, true, false, true)$$, 'streams says so');
SELECT throws_ok($$SELECT evento.save_snapshot('d-1', 3, '1')$$, 'V0001', NULL, 'no snapshot of what is hidden');
SELECT is((SELECT deleted_at FROM evento.streams WHERE stream = 'd-1'), (SELECT deleted_at FROM evento.streams, evento.delete_stream('d-1') WHERE stream = 'd-1'), 'deleted again: nothing changes');
SELECT throws_ok($$SELECT evento.delete_stream('d-1', -4)$$, 'V0001', NULL, 'what is deleted is not there');

SELECT throws_ok($$SELECT evento.append('d-1', 'T', '4', expected => -4)$$, 'V0001', NULL, 'nor for an append');
SELECT throws_ok($$SELECT evento.append('d-1', 'T', '4', expected => 2)$$, 'V0001', NULL, 'or with another version');
SELECT is(evento.append('d-1', 'T', '4', expected => 0), 4::bigint, 'expected 0: goes on with the versions');
SELECT results_eq($$SELECT version FROM evento.read_stream('d-1')$$, $$VALUES (4::bigint)$$, 'only the new event is read');
SELECT results_eq($$SELECT part, version FROM evento.load_stream('d-1')$$, $$VALUES ('head', 4::bigint), ('event', 4)$$, '…');
SELECT results_eq($$SELECT version, deleted_at, first_recorded_at = last_recorded_at FROM evento.streams WHERE stream = 'd-1'$$, $$VALUES (4::bigint, NULL::timestamptz, true)$$, 'the stream is not deleted any more');
SELECT throws_ok($$SELECT evento.append('d-1', 'T', '5', expected => 0)$$, 'V0001', NULL, 'and there');
SELECT is(evento.delete_stream('d-1', 4), 4::bigint, 'deleted once more');
SELECT is(evento.append('d-1', 'T', '5', expected => 4), 5::bigint, 'its last version may be expected');
SELECT is(evento.delete_stream('d-1'), 5::bigint, 'and again');
SELECT is(evento.append('d-1', 'T', '6'), 6::bigint, 'or anything');
SELECT is(evento.append('d-1', 'T', '2', id => '00000000-0000-0000-0000-000000000002'), 2::bigint, 'an id of before the deletion is still a repeat');

SELECT is((SELECT state FROM pg_temp.catch('SELECT evento.delete_stream(' || a || ')')), '22023', 'refused: delete_stream(' || left(a, 40) || ')') FROM unnest(ARRAY['NULL', $$''$$, $$repeat('s', 513)$$]) a;

BEGIN;
SELECT is(evento.delete_stream('d-2'), 1::bigint, 'deleted and then appended to in one transaction');
SELECT is(evento.append('d-2', 'T', '2', expected => 0), 2::bigint, '…');
COMMIT;
SELECT results_eq($$SELECT version FROM evento.read_stream('d-2')$$, $$VALUES (2::bigint)$$, 'leaves what was appended');
SELECT * FROM finish();
