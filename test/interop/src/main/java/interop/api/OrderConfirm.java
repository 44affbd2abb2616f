package interop.api;

/** Starts what is to follow: invoice, payment, notification. */
public class OrderConfirm extends OrderCommand {
	public OrderConfirm() {
	}

	public OrderConfirm(String orderId, String marker) {
		super(orderId, marker);
	}
}
