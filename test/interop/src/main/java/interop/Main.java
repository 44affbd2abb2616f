package interop;

import com.evento.application.EventoBundle;
import interop.query.Orders;
import interop.scenarios.Scenarios;
import java.io.IOException;
import java.util.UUID;

/**
 * One bundle of the application a process:
 *
 * <pre>
 * interop.jar command|query|process --host H --port P [--instance I] [--fetch-size N]
 * interop.jar client --host H --port P    reads lines: --bundle B [--ca FILE [--cert FILE --key FILE]] [--token-file FILE]
 * interop.jar invoker SCENARIO --host H --port P [--instance I] [the scenario's options]
 * </pre>
 *
 * A bundle of handlers prints READY when it is connected, and ends when its standard input does, or with a signal. The invoker prints a line a check and
 * ends with "OK n checks", status 0, or "FAILED n of m checks", status 1.
 */
public final class Main {
	private Main() {
	}

	public static void main(String[] arguments) {
		int status = 2;
		try {
			status = run(new Options(arguments));
		} catch (IllegalArgumentException e) {
			System.err.println("interop: " + e.getMessage());
		} catch (Throwable e) {
			e.printStackTrace();
			status = 1;
		}
		System.out.flush();
		/* The library's threads have no end of their own. */
		Runtime.getRuntime().halt(status);
	}

	private static int run(Options options) throws Exception {
		if (options.words.isEmpty()) {
			throw new IllegalArgumentException("which bundle? command, query, process, client or invoker");
		}
		String kind = options.words.getFirst();
		String instance = options.text("instance", kind + "-" + UUID.randomUUID());
		String host = options.text("host");
		int port = Integer.parseInt(options.text("port"));
		Trace.instance(instance);
		Orders.instance(instance);
		if (kind.equals("invoker")) {
			return Scenarios.run(options, host, port, instance);
		}
		if (kind.equals("client")) {
			return Client.run(host, port);
		}
		EventoBundle bundle = Bundles.start(kind, host, port, instance, options);
		System.out.println("READY " + bundle.getBundleId() + " " + bundle.getInstanceId());
		System.out.flush();
		waitForEnd();
		return 0;
	}

	private static void waitForEnd() throws IOException {
		byte[] buffer = new byte[256];
		while (System.in.read(buffer) >= 0) {
			/* What is said is of no interest, only that someone is still there. */
		}
	}
}
