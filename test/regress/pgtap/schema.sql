-- schema.sql: what CREATE EXTENSION makes: objects, signatures, settings,
-- comments, what pg_dump takes along.
\ir helpers.psql
SELECT plan(34);

SELECT has_schema('evento');
SELECT results_eq($$SELECT extname::text COLLATE "C", nspname::text COLLATE "C", extversion COLLATE "C" FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'evento'$$,
  $$SELECT 'evento' COLLATE "C", 'evento' COLLATE "C", default_version COLLATE "C" FROM pg_available_extensions WHERE name = 'evento'$$, 'the extension lies in schema evento');

-- ---- what users call, by the names and defaults they type ----

SELECT results_eq($$
  SELECT p.proname || '(' || pg_get_function_arguments(p.oid) || ')' || COALESCE(' ' || pg_get_function_result(p.oid), '') COLLATE "C"
    FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND p.proname NOT LIKE '\_%' ORDER BY 1$$,
  $$VALUES
  ('add_access_rule(address cidr, bundle text, method text, rule_number integer DEFAULT NULL::integer) integer' COLLATE "C"),
  ('append(stream text, type text, data json, metadata json DEFAULT NULL::json, expected bigint DEFAULT NULL::bigint, id uuid DEFAULT NULL::uuid, context text DEFAULT ''default''::text, class text DEFAULT NULL::text, kind text DEFAULT ''domain''::text) bigint'),
  ('append_batch(appends bytea) TABLE(outcome text, first_version bigint, last_version bigint, detail text)'),
  ('append_events(stream text, events evento.new_event[], expected bigint DEFAULT NULL::bigint) bigint'),
  ('consumer_ack(name text, "position" bigint, epoch bigint, after bigint DEFAULT NULL::bigint) boolean'),
  ('consumer_claim(name text, ttl interval, context text DEFAULT ''*''::text, types text[] DEFAULT NULL::text[], categories text[] DEFAULT NULL::text[], held bigint DEFAULT NULL::bigint, start bigint DEFAULT 0) TABLE(epoch bigint, "position" bigint)'),
  ('consumer_dead_events(IN consumer text, IN instance text DEFAULT NULL::text, IN timeout interval DEFAULT ''00:00:10''::interval, INOUT dead_events jsonb DEFAULT NULL::jsonb)'),
  ('consumer_delete_event(IN consumer text, IN "position" bigint, IN instance text DEFAULT NULL::text, IN timeout interval DEFAULT ''00:00:10''::interval, INOUT success boolean DEFAULT NULL::boolean)'),
  ('consumer_drop(name text) boolean'),
  ('consumer_fetch(name text, max bigint DEFAULT 1000) SETOF evento.scanned_event'),
  ('consumer_process_events(IN consumer text, IN instance text DEFAULT NULL::text, IN timeout interval DEFAULT ''00:01:00''::interval, INOUT success boolean DEFAULT NULL::boolean)'),
  ('consumer_release(name text, epoch bigint) boolean'),
  ('consumer_repaired(consumer text) boolean'),
  ('consumer_reset(name text, "position" bigint) bigint'),
  ('consumer_retry_event(IN consumer text, IN "position" bigint, IN retry boolean DEFAULT true, IN instance text DEFAULT NULL::text, IN timeout interval DEFAULT ''00:00:10''::interval, INOUT success boolean DEFAULT NULL::boolean)'),
  ('consumer_status(IN consumer text, IN instance text DEFAULT NULL::text, IN timeout interval DEFAULT ''00:00:10''::interval, INOUT status jsonb DEFAULT NULL::jsonb)'),
  ('create_bundle_token(bundle text, expires timestamp with time zone DEFAULT NULL::timestamp with time zone, may_register text[] DEFAULT NULL::text[], may_send text[] DEFAULT NULL::text[], http text DEFAULT ''none''::text) text'),
  ('create_index(IN what text)'),
  ('delete_stream(stream text, expected bigint DEFAULT NULL::bigint) bigint'),
  ('doctor() SETOF evento.finding'),
  ('drop_access_rule(rule_number integer) void'),
  ('drop_bundle_token(token_id uuid) void'),
  ('drop_index(IN what text)'),
  ('drop_snapshots(stream text) boolean'),
  ('erase_stream(stream text, reason text) bigint'),
  ('import_evento(IN events text DEFAULT ''public.es__events''::text, IN snapshots text DEFAULT ''public.es__snapshot''::text, IN batch integer DEFAULT 10000, INOUT imported bigint DEFAULT NULL::bigint)'),
  ('import_message_db(IN messages text DEFAULT ''message_store.messages''::text, IN batch integer DEFAULT 10000, INOUT imported bigint DEFAULT NULL::bigint)'),
  ('jump_positions(reason text DEFAULT ''asked for by the administrator''::text, OUT last_position bigint, OUT next_position bigint) record'),
  ('last_append(OUT first bigint, OUT last bigint) record'),
  ('load_stream(stream text, id uuid DEFAULT NULL::uuid, snapshot boolean DEFAULT true) SETOF evento.stream_part'),
  ('read_all(after bigint DEFAULT 0, max bigint DEFAULT 1000, context text DEFAULT ''*''::text, types text[] DEFAULT NULL::text[], categories text[] DEFAULT NULL::text[]) SETOF evento.events'),
  ('read_stream(stream text, from_version bigint DEFAULT NULL::bigint, max bigint DEFAULT NULL::bigint, backwards boolean DEFAULT false) SETOF evento.events'),
  ('save_snapshot(stream text, version bigint, state json, class text DEFAULT NULL::text) boolean'),
  ('scan_all(after bigint DEFAULT 0, max bigint DEFAULT 1000, context text DEFAULT ''*''::text, types text[] DEFAULT NULL::text[], categories text[] DEFAULT NULL::text[], max_scan bigint DEFAULT 100000, max_bytes bigint DEFAULT NULL::bigint) SETOF evento.scanned_event'),
  ('set_stream_metadata(stream text, metadata json, expected_revision bigint DEFAULT NULL::bigint) bigint'),
  ('stream_metadata(stream text) json'),
  ('text(data json, VARIADIC path text[]) text'),
  ('tombstone_stream(stream text, expected bigint DEFAULT NULL::bigint) bigint'),
  ('wait(IN after bigint, IN timeout interval DEFAULT ''00:00:30''::interval, INOUT watermark bigint DEFAULT NULL::bigint)'),
  ('watermark() bigint')$$, 'functions and procedures');
