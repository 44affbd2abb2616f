/*
 * feed.c
 *    Consumers' side of the log.  A fetch moves along the log from the consumer's
 *    position: through the tail in memory where that covers it, else by reads of
 *    its own; at the head it is answered with what was found, or, where that is
 *    nothing and its instance enabled, held until the log grows.
 */
#include "feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "db.h"
#include "fair.h"
#include "graph.h"
#include "log.h"
#include "metrics.h"
#include "positions.h"
#include "reads.h"
#include "reports.h"
#include "rows.h"
#include "session.h"
#include "store.h"
#include "story.h"
#include "tail.h"
#include "turn.h"

#define MODULE "feed"

#define TICK_MS			50
#define LOOK_MS			1000	/* the watermark is asked for this often while fetches are held */
#define TAIL_AGE_MS		10000	/* events leave the tail then: one who reads them later must see deletions */
#define TAIL_ROWS		1000
#define MAX_LIMIT		10000
#define MAX_SCAN		20000	/* events looked at in one read: the stories of commands wait behind it on its connection */
#define MAX_ANSWER		((size_t) 250 * 1024 * 1024)
#define MAX_CONSUMERS	10000
#define MARGIN_MS		1000	/* a held fetch is answered so long before its consumer gives up */
#define WANTED_MS		3000	/* others than fetches wait while they used the tail so shortly ago */
#define IDLE_MS			60000	/* the tail is given up when nobody fetched for so long */

typedef enum fetch_state
{
	FETCH_READY,				/* moves on in the next turn */
	FETCH_QUEUED,				/* waits for a reader */
	FETCH_READING,
	FETCH_HELD					/* at the head */
} fetch_state_t;

typedef struct fetch
{
	struct fetch *prev;			/* of its state; but those that wait for a reader are in a queue of their own */
	struct fetch *next;
	evp_fair_item_t turn;
	evp_feed_t *feed;
	evp_request_t *request;
	fetch_state_t state;
	int64_t		after;			/* what the consumer has */
	int64_t		position;		/* how far it was looked */
	int64_t		last;			/* of what was found */
	int64_t		reported;		/* where it was when the reports heard of it as held; -1: they have not */
	uint64_t	history;		/* of the database, when it was asked for */
	size_t		limit;
	size_t		count;
	evp_slice_t context;
	evp_graph_response_head_t head;
	evp_buf_t	answer;
	bool		confirmed;		/* the database was asked whether there is more */
	uint64_t	hold_until;		/* answered empty then */
	uint64_t	give_up;		/* a database that is away is waited for until then */
} fetch_t;

struct evp_feed
{
	evp_proxy_t *proxy;
	evp_tail_t	tail;
	evp_positions_t *positions;
	fetch_t    *fetches[FETCH_HELD + 1];	/* by state, but FETCH_QUEUED */
	evp_fair_t	queued;			/* FETCH_QUEUED */
	unsigned	readers;
	uint64_t	history;		/* of the database (db.h) */
	int64_t		watermark;		/* -1: not known */
	int64_t		published;		/* what the watermark's row said last, -1: nothing yet; a read may reach beyond it */
	bool		tail_reading;
	int64_t		tail_asked;		/* behind which position */
	bool		looking;		/* the watermark was asked for */
	int64_t		asked_at;		/* what had been published then */
	uint64_t	looked_at;
	uint64_t	used_at;		/* last fetch, or other use of the tail */
	evp_feed_grown_cb grown_cb;
	void	   *grown_arg;
	evp_turn_t	turn;
	uv_timer_t	tick;
	bool		stopped;
};

static void hold(evp_feed_t *feed, fetch_t *fetch);
static void keep_up(evp_feed_t *feed);

static void
tell_grown(evp_feed_t *feed)
{
	if (feed->grown_cb != NULL)
		feed->grown_cb(feed->grown_arg);
}

/* ---- fetches ---- */

