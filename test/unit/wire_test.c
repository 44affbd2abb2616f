/*
 * wire_test.c
 *    Frames: parsing in any portions, chunk streams, bounds, and sending.
 */
#include "unit.h"

#include <stdlib.h>

#include "wire.h"

/* What a parser gave: messages one after another, each with its length before it. */
static void
collect(evp_wire_t *w, const uint8_t *p, size_t n, int64_t now, evp_buf_t *out, int *rc)
{
	evp_blob_t *message;

	while ((*rc = evp_wire_feed(w, &p, &n, now, &message)) > 0)
	{
		evp_buf_append_u64(out, message->len);
		evp_buf_append(out, message->data, message->len);
		evp_blob_unref(message);
	}
	if (*rc == 0)
		assert_int_equal(n, 0);
}

/* All at once; gives the parser's last result and the messages. */
static int
parse(const void *p, size_t n, evp_buf_t *out, const char **error)
{
	evp_wire_t	w;
	int			rc;

	evp_wire_init(&w);
	evp_buf_init(out, SIZE_MAX);
	collect(&w, p, n, 0, out, &rc);
	*error = evp_wire_error(&w);
	evp_wire_free(&w);
	return rc;
}

static void
put_full(evp_buf_t *b, const void *p, size_t n)
{
	evp_buf_append_u32(b, (uint32_t) n + 1);
	evp_buf_append_u8(b, 0);
	evp_buf_append(b, p, n);
}

static void
put_chunk(evp_buf_t *b, uint8_t stream, bool last, const void *p, size_t n)
{
	uint8_t		id[16] = {0};

	id[3] = stream;
	evp_buf_append_u32(b, (uint32_t) n + 18);
	evp_buf_append_u8(b, 1);
	evp_buf_append(b, id, 16);
	evp_buf_append_u8(b, last);
	evp_buf_append(b, p, n);
}

static void
expect_error(const char *hex, const char *expected)
{
	evp_blob_t *blob = unit_hex(hex);
	const char *error;
	evp_buf_t	out;

	assert_int_equal(parse(blob->data, blob->len, &out, &error), -1);
	assert_string_equal(error, expected);
	evp_buf_free(&out);
	evp_blob_unref(blob);
}

static void
test_bad_frames(void **state)
{
	(void) state;
	expect_error("00fffffd", "frame too long");
	expect_error("ffffffff", "frame too long");
	expect_error("00000002 0200", "unknown frame type");
	expect_error("00000011 01", "malformed chunk");
	expect_error("00000013 01 00000000000000000000000000000000 02 aa", "malformed chunk");
}

static void
test_error_stays(void **state)
{
	evp_wire_t	w;
	evp_blob_t *message;
	const uint8_t bad[] = {0, 0, 0, 1, 9};
	const uint8_t good[] = {0, 0, 0, 2, 0, 0xa0};
	const uint8_t *p = bad;
	size_t		n = sizeof(bad);

	(void) state;
	evp_wire_init(&w);
	assert_int_equal(evp_wire_feed(&w, &p, &n, 0, &message), -1);
	p = good;
	n = sizeof(good);
	assert_int_equal(evp_wire_feed(&w, &p, &n, 0, &message), -1);
	assert_int_equal(evp_wire_check(&w, 0), -1);
	evp_wire_free(&w);
}

static void
test_frames(void **state)
{
	evp_buf_t	in;
	evp_buf_t	out;
	evp_buf_t	expected;
	const char *error;

	(void) state;
	evp_buf_init(&in, SIZE_MAX);
	evp_buf_init(&expected, SIZE_MAX);
	evp_buf_append_u32(&in, 0);	/* ignored */
	put_full(&in, "abc", 3);
	evp_buf_append_u32(&in, 0);
	put_chunk(&in, 1, false, "one ", 4);
	put_chunk(&in, 2, false, "", 0);
	put_full(&in, "", 0);
	put_chunk(&in, 2, true, "other", 5);
	put_chunk(&in, 1, true, "two", 3);
	put_chunk(&in, 1, true, "", 0); /* a stream of its own, and empty */
	assert_int_equal(parse(in.data, in.len, &out, &error), 0);
	evp_buf_append_u64(&expected, 3);
	evp_buf_append(&expected, "abc", 3);
	evp_buf_append_u64(&expected, 0);
	evp_buf_append_u64(&expected, 5);
	evp_buf_append(&expected, "other", 5);
	evp_buf_append_u64(&expected, 7);
	evp_buf_append(&expected, "one two", 7);
	evp_buf_append_u64(&expected, 0);
	assert_int_equal(out.len, expected.len);
	assert_memory_equal(out.data, expected.data, out.len);
	evp_buf_free(&in);
	evp_buf_free(&out);
	evp_buf_free(&expected);
}

