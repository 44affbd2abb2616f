/*
 * cbor.c
 *    A pull reader and a writer of CBOR over libcbor's streaming decoder and
 *    its encoders.
 *
 * left[i] is what container i has still to give: the number of items (keys
 * and values each count) where its length is definite, else one of the
 * OPEN_ values below.  A definite count is refused where the input has not
 * that many bytes left, so it stays far below them.
 */
#include "cbor.h"

#include <cbor/callbacks.h>
#include <cbor/encoding.h>
#include <cbor/streaming.h>

#define OPEN_ARRAY	UINT64_MAX	/* indefinite array */
#define OPEN_KEY	(UINT64_MAX - 1)	/* indefinite map, before a key or the end */
#define OPEN_VALUE	(UINT64_MAX - 2)	/* indefinite map, before a value */
#define OPEN_LEAST	OPEN_VALUE

#define BREAK 0xff

/* What one step of the decoder brought. */
typedef struct token
{
	enum
	{
		TOKEN_UINT, TOKEN_NEGATIVE, TOKEN_BYTES, TOKEN_TEXT, TOKEN_ARRAY, TOKEN_MAP,
		TOKEN_TAG, TOKEN_FLOAT, TOKEN_BOOL, TOKEN_NULL, TOKEN_BREAK
	}			kind;
	bool		indefinite;		/* of strings and containers */
	bool		flag;
	uint64_t	value;
	double		real;
	const uint8_t *p;
	size_t		n;				/* bytes of a string */
} token_t;

#define TOKEN(context, ...) (*(token_t *) (context) = (token_t) {__VA_ARGS__})

static void
on_uint8(void *c, uint8_t v)
{
	TOKEN(c,.kind = TOKEN_UINT,.value = v);
}

static void
on_uint16(void *c, uint16_t v)
{
	TOKEN(c,.kind = TOKEN_UINT,.value = v);
}

static void
on_uint32(void *c, uint32_t v)
{
	TOKEN(c,.kind = TOKEN_UINT,.value = v);
}

static void
on_uint64(void *c, uint64_t v)
{
	TOKEN(c,.kind = TOKEN_UINT,.value = v);
}

static void
on_negint8(void *c, uint8_t v)
{
	TOKEN(c,.kind = TOKEN_NEGATIVE,.value = v);
}

static void
on_negint16(void *c, uint16_t v)
{
	TOKEN(c,.kind = TOKEN_NEGATIVE,.value = v);
}

static void
on_negint32(void *c, uint32_t v)
{
	TOKEN(c,.kind = TOKEN_NEGATIVE,.value = v);
}

static void
on_negint64(void *c, uint64_t v)
{
	TOKEN(c,.kind = TOKEN_NEGATIVE,.value = v);
}

static void
on_bytes_open(void *c)
{
	TOKEN(c,.kind = TOKEN_BYTES,.indefinite = true);
}

static void
on_bytes(void *c, cbor_data p, size_t n)
{
	TOKEN(c,.kind = TOKEN_BYTES,.p = p,.n = n);
}

static void
on_text_open(void *c)
{
	TOKEN(c,.kind = TOKEN_TEXT,.indefinite = true);
}

static void
on_text(void *c, cbor_data p, size_t n)
{
	TOKEN(c,.kind = TOKEN_TEXT,.p = p,.n = n);
}

static void
on_array_open(void *c)
{
	TOKEN(c,.kind = TOKEN_ARRAY,.indefinite = true);
}

static void
on_array(void *c, size_t n)
{
	TOKEN(c,.kind = TOKEN_ARRAY,.value = n);
}

static void
on_map_open(void *c)
{
	TOKEN(c,.kind = TOKEN_MAP,.indefinite = true);
}

static void
on_map(void *c, size_t n)
{
	TOKEN(c,.kind = TOKEN_MAP,.value = n);
}

static void
on_tag(void *c, uint64_t v)
{
	TOKEN(c,.kind = TOKEN_TAG,.value = v);
}

static void
on_float(void *c, float v)
{
	TOKEN(c,.kind = TOKEN_FLOAT,.real = (double) v);
}

static void
on_double(void *c, double v)
{
	TOKEN(c,.kind = TOKEN_FLOAT,.real = v);
}

static void
on_null(void *c)
{
	TOKEN(c,.kind = TOKEN_NULL);
}

