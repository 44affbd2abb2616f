/* sql/evento--0.1.0--0.2.0.sql: what version 0.2.0 has that 0.1.0 has not. */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION evento UPDATE" to load this file. \quit

-- ---------------------------------------------------------------------------
-- Locks, in the order in which a reader of a view takes them: the views, and
-- then what lies under them.  The other way round, an update under load would end in
-- a deadlock.  (RESET changes nothing; LOCK TABLE would lock a view's tables with it.)
-- ---------------------------------------------------------------------------

ALTER VIEW events RESET (security_barrier);
ALTER VIEW streams RESET (security_barrier);
LOCK TABLE ONLY _bundles, ONLY _handlers, ONLY _events IN ACCESS EXCLUSIVE MODE;

-- ---------------------------------------------------------------------------
-- The log
-- ---------------------------------------------------------------------------

-- A publication of the table needs it for rows that are changed, as by an erasure.
ALTER TABLE _events REPLICA IDENTITY USING INDEX _events_position;

CREATE FUNCTION _watermark_seen() RETURNS bigint
  LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'evento_watermark_seen_sql';
COMMENT ON FUNCTION _watermark_seen() IS 'The watermark that goes with the snapshot of the statement that calls this: for the view events. Works without preload.';
GRANT EXECUTE ON FUNCTION _watermark_seen() TO evento_reader;

ALTER FUNCTION watermark() PARALLEL RESTRICTED;

-- A vacuum that cuts the table short would stop the replay of standbys.
ALTER TABLE _watermark SET (vacuum_truncate = false);
COMMENT ON TABLE _watermark IS 'One row, written by the background worker: every event up to this position is committed and visible to whoever sees the row. For standbys; sessions of the primary are told earlier.';

CREATE OR REPLACE VIEW events AS
SELECT e.position,
       s.name AS stream,
       e.version,
       e.id,
       e.type,
       e.context,
       CASE WHEN e.service THEN 'service' ELSE 'domain' END COLLATE "C" AS kind,
       e.data,
       e.metadata,
       e.class,
       e."timestamp",
       e.recorded_at,
       e.force_telemetry,
       pg_catalog.split_part(s.name, '-', 1) COLLATE "C" AS category
  FROM _events e
  LEFT JOIN _streams s ON s.stream_no = e.stream_no
 -- No bound for the index: beside a caller's own lower bound the planner would take it for a narrow range, and sort the log.
 WHERE e.position + 0 <= (SELECT _watermark_seen())
   AND (e.stream_no IS NULL OR e.version > s.deleted_version);
COMMENT ON VIEW events IS 'Every event in the one global order, up to the watermark: no event can appear later below one that is shown here. Events of a deleted stream are left out. category is what stands before the first "-" of the stream''s name. Own appends show some milliseconds after their commit; CALL evento.wait(NULL) waits for that.';
-- Erased events have no data.
ALTER TABLE _events ALTER COLUMN data DROP NOT NULL;
COMMENT ON TABLE _events IS 'The log. Rows are written by the C of the extension at commit and never changed, but by erase_stream; read the view events.';

CREATE TABLE _stream_metadata (
  stream     text COLLATE "C" NOT NULL PRIMARY KEY,
  metadata   json,                                  -- NULL: was taken away; the revision goes on
  revision   bigint NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE _stream_metadata IS 'What set_stream_metadata has been given, by the name of the stream, with a revision that counts the changes.';
SELECT pg_catalog.pg_extension_config_dump('_stream_metadata', '');

CREATE OR REPLACE VIEW streams AS
SELECT s.name AS stream,
       pg_catalog.split_part(s.name, '-', 1) COLLATE "C" AS category,
       COALESCE(l.version, 0) AS version,
       f.recorded_at AS first_recorded_at,
       l.recorded_at AS last_recorded_at,
       s.deleted_at,
       s.tombstone,
       m.metadata,
       m.revision AS metadata_revision
  FROM _streams s
  LEFT JOIN LATERAL (SELECT e.recorded_at FROM _events e WHERE e.stream_no = s.stream_no AND e.version > s.deleted_version
                      ORDER BY e.version LIMIT 1) f ON true
  LEFT JOIN LATERAL (SELECT e.version, e.recorded_at FROM _events e WHERE e.stream_no = s.stream_no
                      ORDER BY e.version DESC LIMIT 1) l ON true
  LEFT JOIN _stream_metadata m ON m.stream = s.name;
COMMENT ON VIEW streams IS 'Every stream that has had an event, or has a tombstone: category is what stands before the first "-" of its name, version that of its last event; deleted_at is set from delete_stream until the next append, and for good where tombstone says that there can be none. metadata is what set_stream_metadata was given, metadata_revision its revision, for the next change.';

-- A row that is loaded comes from a dump, of this very database perhaps: what
-- was appended since is lost, and its positions may have been read.  So it is
-- nobody's, and the next append jumps.
CREATE FUNCTION _identity_loaded() RETURNS trigger
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.database := 0;
  RETURN NEW;
END
$$;
COMMENT ON FUNCTION _identity_loaded() IS 'Takes from a row of _identity that a restore brings what would make it this database''s own.';
CREATE TRIGGER _identity_loaded BEFORE INSERT ON _identity
  FOR EACH ROW EXECUTE FUNCTION _identity_loaded();
ALTER TABLE _identity ENABLE ALWAYS TRIGGER _identity_loaded;


-- ---------------------------------------------------------------------------
-- Streams: the end of one, erasure, metadata
-- ---------------------------------------------------------------------------

CREATE FUNCTION tombstone_stream(stream text, expected bigint DEFAULT NULL) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'evento_tombstone_stream';
COMMENT ON FUNCTION tombstone_stream(text, bigint) IS
'Ends a stream for good and gives its last version: its events vanish from every read, its snapshots and its metadata are dropped, and every append to it raises V0003, for ever. The events stay in the table; erase_stream empties them, also behind this. Works for a stream that has no event yet, or was deleted: its name is used up all the same. Raises V0001 wrong expected version, V0003 where that was done before, V0004, V0005, 22023.';

CREATE FUNCTION set_stream_metadata(stream text, metadata json, expected_revision bigint DEFAULT NULL) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'evento_set_stream_metadata';
COMMENT ON FUNCTION set_stream_metadata(text, json, bigint) IS
'Keeps metadata of a stream, as a whole, in place of what is there (NULL: none), and gives its revision: 1 for the first, one more with each change, also where it is taken away. expected_revision: NULL any, 0 none yet, n exactly n. The stream need not have an event. Metadata outlives delete_stream, and goes with tombstone_stream and erase_stream. The database keeps no meaning in it. Raises V0001 wrong expected revision, V0003 stream deleted for good, V0004, V0005, 40001 when the snapshot of a REPEATABLE READ transaction cannot see the last change, 22P02 malformed or too deep, 22023 beyond evento.max_event_size or out of bounds.';

CREATE FUNCTION stream_metadata(stream text) RETURNS json
  LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'evento_stream_metadata';
COMMENT ON FUNCTION stream_metadata(text) IS
'Metadata of a stream as set_stream_metadata was given it; NULL where there is none. Its revision is in the view streams, for streams that have an event. Raises 22023 for what is out of bounds.';

CREATE TABLE _erasures (
  stream        text COLLATE "C" NOT NULL,
  reason        text NOT NULL,
  erased_by     text NOT NULL,
  erased_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  first_version bigint,
  last_version  bigint,
  events        bigint NOT NULL
);
COMMENT ON TABLE _erasures IS 'What erase_stream has done. Rows are never changed.';
SELECT pg_catalog.pg_extension_config_dump('_erasures', '');

CREATE FUNCTION _erasures_kept() RETURNS trigger
  LANGUAGE plpgsql SET search_path = pg_catalog, evento, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'evento._erasures is only ever added to' USING ERRCODE = 'object_not_in_prerequisite_state';
END
$$;
COMMENT ON FUNCTION _erasures_kept() IS 'Refuses changes of what is recorded in _erasures.';
CREATE TRIGGER _erasures_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON _erasures
  FOR EACH STATEMENT EXECUTE FUNCTION _erasures_kept();
ALTER TABLE _erasures ENABLE ALWAYS TRIGGER _erasures_kept;

CREATE VIEW erasures AS
SELECT e.stream, e.reason, e.erased_by, e.erased_at, e.first_version, e.last_version, e.events
  FROM _erasures e;
COMMENT ON VIEW erasures IS 'What erase_stream has erased: the stream, why, who had logged in and when, and of how many events, from the first version to the last (NULL where there was nothing left to erase).';

CREATE FUNCTION erase_stream(stream text, reason text) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'evento_erase_stream';
COMMENT ON FUNCTION erase_stream(text, text) IS
'Makes data and metadata of all events of a stream NULL, hidden ones too, drops its snapshots and its metadata, records it with the reason (1 to 4096 bytes, not blank) in the view erasures, and gives how many events were erased. Positions, versions, ids, types, contexts, classes and times stay, and readers get the events without content (bundles do not get them). It is no deletion: the stream is read and appended to as before; what is appended later is not erased. Use delete_stream or tombstone_stream for that, before or after. A repeat erases what has come since, or nothing.
It does not reach: backups and archives of WAL; the old rows on disk until VACUUM of evento._events has removed them, and the WAL of this server until it is recycled; standbys until they have replayed it; copies that consumers, bundles and logical subscribers have made, or that a proxy keeps in memory for ten seconds (a subscriber that replicates updates erases its own); snapshots and events that programs write again from what they remember, as a bundle does that handles a command at that moment (drop_snapshots, some seconds later, takes such a snapshot); the name of the stream, which stays here and in erasures.
Raises V0001 where there is no such stream, 55000 in a transaction that has appended to it, V0004, V0005, 40001 when the snapshot of a REPEATABLE READ transaction cannot see the head, 22023 for what is out of bounds.';

GRANT SELECT ON erasures TO evento_admin;
GRANT EXECUTE ON FUNCTION stream_metadata(text) TO evento_reader;
GRANT EXECUTE ON FUNCTION set_stream_metadata(text, json, bigint) TO evento_writer;
GRANT EXECUTE ON FUNCTION tombstone_stream(text, bigint), erase_stream(text, text) TO evento_admin;

COMMENT ON FUNCTION delete_stream(text, bigint) IS
'Hides the events of a stream from every read, also those that this transaction has appended, drops its snapshots, and gives its last version. The next append (expected NULL, 0 or that version) goes on with the versions; the stream''s metadata stays. Raises V0001 wrong expected version, also where the stream is not there and was expected, V0003 stream deleted for good, V0004, V0005, 22023.';
COMMENT ON FUNCTION save_snapshot(text, bigint, json, text) IS
'Keeps a snapshot of a stream''s state as it is after the event of that version, which may be one that this transaction has appended. True where it is kept, in place of an older one; false where one of that version or a newer one is there (drop_snapshots makes room). Raises V0001 where the stream has not got that version, or it is hidden, V0003, V0004, V0005, 22P02, 22023.';

-- ---------------------------------------------------------------------------
-- Indexes that users ask for, and keys of JSON
-- ---------------------------------------------------------------------------

CREATE FUNCTION text(data json, VARIADIC path text[]) RETURNS text
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'evento_text';
COMMENT ON FUNCTION text(json, text[]) IS
'The text of what is at a path in JSON: text(data, ''customer'', ''id''). Like #>>: numbers as they were written, objects and arrays as their JSON, NULL where there is nothing or null; but it raises nothing: each U+0000, which text cannot hold, and each half of a surrogate pair becomes U+FFFD.';

CREATE TABLE _indexes (
  what       text COLLATE "C" NOT NULL PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE _indexes IS 'What create_index was asked for. pg_dump takes this along, and not the indexes themselves.';
SELECT pg_catalog.pg_extension_config_dump('_indexes', '');

CREATE FUNCTION _key_extract_value(text, internal) RETURNS internal
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'evento_key_extract_value';
COMMENT ON FUNCTION _key_extract_value(text, internal) IS 'Support of the operator class _key_ops.';
CREATE FUNCTION _key_extract_query(text, internal, smallint, internal, internal, internal, internal) RETURNS internal
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'evento_key_extract_query';
COMMENT ON FUNCTION _key_extract_query(text, internal, smallint, internal, internal, internal, internal) IS 'Support of the operator class _key_ops.';
CREATE FUNCTION _key_consistent(internal, smallint, text, integer, internal, internal, internal, internal) RETURNS boolean
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'evento_key_consistent';
COMMENT ON FUNCTION _key_consistent(internal, smallint, text, integer, internal, internal, internal, internal) IS 'Support of the operator class _key_ops.';
CREATE OPERATOR CLASS _key_ops FOR TYPE text USING gin AS
  OPERATOR 1 pg_catalog.= (text, text),
  FUNCTION 1 pg_catalog.byteacmp(bytea, bytea),
  FUNCTION 2 _key_extract_value(text, internal),
  FUNCTION 3 _key_extract_query(text, internal, smallint, internal, internal, internal, internal),
  FUNCTION 4 _key_consistent(internal, smallint, text, integer, internal, internal, internal, internal),
  STORAGE bytea;
COMMENT ON OPERATOR CLASS _key_ops USING gin IS 'Equality of texts of any length: a long one stands in the index by its beginning and a hash.';
COMMENT ON OPERATOR FAMILY _key_ops USING gin IS 'The operator class _key_ops alone.';

CREATE FUNCTION _index_plan(INOUT what text, OUT index_name text, OUT statement text)
  LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'evento_index_plan';
COMMENT ON FUNCTION _index_plan(text) IS 'What create_index does for its argument: the argument in its one form, the name of the index, the statement. Raises 22023 where it is none.';

CREATE VIEW indexes AS
SELECT i.what,
       p.index_name,
       COALESCE(pg_catalog.pg_get_indexdef(c.oid), p.statement) AS definition,
       COALESCE(x.indisvalid AND x.indisready, false) AS valid,
       c.oid IS NOT NULL AS present,
       pg_catalog.pg_relation_size(c.oid) AS size,
       i.created_at
  FROM _indexes i
 CROSS JOIN LATERAL _index_plan(i.what) p
  LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'evento')
    ON c.relname = p.index_name
  LEFT JOIN pg_catalog.pg_index x ON x.indexrelid = c.oid;
COMMENT ON VIEW indexes IS 'The indexes that create_index was asked for: definition is what it would run where the index is not there (present false, as after a restore: CALL create_index(NULL) makes all that miss); valid is false while one is being built, or where a build was cut off; size in bytes.';

CREATE PROCEDURE create_index(what text)
  LANGUAGE c AS 'MODULE_PATHNAME', 'evento_create_index';
COMMENT ON PROCEDURE create_index(text) IS
'Builds an index for queries on the view events, CONCURRENTLY: appends go on meanwhile. what: ''type'', ''context'' (both with position), ''category'', ''time'' (recorded_at), or a key of JSON such as ''data.orderId'', ''data.customer.id'' or ''metadata.tenant'' for queries with = on evento.text(data, ''customer'', ''id''); a key with other characters than letters, digits, _, -, $ and @ stands in double quotes. NULL: all that the view indexes shows as not valid. One that is there gives a NOTICE. It outlives pg_dump as a row of indexes only: CALL create_index(NULL) after a restore.
A background worker builds it; one that fails or is cancelled leaves nothing. Waits for transactions older than itself, and is refused inside a transaction block, a function or a REPEATABLE READ session (25001). Raises V0004, V0005, 22023 for what it cannot read, 53400 where no background worker is free, and what CREATE INDEX raises.';

CREATE PROCEDURE drop_index(what text)
  LANGUAGE c AS 'MODULE_PATHNAME', 'evento_drop_index';
COMMENT ON PROCEDURE drop_index(text) IS
'Drops an index that create_index made, CONCURRENTLY; a NOTICE where there is none. Takes and raises what create_index does, but NULL is 22023.';

GRANT SELECT ON indexes TO evento_reader;
GRANT EXECUTE ON FUNCTION text(json, text[]), _index_plan(text) TO evento_reader;
GRANT EXECUTE ON PROCEDURE create_index(text), drop_index(text) TO evento_admin;


-- ---------------------------------------------------------------------------
-- Consumers in SQL
-- ---------------------------------------------------------------------------

-- What a consumer is lies in one table, where it stands in another.  A checkpoint moves often, perhaps while a stranger's
-- snapshot keeps every version of its row alive: with a number that grows at each change in the key, the newest version is
-- the first that a backward walk along the index meets, however many lie behind it.  Both are changed under the lock that
-- _consumer_lock takes.

CREATE TABLE _consumers (
  name       text COLLATE "C" NOT NULL PRIMARY KEY,
  context    text COLLATE "C" NOT NULL,
  types      text[],
  categories text[],
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE _consumers IS 'Consumers in SQL and what they want of the log.';

CREATE TABLE _checkpoints (
  consumer    text COLLATE "C" NOT NULL,
  change      bigint NOT NULL,                      -- one more at each change
  position    bigint NOT NULL,                      -- it has done with all up to here
  epoch       bigint NOT NULL,                      -- of the newest owner
  ttl         interval NOT NULL,                    -- of the lease, which an ack extends
  lease_until timestamptz,                          -- NULL: nobody's
  owner       text,
  owner_pid   integer,
  application text,
  claimed_at  timestamptz,
  acked_at    timestamptz,
  PRIMARY KEY (consumer, change)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE _checkpoints IS 'Where each consumer in SQL stands and who has it: a row each.';

SELECT pg_catalog.pg_extension_config_dump('_consumers', '');
SELECT pg_catalog.pg_extension_config_dump('_checkpoints', '');

CREATE FUNCTION _consumer_check(name text, caller text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'evento_consumer_check';
COMMENT ON FUNCTION _consumer_check(text, text) IS 'Raises where a function that changes a consumer cannot write here (V0004, V0005, 25006), or the name has not 1 to 255 bytes (22023).';

CREATE FUNCTION _consumer_lock(name text, wait boolean) RETURNS boolean
  LANGUAGE c VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'evento_consumer_lock';
COMMENT ON FUNCTION _consumer_lock(text, boolean) IS 'Takes the lock of a consumer to the end of the transaction. False where another transaction has it and wait is false.';

CREATE FUNCTION _consumer_unlock(name text) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'evento_consumer_unlock';
COMMENT ON FUNCTION _consumer_unlock(text) IS 'Gives the lock of a consumer back, for a caller that has changed nothing under it.';

CREATE FUNCTION _consumer_limit() RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'evento_consumer_limit';
COMMENT ON FUNCTION _consumer_limit() IS 'The watermark as it is now; NULL early after a start, when nobody has appended yet, and on a standby. Raises V0004.';

CREATE FUNCTION _consumer_target(wanted bigint, present bigint) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  readable bigint := _consumer_limit();
  spent bigint := readable;
BEGIN
  IF readable IS NULL THEN
    -- No event will ever get a position of a block that was reserved before a start: it may have been read up to there.
    SELECT COALESCE((SELECT w.position FROM _watermark w), 0) INTO readable;
    SELECT GREATEST(readable, CASE WHEN p.is_called THEN p.last_value + 1023 ELSE 0 END) INTO spent FROM _positions p;
  END IF;
  IF wanted < 0 OR wanted > GREATEST(spent, present) THEN
    RAISE EXCEPTION 'position % is not one that can have been read', wanted
      USING ERRCODE = 'invalid_parameter_value', DETAIL = pg_catalog.format('The log can be read up to %s.', readable),
            HINT = 'Give what consumer_fetch gave as scanned.';
  END IF;
  RETURN COALESCE(wanted, readable);
END
$$;
COMMENT ON FUNCTION _consumer_target(bigint, bigint) IS 'A position that a consumer, now at present, may be set to: the one wanted, or the end of what can be read for NULL. Raises 22023 for one that lies ahead of the log.';

CREATE FUNCTION consumer_claim(name text, ttl interval, context text DEFAULT '*', types text[] DEFAULT NULL, categories text[] DEFAULT NULL,
                               held bigint DEFAULT NULL, start bigint DEFAULT 0)
  RETURNS TABLE (epoch bigint, "position" bigint)
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1
  SET search_path = pg_catalog, evento, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
  c _consumers;
  k _checkpoints;
  j _jumps;
  pattern text := COALESCE(consumer_claim.context, '*');
  mine boolean;
  refiltered boolean := false;
BEGIN
  PERFORM _consumer_check(consumer_claim.name, 'consumer_claim()');
  IF consumer_claim.ttl IS NULL OR NOT consumer_claim.ttl BETWEEN '0' AND '1 year' THEN
    RAISE EXCEPTION 'ttl must be between 0 and 1 year, not %', COALESCE(consumer_claim.ttl::text, 'NULL') USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM FROM scan_all(0, 0, pattern, consumer_claim.types, consumer_claim.categories);  -- raises for a filter that is none

  -- A look first: while its lease runs, others do not even touch the lock.
  SELECT * INTO k FROM _checkpoints p WHERE p.consumer = consumer_claim.name ORDER BY p.change DESC LIMIT 1;
  mine := COALESCE(k.epoch = held AND k.lease_until IS NOT NULL, false);
  IF NOT mine AND k.lease_until > pg_catalog.clock_timestamp() THEN
    RETURN;
  END IF;
  IF NOT _consumer_lock(consumer_claim.name, false) THEN
    -- Nobody takes it over while the owner's lease runs: a transaction of the owner's own is at it.
    IF mine AND k.lease_until > pg_catalog.clock_timestamp() THEN
      RETURN QUERY SELECT k.epoch, k.position;
    END IF;
    RETURN;
  END IF;

  SELECT * INTO c FROM _consumers s WHERE s.name = consumer_claim.name;
  SELECT * INTO k FROM _checkpoints p WHERE p.consumer = consumer_claim.name ORDER BY p.change DESC LIMIT 1;
  mine := COALESCE(k.epoch = held AND k.lease_until IS NOT NULL, false);
  IF NOT mine AND k.lease_until > pg_catalog.clock_timestamp() THEN
    PERFORM _consumer_unlock(consumer_claim.name);
    RETURN;
  END IF;

  IF c.name IS NULL THEN
    k.position := _consumer_target(start, 0);
    k.epoch := 0;
    k.change := 0;
    -- Where the transaction's snapshot cannot see that another made it, this is 40001.
    INSERT INTO _consumers (name, context, types, categories)
      VALUES (consumer_claim.name, pattern, consumer_claim.types, consumer_claim.categories) ON CONFLICT DO NOTHING;
    INSERT INTO _checkpoints (consumer, change, position, epoch, ttl)
      VALUES (consumer_claim.name, k.change, k.position, k.epoch, consumer_claim.ttl) ON CONFLICT DO NOTHING;
  ELSIF (c.context, c.types, c.categories) IS DISTINCT FROM (pattern, consumer_claim.types, consumer_claim.categories) THEN
    UPDATE _consumers s SET context = pattern, types = consumer_claim.types, categories = consumer_claim.categories
     WHERE s.name = consumer_claim.name;
    refiltered := true;
  END IF;

  IF NOT mine OR refiltered THEN
    mine := false;
    -- The clock keeps an epoch from coming again where the row that held it is lost: dropped, or left behind by a failover.
    k.epoch := GREATEST(k.epoch + 1, (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint);
  END IF;
  UPDATE _checkpoints p
     SET change = p.change + 1, epoch = k.epoch, ttl = consumer_claim.ttl, lease_until = pg_catalog.clock_timestamp() + consumer_claim.ttl,
         owner = session_user, owner_pid = pg_catalog.pg_backend_pid(), application = pg_catalog.current_setting('application_name'),
         claimed_at = CASE WHEN mine THEN p.claimed_at ELSE pg_catalog.clock_timestamp() END
   WHERE p.consumer = consumer_claim.name AND p.change = k.change;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'checkpoint of consumer "%" was changed by another way', consumer_claim.name USING ERRCODE = 'serialization_failure';
  END IF;

  IF NOT mine THEN
    SELECT * INTO j FROM _jumps u WHERE u.last_position < k.position AND k.position < u.next_position - 1 LIMIT 1;
    IF FOUND THEN
      RAISE WARNING 'consumer "%" may have read events that are lost', consumer_claim.name
        USING DETAIL = pg_catalog.format('It stands at %s. What was behind %s is gone, the log goes on at %s: %s.', k.position, j.last_position, j.next_position, j.reason);
    END IF;
  END IF;
  RETURN QUERY SELECT k.epoch, k.position;
END
$$;
COMMENT ON FUNCTION consumer_claim(text, interval, text, text[], text[], bigint, bigint) IS
'Makes the caller the owner of a durable consumer for ttl (0 to 1 year; an ack extends it) and gives a row with its epoch, which consumer_ack wants, and its checkpoint; no row while another has it, at once, whatever transactions are open. A consumer that is new (name: 1 to 255 bytes) starts behind position start: 0 the beginning, NULL the end of the log.
An owner renews with held, the epoch it has: it keeps the epoch then, also after its lease ran out, if nobody has taken the consumer over. Every take-over has a higher epoch. context, types, categories: the filter, as for scan_all; another one than before is kept from here on, with a new epoch, and does not move the checkpoint. ttl 0: for this transaction only.
Raises a WARNING where the checkpoint lies among positions that a failover lost; V0004 not preloaded, V0005 on a standby, 22023 for what is out of bounds, 40001 when the snapshot of a REPEATABLE READ transaction is too old.';

CREATE FUNCTION consumer_fetch(name text, max bigint DEFAULT 1000)
  RETURNS SETOF scanned_event
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER ROWS 1000
  SET search_path = pg_catalog, evento, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
  c record;
BEGIN
  SELECT p.position, s.context, s.types, s.categories INTO c
    FROM _consumers s, LATERAL (SELECT k.position FROM _checkpoints k WHERE k.consumer = s.name ORDER BY k.change DESC LIMIT 1) p
   WHERE s.name = consumer_fetch.name;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'consumer "%" does not exist', consumer_fetch.name USING ERRCODE = 'undefined_object', HINT = 'consumer_claim makes it.';
  END IF;
  RETURN QUERY SELECT * FROM scan_all(c.position, consumer_fetch.max, c.context, c.types, c.categories);
END
$$;
COMMENT ON FUNCTION consumer_fetch(text, bigint) IS
'Events behind a consumer''s checkpoint that fit its filter, in order, up to the watermark, at most max (NULL: as many as there are). Rows as scan_all gives them: the last has all but scanned NULL and says how far it looked (at most 100,000 events in one call); acknowledge that, and a rare filter never looks at an event twice.
Moves nothing: called again before consumer_ack it gives the same events, behind one in the same transaction those that follow. Whoever fetches, only the owner can ack. Works on a standby. Raises 42704 where there is no such consumer, V0004, 22023.';

CREATE FUNCTION consumer_ack(name text, "position" bigint, epoch bigint, after bigint DEFAULT NULL) RETURNS boolean
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
  SET search_path = pg_catalog, evento, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
  k _checkpoints;
BEGIN
  PERFORM _consumer_check(consumer_ack.name, 'consumer_ack()');
  IF consumer_ack."position" IS NULL OR consumer_ack.epoch IS NULL THEN
    RAISE EXCEPTION 'position and epoch must not be NULL' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM _consumer_lock(consumer_ack.name, true);
  SELECT * INTO k FROM _checkpoints p WHERE p.consumer = consumer_ack.name ORDER BY p.change DESC LIMIT 1;
  IF NOT FOUND OR k.epoch <> consumer_ack.epoch OR k.lease_until IS NULL THEN
    RAISE EXCEPTION 'consumer "%" is not held with the epoch given', consumer_ack.name
      USING ERRCODE = 'V0008',
            DETAIL = CASE WHEN k.consumer IS NULL THEN 'There is no such consumer.'
                          WHEN k.lease_until IS NULL THEN 'It was given back or reset.'
                          ELSE pg_catalog.format('It is held with epoch %s, given was %s.', k.epoch, consumer_ack.epoch) END,
            HINT = 'Claim it again, and fetch from where it stands then.';
  END IF;
  IF k.position <> after THEN
    RAISE EXCEPTION 'consumer "%" stands at %, not at %', consumer_ack.name, k.position, after
      USING ERRCODE = 'V0008', HINT = 'Fetch again.';
  END IF;
  IF consumer_ack."position" < k.position THEN
    RAISE EXCEPTION 'consumer "%" stands at % and cannot go back to %', consumer_ack.name, k.position, consumer_ack."position"
      USING ERRCODE = 'invalid_parameter_value', HINT = 'consumer_reset sets it back.';
  END IF;
  PERFORM _consumer_target(consumer_ack."position", k.position);

  -- A poll that found nothing writes only where the lease wants it. (A kept snapshot cannot tell what is the newest.)
  IF consumer_ack."position" = k.position AND k.lease_until > pg_catalog.clock_timestamp() + k.ttl / 2
     AND pg_catalog.current_setting('transaction_isolation') = 'read committed' THEN
    RETURN false;
  END IF;
  UPDATE _checkpoints p
     SET change = p.change + 1, position = consumer_ack."position", lease_until = pg_catalog.clock_timestamp() + p.ttl,
         acked_at = pg_catalog.clock_timestamp()
   WHERE p.consumer = consumer_ack.name AND p.change = k.change;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'checkpoint of consumer "%" was changed by another way', consumer_ack.name USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN consumer_ack."position" > k.position;
END
$$;
COMMENT ON FUNCTION consumer_ack(text, bigint, bigint, bigint) IS
'Moves a consumer''s checkpoint to position (scanned of what was fetched last) in the caller''s transaction, so that it commits with what was made of the events or not at all, and extends the lease by its ttl. True where it moved, false where it stood there already. epoch: what consumer_claim gave. after: where the caller believes it to stand, for those who fetched in an earlier transaction.
Until the transaction ends, claims give no row, and other acks of the same consumer wait. Raises V0008 where another has taken it over since, where it was given back, reset or dropped, or does not stand at after; 22023 for a position that lies back (consumer_reset does that) or beyond what can be read; V0004, V0005, 40001.';

CREATE FUNCTION consumer_release(name text, epoch bigint) RETURNS boolean
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
  SET search_path = pg_catalog, evento, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
  k _checkpoints;
BEGIN
  PERFORM _consumer_check(consumer_release.name, 'consumer_release()');
  PERFORM _consumer_lock(consumer_release.name, true);
  SELECT * INTO k FROM _checkpoints p WHERE p.consumer = consumer_release.name ORDER BY p.change DESC LIMIT 1;
  IF k.epoch IS DISTINCT FROM consumer_release.epoch OR k.lease_until IS NULL THEN
    RETURN false;
  END IF;
  UPDATE _checkpoints p SET change = p.change + 1, lease_until = NULL, owner = NULL, owner_pid = NULL, application = NULL
   WHERE p.consumer = consumer_release.name AND p.change = k.change;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION consumer_release(text, bigint) IS
'Gives a consumer back before its lease runs out, so that another can claim it at once. True where the caller had it with that epoch, false where it had not: then nothing is changed. Raises V0004, V0005, 22023, 40001.';

CREATE FUNCTION consumer_reset(name text, "position" bigint) RETURNS bigint
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
  SET search_path = pg_catalog, evento, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
  k _checkpoints;
BEGIN
  PERFORM _consumer_check(consumer_reset.name, 'consumer_reset()');
  PERFORM _consumer_lock(consumer_reset.name, true);
  SELECT * INTO k FROM _checkpoints p WHERE p.consumer = consumer_reset.name ORDER BY p.change DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'consumer "%" does not exist', consumer_reset.name USING ERRCODE = 'undefined_object', HINT = 'consumer_claim makes it.';
  END IF;
  k.position := _consumer_target(consumer_reset."position", k.position);
  UPDATE _checkpoints p
     SET change = p.change + 1, position = k.position, lease_until = NULL, owner = NULL, owner_pid = NULL, application = NULL,
         epoch = GREATEST(p.epoch + 1, (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint)
   WHERE p.consumer = consumer_reset.name AND p.change = k.change;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'checkpoint of consumer "%" was changed by another way', consumer_reset.name USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN k.position;
END
$$;
COMMENT ON FUNCTION consumer_reset(text, bigint) IS
'Sets the checkpoint of a consumer, back or forth, in the caller''s transaction, and gives it: 0 is the beginning, NULL the end of the log. Whoever owned it does so no more: its next ack raises V0008. Waits for a transaction that has the consumer (lock_timeout bounds that). Raises 42704 where there is no such consumer, 22023 for a position beyond what can be read, V0004, V0005, 40001.';

CREATE FUNCTION consumer_drop(name text) RETURNS boolean
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
  SET search_path = pg_catalog, evento, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM _consumer_check(consumer_drop.name, 'consumer_drop()');
  PERFORM _consumer_lock(consumer_drop.name, true);
  DELETE FROM _checkpoints p WHERE p.consumer = consumer_drop.name;
  DELETE FROM _consumers c WHERE c.name = consumer_drop.name;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION consumer_drop(text) IS
'Forgets a consumer and its checkpoint. True where there was one. Whoever owned it gets V0008 at its next ack; a claim makes it anew, from the beginning. Waits for a transaction that has the consumer (lock_timeout bounds that). Raises V0004, V0005, 22023, 40001.';

GRANT EXECUTE ON FUNCTION consumer_fetch(text, bigint) TO evento_reader;
GRANT EXECUTE ON FUNCTION
  consumer_claim(text, interval, text, text[], text[], bigint, bigint), consumer_ack(text, bigint, bigint, bigint),
  consumer_release(text, bigint), consumer_reset(text, bigint), consumer_drop(text)
  TO evento_writer;

-- ---------------------------------------------------------------------------
-- Import from other event stores
-- ---------------------------------------------------------------------------

-- Reading the other store is done with the rights of who calls, writing the log by functions that run as its owner: neither
-- gets at the other's tables.

CREATE TABLE _imports (
  source        text COLLATE "C" NOT NULL PRIMARY KEY,
  kind          text COLLATE "C" NOT NULL,
  last_position bigint NOT NULL DEFAULT 0,
  events        bigint NOT NULL DEFAULT 0,
  snapshots     bigint NOT NULL DEFAULT 0,
  started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at   timestamptz
);
COMMENT ON TABLE _imports IS 'How far each import has come; committed with the events it tells of.';
SELECT pg_catalog.pg_extension_config_dump('_imports', '');

CREATE VIEW imports AS
SELECT i.source, i.kind, i.last_position, i.events, i.snapshots, i.started_at, i.changed_at, i.finished_at
  FROM _imports i;
COMMENT ON VIEW imports IS 'Imports from other event stores: the table that was read, up to which of its positions, how many events and snapshots came in; finished_at is NULL while one runs, and where it was broken off.';

CREATE TYPE _imported_event AS (
  "position"      bigint,
  stream          text,
  version         bigint,
  id              uuid,
  type            text,
  context         text,
  service         boolean,
  force_telemetry boolean,
  class           text,
  data            json,
  metadata        json,
  "timestamp"     timestamptz,
  recorded_at     timestamptz,
  deleted_at      timestamptz
);
COMMENT ON TYPE _imported_event IS 'An event of another store. version NULL: the next of its stream; deleted_at: the other store had hidden it, and all before it in its stream.';

CREATE TYPE _imported_snapshot AS (
  stream     text,
  "position" bigint,
  class      text,
  state      json,
  taken_at   timestamptz
);
COMMENT ON TYPE _imported_snapshot IS 'A snapshot of another store: the state after the last event of the stream up to that position.';

REVOKE ALL ON TYPE _imported_event, _imported_snapshot FROM PUBLIC;

CREATE FUNCTION _import_begin(source text, kind text, OUT last_position bigint, OUT events bigint)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
BEGIN
  INSERT INTO _imports AS i (source, kind) VALUES (_import_begin.source, _import_begin.kind)
    ON CONFLICT ON CONSTRAINT _imports_pkey DO UPDATE SET finished_at = NULL, changed_at = pg_catalog.clock_timestamp()
    RETURNING i.last_position, i.events INTO _import_begin.last_position, _import_begin.events;
END
$$;
COMMENT ON FUNCTION _import_begin(text, text) IS 'Begins an import, or goes on with it: up to which position of the source it has come, with how many events.';

CREATE FUNCTION _import_numbered(events _imported_event[])
  RETURNS TABLE ("position" bigint, stream text, version bigint, id uuid, type text, context text, service boolean, force_telemetry boolean, class text, data json,
                 metadata json, "timestamp" timestamptz, recorded_at timestamptz, stream_no bigint, tombstone boolean, next_version bigint)
  LANGUAGE sql STABLE SET search_path = pg_catalog, evento, pg_temp AS $$
  SELECT e."position", e.stream, e.version, e.id, e.type, e.context, e.service, e.force_telemetry, e.class, e.data, e.metadata, e."timestamp", e.recorded_at,
         s.stream_no, s.tombstone, h.version + row_number() OVER (PARTITION BY s.stream_no ORDER BY e."position")
    FROM pg_catalog.unnest(events) e
    LEFT JOIN (_streams s
               CROSS JOIN LATERAL (SELECT COALESCE(max(x.version), 0) AS version FROM _events x WHERE x.stream_no = s.stream_no) h)
      ON s.name = e.stream COLLATE "C"
$$;
COMMENT ON FUNCTION _import_numbered(_imported_event[]) IS 'A batch of an import with the number of each event''s stream and the version that is next in it.';

CREATE FUNCTION _import_events(source text, events _imported_event[]) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  done bigint;
  newest bigint;
  fault record;
BEGIN
  -- Of two imports of one table the second waits here, and then finds that the first was faster.
  SELECT i.last_position INTO done FROM _imports i WHERE i.source = _import_events.source FOR UPDATE;
  -- Nobody appends while the batch is under way; whoever had begun finds the changed stream at COMMIT.
  LOCK TABLE _events IN SHARE ROW EXCLUSIVE MODE;
  -- Once somebody has appended, positions are reserved ahead, and readers are told to go past them.
  IF EXISTS (SELECT FROM _identity) THEN
    RAISE EXCEPTION 'cannot import into a log that has been appended to'
      USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Imports keep positions: nothing may be appended before the last of them has come in.';
  END IF;
  SELECT GREATEST(done, (SELECT max(e."position") FROM _events e), (SELECT w."position" FROM _watermark w)) INTO newest;
  SELECT e."position" INTO fault FROM pg_catalog.unnest(events) e WHERE e."position" <= newest ORDER BY e."position" LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'cannot import the event with position % of %', fault."position", source
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('The log has positions up to %s; readers have passed them.', newest),
            HINT = 'Of several sources the one with the lowest positions comes first; two whose positions overlap cannot both be kept.';
  END IF;

  SELECT e."position",
         CASE WHEN e."position" < 1 THEN 'it is not positive'
              WHEN e."position" > 9000000000000000000 THEN 'it leaves no room for appends behind it'
              WHEN octet_length(e.stream) NOT BETWEEN 1 AND 512 THEN format('its stream''s name has %s bytes, not 1 to 512', octet_length(e.stream))
              WHEN COALESCE(octet_length(e.type), 0) NOT BETWEEN 1 AND 255 THEN format('its type has %s bytes, not 1 to 255', COALESCE(octet_length(e.type), 0))
              WHEN COALESCE(octet_length(e.context), 0) NOT BETWEEN 1 AND 512 THEN format('its context has %s bytes, not 1 to 512', COALESCE(octet_length(e.context), 0))
              WHEN octet_length(e.class) > 1024 THEN format('its class has %s bytes, more than 1024', octet_length(e.class))
              WHEN e.data IS NULL THEN 'it has no data'
              WHEN e.service IS NULL THEN 'its message has no class'
              WHEN e.id IS NULL THEN 'it has no id'
              WHEN e.recorded_at IS NULL THEN 'it has no time'
              ELSE 'its time is infinite'
         END AS what
    INTO fault
    FROM pg_catalog.unnest(events) e
   WHERE e."position" NOT BETWEEN 1 AND 9000000000000000000 OR octet_length(e.stream) NOT BETWEEN 1 AND 512
      OR COALESCE(octet_length(e.type), 0) NOT BETWEEN 1 AND 255 OR COALESCE(octet_length(e.context), 0) NOT BETWEEN 1 AND 512
      OR octet_length(e.class) > 1024 OR e.data IS NULL OR e.service IS NULL OR e.id IS NULL OR e.recorded_at IS NULL
      OR NOT isfinite(e.recorded_at) OR NOT isfinite(e."timestamp")
   ORDER BY e."position" LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'cannot import the event with position % of %: %', fault."position", source, fault.what USING ERRCODE = 'invalid_parameter_value';
  END IF;

  INSERT INTO _streams (stream_no, name)
  SELECT min(e."position"), e.stream FROM pg_catalog.unnest(events) e WHERE e.stream IS NOT NULL GROUP BY e.stream
    ON CONFLICT ON CONSTRAINT _streams_name_key DO NOTHING;

  SELECT n."position", n.stream, n.version, n.next_version, n.tombstone INTO fault
    FROM _import_numbered(events) n WHERE n.tombstone OR n.version <> n.next_version ORDER BY n."position" LIMIT 1;
  IF FOUND THEN
    IF fault.tombstone THEN
      RAISE EXCEPTION 'stream "%" was deleted for good', fault.stream USING ERRCODE = 'V0003';
    END IF;
    RAISE EXCEPTION 'cannot import the event with position % of %', fault."position", source
      USING ERRCODE = 'V0001',
            DETAIL = format('It has version %s in stream "%s", where the next one is %s.', fault.version, fault.stream, fault.next_version),
            HINT = 'Versions in a stream have no gaps: the source has lost events of that stream, or has them in another order.';
  END IF;

  INSERT INTO _events (position, stream_no, version, "timestamp", recorded_at, id, service, force_telemetry, type, context, class, data, metadata)
  SELECT n."position", n.stream_no, n.next_version, COALESCE(n."timestamp", n.recorded_at), n.recorded_at, n.id, n.service, n.force_telemetry, n.type, n.context,
         n.class, n.data, n.metadata
    FROM _import_numbered(events) n ORDER BY n."position";

  -- What the other store had hidden stays hidden; one who goes on after a deletion has no deleted_at.
  UPDATE _streams s
     SET deleted_version = d.version, deleted_at = CASE WHEN d.version = d.head THEN d.deleted_at END
    FROM (SELECT x.stream_no, GREATEST(x.deleted_version, max(e.version) FILTER (WHERE u.deleted_at IS NOT NULL)) AS version,
                 max(u.deleted_at) AS deleted_at,
                 (SELECT h.version FROM _events h WHERE h.stream_no = x.stream_no ORDER BY h.version DESC LIMIT 1) AS head
            FROM pg_catalog.unnest(events) u
            JOIN _streams x ON x.name = u.stream COLLATE "C"
            JOIN _events e ON e.position = u."position"
           GROUP BY x.stream_no, x.deleted_version) d
   WHERE s.stream_no = d.stream_no AND (d.version > s.deleted_version OR s.deleted_at IS NOT NULL);

  UPDATE _imports i
     SET last_position = (SELECT max(e."position") FROM pg_catalog.unnest(_import_events.events) e), events = i.events + pg_catalog.cardinality(_import_events.events),
         changed_at = pg_catalog.clock_timestamp()
   WHERE i.source = _import_events.source
   RETURNING i.last_position INTO done;
  RETURN done;
END
$$;
COMMENT ON FUNCTION _import_events(text, _imported_event[]) IS 'Writes a batch of an import, with its positions, and how far the import has come. Gives that position. Raises 55000 where the log has passed a position, V0001 for a gap in the versions of a stream, V0003 for a stream that was deleted for good here, 22023 for what is out of bounds.';

CREATE FUNCTION _import_snapshots(source text, snapshots _imported_snapshot[]) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  kept bigint;
BEGIN
  LOCK TABLE _events IN SHARE ROW EXCLUSIVE MODE;
  INSERT INTO _snapshots AS k (stream, version, class, state, taken_at)
  SELECT n.stream, e.version, n.class, n.state, COALESCE(n.taken_at, pg_catalog.clock_timestamp())
    FROM pg_catalog.unnest(snapshots) n
    JOIN _streams s ON s.name = n.stream COLLATE "C" AND NOT s.tombstone
   CROSS JOIN LATERAL (SELECT h.version FROM _events h WHERE h.stream_no = s.stream_no AND h.position <= n."position" ORDER BY h.version DESC LIMIT 1) e
   WHERE e.version > s.deleted_version AND n.state IS NOT NULL
    ON CONFLICT ON CONSTRAINT _snapshots_pkey DO UPDATE SET version = excluded.version, class = excluded.class, state = excluded.state, taken_at = excluded.taken_at
    WHERE excluded.version > k.version;
  GET DIAGNOSTICS kept = ROW_COUNT;
  UPDATE _imports i SET snapshots = i.snapshots + kept, changed_at = pg_catalog.clock_timestamp() WHERE i.source = _import_snapshots.source;
  RETURN kept;
END
$$;
COMMENT ON FUNCTION _import_snapshots(text, _imported_snapshot[]) IS 'Keeps snapshots of an import, each at the version of its last event; one that is there already and not older stays. Gives how many were kept.';

CREATE FUNCTION _import_end(source text, expected bigint) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  have bigint;
  upto bigint;
BEGIN
  SELECT i.events, i.last_position INTO have, upto FROM _imports i WHERE i.source = _import_end.source FOR UPDATE;
  IF have <> expected THEN
    RAISE EXCEPTION 'the import of % is not complete', source
      USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('%s events up to position %s came in, the source has %s there.', have, upto, expected),
            HINT = 'Events were committed late, or removed, below a position that had been read, or have none above 0. Stop what writes to the source, and import it again into an empty log.';
  END IF;
  UPDATE _imports i SET finished_at = pg_catalog.clock_timestamp() WHERE i.source = _import_end.source;
  RETURN have;
END
$$;
COMMENT ON FUNCTION _import_end(text, bigint) IS 'Ends an import: the source has so many events up to where it has come. Gives how many came in; raises 55000 where that is another number.';

-- ---- the Java server of the Evento Framework ----

CREATE FUNCTION _import_payload(object text, object_class text, OUT class text, OUT content json)
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
  SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  name text := pg_catalog.substr(object_class, 7);
  inner_text text;
BEGIN
  -- As a proxy stores it: of ["com.acme.T",{…}] the object, with the class beside it; everything else whole.
  class := object_class;
  content := object::json;
  IF pg_catalog.starts_with(object_class, 'class ') THEN
    IF NOT pg_catalog.starts_with(name, 'class ') AND NOT pg_catalog.starts_with(name, '=') AND pg_catalog.json_typeof(content) = 'array' THEN
      inner_text := evento.text(content, '1');
      IF pg_catalog.starts_with(inner_text, '{') AND object = '["' || name || '",' || inner_text || ']' THEN
        class := name;
        content := inner_text::json;
      END IF;
    END IF;
  ELSIF pg_catalog.json_typeof(content) = 'object' OR pg_catalog.starts_with(object_class, '=') THEN
    class := '=' || object_class;
  END IF;
END
$$;
COMMENT ON FUNCTION _import_payload(text, text) IS 'A serialized object of the Evento Framework and its class, as a proxy stores them: what goes back to bundles is the very same text.';

CREATE FUNCTION _import_message("position" bigint, context text, stream text, type text, message json, recorded_at timestamptz, deleted_at timestamptz)
  RETURNS _imported_event
  LANGUAGE plpgsql STABLE PARALLEL SAFE
  SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  e evento._imported_event;
BEGIN
  e."position" := "position";
  e.stream := stream;
  -- The source has no ids: one that is the same whenever this event is imported.
  e.id := pg_catalog.md5('evento import ' || "position" || ' ' || type)::uuid;
  e.type := type;
  e.context := COALESCE(context, 'default');
  e.service := evento.text(message, '0') ~ '[.]ServiceEventMessage$';
  e.force_telemetry := COALESCE(evento.text(message, '1', 'forceTelemetry') = 'true', false);
  e.metadata := evento.text(message, '1', 'metadata', '1')::json;
  e."timestamp" := pg_catalog.to_timestamp(evento.text(message, '1', 'timestamp')::bigint / 1000.0);
  e.recorded_at := COALESCE(recorded_at, e."timestamp");
  e.deleted_at := deleted_at;
  SELECT p.class, p.content INTO e.class, e.data
    FROM evento._import_payload(evento.text(message, '1', 'serializedPayload', '1', 'serializedObject'), evento.text(message, '1', 'serializedPayload', '1', 'objectClass')) p;
  RETURN e;
END
$$;
COMMENT ON FUNCTION _import_message(bigint, text, text, text, json, timestamptz, timestamptz) IS 'A row of es__events as an event of the log.';

CREATE FUNCTION _import_state(stream text, "position" bigint, state json, taken_at timestamptz) RETURNS _imported_snapshot
  LANGUAGE plpgsql STABLE PARALLEL SAFE
  SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  s evento._imported_snapshot;
BEGIN
  s.stream := stream;
  s."position" := "position";
  s.taken_at := taken_at;
  -- A state that says "deleted" is none: a bundle refuses commands for a deleted aggregate only while it replays the event that deleted it.
  SELECT p.class, p.content INTO s.class, s.state
    FROM evento._import_payload(evento.text(state, '1', 'serializedObject'), evento.text(state, '1', 'objectClass')) p
   WHERE evento.text(state, '1', 'objectClass') IS NOT NULL AND evento.text(evento.text(state, '1', 'serializedObject')::json, '1', 'deleted') IS DISTINCT FROM 'true';
  RETURN s;
END
$$;
COMMENT ON FUNCTION _import_state(text, bigint, json, timestamptz) IS 'A row of es__snapshot as a snapshot; without state where there is none to keep.';

CREATE FUNCTION _import_time(source regclass, "column" name) RETURNS text
  LANGUAGE sql STABLE
  RETURN (SELECT CASE WHEN a.attname IS NULL THEN 'NULL::timestamptz'
                      WHEN a.atttypid IN ('bigint'::regtype, 'numeric'::regtype) THEN pg_catalog.format('pg_catalog.to_timestamp(s.%I::numeric OPERATOR(pg_catalog./) 1000.0)', a.attname)
                      ELSE pg_catalog.format('s.%I::timestamptz', a.attname) END
            FROM (VALUES (1)) one (x)
            LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = source AND a.attname = "column" AND a.attnum > 0 AND NOT a.attisdropped);
COMMENT ON FUNCTION _import_time(regclass, name) IS 'An expression for a column of the source that holds a time: milliseconds since 1970, or a timestamp; NULL where there is no such column.';

CREATE FUNCTION _import_source(source text) RETURNS regclass
  LANGUAGE plpgsql STABLE AS $$
DECLARE
  found regclass := pg_catalog.to_regclass(source);
BEGIN
  IF found IS NULL THEN
    RAISE EXCEPTION 'there is no table %', source
      USING ERRCODE = 'undefined_table', HINT = 'Name the table to import, with its schema; a foreign table (postgres_fdw) does where it is in another database.';
  END IF;
  RETURN found;
END
$$;
COMMENT ON FUNCTION _import_source(text) IS 'The table of that name; raises 42P01.';

CREATE FUNCTION _import_name(source regclass) RETURNS text
  LANGUAGE sql STABLE
  RETURN (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = source);
COMMENT ON FUNCTION _import_name(regclass) IS 'The name of a table with its schema, whatever the search_path.';

CREATE PROCEDURE import_evento(events text DEFAULT 'public.es__events', snapshots text DEFAULT 'public.es__snapshot', batch integer DEFAULT 10000,
                               INOUT imported bigint DEFAULT NULL)
  LANGUAGE plpgsql AS $$
DECLARE
  source regclass := evento._import_source(events);
  states regclass := CASE WHEN snapshots IS NOT NULL THEN evento._import_source(snapshots) END;
  name text := evento._import_name(source);
  query text;
  after bigint;
  total bigint;
  rows evento._imported_event[];
  kept evento._imported_snapshot[];
  last text;
  fault record;
BEGIN
  IF batch IS NULL OR batch NOT BETWEEN 1 AND 100000 THEN
    RAISE EXCEPTION 'batch must be 1 to 100000, not %', batch USING ERRCODE = 'invalid_parameter_value';
  END IF;
  query := pg_catalog.format('SELECT s.event_sequence_number::bigint AS "position", s.context::text, s.aggregate_id::text AS stream, s.event_name::text AS type, '
    's.event_message::text AS message, %s AS recorded_at, %s AS deleted_at FROM %s s WHERE s.event_sequence_number OPERATOR(pg_catalog.>) $1 ORDER BY s.event_sequence_number LIMIT $2',
    evento._import_time(source, 'created_at'), evento._import_time(source, 'deleted_at'), name);
  SELECT b.last_position, b.events INTO after, total FROM evento._import_begin(name, 'evento') b;
  COMMIT;
  LOOP
    BEGIN
      EXECUTE 'SELECT pg_catalog.array_agg(evento._import_message(m."position", m.context, m.stream, m.type, m.message::json, m.recorded_at, m.deleted_at)) FROM (' || query || ') m'
        INTO rows USING after, batch;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
      -- Which one it is, is worth a second look.
      FOR fault IN EXECUTE query USING after, batch LOOP
        BEGIN
          PERFORM evento._import_message(fault."position", fault.context, fault.stream, fault.type, fault.message::json, fault.recorded_at, fault.deleted_at);
        EXCEPTION WHEN OTHERS THEN
          RAISE EXCEPTION 'cannot import the event with position % of %: %', fault."position", name, SQLERRM USING ERRCODE = SQLSTATE;
        END;
      END LOOP;
      RAISE;
    END;
    EXIT WHEN rows IS NULL;
    after := evento._import_events(name, rows);
    COMMIT;
    total := total + pg_catalog.cardinality(rows);
    RAISE NOTICE '% events of % imported, up to position %', total, name, after;
  END LOOP;

  last := '';
  WHILE states IS NOT NULL LOOP
    EXECUTE pg_catalog.format('SELECT pg_catalog.array_agg(evento._import_state(m.stream, m."position", m.state::json, m.taken_at)), pg_catalog.max(m.stream) FROM ('
      'SELECT s.aggregate_id::text COLLATE "C" AS stream, s.event_sequence_number::bigint AS "position", s.aggregate_state::text AS state, %s AS taken_at FROM %s s '
      'WHERE s.aggregate_id::text COLLATE "C" OPERATOR(pg_catalog.>) $1 AND s.aggregate_state IS NOT NULL ORDER BY 1 LIMIT $2) m',
      evento._import_time(states, 'updated_at'), evento._import_name(states))
      INTO kept, last USING last, batch;
    EXIT WHEN kept IS NULL;
    PERFORM evento._import_snapshots(name, kept);
    COMMIT;
  END LOOP;

  EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s s WHERE s.event_sequence_number OPERATOR(pg_catalog.<=) $1', name) INTO total USING after;
  imported := evento._import_end(name, total);
END
$$;
COMMENT ON PROCEDURE import_evento(text, text, integer, bigint) IS
'Takes over the log of a Java Evento server: its tables es__events and es__snapshot (NULL: no snapshots), with positions, order, contexts and times, so that the positions which bundles have stored stay valid. Each batch of events is a transaction; a call that was broken off goes on where it stopped, and a later call brings what has come since. Gives how many events the import has brought in all. Progress is told by NOTICEs and in imports. An event gets the id that follows from its position; events the server had marked deleted are hidden. Times without zone are taken in the session''s TimeZone.
Runs with the rights of who calls, who needs SELECT on the tables. Raises 42P01, 55000 where somebody has appended to the log before, or where events came late, 22P02 for a message that is not JSON, and what else is wrong with an event, with its position.';

-- ---- message-db ----

CREATE PROCEDURE import_message_db(messages text DEFAULT 'message_store.messages', batch integer DEFAULT 10000, INOUT imported bigint DEFAULT NULL)
  LANGUAGE plpgsql AS $$
DECLARE
  source regclass := evento._import_source(messages);
  name text := evento._import_name(source);
  after bigint;
  total bigint;
  rows evento._imported_event[];
BEGIN
  IF batch IS NULL OR batch NOT BETWEEN 1 AND 100000 THEN
    RAISE EXCEPTION 'batch must be 1 to 100000, not %', batch USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT b.last_position, b.events INTO after, total FROM evento._import_begin(name, 'message-db') b;
  COMMIT;
  LOOP
    -- Its times are those of UTC, its versions begin at 0.
    EXECUTE pg_catalog.format('SELECT pg_catalog.array_agg(ROW(m.global_position, m.stream_name::text, m.position OPERATOR(pg_catalog.+) 1, m.id, m.type::text, ''default'', false, false, NULL, '
      'COALESCE(m.data::text, ''null'')::json, m.metadata::text::json, m.time AT TIME ZONE ''UTC'', m.time AT TIME ZONE ''UTC'', NULL)::evento._imported_event '
      'ORDER BY m.global_position) FROM (SELECT * FROM %s s WHERE s.global_position OPERATOR(pg_catalog.>) $1 ORDER BY s.global_position LIMIT $2) m', name)
      INTO rows USING after, batch;
    EXIT WHEN rows IS NULL;
    after := evento._import_events(name, rows);
    COMMIT;
    total := total + pg_catalog.cardinality(rows);
    RAISE NOTICE '% events of % imported, up to position %', total, name, after;
  END LOOP;
  EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s s WHERE s.global_position OPERATOR(pg_catalog.<=) $1', name) INTO total USING after;
  imported := evento._import_end(name, total);
END
$$;
COMMENT ON PROCEDURE import_message_db(text, integer, bigint) IS
'Takes over a message-db: its table messages, with ids, global positions as positions, positions in the stream as versions (from 1 instead of 0), and times. Batches, going on after a break, progress, rights and errors as with import_evento; V0001 where a stream of the source has a gap. A message without data becomes an event with the data null.';

GRANT SELECT ON imports TO evento_reader;
GRANT EXECUTE ON FUNCTION
  _import_begin(text, text), _import_events(text, _imported_event[]), _import_snapshots(text, _imported_snapshot[]), _import_end(text, bigint),
  _import_payload(text, text), _import_message(bigint, text, text, text, json, timestamptz, timestamptz), _import_state(text, bigint, json, timestamptz),
  _import_time(regclass, name), _import_source(text), _import_name(regclass)
  TO evento_admin;
GRANT USAGE ON TYPE _imported_event, _imported_snapshot TO evento_admin;
GRANT EXECUTE ON PROCEDURE import_evento(text, text, integer, bigint), import_message_db(text, integer, bigint) TO evento_admin;



-- ---------------------------------------------------------------------------
-- Statistics and diagnosis
-- ---------------------------------------------------------------------------

CREATE FUNCTION _stats(OUT since timestamptz, OUT next_position bigint, OUT reserved_position bigint, OUT committed_position bigint, OUT watermark bigint,
                       OUT waiting integer, OUT worker_pid integer, OUT worker_state text, OUT worker_since timestamptz, OUT worker_error text, OUT worker_error_at timestamptz,
                       OUT transactions bigint, OUT events bigint, OUT bytes bigint, OUT rolled_back bigint, OUT rolled_back_events bigint, OUT gaps bigint,
                       OUT appends bigint, OUT batches bigint, OUT repeats bigint, OUT conflicts bigint, OUT id_clashes bigint, OUT busy bigint, OUT refused bigint,
                       OUT heads_found bigint, OUT heads_missed bigint, OUT advances bigint, OUT row_writes bigint, OUT notifies bigint, OUT notifies_left_out bigint,
                       OUT waits bigint, OUT wait_wakeups bigint, OUT wait_timeouts bigint, OUT worker_starts bigint, OUT worker_errors bigint)
  LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'evento_stats';
COMMENT ON FUNCTION _stats(OUT timestamptz, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT integer, OUT integer, OUT text, OUT timestamptz, OUT text, OUT timestamptz, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint, OUT bigint) IS
'What the library counts of this database. Raises V0004 not preloaded.';

CREATE VIEW stats AS SELECT * FROM _stats();
COMMENT ON VIEW stats IS 'One row of counters and gauges of this database on this server, to scrape. Counters start at 0 when the database is first used after a start of the server (since), and only grow. A session adds what it counted when its transaction ends. On a standby the counters of appends stay 0. Raises V0004 not preloaded.';
COMMENT ON COLUMN stats.since IS 'When the counters started: the first use of this database after a start of the server, or after a crash.';
COMMENT ON COLUMN stats.next_position IS 'The next position that an append will get; NULL on a standby, and from a start to the first append.';
COMMENT ON COLUMN stats.reserved_position IS 'The last position that the sequence has reserved durably; NULL as next_position.';
COMMENT ON COLUMN stats.committed_position IS 'The watermark as it could be given out now: lower than next_position - 1 while transactions that append are in the middle of their commit (see appending); NULL as next_position.';
COMMENT ON COLUMN stats.watermark IS 'The watermark as it was given out; 0 before the worker has looked for the first time.';
COMMENT ON COLUMN stats.waiting IS 'Sessions that are in wait() now.';
COMMENT ON COLUMN stats.worker_pid IS 'Process id of the worker that publishes the watermark; NULL where none runs.';
COMMENT ON COLUMN stats.worker_state IS 'running, failing (its last turn ended with worker_error), starting, no place (max_worker_processes is used up), no connections (the database lets nobody in), kept off (a command like DROP DATABASE wants the database to itself), none (nobody asked for one).';
COMMENT ON COLUMN stats.worker_since IS 'When the worker was started; NULL where none runs.';
COMMENT ON COLUMN stats.worker_error IS 'The last error of the worker; NULL where there was none.';
COMMENT ON COLUMN stats.worker_error_at IS 'When that was.';
COMMENT ON COLUMN stats.transactions IS 'Counter: committed transactions that appended events.';
COMMENT ON COLUMN stats.events IS 'Counter: events that were committed.';
COMMENT ON COLUMN stats.bytes IS 'Counter: bytes of their rows, uncompressed.';
COMMENT ON COLUMN stats.rolled_back IS 'Counter: transactions that had appended events and were rolled back.';
COMMENT ON COLUMN stats.rolled_back_events IS 'Counter: the events of these.';
COMMENT ON COLUMN stats.gaps IS 'Counter: positions that these had taken already, which nobody uses.';
COMMENT ON COLUMN stats.appends IS 'Counter: appends asked for: calls of append and append_events, items of append_batch.';
COMMENT ON COLUMN stats.batches IS 'Counter: calls of append_batch.';
COMMENT ON COLUMN stats.repeats IS 'Counter: appends whose event ids were there already, which stored nothing.';
COMMENT ON COLUMN stats.conflicts IS 'Counter: appends refused with V0001 wrong expected version.';
COMMENT ON COLUMN stats.id_clashes IS 'Counter: appends refused with V0002 event id used for other content.';
COMMENT ON COLUMN stats.busy IS 'Counter: items of batches left out with 55P03 since their stream was busy.';
COMMENT ON COLUMN stats.refused IS 'Counter: appends refused for other reasons.';
COMMENT ON COLUMN stats.heads_found IS 'Counter: streams whose newest version was in the cache.';
COMMENT ON COLUMN stats.heads_missed IS 'Counter: streams that had to be looked up; raise evento.cached_streams where this grows as fast as heads_found.';
COMMENT ON COLUMN stats.advances IS 'Counter: times that the watermark was given out.';
COMMENT ON COLUMN stats.row_writes IS 'Counter: times that it was written into its row, for standbys: less often while old snapshots keep the rows versions.';
COMMENT ON COLUMN stats.notifies IS 'Counter: NOTIFYs sent.';
COMMENT ON COLUMN stats.notifies_left_out IS 'Counter: NOTIFYs not sent since the queue was more than half full.';
COMMENT ON COLUMN stats.waits IS 'Counter: calls of wait() that had to sleep.';
COMMENT ON COLUMN stats.wait_wakeups IS 'Counter: those that got what they waited for.';
COMMENT ON COLUMN stats.wait_timeouts IS 'Counter: those whose time was up.';
COMMENT ON COLUMN stats.worker_starts IS 'Counter: starts of the worker.';
COMMENT ON COLUMN stats.worker_errors IS 'Counter: turns of the worker that ended with an error.';

CREATE FUNCTION _library(OUT version text, OUT preloaded boolean, OUT databases integer)
  LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'evento_library';
COMMENT ON FUNCTION _library() IS 'Version of the library that is loaded, whether it was preloaded, and how many databases of evento.max_databases it knows (NULL without preload).';

CREATE FUNCTION jump_positions(reason text DEFAULT 'asked for by the administrator', OUT last_position bigint, OUT next_position bigint)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'evento_jump_positions';
COMMENT ON FUNCTION jump_positions(text) IS
'Leaves out evento.position_jump positions, and a thousandth of that for each second since positions jumped last, as a promotion or a restore does by itself: for what no server can tell, a base backup started without recovery.signal or a disk''s snapshot put back, where readers may have seen events that are lost. Call it before anything is appended there. Gives the last position from before and the first from now on, and records them with the reason for consumers and doctor(). Writers may run meanwhile. Where the transaction is rolled back the positions are left out all the same, without a record. Raises V0004, V0005, 22023 for an empty reason, 54000 where positions are used up.';

CREATE TYPE finding AS (
  severity text,
  subject  text,
  finding  text,
  advice   text
);
COMMENT ON TYPE finding IS 'One row of doctor().';

-- Each looks at one part of the whole.  They run with the owner's rights, so that evento_reader learns who is in the way,
-- and show no text of others' statements.
CREATE FUNCTION _doctor_library() RETURNS SETOF finding
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  l record;
  s record;
  installed text;
  available text;
  standby boolean := pg_is_in_recovery();
BEGIN
  SELECT * INTO l FROM _library();
  SELECT e.extversion INTO installed FROM pg_extension e WHERE e.extname = 'evento';
  SELECT a.default_version INTO available FROM pg_available_extensions a WHERE a.name = 'evento';
  IF NOT l.preloaded THEN
    RETURN NEXT ('error', 'library', 'The library is not preloaded: nothing can be appended, and the watermark does not move.',
                 'Add evento to shared_preload_libraries and restart the server.')::finding;
  END IF;
  IF available <> l.version THEN
    RETURN NEXT ('warning', 'library', format('The server runs library %s, %s is installed.', l.version, available), 'Restart the server.')::finding;
  END IF;
  IF installed <> l.version THEN
    RETURN NEXT ('warning', 'extension', format('This database has version %s of the extension, the library is %s.', installed, l.version),
                 CASE WHEN available = l.version THEN 'ALTER EXTENSION evento UPDATE' ELSE 'Restart the server, then ALTER EXTENSION evento UPDATE.' END)::finding;
  END IF;
  RETURN QUERY
    SELECT 'error', format('evento.%s', c.relname), format('Process %s (%s, %s) has the table locked (%s) since %s: whoever needs it waits.', b.pid, b.usename, b.application_name, k.mode, b.xact_start),
           format('End that transaction, or SELECT pg_terminate_backend(%s).', b.pid)
      FROM pg_locks k JOIN pg_class c ON c.oid = k.relation JOIN pg_stat_activity b ON b.pid = k.pid
     WHERE k.locktype = 'relation' AND k.granted AND k.mode IN ('AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')
       AND k.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       AND c.relnamespace = 'evento'::regnamespace AND c.relkind = 'r' AND k.pid <> pg_backend_pid() AND b.xact_start < clock_timestamp() - interval '2 seconds';
  IF NOT l.preloaded THEN
    RETURN;
  END IF;

  IF l.databases >= current_setting('evento.max_databases')::integer THEN
    RETURN NEXT ('warning', 'evento.max_databases', format('All of its %s places are taken: a further database cannot use evento.', l.databases),
                 'Raise evento.max_databases and restart the server, or drop databases that are not needed.')::finding;
  ELSIF l.databases > current_setting('evento.max_databases')::integer * 0.9 THEN
    RETURN NEXT ('info', 'evento.max_databases', format('%s of its %s places are taken.', l.databases, current_setting('evento.max_databases')),
                 'Raise evento.max_databases at the next restart.')::finding;
  END IF;

  SELECT * INTO s FROM _stats();
  IF s.worker_state = 'no place' THEN
    RETURN NEXT ('error', 'worker', 'No worker publishes the watermark: max_worker_processes leaves no place for it.',
                 format('Raise max_worker_processes, which is %s, and restart the server; or end other background workers. It is tried again every 5 seconds.', current_setting('max_worker_processes')))::finding;
  ELSIF s.worker_state = 'no connections' THEN
    RETURN NEXT ('error', 'worker', 'No worker publishes the watermark: this database lets nobody in.',
                 format('ALTER DATABASE %I ALLOW_CONNECTIONS true. The next append asks for a worker.', current_database()))::finding;
  ELSIF s.worker_state = 'kept off' THEN
    RETURN NEXT ('warning', 'worker', 'The worker is kept off by a command that wants the database to itself (DROP, RENAME, a copy, a move).',
                 'It comes back when that command ends, or after a minute.')::finding;
  ELSIF s.worker_state = 'failing' THEN
    RETURN NEXT ('error', 'worker', format('The worker cannot publish the watermark: %s (%s)', s.worker_error, s.worker_error_at),
                 'Mend what it says; it tries again at least every 30 seconds.')::finding;
  ELSIF s.worker_pid IS NULL THEN
    RETURN NEXT ('warning', 'worker', 'No worker runs in this database at the moment.',
                 'Ask again: the launcher starts one within seconds where the extension is used. If not, look into the server''s log.')::finding;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.backend_type = 'evento launcher') THEN
    RETURN NEXT ('warning', 'launcher', 'The launcher, which starts workers, does not run.',
                 'Ask again: the server starts it within 5 seconds. If not, max_worker_processes is used up.')::finding;
  END IF;
  RETURN QUERY
    SELECT 'error', 'worker', format('The worker waits for a lock that process %s (%s, %s) holds since %s.', b.pid, b.usename, b.application_name, b.xact_start),
           format('End that transaction, or SELECT pg_terminate_backend(%s).', b.pid)
      FROM unnest(pg_blocking_pids(s.worker_pid)) p (pid)
      JOIN pg_stat_activity b ON b.pid = p.pid;
END
$$;
COMMENT ON FUNCTION _doctor_library() IS 'For doctor(): library, launcher, worker.';

CREATE FUNCTION _doctor_watermark() RETURNS SETOF finding
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  s record;
  behind bigint;
  used double precision := pg_notification_queue_usage();
  seen bigint := (SELECT w.position FROM _watermark w);
BEGIN
  IF seen IS NULL THEN
    RETURN NEXT ('error', 'watermark', 'evento._watermark has no row.', 'The next append lets the worker make it anew; nobody but the worker should write there.')::finding;
  END IF;
  SELECT * INTO s FROM _stats();
  -- Only who has been at it for a while; a busy log always has some.
  RETURN QUERY
    SELECT CASE WHEN c.age > interval '30 seconds' THEN 'error' ELSE 'warning' END, 'watermark',
           format('Process %s (%s, %s) has been committing an append for %s, from position %s on: readers stop there.%s', a.pid, c.usename, c.application_name,
                  date_trunc('second', c.age), a.first_position,
                  CASE WHEN c.wait_event IS NOT NULL THEN format(' It waits for %s.', c.wait_event) ELSE '' END),
           CASE WHEN c.wait_event = 'SyncRep' THEN format('A synchronous standby is missing: bring one of synchronous_standby_names (%s) back, or change that setting and reload.', current_setting('synchronous_standby_names'))
                WHEN b.pids <> '{}' THEN format('It waits for a lock of process %s.', array_to_string(b.pids, ', '))
                ELSE 'SELECT * FROM evento.appending' END
      FROM _appending() a
      JOIN (SELECT p.*, clock_timestamp() - COALESCE(p.state_change, p.xact_start) AS age FROM pg_stat_activity p) c ON c.pid = a.pid
     CROSS JOIN LATERAL (SELECT pg_blocking_pids(a.pid) AS pids) b
     WHERE c.age > interval '2 seconds'
     ORDER BY a.first_position
     LIMIT 20;
  behind := s.committed_position - s.watermark;
  IF behind > 100000 THEN
    RETURN NEXT ('warning', 'watermark', format('The worker is %s positions behind what is committed.', behind), 'Ask again. If it stays, see the worker, and whether the server has a processor to spare.')::finding;
  END IF;
  IF used > 0.25 THEN
    RETURN QUERY
      SELECT CASE WHEN used > 0.5 THEN 'warning' ELSE 'info' END, 'notifications',
             format('The notification queue is %s %% full.%s', round((used * 100)::numeric), CASE WHEN used > 0.5 THEN ' evento sends none until it is below half; wait() is not affected.' ELSE '' END),
             COALESCE('A session that LISTENs has been in a transaction for long. The oldest: process ' || (
               SELECT format('%s (%s, %s) since %s.', p.pid, p.usename, p.application_name, p.xact_start)
                 FROM pg_stat_activity p WHERE p.xact_start IS NOT NULL AND p.backend_type = 'client backend' AND p.pid <> pg_backend_pid() ORDER BY p.xact_start LIMIT 1),
               'A session that LISTENs does not read: end it.');
  END IF;
END
$$;
COMMENT ON FUNCTION _doctor_watermark() IS 'For doctor(): who holds the watermark back.';

CREATE FUNCTION _doctor_old_snapshots() RETURNS SETOF finding
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  size bigint := pg_relation_size('evento._watermark');
BEGIN
  -- The oldest of each kind that has been there for a while.
  RETURN QUERY
    (SELECT 'info', 'old snapshot', format('Process %s (%s, %s) has held a snapshot since %s: versions of rows that it may see are kept, evento._watermark grows (%s).',
                                           p.pid, p.usename, p.application_name, p.xact_start, pg_size_pretty(size)),
            'Reads and writes on this server are not slower by that, standbys may be half a second behind. End the transaction if nobody needs it.'
       FROM pg_stat_activity p
      WHERE p.backend_xmin IS NOT NULL AND p.pid <> pg_backend_pid() AND p.xact_start < clock_timestamp() - interval '10 minutes'
      ORDER BY age(p.backend_xmin) DESC LIMIT 1)
    UNION ALL
    (SELECT 'warning', 'prepared transaction', format('The prepared transaction %s of %s is there since %s: versions of rows are kept until it ends.', quote_literal(x.gid), x.owner, x.prepared),
            format('COMMIT PREPARED or ROLLBACK PREPARED %s, connected to %I.', quote_literal(x.gid), x.database)
       FROM pg_prepared_xacts x WHERE x.prepared < clock_timestamp() - interval '10 minutes'
      ORDER BY x.prepared LIMIT 1)
    UNION ALL
    (SELECT CASE WHEN r.xmin IS NOT NULL THEN 'info' ELSE 'warning' END, 'replication slot',
            format('The slot %s is not active%s%s.', r.slot_name,
                   CASE WHEN r.xmin IS NOT NULL THEN format(' and keeps versions of rows for %s transactions', age(r.xmin)) ELSE '' END,
                   CASE WHEN r.restart_lsn IS NOT NULL AND NOT pg_is_in_recovery() THEN format(' and keeps %s of WAL', pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), r.restart_lsn))) ELSE '' END),
            format('Where its consumer is gone: SELECT pg_drop_replication_slot(%L).', r.slot_name)
       FROM pg_replication_slots r
      WHERE NOT r.active AND NOT r.temporary
        AND (age(r.xmin) > 100000 OR (NOT pg_is_in_recovery() AND pg_wal_lsn_diff(pg_current_wal_lsn(), r.restart_lsn) > 1073741824))
      LIMIT 5);
  IF size > 16 * 1024 * 1024 THEN
    RETURN NEXT ('warning', 'evento._watermark', format('The table of one row takes %s.', pg_size_pretty(size)),
                 'Once no old snapshot is held: VACUUM (FULL) evento._watermark, which takes a moment.')::finding;
  END IF;
END
$$;
COMMENT ON FUNCTION _doctor_old_snapshots() IS 'For doctor(): who keeps versions of rows from being removed.';

CREATE FUNCTION _doctor_settings() RETURNS SETOF finding
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  streams integer := current_setting('evento.max_streams_per_transaction', true)::integer;
  locks bigint := current_setting('max_locks_per_transaction')::bigint * (current_setting('max_connections')::integer + current_setting('max_prepared_transactions')::integer);
BEGIN
  IF NOT current_setting('fsync')::boolean THEN
    RETURN NEXT ('error', 'fsync', 'fsync is off: a crash of the machine can destroy the log.', 'Set fsync = on and reload.')::finding;
  END IF;
  IF NOT current_setting('full_page_writes')::boolean THEN
    RETURN NEXT ('warning', 'full_page_writes', 'full_page_writes is off: a crash of the machine can leave torn pages.', 'Set full_page_writes = on and reload, unless the file system rules torn pages out.')::finding;
  END IF;
  IF streams > locks / 2 THEN
    RETURN NEXT ('warning', 'evento.max_streams_per_transaction',
                 format('One transaction may lock %s streams, the server''s lock table has places for about %s.', streams, locks),
                 'Raise max_locks_per_transaction and restart the server, or lower evento.max_streams_per_transaction.')::finding;
  END IF;
  RETURN QUERY
    SELECT 'info', 'synchronous_commit', format('synchronous_commit is %s for %s.', split_part(c.setting, '=', 2),
             concat_ws(' in ', CASE WHEN s.setrole <> 0 THEN 'role ' || pg_get_userbyid(s.setrole) END, CASE WHEN s.setdatabase <> 0 THEN 'database ' || d.datname END)),
           CASE WHEN split_part(c.setting, '=', 2) = 'off' THEN 'Transactions that append are flushed all the same; their other rows with them.'
                ELSE 'Their appends are not waited for on synchronous standbys as the server''s setting says.' END
      FROM pg_db_role_setting s
      LEFT JOIN pg_database d ON d.oid = s.setdatabase
     CROSS JOIN LATERAL unnest(s.setconfig) c (setting)
     WHERE c.setting ~ '^synchronous_commit=(off|local|remote_write)' AND (s.setdatabase = 0 OR d.datname = current_database());
  IF current_setting('synchronous_standby_names') <> '' AND current_setting('synchronous_commit') IN ('off', 'local') THEN
    RETURN NEXT ('warning', 'synchronous_commit', format('There are synchronous standbys, and synchronous_commit is %s: what is acknowledged may not have reached them.', current_setting('synchronous_commit')),
                 'Set synchronous_commit = on.')::finding;
  END IF;
  IF pg_is_in_recovery() THEN
    IF NOT current_setting('hot_standby_feedback')::boolean THEN
      RETURN NEXT ('warning', 'hot_standby_feedback', 'hot_standby_feedback is off: reads on this standby can be cancelled by cleanup on the primary.', 'Set hot_standby_feedback = on and reload.')::finding;
    END IF;
    RETURN QUERY
      SELECT 'warning', 'standby', format('Replay is behind: %s are received and not replayed, the last commit replayed is %s old.',
               pg_size_pretty(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())), date_trunc('second', clock_timestamp() - pg_last_xact_replay_timestamp())),
             CASE WHEN pg_is_wal_replay_paused() THEN 'Replay is paused: SELECT pg_wal_replay_resume().'
                  ELSE 'A long read here may stop it (max_standby_streaming_delay), or the machine is too slow.' END
       WHERE pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) > 0
         AND (clock_timestamp() - pg_last_xact_replay_timestamp() > interval '10 seconds' OR pg_is_wal_replay_paused());
    IF NOT EXISTS (SELECT FROM pg_stat_wal_receiver) AND current_setting('primary_conninfo') <> '' THEN
      RETURN NEXT ('warning', 'standby', 'This standby receives no WAL.', 'See its log: the primary may be down, or refuse the connection.')::finding;
    END IF;
  ELSE
    RETURN QUERY
      SELECT 'warning', 'standby', format('The standby %s (%s) is %s behind in replay.', r.application_name, COALESCE(r.client_addr::text, 'local'), r.replay_lag),
             'Its reads and waits are as far behind.'
        FROM pg_stat_replication r WHERE r.replay_lag > interval '10 seconds';
  END IF;
END
$$;
COMMENT ON FUNCTION _doctor_settings() IS 'For doctor(): settings of the server, standbys.';

CREATE FUNCTION _doctor_tables() RETURNS SETOF finding
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  old bigint;
BEGIN
  -- What was made for the tables that are written past the executor.
  RETURN QUERY
    SELECT 'warning', format('evento.%s', c.relname), format('The trigger %s does not fire: events are written past triggers.', quote_ident(t.tgname)),
           format('Read the events instead, by wait() and read_all(); then DROP TRIGGER %I ON evento.%I.', t.tgname, c.relname)
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     WHERE c.relnamespace = 'evento'::regnamespace AND c.relname IN ('_events', '_streams', '_watermark', '_snapshots') AND NOT t.tgisinternal
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass)
    UNION ALL
    SELECT 'warning', format('evento.%s', c.relname), format('The rule %s does not act on appends.', quote_ident(r.rulename)), format('DROP RULE %I ON evento.%I.', r.rulename, c.relname)
      FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
     WHERE c.relnamespace = 'evento'::regnamespace AND c.relkind = 'r'
    UNION ALL
    SELECT 'warning', format('evento.%s', c.relname), 'Row security does not hold appends back, and evento''s own functions read past it.', format('ALTER TABLE evento.%I DISABLE ROW LEVEL SECURITY; grant roles instead.', c.relname)
      FROM pg_class c WHERE c.relnamespace = 'evento'::regnamespace AND c.relrowsecurity
    UNION ALL
    SELECT 'warning', format('evento.%s', c.relname), format('The constraint %s is not checked for appends.', quote_ident(k.conname)), format('ALTER TABLE evento.%I DROP CONSTRAINT %I.', c.relname, k.conname)
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
     WHERE c.relnamespace = 'evento'::regnamespace AND c.relname IN ('_events', '_streams') AND k.contype IN ('c', 'f')
    UNION ALL
    SELECT 'error', format('evento.%s', c.relname), format('The column %s was added: appends fail.', quote_ident(a.attname)), format('ALTER TABLE evento.%I DROP COLUMN %I.', c.relname, a.attname)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
      JOIN (VALUES ('_events', 13), ('_streams', 5), ('_snapshots', 5), ('_watermark', 2), ('_identity', 4), ('_jumps', 4)) own (name, columns) ON own.name = c.relname
     WHERE c.relnamespace = 'evento'::regnamespace AND a.attnum > own.columns AND NOT a.attisdropped
    UNION ALL
    SELECT CASE WHEN n.relname IN ('_events_position', '_events_stream') THEN 'error' ELSE 'warning' END, format('evento.%s', n.relname),
           format('The index on evento.%s is not valid: it is still being built, or the build was cut off.', c.relname),
           format('If nobody is building it: REINDEX INDEX CONCURRENTLY evento.%I, or drop it.', n.relname)
      FROM pg_index i JOIN pg_class n ON n.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
     WHERE c.relnamespace = 'evento'::regnamespace AND NOT (i.indisvalid AND i.indisready)
    UNION ALL
    SELECT 'warning', format('evento.%s', c.relname), 'Autovacuum is off for this table.', format('ALTER TABLE evento.%I RESET (autovacuum_enabled).', c.relname)
      FROM pg_class c CROSS JOIN LATERAL pg_options_to_table(c.reloptions) o
     WHERE c.relnamespace = 'evento'::regnamespace AND o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean
    UNION ALL
    SELECT 'error', format('evento.%s', c.relname), 'The table is unlogged: a crash empties it.', format('ALTER TABLE evento.%I SET LOGGED.', c.relname)
      FROM pg_class c WHERE c.relnamespace = 'evento'::regnamespace AND c.relkind = 'r' AND c.relpersistence = 'u';
  IF NOT current_setting('autovacuum')::boolean THEN
    RETURN NEXT ('warning', 'autovacuum', 'Autovacuum is off.', 'Set autovacuum = on and reload.')::finding;
  END IF;
  old := age((SELECT c.relfrozenxid FROM pg_class c WHERE c.oid = 'evento._events'::regclass));
  IF old > 1000000000 THEN
    RETURN NEXT ('error', 'evento._events', format('It has not been frozen for %s transactions; at some 2,100,000,000 the server refuses to write.', old),
                 'VACUUM (FREEZE, VERBOSE) evento._events; see who holds old snapshots if that does not help.')::finding;
  END IF;
  IF to_regclass('evento.indexes') IS NOT NULL THEN
    RETURN QUERY EXECUTE $q$SELECT 'warning', 'evento.indexes', format('The index on %s was asked for and is not there, as after a restore.', i.what), 'CALL evento.create_index(NULL) makes all that miss.'
                              FROM evento.indexes i WHERE NOT i.present$q$;
  END IF;
