/*
 * db.h
 *    Connections to the database: libpq in pipeline mode on the loop, a Sync
 *    after each statement, reconnecting for ever.  Knows nothing of events.
 */
#ifndef EVP_DB_H
#define EVP_DB_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "proxy.h"

/* Which connections a statement may take. */
typedef enum evp_db_lane
{
	EVP_DB_CONTROL,		/* one connection: registry, LISTEN; statements run in the order given */
	EVP_DB_LOCK,		/* one connection: tickets of locks; gives up (55P03) after EVP_DB_LOCK_WAIT_MS behind a
						 * stream's lock, so that a stranger's open transaction holds up its own streams only */
	EVP_DB_APPEND,		/* some connections that only append, one statement at a time each */
	EVP_DB_READ,		/* some connections that only read the log */
	EVP_DB_STANDBY		/* the same to standbys, where read-from says so; each statement on the connection that reads.c chooses */
} evp_db_lane_t;

#define EVP_DB_LANES 5			/* EVP_METRIC_LANES */
#define EVP_DB_LOCK_WAIT_MS 30

typedef enum evp_db_status
{
	EVP_DB_OK,			/* committed: its ReadyForQuery has come */
	EVP_DB_ERROR,		/* the server said no: sqlstate and message; nothing is stored */
	EVP_DB_UNKNOWN,		/* sent, and the connection was lost, or a synchronous wait was cut short,
						 * before the commit was confirmed: it may or may not be stored */
	EVP_DB_UNSENT		/* never sent: no connection until the deadline, or the queue is full */
} evp_db_status_t;

typedef struct evp_db_result
{
	evp_db_status_t status;
	const PGresult *rows;		/* with EVP_DB_OK, until the callback returns */
	bool			standby;	/* they are a standby's */
	const char	   *sqlstate;	/* with EVP_DB_ERROR */
	const char	   *message;	/* one line for people, for every status but OK; until the callback returns */
} evp_db_result_t;

typedef void (*evp_db_cb)(void *arg, const evp_db_result_t *result);

typedef struct evp_db_statement
{
	const char	   *sql;		/* static: kept as a prepared statement by its address on each connection */
	int				nparams;	/* at most EVP_DB_MAX_PARAMS */
	const Oid	   *types;		/* static */
	const char *const *values;	/* copied into the connection's buffer when sent; kept by a copy when it must wait */
	const int	   *lengths;
	const int	   *formats;	/* 1 binary, 0 text */
	int				result_format;
	uint64_t		source;		/* statements that wait for a connection go in turn with those of other sources (fair.h) */
	uint64_t		deadline;	/* evp_now time after which it is not begun any more; 0: 30 s from now */
} evp_db_statement_t;

#define EVP_DB_MAX_PARAMS 16

evp_db_t *evp_db_new(evp_proxy_t *proxy);
void evp_db_stop(evp_db_t *db);
void evp_db_free(evp_db_t *db);

/*
 * Runs a statement.  The callback is called exactly once, never from within
 * this call, also on shutdown (EVP_DB_UNSENT or EVP_DB_UNKNOWN).
 */
void evp_db_run(evp_db_t *db, evp_db_lane_t lane, const evp_db_statement_t *statement, evp_db_cb cb, void *arg);

/* A connection of a lane. */
typedef struct evp_db_connection
{
	bool			up;
	uint64_t		made;		/* another number, above 0, for each connection that was made */
	unsigned		in_flight;
	const char	   *host;		/* while it is up */
	const char	   *port;
} evp_db_connection_t;

unsigned evp_db_connections(const evp_db_t *db, evp_db_lane_t lane);
evp_db_connection_t evp_db_connection(const evp_db_t *db, evp_db_lane_t lane, unsigned i);

/* Runs a statement on a connection that is up, whatever is in flight there. */
void evp_db_run_on(evp_db_t *db, evp_db_lane_t lane, unsigned i, const evp_db_statement_t *statement, evp_db_cb cb, void *arg);

/* Ends a connection, which is made anew, in a turn of its own; what is in flight on it ends as EVP_DB_UNKNOWN. */
void evp_db_drop(evp_db_t *db, evp_db_lane_t lane, unsigned i, const char *reason);

/* The tries of a statement that only reads. */
typedef struct evp_db_tries
{
	uint64_t		begun;		/* evp_now when it was begun */
	unsigned		count;		/* that failed */
} evp_db_tries_t;

/*
 * Is a read that failed to be sent again?  True until the deadline where the reason may pass: reading changes nothing, so
 * a lost connection is none to fail for.  What fails over and over, faster than connections come back, is at fault itself.
 */
bool evp_db_read_again(const evp_db_t *db, const evp_db_result_t *result, evp_db_tries_t *tries, uint64_t deadline);

/* Errors that lie in the session or in the moment and not in the statement: the same may succeed a little later. */
bool evp_db_is_passing(const char *sqlstate);

/* What waits for a connection of a lane, and what is under way on its connections. */
void evp_db_queued(const evp_db_t *db, evp_db_lane_t lane, size_t *count, size_t *bytes);
unsigned evp_db_in_flight(const evp_db_t *db, evp_db_lane_t lane);

/* Statements that a lane would send at once: connections that are up, with nothing in flight and nothing waiting.  Lets
 * store.c and locks.c gather while others are busy. */
int evp_db_idle(const evp_db_t *db, evp_db_lane_t lane);

/* True while the control connection is up; while any connection of a lane is. */
bool evp_db_is_up(const evp_db_t *db);
bool evp_db_lane_is_up(const evp_db_t *db, evp_db_lane_t lane);

/* Called when the control connection comes up (LISTENs already in force) or goes away. At most 8 subscribers. */
typedef void (*evp_db_state_cb)(void *arg, bool up);
void evp_db_subscribe(evp_db_t *db, evp_db_state_cb cb, void *arg);

/* Called when a lane has room again, or a connection of it comes up: what was gathered can go.  One for each lane. */
typedef void (*evp_db_room_cb)(void *arg);
void evp_db_on_room(evp_db_t *db, evp_db_lane_t lane, evp_db_room_cb cb, void *arg);

/*
 * Counts the histories of the database that were met: it changes where a server
 * has another timeline than the one before, which a standby has that was
 * promoted, was started at another time, or is another server altogether.  What
 * was read before may be lost there.  Subscribers of the state are called after each change.
 */
uint64_t evp_db_history(const evp_db_t *db);

/* Why the database cannot be reached, for people; "" while it can. */
const char *evp_db_error(const evp_db_t *db);

/* LISTENs on a channel (static text, an identifier), again after each reconnect. At most 8 channels; called before the
 * loop runs. */
typedef void (*evp_db_notify_cb)(void *arg, const char *payload);
void evp_db_listen(evp_db_t *db, const char *channel, evp_db_notify_cb cb, void *arg);

#endif /* EVP_DB_H */
