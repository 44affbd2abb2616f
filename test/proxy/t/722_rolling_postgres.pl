# 722_rolling_postgres.pl
#   A minor upgrade of PostgreSQL under load, as far as it can be seen from
#   outside: three nodes under Patroni with synchronous replication; each standby
#   is stopped and started, there is a switchover, and the node that was the
#   primary is stopped and started.  Callers wait, and no command fails; who
#   follows the log sees each event once.  Prints the longest time that each was
#   without progress.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use Evento::Follow;
use Evento::Patroni;
use Evento::ProxyTest;
use Evento::Traffic;

my $why = Evento::Patroni::why_not();
plan skip_all => $why if $why;

my $cluster = Evento::Patroni->new(nodes => 3, ttl => 20, loop_wait => 2, retry_timeout => 8);
ok($cluster->start_all(120), 'three nodes under Patroni') or BAIL_OUT(join "\n", map { $cluster->log($_) } $cluster->names);
$cluster->sql('CREATE EXTENSION evento; CREATE ROLE proxy LOGIN IN ROLE evento_proxy');
my $test = Evento::ProxyTest->new(node => $cluster);
# What waits for the database does so longer than a switchover takes, on a slow machine too.
my %wait = ('database-wait' => '2min', 'http-timeout' => '2min', 'max-timeout' => '10min');
# A fetch that is held must not wait for its end.
$wait{'fetch-hold'} = '10min';
my @proxy = map { $test->start(flags => { %wait, database => $cluster->hosts . ' user=proxy' }) } 1 .. 3;
my $stream = Evento::Follow::Stream->new(name => 'a stream of events', port => $proxy[0]{http});
my @consumer = map { Evento::Follow::Consumer->new(name => "consumer$_", port => $proxy[ $_ - 1 ]{port}, timeout => 600) } 1 .. 3;
my $appender = Evento::Follow::Appender->new(name => 'appender', port => $proxy[1]{http});
my $traffic = Evento::Traffic->new(proxies => \@proxy, callers => 6, handlers => 3, timeout => 120000, repeat => 0, silence => 60, beside => [ $stream, @consumer, $appender ]);

sub counts { return (scalar(grep { defined $_->{object} } @{ $traffic->{commands} }), map { scalar @{ $_->{at} } } $stream, @consumer, $appender) }

# Load goes on until everyone has come on.
sub goes_on
{
	my ($what) = @_;
	my @from = counts();
	ok($traffic->run(120, sub { my @now = counts(); !grep { $now[$_] < $from[$_] + 5 } 0 .. $#now }), "$what: all go on")
	  or diag("from @from to @{[ counts() ]}");
	return;
}

my @steps;

# Does something under load, and tells how long it was felt.
sub step
{
	my ($what, $code) = @_;
	my $begun = time;
	$code->();
	ok($traffic->run(120, sub { Evento::Patroni::every(0.5, sub { $cluster->whole }) }), "$what: a primary and two standbys, one of them synchronous");
	goes_on($what);
	push @steps, [ $what, $begun, time ];
	return;
}

# Ends a node's Patroni and PostgreSQL in order, and starts them again: in between is where the new binaries are installed.
sub restart
{
	my ($name) = @_;
	my $postmaster = $cluster->postmaster($name);
	$cluster->end($name);
	ok($traffic->run(120, sub { $cluster->ended($name) && !kill 0, $postmaster }), "$name is stopped");
	$cluster->start($name);
	return;
}

goes_on('at first');
my $old = $cluster->some_primary;
for my $standby (grep { $_ ne $old } $cluster->names)
{
	step("standby $standby is restarted", sub { restart($standby) });
}
step("switchover from $old", sub {
	is($cluster->switchover_beside(sub { $traffic->run(0.1) }, $old), '', 'patronictl switches over');
});
isnt($cluster->some_primary, $old, 'another node is the primary');
step("$old, now a standby, is restarted", sub { restart($old) });

ok($traffic->run(120, sub { $appender->ended }), 'appends over HTTP come to their end');
ok($traffic->finish(120), 'commands come to their end');
my (undef, $failed, $unanswered) = $traffic->check(sub { $cluster->sql($_[0]) }, 'upgraded');
is($failed, 0, 'no command failed');
is($unanswered, 0, 'none was left without an answer');
my @positions = split /\n/, $cluster->sql('SELECT position FROM evento.events ORDER BY position');
ok($traffic->run(60, sub { !grep { !$_->reached($positions[-1]) } $stream, @consumer }), 'all who follow come to the end');
$_->check('upgraded', @positions) for $stream, @consumer;
$appender->check('upgraded', split /\n/, $cluster->sql(q(SELECT version || ' ' || (data->>'n') FROM evento.events WHERE stream = 'appender' ORDER BY version)));
for (@steps)
{
	my ($what, $from, $to) = @$_;
	note sprintf '%s: longest time without progress: a caller %.1f s, the stream %.1f s, a consumer %.1f s, appends over HTTP %.1f s', $what,
	  scalar $traffic->longest_gap($from, $to), $stream->longest_gap($from, $to), (sort { $b <=> $a } map { $_->longest_gap($from, $to) } @consumer)[0],
	  $appender->longest_gap($from, $to);
}
$traffic->leave;
is($_->stop('TERM', 60), 0, "$_->{name} ends in order") for @proxy;
$cluster->stop;
done_testing();
