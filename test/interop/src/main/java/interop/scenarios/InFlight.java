package interop.scenarios;

import interop.Options;
import interop.api.OrderChange;
import interop.api.OrderChanged;
import interop.api.OrderCreate;
import interop.api.OrderFind;
import interop.api.OrderView;
import interop.api.StockCount;
import interop.api.StockCounted;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;

/**
 * Commands and queries that are in the middle of being handled while someone cuts a connection: all must be answered. Prints "RUN prefix" first, the prefix
 * of every marker. The pauses of the handlers go from --sleep-millis / count to --sleep-millis. Every third command is a service's, unless --services no.
 */
final class InFlight implements Scenarios.Scenario {

	@Override
	public void play(Client client, Checks checks, Options options) throws Exception {
		int count = options.number("count", 12);
		int sleep = options.number("sleep-millis", 3_000);
		boolean services = !options.text("services", "yes").equals("no");
		String run = "i" + UUID.randomUUID().toString().substring(0, 8);
		for (int i = 0; i < count; i++) {
			client.call(new OrderCreate(run + "-" + i, run + "-create-" + i, "Mia", 0));
		}
		checks.becomes(20, "the projection has the orders", () -> client.list(run + "-").size() == count);
		System.out.println("RUN " + run);
		System.out.flush();
		List<CompletableFuture<OrderView>> views = new ArrayList<>();
		for (int i = 0; i < options.number("queries", 3); i++) {
			OrderFind query = new OrderFind(run + "-" + i, (long) sleep * (i + 1) / 4);
			views.add(CompletableFuture.supplyAsync(() -> {
				try {
					return client.one(query);
				} catch (Exception e) {
					throw new CompletionException(e);
				}
			}, Thread::startVirtualThread));
		}
		List<CompletableFuture<Object>> answers = new ArrayList<>();
		for (int i = 0; i < count; i++) {
			long pause = (long) sleep * (i + 1) / count;
			answers.add(services && i % 3 == 2 ? client.send(new StockCount("kiwi-" + run + "-" + i, run + "-flight-" + i, false, pause))
					: client.send(new OrderChange(run + "-" + i, run + "-flight-" + i, 5).pausing(pause)));
		}
		for (int i = 0; i < count; i++) {
			String what = (services && i % 3 == 2 ? "service command " : "command ") + i + " is answered";
			try {
				switch (Client.await(answers.get(i))) {
					case OrderChanged event -> checks.that(event.revision == 2 && event.marker.equals(run + "-flight-" + i), what);
					case StockCounted event -> checks.same(event.marker, run + "-flight-" + i, what);
					case Object other -> checks.that(false, what + ": with " + other);
				}
			} catch (Exception e) {
				checks.that(false, what + ": " + e);
			}
		}
		for (int i = 0; i < views.size(); i++) {
			String what = "query " + i + " is answered";
			try {
				checks.same(views.get(i).get().orderId, run + "-" + i, what);
			} catch (Exception e) {
				checks.that(false, what + ": " + Client.cause(e));
			}
		}
		for (int i = 0; i < count; i++) {
			if (!services || i % 3 != 2) {
				checks.same(client.<OrderChanged>call(new OrderChange(run + "-" + i, run + "-after-" + i, 1)).revision, 3L,
						"order " + i + " goes on behind it");
			}
		}
	}
}
