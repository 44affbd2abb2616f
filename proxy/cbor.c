/*
 * cbor.c
 *    A pull reader and a writer of CBOR; floating point numbers are libcbor's.
 *
 * left[i] is what container i has still to give: the number of items (keys
 * and values each count) where its length is definite, else one of the
 * OPEN_ values below.  A definite count is refused where the input has not
 * that many bytes left, so it stays far below them.
 */
#include "cbor.h"

#include <cbor/encoding.h>
#include <cbor/streaming.h>

#define OPEN_ARRAY	UINT64_MAX	/* indefinite array */
#define OPEN_KEY	(UINT64_MAX - 1)	/* indefinite map, before a key or the end */
#define OPEN_VALUE	(UINT64_MAX - 2)	/* indefinite map, before a value */
#define OPEN_LEAST	OPEN_VALUE

/* Initial bytes: the major type in the upper three bits, the rest below. */
#define MAJOR(byte)	((byte) >> 5)
#define REST(byte)	((byte) & 31)
#define REST_FALSE	20
#define REST_TRUE	21
#define REST_NULL	22
#define REST_UNDEFINED 23
#define REST_1		24			/* the number is in 1, 2, 4, 8 bytes behind it; below, it is the rest itself */
#define REST_2		25
#define REST_8		27
#define REST_OPEN	31			/* indefinite, or the break */
#define BREAK 0xff

#define NOT_ASCII	UINT64_C(0x8080808080808080)
#define ASCII_STEP	8

/* What one step of the decoder brought.  The first kinds are the major types. */
typedef struct token
{
	enum
	{
		TOKEN_UINT, TOKEN_NEGATIVE, TOKEN_BYTES, TOKEN_TEXT, TOKEN_ARRAY, TOKEN_MAP, TOKEN_TAG,
		TOKEN_SIMPLE, TOKEN_FLOAT, TOKEN_BOOL, TOKEN_NULL, TOKEN_BREAK
	}			kind;
	bool		indefinite;		/* of strings and containers */
	bool		flag;			/* of a boolean */
	uint64_t	value;			/* of numbers and containers */
	double		real;			/* of a float */
	const uint8_t *p;			/* of strings, with their length */
	size_t		n;
} token_t;

static void
on_float(void *c, float v)
{
	*(double *) c = (double) v;
}

static void
on_double(void *c, double v)
{
	*(double *) c = v;
}

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

/* An item of major type 7, at r->p: all but floats are one byte. */
static bool
step_simple(evp_cbor_t *r, token_t *t)
{
	static const struct cbor_callbacks callbacks = {.float2 = on_float,.float4 = on_float,.float8 = on_double};
	unsigned	rest = REST(*r->p);
	struct cbor_decoder_result result;

	if (rest >= REST_2 && rest <= REST_8)
	{
		result = cbor_stream_decode(r->p, (size_t) (r->end - r->p), &callbacks, &t->real);
		if (result.status != CBOR_DECODER_FINISHED)
			return evp_cbor_fail(r, "CBOR is cut short");
		t->kind = TOKEN_FLOAT;
		r->p += result.read;
		return true;
	}
	if (rest == REST_FALSE || rest == REST_TRUE)
	{
		t->kind = TOKEN_BOOL;
		t->flag = rest == REST_TRUE;
	}
	else if (rest == REST_NULL || rest == REST_UNDEFINED)
		t->kind = TOKEN_NULL;
	else if (rest == REST_OPEN)
		t->kind = TOKEN_BREAK;
	else
		return evp_cbor_fail(r, "malformed CBOR");
	r->p++;
	return true;
}

/* One step of the decoder, accounted for nowhere.  Messages consist of these, so it is done here rather than by a library
 * that calls back for each. */
