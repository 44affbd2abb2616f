# 731_restore_dump.pl
#   The server is lost and a dump restored into a new one, by the commands of
#   docs/operating.md and at the same address, while proxies, bundles, consumers
#   and streams of events stay: they go on by themselves, and who has read what
#   the dump lacks is named.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Docs;
use Evento::Followers;
use Evento::ProxyTest;
use Evento::Traffic;

my $dir = PostgreSQL::Test::Utils::tempdir();
my ($dump, $restore) = Evento::Docs::blocks('operating', 'A dump', 'sh');

my $test = Evento::ProxyTest->new(conf => "max_connections = 60\n");
my $node = $test->node;
my %env = (BACKUP => $dir, PGHOST => $node->host, PGPORT => $node->port);
my $conf = slurp_file($node->data_dir . '/postgresql.conf');
my $hba = slurp_file($node->data_dir . '/pg_hba.conf');

sub sql { return $node->safe_psql('app', $_[0]) }

$node->safe_psql('postgres', 'CREATE DATABASE app');
sql('CREATE EXTENSION evento');
sql(Evento::Followers::table_sql());
my @proxy = map { $test->start(flags => { database => $node->connstr('app') . ' user=proxy', 'database-wait' => '5min', 'telemetry-interval' => '200ms' }) } 1 .. 2;
my @pids = map { $_->{pid} } @proxy;
my $traffic = Evento::Traffic->new(proxies => \@proxy, callers => 4, handlers => 2, timeout => 120_000);
my $followers = Evento::Followers->new(proxies => \@proxy, connstr => $node->connstr('app'), dir => $dir);

sub beside { $traffic->turn(0.02, 1); $followers->look; return }

sub done { return scalar grep { defined $_->{object} } @{ $traffic->{commands} } }

sub is_done_by { my ($n, $what) = @_; my $to = done() + $n; return ok($traffic->run(60, sub { done() >= $to }), $what) }

# Runs a command of the documentation while all goes on.
sub doc
{
	my ($block, $what) = @_;
	my $pid = fork // die "fork: $!";
	POSIX::_exit(Evento::Docs::run_block($block, %env) ? 0 : 1) if !$pid;
	beside() while waitpid($pid, POSIX::WNOHANG()) == 0;
	return is($?, 0, $what);
}

is_done_by(40, 'there is load before the dump');
doc($dump, 'a dump, as documented');
is_done_by(40, 'there is load behind the dump');
ok($traffic->finish(60), 'which is answered');
sql('CALL evento.wait(NULL)');
my @read = split /\n/, sql('SELECT position FROM evento.events ORDER BY position');
ok($followers->reach(\&sql, $read[-1]), 'all who follow the log have seen it');
my $system = $node->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()');
$traffic->begin_anew;

# ---- another server, at the same address ----

$node->stop('immediate');
PostgreSQL::Test::Utils::system_log('rm', '-rf', $node->data_dir);
ok($traffic->run(2), 'requests wait');
PostgreSQL::Test::Utils::system_or_bail('initdb', '-D', $node->data_dir, '-A', 'trust', '-N');
for my $file ([ 'postgresql.conf', $conf ], [ 'pg_hba.conf', $hba ])
{
	unlink $node->data_dir . "/$file->[0]";
	append_to_file($node->data_dir . "/$file->[0]", $file->[1]);
}
$node->start;
isnt($node->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()'), $system, 'another server');
doc($restore, 'the dump is restored, as documented');
$traffic->recovers(60, 'the dump');
for my $proxy (@proxy)
{
	ok(scalar($proxy->wait_log("the database is on timeline 1 of system (?!$system)")), "$proxy->{name} tells that it is another server");
	ok($proxy->wait_for(sub { beside(); ($proxy->metric('links') // 0) == 2 }), "$proxy->{name} has its links");
}
is(join(' ', map { $_->running ? $_->{pid} : 'ended' } @proxy), "@pids", 'the proxies are the same');
ok($proxy[0]->wait_for(sub { beside(); sql(q(SELECT string_agg(instance, ' ' ORDER BY instance) FROM evento.bundles WHERE enabled)) eq 'c1 c2 c3 c4 h1 h2 r1' }), 'and every bundle is there, once');
is_done_by(40, 'there is load on what was restored');

$traffic->check(\&sql, 'the dump');
is((scalar grep { defined $_->{failure} } @{ $traffic->{commands} }), 0, 'and no command failed');
my $kept = sql("SELECT max(position) FROM evento.events WHERE position <= $read[-1]");
my %lost = map { $_ => 1 } grep { $_ > $kept } @read;
cmp_ok(scalar keys %lost, '>=', 40, 'what came behind the dump is lost');
cmp_ok(sql("SELECT min(position) FROM evento.events WHERE position > $kept"), '>', $read[-1], 'no position that was read is given again');
ok($followers->reach(\&sql, sql('SELECT evento.watermark()')), 'all who follow the log come to its end');
$followers->check(\&sql, 'the dump', \%lost);
my $named = 'SELECT consumer FROM evento.consumers WHERE lost_range';
ok($proxy[0]->wait_for(sub { $followers->look; sql($named) eq Evento::Followers::consumer() }), 'the consumer of a bundle that has read what is lost is named, and nobody else') or diag(sql($named));
# The picture that a proxy gives may be a second old.
my $jumps;
$proxy[1]->wait_for(sub { $jumps = (Evento::Http->new($proxy[1]{http})->get('/cluster')->{json} // {})->{jumps} // []; @$jumps == 1 });
is(join(' ', map { "$_->{last_position}: $_->{reason}" } @$jumps), "$kept: another server: a restore or an upgrade", 'a client over HTTP is told of the jump');

$followers->stop;
is($_->stop, 0, "$_->{name} ends in order") for @proxy;
done_testing();
