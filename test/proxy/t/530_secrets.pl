# 530_secrets.pl
#   Passwords are in files and the environment: not in what ps shows, and in no
#   log.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use Evento::ProxyTest;

my $test = Evento::ProxyTest->new;
my $node = $test->node;
$test->sql(q(CREATE ROLE careful LOGIN PASSWORD 'hush-4711' IN ROLE evento_proxy));
my $hba = slurp_file($node->data_dir . '/pg_hba.conf');
open(my $f, '>', $node->data_dir . '/pg_hba.conf') or die $!;
print $f "local all careful scram-sha-256\nhost all careful all scram-sha-256\n$hba";
close $f;
$node->reload;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $passfile = "$dir/passwords";
append_to_file($passfile, "*:*:*:careful:hush-4711\n");
chmod 0600, $passfile;
my $target = $node->connstr('postgres') . ' user=careful';

sub shown
{
	my ($proxy) = @_;
	my $shown = slurp_file("/proc/$proxy->{pid}/cmdline");
	return join ' ', split /\0/, $shown;
}

my $file = $test->start(flags => { database => "$target passfile=$passfile" });
like(shown($file), qr/--database \Q$target\E passfile/, 'a connection string without a password stays as it is');
unlike(shown($file), qr/hush/, 'nothing is in it');
is($file->stop, 0, 'a password file serves');

{
	local $ENV{PGPASSFILE} = $passfile;
	is($test->start(flags => { database => $target })->stop, 0, 'as does PGPASSFILE');
	local $ENV{PGPASSWORD} = 'hush-4711';
	local $ENV{PGPASSFILE} = '/dev/null';
	my $proxy = $test->start(flags => { database => $target });
	unlike(shown($proxy), qr/hush/, 'and PGPASSWORD');
	is($proxy->stop, 0, 'it ends in order');
}

my $uri = 'postgresql:///postgres?host=' . $node->host . '&port=' . $node->port . '&user=careful&password=hush-4711';
for my $string ("$target password=hush-4711", $uri)
{
	my $proxy = $test->start(flags => { database => $string });
	unlike(shown($proxy), qr/hush/, 'a password among the arguments is overwritten');
	unlike(qx(ps -ww -o args= -p $proxy->{pid}), qr/hush/, 'so that ps does not show it');
	ok($proxy->wait_log('warning main: --database holds a password'), 'and the log says that it was there');
	is(($proxy->get('/readyz'))[0], 200, 'the proxy has it all the same');
	kill 'HUP', $proxy->{pid};
	ok($proxy->wait_log('certificates were read again') && $proxy->wait_log('reads its settings again'), 'it reads its settings again');
	unlike($proxy->log, qr/database has changed/, 'and finds it as it was');
	is($proxy->stop, 0, 'it ends in order');
	unlike($proxy->log, qr/hush/, 'no log has it');
}

for my $string ("$target password=hush 4711", 'postgresql://careful:hush-4711@[/postgres', "hush host=x password='hush")
{
	my ($status, undef, $said) = Evento::ProxyTest::run_program('--database', $string);
	is($status, 1, 'what is no connection string is refused');
	unlike($said, qr/hush|4711/, 'without a word of it');
}
my ($status, undef, $said) = Evento::ProxyTest::run_program('--database', 'host=x nonsense=1');
like($said, qr/invalid connection option "nonsense"/, 'where there is no secret in it, it says what is wrong');
done_testing();
