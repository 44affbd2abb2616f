/*
 * graph_test.c
 *    Object graphs: recorded requests, responses and notifications read, in
 *    other forms, and broken ones.
 */
#include "unit.h"

#include "cbor.h"
#include "graph.h"
#include "payload.h"

#define APPLICATION "com.evento.common.modeling.messaging.message.application."

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

static void
test_requests(void **state)
{
	evp_graph_request_t q = unit_request(golden_of("035-"));

	(void) state;
	assert_int_equal(q.kind, EVP_REQUEST_DOMAIN_COMMAND);
	assert_slice(q.source_bundle_id, "orders-invoker");
	assert_slice(q.source_instance_id, "5229d756-9a13-4040-bd01-7c1c9e6b0dda");
	assert_slice(q.correlation_id, "9c105a6a-7908-4cb0-86dc-32e33caea278");
	assert_int_equal(q.source_bundle_version, 1);
	assert_int_equal(q.timestamp_ms, 1795245946377);
	assert_int_equal(q.timeout, 30);
	assert_slice(q.unit, "SECONDS");
	assert_int_equal(evp_graph_request_timeout_ms(&q, 5), 30000);
	assert_slice(q.body_class, APPLICATION "DomainCommandMessage");
	assert_slice(q.name, "OrderChange");
	assert_slice(q.aggregate_id, "none-mwq33194");
	assert_slice(q.lock_id, "none-mwq33194");
	assert_false(q.invalidate_snapshot);
	assert_int_equal(q.body.p[0], 0x9f);
	assert_int_equal(q.body.p[q.body.n - 1], 0xff);
	evp_graph_request_free(&q);

	q = unit_request(golden_of("025-"));
	assert_int_equal(q.kind, EVP_REQUEST_SERVICE_COMMAND);
	assert_slice(q.name, "AuditMark");
	assert_slice(q.aggregate_id, NULL);
	assert_slice(q.lock_id, NULL);
	evp_graph_request_free(&q);

	q = unit_request(golden_of("031-"));
	assert_int_equal(q.kind, EVP_REQUEST_QUERY);
	assert_slice(q.name, "OrderPeek");
	evp_graph_request_free(&q);

	q = unit_request(golden_of("011-"));
	assert_int_equal(q.kind, EVP_REQUEST_EVENT_FETCH);
	assert_slice(q.context, "*");
	assert_true(q.has_last_sequence);
	assert_int_equal(q.last_sequence, 0);
	assert_int_equal(q.limit, 1000);
	assert_slice(q.component_name, "OrderProjector");
	assert_int_equal(evp_graph_request_timeout_ms(&q, 5), 30000);
	evp_graph_request_free(&q);

	q = unit_request(golden_of("016-"));
	assert_int_equal(q.kind, EVP_REQUEST_LAST_SEQUENCE);
	evp_graph_request_free(&q);

	q = unit_request(golden_of("105-"));
	assert_int_equal(q.kind, EVP_REQUEST_OTHER);
	assert_slice(q.body_class, "com.evento.common.modeling.messaging.message.internal.consumer.ConsumerFetchStatusRequestMessage");
	evp_graph_request_free(&q);
}

/* Every recorded REQ and RSP that has a payload can be parsed; each REQ of a
 * bundle's that names a payload names the one that its file is called after. */
static void
test_all_golden(void **state)
{
	size_t		requests = 0;
	size_t		responses = 0;

	(void) state;
	for (size_t i = 0; i < n_golden; i++)
	{
		evp_message_t m = unit_message(&golden[i]);
		evp_graph_request_t q;
		evp_graph_response_t a;
		const char *reason = NULL;

		if (m.type == EVP_REQ)
		{
			if (evp_graph_request_parse(&q, m.payload, &reason) != 0)
				fail_msg("%s: %s", golden[i].name, reason);
			if (q.name.p != NULL)
				assert_true(evp_slice_eq(q.name, m.payload_type));
			evp_graph_request_free(&q);
			requests++;
		}
		else if (m.type == EVP_RSP && m.payload.p != NULL)
		{
			if (evp_graph_response_parse(&a, m.payload, &reason) != 0)
				fail_msg("%s: %s", golden[i].name, reason);
			evp_graph_response_free(&a);
			responses++;
		}
		evp_message_free(&m);
	}
	assert_true(requests > 30);
	assert_true(responses > 30);
}

