package interop.api;

import com.evento.common.modeling.messaging.payload.Query;
import com.evento.common.modeling.messaging.query.Single;

/** One order; nothing where there is none. */
public class OrderFind extends Query<Single<OrderView>> {
	public String orderId;
	/** The handler pauses so long. */
	public long sleepMillis;

	public OrderFind() {
	}

	public OrderFind(String orderId) {
		this.orderId = orderId;
	}

	public OrderFind(String orderId, long sleepMillis) {
		this.orderId = orderId;
		this.sleepMillis = sleepMillis;
	}
}