/* A stream of recorded messages, whole and in chunks that interleave. */
static void
random_input(evp_buf_t *in, const unit_golden_t *golden, size_t n_golden, uint64_t *seed)
{
	size_t		sent[8] = {0};
	const unit_golden_t *open[8] = {NULL};
	unsigned	unfinished = 0;

	evp_buf_init(in, SIZE_MAX);
	for (int step = 0; step < 200 || unfinished > 0; step++)
	{
		unsigned	s = unit_random(seed) % 8;
		const unit_golden_t *g = &golden[unit_random(seed) % n_golden];

		if (step < 200 && unit_random(seed) % 3 == 0)
			put_full(in, g->message->data, g->message->len);
		else if (open[s] == NULL && step < 200)
		{
			open[s] = g;
			sent[s] = 0;
			unfinished++;
		}
		if (open[s] != NULL)
		{
			size_t		left = open[s]->message->len - sent[s];
			size_t		n = unit_random(seed) % (left + 1);

			put_chunk(in, (uint8_t) s, n == left, open[s]->message->data + sent[s], n);
			sent[s] += n;
			if (n == left)
			{
				open[s] = NULL;
				unfinished--;
			}
		}
		if (unit_random(seed) % 10 == 0)
			evp_buf_append_u32(in, 0);
	}
}

/* One stream, cut in two at each of its bytes, gives the same messages. */
static void
test_every_cut(void **state)
{
	size_t		n_golden;
	unit_golden_t *golden = unit_golden_load(&n_golden);
	uint64_t	seed = 78;
	evp_buf_t	in;
	evp_buf_t	whole;
	const char *error;

	(void) state;
	random_input(&in, golden, n_golden, &seed);
	/* The last message is then unfinished. */
	if (in.len > 20000)
		in.len = 20000;
	parse(in.data, in.len, &whole, &error);
	for (size_t at = 0; at <= in.len; at++)
	{
		evp_wire_t	w;
		evp_buf_t	parts;
		int			rc = 0;

		evp_wire_init(&w);
		evp_buf_init(&parts, SIZE_MAX);
		collect(&w, in.data, at, 0, &parts, &rc);
		assert_int_equal(rc, 0);
		collect(&w, in.data + at, in.len - at, 0, &parts, &rc);
		assert_int_equal(rc, 0);
		assert_int_equal(parts.len, whole.len);
		assert_memory_equal(parts.data, whole.data, parts.len);
		evp_wire_free(&w);
		evp_buf_free(&parts);
	}
	evp_buf_free(&in);
	evp_buf_free(&whole);
	unit_golden_free(golden, n_golden);
}

static void
test_any_portions(void **state)
{
	size_t		n_golden;
	unit_golden_t *golden = unit_golden_load(&n_golden);
	uint64_t	seed = 77;

	(void) state;
	for (int round = 0; round < 30; round++)
	{
		evp_buf_t	in;
		evp_buf_t	whole;
		evp_buf_t	parts;
		evp_wire_t	w;
		const char *error;
		size_t		most = (size_t[]) {1, 7, 100, 5000, 70000}[round % 5];
		int			rc = 0;

		random_input(&in, golden, n_golden, &seed);
		assert_int_equal(parse(in.data, in.len, &whole, &error), 0);
		assert_true(whole.len > 1000);

		evp_wire_init(&w);
		evp_buf_init(&parts, SIZE_MAX);
		for (size_t at = 0; at < in.len;)
		{
			size_t		n = 1 + unit_random(&seed) % most;
			uint8_t    *piece;

			if (n > in.len - at)
				n = in.len - at;
			/* A block of its own, so that a sanitizer sees a step beyond it. */
			piece = malloc(n);
			memcpy(piece, in.data + at, n);
			collect(&w, piece, n, 0, &parts, &rc);
			free(piece);
			assert_int_equal(rc, 0);
			at += n;
		}
		assert_int_equal(evp_wire_held(&w), 0);
		assert_int_equal(w.n_streams, 0);
		assert_true(evp_wire_deadline(&w) == INT64_MAX);
		assert_int_equal(parts.len, whole.len);
		assert_memory_equal(parts.data, whole.data, parts.len);
		evp_wire_free(&w);
		evp_buf_free(&in);
		evp_buf_free(&whole);
		evp_buf_free(&parts);
	}
	unit_golden_free(golden, n_golden);
}

