/*
 * locks.c
 *    Cluster-wide locks of commands.  A lock is asked for with a ticket, which
 *    the database grants in order; this file takes, asks after and gives back
 *    tickets, many in one statement, one statement at a time.
 *
 *    A ticket that is granted while its holder waits is announced by NOTIFY
 *    evento_lock; since a notification may be lost with its connection, all
 *    waiting tickets are also asked after once a second.  Nobody announces that
 *    a proxy has died: while one may have, they are asked after more often.
 */
#include "locks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#include "../include/errcodes.h"
#include "db.h"
#include "log.h"
#include "metrics.h"
#include "pg_array.h"
#include "registry.h"
#include "rows.h"
#include "turn.h"

#define MODULE "locks"

#define BATCH			500		/* tickets in one statement */
#define KINDS			3		/* of statements: give back, ask after, take */
#define SWEEP_MS		100
#define POLL_MS			1000
#define HURRY_MS		200
#define HURRY_FOR_MS	3000	/* a killed proxy's locks are free a second after its last renewal */
#define BACKOFF_LEAST	10
#define BACKOFF_MOST	500
#define KEEP_FOR_MS		60000	/* how long a lost connection may bring tickets that nobody knows */
#define KEEP_EVERY_MS	2000

typedef enum lock_state
{
	LOCK_ASKING,				/* in asking: wants a ticket */
	LOCK_SENT,					/* in flight, for a ticket */
	LOCK_WAITING,				/* has a ticket: in by_ticket */
	LOCK_HELD,					/* has the lock: in by_ticket */
	LOCK_RELEASING				/* in releasing, or in flight, to give the ticket back */
} lock_state_t;

struct evp_lock
{
	struct evp_lock *prev;
	struct evp_lock *next;
	UT_hash_handle hh;			/* in by_ticket, by ticket */
	evp_locks_t *locks;
	lock_state_t state;
	evp_lock_cb cb;				/* NULL once it was called, or must not be */
	void	   *arg;
	uint64_t	asked;
	uint64_t	deadline;
	uint64_t	not_before;		/* for another try */
	unsigned	tries;
	bool		alone;			/* in a statement of its own: its name may be what failed a batch */
	bool		given_up;		/* while SENT: give the ticket back when it comes */
	bool		poll;			/* while WAITING: ask after it */
	bool		polling;
	bool		counted;		/* in locks_waiting */
	bool		refused;		/* in refused, never queued */
	int64_t		ticket;
	int64_t		proxy_id;		/* in whose name the ticket was taken */
	size_t		len;
	char		name[];
};

struct evp_locks
{
	evp_proxy_t *proxy;
	evp_lock_t *asking;
	evp_lock_t *releasing;
	evp_lock_t *sent;			/* in flight: all taking, or all releasing */
	evp_lock_t *refused;		/* called back in the next turn */
	evp_lock_t *by_ticket;
	size_t		count;			/* all but the refused */
	bool		busy;			/* a statement of ours is in flight */
	unsigned	turn_of;		/* which kind of statement is asked for first next */
	uint64_t	up_at;			/* when the database was last seen up */
	uint64_t	poll_at;
	uint64_t	hurry_until;
	uint64_t	keep_at;		/* when to give back unknown tickets next, 0: not needed */
	uint64_t	keep_until;
	evp_buf_t	names;
	evp_buf_t	numbers;
	evp_turn_t	turn;
	uv_timer_t	sweep;			/* while there are locks */
	bool		stopped;
};

static void
forget(evp_lock_t *lock)
{
	lock->locks->count--;
	free(lock);
}

static void
uncount(evp_lock_t *lock)
{
	if (lock->counted)
		evp_metrics.locks_waiting--;
	lock->counted = false;
}

static void
call_back(evp_lock_t *lock, evp_lock_status_t status, int64_t fence)
{
	evp_lock_cb cb = lock->cb;

	uncount(lock);
	lock->cb = NULL;
	if (cb != NULL)
		cb(lock->arg, status, fence);
}

/* Puts a lock whose ticket is in by_ticket among those to be given back. */
static void
give_back(evp_lock_t *lock)
{
	HASH_DEL(lock->locks->by_ticket, lock);
	lock->state = LOCK_RELEASING;
	lock->tries = 0;
	lock->alone = false;
	lock->not_before = 0;
	DL_APPEND(lock->locks->releasing, lock);
	evp_turn_wake(&lock->locks->turn);
}

