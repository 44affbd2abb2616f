# Chaos::Faults
#   What a fault of the schedule does to the nodes, and how it is taken back.
package Chaos::Faults;

use strict;
use warnings;

use Carp qw(croak);
use Time::HiRes qw(sleep time);
use Time::Local qw(timegm);

use Chaos::Clock;
use Evento::Patroni;

use constant FELT => 60;    # seconds for a fault to be felt, from its end on where it was not by then; generous, since the machine may be busy

my %do = (
	'primary powered off' => \&primary_powered_off,
	'primary crashed' => \&primary_crashed,
	'primary without Patroni' => \&primary_without_patroni,
	'primary frozen' => sub { $_[0]->frozen($_[0]->primary, $_[1]) },
	'primary unplugged' => sub { $_[0]->unplugged($_[0]->primary, $_[1]) },
	'primary cut from standbys' => sub { my ($self, $f) = @_; $self->cut($f, 'both', [ $self->primary ], $self->{nodes}) },
	'primary cut from standbys, one way' => sub { my ($self, $f) = @_; $self->cut($f, $f->{way}, [ $self->primary ], $self->{nodes}) },
	'standby frozen' => sub { $_[0]->frozen($_[0]->synchronous, $_[1]) },
	'standby powered off' => sub { $_[0]->powered_off($_[0]->synchronous, $_[1]) },
	'every node alone' => sub { my ($self, $f) = @_; $self->cut($f, 'to', $self->{nodes}, $self->{nodes}) },
	'majority cut from all others' => sub { my ($self, $f) = @_; $self->split($f, $self->primary, @{ $self->{proxies}{names} }) },
	'all split in two' => sub { my ($self, $f) = @_; $self->split($f, $self->primary, "proxy$f->{proxy}") },
	'disk full' => sub { my ($self, $f) = @_; $self->disk_full($f, $f->{way} eq 'to' ? $self->primary : $self->synchronous) },
	'no space for WAL' => sub { my ($self, $f) = @_; $self->disk_full($f, $self->primary, 1) },
	'clock of a node' => sub { my ($self, $f) = @_; $self->clock("pg$f->{node}", $self->{clocks}{"pg$f->{node}"}, $f) },
	'etcd killed' => \&etcd_killed,
	'switchover' => \&switchover,
	'rolling restart of PostgreSQL' => \&restart_postgres,
	'proxy killed' => \&proxy_killed,
	'proxy frozen' => sub { $_[0]->frozen("proxy$_[1]{proxy}", $_[1]) },
	'proxy unplugged' => sub { $_[0]->unplugged("proxy$_[1]{proxy}", $_[1]) },
	'proxy cut from proxies' => sub { my ($self, $f) = @_; $self->cut($f, 'both', ["proxy$f->{proxy}"], $self->{proxies}{names}) },
	'proxy cut from proxies, one way' => sub { my ($self, $f) = @_; $self->cut($f, $f->{way}, ["proxy$f->{proxy}"], $self->{proxies}{names}) },
	'proxies cut from each other' => sub { my ($self, $f) = @_; $self->cut($f, 'to', $self->{proxies}{names}, $self->{proxies}{names}) },
	'proxy cut from the database' => sub { my ($self, $f) = @_; $self->cut($f, 'both', ["proxy$f->{proxy}"], $self->{nodes}) },
	'proxy cut from the database, one way' => sub { my ($self, $f) = @_; $self->cut($f, $f->{way}, ["proxy$f->{proxy}"], $self->{nodes}) },
	'all proxies cut from the database' => sub { my ($self, $f) = @_; $self->cut($f, 'both', $self->{proxies}{names}, $self->{nodes}) },
	'clock of a proxy' => sub { my ($self, $f) = @_; $self->clock("proxy$f->{proxy}", $self->{proxies}{proxies}{"proxy$f->{proxy}"}{clock}, $f) },
	'rolling restart of proxies' => \&restart_proxies,
);

# network, database (Evento::Patroni), proxies; clocks, disks: of the database's nodes by their name.
sub new
{
	my ($class, %opt) = @_;
	return bless { %opt, nodes => [ $opt{database}->names ], wrong => [] }, $class;
}

# Does what the schedule says, and takes it back.  Gives to whom it was done.
sub strike
{
	my ($self, $fault) = @_;
	my $code = $do{ $fault->{kind} } // croak "no fault of the kind $fault->{kind}";
	return $code->($self, $fault);
}

# What went wrong that has to work also among faults.
sub wrong { return @{ $_[0]{wrong} } }

sub primary { my ($self) = @_; return $self->{database}->some_primary }

sub synchronous { my ($self) = @_; return Evento::Patroni::until_true(60, sub { $self->{database}->synchronous }) || croak 'there is no synchronous standby' }

# ---- machines and links ----

sub frozen
{
	my ($self, $name, $fault) = @_;
	$self->{network}->freeze($name);
	sleep $fault->{hold};
	$self->{network}->thaw($name);
	return $name;
}

sub unplugged
{
	my ($self, $name, $fault) = @_;
	$self->{network}->pull($name);
	sleep $fault->{hold};
	$self->{network}->plug($name);
	return $name;
}

sub cut
{
	my ($self, $fault, $way, $these, $others) = @_;
	$self->{network}->cut($way, $these, $others);
	sleep $fault->{hold};
	$self->{network}->heal;
	return @$these > 1 ? 'all' : "$these->[0], $way";
}