END
$$;
COMMENT ON FUNCTION _doctor_tables() IS 'For doctor(): what was made of evento''s tables.';

CREATE FUNCTION _doctor_positions() RETURNS SETOF finding
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  used bigint := (SELECT p.last_value FROM _positions p);
BEGIN
  IF used > 4611686018427387904 THEN
    RETURN NEXT (CASE WHEN used > 9000000000000000000 THEN 'error' ELSE 'warning' END, 'positions', format('Position %s is near the end of bigint, 9223372036854775807.', used),
                 'Lower evento.position_jump if restores have used them up, and plan to import the log into a new database.')::finding;
  END IF;
  RETURN QUERY
    SELECT 'info', 'positions', format('On %s positions jumped from %s to %s: %s.', date_trunc('second', j.jumped_at), j.last_position, j.next_position, j.reason),
           'Consumers outside of this database with a checkpoint in between have read events that are lost: set them back to the first of these.'
      FROM _jumps j ORDER BY j.next_position DESC LIMIT 3;
  IF to_regclass('evento.consumers') IS NOT NULL THEN
    RETURN QUERY EXECUTE $q$SELECT 'error', format('consumer %s', c.consumer), format('Its checkpoint %s lies among positions that were left out: it has read events that are lost.', c.position),
                                   format('Undo what it made of events after %s, then %s.', j.last_position, CASE c.kind WHEN 'sql' THEN format('SELECT evento.consumer_reset(%L, %s)', c.consumer, j.last_position) ELSE format('set what its bundle has stored as its position to %s', j.last_position) END)
                              FROM evento.consumers c JOIN evento._jumps j ON c.position > j.last_position AND c.position < j.next_position - 1
                             UNION ALL
                            SELECT 'error', format('consumer %s', c.consumer), format('On %s it was at %s, among positions that were left out, and has gone on: it has read events that are lost.', date_trunc('second', l.seen_at), l.position),
                                   format('Undo what it made of events after %s, then SELECT evento.consumer_repaired(%L); or set what its bundle has stored as its position to %s.', j.last_position, c.consumer, j.last_position)
                              FROM evento.consumers c JOIN evento._lost_reads l ON l.bundle = c.bundle AND l.consumer = c.consumer
                              JOIN evento._jumps j ON l.position > j.last_position AND l.position < j.next_position - 1
                             WHERE c.position >= j.next_position - 1
                             UNION ALL
                            SELECT 'warning', format('consumer %s', c.consumer), format('It is %s events and %s s behind, and nobody has it.', c.lag_events, c.lag_seconds), CASE c.kind WHEN 'sql' THEN 'Start the process that claims it.' ELSE format('Start an instance of bundle %s.', c.bundle) END
                              FROM evento.consumers c WHERE NOT c.live AND c.lag_seconds > 60
                             UNION ALL
                            SELECT 'warning', format('consumer %s', c.consumer), format('It is %s events and %s s behind, and held by %s.', c.lag_events, c.lag_seconds, c.owner), 'See what that process does.'
                              FROM evento.consumers c WHERE c.live AND c.lag_seconds > 60
                             UNION ALL
                            SELECT 'warning', format('consumer %s', c.consumer), format('It could not handle %s events, as it said on %s.', c.dead_events, date_trunc('second', c.status_at)), format('CALL evento.consumer_dead_events(%L) says which and why.', c.consumer)
                              FROM evento.consumers c WHERE c.dead_events > 0$q$;
  END IF;
