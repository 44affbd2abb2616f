/*
 * db.c
 *    Connections to the database as lanes: which connection a statement takes,
 *    what waits while none is free, who is told that the database comes and
 *    goes.
 */
#include "db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "../include/errcodes.h"
#include "log.h"
#include "metrics.h"
#include "names.h"
#include "pg_conn.h"
#include "secrets.h"
#include "turn.h"

#define MODULE "db"

#define MAX_CHANNELS		8
#define MAX_SUBSCRIBERS		8
#define DEFAULT_DEADLINE	30000
#define SWEEP_MS			100
#define MAX_LABEL			16

/* All addresses are asked for their timeline this often. */
#define SCOUT_MS			3000

/* A server of an earlier timeline is refused for so long after the last connection to one of a later. */
#define SUPERSEDED_MS		60000

/* So many reads that failed are tried again at once; further ones only where each has taken this long on average. */
#define TRIES_AT_ONCE		20
#define TRY_MS				10

/* Which server, which timeline its WAL is on, which a standby does not say, and since when it runs. */
#define WHO_SQL \
	"SELECT (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s)," \
	" CASE WHEN NOT pg_catalog.pg_is_in_recovery()" \
	" THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END," \
	" (EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8"

/*
 * What a connection is told before anything else: settings of a role or database must not change what the proxy means.
 * The server is to notice too when the network between it and the proxy is gone, as the proxy does (pg_target.c), and not
 * keep the sessions, and what they hold, of connections that the proxy has given up: its default is two hours.
 */
#define SETUP_SQL(lock_timeout) \
	WHO_SQL "," \
	" pg_catalog.set_config('default_transaction_isolation', 'read committed', false)," \
	" pg_catalog.set_config('default_transaction_read_only', 'off', false)," \
	" pg_catalog.set_config('statement_timeout', '0', false)," \
	" pg_catalog.set_config('idle_session_timeout', '0', false)," \
	" pg_catalog.set_config('tcp_keepalives_idle', '2', false)," \
	" pg_catalog.set_config('tcp_keepalives_interval', '1', false)," \
	" pg_catalog.set_config('tcp_keepalives_count', '3', false)," \
	" pg_catalog.set_config('tcp_user_timeout', '10000', false)," \
	" pg_catalog.set_config('lock_timeout', '" lock_timeout "', false)"

#define TEXT_OF(x) #x
#define VALUE_OF(x) TEXT_OF(x)

typedef struct lane
{
	evp_pg_conn_t **conns;
	char		(*labels)[MAX_LABEL];
	unsigned long *timelines;	/* of the servers that they are or were connected to */
	unsigned	count;
	unsigned	depth;			/* statements in flight on one connection */
	const char *setup;
	evp_fair_t	waiting;
	size_t		waiting_bytes;
	evp_db_room_cb room_cb;
	void	   *room_arg;
} lane_t;

typedef struct channel
{
	char		listen[80];		/* the LISTEN statement */
	const char *name;
	evp_db_notify_cb cb;
	void	   *arg;
} channel_t;

typedef struct subscriber
{
	evp_db_state_cb cb;
	void	   *arg;
} subscriber_t;

struct evp_db
{
	evp_proxy_t *proxy;
	evp_names_t *names;
	evp_pg_params_t *params;
	evp_pg_params_t *standby_params;	/* NULL: standbys are not read from */
	lane_t		lanes[EVP_DB_LANES];
	channel_t	channels[MAX_CHANNELS];
	unsigned	channel_count;
	subscriber_t subscribers[MAX_SUBSCRIBERS];
	unsigned	subscriber_count;
	evp_turn_t	turn;			/* flushes connections, and refuses what could not be queued */
	evp_pg_job_t *refused;
	uv_timer_t	sweep;			/* runs while statements wait */
	evp_pg_conn_t *scout;
	char		system[24];		/* identifier of the server that was met last; "": none yet */
	unsigned long timeline;		/* the latest of its timelines */
	uint64_t	started;		/* when that server was started, by its own clock */
	uint64_t	met_at;			/* a connection to that was last made or lost then */
	uint64_t	history;
	bool		stopped;
};

