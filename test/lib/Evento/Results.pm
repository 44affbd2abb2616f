# Evento::Results
#   What the output of a test says: { passed, bad, skips }, the latter two with a
#   text for each that failed or was skipped.
package Evento::Results;

use strict;
use warnings;

# Counts what a TAP stream says, or several, one behind the other.
sub of_tap
{
	my ($text, $single) = @_;
	my %r = (passed => 0, bad => [], skips => []);
	my ($plan, $seen, $at_end) = (undef, 0, 0);
	my $close = sub {
		push @{ $r{bad} }, "planned $plan tests and ran $seen" if defined $plan && $plan != $seen;
		push @{ $r{bad} }, "ran $seen tests without a plan" if !defined $plan && $seen;
		($plan, $seen, $at_end) = (undef, 0, 0);
	};
	for my $line (split /\n/, $text)
	{
		if ($line =~ /^1\.\.(\d+)(?:\s*#\s*skip\S*\s*(.*))?/i)
		{
			my ($n, $reason) = ($1, $2);
			$close->() if defined $plan;
			($plan, $at_end) = ($n, $seen > 0);
			push @{ $r{skips} }, $reason // 'no reason given' if $n == 0;
			$close->() if $at_end;
		}
		elsif ($line =~ /^(not )?ok\b(.*)/)
		{
			my ($not, $rest) = ($1, $2);
			$close->() if !$single && defined $plan && $seen == $plan;
			$seen++;
			if ($rest =~ /#\s*skip\S*\s*(.*)/i) { push @{ $r{skips} }, $1 }
			elsif (!$not || $rest =~ /#\s*todo\b/i) { $r{passed}++ }
			else { push @{ $r{bad} }, "not ok$rest" }
		}
		elsif ($line =~ /^Bail out!\s*(.*)/)
		{
			push @{ $r{bad} }, "bailed out: $1";
		}
	}
	$close->();
	return \%r;
}

# Counts what pg_regress and pg_isolation_regress say, of either form.
sub of_regress
{
	my ($text) = @_;
	my %r = (passed => 0, bad => [], skips => []);
	for my $line (split /\n/, $text)
	{
		if ($line =~ /^(?:test\s+(\S+)\s+\.\.\. ok|ok \d+\s+[-+]\s+(\S+))/) { $r{passed}++ }
		elsif ($line =~ /^(?:test\s+(\S+)\s+\.\.\. (?:FAILED|failed)|not ok \d+\s+[-+]\s+(\S+))/) { push @{ $r{bad} }, 'differs from what is expected' }
	}
	return \%r;
}

1;
