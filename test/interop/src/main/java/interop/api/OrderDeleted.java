package interop.api;

/** The order was deleted. */
public class OrderDeleted extends OrderEvent {
	public OrderDeleted() {
	}

	public OrderDeleted(OrderDelete command, long revision, long amount) {
		super(command, revision, amount);
	}
}
