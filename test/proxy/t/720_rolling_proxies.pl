# 720_rolling_proxies.pl
#   Three proxies behind HAProxy are told to stop and started again at the same
#   ports, one after the other, round after round, under load: no command
#   fails, every one is answered and stored once, and who follows the log, as a
#   bundle or over HTTP, sees each event once.  Prints the longest time that
#   each was without progress.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use Evento::Balancer;
use Evento::Follow;
use Evento::ProxyTest;
use Evento::Traffic;

my $why = Evento::Balancer::why_not();
plan skip_all => $why if $why;

my $test = Evento::ProxyTest->new(conf => "max_connections = 100\n");
my @proxy = map { $test->start(flags => { 'drain-time' => '60s', 'drain-delay' => '3s' }) } 1 .. 3;
for my $proxy (@proxy) { ok($proxy->wait_for(sub { $proxy->metric('links') == 4 }, 60), "$proxy->{name} is linked") }
my $balancer = Evento::Balancer->new(@proxy);

my $stream = Evento::Follow::Stream->new(name => 'a stream of events', port => $balancer->{http});
my @consumer = map { Evento::Follow::Consumer->new(name => "consumer$_", port => $balancer->{bundles}) } 1 .. 3;
my $appender = Evento::Follow::Appender->new(name => 'appender', port => $balancer->{http});
# Callers do not repeat: what has reached a proxy is answered, wherever the caller is by then.
my $traffic = Evento::Traffic->new(proxies => [ { port => $balancer->{bundles} } ], callers => 9, handlers => 4, timeout => 60_000, repeat => 0, silence => 60,
	beside => [ $stream, @consumer, $appender ]);

# How many commands were answered, events seen and appends done.
sub progress
{
	return map { [ $_->[0], $_->[1]->() ] } [ commands => sub { scalar grep { defined $_->{object} } @{ $traffic->{commands} } } ],
	  (map { my $f = $_; [ $f->{name}, sub { scalar @{ $f->{at} } } ] } $stream, @consumer, $appender);
}

# Load goes on until each of these has come on by so much.
sub goes_on
{
	my ($much, $what) = @_;
	my @from = progress();
	my $ok = $traffic->run(60, sub { my @now = progress(); !grep { $now[$_][1] < $from[$_][1] + $much } 0 .. $#from });
	my @now = progress();
	return ok($ok, $what) || diag(join ', ', map { "$now[$_][0]: $from[$_][1] to $now[$_][1]" } 0 .. $#now);
}

goes_on(20, 'there is load');
my $since = time;
for my $round (1 .. ($ENV{EVENTO_LONG} ? 8 : 2))
{
	for my $proxy (@proxy)
	{
		my $what = "round $round, $proxy->{name}";
		kill 'TERM', $proxy->{pid};
		ok($traffic->run(90, sub { !$proxy->running }), "$what: it is told to stop and ends");
		is($proxy->{status}, 0, "$what: with status 0");
		goes_on(5, "$what: work goes on without it");
		$proxy->run;
		ok($traffic->run(60, sub { ($proxy->get('/readyz'))[0] == 200 && ($proxy->metric('links') // 0) == 4 && $balancer->has_all }), "$what: it is back");
		goes_on(5, "$what: work goes on with it");
	}
}
my $until = time;

ok($traffic->run(60, sub { $appender->ended }), 'appends over HTTP come to their end');
my (undef, $failed, $unanswered) = $traffic->check(sub { $test->sql($_[0]) }, 'rolling');
is($failed, 0, 'no command failed');
is($unanswered, 0, 'none was left without an answer');
my @positions = split /\n/, $test->sql('SELECT position FROM evento.events ORDER BY position');
ok($traffic->run(60, sub { !grep { !$_->reached($positions[-1]) } $stream, @consumer }), 'all who follow come to the end');
$_->check('rolling', @positions) for $stream, @consumer;
$appender->check('rolling', split /\n/, $test->sql(q(SELECT version || ' ' || (data->>'n') FROM evento.events WHERE stream = 'appender' ORDER BY version)));
is(scalar(grep { /drain: after/ } map { split /\n/, $_->log } @proxy), 0, 'nothing was left when a proxy ended');
note sprintf 'longest time without progress: a caller %.2f s, the stream %.2f s, a consumer %.2f s, appends over HTTP %.2f s',
  scalar $traffic->longest_gap($since, $until), $stream->longest_gap($since, $until), (sort { $b <=> $a } map { $_->longest_gap($since, $until) } @consumer)[0],
  $appender->longest_gap($since, $until);

$traffic->leave;
is($_->stop('TERM', 90), 0, "$_->{name} ends in order") for @proxy;
$balancer->stop;
done_testing();
