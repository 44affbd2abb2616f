package interop.query;

import com.evento.common.modeling.annotations.component.Projection;
import com.evento.common.modeling.annotations.handler.QueryHandler;
import com.evento.common.modeling.messaging.query.Multiple;
import com.evento.common.modeling.messaging.query.Single;
import interop.Trace;
import interop.api.FeedStats;
import interop.api.FeedStatsView;
import interop.api.OrderFail;
import interop.api.OrderFind;
import interop.api.OrderList;
import interop.api.OrderRefusedException;
import interop.api.OrderTextFind;
import interop.api.OrderTextView;
import interop.api.OrderView;
import interop.api.StockFind;
import interop.api.StockView;

/** Answers from what the projectors know. */
@Projection
public class OrderProjection {

	@QueryHandler
	public Single<OrderView> handle(OrderFind query) {
		if (query.sleepMillis > 0) {
			try (var run = Trace.run(query, query.orderId, 0, null)) {
				Trace.pause(query.sleepMillis);
			}
		}
		return Single.of(Orders.find(query.orderId));
	}

	@QueryHandler
	public Multiple<OrderView> handle(OrderList query) {
		return Multiple.of(Orders.list(query.prefix));
	}

	@QueryHandler
	public Single<OrderTextView> handle(OrderTextFind query) {
		OrderTextView view = new OrderTextView();
		view.orderId = query.orderId;
		view.text = Orders.text(query.orderId);
		return Single.of(view);
	}

	@QueryHandler
	public Single<OrderView> handle(OrderFail query) {
		throw new OrderRefusedException(query.message);
	}

	@QueryHandler
	public Single<StockView> handle(StockFind query) {
		return Single.of(Orders.stock(query.item));
	}

	@QueryHandler
	public Single<FeedStatsView> handle(FeedStats query) {
		return Single.of(Orders.stats());
	}
}
