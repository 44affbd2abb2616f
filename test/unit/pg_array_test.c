/*
 * pg_array_test.c
 *    PostgreSQL's binary arrays: what is written is read again, and nothing is
 *    read beyond the end.
 */
#include "unit.h"

#include <stdlib.h>

#include "pg_array.h"

static void
test_round_trip(void **state)
{
	evp_buf_t	b;
	evp_pg_array_t a;
	evp_slice_t s;

	(void) state;
	evp_buf_init(&b, 4096);
	evp_pg_array_begin(&b, EVP_OID_TEXT, 3);
	evp_pg_array_text(&b, "one", 3);
	evp_pg_array_text(&b, "", 0);
	evp_pg_array_text(&b, "three", 5);
	assert_false(b.failed);
	assert_true(evp_pg_array_read(&a, b.data, b.len));
	assert_int_equal(a.n, 3);
	assert_true(evp_pg_array_next(&a, &s));
	assert_slice(s, "one");
	assert_true(evp_pg_array_next(&a, &s));
	assert_slice(s, "");
	assert_true(evp_pg_array_next(&a, &s));
	assert_slice(s, "three");
	assert_false(evp_pg_array_next(&a, &s));
	evp_buf_free(&b);
}

/* Bytes as PostgreSQL 15 sends them. */
static void
test_bytes(void **state)
{
	evp_blob_t *expected = unit_hex("00000001 00000000 00000014 00000002 00000001 00000008 0000000000000007 00000008 ffffffffffffffff");
	evp_buf_t	b;

	(void) state;
	evp_buf_init(&b, 4096);
	evp_pg_array_begin(&b, EVP_OID_INT8, 2);
	evp_pg_array_int8(&b, 7);
	evp_pg_array_int8(&b, -1);
	assert_int_equal(b.len, expected->len);
	assert_memory_equal(b.data, expected->data, b.len);
	evp_buf_free(&b);
	evp_blob_unref(expected);

	expected = unit_hex("00000000 00000000 00000010");
	evp_pg_array_begin(&b, EVP_OID_BOOL, 0);
	assert_int_equal(b.len, expected->len);
	assert_memory_equal(b.data, expected->data, b.len);
	evp_buf_free(&b);
	evp_blob_unref(expected);
	assert_int_equal(evp_pg_int8("\xff\xff\xff\xff\xff\xff\xff\xfe"), -2);
}

static void
test_bad(void **state)
{
	static const char *const bad[] = {
		"",
		"00000001 00000000",
		"00000002 00000000 00000019 00000001 00000001 00000001 00000001 00000000",
		"00000001 00000000 00000019 7fffffff 00000001 00000000",
	};
	evp_pg_array_t a;
	evp_slice_t s;
	evp_blob_t *blob;
	evp_buf_t	b;
	uint64_t	random = 7;

	(void) state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
	{
		blob = unit_hex(bad[i]);
		assert_false(evp_pg_array_read(&a, blob->data, blob->len));
		evp_blob_unref(blob);
	}
	/* A NULL, and an element that says it is longer than what is there. */
	blob = unit_hex("00000001 00000001 00000019 00000001 00000001 ffffffff");
	assert_true(evp_pg_array_read(&a, blob->data, blob->len));
	assert_false(evp_pg_array_next(&a, &s));
	evp_blob_unref(blob);

	evp_buf_init(&b, 4096);
	evp_pg_array_begin(&b, EVP_OID_TEXT, 2);
	evp_pg_array_text(&b, "abc", 3);
	evp_pg_array_text(&b, "defg", 4);
	for (int i = 0; i < 20000; i++)
	{
		blob = unit_mutate(b.data, b.len, &random);
		if (evp_pg_array_read(&a, blob->data, blob->len))
		{
			while (evp_pg_array_next(&a, &s))
				assert_true(s.p >= blob->data && s.p + s.n <= blob->data + blob->len);
		}
		evp_blob_unref(blob);
	}
	evp_buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
