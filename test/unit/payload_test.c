/*
 * payload_test.c
 *    Java payloads to stored form and back to the very same text; metadata.
 */
#include "unit.h"

#include "cbor.h"
#include "graph.h"
#include "json.h"
#include "payload.h"

/* Writes a stored payload and reads the two texts back. */
static void
rebuild(evp_slice_t klass, evp_slice_t type, evp_slice_t data, evp_buf_t *b, evp_slice_t *object, evp_slice_t *object_class)
{
	evp_cbor_t	r;
	evp_slice_t key;

	evp_buf_init(b, SIZE_MAX);
	evp_cbor_open_map(b);
	evp_payload_put(b, klass, type, data);
	evp_cbor_close(b);
	evp_cbor_init(&r, evp_slice_of(b->data, b->len), NULL);
	assert_true(evp_cbor_enter_map(&r));
	assert_true(evp_cbor_more(&r) && evp_cbor_text(&r, &key));
	assert_slice(key, "serializedObject");
	assert_true(evp_cbor_text(&r, object));
	assert_true(evp_cbor_more(&r) && evp_cbor_text(&r, &key));
	assert_slice(key, "objectClass");
	assert_true(evp_cbor_text(&r, object_class));
	assert_false(evp_cbor_more(&r));
	assert_true(evp_cbor_done(&r));
}

/* object and class are stored as type, class, data, and come back as they were. */
static void
stored(const char *object, const char *object_class, const char *type, const char *klass, const char *data)
{
	evp_arena_t arena = {0};
	evp_payload_t p;
	const char *reason = NULL;
	evp_buf_t	b;
	evp_slice_t back;
	evp_slice_t back_class;

	assert_int_equal(evp_payload_split(&p, evp_slice_str(object), evp_slice_str(object_class), &arena, &reason), 1);
	assert_slice(p.type, type);
	assert_slice(p.klass, klass);
	assert_slice(p.data, data);
	rebuild(p.klass, p.type, p.data, &b, &back, &back_class);
	assert_slice(back, object);
	assert_slice(back_class, object_class);
	evp_buf_free(&b);
	evp_arena_free(&arena);
}

/* The same where all is kept as it is. */
static void
kept(const char *object, const char *object_class, const char *type)
{
	stored(object, object_class, type, object_class, object);
}

static void
test_split(void **state)
{
	(void) state;
	stored("[\"com.acme.Made\",{\"a\":1.10,\"b\":[{}]}]", "class com.acme.Made", "Made", "com.acme.Made", "{\"a\":1.10,\"b\":[{}]}");
	stored("[\"com.acme.Made\",{}]", "class com.acme.Made", "Made", "com.acme.Made", "{}");
	stored("[\"com.acme.Api$Made\",{ \"x\" : \"}\\\"{\" }]", "class com.acme.Api$Made", "Api$Made", "com.acme.Api$Made",
		   "{ \"x\" : \"}\\\"{\" }");
	stored("[\"Made\",{}]", "class Made", "Made", "Made", "{}");
}

static void
test_kept_whole(void **state)
{
	(void) state;
	kept("[\"com.acme.Made\", {}]", "class com.acme.Made", "Made");
	kept("[\"com.acme.Made\",{} ]", "class com.acme.Made", "Made");
	kept(" [\"com.acme.Made\",{}]", "class com.acme.Made", "Made");
	kept("[\"com.acme.Other\",{}]", "class com.acme.Made", "Made");
	kept("[\"com.acme.Made\",{},{}]", "class com.acme.Made", "Made");
	kept("[\"com.acme.Made\",{}}]", "class com.acme.Made", "Made");
	kept("[\"com.acme.Made\",{\"a\":\"]", "class com.acme.Made", "Made");
	kept("[\"com.acme.Made\",{\"a\\]", "class com.acme.Made", "Made");
	kept("[\"com.acme.Made\",[]]", "class com.acme.Made", "Made");
	kept("[\"com.acme.Made\",{]", "class com.acme.Made", "Made");
	kept("{\"a\":1}", "class com.acme.Made", "Made");
	kept("7", "class java.lang.Integer", "Integer");
	kept("null", "class com.acme.Made", "Made");
	kept("", "class com.acme.Made", "Made");
	kept("[\"java.util.ArrayList\",[1]]", "class java.util.ArrayList", "ArrayList");
	kept("[1]", "interface com.acme.Made", "Made");
	kept("[\"a\"b\",{}]", "class a\"b", "a\"b");
}

