package interop;

import com.evento.application.client.BundleClient;
import com.evento.common.admin.AdminPayloadCodec;
import com.evento.common.messaging.consumer.EventLastSequenceNumberRequest;
import com.evento.common.messaging.consumer.EventLastSequenceNumberResponse;
import com.evento.common.modeling.messaging.message.internal.EventoRequest;
import com.evento.common.modeling.messaging.message.internal.EventoResponse;
import com.evento.transport.message.Response;
import com.evento.transport.netty.NettyTransportConfig;
import io.netty.handler.ssl.SslContextBuilder;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * The library's lower-level client, which speaks TLS and sends a token: for each line of its input, which holds options, it connects, asks for the
 * end of the log, and says how that went in a line of its own: "END n", "FAILED class: message" or "REFUSED why".
 */
final class Client {
	private Client() {
	}

	static int run(String host, int port) throws Exception {
		BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
		for (String line = input.readLine(); line != null; line = input.readLine()) {
			System.out.println(ask(new Options(line.split(" ")), host, port));
			System.out.flush();
		}
		return 0;
	}

	private static String ask(Options options, String host, int port) throws Exception {
		String instance = UUID.randomUUID().toString();
		NettyTransportConfig transport = NettyTransportConfig.defaults();
		if (options.has("ca")) {
			SslContextBuilder tls = SslContextBuilder.forClient().trustManager(new File(options.text("ca")));
			if (options.has("cert")) {
				tls.keyManager(new File(options.text("cert")), new File(options.text("key")));
			}
			transport = transport.withSslContext(tls.build());
		}
		BundleClient.Builder builder = BundleClient.builder(options.text("bundle"), instance).host(host).port(port).bundleVersion("1")
			.handlerPayloadTypes(List.of()).transportConfig(transport).handshakeTimeout(Duration.ofSeconds(30));
		if (options.has("token-file")) {
			builder.authToken(Files.readString(Path.of(options.text("token-file"))).strip());
		}
		BundleClient client = builder.build();
		try {
			client.start().get(25, TimeUnit.SECONDS);
		} catch (ExecutionException | TimeoutException e) {
			client.close();
			return "REFUSED " + e;
		}
		try (client) {
			return end(client, options.text("bundle"), instance);
		}
	}

	private static String end(BundleClient client, String bundle, String instance) throws Exception {
		AdminPayloadCodec codec = new AdminPayloadCodec();
		EventoRequest request = new EventoRequest();
		request.setCorrelationId(UUID.randomUUID().toString());
		request.setSourceBundleId(bundle);
		request.setSourceInstanceId(instance);
		request.setSourceBundleVersion(1);
		request.setBody(new EventLastSequenceNumberRequest());
		request.setTimestamp(System.currentTimeMillis());
		request.setTimeout(30);
		request.setUnit(TimeUnit.SECONDS);
		Response response = client.request("EventLastSequenceNumberRequest", codec.encodeRequest(request)).get(30, TimeUnit.SECONDS);
		if (response.isError()) {
			return "FAILED " + response.error().exceptionClassName() + ": " + response.error().message();
		}
		EventoResponse answer = codec.decodeResponse(response.payload());
		return "END " + ((EventLastSequenceNumberResponse) answer.getBody()).getNumber();
	}
}
