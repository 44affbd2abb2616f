/*
 * ask_test.c
 *    Requests to bundles' consumers, against recorded ones, and their answers.
 */
#include "unit.h"

#include "ask.h"
#include "cbor.h"
#include "graph.h"
#include "json.h"

/* A payload as JSON, with what differs from one to the next put aside. */
static void
as_json(evp_buf_t *json, evp_slice_t payload)
{
	evp_cbor_t	r;
	evp_arena_t arena = {0};

	evp_buf_init(json, 1 << 20);
	evp_cbor_init(&r, payload, &arena);
	assert_true(evp_json_put_cbor(json, &r, false));
	assert_true(evp_cbor_done(&r));
	evp_buf_append_u8(json, 0);
	evp_arena_free(&arena);
}

/* What is asked is asked as a server does it. */
static void
test_requests(void **state)
{
	static const struct
	{
		const char *prefix;
		const char *action;
		int64_t		position;
		bool		retry;
	}			cases[] = {{"105-", "status", 0, false}, {"107-", "process", 0, false}, {"110-", "delete", 5, false}, {"109-", "retry", 5, true}};
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);

	(void) state;
	for (size_t i = 0; i < 4; i++)
	{
		evp_message_t m = unit_message(unit_golden_find(golden, n, cases[i].prefix));
		evp_graph_request_t g;
		evp_ask_t	ask = {.consumer = evp_slice_str("orders-query_OrderProjector_1_*"),.component_type = evp_slice_str("Projector"),
			.position = cases[i].position,.retry = cases[i].retry,.server_instance = evp_slice_str("server-0"),.timeout_ms = 30};
		evp_buf_t	b,
					wanted,
					got;
		const char *reason = NULL;
		char	   *unit;

		assert_slice(m.payload_type, EVP_ASK_PAYLOAD_TYPE);
		assert_int_equal(evp_graph_request_parse(&g, m.payload, &reason), 0);
		ask.correlation = g.correlation_id;
		ask.now_ms = g.timestamp_ms;
		assert_true(evp_ask_kind(evp_slice_str(cases[i].action), &ask.kind));
		evp_buf_init(&b, 1 << 20);
		assert_true(evp_ask_put(&b, &ask));
		as_json(&got, evp_slice_of(b.data, b.len));
		as_json(&wanted, m.payload);
		/* Ours counts in milliseconds, whatever there is left. */
		unit = strstr((char *) got.data, "\"MILLISECONDS\"");
		assert_non_null(unit);
		memmove(unit + 1, unit + 6, strlen(unit + 6) + 1);
		assert_string_equal((char *) got.data, (char *) wanted.data);
		evp_buf_free(&got);
		evp_buf_free(&wanted);
		evp_buf_free(&b);
		evp_graph_request_free(&g);
		evp_message_free(&m);
	}
	unit_golden_free(golden, n);
}

static void
answer_is(evp_slice_t payload, bool failed, const char *wanted)
{
	evp_buf_t	json;
	bool		got = !failed;
	const char *reason = NULL;

	evp_buf_init(&json, 1 << 20);
	assert_int_equal(evp_ask_answer(&json, &got, payload, &reason), 0);
	evp_buf_append_u8(&json, 0);
	assert_string_equal((char *) json.data, wanted);
	assert_int_equal(got, failed);
	evp_buf_free(&json);
}

static void
test_answers(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	evp_message_t m = unit_message(unit_golden_find(golden, n, "106-"));

	(void) state;
	answer_is(m.payload, false, "{\"lastEventSequenceNumber\":2956,\"deadEvents\":[],\"isInError\":false,\"errorStartAt\":null,\"lastErrorAt\":null,"
			  "\"errorCount\":0,\"error\":null,\"enabled\":true,\"asyncInFlight\":0,\"asyncSubmitTimeouts\":0,\"asyncTransientFailures\":0,"
			  "\"asyncExecutors\":[],\"inError\":false}");
	evp_message_free(&m);
	m = unit_message(unit_golden_find(golden, n, "108-"));
	answer_is(m.payload, false, "{\"success\":true}");
	evp_message_free(&m);
	unit_golden_free(golden, n);
}

