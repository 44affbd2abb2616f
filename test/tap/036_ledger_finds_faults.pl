# The check of recorded histories finds what it is there to find: in histories
# that were doctored, a fault of each kind; and in real ones, faults planted
# into a copy of the extension, which the writers and readers of the other
# tests meet as they run.
use strict;
use warnings;

use Cwd qw(abs_path);
use Evento::Cluster;
use Evento::Ledger;
use File::Basename qw(dirname);
use File::Path qw(make_path);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $top = abs_path(dirname(__FILE__) . '/../..');

# ---- doctored histories ----

# Id of an event: its operation and its number in it.
sub id { return sprintf '%08x-%04x-%04x-0000-%012x', 0, 0, $_[0], $_[1] }
sub op { return sprintf '%016x', $_[0] }

# A history in order: each kind of operation and of outcome.
my %good = (
	writer => [
		'B ' . op(1) . ' 100 e 0 0:0:1:k', 'B ' . op(2) . ' 150 e 0 0:0:1:k', 'E ' . op(1) . ' 200 ok 1 1 1', 'E ' . op(2) . ' 260 conflict 0 1',
		'B ' . op(3) . ' 300 t 1 0:*:1:k 1:*:2:k', 'E ' . op(3) . ' 400 ok 2 4 2 2',
		'B ' . op(4) . ' 500 s 1 1:*:1:k 1:*:1:g 1:*:1:k', 'E ' . op(4) . ' 600 ok 5 6 3 4',
		'B ' . op(5) . ' 700 x 1 -1:*:1:k', 'B ' . op(6) . ' 710 r 1 0:*:1:k', 'E ' . op(6) . ' 720 failed rolled-back', 'E ' . op(5) . ' 800 ok 7 7 0',
		'B ' . op(7) . ' 900 n 0 2:0:3:k', 'U ' . op(7) . ' 950 lost', 'A ' . op(7) . ' 1000', 'E ' . op(7) . ' 1100 ok 0 0 3',
		'B ' . op(8) . ' 1200 a 0 0:*:1:k', 'U ' . op(8) . ' 1210 lost', 'B ' . op(9) . ' 1200 t 1 0:*:1:k 1:*:1:k', 'U ' . op(9) . ' 1220 lost',
		'B ' . op(10) . ' 1300 e 0 0:2:1:k', 'E ' . op(10) . ' 1350 conflict 0 3',
		'B ' . op(11) . ' 1400 e 0 0:3:1:k', 'E ' . op(11) . ' 1450 ok 12 12 4' ],
	log => [
		'L 1 ' . id(1, 0) . ' 1 Ledger ledger-0',
		'L 2 ' . id(3, 0) . ' 2 Ledger ledger-0', 'L 3 ' . id(3, 1) . ' 1 Ledger ledger-1', 'L 4 ' . id(3, 2) . ' 2 Ledger ledger-1',
		'L 5 ' . id(4, 0) . ' 3 Ledger ledger-1', 'L 6 ' . id(4, 2) . ' 4 Ledger ledger-1',
		'L 7 ' . id(5, 0) . ' 0 Ledger -',
		'L 8 ' . id(7, 0) . ' 1 Ledger ledger-2', 'L 9 ' . id(7, 1) . ' 2 Ledger ledger-2', 'L 10 ' . id(7, 2) . ' 3 Ledger ledger-2',
		'L 11 ' . id(8, 0) . ' 3 Ledger ledger-0', 'L 12 ' . id(11, 0) . ' 4 Ledger ledger-0',
		map({ 'T ' . op($_) } 3, 4, 5), '# end' ]);
$good{reader} = [ '# reader read_all', map { /^L (\d+ \S+ \d+) \S+ (\S+)/ ? "R 1 $1 $2" : () } @{ $good{log} } ];
$good{other} = [ @{ $good{reader} }[ 0 .. 8 ] ];

# Checks a history in which edit has changed lines; gives status and output.
my $files = 0;
sub checked
{
	my ($edit, @flags) = @_;
	my $history = { map { $_ => [ @{ $good{$_} } ] } keys %good };
	$edit->($history);
	my $dir = "$PostgreSQL::Test::Utils::tmp_check/doctored" . ++$files;
	make_path($dir);
	append_to_file("$dir/$_", join '', map { "$_\n" } @{ $history->{$_} }) for keys %$history;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ Evento::Ledger::program(), 'check', @flags, "$dir/log", "$dir/writer", "$dir/reader", "$dir/other" ], '>', \$out, '2>', \$err);
	return ($ok ? 0 : $? >> 8, $out . $err);
}

