# Proxies.pm
#   Aggregate commands through three proxies, as the simulator counts them.
package Proxies;

use strict;
use warnings;

use Bench qw(host built conf runs seconds forget_server median);
use Evento::Fleet;

sub benches
{
	return ([ commands_per_second => undef, \&commands ]);
}

sub commands
{
	my $cluster = Evento::Fleet->start(host => host(), built => built(), proxies => 3, conf => conf(), name => 'pg-cluster');
	$cluster->start_handlers(2);
	my @per_second;
	for my $run (1 .. runs())
	{
		my $figures = $cluster->callers("bench$run", '--callers', 64, '--connections', 6, '--consumers', 1, '--seconds', seconds(),
			'--proxies', join(',', map { $_->{address} } @{ $cluster->{proxies} }));
		die "the simulator's checks did not hold:\n$figures->{text}" if !$figures->{ok};
		print "# aggregate commands, 64 callers, 3 proxies: $figures->{per_second}/s, latency $figures->{latency_ms}, command to event $figures->{command_to_event_ms}\n";
		push @per_second, $figures->{per_second};
	}
	host()->end_processes;
	forget_server();
	return median(@per_second);
}

1;
