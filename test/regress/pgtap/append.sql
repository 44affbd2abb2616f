-- append.sql: append, append_events, last_append: what is stored, expected
-- versions, ids, limits.
\ir helpers.psql
SELECT plan(102);

-- ---- what is stored ----

SELECT is(evento.append('order-1', 'Placed', '{"b": 1.10, "a": "\u0000", "b": 2}', '{"who":  "me"}', class => 'com.acme.Placed'), 1::bigint, 'the first event of a stream has version 1');
SELECT is(evento.append('order-1', 'Paid', '[1,  2]'), 2::bigint, 'the next version 2');
SELECT is(evento.append('order-2', 'Placed', 'null', context => 'shop', kind => 'service'), 1::bigint, 'another stream starts at 1');
SELECT is(evento.append(NULL, 'Ticked', '"x"'), NULL::bigint, 'no version without stream');
CALL evento.wait(NULL) \gset

SELECT results_eq($$SELECT position, stream, version, type, context, kind, data::text, metadata::text, class, force_telemetry FROM evento.events ORDER BY position$$,
  $$VALUES (1::bigint, 'order-1'::text COLLATE "C", 1::bigint, 'Placed'::text COLLATE "C", 'default'::text COLLATE "C", 'domain'::text COLLATE "C", '{"b": 1.10, "a": "\u0000", "b": 2}'::text, '{"who":  "me"}'::text, 'com.acme.Placed'::text COLLATE "C", false),
           (2, 'order-1', 2, 'Paid', 'default', 'domain', '[1,  2]', NULL, NULL, false),
           (3, 'order-2', 1, 'Placed', 'shop', 'service', 'null', NULL, NULL, false),
           (4, NULL, NULL, 'Ticked', 'default', 'domain', '"x"', NULL, NULL, false)$$,
  'events come back as they were given, from position 1, without gaps');