static void
on_bool(void *c, bool v)
{
	TOKEN(c,.kind = TOKEN_BOOL,.flag = v);
}

static void
on_break(void *c)
{
	TOKEN(c,.kind = TOKEN_BREAK);
}

static const struct cbor_callbacks callbacks = {
	.uint8 = on_uint8,
	.uint16 = on_uint16,
	.uint32 = on_uint32,
	.uint64 = on_uint64,
	.negint8 = on_negint8,
	.negint16 = on_negint16,
	.negint32 = on_negint32,
	.negint64 = on_negint64,
	.byte_string_start = on_bytes_open,
	.byte_string = on_bytes,
	.string_start = on_text_open,
	.string = on_text,
	.indef_array_start = on_array_open,
	.array_start = on_array,
	.indef_map_start = on_map_open,
	.map_start = on_map,
	.tag = on_tag,
	.float2 = on_float,
	.float4 = on_float,
	.float8 = on_double,
	.undefined = on_null,
	.null = on_null,
	.boolean = on_bool,
	.indef_break = on_break,
};

void
evp_cbor_init(evp_cbor_t *r, evp_slice_t s, evp_arena_t *arena)
{
	/* left[] stays as it is: entering sets what is used of it. */
	r->p = s.p;
	r->end = s.p == NULL ? NULL : s.p + s.n;
	r->owner = s.owner;
	r->arena = arena;
	r->error = NULL;
	r->depth = 0;
}

bool
evp_cbor_fail(evp_cbor_t *r, const char *reason)
{
	if (r->error == NULL)
		r->error = reason;
	return false;
}

/* One step of the decoder, accounted for nowhere. */
static bool
step(evp_cbor_t *r, token_t *t)
{
	struct cbor_decoder_result result;

	if (r->error != NULL)
		return false;
	if (r->p == r->end)
		return evp_cbor_fail(r, "CBOR is cut short");
	result = cbor_stream_decode(r->p, (size_t) (r->end - r->p), &callbacks, t);
	if (result.status == CBOR_DECODER_NEDATA)
		return evp_cbor_fail(r, "CBOR is cut short");
	if (result.status != CBOR_DECODER_FINISHED || result.read == 0)
		return evp_cbor_fail(r, "malformed CBOR");
	r->p += result.read;
	return true;
}

/* Skips the tags before an item. */
static bool
skip_tags(evp_cbor_t *r)
{
	while (r->error == NULL && r->p < r->end && *r->p >> 5 == 6)
	{
		token_t		t;

		if (!step(r, &t))
			return false;
		if (r->p == r->end || *r->p == BREAK)
			return evp_cbor_fail(r, "CBOR tag without an item");
	}
	return r->error == NULL;
}

/* Is the container at its end?  Not for the top level. */
static bool
at_end(const evp_cbor_t *r)
{
	uint64_t	left = r->left[r->depth - 1];

	if (left >= OPEN_LEAST)
		return r->p < r->end && *r->p == BREAK;
	return left == 0;
}

/* The next item's first token, counted in the container around it. */
static bool
take(evp_cbor_t *r, token_t *t)
{
	if (!skip_tags(r))
		return false;
	if (r->depth > 0)
	{
		uint64_t   *left = &r->left[r->depth - 1];

		if (*left == 0)
			return evp_cbor_fail(r, "CBOR container is too short");
		if (*left == OPEN_KEY)
			*left = OPEN_VALUE;
		else if (*left == OPEN_VALUE)
			*left = OPEN_KEY;
		else if (*left != OPEN_ARRAY)
			--*left;
	}
	if (!step(r, t))
		return false;
	if (t->kind == TOKEN_BREAK)
		return evp_cbor_fail(r, "CBOR container is too short");
	return true;
}

/* Enters the container whose first token was taken. */
static bool
enter(evp_cbor_t *r, const token_t *t)
{
	bool		map = t->kind == TOKEN_MAP;
	uint64_t	items;

	if (r->depth == EVP_CBOR_MAX_DEPTH)
		return evp_cbor_fail(r, "CBOR is nested too deeply");
	if (t->indefinite)
		items = map ? OPEN_KEY : OPEN_ARRAY;
	else
	{
		/* An item takes a byte at least, so a larger count is a lie. */
		if (t->value > (uint64_t) (r->end - r->p))
			return evp_cbor_fail(r, "CBOR is cut short");
		items = map ? t->value * 2 : t->value;
	}
	r->left[r->depth++] = items;
	return true;
}

