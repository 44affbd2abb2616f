-- transactions.sql: appends as a part of transactions: commit, rollback,
-- savepoints, other tables, two-phase commit, isolation levels, read-only.
\ir helpers.psql
SELECT plan(40);
CREATE TABLE mine (n integer PRIMARY KEY);

-- ---- all or nothing ----

BEGIN;
INSERT INTO mine VALUES (1);
SELECT evento.append('t-1', 'T', '1') \gset
SELECT is((SELECT count(*) FROM evento.read_stream('t-1')), 0::bigint, 'own events are not read before commit');
SELECT is(evento.append('t-1', 'T', '2', expected => 1), 2::bigint, 'but count for versions');
COMMIT;
SELECT is((SELECT count(*) FROM mine) + (SELECT count(*) FROM evento.read_stream('t-1')), 3::bigint, 'committed with other tables');
BEGIN;
INSERT INTO mine VALUES (2);
SELECT evento.append('t-1', 'T', '3'), evento.append('t-2', 'T', '1') \gset
ROLLBACK;
SELECT is((SELECT count(*) FROM mine) + (SELECT version FROM evento.streams WHERE stream = 't-1') + (SELECT count(*) FROM evento.streams WHERE stream = 't-2'), 3::bigint, 'and rolled back with them');
SELECT throws_ok($$SELECT evento.append('t-1', 'T', '3'), 1 / 0$$, '22012', NULL, 'a statement that fails after its append');
SELECT is(evento.append('t-1', 'T', '3', expected => 2), 3::bigint, 'leaves nothing');

-- an error at commit, by others
CREATE TABLE deferred (n integer, CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED);
BEGIN;
INSERT INTO deferred VALUES (1), (1);
SELECT evento.append('t-3', 'T', '1') \gset
\set ON_ERROR_STOP 0
COMMIT;
\set ON_ERROR_STOP 1
SELECT is((SELECT count(*) FROM evento.streams WHERE stream = 't-3'), 0::bigint, 'a commit that fails');
SELECT is(evento.append('t-3', 'T', '1', expected => 0), 1::bigint, 'takes the append with it');
CALL evento.wait(NULL) \gset
SELECT is((SELECT count(*) FROM evento.events WHERE stream = 't-3'), 1::bigint, 'and does not hold the watermark back');

-- ---- savepoints ----

BEGIN;
SELECT evento.append('s-1', 'T', '1') \gset
SAVEPOINT a;
SELECT evento.append('s-1', 'T', '"gone"'), evento.append('s-2', 'T', '"gone"') \gset
ROLLBACK TO a;
SELECT is(evento.append('s-1', 'T', '2'), 2::bigint, 'what a savepoint takes back leaves its version');
SAVEPOINT b;
SELECT evento.append('s-1', 'T', '3') \gset
SAVEPOINT c;
SELECT evento.append('s-1', 'T', '"gone"'), evento.append('s-3', 'T', '"gone"') \gset
ROLLBACK TO c;
RELEASE c;
RELEASE b;
SELECT is(evento.append('s-1', 'T', '4'), 4::bigint, 'what it keeps, keeps it');
SAVEPOINT d;
SAVEPOINT e;
SELECT evento.append('s-1', 'T', '"gone"') \gset
RELEASE e;
ROLLBACK TO d;
SELECT is(evento.append('s-1', 'T', '5', expected => 4), 5::bigint, 'what an inner one hands to an outer one goes with the outer one');
COMMIT;
SELECT results_eq($$SELECT version, data::text FROM evento.read_stream('s-1')$$, $$SELECT n::bigint, n::text FROM generate_series(1, 5) n$$, 'and nothing else is stored');
SELECT is_empty($$SELECT 1 FROM evento.streams WHERE stream IN ('s-2', 's-3')$$, 'nor a stream made');

-- exception blocks are subtransactions
DO $$
BEGIN
  PERFORM evento.append('s-4', 'T', '1');
  FOR i IN 1..50 LOOP
    BEGIN
      PERFORM evento.append('s-4', 'T', '"gone"');
      PERFORM evento.append('s-4', 'T', '"never"', expected => 0);
    EXCEPTION WHEN SQLSTATE 'V0001' THEN
      NULL;
    END;
  END LOOP;
  PERFORM evento.append('s-4', 'T', '2', expected => 1);
END
$$;
SELECT results_eq($$SELECT version, data::text FROM evento.read_stream('s-4')$$, $$VALUES (1::bigint, '1'), (2, '2')$$, 'fifty exceptions caught');

-- a procedure that commits in between
CREATE PROCEDURE pg_temp.in_steps() LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..4 LOOP
    PERFORM evento.append('s-5', 'T', to_json(i));
    IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
  END LOOP;