END
$$;
COMMENT ON FUNCTION _doctor_positions() IS 'For doctor(): positions, jumps, consumers.';

-- Compiled, its queries over few rows would take a second and more to get ready.
CREATE FUNCTION doctor() RETURNS SETOF finding
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp SET lock_timeout = '1s' SET jit = off AS $$
DECLARE
  preloaded boolean := (SELECT l.preloaded FROM _library() l);
  part text;
  more finding[];
  found finding[] := '{}';
BEGIN
  FOREACH part IN ARRAY ARRAY['library', 'watermark', 'old_snapshots', 'settings', 'tables', 'positions'] LOOP
    CONTINUE WHEN part = 'watermark' AND NOT preloaded;
    -- What one part cannot look at does not keep the others from it.
    BEGIN
      EXECUTE format('SELECT ARRAY(SELECT f FROM %I() f)', '_doctor_' || part) INTO more;
      found := found || more;
    EXCEPTION
      WHEN lock_not_available THEN
        NULL;  -- the part library says who has it locked
      WHEN OTHERS THEN
        found := found || ('error', replace(part, '_', ' '), format('It could not be looked at: %s (%s)', SQLERRM, SQLSTATE), 'Mend what it says, then ask again.')::finding;
    END;
  END LOOP;
  IF NOT EXISTS (SELECT FROM unnest(found) f WHERE f.severity IN ('error', 'warning')) THEN
    found := found || ('ok', 'evento', 'Nothing keeps consumers from moving.', NULL)::finding;
  END IF;
  RETURN QUERY
    SELECT f.* FROM unnest(found) f ORDER BY array_position(ARRAY['error', 'warning', 'info', 'ok'], f.severity), f.subject, f.finding;
