/*
 * json_test.c
 *    JSON text: escaping, syntax, strings, and CBOR as JSON.
 */
#include "unit.h"

#include "json.h"

static void
escapes_to(const char *p, size_t n, bool keep_nul, const char *expected)
{
	evp_buf_t	b;

	evp_buf_init(&b, 1000);
	evp_json_put_string(&b, p, n, keep_nul);
	assert_slice(evp_slice_of(b.data, b.len), expected);
	evp_buf_free(&b);
}

static void
test_escape(void **state)
{
	(void) state;
	escapes_to("", 0, true, "\"\"");
	escapes_to("a\"b\\c/d", 7, true, "\"a\\\"b\\\\c/d\"");
	escapes_to("\n\r\t\b\x1f\x7f", 6, true, "\"\\n\\r\\t\\u0008\\u001f\x7f\"");
	escapes_to("x\0y", 3, true, "\"x\\u0000y\"");
	escapes_to("x\0y", 3, false, "\"x\\ufffdy\"");
	escapes_to("\u00fc\U0001f600", 6, true, "\"\u00fc\U0001f600\"");
}

static void
test_valid(void **state)
{
	static const char *const good[] = {
		"0", "-1", "1.5e+3", "12E-2", "true", " null ", "\"\"", "\"\\u00fc\\n\\/\"", "[]", "[1,2]", "{}",
		"{\"a\":[{\"b\":null}] , \"c\" : \"d\"}", "\t[\n1 ]\r"
	};
	static const char *const bad[] = {
		"", " ", "01", "+1", "1.", ".5", "1e", "-", "tru", "nul", "'a'", "\"", "\"\n\"", "\"\\x\"", "\"\\u12g4\"", "\"\\u12\"",
		"[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{,}", "[}", "{]", "1 2", "[]]"
	};

	(void) state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!evp_json_valid(evp_slice_str(good[i])))
			fail_msg("refused: %s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (evp_json_valid(evp_slice_str(bad[i])))
			fail_msg("accepted: %s", bad[i]);
	assert_false(evp_json_valid((evp_slice_t) {0}));
	assert_false(evp_json_valid(evp_slice_of("\"\\\0\"", 4)));
}

static void
test_depth(void **state)
{
	char		deep[2 * EVP_JSON_MAX_DEPTH + 2];

	(void) state;
	memset(deep, '[', EVP_JSON_MAX_DEPTH);
	memset(deep + EVP_JSON_MAX_DEPTH, ']', EVP_JSON_MAX_DEPTH);
	assert_true(evp_json_valid(evp_slice_of(deep, 2 * EVP_JSON_MAX_DEPTH)));
	memset(deep, '[', EVP_JSON_MAX_DEPTH + 1);
	memset(deep + EVP_JSON_MAX_DEPTH + 1, ']', EVP_JSON_MAX_DEPTH + 1);
	assert_false(evp_json_valid(evp_slice_of(deep, sizeof(deep))));
}

static void
stands_for(const char *json, const char *expected, size_t n)
{
	evp_buf_t	b;
	evp_json_t	j;

	evp_buf_init(&b, 1000);
	evp_json_init(&j, evp_slice_str(json));
	assert_true(evp_json_string(&j, &b));
	assert_true(evp_json_done(&j));
	assert_int_equal(b.len, n);
	assert_memory_equal(b.data, expected, n);
	evp_buf_free(&b);
}

static void
test_strings(void **state)
{
	(void) state;
	stands_for("\"\"", "", 0);
	stands_for(" \"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "a\"\\/\b\f\n\r\t", 9);
	stands_for("\"\\u0041\\u00fc\\u20ac\"", "A\u00fc\u20ac", 6);
	stands_for("\"\\ud83d\\ude00\"", "\U0001f600", 4);
	stands_for("\"\\uD83D\\uDE00x\"", "\U0001f600x", 5);
	stands_for("\"\\u0000\"", "\0", 1);
	/* Lone surrogates */
	stands_for("\"\\ud83dx\"", "\ufffdx", 4);
	stands_for("\"\\ude00\"", "\ufffd", 3);
	stands_for("\"\\ud83d\\u0041\"", "\ufffd" "A", 4);
}

static void
test_walk(void **state)
{
	evp_json_t	j;
	evp_slice_t range;
	evp_buf_t	key;
	bool		first = true;

	(void) state;
	evp_buf_init(&key, 100);
	evp_json_init(&j, evp_slice_str("{\"a\" : [1,{\"x\":2}] ,\"b\":\"c\"}"));
	assert_true(evp_json_enter(&j, '{'));
	assert_true(evp_json_more(&j, '}', &first));
	assert_true(evp_json_string(&j, &key));
	assert_true(evp_json_colon(&j));
	assert_true(evp_json_skip(&j, &range));
	assert_slice(range, "[1,{\"x\":2}]");
	assert_true(evp_json_more(&j, '}', &first));
	assert_true(evp_json_string(&j, &key));
	assert_slice(evp_slice_of(key.data, key.len), "ab");
	assert_true(evp_json_colon(&j));
	assert_int_equal(evp_json_peek(&j), '"');
	assert_true(evp_json_skip(&j, &range));
	assert_slice(range, "\"c\"");
	assert_false(evp_json_more(&j, '}', &first));
	assert_true(evp_json_done(&j));
	evp_buf_free(&key);
}

static void
cbor_is(const char *hex, const char *expected)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_arena_t arena = {0};
	evp_cbor_t	r;
	evp_buf_t	b;

	evp_buf_init(&b, 10000);
	evp_cbor_init(&r, evp_slice_blob(blob), &arena);
	assert_int_equal(evp_json_put_cbor(&b, &r, false), expected != NULL);
	if (expected != NULL)
	{
		assert_slice(evp_slice_of(b.data, b.len), expected);
		assert_true(evp_json_valid(evp_slice_of(b.data, b.len)));
	}
	evp_buf_free(&b);
	evp_arena_free(&arena);
	evp_blob_unref(blob);
}

static void
test_cbor(void **state)
{
	(void) state;
	cbor_is("83 01 20 9f ff", "[1,-1,[]]");
	cbor_is("1bffffffffffffffff", "18446744073709551615");
	cbor_is("3bffffffffffffffff", "-18446744073709551616");
	cbor_is("3bfffffffffffffffe", "-18446744073709551615");
	cbor_is("bf 61 61 f5 18 26 69 4f72646572466c696e f4 f6 21 f7 ff", "{\"a\":true,\"38\":\"OrderFlin\",\"false\":null,\"-2\":null}");
	cbor_is("84 fb3ff8000000000000 f97e00 f97c00 420102", "[1.5,null,null,null]");
	cbor_is("7f 61 22 61 00 ff", "\"\\\"\\ufffd\"");
	cbor_is("c1 a0", "{}");
	cbor_is("a1 80 01", NULL);
	cbor_is("82 01", NULL);
	cbor_is("61 ff", NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_valid),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_walk),
		cmocka_unit_test(test_cbor),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
