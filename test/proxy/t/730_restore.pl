# 730_restore.pl
#   The server is lost and restored from a base backup and the archive of its
#   WAL, by the commands of docs/operating.md and at the same address, while
#   proxies, bundles, consumers and streams of events stay: first with its last
#   WAL, so that nothing is lost and no command fails, then from the same backup
#   to a point in time, so that everybody is ahead of the log.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Docs;
use Evento::Followers;
use Evento::ProxyTest;
use Evento::Traffic;

my $sim = $ENV{EVENTO_SIM} // __FILE__ =~ s{test/proxy/t/[^/]+$}{build/evento-sim}r;
my $dir = PostgreSQL::Test::Utils::tempdir();
my %at = (ARCHIVE => "$dir/archive", BACKUP => "$dir/backup", LOST => "$dir/lost");
mkdir $at{ARCHIVE} or die "mkdir $at{ARCHIVE}: $!";
my ($conf) = map { s{/archive/}{$at{ARCHIVE}/}gr } Evento::Docs::blocks('operating', 'A base backup and an archive', 'ini');
my ($backup, $save, $back, $until, $after) = Evento::Docs::blocks('operating', 'A base backup and an archive', 'sh');

my $test = Evento::ProxyTest->new(conf => "wal_level = replica\nmax_wal_senders = 4\nmax_connections = 60\n$conf");
my $node = $test->node;
my %env = (%at, PGHOST => $node->host, PGPORT => $node->port, PGDATA => $node->data_dir);
my @proxy = map { $test->start(flags => { 'database-wait' => '5min', 'telemetry-interval' => '200ms' }) } 1 .. 2;
my @pids = map { $_->{pid} } @proxy;
my $traffic = Evento::Traffic->new(proxies => \@proxy, callers => 4, handlers => 2, timeout => 120_000);

sub sql { return $test->sql($_[0]) }

sub done { return scalar grep { defined $_->{object} } @{ $traffic->{commands} } }

sub is_done_by { my ($n, $what) = @_; my $to = done() + $n; return ok($traffic->run(60, sub { done() >= $to }), $what) }

sql(Evento::Followers::table_sql());
my $followers = Evento::Followers->new(proxies => \@proxy, connstr => $node->connstr('postgres'), dir => $dir);

# Bundles of a simulator, which checks every answer and every event by itself, until it is told to end.
my $sim_log = "$dir/sim.log";
my $sim_pid = Evento::ProxyTest::run_beside($sim_log, $sim, '--proxies', join(',', map { "127.0.0.1:$_->{port}" } @proxy), '--callers', 8, '--seconds', 3600, '--rate', 25, '--timeout', 120_000);
ok($proxy[0]->wait_for(sub { slurp_file($sim_log) =~ /^ready/m }, 60), 'a simulator plays bundles');

# What runs beside the test's own steps.
sub beside { $traffic->turn(0.02, 1); $followers->look; return }

# Runs a command of the documentation while all goes on.
sub doc
{
	my ($block, $what, %more) = @_;
	my $pid = fork // die "fork: $!";
	POSIX::_exit(Evento::Docs::run_block($block, %env, %more) ? 0 : 1) if !$pid;
	beside() while waitpid($pid, POSIX::WNOHANG()) == 0;
	return is($?, 0, $what);
}

