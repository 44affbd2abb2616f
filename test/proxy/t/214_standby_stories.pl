# 214_standby_stories.pl
#   Stories from a standby: commands are run on what it has, and nothing is
#   stored, refused or answered by what it has not, while it stands still.
use strict;
use warnings;

use Test::More;

use Evento::Bundle;
use Evento::Cbor;
use Evento::Http;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new(conf => "wal_level = replica\nmax_wal_senders = 5\nhot_standby = on\nhot_standby_feedback = on\n");
my $primary = $test->node;
my $standby = $test->standby;

my $hosts = sprintf 'host=%s,%s port=%s,%s dbname=postgres user=proxy', $primary->host, $standby->host, $primary->port, $standby->port;
my ($one, $two) = map { $test->start(flags => { database => $hosts, 'read-from' => 'standby', 'standby-lag' => '60min', 'story-cache' => '1MB' }) } 1 .. 2;
my $handler = $one->bundle(bundle => 'orders', instance => 'h1', names => [qw(Change Probe)]);
my $caller = $one->bundle(bundle => 'caller', instance => 'c1');

# The next command that the handler gets, with the payloads of its story's events.
sub next_call
{
	my $req = $handler->recv('REQ', timeout => 30) or return { events => ['none'] };
	$req->{events} = [ map { $_->[1]{serializedPayload}[1]{serializedObject} =~ /^\["?[^,]*,(.*)\]$/ ? $1 : '?' } @{ cbor_decode($req->{payload})->[1]{body}[1]{eventStream}[1] } ];
	return $req;
}

sub changed { my ($req, $json) = @_; return $handler->respond($req, Evento::Bundle::domain_response('Changed', $json)) }

sub object { return $_[0]->{body}{serializedPayload}[1]{serializedObject} }

sub stream { return $test->sql("SELECT coalesce(string_agg(data::text, ' ' ORDER BY version), '') FROM evento.read_stream('$_[0]')") }

sub append { my ($stream, $json) = @_; return $test->sql("SELECT evento.append('$stream', 'Changed', '$json', class => 'shop.Changed')") }

# How many reads the standby did for a proxy while code ran.
sub standby_reads
{
	my ($proxy, $code) = @_;
	my $before = $proxy->metric('standby_reads_total');
	$code->();
	return $proxy->metric('standby_reads_total') - $before;
}

sub pause
{
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	$standby->poll_query_until('postgres', q(SELECT pg_get_wal_replay_pause_state() = 'paused')) or die 'replay goes on';
	return;
}

$caller->reaches($handler);
append("s-$_", '{"n":1}') for 1 .. 9;
append('large', '{"n":"' . 'x' x 200_000 . '"}');
$primary->wait_for_catchup($standby, 'replay');
for my $proxy ($one, $two)
{
	my $http = Evento::Http->new($proxy->{http});
	ok($proxy->wait_for(sub { $http->get('/cluster')->{json}{reads}{from} eq 'standby' }, 60), "$proxy->{name} reads from the standby") or diag($proxy->log);
}
pause();

# ---- what the standby has ----

my $id;
is(standby_reads($one => sub {
	$id = $caller->command('Change', 's-1');
	my $call = next_call();
	is_deeply($call->{events}, ['{"n":1}'], 'a command is run on the story');
	changed($call, '{"n":2}');
	is(object($caller->answer($id)), '["shop.Changed",{"n":2}]', 'and answered');
}), 1, 'that the standby has');
is(stream('s-1'), '{"n":1} {"n":2}', 'and stored');

# ---- what it has not ----

append('s-2', '{"n":2}');
my $conflicts = $one->metric('conflicts_total');
is(standby_reads($one => sub {
	$id = $caller->command('Change', 's-2');
	my $call = next_call();
	is(scalar @{ $call->{events} }, 1, 'where the primary has more, a command is run on the old story');
	changed($call, '{"n":"old"}');
	$call = next_call();
	is_deeply($call->{events}, [ '{"n":1}', '{"n":2}' ], 'its event conflicts, and it is run again on that of the primary');
	changed($call, '{"n":3}');
	is(object($caller->answer($id)), '["shop.Changed",{"n":3}]', 'which is the answer');
}), 1, 'with one read from the standby');
is($one->metric('conflicts_total') - $conflicts, 1, 'and one conflict');
is(stream('s-2'), '{"n":1} {"n":2} {"n":3}', 'stored once');

append('s-3', '{"n":2}');
$id = $caller->command('Change', 's-3');
$handler->respond(next_call(), Evento::Bundle::exception('shop.Refused', 'there is but one'));
my $call = next_call();
is(scalar @{ $call->{events} }, 2, 'a refusal that is made of an old story is not passed on');
changed($call, '{"n":3}');
is(object($caller->answer($id)), '["shop.Changed",{"n":3}]', 'but what is said of the new one');

# ---- a repeat whose event it has not ----

$id = $caller->command('Change', 'new');
changed(next_call(), '{"try":1}');
is(object($caller->answer($id)), '["shop.Changed",{"try":1}]', 'a new stream');
# Its proxy takes what it remembers of the answer along.
is($one->stop('KILL'), 9, 'the proxy is killed');
$handler = $two->bundle(bundle => 'orders', instance => 'h2', names => [qw(Change Probe)]);
$caller = $two->bundle(bundle => 'caller', instance => 'c1');
$caller->reaches($handler);
$caller->command('Change', 'new', '{}', correlation => $id);
changed(next_call(), '{"try":2}');
is(object($caller->answer($id)), '["shop.Changed",{"try":1}]', 'a repeat at another proxy has the first answer, though the standby knows nothing of it');
is(stream('new'), '{"try":1}', 'and is stored once');

# ---- what was erased ----

# Statements of the control connection, with which notifications come.
my $control = sub { return ($two->get('/metrics'))[1] =~ /^evento_proxy_db_statement_duration_seconds_count\{lane="control"\} (\d+)$/m ? $1 : 0 };
$test->sql(q(SELECT evento.erase_stream('s-4', 'asked by letter')));
my $heard = $control->() + 3;
$two->wait_for(sub { $control->() >= $heard }, 30);
is(standby_reads($two => sub {
	$id = $caller->command('Change', 's-4');
	$call = next_call();
	is_deeply($call->{events}, [], 'what was erased is not in a story, though the standby has it yet');
	changed($call, '{"n":2}');
	ok($caller->answer($id), 'the command is answered');
}), 0, 'it is not asked');
is(standby_reads($two => sub {
	$id = $caller->command('Change', 's-5');
	changed(next_call(), '{"n":2}');
	$caller->answer($id);
}), 0, 'nor for others, until it has what was told since');

# ---- what the proxy has appended itself ----

$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$primary->wait_for_catchup($standby, 'replay');
is($two->wait_for(sub { standby_reads($two => sub { $id = $caller->command('Change', 's-' . int(rand 1e9)); changed(next_call(), '{}'); $caller->answer($id) }) == 1 }, 60), 1,
	'once it has, it is read from again');
pause();
$conflicts = $two->metric('conflicts_total');
is(standby_reads($two => sub {
	for my $n (2 .. 3)
	{
		$id = $caller->command('Change', 'large');
		$call = next_call();
		is(scalar @{ $call->{events} }, $n - 1, "a story too large to be kept, command $n");
		changed($call, qq({"n":$n}));
		$caller->answer($id);
	}
}), 1, 'is loaded from the primary after an append of this proxy');
is($two->metric('conflicts_total'), $conflicts, 'and there is no conflict');

# ---- none ----

$standby->stop('immediate');
$id = $caller->command('Change', 's-9');
changed(next_call(), '{"n":2}');
is(object($caller->answer($id)), '["shop.Changed",{"n":2}]', 'without a standby commands go on');
is($two->stop, 0, 'the proxy ends in order');
done_testing();
