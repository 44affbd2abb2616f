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
sub next_call { return call_of($handler->recv('REQ') // return { events => ['none'] }) }

sub call_of
{
	my ($req) = @_;
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

# Runs a command; the handler answers each time with the event that code makes of how often it was asked.  Gives the stories
# that it was given, the answer, the reads of the standby and the conflicts.  The standby is read from while this proxy's
# registration was renewed just now.
sub run
{
	my ($proxy, $stream, $code) = @_;
	my (@stories, $answer);
	my $conflicts = $proxy->metric('conflicts_total');
	my $reads = standby_reads($proxy => sub {
		$answer = $caller->answer_while($caller->command('Change', $stream), $handler, sub {
			push @stories, join(' ', @{ call_of($_[0])->{events} });
			$code->($_[0], scalar @stories);
		});
	});
	return sprintf "%s: %s, %d reads of the standby, %d conflicts", join(' | ', @stories), object($answer), $reads, $proxy->metric('conflicts_total') - $conflicts;
}

sub pause
{
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	$standby->poll_query_until('postgres', q(SELECT pg_get_wal_replay_pause_state() = 'paused')) or die 'replay goes on';
	return;
}

$caller->reaches($handler);
append("s-$_", '{"n":1}') for 4 .. 9;
# As many of each kind as there may be tries.
$test->sql(<<~'SQL');
	SELECT evento.append(kind || '-' || try, 'Changed', json_build_object('n', CASE kind WHEN 'large' THEN repeat('x', 200000) ELSE '1' END), class => 'shop.Changed')
	  FROM generate_series(1, 10) try, unnest('{has,more,refused,large}'::text[]) kind
	SQL
$primary->wait_for_catchup($standby, 'replay');
for my $proxy ($one, $two)
{
	my $http = Evento::Http->new($proxy->{http});
	ok($proxy->wait_for(sub { $http->get('/cluster')->{json}{reads}{from} eq 'standby' }, 60), "$proxy->{name} reads from the standby") or diag($proxy->log);
}
# All that was told before the first picture of it is behind it, too.
is($one->wait_for(sub { standby_reads($one => sub { my $id = $caller->command('Change', 's-' . int(rand 1e9)); changed(next_call(), '{}'); $caller->answer($id) }) == 1 }), 1,
	'and stories');
pause();

# ---- what the standby has ----

my $expected = '{"n" : "1"}: ["shop.Changed",{"n":2}], 1 reads of the standby, 0 conflicts';
my $stream;
is(Evento::ProxyTest::in_some_try($expected, sub {
	$stream = "has-$_[0]";
	return run($one, $stream, sub { changed($_[0], '{"n":2}') });
}), $expected, 'a command is run on the story that the standby has');
is(stream($stream), '{"n" : "1"} {"n":2}', 'and stored');

# ---- what it has not ----

# Where the primary has more, a command is run on the old story: its event conflicts, and it is run again on that of the primary.
$expected = '{"n" : "1"} | {"n" : "1"} {"n":2}: ["shop.Changed",{"n":"try 2"}], 1 reads of the standby, 1 conflicts';
is(Evento::ProxyTest::in_some_try($expected, sub {
	$stream = "more-$_[0]";
	append($stream, '{"n":2}');
	return run($one, $stream, sub { changed($_[0], qq({"n":"try $_[1]"})) });
}), $expected, 'and again on that of the primary, where that has more');
is(stream($stream), '{"n" : "1"} {"n":2} {"n":"try 2"}', 'stored once');

# A refusal that is made of an old story is not passed on, but what is said of the new one.
$expected = '{"n" : "1"} | {"n" : "1"} {"n":2}: ["shop.Changed",{"n":3}], 1 reads of the standby, 0 conflicts';
is(Evento::ProxyTest::in_some_try($expected, sub {
	append("refused-$_[0]", '{"n":2}');
	return run($one, "refused-$_[0]", sub { $_[1] == 1 ? $handler->respond($_[0], Evento::Bundle::exception('shop.Refused', 'there is but one')) : changed($_[0], '{"n":3}') });
}), $expected, 'a refusal that is made of an old story is not passed on');

# ---- a repeat whose event it has not ----

my $id = $caller->command('Change', 'new');
changed(next_call(), '{"try":1}');
is(object($caller->answer($id)), '["shop.Changed",{"try":1}]', 'a new stream');
# Its proxy takes what it remembers of the answer along.
is($one->stop('KILL'), 9, 'the proxy is killed');
$handler = $two->bundle(bundle => 'orders', instance => 'h2', names => [qw(Change Probe)]);
$caller = $two->bundle(bundle => 'caller', instance => 'c1');
$caller->reaches($handler);
$caller->command('Change', 'new', '{}', correlation => $id);
is(object($caller->answer_while($id, $handler, sub { changed($_[0], '{"try":2}') })), '["shop.Changed",{"try":1}]', 'a repeat at another proxy has the first answer, though the standby knows nothing of it');
is(stream('new'), '{"try":1}', 'and is stored once');

# ---- what was erased ----

# Statements of the control connection, with which notifications come.
my $control = sub { return ($two->get('/metrics'))[1] =~ /^evento_proxy_db_statement_duration_seconds_count\{lane="control"\} (\d+)$/m ? $1 : 0 };
$test->sql(q(SELECT evento.erase_stream('s-4', 'asked by letter')));
my $heard = $control->() + 3;
$two->wait_for(sub { $control->() >= $heard });
is(standby_reads($two => sub {
	$id = $caller->command('Change', 's-4');
	my $call = next_call();
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
# A story too large to be kept is loaded from the primary after an append of this proxy, and there is no conflict.
$expected = '1 events, 1 reads, 0 conflicts; 2 events, 0 reads, 0 conflicts';
is(Evento::ProxyTest::in_some_try($expected, sub {
	my ($try) = @_;
	return join '; ', map {
		my $n = $_;
		run($two, "large-$try", sub { changed($_[0], qq({"n":$n})) }) =~ /^(.*): [^,]*,.*, (\d+) reads of the standby, (\d+) conflicts$/
		  ? scalar(split /} /, $1) . " events, $2 reads, $3 conflicts" : '?'
	} 2 .. 3;
}), $expected, 'what this proxy has appended itself is never missing');

# ---- none ----

$standby->stop('immediate');
$id = $caller->command('Change', 's-9');
changed(next_call(), '{"n":2}');
is(object($caller->answer($id)), '["shop.Changed",{"n":2}]', 'without a standby commands go on');
is($two->stop, 0, 'the proxy ends in order');
done_testing();
