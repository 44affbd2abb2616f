# Evento::Ledger
#   Writers and readers of a log that run all through a test and keep their own
#   record outside the server (test/ledger), and the check of that record
#   against what the log has in the end.
#
#     my $ledger = Evento::Ledger->new($node);
#     $ledger->write(clients => 8, streams => 20, batch => 1);
#     $ledger->read($node, 'view');
#     $ledger->read($standby, 'read_all');
#     $ledger->acknowledged(500);           # waits for so many more
#     …                                     # what the log has to survive
#     $ledger->acknowledged(500);
#     $ledger->survived('kill -9');         # stops all, checks, is a test
package Evento::Ledger;

use strict;
use warnings;

use Cwd qw(abs_path);
use Evento::Cluster;
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(clock_gettime sleep time CLOCK_MONOTONIC);

my $program;
my %running;

END { my $status = $?; kill('KILL', keys %running); waitpid($_, 0) for keys %running; $? = $status }

# The program that make check has built, else it is built here.
sub program
{
	return $program if $program;
	return $program = $ENV{EVENTO_LEDGER} if $ENV{EVENTO_LEDGER};
	my $source = abs_path(dirname(__FILE__) . '/../../ledger');
	my $built = "$PostgreSQL::Test::Utils::tmp_check/ledger";
	my $log = `make -s -C '$source' BUILD='$built' 2>&1`;
	die "evento-ledger was not built:\n$log" if $? != 0;
	return $program = "$built/evento-ledger";
}

