#!/usr/bin/perl
# check.pl
#   The driver of "make check-packages": for each Debian release that RELEASES
#   names it builds the packages with "make deb" in a tree that has what the
#   build asks for, as a user who is not root, and installs, runs, upgrades,
#   removes and purges them in a fresh copy of a tree that debootstrap has
#   made. Closes with "N passed, N failed, N skipped"; a release whose trees
#   cannot be made is skipped, with the reason.
#
#   Trees, and what apt has fetched, stay in /var/tmp/evento-trees
#   (EVENTO_TREES) for the next run; output goes to build/check-packages.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(basename dirname);
use File::Path qw(make_path);
use Test::More;

my $top;
BEGIN { $top = abs_path(dirname(__FILE__) . '/../..') }
use lib "$top/test/lib", "$top/test/packages";
use Evento::Host;
use Tree;

my @releases = split ' ', $ENV{RELEASES} // 'bookworm trixie';
my $logs = "$top/build/check-packages";
my @skips;
my $host;

$| = 1;
$SIG{$_} = sub { exit 130 } for qw(INT TERM HUP);
END { my $status = $?; $host->cleanup if $host; $? = $status }

system("$top/.ci/deps", 'packages') == 0 or exit 1;
system('rm', '-rf', $logs);
make_path($logs);
$host = Evento::Host->new(top => $top, name => 'packages');
my $src = $host->copy_sources;
my ($version) = Evento::Host::slurp("$top/debian/changelog") =~ /^evento \((.*?)\)/;

check_release($_) for @releases;

# Where all was skipped there is nothing to be counted.
Test::More->builder->no_ending(1);
done_testing() if Test::More->builder->current_test;
my $failed = grep { !$_->{ok} } Test::More->builder->details;
my $passed = Test::More->builder->current_test - $failed;
print map { "skipped: $_\n" } @skips;
printf "%d passed, %d failed, %d skipped\n", $passed, $failed, scalar @skips;
exit($failed || !($passed || @skips) ? 1 : 0);

sub check_release
{
	my ($release) = @_;
	print "# ==== $release ====\n";
	my ($number, $why) = Tree::made($top, $release, 'deb', 'nothing');
	if ($why)
	{
		push @skips, "$release: $why";
		return;
	}
	my $dir = "$host->{dir}/$release";
	make_path("$dir/debs");
	my $tree = Tree->new(top => $top, release => $release, dir => $dir, log => "$logs/$release.log");

	my @debs = build($tree, $release, "$dir/debs", $number) or return;
	$tree->copy;
	if (my $offline = $tree->satisfy(@debs))
	{
		push @skips, "$release: $offline";
		return;
	}
	# What a first start of systemd leaves is not the packages'.
	$tree->booted("true\n");
	my $before = $tree->paths;
	my $old = older($tree, $number, @debs);

	fresh($tree, $number, @debs);
	serve($tree, $number);
	boot($tree, $number);
	gone($tree, $number, $before);
	upgrade($tree, $number, $old, @debs);
	is(differs($before, $tree->paths), '', "$release: nothing is left of what was upgraded either");
	return;
}

# ---- building ----

