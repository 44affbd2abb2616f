package interop.command;

import com.evento.common.messaging.gateway.QueryGateway;
import com.evento.common.modeling.annotations.component.Service;
import com.evento.common.modeling.annotations.handler.CommandHandler;
import interop.Trace;
import interop.api.AuditFail;
import interop.api.AuditMark;
import interop.api.CustomerNotified;
import interop.api.CustomerNotify;
import interop.api.InvoiceIssue;
import interop.api.InvoiceIssued;
import interop.api.OrderFind;
import interop.api.OrderRefusedException;
import interop.api.StockCount;
import interop.api.StockCounted;
import interop.api.StockFind;
import java.util.UUID;

/** Services that ask a query while they handle a command, with an event and without. */
@Service
public class StockService {

	@CommandHandler
	public StockCounted handle(StockCount command, QueryGateway queries) throws Exception {
		try (var run = Trace.run(command, command.marker, 0, command.getLockId())) {
			long reserved = queries.query(new StockFind(command.item)).get().getData().reserved;
			run.asked();
			Trace.pause(command.sleepMillis);
			StockCounted event = new StockCounted(command.item, command.marker, reserved, run.concurrent);
			event.setContext("stock");
			return event;
		}
	}

	@CommandHandler
	public InvoiceIssued handle(InvoiceIssue command, QueryGateway queries) throws Exception {
		try (var run = Trace.run(command, command.orderId, 0, null)) {
			boolean known = queries.query(new OrderFind(command.orderId)).get().getData() != null;
			return new InvoiceIssued(command.orderId, UUID.randomUUID().toString(), known);
		}
	}

	@CommandHandler
	public CustomerNotified handle(CustomerNotify command) {
		try (var run = Trace.run(command, command.orderId, 0, null)) {
			return new CustomerNotified(command.orderId);
		}
	}

	@CommandHandler
	public void handle(AuditMark command, QueryGateway queries) throws Exception {
		try (var run = Trace.run(command, command.marker, 0, null)) {
			queries.query(new StockFind(command.marker)).get();
		}
	}

	@CommandHandler
	public void handle(AuditFail command) {
		try (var run = Trace.run(command, command.marker, 0, null)) {
			throw new OrderRefusedException("audit " + command.marker + " is refused");
		}
	}
}
