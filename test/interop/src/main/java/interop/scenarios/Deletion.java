package interop.scenarios;

import com.evento.common.modeling.exceptions.AggregateDeletedError;
import interop.Options;
import interop.api.OrderChange;
import interop.api.OrderCreate;
import interop.api.OrderDelete;
import interop.api.OrderDeleted;
import interop.api.OrderFind;
import interop.api.OrderView;
import java.util.UUID;

/** Deletes orders, at the very command that also brings a snapshot and at others: later commands are refused. */
final class Deletion implements Scenarios.Scenario {

	@Override
	public void play(Client client, Checks checks, Options options) throws Exception {
		String run = "d" + UUID.randomUUID().toString().substring(0, 8);
		/* With a snapshot every few events, one of eight lengths in a row deletes at the command that brings one. */
		for (int changes = 0; changes < 8; changes++) {
			String order = run + "-" + changes;
			client.call(new OrderCreate(order, order + "-create", "Fay", 1));
			for (int i = 1; i <= changes; i++) {
				client.call(new OrderChange(order, order + "-change-" + i, 1));
			}
			OrderDeleted deleted = client.call(new OrderDelete(order, order + "-delete"));
			checks.same(deleted.revision, changes + 2L, "an order with " + changes + " changes is deleted");
			for (int i = 1; i <= 2; i++) {
				checks.refused(AggregateDeletedError.class, order, "and refuses changes (" + i + ")",
						() -> client.call(new OrderChange(order, order + "-late", 1)));
			}
			checks.refused(AggregateDeletedError.class, order, "and refuses to be deleted again",
					() -> client.call(new OrderDelete(order, order + "-late")));
			checks.refused(RuntimeException.class, order, "and refuses to be made again",
					() -> client.call(new OrderCreate(order, order + "-late", "Gus", 1)));
		}
		checks.becomes(20, "the projection knows of the deletions",
				() -> client.list(run + "-").stream().filter(v -> v.deleted).count() == 8);
		OrderView view = client.one(new OrderFind(run + "-7"));
		checks.same(view.revision, 9L, "and of nothing behind them");
	}
}
