/*
 * pg_conn.h
 *    One connection to the database: libpq in pipeline mode on the loop, a Sync
 *    after each statement, prepared statements made as they are needed, and
 *    connecting again for ever.
 */
#ifndef EVP_PG_CONN_H
#define EVP_PG_CONN_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "db.h"
#include "fair.h"
#include "pg_target.h"

typedef struct evp_pg_conn evp_pg_conn_t;

/* A statement on its way: waiting in a lane's queue (db.c), or in flight on a connection. */
typedef struct evp_pg_job
{
	struct evp_pg_job *prev;	/* in flight, or in a list of db.c's */
	struct evp_pg_job *next;
	evp_fair_item_t turn;		/* while it waits */
	evp_db_statement_t statement;	/* its arrays point into copy, or at the caller's until it is sent */
	void	   *copy;
	size_t		bytes;			/* of the parameters */
	evp_db_cb	cb;
	void	   *arg;
	evp_db_lane_t lane;
	uint64_t	sent_at;		/* uv_hrtime; 0: it was not sent */
	bool		simple;			/* not prepared */
	int			index;			/* of its name among the connection's prepared statements, -1: it has none */
	bool		parsing;		/* a Parse went before it, whose result has not come */
	bool		cut_short;		/* a wait for a synchronous standby was given up in it */
	bool		failed;
	char		sqlstate[6];
	char	   *message;
	PGresult   *rows;
} evp_pg_job_t;

/* Calls the job's callback with a status and frees it. */
void evp_pg_job_finish(evp_pg_job_t *job, evp_db_status_t status, const char *message);

/* What a connection tells its owner.  None of these is called from within a call but evp_pg_conn_stop. */
typedef struct evp_pg_conn_owner
{
	/* The i-th statement that makes a fresh connection ready, NULL behind the last. */
	const char *(*setup) (void *arg, const evp_pg_conn_t *conn, unsigned i);
	/* What the first of them gave: is this the server that is wanted?  Where not, why says the reason. */
	bool		(*accepts) (void *arg, const evp_pg_conn_t *conn, const PGresult *rows, char *why, size_t size);
	void		(*on_up) (void *arg, evp_pg_conn_t *conn);
	/* Lost after it had been up; its statements are finished after this. */
	void		(*on_down) (void *arg, evp_pg_conn_t *conn);
	/* A statement has finished, and another may be sent. */
	void		(*on_room) (void *arg, evp_pg_conn_t *conn);
	void		(*on_notify) (void *arg, const char *channel, const char *payload);
} evp_pg_conn_owner_t;

/* A connection that connects as soon as the loop runs.  label names it in the log; it, names, params and owner must
 * outlive it.  first: the address that it tries first, counted on from the first again behind the last.  NULL on lack of memory. */
evp_pg_conn_t *evp_pg_conn_new(uv_loop_t *loop, evp_names_t *names, const evp_pg_params_t *params, const char *label, unsigned first,
							   const evp_pg_conn_owner_t *owner, void *arg);

/*
 * One that is never up: it asks all addresses in turn for what setup gives, has
 * accepts look at it, and begins anew after so many milliseconds.  It leaves a
 * database with one address alone.
 */
evp_pg_conn_t *evp_pg_conn_new_scout(uv_loop_t *loop, evp_names_t *names, const evp_pg_params_t *params, const char *label,
									 const evp_pg_conn_owner_t *owner, void *arg, uint64_t every);

/* True while statements can be sent. */
bool evp_pg_conn_is_up(const evp_pg_conn_t *conn);

/* Statements in flight. */
unsigned evp_pg_conn_in_flight(const evp_pg_conn_t *conn);

/* A number that no other connection has had which was made here, and the server, while it is up. */
uint64_t evp_pg_conn_made(const evp_pg_conn_t *conn);
const char *evp_pg_conn_host(const evp_pg_conn_t *conn);
const char *evp_pg_conn_port(const evp_pg_conn_t *conn);

/* Why it is not up, for people. */
const char *evp_pg_conn_error(const evp_pg_conn_t *conn);

/* Puts a statement into the connection's buffer and owns the job from now on.  The connection is up. */
void evp_pg_conn_send(evp_pg_conn_t *conn, evp_pg_job_t *job);

/* Writes what is buffered as far as the socket takes it, the rest when it takes more. */
void evp_pg_conn_flush(evp_pg_conn_t *conn);

/* Connects at once where it waits to do so. */
void evp_pg_conn_hurry(evp_pg_conn_t *conn);

/* Gives a connection up that was accepted, in a turn of its own; statements in flight finish as unknown. */
void evp_pg_conn_give_up(evp_pg_conn_t *conn, const char *why);

/* Closes the connection for good; statements in flight finish as unknown. */
void evp_pg_conn_stop(evp_pg_conn_t *conn);

/* After the loop has ended. */
void evp_pg_conn_free(evp_pg_conn_t *conn);

#endif /* EVP_PG_CONN_H */
