/*
 * json.c
 *    The little of JSON text that the proxy needs: escaping, and walking
 *    through an object without building a tree.
 */
#include "json.h"

#include <math.h>

/* Is the byte written as it stands inside a JSON string? */
static bool
is_plain(uint8_t c)
{
	return c >= 0x20 && c != '"' && c != '\\';
}

void
evp_json_put_string(evp_buf_t *b, const void *p, size_t n, bool keep_nul)
{
	const uint8_t *s = p;
	const uint8_t *end = n == 0 ? s : s + n;

	evp_buf_append_u8(b, '"');
	while (s < end && !b->failed)
	{
		const uint8_t *run = s;

		while (s < end && is_plain(*s))
			s++;
		evp_buf_append(b, run, (size_t) (s - run));
		if (s == end)
			break;
		switch (*s)
		{
			case '"':
				evp_buf_append(b, "\\\"", 2);
				break;
			case '\\':
				evp_buf_append(b, "\\\\", 2);
				break;
			case '\n':
				evp_buf_append(b, "\\n", 2);
				break;
			case '\r':
				evp_buf_append(b, "\\r", 2);
				break;
			case '\t':
				evp_buf_append(b, "\\t", 2);
				break;
			case '\0':
				evp_buf_append_str(b, keep_nul ? "\\u0000" : "\\ufffd");
				break;
			default:
				evp_buf_appendf(b, "\\u%04x", *s);
		}
		s++;
	}
	evp_buf_append_u8(b, '"');
}

static void
put_integer(evp_buf_t *b, evp_cbor_t *r)
{
	uint64_t	v;
	bool		negative;

	if (!evp_cbor_uint(r, &v, &negative))
		return;
	if (!negative)
		evp_buf_appendf(b, "%llu", (unsigned long long) v);
	else if (v == UINT64_MAX)
		evp_buf_append_str(b, "-18446744073709551616");
	else
		evp_buf_appendf(b, "-%llu", (unsigned long long) v + 1);
}

static void
put_scalar(evp_buf_t *b, evp_cbor_t *r, bool keep_nul)
{
	evp_slice_t text;
	double		real;
	bool		flag;

	switch (evp_cbor_peek(r))
	{
		case EVP_CBOR_TEXT:
			if (evp_cbor_text(r, &text))
				evp_json_put_string(b, text.p, text.n, keep_nul);
			break;
		case EVP_CBOR_INT:
			put_integer(b, r);
			break;
		case EVP_CBOR_BOOL:
			if (evp_cbor_bool(r, &flag))
				evp_buf_append_str(b, flag ? "true" : "false");
			break;
		case EVP_CBOR_FLOAT:
			if (evp_cbor_double(r, &real) && isfinite(real))
				evp_buf_appendf(b, "%.17g", real);
			else
				evp_buf_append_str(b, "null");
			break;
		default:
			evp_cbor_skip(r, NULL);
			evp_buf_append_str(b, "null");
	}
}

/* A key: text as it is, other scalars between quotes. */
static void
put_key(evp_buf_t *b, evp_cbor_t *r, bool keep_nul)
{
	switch (evp_cbor_peek(r))
	{
		case EVP_CBOR_TEXT:
			put_scalar(b, r, keep_nul);
			break;
		case EVP_CBOR_ARRAY:
		case EVP_CBOR_MAP:
			evp_cbor_fail(r, "key of a map is not a scalar");
			break;
		default:
			evp_buf_append_u8(b, '"');
			put_scalar(b, r, keep_nul);
			evp_buf_append_u8(b, '"');
	}
}

bool
evp_json_put_cbor(evp_buf_t *b, evp_cbor_t *r, bool keep_nul)
{
	evp_cbor_type_t type = evp_cbor_peek(r);
	bool		first = true;

	/* The reader bounds the nesting, and with it this recursion. */
	if (type != EVP_CBOR_ARRAY && type != EVP_CBOR_MAP)
	{
		put_scalar(b, r, keep_nul);
		return r->error == NULL && !b->failed;
	}
	if (type == EVP_CBOR_ARRAY ? !evp_cbor_enter_array(r) : !evp_cbor_enter_map(r))
		return false;
	evp_buf_append_u8(b, type == EVP_CBOR_ARRAY ? '[' : '{');
	while (evp_cbor_more(r))
	{
		if (!first)
			evp_buf_append_u8(b, ',');
		first = false;
		if (type == EVP_CBOR_MAP)
		{
			put_key(b, r, keep_nul);
			evp_buf_append_u8(b, ':');
		}
		if (!evp_json_put_cbor(b, r, keep_nul))
			return false;
	}
	evp_buf_append_u8(b, type == EVP_CBOR_ARRAY ? ']' : '}');
	return r->error == NULL && !b->failed;
}

