/*
 * http_render_test.c
 *    What goes out over HTTP as text: events, server-sent events, problems; and
 *    who may ask for it.
 */
#include "unit.h"

#include "guard.h"
#include "http_auth.h"
#include "http_render.h"

static evp_event_t
an_event(const char *data)
{
	evp_event_t event = {.position = 7,.version = 2,.timestamp_ms = 1,.recorded_ms = -1};

	memset(event.id, 0xab, sizeof(event.id));
	event.stream = evp_slice_str("s\"1");
	event.type = evp_slice_str("T");
	event.context = evp_slice_str("default");
	event.data = evp_slice_str(data);
	return event;
}

#define HEAD "{\"position\":7,\"stream\":\"s\\\"1\",\"version\":2,\"id\":\"abababab-abab-abab-abab-abababababab\",\"type\":\"T\",\"context\":\"default\"," \
	"\"kind\":\"domain\",\"class\":null,\"timestamp\":\"1970-01-01T00:00:00.001Z\",\"recorded_at\":\"1969-12-31T23:59:59.999Z\","

static void
test_event(void **state)
{
	evp_event_t event = an_event("{ \"a\":1.0}");
	evp_buf_t	b;

	(void) state;
	evp_buf_init(&b, 10000);
	evp_http_put_event(&b, &event);
	assert_slice(evp_slice_of(b.data, b.len), HEAD "\"erased\":false,\"data\":{ \"a\":1.0},\"metadata\":null}");
	evp_buf_reset(&b);
	event.data.p = NULL;
	evp_http_put_event(&b, &event);
	assert_slice(evp_slice_of(b.data, b.len), HEAD "\"erased\":true,\"data\":null,\"metadata\":null}");
	evp_buf_free(&b);
}

static void
test_sse(void **state)
{
	evp_event_t event = an_event("[\n1,\r\n2]");
	evp_buf_t	b;

	(void) state;
	evp_buf_init(&b, 10000);
	evp_buf_append_str(&b, ": before\n\n");
	evp_http_put_sse(&b, &event);
	assert_slice(evp_slice_of(b.data, b.len), ": before\n\nid: 7\ndata: " HEAD "\"erased\":false,\"data\":[\ndata: 1,\ndata: \ndata: 2],\"metadata\":null}\n\n");
	evp_buf_free(&b);
	/* Where there is no room nothing is written beyond. */
	for (size_t max = 0; max < 350; max++)
	{
		evp_buf_init(&b, max);
		evp_http_put_sse(&b, &event);
		assert_true(b.len <= max);
		evp_buf_free(&b);
	}
}

static void
test_times(void **state)
{
	static const struct
	{
		int64_t		ms;
		const char *text;
	}			cases[] = {{0, "\"1970-01-01T00:00:00.000Z\""}, {INT64_C(1700000000123), "\"2023-11-14T22:13:20.123Z\""}, {INT64_MIN, "\"0001-01-01T00:00:00.000Z\""},
	{INT64_MAX, "\"9999-12-31T23:59:59.999Z\""}};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		evp_buf_t	b;

		evp_buf_init(&b, 100);
		evp_http_put_time(&b, cases[i].ms);
		assert_slice(evp_slice_of(b.data, b.len), cases[i].text);
		evp_buf_free(&b);
	}
}

static void
test_problems(void **state)
{
	static const struct
	{
		const char *sqlstate;
		unsigned	status;
	}			cases[] = {{"V0001", 409}, {"V0002", 409}, {"V0003", 410}, {"V0004", 503}, {"V0005", 503}, {"V0006", 500}, {"54000", 413}, {"54023", 413}, {"22023", 422},
	{"22P02", 422}, {"55P03", 503}, {"57P01", 503}, {"53300", 503}, {"40001", 503}, {"42501", 403}, {"XX000", 500}, {"", 500}};
	evp_http_problem_t problem = {.status = 409,.type = "t",.title = "a \"title\"",.detail = "d",.sqlstate = "V0001",.extra = ",\"found\":1"};
	evp_buf_t	b;

	(void) state;
	evp_buf_init(&b, 1000);
	evp_http_put_problem(&b, &problem);
	assert_slice(evp_slice_of(b.data, b.len),
				 "{\"type\":\"urn:evento:t\",\"title\":\"a \\\"title\\\"\",\"status\":409,\"detail\":\"d\",\"sqlstate\":\"V0001\",\"found\":1}\n");
	evp_buf_free(&b);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		evp_http_problem_of(&problem, cases[i].sqlstate);
		if (problem.status != cases[i].status)
			fail_msg("%s: %u", cases[i].sqlstate, problem.status);
	}
}

/* The tokens of the database, as the guard knows them. */
evp_access_http_t
evp_guard_http(const evp_guard_t *guard, evp_slice_t token)
{
	(void) guard;
	return evp_slice_is(token, "reader") ? EVP_ACCESS_HTTP_READ : evp_slice_is(token, "writer") ? EVP_ACCESS_HTTP_WRITE : EVP_ACCESS_HTTP_NONE;
}

bool
evp_guard_ready(const evp_guard_t *guard)
{
	(void) guard;
	return true;
}

/* A token counts wherever the request comes from, and for no more than it allows. */
static void
test_tokens(void **state)
{
	static const struct
	{
		const char *authorization;
		evp_http_role_t role;
	}			cases[] = {{"Bearer reader", EVP_HTTP_READ}, {"bearer writer", EVP_HTTP_WRITE}, {"Bearer  writer", EVP_HTTP_NONE},
	{"Bearer ", EVP_HTTP_NONE}, {"Bearer nobody", EVP_HTTP_NONE}};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int where = 0; where < 2; where++)
		{
			evp_proxy_t proxy = {.config = {.http_address = where ? "127.0.0.1" : "10.0.0.1",.http_api = "closed"}};

			if (evp_http_authorize(&proxy, &(evp_http_credentials_t) {.authorization = cases[i].authorization}) != cases[i].role)
				fail_msg("case %zu", i);
		}
}

static void
test_authorize(void **state)
{
	static const struct
	{
		const char *address;
		const char *api;
		const char *host;
		bool		may;
	}			cases[] = {{"127.0.0.1", "closed", NULL, true}, {"127.0.0.1", "closed", "localhost:3032", true}, {"127.0.0.1", "closed", "127.0.0.1", true},
	{"127.0.0.1", "closed", "[::1]:3032", true}, {"127.0.0.1", "closed", "evil.example", false}, {"127.0.0.1", "closed", "localhost.evil.example", false},
	{"127.0.0.1", "closed", "127.0.0.1.evil.example:1", false}, {"127.0.0.1", "closed", "", false}, {"127.0.0.1", "closed", "[", false},
	{"::1", "closed", "[::1]", true}, {"localhost", "closed", "LOCALHOST", true}, {"0.0.0.0", "closed", "localhost", false}, {"10.0.0.1", "closed", NULL, false},
	{"::", "closed", NULL, false}, {"10.0.0.1", "open", "evil.example", true}};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		evp_proxy_t proxy = {.config = {.http_address = (char *) cases[i].address,.http_api = (char *) cases[i].api}};

		if ((evp_http_authorize(&proxy, &(evp_http_credentials_t) {.host = cases[i].host}) >= EVP_HTTP_WRITE) != cases[i].may)
			fail_msg("case %zu", i);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_event), cmocka_unit_test(test_sse), cmocka_unit_test(test_times), cmocka_unit_test(test_problems),
		cmocka_unit_test(test_authorize), cmocka_unit_test(test_tokens)
	};

	return cmocka_run_group_tests_name("http_render", tests, NULL, NULL);
}
