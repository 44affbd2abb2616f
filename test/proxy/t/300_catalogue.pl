# 300_catalogue.pl
#   The views proxies, bundles, handlers and payloads say what bundles have
#   sent: recorded registrations and discoveries, field by field, other versions,
#   descriptions that replace each other, and odd ones.
use strict;
use warnings;

use File::Basename qw(dirname);
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Bundle;
use Evento::Cbor;
use Evento::ProxyTest;

my $golden = dirname(__FILE__) . '/../../unit/golden';
my $json = JSON::PP->new->canonical;
my $test = Evento::ProxyTest->new;
my $proxy = $test->start;

# Rows of a query as JSON decodes them.
sub rows
{
	my ($sql) = @_;
	return JSON::PP->new->utf8->decode($test->sql("SELECT coalesce(json_agg(row_to_json(q)), '[]') FROM ($sql) q"));
}

sub quoted { return "'" . $_[0] =~ s/'/''/gr . "'" }

# In an order of their own, for comparison.
sub ordered { return [ sort { $json->encode($a) cmp $json->encode($b) } @_ ] }

# ---- what the views have to say of a discovery ----

# Texts in the database have no U+0000.
sub text
{
	my ($value) = @_;
	return defined $value ? $value =~ s/\0/\x{fffd}/gr : undef;
}

sub flag { return $_[0] ? JSON::PP::true : JSON::PP::false }

sub invoked
{
	my ($map) = @_;
	return { map { $_ => text($map->{$_}) } keys %{ $map // {} } };
}

# The columns of handlers for a discovery that was decoded: entries that repeat count once.
sub expected_handlers
{
	my ($bundle, $version, $discovery) = @_;
	my %rows;
	for my $h (@{ $discovery->{handlers} })
	{
		my $row = {
			bundle => $bundle, version => $version, component_type => text($h->{componentType}), component => text($h->{componentName}),
			handler_type => text($h->{handlerType}), payload_type => text($h->{handledPayloadType}), payload => text($h->{handledPayload}),
			return_type => text($h->{returnType}), return_is_multiple => flag($h->{returnIsMultiple}),
			association_property => text($h->{associationProperty}), executor => text($h->{executor}),
			invoked_commands => invoked($h->{invokedCommands}), invoked_queries => invoked($h->{invokedQueries}),
			component_description => text($h->{componentDescription}), component_detail => text($h->{componentDetail}),
			component_path => text($h->{componentPath}), component_line => $h->{componentLine}, handler_line => $h->{handlerLine} };
		$rows{ $json->encode($row) } = $row;
	}
	return ordered(values %rows);
}

sub expected_payloads
{
	my ($bundle, $discovery) = @_;
	my $info = $discovery->{payloadInfo};
	return ordered(map { { name => text($_), described_by => $bundle, line => $info->{$_}{line}, domain => text($info->{$_}{domain}),
			description => text($info->{$_}{description}), detail => text($info->{$_}{detail}), schema => text($info->{$_}{schema}), path => text($info->{$_}{path}) } } keys %$info);
}

sub handlers
{
	my ($bundle, $version) = @_;
	return ordered(@{ rows('SELECT * FROM evento.handlers WHERE bundle = ' . quoted($bundle) . (defined $version ? " AND version = $version" : '')) });
}

sub payloads
{
	my ($bundle) = @_;
	return ordered(@{ rows('SELECT name, domain, description, detail, schema, path, line, described_by FROM evento.payloads WHERE described_by = ' . quoted($bundle)) });
}

# The row of an instance in bundles.
sub instance
{
	my ($instance) = @_;
	my $rows = rows('SELECT * FROM evento.bundles WHERE instance = ' . quoted($instance));
	return @$rows == 1 ? $rows->[0] : undef;
}

# ---- saying it ----

# A connection of a bundle that has been welcomed.
sub connected
{
	my ($at, $bundle, $instance) = @_;
	my $c = $at->connection;
	$c->hello(bundle => $bundle, instance => $instance);
	$c->recv('WLC') or die 'no welcome';
	return $c;
}

sub register
{
	my ($c, $version, @names) = @_;
	return $c->notify('evento:bundle-registration', cbor_encode(map_(bundleVersion => int_($version), handlerPayloadTypes => \@names)));
}

sub describe
{
	my ($c, @pairs) = @_;
	return $c->notify('evento:bundle-discovery', cbor_encode(map_(@pairs)));
}

# A handler with all fields; those given take the place of others, or come behind them.
sub handler
{
	my (%fields) = @_;
	my @pairs = (componentType => 'Service', componentName => 'Component', handlerType => 'CommandHandler', handledPayloadType => 'ServiceCommand',
		handledPayload => 'Payload', returnType => undef, returnIsMultiple => bool_(0), associationProperty => undef,
		componentDescription => 'd', componentDetail => '', componentPath => 'a/B.java', componentLine => int_(1), handlerLine => int_(2),
		executor => '', invokedCommands => map_(), invokedQueries => map_());
	for (my $i = 0; $i < @pairs; $i += 2)
	{
		$pairs[ $i + 1 ] = delete $fields{ $pairs[$i] } if exists $fields{ $pairs[$i] };
	}
	return map_(@pairs, %fields);
}

# Waits until what has been sent on a connection is filed: the proxy has read it once it answers a ping behind it, and
# files descriptions in the order in which it has read them, and the session of one that comes later no earlier.
my $marks = 0;

sub settled
{
	my ($at, $connection) = @_;
	return 0 if !$connection->alive;
	my $mark = 'mark-' . ++$marks;
	my $c = connected($at, $mark, $mark);
	describe($c, bundleVersion => int_(0), handlers => [ handler() ]);
	my $ok = $at->wait_for(sub { $test->sql("SELECT (SELECT count(*) FROM evento.handlers WHERE bundle = '$mark') * (SELECT count(*) FROM evento.bundles WHERE bundle = '$mark')") });
	$c->close;
	return $ok;
}

# ---- the recorded frames ----

my @recorded;
for my $file (sort glob "$golden/*-c2s-hel.bin $golden/*-c2s-ntf-evento-bundle-registration.bin $golden/*-c2s-ntf-evento-bundle-discovery.bin")
{
	my $frame = slurp_file($file);
	my $message = cbor_decode(substr($frame, 1));
	push @recorded, { frames => [], hello => $message } if $file =~ /-hel\.bin$/;
	push @{ $recorded[-1]{frames} }, $frame;
	$recorded[-1]{ $1 } = cbor_decode($message->{payload}) if $file =~ /-(registration|discovery)\.bin$/;
}
my $enable = slurp_file((glob "$golden/*-c2s-ntf-evento-enable.bin")[0]);
is(scalar @recorded, 4, 'four recorded bundles');
cmp_ok(scalar(map { @{ $_->{discovery}{handlers} } } @recorded), '>', 30, 'with handlers');

sub send_frame { my ($c, $frame) = @_; return $c->send_raw(pack('N', length $frame) . $frame) }

for my $r (@recorded)
{
	my ($bundle, $instance) = @{ $r->{hello} }{qw(bundleId instanceId)};
	my $c = $r->{connection} = $proxy->connection;
	send_frame($c, $_) for @{ $r->{frames} };
	ok($c->recv('WLC'), "$bundle is welcomed");
	ok(settled($proxy, $c), 'what it says is filed');

	my $row = instance($instance);
	is($row->{enabled}, JSON::PP::false, 'it is connected and not enabled');
	is_deeply($row->{names}, $r->{registration}{handlerPayloadTypes}, 'with the names that it registered, in their order');
	my $age = $test->sql('SELECT extract(epoch FROM clock_timestamp() - connected_at) BETWEEN 0 AND 60 FROM evento.bundles WHERE instance = ' . quoted($instance));
	is($age, 't', 'since just now');
	delete @$row{qw(names connected_at enabled)};
	is_deeply($row, { bundle => $bundle, version => $r->{registration}{bundleVersion}, instance => $instance, proxy => 'proxy1',
			proxy_id => $test->sql('SELECT proxy_id FROM evento.proxies'), description => $r->{discovery}{description},
			detail => $r->{discovery}{detail}, repository_url => $r->{discovery}{repositoryUrl}, line_prefix => $r->{discovery}{linePrefix} },
		'and what its discovery says of it');
	is_deeply(handlers($bundle), expected_handlers($bundle, 1, $r->{discovery}), 'every field of every handler');
	is_deeply(payloads($bundle), expected_payloads($bundle, $r->{discovery}), 'every field of every payload');

	send_frame($c, $enable);
	ok($proxy->wait_for(sub { instance($instance)->{enabled} }), 'enable shows');
}

# ---- the proxy ----

ok($proxy->wait_for(sub { my $p = rows('SELECT load, instances FROM evento.proxies')->[0]; $p->{load}{sessions} == 4 && $p->{instances} == 4 }), 'the load of the proxy shows with its next renewal');
my $p = rows(q{SELECT name, advertised, internal, http, version, live, instances, load, started_at <= renewed_at AS in_order, now() - renewed_at < '5 s' AS fresh FROM evento.proxies})->[0];
my ($version) = (Evento::ProxyTest::run_program('--version'))[1] =~ /(\d+\.\d+\.\d+)/;
is_deeply($p, { name => 'proxy1', advertised => "127.0.0.1:$proxy->{port}", internal => "127.0.0.1:$proxy->{internal}", http => "127.0.0.1:$proxy->{http}",
		version => $version, live => JSON::PP::true, instances => 4, in_order => JSON::PP::true, fresh => JSON::PP::true,
		load => { sessions => 4, requests => 0, links => 0 } }, 'the view proxies');

# ---- disable, enable, disconnect ----

my ($first) = @recorded;
my ($bundle, $instance) = @{ $first->{hello} }{qw(bundleId instanceId)};
$first->{connection}->notify('evento:disable');
ok($proxy->wait_for(sub { !instance($instance)->{enabled} }), 'disable shows');
ok(instance($instance), 'and the instance stays');
$first->{connection}->notify('evento:enable');
ok($proxy->wait_for(sub { instance($instance)->{enabled} }), 'enable shows again');

# ---- a registration replaces what was registered ----

register($first->{connection}, 1, 'Only', 'These');
ok($proxy->wait_for(sub { $json->encode(instance($instance)->{names}) eq '["Only","These"]' }), 'a second registration replaces the first');
my @odd_names = ('NULL', 'null', 'a"b', 'a\\b', '{x}', 'a,b', ' ', "new\nline", "\x{1f680}", 'x' x 512, 'NULL');
register($first->{connection}, 1, @odd_names);
ok($proxy->wait_for(sub { @{ instance($instance)->{names} } == @odd_names }), 'names that would mean something elsewhere');
is_deeply(instance($instance)->{names}, \@odd_names, 'are names');
register($first->{connection}, 1);
ok($proxy->wait_for(sub { !@{ instance($instance)->{names} } }), 'and none at all');
is_deeply(handlers($bundle), expected_handlers($bundle, 1, $first->{discovery}), 'the handlers are what the discovery said');

# ---- a second version beside the first ----

my $second = connected($proxy, $bundle, 'of version 2');
register($second, 2, 'Payload');
describe($second, bundleVersion => int_(2), description => 'the second', handlers => [ handler(handledPayload => 'New') ],
	payloadInfo => map_(OrderCreate => map_(schema => '{"v":2}', line => int_(99))));
ok(settled($proxy, $second), 'another version of the first bundle');
is_deeply(handlers($bundle, 1), expected_handlers($bundle, 1, $first->{discovery}), 'leaves the handlers of the first');
is_deeply([ map { [ $_->{version}, $_->{payload} ] } @{ handlers($bundle, 2) } ], [ [ 2, 'New' ] ], 'and has its own');
is_deeply([ map { [ @$_{qw(version instance description)} ] } @{ rows('SELECT * FROM evento.bundles WHERE bundle = ' . quoted($bundle) . ' ORDER BY version') } ],
	[ [ 1, $instance, 'orders-command' ], [ 2, 'of version 2', 'the second' ] ], 'both are connected, each with its description');
my ($order_create) = grep { $_->{name} eq 'OrderCreate' } @{ payloads($bundle) };
is_deeply($order_create, { name => 'OrderCreate', described_by => $bundle, domain => undef, description => undef, detail => undef, schema => '{"v":2}', path => undef, line => 99 },
	'of a payload that both describe the newest description holds');
my %described = map { $_ => 1 } map { keys %{ $_->{discovery}{payloadInfo} } } @recorded;
is_deeply([ map { $_->{name} } @{ rows('SELECT name FROM evento.payloads ORDER BY name COLLATE "C"') } ], [ sort keys %described ], 'and the others stay');

# The first one comes again, as after the second was taken back.
my $again = $proxy->connection;
send_frame($again, $_) for @{ $first->{frames} };
ok(settled($proxy, $again), 'the first version comes again');
is_deeply(payloads($bundle), expected_payloads($bundle, $first->{discovery}), 'and describes its payloads again');
ok($first->{connection}->wait_closed, 'its older connection is superseded');

# ---- disconnect ----

$again->close;
ok($proxy->wait_for(sub { !instance($instance) }), 'who disconnects is gone from bundles');
is_deeply(handlers($bundle, 1), expected_handlers($bundle, 1, $first->{discovery}), 'its handlers stay');
is_deeply(payloads($bundle), expected_payloads($bundle, $first->{discovery}), 'its payloads stay');
ok(instance('of version 2'), 'the other version is still connected');

# ---- descriptions of one version that replace each other, at one proxy and at two ----

my $other = $test->start;
my $x = connected($proxy, 'changing', 'at the first');
my $y = connected($other, 'changing', 'at the second');
register($_, 7) for $x, $y;
for my $step ([ $x, $proxy, 'A', 'B' ], [ $x, $proxy, 'C' ], [ $x, $proxy, 'A', 'B' ], [ $y, $other, 'C' ], [ $x, $proxy, 'A', 'B' ], [ $x, $proxy ], [ $y, $other, 'C' ])
{
	my ($c, $at, @names) = @$step;
	describe($c, bundleVersion => int_(7), description => "has @names", handlers => [ map { handler(handledPayload => $_) } @names ], payloadInfo => map_());
	ok(settled($at, $c), "at $at->{name}: handlers @names");
	is_deeply([ map { $_->{payload} } @{ handlers('changing') } ], \@names, 'are the handlers now');
	is(instance('at the first')->{description}, "has @names", 'and the description is the newest');
}

# ---- odd ones ----

my @good = (handledPayload => 'Good');
my $good = [ { component => 'Component', payload => 'Good' } ];
# Nothing that can be compressed into an index entry.
srand 1;
my $random = join '', map { chr(33 + int rand 90) } 1 .. 10000;
my @odd = (
	[ 'nothing', cbor_encode(map_()), [], [] ],
	[ 'null everywhere', cbor_encode(map_(map { $_ => undef } qw(bundleVersion description detail repositoryUrl linePrefix handlers payloadInfo))), [], [] ],
	[ 'a text for lists', cbor_encode(map_(handlers => 'none', payloadInfo => 'none')), [], [] ],
	[ 'a list for a map, and the other way', cbor_encode(map_(handlers => map_(a => handler(@good)), payloadInfo => [ 'a', 'b' ])), [], [] ],
	[ 'handlers that are none', cbor_encode(map_(handlers => [ int_(1), undef, 'x', [], map_(), bool_(1), [ handler() ], handler(@good) ])), $good, [] ],
	[ 'handlers that lack what they need', cbor_encode(map_(handlers => [ handler(@good), map { handler($_ => undef) } qw(componentType componentName handlerType handledPayload) ])), $good, [] ],
	[ 'handlers with that and no more', cbor_encode(map_(handlers => [ map_(componentType => 'Saga', componentName => 'S', handlerType => 'SagaEventHandler', handledPayload => 'P') ])),
		[ { bundle => 'odd', version => 0, component_type => 'Saga', component => 'S', handler_type => 'SagaEventHandler', payload_type => undef, payload => 'P', return_type => undef,
				return_is_multiple => JSON::PP::false, association_property => undef, executor => undef, invoked_commands => {}, invoked_queries => {},
				component_description => undef, component_detail => undef, component_path => undef, component_line => undef, handler_line => undef } ], [] ],
	[ 'wrong types', cbor_encode(map_(description => int_(5), detail => [ 1 ], handlers => [ handler(@good, componentLine => 'seven', handlerLine => raw_("\xfb\x40\x1e\0\0\0\0\0\0"),
					returnIsMultiple => 'yes', invokedCommands => [], invokedQueries => undef, executor => int_(7), componentPath => bool_(1)) ],
				payloadInfo => map_(A => undef, B => 'text', C => [], D => int_(1), E => map_(line => 'x', schema => map_(a => int_(1)))))),
		[ { component => 'Component', payload => 'Good', component_line => undef, handler_line => undef, return_is_multiple => JSON::PP::false, invoked_commands => {},
				invoked_queries => {}, executor => '7', component_path => 'true' } ],
		[ map({ { name => $_, line => undef, schema => undef } } 'A' .. 'D'), { name => 'E', line => undef, schema => '{"a": 1}' } ] ],
	[ 'numbers that are no lines', cbor_encode(map_(handlers => [ handler(@good, componentLine => raw_("\x1b" . "\xff" x 8), handlerLine => raw_("\x3b" . "\xff" x 8)) ],
				payloadInfo => map_(L => map_(line => int_(4294967296)), M => map_(line => int_(-1)), N => map_(line => raw_("\xf9\x7e\0")), O => map_(line => raw_("\xfa\x7f\x80\0\0"))))),
		[ { payload => 'Good', component_line => undef, handler_line => undef } ],
		[ { name => 'L', line => undef }, { name => 'M', line => -1 }, { name => 'N', line => undef }, { name => 'O', line => undef } ] ],
	[ 'U+0000', cbor_encode(map_(description => "a\0b", handlers => [ handler(handledPayload => "P\0Q", componentDescription => "\0", invokedCommands => map_("1\0" => "C\0")) ],
				payloadInfo => map_("N\0M" => map_(schema => "\0\0", description => "x\0")))),
		[ { payload => "P\x{fffd}Q", component_description => "\x{fffd}", invoked_commands => { "1\x{fffd}" => "C\x{fffd}" } } ],
		[ { name => "N\x{fffd}M", schema => "\x{fffd}\x{fffd}", description => "x\x{fffd}" } ] ],
	[ 'entries that repeat', cbor_encode(map_(handlers => [ map { handler(@good) } 1 .. 50 ])), $good, [] ],
	[ 'entries that differ in one field', cbor_encode(map_(handlers => [ map { handler(@good, handlerLine => int_($_)) } 1, 2, 2, 1 ])), [ { handler_line => 1 }, { handler_line => 2 } ], [] ],
	[ 'a field twice', cbor_encode(map_(handlers => [ handler() ], handlers => [ handler(@good) ], payloadInfo => map_(Twice => map_(line => int_(1)), Twice => map_(line => int_(2))))),
		$good, [ { name => 'Twice', line => 2 } ] ],
	[ 'fields that nobody knows', cbor_encode(map_(more => [ map_(a => \"bytes") ], handlers => [ handler(@good, more => \"bytes") ], payloadInfo => map_(K => map_(more => int_(1))))), $good, [ { name => 'K' } ] ],
	[ 'keys that are no texts', cbor_encode(map_(raw_("\x01") => 'one', raw_("\xf6") => 'null', handlers => [ handler(@good, invokedCommands => raw_("\xa3\x18\x2a\x61C\x38\x63\x61D\xf5\x61E")) ])),
		[ { payload => 'Good', invoked_commands => { 42 => 'C', -100 => 'D', true => 'E' } } ], [] ],
	[ 'texts that mean something elsewhere', cbor_encode(map_(description => q({"a": 'b'}; DROP TABLE x; --\\u0000 \\), handlers => [ handler(handledPayload => qq(a"b\\c'd{}\n\t\x{7f}\x{1f680})) ],
				payloadInfo => map_(q(a"b\\c'd) => map_(schema => qq({"x": "\\u0000"}\r\n))))),
		[ { payload => qq(a"b\\c'd{}\n\t\x{7f}\x{1f680}) } ], [ { name => q(a"b\\c'd), schema => qq({"x": "\\u0000"}\r\n) } ] ],
	[ 'names of 10,000 characters', cbor_encode(map_(description => $random, handlers => [ handler(handledPayload => $random, componentName => $random) ],
				payloadInfo => map_($random => map_(line => int_(1)), 'short' => map_(line => int_(2), schema => $random), 'l' x 512 => map_(), 'm' x 513 => map_(), '' => map_()))),
		[ { component => $random, payload => $random } ], [ { name => 'l' x 512, line => undef, schema => undef }, { name => 'short', line => 2, schema => $random } ] ],
	[ 'three thousand handlers', cbor_encode(map_(handlers => [ map { handler(handledPayload => "P$_") } 1 .. 3000 ])), [ map { { payload => "P$_" } } 1 .. 3000 ], [] ],
);

# What cannot be read at all.
my @unreadable = (
	[ 'no map', cbor_encode([ 'handlers' ]) ], [ 'not CBOR', "\xff\xff" ], [ 'empty', '' ], [ 'cut off', substr(cbor_encode(map_(handlers => [ handler() ])), 0, -5) ],
	[ 'bytes behind it', cbor_encode(map_()) . "\0" ], [ 'text that is no UTF-8', cbor_encode(map_(description => raw_("\x62\xc3\x28"))) ],
	[ 'half a surrogate pair', cbor_encode(map_(description => raw_("\x63\xed\xa0\x80"))) ], [ 'deep nesting', cbor_encode(map_(handlers => raw_("\x81" x 5000 . "\x01"))) ],
	[ 'a map as a key', cbor_encode(map_(raw_("\xa0") => 'x')) ]);

# Compares the fields of rows that are told; rows are told by the same fields.
sub same
{
	my ($rows, $expected, $what) = @_;
	my @fields = sort keys %{ $expected->[0] // {} };
	my ($got, $want) = map { my $list = $_; ordered(map { my $row = $_; +{ map { $_ => $row->{$_} } @fields } } @$list) } $rows, $expected;
	return is_deeply($got, $want, $what);
}

my $n = 0;
for my $case (@odd)
{
	my $name = 'odd ' . ++$n;
	my $c = connected($proxy, $name, $name);
	register($c, 0);
	$c->notify('evento:bundle-discovery', $case->[1]);
	ok($c->alive, "$case->[0]: the connection stays");
	$c->close;
}
my $odd = connected($proxy, 'odd', 'odd');
register($odd, 0);
describe($odd, handlers => [ handler(@good) ]);
$odd->notify('evento:bundle-discovery', $_->[1]) for @unreadable;
ok(settled($proxy, $odd), 'descriptions behind odd ones are filed');
$n = 0;
for my $case (@odd)
{
	my ($what, undef, $handlers, $payloads) = @$case;
	my $name = 'odd ' . ++$n;
	$_->{bundle} = $name for grep { exists $_->{bundle} } @$handlers;
	same(handlers($name), $handlers, "$what: handlers");
	same(payloads($name), $payloads, "$what: payloads");
}
ok($odd->alive, 'after those that could not be read the connection is there');
is(scalar $proxy->wait_log("session \Q$odd->{peer}\E odd/odd: discovery is left out of the catalogue: "), scalar @unreadable, 'each is in the log');
same(handlers('odd'), $good, 'what was known stays');
is(scalar(grep { /is not stored/ } split /\n/, $proxy->log), 0, 'the database has refused none');
$odd->notify('evento:enable');
ok($proxy->wait_for(sub { instance('odd')->{enabled} }), 'and the bundle can enable');

# ---- while the database is away ----

$test->node->stop('immediate');
describe($odd, description => 'said while the database was away', handlers => [ handler(handledPayload => 'First') ]);
describe($odd, description => 'said while the database was away', handlers => [ handler(handledPayload => 'Last') ]);
ok($odd->alive, 'a description while the database is away');
$test->node->start;
ok($proxy->wait_for(sub { @{ handlers('odd') } == 1 && handlers('odd')->[0]{payload} eq 'Last' }), 'is filed when it is back');
ok($proxy->wait_for(sub { (instance('odd') // {})->{enabled} }), 'and the instance is shown as before');

# ---- a proxy that is gone ----

$other->stop('KILL');
ok($proxy->wait_for(sub { $test->sql(q{SELECT live FROM evento.proxies WHERE name = 'proxy2'}) ne 't' }), 'a proxy that was killed is no longer live');
ok(!instance('at the second'), 'nor are its instances connected');
ok(instance('at the first'), 'those of others are');
is_deeply([ map { $_->{payload} } @{ handlers('changing') } ], ['C'], 'what they said stays');

my $number = $proxy->number;
is($proxy->stop, 0, 'the proxy ends');
ok($proxy->has_left($number), 'it has left the cluster, with its instances');
ok($proxy->wait_for(sub { $test->sql('SELECT count(*) FROM evento.bundles') == 0 }), 'none of them shows any more');
cmp_ok($test->sql('SELECT count(*) FROM evento.handlers'), '>', 30, 'handlers stay');
done_testing();
