/*
 * fuzz_http.c
 *    Fuzz target: what comes in over HTTP as text.  What is taken lies within
 *    what came, keeps to its bounds, and goes out again as JSON that is one.
 *
 * The first line of the input is a target, the second the value of a header,
 * the rest a body.
 */
#include <stdlib.h>

#include "../include/packed.h"
#include "http_parse.h"
#include "http_render.h"
#include "json.h"

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
need(bool ok)
{
	if (!ok)
		abort();
}

static bool
lies_in(evp_slice_t part, const uint8_t *p, size_t n)
{
	return part.p == NULL || (part.p >= p && part.p + part.n <= p + n);
}

static void
check_query(evp_slice_t text, unsigned allowed)
{
	evp_http_query_t query;
	char		why[200] = "";

	if (evp_http_query_read(&query, text, allowed, why, sizeof(why)))
	{
		need((query.given & ~allowed) == 0 && query.types.n <= EVP_HTTP_MAX_LIST && query.categories.n <= EVP_HTTP_MAX_LIST);
		need(query.after >= 0 && query.from >= 0 && query.max >= 0 && query.wait <= 86400000);
		for (size_t i = 0; i < query.types.n; i++)
			need(query.types.items[i].n > 0 && lies_in(query.types.items[i], query.text.data, query.text.len));
		need(lies_in(query.context, query.text.data, query.text.len));
	}
	else
		need(why[0] != '\0');
	evp_http_query_free(&query);
}

static void
check_target(const char *target)
{
	evp_slice_t path;
	evp_slice_t query;
	evp_buf_t	name;
	evp_buf_t	again;
	evp_buf_t	decoded;

	evp_http_split(target, &path, &query);
	check_query(query, ~0u);
	check_query(query, EVP_HTTP_FROM | EVP_HTTP_MAX | EVP_HTTP_BACKWARDS);
	evp_buf_init(&name, 4096);
	if (evp_http_name(path, "/streams/", EVENTO_MAX_STREAM_LEN, &name))
	{
		/* Encoded it is the same name. */
		need(name.len >= 1 && name.len <= EVENTO_MAX_STREAM_LEN && memchr(name.data, 0, name.len) == NULL);
		evp_buf_init(&again, 4096);
		evp_http_encode(&again, evp_slice_of(name.data, name.len));
		path = evp_slice_of(again.data, again.len);
		evp_buf_init(&decoded, 4096);
		need(evp_http_decode(path, true, &decoded) && decoded.len == name.len && memcmp(decoded.data, name.data, name.len) == 0);
		evp_buf_free(&decoded);
		evp_buf_free(&again);
	}
	evp_buf_free(&name);
}

static void
check_header(const char *value)
{
	int64_t		n = 1;
	uint64_t	ms;

	if (evp_http_expected(evp_slice_str(value), &n))
		need(n >= 0 || n == EVENTO_EXPECTED_ANY || n == EVENTO_EXPECTED_EXISTS);
	if (evp_http_time(evp_slice_str(value), &ms))
		need(ms <= 86400000);
	if (evp_http_found(value, &n))
		need(n >= 0);
}

/* Out again: JSON, and server-sent events whose lines are no others than these. */
static void
check_out(const evp_event_t *event)
{
	evp_buf_t	b;

	evp_buf_init(&b, SIZE_MAX);
	evp_http_put_event(&b, event);
	need(evp_json_valid(evp_slice_of(b.data, b.len)));
	evp_buf_reset(&b);
	evp_http_put_sse(&b, event);
	need(b.len > 2 && memcmp(b.data + b.len - 2, "\n\n", 2) == 0 && memchr(b.data, '\r', b.len) == NULL);
	for (size_t i = 0; i + 2 < b.len; i++)
		if (b.data[i] == '\n')
			need(b.len - i > 6 && memcmp(b.data + i + 1, "data: ", 6) == 0);
	evp_buf_free(&b);
}

static void
check_body(evp_slice_t body)
{
	evp_http_events_t events;
	char		why[200] = "";
	unsigned	status = evp_http_events_read(&events, body, why, sizeof(why));

	need(status == 0 || status == 400 || status == 413 || status == 422);
	if (status == 0)
	{
		need(events.count >= 1 && events.count <= EVP_HTTP_MAX_EVENTS && evp_json_valid(body));
		for (size_t i = 0; i < events.count; i++)
		{
			const evp_event_t *event = &events.events[i];

			need(event->type.n >= 1 && event->type.n <= EVENTO_MAX_TYPE_LEN && lies_in(event->type, events.text.data, events.text.len));
			need(lies_in(event->data, body.p, body.n) && evp_json_valid(event->data));
			need(lies_in(event->metadata, body.p, body.n) && (event->metadata.p == NULL || evp_json_valid(event->metadata)));
			check_out(event);
		}
	}
	else
		need(why[0] != '\0');
	evp_http_events_free(&events);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = data + size;
	char		line[1024];

	for (int i = 0; i < 2; i++)
	{
		const uint8_t *stop = memchr(data, '\n', (size_t) (end - data));
		size_t		n = stop == NULL ? (size_t) (end - data) : (size_t) (stop - data);

		if (n >= sizeof(line))
			return 0;
		memcpy(line, data, n);
		line[n] = '\0';
		if (i == 0)
			check_target(line);
		else
			check_header(line);
		data = stop == NULL ? end : stop + 1;
	}
	check_body(evp_slice_of(data, (size_t) (end - data)));
	return 0;
}
