# Logical replication of the log, by the steps of docs/operating.md, to a server
# that has the extension and does not preload it: whoever reads the view events
# there, from the first moment on and while writers write, skips nothing and is
# given everything in order. In the end that server takes over.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{EVENTO_LONG} ? 60 : 8;

my $publisher = Evento::Cluster->started('publisher', conf => "wal_level = logical\nfsync = on\ncommit_delay = 2000\ncommit_siblings = 1\n");
my $subscriber = Evento::Cluster->make('subscriber', preload => '', conf => "max_logical_replication_workers = 8\n");
$subscriber->start;
$subscriber->safe_psql('postgres', 'CREATE EXTENSION evento');

# ---- the steps, as they are documented ----

my $page = slurp_file($ENV{EVENTO_OPERATING} // (__FILE__ =~ s{[^/]*$}{}r) . '../../docs/operating.md');
my ($section) = $page =~ /^## Logical replication\n(.*?)(?=^## |\z)/ms;
my %sql;
push @{ $sql{$1} }, $2 while $section =~ /^-- (on the \w+)[^\n]*\n(.*?)(?=^-- on the |^```)/msg;
my ($publish, $publish_watermark) = @{ $sql{'on the publisher'} };
my ($subscribe, $refresh, $take_over) = @{ $sql{'on the subscriber'} };
ok($publish && $publish_watermark && $subscribe && $refresh && $take_over, 'docs/operating.md has the five steps');

my $connection = $publisher->connstr('postgres') =~ s/'/''/gr;
$subscribe =~ s/CONNECTION '[^']*'/CONNECTION '$connection'/;

# ---- writers and readers ----

my %scripts = (
	plain => q{
\set s random(1, 500)
SELECT evento.append('p-' || :s, 'Plain', '1');
},
	sleeping => q{
\set s random(1, 500)
\set ms random(0, 20)
BEGIN;
SELECT evento.append('q' || :client_id || '-' || :s, 'Slept', '1');
\sleep :ms ms
SELECT evento.append(NULL, 'Slept', '2');
COMMIT;
},
	gone => q{
\set s random(1, 500)
BEGIN;
SELECT evento.append('r' || :client_id || '-' || :s, 'Kept', '1');
SAVEPOINT a;
SELECT evento.append('r' || :client_id || '-' || :s, 'Gone', '2');
ROLLBACK TO a;
SELECT evento.append('r' || :client_id || '-' || :s, 'Kept', '3');
COMMIT;
},
	many => q{
\set s random(1, 500)
SET evento.append_memory = 64;
SELECT evento.append_events('s-' || :s, ARRAY(SELECT ROW('Many', to_json(repeat(md5(n::text), n)), NULL, NULL, NULL, NULL, NULL)::evento.new_event FROM generate_series(1, 60) n));
});
my %weights = (plain => 6, sleeping => 5, gone => 2, many => 1);
my @files;
for my $name (sort keys %scripts)
{
	my $file = $publisher->basedir . "/$name.pgbench";
	append_to_file($file, $scripts{$name});
	push @files, '-f', "$file\@$weights{$name}";
}

my $stop = $publisher->basedir . '/stop';

sub follow
{
	my ($sql, $file) = @_;
	open(my $out, '>', $file) or die $!;
	$out->autoflush(1);
	my $session = $subscriber->background_psql('postgres');
	my $after = 0;
	my $stopped = 0;
	while (1)
	{
		$stopped ||= -e $stop;
		my @positions = split /\n/, $session->query_safe(sprintf $sql, $after);
		print $out "$_\n" for @positions;
		$after = $positions[-1] if @positions;
		last if $stopped && !@positions;
		sleep 0.002 if !@positions;
	}
	close $out;
	$session->quit;
	return;
}

my %readers = (
	'the view' => { sql => 'SELECT position FROM evento.events WHERE position > %d ORDER BY position LIMIT 500' },
	'a naive reader' => { sql => 'SELECT position FROM evento._events WHERE position > %d ORDER BY position LIMIT 500' });
for my $name (sort keys %readers)
{
	my $file = $readers{$name}{file} = $publisher->basedir . '/reader_' . ($name =~ s/\W/_/gr);
	$readers{$name}{pid} = fork() // die "fork: $!";
	next if $readers{$name}{pid};
	my $ok = eval { follow($readers{$name}{sql}, $file); 1 };
	print STDERR "# reader $name: $@" if !$ok;
	POSIX::_exit($ok ? 0 : 1);
}

# Writers that write for so long at least, until written().
sub write_for
{
	my ($time) = @_;
	my $end = $publisher->basedir . '/writers_' . int(rand(1e9));
	my $writers = $publisher->launch('sh', '-c', 'end=$1; shift; until [ -e "$end" ]; do "$@" || exit 1; done', 'sh', $end, 'pgbench', '-n', '-c', '16', '-j', '2', '-T', '2', @files, 'postgres');
	@$writers{qw(until end)} = (time + $time, $end);
	return $writers;
}

sub written
{
	my ($writers, $what) = @_;
	sleep 0.1 while time < $writers->{until};
	append_to_file($writers->{end}, '');
	is($publisher->finish($writers, 120), 0, $what) or diag(slurp_file($writers->{err}));
	return;
}

# How many events the naive reader was not given, of those that lie before its last.
sub skipped_by_naive
{
	my @got = slurp_file($readers{'a naive reader'}{file}) =~ /^(\d+)\n/mg;
	return @got ? $subscriber->safe_psql('postgres', "SELECT count(*) FROM evento._events WHERE position <= $got[-1]") - @got : 0;
}

# All that is committed has come to the subscriber, the watermark too.
sub arrived
{
	my ($what) = @_;
	my $last = $publisher->settle;
	ok($subscriber->poll_query_until('postgres', "SELECT position = $last FROM evento._watermark"), "$what: the watermark has come");
	return $last;
}

# ---- the steps, while writers write ----

$publisher->safe_psql('postgres', q{SELECT evento.append('first-1', 'T', '0'); SELECT evento.save_snapshot('first-1', 1, '{"v": 1}')});
my $writers = write_for($seconds);
$publisher->poll_query_until('postgres', 'SELECT count(*) > 1000 FROM evento._events') or die 'nobody writes';
$publisher->safe_psql('postgres', $publish);
$subscriber->safe_psql('postgres', $subscribe);
ok($subscriber->poll_query_until('postgres', q{SELECT count(*) = 7 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel}), 'the tables have been copied');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM evento.events'), '0', 'the view shows nothing as long as the watermark is missing');
cmp_ok($subscriber->safe_psql('postgres', 'SELECT count(*) FROM evento._events'), '>', 1000, 'though events are there');
$publisher->safe_psql('postgres', $publish_watermark);
$subscriber->safe_psql('postgres', $refresh);
ok($subscriber->poll_query_until('postgres', 'SELECT count(*) > 1000 FROM evento.events'), 'then it shows events');
written($writers, 'writers have written');
arrived('written');

# ---- the same with the subscriber gone for a while, in the midst of it ----

$writers = write_for($seconds / 2);
$subscriber->safe_psql('postgres', 'ALTER SUBSCRIPTION evento DISABLE');
my $before = $publisher->safe_psql('postgres', 'SELECT max(position) FROM evento._events');
$publisher->poll_query_until('postgres', "SELECT max(position) > $before + 200 FROM evento._events") or die 'nobody writes';
$subscriber->safe_psql('postgres', 'ALTER SUBSCRIPTION evento ENABLE');
# Until the naive reader has skipped some, which it does soon.
for (my $until = time + 60; time < $until && skipped_by_naive() <= 0; sleep 0.2) { }
written($writers, 'writers have written again');

# Rows that change, and a transaction that fails in its commit.
$publisher->safe_psql('postgres', q{SELECT evento.append('deleted-1', 'T', '1'); SELECT evento.delete_stream('deleted-1')});
$publisher->safe_psql('postgres', q{SELECT evento.append('erased-1', 'T', '"secret"')});
$publisher->safe_psql('postgres', q{SELECT evento.set_stream_metadata('erased-1', '{"owner": "me"}'), evento.erase_stream('erased-1', 'asked for')});
$publisher->safe_psql('postgres', q{SELECT evento.append('dead-1', 'T', '1'); SELECT evento.tombstone_stream('dead-1')});
$publisher->safe_psql('postgres', q{SELECT evento.set_stream_metadata('first-1', '{"owner": "you"}')});
$publisher->safe_psql('postgres', q{SELECT evento.append('first-1', 'T', '1')});
$publisher->safe_psql('postgres', q{SELECT evento.save_snapshot('first-1', 2, '{"v": 2}')});
$publisher->safe_psql('postgres', q{SELECT evento.append('last-1', 'T', '1')});
my $last = arrived('in the end');
append_to_file($stop, 'now');

# ---- what came ----

my $content = 'SELECT count(*), md5(string_agg(e::text, chr(10) ORDER BY position)) FROM evento.events e';
is($subscriber->safe_psql('postgres', $content), $publisher->safe_psql('postgres', $content), 'both show the same events');
is($subscriber->safe_psql('postgres', q{SELECT count(*) FROM evento.read_stream('deleted-1')}), '0', 'a stream that was deleted is hidden');
is($subscriber->safe_psql('postgres', q{SELECT count(*) FROM evento.read_stream('dead-1')}), '0', 'as is one that was ended');
is($subscriber->safe_psql('postgres', q{SELECT version, data IS NULL FROM evento.read_stream('erased-1')}), '1|t', 'one that was erased is empty');
is($subscriber->safe_psql('postgres', q{SELECT stream, reason, events FROM evento._erasures}), 'erased-1|asked for|1', 'which is on record');
is($subscriber->safe_psql('postgres', q{SELECT evento.stream_metadata('first-1')}), '{"owner": "you"}', 'metadata of streams come');
is($subscriber->safe_psql('postgres', q{SELECT string_agg(part || ' ' || coalesce(data::text, ''), ',') FROM evento.load_stream('first-1')}), 'head ,snapshot {"v": 2}', 'snapshots come, too');
is($subscriber->state_of(q{SELECT evento.append('s-1', 'T', '1')}), 'V0004', 'nobody appends there');
$subscriber->log_is_sound('on the subscriber');

# Deleted events were visible for a moment on both sides; they have no say here.
my @all = split /\n/, $publisher->safe_psql('postgres', q{SELECT position FROM evento._events e LEFT JOIN evento._streams s USING (stream_no) WHERE s.name IS NULL OR s.name NOT IN ('deleted-1', 'dead-1') ORDER BY 1});
for my $name (sort keys %readers)
{
	my $reader = $readers{$name};
	waitpid($reader->{pid}, 0);
	is($?, 0, "$name: came to its end");
	my @got = split /\n/, slurp_file($reader->{file});
	my %got = map { $_ => 1 } @got;
	my $skipped = grep { !$got{$_} } @all;
	if ($name eq 'a naive reader')
	{
		cmp_ok($skipped, '>', 0, "$name skips: $skipped of " . scalar @all);
	}
	else
	{
		is($skipped, 0, "$name: 0 skipped of " . scalar @all);
		is(scalar(grep { $got[$_] <= $got[ $_ - 1 ] } 1 .. $#got), 0, "$name: 0 out of order");
	}
}

# ---- the subscriber takes over ----

$publisher->stop;
$subscriber->safe_psql('postgres', $take_over);
$subscriber->adjust_conf('postgresql.conf', 'shared_preload_libraries', "'evento'");
$subscriber->restart;
is($subscriber->safe_psql('postgres', q{SELECT evento.append('last-1', 'T', '2', expected => 1)}), '2', 'preloaded, it appends');
cmp_ok($subscriber->safe_psql('postgres', q{SELECT max(position) FROM evento._events}), '>', $last + 900_000_000, 'far behind the positions that readers of the publisher may have seen');
is($subscriber->safe_psql('postgres', 'SELECT count(*), max(last_position) FROM evento._jumps'), "1|$last", 'which is on record');
$subscriber->settle;
is($subscriber->safe_psql('postgres', q{SELECT string_agg(data::text, ',' ORDER BY position) FROM evento.events WHERE stream = 'last-1'}), '1,2', 'and its readers are given all');
$subscriber->log_is_sound('after it took over');
$subscriber->stop;
done_testing();
