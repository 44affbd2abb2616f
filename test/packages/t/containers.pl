# What docker/ says of its containers, which takes no daemon: each image is named with a
# tag that is not "latest"; each service has a healthcheck, a user who is not root, a
# root directory that it cannot write and no capabilities; no variable, argument of a
# build or copied file is a password.  test/docker/t looks at the same where containers run.
use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use Test::More;

my $top = abs_path("$FindBin::RealBin/../../..");
my ($version) = slurp('evento.control') =~ /^default_version *= *'(.*)'/m;
# How a password would be named.
my $password = qr/pass|secret|token|credential|key|auth/i;

# ---- images ----

my %image;
my @files = map { substr $_, 1 + length $top } sort glob "$top/docker/*/Dockerfile";
is("@files", join(' ', map { "docker/$_/Dockerfile" } qw(etcd haproxy postgres proxy)), 'the images');
for my $file (@files)
{
	my @lines = instructions($file);
	my (%default, %stage, $stage, @unpinned, @copied);
	for my $line (@lines)
	{
		my ($what, $rest) = $line =~ /^(\w+) +(.*)/s or die "$file: $line\n";
		if ($what eq 'FROM')
		{
			my ($from, $name) = $rest =~ /^(\S+)(?: AS (\w+))?$/ or die "$file: $line\n";
			push @unpinned, $from if !$stage{$from} && !is_pinned($from, %default);
			# It goes on where the one that it is made of ended.
			$stage = $stage{ $name // 'the last' } = { %{ $stage{$from} // {} } };
			$image{$file} = \%stage;
			$stage{'the last'} = $stage;
		}
		elsif ($what eq 'ARG' && !$stage) { $default{$1} = $2 if $rest =~ /^(\w+)=(\S+)$/ }
		elsif ($what =~ /^(?:USER|HEALTHCHECK)$/) { $stage->{$what} = $rest }
		elsif ($what eq 'COPY' && $rest !~ /^--from=build /) { push @copied, (split ' ', $rest)[ 0 .. -2 + split ' ', $rest ] }
	}
	is("@unpinned", '', "$file: each image that it is made of has a tag");
	is(join(' ', grep { !defined $stage{$_}{HEALTHCHECK} } $file =~ /postgres/ ? qw(postgres patroni) : 'the last'), '', 'it has a healthcheck');
	is(join("\n", grep { !/^(?:FROM|ARG|ENV|RUN|COPY|USER|WORKDIR|VOLUME|EXPOSE|STOPSIGNAL|HEALTHCHECK|ENTRYPOINT) / } @lines), '', 'it fetches nothing (ADD), and says nothing that is not looked at here');
	is(join("\n", grep { carries_password(/^(\w+)=?(.*)/) } map { /^(?:ARG|ENV) +(.*)/s ? split ' ', $1 : () } @lines), '', 'no argument and no variable is a password');
	is(join(' ', grep { $_ eq '.' || !-e "$top/$_" || holds_password($_) } @copied), '', 'nor is what is copied into it: ' . @copied);
	is(join("\n", grep { /^RUN\b/ && /$password/ } @lines), '', 'and no command has one');
}

# ---- services ----

for my $file (map { s{.*/}{}r } sort glob "$top/docker/compose*.yaml")
{
	my $text = slurp("docker/$file") =~ s/^\s*#.*\n//mgr;
	is(join("\n", grep { !is_pinned($_) } $text =~ /^\s+image: *(.*)$/mg), '', "$file: each image has a tag");
	is(join(' ', map { $_->[0] } grep { carries_password(@$_) } variables($text)), '', 'no variable is a password: ' . variables($text));
	unlike($text, qr/\b(?:env_file|privileged|pid|ipc|userns_mode|cap_add: \[ALL)\b/, 'nobody has files of variables, or is privileged');
	my %top = sections($text, 0);
	my %services = sections($top{services}, 2);
	cmp_ok(scalar keys %services, '>=', 4, 'services: ' . join ' ', sort keys %services);
	# This one adds certificates to services of the others.
	next if $file eq 'compose-tls.yaml';
	for my $name (sort keys %services)
	{
		my %is = settings($text, $services{$name}, 4);
		if ($name eq 'secrets')
		{
			my %alone = (user => 'root', network_mode => 'none', read_only => 'true', cap_drop => '[ALL]', cap_add => '[CHOWN, DAC_OVERRIDE, FOWNER]', healthcheck => '{disable: true}');
			is_deeply({ map { $_ => $is{$_} } keys %alone }, \%alone, "$name: makes passwords as root, and ends: it has no network, and what it has to have alone");
			next;
		}
		my ($dockerfile) = $is{build} =~ /\bdockerfile: *(\S+)/;
		my ($target) = $is{build} =~ /\btarget: *(\S+)/;
		my $stage = $image{$dockerfile}{ $target // 'the last' } // die "$file: $name: no image\n";
		like($is{image}, qr/^evento-\w+:\Q$version\E(?:-pg|$)/, "$name: its image is of this version");
		like($is{healthcheck} // "test: $stage->{HEALTHCHECK}", qr/\btest: *(?!NONE)\S.*\b(?:evento-healthy|http-ok)\b/s, 'it has a healthcheck');
		unlike($is{user} // $stage->{USER} // 'root', qr/^"?(?:root|0)\b/, 'its user is not root');
		is($is{read_only}, 'true', 'it cannot write its root directory');
		is($is{cap_drop}, '[ALL]', 'it has no capabilities');
		is($is{cap_add}, undef, 'and is given none');
		is($is{security_opt}, '["no-new-privileges:true"]', 'nor does it get more rights');
	}
}

# ---- faults are found ----

ok(!is_pinned($_), "$_: not taken for a tag") for 'debian', 'debian:latest', 'localhost:5000/debian', 'debian:${RELEASE}-slim', 'debian:${RELEASE:-latest}';
ok(is_pinned($_), "$_: taken for one") for 'debian:bookworm-slim', 'localhost:5000/debian:12', 'evento-postgres:0.2.0-pg${EVENTO_PG:-15}';
ok(carries_password(@$_), "@$_: taken for a password")
  for [ PGPASSWORD => 'x' ], [ DATABASE => 'host=a password=b' ], [ DATABASE => 'postgresql://a:b@c/d' ], [ API_TOKEN => 'x' ], [ PROXY_PASSWORD => '' ], [ API_KEY => '${API_KEY}' ];
ok(!carries_password(@$_), "@$_: not taken for one") for [ EVENTO_SECRETS => '/run/secrets' ], [ DATABASE => 'host=a passfile=/run/secrets/passfile' ];

done_testing();

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<:encoding(UTF-8)', "$top/$file") or die "$file: $!\n";
	local $/;
	return scalar <$fh>;
}

# Whether a reference to an image has a tag that is not "latest".  A variable in it takes a
# default, of its own or given.
sub is_pinned
{
	my ($reference, %default) = @_;
	$reference =~ s/\$\{\w+:-([^}]*)\}/$1/g;
	$reference =~ s/\$\{(\w+)\}/$default{$1} \/\/ '$'/ge;
	return $reference =~ m{^[^\s\$]+:(?!latest$)[\w.-]+$};
}

# Whether a variable is one, or has one in it: a path is none, and no other value is taken
# for what has such a name.  The name that members of an etcd are of is called a token.
sub carries_password
{
	my ($name, $value) = @_;
	return 0 if "$name $value" eq 'ETCD_INITIAL_CLUSTER_TOKEN evento';
	return 1 if $name =~ $password && $value !~ m{^/[\w./-]+$};
	return $value =~ m{\bpassword *=|://[^/\s]*:[^/\s]*\@}i;
}

# Whether a file, or one in a directory, is named as what has a password, or has a key in it.
# docker/postgres/evento-secrets makes them.
sub holds_password
{
	my ($path) = @_;
	my @all = -d "$top/$path" ? map { chomp; substr $_, 1 + length $top } `find '$top/$path' -type f` : $path;
	return grep { $_ ne 'docker/postgres/evento-secrets' && m{(?:passw|passfile|secret|\.env$|\.pem$|\.key$|\.p12$)[^/]*$}i && !/\.(?:[chdo]|so)$/ || slurp_bytes($_) =~ /^-----BEGIN [A-Z ]*PRIVATE KEY-----$/m } @all;
}

sub slurp_bytes
{
	my ($file) = @_;
	open(my $fh, '<:raw', "$top/$file") or die "$file: $!\n";
	local $/;
	return <$fh> // '';
}

# The instructions of a Dockerfile, each on one line, without comments.
sub instructions
{
	my ($file) = @_;
	return grep { /\S/ } split /\n/, slurp($file) =~ s/^\s*#.*\n//mgr =~ s/\\\n\s*/ /gr;
}

# ---- YAML, as far as the compose files use it ----

# The keys at an indentation, with all that belongs to each.
sub sections
{
	my ($text, $indent) = @_;
	my $key = qr/^ {$indent}([\w<-]+): */m;
	return $text =~ /$key(.*\n(?:(?: {$indent} .*)?\n)*)/g;
}

# The variables, a line each or some in braces: [ name, value ].
sub variables
{
	my ($text) = @_;
	my @all = map { [ $_->[0], $_->[1] =~ s/^"|"$//gr ] } map { /^([A-Z][A-Z0-9_]+): *(.*)$/ ? [ $1, $2 ] : () } map { s/^\s+//r } split /\n/, $text;
	for my $braces ($text =~ /^ +\w+: \{(.*)\}$/mg)
	{
		while ($braces =~ /\b([A-Z][A-Z0-9_]+): *(?:"([^"]*)"|([^,]*))/g) { push @all, [ $1, $2 // $3 ] }
	}
	return @all;
}

# The settings below a service, with those of "<<: *name", which gives the section that
# is "&name"; its own come first.  A value of one line has no line end.
sub settings
{
	my ($text, $section, $indent) = @_;
	my %own = sections($section, $indent);
	my %is;
	if (my ($name) = ($own{'<<'} // '') =~ /^\*([\w-]+)/)
	{
		die "no &$name\n" if $text !~ /^([\w-]+): &\Q$name\E\n((?:(?: .*)?\n)*)/m;
		%is = settings($text, $2, 2);
	}
	for my $key (grep { $_ ne '<<' } keys %own)
	{
		my $value = $own{$key} =~ s/\s+\z//r;
		$value = ($text =~ /: &\Q$1\E\n((?: {4,}.*\n)*)/m)[0] // die "no &$1\n" if $value =~ /^\*([\w-]+)$/;
		$is{$key} = $value;
	}
	return %is;
}
