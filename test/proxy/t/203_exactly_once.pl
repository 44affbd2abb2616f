# 203_exactly_once.pl
#   Requests that are repeated, at another proxy too, and appends of which the
#   database did not say what became of them.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new(conf => "wal_level = replica\nmax_wal_senders = 4\n");
my ($one, $two) = ($test->start(flags => { 'append-connections' => 1, 'database-wait' => '1min' }), $test->start);
my $handler = $one->bundle(bundle => 'orders', instance => 'h1', names => [qw(Create Change Send Probe)]);
my $caller = $one->bundle(bundle => 'caller', instance => 'c1');

sub stream { return $test->sql("SELECT coalesce(string_agg(type || data::text, ' ' ORDER BY version), '') FROM evento.read_stream('$_[0]')") }

sub object { return $_[0]->{body}{serializedPayload}[1]{serializedObject} }

# The same instance at the other proxy.
sub move
{
	my ($to) = @_;
	$caller->cut;
	$caller = $to->bundle(bundle => 'caller', instance => 'c1');
	$caller->reaches($handler);
	return;
}

# ---- a repeat after the answer ----

my $id = $caller->command('Create', 'a-1');
$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Created', '{"first":true}', state => '{"v":1}'));
is(object($caller->answer($id)), '["shop.Created",{"first":true}]', 'a command is answered');

$caller->command('Create', 'a-1', '{}', correlation => $id);
is(object($caller->answer($id)), '["shop.Created",{"first":true}]', 'repeated at the same proxy it has the same answer');

move($two);
$caller->command('Create', 'a-1', '{}', correlation => $id);
is(object($caller->answer($id)), '["shop.Created",{"first":true}]', 'repeated at another proxy it is answered from the log');
is($handler->recv('REQ', timeout => 0.3), undef, 'without asking the handler');
is(stream('a-1'), 'Created{"first":true}', 'and stored once');

$id = $caller->service_command('Send', '{}', stream => 's-1');
$handler->respond($handler->recv('REQ'), Evento::Bundle::event_message('Service', 'Sent', '{"first":true}'));
is(object($caller->answer($id)), '["shop.Sent",{"first":true}]', 'a service command is answered');
move($one);
$caller->service_command('Send', '{}', stream => 's-1', correlation => $id);
my $answer = $caller->answer($id);
is($answer->{class} . ' ' . object($answer), 'ServiceEventMessage ["shop.Sent",{"first":true}]', 'and so is its repeat at another proxy');
is($handler->recv('REQ', timeout => 0.3), undef, 'without asking the handler');
is(stream('s-1'), 'Sent{"first":true}', 'and stored once');

# ---- a repeat while the first is under way ----

$id = $caller->command('Change', 'a-2');
my $first = $handler->recv('REQ');
move($two);
$caller->command('Change', 'a-2', '{}', correlation => $id);
my $second = $handler->recv('REQ');
ok($second, 'a repeat at another proxy while the handler is at work is a try of its own');
$handler->respond($first, Evento::Bundle::domain_response('Changed', '{"try":1}', state => '{"try":1}'));
$one->wait_for(sub { stream('a-2') ne '' });
$handler->respond($second, Evento::Bundle::domain_response('Changed', '{"try":2}', state => '{"try":2}'));
is(object($caller->answer($id)), '["shop.Changed",{"try":1}]', 'both have one answer, the one that is stored');
is(stream('a-2'), 'Changed{"try":1}', 'which is stored once');
is($test->sql(q(SELECT state::text FROM evento._snapshots WHERE stream = 'a-2')), '{"try":1}', 'with the snapshot that belongs to it');

# ---- appends whose outcome is unknown ----

# Does something to the backend that waits in the commit of an append.
sub to_waiting_append
{
	my ($function) = @_;
	my $waits = q(FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%append_batch%');
	$test->node->poll_query_until('postgres', "SELECT count(*) > 0 $waits") or die 'no append waits';
	return $test->sql("SELECT $function(pid) $waits");
}

move($one);
for my $case ([ 'pg_terminate_backend', 'a connection that is lost in the middle of an append' ], [ 'pg_cancel_backend', 'a wait for the standby that is cut short' ])
{
	my ($function, $what) = @$case;
	for my $kind (qw(domain service streamless))
	{
		my $unknown = $one->metric('append_unknown_total');
		my $name = "$kind-$function";
		$test->standby_missing(1);
		$id = $kind eq 'domain' ? $caller->command('Change', $name) : $caller->service_command('Send', '{}', $kind eq 'service' ? (stream => $name) : ());
		my $req = $handler->recv('REQ');
		$handler->respond($req, $kind eq 'domain' ? Evento::Bundle::domain_response('Changed', qq({"case":"$name"}))
			: Evento::Bundle::event_message('Service', 'Sent', qq({"case":"$name"})));
		to_waiting_append($function);
		$one->wait_for(sub { $one->metric('append_unknown_total') > $unknown });
		is($caller->answer($id, timeout => 0.3), undef, "$what, $kind: no answer before it is safe");
		$test->standby_missing(0);
		like(object($caller->answer($id)), qr/"case":"$name"/, 'then the answer');
		$test->sql('CALL evento.wait(NULL)');
		is($test->sql("SELECT count(*) FROM evento.events WHERE data->>'case' = '$name'"), 1, 'and the event is stored once');
		is($handler->recv('REQ', timeout => 0.1), undef, 'and the handler was asked once');
	}
}

# The standby stays away: the caller hears so, within its time.
my $stream;
is(Evento::ProxyTest::in_some_try('outcome unknown', sub {
	$stream = "late-$_[0]";
	$test->standby_missing(1);
	my $start = time;
	$id = $caller->command('Change', $stream, '{}', timeout => 9000);
	$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Changed', '{"late":true}'));
	my $failed = $caller->answer($id)->{failure};
	cmp_ok(time - $start, '<', 30, 'an append that is not confirmed fails within the time of its request');
	$test->standby_missing(0);
	# A proxy that did not get to it before the time was up says that alone.
	return $failed && $failed->{message} =~ /unknown/ ? 'outcome unknown' : ($failed // {})->{message} // 'stored';
}), 'outcome unknown', 'saying that its outcome is unknown');
$id = $caller->command('Change', $stream);
my $req = $handler->recv('REQ');
$handler->respond($req, Evento::Bundle::domain_response('Changed', '{"late":2}'));
ok(object($caller->answer($id)), 'and the aggregate goes on');

# The server dies in the middle of an append: the same bytes are sent again when it is back.
$test->standby_missing(1);
$id = $caller->command('Change', 'crash', '{}', timeout => 120000);
$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Changed', '{"crash":true}'));
$test->node->poll_query_until('postgres', q(SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%append_batch%'));
$test->node->stop('immediate');
$test->node->append_conf('postgresql.auto.conf', "synchronous_standby_names = ''\n");
$test->node->start;
is(object($caller->answer($id, timeout => 120)), '["shop.Changed",{"crash":true}]', 'a command whose append the server crashed in is answered');
is(stream('crash'), 'Changed{"crash":true}', 'and stored once');

is($_->stop, 0, 'a proxy ends in order') for $one, $two;
done_testing();