END
$$;
COMMENT ON FUNCTION doctor() IS
'Says in words why consumers do not move and what else is wrong here, the worst first: severity (error, warning, info; ok where there is neither error nor warning), subject, finding, and advice what to do. Works on a standby and without preload. Names processes that are in the way, not what they run: see the view appending for that. A part that it cannot look at is a finding; it raises nothing and waits for no lock longer than a second.';

REVOKE ALL ON TYPE finding FROM PUBLIC;
GRANT USAGE ON TYPE finding TO evento_reader;
CREATE VIEW jumps AS
SELECT j.jumped_at, j.last_position, j.next_position, j.reason FROM _jumps j;
COMMENT ON VIEW jumps IS 'Where positions were left out, and why: after a promotion, a restore or a copy, or by jump_positions(). last_position is the highest that the log had then, next_position the lowest from then on. Who keeps a position outside of this database that is above last_position and below next_position - 1 has read events that are lost; events behind last_position in their place begin at next_position.';
GRANT SELECT ON stats, jumps TO evento_reader;
GRANT EXECUTE ON FUNCTION _stats(), _library(), doctor() TO evento_reader;
GRANT EXECUTE ON FUNCTION jump_positions(text) TO evento_admin;

-- ---------------------------------------------------------------------------
-- The cluster: proxies, the instances they hold, what these handle
-- ---------------------------------------------------------------------------

