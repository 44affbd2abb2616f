package interop.api;

import com.evento.common.modeling.messaging.payload.View;

/** The text of an order. */
public class OrderTextView implements View {
	public String orderId;
	public String text;
}
