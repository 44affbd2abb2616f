-- cluster.sql: the meeting point of proxies: registration and leases,
-- sessions, what bundles say of themselves, classes, locks.
\ir helpers.psql
SELECT plan(70);

-- A publication of all tables, as tools that capture changes make it, keeps nobody from anything.
SET client_min_messages = error;
CREATE PUBLICATION everything FOR ALL TABLES;
RESET client_min_messages;

-- A lease lasts 5 s, in which a slow server (under valgrind) does not come far:
-- what is renewed here is renewed an hour ahead.
CREATE FUNCTION pg_temp.renewed_ahead() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.renewed_at := NEW.renewed_at + interval '1 hour'; RETURN NEW; END$$;
CREATE TRIGGER renewed_ahead BEFORE INSERT OR UPDATE ON evento._proxies FOR EACH ROW WHEN (NEW.renewed_at > clock_timestamp() - interval '4 seconds') EXECUTE FUNCTION pg_temp.renewed_ahead();

-- ---- proxies ----

SELECT proxy_id AS p1, secret AS s1 FROM evento._proxy_register('one', 'h1:3030', 'h1:3031', 'h1:8080', '0.1') \gset
SELECT proxy_id AS p2, secret AS s2 FROM evento._proxy_register('two', 'h2:3030', 'h2:3031', NULL, '0.1') \gset
SELECT cmp_ok(:p2::bigint, '>', :p1::bigint, 'each registration draws a higher number');
SELECT is(:'s1'::text, :'s2'::text, 'and gets the same secret');
SELECT is(octet_length(:'s1'::bytea), 32, 'of 32 bytes');
SELECT results_eq($$SELECT name, advertised, internal, http, version, live, instances, load FROM evento.proxies ORDER BY proxy_id$$,
  $$VALUES ('one', 'h1:3030', 'h1:3031', 'h1:8080', '0.1', true, 0::bigint, '{}'::jsonb), ('two', 'h2:3030', 'h2:3031', NULL, '0.1', true, 0, '{}')$$, 'the view proxies');
SELECT ok(evento._proxy_renew(:p1, '{"requests": 7}'), 'a lease is renewed');
SELECT is((SELECT load FROM evento.proxies WHERE name = 'one'), '{"requests": 7}'::jsonb, 'with the load');
SELECT ok(NOT evento._proxy_renew(:p2 + 1000, '{}'), 'not for one that never was');
SELECT is((SELECT count(*) FROM evento._cluster()), 2::bigint, 'a proxy without sessions has a row');

-- ---- sessions ----

