# Standbys under load: wait() there follows within a second, also behind another
# standby; every function that writes is refused; what diagnoses works.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{EVENTO_LONG} ? 60 : 10;
my $node = Evento::Cluster->started('primary');
$node->safe_psql('postgres', q{SELECT evento.append('s-0', 'T', '1')});
my $standby = $node->standby('standby');
$standby->backup('for_second');
my $second = bless PostgreSQL::Test::Cluster->new('second'), 'Evento::Cluster';
$second->init_from_backup($standby, 'for_second', has_streaming => 1);
$second->start;

# ---- wait under load: how old is an event when a waiter there sees it ----

my $script = $node->basedir . '/append.sql';
append_to_file($script, q{SELECT evento.append('s-' || (random() * 1000)::int, 'T', ('{"a": "' || repeat('x', 200) || '"}')::json);});

my $stop = $node->basedir . '/stop';

# Follows the log as a consumer does, until it is told to stop; writes the age of the newest event at each wake-up, in ms.
sub follow
{
	my ($where, $file) = @_;
	my $pid = fork() // die "fork: $!";
	return $pid if $pid;
	open(my $out, '>', $file) or die $!;
	my $session = $where->background_psql('postgres');
	my $after = 1;
	my $stopped = 0;
	while (1)
	{
		my $last_look = $stopped ||= -e $stop;
		my $got = $session->query_safe("CALL evento.wait($after, '1s') \\gset\nSELECT max(position), (EXTRACT(epoch FROM clock_timestamp() - max(recorded_at)) * 1000)::numeric(12,1) FROM evento.read_all($after, NULL)");
		my ($position, $age) = split /\|/, $got;
		last if $last_look && ($position // '') eq '';
		next if !defined $position || $position eq '';
		print $out "$position $age\n";
		$after = $position;
	}
	close $out;
	$session->quit;
	POSIX::_exit(0);
}

my %where = ('the standby' => $standby, 'a standby behind it' => $second);
my %pid = map { $_ => follow($where{$_}, $node->basedir . '/' . ($_ =~ s/\W/_/gr)) } sort keys %where;
my $writers = $node->launch('pgbench', '-n', '-c', '4', '-T', $seconds, '-R', '400', '-f', $script, 'postgres');
is($node->finish($writers, $seconds + 60), 0, 'the writers are done');
my $last = $node->safe_psql('postgres', 'SELECT max(position) FROM evento._events');
$where{$_}->safe_psql('postgres', "CALL evento.wait($last - 1, '60s')") for sort keys %where;
append_to_file($stop, '');
waitpid($pid{$_}, 0) for sort keys %pid;
for my $name (sort keys %where)
{
	my @lines = split /\n/, slurp_file($node->basedir . '/' . ($name =~ s/\W/_/gr));
	my @ages = sort { $a <=> $b } map { (split / /)[1] } @lines;
	cmp_ok(scalar(@lines), '>', 20, "$name: woken again and again");
	note sprintf '%s: %d times, age of the newest event p50 %.1f ms, p99 %.1f ms, most %.1f ms', $name, scalar(@ages), $ages[@ages / 2], $ages[@ages * 0.99], $ages[-1];
	cmp_ok($ages[@ages / 2], '<', 1000, "$name: half of the time within a second, at least");
	is((split / /, $lines[-1])[0], $last, "$name: up to the last event");
}

# ---- an idle moment, then one event ----

for my $name (sort keys %where)
{
	my $session = $where{$name}->background_psql('postgres');
	Evento::Cluster::send_to($session, "CALL evento.wait($last, '100s');");
	$where{$name}->poll_query_until('postgres', 'SELECT waiting = 1 FROM evento.stats') or die 'does not wait';
	$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '1')});
	is(Evento::Cluster::answer_of($session), ++$last, "$name: one event wakes who waits there");
	$session->quit;
}

# ---- nothing can be written there ----

my %writes = (
	append => q{SELECT evento.append('s-1', 'T', '1')},
	'append, without stream' => q{SELECT evento.append(NULL, 'T', '1')},
	append_events => q{SELECT evento.append_events('s-1', ARRAY[ROW('A', '1', NULL, NULL, NULL, NULL, NULL)]::evento.new_event[])},
	append_batch => q{SELECT * FROM evento.append_batch('\x00')},
	delete_stream => q{SELECT evento.delete_stream('s-1')},
	save_snapshot => q{SELECT evento.save_snapshot('s-1', 1, '1')},
	drop_snapshots => q{SELECT evento.drop_snapshots('s-1')},
	jump_positions => q{SELECT evento.jump_positions('no')});