static void
enlist(fetch_t *fetch, fetch_state_t state)
{
	fetch->state = state;
	if (state == FETCH_QUEUED)
		evp_fair_put(&fetch->feed->queued, fetch->request->source, &fetch->turn);
	else
		DL_APPEND(fetch->feed->fetches[state], fetch);
}

static void
unlist(fetch_t *fetch)
{
	if (fetch->state == FETCH_QUEUED)
		evp_fair_remove(&fetch->feed->queued, &fetch->turn);
	else
		DL_DELETE(fetch->feed->fetches[fetch->state], fetch);
}

static void
set_state(fetch_t *fetch, fetch_state_t state)
{
	unlist(fetch);
	enlist(fetch, state);
	if (state == FETCH_READY)
		evp_turn_wake(&fetch->feed->turn);
}

/* The log may have grown. */
static void
move_held(evp_feed_t *feed)
{
	fetch_t    *fetch,
			   *next;

	DL_FOREACH_SAFE(feed->fetches[FETCH_HELD], fetch, next)
		set_state(fetch, FETCH_READY);
}

/* How long before its consumer gives up a fetch is answered. */
static uint64_t
margin_of(const fetch_t *fetch)
{
	return (fetch->request->deadline - fetch->request->received) / 5;
}

static void
begin_wait(fetch_t *fetch)
{
	fetch->give_up = evp_store_wait_until(fetch->feed->proxy->store, fetch->request->deadline - margin_of(fetch));
}

/* The database is waited for from now on: one that was held wanted nothing of it, and it may have been away meanwhile. */
static void
queue(fetch_t *fetch)
{
	begin_wait(fetch);
	set_state(fetch, FETCH_QUEUED);
}

static evp_consumer_key_t
consumer_key(const fetch_t *fetch)
{
	return (evp_consumer_key_t) {{
		evp_slice_str(fetch->request->bundle),
		evp_slice_str(fetch->request->instance),
		fetch->request->graph.component_name,
		fetch->context,
	}};
}

static void
free_fetch(fetch_t *fetch)
{
	unlist(fetch);
	evp_buf_free(&fetch->answer);
	evp_request_unref(fetch->request);
	free(fetch);
}

static void
fail_fetch(fetch_t *fetch, const char *exception_class, const char *message)
{
	evp_request_fail(fetch->request, exception_class, message);
	free_fetch(fetch);
}

static bool
is_enabled(const fetch_t *fetch)
{
	return fetch->request->session != NULL && evp_session_info(fetch->request->session)->enabled;
}

/* Remembers what the consumer's next fetch need not look at again, where this one gave it events up to last. */
static void
remember(const fetch_t *fetch, int64_t last)
{
	evp_consumer_key_t key = consumer_key(fetch);

	if (fetch->position > last && fetch->history == fetch->feed->history)
		evp_positions_set(fetch->feed->positions, &key, last, fetch->position);
}

/* Lets a fetch go whose time was up before it got to the head. */
static void
drop_fetch(fetch_t *fetch)
{
	/* A filter that matches rarely gets through a long log by many fetches. */
	if (fetch->count == 0)
		remember(fetch, fetch->after);
	free_fetch(fetch);
}

/* Answers with what was found, be it nothing. */
static void
answer_fetch(fetch_t *fetch)
{
	evp_blob_t *blob;
	evp_slice_t payload;

	remember(fetch, fetch->count > 0 ? fetch->last : fetch->after);

	/* A database that has another history has not heard where the consumer was: it may have read what is lost there. */
	if (fetch->history != fetch->feed->history && fetch->request->session != NULL)
		evp_reports_fetch(fetch->feed->proxy->reports, fetch->request->session, fetch->request->graph.component_name, fetch->context,
						  fetch->after, false);
	evp_graph_fetch_close(&fetch->answer, &fetch->head);
	blob = evp_blob_from_buf(&fetch->answer);
	if (blob == NULL)
	{
		fail_fetch(fetch, EVP_EX_STATE, "an event is too large to be fetched");
		return;
	}
	evp_metrics.fetched_events += fetch->count;
	payload = evp_slice_blob(blob);
	evp_request_answer(fetch->request, &payload, 1);
	evp_blob_unref(blob);
	free_fetch(fetch);
}