SELECT views_are('evento', ARRAY['access_rules', 'appending', 'bundle_tokens', 'bundles', 'consumers', 'erasures', 'events', 'executors', 'handler_history', 'handler_statistics', 'handlers', 'imports', 'indexes', 'invocations', 'jumps', 'payloads', 'proxies', 'stats', 'streams']);
SELECT columns_are('evento', 'events', ARRAY['position', 'stream', 'version', 'id', 'type', 'context', 'kind', 'data', 'metadata', 'class', 'timestamp', 'recorded_at', 'force_telemetry', 'category']);
SELECT columns_are('evento', 'streams', ARRAY['stream', 'category', 'version', 'first_recorded_at', 'last_recorded_at', 'deleted_at', 'tombstone', 'metadata', 'metadata_revision']);
SELECT columns_are('evento', 'appending', ARRAY['pid', 'first_position', 'transaction_age', 'user', 'application_name', 'state', 'wait_event_type', 'wait_event', 'query']);
SELECT has_composite('evento', 'new_event', 'new_event');
SELECT has_composite('evento', 'scanned_event', 'scanned_event');
SELECT has_composite('evento', 'stream_part', 'stream_part');
SELECT col_type_is('evento', 'events', 'data', 'json', 'JSON is kept as it was written');
SELECT is_empty($$SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'evento._events'::regclass AND indexrelid NOT IN ('evento._events_position'::regclass, 'evento._events_stream'::regclass)$$, 'two indexes carry the log');

-- ---- what it may do to queries ----

SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND p.proparallel = 's' AND p.provolatile = 'v'$$, 'nothing that writes may run in parallel');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'evento'::regnamespace AND l.lanname <> 'c' AND p.proname NOT LIKE '\_%' AND p.proname NOT LIKE 'consumer\_%' AND p.proname NOT LIKE 'import\_%' AND p.proname NOT LIKE '%\_access\_rule' AND p.proname NOT LIKE '%\_bundle\_token' AND p.proname <> 'doctor'$$, 'what users call of the log is C, but what diagnoses');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND p.prosecdef AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search\_path=pg\_catalog, evento, pg\_temp')$$, 'SECURITY DEFINER functions pin search_path');

-- ---- comments ----

SELECT is_empty($$
  SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
  UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'evento'::regnamespace AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL
  UNION ALL SELECT t.oid::regtype::text FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid WHERE t.typnamespace = 'evento'::regnamespace AND c.relkind = 'c' AND obj_description(t.oid, 'pg_type') IS NULL
  UNION ALL SELECT extname FROM pg_extension e WHERE extname = 'evento' AND obj_description(e.oid, 'pg_extension') IS NULL$$, 'functions, relations and types have comments');
