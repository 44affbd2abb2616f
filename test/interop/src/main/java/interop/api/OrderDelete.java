package interop.api;

/** Deletes an order. */
public class OrderDelete extends OrderCommand {
	public OrderDelete() {
	}

	public OrderDelete(String orderId, String marker) {
		super(orderId, marker);
	}
}
