# Evento::Patroni
#   A PostgreSQL that fails over: nodes under Patroni, and etcd, as processes of
#   the test's own, at ports of their own or at addresses of their own.  All nodes
#   have in common what docker/postgres/patroni.yaml gives them.
package Evento::Patroni;

use strict;
use warnings;

use Carp qw(croak);
use Evento::Deaf;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP qw(decode_json);
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);
use Time::Local qw(timegm);

my %running;    # pids of etcd and of Patroni
my @clusters;

# How Patroni speaks to etcd.  Before 3.0.3, with the API of version 3, a primary that comes back from the wrong side of a
# partition and has seen nothing of its end takes the lead from whoever has it by then, and what that one has acknowledged
# is lost; with the older API it asks whether the lead is still its own.
{
	my $api;

	sub api
	{
		return $api if $api;
		my @version = `patroni --version` =~ /(\d+)\.(\d+)\.(\d+)/;
		return $api = sprintf('%03d%03d%03d', @version) lt '003000003' ? 'etcd' : 'etcd3';
	}
}

# Why it cannot be had on this machine; undef where it can.
sub why_not
{
	for my $program (qw(patroni patronictl etcd))
	{
		return "no $program here" if !grep { -x "$_/$program" } split /:/, $ENV{PATH};
	}
	return;
}

