# No memory left in a backend, wherever an append meets that: the call, the
# buffer, PRE_COMMIT. The error is clean, the session and the server live,
# transactions are stored all or nothing, others go on. (Who is killed for want
# of memory is killed as in 030.)
use strict;
use warnings;

use Evento::Cluster;
use Evento::Ledger;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

plan skip_all => 'prlimit is not there, which takes memory from a running process' if system('prlimit --version >/dev/null 2>&1') != 0;

my $node = Evento::Cluster->started('primary', conf => "jit = off\nmax_stack_depth = 1MB\nautovacuum = off\nlog_error_verbosity = verbose\n");
my $start = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $ledger = Evento::Ledger->new($node);
$ledger->write(clients => 4, streams => 100, batch => 1, think => 5);
$ledger->read($node, $_) for qw(read_all view wait notify);

my ($session, $pid);

# A session whose stack has grown as far as it will: the kernel would have no
# other answer than a signal where that cannot grow.
sub connect_session
{
	$session = $node->background_psql('postgres', on_error_stop => 0);
	$pid = Evento::Cluster::backend_pid($session);
	$session->query('SELECT ' . '(' x 3000 . '1' . ' + 1)' x 3000);
	$session->query(q{SELECT evento.append(NULL, 'Warm', '1')});
	$session->query(q{DO $$ BEGIN PERFORM 1; EXCEPTION WHEN out_of_memory THEN NULL; END $$});
	return;
}

# Takes what the session has freed and could use again: prepared statements
# stay, also where what prepared them is rolled back.
my $hog = q{DO $$ BEGIN FOR i IN 1 .. 1000000 LOOP EXECUTE format('PREPARE %I AS SELECT %s', 'hog_' || gen_random_uuid(), i); END LOOP; EXCEPTION WHEN out_of_memory THEN NULL; END $$};

# Lets the session have so many kB more than it has now; undef: all it wants.
sub limit
{
	my ($kb) = @_;
	my $bytes = 'unlimited';
	if (defined $kb)
	{
		my ($now) = slurp_file("/proc/$pid/status") =~ /^VmSize:\s+(\d+) kB/m;
		$bytes = ($now + $kb) * 1024;
	}
	system('prlimit', "--pid=$pid", "--as=$bytes:") == 0 or die 'prlimit';
	return;
}

# What a statement of that session ends with: '' or an SQLSTATE.
sub ends
{
	my ($sql) = @_;
	$session->{stderr} = '';
	$session->query("\\set VERBOSITY verbose\n$sql");
	my ($state) = $session->{stderr} =~ /(?:ERROR|FATAL|PANIC):\s+(\w{5}):/;
	return $state // ($session->{stderr} =~ /ERROR|FATAL|connection/ ? $session->{stderr} : '');
}

# Packed appends, as include/packed.h has them, of one event each.
sub batch
{
	my ($n, $name, $data) = @_;
	my $items = '';
	for my $i (1 .. $n)
	{
		my $event = pack('C n/a* n n N/a*', 0, 'Big', 0, 0, $data);
		my $item = pack('n q> n/a* n', 0, -9223372036854775807 - 1, "$name-$i", 1) . $event;
		$items .= pack('N/a*', $item);
	}
	return unpack('H*', pack('N N', 0x45564231, $n) . $items);
}

# Each case: what is done before memory is taken, what then, and how many events
# that is. What is done before ends with nothing left to use again.
my $data = '"' . 'x' x 2000 . '"';
my $hex = batch(300, 'batch', $data);
my @cases = (
	[ 'append', undef, q{SELECT evento.append('oom-a', 'Big', to_json(repeat('x', 6000000)))}, 1 ],
	[ 'append_events', undef, q{SELECT evento.append_events('oom-b', ARRAY(SELECT ROW('Big', to_json(repeat('x', 3000)), NULL, NULL, NULL, NULL, NULL)::evento.new_event FROM generate_series(1, 3000)))}, 3000 ],
	[ 'append_batch', undef, "SELECT count(*) FROM evento.append_batch('\\x$hex')", 300 ],
	[ 'many appends', undef, q{SELECT count(evento.append('oom-c-' || n % 500, 'Big', to_json(repeat('x', 2000)))) FROM generate_series(1, 3000) n}, 3000 ],
	[ 'PRE_COMMIT', q{BEGIN; SELECT count(evento.append('oom-d-' || n % 900, 'Big', to_json(repeat('x', 1000)))) FROM generate_series(1, 5000) n}, 'COMMIT', 5000 ],
	[ 'PRE_COMMIT of a large event', q{BEGIN; SELECT evento.append('oom-e', 'Big', to_json(repeat('x', 8000000)))}, 'COMMIT', 1 ],
	[ 'savepoints', q{BEGIN}, q{DO $$ BEGIN FOR i IN 1 .. 300 LOOP BEGIN PERFORM evento.append('oom-f-' || i, 'Big', to_json(repeat('x', 30000))); EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$; COMMIT}, 300 ]);

my %met;
for my $case (@cases)
{
	my ($name, $before, $sql, $events) = @$case;
	my @wrong;
	my $stored = 0;
	connect_session();
	for my $kb ($ENV{EVENTO_LONG} ? map({ int(16 * 1.5**$_) } 0 .. 20) : (0, 64, 300, 700, 1500, 6000, 25000))
	{
		my $count = q{SELECT count(*) FROM evento._events WHERE type = 'Big'};
		my $was = $node->safe_psql('postgres', $count);
		my $state = defined $before ? ends($before) : '';
		if (defined $before && $sql eq 'COMMIT')
		{
			limit(0);
			$state ||= ends($hog);
		}
		push @wrong, "$kb kB more, before: $state" if $state ne '';
		limit($kb);
		$state = ends($sql);
		limit(undef);
		ends('ROLLBACK; DEALLOCATE ALL') if defined $before;
		my $more = $node->safe_psql('postgres', $count) - $was;
		$met{$name}++ if $state eq '53200';
		$stored += $state eq '';
		push @wrong, "$kb kB more: '$state', $more of $events events" if $more != ($state eq '' ? $events : 0) || $state !~ /^(?:53200)?$/;
		# The session goes on.
		$state = ends(q{SELECT evento.append('oom-after', 'After', '1')});
		push @wrong, "$kb kB more, after: $state" if $state ne '';
	}
	$session->quit;
	is(join("\n", @wrong), '', "$name: all or nothing, 53200 or nothing, and the session goes on");
	note("$name: " . ($met{$name} // 0) . " times out of memory, $stored times stored");
}
cmp_ok($met{$_} // 0, '>', 0, "$_: ran out of memory, " . ($met{$_} // 0) . ' times') for map { $_->[0] } @cases;

$ledger->acknowledged(100);
$ledger->survived('out of memory');
$node->log_is_sound('out of memory');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $start, 'the server has not been started again');
unlike(slurp_file($node->logfile), qr/PANIC|was terminated by signal|reinitializing/, 'and no process has died');
$node->stop;
done_testing();
