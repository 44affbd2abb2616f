package interop.command;

import com.evento.common.modeling.annotations.component.Aggregate;
import com.evento.common.modeling.annotations.handler.AggregateCommandHandler;
import com.evento.common.modeling.annotations.handler.EventSourcingHandler;
import interop.Texts;
import interop.Trace;
import interop.api.OrderChange;
import interop.api.OrderChanged;
import interop.api.OrderConfirm;
import interop.api.OrderConfirmed;
import interop.api.OrderCreate;
import interop.api.OrderCreated;
import interop.api.OrderDelete;
import interop.api.OrderDeleted;
import interop.api.OrderEvent;
import interop.api.OrderMarkPaid;
import interop.api.OrderPaid;
import interop.api.OrderRefuse;
import interop.api.OrderRefusedException;
import interop.api.OrderReserve;
import interop.api.OrderReserved;

/** An order. Every event carries the revision that the handler computed from its story: the version the event must get. */
@Aggregate(snapshotFrequency = 4)
public class OrderAggregate {

	@AggregateCommandHandler(init = true)
	public OrderCreated handle(OrderCreate command) {
		try (var run = Trace.run(command, command.marker, 0, null)) {
			Trace.pause(command.sleepMillis);
			return new OrderCreated(command, 1, command.amount, command.customer);
		}
	}

	@AggregateCommandHandler
	public OrderChanged handle(OrderChange command, OrderState state) {
		try (var run = Trace.run(command, command.marker, state.revision, null)) {
			Trace.pause(command.sleepMillis);
			return new OrderChanged(command, state.revision + 1, state.amount + command.delta, Texts.sum(state.text));
		}
	}

	@AggregateCommandHandler
	public OrderConfirmed handle(OrderConfirm command, OrderState state) {
		try (var run = Trace.run(command, command.marker, state.revision, null)) {
			return new OrderConfirmed(command, state.revision + 1, state.amount);
		}
	}

	@AggregateCommandHandler
	public OrderPaid handle(OrderMarkPaid command, OrderState state) {
		try (var run = Trace.run(command, command.marker, state.revision, null)) {
			if (state.paid) {
				throw new OrderRefusedException("order " + command.orderId + " is paid already");
			}
			return new OrderPaid(command, state.revision + 1, state.amount, command.invoiceId);
		}
	}

	@AggregateCommandHandler
	public OrderChanged handle(OrderRefuse command, OrderState state) {
		try (var run = Trace.run(command, command.marker, state.revision, null)) {
			throw new OrderRefusedException("order " + command.orderId + " refuses at revision " + state.revision);
		}
	}

	@AggregateCommandHandler
	public OrderReserved handle(OrderReserve command, OrderState state) {
		try (var run = Trace.run(command, command.marker, state.revision, command.getLockId())) {
			Trace.pause(command.sleepMillis);
			OrderReserved event = new OrderReserved(command, state.revision + 1, state.amount, command.item, run.concurrent);
			event.setContext("stock");
			return event;
		}
	}

	@AggregateCommandHandler
	public OrderDeleted handle(OrderDelete command, OrderState state) {
		try (var run = Trace.run(command, command.marker, state.revision, null)) {
			Trace.pause(command.sleepMillis);
			return new OrderDeleted(command, state.revision + 1, state.amount);
		}
	}

	@EventSourcingHandler
	public OrderState on(OrderCreated event) {
		return apply(event, new OrderState());
	}

	@EventSourcingHandler
	public OrderState on(OrderChanged event, OrderState state) {
		return apply(event, state);
	}

	@EventSourcingHandler
	public OrderState on(OrderConfirmed event, OrderState state) {
		return apply(event, state);
	}

	@EventSourcingHandler
	public OrderState on(OrderPaid event, OrderState state) {
		state.paid = true;
		return apply(event, state);
	}

	@EventSourcingHandler
	public OrderState on(OrderReserved event, OrderState state) {
		return apply(event, state);
	}

	@EventSourcingHandler
	public OrderState on(OrderDeleted event, OrderState state) {
		apply(event, state).setDeleted(true);
		return state;
	}

	/* A story that has a hole, or an event twice, is refused loudly: its revisions do not follow. */
	private static OrderState apply(OrderEvent event, OrderState state) {
		if (event.revision != state.revision + 1) {
			throw new IllegalStateException("broken story of " + event.orderId + ": event of revision " + event.revision
					+ " behind revision " + state.revision);
		}
		state.revision = event.revision;
		state.amount = event.amount;
		if (event.text != null) {
			state.text = event.text;
		}
		return state;
	}
}
