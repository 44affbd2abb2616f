# 210_run_ahead.pl
#   Commands on one aggregate that do not wait for the commit of the one before:
#   kept stories, events that are not stored yet, and what becomes of commands
#   that were run on an event that was not stored in the end.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Bundle;
use Evento::Cbor;
use Evento::Cluster;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new(conf => "wal_level = replica\nmax_wal_senders = 4\n");
my ($one, $two) = ($test->start(flags => { 'append-connections' => 1 }), $test->start);
my $handler = $one->bundle(bundle => 'orders', instance => 'h1', names => [qw(Change Probe)]);
my $caller = $one->bundle(bundle => 'caller', instance => 'c1');
my $other = $two->bundle(bundle => 'caller', instance => 'c2');
$other->reaches($handler);

sub object { return $_[0]->{body}{serializedPayload}[1]{serializedObject} }
sub log_of { return $test->sql("SELECT coalesce(string_agg(version || (data->>'n'), ' ' ORDER BY version), '') FROM evento.read_stream('$_[0]')") }
sub event { return Evento::Bundle::domain_response('Changed', "{\"n\":\"$_[0]\"}", @_[1 .. $#_]) }

# The next REQ of the handler: n of the command and of the events of its story, its state.  %ran keeps what each was run on last.
my %ran;
sub next_call
{
	my $req = $handler->recv('REQ', timeout => $_[0] // 30) or return undef;
	my $decorated = cbor_decode($req->{payload})->[1]{body}[1];
	my $n = sub { join(' ', map { /"n"\s*:\s*"(\w+)"/ ? $1 : '?' } @_) };
	$req->{n} = $n->($decorated->{commandMessage}[1]{serializedPayload}[1]{serializedObject});
	$req->{story} = $n->(map { $_->[1]{serializedPayload}[1]{serializedObject} } @{ $decorated->{eventStream}[1] });
	$req->{state} = $decorated->{serializedAggregateState}[1]{serializedObject};
	$ran{ $decorated->{commandMessage}[1]{aggregateId} }{ $req->{n} } = $req->{story};
	return $req;
}

sub command { my ($caller, $stream, $n, %opt) = @_; return $caller->command('Change', $stream, "{\"n\":\"$n\"}", %opt) }

# Answers the next call with an event of the command's own n; says on which story.
sub handle
{
	my ($n) = @_;
	my $call = next_call();
	is($call->{n}, $n, "the handler gets $n");
	$handler->respond($call, event($n));
	return $call->{story};
}

# ---- a kept story ----

my $id = command($caller, 'a-1', 'a');
is(handle('a'), '', 'a new aggregate');
is(object($caller->answer($id)), '["shop.Changed",{"n":"a"}]', 'answered');
my $loads = $one->metric('story_loads_total');
$id = command($caller, 'a-1', 'b');
is(handle('b'), 'a', 'the next is run on the story with the event of the first');
ok($caller->answer($id), 'answered');
is($one->metric('story_loads_total'), $loads, 'which was not loaded');
is($one->metric('story_hits_total'), 1, 'but kept');

# What another proxy has appended since.
$id = command($other, 'a-1', 'c');
is(handle('c'), 'a b', 'through another proxy');
ok($other->answer($id), 'answered');
$id = command($caller, 'a-1', 'd');
is(handle('d'), 'a b', 'here the story is behind');
is(handle('d'), 'a b c', 'which the append shows: again on a new one');
ok($caller->answer($id), 'answered');
is(log_of('a-1'), '1a 2b 3c 4d', 'each is stored once');

# A refusal is not passed on from a story that may be behind.
$id = command($other, 'a-1', 'e');
my $call = next_call();
is($call->{story}, 'a b c', 'the other proxy is behind');
$handler->respond($call, Evento::Bundle::exception('java.lang.IllegalStateException', 'no d yet'));
$call = next_call();
is($call->{story}, 'a b c d', 'a refusal of a story that was kept: again on a new one');
$handler->respond($call, Evento::Bundle::exception('java.lang.IllegalStateException', 'closed by d'));
like($other->answer($id)->{body}{message} // '', qr/closed by d/, 'whose refusal is the answer');
$id = command($other, 'a-1', 'e');
$call = next_call();
$handler->fail($call, 'java.lang.RuntimeException', 'failed on what was kept');
$call = next_call();
$handler->fail($call, 'java.lang.RuntimeException', 'failed on what was loaded');
like($other->answer($id)->{body}{message} // '', qr/what was loaded/, 'a failure neither');

# ---- changes without an event ----

# Changes a story that the first proxy keeps, which it hears of soon.
sub is_heard
{
	my $bytes = $one->metric('story_bytes');
	$test->sql($_[0]);
	return $one->wait_for(sub { $one->metric('story_bytes') < $bytes });
}

ok(is_heard(q{SELECT evento.delete_stream('a-1')}), 'a deletion is heard of');
$id = command($caller, 'a-1', 'f');
is(handle('f'), '', 'after delete_stream the story is empty');
ok($caller->answer($id), 'answered');
is(log_of('a-1'), '5f', 'and the versions go on');

# Deleted while the handler is at work on a story that was loaded just before: its event is of a story that is no more,
# and so would be that of the command behind it.
$test->sql(q{SELECT evento.append('a-2', 'Changed', '{"n":"o"}')});
$id = command($caller, 'a-2', 'p');
$call = next_call();
is("$call->{n} $call->{story}", 'p o', 'the handler is at work on a loaded story');
$test->sql(q{SELECT evento.delete_stream('a-2')});
$handler->respond($call, event('p'));
is(handle('p'), '', 'it is run again, on what is left');
ok(object($caller->answer($id)), 'answered');
is(log_of('a-2'), '2p', 'and stored once');

# Erased while the handler is at work: its snapshot would bring back what is erased.
$test->sql(q{SELECT evento.append('a-3', 'Changed', '{"n":"o"}')});
$id = command($caller, 'a-3', 'p');
$call = next_call();
is("$call->{n} $call->{story}", 'p o', 'the handler is at work on a loaded story');
ok(is_heard(q{SELECT evento.erase_stream('a-3', 'a test')}), 'the erasure is heard of');
$handler->respond($call, event('p', state => '{"n":"o and p"}'));
$call = next_call();
is("$call->{n} $call->{story}", 'p ', 'it is run again, on what is left');
$handler->respond($call, event('p', state => '{"n":"p alone"}'));
ok(object($caller->answer($id)), 'answered');
is($test->sql(q{SELECT state->>'n' FROM evento._snapshots WHERE stream = 'a-3'}), 'p alone', 'with the snapshot of that');

$test->sql(q{SELECT evento.save_snapshot('a-1', 5, '{"n":"snapshot"}', 'shop.State')});
ok($one->wait_for(sub {
	$id = command($caller, 'a-1', 'g');
	$call = next_call();
	$handler->respond($call, event('g'));
	$caller->answer($id);
	return $call->{state} =~ /snapshot/;
}), 'a snapshot that SQL has saved is taken up');
$id = command($caller, 'a-1', 'h');
$call = next_call();
like($call->{state}, qr/snapshot/, 'and kept');
$handler->respond($call, event('h', state => '{"n":"mine"}'));
ok($caller->answer($id), 'answered');
$id = command($caller, 'a-1', 'i');
$call = next_call();
is($call->{state} . $call->{story}, '["shop.State",{"n":"mine"}]', 'a snapshot of the handler takes the place of the events');
$handler->respond($call, event('i'));
ok($caller->answer($id), 'answered');
$test->sql(q{SELECT evento.drop_snapshots('a-1')});
ok($one->wait_for(sub {
	$id = command($caller, 'a-1', 'j');
	$call = next_call();
	$handler->respond($call, event('j'));
	$caller->answer($id);
	return $call->{state} eq 'null';
}), 'that snapshots were dropped is heard');

# ---- ahead of the log ----

sub story_of_four
{
	my ($stream, %opt) = @_;
	my @ids = map { command($caller, $stream, $_, %opt) } qw(p q r s);
	is(handle('p'), 'o', 'the first');
	is(handle('q'), 'o p', 'the second is run while the first waits for its commit');
	is(handle('r'), 'o p q', 'the third');
	is(handle('s'), 'o p q r', 'the fourth');
	return @ids;
}

$id = command($caller, 'b-1', 'o');
handle('o');
$caller->answer($id);

# All of it is stored in the end.
my $batches = $one->metric('append_batches_total');
$test->standby_missing(1);
my @ids = story_of_four('b-1');
is($caller->answer($ids[0], timeout => 0.3), undef, 'nobody is answered before the commit');
$test->standby_missing(0);
ok(object($caller->answer($_)), 'answered') for @ids;
is(log_of('b-1'), '1o 2p 3q 4r 5s', 'all are stored, in order');
is($one->metric('append_batches_total') - $batches, 2, 'those that came while the first was on its way went with one batch');

# Handles what is asked until all are answered; each must be stored once, and have been run on what is before it in the log.
sub goes_on
{
	my ($stream, $pattern, @ids) = @_;
	my @gone;
	my %open = map { $_ => 1 } @ids;
	$one->wait_for(sub {
		while (my $call = next_call(0.05))
		{
			$handler->respond($call, event($call->{n}));
		}
		for my $id (keys %open)
		{
			my $answer = $caller->answer($id, timeout => 0.01) or next;
			delete $open{$id};
			push @gone, $id if !object($answer);
		}
		return !%open;
	}, 60);
	is(scalar(keys %open) + @gone, 0, "$stream: all are answered");
	my $log = log_of($stream);
	like($log, $pattern, "$stream: each is stored once");
	my @order = map { s/^\d+//r } split / /, $log;
	for my $i (grep { defined $ran{$stream}{ $order[$_] } } 0 .. $#order)
	{
		is($ran{$stream}{ $order[$i] }, join(' ', @order[0 .. $i - 1]), "$stream: $order[$i] was run on what is before it in the log");
	}
	return;
}

# The first is not stored: another has appended as many events as make the others' versions fit, and the one's whose
# handler is at work.
my $blocker = $test->node->background_psql('postgres');
for my $lock ('itself', 'none')
{
	my $stream = "c-$lock";
	my %opt = $lock eq 'none' ? (lock => undef) : ();
	$id = command($caller, $stream, 'o', %opt);
	handle('o');
	$caller->answer($id);
	$blocker->query_safe("BEGIN; SELECT evento.append('$stream', 'Changed', json_build_object('n', n)) FROM unnest('{w,x,y,z}'::text[]) n");
	@ids = (story_of_four($stream, %opt), command($caller, $stream, 't', %opt));
	$call = next_call();
	is("$call->{n} $call->{story}", 't o p q r s', 'the handler is at work with a fifth');
	my $conflicts = $one->metric('conflicts_total');
	$blocker->query_safe('COMMIT');
	ok($one->wait_for(sub { $one->metric('conflicts_total') > $conflicts }), 'the first meets a conflict');
	$handler->respond($call, event('t'));
	goes_on($stream, qr/^1o 2w 3x 4y 5z 6\w 7\w 8\w 9\w 10\w$/, @ids);
}

# The first is stored, and another appends before those behind it, which are sent together.
$id = command($caller, 'f-1', 'o');
handle('o');
$caller->answer($id);
$test->standby_missing(1);
@ids = story_of_four('f-1');
Evento::Cluster::send_to($blocker, q{SELECT evento.append('f-1', 'Changed', '{"n":"x"}');});
$test->node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT evento.append%')) or die 'does not wait';
$test->standby_missing(0);
goes_on('f-1', qr/^1o 2p 3x 4\w 5\w 6\w$/, @ids);
$blocker->query_safe('SELECT 1');
$blocker->quit;

# The connection breaks while the first is on its way, and nobody knows whether it is stored.
for my $end ('pg_terminate_backend', 'crash')
{
	my $stream = "d-$end";
	$id = command($caller, $stream, 'o');
	handle('o');
	$caller->answer($id);
	$test->standby_missing(1);
	@ids = story_of_four($stream);
	$test->node->poll_query_until('postgres', q(SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%append_batch%')) or die 'nothing waits';
	if ($end eq 'crash')
	{
		$test->node->stop('immediate');
		$test->node->append_conf('postgresql.auto.conf', "synchronous_standby_names = ''\n");
		$test->node->start;
	}
	else
	{
		$test->sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%append_batch%'));
		$test->standby_missing(0);
	}
	goes_on($stream, qr/^1o( \d\w){4}$/, @ids);
	is_deeply([ sort map { s/^\d+//r } split / /, log_of($stream) ], [qw(o p q r s)], "$end: each is there");
}

# ---- an end of the aggregate in the middle ----

$id = command($caller, 'e-1', 'o');
handle('o');
$caller->answer($id);
@ids = map { command($caller, 'e-1', $_) } qw(p q);
$call = next_call();
$handler->respond($call, event('p', deleted => 1));
$call = next_call();
is("$call->{n} $call->{story}", 'q o p', 'behind a deletion the story is loaded, as the bundle has to see it');
$handler->respond($call, Evento::Bundle::exception('java.lang.IllegalStateException', 'deleted'));
ok(object($caller->answer($ids[0])), 'the deletion is answered');
like($caller->answer($ids[1])->{body}{message} // '', qr/deleted/, 'and the command behind it refused');

done_testing();
