-- consumers.sql: durable consumers: whose they are, where they stand, how far
-- they are behind.
\ir helpers.psql
SELECT no_plan();

SELECT evento.append('a-' || n % 3, CASE WHEN n % 5 = 0 THEN 'Rare' ELSE 'Often' END, to_json(n), context => CASE WHEN n > 15 THEN 'late' ELSE 'default' END) FROM generate_series(1, 20) n;
SELECT evento.append(NULL, 'Loose', '21', kind => 'service');
CALL evento.wait(NULL) \gset

-- ---- claim ----

SELECT is((SELECT count(*) FROM evento.consumers), 0::bigint, 'none at first');
SELECT epoch, position FROM evento.consumer_claim('c', '1 min') \gset
SELECT is(:position, 0, 'a new consumer stands at the beginning');
SELECT results_eq($$SELECT consumer, kind, position, live, context, types, categories, lag_events, lag_seconds > 0, acked_at, lost_range FROM evento.consumers$$,
  $$VALUES ('c' COLLATE "C", 'sql' COLLATE "C", 0::bigint, true, '*' COLLATE "C", NULL::text[], NULL::text[], 21::bigint, true, NULL::timestamptz, false)$$, 'consumers shows it');
SELECT is((SELECT owner || ' ' || owner_pid || ' ' || application FROM evento.consumers), session_user || ' ' || pg_backend_pid() || ' ' || current_setting('application_name'), 'and who has it');
SELECT is((SELECT epoch FROM evento.consumers), :epoch, 'with which epoch');
SELECT is((SELECT lease_until BETWEEN now() + '30 s' AND clock_timestamp() + '1 min' FROM evento.consumers), true, 'how long');
SELECT is_empty($$SELECT * FROM evento.consumer_claim('c', '1 min')$$, 'while the lease runs nobody else has it, of the same session neither');
SELECT is_empty($$SELECT * FROM evento.consumer_claim('c', '1 min', held => 7)$$, 'nor with an epoch that is not its own');
SELECT is_empty($$SELECT * FROM evento.consumer_claim('c', '1 min', types => '{X}')$$, 'nor with another filter');
SELECT lease_until AS lease FROM evento.consumers \gset
SELECT results_eq(format($$SELECT * FROM evento.consumer_claim('c', '2 min', held => %s)$$, :epoch), format('VALUES (%s::bigint, 0::bigint)', :epoch), 'its epoch renews it');
SELECT is((SELECT lease_until > :'lease'::timestamptz + '50 s' AND lease_until <= clock_timestamp() + '2 min' FROM evento.consumers), true, 'for the new time');

SELECT is((SELECT position FROM evento.consumer_claim('at the end', '0', start => NULL)), 21::bigint, 'another begins at the end');
SELECT is((SELECT position FROM evento.consumer_claim('amid', '0', start => 10)), 10::bigint, 'or amid');
SELECT is((SELECT position FROM evento.consumer_claim('amid', '0', start => 3)), 10::bigint, 'where it is there already start means nothing');
SELECT is((SELECT live FROM evento.consumers WHERE consumer = 'amid'), false, 'a ttl of 0 leaves no lease');
SELECT cmp_ok((SELECT epoch FROM evento.consumer_claim('amid', '0')), '>', (SELECT epoch FROM evento.consumers WHERE consumer = 'amid'), 'each take-over has a higher epoch');
SELECT is((SELECT count(*) FROM evento.consumers), 3::bigint, 'three of them');