static void
test_claims_allocate_nothing(void **state)
{
	evp_wire_t	w;
	evp_buf_t	out;
	int			rc;
	uint8_t		full[15] = {0x00, 0xff, 0xff, 0xfc, 0x00};
	uint8_t		chunk[32] = {0x00, 0xff, 0xff, 0xfc, 0x01};

	(void) state;
	evp_buf_init(&out, 0);
	evp_wire_init(&w);
	collect(&w, full, sizeof(full), 0, &out, &rc);
	assert_int_equal(rc, 0);
	assert_int_equal(evp_wire_held(&w), 10);
	assert_true(w.full.cap <= 4096);
	evp_wire_free(&w);

	evp_wire_init(&w);
	collect(&w, chunk, sizeof(chunk), 0, &out, &rc);
	assert_int_equal(rc, 0);
	assert_int_equal(evp_wire_held(&w), 10);
	evp_wire_free(&w);
	evp_buf_free(&out);
}

static void
test_bounds(void **state)
{
	evp_wire_t	w;
	evp_buf_t	in;
	evp_buf_t	out;
	int			rc;

	(void) state;
	evp_buf_init(&in, SIZE_MAX);
	evp_buf_init(&out, SIZE_MAX);

	evp_wire_init(&w);
	w.max_message = 10;
	put_chunk(&in, 1, false, "123456", 6);
	put_chunk(&in, 1, true, "7890", 4);
	put_chunk(&in, 1, false, "123456", 6);
	put_chunk(&in, 1, true, "78901", 5);
	collect(&w, in.data, in.len, 0, &out, &rc);
	assert_int_equal(rc, -1);
	assert_int_equal(out.len, 18);	/* the first one came */
	assert_string_equal(evp_wire_error(&w), "message too long");
	evp_wire_free(&w);

	evp_wire_init(&w);
	w.max_held = 10;
	evp_buf_reset(&in);
	put_chunk(&in, 1, false, "123456", 6);
	put_chunk(&in, 2, false, "1234", 4);
	put_chunk(&in, 3, false, "1", 1);
	collect(&w, in.data, in.len, 0, &out, &rc);
	assert_int_equal(rc, -1);
	assert_string_equal(evp_wire_error(&w), "too many bytes in unfinished chunk streams");
	evp_wire_free(&w);

	evp_wire_init(&w);
	assert_int_equal(w.max_streams, 1024);
	evp_buf_reset(&in);
	for (int i = 0; i <= 1024; i++)
	{
		uint8_t		id[16] = {(uint8_t) (i >> 8), (uint8_t) i};

		evp_buf_append_u32(&in, 19);
		evp_buf_append_u8(&in, 1);
		evp_buf_append(&in, id, 16);
		evp_buf_append(&in, "\0x", 2);
	}
	collect(&w, in.data, in.len, 0, &out, &rc);
	assert_int_equal(rc, -1);
	assert_string_equal(evp_wire_error(&w), "too many unfinished chunk streams");
	assert_int_equal(evp_wire_held(&w), 1024);
	evp_wire_free(&w);
	evp_buf_free(&in);
	evp_buf_free(&out);
}

