package interop.scenarios;

import com.evento.common.modeling.exceptions.AggregateInitializedError;
import com.evento.common.modeling.exceptions.AggregateNotInitializedError;
import com.evento.common.modeling.messaging.message.application.Metadata;
import interop.Options;
import interop.Tracing;
import interop.api.AuditFail;
import interop.api.AuditMark;
import interop.api.FeedStats;
import interop.api.FeedStatsView;
import interop.api.OrderChange;
import interop.api.OrderChanged;
import interop.api.OrderConfirm;
import interop.api.OrderCreate;
import interop.api.OrderCreated;
import interop.api.OrderFail;
import interop.api.OrderFind;
import interop.api.OrderOrphan;
import interop.api.OrderRefuse;
import interop.api.OrderRefusedException;
import interop.api.OrderReserve;
import interop.api.OrderReserved;
import interop.api.OrderView;
import interop.api.StockCount;
import interop.api.StockCounted;
import interop.api.StockFind;
import java.util.Collection;
import java.util.List;
import java.util.UUID;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** Every kind of message once, every answer and every projection checked. */
final class Basic implements Scenarios.Scenario {
	private final String run = "b" + UUID.randomUUID().toString().substring(0, 8);
	private Client client;
	private Checks checks;

	@Override
	public void play(Client client, Checks checks, Options options) throws Exception {
		this.client = client;
		this.checks = checks;
		refusals();
		story();
		stock();
		multiple();
		process();
		new Deletion().play(client, checks, options);
		feed();
	}

	private void refusals() throws Exception {
		String none = run + "-none";
		checks.refused(IllegalStateException.class, "no handler for OrderOrphan", "a command that nobody handles is refused",
				() -> client.call(new OrderOrphan(none, run + "-orphan")));
		checks.same(client.one(new OrderFind(none)), null, "an unknown order is answered with nothing");
		checks.refused(AggregateNotInitializedError.class, none, "an order that was never made can't be changed",
				() -> client.call(new OrderChange(none, run + "-early", 1)));
		checks.refused(OrderRefusedException.class, "no such luck", "a query's exception reaches its caller",
				() -> client.one(new OrderFail("no such luck")));
		checks.refused(OrderRefusedException.class, "audit " + run, "a service's exception reaches its caller",
				() -> client.call(new AuditFail(run)));
		checks.same(client.call(new AuditMark(run)), null, "a service command without an event is answered");
	}

	private void story() throws Exception {
		String order = run + "-a";
		Metadata metadata = new Metadata();
		metadata.put(Tracing.TRACE_ID, "trace " + run + " ü");
		OrderCreated created = client.call(new OrderCreate(order, run + "-create", "Ada \"ü\" \\ \u20ac", 100), metadata);
		checks.same(created.revision, 1L, "the first event of an order has revision 1");
		checks.same(created.customer, "Ada \"ü\" \\ \u20ac", "a text comes back as it was sent");
		checks.refused(AggregateInitializedError.class, order, "an order can't be made twice",
				() -> client.call(new OrderCreate(order, run + "-again", "Bob", 1)));
		for (int i = 1; i <= 11; i++) {
			OrderChanged changed = client.call(new OrderChange(order, run + "-change-" + i, i));
			checks.that(changed.revision == 1 + i && changed.amount == 100 + i * (i + 1) / 2,
					"change " + i + " finds the whole story (revision " + changed.revision + ", amount " + changed.amount + ")");
		}
		checks.refused(OrderRefusedException.class, "order " + order + " refuses at revision 12", "a domain exception reaches its caller",
				() -> client.call(new OrderRefuse(order, run + "-refuse")));
		OrderChanged unlocked = client.call(new OrderChange(order, run + "-unlocked", 1).unlocked());
		checks.same(unlocked.revision, 13L, "a command without a lock is handled");
		OrderChange fresh = new OrderChange(order, run + "-fresh", 1);
		fresh.setInvalidateAggregateSnapshot(true);
		checks.same(client.<OrderChanged>call(fresh).revision, 14L, "a command that wants no snapshot gets the whole story");
		checks.becomes(20, "the projection has the order", () -> {
			OrderView view = client.one(new OrderFind(order));
			return view != null && view.revision == 14 && view.amount == 168;
		});
		OrderView view = client.one(new OrderFind(order));
		List<Long> revisions = IntStream.rangeClosed(1, 14).mapToObj(Long::valueOf).toList();
		checks.same(view.revisions, revisions, "the projection has every revision once, in order");
		checks.same(view.markers.getFirst(), run + "-create", "the projection has the first event first");
		checks.same(view.traceId, "trace " + run + " ü", "metadata came through command, event and feed");
	}

