# Tree
#   A Debian release to build packages in, and a fresh copy of it to install
#   them in (test/lib/release-tree), and how commands are run there.
package Tree;

use strict;
use warnings;

use File::Basename qw(dirname);

# Makes the trees of a release, for the goals of .ci/deps that are named. Gives
# the major version of the release's PostgreSQL, or undef and why they cannot
# be made; dies where that is a fault.
sub made
{
	my ($top, $release, @goals) = @_;
	for my $goal (@goals)
	{
		my $said = '';
		open(my $fh, '-|', 'sh', '-c', '"$@" 2>&1', 'sh', "$top/test/lib/release-tree", '--for', $goal, $release) or die "release-tree: $!\n";
		while (my $line = <$fh>)
		{
			print "# $line";
			$said = $line if $line =~ /^release-tree: /;
		}
		close $fh;
		next if $? == 0;
		chomp $said;
		return (undef, $said) if $? >> 8 == 77;
		die "release-tree failed\n";
	}
	chomp(my $number = `'$top/test/lib/release-tree' --for deb $release sh -c '/usr/share/postgresql-common/supported-versions | tail -n 1'`);
	return $number;
}

# top: the checkout; release; dir: a directory of the caller's, which the
# commands see as well; log: a file for what they print.
sub new
{
	my ($class, %args) = @_;
	return bless {%args}, $class;
}

# Copies the tree that debootstrap has made: what happens to it from now on
# leaves that one alone.
sub copy
{
	my ($self) = @_;
	chomp(my $from = `'$self->{top}/test/lib/release-tree' --for nothing $self->{release}`);
	$self->{tree} = "$self->{dir}/tree";
	$self->{archives} = dirname($from) . "/$self->{release}.archives";
	system('mkdir', '-p', "$self->{archives}/partial") == 0 && system('cp', '-a', '--reflink=auto', $from, $self->{tree}) == 0 or die "could not copy $from\n";
	open(my $fh, '>', "$self->{tree}/etc/apt/apt.conf.d/91evento") or die "apt.conf.d: $!\n";
	# What has been fetched serves the next run as well.
	print $fh qq{Dir::Cache::archives "$self->{archives}";\nAPT::Sandbox::User "root";\nAPT::Keep-Downloaded-Packages "true";\n};
	close $fh or die "apt.conf.d: $!\n";
	return;
}

# Runs a script in the tree that has what builds ask for; dir is seen there.
# Gives status and output.
sub build
{
	my ($self, $dir, $script) = @_;
	return $self->logged($script, "$self->{top}/test/lib/release-tree", '--bind', $dir, '--for', 'deb', $self->{release}, 'bash', '-c', $script);
}

# Runs a script in the copy, as root. Gives status and output.
sub run
{
	my ($self, $script) = @_;
	return $self->logged($script, $self->command($script));
}

# The same where no network is but a loopback of its own.
sub isolated
{
	my ($self, $script) = @_;
	return $self->logged($script, 'unshare', '--net', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', $self->command($script));
}

# The same under systemd, which is started for it and finds the services as
# they are installed. Status 77 << 8 says that it cannot be started here.
sub booted
{
	my ($self, $script) = @_;
	open(my $fh, '>', "$self->{tree}/root/boot.sh") or die "boot.sh: $!\n";
	print $fh $script;
	close $fh or die "boot.sh: $!\n";
	# Services start from now on.
	rename("$self->{tree}/usr/sbin/policy-rc.d", "$self->{dir}/policy-rc.d") or die "policy-rc.d: $!\n";
	my @result = $self->logged($script, "$self->{top}/test/packages/boot", '--bind', $self->{dir}, $self->{tree}, '/root/boot.sh');
	rename("$self->{dir}/policy-rc.d", "$self->{tree}/usr/sbin/policy-rc.d") or die "policy-rc.d: $!\n";
	unlink map { "$self->{tree}/$_" } 'root/boot.sh', 'boot.out', 'boot.status';
	return @result;
}

# What a script prints, without the end of its last line.
sub says
{
	my ($self, $script) = @_;
	my (undef, $out) = $self->run($script);
	$out =~ s/\n+\z//;
	return $out;
}

# Dies where it fails: what has to be so before anything is tested.
sub must
{
	my ($self, $what, $script) = @_;
	my ($status, $out) = $self->run("set -e\n$script");
	die "$what:\n$out" if $status != 0;
	return;
}

sub command
{
	my ($self, $script) = @_;
	return ("$self->{top}/test/lib/release-tree", '--at', $self->{tree}, '--bind', $self->{dir}, '--bind', $self->{archives}, 'bash', '-c', $script);
}

sub logged
{
	my ($self, $script, @command) = @_;
	open(my $log, '>>', $self->{log}) or die "$self->{log}: $!\n";
	print $log "\$ $script\n";
	open(my $fh, '-|', 'sh', '-c', '"$@" 2>&1 </dev/null', 'sh', @command) or die "$command[0]: $!\n";
	my $out = '';
	while (my $line = <$fh>)
	{
		$out .= $line;
		print $log $line;
	}
	close $fh;
	my $status = $?;
	print $log "-> $status\n" if $status != 0;
	close $log;
	return ($status, $out);
}

# Installs what the packages depend on, and nothing of themselves. Where it
# cannot be fetched gives a text that says so; dies where it cannot be had.
sub satisfy
{
	my ($self, @debs) = @_;
	my $depends = join ', ', map { s/\n//gr } map { scalar `dpkg-deb -f '$_' Depends` } @debs;
	my ($status, $out) = $self->run("apt-get satisfy -y -q '$depends'");
	return if $status == 0;
	# The lists may be older than the archive.
	return 'packages cannot be fetched' if ($self->run('apt-get update -q --error-on=any'))[0] != 0;
	($status, $out) = $self->run("apt-get satisfy -y -q '$depends'");
	die "what the packages depend on cannot be installed:\n$out" if $status != 0;
	return;
}

sub install
{
	my ($self, @debs) = @_;
	return $self->run("apt-get install -y -q @debs");
}

# The paths of all files, as lines, but for those that belong to what runs
# there, and to dpkg's and apt's own records.
sub paths
{
	my ($self) = @_;
	return $self->says(q{find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /run -o -path /var/tmp -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg/info -o -path /var/lib/apt \) -prune -o -print | LC_ALL=C sort});
}

1;