/* The rest of an array whose bracket is not written yet: ["class", value] of an object graph is the value alone. */
static bool
put_graph_array(evp_buf_t *b, evp_cbor_t *r)
{
	evp_cbor_type_t next;
	evp_slice_t text;
	bool		first = true;

	if (!evp_cbor_more(r))
		return evp_buf_append_str(b, "[]");
	if (evp_cbor_peek(r) == EVP_CBOR_TEXT)
	{
		if (!evp_cbor_text(r, &text))
			return false;
		next = evp_cbor_more(r) ? evp_cbor_peek(r) : EVP_CBOR_END;
		if (next == EVP_CBOR_ARRAY || next == EVP_CBOR_MAP)
		{
			if (evp_json_put_graph(b, r) && evp_cbor_more(r))
				evp_cbor_fail(r, "typed object with more than a class and its fields");
			return r->error == NULL && !b->failed;
		}
		evp_buf_append_u8(b, '[');
		evp_json_put_string(b, text.p, text.n, false);
		if (next == EVP_CBOR_END)
			return evp_buf_append_u8(b, ']');
		first = false;
	}
	else
		evp_buf_append_u8(b, '[');
	while (evp_cbor_more(r))
	{
		if (!first)
			evp_buf_append_u8(b, ',');
		first = false;
		if (!evp_json_put_graph(b, r))
			return false;
	}
	return evp_buf_append_u8(b, ']');
}

bool
evp_json_put_graph(evp_buf_t *b, evp_cbor_t *r)
{
	evp_cbor_type_t type = evp_cbor_peek(r);
	bool		first = true;

	/* The reader bounds the nesting here too. */
	if (type == EVP_CBOR_ARRAY)
		return evp_cbor_enter_array(r) && put_graph_array(b, r) && r->error == NULL && !b->failed;
	if (type != EVP_CBOR_MAP)
		return evp_json_put_cbor(b, r, false);
	if (!evp_cbor_enter_map(r))
		return false;
	evp_buf_append_u8(b, '{');
	while (evp_cbor_more(r))
	{
		if (!first)
			evp_buf_append_u8(b, ',');
		first = false;
		put_key(b, r, false);
		evp_buf_append_u8(b, ':');
		if (!evp_json_put_graph(b, r))
			return false;
	}
	evp_buf_append_u8(b, '}');
	return r->error == NULL && !b->failed;
}

static bool
fail(evp_json_t *j)
{
	j->error = true;
	return false;
}

int
evp_json_peek(evp_json_t *j)
{
	while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t'))
		j->p++;
	return j->error || j->p == j->end ? 0 : *j->p;
}

bool
evp_json_enter(evp_json_t *j, char open)
{
	if (evp_json_peek(j) != open)
		return fail(j);
	j->p++;
	return true;
}

bool
evp_json_more(evp_json_t *j, char close, bool *first)
{
	int			c = evp_json_peek(j);

	if (c == close)
	{
		j->p++;
		return false;
	}
	if (c == 0)
		return fail(j);
	if (*first)
		*first = false;
	else if (c != ',')
		return fail(j);
	else
	{
		j->p++;
		/* A comma with nothing behind it is caught by whoever reads the value. */
	}
	return true;
}

bool
evp_json_colon(evp_json_t *j)
{
	if (evp_json_peek(j) != ':')
		return fail(j);
	j->p++;
	return true;
}

/* The four digits of an escape; -1 where they are not there. */
static int
hex4(const uint8_t *p, const uint8_t *end)
{
	int			v = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		uint8_t		c = p[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			v = v << 4 | ((c | 0x20) - 'a' + 10);
		else
			return -1;
	}
	return v;
}

static void
put_utf8(evp_buf_t *b, uint32_t c)
{
	if (c < 0x80)
		evp_buf_append_u8(b, (uint8_t) c);
	else if (c < 0x800)
	{
		evp_buf_append_u8(b, (uint8_t) (0xc0 | c >> 6));
		evp_buf_append_u8(b, (uint8_t) (0x80 | (c & 0x3f)));
	}
	else
	{
		if (c < 0x10000)
			evp_buf_append_u8(b, (uint8_t) (0xe0 | c >> 12));
		else
		{
			evp_buf_append_u8(b, (uint8_t) (0xf0 | c >> 18));
			evp_buf_append_u8(b, (uint8_t) (0x80 | (c >> 12 & 0x3f)));
		}
		evp_buf_append_u8(b, (uint8_t) (0x80 | (c >> 6 & 0x3f)));
		evp_buf_append_u8(b, (uint8_t) (0x80 | (c & 0x3f)));
	}
}

