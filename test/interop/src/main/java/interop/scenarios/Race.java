package interop.scenarios;

import interop.Options;
import interop.api.OrderChange;
import interop.api.OrderChanged;
import interop.api.OrderCreate;
import interop.api.OrderFind;
import interop.api.OrderView;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;

/** Two invokers, at two proxies (--host --port and --peer-host --peer-port), race on one order without locks. */
final class Race implements Scenarios.Scenario {

	@Override
	public void play(Client first, Checks checks, Options options) throws Exception {
		Client second = new Client(options.text("peer-host", options.text("host")), Integer.parseInt(options.text("peer-port")),
				options.text("instance", "race") + "-peer", options);
		second.waitForHandlers();
		String run = "r" + UUID.randomUUID().toString().substring(0, 8);
		conflict(first, second, checks, run + "-conflict");
		race(first, second, checks, run + "-race", options.number("rounds", 25));
	}

	/* Both handlers see the same story, since both pause for longer than a busy machine keeps either waiting: one append must fail and its handler be asked again. */
	private static void conflict(Client first, Client second, Checks checks, String order) throws Exception {
		first.call(new OrderCreate(order, order + "-create", "Ida", 0));
		CompletableFuture<Object> one = first.send(new OrderChange(order, order + "-one", 1).unlocked().pausing(5_000));
		CompletableFuture<Object> two = second.send(new OrderChange(order, order + "-two", 1).unlocked().pausing(5_000));
		OrderChanged a = Client.await(one);
		OrderChanged b = Client.await(two);
		checks.same(Math.min(a.revision, b.revision) + "," + Math.max(a.revision, b.revision), "2,3", "two that conflict both succeed, one after the other");
		checks.same(Math.max(a.amount, b.amount), 2L, "the later one saw the earlier one's change");
	}

	private static void race(Client first, Client second, Checks checks, String order, int rounds) throws Exception {
		first.call(new OrderCreate(order, order + "-create", "Jon", 0));
		ConcurrentLinkedQueue<OrderChanged> answered = new ConcurrentLinkedQueue<>();
		AtomicInteger failed = new AtomicInteger();
		AtomicInteger ofSecond = new AtomicInteger();
		List<Thread> callers = new ArrayList<>();
		for (int i = 0; i < 8; i++) {
			int caller = i;
			Client client = i % 2 == 0 ? first : second;
			callers.add(Thread.ofVirtual().start(() -> {
				for (int n = 0; n < rounds; n++) {
					try {
						answered.add(client.call(new OrderChange(order, order + "-" + caller + "-" + n, 1).unlocked()));
						if (client == second) {
							ofSecond.incrementAndGet();
						}
					} catch (Exception e) {
						if (failed.incrementAndGet() <= 3) {
							System.out.println("# refused: " + e);
						}
					}
				}
			}));
		}
		for (Thread caller : callers) {
			caller.join();
		}
		int successes = answered.size();
		System.out.println("# race: " + successes + " answered, " + ofSecond + " of them by the second invoker, " + failed + " refused");
		checks.that(ofSecond.get() > 0 && ofSecond.get() < successes, "both invokers got through");
		checks.same(answered.stream().map(e -> e.revision).distinct().count(), (long) successes, "no two answers have the same revision");
		OrderChanged last = first.call(new OrderChange(order, order + "-last", 1));
		checks.same(last.revision, successes + 2L, "the revision is the number of successes: no lost update");
		checks.same(last.amount, successes + 1L, "the amount is the number of successes");
		checks.becomes(30, "the projection has them all", () -> {
			OrderView view = second.one(new OrderFind(order));
			return view != null && view.revision == successes + 2L && view.markers.stream().distinct().count() == view.markers.size();
		});
	}
}
