#!/usr/bin/perl
# bench.pl
#   "make bench": prints a line "name ratio bar" for each bench, with "<" at the
#   end where smaller is better, and "-" where there is no bar; lines that begin
#   with "#" say what was measured.  Both sides of a ratio run in turns against
#   one server with fsync on, and each side is the median of its runs.
#
#   BENCH    names of benches, or parts of names; without, all but growth, which
#            takes many minutes and 15 GB
#   RUNS     runs of each side (5)
#   SECONDS  length of each (4)
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);

my $top;
BEGIN { $top = abs_path(dirname(__FILE__) . '/../..') }
use lib "$top/test/lib", "$top/test/bench";
use Appends;
use Bench;
use Growth;
use Proxies;
use Reads;

my %proxies = map { $_->[0] => 1 } Proxies::benches();
my @benches = (Appends::benches(), Reads::benches(), Growth::benches(), Proxies::benches());

$| = 1;
$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub {
	$SIG{$_} = 'IGNORE' for qw(INT TERM HUP);
	exit 130;
};
END { my $status = $?; Bench::finish(); $? = $status }

exit main();

sub main
{
	my @wanted = split ' ', $ENV{BENCH} // '';
	my @chosen = grep { my $name = $_->[0]; @wanted ? grep { index($name, $_) >= 0 } @wanted : $name ne 'growth' } @benches;
	if (!@chosen)
	{
		print "no such bench; there are: ", join(' ', map { $_->[0] } @benches), "\n";
		return 1;
	}
	Bench::start($top, (grep { $proxies{ $_->[0] } } @chosen) ? qw(proxy sim) : ());
	for my $bench (@chosen)
	{
		my ($name, $bar, $measure) = @$bench;
		my $value = $measure->();
		printf $value < 100 ? "%s %.2f %s\n" : "%s %.0f %s\n", $name, $value, $bar // '-';
	}
	return 0;
}