static void
test_ambiguous(void **state)
{
	(void) state;
	/* Stored as they came, these would be read as another form. */
	stored("{\"a\":1}", "com.acme.Made", "Made", "=com.acme.Made", "{\"a\":1}");
	stored(" {}", "interface com.acme.Made", "Made", "=interface com.acme.Made", " {}");
	stored("[1]", "=x.Made", "Made", "==x.Made", "[1]");
	kept("[\"class x.Made\",{}]", "class class x.Made", "Made");
	kept("[\"=x.Made\",{}]", "class =x.Made", "Made");
}

static void
test_from_sql(void **state)
{
	evp_buf_t	b;
	evp_slice_t object;
	evp_slice_t object_class;

	(void) state;
	rebuild(evp_slice_str(NULL), evp_slice_str("Made"), evp_slice_str("{\"a\":1}"), &b, &object, &object_class);
	assert_slice(object, "[\"Made\",{\"a\":1}]");
	assert_slice(object_class, "class Made");
	evp_buf_free(&b);
	rebuild(evp_slice_str(NULL), evp_slice_str("Made"), evp_slice_str("[1]"), &b, &object, &object_class);
	assert_slice(object, "[1]");
	assert_slice(object_class, "class Made");
	evp_buf_free(&b);
	rebuild(evp_slice_str("com.acme.Made"), evp_slice_str("Made"), evp_slice_str(" {\"a\" : 1}\n"), &b, &object, &object_class);
	assert_slice(object, "[\"com.acme.Made\", {\"a\" : 1}\n]");
	assert_slice(object_class, "class com.acme.Made");
	evp_buf_free(&b);
	/* A type that looks like another form of class is a type all the same. */
	rebuild(evp_slice_str(NULL), evp_slice_str("=Made"), evp_slice_str("{}"), &b, &object, &object_class);
	assert_slice(object, "[\"=Made\",{}]");
	assert_slice(object_class, "class =Made");
	evp_buf_free(&b);
}

static void
refused(const char *object, const char *object_class, int rc, const char *expected)
{
	evp_arena_t arena = {0};
	evp_payload_t p;
	const char *reason = NULL;

	assert_int_equal(evp_payload_split(&p, evp_slice_str(object), evp_slice_str(object_class), &arena, &reason), rc);
	if (expected != NULL)
		assert_string_equal(reason, expected);
	evp_arena_free(&arena);
}

static void
test_refused(void **state)
{
	char		big[1200];

	(void) state;
	refused("null", NULL, 0, NULL);
	refused("{}", NULL, 0, NULL);
	refused(NULL, "class x.Made", -1, "payload without serializedObject");
	refused("{}", "", -1, "payload class without a name");
	refused("{}", "class x.", -1, "payload class without a name");
	refused("{}", "class ", -1, "payload class without a name");
	memset(big, 'x', sizeof(big));
	big[sizeof(big) - 1] = '\0';
	memcpy(big, "class a.", 8);
	refused("{}", big, -1, "name of a payload class is too long");
	big[sizeof(big) - 10] = '.';
	refused("{}", big, -1, "payload class is too long");
}

static void
test_name(void **state)
{
	(void) state;
	assert_slice(evp_payload_name(evp_slice_str("class a.b.C")), "C");
	assert_slice(evp_payload_name(evp_slice_str("class a.b.C$D")), "C$D");
	assert_slice(evp_payload_name(evp_slice_str("class C")), "C");
	assert_slice(evp_payload_name(evp_slice_str("a.C")), "C");
	assert_slice(evp_payload_name(evp_slice_str("C")), "C");
}

/* Metadata as JSON text to CBOR and back; NULL expected: it becomes null. */
static void
metadata(const char *json, const char *expected)
{
	evp_buf_t	cbor;
	evp_buf_t	back;
	const char *reason = NULL;

	evp_buf_init(&cbor, SIZE_MAX);
	evp_buf_init(&back, SIZE_MAX);
	evp_metadata_put(&cbor, evp_slice_str(json));
	assert_false(cbor.failed);
	if (expected == NULL)
	{
		assert_int_equal(cbor.len, 1);
		assert_int_equal(cbor.data[0], 0xf6);
	}
	assert_int_equal(evp_metadata_to_json(&back, evp_slice_of(cbor.data, cbor.len), &reason), expected != NULL);
	assert_slice(evp_slice_of(back.data, back.len), expected == NULL ? NULL : expected);
	evp_buf_free(&cbor);
	evp_buf_free(&back);
}