evp_cbor_type_t
evp_cbor_peek(evp_cbor_t *r)
{
	if (!skip_tags(r))
		return EVP_CBOR_ERROR;
	if (r->depth > 0 ? at_end(r) : r->p == r->end)
		return EVP_CBOR_END;
	if (r->p == r->end)
	{
		evp_cbor_fail(r, "CBOR is cut short");
		return EVP_CBOR_ERROR;
	}
	switch (*r->p >> 5)
	{
		case 0:
		case 1:
			return EVP_CBOR_INT;
		case 2:
			return EVP_CBOR_BYTES;
		case 3:
			return EVP_CBOR_TEXT;
		case 4:
			return EVP_CBOR_ARRAY;
		case 5:
			return EVP_CBOR_MAP;
		default:
			switch (*r->p & 31)
			{
				case 20:
				case 21:
					return EVP_CBOR_BOOL;
				case 22:
				case 23:
					return EVP_CBOR_NULL;
				case 25:
				case 26:
				case 27:
					return EVP_CBOR_FLOAT;
				default:
					evp_cbor_fail(r, "malformed CBOR");
					return EVP_CBOR_ERROR;
			}
	}
}

bool
evp_cbor_enter_array(evp_cbor_t *r)
{
	token_t		t;

	if (!take(r, &t))
		return false;
	if (t.kind != TOKEN_ARRAY)
		return evp_cbor_fail(r, "not an array");
	return enter(r, &t);
}

bool
evp_cbor_enter_map(evp_cbor_t *r)
{
	token_t		t;

	if (!take(r, &t))
		return false;
	if (t.kind != TOKEN_MAP)
		return evp_cbor_fail(r, "not a map");
	return enter(r, &t);
}

bool
evp_cbor_more(evp_cbor_t *r)
{
	if (r->error != NULL)
		return false;
	if (r->depth == 0)
		return r->p < r->end;
	if (!at_end(r))
		return r->p < r->end || evp_cbor_fail(r, "CBOR is cut short");
	if (r->left[r->depth - 1] == OPEN_VALUE)
		return evp_cbor_fail(r, "CBOR map ends behind a key");
	if (r->left[r->depth - 1] >= OPEN_LEAST)
		r->p++;					/* the break */
	r->depth--;
	return false;
}

bool
evp_cbor_leave(evp_cbor_t *r)
{
	while (evp_cbor_more(r))
		evp_cbor_skip(r, NULL);
	return r->error == NULL;
}

/* The pieces of a string of indefinite length, up to and with its break.
 * Copies them to `to` unless that is NULL; gives their number and length. */
static bool
string_pieces(evp_cbor_t *r, int kind, uint8_t *to, size_t *pieces, token_t *last, size_t *total)
{
	token_t		t;

	*pieces = 0;
	*total = 0;
	for (;;)
	{
		if (!step(r, &t))
			return false;
		if (t.kind == TOKEN_BREAK)
			return true;
		if ((int) t.kind != kind || t.indefinite)
			return evp_cbor_fail(r, "malformed string in CBOR");
		if (to != NULL && t.n > 0)
			memcpy(to + *total, t.p, t.n);
		*total += t.n;
		*last = t;
		++*pieces;
	}
}

/* The bytes of a string whose first token was taken; pieces are joined. */
static bool
string_value(evp_cbor_t *r, const token_t *t, evp_slice_t *v)
{
	const uint8_t *first = r->p;
	size_t		pieces;
	size_t		total;
	token_t		last;
	evp_blob_t *joined;

	if (!t->indefinite)
	{
		*v = (evp_slice_t) {.owner = r->owner,.p = t->p,.n = t->n};
		return true;
	}
	if (!string_pieces(r, t->kind, NULL, &pieces, &last, &total))
		return false;
	if (pieces <= 1)
	{
		*v = (evp_slice_t) {.owner = r->owner,.p = pieces == 1 ? last.p : first,.n = total};
		return true;
	}
	if (r->arena == NULL)
		return evp_cbor_fail(r, "CBOR string in pieces where none is expected");
	joined = evp_arena_alloc(r->arena, total);
	if (joined == NULL)
		return evp_cbor_fail(r, "out of memory");
	r->p = first;
	if (!string_pieces(r, t->kind, joined->data, &pieces, &last, &total))
		return false;
	*v = evp_slice_blob(joined);
	return true;
}

