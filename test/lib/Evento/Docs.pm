# Evento::Docs
#   Commands of the pages in docs/, for tests that run them as they stand there.
package Evento::Docs;

use strict;
use warnings;

use Carp qw(croak);
use PostgreSQL::Test::Utils ();

# The blocks of a kind (sh, ini) under a heading of a page, in their order.
sub blocks
{
	my ($page, $heading, $kind) = @_;
	my $text = PostgreSQL::Test::Utils::slurp_file(__FILE__ =~ s{test/lib/Evento/Docs\.pm$}{docs/$page.md}r);
	my ($section) = $text =~ /^(?:#+) \Q$heading\E\n(.*?)(?=^#+ |\z)/ms or croak "docs/$page.md has no heading $heading";
	my @blocks = $section =~ /^```\Q$kind\E\n(.*?)^```/msg;
	croak "nothing of kind $kind under $heading in docs/$page.md" if !@blocks;
	return @blocks;
}

# Runs one as a shell does that stops at the first error; true where all went well.  What it says goes to the test's log.
sub run_block
{
	my ($block, %env) = @_;
	local @ENV{ keys %env } = values %env;
	return PostgreSQL::Test::Utils::system_log('sh', '-eu', '-c', $block) == 0;
}

1;
