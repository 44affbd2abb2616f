package interop.api;

import com.evento.common.modeling.messaging.payload.View;

/** The order in which events came in: all of these but events, lastSequence and stockEvents are to be 0. */
public class FeedStatsView implements View {
	public String instance;
	public long events;
	public long lastSequence;
	public long duplicates;
	public long outOfOrder;
	public long revisionGaps;
	public long stockEvents;
	public long stockStrangers;
	public long stockOutOfOrder;
}
