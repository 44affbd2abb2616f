-- explain.sql: the plans of what users ask the view events for.
\ir helpers.psql
SELECT plan(37);

SET evento.max_streams_per_transaction = 100000;
DO $$
BEGIN
  FOR i IN 0 .. 39 LOOP
    PERFORM evento.append('order-' || n * 37 % 500, 'Type' || n % 20, json_build_object('orderId', n, 'customer', json_build_object('id', n % 2000), 'pad', repeat('x', 200)),
                          metadata => json_build_object('tenant', 't' || n % 5), context => 'context' || n % 10)
       FROM generate_series(i * 500 + 1, i * 500 + 500) n;
    COMMIT;
  END LOOP;
  PERFORM evento.append('rare-1', 'Rare', '{"x":"y"}', context => 'rare');
END
$$;
CALL evento.wait(NULL) \gset
CALL evento.create_index('type');
CALL evento.create_index('context');
CALL evento.create_index('category');
CALL evento.create_index('time');
CALL evento.create_index('data.customer.id');
VACUUM ANALYZE evento._events, evento._streams, evento._watermark;
SET max_parallel_workers_per_gather = 0;
SET jit = off;

CREATE FUNCTION pg_temp.plan_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  line text;
  plan text := '';
BEGIN
  FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
    plan := plan || line || E'\n';
  END LOOP;
  RETURN plan;
END
$$;

-- Rows by the plan, and how many rows it looked at in _events.
CREATE FUNCTION pg_temp.looked_at(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  plan jsonb;
BEGIN
  EXECUTE 'EXPLAIN (ANALYZE, FORMAT json) ' || query INTO plan;
  RETURN (SELECT sum(((node ->> 'Actual Rows')::numeric + COALESCE((node ->> 'Rows Removed by Filter')::numeric, 0)) * (node ->> 'Actual Loops')::numeric)
            FROM jsonb_path_query(plan, 'strict $.** ? (@."Relation Name" == "_events")') node);
END
$$;

-- ---- by position ----

SELECT matches(pg_temp.plan_of('SELECT * FROM evento.events WHERE position > 5000 ORDER BY position LIMIT 100'), 'Index Scan using _events_position', 'a page of the log: the index on position');
SELECT doesnt_match(pg_temp.plan_of('SELECT * FROM evento.events WHERE position > 5000 ORDER BY position LIMIT 100'), 'Sort', 'in its order');
SELECT cmp_ok(pg_temp.looked_at('SELECT * FROM evento.events WHERE position > 5000 ORDER BY position LIMIT 100'), '<=', 110::bigint, 'and no more than the page');
SELECT matches(pg_temp.plan_of('SELECT * FROM evento.events WHERE position < 5000 ORDER BY position DESC LIMIT 100'), 'Index Scan Backward using _events_position', 'backwards');
SELECT doesnt_match(pg_temp.plan_of('SELECT * FROM evento.events WHERE position < 5000 ORDER BY position DESC LIMIT 100'), 'Sort', 'in that order');
SELECT cmp_ok(pg_temp.looked_at('SELECT * FROM evento.events ORDER BY position DESC LIMIT 1'), '<=', 10::bigint, 'the last event of all');
SELECT matches(pg_temp.plan_of('SELECT * FROM evento.events WHERE position = 77'), '_events_position', 'one event');
SELECT results_eq('SELECT position FROM evento.events WHERE position > 5000 ORDER BY position LIMIT 3', 'VALUES (5001::bigint), (5002), (5003)', 'page by page');

-- ---- by stream ----

SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE stream = 'order-1' ORDER BY version$$), '_streams_name_key', 'a stream: the index on names');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE stream = 'order-1' ORDER BY version$$), '_events_stream', 'then that on stream and version');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE stream = 'order-1' ORDER BY version$$), '=', 40::bigint, 'and only its events');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE stream = 'order-1' AND version > 30 ORDER BY version LIMIT 10$$), 'version > 30', 'from a version');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE stream = 'order-1' AND version > 30 ORDER BY version LIMIT 10$$), '=', 10::bigint, 'only those behind it');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE stream = 'order-1' ORDER BY version DESC LIMIT 1$$), '<=', 40::bigint, 'the last of a stream');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE stream = 'order-1' AND version = (SELECT version FROM evento.streams WHERE stream = 'order-1')$$), '<=', 3::bigint, 'by its version: that event alone');

-- ---- by what create_index was asked for ----

SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE type = 'Rare' ORDER BY position LIMIT 10$$), '_events_type', 'a type');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE type = 'Rare' AND position > 100 ORDER BY position LIMIT 10$$), '_events_type', 'behind a position');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE type = 'Rare' ORDER BY position DESC LIMIT 1$$), '=', 1::bigint, 'the last of a type');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE type = 'Type7' ORDER BY position DESC LIMIT 1$$), '<=', 100::bigint, 'and of a frequent one');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE context = 'rare' ORDER BY position LIMIT 10$$), '_events_context', 'a context');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE context = 'rare' ORDER BY position LIMIT 10$$), '=', 1::bigint, 'only its events');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE category = 'rare' ORDER BY position LIMIT 10$$), '_streams_category', 'a category: the index of streams');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE category = 'rare' ORDER BY position LIMIT 10$$), '_events_stream', 'then their events');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.streams WHERE category = 'rare'$$), '_streams_category', 'the streams of a category');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE recorded_at >= now() ORDER BY recorded_at LIMIT 1$$), '_events_time', 'the first event at a time');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE context = 'rare' ORDER BY position DESC LIMIT 10$$), 'Index Scan Backward using _events_context', 'a context backwards');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE context = 'rare' ORDER BY position DESC LIMIT 10$$), '=', 1::bigint, 'only its events');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE category = 'rare' ORDER BY position DESC LIMIT 10$$), '=', 1::bigint, 'a category backwards: only its events');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE type = 'Rare' AND position < 30000 ORDER BY position DESC LIMIT 10$$), '=', 1::bigint, 'a type backwards from a position');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE recorded_at < now() ORDER BY recorded_at DESC LIMIT 10$$), 'Index Scan Backward using _events_time', 'backwards from a time');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE recorded_at < now() ORDER BY recorded_at DESC LIMIT 10$$), '=', 10::bigint, 'no more than the page');
SELECT matches(pg_temp.plan_of($$SELECT count(*) FROM evento.events WHERE recorded_at >= now() AND recorded_at < now() + interval '1 minute'$$), '_events_time', 'a span of time');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE evento.text(data, 'customer', 'id') = '77' ORDER BY position$$), '_events_data_customer_id', 'a key of JSON');
SELECT cmp_ok(pg_temp.looked_at($$SELECT * FROM evento.events WHERE evento.text(data, 'customer', 'id') = '77' ORDER BY position$$), '=', 10::bigint, 'only its events');
SELECT matches(pg_temp.plan_of($$SELECT * FROM evento.events WHERE evento.text(data, 'customer', 'id') IN ('77', '78')$$), '_events_data_customer_id', 'several values');

-- ---- the watermark ----

SELECT doesnt_match(pg_temp.plan_of('SELECT * FROM evento.events WHERE position > 1000 ORDER BY position LIMIT 200'), 'Sort', 'does not turn a long page into a sort');
SELECT ok((SELECT max(position) FROM evento.events) <= evento.watermark(), 'and none goes beyond it');
SELECT * FROM finish();
