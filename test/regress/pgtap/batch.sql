-- batch.sql: append_batch: outcomes item by item, locks and fences, snapshots
-- with an append, malformed input.
\ir helpers.psql
SELECT plan(70);

-- ---- outcomes ----

SELECT results_eq(
  $$SELECT * FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('b-1', ARRAY[pg_temp.event('A', '{"n": 1}'), pg_temp.event('B', '{"n": 2}', context => 'shop', class => 'x.B', metadata => '{"m":1}', ms => 1000, service => true, telemetry => true)], 0),
      pg_temp.item('b-2', ARRAY[pg_temp.event('A', '1')]),
      pg_temp.item(NULL, ARRAY[pg_temp.event('A', '2')]),
      pg_temp.item('b-1', ARRAY[pg_temp.event('C', '3')], 2),
      pg_temp.item('b-1', ARRAY[pg_temp.event('C', '4')], -4)))$$,
  $$VALUES ('00000', 1::bigint, 2::bigint, NULL::text), ('00000', 1, 1, NULL), ('00000', NULL, NULL, NULL), ('00000', 3, 3, NULL), ('00000', 4, 4, NULL)$$,
  'a row for each item, later items count on earlier ones');
CALL evento.wait(NULL) \gset
SELECT results_eq($$SELECT position, stream, version, type, context, kind, data::text, metadata::text, class, force_telemetry FROM evento.events ORDER BY position$$,
  $$VALUES (1::bigint, 'b-1'::text COLLATE "C", 1::bigint, 'A'::text COLLATE "C", 'default'::text COLLATE "C", 'domain'::text COLLATE "C", '{"n": 1}', NULL, NULL::text COLLATE "C", false),
           (2, 'b-1', 2, 'B', 'shop', 'service', '{"n": 2}', '{"m":1}', 'x.B', true),
           (3, 'b-2', 1, 'A', 'default', 'domain', '1', NULL, NULL, false),
           (4, NULL, NULL, 'A', 'default', 'domain', '2', NULL, NULL, false),
           (5, 'b-1', 3, 'C', 'default', 'domain', '3', NULL, NULL, false),
           (6, 'b-1', 4, 'C', 'default', 'domain', '4', NULL, NULL, false)$$, 'in the order of the items');
SELECT is((SELECT "timestamp" FROM evento.read_stream('b-1', 2, 1)), '1970-01-01 00:00:01+00'::timestamptz, 'the timestamp is the message''s own');
SELECT is((SELECT count(*) FROM evento.read_stream('b-1') WHERE version <> 2 AND recorded_at - "timestamp" < interval '1 minute' OR version = 2), 4::bigint, 'or else the time of the append');

SELECT results_eq(
  $$SELECT outcome, first_version, last_version FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('b-1', ARRAY[pg_temp.event('A', '1')], 0),
      pg_temp.item('b-1', ARRAY[pg_temp.event('A', '1')], 9),
      pg_temp.item('b-3', ARRAY[pg_temp.event('A', '1')], -4),
      pg_temp.item('b-3', ARRAY[pg_temp.event('A', '1')], -1),
      pg_temp.item('b-3', ARRAY[pg_temp.event('A', 'no json')]),
      pg_temp.item('b-3', ARRAY[pg_temp.event('A', '1'), pg_temp.event('B', '{"a":')]),
      pg_temp.item('b-3', ARRAY[pg_temp.event('', '1')]),
      pg_temp.item('b-3', ARRAY[pg_temp.event(repeat('t', 256), '1')]),
      pg_temp.item(repeat('s', 513), ARRAY[pg_temp.event('A', '1')]),
      pg_temp.item('b-3', ARRAY[pg_temp.event('A', '1', context => repeat('c', 513))]),
      pg_temp.item('b-3', ARRAY[pg_temp.event('A', '1', class => repeat('k', 1025))]),
      pg_temp.item('b-3', ARRAY[pg_temp.event('A', '1', metadata => '{')]),
      pg_temp.item('b-3', ARRAY[pg_temp.event('A', '5')], 0)))$$,
  $$VALUES ('V0001', NULL::bigint, NULL::bigint), ('V0001', NULL, NULL), ('V0001', NULL, NULL), ('22023', NULL, NULL), ('22P02', NULL, NULL), ('22P02', NULL, NULL), ('22023', NULL, NULL),
           ('22023', NULL, NULL), ('22023', NULL, NULL), ('22023', NULL, NULL), ('22023', NULL, NULL), ('22P02', NULL, NULL), ('00000', 1, 1)$$,
  'an item that cannot be appended is left out alone');
