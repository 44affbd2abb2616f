package interop;

import com.evento.application.EventoBundle;
import com.evento.application.bus.ClusterNodeAddress;
import com.evento.application.bus.EventoServerMessageBusConfiguration;
import com.evento.transport.SendFailedException;
import interop.command.OrderAggregate;
import interop.invoker.OrderInvoker;
import interop.process.OrderSaga;
import interop.query.OrderProjection;
import interop.query.StockProjector;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeoutException;

/** Starts the bundles of the application as any application of the framework starts its own. */
public final class Bundles {
	private Bundles() {
	}

	/** Starts the bundle of that kind (command, query, process, invoker) at an address; gives it once it is connected. */
	public static EventoBundle start(String kind, String host, int port, String instance, Options options) throws Exception {
		Class<?> component = switch (kind) {
			case "command" -> OrderAggregate.class;
			case "query" -> OrderProjection.class;
			case "process" -> OrderSaga.class;
			case "invoker" -> OrderInvoker.class;
			default -> throw new IllegalArgumentException("no bundle " + kind);
		};
		String bundle = "interop-" + kind;
		EventoBundle.Builder builder = EventoBundle.Builder.builder()
				.setBasePackage(component.getPackage())
				.setBundleId(bundle)
				.setBundleVersion(1)
				.setInstanceId(instance)
				.setDescription("The " + kind + " side of the interoperability tests")
				.setTracingAgent(new Tracing(bundle, 1))
				.setEventoServerMessageBusConfiguration(new EventoServerMessageBusConfiguration(new ClusterNodeAddress(host, port)));
		if (kind.equals("query")) {
			builder.setComponentContexts(StockProjector.class, "stock");
		}
		if (options.has("fetch-size")) {
			builder.setSssFetchSize(options.number("fetch-size", 0));
		}
		return start(builder);
	}

	/* A first handshake that takes more than 5 s ends the application, as does a connection lost behind it; where that is for want of a processor, whoever started it starts it again. */
	private static EventoBundle start(EventoBundle.Builder builder) throws Exception {
		long deadline = System.nanoTime() + 120_000_000_000L;
		for (int attempt = 1;; attempt++) {
			try {
				return builder.start();
			} catch (ExecutionException e) {
				if (System.nanoTime() > deadline || !(e.getCause() instanceof TimeoutException || e.getCause() instanceof SendFailedException)) {
					throw e;
				}
				System.err.println("interop: no session in time, attempt " + attempt + ": " + e.getCause());
				Thread.sleep(500);
			}
		}
	}
}
