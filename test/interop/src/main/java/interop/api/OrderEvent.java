package interop.api;

import com.evento.common.modeling.messaging.payload.DomainEvent;

/** What every event of an order carries. */
public abstract class OrderEvent extends DomainEvent {
	public String orderId;
	public String marker;
	/** Changes of the order so far, this one included. */
	public long revision;
	public long amount;
	public String text;

	protected OrderEvent() {
	}

	protected OrderEvent(OrderCommand command, long revision, long amount) {
		this.orderId = command.orderId;
		this.marker = command.marker;
		this.text = command.text;
		this.revision = revision;
		this.amount = amount;
	}
}