static lane_t *
lane_of(evp_db_t *db, const evp_pg_conn_t *conn)
{
	for (unsigned l = 0; l < EVP_DB_LANES; l++)
		for (unsigned i = 0; i < db->lanes[l].count; i++)
			if (db->lanes[l].conns[i] == conn)
				return &db->lanes[l];
	abort();
}

/* The connection of a lane with the least in flight that takes one more, or NULL. */
static evp_pg_conn_t *
pick(const lane_t *lane)
{
	evp_pg_conn_t *best = NULL;

	for (unsigned i = 0; i < lane->count; i++)
	{
		evp_pg_conn_t *conn = lane->conns[i];

		if (evp_pg_conn_is_up(conn) && evp_pg_conn_in_flight(conn) < lane->depth &&
			(best == NULL || evp_pg_conn_in_flight(conn) < evp_pg_conn_in_flight(best)))
			best = conn;
	}
	return best;
}

static void
send_job(evp_db_t *db, evp_pg_conn_t *conn, evp_pg_job_t *job)
{
	evp_pg_conn_send(conn, job);
	evp_turn_wake(&db->turn);
}

static void
unqueue(lane_t *lane, evp_pg_job_t *job)
{
	evp_fair_remove(&lane->waiting, &job->turn);
	lane->waiting_bytes -= job->bytes;
}

static void
dispatch(evp_db_t *db, lane_t *lane)
{
	evp_pg_conn_t *conn;

	while (lane->waiting.count > 0 && (conn = pick(lane)) != NULL)
	{
		evp_pg_job_t *job = EVP_FAIR_OF(evp_fair_first(&lane->waiting), evp_pg_job_t, turn);

		unqueue(lane, job);
		evp_fair_pass(&lane->waiting, job->statement.source);
		send_job(db, conn, job);
	}
}

const char *
evp_db_error(const evp_db_t *db)
{
	const lane_t *control = &db->lanes[EVP_DB_CONTROL];

	return evp_pg_conn_is_up(control->conns[0]) ? "" : evp_pg_conn_error(control->conns[0]);
}

/* Why a lane sends nothing. */
static void
say_unreachable(const lane_t *lane, char *text, size_t size)
{
	for (unsigned i = 0; i < lane->count; i++)
		if (!evp_pg_conn_is_up(lane->conns[i]))
		{
			snprintf(text, size, "the database is not reachable: %s", evp_pg_conn_error(lane->conns[i]));
			return;
		}
	snprintf(text, size, "the database did not get to it in time");
}

/* Gives up on what waits past its time. */
static void
on_sweep(uv_timer_t *timer)
{
	evp_db_t   *db = timer->data;
	uint64_t	now = evp_now(db->proxy);
	evp_fair_item_t *turn,
			   *behind;
	evp_pg_job_t *late,
			   *job,
			   *next;
	bool		some = false;

	for (unsigned l = 0; l < EVP_DB_LANES; l++)
	{
		lane_t	   *lane = &db->lanes[l];

		late = NULL;
		for (turn = evp_fair_first(&lane->waiting); turn != NULL; turn = behind)
		{
			job = EVP_FAIR_OF(turn, evp_pg_job_t, turn);
			behind = evp_fair_after(turn);
			if (job->statement.deadline <= now)
			{
				unqueue(lane, job);
				DL_APPEND(late, job);
			}
		}
		DL_FOREACH_SAFE(late, job, next)
		{
			char		text[320];

			say_unreachable(lane, text, sizeof(text));
			evp_pg_job_finish(job, EVP_DB_UNSENT, text);
		}
	}
	for (unsigned l = 0; l < EVP_DB_LANES; l++)
		some = some || db->lanes[l].waiting.count > 0;
	if (!some && !db->stopped)
		uv_timer_stop(&db->sweep);
}

static void
on_turn(void *arg)
{
	evp_db_t   *db = arg;
	evp_pg_job_t *refused = db->refused;
	evp_pg_job_t *job,
			   *next;

	db->refused = NULL;
	for (unsigned l = 0; l < EVP_DB_LANES; l++)
		for (unsigned i = 0; i < db->lanes[l].count; i++)
			evp_pg_conn_flush(db->lanes[l].conns[i]);
	DL_FOREACH_SAFE(refused, job, next)
		evp_pg_job_finish(job, EVP_DB_UNSENT,
						  db->stopped ? "the proxy is shutting down" : "too many statements wait for the database");
}

