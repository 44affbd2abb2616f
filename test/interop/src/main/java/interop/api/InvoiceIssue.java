package interop.api;

import com.evento.common.modeling.messaging.payload.ServiceCommand;

/** Issues an invoice; sent by the saga. */
public class InvoiceIssue extends ServiceCommand {
	public String orderId;

	public InvoiceIssue() {
	}

	public InvoiceIssue(String orderId) {
		this.orderId = orderId;
	}

	@Override
	public String getAggregateId() {
		return "invoice-" + orderId;
	}
}
