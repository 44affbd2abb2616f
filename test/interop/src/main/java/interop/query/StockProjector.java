package interop.query;

import com.evento.common.modeling.annotations.component.Projector;
import com.evento.common.modeling.annotations.handler.EventHandler;
import com.evento.common.modeling.messaging.dto.PublishedEvent;
import interop.api.OrderChanged;
import interop.api.OrderReserved;
import interop.api.StockCounted;

/** Follows the context "stock" alone; OrderChanged is never in it. */
@Projector(version = 1)
public class StockProjector {

	@EventHandler
	public void on(OrderReserved event, PublishedEvent published) {
		Orders.seeStock(published);
	}

	@EventHandler
	public void on(StockCounted event, PublishedEvent published) {
		Orders.seeStock(published);
	}

	@EventHandler
	public void on(OrderChanged event, PublishedEvent published) {
		Orders.seeStock(published);
	}
}