/* Asks (again) for a ticket. */
static void
ask(evp_lock_t *lock)
{
	lock->state = LOCK_ASKING;
	lock->ticket = 0;
	DL_APPEND(lock->locks->asking, lock);
	evp_turn_wake(&lock->locks->turn);
}

/* Ends the wait of a lock that is not held, in whatever state, with bad news. */
static void
give_up(evp_lock_t *lock, evp_lock_status_t status)
{
	evp_lock_cb cb = lock->cb;
	void	   *arg = lock->arg;

	uncount(lock);
	lock->cb = NULL;
	switch (lock->state)
	{
		case LOCK_ASKING:
			DL_DELETE(lock->locks->asking, lock);
			forget(lock);
			break;
		case LOCK_SENT:
			lock->given_up = true;
			break;
		case LOCK_WAITING:
		case LOCK_HELD:
			give_back(lock);
			break;
		case LOCK_RELEASING:
			break;
	}
	if (cb != NULL)
		cb(arg, status, 0);
}

/* A ticket is granted. */
static void
hold(evp_lock_t *lock, int64_t fence)
{
	/* Others may take it over soon, so nothing is begun under it; the next poll tells whether it still stands. */
	if (!evp_registry_lease_ok(lock->locks->proxy->registry))
		return;
	lock->state = LOCK_HELD;
	lock->poll = false;
	call_back(lock, EVP_LOCK_HELD, fence);
}

static void
back_off(evp_lock_t *lock)
{
	uint64_t	wait = lock->tries < 6 ? (uint64_t) BACKOFF_LEAST << lock->tries : BACKOFF_MOST;

	lock->tries++;
	lock->not_before = evp_now(lock->locks->proxy) + (wait < BACKOFF_MOST ? wait : BACKOFF_MOST);
}

/* Takes from a list what can go into one statement, into sent. */
static unsigned
gather(evp_locks_t *locks, evp_lock_t **list)
{
	uint64_t	now = evp_now(locks->proxy);
	unsigned	count = 0;
	bool		alone = false;
	evp_lock_t *lock,
			   *next;

	DL_FOREACH_SAFE(*list, lock, next)
	{
		if (count == BATCH || alone)
			break;
		if (lock->not_before > now || (lock->alone && count > 0))
			continue;
		alone = lock->alone;
		DL_DELETE(*list, lock);
		DL_APPEND(locks->sent, lock);
		count++;
	}
	return count;
}

/* The end of a statement of ours. */
static evp_lock_t *
take_sent(evp_locks_t *locks)
{
	evp_lock_t *sent = locks->sent;

	locks->sent = NULL;
	locks->busy = false;
	evp_turn_wake(&locks->turn);
	return sent;
}

static void
run(evp_locks_t *locks, const evp_db_statement_t *statement, evp_db_cb cb)
{
	locks->busy = true;
	evp_db_run(locks->proxy->db, EVP_DB_LOCK, statement, cb, locks);
}

/* Tickets may have been taken of which we have not heard: give them back, some times over, since the lost connection's
 * statement may still be running. */
static void
expect_strays(evp_locks_t *locks)
{
	locks->keep_at = evp_now(locks->proxy);
	locks->keep_until = locks->keep_at + KEEP_FOR_MS;
}

/* ---- taking ---- */

static void
on_taken(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_INT8};
	evp_locks_t *locks = arg;
	evp_lock_t *sent = take_sent(locks),
			   *lock,
			   *next;
	int			count,
				row = 0;
	bool		ok;

	DL_COUNT(sent, lock, count);
	ok = result->status == EVP_DB_OK && evp_rows_are(result->rows, types, 2) && PQntuples(result->rows) == count;
	if (!ok && (result->status == EVP_DB_UNKNOWN || result->status == EVP_DB_OK))
		expect_strays(locks);
	if (!ok && result->status == EVP_DB_ERROR && !evp_db_is_passing(result->sqlstate))
		evp_log(EVP_LOG_WARNING, MODULE, NULL, "taking %d locks: %s", count, result->message);
	DL_FOREACH_SAFE(sent, lock, next)
	{
		int64_t		fence;

		DL_DELETE(sent, lock);
		if (ok && evp_row_int64(result->rows, row, 0, &lock->ticket))
		{
			lock->state = LOCK_WAITING;
			lock->tries = 0;
			HASH_ADD(hh, locks->by_ticket, ticket, sizeof(lock->ticket), lock);
			if (lock->given_up)
				give_back(lock);
			else if (evp_row_int64(result->rows, row, 1, &fence))
				hold(lock, fence);
		}
		else if (lock->given_up)
			forget(lock);
		else if (result->status == EVP_DB_ERROR && count == 1 && !evp_db_is_passing(result->sqlstate))
		{
			ask(lock);
			give_up(lock, EVP_LOCK_AWAY);
		}
		else
		{
			if (result->status == EVP_DB_ERROR && count > 1)
				lock->alone = true;
			else
				back_off(lock);
			ask(lock);
		}
		row++;
	}
}

