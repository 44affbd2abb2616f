/*
 * link_proto_test.c
 *    Frames between proxies, and the proofs at their beginning.
 */
#include "unit.h"

#include <stdlib.h>

#include "link_proto.h"

/* Feeds bytes in portions of a size; gives the number of frames, -1 on an error. */
static int
feed(evp_link_reader_t *r, const uint8_t *p, size_t n, size_t portion, evp_link_frame_t *frames, evp_blob_t **heads,
	 evp_blob_t **messages, int max, const char **reason)
{
	int			count = 0;

	while (n > 0)
	{
		size_t		part = portion < n ? portion : n;
		const uint8_t *from = p;
		int			rc;

		p += part;
		n -= part;
		do
		{
			rc = evp_link_feed(r, &from, &part, &heads[count], &messages[count], reason);
			if (rc < 0)
				return -1;
			if (rc > 0)
			{
				if (evp_link_decode(&frames[count], heads[count], messages[count], reason) != 0)
				{
					evp_blob_unref(heads[count]);
					evp_blob_unref(messages[count]);
					return -1;
				}
				count++;
				assert_true(count < max);
			}
		} while (rc > 0);
		assert_int_equal(part, 0);
	}
	return count;
}

static void
put_message(evp_buf_t *b, const evp_link_frame_t *f, const char *message)
{
	assert_true(evp_link_put(b, f, strlen(message)));
	assert_true(evp_buf_append_str(b, message));
}

static void
test_frames(void **state)
{
	evp_link_frame_t call = {.type = EVP_LINK_CALL,.id = {1, 2, 3},.session_no = 77,.timeout_ms = 30000,.bundle = evp_slice_str("shop"),
	.instance = evp_slice_str("shop-1")};
	uint8_t		nonce[EVP_LINK_NONCE] = {9};
	uint8_t		mac[EVP_LINK_MAC] = {8};
	evp_buf_t	b;

	(void) state;
	evp_buf_init(&b, 1 << 20);
	assert_true(evp_link_put(&b, &(evp_link_frame_t) {.type = EVP_LINK_HELLO,.nonce = nonce,.proxy_id = 5}, 0));
	assert_true(evp_link_put(&b, &(evp_link_frame_t) {.type = EVP_LINK_CHALLENGE,.nonce = nonce,.proxy_id = 6,.mac = mac}, 0));
	assert_true(evp_link_put(&b, &(evp_link_frame_t) {.type = EVP_LINK_PROOF,.mac = mac}, 0));
	assert_true(evp_link_put(&b, &(evp_link_frame_t) {.type = EVP_LINK_WELCOME}, 0));
	assert_true(evp_link_put(&b, &(evp_link_frame_t) {.type = EVP_LINK_PING}, 0));
	assert_true(evp_link_put(&b, &(evp_link_frame_t) {.type = EVP_LINK_RENAMED,.proxy_id = -7}, 0));
	put_message(&b, &call, "the request");
	assert_true(evp_link_put(&b, &(evp_link_frame_t) {.type = EVP_LINK_CANCEL,.id = {4}}, 0));
	put_message(&b, &(evp_link_frame_t) {.type = EVP_LINK_RESULT,.id = {5}}, "the response");
	assert_true(evp_link_put(&b, &(evp_link_frame_t) {.type = EVP_LINK_CUT,.id = {6},.session_no = 78}, 0));
	assert_true(evp_link_put(&b, &(evp_link_frame_t) {.type = EVP_LINK_REFUSED,.id = {7},.session_no = 79,.why = 2}, 0));
	put_message(&b, &(evp_link_frame_t) {.type = EVP_LINK_ANSWER,.bundle = evp_slice_str("b"),.instance = evp_slice_str("i")}, "late");

	for (size_t portion = 1; portion < 40; portion++)
	{
		evp_link_frame_t f[16];
		evp_blob_t *heads[16];
		evp_blob_t *messages[16];
		evp_link_reader_t r;
		const char *reason = NULL;

		evp_link_reader_init(&r);
		r.max_message = EVP_LINK_MAX_MESSAGE;
		assert_int_equal(feed(&r, b.data, b.len, portion, f, heads, messages, 16, &reason), 12);
		for (int i = 0; i < 12; i++)
			assert_int_equal(f[i].type, i + 1);
		assert_memory_equal(f[0].nonce, nonce, sizeof nonce);
		assert_int_equal(f[0].proxy_id, 5);
		assert_memory_equal(f[1].mac, mac, sizeof mac);
		assert_int_equal(f[5].proxy_id, -7);
		assert_memory_equal(f[6].id, call.id, 16);
		assert_int_equal(f[6].session_no, 77);
		assert_int_equal(f[6].timeout_ms, 30000);
		assert_slice(f[6].bundle, "shop");
		assert_slice(f[6].instance, "shop-1");
		assert_slice(evp_slice_blob(f[6].message), "the request");
		assert_slice(evp_slice_blob(f[8].message), "the response");
		assert_int_equal(f[9].session_no, 78);
		assert_int_equal(f[10].why, 2);
		assert_slice(f[11].instance, "i");
		assert_slice(evp_slice_blob(f[11].message), "late");
		for (int i = 0; i < 12; i++)
		{
			evp_blob_unref(heads[i]);
			evp_blob_unref(messages[i]);
		}
		evp_link_reader_free(&r);
	}
	evp_buf_free(&b);
}