SELECT is((SELECT count(*) FROM evento.events WHERE abs(extract(epoch FROM clock_timestamp() - recorded_at)) < 60 AND abs(extract(epoch FROM recorded_at - "timestamp")) < 60), 4::bigint, 'with the time');
SELECT is((SELECT count(DISTINCT id) FROM evento.events), 4::bigint, 'and an id each');
SELECT is((SELECT count(*) FROM evento.events WHERE substr(id::text, 15, 1) = '7' AND substr(id::text, 20, 1) IN ('8', '9', 'a', 'b')), 4::bigint, 'ids are UUIDv7');
SELECT is((SELECT count(*) FROM evento.events WHERE abs(('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint - extract(epoch FROM recorded_at) * 1000) < 60000), 4::bigint, 'made from the clock');

-- ---- expected version ----

SELECT is(evento.append('v-1', 'T', '1', expected => 0), 1::bigint, 'expected 0: a new stream');
SELECT is(evento.append('v-1', 'T', '2', expected => 1), 2::bigint, 'expected n: exactly n');
SELECT is(evento.append('v-1', 'T', '3', expected => -4), 3::bigint, 'expected -4: there is one');
SELECT is(evento.append('v-1', 'T', '4', expected => NULL), 4::bigint, 'expected NULL: any');
SELECT throws_ok($$SELECT evento.append('v-1', 'T', '5', expected => 0)$$, 'V0001', NULL, 'expected 0 on a stream that is there');
SELECT throws_ok($$SELECT evento.append('v-1', 'T', '5', expected => 3)$$, 'V0001', NULL, 'expected less than there is');
SELECT throws_ok($$SELECT evento.append('v-1', 'T', '5', expected => 5)$$, 'V0001', NULL, 'expected more than there is');
SELECT throws_ok($$SELECT evento.append('v-2', 'T', '5', expected => 1)$$, 'V0001', NULL, 'expected 1 of a stream that is not there');
SELECT throws_ok($$SELECT evento.append('v-2', 'T', '5', expected => -4)$$, 'V0001', NULL, 'expected -4 of a stream that is not there');
SELECT matches((SELECT detail FROM pg_temp.catch($$SELECT evento.append('v-1', 'T', '5', expected => 77)$$)), '77.*4|4.*77', 'DETAIL says what was expected and found');
SELECT matches((SELECT message FROM pg_temp.catch($$SELECT evento.append('v-1', 'T', '5', expected => 77)$$)), 'v-1', 'the message names the stream');
SELECT is((SELECT state FROM pg_temp.catch(format($$SELECT evento.append('v-1', 'T', '5', expected => %s)$$, e))), '22023', 'expected ' || e || ' is refused')
  FROM unnest(ARRAY[-1, -2, -3, -5, -9223372036854775807, '-9223372036854775808'::bigint]) e;
SELECT isnt((SELECT hint FROM pg_temp.catch(format($$SELECT evento.append('v-1', 'T', '5', expected => %s)$$, e))), '', 'with a hint for ' || e)
  FROM unnest(ARRAY[-1, -2]) e;
SELECT is((SELECT version FROM evento.streams WHERE stream = 'v-1'), 4::bigint, 'none of that stored anything');
SELECT is((SELECT count(*) FROM evento.streams WHERE stream = 'v-2'), 0::bigint, 'nor made a stream');
SELECT is(evento.append(NULL, 'T', '1', expected => NULL), NULL::bigint, 'an append without stream takes no expected version');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append(NULL, 'T', '1', expected => 0)$$)), '22023', 'and refuses one');

-- ---- ids ----

SELECT is(evento.append('i-1', 'T', '{"n": 1}', expected => 0, id => '00000000-0000-0000-0000-000000000001'), 1::bigint, 'an id of the caller''s');
SELECT is(evento.append('i-1', 'T', '{"n": 2}'), 2::bigint, '…');
SELECT is(evento.append('i-1', 'T', '{"n": 1}', expected => 0, id => '00000000-0000-0000-0000-000000000001'), 1::bigint, 'the same again gives the first result, before the version is looked at');
SELECT is(evento.append('i-1', 'T', '{"n": 1}', expected => -4, id => '00000000-0000-0000-0000-000000000001'), 1::bigint, 'whatever is expected');
SELECT is((SELECT version FROM evento.streams WHERE stream = 'i-1'), 2::bigint, 'and stores nothing');
SELECT throws_ok($$SELECT evento.append('i-1', 'T', '{"n":1}', id => '00000000-0000-0000-0000-000000000001')$$, 'V0002', NULL, 'other data, if only by a blank');
SELECT throws_ok($$SELECT evento.append('i-1', 'U', '{"n": 1}', id => '00000000-0000-0000-0000-000000000001')$$, 'V0002', NULL, 'another type');
SELECT is(evento.append('i-2', 'T', '{"n": 9}', id => '00000000-0000-0000-0000-000000000001'), 1::bigint, 'another stream may have the id');
SELECT is((SELECT id FROM evento.read_stream('i-1', 1, 1)), '00000000-0000-0000-0000-000000000001'::uuid, 'the id is kept');
BEGIN;
SELECT is(evento.append('i-3', 'T', '1', id => '00000000-0000-0000-0000-000000000003'), 1::bigint, 'inside a transaction');
SELECT is(evento.append('i-3', 'T', '1', id => '00000000-0000-0000-0000-000000000003'), 1::bigint, 'the id of an event that is only buffered is found too');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('i-3', 'T', '2', id => '00000000-0000-0000-0000-000000000003')$$)), 'V0002', 'and compared');
COMMIT;
SELECT is((SELECT version FROM evento.streams WHERE stream = 'i-3'), 1::bigint, 'and stored once');
SELECT is(evento.append(NULL, 'T', '1', id => '00000000-0000-0000-0000-000000000004'), NULL::bigint, 'without stream an id is kept');
CALL evento.wait(NULL) \gset
SELECT is((SELECT count(*) FROM evento.events WHERE id = '00000000-0000-0000-0000-000000000004'), 1::bigint, '…');

-- the window in which ids are looked for
SET evento.id_window = 3;
SELECT is((SELECT max(evento.append('w-1', 'T', to_json(n), id => ('00000000-0000-0000-0000-0000000001' || lpad(n::text, 2, '0'))::uuid)) FROM generate_series(1, 5) n), 5::bigint, 'a stream of five');
SELECT is(evento.append('w-1', 'T', '3', id => '00000000-0000-0000-0000-000000000103'), 3::bigint, 'an id within the window is found');
SELECT is(evento.append('w-1', 'T', '1', id => '00000000-0000-0000-0000-000000000101'), 6::bigint, 'one before it is not');
RESET evento.id_window;

-- what a session remembers of ids hides none, however little it may keep: some hundred appends at random against
-- what the rule says, an id being there among the newest seven of its stream or not
CREATE PROCEDURE pg_temp.append_at_random(prefix text, INOUT wrong bigint) LANGUAGE plpgsql AS $$
DECLARE
	stories text[] := array_fill(''::text, ARRAY[4]);
	ids text[];
	s integer;
	id text;
	expected bigint;