SELECT is((SELECT state || ' ' || message FROM pg_temp.catch($$SELECT evento.consumer_claim('', '1 s')$$)), '22023 name of a consumer must have 1 to 255 bytes, not 0', 'no name');
SELECT is((SELECT state || ' ' || message FROM pg_temp.catch($$SELECT evento.consumer_claim(repeat('é', 128), '1 s')$$)), '22023 name of a consumer must have 1 to 255 bytes, not 256', 'a long name');
SELECT is((SELECT state || ' ' || message FROM pg_temp.catch($$SELECT evento.consumer_claim(NULL, '1 s')$$)), '22023 name of a consumer must not be NULL', 'NULL');
SELECT is((SELECT count(*) FROM evento.consumer_claim(repeat('x', 255), '0')), 1::bigint, '255 bytes do');
SELECT is((SELECT state || ' ' || message FROM pg_temp.catch($$SELECT evento.consumer_claim('x', NULL)$$)), '22023 ttl must be between 0 and 1 year, not NULL', 'ttl NULL');
SELECT is((SELECT state || ' ' || message FROM pg_temp.catch($$SELECT evento.consumer_claim('x', '-1 s')$$)), '22023 ttl must be between 0 and 1 year, not -00:00:01', 'ttl negative');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.consumer_claim('x', '2 years')$$)), '22023', 'ttl long');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.consumer_claim('x', '1 s', types => ARRAY['T', NULL])$$)), '22023', 'a filter with NULL in it');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.consumer_claim('x', '1 s', context => repeat('x', 513))$$)), '22023', 'a context too long');
SELECT is((SELECT state || ' ' || message || ' ' || detail FROM pg_temp.catch($$SELECT evento.consumer_claim('x', '1 s', start => 22)$$)), '22023 position 22 is not one that can have been read The log can be read up to 21.', 'start ahead of the log');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.consumer_claim('x', '1 s', start => -1)$$)), '22023', 'start below 0');
SELECT is((SELECT count(*) FROM evento.consumers WHERE consumer = 'x'), 0::bigint, 'none of these made one');

-- ---- fetch and ack ----

SELECT results_eq($$SELECT scanned, position, stream, version, type, kind, data::text FROM evento.consumer_fetch('c', 2)$$,
  $$VALUES (1::bigint, 1::bigint, 'a-1', 1::bigint, 'Often', 'domain', '1'), (2, 2, 'a-2', 1, 'Often', 'domain', '2'), (2, NULL, NULL, NULL, NULL, NULL, NULL)$$, 'fetch gives events and how far it looked');
SELECT is((SELECT count(*) FROM evento.consumer_fetch('c')), 22::bigint, '1,000 at most where nothing is said');
SELECT is((SELECT count(*) FROM evento.consumer_fetch('c', NULL)), 22::bigint, 'NULL: all');
SELECT is((SELECT count(*) FROM evento.consumer_fetch('c', 0)), 1::bigint, 'none for 0, but how far');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT * FROM evento.consumer_fetch('c', -1)$$)), '22023', 'not less');
SELECT results_eq($$SELECT state, message, hint FROM pg_temp.catch($q$SELECT * FROM evento.consumer_fetch('nobody')$q$)$$, $$VALUES ('42704', 'consumer "nobody" does not exist', 'consumer_claim makes it.')$$, 'one that is not there');
BEGIN;
SELECT is(evento.consumer_ack('c', 2, :epoch), true, 'ack moves the checkpoint');
SELECT is((SELECT min(position) FROM evento.consumer_fetch('c', 2)), 3::bigint, 'in the same transaction fetch goes on');
ROLLBACK;
SELECT is((SELECT min(position) FROM evento.consumer_fetch('c', 2)), 1::bigint, 'what was rolled back comes again');
SELECT is(evento.consumer_ack('c', 5, :epoch), true, 'it moves');
SELECT is((SELECT position FROM evento.consumers WHERE consumer = 'c'), 5::bigint, 'to where it was told');
SELECT is((SELECT acked_at BETWEEN claimed_at AND clock_timestamp() FROM evento.consumers WHERE consumer = 'c'), true, 'acked_at says when');
SELECT is((SELECT lag_events FROM evento.consumers WHERE consumer = 'c'), 16::bigint, 'the lag shrinks');
SELECT ctid AS at FROM evento._checkpoints WHERE consumer = 'c' \gset
SELECT is(evento.consumer_ack('c', 5, :epoch), false, 'to the same place it does not move');
SELECT is((SELECT ctid::text FROM evento._checkpoints WHERE consumer = 'c'), :'at', 'and writes nothing while the lease is young');
SELECT results_eq(format($$SELECT state, message, hint FROM pg_temp.catch('SELECT evento.consumer_ack(''c'', 4, %s)')$$, :epoch), $$VALUES ('22023', 'consumer "c" stands at 5 and cannot go back to 4', 'consumer_reset sets it back.')$$, 'not back');
SELECT is((SELECT state || ' ' || detail FROM pg_temp.catch(format('SELECT evento.consumer_ack(%L, 22, %s)', 'c', :epoch))), '22023 The log can be read up to 21.', 'not ahead of the log');
SELECT is((SELECT state FROM pg_temp.catch(format('SELECT evento.consumer_ack(%L, 9223372036854775807, %s)', 'c', :epoch))), '22023', 'nor far ahead');
SELECT is((SELECT state || ' ' || message FROM pg_temp.catch($$SELECT evento.consumer_ack('c', 6, NULL)$$)), '22023 position and epoch must not be NULL', 'epoch NULL');
SELECT is((SELECT state FROM pg_temp.catch(format('SELECT evento.consumer_ack(%L, NULL, %s)', 'c', :epoch))), '22023', 'position NULL');
SELECT results_eq($$SELECT state, message, detail FROM pg_temp.catch('SELECT evento.consumer_ack(''c'', 6, 7)')$$,
  format($$VALUES ('V0008', 'consumer "c" is not held with the epoch given', 'It is held with epoch %s, given was 7.')$$, :epoch), 'another epoch is fenced');
