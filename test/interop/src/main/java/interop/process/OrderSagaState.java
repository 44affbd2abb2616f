package interop.process;

import com.evento.common.modeling.state.SagaState;

/** Where a confirmed order stands. */
public class OrderSagaState extends SagaState {
	public String orderId;
	public String invoiceId;
}
