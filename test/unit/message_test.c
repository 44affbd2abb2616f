/*
 * message_test.c
 *    Messages: the recorded ones, other forms of the same, and bad ones.
 */
#include "unit.h"

#include "cbor.h"
#include "message.h"
#include "uuid.h"

static void
test_golden_round_trip(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	size_t		of_type[EVP_NTF + 1] = {0};

	(void) state;
	for (size_t i = 0; i < n; i++)
	{
		evp_message_t m;
		const char *reason = NULL;
		evp_buf_t	b;

		assert_int_equal(golden[i].body->data[0], EVP_WIRE_FULL);
		if (evp_message_decode(&m, golden[i].message, &reason) != 0)
			fail_msg("%s: %s", golden[i].name, reason);
		of_type[m.type]++;
		assert_true(m.has_correlation);
		evp_buf_init(&b, SIZE_MAX);
		assert_true(evp_message_encode(&b, &m));
		if (b.len != golden[i].message->len || memcmp(b.data, golden[i].message->data, b.len) != 0)
			fail_msg("%s: encoded differently", golden[i].name);
		evp_buf_free(&b);
		evp_message_free(&m);
		assert_int_equal(golden[i].message->refs, 1);
	}
	for (int t = 0; t <= EVP_NTF; t++)
		assert_true(of_type[t] > 0);
	unit_golden_free(golden, n);
}

static void
test_fields(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	evp_message_t m;
	const char *reason;
	char		text[EVP_UUID_TEXT_LEN + 1];

	(void) state;
	assert_int_equal(evp_message_decode(&m, unit_golden_find(golden, n, "001-")->message, &reason), 0);
	assert_int_equal(m.type, EVP_HEL);
	evp_uuid_format(m.correlation, text);
	assert_string_equal(text, "33ec6a6c-0dff-454d-940c-b5716c30eddd");
	assert_int_equal(m.protocol_version, 2);
	assert_slice(m.bundle_id, "orders-command");
	assert_slice(m.instance_id, "d8da6820-8b43-401f-8b32-1f814a6807c0");
	assert_slice(m.bundle_version, "1");
	assert_slice(m.auth_token, NULL);
	assert_int_equal(m.n_capabilities, 0);
	assert_int_equal(m.timestamp_ms, 1795245613582);
	evp_message_free(&m);

	assert_int_equal(evp_message_decode(&m, unit_golden_find(golden, n, "025-")->message, &reason), 0);
	assert_int_equal(m.type, EVP_REQ);
	assert_slice(m.source_bundle_id, "orders-invoker");
	assert_slice(m.source_bundle_version, "1");
	assert_slice(m.payload_type, "AuditMark");
	assert_int_equal(m.timeout_ms, 30000);
	assert_int_equal(m.payload.n, 658);
	assert_ptr_equal(m.payload.owner, m.blob);
	evp_message_free(&m);

	assert_int_equal(evp_message_decode(&m, unit_golden_find(golden, n, "102-")->message, &reason), 0);
	assert_int_equal(m.type, EVP_RSP);
	assert_slice(m.payload_type, NULL);
	assert_null(m.payload.p);
	assert_true(m.has_failure);
	assert_slice(m.failure_class, "java.lang.IllegalStateException");
	assert_slice(m.failure_message, "no handler for Nobody");
	evp_message_free(&m);

	assert_int_equal(evp_message_decode(&m, unit_golden_find(golden, n, "103-")->message, &reason), 0);
	assert_int_equal(m.type, EVP_PON);
	assert_int_equal(m.sequence, 7);
	assert_int_equal(m.origin_timestamp_ms, 123);
	evp_message_free(&m);

	assert_int_equal(evp_message_decode(&m, unit_golden_find(golden, n, "100-")->message, &reason), 0);
	assert_slice(m.code, "PROTOCOL_VERSION");
	assert_slice(m.reason, "server speaks v2, client offered v1");
	evp_message_free(&m);
	unit_golden_free(golden, n);
}

/* Definite lengths, a UUID as text, other order, unknown keys (one of them no
 * text), texts and bytes in pieces, "@t" at the end, keys that are missing. */
