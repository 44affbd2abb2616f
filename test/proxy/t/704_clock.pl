# 704_clock.pl
#   The clock of one proxy's machine jumps by an hour, forwards and backwards
#   (libfaketime on that process): no lease, no timeout and no connection minds,
#   since proxies measure time by what does not jump.  The database's clock then:
#   registrations may run out, and come back by themselves.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;
use Evento::Traffic;

my ($library) = grep { -e } map { "$_/libfaketime.so.1" } glob('/usr/lib/*/faketime /usr/lib/faketime /usr/lib64/faketime');
plan skip_all => 'libfaketime is not installed' if !$library;

my $test = Evento::ProxyTest->new;
my $node = $test->node;

# What a file says is the clock of those who were started under it: "+3600" is an hour ahead.
sub clock_file
{
	my ($name) = @_;
	my $file = "$ENV{TESTDIR}/$name.clock";
	set_clock($file, '+0');
	return $file;
}

sub set_clock
{
	my ($file, $offset) = @_;
	open(my $fh, '>', "$file.new") or die "$file: $!";
	print $fh "$offset\n";
	close $fh;
	rename "$file.new", $file or die "$file: $!";
	return;
}

# Runs code whose processes have the clock of that file.  Only the wall clock is another: what jumps is the date.
sub with_clock
{
	my ($file, $code) = @_;
	local %ENV = (%ENV, LD_PRELOAD => $library, FAKETIME_TIMESTAMP_FILE => $file, FAKETIME_NO_CACHE => 1, FAKETIME_DONT_FAKE_MONOTONIC => 1);
	return $code->();
}

my $file = clock_file('proxy');
my $one = with_clock($file, sub { $test->start(flags => { 'cut-time' => '2s' }) });
my $two = $test->start(flags => { 'cut-time' => '2s' });
# No command fails and no connection is lost: a busy machine has all the time that it wants.
my $traffic = Evento::Traffic->new(proxies => [ $one, $two ], callers => 4, handlers => 2, timeout => 60_000, silence => 60);

# How far the proxy's time is ahead of ours, in tens of minutes: its answers say.
sub ahead
{
	my ($proxy) = @_;
	my $probe = $proxy->bundle(bundle => 'probe', instance => 'probe-' . unpack 'H*', Evento::Bundle::uuid());
	my $id = $probe->last_sequence;
	my $rsp = $probe->answer($id) or return undef;
	$probe->close;
	return 0 + sprintf '%.0f', ($rsp->{timestampMs} / 1000 - time) / 600;
}

my ($registered) = $test->sql(q(SELECT string_agg(proxy_id::text, ' ' ORDER BY name) FROM evento.proxies));

ok($traffic->run(60, sub { 30 < grep { defined $_->{object} } @{ $traffic->{commands} } }), 'there is load');
is(ahead($one), 0, 'the clocks agree');

