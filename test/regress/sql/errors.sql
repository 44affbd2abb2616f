--
-- What errors say: message, DETAIL, HINT and SQLSTATE.
--
\set VERBOSITY verbose
\set SHOW_CONTEXT never
-- The place in the source is not part of what is promised.
CREATE FUNCTION pg_temp.says(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  state text; message text; detail text; hint text;
BEGIN
  EXECUTE statement;
  RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN concat_ws(E'\n', state || ': ' || message, 'DETAIL: ' || NULLIF(detail, ''), 'HINT: ' || NULLIF(hint, ''));
END
$$;
\pset format unaligned
\pset tuples_only on
SELECT evento.append('s-1', 'T', '1', id => '00000000-0000-0000-0000-000000000001');
SELECT pg_temp.says($$SELECT evento.append('s-1', 'T', '1', expected => 0)$$);
SELECT pg_temp.says($$SELECT evento.append('s-1', 'T', '1', expected => 5)$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', 'T', '1', expected => 5)$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', 'T', '1', expected => -4)$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', 'T', '1', expected => -1)$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', 'T', '1', expected => -2)$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', 'T', '1', expected => -9)$$);
SELECT pg_temp.says($$SELECT evento.append(NULL, 'T', '1', expected => 0)$$);
SELECT pg_temp.says($$SELECT evento.append('s-1', 'T', '2', id => '00000000-0000-0000-0000-000000000001')$$);
SELECT pg_temp.says($$SELECT evento.append('', 'T', '1')$$);
SELECT pg_temp.says($$SELECT evento.append(repeat('s', 513), 'T', '1')$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', '', '1')$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', 'T', NULL)$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', 'T', '1', context => '')$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', 'T', '1', kind => 'event')$$);
SELECT pg_temp.says($$SELECT evento.append('s-2', 'T', (repeat('[', 300) || repeat(']', 300))::json)$$);
SELECT pg_temp.says($$SELECT * FROM evento.append_batch('\x00')$$);
SELECT pg_temp.says($$SELECT * FROM evento.append_batch('\x455642310000000100000002')$$);
SELECT pg_temp.says($$SELECT * FROM evento.read_stream(NULL)$$);
SELECT pg_temp.says($$SELECT * FROM evento.read_stream('s-1', 0)$$);
SELECT pg_temp.says($$SELECT * FROM evento.read_all(-1)$$);
SELECT pg_temp.says($$SELECT * FROM evento.read_all(types => '{a,NULL}')$$);
SELECT pg_temp.says($$SELECT evento.save_snapshot('s-1', 9, '1')$$);
SELECT pg_temp.says($$SELECT evento.delete_stream('s-1', 9)$$);
SELECT pg_temp.says($$SELECT evento.delete_stream('s-2', 9)$$);
SELECT evento.tombstone_stream('s-4');
SELECT pg_temp.says($$SELECT evento.append('s-4', 'T', '1')$$);
SELECT pg_temp.says($$SELECT evento.delete_stream('s-4')$$);
SELECT pg_temp.says($$SELECT evento.tombstone_stream('s-4')$$);
SELECT pg_temp.says($$SELECT evento.save_snapshot('s-4', 1, '1')$$);
SELECT pg_temp.says($$SELECT evento.set_stream_metadata('s-4', '1')$$);
SELECT pg_temp.says($$SELECT evento.set_stream_metadata('s-1', '{', 0)$$);
SELECT pg_temp.says($$SELECT evento.set_stream_metadata('s-1', '{}', -1)$$);
SELECT pg_temp.says($$SELECT evento.set_stream_metadata('s-1', '{}', 2)$$);
SELECT pg_temp.says($$SELECT evento.set_stream_metadata('s-1', '{}') + evento.set_stream_metadata('s-1', '{}', 0)$$);
SELECT pg_temp.says($$SELECT evento.erase_stream('s-1', ' ')$$);
SELECT pg_temp.says($$SELECT evento.erase_stream('s-9', 'as she asked')$$);
SELECT pg_temp.says($$CALL evento.wait(NULL)$$);
BEGIN;
SELECT evento.append('s-3', 'T', '1');
SELECT pg_temp.says($$SELECT evento.erase_stream('s-3', 'as she asked')$$);
\set VERBOSITY sqlstate
PREPARE TRANSACTION 'two';
CALL evento.wait(NULL, '-1 s');
BEGIN;
CALL evento.wait(NULL);
ROLLBACK;
\set VERBOSITY default
SET default_transaction_isolation = 'repeatable read';
CALL evento.wait(NULL);
RESET default_transaction_isolation;
