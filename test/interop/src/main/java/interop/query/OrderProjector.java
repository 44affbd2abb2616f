package interop.query;

import com.evento.common.modeling.annotations.component.Projector;
import com.evento.common.modeling.annotations.handler.EventHandler;
import com.evento.common.modeling.messaging.dto.PublishedEvent;
import com.evento.common.modeling.messaging.message.application.Metadata;
import interop.Tracing;
import interop.api.CustomerNotified;
import interop.api.InvoiceIssued;
import interop.api.OrderChanged;
import interop.api.OrderConfirmed;
import interop.api.OrderCreated;
import interop.api.OrderDeleted;
import interop.api.OrderEvent;
import interop.api.OrderPaid;
import interop.api.OrderReserved;
import interop.api.OrderView;
import interop.api.StockCounted;

/** Follows every event of the application. Its bundle takes no requests before it has caught up. */
@Projector(version = 1, waitForHeadReached = true)
public class OrderProjector {

	@EventHandler
	public void on(OrderCreated event, PublishedEvent published, Metadata metadata) {
		synchronized (Orders.class) {
			see(event, published, metadata).customer = event.customer;
		}
	}

	@EventHandler
	public void on(OrderChanged event, PublishedEvent published, Metadata metadata) {
		see(event, published, metadata);
	}

	@EventHandler
	public void on(OrderConfirmed event, PublishedEvent published, Metadata metadata) {
		synchronized (Orders.class) {
			see(event, published, metadata).confirmed = true;
		}
	}

	@EventHandler
	public void on(OrderPaid event, PublishedEvent published, Metadata metadata) {
		synchronized (Orders.class) {
			see(event, published, metadata).paid = true;
		}
	}

	@EventHandler
	public void on(OrderReserved event, PublishedEvent published, Metadata metadata) {
		synchronized (Orders.class) {
			see(event, published, metadata);
			Orders.item(event.item).reserved++;
		}
	}

	@EventHandler
	public void on(OrderDeleted event, PublishedEvent published, Metadata metadata) {
		synchronized (Orders.class) {
			see(event, published, metadata).deleted = true;
		}
	}

	@EventHandler
	public void on(StockCounted event, PublishedEvent published) {
		synchronized (Orders.class) {
			Orders.see(published);
			Orders.item(event.item).counted++;
		}
	}

	@EventHandler
	public void on(InvoiceIssued event, PublishedEvent published) {
		synchronized (Orders.class) {
			Orders.see(published);
			Orders.order(event.orderId).invoiceId = event.invoiceId;
		}
	}

	@EventHandler
	public void on(CustomerNotified event, PublishedEvent published) {
		synchronized (Orders.class) {
			Orders.see(published);
			Orders.order(event.orderId).notified = true;
		}
	}

	private static OrderView see(OrderEvent event, PublishedEvent published, Metadata metadata) {
		synchronized (Orders.class) {
			Orders.see(published);
			return Orders.apply(event, metadata == null ? null : metadata.get(Tracing.TRACE_ID));
		}
	}
}
