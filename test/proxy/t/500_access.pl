# 500_access.pl
#   Who is let in: access rules top down, tokens with their limits, and what
#   changes reaches every proxy and the connections that there are.
use strict;
use warnings;

use Test::More;

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my @proxies = map { $test->start } 1 .. 2;
my ($p, $q) = @proxies;

# How a hello is answered: WLC, or the reason of its rejection.  Gives the connection too, still open where it was let in.
sub hello
{
	my ($proxy, %opt) = @_;
	my $c = $proxy->connection;
	$c->hello(%opt);
	$c->pump(5) while !@{ $c->{queue} } && !$c->{closed};
	my $m = shift @{ $c->{queue} } // { '@t' => 'nothing' };
	return ($m->{'@t'} eq 'REJ' ? "$m->{code}: $m->{reason}" : $m->{'@t'}, $c);
}

# Changes come with a notification: a proxy answers so in the end.
sub becomes
{
	my ($want, $name, %opt) = @_;
	for my $proxy (@proxies)
	{
		my $got;
		$proxy->wait_for(sub { ($got) = hello($proxy, %opt); $got eq $want });
		is($got, $want, "$name at $proxy->{name}");
	}
	return;
}

my $needed = 'AUTH_FAILED: a token is needed';
my $unknown = 'AUTH_FAILED: the token is not known, has expired or is another bundle\'s';

# ---- rules ----

is((hello($p, bundle => 'orders'))[0], 'WLC', 'without a rule everybody is let in');
my $old = $p->bundle(bundle => 'orders');
my $other = $q->bundle(bundle => 'billing');
$test->sql(q(SELECT evento.add_access_rule('127.0.0.0/8', 'billing', 'trust')));
ok($old->wait_closed, 'the first rule closes the connections that it does not let in');
is(scalar $p->wait_log("warning session \Q$old->{peer}\E orders/$old->{instance}: closed: no access rule lets it in"), 1, 'with one line in the log');
ok($other->alive, 'and leaves others');
becomes('AUTH_FAILED: no access rule lets it in', 'what no rule is for is rejected', bundle => 'orders');
becomes('WLC', 'what one lets in is not', bundle => 'billing');
$test->sql(q(SELECT evento.add_access_rule(NULL, 'order*', 'trust')));
becomes('WLC', 'a second rule lets more in', bundle => 'orders');
$test->sql(q(SELECT evento.add_access_rule('127.0.0.1', '*', 'reject', 1)));
becomes('AUTH_FAILED: an access rule rejects it', 'one before it is looked at first', bundle => 'orders');
ok($other->wait_closed, 'and closes what was let in before');
$test->sql(q(SELECT evento.drop_access_rule(1); SELECT evento.add_access_rule('10.0.0.0/8', '*', 'reject', 1)));
becomes('WLC', 'one for other addresses is passed over', bundle => 'orders');
$test->sql(q(BEGIN; SELECT evento.add_access_rule(NULL, '*', 'reject', 1); ROLLBACK));
becomes('WLC', 'and one that was rolled back is none', bundle => 'orders');
$test->sql(q(SELECT evento.drop_access_rule(1) FROM generate_series(1, 3)));
becomes('WLC', 'without a rule everybody is let in again', bundle => 'anybody');

# ---- tokens ----

my $token = $test->sql(q(SELECT evento.create_bundle_token('orders')));
my $foreign = $test->sql(q(SELECT evento.create_bundle_token('billing')));
$test->sql(q(SELECT evento.add_access_rule(NULL, '*', 'token')));
becomes($needed, 'a bundle without a token', bundle => 'orders');
is((hello($p, bundle => 'orders', token => $token))[0], 'WLC', 'one with its token is let in');
is((hello($q, bundle => 'orders', token => $token))[0], 'WLC', 'at the other proxy, too');
is((hello($p, bundle => 'orders', token => $foreign))[0], $unknown, 'with that of another bundle it is not');
is((hello($p, bundle => 'billing', token => $token))[0], $unknown, 'nor another one with it');
is((hello($p, bundle => 'orders', token => substr($token, 0, -1)))[0], $unknown, 'part of it is nothing');
is((hello($p, bundle => 'orders', token => uc $token))[0], $unknown, 'nor is something like it');
is((hello($p, bundle => 'orders', token => $token . '0'))[0], $unknown, 'nor is more');
is((hello($p, bundle => 'orders', token => ''))[0], $needed, 'an empty one is none');
is((hello($p, bundle => 'orders', token => 'x' x 100000))[0], $needed, 'nor is one as long as that');
is((hello($p, bundle => 'orders', token => $test->sql(q(SELECT encode(hash, 'hex') FROM evento._bundle_tokens WHERE bundle = 'orders'))))[0], $unknown,
	'what is stored is of no use');