static void
test_failure(void **state)
{
	evp_graph_response_head_t head = {.correlation_id = evp_slice_str("c")};
	evp_buf_t	b;
	evp_buf_t	json;
	evp_blob_t *blob = unit_hex("a0");
	const char *reason = NULL;
	bool		failed;

	(void) state;
	evp_buf_init(&b, 1 << 20);
	evp_graph_response_open(&b, &head);
	evp_graph_put_exception(&b, "a.B", evp_slice_str("not there"));
	evp_graph_response_close(&b, &head);
	answer_is(evp_slice_of(b.data, b.len), true, "{\"throwable\":\"a.B\",\"message\":\"not there\",\"stackTrace\":[],\"cause\":null}");
	evp_buf_init(&json, 10);
	assert_int_equal(evp_ask_answer(&json, &failed, evp_slice_of(b.data, b.len), &reason), -1);
	assert_string_equal(reason, "the answer is too long");
	evp_buf_free(&json);
	evp_buf_free(&b);
	evp_buf_init(&json, 100);
	assert_int_equal(evp_ask_answer(&json, &failed, evp_slice_blob(blob), &reason), -1);
	assert_string_equal(reason, "not an array");
	evp_buf_free(&json);
	evp_blob_unref(blob);
}

/* Values without their classes. */
static void
test_graphs(void **state)
{
	static const struct
	{
		const char *hex;
		const char *json;
	}			cases[] = {
		{"80", "[]"}, {"9fff", "[]"}, {"816161", "[\"a\"]"}, {"9f6161ff", "[\"a\"]"}, {"8261616162", "[\"a\",\"b\"]"}, {"826161f6", "[\"a\",null]"},
		{"826161a0", "{}"}, {"826161820102", "[1,2]"}, {"82616180", "[]"}, {"9f6161bfff ff", "{}"}, {"8201 82616180", "[1,[]]"}, {"8361616162a0", "[\"a\",\"b\",{}]"},
		{"a1 6161 82 6162 82 82 6163 a1 6164 01 82 6165 80", "{\"a\":[{\"d\":1},[]]}"}, {"a1 07 826161 8180", "{\"7\":[[]]}"}, {"6100", "\"\\ufffd\""},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		evp_blob_t *blob = unit_hex(cases[i].hex);
		evp_cbor_t	r;
		evp_buf_t	json;

		evp_buf_init(&json, 1000);
		evp_cbor_init(&r, evp_slice_blob(blob), NULL);
		assert_true(evp_json_put_graph(&json, &r));
		assert_true(evp_cbor_done(&r));
		evp_buf_append_u8(&json, 0);
		assert_string_equal((char *) json.data, cases[i].json);
		evp_buf_free(&json);
		evp_blob_unref(blob);
	}
}

static void
test_bad_graphs(void **state)
{
	static const char *const hex[] = {"83616180 01", "826161", "9f6161bf", "82616182", "9f", "a180 00"};

	(void) state;
	for (size_t i = 0; i < sizeof(hex) / sizeof(hex[0]); i++)
	{
		evp_blob_t *blob = unit_hex(hex[i]);
		evp_cbor_t	r;
		evp_buf_t	json;

		evp_buf_init(&json, 1000);
		evp_cbor_init(&r, evp_slice_blob(blob), NULL);
		evp_json_put_graph(&json, &r);
		assert_false(evp_cbor_done(&r));
		evp_buf_free(&json);
		evp_blob_unref(blob);
	}
}

static void
test_mutations(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	evp_message_t m = unit_message(unit_golden_find(golden, n, "106-"));
	uint64_t	seed = 3;
	size_t		read = 0;

	(void) state;
	for (int i = 0; i < 20000; i++)
	{
		evp_blob_t *blob = unit_mutate(m.payload.p, m.payload.n, &seed);
		evp_buf_t	json;
		const char *reason = NULL;
		bool		failed;

		evp_buf_init(&json, 1 << 20);
		if (evp_ask_answer(&json, &failed, evp_slice_blob(blob), &reason) == 0)
		{
			assert_true(evp_json_valid(evp_slice_of(json.data, json.len)));
			read++;
		}
		else
			assert_non_null(reason);
		evp_buf_free(&json);
		evp_blob_unref(blob);
	}
	assert_true(read > 500);
	evp_message_free(&m);
	unit_golden_free(golden, n);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_failure),
		cmocka_unit_test(test_graphs),
		cmocka_unit_test(test_bad_graphs),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests_name("ask", tests, NULL, NULL);
}
