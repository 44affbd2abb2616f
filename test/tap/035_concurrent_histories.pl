# Many clients on few streams: recorded histories are linearizable per stream,
# and every reader's view is a prefix of one order; also while statements are
# cancelled, sessions are ended and timeouts strike at random.
use strict;
use warnings;

use Evento::Cluster;
use Evento::Ledger;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{EVENTO_LONG} ? 120 : 8;

my $node = Evento::Cluster->started('primary', conf => "max_worker_processes = 16\nevento.cached_streams = 64\ncommit_delay = 1000\ncommit_siblings = 1\n");
my $standby = $node->standby('standby');

# Each history has a database of its own.
sub history
{
	my ($what, $writers, $during) = @_;
	my $db = $what =~ s/\W/_/gr;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION evento');
	my $ledger = Evento::Ledger->new($node, name => $db, db => $db);
	$ledger->write(%$_) for @$writers;
	$ledger->read($node, $_) for qw(read_all view wait notify consumer);
	$ledger->read($standby, $_) for qw(read_all view);
	$during->($ledger);
	my $n = $ledger->survived($what, standbys => [$standby]);
	cmp_ok($n->{acknowledged}, '>', 1000, "$what: $n->{acknowledged} acknowledged");
	cmp_ok($n->{conflicts}, '>', 50, "$what: $n->{conflicts} conflicts");
	$node->log_is_sound($what, $db);
	return;
}

my $calm = sub { my ($ledger) = @_; sleep $seconds; $ledger->acknowledged(1000) };

# Strikes at writers and readers until the time is over.
my %struck = (cancel => 0, terminate => 0);
my $storm = sub {
	my ($ledger) = @_;
	my $session = $node->background_psql('postgres');
	my $until = time + $seconds;
	my $before = $ledger->count;
	while (time < $until || $ledger->count < $before + 1000 || $struck{cancel} <= 100 || $struck{terminate} <= 10)
	{
		my $strike = rand() < 0.15 ? 'terminate' : 'cancel';
		$struck{$strike} += $session->query_safe("SELECT count(pg_${strike}_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = 'evento-ledger' AND state <> 'idle' ORDER BY random() LIMIT 3) x");
		sleep 0.01;
	}
	$session->quit;
};

history('many clients on few streams', [ { clients => 16, streams => 6, batch => 1, max_pause => 10 } ], $calm);
history('one stream', [ { clients => 12, streams => 1, batch => 1, max_pause => 2 } ], $calm);
history('cancelled and terminated', [ { clients => 16, streams => 10, batch => 1, max_pause => 10 } ], $storm);
cmp_ok($struck{cancel}, '>', 100, "$struck{cancel} statements were cancelled");
cmp_ok($struck{terminate}, '>', 10, "$struck{terminate} sessions were ended");
my $short = $node->connstr('short_timeouts') . q{ options='-c statement_timeout=8 -c lock_timeout=4 -c idle_in_transaction_session_timeout=5'};
history('short timeouts', [ { clients => 8, streams => 6, batch => 1, max_pause => 10 }, { clients => 8, streams => 6, batch => 1, max_pause => 10, conninfo => $short } ], $calm);
unlike(slurp_file($node->logfile), qr/PANIC|was terminated by signal|reinitializing/, 'no process has died');
$standby->stop;
$node->stop;
done_testing();