# It has to be seen before it expires, which a busy machine may need more time for.
my ($late, $got, $short);
for my $seconds (3, 10, 30)
{
	$late = $test->sql("SELECT evento.create_bundle_token('orders', expires => clock_timestamp() + interval '$seconds s')");
	last if $p->wait_for(sub { ($got, $short) = hello($p, bundle => 'orders', instance => 'short', token => $late); $got eq 'WLC' }, $seconds);
}
is($got, 'WLC', 'a token that expires soon is good until then');
my $stays = $p->bundle(bundle => 'orders', token => $token);
ok($short->wait_closed, 'when it expires its connection is closed');
is((hello($p, bundle => 'orders', token => $late))[0], $unknown, 'and it lets nobody in');
ok($stays->alive, 'that of another token stays');

my $id = $test->sql("SELECT token_id FROM evento.bundle_tokens WHERE begins_with = left('$token', 12)");
my $elsewhere = $q->bundle(bundle => 'orders', token => $token);
$test->sql("SELECT evento.drop_bundle_token('$id')");
ok($stays->wait_closed, 'a token that is dropped closes its connections');
ok($elsewhere->wait_closed, 'at every proxy');
becomes($unknown, 'and lets nobody in', bundle => 'orders', token => $token);

# ---- limits ----

my $limited = $test->sql(q(SELECT evento.create_bundle_token('limited', may_register => '{Limited*}', may_send => '{LimitedQuery,EventFetchRequest}')));
my $free = $test->sql(q(SELECT evento.create_bundle_token('free')));
becomes('WLC', 'a token with limits', bundle => 'limited', token => $limited);
becomes('WLC', 'and one without', bundle => 'free', token => $free);
$test->sql(q(SELECT evento.append('s', 'T', '1')));
my $b = $p->bundle(bundle => 'limited', token => $limited, names => [ 'LimitedQuery', 'LimitedCommand' ]);
my $f = $p->bundle(bundle => 'free', token => $free, names => ['Secret']);
ok($b->reaches($b, 'LimitedQuery'), 'what it may register and send it does');
my $answer = $b->answer($b->query('Secret'));
is($answer->{failure}{exceptionClassName}, 'java.lang.SecurityException', 'what it may not send fails');
is($answer->{failure}{message}, 'the token of this bundle does not allow it to send Secret', 'with what it was');
ok(!$f->recv('REQ', timeout => 0.3), 'and reaches nobody');
is($b->answer($b->command('LimitedCommand', 'a-1'))->{failure}{exceptionClassName}, 'java.lang.SecurityException', 'so does a command');
# The name outside says one thing, the one inside another.
my $inner = cbor_encode([ Evento::Bundle::MESSAGE . '.internal.EventoRequest', map_(sourceBundleId => 'limited', sourceInstanceId => $b->{instance},
			correlationId => 'x', sourceBundleVersion => int_(1), body => [ Evento::Bundle::MESSAGE . '.application.QueryMessage',
				map_(serializedPayload => Evento::Bundle::payload_of('Secret', '{}'), timestamp => int_(1), metadata => undef, forceTelemetry => bool_(0)) ],
			timestamp => int_(1), timeout => int_(30), unit => 'SECONDS') ]);