/* The escape behind a backslash at j->p; appends to b unless that is NULL. */
static bool
escape(evp_json_t *j, evp_buf_t *b)
{
	static const char from[] = "\"\\/bfnrt";
	static const char to[] = "\"\\/\b\f\n\r\t";
	const char *at;
	int			c;
	int			low;

	if (j->p == j->end)
		return fail(j);
	c = *j->p++;
	at = c == 0 ? NULL : strchr(from, c);
	if (at != NULL)
	{
		if (b != NULL)
			evp_buf_append_u8(b, (uint8_t) to[at - from]);
		return true;
	}
	c = c == 'u' ? hex4(j->p, j->end) : -1;
	if (c < 0)
		return fail(j);
	j->p += 4;
	if (b == NULL)
		return true;
	if (c >= 0xd800 && c <= 0xdbff && j->end - j->p >= 6 && j->p[0] == '\\' && j->p[1] == 'u')
	{
		low = hex4(j->p + 2, j->end);
		if (low >= 0xdc00 && low <= 0xdfff)
		{
			j->p += 6;
			put_utf8(b, 0x10000 + ((uint32_t) (c - 0xd800) << 10) + (uint32_t) (low - 0xdc00));
			return true;
		}
	}
	put_utf8(b, c >= 0xd800 && c <= 0xdfff ? 0xfffd : (uint32_t) c);
	return true;
}

/* A string, from its quote on; appends what it stands for unless b is NULL. */
static bool
string(evp_json_t *j, evp_buf_t *b)
{
	if (evp_json_peek(j) != '"')
		return fail(j);
	j->p++;
	for (;;)
	{
		const uint8_t *run = j->p;

		while (j->p < j->end && is_plain(*j->p))
			j->p++;
		if (b != NULL)
			evp_buf_append(b, run, (size_t) (j->p - run));
		if (j->p == j->end || *j->p < 0x20)
			return fail(j);
		if (*j->p++ == '"')
			return true;
		if (!escape(j, b))
			return false;
	}
}

bool
evp_json_string(evp_json_t *j, evp_buf_t *b)
{
	return string(j, b);
}

static bool
digits(evp_json_t *j)
{
	const uint8_t *start = j->p;

	while (j->p < j->end && *j->p >= '0' && *j->p <= '9')
		j->p++;
	return j->p > start || fail(j);
}

static bool
number(evp_json_t *j)
{
	if (*j->p == '-')
		j->p++;
	if (j->p < j->end && *j->p == '0')
		j->p++;
	else if (!digits(j))
		return false;
	if (j->p < j->end && *j->p == '.')
	{
		j->p++;
		if (!digits(j))
			return false;
	}
	if (j->p < j->end && (*j->p | 0x20) == 'e')
	{
		j->p++;
		if (j->p < j->end && (*j->p == '+' || *j->p == '-'))
			j->p++;
		if (!digits(j))
			return false;
	}
	return true;
}

static bool
word(evp_json_t *j, const char *w)
{
	size_t		n = strlen(w);

	if ((size_t) (j->end - j->p) < n || memcmp(j->p, w, n) != 0)
		return fail(j);
	j->p += n;
	return true;
}

static bool
value(evp_json_t *j, unsigned depth)
{
	int			c = evp_json_peek(j);
	bool		first = true;

	switch (c)
	{
		case '{':
		case '[':
			if (depth == EVP_JSON_MAX_DEPTH)
				return fail(j);
			j->p++;
			while (evp_json_more(j, c == '{' ? '}' : ']', &first))
			{
				if (c == '{' && (!string(j, NULL) || !evp_json_colon(j)))
					return false;
				if (!value(j, depth + 1))
					return false;
			}
			return !j->error;
		case '"':
			return string(j, NULL);
		case 't':
			return word(j, "true");
		case 'f':
			return word(j, "false");
		case 'n':
			return word(j, "null");
		default:
			if (c == '-' || (c >= '0' && c <= '9'))
				return number(j);
			return fail(j);
	}
}

bool
evp_json_skip(evp_json_t *j, evp_slice_t *range)
{
	const uint8_t *start;

	evp_json_peek(j);
	start = j->p;
	if (j->error || !value(j, 0))
		return false;
	if (range != NULL)
		*range = evp_slice_of(start, (size_t) (j->p - start));
	return true;
}

bool
evp_json_done(evp_json_t *j)
{
	return evp_json_peek(j) == 0 && !j->error && j->p == j->end;
}

bool
evp_json_valid(evp_slice_t text)
{
	evp_json_t	j;

	evp_json_init(&j, text);
	return evp_json_skip(&j, NULL) && evp_json_done(&j);
}
