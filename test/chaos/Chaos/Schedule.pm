# Chaos::Schedule
#   What happens when, made of a seed alone: the same seed gives the same
#   faults, in the same order, to the same nodes and for the same times.
package Chaos::Schedule;

use strict;
use warnings;

# Kinds of faults, and the least and the most seconds for which each holds: of
# the database's some outlive the primary's lead, others do not.
# Those that concern the database and others take turns, so that a standby that
# comes back has time to.
my %database = (
	'primary powered off' => [ 2, 18 ],
	'primary crashed' => [ 0, 0 ],
	'primary without Patroni' => [ 1, 16 ],
	'primary frozen' => [ 2, 18 ],
	'primary unplugged' => [ 2, 18 ],
	'primary cut from standbys' => [ 3, 16 ],
	'primary cut from standbys, one way' => [ 3, 16 ],
	'standby frozen' => [ 2, 10 ],
	'standby powered off' => [ 2, 5 ],
	'every node alone' => [ 3, 12 ],
	'majority cut from all others' => [ 3, 16 ],
	'all split in two' => [ 3, 16 ],
	'disk full' => [ 4, 8 ],
	'no space for WAL' => [ 4, 8 ],
	'clock of a node' => [ 2, 5 ],
	'etcd killed' => [ 2, 5 ],
	'switchover' => [ 0, 0 ],
	'rolling restart of PostgreSQL' => [ 0, 0 ],
);
my %other = (
	'proxy killed' => [ 0, 4 ],
	'proxy frozen' => [ 2, 8 ],
	'proxy unplugged' => [ 2, 8 ],
	'proxy cut from proxies' => [ 3, 8 ],
	'proxy cut from proxies, one way' => [ 3, 8 ],
	'proxies cut from each other' => [ 3, 8 ],
	'proxy cut from the database' => [ 2, 8 ],
	'proxy cut from the database, one way' => [ 2, 8 ],
	'all proxies cut from the database' => [ 2, 6 ],
	'clock of a proxy' => [ 2, 5 ],
	'rolling restart of proxies' => [ 0, 0 ],
);

sub kinds { return sort keys %database, keys %other }

# seed; without: kinds that this machine cannot have.
sub new
{
	my ($class, $seed, @without) = @_;
	my $self = bless { state => $seed * 2654435761 & 0xffffffff, turn => 0 }, $class;
	for my $of ([ database => \%database ], [ other => \%other ])
	{
		my ($name, $kinds) = @$of;
		$self->{kinds}{$name} = [ grep { my $kind = $_; !grep { $_ eq $kind } @without } sort keys %$kinds ];
		$self->{bag}{$name} = [];
	}
	$self->random for 1 .. 16;
	return $self;
}

# From 0 to 1: a generator of its own, since Perl's need not be the same everywhere (xorshift of 32 bits, whose state is never 0).
sub random
{
	my ($self) = @_;
	my $x = $self->{state} ||= 0x9e3779b9;
	$x ^= $x << 13 & 0xffffffff;
	$x ^= $x >> 17;
	$x ^= $x << 5 & 0xffffffff;
	$self->{state} = $x;
	return $x / 4294967296;
}

sub pick { my ($self, @of) = @_; return $of[ int($self->random * @of) ] }

# The next of all kinds, each once before any comes again.
sub draw
{
	my ($self, $name) = @_;
	my $bag = $self->{bag}{$name};
	@$bag = @{ $self->{kinds}{$name} } if !@$bag;
	return splice @$bag, int($self->random * @$bag), 1;
}

# The next fault: kind; database: whether it takes a whole database to begin with; node, proxy, way, offset: whom and how, where
# the kind asks for it; hold: for so many seconds; rest: and so many before the next.
sub next
{
	my ($self) = @_;
	my ($name, $else) = $self->{turn}++ % 2 ? qw(database other) : qw(other database);
	$name = $else if !@{ $self->{kinds}{$name} };
	my $kind = $self->draw($name);
	my ($least, $most) = @{ $database{$kind} // $other{$kind} };
	return {
		kind => $kind,
		database => $name eq 'database',
		hold => 0 + sprintf('%.1f', $least + $self->random * ($most - $least)),
		rest => 0 + sprintf('%.1f', 0.5 + $self->random),
		node => $self->pick(1 .. 3),
		proxy => $self->pick(1 .. 3),
		way => $self->pick(qw(to from)),
		offset => $self->pick('+3600', '-3600'),
	};
}

sub text
{
	my ($fault) = @_;
	return sprintf '%s (node %d, proxy %d, %s, clock %s), %.1f s', @$fault{qw(kind node proxy way offset hold)};
}

1;
