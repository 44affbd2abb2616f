/*
 * http_sse.c
 *    GET /events as server-sent events: a response without an end, whose
 *    reader is given what a cursor finds in the log.  One piece is rendered at
 *    a time, and the next only when the client has taken that one.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "http_log.h"
#include "http_parse.h"
#include "http_request.h"
#include "log.h"
#include "metrics.h"

#define PIECE			((size_t) 64 * 1024)	/* rendered at once, besides at least one event */
#define PIECE_EVENTS	1000
#define PIECE_MAX		((size_t) 1024 * 1024 * 1024)
#define BLOCK			((size_t) 16 * 1024)
#define RETRY_MS		1000	/* a read that failed is tried again; and the client, that lost its stream, after this */

typedef struct stream
{
	evp_http_request_t *request;	/* NULL: ends */
	evp_proxy_t *proxy;
	evp_http_query_t *query;
	evp_cursor_t cursor;
	evp_buf_t	piece;
	size_t		sent;			/* of the piece */
	int64_t		told;			/* the position that the client knows */
	uint64_t	wrote_at;
	uint64_t	retry_at;		/* 0: no read has failed */
	bool		leaving;		/* ends when the piece is sent */
} stream_t;

static bool
take_event(void *arg, const evp_event_t *event)
{
	stream_t   *stream = arg;

	if (stream->piece.len > 0 && stream->piece.len + event->data.n + event->metadata.n > PIECE)
		return false;
	evp_http_put_sse(&stream->piece, event);
	stream->told = event->position;
	evp_metrics.http_events++;
	return true;
}

/* An event of its own kind and without an id: who does not ask for it goes on as if it were not there. */
static void
put_lost(void *arg, const evp_jump_t *jump)
{
	stream_t   *stream = arg;

	evp_buf_append_str(&stream->piece, "event: lost_range\ndata: ");
	evp_buf_append_str(&stream->piece, jump->text);
	evp_buf_append_str(&stream->piece, "\n\n");
}

/* Gives the client what there is now. */
static void
wake(stream_t *stream)
{
	if (stream->request != NULL && stream->piece.len > stream->sent)
		evp_http_resume(stream->request);
}

/* A read has ended, or the log has grown.  Nothing is added to a piece that is being sent. */
static void
on_ready(void *arg)
{
	stream_t   *stream = arg;

	stream->retry_at = 0;
	if (stream->piece.len == 0 && !stream->piece.failed)
		(void) evp_cursor_step(&stream->cursor);
	wake(stream);
}

static void
on_failed(void *arg, const char *sqlstate, const char *message)
{
	stream_t   *stream = arg;

	/* The client keeps its stream: the database comes back. */
	evp_log(EVP_LOG_DEBUG, "http", NULL, "reading for a stream of events: %s %s", sqlstate, message);
	stream->retry_at = evp_now(stream->proxy) + RETRY_MS;
}

static const evp_cursor_events_t cursor_events = {.take = take_event,.lost = put_lost,.ready = on_ready,.failed = on_failed};

/* A comment, and how far the log was looked at where nothing matched. */
static void
put_sign(stream_t *stream)
{
	evp_buf_append_str(&stream->piece, ": keep-alive\n");
	if (stream->cursor.position > stream->told)
	{
		stream->told = stream->cursor.position;
		evp_buf_appendf(&stream->piece, "id: %" PRId64 "\n", stream->told);
	}
	evp_buf_append_u8(&stream->piece, '\n');
}

static void
on_tick(void *work, uint64_t now)
{
	stream_t   *stream = work;

	if (stream->piece.len > 0)
		return;
	if (stream->retry_at != 0 ? now >= stream->retry_at : stream->cursor.state == EVP_CURSOR_HEAD)
		on_ready(stream);
	if (stream->piece.len == 0 && now >= stream->wrote_at + stream->proxy->config.http_keep_alive)
	{
		put_sign(stream);
		wake(stream);
	}
}

