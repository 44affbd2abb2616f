package interop.api;

import com.evento.common.modeling.messaging.payload.Query;
import com.evento.common.modeling.messaging.query.Multiple;

/** The orders whose ids begin so. */
public class OrderList extends Query<Multiple<OrderView>> {
	public String prefix;

	public OrderList() {
	}

	public OrderList(String prefix) {
		this.prefix = prefix;
	}
}
