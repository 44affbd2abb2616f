package interop.api;

import java.util.ArrayList;
import com.evento.common.modeling.messaging.payload.View;

/** An order as the projector sees it. */
public class OrderView implements View {
	public String orderId;
	public String customer;
	public long amount;
	public long revision;
	public boolean confirmed;
	public String invoiceId;
	public boolean paid;
	public boolean notified;
	public boolean deleted;
	public long textBytes;
	public ArrayList<String> markers = new ArrayList<>();
	public ArrayList<Long> revisions = new ArrayList<>();
	public String traceId;
}
