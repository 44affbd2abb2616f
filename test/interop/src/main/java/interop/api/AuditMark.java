package interop.api;

import com.evento.common.modeling.messaging.payload.ServiceCommand;

/** A service command without an event, which asks a query while it is handled. */
public class AuditMark extends ServiceCommand {
	public String marker;

	public AuditMark() {
	}

	public AuditMark(String marker) {
		this.marker = marker;
	}
}