-- A parallel restore loads the rows of an extension's tables in any order.
ALTER TABLE _handlers DROP CONSTRAINT _handlers_bundle_bundle_version_fkey;

-- Where all tables are published, rows without it could not be changed.
ALTER TABLE _handlers REPLICA IDENTITY FULL;

CREATE FUNCTION _numbers_check() RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'evento_numbers_check_sql';
COMMENT ON FUNCTION _numbers_check() IS 'Before numbers of proxies and sessions are given: sees to it that they lie behind all that were given before a promotion, a restore or a copy, and that the commit waits for the disk.';

COMMENT ON SEQUENCE _proxies_proxy_id_seq IS 'Numbers of proxies, a new one at each registration, never one that another had.';
COMMENT ON SEQUENCE _sessions_seq IS 'Numbers of sessions: of two sessions of one instance the higher holds. Never one that another had.';

CREATE FUNCTION _proxy_stays(proxy_id bigint) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'evento_proxy_stays';
COMMENT ON FUNCTION _proxy_stays(bigint) IS 'This session is that proxy''s control connection: a lock that it holds to its end shows that the proxy is there.';

CREATE FUNCTION _proxy_gone(proxy_id bigint) RETURNS boolean
  LANGUAGE c VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'evento_proxy_gone';
COMMENT ON FUNCTION _proxy_gone(bigint) IS 'Whether a proxy has no control connection here. False in the first two seconds after a start or a promotion, in which proxies come back.';

CREATE OR REPLACE FUNCTION _proxy_register(name text, advertised text, internal text, http text, version text, replaces bigint DEFAULT NULL,
                                OUT proxy_id bigint, OUT secret bytea)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
BEGIN
  PERFORM _numbers_check();
  -- One who registers clears away what has been void for long, but waits for nobody's row but its own: two whose registrations
  -- a clock that jumped has made void would wait for each other.
  PERFORM FROM _proxies p WHERE p.proxy_id = replaces FOR UPDATE;
  DELETE FROM _proxies p
   WHERE p.proxy_id = ANY (ARRAY(SELECT v.proxy_id FROM _proxies v WHERE v.renewed_at < pg_catalog.clock_timestamp() - interval '1 hour'
                                    AND v.proxy_id IS DISTINCT FROM replaces FOR UPDATE SKIP LOCKED));
  INSERT INTO _proxies (name, advertised, internal, http, version)
    VALUES (_proxy_register.name, _proxy_register.advertised, _proxy_register.internal, _proxy_register.http, _proxy_register.version)
    RETURNING _proxies.proxy_id INTO _proxy_register.proxy_id;
  IF replaces IS NOT NULL THEN
    UPDATE _sessions s SET proxy_id = _proxy_register.proxy_id WHERE s.proxy_id = replaces;
    DELETE FROM _proxies p WHERE p.proxy_id = replaces;
    PERFORM pg_catalog.pg_notify('evento_lock', '');
  END IF;
  INSERT INTO _secret (secret)
    VALUES (pg_catalog.decode(pg_catalog.replace(pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text, '-', ''), 'hex'))
    ON CONFLICT DO NOTHING;
  SELECT s.secret INTO _proxy_register.secret FROM _secret s;
  PERFORM _proxy_stays(_proxy_register.proxy_id);
  PERFORM pg_catalog.pg_notify('evento_cluster', '');
END
$$;

CREATE OR REPLACE FUNCTION _proxy_renew(proxy_id bigint, load jsonb) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  renewed timestamptz;
BEGIN
  SELECT p.renewed_at INTO renewed FROM _proxies p WHERE p.proxy_id = _proxy_renew.proxy_id FOR UPDATE;
  -- A lease that ran out is not renewed: others may have taken its locks over.  The clock is read behind the wait for the row.
  IF NOT FOUND OR renewed <= pg_catalog.clock_timestamp() - interval '5 seconds' THEN
    RETURN false;
  END IF;
  UPDATE _proxies p SET renewed_at = pg_catalog.clock_timestamp(), load = _proxy_renew.load WHERE p.proxy_id = _proxy_renew.proxy_id;
  -- What was renewed in the future, before the clock was set back or on a primary whose clock was ahead, counts from now on: a proxy
  -- that is no more would keep its locks until then.
  UPDATE _proxies p SET renewed_at = pg_catalog.clock_timestamp()
   WHERE p.proxy_id = ANY (ARRAY(SELECT f.proxy_id FROM _proxies f WHERE f.renewed_at > pg_catalog.clock_timestamp() + interval '1 second' FOR UPDATE SKIP LOCKED));
  PERFORM _proxy_stays(_proxy_renew.proxy_id);
  RETURN true;
END
$$;
COMMENT ON FUNCTION _proxy_renew(bigint, jsonb) IS 'Renews a proxy''s registration for 5 s. To be called over its control connection: where that ends and no other renewal follows within a second, others may take its locks. False where it ran out or is gone: the proxy registers again. A registration of another whose time lies ahead of the clock runs out 5 s from now.';

CREATE OR REPLACE FUNCTION _lock_grant(name text) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  next bigint;
  owner bigint;
BEGIN
  -- Tickets of proxies that are void, and waiting ones past their time, count no more.
  DELETE FROM _locks l
   WHERE l.name = _lock_grant.name
     AND ((l.fence IS NULL AND l.deadline <= pg_catalog.clock_timestamp())
          OR NOT EXISTS (SELECT FROM _proxies p WHERE p.proxy_id = l.proxy_id
                            AND CASE WHEN p.renewed_at > pg_catalog.clock_timestamp() - interval '1 second' THEN true
                                     WHEN p.renewed_at > pg_catalog.clock_timestamp() - interval '5 seconds' THEN NOT _proxy_gone(p.proxy_id)
                                     ELSE false END));
  IF EXISTS (SELECT FROM _locks l WHERE l.name = _lock_grant.name AND l.fence IS NOT NULL) THEN
    RETURN;
  END IF;
  SELECT l.ticket, l.proxy_id INTO next, owner FROM _locks l WHERE l.name = _lock_grant.name ORDER BY l.ticket LIMIT 1;
  IF FOUND THEN
    UPDATE _locks l SET fence = pg_catalog.nextval('evento._tickets') WHERE l.name = _lock_grant.name AND l.ticket = next;
    PERFORM pg_catalog.pg_notify('evento_lock', owner::text || ' ' || next::text);
  END IF;
