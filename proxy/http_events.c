/*
 * http_events.c
 *    GET /events: events behind a position, waiting for them where it is asked
 *    for.  The same as server-sent events is in http_sse.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "http_log.h"
#include "http_parse.h"
#include "http_request.h"
#include "metrics.h"

#define READ_EVENTS		100		/* where the request does not say how many */
#define READ_MOST		1000
#define LOST_MAX		((size_t) 16 * 1024 * 1024)
#define ANSWER_MAX		((size_t) 1024 * 1024 * 1024)

typedef struct fetch
{
	evp_http_request_t *request;
	evp_http_query_t *query;
	evp_cursor_t cursor;
	evp_buf_t	answer;			/* the events, with commas between */
	evp_buf_t	lost;			/* the jump that the client stands in; empty: none */
	int64_t		count;
	uint64_t	until;			/* answered then at the latest */
} fetch_t;

static void
free_fetch(fetch_t *fetch)
{
	evp_cursor_close(&fetch->cursor);
	evp_http_query_free(fetch->query);
	free(fetch->query);
	evp_buf_free(&fetch->answer);
	evp_buf_free(&fetch->lost);
	free(fetch);
}

static void
drop_fetch(void *work)
{
	free_fetch(work);
}

static void
answer_fetch(fetch_t *fetch)
{
	evp_http_request_t *request = fetch->request;
	evp_buf_t	b;

	evp_buf_init(&b, ANSWER_MAX);
	evp_buf_append_str(&b, "{\"events\":[");
	evp_buf_append(&b, fetch->answer.data, fetch->answer.len);
	evp_buf_appendf(&b, "],\"position\":%" PRId64, fetch->cursor.position);
	if (fetch->lost.len > 0)
	{
		evp_buf_append_str(&b, ",\"lost_range\":");
		evp_buf_append(&b, fetch->lost.data, fetch->lost.len);
	}
	evp_buf_append_str(&b, "}\n");
	b.failed = b.failed || fetch->answer.failed || fetch->lost.failed;
	evp_metrics.http_events += (uint64_t) fetch->count;
	evp_http_add_header(request, "Evento-Position", "%" PRId64, fetch->cursor.position);
	free_fetch(fetch);
	evp_http_answer(request, MHD_HTTP_OK, "application/json", &b);
}

static bool
take_event(void *arg, const evp_event_t *event)
{
	fetch_t    *fetch = arg;

	if (fetch->count == fetch->cursor.max ||
		(fetch->count > 0 && fetch->answer.len + event->data.n + event->metadata.n > fetch->cursor.bytes))
		return false;
	if (fetch->count++ > 0)
		evp_buf_append_u8(&fetch->answer, ',');
	evp_http_put_event(&fetch->answer, event);
	return true;
}

/* One that comes behind another is where the client stands. */
static void
put_lost(void *arg, const evp_jump_t *jump)
{
	fetch_t    *fetch = arg;

	/* Not one that it has reached by what it is given: it comes back and is told. */
	if (fetch->count > 0)
		return;
	evp_buf_reset(&fetch->lost);
	evp_buf_append_str(&fetch->lost, jump->text);
}

/* Answers, or goes on where there is nothing yet and time is left. */
static void
move_on(void *arg)
{
	fetch_t    *fetch = arg;

	/* Its first read begins here, and every one whose answer would be empty goes on. */
	while (fetch->count == 0 && (!fetch->cursor.asked || evp_now(fetch->request->proxy) < fetch->until))
		if (evp_cursor_step(&fetch->cursor) != EVP_CURSOR_IDLE)
			break;
	if (fetch->count > 0 || (fetch->cursor.asked && evp_now(fetch->request->proxy) >= fetch->until))
		answer_fetch(fetch);
}

static void
on_failed(void *arg, const char *sqlstate, const char *message)
{
	fetch_t    *fetch = arg;
	evp_http_request_t *request = fetch->request;
	evp_http_problem_t problem = {.status = MHD_HTTP_SERVICE_UNAVAILABLE,.type = "database-away",.title = "The database is not reachable"};

	if (sqlstate[0] != '\0')
		evp_http_problem_of(&problem, sqlstate);
	problem.detail = message;
	free_fetch(fetch);
	evp_http_problem(request, &problem);
}

