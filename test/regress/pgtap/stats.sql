-- stats.sql: what the view stats counts, jump_positions.
\ir helpers.psql
SELECT plan(31);

SELECT columns_are('evento', 'stats', ARRAY['since', 'next_position', 'reserved_position', 'committed_position', 'watermark', 'waiting', 'worker_pid', 'worker_state', 'worker_since',
  'worker_error', 'worker_error_at', 'transactions', 'events', 'bytes', 'rolled_back', 'rolled_back_events', 'gaps', 'appends', 'batches', 'repeats', 'conflicts', 'id_clashes', 'busy', 'refused',
  'heads_found', 'heads_missed', 'advances', 'row_writes', 'notifies', 'notifies_left_out', 'waits', 'wait_wakeups', 'wait_timeouts', 'worker_starts', 'worker_errors']);
SELECT is_empty($$SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'evento.stats'::regclass AND a.attnum > 0 AND col_description(a.attrelid, a.attnum) IS NULL$$, 'each column has a comment');
SELECT results_eq('SELECT count(*) FROM evento.stats', ARRAY[1::bigint], 'one row');
SELECT results_eq('SELECT next_position, watermark, events FROM evento.stats', $$VALUES (NULL::bigint, 0::bigint, 0::bigint)$$, 'before anything was appended');

-- What changed since the last look.
CREATE TEMP TABLE before AS SELECT * FROM evento.stats;
CREATE FUNCTION pg_temp.change() RETURNS TABLE (name text, by bigint) LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY SELECT n.key, n.value::bigint - o.value::bigint
    FROM (SELECT * FROM json_each_text((SELECT row_to_json(s) FROM evento.stats s))) n
    JOIN (SELECT * FROM json_each_text((SELECT row_to_json(b) FROM before b))) o USING (key)
   WHERE n.key IN ('transactions', 'events', 'rolled_back', 'rolled_back_events', 'gaps', 'appends', 'batches', 'repeats', 'conflicts', 'id_clashes', 'busy', 'refused')
     AND n.value <> o.value ORDER BY n.key;
  DELETE FROM before;
  INSERT INTO before SELECT * FROM evento.stats;
END
$$;

