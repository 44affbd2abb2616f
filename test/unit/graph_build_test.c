/*
 * graph_build_test.c
 *    Object graphs: built from what a server has, they are the recorded ones.
 */
#include "unit.h"

#include "cbor.h"
#include "graph.h"
#include "payload.h"

#define APPLICATION "com.evento.common.modeling.messaging.message.application."
#define STORY_MAX 100

static unit_golden_t *golden;
static size_t n_golden;

static int
setup(void **state)
{
	(void) state;
	golden = unit_golden_load(&n_golden);
	return 0;
}

static int
teardown(void **state)
{
	(void) state;
	unit_golden_free(golden, n_golden);
	return 0;
}

static const unit_golden_t *
golden_of(const char *prefix)
{
	return unit_golden_find(golden, n_golden, prefix);
}

/* An event as it would be stored, with what holds its bytes. */
typedef struct story_event
{
	evp_event_t event;
	evp_graph_response_t holder;
	evp_arena_t arena;
} story_event_t;

/* Stores the event in the bytes of a typed event message. */
static void
store(story_event_t *s, evp_slice_t bytes)
{
	const evp_graph_response_head_t head = {0};
	evp_payload_t p;
	evp_buf_t	b;
	const char *reason = NULL;

	/* The parser finds events inside responses, so this makes one around it. */
	evp_buf_init(&b, SIZE_MAX);
	evp_graph_response_open(&b, &head);
	evp_cbor_open_array(&b);
	evp_cbor_put_str(&b, APPLICATION "DomainCommandResponseMessage");
	evp_cbor_open_map(&b);
	evp_cbor_put_str(&b, "domainEventMessage");
	evp_buf_append(&b, bytes.p, bytes.n);
	evp_cbor_close(&b);
	evp_cbor_close(&b);
	evp_graph_response_close(&b, &head);
	if (evp_graph_response_parse(&s->holder, evp_slice_of(b.data, b.len), &reason) != 0)
		fail_msg("%s", reason);
	evp_buf_free(&b);
	s->arena = (evp_arena_t) {0};
	assert_int_equal(evp_payload_split(&p, s->holder.event_object, s->holder.event_class, &s->arena, &reason), 1);
	s->event = (evp_event_t) {
		.timestamp_ms = s->holder.event_timestamp_ms,
		.force_telemetry = s->holder.event_force_telemetry,
		.service = memmem(bytes.p, bytes.n, "ServiceEventMessage", 19) != NULL,
		.type = p.type,
		.klass = p.klass,
		.data = p.data,
		.context = s->holder.event_context,
	};
	assert_null(s->holder.event_metadata.p);	/* none of the recorded ones has any */
	assert_int_equal(p.data.p[0], '{');
}

static void
store_free(story_event_t *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		evp_graph_response_free(&s[i].holder);
		evp_arena_free(&s[i].arena);
	}
}

/* Enters a typed object, whose class must be this one (NULL: any). */
static void
enter(evp_cbor_t *r, const char *expected)
{
	evp_slice_t class;

	assert_true(evp_cbor_enter_array(r) && evp_cbor_text(r, &class));
	if (expected != NULL)
		assert_slice(class, expected);
}

/* The value of a field is next to be read; fails the test where it is another field. */
static void
field(evp_cbor_t *r, const char *expected)
{
	evp_slice_t key;

	assert_true(evp_cbor_more(r) && evp_cbor_text(r, &key));
	assert_slice(key, expected);
}

/* Bundles are given this list class in place of the recorded one, in which
 * the two differ by name alone. */
static void
replace_list_class(evp_slice_t recorded, evp_buf_t *out)
{
	static const char from[] = "\x78\x24java.util.ImmutableCollections$ListN";
	static const char to[] = "\x73java.util.ArrayList";
	const uint8_t *at = memmem(recorded.p, recorded.n, from, sizeof(from) - 1);
	size_t		before;

	assert_non_null(at);
	before = (size_t) (at - recorded.p);
	evp_buf_init(out, SIZE_MAX);
	evp_buf_append(out, recorded.p, before);
	evp_buf_append(out, to, sizeof(to) - 1);
	evp_buf_append(out, at + sizeof(from) - 1, recorded.n - before - (sizeof(from) - 1));
}

