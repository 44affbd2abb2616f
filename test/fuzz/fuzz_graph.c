/*
 * fuzz_graph.c
 *    Fuzz target: the body of a frame (type byte and message), its payload as
 *    a request, a response and a notification, and what is built from them.
 */
#include <stdlib.h>

#include "graph.h"
#include "message.h"
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
check_payload(evp_slice_t payload)
{
	evp_graph_response_t a;
	evp_slice_t class;
	const char *reason = NULL;

	check_request(payload);
	if (evp_graph_response_parse(&a, payload, &reason) == 0)
	{
		check_event(&a);
		evp_graph_response_free(&a);
	}
	evp_graph_notice_class(payload, &class, &reason);
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
