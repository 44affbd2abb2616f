# 431_alerts.pl
#   What docker/monitoring/ gives for watching: the queries run with no more
#   than the rights of role.sql, on primary and standby; whatever rules and
#   dashboard name is served, as they take it; every alert is told of in
#   docs/operating.md, fires when it should and not when it should not.
use strict;
use warnings;

use CPAN::Meta::YAML;
use Cwd ();
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Certs;
use Evento::ProxyTest;

my $top = __FILE__ =~ s{test/proxy/t/[^/]*$}{}r || './';
my $dir = "${top}docker/monitoring";

sub yaml { my ($file) = @_; return CPAN::Meta::YAML->read_string(slurp_file("$dir/$file"))->[0] }

sub in_path { my ($program) = @_; return (grep { -x } map { "$_/$program" } split /:/, $ENV{PATH})[0] }

sub run_quietly
{
	my (@command) = @_;
	my $out = '';
	my $ok = IPC::Run::run(\@command, '<', \'', '>', \$out, '2>&1', IPC::Run::timeout(250));
	return ($ok, $out);
}

# ---- what is served ----

# name => { type, labels => { name => 1 } }
my %served = map { $_ => { type => 'gauge', labels => {} } } 'up', 'pg_up';

my $ca = Evento::Certs->new;
my ($cert, $key) = $ca->cert(cn => 'proxy', days => 20);
my $test = Evento::ProxyTest->new(conf => "max_wal_senders = 5\nwal_level = replica\n");
my $standby = $test->synchronous_standby;
my $primary = $test->node;
my $hosts = sprintf 'host=%s,%s port=%s,%s dbname=postgres user=proxy', map({ $_->host } $primary, $standby), map { $_->port } $primary, $standby;
my $proxy = $test->start(flags => { database => $hosts, 'read-from' => 'standby', 'tls-cert' => $cert, 'tls-key' => $key, 'tls-ca' => $ca->ca });