bool
evp_cbor_bytes(evp_cbor_t *r, evp_slice_t *v)
{
	token_t		t;

	if (!take(r, &t))
		return false;
	if (t.kind != TOKEN_BYTES)
		return evp_cbor_fail(r, "not a byte string");
	return string_value(r, &t, v);
}

bool
evp_cbor_text(evp_cbor_t *r, evp_slice_t *v)
{
	token_t		t;

	if (!take(r, &t))
		return false;
	if (t.kind != TOKEN_TEXT)
		return evp_cbor_fail(r, "not a text");
	if (!string_value(r, &t, v))
		return false;
	return evp_utf8_valid(v->p, v->n) || evp_cbor_fail(r, "text is not UTF-8");
}

bool
evp_cbor_name(evp_cbor_t *r, evp_slice_t *v)
{
	if (!evp_cbor_text(r, v))
		return false;
	return v->n == 0 || memchr(v->p, '\0', v->n) == NULL || evp_cbor_fail(r, "U+0000 in a name");
}

bool
evp_cbor_take_null(evp_cbor_t *r)
{
	token_t		t;

	return evp_cbor_peek(r) == EVP_CBOR_NULL && take(r, &t);
}

bool
evp_cbor_text_or_null(evp_cbor_t *r, evp_slice_t *v)
{
	if (!evp_cbor_take_null(r))
		return evp_cbor_text(r, v);
	*v = (evp_slice_t) {0};
	return true;
}

bool
evp_cbor_name_or_null(evp_cbor_t *r, evp_slice_t *v)
{
	if (!evp_cbor_take_null(r))
		return evp_cbor_name(r, v);
	*v = (evp_slice_t) {0};
	return true;
}

bool
evp_cbor_bytes_or_null(evp_cbor_t *r, evp_slice_t *v)
{
	if (!evp_cbor_take_null(r))
		return evp_cbor_bytes(r, v);
	*v = (evp_slice_t) {0};
	return true;
}

bool
evp_cbor_uint(evp_cbor_t *r, uint64_t *v, bool *negative)
{
	token_t		t;

	if (!take(r, &t))
		return false;
	if (t.kind != TOKEN_UINT && t.kind != TOKEN_NEGATIVE)
		return evp_cbor_fail(r, "not an integer");
	*v = t.value;
	*negative = t.kind == TOKEN_NEGATIVE;
	return true;
}

bool
evp_cbor_int(evp_cbor_t *r, int64_t *v)
{
	uint64_t	u;
	bool		negative;

	if (!evp_cbor_uint(r, &u, &negative))
		return false;
	if (u > INT64_MAX)
		return evp_cbor_fail(r, "integer is out of range");
	*v = negative ? -1 - (int64_t) u : (int64_t) u;
	return true;
}

bool
evp_cbor_int_or_null(evp_cbor_t *r, int64_t *v, bool *is_null)
{
	bool		null = evp_cbor_take_null(r);

	if (is_null != NULL)
		*is_null = null;
	if (!null)
		return evp_cbor_int(r, v);
	*v = 0;
	return true;
}

bool
evp_cbor_bool(evp_cbor_t *r, bool *v)
{
	token_t		t;

	if (!take(r, &t))
		return false;
	if (t.kind != TOKEN_BOOL)
		return evp_cbor_fail(r, "not a boolean");
	*v = t.flag;
	return true;
}

bool
evp_cbor_double(evp_cbor_t *r, double *v)
{
	token_t		t;

	if (!take(r, &t))
		return false;
	if (t.kind != TOKEN_FLOAT)
		return evp_cbor_fail(r, "not a floating point number");
	*v = t.real;
	return true;
}

bool
evp_cbor_skip(evp_cbor_t *r, evp_slice_t *range)
{
	const uint8_t *start = r->p;
	unsigned	base = r->depth;
	token_t		t;

	do
	{
		size_t		pieces;
		size_t		total;
		token_t		last;

		if (r->depth > base && !evp_cbor_more(r))
			continue;
		if (!take(r, &t))
			return false;
		if (t.kind == TOKEN_ARRAY || t.kind == TOKEN_MAP)
			enter(r, &t);
		else if (t.indefinite)
			string_pieces(r, t.kind, NULL, &pieces, &last, &total);
	} while (r->error == NULL && r->depth > base);
	if (r->error != NULL)
		return false;
	if (range != NULL)
		*range = (evp_slice_t) {.owner = r->owner,.p = start,.n = (size_t) (r->p - start)};
	return true;
}