static void
test_other_forms(void **state)
{
	evp_blob_t *blob;
	evp_buf_t	b;
	evp_message_t m;
	const char *reason = NULL;

	(void) state;
	evp_buf_init(&b, 10000);
	evp_buf_append_u8(&b, 0xa7);	/* map of 7 pairs */
	evp_cbor_put_str(&b, "payload");
	evp_buf_append(&b, "\x5f\x42\x01\x02\x41\x03\xff", 7);
	evp_cbor_put_str(&b, "unknown");
	evp_buf_append(&b, "\xbf\x61\x78\x9f\x01\xff\xff", 7);
	evp_cbor_put_int(&b, 5);
	evp_cbor_put_int(&b, 6);
	evp_cbor_put_str(&b, "sourceBundleId");
	evp_buf_append(&b, "\x7f\x61" "a\x62" "bc\xff", 7);
	evp_cbor_put_str(&b, "correlationId");
	evp_cbor_put_str(&b, "33EC6A6C-0dff-454d-940c-b5716c30eddd");
	evp_cbor_put_str(&b, "payloadType");
	evp_cbor_put_null(&b);
	evp_cbor_put_str(&b, "@t");
	evp_cbor_put_str(&b, "REQ");
	blob = evp_blob_from_buf(&b);
	if (evp_message_decode(&m, blob, &reason) != 0)
		fail_msg("%s", reason);
	assert_int_equal(m.type, EVP_REQ);
	assert_true(m.has_correlation);
	assert_int_equal(m.correlation[0], 0x33);
	assert_int_equal(m.correlation[15], 0xdd);
	assert_int_equal(m.payload.n, 3);
	assert_memory_equal(m.payload.p, "\1\2\3", 3);
	assert_slice(m.source_bundle_id, "abc");
	assert_slice(m.payload_type, NULL);
	assert_slice(m.source_instance_id, NULL);
	assert_int_equal(m.timeout_ms, 0);

	/* A joined text outlives its message for whoever holds it. */
	{
		evp_slice_t kept = evp_slice_ref(m.source_bundle_id);

		evp_message_free(&m);
		assert_slice(kept, "abc");
		evp_slice_unref(&kept);
	}
	evp_blob_unref(blob);
}

/* Every field of every type, each with a value of its own, there and back. */
static void
test_every_field(void **state)
{
	(void) state;
	for (int type = EVP_HEL; type <= EVP_NTF; type++)
	{
		const evp_message_t sent = {
			.type = (evp_message_type_t) type,
			.has_correlation = true,
			.correlation = "0123456789abcde",
			.timestamp_ms = 1001,
			.protocol_version = 1002,
			.bundle_id = evp_slice_str("bundle"),
			.instance_id = evp_slice_str("instance"),
			.bundle_version = evp_slice_str("version"),
			.auth_token = evp_slice_str("token"),
			.capabilities = {evp_slice_str("capability")},
			.n_capabilities = 1,
			.code = evp_slice_str("code"),
			.reason = evp_slice_str("reason"),
			.sequence = 1003,
			.origin_timestamp_ms = 1004,
			.source_bundle_id = evp_slice_str("source bundle"),
			.source_instance_id = evp_slice_str("source instance"),
			.source_bundle_version = evp_slice_str("source version"),
			.timeout_ms = 1005,
			.payload_type = evp_slice_str("payload type"),
			.payload = evp_slice_str("payload"),
			.has_failure = true,
			.failure_class = evp_slice_str("failure class"),
			.failure_message = evp_slice_str("failure message"),
			.failure_stack = evp_slice_str("failure stack"),
		};
		const bool	hello = type == EVP_HEL;
		const bool	welcome = type == EVP_WLC;
		const bool	beat = type == EVP_PNG || type == EVP_PON;
		const bool	request = type == EVP_REQ;
		const bool	loaded = request || type == EVP_RSP || type == EVP_NTF;
		evp_message_t m;
		evp_buf_t	b;
		evp_blob_t *blob;
		const char *reason = NULL;

		evp_buf_init(&b, 10000);
		assert_true(evp_message_encode(&b, &sent));
		blob = evp_blob_from_buf(&b);
		assert_int_equal(evp_message_decode(&m, blob, &reason), 0);
		assert_int_equal(m.type, type);
		assert_memory_equal(m.correlation, sent.correlation, 16);
		assert_int_equal(m.timestamp_ms, 1001);
		assert_int_equal(m.protocol_version, hello || welcome ? 1002 : 0);
		assert_slice(m.bundle_id, hello ? "bundle" : NULL);
		assert_slice(m.instance_id, hello || welcome ? "instance" : NULL);
		assert_slice(m.bundle_version, hello ? "version" : NULL);
		assert_slice(m.auth_token, hello ? "token" : NULL);
		assert_slice(m.capabilities[0], hello || welcome ? "capability" : NULL);
		assert_slice(m.code, type == EVP_REJ ? "code" : NULL);
		assert_slice(m.reason, type == EVP_REJ ? "reason" : NULL);
		assert_int_equal(m.sequence, beat ? 1003 : 0);
		assert_int_equal(m.origin_timestamp_ms, type == EVP_PON ? 1004 : 0);
		assert_slice(m.source_bundle_id, request ? "source bundle" : NULL);
		assert_slice(m.source_instance_id, request ? "source instance" : NULL);
		assert_slice(m.source_bundle_version, request ? "source version" : NULL);
		assert_int_equal(m.timeout_ms, request ? 1005 : 0);
		assert_slice(m.payload_type, loaded ? "payload type" : NULL);
		assert_slice(m.payload, loaded ? "payload" : NULL);
		assert_int_equal(m.has_failure, type == EVP_RSP);
		assert_slice(m.failure_class, type == EVP_RSP ? "failure class" : NULL);
		assert_slice(m.failure_message, type == EVP_RSP ? "failure message" : NULL);
		assert_slice(m.failure_stack, type == EVP_RSP ? "failure stack" : NULL);
		evp_message_free(&m);
		evp_blob_unref(blob);
	}
}

