# Evento::Layers
#   The files of an image's layers, as docker save gives them: an archive with one
#   for each layer in it.  What a later layer removes is there as well.
package Evento::Layers;

use strict;
use warnings;

use Carp qw(croak);

use constant BLOCK => 512;

# Calls code with the name and the content of each file of a layer; gives how many there were.
sub each_file
{
	my ($image, $code) = @_;
	my $self = bless { code => $code, files => 0 }, __PACKAGE__;
	open $self->{in}, '-|', 'docker', 'save', $image or croak "docker save: $!";
	binmode $self->{in};
	$self->archive(undef, undef);
	# Archives end with more zeros than two blocks.
	my $rest = '';
	1 while read $self->{in}, $rest, 1 << 20;
	close $self->{in} or croak "docker save $image has failed";
	return $self->{files};
}

sub take
{
	my ($self, $bytes) = @_;
	my $data = '';
	my $got = read $self->{in}, $data, $bytes;
	croak 'docker save has ended early' if ($got // 0) != $bytes;
	return $data;
}

# Reads an archive, which begins with a header that was read before; bytes: how much is behind that, undef for the outer one.
sub archive
{
	my ($self, $header, $bytes) = @_;
	while (1)
	{
		if (!defined $header)
		{
			return if defined $bytes && $bytes < BLOCK;
			$header = $self->take(BLOCK);
			$bytes -= BLOCK if defined $bytes;
		}
		if ($header !~ /[^\0]/)
		{
			return if !defined $bytes;
			$header = undef;
			next;
		}
		my ($name, $size, $type) = (unpack('Z100', $header), unpack('x124 Z12', $header), substr($header, 156, 1));
		# Larger ones than octal digits can tell are none of an image.
		croak "docker save: the size of $name is not understood" if $size !~ /^ *[0-7]+ *$/;
		$size = oct $size;
		my $padded = ($size + BLOCK - 1) & ~(BLOCK - 1);
		$self->member($name, $size, $padded, !defined $bytes, $type =~ /[0\0]/);
		$bytes -= $padded if defined $bytes;
		$header = undef;
	}
}

sub member
{
	my ($self, $name, $size, $padded, $outer, $is_file) = @_;
	my $first = $padded > 0 ? $self->take(BLOCK) : '';
	if ($outer && $is_file && length $first && substr($first, 257, 5) eq 'ustar')
	{
		$self->archive($first, $padded - BLOCK);
		return;
	}
	my $content = $padded > BLOCK ? $first . $self->take($padded - BLOCK) : $first;
	return if $outer || !$is_file;
	$self->{files}++;
	$self->{code}->($name, substr $content, 0, $size);
	return;
}

1;
