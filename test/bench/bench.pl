#!/usr/bin/perl
# bench.pl
#   "make bench": prints a line "name ratio bar" for each bench; lines that
#   begin with "#" say what was measured.  Both sides of a ratio run in turns
#   against one server with fsync on, and each side is the median of its runs.
#
#   BENCH    names of benches, or parts of names; all without
#   RUNS     runs of each side (5)
#   SECONDS  length of each (4)
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);

my $top;
BEGIN { $top = abs_path(dirname(__FILE__) . '/../..') }
use lib "$top/test/lib";
use Evento::Fleet;
use Evento::Host;

use constant STREAMS => 10000;

my @benches = (
	[ batch100_vs_copy => 0.75, \&batch_vs_copy, 'append' ],
	[ batch100_ids_vs_copy => undef, \&batch_vs_copy, 'append-ids' ],
	[ single_vs_message_db_many => 1.7, \&single_vs_message_db, 'many' ],
	[ single_vs_message_db_one => 4.5, \&single_vs_message_db, 'one' ],
	[ commands_per_second => undef, \&commands ]);

my $runs = $ENV{RUNS} || 5;
my $seconds = $ENV{SECONDS} || 4;
my $conf = <<'CONF';
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 512MB
max_wal_size = 16GB
checkpoint_timeout = 1h
max_connections = 100
CONF
my ($host, $built, $pg);

$| = 1;
$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub {
	$SIG{$_} = 'IGNORE' for qw(INT TERM HUP);
	exit 130;
};
END { my $status = $?; $host->cleanup if $host; $? = $status }

exit main();

sub main
{
	my @wanted = split ' ', $ENV{BENCH} // '';
	my @chosen = grep { my $name = $_->[0]; !@wanted || grep { index($name, $_) >= 0 } @wanted } @benches;
	if (!@chosen)
	{
		print "no such bench; there are: ", join(' ', map { $_->[0] } @benches), "\n";
		return 1;
	}
	$host = Evento::Host->new(top => $top, name => 'bench');
	$built = Evento::Fleet::build($host, $top, 'bench', (grep { $_->[0] eq 'commands_per_second' } @chosen) ? qw(proxy sim) : ());
	for my $bench (@chosen)
	{
		my ($name, $bar, $measure, @args) = @$bench;
		my $value = $measure->(@args);
		print defined $bar ? sprintf("%s %.2f %s\n", $name, $value, $bar) : sprintf("%s %s -\n", $name, $value);
	}
	return 0;
}

# The server of the benches that need no proxy, with a log of STREAMS streams
# and a copy of its table for COPY.
sub server
{
	return $pg if $pg;
	$pg = $host->start_postgres(bin => $built->{bin}, name => 'pg', conf => $conf);
	$host->psql($pg, 'postgres', 'CREATE DATABASE bench');
	$host->psql($pg, 'bench', 'CREATE EXTENSION evento');
	load('fill', 1);
	$host->psql($pg, 'bench', 'CREATE TABLE copied (LIKE evento._events INCLUDING ALL); INSERT INTO copied SELECT * FROM evento._events; ANALYZE');
	return $pg;
}

# Runs the client of batches; gives events a second.
sub load
{
	my ($mode, $clients) = @_;
	my $out = "$host->{dir}/log/load.out";
	unlink $out;
	$host->run([ $built->{'bench-load'}, $mode, "host=$pg->{sock} port=$pg->{port} dbname=bench user=postgres", $seconds, $clients, 100, STREAMS, 'copied' ], out => $out) == 0
	  or die "bench-load $mode failed: " . Evento::Host::slurp($out);
	return (Evento::Host::slurp($out) =~ m{^(\d+) events/s})[0] // die "bench-load $mode said nothing\n";
}

sub checkpoint
{
	my ($db) = @_;
	$host->psql($pg, $db, 'CHECKPOINT');
	return;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return @sorted % 2 ? $sorted[ @sorted / 2 ] : ($sorted[ @sorted / 2 - 1 ] + $sorted[ @sorted / 2 ]) / 2;
}

# Runs two measurements in turns and gives the ratio of their medians. Who goes
# first changes from turn to turn.
sub compare
{
	my ($name_a, $a, $name_b, $b) = @_;
	my (@a, @b);
	for my $run (1 .. $runs)
	{
		push @a, $a->() if $run % 2;
		push @b, $b->();
		push @a, $a->() if $run % 2 == 0;
	}
	printf "# %-28s median %7.0f events/s  (%s)\n", $_->[0], median(@{ $_->[1] }), join(' ', map { sprintf '%.0f', $_ } @{ $_->[1] })
	  for [ $name_a, \@a ], [ $name_b, \@b ];
	return median(@a) / median(@b);
}