static inline bool
step(evp_cbor_t *r, token_t *t)
{
	const uint8_t *p = r->p;
	unsigned	rest;
	uint64_t	value;

	if (r->error != NULL)
		return false;
	if (p == r->end)
		return evp_cbor_fail(r, "CBOR is cut short");
	t->kind = MAJOR(*p);
	t->indefinite = false;
	rest = REST(*p++);
	if (t->kind == TOKEN_SIMPLE)
		return step_simple(r, t);
	if (rest < REST_1)
		value = rest;
	else if (rest <= REST_8)
	{
		size_t		n = (size_t) 1 << (rest - REST_1);

		if ((size_t) (r->end - p) < n)
			return evp_cbor_fail(r, "CBOR is cut short");
		for (value = 0; n > 0; n--)
			value = value << 8 | *p++;
	}
	else if (rest == REST_OPEN && t->kind >= TOKEN_BYTES && t->kind <= TOKEN_MAP)
	{
		t->indefinite = true;
		value = 0;
	}
	else
		return evp_cbor_fail(r, "malformed CBOR");
	t->value = value;
	if ((t->kind == TOKEN_BYTES || t->kind == TOKEN_TEXT) && !t->indefinite)
	{
		if (value > (uint64_t) (r->end - p))
			return evp_cbor_fail(r, "CBOR is cut short");
		t->p = p;
		t->n = (size_t) value;
		p += value;
	}
	r->p = p;
	return true;
}

static bool
skip_tags_slowly(evp_cbor_t *r)
{
	while (r->p < r->end && MAJOR(*r->p) == TOKEN_TAG)
	{
		token_t		t;

		if (!step(r, &t))
			return false;
		if (r->p == r->end || *r->p == BREAK)
			return evp_cbor_fail(r, "CBOR tag without an item");
	}
	return true;
}

/* Skips the tags before an item. */
static inline bool
skip_tags(evp_cbor_t *r)
{
	if (r->error != NULL)
		return false;
	return r->p == r->end || MAJOR(*r->p) != TOKEN_TAG || skip_tags_slowly(r);
}

/* Is the container at its end?  Not for the top level. */
static inline bool
at_end(const evp_cbor_t *r)
{
	uint64_t	left = r->left[r->depth - 1];

	if (left >= OPEN_LEAST)
		return r->p < r->end && *r->p == BREAK;
	return left == 0;
}

