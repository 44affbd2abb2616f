-- large.sql: transactions that append more than evento.append_memory: memory
-- stays bounded, order and versions are kept, savepoints cut the temporary file,
-- ids are found in it, and a fault of it leaves nothing behind.
\ir helpers.psql
SELECT plan(46);

-- Bytes of this session's temporary files.
CREATE FUNCTION pg_temp.spilled() RETURNS bigint LANGUAGE sql AS
$$ SELECT COALESCE(sum(size), 0)::bigint FROM pg_ls_tmpdir() WHERE name LIKE 'pgsql\_tmp' || pg_backend_pid() || '.%' $$;

-- Appends events numbered from..until to streams of a category, every tenth to none.
CREATE FUNCTION pg_temp.fill(category text, first integer, last integer, streams integer DEFAULT 7) RETURNS bigint LANGUAGE sql AS
$$ SELECT count(*) FROM (SELECT evento.append(CASE WHEN n % 10 <> 0 THEN category || '-' || n % streams END, 'T', json_build_object('c', category, 'n', n, 'pad', repeat('x', 200)))
                           FROM generate_series(first, last) n OFFSET 0) a $$;

-- The numbers of a category in the order of the log.
CREATE FUNCTION pg_temp.numbers(category text) RETURNS integer[] LANGUAGE sql AS
$$ SELECT array_agg((data->>'n')::integer ORDER BY position) FROM evento._events WHERE data->>'c' = category $$;

-- What must hold whenever something was stored.
CREATE FUNCTION pg_temp.sound() RETURNS boolean LANGUAGE sql AS
$$ SELECT NOT EXISTS (SELECT FROM evento._events WHERE stream_no IS NOT NULL GROUP BY stream_no HAVING min(version) <> 1 OR max(version) <> count(*) OR stream_no <> min(position))
          AND NOT EXISTS (SELECT FROM (SELECT version, lag(version) OVER (PARTITION BY stream_no ORDER BY position) FROM evento._events WHERE stream_no IS NOT NULL) v WHERE lag >= version)
          AND NOT EXISTS (SELECT FROM evento._events e LEFT JOIN evento._streams s USING (stream_no) WHERE e.stream_no IS NOT NULL AND s.stream_no IS NULL) $$;

-- ---- memory ----

SET evento.append_memory = '4MB';
SELECT sum(total_bytes) AS before FROM pg_backend_memory_contexts \gset
BEGIN;
SELECT is(pg_temp.fill('memory', 1, 200000, 1000), 200000::bigint, 'two hundred thousand events in one transaction, of sixty megabytes');
SELECT cmp_ok((SELECT total_bytes FROM pg_backend_memory_contexts WHERE name = 'evento rows'), '<', 6000000::bigint, 'their rows take no more than evento.append_memory, and a block');
SELECT cmp_ok((SELECT sum(total_bytes) FROM pg_backend_memory_contexts), '<', :before + 30000000::numeric, 'all memory of the session has grown by the list of them only');
SELECT cmp_ok(pg_temp.spilled(), '>', 50000000::bigint, 'the rest is in a temporary file');
SELECT is((SELECT count(*) FROM evento._events), 0::bigint, 'and none in the table');
COMMIT;
SELECT is(pg_temp.spilled(), 0::bigint, 'after the commit the file is gone');
SELECT is((SELECT ARRAY[count(*), min(position), max(position)] FROM evento._events), ARRAY[200000::bigint, 1, 200000], 'all have got positions, in one block');
SELECT ok(pg_temp.numbers('memory') = ARRAY(SELECT generate_series(1, 200000)), 'in the order in which they were appended');
SELECT ok(pg_temp.sound(), 'versions are dense in every stream');
SELECT is((SELECT ARRAY[first, last] FROM evento.last_append()), ARRAY[1::bigint, 200000], 'last_append gives the block');
CALL evento.wait(NULL) \gset
SELECT is((SELECT count(*) FROM evento.events WHERE position > 199000), 1000::bigint, 'readers are given them');

-- ---- savepoints in the middle of it ----

SET evento.append_memory = '64kB';
BEGIN;
SELECT pg_temp.fill('save', 1, 3000) \gset
SAVEPOINT a;
SELECT pg_temp.fill('save', -2000, -1) \gset
SAVEPOINT b;
SELECT pg_temp.fill('save', -500, -1, 300) \gset
RELEASE b;
SELECT pg_temp.fill('save', -10, -1) \gset
ROLLBACK TO a;
SELECT is(evento.append('save-8', 'T', '{"c": "other"}', expected => 0), 1::bigint, 'streams of a savepoint that was rolled back are gone');
SELECT pg_temp.fill('save', 3001, 4000) \gset
SAVEPOINT c;
SELECT pg_temp.fill('save', -3, -1) \gset
ROLLBACK TO c;
SAVEPOINT d;
SELECT pg_temp.fill('save', 4001, 6500) \gset
RELEASE d;
DO $$
BEGIN
  FOR i IN 1..100 LOOP
    PERFORM pg_temp.fill('save', 6500 + i * 20 - 19, 6500 + i * 20);
    BEGIN
      PERFORM pg_temp.fill('save', -i * 11, -1);
      RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
      NULL;
    END;
  END LOOP;
