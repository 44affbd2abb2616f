# 910_install.pl
#   make install puts the program, its systemd unit and manual pages where
#   PREFIX says, and make uninstall takes them away.
use strict;
use warnings;

use File::Find;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = __FILE__ =~ s{/?test/proxy/t/[^/]+$}{}r || '.';
plan(skip_all => 'no sources beside the tests') if !-e "$top/proxy/Makefile";
plan(skip_all => 'nothing is built here, or by somebody else') if !-w "$top/build/evento-proxy";

my $root = PostgreSQL::Test::Utils::tempdir();

sub make
{
	my ($goal, @args) = @_;
	my ($out, $err) = ('', '');
	return IPC::Run::run([ 'make', '-s', '-C', "$top/proxy", $goal, "DESTDIR=$root", @args ], '>', \$out, '2>', \$err) || diag($err);
}

sub files
{
	my @found;
	find(sub { push @found, substr($File::Find::name, length $root) if -f }, $root);
	return join ' ', sort @found;
}

for my $prefix ('/usr/local', '/usr')
{
	ok(make('install', "PREFIX=$prefix"), "make install PREFIX=$prefix");
	is(files(), join(' ', map { "$prefix/$_" } qw(bin/evento-proxy lib/systemd/system/evento-proxy.service share/man/man7/evento.7 share/man/man8/evento-proxy.8)),
		'installs the program, the unit and manual pages');
	like(slurp_file("$root$prefix/lib/systemd/system/evento-proxy.service"), qr{^ExecStart=\Q$prefix\E/bin/evento-proxy --config}m, 'which names the program');
	is((stat "$root$prefix/lib/systemd/system/evento-proxy.service")[2] & 07777, 0644, 'and can be read');
	ok(make('uninstall', "PREFIX=$prefix"), "make uninstall PREFIX=$prefix");
	is(files(), '', 'leaves nothing');
}

done_testing();
