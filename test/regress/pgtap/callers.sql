-- callers.sql: who may append, and from where: triggers, also deferred ones,
-- functions, DO blocks, cursors, COPY, parallel queries; whole appends repeated;
-- what stands around an append that fails.
\ir helpers.psql
SELECT plan(70);
CREATE TABLE orders (n integer PRIMARY KEY, note text);
CREATE FUNCTION story(stream text) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(e.data #>> '{}', ',' ORDER BY e.version) FROM evento.read_stream(story.stream) e $$;

-- ---- triggers ----

CREATE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM evento.append(TG_ARGV[0], TG_OP, to_json(NEW.n));
  RETURN NEW;
END
$$;
CREATE FUNCTION note_statement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM evento.append('statements', TG_OP, to_json((SELECT count(*) FROM made)));
  RETURN NULL;
END
$$;
CREATE TRIGGER before_row BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note_row('before');
CREATE TRIGGER after_row AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note_row('after');
CREATE TRIGGER after_all AFTER INSERT ON orders REFERENCING NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION note_statement();
INSERT INTO orders VALUES (1), (2), (3);
SELECT is(story('before') || ';' || story('after') || ';' || story('statements'), '1,2,3;1,2,3;3', 'triggers append');
SELECT throws_ok($$INSERT INTO orders VALUES (4), (1)$$, '23505', NULL, 'a statement that fails');
SELECT is(story('before') || ';' || story('after'), '1,2,3;1,2,3', 'takes what its triggers appended with it');
COPY orders FROM stdin;
11	a
12	b
13	c
\.
SELECT is(story('before') || ';' || story('after') || ';' || story('statements'), '1,2,3,11,12,13;1,2,3,11,12,13;3,3', 'so do triggers of COPY');
\set ON_ERROR_STOP 0
COPY orders FROM stdin;
21	a
1	b
\.
\set ON_ERROR_STOP 1
SELECT is(story('before'), '1,2,3,11,12,13', 'and a COPY that fails leaves none');
INSERT INTO orders VALUES (1), (5) ON CONFLICT DO NOTHING;
SELECT is(story('after'), '1,2,3,11,12,13,5', 'ON CONFLICT DO NOTHING');
DROP TRIGGER before_row ON orders;
DROP TRIGGER after_row ON orders;
DROP TRIGGER after_all ON orders;

-- deferred ones run in the commit, and append to it
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_row('late');
BEGIN;
INSERT INTO orders VALUES (31), (32);
SELECT is(evento.append('late', 'T', '0', expected => 0), 1::bigint, 'a deferred constraint trigger has not run');
COMMIT;
SELECT is(story('late'), '0,31,32', 'it appends at the commit, behind the transaction''s own');
BEGIN;
INSERT INTO orders VALUES (33);
COMMIT;
SELECT is(story('late'), '0,31,32,33', 'or as the first to append');
BEGIN;
INSERT INTO orders VALUES (34);
SAVEPOINT a;
INSERT INTO orders VALUES (35);
ROLLBACK TO a;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT is(evento.append('late', 'T', '"behind"', expected => 5), 6::bigint, 'SET CONSTRAINTS IMMEDIATE runs it at once');
COMMIT;
SELECT is(story('late'), '0,31,32,33,34,behind', 'not for rows of a savepoint that was rolled back');
CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM evento.append('late', 'T', '"never"', expected => 1);
  RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_row();
BEGIN;
INSERT INTO orders VALUES (36);
\set ON_ERROR_STOP 0
COMMIT;
\set state :SQLSTATE
\set ON_ERROR_STOP 1
SELECT is(:'state'::text, 'V0001', 'a conflict in a deferred trigger fails the commit');
SELECT is((SELECT count(*) FROM orders WHERE n = 36), 0::bigint, 'with all that was in it');
SELECT is(story('late'), '0,31,32,33,34,behind', '…');
DROP TRIGGER late ON orders;
DROP TRIGGER later ON orders;

-- ---- functions, queries, cursors ----

CREATE FUNCTION place(n integer) RETURNS bigint LANGUAGE sql AS $$ INSERT INTO orders VALUES (place.n); SELECT evento.append('sql', 'T', to_json(place.n)) $$;
SELECT is((SELECT max(place(n)) FROM generate_series(41, 43) n), 3::bigint, 'a function in SQL');
SELECT throws_ok('SELECT place(44), place(44)', '23505', NULL, 'one that fails');
SELECT is(story('sql'), '41,42,43', 'leaves nothing');
DO $$
BEGIN
  FOR i IN 1..3 LOOP
    PERFORM evento.append('do-' || i, 'T', to_json(i));
    INSERT INTO orders VALUES (50 + i);
  END LOOP;
END
$$;
SELECT is(story('do-1') || story('do-2') || story('do-3'), '123', 'a DO block, several streams and a table of the user''s');
SELECT throws_ok($q$DO $$ BEGIN PERFORM evento.append('do-1', 'T', '4'); PERFORM evento.append('do-2', 'T', '4'); INSERT INTO orders VALUES (60), (1); END $$$q$, '23505', NULL, 'all or nothing');
SELECT is((SELECT count(*) FROM orders WHERE n = 60) || story('do-1') || story('do-2'), '012', '…');
WITH a AS (SELECT evento.append('with', 'T', to_json(n)) AS v FROM generate_series(1, 5) n) INSERT INTO orders SELECT 70 + v FROM a;
SELECT is(story('with') || (SELECT count(*) FROM orders WHERE n BETWEEN 71 AND 75), '1,2,3,4,55', 'WITH');
CREATE TABLE numbered (note text, version bigint DEFAULT evento.append('default', 'T', '1'));
INSERT INTO numbered (note) VALUES ('a'), ('b');
SELECT is((SELECT string_agg(note || version, ',' ORDER BY note) FROM numbered), 'a1,b2', 'a column''s default');
PREPARE p(json) AS SELECT evento.append('prepared', 'T', $1);
SELECT evento.append('prepared', 'T', '0') \gset
EXECUTE p('1') \gset
EXECUTE p('2') \gset
SELECT is(story('prepared'), '0,1,2', 'a prepared statement');
BEGIN;
DECLARE c CURSOR FOR SELECT evento.append('cursor', 'T', to_json(n)) AS v FROM generate_series(1, 10) n;
FETCH 1 FROM c \gset
FETCH 1 FROM c \gset
FETCH 1 FROM c \gset
COMMIT;
SELECT is(story('cursor'), '1,2,3', 'a cursor has appended as far as it was fetched');
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT evento.append('hold', 'T', to_json(n)) AS v FROM generate_series(1, 10) n;
COMMIT;
SELECT is(story('hold'), '1,2,3,4,5,6,7,8,9,10', 'one WITH HOLD to its end, in the commit');
FETCH 1 FROM c \gset
SELECT is(:v, 1, 'which is kept');
CLOSE c;
BEGIN;
SELECT evento.append('chain', 'T', '1') \gset
COMMIT AND CHAIN;
SELECT is(evento.append('chain', 'T', '2', expected => 1), 2::bigint, 'COMMIT AND CHAIN');
ROLLBACK AND CHAIN;
SELECT is(evento.append('chain', 'T', '2', expected => 1), 2::bigint, 'ROLLBACK AND CHAIN');
COMMIT;
SELECT is(story('chain'), '1,2', '…');

-- ---- savepoints and limits ----

SET evento.max_streams_per_transaction = 3;
BEGIN;
SELECT evento.append('few-1', 'T', '1'), evento.append('few-2', 'T', '1') \gset
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('few-3', 'T', '1'), evento.append('few-4', 'T', '1')$$)), '54000', 'more than evento.max_streams_per_transaction, in the middle of a transaction');
SELECT is(evento.append('few-5', 'T', '1'), 1::bigint, 'what was rolled back counts no more');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('few-6', 'T', '1')$$)), '54000', 'what was not, counts');
SELECT is(evento.append('few-1', 'T', '2'), 2::bigint, 'streams that are there may go on');
COMMIT;
RESET evento.max_streams_per_transaction;
SELECT is((SELECT string_agg(stream || version, ',' ORDER BY stream) FROM evento.streams WHERE category = 'few'), 'few-12,few-21,few-51', 'that is stored');
SET evento.max_transaction_size = '100kB';
BEGIN;
SELECT evento.append('size-1', 'T', to_json(repeat('x', 60000))) \gset
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('size-1', 'T', to_json(repeat('y', 60000)))$$)), '54000', 'more than evento.max_transaction_size');
SELECT is(evento.append('size-1', 'T', to_json(repeat('z', 30000))), 2::bigint, 'less goes on');
COMMIT;
RESET evento.max_transaction_size;
SELECT is((SELECT string_agg(left(data #>> '{}', 1), '' ORDER BY version) FROM evento.read_stream('size-1')), 'xz', '…');

-- ---- where nobody may write ----

SELECT set_config(CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'debug_parallel_query' ELSE 'force_parallel_mode' END, 'on', false) AS mode \gset
SELECT is(evento.append('parallel', 'T', '1'), 1::bigint, 'an append is never made in a parallel query');
CREATE FUNCTION mislabelled() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS $$ SELECT evento.append('parallel', 'T', '2') $$;
SELECT is((SELECT state FROM pg_temp.catch('SELECT mislabelled()')), '25000', 'in a function that says it may be, it is refused');
CREATE FUNCTION mislabelled_plpgsql() RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL SAFE AS $$ BEGIN RETURN evento.append('parallel', 'T', '2'); END $$;
SELECT is((SELECT state FROM pg_temp.catch('SELECT mislabelled_plpgsql() FROM orders')), '25000', 'of any language');
SELECT set_config(CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'debug_parallel_query' ELSE 'force_parallel_mode' END, 'off', false) AS mode \gset
SELECT is(mislabelled(), 2::bigint, 'outside, it appends');
SET default_transaction_read_only = on;
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('ro', 'T', '1')$$)), '25006', 'a session that is read-only');
SET default_transaction_read_only = off;
BEGIN;
SELECT evento.append('ro', 'T', '1') \gset
SET TRANSACTION READ ONLY;
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('ro', 'T', '2')$$)), '25006', 'a transaction that has become so');
COMMIT;
SELECT is(story('ro'), '1', 'commits what it had appended before');

