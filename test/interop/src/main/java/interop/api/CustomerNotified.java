package interop.api;

import com.evento.common.modeling.messaging.payload.ServiceEvent;

/** The customer was told. */
public class CustomerNotified extends ServiceEvent {
	public String orderId;

	public CustomerNotified() {
	}

	public CustomerNotified(String orderId) {
		this.orderId = orderId;
	}
}
