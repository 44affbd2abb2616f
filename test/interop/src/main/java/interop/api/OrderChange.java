package interop.api;

/** Adds to the amount of an order. */
public class OrderChange extends OrderCommand {
	public long delta;

	public OrderChange() {
	}

	public OrderChange(String orderId, String marker, long delta) {
		super(orderId, marker);
		this.delta = delta;
	}
}
