/*
 * pg_conn.c
 *    One connection to the database: libpq in pipeline mode on the loop, a Sync
 *    after each statement, prepared statements made as they are needed, and
 *    connecting again for ever.
 *
 *    A statement counts as done when the ReadyForQuery of its Sync has come:
 *    the implicit transaction of a pipeline commits at the Sync, and what fails
 *    there fails after the rows were sent.  A connection that is lost before
 *    leaves every statement in flight unknown, whatever it had answered.
 */
#include "pg_conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "../include/errcodes.h"
#include "log.h"
#include "metrics.h"
#include "said.h"

#define MODULE "db"

#define BACKOFF_LEAST	100
#define BACKOFF_MOST	1000

/* What a round waits for the addresses of all hosts, where it has some. */
#define LOOKUP_MS		500
#define MAX_PREPARED	64

typedef enum conn_state
{
	CONN_WAITING,				/* the timer ends the wait before the next round of attempts */
	CONN_LOOKUP,				/* the hosts are looked up; the timer has it be done without some */
	CONN_CONNECTING,			/* an attempt at targets[target]; the timer limits it */
	CONN_SETUP,					/* connected; the statements of setup are in flight; the timer limits it */
	CONN_UP,
	CONN_STOPPED
} conn_state_t;

struct evp_pg_conn
{
	uv_loop_t  *loop;
	const evp_pg_params_t *params;
	const char *label;
	const evp_pg_conn_owner_t *owner;
	void	   *arg;

	conn_state_t state;
	PGconn	   *pg;
	uint64_t	generation;		/* counts connections made and lost, to see that pg is another */
	uv_poll_t  *poll;			/* of pg's socket; freed by its close callback */
	int			poll_fd;
	int			poll_events;	/* asked for now, 0: stopped */
	uv_timer_t	timer;
	uint64_t	backoff;
	uint64_t	every;			/* a scout's time between rounds, else 0 */
	evp_pg_lookup_t lookup;
	size_t		target;			/* the number of the attempt in this round */
	unsigned	first;			/* the address of the first */

	evp_pg_job_t *jobs;			/* in flight, in the order sent */
	unsigned	in_flight;
	unsigned	setup_left;
	bool		accepted;		/* its owner has seen what the first statement of setup gave */
	bool		broken;			/* of no use any more, whatever is in flight: dropped when the timer ends */
	bool		recycle;		/* takes no more statements, is made anew once none is in flight */
	const char *prepared[MAX_PREPARED];	/* statements by the address of their text, NULL: free; the name is the index */

	char		error[256];		/* the last reason for not being up */
	evp_said_t	said;			/* reasons that were logged since it was up last, by address */
};

static void begin_round(evp_pg_conn_t *conn);
static void try_target(evp_pg_conn_t *conn);
static void drop(evp_pg_conn_t *conn, const char *reason);
static void on_socket(uv_poll_t *poll, int status, int events);

/* ---- statements ---- */

void
evp_pg_job_finish(evp_pg_job_t *job, evp_db_status_t status, const char *message)
{
	evp_db_result_t result = {.status = status};

	if (job->sent_at != 0)
		evp_histogram_add(&evp_metrics.statement_seconds[job->lane], &evp_bounds_seconds, (double) (uv_hrtime() - job->sent_at) / 1e9);
	if (status == EVP_DB_OK)
		result.rows = job->rows;
	else
		result.message = message != NULL ? message : "";
	if (status == EVP_DB_ERROR)
		result.sqlstate = job->sqlstate;
	if (job->cb != NULL)
		job->cb(job->arg, &result);
	PQclear(job->rows);
	free(job->message);
	free(job->copy);
	free(job);
}

/*
 * A session that cannot write, or whose prepared statements no longer fit the
 * database, is of no use any more.  One that has forgotten a statement is fine
 * where that could not be made, as long as a function is missing for one.
 */
