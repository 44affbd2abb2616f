package interop.api;

/** Handled by nobody. */
public class OrderOrphan extends OrderCommand {
	public OrderOrphan() {
	}

	public OrderOrphan(String orderId, String marker) {
		super(orderId, marker);
	}
}
