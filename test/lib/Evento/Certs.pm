# Evento::Certs
#   Certificates for tests of TLS, made by openssl: a CA, and what it signs.
package Evento::Certs;

use strict;
use warnings;

use Carp qw(croak);
use File::Temp ();
use IPC::Run ();

# A CA, in a directory of its own.  name: its common name.
sub new
{
	my ($class, %opt) = @_;
	my $self = bless { dir => $opt{dir} // File::Temp::tempdir(CLEANUP => 1), name => $opt{name} // 'test CA', made => 0 }, $class;
	$self->run('req', '-x509', $self->key_args('ca'), '-subj', "/CN=$self->{name}", '-days', 30, '-out', $self->file('ca.crt'));
	return $self;
}

sub file { my ($self, $name) = @_; return "$self->{dir}/$name" }

sub ca { return $_[0]->file('ca.crt') }

sub run
{
	my ($self, @args) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'openssl', @args ], '<', \'', '>', \$out, '2>', \$err) or croak "openssl @args: $err";
	return $out;
}

sub key_args
{
	my ($self, $name) = @_;
	return ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', $self->file("$name.key"));
}

# A certificate and its key, as two paths.  cn: the common name; alt: the alternative names, as "DNS:a,IP:127.0.0.1"; days: may be negative.
sub cert
{
	my ($self, %opt) = @_;
	my $name = 'cert' . ++$self->{made};
	my $csr = $self->run('req', $self->key_args($name), '-subj', '/CN=' . ($opt{cn} // $name));
	open(my $f, '>', $self->file("$name.csr")) or croak $!;
	print $f $csr;
	close $f;
	open($f, '>', $self->file("$name.ext")) or croak $!;
	print $f 'subjectAltName=' . ($opt{alt} // 'DNS:localhost,IP:127.0.0.1') . "\n";
	close $f;
	$self->run('x509', '-req', '-in', $self->file("$name.csr"), '-CA', $self->ca, '-CAkey', $self->file('ca.key'), '-CAcreateserial',
		'-days', $opt{days} // 30, '-extfile', $self->file("$name.ext"), '-out', $self->file("$name.crt"));
	return ($self->file("$name.crt"), $self->file("$name.key"));
}

# What a bundle's connection takes as tls.
sub client
{
	my ($self, %opt) = @_;
	my ($cert, $key) = $self->cert(%opt);
	return { ca => $self->ca, cert => $cert, key => $key };
}

1;
