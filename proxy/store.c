/*
 * store.c
 *    Appends: gathers those of one turn of the loop, and those that come while
 *    all append connections are busy, into packed batches; tells each append's
 *    outcome; repeats what was busy, failed with its batch, or is unknown.
 *
 *    Callers take turns, and a batch is no larger than what the next one can wait
 *    for: who has thousands waiting keeps another from no more than two batches.
 *
 *    An append that was sent and not confirmed may be stored.  It is sent again
 *    with the same bytes: its events carry ids, so the database answers with
 *    what the first one did where that one was stored.
 */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "../include/errcodes.h"
#include "classes.h"
#include "db.h"
#include "fair.h"
#include "log.h"
#include "metrics.h"
#include "rows.h"
#include "story.h"
#include "turn.h"

#define MODULE "store"

#define BATCH_ITEMS		250		/* more make the commit of each no cheaper, and all others wait for it */
#define BATCH_BYTES		((size_t) 16 * 1024 * 1024)
#define MAX_BATCH		((size_t) 1000 * 1024 * 1024)	/* below what a bytea may have */
#define BATCH_HEADER	8		/* magic and number of items, see packed.h */
#define SWEEP_MS		100
#define BACKOFF_MOST	200

typedef struct batch batch_t;

/* An append that has no outcome yet. */
typedef struct item
{
	struct item *prev;			/* among the delayed, the refused, or in a batch */
	struct item *next;
	evp_fair_item_t turn;		/* among the waiting */
	uint64_t	source;
	evp_store_t *store;
	evp_append_cb cb;			/* NULL once it was called: past its deadline, in flight */
	void	   *arg;
	uint64_t	deadline;
	uint64_t	queued;
	uint64_t	not_before;		/* while it is among the delayed */
	unsigned	tries;
	uint64_t	number;			/* in the order in which they were handed over */
	bool		chained;		/* EVENTO_ITEM_CHAINED: made for the place behind the one with the number before */
	bool		alone;			/* in a batch of its own */
	bool		unknown;		/* was sent once without a confirmation */
	bool		busy;			/* another transaction had its stream when it was last tried */
	uint64_t	n_events;
	int64_t		since;			/* where the id of an append without stream is looked for, once it is unknown */
	size_t		since_at;		/* its place in packed; 0: it has none */
	evp_buf_t	packed;			/* a batch of this item alone */
	char		why[200];		/* what stood in its way last */
} item_t;

struct batch
{
	batch_t    *prev;
	batch_t    *next;
	evp_store_t *store;
	item_t	   *items;
	unsigned	count;
};

struct evp_store
{
	evp_proxy_t *proxy;
	evp_classes_t *classes;
	evp_fair_t	waiting;
	item_t	   *delayed;
	item_t	   *refused;		/* never queued; why says why */
	batch_t    *batches;		/* in flight */
	uint64_t	numbers;		/* given to appends */
	size_t		count;			/* appends without outcome, but for the refused */
	size_t		bytes;
	uint64_t	up_at;			/* when an append connection was last seen up */
	char		sqlstate[6];	/* of the refusal that is being told */
	evp_buf_t	scratch;
	evp_turn_t	turn;
	uv_timer_t	sweep;			/* while there are appends: deadlines */
	uv_timer_t	delay;			/* to the first of the delayed */
	bool		stopped;
};

static item_t *
first_waiting(const evp_store_t *store)
{
	evp_fair_item_t *first = evp_fair_first(&store->waiting);

	return first != NULL ? EVP_FAIR_OF(first, item_t, turn) : NULL;
}

static void
free_item(item_t *item)
{
	evp_buf_free(&item->packed);
	free(item);
}

static void
answer(item_t *item, evp_store_status_t status, int64_t first, int64_t last, const char *message)
{
	evp_append_cb cb = item->cb;

	item->cb = NULL;
	if (cb != NULL)
		cb(item->arg, status, first, last, message);
	item->store->sqlstate[0] = '\0';
}

/* Ends an item that is in no list. */
static void
finish(item_t *item, evp_store_status_t status, int64_t first, int64_t last, const char *message)
{
	item->store->count--;
	item->store->bytes -= item->packed.len;
	answer(item, status, first, last, message);
	free_item(item);
}

