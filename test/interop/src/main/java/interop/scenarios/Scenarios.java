package interop.scenarios;

import interop.Options;

/** Finds and runs a scenario. */
public final class Scenarios {
	private Scenarios() {
	}

	/** A scenario: drives the application and checks what comes back. */
	interface Scenario {
		void play(Client client, Checks checks, Options options) throws Exception;
	}

	/** Gives the exit status: 0 when every check was right. */
	public static int run(Options options, String host, int port, String instance) throws Exception {
		String name = options.words.size() > 1 ? options.words.get(1) : "";
		Scenario scenario = switch (name) {
			case "basic" -> new Basic();
			case "deletion" -> new Deletion();
			case "large" -> new Large();
			case "race" -> new Race();
			case "many" -> new Many();
			case "inflight" -> new InFlight();
			case "load" -> new Load();
			case "verify" -> new Verify();
			default -> throw new IllegalArgumentException(
					"which scenario? basic, deletion, large, race, many, inflight, load or verify");
		};
		Client client = new Client(host, port, instance, options);
		Checks checks = new Checks();
		try {
			client.waitForHandlers();
			scenario.play(client, checks, options);
		} catch (Exception e) {
			e.printStackTrace(System.err);
			checks.that(false, name + " goes through: " + e);
		}
		return checks.end();
	}
}
