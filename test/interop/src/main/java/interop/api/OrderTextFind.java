package interop.api;

import com.evento.common.modeling.messaging.payload.Query;
import com.evento.common.modeling.messaging.query.Single;

/** The text of an order, as large as it is. */
public class OrderTextFind extends Query<Single<OrderTextView>> {
	public String orderId;

	public OrderTextFind() {
	}

	public OrderTextFind(String orderId) {
		this.orderId = orderId;
	}
}
