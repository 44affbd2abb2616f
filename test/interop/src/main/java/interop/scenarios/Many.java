package interop.scenarios;

import interop.Options;
import interop.api.OrderChange;
import interop.api.OrderChanged;
import interop.api.OrderCreate;
import interop.api.OrderReserve;
import interop.api.OrderReserved;
import interop.api.StockCount;
import interop.api.StockCounted;
import interop.api.StockFind;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;

/** Many at once on one connection: services that ask queries, callers in closed loops, commands under one lock. */
final class Many implements Scenarios.Scenario {

	@Override
	public void play(Client client, Checks checks, Options options) throws Exception {
		String run = "m" + UUID.randomUUID().toString().substring(0, 8);
		services(client, checks, run);
		callers(client, checks, run, options.number("rounds", 20));
		lock(client, checks, run);
	}

	private static void services(Client client, Checks checks, String run) throws Exception {
		List<CompletableFuture<Object>> answers = new ArrayList<>();
		for (int i = 0; i < 30; i++) {
			answers.add(client.send(new StockCount("plum-" + run + "-" + i, run + "-count-" + i, false, 200)));
		}
		int right = 0;
		for (int i = 0; i < 30; i++) {
			StockCounted counted = Client.await(answers.get(i));
			right += counted.marker.equals(run + "-count-" + i) ? 1 : 0;
		}
		checks.same(right, 30, "30 service commands at once, each asking a query while handled");
	}

	private static void callers(Client client, Checks checks, String run, int rounds) throws Exception {
		AtomicInteger right = new AtomicInteger();
		List<Thread> callers = new ArrayList<>();
		for (int i = 0; i < 64; i++) {
			String order = run + "-caller-" + i;
			callers.add(Thread.ofVirtual().start(() -> {
				try {
					client.call(new OrderCreate(order, order + "-create", "Kim", 0));
					for (int n = 1; n <= rounds; n++) {
						OrderChanged changed = client.call(new OrderChange(order, order + "-" + n, 1));
						if (changed.revision == n + 1 && changed.amount == n && changed.marker.equals(order + "-" + n)) {
							right.incrementAndGet();
						}
					}
				} catch (Exception e) {
					System.out.println("# " + order + ": " + e);
				}
			}));
		}
		for (Thread caller : callers) {
			caller.join();
		}
		checks.same(right.get(), 64 * rounds, "64 callers in a closed loop on distinct orders");
		checks.becomes(60, "the projection has them all", () -> {
			var views = client.list(run + "-caller-");
			return views.size() == 64 && views.stream().allMatch(v -> v.revision == rounds + 1);
		});
	}

	private static void lock(Client client, Checks checks, String run) throws Exception {
		String item = "fig-" + run;
		for (int i = 0; i < 15; i++) {
			client.call(new OrderCreate(run + "-lock-" + i, run + "-lock-create-" + i, "Lea", 0));
		}
		List<CompletableFuture<Object>> answers = new ArrayList<>();
		for (int i = 0; i < 20; i++) {
			answers.add(i % 4 == 3 ? client.send(new StockCount(item, run + "-lock-count-" + i, true, 40))
					: client.send(new OrderReserve(run + "-lock-" + (i - i / 4), run + "-lock-reserve-" + i, item).pausing(40)));
		}
		int alone = 0;
		for (CompletableFuture<Object> answer : answers) {
			switch (Client.await(answer)) {
				case OrderReserved event -> alone += event.concurrent == 1 ? 1 : 0;
				case StockCounted event -> alone += event.concurrent == 1 ? 1 : 0;
				default -> throw new IllegalStateException("an answer of another kind");
			}
		}
		checks.same(alone, 20, "20 commands of two kinds at once on one lock, each of them alone");
		checks.becomes(30, "the projection has the reservations", () -> client.one(new StockFind(item)).reserved == 15);
	}
}