END
$$;
SELECT is((SELECT evento.append('save-1', 'T', '{"c": "other"}', expected => (SELECT count(*) FROM generate_series(1, 8500) n WHERE n % 7 = 1 AND n % 10 <> 0))), 1 + (SELECT count(*) FROM generate_series(1, 8500) n WHERE n % 7 = 1 AND n % 10 <> 0), 'versions go on behind what was rolled back');
COMMIT;
SELECT ok(pg_temp.numbers('save') = ARRAY(SELECT generate_series(1, 8500)), 'what was rolled back is missing, and nothing else');
SELECT is((SELECT last - first + 1 FROM evento.last_append()), 8502::bigint, 'the positions are one block');
SELECT ok(pg_temp.sound(), 'versions are dense');

BEGIN;
SAVEPOINT a;
SELECT pg_temp.fill('none', 1, 3000) \gset
ROLLBACK TO a;
COMMIT;
SELECT is(pg_temp.spilled(), 0::bigint, 'all rolled back, the commit closes the file');
BEGIN;
SAVEPOINT a;
SELECT pg_temp.fill('late', -3000, -1) \gset
ROLLBACK TO a;
SELECT pg_temp.fill('late', 1, 3000) \gset
COMMIT;
SELECT ok(pg_temp.numbers('late') = ARRAY(SELECT generate_series(1, 3000)), 'a file that was begun in a savepoint outlives it');
BEGIN;
SAVEPOINT a;
SELECT pg_temp.fill('none', 1, 3000) \gset
ROLLBACK TO a;
PREPARE TRANSACTION 'spilled';
SELECT is((SELECT count(*) FROM pg_prepared_xacts), 1::bigint, 'as does PREPARE TRANSACTION');
SELECT is(pg_temp.spilled(), 0::bigint, '…');
ROLLBACK PREPARED 'spilled';
BEGIN;
SELECT pg_temp.fill('none', 1, 3000) \gset
\set ON_ERROR_STOP 0
PREPARE TRANSACTION 'spilled';
\set state :SQLSTATE
\set ON_ERROR_STOP 1
SELECT is(:'state'::text, 'V0007', 'which refuses what is left');
BEGIN;
SELECT pg_temp.fill('none', 1, 3000) \gset
ROLLBACK;
SELECT is(pg_temp.numbers('none'), NULL, 'rolled back as a whole');
SELECT is(pg_temp.spilled(), 0::bigint, 'the file goes, too');

-- ---- ids ----

BEGIN;
SELECT evento.append('ids-1', 'T', '{"first": true}', id => '00000000-0000-0000-0000-000000000001') \gset
SELECT evento.append_events('ids-1', ARRAY[ROW('A', to_json(repeat('a', 300000)), NULL, '00000000-0000-0000-0000-000000000002', NULL, NULL, NULL), ROW('B', '2', NULL, '00000000-0000-0000-0000-000000000003', NULL, NULL, NULL)]::evento.new_event[]) \gset
SELECT evento.append(NULL, 'T', '{"loose": true}', id => '00000000-0000-0000-0000-000000000004') \gset
SELECT pg_temp.fill('between', 1, 2000) \gset
SELECT cmp_ok(pg_temp.spilled(), '>', 0::bigint, 'ids of events that are in the file');
SELECT is(evento.append('ids-1', 'T', '{"first": true}', expected => 0, id => '00000000-0000-0000-0000-000000000001'), 1::bigint, 'are found');
SELECT is((SELECT state || detail FROM pg_temp.catch($$SELECT evento.append('ids-1', 'T', '{"first":true}', id => '00000000-0000-0000-0000-000000000001')$$)), 'V0002The event that has the id differs in type or data.', 'and their content compared');
SELECT is(evento.append_events('ids-1', ARRAY[ROW('A', to_json(repeat('a', 300000)), NULL, '00000000-0000-0000-0000-000000000002', NULL, NULL, NULL), ROW('B', '2', NULL, '00000000-0000-0000-0000-000000000003', NULL, NULL, NULL)]::evento.new_event[]), 3::bigint, 'also of several, and large ones');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append_events('ids-1', ARRAY[ROW('A', to_json(repeat('a', 299999) || 'b'), NULL, '00000000-0000-0000-0000-000000000002', NULL, NULL, NULL), ROW('B', '2', NULL, '00000000-0000-0000-0000-000000000003', NULL, NULL, NULL)]::evento.new_event[])$$)), 'V0002', 'that differ in the last byte');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append(NULL, 'T', '{"loose": false}', id => '00000000-0000-0000-0000-000000000004')$$)), 'V0002', 'without stream');
SAVEPOINT a;
SELECT evento.append('ids-1', 'T', '"gone"', id => '00000000-0000-0000-0000-000000000005') \gset
SELECT pg_temp.fill('gone', 1, 2000) \gset
ROLLBACK TO a;
SELECT is(evento.append('ids-1', 'T', '"kept"', id => '00000000-0000-0000-0000-000000000005'), 4::bigint, 'an id that was rolled back is free');
SELECT pg_temp.fill('between', 2001, 4000) \gset
COMMIT;
SELECT results_eq($$SELECT version, type, length(data::text) FROM evento.read_stream('ids-1')$$, $$VALUES (1::bigint, 'T'::text COLLATE "C", 15), (2, 'A', 300002), (3, 'B', 1), (4, 'T', 6)$$, 'each is stored once');
SELECT ok(pg_temp.numbers('between') = ARRAY(SELECT generate_series(1, 4000)), 'with all that was between');

