# Evento::Cbor
#   CBOR as the bundle protocol needs it, for tests: small, and able to write
#   what a library would not.
#
#   encode: undef is null, a plain scalar text, a reference to a scalar bytes,
#   an array reference an array; int_(n), bool_(b), map_(key => value, …) for
#   the rest.  What raw_(bytes) holds goes out as it is.
#   decode: text and bytes give scalars, maps hash references, booleans 1 and 0.
package Evento::Cbor;

use strict;
use warnings;

use Encode qw(decode_utf8 encode_utf8);
use Exporter qw(import);

our @EXPORT = qw(cbor_encode cbor_decode int_ bool_ map_ raw_);

sub int_ { return bless [ $_[0] ], 'Evento::Cbor::Int' }
sub bool_ { return bless [ $_[0] ], 'Evento::Cbor::Bool' }
sub raw_ { return bless [ $_[0] ], 'Evento::Cbor::Raw' }
sub map_ { return bless [@_], 'Evento::Cbor::Map' }

# The head of an item: its major type and its number or length.
sub head
{
	my ($major, $n) = @_;
	my $top = $major << 5;
	return pack('C', $top | $n) if $n < 24;
	return pack('CC', $top | 24, $n) if $n < 256;
	return pack('Cn', $top | 25, $n) if $n < 65536;
	return pack('CN', $top | 26, $n) if $n < 4294967296;
	return pack('CQ>', $top | 27, $n);
}

sub cbor_encode
{
	my ($v) = @_;
	my $type = ref $v;
	return "\xf6" if !defined $v;
	if ($type eq '')
	{
		my $text = encode_utf8($v);
		return head(3, length $text) . $text;
	}
	return head(2, length $$v) . $$v if $type eq 'SCALAR';
	return head(4, scalar @$v) . join('', map { cbor_encode($_) } @$v) if $type eq 'ARRAY';
	return $v->[0] >= 0 ? head(0, $v->[0]) : head(1, -1 - $v->[0]) if $type eq 'Evento::Cbor::Int';
	return $v->[0] ? "\xf5" : "\xf4" if $type eq 'Evento::Cbor::Bool';
	return $v->[0] if $type eq 'Evento::Cbor::Raw';
	return "\xbf" . join('', map { cbor_encode($_) } @$v) . "\xff" if $type eq 'Evento::Cbor::Map';
	die "cannot encode a $type";
}

# The value that the bytes hold; dies where they are not exactly one.
sub cbor_decode
{
	my ($bytes) = @_;
	my $pos = 0;
	my $v = item(\$bytes, \$pos);
	die "bytes behind the item\n" if $pos != length $bytes;
	return $v;
}

sub take
{
	my ($bytes, $pos, $n) = @_;
	die "truncated\n" if $$pos + $n > length $$bytes;
	my $part = substr($$bytes, $$pos, $n);
	$$pos += $n;
	return $part;
}

# Is the next byte the end of an indefinite length?  Then it is consumed.
sub at_break
{
	my ($bytes, $pos) = @_;
	die "truncated\n" if $$pos >= length $$bytes;
	return 0 if substr($$bytes, $$pos, 1) ne "\xff";
	$$pos++;
	return 1;
}

sub item
{
	my ($bytes, $pos) = @_;
	my $first = unpack('C', take($bytes, $pos, 1));
	my ($major, $low) = ($first >> 5, $first & 31);
	my $n = $low;
	my $open = $low == 31;
	$n = unpack('C', take($bytes, $pos, 1)) if $low == 24;
	$n = unpack('n', take($bytes, $pos, 2)) if $low == 25;
	$n = unpack('N', take($bytes, $pos, 4)) if $low == 26;
	$n = unpack('Q>', take($bytes, $pos, 8)) if $low == 27;

	return $n if $major == 0;
	return -1 - $n if $major == 1;
	if ($major == 2 || $major == 3)
	{
		my $text = '';
		if ($open)
		{
			$text .= item($bytes, $pos) until at_break($bytes, $pos);
			return $text;
		}
		$text = take($bytes, $pos, $n);
		return $major == 2 ? $text : decode_utf8($text);
	}
	if ($major == 4)
	{
		my @list;
		while ($open ? !at_break($bytes, $pos) : @list < $n)
		{
			push @list, item($bytes, $pos);
		}
		return \@list;
	}
	if ($major == 5)
	{
		my %map;
		for (my $i = 0; $open ? !at_break($bytes, $pos) : $i < $n; $i++)
		{
			my $key = item($bytes, $pos);
			$map{$key} = item($bytes, $pos);
		}
		return \%map;
	}
	return item($bytes, $pos) if $major == 6;
	return $n == 21 ? 1 : 0 if $low == 20 || $low == 21;
	return undef if $low == 22 || $low == 23;
	return unpack('f>', pack('N', $n)) if $low == 26;
	return unpack('d>', pack('Q>', $n)) if $low == 27;
	die "unexpected item\n";
}

1;
