-- streams.sql: deletion together with appends of the same transaction,
-- tombstones, metadata of streams, snapshots of what is not written yet.
\ir helpers.psql
SELECT plan(149);

-- What a session that comes later finds of a stream: head, versions that are read, deleted?, tombstone?
CREATE FUNCTION pg_temp.found(stream text, OUT head bigint, OUT versions text, OUT deleted boolean, OUT tombstone boolean) LANGUAGE sql AS $$
  SELECT (SELECT l.version FROM evento.load_stream(found.stream) l WHERE part = 'head'), (SELECT string_agg(version::text, ' ' ORDER BY version) FROM evento.read_stream(found.stream)),
         (SELECT s.deleted_at IS NOT NULL FROM evento.streams s WHERE s.stream = found.stream), (SELECT s.tombstone FROM evento.streams s WHERE s.stream = found.stream)
$$;
-- What has to hold of the tables, whatever was done.
CREATE FUNCTION pg_temp.unsound() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT s.name FROM evento._streams s LEFT JOIN evento._events e USING (stream_no) GROUP BY s.stream_no HAVING count(e) <> COALESCE(max(e.version), 0) OR s.stream_no <> min(e.position)
      OR (s.deleted_at IS NOT NULL) <> (s.tombstone OR s.deleted_version > 0 AND s.deleted_version = COALESCE(max(e.version), 0)) OR s.deleted_version > COALESCE(max(e.version), 0)
   UNION ALL SELECT position::text FROM evento._events WHERE stream_no IS NOT NULL AND stream_no NOT IN (SELECT stream_no FROM evento._streams)
$$;

-- ---- append, then delete ----

SELECT evento.append('a-1', 'T', '1') \gset
BEGIN;
SELECT is(evento.append('a-1', 'T', '2'), 2::bigint, 'appended to a stream that is there');
SELECT is(evento.delete_stream('a-1', 2), 2::bigint, 'and deleted: the version that is expected is the buffered one');
SELECT is_empty($$SELECT 1 FROM evento.read_stream('a-1')$$, 'hidden for itself');
SELECT throws_ok($$SELECT evento.append('a-1', 'T', '3', expected => -4)$$, 'V0001', NULL, 'it is not there');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('a-1')$$, $$VALUES (2::bigint, NULL, true, false)$$, 'both versions are hidden');
SELECT is(evento.append('a-1', 'T', '3', expected => 2), 3::bigint, 'and it goes on');
SELECT results_eq($$SELECT * FROM pg_temp.found('a-1')$$, $$VALUES (3::bigint, '3', false, false)$$, '…');

BEGIN;
SELECT is(evento.append('a-2', 'T', '1'), 1::bigint, 'appended to a stream that is new');
SELECT is(evento.append('a-2', 'T', '2'), 2::bigint, '…');
SELECT is(evento.delete_stream('a-2'), 2::bigint, 'and deleted');
SELECT results_eq($$SELECT deleted_at IS NOT NULL, version FROM evento.streams WHERE stream = 'a-2'$$, $$VALUES (true, 0::bigint)$$, 'deleted for itself, without an event that could be seen');
SELECT is(evento.delete_stream('a-2', 0), 2::bigint, 'deleted again');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('a-2')$$, $$VALUES (2::bigint, NULL, true, false)$$, 'is there, and hidden');
SELECT is((SELECT count(*) FROM evento._events e JOIN evento._streams s USING (stream_no) WHERE s.name = 'a-2'), 2::bigint, 'with its events, hidden');
CALL evento.wait(NULL) \gset
SELECT is_empty($$SELECT 1 FROM evento.events WHERE stream = 'a-2'$$, 'from every read');
SELECT is_empty($$SELECT 1 FROM evento.read_all() WHERE stream = 'a-2'$$, '…');
SELECT is(evento.append('a-2', 'T', '3', expected => 0), 3::bigint, 'and it goes on');

-- ---- append, delete, append ----