# nodes: how many; ttl, loop_wait, retry_timeout, synchronous_mode, synchronous_mode_strict, failsafe_mode: instead of what
# docker/postgres/patroni.yaml has.
# places: for each node where it is: address, within (a command before the node's programs that has them run there), data, bin;
# etcds: how many, the first at the first node; network: from where all of them are reached; parameters: lines for PostgreSQL.
sub new
{
	my ($class, %opt) = @_;
	my @places = @{ delete $opt{places} // [] };
	my $nodes = delete $opt{nodes} // 3;
	my $etcds = delete $opt{etcds} // 1;
	my $dir = PostgreSQL::Test::Utils::tempdir('patroni');
	my $self = bless { dir => $dir, logs => $PostgreSQL::Test::Utils::log_path, nodes => {}, network => delete $opt{network} // '127.0.0.1/32',
		parameters => delete $opt{parameters} // '' }, $class;
	$self->{dcs} = in_common(%opt);
	push @clusters, $self;
	for my $n (1 .. $nodes)
	{
		my %node = (name => "pg$n", address => '127.0.0.1', within => [], data => "$dir/pg$n", bin => $ENV{EVENTO_BINDIR}, %{ $places[ $n - 1 ] // {} });
		@node{qw(port rest client peer)} = map { port() } 1 .. 4;
		$self->{nodes}{"pg$n"} = \%node;
	}
	$self->{etcds} = [ ($self->names)[ 0 .. $etcds - 1 ] ];
	$self->start_etcd($_) for @{ $self->{etcds} };
	for my $name (@{ $self->{etcds} })
	{
		my $url = "http://$self->{nodes}{$name}{address}:$self->{nodes}{$name}{client}/health";
		until_true(60, sub { HTTP::Tiny->new(timeout => 2)->get($url)->{success} }) or croak 'etcd does not start: ' . $self->log("etcd-$name");
	}
	$self->configure($_) for $self->names;
	return $self;
}

# Starts the etcd of a node, again with what it had.
sub start_etcd
{
	my ($self, $name) = @_;
	my $node = $self->{nodes}{$name};
	my ($client, $peer) = map { "http://$node->{address}:$node->{$_}" } qw(client peer);
	my $all = join ',', map { "$_=http://$self->{nodes}{$_}{address}:$self->{nodes}{$_}{peer}" } @{ $self->{etcds} };
	# Slower than by default: all of them share a machine that may be busy.  One that comes back does not unseat the leader.
	my @pace = @{ $self->{etcds} } > 1 ? qw(--heartbeat-interval 250 --election-timeout 2000 --pre-vote) : ();
	return $self->{nodes}{$name}{etcd} = $self->spawn("etcd-$name", {}, @{ $node->{within} }, 'etcd', '--name', $name, '--data-dir', "$self->{dir}/etcd-$name",
		'--listen-client-urls', $client, '--advertise-client-urls', $client, '--listen-peer-urls', $peer, '--initial-advertise-peer-urls', $peer,
		'--initial-cluster', $all, @pace, (api() eq 'etcd' ? '--enable-v2' : ()));
}

sub port { return PostgreSQL::Test::Cluster::get_free_port() }

sub names { return sort keys %{ $_[0]{nodes} } }

# What docker/postgres/patroni.yaml says that all nodes have in common (bootstrap, dcs), with other values for some of it.
sub in_common
{
	my (%other) = @_;
	my $file = __FILE__ =~ s{test/lib/Evento/Patroni\.pm$}{docker/postgres/patroni.yaml}r;
	my ($text) = PostgreSQL::Test::Utils::slurp_file($file) =~ /^  dcs:\n(.*?)^  \w/ms or croak "$file has nothing that nodes have in common";
	for my $key (sort keys %other)
	{
		$text =~ s/^    $key: \K.*/$other{$key}/m or croak "$file has no $key";
	}
	return $text;
}

sub configure
{
	my ($self, $name) = @_;
	my $node = $self->{nodes}{$name};
	my $etcd = join ',', map { "$self->{nodes}{$_}{address}:$self->{nodes}{$_}{client}" } @{ $self->{etcds} };
	my $text = <<"YAML";
scope: evento
name: $name
@{[api()]}:
  hosts: $etcd
restapi:
  listen: $node->{address}:$node->{rest}
  connect_address: $node->{address}:$node->{rest}
bootstrap:
  dcs:
$self->{dcs}  initdb:
    - encoding: UTF8
    - locale: C
    - auth: trust
    - no-sync
    - data-checksums
postgresql:
  listen: $node->{address}:$node->{port}
  connect_address: $node->{address}:$node->{port}
  data_dir: $node->{data}
  bin_dir: $node->{bin}
  pgpass: $self->{dir}/$name.pgpass
  authentication:
    superuser: {username: postgres}
    replication: {username: replicator}
  parameters:
    unix_socket_directories: ""
    shared_buffers: 32MB
    fsync: "off"
    log_line_prefix: "%m [%p] "
    log_timezone: UTC
    timezone: UTC
    logging_collector: "off"
$self->{parameters}  pg_hba:
    - host replication all $self->{network} trust
    - host all all $self->{network} trust
  basebackup:
    checkpoint: fast
YAML
	open(my $fh, '>', "$self->{dir}/$name.yml") or croak "$name.yml: $!";
	print $fh $text;
	close $fh or croak "$name.yml: $!";
	return;
}

# Starts a program whose output goes to a log.
sub spawn
{
	my ($self, $name, $env, @command) = @_;
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		open(STDIN, '<', '/dev/null') or POSIX::_exit(127);
		open(STDOUT, '>>', "$self->{logs}/$name.log") or POSIX::_exit(127);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(127);
		# Nothing of the tests' own PostgreSQL is for these.
		delete @ENV{ grep { /^PG/ && $_ ne 'PG_CONFIG' } keys %ENV };
		@ENV{ keys %$env } = values %$env;
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	$running{$pid} = $name;
	return $pid;
}

sub log { my ($self, $name) = @_; return PostgreSQL::Test::Utils::slurp_file("$self->{logs}/$name.log") }

# Starts a node's Patroni, which starts its PostgreSQL; gives its pid.
sub start
{
	my ($self, $name) = @_;
	return $self->{nodes}{$name}{patroni} = $self->spawn($name, { LC_ALL => 'C', HOME => $self->{dir} }, @{ $self->{nodes}{$name}{within} }, 'patroni', "$self->{dir}/$name.yml");
}

# All nodes, the first as the primary, with a synchronous standby where there is to be one; true when they are there.
sub start_all
{
	my ($self, $seconds) = @_;
	my ($first, @others) = $self->names;
	my $patroni = $self->start($first);
	my $ended = 0;
	until_true($seconds, sub { $ended = waitpid($patroni, WNOHANG) != 0; $ended || ($self->primary // '') eq $first }) && !$ended or return 0;
	$self->start($_) for @others;
	return until_true($seconds, sub { $self->whole });
}

# What a node's Patroni answers, {} where it does not.
sub ask
{
	my ($self, $name, $what) = @_;
	my $answer = HTTP::Tiny->new(timeout => 2)->get("http://$self->{nodes}{$name}{address}:$self->{nodes}{$name}{rest}/$what");
	return eval { decode_json($answer->{content}) } // {};
}

sub state { my ($self, $name) = @_; return $self->ask($name, 'patroni') }

# The node whose Patroni says that it has the lead.
sub primary
{
	my ($self) = @_;
	for my $name ($self->names)
	{
		my $state = $self->state($name);
		return $name if ($state->{role} // '') =~ /^(?:master|primary)$/ && ($state->{state} // '') eq 'running';
	}
	return;
}

# The same, waited for: one that is busy may not answer at once.
sub some_primary { my ($self) = @_; return until_true(60, sub { $self->primary }) || croak 'there is no primary' }

# The synchronous standby, as Patroni sees it.
sub synchronous
{
	my ($self) = @_;
	my $primary = $self->primary // return;
	return (map { $_->{name} } grep { $_->{role} eq 'sync_standby' } @{ $self->ask($primary, 'cluster')->{members} // [] })[0];
}

# Whether there is a primary and every other node follows it, one of them as what Patroni takes for a synchronous standby.
sub whole
{
	my ($self) = @_;
	my $primary = $self->primary // return 0;
	my $streaming = grep { $_->{state} eq 'streaming' } @{ $self->state($primary)->{replication} // [] };
	my $synchronous = grep { $_->{role} eq 'sync_standby' } @{ $self->ask($primary, 'cluster')->{members} // [] };
	return $streaming == keys(%{ $self->{nodes} }) - 1 && $synchronous == ($self->{dcs} =~ /^    synchronous_mode: true$/m);
}

# Waits until code gives true; false where it does not in time.
sub until_true
{
	my ($seconds, $code) = @_;
	my $until = time + $seconds;
	while (1)
	{
		my $value = $code->();
		return $value if $value;
		return 0 if time > $until;
		sleep 0.1;
	}
}

# What code gives, but called once in so many seconds at most; between, false.
{
	my $next = 0;

	sub every
	{
		my ($seconds, $code) = @_;
		return 0 if time < $next;
		my $value = $code->();
		$next = time + $seconds;
		return $value;
	}
}

# For the proxies: all nodes, each finds the one that takes writes.
sub hosts
{
	my ($self) = @_;
	return sprintf 'host=%s port=%s dbname=postgres', join(',', map { $self->{nodes}{$_}{address} } $self->names), join(',', map { $self->{nodes}{$_}{port} } $self->names);
}

sub connstr { return $_[0]->hosts }

# SQL at a node, or at the primary: its output; dies where it fails.
sub sql
{
	my ($self, $sql, $name) = @_;
	my $where = defined $name ? "host=$self->{nodes}{$name}{address} port=$self->{nodes}{$name}{port} dbname=postgres" : $self->hosts . ' target_session_attrs=read-write';
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', "$where user=postgres connect_timeout=20" ], '<', \$sql, '>', \$out, '2>', \$err)
	  or croak "$sql: $err";
	chomp $out;
	return $out;
}

sub postmaster
{
	my ($self, $name) = @_;
	open(my $fh, '<', "$self->{nodes}{$name}{data}/postmaster.pid") or return;
	my $pid = <$fh> // return;
	return $pid =~ /^(\d+)$/ ? $1 : undef;
}

# What ran of a node has been ended by others.
sub forget
{
	my ($self, $name) = @_;
	for my $pid (grep { defined } delete @{ $self->{nodes}{$name} }{qw(patroni etcd)})
	{
		waitpid $pid, 0;
		delete $running{$pid};
	}
	return;
}

sub kill_etcd
{
	my ($self, $name) = @_;
	my $pid = delete $self->{nodes}{$name}{etcd} // croak "$name has no etcd";
	kill 'KILL', $pid;
	waitpid $pid, 0;
	delete $running{$pid};
	return;
}

sub kill_patroni
{
	my ($self, $name) = @_;
	my $pid = delete $self->{nodes}{$name}{patroni} // croak "$name has no Patroni";
	kill 'KILL', $pid;
	waitpid $pid, 0;
	delete $running{$pid};
	return;
}

# Tells a node's Patroni to end, and its PostgreSQL with it, in order.
sub end
{
	my ($self, $name) = @_;
	kill 'TERM', $self->{nodes}{$name}{patroni} // croak "$name has no Patroni";
	return;
}

# Has it?
sub ended
{
	my ($self, $name) = @_;
	my $pid = $self->{nodes}{$name}{patroni} // return 1;
	return 0 if waitpid($pid, WNOHANG) == 0;
	delete $self->{nodes}{$name}{patroni};
	delete $running{$pid};
	return 1;
}

# kill -9 of a node's Patroni and PostgreSQL.
sub kill_node
{
	my ($self, $name) = @_;
	my $postmaster = $self->postmaster($name) // croak "$name does not run";
	$self->kill_patroni($name);
	kill 'KILL', $postmaster;
	return;
}

# The nodes that do not follow the primary as they should.
sub astray
{
	my ($self) = @_;
	my $primary = $self->primary // return;
	my %streaming = map { ($_->{application_name} => 1) } grep { $_->{state} eq 'streaming' } @{ $self->state($primary)->{replication} // [] };
	return grep { $_ ne $primary && !$streaming{$_} } $self->names;
}

# Ends a node's Patroni in order, which ends its PostgreSQL and hands the lead over, while code is called over and over.
sub stop_beside
{
	my ($self, $code, $name) = @_;
	my $pid = delete $self->{nodes}{$name}{patroni} // croak "$name has no Patroni";
	kill 'TERM', $pid;
	$code->() until waitpid($pid, WNOHANG) == $pid;
	delete $running{$pid};
	return;
}

# patronictl …, while code is called over and over; what it says.
sub ctl_beside
{
	my ($self, $code, @args) = @_;
	my $out = '';
	my $run = IPC::Run::start([ 'patronictl', '-c', "$self->{dir}/" . ($self->names)[0] . '.yml', @args ], '<', \'', '>&', \$out, IPC::Run::timeout(120));
	while ($run->pumpable)
	{
		$run->pump_nb;
		$code->();
	}
	$run->finish;
	return $out;
}

# Has Patroni give the lead from a node to another one, while code is called over and over.  Where it is not ready for that, or has
# not seen the end of it in its time, as on a busy machine, it is told again.  Gives '', or what patronictl said where nothing came of it.
sub switchover_beside
{
	my ($self, $code, $old) = @_;
	my $said = '';
	for (1 .. 5)
	{
		$said = $self->ctl_beside($code, 'switchover', 'evento', '--leader', $old, '--force');
		return '' if $said =~ /Successfully switched over/;
		return '' if until_true(10, sub { $code->(); my $new = $self->primary; defined $new && $new ne $old });
	}
	return $said;
}

# When a node's PostgreSQL said something behind a time, in seconds of the clock; undef where it has not.
sub said
{
	my ($self, $name, $since, $pattern) = @_;
	for my $line (split /\n/, $self->log($name))
	{
		my ($y, $mo, $d, $h, $mi, $s, $text) = $line =~ /^(\d+)-(\d+)-(\d+) (\d+):(\d+):(\d+\.\d+) UTC \[\d+\] (.*)/ or next;
		my $at = timegm(int $s, $mi, $h, $d, $mo - 1, $y) + $s - int $s;
		return $at if $at > $since && $text =~ /$pattern/;
	}
	return;
}

# Ends all nodes in order, standbys first.
sub stop
{
	my ($self) = @_;
	my $primary = $self->primary // '';
	for my $name (sort { ($a eq $primary) <=> ($b eq $primary) } $self->names)
	{
		my $pid = delete $self->{nodes}{$name}{patroni} // next;
		kill 'TERM', $pid;
		waitpid $pid, 0;
		delete $running{$pid};
	}
	return;
}

END
{
	my $status = $?;
	for my $pid (sort { $running{$a} cmp $running{$b} } keys %running)
	{
		kill 'KILL', $pid;
		waitpid $pid, 0;
	}
	# Without its postmaster the rest of a server ends by itself.
	for my $cluster (@clusters)
	{
		kill 'KILL', grep { defined } map { $cluster->postmaster($_) } $cluster->names;
	}
	$? = $status;
}

1;
