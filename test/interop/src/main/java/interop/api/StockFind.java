package interop.api;

import com.evento.common.modeling.messaging.payload.Query;
import com.evento.common.modeling.messaging.query.Single;

/** What is reserved of an item. */
public class StockFind extends Query<Single<StockView>> {
	public String item;

	public StockFind() {
	}

	public StockFind(String item) {
		this.item = item;
	}
}
