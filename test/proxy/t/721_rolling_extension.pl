# 721_rolling_extension.pl
#   ALTER EXTENSION evento UPDATE under load: from the version before this one,
#   which proxies of this one run on, and to versions that the test makes and
#   that replace every function and view.  No command fails, neither through
#   proxies nor in SQL, and who follows the log sees each event once.  Prints how
#   long updates took, and the longest time that each was without progress.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Evento::Cluster;
use Evento::Follow;
use Evento::ProxyTest;
use Evento::Traffic;
use Evento::Tree;

my $tree = Evento::Tree->new;
my $node = Evento::Cluster->make('main', install_path => $tree->install_path, conf => "fsync = off\n");
$node->start;
my $this = $node->safe_psql('postgres', q(SELECT default_version FROM pg_available_extensions WHERE name = 'evento'));
my $before = $node->safe_psql('postgres', q(SELECT version FROM pg_available_extension_versions WHERE name = 'evento' ORDER BY version LIMIT 1));
cmp_ok($before, 'ne', $this, "there is a version before $this: $before");
my @next = map { "$this.$_" } 1 .. ($ENV{EVENTO_LONG} ? 10 : 2);
$node->safe_psql('postgres', 'CREATE DATABASE model');
$node->safe_psql('model', 'CREATE EXTENSION evento');
for my $i (0 .. $#next)
{
	my $from = $i ? $next[ $i - 1 ] : $this;
	$tree->update($from, $next[$i], $tree->all_replaced($node, 'model', "added_$i"));
	$tree->default_version($next[$i]);
	$node->safe_psql('model', 'ALTER EXTENSION evento UPDATE');
}
$tree->default_version($this);

$node->safe_psql('postgres', "CREATE EXTENSION evento VERSION '$before'; CREATE ROLE proxy LOGIN IN ROLE evento_proxy");
my $test = Evento::ProxyTest->new(node => $node);
my @proxy = map { $test->start } 1 .. 3;
my $stream = Evento::Follow::Stream->new(name => 'a stream of events', port => $proxy[0]{http});
my @consumer = map { Evento::Follow::Consumer->new(name => "consumer$_", port => $proxy[ $_ - 1 ]{port}) } 1 .. 3;
my $appender = Evento::Follow::Appender->new(name => 'appender', port => $proxy[1]{http});
my $traffic = Evento::Traffic->new(proxies => \@proxy, callers => 6, handlers => 3, timeout => 60_000, silence => 60, beside => [ $stream, @consumer, $appender ]);

# ---- clients in SQL ----

my %script = (
	append => q(SELECT evento.append('b-' || :client_id, 'T', '{"n":1}');),
	transaction => q(BEGIN;
SELECT evento.append('c-' || :client_id, 'T', '{"n":1}');
SELECT evento.append('d-' || :client_id, 'T', '{"n":1}');
COMMIT;),
	both => q(BEGIN;
SELECT evento.append('e-' || :client_id, 'T', '{"n":1}');
SELECT position, stream, version, type, data FROM evento.events ORDER BY position DESC LIMIT 5;
COMMIT;),
	read_all => q(SELECT position, stream, version, data FROM evento.read_all(:client_id, 5);),
	read_stream => q(SELECT version, type, data FROM evento.read_stream('b-' || :client_id, NULL, 5, true);),
	events => q(SELECT position, stream, version, type, data FROM evento.events ORDER BY position DESC LIMIT 5;),
	streams => q(SELECT stream, version FROM evento.streams WHERE stream = 'b-' || :client_id;));
my @script;
for my $name (sort keys %script)
{
	push @script, '-f', "$ENV{TESTDIR}/$name.sql";
	append_to_file($script[-1], "$script{$name}\n");
}
my @bench = map { $node->launch('pgbench', '-n', '-T', 3600, '-R', 60, '-c', 4, '-M', $_, @script, '-l', "--log-prefix=$ENV{TESTDIR}/bench.$_", $node->connstr('postgres')) } qw(simple prepared);
Evento::ProxyTest::started($_->{pid}) for @bench;

# What they have stored so far.
sub committed
{
	return $node->safe_psql('postgres', q(SELECT count(*) FROM evento._events e JOIN evento._streams s USING (stream_no) WHERE s.name ~ '^[bcde]-'));
}

# ---- the course ----

# Load goes on until everyone has come on by so much.
sub goes_on
{
	my ($what) = @_;
	my @from = map { scalar @{ $_->{at} } } $stream, @consumer, $appender;
	my $commands = grep { defined $_->{object} } @{ $traffic->{commands} };
	my $sql = committed();
	my $next = 0;
	my $all = sub {
		my @now = map { scalar @{ $_->{at} } } $stream, @consumer, $appender;
		return 0 if grep { $now[$_] < $from[$_] + 20 } 0 .. $#now;
		return 0 if $commands + 50 > (grep { defined $_->{object} } @{ $traffic->{commands} }) || time < $next;
		$next = time + 0.5;
		return committed() > $sql + 50;
	};
	return ok($traffic->run(90, $all), $what);
}

my @updates;

# As the documentation says: an update that would hold others up gives way, and comes again.
sub update
{
	my ($to) = @_;
	my $begun = time;
	my ($tries, $state) = (0);
	do
	{
		my $session = $node->launch('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres'),
			'-c', q(SET lock_timeout = '500ms'), '-c', 'ALTER EXTENSION evento UPDATE');
		$traffic->run(90, sub { waitpid($session->{pid}, 1) });
		$state = slurp_file($session->{err}) =~ /ERROR:  (\S{5}): (.*)/ ? "$1 $2" : '';
		$tries++;
	} while ($state =~ /^(?:55P03|40P01)/ && $tries < 100);
	is($state, '', "updated to $to under load");
	is($node->safe_psql('postgres', q(SELECT extversion FROM pg_extension WHERE extname = 'evento')), $to, "it is $to");
	my $done = time;
	$traffic->recovers(60, "updated to $to");
	goes_on("all go on with $to");
	push @updates, [ $to, $tries, $begun, $done ];
	return;
}