END
$$;
CALL pg_temp.in_steps();
SELECT results_eq($$SELECT version, data::text FROM evento.read_stream('s-5')$$, $$VALUES (1::bigint, '2'), (2, '4')$$, 'a procedure that commits and rolls back');

-- a cursor, a snapshot and a transaction that is left idle do no harm
BEGIN;
DECLARE c CURSOR FOR SELECT position FROM evento.read_all();
FETCH 1 FROM c \gset
SELECT evento.append('s-6', 'T', '1') \gset
FETCH 1 FROM c \gset
COMMIT;
SELECT is((SELECT version FROM evento.streams WHERE stream = 's-6'), 1::bigint, 'with a cursor open');

-- ---- two-phase ----

BEGIN;
SELECT evento.append('p-1', 'T', '1') \gset
\set ON_ERROR_STOP 0
PREPARE TRANSACTION 'evento';
\set state :SQLSTATE
\set ON_ERROR_STOP 1
SELECT is(:'state'::text, 'V0007', 'PREPARE TRANSACTION after an append');
SELECT is((SELECT count(*) FROM pg_prepared_xacts), 0::bigint, 'is refused');
SELECT is_empty($$SELECT 1 FROM evento.streams WHERE stream = 'p-1'$$, 'and the append gone');
BEGIN;
SAVEPOINT a;
SELECT evento.append('p-1', 'T', '1') \gset
ROLLBACK TO a;
SELECT count(*) FROM evento.read_all() \gset
PREPARE TRANSACTION 'evento_reads';
SELECT is((SELECT count(*) FROM pg_prepared_xacts), 1::bigint, 'one that has only read may be prepared');
ROLLBACK PREPARED 'evento_reads';

-- What tells the proxies that a story has changed sends a NOTIFY.
BEGIN;
SELECT evento.drop_snapshots('p-1') \gset
\set ON_ERROR_STOP 0
PREPARE TRANSACTION 'evento_snapshots';
\set state :SQLSTATE
\set ON_ERROR_STOP 1
SELECT is(:'state'::text, '0A000', 'nor may one that has dropped snapshots');

-- ---- read-only ----

BEGIN READ ONLY;
SELECT is((SELECT count(*) > 0 FROM evento.read_all()), true, 'read_all in a read-only transaction');
SELECT is((SELECT state FROM pg_temp.catch(q)), '25006', q) FROM unnest(ARRAY[$$SELECT evento.append('r-1', 'T', '1')$$,
  $$SELECT evento.append_events('r-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[])$$, $$SELECT evento.append_batch(pg_temp.batch(pg_temp.item('r-1', ARRAY[pg_temp.event('A', '1')])))$$,
  $$SELECT evento.delete_stream('t-1')$$, $$SELECT evento.save_snapshot('t-1', 1, '1')$$, $$SELECT evento.drop_snapshots('t-1')$$]) q;
COMMIT;

-- ---- isolation levels, alone ----

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is((SELECT count(*) FROM evento.read_stream('t-1')), 3::bigint, 'REPEATABLE READ');
SELECT is(evento.append('t-1', 'T', '4', expected => 3), 4::bigint, 'appends to a stream whose head it sees');
SELECT is(evento.append('t-1', 'T', '5', expected => 4), 5::bigint, 'twice');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT is(evento.append('t-1', 'T', '6', expected => 5), 6::bigint, 'SERIALIZABLE');
SELECT is(evento.append('t-9', 'T', '1', expected => 0), 1::bigint, 'and a new stream');
COMMIT;
SELECT is((SELECT version FROM evento.streams WHERE stream = 't-1'), 6::bigint, 'all stored');

-- ---- asynchronous commit and the table itself ----

SET synchronous_commit = off;
SELECT is(evento.append('a-1', 'T', '1'), 1::bigint, 'synchronous_commit = off');
RESET synchronous_commit;
CALL evento.wait(NULL) \gset
SELECT is((SELECT count(*) FROM evento.events WHERE stream = 'a-1'), 1::bigint, 'reaches the readers as well');

-- rows that come in by COPY, as in a restore, are behind the counter afterwards
SELECT evento.watermark() AS w \gset
INSERT INTO evento._streams (stream_no, name) VALUES (:w + 100, 'c-1');
INSERT INTO evento._events SELECT :w + 100, :w + 100, 1, now(), now(), gen_random_uuid(), false, false, 'T', 'default', NULL, '1', NULL;
SELECT is(evento.append('c-1', 'T', '2', expected => 1), 2::bigint, 'an append after a restored row');
SELECT cmp_ok((SELECT position FROM evento.read_stream('c-1', 2)), '>', :w + 100::bigint, 'has a higher position');
CALL evento.wait(NULL) \gset
SELECT is((SELECT count(*) FROM evento.events WHERE stream = 'c-1'), 2::bigint, 'and both are read');
SELECT * FROM finish();
