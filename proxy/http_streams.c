/*
 * http_streams.c
 *    /streams/{stream}: appends events to a stream, reads them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "../include/errcodes.h"
#include "../include/packed.h"
#include "db.h"
#include "fair.h"
#include "http_parse.h"
#include "http_request.h"
#include "json.h"
#include "metrics.h"
#include "reads.h"
#include "rows.h"
#include "store.h"
#include "story.h"
#include "uuid.h"

#define READ_EVENTS		100		/* where the request does not say how many */
#define READ_MOST		1000
#define ANSWER_MAX		((size_t) 1024 * 1024 * 1024)
#define JSON_TYPE		"application/json"

/* The name of the stream in the path; false after a refusal. */
static bool
stream_of(evp_http_request_t *request, evp_buf_t *name)
{
	evp_buf_init(name, 4096);
	if (evp_http_name(request->path, "/streams/", EVENTO_MAX_STREAM_LEN, name))
		return true;
	evp_buf_free(name);
	evp_http_refuse(request, MHD_HTTP_BAD_REQUEST, "bad-request", "No name of a stream",
					"The path goes on with the percent-encoded name of a stream, of 1 to 512 bytes.");
	return false;
}

/* ---- POST ---- */

/* An append on its way. */
typedef struct append
{
	evp_http_request_t *request;	/* NULL: gone */
	evp_proxy_t *proxy;
	int64_t		expected;
	char	   *stream;
	size_t		count;
	uint8_t		(*ids)[16];
} append_t;

static void
drop_append(void *work)
{
	((append_t *) work)->request = NULL;
}

static const evp_http_work_t append_work = {.drop = drop_append};

static void
free_append(append_t *append)
{
	free(append->stream);
	free(append->ids);
	free(append);
}

static void
put_ids(evp_buf_t *b, const append_t *append)
{
	evp_buf_append_str(b, "\"ids\":[");
	for (size_t i = 0; i < append->count; i++)
	{
		if (i > 0)
			evp_buf_append_u8(b, ',');
		evp_http_put_id(b, append->ids[i]);
	}
	evp_buf_append_u8(b, ']');
}

static void
answer_appended(append_t *append, bool repeat, int64_t first, int64_t last)
{
	evp_http_request_t *request = append->request;
	evp_buf_t	b;

	evp_buf_init(&b, ANSWER_MAX);
	evp_buf_append_str(&b, "{\"stream\":");
	evp_json_put_string(&b, append->stream, strlen(append->stream), true);
	evp_buf_appendf(&b, ",\"first\":%" PRId64 ",\"last\":%" PRId64 ",", first, last);
	put_ids(&b, append);
	evp_buf_append_str(&b, "}\n");
	evp_http_add_header(request, "Evento-Stream-Version", "%" PRId64, last);
	evp_http_answer(request, repeat ? MHD_HTTP_OK : MHD_HTTP_CREATED, JSON_TYPE, &b);
}

static void
answer_conflict(append_t *append, const char *message)
{
	evp_http_problem_t problem = {.detail = message};
	evp_buf_t	extra;
	int64_t		found;

	evp_http_problem_of(&problem, EVENTO_SQLSTATE_WRONG_VERSION);
	evp_buf_init(&extra, 200);
	if (append->expected != EVENTO_EXPECTED_ANY)
		evp_buf_appendf(&extra, ",\"expected\":%" PRId64, append->expected);
	if (evp_http_found(message, &found))
		evp_buf_appendf(&extra, ",\"found\":%" PRId64, found);
	evp_buf_append(&extra, "", 1);
	problem.extra = (const char *) extra.data;
	evp_http_problem(append->request, &problem);
	evp_buf_free(&extra);
}

/* No outcome, or not now.  Whoever gave no ids gets those under which the events may be stored yet. */
static void
answer_away(append_t *append, const char *type, const char *title, const char *message)
{
	evp_buf_t	extra;

	evp_buf_init(&extra, ANSWER_MAX);
	evp_buf_append_u8(&extra, ',');
	put_ids(&extra, append);
	evp_buf_append(&extra, "", 1);
	evp_http_problem(append->request, &(evp_http_problem_t) {.status = MHD_HTTP_SERVICE_UNAVAILABLE,.type = type,.title = title,
					 .detail = message,.extra = extra.failed ? NULL : (const char *) extra.data});
	evp_buf_free(&extra);
}