static bool
is_useless_behind(const evp_pg_conn_t *conn, const evp_pg_job_t *job)
{
	if (strcmp(job->sqlstate, "26000") == 0)
		return job->index < 0 || conn->prepared[job->index] == job->statement.sql;
	return strcmp(job->sqlstate, "25006") == 0 || strcmp(job->sqlstate, EVENTO_SQLSTATE_READ_ONLY) == 0 ||
		strcmp(job->sqlstate, "0A000") == 0;
}

/* The statement at the head has had its ReadyForQuery. */
static void
finish_head(evp_pg_conn_t *conn)
{
	evp_pg_job_t *job = conn->jobs;
	bool		setup = conn->state == CONN_SETUP;

	DL_DELETE(conn->jobs, job);
	conn->in_flight--;
	if (job->failed && job->sqlstate[0] != '\0')
	{
		if (is_useless_behind(conn, job))
			conn->recycle = true;
		if (setup)
			snprintf(conn->error, sizeof(conn->error), "%s", job->message != NULL ? job->message : job->sqlstate);
		evp_pg_job_finish(job, EVP_DB_ERROR, job->message);
		if (setup)
			conn->recycle = true;
	}
	else if (job->failed)
	{
		/* An error of libpq's own (no memory for the rows): the server may have done it. */
		evp_pg_job_finish(job, EVP_DB_UNKNOWN, job->message);
	}
	else if (job->cut_short)
		evp_pg_job_finish(job, EVP_DB_UNKNOWN, "the wait for a synchronous standby was cut short");
	else
	{
		if (setup && !conn->accepted && !conn->recycle)
		{
			conn->accepted = conn->owner->accepts(conn->arg, conn, job->rows, conn->error, sizeof(conn->error));
			conn->recycle = !conn->accepted;
		}
		evp_pg_job_finish(job, EVP_DB_OK, NULL);
	}
}

static void
keep_error(evp_pg_job_t *job, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	char		text[1024];

	if (job->failed)
		return;
	job->failed = true;
	if (sqlstate != NULL)
		snprintf(job->sqlstate, sizeof(job->sqlstate), "%.5s", sqlstate);
	if (primary == NULL)
		primary = PQresultErrorMessage(result);
	if (detail != NULL)
		snprintf(text, sizeof(text), "%s: %s", primary, detail);
	else
		snprintf(text, sizeof(text), "%s", primary);
	text[strcspn(text, "\n")] = '\0';
	job->message = strdup(text);
}

/* Takes one result of the statement at the head. */
static void
take_result(evp_pg_conn_t *conn, PGresult *result)
{
	evp_pg_job_t *job = conn->jobs;

	switch (PQresultStatus(result))
	{
		case PGRES_PIPELINE_SYNC:
			PQclear(result);
			finish_head(conn);
			return;
		case PGRES_COMMAND_OK:
		case PGRES_TUPLES_OK:
		case PGRES_EMPTY_QUERY:
			if (job->parsing)
			{
				job->parsing = false;
				PQclear(result);
			}
			else
			{
				PQclear(job->rows);
				job->rows = result;
			}
			return;
		case PGRES_PIPELINE_ABORTED:
			break;
		default:
			/* The name was not made.  What is sent from now on is parsed again; what is on its way gets 26000. */
			if (job->parsing)
				conn->prepared[job->index] = NULL;
			keep_error(job, result);
			break;
	}
	PQclear(result);
}

static void
take_results(evp_pg_conn_t *conn)
{
	uint64_t	generation = conn->generation;
	unsigned	nulls = 0;

	while (conn->jobs != NULL && !PQisBusy(conn->pg))
	{
		PGresult   *result = PQgetResult(conn->pg);

		/* A NULL ends the results of one step; the next one begins with the next call. */
		if (result == NULL)
		{
			if (PQstatus(conn->pg) == CONNECTION_BAD)
				return;
			if (++nulls > 1)
			{
				drop(conn, "lost track of the results");
				return;
			}
			continue;
		}
		nulls = 0;
		take_result(conn, result);
		if (conn->generation != generation)
			return;
	}
}

