# Two invokers at two proxies race on one order without locks.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use Interop;
use Test::More;

my $t = Interop->new;
$t->start_postgres;
my @proxies = map { $t->add_proxy("proxy$_") } 1 .. 3;
$t->start_bundle('command', $proxies[0]);
$t->start_bundle('query', $proxies[0]);
$t->await_bundles;

$t->play('race', $proxies[1], 'race', '--peer-port', $proxies[2]{bundle});
$t->check_log('race');

# The loser of the forced conflict was handled on the story before the winner's event, and again on the one behind it.
my %stories;
push @{ $stories{ $_->{marker} } }, $_->{revision} for grep { $_->{what} eq 'begin' && $_->{marker} =~ /-conflict-(?:one|two)$/ } $t->trace;
is(join(' | ', sort map { join(' ', @$_) } values %stories), '1 | 1 2', 'a forced conflict runs one handler twice, on two stories');

# Every event was computed from the story that its position has: a run whose append failed left nothing.
my %ran;
push @{ $ran{ $_->{marker} } }, $_->{revision} for grep { $_->{what} eq 'begin' && $_->{marker} =~ /-race-\d/ } $t->trace;
my $again = grep { @$_ > 1 } values %ran;
ok($again > 0, "conflicts occurred in the race ($again commands were handled more than once)");
# The last run of each that is in the log is the one that was stored; one before may have seen as many events, of which one
# was not stored in the end.
my %last;
$last{ $ran{$_}[-1] }++ for grep { $ran{$_} } split /\n/, $t->sql(q(SELECT data->>'marker' FROM evento.events WHERE data->>'marker' LIKE '%-race-%'));
is(scalar(keys %last), scalar(grep { $_ == 1 } values %last), 'no two commands were stored that were handled on stories of the same length');
$t->proxies_run;

done_testing();
