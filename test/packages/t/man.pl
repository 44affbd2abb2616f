# The manual pages say what the programs do: evento-proxy(8) has the settings that --help
# has, evento(7) those of the extension and its errors, and groff has nothing against them.
use strict;
use warnings;

use File::Basename qw(dirname);
use FindBin;
use IPC::Run;
use Test::More;

my $top = "$FindBin::RealBin/../../..";
my $proxy = $ENV{EVENTO_PROXY} // "$top/build/evento-proxy";
my %page = ('evento-proxy.8' => dirname($proxy) . '/evento-proxy.8', 'evento.7' => "$top/extension/evento.7");

# ---- evento-proxy(8) ----

my ($help, $version) = ('', '');
IPC::Run::run([ $proxy, '--help' ], '>', \$help);
IPC::Run::run([ $proxy, '--version' ], '>', \$version);
my %flags;
$flags{$1} = "$3|$2" while $help =~ /^  --([\w-]+) \(default: (.*?)\)\n      (.*)\n/mg;
cmp_ok(scalar keys %flags, '>', 50, 'the help has settings');
my $text = plain($page{'evento-proxy.8'});
my %listed;
$listed{$1} = "$2|$3" while $text =~ /^\.BI --([\w-]+) " value"\n(.*)\n\.br\nDefault: (.*)\n/mg;
is_deeply(\%listed, \%flags, 'evento-proxy(8) has the settings of --help, with their defaults');
my ($number) = $version =~ /^evento-proxy (\S+)$/;
like($text, qr/^\.TH .*"evento \Q$number\E"/m, 'and the version');

# ---- evento(7) ----

$text = plain($page{'evento.7'});
my %readme = slurp("$top/README.md") =~ /^\| `(evento\.\w+)` \| (.*?) \|/mg;
cmp_ok(scalar keys %readme, '>', 5, 'README.md has settings');
my %settings = $text =~ /^\.BR (evento\.\w+) " \((.*)\)"$/mg;
is_deeply(\%settings, \%readme, 'evento(7) has the settings of README.md, with their defaults');
my @errors = sort(slurp("$top/include/errcodes.h") =~ /^#define EVENTO_SQLSTATE_\w+\s+"(V\d+)"/mg);
cmp_ok(scalar @errors, '>', 5, 'errcodes.h has errors');
is_deeply([ sort($text =~ /\b(V\d{4})\b/g) ], \@errors, 'evento(7) has the errors of errcodes.h');

# ---- both ----

SKIP:
{
	skip 'no groff', 2 if !grep { -x "$_/groff" } split /:/, $ENV{PATH};
	for my $name (sort keys %page)
	{
		my ($out, $err) = ('', '');
		IPC::Run::run([ 'groff', '-man', '-Tutf8', '-ww', $page{$name} ], '>', \$out, '2>', \$err);
		is($err, '', "groff says nothing against $name");
	}
}

done_testing();

# The text of a page, with what groff needs escaped as it is read.
sub plain
{
	my ($file) = @_;
	return slurp($file) =~ s/\\([-e&])/$1 eq 'e' ? '\\' : $1 eq '&' ? '' : $1/gre;
}

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or die "$file: $!\n";
	local $/;
	return scalar <$fh>;
}
