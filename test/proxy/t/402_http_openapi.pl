# 402_http_openapi.pl
#   The API's description and the server say the same: every path, method and
#   status of it is seen, every answer fits its schema, and it lacks nothing
#   that the server has.
use strict;
use warnings;

use JSON::PP;
use Test::More;

use Evento::Http;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $node = $test->node;
my $open = $test->start(flags => { 'http-body' => '2kB', 'database-wait' => '500ms' });
my $closed = $test->start(flags => { 'http-address' => '0.0.0.0' });
my $wide = $test->start(flags => { 'http-address' => '0.0.0.0', 'http-api' => 'open' });
my $bundle = $open->bundle(bundle => 'orders', instance => 'o1', names => ['Change']);
my ($http, $shut, $free) = map { Evento::Http->new($_->{http}) } $open, $closed, $wide;
my $doc = $http->get('/openapi.json')->{json};

is($doc->{openapi}, '3.1.0', 'a document');
is($doc->{info}{version}, ($node->safe_psql('postgres', q(SELECT default_version FROM pg_available_extensions WHERE name = 'evento'))), 'of this version');

# ---- what the server has, and what is described ----

my @described;
for my $path (sort keys %{ $doc->{paths} })
{
	push @described, map { uc($_) . " $path" } grep { $_ ne 'parameters' } sort keys %{ $doc->{paths}{$path} };
}
is_deeply(\@described, [ sort { (split / /, $a)[1] cmp (split / /, $b)[1] || $a cmp $b } @{ $http->get('/nothing')->{json}{paths} } ], 'all paths and methods of the server, and no others');

# ---- schemas ----

# Follows a reference within the document.
sub resolve
{
	my ($node) = @_;
	while (ref $node eq 'HASH' && defined $node->{'$ref'})
	{
		my $found = $doc;
		$found = $found->{$_} for grep { $_ ne '#' } split m{/}, $node->{'$ref'};
		die $node->{'$ref'} if !defined $found;
		$node = $found;
	}
	return $node;
}

sub is_type
{
	my ($value, $type) = @_;
	return !defined $value if $type eq 'null';
	return ref $value eq 'HASH' if $type eq 'object';
	return ref $value eq 'ARRAY' if $type eq 'array';
	return JSON::PP::is_bool($value) if $type eq 'boolean';
	return 0 if !defined $value || ref $value;
	my $text = JSON::PP->new->allow_nonref->encode($value);
	return $text =~ /^"/ if $type eq 'string';
	return $text =~ /^-?\d+$/ if $type eq 'integer';
	return $text =~ /^-?[\d.eE+-]+$/;
}