/* The index of a statement in the connection's table; *fresh where it has to be parsed first.  -1: the table is full. */
static int
prepared_index(evp_pg_conn_t *conn, const char *sql, bool *fresh)
{
	int			room = -1;

	*fresh = false;
	for (int i = 0; i < MAX_PREPARED; i++)
	{
		if (conn->prepared[i] == sql)
			return i;
		if (conn->prepared[i] == NULL && room < 0)
			room = i;
	}
	if (room < 0)
		return -1;
	*fresh = true;
	conn->prepared[room] = sql;
	return room;
}

static bool
send_statement(evp_pg_conn_t *conn, evp_pg_job_t *job)
{
	const evp_db_statement_t *s = &job->statement;
	char		name[16];
	bool		fresh = false;

	job->index = job->simple ? -1 : prepared_index(conn, s->sql, &fresh);
	if (job->index < 0)
	{
		if (!PQsendQueryParams(conn->pg, s->sql, s->nparams, s->types, s->values, s->lengths, s->formats, s->result_format))
			return false;
	}
	else
	{
		snprintf(name, sizeof(name), "evp%d", job->index);
		if (fresh && !PQsendPrepare(conn->pg, name, s->sql, s->nparams, s->types))
			return false;
		job->parsing = fresh;
		if (!PQsendQueryPrepared(conn->pg, name, s->nparams, s->values, s->lengths, s->formats, s->result_format))
			return false;
	}
	return PQpipelineSync(conn->pg) == 1;
}

/* ---- the socket ---- */

static void
on_poll_closed(uv_handle_t *handle)
{
	free(handle);
}

static void
close_poll(evp_pg_conn_t *conn)
{
	if (conn->poll == NULL)
		return;
	uv_poll_stop(conn->poll);
	conn->poll->data = NULL;
	uv_close((uv_handle_t *) conn->poll, on_poll_closed);
	conn->poll = NULL;
	conn->poll_events = 0;
}

/*
 * libpq closes its socket by itself where writing or reading fails.  A watcher
 * that stayed on the closed descriptor would make libuv abort, or watch whatever
 * gets its number next.
 */
static void
forget_closed_socket(evp_pg_conn_t *conn)
{
	if (conn->poll != NULL && PQsocket(conn->pg) != conn->poll_fd)
		close_poll(conn);
}

/* Puts a job behind those in flight and into libpq's buffer; false where libpq can't. */
static bool
enqueue(evp_pg_conn_t *conn, evp_pg_job_t *job)
{
	bool		ok = send_statement(conn, job);

	forget_closed_socket(conn);

	/* libpq has a copy now. */
	free(job->copy);
	job->copy = NULL;
	job->statement.values = NULL;
	job->statement.lengths = NULL;
	job->statement.formats = NULL;
	job->statement.types = NULL;
	DL_APPEND(conn->jobs, job);
	conn->in_flight++;
	return ok;
}

/*
 * Waits for events on pg's socket, which may be another than last time: libpq
 * opens a new one where it tries again without TLS, for one.
 */
static bool
watch(evp_pg_conn_t *conn, int events)
{
	int			fd = PQsocket(conn->pg);

	if (fd < 0)
		return false;
	if (conn->poll != NULL && conn->poll_fd != fd)
		close_poll(conn);
	if (conn->poll == NULL)
	{
		uv_poll_t  *poll = malloc(sizeof(*poll));

		if (poll == NULL)
			return false;
		if (uv_poll_init(conn->loop, poll, fd) != 0)
		{
			free(poll);
			return false;
		}
		poll->data = conn;
		conn->poll = poll;
		conn->poll_fd = fd;
		conn->poll_events = 0;
	}
	if (conn->poll_events == events)
		return true;
	conn->poll_events = events;
	return uv_poll_start(conn->poll, events, on_socket) == 0;
}

