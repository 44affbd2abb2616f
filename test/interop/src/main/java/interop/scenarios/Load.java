package interop.scenarios;

import interop.Options;
import interop.api.OrderChange;
import interop.api.OrderChanged;
import interop.api.OrderCreate;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Callers run commands for a time (--seconds, --callers), and from then on until a file is there (--until), each on orders of its own, whatever befalls the
 * servers meanwhile. The record (--record) has a line a
 * command and a line for what became of it: "sent TIME MARKER ORDER", "answered TIME MARKER ORDER REVISION MILLIS", "failed TIME MARKER ORDER MILLIS WHY"; TIME is
 * in milliseconds since 1970. Failures are for the reader of the record to judge.
 */
final class Load implements Scenarios.Scenario {
	private final AtomicInteger answered = new AtomicInteger();
	private final AtomicInteger failed = new AtomicInteger();
	private final AtomicInteger wrong = new AtomicInteger();
	private final AtomicInteger late = new AtomicInteger();
	private PrintWriter record;

	@Override
	public void play(Client client, Checks checks, Options options) throws Exception {
		int callers = options.number("callers", 8);
		int seconds = options.number("seconds", 10);
		int pause = options.number("pause-millis", 0);
		String prefix = options.text("prefix", "load");
		record = new PrintWriter(Files.newBufferedWriter(Path.of(options.text("record")), StandardCharsets.UTF_8), false);
		System.out.println("STARTED " + prefix);
		System.out.flush();
		long end = System.nanoTime() + seconds * 1_000_000_000L;
		Path until = options.has("until") ? Path.of(options.text("until")) : null;
		List<Thread> threads = new ArrayList<>();
		for (int i = 0; i < callers; i++) {
			String caller = prefix + "-" + i;
			threads.add(Thread.ofVirtual().start(() -> call(client, caller, end, until, pause)));
		}
		for (Thread thread : threads) {
			thread.join();
		}
		record.close();
		System.out.println("# load: " + answered + " answered, " + failed + " failed, " + late + " of them in their timeout");
		checks.that(answered.get() > callers, "callers got through");
		checks.same(wrong.get(), 0, "every answer fits its command, and revisions only grow");
	}

	/* An order whose making failed is left: whether it is there is not known. */
	private void call(Client client, String caller, long end, Path until, int pause) {
		int orders = 0;
		int n = 0;
		String order = null;
		long revision = 0;
		while (System.nanoTime() < end || until != null && !Files.exists(until)) {
			String marker = caller + "-" + n++;
			long begun = System.nanoTime();
			try {
				if (order == null) {
					order = caller + "-o" + orders++;
					line("sent", marker + " " + order);
					client.call(new OrderCreate(order, marker, "Ned", 0));
					revision = 1;
					line("answered", marker + " " + order + " 1 " + millis(begun));
				} else {
					line("sent", marker + " " + order);
					OrderChanged changed = client.call(new OrderChange(order, marker, 1).pausing(pause));
					if (changed.revision <= revision || !changed.marker.equals(marker) || !changed.orderId.equals(order)) {
						wrong.incrementAndGet();
						System.out.println("# " + marker + " was answered with " + changed.marker + " " + changed.revision + " behind " + revision);
					}
					revision = changed.revision;
					line("answered", marker + " " + order + " " + revision + " " + millis(begun));
				}
				answered.incrementAndGet();
			} catch (Exception e) {
				line("failed", marker + " " + order + " " + millis(begun) + " " + String.valueOf(e).replaceAll("\\s+", " "));
				if (failed.incrementAndGet() <= 5) {
					System.out.println("# failed after " + millis(begun) + " ms: " + e);
				}
				if (String.valueOf(e).contains("imeout")) {
					late.incrementAndGet();
				}
				if (revision == 0) {
					order = null;
				}
				sleep(100);
			}
		}
	}

	private synchronized void line(String what, String rest) {
		record.println(what + " " + System.currentTimeMillis() + " " + rest);
		record.flush();
	}

	private static long millis(long begun) {
		return (System.nanoTime() - begun) / 1_000_000;
	}

	private static void sleep(long millis) {
		try {
			Thread.sleep(millis);
		} catch (InterruptedException e) {
			Thread.currentThread().interrupt();
		}
	}
}
