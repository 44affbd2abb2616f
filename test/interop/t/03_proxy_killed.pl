# Behind HAProxy, with three proxies, each of them killed and started again while commands run.
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
my @proxies = map { $t->add_proxy("proxy$_") } 1 .. 3;
my $front = $t->start_haproxy;

# One after the other, so that HAProxy spreads them.
for my $kind (qw(command query process))
{
	$t->start_bundle($kind, $front);
	$t->await_bundles;
}
my ($command, $query, $process) = map { $t->proxy_of($_->{instance}) } @{ $t->{bundles} };
is(scalar(keys %{ { map { $_->{name} => 1 } $command, $query, $process } }), 3, 'HAProxy has spread the bundles over the proxies');

# First the proxy without command side and query side is killed: commands whose
# caller is not there have neither end on it.
my @loads = map { $t->start_load($front, 14, 15_000) } 1 .. 3;
$t->await_line($_, 'STARTED (\S+)') for @loads;
my %at = map { $_->{instance} => $t->proxy_of($_->{instance}) } @loads;
ok((grep { $_->{name} eq $process->{name} } values %at) && (grep { $_->{name} ne $process->{name} } values %at), 'there are callers on the proxy that is killed and on others');
sleep 2;
my $killed = time;
$t->kill_proxy($process);
sleep 3;
$t->start_proxy($process);
my $back = time;
my %goes_on = map { $_->{instance} => $t->goes_on($_, $back) } @loads;
$t->finish($_, "caller at $at{$_->{instance}}{name}, $process->{name} killed") for @loads;
for my $load (@loads)
{
	my @failed = grep { $_->{what} eq 'failed' } $t->record($load);
	my $name = $at{ $load->{instance} }{name};
	if ($name ne $process->{name})
	{
		is(scalar(@failed), 0, "commands with neither end on the killed proxy all succeed (caller at $name)");
	}
	else
	{
		note("the killed proxy's own caller: " . @failed . ' failed');
	}
	diag(map { "failed: $_->{marker} $_->{rest}\n" } @failed[ 0 .. ($#failed > 4 ? 4 : $#failed) ]) if @failed && $name ne $process->{name};
	ok($goes_on{ $load->{instance} }, "the caller at $name goes on behind it");
}
$t->verify($front, 'a proxy without handlers killed');

# Then the command side's and the query side's.
@loads = map { $t->start_load($front, 22, 12_000) } 1 .. 3;
$t->await_line($_, 'STARTED (\S+)') for @loads;
for my $bundle (@{ $t->{bundles} }[ 0, 1 ])
{
	my $proxy = $t->proxy_of($bundle->{instance});
	sleep 2;
	$t->kill_proxy($proxy);
	my $moved = $t->await(sub {
		my $now = $t->sql("SELECT proxy FROM evento.bundles WHERE enabled AND instance = '$bundle->{instance}' AND proxy <> '$proxy->{name}'");
		$now ne '' && $now;
	});
	ok($moved, "$bundle->{name} went from $proxy->{name} to " . ($moved // 'nowhere'));
	sleep 1;
	$t->start_proxy($proxy);
}
$back = time;
for my $load (@loads)
{
	ok($t->goes_on($load, $back), "$load->{name} goes on behind it");
	$t->finish($load, "$load->{name}, the handlers' proxies killed");
	my @failed = grep { $_->{what} eq 'failed' } $t->record($load);
	note(@failed . ' failed' . join('', map { "\n  $_->{marker} $_->{rest}" } @failed[ 0 .. ($#failed > 4 ? 4 : $#failed) ]));
}
$t->verify($front, "the handlers' proxies killed");
$t->check_log('proxies killed');
$t->proxies_run;

done_testing();