void
evp_pg_conn_flush(evp_pg_conn_t *conn)
{
	int			left;

	if (conn->state != CONN_UP && conn->state != CONN_SETUP)
		return;
	left = PQflush(conn->pg);
	if (left < 0 || !watch(conn, left > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE))
		drop(conn, PQerrorMessage(conn->pg));
}

/* Tells the owner what changed by the results that were taken. */
static void
after_results(evp_pg_conn_t *conn)
{
	if (conn->recycle && conn->jobs == NULL)
	{
		drop(conn, conn->state == CONN_SETUP ? conn->error : "the session is of no use any more");
		return;
	}
	if (conn->state == CONN_SETUP && conn->jobs == NULL && conn->every != 0)
	{
		/* It has seen what it came for. */
		drop(conn, NULL);
		return;
	}
	if (conn->state == CONN_SETUP && conn->jobs == NULL)
	{
		uv_timer_stop(&conn->timer);
		conn->state = CONN_UP;
		conn->backoff = BACKOFF_LEAST;
		conn->error[0] = '\0';
		evp_said_forget(&conn->said);
		EVP_COUNT(db_connects);
		evp_log(EVP_LOG_INFO, MODULE, conn->label, "connected to %s port %s, server %s",
				PQhost(conn->pg) != NULL ? PQhost(conn->pg) : "", PQport(conn->pg) != NULL ? PQport(conn->pg) : "",
				PQparameterStatus(conn->pg, "server_version"));
		conn->owner->on_up(conn->arg, conn);
		return;
	}
	if (conn->state == CONN_UP)
		conn->owner->on_room(conn->arg, conn);
}

static void
take_notifies(evp_pg_conn_t *conn)
{
	uint64_t	generation = conn->generation;
	PGnotify   *notify;

	while (conn->generation == generation && (notify = PQnotifies(conn->pg)) != NULL)
	{
		conn->owner->on_notify(conn->arg, notify->relname, notify->extra);
		PQfreemem(notify);
	}
}

static void
on_traffic(evp_pg_conn_t *conn, int events)
{
	uint64_t	generation = conn->generation;

	if ((events & UV_READABLE) && !PQconsumeInput(conn->pg))
	{
		/* What came before the end is whole statements at most; the rest stays unknown. */
		forget_closed_socket(conn);
		take_results(conn);
		if (conn->generation == generation)
			drop(conn, PQerrorMessage(conn->pg));
		return;
	}
	take_results(conn);
	if (conn->generation != generation)
		return;
	if (PQstatus(conn->pg) == CONNECTION_BAD)
	{
		drop(conn, PQerrorMessage(conn->pg));
		return;
	}
	take_notifies(conn);
	if (conn->generation == generation)
		after_results(conn);
	/* Consuming input flushes too, so this is also where waiting for room to write ends. */
	if (conn->generation == generation)
		evp_pg_conn_flush(conn);
}

/* ---- coming up ---- */

static void
on_notice(void *arg, const PGresult *notice)
{
	evp_pg_conn_t *conn = arg;
	const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *sqlstate = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
	const char *function = PQresultErrorField(notice, PG_DIAG_SOURCE_FUNCTION);
	const char *text = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
	bool		warning = severity != NULL && strcmp(severity, "WARNING") == 0;

	/*
	 * A commit that stops waiting for its standby says so in a warning only,
	 * which has no SQLSTATE of its own and a text in the server's language; the
	 * function that raises it is the one thing that tells it apart.
	 */
	if (warning && conn->jobs != NULL &&
		(function != NULL ? strcmp(function, "SyncRepWaitForLSN") == 0 : sqlstate != NULL && strcmp(sqlstate, "01000") == 0))
		conn->jobs->cut_short = true;
	if (severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0))
		snprintf(conn->error, sizeof(conn->error), "%s", text != NULL ? text : "");
	evp_log(warning ? EVP_LOG_WARNING : EVP_LOG_DEBUG, MODULE, conn->label, "server: %s %s", sqlstate != NULL ? sqlstate : "",
			text != NULL ? text : "");
}

