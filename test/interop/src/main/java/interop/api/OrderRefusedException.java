package interop.api;

/** A domain exception: the application of the caller is to see it as it was thrown. */
public class OrderRefusedException extends RuntimeException {
	private static final long serialVersionUID = 1;

	public OrderRefusedException(String message) {
		super(message);
	}
}
