/*
 * http_log.c
 *    Readers of the log over HTTP: cursors through the tail that feed.c keeps,
 *    and reads of their own for those behind it.
 */
#include "http_log.h"

#include <stdlib.h>
#include <utlist.h>

#include "db.h"
#include "fair.h"
#include "feed.h"
#include "jumps.h"
#include "log.h"
#include "reads.h"
#include "rows.h"
#include "store.h"
#include "story.h"
#include "tail.h"

#define MAX_SCAN		20000	/* events looked at in one read: the stories of commands wait behind it on its connection */

typedef struct read
{
	evp_http_log_t *log;
	evp_cursor_t *cursor;		/* NULL: closed */
	evp_db_tries_t tries;
} read_t;

struct evp_http_log
{
	evp_proxy_t *proxy;
	evp_jumps_t *jumps;
	evp_cursor_t *queued;
	evp_cursor_t *head;			/* cursors that wait for the log to grow */
	unsigned	reading;
	bool		stopped;
};

static void run_read(read_t *read);

static void
set_state(evp_cursor_t *cursor, evp_cursor_state_t state)
{
	evp_http_log_t *log = cursor->log;

	if (cursor->state == EVP_CURSOR_QUEUED)
		DL_DELETE(log->queued, cursor);
	else if (cursor->state == EVP_CURSOR_HEAD)
		DL_DELETE(log->head, cursor);
	cursor->state = state;
	if (state == EVP_CURSOR_QUEUED)
		DL_APPEND(log->queued, cursor);
	else if (state == EVP_CURSOR_HEAD)
		DL_APPEND(log->head, cursor);
}

static bool
in_list(const evp_http_list_t *list, evp_slice_t text)
{
	if (list->n == 0)
		return true;
	for (size_t i = 0; i < list->n; i++)
		if (evp_slice_eq(list->items[i], text))
			return true;
	return false;
}

bool
evp_cursor_wants(const evp_http_query_t *filter, const evp_event_t *event)
{
	evp_slice_t category = event->stream;
	const uint8_t *dash = category.p == NULL || category.n == 0 ? NULL : memchr(category.p, '-', category.n);

	if (dash != NULL)
		category.n = (size_t) (dash - category.p);
	return in_list(&filter->types, event->type) &&
		(filter->categories.n == 0 || (category.p != NULL && in_list(&filter->categories, category))) &&
		(filter->context.p == NULL || evp_tail_match(filter->context, event->context));
}

/* ---- positions that were left out ---- */

/* Who stands among them has read what is lost, and is told before it is given anything else. */
static void
tell_lost(evp_cursor_t *cursor)
{
	const evp_jump_t *jump = evp_jumps_find(cursor->log->jumps, cursor->position);

	if (jump == NULL || jump->next == cursor->told)
		return;
	cursor->told = jump->next;
	cursor->events->lost(cursor->arg, jump);
}

/* May a cursor go on to a position?  Not before it is known whether it stands in a jump. */
static bool
may_pass(evp_cursor_t *cursor, int64_t to)
{
	if (cursor->position > 0 && to > cursor->position)
	{
		if (!evp_jumps_known(cursor->log->jumps, cursor->position, to))
		{
			cursor->barred = to;
			return false;
		}
		tell_lost(cursor);
	}
	cursor->barred = 0;
	return true;
}

/* The same for an event, which has no jump before it where it is the very next. */
static bool
may_take(evp_cursor_t *cursor, const evp_event_t *event)
{
	return event->position == cursor->position + 1 || may_pass(cursor, event->position);
}

/* ---- reads ---- */

static void
start_reads(evp_http_log_t *log)
{
	while (log->queued != NULL && log->reading < log->proxy->config.http_readers && !log->stopped)
	{
		evp_cursor_t *cursor = log->queued;
		read_t	   *read = calloc(1, sizeof(*read));

		if (read == NULL)
			return;				/* the next step of any cursor tries again */
		read->log = log;
		read->cursor = cursor;
		read->tries.begun = evp_now(log->proxy);
		cursor->read = read;
		set_state(cursor, EVP_CURSOR_READING);
		log->reading++;
		run_read(read);
	}
}

static void
take_rows(evp_cursor_t *cursor, const PGresult *rows)
{
	for (int row = 0; row < PQntuples(rows); row++)
	{
		evp_event_t event;
		int64_t		scanned;

		if (evp_story_event(rows, row, 2, &event))
		{
			event.stream = evp_row_bytes(rows, row, 1);
			if (!may_take(cursor, &event) || !cursor->events->take(cursor->arg, &event))
				return;
			cursor->position = event.position;
		}
		else if (evp_row_int64(rows, row, 0, &scanned) && scanned > cursor->position && may_pass(cursor, scanned))
			cursor->position = scanned;
	}
}

