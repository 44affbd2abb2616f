# 000_finds_faults.pl
#   That chaos would see what it looks for: records and logs with one planted
#   fault each; and that a seed gives one schedule, with all kinds in it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/..";

use Test::More;

use Chaos::Schedule;
use Chaos::Verdict;

# ---- the verdict ----

my @record = (
	'S 1.0 1 c1 Place s 8000', 'A 1.1 1 7 1',
	'C 1.2 f1 0', 'E 1.3 f1 1 1',
	'S 2.0 2 c1 Place s 8000', 'R 2.1 2', 'A 2.2 2 9 2',
	'S 2.3 3 c2 Notify t 8000', 'F 2.4 3 evento: no answer in time',
	'S 2.5 4 c2 Place s 8000',
	'C 2.9 f1 1', 'E 3.0 f1 2 2', 'E 3.1 f1 4 4', 'E 3.2 f1 5 3',
	'G 9.0 4');
# Position 3 was given to nobody; what was not answered is there.
my @log = ('1|s|1|t1|7|1', '2|s|2|t2|9|2', '4|s|3|t4|11|3', '5|t|1|t3|10|0');
my @checks = qw(lost twice different not_linearizable not_seen);

# Changes one line of either and gives the checks that find something.
sub found
{
	my ($from, $to) = @_;
	my $file = "$ENV{TESTDIR}/record";
	my @changed = map { defined $from && $_ eq $from ? $to // () : $_ } @record;
	open(my $fh, '>', $file) or die "$file: $!";
	print $fh map { "$_\n" } @changed;
	close $fh;
	my $verdict = Chaos::Verdict->new($file, join "\n", map { defined $from && $_ eq $from ? $to // () : $_ } @log);
	return join ' ', grep { my @what = $verdict->$_; note("  @what") if @what; @what } @checks;
}

is(found(), '', 'nothing is found where nothing is wrong');
is(found('2|s|2|t2|9|2'), 'lost not_linearizable not_seen', 'a lost event');
is(found('5|t|1|t3|10|0', "5|t|1|t3|10|0\n6|t|2|t3|12|0"), 'twice', 'one that is there twice');
is(found('2|s|2|t2|9|2', '2|s|2|t2|8|2'), 'different', 'another try than the one that was answered');
is(found('5|t|1|t3|10|0', '5|u|1|t3|10|0'), 'different', 'an event on another stream');
is(found('5|t|1|t3|10|0', "5|t|1|t3|10|0\n6|t|2|t9|12|0"), 'different', 'an event that nobody has sent');
is(found('4|s|3|t4|11|3', '4|s|3|t4|11|2'), 'not_linearizable', 'a handler that has not seen the last event');
is(found('4|s|3|t4|11|3', '4|s|4|t4|11|4'), 'not_linearizable', 'a gap in the versions');
is(found('S 1.0 1 c1 Place s 8000', 'S 2.25 1 c1 Place s 8000'), 'not_linearizable', 'a command before one that was answered when it was sent');
is(found('E 3.0 f1 2 2'), 'not_seen', 'an event that a consumer has not seen');
is(found('E 3.0 f1 2 2', "E 3.0 f1 2 2\nE 3.0 f1 2 2"), 'not_seen', 'one that it has seen twice');
is(found('E 3.1 f1 4 4', "E 3.1 f1 5 3\nE 3.1 f1 4 4"), 'not_seen', 'and in another order');
is(found('C 2.9 f1 1', 'C 2.9 f1 0'), 'not_seen', 'a consumer that goes on before its checkpoint');
is(found('E 1.3 f1 1 1'), 'not_seen', 'or missed the first');
is(found('G 9.0 4', "G 9.0 4\nL 9.1 4 11 3"), '', 'a late answer that is in the log');
is(found('F 2.4 3 evento: no answer in time', "F 2.4 3 evento: no answer in time\nL 9.1 3 10 1"), 'different', 'another answer than what is stored, after a failure');
is(found('A 1.1 1 7 1', "A 1.1 1 7 1\nL 1.2 1 8 1"), 'different', 'two answers');
is(found('G 9.0 4', "G 9.0 4\nL 9.1 0 0 0"), 'different', 'an answer to nothing');
is(found('S 2.5 4 c2 Place s 8000', "S 2.5 4 c2 Place s 8000\nS 2.6 5 c2 Notify t 8000\nG 9.1 5\nL 9.2 5 12 0"), 'lost', 'a late answer whose event is lost');

my $verdict = Chaos::Verdict->new(do { found(); "$ENV{TESTDIR}/record" }, '');
is($verdict->longest_gap(1.5, 1.8), '0.7', 'a time without progress begins with the last success before a fault');

# ---- the schedule ----

sub faults { my ($n, @of) = @_; my $schedule = Chaos::Schedule->new(@of); return map { Chaos::Schedule::text($schedule->next) } 1 .. $n }

is(join("\n", faults(200, 42)), join("\n", faults(200, 42)), 'a seed gives one schedule');
isnt(join("\n", faults(10, 42)), join("\n", faults(10, 43)), 'another seed another one');
is((faults(1, 1))[0], 'clock of a proxy (node 1, proxy 3, from, clock -3600), 4.9 s', 'the same everywhere');
my %kinds = map { s/ \(.*//r => 1 } faults(36, 5);
is(join(' ', grep { !$kinds{$_} } Chaos::Schedule::kinds()), '', 'every kind comes before any is there for a third time');
unlike(join("\n", faults(100, 5, 'disk full')), qr{disk full}, 'without what cannot be had');
done_testing();
