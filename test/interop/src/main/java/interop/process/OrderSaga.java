package interop.process;

import com.evento.common.messaging.gateway.CommandGateway;
import com.evento.common.modeling.annotations.component.Saga;
import com.evento.common.modeling.annotations.handler.SagaEventHandler;
import interop.api.InvoiceIssue;
import interop.api.InvoiceIssued;
import interop.api.OrderConfirmed;
import interop.api.OrderMarkPaid;
import interop.api.OrderPaid;

/** A confirmed order is invoiced, then marked as paid. */
@Saga(version = 1)
public class OrderSaga {

	@SagaEventHandler(init = true, associationProperty = "orderId")
	public OrderSagaState on(OrderConfirmed event, CommandGateway commands) throws Exception {
		OrderSagaState state = new OrderSagaState();
		state.orderId = event.orderId;
		state.setAssociation("orderId", event.orderId);
		commands.send(new InvoiceIssue(event.orderId)).get();
		return state;
	}

	@SagaEventHandler(associationProperty = "orderId")
	public OrderSagaState on(InvoiceIssued event, OrderSagaState state, CommandGateway commands) throws Exception {
		state.invoiceId = event.invoiceId;
		commands.send(new OrderMarkPaid(event.orderId, "paid-" + event.orderId, event.invoiceId)).get();
		return state;
	}

	@SagaEventHandler(associationProperty = "orderId")
	public OrderSagaState on(OrderPaid event, OrderSagaState state) {
		state.setEnded(true);
		return state;
	}
}
