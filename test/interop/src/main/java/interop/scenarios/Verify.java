package interop.scenarios;

import interop.Options;
import interop.api.FeedStats;
import interop.api.FeedStatsView;
import interop.api.OrderFind;
import interop.api.OrderView;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.LongStream;

/** Asks the projection for every order of the records (--record, as often as wanted) until it is complete, then checks it. */
final class Verify implements Scenarios.Scenario {

	@Override
	public void play(Client client, Checks checks, Options options) throws Exception {
		Map<String, Map<String, Long>> answered = new LinkedHashMap<>();
		Map<String, HashSet<String>> sent = new HashMap<>();
		for (String file : options.texts("record")) {
			for (String line : Files.readAllLines(Path.of(file))) {
				String[] words = line.split(" ");
				if (words[0].equals("answered")) {
					answered.computeIfAbsent(words[3], k -> new LinkedHashMap<>()).put(words[2], Long.valueOf(words[4]));
				} else if (words[0].equals("sent")) {
					sent.computeIfAbsent(words[3], k -> new HashSet<>()).add(words[2]);
				}
			}
		}
		int seconds = options.number("seconds", 60);
		long deadline = System.nanoTime() + seconds * 1_000_000_000L;
		int complete = 0;
		int ordered = 0;
		int known = 0;
		int right = 0;
		long markers = 0;
		for (var order : answered.entrySet()) {
			OrderView view;
			while (true) {
				view = client.one(new OrderFind(order.getKey()));
				if (view != null && view.markers.containsAll(order.getValue().keySet()) || System.nanoTime() > deadline) {
					break;
				}
				Thread.sleep(100);
			}
			if (view == null) {
				continue;
			}
			OrderView found = view;
			markers += order.getValue().size();
			complete += found.markers.containsAll(order.getValue().keySet()) ? 1 : 0;
			ordered += found.revisions.equals(LongStream.rangeClosed(1, found.revisions.size()).boxed().toList()) ? 1 : 0;
			known += new HashSet<>(found.markers).size() == found.markers.size() && sent.get(order.getKey()).containsAll(found.markers) ? 1 : 0;
			right += order.getValue().entrySet().stream()
					.allMatch(a -> a.getValue() <= found.markers.size() && found.markers.get((int) (a.getValue() - 1)).equals(a.getKey())) ? 1 : 0;
		}
		checks.that(!answered.isEmpty(), answered.size() + " orders with " + markers + " answered commands");
		checks.same(complete, answered.size(), "the projection has every answered command of every order");
		checks.same(ordered, answered.size(), "its revisions are dense and in order");
		checks.same(known, answered.size(), "it has no command twice, and none that was not sent");
		checks.same(right, answered.size(), "every answered command stands at the revision it was answered with");
		FeedStatsView stats = client.one(new FeedStats());
		checks.same(stats.duplicates, 0L, "no event came twice (" + stats.events + " events)");
		checks.same(stats.outOfOrder, 0L, "no event came out of order");
		checks.same(stats.revisionGaps, 0L, "no order has a gap");
	}
}
