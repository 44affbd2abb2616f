package interop.query;

import com.evento.common.modeling.messaging.dto.PublishedEvent;
import interop.api.FeedStatsView;
import interop.api.OrderEvent;
import interop.api.OrderView;
import interop.api.StockView;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.TreeMap;

/** What the projectors know, in memory: each query bundle builds it anew from the whole log. */
public final class Orders {
	private static final TreeMap<String, OrderView> ORDERS = new TreeMap<>();
	private static final HashMap<String, String> TEXTS = new HashMap<>();
	private static final HashMap<String, StockView> STOCK = new HashMap<>();
	private static final HashSet<Long> SEEN = new HashSet<>();
	private static final FeedStatsView STATS = new FeedStatsView();
	private static long stockSequence;

	private Orders() {
	}

	public static synchronized void instance(String name) {
		STATS.instance = name;
	}

	/** Notes an event of the feed: none may come twice, none may come below one that was there before. */
	static synchronized void see(PublishedEvent published) {
		long sequence = published.getEventSequenceNumber();
		STATS.events++;
		if (!SEEN.add(sequence)) {
			STATS.duplicates++;
		} else if (sequence <= STATS.lastSequence) {
			STATS.outOfOrder++;
		}
		STATS.lastSequence = Math.max(STATS.lastSequence, sequence);
	}

	/** Notes an event in the feed of one context. */
	static synchronized void seeStock(PublishedEvent published) {
		long sequence = published.getEventSequenceNumber();
		STATS.stockEvents++;
		if (!"stock".equals(published.getEventMessage().getContext())) {
			STATS.stockStrangers++;
		}
		if (sequence <= stockSequence) {
			STATS.stockOutOfOrder++;
		}
		stockSequence = Math.max(stockSequence, sequence);
	}

	/** Applies what is common to the events of an order, and gives the view, which the caller may change under this class's lock. */
	static synchronized OrderView apply(OrderEvent event, String traceId) {
		OrderView view = ORDERS.computeIfAbsent(event.orderId, id -> new OrderView());
		view.orderId = event.orderId;
		if (event.revision != view.revision + 1) {
			STATS.revisionGaps++;
		}
		view.revision = event.revision;
		view.amount = event.amount;
		view.markers.add(event.marker);
		view.revisions.add(event.revision);
		if (traceId != null) {
			view.traceId = traceId;
		}
		if (event.text != null) {
			TEXTS.put(event.orderId, event.text);
			view.textBytes = interop.Texts.bytes(event.text);
		}
		return view;
	}

	static synchronized OrderView order(String orderId) {
		return ORDERS.computeIfAbsent(orderId, id -> new OrderView());
	}

	static synchronized StockView item(String item) {
		return STOCK.computeIfAbsent(item, name -> {
			StockView view = new StockView();
			view.item = name;
			return view;
		});
	}

	static synchronized OrderView find(String orderId) {
		OrderView view = ORDERS.get(orderId);
		return view == null ? null : copy(view);
	}

	static synchronized List<OrderView> list(String prefix) {
		return ORDERS.subMap(prefix, prefix + Character.MAX_VALUE).values().stream().map(Orders::copy).toList();
	}

	static synchronized String text(String orderId) {
		return TEXTS.get(orderId);
	}

	static synchronized StockView stock(String item) {
		StockView found = item(item);
		StockView view = new StockView();
		view.item = found.item;
		view.reserved = found.reserved;
		view.counted = found.counted;
		return view;
	}

	static synchronized FeedStatsView stats() {
		FeedStatsView view = new FeedStatsView();
		view.instance = STATS.instance;
		view.events = STATS.events;
		view.lastSequence = STATS.lastSequence;
		view.duplicates = STATS.duplicates;
		view.outOfOrder = STATS.outOfOrder;
		view.revisionGaps = STATS.revisionGaps;
		view.stockEvents = STATS.stockEvents;
		view.stockStrangers = STATS.stockStrangers;
		view.stockOutOfOrder = STATS.stockOutOfOrder;
		return view;
	}

	private static OrderView copy(OrderView from) {
		OrderView view = new OrderView();
		view.orderId = from.orderId;
		view.customer = from.customer;
		view.amount = from.amount;
		view.revision = from.revision;
		view.confirmed = from.confirmed;
		view.invoiceId = from.invoiceId;
		view.paid = from.paid;
		view.notified = from.notified;
		view.deleted = from.deleted;
		view.textBytes = from.textBytes;
		view.markers = new ArrayList<>(from.markers);
		view.revisions = new ArrayList<>(from.revisions);
		view.traceId = from.traceId;
		return view;
	}
}
