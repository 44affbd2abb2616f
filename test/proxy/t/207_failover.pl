# 207_failover.pl
#   A primary that dies and a synchronous standby that is promoted: the proxies
#   find it by themselves, and nothing that was answered is lost or done twice;
#   a consumer that waits for events meanwhile gets the next one.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;

my $conf = "wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\nhot_standby_feedback = on\n";
my $test = Evento::ProxyTest->new(conf => $conf);
my $primary = $test->node;
my $standby = $test->synchronous_standby;

# The standby first: a proxy must not take a server that it cannot write to.
my $hosts = sprintf 'host=%s,%s port=%s,%s dbname=postgres user=proxy', $standby->host, $primary->host, $standby->port, $primary->port;
my ($one, $two) = map { $test->start(flags => { database => $hosts, 'database-wait' => '1min' }) } 1 .. 2;
my $caller = $one->bundle(bundle => 'caller', instance => 'c1');
my $handler = $two->bundle(bundle => 'orders', instance => 'h1', names => [qw(Change Probe)]);
$caller->reaches($handler);

sub answer { my ($req) = @_; return $req && $handler->respond($req, Evento::Bundle::domain_response('Changed', '{}')) }

my $id = $caller->command('Change', 'before');
answer($handler->recv('REQ'));
is($caller->answer($id)->{class}, 'DomainEventMessage', 'a command is stored on the primary, the second of the hosts');

# ---- failover in the middle of commands ----

my @ids = map { [ $_, $caller->command('Change', "s-$_", '{}', timeout => 120000) ] } 1 .. 20;
my @reqs = map { $handler->recv('REQ') } @ids;
answer($_) for @reqs[ 0 .. 9 ];
$primary->stop('immediate');
answer($_) for @reqs[ 10 .. 19 ];
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''\n");
$standby->promote;
my @stored = grep { my $rsp = $caller->answer($_->[1], timeout => 120); $rsp && !defined $rsp->{failure} } @ids;
is(scalar @stored, 20, 'commands that a failover meets are answered');
$standby->safe_psql('postgres', 'CALL evento.wait(NULL)');
is($standby->safe_psql('postgres', q(SELECT count(*), count(DISTINCT stream) FROM evento.events WHERE stream LIKE 's-%')), '20|20', 'and stored once each, on the new primary');
is($standby->safe_psql('postgres', q(SELECT count(*) FROM evento.events WHERE stream = 'before')), 1, 'with what was answered before');

$_->wait_http('/readyz') for $one, $two;
$id = $caller->command('Change', 's-1');
answer($handler->recv('REQ'));
is($caller->answer($id)->{class}, 'DomainEventMessage', 'commands go on');
$standby->safe_psql('postgres', 'CALL evento.wait(NULL)');
my $fetched = $caller->answer($caller->fetch(0))->{body}{events}[1];
is(scalar(@$fetched), 22, 'and consumers read all of it');
my @numbers = map { $_->[1]{eventSequenceNumber} } @$fetched;
is_deeply(\@numbers, [ sort { $a <=> $b } @numbers ], 'in order');

is($one->stop, 0, 'a proxy ends in order');
is($two->stop, 0, 'and the other');
$standby->stop('immediate');

# ---- nothing but a fetch that is held ----

$test = Evento::ProxyTest->new(name => 'idle', conf => $conf);
$primary = $test->node;
$standby = $test->standby('idle_standby');
my $proxy = $test->start(flags => {
		database => sprintf('host=%s,%s port=%s,%s dbname=postgres user=proxy', $primary->host, $standby->host, $primary->port, $standby->port),
		'fetch-hold' => '10min', 'database-wait' => '2min' });
my $consumer = $proxy->bundle(bundle => 'shop', instance => 'c1');
$test->sql(q(SELECT evento.append('first', 'T', '1'); CALL evento.wait(NULL)));
is(scalar @{ $consumer->answer($consumer->fetch(0))->{body}{events}[1] }, 1, 'a consumer reads');
$id = $consumer->fetch(1, timeout => 600_000);
ok($consumer->alive, 'and waits at the head');
$primary->wait_for_catchup($standby);
$primary->stop('fast');
$standby->promote;
$proxy->wait_http('/readyz');
ok(!defined $consumer->recv('RSP', timeout => 2), 'there is nothing for it behind the failover');
$standby->safe_psql('postgres', q(SELECT evento.append('second', 'T', '1')));
my $got = $consumer->answer($id, timeout => 60);
is(join(' ', map { $_->[1]{aggregateId} } @{ $got ? $got->{body}{events}[1] : [] }), 'second', 'it gets the next event, long before its fetch would end');
is($proxy->stop, 0, 'the proxy ends in order');
done_testing();
