package interop.api;

/** An item was reserved; concurrent is how many handlers held the item's lock in this bundle at once. */
public class OrderReserved extends OrderEvent {
	public String item;
	public int concurrent;

	public OrderReserved() {
	}

	public OrderReserved(OrderReserve command, long revision, long amount, String item, int concurrent) {
		super(command, revision, amount);
		this.item = item;
		this.concurrent = concurrent;
	}
}