static void
begin_setup(evp_pg_conn_t *conn)
{
	const char *sql;

	conn->state = CONN_SETUP;
	conn->recycle = false;
	conn->accepted = false;
	memset(conn->prepared, 0, sizeof(conn->prepared));
	PQsetNoticeReceiver(conn->pg, on_notice, conn);
	if (PQsetnonblocking(conn->pg, 1) != 0 || PQenterPipelineMode(conn->pg) != 1)
	{
		drop(conn, PQerrorMessage(conn->pg));
		return;
	}
	for (unsigned i = 0; (sql = conn->owner->setup(conn->arg, conn, i)) != NULL; i++)
	{
		evp_pg_job_t *job = calloc(1, sizeof(*job));

		if (job == NULL)
		{
			drop(conn, "out of memory");
			return;
		}
		job->simple = true;
		job->statement.sql = sql;
		if (!enqueue(conn, job))
		{
			drop(conn, PQerrorMessage(conn->pg));
			return;
		}
	}
	if (conn->jobs == NULL)
		after_results(conn);
	else
		evp_pg_conn_flush(conn);
}

static void
advance_connect(evp_pg_conn_t *conn)
{
	PostgresPollingStatusType status;

	/* libpq may close the socket inside, and open another with the same number: forget it before. */
	if (conn->poll != NULL)
	{
		uv_poll_stop(conn->poll);
		conn->poll_events = 0;
	}
	status = PQconnectPoll(conn->pg);
	if (status == PGRES_POLLING_OK)
		begin_setup(conn);
	else if (status == PGRES_POLLING_FAILED || !watch(conn, status == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE))
		drop(conn, PQerrorMessage(conn->pg));
}

static void
on_socket(uv_poll_t *poll, int status, int events)
{
	evp_pg_conn_t *conn = poll->data;

	if (conn == NULL)
		return;
	/* What is wrong with a socket (status < 0) libpq finds out by reading it, and has words for.  It may read what came
	 * before that first; libuv has stopped the handle, so it must be started again for the rest. */
	if (status < 0)
		conn->poll_events = 0;
	if (conn->state == CONN_CONNECTING)
		advance_connect(conn);
	else if (conn->state == CONN_SETUP || conn->state == CONN_UP)
		on_traffic(conn, status < 0 ? UV_READABLE : events);
}

static void
on_timer(uv_timer_t *timer)
{
	evp_pg_conn_t *conn = timer->data;

	if (conn->state == CONN_WAITING && conn->target > 0)
		try_target(conn);
	else if (conn->state == CONN_WAITING)
		begin_round(conn);
	else if (conn->state == CONN_LOOKUP)
		evp_pg_lookup_hurry(&conn->lookup);
	else if (conn->broken)
		drop(conn, NULL);
	else if (conn->state == CONN_CONNECTING || conn->state == CONN_SETUP)
		drop(conn, "no answer in time");
}

/* There need not be a standby, and who reads from one says what it reads from instead. */
static evp_log_level_t
failure_level(const evp_pg_conn_t *conn)
{
	return evp_pg_params_standby(conn->params) ? EVP_LOG_DEBUG : EVP_LOG_WARNING;
}

/* Where the connection or the attempt is, or was. */
static const evp_pg_target_t *
target_of(const evp_pg_conn_t *conn)
{
	return &conn->lookup.targets[(conn->first + conn->target) % conn->lookup.count];
}

/* Is its reason for not being up another than that address had last? */
static bool
is_news(evp_pg_conn_t *conn)
{
	const evp_pg_target_t *target = target_of(conn);
	char		place[300];

	snprintf(place, sizeof(place), "%s %s %s", target->host != NULL ? target->host : "", target->hostaddr != NULL ? target->hostaddr : "",
			 target->port != NULL ? target->port : "");
	return evp_said_news(&conn->said, place, conn->error);
}