BEGIN;
SELECT is(evento.append('a-3', 'T', '1', id => '00000000-0000-0000-0000-000000000001'), 1::bigint, 'new, appended');
SELECT is(evento.delete_stream('a-3', 1), 1::bigint, 'deleted');
SELECT throws_ok($$SELECT evento.append('a-3', 'T', '2', expected => 7)$$, 'V0001', NULL, 'a wrong version after that');
SELECT is(evento.append('a-3', 'T', '1', id => '00000000-0000-0000-0000-000000000001'), 1::bigint, 'an id that it had is a repeat');
SELECT is(evento.append('a-3', 'T', '2', expected => 0), 2::bigint, 'appended again: it was not there');
SELECT throws_ok($$SELECT evento.append('a-3', 'T', '3', expected => 0)$$, 'V0001', NULL, 'but now');
SELECT is(evento.append('a-3', 'T', '3', expected => -4), 3::bigint, '…');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('a-3')$$, $$VALUES (3::bigint, '2 3', false, false)$$, 'what came behind the deletion is left');
BEGIN;
SELECT is(evento.append('a-3', 'T', '4'), 4::bigint, 'the same with a stream that is there');
SELECT is(evento.delete_stream('a-3'), 4::bigint, '…');
SELECT is(evento.append('a-3', 'T', '5'), 5::bigint, '…');
SELECT is(evento.delete_stream('a-3'), 5::bigint, 'twice');
SELECT is(evento.append('a-3', 'T', '6', expected => 5), 6::bigint, '…');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('a-3')$$, $$VALUES (6::bigint, '6', false, false)$$, '…');
SELECT evento.append('a-4', 'T', '1'), evento.delete_stream('a-4'), evento.append('a-4', 'T', '2') \gset
SELECT results_eq($$SELECT * FROM pg_temp.found('a-4')$$, $$VALUES (2::bigint, '2', false, false)$$, 'in one statement');
BEGIN;
SELECT evento.delete_stream('a-4'), evento.append('a-4', 'T', '3'), evento.delete_stream('a-4') \gset
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('a-4')$$, $$VALUES (3::bigint, NULL, true, false)$$, 'deleted, appended, deleted');
SELECT is_empty('SELECT pg_temp.unsound()', 'the tables are sound');

-- ---- savepoints ----

BEGIN;
SELECT evento.append('s-1', 'T', '1') \gset
SAVEPOINT x;
SELECT is(evento.delete_stream('s-1'), 1::bigint, 'a deletion behind a savepoint');
ROLLBACK TO x;
SELECT is(evento.append('s-1', 'T', '2', expected => -4), 2::bigint, 'that is rolled back: the stream is there');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('s-1')$$, $$VALUES (2::bigint, '1 2', false, false)$$, 'with what was appended before');

BEGIN;
SELECT evento.append('s-2', 'T', '1') \gset
SELECT evento.delete_stream('s-2') \gset
SAVEPOINT x;
SELECT is(evento.append('s-2', 'T', '2', expected => 0), 2::bigint, 'an append behind a deletion and a savepoint');
ROLLBACK TO x;
SELECT is((SELECT count(*) FROM evento.streams WHERE stream = 's-2' AND deleted_at IS NOT NULL), 1::bigint, 'rolled back: deleted still');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('s-2')$$, $$VALUES (1::bigint, NULL, true, false)$$, '…');

BEGIN;
SAVEPOINT x;
SELECT evento.append('s-3', 'T', '1'), evento.delete_stream('s-3') \gset
ROLLBACK TO x;
SELECT is(evento.append('s-3', 'T', '1', expected => 0), 1::bigint, 'both rolled back: nothing was there');
SELECT throws_ok($$SELECT evento.delete_stream('s-3', 2)$$, 'V0001', NULL, 'nor deleted');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('s-3')$$, $$VALUES (1::bigint, '1', false, false)$$, '…');

BEGIN;
SELECT evento.append('s-4', 'T', '1') \gset
SAVEPOINT x;
SELECT evento.append('s-4', 'T', '2') \gset
SAVEPOINT y;
SELECT is(evento.delete_stream('s-4', 2), 2::bigint, 'nested');
SAVEPOINT z;
SELECT is(evento.append('s-4', 'T', '3', expected => 2), 3::bigint, '…');
RELEASE z;
ROLLBACK TO y;
SELECT is(evento.append('s-4', 'T', '3', expected => 2), 3::bigint, 'an inner one that was released goes with the outer');
RELEASE y;
SELECT is(evento.delete_stream('s-4', 3), 3::bigint, 'deleted again');
ROLLBACK TO x;
SELECT is(evento.append('s-4', 'T', '2', expected => 1), 2::bigint, 'all of it rolled back');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('s-4')$$, $$VALUES (2::bigint, '1 2', false, false)$$, '…');