END
$$;
COMMENT ON FUNCTION _lock_grant(text) IS 'Hands a lock that nobody holds to the first ticket. The caller has its key. Tickets are void of a proxy that has not renewed for 5 s, and, where it has no control connection either, for 1 s.';

CREATE OR REPLACE FUNCTION _session_sync(proxy_id bigint, closed bigint[], numbers bigint[], bundles text[], instances text[], versions bigint[],
                              ages integer[], enabled boolean[], names text[], name_counts integer[])
  RETURNS SETOF bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  used integer := 0;
  own text[];
  no bigint;
  began timestamptz;
  given bigint[] := '{}';
BEGIN
  PERFORM _numbers_check();
  -- Under a registration that ran out nothing is begun that others would not see.
  IF NOT EXISTS (SELECT FROM _proxies p WHERE p.proxy_id = _session_sync.proxy_id
                    AND p.renewed_at > pg_catalog.clock_timestamp() - interval '5 seconds') THEN
    RAISE EXCEPTION 'proxy % is not registered', _session_sync.proxy_id USING ERRCODE = 'foreign_key_violation';
  END IF;
  DELETE FROM _sessions s WHERE s.session_no = ANY (closed) AND s.proxy_id = _session_sync.proxy_id;
  -- One at a time, so that numbers are given in the order in which the instances connected, whichever proxy asks first.
  IF 0 >= ANY (numbers) THEN
    LOCK TABLE _sessions IN SHARE UPDATE EXCLUSIVE MODE;
  END IF;
  FOR i IN 1 .. pg_catalog.cardinality(numbers) LOOP
    own := names[used + 1 : used + name_counts[i]];
    used := used + name_counts[i];
    no := NULL;
    began := pg_catalog.statement_timestamp() - ages[i] * interval '1 millisecond';
    IF numbers[i] <= 0 AND EXISTS (SELECT FROM _sessions n WHERE n.bundle = bundles[i] AND n.instance = instances[i]
                                      AND n.session_no > -numbers[i] AND n.connected_at > began) THEN
      NULL;  -- superseded before it was registered
    ELSIF numbers[i] <= 0 THEN
      INSERT INTO _sessions AS s (proxy_id, bundle, instance, bundle_version, enabled, names, connected_at)
        VALUES (_session_sync.proxy_id, bundles[i], instances[i], versions[i], _session_sync.enabled[i], own, began)
        RETURNING s.session_no INTO no;
    ELSE
      UPDATE _sessions s SET bundle_version = versions[i], enabled = _session_sync.enabled[i], names = own
       WHERE s.session_no = numbers[i] AND s.proxy_id = _session_sync.proxy_id
       RETURNING s.session_no INTO no;
    END IF;
    given := given || COALESCE(no, 0);
  END LOOP;
  -- The sessions that the new ones supersede.  They may be other proxies', and these may be doing the same to ours: this
  -- waits for nobody; one that is left is told apart by its lower number.
  DELETE FROM _sessions s
   WHERE s.session_no IN (
     SELECT o.session_no
       FROM ROWS FROM (pg_catalog.unnest(numbers), pg_catalog.unnest(bundles), pg_catalog.unnest(instances), pg_catalog.unnest(given))
              AS u (number, bundle, instance, given)
       JOIN _sessions o ON o.bundle = u.bundle AND o.instance = u.instance AND o.session_no < u.given
      WHERE u.number <= 0
        FOR UPDATE OF o SKIP LOCKED);
  PERFORM pg_catalog.pg_notify('evento_cluster', '');
  RETURN QUERY SELECT g FROM pg_catalog.unnest(given) WITH ORDINALITY AS t (g, i) ORDER BY i;
END
$$;

-- ---------------------------------------------------------------------------
-- What bundles tell of themselves while they work: handlers, consumers,
-- executors; and requests to their consumers.
-- ---------------------------------------------------------------------------

CREATE TABLE _handler_statistics (
  hour           timestamptz NOT NULL,
  bundle         text NOT NULL,
  bundle_version bigint NOT NULL,
  component      text NOT NULL,
  action         text NOT NULL,         -- the payload that is handled, or Class::method of an invoker
  handled        bigint NOT NULL,                   -- calls of which it was told what they invoked, be it nothing
  timed          bigint NOT NULL,                   -- calls of which a service time was told
  total_ms       bigint NOT NULL,
  max_ms         bigint NOT NULL,
  first_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  last_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (bundle, bundle_version, component, action, hour)
) WITH (fillfactor = 70);
CREATE INDEX _handler_statistics_hour ON _handler_statistics USING brin (hour);
COMMENT ON TABLE _handler_statistics IS 'Calls of handlers, as bundles told of them, summed by the hour and kept for a week.';

CREATE TABLE _invocation_statistics (
  hour           timestamptz NOT NULL,
  bundle         text NOT NULL,
  bundle_version bigint NOT NULL,
  component      text NOT NULL,
  action         text NOT NULL,
  invoked        text NOT NULL,         -- the command or query
  invocations    bigint NOT NULL,
  last_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (bundle, bundle_version, component, action, invoked, hour)
) WITH (fillfactor = 70);
CREATE INDEX _invocation_statistics_hour ON _invocation_statistics USING brin (hour);
COMMENT ON TABLE _invocation_statistics IS 'What handlers invoked, as bundles told of it, summed by the hour and kept for a week.';