static void
test_timeouts(void **state)
{
	evp_wire_t	w;
	evp_buf_t	in;
	evp_buf_t	out;
	int			rc;

	(void) state;
	evp_buf_init(&in, SIZE_MAX);
	evp_buf_init(&out, SIZE_MAX);

	/* A frame that comes byte by byte counts from its first byte. */
	evp_wire_init(&w);
	put_full(&in, "abcdef", 6);
	for (size_t i = 0; i + 1 < in.len; i++)
		collect(&w, in.data + i, 1, 1000 + (int64_t) i * 5000, &out, &rc);
	assert_true(evp_wire_deadline(&w) == 61000);
	assert_int_equal(evp_wire_check(&w, 60999), 0);
	assert_int_equal(evp_wire_check(&w, 61000), -1);
	assert_string_equal(evp_wire_error(&w), "frame not finished in time");
	evp_wire_free(&w);

	/* A finished frame leaves no deadline. */
	evp_wire_init(&w);
	collect(&w, in.data, in.len, 1000, &out, &rc);
	assert_true(evp_wire_deadline(&w) == INT64_MAX);
	assert_int_equal(evp_wire_check(&w, INT64_MAX), 0);

	/* The oldest unfinished stream counts; when it ends, the next one does. */
	evp_buf_reset(&in);
	put_chunk(&in, 1, false, "a", 1);
	collect(&w, in.data, in.len, 2000, &out, &rc);
	evp_buf_reset(&in);
	put_chunk(&in, 2, false, "a", 1);
	collect(&w, in.data, in.len, 3000, &out, &rc);
	evp_buf_reset(&in);
	put_chunk(&in, 1, false, "b", 1);
	collect(&w, in.data, in.len, 50000, &out, &rc);
	assert_true(evp_wire_deadline(&w) == 62000);
	evp_buf_reset(&in);
	put_chunk(&in, 1, true, "c", 1);
	collect(&w, in.data, in.len, 51000, &out, &rc);
	assert_true(evp_wire_deadline(&w) == 63000);
	assert_int_equal(evp_wire_check(&w, 63000), -1);
	assert_string_equal(evp_wire_error(&w), "chunk stream not finished in time");
	evp_wire_free(&w);
	evp_buf_free(&in);
	evp_buf_free(&out);
}

/* Sends a message of n bytes in three parts through frames of max_frame and back. */
static void
send_and_parse(size_t n, size_t max_frame, size_t expected_frames)
{
	evp_blob_t *blob = evp_blob_alloc(n);
	evp_parts_t parts = {.n = 3,.len = n};
	evp_wire_out_t out;
	evp_wire_frame_t frame;
	evp_wire_t	w;
	evp_blob_t *message = NULL;
	size_t		frames = 0;
	size_t		cut1 = n / 3;
	size_t		cut2 = n / 3 * 2;

	for (size_t i = 0; i < n; i++)
		blob->data[i] = (uint8_t) (i * 7 + i / 251);
	parts.part[0] = (evp_slice_t) {.owner = evp_blob_ref(blob),.p = blob->data,.n = cut1};
	parts.part[1] = (evp_slice_t) {.owner = evp_blob_ref(blob),.p = blob->data + cut1,.n = cut2 - cut1};
	parts.part[2] = (evp_slice_t) {.owner = evp_blob_ref(blob),.p = blob->data + cut2,.n = n - cut2};
	evp_wire_out_init(&out, &parts);
	assert_int_equal(parts.n, 0);
	out.max_frame = max_frame;
	evp_wire_init(&w);
	while (evp_wire_out_next(&out, &frame))
	{
		size_t		len = frame.head_len;
		const uint8_t *p = frame.head;
		size_t		left = frame.head_len;

		frames++;
		assert_null(message);
		evp_wire_feed(&w, &p, &left, 0, &message);
		for (unsigned i = 0; i < frame.n; i++)
		{
			p = frame.part[i].p;
			left = frame.part[i].n;
			len += left;
			assert_null(message);
			assert_true(evp_wire_feed(&w, &p, &left, 0, &message) >= 0);
			assert_int_equal(left, 0);
		}
		assert_int_equal(len, frame.len);
		assert_true(len - 4 <= max_frame);
	}
	assert_int_equal(frames, expected_frames);
	assert_non_null(message);
	assert_int_equal(message->len, n);
	assert_memory_equal(message->data, blob->data, n);
	evp_blob_unref(message);
	evp_wire_free(&w);
	evp_wire_out_free(&out);
	assert_int_equal(blob->refs, 1);
	evp_blob_unref(blob);
}