/* The request around a story that is given as a load gives it. */
static void
put_decorated(evp_buf_t *b, const evp_graph_request_t *command, const evp_snapshot_t *snapshot, const evp_event_t *events, size_t n)
{
	evp_buf_t	state;
	evp_buf_t	list;

	evp_buf_init(&state, SIZE_MAX);
	evp_buf_init(&list, SIZE_MAX);
	evp_graph_put_state(&state, snapshot);
	for (size_t i = 0; i < n; i++)
		evp_graph_put_event(&list, &events[i]);
	evp_graph_put_decorated(b, command, evp_slice_of(state.data, state.len), evp_slice_of(list.data, list.len));
	evp_buf_free(&state);
	evp_buf_free(&list);
}

/* Parses a recorded decorated command and builds the same from what a server
 * has: the caller's request, the snapshot, the stored events. */
static void
rebuild_decorated(const unit_golden_t *g, size_t *n_with_snapshot, size_t *n_events_seen)
{
	evp_message_t m = unit_message(g);
	evp_graph_request_t decorated;
	evp_graph_request_t command;
	evp_slice_t inner;
	evp_slice_t object;
	evp_slice_t object_class;
	evp_slice_t bytes;
	evp_payload_t state = {0};
	evp_snapshot_t snapshot = {0};
	evp_arena_t arena = {0};
	static story_event_t story[STORY_MAX];
	static evp_event_t events[STORY_MAX];
	size_t		n = 0;
	evp_buf_t	caller;
	evp_buf_t	built;
	evp_buf_t	expected;
	evp_cbor_t	r;
	const char *reason = NULL;
	int			has_state;

	assert_int_equal(evp_graph_request_parse(&decorated, m.payload, &reason), 0);
	evp_cbor_init(&r, decorated.body, &arena);
	enter(&r, APPLICATION "DecoratedDomainCommandMessage");
	assert_true(evp_cbor_enter_map(&r));
	field(&r, "commandMessage");
	assert_true(evp_cbor_skip(&r, &inner));
	field(&r, "serializedAggregateState");
	enter(&r, "com.evento.common.modeling.state.SerializedAggregateState");
	assert_true(evp_cbor_enter_map(&r));
	field(&r, "serializedObject");
	assert_true(evp_cbor_text(&r, &object));
	field(&r, "objectClass");
	assert_true(evp_cbor_text_or_null(&r, &object_class));
	assert_false(evp_cbor_more(&r));
	assert_false(evp_cbor_more(&r));
	has_state = evp_payload_split(&state, object, object_class, &arena, &reason);
	assert_true(has_state >= 0);
	field(&r, "eventStream");
	enter(&r, "java.util.ImmutableCollections$ListN");
	assert_true(evp_cbor_enter_array(&r));
	while (evp_cbor_more(&r))
	{
		assert_true(n < STORY_MAX && evp_cbor_skip(&r, &bytes));
		store(&story[n], bytes);
		events[n] = story[n].event;
		n++;
	}

	/* What the caller had sent: the same request around the command. */
	evp_buf_init(&caller, SIZE_MAX);
	evp_buf_append(&caller, m.payload.p, (size_t) (decorated.body.p - m.payload.p));
	evp_buf_append(&caller, inner.p, inner.n);
	evp_buf_append(&caller, decorated.body.p + decorated.body.n,
				   m.payload.n - (size_t) (decorated.body.p - m.payload.p) - decorated.body.n);
	assert_int_equal(evp_graph_request_parse(&command, evp_slice_of(caller.data, caller.len), &reason), 0);
	assert_int_equal(command.kind, EVP_REQUEST_DOMAIN_COMMAND);

	snapshot.klass = state.klass;
	snapshot.state = state.data;
	evp_buf_init(&built, SIZE_MAX);
	put_decorated(&built, &command, has_state == 1 ? &snapshot : NULL, events, n);
	assert_false(built.failed);
	replace_list_class(m.payload, &expected);
	if (built.len != expected.len || memcmp(built.data, expected.data, built.len) != 0)
		fail_msg("%s: built differently", g->name);
	*n_with_snapshot += has_state == 1;
	*n_events_seen += n;

	evp_buf_free(&caller);
	evp_buf_free(&built);
	evp_buf_free(&expected);
	store_free(story, n);
	evp_arena_free(&arena);
	evp_graph_request_free(&command);
	evp_graph_request_free(&decorated);
	evp_message_free(&m);
}

