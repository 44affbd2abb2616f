/*
 * pg_array.c
 *    See pg_array.h.
 */
#include "pg_array.h"

void
evp_pg_array_begin(evp_buf_t *b, uint32_t element_oid, size_t n)
{
	/* An empty array has no dimension. */
	evp_buf_append_u32(b, n > 0 ? 1 : 0);
	evp_buf_append_u32(b, 0);
	evp_buf_append_u32(b, element_oid);
	if (n > INT32_MAX)
		b->failed = true;
	if (n == 0)
		return;
	evp_buf_append_u32(b, (uint32_t) n);
	evp_buf_append_u32(b, 1);
}

void
evp_pg_array_int8(evp_buf_t *b, int64_t v)
{
	evp_buf_append_u32(b, 8);
	evp_buf_append_u64(b, (uint64_t) v);
}

void
evp_pg_array_int4(evp_buf_t *b, int32_t v)
{
	evp_buf_append_u32(b, 4);
	evp_buf_append_u32(b, (uint32_t) v);
}

void
evp_pg_array_bool(evp_buf_t *b, bool v)
{
	evp_buf_append_u32(b, 1);
	evp_buf_append_u8(b, v ? 1 : 0);
}

void
evp_pg_array_text(evp_buf_t *b, const char *text, size_t n)
{
	if (n > INT32_MAX)
		b->failed = true;
	evp_buf_append_u32(b, (uint32_t) n);
	evp_buf_append(b, text, n);
}

static uint32_t
read_u32(const uint8_t *p)
{
	return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];
}

bool
evp_pg_array_read(evp_pg_array_t *a, const void *value, size_t len)
{
	const uint8_t *p = value;
	uint32_t	dims;

	*a = (evp_pg_array_t) {.p = p};
	if (len < 12)
		return false;
	dims = read_u32(p);
	if (dims == 0)
		return true;
	if (dims != 1 || len < 20)
		return false;
	a->n = read_u32(p + 12);
	a->p = p + 20;
	a->left = len - 20;
	/* Each element has at least its length: nothing bigger is believed. */
	return a->n <= a->left / 4;
}

bool
evp_pg_array_next(evp_pg_array_t *a, evp_slice_t *element)
{
	uint32_t	len;

	if (a->n == 0 || a->left < 4)
		return false;
	len = read_u32(a->p);
	if (len > INT32_MAX || len > a->left - 4)
		return false;
	*element = evp_slice_of(a->p + 4, len);
	a->p += 4 + (size_t) len;
	a->left -= 4 + (size_t) len;
	a->n--;
	return true;
}

int64_t
evp_pg_int8(const char *value)
{
	uint64_t	v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | (uint8_t) value[i];
	return (int64_t) v;
}
