# 213_standby_reads.pl
#   Reads from a standby: what reads come from it, how old they may be, what a
#   reader that says what it has seen gets; while it follows, stands still, comes
#   back, dies and is promoted.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use Evento::Bundle;
use Evento::Http;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new(conf => "wal_level = replica\nmax_wal_senders = 5\nhot_standby = on\nhot_standby_feedback = on\n");
my $primary = $test->node;
my $standby = $test->standby;

my $hosts = sprintf 'host=%s,%s port=%s,%s dbname=postgres user=proxy target_session_attrs=read-write', $primary->host, $standby->host, $primary->port, $standby->port;

# One that reads from the standby whatever its age, one that does while it is near, and one that does not at all.
my %lag = (old => '60min', near => '6s');
my %proxy = map { $_ => $test->start(flags => { database => $hosts, 'read-from' => 'standby', 'standby-lag' => $lag{$_} }) } keys %lag;
$proxy{primary} = $test->start(flags => { database => $hosts });
my %http = map { $_ => Evento::Http->new($proxy{$_}{http}) } keys %proxy;

sub reads { my ($which) = @_; return $http{$which}->get('/cluster')->{json}{reads} }

sub reads_from
{
	my ($which, $from, $what) = @_;
	ok($proxy{$which}->wait_for(sub { reads($which)->{from} eq $from }, 60), $what) or diag(explain(reads($which)), $proxy{$which}->log);
	return;
}

# How many reads the standby did while code ran.
sub standby_reads
{
	my ($which, $code) = @_;
	my $before = $proxy{$which}->metric('standby_reads_total');
	$code->();
	return $proxy{$which}->metric('standby_reads_total') - $before;
}

# The types that a read gives that is done by the standby: the proxy hears of what it has a moment after it has it.
sub from_standby
{
	my ($which, $path, %headers) = @_;
	my $answer;
	$proxy{$which}->wait_for(sub { standby_reads($which => sub { $answer = $http{$which}->get($path, %headers) }) == 1 }) or return 'none';
	return types($answer);
}

sub append { my ($stream, @types) = @_; return $test->sql("SELECT evento.append('$stream', '$_', '{}')") for @types; }

# The newest position that can be read on the primary.
sub newest { return $test->sql('CALL evento.wait(NULL)') }