# Some nodes and proxies on one side, all others on the other one.
sub split
{
	my ($self, $fault, @these) = @_;
	my %these = map { ($_ => 1) } @these;
	$self->cut($fault, 'both', \@these, [ grep { !$these{$_} } @{ $self->{nodes} }, @{ $self->{proxies}{names} } ]);
	return "@these";
}

sub clock
{
	my ($self, $name, $clock, $fault) = @_;
	$clock->set($fault->{offset});
	sleep $fault->{hold};
	push @{ $self->{wrong} }, "the clock of $name stays as it is"
	  if !Evento::Patroni::until_true(FELT, sub { my $off = $self->off($name); defined $off && abs($off - $fault->{offset}) < FELT });
	$clock->set('+0');
	return "$name, $fault->{offset} s";
}

# How far the clock of a node's PostgreSQL is off, or a proxy's, as it writes its log; undef where it does not say.
sub off
{
	my ($self, $name) = @_;
	return eval { $self->{database}->sql('SELECT extract(epoch FROM clock_timestamp())', $name) - time } if grep { $_ eq $name } @{ $self->{nodes} };
	my ($y, $mo, $d, $h, $mi, $s) = $self->{proxies}->log($name) =~ /.*^(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)/ms or return;
	return timegm($s, $mi, $h, $d, $mo - 1, $y) - time;
}

# ---- the database ----

sub powered_off
{
	my ($self, $name, $fault) = @_;
	my $database = $self->{database};
	$self->{network}->power_off($name);
	$database->forget($name);
	sleep $fault->{hold};
	$database->start_etcd($name);
	$database->start($name);
	return $name;
}

sub primary_powered_off { my ($self, $fault) = @_; return $self->powered_off($self->primary, $fault) }

# PostgreSQL alone; its Patroni starts it again.
sub primary_crashed
{
	my ($self) = @_;
	my $name = $self->primary;
	kill 'KILL', $self->{database}->postmaster($name) // croak "$name does not run";
	return $name;
}

sub primary_without_patroni
{
	my ($self, $fault) = @_;
	my $name = $self->primary;
	$self->{database}->kill_patroni($name);
	sleep $fault->{hold};
	$self->{database}->start($name);
	return $name;
}

sub etcd_killed
{
	my ($self, $fault) = @_;
	my $name = "pg$fault->{node}";
	$self->{database}->kill_etcd($name);
	sleep $fault->{hold};
	$self->{database}->start_etcd($name);
	return $name;
}

# WAL goes to segments that are there until new ones are made, so a server that is to find no place for it has to be driven there.
sub disk_full
{
	my ($self, $fault, $name, $with_wal) = @_;
	my $said = length $self->{database}->log($name);
	my $file = "$self->{disks}{$name}/ballast";
	open(my $fh, '>', $file) or croak "$file: $!";
	my $block = "\1" x (1 << 20);
	while (length $block > 1)
	{
		# To the last page.
		substr($block, length($block) / 2) = '' if !defined syswrite $fh, $block;
	}
	close $fh;
	my $what = $with_wal ? qr/PANIC: .*No space left on device/ : qr/No space left on device/;
	my $felt = sub { return substr($self->{database}->log($name), $said) =~ $what };
	Evento::Patroni::until_true(FELT, sub {
			eval { $self->{database}->sql(q(SELECT pg_logical_emit_message(false, 'chaos', 'begins a segment'), pg_switch_wal()), $name) };
			return $felt->();
		}) if $with_wal;
	sleep $fault->{hold};
	push @{ $self->{wrong} }, "the disk of $name is full, and nothing comes of it" if !Evento::Patroni::until_true(FELT, $felt);
	unlink $file or croak "$file: $!";
	return $name;
}

sub switchover
{
	my ($self) = @_;
	my $name = $self->primary;
	$self->tell_patroni(qr/Successfully switched over/, 'switchover', 'evento', '--force');
	return $name;
}

# patronictl …; where Patroni is not ready for it, as on a busy machine, some times more.
sub tell_patroni
{
	my ($self, $done, @what) = @_;
	my $said = '';
	for (1 .. 5)
	{
		$said = $self->{database}->ctl_beside(sub { sleep 0.02 }, @what);
		return if $said =~ $done;
		sleep 2;
	}
	push @{ $self->{wrong} }, "patronictl @what: $said";
	return;
}

# Standbys first.
sub restart_postgres
{
	my ($self) = @_;
	my $primary = $self->primary;
	for my $name (grep({ $_ ne $primary } @{ $self->{nodes} }), $primary)
	{
		$self->tell_patroni(qr/Success: restart/, 'restart', 'evento', $name, '--force');
	}
	return 'all';
}

# ---- proxies ----

sub proxy_killed
{
	my ($self, $fault) = @_;
	my $name = "proxy$fault->{proxy}";
	$self->{proxies}->stop($name, 'KILL', 30);
	sleep $fault->{hold};
	$self->{proxies}->start($name);
	$self->{proxies}->wait_ready($name, '/healthz', 60);
	return $name;
}

# Each finishes what it was asked, and the next follows when it takes bundles again.
sub restart_proxies
{
	my ($self) = @_;
	my $proxies = $self->{proxies};
	for my $name (@{ $proxies->{names} })
	{
		my $status = $proxies->stop($name, 'TERM', 60);
		push @{ $self->{wrong} }, "$name ended with " . ($status // 'nothing, and was killed') if ($status // -1) != 0;
		$proxies->start($name);
		$proxies->wait_ready($name, '/readyz', 120);
	}
	return 'all';
}

1;