-- ---- whole appends repeated ----

CREATE FUNCTION ids(VARIADIC numbers integer[]) RETURNS evento.new_event[] LANGUAGE sql AS
$$ SELECT array_agg(ROW('T', to_json(n), NULL, CASE WHEN n > 0 THEN '00000000-0000-0000-0000-' || lpad(n::text, 12, '0') END, NULL, NULL, NULL)::evento.new_event ORDER BY i) FROM unnest(numbers) WITH ORDINALITY u (n, i) $$;
SELECT is(evento.append_events('r-1', ids(1, 2, 3), 0), 3::bigint, 'three with ids');
SELECT is(evento.append_events('r-1', ids(1, 2, 3), 0), 3::bigint, 'the same three again');
SELECT is(evento.append_events('r-1', ids(4, 0, 5), 3), 6::bigint, 'three of which two have ids');
SELECT is(evento.append_events('r-1', ids(4, 0, 5), 3), 6::bigint, 'those again');
SELECT is(evento.append_events('r-1', ids(1, 2, 3), 77), 3::bigint, 'the first again, when the stream has moved on');
SELECT is(evento.append_events('r-1', ids(2, 3)), 3::bigint, 'a part of them is one of its own');
SELECT is((SELECT state || ': ' || detail FROM pg_temp.catch($$SELECT evento.append_events('r-1', ids(1, 2, 3, 9))$$)), 'V0002: Some of the ids are there, others are not, or they stand elsewhere.', 'with one more: V0002');
SELECT is((SELECT state FROM pg_temp.catch(format($$SELECT evento.append_events('r-1', ids(%s))$$, i))), 'V0002', 'V0002: ' || i) FROM unnest(ARRAY['1, 3', '9, 1', '2, 1', '0, 1', '3, 4, 5', '4, 5']) i;
SELECT is(story('r-1'), '1,2,3,4,0,5', 'nothing of that was stored');

