# 130_registry.pl
#   What the database knows of a proxy and its sessions: brought up to date
#   within milliseconds, right also when things change while a statement is under
#   way, when rows are lost, and when the database was away.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my @proxy = map { $test->start } 1 .. 2;
my ($proxy, $other) = @proxy;

sub until_sql
{
	my ($sql, $expected, $seconds) = @_;
	my $got;
	return 1 if $proxy->wait_for(sub { ($got = $test->sql($sql)) eq $expected }, $seconds);
	diag("$sql: $got, not $expected");
	return 0;
}

# ---- registration ----

is($test->sql("SELECT name, live, internal, version <> '' FROM evento.proxies ORDER BY proxy_id"),
	join("\n", map { "$_->{name}|t|127.0.0.1:$_->{internal}|t" } @proxy), 'both are registered');
is($test->sql("SELECT http FROM evento.proxies WHERE name = 'proxy1'"), "127.0.0.1:$proxy->{http}", 'with their HTTP addresses');
my $renewed = $test->sql("SELECT renewed_at FROM evento.proxies WHERE name = 'proxy1'");
ok(until_sql("SELECT renewed_at > '$renewed' FROM evento.proxies WHERE name = 'proxy1'", 't'), 'the registration is renewed');
my $first = $proxy->bundle(bundle => 'one', instance => 'first', names => ['A']);
ok(until_sql("SELECT load->>'sessions' FROM evento.proxies WHERE name = 'proxy1'", 1), 'with the load');

# ---- many at once ----

my $start = time;
my @many = map { my $b = $proxy[ $_ % 2 ]->connection; $b->hello(bundle => 'many', instance => "many-$_"); $b } 1 .. 300;
for my $b (@many)
{
	$b->recv('WLC');
	$b->register("Query" . ($b->{instance} =~ /(\d+)/)[0], 'Common');
	$b->notify('evento:enable');
	$b->discovery;
	$b->consumers;
}
ok(until_sql("SELECT count(*) FROM evento.bundles WHERE bundle = 'many' AND enabled AND cardinality(names) = 2", 300), '300 instances are registered and enabled');
is($test->sql("SELECT count(*) FROM evento.bundles WHERE bundle = 'many' AND names <> ARRAY['Query' || substr(instance, 6), 'Common']"), 0, 'each with its own names');
is($test->sql("SELECT count(DISTINCT proxy) FROM evento.bundles WHERE bundle = 'many'"), 2, 'at both proxies');
sleep 0.1;
my $id = $first->query('Query77');
my $req = $many[76]->recv('REQ');
ok($req, 'one of them is asked');
$many[76]->respond($req, Evento::Bundle::single(77));
is($first->answer($id)->{body}{data}, 77, 'and answers');
$_->close for @many;
ok(until_sql("SELECT count(*) FROM evento._sessions WHERE bundle = 'many'", 0), 'all of them leave');

# ---- changes while a statement is under way ----

