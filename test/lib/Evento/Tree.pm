# Evento::Tree
#   A copy of the private PostgreSQL, in the test's own directory, in which a
#   test may change the scripts of the extension: versions that there are not
#   yet.
package Evento::Tree;

use strict;
use warnings;

use Carp qw(croak);
use Evento::Cluster;
use File::Basename qw(dirname);
use File::Path qw(make_path);
use PostgreSQL::Test::Utils;

# Executables and what is shared are copied; libraries are those of the tree, which PostgreSQL finds by its own place.
sub new
{
	my ($class) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir('tree');
	my $of = sub { my ($what) = @_; chomp(my $path = `'$ENV{EVENTO_BINDIR}/pg_config' --$what`); return $path };
	my ($bin, $lib, $share) = map { $of->($_) } qw(bindir pkglibdir sharedir);
	make_path(map { $dir . dirname($_) } $bin, $lib, $share);
	system('cp', '-RL', $bin, "$dir$bin") == 0 && system('cp', '-RL', $share, "$dir$share") == 0 or croak 'the tree is not copied';
	symlink($lib, "$dir$lib") or croak "$lib: $!";
	system('chmod', '-R', 'u+w', "$dir$share") == 0 or croak 'the tree stays read-only';
	return bless { bin => "$dir$bin", extension => "$dir$share/extension" }, $class;
}

# What Evento::Cluster and PostgreSQL::Test::Cluster want as install_path.
sub install_path { my ($self) = @_; return dirname($self->{bin}) }

# The version that CREATE EXTENSION and ALTER EXTENSION UPDATE take.
sub default_version
{
	my ($self, $version) = @_;
	my $file = "$self->{extension}/evento.control";
	my $text = slurp_file($file);
	$text =~ s/^default_version *= *'[^']*'/default_version = '$version'/m or croak "$file names no version";
	return $self->put('evento.control', $text);
}

# A script that leads from one version to another.
sub update { my ($self, $from, $to, $sql) = @_; return $self->put("evento--$from--$to.sql", $sql) }

sub put
{
	my ($self, $file, $text) = @_;
	open(my $out, '>', "$self->{extension}/$file") or croak "$file: $!";
	print $out $text;
	close $out or croak "$file: $!";
	return;
}

# A script that changes whatever it may with the same library and without changing what anything does: each function, procedure and
# view is replaced, views get one more column, of this name, as tables do which no C reads, and the log gets another index.  From
# what the extension in a database is.  (No function is dropped to be made anew: for who calls it in that moment it would be gone.)
sub all_replaced
{
	my ($self, $node, $db, $column) = @_;
	my $member = q(EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'evento' AND d.deptype = 'e'
	  AND d.refclassid = 'pg_extension'::regclass AND d.classid = %s AND d.objid = %s));
	my $list = sub { my ($what, $from, $where) = @_; return $node->safe_psql($db, "SELECT string_agg($what, E';\n' ORDER BY o.oid) FROM $from o WHERE " . sprintf($member, "'$from'::regclass", 'o.oid') . " $where") . ";\n" };
	# Rows of the view events are what C gives.
	my $views = $list->(qq(format('CREATE OR REPLACE VIEW evento.%I%s AS SELECT v.*%s FROM (%s) v', o.relname,
	  ' WITH (' || array_to_string(o.reloptions, ', ') || ')', CASE WHEN o.relname <> 'events' THEN ', 1 AS $column' END, rtrim(pg_get_viewdef(o.oid), ';'))), 'pg_class', q(AND o.relkind = 'v'));
	my $functions = $list->('pg_get_functiondef(o.oid)', 'pg_proc', '');
	my $tables = join '', map { "ALTER TABLE $_ ADD COLUMN $column integer;\n" } qw(_proxies _sessions _bundles _consumers _checkpoints _stream_metadata);
	return $views . $functions . $tables . "CREATE INDEX _events_$column ON _events (recorded_at);\n";
}

1;
