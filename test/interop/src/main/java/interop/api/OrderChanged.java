package interop.api;

/** The amount changed; storyText says which text the handler saw in the story (its CRC). */
public class OrderChanged extends OrderEvent {
	public long storyText;

	public OrderChanged() {
	}

	public OrderChanged(OrderChange command, long revision, long amount, long storyText) {
		super(command, revision, amount);
		this.storyText = storyText;
	}
}
