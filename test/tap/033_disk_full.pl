# No space left: where the tables are, appends fail cleanly and all else goes
# on; where the WAL is, the server stops and starts again. With space again,
# both go on, and nothing that was acknowledged is lost.
use strict;
use warnings;

# A file system of 96 MB: given, or else made in a namespace of our own, in
# which this file then runs again, before anything has redirected its output.
my $small;
BEGIN
{
	$small = $ENV{EVENTO_SMALL_DISK} // '';
	if ($small eq '' && !$ENV{EVENTO_IN_NAMESPACE} && $ENV{TESTDIR})
	{
		my $dir = "$ENV{TESTDIR}/small";
		mkdir $dir;
		my @namespace = ('unshare', '-rm', 'sh', '-c', 'mount -t tmpfs -o size=96m evento-small "$1" && user=$2 && group=$3 && shift 3 && exec unshare -U --map-user="$user" --map-group="$group" "$@"',
			'sh', $dir, $>, (split / /, $))[0]);
		$ENV{EVENTO_IN_NAMESPACE} = 1;
		if (system("@{[ map { quotemeta } @namespace ]} true 2>/dev/null") == 0)
		{
			$ENV{EVENTO_SMALL_DISK} = $dir;
			exec(@namespace, $^X, $0) or die "unshare: $!";
		}
	}
}

use Evento::Cluster;
use Evento::Ledger;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $rounds = $ENV{EVENTO_LONG} ? 10 : 2;

plan skip_all => 'no small file system: the tests do not run as root, or may not mount, and there are no user namespaces' if $small eq '';

# Takes all that is free, but for so many kB.
sub fill
{
	my ($left) = @_;
	my ($free) = `df -Pk '$small'` =~ /\n\S+\s+\d+\s+\d+\s+(\d+)/;
	my $kb = $free - $left;
	# The server takes some meanwhile: the end comes early then, which is what is wanted.
	system('dd', 'if=/dev/zero', "of=$small/ballast", 'bs=1k', "count=$kb", 'status=none', 'oflag=append', 'conv=notrunc') if $kb > 0;
	return;
}

sub free { unlink "$small/ballast" or die "ballast: $!"; return }

# ---- the tables ----

my $node = Evento::Cluster->make('tables', conf => "autovacuum = off\n");
$node->start;
mkdir "$small/tables" or die "$small/tables: $!";
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$small/tables'");
$node->safe_psql('postgres', 'CREATE DATABASE full_of_events TABLESPACE small');
$node->safe_psql('full_of_events', 'CREATE EXTENSION evento');
my $start = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $ledger = Evento::Ledger->new($node, db => 'full_of_events');
$ledger->write(clients => 8, streams => 40, batch => 1, padding => 500);
$ledger->read($node, $_) for qw(read_all view wait notify consumer);
for my $round (1 .. $rounds)
{
	$ledger->acknowledged(200);
	my $before = -s $node->logfile;
	fill(500);
	ok($node->wait_for_log(qr/ERROR:  could not extend file.*No space left on device/, $before), "round $round: there is no space for tables");
	my $full = -s $node->logfile;
	# More than once, at every place where an append meets it.
	for (1 .. 600)
	{
		my $times = () = slurp_file($node->logfile, $full) =~ /could not extend file/g;
		last if $times >= 50;
		sleep 0.1;
	}
	is($node->safe_psql('full_of_events', 'SELECT count(*) > 0 FROM evento.read_all(0, 100)'), 't', "round $round: reading goes on");
	my ($state) = $node->state_of(q{SELECT evento.append('too-much', 'T', to_json(repeat('x', 1000000)))}, 'full_of_events');
	is($state, '53100', "round $round: an append without space is 53100");
	free();
	is($node->safe_psql('full_of_events', "SELECT evento.append('round', 'T', '1')"), $round, "round $round: and with space again works in the next moment");
}
$ledger->acknowledged(200);
my $n = $ledger->survived('no space for tables');
cmp_ok($n->{failed}, '>', 50, "$n->{failed} operations have failed");
is($node->safe_psql('full_of_events', q{SELECT count(*) FROM evento.read_stream('too-much')}), '0', 'what failed is not there');
$node->log_is_sound('no space for tables', 'full_of_events');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $start, 'the server has not been started again');
unlike(slurp_file($node->logfile), qr/PANIC|server process .* was terminated|reinitializing/, 'and no process has died');
$node->stop;
system('rm', '-rf', "$small/tables") == 0 or die 'rm';

# ---- the WAL ----

my $wal = bless PostgreSQL::Test::Cluster->new('wal'), 'Evento::Cluster';
$wal->init(extra => [ '--waldir', "$small/wal", '--wal-segsize=1' ]);
$wal->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'evento'
max_connections = 60
restart_after_crash = on
min_wal_size = 2MB
max_wal_size = 8MB
wal_recycle = off
checkpoint_timeout = 30s
CONF
$wal->start;
$wal->safe_psql('postgres', 'CREATE EXTENSION evento');
$ledger = Evento::Ledger->new($wal, name => 'wal');
$ledger->write(clients => 8, streams => 40, batch => 1, padding => 300);
$ledger->read($wal, $_) for qw(read_all view wait notify consumer);
for my $round (1 .. $rounds)
{
	$ledger->acknowledged(200);
	my $before = -s $wal->logfile;
	my $full = 0;
	fill(600);
	# Checkpoints make a little room again and again: it is taken, too.
	for (1 .. 600)
	{
		fill(0);
		$full = slurp_file($wal->logfile, $before) =~ /(?:PANIC|FATAL):  could not (?:write to file|write to log file|open file|create file).*No space left on device/;
		last if $full;
		sleep 0.05;
	}
	ok($full, "round $round: there is no space for WAL, and the server stops");
	free();
	# Who has met it may take a while to die, and as long the others go on.
	for (1 .. 600)
	{
		last if slurp_file($wal->logfile, $before) =~ /all server processes terminated|database system is shut down/;
		sleep 0.1;
	}
	# It comes back of itself, unless it was on its way up when the space was gone.
	for (1 .. 600)
	{
		last if $wal->psql('postgres', 'SELECT true') == 0;
		if (!-e $wal->data_dir . '/postmaster.pid')
		{
			$wal->{_pid} = undef;
			$wal->start(fail_ok => 1);
		}
		sleep 0.1;
	}
	is($wal->safe_psql('postgres', 'SELECT count(*) > 0 FROM evento.read_all(0, 100)'), 't', "round $round: it is back");
}
$ledger->acknowledged(200);
$ledger->survived('no space for WAL');
$wal->log_is_sound('no space for WAL');
is($wal->safe_psql('postgres', 'SELECT count(*) FROM evento._jumps'), '0', 'that is no jump');
# The pid of a server that came back of itself is that of the one before; of one that was started, another.
$wal->{_pid} = (split /\n/, slurp_file($wal->data_dir . '/postmaster.pid'))[0];
$wal->stop;
done_testing();
