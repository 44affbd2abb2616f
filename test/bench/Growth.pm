# Growth.pm
#   Whether an append costs in a large log what it costs in a small one.
package Growth;

use strict;
use warnings;

use Bench qw(STREAMS load checkpoint compare psql start_server);

use constant { SMALL => 1_000_000, LARGE => 20_000_000 };

sub benches
{
	return ([ growth => '0.85', \&growth ]);
}

# A log in which streams live for 100 events, so that the young ones are hot.
sub grown
{
	my ($events) = @_;
	my $server = start_server("pg-$events", "shared_buffers = 128MB\n");
	load($server, 'young', 2, 1000, $events . 'e');
	psql($server, 'bench', 'VACUUM ANALYZE evento._events, evento._streams');
	return $server;
}

sub growth
{
	my ($small, $large) = (grown(SMALL), grown(LARGE));
	print "# 100 events of 300 bytes a call, 2 clients, shared_buffers 128 MB, ${\STREAMS} young streams at random, each 100 events long\n";
	return compare('events/s',
		LARGE . ' events' => sub { checkpoint($large, 'bench'); load($large, 'young', 2, 100) },
		SMALL . ' events' => sub { checkpoint($small, 'bench'); load($small, 'young', 2, 100) });
}

1;
