# How "make check" runs files side by side: what may run beside what, and that
# the processes of one are told from those of another, and ended, wherever they went.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use Test::More;
use Time::HiRes qw(sleep time);

use Evento::Host;
use Evento::Schedule;

my $top = abs_path(dirname(__FILE__) . '/../..');

# ---- the schedule ----

# Plays items, each of which lasts so many turns; gives the names as they begin, and checks who is beside whom.
sub play
{
	my ($jobs, @items) = @_;
	my (%running, @began);
	my ($most, $broken) = (0, '');
	my $begin = sub {
		my ($item) = @_;
		push @began, $item->{name};
		for my $other (values %running)
		{
			$broken .= " $item->{name} beside $other->{name}" if $item->{alone} || $other->{alone} || defined $item->{lane} && $item->{lane} eq ($other->{lane} // '');
		}
		$running{ $item->{name} } = $item;
		$most = keys %running if keys %running > $most;
	};
	my $done = sub {
		my ($item) = @_;
		return 0 if --$item->{turns} > 0;
		delete $running{ $item->{name} };
		return 1;
	};
	Evento::Schedule::run($jobs, $begin, $done, map { { turns => 1, %$_ } } @items);
	is($broken, '', "$jobs at a time: none is beside one that it may not be beside");
	return ("@began", $most);
}

my @items = ({ name => 'a', alone => 'it measures' }, (map { { name => "s$_", lane => 'sql', turns => 3 } } 1 .. 2), { name => 'b' }, { name => 'c', turns => 5 },
	{ name => 'j', lane => 'java', early => 1, turns => 4 });
is_deeply([ play(1, @items) ], [ 'a s1 s2 b c j', 1 ], 'one at a time: in their order');
is_deeply([ play(2, @items) ], [ 'j s1 s2 b c a', 2 ], 'two: a long lane first, who is to be alone last');
is_deeply([ play(3, @items) ], [ 'j s1 b c s2 a', 3 ], 'three: the second of a lane waits for the first');
is_deeply([ play(9, @items) ], [ 'j s1 b c s2 a', 4 ], 'nine: as many as may');

sub header
{
	my ($text) = @_;
	my $file = "$ENV{TESTDIR}/header.pl";
	open(my $fh, '>', $file) or die "$file: $!";
	print $fh $text;
	close $fh;
	return Evento::Schedule::alone($file);
}
is(header("# x.pl\n#   Measures.\n# alone: it counts the machine's processes\nuse strict;\n"), "it counts the machine's processes", 'a file says in its header that it is to be alone');
is(header("# x.pl\nuse strict;\n# alone: not in the header\n"), undef, 'and nowhere else');
cmp_ok(Evento::Schedule::default_jobs(), '>=', 1, 'at least one runs');

# ---- processes ----

my $host = Evento::Host->new(top => $top, name => 'side');

# A process that leaves one behind which has left its group and session, and, where it is to hide, its environment.
sub leave
{
	my ($part, $how) = @_;
	my $dir = $host->mkdir("$host->{dir}/run/$part");
	my $leave = $how eq 'environment' ? 'exec { "sleep" } "sleep", 1000' : 'delete @ENV{qw(EVENTO_PART)}; chdir $ARGV[0] or die; exec { "sleep" } "sleep", 1000';
	my $pid = $host->start([ $^X, '-MPOSIX', '-e', "fork and exit 0; setsid(); $leave", $dir ], part => $part, out => "$dir/out");
	is($host->wait($pid, 60), 0, "$part: its first process ends");
	my $until = time + 60;
	sleep 0.02 until grep({ $_->[1] =~ /sleep/ } $host->processes(part => $part, dir => $dir)) || time > $until;
	return (part => $part, dir => $dir);
}
my %one = leave('one', 'environment');
my %two = leave('one-more', 'directory');
is(scalar(my @all = $host->processes), 2, 'two are left');
is_deeply([ $host->end_processes(%one) ], ['sleep'], 'that of the first is ended');
is(scalar(my @first = $host->processes(%one)), 0, 'and gone');
is(scalar(my @second = $host->processes(%two)), 1, 'that of the second is not touched, though its name begins like the other');
is_deeply([ $host->end_processes(%two) ], ['sleep'], 'until its time comes, told by where it works');

my $start = time;
my $hangs = $host->start([ $^X, '-e', '$SIG{TERM} = "IGNORE"; $| = 1; print "deaf\n"; fork; sleep 1000' ], part => 'hangs', out => "$host->{dir}/log/hangs");
sleep 0.02 until -s "$host->{dir}/log/hangs" || time - $start > 60;
is($host->wait($hangs, 1) & 127, 9, 'one that hangs is ended, though it does not hear');
cmp_ok(time - $start, '<', 100, 'when its time is over');
is_deeply([ $host->processes(part => 'hangs', dir => "$host->{dir}/run/hangs") ], [], 'with what it started');

# One that ends by itself a little later is waited for; one that may be left is not.
my %late = (part => 'late', dir => $host->mkdir("$host->{dir}/run/late"));
$host->start([ $^X, '-e', 'sleep 1' ], %late, out => "$host->{dir}/log/late");
sleep 0.02 until $host->processes(%late) || time - $start > 200;
$host->wait_for_last(qr/sh/, %late);
is(scalar(my @late = $host->processes(%late)), 0, 'who is on its way out is given a moment');
$host->start([ 'sleep', 1000 ], %late, out => "$host->{dir}/log/late");
sleep 0.02 until grep({ $_->[1] =~ /sleep/ } $host->processes(%late)) || time - $start > 200;
$host->wait_for_last(qr/(?:core.*|sleep)/, %late);
is(scalar(my @may = $host->processes(%late)), 1, 'who may be left is not waited for');
$host->end_processes(%late);

$host->cleanup;
ok(!-e $host->{dir}, 'the directory goes in the end');

done_testing();
