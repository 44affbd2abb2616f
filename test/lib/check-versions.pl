#!/usr/bin/perl
# check-versions.pl
#   The driver of "make check-versions": runs the SQL, isolation and TAP tests of
#   the extension on each major version of PostgreSQL that VERSIONS names, on
#   this machine where it is the Debian release that has that version, else in a
#   tree of that release (test/lib/release-tree), and closes with a line a
#   version and "N passed, N failed, N skipped". A version whose tree cannot
#   be made is skipped, with the reason. TESTS chooses as in "make check".
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Time::HiRes qw(time);

my $top = abs_path(dirname(__FILE__) . '/../..');
my @versions = split ' ', $ENV{VERSIONS} // '15 17 18';
my $tests = ($ENV{TESTS} // '') =~ /\S/ ? $ENV{TESTS} : 'test/regress test/isolation test/tap';
my %total = (passed => 0, failed => 0, skipped => 0);
my @lines;
my $interrupted = 0;

$| = 1;
# Ctrl-C reaches what runs here too, which clears up and ends.
$SIG{$_} = sub { $interrupted = 1 } for qw(INT TERM HUP);

for my $version (@versions)
{
	last if $interrupted;
	my $start = time;
	print "== PostgreSQL $version ==\n";
	my $r = run_version($version);
	$total{$_} += $r->{$_} for keys %total;
	push @lines, sprintf('PostgreSQL %-4s %s', $version, $r->{why} // sprintf('%d passed, %d failed, %d skipped, %.0f s (output is in build/check-%s)', @$r{qw(passed failed skipped)}, time - $start, $version));
}
die "interrupted\n" if $interrupted;

print "\n", map({ "$_\n" } @lines), "$total{passed} passed, $total{failed} failed, $total{skipped} skipped\n";
exit($total{failed} || !grep({ $_ } values %total) ? 1 : 0);

# Gives { passed, failed, skipped, why }; why where nothing was run.
sub run_version
{
	my ($version) = @_;
	my $here = os_release();
	chomp(my $release = `'$top/test/lib/release-tree' --release-of '$version'`);
	return no_run('failed', "no Debian release is known to have it") if $release eq '';

	my @check = ('env', "TESTS=$tests", "PG_CONFIG=$version", 'EVENTO_DEPS=no',
		($version == 17 && $release ne $here ? 'EVENTO_OLD_BINDIR=/usr/lib/postgresql/15/bin' : ()),
		'perl', "$top/test/lib/check.pl", "--logs=check-$version", ($ENV{EVENTO_LONG} ? '--long' : ()));
	if ($release eq $here)
	{
		system('env', "PG_CONFIG=$version", "$top/.ci/deps", 'tree') == 0 or return no_run('skipped', 'what it needs is not installed, as said above');
		return run_check(@check);
	}

	# Where it cannot be installed, release-tree says what is missing.
	system("$top/.ci/deps", 'versions') if $> == 0;
	my $said = '';
	open(my $fh, '-|', 'sh', '-c', '"$@" 2>&1', 'sh', "$top/test/lib/release-tree", $release) or die "release-tree: $!\n";
	while (my $line = <$fh>)
	{
		print $line;
		$said = $line if $line =~ /^release-tree: /;
	}
	close $fh;
	if ($? != 0)
	{
		chomp $said;
		return no_run($? >> 8 == 77 ? 'skipped' : 'failed', $said);
	}
	return run_check("$top/test/lib/release-tree", '--bind', $top, $release, @check);
}

sub no_run
{
	my ($how, $why) = @_;
	print "$how: $why\n";
	return { passed => 0, failed => 0, skipped => 0, $how => 1, why => "$how: $why" };
}

# Runs the driver of the tests, and reads its last line.
sub run_check
{
	my @command = @_;
	my %r;
	open(my $fh, '-|', @command) or die "$command[0]: $!\n";
	while (my $line = <$fh>)
	{
		print $line;
		@r{qw(passed failed skipped)} = ($1, $2, $3) if $line =~ /^(\d+) passed, (\d+) failed, (\d+) skipped$/;
	}
	close $fh;
	return no_run('failed', 'the tests did not come to an end') if !%r;
	$r{failed}++ if $? != 0 && !$r{failed};
	return \%r;
}

# The code name of this machine's release.
sub os_release
{
	open(my $fh, '<', '/etc/os-release') or return '';
	while (<$fh>)
	{
		return $1 if /^VERSION_CODENAME="?(\w+)/;
	}
	return '';
}
