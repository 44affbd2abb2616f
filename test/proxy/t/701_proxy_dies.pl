# 701_proxy_dies.pl
#   A proxy that is killed or stopped at every step of a command, while its
#   caller comes back at another one with the same request: the command is in
#   the log once and answered with the stored event.  Then under load, at any
#   step.  EVENTO_LONG=1: for two minutes.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;
use Evento::Traffic;

my $test = Evento::ProxyTest->new(conf => "wal_level = replica\nmax_wal_senders = 4\n");
my $node = $test->node;
# The first is the one that suffers; the handler is at the third.
my @proxy = map { $test->start(flags => { 'cut-time' => '2s' }) } 1 .. 3;
my $handler = $proxy[2]->bundle(bundle => 'shop', instance => 'handler', names => [qw(Place Notify Probe)]);
my $caller;
my $n = 0;

# A session of the test's own, that holds something.
sub session
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres');
	$session->query_safe("BEGIN; $sql");
	return $session;
}

sub release
{
	my ($session) = @_;
	$session->query_safe('ROLLBACK');
	$session->quit;
	return;
}

# Waits until this many of the proxies' backends wait for something.
sub wait_waiting
{
	my ($where) = @_;
	$proxy[0]->wait_for(sub { $test->sql("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'evento-proxy/%' AND $where") eq 't' }, 60)
	  or die "nothing waits: $where";
	return;
}

my %kinds = (
	domain => { send => sub { my ($stream, %how) = @_; return $caller->command('Place', $stream, '{}', timeout => 60000, %how) },
		answer => sub { return Evento::Bundle::domain_response('Placed', qq({"try":$_[0]}), state => qq({"try":$_[0]})) } },
	service => { send => sub { my ($stream, %how) = @_; return $caller->service_command('Notify', '{}', stream => $stream, timeout => 60000, %how) },
		answer => sub { return Evento::Bundle::event_message('Service', 'Notified', qq({"try":$_[0]})) } },
	locked => { send => sub { my ($stream, %how) = @_; return $caller->service_command('Notify', '{}', stream => $stream, lock => "lock-$stream", timeout => 60000, %how) },
		answer => sub { return Evento::Bundle::event_message('Service', 'Notified', qq({"try":$_[0]})) } });

my $tries = 0;
my $handled;    # the last answer given

sub give
{
	my ($kind, $req) = @_;
	$handler->respond($req, $kinds{$kind}{answer}->(++$tries));
	return;
}

# The handler takes the request of a stream, and answers where it is to.  Others are what a proxy that stood still has asked late.
sub taken
{
	my ($kind, $stream) = @_;
	while (my $req = $handler->recv('REQ', timeout => 20))
	{
		return $req if $req->{payload} =~ /\Q$stream\E(?!\d)/;
		give($kind, $req);
	}
	return;
}

