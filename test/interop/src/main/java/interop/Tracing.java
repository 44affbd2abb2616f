package interop;

import com.evento.application.performance.TracingAgent;
import com.evento.common.modeling.messaging.message.application.Message;
import com.evento.common.modeling.messaging.message.application.Metadata;

/** Hands the metadata of a message on to those that are sent while it is handled, so that metadata is on the wire. */
public final class Tracing extends TracingAgent {
	public static final String TRACE_ID = "traceId";

	public Tracing(String bundle, long version) {
		super(bundle, version);
	}

	@Override
	public void correlate(Message<?> from, Message<?> to) {
		to.setMetadata(correlate(to.getMetadata(), from));
	}

	@Override
	public Metadata correlate(Metadata metadata, Message<?> handled) {
		if (handled == null || handled.getMetadata() == null || !handled.getMetadata().containsKey(TRACE_ID)) {
			return metadata;
		}
		Metadata all = metadata == null ? new Metadata() : metadata;
		all.putIfAbsent(TRACE_ID, handled.getMetadata().get(TRACE_ID));
		return all;
	}
}