/* The next item's first token, counted in the container around it. */
static inline bool
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
	switch (MAJOR(*r->p))
	{
		case TOKEN_UINT:
		case TOKEN_NEGATIVE:
			return EVP_CBOR_INT;
		case TOKEN_BYTES:
			return EVP_CBOR_BYTES;
		case TOKEN_TEXT:
			return EVP_CBOR_TEXT;
		case TOKEN_ARRAY:
			return EVP_CBOR_ARRAY;
		case TOKEN_MAP:
			return EVP_CBOR_MAP;
		default:
			break;
	}
	switch (REST(*r->p))
	{
		case REST_FALSE:
		case REST_TRUE:
			return EVP_CBOR_BOOL;
		case REST_NULL:
		case REST_UNDEFINED:
			return EVP_CBOR_NULL;
		case REST_2:
		case REST_2 + 1:
		case REST_8:
			return EVP_CBOR_FLOAT;
		default:
			evp_cbor_fail(r, "malformed CBOR");
			return EVP_CBOR_ERROR;
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

/* The bytes of a string in pieces whose first token was taken. */
static bool
join_pieces(evp_cbor_t *r, const token_t *t, evp_slice_t *v)
{
	const uint8_t *first = r->p;
	size_t		pieces;
	size_t		total;
	token_t		last;
	evp_blob_t *joined;

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

/* The bytes of a string whose first token was taken; pieces are joined. */
static inline bool
string_value(evp_cbor_t *r, const token_t *t, evp_slice_t *v)
{
	if (t->indefinite)
		return join_pieces(r, t, v);
	*v = (evp_slice_t) {.owner = r->owner,.p = t->p,.n = t->n};
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

	/* Mostly there is a value. */
	if (r->p != r->end && MAJOR(*r->p) < TOKEN_TAG)
		return false;
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

/* Are these bytes ASCII?  Most texts are, and short: what is left over at the end is looked at twice. */
static inline bool
all_ascii(const uint8_t *p, size_t n)
{
	uint64_t	word;
	uint64_t	found = 0;
	uint32_t	half[2];

	if (n >= sizeof(word))
	{
		for (size_t i = 0; i + sizeof(word) <= n; i += sizeof(word))
		{
			memcpy(&word, p + i, sizeof(word));
			found |= word;
		}
		memcpy(&word, p + n - sizeof(word), sizeof(word));
		return ((found | word) & NOT_ASCII) == 0;
	}
	if (n >= sizeof(half[0]))
	{
		memcpy(&half[0], p, sizeof(half[0]));
		memcpy(&half[1], p + n - sizeof(half[1]), sizeof(half[1]));
		return ((half[0] | half[1]) & (uint32_t) NOT_ASCII) == 0;
	}
	for (size_t i = 0; i < n; i++)
		found |= p[i];
	return found < 0x80;
}

bool
evp_utf8_valid(const uint8_t *p, size_t n)
{
	const uint8_t *end = p + n;

	if (all_ascii(p, n))
		return true;
	while (p < end)
	{
		unsigned	more;
		uint32_t	c;

		if (end - p >= ASCII_STEP && all_ascii(p, ASCII_STEP))
		{
			p += ASCII_STEP;
			continue;
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

/* ---- writing ---- */

/* Room for the head of an item and n bytes behind it; NULL where there is none. */
static inline uint8_t *
put_head(evp_buf_t *b, unsigned major, uint64_t value, size_t n)
{
	unsigned	bytes = value < REST_1 ? 0 : value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : value <= UINT32_MAX ? 4 : 8;
	uint8_t    *p = n > SIZE_MAX - 9 ? NULL : evp_buf_reserve(b, 1 + bytes + n);

	if (p == NULL)
	{
		b->failed = true;
		return NULL;
	}
	b->len += 1 + bytes + n;
	if (bytes == 0)
	{
		*p++ = (uint8_t) (major << 5 | value);
		return p;
	}
	*p++ = (uint8_t) (major << 5 | (bytes == 1 ? REST_1 : bytes == 2 ? REST_2 : bytes == 4 ? REST_8 - 1 : REST_8));
	for (unsigned i = bytes; i-- > 0;)
		*p++ = (uint8_t) (value >> (i * 8));
	return p;
}

static inline void
put_string(evp_buf_t *b, unsigned major, const void *s, size_t n)
{
	uint8_t    *p = put_head(b, major, n, n);

	if (p != NULL && n > 0)
		memcpy(p, s, n);
}

static void
put_byte(evp_buf_t *b, unsigned major, unsigned rest)
{
	evp_buf_append_u8(b, (uint8_t) (major << 5 | rest));
}

void
evp_cbor_put_int(evp_buf_t *b, int64_t v)
{
	if (v >= 0)
		put_head(b, TOKEN_UINT, (uint64_t) v, 0);
	else
		put_head(b, TOKEN_NEGATIVE, (uint64_t) (-1 - v), 0);
}

void
evp_cbor_put_bool(evp_buf_t *b, bool v)
{
	put_byte(b, TOKEN_SIMPLE, v ? REST_TRUE : REST_FALSE);
}

void
evp_cbor_put_null(evp_buf_t *b)
{
	put_byte(b, TOKEN_SIMPLE, REST_NULL);
}

void
evp_cbor_put_double(evp_buf_t *b, double v)
{
	unsigned char bytes[9];

	evp_buf_append(b, bytes, cbor_encode_double(v, bytes, sizeof(bytes)));
}

void
evp_cbor_put_text_header(evp_buf_t *b, size_t n)
{
	put_head(b, TOKEN_TEXT, n, 0);
}

void
evp_cbor_put_text(evp_buf_t *b, const void *p, size_t n)
{
	put_string(b, TOKEN_TEXT, p, n);
}

void
evp_cbor_put_slice(evp_buf_t *b, evp_slice_t text)
{
	if (text.p == NULL)
		evp_cbor_put_null(b);
	else
		put_string(b, TOKEN_TEXT, text.p, text.n);
}

void
evp_cbor_put_bytes_header(evp_buf_t *b, size_t n)
{
	put_head(b, TOKEN_BYTES, n, 0);
}

void
evp_cbor_put_bytes(evp_buf_t *b, const void *p, size_t n)
{
	put_string(b, TOKEN_BYTES, p, n);
}

void
evp_cbor_put_array_header(evp_buf_t *b, size_t n)
{
	put_head(b, TOKEN_ARRAY, n, 0);
}

void
evp_cbor_open_array(evp_buf_t *b)
{
	put_byte(b, TOKEN_ARRAY, REST_OPEN);
}

void
evp_cbor_open_map(evp_buf_t *b)
{
	put_byte(b, TOKEN_MAP, REST_OPEN);
}

void
evp_cbor_close(evp_buf_t *b)
{
	put_byte(b, TOKEN_SIMPLE, REST_OPEN);
}