sub types { my ($answer) = @_; return join ' ', map { $_->{type} } @{ $answer->{json}{events} // [] } }

sub pause
{
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	$standby->poll_query_until('postgres', q(SELECT pg_get_wal_replay_pause_state() = 'paused')) or die 'replay goes on';
	return;
}

sub resume
{
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	$primary->wait_for_catchup($standby, 'replay');
	return;
}

# ---- it follows ----

append('s', 'A');
reads_from($_, 'standby', "$_: reads go to the standby") for qw(old near);
my ($at) = @{ reads('near')->{standbys} };
is_deeply([ @{$at}{qw(host port)} ], [ $standby->host, $standby->port ], 'which /cluster tells');
cmp_ok($at->{lag_seconds}, '<=', 6, 'with its lag');
is_deeply(reads('primary'), { from => 'primary', standbys => [] }, 'without the setting they go to the primary');
ok($proxy{near}->metric('standbys') > 0, 'and so do the metrics');

my $position = newest();
is(from_standby('old', '/streams/s', 'Evento-Position' => $position), 'A', 'a stream comes from the standby');
is(from_standby('old', '/events?after=0', 'Evento-Position' => $position), 'A', 'and so does the log');
is($http{old}->get('/streams/s', 'Evento-Position' => 'x')->{status}, 400, 'a position that is none is refused');
is($http{old}->get('/streams/s', 'Evento-Stream-Version' => '-1')->{status}, 400, 'so is such a version');
is($http{old}->get('/events?after=0', 'Evento-Position' => 'x')->{status}, 400, 'and for events');

# ---- it stands still ----

pause();
append('s', 'B');
$position = newest();
is(standby_reads(old => sub { is(types($http{old}->get('/streams/s')), 'A', 'a standby that stands still has the old') }), 1, 'where it may be so old');
is(types($http{old}->get('/events?after=0')), 'A', 'as the log');
is(types($http{primary}->get('/streams/s')), 'A B', 'the primary has the new');
is(types($http{old}->get('/streams/s', 'Evento-Position' => $position)), 'A B', 'who has seen a position gets it from the primary');
is(types($http{old}->get('/events?after=0', 'Evento-Position' => $position)), 'A B', 'also from the log');
is(types($http{old}->get('/streams/s', 'Evento-Stream-Version' => 2)), 'A B', 'so does who has seen a version');
my $answer = $http{old}->post('/streams/t', '{"type": "C", "data": {}}');
is($http{old}->get('/streams/t')->{status}, 404, 'a new stream is not on the standby');
is(types($http{old}->get('/streams/t', 'Evento-Stream-Version' => $answer->{headers}{'evento-stream-version'})), 'C', 'but is for who appended it');
$answer = $http{old}->get('/events?wait=30s&after=' . $position);
is(types($answer), 'C', 'who waits at the head gets what is new');
my $deleted = $answer->{json}{position};

reads_from(near => 'primary', 'one that is near enough is not there any more');
is(standby_reads(near => sub { is(types($http{near}->get('/streams/s')), 'A B', 'reads go to the primary') }), 0, 'and not to the standby');
is($proxy{near}->metric('standbys'), 0, 'the metrics tell');
ok((grep { defined $_->{lag_seconds} && $_->{lag_seconds} > 6 && !$_->{read_from} } @{ reads('near')->{standbys} }), 'and so does /cluster');

# An erasure is WAL, too: nothing moves the watermark.
resume();
reads_from(near => 'standby', 'once it follows it is read from again');
pause();
$test->sql(q(SELECT evento.delete_stream('t')));
reads_from(near => 'primary', 'a deletion makes a standby old that stands still');
is($http{near}->get('/streams/t')->{status}, 404, 'so that it is not shown for ever');

# ---- a read waits for it ----

append('s', 'D');
$position = newest();
my $patient = $test->start(flags => { database => $hosts, 'read-from' => 'standby', 'standby-lag' => '60min', 'standby-wait' => '60s' });
$proxy{patient} = $patient;
$http{patient} = Evento::Http->new($patient->{http});
# A standby that has not come to where the primary was when the proxy began is of unknown age.
is(reads('patient')->{from}, 'primary', 'a standby of unknown age is not read from');
resume();
reads_from(patient => 'standby', 'it is, once it is known');
pause();
append('s', 'E');
$position = newest();
my $socket = $http{patient}->raw("GET /streams/s HTTP/1.0\r\nHost: localhost\r\nEvento-Position: $position\r\n\r\n");
ok($patient->wait_for(sub { ($patient->get('/metrics'))[1] =~ /^evento_proxy_queue_items\{queue="db_standby"\} 1$/m }), 'a read waits for the standby');
my $did = standby_reads(patient => sub {
	resume();
	like(do { local $/; <$socket> }, qr/"type":"D".*"type":"E"/s, 'and has what it waits for');
});
is($did, 1, 'from the standby');

# ---- fetches ----

my $consumer = $proxy{old}->bundle(bundle => 'reports', instance => 'r1');
is(from_standby('old', '/streams/s', 'Evento-Position' => $position), 'A B D E', 'the standby has all');
# Behind what the proxy keeps in memory, which began when it was first asked.
my @got;
my $after = 0;
my $fetched = standby_reads(old => sub {
	while (@got < 5)
	{
		my $events = $consumer->answer($consumer->fetch($after, limit => 1))->{body}{events}[1];
		last if !@$events;
		push @got, map { $_->[1]{eventSequenceNumber} } @$events;
		$after = $got[-1];
	}
});
# An event that is deleted is given while it is among the newest in memory.
is_deeply([ grep { $_ != $deleted } @got ], [ split /\n/, $test->sql('SELECT position FROM evento.events ORDER BY position') ], 'fetches give each event once, in order');
cmp_ok($fetched, '>=', 1, 'from the standby');

pause();
append('s', 'F');
$position = newest();
my $last = $consumer->answer($consumer->fetch($after))->{body}{events}[1];
is_deeply([ map { $_->[1]{eventSequenceNumber} } @$last ], [$position], 'a consumer at the head gets what the standby has not');
resume();

# ---- it dies ----

reads_from(near => 'standby', 'it is read from');
$standby->stop('immediate');
reads_from($_ => 'primary', "$_: without a standby reads go to the primary") for qw(old near);
is(types($http{old}->get('/streams/s')), 'A B D E F', 'and are answered');
is(standby_reads(old => sub { is(types($http{old}->get('/events?after=0&types=F')), 'F', 'as is the log') }), 0, 'by the primary');
is(scalar(grep { / W.*standby \d.*cannot connect/ } split /\n/, $proxy{old}->log), 0, 'that there is none is no warning again and again');
$standby->start;
reads_from($_ => 'standby', "$_: and to the standby when it is back") for qw(old near);

# ---- it hangs ----

my @pids = grep { /^\d+$/ } split /\n/, $standby->safe_psql('postgres', q(SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%'));
kill 'STOP', @pids;
$answer = $http{old}->get('/streams/s');
kill 'CONT', @pids;
is(types($answer), 'A B D E F', 'a read that a standby does not answer is done by the primary');

# ---- it is promoted ----

reads_from(near => 'standby', 'it is read from');
$primary->stop('immediate');
reads_from($_ => 'primary', "$_: without a primary the age of a standby is not known") for qw(old near);
$standby->promote;
$proxy{near}->wait_http('/readyz', 60);
$standby->safe_psql('postgres', q(SELECT evento.append('s', 'G', '{}')));
ok($proxy{$_}->wait_for(sub { types($http{$_}->get('/events?types=G')) eq 'G' }, 60), "$_: a standby that is promoted is the primary") for qw(old near);
is(reads($_)->{from}, 'primary', "$_: and no standby") for qw(old near);

is($_->stop, 0, "$_->{name} ends in order") for values %proxy;
done_testing();
