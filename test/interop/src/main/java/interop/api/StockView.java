package interop.api;

import com.evento.common.modeling.messaging.payload.View;

/** An item of the stock. */
public class StockView implements View {
	public String item;
	public long reserved;
	public long counted;
}
