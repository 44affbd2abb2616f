# Numbers of proxies, sessions and locks are nobody's twice: not after the
# promotion of a standby that never heard of the last ones, nor where the
# extension is dropped and made again.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = Evento::Cluster->started('primary');
my $standby = $primary->standby('standby');

# One of each; gives the numbers.
sub draw
{
	my ($node) = @_;
	my ($proxy) = $node->safe_psql('postgres', q{SELECT proxy_id FROM evento._proxy_register('p', 'a', 'b', NULL, 'v')});
	# A lease lasts 5 s, in which a slow machine does not come far.
	$node->safe_psql('postgres', "UPDATE evento._proxies SET renewed_at = clock_timestamp() + interval '1 hour' WHERE proxy_id = $proxy");
	my $session = $node->safe_psql('postgres', "SELECT * FROM evento._session_sync($proxy, '{}', '{0}', '{b}', '{i}', '{1}', '{0}', '{t}', '{}', '{0}')");
	my ($ticket, $fence) = split /\|/, $node->safe_psql('postgres', "SELECT * FROM evento._lock_take($proxy, '{l}', '{30000}')");
	$node->safe_psql('postgres', "SELECT evento._lock_release('{$ticket}')");
	return (proxy => $proxy, session => $session, ticket => $ticket, fence => $fence);
}

sub are_higher
{
	my ($before, $now, $what) = @_;
	cmp_ok($now->{$_}, '>', $before->{$_}, "$what: $_") for sort keys %$before;
	return;
}

my %first = draw($primary);
$primary->wait_for_catchup($standby);

# From here on the standby gets nothing.
$standby->append_conf('postgresql.conf', "primary_conninfo = ''");
$standby->reload;
$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver') or die 'it goes on';
my %lost = %first;
for (1 .. 5)
{
	my %next = draw($primary);
	are_higher(\%lost, \%next, 'rising');
	%lost = %next;
}
# More than nextval logs ahead.
$primary->safe_psql('postgres', q{SELECT count(evento._proxy_register('q' || n, 'a', 'b', NULL, 'v')) FROM generate_series(1, 100) n});
$primary->safe_psql('postgres', "SELECT count(*) FROM generate_series(1, 100) n, evento._session_sync($lost{proxy}, '{}', '{0}', '{b}', ARRAY['i' || n], '{1}', '{0}', '{t}', '{}', '{0}')");
$primary->safe_psql('postgres', "SELECT count(*) FROM evento._lock_take($lost{proxy}, ARRAY(SELECT 'l' || n FROM generate_series(1, 100) n), array_fill(30000::bigint, ARRAY[100]))");
my %next = draw($primary);
cmp_ok($next{$_}, '>=', $lost{$_} + 100, "many: $_") for sort keys %lost;
%lost = %next;
is($primary->state_of("SET synchronous_commit = off; SELECT * FROM evento._lock_take($lost{proxy}, '{kept}', '{30000}')"), '', 'a lock is taken and held');
my $holder = $lost{proxy};
$lost{fence} = $primary->safe_psql('postgres', 'SELECT max(fence) FROM evento._locks');
$primary->stop('immediate');

$standby->promote;
is($standby->safe_psql('postgres', "SELECT evento._proxy_renew($holder, '{}')"), 'f', 'promoted, it does not know who registered last');
my $renewed = $standby->safe_psql('postgres', "SELECT evento._proxy_renew($first{proxy}, '{}')");
note("the first proxy's lease: $renewed");
my %after = draw($standby);
are_higher(\%lost, \%after, 'after a promotion');
is($standby->safe_psql('postgres', "SELECT evento._proxy_renew($holder, '{}')"), 'f', 'nor does who was lost renew what is now another\'s');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '1', 'the jump is on record');

# ---- made anew ----

$standby->safe_psql('postgres', 'DROP EXTENSION evento; CREATE EXTENSION evento');
my %anew = draw($standby);
are_higher(\%first, \%anew, 'made anew');
is($standby->safe_psql('postgres', "SELECT evento._proxy_renew($first{proxy}, '{}')"), 'f', 'a proxy of before registers again');

# ---- a jump that is asked for ----

$standby->safe_psql('postgres', 'SELECT evento.jump_positions()');
my %asked = draw($standby);
cmp_ok($asked{$_}, '>', $anew{$_} + 1_000_000_000, "jump_positions: $_") for sort keys %anew;
$standby->stop('immediate');
$standby->start;
my %crashed = draw($standby);
are_higher(\%asked, \%crashed, 'after a crash');
$standby->stop;
done_testing();
