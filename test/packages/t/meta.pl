# What tells others of this project says the same as evento.control: META.json, for
# PGXN, and the changelog of the Debian packages.
use strict;
use warnings;

use FindBin;
use JSON::PP;
use Test::More;

my $top = "$FindBin::RealBin/../../..";
my ($version) = slurp("$top/evento.control") =~ /^default_version = '(.*)'$/m;
my $meta = eval { JSON::PP->new->utf8->decode(slurp("$top/META.json")) };
is($@, '', 'META.json is JSON');

# What version 1.0.0 of PGXN's specification asks for.
ok(!ref $meta->{$_} && length $meta->{$_}, "$_ is a text") for qw(name abstract version maintainer license);
like($meta->{name}, qr{^[^/\\\s[:cntrl:]]{2,}$}, 'the name can be one');
like($meta->{version}, qr/^(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}$/, 'the version has three parts');
is($meta->{license}, 'postgresql', 'the licence is one that PGXN knows');
is($meta->{'meta-spec'}{version}, '1.0.0', 'the specification is named');
like($meta->{release_status}, qr/^(?:stable|testing|unstable)$/, 'the status is one of three');
is(scalar(grep { ref || !/^[^\/\\[:cntrl:]]{2,}$/ } @{ $meta->{tags} }), 0, 'the tags can be some');
is_deeply([ keys %{ $meta->{provides} } ], ['evento'], 'it provides the extension');
for my $key (keys %{ $meta->{prereqs} })
{
	like($key, qr/^(?:configure|build|test|runtime|develop)$/, "prereqs: $key is a phase");
	like($_, qr/^(?:requires|recommends|suggests|conflicts)$/, "prereqs of $key: $_ is a relation") for keys %{ $meta->{prereqs}{$key} };
}

is($meta->{version}, $version, 'the version is that of evento.control');
is($meta->{provides}{evento}{version}, $version, 'so is that of the extension');
ok(-f "$top/$meta->{provides}{evento}{$_}", "$_ is there") for qw(file docfile);

my ($debian) = slurp("$top/debian/changelog") =~ /\Aevento \((.*)-\d+\) /;
is($debian, $version, 'and that of the Debian packages');
my ($maintainer) = slurp("$top/debian/control.in") =~ /^Maintainer: (.*)$/m;
is($meta->{maintainer}, $maintainer, 'their maintainer is the same');

done_testing();

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or die "$file: $!\n";
	local $/;
	return scalar <$fh>;
}