static void
test_decorated(void **state)
{
	size_t		found = 0;
	size_t		with_snapshot = 0;
	size_t		events = 0;

	(void) state;
	for (size_t i = 0; i < n_golden; i++)
		if (strstr(golden[i].name, "decorateddomaincommandmessage") != NULL)
		{
			rebuild_decorated(&golden[i], &with_snapshot, &events);
			found++;
		}
	assert_true(found >= 8);
	assert_true(with_snapshot >= 2);
	assert_true(events >= 8);
}

/* The recorded request and what the server made of it: nothing but the body differs. */
static void
test_decorated_of_caller(void **state)
{
	evp_graph_request_t command = unit_request(golden_of("039-"));
	evp_message_t sent = unit_message(golden_of("040-"));
	evp_buf_t	built;
	evp_buf_t	expected;

	(void) state;
	evp_buf_init(&built, SIZE_MAX);
	put_decorated(&built, &command, NULL, NULL, 0);
	replace_list_class(sent.payload, &expected);
	assert_int_equal(built.len, expected.len);
	assert_memory_equal(built.data, expected.data, built.len);

	/* Past its bound the buffer says so. */
	evp_buf_free(&built);
	evp_buf_init(&built, 500);
	put_decorated(&built, &command, NULL, NULL, 0);
	assert_true(built.failed);
	evp_buf_free(&built);
	evp_buf_free(&expected);
	evp_message_free(&sent);
	evp_graph_request_free(&command);
}

/* A recorded fetch answered again from the events in it. */
static size_t
rebuild_fetch(const unit_golden_t *g)
{
	evp_message_t m = unit_message(g);
	evp_graph_response_t a;
	evp_graph_response_head_t head = {0};
	story_event_t story;
	evp_slice_t bytes;
	evp_slice_t key;
	evp_slice_t name;
	evp_slice_t unit;
	evp_buf_t	built;
	evp_cbor_t	r;
	const char *reason = NULL;
	size_t		n = 0;

	assert_int_equal(evp_graph_response_parse(&a, m.payload, &reason), 0);
	head.correlation_id = a.correlation_id;
	evp_cbor_init(&r, m.payload, NULL);
	enter(&r, NULL);
	assert_true(evp_cbor_enter_map(&r));
	while (evp_cbor_more(&r))
	{
		assert_true(evp_cbor_text(&r, &key));
		if (evp_slice_is(key, "timestamp"))
			evp_cbor_int(&r, &head.timestamp_ms);
		else if (evp_slice_is(key, "requestTimestamp"))
			evp_cbor_int(&r, &head.request_timestamp_ms);
		else if (evp_slice_is(key, "timeout"))
			evp_cbor_int(&r, &head.timeout);
		else if (evp_slice_is(key, "unit"))
			assert_true(evp_cbor_text(&r, &unit));
		else
			evp_cbor_skip(&r, NULL);
	}
	assert_slice(unit, "SECONDS");

	evp_buf_init(&built, SIZE_MAX);
	evp_graph_fetch_open(&built, &head);
	evp_cbor_init(&r, a.body, NULL);
	enter(&r, "com.evento.common.messaging.consumer.EventFetchResponse");
	assert_true(evp_cbor_enter_map(&r));
	field(&r, "events");
	enter(&r, "java.util.ArrayList");
	assert_true(evp_cbor_enter_array(&r));
	while (evp_cbor_more(&r))
	{
		enter(&r, "com.evento.common.modeling.messaging.dto.PublishedEvent");
		assert_true(evp_cbor_enter_map(&r));
		field(&r, "eventSequenceNumber");
		{
			int64_t		position;
			evp_slice_t stream;

			assert_true(evp_cbor_int(&r, &position));
			field(&r, "aggregateId");
			assert_true(evp_cbor_text_or_null(&r, &stream));
			field(&r, "eventMessage");
			assert_true(evp_cbor_skip(&r, &bytes));
			store(&story, bytes);
			story.event.position = position;
			story.event.stream = stream;
		}
		field(&r, "eventName");
		assert_true(evp_cbor_text(&r, &name));
		assert_true(evp_slice_eq(name, story.event.type));
		field(&r, "createdAt");
		assert_true(evp_cbor_int(&r, &story.event.recorded_ms));
		assert_false(evp_cbor_more(&r));
		assert_false(evp_cbor_more(&r));
		evp_graph_fetch_add(&built, &story.event);
		store_free(&story, 1);
		n++;
	}
	evp_graph_fetch_close(&built, &head);
	if (built.len != m.payload.n || memcmp(built.data, m.payload.p, built.len) != 0)
		fail_msg("%s: built differently", g->name);
	evp_buf_free(&built);
	evp_graph_response_free(&a);
	evp_message_free(&m);
	return n;
}

