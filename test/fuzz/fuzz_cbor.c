/*
 * fuzz_cbor.c
 *    Fuzz target: one CBOR item, walked, skipped and written as JSON; and the
 *    payloads that hold plain CBOR.
 */
#include <cbor.h>
#include <stdlib.h>

#include "cbor.h"
#include "discovery.h"
#include "json.h"
#include "payload.h"

#define JSON_MAX	(16 * 1024 * 1024)
#define TAG_6		0xc6
#define TAG_20		0xd4

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is an item to our reader is one to libcbor as well. */
static void
check_accepted(const uint8_t *data, size_t size)
{
	struct cbor_load_result result;
	cbor_item_t *item;

	/* libcbor refuses tags that nothing is registered for, which a reader may skip. */
	for (size_t i = 0; i < size; i++)
		if (data[i] >= TAG_6 && data[i] <= TAG_20)
			return;
	item = cbor_load(data, size, &result);
	if (item == NULL || result.read != size)
		abort();
	cbor_decref(&item);
}

/* Metadata that was read can be written, and reads as the same again. */
static void
check_metadata(evp_slice_t cbor)
{
	const char *reason = NULL;
	evp_buf_t	json;
	evp_buf_t	again;
	evp_buf_t	back;

	evp_buf_init(&json, JSON_MAX);
	evp_buf_init(&again, JSON_MAX);
	evp_buf_init(&back, JSON_MAX);
	if (evp_metadata_to_json(&json, cbor, &reason) == 1)
	{
		evp_metadata_put(&back, evp_slice_of(json.data, json.len));
		if (back.data[0] != 0xf6)
		{
			/* Values that were no texts have become such by now: compare from here on. */
			evp_buf_reset(&json);
			if (evp_metadata_to_json(&json, evp_slice_of(back.data, back.len), &reason) != 1)
				abort();
			evp_buf_reset(&back);
			evp_metadata_put(&back, evp_slice_of(json.data, json.len));
			if (evp_metadata_to_json(&again, evp_slice_of(back.data, back.len), &reason) != 1 ||
				again.len != json.len || memcmp(again.data, json.data, json.len) != 0)
				abort();
		}
	}
	evp_buf_free(&json);
	evp_buf_free(&again);
	evp_buf_free(&back);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	evp_slice_t input = evp_slice_of(data, size);
	evp_arena_t arena = {0};
	evp_registration_t registration;
	const char *reason = NULL;
	int64_t		version;
	evp_buf_t	json;
	evp_cbor_t	r;
	bool		walked;

	if (size == 0)
		return 0;
	evp_buf_init(&json, JSON_MAX);
	evp_cbor_init(&r, input, &arena);
	walked = evp_json_put_cbor(&json, &r, true) && evp_cbor_done(&r);
	if (walked && json.len < 100000 && !evp_json_valid(evp_slice_of(json.data, json.len)))
		abort();
	evp_cbor_init(&r, input, NULL);
	evp_cbor_skip(&r, NULL);
	if (walked && !evp_cbor_done(&r))
		abort();
	if (walked)
		check_accepted(data, size);

	evp_buf_reset(&json);
	if (evp_discovery_to_json(&json, input, &version, &reason) == 0 && memchr(json.data, '\0', json.len) != NULL)
		abort();
	if (evp_registration_parse(&registration, input, &reason) == 0)
		evp_registration_free(&registration);
	check_metadata(input);
	evp_buf_free(&json);
	evp_arena_free(&arena);
	return 0;
}