static bool
is_full(const fetch_t *fetch)
{
	return fetch->count >= fetch->limit ||
		(fetch->count > 0 && fetch->answer.len >= fetch->feed->proxy->config.fetch_bytes);
}

/* Puts an event into the answer; false where it has no room, beside at least one. */
static bool
take_event(fetch_t *fetch, const evp_event_t *event)
{
	if (fetch->count > 0 && fetch->answer.len + event->data.n + event->metadata.n > fetch->feed->proxy->config.fetch_bytes)
		return false;
	evp_graph_fetch_add(&fetch->answer, event);
	fetch->count++;
	fetch->position = event->position;
	fetch->last = event->position;
	return true;
}

/* ---- reads of a fetch's own ---- */

static void
on_read(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_TEXT, EVP_EVENT_COLUMN_TYPES};
	fetch_t    *fetch = arg;
	evp_feed_t *feed = fetch->feed;
	int64_t		before = fetch->position;
	bool		room = true;

	feed->readers--;
	evp_turn_wake(&feed->turn);
	keep_up(feed);
	if (feed->stopped)
	{
		fail_fetch(fetch, EVP_EX_STATE, "the proxy is shutting down");
		return;
	}
	if (result->status != EVP_DB_OK)
	{
		bool		passing = result->status == EVP_DB_UNKNOWN || (result->status == EVP_DB_ERROR && evp_db_is_passing(result->sqlstate));

		if (passing && evp_now(feed->proxy) < fetch->give_up)
			set_state(fetch, FETCH_QUEUED);
		else
			fail_fetch(fetch, EVP_EX_STATE, result->message);
		return;
	}
	if (!evp_rows_are(result->rows, types, 2 + EVP_EVENT_COLUMN_COUNT))
	{
		fail_fetch(fetch, EVP_EX_STATE, "evento.scan_all is of another version");
		return;
	}
	for (int row = 0; room && row < PQntuples(result->rows); row++)
	{
		evp_event_t event;
		int64_t		scanned;

		/* Erased events are passed over, as is the last row, which has none. */
		if (evp_story_event(result->rows, row, 2, &event) && event.data.p != NULL)
		{
			event.stream = evp_row_bytes(result->rows, row, 1);
			room = take_event(fetch, &event);
		}
		else if (evp_row_int64(result->rows, row, 0, &scanned) && scanned > fetch->position)
			fetch->position = scanned;
	}
	if (!room)
		answer_fetch(fetch);
	else if (fetch->position > before)
		set_state(fetch, FETCH_READY);
	else if (result->standby && feed->watermark > before)
	{
		/* The log has grown meanwhile; a standby that has nothing more is not asked a second time. */
		set_state(fetch, FETCH_QUEUED);
	}
	else
	{
		/* The head, by the database's own word. */
		if (fetch->count > 0)
			answer_fetch(fetch);
		else
			hold(feed, fetch);
	}
}

/* Columns of scan_all: how far it looked, the stream, and the event. */
#define SCAN_SQL "SELECT scanned, stream, " EVP_EVENT_COLUMNS " FROM evento.scan_all"

