/*
 * discovery.c
 *    What bundles say of themselves: registration and discovery payloads.
 */
#include "discovery.h"

#include <stdlib.h>

#include "cbor.h"
#include "json.h"

#define NAMES_FIRST 64			/* names of the first allocation */

/* Appends a name; the array doubles up to its bound. */
static void
add_name(evp_cbor_t *r, evp_registration_t *g, size_t *room, evp_slice_t name)
{
	if (name.n > EVP_MAX_NAME_LEN)
	{
		evp_cbor_fail(r, "payload name is too long");
		return;
	}
	if (g->n_names == *room)
	{
		size_t		want = *room == 0 ? NAMES_FIRST : *room * 2;
		evp_slice_t *names;

		if (g->n_names == EVP_MAX_NAMES)
		{
			evp_cbor_fail(r, "too many payload names");
			return;
		}
		if (want > EVP_MAX_NAMES)
			want = EVP_MAX_NAMES;
		names = realloc(g->names, want * sizeof(*names));
		if (names == NULL)
		{
			evp_cbor_fail(r, "out of memory");
			return;
		}
		g->names = names;
		*room = want;
	}
	g->names[g->n_names++] = name;
}

static void
read_names(evp_cbor_t *r, evp_registration_t *g)
{
	size_t		room = 0;
	evp_slice_t name;

	free(g->names);
	g->names = NULL;
	g->n_names = 0;
	if (evp_cbor_take_null(r) || !evp_cbor_enter_array(r))
		return;
	while (evp_cbor_more(r))
		if (evp_cbor_name(r, &name))
			add_name(r, g, &room, name);
}

int
evp_registration_parse(evp_registration_t *g, evp_slice_t payload, const char **reason)
{
	evp_cbor_t	r;
	evp_slice_t key;

	*g = (evp_registration_t) {0};
	g->payload = evp_slice_ref(payload);
	if (g->payload.p == NULL)
	{
		*reason = payload.p == NULL ? "no payload" : "out of memory";
		return -1;
	}
	evp_cbor_init(&r, g->payload, &g->arena);
	evp_cbor_enter_map(&r);
	while (evp_cbor_more(&r))
	{
		key = (evp_slice_t) {0};
		if (evp_cbor_peek(&r) == EVP_CBOR_TEXT)
			evp_cbor_text(&r, &key);
		else
			evp_cbor_skip(&r, NULL);
		if (evp_slice_is(key, "bundleVersion"))
			evp_cbor_int_or_null(&r, &g->bundle_version, NULL);
		else if (evp_slice_is(key, "handlerPayloadTypes"))
			read_names(&r, g);
		else
			evp_cbor_skip(&r, NULL);
	}
	if (evp_cbor_done(&r))
		return 0;
	*reason = r.error;
	evp_registration_free(g);
	return -1;
}

void
evp_registration_free(evp_registration_t *g)
{
	free(g->names);
	evp_arena_free(&g->arena);
	evp_slice_unref(&g->payload);
	*g = (evp_registration_t) {0};
}

/* The bundleVersion of a discovery, 0 where it has none. */
static int64_t
discovery_version(evp_slice_t payload, evp_arena_t *arena)
{
	evp_cbor_t	r;
	evp_slice_t key;
	int64_t		version = 0;

	evp_cbor_init(&r, payload, arena);
	evp_cbor_enter_map(&r);
	while (evp_cbor_more(&r))
	{
		key = (evp_slice_t) {0};
		if (evp_cbor_peek(&r) == EVP_CBOR_TEXT)
			evp_cbor_text(&r, &key);
		else
			evp_cbor_skip(&r, NULL);
		if (evp_slice_is(key, "bundleVersion") && evp_cbor_peek(&r) == EVP_CBOR_INT)
			evp_cbor_int(&r, &version);
		else
			evp_cbor_skip(&r, NULL);
	}
	return r.error == NULL ? version : 0;
}

int
evp_discovery_to_json(evp_buf_t *json, evp_slice_t payload, int64_t *bundle_version, const char **reason)
{
	evp_arena_t arena = {0};
	evp_cbor_t	r;
	int			rc = 0;

	*bundle_version = 0;
	evp_cbor_init(&r, payload, &arena);
	if (evp_cbor_peek(&r) != EVP_CBOR_MAP)
		evp_cbor_fail(&r, "discovery is not a map");
	else
		evp_json_put_cbor(json, &r, false);
	if (!evp_cbor_done(&r) || json->failed)
	{
		*reason = json->failed ? "discovery is too long" : r.error;
		rc = -1;
	}
	else
		*bundle_version = discovery_version(payload, &arena);
	evp_arena_free(&arena);
	return rc;
}
