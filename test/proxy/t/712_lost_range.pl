# 712_lost_range.pl
#   An asynchronous failover under Patroni that loses events: the primary is
#   killed with commits that its standby never received, and which consumers have
#   read: a bundle's projector, one in SQL, one that keeps its position
#   elsewhere, and a reader of server-sent events.  Nothing that is lost is given
#   to anybody afterwards, no position is given twice, everybody goes on behind
#   the jump, and who has read lost events is named, or told.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::Http;
use Evento::Patroni;
use Evento::ProxyTest;

my $why = Evento::Patroni::why_not();
plan skip_all => $why if $why;

# No failover but the one that is meant: a busy machine may keep etcd waiting.  And a standby that gets nothing does not ask anew.
my $cluster = Evento::Patroni->new(nodes => 2, ttl => 20, loop_wait => 2, retry_timeout => 8, synchronous_mode => 'false', synchronous_mode_strict => 'false',
	parameters => "    wal_sender_timeout: 5min\n    wal_receiver_timeout: 5min\n");
$cluster->start_all(120) or BAIL_OUT(join "\n", map { $cluster->log($_) } $cluster->names);
$cluster->sql('CREATE EXTENSION evento; CREATE ROLE proxy LOGIN IN ROLE evento_proxy');
my $test = Evento::ProxyTest->new(node => $cluster);
my ($one, $two) = map { $test->start(flags => { database => $cluster->hosts . ' user=proxy', 'fetch-hold' => '200ms', 'telemetry-interval' => '100ms', 'http-keep-alive' => '300ms' }) } 1 .. 2;
my $old = $cluster->some_primary;
my ($new) = grep { $_ ne $old } $cluster->names;

my $bundle = $one->bundle(bundle => 'shop', instance => 's1');
my ($ahead, $behind) = map { "shop_${_}_1_*" } qw(Ahead Behind);
$bundle->consumers(Projector => { Ahead => [$ahead], Behind => [$behind] });
my $stream = Evento::Http->new($one->{http})->events('/events?after=0');

