package interop.api;

import com.evento.common.modeling.messaging.payload.ServiceCommand;

/** A service command that is refused. */
public class AuditFail extends ServiceCommand {
	public String marker;

	public AuditFail() {
	}

	public AuditFail(String marker) {
		this.marker = marker;
	}
}
