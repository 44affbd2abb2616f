# 005_mutations.pl
#   Recorded frames of real bundles, damaged at random: whatever comes, the
#   proxy closes that connection or answers, and serves the others.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $golden = __FILE__ =~ s{proxy/t/[^/]+$}{unit/golden}r;
my @frames = map { PostgreSQL::Test::Utils::slurp_file($_) } sort glob "$golden/*-c2s-*.bin";
cmp_ok(scalar @frames, '>', 40, 'there are recorded frames');

my $seed = $ENV{EVENTO_SEED} // int(time * 1000) % 1000000;
my $rounds = $ENV{EVENTO_LONG} ? 20000 : 1500;
note "EVENTO_SEED=$seed repeats this";
srand $seed;

my $test = Evento::ProxyTest->new;
my $proxy = $test->start(flags => { 'log-level' => 'info', 'discovery-wait' => '50ms' });
my $innocent = $proxy->bundle(bundle => 'innocent', instance => 'i', names => ['InnocentQuery']);

# A few changes: other bits, other bytes, a cut, a piece out, a piece doubled, a piece of another frame.
sub mutate
{
	my ($bytes) = @_;
	for (1 .. 1 + int rand 4)
	{
		my $n = length $bytes or last;
		my ($at, $len, $kind) = (int rand $n, 1 + int rand 16, int rand 7);
		if ($kind == 0) { substr($bytes, $at, 1) ^= chr(1 << int rand 8) }
		elsif ($kind == 1) { substr($bytes, $at, 1) = chr int rand 256 }
		elsif ($kind == 2) { $bytes = substr($bytes, 0, $at) }
		elsif ($kind == 3) { substr($bytes, $at, $len) = '' }
		elsif ($kind == 4) { substr($bytes, $at, 0) = substr($bytes, $at, $len) }
		elsif ($kind == 5) { substr($bytes, $at, 0) = substr($frames[ rand @frames ], 0, $len * 8) }
		else { substr($bytes, $at, 1) = (map { chr } 0xf6, 0x9f, 0xbf, 0xff, 0x1b, 0x5b, 0x7b, 0x9b, 0xbb, 0x80, 0xa0)[ rand 11 ] }
	}
	return $bytes;
}

# Where a message is told apart, a fresh correlation id keeps it from being a repeat.
sub fresh
{
	my ($frame) = @_;
	$frame =~ s/(correlationId\x50).{16}/$1 . Evento::Bundle::uuid()/se;
	return $frame;
}

my ($connection, $opened) = (undef, 0);
for my $round (1 .. $rounds)
{
	if (!$connection || $connection->{closed})
	{
		$connection = $proxy->connection;
		$connection->hello(bundle => "guilty-$round", instance => 'g') if rand() < 0.9;
		$connection->register(qw(OrderCreate OrderList AuditMark)), $connection->notify('evento:enable') if rand() < 0.5;
		$opened++;
	}
	my $body = mutate(fresh($frames[ rand @frames ]));
	$connection->send_raw(pack('N', length $body) . $body) or $connection->{closed} = 1;
	eval { 1 while $connection->pump(0) };
	$connection->{queue} = [];
	# Waits for the proxy to have read all, so that a closed connection is found.
	$connection->alive if $round % 20 == 0;
	last if !$proxy->running;
}
ok($proxy->running, "the proxy lives after $rounds damaged frames on $opened connections");
ok($innocent->alive, 'the innocent connection is there');
my $caller = $proxy->bundle(bundle => 'caller');
my $id = $caller->query('InnocentQuery');
my $req = $innocent->recv('REQ');
ok($req, 'and gets requests');
$innocent->respond($req, Evento::Bundle::single(undef)) if $req;
ok($caller->answer($id), 'which are answered');
is($proxy->stop, 0, 'it ends as it should');
done_testing();
