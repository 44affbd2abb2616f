# What README.md shows is what happens: its first use, statement by statement,
# its tables of settings, and HAProxy's.  Links of all pages lead somewhere.
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

# ---- the balancer ----

my ($section) = $readme =~ /^    (listen bundles\n(?:    .*\n)+)/m;
my ($haproxy) = grep { -x } '/usr/sbin/haproxy', map { "$_/haproxy" } split /:/, $ENV{PATH};
SKIP:
{
	skip 'no HAProxy (Debian: haproxy)', 2 if !$haproxy;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/haproxy.cfg';
	append_to_file($file, $section =~ s/^    //mgr);
	my $said = '';
	ok(IPC::Run::run([ $haproxy, '-c', '-f', $file ], '<', \'', '>', \$said, '2>&1'), 'HAProxy takes what is shown of its settings');
	unlike($said, qr/WARNING|ALERT/, 'and warns of nothing');
}

# ---- links ----

# What a page's headings are linked by.
sub anchors
{
	my ($text) = @_;
	return map { lc s/[^\w\- ]//gr =~ tr/ /-/r => 1 } $text =~ /^#+ (.*)$/mg;
}

my %page = map { $_ => slurp_file("$top/$_") =~ s/^```.*?^```//msgr } 'README.md', 'test/README.md', map { s{^\Q$top\E/}{}r } glob "$top/docs/*.md";
my ($links, @dead) = (0);
for my $name (sort keys %page)
{
	my ($dir) = $name =~ m{^(.*/)?[^/]+$};
	for my $link ($page{$name} =~ /\]\(([^()\s]+)\)/g)
	{
		next if $link =~ /^[a-z]+:/;
		my ($file, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
		my $to = $file eq '' ? $name : ($dir // '') . $file;
		1 while $to =~ s{(?:^|(?<=/))(?!\.\.)[^/]+/\.\./}{};
		$links++;
		push @dead, "$name: $link" if !-e "$top/$to" || (defined $anchor && !{ anchors($page{$to} // '') }->{$anchor});
	}
}
cmp_ok($links, '>', 50, 'pages link to each other');
is(join("\n", @dead), '', 'and every link leads somewhere');
done_testing();