/* Ends an item that had no outcome in its time. */
static void
finish_late(item_t *item)
{
	char		text[320];

	if (item->unknown)
	{
		snprintf(text, sizeof(text), "whether the event was stored is unknown: %s", item->why);
		finish(item, EVP_STORE_AWAY, 0, 0, text);
	}
	else if (item->busy)
		finish(item, EVP_STORE_BUSY, 0, 0, item->why);
	else if (!evp_db_lane_is_up(item->store->proxy->db, EVP_DB_APPEND))
	{
		snprintf(text, sizeof(text), "the database is not reachable: %s", evp_db_error(item->store->proxy->db));
		finish(item, EVP_STORE_AWAY, 0, 0, text);
	}
	else
	{
		snprintf(text, sizeof(text), "the event was not stored in time%s%s", item->why[0] != '\0' ? ": " : "", item->why);
		finish(item, EVP_STORE_AWAY, 0, 0, text);
	}
}

static void
on_delay(uv_timer_t *timer)
{
	evp_store_t *store = timer->data;

	evp_turn_wake(&store->turn);
}

/* Moves the delayed whose time has come to the waiting, and sets the timer to the next. */
static void
wake_delayed(evp_store_t *store)
{
	uint64_t	now = evp_now(store->proxy),
				soonest = UINT64_MAX;
	item_t	   *item,
			   *next;

	DL_FOREACH_SAFE(store->delayed, item, next)
	{
		if (item->not_before <= now)
		{
			DL_DELETE(store->delayed, item);
			evp_fair_put(&store->waiting, item->source, &item->turn);
		}
		else if (item->not_before < soonest)
			soonest = item->not_before;
	}
	if (soonest != UINT64_MAX && !store->stopped)
		uv_timer_start(&store->delay, on_delay, soonest - now, 0);
}

/* Tries an item again, alone, after a while that grows with its tries. */
static void
try_later(item_t *item)
{
	evp_store_t *store = item->store;
	uint64_t	wait = item->tries < 8 ? UINT64_C(1) << item->tries : BACKOFF_MOST;

	item->alone = true;
	if (wait > BACKOFF_MOST)
		wait = BACKOFF_MOST;
	item->not_before = evp_now(store->proxy) + wait;
	DL_APPEND(store->delayed, item);
	evp_turn_wake(&store->turn);
}

/* Tries an item again as soon as a connection is free. */
static void
try_again(item_t *item)
{
	evp_fair_put(&item->store->waiting, item->source, &item->turn);
	evp_turn_wake(&item->store->turn);
}

/* An item's own outcome, which says that it was not stored; its transaction has committed. */
static void
take_refusal(item_t *item, evp_slice_t outcome, evp_slice_t detail)
{
	char	   *sqlstate = item->store->sqlstate;
	char		text[1024];

	snprintf(sqlstate, sizeof(item->store->sqlstate), "%.*s", (int) (outcome.n < 5 ? outcome.n : 5), (const char *) outcome.p);
	snprintf(text, sizeof(text), "%.*s", (int) (detail.n < 1000 ? detail.n : 1000), detail.p != NULL ? (const char *) detail.p : "");
	if (strcmp(sqlstate, EVENTO_SQLSTATE_WRONG_VERSION) == 0)
		finish(item, EVP_STORE_CONFLICT, 0, 0, text);
	else if (strcmp(sqlstate, EVENTO_SQLSTATE_LOCK_LOST) == 0)
		finish(item, EVP_STORE_LOCK_LOST, 0, 0, text);
	else if (strcmp(sqlstate, EVENTO_SQLSTATE_LOCK_NOT_AVAILABLE) == 0 && strncmp(text, "lock row", 8) == 0)
		finish(item, EVP_STORE_LOCKED, 0, 0, text);
	else if (evp_db_is_passing(sqlstate) && item->cb != NULL)
	{
		item->busy = true;
		snprintf(item->why, sizeof(item->why), "%.199s", text[0] != '\0' ? text : sqlstate);
		sqlstate[0] = '\0';
		try_later(item);
	}
	else
	{
		char		message[1100];

		snprintf(message, sizeof(message), "%s (SQLSTATE %s)", text, sqlstate);
		finish(item, EVP_STORE_REFUSED, 0, 0, message);
	}
}

