/*
 * discovery_test.c
 *    Registration and discovery payloads.
 */
#include "unit.h"

#include "cbor.h"
#include "discovery.h"
#include "json.h"

/* The payload of a recorded notification; the caller unrefs it. */
static evp_slice_t
payload_of(const unit_golden_t *golden, size_t n, const char *prefix)
{
	evp_message_t m;
	const char *reason;
	evp_slice_t payload;

	assert_int_equal(evp_message_decode(&m, unit_golden_find(golden, n, prefix)->message, &reason), 0);
	payload = evp_slice_ref(m.payload);
	evp_message_free(&m);
	return payload;
}

static void
test_registrations(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	evp_registration_t g;
	const char *reason;
	evp_slice_t payload = payload_of(golden, n, "003-");

	(void) state;
	assert_int_equal(evp_registration_parse(&g, payload, &reason), 0);
	evp_slice_unref(&payload);
	assert_int_equal(g.bundle_version, 1);
	assert_int_equal(g.n_names, 19);
	assert_slice(g.names[0], "OrderCreate");
	assert_slice(g.names[3], "void");
	assert_slice(g.names[18], "CustomerNotified");
	evp_registration_free(&g);

	payload = payload_of(golden, n, "023-");
	assert_int_equal(evp_registration_parse(&g, payload, &reason), 0);
	evp_slice_unref(&payload);
	assert_int_equal(g.n_names, 0);
	evp_registration_free(&g);
	unit_golden_free(golden, n);
}

/* A registration of n names of len bytes. */
static int
register_many(size_t n, size_t len, size_t *got, const char **reason)
{
	evp_buf_t	b;
	evp_registration_t g;
	char		name[1000];
	int			rc;

	memset(name, 'n', sizeof(name));
	evp_buf_init(&b, SIZE_MAX);
	evp_cbor_open_map(&b);
	evp_cbor_put_str(&b, "handlerPayloadTypes");
	evp_cbor_open_array(&b);
	for (size_t i = 0; i < n; i++)
		evp_cbor_put_text(&b, name, len);
	evp_cbor_close(&b);
	evp_cbor_put_str(&b, "bundleVersion");
	evp_cbor_put_int(&b, 7);
	evp_cbor_close(&b);
	rc = evp_registration_parse(&g, evp_slice_of(b.data, b.len), reason);
	evp_buf_free(&b);
	if (rc == 0)
	{
		/* The parser took a copy of what has no owner. */
		assert_int_equal(g.bundle_version, 7);
		assert_int_equal(g.names[n - 1].p[len - 1], 'n');
		*got = g.n_names;
		evp_registration_free(&g);
	}
	return rc;
}

static void
test_bounds(void **state)
{
	const char *reason = NULL;
	size_t		got = 0;

	(void) state;
	assert_int_equal(register_many(EVP_MAX_NAMES, 3, &got, &reason), 0);
	assert_int_equal(got, EVP_MAX_NAMES);
	assert_int_equal(register_many(EVP_MAX_NAMES + 1, 3, &got, &reason), -1);
	assert_string_equal(reason, "too many payload names");
	assert_int_equal(register_many(1, EVP_MAX_NAME_LEN, &got, &reason), 0);
	assert_int_equal(register_many(1, EVP_MAX_NAME_LEN + 1, &got, &reason), -1);
	assert_string_equal(reason, "payload name is too long");
}

static void
bad(const char *hex, const char *expected)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_registration_t g;
	const char *reason = NULL;

	assert_int_equal(evp_registration_parse(&g, evp_slice_blob(blob), &reason), -1);
	assert_string_equal(reason, expected);
	assert_int_equal(blob->refs, 1);
	evp_blob_unref(blob);
}

static void
test_bad(void **state)
{
	evp_registration_t g;
	const char *reason = NULL;

	(void) state;
	bad("80", "not a map");
	bad("", "CBOR is cut short");
	bad("a1 7368616e646c65725061796c6f61645479706573 81 01", "not a text");
	bad("a1 7368616e646c65725061796c6f61645479706573 81 6100", "U+0000 in a name");
	bad("a1 6d62756e646c6556657273696f6e 6131", "not an integer");
	assert_int_equal(evp_registration_parse(&g, (evp_slice_t) {0}, &reason), -1);
	assert_string_equal(reason, "no payload");
}

static void
test_golden_discoveries(void **state)
{
	static const char *const prefixes[] = {"004-", "010-", "015-", "024-"};
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);

	(void) state;
	for (size_t i = 0; i < 4; i++)
	{
		evp_slice_t payload = payload_of(golden, n, prefixes[i]);
		evp_buf_t	json;
		const char *reason = NULL;
		int64_t		version = -1;

		evp_buf_init(&json, (size_t) 64 * 1024 * 1024);
		assert_int_equal(evp_discovery_to_json(&json, payload, &version, &reason), 0);
		assert_int_equal(version, 1);
		assert_true(evp_json_valid(evp_slice_of(json.data, json.len)));
		assert_memory_equal(json.data, "{\"bundleVersion\":1,\"description\":\"orders-", 41);
		if (i == 3)
		{
			evp_buf_append_u8(&json, 0);
			assert_non_null(strstr((char *) json.data, "\"invokedQueries\":{\"38\":\"OrderList\"}"));
			assert_non_null(strstr((char *) json.data, "\"returnType\":null,\"returnIsMultiple\":false"));
		}
		evp_buf_free(&json);
		evp_slice_unref(&payload);
	}
	unit_golden_free(golden, n);
}

static void
discovery_fails(const char *hex, size_t max, const char *expected)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_buf_t	json;
	const char *reason = NULL;
	int64_t		version;

	evp_buf_init(&json, max);
	assert_int_equal(evp_discovery_to_json(&json, evp_slice_blob(blob), &version, &reason), -1);
	assert_string_equal(reason, expected);
	evp_buf_free(&json);
	evp_blob_unref(blob);
}

static void
test_bad_discovery(void **state)
{
	(void) state;
	discovery_fails("80", 100, "discovery is not a map");
	discovery_fails("bf", 100, "CBOR is cut short");
	discovery_fails("a0 00", 100, "bytes behind the CBOR item");
	discovery_fails("a1 6161 6162", 5, "discovery is too long");
}

static void
test_mutations(void **state)
{
	size_t		n;
	unit_golden_t *golden = unit_golden_load(&n);
	uint64_t	seed = 5;
	evp_slice_t payloads[2];

	(void) state;
	payloads[0] = payload_of(golden, n, "004-");
	payloads[1] = payload_of(golden, n, "003-");
	for (int i = 0; i < 4000; i++)
	{
		evp_slice_t p = payloads[i % 2];
		evp_blob_t *blob = unit_mutate(p.p, p.n, &seed);
		evp_registration_t g;
		evp_buf_t	json;
		const char *reason = NULL;
		int64_t		version;

		evp_buf_init(&json, (size_t) 64 * 1024 * 1024);
		if (evp_discovery_to_json(&json, evp_slice_blob(blob), &version, &reason) == 0)
			assert_true(evp_json_valid(evp_slice_of(json.data, json.len)));
		else
			assert_non_null(reason);
		evp_buf_free(&json);
		if (evp_registration_parse(&g, evp_slice_blob(blob), &reason) == 0)
			evp_registration_free(&g);
		evp_blob_unref(blob);
	}
	evp_slice_unref(&payloads[0]);
	evp_slice_unref(&payloads[1]);
	unit_golden_free(golden, n);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registrations),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_golden_discoveries),
		cmocka_unit_test(test_bad_discovery),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests_name("discovery", tests, NULL, NULL);
}
