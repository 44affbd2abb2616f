# What README.md shows is what happens: its first use, statement by statement,
# and its tables of settings.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../../..";
my $proxy = $ENV{EVENTO_PROXY} // "$top/build/evento-proxy";
my $readme = slurp_file("$top/README.md");

my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'evento'\n");
$node->start;

# ---- first use ----

my ($shown) = $readme =~ /^## First use\n.*?```sql\n(.*?)```/ms;
my @lines = grep { $_ ne '' && !/^-- / } split /\n/, $shown;
my $statements = join '', map { "$_\n" } grep { /^(?:SELECT|CREATE|CALL|BEGIN|COMMIT|INSERT)\b.*;$/ } @lines;
my ($out, $err) = ('', '');
IPC::Run::run([ 'psql', '-X', '-e', '-d', $node->connstr('postgres') ], '<', \$statements, '>', \$out, '2>&1');
is(join("\n", map { s/\s+$//r } grep { $_ ne '' } split /\n/, $out), join("\n", @lines), 'the first use shows what psql prints');

# ---- settings ----

my $rows = $node->safe_psql('postgres', q{SELECT name, current_setting(name) FROM pg_settings WHERE name LIKE 'evento.%' ORDER BY 1});
my %in_readme = $readme =~ /^\| `(evento\.\w+)` \| (.*?) \|/mg;
is(join("\n", map { "$_|$in_readme{$_}" } sort keys %in_readme), $rows, 'the settings of the extension, with their defaults');

my $help = '';
IPC::Run::run([ $proxy, '--help' ], '>', \$help);
my %flags = $help =~ /^  (--[\w-]+) \(default: (.*?)\)\n/mg;
my %listed = $readme =~ /^\| `(--[\w-]+)` \| (.*?) \|/mg;
is_deeply(\%listed, \%flags, 'the flags of the proxy, with their defaults');

$node->stop;
done_testing();
