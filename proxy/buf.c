/*
 * buf.c
 *    Bytes: growable buffers with a bound, and shared immutable blocks.
 */
#include "buf.h"

#include <stdio.h>
#include <stdlib.h>

#define EVP_BUF_FIRST 256		/* bytes of the first allocation */
#define EVP_BUF_SLACK 256		/* room that a blob made from a buffer may keep */

void
evp_buf_init(evp_buf_t *b, size_t max)
{
	*b = (evp_buf_t) {.max = max};
}

void
evp_buf_free(evp_buf_t *b)
{
	free(b->data);
	evp_buf_init(b, b->max);
}

void
evp_buf_reset(evp_buf_t *b)
{
	b->len = 0;
	b->failed = false;
}

/* Doubles the memory until n more bytes fit; never allocates beyond max. */
uint8_t *
evp_buf_grow(evp_buf_t *b, size_t n)
{
	size_t		want;
	size_t		cap;
	uint8_t    *data;

	if (b->failed)
		return NULL;
	if (b->len > b->max || n > b->max - b->len)
	{
		b->failed = true;
		return NULL;
	}
	want = b->len + n;
	cap = b->cap < EVP_BUF_FIRST ? EVP_BUF_FIRST : b->cap;
	while (cap < want)
		cap = cap > SIZE_MAX / 2 ? want : cap * 2;
	if (cap > b->max)
		cap = b->max < 1 ? 1 : b->max;
	data = realloc(b->data, cap);
	if (data == NULL)
	{
		b->failed = true;
		return NULL;
	}
	b->data = data;
	b->cap = cap;
	return b->data + b->len;
}

bool
evp_buf_append_str(evp_buf_t *b, const char *s)
{
	return evp_buf_append(b, s, strlen(s));
}

bool
evp_buf_append_u8(evp_buf_t *b, uint8_t v)
{
	return evp_buf_append(b, &v, 1);
}

bool
evp_buf_append_u16(evp_buf_t *b, uint16_t v)
{
	uint8_t		bytes[2] = {(uint8_t) (v >> 8), (uint8_t) v};

	return evp_buf_append(b, bytes, sizeof(bytes));
}

bool
evp_buf_append_u32(evp_buf_t *b, uint32_t v)
{
	uint8_t		bytes[4] = {(uint8_t) (v >> 24), (uint8_t) (v >> 16), (uint8_t) (v >> 8), (uint8_t) v};

	return evp_buf_append(b, bytes, sizeof(bytes));
}

bool
evp_buf_append_u64(evp_buf_t *b, uint64_t v)
{
	return evp_buf_append_u32(b, (uint32_t) (v >> 32)) && evp_buf_append_u32(b, (uint32_t) v);
}

bool
evp_buf_appendf(evp_buf_t *b, const char *format,...)
{
	char		text[512];
	va_list		args;
	int			n;
	uint8_t    *room;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (n >= 0 && (size_t) n < sizeof(text))
		return evp_buf_append(b, text, (size_t) n);

	/* A long text is formatted in place, with room for its terminator. */
	room = n < 0 ? NULL : evp_buf_reserve(b, (size_t) n + 1);
	if (room == NULL)
	{
		b->failed = true;
		return false;
	}
	va_start(args, format);
	vsnprintf((char *) room, (size_t) n + 1, format, args);
	va_end(args);
	b->len += (size_t) n;
	return true;
}

void
evp_buf_set_u32(evp_buf_t *b, size_t offset, uint32_t v)
{
	if (b->failed || offset > b->len || b->len - offset < 4)
		return;
	b->data[offset] = (uint8_t) (v >> 24);
	b->data[offset + 1] = (uint8_t) (v >> 16);
	b->data[offset + 2] = (uint8_t) (v >> 8);
	b->data[offset + 3] = (uint8_t) v;
}

void
evp_buf_set_u64(evp_buf_t *b, size_t offset, uint64_t v)
{
	if (b->failed || offset > b->len || b->len - offset < 8)
		return;
	evp_buf_set_u32(b, offset, (uint32_t) (v >> 32));
	evp_buf_set_u32(b, offset + 4, (uint32_t) v);
}

void
evp_buf_consume(evp_buf_t *b, size_t n)
{
	if (n >= b->len)
	{
		b->len = 0;
		return;
	}
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}

evp_blob_t *
evp_blob_alloc(size_t n)
{
	evp_blob_t *blob;

	if (n > SIZE_MAX - sizeof(*blob))
		return NULL;
	blob = malloc(sizeof(*blob) + n);
	if (blob == NULL)
		return NULL;
	*blob = (evp_blob_t) {.refs = 1,.len = n,.data = (uint8_t *) (blob + 1)};
	return blob;
}

evp_blob_t *
evp_blob_new(const void *p, size_t n)
{
	evp_blob_t *blob = evp_blob_alloc(n);

	if (blob != NULL && n > 0)
		memcpy(blob->data, p, n);
	return blob;
}

evp_blob_t *
evp_blob_from_buf(evp_buf_t *b)
{
	evp_blob_t *blob = NULL;

	if (!b->failed && b->data == NULL)
		blob = evp_blob_alloc(0);
	else if (!b->failed)
	{
		blob = malloc(sizeof(*blob));
		if (blob != NULL)
		{
			*blob = (evp_blob_t) {.refs = 1,.len = b->len,.data = b->data};
			if (b->cap - b->len > EVP_BUF_SLACK)
			{
				uint8_t    *fitted = realloc(b->data, b->len == 0 ? 1 : b->len);

				if (fitted != NULL)
					blob->data = fitted;
			}
			b->data = NULL;
		}
	}
	evp_buf_free(b);
	return blob;
}

evp_blob_t *
evp_blob_ref(evp_blob_t *blob)
{
	if (blob != NULL)
		blob->refs++;
	return blob;
}

void
evp_blob_unref(evp_blob_t *blob)
{
	if (blob == NULL || --blob->refs > 0)
		return;
	if (blob->data != (uint8_t *) (blob + 1))
		free(blob->data);
	free(blob);
}

evp_slice_t
evp_slice_ref(evp_slice_t s)
{
	if (s.p == NULL)
		return s;
	if (s.owner != NULL)
	{
		evp_blob_ref(s.owner);
		return s;
	}
	s.owner = evp_blob_new(s.p, s.n);
	if (s.owner == NULL)
		return (evp_slice_t) {0};
	s.p = s.owner->data;
	return s;
}

void
evp_slice_unref(evp_slice_t *s)
{
	evp_blob_unref(s->owner);
	*s = (evp_slice_t) {0};
}

evp_blob_t *
evp_arena_alloc(evp_arena_t *a, size_t n)
{
	evp_blob_t *blob = evp_blob_alloc(n);

	if (blob != NULL)
	{
		blob->next = a->blobs;
		a->blobs = blob;
	}
	return blob;
}

void
evp_arena_free(evp_arena_t *a)
{
	while (a->blobs != NULL)
	{
		evp_blob_t *blob = a->blobs;

		/* Others may hold the blob on; the chain is the arena's alone. */
		a->blobs = blob->next;
		blob->next = NULL;
		evp_blob_unref(blob);
	}
}
