-- privileges.sql: what each role may do, and what nobody may. Every object of
-- the schema is taken from the catalog and tried as each role.
\ir helpers.psql
SELECT no_plan();

SET client_min_messages = warning;
DROP ROLE IF EXISTS pgtap_reader, pgtap_writer, pgtap_proxy, pgtap_admin, pgtap_guest, pgtap_nobody;
RESET client_min_messages;
CREATE ROLE pgtap_reader LOGIN IN ROLE evento_reader;
CREATE ROLE pgtap_writer LOGIN IN ROLE evento_writer;
CREATE ROLE pgtap_proxy LOGIN IN ROLE evento_proxy;
CREATE ROLE pgtap_admin LOGIN IN ROLE evento_admin;
CREATE ROLE pgtap_nobody LOGIN;
-- Who may have but what PUBLIC has: let into the schema, so that each object has to speak for itself.
CREATE ROLE pgtap_guest LOGIN;
GRANT USAGE ON SCHEMA evento TO pgtap_guest;

-- ---- who may use what ----

-- lowest: the least role that may use it (guest, reader, writer, proxy, admin; each may what those before it may), or none but the owner.
-- A row for each thing that anybody may use, by name; overloaded functions have one. What begins with _ and has none is the owner's alone.
-- statement: a use that says more than a call with NULLs (of a function), SELECT * (of a relation) and a column (of a type) would.
-- expected: false where it need not be there.
CREATE TEMP TABLE objects (kind text, name text, lowest text, statement text, expected boolean DEFAULT true, PRIMARY KEY (kind, name));
INSERT INTO objects (kind, name, lowest, statement) VALUES
  -- the log
  ('relation', 'events', 'reader', NULL), ('relation', 'streams', 'reader', NULL), ('relation', 'appending', 'reader', NULL),
  ('type', 'new_event', 'writer', NULL), ('type', 'scanned_event', 'reader', NULL), ('type', 'stream_part', 'reader', NULL),
  ('function', 'append', 'writer', $$SELECT evento.append('p-1', 'T', '1')$$),
  ('function', 'append_events', 'writer', $$SELECT evento.append_events('p-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[])$$),
  ('function', 'append_batch', 'writer', 'SELECT * FROM evento.append_batch((SELECT b FROM pg_temp.batch))'),
  ('function', 'last_append', 'reader', NULL), ('function', 'watermark', 'reader', NULL), ('function', 'wait', 'reader', NULL),
  ('function', 'read_stream', 'reader', $$SELECT * FROM evento.read_stream('p-1')$$), ('function', 'read_all', 'reader', NULL), ('function', 'scan_all', 'reader', NULL),
  ('function', 'load_stream', 'reader', $$SELECT * FROM evento.load_stream('p-1')$$), ('function', 'delete_stream', 'admin', $$SELECT evento.delete_stream('p-1')$$),
  ('function', 'save_snapshot', 'writer', $$SELECT evento.save_snapshot('p-1', 1, '1')$$), ('function', 'drop_snapshots', 'writer', $$SELECT evento.drop_snapshots('p-1')$$),
  ('function', '_appending', 'reader', NULL), ('function', '_watermark_seen', 'reader', NULL),
  -- consumers
  ('relation', 'consumers', 'reader', NULL),
  ('function', 'consumer_claim', 'writer', $$SELECT * FROM evento.consumer_claim('p', '1 s', types => '{T}')$$), ('function', 'consumer_fetch', 'reader', $$SELECT * FROM evento.consumer_fetch('c')$$),
  ('function', 'consumer_ack', 'writer', $$SELECT evento.consumer_ack('c', 1, epoch) FROM pg_temp.held$$), ('function', 'consumer_release', 'writer', $$SELECT evento.consumer_release('c', epoch) FROM pg_temp.held$$),
  ('function', 'consumer_reset', 'writer', $$SELECT evento.consumer_reset('c', 0)$$), ('function', 'consumer_drop', 'writer', $$SELECT evento.consumer_drop('c')$$),
  -- the cluster
  ('relation', 'proxies', 'reader', NULL), ('relation', 'bundles', 'reader', NULL), ('relation', 'handlers', 'reader', NULL), ('relation', 'payloads', 'reader', NULL),
  ('function', '_proxy_register', 'proxy', $$SELECT evento._proxy_register('a', 'b', 'c', 'd', 'e')$$), ('function', '_proxy_renew', 'proxy', $$SELECT evento._proxy_renew(1, '{}')$$),
  ('function', '_proxy_leave', 'proxy', 'SELECT evento._proxy_leave(1)'), ('function', '_cluster', 'proxy', NULL),
  ('function', '_session_sync', 'proxy', $$SELECT * FROM evento._session_sync(1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')$$),
  ('function', '_discover', 'proxy', $$SELECT evento._discover('b', 1, '{}')$$), ('function', '_class_seen', 'proxy', $$SELECT evento._class_seen('t', 'c')$$),
  ('function', '_class_of', 'proxy', $$SELECT evento._class_of('t')$$), ('function', '_lock_take', 'proxy', $$SELECT * FROM evento._lock_take(1, '{l}', '{1}')$$),
  ('function', '_lock_poll', 'proxy', 'SELECT * FROM evento._lock_poll(ARRAY[1]::bigint[])'), ('function', '_lock_release', 'proxy', 'SELECT evento._lock_release(ARRAY[1]::bigint[])'),
  ('function', '_lock_keep', 'proxy', 'SELECT evento._lock_keep(1, ARRAY[]::bigint[])'),
  -- access
  ('relation', 'access_rules', 'admin', NULL), ('relation', 'bundle_tokens', 'admin', NULL), ('function', '_access', 'proxy', NULL),
  ('function', 'add_access_rule', 'admin', $$SELECT evento.add_access_rule('10.0.0.0/8', '*', 'trust')$$), ('function', 'drop_access_rule', 'admin', NULL),
  ('function', 'create_bundle_token', 'admin', $$SELECT evento.create_bundle_token('b')$$), ('function', 'drop_bundle_token', 'admin', NULL);
INSERT INTO objects (kind, name, lowest, statement, expected) VALUES
  -- streams
  ('function', 'tombstone_stream', 'admin', $$SELECT evento.tombstone_stream('p-1')$$, false), ('function', 'erase_stream', 'admin', $$SELECT evento.erase_stream('p-1', 'why')$$, false),
  ('function', 'set_stream_metadata', 'writer', NULL, false), ('function', 'stream_metadata', 'reader', $$SELECT evento.stream_metadata('p-1')$$, false), ('relation', 'erasures', 'admin', NULL, false),
  -- indexes and keys
  ('function', 'create_index', 'admin', NULL, false), ('function', 'drop_index', 'admin', NULL, false), ('relation', 'indexes', 'reader', NULL, false),
  ('function', 'text', 'reader', $$SELECT evento.text('{"a": 1}', 'a')$$, false), ('function', '_index_plan', 'reader', NULL, false),
  -- statistics and diagnosis
  ('relation', 'stats', 'reader', NULL, false), ('function', 'doctor', 'reader', NULL, false), ('type', 'finding', 'reader', NULL, false), ('function', '_stats', 'reader', NULL, false), ('function', '_library', 'reader', NULL, false), ('function', 'jump_positions', 'admin', NULL, false),
  -- telemetry and the consumers of bundles
  ('relation', 'handler_history', 'reader', NULL, false), ('relation', 'handler_statistics', 'reader', NULL, false), ('relation', 'invocations', 'reader', NULL, false),
  ('relation', 'executors', 'reader', NULL, false), ('function', '_connected', 'reader', NULL, false), ('function', '_checkpoint', 'reader', NULL, false),
  ('function', '_telemetry', 'proxy', $$SELECT evento._telemetry('00000000-0000-0000-0000-000000000001', 1, '{b}', '{1}', '{c}', '{a}', '{""}', '{1}', '{1}', '{1}', '{1}')$$, false),
  ('function', '_reports', 'proxy', $$SELECT evento._reports('[]')$$, false), ('function', '_ask_take', 'proxy', 'SELECT * FROM evento._ask_take(1, 1)', false),
  ('function', '_ask_done', 'proxy', $$SELECT evento._ask_done('00000000-0000-0000-0000-000000000001', '{}', false)$$, false),
  ('function', '_ask', 'admin', NULL, false), ('function', '_ask_answer', 'admin', NULL, false), ('function', '_ask_and_wait', 'admin', NULL, false), ('function', '_on_its_own', 'admin', NULL, false),
  ('function', 'consumer_status', 'admin', NULL, false), ('function', 'consumer_dead_events', 'admin', NULL, false), ('function', 'consumer_retry_event', 'admin', NULL, false),
  ('function', 'consumer_delete_event', 'admin', NULL, false), ('function', 'consumer_process_events', 'admin', NULL, false), ('function', 'consumer_repaired', 'admin', $$SELECT evento.consumer_repaired('p')$$, false), ('relation', 'jumps', 'reader', NULL, false),
  -- import
  ('function', 'import_evento', 'admin', NULL, false), ('function', 'import_message_db', 'admin', NULL, false), ('relation', 'imports', 'reader', NULL, false),
  ('type', '_imported_event', 'admin', NULL, false), ('type', '_imported_snapshot', 'admin', NULL, false),
  ('function', '_import_begin', 'admin', NULL, false), ('function', '_import_events', 'admin', NULL, false), ('function', '_import_snapshots', 'admin', NULL, false), ('function', '_import_end', 'admin', NULL, false),
  ('function', '_import_payload', 'admin', NULL, false), ('function', '_import_message', 'admin', NULL, false), ('function', '_import_state', 'admin', NULL, false), ('function', '_import_source', 'admin', NULL, false),
  ('function', '_import_time', 'admin', NULL, false), ('function', '_import_name', 'admin', NULL, false);

SELECT evento.append('p-1', 'T', '1') \gset
CREATE TEMP TABLE batch AS SELECT pg_temp.batch(pg_temp.item('p-2', ARRAY[pg_temp.event('T', '1')])) AS b;
CREATE TEMP TABLE held AS SELECT epoch FROM evento.consumer_claim('c', '1 hour');
GRANT SELECT ON batch, held TO PUBLIC;
CALL evento.wait(NULL) \gset

-- Everything in the schema that a role could use: functions, relations, types that are not a relation's or an array.
-- (Nobody can call what takes internal. A plain NULL would let the planner leave out the call of a STRICT function.)
CREATE TEMP VIEW present AS
SELECT 'function' AS kind, p.proname::text AS name, p.oid::regprocedure::text AS what,
       format(CASE p.prokind WHEN 'p' THEN 'CALL evento.%I(%s)' ELSE 'SELECT evento.%I(%s)' END, p.proname,
              (SELECT string_agg(format(CASE p.prokind WHEN 'p' THEN 'NULL::%s' ELSE '(SELECT NULL::%s)' END, format_type(t, NULL)), ', ' ORDER BY i)
                 FROM unnest(CASE WHEN p.prokind = 'p' THEN COALESCE(p.proallargtypes, p.proargtypes::oid[]) ELSE p.proargtypes::oid[] END) WITH ORDINALITY AS u (t, i))) AS use
  FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND 'internal'::regtype <> ALL (p.proargtypes::oid[])
UNION ALL
SELECT 'relation', c.relname::text, c.oid::regclass::text, format('SELECT * FROM evento.%I', c.relname)
  FROM pg_class c WHERE c.relnamespace = 'evento'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
UNION ALL
SELECT 'type', t.typname::text, t.oid::regtype::text, format('CREATE TEMP TABLE of_that_type (x evento.%I)', t.typname)
  FROM pg_type t WHERE t.typnamespace = 'evento'::regnamespace AND t.typelem = 0 AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c');

SELECT is_empty($$SELECT kind, what FROM present p WHERE name NOT LIKE '\_%' AND NOT EXISTS (SELECT FROM objects o WHERE o.kind = p.kind AND o.name = p.name)$$, 'every object has a row in the table above');
SELECT is_empty($$SELECT kind, name FROM objects o WHERE expected AND NOT EXISTS (SELECT FROM present p WHERE o.kind = p.kind AND o.name = p.name)$$, 'every row has an object');

CREATE TEMP TABLE ranks (who text, rank integer);
INSERT INTO ranks VALUES ('guest', 0), ('reader', 1), ('writer', 2), ('proxy', 3), ('admin', 4), ('none', 5);

-- The outcome of a statement as a role: '' or the SQLSTATE.  Whatever it did is undone.
CREATE FUNCTION pg_temp.try_as(role text, statement text, path text DEFAULT 'pg_catalog') RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  state text;
BEGIN
  BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE format('SET LOCAL search_path = %s', path);
    EXECUTE statement;
    RAISE EXCEPTION USING ERRCODE = 'Z0000';
  EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
  END;
  RETURN CASE WHEN state = 'Z0000' THEN '' ELSE state END;
END
$$;

-- Refused with 42501 below its role, and not refused from there on.
SELECT is((SELECT string_agg(r.who || ': ' || COALESCE(NULLIF(s, ''), 'allowed'), ', ' ORDER BY r.rank)
             FROM ranks r, pg_temp.try_as('pgtap_' || r.who, COALESCE(o.statement, p.use)) s
            WHERE r.who <> 'none' AND (s = '42501') IS DISTINCT FROM (r.rank < l.rank)),
          NULL, COALESCE(o.lowest, 'none') || ': ' || p.what)
  FROM present p LEFT JOIN objects o USING (kind, name) JOIN ranks l ON l.who = COALESCE(o.lowest, 'none');

-- A statement of its own stands for a use that the role can make, so it has to be one that succeeds.
SELECT is((SELECT string_agg(o.name || ': ' || s, ', ' ORDER BY o.name) FROM objects o, pg_temp.try_as('pgtap_admin', o.statement) s
            WHERE o.statement IS NOT NULL AND EXISTS (SELECT FROM present p WHERE p.kind = o.kind AND p.name = o.name) AND s NOT IN ('', '23503')), NULL, 'the statements of the table work');

-- Nobody writes into tables, sequences and views.
SELECT is((SELECT string_agg(r.who || ': ' || s.statement || ': ' || s.state, ', ')
             FROM ranks r,
                  LATERAL (SELECT t.statement, pg_temp.try_as('pgtap_' || r.who, t.statement) AS state
                             FROM (VALUES ('INSERT INTO %s DEFAULT VALUES', 'rvpmf'), ('UPDATE %s SET %I = %2$I', 'rvpmf'), ('DELETE FROM %s', 'rvpmf'), ('TRUNCATE %s', 'rpf'),
                                          ('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', 'rpv'), ('SELECT nextval(''%s'')', 'S'), ('SELECT setval(''%s'', 1)', 'S'), ('ALTER TABLE %s RENAME TO mine', 'rvpmfS'), ('DROP TABLE %s', 'rp')) AS v (form, kinds),
                                  LATERAL (SELECT format(v.form, c.oid::regclass, (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attidentity = '' ORDER BY a.attnum LIMIT 1)) AS statement) t
                            WHERE strpos(v.kinds, c.relkind::text) > 0) s
            WHERE r.who <> 'none' AND s.state <> '42501'
              -- what cannot be done to a view says so first
              AND NOT (c.relkind = 'v' AND s.state IN ('55000', '0A000', '428C9'))),
          NULL, 'nobody writes into ' || c.oid::regclass)
  FROM pg_class c WHERE c.relnamespace = 'evento'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f');

SELECT is((SELECT string_agg(r.who || ': ' || statement, ', ') FROM ranks r,
             unnest(ARRAY['CREATE TABLE evento.mine ()', 'CREATE FUNCTION evento.mine() RETURNS integer LANGUAGE sql AS $$SELECT 1$$', 'CREATE VIEW evento.mine AS SELECT 1', 'DROP EXTENSION evento', 'ALTER EXTENSION evento UPDATE',
               'SET evento.id_window = 1', 'SET evento.max_event_size = 1', 'SET session_replication_role = replica', 'ALTER TABLE evento._events DISABLE TRIGGER ALL']) statement
             WHERE r.who <> 'none' AND pg_temp.try_as('pgtap_' || r.who, statement) <> '42501'), NULL, 'nobody makes things in the schema, alters or drops it, or sets what bounds others');
SELECT is(pg_temp.try_as('pgtap_nobody', 'SELECT * FROM evento.events'), '42501', 'who has no role does not get into the schema');
SET ROLE pgtap_reader;
CALL evento.wait(NULL) \gset
SELECT ok(:watermark >= 1, 'a reader may wait');
SET ROLE pgtap_guest;
\set ON_ERROR_STOP 0
CALL evento.wait(NULL);
\set state :SQLSTATE
\set ON_ERROR_STOP 1
RESET ROLE;
SELECT is(:'state'::text, '42501', 'others may not');

-- ---- what the catalog says ----

SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a WHERE p.pronamespace = 'evento'::regnamespace AND a.grantee = 0$$, 'PUBLIC may call nothing');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'evento'::regnamespace AND a.grantee = 0$$, 'nor see anything');
SELECT is_empty($$SELECT t.oid::regtype FROM pg_type t, aclexplode(COALESCE(t.typacl, acldefault('T', t.typowner))) a WHERE t.oid::regtype::text IN (SELECT what FROM present WHERE kind = 'type') AND a.grantee = 0$$, 'nor use a type');
SELECT is_empty($$SELECT a.grantee, a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'evento' AND a.grantee <> n.nspowner AND NOT (a.privilege_type = 'USAGE' AND a.grantee IN ('evento_reader'::regrole, 'pgtap_guest'::regrole))$$, 'the schema is open to readers alone, and to nobody for making things');
SELECT is_empty($$SELECT c.oid::regclass, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'evento'::regnamespace AND a.grantee <> c.relowner AND (a.privilege_type <> 'SELECT' OR c.relkind <> 'v')$$, 'all there is besides is SELECT on views');
SELECT is_empty($$SELECT attrelid::regclass, attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'evento'::regnamespace AND a.attacl IS NOT NULL$$, 'no column has privileges of its own');
SELECT is_empty($$
  SELECT p.oid::regprocedure::text, a.grantee::regrole FROM pg_proc p, aclexplode(p.proacl) a WHERE p.pronamespace = 'evento'::regnamespace AND a.grantee <> p.proowner AND (a.is_grantable OR a.grantee::regrole::text NOT IN ('evento_reader', 'evento_writer', 'evento_proxy', 'evento_admin'))
  UNION ALL SELECT c.oid::regclass::text, a.grantee::regrole FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'evento'::regnamespace AND a.grantee <> c.relowner AND (a.is_grantable OR a.grantee::regrole::text NOT IN ('evento_reader', 'evento_writer', 'evento_proxy', 'evento_admin'))$$, 'nobody but the four roles has anything, or can hand it on');
SELECT is_empty($$SELECT roleid::regrole FROM pg_auth_members WHERE member::regrole::text IN ('evento_reader', 'evento_writer', 'evento_proxy', 'evento_admin') AND roleid::regrole::text NOT IN ('evento_reader', 'evento_writer', 'evento_proxy')$$, 'which are in no other');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND p.prosecdef AND NOT ('search_path=pg_catalog, evento, pg_temp' = ANY (COALESCE(p.proconfig, '{}')))$$, 'SECURITY DEFINER functions pin search_path, to exactly this');
-- (Imports and requests to consumers commit as they go, which no procedure may that pins a setting, and imports find what is imported as their caller would; they have the caller's rights alone.)
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'evento'::regnamespace AND l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL
  AND p.proname !~ '^(import_.*|_import_source|_ask_and_wait|consumer_status|consumer_dead_events|consumer_(retry|delete)_event|consumer_process_events)$' AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c ~ '^search_path=pg_catalog,(.*,)? pg_temp$')$$, 'as do all whose text is parsed when they are called');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'evento'::regnamespace AND l.lanname = 'c' AND p.prosecdef$$, 'C functions do what they may by themselves');