SELECT results_eq(format($$SELECT state, message FROM pg_temp.catch('SELECT evento.consumer_ack(''c'', 6, %s, after => 2)')$$, :epoch), $$VALUES ('V0008', 'consumer "c" stands at 5, not at 2')$$, 'one who believes it elsewhere too');
SELECT is(evento.consumer_ack('c', 6, :epoch, after => 5), true, 'not one who knows');
SELECT is((SELECT state || ' ' || detail FROM pg_temp.catch('SELECT evento.consumer_ack(''nobody'', 6, 7)')), 'V0008 There is no such consumer.', 'one that is not there');

-- A lease that ran out and that nobody took is still the owner's.
SELECT epoch AS quick FROM evento.consumer_claim('quick', '0') \gset
SELECT is(evento.consumer_ack('quick', 3, :quick), true, 'an ack behind the lease, before anyone took it over');
SELECT results_eq(format($$SELECT * FROM evento.consumer_claim('quick', '0', held => %s)$$, :quick), format('VALUES (%s::bigint, 3::bigint)', :quick), 'a renewal too');
SELECT cmp_ok((SELECT epoch FROM evento.consumer_claim('quick', '0')), '>', :quick, 'another takes it over');
SELECT is((SELECT state FROM pg_temp.catch(format('SELECT evento.consumer_ack(%L, 4, %s)', 'quick', :quick))), 'V0008', 'then the former owner is fenced');
SELECT is((SELECT position FROM evento.consumers WHERE consumer = 'quick'), 3::bigint, 'and has moved nothing');
SELECT cmp_ok((SELECT epoch FROM evento.consumer_claim('quick', '0', held => :quick)), '>', :quick, 'its renewal is a take-over');

-- ---- filters ----

SELECT epoch AS fe FROM evento.consumer_claim('filtered', '1 min', 'la*', '{Rare,Loose}', '{a}') \gset
SELECT results_eq($$SELECT scanned, position FROM evento.consumer_fetch('filtered')$$, $$VALUES (20::bigint, 20::bigint), (21, NULL)$$, 'a filter, and how far it looked');
SELECT results_eq($$SELECT context, types, categories FROM evento.consumers WHERE consumer = 'filtered'$$, $$VALUES ('la*' COLLATE "C", '{Rare,Loose}'::text[], '{a}'::text[])$$, 'the filter is on show');
SELECT is(evento.consumer_ack('filtered', 21, :fe), true, 'its end can be acknowledged');
SELECT results_eq($$SELECT scanned, position FROM evento.consumer_fetch('filtered')$$, $$VALUES (21::bigint, NULL::bigint)$$, 'and is not looked at again');
SELECT results_eq($$SELECT lag_events, lag_seconds FROM evento.consumers WHERE consumer = 'filtered'$$, $$VALUES (0::bigint, 0::numeric)$$, 'no lag at the end');
SELECT results_eq(format($$SELECT epoch > %1$s, position FROM evento.consumer_claim('filtered', '1 min', held => %1$s)$$, :fe), $$VALUES (true, 21::bigint)$$, 'another filter: another epoch, the same place');
SELECT results_eq($$SELECT context, types, categories FROM evento.consumers WHERE consumer = 'filtered'$$, $$VALUES ('*' COLLATE "C", NULL::text[], NULL::text[])$$, 'kept from there on');
SELECT is((SELECT state FROM pg_temp.catch(format('SELECT evento.consumer_ack(%L, 21, %s)', 'filtered', :fe))), 'V0008', 'the one with the former filter is fenced');

