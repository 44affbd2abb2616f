# Evento::Valgrind
#   A server under valgrind's memcheck, and what memcheck says of it: errors
#   in the project's code, told by the stack, and errors elsewhere.
package Evento::Valgrind;

use strict;
use warnings;

use Evento::Host;

# logs: a directory, writable for the server, for memcheck's output.
# suppressions: the server's list of what to pass over.
sub new
{
	my ($class, %args) = @_;
	return bless { %args, read => {}, ours => 0, others => 0 }, $class;
}

# What stands before the server's command. Leaks are not looked for: a server
# lets its memory contexts go as a whole.
sub command
{
	my ($self) = @_;
	return ('valgrind', '--quiet', '--trace-children=yes', '--leak-check=no', '--track-origins=yes', '--error-limit=no', '--num-callers=40',
		'--fullpath-after=', '--error-markers=VALGRIND-BEGIN,VALGRIND-END', "--suppressions=$self->{suppressions}", "--log-file=$self->{logs}/%p.log");
}

# The errors in the project's code since the last call, each as text, without
# those that have the same stack as one before.
sub errors
{
	my ($self) = @_;
	my @errors;
	for my $file (sort glob "$self->{logs}/*.log")
	{
		open(my $fh, '<', $file) or next;
		seek($fh, $self->{read}{$file} // 0, 0);
		my ($block, $inside) = ('', 0);
		while (my $line = <$fh>)
		{
			if ($line =~ /VALGRIND-BEGIN/) { ($block, $inside) = ('', 1) }
			elsif ($line =~ /VALGRIND-END/)
			{
				push @errors, $block if $inside && $self->_count($block);
				$inside = 0;
				$self->{read}{$file} = tell $fh;
			}
			elsif ($inside)
			{
				$block .= $line =~ s/^(?:==|\*\*)\d+(?:==|\*\*) //r;
			}
			# What memcheck says beside errors: that it gave up.
			elsif ($line =~ /the 'impossible' happened|Fatal|unhandled instruction/)
			{
				push @errors, "valgrind gave up: $line";
				$self->{ours}++;
				$self->{read}{$file} = tell $fh;
			}
		}
	}
	return @errors;
}

# Begins to count, as if what was read until now was none.
sub reset
{
	my ($self) = @_;
	($self->{ours}, $self->{others}) = (0, 0);
	return;
}

# Counts an error; true where it is ours and new.
sub _count
{
	my ($self, $block) = @_;
	if (!ours($block))
	{
		$self->{others}++;
		return 0;
	}
	return 0 if $self->{seen}{ $block =~ s/0x[0-9A-F]+//gir }++;
	$self->{ours}++;
	return 1;
}

# An error is ours where a frame of its stack is; where memory came from, which
# follows the stack, does not make it so.
sub ours
{
	my ($block) = @_;
	my ($stack) = $block =~ /\A(.*?\n(?:\s+(?:at|by) 0x[^\n]*\n)+)/s;
	return scalar +($stack // $block) =~ m{/evento\w*\.so\)|/(?:extension|test/modules/\w+)/\w+\.[ch]:\d+\)|/evento_\w+\.c:\d+\)};
}

1;