ok($proxy->wait_for(sub { ($proxy->get('/metrics'))[1] =~ /^evento_proxy_standby_lag_seconds /m }, 60), 'a proxy that reads from standbys tells how old they are');
for (split /\n/, ($proxy->get('/metrics'))[1])
{
	if (/^# TYPE (\S+) (\S+)/)
	{
		$served{$_}{type} = $2 for $2 eq 'histogram' ? map { "$1_$_" } 'bucket', 'sum', 'count' : $1;
	}
	elsif (/^(\w+)\{(.*)\}/)
	{
		my $name = $1;
		$served{$name}{labels}{$_} = 1 for $2 =~ /(\w+)="/g;
	}
}
my $ends = ($proxy->get('/metrics'))[1] =~ /^evento_proxy_certificate_end_timestamp_seconds (\d+)$/m ? $1 : 0;
cmp_ok(abs($ends - (time + 20 * 86400)), '<', 3600, 'a proxy tells when its certificate ends');
my ($long_cert, $long_key) = $ca->cert(cn => 'proxy', days => 25);
rename $long_cert, $cert or die $!;
rename $long_key, $key or die $!;
kill 'HUP', $proxy->{pid};
ok($proxy->wait_for(sub { ($proxy->metric('certificate_end_timestamp_seconds') // 0) > $ends + 4 * 86400 }, 60), 'and of one that was read again')
  or diag($proxy->log);

$test->sql(q(SELECT evento.append('order-' || n, 'Placed', '{}') FROM generate_series(1, 3) n));
$test->sql(q(SELECT evento.consumer_claim('reports', '1 min')));
$test->sql('CREATE ROLE monitor LOGIN');
my ($ok, $said) = run_quietly('psql', '-XqAt', '-d', $primary->connstr('postgres'), '-v', 'role=monitor', '-f', "$dir/role.sql");
is($said, '', 'role.sql');
($ok, $said) = run_quietly('psql', '-XqAt', '-d', $primary->connstr('postgres'), '-v', 'role=monitor', '-f', "$dir/role.sql");
is($said, '', 'and again');
is($test->sql(q(SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'monitor'::regrole)), '{statement_timeout=5s,jit=off}', 'its queries are given up in time');
$test->sql('ALTER ROLE monitor RESET statement_timeout');    # the machine of a test may be slow
$primary->wait_for_catchup($standby, 'replay');

my $queries = yaml('queries.yml');

# The rows of a query, as the role; undef where it fails.
sub rows
{
	my ($node, $query) = @_;
	my ($out, $err) = ('', '');
	my $sql = qq(SELECT COALESCE(json_agg(row_to_json(q)), '[]') FROM ($query) q);
	my $status = $node->psql('postgres', $sql, stdout => \$out, stderr => \$err, extra_params => [ '-U', 'monitor' ]);
	diag("$err") if $status;
	return $status ? undef : decode_json($out);
}

for my $space (sort keys %$queries)
{
	my %metric = map { %$_ } @{ $queries->{$space}{metrics} };
	my @labels = grep { $metric{$_}{usage} eq 'LABEL' } sort keys %metric;
	for my $node ($primary, $standby)
	{
		my $on = "$space on " . $node->name;
		my $rows = rows($node, $queries->{$space}{query});
		ok($rows, "$on runs") or next;
		ok(@$rows, "$on gives rows") if $node == $primary;
		my (@wrong, %seen);
		for my $row (@$rows)
		{
			push @wrong, 'columns ' . join(',', sort keys %$row) if "@{[ sort keys %$row ]}" ne "@{[ sort keys %metric ]}";
			push @wrong, map { "$_ is no number: $row->{$_}" } grep { $metric{$_}{usage} ne 'LABEL' && defined $row->{$_} && $row->{$_} !~ /^-?[\d.]+(?:e[-+]?\d+)?$/i } sort keys %$row;
			push @wrong, map { "$_ is NULL" } grep { !defined $row->{$_} } @labels;
			push @wrong, 'the same labels twice' if $seen{ join "\0", map { $row->{$_} // '' } @labels }++;
		}
		is_deeply(\@wrong, [], "$on gives its metrics");
	}
	for (grep { $metric{$_}{usage} ne 'LABEL' } keys %metric)
	{
		$served{"${space}_$_"} = { type => lc $metric{$_}{usage}, labels => { map { $_ => 1 } @labels } };
		ok($metric{$_}{usage} =~ /^(?:GAUGE|COUNTER)$/ && ($metric{$_}{usage} eq 'COUNTER') == /_total$/, "${space}_$_: a counter's name ends with _total, and no other's") or diag($metric{$_}{usage});
	}
}
for my $relation (qw(events streams _events bundle_tokens))
{
	my $err = '';
	$primary->psql('postgres', "SELECT 1 FROM evento.$relation LIMIT 1", stderr => \$err, extra_params => [ '-U', 'monitor' ]);
	like($err, qr/permission denied/, "the role does not see evento.$relation");
}

# At rest nothing is held back, and all that was taken is reserved: also behind a gap that an administrator made.
sub at_rest
{
	my ($name) = @_;
	my $row;
	ok($proxy->wait_for(sub { $row = rows($primary, $queries->{evento_log}{query})->[0]; $row->{next_position} - 1 == $row->{watermark_position} && $row->{next_position} - 1 <= $row->{reserved_position} }, 60), $name)
	  or diag(encode_json($row));
	return;
}
at_rest('at rest the watermark is at the last position');
$test->sql('SELECT evento.jump_positions()');
at_rest('also where positions have jumped');
$test->sql(q(SELECT evento.append('order-9', 'Placed', '{}')));
at_rest('and behind that');
is(rows($primary, $queries->{evento_log}{query})->[0]{worker_running}, 1, 'the worker runs');
ok($proxy->wait_for(sub { rows($primary, $queries->{evento_cluster}{query})->[0]{missing_proxies} == 0 }), 'no proxy is missing');
kill 'KILL', $proxy->{pid};
ok($proxy->wait_for(sub { rows($primary, $queries->{evento_cluster}{query})->[0]{missing_proxies} == 1 }, 60), 'one that was killed is');
$proxy->wait_for(sub { !$proxy->running });
$proxy->run;
ok($proxy->wait_for(sub { my $row = rows($primary, $queries->{evento_cluster}{query})->[0]; $row->{missing_proxies} == 0 && $row->{proxies} == 1 }, 60), 'until it comes back');

# ---- what is named ----

# The names of metrics in an expression, and what is wrong with how they are taken.
sub look_at
{
	my ($expr) = @_;
	my ($text, @wrong, %labels) = ($expr);
	$text =~ s/"(?:[^"\\]|\\.)*"/""/g;
	while ($text =~ s/\b(?:by|without|on|ignoring)\s*\(([^()]*)\)//)
	{
		$labels{$_} = 1 for grep { length } split /[\s,]+/, $1;
	}
	while ($text =~ s/\{([^{}]*)\}//)
	{
		$labels{$_} = 1 for $1 =~ /(\w+)\s*[=!]/g;
	}
	$text =~ s/\[[^\]]*\]//g;
	my @names = grep { !/^(?:and|or|unless|bool|offset|by|without|on)$/ } $text =~ /(?<![\w.])([a-zA-Z_:][\w:]*)\b(?!\s*\()/g;
	for my $name (@names)
	{
		push(@wrong, "$name is not served") && next if !$served{$name};
		my $counts = $served{$name}{type} =~ /counter|histogram/;
		my $rates = () = $text =~ /\b(?:rate|increase)\s*\(\s*$name\b/g;
		my $all = () = $text =~ /(?<!\w)$name\b/g;
		push @wrong, "$name is a $served{$name}{type}, and taken " . ($counts ? 'as a gauge' : 'as a counter') if $rates != ($counts ? $all : 0);
	}
	for my $label (sort keys %labels)
	{
		push @wrong, "no metric in it has a label $label" if $label !~ /^(?:instance|job|server|le)$/ && !grep { $served{$_}{labels}{$label} } grep { $served{$_} } @names;
	}
	return (\@names, \@wrong);
}

my %rule = map { $_->{alert} => $_ } map { @{ $_->{rules} } } @{ yaml('alerts.yml')->{groups} };
for my $alert (sort keys %rule)
{
	my ($names, $wrong) = look_at($rule{$alert}{expr});
	for my $label ($rule{$alert}{annotations}{summary} =~ /\$labels\.(\w+)/g)
	{
		push @$wrong, "its summary has $label" if $label !~ /^(?:instance|job|server)$/ && !grep { $served{$_}{labels}{$label} } @$names;
	}
	push @$wrong, 'it names no metric' if !@$names;
	push @$wrong, 'severity' if ($rule{$alert}{labels}{severity} // '') !~ /^(?:critical|warning)$/;
	push @$wrong, 'runbook' if $rule{$alert}{annotations}{runbook} ne 'docs/operating.md#' . lc $alert;
	is_deeply($wrong, [], "$alert takes what is served");
}
is_deeply((look_at('rate(evento_log_watermark_position[5m]) + evento_log_events_total + event_log_typo + up{nolabel="x"}'))[1],
	[ 'evento_log_watermark_position is a gauge, and taken as a counter', 'evento_log_events_total is a counter, and taken as a gauge', 'event_log_typo is not served', 'no metric in it has a label nolabel' ],
	'and what is not would be found');

my $text = slurp_file("${top}docs/operating.md");
is_deeply([ sort $text =~ /^### (Evento\w+)$/mg ], [ sort keys %rule ], 'docs/operating.md tells of every alert, and of no other');
unlike($text =~ s/^.*?^## Alerts\n//msr, qr/^### \w+\n\s*(?:#|\z)/m, 'with some words for each');

my $dashboard = decode_json(slurp_file("$dir/dashboard.json"));
my (@panels, @exprs, @sources, %ids);
my @todo = @{ $dashboard->{panels} };
while (my $panel = shift @todo)
{
	push @panels, $panel;
	push @todo, @{ $panel->{panels} // [] };
}
for my $panel (@panels)
{
	ok(!$ids{ $panel->{id} }++, "panel $panel->{id} has an id of its own");
	push @sources, $panel->{datasource} if $panel->{type} ne 'row';
	push @exprs, map { $_->{expr} } @{ $panel->{targets} // [] };
	push @sources, map { $_->{datasource} // {} } @{ $panel->{targets} // [] };
}
push @sources, map { $_->{datasource} } grep { $_->{type} eq 'query' } @{ $dashboard->{templating}{list} };
cmp_ok(scalar @exprs, '>=', 15, 'the dashboard has panels');
is_deeply([ grep { ($_->{uid} // '') ne '${datasource}' || ($_->{type} // '') ne 'prometheus' } @sources ], [], 'and no data source of its own');
is_deeply([ map { $_->{query} } grep { $_->{type} eq 'datasource' && $_->{name} eq 'datasource' } @{ $dashboard->{templating}{list} } ], ['prometheus'], 'but one to choose');
is($dashboard->{id}, undef, 'nor an id of a Grafana');
for my $expr (@exprs)
{
	my ($names, $wrong) = look_at($expr =~ s/\$__rate_interval/5m/gr =~ s/"\$\w+"/"x"/gr);
	ok(@$names, "names a metric: $expr");
	is_deeply($wrong, [], 'that is served');
}

# ---- when alerts fire ----

# What each series has from Prometheus and from the exporter.
sub labels_of
{
	my ($metric) = @_;
	return (instance => 'proxy1:3032', job => 'evento-proxy') if $metric =~ /^evento_proxy_/;
	return () if $metric eq 'up';
	my %at = (instance => 'exporter:9187', job => 'evento-postgres', server => 'db1:5432');
	delete $at{server} if $metric eq 'pg_up';
	$at{datname} = 'app' if $metric =~ /^evento_/ && $served{$metric}{labels}{datname};
	return %at;
}

# alert => [ time, [ times that it fires: { series, labels, summary } ], [ series with which it does not ] ].  A series is a metric, its values each 15 s, and more labels.
my $for_ever = 'x80';
my %case = (
	EventoWatermarkStuck => [ '4m', [ { series => [ [ 'evento_log_next_position', "5$for_ever" ], [ 'evento_log_watermark_position', "3$for_ever" ] ],
				summary => 'The watermark of app does not move: readers get no events behind it.' } ],
		[ [ 'evento_log_next_position', "4$for_ever" ], [ 'evento_log_watermark_position', "3$for_ever" ] ],
		[ [ 'evento_log_next_position', "500+10$for_ever" ], [ 'evento_log_watermark_position', "3+10$for_ever" ] ] ],
	EventoCommitStuck => [ '2m', [ { series => [ [ 'evento_committing_oldest_seconds', "15$for_ever" ] ], summary => 'A transaction in app has been committing appends for 15s.' } ],
		[ [ 'evento_committing_oldest_seconds', "9$for_ever" ] ], [ [ 'evento_committing_oldest_seconds', '15 0 15 0 15 0 15 0 15 0' ] ] ],
	EventoWorkerNotRunning => [ '3m', [ { series => [ [ 'evento_log_worker_running', "0$for_ever" ] ], summary => 'No worker publishes the watermark of app.' } ],
		[ [ 'evento_log_worker_running', "1$for_ever" ] ], [ [ 'evento_log_worker_running', "0x4 1$for_ever" ] ] ],
	EventoWorkerErrors => [ '11m', [ { series => [ [ 'evento_log_worker_errors_total', "0+1$for_ever" ] ], summary => 'The worker of app meets errors.' } ],
		[ [ 'evento_log_worker_errors_total', "7$for_ever" ] ], [ [ 'evento_log_worker_errors_total', "0x20 1$for_ever" ] ] ],
	EventoConflicts => [ '17m', [ { series => [ [ 'evento_log_conflicts_total', "0+30$for_ever" ], [ 'evento_log_appends_total', "0+75$for_ever" ] ],
				summary => '2 appends a second to app meet another version than they expect, more than a fifth of all.' } ],
		[ [ 'evento_log_conflicts_total', "0+30$for_ever" ], [ 'evento_log_appends_total', "0+160$for_ever" ] ],
		[ [ 'evento_log_conflicts_total', "0+10$for_ever" ], [ 'evento_log_appends_total', "0+15$for_ever" ] ] ],
	EventoIdClashes => [ '6m', [ { series => [ [ 'evento_log_id_clashes_total', "0x10 1$for_ever" ] ], summary => 'Events come to app with ids that others have.' } ],
		[ [ 'evento_log_id_clashes_total', "3$for_ever" ] ] ],
	EventoLateRollbacks => [ '12m', [ { series => [ [ 'evento_log_gaps_total', "0+30$for_ever" ] ], summary => 'Transactions in app fail while they commit, 2 events a second.' } ],
		[ [ 'evento_log_gaps_total', "0+10$for_ever" ] ] ],
	EventoPositionsNotReserved => [ '2m', [ { series => [ [ 'evento_log_next_position', "1026$for_ever" ], [ 'evento_log_reserved_position', "1024$for_ever" ] ],
				summary => 'Positions of app are taken and not reserved: appends do not commit.' } ],
		[ [ 'evento_log_next_position', "1025$for_ever" ], [ 'evento_log_reserved_position', "1024$for_ever" ] ] ],
	EventoPositionsRunOut => [ '1m', [ { series => [ [ 'evento_log_positions_used_ratio', "0.6$for_ever" ] ], summary => '60% of all positions of app are used up.' } ],
		[ [ 'evento_log_positions_used_ratio', "0.4$for_ever" ] ] ],
	EventoDoctorError => [ '2m', [ { series => [ [ 'evento_doctor_findings', "1$for_ever", severity => 'error', subject => 'worker' ] ], labels => { severity => 'critical' },
				summary => 'doctor() finds an error in app: worker.' } ],
		[ [ 'evento_doctor_findings', "2$for_ever", severity => 'warning', subject => 'worker' ] ] ],
	EventoDoctorWarning => [ '16m', [ { series => [ [ 'evento_doctor_findings', "1$for_ever", severity => 'warning', subject => 'autovacuum' ] ], summary => 'doctor() warns in app: autovacuum.' } ],
		[ [ 'evento_doctor_findings', "1$for_ever", severity => 'ok', subject => 'evento' ], [ 'evento_doctor_findings', "1$for_ever", severity => 'info', subject => 'positions' ] ] ],
	EventoConsumerLagging => [ '6m', [ { series => [ [ 'evento_consumer_lag_seconds', "90$for_ever", consumer => 'c1', kind => 'sql' ], [ 'evento_consumer_live', "1$for_ever", consumer => 'c1', kind => 'sql' ] ],
				summary => 'Consumer c1 is 1m 30s behind.' } ],
		[ [ 'evento_consumer_lag_seconds', "50$for_ever", consumer => 'c1', kind => 'sql' ], [ 'evento_consumer_live', "1$for_ever", consumer => 'c1', kind => 'sql' ] ],
		[ [ 'evento_consumer_lag_seconds', "90$for_ever", consumer => 'c1', kind => 'sql' ], [ 'evento_consumer_live', "0$for_ever", consumer => 'c1', kind => 'sql' ] ] ],
	EventoConsumerStopped => [ '6m', [ { series => [ [ 'evento_consumer_lag_events', "7$for_ever", consumer => 'c1', kind => 'bundle', bundle => 'shop' ], [ 'evento_consumer_live', "0$for_ever", consumer => 'c1', kind => 'bundle', bundle => 'shop' ] ],
				summary => 'Nobody has consumer c1, and 7 events wait for it.' } ],
		[ [ 'evento_consumer_lag_events', "7$for_ever", consumer => 'c1' ], [ 'evento_consumer_live', "1$for_ever", consumer => 'c1' ] ],
		[ [ 'evento_consumer_lag_events', "0$for_ever", consumer => 'c1' ], [ 'evento_consumer_live', "0$for_ever", consumer => 'c1' ] ] ],
	EventoConsumerFailing => [ '2m', [ { series => [ [ 'evento_consumer_failing', "1$for_ever", consumer => 'c1', bundle => 'shop' ] ], summary => 'Consumer c1 is in error or disabled, as its bundle shop says.' } ],
		[ [ 'evento_consumer_failing', "0$for_ever", consumer => 'c1', bundle => 'shop' ] ] ],
	EventoConsumerReadLostEvents => [ '1m', [ { series => [ [ 'evento_consumer_lost_range', "1$for_ever", consumer => 'c1' ] ], summary => 'Consumer c1 may have read events that are lost.' } ],
		[ [ 'evento_consumer_lost_range', "0$for_ever", consumer => 'c1' ] ] ],
	EventoDeadEvents => [ '1m', [ { series => [ [ 'evento_consumer_dead_events', "2$for_ever", consumer => 'c1' ] ], summary => 'Consumer c1 could not handle 2 events.' } ],
		[ [ 'evento_consumer_dead_events', "0$for_ever", consumer => 'c1' ] ] ],
	EventoReplicationLag => [ '3m', [ map { { series => [ [ 'evento_replication_replay_lag_seconds', "$_->[0]$for_ever", application_name => 'node2', client => '10.0.0.2' ],
						[ 'evento_replication_replay_lag_bytes', "$_->[1]$for_ever", application_name => 'node2', client => '10.0.0.2' ] ], summary => 'Standby node2 (10.0.0.2) is behind.' } } [ 12, 0 ], [ 0, 300_000_000 ], [ 12, 300_000_000 ] ],
		[ [ 'evento_replication_replay_lag_seconds', "9$for_ever", application_name => 'node2' ], [ 'evento_replication_replay_lag_bytes', "200000000$for_ever", application_name => 'node2' ] ] ],
	EventoStandbyReplayBehind => [ '3m', [ { series => [ [ 'evento_server_replay_lag_seconds', "90$for_ever" ] ], summary => 'Standby db1:5432 has WAL that it does not replay, for 1m 30s.' } ],
		[ [ 'evento_server_replay_lag_seconds', "9$for_ever" ] ] ],
	EventoStandbyCutOff => [ '2m', [ { series => [ [ 'evento_server_cut_off', "1$for_ever" ] ], summary => 'Standby db1:5432 receives no WAL.' } ],
		[ [ 'evento_server_cut_off', "0$for_ever" ] ] ],
	EventoStandbyMissing => [ '9m', [ { series => [ [ 'evento_server_standbys', "2x10 1$for_ever" ], [ 'evento_server_in_recovery', "0$for_ever" ] ], summary => 'Server db1:5432 has 1 standbys, fewer than in the last hour.' } ],
		[ [ 'evento_server_standbys', "1x10 2$for_ever" ], [ 'evento_server_in_recovery', "0$for_ever" ] ],
		[ [ 'evento_server_standbys', "2x10 0$for_ever" ], [ 'evento_server_in_recovery', "1$for_ever" ] ] ],
	EventoSynchronousStandbyMissing => [ '1m', [ { series => [ [ 'evento_server_synchronous_wanted', "1$for_ever" ], [ 'evento_server_synchronous_standbys', "0$for_ever" ] ],
				summary => 'Commits on db1:5432 wait for a synchronous standby, and there is none.' } ],
		[ [ 'evento_server_synchronous_wanted', "0$for_ever" ], [ 'evento_server_synchronous_standbys', "0$for_ever" ] ],
		[ [ 'evento_server_synchronous_wanted', "1$for_ever" ], [ 'evento_server_synchronous_standbys', "1$for_ever" ] ] ],
	EventoProxyDown => [ '2m', [ { series => [ [ 'up', "0$for_ever", job => 'evento-proxy', instance => 'proxy1:3032' ] ], summary => 'Proxy proxy1:3032 does not answer.' } ],
		[ [ 'up', "1$for_ever", job => 'evento-proxy', instance => 'proxy1:3032' ], [ 'up', "0$for_ever", job => 'other', instance => 'proxy1:3032' ] ] ],
	EventoProxiesMissing => [ '2m', [ { series => [ [ 'evento_cluster_missing_proxies', "1$for_ever" ] ], summary => '1 proxies of app ended without leaving, and have not come back.' } ],
		[ [ 'evento_cluster_missing_proxies', "0$for_ever" ] ] ],
	EventoProxyDatabaseAway => [ '1m', [ { series => [ [ 'evento_proxy_db_up', "0$for_ever" ] ], summary => 'Proxy proxy1:3032 does not reach the database.' } ],
		[ [ 'evento_proxy_db_up', "1$for_ever" ] ], [ [ 'evento_proxy_db_up', '0 1 0 1 0 1 0 1 0' ] ] ],
	EventoProxyQueueFilling => [ '2m', [ map { { series => [ [ "evento_proxy_queue_$_", "90$for_ever", queue => 'appends' ], [ "evento_proxy_queue_limit_$_", "100$for_ever", queue => 'appends' ] ],
				summary => 'Queue appends of proxy proxy1:3032 is nearly full.' } } 'items', 'bytes' ],
		[ [ 'evento_proxy_queue_items', "70$for_ever", queue => 'appends' ], [ 'evento_proxy_queue_limit_items', "100$for_ever", queue => 'appends' ],
			[ 'evento_proxy_queue_bytes', "90$for_ever", queue => 'appends' ], [ 'evento_proxy_queue_limit_bytes', "200$for_ever", queue => 'appends' ] ] ],
	EventoRequestsFailing => [ '7m', [ map { { series => [ [ 'evento_proxy_requests_finished_total', "0+15$for_ever", kind => 'query', outcome => $_ ], [ 'evento_proxy_requests_finished_total', "0+150$for_ever", kind => 'query', outcome => 'answered' ] ],
				labels => { kind => undef, outcome => undef }, summary => '1 requests a second at proxy proxy1:3032 are refused or not answered in time, more than 5 % of all.' } } 'timeout', 'refused' ],
		[ [ 'evento_proxy_requests_finished_total', "0+15$for_ever", kind => 'query', outcome => 'timeout' ], [ 'evento_proxy_requests_finished_total', "0+600$for_ever", kind => 'aggregate', outcome => 'answered' ] ],
		[ [ 'evento_proxy_requests_finished_total', "0+150$for_ever", kind => 'query', outcome => 'failed' ], [ 'evento_proxy_requests_finished_total', "0$for_ever", kind => 'query', outcome => 'timeout' ] ] ],
	EventoStandbysNotRead => [ '6m', [ { series => [ [ 'evento_proxy_standbys', "2x10 0$for_ever" ] ], summary => 'Proxy proxy1:3032 reads from no standby any more, and puts all reads on the primary.' } ],
		[ [ 'evento_proxy_standbys', "0$for_ever" ] ], [ [ 'evento_proxy_standbys', "2x10 1$for_ever" ] ], [ [ 'evento_proxy_standbys', '2 0 0 0 2 0 0 0 2 0 0 0 2 0 0 0 2 0 0 0 2' ] ] ],
	EventoStandbyReadsMissed => [ '11m', [ { series => [ [ 'evento_proxy_standby_missed_total', "0+45$for_ever" ], [ 'evento_proxy_standby_reads_total', "0+30$for_ever" ] ],
				summary => 'Proxy proxy1:3032 sends 3 reads a second to the primary that are for standbys, more than half of them.' } ],
		[ [ 'evento_proxy_standby_missed_total', "0+30$for_ever" ], [ 'evento_proxy_standby_reads_total', "0+45$for_ever" ] ],
		[ [ 'evento_proxy_standby_missed_total', "0+6$for_ever" ], [ 'evento_proxy_standby_reads_total', "0$for_ever" ] ] ],
	EventoCertificateEnds => [ '1m', [ { series => [ [ 'evento_proxy_certificate_end_timestamp_seconds', 10 * 86400 . $for_ever ] ], summary => 'The certificate of proxy proxy1:3032 ends in 9d 23h 59m 0s.' } ],
		[ [ 'evento_proxy_certificate_end_timestamp_seconds', 20 * 86400 . $for_ever ] ] ],
	EventoDatabaseDown => [ '1m', [ { series => [ [ 'pg_up', "0$for_ever" ] ], summary => 'Exporter exporter:9187 does not reach its PostgreSQL.' } ],
		[ [ 'pg_up', "1$for_ever" ] ] ],
	EventoUnwatched => [ '3m', [ { series => [ [ 'up', "1$for_ever", job => 'evento-postgres', instance => 'exporter:9187' ] ], summary => 'Exporter exporter:9187 gives nothing of evento: the other alerts are blind.' },
			{ series => [ [ 'up', "1$for_ever", job => 'other' ] ], labels => { job => 'evento-postgres' }, summary => 'Exporter  gives nothing of evento: the other alerts are blind.' } ],
		[ [ 'up', "1$for_ever", job => 'evento-postgres', instance => 'exporter:9187' ], [ 'evento_log_watermark_position', "3$for_ever" ] ] ],
);
is_deeply([ sort keys %case ], [ sort keys %rule ], 'every alert is tested, firing and not');
is_deeply([ grep { @{ $case{$_} } < 3 } sort keys %case ], [], 'each both ways');

sub seconds { my ($t) = @_; return $t =~ /^(\d+)m$/ ? $1 * 60 : $t =~ /^(\d+)s$/ ? $1 : die $t }

sub input
{
	my ($series) = @_;
	my @input;
	for (@$series)
	{
		my ($metric, $values, %more) = @$_;
		fail("a case has $metric, which is not served") if !$served{$metric};
		my %all = (labels_of($metric), %more);
		push @input, { series => "$metric\{" . join(',', map { qq($_="$all{$_}") } sort keys %all) . '}', values => $values };
	}
	return \@input;
}

sub rule_test
{
	my ($alert, $series, @expect) = @_;
	return { interval => '15s', input_series => input($series), alert_rule_test => [ map { { eval_time => $_->[0], alertname => $alert, exp_alerts => $_->[1] } } @expect ] };
}

my @tests;
for my $alert (sort keys %case)
{
	my ($at, $fires, @quiet) = @{ $case{$alert} };
	my $rule = $rule{$alert};
	for my $case (@$fires)
	{
		my ($metric, undef, %more) = @{ $case->{series}[0] };
		my %labels = (labels_of($metric), %more, severity => $rule->{labels}{severity}, %{ $case->{labels} // {} });
		delete $labels{$_} for grep { !defined $labels{$_} } keys %labels;
		my $firing = [ { exp_labels => \%labels, exp_annotations => { summary => $case->{summary}, runbook => $rule->{annotations}{runbook} } } ];
		push @tests, rule_test($alert, $case->{series}, ($rule->{for} ? [ seconds($rule->{for}) - 15 . 's', [] ] : ()), [ $at, $firing ]);
	}
	push @tests, rule_test($alert, $_, [ $at, [] ]) for @quiet;
}

my $promtool = in_path('promtool');
SKIP:
{
	skip 'no promtool (Debian: prometheus)', 3 if !$promtool;
	($ok, $said) = run_quietly($promtool, 'check', 'rules', "$dir/alerts.yml");
	ok($ok, 'promtool takes the rules') or diag($said);
	($ok, $said) = run_quietly($promtool, 'check', 'config', "$dir/prometheus.yml");
	ok($ok, 'and the configuration') or diag($said);
	my $file = PostgreSQL::Test::Utils::tempdir_short() . '/alerts_test.json';
	my $rules = $dir =~ m{^/} ? "$dir/alerts.yml" : Cwd::getcwd() . "/$dir/alerts.yml";
	PostgreSQL::Test::Utils::append_to_file($file, JSON::PP->new->canonical->pretty->encode({ rule_files => [$rules], evaluation_interval => '15s', tests => \@tests }));
	($ok, $said) = run_quietly($promtool, 'test', 'rules', $file);
	ok($ok, 'every alert fires when it should, and only then') or diag($said);
}

# ---- the exporter itself ----

my $exporter = in_path('prometheus-postgres-exporter') // in_path('postgres_exporter');
SKIP:
{
	skip 'no postgres_exporter (Debian: prometheus-postgres-exporter)', 1 if !$exporter;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $pid = fork // die $!;
	if (!$pid)
	{
		open(STDOUT, '>', "$PostgreSQL::Test::Utils::log_path/exporter.log") or POSIX::_exit(127);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
		$ENV{DATA_SOURCE_NAME} = 'host=' . $primary->host . ' port=' . $primary->port . ' user=monitor dbname=postgres sslmode=disable';
		exec { $exporter } $exporter, "--web.listen-address=127.0.0.1:$port", "--extend.query-path=$dir/queries.yml" or POSIX::_exit(127);
	}
	Evento::ProxyTest::started($pid);
	my $page = bless { http => $port, flags => {} }, 'Evento::ProxyTest::Proxy';
	my @missing;
	$proxy->wait_for(sub {
		my $metrics = ($page->get('/metrics'))[1];
		my %type = $metrics =~ /^# TYPE (\S+) (\S+)$/mg;
		@missing = grep { ($type{$_} // '') ne $served{$_}{type} } grep { !/^(?:up$|evento_proxy_|process_)/ } sort keys %served;
		return !@missing }, 60);
	is_deeply(\@missing, [], 'the exporter gives all of them') or diag(slurp_file("$PostgreSQL::Test::Utils::log_path/exporter.log"));
	kill 'TERM', $pid;
	waitpid $pid, 0;
	Evento::ProxyTest::ended($pid);
}

is($proxy->stop, 0, 'the proxy ends');
done_testing();