for my $case ([ '+3600', 6, 'an hour forwards' ], [ '+0', 0, 'back' ], [ '-3600', -6, 'an hour backwards' ], [ '+0', 0, 'forwards again' ])
{
	my ($offset, $tens, $what) = @$case;
	my $failures = grep { defined $_->{failure} } @{ $traffic->{commands} };
	my %since = map { ($_->{instance} => $_->{since}) } @{ $traffic->{ends} };
	# Requests and fetches that are open over the jump.
	my $bundle = $one->bundle(bundle => 'follower', instance => 'follower');
	my $head = $test->sql('SELECT coalesce(max(position), 0) FROM evento._events');
	my $silent = $one->bundle(bundle => 'silent', instance => 'silent', names => ['Silent']);
	$one->wait_for(sub { $test->sql(q(SELECT count(*) FROM evento.bundles WHERE instance = 'silent' AND enabled)) == 1 });
	my $sent = time;
	my $id = $bundle->query('Silent', '{}', timeout => 3000);
	ok($silent->recv('REQ'), "$what: a handler is asked");
	set_clock($file, $offset);
	is(ahead($one), $tens, "$what: the proxy's clock has jumped");
	my $rsp = $bundle->answer($id, timeout => 1);
	ok(!$rsp || time - $sent >= 3, "$what: a request that is open stays so");
	# Longer than a lease.
	$traffic->run(6);
	$rsp //= $bundle->answer($id);
	like($rsp->{failure}{message} // '', qr/in time/, "$what: and ends in its time");
	is(scalar(grep { defined $_->{failure} } @{ $traffic->{commands} }) - $failures, 0, "$what: no command fails");
	is(join(' ', grep { $since{ $_->{instance} } != $_->{since} } @{ $traffic->{ends} }), '', "$what: no connection is lost");
	ok($one->wait_for(sub { $traffic->turn(0.02, 1); $test->sql(q(SELECT string_agg(proxy_id::text, ' ' ORDER BY name) FROM evento.proxies WHERE live)) eq $registered }), "$what: no registration runs out");
	ok($one->wait_for(sub { $traffic->turn(0.02, 1); $one->metric('links') == 2 && $two->metric('links') == 2 }), "$what: the links are there");
	$_->close for $bundle, $silent;
}
$traffic->check(sub { $test->sql(@_) }, 'the clock of a proxy');

# ---- the database's clock ----

# By it registrations and locks run out.  What ends early comes back by itself; a proxy that dies afterwards is found out in the
# new time.
my $database = clock_file('database');
@$traffic{qw(timeout silence)} = (4000, undef);
with_clock($database, sub { $node->restart });
$traffic->recovers(10, 'the server has started again');

sub server_ahead { return 0 + sprintf '%.0f', ($test->sql('SELECT extract(epoch FROM clock_timestamp())') - time) / 600 }

for my $case ([ '+3600', 6, 'the database an hour forwards' ], [ '+0', 0, 'the database an hour backwards' ])
{
	my ($offset, $tens, $what) = @$case;
	set_clock($database, $offset);
	is(server_ahead(), $tens, "$what: its clock has jumped");
	$traffic->run(4);
	$traffic->recovers(10, $what);
	$two->stop('KILL');
	$traffic->run(1);
	$traffic->recovers(10, "$what, and a proxy dies");
	$two->run;
	$two->wait_http('/readyz');

	# One that dies just before, and holds a lock.
	set_clock($database, $offset eq '+0' ? '+3600' : '+0');
	$traffic->recovers(10, "$what: again");
	my $silent = $one->bundle(bundle => 'silent', instance => 'silent', names => ['Silent']);
	my $holder = $two->bundle(bundle => 'holder', instance => 'holder');
	my $waiter = $one->bundle(bundle => 'waiter', instance => 'waiter');
	$_->reaches($silent, 'Silent') for $holder, $waiter;
	$holder->service_command('Silent', '{}', lock => 'held', timeout => 60_000);
	ok($silent->recv('REQ'), "$what: a lock is held");
	$two->stop('KILL');
	set_clock($database, $offset);
	my $id = $waiter->service_command('Silent', '{}', lock => 'held', timeout => 60_000);
	my $req;
	$one->wait_for(sub { $traffic->turn(0.02, 1); $req = $silent->recv('REQ', timeout => 0.01) });
	ok($req, "$what: the lock of a proxy that has died before is free soon");
	$silent->fail($req, 'java.lang.IllegalStateException', 'no') if $req;
	ok($one->wait_for(sub { $traffic->turn(0.02, 1); $test->sql(q(SELECT count(*) FROM evento.bundles WHERE proxy = 'proxy2')) == 0 }), "$what: and its instances go");
	$_->close for $silent, $waiter;
	$two->run;
	$two->wait_http('/readyz');
}
$traffic->check(sub { $test->sql(@_) }, 'the clock of the database');
is($_->stop, 0, "$_->{name} ends in order") for $one, $two;
done_testing();