static void
test_timeouts(void **state)
{
	static const struct
	{
		int64_t		timeout;
		const char *unit;
		int64_t		ms;
	}			cases[] = {
		{30, "SECONDS", 30000}, {7, "MILLISECONDS", 7}, {2, "MINUTES", 120000}, {1, "HOURS", 3600000}, {1, "DAYS", 86400000},
		{1500, "MICROSECONDS", 1}, {1, "NANOSECONDS", 1}, {3000000, "NANOSECONDS", 3}, {INT64_MAX, "SECONDS", INT64_MAX},
		{0, "SECONDS", 99}, {-1, "SECONDS", 99}, {1, "FORTNIGHTS", 99}, {1, NULL, 99},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		evp_graph_request_t q = {.timeout = cases[i].timeout,.unit = evp_slice_str(cases[i].unit)};

		assert_true(evp_graph_request_timeout_ms(&q, 99) == cases[i].ms);
	}
}

static void
test_responses(void **state)
{
	evp_graph_response_t a = unit_response(golden_of("049-"));

	(void) state;
	assert_int_equal(a.kind, EVP_RESPONSE_DOMAIN_COMMAND);
	assert_slice(a.correlation_id, "4378abad-7790-47bf-82f6-a8cb8ffeb788");
	assert_slice(a.event_object, "[\"orders.api.OrderChanged\",{\"forceTelemetry\":false,\"context\":\"default\","
				 "\"orderId\":\"o-mwq33194-a\",\"amount\":103,\"note\":\"note 3\",\"revision\":3}]");
	assert_slice(a.event_class, "class orders.api.OrderChanged");
	assert_int_equal(a.event_timestamp_ms, 1795245946925);
	assert_null(a.event_metadata.p);
	assert_false(a.event_force_telemetry);
	assert_slice(a.event_context, "default");
	assert_true(a.has_state);
	assert_slice(a.state_class, "class orders.command.OrderState");
	assert_slice(a.state_object, "[\"orders.command.OrderState\",{\"deleted\":false,\"customer\":\"Ada\",\"amount\":103,"
				 "\"revision\":3,\"paid\":false,\"notes\":[\"java.util.ArrayList\",[\"note 1\",\"note 2\",\"note 3\"]]}]");
	assert_false(a.aggregate_deleted);
	evp_graph_response_free(&a);

	a = unit_response(golden_of("094-"));
	assert_true(a.aggregate_deleted);
	assert_false(a.has_state);
	assert_slice(a.event_class, "class orders.api.OrderDeleted");
	evp_graph_response_free(&a);

	a = unit_response(golden_of("027-"));
	assert_int_equal(a.kind, EVP_RESPONSE_SERVICE_EVENT);
	assert_slice(a.event_class, NULL);
	assert_slice(a.event_object, "null");
	assert_true(evp_slice_eq(a.event, a.body));
	evp_graph_response_free(&a);

	a = unit_response(golden_of("066-"));
	assert_int_equal(a.kind, EVP_RESPONSE_SERVICE_EVENT);
	assert_slice(a.event_class, "class orders.api.InvoiceIssued");
	evp_graph_response_free(&a);

	a = unit_response(golden_of("037-"));
	assert_int_equal(a.kind, EVP_RESPONSE_EXCEPTION);
	evp_graph_response_free(&a);

	a = unit_response(golden_of("090-"));
	assert_int_equal(a.kind, EVP_RESPONSE_OTHER);
	assert_slice(a.body_class, "com.evento.common.modeling.messaging.query.Multiple");
	evp_graph_response_free(&a);
}

