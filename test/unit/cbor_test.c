/*
 * cbor_test.c
 *    The CBOR reader and writer, against the examples of RFC 8949 and hostile input.
 */
#include "unit.h"

#include "cbor.h"

static evp_arena_t arena;

static evp_cbor_t
reader(evp_blob_t *blob)
{
	evp_cbor_t	r;

	evp_cbor_init(&r, evp_slice_blob(blob), &arena);
	return r;
}

static void
int_is(const char *hex, int64_t expected)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_cbor_t	r = reader(blob);
	int64_t		v;
	evp_buf_t	b;

	assert_int_equal(evp_cbor_peek(&r), EVP_CBOR_INT);
	assert_true(evp_cbor_int(&r, &v));
	assert_int_equal(v, expected);
	assert_true(evp_cbor_done(&r));
	evp_buf_init(&b, 9);
	evp_cbor_put_int(&b, v);
	assert_int_equal(b.len, blob->len);
	assert_memory_equal(b.data, blob->data, b.len);
	evp_buf_free(&b);
	evp_blob_unref(blob);
}

static void
test_integers(void **state)
{
	(void) state;
	int_is("00", 0);
	int_is("17", 23);
	int_is("1818", 24);
	int_is("1903e8", 1000);
	int_is("1a000f4240", 1000000);
	int_is("1b000000e8d4a51000", INT64_C(1000000000000));
	int_is("1b7fffffffffffffff", INT64_MAX);
	int_is("20", -1);
	int_is("3903e7", -1000);
	int_is("3b7fffffffffffffff", INT64_MIN);
}

static const char *
int_error(const char *hex)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_cbor_t	r = reader(blob);
	int64_t		v = 42;

	assert_false(evp_cbor_int(&r, &v));
	assert_int_equal(v, 42);
	evp_blob_unref(blob);
	return r.error;
}

static void
test_integer_errors(void **state)
{
	(void) state;
	assert_string_equal(int_error("1bffffffffffffffff"), "integer is out of range");
	assert_string_equal(int_error("3b8000000000000000"), "integer is out of range");
	assert_string_equal(int_error("1903"), "CBOR is cut short");
	assert_string_equal(int_error(""), "CBOR is cut short");
	assert_string_equal(int_error("6161"), "not an integer");
	assert_string_equal(int_error("1c"), "malformed CBOR");
	assert_string_equal(int_error("ff"), "CBOR container is too short");
}

static void
text_is(const char *hex, const char *expected)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_cbor_t	r = reader(blob);
	evp_slice_t v;

	assert_int_equal(evp_cbor_peek(&r), EVP_CBOR_TEXT);
	assert_true(evp_cbor_text(&r, &v));
	assert_slice(v, expected);
	assert_true(evp_cbor_done(&r));
	evp_blob_unref(blob);
}

static void
text_fails(const char *hex, const char *error)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_cbor_t	r = reader(blob);
	evp_slice_t v;

	assert_false(evp_cbor_text(&r, &v));
	assert_string_equal(r.error, error);
	/* An error stays, and ends every loop. */
	assert_false(evp_cbor_more(&r));
	assert_false(evp_cbor_done(&r));
	evp_blob_unref(blob);
}

static void
test_texts(void **state)
{
	(void) state;
	text_is("60", "");
	text_is("6449455446", "IETF");
	text_is("62c3bc", "\u00fc");
	text_is("64f0908591", "\U00010151");
	text_is("7fff", "");
}

static void
test_text_pieces(void **state)
{
	(void) state;
	text_is("7f657374726561646d696e67ff", "streaming");
	text_is("7f6161ff", "a");
	text_is("7f6060ff", "");
	/* A character may lie across pieces: they are joined before the check. */
	text_is("7f61c361bcff", "\u00fc");
	text_is("c1c16161", "a");	/* tags are skipped */
	text_fails("7f61c3ff", "text is not UTF-8");
	text_fails("7f4161ff", "malformed string in CBOR");
	text_fails("7f7f6161ffff", "malformed string in CBOR");
	text_fails("7f6161", "CBOR is cut short");
	text_fails("61ff", "text is not UTF-8");
	text_fails("7bffffffffffffffff61", "CBOR is cut short");
	text_fails("7a7fffffff61", "CBOR is cut short");
	text_fails("4161", "not a text");
	evp_arena_free(&arena);
}