	private void stock() throws Exception {
		String item = "pear-" + run;
		for (int i = 1; i <= 3; i++) {
			String order = run + "-stock-" + i;
			client.call(new OrderCreate(order, order + "-create", "Cyd", i));
			OrderReserved reserved = client.call(new OrderReserve(order, order + "-reserve", item));
			checks.that(reserved.revision == 2 && reserved.item.equals(item) && reserved.getContext().equals("stock"),
					"a command under the lock of an item is handled (" + i + ")");
		}
		checks.becomes(20, "the projection counts the reservations", () -> client.one(new StockFind(item)).reserved == 3);
		StockCounted counted = client.call(new StockCount(item, run + "-count", true, 0));
		checks.same(counted.reserved, 3L, "a service asked the projection while it handled a command");
		checks.becomes(20, "the projection has the service's event", () -> client.one(new StockFind(item)).counted == 1);
	}

	private void multiple() throws Exception {
		String prefix = run + "-m-";
		for (int i = 0; i < 25; i++) {
			client.call(new OrderCreate(prefix + (char) ('a' + i), prefix + i, "Dee", i));
		}
		checks.becomes(20, "a query with multiple results finds them all", () -> client.list(prefix).size() == 25);
		Collection<OrderView> found = client.list(prefix);
		checks.same(found.stream().map(v -> v.orderId).collect(Collectors.joining()),
				IntStream.range(0, 25).mapToObj(i -> prefix + (char) ('a' + i)).collect(Collectors.joining()), "and in their order");
		checks.same(client.list(run + "-nothing").size(), 0, "a query with multiple results may find none");
	}

	/* A saga and an observer begin with the events behind their first look at the log, which may lie behind our first order. */
	private void process() throws Exception {
		for (int attempt = 1;; attempt++) {
			String order = run + "-p" + attempt;
			client.call(new OrderCreate(order, order + "-create", "Eve", 7));
			client.call(new OrderConfirm(order, order + "-confirm"));
			long deadline = System.nanoTime() + (attempt < 4 ? 8_000_000_000L : 25_000_000_000L);
			OrderView view;
			do {
				Thread.sleep(100);
				view = client.one(new OrderFind(order));
			} while ((view == null || !view.notified) && System.nanoTime() < deadline);
			boolean begun = view != null && (view.invoiceId != null || view.paid);
			if (begun || attempt == 4) {
				checks.becomes(25, "the saga had the order invoiced", () -> client.one(new OrderFind(order)).invoiceId != null);
				checks.becomes(25, "the saga had the order marked as paid", () -> client.one(new OrderFind(order)).paid);
				checks.becomes(25, "the observer had the customer notified", () -> client.one(new OrderFind(order)).notified);
				checks.same(client.one(new OrderFind(order)).markers, List.of(order + "-create", order + "-confirm", "paid-" + order),
						"each step of the process was done once");
				return;
			}
		}
	}

	private void feed() throws Exception {
		FeedStatsView stats = client.one(new FeedStats());
		checks.that(stats.events > 50, "the projector has seen the feed (" + stats.events + " events)");
		checks.same(stats.duplicates, 0L, "no event came twice");
		checks.same(stats.outOfOrder, 0L, "no event came out of order");
		checks.same(stats.revisionGaps, 0L, "no order has a gap");
		checks.that(stats.stockEvents >= 4, "a projector of one context has seen its events");
		checks.same(stats.stockStrangers, 0L, "and no other");
		checks.same(stats.stockOutOfOrder, 0L, "and in order");
	}
}