static void
read_log(fetch_t *fetch)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_INT8, EVP_OID_TEXT, EVP_OID_INT8, EVP_OID_INT8};
	static const int formats[] = {1, 1, 1, 1, 1};
	evp_proxy_t *proxy = fetch->feed->proxy;
	size_t		fetch_bytes = proxy->config.fetch_bytes;
	uint8_t		numbers[4][8];
	const char *values[] = {(const char *) numbers[0], (const char *) numbers[1], (const char *) fetch->context.p,
	(const char *) numbers[2], (const char *) numbers[3]};
	const int	lengths[] = {8, 8, (int) fetch->context.n, 8, 8};
	const evp_db_statement_t statement = {.sql = SCAN_SQL "($1, $2, $3, NULL, NULL, $4, $5)",.nparams = 5,.types = types,.values = values,
		.lengths = lengths,.formats = formats,.result_format = 1,.source = fetch->request->source,.deadline = fetch->give_up};

	evp_param_int64(numbers[0], fetch->position);
	evp_param_int64(numbers[1], (int64_t) (fetch->limit - fetch->count));
	evp_param_int64(numbers[2], MAX_SCAN);
	evp_param_int64(numbers[3], (int64_t) (fetch_bytes > fetch->answer.len ? fetch_bytes - fetch->answer.len : 1));
	set_state(fetch, FETCH_READING);
	fetch->feed->readers++;
	/* A standby that has something to give; where the head is, the primary alone can say. */
	if (!fetch->confirmed && fetch->position < fetch->feed->watermark)
		evp_reads_run(proxy->reads, &statement, fetch->position + 1, 0, on_read, fetch);
	else
		evp_db_run(proxy->db, EVP_DB_READ, &statement, on_read, fetch);
}

/* ---- the tail ---- */

static void
on_tail(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_TEXT, EVP_EVENT_COLUMN_TYPES};
	evp_feed_t *feed = arg;
	int64_t		before = feed->tail.to;

	feed->tail_reading = false;
	if (feed->stopped)
		return;
	/* Begun anew since it was asked for: these events would leave a hole behind its end. */
	if (feed->tail.to != feed->tail_asked)
	{
		evp_turn_wake(&feed->turn);
		return;
	}
	if (result->status != EVP_DB_OK || !evp_rows_are(result->rows, types, 2 + EVP_EVENT_COLUMN_COUNT))
	{
		/* The next tick, notification or connection tries again. */
		evp_log(EVP_LOG_DEBUG, MODULE, NULL, "reading the newest events: %s",
				result->status == EVP_DB_OK ? "evento.scan_all is of another version" : result->message);
		return;
	}
	for (int row = 0; row < PQntuples(result->rows); row++)
	{
		evp_event_t event;
		int64_t		scanned;

		/* Erased events are passed over, as is the last row, which has none. */
		if (evp_story_event(result->rows, row, 2, &event) && event.data.p != NULL)
		{
			event.stream = evp_row_bytes(result->rows, row, 1);
			evp_tail_add(&feed->tail, &event, evp_now(feed->proxy));
		}
		else if (evp_row_int64(result->rows, row, 0, &scanned))
			evp_tail_reach(&feed->tail, scanned);
	}
	if (feed->tail.to > feed->watermark)
		feed->watermark = feed->tail.to;
	if (feed->tail.to == before)
		return;
	move_held(feed);
	evp_turn_wake(&feed->turn);
	tell_grown(feed);
}

/* Reads what the tail lacks up to the watermark. */
static void
read_tail(evp_feed_t *feed)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_INT8, EVP_OID_INT8};
	static const int formats[] = {1, 1, 1};
	uint8_t		numbers[3][8];
	const char *values[] = {(const char *) numbers[0], (const char *) numbers[1], (const char *) numbers[2]};
	const int	lengths[] = {8, 8, 8};

	if (feed->tail_reading || !feed->tail.started || feed->tail.to >= feed->watermark || feed->stopped ||
		!evp_db_lane_is_up(feed->proxy->db, EVP_DB_READ))
		return;
	feed->tail_reading = true;
	feed->tail_asked = feed->tail.to;
	evp_param_int64(numbers[0], feed->tail.to);
	evp_param_int64(numbers[1], TAIL_ROWS);
	evp_param_int64(numbers[2], (int64_t) feed->tail.max_bytes);
	evp_db_run(feed->proxy->db, EVP_DB_READ,
			   &(evp_db_statement_t) {.sql = SCAN_SQL "($1, $2, '*', NULL, NULL, 100000, $3)",.nparams = 3,.types = types,
			   .values = values,.lengths = lengths,.formats = formats,.result_format = 1}, on_tail, feed);
}