/* The rows of a batch that has committed, one an item. */
static void
take_outcomes(evp_store_t *store, item_t *items, unsigned count, const PGresult *rows)
{
	static const Oid types[] = {EVP_OID_TEXT, EVP_OID_INT8, EVP_OID_INT8, EVP_OID_TEXT};
	item_t	   *item,
			   *next;
	int			row = 0;
	bool		fits = evp_rows_are(rows, types, 4) && (unsigned) PQntuples(rows) == count;

	if (!fits)
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "evento.append_batch gave %d rows of %d columns for %u appends", PQntuples(rows),
				PQnfields(rows), count);
	DL_FOREACH_SAFE(items, item, next)
	{
		evp_slice_t outcome;
		int64_t		first = 0,
					last = 0;

		DL_DELETE(items, item);
		if (!fits)
		{
			finish(item, EVP_STORE_AWAY, 0, 0, "whether the event was stored is unknown: evento.append_batch is of another version");
			continue;
		}
		outcome = evp_row_bytes(rows, row, 0);
		if (evp_slice_is(outcome, EVENTO_SQLSTATE_OK))
		{
			/* Without a stream there are no versions. */
			evp_row_int64(rows, row, 1, &first);
			evp_row_int64(rows, row, 2, &last);
			if (evp_slice_is(evp_row_bytes(rows, row, 3), "repeat"))
				finish(item, EVP_STORE_REPEAT, first, last, NULL);
			else
			{
				evp_metrics.appends += item->n_events;
				finish(item, EVP_STORE_OK, first, last, NULL);
			}
		}
		else
			take_refusal(item, outcome, evp_row_bytes(rows, row, 3));
		row++;
	}
	evp_turn_wake(&store->turn);
}

/* A batch that failed as a whole: nothing of it is stored.  Which item is at fault shows when each is alone. */
static void
take_failure(item_t *items, unsigned count, const evp_db_result_t *result)
{
	item_t	   *item,
			   *next;
	bool		passing = evp_db_is_passing(result->sqlstate);

	DL_FOREACH_SAFE(items, item, next)
	{
		DL_DELETE(items, item);
		snprintf(item->why, sizeof(item->why), "%.199s", result->message);
		if (item->cb == NULL)
			finish(item, EVP_STORE_AWAY, 0, 0, item->why);
		else if (passing)
			try_later(item);
		else if (count > 1)
		{
			item->alone = true;
			try_again(item);
		}
		else
		{
			char		message[320];

			snprintf(message, sizeof(message), "%s (SQLSTATE %s)", result->message, result->sqlstate);
			snprintf(item->store->sqlstate, sizeof(item->store->sqlstate), "%.5s", result->sqlstate);
			finish(item, EVP_STORE_REFUSED, 0, 0, message);
		}
	}
}

static void
take_unknown(item_t *items, const evp_db_result_t *result, bool sent, bool stopped)
{
	item_t	   *item,
			   *next;

	DL_FOREACH_SAFE(items, item, next)
	{
		DL_DELETE(items, item);
		if (sent && item->since_at != 0)
			evp_buf_set_u64(&item->packed, item->since_at, (uint64_t) item->since);
		item->unknown = item->unknown || sent;
		/* A batch that kills its connection twice goes on one by one: the others must not suffer for one. */
		item->alone = item->alone || item->tries > 1;
		snprintf(item->why, sizeof(item->why), "%.199s", result->message);
		if (item->cb == NULL || stopped)
			finish_late(item);
		else if (item->tries > 1)
			try_later(item);
		else
			try_again(item);
	}
}