SELECT results_eq($$SELECT data::text FROM evento.read_stream('b-3')$$, $$VALUES ('5')$$, 'nothing of it is stored');
SELECT matches((SELECT detail FROM evento.append_batch(pg_temp.batch(pg_temp.item('b-1', ARRAY[pg_temp.event('A', '1')], 77)))), '77.*4|4.*77', 'detail says what was expected and found');
SELECT isnt((SELECT detail FROM evento.append_batch(pg_temp.batch(pg_temp.item('b-1', ARRAY[pg_temp.event('A', 'no json')])))), NULL, 'detail says what is wrong with JSON');
SELECT is((SELECT outcome FROM evento.append_batch(pg_temp.batch(pg_temp.item('b-4', ARRAY[pg_temp.event('A', repeat('[', 300) || repeat(']', 300))])))), '22P02', 'JSON too deep');
SELECT is((SELECT outcome FROM evento.append_batch(set_byte(pg_temp.batch(pg_temp.item('b-4', ARRAY[pg_temp.event('A', '"x"')])), octet_length(pg_temp.batch(pg_temp.item('b-4', ARRAY[pg_temp.event('A', '"x"')]))) - 2, 255))), '22023', 'data that is not UTF-8');
SELECT is((SELECT outcome FROM evento.append_batch(set_byte(pg_temp.batch(pg_temp.item('b-4', ARRAY[pg_temp.event('A', '"x"')])), 24, 0))), '22023', 'a name with a NUL in it');

-- ---- ids ----

SELECT results_eq(
  $$SELECT outcome, first_version, last_version FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('i-1', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000001'), pg_temp.event('A', '2', '00000000-0000-0000-0000-000000000002')], 0),
      pg_temp.item('i-1', ARRAY[pg_temp.event('A', '3')], 2),
      pg_temp.item('i-1', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000001'), pg_temp.event('A', '2', '00000000-0000-0000-0000-000000000002')], 0)))$$,
  $$VALUES ('00000', 1::bigint, 2::bigint), ('00000', 3, 3), ('00000', 1, 2)$$, 'an id that was appended earlier in the batch gives the first result');
SELECT results_eq(
  $$SELECT outcome, first_version, last_version FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('i-1', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000001')], 0),
      pg_temp.item('i-1', ARRAY[pg_temp.event('Z', '9', '00000000-0000-0000-0000-000000000001')], 0),
      pg_temp.item('i-1', ARRAY[pg_temp.event('Z', '9', '00000000-0000-0000-0000-000000000001')], 0, 1)))$$,
  $$VALUES ('00000', 1::bigint, 1::bigint), ('V0002', NULL, NULL), ('00000', 1, 1)$$, 'and one stored before; other content is V0002, but with SAME_ID_WINS');
SELECT is((SELECT version FROM evento.streams WHERE stream = 'i-1'), 3::bigint, 'stored once');
SELECT is((SELECT detail FROM evento.append_batch(pg_temp.batch(pg_temp.item('i-1', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000001')])))), 'repeat', 'detail says that it is a repeat');
SELECT is((SELECT outcome FROM evento.append_batch(pg_temp.batch(pg_temp.item('i-1', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000001'), pg_temp.event('A', '9', '00000000-0000-0000-0000-000000000009')])))), 'V0002', 'some ids there, some not');

-- what was made of the event of the item before stands and falls with it
SELECT results_eq(
  $$SELECT outcome, first_version, last_version FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '1')], 0),
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '2')], 1, flags => 128),
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '3', '00000000-0000-0000-0000-0000000000c3')], 2, flags => 128)))$$,
  $$VALUES ('00000', 1::bigint, 1::bigint), ('00000', 2, 2), ('00000', 3, 3)$$, 'CHAINED: to items that were stored');