# Those of other parts, where they are there.
my %more = (
	tombstone_stream => q{SELECT evento.tombstone_stream('s-1')},
	erase_stream => q{SELECT evento.erase_stream('s-1', 'no')},
	consumer_claim => q{SELECT * FROM evento.consumer_claim('c', '10s')},
	consumer_ack => q{SELECT evento.consumer_ack('c', 1, 1)},
	consumer_reset => q{SELECT evento.consumer_reset('c', 1)},
	consumer_drop => q{SELECT evento.consumer_drop('c')},
	create_index => q{CALL evento.create_index('type')});
for my $name (sort keys %more)
{
	$writes{$name} = $more{$name} if $node->safe_psql('postgres', "SELECT count(*) FROM pg_proc WHERE pronamespace = 'evento'::regnamespace AND proname = '$name'");
}
for my $name (sort keys %writes)
{
	is($standby->state_of($writes{$name}), 'V0005', "refused on a standby: $name");
}

# ---- what diagnoses ----

for my $name (sort keys %where)
{
	my $there = $where{$name};
	$there->safe_psql('postgres', "CALL evento.wait($last - 1, '60s')");
	is($there->safe_psql('postgres', 'SELECT watermark FROM evento.stats'), $last, "$name: stats has the watermark");
	is($there->safe_psql('postgres', q{SELECT worker_state, next_position IS NULL, committed_position IS NULL, wait_wakeups > 0, transactions, advances > 0, row_writes FROM evento.stats}), 'running|t|t|t|0|t|0', 'and what there is to count');
	is($there->safe_psql('postgres', 'SELECT count(*) FROM evento.appending'), '0', 'nobody appends there');
	is($there->safe_psql('postgres', q{SELECT * FROM evento.doctor() WHERE severity IN ('error', 'warning') AND subject <> 'fsync'}), '', 'doctor finds nothing');
}
$standby->append_conf('postgresql.conf', 'hot_standby_feedback = off');
$standby->reload;
ok($standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM evento.doctor() WHERE severity = 'warning' AND subject = 'hot_standby_feedback'}), 'doctor there: hot_standby_feedback is off');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$node->safe_psql('postgres', q{SELECT evento.append('s-1', 'T', '1')});
ok($standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM evento.doctor() WHERE severity = 'warning' AND subject = 'standby' AND advice LIKE '%pg_wal_replay_resume%'}), 'replay is paused');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');

# ---- DROP and CREATE EXTENSION, replayed ----

# The worker of the standby rests while that happens, between two turns: what it has published is of the old log.
my $resting = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'evento worker' AND datname = 'postgres' AND wait_event_type = 'Extension' AND backend_xmin IS NULL};
my $worker = '';
for (1 .. 200)
{
	$worker = $standby->safe_psql('postgres', $resting) || next;
	kill('STOP', $worker);
	last if $standby->safe_psql('postgres', $resting) eq $worker;
	kill('CONT', $worker);
	$worker = '';
}
isnt($worker, '', 'the worker of the standby is stopped');
$node->safe_psql('postgres', 'DROP EXTENSION evento');
$node->safe_psql('postgres', 'CREATE EXTENSION evento');
$node->safe_psql('postgres', q{SELECT evento.append('new', 'T', '1')});
$node->settle;
$node->wait_for_catchup($standby);
ok($standby->poll_query_until('postgres', 'SELECT count(*) = 1 FROM evento.events'), 'made anew, the standby shows the new log');
is($standby->safe_psql('postgres', q{CALL evento.wait(0, '100ms')}), '0', 'with nothing of the watermark of before');
kill('CONT', $worker) if $worker ne '';
is($standby->safe_psql('postgres', q{CALL evento.wait(0, '100s')}), '1', 'and waits for it');

# ---- a synchronous standby that is missing ----

$node->set_synchronous('nobody');
my $writer = $node->background_psql('postgres', on_error_stop => 0);
my $pid = Evento::Cluster::backend_pid($writer);
$writer->query_safe(q{SET application_name = 'the writer'});
Evento::Cluster::send_to($writer, q{SELECT evento.append('sync', 'T', '1');});
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM evento.appending WHERE pid = $pid AND wait_event = 'SyncRep' AND first_position = 2 AND application_name = 'the writer' AND query LIKE 'SELECT evento.append%'"), 'appending names who waits for it');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM evento.doctor() WHERE subject = 'watermark' AND finding LIKE 'Process $pid (%the writer%SyncRep%' AND advice LIKE '%(nobody)%'"), 'as does doctor, and says what to do');
is($node->safe_psql('postgres', 'SELECT next_position - 1 - committed_position FROM evento.stats'), '1', 'stats shows how far it holds the watermark back');
$node->adjust_conf('postgresql.conf', 'synchronous_standby_names', "''");
$node->reload;
is(Evento::Cluster::answer_of($writer), '1', 'the setting changed, it goes on');
is($node->settle, '2', 'as does the watermark');
$writer->quit;

$second->stop;
$standby->stop;
$node->stop;
done_testing();