BEGIN
	wrong := 0;
	FOR i IN 1 .. 300 LOOP
		s := 1 + floor(random() * 4)::integer;
		id := lpad(floor(random() * 20)::text, 12, '0');
		ids := string_to_array(stories[s], ' ');
		SELECT max(o) INTO expected FROM unnest(ids) WITH ORDINALITY u (known, o) WHERE known = id AND o > cardinality(ids) - 7;
		IF expected IS NULL THEN
			expected := cardinality(ids) + 1;
			stories[s] := concat_ws(' ', NULLIF(stories[s], ''), id);
		END IF;
		wrong := wrong + (evento.append(prefix || s, 'T', '1', id => ('00000000-0000-0000-0000-' || id)::uuid) <> expected)::integer;
		COMMIT;
	END LOOP;
END $$;
SET evento.id_window = 7;
SELECT setseed(0.25) \gset
CALL pg_temp.append_at_random('remembered-', NULL) \gset remembered_
SELECT is(:remembered_wrong, 0, 'ids of all streams are remembered');
SET evento.cached_ids = 40;
CALL pg_temp.append_at_random('forgotten-', NULL) \gset forgotten_
SELECT is(:forgotten_wrong, 0, 'those of one stream at a time');
SET evento.cached_ids = 0;
CALL pg_temp.append_at_random('unknown-', NULL) \gset unknown_
SELECT is(:unknown_wrong, 0, 'none are');
RESET evento.cached_ids;
RESET evento.id_window;

-- ---- several at once ----

SELECT is(evento.append_events('m-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL), ROW('B', '2', '{"m": 1}', '00000000-0000-0000-0000-000000000201', 'shop', 'x.B', 'service')]::evento.new_event[], 0), 2::bigint, 'append_events gives the last version');
SELECT results_eq($$SELECT version, type, context, kind, data::text, metadata::text, class FROM evento.read_stream('m-1')$$,
  $$VALUES (1::bigint, 'A'::text COLLATE "C", 'default'::text COLLATE "C", 'domain'::text COLLATE "C", '1', NULL, NULL::text COLLATE "C"), (2, 'B', 'shop', 'service', '2', '{"m": 1}', 'x.B')$$, 'with defaults for NULLs');
SELECT is((SELECT id FROM evento.read_stream('m-1', 2)), '00000000-0000-0000-0000-000000000201'::uuid, 'and the id given');
SELECT throws_ok($$SELECT evento.append_events('m-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[], 0)$$, 'V0001', NULL, 'wrong expected version');
SELECT is(evento.append_events('m-2', ARRAY[ROW('A', '1', NULL, '00000000-0000-0000-0000-000000000301', NULL, NULL, NULL), ROW('B', '2', NULL, '00000000-0000-0000-0000-000000000302', NULL, NULL, NULL)]::evento.new_event[]), 2::bigint, 'two with ids');
SELECT is(evento.append('m-2', 'C', '3'), 3::bigint, '…');
SELECT is(evento.append_events('m-2', ARRAY[ROW('A', '1', NULL, '00000000-0000-0000-0000-000000000301', NULL, NULL, NULL), ROW('B', '2', NULL, '00000000-0000-0000-0000-000000000302', NULL, NULL, NULL)]::evento.new_event[], 0), 2::bigint, 'the same two again give the first result');
SELECT throws_ok($$SELECT evento.append_events('m-2', ARRAY[ROW('B', '2', NULL, '00000000-0000-0000-0000-000000000302', NULL, NULL, NULL), ROW('A', '1', NULL, '00000000-0000-0000-0000-000000000301', NULL, NULL, NULL)]::evento.new_event[])$$, 'V0002', NULL, 'in another order: V0002');
SELECT throws_ok($$SELECT evento.append_events('m-2', ARRAY[ROW('A', '1', NULL, '00000000-0000-0000-0000-000000000301', NULL, NULL, NULL), ROW('B', '2', NULL, '00000000-0000-0000-0000-000000000399', NULL, NULL, NULL)]::evento.new_event[])$$, 'V0002', NULL, 'some there, some not: V0002');
SELECT throws_ok($$SELECT evento.append_events('m-3', ARRAY[ROW('A', '1', NULL, '00000000-0000-0000-0000-000000000301', NULL, NULL, NULL), ROW('A', '1', NULL, '00000000-0000-0000-0000-000000000301', NULL, NULL, NULL)]::evento.new_event[])$$, 'V0002', NULL, 'one id twice in a call: V0002');
SELECT is((SELECT version FROM evento.streams WHERE stream = 'm-2'), 3::bigint, 'nothing of that was stored');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append_events('m-4', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL), ROW(NULL, '2', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[])$$)), '22023', 'a type of NULL');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append_events('m-4', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL), ROW('B', NULL, NULL, NULL, NULL, NULL, NULL)]::evento.new_event[])$$)), '22023', 'data of NULL');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append_events('m-4', ARRAY[NULL]::evento.new_event[])$$)), '22023', 'an event of NULL');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append_events('m-4', '{}'::evento.new_event[])$$)), '22023', 'no events');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append_events('m-4', NULL)$$)), '22023', 'events of NULL');
SELECT is((SELECT count(*) FROM evento.streams WHERE stream = 'm-4'), 0::bigint, 'all or none');

