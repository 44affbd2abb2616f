# Evento::Compose
#   One of docker/'s compose files, up under a project name of its own, for tests:
#   starts it, waits until it is healthy, asks it over HTTP and in SQL, kills
#   parts of it, and takes it down.
package Evento::Compose;

use strict;
use warnings;

use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Layers;
use Evento::Simulator;

my @made;

# top: the checkout; file: the compose file below docker/, more: those behind it;
# project: its name.
sub new
{
	my ($class, %opt) = @_;
	my $self = bless { %opt, compose => [ split ' ', $ENV{COMPOSE} // 'docker-compose' ], http => HTTP::Tiny->new(timeout => 15, keep_alive => 0), made => $$ }, $class;
	push @made, $self;
	return $self;
}

# Runs a command; gives its status, what it printed and what it complained of.
sub command
{
	my ($self, @command) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(540));
	chomp($out, $err);
	return ($ok ? 0 : $? || 1, $out, $err);
}

# The same for one that must not fail; gives what it printed.
sub must
{
	my ($self, @command) = @_;
	my ($status, $out, $err) = $self->command(@command);
	die "@command: $out\n$err\n" if $status != 0;
	return $out;
}

# How every command of compose begins.
sub begins
{
	my ($self) = @_;
	return (@{ $self->{compose} }, '-p', $self->{project}, map { ('-f', "$self->{top}/docker/$_") } $self->{file}, @{ $self->{more} // [] });
}

sub compose
{
	my ($self, @args) = @_;
	return $self->must($self->begins, @args);
}

sub up
{
	my ($self) = @_;
	my $out = eval { $self->compose('up', '-d', '--no-build') };
	return $out if defined $out;
	my $error = $@;
	$self->tell_why($_) for grep { $self->health($_) ne 'healthy' } $self->services;
	die $error;
}

# Says why a service is not healthy.
sub tell_why
{
	my ($self, $service) = @_;
	return diag("$service is not there") if !$self->container($service);
	my $state = $self->inspect($service)->{State};
	diag("$service is $state->{Status}, exit code $state->{ExitCode}");
	diag(map { "health: exit code $_->{ExitCode}, from $_->{Start} to $_->{End}: $_->{Output}\n" } @{ $state->{Health}{Log} // [] });
	diag(join "\n", ($self->command('docker', 'logs', '--tail', '20', $self->container($service)))[ 1, 2 ]);
	return;
}

# The services that stay up.
sub services
{
	my ($self) = @_;
	return grep { $_ ne 'secrets' } sort split /\n/, $self->compose('config', '--services');
}

sub container
{
	my ($self, $service) = @_;
	return $self->{ids}{$service} ||= $self->compose('ps', '-a', '-q', $service) =~ s/\n.*//sr;
}

# Containers that were made anew have other ids.
sub forget { %{ $_[0]->{ids} } = (); return }

# What docker inspect knows of a service's container.
sub inspect
{
	my ($self, $service) = @_;
	return decode_json($self->must('docker', 'inspect', $self->container($service)))->[0];
}

sub health
{
	my ($self, $service) = @_;
	return 'not there' if !$self->container($service);
	my $state = $self->inspect($service)->{State};
	return $state->{Status} eq 'running' ? $state->{Health}{Status} // 'none' : $state->{Status};
}

# Waits until all of these services, or of all, are healthy.
sub wait_healthy
{
	my ($self, $what, @services) = @_;
	@services = $self->services if !@services;
	my $until = time + 240;
	my %is;
	do
	{
		%is = map { ($_ => $self->health($_)) } @services;
		if (!grep { $_ ne 'healthy' } values %is)
		{
			pass($what);
			return 1;
		}
		sleep 0.5;
	} while (time < $until);
	fail($what);
	$self->tell_why($_) for grep { $is{$_} ne 'healthy' } @services;
	return 0;
}

# Waits until the code gives something true, and gives it; undef after the time.
sub until_true
{
	my ($seconds, $code) = @_;
	my $until = time + $seconds;
	while (1)
	{
		my $got = $code->();
		return $got if $got;
		return if time > $until;
		sleep 0.2;
	}
}

sub kill_container
{
	my ($self, $service) = @_;
	return $self->must('docker', 'kill', $self->container($service));
}

sub start_container
{
	my ($self, $service) = @_;
	return $self->must('docker', 'start', $self->container($service));
}

# Runs a command in a service's container, as its user.
sub execute
{
	my ($self, $service, @command) = @_;
	return $self->command('docker', 'exec', $self->container($service), @command);
}

# SQL at one of the servers, as its superuser; what it prints, undef where it fails.
sub sql
{
	my ($self, $service, $sql) = @_;
	my ($status, $out, $err) = $self->execute($service, 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', 'app', '-c', $sql);
	note($err) if $status != 0;
	return $status == 0 ? $out : undef;
}

# SQL through HAProxy, at one of its ports, as the proxies' user, whose password the
# server has that it is asked from.
sub balanced_sql
{
	my ($self, $from, $port, $sql) = @_;
	return ($self->execute($from, 'sh', '-c', 'PGPASSWORD=$(cat /run/secrets/proxy_password) exec psql -XqAt -h haproxy -p "$1" -U app_proxy -d app -c "$2"', 'sh', $port, $sql))[1];
}

# Makes a token for events over HTTP, at the primary, asked at one of the servers; from
# then on requests have it.
sub make_token
{
	my ($self, $server) = @_;
	$self->{token} = ($self->execute($server, 'evento-psql', '-XqAt', '-c', q{SELECT evento.create_bundle_token('test', http => 'write')}))[1];
	return like($self->{token}, qr/^evt_/, "a token is made at the primary, asked from $server");
}

# Tests that services do not give passwords, by name, away: neither a file of a layer
# of their image nor a variable, an argument or the log of their container; and that
# no layer has a private key, which would be that of everybody who has the image.
sub keeps_secret
{
	my ($self, $passwords, @services) = @_;
	for my $service (@services)
	{
		my ($image, $container) = ($self->inspect($service)->{Image}, $self->container($service));
		my $known = join "\n", map { ($self->command('docker', @$_))[ 1, 2 ] }[ 'history', '--no-trunc', $image ], [ 'inspect', $image ], [ 'inspect', $container ], [ 'logs', $container ];
		like($known, qr/\bCREATED BY\b.*"Config":.*"HostConfig":/s, "$service: its layers, image and container are known");
		is(join(' ', grep { index($known, $passwords->{$_}) >= 0 } sort keys %$passwords), '', "$service: no layer, variable, argument or log has a password");
		$self->{looked_at}{$image} //= do { $self->layers_keep_secret($image, $passwords, $service); 1 };
	}
	return;
}

# The same of the files in an image's layers.
sub layers_keep_secret
{
	my ($self, $image, $passwords, $what) = @_;
	my @found;
	my $files = Evento::Layers::each_file($image, sub {
		my ($name, $content) = @_;
		push @found, map { "$_ in $name" } grep { index($content, $passwords->{$_}) >= 0 } sort keys %$passwords;
		# Libraries of TLS have keys to test themselves with.
		push @found, "a private key: $name" if index($content, "\x7fELF") != 0 && $content =~ m{^-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n(?:[\w-]+: .*\n)*\s*[A-Za-z0-9+/=]{40}}m;
	});
	cmp_ok($files, '>', 1000, "$what: the files of its layers are read");
	return is(join("\n", @found), '', "$what: none of them has a password or a private key");
}

# ---- bundles ----

# Starts a simulator at the balancer's port for bundles; callers have commands under
# way for so many ms.
sub simulate
{
	my ($self, $run, $timeout) = @_;
	my $sim = Evento::Simulator->start(program => $ENV{EVENTO_SIM} // "$self->{top}/build/evento-sim", at => '127.0.0.1:3030', run => $run,
		options => [qw(--handlers 2 --callers 12 --connections 6 --consumers 2 --rate 40 --timeout), $timeout ]);
	ok($sim, 'bundles come in through HAProxy, and their commands are answered') or die "no bundles\n";
	return $sim;
}

# Ends it, and tests it against the log that a server has.
sub end_simulation
{
	my ($self, $sim, $service, $what) = @_;
	$sim->finish($what);
	$self->sql($service, 'CALL evento.wait(NULL)');
	my $stored = $self->sql($service, qq{SELECT data->>'orderId', data->>'revision', data->>'amount' FROM evento.events WHERE data->>'orderId' LIKE '$sim->{run}-%' ORDER BY position});
	return $sim->check($what, $stored // '');
}

# ---- over HTTP, at a port that is published ----

sub request
{
	my ($self, $method, $port, $path, %opt) = @_;
	my %headers = %{ $opt{headers} // {} };
	$headers{Authorization} = "Bearer $self->{token}" if $self->{token};
	$headers{'Content-Type'} = 'application/json' if defined $opt{content};
	my $response = $self->{http}->request($method, "http://127.0.0.1:$port$path", { headers => \%headers, defined $opt{content} ? (content => $opt{content}) : () });
	$response->{json} = eval { decode_json($response->{content}) };
	return $response;
}

# The same until it is answered well, two minutes at most: a proxy may just have lost its database for a moment on a busy machine.
sub request_surely
{
	my ($self, @request) = @_;
	my $answer;
	until_true(120, sub { $answer = $self->request(@request); $answer->{success} });
	return $answer;
}

# Appends an event with this id, which may be given again.
sub append
{
	my ($self, $port, $stream, $id, $data) = @_;
	return $self->request('POST', $port, "/streams/$stream", headers => { 'Evento-Event-Id' => $id }, content => encode_json({ type => 'Counted', data => $data }));
}

# The members that are live, as a proxy shows them.
sub live_members
{
	my ($self, $port) = @_;
	my $cluster = $self->request('GET', $port, '/cluster')->{json} or return '';
	return join ' ', sort map { $_->{name} } grep { $_->{live} } @{ $cluster->{proxies} };
}

# Appends it again, with its id, until it is acknowledged: where a proxy or the
# database has just gone it may have been stored all the same.  Gives the answer,
# undef where there is none within two minutes.
sub append_surely
{
	my ($self, @event) = @_;
	return until_true(120, sub { my $answer = $self->append(@event); $answer->{success} ? $answer : undef });
}

# Tests that a proxy comes to show these members as live, and no other.
sub shows_live
{
	my ($self, $port, $members, $what) = @_;
	my $live = '';
	until_true(120, sub { ($live = $self->live_members($port)) eq "@$members" });
	return is($live, "@$members", $what);
}

# Tests that each proxy, given by name with its port, reads a stream, which has one
# event with this id, and shows all of them as live.
sub each_serves
{
	my ($self, $stream, $id, %port) = @_;
	for my $proxy (sort keys %port)
	{
		my $read = $self->request_surely('GET', $port{$proxy}, "/streams/$stream", headers => { 'Evento-Stream-Version' => 1 })->{json};
		is($read->{events}[0]{id}, $id, "$proxy: what was appended is read at its own port");
		$self->shows_live($port{$proxy}, [ sort keys %port ], "$proxy: /cluster shows all of them");
	}
	return;
}

sub slurp
{
	my ($file) = @_;
	local $/;
	open(my $fh, '<:encoding(UTF-8)', $file) or die "$file: $!\n";
	return scalar <$fh>;
}

# ---- the end ----

# Takes all of it down; gives what is left of it: containers, volumes, networks.
sub down
{
	my ($self) = @_;
	$self->compose('down', '-v', '--remove-orphans');
	$self->{is_down} = 1;
	my $label = "label=com.docker.compose.project=$self->{project}";
	return join ' ', grep { $_ ne '' } map { split /\n/, $self->must('docker', @$_, '--filter', $label, '-q') }[ 'ps', '-a' ], [ 'volume', 'ls' ], [ 'network', 'ls' ];
}

# What a test that died left up.
END
{
	my $status = $?;
	for my $left (grep { !$_->{is_down} && $_->{made} == $$ } @made)
	{
		$left->command($left->begins, 'down', '-v', '-t', '1');
	}
	$? = $status;
}

1;
