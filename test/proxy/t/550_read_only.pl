# 550_read_only.pl
#   What a container gives a proxy that is given nothing: every file system
#   read-only, no capability, no way to new privileges.  It needs no more.
use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

use Evento::Bundle;
use Evento::Certs;
use Evento::ProxyTest;

# Mounts all of it read-only, sees that it is, and becomes the program.
my $inside = "$ENV{TESTDIR}/inside";
append_to_file($inside, <<'END');
use strict;
use warnings;
my $probe = shift;
# mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, { MOUNT_ATTR_RDONLY })
my $attributes = pack 'Q4', 1, 0, 0, 0;
my $root = "/";
syscall(442, -100, $root, 0x8000, $attributes, length $attributes) == 0 or die "mount_setattr: $!\n";
open(my $file, '>', $probe) and die "$probe can be written\n";
$!{EROFS} or die "$probe: $!\n";
exec 'setpriv', '--ambient-caps=-all', '--inh-caps=-all', '--no-new-privs', @ARGV or die "setpriv: $!\n";
END
my @confined = (qw(unshare --user --map-current-user --keep-caps --mount --), $^X, $inside, "$ENV{TESTDIR}/probe");
my $said = `@confined true 2>&1`;
plan skip_all => 'no mount namespace here: ' . (split /\n/, $said || 'unshare is not there')[0] if $? != 0;

my $program = "$ENV{TESTDIR}/confined";
my $proxy_program = Evento::ProxyTest::program();
append_to_file($program, "#!/bin/sh\nexec @confined $proxy_program \"\$\@\"\n");
chmod 0755, $program;

my $test = Evento::ProxyTest->new;
my $ca = Evento::Certs->new;
my ($cert, $key) = $ca->cert(cn => 'proxy');
my $ini = "$ENV{TESTDIR}/proxy.ini";
append_to_file($ini, "max-names = 100\n");
my @proxy = do {
	local $ENV{EVENTO_PROXY} = $program;
	map { $test->start(flags => { config => $ini, 'tls-cert' => $cert, 'tls-key' => $key, 'tls-ca' => $ca->ca }) } 1 .. 2;
};
my $status = slurp_file("/proc/$proxy[0]{pid}/status");
like($status, qr/^CapEff:\s+0+$/m, 'the proxy has no capability');
like($status, qr/^NoNewPrivs:\s+1$/m, 'nor comes to one');
like(slurp_file("/proc/$proxy[0]{pid}/mounts"), qr{^\S+ / \S+ ro[, ]}m, 'its files are read-only');
is($proxy[0]->metric('db_up'), 1, 'it reaches the database');

my $caller = $proxy[0]->bundle(bundle => 'web');
my $handler = $proxy[1]->bundle(bundle => 'shop', names => [qw(Place Probe)]);
$caller->reaches($handler);
my $id = $caller->command('Place', 'order-1');
$handler->respond($handler->recv('REQ'), Evento::Bundle::domain_response('Placed', '{"x":"' . 'x' x 5_000_000 . '"}'));
is(($caller->answer($id) // {})->{class}, 'DomainEventMessage', 'a command whose handler is at another');
is(($proxy[1]->get('/streams/order-1'))[0], 200, 'its event over HTTP');
unlink $ini;
append_to_file($ini, "max-names = 200\n");
kill 'HUP', $proxy[0]{pid};
ok($proxy[0]->wait_log('certificates were read again'), 'certificates are read again');
ok($proxy[0]->wait_log('max-names has changed'), 'and settings');
is($_->stop, 0, 'it ends in order') for @proxy;
is(scalar(grep { / error / } map { split /\n/, $_->log } @proxy), 0, 'no error is in the log');
done_testing();
