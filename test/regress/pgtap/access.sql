-- access.sql: rules of who may connect to the proxies, and tokens.
\ir helpers.psql
SELECT no_plan();

-- A publication of all tables, as tools that capture changes make it, keeps nobody from anything.
SET client_min_messages = error;
CREATE PUBLICATION everything FOR ALL TABLES;
RESET client_min_messages;

SELECT is_empty('SELECT * FROM evento.access_rules', 'there is no rule');
SELECT is_empty('SELECT * FROM evento._access()', 'and nothing for proxies');

-- ---- rules ----

SELECT is(evento.add_access_rule('10.0.0.0/8', 'orders*', 'token'), 1, 'the first rule');
SELECT is(evento.add_access_rule(NULL, '*', 'reject'), 2, 'the next goes behind it');
SELECT is(evento.add_access_rule('127.0.0.1', '*', 'trust', 1), 1, 'or where it is told to');
SELECT is(evento.add_access_rule('2001:db8::/32', 'a', 'cert', rule_number => 3), 3, 'in the middle, too');
SELECT results_eq('SELECT rule_number, address::text, bundle, method FROM evento.access_rules',
  $$VALUES (1, '127.0.0.1/32', '*', 'trust'), (2, '10.0.0.0/8', 'orders*', 'token'), (3, '2001:db8::/32', 'a', 'cert'), (4, NULL, '*', 'reject')$$, 'in this order');
SELECT results_eq('SELECT rule_number, address, bundle, method, hash FROM evento._access()',
  $$VALUES (1, '127.0.0.1/32', '*', 'trust', NULL::bytea), (2, '10.0.0.0/8', 'orders*', 'token', NULL), (3, '2001:db8::/32', 'a', 'cert', NULL), (4, NULL, '*', 'reject', NULL)$$, 'proxies get them so');
SELECT lives_ok('SELECT evento.drop_access_rule(2)', 'one is dropped');
SELECT results_eq('SELECT rule_number, method FROM evento.access_rules', $$VALUES (1, 'trust'), (2, 'cert'), (3, 'reject')$$, 'those behind it move up');
SELECT throws_ok('SELECT evento.drop_access_rule(4)', '42704', 'there is no access rule 4', 'one that is not there');
SELECT throws_ok($$SELECT evento.add_access_rule(NULL, '*', 'password')$$, '22023', 'unknown method "password"', 'methods are known');
SELECT throws_ok($$SELECT evento.add_access_rule(NULL, NULL, 'trust')$$, '22023', NULL, 'a rule has a pattern');
SELECT throws_ok($$SELECT evento.add_access_rule(NULL, '', 'trust')$$, '22023', NULL, 'that is not empty');
SELECT throws_ok($$SELECT evento.add_access_rule(NULL, '*', 'trust', 5)$$, '22023', 'rule number 5 is out of range', 'there are no gaps');
SELECT throws_ok($$SELECT evento.add_access_rule(NULL, '*', 'trust', 0)$$, '22023', 'rule number 0 is out of range', 'nothing comes before the first');
SELECT is((SELECT count(evento.add_access_rule(NULL, '*', 'trust')) FROM generate_series(1, 997)), 997::bigint, '1000 rules fit');
SELECT throws_ok($$SELECT evento.add_access_rule(NULL, '*', 'trust')$$, '54000', 'there are 1000 access rules already', 'no more');

-- ---- tokens ----

SELECT evento.create_bundle_token('orders') AS token \gset
SELECT matches(:'token'::text, '^evt_[0-9a-f]{64}$', 'a token has 256 bits');
SELECT evento.create_bundle_token('orders', expires => now() + interval '1 hour', may_register => '{Order*}', may_send => '{}', http => 'read') AS limited \gset
SELECT isnt(:'token'::text, :'limited'::text, 'each is another');
SELECT results_eq('SELECT bundle, begins_with, expires_at IS NULL, expired, may_register, may_send, http, created_by = session_user FROM evento.bundle_tokens ORDER BY created_at',
  format($$VALUES ('orders', %L, true, false, NULL::text[], NULL::text[], 'none', true), ('orders', %L, false, false, '{Order*}', '{}', 'read', true)$$, left(:'token', 12), left(:'limited', 12)),
  'the view has how they begin');
SELECT is((SELECT count(*) FROM evento._bundle_tokens t WHERE strpos(t::text, substr(:'token', 13)) > 0), 0::bigint, 'nothing has the rest');
SELECT results_eq('SELECT bundle, hash, may_register, may_send, http FROM evento._access() WHERE rule_number IS NULL ORDER BY http',
  format($$VALUES ('orders', sha256(%L::bytea), NULL::text[], NULL::text[], 'none'), ('orders', sha256(%L::bytea), '{Order*}', '{}', 'read')$$, :'token', :'limited'), 'proxies get the hashes');
SELECT cmp_ok((SELECT expires_in FROM evento._access() WHERE http = 'read'), '>', 3500000::bigint, 'and for how long they hold');
SELECT cmp_ok((SELECT expires_in FROM evento._access() WHERE http = 'read'), '<=', 3600000::bigint, 'in milliseconds');
UPDATE evento._bundle_tokens SET expires_at = now() - interval '1 s' WHERE http = 'read';
SELECT is((SELECT expired FROM evento.bundle_tokens WHERE http = 'read'), true, 'one that has expired says so');
SELECT is((SELECT count(*) FROM evento._access() WHERE http = 'read'), 0::bigint, 'and proxies do not get it');
UPDATE evento._bundle_tokens SET expires_at = 'infinity' WHERE http = 'read';
SELECT is((SELECT expires_in FROM evento._access() WHERE http = 'read'), NULL, 'infinity is never');
SELECT lives_ok($$SELECT evento.drop_bundle_token(token_id) FROM evento.bundle_tokens WHERE http = 'read'$$, 'one is dropped');
SELECT is((SELECT count(*) FROM evento.bundle_tokens), 1::bigint, 'the other stays');
SELECT throws_ok($$SELECT evento.drop_bundle_token('00000000-0000-0000-0000-000000000000')$$, '42704', NULL, 'one that is not there');
SELECT throws_ok($$SELECT evento.create_bundle_token('')$$, '22023', NULL, 'a bundle has a name');
SELECT throws_ok($$SELECT evento.create_bundle_token('b', expires => now() - interval '1 s')$$, '22023', NULL, 'a token that would be void at once');
SELECT throws_ok($$SELECT evento.create_bundle_token('b', http => 'all')$$, '22023', 'unknown right over HTTP "all"', 'rights are known');
SELECT throws_ok($$SELECT evento.create_bundle_token('b', may_send => '{NULL}')$$, '22023', NULL, 'names are no NULL');
SELECT throws_ok($$SELECT evento.create_bundle_token('b', may_register => array_fill('n'::text, '{1001}'))$$, '54000', NULL, 'nor too many');
SELECT throws_ok($$SELECT evento.create_bundle_token('b', may_register => '{{n,m}}')$$, '22023', NULL, 'nor in rows, which proxies do not read');
SELECT throws_ok($$SELECT evento.create_bundle_token('b', may_send => '{{n},{m}}')$$, '22023', NULL, 'to send neither');

SELECT * FROM finish();
