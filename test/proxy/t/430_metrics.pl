# 430_metrics.pl
#   /metrics: the text is what Prometheus' format asks for, by a strict parser
#   and, where it is there, by promtool; and it counts what happens.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Bundle;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $proxy = $test->start;

# Families by name: { type, help, samples => { "name{labels}" => value } }; dies where a line is not as it has to be.
sub parse
{
	my ($text) = @_;
	my (%family, $current);
	die "does not end with a newline\n" if $text !~ /\n\z/;
	for my $line (split /\n/, $text)
	{
		if ($line =~ /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (\S.*)$/)
		{
			die "$1 comes twice\n" if $family{$1};
			$current = $family{$1} = { name => $1, help => $2, samples => {}, order => [] };
		}
		elsif ($line =~ /^# TYPE (\S+) (counter|gauge|histogram)$/)
		{
			die "TYPE $1 is not behind its HELP\n" if !$current || $current->{name} ne $1 || $current->{type};
			$current->{type} = $2;
		}
		elsif ($line =~ /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"(?:,(?!\})|(?=\})))+)\})? (\+Inf|-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)$/)
		{
			my ($name, $labels, $value) = ($1, $2 // '', $3);
			die "sample $line has no family\n" if !$current || !$current->{type};
			my $of = $current->{type} eq 'histogram' ? $name =~ s/_(?:bucket|sum|count)$//r : $name;
			die "sample $line stands below $current->{name}\n" if $of ne $current->{name} || ($current->{type} eq 'histogram' && $of eq $name);
			die "$line comes twice\n" if exists $current->{samples}{"$name\{$labels}"};
			$current->{samples}{"$name\{$labels}"} = $value;
			push @{ $current->{order} }, [ $name, $labels, $value ];
		}
		else
		{
			die "no line of the format: $line\n";
		}
	}
	return \%family;
}

# What the conventions say of a family; the complaints.
sub complaints
{
	my ($family) = @_;
	my @found;
	my ($name, $type) = @$family{qw(name type)};
	push @found, "$name has no samples" if !@{ $family->{order} };
	push @found, "$name: a counter's name ends with _total" if $type eq 'counter' && $name !~ /_total$/;
	push @found, "$name: only a counter's name ends with _total" if $type ne 'counter' && $name =~ /_total$/;
	push @found, "$name: a name does not end with _count, _sum or _bucket" if $name =~ /_(?:count|sum|bucket)$/;
	push @found, "$name: base units only" if $name =~ /_(?:ms|milliseconds|kb|kilobytes|mb|megabytes|percent)(?:_|$)/;
	return @found if $type ne 'histogram';
	my %series;
	for (@{ $family->{order} })
	{
		my ($sample, $labels, $value) = @$_;
		my $le = $labels =~ s/,?le="([^"]+)"// ? $1 : undef;
		push @{ $series{$labels}{buckets} }, [ $le, $value ] if $sample =~ /_bucket$/;
		$series{$labels}{$1} = $value if $sample =~ /_(sum|count)$/;
	}
	for my $labels (sort keys %series)
	{
		my @buckets = @{ $series{$labels}{buckets} };
		push @found, "$name\{$labels}: the last bucket is +Inf" if $buckets[-1][0] ne '+Inf';
		push @found, "$name\{$labels}: +Inf is the count" if $buckets[-1][1] != ($series{$labels}{count} // -1);
		push @found, "$name\{$labels}: no sum" if !defined $series{$labels}{sum};
		for my $i (1 .. $#buckets)
		{
			push @found, "$name\{$labels}: bounds and counts rise" if $buckets[$i][1] < $buckets[ $i - 1 ][1] || ($buckets[$i][0] ne '+Inf' && $buckets[$i][0] <= $buckets[ $i - 1 ][0]);
		}
	}
	return @found;
}

my $handler = $proxy->bundle(bundle => 'shop', instance => 'handler', names => [ 'Place', 'Find' ]);
my $caller = $proxy->bundle(bundle => 'web', instance => 'caller');
ok($proxy->wait_for(sub { $test->sql('SELECT count(*) FROM evento.bundles WHERE enabled') == 2 }), 'a handler and a caller');
for my $n (1 .. 2)
{
	my $id = $caller->command('Place', "order-$n");
	$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Placed', '{"n":1}'));
	ok($caller->answer($id), 'a command');
}
# A third is stored at the second try: somebody has appended meanwhile.
{
	my $id = $caller->command('Place', 'order-3');
	for my $try (1 .. 2)
	{
		my $req = $handler->recv('REQ');
		$test->sql(q(SELECT evento.append('order-3', 'Other', '{}'))) if $try == 1;
		$handler->respond($req, Evento::Bundle::domain_response('Placed', '{"n":1}'));
	}
	ok($caller->answer($id), 'a command that meets a conflict');
}
for my $n (1 .. 2)
{
	my $id = $caller->query('Find');
	$handler->respond($handler->recv('REQ'), Evento::Bundle::single('x'));
	ok($caller->answer($id), 'a query');
}
ok($caller->answer($caller->query('Nobody'))->{failure}, 'a query that nobody handles');
$caller->query('Find', '{}', timeout => 300);
$handler->recv('REQ');
ok($proxy->wait_for(sub { ($proxy->metric('timeouts_total') // 0) == 1 }), 'a query that is not answered in time');

my ($status, $text) = $proxy->get('/metrics');
my $families = eval { parse($text) };
ok($families, 'every line is of the format') or diag($@);
is_deeply([ map { complaints($_) } map { $families->{$_} } sort keys %$families ], [], 'and by the conventions');

sub sample { my ($name, $labels) = @_; return $families->{ $name =~ s/_(?:count|sum)$//r }{samples}{"$name\{$labels}"} // $families->{$name}{samples}{"$name\{$labels}"} }

my $finished = 'evento_proxy_requests_finished_total';
is(sample($finished, 'kind="aggregate",outcome="answered"'), 3, 'three commands were answered');
is(sample($finished, 'kind="query",outcome="answered"'), 2, 'two queries');
is(sample($finished, 'kind="query",outcome="failed"'), 1, 'one failed');
is(sample($finished, 'kind="query",outcome="timeout"'), 1, 'and one was not answered in time');
is(sample('evento_proxy_request_duration_seconds_count', 'kind="aggregate"'), 3, 'three durations of commands');
my $sum = sample('evento_proxy_request_duration_seconds_sum', 'kind="query"');
ok($sum >= 0.3 && $sum < 60, "durations of queries in seconds: $sum");
is(sample('evento_proxy_append_batch_items_count', ''), 4, 'four batches');
ok(sample('evento_proxy_db_statement_duration_seconds_count', 'lane="append"') >= 3, 'and round trips to the database');
is(sample('evento_proxy_queue_limit_items', 'queue="connections"'), 20000, 'queues with their bounds');
is(sample('evento_proxy_queue_items', 'queue="connections"'), 2, 'and sizes');
cmp_ok(sample('process_resident_memory_bytes', ''), '>', 1e6, 'what the process takes');
cmp_ok(sample($_, ''), '>', 1000, $_) for 'evento_proxy_received_bytes_total', 'evento_proxy_sent_bytes_total';
is(sample('evento_proxy_conflicts_total', ''), 1, 'a conflict');
ok(defined sample('evento_proxy_append_retries_total', ''), 'appends that are sent again');
ok(defined sample('evento_proxy_db_statements_in_flight', qq(lane="$_")), "how deep the pipelines are: $_") for qw(control lock append read);

my ($promtool) = grep { -x } map { "$_/promtool" } split /:/, $ENV{PATH};
SKIP:
{
	skip 'no promtool (Debian: prometheus)', 1 if !$promtool;
	my ($out, $err) = ('', '');
	IPC::Run::run([ $promtool, 'check', 'metrics' ], '<', \$text, '>', \$out, '2>', \$err);
	is($out . $err, '', 'promtool finds nothing');
}

is($proxy->stop, 0, 'the proxy ends');
done_testing();