-- ---- release, reset, drop ----

SELECT is(evento.consumer_release('c', 7), false, 'only its owner gives it back');
SELECT is(evento.consumer_release('c', :epoch), true, 'who does');
SELECT is(evento.consumer_release('c', :epoch), false, 'once');
SELECT is(evento.consumer_release('nobody', 1), false, 'one that is not there');
SELECT is((SELECT state || ' ' || detail FROM pg_temp.catch(format('SELECT evento.consumer_ack(%L, 7, %s)', 'c', :epoch))), 'V0008 It was given back or reset.', 'given back is given back');
SELECT results_eq($$SELECT live, owner, owner_pid, application, lease_until, position FROM evento.consumers WHERE consumer = 'c'$$, $$VALUES (false, NULL::text, NULL::integer, NULL::text, NULL::timestamptz, 6::bigint)$$, 'it is nobody''s');
SELECT epoch AS second FROM evento.consumer_claim('c', '1 min', held => :epoch) \gset
SELECT cmp_ok(:second, '>', :epoch, 'claimed again, with a higher epoch');
SELECT is(evento.consumer_reset('c', 1), 1::bigint, 'reset sets it back, lease or not');
SELECT is((SELECT state FROM pg_temp.catch(format('SELECT evento.consumer_ack(%L, 7, %s)', 'c', :second))), 'V0008', 'its owner is fenced');
SELECT results_eq($$SELECT position, live FROM evento.consumers WHERE consumer = 'c'$$, $$VALUES (1::bigint, false)$$, 'it stands there, free');
SELECT is(evento.consumer_reset('c', NULL), 21::bigint, 'NULL: the end');
SELECT is(evento.consumer_reset('c', 0), 0::bigint, '0: the beginning');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.consumer_reset('c', 22)$$)), '22023', 'not ahead of the log');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.consumer_reset('c', -1)$$)), '22023', 'nor below 0');
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.consumer_reset('nobody', 0)$$)), '42704', 'one that is not there');
SELECT epoch AS third FROM evento.consumer_claim('c', '1 min') \gset
SELECT is(evento.consumer_drop('c'), true, 'drop forgets it');
SELECT is(evento.consumer_drop('c'), false, 'once');
SELECT is((SELECT count(*) FROM evento.consumers WHERE consumer = 'c') + (SELECT count(*) FROM evento._checkpoints WHERE consumer = 'c'), 0::bigint, 'wholly');
SELECT epoch AS fourth FROM evento.consumer_claim('c', '0') \gset
SELECT cmp_ok(:fourth, '>', :third, 'made again it has a higher epoch than ever');
SELECT is((SELECT state FROM pg_temp.catch(format('SELECT evento.consumer_ack(%L, 1, %s)', 'c', :third))), 'V0008', 'so that the owner of before is fenced');

-- ---- deleted streams ----

SELECT epoch AS de FROM evento.consumer_claim('deleted', '1 min', start => 15) \gset
SELECT evento.delete_stream('a-1'), evento.delete_stream('a-2');
SELECT results_eq($$SELECT scanned, position FROM evento.consumer_fetch('deleted')$$, $$VALUES (18::bigint, 18::bigint), (21, 21), (21, NULL)$$, 'events of deleted streams are not given');
SELECT results_eq($$SELECT scanned, position FROM evento.consumer_fetch('deleted', 1)$$, $$VALUES (18::bigint, 18::bigint), (18, NULL)$$, 'and counted by nobody');
SELECT is(evento.consumer_ack('deleted', 18, :de), true, 'the scan goes past them');

-- ---- in a kept snapshot ----

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT results_eq($$SELECT scanned, position FROM evento.consumer_fetch('deleted')$$, $$VALUES (21::bigint, 21::bigint), (21, NULL)$$, 'fetch in REPEATABLE READ');
SELECT is(evento.consumer_ack('deleted', 21, :de), true, 'and ack');
COMMIT;
SELECT is((SELECT position FROM evento.consumers WHERE consumer = 'deleted'), 21::bigint, 'moved it');
BEGIN READ ONLY;
SELECT is((SELECT state FROM pg_temp.catch($$SELECT evento.consumer_claim('deleted', '1 s')$$)), '25006', 'claim in a read-only transaction');
SELECT is((SELECT state FROM pg_temp.catch(format('SELECT evento.consumer_ack(%L, 21, %s)', 'deleted', :de))), '25006', 'ack');
SELECT is((SELECT count(*) FROM evento.consumer_fetch('deleted')), 1::bigint, 'fetch may be');
COMMIT;