is($b->answer($b->request_raw('LimitedQuery', $inner))->{failure}{exceptionClassName}, 'java.lang.SecurityException', 'under another name, too');
ok(!$f->recv('REQ', timeout => 0.3), 'which reaches nobody either');
is($b->answer($b->last_sequence)->{failure}{exceptionClassName}, 'java.lang.SecurityException', 'nor may it ask for the end of the log');
ok(!$b->answer($b->fetch(0, limit => 1))->{failure}, 'but fetch, which it may');
my $consumer = 'com.evento.common.messaging.consumer';
is($b->answer($b->request('LimitedQuery', [ "$consumer.EventLastSequenceNumberRequest", map_() ]))->{failure}{exceptionClassName}, 'java.lang.SecurityException',
	'which is not hidden under the name of a query');
my $queries = $test->sql(q(SELECT evento.create_bundle_token('queries', may_send => '{LimitedQuery}')));
becomes('WLC', 'a token that may not fetch', bundle => 'queries', token => $queries);
my $reader = $p->bundle(bundle => 'queries', token => $queries);
is($reader->answer($reader->request('LimitedQuery', [ "$consumer.EventFetchRequest", map_(context => '*', lastSequenceNumber => int_(0), limit => int_(1),
				componentName => 'Component') ]))->{failure}{exceptionClassName}, 'java.lang.SecurityException', 'nor is a fetch');
is($reader->answer($reader->fetch(0, limit => 1))->{failure}{exceptionClassName}, 'java.lang.SecurityException', 'under its own name neither');
$b->register('LimitedQuery', 'Secret');
ok($b->wait_closed, 'who registers what it may not is closed');
is(scalar $p->wait_log("warning session \Q$b->{peer}\E limited/$b->{instance}: closed: registers Secret, which its token does not allow"), 1, 'with one line in the log');
ok($f->alive, 'others are not touched');

# A rule that comes later: what was registered without limits has to keep to them now, and what keeps to them goes on.
$test->sql(q(SELECT evento.add_access_rule('127.0.0.0/8', 'limited', 'trust', 1)));
becomes('WLC', 'a rule that trusts', bundle => 'limited');
my $more = $p->bundle(bundle => 'limited', token => $limited, names => ['Secret']);
my $keeps = $p->bundle(bundle => 'limited', token => $limited, names => ['LimitedQuery']);
$test->sql(q(SELECT evento.drop_access_rule(1)));
ok($more->wait_closed, 'without it a connection that registered more than its token allows is closed');
ok($keeps->alive, 'one that did not goes on');
is($keeps->answer($keeps->query('Secret'))->{failure}{exceptionClassName}, 'java.lang.SecurityException', 'within its limits');

# ---- certificates where there is no TLS ----

$test->sql(q(SELECT evento.add_access_rule(NULL, 'certain', 'cert', 1)));
becomes('AUTH_FAILED: a client certificate is needed', 'a certificate that is needed and cannot be there', bundle => 'certain', token => $free);

# ---- a database that is away ----

ok(!grep({ /\Q$token\E|\Q$limited\E|\Q$free\E/ } map { $_->log } @proxies), 'no token is in a log');
$test->node->stop('fast');
is((hello($p, bundle => 'free', token => $free))[0], 'WLC', 'what was known last holds while the database is away');
is((hello($p, bundle => 'free'))[0], $needed, 'both ways');
my $alone = $test->start(flags => { 'hello-timeout' => '5min' }, wait => 0);
my $waiting = $alone->connection;
$waiting->hello(bundle => 'free', token => $free);
my $refused = $alone->connection;
$refused->hello(bundle => 'free');
my $long = $alone->connection;
$long->hello(bundle => 'free', token => 'x' x 20000);
is(($long->recv('REJ') // {})->{code}, 'INTERNAL', 'a hello that is too long is not kept');
ok(!$waiting->pump(0.5), 'a proxy that knows no rules yet lets nobody in');
ok(!$refused->{closed}, 'and refuses nobody');
$test->node->start;
$waiting->pump(60) while !@{ $waiting->{queue} } && !$waiting->{closed};
is(($waiting->{queue}[0] // {})->{'@t'}, 'WLC', 'once it does who waits is let in');
is(($refused->recv('REJ') // {})->{code}, 'AUTH_FAILED', 'or not');

is($_->stop, 0, 'ends') for @proxies, $alone;
done_testing();
