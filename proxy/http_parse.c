/*
 * http_parse.c
 *    What comes in over HTTP as text: targets with their parameters, values of
 *    headers, and the JSON of an append.
 */
#include "http_parse.h"

#include <stdio.h>
#include <stdlib.h>

#include "../include/packed.h"
#include "cbor.h"
#include "json.h"
#include "uuid.h"

#define MAX_WAIT_MS	INT64_C(86400000)

void
evp_http_split(const char *target, evp_slice_t *path, evp_slice_t *query)
{
	const char *mark = strchr(target, '?');

	*path = evp_slice_of(target, mark == NULL ? strlen(target) : (size_t) (mark - target));
	*query = evp_slice_str(mark == NULL ? "" : mark + 1);
}

static int
hex(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
evp_http_decode(evp_slice_t text, bool plus_is_space, evp_buf_t *out)
{
	for (size_t i = 0; i < text.n; i++)
	{
		int			c = text.p[i];

		if (c == '%')
		{
			int			high = i + 2 < text.n ? hex(text.p[i + 1]) : -1;
			int			low = i + 2 < text.n ? hex(text.p[i + 2]) : -1;

			if (high < 0 || low < 0)
				return false;
			c = high << 4 | low;
			i += 2;
		}
		else if (c == '+' && plus_is_space)
			c = ' ';
		if (c == 0)
			return false;
		evp_buf_append_u8(out, (uint8_t) c);
	}
	return !out->failed;
}

bool
evp_http_name(evp_slice_t path, const char *prefix, size_t max, evp_buf_t *out)
{
	size_t		n = strlen(prefix);

	if (path.n <= n || memcmp(path.p, prefix, n) != 0)
		return false;
	return evp_http_decode(evp_slice_of(path.p + n, path.n - n), false, out) && out->len <= max;
}

bool
evp_http_number(evp_slice_t text, int64_t most, int64_t *value)
{
	int64_t		n = 0;

	if (text.n == 0)
		return false;
	for (size_t i = 0; i < text.n; i++)
	{
		if (text.p[i] < '0' || text.p[i] > '9' || __builtin_mul_overflow(n, INT64_C(10), &n) ||
			__builtin_add_overflow(n, (int64_t) (text.p[i] - '0'), &n))
			return false;
	}
	if (n > most)
		return false;
	*value = n;
	return true;
}

bool
evp_http_time(evp_slice_t text, uint64_t *ms)
{
	int64_t		factor = 1;
	int64_t		n;

	if (text.n > 2 && memcmp(text.p + text.n - 2, "ms", 2) == 0)
		text.n -= 2;
	else if (text.n > 1 && text.p[text.n - 1] == 's')
	{
		text.n--;
		factor = 1000;
	}
	if (!evp_http_number(text, MAX_WAIT_MS / factor, &n))
		return false;
	*ms = (uint64_t) (n * factor);
	return true;
}

bool
evp_http_expected(evp_slice_t text, int64_t *expected)
{
	if (evp_slice_is(text, "any"))
		*expected = EVENTO_EXPECTED_ANY;
	else if (evp_slice_is(text, "none"))
		*expected = 0;
	else if (evp_slice_is(text, "exists") || evp_slice_is(text, "-4"))
		*expected = EVENTO_EXPECTED_EXISTS;
	else
		return evp_http_number(text, INT64_MAX, expected);
	return true;
}

bool
evp_http_found(const char *text, int64_t *found)
{
	static const char mark[] = ", found ";
	const char *at = NULL;
	evp_slice_t digits;

	/* The last one: the name of a stream stands before it, and may have any text. */
	for (const char *p = text; (p = strstr(p, mark)) != NULL; p++)
		at = p + sizeof(mark) - 1;
	if (at == NULL)
		return false;
	if (strncmp(at, "no stream", 9) == 0)
	{
		*found = 0;
		return true;
	}
	if (strncmp(at, "version ", 8) != 0)
		return false;
	at += 8;
	digits = evp_slice_of(at, strspn(at, "0123456789"));
	return evp_http_number(digits, INT64_MAX, found);
}

/* How many bytes of a text from outside an answer may quote: what it begins with and is UTF-8, up to so many. */
static int
quotable(evp_slice_t text, size_t most)
{
	size_t		n = text.n < most ? text.n : most;

	while (n > 0 && !evp_utf8_valid(text.p, n))
		n--;
	return (int) n;
}

/* ---- parameters ---- */

/* Takes the next "name=value" from a query. */
static bool
next_parameter(evp_slice_t *query, evp_slice_t *name, evp_slice_t *value)
{
	const uint8_t *end;
	const uint8_t *mark;
	size_t		n;

	while (query->n > 0 && *query->p == '&')
	{
		query->p++;
		query->n--;
	}
	if (query->n == 0)
		return false;
	end = memchr(query->p, '&', query->n);
	n = end == NULL ? query->n : (size_t) (end - query->p);
	mark = memchr(query->p, '=', n);
	*name = evp_slice_of(query->p, mark == NULL ? n : (size_t) (mark - query->p));
	*value = mark == NULL ? evp_slice_of(query->p + n, 0) : evp_slice_of(mark + 1, n - (size_t) (mark + 1 - query->p));
	query->p += n;
	query->n -= n;
	return true;
}

/* Decodes a text behind the others; its room is there, so that they stay where they are. */
static bool
take_text(evp_http_query_t *query, evp_slice_t value, evp_slice_t *text)
{
	size_t		start = query->text.len;

	if (!evp_http_decode(value, true, &query->text))
		return false;
	*text = evp_slice_of(query->text.data + start, query->text.len - start);
	return true;
}

/* Adds the texts of a list, which commas part; a comma in a text is written as %2C. */
static const char *
take_list(evp_http_query_t *query, evp_slice_t value, evp_http_list_t *list)
{
	while (true)
	{
		const uint8_t *comma = value.n == 0 ? NULL : memchr(value.p, ',', value.n);
		size_t		n = comma == NULL ? value.n : (size_t) (comma - value.p);

		if (list->n == EVP_HTTP_MAX_LIST)
			return "has too many texts";
		if (n == 0)
			return "has an empty text";
		if (!take_text(query, evp_slice_of(value.p, n), &list->items[list->n]))
			return "is not well encoded";
		list->n++;
		if (comma == NULL)
			return NULL;
		value = evp_slice_of(comma + 1, value.n - n - 1);
	}
}

static const char *
take_value(evp_http_query_t *query, unsigned which, evp_slice_t value)
{
	bool		yes = evp_slice_is(value, "true") || evp_slice_is(value, "1") || value.n == 0;

	switch (which)
	{
		case EVP_HTTP_FROM:
			return evp_http_number(value, INT64_MAX, &query->from) && query->from > 0 ? NULL : "must be a version from 1 on";
		case EVP_HTTP_MAX:
			return evp_http_number(value, INT64_MAX, &query->max) && query->max > 0 ? NULL : "must be a number from 1 on";
		case EVP_HTTP_AFTER:
			return evp_http_number(value, INT64_MAX, &query->after) ? NULL : "must be a position from 0 on";
		case EVP_HTTP_WAIT:
			return evp_http_time(value, &query->wait) ? NULL : "must be a time such as 500ms or 10s";
		case EVP_HTTP_BACKWARDS:
			query->backwards = yes;
			return yes || evp_slice_is(value, "false") || evp_slice_is(value, "0") ? NULL : "must be true or false";
		case EVP_HTTP_CONTEXT:
			return take_text(query, value, &query->context) && query->context.n > 0 ? NULL : "must be a pattern";
		case EVP_HTTP_TYPES:
			return take_list(query, value, &query->types);
		default:
			return take_list(query, value, &query->categories);
	}
}

bool
evp_http_query_read(evp_http_query_t *query, evp_slice_t text, unsigned allowed, char *why, size_t size)
{
	static const struct
	{
		const char *name;
		unsigned	flag;
	}			known[] = {{"from", EVP_HTTP_FROM}, {"max", EVP_HTTP_MAX}, {"backwards", EVP_HTTP_BACKWARDS}, {"after", EVP_HTTP_AFTER},
	{"types", EVP_HTTP_TYPES}, {"categories", EVP_HTTP_CATEGORIES}, {"context", EVP_HTTP_CONTEXT}, {"wait", EVP_HTTP_WAIT}};
	evp_slice_t name;
	evp_slice_t value;

	memset(query, 0, sizeof(*query));
	evp_buf_init(&query->text, text.n + 1);
	if (evp_buf_reserve(&query->text, text.n + 1) == NULL)
	{
		snprintf(why, size, "no memory for the parameters");
		return false;
	}
	while (next_parameter(&text, &name, &value))
	{
		const char *fault;
		size_t		i = 0;

		while (i < sizeof(known) / sizeof(known[0]) && !evp_slice_is(name, known[i].name))
			i++;
		if (i == sizeof(known) / sizeof(known[0]) || (known[i].flag & allowed) == 0)
		{
			snprintf(why, size, "unknown parameter \"%.*s\"", quotable(name, 60), (const char *) name.p);
			return false;
		}
		fault = (known[i].flag & query->given & ~(unsigned) (EVP_HTTP_TYPES | EVP_HTTP_CATEGORIES)) != 0 ? "is given twice" :
			take_value(query, known[i].flag, value);
		if (fault != NULL)
		{
			snprintf(why, size, "%s %s", known[i].name, fault);
			return false;
		}
		query->given |= known[i].flag;
	}
	return true;
}

void
evp_http_query_free(evp_http_query_t *query)
{
	evp_buf_free(&query->text);
}

/* ---- the body of an append ---- */

enum
{
	FIELD_TYPE = 1,
	FIELD_DATA = 2,
	FIELD_METADATA = 4,
	FIELD_ID = 8,
	FIELD_CONTEXT = 16,
	FIELD_CLASS = 32,
	FIELD_KIND = 64
};

static unsigned
field_of(evp_slice_t key)
{
	static const char *const names[] = {"type", "data", "metadata", "id", "context", "class", "kind"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (evp_slice_is(key, names[i]))
			return 1u << i;
	return 0;
}

/* A JSON string's text, behind those that were read before: there is room for all, so they stay where they are. */
static bool
read_string(evp_http_events_t *events, evp_json_t *j, evp_slice_t *text)
{
	size_t		start = events->text.len;

	if (evp_json_peek(j) != '"' || !evp_json_string(j, &events->text) || events->text.failed)
		return false;
	*text = evp_slice_of(events->text.data + start, events->text.len - start);
	return true;
}

/* A text of an event; NULL or what is wrong with it. */
static const char *
read_text(evp_http_events_t *events, evp_json_t *j, size_t least, size_t most, evp_slice_t *text)
{
	if (evp_json_peek(j) != '"')
		return "must be a text";
	if (!read_string(events, j, text))
		return "is not JSON";
	if (text->n < least)
		return "is empty";
	if (text->n > most)
		return "is too long";
	if (text->n > 0 && memchr(text->p, 0, text->n) != NULL)
		return "has a zero character";
	return NULL;
}

static const char *
read_field(evp_http_events_t *events, evp_json_t *j, unsigned field, evp_event_t *event)
{
	const char *fault = NULL;
	evp_slice_t text;

	if (evp_json_peek(j) == 'n' && (field & (FIELD_TYPE | FIELD_DATA)) == 0)
		return evp_json_skip(j, NULL) ? NULL : "is not JSON";	/* null: not given */
	switch (field)
	{
		case FIELD_TYPE:
			return read_text(events, j, 1, EVENTO_MAX_TYPE_LEN, &event->type);
		case FIELD_CONTEXT:
			return read_text(events, j, 1, EVENTO_MAX_CONTEXT_LEN, &event->context);
		case FIELD_CLASS:
			return read_text(events, j, 0, EVENTO_MAX_CLASS_LEN, &event->klass);
		case FIELD_DATA:
			return evp_json_skip(j, &event->data) ? NULL : "is not JSON";
		case FIELD_METADATA:
			return evp_json_skip(j, &event->metadata) ? NULL : "is not JSON";
		case FIELD_KIND:
			fault = read_text(events, j, 0, SIZE_MAX, &text);
			if (fault != NULL)
				return fault;
			event->service = evp_slice_is(text, "service");
			return event->service || evp_slice_is(text, "domain") ? NULL : "must be domain or service";
		case FIELD_ID:
			fault = read_text(events, j, 0, SIZE_MAX, &text);
			if (fault != NULL)
				return fault;
			event->has_id = evp_uuid_parse(text.p, text.n, event->id);
			return event->has_id ? NULL : "must be a UUID";
		default:
			return "is not a field of an event";
	}
}

static unsigned
refuse_event(const evp_http_events_t *events, const evp_json_t *j, evp_slice_t key, const char *fault, char *why, size_t size)
{
	/* A text that is no JSON at all is another fault than one that is no event. */
	if (key.p == NULL)
		snprintf(why, size, "event %zu %s", events->count + 1, fault);
	else
		snprintf(why, size, "\"%.*s\" of event %zu %s", quotable(key, 40), (const char *) key.p, events->count + 1, fault);
	return j->error ? 400 : 422;
}

static unsigned
read_event(evp_http_events_t *events, evp_json_t *j, char *why, size_t size)
{
	evp_event_t *event = &events->events[events->count];
	evp_slice_t key = {0};
	unsigned	seen = 0;
	bool		first = true;

	*event = (evp_event_t) {0};
	if (evp_json_peek(j) != '{')
		return refuse_event(events, j, key, evp_json_skip(j, NULL) ? "must be an object" : "is not JSON", why, size);
	evp_json_enter(j, '{');
	while (evp_json_more(j, '}', &first))
	{
		unsigned	field;
		const char *fault;

		if (!read_string(events, j, &key) || !evp_json_colon(j))
		{
			j->error = true;
			break;
		}
		field = field_of(key);
		fault = (field & seen) != 0 ? "is given twice" : read_field(events, j, field, event);
		if (fault != NULL)
			return refuse_event(events, j, key, fault, why, size);
		seen |= field;
	}
	key.p = NULL;
	if (j->error)
		return refuse_event(events, j, key, "is not JSON", why, size);
	if ((seen & FIELD_TYPE) == 0 || (seen & FIELD_DATA) == 0)
		return refuse_event(events, j, key, (seen & FIELD_TYPE) == 0 ? "has no type" : "has no data", why, size);
	events->with_id += event->has_id;
	events->count++;
	return 0;
}

static bool
make_room(evp_http_events_t *events, size_t *cap)
{
	evp_event_t *more;

	if (events->count < *cap)
		return true;
	*cap = *cap == 0 ? 1 : *cap * 4;
	more = realloc(events->events, *cap * sizeof(*more));
	if (more == NULL)
		return false;
	events->events = more;
	return true;
}

unsigned
evp_http_events_read(evp_http_events_t *events, evp_slice_t body, char *why, size_t size)
{
	evp_json_t	j;
	bool		first = true;
	size_t		cap = 0;
	unsigned	status = 0;
	bool		many;

	*events = (evp_http_events_t) {0};
	evp_buf_init(&events->text, body.n + 1);
	snprintf(why, size, "no memory for the events");
	if (evp_buf_reserve(&events->text, body.n + 1) == NULL)
		return 413;
	evp_json_init(&j, body);
	many = evp_json_peek(&j) == '[';
	if (!many)
		status = make_room(events, &cap) ? read_event(events, &j, why, size) : 413;
	else
	{
		evp_json_enter(&j, '[');
		while (status == 0 && evp_json_more(&j, ']', &first))
		{
			if (events->count == EVP_HTTP_MAX_EVENTS)
			{
				snprintf(why, size, "more than %d events in one append", EVP_HTTP_MAX_EVENTS);
				return 413;
			}
			status = make_room(events, &cap) ? read_event(events, &j, why, size) : 413;
		}
	}
	if (status == 0 && !evp_json_done(&j))
	{
		snprintf(why, size, "the body is not JSON");
		return 400;
	}
	if (status == 0 && events->count == 0)
	{
		snprintf(why, size, "no events");
		return 422;
	}
	if (status == 0 && events->with_id != 0 && events->with_id != events->count)
	{
		snprintf(why, size, "some events have an id and others have none: give all of them one, or none");
		return 422;
	}
	return status;
}

void
evp_http_events_free(evp_http_events_t *events)
{
	free(events->events);
	evp_buf_free(&events->text);
}
