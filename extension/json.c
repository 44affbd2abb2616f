/*
 * json.c
 *	  text, which reads a key of a JSON value and raises nothing.
 *
 * The operators -> and ->> take escapes apart and raise at \u0000, which text
 * cannot hold, and at halves of surrogate pairs.  JSON that is stored as it was
 * written may have both.  Here each becomes U+FFFD.
 *
 * A value of type json is well formed, so a walk over its bytes does for a
 * parse: what is not on the path is passed by without looking into it, at any
 * depth without recursion.  Nothing is read behind the end even where the value
 * were not well formed; the result is then NULL.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/string.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "compat.h"
#include "evento.h"

#define REPLACEMENT 0xFFFD

/* The path, and what has been found on it. */
typedef struct JsonFind
{
	const char *end;			/* of the value */
	text	  **path;
	int		   *indexes;		/* path as an index of an array; INT_MIN: it is none */
	int			path_len;
	const char *found;			/* the last value at the path, or NULL */
	const char *found_end;
	StringInfoData key;			/* a key with escapes, taken apart */
} JsonFind;

/* ---- walking ---- */

static const char *
skip_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

/* Behind the string that begins at a quote.  *escapes: whether it has any. */
static const char *
skip_string(const char *at, const char *end, bool *escapes)
{
	*escapes = false;
	for (at++; at < end && *at != '"'; at++)
	{
		if (*at == '\\')
		{
			*escapes = true;
			at++;
		}
	}
	return Min(at + 1, end);
}

