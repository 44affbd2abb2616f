# Reads.pm
#   How fast events come out: the read functions against SELECTs over the same
#   table, which know nothing of the watermark, deletions and names.
package Reads;

use strict;
use warnings;

use Bench qw(server load pgbench compare psql);

use constant { LOG_EVENTS => 300000, STORIES => 1000, STORY_EVENTS => 100 };

sub benches
{
	return (
		[ read_all_vs_select => '0.8', \&read_all_vs_select ],
		[ load_stream_vs_select => '0.8', \&load_stream_vs_select ]);
}

# 1,000 events of the global order from a random position on, 2 clients.
sub read_all_vs_select
{
	my $pg = server();
	my $have = psql($pg, 'bench', 'SELECT evento.watermark()');
	load($pg, 'append', 2, 1000, LOG_EVENTS - $have . 'e') if $have < LOG_EVENTS;
	psql($pg, 'bench', 'VACUUM ANALYZE evento._events');
	my $choose = "\\set a random(0, " . (LOG_EVENTS - 1000) . ")\n";
	print "# 1,000 events of 300 bytes from a random position on, 2 clients\n";
	return compare('reads/s',
		'read_all' => sub { pgbench($pg, 'read-all', 'bench', 2, "${choose}SELECT * FROM evento.read_all(:a, 1000);\n") },
		'SELECT' => sub { pgbench($pg, 'select-all', 'bench', 2, "${choose}SELECT * FROM evento._events WHERE position > :a ORDER BY position LIMIT 1000;\n") });
}

# A stream of 100 events, found by its name, 2 clients.
sub load_stream_vs_select
{
	my $pg = server();
	psql($pg, 'bench', <<"SQL") if psql($pg, 'bench', "SELECT count(*) FROM evento._streams WHERE name = 'story-1'") == 0;
DO \$\$
BEGIN
  FOR v IN 1 .. ${\STORY_EVENTS} LOOP
    PERFORM evento.append('story-' || s, 'ChapterWritten', format('{"chapter": %s, "text": "%s"}', v, repeat('x', 270))::json) FROM generate_series(1, ${\STORIES}) s;
    COMMIT;
  END LOOP;
END
\$\$;
SQL
	psql($pg, 'bench', 'VACUUM ANALYZE evento._events, evento._streams');
	my $choose = "\\set s random(1, ${\STORIES})\n";
	print "# a stream of ${\STORY_EVENTS} events of 300 bytes by its name, 2 clients\n";
	return compare('reads/s',
		'load_stream' => sub { pgbench($pg, 'load-stream', 'bench', 2, "${choose}SELECT * FROM evento.load_stream('story-' || :s);\n") },
		'SELECT' => sub {
			pgbench($pg, 'select-stream', 'bench', 2,
				"${choose}SELECT e.* FROM evento._streams s JOIN evento._events e ON e.stream_no = s.stream_no WHERE s.name = 'story-' || :s ORDER BY e.version;\n");
		});
}

1;