/* The database has published that the log reaches to a position. */
static void
advance(evp_feed_t *feed, int64_t position)
{
	if (position > feed->published)
		feed->published = position;
	if (position > feed->watermark)
		feed->watermark = position;
	/* Who was held before it was known how far the log reaches begins the tail; nobody else would. */
	if (!feed->tail.started)
		move_held(feed);
	read_tail(feed);
}

static void
on_watermark(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8};
	evp_feed_t *feed = arg;
	int64_t		position;

	feed->looking = false;
	if (feed->stopped || result->status != EVP_DB_OK || !evp_rows_are(result->rows, types, 1) ||
		!evp_row_int64(result->rows, 0, 0, &position))
		return;
	/* A notification may have overtaken the answer on another connection: only what was known before counts. */
	if (position < feed->asked_at)
	{
		/* After a restart the worker may have to advance again; a standby that was promoted may lack what was read. */
		evp_log(EVP_LOG_INFO, MODULE, NULL, "the watermark went back from %lld to %lld: the server was restarted, or is another",
				(long long) feed->asked_at, (long long) position);
		feed->published = position;
		feed->watermark = position;
		if (feed->tail.to > position)
			evp_tail_start(&feed->tail, position);
	}
	advance(feed, position);
	evp_turn_wake(&feed->turn);
	tell_grown(feed);
}

/* Asks the database how far the log reaches. */
static void
look(evp_feed_t *feed)
{
	if (feed->looking || feed->stopped)
		return;
	feed->looking = true;
	feed->looked_at = evp_now(feed->proxy);
	feed->asked_at = feed->published;
	evp_db_run(feed->proxy->db, EVP_DB_READ,
			   &(evp_db_statement_t) {.sql = "SELECT evento.watermark()",.result_format = 1}, on_watermark, feed);
}

static void
on_notify(void *arg, const char *payload)
{
	char	   *end;
	long long	position = strtoll(payload, &end, 10);

	if (end != payload && *end == '\0')
		advance(arg, position);
	else
		look(arg);
}

/* What is in memory may have been lost by a failover: all is read again. */
static void
forget(evp_feed_t *feed)
{
	fetch_t    *fetch,
			   *next;

	feed->history = evp_db_history(feed->proxy->db);
	evp_tail_free(&feed->tail);
	evp_positions_clear(feed->positions);
	feed->watermark = -1;
	feed->published = -1;
	DL_FOREACH_SAFE(feed->fetches[FETCH_HELD], fetch, next)
	{
		fetch->position = fetch->after;
		fetch->reported = -1;
		set_state(fetch, FETCH_READY);
	}
	tell_grown(feed);
}

/* Connections that read may be up before the one that tells so: nothing is answered before what was known is forgotten. */
static void
keep_up(evp_feed_t *feed)
{
	if (feed->history != evp_db_history(feed->proxy->db))
		forget(feed);
}

static void
on_state(void *arg, bool up)
{
	evp_feed_t *feed = arg;

	keep_up(feed);
	if (up)
		look(feed);
}

/* ---- moving fetches ---- */

/* At the head, with nothing found. */
static void
hold(evp_feed_t *feed, fetch_t *fetch)
{
	bool		enabled = is_enabled(fetch);
	uint64_t	now = evp_now(feed->proxy);

	/* That there is nothing more is known only where the database says so. */
	if (!evp_db_lane_is_up(feed->proxy->db, EVP_DB_READ))
	{
		if (now >= (enabled ? fetch->hold_until : fetch->give_up))
			fail_fetch(fetch, EVP_EX_STATE, "the database is not reachable");
		else
			set_state(fetch, FETCH_HELD);
		return;
	}
	if (!enabled || feed->stopped || now >= fetch->hold_until)
		answer_fetch(fetch);
	else
		set_state(fetch, FETCH_HELD);
}