BEGIN;
SAVEPOINT x;
SELECT evento.append('s-5', 'T', '1'), evento.delete_stream('s-5') \gset
RELEASE x;
SAVEPOINT y;
SELECT evento.append('s-5', 'T', '2') \gset
RELEASE y;
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('s-5')$$, $$VALUES (2::bigint, '2', false, false)$$, 'all of it released');
DO $$
BEGIN
  FOR i IN 1 .. 20 LOOP
    BEGIN
      PERFORM evento.append('s-6', 'T', '1');
      IF i % 2 = 0 THEN PERFORM evento.delete_stream('s-6'); END IF;
      IF i % 3 = 0 THEN RAISE EXCEPTION 'away'; END IF;
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
  END LOOP;
END $$;
SELECT results_eq($$SELECT * FROM pg_temp.found('s-6')$$, $$VALUES (14::bigint, NULL, true, false)$$, 'exceptions in a loop: fourteen stay, the last of them deleted it');
BEGIN;
SELECT evento.append('s-7', 'T', '1') \gset
SAVEPOINT x;
SELECT evento.delete_stream('s-7') \gset
ROLLBACK TO x;
-- another way of changing rows makes the commit look again
UPDATE evento._streams SET name = name WHERE false;
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('s-7')$$, $$VALUES (1::bigint, '1', false, false)$$, 'a deletion that is gone is no change by another way');
BEGIN;
SELECT evento.append('u-1', 'T', '1') \gset
SAVEPOINT x;
SELECT evento.delete_stream('u-1') \gset
SELECT is(evento.append('u-1', 'T', '2', expected => 0), 2::bigint, 'a deletion that an append has taken note of');
ROLLBACK TO x;
SELECT is(evento.append('u-1', 'T', '2', expected => -4), 2::bigint, 'is forgotten with the savepoint');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('u-1')$$, $$VALUES (2::bigint, '1 2', false, false)$$, 'by the commit, too');
BEGIN;
SELECT evento.append('s-8', 'T', '1'), evento.delete_stream('s-8') \gset
UPDATE evento._streams SET name = name WHERE false;
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('s-8')$$, $$VALUES (1::bigint, NULL, true, false)$$, 'nor one of our own');
SELECT is_empty('SELECT pg_temp.unsound()', 'the tables are sound');

-- with more than fits into memory
SET evento.append_memory = '64kB';
BEGIN;
SELECT count(evento.append('l-1', 'T', to_json(repeat(md5(n::text), 40)))) FROM generate_series(1, 300) n \gset
SELECT is(evento.delete_stream('l-1', 300), 300::bigint, 'deleted, with events in a file');
SAVEPOINT x;
SELECT count(evento.append('l-1', 'T', to_json(repeat(md5(n::text), 40)))) FROM generate_series(1, 300) n \gset
SELECT is(evento.delete_stream('l-1', 600), 600::bigint, '…');
ROLLBACK TO x;
SELECT is(evento.append('l-1', 'T', '301', expected => 0), 301::bigint, 'a savepoint undoes that alone');
SELECT count(evento.append('l-2', 'T', to_json(repeat(md5(n::text), 40)))) FROM generate_series(1, 300) n \gset
SELECT is(evento.tombstone_stream('l-2', 300), 300::bigint, 'ended');
COMMIT;
RESET evento.append_memory;
SELECT results_eq($$SELECT * FROM pg_temp.found('l-1')$$, $$VALUES (301::bigint, '301', false, false)$$, 'what came behind the deletion is left');
SELECT results_eq($$SELECT * FROM pg_temp.found('l-2')$$, $$VALUES (300::bigint, NULL, true, true)$$, 'nothing of what was ended');
SELECT is_empty('SELECT pg_temp.unsound()', 'the tables are sound');

-- in a transaction that keeps its snapshot
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT evento.append('s-9', 'T', '1'), evento.delete_stream('s-9'), evento.append('s-9', 'T', '2', expected => 0) \gset
SELECT evento.append('s-1', 'T', '3'), evento.delete_stream('s-1', 3), evento.tombstone_stream('s-5', 2) \gset
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('s-9')$$, $$VALUES (2::bigint, '2', false, false)$$, 'SERIALIZABLE: the same');
SELECT results_eq($$SELECT * FROM pg_temp.found('s-1')$$, $$VALUES (3::bigint, NULL, true, false)$$, '…');

