# Appends.pm
#   How fast events go in: batches against COPY, single appends against
#   message-db and against an INSERT of the same row, and what they take on disk.
package Appends;

use strict;
use warnings;

use Bench qw(STREAMS server load pgbench message_db checkpoint compare psql start_server fsync_ms latency median runs);

use constant JSON => '{"orderId": "order-17", "customer": "customer-00042", "amount": 12.50, "currency": "EUR", "note": "' . ('n' x 200) . '"}';

sub benches
{
	return (
		[ batch100_vs_copy => '0.75', sub { batch_vs_copy('append', 100) } ],
		[ batch1000_vs_copy => '0.7', sub { batch_vs_copy('append', 1000) } ],
		[ batch10_vs_copy => '1.0', sub { batch_vs_copy('append', 10) } ],
		[ batch100_ids_vs_copy => undef, sub { batch_vs_copy('append-ids', 100) } ],
		[ single_vs_message_db_many => '1.7', sub { single_vs_message_db('many', 32) } ],
		[ single_vs_message_db_one => '4.5', sub { single_vs_message_db('one', 32) } ],
		[ single_vs_insert => '0.75', \&single_vs_insert ],
		[ single_1_client_vs_message_db => '1.2', sub { single_vs_message_db('many', 1) } ],
		[ wait_vs_commit => '1.5 <', \&wait_vs_commit ],
		[ bytes_vs_message_db => '0.85 <', \&bytes_vs_message_db ]);
}

# append_batch of events of 300 bytes into existing streams, 2 clients, against
# COPY of the same rows, as many a transaction.
sub batch_vs_copy
{
	my ($mode, $batch) = @_;
	my $pg = server();
	print "# $batch events of 300 bytes a call, ${\STREAMS} existing streams at random, 2 clients", ($mode eq 'append-ids' ? ', each with an id' : ''), "; COPY (binary) of the same rows\n";
	return compare('events/s',
		'append_batch' => sub { checkpoint($pg, 'bench'); load($pg, $mode, 2, $batch) },
		'COPY' => sub { checkpoint($pg, 'bench'); load($pg, 'copy', 2, $batch) });
}

# The stream of a single append, as an expression for pgbench. many: 1,000
# categories of message-db, so that its lock on the category hardly matters; one: a single.
sub choose_stream
{
	my ($categories) = @_;
	return (($categories eq 'many' ? "'order' || :c || '-' || :s" : "'order-' || :s"),
		"\\set c random(1, 1000)\n\\set s random(1, " . ($categories eq 'many' ? STREAMS / 1000 : STREAMS) . ")\n");
}

# One event a transaction, prepared.
sub single_vs_message_db
{
	my ($categories, $clients) = @_;
	my $pg = server();
	message_db();
	my ($stream, $choose) = choose_stream($categories);
	printf "# one event of %d bytes a transaction, %d client%s, %d streams at random, %s; one fsync takes %.2f ms\n", length(JSON), $clients, ($clients > 1 ? 's' : ''), STREAMS,
	  ($categories eq 'many' ? '1000 categories' : 'one category'), fsync_ms();
	return compare('events/s',
		'evento.append' => sub {
			checkpoint($pg, 'bench');
			pgbench($pg, "evento-$categories", 'bench', $clients, "${choose}SELECT evento.append($stream, 'OrderPlaced', '${\JSON}');\n");
		},
		'message-db write_message' => sub {
			checkpoint($pg, 'message_store');
			pgbench($pg, "message-db-$categories", 'message_store', $clients, "${choose}SELECT write_message(gen_random_uuid()::varchar, $stream, 'OrderPlaced', '${\JSON}');\n",
				'-c search_path=message_store,public');
		});
}

# One event a transaction against an INSERT of the same row into a table with
# the same indexes, which checks nothing.
sub single_vs_insert
{
	my $pg = server();
	my ($stream, $choose) = choose_stream('many');
	psql($pg, 'bench', 'CREATE TABLE IF NOT EXISTS inserted (LIKE evento._events INCLUDING ALL); CREATE SEQUENCE IF NOT EXISTS inserted_position');
	print "# one event of ${\length JSON} bytes a transaction, 32 clients; INSERT: position and version from a sequence, stream number at random\n";
	return compare('events/s',
		'evento.append' => sub {
			checkpoint($pg, 'bench');
			pgbench($pg, 'evento-single', 'bench', 32, "${choose}SELECT evento.append($stream, 'OrderPlaced', '${\JSON}');\n");
		},
		'INSERT' => sub {
			checkpoint($pg, 'bench');
			pgbench($pg, 'insert-single', 'bench', 32, <<"SQL");
\\set s random(1, ${\STREAMS})
INSERT INTO inserted VALUES (nextval('inserted_position'), :s, currval('inserted_position'), now(), clock_timestamp(), gen_random_uuid(), false, false, 'OrderPlaced', 'default', NULL, '${\JSON}', NULL);
SQL
		});
}

# An append to the return of wait() in another session, against its commit alone.
sub wait_vs_commit
{
	my $pg = server();
	my (@ratios, @commits, @waits);
	for my $run (1 .. runs())
	{
		my ($commit, $wait) = latency($pg);
		push @commits, $commit;
		push @waits, $wait;
	}
	printf "# append to the return of wait() in another session: p50 %.0f us (%s); one commit: %.0f us (%s); one fsync takes %.2f ms\n",
	  median(@waits), join(' ', @waits), median(@commits), join(' ', @commits), fsync_ms();
	return median(@waits) / median(@commits);
}

# What as many events take on disk with their indexes, 100 a stream.
sub bytes_vs_message_db
{
	my $pg = server();
	my $events = 100 * STREAMS;
	my $stream = "'order' || (random() * 999)::int || '-' || (random() * ${\(STREAMS / 1000 - 1)})::int";
	my $transactions = $events / 1000;
	message_db();
	my $own = start_server('pg-bytes');
	psql($own, 'bench', "DO \$\$ BEGIN FOR t IN 1 .. $transactions LOOP PERFORM evento.append($stream, 'OrderPlaced', '${\JSON}') FROM generate_series(1, 1000); COMMIT; END LOOP; END \$\$");
	my $ours = psql($own, 'bench', "SELECT sum(pg_total_relation_size(c)) FROM unnest(ARRAY['evento._events', 'evento._streams']::regclass[]) c");
	psql($pg, 'message_store', "ALTER DATABASE message_store SET search_path = message_store, public; TRUNCATE message_store.messages");
	psql($pg, 'message_store', "DO \$\$ BEGIN FOR t IN 1 .. $transactions LOOP PERFORM write_message(gen_random_uuid()::varchar, $stream, 'OrderPlaced', '${\JSON}') FROM generate_series(1, 1000); COMMIT; END LOOP; END \$\$");
	my $theirs = psql($pg, 'message_store', "SELECT pg_total_relation_size('message_store.messages')");
	printf "# bytes on disk an event, with indexes: evento %.0f, message-db %.0f (%d events of %d bytes, %d streams at random)\n", $ours / $events, $theirs / $events, $events, length(JSON), STREAMS;
	return $ours / $theirs;
}

1;
