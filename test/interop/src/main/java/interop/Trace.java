package interop;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Instant;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Records how often each command ran, on which story and when: lines in the file that EVENTO_INTEROP_TRACE names, which several
 * bundles may share. A line: "begin|asked|end COMMAND MARKER REVISION INSTANCE MICROSECONDS", REVISION being that of the story; asked stands where
 * a handler has the answer of its query.
 */
public final class Trace {
	private static final FileChannel FILE = open(System.getenv("EVENTO_INTEROP_TRACE"));
	private static final ConcurrentHashMap<String, AtomicInteger> INSIDE = new ConcurrentHashMap<>();
	private static volatile String instance = "-";

	private Trace() {
	}

	private static FileChannel open(String path) {
		if (path == null || path.isEmpty()) {
			return null;
		}
		try {
			return FileChannel.open(Path.of(path), StandardOpenOption.CREATE, StandardOpenOption.APPEND);
		} catch (IOException e) {
			throw new UncheckedIOException(e);
		}
	}

	/** Names the instance whose handlers run in this process. */
	public static void instance(String name) {
		instance = name;
	}

	/** Runs for the time of a handler: begin is written at once, end when it is closed. */
	public static final class Run implements AutoCloseable {
		private final String what;
		private final String lock;
		/** How many handlers under the same lock ran in this process when this one began, itself included. */
		public final int concurrent;

		private Run(String what, String lock) {
			this.what = what;
			this.lock = lock;
			this.concurrent = lock == null ? 0 : INSIDE.computeIfAbsent(lock, k -> new AtomicInteger()).incrementAndGet();
			line("begin", what);
		}

		/** The query of this handler was answered. */
		public void asked() {
			line("asked", what);
		}

		@Override
		public void close() {
			line("end", what);
			if (lock != null) {
				INSIDE.get(lock).decrementAndGet();
			}
		}
	}

	/** A handler begins; lock is counted, where it is not null. */
	public static Run run(Object command, String marker, long revision, String lock) {
		return new Run(command.getClass().getSimpleName() + " " + marker + " " + revision, lock);
	}

	/** The pause that a command asked its handler for. */
	public static void pause(long millis) {
		if (millis > 0) {
			try {
				Thread.sleep(millis);
			} catch (InterruptedException e) {
				Thread.currentThread().interrupt();
				throw new IllegalStateException("interrupted", e);
			}
		}
	}

	private static void line(String kind, String what) {
		if (FILE == null) {
			return;
		}
		Instant now = Instant.now();
		long micros = now.getEpochSecond() * 1_000_000 + now.getNano() / 1_000;
		String line = kind + " " + what + " " + instance + " " + micros + "\n";
		try {
			FILE.write(ByteBuffer.wrap(line.getBytes(StandardCharsets.UTF_8)));
		} catch (IOException e) {
			throw new UncheckedIOException(e);
		}
	}
}