/* Definite lengths, other order, unknown fields, a class in pieces. */
static void
test_other_forms(void **state)
{
	evp_graph_request_t q;
	evp_buf_t	b;
	const char *reason = NULL;

	(void) state;
	evp_buf_init(&b, SIZE_MAX);
	evp_cbor_put_array_header(&b, 2);
	evp_cbor_put_str(&b, "com.evento.common.modeling.messaging.message.internal.EventoRequest");
	evp_buf_append_u8(&b, 0xa3);
	evp_cbor_put_str(&b, "unit");
	evp_cbor_put_null(&b);
	evp_cbor_put_str(&b, "surplus");
	evp_buf_append(&b, "\x82\x01\xa0", 3);
	evp_cbor_put_str(&b, "body");
	evp_cbor_put_array_header(&b, 2);
	evp_buf_append_u8(&b, 0x7f);
	evp_cbor_put_str(&b, "com.evento.common.messaging.");
	evp_cbor_put_str(&b, "consumer.EventFetchRequest");
	evp_buf_append_u8(&b, 0xff);
	evp_buf_append_u8(&b, 0xa2);
	evp_cbor_put_str(&b, "limit");
	evp_cbor_put_int(&b, 5);
	evp_cbor_put_str(&b, "lastSequenceNumber");
	evp_cbor_put_null(&b);
	if (evp_graph_request_parse(&q, evp_slice_of(b.data, b.len), &reason) != 0)
		fail_msg("%s", reason);
	assert_int_equal(q.kind, EVP_REQUEST_EVENT_FETCH);
	assert_int_equal(q.limit, 5);
	assert_false(q.has_last_sequence);
	assert_slice(q.unit, NULL);
	evp_graph_request_free(&q);
	evp_buf_free(&b);
}

static void
bad(const char *hex, const char *expected)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_graph_request_t q;
	evp_graph_response_t a;
	const char *reason = NULL;

	assert_int_equal(evp_graph_request_parse(&q, evp_slice_blob(blob), &reason), -1);
	assert_string_equal(reason, expected);
	assert_int_equal(evp_graph_response_parse(&a, evp_slice_blob(blob), &reason), -1);
	assert_int_equal(blob->refs, 1);
	evp_blob_unref(blob);
}

static void
test_bad(void **state)
{
	evp_graph_request_t q;
	const char *reason = NULL;

	(void) state;
	bad("", "CBOR is cut short");
	bad("60", "not an array");
	bad("80", "CBOR container is too short");
	bad("8101", "not a text");
	bad("826161a0", "payload is not an EventoRequest");
	bad("9f6161a0ff", "payload is not an EventoRequest");
	assert_int_equal(evp_graph_request_parse(&q, (evp_slice_t) {0}, &reason), -1);
	assert_string_equal(reason, "no payload");
}

static void
test_mutations(void **state)
{
	uint64_t	seed = 12345;
	size_t		parsed = 0;

	(void) state;
	for (int i = 0; i < 30000; i++)
	{
		const unit_golden_t *g = &golden[unit_random(&seed) % n_golden];
		evp_message_t m = unit_message(g);
		evp_blob_t *blob;
		evp_graph_request_t q;
		evp_graph_response_t a;
		evp_buf_t	b;
		const char *reason = NULL;

		if (m.payload.n == 0)
		{
			evp_message_free(&m);
			continue;
		}
		blob = unit_mutate(m.payload.p, m.payload.n, &seed);
		evp_message_free(&m);
		evp_buf_init(&b, SIZE_MAX);
		if (evp_graph_request_parse(&q, evp_slice_blob(blob), &reason) == 0)
		{
			evp_graph_put_decorated(&b, &q, (evp_slice_t) {0}, (evp_slice_t) {0});
			evp_graph_request_free(&q);
			parsed++;
		}
		if (evp_graph_response_parse(&a, evp_slice_blob(blob), &reason) == 0)
		{
			evp_metadata_to_json(&b, a.event_metadata, &reason);
			evp_graph_response_free(&a);
			parsed++;
		}
		evp_buf_free(&b);
		evp_blob_unref(blob);
	}
	assert_true(parsed > 1000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_all_golden),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_other_forms),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests_name("graph", tests, setup, teardown);
}
