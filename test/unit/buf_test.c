/*
 * buf_test.c
 *    Buffers, blobs, slices.
 */
#include "unit.h"

static void
test_append(void **state)
{
	evp_buf_t	b;

	(void) state;
	evp_buf_init(&b, 1000);
	assert_true(evp_buf_append(&b, "ab", 2));
	assert_true(evp_buf_append(&b, NULL, 0));
	assert_true(evp_buf_append_u8(&b, 1));
	assert_true(evp_buf_append_u16(&b, 0x0203));
	assert_true(evp_buf_append_u32(&b, 0x04050607));
	assert_true(evp_buf_append_u64(&b, UINT64_C(0x08090a0b0c0d0e0f)));
	assert_true(evp_buf_append_str(&b, "z"));
	assert_int_equal(b.len, 18);
	assert_memory_equal(b.data, "ab\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17z", 18);
	evp_buf_set_u32(&b, 2, 0xfffefdfc);
	assert_memory_equal(b.data, "ab\377\376\375\374\5", 7);
	evp_buf_set_u32(&b, 15, 1);	/* only 3 bytes are there: nothing is written */
	assert_memory_equal(b.data + 15, "\16\17z", 3);
	evp_buf_consume(&b, 2);
	assert_int_equal(b.len, 16);
	assert_int_equal(b.data[0], 0xff);
	evp_buf_consume(&b, 100);
	assert_int_equal(b.len, 0);
	evp_buf_free(&b);
}

static void
test_bound(void **state)
{
	evp_buf_t	b;
	char		big[200];

	(void) state;
	memset(big, 'x', sizeof(big));
	evp_buf_init(&b, 300);
	assert_true(evp_buf_append(&b, big, 200));
	assert_false(evp_buf_append(&b, big, 101));
	assert_true(b.failed);
	assert_int_equal(b.len, 200);
	/* Failure is sticky, so that one check at the end suffices. */
	assert_false(evp_buf_append(&b, big, 1));
	assert_int_equal(b.len, 200);
	evp_buf_reset(&b);
	assert_true(evp_buf_append(&b, big, 200));
	assert_true(evp_buf_append(&b, big, 100));
	assert_true(b.cap <= 300);
	assert_null(evp_buf_reserve(&b, SIZE_MAX));
	evp_buf_free(&b);

	evp_buf_init(&b, 0);
	assert_true(evp_buf_append(&b, "", 0));
	assert_false(evp_buf_append(&b, "x", 1));
	evp_buf_free(&b);
}

static void
test_printf(void **state)
{
	evp_buf_t	b;
	char		big[3000];

	(void) state;
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	evp_buf_init(&b, 4000);
	assert_true(evp_buf_appendf(&b, "%d-%s", 7, "x"));
	assert_memory_equal(b.data, "7-x", 3);
	assert_true(evp_buf_appendf(&b, "%s", big));
	assert_int_equal(b.len, 3 + sizeof(big) - 1);
	assert_int_equal(b.data[b.len - 1], 'y');
	assert_false(evp_buf_appendf(&b, "%s", big));
	evp_buf_free(&b);
}

static void
test_blobs(void **state)
{
	evp_buf_t	b;
	evp_blob_t *blob = evp_blob_new("hello", 5);
	evp_slice_t s;
	evp_slice_t copy;
	char		local[] = "local";

	(void) state;
	s = evp_slice_ref((evp_slice_t) {.owner = blob,.p = blob->data + 1,.n = 3});
	assert_int_equal(blob->refs, 2);
	evp_blob_unref(blob);
	assert_slice(s, "ell");
	evp_slice_unref(&s);
	assert_true(evp_slice_is_null(s));

	copy = evp_slice_ref(evp_slice_of(local, 5));
	local[0] = 'X';
	assert_slice(copy, "local");
	evp_slice_unref(&copy);
	copy = evp_slice_ref((evp_slice_t) {0});
	assert_true(evp_slice_is_null(copy));

	evp_buf_init(&b, 100000);
	for (int i = 0; i < 10000; i++)
		evp_buf_append(&b, "0123456789", 9);
	blob = evp_blob_from_buf(&b);
	assert_int_equal(blob->len, 90000);
	assert_int_equal(b.len, 0);
	evp_blob_unref(blob);
	blob = evp_blob_from_buf(&b);
	assert_int_equal(blob->len, 0);
	assert_non_null(blob->data);
	evp_blob_unref(blob);

	evp_buf_init(&b, 1);
	evp_buf_append(&b, "xx", 2);
	assert_null(evp_blob_from_buf(&b));
	assert_null(evp_blob_alloc(SIZE_MAX));
	evp_blob_unref(NULL);
}

static void
test_slices(void **state)
{
	(void) state;
	assert_true(evp_slice_eq(evp_slice_str("a"), evp_slice_of("a", 1)));
	assert_false(evp_slice_eq(evp_slice_str("a"), evp_slice_str("b")));
	assert_false(evp_slice_eq(evp_slice_str(""), evp_slice_str(NULL)));
	assert_true(evp_slice_eq((evp_slice_t) {0}, evp_slice_str(NULL)));
	assert_false(evp_slice_is((evp_slice_t) {0}, ""));
}

static void
test_arena(void **state)
{
	evp_arena_t a = {0};
	evp_blob_t *one = evp_arena_alloc(&a, 10);
	evp_blob_t *two = evp_arena_alloc(&a, 0);

	(void) state;
	assert_non_null(one);
	assert_non_null(two);
	/* A blob that someone else holds outlives the arena. */
	evp_blob_ref(one);
	evp_arena_free(&a);
	assert_null(a.blobs);
	one->data[9] = 1;
	evp_blob_unref(one);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_append),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_printf),
		cmocka_unit_test(test_blobs),
		cmocka_unit_test(test_slices),
		cmocka_unit_test(test_arena),
	};

	return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
