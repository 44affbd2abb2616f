# Positions and acknowledged events across restarts and crashes: nothing that
# was acknowledged is lost or moved, no position is given twice, versions stay
# dense, and what a reader has seen stays what it was.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# Without the forced flush of an append, acknowledged events would wait ten
# seconds for the WAL writer.
my $node = Evento::Cluster->started('main', conf => "wal_writer_delay = 10s\nfsync = off\nautovacuum = off\n");
my (%acknowledged, %seen);

# ---- an orderly restart ----

$node->safe_psql('postgres', q{SELECT evento.append('r-' || n % 3, 'T', to_json(n)) FROM generate_series(1, 100) n});
is($node->settle, '100', 'positions are dense from 1');
$node->restart;
is($node->safe_psql('postgres', 'SELECT count(*), max(position) FROM evento.read_all()'), '100|100', 'after a restart all is read, before any append');
cmp_ok($node->safe_psql('postgres', q{CALL evento.wait(NULL, '20s')}), '>=', 100, 'and wait(NULL) ends');
is($node->safe_psql('postgres', q{SELECT evento.append('r-0', 'T', '1', expected => 33)}), '34', 'versions go on');
cmp_ok($node->safe_psql('postgres', q{SELECT max(position) FROM evento.read_stream('r-0')}), '>', 100, 'positions go on');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '0', 'without a jump');
$node->settle;

# ---- crashes while writers write ----

# A writer appends to a stream of its own and prints position, version and data of each acknowledged event.
sub writer
{
	my ($name, $settings) = @_;
	my $script = $node->basedir . "/writer_$name.sql";
	open(my $file, '>', $script) or die $!;
	print $file "SET synchronous_commit = $settings;\n";
	print $file "SELECT evento.append('$name', 'T', '\"$name $_\"') AS v \\gset\nSELECT last || '|' || :v || '|$name $_' FROM evento.last_append();\n" for 1 .. 50000;
	close $file;
	return $node->launch('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $script);
}

sub acknowledged_by
{
	my ($handle) = @_;
	my $new = 0;
	for my $line (split /\n/, slurp_file($handle->{out}))
	{
		next unless $line =~ /^(\d+)\|(\d+)\|(\S+ \d+)$/;
		$acknowledged{$3} = "$1|$2";
		$new++;
	}
	return $new;
}

# What a reader was given, by position, behind a position; at most so many times 2000.
sub read_log
{
	my ($after, $times) = @_;
	while ($times-- > 0)
	{
		my @rows = split /\n/, $node->safe_psql('postgres', "SELECT position || '|' || id FROM evento.read_all($after, 2000)");
		last if !@rows;
		for my $row (@rows)
		{
			my ($position, $id) = split /\|/, $row;
			return "position $position was $seen{$position} and is $id" if exists $seen{$position} && $seen{$position} ne $id;
			$seen{$position} = $id;
			$after = $position;
		}
	}
	return '';
}

sub highest_seen
{
	my ($highest) = sort { $b <=> $a } keys %seen;
	return $highest // 0;
}

# Starts the server again, once those that the last one left are gone.
sub start_again
{
	for (1 .. 300)
	{
		return if $node->start(fail_ok => 1);
		# A start that fails leaves the pid of the one before.
		$node->{_pid} = undef;
		sleep 0.1;
	}
	die 'the server did not start';
}

# Every event that was read is there still.
sub still_there
{
	my %now = map { split /\|/ } split /\n/, $node->safe_psql('postgres', "SELECT position || '|' || id FROM evento._events");
	return scalar grep { !exists $now{$_} || $now{$_} ne $seen{$_} } keys %seen;
}

my $round = 0;
for my $crash ('kill -9 of a backend', 'stop -m immediate', 'kill -9 of the server', 'kill -9 of a backend again')
{
	$round++;
	my @writers = map { writer("w-$round-$_", $_ % 2 ? 'off' : 'on') } 1 .. 4;
	my $victim;
	$victim = $node->background_psql('postgres', on_error_stop => 0) if $crash =~ /backend/;
	my $pid = $victim ? Evento::Cluster::backend_pid($victim) : undef;
	ok($node->poll_query_until('postgres', "SELECT count(*) >= 1500 FROM evento._events e JOIN evento._streams s USING (stream_no) WHERE s.name LIKE 'w-$round-%'"), "$crash: writers are at it");
	is(read_log(highest_seen(), 2), '', "$crash: read while they write");
	is($node->safe_psql('postgres', "SELECT max(position) AS p FROM evento._events \\gset\nSELECT :p <= last_value + 1023 FROM evento._positions"), 't', "$crash: no position is used that the sequence has not reserved");

	if ($crash =~ /backend/)
	{
		kill 'KILL', $pid;
	}
	elsif ($crash =~ /immediate/)
	{
		$node->stop('immediate');
	}
	else
	{
		$node->kill9;
	}
	$node->finish($_) for @writers;
	start_again() if $crash !~ /backend/;
	$node->wait_back($pid) or die 'the server did not come back';
	eval { $victim->quit } if $victim;

	my $new = 0;
	$new += acknowledged_by($_) for @writers;
	cmp_ok($new, '>', 50, "$crash: $new events were acknowledged");
	is(still_there(), 0, "$crash: what was read is there still");

	my %stored;
	for (split /\n/, $node->safe_psql('postgres', q{SELECT data #>> '{}', position || '|' || version FROM evento._events WHERE data #>> '{}' LIKE 'w-%'}))
	{
		my ($data, @place) = split /\|/;
		die "stored twice: $data" if exists $stored{$data};
		$stored{$data} = join '|', @place;
	}
	my @lost = grep { ($stored{$_} // 'lost') ne $acknowledged{$_} } keys %acknowledged;
	is(scalar @lost, 0, "$crash: every acknowledged event is where it was acknowledged") or diag(join ', ', splice @lost, 0, 5);

	my $highest = highest_seen();
	my $next = $node->safe_psql('postgres', "SELECT evento.append('after-$round', 'T', '1', expected => 0) AS v \\gset\nSELECT last FROM evento.last_append()");
	cmp_ok($next, '>', $highest, "$crash: the next position is one that no reader has seen");
	$node->settle;
	is(read_log(0, 1000), '', "$crash: read again from the start, the same");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM evento.events'), $node->safe_psql('postgres', 'SELECT count(*) FROM evento._events'), "$crash: all of it is readable");
}
$node->log_is_sound('in the end');
is($node->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '0', 'a crash is no jump');

# ---- the reservation holds without the events ----

# Were the table asked alone, what readers have seen of lost events would be given out again. More than nextval logs ahead, 32 blocks.
$node->safe_psql('postgres', q{SELECT evento.append('more', 'T', to_json(n)) FROM generate_series(1, 40000) n});
my $last = $node->safe_psql('postgres', 'SELECT max(position) FROM evento._events');
$node->safe_psql('postgres', 'TRUNCATE evento._events, evento._streams; UPDATE evento._watermark SET position = 0');
$node->stop('immediate');
$node->start;
cmp_ok($node->safe_psql('postgres', q{SELECT evento.append('first', 'T', '1') AS v \gset
SELECT last FROM evento.last_append()}), '>', $last, 'after a crash the sequence alone keeps positions from being used again');
$node->stop;
done_testing();
