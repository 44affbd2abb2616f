/*
 * typed.c
 *    See typed.h.
 */
#include "typed.h"

bool
evp_typed_enter(evp_cbor_t *r, evp_slice_t *class)
{
	return evp_cbor_enter_array(r) && evp_cbor_name(r, class) && evp_cbor_enter_map(r);
}

bool
evp_typed_field(evp_cbor_t *r, evp_slice_t *key)
{
	while (evp_cbor_more(r))
	{
		if (evp_cbor_peek(r) == EVP_CBOR_TEXT)
			return evp_cbor_text(r, key);
		if (!evp_cbor_skip(r, NULL) || !evp_cbor_skip(r, NULL))
			return false;
	}
	return false;
}

bool
evp_typed_leave(evp_cbor_t *r)
{
	if (evp_cbor_more(r))
		evp_cbor_fail(r, "typed object with more than a class and its fields");
	return r->error == NULL;
}

void
evp_typed_open(evp_buf_t *b, const char *class)
{
	evp_cbor_open_array(b);
	evp_cbor_put_str(b, class);
	evp_cbor_open_map(b);
}

void
evp_typed_close(evp_buf_t *b)
{
	evp_cbor_close(b);
	evp_cbor_close(b);
}

void
evp_typed_int(evp_buf_t *b, const char *key, int64_t v)
{
	evp_cbor_put_str(b, key);
	evp_cbor_put_int(b, v);
}

void
evp_typed_text(evp_buf_t *b, const char *key, evp_slice_t v)
{
	evp_cbor_put_str(b, key);
	evp_cbor_put_slice(b, v);
}
