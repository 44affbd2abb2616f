/*
 * fuzz_wire.c
 *    Fuzz target: bytes of a connection, fed in portions, give the same
 *    messages as fed at once, within the parser's bounds.
 *
 * The first byte of the input says in what portions.
 */
#include <stdlib.h>

#include "message.h"
#include "wire.h"

#define HELD_MAX	(1024 * 1024)

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Feeds all bytes in portions; gives the messages' bytes and the last result. */
static int
feed(const uint8_t *p, size_t n, size_t portion, evp_buf_t *out)
{
	evp_wire_t	w;
	int			rc = 0;

	evp_wire_init(&w);
	w.max_held = HELD_MAX;
	w.max_streams = 16;
	while (n > 0 && rc == 0)
	{
		size_t		left = portion < n ? portion : n;
		size_t		given = left;
		evp_blob_t *message;

		while ((rc = evp_wire_feed(&w, &p, &left, 0, &message)) > 0)
		{
			evp_buf_append_u64(out, message->len);
			evp_buf_append(out, message->data, message->len);
			evp_blob_unref(message);
		}
		if (rc == 0 && left != 0)
			abort();
		n -= given;
		if (w.held > HELD_MAX || w.n_streams > 16 || (rc < 0) != (evp_wire_error(&w) != NULL))
			abort();
	}
	evp_wire_free(&w);
	return rc;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	evp_buf_t	whole;
	evp_buf_t	parts;
	int			rc;

	if (size == 0)
		return 0;
	evp_buf_init(&whole, SIZE_MAX);
	evp_buf_init(&parts, SIZE_MAX);
	rc = feed(data + 1, size - 1, SIZE_MAX, &whole);
	if (feed(data + 1, size - 1, data[0] % 31 + 1, &parts) != rc || parts.len != whole.len ||
		(whole.len > 0 && memcmp(whole.data, parts.data, whole.len) != 0))
		abort();
	evp_buf_free(&whole);
	evp_buf_free(&parts);
	return 0;
}