static void
test_utf8(void **state)
{
	static const char *const good[] = {
		"", "abcdefghijklmnop", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
		"\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "abcdefg\xc3\xbc", "abcdefgh\xc3\xbc"
	};
	static const char *const bad[] = {
		"\x80", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xef\xbf",
		"\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "abcdefgh\xff", "abcdefg\xf0\x90\x80"
	};

	(void) state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(evp_utf8_valid((const uint8_t *) good[i], strlen(good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(evp_utf8_valid((const uint8_t *) bad[i], strlen(bad[i])));
}

/* Sums the integers of [1, [2, 3], {"a": 4}]-like input, whatever its form. */
static int64_t
sum(evp_cbor_t *r)
{
	int64_t		total = 0;
	int64_t		v;
	evp_slice_t key;

	switch (evp_cbor_peek(r))
	{
		case EVP_CBOR_INT:
			return evp_cbor_int(r, &v) ? v : 0;
		case EVP_CBOR_ARRAY:
			evp_cbor_enter_array(r);
			while (evp_cbor_more(r))
				total += sum(r);
			return total;
		case EVP_CBOR_MAP:
			evp_cbor_enter_map(r);
			while (evp_cbor_more(r))
				if (evp_cbor_text(r, &key))
					total += sum(r);
			return total;
		default:
			evp_cbor_skip(r, NULL);
			return 0;
	}
}

static void
sum_is(const char *hex, int64_t expected, const char *error)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_cbor_t	r = reader(blob);
	int64_t		total = sum(&r);

	evp_cbor_done(&r);
	if (error != NULL)
		assert_string_equal(r.error, error);
	else
	{
		assert_null(r.error);
		assert_int_equal(total, expected);
	}
	/* Skipping the same bytes comes to the same end. */
	r = reader(blob);
	evp_cbor_skip(&r, NULL);
	evp_cbor_done(&r);
	assert_int_equal(r.error == NULL, error == NULL);
	evp_blob_unref(blob);
}

static void
test_containers(void **state)
{
	(void) state;
	sum_is("80", 0, NULL);
	sum_is("9fff", 0, NULL);
	sum_is("a0", 0, NULL);
	sum_is("bfff", 0, NULL);
	sum_is("8301820203820405", 15, NULL);
	sum_is("9f018202039f0405ffff", 15, NULL);
	sum_is("83018202039f0405ff", 15, NULL);
	sum_is("bf61610161629f0203ffff", 6, NULL);
	sum_is("a26161016162820203", 6, NULL);
	sum_is("8a0102f5f4f6f7fb3ff19999999999994161616204", 7, NULL);
	sum_is("9f5f41004101ff7f6161ff05ff", 5, NULL);
	sum_is("8301820203", 0, "CBOR is cut short");
	sum_is("9f0102", 0, "CBOR is cut short");
	sum_is("bf6161ff", 0, "CBOR container is too short");
	sum_is("a16161", 0, "CBOR is cut short");
	sum_is("8201ff", 0, "malformed CBOR");
	sum_is("0101", 0, "bytes behind the CBOR item");
	sum_is("9bffffffffffffffff01", 0, "CBOR is cut short");
	sum_is("bbffffffffffffffff01", 0, "CBOR is cut short");
	sum_is("9b00000000ffffffff01", 0, "CBOR is cut short");
	sum_is("9fc1ff", 0, "CBOR tag without an item");
}

static void
test_depth(void **state)
{
	static uint8_t deep[100000];
	evp_cbor_t	r;

	(void) state;
	for (int kind = 0; kind < 2; kind++)
	{
		memset(deep, kind == 0 ? 0x9f : 0x81, sizeof(deep));
		evp_cbor_init(&r, evp_slice_of(deep, sizeof(deep)), NULL);
		assert_false(evp_cbor_skip(&r, NULL));
		assert_string_equal(r.error, "CBOR is nested too deeply");
	}
	memset(deep, 0x81, EVP_CBOR_MAX_DEPTH);
	deep[EVP_CBOR_MAX_DEPTH] = 0x05;
	evp_cbor_init(&r, evp_slice_of(deep, EVP_CBOR_MAX_DEPTH + 1), NULL);
	assert_true(evp_cbor_skip(&r, NULL));
	assert_true(evp_cbor_done(&r));
}

static void
test_skip(void **state)
{
	/* {"a": [1, {"b": (_ "x", "y")}], "c": 7} */
	evp_blob_t *blob = unit_hex("bf6161 9f01a161627f61786179ffff 616307ff");
	evp_cbor_t	r = reader(blob);
	evp_slice_t key;
	evp_slice_t range;
	int64_t		v;

	(void) state;
	assert_true(evp_cbor_enter_map(&r));
	assert_true(evp_cbor_more(&r));
	assert_true(evp_cbor_text(&r, &key));
	assert_true(evp_cbor_skip(&r, &range));
	assert_ptr_equal(range.p, blob->data + 3);
	assert_int_equal(range.n, 12);
	assert_ptr_equal(range.owner, blob);
	assert_true(evp_cbor_more(&r));
	assert_true(evp_cbor_text(&r, &key));
	assert_slice(key, "c");
	assert_true(evp_cbor_int(&r, &v));
	assert_int_equal(v, 7);
	assert_false(evp_cbor_more(&r));
	assert_true(evp_cbor_done(&r));

	r = reader(blob);
	assert_true(evp_cbor_enter_map(&r));
	assert_true(evp_cbor_leave(&r));
	assert_true(evp_cbor_done(&r));
	evp_blob_unref(blob);
}

static void
test_scalars(void **state)
{
	evp_blob_t *blob = unit_hex("88 f5 f6 f7 f93e00 fa47c35000 43010203 f6 6161");
	evp_cbor_t	r = reader(blob);
	bool		flag = false;
	bool		null;
	double		d;
	int64_t		v = 9;
	evp_slice_t s;

	(void) state;
	assert_true(evp_cbor_enter_array(&r));
	assert_true(evp_cbor_bool(&r, &flag));
	assert_true(flag);
	assert_true(evp_cbor_take_null(&r));
	assert_true(evp_cbor_int_or_null(&r, &v, &null));
	assert_true(null);
	assert_int_equal(v, 0);
	assert_true(evp_cbor_double(&r, &d));
	assert_true(d > 1.4999 && d < 1.5001);
	assert_true(evp_cbor_double(&r, &d));
	assert_true(d > 99999.9 && d < 100000.1);
	assert_true(evp_cbor_bytes(&r, &s));
	assert_int_equal(s.n, 3);
	assert_true(evp_cbor_text_or_null(&r, &s));
	assert_null(s.p);
	assert_true(evp_cbor_text_or_null(&r, &s));
	assert_slice(s, "a");
	assert_int_equal(evp_cbor_peek(&r), EVP_CBOR_END);
	assert_false(evp_cbor_int(&r, &v));
	assert_string_equal(r.error, "CBOR container is too short");
	evp_blob_unref(blob);

	blob = unit_hex("62 6100");
	r = reader(blob);
	assert_false(evp_cbor_name(&r, &s));
	assert_string_equal(r.error, "U+0000 in a name");
	evp_blob_unref(blob);
}

static void
test_no_arena(void **state)
{
	evp_blob_t *blob = unit_hex("7f61616162ff");
	evp_cbor_t	r;
	evp_slice_t s;

	(void) state;
	evp_cbor_init(&r, evp_slice_blob(blob), NULL);
	assert_false(evp_cbor_text(&r, &s));
	assert_non_null(r.error);
	evp_blob_unref(blob);
}

static void
test_writer(void **state)
{
	evp_buf_t	b;
	evp_blob_t *expected = unit_hex("bf 6161 9f 01 f5 f4 f6 ff 6162 80 6163 43010203 6164 60 6165 fb3ff199999999999a ff");

	(void) state;
	evp_buf_init(&b, 1000);
	evp_cbor_open_map(&b);
	evp_cbor_put_str(&b, "a");
	evp_cbor_open_array(&b);
	evp_cbor_put_int(&b, 1);
	evp_cbor_put_bool(&b, true);
	evp_cbor_put_bool(&b, false);
	evp_cbor_put_slice(&b, (evp_slice_t) {0});
	evp_cbor_close(&b);
	evp_cbor_put_str(&b, "b");
	evp_cbor_put_array_header(&b, 0);
	evp_cbor_put_str(&b, "c");
	evp_cbor_put_bytes(&b, "\1\2\3", 3);
	evp_cbor_put_str(&b, "d");
	evp_cbor_put_slice(&b, evp_slice_str(""));
	evp_cbor_put_str(&b, "e");
	evp_cbor_put_double(&b, 1.1);
	evp_cbor_close(&b);
	assert_int_equal(b.len, expected->len);
	assert_memory_equal(b.data, expected->data, b.len);
	evp_buf_free(&b);
	evp_blob_unref(expected);
}

static void
test_mutations(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	uint64_t	seed = 20240601;

	(void) state;
	for (int i = 0; i < 20000; i++)
	{
		const unit_golden_t *g = &golden[unit_random(&seed) % n];
		evp_blob_t *blob = unit_mutate(g->message->data, g->message->len, &seed);
		evp_cbor_t	r = reader(blob);
		evp_cbor_t	s = reader(blob);

		sum(&r);
		evp_cbor_skip(&s, NULL);
		/* What can be walked item by item can be skipped (skipping looks at no text). */
		if (evp_cbor_done(&r))
			assert_true(evp_cbor_done(&s));
		evp_arena_free(&arena);
		evp_blob_unref(blob);
	}
	unit_golden_free(golden, n);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_integers),
		cmocka_unit_test(test_integer_errors),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_text_pieces),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_containers),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_skip),
		cmocka_unit_test(test_scalars),
		cmocka_unit_test(test_no_arena),
		cmocka_unit_test(test_writer),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests_name("cbor", tests, NULL, NULL);
}
