package interop.api;

import com.evento.common.modeling.messaging.payload.DomainCommand;

/** What every command of an order carries: a marker that is found again in the log and in the handlers' trace, and a pause. */
public abstract class OrderCommand extends DomainCommand {
	public String orderId;
	public String marker;
	public String text;
	public long sleepMillis;
	/** Whether the aggregate is locked while the command runs. */
	public boolean locked = true;

	protected OrderCommand() {
	}

	protected OrderCommand(String orderId, String marker) {
		this.orderId = orderId;
		this.marker = marker;
	}

	@Override
	public String getAggregateId() {
		return orderId;
	}

	@Override
	public String getLockId() {
		return locked ? orderId : null;
	}

	/** The handler pauses so long before it answers. */
	@SuppressWarnings("unchecked")
	public <T extends OrderCommand> T pausing(long millis) {
		sleepMillis = millis;
		return (T) this;
	}

	/** Sent with lockId null. */
	@SuppressWarnings("unchecked")
	public <T extends OrderCommand> T unlocked() {
		locked = false;
		return (T) this;
	}

	@SuppressWarnings("unchecked")
	public <T extends OrderCommand> T withText(String text) {
		this.text = text;
		return (T) this;
	}
}
