-- text.sql: text reads keys of JSON as #>> does, and raises nothing where that does.
\ir helpers.psql
SELECT plan(27);

SELECT is(evento.text('{"a":{"b":[1,2.50,"x"]}}', 'a', 'b', '1'), '2.50', 'a path; numbers as they were written');
SELECT is(evento.text('{"a":{"b":[1,2.50,"x"]}}', 'a', 'b', '-1'), 'x', 'from the end of an array');
SELECT is(evento.text('{"a":{"b":[1, 2]}}', 'a'), '{"b":[1, 2]}', 'an object as its JSON');
SELECT is(evento.text('{"a":[1, {"b":2}]}', 'a'), '[1, {"b":2}]', 'an array as its JSON');
SELECT is(evento.text('{"a":true}', 'a'), 'true', 'a word');
SELECT is(evento.text('{"a":null}', 'a'), NULL, 'null is NULL');
SELECT is(evento.text('{"a":"null"}', 'a'), 'null', 'a string is not');
SELECT is(evento.text('{"a":""}', 'a'), '', 'an empty string neither');
SELECT is(evento.text('{"a":1}', 'b'), NULL, 'nothing there');
SELECT is(evento.text('{"a":1}', 'a', 'b'), NULL, 'nothing below a number');
SELECT is(evento.text('{"a":1}', VARIADIC ARRAY['a', NULL]), NULL, 'a NULL in the path');
SELECT is(evento.text(NULL, 'a'), NULL, 'no JSON');
SELECT is(evento.text(' "x" ', VARIADIC '{}'), 'x', 'an empty path is the whole');
SELECT is(evento.text('{"a":1,"b":2,"a":3}', 'a'), '3', 'the last of equal keys');
SELECT is(evento.text('{"\u0061\"":1}', 'a"'), '1', 'a key with escapes');
SELECT is(evento.text('{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é"}', 'a'), E'"\\/\b\f\n\r\té😀é', 'escapes');

-- where ->> raises
SELECT is((SELECT state FROM pg_temp.catch($$SELECT '{"a":"x\u0000y"}'::json ->> 'a'$$)), '22P05', '->> raises at \u0000');
SELECT is(evento.text('{"a":"x\u0000y"}', 'a'), U&'x\FFFDy', 'text does not');
SELECT is(evento.text('{"\u0000":{"\u0000":1}, "a":"x"}', 'a'), 'x', 'nor where it is elsewhere');
SELECT is(evento.text('{"\u0000":1}', U&'\FFFD'), '1', 'a key with it can be asked for');
SELECT is(evento.text('{"a":"\ud83dx"}', 'a'), U&'\FFFDx', 'half a pair');
SELECT is(evento.text('{"a":"\ude00"}', 'a'), U&'\FFFD', 'the other half');
SELECT is(evento.text('{"a":"\ud83d\ud83d\ude00"}', 'a'), U&'\FFFD\+01F600', 'half a pair before a pair');
SELECT is(evento.text('{"a":"\ud83d\u0041"}', 'a'), U&'\FFFDA', 'half a pair before another escape');

-- long and deep
SELECT is(length(evento.text(('{"a":"' || repeat('\u00e9x', 500000) || '"}')::json, 'a')), 1000000, 'a long value');
SELECT is(evento.text((repeat('[', 2000) || '1' || repeat(']', 2000))::json, VARIADIC array_fill('0'::text, ARRAY[2000])), '1', 'a deep one');

-- against the operator, over values of all sorts
CREATE FUNCTION pg_temp.some_json(depth int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  k int := floor(random() * CASE WHEN depth <= 0 THEN 6 ELSE 10 END);
  r text;
  ws text := (ARRAY['', ' ', E'\n\t'])[1 + floor(random() * 3)];
BEGIN
  CASE
    WHEN k = 0 THEN r := 'null';
    WHEN k = 1 THEN r := 'true';
    WHEN k = 2 THEN r := (ARRAY['1.50', '-0', '1e5', '12'])[1 + floor(random() * 4)];
    WHEN k IN (3, 4) THEN r := (ARRAY['""', '"a\"b"', '"\\"', '"\u00e9\ud83d\ude00"', '"}{]["', '"plain"', '"é,:"'])[1 + floor(random() * 7)];
    WHEN k = 5 THEN r := (ARRAY['[]', '{}', '[ ]', '{ }'])[1 + floor(random() * 4)];
    WHEN k IN (6, 7, 8) THEN
      SELECT '{' || ws || COALESCE(string_agg('"' || (ARRAY['a', 'b', '\u0061', '0', '1', '-1', 'c d', '\"'])[1 + floor(random() * 8)] || '"' || ws || ':' || pg_temp.some_json(depth - 1), ws || ','), '') || ws || '}'
        INTO r FROM generate_series(1, floor(random() * 4)::int) n;
    ELSE
      SELECT '[' || ws || COALESCE(string_agg(pg_temp.some_json(depth - 1), ws || ',' || ws), '') || ws || ']' INTO r FROM generate_series(1, floor(random() * 4)::int) n;
  END CASE;
  RETURN ws || r || ws;
END
$$;
SELECT setseed(0.5) \gset
CREATE TEMP TABLE examples AS
SELECT j, p FROM (SELECT pg_temp.some_json(4)::json AS j FROM generate_series(1, 5000)) x,
  (VALUES (ARRAY['a']), (ARRAY['0']), (ARRAY['a', 'b']), (ARRAY['a', 'a', '1']), (ARRAY['-1', '0']), (ARRAY['b', '2']), (ARRAY['c d', '"']), (ARRAY['"', 'a']), (ARRAY[' 1']), (ARRAY['x'])) v (p);
SELECT is_empty('SELECT j, p, j #>> p, evento.text(j, VARIADIC p) FROM examples WHERE (j #>> p) IS DISTINCT FROM evento.text(j, VARIADIC p)', 'as #>> in everything else');
SELECT * FROM finish();