static bool
send_takes(evp_locks_t *locks)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_TEXT_ARRAY, EVP_OID_INT8_ARRAY};
	static const int formats[] = {1, 1, 1};
	uint64_t	now = evp_now(locks->proxy);
	int64_t		proxy_id = evp_registry_proxy_id(locks->proxy->registry);
	unsigned	count;
	uint8_t		id[8];
	const char *values[3];
	int			lengths[3];
	evp_lock_t *lock;

	if (proxy_id == 0 || !evp_registry_lease_ok(locks->proxy->registry) || (count = gather(locks, &locks->asking)) == 0)
		return false;
	evp_buf_reset(&locks->names);
	evp_buf_reset(&locks->numbers);
	evp_pg_array_begin(&locks->names, EVP_OID_TEXT, count);
	evp_pg_array_begin(&locks->numbers, EVP_OID_INT8, count);
	DL_FOREACH(locks->sent, lock)
	{
		lock->state = LOCK_SENT;
		lock->proxy_id = proxy_id;
		evp_pg_array_text(&locks->names, lock->name, lock->len);
		evp_pg_array_int8(&locks->numbers, lock->deadline > now ? (int64_t) (lock->deadline - now) : 0);
	}
	if (locks->names.failed || locks->numbers.failed)
		abort();
	evp_param_int64(id, proxy_id);
	values[0] = (const char *) id;
	lengths[0] = sizeof(id);
	values[1] = (const char *) locks->names.data;
	lengths[1] = (int) locks->names.len;
	values[2] = (const char *) locks->numbers.data;
	lengths[2] = (int) locks->numbers.len;
	run(locks, &(evp_db_statement_t) {.sql = "SELECT ticket, fence FROM evento._lock_take($1, $2, $3)",.nparams = 3,.types = types,
		.values = values,.lengths = lengths,.formats = formats,.result_format = 1}, on_taken);
	return true;
}

/* ---- giving back ---- */

static void
on_released(void *arg, const evp_db_result_t *result)
{
	evp_locks_t *locks = arg;
	evp_lock_t *sent = take_sent(locks),
			   *lock,
			   *next;
	int64_t		proxy_id = evp_registry_proxy_id(locks->proxy->registry);
	int			count;

	DL_COUNT(sent, lock, count);
	DL_FOREACH_SAFE(sent, lock, next)
	{
		DL_DELETE(sent, lock);
		/* The tickets of a registration that is void go with it. */
		if (result->status == EVP_DB_OK || locks->stopped || (proxy_id != 0 && proxy_id != lock->proxy_id))
		{
			forget(lock);
			continue;
		}
		if (result->status == EVP_DB_ERROR && count > 1)
			lock->alone = true;
		else
			back_off(lock);
		DL_APPEND(locks->releasing, lock);
	}
}

/* Writes the tickets of what is in sent (or waits to be polled) as an array parameter. */
static void
run_tickets(evp_locks_t *locks, const char *sql, evp_db_cb cb)
{
	static const Oid types[] = {EVP_OID_INT8_ARRAY};
	static const int formats[] = {1};
	const char *values[1] = {(const char *) locks->numbers.data};
	int			lengths[1] = {(int) locks->numbers.len};

	if (locks->numbers.failed)
		abort();
	run(locks, &(evp_db_statement_t) {.sql = sql,.nparams = 1,.types = types,.values = values,.lengths = lengths,
		.formats = formats,.result_format = 1}, cb);
}