/* ---- which history ---- */

/*
 * A primary that was replaced may live on: frozen, cut off, or left alone by
 * whoever promoted another one.  It takes connections and says that it can be
 * written to; with synchronous replication set up it acknowledges nothing.  The
 * later timeline tells the other one, so where that was met it is kept to, for
 * some time: a database that was restored may begin with an earlier one.
 */
static bool
is_superseded(const evp_db_t *db, const char *system, unsigned long timeline)
{
	if (strcmp(system, db->system) != 0 || timeline >= db->timeline)
		return false;
	for (unsigned l = 0; l < EVP_DB_LANES; l++)
		for (unsigned i = 0; i < db->lanes[l].count; i++)
			if (db->lanes[l].timelines[i] == db->timeline && evp_pg_conn_is_up(db->lanes[l].conns[i]))
				return true;
	return evp_now(db->proxy) < db->met_at + SUPERSEDED_MS;
}

/*
 * Another server than that met before, or one of another history: what is connected to the one before it is given up.  Two
 * standbys that were promoted one after the other may both be on a timeline of the same number, so one that was started at
 * another time is another one, unless it is the same, restarted, which does no harm.
 */
static void
begin_history(evp_db_t *db, const char *system, unsigned long timeline, uint64_t started)
{
	bool		first = db->system[0] == '\0';

	if (!first && timeline == db->timeline && strcmp(system, db->system) == 0)
		evp_log(EVP_LOG_INFO, MODULE, NULL, "the database was restarted, or it is another one that is on timeline %lu, too", timeline);
	else if (!first)
		evp_log(EVP_LOG_WARNING, MODULE, NULL,
				"the database is on timeline %lu of system %s, and was on %lu of %s: a standby was promoted, or it is another one",
				timeline, system, db->timeline, db->system);
	snprintf(db->system, sizeof(db->system), "%s", system);
	db->timeline = timeline;
	db->started = started;
	if (first)
		return;
	db->history++;
	for (unsigned l = 0; l < EVP_DB_LANES; l++)
		for (unsigned i = 0; i < db->lanes[l].count; i++)
			evp_pg_conn_give_up(db->lanes[l].conns[i], "the server was replaced");
}

/* A server has said who it is; scouted: one that nothing is done with yet. */
static bool
meet(evp_db_t *db, const PGresult *rows, bool scouted, unsigned long *timeline, char *why, size_t size)
{
	const char *system = PQgetvalue(rows, 0, 0);
	uint64_t	started = strtoull(PQgetvalue(rows, 0, 2), NULL, 10);

	*timeline = 0;
	if (PQgetisnull(rows, 0, 1))
		return true;
	*timeline = strtoul(PQgetvalue(rows, 0, 1), NULL, 16);
	if (is_superseded(db, system, *timeline))
	{
		snprintf(why, size, "the server is on timeline %lu and was replaced by one on %lu", *timeline, db->timeline);
		return false;
	}
	/* Which one of two on the same timeline is worked with, connections say that are made for work. */
	if (*timeline != db->timeline || strcmp(system, db->system) != 0 || (started != db->started && !scouted))
		begin_history(db, system, *timeline, started);
	db->met_at = evp_now(db->proxy);
	return true;
}

/* Where the timeline of a connection's server is kept. */
static unsigned long *
timeline_of(evp_db_t *db, const evp_pg_conn_t *conn)
{
	lane_t	   *lane = lane_of(db, conn);
	unsigned	i = 0;

	while (lane->conns[i] != conn)
		i++;
	return &lane->timelines[i];
}

static bool
on_accepts(void *arg, const evp_pg_conn_t *conn, const PGresult *rows, char *why, size_t size)
{
	evp_db_t   *db = arg;
	unsigned long timeline;

	if (!meet(db, rows, false, &timeline, why, size))
		return false;
	*timeline_of(db, conn) = timeline;
	return true;
}

static const char *
on_scout_setup(void *arg, const evp_pg_conn_t *conn, unsigned i)
{
	(void) arg;
	(void) conn;
	return i == 0 ? WHO_SQL : NULL;
}

