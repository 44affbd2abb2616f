-- doctor.sql: what doctor() finds of tables, indexes, consumers and settings of
-- a database; test/tap has what concerns a server.
\ir helpers.psql
SELECT plan(30);

SELECT evento.append('s-1', 'T', '1') \gset
CALL evento.wait(NULL) \gset

-- Severities and subjects of what is found, without what the test's own server is guilty of.
CREATE FUNCTION pg_temp.found() RETURNS TABLE (severity text, subject text) LANGUAGE sql AS
$$ SELECT d.severity, d.subject FROM evento.doctor() d WHERE d.subject NOT IN ('fsync', 'full_page_writes', 'launcher', 'evento.max_databases') AND d.severity <> 'ok' $$;

SELECT columns_are('evento', 'finding', ARRAY['severity', 'subject', 'finding', 'advice']);
SELECT is_empty('SELECT * FROM pg_temp.found()', 'nothing');
SELECT is_empty($$SELECT * FROM evento.doctor() WHERE severity NOT IN ('ok', 'info', 'warning', 'error') OR finding IS NULL OR (advice IS NULL AND severity <> 'ok')$$, 'each with words');

-- ---- what was made of the tables ----

CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER mine AFTER INSERT ON evento._events FOR EACH ROW EXECUTE FUNCTION noted();
SELECT results_eq('SELECT * FROM pg_temp.found()', $$VALUES ('warning', 'evento._events')$$, 'a trigger that does not fire');
SELECT matches((SELECT finding FROM evento.doctor() WHERE subject = 'evento._events'), 'trigger mine does not fire');
DROP TRIGGER mine ON evento._events;

CREATE RULE mine AS ON DELETE TO evento._events DO INSTEAD NOTHING;
SELECT results_eq('SELECT * FROM pg_temp.found()', $$VALUES ('warning', 'evento._events')$$, 'a rule');
DROP RULE mine ON evento._events;

ALTER TABLE evento._streams ENABLE ROW LEVEL SECURITY;
SELECT results_eq('SELECT * FROM pg_temp.found()', $$VALUES ('warning', 'evento._streams')$$, 'row security');
ALTER TABLE evento._streams DISABLE ROW LEVEL SECURITY;

ALTER TABLE evento._events ADD CONSTRAINT "few words" CHECK (length(data::text) < 1000);
SELECT matches((SELECT finding || advice FROM evento.doctor() WHERE subject = 'evento._events'), 'constraint "few words" is not checked.*DROP CONSTRAINT "few words"', 'a constraint');
ALTER TABLE evento._events DROP CONSTRAINT "few words";

ALTER TABLE evento._events ADD COLUMN mine integer;
SELECT results_eq('SELECT * FROM pg_temp.found()', $$VALUES ('error', 'evento._events')$$, 'a column');
SELECT is((pg_temp.catch($$SELECT evento.append('s-1', 'T', '1')$$)).state, '55000', 'with which appends fail');
ALTER TABLE evento._events DROP COLUMN mine;
SELECT is_empty('SELECT * FROM pg_temp.found()', 'dropped again');

ALTER TABLE evento._streams SET (autovacuum_enabled = off);
SELECT results_eq('SELECT * FROM pg_temp.found()', $$VALUES ('warning', 'evento._streams')$$, 'autovacuum off for a table');
ALTER TABLE evento._streams RESET (autovacuum_enabled);

ALTER TABLE evento._snapshots SET UNLOGGED;
SELECT results_eq('SELECT * FROM pg_temp.found()', $$VALUES ('error', 'evento._snapshots')$$, 'a table that a crash empties');
ALTER TABLE evento._snapshots SET LOGGED;

CREATE INDEX mine ON evento._events (type);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'evento.mine'::regclass;
SELECT results_eq('SELECT * FROM pg_temp.found()', $$VALUES ('warning', 'evento.mine')$$, 'an index that is not valid');
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'evento._events_position'::regclass;
SELECT results_eq($$SELECT * FROM pg_temp.found() WHERE severity = 'error'$$, $$VALUES ('error', 'evento._events_position')$$, 'one of evento''s own');
SELECT is(severity, 'error', 'the worst comes first') FROM evento.doctor() LIMIT 1;
UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'evento._events_position'::regclass;
DROP INDEX evento.mine;