/* What must not be taken, and why. */
static void
refused(const void *p, size_t n, size_t max_message, const char *why)
{
	evp_link_frame_t f[4];
	evp_blob_t *heads[4];
	evp_blob_t *messages[4];
	evp_link_reader_t r;
	const char *reason = "";

	evp_link_reader_init(&r);
	r.max_message = max_message;
	assert_int_equal(feed(&r, p, n, n, f, heads, messages, 4, &reason), -1);
	assert_string_equal(reason, why);
	evp_link_reader_free(&r);
}

static void
refused_hex(const char *digits, const char *why)
{
	evp_blob_t *b = unit_hex(digits);

	refused(b->data, b->len, 1000, why);
	evp_blob_unref(b);
}

static void
test_refused(void **state)
{
	(void) state;
	refused("GET / HTTP/1.1\r\n\r\n", 18, 0, "frame too long");
	refused_hex("00000000 00000000", "empty frame");
	refused_hex("00000801 00000000", "frame too long");
	refused_hex("00000001 000003e9", "frame too long");
	refused_hex("00000001 00000000 00", "frame of unknown type");
	refused_hex("00000001 00000000 0d", "frame of unknown type");
	refused_hex("00000001 00000000 01", "not a proxy");
	refused_hex("00000006 00000000 01 4556504c 02", "another version of the protocol between proxies");
	refused_hex("00000006 00000000 01 4556504c 01", "malformed frame");
	/* Bytes behind the fields, a message where none belongs, none where one belongs, a name with a zero byte, no name. */
	refused_hex("00000002 00000000 05 00", "malformed frame");
	refused_hex("00000001 00000001 05 00", "malformed frame");
	refused_hex("00000011 00000000 09 00000000000000000000000000000000", "malformed frame");
	refused_hex("00000007 00000001 0c 0001 00 0001 61 ff", "malformed frame");
	refused_hex("00000006 00000001 0c 0000 0001 61 ff", "malformed frame");
}

/* A length that is claimed allocates nothing. */
static void
test_growth(void **state)
{
	evp_link_reader_t r;
	evp_blob_t *lengths = unit_hex("00000011 12c00000 09 0000000000000000000000000000");
	evp_blob_t *head;
	evp_blob_t *message;
	const uint8_t *p = lengths->data;
	size_t		n = lengths->len;
	const char *reason;

	(void) state;
	evp_link_reader_init(&r);
	r.max_message = EVP_LINK_MAX_MESSAGE;
	assert_int_equal(evp_link_feed(&r, &p, &n, &head, &message, &reason), 0);
	assert_true(r.head.cap + r.message.cap < 4096);
	evp_link_reader_free(&r);
	evp_blob_unref(lengths);
}

static void
test_bounds(void **state)
{
	char		name[EVP_LINK_MAX_KEY + 2];
	evp_buf_t	b;
	evp_link_frame_t f = {.type = EVP_LINK_ANSWER,.instance = evp_slice_str("i")};

	(void) state;
	memset(name, 'n', sizeof name);
	evp_buf_init(&b, 1 << 20);
	f.bundle = evp_slice_of(name, EVP_LINK_MAX_KEY);
	assert_true(evp_link_put(&b, &f, EVP_LINK_MAX_MESSAGE));
	assert_true(b.len - 8 <= EVP_LINK_MAX_HEAD);
	assert_false(evp_link_put(&b, &f, EVP_LINK_MAX_MESSAGE + 1));
	f.bundle = evp_slice_of(name, EVP_LINK_MAX_KEY + 1);
	assert_false(evp_link_put(&b, &f, 1));
	evp_buf_free(&b);
	f.bundle = evp_slice_of(name, 0);
	assert_false(evp_link_put(&b, &f, 1));
	evp_buf_free(&b);
}

