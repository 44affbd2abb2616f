/*
 * http_parse_test.c
 *    What comes in over HTTP as text: targets, parameters, headers, events.
 */
#include "unit.h"

#include "http_parse.h"
#include "../include/packed.h"

static void
test_decode(void **state)
{
	static const struct
	{
		const char *text;
		bool		plus;
		const char *result;		/* NULL: refused */
	}			cases[] = {{"", false, ""}, {"a%20b", false, "a b"}, {"a+b", false, "a+b"}, {"a+b", true, "a b"}, {"%c3%BC", false, "\u00fc"},
	{"%", false, NULL}, {"%4", false, NULL}, {"%4g", false, NULL}, {"a%00", false, NULL}, {"%%41", false, NULL}};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		evp_buf_t	b;
		bool		ok;

		evp_buf_init(&b, 100);
		ok = evp_http_decode(evp_slice_str(cases[i].text), cases[i].plus, &b);
		assert_int_equal(ok, cases[i].result != NULL);
		if (ok)
		{
			evp_buf_append_u8(&b, 0);
			assert_string_equal((const char *) b.data, cases[i].result);
		}
		evp_buf_free(&b);
	}
}

static void
test_name(void **state)
{
	evp_slice_t path;
	evp_slice_t query;
	evp_buf_t	name;

	(void) state;
	evp_http_split("/streams/a%2Fb?x=?&y", &path, &query);
	assert_slice(query, "x=?&y");
	evp_buf_init(&name, 100);
	assert_true(evp_http_name(path, "/streams/", 3, &name));
	assert_slice(evp_slice_of(name.data, name.len), "a/b");
	evp_buf_reset(&name);
	assert_false(evp_http_name(path, "/streams/", 2, &name));
	evp_http_split("/streams/", &path, &query);
	assert_int_equal(query.n, 0);
	assert_false(evp_http_name(path, "/streams/", 3, &name));
	evp_buf_free(&name);
}

static void
test_numbers(void **state)
{
	int64_t		n;
	uint64_t	ms;

	(void) state;
	assert_true(evp_http_number(evp_slice_str("9223372036854775807"), INT64_MAX, &n));
	assert_true(n == INT64_MAX);
	assert_false(evp_http_number(evp_slice_str("9223372036854775808"), INT64_MAX, &n));
	assert_false(evp_http_number(evp_slice_str("11"), 10, &n));
	assert_false(evp_http_number(evp_slice_str(""), 10, &n));
	assert_false(evp_http_number(evp_slice_str("-1"), 10, &n));
	assert_false(evp_http_number(evp_slice_str(" 1"), 10, &n));
	assert_true(evp_http_time(evp_slice_str("250ms"), &ms) && ms == 250);
	assert_true(evp_http_time(evp_slice_str("10s"), &ms) && ms == 10000);
	assert_true(evp_http_time(evp_slice_str("7"), &ms) && ms == 7);
	assert_false(evp_http_time(evp_slice_str("s"), &ms));
	assert_false(evp_http_time(evp_slice_str("ms"), &ms));
	assert_false(evp_http_time(evp_slice_str("86401s"), &ms));
	assert_true(evp_http_expected(evp_slice_str("any"), &n) && n == EVENTO_EXPECTED_ANY);
	assert_true(evp_http_expected(evp_slice_str("none"), &n) && n == 0);
	assert_true(evp_http_expected(evp_slice_str("exists"), &n) && n == EVENTO_EXPECTED_EXISTS);
	assert_true(evp_http_expected(evp_slice_str("-4"), &n) && n == EVENTO_EXPECTED_EXISTS);
	assert_true(evp_http_expected(evp_slice_str("17"), &n) && n == 17);
	assert_false(evp_http_expected(evp_slice_str("-1"), &n));
}

static void
test_found(void **state)
{
	int64_t		n;

	(void) state;
	assert_true(evp_http_found("wrong expected version of stream \"s\": Expected version 1, found version 12.", &n) && n == 12);
	assert_true(evp_http_found("wrong expected version of stream \"s\": Expected version 1, found no stream.", &n) && n == 0);
	/* The name of a stream may say anything. */
	assert_true(evp_http_found("wrong expected version of stream \", found version 9\": Expected no stream, found version 3.", &n) && n == 3);
	assert_false(evp_http_found("Expected version 1, found a stream deleted at version 2.", &n));
	assert_false(evp_http_found("", &n));
	assert_false(evp_http_found("Expected version 1, found version 99999999999999999999.", &n));
}

static void
query_is(const char *text, unsigned allowed, const char *fault)
{
	evp_http_query_t query;
	char		why[200] = "";

	if (evp_http_query_read(&query, evp_slice_str(text), allowed, why, sizeof(why)) != (fault == NULL))
		fail_msg("%s: %s", text, why);
	if (fault != NULL)
		assert_string_equal(why, fault);
	evp_http_query_free(&query);
}