/* Waits before the next round of attempts. */
static void
wait_for_round(evp_pg_conn_t *conn)
{
	conn->state = CONN_WAITING;
	conn->target = 0;
	uv_timer_start(&conn->timer, on_timer, conn->every != 0 ? conn->every : conn->backoff, 0);
	conn->backoff *= 2;
	if (conn->backoff > BACKOFF_MOST)
		conn->backoff = BACKOFF_MOST;
}

static void
on_lookup(void *arg)
{
	evp_pg_conn_t *conn = arg;

	if (conn->every != 0 && conn->lookup.count < 2)
	{
		wait_for_round(conn);
		return;
	}
	if (conn->lookup.count == 0)
	{
		snprintf(conn->error, sizeof(conn->error), "%s", conn->lookup.error);
		if (evp_said_news(&conn->said, "", conn->error))
			evp_log(failure_level(conn), MODULE, conn->label, "%s", conn->error);
		wait_for_round(conn);
		return;
	}
	conn->target = 0;
	try_target(conn);
}

static void
begin_round(evp_pg_conn_t *conn)
{
	conn->state = CONN_LOOKUP;
	uv_timer_start(&conn->timer, on_timer, LOOKUP_MS, 0);
	evp_pg_lookup_start(&conn->lookup);
}

static void
try_target(evp_pg_conn_t *conn)
{
	conn->state = CONN_CONNECTING;
	conn->generation++;
	conn->pg = evp_pg_params_start(conn->params, target_of(conn));
	if (conn->pg == NULL || PQstatus(conn->pg) == CONNECTION_BAD || !watch(conn, UV_WRITABLE))
	{
		drop(conn, conn->pg != NULL ? PQerrorMessage(conn->pg) : "out of memory");
		return;
	}
	uv_timer_start(&conn->timer, on_timer, evp_pg_params_connect_ms(conn->params), 0);
}

/* ---- going down ---- */

/* Keeps the reason's first line: the others of libpq's guess at causes. */
static void
keep_reason(evp_pg_conn_t *conn, const char *reason)
{
	char		line[sizeof(conn->error)];

	if (reason == NULL || *reason == '\0' || reason == conn->error)
		return;
	snprintf(line, sizeof(line), "%s", reason);
	line[strcspn(line, "\n")] = '\0';
	/* What the server said in its last word tells more than that the connection ended. */
	if (conn->state != CONN_UP || conn->error[0] == '\0')
		memcpy(conn->error, line, sizeof(line));
}

/*
 * Ends a connection or an attempt, whatever its state: the one place where pg
 * is closed.  Goes on to the next address, or waits for the next round.
 */
static void
drop(evp_pg_conn_t *conn, const char *reason)
{
	evp_pg_job_t *jobs = conn->jobs;
	evp_pg_job_t *job,
			   *next;
	conn_state_t was = conn->state;

	keep_reason(conn, reason);
	uv_timer_stop(&conn->timer);
	close_poll(conn);
	PQfinish(conn->pg);
	conn->pg = NULL;
	conn->generation++;
	conn->jobs = NULL;
	conn->in_flight = 0;
	conn->broken = false;
	if (was != CONN_STOPPED)
	{
		if (conn->every == 0 && is_news(conn))
			evp_log(failure_level(conn), MODULE, conn->label, "%s: %s", was == CONN_UP ? "connection lost" : "cannot connect",
					conn->error);
		if (was != CONN_UP && conn->target + 1 < conn->lookup.count)
		{
			/* The next address, in a turn of its own, so that failing at once does not recurse. */
			conn->target++;
			conn->state = CONN_WAITING;
			uv_timer_start(&conn->timer, on_timer, 0, 0);
		}
		else
			wait_for_round(conn);
	}
	if (was == CONN_UP)
		conn->owner->on_down(conn->arg, conn);
	DL_FOREACH_SAFE(jobs, job, next)
		evp_pg_job_finish(job, EVP_DB_UNKNOWN, job->message != NULL ? job->message : conn->error);
}