static void
on_appended(void *arg, evp_store_status_t status, int64_t first, int64_t last, const char *message)
{
	append_t   *append = arg;
	evp_http_problem_t problem = {.detail = message};
	const char *sqlstate;

	if (append->request == NULL)
	{
		free_append(append);
		return;
	}
	switch (status)
	{
		case EVP_STORE_OK:
		case EVP_STORE_REPEAT:
			answer_appended(append, status == EVP_STORE_REPEAT, first, last);
			break;
		case EVP_STORE_CONFLICT:
			answer_conflict(append, message);
			break;
		case EVP_STORE_AWAY:
			answer_away(append, "database-away", "The database has not confirmed it", message);
			break;
		case EVP_STORE_REFUSED:
			sqlstate = evp_store_sqlstate(append->proxy->store);
			if (sqlstate[0] == '\0')
				answer_away(append, "busy", "The proxy cannot take it now", message);
			else
			{
				evp_http_problem_of(&problem, sqlstate);
				evp_http_problem(append->request, &problem);
			}
			break;
		default:
			answer_away(append, "busy", "The stream is busy", message);
	}
	free_append(append);
}

/* The headers of an append; false after a refusal. */
static bool
read_headers(evp_http_request_t *request, evp_http_events_t *events, int64_t *expected)
{
	const char *type = evp_http_header(request, MHD_HTTP_HEADER_CONTENT_TYPE);
	const char *version = evp_http_header(request, "Evento-Expected-Version");
	const char *id = evp_http_header(request, "Evento-Event-Id");
	const char *fault = NULL;

	*expected = EVENTO_EXPECTED_ANY;
	if (version != NULL && !evp_http_expected(evp_slice_str(version), expected))
		fault = "Evento-Expected-Version must be a version, any, none or exists.";
	else if (id != NULL && events->count != 1)
		fault = "Evento-Event-Id is for one event; several carry their ids themselves.";
	else if (id != NULL && events->events[0].has_id)
		fault = "The event has an id, and so has the header Evento-Event-Id.";
	else if (id != NULL && !evp_uuid_parse(id, strlen(id), events->events[0].id))
		fault = "Evento-Event-Id must be a UUID.";
	if (fault != NULL)
	{
		evp_http_refuse(request, MHD_HTTP_BAD_REQUEST, "bad-request", "A header is not understood", fault);
		return false;
	}
	/* A page in a browser can send other types to any address without asking. */
	if (type == NULL || strncasecmp(type, JSON_TYPE, sizeof(JSON_TYPE) - 1) != 0 ||
		strchr("; \t", type[sizeof(JSON_TYPE) - 1]) == NULL)
	{
		evp_http_refuse(request, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, "media-type", "The body must be application/json", NULL);
		return false;
	}
	if (id != NULL)
		events->events[0].has_id = true;
	return true;
}

static append_t *
new_append(evp_http_request_t *request, const evp_buf_t *name, evp_http_events_t *events, int64_t expected)
{
	append_t   *append = calloc(1, sizeof(*append));

	if (append == NULL)
		return NULL;
	append->request = request;
	append->proxy = request->proxy;
	append->expected = expected;
	append->count = events->count;
	append->stream = strndup((const char *) name->data, name->len);
	append->ids = calloc(events->count, sizeof(*append->ids));
	if (append->stream == NULL || append->ids == NULL)
	{
		free_append(append);
		return NULL;
	}
	for (size_t i = 0; i < events->count; i++)
	{
		evp_event_t *event = &events->events[i];

		/* With ids an outcome that got lost can be asked for again. */
		if (!event->has_id)
			evp_uuid_v4(event->id);
		event->has_id = true;
		memcpy(append->ids[i], event->id, 16);
	}
	return append;
}

static void
start_append(evp_http_request_t *request, const evp_buf_t *name, evp_http_events_t *events, int64_t expected)
{
	const evp_pack_item_t item = {.expected = expected,.stream = evp_slice_of(name->data, name->len),.events = events->events,
	.n_events = events->count};
	append_t   *append = new_append(request, name, events, expected);

	if (append == NULL)
	{
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "busy", "No memory for the events", NULL);
		return;
	}
	evp_http_wait(request, &append_work, append);
	evp_store_append(request->proxy->store, EVP_SOURCE_HTTP, &item, evp_now(request->proxy) + request->proxy->config.http_timeout,
					 on_appended, append);
}

void
evp_http_post_stream(evp_http_request_t *request)
{
	evp_buf_t	name;
	evp_http_events_t events;
	char		why[200];
	int64_t		expected;
	unsigned	fault;

	if (!stream_of(request, &name))
		return;
	fault = evp_http_events_read(&events, evp_slice_of(request->body.data, request->body.len), why, sizeof(why));
	if (fault != 0)
		evp_http_refuse(request, fault, fault == 400 ? "bad-request" : fault == 413 ? "too-large" : "not-acceptable",
						fault == 400 ? "The body is not JSON" : "The body has no events to append", why);
	else if (request->query.n > 0)
		evp_http_refuse(request, MHD_HTTP_BAD_REQUEST, "bad-request", "An append takes no parameters", NULL);
	else if (read_headers(request, &events, &expected))
		start_append(request, &name, &events, expected);
	evp_http_events_free(&events);
	evp_buf_free(&name);
	/* The store has a copy, and a bound of its own. */
	evp_buf_free(&request->body);
	if (request->response == NULL)
		evp_http_holds(request, 0);
}

