package interop.api;

import com.evento.common.modeling.messaging.payload.ServiceCommand;

/** Tells the customer; sent by the observer. Its event has no stream. */
public class CustomerNotify extends ServiceCommand {
	public String orderId;

	public CustomerNotify() {
	}

	public CustomerNotify(String orderId) {
		this.orderId = orderId;
	}
}