static void
on_appended(void *arg, const evp_db_result_t *result)
{
	batch_t    *batch = arg;
	evp_store_t *store = batch->store;
	item_t	   *items = batch->items;
	unsigned	count = batch->count;

	DL_DELETE(store->batches, batch);
	free(batch);
	switch (result->status)
	{
		case EVP_DB_OK:
			take_outcomes(store, items, count, result->rows);
			break;
		case EVP_DB_ERROR:
			take_failure(items, count, result);
			break;
		case EVP_DB_UNKNOWN:
			EVP_COUNT(append_unknown);
			take_unknown(items, result, true, store->stopped);
			break;
		case EVP_DB_UNSENT:
			take_unknown(items, result, false, store->stopped);
			break;
	}
}

/* Was it made for the place right behind another? */
static bool
follows(const item_t *before, const item_t *item)
{
	return item->chained && before->number + 1 == item->number;
}

/*
 * Is this one made to follow another than the one that it would lie behind?
 * That one may have ended meanwhile, for its time was up, or never got in.  The
 * database sees no difference between what is before it in a batch and what
 * should have been, so it must see nothing before it.
 */
static bool
lost_its_place(const item_t *before, const item_t *item)
{
	return item->chained && !follows(before, item);
}

/* Has a batch no room for one more?  The number of appends gives way to a chain, whose rest would have to wait for this batch. */
static bool
is_full(const batch_t *batch, size_t bytes, const item_t *item)
{
	return bytes + item->packed.len > BATCH_BYTES || (batch->count >= BATCH_ITEMS && !follows(batch->items->prev, item));
}

/*
 * Takes what goes into the next batch from the waiting.  One that does not fit
 * ends the batch and is the first of the next: those behind it must not overtake
 * it, for they may be of the same stream.
 */
static batch_t *
gather(evp_store_t *store)
{
	batch_t    *batch = calloc(1, sizeof(*batch));
	size_t		bytes = 0;
	item_t	   *item,
			   *next;
	bool		alone = first_waiting(store)->alone;

	if (batch == NULL)
		return NULL;
	batch->store = store;
	for (item = first_waiting(store); item != NULL; item = next)
	{
		if (batch->count > 0 &&
			(alone || item->alone || is_full(batch, bytes, item) || lost_its_place(batch->items->prev, item)))
			break;
		evp_fair_remove(&store->waiting, &item->turn);
		DL_APPEND(batch->items, item);
		if (item->tries++ > 0)
			EVP_COUNT(append_retries);
		batch->count++;
		bytes += item->packed.len;
		next = first_waiting(store);
		/* A chain is one turn. */
		if (next != NULL && !follows(item, next))
		{
			evp_fair_pass(&store->waiting, item->source);
			next = first_waiting(store);
		}
	}
	return batch;
}

static bool
send_batch(evp_store_t *store)
{
	static const Oid types[] = {EVP_OID_BYTEA};
	static const int formats[] = {1};
	batch_t    *batch = gather(store);
	const evp_buf_t *packed;
	const char *values[1];
	int			lengths[1];
	item_t	   *item;

	if (batch == NULL)
		return false;
	if (batch->count == 1)
		packed = &batch->items->packed;
	else
	{
		evp_buf_reset(&store->scratch);
		evp_buf_append_u32(&store->scratch, EVENTO_PACKED_MAGIC);
		evp_buf_append_u32(&store->scratch, batch->count);
		DL_FOREACH(batch->items, item)
			evp_buf_append(&store->scratch, item->packed.data + BATCH_HEADER, item->packed.len - BATCH_HEADER);
		packed = &store->scratch;
	}
	DL_APPEND(store->batches, batch);
	EVP_COUNT(append_batches);
	evp_histogram_add(&evp_metrics.batch_appends, &evp_bounds_items, batch->count);
	if (packed->failed)
	{
		const evp_db_result_t no_memory = {.status = EVP_DB_UNSENT,.message = "out of memory"};

		on_appended(batch, &no_memory);
		return false;
	}
	values[0] = (const char *) packed->data;
	lengths[0] = (int) packed->len;
	evp_db_run(store->proxy->db, EVP_DB_APPEND,
			   &(evp_db_statement_t) {.sql = "SELECT outcome, first_version, last_version, detail FROM evento.append_batch($1)",
			   .nparams = 1,.types = types,.values = values,.lengths = lengths,.formats = formats,.result_format = 1},
			   on_appended, batch);
	if (store->scratch.cap > BATCH_BYTES / 4)
		evp_buf_free(&store->scratch);
	return true;
}