/* Takes a fetch as far as memory reaches. */
static void
move_on(evp_feed_t *feed, fetch_t *fetch)
{
	bool		all = fetch->context.n == 1 && fetch->context.p[0] == '*';
	const evp_event_t *event;

	if (fetch->request->answered)
	{
		drop_fetch(fetch);
		return;
	}
	if (feed->watermark >= 0 && !feed->tail.started)
		evp_tail_start(&feed->tail, feed->watermark);
	if (!evp_tail_covers(&feed->tail, fetch->position))
	{
		/* What was found in a long search is given before the consumer gives up, or it would never get beyond it. */
		if (is_full(fetch) || (fetch->count > 0 && evp_now(feed->proxy) >= fetch->hold_until))
			answer_fetch(fetch);
		else
			queue(fetch);
		return;
	}
	while (!is_full(fetch) && (event = evp_tail_next(&feed->tail, fetch->position)) != NULL)
	{
		if (!all && !evp_tail_match(fetch->context, event->context))
			fetch->position = event->position;
		else if (!take_event(fetch, event))
		{
			answer_fetch(fetch);
			return;
		}
	}
	if (is_full(fetch))
	{
		answer_fetch(fetch);
		return;
	}
	if (fetch->position < feed->tail.to)
		fetch->position = feed->tail.to;
	if (!fetch->confirmed && !is_enabled(fetch))
	{
		/* One that catches up takes a short answer for the head: it must not be for want of a notification. */
		fetch->confirmed = true;
		queue(fetch);
	}
	else if (fetch->count > 0)
		answer_fetch(fetch);
	else
		hold(feed, fetch);
}

static void
on_turn(void *arg)
{
	evp_feed_t *feed = arg;
	fetch_t    *fetch;

	keep_up(feed);
	while ((fetch = feed->fetches[FETCH_READY]) != NULL)
		move_on(feed, fetch);
	while (!feed->stopped && feed->readers < feed->proxy->config.feed_readers && feed->queued.count > 0)
	{
		fetch = EVP_FAIR_OF(evp_fair_first(&feed->queued), fetch_t, turn);
		read_log(fetch);
		evp_fair_pass(&feed->queued, fetch->request->source);
	}
	read_tail(feed);
}

static void
on_tick(uv_timer_t *timer)
{
	evp_feed_t *feed = timer->data;
	uint64_t	now = evp_now(feed->proxy);
	bool		up = evp_db_lane_is_up(feed->proxy->db, EVP_DB_READ);
	evp_fair_item_t *turn,
			   *behind;
	fetch_t    *fetch,
			   *next;

	DL_FOREACH_SAFE(feed->fetches[FETCH_HELD], fetch, next)
		if (now >= fetch->hold_until || (!up && now >= fetch->give_up && !is_enabled(fetch)))
			set_state(fetch, FETCH_READY);
	for (turn = evp_fair_first(&feed->queued); turn != NULL; turn = behind)
	{
		fetch = EVP_FAIR_OF(turn, fetch_t, turn);
		behind = evp_fair_after(turn);
		if (fetch->request->answered)
			drop_fetch(fetch);
	}
	evp_tail_trim(&feed->tail, now > TAIL_AGE_MS ? now - TAIL_AGE_MS : 0);
	if ((feed->fetches[FETCH_HELD] != NULL || (feed->watermark < 0 && up) || (feed->used_at != 0 && now < feed->used_at + WANTED_MS)) && now >= feed->looked_at + LOOK_MS)
		look(feed);
	if (feed->tail.started && feed->fetches[FETCH_HELD] == NULL && now >= feed->used_at + IDLE_MS)
	{
		/* Nobody reads: spare the database the reading.  The next fetch begins it again. */
		evp_tail_free(&feed->tail);
	}
	read_tail(feed);
}