static void
test_fetches(void **state)
{
	size_t		found = 0;
	size_t		events = 0;

	(void) state;
	for (size_t i = 0; i < n_golden; i++)
		if (strstr(golden[i].name, "eventfetchresponse") != NULL)
		{
			events += rebuild_fetch(&golden[i]);
			found++;
		}
	assert_true(found >= 3);
	assert_true(events >= 9);
}

/* The handler's answer stored, and the caller answered from the log: the body
 * is what the recorded server sent. */
static void
test_answer_from_log(void **state)
{
	static const char *const pairs[][2] = {{"041-", "042-"}, {"047-", "048-"}, {"070-", "071-"}, {"094-", "095-"}, {"066-", "067-"}};

	(void) state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		evp_graph_response_t handler = unit_response(golden_of(pairs[i][0]));
		evp_graph_response_t caller = unit_response(golden_of(pairs[i][1]));
		story_event_t story;
		evp_buf_t	b;

		assert_true(evp_slice_eq(handler.event, caller.body));
		store(&story, handler.event);
		evp_buf_init(&b, SIZE_MAX);
		evp_graph_put_event(&b, &story.event);
		assert_int_equal(b.len, caller.body.n);
		assert_memory_equal(b.data, caller.body.p, b.len);
		evp_buf_free(&b);
		store_free(&story, 1);
		evp_graph_response_free(&handler);
		evp_graph_response_free(&caller);
	}
}

static void
test_other_bodies(void **state)
{
	evp_graph_request_t q = unit_request(golden_of("016-"));
	evp_graph_response_t last = unit_response(golden_of("017-"));
	evp_graph_response_t nothing = unit_response(golden_of("027-"));
	evp_graph_response_t a;
	evp_graph_response_head_t head = evp_graph_response_head(&q, 1234);
	evp_buf_t	b;
	const char *reason = NULL;

	(void) state;
	evp_buf_init(&b, SIZE_MAX);
	evp_graph_put_last_sequence(&b, 0);
	assert_int_equal(b.len, last.body.n);
	assert_memory_equal(b.data, last.body.p, b.len);

	evp_buf_reset(&b);
	evp_graph_put_no_event(&b, nothing.event_timestamp_ms);
	assert_int_equal(b.len, nothing.body.n);
	assert_memory_equal(b.data, nothing.body.p, b.len);

	evp_buf_reset(&b);
	evp_graph_response_open(&b, &head);
	evp_graph_put_exception(&b, "java.lang.RuntimeException", evp_slice_str("no"));
	evp_graph_response_close(&b, &head);
	assert_int_equal(evp_graph_response_parse(&a, evp_slice_of(b.data, b.len), &reason), 0);
	assert_int_equal(a.kind, EVP_RESPONSE_EXCEPTION);
	assert_true(evp_slice_eq(a.correlation_id, q.correlation_id));
	evp_buf_reset(&b);
	assert_true(evp_graph_response_put(&b, &head, a.body));
	evp_graph_response_free(&a);
	assert_int_equal(evp_graph_response_parse(&a, evp_slice_of(b.data, b.len), &reason), 0);
	assert_int_equal(a.kind, EVP_RESPONSE_EXCEPTION);
	evp_graph_response_free(&a);

	evp_buf_free(&b);
	evp_graph_request_free(&q);
	evp_graph_response_free(&last);
	evp_graph_response_free(&nothing);
}

