# 403_http_cluster.pl
#   GET /cluster with a real standby: it is among the nodes, with the lag that the
#   primary knows of, while it follows, stands still and is gone; and is the
#   primary after its promotion.  Others that replicate are told apart.  The last
#   picture is given while the database is away, with its age.
use strict;
use warnings;

use JSON::PP ();
use PostgreSQL::Test::Cluster;
use Test::More;

use Evento::Cluster;
use Evento::Http;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new(conf => "max_wal_senders = 8\nwal_level = logical\nmax_connections = 100\n");
my $primary = $test->node;
my $proxy = $test->start;
my $http = Evento::Http->new($proxy->{http});

sub nodes { my ($at) = @_; my $answer = ($at // $http)->get('/cluster'); return $answer->{status} == 200 ? @{ $answer->{json}{nodes} } : () }

# The nodes, once code finds them as they should be: a picture is a second old at most.
sub nodes_become
{
	my ($what, $code, $at) = @_;
	my @nodes;
	ok($proxy->wait_for(sub { @nodes = nodes($at); $code->(@nodes) }), $what) or diag(explain(\@nodes));
	return @nodes;
}

my @nodes = nodes_become('one node', sub { @_ == 1 });
is_deeply([ @{ $nodes[0] }{qw(role state name sync_state lag_bytes lag_seconds)} ], [ 'primary', 'connected', undef, undef, undef, undef ], 'is the primary');

# Members, who is live, and what they hold.
my $other = $test->start;
my $bundle = $other->bundle(bundle => 'orders', instance => 'o1', names => ['Change']);
my $cluster;
ok($proxy->wait_for(sub { $cluster = $http->get('/cluster')->{json}; @{ $cluster->{bundles} } == 1 && $cluster->{bundles}[0]{enabled} && @{ $cluster->{bundles}[0]{names} } && 2 == grep { $_->{live} } @{ $cluster->{proxies} } }), 'any member knows all members');
is_deeply([ map { [ @$_{qw(name advertised instances)} ] } @{ $cluster->{proxies} } ],
	[ [ $proxy->{name}, "127.0.0.1:$proxy->{port}", 0 ], [ $other->{name}, "127.0.0.1:$other->{port}", 1 ] ], 'with addresses and what they hold');
my ($number) = (Evento::ProxyTest::run_program('--version'))[1] =~ /^evento-proxy (\S+)$/;
is_deeply([ map { [ @$_{qw(internal http version)} ] } @{ $cluster->{proxies} } ], [ map { [ "127.0.0.1:$_->{internal}", "127.0.0.1:$_->{http}", $number ] } $proxy, $other ],
	'those for other proxies and of HTTP, and their version');
is_deeply([ @{ $cluster->{bundles}[0] }{qw(bundle version instance enabled proxy names)} ], [ 'orders', 1, 'o1', JSON::PP::true, $other->{name}, ['Change'] ], 'and the bundle of another member');
# Load is told with each renewal.
ok($proxy->wait_for(sub { $cluster = $http->get('/cluster')->{json}; join(' ', map { "$_->{load}{sessions}/$_->{load}{requests}" } @{ $cluster->{proxies} }) eq '0/0 1/0' }), 'with the load of each')
  or diag(explain($cluster->{proxies}));
my $asked = $other->bundle(bundle => 'web', instance => 'w1');
$asked->reaches($bundle, 'Change');
my $id = $asked->command('Change', 'order-1');
my $open = $bundle->recv('REQ');
# Links of either: one that it made, one that it accepted.
ok($proxy->wait_for(sub { $cluster = $http->get('/cluster')->{json}; my ($one, $two) = map { $_->{load} } @{ $cluster->{proxies} };
		"$one->{sessions} $one->{requests} $one->{links} $two->{sessions} $two->{requests} $two->{links}" eq '0 0 2 2 1 2' }), 'which changes with what comes')
  or diag(explain($cluster->{proxies}));
$bundle->respond($open, Evento::Bundle::domain_response('Changed', '{}'));
ok($asked->answer($id), 'what was open is answered');
ok($proxy->wait_for(sub { $cluster = $http->get('/cluster')->{json}; $cluster->{proxies}[1]{load}{requests} == 0 }), 'and goes');
my $same = Evento::Http->new($other->{http})->get('/cluster')->{json};
is_deeply([ map { $_->{name} } @{ $same->{proxies} } ], [ map { $_->{name} } @{ $cluster->{proxies} } ], 'the other member tells the same members');
is(join(' ', sort map { $_->{instance} } @{ $same->{bundles} }), 'o1 w1', 'and bundles');
is($same->{answered_by}, $other->{name}, 'and who it is');
is_deeply($cluster->{jumps}, [], 'the log has no jump');
$other->stop('KILL');
ok($proxy->wait_for(sub { $cluster = $http->get('/cluster')->{json}; 1 == grep { $_->{live} } @{ $cluster->{proxies} } }), 'one that was killed is live no more');
is_deeply($cluster->{bundles}, [], 'nor are its bundles there');

# A standby, as pg_basebackup makes it.
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay');

@nodes = nodes_become('the standby is a node', sub { @_ == 2 && $_[1]{role} eq 'standby' });
is($nodes[0]{role}, 'primary', 'behind the primary');
is($nodes[1]{name}, 'standby', 'by its name');
is_deeply([ @{ $nodes[1] }{qw(state lag_bytes)} ], [ undef, undef ], 'the role of the proxy may not see more');

$test->sql('GRANT pg_read_all_stats TO proxy');
@nodes = nodes_become('with pg_read_all_stats it may', sub { ($_[1]{state} // '') eq 'streaming' && defined $_[1]{lag_bytes} });
is($nodes[1]{sync_state}, 'async', 'nobody waits for it');
# What it has replayed the primary hears with the next answer only, and something is written all the time.
nodes_become('it follows', sub { defined $_[1]{lag_bytes} && $_[1]{lag_bytes} < 100_000 });

# What replicates and is no standby.
my $subscriber = Evento::Cluster->make('subscriber');
$subscriber->start;
$test->sql('CREATE TABLE elsewhere (n integer); CREATE PUBLICATION few FOR TABLE elsewhere');
$subscriber->safe_psql('postgres', 'CREATE TABLE elsewhere (n integer); CREATE SUBSCRIPTION few CONNECTION ' . "'host=" . $primary->host . ' port=' . $primary->port . " dbname=postgres' PUBLICATION few");
my $pid = fork // die "fork: $!";
if (!$pid)
{
	exec 'pg_receivewal', '-D', PostgreSQL::Test::Utils::tempdir(), '-h', $primary->host, '-p', $primary->port, '--status-interval=1' or POSIX::_exit(127);
}
Evento::ProxyTest::started($pid);
nodes_become('a subscription and a receiver of WAL are told apart', sub { join(' ', sort map { $_->{role} } @_) eq 'primary receiver standby subscriber' });
kill 'TERM', $pid;
waitpid $pid, 0;
Evento::ProxyTest::ended($pid);
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION few');
$subscriber->stop;
nodes_become('and gone', sub { @_ == 2 });

# It receives, and does not replay.
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$standby->poll_query_until('postgres', q(SELECT pg_get_wal_replay_pause_state() = 'paused')) or die 'replay goes on';
$test->sql(q(SELECT evento.append('s-' || n, 'T', to_json((SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 300) WHERE n > 0))) FROM generate_series(1, 60) n));
@nodes = nodes_become('one that stands still lags by bytes', sub { ($_[1]{lag_bytes} // 0) > 300_000 });
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
nodes_become('and comes up to it', sub { defined $_[1]{lag_bytes} && $_[1]{lag_bytes} < 100_000 });

# Commits wait for it.
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'\n");
$primary->reload;
nodes_become('a synchronous one is told', sub { ($_[1]{sync_state} // '') eq 'sync' });
$primary->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
$primary->reload;

# Gone; back; promoted, with a proxy that follows it.
$standby->stop;
nodes_become('one that has gone is not shown', sub { @_ == 1 && $_[0]{role} eq 'primary' });
$standby->start;
nodes_become('one that is back is', sub { @_ == 2 && ($_[1]{state} // '') eq 'streaming' });
$primary->wait_for_catchup($standby, 'replay');
my $reader = $test->start(flags => { database => $standby->connstr('postgres') . ' user=proxy' }, wait => 0);
my $at_standby = Evento::Http->new($reader->{http});
$primary->stop('fast');
my $last = $http->get('/cluster');
is($last->{status}, 200, 'without a database the last picture is given');
ok($proxy->wait_for(sub { $last = $http->get('/cluster')->{json}; !$last->{database} }), 'which says so');
is($last->{nodes}[0]{role}, 'primary', 'has the nodes as they were');
is_deeply([ map { $_->{name} } @{ $last->{proxies} } ], [ map { $_->{name} } @{ $http->get('/cluster')->{json}{proxies} } ], 'and the members');
ok($proxy->wait_for(sub { $http->get('/cluster')->{json}{age_seconds} > $last->{age_seconds} + 1 }), 'and its age, which grows');
$standby->promote;
nodes_become('the promoted one is the primary', sub { @_ == 1 && $_[0]{role} eq 'primary' }, $at_standby);
my $jumps;
ok($proxy->wait_for(sub { $jumps = $at_standby->get('/cluster')->{json}{jumps}; @$jumps == 1 }), 'and the jump of its log is told') or diag(explain($jumps));
is(join('|', @{ $jumps->[0] }{qw(last_position next_position reason)}), $standby->safe_psql('postgres', 'SELECT last_position, next_position, reason FROM evento.jumps'), 'as it is on record');

is($_->stop, 0, "$_->{name} ends") for $proxy, $reader;
done_testing();