# A lock on the table holds statements up as long as we like.
my $holder = $test->node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE evento._sessions IN SHARE MODE');
my $busy = $proxy->bundle(bundle => 'busy', instance => 'busy', names => ['V1']);
my $short = $proxy->bundle(bundle => 'busy', instance => 'short', names => ['V1']);
ok($proxy->wait_for(sub { $test->sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'evento._sessions'::regclass") > 0 }), 'a registration is held up');
$busy->register('V2');
$busy->notify('evento:disable');
$busy->register('V3', 'V4');
$short->close;
my $fleeting = $proxy->bundle(bundle => 'busy', instance => 'fleeting', names => ['V1']);
ok($fleeting->alive, 'one more comes');
$fleeting->close;
$busy->notify('evento:enable');
$busy->consumers;
my $local = $first->query('V3');
$req = $busy->recv('REQ');
ok($req, 'meanwhile it is asked at its own proxy');
$busy->respond($req, Evento::Bundle::single('local'));
is($first->answer($local)->{body}{data}, 'local', 'and answers');
$holder->query_safe('COMMIT');
ok(until_sql("SELECT string_agg(instance || ' ' || enabled || ' ' || names::text, ', ') FROM evento.bundles WHERE bundle = 'busy'", 'busy true {V3,V4}'), 'what is so in the end is what is registered');
ok(until_sql("SELECT count(*) FROM evento._sessions WHERE bundle = 'busy'", 1), 'the others left nothing');

# The registration is not renewed while it is held up for too long; then everything is as before.
my $number = $test->sql("SELECT proxy_id FROM evento.proxies WHERE name = 'proxy1'");
$holder->query_safe("BEGIN; SELECT * FROM evento._proxies WHERE name = 'proxy1' FOR UPDATE; SELECT pg_sleep(6); COMMIT");
ok(until_sql("SELECT count(*) FROM evento.proxies WHERE name = 'proxy1' AND live AND proxy_id <> $number", 1), 'a registration that could not be renewed in time is made anew');
is($test->sql("SELECT count(*) FROM evento.proxies WHERE name = 'proxy1'"), 1, 'in place of the old one');
ok(until_sql("SELECT count(*) FROM evento.bundles WHERE proxy = 'proxy1'", 2), 'its sessions are registered under it');
ok($first->alive && $busy->alive, 'and have not noticed');
$holder->quit;

# ---- rows that should not be there, and rows that are not ----

$test->sql("INSERT INTO evento._sessions (proxy_id, bundle, instance, bundle_version) SELECT proxy_id, 'ghost', 'ghost', 1 FROM evento.proxies WHERE name = 'proxy1'");
ok(until_sql("SELECT count(*) FROM evento._sessions WHERE bundle = 'ghost'", 0), 'a row of no session is taken out');
$test->sql("DELETE FROM evento._proxies WHERE name = 'proxy1'");
ok(until_sql("SELECT count(*) FROM evento.bundles WHERE proxy = 'proxy1'", 2), 'a proxy whose rows are gone registers again, with its sessions');
ok($first->alive && $busy->alive, 'which have not noticed');

# A bundle that was superseded by a session which has ended since is let go: it may be anywhere.
$test->sql("DELETE FROM evento._sessions WHERE instance = 'busy'");
ok($busy->wait_closed, 'a session whose row another proxy took out is closed');
ok(scalar $proxy->wait_log('busy/busy: closed: superseded by another proxy'), 'with a line in the log');

# ---- the database is away ----

$test->node->stop('immediate');
ok($proxy->wait_for(sub { ($proxy->get('/readyz'))[0] == 503 }), 'the database is away');
my $away = $proxy->bundle(bundle => 'away', instance => 'away', names => ['Away']);
my $gone = $proxy->bundle(bundle => 'other', instance => 'gone', names => ['Away']);
my %handler = (
	componentType => 'Projection', componentName => 'AwayProjection', handlerType => 'QueryHandler', handledPayloadType => 'Query', handledPayload => 'Away',
	returnType => 'View', returnIsMultiple => bool_(0), associationProperty => undef, componentDescription => undef, componentDetail => undef,
	componentPath => undef, componentLine => undef, handlerLine => int_(7), executor => undef);
$away->discovery(map_(%handler, invokedCommands => map_(), invokedQueries => map_()));
$id = $first->query('Away');
$proxy->wait_for(sub { ($req) = grep { $_ } map { $_->recv('REQ', timeout => 0.05) } $away, $gone; return $req });
ok($req, 'a bundle that connects meanwhile is asked');
$gone->close;
$first->close;
$test->node->start;
$proxy->wait_http('/readyz');
ok(until_sql("SELECT instance, enabled, names FROM evento.bundles WHERE proxy = 'proxy1'", 'away|t|{Away}'), 'when it is back it knows who is there, and who is not');
ok(until_sql("SELECT component, handler_type, payload, handler_line FROM evento.handlers WHERE bundle = 'away'", 'AwayProjection|QueryHandler|Away|7'), 'and what was described meanwhile');
ok(until_sql("SELECT count(*) FROM evento.proxies WHERE live", 2), 'both proxies are there');

is(scalar(grep { $_->running } @proxy), 2, 'both still run');
is($_->stop, 0, "$_->{name} ends") for @proxy;

done_testing();