SELECT results_eq(
  $$SELECT outcome, first_version, last_version FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '4')], 2),
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '4')], 3, flags => 128),
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '3', '00000000-0000-0000-0000-0000000000c3')], 3, flags => 128),
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '4')], 3, flags => 128),
      pg_temp.item('c-2', ARRAY[pg_temp.event('A', '1')], 0),
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '4')], 3, flags => 128)))$$,
  $$VALUES ('V0001', NULL::bigint, NULL::bigint), ('V0001', NULL, NULL), ('00000', 3, 3), ('V0001', NULL, NULL), ('00000', 1, 1), ('V0001', NULL, NULL)$$,
  'not to one that failed, was a repeat, or is of another stream, though the version is right; the id is looked at before');
SELECT is((SELECT outcome || detail FROM evento.append_batch(pg_temp.batch(pg_temp.item('c-1', ARRAY[pg_temp.event('A', '4')], 3, flags => 128)))),
  'V0001the append to stream "c-1" before this one was not stored', 'nor to nothing');
SELECT is((SELECT version FROM evento.streams WHERE stream = 'c-1'), 3::bigint, 'none of those is stored');

-- a story that was kept over a deletion
SELECT evento.delete_stream('c-1') \gset
SELECT results_eq(
  $$SELECT outcome, first_version FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '4')], 3, flags => 256),
      pg_temp.item('c-1', ARRAY[pg_temp.event('A', '4')], 3)))$$,
  $$VALUES ('V0001', NULL::bigint), ('00000', 4)$$, 'KEPT: not where the events have been deleted since');
SELECT is((SELECT outcome FROM evento.append_batch(pg_temp.batch(pg_temp.item('c-1', ARRAY[pg_temp.event('A', '5')], 4, flags => 256)))), '00000', 'but behind the next event');

-- ids that the caller has looked for up to the version it expects
SELECT results_eq(
  $$SELECT outcome, first_version, last_version, detail FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('i-2', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000011')], 0, 64),
      pg_temp.item('i-2', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000011')], 0, 64),
      pg_temp.item('i-2', ARRAY[pg_temp.event('A', '2', '00000000-0000-0000-0000-000000000012')], 1, 64)))$$,
  $$VALUES ('00000', 1::bigint, 1::bigint, NULL), ('00000', 1, 1, 'repeat'), ('00000', 2, 2, NULL)$$, 'IDS_KNOWN: a repeat in the same batch is found');
SELECT results_eq(
  $$SELECT outcome, first_version, detail FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('i-2', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000011')], 0, 64),
      pg_temp.item('i-2', ARRAY[pg_temp.event('A', '2', '00000000-0000-0000-0000-000000000012')], 1, 64),
      pg_temp.item('i-2', ARRAY[pg_temp.event('A', '2', '00000000-0000-0000-0000-000000000012')], -4, 64),
      pg_temp.item('i-2', ARRAY[pg_temp.event('A', '3', '00000000-0000-0000-0000-000000000013')], 1, 64),
      pg_temp.item('i-2', ARRAY[pg_temp.event('A', '3', '00000000-0000-0000-0000-000000000013')], 2, 64)))$$,
  $$VALUES ('00000', 1::bigint, 'repeat'), ('00000', 2, 'repeat'), ('00000', 2, 'repeat'), ('V0001', NULL, 'wrong expected version of stream "i-2": Expected version 1, found version 2.'), ('00000', 3, NULL)$$, 'so is one stored behind the version expected');

-- without stream: looked for behind the watermark given
CALL evento.wait(NULL) \gset
SELECT evento.watermark() AS since \gset
SELECT is((SELECT outcome FROM evento.append_batch(pg_temp.batch(pg_temp.item(NULL, ARRAY[pg_temp.event('S', '1', '00000000-0000-0000-0000-000000000051')])))), '00000', 'a service event');
SELECT is((SELECT outcome FROM evento.append_batch(pg_temp.batch(pg_temp.item(NULL, ARRAY[pg_temp.event('S', '1', '00000000-0000-0000-0000-000000000051')], since => :since)))), '00000', 'its repeat with SINCE');
CALL evento.wait(NULL) \gset
SELECT is((SELECT count(*) FROM evento.events WHERE id = '00000000-0000-0000-0000-000000000051'), 1::bigint, 'is not stored again');
SELECT is((SELECT outcome FROM evento.append_batch(pg_temp.batch(pg_temp.item(NULL, ARRAY[pg_temp.event('S', '1', '00000000-0000-0000-0000-000000000052')], since => :since)))), '00000', 'another id with SINCE');
CALL evento.wait(NULL) \gset
SELECT is((SELECT count(*) FROM evento.events WHERE id = '00000000-0000-0000-0000-000000000052'), 1::bigint, 'is stored');

