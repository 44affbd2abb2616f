# 047_presence.pl
#   A proxy's locks: its lease keeps them for five seconds where its session is
#   there, and one second where it has ended; after a restart proxies have time
#   to come back.
use strict;
use warnings;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = Evento::Cluster->started('presence');

sub sql { return $node->safe_psql('postgres', @_) }

# A lease lasts 5 s, in which a slow machine does not come far: what is renewed here is renewed an hour ahead.
sql(q{CREATE FUNCTION renewed_ahead() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.renewed_at := NEW.renewed_at + interval '1 hour'; RETURN NEW; END$$;
CREATE TRIGGER renewed_ahead BEFORE INSERT OR UPDATE ON evento._proxies FOR EACH ROW WHEN (NEW.renewed_at > clock_timestamp() - interval '4 seconds') EXECUTE FUNCTION renewed_ahead()});

sub registered
{
	my ($name) = @_;
	my $session = $node->background_psql('postgres');
	my $id = $session->query_safe("SELECT proxy_id FROM evento._proxy_register('$name', 'a', 'b', NULL, 'v')");
	return ($session, $id);
}

# Whether the one that waits has the lock, where the holder has renewed so long ago. Where its lease has run out meanwhile,
# nothing has been: it is asked again.
my ($holder, $waits, $ticket);

sub granted
{
	my ($ago) = @_;
	my ($granted, $in_time) = ('', 'f');
	for (1 .. 100)
	{
		($granted, $in_time) = split /\|/, sql(<<"SQL");
BEGIN;
UPDATE evento._proxies SET renewed_at = clock_timestamp() - CASE proxy_id WHEN $holder THEN interval '$ago' ELSE '0' END;
SELECT fence IS NOT NULL AS granted FROM evento._lock_poll('{$ticket}') \\gset
SELECT renewed_at > clock_timestamp() - interval '5 s' AS in_time FROM evento._proxies WHERE proxy_id = $holder \\gset
\\if :in_time
COMMIT;
\\else
ROLLBACK;
\\endif
\\echo :granted|:in_time
SQL
		last if $in_time eq 't';
	}
	is($in_time, 't', "the lease of who has renewed $ago ago runs");
	return $granted;
}

my ($one, $two, $again);
($one, $holder) = registered('one');
($two, $waits) = registered('two');

# Nobody is taken for gone who may only not have come back yet.
ok($node->poll_query_until('postgres', 'SELECT evento._proxy_gone(1)'), 'some time after the first renewal one without a session is gone');
is(sql("SELECT evento._proxy_gone($holder), evento._proxy_gone($waits)"), 'f|f', 'those with one are not');

is(sql("SELECT fence IS NOT NULL FROM evento._lock_take($holder, '{l}', '{600000}')"), 't', 'one takes a lock');
$ticket = sql("SELECT ticket FROM evento._lock_take($waits, '{l}', '{600000}')");
is(granted('4 s'), 'f', 'it keeps the lock while its lease runs');

# A second session, as after a connection that was lost and whose end the server has not seen.
$again = $node->background_psql('postgres');
sql("UPDATE evento._proxies SET renewed_at = clock_timestamp()");
is($again->query_safe("SELECT evento._proxy_renew($holder, '{}')"), 't', 'it renews over another connection');
is($again->query_safe("SELECT evento._proxy_renew($holder, '{}')"), 't', 'and again');
$one->quit;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock')), 'the first connection ends');
is(granted('4 s'), 'f', 'and the lock is still its own');
is($again->query_safe("SELECT evento._proxy_gone($holder)"), 'f', 'nor does its own session take it for gone');

$again->{run}->kill_kill;
ok($node->poll_query_until('postgres', "SELECT evento._proxy_gone($holder)"), 'its process is killed');
is(granted('-1 hour'), 'f', 'for a moment it may come back');
is(granted('4 s'), 't', 'then the next one has its lock, before its lease has run out');
is(sql("SELECT count(*) FROM evento._locks WHERE proxy_id = $holder"), '0', 'and its ticket is void');

# ---- a restart ----

sql("SELECT evento._lock_release('{$ticket}')");
($one, $holder) = registered('one');
is(sql("SELECT fence IS NOT NULL FROM evento._lock_take($holder, '{l}', '{600000}')"), 't', 'one takes a lock again');
$_->quit for $one, $two;
$node->restart;
$ticket = sql("SELECT ticket FROM evento._lock_take($waits, '{l}', '{600000}')");
is(granted('4 s'), 'f', 'after a restart nobody is gone who has had no time to come back');
$two = $node->background_psql('postgres');
is($two->query_safe("SELECT evento._proxy_renew($waits, '{}')"), 't', 'another comes back');
ok($node->poll_query_until('postgres', "SELECT evento._proxy_gone($holder)"), 'after some time one that has not is gone');
is(granted('4 s'), 't', 'and what it had is the next one\'s');
$two->quit;

# ---- a new number ----

($one, $holder) = registered('one');
my $newer = $one->query_safe("SELECT proxy_id FROM evento._proxy_register('one', 'a', 'b', NULL, 'v', $holder)");
is(sql("SELECT evento._proxy_gone($newer)"), 'f', 'one that registers again is there under its new number');
$one->quit;
ok($node->poll_query_until('postgres', "SELECT evento._proxy_gone($newer)"), 'until it ends');

is($node->state_of("SELECT evento._proxy_stays(NULL), evento._proxy_gone(NULL)"), '', 'NULL is nobody');
$node->stop;
done_testing();