-- those that reach beyond the window in which ids are looked for
SET evento.id_window = 3;
SELECT is(evento.append_events('r-2', ids(1, 2, 3, 4, 5)), 5::bigint, 'more events than evento.id_window');
SELECT is(evento.append_events('r-2', ids(1, 2, 3, 4, 5), 0), 5::bigint, 'are found again by the last of them');
SELECT evento.append('r-2', 'T', '6'), evento.append('r-2', 'T', '7') \gset
SELECT is(evento.append_events('r-2', ids(1, 2, 3, 4, 5), 0), 5::bigint, 'as long as that one is in it');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append_events('r-2', ids(9, 2, 3, 4, 5))$$)), 'V0002', 'each of them is looked at');
BEGIN;
SELECT is(evento.append_events('r-2', ids(11, 12, 13, 14)), 11::bigint, 'several that are only buffered');
SELECT is(evento.append_events('r-2', ids(11, 12, 13, 14)), 11::bigint, 'are found, too');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append_events('r-2', ids(19, 12, 13, 14))$$)), 'V0002', 'and compared');
COMMIT;
RESET evento.id_window;
SELECT is(story('r-2'), '1,2,3,4,5,6,7,11,12,13,14', 'and stored once');

-- an event whose data was erased
SELECT evento.append('erased', 'T', '"secret"', id => '00000000-0000-0000-0000-000000000001') \gset
ALTER TABLE evento._events ALTER data DROP NOT NULL;
UPDATE evento._events SET data = NULL, metadata = NULL WHERE stream_no = (SELECT stream_no FROM evento._streams WHERE name = 'erased');
SELECT is(evento.append('erased', 'T', '"secret"', id => '00000000-0000-0000-0000-000000000001'), 1::bigint, 'an event that was erased is found by its id');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('erased', 'U', '"secret"', id => '00000000-0000-0000-0000-000000000001')$$)), 'V0002', 'and by its type');
SELECT is((SELECT outcome || detail FROM evento.append_batch(pg_temp.batch(pg_temp.item('erased', ARRAY[pg_temp.event('T', '"secret"', '00000000-0000-0000-0000-000000000001')])))), '00000repeat', 'also in a batch');
SELECT is(evento.append('erased', 'T', '2'), 2::bigint, 'and its stream goes on');
SELECT * FROM finish();