-- ---- locks of commands ----

SELECT (r).proxy_id FROM evento._proxy_register('p', 'a', 'i', NULL, 'v') r \gset
SELECT ticket, fence FROM evento._lock_take(:proxy_id, ARRAY['lock-1'], ARRAY[30000]) \gset
SELECT results_eq(
  format($$SELECT outcome FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('k-1', ARRAY[pg_temp.event('A', '1')], lock => 'lock-1', fence => %1$s),
      pg_temp.item('k-1', ARRAY[pg_temp.event('A', '2')], lock => 'lock-1', fence => %1$s - 1),
      pg_temp.item('k-1', ARRAY[pg_temp.event('A', '3')], lock => 'lock-1', fence => %1$s + 1),
      pg_temp.item('k-1', ARRAY[pg_temp.event('A', '4')], lock => 'lock-2', fence => %1$s),
      pg_temp.item('lock-1', ARRAY[pg_temp.event('A', '5')], flags => 4),
      pg_temp.item('lock-1', ARRAY[pg_temp.event('A', '6')]),
      pg_temp.item('k-2', ARRAY[pg_temp.event('A', '7')], flags => 4)))$$, :fence),
  $$VALUES ('00000'), ('V0008'), ('V0008'), ('V0008'), ('55P03'), ('00000'), ('00000')$$,
  'lock and fence must be held; UNLOCKED gives way to a ticket');
SELECT matches((SELECT detail FROM evento.append_batch(pg_temp.batch(pg_temp.item('lock-1', ARRAY[pg_temp.event('A', '5')], flags => 4)))), '^lock row', 'and says that a lock row is in the way');
SELECT evento._lock_release(ARRAY[:ticket]::bigint[]) \gset
SELECT results_eq(
  format($$SELECT outcome FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('k-1', ARRAY[pg_temp.event('A', '8')], lock => 'lock-1', fence => %1$s),
      pg_temp.item('lock-1', ARRAY[pg_temp.event('A', '9')], flags => 4)))$$, :fence),
  $$VALUES ('V0008'), ('00000')$$, 'given back, it is lost, and no ticket is in the way');
SELECT results_eq($$SELECT data::text FROM evento.read_stream('k-1')$$, $$VALUES ('1')$$, 'only what was under its lock is stored');

-- ---- snapshots ----

SELECT results_eq(
  $$SELECT outcome, last_version FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('sn-1', ARRAY[pg_temp.event('A', '1'), pg_temp.event('A', '2')], 0, state => '{"s":  2}', snapshot_class => 'x.S'),
      pg_temp.item('sn-1', ARRAY[pg_temp.event('A', '3')], 2),
      pg_temp.item('sn-2', ARRAY[pg_temp.event('A', '1')], 5, state => '{"s": 9}'),
      pg_temp.item('sn-3', ARRAY[pg_temp.event('A', '1')], state => 'no json')))$$,
  $$VALUES ('00000', 2::bigint), ('00000', 3), ('V0001', NULL), ('22P02', NULL)$$, 'snapshots with appends');
SELECT results_eq($$SELECT part, version, data::text, class FROM evento.load_stream('sn-1')$$,
  $$VALUES ('head', 3::bigint, NULL, NULL::text), ('snapshot', 2, '{"s":  2}', 'x.S'), ('event', 3, '3', NULL)$$, 'are kept at the version of their last event');
SELECT is_empty($$SELECT stream FROM evento._snapshots WHERE stream IN ('sn-2', 'sn-3')$$, 'not with an append that was left out');
SELECT results_eq(
  $$SELECT outcome, last_version FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('sn-1', ARRAY[pg_temp.event('A', '4')], 3, state => '{"s": 4}'),
      pg_temp.item('sn-1', ARRAY[pg_temp.event('A', '5')], 4, state => '{"s": 5}')))$$,
  $$VALUES ('00000', 4::bigint), ('00000', 5)$$, 'two in one batch');