/* Another database than ours, which the connection string names too, is none of its business. */
static bool
on_scout_accepts(void *arg, const evp_pg_conn_t *conn, const PGresult *rows, char *why, size_t size)
{
	evp_db_t   *db = arg;
	unsigned long timeline;

	(void) conn;
	return strcmp(PQgetvalue(rows, 0, 0), db->system) != 0 || meet(db, rows, true, &timeline, why, size);
}

static const evp_pg_conn_owner_t scout_owner = {
	.setup = on_scout_setup,
	.accepts = on_scout_accepts,
};

uint64_t
evp_db_history(const evp_db_t *db)
{
	return db->history;
}

/* ---- what connections tell ---- */

static const char *
on_setup(void *arg, const evp_pg_conn_t *conn, unsigned i)
{
	evp_db_t   *db = arg;
	const lane_t *lane = lane_of(db, conn);

	if (i == 0)
		return lane->setup;
	if (lane == &db->lanes[EVP_DB_CONTROL] && i - 1 < db->channel_count)
		return db->channels[i - 1].listen;
	return NULL;
}

static void
tell_subscribers(evp_db_t *db, bool up)
{
	evp_metrics.db_up = up;
	for (unsigned i = 0; i < db->subscriber_count; i++)
		db->subscribers[i].cb(db->subscribers[i].arg, up);
}

static void
on_room(void *arg, evp_pg_conn_t *conn)
{
	evp_db_t   *db = arg;
	lane_t	   *lane = lane_of(db, conn);

	dispatch(db, lane);
	if (lane->waiting.count == 0 && lane->room_cb != NULL)
		lane->room_cb(lane->room_arg);
}

/* The first one to the primary that is up after none was: the others have no reason to wait any more. */
static void
hurry_others(evp_db_t *db, const evp_pg_conn_t *conn)
{
	for (unsigned l = 0; l < EVP_DB_LANES; l++)
		for (unsigned i = 0; i < db->lanes[l].count; i++)
			if (l == EVP_DB_STANDBY ? db->lanes[l].conns[i] == conn :
				db->lanes[l].conns[i] != conn && evp_pg_conn_is_up(db->lanes[l].conns[i]))
				return;
	for (unsigned l = 0; l < EVP_DB_LANES; l++)
		for (unsigned i = 0; i < db->lanes[l].count; i++)
			evp_pg_conn_hurry(db->lanes[l].conns[i]);
}

static void
on_up(void *arg, evp_pg_conn_t *conn)
{
	evp_db_t   *db = arg;

	hurry_others(db, conn);
	if (lane_of(db, conn) == &db->lanes[EVP_DB_CONTROL])
		tell_subscribers(db, true);
	on_room(db, conn);
}

static void
on_down(void *arg, evp_pg_conn_t *conn)
{
	evp_db_t   *db = arg;

	if (*timeline_of(db, conn) == db->timeline)
		db->met_at = evp_now(db->proxy);
	if (lane_of(db, conn) == &db->lanes[EVP_DB_CONTROL])
		tell_subscribers(db, false);
}

static void
on_notify(void *arg, const char *channel, const char *payload)
{
	evp_db_t   *db = arg;

	for (unsigned i = 0; i < db->channel_count; i++)
		if (strcmp(db->channels[i].name, channel) == 0)
			db->channels[i].cb(db->channels[i].arg, payload);
}

static const evp_pg_conn_owner_t owner = {
	.setup = on_setup,
	.accepts = on_accepts,
	.on_up = on_up,
	.on_down = on_down,
	.on_room = on_room,
	.on_notify = on_notify,
};

/* ---- the module ---- */

static bool
make_lane(evp_db_t *db, evp_db_lane_t which, const char *name, unsigned count, unsigned depth, const char *setup)
{
	const evp_pg_params_t *params = which == EVP_DB_STANDBY ? db->standby_params : db->params;
	lane_t	   *lane = &db->lanes[which];

	lane->conns = calloc(count, sizeof(*lane->conns));
	lane->labels = calloc(count, sizeof(*lane->labels));
	lane->timelines = calloc(count, sizeof(*lane->timelines));
	if (lane->conns == NULL || lane->labels == NULL || lane->timelines == NULL)
		return false;
	lane->depth = depth;
	lane->setup = setup;
	for (unsigned i = 0; i < count; i++)
	{
		if (count > 1)
			snprintf(lane->labels[i], MAX_LABEL, "%s %u", name, i + 1);
		else
			snprintf(lane->labels[i], MAX_LABEL, "%s", name);
		lane->conns[i] = evp_pg_conn_new(db->proxy->loop, db->names, params, lane->labels[i], which == EVP_DB_STANDBY ? i : 0, &owner, db);
		if (lane->conns[i] == NULL)
			return false;
		lane->count++;
	}
	return true;
}

