# Chaos::Clock
#   A wall clock of their own for single processes (libfaketime), which can be
#   set while they run.  What measures time by the other clock does not see it.
package Chaos::Clock;

use strict;
use warnings;

use Carp qw(croak);

my ($library) = grep { -e } map { "$_/libfaketime.so.1" } glob('/usr/lib/*/faketime /usr/lib/faketime /usr/lib64/faketime');

# Why there is none on this machine; undef where there is.
sub why_not { return $library ? undef : 'libfaketime is not installed' }

# file: where it is said how far the clock is off.
sub new
{
	my ($class, $file) = @_;
	my $self = bless { file => $file }, $class;
	$self->set('+0');
	return $self;
}

# "+3600" is an hour ahead.
sub set
{
	my ($self, $offset) = @_;
	open(my $fh, '>', "$self->{file}.new") or croak "$self->{file}: $!";
	print $fh "$offset\n";
	close $fh or croak "$self->{file}: $!";
	rename "$self->{file}.new", $self->{file} or croak "$self->{file}: $!";
	return;
}

# The variables that give a process this clock.
sub environment
{
	my ($self) = @_;
	return () if !$library;
	return (LD_PRELOAD => $library, FAKETIME_TIMESTAMP_FILE => $self->{file}, FAKETIME_CACHE_DURATION => 1, FAKETIME_DONT_FAKE_MONOTONIC => 1);
}

1;
