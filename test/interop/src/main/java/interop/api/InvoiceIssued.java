package interop.api;

import com.evento.common.modeling.messaging.payload.ServiceEvent;

/** An invoice was issued; known says whether the projection had the order. */
public class InvoiceIssued extends ServiceEvent {
	public String orderId;
	public String invoiceId;
	public boolean known;

	public InvoiceIssued() {
	}

	public InvoiceIssued(String orderId, String invoiceId, boolean known) {
		this.orderId = orderId;
		this.invoiceId = invoiceId;
		this.known = known;
	}
}
