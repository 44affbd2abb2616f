package interop.api;

import com.evento.common.modeling.messaging.payload.ServiceEvent;

/** An item was counted: reserved is what the query said. */
public class StockCounted extends ServiceEvent {
	public String item;
	public String marker;
	public long reserved;
	public int concurrent;

	public StockCounted() {
	}

	public StockCounted(String item, String marker, long reserved, int concurrent) {
		this.item = item;
		this.marker = marker;
		this.reserved = reserved;
		this.concurrent = concurrent;
	}
}