# Replaces in the lines of a file what matches; exactly so many lines must.
sub change
{
	my ($lines, $from, $to, $times) = @_;
	my $n = 0;
	for (@$lines) { $n++ if s/$from/$to/ }
	die "$from is there $n times" if $n != ($times // 1);
	return;
}

sub drop { my ($lines, $what) = @_; my $n = @$lines; @$lines = grep { !/$what/ } @$lines; die "$what is not there" if $n == @$lines; return }

my ($status, $output) = checked(sub { });
is($status, 0, 'a history in order passes') or diag($output);
like($output, qr/^operations 11 acknowledged 6 conflicts 2 failed 1 unknown 2 lost 0 events 12 readers 2 read 20 violations 0$/m, 'all of it was looked at');

my $everywhere = sub { my ($h, $from, $to) = @_; change($h->{$_}, $from, $to) for 'log', 'reader' };
my @cases = (
	[ 'acknowledged and lost', sub { drop($_[0]{$_}, id(11, 0)) for 'log', 'reader' } ],
	[ 'acknowledged and lost', sub { drop($_[0]{$_}, op(4) . '|' . id(4, 0) . '|' . id(4, 2)) for 'log'; drop($_[0]{$_}, id(4, 0) . '|' . id(4, 2)) for 'reader', 'other' }, 'of a transaction with its row' ],
	[ 'stored twice', sub { splice @{ $_[0]{log} }, 12, 0, 'L 13 ' . id(11, 0) . ' 5 Ledger ledger-0'; push @{ $_[0]{reader} }, 'R 1 13 ' . id(11, 0) . ' 5 ledger-0' } ],
	[ 'position used twice', sub { splice @{ $_[0]{log} }, 12, 0, 'L 12 ' . id(8, 0) . ' 5 Ledger ledger-0' }, 'in the log' ],
	[ 'position given to another event', sub { change($_[0]{other}, 'R 1 7 ' . id(5, 0), 'R 1 7 ' . id(6, 0)) }, 'than a reader was given' ],
	[ 'position given to another event', sub { push @{ $_[0]{log} }, 'J 12 1000'; push @{ $_[0]{reader} }, 'R 1 14 ' . id(8, 0) . ' 5 ledger-0';
		$_[0]{other} = [ @{ $_[0]{reader} }[ 0 .. 12 ], 'R 1 14 ' . id(9, 0) . ' 5 ledger-0' ] }, 'that was lost, of two readers' ],
	[ 'read and lost', sub { push @{ $_[0]{reader} }, 'R 1 13 ' . id(9, 0) . ' 5 ledger-0' } ],
	[ 'skipped by a reader', sub { drop($_[0]{other}, '^R 1 4 ') } ],
	[ 'skipped by a reader', sub { drop($_[0]{other}, '^R 1 1 ') }, 'the first' ],
	[ 'reader out of order', sub { @{ $_[0]{other} }[ 2, 3 ] = @{ $_[0]{other} }[ 3, 2 ] } ],
	[ 'reader out of order', sub { push @{ $_[0]{other} }, $_[0]{other}[-1] }, 'the same twice' ],
	[ 'reader behind', sub { }, 'complete', '--complete' ],
	[ 'versions not dense', sub { $everywhere->($_[0], id(11, 0) . ' 4', id(11, 0) . ' 5') } ],
	[ 'another version than acknowledged', sub { for my $f ('log', 'reader', 'other') { change($_[0]{$f}, id(3, 1) . ' 1', id(3, 1) . ' x'); change($_[0]{$f}, id(3, 2) . ' 2', id(3, 2) . ' 1'); change($_[0]{$f}, id(3, 1) . ' x', id(3, 1) . ' 2') } }, 'swapped' ],
	[ 'versions against positions', sub { for my $f ('log', 'reader', 'other') { change($_[0]{$f}, id(3, 1) . ' 1', id(3, 1) . ' x'); change($_[0]{$f}, id(3, 2) . ' 2', id(3, 2) . ' 1'); change($_[0]{$f}, id(3, 1) . ' x', id(3, 1) . ' 2') } } ],
	[ 'stored at another version than expected', sub { change($_[0]{writer}, '1400 e 0 0:3:1', '1400 e 0 0:2:1') } ],
	[ 'another position than acknowledged', sub { change($_[0]{writer}, 'ok 12 12', 'ok 13 13') } ],
	[ 'positions not in one block', sub { change($_[0]{$_}, '10 ' . id(7, 2), '11 ' . id(7, 2)) for 'log', 'reader'; change($_[0]{$_}, '11 ' . id(8, 0), '10 ' . id(8, 0)) for 'log', 'reader';
		for my $f ('log', 'reader') { @{ $_[0]{$f} }[ $f eq 'log' ? (9, 10) : (10, 11) ] = @{ $_[0]{$f} }[ $f eq 'log' ? (10, 9) : (11, 10) ] } } ],
	[ 'torn', sub { drop($_[0]{$_}, id(3, 2)) for 'log', 'reader', 'other' }, 'events of a transaction' ],
	[ 'torn', sub { drop($_[0]{log}, 'T ' . op(3)) }, 'row of a transaction' ],
	[ 'torn', sub { splice @{ $_[0]{log} }, 12, 0, 'T ' . op(9) }, 'row of one that nobody knows of' ],
	[ 'torn', sub { splice @{ $_[0]{log} }, 12, 0, 'T ' . op(6) }, 'row of one that failed' ],
	[ 'row of nobody', sub { splice @{ $_[0]{log} }, 12, 0, 'T ' . op(99) } ],
	[ 'sent by nobody', sub { splice @{ $_[0]{log} }, 12, 0, 'L 13 ' . id(99, 0) . ' 5 Ledger ledger-0'; push @{ $_[0]{reader} }, 'R 1 13 ' . id(99, 0) . ' 5 ledger-0' } ],
	[ 'stored though failed', sub { splice @{ $_[0]{log} }, 12, 0, 'L 13 ' . id(6, 0) . ' 5 Ledger ledger-0'; push @{ $_[0]{reader} }, 'R 1 13 ' . id(6, 0) . ' 5 ledger-0' } ],
	[ 'stored though rolled back', sub { splice @{ $_[0]{log} }, 12, 0, 'L 13 ' . id(4, 1) . ' 5 Ledger ledger-1'; push @{ $_[0]{reader} }, 'R 1 13 ' . id(4, 1) . ' 5 ledger-1' } ],
	[ 'in another stream', sub { change($_[0]{$_}, id(11, 0) . '(.*)ledger-0', id(11, 0) . ' 1 Ledger ledger-3') for 'log'; change($_[0]{reader}, id(11, 0) . '.*', id(11, 0) . ' 1 ledger-3') } ],
	[ 'not linearizable', sub { change($_[0]{writer}, '1300 e', '1500 e'); change($_[0]{writer}, '1350 conflict', '1550 conflict') }, 'a stale conflict: the next version had been acknowledged' ],
	[ 'not linearizable', sub { change($_[0]{writer}, op(8) . ' 1200 a', op(8) . ' 1360 a') }, 'a conflict with a version that nobody had invoked' ],
	[ 'not linearizable', sub { change($_[0]{writer}, op(3) . ' 300 t', op(3) . ' 1600 t'); change($_[0]{writer}, op(3) . ' 400 ok', op(3) . ' 1700 ok') }, 'versions against real time' ],
	[ 'global order against real time', sub { change($_[0]{writer}, op(5) . ' 700 x', op(5) . ' 1600 x'); change($_[0]{writer}, op(5) . ' 800 ok', op(5) . ' 1700 ok') } ],
	[ 'conflict without reason', sub { change($_[0]{writer}, 'e 0 0:2:1:k', 'e 0 0:3:1:k') } ],
	[ 'conflict with a version that never was', sub { change($_[0]{writer}, 'conflict 0 3', 'conflict 0 9') } ],
	[ 'conflict in the middle of an append', sub { splice @{ $_[0]{writer} }, -2, 0, 'B ' . op(12) . ' 1050 e 0 2:0:1:k', 'E ' . op(12) . ' 1060 conflict 0 2' } ]);
for my $case (@cases)
{
	my ($kind, $edit, $what, @flags) = @$case;
	my ($found, $text) = checked($edit, @flags);
	ok($found == 1 && $text =~ /^violation: \Q$kind\E: /m, "found: $kind" . ($what ? " ($what)" : '')) or diag("status $found\n$text");
}

# What a failover may take away is no fault, as long as a jump of the positions says so.
($status, $output) = checked(sub { drop($_[0]{log}, id(11, 0)); push @{ $_[0]{log} }, 'J 11 1000' });
is($status, 0, 'an event behind which positions jumped may be lost') or diag($output);
($status, $output) = checked(sub { push @{ $_[0]{writer} }, 'E nonsense' });
is($status, 2, 'a file that cannot be read is no success');
($status, $output) = checked(sub { drop($_[0]{log}, '# end') });
is($status, 2, 'nor is half of the log');

# ---- faults in the server ----

# Each is a change of one place in the sources, which has to be there once. They
# are asleep until the environment of the server wakes one of them.
my @faults = (
	[ 'no_slot', 'extension/sequencer.c', 'pg_atomic_write_u64(&slot->lower, lower);',
		'pg_atomic_write_u64(&slot->lower, getenv("no_slot") ? 0 : lower);' ],
	[ 'stale_head', 'extension/heads.c', '*version = head->version;', '*version = head->version - (getenv("stale_head") && rand() % 2 == 0 && head->version > 1);' ],
	[ 'no_flush', 'extension/evento.h', '#endif							/* EVENTO_H */', "#include \"access/xact.h\"\n#define ForceSyncCommit() (getenv(\"no_flush\") ? (void) 0 : (ForceSyncCommit)())\n#endif" ]);

my $copy = "$PostgreSQL::Test::Utils::tmp_check/faulty";
make_path("$copy/test");
system('cp', '-r', map({ "$top/$_" } qw(Makefile evento.control extension include sql)), $copy) == 0 or die 'copy';
system('cp', '-r', "$top/test/lib", "$top/test/upgrade", "$copy/test") == 0 or die 'copy';
system('sh', '-c', 'find "$1" -name "*.o" -o -name "*.so" | xargs rm -f', 'sh', $copy);
for my $fault (@faults)
{
	my ($name, $file, $from, $to) = @$fault;
	my $text = slurp_file("$copy/$file");
	my $times = () = $text =~ /\Q$from\E/g;
	is($times, 1, "$name: the place in $file is there");
	$text =~ s/\Q$from\E/$to/;
	$text =~ s/#include "postgres.h"\n/#include "postgres.h"\n#include "miscadmin.h"\n/;
	open(my $out, '>', "$copy/$file") or die $!;
	print $out $text;
	close $out;
}
my $bin = do { local $ENV{PGTREE} = "$copy/tree"; local $ENV{WERROR} = 0; `'$copy/test/lib/pgtree' '$ENV{PG_CONFIG}' 2>&1` };
chomp $bin;
is($?, 0, 'the faulty extension was built') or BAIL_OUT($bin);

sub faulty_run
{
	my ($fault, $expected, $conf, $writer, $while) = @_;
	local $ENV{ $fault // 'no_fault' } = 1;
	my $name = $fault // 'no_fault';
	my $node = Evento::Cluster->make($name, install_path => dirname($bin), conf => "wal_writer_delay = 10s\n$conf");
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION evento');
	my $ledger = Evento::Ledger->new($node);
	$ledger->write(clients => 8, %$writer);
	$ledger->read($node, $_) for qw(read_all view);
	# Whoever meets a fault does so by chance: they go on until somebody has.
	for (1 .. 10)
	{
		$while->($node, $ledger);
		last if !$expected || ($ledger->check($node))[2] =~ /^violation: \Q$expected\E/m;
	}
	$ledger->stop_writers;
	$node->settle;
	$ledger->stop_readers;
	my ($well, $n, $text) = $ledger->check($node, complete => 1);
	if ($expected)
	{
		ok(!$well, "$name: the check fails");
		like($text, qr/^violation: \Q$expected\E/m, "$name: $expected");
	}
	else
	{
		ok($well, 'the copy without a fault passes') or diag($text);
	}
	note($text);
	$node->stop('immediate');
	return;
}

my $some = sub { $_[1]->acknowledged(2000) };
my $crash = sub {
	my ($node, $ledger) = @_;
	for (1 .. 5) { $ledger->acknowledged(200); $node->stop('immediate'); $node->start }
	$ledger->acknowledged(50);
};
faulty_run(undef, undef, '', { streams => 30 }, $crash);
faulty_run('no_slot', 'skipped by a reader', "commit_delay = 2000\ncommit_siblings = 1\n", { streams => 2000 }, $some);
faulty_run('stale_head', 'not linearizable', '', { streams => 4 }, $some);
faulty_run('no_flush', 'acknowledged and lost', "synchronous_commit = off\n", { streams => 30 }, $crash);
done_testing();
