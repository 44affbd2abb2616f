/*
 * tell.c
 *    What bundles tell of their handlers and consumers while they work, and
 *    their answers to a server that asks for it.
 */
#include <stdio.h>

#include "../../proxy/ask.h"
#include "../../proxy/cbor.h"
#include "../../proxy/graph.h"
#include "../../proxy/typed.h"
#include "sim.h"

/* An EventoMessage up to the fields of its body. */
static void
open_notice(evp_buf_t *b, const sim_bundle_t *from, const char *class)
{
	evp_buf_init(b, 1024 * 1024);
	evp_typed_open(b, EVP_CLASS_MESSAGE);
	evp_typed_text(b, "sourceBundleId", evp_slice_str(from->bundle));
	evp_typed_text(b, "sourceInstanceId", evp_slice_str(from->instance));
	evp_typed_int(b, "sourceBundleVersion", 1);
	evp_cbor_put_str(b, "body");
	evp_typed_open(b, class);
}

static void
send_notice(evp_buf_t *b, sim_bundle_t *from)
{
	evp_typed_close(b);
	evp_typed_close(b);
	sim_bundle_notify(from, "evento:bundle-admin-notification", b);
	evp_buf_free(b);
}

static void
open_performance(evp_buf_t *b, const sim_bundle_t *from, const char *class, const char *component, evp_slice_t action)
{
	open_notice(b, from, class);
	evp_typed_text(b, "bundle", evp_slice_str(from->bundle));
	evp_typed_text(b, "component", evp_slice_str(component));
	evp_cbor_put_str(b, "action");
	evp_cbor_put_slice(b, action);
}

void
sim_tell_call(sim_bundle_t *from, const char *component, evp_slice_t action, int64_t ms)
{
	int64_t		now = sim_now_ms();
	evp_buf_t	b;

	open_performance(&b, from, EVP_COMMON "performance.PerformanceInvocationsMessage", component, action);
	evp_cbor_put_str(&b, "invocations");
	evp_typed_open(&b, "java.util.HashMap");
	evp_typed_close(&b);
	evp_typed_text(&b, "instanceId", evp_slice_str(from->instance));
	send_notice(&b, from);
	open_performance(&b, from, EVP_COMMON "performance.PerformanceServiceTimeMessage", component, action);
	evp_typed_int(&b, "start", now - ms);
	evp_typed_int(&b, "end", now);
	evp_typed_text(&b, "instanceId", evp_slice_str(from->instance));
	send_notice(&b, from);
}

void
sim_tell_consumer(sim_bundle_t *from, const char *component, const char *context)
{
	char		id[512];
	evp_buf_t	b;

	snprintf(id, sizeof(id), "%s_%s_1_%s", from->bundle, component, context);
	open_notice(&b, from, EVP_INTERNAL "discovery.BundleConsumerRegistrationMessage");
	for (int k = 0; k < 3; k++)
	{
		evp_cbor_put_str(&b, k == 0 ? "projectorConsumers" : k == 1 ? "sagaConsumers" : "observerConsumers");
		evp_typed_open(&b, "java.util.HashMap");
		if (k == 0)
		{
			evp_cbor_put_str(&b, component);
			evp_cbor_open_array(&b);
			evp_cbor_put_str(&b, "java.util.HashSet");
			evp_cbor_open_array(&b);
			evp_cbor_put_str(&b, id);
			evp_cbor_close(&b);
			evp_cbor_close(&b);
		}
		evp_typed_close(&b);
	}
	send_notice(&b, from);
}

bool
sim_answer_ask(sim_bundle_t *from, const evp_message_t *m, int64_t position)
{
	evp_message_t answer = {.type = EVP_RSP,.has_correlation = true,.timestamp_ms = sim_now_ms(),.payload_type = m->payload_type};
	evp_graph_request_t request;
	evp_graph_response_head_t head;
	const char *reason;
	evp_buf_t	b;

	if (!evp_slice_is(m->payload_type, EVP_ASK_PAYLOAD_TYPE) || evp_graph_request_parse(&request, m->payload, &reason) < 0)
		return false;
	head = evp_graph_response_head(&request, answer.timestamp_ms);
	evp_buf_init(&b, 1024 * 1024);
	evp_graph_response_open(&b, &head);
	if (evp_slice_is(request.body_class, EVP_INTERNAL "consumer.ConsumerFetchStatusRequestMessage"))
	{
		evp_typed_open(&b, EVP_INTERNAL "consumer.ConsumerFetchStatusResponseMessage");
		evp_typed_int(&b, "lastEventSequenceNumber", position);
		evp_cbor_put_str(&b, "deadEvents");
		evp_cbor_open_array(&b);
		evp_cbor_put_str(&b, "java.util.ArrayList");
		evp_cbor_open_array(&b);
		evp_cbor_close(&b);
		evp_cbor_close(&b);
		evp_cbor_put_str(&b, "enabled");
		evp_cbor_put_bool(&b, true);
	}
	else
	{
		evp_typed_open(&b, EVP_INTERNAL "consumer.ConsumerResponseMessage");
		evp_cbor_put_str(&b, "success");
		evp_cbor_put_bool(&b, true);
	}
	evp_typed_close(&b);
	evp_graph_response_close(&b, &head);
	memcpy(answer.correlation, m->correlation, sizeof(answer.correlation));
	answer.payload = evp_slice_of(b.data, b.len);
	sim_bundle_send(from, &answer);
	evp_buf_free(&b);
	evp_graph_request_free(&request);
	return true;
}