UPDATE pg_class SET relfrozenxid = ((txid_current() % 4294967296 - 1500000000 + 4294967296)::bigint % 4294967296)::text::xid WHERE oid = 'evento._events'::regclass;
SELECT matches((SELECT string_agg(severity || ' ' || finding, ' ') FROM evento.doctor() WHERE subject = 'evento._events'), '^error It has not been frozen for 1\d{9}', 'near a wraparound');
UPDATE pg_class SET relfrozenxid = (txid_current() % 4294967296)::text::xid WHERE oid = 'evento._events'::regclass;

-- ---- indexes that were asked for ----

INSERT INTO evento._indexes (what) VALUES ('type');
SELECT results_eq('SELECT * FROM pg_temp.found()', $$VALUES ('warning', 'evento.indexes')$$, 'an index that was asked for and is not there');
DELETE FROM evento._indexes;

-- ---- consumers ----

-- A slow server makes no consumer late: the event is of the future.
UPDATE evento._events SET recorded_at = clock_timestamp() + interval '1 hour' WHERE position = 1;
SELECT epoch FROM evento.consumer_claim('orders', '1 hour') \gset
SELECT is_empty('SELECT * FROM pg_temp.found()', 'a consumer that has just come');
UPDATE evento._events SET recorded_at = clock_timestamp() - interval '2 hours' WHERE position = 1;
SELECT matches((SELECT severity || finding FROM evento.doctor() WHERE subject = 'consumer orders'), 'warningIt is 1 events and 7\d\d\d\.\d+ s behind, and held by ', 'one that does not move');
SELECT evento.consumer_release('orders', :epoch) \gset
SELECT matches((SELECT severity || finding FROM evento.doctor() WHERE subject = 'consumer orders'), 'warningIt is 1 events .* behind, and nobody has it', 'one that nobody has');
UPDATE evento._events SET recorded_at = clock_timestamp() + interval '1 hour' WHERE position = 1;
SELECT is_empty($$SELECT * FROM pg_temp.found() WHERE severity <> 'info'$$, 'and as it was');

-- ---- positions and jumps ----

SELECT next_position AS next FROM evento.jump_positions('for this test') \gset
-- The worker follows; a warning says so meanwhile.
DO $$BEGIN WHILE (SELECT watermark < committed_position FROM evento.stats) LOOP PERFORM pg_sleep(0.01); END LOOP; END$$;
SELECT results_eq('SELECT * FROM pg_temp.found()', $$VALUES ('info', 'positions')$$, 'a jump');
SELECT matches((SELECT finding FROM evento.doctor() WHERE subject = 'positions'), 'jumped from 1 to ' || :'next' || ': for this test', 'with its reason');
UPDATE evento._checkpoints SET position = 5;
SELECT matches((SELECT severity || finding || advice FROM evento.doctor() WHERE subject = 'consumer orders'), 'errorIts checkpoint 5 lies among positions that were left out.*consumer_reset\(''orders'', 1\)', 'a consumer that has read what is lost');
SELECT evento.consumer_drop('orders') \gset
SELECT setval('evento._positions', 9100000000000000000) \gset
SELECT results_eq($$SELECT * FROM pg_temp.found() WHERE severity = 'error'$$, $$VALUES ('error', 'positions')$$, 'positions near their end');

-- ---- where it cannot look ----

ALTER TABLE evento._jumps RENAME TO _jumps_away;
SELECT matches((SELECT string_agg(severity || ' ' || subject || ' ' || finding, ' ') FROM evento.doctor() WHERE finding LIKE '%looked at%'), 'error positions It could not be looked at: .*42P01', 'is a finding');
ALTER TABLE evento._jumps_away RENAME TO _jumps;

-- ---- as a reader ----

CREATE ROLE doctor_reader IN ROLE evento_reader;
SET ROLE doctor_reader;
SELECT isnt_empty('SELECT * FROM evento.doctor()', 'a reader may ask');
SELECT is((pg_temp.catch('SELECT * FROM evento._doctor_tables()')).state, '42501', 'the whole only');
SELECT is((pg_temp.catch('SELECT evento.jump_positions()')).state, '42501', 'and not jump');
RESET ROLE;
DROP ROLE doctor_reader;
SELECT * FROM finish();
