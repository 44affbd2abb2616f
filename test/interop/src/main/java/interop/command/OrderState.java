package interop.command;

import com.evento.common.modeling.state.AggregateState;

/** The state of an order: as large as its text. */
public class OrderState extends AggregateState {
	/** Events in the story: the version of the stream. */
	public long revision;
	public long amount;
	public boolean paid;
	public String text;
}