-- ---- snapshots of what is buffered ----

BEGIN;
SELECT evento.append('n-1', 'T', '1') \gset
SELECT ok(evento.save_snapshot('n-1', 1, '"one"'), 'a snapshot of a version that is buffered');
SAVEPOINT x;
SELECT evento.append('n-1', 'T', '2') \gset
SELECT ok(evento.save_snapshot('n-1', 2, '"two"'), 'of the next');
ROLLBACK TO x;
SELECT throws_ok($$SELECT evento.save_snapshot('n-1', 2, '"two"')$$, 'V0001', NULL, 'not of one that was rolled back');
COMMIT;
SELECT results_eq($$SELECT version, data::text FROM evento.load_stream('n-1') WHERE part = 'snapshot'$$, $$VALUES (1::bigint, '"one"')$$, 'the one that stands');
BEGIN;
SELECT evento.append('n-1', 'T', '2') \gset
SELECT evento.save_snapshot('n-1', 2, '"two"') \gset
SELECT evento.delete_stream('n-1') \gset
SELECT throws_ok($$SELECT evento.save_snapshot('n-1', 2, '"two"')$$, 'V0001', NULL, 'none of what is deleted');
SELECT ok(NOT evento.drop_snapshots('n-1'), 'it went with the deletion');
SELECT evento.append('n-1', 'T', '3') \gset
SELECT ok(evento.save_snapshot('n-1', 3, '"three"'), 'one of behind the deletion');
COMMIT;
SELECT results_eq($$SELECT part, version FROM evento.load_stream('n-1')$$, $$VALUES ('head', 3::bigint), ('snapshot', 3)$$, '…');
SELECT ok(NOT evento.save_snapshot('n-1', 3, '"four"'), 'the same version again is not taken');

-- ---- tombstones ----