/* Metadata, telemetry, context and a class unknown to the log, there and back. */
static void
test_event_fields(void **state)
{
	evp_event_t e = {
		.timestamp_ms = 7,
		.service = true,
		.force_telemetry = true,
		.type = evp_slice_str("Made"),
		.data = evp_slice_str("{\"a\":1}"),
		.context = evp_slice_str("other"),
		.metadata = evp_slice_str("{\"user\":\"ada\"}"),
	};
	const evp_graph_response_head_t head = {0};
	evp_graph_response_t a;
	evp_buf_t	b;
	evp_buf_t	json;
	const char *reason = NULL;

	(void) state;
	evp_buf_init(&b, SIZE_MAX);
	evp_buf_init(&json, SIZE_MAX);
	evp_graph_response_open(&b, &head);
	evp_graph_put_event(&b, &e);
	evp_graph_response_close(&b, &head);
	assert_int_equal(evp_graph_response_parse(&a, evp_slice_of(b.data, b.len), &reason), 0);
	assert_int_equal(a.kind, EVP_RESPONSE_SERVICE_EVENT);
	assert_slice(a.correlation_id, NULL);
	assert_slice(a.event_object, "[\"Made\",{\"a\":1}]");
	assert_slice(a.event_class, "class Made");
	assert_int_equal(a.event_timestamp_ms, 7);
	assert_true(a.event_force_telemetry);
	assert_slice(a.event_context, "other");
	assert_int_equal(evp_metadata_to_json(&json, a.event_metadata, &reason), 1);
	assert_slice(evp_slice_of(json.data, json.len), "{\"user\":\"ada\"}");
	evp_graph_response_free(&a);
	evp_buf_free(&b);
	evp_buf_free(&json);
}

/* A payload of 20 MB, as bundles write it: text in pieces of 3,996 UTF-16
 * units, characters of several bytes at the seams. */
static void
test_large_payload(void **state)
{
	static const char object_class[] = "class orders.api.Big";
	const evp_graph_response_head_t head = {0};
	const size_t size = 20 * 1000 * 1000;
	evp_buf_t	text;
	evp_buf_t	b;
	evp_graph_response_t a;
	evp_arena_t arena = {0};
	evp_payload_t p;
	const char *reason = NULL;

	(void) state;
	evp_buf_init(&text, SIZE_MAX);
	evp_buf_append_str(&text, "[\"orders.api.Big\",{\"text\":\"");
	while (text.len < size)
		evp_buf_append_str(&text, "a\u20ac");
	evp_buf_append_str(&text, "\"}]");

	evp_buf_init(&b, SIZE_MAX);
	evp_graph_response_open(&b, &head);
	evp_cbor_open_array(&b);
	evp_cbor_put_str(&b, APPLICATION "ServiceEventMessage");
	evp_cbor_open_map(&b);
	evp_cbor_put_str(&b, "serializedPayload");
	evp_cbor_open_array(&b);
	evp_cbor_put_str(&b, APPLICATION "SerializedPayload");
	evp_cbor_open_map(&b);
	evp_cbor_put_str(&b, "serializedObject");
	evp_buf_append_u8(&b, 0x7f);
	for (size_t at = 0; at < text.len; at += 7993)
		evp_cbor_put_text(&b, text.data + at, text.len - at < 7993 ? text.len - at : 7993);
	evp_buf_append_u8(&b, 0xff);
	evp_cbor_put_str(&b, "objectClass");
	evp_cbor_put_str(&b, object_class);
	for (int i = 0; i < 4; i++)
		evp_cbor_close(&b);
	evp_graph_response_close(&b, &head);

	if (evp_graph_response_parse(&a, evp_slice_of(b.data, b.len), &reason) != 0)
		fail_msg("%s", reason);
	assert_int_equal(a.event_object.n, text.len);
	assert_memory_equal(a.event_object.p, text.data, text.len);
	assert_int_equal(evp_payload_split(&p, a.event_object, a.event_class, &arena, &reason), 1);
	assert_slice(p.klass, "orders.api.Big");
	assert_int_equal(p.data.n, text.len - 19);
	evp_buf_reset(&b);
	evp_payload_put(&b, p.klass, p.type, p.data);
	assert_non_null(memmem(b.data, b.len, text.data, text.len));
	evp_graph_response_free(&a);
	evp_arena_free(&arena);
	evp_buf_free(&text);
	evp_buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decorated),
		cmocka_unit_test(test_decorated_of_caller),
		cmocka_unit_test(test_fetches),
		cmocka_unit_test(test_answer_from_log),
		cmocka_unit_test(test_other_bodies),
		cmocka_unit_test(test_event_fields),
		cmocka_unit_test(test_large_payload),
	};

	return cmocka_run_group_tests_name("graph_build", tests, setup, teardown);
}