# append_batch of 100 events of 300 bytes into existing streams, 2 clients,
# against COPY of the same rows, 100 a transaction.
sub batch_vs_copy
{
	my ($mode) = @_;
	server();
	print "# 100 events of 300 bytes a call, ${\STREAMS} existing streams at random, 2 clients", ($mode eq 'append-ids' ? ', each with an id' : ''), "; COPY (binary) of the same rows\n";
	return sprintf '%.2f', compare(
		'append_batch' => sub { checkpoint('bench'); load($mode, 2) },
		'COPY' => sub { checkpoint('bench'); load('copy', 2) });
}

# ---- single appends and message-db ----

my $message_db;

# Installs npm's message-db into a database of the same server.
sub message_db
{
	return if $message_db;
	my $dir = $host->mkdir("$host->{dir}/message-db");
	my $log = "$host->{dir}/log/message-db.log";
	$host->run([ 'npm', 'install', '--no-audit', '--no-fund', '--ignore-scripts', '--prefix', $dir, '@eventide/message-db@1.3.1' ], out => $log, cwd => $dir) == 0
	  or die "npm could not install message-db:\n" . Evento::Host::slurp($log);
	$host->run([ 'bash', "$dir/node_modules/\@eventide/message-db/database/install.sh" ], out => $log, cwd => $dir,
		env => { PATH => "$built->{bin}:$ENV{PATH}", PGHOST => $pg->{sock}, PGPORT => $pg->{port}, PGUSER => 'postgres', DATABASE_NAME => 'message_store' }) == 0
	  or die "message-db could not be installed:\n" . Evento::Host::slurp($log);
	$message_db = 1;
	return;
}

# Runs a statement from 32 clients with pgbench; gives transactions a second.
sub pgbench
{
	my ($name, $db, $script, $options) = @_;
	my $file = "$host->{dir}/tmp/$name.sql";
	my $out = "$host->{dir}/log/pgbench.out";
	open(my $fh, '>', $file) or die "$file: $!\n";
	print $fh $script;
	close $fh;
	unlink $out;
	$host->run([ "$built->{bin}/pgbench", '-n', '-M', 'prepared', '-c', 32, '-j', 2, '-T', $seconds, '-f', $file, '-h', $pg->{sock}, '-p', $pg->{port}, '-U', 'postgres', $db ],
		out => $out, env => { PGOPTIONS => $options // '' }) == 0
	  or die "pgbench failed: " . Evento::Host::slurp($out);
	my $text = Evento::Host::slurp($out);
	die "pgbench saw errors: $text" if $text =~ /aborted/ || $text =~ /number of failed transactions: [1-9]/;
	return ($text =~ /^tps = ([\d.]+)/m)[0] // die "pgbench said nothing: $text";
}

# One event a transaction, prepared, 32 clients.  many: 1,000 categories of
# message-db, so that its lock on the category hardly matters; one: a single.
sub single_vs_message_db
{
	my ($categories) = @_;
	server();
	message_db();
	my $json = '{"orderId": "order-17", "customer": "customer-00042", "amount": 12.50, "currency": "EUR", "note": "' . ('n' x 200) . '"}';
	my $prefix = $categories eq 'many' ? "'order' || :c || '-' || :s" : "'order-' || :s";
	my $choose = "\\set c random(1, 1000)\n\\set s random(1, " . ($categories eq 'many' ? STREAMS / 1000 : STREAMS) . ")\n";
	print "# one event of ${\length $json} bytes a transaction, 32 clients, ${\STREAMS} streams at random, ", ($categories eq 'many' ? '1000 categories' : 'one category'), "\n";
	return sprintf '%.2f', compare(
		'evento.append' => sub {
			checkpoint('bench');
			pgbench("evento-$categories", 'bench', "${choose}SELECT evento.append($prefix, 'OrderPlaced', '$json');\n");
		},
		'message-db write_message' => sub {
			checkpoint('message_store');
			pgbench("message-db-$categories", 'message_store', "${choose}SELECT write_message(gen_random_uuid()::varchar, $prefix, 'OrderPlaced', '$json');\n",
				'-c search_path=message_store,public');
		});
}

# ---- commands ----

# Aggregate commands through three proxies, as the simulator counts them.
sub commands
{
	my $cluster = Evento::Fleet->start(host => $host, built => $built, proxies => 3, conf => $conf, name => 'pg-cluster');
	$cluster->start_handlers(2);
	my @per_second;
	for my $run (1 .. $runs)
	{
		my $figures = $cluster->callers("bench$run", '--callers', 64, '--connections', 6, '--consumers', 1, '--seconds', $seconds,
			'--proxies', join(',', map { $_->{address} } @{ $cluster->{proxies} }));
		die "the simulator's checks did not hold:\n$figures->{text}" if !$figures->{ok};
		print "# aggregate commands, 64 callers, 3 proxies: $figures->{per_second}/s, latency $figures->{latency_ms}, command to event $figures->{command_to_event_ms}\n";
		push @per_second, $figures->{per_second};
	}
	$host->end_processes;
	undef $pg;
	undef $message_db;
	return sprintf '%.0f', median(@per_second);
}
