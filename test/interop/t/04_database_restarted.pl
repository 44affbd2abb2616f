# The database restarted, as by a crash, while commands run.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Interop;
use Test::More;

use Time::HiRes qw(sleep time);

my $t = Interop->new;
$t->start_postgres;
my @proxies = map { $t->add_proxy("proxy$_") } 1 .. 3;
$t->start_bundle('command', $proxies[0]);
$t->start_bundle('query', $proxies[1]);
$t->start_bundle('process', $proxies[2]);
$t->await_bundles;

my @loads = map { $t->start_load($proxies[$_], 20, 12_000) } 0, 2;
$t->await_line($_, 'STARTED (\S+)') for @loads;
my @held = ((map { [ $t->{bundles}[$_], $proxies[$_] ] } 0 .. 2), [ $loads[0], $proxies[0] ], [ $loads[1], $proxies[2] ]);
my @before = map { $t->connections($_->[0], $_->[1]{bundle}) } @held;
sleep 2;
my $back;
for my $round (1 .. 2)
{
	$t->restart_postgres;
	$back = time;
	# Somebody is answered again before the next time.
	ok($t->await(sub { scalar grep { $_->{what} eq 'answered' && $_->{time} > $back + 0.5 } map { $t->record($_) } @loads }), "commands are answered behind restart $round");
	sleep 1;
}
my @after = map { $t->connections($_->[0], $_->[1]{bundle}) } @held;
for my $i (0 .. $#held)
{
	is($after[$i], $before[$i], "$held[$i][0]{name} kept its connection");
}
ok($t->goes_on($_, $back), "$_->{name} goes on behind it") for @loads;
$t->finish($_, $_->{name}) for @loads;
for my $load (@loads)
{
	my @failed = grep { $_->{what} eq 'failed' } $t->record($load);
	note("$load->{name}: " . @failed . ' failed' . join('', map { "\n  $_->{marker} $_->{rest}" } @failed[ 0 .. ($#failed > 4 ? 4 : $#failed) ]));
	# A busy machine may be late.
	is(scalar(grep { ($_->{rest} =~ /^(\d+)/)[0] > 24_000 } grep { $_->{what} ne 'sent' } $t->record($load)), 0, "$load->{name}: every command ends within its timeout");
}
$t->verify($proxies[1], 'verify');
$t->check_log('database restarted');
$t->proxies_run;

done_testing();
