# 710_patroni.pl
#   Three PostgreSQL under Patroni with synchronous replication, and two proxies
#   that list them, under load: the primary is killed with its Patroni, it
#   comes back, and there is a switchover.  The proxies find the new primary by
#   themselves, and the log has what was answered.  Prints how long callers were
#   without progress.  EVENTO_LONG=1: Patroni alone is killed too and leaves its
#   primary behind, and all of it without synchronous_mode_strict too.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Patroni;
use Evento::ProxyTest;
use Evento::Traffic;

my $why = Evento::Patroni::why_not();
plan skip_all => $why if $why;

my ($cluster, $traffic);

# A time as seconds behind another.
sub behind { my ($at, $since) = @_; return defined $at ? sprintf('%.1f s', $at - $since) : 'never' }

# When a node was told to be the primary, and when it took writes.
sub promotion
{
	my ($name, $since) = @_;
	my $told = $cluster->said($name, $since, 'received promote request');
	return ($told, $told && $cluster->said($name, $told - 0.001, 'database system is ready to accept connections'));
}

# Traffic goes on until another node has the lead and every caller gets through.
sub moves_on
{
	my ($old, $since, $what) = @_;
	my $new;
	ok($traffic->run(90, sub { Evento::Patroni::every(0.5, sub { $new = $cluster->primary; defined $new && $new ne $old }) }), "$what: another node is the primary") or return;
	$traffic->recovers(60, $what);
	my ($told, $ready) = promotion($new, $since);
	my ($gap, $ended) = $traffic->longest_gap($since - 0.5, time);
	note sprintf '%s: told to be the primary after %s, ready after %s; longest time without progress %.1f s, ended %s behind that',
	  $what, behind($told, $since), behind($ready, $since), $gap, behind($ended, $ready // $since);
	# Generous: the machine may be busy, and a caller gives up what is open after 8 s.
	ok(defined $ready && $ended < $ready + 60, "$what: progress comes with the promotion");
	return;
}

for my $strict ($ENV{EVENTO_LONG} ? qw(true false) : 'true')
{
	$cluster = Evento::Patroni->new(nodes => 3, ttl => 10, loop_wait => 2, retry_timeout => 4, synchronous_mode_strict => $strict);
	ok($cluster->start_all(120), "three nodes under Patroni, strict: $strict") or BAIL_OUT(join "\n", map { $cluster->log($_) } $cluster->names);
	$cluster->sql('CREATE EXTENSION evento; CREATE ROLE proxy LOGIN IN ROLE evento_proxy');
	my $test = Evento::ProxyTest->new(node => $cluster);
	my @proxy = map { $test->start(flags => { name => "$strict$_", database => $cluster->hosts . ' user=proxy', 'database-wait' => '10s' }) } 1 .. 2;
	$traffic = Evento::Traffic->new(proxies => \@proxy, callers => 4, handlers => 2);
	ok($traffic->run(60, sub { 50 < grep { defined $_->{object} } @{ $traffic->{commands} } }), 'there is load');

	for my $kill ('node', $ENV{EVENTO_LONG} ? 'patroni' : ())
	{
		my $what = $kill eq 'node' ? 'is killed' : 'loses its Patroni and lives on';
		my $old = $cluster->some_primary;
		my $since = time;
		$kill eq 'node' ? $cluster->kill_node($old) : $cluster->kill_patroni($old);
		moves_on($old, $since, "the primary $old $what");

		$cluster->start($old);
		ok($traffic->run(90, sub { Evento::Patroni::every(0.5, sub { $cluster->whole }) }), "$old comes back as a standby");
	}

	my $old = $cluster->some_primary;
	my $since = time;
	is($cluster->switchover_beside(sub { $traffic->run(0.1) }, $old), '', 'patronictl switches over');
	moves_on($old, $since, "switchover from $old");
	ok($traffic->run(90, sub { Evento::Patroni::every(0.5, sub { $cluster->whole }) }), "$old follows");

	$traffic->check(sub { $cluster->sql($_[0]) }, "strict: $strict");
	is($_->stop, 0, "$_->{name} ends in order") for @proxy;
	$cluster->stop;
}
done_testing();