static void
test_noise(void **state)
{
	evp_link_frame_t call = {.type = EVP_LINK_CALL,.id = {1},.bundle = evp_slice_str("shop"),.instance = evp_slice_str("shop-1")};
	uint64_t	random = 11;
	evp_buf_t	b;

	(void) state;
	evp_buf_init(&b, 1 << 20);
	for (int i = 0; i < 3; i++)
		put_message(&b, &call, "request");
	for (int i = 0; i < 20000; i++)
	{
		evp_blob_t *bad = unit_mutate(b.data, b.len, &random);
		evp_link_reader_t r;
		const uint8_t *p = bad->data;
		size_t		n = bad->len;
		evp_blob_t *head;
		evp_blob_t *message;
		evp_link_frame_t f;
		const char *reason;

		evp_link_reader_init(&r);
		r.max_message = 1000;
		while (evp_link_feed(&r, &p, &n, &head, &message, &reason) > 0)
		{
			if (evp_link_decode(&f, head, message, &reason) == 0 && f.type == EVP_LINK_CALL)
				assert_true(f.bundle.p > head->data && f.instance.p + f.instance.n <= head->data + head->len);
			evp_blob_unref(head);
			evp_blob_unref(message);
		}
		evp_link_reader_free(&r);
		evp_blob_unref(bad);
	}
	evp_buf_free(&b);
}

static void
test_proofs(void **state)
{
	static const uint8_t secret[32] = "a secret of the whole cluster...";
	static const uint8_t wrong[32] = "a secret of some other cluster..";
	evp_link_greeting_t g = {.dialler_nonce = {1},.acceptor_nonce = {2},.dialler_id = 3,.acceptor_id = 4};
	evp_link_greeting_t other;
	uint8_t		dialler[EVP_LINK_MAC];
	uint8_t		acceptor[EVP_LINK_MAC];

	(void) state;
	assert_true(evp_link_prove(&g, false, secret, sizeof secret, dialler));
	assert_true(evp_link_prove(&g, true, secret, sizeof secret, acceptor));
	assert_true(evp_link_proven(&g, false, secret, sizeof secret, dialler));
	assert_true(evp_link_proven(&g, true, secret, sizeof secret, acceptor));
	/* What one end says is no proof in the other's role, under another secret, or in another conversation. */
	assert_false(evp_link_proven(&g, true, secret, sizeof secret, dialler));
	assert_false(evp_link_proven(&g, false, secret, sizeof secret, acceptor));
	assert_false(evp_link_proven(&g, false, wrong, sizeof wrong, dialler));
	other = g;
	other.dialler_nonce[31] = 1;
	assert_false(evp_link_proven(&other, false, secret, sizeof secret, dialler));
	other = g;
	other.acceptor_nonce[31] = 1;
	assert_false(evp_link_proven(&other, false, secret, sizeof secret, dialler));
	other = g;
	other.dialler_id = 5;
	assert_false(evp_link_proven(&other, false, secret, sizeof secret, dialler));
	other = g;
	other.acceptor_id = 5;
	assert_false(evp_link_proven(&other, false, secret, sizeof secret, dialler));
	for (size_t i = 0; i < sizeof dialler; i++)
	{
		dialler[i] ^= 1;
		assert_false(evp_link_proven(&g, false, secret, sizeof secret, dialler));
		dialler[i] ^= 1;
	}
	/* Without a secret nothing is proven. */
	/* Over TLS a proof is good for that connection only, and not without. */
	other = g;
	other.bound = true;
	assert_false(evp_link_proven(&other, false, secret, sizeof secret, dialler));
	assert_true(evp_link_prove(&other, false, secret, sizeof secret, dialler));
	assert_true(evp_link_proven(&other, false, secret, sizeof secret, dialler));
	assert_false(evp_link_proven(&g, false, secret, sizeof secret, dialler));
	other.binding[EVP_LINK_BINDING - 1] = 1;
	assert_false(evp_link_proven(&other, false, secret, sizeof secret, dialler));
	assert_false(evp_link_prove(&g, false, NULL, 0, dialler));
	assert_false(evp_link_proven(&g, false, secret, 0, dialler));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_proofs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