/* ---- GET ---- */

/* A read on its way. */
typedef struct read
{
	evp_http_request_t *request;	/* NULL: gone */
	evp_http_query_t query;
	int64_t		version;		/* that the client has seen */
	bool		primary;		/* a standby has not that version */
	evp_buf_t	name;
	evp_db_tries_t tries;
	uint64_t	give_up;
} read_t;

static void start_read(read_t *read);

static void
drop_read(void *work)
{
	((read_t *) work)->request = NULL;
}

static const evp_http_work_t read_work = {.drop = drop_read};

static void
free_read(read_t *read)
{
	evp_http_query_free(&read->query);
	evp_buf_free(&read->name);
	free(read);
}

/* Columns of the read: the stream's head, what became of it, how many events there are to give; then the event. */
enum
{
	COL_HEAD,
	COL_DELETED,
	COL_TOMBSTONE,
	COL_TOTAL,
	COL_EVENT
};

static void
answer_missing(read_t *read, const PGresult *rows)
{
	bool		flag = false;

	if (PQntuples(rows) > 0 && evp_row_bool(rows, 0, COL_TOMBSTONE, &flag) && flag)
	{
		evp_http_problem_t problem = {.detail = "No event of it is shown, and none can be appended."};

		evp_http_problem_of(&problem, EVENTO_SQLSTATE_STREAM_DELETED);
		problem.sqlstate = NULL;
		evp_http_problem(read->request, &problem);
	}
	else
		evp_http_refuse(read->request, MHD_HTTP_NOT_FOUND, "no-stream", "There is no such stream",
						PQntuples(rows) > 0 ? "It was deleted; an append begins it anew." : NULL);
}

/* The link to what comes behind the last event that is given. */
static void
put_next(evp_buf_t *b, const read_t *read, int64_t last)
{
	evp_buf_append_str(b, ",\"next\":\"/streams/");
	evp_http_encode(b, evp_slice_of(read->name.data, read->name.len));
	evp_buf_appendf(b, "?from=%" PRId64 "&max=%" PRId64 "%s\"", last + (read->query.backwards ? -1 : 1), read->query.max,
					read->query.backwards ? "&backwards=true" : "");
}

static void
answer_events(read_t *read, const PGresult *rows)
{
	evp_http_request_t *request = read->request;
	evp_slice_t name = evp_slice_of(read->name.data, read->name.len);
	evp_buf_t	b;
	int64_t		head = 0;
	int64_t		total = 0;
	int64_t		last = 0;
	int64_t		given = 0;

	evp_buf_init(&b, ANSWER_MAX);
	evp_row_int64(rows, 0, COL_HEAD, &head);
	evp_row_int64(rows, 0, COL_TOTAL, &total);
	evp_buf_append_str(&b, "{\"stream\":");
	evp_json_put_string(&b, name.p, name.n, true);
	evp_buf_appendf(&b, ",\"version\":%" PRId64 ",\"events\":[", head);
	for (int row = 0; row < PQntuples(rows) && given < read->query.max; row++)
	{
		evp_event_t event;

		if (!evp_story_event(rows, row, COL_EVENT, &event))
			continue;			/* the row that says that there is none */
		event.stream = name;
		if (given++ > 0)
			evp_buf_append_u8(&b, ',');
		evp_http_put_event(&b, &event);
		last = event.version;
	}
	evp_metrics.http_events += (uint64_t) given;
	evp_buf_append_u8(&b, ']');
	if (given < total && !(read->query.backwards && last <= 1))
		put_next(&b, read, last);
	evp_buf_append_str(&b, "}\n");
	evp_http_add_header(request, "Evento-Stream-Version", "%" PRId64, head);
	evp_http_answer(request, MHD_HTTP_OK, JSON_TYPE, &b);
}

/* Has the stream not come to the version that the client has seen? */
static bool
lacks_version(const read_t *read, const PGresult *rows)
{
	int64_t		head = 0;

	return read->version > 0 && (PQntuples(rows) == 0 || (evp_row_int64(rows, 0, COL_HEAD, &head) && head < read->version));
}