# For a server that has the extension in database postgres. conninfo: where
# writers connect to (several hosts, say), else the server.
sub new
{
	my ($class, $node, %opt) = @_;
	my $self = bless {
		node => $node,
		db => $opt{db} // 'postgres',
		conninfo => $opt{conninfo},
		dir => $node->basedir . '/ledger' . ($opt{name} // ''),
		writers => [],
		readers => [],
		files => [],
		passed_over => {},
	}, $class;
	mkdir $self->{dir} or die "$self->{dir}: $!";
	$node->safe_psql($self->{db}, 'CREATE TABLE IF NOT EXISTS public.ledger_rows (op bigint PRIMARY KEY, versions bigint[] NOT NULL)');
	return $self;
}

sub conninfo
{
	my ($self, $node) = @_;
	return $node->connstr($self->{db});
}

sub start
{
	my ($self, @command) = @_;
	my $handle = $self->{node}->launch(program(), @command);
	$running{ $handle->{pid} } = 1;
	return $handle;
}

# Starts a writer. clients, streams, batch, positions, seconds, max_pause,
# think, padding as evento-ledger has them; conninfo. Gives a handle with its pid.
sub write
{
	my ($self, %opt) = @_;
	my $file = $self->{dir} . '/writer' . @{ $self->{writers} };
	my @options = ('--conninfo', $opt{conninfo} // $self->{conninfo} // $self->conninfo($self->{node}), '--file', $file);
	for my $flag (qw(batch positions)) { push @options, "--$flag" if $opt{$flag} }
	for my $name (qw(clients streams seconds max_pause think padding)) { push @options, '--' . $name =~ s/_/-/r, $opt{$name} if defined $opt{$name} }
	my $handle = $self->start('write', @options);
	$handle->{file} = $file;
	push @{ $self->{writers} }, $handle;
	push @{ $self->{files} }, $file;
	return $handle;
}

# Starts a reader on a server (or with a conninfo). mode: read_all,
# view, wait, notify, or consumer, which is a durable one by a name of its own.
sub read
{
	my ($self, $where, $mode) = @_;
	my $file = $self->{dir} . '/reader' . @{ $self->{readers} } . "_$mode";
	my $handle = $self->start('read', '--conninfo', ref $where ? $self->conninfo($where) : $where, '--file', $file, '--mode', $mode, '--name', "reader" . @{ $self->{readers} });
	$handle->{file} = $file;
	push @{ $self->{readers} }, $handle;
	push @{ $self->{files} }, $file;
	return $handle;
}

# How many operations have been acknowledged so far.
sub count
{
	my ($self) = @_;
	my $n = 0;
	for my $writer (@{ $self->{writers} })
	{
		open(my $file, '<', $writer->{file}) or next;
		while (<$file>) { $n++ if /^E \S+ \d+ ok / }
	}
	return $n;
}

# Waits until so many more have been acknowledged; dies after timeout seconds.
sub acknowledged
{
	my ($self, $more, $timeout) = @_;
	my $until = time + ($timeout // 120);
	my $aim = $self->count + $more;
	while (1)
	{
		my $n = $self->count;
		return $n if $n >= $aim;
		for my $handle (@{ $self->{writers} })
		{
			next if !$running{ $handle->{pid} };
			next if waitpid($handle->{pid}, 1) == 0;
			delete $running{ $handle->{pid} };
			die 'a writer has ended: ' . PostgreSQL::Test::Utils::slurp_file($handle->{err});
		}
		die "$n operations were acknowledged, $aim are waited for" if time > $until;
		sleep 0.1;
	}
}

sub stop_handles
{
	my ($self, $what, @handles) = @_;
	my $well = 1;
	for my $handle (@handles) { kill('TERM', $handle->{pid}) if $running{ $handle->{pid} } }
	for my $handle (@handles)
	{
		next if !$running{ $handle->{pid} };
		my $status = $self->{node}->finish($handle, 90);
		delete $running{ $handle->{pid} };
		next if $status == 0;
		diag("$what ended with $status: " . PostgreSQL::Test::Utils::slurp_file($handle->{err}));
		$well = 0;
	}
	return $well;
}

# Stops the writers; each first learns the outcome of what it has under way.
sub stop_writers
{
	my ($self) = @_;
	return $self->stop_handles('a writer', @{ $self->{writers} });
}

# Readers read what is left, and stop. Call it once all that is written is readable where they read.
sub stop_readers
{
	my ($self) = @_;
	return $self->stop_handles('a reader', @{ $self->{readers} });
}

# Takes a reader out of the check, as the end of its server makes necessary: it
# is ended where it stands, and need not have come to the end.
# What it was given counts all the same.
sub abandon
{
	my ($self, $reader) = @_;
	kill('KILL', $reader->{pid});
	$self->{node}->finish($reader, 10);
	delete $running{ $reader->{pid} };
	$reader->{abandoned} = 1;
	# The last line may be half written.
	my $text = PostgreSQL::Test::Utils::slurp_file($reader->{file}) =~ s/[^\n]+\z//r;
	open(my $file, '>', $reader->{file}) or die $!;
	print $file $text;
	close $file;
	return;
}

# A file as far as it is written: one that is being written may end in the
# middle of a line, and is copied.
sub so_far
{
	my ($self, $file) = @_;
	return $file if !grep { $_->{file} eq $file && $running{ $_->{pid} } } @{ $self->{writers} }, @{ $self->{readers} };
	open(my $copy, '>', "$file.so_far") or die "$file.so_far: $!";
	print $copy PostgreSQL::Test::Utils::slurp_file($file) =~ s/[^\n]+\z//r;
	close $copy;
	return "$file.so_far";
}

# Holds the record against the content of a server. Gives whether all is well,
# the numbers of the summary, and what was printed. db: of another database;
# lossy_after: what was acknowledged later than that (see now) may be lost, and
# nothing else; lossless: nothing may. Without these it is the log's own jumps
# that say what may be lost. absent_after: what was invoked later has to be.
# Writers and readers may go on meanwhile.
sub check
{
	my ($self, $node, %opt) = @_;
	my $dump = "$self->{dir}/log";
	my ($out, $err) = ('', '');
	my $handle = $node->launch(program(), 'dump', '--conninfo', $node->connstr($opt{db} // $self->{db}), '--file', $dump);
	return (0, {}, 'the log was not dumped: ' . PostgreSQL::Test::Utils::slurp_file($handle->{err})) if $node->finish($handle, 120) != 0;
	# Readers first: whatever they were given, its writer has recorded before.
	my @files = map { $self->so_far($_) } sort { $a cmp $b } @{ $self->{files} };
	my $complete = $opt{complete} && !grep { $_->{abandoned} } @{ $self->{readers} };
	$handle = $node->launch(program(), 'check', ($complete ? '--complete' : ()), ($opt{lossless} ? '--lossless' : ()), (map { defined $opt{$_} ? ('--' . tr/_/-/r, $opt{$_}) : () } qw(lossy_after absent_after)), $dump, @files);
	my $status = $node->finish($handle, 120);
	my $text = PostgreSQL::Test::Utils::slurp_file($handle->{out}) . PostgreSQL::Test::Utils::slurp_file($handle->{err});
	my ($summary) = $text =~ /^(operations .*)$/m;
	return ($status == 0, { split / /, $summary // '' }, $text);
}

# The time as the record has it, in nanoseconds.
sub now
{
	return sprintf '%.0f', 1e9 * clock_gettime(CLOCK_MONOTONIC);
}

# Stops all that runs and tests what must hold. on: the server that has the
# log now. standbys: servers that readers read from besides, which have to
# follow first. Gives the numbers of the summary.
sub survived
{
	my ($self, $what, %opt) = @_;
	my $node = $opt{on} // $self->{node};
	ok($self->stop_writers, "$what: writers have come to their end");
	my $last = $node->settle($self->{db});
	for my $standby (@{ $opt{standbys} // [] })
	{
		$node->wait_for_catchup($standby);
		my $there = $standby->safe_psql($self->{db}, sprintf q{CALL evento.wait(%d, '60s')}, $last - 1);
		is($there >= $last, 1, "$what: the standby has followed") or diag("$there, not $last");
	}
	ok($self->stop_readers, "$what: readers have come to their end");
	my ($well, $n, $text) = $self->check($node, complete => 1, map { $_ => $opt{$_} } qw(lossless lossy_after absent_after));
	ok($well, "$what: nothing lost, nothing twice, versions dense, readers missed nothing, streams linearizable") or diag($text);
	note($text);
	return $n;
}

1;
