# 713_same_timeline.pl
#   Asynchronous failovers, one behind the other, to timelines of one number:
#   three servers that know nothing of each other's promotion are the primary in
#   turn, and each loses what the one before was told.  No position is given
#   twice, nothing that is lost is given from memory, and who has read what is
#   lost is named: consumers of bundles and in SQL, streams of events and readers
#   over HTTP, also those that come with a position that no server has any more.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use JSON::PP;
use Test::More;

use Evento::Bundle;
use Evento::Http;
use Evento::ProxyTest;

my $conf = "wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\nwal_receiver_status_interval = 1s\n";

sub hosts { return sprintf 'host=%s port=%s dbname=postgres user=proxy', join(',', map { $_->host } @_), join(',', map { $_->port } @_) }

my $test = Evento::ProxyTest->new(name => 'first', conf => $conf);
my $first = $test->node;
my ($second, $third) = map { $test->standby($_) } 'second', 'third';
my $proxy = $test->start(flags => { database => hosts($first, $second, $third), 'fetch-hold' => '200ms', 'telemetry-interval' => '100ms', 'http-keep-alive' => '300ms',
		'http-wait' => '10min' });
my $bundle = $proxy->bundle(bundle => 'shop', instance => 's1');
my %name = map { $_ => "shop_${_}_1_*" } qw(Ahead Behind);
$bundle->consumers(Projector => { map { $_ => [ $name{$_} ] } keys %name });
my $http = Evento::Http->new($proxy->{http});
my $stream = $http->events('/events?after=0');