/* ---- what others call ---- */

void
evp_feed_fetch(evp_feed_t *feed, evp_request_t *request)
{
	const evp_graph_request_t *graph = &request->graph;
	fetch_t    *fetch = calloc(1, sizeof(*fetch));
	evp_consumer_key_t key;
	uint64_t	margin;

	EVP_COUNT(fetches);
	if (fetch == NULL || feed->stopped)
	{
		free(fetch);
		evp_request_fail(request, EVP_EX_STATE, feed->stopped ? "the proxy is shutting down" : "out of memory");
		return;
	}
	fetch->feed = feed;
	fetch->request = evp_request_ref(request);
	fetch->context = evp_slice_is_null(graph->context) ? evp_slice_str("*") : graph->context;
	fetch->after = graph->has_last_sequence && graph->last_sequence > 0 ? graph->last_sequence : 0;
	fetch->limit = graph->limit <= 0 ? 0 : graph->limit > MAX_LIMIT ? MAX_LIMIT : (size_t) graph->limit;
	key = consumer_key(fetch);
	fetch->position = evp_positions_get(feed->positions, &key, fetch->after);
	margin = margin_of(fetch);
	begin_wait(fetch);
	fetch->hold_until = evp_now(feed->proxy) + feed->proxy->config.fetch_hold;
	if (margin > MARGIN_MS)
		margin = MARGIN_MS;
	if (fetch->hold_until > request->deadline - margin)
		fetch->hold_until = request->deadline - margin;
	fetch->head = evp_graph_response_head(graph, evp_wall_ms());
	evp_buf_init(&fetch->answer, MAX_ANSWER);
	evp_graph_fetch_open(&fetch->answer, &fetch->head);
	feed->used_at = evp_now(feed->proxy);
	fetch->reported = -1;
	fetch->history = feed->history;
	if (request->session != NULL)
		evp_reports_fetch(feed->proxy->reports, request->session, graph->component_name, fetch->context, fetch->position, false);
	enlist(fetch, FETCH_READY);
	evp_turn_wake(&feed->turn);
	if (feed->watermark < 0)
		look(feed);
}

static void
on_last(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8};
	evp_request_t *request = arg;
	evp_graph_response_head_t head;
	evp_buf_t	b;
	evp_blob_t *blob;
	evp_slice_t payload;
	int64_t		position;

	if ((result->status == EVP_DB_UNKNOWN || (result->status == EVP_DB_ERROR && evp_db_is_passing(result->sqlstate))) &&
		!request->answered && evp_now(request->proxy) < request->deadline)
	{
		evp_feed_last(request->proxy->feed, request);
		evp_request_unref(request);
		return;
	}
	if (result->status != EVP_DB_OK || !evp_rows_are(result->rows, types, 1) || !evp_row_int64(result->rows, 0, 0, &position))
	{
		evp_request_fail(request, EVP_EX_STATE, result->status == EVP_DB_OK ? "evento.watermark is of another version" : result->message);
		evp_request_unref(request);
		return;
	}
	head = evp_graph_response_head(&request->graph, evp_wall_ms());
	evp_buf_init(&b, MAX_ANSWER);
	evp_graph_response_open(&b, &head);
	evp_graph_put_last_sequence(&b, position);
	evp_graph_response_close(&b, &head);
	blob = evp_blob_from_buf(&b);
	if (blob == NULL)
		evp_request_fail(request, EVP_EX_STATE, "out of memory");
	else
	{
		payload = evp_slice_blob(blob);
		evp_request_answer(request, &payload, 1);
		evp_blob_unref(blob);
	}
	evp_request_unref(request);
}