# What a component of a bundle is given behind a position: [position, stream] each.
sub fetched
{
	my ($from, $after, $component) = @_;
	my $answer = $from->answer($from->fetch($after, component => $component), timeout => 30) // {};
	return [ map { [ $_->[1]{eventSequenceNumber}, $_->[1]{aggregateId} ] } @{ $answer->{body}{events}[1] // [] } ];
}

# The same as it comes to be: an answer may be empty where the proxy has not yet heard of what is new, and has nothing else before.
sub comes
{
	my ($from, $after, $component, $all, $what) = @_;
	my $got;
	$one->wait_for(sub { $got = fetched($from, $after, $component); @$got });
	return is_deeply($got, $all, $what);
}

# The next event of a stream: "position stream".
sub streamed { my ($from) = @_; my $event = $from->event(60) // {}; return join ' ', map { $_ // 'none' } @{$event}{qw(position stream)} }

sub consumers { my ($what) = @_; return $cluster->sql("SELECT string_agg(consumer, ' ' ORDER BY consumer) FROM evento.consumers WHERE $what") }

# ---- what both have ----

$cluster->sql(q(SELECT evento.append('kept', 'T', '{}') FROM generate_series(1, 3); CALL evento.wait(NULL)));
comes($bundle, 0, 'Ahead', [ map { [ $_, 'kept' ] } 1 .. 3 ], 'a consumer of a bundle reads');
is(streamed($stream), "$_ kept", "a stream of events has $_") for 1 .. 3;
my $epoch = $cluster->sql(q(SELECT epoch FROM evento.consumer_claim('reports', '1 h')));
$cluster->sql("SELECT evento.consumer_ack('reports', 3, $epoch)");
Evento::Patroni::until_true(60, sub { $cluster->sql('SELECT count(*) = 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_flush_lsn()') eq 't' }) or die 'the standby does not follow';

# ---- what the standby never gets ----

# The process that sends it WAL stands still, so that it can get none.
my $sender = $cluster->sql('SELECT pid FROM pg_stat_replication');
kill 'STOP', $sender;
$cluster->sql(q(SELECT evento.append('lost', 'T', '{}') FROM generate_series(1, 2); CALL evento.wait(NULL)));
comes($bundle, 3, 'Ahead', [ [ 4, 'lost' ], [ 5, 'lost' ] ], 'the bundle reads what the standby has not');
is(streamed($stream), "$_ lost", "and so does the stream, $_") for 4, 5;
is($cluster->sql("SELECT evento.consumer_ack('reports', 5, $epoch)"), 't', 'and the consumer in SQL');
ok($one->wait_for(sub { fetched($bundle, 5, 'Ahead'); ($cluster->sql("SELECT position FROM evento.consumers WHERE consumer = '$ahead'") || 0) == 5 }), 'which the database knows')
  or diag($cluster->sql('SELECT consumer, position FROM evento.consumers'));

my $since = time;
$cluster->kill_node($old);
kill 'KILL', $sender;
ok(Evento::Patroni::until_true(120, sub { ($cluster->primary // '') eq $new }), 'the other node is the primary') or diag($cluster->log($new));
$_->wait_http('/readyz', 60) for $one, $two;

# ---- nothing of it is given any more ----

is($cluster->sql(q(SELECT count(*) FROM evento.read_stream('lost'))), '0', 'events are lost');
is_deeply(fetched($bundle, 3, 'Behind'), [], 'who has not read them gets none from memory');
is_deeply(fetched($bundle, 5, 'Ahead'), [], 'who has gets nothing at all yet');
my $again = Evento::Http->new($two->{http})->events('/events', 'Last-Event-ID' => 5);
like($again->head, qr{^HTTP/1\.\d 200}, 'a reader comes back at another proxy with a position beyond the end');
for my $case ([ $stream, 'the stream that stood all the time' ], [ $again, 'the one that came back' ])
{
	is(($case->[0]->event(60, 'lost_range') // {})->{last_position}, 3, "$case->[1] is told, before there is anything new");
}

$cluster->sql(q(SELECT evento.append('after', 'T', '{}') FROM generate_series(1, 2); CALL evento.wait(NULL)));
my ($first) = $cluster->sql(q(SELECT min(position) FROM evento.events WHERE stream = 'after')) =~ /^(\d+)$/;
cmp_ok($first, '>', 1_000_000, 'the log goes on behind a jump, so that no position is given twice');
my @after = ([ $first, 'after' ], [ $first + 1, 'after' ]);
my $got;
for my $case ([ 'Behind', 3, 'has not read them' ], [ 'Ahead', 5, 'has' ])
{
	my ($component, $at, $who) = @$case;
	$one->wait_for(sub { $got = fetched($bundle, $at, $component); @$got == 2 });
	is_deeply($got, \@after, "a bundle's consumer that $who goes on behind it");
}
for my $reader ([ $stream, 'the stream that stood all the time' ], [ $again, 'the one that came back' ])
{
	is(streamed($reader->[0]), "@$_", "$reader->[1] goes on with $_->[0]") for @after;
}

# ---- who has read them is named ----

# What SQL says besides its output.
sub told
{
	my ($sql) = @_;
	my $err = '';
	IPC::Run::run([ 'psql', '-XqAt', '-v', 'VERBOSITY=verbose', '-d', $cluster->hosts . ' target_session_attrs=read-write user=postgres' ], '<', \$sql, '>', \my $out, '2>', \$err);
	return $err;
}

ok($one->wait_for(sub { fetched($bundle, 5, 'Ahead'); consumers('lost_range') eq $ahead }), 'a consumer of a bundle that stands amid what was lost is named, and no other')
  or diag($cluster->sql('SELECT consumer, position, lost_range FROM evento.consumers'));
is($cluster->sql(q(SELECT position FROM evento.consumers WHERE consumer = 'reports')), '3', 'a checkpoint in the database went back with the events');
like(told("SELECT evento.consumer_ack('reports', $first, $epoch, after => 5)"), qr/ERROR:  V0008/, 'its owner, who believes to be further, is told');
like(told(q(SELECT * FROM evento.consumer_claim('elsewhere', '1 h', start => 5))), qr/WARNING:.*consumer "elsewhere" may have read events that are lost/, 'so is one that comes with a position from elsewhere');
is(consumers('lost_range'), "elsewhere $ahead", 'which is named as well');
my $doctor = $cluster->sql(q(SELECT string_agg(subject, ' ' ORDER BY subject) FROM evento.doctor() WHERE severity = 'error'));
like($doctor, qr/consumer \Q$_\E/, "doctor() names $_") for 'elsewhere', $ahead;
is($cluster->sql("SELECT last_position || ' ' || next_position FROM evento.jumps"), "3 $first", 'what was lost is recorded, for who compares himself');

# Who keeps a position elsewhere compares.  The picture that a proxy gives may be a second old.
my $jumps = sub { join ', ', map { "$_->{last_position} $_->{next_position}" } @{ (Evento::Http->new($two->{http})->get('/cluster')->{json} // {})->{jumps} // [] } };
ok($two->wait_for(sub { $jumps->() eq "3 $first" }), 'over HTTP, too') or diag($jumps->());

# A bundle's consumer goes on, and is named until somebody has repaired what it made.
ok($one->wait_for(sub { fetched($bundle, $first + 1, 'Ahead'); $cluster->sql("SELECT position > $first FROM evento.consumers WHERE consumer = '$ahead'") eq 't' }, 60), 'it has passed');
is(consumers('lost_range'), "elsewhere $ahead", 'and is named yet');
is($cluster->sql("SELECT evento.consumer_repaired('$ahead')"), 't', 'until it is repaired');
is(consumers('lost_range'), 'elsewhere', 'and then no more');

is($_->stop, 0, "$_->{name} ends in order") for $one, $two;
$cluster->stop;
note sprintf '%.1f s since the primary was killed', time - $since;
done_testing();
