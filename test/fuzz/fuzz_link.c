/*
 * fuzz_link.c
 *    Fuzz target: bytes of a link between proxies, fed in portions, give the
 *    same frames as fed at once; what decodes is made again as it was.
 *
 * The first byte of the input says in what portions.
 */
#include <stdlib.h>

#include "link_proto.h"

#define MESSAGE_MAX	4096

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A frame that decodes has names that are texts, and is the bytes that it is made of. */
static void
check_frame(const evp_blob_t *head, evp_blob_t *message)
{
	evp_link_frame_t frame;
	const char *reason = NULL;
	evp_buf_t	again;

	if (evp_link_decode(&frame, head, message, &reason) != 0)
	{
		if (reason == NULL)
			abort();
		return;
	}
	if ((frame.bundle.n > 0 && memchr(frame.bundle.p, 0, frame.bundle.n) != NULL) || frame.bundle.n > EVP_LINK_MAX_KEY || frame.instance.n > EVP_LINK_MAX_KEY)
		abort();
	evp_buf_init(&again, EVP_LINK_MAX_HEAD + 8);
	if (!evp_link_put(&again, &frame, message == NULL ? 0 : message->len) || again.len != head->len + 8 ||
		memcmp(again.data + 8, head->data, head->len) != 0)
		abort();
	evp_buf_free(&again);
}

/* Feeds all bytes in portions; gives the frames' bytes and the last result. */
static int
feed(const uint8_t *p, size_t n, size_t portion, evp_buf_t *out)
{
	evp_link_reader_t r;
	const char *reason = NULL;
	int			rc = 0;

	evp_link_reader_init(&r);
	r.max_message = MESSAGE_MAX;
	while (n > 0 && rc == 0)
	{
		size_t		left = portion < n ? portion : n;
		size_t		given = left;
		evp_blob_t *head;
		evp_blob_t *message;

		while ((rc = evp_link_feed(&r, &p, &left, &head, &message, &reason)) > 0)
		{
			evp_buf_append_u64(out, head->len);
			evp_buf_append(out, head->data, head->len);
			if (message != NULL)
				evp_buf_append(out, message->data, message->len);
			check_frame(head, message);
			evp_blob_unref(head);
			evp_blob_unref(message);
		}
		if ((rc == 0 && left != 0) || (rc < 0 && reason == NULL) || r.head.len + r.message.len > EVP_LINK_MAX_HEAD + MESSAGE_MAX)
			abort();
		n -= given;
	}
	evp_link_reader_free(&r);
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