# What a component of the bundle is given behind a position, as streams' names.
sub fetched
{
	my ($after, $component) = @_;
	my $answer = $bundle->answer($bundle->fetch($after, component => $component), timeout => 30) // {};
	return join ' ', map { $_->[1]{aggregateId} } @{ $answer->{body}{events}[1] // [] };
}

# Fetches until all of that is there; no answer may have anything else.
sub goes_on
{
	my ($after, $component, $all, $what) = @_;
	my ($got, @wrong);
	$proxy->wait_for(sub { $got = fetched($after, $component); push @wrong, $got if index($all, $got) != 0; @wrong || $got eq $all }, 60);
	return is($wrong[0] // $got, $all, $what);
}

sub append
{
	my ($node, $stream, $n) = @_;
	return split /\n/, $node->safe_psql('postgres', "SELECT count(evento.append('$stream', 'T', '{}')) FROM generate_series(1, $n) \\gset\nCALL evento.wait(NULL) \\gset\nSELECT position FROM evento.read_stream('$stream') ORDER BY 1");
}

sub streamed
{
	my ($n) = @_;
	return join ' ', map { ($stream->event(60) // {})->{stream} // 'none' } 1 .. $n;
}

# What a stream of events is told: "last next" of what was left out, and that it has no id; or the stream of the next event.
sub told
{
	my ($from) = @_;
	while (my $block = $from->block(60))
	{
		my $data = JSON::PP->new->utf8->decode($block->{data} // next);
		return ($block->{event} // '') eq 'lost_range' ? join ' ', @{$data}{qw(last_position next_position)}, $block->{id} // () : $data->{stream};
	}
	return 'nothing';
}

sub named { my ($node) = @_; return $node->safe_psql('postgres', q(SELECT string_agg(consumer, ' ' ORDER BY consumer) FROM evento.consumers WHERE lost_range)) }

sub number { my ($node) = @_; return $node->safe_psql('postgres', q(SELECT nextval('evento._tickets'))) }

sub timeline { my ($node) = @_; return $node->safe_psql('postgres', 'SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)::int') }

# ---- what all three have ----

append($first, 'kept', 3);
goes_on(0, 'Ahead', 'kept kept kept', 'a consumer of a bundle reads');
is(streamed(3), 'kept kept kept', 'and a stream of events');
my $epoch = $first->safe_psql('postgres', q(SELECT epoch FROM evento.consumer_claim('reports', '1 h') \gset
SELECT evento.consumer_ack('reports', 3, :epoch) \gset
SELECT :epoch));
$first->wait_for_catchup($_) for $second, $third;
# From here on each is alone.
for my $node ($second, $third)
{
	$node->append_conf('postgresql.conf', "primary_conninfo = ''\n");
	$node->reload;
}
$first->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_replication') or die 'a standby still follows';

# The primary is lost with what it was told last, and another one is promoted; once more; and then the first one, which comes back as
# a standby, is promoted, too.
my @given = [ append($first, 'lost-1', 2) ];
is(streamed(2), 'lost-1 lost-1', 'the stream reads what no standby has');
ok($proxy->wait_for(sub { fetched(3, 'Ahead') eq 'lost-1 lost-1' }), 'and the consumer of the bundle');
my $at = 5;
my $n = 1;
for my $case ([ $first, $second ], [ $second, $third ], [ $third, $first ])
{
	my ($old, $new) = @$case;
	my $what = 'promotion ' . $n++;
	my $number = number($old);
	my $waits = $http->raw("GET /events?after=$given[-1][-1]&wait=600s HTTP/1.0\r\nHost: localhost\r\n\r\n");
	ok($proxy->wait_for(sub { $proxy->metric('http_waiting') == 2 }), "$what: a stream of events and a request wait");
	# The proxy sees nothing of it but another server, whose log reaches further.
	kill 'STOP', $proxy->{pid};
	my $frozen = { log_from => length $proxy->log };
	$old->stop('immediate');
	if ($new == $first)
	{
		$new->set_standby_mode;
		$new->start;
	}
	$new->promote;
	is(timeline($new), 2, "$what: to a timeline of the same number");
	my $stream_name = "lost-$n";
	my @positions = append($new, $stream_name, 2);
	kill 'CONT', $proxy->{pid};
	ok(scalar $proxy->wait_log_since($frozen, $n == 2 ? 'the database is on timeline 2' : 'it is another one that is on timeline 2, too'), "$what: the proxy tells of it");
	$proxy->wait_http('/readyz', 60);
	cmp_ok(number($new), '>', $number, "$what: numbers of locks begin behind all that the server before gave");
	cmp_ok($positions[0], '>', $given[-1][-1], "$what: positions begin behind all that the server before gave");
	my $lost = $at;
	goes_on($at, 'Ahead', "$stream_name $stream_name", "$what: who has read some of what is lost goes on behind it");
	# The first one comes back with what it was told last, which the others had lost.
	my $kept = $new == $first ? 'lost-1 lost-1 ' : '';
	goes_on(3, 'Behind', "$kept$stream_name $stream_name", "$what: who has not gets nothing that is lost");
	my ($last, $next) = split /\|/, $new->safe_psql('postgres', 'SELECT last_position, next_position FROM evento.jumps');
	ok($last < $lost && $lost < $next - 1, "$what: it stands among positions that were left out");
	is(told($stream), "$last $next", "$what: a stream of events that was there all the time is told");
	is(streamed(2), "$stream_name $stream_name", "$what: and goes on");
	for my $stands ($lost, $next - 2)
	{
		my $again = $http->events('/events', 'Last-Event-ID' => $stands);
		is(told($again), "$last $next", "$what: one that comes back is told");
		is(told($again), $stream_name, "$what: once, and goes on") for 1 .. 2;
	}
	my $late = Evento::Http::read_until($waits, sub { 0 }, 60);
	like($late, qr/"lost_range":\{[^}]*"last_position" : $last,/, "$what: and one that has waited");
	like($late, qr/"stream":"$stream_name".*"position":\d+,"lost_range"/s, "$what: with what is new");
	my $answer = $http->get("/events?after=$lost&types=T")->{json};
	is(join(' ', @{ $answer->{lost_range} // {} }{qw(last_position next_position)}, map { $_->{stream} } @{ $answer->{events} }), "$last $next $stream_name $stream_name", "$what: so is one that asks");
	for my $stands ($last, $next - 1)
	{
		is(told($http->events("/events?after=$stands")), $stream_name, "$what: one at $stands is not");
		$answer = $http->get("/events?after=$stands")->{json};
		is($answer->{lost_range}, undef, "$what: nor when it asks");
		is(join(' ', map { $_->{stream} } @{ $answer->{events} }), "$stream_name $stream_name", "$what: for what it is given all the same");
	}
	ok($proxy->wait_for(sub { fetched($positions[-1], 'Ahead'); named($new) eq $name{Ahead} }, 60), "$what: the consumer of the bundle is named")
	  or diag(named($new));
	is($new->safe_psql('postgres', q(SELECT position FROM evento.consumers WHERE consumer = 'reports')), '3', "$what: a checkpoint in the database went back with the events");
	my $told = '';
	$new->psql('postgres', "SELECT * FROM evento.consumer_claim('elsewhere', '1 h', start => $lost)", stderr => \$told);
	like($told, qr/WARNING:.*consumer "elsewhere" may have read events that are lost/, "$what: one that comes with a position from elsewhere is told");
	is(named($new), "elsewhere $name{Ahead}", "$what: and named");

	# What the next one loses is in the proxy's memory, and the consumer has yet to read the last of it.
	@positions = append($new, $stream_name, 1);
	is(streamed(1), $stream_name, "$what: events go on");
	$at = $positions[1];
	push @given, \@positions;
}
# ---- positions are left out under a reader that is ahead ----

my $head = $first->safe_psql('postgres', 'SELECT max(position) FROM evento.events');
my $ahead = $http->events('/events?after=' . ($head + 10));
for (1 .. 3)
{
	my $block = $ahead->block(60);
	$block = $ahead->block(60) until !$block || defined $block->{comment};
}
my ($last, $next) = split /\|/, $first->safe_psql('postgres', q(SELECT * FROM evento.jump_positions('a test')));
is($last, $head, 'positions are left out');
append($first, 'new', 1);
is(told($ahead), "$last $next", 'a reader that was ahead of the log all the time is told');
is(told($ahead), 'new', 'before it is given what is new');
is($proxy->stop, 0, 'the proxy ends in order');
done_testing();