-- ---- limits ----

SELECT is(evento.append(repeat('s', 512), repeat('t', 255), '1', context => repeat('c', 512), class => repeat('k', 1024)), 1::bigint, 'the longest there may be');
SELECT is(evento.append(repeat('ü', 256), 'T', '1'), 1::bigint, 'counted in bytes');
SELECT is((SELECT state FROM pg_temp.catch('SELECT evento.append(' || a || ')')), '22023', 'refused: ' || left(a, 40))
  FROM unnest(ARRAY[$$'', 'T', '1'$$, $$repeat('s', 513), 'T', '1'$$, $$repeat('ü', 257), 'T', '1'$$, $$'l-1', '', '1'$$, $$'l-1', NULL, '1'$$,
                    $$'l-1', repeat('t', 256), '1'$$, $$'l-1', 'T', NULL$$, $$'l-1', 'T', '1', context => ''$$, $$'l-1', 'T', '1', context => repeat('c', 513)$$,
                    $$'l-1', 'T', '1', class => repeat('k', 1025)$$, $$'l-1', 'T', '1', kind => 'other'$$, $$'l-1', 'T', '1', kind => ''$$]) a;
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('l-1', 'T', (repeat('[', 300) || repeat(']', 300))::json)$$)), '22P02', 'JSON nested deeper than evento.max_json_depth');
SELECT is(evento.append('l-1', 'T', (repeat('[', 256) || repeat(']', 256))::json), 1::bigint, 'as deep as that');
SET evento.max_event_size = '100kB';
SELECT is(evento.append('l-1', 'T', to_json(repeat('x', 100 * 1024 - 2))), 2::bigint, 'as large as evento.max_event_size');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('l-1', 'T', to_json(repeat('x', 100 * 1024 - 1)))$$)), '22023', 'larger');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.append('l-1', 'T', to_json(repeat('x', 60000)), to_json(repeat('y', 60000)))$$)), '22023', 'data and metadata count together');
RESET evento.max_event_size;

SET evento.max_streams_per_transaction = 10;
SELECT is((SELECT count(evento.append('s-' || n, 'T', '1')) FROM generate_series(1, 10) n), 10::bigint, 'as many streams as evento.max_streams_per_transaction');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT count(evento.append('s-' || n, 'T', '1')) FROM generate_series(1, 11) n$$)), '54000', 'one more');
SELECT is((SELECT max(version) FROM evento.streams WHERE category = 's'), 1::bigint, 'and nothing of it is stored');
RESET evento.max_streams_per_transaction;

-- ---- large events, and many ----

SELECT is(evento.append('large-1', 'T', to_json(repeat('x', 20000000))), 1::bigint, 'twenty megabytes');
SELECT is((SELECT length(data #>> '{}') FROM evento.read_stream('large-1')), 20000000, 'are read back');
SELECT is((SELECT max(evento.append('many-1', 'T', to_json(n))) FROM generate_series(1, 5000) n), 5000::bigint, 'five thousand in one transaction');
SELECT is((SELECT count(*) FROM evento.read_stream('many-1') e WHERE e.version = (e.data #>> '{}')::bigint), 5000::bigint, 'in order');

-- ---- positions of the own append ----

CALL evento.wait(NULL) \gset
SELECT evento.append_events('p-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL), ROW('A', '2', NULL, NULL, NULL, NULL, NULL), ROW('A', '3', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[]) \gset
SELECT results_eq('SELECT first, last FROM evento.last_append()', 'SELECT min(position), max(position) FROM evento.read_stream(''p-1'')', 'last_append gives the positions of the last commit');
SELECT is((SELECT last - first FROM evento.last_append()), 2::bigint, 'one block');
BEGIN;
SELECT evento.append('p-1', 'A', '4') \gset
SELECT is((SELECT last FROM evento.last_append()), (SELECT max(position) FROM evento.read_stream('p-1')), 'an append that is not committed changes nothing there');
ROLLBACK;
SELECT is((SELECT last FROM evento.last_append()), (SELECT max(position) FROM evento.read_stream('p-1')), 'nor one rolled back');

SELECT is((SELECT count(*) FROM evento.events), (SELECT max(position) FROM evento.events), 'positions are dense: nothing was rolled back at commit');
SELECT is_empty($$SELECT stream FROM evento.events WHERE stream IS NOT NULL GROUP BY stream HAVING count(*) <> max(version) OR min(version) <> 1$$, 'versions are dense in every stream');
SELECT * FROM finish();
