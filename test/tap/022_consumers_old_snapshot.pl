# A snapshot that somebody holds keeps every version of a checkpoint alive. What
# a turn of a consumer reads and a look at consumers must not grow with these.
use strict;
use warnings;

use Evento::Cluster;
use Test::More;

my $turns = $ENV{EVENTO_LONG} ? 200_000 : 20_000;
my $node = Evento::Cluster->started('main', conf => "fsync = off\nautovacuum_naptime = 1\n");
$node->safe_psql('postgres', q{SELECT count(evento.append('s-' || n % 100, 'T', '1')) FROM generate_series(1, 5000) n});
$node->settle;
$node->safe_psql('postgres', 'VACUUM ANALYZE evento._events');
$node->safe_psql('postgres', q{SELECT evento.consumer_claim('other ' || n, '0') FROM generate_series(1, 20) n});
my $epoch = $node->safe_psql('postgres', q{SELECT epoch FROM evento.consumer_claim('c', '1 hour')});

# Buffers that a statement touches.
sub buffers
{
	my ($sql) = @_;
	my $plan = $node->safe_psql('postgres', "SELECT 1 FROM evento.consumer_fetch('c', 1);\nBEGIN; EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) $sql; ROLLBACK");
	my ($root) = $plan =~ /(Buffers: shared [^\n]*)/;
	my $n = 0;
	$n += $1 while $root =~ /(?:hit|read)=(\d+)/g;
	return $n;
}

my %statements = (
	fetch => q{SELECT count(*) FROM evento.consumer_fetch('c', 1)},
	claim => "SELECT * FROM evento.consumer_claim('c', '1 hour', held => $epoch)",
	'a claim of a stranger' => q{SELECT * FROM evento.consumer_claim('c', '1 hour')},
	ack => "SELECT evento.consumer_ack('c', (SELECT position + 1 FROM evento.consumers WHERE consumer = 'c'), $epoch)",
	consumers => q{SELECT consumer, position, live FROM evento.consumers});
my %before = map { $_ => buffers($statements{$_}) } sort keys %statements;

my $stranger = $node->background_psql('postgres');
$stranger->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM evento.consumers});
$node->safe_psql('postgres', qq{
DO \$\$
BEGIN
  FOR i IN 1 .. $turns LOOP
    PERFORM evento.consumer_ack('c', i % 5000, c.epoch) FROM evento.consumer_claim('c', '1 hour', held => $epoch) c WHERE i % 5000 > 0 AND i < 5000;
    IF i >= 5000 THEN
      PERFORM evento.consumer_claim('c', '1 hour', held => $epoch);
    END IF;
    COMMIT;
  END LOOP;
END
\$\$});
is($node->safe_psql('postgres', q{SELECT position FROM evento.consumers WHERE consumer = 'c'}), '4999', 'the consumer has moved');
cmp_ok($node->safe_psql('postgres', q{SELECT pg_relation_size('evento._checkpoints') / 8192}), '>', 100, 'its versions fill many pages');
# As autovacuum may do at any time: the planner knows then how few versions live, and of none of the others.
$node->safe_psql('postgres', 'VACUUM ANALYZE evento._checkpoints');
for my $what (sort keys %statements)
{
	my $after = buffers($statements{$what});
	cmp_ok($after, '<', $before{$what} + 100, "$what reads no more than before: $before{$what}, $after buffers");
}
is($stranger->query_safe(q{SELECT position FROM evento.consumers WHERE consumer = 'c'}), '0', 'the stranger sees what was');
is($stranger->query_safe(q{SELECT min(position) FROM evento.consumer_fetch('c', 1)}), '1', 'and fetches from there');
$stranger->query_safe('ROLLBACK');
$stranger->quit;

# With the snapshot gone, vacuum has the table back to what it needs.
$node->poll_query_until('postgres', q{SELECT n_dead_tup < 1000 FROM pg_stat_user_tables WHERE relid = 'evento._checkpoints'::regclass}) or diag('no autovacuum came');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._checkpoints'), '21', 'a row for each consumer');
$node->stop;
done_testing();
