# 711_superseded.pl
#   A standby is promoted while the primary lives on, the first of the hosts: the
#   proxies leave it by themselves, and nothing that it did not replicate is
#   answered.  Then the lost range of an asynchronous failover: events that are
#   lost are not given to consumers from memory, and a consumer that has read
#   them is named.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;
use Evento::Traffic;

my $conf = "wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\nhot_standby_feedback = on\nwal_receiver_status_interval = 1s\n";

sub hosts { return sprintf 'host=%s port=%s dbname=postgres user=proxy', join(',', map { $_->host } @_), join(',', map { $_->port } @_) }

# ---- two primaries ----

my $test = Evento::ProxyTest->new(conf => $conf);
my $old = $test->node;
my $new = $test->synchronous_standby;
my @proxy = map { $test->start(flags => { database => hosts($old, $new) }) } 1 .. 2;
my $traffic = Evento::Traffic->new(proxies => \@proxy, callers => 4, handlers => 2);
ok($traffic->run(60, sub { 30 < grep { defined $_->{object} } @{ $traffic->{commands} } }), 'there is load');

$new->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
$new->promote;
my $since = time;
is($old->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 'f', 'the old primary lives on beside the new one');
$traffic->recovers(60, 'a standby is promoted beside a primary that lives on');
note sprintf 'longest time without progress %.1f s', scalar $traffic->longest_gap($since, time);
$traffic->check(sub { $new->safe_psql('postgres', $_[0]) }, 'two primaries');
for my $proxy (@proxy)
{
	like(($proxy->wait_log('the database is on timeline 2'))[0], qr/warning/, "$proxy->{name} tells of the timeline");
}
# Whoever comes back meets the old primary first.
$new->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%'));
$traffic->recovers(30, 'all connections are made again');
ok(scalar($_->wait_log('the server is on timeline 1 and was replaced by one on 2')), "$_->{name} does not take the old one for it") for @proxy;
$traffic->check(sub { $new->safe_psql('postgres', $_[0]) }, 'two primaries still');
is($_->stop, 0, "$_->{name} ends in order") for @proxy;
$_->stop('immediate') for $old, $new;

# ---- the lost range ----

$test = Evento::ProxyTest->new(name => 'asynchronous', conf => $conf);
$old = $test->node;
$new = $test->standby('second');
my $proxy = $test->start(flags => { database => hosts($old, $new), 'fetch-hold' => '200ms', 'telemetry-interval' => '100ms' });
my $consumer = $proxy->bundle(bundle => 'shop', instance => 'c1');
my ($ahead, $behind) = map { "shop_${_}_1_*" } qw(Ahead Behind);
$consumer->consumers(Projector => { Ahead => [$ahead], Behind => [$behind] });

sub fetched
{
	my ($after, $component) = @_;
	my $events = $consumer->answer($consumer->fetch($after, component => $component))->{body}{events}[1];
	return join ' ', map { $_->[1]{aggregateId} } @$events;
}

# Fetches until something is there, and that is it: the proxy may yet have to hear of it.
sub comes
{
	my ($after, $component, $all, $what) = @_;
	my $got;
	$proxy->wait_for(sub { ($got = fetched($after, $component)) ne '' });
	return is($got, $all, $what);
}

$test->sql(q(SELECT evento.append('kept', 'T', '{}'); CALL evento.wait(NULL)));
comes(0, 'Ahead', 'kept', 'a consumer reads');
is(fetched(1, 'Ahead'), '', 'up to the head');
$old->wait_for_catchup($new);

# From here on the standby gets nothing.
$new->append_conf('postgresql.conf', "primary_conninfo = ''\n");
$new->reload;
$old->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_replication') or die 'the standby still follows';
$test->sql(q(SELECT evento.append('lost', 'T', '{}'), evento.append('lost', 'T', '{}'); CALL evento.wait(NULL)));
ok($proxy->wait_for(sub { fetched(1, 'Ahead') eq 'lost lost' }), 'it reads what the standby does not have');

# The proxy sees nothing of the failover but another server, whose log reaches further.
kill 'STOP', $proxy->{pid};
$old->stop('immediate');
$new->promote;
$new->safe_psql('postgres', q(SELECT evento.append('after', 'T', '{}'); CALL evento.wait(NULL)));
kill 'CONT', $proxy->{pid};
ok(scalar($proxy->wait_log('the database is on timeline 2')), 'the proxy tells of the timeline');
$proxy->wait_http('/readyz');

comes(1, 'Behind', 'after', 'who has not read them gets no events that are lost');
comes(3, 'Ahead', 'after', 'who has read them goes on behind them');
my $named = q(SELECT consumer FROM evento.consumers WHERE lost_range);
ok($proxy->wait_for(sub { $consumer->answer($consumer->fetch(3, component => 'Ahead')); $new->safe_psql('postgres', $named) eq $ahead }), 'and is named')
  or diag($new->safe_psql('postgres', 'SELECT consumer, position, lost_range FROM evento.consumers'));
like($new->safe_psql('postgres', q(SELECT subject FROM evento.doctor() WHERE severity = 'error')), qr/consumer \Q$ahead\E/, 'by doctor() too');
my $head = $new->safe_psql('postgres', 'SELECT max(position) FROM evento.events');
my $stands = sub { return $new->safe_psql('postgres', "SELECT position, lost_range FROM evento.consumers WHERE consumer = '$ahead'") };
ok($proxy->wait_for(sub { $consumer->answer($consumer->fetch($head, component => 'Ahead')); $stands->() eq "$head|t" }), 'also when it has gone on') or diag($stands->());
# Within one interval of what the proxy reports.
my $quick = 'shop_Quick_1_*';
$new->safe_psql('postgres', q(SELECT evento.append('next', 'T', '{}'); CALL evento.wait(NULL)));
my @asked = map { $consumer->fetch($_, component => 'Quick') } 3, $head;
$consumer->answer($_) for @asked;
ok($proxy->wait_for(sub { $new->safe_psql('postgres', $named) =~ /\Q$quick\E/ }), 'and one that goes on at once');
ok($proxy->wait_for(sub { $consumer->answer($consumer->fetch(1, component => 'Ahead')); $stands->() eq '1|f' }), 'until it is set back') or diag($stands->());
is($new->safe_psql('postgres', "SELECT evento.consumer_repaired('$quick')"), 't', 'or repaired');
is($new->safe_psql('postgres', $named), '', 'then nobody is named any more');
is($proxy->stop, 0, 'the proxy ends in order');
done_testing();