/* Behind a value; at stands on its first byte. */
static const char *
skip_value(const char *at, const char *end)
{
	int			depth = 0;
	bool		escapes;

	while (at < end)
	{
		switch (*at)
		{
			case '"':
				at = skip_string(at, end, &escapes);
				break;
			case '{':
			case '[':
				depth++;
				at++;
				break;
			case '}':
			case ']':
				if (depth == 0)
					return at;
				depth--;
				at++;
				break;
			default:
				if (depth == 0 && (*at == ',' || *at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
					return at;
				at++;

				/* A number or a word goes on. */
				if (depth == 0)
					continue;
				break;
		}
		if (depth == 0)
			return at;
	}
	return end;
}

/* ---- strings ---- */

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The four digits of a \u escape, or -1. */
static int
hex_unit(const char *at, const char *end)
{
	int			unit = 0;

	if (end - at < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		int			digit = hex_digit(at[i]);

		if (digit < 0)
			return -1;
		unit = unit * 16 + digit;
	}
	return unit;
}

static void
append_code_point(StringInfo out, pg_wchar c)
{
	unsigned char utf8[4];

	unicode_to_utf8(c, utf8);
	appendBinaryStringInfo(out, (char *) utf8, pg_utf_mblen(utf8));
}

/* A \u escape, whose digits begin at at; gives what is behind it, or its pair. */
static const char *
append_unicode(StringInfo out, const char *at, const char *end)
{
	int			unit = hex_unit(at, end);

	if (unit < 0)
	{
		append_code_point(out, REPLACEMENT);
		return at;
	}
	at += 4;
	if (unit >= 0xD800 && unit <= 0xDBFF && end - at >= 6 && at[0] == '\\' && at[1] == 'u')
	{
		int			low = hex_unit(at + 2, end);

		if (low >= 0xDC00 && low <= 0xDFFF)
		{
			append_code_point(out, 0x10000 + ((unit & 0x3FF) << 10) + (low & 0x3FF));
			return at + 6;
		}
	}
	append_code_point(out, unit == 0 || (unit >= 0xD800 && unit <= 0xDFFF) ? REPLACEMENT : unit);
	return at;
}

/* Appends what a string says; at and end are those of what is between the quotes. */
static void
append_unescaped(StringInfo out, const char *at, const char *end)
{
	while (at < end)
	{
		const char *plain = at;
		char		c;

		while (at < end && *at != '\\')
			at++;
		appendBinaryStringInfo(out, plain, at - plain);
		if (end - at < 2)
			break;
		c = at[1];
		at += 2;
		switch (c)
		{
			case 'u':
				at = append_unicode(out, at, end);
				break;
			case 'b':
				appendStringInfoChar(out, '\b');
				break;
			case 'f':
				appendStringInfoChar(out, '\f');
				break;
			case 'n':
				appendStringInfoChar(out, '\n');
				break;
			case 'r':
				appendStringInfoChar(out, '\r');
				break;
			case 't':
				appendStringInfoChar(out, '\t');
				break;
			default:
				appendStringInfoChar(out, c);
				break;
		}
	}
}

/* ---- the path ---- */

/* Whether a key (at and end without its quotes) is this one of the path. */
static bool
key_fits(JsonFind *find, text *wanted, const char *at, const char *end, bool escapes)
{
	int			len = VARSIZE_ANY_EXHDR(wanted);

	if (!escapes)
		return end - at == len && memcmp(at, VARDATA_ANY(wanted), len) == 0;
	resetStringInfo(&find->key);
	append_unescaped(&find->key, at, end);
	return find->key.len == len && memcmp(find->key.data, VARDATA_ANY(wanted), len) == 0;
}

static const char *find_in(JsonFind *find, const char *at, int level);

/* Walks over an object whose brace at stands on; gives what is behind it. */
static const char *
find_in_object(JsonFind *find, const char *at, int level)
{
	at = skip_space(at + 1, find->end);
	while (at < find->end && *at == '"')
	{
		bool		escapes;
		const char *key = at + 1;
		const char *key_end;

		CHECK_FOR_INTERRUPTS();
		at = skip_string(at, find->end, &escapes);
		key_end = Max(at - 1, key);
		at = skip_space(at, find->end);
		if (at >= find->end || *at != ':')
			return find->end;
		at = skip_space(at + 1, find->end);
		if (key_fits(find, find->path[level], key, key_end, escapes))
			at = find_in(find, at, level + 1);
		else
			at = skip_value(at, find->end);
		at = skip_space(at, find->end);
		if (at < find->end && *at == ',')
			at = skip_space(at + 1, find->end);
	}
	return Min(at + 1, find->end);
}

/* How many elements the array has whose bracket at stands on. */
static int
count_elements(const char *at, const char *end)
{
	int			count = 0;

	at = skip_space(at + 1, end);
	while (at < end && *at != ']')
	{
		const char *next = skip_value(at, end);

		CHECK_FOR_INTERRUPTS();
		if (next == at)
			return 0;
		count++;
		at = skip_space(next, end);
		if (at < end && *at == ',')
			at = skip_space(at + 1, end);
	}
	return count;
}

/* Walks over an array whose bracket at stands on; gives what is behind it. */
static const char *
find_in_array(JsonFind *find, const char *at, int level)
{
	int			wanted = find->indexes[level];

	/* Negative ones count from the end. */
	if (wanted < 0 && wanted != INT_MIN)
		wanted += count_elements(at, find->end);

	at = skip_space(at + 1, find->end);
	for (int i = 0; at < find->end && *at != ']'; i++)
	{
		const char *next = i == wanted ? find_in(find, at, level + 1) :
			skip_value(at, find->end);

		CHECK_FOR_INTERRUPTS();
		if (next == at)
			return find->end;
		at = skip_space(next, find->end);
		if (at < find->end && *at == ',')
			at = skip_space(at + 1, find->end);
	}
	return Min(at + 1, find->end);
}

/*
 * Walks over a value and notes what is at the rest of the path, from level on;
 * gives what is behind the value.  Of a key that comes more than once the last
 * one counts, as in the operators.
 */
static const char *
find_in(JsonFind *find, const char *at, int level)
{
	check_stack_depth();

	if (level == find->path_len)
	{
		const char *behind = skip_value(at, find->end);

		find->found = at;
		find->found_end = behind;
		return behind;
	}
	if (at < find->end && *at == '{')
		return find_in_object(find, at, level);
	if (at < find->end && *at == '[')
		return find_in_array(find, at, level);
	return skip_value(at, find->end);
}

/* A part of a path as an index of an array, as the operator #> reads it. */
static int
array_index(text *part)
{
	char	   *digits = text_to_cstring(part);
	char	   *behind;
	int			index;

	errno = 0;
	index = strtoint(digits, &behind, 10);
	if (behind == digits || *behind != '\0' || errno != 0)
		index = INT_MIN;
	pfree(digits);
	return index;
}

/* SQL: text(data json, VARIADIC path text[]) */
PG_FUNCTION_INFO_V1(evento_text);
Datum
evento_text(PG_FUNCTION_ARGS)
{
	text	   *json = PG_GETARG_TEXT_PP(0);
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(1);
	JsonFind	find = {0};
	Datum	   *parts;
	bool	   *nulls;
	const char *at = VARDATA_ANY(json);

	find.end = at + VARSIZE_ANY_EXHDR(json);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &parts, &nulls, &find.path_len);
	find.path = palloc(sizeof(text *) * Max(find.path_len, 1));
	find.indexes = palloc(sizeof(int) * Max(find.path_len, 1));
	for (int i = 0; i < find.path_len; i++)
	{
		if (nulls[i])
			PG_RETURN_NULL();
		find.path[i] = DatumGetTextPP(parts[i]);
		find.indexes[i] = array_index(find.path[i]);
	}
	initStringInfo(&find.key);
	find_in(&find, skip_space(at, find.end), 0);

	if (find.found == NULL || find.found == find.found_end)
		PG_RETURN_NULL();
	if (find.found_end - find.found == 4 && memcmp(find.found, "null", 4) == 0)
		PG_RETURN_NULL();
	if (*find.found == '"')
	{
		const char *quote = memchr(find.found, '\\', find.found_end - find.found);

		if (quote == NULL)
			PG_RETURN_TEXT_P(cstring_to_text_with_len(find.found + 1,
													  Max(find.found_end - find.found - 2, 0)));
		resetStringInfo(&find.key);
		append_unescaped(&find.key, find.found + 1, Max(find.found_end - 1, find.found + 1));
		PG_RETURN_TEXT_P(cstring_to_text_with_len(find.key.data, find.key.len));
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(find.found, find.found_end - find.found));
}