static void
bad(const char *hex, const char *expected)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_message_t m;
	const char *reason = NULL;

	assert_int_equal(evp_message_decode(&m, blob, &reason), -1);
	assert_string_equal(reason, expected);
	assert_int_equal(blob->refs, 1);
	evp_blob_unref(blob);
}

static void
test_bad(void **state)
{
	(void) state;
	bad("", "CBOR is cut short");
	bad("80", "not a map");
	bad("a0", "message without a type");
	bad("a1 624074 63585858", "unknown message type");
	bad("a1 624074 f6", "@t is not a text");
	bad("a1 624074 01", "@t is not a text");
	bad("bf 624074 63504e47", "CBOR is cut short");
	bad("bf 624074 63504e47 ff 00", "bytes behind the CBOR item");
	/* sequence: "1"; correlationId of 15 bytes; correlationId: "x"; payload: "" */
	bad("a2 624074 63504e47 6873657175656e6365 6131", "sequence is not an integer");
	bad("a2 624074 63504e47 6d636f7272656c6174696f6e4964 4f000102030405060708090a0b0c0d0e", "correlationId is not a UUID");
	bad("a2 624074 63504e47 6d636f7272656c6174696f6e4964 6178", "correlationId is not a UUID");
	bad("a2 624074 63524551 677061796c6f6164 60", "payload is not a byte string");
	/* bundleId: "a\0"; failure: 1; capabilities: {} */
	bad("a2 624074 6348454c 6862756e646c654964 626100", "U+0000 in a name");
	bad("a2 624074 63525350 676661696c757265 01", "failure is not a map of texts");
	bad("a2 624074 6348454c 6c6361706162696c6974696573 a0", "capabilities is not an array of texts");
	bad("a2 624074 63504e47 9f9f9f9f9f", "CBOR is cut short");
}

