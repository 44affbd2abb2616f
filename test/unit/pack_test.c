/*
 * pack_test.c
 *    Batches in the packed form of include/packed.h, byte by byte.
 */
#include "unit.h"

#include "pack.h"

static evp_event_t
small_event(void)
{
	return (evp_event_t) {.type = evp_slice_str("T"),.data = evp_slice_str("{}")};
}

static void
test_least(void **state)
{
	evp_event_t e = small_event();
	evp_pack_item_t item = {.expected = 0,.events = &e,.n_events = 1};
	evp_blob_t *expected = unit_hex("45564231 00000001"
									"0000001f 0000 0000000000000000 0000 0001"
									"00 0001 54 0000 0000 00000002 7b7d");
	evp_pack_t	pack;
	evp_buf_t	b;

	(void) state;
	/* The item's length: flags 2, expected 8, stream 2, count 2, event 14. */
	expected->data[11] = 28;
	evp_buf_init(&b, 1000);
	evp_pack_open(&pack, &b);
	assert_false(evp_pack_close(&pack));	/* a batch holds one append at least */
	assert_null(evp_pack_add(&pack, &item));
	assert_true(evp_pack_close(&pack));
	assert_int_equal(b.len, expected->len);
	assert_memory_equal(b.data, expected->data, b.len);
	assert_int_equal(evp_pack_size(&item), b.len - 8);
	evp_buf_free(&b);
	evp_blob_unref(expected);
}

static void
test_all_fields(void **state)
{
	evp_event_t events[2] = {small_event(), small_event()};
	evp_pack_item_t item = {
		.flags = EVENTO_ITEM_SAME_ID_WINS | EVENTO_ITEM_LOCK | EVENTO_ITEM_SINCE | EVENTO_ITEM_SNAPSHOT,
		.expected = EVENTO_EXPECTED_EXISTS,
		.stream = evp_slice_str("st"),
		.lock = evp_slice_str("lo"),
		.fence = 3,
		.since = 4,
		.state_class = evp_slice_str("C"),
		.state = evp_slice_str("[1]"),
		.events = events,
		.n_events = 2
	};
	evp_blob_t *expected = unit_hex("45564231 00000002"
									"00000000 001b fffffffffffffffc 0002 7374"
									"0002 6c6f 0000000000000003"
									"0000000000000004"
									"0001 43 00000003 5b315d"
									"0002"
									"1f 000102030405060708090a0b0c0d0e0f 0000000000000005"
									"0001 54 0001 63 0001 6b 00000002 7b7d 00000002 6d6d"
									"00 0001 54 0000 0000 00000002 7b7d");
	evp_pack_t	pack;
	evp_buf_t	b;
	size_t		first;

	(void) state;
	for (int i = 0; i < 16; i++)
		events[0].id[i] = (uint8_t) i;
	events[0].has_id = events[0].has_timestamp = events[0].service = events[0].force_telemetry = true;
	events[0].timestamp_ms = 5;
	events[0].context = evp_slice_str("c");
	events[0].klass = evp_slice_str("k");
	events[0].metadata = evp_slice_str("mm");
	expected->data[11] = (uint8_t) (expected->len - 12);
	evp_buf_init(&b, 1000);
	evp_buf_append_str(&b, "before");
	evp_pack_open(&pack, &b);
	assert_null(evp_pack_add(&pack, &item));
	first = b.len;
	assert_int_equal(evp_pack_size(&item), first - 6 - 8);
	item.flags = EVENTO_ITEM_DROP_SNAPSHOTS;
	item.expected = EVENTO_EXPECTED_ANY;
	assert_null(evp_pack_add(&pack, &item));
	assert_true(evp_pack_close(&pack));
	assert_int_equal(first - 6, expected->len);
	assert_memory_equal(b.data + 6, expected->data, expected->len);
	assert_memory_equal(b.data + first + 4, "\0\x20\x80\0\0\0\0\0\0\0\0\2st\0\2\x1f", 17);
	evp_buf_free(&b);
	evp_blob_unref(expected);
}

static void
refused(const evp_pack_item_t *item, const char *expected)
{
	evp_event_t e = small_event();
	evp_pack_item_t good = {.events = &e,.n_events = 1};
	evp_pack_t	pack;
	evp_buf_t	b;
	size_t		len;

	evp_buf_init(&b, 1000);
	evp_pack_open(&pack, &b);
	assert_null(evp_pack_add(&pack, &good));
	len = b.len;
	assert_string_equal(evp_pack_add(&pack, item), expected);
	/* The batch is as it was. */
	assert_int_equal(b.len, len);
	assert_false(b.failed);
	assert_null(evp_pack_add(&pack, &good));
	assert_true(evp_pack_close(&pack));
	assert_int_equal(b.data[7], 2);
	evp_buf_free(&b);
}

static void
test_refused(void **state)
{
	static char big[2000];
	evp_event_t e = small_event();
	const evp_pack_item_t good = {.stream = evp_slice_str("s"),.events = &e,.n_events = 1};
	evp_pack_item_t item;

	(void) state;
	memset(big, 'x', sizeof(big));
#define REFUSED(change, text) (item = good, e = small_event(), change, refused(&item, text))
	REFUSED(item.flags = 0x200, "unknown flag");
	REFUSED(item.flags = EVENTO_ITEM_SNAPSHOT | EVENTO_ITEM_DROP_SNAPSHOTS, "snapshot to save and to drop at once");
	REFUSED(item.expected = -1, "unknown expected version");
	REFUSED(item.expected = -2, "unknown expected version");
	REFUSED(item.stream = evp_slice_str(""), "stream without a name");
	REFUSED(item.stream = evp_slice_of(big, 513), "name of the stream is too long");
	REFUSED(item.flags = EVENTO_ITEM_LOCK, "lock without a name");
	REFUSED((item.flags = EVENTO_ITEM_LOCK, item.lock = evp_slice_of(big, 513)), "name of the lock is too long");
	REFUSED(item.flags = EVENTO_ITEM_SNAPSHOT, "snapshot without a state");
	REFUSED((item.flags = EVENTO_ITEM_SNAPSHOT, item.state = evp_slice_str("1"), item.state_class = evp_slice_of(big, 1025)),
			"class of the snapshot is too long");
	REFUSED(item.n_events = 0, "append without events");
	REFUSED(item.n_events = 65536, "too many events in one append");
	REFUSED(e.type = evp_slice_str(NULL), "event without a type");
	REFUSED(e.type = evp_slice_of(big, 256), "type is too long");
	REFUSED(e.context = evp_slice_of(big, 513), "context is too long");
	REFUSED(e.klass = evp_slice_of(big, 1025), "class is too long");
	REFUSED(e.data = evp_slice_str(""), "event without data");
	REFUSED(e.data = evp_slice_of(big, 1500), "batch is too long");
}

static void
test_many(void **state)
{
	evp_event_t e = small_event();
	evp_pack_item_t item = {.events = &e,.n_events = 1};
	evp_pack_t	pack;
	evp_buf_t	b;

	(void) state;
	evp_buf_init(&b, SIZE_MAX);
	evp_pack_open(&pack, &b);
	for (int i = 0; i < EVENTO_PACKED_MAX_ITEMS; i++)
		assert_null(evp_pack_add(&pack, &item));
	assert_string_equal(evp_pack_add(&pack, &item), "too many appends in one batch");
	assert_true(evp_pack_close(&pack));
	assert_int_equal(b.data[6] << 8 | b.data[7], EVENTO_PACKED_MAX_ITEMS);
	evp_buf_free(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_least),
		cmocka_unit_test(test_all_fields),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
