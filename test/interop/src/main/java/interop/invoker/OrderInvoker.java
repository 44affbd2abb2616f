package interop.invoker;

import com.evento.application.proxy.InvokerWrapper;
import com.evento.common.modeling.annotations.component.Invoker;
import com.evento.common.modeling.annotations.handler.InvocationHandler;
import com.evento.common.modeling.messaging.message.application.Metadata;
import com.evento.common.modeling.messaging.payload.Command;
import com.evento.common.modeling.messaging.payload.Query;
import com.evento.common.modeling.messaging.payload.View;
import com.evento.common.modeling.messaging.query.Single;
import interop.api.OrderList;
import interop.api.OrderView;
import java.util.Collection;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** The application's way in: sends commands and asks queries. */
@Invoker
public class OrderInvoker extends InvokerWrapper {

	/** Sends a command; the future has the event, or the exception. */
	@InvocationHandler
	public CompletableFuture<Object> send(Command command, Metadata metadata, long timeoutMillis) {
		return getCommandGateway().send(command, metadata, timeoutMillis, TimeUnit.MILLISECONDS);
	}

	/** Asks for one view; null where there is none. */
	@InvocationHandler
	public <T extends View> T one(Query<Single<T>> query, long timeoutMillis) throws ExecutionException, InterruptedException {
		return getQueryGateway().query(query, timeoutMillis, TimeUnit.MILLISECONDS).get().getData();
	}

	/** Asks for the orders whose ids begin so. */
	@InvocationHandler
	public Collection<OrderView> list(String prefix, long timeoutMillis) throws ExecutionException, InterruptedException {
		return getQueryGateway().query(new OrderList(prefix), timeoutMillis, TimeUnit.MILLISECONDS).get().getData();
	}
}