static void
test_metadata(void **state)
{
	(void) state;
	metadata(NULL, NULL);
	metadata("{}", "{}");
	metadata("{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\",\"c\":null}");
	metadata(" { \"a\" : \"x\\u00fc\\\"\\n\\u0000\" } ", "{\"a\":\"x\u00fc\\\"\\n\\u0000\"}");
	metadata("{\"a\":1.10,\"b\":[1, {\"c\":true}],\"d\":false}", "{\"a\":\"1.10\",\"b\":\"[1, {\\\"c\\\":true}]\",\"d\":\"false\"}");
	metadata("[1]", NULL);
	metadata("\"a\"", NULL);
	metadata("null", NULL);
	metadata("{\"a\":", NULL);
	metadata("{\"a\":\"b\"", NULL);
	metadata("{\"a\":\"b\"} x", NULL);
	metadata("{\"a\":\"b\",}", NULL);
	metadata("", NULL);
}

static void
metadata_refused(const char *hex)
{
	evp_blob_t *blob = unit_hex(hex);
	evp_buf_t	b;
	const char *reason = NULL;

	evp_buf_init(&b, 1000);
	assert_int_equal(evp_metadata_to_json(&b, evp_slice_blob(blob), &reason), -1);
	assert_non_null(reason);
	evp_buf_free(&b);
	evp_blob_unref(blob);
}

static void
test_metadata_forms(void **state)
{
	evp_blob_t *blob = unit_hex("bf 61 61 7f 61 62 61 63 ff ff");	/* bare, and a text in pieces */
	evp_buf_t	b;
	const char *reason;

	(void) state;
	evp_buf_init(&b, 1000);
	assert_int_equal(evp_metadata_to_json(&b, evp_slice_blob(blob), &reason), 1);
	assert_slice(evp_slice_of(b.data, b.len), "{\"a\":\"bc\"}");
	evp_buf_free(&b);
	evp_blob_unref(blob);
	metadata_refused("01");
	metadata_refused("82 61 61 01");
	metadata_refused("82 61 61 80");
	metadata_refused("83 61 61 a0 01");
	metadata_refused("82 61 61 a1 61 61");
	metadata_refused("");
}

/* Texts of all shapes come back as they were. */
static void
test_round_trip(void **state)
{
	static const char pieces[][8] = {"[", "\"", "a.B", "\",", "{", "}", "]", "{}", "\\", "class ", "=", " ", "[\"a.B\",", "{}]", "x"};
	uint64_t	seed = 31;

	(void) state;
	for (int i = 0; i < 100000; i++)
	{
		char		text[2][200] = {"", ""};
		evp_arena_t arena = {0};
		evp_payload_t p;
		const char *reason;
		evp_buf_t	b;
		evp_slice_t object;
		evp_slice_t object_class;

		if (unit_random(&seed) % 2 == 0)
			strcpy(text[1], "class a.B");
		if (unit_random(&seed) % 2 == 0)
			strcpy(text[0], "[\"a.B\",");
		for (int t = 0; t < 2; t++)
			for (unsigned n = unit_random(&seed) % 6; n > 0; n--)
				strcat(text[t], pieces[unit_random(&seed) % (sizeof(pieces) / sizeof(pieces[0]))]);
		if (evp_payload_split(&p, evp_slice_str(text[0]), evp_slice_str(text[1]), &arena, &reason) == 1)
		{
			rebuild(p.klass, p.type, p.data, &b, &object, &object_class);
			assert_slice(object, text[0]);
			assert_slice(object_class, text[1]);
			evp_buf_free(&b);
		}
		evp_arena_free(&arena);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_kept_whole),
		cmocka_unit_test(test_ambiguous),
		cmocka_unit_test(test_from_sql),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_name),
		cmocka_unit_test(test_metadata),
		cmocka_unit_test(test_metadata_forms),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests_name("payload", tests, NULL, NULL);
}
