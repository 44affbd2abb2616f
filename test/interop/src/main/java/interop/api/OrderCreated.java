package interop.api;

/** An order was made. */
public class OrderCreated extends OrderEvent {
	public String customer;

	public OrderCreated() {
	}

	public OrderCreated(OrderCreate command, long revision, long amount, String customer) {
		super(command, revision, amount);
		this.customer = customer;
	}
}
