# 215_two_standbys.pl
#   Reads with two standbys: one that stands still is left out and the other
#   serves, and the primary where both do; reads that replay cancels on a
#   standby, for rows that VACUUM removes, are done by the primary and their
#   readers see nothing of it.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use Test::More;

use Evento::Bundle;
use Evento::Http;
use Evento::ProxyTest;

# Without feedback, and at once: what the primary does cancels what stands in its way on a standby.
my $test = Evento::ProxyTest->new(conf => "wal_level = replica\nmax_wal_senders = 6\nhot_standby = on\nhot_standby_feedback = off\nmax_standby_streaming_delay = 0\nautovacuum = off\n");
my $primary = $test->node;
$primary->backup('base');
my @standby = map {
	my $node = PostgreSQL::Test::Cluster->new("standby$_");
	$node->init_from_backup($primary, 'base', has_streaming => 1);
	$node->start;
	$node;
} 1 .. 2;

sub hosts { return sprintf 'host=%s port=%s dbname=postgres user=proxy', join(',', map { $_->host } @_), join(',', map { $_->port } @_) }

# As many connections as hosts, so that each standby has one.
my $proxy = $test->start(flags => { database => hosts($primary, @standby), 'read-from' => 'standby', 'standby-lag' => '6s', 'read-connections' => 3 });
my $http = Evento::Http->new($proxy->{http});

# The ports of the standbys that are read from now.
sub read_from { return join ' ', sort map { $_->{read_from} ? $_->{port} : () } @{ $http->get('/cluster')->{json}{reads}{standbys} } }

sub unique { my %seen; return join ' ', sort grep { !$seen{$_}++ } @_ }

sub wait_read_from
{
	my ($what, @nodes) = @_;
	my $want = unique(map { $_->port } @nodes);
	ok($proxy->wait_for(sub { unique(split / /, read_from()) eq $want }, 60), $what) or diag("read from: @{[ read_from() ]}, not $want\n", $proxy->log);
	return;
}

sub types { my ($answer) = @_; return join ' ', map { $_->{type} } @{ $answer->{json}{events} // [] } }

sub append { my ($type) = @_; return $test->sql("SELECT evento.append('s', '$type', '{}')") }

sub pause
{
	my ($node) = @_;
	$node->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	$node->poll_query_until('postgres', q(SELECT pg_get_wal_replay_pause_state() = 'paused')) or die 'replay goes on';
	return;
}

sub resume
{
	my (@nodes) = @_;
	$_->safe_psql('postgres', 'SELECT pg_wal_replay_resume()') for @nodes;
	$primary->wait_for_catchup($_, 'replay') for @nodes;
	return;
}

# By how much the counters grow while code runs: of reads that standbys did, and of those that went to the primary.
sub reads
{
	my ($code) = @_;
	my @before = map { $proxy->metric($_) } 'standby_reads_total', 'standby_missed_total';
	$code->();
	return [ map { $proxy->metric($_) - shift @before } 'standby_reads_total', 'standby_missed_total' ];
}

# ---- one stands still, and both ----

append('A');
$primary->wait_for_catchup($_, 'replay') for @standby;
wait_read_from('both standbys are read from', @standby);
ok($proxy->wait_for(sub { ($proxy->get('/metrics'))[1] =~ /^evento_proxy_standby_lag_seconds [\d.]+$/m }), 'the metrics tell how old what they show is');

for my $still (0, 1)
{
	my $type = "B$still";
	pause($standby[$still]);
	append($type);
	wait_read_from("standby " . ($still + 1) . ' stands still: the other is read from', $standby[ 1 - $still ]);
	$primary->wait_for_catchup($standby[ 1 - $still ], 'replay');
	my $position = $test->sql('CALL evento.wait(NULL)');
	# The reader waits until the watermark's row is there too, or has the primary where that takes long.
	is_deeply($proxy->wait_for(sub { my $did = reads(sub { $http->get('/streams/s', 'Evento-Position' => $position) }); $did->[0] == 1 }, 60), 1, 'which has the newest');
	is_deeply(reads(sub { like(types($http->get('/streams/s')), qr/\b$type$/, 'and gives it') }), [ 1, 0 ], 'itself');
	resume($standby[$still]);
	wait_read_from('once it follows both are read from again', @standby);
}

pause($_) for @standby;
append('C');
wait_read_from('both stand still: none is read from');
is($proxy->metric('standbys'), 0, 'the metrics tell');
cmp_ok(($proxy->get('/metrics'))[1] =~ /^evento_proxy_standby_lag_seconds ([\d.]+)$/m ? $1 : 0, '>', 6, 'and how old they are');
is_deeply(reads(sub { like(types($http->get('/streams/s')), qr/\bC$/, 'a stream') }), [ 0, 1 ], 'comes from the primary');
resume(@standby);
wait_read_from('they are read from again', @standby);

# ---- replay cancels a read ----

sub conflicts
{
	my ($kind) = @_;
	my $sum = 0;
	$sum += $_->safe_psql('postgres', "SELECT confl_$kind FROM pg_stat_database_conflicts WHERE datname = 'postgres'") for @standby;
	return $sum;
}

# Waits until one of the proxy's reads on a standby meets a condition on pg_stat_activity.
sub reading
{
	my ($where) = @_;
	my $sql = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%' AND query LIKE '%read_stream%' AND $where";
	return $proxy->wait_for(sub { grep { $_->safe_psql('postgres', $sql) eq 't' } @standby }, 10);
}

sub request { my ($path) = @_; return $http->raw("GET $path HTTP/1.0\r\nHost: localhost\r\n\r\n") }

sub answered { my ($socket) = @_; local $/; return scalar <$socket> }

# A read that takes a while, and rows removed that its snapshot sees.
$test->sql('CREATE TABLE scratch AS SELECT n FROM generate_series(1, 10) n');
$test->sql(q(SELECT evento.append('large', 'L', json_build_object('n', n, 'x', repeat('x', 500000))) FROM generate_series(1, 300) n));
$primary->wait_for_catchup($_, 'replay') for @standby;
my $before = conflicts('snapshot');
my $cancelled = 0;
for my $try (1 .. 20)
{
	wait_read_from('both are read from', @standby);
	my $socket = request('/streams/large?max=1000');
	reading(q(state = 'active'));
	$test->sql('DELETE FROM scratch WHERE n = (SELECT min(n) FROM scratch)');
	$test->sql('VACUUM scratch');
	like(answered($socket), qr{^HTTP/1\.\d 200 .*"n" ?: ?1\D}s, 'a read while VACUUM removes rows is answered');
	$cancelled = $proxy->wait_for(sub { conflicts('snapshot') > $before }, 5) and last;
	$test->sql('INSERT INTO scratch SELECT n FROM generate_series(1, 10) n');
}
SKIP:
{
	skip('replay did not meet a read in twenty tries', 1) if !$cancelled;
	pass('replay has cancelled one, for rows that it saw');
}

# Commands and consumers do not notice either.
my $handler = $proxy->bundle(bundle => 'shop', instance => 'h1', names => ['Change']);
my $caller = $proxy->bundle(bundle => 'web', instance => 'c1');
my $id = $caller->command('Change', 's');
my $req = $handler->recv('REQ', timeout => 60);
$handler->respond($req, Evento::Bundle::domain_response('Changed', '{"n":1}')) if $req;
ok($caller->answer($id, timeout => 60)->{body}, 'commands go on');
is($proxy->stop, 0, 'the proxy ends in order');
done_testing();