CREATE TABLE _telemetry_sources (
  source    uuid NOT NULL PRIMARY KEY,              -- a process of a proxy
  number    bigint NOT NULL,
  stored_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE _telemetry_sources IS 'The number of the last statistics that each proxy''s process has stored: what is sent again is not added again.';

CREATE TABLE _bundle_consumers (
  bundle             text NOT NULL,
  consumer           text COLLATE "C" NOT NULL,
  instance           text NOT NULL,
  bundle_version     bigint NOT NULL,
  component          text,
  component_type     text,
  context            text COLLATE "C",
  position           bigint,                        -- its last fetch was for events behind it
  head               boolean,                       -- that fetch waits, with nothing left to give
  moved_at           timestamptz,                   -- when position changed last
  fetched_at         timestamptz,
  in_flight          bigint,
  submit_timeouts    bigint,
  transient_failures bigint,
  reported_at        timestamptz,                   -- of the three above
  status             jsonb,                         -- the newest answer to consumer_status, without the dead events
  dead_events        bigint,                        -- in that answer
  status_at          timestamptz,
  created_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (bundle, consumer, instance)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
CREATE INDEX _bundle_consumers_consumer ON _bundle_consumers (consumer);
COMMENT ON TABLE _bundle_consumers IS 'Consumers of bundles (projectors, sagas, observers; one a context) at each instance that has named them or fetched for them. The rows of instances that are gone are kept until another instance fetches for the consumer or a newer version of the bundle has come, for 30 days at most.';

CREATE TABLE _lost_reads (
  bundle   text NOT NULL,
  consumer text COLLATE "C" NOT NULL,
  position bigint NOT NULL,
  seen_at  timestamptz NOT NULL,
  PRIMARY KEY (bundle, consumer)
);
COMMENT ON TABLE _lost_reads IS 'Consumers of bundles that stood at a position among those that a failover or a restore left out, the highest, seen last at seen_at: they have read events that are lost. Kept when they go on, until they are set back before it or consumer_repaired is called.';

CREATE TABLE _executors (
  bundle         text NOT NULL,
  instance       text NOT NULL,
  executor       text NOT NULL,
  bundle_version bigint NOT NULL,
  capacity       bigint NOT NULL,
  in_flight      bigint NOT NULL,
  admitted       bigint NOT NULL,
  rejected       bigint NOT NULL,
  completed      bigint NOT NULL,
  failed         bigint NOT NULL,
  reported_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (bundle, instance, executor)
) WITH (fillfactor = 50);
COMMENT ON TABLE _executors IS 'Executors of consumers at each instance, as it told of them last.';

CREATE TABLE _asks (
  request_id     uuid NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
  consumer       text NOT NULL,
  bundle         text NOT NULL,
  instance       text NOT NULL,
  component_type text,
  action         text NOT NULL CHECK (action IN ('status', 'process', 'delete', 'retry')),
  position       bigint,
  retry          boolean,
  asked_by       name NOT NULL DEFAULT session_user,
  asked_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  deadline       timestamptz NOT NULL,
  reminded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  taken_at       timestamptz,
  proxy_id       bigint,
  answered_at    timestamptz,
  answer         jsonb,
  failed         boolean
);
COMMENT ON TABLE _asks IS 'Requests to consumers of bundles, and the answers. Rows go a minute after their deadline.';

-- What a view shows of an instance as connected: its newest session, at a live proxy.
CREATE FUNCTION _connected(bundle text, instance text) RETURNS boolean
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
  SELECT EXISTS (SELECT FROM _sessions s JOIN _proxies p USING (proxy_id)
                  WHERE s.bundle = _connected.bundle AND s.instance = _connected.instance
                    AND p.renewed_at > pg_catalog.clock_timestamp() - interval '5 seconds')
$$;
COMMENT ON FUNCTION _connected(text, text) IS 'Whether an instance of a bundle is connected to a live proxy.';

-- By the index in any case: where a snapshot that somebody holds keeps versions alive, the planner knows only of those that
-- live, and would rather sort all that it does not know of.
CREATE FUNCTION _checkpoint(consumer text) RETURNS SETOF _checkpoints
  LANGUAGE sql STABLE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, evento, pg_temp
  SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
  SELECT p.* FROM _checkpoints p WHERE p.consumer = _checkpoint.consumer ORDER BY p.change DESC LIMIT 1
$$;
COMMENT ON FUNCTION _checkpoint(text) IS 'Where a consumer in SQL stands; no row where it has never been claimed.';

-- ---- what proxies call ----

CREATE FUNCTION _telemetry(source uuid, number bigint, bundles text[], versions bigint[], components text[], actions text[], invoked text[],
                           counts bigint[], timed bigint[], totals bigint[], maxima bigint[]) RETURNS boolean
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
  at timestamptz := pg_catalog.clock_timestamp();
  this_hour timestamptz := pg_catalog.date_trunc('hour', at, 'UTC');
  before timestamptz;
BEGIN
  SELECT s.stored_at INTO before FROM _telemetry_sources s WHERE s.source = _telemetry.source;
  INSERT INTO _telemetry_sources AS s (source, number, stored_at) VALUES (_telemetry.source, _telemetry.number, at)
    ON CONFLICT ON CONSTRAINT _telemetry_sources_pkey DO UPDATE SET number = excluded.number, stored_at = excluded.stored_at
    WHERE s.number < excluded.number;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  -- In one order, so that proxies that add to the same rows wait for one another and no more.
  INSERT INTO _handler_statistics AS h (hour, bundle, bundle_version, component, action, handled, timed, total_ms, max_ms, first_at, last_at)
  SELECT this_hour, u.bundle, u.version, u.component, u.action, pg_catalog.sum(u.n), pg_catalog.sum(u.timed), pg_catalog.sum(u.total), pg_catalog.max(u.most), at, at
    FROM ROWS FROM (pg_catalog.unnest(bundles), pg_catalog.unnest(versions), pg_catalog.unnest(components), pg_catalog.unnest(actions),
                    pg_catalog.unnest(invoked), pg_catalog.unnest(counts), pg_catalog.unnest(timed), pg_catalog.unnest(totals), pg_catalog.unnest(maxima))
           AS u (bundle, version, component, action, invoked, n, timed, total, most)
   WHERE u.invoked = ''
   GROUP BY 2, 3, 4, 5
   ORDER BY u.bundle, u.version, u.component, u.action
    ON CONFLICT ON CONSTRAINT _handler_statistics_pkey DO UPDATE
      SET handled = h.handled + excluded.handled, timed = h.timed + excluded.timed, total_ms = h.total_ms + excluded.total_ms,
          max_ms = GREATEST(h.max_ms, excluded.max_ms), last_at = GREATEST(h.last_at, excluded.last_at);
  INSERT INTO _invocation_statistics AS i (hour, bundle, bundle_version, component, action, invoked, invocations, last_at)
  SELECT this_hour, u.bundle, u.version, u.component, u.action, u.invoked, pg_catalog.sum(u.n), at
    FROM ROWS FROM (pg_catalog.unnest(bundles), pg_catalog.unnest(versions), pg_catalog.unnest(components), pg_catalog.unnest(actions),
                    pg_catalog.unnest(invoked), pg_catalog.unnest(counts))
           AS u (bundle, version, component, action, invoked, n)
   WHERE u.invoked <> ''
   GROUP BY 2, 3, 4, 5, 6
   ORDER BY u.bundle, u.version, u.component, u.action, u.invoked
    ON CONFLICT ON CONSTRAINT _invocation_statistics_pkey DO UPDATE
      SET invocations = i.invocations + excluded.invocations, last_at = GREATEST(i.last_at, excluded.last_at);
  -- The first statement of a process, and of an hour, clears away what is old.
  IF before IS NULL OR before < this_hour THEN
    DELETE FROM _handler_statistics h WHERE h.hour < this_hour - interval '7 days';
    DELETE FROM _invocation_statistics i WHERE i.hour < this_hour - interval '7 days';
    DELETE FROM _telemetry_sources s WHERE s.source IN
      (SELECT o.source FROM _telemetry_sources o WHERE o.stored_at < at - interval '1 day' FOR UPDATE SKIP LOCKED);
  END IF;
  RETURN true;
END
$$;
COMMENT ON FUNCTION _telemetry(uuid, bigint, text[], bigint[], text[], text[], text[], bigint[], bigint[], bigint[], bigint[]) IS 'Adds what a proxy''s process has summed of handlers since it did so last: in the order of the arrays bundle, version, component and action; with an empty invoked how many calls were handled, of how many the service time is known, the sum of these and the longest, in milliseconds; else how often they invoked that command or query. False where its number was there already: nothing is added then. Raises 55P03 where others keep it from the rows for half a second.';

CREATE FUNCTION _reports(reports jsonb) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
  at timestamptz := pg_catalog.clock_timestamp();
BEGIN
  -- Who stood among positions that were left out has read what is lost, and goes on from there with the next event: it is kept.
  -- "leapt" is where it was before the widest step of those that this report does not name one by one.
  IF EXISTS (SELECT FROM _jumps) THEN
    DELETE FROM _lost_reads l
     USING pg_catalog.jsonb_to_recordset(reports) r (bundle text, consumer text COLLATE "C", position bigint), _jumps j
     WHERE l.bundle = r.bundle AND l.consumer = r.consumer AND j.last_position < l.position AND l.position < j.next_position - 1
       AND r.position <= j.last_position;
    INSERT INTO _lost_reads AS l (bundle, consumer, position, seen_at)
    SELECT r.bundle, r.consumer, pg_catalog.max(p.position), at
      FROM pg_catalog.jsonb_to_recordset(reports) r (bundle text, consumer text COLLATE "C", instance text, position bigint, leapt bigint)
      LEFT JOIN _bundle_consumers c ON c.bundle = r.bundle AND c.consumer = r.consumer AND c.instance = r.instance
     CROSS JOIN LATERAL (VALUES (r.position), (r.leapt), (CASE WHEN c.position < r.position THEN c.position END)) p (position)
      JOIN _jumps j ON j.last_position < p.position AND p.position < j.next_position - 1
     WHERE r.consumer IS NOT NULL AND r.position IS NOT NULL
     GROUP BY r.bundle, r.consumer
        ON CONFLICT ON CONSTRAINT _lost_reads_pkey DO UPDATE SET position = GREATEST(l.position, excluded.position), seen_at = excluded.seen_at;
  END IF;
  INSERT INTO _bundle_consumers AS c (bundle, consumer, instance, bundle_version, component, component_type, context, position, head, moved_at, fetched_at,
                                      in_flight, submit_timeouts, transient_failures, reported_at, created_at, seen_at)
  SELECT DISTINCT ON (r.bundle, r.consumer, r.instance)
         r.bundle, r.consumer, r.instance, r.version, r.component, r.component_type, r.context, r.position, r.head,
         CASE WHEN r.position IS NOT NULL THEN at END, CASE WHEN r.position IS NOT NULL THEN at END,
         r.in_flight, r.submit_timeouts, r.transient_failures, CASE WHEN r.in_flight IS NOT NULL THEN at END, at, at
    FROM pg_catalog.jsonb_to_recordset(reports) r (bundle text, consumer text COLLATE "C", instance text, version bigint, component text, component_type text, context text,
                                                   position bigint, head boolean, in_flight bigint, submit_timeouts bigint, transient_failures bigint)
   WHERE r.consumer IS NOT NULL
   ORDER BY r.bundle, r.consumer, r.instance
    ON CONFLICT ON CONSTRAINT _bundle_consumers_pkey DO UPDATE
      SET bundle_version = excluded.bundle_version,
          component = COALESCE(excluded.component, c.component),
          component_type = COALESCE(excluded.component_type, c.component_type),
          context = COALESCE(excluded.context, c.context),
          moved_at = CASE WHEN excluded.position IS DISTINCT FROM c.position THEN COALESCE(excluded.moved_at, c.moved_at) ELSE c.moved_at END,
          position = COALESCE(excluded.position, c.position),
          head = COALESCE(excluded.head, c.head),
          fetched_at = COALESCE(excluded.fetched_at, c.fetched_at),
          in_flight = COALESCE(excluded.in_flight, c.in_flight),
          submit_timeouts = COALESCE(excluded.submit_timeouts, c.submit_timeouts),
          transient_failures = COALESCE(excluded.transient_failures, c.transient_failures),
          reported_at = COALESCE(excluded.reported_at, c.reported_at),
          seen_at = at;
  -- An instance that is gone is of no more interest where another goes on with its consumer.
  DELETE FROM _bundle_consumers c
   USING pg_catalog.jsonb_to_recordset(reports) r (bundle text, consumer text COLLATE "C", instance text, position bigint)
   WHERE r.position IS NOT NULL AND c.bundle = r.bundle AND c.consumer = r.consumer AND c.instance <> r.instance
     AND NOT _connected(c.bundle, c.instance);
  -- Nor are the consumers of a version that a newer one has taken the place of.
  DELETE FROM _bundle_consumers c
   USING (SELECT r.bundle, pg_catalog.max(r.version) AS version
            FROM pg_catalog.jsonb_to_recordset(reports) r (bundle text, consumer text, version bigint) WHERE r.consumer IS NOT NULL GROUP BY r.bundle) r
   WHERE c.bundle = r.bundle AND c.bundle_version < r.version
     AND NOT _connected(c.bundle, c.instance);
  INSERT INTO _executors AS e (bundle, instance, executor, bundle_version, capacity, in_flight, admitted, rejected, completed, failed, reported_at)
  SELECT DISTINCT ON (r.bundle, r.instance, r.executor)
         r.bundle, r.instance, r.executor, r.version, r.capacity, r.in_flight, r.admitted, r.rejected, r.completed, r.failed, at
    FROM pg_catalog.jsonb_to_recordset(reports) r (bundle text, instance text, executor text, version bigint, capacity bigint, in_flight bigint, admitted bigint,
                                                   rejected bigint, completed bigint, failed bigint)
   WHERE r.executor IS NOT NULL
   ORDER BY r.bundle, r.instance, r.executor
    ON CONFLICT ON CONSTRAINT _executors_pkey DO UPDATE
      SET bundle_version = excluded.bundle_version, capacity = excluded.capacity, in_flight = excluded.in_flight, admitted = excluded.admitted,
          rejected = excluded.rejected, completed = excluded.completed, failed = excluded.failed, reported_at = at;
  IF FOUND THEN
    DELETE FROM _executors e WHERE e.reported_at < at - interval '1 day';
  END IF;
  -- Some call in a thousand looks for what nobody mentions any more.
  IF pg_catalog.random() < 0.001 THEN
    DELETE FROM _bundle_consumers c WHERE c.seen_at < at - interval '30 days';
    DELETE FROM _lost_reads l WHERE NOT EXISTS (SELECT FROM _bundle_consumers c WHERE c.bundle = l.bundle AND c.consumer = l.consumer);
  END IF;
END
$$;
COMMENT ON FUNCTION _reports(jsonb) IS 'Notes how consumers and executors of bundles stand: an array of objects, those with "consumer" and those with "executor"; what an object lacks stays as it was. A consumer''s "leapt" is where it was before its widest step since the report before. Raises 55P03 where others keep it from the rows for half a second.';

CREATE FUNCTION _ask_take(proxy_id bigint, most bigint, OUT request_id uuid, OUT bundle text, OUT instance text, OUT action text, OUT consumer text,
                          OUT component_type text, OUT "position" bigint, OUT retry boolean, OUT timeout_ms bigint)
  RETURNS SETOF record
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp SET lock_timeout = '500ms' AS $$
  UPDATE _asks a SET taken_at = pg_catalog.clock_timestamp(), proxy_id = _ask_take.proxy_id
   WHERE a.request_id IN (
     SELECT w.request_id FROM _asks w
      WHERE w.taken_at IS NULL AND w.deadline > pg_catalog.clock_timestamp()
        AND (SELECT s.proxy_id FROM _sessions s WHERE s.bundle = w.bundle AND s.instance = w.instance ORDER BY s.session_no DESC LIMIT 1) = _ask_take.proxy_id
      ORDER BY w.asked_at LIMIT most
        FOR UPDATE OF w SKIP LOCKED)
   RETURNING a.request_id, a.bundle, a.instance, a.action, a.consumer, a.component_type, a.position, a.retry,
             GREATEST(1, EXTRACT(epoch FROM a.deadline - pg_catalog.clock_timestamp()) * 1000)::bigint
$$;
COMMENT ON FUNCTION _ask_take(bigint, bigint) IS 'Hands a proxy the requests to consumers of instances that it holds, each once, with the milliseconds in which an answer is of use.';

CREATE FUNCTION _ask_done(request_id uuid, answer jsonb, failed boolean) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
  a _asks;
BEGIN
  UPDATE _asks t SET answered_at = pg_catalog.clock_timestamp(), answer = _ask_done.answer, failed = _ask_done.failed
   WHERE t.request_id = _ask_done.request_id AND t.answered_at IS NULL
   RETURNING t.* INTO a;
  IF FOUND AND a.action = 'status' AND NOT a.failed THEN
    UPDATE _bundle_consumers c
       SET status = a.answer - 'deadEvents', status_at = a.answered_at,
           dead_events = CASE WHEN pg_catalog.jsonb_typeof(a.answer->'deadEvents') = 'array' THEN pg_catalog.jsonb_array_length(a.answer->'deadEvents') END
     WHERE c.bundle = a.bundle AND c.consumer = a.consumer AND c.instance = a.instance;
  END IF;
END
$$;
COMMENT ON FUNCTION _ask_done(uuid, jsonb, boolean) IS 'A proxy brings the answer to a request to a consumer; failed: it is an exception, with throwable and message.';

GRANT EXECUTE ON FUNCTION
  _telemetry(uuid, bigint, text[], bigint[], text[], text[], text[], bigint[], bigint[], bigint[], bigint[]), _reports(jsonb),
  _ask_take(bigint, bigint), _ask_done(uuid, jsonb, boolean)
  TO evento_proxy;
GRANT EXECUTE ON FUNCTION _connected(text, text) TO evento_reader;
GRANT EXECUTE ON FUNCTION _checkpoint(text) TO evento_reader;

-- ---- views ----

CREATE VIEW handler_history AS
SELECT s.hour, s.bundle, s.bundle_version AS version, h.component_type, s.component, h.handler_type, s.action, GREATEST(s.handled, s.timed) AS handled,
       pg_catalog.round(s.total_ms::numeric / NULLIF(s.timed, 0), 3) AS mean_ms, CASE WHEN s.timed > 0 THEN s.max_ms END AS max_ms, s.total_ms, s.timed, s.first_at, s.last_at
  FROM _handler_statistics s
  LEFT JOIN LATERAL (SELECT d.component_type, d.handler_type FROM _handlers d
                      WHERE d.bundle = s.bundle AND d.bundle_version = s.bundle_version AND d.component = s.component AND d.payload = s.action
                      ORDER BY d.handler_type = 'EventSourcingHandler' LIMIT 1) h ON true;
COMMENT ON VIEW handler_history IS 'What the handlers of bundles did in each hour of the last week: how many calls they handled, and their service times in milliseconds (mean, longest, sum) where bundles told of these (timed: of how many; of events and invokers, not of commands and queries); a bundle that tells of a part of its calls only (its performance rate) counts with these. action is the payload that is handled, or the method of an invoker; component_type and handler_type are NULL where discovery did not name the handler. A few seconds late.';

CREATE VIEW handler_statistics AS
SELECT h.bundle, h.version, h.component_type, h.component, h.handler_type, h.action,
       pg_catalog.sum(h.handled)::bigint AS handled,
       pg_catalog.round(pg_catalog.sum(h.total_ms) / NULLIF(pg_catalog.sum(h.timed), 0), 3) AS mean_ms,
       pg_catalog.max(h.max_ms) AS max_ms,
       pg_catalog.sum(h.total_ms)::bigint AS total_ms,
       pg_catalog.sum(h.timed)::bigint AS timed,
       pg_catalog.min(h.first_at) AS first_at,
       pg_catalog.max(h.last_at) AS last_at
  FROM handler_history h
 GROUP BY h.bundle, h.version, h.component_type, h.component, h.handler_type, h.action;
COMMENT ON VIEW handler_statistics IS 'What the handlers of bundles did in the last week, a row a handler: the sum of handler_history.';

CREATE VIEW invocations AS
WITH declared AS (
  SELECT d.bundle, d.bundle_version, d.component_type, d.component, d.handler_type, d.payload, i.value AS invoked, k.kind,
         pg_catalog.array_agg(i.key::integer ORDER BY i.key::integer) FILTER (WHERE i.key ~ '^[0-9]{1,9}$') AS lines
    FROM _handlers d
   CROSS JOIN LATERAL (VALUES ('command', d.invoked_commands), ('query', d.invoked_queries)) k (kind, names)
   CROSS JOIN LATERAL pg_catalog.jsonb_each_text(k.names) i
   WHERE i.value IS NOT NULL
   GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
), measured AS (
  SELECT m.bundle, m.bundle_version, m.component, m.action, m.invoked, pg_catalog.sum(m.invocations)::bigint AS invocations, pg_catalog.max(m.last_at) AS last_at
    FROM _invocation_statistics m
   GROUP BY 1, 2, 3, 4, 5
)
SELECT COALESCE(d.bundle, m.bundle) AS bundle, COALESCE(d.bundle_version, m.bundle_version) AS version, d.component_type,
       COALESCE(d.component, m.component) AS component, d.handler_type, COALESCE(d.payload, m.action) AS action,
       COALESCE(d.invoked, m.invoked) AS invoked, d.kind, d.lines, COALESCE(m.invocations, 0) AS invocations, m.last_at
  FROM declared d
  FULL JOIN measured m ON m.bundle = d.bundle AND m.bundle_version = d.bundle_version AND m.component = d.component
                      AND m.action = d.payload AND m.invoked = d.invoked;
COMMENT ON VIEW invocations IS 'Who invokes what: the handlers (bundle, version, component, action) and the commands and queries (kind) that they invoke, by the lines of their source in discovery, and how often they did in the last week, as bundles told. What discovery did not name has no kind and no lines; what was not invoked has 0.';

CREATE VIEW executors AS
SELECT e.bundle, e.bundle_version AS version, e.instance, e.executor, e.capacity, e.in_flight, e.admitted, e.rejected, e.completed, e.failed, e.reported_at
  FROM _executors e
 WHERE _connected(e.bundle, e.instance);
COMMENT ON VIEW executors IS 'Executors of consumers at the instances that are connected, with the counts (since the instance started) that it told last, at reported_at: capacity, what is in flight, admitted, rejected, completed, failed.';

CREATE VIEW consumers AS
WITH stands AS (
  SELECT c.name AS consumer, 'sql' COLLATE "C" AS kind, k.position, k.epoch, k.owner, k.lease_until,
         COALESCE(k.lease_until > pg_catalog.clock_timestamp(), false) AS live,
         c.context, c.types, c.categories, c.created_at, k.claimed_at, k.acked_at, k.owner_pid, k.application,
         NULL::text AS bundle, NULL::bigint AS version, NULL::text AS component_type, NULL::text AS component,
         CASE WHEN k.lease_until > pg_catalog.clock_timestamp() THEN 'running' ELSE 'stopped' END AS state,
         NULL::bigint AS instances, NULL::bigint AS dead_events, NULL::bigint AS in_flight, NULL::bigint AS submit_timeouts,
         NULL::bigint AS transient_failures, NULL::timestamptz AS reported_at, NULL::jsonb AS status, NULL::timestamptz AS status_at
    FROM _consumers c
   CROSS JOIN LATERAL _checkpoint(c.name) k
  UNION ALL
  -- Named as above: left to itself, one release's pg_dump writes other names than another's.
  SELECT b.consumer, 'bundle' AS kind, f.position, NULL AS epoch, f.instance AS owner, NULL AS lease_until, n.instances > 0 AS live,
         f.context, NULL AS types, NULL AS categories, n.created_at, NULL AS claimed_at, f.moved_at AS acked_at, NULL AS owner_pid, NULL AS application,
         b.bundle, f.bundle_version AS version, n.component_type, f.component,
         CASE WHEN n.instances = 0 THEN 'stopped'
              WHEN t.status->'inError' = 'true' OR t.status->'isInError' = 'true' THEN 'error'
              WHEN t.status->'enabled' = 'false' THEN 'disabled'
              WHEN f.position IS NULL THEN 'starting'
              WHEN f.head THEN 'waiting'
              ELSE 'running' END AS state,
         n.instances, t.dead_events, r.in_flight, r.submit_timeouts, r.transient_failures, r.reported_at, t.status, t.status_at
    FROM (SELECT DISTINCT x.bundle, x.consumer FROM _bundle_consumers x) b
   CROSS JOIN LATERAL (SELECT pg_catalog.count(*) FILTER (WHERE _connected(x.bundle, x.instance)) AS instances,
                              pg_catalog.min(x.created_at) AS created_at, pg_catalog.max(x.component_type) AS component_type
                         FROM _bundle_consumers x WHERE x.bundle = b.bundle AND x.consumer = b.consumer) n
   CROSS JOIN LATERAL (SELECT x.* FROM _bundle_consumers x WHERE x.bundle = b.bundle AND x.consumer = b.consumer
                        ORDER BY x.fetched_at DESC NULLS LAST, x.seen_at DESC, x.instance LIMIT 1) f
   CROSS JOIN LATERAL (SELECT x.* FROM _bundle_consumers x WHERE x.bundle = b.bundle AND x.consumer = b.consumer
                        ORDER BY x.status_at DESC NULLS LAST, x.instance LIMIT 1) t
   CROSS JOIN LATERAL (SELECT pg_catalog.sum(x.in_flight)::bigint AS in_flight, pg_catalog.sum(x.submit_timeouts)::bigint AS submit_timeouts,
                              pg_catalog.sum(x.transient_failures)::bigint AS transient_failures, pg_catalog.max(x.reported_at) AS reported_at
                         FROM _bundle_consumers x WHERE x.bundle = b.bundle AND x.consumer = b.consumer AND _connected(x.bundle, x.instance)) r
)
SELECT k.consumer, k.kind, k.position, k.epoch, k.owner, k.lease_until, k.live, k.context, k.types, k.categories,
       -- Counted as far as 10,000; beyond, positions count, without those that were jumped over.
       CASE WHEN k.position IS NOT NULL THEN
         b.events + CASE WHEN b.events < 10000 THEN 0 ELSE
           GREATEST(0, w.position - b.last -
             (SELECT COALESCE(pg_catalog.sum(LEAST(j.next_position - 1, w.position) - GREATEST(j.last_position, b.last)), 0)
                FROM _jumps j WHERE j.next_position - 1 > b.last AND j.last_position < w.position))::bigint END END AS lag_events,
       CASE WHEN k.position IS NOT NULL THEN
         COALESCE(pg_catalog.round(EXTRACT(epoch FROM GREATEST(pg_catalog.clock_timestamp() - o.recorded_at, '0')), 3), 0) END AS lag_seconds,
       k.created_at, k.claimed_at, k.acked_at,
       EXISTS (SELECT FROM _jumps j WHERE j.last_position < k.position AND k.position < j.next_position - 1)
         OR EXISTS (SELECT FROM _lost_reads l WHERE l.bundle = k.bundle AND l.consumer = k.consumer) AS lost_range,
       k.owner_pid, k.application,
       k.state, k.bundle, k.version, k.component_type, k.component, k.instances, k.dead_events, k.in_flight, k.submit_timeouts, k.transient_failures,
       k.reported_at, k.status, k.status_at
  FROM stands k
 CROSS JOIN (SELECT COALESCE(_watermark_seen(), 0) AS position) w
 CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS events, pg_catalog.max(n.position) AS last
                       FROM (SELECT e.position FROM _events e WHERE e.position > k.position ORDER BY e.position LIMIT 10000) n
                      WHERE n.position <= w.position) b
  LEFT JOIN LATERAL (SELECT e.position, e.recorded_at FROM _events e WHERE e.position > k.position ORDER BY e.position LIMIT 1) o
    ON o.position <= w.position;
COMMENT ON VIEW consumers IS 'Durable consumers, in SQL (kind sql) and of bundles (kind bundle: projectors, sagas and observers, one a context): where it stands (position), and how far it is behind the log, whatever its filter: lag_events (exact below 10,000, above that by positions, without those that were jumped over) and lag_seconds, the age of the oldest event it has yet to look at, 0 where there is none (both NULL where position is). lost_range: its position lies among those that a failover or a restore left out, so it may have read events that are lost; a bundle''s keeps that when it goes on, until it is set back or consumer_repaired is called. state: running; waiting (at the head of the log); stopped (nobody has it: no lease, or no instance of its bundle is connected); starting (a bundle''s that has not fetched yet); error and disabled, as the bundle said when it was asked last.
In SQL: owner and its lease (live: it runs), epoch, claimed_at, acked_at, owner_pid, application. Of bundles, some seconds late: owner is the instance that fetched last, instances how many are connected that have the consumer (live: some are), acked_at when it moved last; dead_events and status are what consumer_status was told last, at status_at; in_flight, submit_timeouts and transient_failures what bundles with executors tell of all instances, at reported_at.';

GRANT SELECT ON handler_history, handler_statistics, invocations, executors, consumers TO evento_reader;

CREATE FUNCTION consumer_repaired(consumer text) RETURNS boolean
  LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
BEGIN
  DELETE FROM _lost_reads l WHERE l.consumer = consumer_repaired.consumer;
  RETURN FOUND;
END
$$;
COMMENT ON FUNCTION consumer_repaired(text) IS
'Says that what a consumer of a bundle made of events that are lost was undone: lost_range of consumers and doctor() name it no more. True where it was named. One whose position lies among those left out still is named again with its next fetch; one in SQL is named by its position alone, and consumer_reset sets that.';
GRANT EXECUTE ON FUNCTION consumer_repaired(text) TO evento_admin;

-- ---- requests to consumers of bundles ----

-- A request has to be committed before a proxy sees it, so these are procedures, and the work that needs the tables is done
-- by functions that run as their owner: a procedure that does cannot commit, nor can one that pins search_path, so these
-- use nothing that is looked up in it.

CREATE PROCEDURE _on_its_own(what text)
  LANGUAGE c AS 'MODULE_PATHNAME', 'evento_on_its_own';
COMMENT ON PROCEDURE _on_its_own(text) IS 'Raises 25001 where what calls it cannot commit: inside a transaction block or a function, or under REPEATABLE READ. what: its name, for the message.';

CREATE FUNCTION _ask(action text, consumer text, instance text, "position" bigint, retry boolean, timeout interval) RETURNS uuid
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
  target record;
  request uuid;
BEGIN
  IF consumer IS NULL OR timeout IS NULL OR (action IN ('delete', 'retry') AND "position" IS NULL) OR (action = 'retry' AND retry IS NULL) THEN
    RAISE EXCEPTION 'consumer, position, retry and timeout must not be NULL' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF timeout <= interval '0' OR timeout > interval '10 minutes' THEN
    RAISE EXCEPTION 'timeout must be more than 0 and at most 10 minutes, not %', timeout USING ERRCODE = 'invalid_parameter_value';
  END IF;
  DELETE FROM _asks a WHERE a.request_id IN
    (SELECT o.request_id FROM _asks o WHERE o.deadline < pg_catalog.clock_timestamp() - interval '1 minute' FOR UPDATE SKIP LOCKED);
  SELECT c.bundle, c.instance, _connected(c.bundle, c.instance) AS connected,
         COALESCE(c.component_type, (SELECT x.component_type FROM _bundle_consumers x
                                      WHERE x.consumer = c.consumer AND x.bundle = c.bundle AND x.component_type IS NOT NULL LIMIT 1)) AS component_type
    INTO target
    FROM _bundle_consumers c
   WHERE c.consumer = _ask.consumer AND (_ask.instance IS NULL OR c.instance = _ask.instance)
   -- The instance that fetches has the consumer; where its dead events are kept is known to it alone.
   ORDER BY _connected(c.bundle, c.instance) DESC, c.fetched_at DESC NULLS LAST, c.seen_at DESC
   LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no consumer "%" of a bundle%', consumer, CASE WHEN instance IS NOT NULL THEN pg_catalog.format(' at an instance "%s"', instance) ELSE '' END
      USING ERRCODE = 'undefined_object', HINT = 'SELECT consumer FROM evento.consumers WHERE kind = ''bundle'' names those that there are.';
  ELSIF NOT target.connected THEN
    RAISE EXCEPTION 'no instance that has the consumer "%" is connected', consumer
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = pg_catalog.format('Its last one was "%s" of bundle "%s".', target.instance, target.bundle);
  ELSIF target.component_type IS NULL THEN
    RAISE EXCEPTION 'what kind of component has the consumer "%" is not known', consumer
      USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Its bundle has not registered it.';
  END IF;
  INSERT INTO _asks (consumer, bundle, instance, component_type, action, position, retry, deadline)
    VALUES (_ask.consumer, target.bundle, target.instance, target.component_type, _ask.action, _ask."position", _ask.retry, pg_catalog.clock_timestamp() + timeout)
    RETURNING request_id INTO request;
  PERFORM pg_catalog.pg_notify('evento_ask', '');
  RETURN request;
END
$$;
COMMENT ON FUNCTION _ask(text, text, text, bigint, boolean, interval) IS 'Leaves a request to a consumer of a bundle for the proxy that holds an instance of it, the one that fetched last where none is named. Gives its id. Raises 22023, 42704 where there is no such consumer, 55000 where no instance that has it is connected.';

CREATE FUNCTION _ask_answer(request_id uuid, dead_events boolean) RETURNS jsonb
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  a _asks;
  dead jsonb;
BEGIN
  SELECT * INTO a FROM _asks t WHERE t.request_id = _ask_answer.request_id;
  IF a.answered_at IS NOT NULL AND a.failed THEN
    RAISE EXCEPTION 'consumer "%": %', a.consumer, COALESCE(a.answer->>'message', a.answer->>'throwable')
      USING ERRCODE = 'external_routine_exception', DETAIL = pg_catalog.format('Instance "%s" of bundle "%s" answered with %s.', a.instance, a.bundle, a.answer->>'throwable');
  ELSIF a.answered_at IS NOT NULL AND pg_catalog.jsonb_typeof(a.answer) <> 'object' THEN
    RAISE EXCEPTION 'consumer "%": an answer that says nothing', a.consumer
      USING ERRCODE = 'external_routine_exception', DETAIL = pg_catalog.format('Instance "%s" of bundle "%s" answered with %s.', a.instance, a.bundle, a.answer);
  ELSIF a.answered_at IS NOT NULL THEN
    dead := CASE WHEN pg_catalog.jsonb_typeof(a.answer->'deadEvents') = 'array' THEN a.answer->'deadEvents' ELSE '[]' END;
    RETURN CASE WHEN a.action <> 'status' THEN COALESCE(a.answer->'success', 'false')
                WHEN dead_events THEN dead
                ELSE (a.answer - 'deadEvents') || pg_catalog.jsonb_build_object('deadEventCount', pg_catalog.jsonb_array_length(dead)) END;
  ELSIF a.request_id IS NULL OR a.deadline < pg_catalog.clock_timestamp() THEN
    IF a.taken_at IS NULL THEN
      RAISE EXCEPTION 'consumer "%": the request reached no proxy in time', a.consumer
        USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = pg_catalog.format('Instance "%s" of bundle "%s" was not asked.', a.instance, a.bundle);
    END IF;
    RAISE EXCEPTION 'consumer "%": no answer in time', a.consumer
      USING ERRCODE = 'statement_completion_unknown', DETAIL = pg_catalog.format('Instance "%s" of bundle "%s" was asked; whether it has done it is not known.', a.instance, a.bundle);
  ELSIF a.taken_at IS NULL AND a.reminded_at < pg_catalog.clock_timestamp() - interval '1 second' THEN
    -- The instance may have moved to another proxy, or that one may have missed it.
    UPDATE _asks t SET reminded_at = pg_catalog.clock_timestamp() WHERE t.request_id = _ask_answer.request_id;
    PERFORM pg_catalog.pg_notify('evento_ask', '');
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION _ask_answer(uuid, boolean) IS 'The answer to a request to a consumer, NULL as long as there is none: of a status the dead events, or what else it says and their number; of others whether it is done. Raises what a failure is: 38000 with what the instance said, 55000 where it was not reached in time, 40003 where it has not answered in time.';

CREATE PROCEDURE _ask_and_wait(what text, action text, consumer text, instance text, "position" bigint, retry boolean, timeout interval,
                               INOUT answer jsonb, dead_events boolean DEFAULT false)
  LANGUAGE plpgsql AS $$
DECLARE
  request pg_catalog.uuid;
  nap double precision := 0.005;
BEGIN
  CALL evento._on_its_own(what);
  request := evento._ask(action, consumer, instance, "position", retry, timeout);
  LOOP
    -- Each look has a snapshot of its own, and none is held in between.
    COMMIT;
    answer := evento._ask_answer(request, dead_events);
    EXIT WHEN answer IS NOT NULL;
    COMMIT;
    PERFORM pg_catalog.pg_sleep(nap);
    nap := LEAST(nap OPERATOR(pg_catalog.*) 1.5, 0.1);
  END LOOP;
END
$$;
COMMENT ON PROCEDURE _ask_and_wait(text, text, text, text, bigint, boolean, interval, jsonb, boolean) IS 'Asks a consumer of a bundle and waits for its answer. what: the procedure that does so, for messages.';

CREATE PROCEDURE consumer_status(consumer text, instance text DEFAULT NULL, timeout interval DEFAULT '10s', INOUT status jsonb DEFAULT NULL)
  LANGUAGE plpgsql AS $$
BEGIN
  CALL evento._ask_and_wait('evento.consumer_status()', 'status', consumer, instance, NULL, NULL, timeout, status);
END
$$;
COMMENT ON PROCEDURE consumer_status(text, text, interval, jsonb) IS
'Asks a bundle how a consumer of it (view consumers, kind bundle) stands, and gives what it answers: lastEventSequenceNumber, enabled, inError, errorCount, error and so on, and deadEventCount. It reaches the instance that fetched for the consumer last, or the one that is named, at whichever proxy. The view shows the answer from then on.
CALL it on its own: inside a transaction block or a function it is refused (25001). Raises 42704 where there is no such consumer, 55000 where no instance that has it is connected, or it could not be reached within the timeout, 40003 where it was asked and has not answered within the timeout, 38000 with its message where it fails, 22023.';

CREATE PROCEDURE consumer_dead_events(consumer text, instance text DEFAULT NULL, timeout interval DEFAULT '10s', INOUT dead_events jsonb DEFAULT NULL)
  LANGUAGE plpgsql AS $$
BEGIN
  CALL evento._ask_and_wait('evento.consumer_dead_events()', 'status', consumer, instance, NULL, NULL, timeout, dead_events, true);
END
$$;
COMMENT ON PROCEDURE consumer_dead_events(text, text, interval, jsonb) IS
'Gives the dead-letter queue of a consumer of a bundle, as the bundle answers: an array of the events that it could not handle, each with eventSequenceNumber (the position), eventName, aggregateId, retry (it is to be tried again), deadAt, exception and event. Takes and raises what consumer_status does.';

CREATE PROCEDURE consumer_retry_event(consumer text, "position" bigint, retry boolean DEFAULT true, instance text DEFAULT NULL, timeout interval DEFAULT '10s',
                                      INOUT success boolean DEFAULT NULL)
  LANGUAGE plpgsql AS $$
DECLARE
  answer pg_catalog.jsonb;
BEGIN
  CALL evento._ask_and_wait('evento.consumer_retry_event()', 'retry', consumer, instance, "position", retry, timeout, answer);
  success := answer::boolean;
END
$$;
COMMENT ON PROCEDURE consumer_retry_event(text, bigint, boolean, text, interval, boolean) IS
'Marks an event in the dead-letter queue of a consumer of a bundle to be tried again when the queue is processed, or (retry false) not. Takes and raises what consumer_status does.';

CREATE PROCEDURE consumer_delete_event(consumer text, "position" bigint, instance text DEFAULT NULL, timeout interval DEFAULT '10s',
                                       INOUT success boolean DEFAULT NULL)
  LANGUAGE plpgsql AS $$
DECLARE
  answer pg_catalog.jsonb;
BEGIN
  CALL evento._ask_and_wait('evento.consumer_delete_event()', 'delete', consumer, instance, "position", NULL, timeout, answer);
  success := answer::boolean;
END
$$;
COMMENT ON PROCEDURE consumer_delete_event(text, bigint, text, interval, boolean) IS
'Takes an event out of the dead-letter queue of a consumer of a bundle; the event itself stays in the log. Takes and raises what consumer_status does.';

CREATE PROCEDURE consumer_process_events(consumer text, instance text DEFAULT NULL, timeout interval DEFAULT '1min', INOUT success boolean DEFAULT NULL)
  LANGUAGE plpgsql AS $$
DECLARE
  answer pg_catalog.jsonb;
BEGIN
  CALL evento._ask_and_wait('evento.consumer_process_events()', 'process', consumer, instance, NULL, NULL, timeout, answer);
  success := answer::boolean;
END
$$;
COMMENT ON PROCEDURE consumer_process_events(text, text, interval, boolean) IS
'Lets a consumer of a bundle handle the events of its dead-letter queue that are marked to be tried again. Takes and raises what consumer_status does; after 40003 it may still be at it.';

GRANT EXECUTE ON FUNCTION _ask(text, text, text, bigint, boolean, interval), _ask_answer(uuid, boolean) TO evento_admin;
GRANT EXECUTE ON PROCEDURE
  _on_its_own(text), _ask_and_wait(text, text, text, text, bigint, boolean, interval, jsonb, boolean),
  consumer_status(text, text, interval, jsonb), consumer_dead_events(text, text, interval, jsonb),
  consumer_retry_event(text, bigint, boolean, text, interval, boolean), consumer_delete_event(text, bigint, text, interval, boolean),
  consumer_process_events(text, text, interval, boolean)
  TO evento_admin;

-- ---------------------------------------------------------------------------
-- Access: who may connect to the proxies
-- ---------------------------------------------------------------------------

CREATE TABLE _access_rules (
  rule_number integer NOT NULL PRIMARY KEY DEFERRABLE INITIALLY IMMEDIATE,
  address     cidr,                                 -- NULL: any
  bundle      text NOT NULL CHECK (octet_length(bundle) BETWEEN 1 AND 512),
  method      text NOT NULL CHECK (method IN ('trust', 'token', 'cert', 'reject'))
);
-- A key that can be deferred is none for a publication.
ALTER TABLE _access_rules REPLICA IDENTITY FULL;
COMMENT ON TABLE _access_rules IS 'Who may connect to the proxies, read in the order of the numbers, which have no gaps; the first rule that fits decides. No rule at all lets everybody in.';

CREATE TABLE _bundle_tokens (
  token_id     uuid NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
  hash         bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),  -- SHA-256 of the token's text
  bundle       text NOT NULL CHECK (octet_length(bundle) BETWEEN 1 AND 512),
  begins_with  text NOT NULL,
  expires_at   timestamptz,                         -- NULL: never
  may_register text[],                              -- NULL: anything
  may_send     text[],
  http         text NOT NULL CHECK (http IN ('none', 'read', 'write', 'admin')),
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  created_by   text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE _bundle_tokens IS 'Tokens by which bundles and HTTP clients are known, as hashes.';

SELECT pg_catalog.pg_extension_config_dump('_access_rules', '');
SELECT pg_catalog.pg_extension_config_dump('_bundle_tokens', '');

CREATE VIEW access_rules AS
SELECT r.rule_number, r.address, r.bundle, r.method FROM _access_rules r ORDER BY r.rule_number;
COMMENT ON VIEW access_rules IS 'Who may connect to the proxies: the first rule whose address range (NULL: any) and pattern of bundle (* stands for any characters) fit decides. Where there are rules and none fits, the bundle is rejected; where there is none at all, everybody is let in.';

CREATE VIEW bundle_tokens AS
SELECT t.token_id, t.bundle, t.begins_with, t.expires_at, t.expires_at <= pg_catalog.clock_timestamp() IS TRUE AS expired, t.may_register, t.may_send, t.http, t.created_at, t.created_by
  FROM _bundle_tokens t;
COMMENT ON VIEW bundle_tokens IS 'Tokens that were given out and not dropped: for which bundle, how the token begins, when it expires (NULL: never), the names it may register and send (NULL: any) and what it may do over HTTP (none, read, write, admin).';

CREATE FUNCTION add_access_rule(address cidr, bundle text, method text, rule_number integer DEFAULT NULL) RETURNS integer
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  rules integer;
BEGIN
  IF bundle IS NULL OR octet_length(bundle) NOT BETWEEN 1 AND 512 THEN
    RAISE EXCEPTION 'the pattern of bundles must be 1 to 512 bytes long' USING ERRCODE = 'invalid_parameter_value', HINT = '* fits every bundle.';
  END IF;
  IF method IS NULL OR method NOT IN ('trust', 'token', 'cert', 'reject') THEN
    RAISE EXCEPTION 'unknown method "%"', method USING ERRCODE = 'invalid_parameter_value', HINT = 'There are trust, token, cert and reject.';
  END IF;
  LOCK TABLE _access_rules IN SHARE ROW EXCLUSIVE MODE;
  SELECT count(*) INTO rules FROM _access_rules;
  IF rules >= 1000 THEN
    RAISE EXCEPTION 'there are 1000 access rules already' USING ERRCODE = 'program_limit_exceeded';
  END IF;
  IF add_access_rule.rule_number NOT BETWEEN 1 AND rules + 1 THEN
    RAISE EXCEPTION 'rule number % is out of range', add_access_rule.rule_number USING ERRCODE = 'invalid_parameter_value',
      DETAIL = format('There are %s rules.', rules);
  END IF;
  rule_number := COALESCE(add_access_rule.rule_number, rules + 1);
  UPDATE _access_rules r SET rule_number = r.rule_number + 1 WHERE r.rule_number >= add_access_rule.rule_number;
  INSERT INTO _access_rules (rule_number, address, bundle, method)
    VALUES (add_access_rule.rule_number, add_access_rule.address, add_access_rule.bundle, add_access_rule.method);
  PERFORM pg_notify('evento_access', '');
  RETURN rule_number;
END
$$;
COMMENT ON FUNCTION add_access_rule(cidr, text, text, integer) IS
'Adds a rule of who may connect to the proxies, in force at every proxy once the transaction commits: bundles from an address range (NULL: any), with an id that fits a pattern (* stands for any characters), are let in (trust), need a token made for them (token), need a TLS client certificate with their id as its common name or a DNS name (cert), or are refused (reject). The rules are read top down and the first that fits decides; once there is a rule, what fits none is refused. rule_number: where in the list; what is there and behind moves down; NULL: at the end. Gives the number. Connections that the rules let in no longer are closed. At most 1000 rules (54000).';

CREATE FUNCTION drop_access_rule(rule_number integer) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
BEGIN
  LOCK TABLE _access_rules IN SHARE ROW EXCLUSIVE MODE;
  DELETE FROM _access_rules r WHERE r.rule_number = drop_access_rule.rule_number;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no access rule %', rule_number USING ERRCODE = 'undefined_object';
  END IF;
  UPDATE _access_rules r SET rule_number = r.rule_number - 1 WHERE r.rule_number > drop_access_rule.rule_number;
  PERFORM pg_notify('evento_access', '');
END
$$;
COMMENT ON FUNCTION drop_access_rule(integer) IS 'Drops a rule of who may connect; those behind it move up. Raises 42704 where there is none of that number. Dropping the last one lets everybody in.';

CREATE FUNCTION create_bundle_token(bundle text, expires timestamptz DEFAULT NULL, may_register text[] DEFAULT NULL, may_send text[] DEFAULT NULL,
                                    http text DEFAULT 'none') RETURNS text
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
DECLARE
  token text;
  name text;
BEGIN
  IF bundle IS NULL OR octet_length(bundle) NOT BETWEEN 1 AND 512 THEN
    RAISE EXCEPTION 'the bundle''s id must be 1 to 512 bytes long' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF http IS NULL OR http NOT IN ('none', 'read', 'write', 'admin') THEN
    RAISE EXCEPTION 'unknown right over HTTP "%"', http USING ERRCODE = 'invalid_parameter_value', HINT = 'There are none, read, write and admin.';
  END IF;
  IF expires <= clock_timestamp() THEN
    RAISE EXCEPTION 'the token would have expired already' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF array_ndims(may_register) > 1 OR array_ndims(may_send) > 1 THEN
    RAISE EXCEPTION 'names that a token may register or send must be a list of one dimension' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF cardinality(may_register) > 1000 OR cardinality(may_send) > 1000 THEN
    RAISE EXCEPTION 'a token takes at most 1000 names' USING ERRCODE = 'program_limit_exceeded';
  END IF;
  FOREACH name IN ARRAY COALESCE(may_register, '{}') || COALESCE(may_send, '{}') LOOP
    IF name IS NULL OR octet_length(name) NOT BETWEEN 1 AND 512 THEN
      RAISE EXCEPTION 'a name that a token may register or send must be 1 to 512 bytes long' USING ERRCODE = 'invalid_parameter_value';
    END IF;
  END LOOP;
  LOCK TABLE _bundle_tokens IN SHARE ROW EXCLUSIVE MODE;
  IF (SELECT count(*) FROM _bundle_tokens) >= 10000 THEN
    RAISE EXCEPTION 'there are 10000 tokens already' USING ERRCODE = 'program_limit_exceeded', HINT = 'Drop those that have expired.';
  END IF;
  -- 366 bits of the server's strong random numbers, condensed to 256.
  token := 'evt_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex');
  INSERT INTO _bundle_tokens (hash, bundle, begins_with, expires_at, may_register, may_send, http)
    VALUES (sha256(convert_to(token, 'UTF8')), create_bundle_token.bundle, left(token, 12), expires, create_bundle_token.may_register,
            create_bundle_token.may_send, create_bundle_token.http);
  PERFORM pg_notify('evento_access', '');
  RETURN token;
