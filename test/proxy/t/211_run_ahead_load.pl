# 211_run_ahead_load.pl
#   Many callers of few aggregates at two proxies, with and without locks, while
#   SQL appends to the aggregates, deletes and erases them, backends are ended,
#   and the server crashes: each event that is stored was made of the very story
#   before it.  EVENTO_LONG=1: for two minutes.
use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::ProxyTest;

my $sim = $ENV{EVENTO_SIM} // __FILE__ =~ s{test/proxy/t/[^/]+$}{build/evento-sim}r;
my $seconds = $ENV{EVENTO_LONG} ? 120 : 12;
my $test = Evento::ProxyTest->new;
my @proxy = map { $test->start(flags => { 'append-connections' => 2 }) } 1 .. 2;
my $proxies = join ',', map { "127.0.0.1:$_->{port}" } @proxy;
my @orders = map { "load-$_" } 0 .. 2;
my $session = $test->node->background_psql('postgres', on_error_stop => 0);

my ($appended, $erased) = (0, 0);
my $amounts = "COALESCE(sum((data->>'amount')::bigint), 0) FROM evento._events JOIN evento._streams USING (stream_no)";

# As the aggregate would: the next of the order, or the first where it has none.  Nothing where another was quicker.
sub append
{
	my ($order) = @_;
	my $version = $session->query(<<~SQL);
		SELECT evento.append('$order', CASE WHEN r IS NULL THEN 'OrderPlaced' ELSE 'OrderChanged' END,
		                     format('{"orderId":"$order","amount":5,"revision":%s,"total":%s}', COALESCE(r, 0) + 1, COALESCE(t, 0) + 5)::json, NULL, h,
		                     class => (SELECT class FROM evento.events WHERE type = CASE WHEN r IS NULL THEN 'OrderPlaced' ELSE 'OrderChanged' END LIMIT 1))
		  FROM (SELECT max(version) AS h FROM evento._events e JOIN evento._streams s USING (stream_no) WHERE s.name = '$order') a
		  LEFT JOIN LATERAL (SELECT (data->>'revision')::bigint AS r, (data->>'total')::bigint AS t FROM evento.read_stream('$order') ORDER BY version DESC LIMIT 1) b ON true;
		SQL
	$appended++ if $version =~ /^\d+$/;
	return;
}

my $output = '';
my $load = IPC::Run::start([ $sim, '--proxies', $proxies, '--handlers', 2, '--callers', 64, '--connections', 4, '--consumers', 0, '--orders', scalar @orders,
	'--snapshot-every', 7, '--seconds', $seconds, '--run', 'load', '--mixed-locks', '--allow-failures' ], '>', \$output, '2>&1', IPC::Run::timeout($seconds + 150));
ok($proxy[0]->wait_for(sub { $test->sql('SELECT count(*) > 50 FROM evento.events') eq 't' }, 60), 'the load has begun');

my %deleted;
my $begin = time;
my $crashes = 0;
my %did;
while (time < $begin + $seconds - 2)
{
	# The server crashes some times, too, with appends under way.
	if (time > $begin + ($crashes + 1) * 5)
	{
		$crashes++;
		$session->quit;
		$test->node->stop('immediate');
		$test->node->start;
		$session = $test->node->background_psql('postgres', on_error_stop => 0);
	}
	my $order = $orders[ int rand @orders ];
	my $what = rand;
	if ($what < 0.6)
	{
		$did{append}++;
		append($order);
	}
	elsif ($what < 0.8)
	{
		$did{delete}++;
		my $version = $session->query("SELECT evento.delete_stream('$order')");
		$deleted{$order}{$version} = 1 if $version =~ /^\d+$/;
		# Nobody else begins an order anew.
		if (rand() < 0.3 && $session->query("SELECT count(*) FROM evento.read_stream('$order')") eq '0')
		{
			$erased += $session->query("SELECT $amounts WHERE name = '$order'");
			$session->query("SELECT evento.erase_stream('$order', 'a test')");
		}
		sleep rand 0.02;
		append($order);
	}
	elsif ($what < 0.9)
	{
		$did{kill}++;
		$session->query(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'proxy' AND query LIKE '%append_batch%' ORDER BY random() LIMIT 1));
	}
	else
	{
		$did{drop}++;
		$session->query("SELECT evento.drop_snapshots('$order')");
	}
	IPC::Run::pump_nb($load);
	sleep rand 0.1;
}
IPC::Run::finish($load);
is($load->full_result(0), 0, 'the simulator finds nothing wrong') or diag($output);
note($output);
note(join ', ', map { "$_ $did{$_}" } sort keys %did);

for my $order (@orders)
{
	is($test->sql("SELECT count(*) = max(version) AND min(version) = 1 FROM evento._events JOIN evento._streams USING (stream_no) WHERE name = '$order'"), 't', "$order: versions are dense");
	my $at = join(', ', map { "($_)" } -1, sort { $a <=> $b } keys %{ $deleted{$order} // {} });
	is($test->sql(<<~SQL), '', "$order: each event was made of what is before it in the log");
		WITH e AS (
		  SELECT version, type, data->>'revision' AS revision, data->>'total' AS total, data->>'amount' AS amount,
		         lag(data->>'revision') OVER w AS r, lag(data->>'total') OVER w AS t, lag(version) OVER w AS before
		    FROM evento._events JOIN evento._streams USING (stream_no) WHERE name = '$order'
		  WINDOW w AS (ORDER BY version))
		SELECT string_agg(version || ' ' || type || ' ' || revision || ' of ' || total || ', behind ' || r || ' of ' || t, '; ' ORDER BY version)
		  FROM e
		 WHERE revision IS NOT NULL
		   AND CASE WHEN before IS NULL OR before IN (SELECT * FROM (VALUES $at) d) THEN type <> 'OrderPlaced' OR revision <> '1' OR total <> amount
		            WHEN r IS NULL THEN false
		            ELSE type <> 'OrderChanged' OR revision::bigint <> r::bigint + 1 OR total::bigint <> t::bigint + amount::bigint END
		SQL
}
my ($answered) = $output =~ /answered_total (\d+)/;
cmp_ok($test->sql("SELECT $amounts") + $erased - 5 * $appended, '>=', $answered, 'what was answered with an event is stored');
is($test->sql('SELECT count(*) FROM (SELECT id FROM evento._events GROUP BY id HAVING count(*) > 1) d'), '0', 'no event is stored twice');

$session->quit;
done_testing();
