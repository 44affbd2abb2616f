-- privileges.sql: what each role may do, and what nobody may.
\ir helpers.psql
SELECT plan(57);

SET client_min_messages = warning;
DROP ROLE IF EXISTS pgtap_reader, pgtap_writer, pgtap_proxy, pgtap_admin, pgtap_nobody;
RESET client_min_messages;
CREATE ROLE pgtap_reader LOGIN IN ROLE evento_reader;
CREATE ROLE pgtap_writer LOGIN IN ROLE evento_writer;
CREATE ROLE pgtap_proxy LOGIN IN ROLE evento_proxy;
CREATE ROLE pgtap_admin LOGIN IN ROLE evento_admin;
CREATE ROLE pgtap_nobody LOGIN;
SELECT evento.append('p-1', 'T', '1') \gset
CALL evento.wait(NULL) \gset

-- The outcome of a statement as a role: '' or the SQLSTATE.  Whatever it did is undone.
CREATE FUNCTION pg_temp.try_as(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  state text;
BEGIN
  BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE statement;
    RAISE EXCEPTION USING ERRCODE = 'Z0000';
  EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
  END;
  RETURN CASE WHEN state = 'Z0000' THEN '' ELSE state END;
END
$$;
CREATE TEMP TABLE batch AS SELECT pg_temp.batch(pg_temp.item('p-2', ARRAY[pg_temp.event('T', '1')])) AS b;
GRANT SELECT ON batch TO PUBLIC;

-- lowest: the least role that may
CREATE TEMP TABLE calls (lowest text, statement text);
INSERT INTO calls VALUES
  ('reader', 'SELECT * FROM evento.events'), ('reader', 'SELECT * FROM evento.streams'), ('reader', 'SELECT * FROM evento.appending'),
  ('reader', 'SELECT * FROM evento.proxies'), ('reader', 'SELECT * FROM evento.bundles'), ('reader', 'SELECT * FROM evento.handlers'), ('reader', 'SELECT * FROM evento.payloads'),
  ('reader', 'SELECT * FROM evento.read_all()'), ('reader', 'SELECT * FROM evento.scan_all()'), ('reader', $$SELECT * FROM evento.read_stream('p-1')$$),
  ('reader', $$SELECT * FROM evento.load_stream('p-1')$$), ('reader', 'SELECT evento.watermark()'), ('reader', 'SELECT * FROM evento.last_append()'),
  ('writer', $$SELECT evento.append('p-1', 'T', '1')$$), ('writer', $$SELECT evento.append_events('p-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[])$$),
  ('writer', 'SELECT evento.append_batch(b) FROM batch'), ('writer', $$SELECT evento.save_snapshot('p-1', 1, '1')$$), ('writer', $$SELECT evento.drop_snapshots('p-1')$$),
  ('proxy', $$SELECT evento._proxy_register('a', 'b', 'c', 'd', 'e')$$), ('proxy', $$SELECT evento._proxy_renew(1, '{}')$$), ('proxy', 'SELECT evento._proxy_leave(1)'),
  ('proxy', 'SELECT * FROM evento._cluster()'), ('proxy', $$SELECT evento._discover('b', 1, '{}')$$), ('proxy', $$SELECT evento._class_seen('t', 'c')$$), ('proxy', $$SELECT evento._class_of('t')$$),
  ('proxy', $$SELECT * FROM evento._lock_take(1, '{l}', '{1}')$$), ('proxy', 'SELECT * FROM evento._lock_poll(ARRAY[1]::bigint[])'), ('proxy', 'SELECT evento._lock_release(ARRAY[1]::bigint[])'),
  ('proxy', $$SELECT * FROM evento._session_sync(1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')$$), ('proxy', 'SELECT evento._lock_keep(1, ARRAY[]::bigint[])'),
  ('admin', $$SELECT evento.delete_stream('p-1')$$),
  ('none', 'SELECT * FROM evento._events'), ('none', 'SELECT * FROM evento._streams'), ('none', 'SELECT * FROM evento._secret'), ('none', 'SELECT * FROM evento._locks'),
  ('none', 'SELECT * FROM evento._snapshots'), ('none', 'SELECT * FROM evento._proxies'),
  ('none', $$INSERT INTO evento._events SELECT * FROM evento._events$$), ('none', 'UPDATE evento._events SET version = 0'), ('none', 'DELETE FROM evento._events'),
  ('none', 'TRUNCATE evento._events'), ('none', 'UPDATE evento._streams SET deleted_version = 0'), ('none', 'DELETE FROM evento._jumps'),
  ('none', $$UPDATE evento._watermark SET position = 0$$), ('none', $$SELECT nextval('evento._positions')$$), ('none', $$SELECT setval('evento._positions', 1)$$),
  ('none', 'CREATE TABLE evento.mine ()'), ('none', $$SELECT evento._lock_grant('l')$$), ('none', $$SELECT evento._lock_key('l')$$);

CREATE TEMP TABLE ranks (who text, rank integer);
INSERT INTO ranks VALUES ('nobody', 0), ('reader', 1), ('writer', 2), ('proxy', 3), ('admin', 4), ('none', 5);
GRANT SELECT ON calls, ranks TO PUBLIC;

-- Each call: refused below its role, with 42501, and not refused from there on.
SELECT is((SELECT string_agg(r.who || ': ' || COALESCE(NULLIF(s, ''), 'allowed'), ', ' ORDER BY r.rank)
             FROM ranks r, pg_temp.try_as('pgtap_' || r.who, c.statement) s
            WHERE r.who <> 'none' AND (s = '42501') IS DISTINCT FROM (r.rank < l.rank)),
          NULL, c.lowest || ': ' || left(c.statement, 60))
  FROM calls c JOIN ranks l ON l.who = c.lowest;

SELECT is(pg_temp.try_as('pgtap_' || who, 'SELECT * FROM evento.events'), CASE WHEN who = 'nobody' THEN '42501' ELSE '' END, who || ' and the schema') FROM ranks WHERE who IN ('nobody', 'reader');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a WHERE p.pronamespace = 'evento'::regnamespace AND a.grantee = 0$$, 'PUBLIC may call nothing');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'evento'::regnamespace AND a.grantee = 0$$, 'nor see anything');
SELECT is_empty($$SELECT c.oid::regclass, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'evento'::regnamespace AND a.grantee <> c.relowner AND (a.privilege_type <> 'SELECT' OR c.relkind <> 'v')$$, 'all there is besides is SELECT on views');
SET ROLE pgtap_reader;
CALL evento.wait(NULL) \gset
SELECT ok(:watermark >= 1, 'a reader may wait');
SET ROLE pgtap_nobody;
\set ON_ERROR_STOP 0
CALL evento.wait(NULL);
\set state :SQLSTATE
\set ON_ERROR_STOP 1
RESET ROLE;
SELECT is(:'state'::text, '42501', 'others may not');

-- a search_path of the caller's, with traps in it, changes nothing
CREATE SCHEMA trap;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
CREATE FUNCTION trap.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE FUNCTION trap.gt(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE OPERATOR trap.> (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = trap.gt);
CREATE FUNCTION trap.minus(timestamptz, interval) RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
CREATE OPERATOR trap.- (LEFTARG = timestamptz, RIGHTARG = interval, FUNCTION = trap.minus);
SET search_path = trap, pg_catalog, public;
SELECT is((SELECT string_agg(c.statement || ': ' || s, ', ') FROM calls c, pg_temp.try_as('pgtap_proxy', c.statement) s WHERE c.lowest IN ('reader', 'writer', 'proxy') AND s NOT IN ('', '23503')), NULL, 'with traps in search_path');
RESET search_path;

-- the proxy's role cannot weaken its commits for others, only a session its own
DROP OWNED BY pgtap_reader, pgtap_writer, pgtap_proxy, pgtap_admin, pgtap_nobody;
DROP ROLE pgtap_reader, pgtap_writer, pgtap_proxy, pgtap_admin, pgtap_nobody;
SELECT * FROM finish();
