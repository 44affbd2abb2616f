# No reader skips an event: 32 writers that sleep inside transactions, roll
# back and roll back to savepoints; readers that follow the log in READ
# COMMITTED, in REPEATABLE READ, through the view, and on a streaming standby.
# A reader that ignores the watermark is seen to skip: the test can fail.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{EVENTO_LONG} ? 120 : 12;

# A commit that waits a little before its flush leaves others time to overtake it.
my $node = Evento::Cluster->started('primary', conf => "fsync = on\ncommit_delay = 2000\ncommit_siblings = 1\nautovacuum = off\nevento.cached_streams = 64\n");
my $standby = $node->standby('standby');
$node->safe_psql('postgres', q{SELECT evento.append('start', 'T', '0')});

# ---- writers ----

my %scripts = (
	plain => q{
\set s random(1, 2000)
SELECT evento.append('p-' || :s, 'Plain', '1');
},
	sleeping => q{
\set s random(1, 2000)
\set ms random(0, 30)
BEGIN;
SELECT evento.append('q' || :client_id || '-' || :s, 'Slept', '1');
\sleep :ms ms
SELECT evento.append(NULL, 'Slept', '2');
COMMIT;
},
	rolled_back => q{
\set s random(1, 2000)
\set ms random(0, 10)
BEGIN;
SELECT evento.append('q' || :client_id || '-' || :s, 'Gone', '1');
\sleep :ms ms
ROLLBACK;
},
	savepoint => q{
\set s random(1, 2000)
\set ms random(0, 10)
BEGIN;
SELECT evento.append('r' || :client_id || '-' || :s, 'Kept', '1');
SAVEPOINT a;
SELECT evento.append('r' || :client_id || '-' || :s, 'Gone', '2');
\sleep :ms ms
ROLLBACK TO a;
SELECT evento.append('r' || :client_id || '-' || :s, 'Kept', '3');
COMMIT;
},
	many => q{
\set s random(1, 2000)
SELECT evento.append_events('s-' || :s, ARRAY(SELECT ROW('Many', to_json(n), NULL, NULL, NULL, NULL, NULL)::evento.new_event FROM generate_series(1, 20) n));
});
my %weights = (plain => 4, sleeping => 3, rolled_back => 1, savepoint => 2, many => 1);
my @files;
for my $name (sort keys %scripts)
{
	my $file = $node->basedir . "/$name.pgbench";
	append_to_file($file, $scripts{$name});
	push @files, '-f', "$file\@$weights{$name}";
}

# ---- readers ----

# Each is a process of its own that follows the log and writes the positions it
# is given into a file, until it has been told to stop and finds nothing more.
my $stop = $node->basedir . '/stop';
my %readers = (
	'READ COMMITTED' => { node => $node, sql => 'SELECT position FROM evento.read_all(%d, 500)' },
	'the view' => { node => $node, sql => 'SELECT position FROM evento.events WHERE position > %d ORDER BY position LIMIT 500' },
	'REPEATABLE READ' => { node => $node, begin => 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM evento.streams LIMIT 1; SELECT pg_sleep(0.003)', sql => 'SELECT position FROM evento.read_all(%d, 500)', end => 'COMMIT' },
	'scan_all that waits' => { node => $node, begin => q{CALL evento.wait(%d, '100ms')}, sql => 'SELECT position FROM evento.scan_all(%d, 500) WHERE position IS NOT NULL' },
	'the standby' => { node => $standby, sql => 'SELECT position FROM evento.read_all(%d, 500)' },
	'the view on the standby' => { node => $standby, sql => 'SELECT position FROM evento.events WHERE position > %d ORDER BY position LIMIT 500' },
	'a naive reader' => { node => $node, sql => 'SELECT position FROM evento._events WHERE position > %d ORDER BY position LIMIT 500' });

sub follow
{
	my ($reader, $file) = @_;
	open(my $out, '>', $file) or die $!;
	$out->autoflush(1);
	my $session = $reader->{node}->background_psql('postgres');
	my $after = 0;
	my $stopped = 0;
	while (1)
	{
		$stopped ||= -e $stop;
		$session->query_safe(sprintf $reader->{begin}, $after) if $reader->{begin};
		my @positions = split /\n/, $session->query_safe(sprintf $reader->{sql}, $after);
		$session->query_safe($reader->{end}) if $reader->{end};
		print $out "$_\n" for @positions;
		$after = $positions[-1] if @positions;
		last if $stopped && !@positions;
	}
	close $out;
	$session->quit;
	return;
}

for my $name (sort keys %readers)
{
	my $file = $readers{$name}{file} = $node->basedir . '/reader_' . ($name =~ s/\W/_/gr);
	$readers{$name}{pid} = fork() // die "fork: $!";
	next if $readers{$name}{pid};
	# A child must not run the parent's END blocks, which stop the servers.
	my $ok = eval { follow($readers{$name}, $file); 1 };
	print STDERR "# reader $name: $@" if !$ok;
	POSIX::_exit($ok ? 0 : 1);
}

# How many events the naive reader was not given, of those that lie before its last.
sub skipped_by_naive
{
	my @got = slurp_file($readers{'a naive reader'}{file}) =~ /^(\d+)\n/mg;
	return @got ? $node->safe_psql('postgres', "SELECT count(*) FROM evento._events WHERE position <= $got[-1]") - @got : 0;
}

# On a machine that is slow they write again, until there is enough of it.
my $transactions = 0;
for (1 .. 10)
{
	my $writers = $node->launch('pgbench', '-n', '-c', '32', '-j', '2', '-T', $seconds, @files, 'postgres');
	is($node->finish($writers, $seconds + 60), 0, 'writers have written') or diag(slurp_file($writers->{err}));
	$transactions += $1 if slurp_file($writers->{out}) =~ /number of transactions actually processed: (\d+)/;
	last if $transactions > 500 && skipped_by_naive() > 0;
}
cmp_ok($transactions, '>', 500, "$transactions transactions");
my $last = $node->settle;
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', sprintf q{CALL evento.wait(%d, '30s')}, $last - 1), $last, 'the watermark of the standby has followed');
append_to_file($stop, 'now');

my @all = split /\n/, $node->safe_psql('postgres', 'SELECT position FROM evento._events ORDER BY position');
my $dense = $all[-1] == @all;
cmp_ok(scalar @all, '>', 500, scalar(@all) . ' events');
ok($dense, 'positions are dense');
is($node->safe_psql('postgres', q{SELECT count(*) FROM evento._events WHERE type = 'Gone'}), '0', 'what was rolled back is not there');

# ---- what each reader was given ----

for my $name (sort keys %readers)
{
	my $reader = $readers{$name};
	waitpid($reader->{pid}, 0);
	is($?, 0, "$name: came to its end");
	my @got = split /\n/, slurp_file($reader->{file});
	my %got = map { $_ => 1 } @got;
	my $skipped = grep { !$got{$_} } @all;
	my $unordered = grep { $got[$_] <= $got[ $_ - 1 ] } 1 .. $#got;
	if ($name eq 'a naive reader')
	{
		cmp_ok($skipped, '>', 0, "$name skips: $skipped of " . scalar @all);
	}
	else
	{
		is($skipped, 0, "$name: 0 skipped of " . scalar @all);
		is($unordered, 0, "$name: 0 out of order");
	}
}
$node->log_is_sound('in the end');
$standby->stop;
$node->stop;
done_testing();