SELECT results_eq($$SELECT version, class FROM evento.load_stream('sn-1') WHERE part = 'snapshot'$$, $$VALUES (5::bigint, NULL::text)$$, 'the later stays');
SELECT is((SELECT outcome FROM evento.append_batch(pg_temp.batch(pg_temp.item('sn-1', ARRAY[pg_temp.event('Deleted', '6')], 5, 32)))), '00000', 'DROP_SNAPSHOTS');
SELECT is_empty($$SELECT 1 FROM evento.load_stream('sn-1') WHERE part = 'snapshot'$$, 'drops them');
SELECT is((SELECT outcome FROM evento.append_batch(pg_temp.batch(pg_temp.item('sn-4', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000071')], 0)))), '00000', 'a first append');
SELECT is((SELECT last_version FROM evento.append_batch(pg_temp.batch(pg_temp.item('sn-4', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000071')], 0, state => '{"s": 1}')))), 1::bigint, 'its repeat, with a snapshot');
SELECT is_empty($$SELECT 1 FROM evento.load_stream('sn-4') WHERE part = 'snapshot'$$, 'brings none');

-- ---- deleted and dead streams ----

SELECT evento.append('d-1', 'A', '1') \gset
SELECT evento.delete_stream('d-1') \gset
SELECT evento.append('d-2', 'A', '1') \gset
UPDATE evento._streams SET tombstone = true WHERE name = 'd-2';
SELECT results_eq(
  $$SELECT outcome, first_version FROM evento.append_batch(pg_temp.batch(
      pg_temp.item('d-1', ARRAY[pg_temp.event('A', '2')], -4), pg_temp.item('d-1', ARRAY[pg_temp.event('A', '2')], 0), pg_temp.item('d-2', ARRAY[pg_temp.event('A', '2')])))$$,
  $$VALUES ('V0001', NULL::bigint), ('00000', 2), ('V0003', NULL)$$, 'deleted: goes on with 0, not with -4; dead: V0003');

-- ---- malformed ----

CREATE FUNCTION pg_temp.state_of(batch bytea) RETURNS text LANGUAGE sql AS
$$ SELECT state FROM pg_temp.catch(format('SELECT * FROM evento.append_batch(%L)', batch)) $$;
CREATE TEMP TABLE good AS SELECT pg_temp.batch(pg_temp.item('x-1', ARRAY[pg_temp.event('A', '1', '00000000-0000-0000-0000-000000000081', metadata => '2', ms => 5), pg_temp.event('B', '3')], 0, lock => 'q', fence => 1, since => 1, state => '4')) AS b;
SELECT is(pg_temp.state_of(NULL), 'V0006', 'NULL');
SELECT is(pg_temp.state_of(''), 'V0006', 'empty');
SELECT is(pg_temp.state_of('\x45564231'), 'V0006', 'only the magic');
SELECT is(pg_temp.state_of('\x4556423100000000'), 'V0006', 'no items');
SELECT is(pg_temp.state_of('\x45564231ffffffff'), 'V0006', 'too many items');
SELECT is(pg_temp.state_of('\x4556423100002711'), 'V0006', 'one more than there may be');
SELECT is(pg_temp.state_of(set_byte(pg_temp.batch(pg_temp.item('x', ARRAY[pg_temp.event('A', '1')])), 0, 70)), 'V0006', 'another magic');
SELECT is(pg_temp.state_of(pg_temp.batch(pg_temp.item('x', ARRAY[pg_temp.event('A', '1')])) || '\x00'), 'V0006', 'something behind the last item');
SELECT is(pg_temp.state_of(pg_temp.batch(pg_temp.item('x', ARRAY[pg_temp.event('A', '1')], flags => 512))), 'V0006', 'an unknown flag of an item');
SELECT is(pg_temp.state_of(pg_temp.batch(pg_temp.item('x', ARRAY[set_byte(pg_temp.event('A', '1'), 0, 32)]))), 'V0006', 'an unknown flag of an event');
SELECT is(pg_temp.state_of(pg_temp.batch(pg_temp.item('x', ARRAY[]::bytea[]))), 'V0006', 'an item without event');
SELECT is(pg_temp.state_of(pg_temp.batch(pg_temp.item('x', ARRAY[pg_temp.event('A', '1'), '\x00']))), 'V0006', 'an event cut off');
SELECT is(pg_temp.state_of(pg_temp.batch(pg_temp.item('x', ARRAY[pg_temp.event('A', '1') || '\x00']))), 'V0006', 'a byte too many in an item');
SELECT matches((SELECT message || coalesce(detail, '') FROM pg_temp.catch(format('SELECT * FROM evento.append_batch(%L)', pg_temp.batch(pg_temp.item('x', ARRAY[pg_temp.event('A', '1')]), pg_temp.item('x', ARRAY[pg_temp.event('A', '1') || '\x00']))))), 'Item 2', 'the message says which item');
SELECT is_empty($$SELECT n FROM good, generate_series(0, octet_length(b) - 1) n WHERE pg_temp.state_of(substr(b, 1, n)) IS DISTINCT FROM 'V0006'$$, 'V0006 wherever it is cut off');
SELECT ok((SELECT count(pg_temp.state_of(set_byte(b, n, v))) > 0 FROM good, generate_series(0, octet_length(b) - 1) n, unnest(ARRAY[0, 1, 127, 128, 255]) v), 'any byte may be wrong, the server lives');
SELECT is_empty($$SELECT DISTINCT s FROM (SELECT pg_temp.state_of(set_byte(b, n, v)) FROM good, generate_series(0, octet_length(b) - 1) n, unnest(ARRAY[0, 1, 127, 128, 255]) v) x (s) WHERE s NOT IN ('V0006')$$, 'and says V0006 or nothing');
SELECT is_empty($$SELECT 1 FROM evento.streams WHERE stream = 'x'$$, 'nothing of a malformed batch is stored');

-- One that failed leaves nothing behind in a transaction that goes on.
BEGIN;
SELECT evento.append('x-2', 'A', '1') \gset
DO $do$
DECLARE
  bad bytea := pg_temp.batch(pg_temp.item('x-3', ARRAY[pg_temp.event('A', '1')], 77)) || '\x00';
BEGIN
  FOR i IN 1 .. 200 LOOP
    IF pg_temp.state_of(bad) IS DISTINCT FROM 'V0006' THEN
      RAISE EXCEPTION 'it did not fail';
    END IF;
  END LOOP;
END
$do$;
SELECT cmp_ok((SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'evento%'), '<', 1000000::numeric, 'nor memory, however many fail in one transaction');
COMMIT;

-- ---- limits and a full batch ----

SET evento.max_streams_per_transaction = 10;
SELECT is(pg_temp.state_of((SELECT '\x45564231'::bytea || int4send(11) || string_agg(pg_temp.item('y-' || n, ARRAY[pg_temp.event('A', '1')]), ''::bytea) FROM generate_series(1, 11) n)), '54000', 'more streams than evento.max_streams_per_transaction');
RESET evento.max_streams_per_transaction;
SELECT is_empty($$SELECT 1 FROM evento.streams WHERE category = 'y'$$, 'fails as a whole');
SELECT is((SELECT count(*) FROM evento.append_batch((SELECT '\x45564231'::bytea || int4send(10000) || string_agg(pg_temp.item('z-' || n % 500, ARRAY[pg_temp.event('A', n::text)]), ''::bytea ORDER BY n) FROM generate_series(1, 10000) n)) WHERE outcome = '00000'), 10000::bigint, 'ten thousand items');
CALL evento.wait(NULL) \gset
SELECT is((SELECT count(*) FROM evento.events WHERE CASE WHEN stream LIKE 'z-%' THEN (data #>> '{}')::bigint % 500 = split_part(stream, '-', 2)::bigint END), 10000::bigint, 'each in its stream');
SELECT is_empty($$SELECT stream FROM evento.events WHERE stream LIKE 'z-%' GROUP BY stream HAVING min(version) <> 1 OR max(version) <> 20 OR count(*) <> 20$$, 'with dense versions');
SELECT is_empty($$SELECT 1 FROM (SELECT lag(v) OVER (PARTITION BY stream ORDER BY version) > v AS back FROM (SELECT stream, version, CASE WHEN stream LIKE 'z-%' THEN (data #>> '{}')::bigint END AS v FROM evento.events) y) x WHERE back$$, 'in the order of the items');
SELECT is((SELECT max(position) - min(position) + 1 FROM evento.events WHERE stream LIKE 'z-%'), 10000::bigint, 'the positions of a batch are one block');
SELECT * FROM finish();