/* ---- what the owner calls ---- */

evp_pg_conn_t *
evp_pg_conn_new(uv_loop_t *loop, evp_names_t *names, const evp_pg_params_t *params, const char *label, unsigned first,
				const evp_pg_conn_owner_t *owner, void *arg)
{
	evp_pg_conn_t *conn = calloc(1, sizeof(*conn));

	if (conn == NULL)
		return NULL;
	conn->loop = loop;
	conn->params = params;
	conn->label = label;
	conn->first = first;
	conn->owner = owner;
	conn->arg = arg;
	conn->backoff = BACKOFF_LEAST;
	snprintf(conn->error, sizeof(conn->error), "not connected yet");
	uv_timer_init(loop, &conn->timer);
	conn->timer.data = conn;
	evp_pg_lookup_init(&conn->lookup, names, params, on_lookup, conn);
	conn->state = CONN_WAITING;
	uv_timer_start(&conn->timer, on_timer, 0, 0);
	return conn;
}

evp_pg_conn_t *
evp_pg_conn_new_scout(uv_loop_t *loop, evp_names_t *names, const evp_pg_params_t *params, const char *label,
					  const evp_pg_conn_owner_t *owner, void *arg, uint64_t every)
{
	evp_pg_conn_t *conn = evp_pg_conn_new(loop, names, params, label, 0, owner, arg);

	if (conn != NULL)
		conn->every = every;
	return conn;
}

bool
evp_pg_conn_is_up(const evp_pg_conn_t *conn)
{
	return conn->state == CONN_UP && !conn->recycle && !conn->broken;
}

unsigned
evp_pg_conn_in_flight(const evp_pg_conn_t *conn)
{
	return conn->in_flight;
}

uint64_t
evp_pg_conn_made(const evp_pg_conn_t *conn)
{
	return conn->generation;
}

const char *
evp_pg_conn_host(const evp_pg_conn_t *conn)
{
	return PQhost(conn->pg) != NULL ? PQhost(conn->pg) : "";
}

const char *
evp_pg_conn_port(const evp_pg_conn_t *conn)
{
	return PQport(conn->pg) != NULL ? PQport(conn->pg) : "";
}

const char *
evp_pg_conn_error(const evp_pg_conn_t *conn)
{
	return conn->error;
}

void
evp_pg_conn_send(evp_pg_conn_t *conn, evp_pg_job_t *job)
{
	job->sent_at = uv_hrtime();
	if (enqueue(conn, job))
		return;

	/* Not from within this call: dropping calls the callbacks of what is in flight. */
	conn->broken = true;
	snprintf(conn->error, sizeof(conn->error), "a statement could not be sent: %.200s", PQerrorMessage(conn->pg));
	uv_timer_start(&conn->timer, on_timer, 0, 0);
}

void
evp_pg_conn_hurry(evp_pg_conn_t *conn)
{
	if (conn->state == CONN_WAITING && conn->target == 0)
		uv_timer_start(&conn->timer, on_timer, 0, 0);
}

void
evp_pg_conn_give_up(evp_pg_conn_t *conn, const char *why)
{
	if (conn->state != CONN_UP && (conn->state != CONN_SETUP || !conn->accepted))
		return;
	conn->broken = true;
	snprintf(conn->error, sizeof(conn->error), "%s", why);
	uv_timer_start(&conn->timer, on_timer, 0, 0);
}

void
evp_pg_conn_stop(evp_pg_conn_t *conn)
{
	if (conn->state == CONN_STOPPED)
		return;
	conn->state = CONN_STOPPED;
	evp_pg_lookup_stop(&conn->lookup);
	snprintf(conn->error, sizeof(conn->error), "the proxy is shutting down");
	drop(conn, NULL);
	uv_close((uv_handle_t *) &conn->timer, NULL);
}

void
evp_pg_conn_free(evp_pg_conn_t *conn)
{
	free(conn);
}