SELECT is_empty($$SELECT l.lanname, p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.pronamespace = 'evento'::regnamespace AND l.lanname NOT IN ('c', 'sql', 'plpgsql')$$, 'no other language is asked for');
SELECT is_empty($$SELECT p.kind, p.what FROM present p WHERE CASE p.kind
  WHEN 'function' THEN obj_description(p.what::regprocedure, 'pg_proc') WHEN 'relation' THEN obj_description(p.what::regclass, 'pg_class') ELSE obj_description(p.what::regtype, 'pg_type') END IS NULL$$, 'every object has a comment');
SELECT is_empty($$
  SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
  UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'evento'::regnamespace AND c.relkind IN ('r', 'v', 'S') AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('e', 'i'))$$, 'every object is the extension''s');

-- ---- traps in the caller's search_path change nothing ----

CREATE SCHEMA trap;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
DO $do$
DECLARE
  f record;
BEGIN
  -- Operators and functions that what evento does might be taken to mean, better matches than those of pg_catalog among them.
  FOR f IN SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS t, row_number() OVER () AS n
             FROM pg_operator o
            WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b' AND o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '+', '-', '||', '->', '->>', '/', '*')
              AND o.oprleft::regtype::text IN ('bigint', 'integer', 'text', 'timestamp with time zone', 'interval', 'jsonb', 'json', 'boolean', 'numeric', 'oid')
              AND o.oprright::regtype::text IN ('bigint', 'integer', 'text', 'timestamp with time zone', 'interval', 'jsonb', 'json', 'boolean', 'numeric', 'oid')
  LOOP
    EXECUTE format($f$CREATE FUNCTION trap.o%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped' USING ERRCODE = 'TRAP1'; END $$$f$, f.n, f.l, f.r, f.t);
    EXECUTE format('CREATE OPERATOR trap.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = trap.o%s)', f.oprname, f.l, f.r, f.n);
  END LOOP;
  FOR f IN SELECT DISTINCT p.proname, pg_get_function_identity_arguments(p.oid) AS args, p.prorettype::regtype AS t, p.proretset
             FROM pg_proc p
            WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0 AND p.proargmodes IS NULL AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) u (t) JOIN pg_type y ON y.oid = u.t WHERE y.typtype = 'p')
              AND p.prorettype NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p' AND typname <> 'void')
              AND p.proname IN ('pg_notify', 'clock_timestamp', 'statement_timestamp', 'now', 'nextval', 'pg_backend_pid', 'set_config', 'current_setting', 'split_part', 'sha256', 'convert_to', 'gen_random_uuid', 'replace', 'decode', 'octet_length', 'round', 'jsonb_typeof')
  LOOP
    EXECUTE format($f$CREATE FUNCTION trap.%I(%s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped' USING ERRCODE = 'TRAP1'; END $$$f$, f.proname, f.args, f.t);
  END LOOP;
  -- Every relation and function of ours, under its own name.
  FOR f IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'evento'::regnamespace AND c.relkind IN ('r', 'v', 'S') LOOP
    EXECUTE format('CREATE TABLE trap.%I (trapped boolean)', f.relname);
    EXECUTE format('CREATE TEMP TABLE %I (trapped boolean)', f.relname);
    EXECUTE format('GRANT ALL ON trap.%I, pg_temp.%1$I TO PUBLIC', f.relname);
  END LOOP;
  FOR f IN SELECT p.proname, p.proargtypes FROM pg_proc p WHERE p.pronamespace = 'evento'::regnamespace AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype AND 'internal'::regtype <> ALL (p.proargtypes::oid[]) LOOP
    EXECUTE format($f$CREATE FUNCTION trap.%I(%s) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped' USING ERRCODE = 'TRAP1'; END $$$f$, f.proname,
                   (SELECT string_agg(format_type(t, NULL), ', ' ORDER BY i) FROM unnest(f.proargtypes) WITH ORDINALITY AS u (t, i)));
  END LOOP;
END
$do$;
SELECT is(pg_temp.try_as('pgtap_admin', 'SELECT 1::bigint = 2::bigint', 'trap, pg_catalog'), 'TRAP1', 'the traps work');
SELECT is(pg_temp.try_as('pgtap_admin', 'SELECT * FROM _consumers', 'pg_temp, trap, pg_catalog, evento'), '', 'the tables too');
SELECT is((SELECT string_agg(p.what || ': ' || s, ', ') FROM present p LEFT JOIN objects o USING (kind, name), pg_temp.try_as('pgtap_admin', COALESCE(o.statement, p.use), 'pg_temp, trap, pg_catalog, evento') s
            WHERE p.kind <> 'type' AND COALESCE(o.lowest, 'none') <> 'none' AND s IS DISTINCT FROM pg_temp.try_as('pgtap_admin', COALESCE(o.statement, p.use))), NULL, 'in none of them does anything that a role may use end up');
-- As the owner of the extension, whatever the private functions do.
SELECT is((SELECT string_agg(p.what || ': ' || s, ', ') FROM present p LEFT JOIN objects o USING (kind, name), pg_temp.try_as(current_user, COALESCE(o.statement, p.use), 'pg_temp, trap, pg_catalog, evento') s
            WHERE p.kind <> 'type' AND s = 'TRAP1'), NULL, 'nor what the owner may');

RESET ROLE;
SET client_min_messages = warning;
DROP SCHEMA trap CASCADE;

-- A schema that another has made would let its owner plant what functions of the extension's owner come upon.
DROP EXTENSION evento;
DROP SCHEMA evento CASCADE;
CREATE SCHEMA evento AUTHORIZATION pgtap_guest;
SELECT throws_ok('CREATE EXTENSION evento', '55000', 'schema "evento" belongs to "pgtap_guest", who could change what the extension does', 'a schema of another is refused');
ALTER SCHEMA evento OWNER TO CURRENT_USER;
CREATE FUNCTION evento.array_position(text[], text) RETURNS integer LANGUAGE sql AS 'SELECT 1';
SELECT throws_ok('CREATE EXTENSION evento', '55000', 'schema "evento" is not empty', 'and one with something in it');
DROP FUNCTION evento.array_position(text[], text);
SELECT lives_ok('CREATE EXTENSION evento', 'an empty one is used');
DROP OWNED BY pgtap_reader, pgtap_writer, pgtap_proxy, pgtap_admin, pgtap_guest, pgtap_nobody;
DROP ROLE pgtap_reader, pgtap_writer, pgtap_proxy, pgtap_admin, pgtap_guest, pgtap_nobody;
SELECT * FROM finish();