evp_db_t *
evp_db_new(evp_proxy_t *proxy)
{
	const evp_config_t *config = &proxy->config;
	const bool	standby = strcmp(config->read_from, "standby") == 0;
	evp_db_t   *db = calloc(1, sizeof(*db));
	char		error[256];
	char		name[160];

	if (db == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	db->proxy = proxy;
	snprintf(name, sizeof(name), "evento-proxy/%s", config->name);
	db->params = evp_pg_params_new(config->database, name, false, error, sizeof(error));
	if (db->params != NULL && standby)
		db->standby_params = evp_pg_params_new(config->database, name, true, error, sizeof(error));
	if (db->params == NULL || (standby && db->standby_params == NULL))
	{
		/* What libpq says quotes parts of it. */
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "the setting database: %s",
				evp_secrets_in(config->database) ? "it is no connection string, and not shown since it holds a password" : error);
		evp_pg_params_free(db->params);
		free(db);
		return NULL;
	}
	db->names = evp_names_new(proxy->loop);
	if (db->names == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	evp_turn_init(&db->turn, proxy->loop, on_turn, db);
	uv_timer_init(proxy->loop, &db->sweep);
	db->sweep.data = db;
	if (!make_lane(db, EVP_DB_CONTROL, "control", 1, 256, SETUP_SQL("0")) ||
		!make_lane(db, EVP_DB_LOCK, "lock", 1, 1, SETUP_SQL(VALUE_OF(EVP_DB_LOCK_WAIT_MS))) ||
		!make_lane(db, EVP_DB_APPEND, "append", (unsigned) config->append_connections, 1, SETUP_SQL("0")) ||
		!make_lane(db, EVP_DB_READ, "read", (unsigned) config->read_connections, 8, SETUP_SQL("0")) ||
		(standby && !make_lane(db, EVP_DB_STANDBY, "standby", (unsigned) config->read_connections, 0, SETUP_SQL("0"))))
	{
		/* main.c ends the process on this, so the handles that are open need no closing. */
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	db->scout = evp_pg_conn_new_scout(proxy->loop, db->names, db->params, "scout", &scout_owner, db, SCOUT_MS);
	if (db->scout == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	return db;
}

void
evp_db_stop(evp_db_t *db)
{
	evp_pg_job_t *job,
			   *next;

	if (db->stopped)
		return;
	db->stopped = true;
	evp_pg_conn_stop(db->scout);
	for (unsigned l = 0; l < EVP_DB_LANES; l++)
	{
		lane_t	   *lane = &db->lanes[l];
		evp_pg_job_t *waiting = NULL;

		while (lane->waiting.count > 0)
		{
			job = EVP_FAIR_OF(evp_fair_first(&lane->waiting), evp_pg_job_t, turn);
			unqueue(lane, job);
			DL_APPEND(waiting, job);
		}
		for (unsigned i = 0; i < lane->count; i++)
			evp_pg_conn_stop(lane->conns[i]);
		DL_FOREACH_SAFE(waiting, job, next)
			evp_pg_job_finish(job, EVP_DB_UNSENT, "the proxy is shutting down");
	}
	/* Callbacks may ask for more; all of it is refused here, while their modules still live. */
	while (db->refused != NULL)
		on_turn(db);
	evp_names_stop(db->names);
	evp_turn_stop(&db->turn);
	uv_close((uv_handle_t *) &db->sweep, NULL);
}

void
evp_db_free(evp_db_t *db)
{
	if (db == NULL)
		return;
	for (unsigned l = 0; l < EVP_DB_LANES; l++)
	{
		for (unsigned i = 0; i < db->lanes[l].count; i++)
			evp_pg_conn_free(db->lanes[l].conns[i]);
		free(db->lanes[l].conns);
		free(db->lanes[l].labels);
		free(db->lanes[l].timelines);
	}
	evp_pg_conn_free(db->scout);
	evp_pg_params_free(db->standby_params);
	evp_pg_params_free(db->params);
	evp_names_free(db->names);
	free(db);
}

/* A job whose arrays and parameters are its own, for one that must wait; NULL on lack of memory. */
static evp_pg_job_t *
new_job(const evp_db_statement_t *s, bool copy)
{
	evp_pg_job_t *job = calloc(1, sizeof(*job));
	size_t		n = (size_t) s->nparams;
	char	   *at;
	const char **values;
	int		   *lengths,
			   *formats;

	if (job == NULL)
		return NULL;
	job->statement = *s;
	for (size_t i = 0; i < n; i++)
		if (s->values[i] != NULL)
			job->bytes += s->formats[i] != 0 ? (size_t) s->lengths[i] : strlen(s->values[i]) + 1;
	if (!copy || n == 0)
		return job;
	job->copy = malloc(n * (sizeof(char *) + 2 * sizeof(int)) + job->bytes);
	if (job->copy == NULL)
	{
		free(job);
		return NULL;
	}
	values = job->copy;
	lengths = (int *) (values + n);
	formats = lengths + n;
	at = (char *) (formats + n);
	for (size_t i = 0; i < n; i++)
	{
		size_t		len;

		formats[i] = s->formats[i];
		values[i] = NULL;
		lengths[i] = 0;
		if (s->values[i] == NULL)
			continue;
		len = formats[i] != 0 ? (size_t) s->lengths[i] : strlen(s->values[i]) + 1;
		memcpy(at, s->values[i], len);
		values[i] = at;
		lengths[i] = (int) len;
		at += len;
	}
	job->statement.values = values;
	job->statement.lengths = lengths;
	job->statement.formats = formats;
	return job;
}

static evp_pg_job_t *
job_for(evp_db_lane_t which, const evp_db_statement_t *statement, bool copy, evp_db_cb cb, void *arg)
{
	evp_pg_job_t *job = new_job(statement, copy);

	if (job == NULL)
	{
		/* A callback that never comes would lose a command; without memory for these few bytes nothing works anyway. */
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		abort();
	}
	job->cb = cb;
	job->arg = arg;
	job->lane = which;
	return job;
}

void
evp_db_run(evp_db_t *db, evp_db_lane_t which, const evp_db_statement_t *statement, evp_db_cb cb, void *arg)
{
	lane_t	   *lane = &db->lanes[which];
	evp_pg_conn_t *conn = lane->waiting.count == 0 && !db->stopped ? pick(lane) : NULL;
	evp_pg_job_t *job = job_for(which, statement, conn == NULL, cb, arg);

	if (job->statement.deadline == 0)
		job->statement.deadline = evp_now(db->proxy) + DEFAULT_DEADLINE;
	if (conn != NULL)
	{
		send_job(db, conn, job);
		return;
	}
	if (db->stopped || lane->waiting.count >= db->proxy->config.db_queue ||
		lane->waiting_bytes + job->bytes > db->proxy->config.db_queue_bytes)
	{
		DL_APPEND(db->refused, job);
		evp_turn_wake(&db->turn);
		return;
	}
	evp_fair_put(&lane->waiting, statement->source, &job->turn);
	lane->waiting_bytes += job->bytes;
	if (!uv_is_active((uv_handle_t *) &db->sweep))
		uv_timer_start(&db->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
}

unsigned
evp_db_connections(const evp_db_t *db, evp_db_lane_t which)
{
	return db->lanes[which].count;
}

evp_db_connection_t
evp_db_connection(const evp_db_t *db, evp_db_lane_t which, unsigned i)
{
	const evp_pg_conn_t *conn = db->lanes[which].conns[i];
	evp_db_connection_t connection = {.up = evp_pg_conn_is_up(conn),.in_flight = evp_pg_conn_in_flight(conn)};

	connection.made = evp_pg_conn_made(conn);
	if (connection.up)
	{
		connection.host = evp_pg_conn_host(conn);
		connection.port = evp_pg_conn_port(conn);
	}
	return connection;
}

void
evp_db_run_on(evp_db_t *db, evp_db_lane_t which, unsigned i, const evp_db_statement_t *statement, evp_db_cb cb, void *arg)
{
	send_job(db, db->lanes[which].conns[i], job_for(which, statement, false, cb, arg));
}

void
evp_db_drop(evp_db_t *db, evp_db_lane_t which, unsigned i, const char *reason)
{
	evp_pg_conn_give_up(db->lanes[which].conns[i], reason);
}

bool
evp_db_is_passing(const char *sqlstate)
{
	static const char *const passing[] = {
		EVENTO_SQLSTATE_SERIALIZATION, EVENTO_SQLSTATE_LOCK_NOT_AVAILABLE, EVENTO_SQLSTATE_READ_ONLY,
		"40P01",				/* deadlock */
		"25006",				/* the server has become a standby */
		"26000", "0A000"		/* the session's prepared statements do not fit any more */
	};

	for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
		if (strcmp(sqlstate, passing[i]) == 0)
			return true;
	/* Operator intervention; insufficient resources. */
	return strncmp(sqlstate, "57", 2) == 0 || strncmp(sqlstate, "53", 2) == 0;
}

bool
evp_db_read_again(const evp_db_t *db, const evp_db_result_t *result, evp_db_tries_t *tries, uint64_t deadline)
{
	uint64_t	now = evp_now(db->proxy);

	if (result->status != EVP_DB_UNKNOWN && (result->status != EVP_DB_ERROR || !evp_db_is_passing(result->sqlstate)))
		return false;
	tries->count++;
	return !db->stopped && now < deadline && (tries->count < TRIES_AT_ONCE || now - tries->begun >= (uint64_t) tries->count * TRY_MS);
}

void
evp_db_queued(const evp_db_t *db, evp_db_lane_t which, size_t *count, size_t *bytes)
{
	*count = db->lanes[which].waiting.count;
	*bytes = db->lanes[which].waiting_bytes;
}

unsigned
evp_db_in_flight(const evp_db_t *db, evp_db_lane_t which)
{
	const lane_t *lane = &db->lanes[which];
	unsigned	in_flight = 0;

	for (unsigned i = 0; i < lane->count; i++)
		in_flight += evp_pg_conn_in_flight(lane->conns[i]);
	return in_flight;
}

int
evp_db_idle(const evp_db_t *db, evp_db_lane_t which)
{
	const lane_t *lane = &db->lanes[which];
	int			idle = 0;

	if (lane->waiting.count > 0 || db->stopped)
		return 0;
	for (unsigned i = 0; i < lane->count; i++)
		idle += evp_pg_conn_is_up(lane->conns[i]) && evp_pg_conn_in_flight(lane->conns[i]) == 0;
	return idle;
}

bool
evp_db_is_up(const evp_db_t *db)
{
	return evp_pg_conn_is_up(db->lanes[EVP_DB_CONTROL].conns[0]);
}

bool
evp_db_lane_is_up(const evp_db_t *db, evp_db_lane_t which)
{
	const lane_t *lane = &db->lanes[which];

	for (unsigned i = 0; i < lane->count; i++)
		if (evp_pg_conn_is_up(lane->conns[i]))
			return true;
	return false;
}

void
evp_db_on_room(evp_db_t *db, evp_db_lane_t lane, evp_db_room_cb cb, void *arg)
{
	db->lanes[lane].room_cb = cb;
	db->lanes[lane].room_arg = arg;
}

void
evp_db_subscribe(evp_db_t *db, evp_db_state_cb cb, void *arg)
{
	if (db->subscriber_count == MAX_SUBSCRIBERS)
		abort();
	db->subscribers[db->subscriber_count++] = (subscriber_t) {.cb = cb,.arg = arg};
}

void
evp_db_listen(evp_db_t *db, const char *channel, evp_db_notify_cb cb, void *arg)
{
	channel_t  *c;

	if (db->channel_count == MAX_CHANNELS)
		abort();
	c = &db->channels[db->channel_count++];
	snprintf(c->listen, sizeof(c->listen), "LISTEN %s", channel);
	c->name = channel;
	c->cb = cb;
	c->arg = arg;
}
