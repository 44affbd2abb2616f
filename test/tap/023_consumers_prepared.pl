# An ack in a transaction that is prepared: nobody else gets the consumer until
# that ends, also over a restart and a crash, and the checkpoint goes with it.
use strict;
use warnings;

use Evento::Cluster;
use Test::More;

my $node = Evento::Cluster->started('main', conf => "max_prepared_transactions = 5\n");
$node->safe_psql('postgres', q{SELECT evento.append('s-' || n % 3, 'T', to_json(n)) FROM generate_series(1, 100) n});
$node->settle;
my $epoch = $node->safe_psql('postgres', q{SELECT epoch FROM evento.consumer_claim('c', '1 hour')});

sub stands { return $node->safe_psql('postgres', q{SELECT position FROM evento.consumers WHERE consumer = 'c'}) }

# Whoever wants the consumer meets the prepared transaction.
sub is_held
{
	my ($when) = @_;
	for my $call ("consumer_ack('c', 60, $epoch)", "consumer_release('c', $epoch)", q{consumer_reset('c', 0)}, q{consumer_drop('c')})
	{
		is($node->state_of("SET lock_timeout = '100ms'; SELECT evento.$call"), '55P03', "$when: $call waits for it");
	}
	is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.consumer_claim('c', '1 hour')}), '0', "$when: a claim gives no row");
	is($node->safe_psql('postgres', "SELECT epoch FROM evento.consumer_claim('c', '1 hour', held => $epoch)"), $epoch, "$when: the owner keeps it");
	return;
}

for my $end ('COMMIT', 'ROLLBACK')
{
	my $before = stands();
	is($node->state_of("BEGIN; SELECT evento.consumer_ack('c', $before + 10, $epoch); SAVEPOINT a; SELECT evento.consumer_ack('c', $before + 20, $epoch); ROLLBACK TO a; PREPARE TRANSACTION 'ack'"), '', "$end: an ack can be prepared");
	is(stands(), $before, "$end: the checkpoint stays");
	is_held("$end, prepared");
	$node->restart;
	is_held("$end, after a restart");
	$node->stop('immediate');
	$node->start;
	is_held("$end, after a crash");
	$node->safe_psql('postgres', "$end PREPARED 'ack'");
	is(stands(), $end eq 'COMMIT' ? $before + 10 : $before, "$end PREPARED decides");
	is($node->state_of("SELECT evento.consumer_ack('c', $before + 15, $epoch)"), '', "$end: the owner goes on");
}

# A consumer that a prepared transaction makes.
is($node->state_of(q{BEGIN; SELECT evento.consumer_claim('new', '1 hour'); PREPARE TRANSACTION 'claim'}), '', 'a claim can be prepared');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.consumer_claim('new', '1 hour')}), '0', 'nobody else makes it');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'claim'});
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento.consumer_claim('new', '1 hour')}), '1', 'until it is rolled back');

# What has appended cannot be prepared, ack or not.
is($node->state_of("BEGIN; SELECT evento.consumer_ack('c', 80, $epoch); SELECT evento.append('s-1', 'T', '1'); PREPARE TRANSACTION 'both'"), 'V0007', 'with an append it is refused');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '0', 'and nothing is left prepared');
isnt(stands(), '80', 'nor acknowledged');
$node->stop;
done_testing();
