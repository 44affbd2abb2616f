package interop.api;

/** Always refused with a domain exception. */
public class OrderRefuse extends OrderCommand {
	public OrderRefuse() {
	}

	public OrderRefuse(String orderId, String marker) {
		super(orderId, marker);
	}
}
