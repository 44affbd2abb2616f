package interop;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Options of the command line: "--name value", and words without dashes. */
public final class Options {
	public final List<String> words = new ArrayList<>();
	private final Map<String, List<String>> values = new HashMap<>();

	public Options(String[] arguments) {
		for (int i = 0; i < arguments.length; i++) {
			if (!arguments[i].startsWith("--")) {
				words.add(arguments[i]);
			} else if (i + 1 < arguments.length) {
				values.computeIfAbsent(arguments[i].substring(2), k -> new ArrayList<>()).add(arguments[++i]);
			} else {
				throw new IllegalArgumentException(arguments[i] + " needs a value");
			}
		}
	}

	public boolean has(String name) {
		return values.containsKey(name);
	}

	public String text(String name, String otherwise) {
		return has(name) ? values.get(name).getLast() : otherwise;
	}

	public String text(String name) {
		if (!has(name)) {
			throw new IllegalArgumentException("--" + name + " is missing");
		}
		return values.get(name).getLast();
	}

	public List<String> texts(String name) {
		return values.getOrDefault(name, List.of());
	}

	public int number(String name, int otherwise) {
		return has(name) ? Integer.parseInt(text(name)) : otherwise;
	}
}