goes_on("there is load on $before");
is(scalar(grep { /info db control: connected to/ } map { split /\n/, $_->log } @proxy), 3, "proxies keep their connections on $before");
update($this);
$node->safe_psql('postgres', q(SELECT evento.add_access_rule('127.0.0.0/8', '*', 'trust')));
ok($traffic->run(60, sub { !grep { $_->log !~ /access: 1 rules/ } @proxy }), "proxies take what $this has and $before had not");
for my $next (@next)
{
	$tree->default_version($next);
	update($next);
}

# ---- what came of it ----

for my $bench (@bench)
{
	is(waitpid($bench->{pid}, 1), 0, 'clients in SQL are there still');
	kill 'TERM', $bench->{pid};
	waitpid $bench->{pid}, 0;
	Evento::ProxyTest::ended($bench->{pid});
	unlike(slurp_file($bench->{err}), qr/ERROR|aborted|FATAL/, 'and had no error') or diag(slurp_file($bench->{err}));
}
ok($traffic->run(60, sub { $appender->ended }), 'appends over HTTP come to their end');
my (undef, $failed, $unanswered) = $traffic->check(sub { $test->sql($_[0]) }, 'updated');
is($failed, 0, 'no command failed');
is($unanswered, 0, 'none was left without an answer');
my @positions = split /\n/, $test->sql('SELECT position FROM evento.events ORDER BY position');
ok($traffic->run(60, sub { !grep { !$_->reached($positions[-1]) } $stream, @consumer }), 'all who follow come to the end');
$_->check('updated', @positions) for $stream, @consumer;
$appender->check('updated', split /\n/, $test->sql(q(SELECT version || ' ' || (data->>'n') FROM evento.events WHERE stream = 'appender' ORDER BY version)));
is($test->sql('SELECT count(*) FROM evento.streams s WHERE s.version <> (SELECT count(*) FROM evento.events e WHERE e.stream = s.stream)'), 0, 'versions are dense');
for (@updates)
{
	my ($to, $tries, $from, $done) = @$_;
	note sprintf '%s in %.2f s, %d tries; longest time without progress: a caller %.2f s, the stream %.2f s, a consumer %.2f s, appends over HTTP %.2f s', $to, $done - $from, $tries,
	  scalar $traffic->longest_gap($from - 1, $done + 1), $stream->longest_gap($from - 1, $done + 1), (sort { $b <=> $a } map { $_->longest_gap($from - 1, $done + 1) } @consumer)[0],
	  $appender->longest_gap($from - 1, $done + 1);
}
my %slow;
for my $file (glob "$ENV{TESTDIR}/bench.*")
{
	my ($how) = $file =~ /bench\.([a-z]+)/;
	for (split /\n/, slurp_file($file)) { my $us = (split / /)[2]; $slow{$how} = $us if $us > ($slow{$how} // 0) }
}
note sprintf 'longest transaction in SQL: %s', join ', ', map { sprintf '%s %.2f s', $_, $slow{$_} / 1e6 } sort keys %slow;
$traffic->leave;
is($_->stop('TERM', 60), 0, "$_->{name} ends in order") for @proxy;
$node->stop;
done_testing();
