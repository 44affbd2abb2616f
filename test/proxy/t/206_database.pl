# 206_database.pl
#   A database that goes away and comes back: clear failures in time, bundles
#   that stay, and everything goes on by itself.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $node = $test->node;
my $proxy = $test->start(flags => { 'database-wait' => '10s', 'fetch-hold' => '100s' });
my $caller = $proxy->bundle(bundle => 'caller', instance => 'c1');
my $handler = $proxy->bundle(bundle => 'orders', instance => 'h1', names => [qw(Change Do Ask)]);
my ($id, $answer, $start);

sub change
{
	my ($stream, $timeout) = @_;
	my $command = $caller->command('Change', $stream);
	my $req = $handler->recv('REQ', timeout => $timeout // 40) or return $caller->answer($command);
	$handler->respond($req, Evento::Bundle::domain_response('Changed', '{}'));
	return $caller->answer($command);
}

is(change('a')->{class}, 'DomainEventMessage', 'a command is stored');
my $held = $caller->fetch(1, timeout => 120000);

# ---- stopped ----

$test->sql('ALTER ROLE proxy NOLOGIN');
$node->stop('fast');
ok($proxy->wait_for(sub { $proxy->metric('db_up') == 0 }), 'the proxy notices');
is(($proxy->get('/readyz'))[0], 503, 'and is not ready');
is(($proxy->get('/healthz'))[0], 200, 'but alive');
my @cases = ([ 'a domain command', $caller->command('Change', 'a') ], [ 'a service command on a stream', $caller->service_command('Do', '{}', stream => 's') ],
	[ 'a service command under a lock', $caller->service_command('Do', '{}', lock => 'l') ], [ 'the last sequence number', $caller->last_sequence ]);
$start = time;
for my $case (@cases)
{
	my ($what, $sent) = @$case;
	$answer = $caller->answer($sent);
	like($answer->{failure}{exceptionClassName} // '', qr/IllegalState/, "$what fails");
	like($answer->{failure}{message} // '', qr/the database is not reachable/, 'saying why');
	cmp_ok(time - $start, '<', 28, 'in time');
}
is($handler->recv('REQ', timeout => 0.1), undef, 'no handler was asked');
$id = $caller->query('Ask');
$handler->respond($handler->recv('REQ'), Evento::Bundle::single(undef));
is($caller->answer($id)->{class}, 'Single', 'queries go on');
ok($caller->alive && $handler->alive, 'and bundles stay connected');

# It is back, and what a fetch reads that was held all the time, longer than a database is waited for, is cut off.
$node->start;
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE evento.events');
$test->sql('ALTER ROLE proxy LOGIN');
my $cut = q(SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%scan_all%');
ok($node->poll_query_until('postgres', $cut), 'a fetch that was held all the time reads when the database is back');
$holder->quit;
$node->stop('fast');
ok($proxy->wait_for(sub { $proxy->metric('db_up') == 0 }), 'it goes away once more');

# A handler that was asked before: its event waits for the database.
$id = $caller->service_command('Do', '{}');
$handler->respond($handler->recv('REQ'), Evento::Bundle::event_message('Service', 'Done', '{"waited":true}'));
sleep 0.5;
$node->start;
is($caller->answer($id)->{class}, 'ServiceEventMessage', 'an event that was brought while the database was away is stored when it is back');
$proxy->wait_http('/readyz');
pass('the proxy is ready again by itself');
is(change('a')->{class}, 'DomainEventMessage', 'commands go on');
my $fetched = $caller->answer($held, timeout => 60);
ok($fetched && !defined $fetched->{failure}, 'a fetch that was held all the time is answered, once there is something to tell');

# ---- crashes in the middle of commands ----

# Whatever the server takes to come back.
is($proxy->stop, 0, 'the proxy ends in order');
$proxy = $test->start(flags => { 'database-wait' => '1min' });
$caller = $proxy->bundle(bundle => 'caller', instance => 'c1');
$handler = $proxy->bundle(bundle => 'orders', instance => 'h1', names => [qw(Change Do Ask)]);

my ($ok, $failed) = (0, 0);
for my $round (1 .. 3)
{
	my @ids;
	for my $n (1 .. 20)
	{
		push @ids, $caller->command('Change', "crash-$round-$n", qq({"n":$n}), timeout => 120000);
	}
	my @reqs = map { $handler->recv('REQ') } 1 .. 20;
	my $i = 0;
	for my $req (@reqs)
	{
		$handler->respond($req, Evento::Bundle::domain_response('Changed', qq({"round":$round})));
		$node->stop('immediate') if ++$i == 10;
	}
	$node->start;
	for (@ids)
	{
		my $rsp = $caller->answer($_, timeout => 120);
		$rsp && !defined $rsp->{failure} ? $ok++ : $failed++;
	}
}
is($failed, 0, 'commands that a crash of the server meets are all answered');
is($ok, 60, 'sixty of them');
$test->sql('CALL evento.wait(NULL)');
is($test->sql(q(SELECT count(*), count(DISTINCT stream) FROM evento.events WHERE stream LIKE 'crash-%')), '60|60', 'and stored once each');

# ---- a server that has no extension, or is not the primary any more ----

$test->sql(q(ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()));
is(change('b')->{class}, 'DomainEventMessage', 'a default of the server does not change what the proxy does');
$test->sql(q(SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()));

# All connections of the proxy are ended again and again.
for my $round (1 .. 5)
{
	$test->sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%'));
	$answer = change("cut-$round");
	is($answer->{class}, 'DomainEventMessage', 'a command passes when the proxy has lost all its connections') or diag(explain($answer->{failure}));
}

is($proxy->stop, 0, 'the proxy ends in order');
$node->stop('fast');
$start = time;
my $alone = $test->start(wait => 0);
is(($alone->get('/readyz'))[0], 503, 'a proxy starts without its database');
is($alone->stop, 0, 'and ends in order');

# ---- a list of which no server answers ----

# They are tried in turn for as long as it lasts, and the log says once of each connection and each server why not.  The servers
# are this test, which may take its time.
my @servers = map { IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1', LocalPort => PostgreSQL::Test::Cluster::get_free_port(), ReuseAddr => 1) // die $! } 1 .. 3;
my $tried = 0;
my $fields = join '', map { "$_\0" } 'SFATAL', 'VFATAL', 'C57P03', 'Mthe database system is starting up', '';
my $refusal = 'E' . pack('N', 4 + length $fields) . $fields;
$alone = $test->start(wait => 0, flags => { database => sprintf('host=%s port=%s dbname=postgres user=proxy sslmode=disable connect_timeout=60', join(',', ('127.0.0.1') x @servers), join(',', map { $_->sockport } @servers)) });
ok($alone->wait_for(sub {
	for (@servers)
	{
		next if !IO::Select->new($_)->can_read(0.01);
		my $client = $_->accept;
		syswrite $client, $refusal if sysread $client, my $startup, 8192;
		$tried++;
	}
	return $tried >= 200 }), 'a proxy tries the servers of a list again and again');
my %why;
$why{$_}++ for map { s/^\S+ //r } grep { /cannot connect/ } split /\n/, $alone->log;
cmp_ok(scalar keys %why, '>=', 3 * 6, 'the log says of each connection and each server why not');
is_deeply([ grep { $why{$_} > 1 } sort keys %why ], [], 'and that once');
is($alone->stop, 0, 'it ends in order');
done_testing();