# What does not fit a schema, '' where all does.
sub misfit
{
	my ($value, $schema, $at) = @_;
	$schema = resolve($schema);
	if (defined(my $types = $schema->{type}))
	{
		return "$at: not " . JSON::PP->new->allow_nonref->encode($types) if !grep { is_type($value, $_) } ref $types ? @$types : $types;
	}
	return "$at: not among the values" if $schema->{enum} && !grep { defined $_ ? defined $value && $_ eq $value : !defined $value } @{ $schema->{enum} };
	if (ref $value eq 'HASH' && $schema->{properties})
	{
		for my $name (@{ $schema->{required} // [] }) { return "$at: lacks $name" if !exists $value->{$name} }
		for my $name (sort keys %$value)
		{
			return "$at: $name is not described" if !$schema->{properties}{$name};
			my $fault = misfit($value->{$name}, $schema->{properties}{$name}, "$at/$name");
			return $fault if $fault ne '';
		}
	}
	if (ref $value eq 'ARRAY' && $schema->{items})
	{
		for my $i (0 .. $#$value)
		{
			my $fault = misfit($value->[$i], $schema->{items}, "$at/$i");
			return $fault if $fault ne '';
		}
	}
	return '';
}

# ---- every status ----

my $id = '6a5f4de2-3f7a-4e2c-9a51-222222222222';
my $event = '{"type":"A","data":{"a":[1]},"metadata":{}}';
is($_->get('/healthz')->{status}, 200, 'health is open') for $http, $shut;
my $cluster;
ok($open->wait_for(sub { $cluster = $http->get('/cluster')->{json}; @{ $cluster->{bundles} } && @{ $cluster->{bundles}[0]{names} } && 3 == grep { $_->{live} } @{ $cluster->{proxies} } }), 'the cluster');
is_deeply([ @{ $cluster->{bundles}[0] }{qw(bundle instance proxy names)} ], [ 'orders', 'o1', 'proxy1', ['Change'] ], 'has the bundle');
is_deeply([ map { $_->{role} } @{ $cluster->{nodes} } ], ['primary'], 'and the node of the database');
$http->get($_) for '/readyz', '/metrics', '/cluster?x', '/events?x';
$http->post('/streams/s', $event, 'Evento-Event-Id' => $id) for 1 .. 2;
is($free->post('/streams/s', qq([$event, $event]))->{status}, 201, 'open by a setting');
$http->post('/streams/s', $event, 'Evento-Expected-Version' => 0);
$http->post('/streams/s', '{');
$http->post('/streams/s', '{}');
$http->post('/streams/s', '{"type":"A","data":"' . 'x' x 5000 . '"}');
$http->post('/streams/s', $event, 'Content-Type' => 'text/plain');
$http->post('/streams/t', $event);
$http->get('/streams/s?max=1');
$http->get('/streams/s?max=0');
$http->get('/streams/unknown');
$node->safe_psql('postgres', q(SELECT evento.tombstone_stream('t'); CALL evento.wait(NULL)));
$http->get('/streams/t');
$http->post('/streams/t', $event);
is(scalar @{ $http->get('/events')->{json}{events} }, 3, 'events');
my $stream = $http->events('/events');
like($stream->head, qr{^Content-Type: text/event-stream\r?$}m, 'server-sent events');
my $first = $stream->event;
is(misfit(JSON::PP->new->decode($first->{text}), { '$ref' => '#/components/schemas/Event' }, ''), '', 'the data of one is an event');
$stream->close;
my $gap = 10 + $node->safe_psql('postgres', q(SELECT last_position FROM evento.jump_positions('a test')));
my $lost;
ok($open->wait_for(sub { $lost = $http->get("/events?after=$gap")->{json}{lost_range} }), 'who asks from where the log left positions out is told');
is($lost->{reason}, 'a test', 'why');
my $told = $http->events("/events?after=$gap")->event(undef, 'lost_range') // {};
is(misfit(JSON::PP->new->decode($told->{text} // '{}'), { '$ref' => '#/components/schemas/Jump' }, ''), '', 'as by server-sent events');
is($shut->get($_)->{status}, 401, "$_ is closed beyond a loopback address") for '/cluster', '/events', '/streams/s';
is($shut->post('/streams/s', $event)->{status}, 401, 'as is an append');
is($shut->get($_, Authorization => 'Bearer nothing')->{status}, 403, "$_ is so to an unknown token") for '/cluster', '/events', '/streams/s';
is($shut->post('/streams/s', $event, Authorization => 'Bearer nothing')->{status}, 403, 'as is an append');
my $caller = $wide->bundle(bundle => 'caller', instance => 'c1');
$caller->command('Change', 'order-1');
ok($bundle->recv('REQ'), 'a command is open');
kill 'TERM', $wide->{pid};
ok($wide->wait_for(sub { $free->get('/healthz')->{status} == 503 }), 'so that a proxy that is told to stop drains');
$wide->stop('KILL');
$node->stop('fast');
$open->wait_for(sub { $open->metric('db_up') == 0 });
$http->get('/readyz');
$http->get('/events');
$http->get('/streams/s');
$http->post('/streams/s', $event);
my $new = $test->start(wait => 0);
my $late = Evento::Http->new($new->{http});
$late->get('/cluster');

# ---- all that was seen ----

my (%seen, @faults);
for my $answer (map { $_->seen } $http, $shut, $free, $late)
{
	my ($path) = $answer->{path} =~ /^([^?]*)/;
	$path =~ s!^/streams/.*!/streams/{stream}!;
	my $operation = $doc->{paths}{$path}{ lc $answer->{method} } or next;
	my $what = "$answer->{method} $path $answer->{status}";
	my $response = resolve($operation->{responses}{ $answer->{status} });
	my ($type) = ($answer->{headers}{'content-type'} // '') =~ /^([^;]*)/;
	$seen{$what} = 1;
	if (!$response) { push @faults, "$what is not described"; next }
	my $content = $response->{content}{$type};
	if (!$content) { push @faults, "$what: $type is not described"; next }
	my $fault = $type =~ /json/ ? misfit($answer->{json}, $content->{schema}, '') : '';
	push @faults, "$what $fault: $answer->{body}" if $fault ne '';
	for my $name (keys %{ $response->{headers} // {} }) { push @faults, "$what lacks $name" if !defined $answer->{headers}{ lc $name } }
}
is_deeply(\@faults, [], 'every answer is as described');
my @expected;
for my $path (sort keys %{ $doc->{paths} })
{
	for my $method (grep { $_ ne 'parameters' } sort keys %{ $doc->{paths}{$path} })
	{
		push @expected, map { uc($method) . " $path $_" } sort keys %{ $doc->{paths}{$path}{$method}{responses} };
	}
}
is_deeply([ sort keys %seen ], [ sort @expected ], 'every status that is described was seen, and no other');

# Every schema is used by an answer, or by a request.
my $text = $http->{seen}[0]{body};
for my $name (sort keys %{ $doc->{components}{schemas} })
{
	ok($text =~ m{"#/components/schemas/$name"}, "$name is referred to");
}

$_->stop('TERM') for $open, $closed, $new;
done_testing();