-- ---- large events, other indexes, batches ----

BEGIN;
SELECT count(evento.append('big-1', 'T', to_json(repeat(md5(n::text), 20 * n)), to_json(n))) FROM generate_series(1, 400) n \gset
SELECT evento.append('big-1', 'T', to_json(repeat('x', 6000000)), '401') \gset
SELECT evento.append('big-1', 'T', '"small"', '402') \gset
COMMIT;
SELECT is_empty($$SELECT version FROM evento.read_stream('big-1') WHERE version <= 400 AND (data #>> '{}' <> repeat(md5(version::text), 20 * version::integer) OR metadata #>> '{}' <> version::text)$$, 'large events come back as they were given');
SELECT is((SELECT array_agg(length(data::text) ORDER BY version) FROM evento.read_stream('big-1', 401)), ARRAY[6000002, 7], 'as one does that is larger than the memory given');
CREATE INDEX by_size ON evento._events (octet_length(data::text)) WHERE type = 'Sized';
BEGIN;
SELECT count(evento.append('sized-1', 'Sized', to_json(repeat('x', n)))) FROM generate_series(1, 3000) n \gset
COMMIT;
SET enable_seqscan = off;
SELECT is((SELECT version FROM evento._events WHERE type = 'Sized' AND octet_length(data::text) = 1502), 1500::bigint, 'indexes that a user has made are kept up');
RESET enable_seqscan;
DROP INDEX evento.by_size;
SELECT is((SELECT count(*) FROM evento.append_batch((SELECT '\x45564231'::bytea || int4send(9000) || string_agg(pg_temp.item('batch-' || n % 900, ARRAY[pg_temp.event('A', format('{"c": "batch", "n": %s}', n))]), ''::bytea ORDER BY n) FROM generate_series(1, 9000) n)) WHERE outcome = '00000'), 9000::bigint, 'a batch');
SELECT ok(pg_temp.numbers('batch') = ARRAY(SELECT generate_series(1, 9000)), 'is written in its order');

-- ---- limits and faults ----

SET evento.max_transaction_size = '1MB';
SELECT is((SELECT state FROM pg_temp.catch($$SELECT pg_temp.fill('limit', 1, 5000)$$)), '54000', 'evento.max_transaction_size counts what is in the file');
RESET evento.max_transaction_size;
SET temp_file_limit = '1MB';
SELECT is((SELECT state FROM pg_temp.catch($$SELECT pg_temp.fill('limit', 1, 20000)$$)), '53400', 'temp_file_limit is honoured');
SELECT is(pg_temp.numbers('limit'), NULL, 'and nothing stored then');
RESET temp_file_limit;

-- the error may be caught: what was there before stays
BEGIN;
SELECT pg_temp.fill('limit', 1, 2000) \gset
SET LOCAL temp_file_limit = '2MB';
SELECT is((SELECT state FROM pg_temp.catch($$SELECT pg_temp.fill('limit', -20000, -1)$$)), '53400', 'no room in the middle of a transaction');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT pg_temp.fill('limit', -20000, -1)$$)), '53400', 'nor at the next try');
SELECT is(evento.append('limit-3', 'T', '{}', expected => (SELECT count(*) FROM generate_series(1, 2000) n WHERE n % 7 = 3 AND n % 10 <> 0)), 1 + (SELECT count(*) FROM generate_series(1, 2000) n WHERE n % 7 = 3 AND n % 10 <> 0), 'what was appended before is there');
SET LOCAL temp_file_limit = -1;
SELECT pg_temp.fill('limit', 2001, 6000) \gset
COMMIT;
SELECT ok(pg_temp.numbers('limit') = ARRAY(SELECT generate_series(1, 6000)), 'and is committed, with what came behind');
SELECT ok(pg_temp.sound(), 'versions are dense');
SELECT is((SELECT max(position) FROM evento._events), (SELECT count(*) FROM evento._events), 'and positions');
SELECT * FROM finish();
