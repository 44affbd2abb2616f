# 212_contended.pl
#   An aggregate that callers at two proxies want all the time: one with a quick
#   handler, which runs ahead, another with a slow one and no lock, which takes its
#   turn, however long its handler takes; and one whose story SQL changes all the
#   time, without events.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my ($one, $two) = map { $test->start } 1 .. 2;
ok($_->wait_for(sub { $one->metric('links') == 2 && $two->metric('links') == 2 }), "$_->{name} is linked") for $one, $two;
my $quick = $one->bundle(bundle => 'quick', instance => 'quick', names => ['Quick']);
my $slow = $two->bundle(bundle => 'slow', instance => 'slow', names => ['Slow']);
my $many = $one->bundle(bundle => 'many', instance => 'many');
my $few = $two->bundle(bundle => 'few', instance => 'few');
ok($one->wait_for(sub { $test->sql(q(SELECT count(*) FROM evento.bundles WHERE enabled)) == 4 }), 'all are connected');

use constant OPEN => 12;

# The quick ones' lock, how many slow ones, and seconds that each of their handlers takes.
for ([ 'none', 6, 0.06], [ 'itself', 6, 0.06 ], [ 'none, long', 1, 5 ])
{
	my ($lock, $count, $seconds) = @$_;
	my $stream = "hot-$lock";
	my @lock = $lock eq 'itself' ? () : (lock => undef);
	my (%open, @asked, @answers);
	my ($stored, $quick_ones) = (0, 0);
	my $waits;
	my $until = time + 110;
	# What comes next on a connection, for a moment at most.  Whatever else has come stays in the queue, and is in nobody's way.
	my $next = sub { my ($bundle, $type) = @_; $bundle->pump(0.001) if !grep { $_->{'@t'} eq $type } @{ $bundle->{queue} }; return $bundle->recv($type, timeout => 0) };
	# A state now and then, without which each request would have all of the story.
	my $quickly = sub { Evento::Bundle::domain_response('Quickly', '{}', ++$quick_ones % 20 == 0 ? (state => '{"n":1}') : ()) };
	my $limit = sub { time < $until };
	while ($limit->() && @answers < $count)
	{
		$open{ $many->command('Quick', $stream, '{}', @lock, timeout => 100_000) } = 1 while keys %open < OPEN;
		$waits //= $few->command('Slow', $stream, '{}', lock => undef, timeout => 100_000);
		while (my $req = $next->($quick, 'REQ'))
		{
			$quick->respond($req, $quickly->());
		}
		if (my $req = $next->($slow, 'REQ'))
		{
			push @asked, [ time + $seconds, $req ];
		}
		while (@asked && $asked[0][0] <= time)
		{
			$slow->respond((shift @asked)->[1], Evento::Bundle::domain_response('Slowly', '{}'));
		}
		while (my $rsp = $next->($many, 'RSP'))
		{
			delete $open{ $rsp->{correlationId} };
			$stored++;
		}
		if (my $rsp = $next->($few, 'RSP'))
		{
			push @answers, $rsp;
			undef $waits;
		}
	}
	is(scalar(@answers), $count, "$lock: the slow ones are answered, beside $stored quick ones");
	# The quick ones that are open are finished.
	while ($limit->() && %open)
	{
		if (my $req = $next->($quick, 'REQ')) { $quick->respond($req, $quickly->()) }
		while (my $rsp = $next->($many, 'RSP')) { delete $open{ $rsp->{correlationId} }; $stored++ }
	}
	is(scalar(keys %open), 0, "$lock: so are all quick ones");
	is($test->sql("SELECT count(*) FROM evento.events WHERE stream = '$stream' AND type = 'Slowly'"), $count, "$lock: each of the slow ones is in the log, once");
	is($test->sql("SELECT count(*) FROM evento.events WHERE stream = '$stream' AND type = 'Quickly'"), $stored, "$lock: and each of the quick ones");
	cmp_ok($stored, '>', $count, "$lock: neither kept the other away");
}
ok($one->wait_for(sub { $test->sql('SELECT count(*) FROM evento._locks') == 0 }), 'no ticket is left') or diag($test->sql('SELECT name, ticket, fence FROM evento._locks'));

# ---- a story that others change all the time ----

$test->sql(q(SELECT evento.append('kept', 'Slowly', '{}', class => 'shop.Slowly')));
my $log = "$PostgreSQL::Test::Utils::log_path/snapshots";
my $saver = fork // die "fork: $!";
if (!$saver)
{
	open(STDIN, '<', '/dev/null') or POSIX::_exit(127);
	open(STDOUT, '>', $log) or POSIX::_exit(127);
	open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
	exec 'psql', '-XAtq', '-d', $test->node->connstr('postgres'), '-c',
	  q(DO $$ BEGIN FOR i IN 1..100000 LOOP PERFORM evento.drop_snapshots('kept'); PERFORM evento.save_snapshot('kept', 1, '{"n":1}', class => 'shop.State'); COMMIT; PERFORM pg_sleep(0.002); END LOOP; END $$)
	  or POSIX::_exit(127);
}
Evento::ProxyTest::started($saver);
ok($one->wait_for(sub { $test->sql('SELECT count(*) FROM evento._snapshots') > 0 }), 'snapshots are saved') or diag(PostgreSQL::Test::Utils::slurp_file($log));
is(Evento::ProxyTest::in_some_try('a few times, and stored', sub {
	my $runs = 0;
	my $answer = $few->answer_while($few->command('Slow', 'kept', '{}', timeout => 60000), $slow, sub {
		$runs++;
		sleep 0.1;
		$slow->respond($_[0], Evento::Bundle::domain_response('Slowly', '{}', state => '{"n":2}'));
	});
	return ($runs < 6 ? 'a few times' : "$runs times") . ($answer && $answer->{class} eq 'DomainEventMessage' ? ', and stored' : '');
}), 'a few times, and stored', 'a command on it is run again');
kill 'KILL', $saver;
waitpid $saver, 0;
Evento::ProxyTest::ended($saver);

is($_->stop, 0, "$_->{name} ends") for $one, $two;
done_testing();
