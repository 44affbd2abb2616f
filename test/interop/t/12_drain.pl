# Behind HAProxy, with three proxies, each of them told to stop and started again while real bundles run commands: none that was sent fails.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Interop;
use Test::More;
use Time::HiRes qw(sleep time);

my $t = Interop->new;
plan(skip_all => 'no HAProxy (Debian: apt-get install haproxy)') if !$t->has_haproxy;
$t->start_postgres;
# Times for a machine that has other things to do: a bundle may take its time to come back.
my @proxies = map { $t->add_proxy("proxy$_", 'cut-time' => '30s', 'drain-time' => '60s') } 1 .. 3;
my $front = $t->start_haproxy;

# One after the other, so that HAProxy spreads them.
for my $kind (qw(command query process command query))
{
	$t->start_bundle($kind, $front);
	$t->await_bundles;
}
is($t->sql('SELECT count(DISTINCT proxy) FROM evento.bundles'), 3, 'HAProxy has spread the bundles over the proxies');

my @loads = map { $t->start_load($front, 30, 60_000) } 1 .. 3;
$t->await_line($_, 'STARTED (\S+)') for @loads;
for my $proxy (@proxies)
{
	sleep 1;
	my $held = $t->sql("SELECT count(*) FROM evento.bundles WHERE proxy = '$proxy->{name}'");
	my $begun = time;
	kill('TERM', $proxy->{child}{pid});
	$t->await(sub { !$t->running($proxy->{child}) }, 70) or $t->give_up($proxy->{child}, 'does not end');
	is($proxy->{child}{status}, 0, "$proxy->{name}, with $held bundles, is told to stop and ends with status 0");
	my $log = Interop::slurp($proxy->{child}{err});
	like($log, qr/drain: finished in/, "$proxy->{name} had finished everything");
	note(sprintf '%s took %.1f s', $proxy->{name}, time - $begun);
	ok($t->await(sub { $t->sql('SELECT count(*) FROM evento.bundles WHERE enabled') >= @{ $t->{bundles} } + grep { $t->running($_) } @loads }), 'all bundles are elsewhere')
	  or diag($t->sql('SELECT bundle, instance, enabled, proxy FROM evento.bundles'));
	$t->start_proxy($proxy);
}
for my $load (@loads)
{
	$t->finish($load, $load->{name});
	my @failed = grep { $_->{what} eq 'failed' } $t->record($load);
	my $count = @failed;
	# What the caller's own library refuses while it reconnects was not sent.
	@failed = grep { $_->{rest} !~ /IllegalStateException: (?:bundle not ready|not in CONNECTED state|transport not bound|channel not active)/ } @failed;
	# Nor was what it wrote as its connection closed: such a write fails and nobody is told, so the caller waits until its
	# time is up, for a command of which no byte has left the library (captures show that).  Callers that know what they
	# have sent are those of proxy/t/400_drain.pl and 720_rolling_proxies.pl.
	@failed = grep { $_->{rest} !~ /RequestTimeoutException/ || $t->sql(qq(SELECT count(*) FROM evento._events WHERE data::text LIKE '%"marker":"$_->{marker}"%')) } @failed;
	note("$load->{name}: " . ($count - @failed) . ' were not sent');
	is(scalar(@failed), 0, "$load->{name}: no command that was sent failed");
	diag(map { "failed: $_->{marker} $_->{rest}\n" } @failed[ 0 .. ($#failed > 4 ? 4 : $#failed) ]) if @failed;
	cmp_ok(scalar(grep { $_->{what} eq 'answered' } $t->record($load)), '>', 20, "$load->{name}: commands were answered");
}
my $behind = $t->start_load($front, 3, 60_000);
$t->finish($behind, 'behind it');
is(scalar(grep { $_->{what} eq 'failed' } $t->record($behind)), 0, 'behind it no command fails at all');
$t->verify($front, 'proxies drained');
$t->check_log('proxies drained');
$t->proxies_run;

done_testing();