END
$$;
COMMENT ON FUNCTION create_bundle_token(text, timestamptz, text[], text[], text) IS
'Makes a token for a bundle and gives it, this once: only its SHA-256 is stored. A connection that a rule of method token applies to has to send one that was made for its bundle. expires: when it and the connections made with it end (NULL: never). may_register, may_send: names of payloads that the bundle may handle and ask for (* stands for any characters; NULL: any). http: what the token may do as a bearer token over HTTP: none, read, write or admin. At most 10000 tokens (54000).';

CREATE FUNCTION drop_bundle_token(token_id uuid) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
BEGIN
  DELETE FROM _bundle_tokens t WHERE t.token_id = drop_bundle_token.token_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no token %', token_id USING ERRCODE = 'undefined_object';
  END IF;
  PERFORM pg_notify('evento_access', '');
END
$$;
COMMENT ON FUNCTION drop_bundle_token(uuid) IS 'Revokes a token (the view bundle_tokens has its id): it is of no use any more once the transaction commits, and the connections made with it are closed. Raises 42704 where there is none.';

CREATE FUNCTION _access(OUT rule_number integer, OUT address text, OUT bundle text, OUT method text, OUT hash bytea, OUT expires_in bigint,
                        OUT may_register text[], OUT may_send text[], OUT http text)
  RETURNS SETOF record
  LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, evento, pg_temp AS $$
  SELECT r.rule_number, r.address::text, r.bundle, r.method, NULL::bytea, NULL::bigint, NULL::text[], NULL::text[], NULL::text FROM _access_rules r
  UNION ALL
  SELECT NULL, NULL, t.bundle, NULL, t.hash,
         CASE WHEN isfinite(t.expires_at) THEN ceil(extract(epoch FROM t.expires_at - clock_timestamp()) * 1000)::bigint END, t.may_register, t.may_send, t.http
    FROM _bundle_tokens t WHERE t.expires_at IS NULL OR t.expires_at > clock_timestamp()
   ORDER BY 1
$$;
COMMENT ON FUNCTION _access() IS 'For proxies: the access rules in their order, then (rule_number NULL) the tokens that have not expired, with the milliseconds until they do (expires_in, NULL: never).';

REVOKE ALL ON FUNCTION add_access_rule(cidr, text, text, integer), drop_access_rule(integer), create_bundle_token(text, timestamptz, text[], text[], text),
  drop_bundle_token(uuid), _access() FROM PUBLIC;
GRANT SELECT ON access_rules, bundle_tokens TO evento_admin;
GRANT EXECUTE ON FUNCTION add_access_rule(cidr, text, text, integer), drop_access_rule(integer), create_bundle_token(text, timestamptz, text[], text[], text),
  drop_bundle_token(uuid) TO evento_admin;
GRANT EXECUTE ON FUNCTION _access() TO evento_proxy;

-- ---------------------------------------------------------------------------
-- Privileges: nothing for PUBLIC
-- ---------------------------------------------------------------------------

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA evento FROM PUBLIC;
REVOKE ALL ON ALL PROCEDURES IN SCHEMA evento FROM PUBLIC;