static void
on_read(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_TEXT, EVP_EVENT_COLUMN_TYPES};
	read_t	   *read = arg;
	evp_http_log_t *log = read->log;
	evp_cursor_t *cursor = read->cursor;
	int64_t		before;

	if (cursor != NULL && !log->stopped && evp_db_read_again(log->proxy->db, result, &read->tries, cursor->give_up))
	{
		run_read(read);
		return;
	}
	log->reading--;
	free(read);
	start_reads(log);
	if (cursor == NULL)
		return;
	cursor->read = NULL;
	before = cursor->position;
	set_state(cursor, EVP_CURSOR_IDLE);
	if (result->status != EVP_DB_OK)
		cursor->events->failed(cursor->arg, result->status == EVP_DB_ERROR ? result->sqlstate : "", result->message);
	else if (!evp_rows_are(result->rows, types, 2 + EVP_EVENT_COLUMN_COUNT))
		cursor->events->failed(cursor->arg, "XX000", "evento.scan_all is of another version");
	else
	{
		take_rows(cursor, result->rows);
		cursor->asked = cursor->asked || cursor->barred == 0;
		/* The head, by the database's own word; but by a standby's only where nobody knows of more. */
		if (cursor->barred > 0)
			set_state(cursor, EVP_CURSOR_HEAD);
		else if (cursor->position == before && PQntuples(result->rows) <= 1 &&
			!(result->standby && evp_feed_watermark(log->proxy->feed) > before))
			set_state(cursor, EVP_CURSOR_HEAD);
		cursor->events->ready(cursor->arg);
	}
}

/* A list as text[]; false where there is none, and the parameter NULL. */
static bool
put_list(evp_buf_t *b, const evp_http_list_t *list)
{
	evp_buf_init(b, 1024 * 1024);
	if (list->n == 0)
		return false;
	evp_pg_array_begin(b, EVP_OID_TEXT, list->n);
	for (size_t i = 0; i < list->n; i++)
		evp_pg_array_text(b, (const char *) list->items[i].p, list->items[i].n);
	return !b->failed;
}

/*
 * Sends a read.  A standby must have what the client has seen, and more than
 * the cursor has where there is more.  Before the watermark is known no standby
 * will do, for the tail may begin behind what it has.
 */
static void
send_read(read_t *read, const evp_db_statement_t *statement)
{
	const evp_proxy_t *proxy = read->log->proxy;
	const evp_cursor_t *cursor = read->cursor;
	int64_t		watermark = evp_feed_watermark(proxy->feed);
	int64_t		wanted = cursor->position < watermark ? cursor->position + 1 : cursor->position;

	/* Most will be known when the read has ended. */
	(void) evp_jumps_known(read->log->jumps, cursor->position, 0);
	if (watermark < 0)
		evp_db_run(proxy->db, EVP_DB_READ, statement, on_read, read);
	else
		evp_reads_run(proxy->reads, statement, cursor->filter->seen > wanted ? cursor->filter->seen : wanted, 0, on_read, read);
}

static void
run_read(read_t *read)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_INT8, EVP_OID_TEXT, EVP_OID_TEXT_ARRAY, EVP_OID_TEXT_ARRAY, EVP_OID_INT8, EVP_OID_INT8};
	static const int formats[] = {1, 1, 1, 1, 1, 1, 1};
	evp_cursor_t *cursor = read->cursor;
	const evp_http_query_t *filter = cursor->filter;
	evp_slice_t context = filter->context.p == NULL ? evp_slice_str("*") : filter->context;
	uint8_t		numbers[4][8];
	evp_buf_t	wanted;
	evp_buf_t	categories;
	bool		some = put_list(&wanted, &filter->types);
	bool		within = put_list(&categories, &filter->categories);
	const char *values[] = {(const char *) numbers[0], (const char *) numbers[1], (const char *) context.p,
		some ? (const char *) wanted.data : NULL, within ? (const char *) categories.data : NULL,
	(const char *) numbers[2], (const char *) numbers[3]};
	const int	lengths[] = {8, 8, (int) context.n, (int) wanted.len, (int) categories.len, 8, 8};

	evp_param_int64(numbers[0], cursor->position);
	evp_param_int64(numbers[1], cursor->max);
	evp_param_int64(numbers[2], MAX_SCAN);
	evp_param_int64(numbers[3], (int64_t) cursor->bytes);
	send_read(read, &(evp_db_statement_t) {.sql = "SELECT scanned, stream, " EVP_EVENT_COLUMNS " FROM evento.scan_all($1, $2, $3, $4, $5, $6, $7)",
			  .nparams = 7,.types = types,.values = values,.lengths = lengths,.formats = formats,.result_format = 1,
			  .source = EVP_SOURCE_HTTP,.deadline = cursor->give_up});
	evp_buf_free(&wanted);
	evp_buf_free(&categories);
}