# Gives the packages, or nothing where there are none.
sub build
{
	my ($tree, $release, $debs, $number) = @_;
	my $build = "$tree->{dir}/src";
	system('cp', '-a', $src, $build) == 0 && system('chown', '-R', 'nobody:nogroup', $build) == 0 or die "could not copy the sources\n";
	my ($status, $out) = $tree->build($build, "cd '$build' && exec setpriv --reuid=nobody --regid=nogroup --clear-groups -- env HOME=/nonexistent EVENTO_DEPS=no make deb");
	is($status, 0, "$release: make deb builds the packages, as nobody, and lintian finds nothing") or return;
	my @built = map { basename($_) } glob "$build/build/deb/*.deb";
	my @wanted = grep { !/-dbgsym_/ } @built;
	is(join(' ', map { s/_[a-z0-9]+\.deb$//r } @wanted), "evento-proxy_$version postgresql-$number-evento_$version", "$release: that of the extension and that of the proxy") or return;
	like($out, qr/^lintian:$/m, "$release: lintian has looked at them");
	system('cp', (map { "$build/build/deb/$_" } @wanted), $debs) == 0 or die "could not copy the packages\n";
	return map { "$debs/$_" } @wanted;
}

# The same packages as those of an earlier version: other settings, and the
# schema of 0.1.0, with which the library works.
sub older
{
	my ($tree, $number, @debs) = @_;
	my $old = "$tree->{dir}/old";
	make_path($old);
	for my $deb (@debs)
	{
		my $name = basename($deb) =~ s/_.*//r;
		my $share = "usr/share/postgresql/$number/extension";
		$tree->must("repacks $name", <<"SHELL");
dpkg-deb -R '$deb' '$old/$name'
cd '$old/$name'
sed -i 's/^Version: .*/Version: 0.1.0-1/' DEBIAN/control
if [ -e etc/evento/evento-proxy.ini ]; then
	echo '; of 0.1.0' >>etc/evento/evento-proxy.ini
else
	rm $share/evento--0.2.0.sql $share/evento--0.1.0--0.2.0.sql
	cp '$tree->{dir}/src/test/upgrade/evento--0.1.0.sql' $share/
	sed -i "s/^default_version.*/default_version = '0.1.0'/" $share/evento.control
fi
find . -path ./DEBIAN -prune -o -type f -printf '%P\\n' | grep -v ^etc/ | xargs md5sum >DEBIAN/md5sums
cd '$old'
dpkg-deb --root-owner-group -b '$name' .
rm -r '$name'
SHELL
	}
	return $old;
}

# ---- installing ----

sub fresh
{
	my ($tree, $number, @debs) = @_;
	my $release = $tree->{release};
	is(($tree->install(@debs))[0], 0, "$release: the packages are installed");
	is($tree->says("dpkg --audit; dpkg --verify evento-proxy; dpkg --verify postgresql-$number-evento"), '', 'and are whole');
	is($tree->says('dpkg-query -W -f "\${Conffiles}" evento-proxy') =~ s/ [0-9a-f]{32}//r, ' /etc/evento/evento-proxy.ini', 'the settings are a file of the administrator');
	is($tree->says('stat -c "%a %U %G" /etc/evento/evento-proxy.ini'), '640 root evento-proxy', 'which only the proxy reads');
	is($tree->says('getent passwd evento-proxy | cut -d: -f 6,7'), '/nonexistent:/usr/sbin/nologin', 'it has a user, who cannot log in');
	is($tree->says('evento-proxy --version'), 'evento-proxy ' . ($version =~ s/-.*//r), 'the program runs');
	is($tree->says('ls /etc/systemd/system/multi-user.target.wants | grep evento'), 'evento-proxy.service', 'the service starts with the machine');
	is($tree->says('systemd-analyze verify --man=no evento-proxy.service 2>&1 | grep evento'), '', 'systemd has nothing to say against it');
	is($tree->says('sed -n "s/^ExecStart=\([^ ]*\).*/\1/p" /lib/systemd/system/evento-proxy.service'), '/usr/bin/evento-proxy', 'it is the installed program');
	is($tree->says('readlink -f /usr/share/man/man7/evento.7.gz'), "/usr/share/postgresql/$number/man/man7/evento.7.gz", 'evento(7) is that of the PostgreSQL');
	cmp_ok($tree->says('zcat /usr/share/man/man8/evento-proxy.8.gz | grep -c "^Default:"'), '>', 50, 'evento-proxy(8) has the settings');
	return;
}

# As a person would go on: the proxy waits for its database, which then comes.
sub serve
{
	my ($tree, $number) = @_;
	my $release = $tree->{release};
	my ($status, $out) = $tree->isolated(server($number) . <<'SHELL');
proxy_starts
wait_for 'the proxy answers' http /healthz 200
http /readyz 503 || fail 'is ready without a database'
server_starts
as_postgres createdb evento
as_postgres psql -Xqd evento -c 'CREATE EXTENSION evento'
as_postgres psql -Xqd evento -c 'CREATE ROLE "evento-proxy" LOGIN IN ROLE evento_proxy'
wait_for 'the proxy has its database' http /readyz 200
[ "$(as_postgres psql -XqAtd evento -c 'SELECT live FROM evento.proxies')" = t ] || fail 'no proxy in the view'
kill $proxy
wait $proxy || fail "the proxy ended with status $?"
server_stops
SHELL
	is($status, 0, "$release: the installed proxy waits for a database, and serves it with the settings that it came with") or diag($out);
	return;
}

# The machine starts, with the server and the database of serve.
sub boot
{
	my ($tree, $number) = @_;
	my $release = $tree->{release};
	my ($status, $out) = $tree->booted(server($number) . <<"SHELL" . <<'SHELL');
trap '[ \$? = 0 ] || journalctl --no-pager -n 40 -u evento-proxy -u postgresql@*' EXIT
debs='$tree->{dir}/debs'
SHELL
pid() { systemctl show evento-proxy -P MainPID; }
is_active() { [ "$(systemctl is-active evento-proxy)" = active ]; }
wait_for 'the proxy has its database' http /readyz 200
is_active || fail 'the service does not run'
[ "$(systemctl show evento-proxy -P NRestarts)" = 0 ] || fail 'the service was started again'
first=$(pid)
[ "$(stat -c %U /proc/$first)" = evento-proxy ] || fail 'another user runs it'
systemctl reload evento-proxy || fail reload
[ "$(pid)" = $first ] && is_active || fail 'a reload is a restart'
systemctl stop postgresql
wait_for 'the proxy sees that its database is away' http /readyz 503
[ "$(pid)" = $first ] && is_active || fail 'it does not live without a database'
systemctl start postgresql
wait_for 'the proxy has its database again' http /readyz 200
dpkg -i "$debs"/evento-proxy_*.deb || fail 'installing it again'
is_active && [ "$(pid)" != $first ] || fail 'an upgrade does not restart it'
wait_for 'the new proxy has its database' http /readyz 200
dpkg -r evento-proxy || fail 'removing it'
[ ! -e /proc/$first ] && ! http /healthz 200 || fail 'it runs although it was removed'
dpkg -i "$debs"/evento-proxy_*.deb || fail 'installing it behind that'
wait_for 'the proxy is back' http /readyz 200
SHELL
	if ($status == 77 << 8)
	{
		push @skips, "$release, the service under systemd: " . $out =~ s/\n.*//sr;
		return;
	}
	is($status, 0, "$release: under systemd the service runs when the machine starts, reloads, lives without its database, restarts at an upgrade and ends with the package") or diag($out);
	return;
}

# Removed, installed again, removed and purged.
sub gone
{
	my ($tree, $number, $before) = @_;
	my $release = $tree->{release};
	my $names = "evento-proxy postgresql-$number-evento";
	is(($tree->run("apt-get remove -y -q $names"))[0], 0, "$release: the packages are removed");
	is($tree->says('ls /etc/evento /usr/bin/evento-proxy /lib/systemd/system/evento-proxy.service /usr/share/man/man7/evento.7.gz 2>/dev/null'), "/etc/evento:\nevento-proxy.ini", 'the settings stay');
	is($tree->says('stat -c %a /etc/evento/evento-proxy.ini'), '640', 'and are nobody else\'s to read');
	is(($tree->run("dpkg -i '$tree->{dir}'/debs/*.deb"))[0], 0, 'and can be installed again');
	is($tree->says('ls /etc/systemd/system/multi-user.target.wants | grep evento'), 'evento-proxy.service', 'the service is there again');
	is(($tree->run("apt-get purge -y -q $names"))[0], 0, 'the packages are purged');
	$tree->must('drops the cluster', "pg_dropcluster $number main");
	is(differs($before, $tree->paths), '', "$release: nothing is left of them");
	is($tree->says('getent passwd evento-proxy | cut -d: -f 1'), 'evento-proxy', 'but the user, whose number no other may get');
	return;
}

# The lines that one of two texts has alone.
sub differs
{
	my ($before, $now) = @_;
	my %side;
	$side{$_} .= '-' for split /\n/, $before;
	$side{$_} .= '+' for split /\n/, $now;
	return join ' ', map { "$side{$_}$_" } grep { length $side{$_} == 1 } sort keys %side;
}

# From an earlier version, whose server runs and has events.
sub upgrade
{
	my ($tree, $number, $old, @debs) = @_;
	my $release = $tree->{release};
	my $count = q{as_postgres psql -XqAtd evento -c 'SELECT count(*) FROM evento.events'};
	is(($tree->install(glob "$old/*.deb"))[0], 0, "$release: an earlier version is installed");
	my ($status, $out) = $tree->isolated(server($number) . <<"SHELL");
server_starts
as_postgres createdb evento
as_postgres psql -Xqd evento -c 'CREATE EXTENSION evento'
as_postgres psql -Xqd evento -c "SELECT evento.append('order-' || n, 'OrderPlaced', '{}') FROM generate_series(1, 100) AS n" >/dev/null
as_postgres psql -Xqd evento -c 'CALL evento.wait(NULL)'
[ "\$($count)" = 100 ] || fail 'no events'
DEBIAN_FRONTEND=noninteractive dpkg -i @debs
# The server that runs has the library that it began with, and goes on.
as_postgres psql -Xqd evento -c "SELECT evento.append('order-1', 'OrderPaid', '{}')" >/dev/null
server_stops
server_starts
as_postgres psql -Xqd evento -c "SELECT evento.append('order-2', 'OrderPaid', '{}')" >/dev/null
as_postgres psql -Xqd evento -c 'ALTER EXTENSION evento UPDATE'
as_postgres psql -Xqd evento -c 'CALL evento.wait(NULL)'
[ "\$($count)" = 102 ] || fail "events after the update: \$($count)"
[ "\$(as_postgres psql -XqAtd evento -c "SELECT extversion FROM pg_extension WHERE extname = 'evento'")" = 0.2.0 ] || fail 'the schema is the old one'
server_stops
SHELL
	is($status, 0, 'upgraded under a server that runs, restarted, and updated: the events are there') or diag($out);
	is($tree->says('grep -c "^; of 0.1.0" /etc/evento/evento-proxy.ini'), '0', 'settings that nobody has touched are the new ones');
	is($tree->says('stat -c "%a %G" /etc/evento/evento-proxy.ini'), '640 evento-proxy', 'and still nobody else\'s to read');
	$tree->must('drops the cluster', "pg_dropcluster $number main");

	my $names = "evento-proxy postgresql-$number-evento";
	$tree->must('goes back', "apt-get purge -y -q $names && dpkg -i '$old'/*.deb && sed -i 's/^bundle-port.*/bundle-port = 4030/' /etc/evento/evento-proxy.ini");
	is(($tree->run("dpkg --force-confdef --force-confold -i @debs"))[0], 0, 'upgraded where somebody has changed the settings');
	is($tree->says('grep ^bundle-port /etc/evento/evento-proxy.ini'), 'bundle-port = 4030', 'which are kept');
	$tree->must('purges', "apt-get purge -y -q $names");
	return;
}

# What the scripts of serve and upgrade share.
sub server
{
	my ($number) = @_;
	return "number=$number\n" . <<'SHELL';
set -u
fail() { echo "failed: $*" >&2; exit 1; }
trap '[ $? = 0 ] || { cat /var/log/postgresql/* /tmp/evento-proxy.log 2>/dev/null | tail -n 30 >&2; }' EXIT
as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups -- "$@" || fail "$*"; }
server_starts() {
	if ! pg_lsclusters -h | grep -q main; then
		pg_createcluster -e UTF8 --locale=C.UTF-8 $number main >/dev/null || fail pg_createcluster
		pg_conftool $number main set shared_preload_libraries evento
	fi
	pg_ctlcluster --skip-systemctl-redirect $number main start || fail 'the server does not start'
}
server_stops() { pg_ctlcluster --skip-systemctl-redirect $number main stop -m fast || fail 'the server does not stop'; }
# As the unit runs it.
proxy_starts() {
	setpriv --reuid=evento-proxy --regid=evento-proxy --init-groups -- $(sed -n 's/^ExecStart=//p' /lib/systemd/system/evento-proxy.service) >/tmp/evento-proxy.log 2>&1 &
	proxy=$!
}
http() {
	exec 9<>/dev/tcp/127.0.0.1/3032 || return
	printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&9
	read -r _ said _ <&9
	exec 9<&-
	[ "$said" = "$2" ]
} 2>/dev/null
wait_for() {
	what=$1
	shift
	for _ in $(seq 600); do
		"$@" && return
		sleep 0.2
	done
	fail "waited in vain: $what"
}
SHELL
}