void
evp_feed_last(evp_feed_t *feed, evp_request_t *request)
{
	if (feed->stopped)
	{
		evp_request_fail(request, EVP_EX_STATE, "the proxy is shutting down");
		return;
	}
	evp_request_ref(request);
	evp_db_run(feed->proxy->db, EVP_DB_READ,
			   &(evp_db_statement_t) {.sql = "SELECT evento.watermark()",.result_format = 1,
			   .source = request->source,.deadline = evp_store_wait_until(feed->proxy->store, request->deadline)}, on_last, request);
}

const evp_tail_t *
evp_feed_tail(evp_feed_t *feed)
{
	feed->used_at = evp_now(feed->proxy);
	if (feed->watermark < 0)
	{
		look(feed);
		return NULL;
	}
	if (!feed->tail.started)
		evp_tail_start(&feed->tail, feed->watermark);
	return &feed->tail;
}

void
evp_feed_watch(evp_feed_t *feed, evp_feed_grown_cb cb, void *arg)
{
	feed->grown_cb = cb;
	feed->grown_arg = arg;
}

int64_t
evp_feed_watermark(const evp_feed_t *feed)
{
	return feed->watermark;
}

uint64_t
evp_feed_history(const evp_feed_t *feed)
{
	return feed->history;
}

void
evp_feed_session_changed(evp_feed_t *feed, evp_session_t *session)
{
	fetch_t    *fetch,
			   *next;

	DL_FOREACH_SAFE(feed->fetches[FETCH_HELD], fetch, next)
		if (fetch->request->session == session || fetch->request->session == NULL)
		{
			/* Moved on, it finds its instance disabled, or gone. */
			set_state(fetch, FETCH_READY);
		}
}

void
evp_feed_heads(evp_feed_t *feed, evp_reports_t *reports)
{
	fetch_t    *fetch;

	DL_FOREACH(feed->fetches[FETCH_HELD], fetch)
		if (fetch->position != fetch->reported && fetch->request->session != NULL)
		{
			fetch->reported = fetch->position;
			evp_reports_fetch(reports, fetch->request->session, fetch->request->graph.component_name, fetch->context,
							  fetch->position, true);
		}
}

evp_feed_t *
evp_feed_new(evp_proxy_t *proxy)
{
	evp_feed_t *feed = calloc(1, sizeof(*feed));

	if (feed != NULL)
		feed->positions = evp_positions_new(MAX_CONSUMERS);
	if (feed == NULL || feed->positions == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		free(feed);
		return NULL;
	}
	feed->proxy = proxy;
	feed->watermark = -1;
	feed->published = -1;
	evp_tail_init(&feed->tail, proxy->config.feed_bytes);
	evp_turn_init(&feed->turn, proxy->loop, on_turn, feed);
	uv_timer_init(proxy->loop, &feed->tick);
	feed->tick.data = feed;
	uv_timer_start(&feed->tick, on_tick, TICK_MS, TICK_MS);
	evp_db_subscribe(proxy->db, on_state, feed);
	evp_db_listen(proxy->db, "evento", on_notify, feed);
	return feed;
}

void
evp_feed_stop(evp_feed_t *feed)
{
	if (feed->stopped)
		return;
	feed->stopped = true;
	while (feed->queued.count > 0)
		fail_fetch(EVP_FAIR_OF(evp_fair_first(&feed->queued), fetch_t, turn), EVP_EX_STATE, "the proxy is shutting down");
	for (fetch_state_t state = FETCH_READY; state <= FETCH_HELD; state++)
	{
		/* What is being read ends with its statement. */
		while (state != FETCH_READING && feed->fetches[state] != NULL)
			fail_fetch(feed->fetches[state], EVP_EX_STATE, "the proxy is shutting down");
	}
	evp_turn_stop(&feed->turn);
	uv_close((uv_handle_t *) &feed->tick, NULL);
}

void
evp_feed_free(evp_feed_t *feed)
{
	if (feed == NULL)
		return;
	evp_tail_free(&feed->tail);
	evp_positions_free(feed->positions);
	free(feed);
}
