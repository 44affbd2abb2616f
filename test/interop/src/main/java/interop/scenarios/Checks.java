package interop.scenarios;

import java.util.Objects;
import java.util.concurrent.Callable;

/** Counts checks and prints a line for each. Safe for use by many threads. */
final class Checks {
	private int passed;
	private int failed;

	synchronized boolean that(boolean right, String what) {
		if (right) {
			passed++;
			System.out.println("ok - " + what);
		} else {
			failed++;
			System.out.println("not ok - " + what);
		}
		System.out.flush();
		return right;
	}

	boolean same(Object got, Object expected, String what) {
		boolean right = Objects.equals(got, expected);
		return that(right, right ? what : what + ": got " + got + ", expected " + expected);
	}

	/** The action must throw that, with a message that contains the text. */
	void refused(Class<? extends Throwable> type, String message, String what, Callable<?> action) {
		try {
			Object result = action.call();
			that(false, what + ": gave " + result);
		} catch (Throwable e) {
			boolean right = type.isInstance(e) && String.valueOf(e.getMessage()).contains(message);
			that(right, right ? what : what + ": threw " + e);
		}
	}

	/** What must become right within the seconds, or thrice that on a busy machine. */
	boolean becomes(int seconds, String what, Callable<Boolean> condition) throws Exception {
		long deadline = System.nanoTime() + 3 * seconds * 1_000_000_000L;
		while (true) {
			if (condition.call()) {
				return that(true, what);
			}
			if (System.nanoTime() > deadline) {
				return that(false, what + ": not within " + 3 * seconds + " s");
			}
			Thread.sleep(50);
		}
	}

	synchronized int end() {
		System.out.println(failed == 0 && passed > 0 ? "OK " + passed + " checks" : "FAILED " + failed + " of " + (passed + failed) + " checks");
		return failed == 0 && passed > 0 ? 0 : 1;
	}
}
