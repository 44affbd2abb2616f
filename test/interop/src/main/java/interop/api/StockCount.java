package interop.api;

import com.evento.common.modeling.messaging.payload.ServiceCommand;

/** Counts an item: asks for the reservations while it is handled. Shares its lock with OrderReserve. */
public class StockCount extends ServiceCommand {
	public String item;
	public String marker;
	public boolean locked;
	public long sleepMillis;

	public StockCount() {
	}

	public StockCount(String item, String marker, boolean locked, long sleepMillis) {
		this.item = item;
		this.marker = marker;
		this.locked = locked;
		this.sleepMillis = sleepMillis;
	}

	@Override
	public String getAggregateId() {
		return "stock-" + item;
	}

	@Override
	public String getLockId() {
		return locked ? "stock:" + item : null;
	}
}
