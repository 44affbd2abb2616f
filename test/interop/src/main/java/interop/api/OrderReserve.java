package interop.api;

/** Reserves an item of the stock: locks the item, not the order. */
public class OrderReserve extends OrderCommand {
	public String item;

	public OrderReserve() {
	}

	public OrderReserve(String orderId, String marker, String item) {
		super(orderId, marker);
		this.item = item;
	}

	@Override
	public String getLockId() {
		return "stock:" + item;
	}
}