static void
test_send(void **state)
{
	(void) state;
	send_and_parse(0, 100, 1);
	send_and_parse(1, 100, 1);
	send_and_parse(99, 100, 1);
	send_and_parse(100, 100, 2);
	send_and_parse(164, 100, 2);
	send_and_parse(165, 100, 3);
	send_and_parse(EVP_WIRE_MAX_FRAME - 1, EVP_WIRE_MAX_FRAME, 1);
	send_and_parse(EVP_WIRE_MAX_FRAME, EVP_WIRE_MAX_FRAME, 2);
	send_and_parse(EVP_WIRE_MAX_CHUNK * 2, EVP_WIRE_MAX_FRAME, 2);
	send_and_parse(EVP_WIRE_MAX_CHUNK * 2 + 1, EVP_WIRE_MAX_FRAME, 3);
	assert_int_equal(EVP_WIRE_MAX_CHUNK, EVP_WIRE_MAX_FRAME - 18);
}

static void
test_interleaved_send(void **state)
{
	evp_wire_out_t out[2];
	evp_wire_frame_t frame;
	evp_buf_t	bytes;
	evp_buf_t	messages;
	const char *error;
	bool		more = true;

	(void) state;
	evp_buf_init(&bytes, SIZE_MAX);
	for (int i = 0; i < 2; i++)
	{
		evp_parts_t parts;
		evp_blob_t *blob = evp_blob_alloc(1000);

		memset(blob->data, 'a' + i, 1000);
		evp_parts_blob(&parts, blob);
		evp_wire_out_init(&out[i], &parts);
		out[i].max_frame = 100;
	}
	while (more)
	{
		more = false;
		for (int i = 0; i < 2; i++)
			if (evp_wire_out_next(&out[i], &frame))
			{
				more = true;
				evp_buf_append(&bytes, frame.head, frame.head_len);
				for (unsigned k = 0; k < frame.n; k++)
					evp_buf_append(&bytes, frame.part[k].p, frame.part[k].n);
			}
	}
	assert_int_equal(parse(bytes.data, bytes.len, &messages, &error), 0);
	assert_int_equal(messages.len, 2 * 1008);
	assert_int_equal(messages.data[8], 'a');
	assert_int_equal(messages.data[1008 + 8], 'b');
	evp_buf_free(&messages);
	evp_buf_free(&bytes);
	evp_wire_out_free(&out[0]);
	evp_wire_out_free(&out[1]);
}

static void
test_frame_to_buffer(void **state)
{
	evp_buf_t	b;

	(void) state;
	evp_buf_init(&b, 100);
	assert_true(evp_wire_frame(&b, "abc", 3));
	assert_int_equal(b.len, 8);
	assert_memory_equal(b.data, "\0\0\0\4\0abc", 8);
	assert_false(evp_wire_frame(&b, b.data, 95));
	evp_buf_free(&b);
}

static void
test_mutations(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	uint64_t	seed = 4711;
	evp_buf_t	in;

	(void) state;
	for (int i = 0; i < 300; i++)
	{
		evp_buf_t	out;
		evp_blob_t *blob;
		const char *error;

		if (i % 50 == 0)
		{
			if (i > 0)
				evp_buf_free(&in);
			random_input(&in, golden, n, &seed);
		}
		blob = unit_mutate(in.data, in.len, &seed);
		if (parse(blob->data, blob->len, &out, &error) < 0)
			assert_non_null(error);
		else
			assert_null(error);
		evp_buf_free(&out);
		evp_blob_unref(blob);
	}
	evp_buf_free(&in);
	unit_golden_free(golden, n);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_frames),
		cmocka_unit_test(test_error_stays),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_any_portions),
		cmocka_unit_test(test_claims_allocate_nothing),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_send),
		cmocka_unit_test(test_interleaved_send),
		cmocka_unit_test(test_frame_to_buffer),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