# The caller's answer; whatever else the handler is asked meanwhile is handled.
sub answered
{
	my ($kind, $id, $seconds) = @_;
	my $until = time + ($seconds // 60);
	while (time < $until)
	{
		my $rsp = $caller->answer($id, timeout => 0.05);
		return $rsp if $rsp;
		my $req = $handler->recv('REQ', timeout => 0.05);
		give($kind, $req) if $req;
	}
	return undef;
}

# Every step brings a command to a point and gives what has to be undone for it to go on, and whether that is before the
# fault (what the database has done then is waiting for the proxy).
my @steps = (
	[ 'while its story is loaded', sub {
			my ($kind, $stream) = @_;
			# Of a stream that is not there nothing is read.
			$test->sql("SELECT evento.append('$stream', 'Placed', '{}')") if $kind ne 'service';
			my $lock = session('LOCK TABLE evento._events IN ACCESS EXCLUSIVE MODE');
			my $id = $kinds{$kind}{send}->($stream);
			wait_waiting(q(wait_event_type = 'Lock'));
			return ($id, sub { release($lock) });
		} ],
	[ 'while the handler is at work', sub {
			my ($kind, $stream) = @_;
			my $id = $kinds{$kind}{send}->($stream);
			my $req = taken($kind, $stream) or die 'the handler was not asked';
			return ($id, sub { give($kind, $req) });
		} ],
	[ 'while the append waits', sub {
			my ($kind, $stream) = @_;
			my $id = $kinds{$kind}{send}->($stream);
			my $req = taken($kind, $stream) or die 'the handler was not asked';
			my $lock = session('LOCK TABLE evento._events IN SHARE ROW EXCLUSIVE MODE');
			give($kind, $req);
			wait_waiting(q(wait_event_type = 'Lock' AND query LIKE '%append_batch%'));
			return ($id, sub { release($lock) });
		} ],
	[ 'while the commit waits', sub {
			my ($kind, $stream) = @_;
			my $id = $kinds{$kind}{send}->($stream);
			my $req = taken($kind, $stream) or die 'the handler was not asked';
			$test->standby_missing(1);
			give($kind, $req);
			wait_waiting(q(wait_event = 'SyncRep' AND query LIKE '%append_batch%'));
			return ($id, sub { $test->standby_missing(0) });
		} ],
	[ 'after the commit, before the answer', sub {
			my ($kind, $stream) = @_;
			my $id = $kinds{$kind}{send}->($stream);
			my $req = taken($kind, $stream) or die 'the handler was not asked';
			$test->standby_missing(1);
			give($kind, $req);
			wait_waiting(q(wait_event = 'SyncRep' AND query LIKE '%append_batch%'));
			kill 'STOP', $proxy[0]{pid};
			$test->standby_missing(0);
			$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM evento.events WHERE stream = '$stream'") or die 'not committed';
			return ($id, sub { });
		} ],
	[ 'after the answer', sub {
			my ($kind, $stream) = @_;
			my $id = $kinds{$kind}{send}->($stream);
			my $req = taken($kind, $stream) or die 'the handler was not asked';
			give($kind, $req);
			$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM evento.events WHERE stream = '$stream'") or die 'not committed';
			return ($id, sub { });
		} ]);

sub stored { return $test->sql("SELECT coalesce(string_agg(type || data::text, ' ' ORDER BY version), '') FROM evento.read_stream('$_[0]') WHERE data->>'try' IS NOT NULL") }

sub one_case
{
	my ($signal, $kind, $when, $reach, $order) = @_;
	my $stream = "$kind-" . ++$n;
	my $what = "SIG$signal $when, a $kind command" . ($order ? ', what waits goes on behind the repeat' : '');
	$caller = $proxy[0]->bundle(bundle => 'web', instance => 'caller');
	$caller->reaches($handler);
	my ($id, $go_on) = $reach->($kind, $stream);
	kill $signal, $proxy[0]{pid};
	$proxy[0]->stop('KILL') if $signal eq 'KILL';
	$go_on->() if !$order;
	$caller->cut;
	$caller = $proxy[1]->bundle(bundle => 'web', instance => 'caller');
	$kinds{$kind}{send}->($stream, correlation => $id);
	if ($order)
	{
		sleep 0.3;
		$go_on->();
	}
	my $rsp = answered($kind, $id);
	my $object = $rsp && $rsp->{body} && $rsp->{body}{serializedPayload} ? $rsp->{body}{serializedPayload}[1]{serializedObject} : 'none';
	my $type = $kind eq 'domain' ? 'Placed' : 'Notified';
	like($object, qr/^\["shop\.$type"/, "$what: answered") or diag($rsp && explain($rsp->{failure}));
	if ($signal eq 'STOP') { kill 'CONT', $proxy[0]{pid} }
	else { $proxy[0]->run }
	$proxy[0]->wait_http('/readyz');
	# What the stopped one still asks.
	my $until = time + 0.3;
	while (my $req = $handler->recv('REQ', timeout => $until > time ? $until - time : 0)) { give($kind, $req) }
	ok($caller->alive && !$caller->recv('RSP', correlation => $id, timeout => 0), "$what: once");
	my $stored = stored($stream);
	is($stored =~ s/^(\w+)(.*)$/["shop.$1",$2]/r, $object, "$what: and that event is stored, alone");
	$caller->close;
	return;
}

for my $signal (qw(KILL STOP))
{
	one_case($signal, 'domain', $_->[0], $_->[1]) for @steps;
	one_case($signal, 'domain', $steps[$_][0], $steps[$_][1], 1) for 1 .. 3;
	one_case($signal, 'service', $steps[$_][0], $steps[$_][1], 1) for 1 .. 5;
}
# Its lock has to run out with the lease of the proxy that is no more.
one_case('KILL', 'locked', $steps[1][0], $steps[1][1]);
one_case('KILL', 'locked', $steps[3][0], $steps[3][1], 1);
$handler->close;

# ---- at any step, under load ----

my $traffic = Evento::Traffic->new(proxies => \@proxy, callers => 6, handlers => 3);
ok($traffic->run(60, sub { 30 < grep { defined $_->{object} } @{ $traffic->{commands} } }), 'there is load');
my $until = time + ($ENV{EVENTO_LONG} ? 120 : 16);
srand($ENV{EVENTO_SEED} // 701);
while (time < $until)
{
	my $victim = $proxy[ rand @proxy ];
	if (rand() < 0.5)
	{
		$victim->stop('KILL');
		$traffic->run(rand 2);
		$victim->run;
	}
	else
	{
		kill 'STOP', $victim->{pid};
		# Sometimes longer than its lease.
		$traffic->run(rand() < 0.2 ? 6 : rand 3);
		kill 'CONT', $victim->{pid};
	}
	$traffic->run(1 + rand 1);
}
$traffic->recovers(10, 'proxies killed and stopped');
$traffic->check(sub { $test->sql(@_) }, 'proxies killed and stopped');

$_->wait_http('/readyz') for @proxy;
is($_->stop, 0, "$_->{name} ends in order") for @proxy;
done_testing();