/* ---- cursors ---- */

void
evp_cursor_init(evp_cursor_t *cursor, evp_http_log_t *log, const evp_http_query_t *filter, const evp_cursor_events_t *events, void *arg)
{
	*cursor = (evp_cursor_t) {.log = log,.events = events,.arg = arg,.filter = filter,.position = filter->after};
}

/* Goes through the tail; true where all of it was looked at, or the cursor is kept from it. */
static bool
walk(evp_cursor_t *cursor, const evp_tail_t *tail)
{
	const evp_event_t *event;

	while ((event = evp_tail_next(tail, cursor->position)) != NULL)
	{
		if (!may_take(cursor, event))
			return true;
		if (evp_cursor_wants(cursor->filter, event) && !cursor->events->take(cursor->arg, event))
			return false;
		cursor->position = event->position;
	}
	if (cursor->position < tail->to && may_pass(cursor, tail->to))
		cursor->position = tail->to;
	return true;
}

evp_cursor_state_t
evp_cursor_step(evp_cursor_t *cursor)
{
	evp_http_log_t *log = cursor->log;
	const evp_tail_t *tail;

	if (cursor->state == EVP_CURSOR_QUEUED || cursor->state == EVP_CURSOR_READING)
	{
		start_reads(log);
		return cursor->state;
	}
	evp_jumps_look(log->jumps);
	tell_lost(cursor);
	if (cursor->barred > 0)
	{
		/* It waits for news of either kind, and was woken by one that is not what it waits for. */
		if (!may_pass(cursor, cursor->barred))
		{
			set_state(cursor, EVP_CURSOR_HEAD);
			return EVP_CURSOR_HEAD;
		}
		set_state(cursor, EVP_CURSOR_IDLE);
	}
	tail = evp_feed_tail(log->proxy->feed);
	/* At the head by the database's word, only news from there make it ask again. */
	if (cursor->state == EVP_CURSOR_HEAD && (tail == NULL || !evp_tail_covers(tail, cursor->position)))
		return EVP_CURSOR_HEAD;
	if (cursor->asked && tail != NULL && evp_tail_covers(tail, cursor->position))
		set_state(cursor, walk(cursor, tail) ? EVP_CURSOR_HEAD : EVP_CURSOR_IDLE);
	else
	{
		cursor->give_up = evp_store_wait_until(log->proxy->store, UINT64_MAX);
		set_state(cursor, EVP_CURSOR_QUEUED);
		start_reads(log);
	}
	return cursor->state;
}

void
evp_cursor_close(evp_cursor_t *cursor)
{
	if (cursor->read != NULL)
		((read_t *) cursor->read)->cursor = NULL;
	cursor->read = NULL;
	set_state(cursor, EVP_CURSOR_IDLE);
}

/* The tail has grown, or begins elsewhere; or it is known where the log left positions out. */
static void
on_tail(void *arg)
{
	evp_http_log_t *log = arg;
	evp_cursor_t *waiting = log->head;
	evp_cursor_t *cursor;
	evp_cursor_t *next;

	if (log->stopped)
		return;
	log->head = NULL;
	DL_FOREACH_SAFE(waiting, cursor, next)
	{
		DL_DELETE(waiting, cursor);
		cursor->state = EVP_CURSOR_IDLE;
		cursor->events->ready(cursor->arg);
	}
}

evp_http_log_t *
evp_http_log_new(evp_proxy_t *proxy)
{
	evp_http_log_t *log = calloc(1, sizeof(*log));

	if (log == NULL)
		return NULL;
	log->proxy = proxy;
	log->jumps = evp_jumps_new(proxy, on_tail, log);
	if (log->jumps == NULL)
	{
		free(log);
		return NULL;
	}
	evp_feed_watch(proxy->feed, on_tail, log);
	return log;
}

void
evp_http_log_stop(evp_http_log_t *log)
{
	log->stopped = true;
	evp_jumps_stop(log->jumps);
}

void
evp_http_log_free(evp_http_log_t *log)
{
	if (log == NULL)
		return;
	evp_jumps_free(log->jumps);
	free(log);
}
