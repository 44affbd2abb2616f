package interop.process;

import com.evento.common.messaging.gateway.CommandGateway;
import com.evento.common.modeling.annotations.component.Observer;
import com.evento.common.modeling.annotations.handler.EventHandler;
import interop.api.CustomerNotify;
import interop.api.OrderPaid;

/** Has the customer told of the payment. */
@Observer(version = 1)
public class OrderObserver {

	@EventHandler
	public void on(OrderPaid event, CommandGateway commands) throws Exception {
		commands.send(new CustomerNotify(event.orderId)).get();
	}
}
