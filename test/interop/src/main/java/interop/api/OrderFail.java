package interop.api;

import com.evento.common.modeling.messaging.payload.Query;
import com.evento.common.modeling.messaging.query.Single;

/** Refused with a domain exception. */
public class OrderFail extends Query<Single<OrderView>> {
	public String message;

	public OrderFail() {
	}

	public OrderFail(String message) {
		this.message = message;
	}
}