static void
on_drop(void *work)
{
	stream_t   *stream = work;

	evp_cursor_close(&stream->cursor);
	stream->request = NULL;
}

/* Ends behind what is rendered: the client comes back, at another proxy, with the position that it was told last. */
static void
on_leave(void *work)
{
	stream_t   *stream = work;

	stream->leaving = true;
	evp_http_resume(stream->request);
}

static const evp_http_work_t stream_work = {.drop = on_drop,.tick = on_tick,.leave = on_leave};

/* libmicrohttpd asks for bytes. */
static ssize_t
read_piece(void *arg, uint64_t at, char *to, size_t max)
{
	stream_t   *stream = arg;
	size_t		n;

	(void) at;
	if (stream->request == NULL || stream->piece.failed)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (stream->sent == stream->piece.len)
	{
		if (stream->leaving)
			return MHD_CONTENT_READER_END_OF_STREAM;
		if (stream->piece.cap > PIECE * 4)
			evp_buf_free(&stream->piece);
		evp_buf_reset(&stream->piece);
		stream->sent = 0;
		if (stream->retry_at == 0)
			(void) evp_cursor_step(&stream->cursor);
		evp_http_holds(stream->request, stream->piece.cap);
		if (stream->piece.failed)
			return MHD_CONTENT_READER_END_OF_STREAM;
		if (stream->piece.len == 0)
		{
			evp_http_suspend(stream->request);
			return 0;
		}
	}
	n = stream->piece.len - stream->sent;
	if (n > max)
		n = max;
	memcpy(to, stream->piece.data + stream->sent, n);
	stream->sent += n;
	stream->wrote_at = evp_now(stream->proxy);
	return (ssize_t) n;
}

/*
 * libmicrohttpd is done with the response.  Its documentation does not say whether the request was reported as completed
 * before, so that order does not matter here: a request that is still there forgets the stream.
 */
static void
free_stream(void *arg)
{
	stream_t   *stream = arg;

	if (stream->request != NULL)
	{
		evp_http_wait(stream->request, NULL, NULL);
		on_drop(stream);
	}
	evp_http_query_free(stream->query);
	free(stream->query);
	evp_buf_free(&stream->piece);
	free(stream);
}

/* Where a client goes on that comes back; false after a refusal. */
static bool
take_last_id(evp_http_request_t *request, evp_http_query_t *query)
{
	const char *last = evp_http_header(request, "Last-Event-ID");

	if (last == NULL || evp_http_number(evp_slice_str(last), INT64_MAX, &query->after))
		return true;
	evp_http_refuse(request, MHD_HTTP_BAD_REQUEST, "bad-request", "A header is not understood", "Last-Event-ID must be a position.");
	return false;
}

void
evp_http_stream_events(evp_http_request_t *request, evp_http_query_t *query)
{
	stream_t   *stream = NULL;
	struct MHD_Response *response = NULL;

	if (!take_last_id(request, query))
		goto refused;
	stream = calloc(1, sizeof(*stream));
	if (stream != NULL)
		response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, read_piece, stream, free_stream);
	if (response == NULL)
	{
		free(stream);
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "busy", "No memory", NULL);
		goto refused;
	}
	stream->request = request;
	stream->proxy = request->proxy;
	stream->query = query;
	stream->told = query->after;
	stream->wrote_at = evp_now(request->proxy);
	stream->leaving = request->proxy->draining;
	evp_buf_init(&stream->piece, PIECE_MAX);
	evp_buf_appendf(&stream->piece, "retry: %d\n\n", RETRY_MS);
	evp_cursor_init(&stream->cursor, evp_http_log_of(request), query, &cursor_events, stream);
	stream->cursor.max = PIECE_EVENTS;
	stream->cursor.bytes = PIECE;
	evp_http_wait(request, &stream_work, stream);
	evp_http_add_header(request, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	evp_http_answer_stream(request, "text/event-stream", response);
	return;

refused:
	evp_http_query_free(query);
	free(query);
}