static bool
send_releases(evp_locks_t *locks)
{
	unsigned	count = gather(locks, &locks->releasing);
	evp_lock_t *lock;

	if (count == 0)
		return false;
	evp_buf_reset(&locks->numbers);
	evp_pg_array_begin(&locks->numbers, EVP_OID_INT8, count);
	DL_FOREACH(locks->sent, lock)
		evp_pg_array_int8(&locks->numbers, lock->ticket);
	run_tickets(locks, "SELECT evento._lock_release($1)", on_released);
	return true;
}

/* ---- asking after ---- */

static void
on_polled(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_INT8};
	evp_locks_t *locks = arg;
	evp_lock_t *lock,
			   *next;
	bool		ok = result->status == EVP_DB_OK && evp_rows_are(result->rows, types, 2);

	take_sent(locks);
	for (int row = 0; ok && row < PQntuples(result->rows); row++)
	{
		int64_t		ticket,
					fence;

		if (!evp_row_int64(result->rows, row, 0, &ticket))
			continue;
		HASH_FIND(hh, locks->by_ticket, &ticket, sizeof(ticket), lock);
		if (lock == NULL || !lock->polling)
			continue;
		lock->polling = false;
		lock->tries = 0;
		if (lock->state == LOCK_WAITING && evp_row_int64(result->rows, row, 1, &fence))
			hold(lock, fence);
	}
	HASH_ITER(hh, locks->by_ticket, lock, next)
	{
		if (!lock->polling)
			continue;
		lock->polling = false;
		if (ok && lock->state == LOCK_WAITING)
		{
			/* Void: its time was up by the database's clock, or this proxy's registration was. */
			HASH_DEL(locks->by_ticket, lock);
			ask(lock);
		}
		else if (!ok)
		{
			/* Behind a stream's lock, perhaps: of this name, or of another of the batch. */
			lock->alone = result->status == EVP_DB_ERROR;
			lock->poll = true;
			back_off(lock);
		}
	}
}

static bool
send_polls(evp_locks_t *locks)
{
	uint64_t	now = evp_now(locks->proxy);
	int64_t		tickets[BATCH];
	unsigned	count = 0;
	evp_lock_t *lock,
			   *next;

	HASH_ITER(hh, locks->by_ticket, lock, next)
	{
		if (lock->state != LOCK_WAITING || !lock->poll || lock->not_before > now || (lock->alone && count > 0))
			continue;
		lock->poll = false;
		lock->polling = true;
		tickets[count++] = lock->ticket;
		if (count == BATCH || lock->alone)
			break;
	}
	if (count == 0)
		return false;
	evp_buf_reset(&locks->numbers);
	evp_pg_array_begin(&locks->numbers, EVP_OID_INT8, count);
	for (unsigned i = 0; i < count; i++)
		evp_pg_array_int8(&locks->numbers, tickets[i]);
	run_tickets(locks, "SELECT ticket, fence FROM evento._lock_poll($1)", on_polled);
	return true;
}

static void
poll_all(evp_locks_t *locks)
{
	evp_lock_t *lock,
			   *next;

	HASH_ITER(hh, locks->by_ticket, lock, next)
	{
		if (lock->state == LOCK_WAITING)
			lock->poll = true;
	}
	evp_turn_wake(&locks->turn);
}

/* NOTIFY evento_lock: "proxy ticket", or nothing where a proxy has left. */
static void
on_notify(void *arg, const char *payload)
{
	evp_locks_t *locks = arg;
	long long	proxy_id,
				ticket;
	int64_t		key;
	evp_lock_t *lock;

	if (sscanf(payload, "%lld %lld", &proxy_id, &ticket) != 2)
	{
		poll_all(locks);
		return;
	}
	key = ticket;
	HASH_FIND(hh, locks->by_ticket, &key, sizeof(key), lock);
	if (lock != NULL && lock->state == LOCK_WAITING)
	{
		lock->poll = true;
		evp_turn_wake(&locks->turn);
	}
	else if (lock == NULL && proxy_id == evp_registry_proxy_id(locks->proxy->registry) && locks->busy && locks->sent != NULL)
	{
		/* Perhaps one whose answer is still on its way. */
		locks->poll_at = 0;
	}
}

/* ---- tickets that nobody knows ---- */

static void
on_kept(void *arg, const evp_db_result_t *result)
{
	evp_locks_t *locks = arg;
	uint64_t	now = evp_now(locks->proxy);

	take_sent(locks);
	if (result->status != EVP_DB_OK)
		locks->keep_at = now + BACKOFF_MOST;
	else
		locks->keep_at = now < locks->keep_until ? now + KEEP_EVERY_MS : 0;
}

