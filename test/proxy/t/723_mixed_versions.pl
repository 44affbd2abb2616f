# 723_mixed_versions.pl
#   Proxies of two versions side by side, as in the middle of an upgrade: on the
#   schema of the version before, and while and after that is updated.  Whatever
#   a bundle at one asks, a handler at the other answers.  Then a proxy of a
#   version to come, whose protocol between proxies is another one: the others
#   leave it alone, say so, and go on.
#
#   The other version is this one's program with another number in it, or the
#   proxy that EVENTO_PROXY_BEFORE names.
use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use Evento::Bundle;
use Evento::Cluster;
use Evento::ProxyTest;

sub version_of { my ($program) = @_; return (`'$program' --version` =~ /^evento-proxy (\S+)$/)[0] // die "$program tells no version" }

my $this = version_of(Evento::ProxyTest::program());
my $program = $ENV{EVENTO_PROXY_BEFORE};
if (!defined $program)
{
	my $bytes = slurp_file(Evento::ProxyTest::program());
	(my $number = $this) =~ s/\d/9/;
	$bytes =~ s/\Q$this\E/$number/g;
	$program = PostgreSQL::Test::Utils::tempdir() . '/evento-proxy';
	append_to_file($program, $bytes);
	chmod 0755, $program;
}
my $other = version_of($program);
isnt($other, $this, "a proxy of version $other beside those of $this");

my $node = Evento::Cluster->make('main', conf => "fsync = off\n");
$node->start;
my $before = $node->safe_psql('postgres', q(SELECT version FROM pg_available_extension_versions WHERE name = 'evento' ORDER BY version LIMIT 1));
cmp_ok($before, 'ne', $this, "on the schema of $before");
$node->safe_psql('postgres', "CREATE EXTENSION evento VERSION '$before'; CREATE ROLE proxy LOGIN IN ROLE evento_proxy");
my $test = Evento::ProxyTest->new(node => $node);
my @proxy = map { $test->start(flags => { 'cut-time' => '2s' }, $_ == 1 ? (program => $program) : ()) } 0 .. 2;
my @bundle = map { $proxy[$_]->bundle(bundle => 'shop', instance => "s$_", names => [ "Find$_", "Place$_", "Notify$_" ]) } 0 .. 2;

sub linked { return !grep { my $proxy = $_; !$proxy->wait_for(sub { ($proxy->metric('links') // 0) == 4 }) } @proxy }

my $round = 0;

# From every proxy to every other: a query, a command of an aggregate, the next one from elsewhere, a service command; and what was stored is read everywhere.
sub all_works
{
	my ($what) = @_;
	$round++;
	ok(linked(), "$what: all proxies are linked");
	ok($proxy[0]->wait_for(sub { $test->sql('SELECT count(*) FROM evento.bundles WHERE enabled') == 3 }), "$what: all bundles are known");
	my (@wrong, $stored);
	for my $from (0 .. 2)
	{
		for my $to (0 .. 2)
		{
			my $asks = sub {
				my ($kind, $id, $response) = @_;
				my $req = $bundle[$to]->recv('REQ', timeout => 30) or return push @wrong, "$kind from $from does not reach $to";
				$bundle[$to]->respond($req, $response);
				my $answer = $bundle[$from]->answer($id, timeout => 30) or return push @wrong, "$kind from $from to $to is not answered";
				push @wrong, "$kind from $from to $to: $answer->{failure}{message}" if $answer->{failure};
				return;
			};
			$bundle[$from]->reaches($bundle[$to], "Find$to");
			$asks->('a query', $bundle[$from]->query("Find$to"), Evento::Bundle::single('found'));
			$asks->('a command', $bundle[$from]->command("Place$to", "order-$round"), Evento::Bundle::domain_response('Placed', '{}'));
			$asks->('a service command', $bundle[$from]->service_command("Notify$to", '{}', stream => "service-$round-$from-$to"), Evento::Bundle::event_message('Service', 'Notified', '{}'));
			$stored += 2;
		}
	}
	is(join("\n", @wrong), '', "$what: each answers what is asked at each");
	is($test->sql("SELECT count(*) FROM evento.events WHERE stream ~ '^(order|service)-$round(-|\$)'"), $stored, "$what: every event is stored, once");
	is($test->sql("SELECT max(version) FROM evento.events WHERE stream = 'order-$round'"), 9, "$what: those of one aggregate behind one another");
	my $all = $test->sql('SELECT count(*) FROM evento.events');
	for my $at (0 .. 2)
	{
		my $count = 0;
		$proxy[$at]->wait_for(sub { $count = @{ ($bundle[$at]->answer($bundle[$at]->fetch(0, component => 'All'), timeout => 30) // {})->{body}{events}[1] // [] }; $count == $all }, 30);
		is($count, $all, "$what: a consumer at $at reads all of them");
	}
	return;
}

# Who says which version he is of.
sub versions
{
	my ($at) = @_;
	my $picture = eval { JSON::PP->new->decode(($proxy[$at]->get('/cluster'))[1]) } // return '';
	return join ' ', map { $_->{version} } sort { $a->{name} cmp $b->{name} } grep { $_->{live} } @{ $picture->{proxies} };
}

all_works("on $before");
my $mixed = "$this $other $this";
for my $at (0, 2) { ok($proxy[$at]->wait_for(sub { versions($at) eq $mixed }), "proxy $at knows the versions of all") }
$proxy[0]->wait_for(sub { $node->psql('postgres', "SET lock_timeout = '500ms'; ALTER EXTENSION evento UPDATE TO '$this'") == 0 }, 60);
is($test->sql(q(SELECT extversion FROM pg_extension WHERE extname = 'evento')), $this, 'the schema is updated under them');
all_works("on $this");

# The last one is upgraded.
is($proxy[1]->stop, 0, 'the other one ends in order');
$proxy[1]{program} = Evento::ProxyTest::program();
$proxy[1]->run;
$proxy[1]->wait_http('/readyz');
$bundle[1] = $proxy[1]->bundle(bundle => 'shop', instance => 's1', names => [ 'Find1', 'Place1', 'Notify1' ]);
all_works('all of one version');
ok($proxy[0]->wait_for(sub { versions(0) eq "$this $this $this" }), 'which all say');

# ---- another protocol between them ----

my $listener = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1', LocalPort => 0, ReuseAddr => 1) or die $@;
my $number = $test->sql(sprintf q(SELECT proxy_id FROM evento._proxy_register('next', '127.0.0.1:1', '127.0.0.1:%d', NULL, '9.9.9')), $listener->sockport);
$test->sql("SELECT evento._session_sync($number, '{}', '{0}', '{shop}', '{next}', '{1}', '{0}', '{t}', '{Find0,New}', '{2}')");
my (%hello, $connections);
# Where this process got to renew its registration too late, it may have run out, and the others meet it anew.
my ($renewed, $late) = (time, 0);

# It takes what comes, says something that no proxy of this version understands, and lets go.
sub be_another
{
	if (time >= $renewed + 1)
	{
		$test->sql("SELECT evento._proxy_renew($number, '{}')");
		$late++ if time >= $renewed + 4;
		$renewed = time;
	}
	while (IO::Select->new($listener)->can_read(0))
	{
		my $peer = $listener->accept or last;
		$connections++;
		my $bytes = '';
		while (length $bytes < 14 && IO::Select->new($peer)->can_read(5)) { sysread($peer, $bytes, 14 - length $bytes, length $bytes) or last }
		$hello{ substr $bytes, 8 }++;
		syswrite $peer, pack('NN', 1, 0) . "\x7f" if $connections % 2;
		close $peer;
	}
	return;
}

my $query = $bundle[2]->query('New', '{}', timeout => 60000);
my $failed;
ok($proxy[0]->wait_for(sub { be_another(); $failed //= $bundle[2]->answer($query, timeout => 0.05); $failed && $connections > 12 }), 'a proxy that speaks another protocol is tried again and again');
is($failed->{failure}{message}, 'no handler for New', 'what it alone handles is not there');
is_deeply([ keys %hello ], ["\x01EVPL\x01"], 'each says its version of the protocol before anything else');
for my $at (0 .. 2)
{
	my @lines = grep { /proxy $number\b/ && /warning/ } split /\n/, $proxy[$at]->log;
	ok(@lines >= 1 && @lines <= 1 + $late, "proxy $at warns of it, once") or diag(join "\n", @lines);
}
my $answered = 0;
for my $n (1 .. 10)
{
	be_another();
	my $id = $bundle[2]->query('Find0');
	my $req = $bundle[0]->recv('REQ', timeout => 30) or last;
	$bundle[0]->respond($req, Evento::Bundle::single($n));
	$answered++ if (($bundle[2]->answer($id, timeout => 30) // {})->{body}{data} // '') eq $n;
}
is($answered, 10, 'what others handle, too, is asked of them');
ok($proxy[$_]->wait_for(sub { ($proxy[$_]->metric('links') // 0) == 4 }), "proxy $_ has its links to the others") for 0 .. 2;
$test->sql("SELECT evento._proxy_leave($number)");
is($_->stop, 0, "$_->{name} ends in order") for @proxy;
done_testing();
