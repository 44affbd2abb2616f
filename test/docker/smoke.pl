#!/usr/bin/perl
# smoke.pl
#   What "make check" runs of the containers, from nothing: a base image by
#   debootstrap, with a Docker daemon of the test's own the images of both compose
#   files, made of packages of this machine's release, and all of t/ with them.
#   "make check-docker" does the same with images that it keeps, for both releases.
#
#   Nothing but the base image stays behind, and that is tested.  Where a daemon, a
#   container, a base image or packages cannot be had all is skipped, with the
#   reason.
use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use POSIX qw(:sys_wait_h);
use Test::More;
use Time::HiRes qw(sleep time);

# All images, and one file of tests, may take so long, in seconds, beside other tests.
use constant { IMAGES_TIMEOUT => 1800, FILE_TIMEOUT => 1500 };

my $top = abs_path("$FindBin::RealBin/../..");
my $dir = $ENV{TESTDIR} // die "TESTDIR names a directory for what is made\n";
my %pg = (bookworm => 15, trixie => 17);
my $child;
my @daemons;

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<:encoding(UTF-8)', $file) or return '';
	local $/;
	return <$fh> // '';
}

# Runs a command with a daemon; gives its status (undef where it took too long)
# and what it printed.
sub with_daemon
{
	my ($seconds, @command) = @_;
	my $out = "$dir/out." . @daemons;
	$child = fork() // die "fork: $!\n";
	if ($child == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>', $out) or die "$out: $!\n";
		open(STDERR, '>&', \*STDOUT);
		exec("$top/test/docker/daemon", @command) or POSIX::_exit(127);
	}
	push @daemons, $child;
	my $until = time + $seconds;
	my $late = 0;
	while (waitpid($child, WNOHANG) == 0)
	{
		if (time > $until && !$late++) { kill 'TERM', $child }
		sleep 0.1;
	}
	my $status = $?;
	undef $child;
	return ($late ? undef : $status, slurp($out));
}

sub ended { kill('TERM', $child) && waitpid($child, 0) if $child; exit 143 }
$SIG{$_} = \&ended for qw(INT TERM HUP);

# What is left of the daemons: processes, files, control groups, mounts.
sub left_behind
{
	my @left;
	for my $pid (@daemons)
	{
		my $name = "evento-docker.$pid.";
		push @left, glob("/tmp/$name*"), split(/\n/, `find /sys/fs/cgroup -type d -name '$name*' 2>/dev/null`);
		push @left, map { "process $_" } grep { index(slurp("$_/cmdline") =~ tr/\0/ /r, $name) >= 0 } glob '/proc/[0-9]*';
		push @left, map { "mounted: $_" } grep { index($_, $name) >= 0 || index($_, "$dir/") >= 0 } split /\n/, slurp('/proc/self/mountinfo');
	}
	push @left, $ENV{EVENTO_DOCKER_DATA} if -e $ENV{EVENTO_DOCKER_DATA};
	return @left;
}

my ($release) = slurp('/etc/os-release') =~ /^VERSION_CODENAME="?(\w+)/m;
plan skip_all => 'this machine has neither Debian 12 nor 13' if !$release || !$pg{$release};
my ($compose) = grep { system("$_ version >/dev/null 2>&1") == 0 } $ENV{COMPOSE} // ('docker-compose', 'docker compose');
plan skip_all => 'there is no docker-compose here' if !$compose;
@ENV{qw(EVENTO_RELEASE EVENTO_PG COMPOSE EVENTO_DOCKER_DATA)} = ($release, $pg{$release}, $compose, "$dir/data");

my $began = time;
my ($status, $out) = with_daemon(IMAGES_TIMEOUT, '--outside', "$top/test/docker/images");
my $why = !defined $status ? 'the images could not be made in ' . IMAGES_TIMEOUT . ' s' : $status == 77 << 8 ? (split /\n/, $out)[-1] : undef;
if (!defined $why)
{
	is($status, 0, sprintf 'images are made of nothing: %.0f s', time - $began) or diag(substr $out, -4000);
	for my $file ($status == 0 ? sort glob "$top/test/docker/t/*.pl" : ())
	{
		$began = time;
		($status, $out) = with_daemon(FILE_TIMEOUT, 'perl', $file);
		if (defined $status && $status == 77 << 8)
		{
			$why = (split /\n/, $out)[-1];
			last;
		}
		my $n = () = $out =~ /^ok /mg;
		ok($n && defined $status && $status == 0, sprintf '%s: %d passed, %.0f s', $file =~ s{.*/}{}r, $n, time - $began)
		  or diag($out);
	}
}
system('rm', '-rf', '--one-file-system', $ENV{EVENTO_DOCKER_DATA});
# What was ended may be about to go.
for (1 .. 300)
{
	last if !left_behind();
	sleep 0.1;
}
is(join("\n", left_behind()), '', 'nothing is left behind') if !defined $why || left_behind();
SKIP: { skip $why, 1 if defined $why }
done_testing();