static bool
send_keep(evp_locks_t *locks)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_INT8_ARRAY};
	static const int formats[] = {1, 1};
	int64_t		proxy_id = evp_registry_proxy_id(locks->proxy->registry);
	uint8_t		id[8];
	size_t		count = HASH_COUNT(locks->by_ticket);
	const char *values[2];
	int			lengths[2];
	evp_lock_t *lock,
			   *next;

	if (locks->keep_at == 0 || locks->keep_at > evp_now(locks->proxy) || proxy_id == 0)
		return false;
	DL_FOREACH(locks->releasing, lock)
		count++;
	evp_buf_reset(&locks->numbers);
	evp_pg_array_begin(&locks->numbers, EVP_OID_INT8, count);
	HASH_ITER(hh, locks->by_ticket, lock, next)
		evp_pg_array_int8(&locks->numbers, lock->ticket);
	DL_FOREACH(locks->releasing, lock)
		evp_pg_array_int8(&locks->numbers, lock->ticket);
	if (locks->numbers.failed)
		abort();
	evp_param_int64(id, proxy_id);
	values[0] = (const char *) id;
	lengths[0] = sizeof(id);
	values[1] = (const char *) locks->numbers.data;
	lengths[1] = (int) locks->numbers.len;
	run(locks, &(evp_db_statement_t) {.sql = "SELECT evento._lock_keep($1, $2)",.nparams = 2,.types = types,.values = values,
		.lengths = lengths,.formats = formats,.result_format = 1}, on_kept);
	return true;
}

/* ---- the module ---- */

static void
on_turn(void *arg)
{
	static bool (*const send[KINDS]) (evp_locks_t *) = {send_releases, send_polls, send_takes};
	evp_locks_t *locks = arg;
	evp_lock_t *refused = locks->refused,
			   *lock,
			   *next;

	locks->refused = NULL;
	DL_FOREACH_SAFE(refused, lock, next)
	{
		call_back(lock, EVP_LOCK_AWAY, 0);
		free(lock);
	}
	if (locks->stopped || locks->busy || evp_db_idle(locks->proxy->db, EVP_DB_LOCK) == 0)
		return;
	/* Strays first: what we ask for anew may stand behind them.  The others in turn, so that none keeps another waiting. */
	if (send_keep(locks))
		return;
	for (unsigned i = 0; i < KINDS; i++)
	{
		unsigned	kind = (locks->turn_of + i) % KINDS;

		if (send[kind] (locks))
		{
			locks->turn_of = kind + 1;
			return;
		}
	}
}

static void
on_room(void *arg)
{
	evp_locks_t *locks = arg;

	if (locks->count > 0 || locks->keep_at != 0)
		evp_turn_wake(&locks->turn);
}

static void
on_state(void *arg, bool up)
{
	if (up)
		poll_all(arg);
}

/* Ends the waits whose time is up, and looks at what has waited for another try. */
static void
on_sweep(uv_timer_t *timer)
{
	evp_locks_t *locks = timer->data;
	uint64_t	now = evp_now(locks->proxy);
	int64_t		proxy_id = evp_registry_proxy_id(locks->proxy->registry);
	bool		away = proxy_id == 0 || !evp_db_lane_is_up(locks->proxy->db, EVP_DB_LOCK);
	evp_lock_t *lock,
			   *next;

	if (!away)
		locks->up_at = now;
	DL_FOREACH_SAFE(locks->asking, lock, next)
		if (lock->deadline <= now ||
			(away && (lock->asked > locks->up_at ? lock->asked : locks->up_at) + locks->proxy->config.database_wait <= now))
			give_up(lock, away ? EVP_LOCK_AWAY : EVP_LOCK_TIMEOUT);
	DL_FOREACH_SAFE(locks->sent, lock, next)
		if (lock->state == LOCK_SENT && lock->cb != NULL && lock->deadline <= now)
			give_up(lock, EVP_LOCK_TIMEOUT);
	HASH_ITER(hh, locks->by_ticket, lock, next)
	{
		if (lock->state == LOCK_WAITING && lock->deadline <= now)
			give_up(lock, away ? EVP_LOCK_AWAY : EVP_LOCK_TIMEOUT);
		else if (lock->state == LOCK_WAITING && proxy_id != 0 && proxy_id != lock->proxy_id && !lock->polling)
		{
			/* Taken in the name of a registration that ran out: void, or soon. */
			HASH_DEL(locks->by_ticket, lock);
			ask(lock);
		}
	}
	if (now >= locks->poll_at)
	{
		locks->poll_at = now + (now < locks->hurry_until ? HURRY_MS : POLL_MS);
		poll_all(locks);
	}
	evp_turn_wake(&locks->turn);
	if (locks->count == 0 && locks->keep_at == 0 && !locks->stopped)
		uv_timer_stop(&locks->sweep);
}