static void
on_turn(void *arg)
{
	evp_store_t *store = arg;
	item_t	   *refused = store->refused,
			   *item,
			   *next;

	store->refused = NULL;
	DL_FOREACH_SAFE(refused, item, next)
	{
		answer(item, EVP_STORE_REFUSED, 0, 0, item->why);
		free_item(item);
	}
	if (store->stopped)
		return;
	wake_delayed(store);
	while (store->waiting.count > 0 && evp_db_idle(store->proxy->db, EVP_DB_APPEND) > 0)
		if (!send_batch(store))
			break;
}

static void
on_room(void *arg)
{
	evp_store_t *store = arg;

	if (store->waiting.count > 0)
		evp_turn_wake(&store->turn);
}

/* Has an item waited past its time?  away: there is no database. */
static bool
is_late(const item_t *item, bool away)
{
	const evp_store_t *store = item->store;
	uint64_t	now = evp_now(store->proxy);
	uint64_t	since = item->queued > store->up_at ? item->queued : store->up_at;

	return item->deadline <= now || (away && !item->unknown && since + store->proxy->config.database_wait <= now);
}

/* Ends what has waited past its time. */
static void
sweep_late(evp_store_t *store, bool away)
{
	evp_fair_item_t *turn,
			   *behind;
	item_t	   *late = NULL,
			   *item,
			   *next;

	for (turn = evp_fair_first(&store->waiting); turn != NULL; turn = behind)
	{
		item = EVP_FAIR_OF(turn, item_t, turn);
		behind = evp_fair_after(turn);
		if (is_late(item, away))
		{
			evp_fair_remove(&store->waiting, turn);
			DL_APPEND(late, item);
		}
	}
	DL_FOREACH_SAFE(store->delayed, item, next)
	{
		if (is_late(item, away))
		{
			DL_DELETE(store->delayed, item);
			DL_APPEND(late, item);
		}
	}
	DL_FOREACH_SAFE(late, item, next)
	{
		DL_DELETE(late, item);
		finish_late(item);
	}
}

static void
on_sweep(uv_timer_t *timer)
{
	evp_store_t *store = timer->data;
	bool		away = !evp_db_lane_is_up(store->proxy->db, EVP_DB_APPEND);
	batch_t    *batch;
	item_t	   *item;

	if (!away)
		store->up_at = evp_now(store->proxy);
	sweep_late(store, away);
	/* What is in flight stays so: its caller hears now, and the answer that comes later goes nowhere. */
	DL_FOREACH(store->batches, batch)
		DL_FOREACH(batch->items, item)
			if (item->cb != NULL && item->deadline <= evp_now(store->proxy))
				answer(item, EVP_STORE_AWAY, 0, 0, "whether the event was stored is unknown: the database has not confirmed it in time");
	if (store->count == 0 && !store->stopped)
		uv_timer_stop(&store->sweep);
}