SELECT is_empty($$SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND p.proname IN ('append', 'append_events', 'append_batch', 'watermark', 'wait', 'read_stream', 'read_all', 'load_stream', 'delete_stream', 'save_snapshot', 'drop_snapshots', 'tombstone_stream', 'erase_stream', 'set_stream_metadata', 'stream_metadata')
  AND obj_description(p.oid, 'pg_proc') !~ 'Raises|raises|V000'$$, 'that say what is raised');

-- ---- settings ----

SELECT results_eq($$SELECT name COLLATE "C" FROM pg_settings WHERE name LIKE 'evento.%' AND name IN ('evento.id_window', 'evento.max_databases', 'evento.max_event_size', 'evento.max_json_depth', 'evento.max_streams_per_transaction', 'evento.position_jump', 'evento.watermark_interval') ORDER BY 1$$,
  $$SELECT name COLLATE "C" FROM (SELECT * FROM pg_settings WHERE name = 'evento.id_window' AND setting = '1000'
     UNION ALL SELECT * FROM pg_settings WHERE name = 'evento.max_databases' AND setting = '64' AND context = 'postmaster'
     UNION ALL SELECT * FROM pg_settings WHERE name = 'evento.max_event_size' AND pg_size_bytes(setting || COALESCE(unit, 'B')) = 64 * 1024 * 1024
     UNION ALL SELECT * FROM pg_settings WHERE name = 'evento.max_json_depth' AND setting = '256'
     UNION ALL SELECT * FROM pg_settings WHERE name = 'evento.max_streams_per_transaction' AND setting = '1000'
     UNION ALL SELECT * FROM pg_settings WHERE name = 'evento.position_jump'
     UNION ALL SELECT * FROM pg_settings WHERE name = 'evento.watermark_interval') s ORDER BY 1$$, 'settings and their defaults');
SELECT is((SELECT count(*) FROM pg_settings WHERE name LIKE 'evento.%' AND short_desc <> ''), (SELECT count(*) FROM pg_settings WHERE name LIKE 'evento.%'), 'each is described');
SELECT cmp_ok((SELECT count(*) FROM pg_settings WHERE name LIKE 'evento.%'), '>=', 7::bigint, 'all of them are there');
SELECT is((SELECT state FROM pg_temp.catch('SET evento.no_such_setting = 1')), '42602', 'others are refused');

-- ---- roles ----

SELECT has_role('evento_reader');
SELECT has_role('evento_writer');
SELECT has_role('evento_proxy');
SELECT has_role('evento_admin');
SELECT is_empty($$SELECT rolname FROM pg_roles WHERE rolname LIKE 'evento\_%' AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)$$, 'that may do nothing else');
SELECT is_member_of('evento_reader', ARRAY['evento_writer']);
SELECT is_member_of('evento_writer', ARRAY['evento_proxy']);
SELECT is_member_of('evento_proxy', ARRAY['evento_admin']);

-- ---- what a dump takes along ----

SELECT results_eq($$SELECT unnest(extconfig)::regclass::text COLLATE "C" FROM pg_extension WHERE extname = 'evento' ORDER BY 1$$,
  $$VALUES ('evento._access_rules' COLLATE "C"), ('evento._bundle_tokens'), ('evento._bundles'), ('evento._checkpoints'), ('evento._classes'), ('evento._consumers'), ('evento._erasures'), ('evento._events'), ('evento._handlers'), ('evento._identity'), ('evento._imports'), ('evento._indexes'), ('evento._jumps'), ('evento._payloads'), ('evento._positions'), ('evento._snapshots'), ('evento._stream_metadata'), ('evento._streams')$$,
  'the log, the catalogue and who has access are dumped, the secret, leases and the watermark are not');
SELECT is((SELECT seqincrement || ' ' || seqmin || ' ' || seqcycle FROM pg_sequence WHERE seqrelid = 'evento._positions'::regclass), '1024 1 false', 'positions are reserved 1024 at a time');
SELECT is((SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'evento._events'::regclass AND tgname = '_events_loaded'), 'A', 'rows of a restore are noticed always');
SELECT is((SELECT count(*) FROM pg_proc WHERE pronamespace = 'evento'::regnamespace AND prosecdef AND proowner <> (SELECT extowner FROM pg_extension WHERE extname = 'evento')), 0::bigint, 'all belongs to who made the extension');
SELECT results_eq($$SELECT c.relname::text COLLATE "C" FROM pg_class c WHERE c.relnamespace = 'evento'::regnamespace AND c.relkind = 'r' AND NOT (c.relreplident = 'f' OR EXISTS (
  SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indimmediate AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END)) ORDER BY 1$$,
  $$VALUES ('_erasures' COLLATE "C"), ('_jumps')$$, 'where all tables are published, rows can be changed of all but those that only get more');
SELECT * FROM finish();