void
evp_locks_hurry(evp_locks_t *locks)
{
	locks->hurry_until = evp_now(locks->proxy) + HURRY_FOR_MS;
	locks->poll_at = 0;
}

size_t
evp_locks_count(const evp_locks_t *locks)
{
	return locks->count;
}

evp_lock_t *
evp_locks_take(evp_locks_t *locks, const char *name, size_t len, uint64_t deadline, evp_lock_cb cb, void *arg)
{
	evp_lock_t *lock = calloc(1, sizeof(*lock) + len + 1);

	if (lock == NULL)
		abort();
	lock->locks = locks;
	lock->cb = cb;
	lock->arg = arg;
	lock->asked = evp_now(locks->proxy);
	lock->deadline = deadline;
	lock->len = len;
	memcpy(lock->name, name, len);
	if (locks->stopped || locks->count >= locks->proxy->config.lock_queue)
	{
		lock->refused = true;
		DL_APPEND(locks->refused, lock);
		evp_turn_wake(&locks->turn);
		return lock;
	}
	locks->count++;
	lock->counted = true;
	evp_metrics.locks_waiting++;
	ask(lock);
	if (!uv_is_active((uv_handle_t *) &locks->sweep))
		uv_timer_start(&locks->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	return lock;
}

void
evp_locks_release(evp_lock_t *lock)
{
	lock->cb = NULL;
	/* One that was refused is freed in the next turn, without a call now. */
	if (!lock->refused)
		give_up(lock, EVP_LOCK_TIMEOUT);
}

evp_locks_t *
evp_locks_new(evp_proxy_t *proxy)
{
	evp_locks_t *locks = calloc(1, sizeof(*locks));

	if (locks == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	locks->proxy = proxy;
	evp_buf_init(&locks->names, (size_t) 64 * 1024 * 1024);
	evp_buf_init(&locks->numbers, (size_t) 256 * 1024 * 1024);
	evp_turn_init(&locks->turn, proxy->loop, on_turn, locks);
	uv_timer_init(proxy->loop, &locks->sweep);
	locks->sweep.data = locks;
	evp_db_on_room(proxy->db, EVP_DB_LOCK, on_room, locks);
	evp_db_subscribe(proxy->db, on_state, locks);
	evp_db_listen(proxy->db, "evento_lock", on_notify, locks);
	return locks;
}

void
evp_locks_stop(evp_locks_t *locks)
{
	evp_lock_t *lock,
			   *next;

	if (locks->stopped)
		return;
	locks->stopped = true;
	/* The registration that ends with this process takes the tickets with it. */
	DL_FOREACH_SAFE(locks->asking, lock, next)
		give_up(lock, EVP_LOCK_AWAY);
	DL_FOREACH_SAFE(locks->sent, lock, next)
		if (lock->state == LOCK_SENT)
			give_up(lock, EVP_LOCK_AWAY);
	HASH_ITER(hh, locks->by_ticket, lock, next)
	{
		if (lock->state == LOCK_WAITING)
			give_up(lock, EVP_LOCK_AWAY);
	}
	while (locks->refused != NULL)
		on_turn(locks);
	evp_turn_stop(&locks->turn);
	uv_close((uv_handle_t *) &locks->sweep, NULL);
}

void
evp_locks_free(evp_locks_t *locks)
{
	evp_lock_t *lock,
			   *next;

	if (locks == NULL)
		return;
	DL_FOREACH_SAFE(locks->asking, lock, next)
		free(lock);
	DL_FOREACH_SAFE(locks->releasing, lock, next)
		free(lock);
	DL_FOREACH_SAFE(locks->sent, lock, next)
		free(lock);
	HASH_ITER(hh, locks->by_ticket, lock, next)
	{
		HASH_DEL(locks->by_ticket, lock);
		free(lock);
	}
	evp_buf_free(&locks->names);
	evp_buf_free(&locks->numbers);
	free(locks);
}
