# Bench.pm
#   What the benches share: the private server, the clients that put load on it,
#   and how two sides are compared: in turns, by the medians of their runs.
package Bench;

use strict;
use warnings;

use Exporter qw(import);
use Time::HiRes qw(time);

use Evento::Fleet;
use Evento::Host;

our @EXPORT_OK = qw(STREAMS start finish host built conf runs seconds server forget_server start_server load pgbench latency message_db
  checkpoint compare median psql fsync_ms);

use constant STREAMS => 10000;

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
my ($host, $built, $pg, $message_db);

sub host { return $host }
sub built { return $built }
sub conf { return $conf }
sub runs { return $runs }
sub seconds { return $seconds }

# Builds what the benches need; parts as Evento::Fleet::build takes them.
sub start
{
	my ($top, @parts) = @_;
	$host = Evento::Host->new(top => $top, name => 'bench');
	$built = Evento::Fleet::build($host, $top, 'bench', @parts);
	return;
}

sub finish
{
	$host->cleanup if $host;
	return;
}

# ---- servers ----

# A server with the extension in a database "bench". name, conf: lines besides.
sub start_server
{
	my ($name, $more) = @_;
	my $server = $host->start_postgres(bin => $built->{bin}, name => $name, conf => $conf . ($more // ''));
	psql($server, 'postgres', 'CREATE DATABASE bench');
	psql($server, 'bench', 'CREATE EXTENSION evento');
	return $server;
}

# The server that most benches share: a log of STREAMS streams, and a copy of
# its table without triggers, for COPY and INSERT.
sub server
{
	return $pg if $pg;
	$pg = start_server('pg');
	load($pg, 'fill', 1, 100);
	psql($pg, 'bench', 'CREATE TABLE copied (LIKE evento._events INCLUDING ALL); INSERT INTO copied SELECT * FROM evento._events; ANALYZE');
	return $pg;
}

# Its processes have been ended.
sub forget_server
{
	undef $pg;
	undef $message_db;
	return;
}

sub psql
{
	my ($server, $db, $sql) = @_;
	return $host->psql($server, $db, $sql);
}

sub checkpoint
{
	my ($server, $db) = @_;
	psql($server, $db, 'CHECKPOINT');
	return;
}

# Milliseconds that one fsync of a page takes where the servers' data lies.
sub fsync_ms
{
	my $file = "$host->{dir}/tmp/fsync";
	open(my $fh, '>', $file) or die "$file: $!\n";
	my @times;
	for (1 .. 100)
	{
		seek($fh, 0, 0);
		syswrite($fh, 'x' x 8192) or die "$file: $!\n";
		my $begin = time;
		$fh->sync or die "$file: $!\n";
		push @times, (time - $begin) * 1000;
	}
	close $fh;
	unlink $file;
	return median(@times);
}

# Installs npm's message-db into a database "message_store" of the shared server.
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

# ---- load ----

sub run_client
{
	my ($name, @command) = @_;
	my $out = "$host->{dir}/log/$name.out";
	unlink $out;
	$host->run(\@command, out => $out) == 0 or die "$name failed: " . Evento::Host::slurp($out);
	return Evento::Host::slurp($out);
}

sub conninfo
{
	my ($server) = @_;
	return "host=$server->{sock} port=$server->{port} dbname=bench user=postgres";
}

# Runs the client of batches in a mode; gives events a second. limit: seconds, or events as in "1000e".
sub load
{
	my ($server, $mode, $clients, $batch, $limit) = @_;
	my $said = run_client('bench-load', $built->{'bench-load'}, $mode, conninfo($server), $limit // $seconds, $clients, $batch, STREAMS, 'copied');
	return ($said =~ m{^(\d+) events/s})[0] // die "bench-load $mode said nothing\n";
}

# Medians in microseconds: of one commit, and of an append to the return of another session's wait().
sub latency
{
	my ($server) = @_;
	my $said = run_client('bench-latency', $built->{'bench-latency'}, conninfo($server), $seconds);
	return $said =~ /^commit (\d+) us, append to wait (\d+) us/ ? ($1, $2) : die "bench-latency said: $said";
}

# Runs a statement with pgbench, prepared; gives transactions a second.
sub pgbench
{
	my ($server, $name, $db, $clients, $script, $options) = @_;
	my $file = "$host->{dir}/tmp/$name.sql";
	my $out = "$host->{dir}/log/pgbench.out";
	open(my $fh, '>', $file) or die "$file: $!\n";
	print $fh $script;
	close $fh;
	unlink $out;
	$host->run([ "$built->{bin}/pgbench", '-n', '-M', 'prepared', '-c', $clients, '-j', ($clients > 1 ? 2 : 1), '-T', $seconds, '-f', $file,
			'-h', $server->{sock}, '-p', $server->{port}, '-U', 'postgres', $db ],
		out => $out, env => { PGOPTIONS => $options // '' }) == 0
	  or die "pgbench failed: " . Evento::Host::slurp($out);
	my $text = Evento::Host::slurp($out);
	die "pgbench saw errors: $text" if $text =~ /aborted/ || $text =~ /number of failed transactions: [1-9]/;
	return ($text =~ /^tps = ([\d.]+)/m)[0] // die "pgbench said nothing: $text";
}

# ---- figures ----

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return @sorted % 2 ? $sorted[ @sorted / 2 ] : ($sorted[ @sorted / 2 - 1 ] + $sorted[ @sorted / 2 ]) / 2;
}

# Runs two measurements in turns and gives the ratio of their medians. Who goes
# first changes from turn to turn.
sub compare
{
	my ($unit, $name_a, $a, $name_b, $b) = @_;
	my (@a, @b);
	for my $run (1 .. $runs)
	{
		push @a, $a->() if $run % 2;
		push @b, $b->();
		push @a, $a->() if $run % 2 == 0;
	}
	printf "# %-28s median %7.0f %s  (%s)\n", $_->[0], median(@{ $_->[1] }), $unit, join(' ', map { sprintf '%.0f', $_ } @{ $_->[1] })
	  for [ $name_a, \@a ], [ $name_b, \@b ];
	return median(@a) / median(@b);
}

1;
