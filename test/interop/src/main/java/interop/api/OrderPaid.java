package interop.api;

/** The order is paid. */
public class OrderPaid extends OrderEvent {
	public String invoiceId;

	public OrderPaid() {
	}

	public OrderPaid(OrderMarkPaid command, long revision, long amount, String invoiceId) {
		super(command, revision, amount);
		this.invoiceId = invoiceId;
	}
}