-- One session, new (number 0) or changed; gives its number.
CREATE FUNCTION pg_temp.session(proxy bigint, number bigint, bundle text, instance text, version bigint, enabled boolean, VARIADIC names text[]) RETURNS bigint LANGUAGE sql AS
$$ SELECT * FROM evento._session_sync(proxy, '{}', ARRAY[number], ARRAY[bundle], ARRAY[instance], ARRAY[version], '{0}', ARRAY[enabled], names, ARRAY[cardinality(names)]) $$;
SELECT pg_temp.session(:p1, 0, 'orders', 'orders-1', 3, false, VARIADIC '{}') AS n1 \gset
SELECT results_eq($$SELECT bundle, version, instance, enabled, proxy, names FROM evento.bundles$$, $$VALUES ('orders', 3::bigint, 'orders-1', false, 'one', '{}'::text[])$$, 'a session shows in bundles');
SELECT is(pg_temp.session(:p1, :n1, 'orders', 'orders-1', 4, true, 'CreateOrder', 'FindOrder'), :n1::bigint, 'it registers');
SELECT results_eq($$SELECT version, enabled, names FROM evento.bundles$$, $$VALUES (4::bigint, true, '{CreateOrder,FindOrder}'::text[])$$, 'and shows so');
SELECT pg_temp.session(:p2, 0, 'orders', 'orders-1', 4, true, 'CreateOrder') AS n2 \gset
SELECT cmp_ok(:n2::bigint, '>', :n1::bigint, 'a later session has a higher number');
SELECT results_eq($$SELECT proxy FROM evento.bundles$$, $$VALUES ('two')$$, 'of two sessions of an instance the later holds');
SELECT results_eq(format($$SELECT proxy_id, session_no FROM evento._cluster() WHERE session_no IS NOT NULL$$), format('VALUES (%s::bigint, %s::bigint)', :p2, :n2), 'for proxies too');
SELECT is(pg_temp.session(:p1, :n1, 'orders', 'orders-1', 5, true, 'CreateOrder'), 0::bigint, 'the earlier is told that it is superseded');
SELECT is(pg_temp.session(:p1, :n2, 'orders', 'orders-1', 5, true, 'CreateOrder'), 0::bigint, 'and cannot touch the other''s');
SELECT results_eq(format($$SELECT * FROM evento._session_sync(%s, '{}', '{0}', '{orders}', '{orders-1}', '{4}', '{60000}', '{t}', '{}', '{0}')$$, :p1), 'VALUES (0::bigint)', 'nor can one register that connected before it');
SELECT results_eq(format($$SELECT * FROM evento._session_sync(%s, '{}', '{-%s}', '{orders}', '{orders-1}', '{4}', '{60000}', '{t}', '{}', '{0}')$$, :p1, :n1), 'VALUES (0::bigint)', 'or registers again');
SELECT results_eq($$SELECT proxy FROM evento.bundles$$, $$VALUES ('two')$$, 'the later still holds');
SELECT results_eq(format($$SELECT * FROM evento._session_sync(%s, '{}', '{0,0,%s}', '{a,b,orders}', '{a-1,b-1,orders-1}', '{1,2,7}', '{0,0,0}', '{t,f,t}', '{x,y,z}', '{2,0,1}')$$, :p2, :n2), format('VALUES (%s::bigint), (%s), (%s)', :n2 + 1, :n2 + 2, :n2), 'several at once');
SELECT results_eq($$SELECT bundle, version, enabled, names FROM evento.bundles ORDER BY bundle$$, $$VALUES ('a', 1::bigint, true, '{x,y}'::text[]), ('b', 2, false, '{}'), ('orders', 7, true, '{z}')$$, 'each with its names');
SELECT results_eq(format($$SELECT * FROM evento._session_sync(%s, ARRAY[%s, %s]::bigint[], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')$$, :p1, :n2 + 1, :n2 + 2), 'SELECT 1::bigint WHERE false', 'sessions end');
SELECT is((SELECT count(*) FROM evento.bundles), 3::bigint, 'only at their own proxy');
SELECT count(*) FROM evento._session_sync(:p2, ARRAY[:n2, :n2 + 1, :n2 + 2]::bigint[], '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}') \gset
SELECT is_empty('SELECT 1 FROM evento.bundles', 'there');
SELECT throws_ok(format($$SELECT pg_temp.session(%s, 0, 'b', 'i', 1, true, 'x')$$, :p2 + 1000), '23503', NULL, 'no session at a proxy that never was');
SELECT pg_temp.session(:p1, 0, 'orders', 'orders-1', 4, true, 'CreateOrder') AS n1 \gset

-- ---- a lease that ran out ----

UPDATE evento._proxies SET renewed_at = clock_timestamp() - interval '6 seconds' WHERE proxy_id = :p1;
SELECT is((SELECT live FROM evento.proxies WHERE name = 'one'), false, 'a proxy that has not renewed for 5 s');
SELECT is_empty('SELECT 1 FROM evento.bundles', 'shows no instances');
SELECT is((SELECT count(*) FROM evento._cluster()), 1::bigint, 'and is not in the cluster');
SELECT ok(NOT evento._proxy_renew(:p1, '{}'), 'it cannot renew');
SELECT :p1 AS old \gset
SELECT proxy_id AS p1 FROM evento._proxy_register('one', 'h1:3030', 'h1:3031', 'h1:8080', '0.1', :old) \gset
SELECT cmp_ok(:p1::bigint, '>', :old::bigint, 'it registers anew, under a new number');
SELECT results_eq($$SELECT bundle, proxy_id FROM evento.bundles$$, format($$VALUES ('orders', %s::bigint)$$, :p1), 'which takes its sessions over');
SELECT is((SELECT count(*) FROM evento.proxies WHERE name = 'one'), 1::bigint, 'and its place');
UPDATE evento._proxies SET renewed_at = clock_timestamp() - interval '2 hours' WHERE proxy_id = :p1;
SELECT proxy_id AS p1 FROM evento._proxy_register('one', 'h1:3030', 'h1:3031', 'h1:8080', '0.1') \gset
SELECT is((SELECT count(*) FROM evento.proxies WHERE name = 'one'), 1::bigint, 'who registers clears away what is long void');
SELECT is((SELECT count(*) FROM evento._sessions), 0::bigint, 'with its sessions');
SELECT evento._proxy_leave(:p2) \gset
SELECT is((SELECT count(*) FROM evento.proxies WHERE name = 'two'), 0::bigint, 'a proxy leaves');

-- ---- what bundles say of themselves ----

\set discovery '{"description": "Orders", "detail": "# Orders", "repositoryUrl": "https://git.example/orders", "linePrefix": "#L", "handlers": [{"componentType": "Aggregate", "componentName": "OrderAggregate", "handlerType": "AggregateCommandHandler", "handledPayloadType": "DomainCommand", "handledPayload": "CreateOrder", "returnType": "OrderCreated", "returnIsMultiple": false, "associationProperty": null, "componentDescription": "An order", "componentDetail": "…", "componentPath": "OrderAggregate.java", "componentLine": 12, "handlerLine": 34, "invokedCommands": {}, "invokedQueries": {"40": "FindCustomer"}}, {"componentType": "Projection", "componentName": "OrderProjection", "handlerType": "QueryHandler", "handledPayloadType": "Query", "handledPayload": "FindOrders", "returnType": "OrderView", "returnIsMultiple": true, "executor": "e1", "invokedCommands": {}, "invokedQueries": {}}, {"componentType": null, "componentName": "broken", "handlerType": "x", "handledPayload": "y"}], "payloadInfo": {"CreateOrder": {"schema": "{}", "domain": "sales", "description": "creates", "detail": "d", "path": "CreateOrder.java", "line": 5}, "FindOrders": {}}}'
SELECT lives_ok(format('SELECT evento._discover(%L, 4, %L)', 'orders', :'discovery'), 'a discovery is filed');
SELECT results_eq($$SELECT bundle, version, component_type, component, handler_type, payload_type, payload, return_type, return_is_multiple, association_property, executor, invoked_commands, invoked_queries, component_description, component_detail, component_path, component_line, handler_line FROM evento.handlers ORDER BY component$$,
  $$VALUES ('orders', 4::bigint, 'Aggregate', 'OrderAggregate', 'AggregateCommandHandler', 'DomainCommand', 'CreateOrder', 'OrderCreated', false, NULL, NULL, '{}'::jsonb, '{"40": "FindCustomer"}'::jsonb, 'An order', '…', 'OrderAggregate.java', 12, 34),
           ('orders', 4, 'Projection', 'OrderProjection', 'QueryHandler', 'Query', 'FindOrders', 'OrderView', true, NULL, 'e1', '{}', '{}', NULL, NULL, NULL, NULL, NULL)$$, 'the view handlers');
SELECT results_eq($$SELECT name, domain, description, detail, schema, path, line, described_by FROM evento.payloads ORDER BY name$$,
  $$VALUES ('CreateOrder', 'sales', 'creates', 'd', '{}', 'CreateOrder.java', 5, 'orders'), ('FindOrders', NULL, NULL, NULL, NULL, NULL, NULL, 'orders')$$, 'the view payloads');
SELECT pg_temp.session(:p1, 0, 'orders', 'orders-2', 4, true, 'CreateOrder') AS n3 \gset
SELECT results_eq($$SELECT bundle, version, description, detail, repository_url, line_prefix FROM evento.bundles$$, $$VALUES ('orders', 4::bigint, 'Orders', '# Orders', 'https://git.example/orders', '#L')$$, 'and in bundles');
SELECT lives_ok(format('SELECT evento._discover(%L, 4, %L)', 'orders', :'discovery'), 'the same again');
SELECT is((SELECT count(*) FROM evento.handlers), 2::bigint, 'changes nothing');
SELECT lives_ok($$SELECT evento._discover('orders', 4, '{"handlers": [], "payloadInfo": {"CreateOrder": {"description": "newer"}}}')$$, 'another for the same version');
SELECT is((SELECT count(*) FROM evento.handlers), 0::bigint, 'takes the place of its handlers');
SELECT is((SELECT description FROM evento.payloads WHERE name = 'CreateOrder'), 'newer', 'and describes its payloads anew');
SELECT lives_ok($$SELECT evento._discover('empty', 1, '{}')$$, 'one that says nothing');

-- ---- classes ----

SELECT is(evento._class_of('OrderCreated'), NULL, 'a type that no bundle used');
SELECT lives_ok($$SELECT evento._class_seen('OrderCreated', 'com.acme.OrderCreated')$$, 'seen');
SELECT is(evento._class_of('OrderCreated'), 'com.acme.OrderCreated', 'known');
SELECT evento._class_seen('OrderCreated', 'com.acme.v2.OrderCreated') \gset
SELECT is(evento._class_of('OrderCreated'), 'com.acme.v2.OrderCreated', 'the last one counts');

-- ---- locks ----

SELECT proxy_id AS p3 FROM evento._proxy_register('three', 'h3:3030', 'h3:3031', NULL, '0.1') \gset
SELECT ticket AS t1, COALESCE(fence, 0) AS f1 FROM evento._lock_take(:p1, '{a}', '{30000}') \gset
SELECT isnt(:f1::bigint, 0::bigint, 'a free lock is granted at once');
SELECT ticket AS t2, COALESCE(fence, 0) AS f2 FROM evento._lock_take(:p3, '{a}', '{30000}') \gset
SELECT is(:f2::bigint, 0::bigint, 'a held one is not');
SELECT ticket AS t3, COALESCE(fence, 0) AS f3 FROM evento._lock_take(:p1, '{a}', '{30000}') \gset
SELECT is(:f3::bigint, 0::bigint, 'nor to the same proxy again');
SELECT results_eq(format('SELECT ticket, fence FROM evento._lock_poll(ARRAY[%s, %s]::bigint[]) ORDER BY 1', :t2, :t3), format('VALUES (%s::bigint, NULL::bigint), (%s, NULL)', :t2, :t3), 'they wait');
SELECT evento._lock_release(ARRAY[:t1]::bigint[]) \gset
SELECT ticket, COALESCE(fence, 0) AS f2 FROM evento._lock_poll(ARRAY[:t2]::bigint[]) \gset
SELECT cmp_ok(:f2::bigint, '>', :f1::bigint, 'given back: the first who waits has it, with a higher fence');
SELECT is((SELECT fence FROM evento._lock_poll(ARRAY[:t3]::bigint[])), NULL::bigint, 'the next still waits');
SELECT is_empty(format('SELECT * FROM evento._lock_poll(ARRAY[%s]::bigint[])', :t1), 'a ticket given back is gone');
UPDATE evento._proxies SET renewed_at = clock_timestamp() - interval '6 seconds' WHERE proxy_id = :p3;
SELECT ticket, COALESCE(fence, 0) AS f3 FROM evento._lock_poll(ARRAY[:t3]::bigint[]) \gset
SELECT cmp_ok(:f3::bigint, '>', :f2::bigint, 'a holder whose proxy is void: the next takes over, with a higher fence');
SELECT is_empty(format('SELECT * FROM evento._lock_poll(ARRAY[%s]::bigint[])', :t2), 'and its ticket is gone');
SELECT evento._lock_release(ARRAY[:t3]::bigint[]) \gset
SELECT is_empty($$SELECT 1 FROM evento._locks$$, 'nothing is left behind');

SELECT array_agg(ticket ORDER BY ticket) AS many, count(fence) AS held FROM evento._lock_take(:p1, '{x,y,x,z}', '{30000,30000,30000,30000}') \gset
SELECT is(:held, 3, 'several names in one call, one of them twice');
SELECT evento._lock_release(:'many'::bigint[]) \gset
SELECT ticket AS t4 FROM evento._lock_take(:p1, '{w}', '{30000}') \gset
SELECT ticket AS t5 FROM evento._lock_take(:p1, '{w}', '{1}') \gset
SELECT ticket AS t6 FROM evento._lock_take(:p1, '{w}', '{30000}') \gset
SELECT pg_sleep(0.01) \gset
SELECT evento._lock_release(ARRAY[:t4]::bigint[]) \gset
SELECT isnt((SELECT fence FROM evento._lock_poll(ARRAY[:t6]::bigint[])), NULL::bigint, 'a ticket past its time is passed over');
SELECT is_empty(format('SELECT * FROM evento._lock_poll(ARRAY[%s]::bigint[])', :t5), 'and is void');

SELECT array_agg(ticket ORDER BY ticket) AS lost FROM evento._lock_take(:p1, '{w,v}', '{30000,30000}') \gset
SELECT evento._lock_keep(:p1, ARRAY[:t6]::bigint[]) \gset
SELECT results_eq('SELECT ticket FROM evento._locks', format('VALUES (%s::bigint)', :t6), '_lock_keep gives back all others');

-- rows of a lock change under the key that an append to the stream of its name takes
BEGIN;
SELECT evento._lock_key('k') \gset
SELECT is((SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND pid = pg_backend_pid() AND granted), 1::bigint, '_lock_key takes one lock');
SELECT evento.append('k', 'T', '1') \gset
SELECT is((SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND pid = pg_backend_pid() AND granted), 1::bigint, 'the same as an append to the stream');
SELECT evento.append('kk', 'T', '1') \gset
SELECT is((SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND pid = pg_backend_pid() AND granted), 2::bigint, 'another stream has another');
SELECT is((SELECT count(*) FROM pg_locks a, pg_locks b WHERE a.locktype = 'advisory' AND a.pid = pg_backend_pid() AND a.objsubid IN (1, 2)), 0::bigint, 'none that pg_advisory_lock could mean');
COMMIT;
SELECT is((SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND pid = pg_backend_pid()), 0::bigint, 'given back with the transaction');

-- ---- notifications ----

LISTEN evento_cluster;
LISTEN evento;
SELECT is(evento._proxy_leave(:p1)::text, '', 'leaving');
SELECT ok(EXISTS (SELECT FROM pg_listening_channels()), 'listens');
SELECT * FROM finish();
