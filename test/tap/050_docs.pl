# What the pages in docs/ show is what happens: the statements in their "sql"
# blocks are run, page by page, in a database of its own.  Where a block shows
# what psql prints, that has to be printed ("…" stands for anything); where it
# shows statements alone, none of them may fail.  Blocks of another kind are
# not run.
use strict;
use warnings;
use utf8;

use Encode ();
use FindBin;

use Evento::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $docs = "$FindBin::RealBin/../../docs";
my $tag = qr/^(?:(?:CREATE|ALTER|DROP) [A-Z ]+|INSERT 0 \d+|(?:UPDATE|DELETE|SELECT|COPY|FETCH|MOVE) \d+|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET|RESET|DO|CALL|GRANT(?: ROLE)?|REVOKE(?: ROLE)?|TRUNCATE TABLE|VACUUM|ANALYZE|COMMENT|LISTEN|NOTIFY)$/;
my $keyword = qr/^(?:SELECT|CREATE|ALTER|DROP|CALL|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|INSERT|UPDATE|DELETE|DO|WITH|GRANT|REVOKE|SET|RESET|EXPLAIN|VACUUM|ANALYZE|TABLE|COPY|LISTEN|NOTIFY|TRUNCATE|COMMENT|PREPARE|SHOW|DECLARE|FETCH|CLOSE)\b/;

my $node = Evento::Cluster->make('docs');
$node->start;

# Takes a block apart: [ statement, what is shown behind it ], …
sub statements
{
	my ($block) = @_;
	my @found;
	my $open = 0;
	for my $line (split /\n/, $block)
	{
		if ($open)
		{
			$found[-1][0] .= "$line\n";
			$open = 0 if $line =~ /;\s*(?:--.*)?$/ && ($found[-1][0] =~ tr/$//) % 4 == 0;
		}
		elsif ($line !~ $tag && $line =~ $keyword)
		{
			push @found, [ "$line\n", [] ];
			$open = $line !~ /;\s*(?:--.*)?$/ || ($line =~ tr/$//) % 4 != 0;
		}
		elsif ($line =~ /\S/ && $line !~ /^-- /)
		{
			return if !@found;
			push @{ $found[-1][1] }, $line;
		}
	}
	return $open ? () : @found;
}

sub lines
{
	my ($text) = @_;
	return join "\n", map { s/\s+$//r } grep { /\S/ } split /\n/, $text;
}

# Whether what was printed is what is shown.
sub fits
{
	my ($shown, $printed) = @_;
	my $pattern = join '.*', map { quotemeta } split /…/, $shown, -1;
	return $printed =~ /\A$pattern\z/s;
}

for my $file (sort glob "$docs/*.md")
{
	my ($page) = $file =~ m{([^/]+)\.md$};
	my $text = slurp_file($file);
	utf8::decode($text);
	my @blocks = $text =~ /^```sql\n(.*?)^```/msg or next;
	my $db = "docs_$page" =~ tr/-/_/r;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION evento') if $text !~ /^CREATE EXTENSION evento;/m;

	my (@all, $script);
	for my $n (0 .. $#blocks)
	{
		my @statements = statements($blocks[$n]);
		ok(scalar @statements, "$page, block ${\($n + 1)}: begins with a statement and ends behind one");
		my $shows = grep { @{ $_->[1] } } @statements;
		push @all, map { { block => $n + 1, statement => $_->[0], shown => $shows ? lines(join "\n", @{ $_->[1] }) : undef } } @statements;
	}
	$script .= "$_->{statement}\n\\echo \@\@\n" for @all;
	utf8::encode($script);
	my $printed = '';
	IPC::Run::run([ 'psql', '-X', '-d', $node->connstr($db) ], '<', \$script, '>', \$printed, '2>&1');
	utf8::decode($printed);
	my @printed = map { lines($_) } split /^@@\n/m, $printed, -1;
	for my $i (0 .. $#all)
	{
		my ($s, $out) = ($all[$i], $printed[$i] // '(psql ended)');
		my $ok = defined $s->{shown} ? fits($s->{shown}, $out) : $out !~ /^(?:ERROR|FATAL|psql:)/m && defined $printed[$i];
		ok($ok, "$page, block $s->{block}: " . ($s->{statement} =~ s/\n.*//sr)) or diag(Encode::encode_utf8("printed:\n$out\n" . (defined $s->{shown} ? "shown:\n$s->{shown}" : '')));
	}
	$node->safe_psql('postgres', "DROP DATABASE $db");
}
$node->stop;
done_testing();
