-- altered.sql: tables of the extension that were given indexes or columns.
\ir helpers.psql
SELECT plan(27);

-- ---- indexes on expressions, and of some rows ----

CREATE INDEX ON evento._streams (split_part(name, '-', 1));
CREATE INDEX deleted ON evento._streams (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX ON evento._snapshots (length(stream));
CREATE INDEX ON evento._events (lower(type));
SET enable_seqscan = off;

SELECT is(evento.append('indexed-' || i, 'T', '1'), 1::bigint, 'an append to a new stream') FROM generate_series(1, 3) i;
SELECT is(evento.append('indexed-1', 'T', '2'), 2::bigint, 'and to an old one');
SELECT is((SELECT count(*) FROM evento._streams WHERE split_part(name, '-', 1) = 'indexed'), 3::bigint, 'streams are found by the expression');
SELECT is((SELECT count(*) FROM evento._events WHERE lower(type) = 't'), 4::bigint, 'as are events');
SELECT ok(evento.save_snapshot('indexed-1', 1, '1'), 'a snapshot');
SELECT ok(evento.save_snapshot('indexed-1', 2, '2'), 'and the next');
SELECT results_eq($$SELECT version FROM evento._snapshots WHERE length(stream) = 9$$, ARRAY[2::bigint], 'are found, too');
SELECT is(evento.delete_stream('indexed-1'), 2::bigint, 'a deletion');
SELECT is((SELECT string_agg(name, ', ') FROM evento._streams WHERE deleted_at IS NOT NULL), 'indexed-1', 'comes into the index of some rows');
SELECT is(evento.append('indexed-1', 'T', '3'), 3::bigint, 'an append behind it');
SELECT is_empty($$SELECT name FROM evento._streams WHERE deleted_at IS NOT NULL$$, 'goes from there');

-- ---- what a user's own index refuses ----

CREATE UNIQUE INDEX own ON evento._events (id);
SELECT is(evento.append('indexed-2', 'T', '2', id => '00000000-0000-4000-8000-000000000001'), 2::bigint, 'an id that is new everywhere');
\set ON_ERROR_STOP 0
SELECT evento.append('indexed-3', 'T', '2', id => '00000000-0000-4000-8000-000000000001');
\set state :SQLSTATE
\set ON_ERROR_STOP 1
SELECT is(:'state'::text, '23505', 'one that is not, where an index forbids it, is no reason to try again');
DROP INDEX evento.own;

-- ---- what an index calls runs as the owner: who appends has no say in what that is ----

CREATE FUNCTION public.customer(data json) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN lower(data ->> 'customer'); END $$;
CREATE INDEX calling ON evento._events (public.customer(data)) WHERE data IS NOT NULL;
CREATE SCHEMA trap;
CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped as %', current_user; END $$;
SET search_path = trap, pg_catalog, public;
\set ON_ERROR_STOP 0
SELECT evento.append('calling-1', 'T', '{"customer": "Ada"}');
\set state :SQLSTATE
\set ON_ERROR_STOP 1
SELECT current_setting('search_path') AS path \gset
RESET search_path;
SELECT is(:'state'::text, '00000', 'a search_path does not change what an index calls');
SELECT is(:'path'::text, 'trap, pg_catalog, public', 'and is as it was, behind the commit');
SELECT is((SELECT count(*) FROM evento._events WHERE data IS NOT NULL AND public.customer(data) = 'ada'), 1::bigint, 'the event is in the index');
DROP INDEX evento.calling;

-- What is called while a batch is at work cannot begin another.
CREATE FUNCTION public.again(stream text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  PERFORM evento.append_batch(pg_temp.batch(pg_temp.item('inner-1', ARRAY[pg_temp.event('T', '1')])));
  RETURN stream;
END
$$;
CREATE INDEX again ON evento._snapshots (public.again(stream));
SELECT is((SELECT state FROM pg_temp.catch($$SELECT count(*) FROM evento.append_batch(pg_temp.batch(pg_temp.item('outer-1', ARRAY[pg_temp.event('T', '1')], state => '1'), pg_temp.item('outer-2', ARRAY[pg_temp.event('T', '1')], state => '1')))$$)), '55000', 'a batch within a batch');
DROP INDEX evento.again;
SELECT is_empty($$SELECT stream FROM evento.streams WHERE category IN ('inner', 'outer')$$, 'stores nothing');
SET client_min_messages = warning;
DROP SCHEMA trap CASCADE;
RESET client_min_messages;

-- ---- columns ----

ALTER TABLE evento._streams ADD COLUMN note text;
\set ON_ERROR_STOP 0
SELECT evento.append('altered-1', 'T', '1');
\set state :SQLSTATE
\set ON_ERROR_STOP 1
SELECT is(:'state'::text, '55000', 'a column that was added is refused');
ALTER TABLE evento._streams DROP COLUMN note;
SELECT is(evento.append('altered-1', 'T', '1'), 1::bigint, 'dropped again, it is of no harm');
ALTER TABLE evento._events ADD COLUMN note text, ADD COLUMN more text;
ALTER TABLE evento._events DROP COLUMN note, DROP COLUMN more;
SELECT is(evento.append('altered-1', 'T', '2'), 2::bigint, 'neither in the log');
ALTER TABLE evento._snapshots ADD COLUMN note text, ADD COLUMN more text;
SELECT is((SELECT count(*) FROM evento.load_stream('altered-1')), 3::bigint, 'nor in what is read');
ALTER TABLE evento._snapshots DROP COLUMN note, DROP COLUMN more;
SELECT ok(evento.save_snapshot('altered-1', 2, '2'), 'nor in what is kept');
SELECT is(evento.delete_stream('altered-1'), 2::bigint, 'nor in what is hidden');
SELECT is((SELECT count(*) FROM evento.load_stream('altered-1')), 1::bigint, 'and gone');

SELECT * FROM finish();
