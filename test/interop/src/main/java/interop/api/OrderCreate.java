package interop.api;

/** Makes an order. */
public class OrderCreate extends OrderCommand {
	public String customer;
	public long amount;

	public OrderCreate() {
	}

	public OrderCreate(String orderId, String marker, String customer, long amount) {
		super(orderId, marker);
		this.customer = customer;
		this.amount = amount;
	}
}