bool
evp_cbor_done(evp_cbor_t *r)
{
	if (r->error == NULL && (r->depth > 0 || r->p != r->end))
		evp_cbor_fail(r, "bytes behind the CBOR item");
	return r->error == NULL;
}

bool
evp_utf8_valid(const uint8_t *p, size_t n)
{
	const uint8_t *end = p == NULL ? NULL : p + n;

	while (p < end)
	{
		uint64_t	word;
		unsigned	more;
		uint32_t	c;

		if (end - p >= 8)
		{
			memcpy(&word, p, 8);
			if ((word & UINT64_C(0x8080808080808080)) == 0)
			{
				p += 8;
				continue;
			}
		}
		c = *p++;
		if (c < 0x80)
			continue;
		if (c >= 0xc2 && c <= 0xdf)
			more = 1, c &= 0x1f;
		else if (c >= 0xe0 && c <= 0xef)
			more = 2, c &= 0x0f;
		else if (c >= 0xf0 && c <= 0xf4)
			more = 3, c &= 0x07;
		else
			return false;
		if ((size_t) (end - p) < more)
			return false;
		for (unsigned i = 0; i < more; i++, p++)
		{
			if ((*p & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*p & 0x3f);
		}
		if ((more == 2 && (c < 0x800 || (c >= 0xd800 && c <= 0xdfff))) ||
			(more == 3 && (c < 0x10000 || c > 0x10ffff)))
			return false;
	}
	return true;
}

/* The longest head of an item: a byte and a 64-bit number. */
#define HEAD_MAX 9

#define PUT(b, encode, ...) \
	do { \
		unsigned char head_[HEAD_MAX]; \
		evp_buf_append((b), head_, encode(__VA_ARGS__ head_, HEAD_MAX)); \
	} while (0)

void
evp_cbor_put_int(evp_buf_t *b, int64_t v)
{
	if (v >= 0)
		PUT(b, cbor_encode_uint, (uint64_t) v,);
	else
		PUT(b, cbor_encode_negint, (uint64_t) (-1 - v),);
}

void
evp_cbor_put_bool(evp_buf_t *b, bool v)
{
	PUT(b, cbor_encode_bool, v,);
}

void
evp_cbor_put_null(evp_buf_t *b)
{
	PUT(b, cbor_encode_null,);
}

void
evp_cbor_put_double(evp_buf_t *b, double v)
{
	PUT(b, cbor_encode_double, v,);
}

void
evp_cbor_put_text_header(evp_buf_t *b, size_t n)
{
	PUT(b, cbor_encode_string_start, n,);
}

void
evp_cbor_put_text(evp_buf_t *b, const void *p, size_t n)
{
	evp_cbor_put_text_header(b, n);
	evp_buf_append(b, p, n);
}

void
evp_cbor_put_str(evp_buf_t *b, const char *s)
{
	evp_cbor_put_text(b, s, strlen(s));
}

void
evp_cbor_put_slice(evp_buf_t *b, evp_slice_t text)
{
	if (text.p == NULL)
		evp_cbor_put_null(b);
	else
		evp_cbor_put_text(b, text.p, text.n);
}

void
evp_cbor_put_bytes_header(evp_buf_t *b, size_t n)
{
	PUT(b, cbor_encode_bytestring_start, n,);
}

void
evp_cbor_put_bytes(evp_buf_t *b, const void *p, size_t n)
{
	evp_cbor_put_bytes_header(b, n);
	evp_buf_append(b, p, n);
}

void
evp_cbor_put_array_header(evp_buf_t *b, size_t n)
{
	PUT(b, cbor_encode_array_start, n,);
}

void
evp_cbor_open_array(evp_buf_t *b)
{
	PUT(b, cbor_encode_indef_array_start,);
}

void
evp_cbor_open_map(evp_buf_t *b)
{
	PUT(b, cbor_encode_indef_map_start,);
}

void
evp_cbor_close(evp_buf_t *b)
{
	PUT(b, cbor_encode_break,);
}
