package interop.api;

import com.evento.common.modeling.messaging.payload.Query;
import com.evento.common.modeling.messaging.query.Single;

/** What the projectors have seen of the feed. */
public class FeedStats extends Query<Single<FeedStatsView>> {
	public FeedStats() {
	}
}
