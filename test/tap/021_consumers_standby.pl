# Consumers and a standby: they can be looked at and fetched there, not claimed;
# after a promotion that lost what was committed last, checkpoints and what was
# made of the events still fit together, and nothing that is new is missed.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->started('primary');
my $standby = $node->standby('standby');
$node->safe_psql('postgres', 'CREATE TABLE applied (position bigint PRIMARY KEY)');
$node->safe_psql('postgres', q{SELECT evento.append('s-' || n % 7, CASE n % 2 WHEN 0 THEN 'Even' ELSE 'Odd' END, to_json(n)) FROM generate_series(1, 100) n});
$node->settle;

# A turn as users make it, fenced; gives how many events it took.
sub turn
{
	my ($server, $max, $epoch) = @_;
	return $server->safe_psql('postgres', qq{
BEGIN;
WITH f AS MATERIALIZED (SELECT * FROM evento.consumer_fetch('c', $max)),
     i AS (INSERT INTO applied SELECT position FROM f WHERE position IS NOT NULL RETURNING 1)
SELECT (SELECT count(*) FROM i) AS n, (SELECT max(scanned) FROM f) AS upto \\gset
SELECT evento.consumer_ack('c', :upto, $epoch) AS moved \\gset
COMMIT;
\\echo :n});
}

my $epoch = $node->safe_psql('postgres', q{SELECT epoch FROM evento.consumer_claim('c', '1 hour')});
is(turn($node, 40, $epoch), '40', 'a turn on the primary');
$node->safe_psql('postgres', q{SELECT evento.consumer_claim('even', '0', types => '{Even}')});
$node->wait_for_catchup($standby);

my $columns = 'consumer, kind, position, epoch, owner, lease_until, live, context, types, lag_events, created_at, claimed_at, acked_at, lost_range';
is($standby->safe_psql('postgres', "SELECT $columns FROM evento.consumers ORDER BY 1"), $node->safe_psql('postgres', "SELECT $columns FROM evento.consumers ORDER BY 1"), 'the standby shows the same');
is($standby->safe_psql('postgres', q{SELECT count(position), min(position), max(scanned) FROM evento.consumer_fetch('c', 1000)}), '60|41|100', 'fetch on the standby');
is($standby->safe_psql('postgres', q{SELECT count(position), max(scanned) FROM evento.consumer_fetch('even', 10)}), '10|20', 'with the filter');
for my $call (q{consumer_claim('c', '1 s')}, "consumer_ack('c', 50, $epoch)", "consumer_release('c', $epoch)", q{consumer_reset('c', 0)}, q{consumer_drop('c')})
{
	my ($state, $message) = $standby->state_of("SELECT evento.$call");
	my ($name) = $call =~ /^(\w+)/;
	is($state, 'V0005', "$name on the standby");
	like($message, qr/cannot execute $name\(\) on a standby/, 'which says so');
}

# ---- the primary is lost with what the standby has not got ----

$standby->safe_psql('postgres', q{ALTER SYSTEM SET primary_conninfo = ''});
$standby->reload;
$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver') or die 'still connected';
$node->safe_psql('postgres', q{SELECT evento.append('lost', 'Lost', to_json(n)) FROM generate_series(1, 20) n});
$node->settle;
is(turn($node, 70, $epoch), '70', 'the consumer goes on, into what will be lost');
is($node->safe_psql('postgres', q{SELECT position FROM evento.consumers WHERE consumer = 'c'}), '110', 'and is at 110');
$node->stop('immediate');
$standby->promote;

is($standby->safe_psql('postgres', q{SELECT position, lost_range FROM evento.consumers WHERE consumer = 'c'}), '40|f', 'its checkpoint is what the new primary has');
is($standby->safe_psql('postgres', 'SELECT count(*), max(position) FROM applied'), '40|40', 'as is what it made');
my ($state, $message) = $standby->state_of("SELECT evento.consumer_ack('c', 100, $epoch, after => 110)");
is($state, 'V0008', 'who still believes it at 110 is told');
my $new = $standby->safe_psql('postgres', q{SELECT evento.append('s-1', 'New', '1') AS v \gset
SELECT last FROM evento.last_append()});
$standby->settle;
cmp_ok($new, '>', 1000000, 'the log goes on behind a jump');
is($standby->safe_psql('postgres', q{SELECT lag_events FROM evento.consumers WHERE consumer = 'c'}), '61', 'which does not count as lag');
is(turn($standby, 1000, $epoch), '61', 'the owner of before goes on with its lease');
is($standby->safe_psql('postgres', 'SELECT (SELECT count(*) FROM applied) = count(*), count(*) FROM evento.events'), 't|101', 'everything is applied');
is($standby->safe_psql('postgres', q{SELECT lag_events, lag_seconds = 0, lost_range FROM evento.consumers WHERE consumer = 'c'}), '0|t|f', 'it is at the end');

# One with a checkpoint from elsewhere, in the range that was lost.
my ($out, $err);
$standby->psql('postgres', q{SELECT evento.consumer_claim('elsewhere', '0', start => 110); SELECT consumer, lost_range FROM evento.consumers WHERE lost_range}, stdout => \$out, stderr => \$err);
like($out, qr/^elsewhere\|t$/m, 'one that stands amid what was lost is named');
like($err, qr/WARNING:  consumer "elsewhere" may have read events that are lost/, 'and its owner warned');
$standby->stop;
done_testing();
