# Chaos::Verdict
#   Holds the record of Chaos::Load against what the log has in the end.
#
# Streams are linearizable where moments can be chosen for all appends, each
# between what was sent and what was answered, that rise along the versions; the
# revision that an answer has, which its handler has counted from the story, is
# the version, so no command has seen another state than that behind its
# predecessor.  Walking along the versions no moment can be earlier than the latest
# time at which any up to here was sent, so the choice exists if and only if none
# of these is behind its answer.  What was not answered may take effect at any
# time later, or never.
package Chaos::Verdict;

use strict;
use warnings;

use Carp qw(croak);

# record: the file; log: lines of position|stream|version|tag|try|revision, in order of positions.
sub new
{
	my ($class, $record, $log) = @_;
	my $self = bless { commands => {}, seen => {}, log => [], by_command => {}, late => [], repeats => 0, at => {} }, $class;
	$self->read_record($record);
	for my $line (split /\n/, $log)
	{
		my %e;
		@e{qw(position stream version tag try revision)} = split /\|/, $line;
		($e{n}) = $e{tag} =~ /^t(\d+)$/ or next;
		push @{ $self->{log} }, \%e;
		push @{ $self->{by_command}{ $e{n} } }, \%e;
	}
	return $self;
}

sub read_record
{
	my ($self, $file) = @_;
	my $commands = $self->{commands};
	my %to = (
		S => sub { my ($at, $n, $caller, $kind, $stream) = @_; $commands->{$n} = { n => $n, sent => $at, caller => $caller, kind => $kind, stream => $stream } },
		R => sub { $self->{repeats}++ },
		A => sub { my ($at, $n, $try, $revision) = @_; @{ $commands->{$n} }{qw(answered try revision)} = ($at, $try, $revision); push @{ $self->{at}{ $commands->{$n}{caller} } }, $at },
		L => sub { my ($at, $n, $try, $revision) = @_; push @{ $self->{late} }, { n => $n, try => $try, revision => $revision } },
		F => sub { my ($at, $n, @why) = @_; $commands->{$n}{failure} = "@why" },
		G => sub { },
		C => sub { my ($at, $consumer, $from) = @_; push @{ $self->{seen}{$consumer} }, { from => $from } },
		E => sub { my ($at, $consumer, $sequence, $n) = @_; push @{ $self->{seen}{$consumer} }, { sequence => $sequence, n => $n } },
	);
	open(my $fh, '<', $file) or croak "$file: $!";
	while (my $line = <$fh>)
	{
		my ($what, @fields) = split ' ', $line;
		($to{$what} // croak "$file: $line")->(@fields);
	}
	return;
}

# ---- what has to hold: each gives a list of what does not ----

sub lost
{
	my ($self) = @_;
	return map { "t$_->{n} of $_->{caller} on $_->{stream}" } grep { !$self->{by_command}{ $_->{n} } } $self->with_answers;
}

sub twice
{
	my ($self) = @_;
	my $by = $self->{by_command};
	return map { "t$_, at positions " . join(' and ', map { $_->{position} } @{ $by->{$_} }) } grep { @{ $by->{$_} } > 1 } sort { $a <=> $b } keys %$by;
}

# Commands that have an answer, be it one that came when their caller had given them up.
sub with_answers
{
	my ($self) = @_;
	my %late = map { ($_->{n} => 1) } @{ $self->{late} };
	return grep { $_->{answered} || $late{ $_->{n} } } $self->commands;
}

# Events that nobody has asked for, or elsewhere, or not as they were answered; and answers that are not what was asked or stored.
sub different
{
	my ($self) = @_;
	my @found;
	for my $e (@{ $self->{log} })
	{
		my $c = $self->{commands}{ $e->{n} };
		if (!$c) { push @found, "$e->{tag} was sent by nobody" }
		elsif ($c->{stream} ne $e->{stream}) { push @found, "$e->{tag} is on $e->{stream}, and was sent to $c->{stream}" }
		elsif ($c->{answered} && ($c->{try} != $e->{try} || $c->{revision} != $e->{revision}))
		{
			push @found, "$e->{tag}: answered try $c->{try} revision $c->{revision}, stored try $e->{try} revision $e->{revision}";
		}
	}
	for my $answer (@{ $self->{late} })
	{
		my $e = ($self->{by_command}{ $answer->{n} } // [])->[0];
		if (!$self->{commands}{ $answer->{n} }) { push @found, 'an answer that nobody has asked for' }
		elsif ($e && ($answer->{try} != $e->{try} || $answer->{revision} != $e->{revision}))
		{
			push @found, "$e->{tag}: another answer, try $answer->{try} revision $answer->{revision}, stored try $e->{try} revision $e->{revision}";
		}
	}
	return @found;
}

sub not_linearizable
{
	my ($self) = @_;
	my (@found, %stream);
	push @{ $stream{ $_->{stream} } }, $_ for @{ $self->{log} };
	for my $name (sort keys %stream)
	{
		my ($version, $latest) = (0, 0);
		for my $e (@{ $stream{$name} })
		{
			my $c = $self->{commands}{ $e->{n} } // next;
			$version++;
			push @found, "$name: version $e->{version} follows " . ($version - 1) if $e->{version} != $version;
			push @found, "$name: $e->{tag} is version $e->{version}, and its handler has counted $e->{revision}" if $c->{kind} eq 'Place' && $e->{revision} != $e->{version};
			$latest = $c->{sent} if $c->{sent} > $latest;
			push @found, "$name: $e->{tag} was answered before one of a lower version was sent" if $c->{answered} && $c->{answered} < $latest;
		}
	}
	return @found;
}

# Every consumer has seen what the log has, up to its last checkpoint, and what was answered.
sub not_seen
{
	my ($self) = @_;
	my @found;
	push @found, 'no consumer has seen anything' if !%{ $self->{seen} };
	for my $name (sort keys %{ $self->{seen} })
	{
		my ($i, $checkpoint, %has) = (0, 0);
		for my $item (@{ $self->{seen}{$name} })
		{
			if (defined $item->{from})
			{
				push @found, "$name goes on from $item->{from}, its checkpoint is $checkpoint" if $item->{from} != $checkpoint;
				next;
			}
			my $e = $self->{log}[ $i++ ];
			push @found, "$name saw $item->{sequence} (t$item->{n}) after $checkpoint, the log has " . ($e ? "$e->{position} ($e->{tag})" : 'nothing')
			  if !$e || $e->{position} != $item->{sequence} || $e->{n} != $item->{n};
			$checkpoint = $item->{sequence};
			$has{ $item->{n} } = 1;
			last if @found > 20;
		}
		my @missing = grep { $_->{answered} && !$has{ $_->{n} } } $self->commands;
		push @found, "$name has not seen " . @missing . " that were answered, t$missing[0]{n} for one" if @missing;
	}
	return @found;
}

# ---- numbers ----

sub commands { my ($self) = @_; my $c = $self->{commands}; return map { $c->{$_} } sort { $a <=> $b } keys %$c }

sub sent { return scalar $_[0]->commands }

sub answered { return scalar grep { $_->{answered} } $_[0]->commands }

# How often commands failed, by reason; '' is no answer at all.
sub failures
{
	my ($self) = @_;
	my %why;
	$why{ $_->{failure} // '' }++ for grep { !$_->{answered} } $self->commands;
	return %why;
}

# The longest time that any caller was without a success between its last one before a time and another time.
sub longest_gap
{
	my ($self, $from, $to) = @_;
	my $longest = 0;
	for my $at (values %{ $self->{at} })
	{
		my $last = (grep { $_ <= $from } @$at)[-1] // $from;
		for my $t (grep({ $_ > $from && $_ < $to } @$at), $to)
		{
			$longest = $t - $last if $t - $last > $longest;
			$last = $t;
		}
	}
	return $longest;
}

1;