-- ---- lag: far behind, and across jumps ----

SELECT count(evento.append('b-' || n % 10, 'Many', '0')) FROM generate_series(1, 12000) n;
CALL evento.wait(NULL) \gset
SELECT is((SELECT lag_events FROM evento.consumers WHERE consumer = 'at the end'), 12000::bigint, 'lag beyond what is counted');
INSERT INTO evento._jumps (last_position, next_position, reason) VALUES (12010, 12016, 'test'), (3, 6, 'test');
SELECT is((SELECT lag_events FROM evento.consumers WHERE consumer = 'at the end'), 11995::bigint, 'jumps that lie beyond it are left out');
SELECT epoch AS je FROM evento.consumer_claim('jumped', '1 min', start => 4) \gset
SELECT is((SELECT lost_range FROM evento.consumers WHERE consumer = 'jumped'), true, 'a checkpoint amid a jump has lost its range');
SELECT is((SELECT string_agg(consumer, ' ' ORDER BY consumer) FROM evento.consumers WHERE lost_range), 'jumped', 'no other');
SELECT evento.consumer_ack('jumped', 5, :je);
SELECT is((SELECT lost_range FROM evento.consumers WHERE consumer = 'jumped'), false, 'until it has looked over it, as far as it can without a new event');

-- ---- a consumer of a bundle that has read what is lost is named, also when it has gone on ----

CREATE FUNCTION pg_temp.report(consumer text, "position" bigint, leapt bigint DEFAULT NULL, instance text DEFAULT 'i') RETURNS boolean LANGUAGE sql AS $$
SELECT evento._reports(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('bundle', 'b', 'version', 1, 'instance', instance, 'consumer', consumer, 'component', 'C', 'context', '*',
                                         'position', "position", 'head', true, 'leapt', leapt))));
SELECT c.lost_range FROM evento.consumers c WHERE c.kind = 'bundle' AND c.consumer = report.consumer
$$;
UPDATE evento._jumps SET next_position = 1000 WHERE last_position = 3;
SELECT is(pg_temp.report('b_steps', 2), false, 'before a jump');
SELECT is(pg_temp.report('b_steps', 999), false, 'one that has looked over it');
SELECT is(pg_temp.report('b_stood', 500), true, 'one in the middle');
SELECT is(pg_temp.report('b_stood', 1001), true, 'which has gone on');
SELECT is(pg_temp.report('b_stood', 1500, 1002), true, 'and on');
SELECT is(pg_temp.report('b_stood', 1500, NULL, 'another'), true, 'at another instance too');
SELECT is((SELECT count(*) FROM evento._lost_reads), 1::bigint, 'no other');
SELECT is(pg_temp.report('b_leapt', 1001, 400), true, 'one that was there and has gone on between two reports');
SELECT is(pg_temp.report('b_reported', 600), true, 'one');
DELETE FROM evento._lost_reads WHERE consumer = 'b_reported';
SELECT is(pg_temp.report('b_reported', 1001), true, 'whose report came before the jump was on record');
SELECT matches((SELECT string_agg(severity || ' ' || finding || ' ' || advice, E'\n') FROM evento.doctor() WHERE subject = 'consumer b_stood'),
  'error On .* it was at 500, among positions that were left out, and has gone on: .*after 3, then SELECT evento.consumer_repaired\(''b_stood''\)', 'doctor() names it');
SELECT is(pg_temp.report('b_stood', 3), false, 'set back to before the jump it reads anew');
SELECT is(pg_temp.report('b_stood', 1500), false, 'and is named no more');
SELECT is(evento.consumer_repaired('b_leapt'), true, 'one that was repaired');
SELECT is(pg_temp.report('b_leapt', 1600), false, 'is named no more');
SELECT is(evento.consumer_repaired('b_leapt'), false, 'once');
DELETE FROM evento._jumps;
SELECT * FROM finish();
