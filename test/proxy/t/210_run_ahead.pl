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
my ($one, $two) = ($test->start(flags => { 'append-connections' => 1, 'database-wait' => '1min' }), $test->start);
my $handler = $one->bundle(bundle => 'orders', instance => 'h1', names => [qw(Change Probe)]);
my $caller = $one->bundle(bundle => 'caller', instance => 'c1');
my $other = $two->bundle(bundle => 'caller', instance => 'c2');
$other->reaches($handler);

sub object { return $_[0]->{body}{serializedPayload}[1]{serializedObject} }
sub log_of { return $test->sql("SELECT coalesce(string_agg(version || (data->>'n'), ' ' ORDER BY version), '') FROM evento.read_stream('$_[0]')") }
sub event { return Evento::Bundle::domain_response('Changed', "{\"n\":\"$_[0]\"}", @_[1 .. $#_]) }

# A REQ of the handler: n of the command and of the events of its story, its state.  %ran keeps what each was run on last.
my %ran;
sub call_of
{
	my ($req) = @_;
	my $decorated = cbor_decode($req->{payload})->[1]{body}[1];
	my $n = sub { join(' ', map { /"n"\s*:\s*"(\w+)"/ ? $1 : '?' } @_) };
	$req->{n} = $n->($decorated->{commandMessage}[1]{serializedPayload}[1]{serializedObject});
	$req->{story} = $n->(map { $_->[1]{serializedPayload}[1]{serializedObject} } @{ $decorated->{eventStream}[1] });
	$req->{state} = $decorated->{serializedAggregateState}[1]{serializedObject};
	$ran{ $decorated->{commandMessage}[1]{aggregateId} }{ $req->{n} } = $req->{story};
	return $req;
}

# The next one.
sub next_call { return call_of($handler->recv('REQ', timeout => $_[0] // 40) // return undef) }

sub command { my ($caller, $stream, $n, %opt) = @_; return $caller->command('Change', $stream, "{\"n\":\"$n\"}", timeout => 120000, %opt) }

# Answers the next call with an event of the command's own n; says on which story.
sub handle
{
	my ($n) = @_;
	my $call = next_call();
	is($call->{n}, $n, "the handler gets $n");
	$handler->respond($call, event($n));
	return $call->{story};
}

# Runs a command; gives the stories that the handler was given with it, and what the answer says.  how: what the handler does.
sub run
{
	my ($from, $stream, $n, $how) = @_;
	my @stories;
	my $answer = $from->answer_while(command($from, $stream, $n), $handler, sub {
		my $call = call_of($_[0]);
		push @stories, $call->{story};
		$how ? $how->($call, scalar @stories) : $handler->respond($call, event($n));
	});
	my $said = object($answer) // $answer->{body}{message} // 'no answer';
	return join(' | ', @stories) . ": $said\n";
}

# ---- a kept story ----

my $expected = <<'END';
: ["shop.Changed",{"n":"a"}]
a: ["shop.Changed",{"n":"b"}]
loaded 0, kept 1
a b: ["shop.Changed",{"n":"c"}]
a b | a b c: ["shop.Changed",{"n":"d"}]
1a 2b 3c 4d
a b c | a b c d: closed on story 2
a b c d | a b c d: failed on story 2
END
my $kept;
# A new aggregate; the next command is run on the story with the event of the first, which is not loaded but kept; through
# another proxy; then here the story is behind, which the append shows: again on a new one.  A refusal is not passed on from
# a story that may be behind, nor is a failure.
is(Evento::ProxyTest::in_some_try($expected, sub {
	$kept = "k-$_[0]";
	my $got = run($caller, $kept, 'a');
	my %before = map { $_ => $one->metric("story_${_}_total") } qw(loads hits);
	$got .= run($caller, $kept, 'b');
	$got .= sprintf "loaded %d, kept %d\n", map { $one->metric("story_${_}_total") - $before{$_} } qw(loads hits);
	$got .= run($other, $kept, 'c') . run($caller, $kept, 'd') . log_of($kept) . "\n";
	# The other proxy is behind now; what it loads for the refusal it keeps.
	for my $how ([ 'e', sub { $handler->respond($_[0], Evento::Bundle::exception('java.lang.IllegalStateException', "closed on story $_[1]")) } ],
		[ 'f', sub { $handler->fail($_[0], 'java.lang.RuntimeException', "failed on story $_[1]") } ])
	{
		$got .= run($other, $kept, @$how);
	}
	return $got;
}), $expected, 'stories are kept, and loaded where they may be behind');

# ---- changes without an event ----

# Changes a story that the first proxy keeps, which it hears of soon.
sub is_heard
{
	my $bytes = $one->metric('story_bytes');
	$test->sql($_[0]);
	return $one->wait_for(sub { $one->metric('story_bytes') < $bytes });
}

ok(is_heard("SELECT evento.delete_stream('$kept')"), 'a deletion is heard of');
my $id = command($caller, $kept, 'f');
is(handle('f'), '', 'after delete_stream the story is empty');
ok($caller->answer($id), 'answered');
is(log_of($kept), '5f', 'and the versions go on');

# Deleted while the handler is at work on a story that was loaded just before: its event is of a story that is no more,
# and so would be that of the command behind it.
$test->sql(q{SELECT evento.append('a-2', 'Changed', '{"n":"o"}')});
$id = command($caller, 'a-2', 'p');
my $call = next_call();
is("$call->{n} $call->{story}", 'p o', 'the handler is at work on a loaded story');
$test->sql(q{SELECT evento.delete_stream('a-2')});
$handler->respond($call, event('p'));
ok(object($caller->answer_while($id, $handler, sub { $call = call_of($_[0]); $handler->respond($call, event('p')) })), 'answered');
is("$call->{n} $call->{story}", 'p ', 'it is run again, on what is left');
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

$test->sql(qq{SELECT evento.save_snapshot('$kept', 5, '{"n":"snapshot"}', 'shop.State')});
ok($one->wait_for(sub {
	$caller->answer_while(command($caller, $kept, 'g'), $handler, sub { $call = call_of($_[0]); $handler->respond($call, event('g')) });
	return $call->{state} =~ /snapshot/;
}), 'a snapshot that SQL has saved is taken up');
$id = command($caller, $kept, 'h');
$call = next_call();
like($call->{state}, qr/snapshot/, 'and kept');
$handler->respond($call, event('h', state => '{"n":"mine"}'));
ok($caller->answer($id), 'answered');
$id = command($caller, $kept, 'i');
$call = next_call();
is($call->{state} . $call->{story}, '["shop.State",{"n":"mine"}]', 'a snapshot of the handler takes the place of the events');
$handler->respond($call, event('i'));
ok($caller->answer($id), 'answered');
$test->sql("SELECT evento.drop_snapshots('$kept')");
ok($one->wait_for(sub {
	$caller->answer_while(command($caller, $kept, 'j'), $handler, sub { $call = call_of($_[0]); $handler->respond($call, event('j')) });
	return $call->{state} eq 'null';
}), 'that snapshots were dropped is heard');

# ---- ahead of the log ----

# Has the handler answer commands of these n on a new stream, of which hold (called with its name) has seen to it that
# nothing is stored; where the last is ?, the one before it is asked and not answered.  Each is to be run on the events of those
# before it.  Where the registration was not renewed in time meanwhile nothing runs ahead: then let go is called, and another
# stream tried.  Gives the stream, the call that is not answered, and the ids.
sub run_ahead
{
	my ($name, $n, $hold, $let_go, %opt) = @_;
	my @n = grep { $_ ne '?' } split / /, $n;
	my $expected = join ', ', map { $n[$_] . ' on ' . join(' ', 'o', @n[ 0 .. $_ - 1 ]) } 0 .. $#n;
	my ($stream, $open, @ids);
	my $got = Evento::ProxyTest::in_some_try($expected, sub {
		my ($try) = @_;
		if ($try > 1)
		{
			$let_go->();
			$handler->respond($open, event($open->{n})) if $open;
			goes_on($stream, qr/^1o/, @ids);
		}
		$stream = "$name-$try";
		my $id = command($caller, $stream, 'o', %opt);
		handle('o');
		$caller->answer($id);
		$hold->($stream);
		@ids = map { command($caller, $stream, $_, %opt) } @n;
		my @got;
		undef $open;
		for my $i (0 .. $#n)
		{
			$open = next_call(5) or last;
			push @got, "$open->{n} on $open->{story}";
			next if $i == $#n && $n =~ /\?/;
			$handler->respond($open, event($open->{n}));
			undef $open;
		}
		return join ', ', @got;
	});
	is($got, $expected, "$name: each is run while the first waits for its commit");
	return ($stream, $open, @ids);
}

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
	}, 120);
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

# All of it is stored in the end.
my $batches;
my ($stream, undef, @ids) = run_ahead('b', 'p q r s', sub { $batches = $one->metric('append_batches_total'); $test->standby_missing(1) }, sub { $test->standby_missing(0) });
is($caller->answer($ids[0], timeout => 0.3), undef, 'nobody is answered before the commit');
$test->standby_missing(0);
ok(object($caller->answer($_)), 'answered') for @ids;
is(log_of($stream), '1o 2p 3q 4r 5s', 'all are stored, in order');
is($one->metric('append_batches_total') - $batches, 2, 'those that came while the first was on its way went with one batch');

# The first is not stored: another has appended as many events as make the others' versions fit, and the one's whose
# handler is at work.
my $blocker = $test->node->background_psql('postgres');
for my $lock ('itself', 'none')
{
	($stream, $call, @ids) = run_ahead("c-$lock", 'p q r s t ?',
		sub { $blocker->query_safe("BEGIN; SELECT evento.append('$_[0]', 'Changed', json_build_object('n', n)) FROM unnest('{w,x,y,z}'::text[]) n") },
		sub { $blocker->query_safe('COMMIT') }, $lock eq 'none' ? (lock => undef) : ());
	my $conflicts = $one->metric('conflicts_total');
	$blocker->query_safe('COMMIT');
	ok($one->wait_for(sub { $one->metric('conflicts_total') > $conflicts }), 'the first meets a conflict');
	$handler->respond($call, event('t'));
	goes_on($stream, qr/^1o 2w 3x 4y 5z 6\w 7\w 8\w 9\w 10\w$/, @ids);
}

# The first is stored, and another appends before those behind it, which are sent together.
($stream, undef, @ids) = run_ahead('f', 'p q r s', sub { $test->standby_missing(1) }, sub { $test->standby_missing(0) });
Evento::Cluster::send_to($blocker, qq{SELECT evento.append('$stream', 'Changed', '{"n":"x"}');});
$test->node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT evento.append%')) or die 'does not wait';
$test->standby_missing(0);
goes_on($stream, qr/^1o 2p 3x 4\w 5\w 6\w$/, @ids);
$blocker->query_safe('SELECT 1');
$blocker->quit;

# The connection breaks while the first is on its way, and nobody knows whether it is stored.
for my $end ('pg_terminate_backend', 'crash')
{
	($stream, undef, @ids) = run_ahead("d-$end", 'p q r s', sub { $test->standby_missing(1) }, sub { $test->standby_missing(0) });
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