void
evp_store_append(evp_store_t *store, uint64_t source, const evp_pack_item_t *append, uint64_t deadline, evp_append_cb cb,
				 void *arg)
{
	item_t	   *item = calloc(1, sizeof(*item));
	evp_pack_item_t first = *append;
	evp_pack_t	pack;
	const char *wrong;

	if (item == NULL)
	{
		/* An outcome that never comes would lose a command; without memory for these few bytes nothing works anyway. */
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		abort();
	}
	item->store = store;
	item->cb = cb;
	item->arg = arg;
	item->deadline = deadline;
	item->queued = evp_now(store->proxy);
	item->n_events = append->n_events;
	item->number = store->numbers++;
	item->chained = (append->flags & EVENTO_ITEM_CHAINED) != 0;
	item->source = source;
	evp_buf_init(&item->packed, MAX_BATCH);
	evp_pack_open(&pack, &item->packed);
	if (append->flags & EVENTO_ITEM_SINCE)
	{
		/* The first time it cannot be there: the walk over all that others have stored since then is left out. */
		first.since = INT64_MAX;
		item->since = append->since;
		item->since_at = evp_pack_since_offset(append);
	}
	wrong = evp_pack_add(&pack, &first);
	if (wrong == NULL && !evp_pack_close(&pack))
		wrong = "the event is too large";
	if (wrong == NULL && (store->count >= store->proxy->config.append_queue ||
						  store->bytes + item->packed.len > store->proxy->config.append_queue_bytes))
		wrong = "too many events wait for the database";
	if (wrong == NULL && store->stopped)
		wrong = "the proxy is shutting down";
	if (wrong != NULL)
	{
		snprintf(item->why, sizeof(item->why), "%s", wrong);
		DL_APPEND(store->refused, item);
		evp_turn_wake(&store->turn);
		return;
	}
	store->count++;
	store->bytes += item->packed.len;
	try_again(item);
	if (!uv_is_active((uv_handle_t *) &store->sweep))
	{
		store->up_at = evp_db_lane_is_up(store->proxy->db, EVP_DB_APPEND) ? item->queued : store->up_at;
		uv_timer_start(&store->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	}
}

const char *
evp_store_sqlstate(const evp_store_t *store)
{
	return store->sqlstate;
}

void
evp_store_load(evp_store_t *store, uint64_t source, const char *stream, size_t len, const uint8_t *id, evp_load_what_t what,
			   uint64_t deadline, evp_load_cb cb, void *arg)
{
	evp_story_load(store->proxy, source, stream, len, id, what, NULL, deadline, cb, arg);
}

void
evp_store_load_near(evp_store_t *store, uint64_t source, const char *stream, size_t len, const uint8_t *id, uint64_t since,
					uint64_t deadline, evp_load_cb cb, void *arg)
{
	evp_story_load(store->proxy, source, stream, len, id, EVP_LOAD_SNAPSHOT, &since, deadline, cb, arg);
}

void
evp_store_class_seen(evp_store_t *store, evp_slice_t type, evp_slice_t klass)
{
	if (!store->stopped)
		evp_classes_seen(store->classes, type, klass);
}

void
evp_store_queued(const evp_store_t *store, size_t *count, size_t *bytes)
{
	*count = store->count;
	*bytes = store->bytes;
}

uint64_t
evp_store_wait_until(const evp_store_t *store, uint64_t deadline)
{
	uint64_t	until = evp_now(store->proxy) + store->proxy->config.database_wait;

	return until < deadline ? until : deadline;
}

evp_store_t *
evp_store_new(evp_proxy_t *proxy)
{
	evp_store_t *store = calloc(1, sizeof(*store));

	if (store != NULL)
		store->classes = evp_classes_new(proxy->db);
	if (store == NULL || store->classes == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		free(store);
		return NULL;
	}
	store->proxy = proxy;
	evp_buf_init(&store->scratch, BATCH_BYTES + 4096);
	evp_turn_init(&store->turn, proxy->loop, on_turn, store);
	uv_timer_init(proxy->loop, &store->sweep);
	uv_timer_init(proxy->loop, &store->delay);
	store->sweep.data = store;
	store->delay.data = store;
	evp_db_on_room(proxy->db, EVP_DB_APPEND, on_room, store);
	return store;
}

void
evp_store_stop(evp_store_t *store)
{
	item_t	   *item,
			   *next;

	if (store->stopped)
		return;
	store->stopped = true;
	while ((item = first_waiting(store)) != NULL)
	{
		evp_fair_remove(&store->waiting, &item->turn);
		DL_APPEND(store->delayed, item);
	}
	DL_FOREACH_SAFE(store->delayed, item, next)
	{
		DL_DELETE(store->delayed, item);
		snprintf(item->why, sizeof(item->why), "the proxy is shutting down");
		finish_late(item);
	}
	while (store->refused != NULL)
		on_turn(store);
	evp_turn_stop(&store->turn);
	uv_close((uv_handle_t *) &store->sweep, NULL);
	uv_close((uv_handle_t *) &store->delay, NULL);
}

void
evp_store_free(evp_store_t *store)
{
	if (store == NULL)
		return;
	evp_classes_free(store->classes);
	evp_buf_free(&store->scratch);
	free(store);
}