sub begin_again
{
	my ($timeline, $what) = @_;
	$node->start;
	my $recovering = q(SELECT pg_is_in_recovery());
	ok($proxy[0]->wait_for(sub { beside(); sql($recovering) eq 'f' }, 60), "$what: the server takes writes again") or BAIL_OUT('no recovery');
	is(sql('SELECT timeline_id FROM pg_control_checkpoint()'), $timeline, "$what: on timeline $timeline") if sql('CHECKPOINT') eq '';
	$traffic->recovers(60, $what);
	for my $proxy (@proxy)
	{
		ok(scalar($proxy->wait_log("the database is on timeline $timeline")), "$what: $proxy->{name} tells of the timeline");
		ok($proxy->wait_for(sub { beside(); ($proxy->metric('links') // 0) == 2 }), "$what: $proxy->{name} has its links");
	}
	is(join(' ', map { $_->running ? $_->{pid} : 'ended' } @proxy), "@pids", "$what: the proxies are the same");
	ok($proxy[0]->wait_for(sub { beside(); sql(q(SELECT string_agg(instance, ' ' ORDER BY instance) FROM evento.bundles WHERE enabled AND bundle NOT LIKE 'sim-%')) eq 'c1 c2 c3 c4 h1 h2 r1' }),
		"$what: and every bundle is there, once");
	return;
}

is_done_by(20, 'there is load before the backup');
doc($backup, 'a base backup, as documented');
is_done_by(60, 'there is load behind the backup');

# A moment to come back to later: one of this server, not of the one that is restored first.
sql(q(SELECT evento.append('moment', 'Before', '{}')));
my $time = sql('SELECT clock_timestamp()');
sql(q(SELECT evento.append('moment', 'Behind', '{}')));
is_done_by(20, 'and behind the moment');

# ---- to the end of the archive, with the last WAL of the server that is lost ----

$node->stop('immediate');
rename $node->data_dir, $at{LOST} or die "rename: $!";
ok($traffic->run(2), 'requests wait');
doc($save, 'its last WAL is saved, as documented');
doc($back, 'the backup is put in its place, as documented');
begin_again(2, 'the end of the archive');
is_done_by(20, 'there is load on what was restored');
kill 'TERM', $sim_pid;
$proxy[0]->wait_for(sub { beside(); waitpid($sim_pid, POSIX::WNOHANG()) == $sim_pid }, 120);
Evento::ProxyTest::ended($sim_pid);
like(slurp_file($sim_log), qr/^failed 0\n.*^wrong 0\nOK$/ms, 'no command of the simulator failed, and its consumer saw every event once, in order');

ok($traffic->finish(60), 'all is answered');
$traffic->check(\&sql, 'the end of the archive');
is((scalar grep { defined $_->{failure} } @{ $traffic->{commands} }), 0, 'and no command failed');
my $head = sql('SELECT evento.watermark()');
ok($followers->reach(\&sql, $head), 'all who follow the log come to its end');
$followers->check(\&sql, 'the end of the archive');
is(sql('SELECT count(*) FROM evento.consumers WHERE lost_range'), '0', 'nobody has read what is lost');
is($followers->{stream_begun}, 1, 'the stream over HTTP never ended');

# ---- the same backup, to a point in time ----

my @read = split /\n/, sql('SELECT position FROM evento.events ORDER BY position');
my $segment = sql('SELECT pg_walfile_name(pg_switch_wal())');
$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$segment' FROM pg_stat_archiver") or die 'the segment is not archived';
$node->stop('immediate');
# Nothing of this server is left.
PostgreSQL::Test::Utils::system_log('rm', '-rf', $node->data_dir, $at{LOST});
$traffic->begin_anew;
doc($back, 'the backup is put in its place again');
doc($until, 'with the moment to restore to, as documented', TIME => $time);
begin_again(3, 'a point in time');
doc($after, 'the moment is taken out of the settings again, as documented');
is(sql(q(SELECT string_agg(type, ' ') FROM evento.read_stream('moment'))), 'Before', 'the log is that of the moment');
my $kept = sql("SELECT max(position) FROM evento.events WHERE position <= $read[-1]");
my %lost = map { $_ => 1 } grep { $_ > $kept } @read;
cmp_ok(scalar keys %lost, '>=', 40, 'much is lost');
is_done_by(40, 'there is load on what was restored');
$traffic->check(\&sql, 'a point in time');
cmp_ok(sql("SELECT min(position) FROM evento.events WHERE position > $kept"), '>', $read[-1], 'no position that was read on a lost timeline is given again');
ok($followers->reach(\&sql, sql('SELECT evento.watermark()')), 'all who follow the log come to its end');
$followers->check(\&sql, 'a point in time', \%lost);

# Who was ahead is named, also now that he has gone on.
my $name = Evento::Followers::consumer();
my $named = 'SELECT consumer FROM evento.consumers WHERE lost_range';
ok($proxy[0]->wait_for(sub { $followers->look; sql($named) eq $name }), 'the consumer of a bundle that has read what is lost is named, and nobody else') or diag(sql($named));
like(sql(q(SELECT subject || ': ' || advice FROM evento.doctor() WHERE severity = 'error')), qr/^consumer \Q$name\E: Undo what it made of events after \d+, /m, 'by doctor() too, with what to do');
# The picture that a proxy gives may be a second old.
my $jumps;
ok($proxy[1]->wait_for(sub { $jumps = (Evento::Http->new($proxy[1]{http})->get('/cluster')->{json} // {})->{jumps} // []; @$jumps == 1 }), 'a client over HTTP is told of the jump');
ok($jumps->[0]{last_position} >= $kept && $jumps->[0]{last_position} < (sort { $a <=> $b } keys %lost)[1], 'where it began');
cmp_ok($jumps->[0]{next_position}, '>', $read[-1], 'and that it goes beyond all that was read');
is(sql("SELECT evento.consumer_repaired('$name')"), 't', 'what it made of that was repaired');
is(sql($named), '', 'then nobody is named');

$followers->stop;
is($_->stop, 0, "$_->{name} ends in order") for @proxy;
done_testing();
