# What test/lib/pgtree makes: a PostgreSQL with the extension that is of the
# sources alone and of the server that is asked for, whatever an earlier make left,
# and from which nothing can be written into the installation.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $top = abs_path(dirname(__FILE__) . '/../..');
my $dir = $ENV{TESTDIR};
my $src = "$dir/src";
mkdir $src;
system('cp', '-R', map({ "$top/$_" } qw(Makefile evento.control extension include sql)), $src) == 0 or die;
mkdir "$src/test";
system('cp', '-R', "$top/test/lib", "$top/test/upgrade", "$src/test/") == 0 or die;

sub set_file
{
	my ($file, $text) = @_;
	open(my $out, '>', $file) or die "$file: $!";
	print $out $text;
	close $out;
	return;
}

# Makes the tree for a pg_config, and gives its directory of executables.
sub tree_of
{
	my ($pg_config) = @_;
	delete local @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL)};
	local $ENV{PGTREE} = "$dir/tree";
	my $out = `'$src/test/lib/pgtree' '$pg_config' 2>'$dir/pgtree.err'`;
	is($?, 0, 'the tree was made') or diag(slurp_file("$dir/pgtree.err"));
	chomp $out;
	return $out;
}

sub place { my ($bin, $what) = @_; chomp(my $place = `'$bin/pg_config' --$what`); return $place }

# ---- after a make in the checkout ----

my @left = ('evento.so', 'sql/evento--0.2.0.sql', 'extension/append.o');
set_file("$src/$_", "left by a make\n") for @left;
my $bin = tree_of($ENV{PG_CONFIG});
my ($library, $extension) = (place($bin, 'pkglibdir') . '/evento.so', place($bin, 'sharedir') . '/extension');
is(index($library, "$dir/tree/"), 0, 'its libraries are in it');
is(slurp_file("$extension/evento--0.2.0.sql"), slurp_file("$src/sql/evento.sql"), 'the script is that of the sources');
is(substr(slurp_file($library), 0, 4), "\x7fELF", 'so is the library');
is(slurp_file("$src/$_"), "left by a make\n", "$_ is as it was") for @left;
ok(-e "$extension/evento--0.1.0.sql", 'earlier versions are there');

# ---- nothing of it is the installation's ----

is(`find '$dir/tree' -path '$dir/tree/objects' -prune -o -type l -print`, '', 'there is no link in it');
is(`find '$dir/tree' -path '$dir/tree/objects' -prune -o -type f -links +1 -print`, '', 'of neither kind');

# ---- another server ----

my $object = "$dir/tree/objects/extension/append.o";
utime(1, 1, $object, $library);
utime(1, 1, glob("$src/extension/*.[ch]"), glob("$src/include/*.h"), "$src/evento.control", "$dir/tree/objects/extension/.server");
tree_of($ENV{PG_CONFIG});
is((stat $object)[9], 1, 'what is made for a server is kept for it');
mkdir "$dir/other";
set_file("$dir/other/pg_config", qq{#!/bin/sh\n"$ENV{PG_CONFIG}" "\$\@" | sed "s/^\\(PostgreSQL [0-9.]*\\).*/\\1 (another)/"\n});
chmod 0755, "$dir/other/pg_config";
tree_of("$dir/other/pg_config");
cmp_ok((stat $object)[9], '>', 1, 'and made again for another');

done_testing();
