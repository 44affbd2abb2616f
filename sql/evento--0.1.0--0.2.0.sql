/* sql/evento--0.1.0--0.2.0.sql: what version 0.2.0 has that 0.1.0 has not. */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION evento UPDATE" to load this file. \quit

-- ---------------------------------------------------------------------------
-- The log
-- ---------------------------------------------------------------------------

-- A publication of the table needs it for rows that are changed, as by an erasure.
ALTER TABLE _events REPLICA IDENTITY USING INDEX _events_position;



-- ---------------------------------------------------------------------------
-- Streams: the end of one, erasure, metadata
-- ---------------------------------------------------------------------------



-- ---------------------------------------------------------------------------
-- Indexes that users ask for, and keys of JSON
-- ---------------------------------------------------------------------------



-- ---------------------------------------------------------------------------
-- Consumers in SQL
-- ---------------------------------------------------------------------------



-- ---------------------------------------------------------------------------
-- Import from other event stores
-- ---------------------------------------------------------------------------



-- ---------------------------------------------------------------------------
-- Statistics and diagnosis
-- ---------------------------------------------------------------------------



-- ---------------------------------------------------------------------------
-- Privileges: nothing for PUBLIC
-- ---------------------------------------------------------------------------

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA evento FROM PUBLIC;
REVOKE ALL ON ALL PROCEDURES IN SCHEMA evento FROM PUBLIC;