static void
test_capabilities(void **state)
{
	evp_message_t hello = {.type = EVP_HEL,.n_capabilities = 2};
	evp_message_t m;
	evp_buf_t	b;
	evp_blob_t *blob;
	const char *reason;

	(void) state;
	hello.capabilities[0] = evp_slice_str("one");
	hello.capabilities[1] = evp_slice_str("two");
	evp_buf_init(&b, 1000);
	assert_true(evp_message_encode(&b, &hello));
	blob = evp_blob_from_buf(&b);
	assert_int_equal(evp_message_decode(&m, blob, &reason), 0);
	assert_int_equal(m.n_capabilities, 2);
	assert_slice(m.capabilities[1], "two");
	assert_false(m.has_correlation);
	evp_message_free(&m);
	evp_blob_unref(blob);

	/* A hundred of them: what is beyond the bound is ignored. */
	evp_buf_init(&b, 10000);
	evp_cbor_open_map(&b);
	evp_cbor_put_str(&b, "capabilities");
	evp_cbor_open_array(&b);
	for (int i = 0; i < 100; i++)
		evp_cbor_put_str(&b, "many");
	evp_cbor_close(&b);
	evp_cbor_put_str(&b, "@t");
	evp_cbor_put_str(&b, "HEL");
	evp_cbor_close(&b);
	blob = evp_blob_from_buf(&b);
	assert_int_equal(evp_message_decode(&m, blob, &reason), 0);
	assert_int_equal(m.n_capabilities, EVP_MAX_CAPABILITIES);
	evp_message_free(&m);
	evp_blob_unref(blob);
}

static void
test_pack(void **state)
{
	static const evp_message_type_t types[] = {EVP_REQ, EVP_RSP, EVP_NTF, EVP_PNG};

	(void) state;
	for (size_t t = 0; t < 4; t++)
		for (size_t size = 0; size <= 100000; size += 50000)
			for (int owned = 0; owned < 2; owned++)
			{
				evp_blob_t *payload = evp_blob_alloc(size);
				evp_message_t m = {.type = types[t],.has_correlation = true,.timestamp_ms = 5};
				evp_parts_t parts;
				evp_buf_t	whole;
				size_t		at = 0;

				memset(payload->data, 'p', size);
				m.payload = evp_slice_blob(payload);
				if (!owned)
					m.payload.owner = NULL;
				evp_buf_init(&whole, SIZE_MAX);
				assert_true(evp_message_encode(&whole, &m));
				assert_true(evp_message_pack(&parts, &m));
				assert_int_equal(parts.len, whole.len);
				/* A large payload that has an owner is not copied. */
				assert_int_equal(parts.n, owned && size > 0 && types[t] != EVP_PNG ? 3 : 1);
				if (parts.n == 3)
					assert_ptr_equal(parts.part[1].p, payload->data);
				evp_blob_unref(payload);
				for (unsigned i = 0; i < parts.n; i++)
				{
					assert_memory_equal(parts.part[i].p, whole.data + at, parts.part[i].n);
					at += parts.part[i].n;
				}
				assert_int_equal(at, whole.len);
				{
					evp_parts_t second;

					evp_parts_ref(&second, &parts);
					evp_parts_free(&parts);
					assert_memory_equal(second.part[0].p, whole.data, second.part[0].n);
					evp_parts_free(&second);
				}
				evp_buf_free(&whole);
			}
}

static void
test_mutations(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	uint64_t	seed = 99;
	size_t		decoded = 0;

	(void) state;
	for (int i = 0; i < 20000; i++)
	{
		const unit_golden_t *g = &golden[unit_random(&seed) % n];
		evp_blob_t *blob = unit_mutate(g->message->data, g->message->len, &seed);
		evp_message_t m;
		const char *reason = NULL;

		if (evp_message_decode(&m, blob, &reason) == 0)
		{
			evp_buf_t	b;

			decoded++;
			evp_buf_init(&b, SIZE_MAX);
			assert_true(evp_message_encode(&b, &m));
			evp_buf_free(&b);
			evp_message_free(&m);
		}
		else
			assert_non_null(reason);
		evp_blob_unref(blob);
	}
	assert_true(decoded > 100);	/* else the changes are too coarse to test anything */

	/* Every truncation is an error. */
	for (size_t len = 0; len < golden[0].message->len; len++)
	{
		evp_blob_t *blob = evp_blob_new(golden[0].message->data, len);
		evp_message_t m;
		const char *reason = NULL;

		assert_int_equal(evp_message_decode(&m, blob, &reason), -1);
		evp_blob_unref(blob);
	}
	unit_golden_free(golden, n);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden_round_trip),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_every_field),
		cmocka_unit_test(test_other_forms),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_pack),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
