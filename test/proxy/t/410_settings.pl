# 410_settings.pl
#   The environment between flags and file, SIGHUP, the log as JSON, and what
#   the service manager is told.
use strict;
use warnings;

use IO::Socket::UNIX;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Socket qw(SOCK_DGRAM);
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Bundle;
use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $ini = "$PostgreSQL::Test::Utils::tmp_check/proxy.ini";

sub write_ini
{
	my ($text) = @_;
	open(my $fh, '>', $ini) or die "$ini: $!";
	print $fh $text;
	close $fh or die "$ini: $!";
	return;
}

# ---- the environment ----

{
	local $ENV{EVENTO_PROXY_MAX_NAMES} = 'many';
	my ($status, $out, $err) = Evento::ProxyTest::run_program();
	is($status, 1, 'a bad variable ends it');
	is($err, qq(evento-proxy: EVENTO_PROXY_MAX_NAMES must be a whole number, not "many"\n), 'and the error names the variable');
}
write_ini("name = of-the-file\nlog-level = warning\nmax-names = 7\n");
{
	local $ENV{EVENTO_PROXY_CONFIG} = $ini;
	local $ENV{EVENTO_PROXY_NAME} = 'of-the-environment';
	local $ENV{EVENTO_PROXY_MAX_REQUESTS} = '';
	my $proxy = $test->start(flags => { 'log-level' => 'info', name => 'of-the-flag' });
	is($test->sql('SELECT name FROM evento.proxies'), 'of-the-flag', 'a flag wins over a variable');
	is($proxy->stop, 0, 'it ends');
}

# ---- SIGHUP ----

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $manager = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => "$dir/notify") or die "$dir/notify: $!";

# What the manager has been told, as one text a message.
my @told;

sub told
{
	my ($pattern, $seconds) = @_;
	my $until = time + ($seconds // 60);
	while (time < $until)
	{
		for my $i (0 .. $#told)
		{
			return splice @told, 0, $i + 1 if $told[$i] =~ $pattern;
		}
		my $rin = '';
		vec($rin, fileno $manager, 1) = 1;
		if (select($rin, undef, undef, 0.1))
		{
			recv($manager, my $text, 4096, 0);
			push @told, $text;
		}
	}
	return;
}

{
	local $ENV{EVENTO_PROXY_CONFIG} = $ini;
	local $ENV{NOTIFY_SOCKET} = "$dir/notify";
	# Rarely: nobody but a test lets what it is told lie, and there is not room for much.
	local $ENV{WATCHDOG_USEC} = 4_000_000;
	write_ini("log-level = info\nmax-names = 2\nfeed-bytes = 16MB\nlog-format = text\n");
	# The file decides on the level.
	my $proxy = $test->start(flags => { 'log-level' => undef });
	ok(told(qr/^READY=1$/m), 'the service manager is told that it is ready');
	ok(told(qr/^WATCHDOG=1$/m), 'and that it lives');
	ok(told(qr/^WATCHDOG=1$/m), 'again and again');
	my $bundle = $proxy->connection;
	$bundle->hello(bundle => 'b', instance => 'i');
	ok($bundle->recv('WLC'), 'a bundle');
	$bundle->register('A', 'B', 'C');
	ok($bundle->wait_closed, 'with more names than max-names allows is closed');

	write_ini("log-level = debug\nmax-names = 3\nfeed-bytes = 32MB\nlog-format = json\nname = another\n");
	kill 'HUP', $proxy->{pid};
	ok($proxy->wait_log(qr/info main: max-names has changed/), 'SIGHUP: max-names has changed');
	ok($proxy->wait_log(qr/warning main: feed-bytes has changed and needs a restart/), 'what cannot change says so');
	ok(!(grep { /name has changed/ } split /\n/, $proxy->log), 'a flag still wins over the file');
	my @steps = grep { $_ ne 'WATCHDOG=1' } told(qr/^READY=1$/m);
	like($steps[0], qr/^RELOADING=1\nMONOTONIC_USEC=\d+$/m, 'the manager is told that it reloads') or diag(explain \@steps);
	ok(@steps > 1, 'and that it is done');
	$bundle = $proxy->connection;
	$bundle->hello(bundle => 'b', instance => "quote\"back\\slash\x{1}");
	$bundle->recv('WLC');
	$bundle->register('A', 'B', 'C');
	ok($bundle->alive, 'the new bound is in force');
	$bundle->close;
	ok($proxy->wait_log(qr/^\{.*closed by the peer/), 'the log is JSON now');
	my @lines = map { decode_json($_) } grep { /^\{/ } split /\n/, $proxy->log;
	ok(@lines > 2, 'an object a line');
	my ($closed) = grep { $_->{message} =~ /closed by the peer/ } @lines;
	is_deeply([ sort keys %$closed ], [ 'level', 'message', 'module', 'peer', 'time' ], 'with its fields');
	like($closed->{peer}, qr/ b\/quote"back\\slash\x{1}$/, 'and what a peer has put into it is in it');
	is($closed->{module}, 'session', 'of its module');
	like($closed->{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'and time');

	write_ini("max-names = none\n");
	kill 'HUP', $proxy->{pid};
	ok($proxy->wait_log(qr/"level":"error".*the settings stay as they were: .*proxy\.ini line 1/), 'a file with a mistake changes nothing');
	ok(told(qr/^READY=1$/m), 'and it goes on');
	is($proxy->stop, 0, 'it ends');
	ok(told(qr/^STOPPING=1$/m), 'and tells that it stops');
}

# ---- the unit ----

SKIP:
{
	my ($analyze) = grep { -x } map { "$_/systemd-analyze" } split /:/, $ENV{PATH};
	skip 'no systemd-analyze', 1 if !$analyze;
	my $unit = slurp_file(__FILE__ =~ s{test/proxy/t/[^/]+$}{proxy/evento-proxy.service}r);
	my $program = Evento::ProxyTest::program();
	$unit =~ s{^ExecStart=\S+}{ExecStart=$program}m;
	append_to_file("$dir/evento-proxy.service", $unit);
	my ($out, $err) = ('', '');
	IPC::Run::run([ $analyze, 'verify', '--man=no', "$dir/evento-proxy.service" ], '>', \$out, '2>', \$err);
	# Units of the machine itself may have something to be said against them.
	is(join("\n", grep { /evento-proxy/ } split /\n/, $out . $err), '', 'systemd finds nothing to say against the unit');
}

done_testing();
