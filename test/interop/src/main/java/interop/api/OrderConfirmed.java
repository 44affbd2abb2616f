package interop.api;

/** The order is to be invoiced and paid. */
public class OrderConfirmed extends OrderEvent {
	public OrderConfirmed() {
	}

	public OrderConfirmed(OrderConfirm command, long revision, long amount) {
		super(command, revision, amount);
	}
}
