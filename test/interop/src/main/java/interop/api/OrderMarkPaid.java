package interop.api;

/** Sent by the saga when the invoice is there. */
public class OrderMarkPaid extends OrderCommand {
	public String invoiceId;

	public OrderMarkPaid() {
	}

	public OrderMarkPaid(String orderId, String marker, String invoiceId) {
		super(orderId, marker);
		this.invoiceId = invoiceId;
	}
}
