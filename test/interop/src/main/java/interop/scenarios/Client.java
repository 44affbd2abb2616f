package interop.scenarios;

import com.evento.application.EventoBundle;
import com.evento.common.modeling.messaging.message.application.Metadata;
import com.evento.common.modeling.messaging.payload.Command;
import com.evento.common.modeling.messaging.payload.Query;
import com.evento.common.modeling.messaging.payload.View;
import com.evento.common.modeling.messaging.query.Single;
import interop.Bundles;
import interop.Options;
import interop.api.AuditMark;
import interop.api.OrderView;
import interop.invoker.OrderInvoker;
import java.util.Collection;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;

/** An invoker bundle that is connected, and how the scenarios use it. */
final class Client {
	private final EventoBundle bundle;
	private final OrderInvoker invoker;
	final long timeoutMillis;

	Client(String host, int port, String instance, Options options) throws Exception {
		timeoutMillis = options.number("timeout-millis", 60_000);
		bundle = Bundles.start("invoker", host, port, instance, options);
		invoker = bundle.getInvoker(OrderInvoker.class);
	}

	/** Waits until this client is connected and the bundles of handlers are known there; a command without effect tells. */
	void waitForHandlers() throws Exception {
		long deadline = System.nanoTime() + 120_000_000_000L;
		while (true) {
			try {
				call(new AuditMark("warm-up"));
				return;
			} catch (Exception e) {
				if (System.nanoTime() > deadline || !String.valueOf(e.getMessage()).matches("(?s).*(no handler for|bundle not ready|not in CONNECTED state).*")) {
					throw e;
				}
				Thread.sleep(100);
			}
		}
	}

	CompletableFuture<Object> send(Command command) {
		return send(command, null, timeoutMillis);
	}

	CompletableFuture<Object> send(Command command, Metadata metadata, long timeoutMillis) {
		return invoker.send(command, metadata, timeoutMillis);
	}

	/** Sends a command and gives the event, or throws what the caller of the framework sees. */
	<T> T call(Command command) throws Exception {
		return await(send(command));
	}

	<T> T call(Command command, Metadata metadata) throws Exception {
		return await(send(command, metadata, timeoutMillis));
	}

	<T extends View> T one(Query<Single<T>> query) throws Exception {
		return unwrap(() -> invoker.one(query, timeoutMillis));
	}

	Collection<OrderView> list(String prefix) throws Exception {
		return unwrap(() -> invoker.list(prefix, timeoutMillis));
	}

	@SuppressWarnings("unchecked")
	static <T> T await(CompletableFuture<Object> answer) throws Exception {
		return unwrap(() -> (T) answer.get());
	}

	/** The exception that stands behind those of futures and reflection. */
	static Throwable cause(Throwable e) {
		Throwable cause = e;
		while ((cause instanceof ExecutionException || cause instanceof CompletionException
				|| cause instanceof java.lang.reflect.InvocationTargetException
				|| cause instanceof java.lang.reflect.UndeclaredThrowableException) && cause.getCause() != null) {
			cause = cause.getCause();
		}
		return cause;
	}

	private static <T> T unwrap(Callable<T> action) throws Exception {
		try {
			return action.call();
		} catch (Exception e) {
			switch (cause(e)) {
				case Exception known -> throw known;
				case Throwable other -> throw new IllegalStateException(other);
			}
		}
	}
}