SELECT evento.append('s-1', 'T', '1') \gset
SELECT results_eq('SELECT * FROM pg_temp.change()', $$VALUES ('appends', 1::bigint), ('events', 1), ('transactions', 1)$$, 'an append');
SELECT cmp_ok(bytes, '>', 50::bigint, 'its bytes') FROM evento.stats;
SELECT evento.append_events('s-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL), ROW('B', '2', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[]) \gset
SELECT results_eq('SELECT * FROM pg_temp.change()', $$VALUES ('appends', 1::bigint), ('events', 2), ('transactions', 1)$$, 'several events');
BEGIN;
SELECT evento.append('s-2', 'T', '1') \gset
SAVEPOINT a;
SELECT evento.append('s-2', 'T', '1') \gset
ROLLBACK TO a;
SELECT is_empty('SELECT * FROM pg_temp.change()', 'nothing before the commit');
COMMIT;
SELECT results_eq('SELECT * FROM pg_temp.change()', $$VALUES ('appends', 2::bigint), ('events', 1), ('transactions', 1)$$, 'a transaction with a savepoint');
BEGIN;
SELECT evento.append('s-3', 'T', '1'), evento.append('s-3', 'T', '1') \gset
ROLLBACK;
SELECT results_eq('SELECT * FROM pg_temp.change()', $$VALUES ('appends', 2::bigint), ('rolled_back', 1), ('rolled_back_events', 2)$$, 'a rollback leaves no gap');
SELECT is((pg_temp.catch($$SELECT evento.append('s-1', 'T', '1', expected => 0)$$)).state, 'V0001');
SELECT results_eq('SELECT * FROM pg_temp.change()', $$VALUES ('appends', 1::bigint), ('conflicts', 1)$$, 'a conflict');
SELECT evento.append('s-1', 'T', '7', id => '00000000-0000-0000-0000-000000000007') \gset
SELECT evento.append('s-1', 'T', '7', id => '00000000-0000-0000-0000-000000000007') \gset
SELECT is((pg_temp.catch($$SELECT evento.append('s-1', 'T', '8', id => '00000000-0000-0000-0000-000000000007')$$)).state, 'V0002');
SELECT results_eq('SELECT * FROM pg_temp.change()', $$VALUES ('appends', 3::bigint), ('events', 1), ('id_clashes', 1), ('repeats', 1), ('transactions', 1)$$, 'a repeat, and an id used for something else');
SELECT is((pg_temp.catch($$SELECT evento.append('s-1', '', '1')$$)).state, '22023');
SELECT results_eq('SELECT * FROM pg_temp.change()', $$VALUES ('appends', 1::bigint), ('refused', 1)$$, 'what is wrong in itself');
SELECT count(*) AS n FROM evento.append_batch(pg_temp.batch(pg_temp.item('s-4', ARRAY[pg_temp.event('T', '1')]), pg_temp.item('s-4', ARRAY[pg_temp.event('T', '1')], 7), pg_temp.item('s-5', ARRAY[pg_temp.event('T', '1'), pg_temp.event('T', '2')]))) \gset
SELECT results_eq('SELECT * FROM pg_temp.change()', $$VALUES ('appends', 3::bigint), ('batches', 1), ('conflicts', 1), ('events', 3), ('transactions', 1)$$, 'a batch');

-- a commit that fails after it took positions: a constraint that is checked at the end
CREATE TABLE parent (n int PRIMARY KEY);
CREATE TABLE child (n int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
\set ON_ERROR_STOP 0
BEGIN;
SELECT evento.append('s-6', 'T', '1') \gset
INSERT INTO child VALUES (1);
COMMIT;
\set ON_ERROR_STOP 1
SELECT results_eq($$SELECT * FROM pg_temp.change() WHERE name <> 'gaps'$$, $$VALUES ('appends', 1::bigint), ('rolled_back', 1), ('rolled_back_events', 1)$$, 'a commit that fails');

-- the watermark, waiting, the cache
CALL evento.wait(NULL) \gset
SELECT results_eq('SELECT watermark, committed_position, next_position - 1 FROM evento.stats', $$SELECT max(position), max(position), max(position) FROM evento.events$$, 'watermark and counter');
SELECT ok(reserved_position >= next_position, 'which is reserved') FROM evento.stats;
SELECT ok(advances > 0 AND row_writes > 0 AND notifies > 0, 'the worker gives it out') FROM evento.stats;
SELECT results_eq('SELECT worker_state, worker_pid, worker_error, worker_errors FROM evento.stats',
  $$SELECT 'running'::text, pid, NULL::text, 0::bigint FROM pg_stat_activity WHERE backend_type = 'evento worker' AND datname = current_database()$$, 'and runs');
SELECT watermark AS w FROM evento.stats \gset
CALL evento.wait(:w, '10ms') \gset
SELECT ok(wait_timeouts > 0 AND waits >= wait_timeouts AND waiting = 0, 'a wait whose time was up') FROM evento.stats;
SELECT heads_found AS found FROM evento.stats \gset
SELECT evento.append('s-1', 'T', '9') \gset
SELECT cmp_ok(heads_found, '>', :found::bigint, 'the newest version was in the cache') FROM evento.stats;

-- ---- jump_positions ----

SELECT next_position AS n FROM evento.stats \gset
SELECT last_position AS last, next_position AS next FROM evento.jump_positions('a test') \gset
SELECT is(:last::bigint, :n::bigint - 1, 'a jump gives the last position from before');
SELECT cmp_ok(:next::bigint, '>', :n::bigint + 1000000000 - 1, 'and leaves out as many as the setting says');
SELECT results_eq('SELECT last_position, next_position, reason FROM evento._jumps', format($$VALUES (%s::bigint, %s::bigint, 'a test')$$, :last, :next), 'it is on record');
SELECT evento.append('s-1', 'T', '10') \gset
SELECT is(first, :next::bigint, 'the next event has the position that was said') FROM evento.last_append();
CALL evento.wait(NULL) \gset
SELECT is(:watermark::bigint, :next::bigint, 'the watermark goes on');
SELECT is((pg_temp.catch($$SELECT evento.jump_positions('')$$)).state, '22023', 'a reason is wanted');
BEGIN READ ONLY;
SELECT is((pg_temp.catch('SELECT evento.jump_positions()')).state, '25006', 'not in a read-only transaction');
COMMIT;
SELECT * FROM finish();
