/*
 * http_render.c
 *    What goes out over HTTP as text: events as JSON and as server-sent events,
 *    problems.
 */
#include "http_render.h"

#include <inttypes.h>
#include <time.h>

#include "../include/errcodes.h"
#include "json.h"
#include "uuid.h"

/* Within the years that a client can read. */
#define LEAST_MS	INT64_C(-62135596800000)
#define MOST_MS		INT64_C(253402300799999)

void
evp_http_put_time(evp_buf_t *b, int64_t ms)
{
	int64_t		bounded = ms < LEAST_MS ? LEAST_MS : ms > MOST_MS ? MOST_MS : ms;
	int64_t		seconds = bounded / 1000 - (bounded % 1000 < 0);
	time_t		t = (time_t) seconds;
	struct tm	tm;

	gmtime_r(&t, &tm);
	evp_buf_appendf(b, "\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
					tm.tm_sec, (int) (bounded - seconds * 1000));
}

void
evp_http_put_id(evp_buf_t *b, const uint8_t id[16])
{
	char		text[EVP_UUID_TEXT_LEN + 1];

	evp_uuid_format(id, text);
	evp_buf_appendf(b, "\"%s\"", text);
}

/* A text, or null. */
static void
put_text(evp_buf_t *b, const char *name, evp_slice_t text)
{
	evp_buf_append_str(b, name);
	if (text.p == NULL)
		evp_buf_append_str(b, "null");
	else
		evp_json_put_string(b, text.p, text.n, true);
}

/* JSON text as it is, or null. */
static void
put_json(evp_buf_t *b, const char *name, evp_slice_t json)
{
	evp_buf_append_str(b, name);
	if (json.p == NULL)
		evp_buf_append_str(b, "null");
	else
		evp_buf_append(b, json.p, json.n);
}

void
evp_http_put_event(evp_buf_t *b, const evp_event_t *event)
{
	evp_buf_appendf(b, "{\"position\":%" PRId64, event->position);
	put_text(b, ",\"stream\":", event->stream);
	if (event->version > 0)
		evp_buf_appendf(b, ",\"version\":%" PRId64, event->version);
	else
		evp_buf_append_str(b, ",\"version\":null");
	evp_buf_append_str(b, ",\"id\":");
	evp_http_put_id(b, event->id);
	put_text(b, ",\"type\":", event->type);
	put_text(b, ",\"context\":", event->context);
	evp_buf_appendf(b, ",\"kind\":\"%s\"", event->service ? "service" : "domain");
	put_text(b, ",\"class\":", event->klass);
	evp_buf_append_str(b, ",\"timestamp\":");
	evp_http_put_time(b, event->timestamp_ms);
	evp_buf_append_str(b, ",\"recorded_at\":");
	evp_http_put_time(b, event->recorded_ms);
	evp_buf_appendf(b, ",\"erased\":%s", event->data.p == NULL ? "true" : "false");
	put_json(b, ",\"data\":", event->data);
	put_json(b, ",\"metadata\":", event->metadata);
	evp_buf_append_u8(b, '}');
}

void
evp_http_put_sse(evp_buf_t *b, const evp_event_t *event)
{
	size_t		start;
	size_t		breaks = 0;
	uint8_t    *to;

	evp_buf_appendf(b, "id: %" PRId64 "\ndata: ", event->position);
	start = b->len;
	evp_http_put_event(b, event);
	if (b->failed)
		return;
	/* A line break can only be white space in data or metadata: each makes another line of data. */
	for (size_t i = start; i < b->len; i++)
		breaks += b->data[i] == '\n' || b->data[i] == '\r';
	if (evp_buf_reserve(b, breaks * 6) == NULL)
		return;
	to = b->data + b->len + breaks * 6;
	for (size_t i = b->len; breaks > 0 && i-- > start;)
	{
		uint8_t		c = b->data[i];

		if (c == '\n' || c == '\r')
		{
			to -= 7;
			memcpy(to, "\ndata: ", 7);
		}
		else
			*--to = c;
	}
	b->len += breaks * 6;
	evp_buf_append(b, "\n\n", 2);
}

void
evp_http_encode(evp_buf_t *b, evp_slice_t text)
{
	for (size_t i = 0; i < text.n; i++)
	{
		uint8_t		c = text.p[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~')
			evp_buf_append_u8(b, c);
		else
			evp_buf_appendf(b, "%%%02X", c);
	}
}

void
evp_http_put_problem(evp_buf_t *b, const evp_http_problem_t *problem)
{
	evp_buf_appendf(b, "{\"type\":\"urn:evento:%s\",\"title\":", problem->type);
	evp_json_put_string(b, problem->title, strlen(problem->title), true);
	evp_buf_appendf(b, ",\"status\":%u", problem->status);
	if (problem->detail != NULL)
	{
		evp_buf_append_str(b, ",\"detail\":");
		evp_json_put_string(b, problem->detail, strlen(problem->detail), true);
	}
	if (problem->sqlstate != NULL && problem->sqlstate[0] != '\0')
	{
		evp_buf_append_str(b, ",\"sqlstate\":");
		evp_json_put_string(b, problem->sqlstate, strlen(problem->sqlstate), true);
	}
	if (problem->extra != NULL)
		evp_buf_append_str(b, problem->extra);
	evp_buf_append_str(b, "}\n");
}

void
evp_http_problem_of(evp_http_problem_t *problem, const char *sqlstate)
{
	/* By the longest beginning. */
	static const struct
	{
		const char *state;
		unsigned	status;
		const char *type;
		const char *title;
	}			known[] = {
		{EVENTO_SQLSTATE_WRONG_VERSION, 409, "wrong-version", "The stream is not at the version that was expected"},
		{EVENTO_SQLSTATE_ID_CLASH, 409, "id-used", "The event id is used for other content"},
		{EVENTO_SQLSTATE_STREAM_DELETED, 410, "stream-gone", "The stream was deleted for good"},
		{EVENTO_SQLSTATE_NOT_PRELOADED, 503, "not-ready", "The database is not set up"},
		{EVENTO_SQLSTATE_READ_ONLY, 503, "read-only", "The database is a standby"},
		{"25006", 503, "read-only", "The database is read-only"},
		{"42501", 403, "forbidden", "The proxy's role may not do this"},
		{"08", 503, "database-away", "The database is not reachable"},
		{"22", 422, "not-acceptable", "The database does not take these values"},
		{"23", 422, "not-acceptable", "The database does not take these values"},
		{"40", 503, "busy", "The database is busy"},
		{"53", 503, "busy", "The database is short of something"},
		{"54", 413, "too-large", "Too large for the database"},
		{"55", 503, "busy", "The database is busy"},
		{"57", 503, "database-away", "The database stops or starts"}
	};

	problem->status = 500;
	problem->type = "internal";
	problem->title = "The database refused it";
	problem->sqlstate = sqlstate;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strncmp(sqlstate, known[i].state, strlen(known[i].state)) == 0)
		{
			problem->status = known[i].status;
			problem->type = known[i].type;
			problem->title = known[i].title;
			return;
		}
}
