/*
 * fuzz_graph.c
 *    Fuzz target: the body of a frame (type byte and message), its payload as
 *    a request, a response and a notification, and what is built from them.
 */
#include <stdlib.h>

#include "ask.h"
#include "graph.h"
#include "json.h"
#include "message.h"
#include "notice.h"
#include "payload.h"

#define BUILT_MAX	(64 * 1024 * 1024)

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_request(evp_slice_t payload)
{
	evp_graph_request_t q;
	const char *reason = NULL;
	evp_event_t event = {.type = evp_slice_str("T"),.data = evp_slice_str("{}")};
	evp_buf_t	b;
	evp_buf_t	state;
	evp_buf_t	events;

	if (evp_graph_request_parse(&q, payload, &reason) != 0)
	{
		if (reason == NULL)
			abort();
		return;
	}
	evp_graph_request_timeout_ms(&q, 1);
	evp_buf_init(&b, BUILT_MAX);
	evp_buf_init(&state, BUILT_MAX);
	evp_buf_init(&events, BUILT_MAX);
	evp_graph_put_state(&state, NULL);
	evp_graph_put_event(&events, &event);
	if (evp_graph_put_decorated(&b, &q, evp_slice_of(state.data, state.len), evp_slice_of(events.data, events.len)))
	{
		evp_graph_request_t again;

		/* What was built can be read, but where the body was nested so deeply that it now is too deep. */
		if (evp_graph_request_parse(&again, evp_slice_of(b.data, b.len), &reason) == 0)
			evp_graph_request_free(&again);
		else if (strcmp(reason, "CBOR is nested too deeply") != 0)
			abort();
	}
	evp_buf_free(&state);
	evp_buf_free(&events);
	evp_buf_free(&b);
	evp_graph_request_free(&q);
}

/* A stored event gives back the very same texts. */
static void
check_event(const evp_graph_response_t *a)
{
	evp_arena_t arena = {0};
	const evp_graph_response_head_t head = {0};
	evp_graph_response_t again;
	evp_event_t e = {.service = true};
	evp_payload_t p;
	const char *reason = NULL;
	evp_buf_t	b;
	evp_buf_t	json;

	evp_buf_init(&b, BUILT_MAX);
	evp_buf_init(&json, BUILT_MAX);
	if (evp_payload_split(&p, a->event_object, a->event_class, &arena, &reason) == 1)
	{
		e.type = p.type;
		e.klass = p.klass;
		e.data = p.data;
		if (evp_metadata_to_json(&json, a->event_metadata, &reason) == 1)
			e.metadata = evp_slice_of(json.data, json.len);
		evp_graph_response_open(&b, &head);
		evp_graph_put_event(&b, &e);
		evp_graph_response_close(&b, &head);
		if (evp_graph_response_parse(&again, evp_slice_of(b.data, b.len), &reason) != 0 ||
			!evp_slice_eq(again.event_object, a->event_object) || !evp_slice_eq(again.event_class, a->event_class))
			abort();
		evp_graph_response_free(&again);
	}
	evp_buf_free(&b);
	evp_buf_free(&json);
	evp_arena_free(&arena);
}

static void
on_invocation(void *arg, evp_slice_t name, int64_t count)
{
	(void) count;
	*(size_t *) arg += name.n;
}

static void
on_consumer(void *arg, const char *type, evp_slice_t component, evp_slice_t consumer)
{
	*(size_t *) arg += strlen(type) + component.n + consumer.n;
}

static void
on_executor(void *arg, const evp_executor_stats_t *stats)
{
	*(size_t *) arg += stats->name.n;
}

static void
on_stats(void *arg, const evp_consumer_stats_t *stats)
{
	*(size_t *) arg += stats->consumer.n + stats->component.n;
}

static void
check_notice(evp_slice_t payload)
{
	evp_notice_t n;
	const char *reason = NULL;
	size_t		bytes = 0;

	if (evp_notice_parse(&n, payload, &reason) < 0)
		return;
	evp_notice_invocations(&n, on_invocation, &bytes, &reason);
	evp_notice_consumers(&n, on_consumer, &bytes, &reason);
	evp_notice_executors(&n, on_executor, &bytes, &reason);
	evp_notice_stats(&n, on_stats, &bytes, &reason);
	evp_notice_free(&n);
}

/* An answer that is one comes out as JSON. */
static void
check_ask(evp_slice_t payload)
{
	evp_buf_t	json;
	const char *reason = NULL;
	bool		failed;

	evp_buf_init(&json, 1 << 20);
	if (evp_ask_answer(&json, &failed, payload, &reason) == 0 && !evp_json_valid(evp_slice_of(json.data, json.len)))
		abort();
	evp_buf_free(&json);
}

static void
check_payload(evp_slice_t payload)
{
	evp_graph_response_t a;
	const char *reason = NULL;

	check_request(payload);
	if (evp_graph_response_parse(&a, payload, &reason) == 0)
	{
		check_event(&a);
		evp_graph_response_free(&a);
	}
	check_notice(payload);
	check_ask(payload);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	evp_blob_t *blob;
	evp_message_t m;
	const char *reason = NULL;

	if (size < 2)
		return 0;
	check_payload(evp_slice_of(data + 1, size - 1));
	blob = evp_blob_new(data + 1, size - 1);
	if (evp_message_decode(&m, blob, &reason) == 0)
	{
		evp_message_t again;
		evp_buf_t	b;
		evp_blob_t *encoded;

		if (m.payload.p != NULL)
			check_payload(m.payload);
		evp_buf_init(&b, BUILT_MAX);
		evp_message_encode(&b, &m);
		encoded = evp_blob_from_buf(&b);
		if (encoded == NULL || evp_message_decode(&again, encoded, &reason) != 0 || again.type != m.type)
			abort();
		evp_message_free(&again);
		evp_blob_unref(encoded);
		evp_message_free(&m);
	}
	else if (reason == NULL)
		abort();
	evp_blob_unref(blob);
	return 0;
}
