package interop.scenarios;

import interop.Options;
import interop.Texts;
import interop.api.FeedStats;
import interop.api.FeedStatsView;
import interop.api.OrderChange;
import interop.api.OrderChanged;
import interop.api.OrderCreate;
import interop.api.OrderCreated;
import interop.api.OrderFind;
import interop.api.OrderTextFind;
import interop.api.OrderView;
import java.util.UUID;

/** Messages that fit no single frame: command, event, story, snapshot, query answer and fetch. */
final class Large implements Scenarios.Scenario {

	@Override
	public void play(Client client, Checks checks, Options options) throws Exception {
		int bytes = options.number("bytes", 20_000_000);
		String order = "l" + UUID.randomUUID().toString().substring(0, 8);
		String first = Texts.make(bytes, 1);
		String second = Texts.make(bytes, 2);

		OrderCreated created = client.call(new OrderCreate(order, order + "-create", "Hal", 1).withText(first));
		checks.same(Texts.bytes(created.text), (long) bytes, "a command and its event of " + bytes + " bytes");
		checks.that(created.text.equals(first), "the event's text is the command's");
		OrderChanged changed = client.call(new OrderChange(order, order + "-story", 1));
		checks.same(changed.storyText, Texts.sum(first), "the story brought the large event");
		/* Enough events for a snapshot, which holds the text, on both sides of it. */
		for (int i = 1; i <= 6; i++) {
			changed = client.call(new OrderChange(order, order + "-small-" + i, 1));
			checks.same(changed.storyText, Texts.sum(first), "the text is in the state after " + (i + 2) + " events");
		}
		changed = client.call(new OrderChange(order, order + "-second", 1).withText(second));
		checks.that(second.equals(changed.text) && changed.storyText == Texts.sum(first),
				"a large command and a large event on a story with a large snapshot");
		for (int i = 1; i <= 5; i++) {
			changed = client.call(new OrderChange(order, order + "-behind-" + i, 1));
			checks.same(changed.storyText, Texts.sum(second), "the new text is in the state (" + i + ")");
		}
		checks.same(changed.revision, 14L, "nothing was stored twice");
		checks.becomes(60, "the feed brought the large events to the projector", () -> {
			OrderView view = client.one(new OrderFind(order));
			return view != null && view.revision == 14 && view.textBytes == bytes;
		});
		checks.that(second.equals(client.one(new OrderTextFind(order)).text), "a query's answer of " + bytes + " bytes");
		FeedStatsView stats = client.one(new FeedStats());
		checks.that(stats.duplicates == 0 && stats.outOfOrder == 0 && stats.revisionGaps == 0, "the feed is in order");
	}
}