SELECT count(evento.append('t-1', 'T', to_json(n), id => ('00000000-0000-0000-0000-00000000000' || n)::uuid)) FROM generate_series(1, 3) n \gset
SELECT evento.save_snapshot('t-1', 2, '1'), evento.set_stream_metadata('t-1', '{"a": 1}') \gset
SELECT throws_ok($$SELECT evento.tombstone_stream('t-1', 2)$$, 'V0001', NULL, 'wrong expected version');
SELECT throws_ok($$SELECT evento.tombstone_stream('t-1', 0)$$, 'V0001', NULL, 'expected not to be there');
SELECT throws_ok($$SELECT evento.tombstone_stream('t-1', -1)$$, '22023', NULL, 'expected nonsense');
BEGIN;
SELECT is(evento.tombstone_stream('t-1', 3), 3::bigint, 'a tombstone');
SELECT throws_ok($$SELECT evento.append('t-1', 'T', '4')$$, 'V0003', NULL, 'ends it for its own transaction');
ROLLBACK;
SELECT is(evento.append('t-1', 'T', '4'), 4::bigint, 'and goes with its rollback');
SELECT is((SELECT count(*) FROM evento.load_stream('t-1') WHERE part = 'snapshot'), 1::bigint, '…');
SELECT is(evento.tombstone_stream('t-1', -4), 4::bigint, 'for good: gives the last version');
SELECT is((SELECT state FROM pg_temp.catch(s)), 'V0003', 'refused: ' || s) FROM unnest(ARRAY[
  $$SELECT evento.append('t-1', 'T', '5')$$, $$SELECT evento.append('t-1', 'T', '5', expected => 0)$$, $$SELECT evento.append('t-1', 'T', '5', expected => 4)$$, $$SELECT evento.append('t-1', 'T', '5', expected => -4)$$,
  $$SELECT evento.append('t-1', 'T', '1', id => '00000000-0000-0000-0000-000000000001')$$, $$SELECT evento.append_events('t-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[])$$,
  $$SELECT evento.delete_stream('t-1')$$, $$SELECT evento.tombstone_stream('t-1')$$, $$SELECT evento.tombstone_stream('t-1', 4)$$, $$SELECT evento.save_snapshot('t-1', 4, '1')$$, $$SELECT evento.set_stream_metadata('t-1', '1')$$]) s;
SELECT results_eq($$SELECT outcome, first_version, detail FROM evento.append_batch(pg_temp.batch(pg_temp.item('t-1', ARRAY[pg_temp.event('T', '1')]), pg_temp.item('t-0', ARRAY[pg_temp.event('T', '1')])))$$,
  $$VALUES ('V0003', NULL::bigint, 'stream "t-1" was deleted for good'), ('00000', 1, NULL)$$, 'in a batch that one alone');
SELECT is((SELECT count(DISTINCT replace(message, t, '')) FROM unnest(ARRAY['t-1', 't-2']) t, pg_temp.catch($$SELECT evento.append('t-1', 'T', '1')$$), evento.tombstone_stream('t-2') WHERE t = 't-1'), 1::bigint, 'said in one way');
CALL evento.wait(NULL) \gset
SELECT is_empty($$SELECT 1 FROM evento.events WHERE stream = 't-1'$$, 'events has none of it');
SELECT is_empty($$SELECT 1 FROM evento.read_all() WHERE stream = 't-1'$$, 'nor read_all');
SELECT is_empty($$SELECT 1 FROM evento.read_stream('t-1')$$, 'nor read_stream');
SELECT results_eq($$SELECT part, version FROM evento.load_stream('t-1', '00000000-0000-0000-0000-000000000001')$$, $$VALUES ('head', 4::bigint)$$, 'load_stream knows its head');
SELECT is_empty($$SELECT 1 FROM evento._snapshots WHERE stream = 't-1'$$, 'its snapshot is gone');
SELECT results_eq($$SELECT version, deleted_at IS NOT NULL, tombstone, first_recorded_at IS NULL, metadata::text FROM evento.streams WHERE stream = 't-1'$$, $$VALUES (4::bigint, true, true, true, NULL)$$, 'streams says so, and its metadata is gone');
SELECT is(evento.stream_metadata('t-1')::text, NULL, '…');

SELECT results_eq($$SELECT version, deleted_at IS NOT NULL, tombstone FROM evento.streams WHERE stream = 't-2'$$, $$VALUES (0::bigint, true, true)$$, 'a stream that never was has one too');
SELECT throws_ok($$SELECT evento.append('t-2', 'T', '1')$$, 'V0003', NULL, 'and takes no append');
SELECT throws_ok($$SELECT evento.tombstone_stream('t-3', 1)$$, 'V0001', NULL, 'if that was expected');
SELECT throws_ok($$SELECT evento.tombstone_stream('t-3', -4)$$, 'V0001', NULL, '…');
SELECT is(evento.tombstone_stream('t-3', 0), 0::bigint, '…');
SELECT is((SELECT count(*) FROM generate_series(1, 300) n WHERE evento.tombstone_stream('many-' || n) = 0), 300::bigint, 'many of them');
SELECT evento.append('t-4', 'T', '1') \gset
SELECT evento.delete_stream('t-4') \gset
SELECT deleted_at FROM evento.streams WHERE stream = 't-4' \gset
SELECT throws_ok($$SELECT evento.tombstone_stream('t-4', -4)$$, 'V0001', NULL, 'of one that was deleted');
SELECT is(evento.tombstone_stream('t-4', 1), 1::bigint, '…');
SELECT results_eq($$SELECT deleted_at, tombstone FROM evento.streams WHERE stream = 't-4'$$, format($$VALUES (%L::timestamptz, true)$$, :'deleted_at'), 'which keeps the time of that');
BEGIN;
SELECT evento.append('t-5', 'T', '1'), evento.append('t-6', 'T', '1') \gset
SELECT is(evento.tombstone_stream('t-5', 1), 1::bigint, 'in the transaction that appends to it');
SAVEPOINT x;
SELECT is(evento.tombstone_stream('t-6', 1), 1::bigint, 'behind a savepoint');
ROLLBACK TO x;
SELECT is(evento.append('t-6', 'T', '2', expected => 1), 2::bigint, 'that is rolled back');
SELECT throws_ok($$SELECT evento.append('t-5', 'T', '2')$$, 'V0003', NULL, 'and the other one stays');
COMMIT;
SELECT results_eq($$SELECT * FROM pg_temp.found('t-5')$$, $$VALUES (1::bigint, NULL, true, true)$$, '…');
SELECT results_eq($$SELECT * FROM pg_temp.found('t-6')$$, $$VALUES (2::bigint, '1 2', false, false)$$, '…');
SELECT throws_ok($$SELECT evento.append('t-5', 'T', '2')$$, 'V0003', NULL, 'afterwards too');
SELECT is((SELECT count(*) FROM evento._streams WHERE stream_no < 0), 302::bigint, 'only those without an event have a number of their own');
SELECT is_empty($$SELECT 1 FROM evento._streams s LEFT JOIN evento._events e USING (stream_no) WHERE stream_no > 0 AND e IS NULL$$, '…');
SELECT is_empty($$SELECT u FROM pg_temp.unsound() u WHERE u NOT IN (SELECT name FROM evento._streams WHERE stream_no < 0)$$, 'the tables are sound');
SELECT is((SELECT state FROM pg_temp.catch('SELECT evento.tombstone_stream(' || a || ')')), '22023', 'refused: tombstone_stream(' || left(a, 40) || ')') FROM unnest(ARRAY['NULL', $$''$$, $$repeat('s', 513)$$]) a;

-- ---- metadata ----

SELECT is(evento.stream_metadata('m-1')::text, NULL, 'no metadata');
SELECT is(evento.set_stream_metadata('m-1', '{"owner": "ann",  "n": 1.10}', 0), 1::bigint, 'metadata of a stream without events');
SELECT is(evento.stream_metadata('m-1')::text, '{"owner": "ann",  "n": 1.10}', 'as it was written');
SELECT is_empty($$SELECT 1 FROM evento.streams WHERE stream = 'm-1'$$, 'which makes no stream');
SELECT is(evento.append('m-1', 'T', '1', expected => 0), 1::bigint, '…');
SELECT results_eq($$SELECT metadata->>'owner', metadata_revision FROM evento.streams WHERE stream = 'm-1'$$, $$VALUES ('ann', 1::bigint)$$, 'then streams shows it');
SELECT throws_ok($$SELECT evento.set_stream_metadata('m-1', '2', 0)$$, 'V0001', NULL, 'a wrong revision');
SELECT throws_ok($$SELECT evento.set_stream_metadata('m-1', '2', 2)$$, 'V0001', NULL, '…');
SELECT throws_ok($$SELECT evento.set_stream_metadata('m-1', '2', -4)$$, '22023', NULL, 'one that cannot be');
SELECT is(evento.set_stream_metadata('m-1', '{"owner": "bob"}', 1), 2::bigint, 'the right one');
SELECT is(evento.set_stream_metadata('m-1', '{"owner": "cyd"}'), 3::bigint, 'any');
SELECT is(evento.set_stream_metadata('m-1', NULL), 4::bigint, 'taken away');
SELECT is(evento.stream_metadata('m-1')::text, NULL, '…');
SELECT is(evento.set_stream_metadata('m-1', to_json(repeat('x', 100000)), 4), 5::bigint, 'its revisions go on');
SELECT is(length(evento.stream_metadata('m-1') #>> '{}'), 100000, 'a large one');
SELECT evento.delete_stream('m-1') \gset
SELECT is((SELECT metadata_revision FROM evento.streams WHERE stream = 'm-1'), 5::bigint, 'it outlives a deletion');
BEGIN;
SELECT evento.set_stream_metadata('m-1', '1') \gset
SAVEPOINT x;
SELECT is((SELECT array_agg(evento.set_stream_metadata('m-1', to_json(n)) ORDER BY n) FROM generate_series(1, 3) n), '{7,8,9}'::bigint[], 'several in one statement');
ROLLBACK TO x;
SELECT is(evento.set_stream_metadata('m-1', '2', 6), 7::bigint, 'a savepoint');
ROLLBACK;
SELECT is((SELECT metadata_revision FROM evento.streams WHERE stream = 'm-1'), 5::bigint, 'a rollback');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.set_stream_metadata('m-1', (repeat('[', 300) || repeat(']', 300))::json)$$)), '22P02', 'nested too deep');
SELECT is((SELECT state FROM pg_temp.catch('SELECT evento.' || a)), '22023', 'refused: ' || left(a, 40)) FROM unnest(ARRAY[$$set_stream_metadata(NULL, '1')$$, $$set_stream_metadata('', '1')$$, $$stream_metadata(NULL)$$, $$stream_metadata(repeat('s', 513))$$]) a;
SELECT * FROM finish();