static void
test_query(void **state)
{
	evp_http_query_t query;
	char		why[200];

	(void) state;
	assert_true(evp_http_query_read(&query, evp_slice_str("after=7&&types=a,b%2Cc&types=d&categories=x+y&context=c*&wait=2s&max=5&backwards&from=3"), ~0u, why,
									sizeof(why)));
	assert_int_equal(query.given, 255);
	assert_int_equal(query.after, 7);
	assert_int_equal(query.types.n, 3);
	assert_slice(query.types.items[0], "a");
	assert_slice(query.types.items[1], "b,c");
	assert_slice(query.types.items[2], "d");
	assert_slice(query.categories.items[0], "x y");
	assert_slice(query.context, "c*");
	assert_int_equal(query.wait, 2000);
	assert_true(query.backwards);
	evp_http_query_free(&query);
	query_is("", 0, NULL);
	query_is("after=1", EVP_HTTP_FROM, "unknown parameter \"after\"");
	query_is("x", ~0u, "unknown parameter \"x\"");
	/* Answers are UTF-8. */
	query_is("a\xff\x62=1", ~0u, "unknown parameter \"a\"");
	query_is("a23456789 123456789 123456789 123456789 123456789 123456789\xc3\xa9", ~0u,
			 "unknown parameter \"a23456789 123456789 123456789 123456789 123456789 123456789\"");
	query_is("max=1&max=1", ~0u, "max is given twice");
	query_is("max=0", ~0u, "max must be a number from 1 on");
	query_is("types=a,,b", ~0u, "types has an empty text");
	query_is("types=%", ~0u, "types is not well encoded");
	query_is("backwards=no", ~0u, "backwards must be true or false");
}

static void
refused(const char *body, unsigned status, const char *fault)
{
	evp_http_events_t events;
	char		why[200] = "";

	assert_int_equal(evp_http_events_read(&events, evp_slice_str(body), why, sizeof(why)), status);
	assert_string_equal(why, fault);
	evp_http_events_free(&events);
}

static void
test_events(void **state)
{
	evp_http_events_t events;
	char		why[200];

	(void) state;
	assert_int_equal(evp_http_events_read(&events, evp_slice_str("[ {\"type\":\"A\\u0042\",\"data\": { \"x\" : 1.0 } , \"metadata\":[],\"kind\":\"service\","
		"\"context\":\"c\",\"class\":\"k\"}, {\"data\":null,\"typ\\u0065\":\"B\",\"metadata\":null} ] "), why, sizeof(why)), 0);
	assert_int_equal(events.count, 2);
	assert_slice(events.events[0].type, "AB");
	assert_slice(events.events[0].data, "{ \"x\" : 1.0 }");
	assert_slice(events.events[0].metadata, "[]");
	assert_slice(events.events[0].context, "c");
	assert_slice(events.events[0].klass, "k");
	assert_true(events.events[0].service);
	assert_slice(events.events[1].type, "B");
	assert_slice(events.events[1].data, "null");
	assert_null(events.events[1].metadata.p);
	assert_false(events.events[1].has_id);
	evp_http_events_free(&events);

	refused("", 400, "event 1 is not JSON");
	refused("[{\"type\":\"A\",\"data\":1}", 400, "the body is not JSON");
	refused("{\"type\":\"A\",\"data\":1} 2", 400, "the body is not JSON");
	refused("[]", 422, "no events");
	refused("[1]", 422, "event 1 must be an object");
	refused("{\"type\":\"A\"}", 422, "event 1 has no data");
	refused("[{\"type\":\"A\",\"data\":1},{\"data\":1}]", 422, "event 2 has no type");
	refused("{\"type\":\"A\",\"type\":\"A\",\"data\":1}", 422, "\"type\" of event 1 is given twice");
	refused("{\"type\":\"A\",\"data\":1,\"x\":1}", 422, "\"x\" of event 1 is not a field of an event");
	refused("{\"type\":\"A\",\"data\":1,\"x23456789 123456789 123456789 12345678\xe2\x82\xac\":1}", 422,
			"\"x23456789 123456789 123456789 12345678\" of event 1 is not a field of an event");
	refused("{\"type\":\"A\",\"data\":1,\"id\":\"1\"}", 422, "\"id\" of event 1 must be a UUID");
	refused("{\"type\":\"\\u0000\",\"data\":1}", 422, "\"type\" of event 1 has a zero character");
}

/* As many as may be, and one more. */
static void
test_many(void **state)
{
	static const char one[] = "{\"type\":\"A\",\"data\":1},";
	evp_http_events_t events;
	evp_buf_t	b;
	char		why[200];

	(void) state;
	evp_buf_init(&b, 1000000);
	evp_buf_append_u8(&b, '[');
	for (int i = 0; i < EVP_HTTP_MAX_EVENTS; i++)
		evp_buf_append_str(&b, one);
	b.data[b.len - 1] = ']';
	assert_int_equal(evp_http_events_read(&events, evp_slice_of(b.data, b.len), why, sizeof(why)), 0);
	assert_int_equal(events.count, EVP_HTTP_MAX_EVENTS);
	evp_http_events_free(&events);
	b.data[b.len - 1] = ',';
	evp_buf_append_str(&b, one);
	b.data[b.len - 1] = ']';
	assert_int_equal(evp_http_events_read(&events, evp_slice_of(b.data, b.len), why, sizeof(why)), 413);
	evp_http_events_free(&events);
	evp_buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decode), cmocka_unit_test(test_name), cmocka_unit_test(test_numbers), cmocka_unit_test(test_found),
		cmocka_unit_test(test_query), cmocka_unit_test(test_events), cmocka_unit_test(test_many)
	};

	return cmocka_run_group_tests_name("http_parse", tests, NULL, NULL);
}