static void
on_read(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_BOOL, EVP_OID_BOOL, EVP_OID_INT8, EVP_EVENT_COLUMN_TYPES};
	read_t	   *read = arg;
	evp_http_problem_t problem = {.detail = result->message};
	bool		deleted = false;

	if (read->request == NULL)
	{
		free_read(read);
		return;
	}
	if (result->standby && lacks_version(read, result->rows))
	{
		read->primary = true;
		start_read(read);
		return;
	}
	if (evp_db_read_again(read->request->proxy->db, result, &read->tries, read->give_up))
	{
		start_read(read);
		return;
	}
	if (result->status == EVP_DB_ERROR)
	{
		evp_http_problem_of(&problem, result->sqlstate);
		evp_http_problem(read->request, &problem);
	}
	else if (result->status != EVP_DB_OK)
		evp_http_refuse(read->request, MHD_HTTP_SERVICE_UNAVAILABLE, "database-away", "The database is not reachable", result->message);
	else if (!evp_rows_are(result->rows, types, COL_EVENT + EVP_EVENT_COLUMN_COUNT))
		evp_http_refuse(read->request, MHD_HTTP_INTERNAL_SERVER_ERROR, "internal", "The database is of another version", NULL);
	else if (PQntuples(result->rows) == 0 || (evp_row_bool(result->rows, 0, COL_DELETED, &deleted) && deleted))
		answer_missing(read, result->rows);
	else
		answer_events(read, result->rows);
	free_read(read);
}

/*
 * One statement, so that head and events go together.  It asks for one event
 * more than is given, to know whether there are more, and leaves out those
 * beyond the size of an answer, but for the first.
 */
static void
start_read(read_t *read)
{
	static const Oid types[] = {EVP_OID_TEXT, EVP_OID_INT8, EVP_OID_INT8, EVP_OID_BOOL, EVP_OID_INT8};
	static const int formats[] = {1, 1, 1, 1, 1};
	evp_proxy_t *proxy = read->request->proxy;
	uint8_t		numbers[3][8];
	const char	backwards = read->query.backwards;
	const char *values[] = {(const char *) read->name.data, (read->query.given & EVP_HTTP_FROM) != 0 ? (const char *) numbers[0] : NULL,
	(const char *) numbers[1], &backwards, (const char *) numbers[2]};
	const int	lengths[] = {(int) read->name.len, 8, 8, 1, 8};
	const evp_db_statement_t statement = {.sql =
		"SELECT head, deleted, tombstone, total, " EVP_EVENT_COLUMNS
		"  FROM (SELECT version AS head, deleted_at IS NOT NULL AS deleted, tombstone FROM evento.streams WHERE stream = $1) s"
		"  LEFT JOIN (SELECT e.*, count(*) OVER () AS total, row_number() OVER given AS number,"
		"                    sum(coalesce(octet_length(data::text), 0) + coalesce(octet_length(metadata::text), 0)) OVER given AS bytes"
		"               FROM evento.read_stream($1, $2, $3, $4) e"
		"             WINDOW given AS (ORDER BY CASE WHEN $4 THEN -version ELSE version END)) e ON number = 1 OR bytes <= $5"
		" ORDER BY number",
		.nparams = 5,.types = types,.values = values,.lengths = lengths,.formats = formats,.result_format = 1,
		.source = EVP_SOURCE_HTTP,.deadline = read->give_up};

	evp_param_int64(numbers[0], read->query.from);
	evp_param_int64(numbers[1], read->query.max + 1);
	evp_param_int64(numbers[2], (int64_t) proxy->config.http_answer);
	if (read->primary)
		evp_db_run(proxy->db, EVP_DB_READ, &statement, on_read, read);
	else
		evp_reads_run(proxy->reads, &statement, read->query.seen, 0, on_read, read);
}

void
evp_http_get_stream(evp_http_request_t *request)
{
	read_t	   *read;
	char		why[200];

	if (!evp_http_hold(request, 0))
		return;
	read = calloc(1, sizeof(*read));
	if (read == NULL)
	{
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "busy", "No memory", NULL);
		return;
	}
	read->request = request;
	if (!evp_http_query_read(&read->query, request->query, EVP_HTTP_FROM | EVP_HTTP_MAX | EVP_HTTP_BACKWARDS, why, sizeof(why)))
	{
		evp_http_refuse(request, MHD_HTTP_BAD_REQUEST, "bad-request", "A parameter is not understood", why);
		free_read(read);
		return;
	}
	if (!evp_http_seen(request, "Evento-Position", &read->query.seen) ||
		!evp_http_seen(request, "Evento-Stream-Version", &read->version) || !stream_of(request, &read->name))
	{
		free_read(read);
		return;
	}
	if ((read->query.given & EVP_HTTP_MAX) == 0)
		read->query.max = READ_EVENTS;
	if (read->query.max > READ_MOST)
		read->query.max = READ_MOST;
	read->tries.begun = evp_now(request->proxy);
	read->give_up = evp_store_wait_until(request->proxy->store, UINT64_MAX);
	evp_http_wait(request, &read_work, read);
	start_read(read);
}
