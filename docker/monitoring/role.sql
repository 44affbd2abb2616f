-- role.sql
--   What a role needs to run queries.yml, and no more: it sees no event.
--
--   psql -d app -v role=monitor -f role.sql
--
--   Run it in each database that is watched, once the role exists; again is no
--   harm, and needed where the extension was made anew.
\set ON_ERROR_STOP on
BEGIN;
SET LOCAL client_min_messages = warning;
GRANT pg_monitor TO :"role";
GRANT USAGE ON SCHEMA evento TO :"role";
GRANT SELECT ON evento.stats, evento.appending, evento.consumers, evento.proxies TO :"role";
-- The views run these as who asks.
GRANT EXECUTE ON FUNCTION evento._stats(), evento._appending(), evento._watermark_seen(), evento._connected(text, text), evento._checkpoint(text), evento.doctor() TO :"role";
GRANT USAGE ON TYPE evento.finding TO :"role";
-- A query that waits for something is given up rather than joined by the next.
ALTER ROLE :"role" SET statement_timeout = '5s';
-- Short queries do not pay for being compiled.
ALTER ROLE :"role" SET jit = off;
COMMIT;