static const evp_cursor_events_t cursor_events = {.take = take_event,.lost = put_lost,.ready = move_on,.failed = on_failed};

static void
on_tick(void *work, uint64_t now)
{
	fetch_t    *fetch = work;

	/* One whose first read has not ended waits for that; and one that is kept from going on, for as long as for a read. */
	if (now >= fetch->until && (fetch->cursor.asked || (fetch->cursor.barred > 0 && now >= fetch->cursor.give_up)))
		answer_fetch(fetch);
	else if (fetch->cursor.state == EVP_CURSOR_HEAD)
		move_on(fetch);			/* keeps the tail */
}

static void
on_leave(void *work)
{
	fetch_t    *fetch = work;

	/* One whose first read has not ended waits for that, and for nothing behind it. */
	fetch->until = 0;
	if (fetch->cursor.asked)
		answer_fetch(fetch);
}

static const evp_http_work_t fetch_work = {.drop = drop_fetch,.tick = on_tick,.leave = on_leave};

bool
evp_http_seen(evp_http_request_t *request, const char *name, int64_t *value)
{
	const char *text = evp_http_header(request, name);
	char		detail[80];

	*value = 0;
	if (text == NULL || evp_http_number(evp_slice_str(text), INT64_MAX, value))
		return true;
	snprintf(detail, sizeof(detail), "%s must be a number from 0 on.", name);
	evp_http_refuse(request, MHD_HTTP_BAD_REQUEST, "bad-request", "A header is not understood", detail);
	return false;
}

static bool
wants_stream(const evp_http_request_t *request)
{
	const char *accept = evp_http_header(request, MHD_HTTP_HEADER_ACCEPT);

	return accept != NULL && strstr(accept, "text/event-stream") != NULL && !request->head;
}

static void
start_fetch(evp_http_request_t *request, evp_http_query_t *query)
{
	fetch_t    *fetch = calloc(1, sizeof(*fetch));

	if (fetch == NULL)
	{
		evp_http_query_free(query);
		free(query);
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "busy", "No memory", NULL);
		return;
	}
	fetch->request = request;
	fetch->query = query;
	evp_buf_init(&fetch->answer, ANSWER_MAX);
	evp_buf_init(&fetch->lost, LOST_MAX);
	if (query->wait > request->proxy->config.http_wait)
		query->wait = request->proxy->config.http_wait;
	fetch->until = evp_now(request->proxy) + (request->head || request->proxy->draining ? 0 : query->wait);
	evp_cursor_init(&fetch->cursor, evp_http_log_of(request), query, &cursor_events, fetch);
	fetch->cursor.max = (query->given & EVP_HTTP_MAX) == 0 ? READ_EVENTS : query->max > READ_MOST ? READ_MOST : query->max;
	fetch->cursor.bytes = request->proxy->config.http_answer;
	evp_http_wait(request, &fetch_work, fetch);
	(void) evp_cursor_step(&fetch->cursor);
}

void
evp_http_get_events(evp_http_request_t *request)
{
	evp_http_query_t *query = calloc(1, sizeof(*query));
	char		why[200] = "no memory";

	if (query == NULL || !evp_http_query_read(query, request->query, EVP_HTTP_AFTER | EVP_HTTP_MAX | EVP_HTTP_TYPES | EVP_HTTP_CATEGORIES |
											  EVP_HTTP_CONTEXT | EVP_HTTP_WAIT, why, sizeof(why)))
	{
		evp_http_refuse(request, MHD_HTTP_BAD_REQUEST, "bad-request", "A parameter is not understood", why);
		if (query != NULL)
			evp_http_query_free(query);
		free(query);
	}
	else if (!evp_http_seen(request, "Evento-Position", &query->seen) || !evp_http_may_wait(request) || !evp_http_hold(request, 0))
	{
		evp_http_query_free(query);
		free(query);
	}
	else if (wants_stream(request))
		evp_http_stream_events(request, query);
	else
		start_fetch(request, query);
}
