-- read.sql: read_stream, read_all, scan_all, watermark, the views events and
-- streams.
\ir helpers.psql
SELECT plan(73);

SELECT is((SELECT count(*) FROM evento.events), 0::bigint, 'a fresh log is empty');
SELECT is((SELECT count(*) FROM evento.read_all()), 0::bigint, 'for read_all too');
SELECT results_eq('SELECT scanned, position FROM evento.scan_all()', 'VALUES (0::bigint, NULL::bigint)', 'scan_all says that it has seen nothing');
SELECT is(evento.watermark(), 0::bigint, 'its watermark is 0');

SELECT count(evento.append('a-' || n % 3, CASE WHEN n % 2 = 0 THEN 'Even' ELSE 'Odd' END, to_json(n), context => CASE WHEN n % 5 = 0 THEN 'shop.five' ELSE 'default' END)) FROM generate_series(1, 30) n \gset
SELECT evento.append('b', 'Odd', '31') \gset
SELECT evento.append(NULL, 'Odd', '32', kind => 'service') \gset
SELECT evento.append('-x', 'Odd', '33') \gset
CALL evento.wait(NULL) \gset

-- ---- read_stream ----

SELECT results_eq($$SELECT version, (data #>> '{}')::int FROM evento.read_stream('a-1')$$, $$SELECT n::bigint, (n - 1) * 3 + 1 FROM generate_series(1, 10) n$$, 'a stream in the order of its versions');
SELECT results_eq($$SELECT version FROM evento.read_stream('a-1', 4)$$, $$SELECT n::bigint FROM generate_series(4, 10) n$$, 'from a version');
SELECT results_eq($$SELECT version FROM evento.read_stream('a-1', 4, 3)$$, $$SELECT n::bigint FROM generate_series(4, 6) n$$, 'at most so many');
SELECT results_eq($$SELECT version FROM evento.read_stream('a-1', backwards => true)$$, $$SELECT n::bigint FROM generate_series(10, 1, -1) n$$, 'backwards');
SELECT results_eq($$SELECT version FROM evento.read_stream('a-1', 4, 3, true)$$, $$SELECT n::bigint FROM generate_series(4, 2, -1) n$$, 'backwards from a version');
SELECT results_eq($$SELECT version FROM evento.read_stream('a-1', NULL, 1, true)$$, $$VALUES (10::bigint)$$, 'the last one');
SELECT is_empty($$SELECT * FROM evento.read_stream('a-1', 11)$$, 'behind the end');
SELECT is_empty($$SELECT * FROM evento.read_stream('a-1', max => 0)$$, 'none wanted');
SELECT is_empty($$SELECT * FROM evento.read_stream('nothing')$$, 'of a stream that is not there');
SELECT results_eq($$SELECT * FROM (SELECT position, stream, version, id, type, context, kind, data::text, metadata::text, class, "timestamp", recorded_at, force_telemetry FROM evento.read_stream('a-2')) x$$,
  $$SELECT position, stream, version, id, type, context, kind, data::text, metadata::text, class, "timestamp", recorded_at, force_telemetry FROM evento.events WHERE stream = 'a-2' ORDER BY version$$, 'the rows of the view events');
SELECT is((SELECT state FROM pg_temp.catch('SELECT * FROM evento.read_stream(' || a || ')')), '22023', 'refused: read_stream(' || left(a, 40) || ')')
  FROM unnest(ARRAY['NULL', $$''$$, $$repeat('s', 513)$$, $$'a-1', -1$$, $$'a-1', 1, -1$$]) a;

-- ---- read_all ----

SELECT results_eq($$SELECT position, (data #>> '{}')::bigint FROM evento.read_all()$$, $$SELECT n::bigint, n::bigint FROM generate_series(1, 33) n$$, 'all, in order');
SELECT results_eq($$SELECT * FROM (SELECT position, stream, version, id, type, context, kind, data::text, metadata::text, class, "timestamp", recorded_at, force_telemetry FROM evento.read_all()) x$$,
  $$SELECT position, stream, version, id, type, context, kind, data::text, metadata::text, class, "timestamp", recorded_at, force_telemetry FROM evento.events ORDER BY position$$, 'the rows of the view events');
SELECT results_eq($$SELECT position FROM evento.read_all(30)$$, $$VALUES (31::bigint), (32), (33)$$, 'behind a position');
SELECT results_eq($$SELECT position FROM evento.read_all(10, 2)$$, $$VALUES (11::bigint), (12)$$, 'at most so many');
SELECT is_empty($$SELECT position FROM evento.read_all(33)$$, 'behind the end');
SELECT is_empty($$SELECT position FROM evento.read_all(9223372036854775807)$$, 'far behind the end');
SELECT is_empty($$SELECT position FROM evento.read_all(0, 0)$$, 'none wanted');
SELECT results_eq($$SELECT position FROM evento.read_all(context => 'shop*')$$, $$SELECT n::bigint FROM generate_series(5, 30, 5) n$$, 'a pattern of contexts');
SELECT is((SELECT array_agg((SELECT count(*) FROM evento.read_all(context => p)) ORDER BY i) FROM unnest(ARRAY['shop.five', '*', '**', '*five', 's*.*e', '*e', 'shop', 'five*', '', 'shop.five*', 'd*t', 'shop_five']) WITH ORDINALITY u (p, i)),
  ARRAY[6, 33, 33, 6, 6, 6, 0, 0, 0, 6, 27, 0]::bigint[], 'patterns of all sorts');
SELECT results_eq($$SELECT position FROM evento.read_all(types => '{Even}')$$, $$SELECT n::bigint FROM generate_series(2, 30, 2) n$$, 'types');
SELECT is((SELECT count(*) FROM evento.read_all(types => '{Odd,Even,Other}')), 33::bigint, 'several types');
SELECT is((SELECT count(*) FROM evento.read_all(types => '{}')), 0::bigint, 'no types');
SELECT is((SELECT count(*) FROM evento.read_all(types => '{Eve,Evenn,even}')), 0::bigint, 'types are compared whole');
SELECT is((SELECT count(*) FROM evento.read_all(categories => '{a}')), 30::bigint, 'a category');
SELECT results_eq($$SELECT position FROM evento.read_all(categories => ARRAY['b', ''])$$, $$VALUES (31::bigint), (33)$$, 'a stream without -, one that starts with it; an event without stream has no category');
SELECT results_eq($$SELECT position FROM evento.read_all(3, 2, 'shop*', '{Even}', '{a}')$$, $$VALUES (10::bigint), (20)$$, 'all of it together');
SELECT is((SELECT state FROM pg_temp.catch('SELECT * FROM evento.read_all(' || a || ')')), '22023', 'refused: read_all(' || left(a, 40) || ')')
  FROM unnest(ARRAY['-1', '0, -1', $$context => repeat('c', 513)$$, $$types => ARRAY['a', NULL]$$, $$categories => ARRAY[NULL]::text[]$$]) a;
SELECT is((SELECT count(*) FROM evento.read_all() a JOIN evento.read_all() b USING (position)), 33::bigint, 'twice in a query');
SELECT is((SELECT count(*) FROM generate_series(1, 3) g, LATERAL evento.read_all(g * 10, 5) r WHERE r.position <= g * 10 + 5), 13::bigint, 'in a lateral join');

-- ---- scan_all ----

SELECT results_eq($$SELECT scanned, position FROM evento.scan_all(0, 2)$$, $$VALUES (1::bigint, 1::bigint), (2, 2), (2, NULL)$$, 'scan_all ends with how far it looked: so many were wanted');
SELECT results_eq($$SELECT scanned, position FROM evento.scan_all(31)$$, $$VALUES (32::bigint, 32::bigint), (33, 33), (33, NULL)$$, 'up to the watermark');
SELECT results_eq($$SELECT scanned, position FROM evento.scan_all(0, 10, types => '{Nothing}')$$, $$VALUES (33::bigint, NULL::bigint)$$, 'also where nothing matches');
SELECT results_eq($$SELECT scanned, position FROM evento.scan_all(0, 10, types => '{Nothing}', max_scan => 7)$$, $$VALUES (7::bigint, NULL::bigint)$$, 'at most max_scan looked at');
SELECT results_eq($$SELECT scanned, position FROM evento.scan_all(7, 10, 'shop*', max_scan => 5)$$, $$VALUES (10::bigint, 10::bigint), (12, NULL)$$, 'with a match among them');
SELECT results_eq($$SELECT scanned, position FROM evento.scan_all(99)$$, $$VALUES (99::bigint, NULL::bigint)$$, 'never behind where it began');
SELECT is((SELECT data::text FROM evento.scan_all(0, 1) WHERE position = 1), '1', 'the events are whole');
SELECT count(evento.append('bytes', 'T', to_json(repeat('x', 98)), to_json(repeat('y', 48)))) FROM generate_series(1, 4) \gset
CALL evento.wait(NULL) \gset
SELECT results_eq($$SELECT scanned, position FROM evento.scan_all(33, max_bytes => 300)$$, $$VALUES (34::bigint, 34::bigint), (35, 35), (35, NULL)$$, 'max_bytes of data and metadata');
SELECT results_eq($$SELECT scanned, position FROM evento.scan_all(33, max_bytes => 299)$$, $$VALUES (34::bigint, 34::bigint), (34, NULL)$$, 'not passed');
SELECT results_eq($$SELECT scanned, position FROM evento.scan_all(33, max_bytes => 1)$$, $$VALUES (34::bigint, 34::bigint), (34, NULL)$$, 'but one is always given');
SELECT is((SELECT state FROM pg_temp.catch('SELECT * FROM evento.scan_all(' || a || ')')), '22023', 'refused: scan_all(' || left(a, 40) || ')')
  FROM unnest(ARRAY['-1', '0, -1', 'max_scan => 0', 'max_bytes => 0']) a;

-- ---- a scan in pieces finds each event once ----

CREATE FUNCTION pg_temp.in_pieces(max bigint, max_scan bigint) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
  r record;
  at bigint := 0;
  before bigint;
BEGIN
  LOOP
    before := at;
    FOR r IN SELECT scanned, position FROM evento.scan_all(at, in_pieces.max, 'shop*', max_scan => in_pieces.max_scan) LOOP
      at := r.scanned;
      IF r.position IS NOT NULL THEN
        RETURN NEXT r.position;
      END IF;
    END LOOP;
    EXIT WHEN at = before;
  END LOOP;
END
$$;
SELECT is_empty(format('SELECT * FROM pg_temp.in_pieces(%s, %s) EXCEPT ALL SELECT n::bigint FROM generate_series(5, 30, 5) n', m, s), format('in pieces of %s events and %s looked at', m, s)) FROM (VALUES (1, 1), (1, 7), (3, 4), (100, 5)) v (m, s);
SELECT results_eq('SELECT * FROM pg_temp.in_pieces(2, 3)', 'SELECT n::bigint FROM generate_series(5, 30, 5) n', 'all of them');

-- ---- streams, watermark ----

SELECT results_eq($$SELECT stream, category, version, deleted_at, tombstone FROM evento.streams WHERE stream IN ('a-1', 'b', '-x') ORDER BY stream$$,
  $$VALUES ('-x'::text COLLATE "C", ''::text COLLATE "C", 1::bigint, NULL::timestamptz, false), ('a-1', 'a', 10, NULL, false), ('b', 'b', 1, NULL, false)$$, 'streams');
SELECT results_eq($$SELECT first_recorded_at, last_recorded_at FROM evento.streams WHERE stream = 'a-2'$$,
  $$SELECT (SELECT recorded_at FROM evento.read_stream('a-2', 1, 1)), (SELECT recorded_at FROM evento.read_stream('a-2', NULL, 1, true))$$, 'their first and last event');
SELECT is(evento.watermark(), 37::bigint, 'the watermark is the last position');
SELECT is((SELECT count(*) FROM evento.events WHERE position <= evento.watermark()), 37::bigint, 'in a query');

-- ---- one snapshot kept ----

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is((SELECT count(*) FROM evento.read_all()), 37::bigint, 'REPEATABLE READ');
SELECT is(evento.append('rr', 'T', '1'), 1::bigint, 'appends in it');
SELECT is((SELECT count(*) FROM evento.read_all()), 37::bigint, 'are not read before commit');
COMMIT;

-- ---- a page of the view costs a page, however much lies behind it ----

SELECT sum(evento.append_events('page-' || g, ARRAY(SELECT ROW('Page', '{"some": "data"}', NULL, NULL, NULL, NULL, NULL)::evento.new_event FROM generate_series(1, 100)))) FROM generate_series(1, 100) g \gset
CALL evento.wait(NULL) \gset
ANALYZE evento._events;
ANALYZE evento._streams;
CREATE FUNCTION pg_temp.rows_touched(query text) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
  plan jsonb;
BEGIN
  EXECUTE 'EXPLAIN (ANALYZE, FORMAT JSON) ' || query INTO plan;
  RETURN (SELECT max(n::text::numeric) FROM jsonb_path_query(plan, '$.**."Actual Rows"') n);
END
$$;
SELECT cmp_ok(pg_temp.rows_touched('SELECT * FROM evento.events WHERE position > 100 ORDER BY position LIMIT 50'), '<=', 100::numeric, 'paging forward');
SELECT cmp_ok(pg_temp.rows_touched('SELECT * FROM evento.events ORDER BY position DESC LIMIT 50'), '<=', 100::numeric, 'the newest');
SELECT cmp_ok(pg_temp.rows_touched($$SELECT * FROM evento.events WHERE stream = 'page-7'$$), '<=', 100::numeric, 'one stream');

-- ---- parallel plans ----

-- The setting has another name since 16.
SELECT set_config(CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'force_parallel_mode' ELSE 'debug_parallel_query' END, 'on', false) AS parallel \gset
SELECT is((SELECT count(*) FROM evento.read_all(0, NULL)), 10038::bigint, 'in a plan that is made parallel') FROM (SELECT 1) x;
SELECT is((SELECT count(*) FROM evento.read_stream('a-1')), 10::bigint, 'read_stream too');
RESET ALL;
SELECT * FROM finish();
