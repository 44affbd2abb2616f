/*
 * reads.c
 *    Where reads of the log go.
 *
 *    The primary is asked again and again how far its WAL and its watermark are,
 *    and each standby how far it has come.  A standby that has come to what the
 *    primary answered shows all that was committed when the primary was asked:
 *    that moment is how old its picture is at most.  WAL tells of everything,
 *    deletions and erasures too; the watermark of a standby is that of its row,
 *    which the primary may write a little later than it shows events itself.
 *
 *    A standby of another history (after a failover without synchronous standbys)
 *    has not the positions that the new primary begins at, so it is left out.
 *    While the primary is away no standby gets nearer, and after standby-lag none
 *    is read from: how old it is nobody can tell.
 */
#include "reads.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "json.h"
#include "log.h"
#include "metrics.h"
#include "rows.h"

#define MODULE "reads"

#define ASK_LEAST		20		/* ms between two questions: a tenth of standby-lag, within these */
#define ASK_MOST		200
#define ASK_WAITING		10		/* while reads wait */
#define SAMPLES			32		/* of the primary: those of more than the last standby-lag */
#define DEPTH			32		/* statements in flight on one connection; the primary gets what is more */
#define ANSWER_MS		5000	/* a standby that does not answer for so long is given up, with what it was asked */

/* Where the primary was. */
typedef struct sample
{
	uint64_t	asked_at;
	int64_t		wal;
	int64_t		watermark;
} sample_t;

/* A connection to a standby. */
typedef struct standby
{
	evp_reads_t *reads;
	unsigned	number;
	uint64_t	made;			/* which connection the rest tells of; 0: none */
	uint64_t	shows;			/* all that was committed at that time; 0: not known */
	int64_t		watermark;
	bool		asking;
	uint64_t	asked_at;
	bool		promoted;
	bool		told;			/* the log has said that it is read from */
} standby_t;

/* A read for a standby: a copy of the statement, for the primary to do where it is not done. */
typedef struct read
{
	struct read *prev;			/* among the waiting */
	struct read *next;
	evp_reads_t *reads;
	evp_db_statement_t statement;
	int64_t		position;
	uint64_t	since;
	uint64_t	until;			/* it waits for a standby until then */
	evp_db_cb	cb;
	void	   *arg;
	const char *values[EVP_DB_MAX_PARAMS];
	int			lengths[EVP_DB_MAX_PARAMS];
	int			formats[EVP_DB_MAX_PARAMS];
	char		bytes[];
} read_t;

struct evp_reads
{
	evp_proxy_t *proxy;
	standby_t  *standbys;
	unsigned	count;			/* 0: reads go to the primary */
	sample_t	samples[SAMPLES];
	unsigned	sample_count;	/* ever taken; the last SAMPLES of them are kept */
	bool		sampling;
	uint64_t	sampled_at;
	read_t	   *waiting;
	size_t		waiting_count;
	uv_timer_t	tick;
	bool		stopped;
};

/* ---- how far the servers are ---- */

/* Milliseconds between two questions. */
static uint64_t
interval(const evp_reads_t *reads)
{
	uint64_t	ms = reads->proxy->config.standby_lag / 10;

	return ms < ASK_LEAST ? ASK_LEAST : ms > ASK_MOST ? ASK_MOST : ms;
}

/* Forgets what was known of another connection. */
static bool
is_up(standby_t *standby)
{
	evp_db_connection_t at = evp_db_connection(standby->reads->proxy->db, EVP_DB_STANDBY, standby->number);

	if (at.up && at.made == standby->made)
		return true;
	standby->made = at.up ? at.made : 0;
	standby->shows = 0;
	standby->watermark = 0;
	standby->promoted = false;
	return at.up;
}

static bool
is_near(const evp_reads_t *reads, const standby_t *standby)
{
	return standby->shows != 0 && !standby->promoted && evp_now(reads->proxy) - standby->shows <= reads->proxy->config.standby_lag;
}

/*
 * The standby with the least to do that is near, has a position, and what was
 * committed before a time; -1: none.  *behind: one has not the position yet.
 */
static int
pick(evp_reads_t *reads, int64_t position, uint64_t since, bool *behind)
{
	int			best = -1;
	unsigned	least = DEPTH;

	*behind = false;
	for (unsigned i = 0; i < reads->count; i++)
	{
		standby_t  *standby = &reads->standbys[i];
		unsigned	in_flight;

		/* A primary that was asked in the same millisecond may have been asked before. */
		if (!is_up(standby) || !is_near(reads, standby) || (since > 0 && standby->shows <= since))
			continue;
		if (standby->watermark < position)
		{
			*behind = true;
			continue;
		}
		in_flight = evp_db_connection(reads->proxy->db, EVP_DB_STANDBY, i).in_flight;
		if (in_flight < least)
		{
			best = (int) i;
			least = in_flight;
		}
	}
	return best;
}

static void serve_waiting(evp_reads_t *reads);

/* The log tells when a standby begins to be read from, and when it ends. */
static void
tell(standby_t *standby)
{
	evp_reads_t *reads = standby->reads;
	bool		near = is_up(standby) && is_near(reads, standby);
	evp_db_connection_t at;

	if (near == standby->told)
		return;
	standby->told = near;
	at = evp_db_connection(reads->proxy->db, EVP_DB_STANDBY, standby->number);
	if (near)
		evp_log(EVP_LOG_INFO, MODULE, NULL, "standby %u at %s port %s is read from", standby->number + 1, at.host, at.port);
	else
		evp_log(EVP_LOG_WARNING, MODULE, NULL, "standby %u is not read from: %s", standby->number + 1,
				!at.up ? "the connection was lost" : standby->promoted ? "it was promoted" : "it lags too much, or the primary is away");
}

/* The n-th newest sample. */
static const sample_t *
kept_sample(const evp_reads_t *reads, unsigned n)
{
	return &reads->samples[(reads->sample_count - n) % SAMPLES];
}

static void
on_sample(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_INT8};
	evp_reads_t *reads = arg;
	sample_t	sample = {.asked_at = reads->sampled_at};

	reads->sampling = false;
	if (result->status != EVP_DB_OK || !evp_rows_are(result->rows, types, 2) || !evp_row_int64(result->rows, 0, 0, &sample.wal) ||
		!evp_row_int64(result->rows, 0, 1, &sample.watermark))
		return;

	/* The newest makes room for the next until it is worth keeping, so that they tell of all of standby-lag. */
	if (reads->sample_count > 1 &&
		kept_sample(reads, 1)->asked_at < kept_sample(reads, 2)->asked_at + reads->proxy->config.standby_lag * 2 / SAMPLES)
		reads->sample_count--;
	reads->samples[reads->sample_count++ % SAMPLES] = sample;
}

static void
take_sample(evp_reads_t *reads)
{
	if (reads->sampling || !evp_db_is_up(reads->proxy->db))
		return;
	reads->sampling = true;
	reads->sampled_at = evp_now(reads->proxy);
	evp_db_run(reads->proxy->db, EVP_DB_CONTROL,
			   &(evp_db_statement_t) {.sql = "SELECT (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::bigint, evento.watermark()",
			   .result_format = 1,.deadline = evp_now(reads->proxy) + ANSWER_MS}, on_sample, reads);
}

/* The newest sample that a standby has come to. */
static uint64_t
reached(const evp_reads_t *reads, int64_t wal, int64_t watermark)
{
	unsigned	kept = reads->sample_count < SAMPLES ? reads->sample_count : SAMPLES;

	for (unsigned i = 1; i <= kept; i++)
	{
		const sample_t *sample = kept_sample(reads, i);

		if (sample->wal <= wal && sample->watermark <= watermark)
			return sample->asked_at;
	}
	return 0;
}

static void
on_place(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_BOOL, EVP_OID_INT8, EVP_OID_INT8};
	standby_t  *standby = arg;
	evp_reads_t *reads = standby->reads;
	bool		standing = false;
	int64_t		wal = 0,
				watermark = 0;
	uint64_t	shows;

	standby->asking = false;
	if (reads->stopped || result->status != EVP_DB_OK || !is_up(standby) || !evp_rows_are(result->rows, types, 3) ||
		!evp_row_bool(result->rows, 0, 0, &standing) || !evp_row_int64(result->rows, 0, 2, &watermark))
		return;
	if (!standing || !evp_row_int64(result->rows, 0, 1, &wal))
	{
		/* The tick ends the connection. */
		standby->promoted = !standing;
		return;
	}
	standby->watermark = watermark;
	shows = reached(reads, wal, watermark);
	if (shows > standby->shows)
		standby->shows = shows;
	tell(standby);
	serve_waiting(reads);
}

/* Asks a standby how far it is; gives one up that was promoted or does not answer. */
static void
look_at(standby_t *standby)
{
	evp_reads_t *reads = standby->reads;
	evp_db_t   *db = reads->proxy->db;
	uint64_t	now = evp_now(reads->proxy);

	if (is_up(standby))
	{
		if (standby->promoted)
			evp_db_drop(db, EVP_DB_STANDBY, standby->number, "the server is a primary now");
		else if (standby->asking && now >= standby->asked_at + ANSWER_MS)
			evp_db_drop(db, EVP_DB_STANDBY, standby->number, "no answer in time");
		else if (!standby->asking)
		{
			standby->asking = true;
			standby->asked_at = now;
			evp_db_run_on(db, EVP_DB_STANDBY, standby->number,
						  &(evp_db_statement_t) {.sql = "SELECT pg_catalog.pg_is_in_recovery(),"
						  " (pg_catalog.pg_last_wal_replay_lsn() - '0/0')::bigint, evento.watermark()",.result_format = 1}, on_place, standby);
		}
	}
	tell(standby);
}

static void
on_tick(uv_timer_t *timer)
{
	evp_reads_t *reads = timer->data;

	if (evp_now(reads->proxy) >= reads->sampled_at + interval(reads))
		take_sample(reads);
	for (unsigned i = 0; i < reads->count; i++)
		look_at(&reads->standbys[i]);
	serve_waiting(reads);
	if (reads->waiting == NULL && uv_timer_get_repeat(timer) != interval(reads))
		uv_timer_start(timer, on_tick, interval(reads), interval(reads));
}

/* Another primary may follow, whose WAL is not to be compared with what is known. */
static void
on_state(void *arg, bool up)
{
	evp_reads_t *reads = arg;

	if (up)
		return;
	reads->sample_count = 0;
	for (unsigned i = 0; i < reads->count; i++)
		reads->standbys[i].shows = 0;
}

/* ---- reads ---- */

static void
on_done(void *arg, const evp_db_result_t *result)
{
	read_t	   *read = arg;
	evp_reads_t *reads = read->reads;

	if (result->status == EVP_DB_OK)
	{
		evp_db_result_t told = *result;

		told.standby = true;
		EVP_COUNT(standby_reads);
		read->cb(read->arg, &told);
	}
	else
	{
		/* Replay cancels reads, and a standby may be lost: nothing that its reader need know of. */
		EVP_COUNT(standby_missed);
		evp_log(EVP_LOG_DEBUG, MODULE, NULL, "a read goes to the primary: %s", result->message);
		evp_db_run(reads->proxy->db, EVP_DB_READ, &read->statement, read->cb, read->arg);
	}
	free(read);
}

static void
to_primary(read_t *read)
{
	EVP_COUNT(standby_missed);
	evp_db_run(read->reads->proxy->db, EVP_DB_READ, &read->statement, read->cb, read->arg);
	free(read);
}

/* Sends what waits to standbys that have reached it, and to the primary what does so in vain. */
static void
serve_waiting(evp_reads_t *reads)
{
	read_t	   *read,
			   *next;

	DL_FOREACH_SAFE(reads->waiting, read, next)
	{
		bool		behind;
		int			standby = pick(reads, read->position, read->since, &behind);

		if (standby < 0 && behind && evp_now(reads->proxy) < read->until)
			continue;
		DL_DELETE(reads->waiting, read);
		reads->waiting_count--;
		if (standby >= 0)
			evp_db_run_on(reads->proxy->db, EVP_DB_STANDBY, (unsigned) standby, &read->statement, on_done, read);
		else
			to_primary(read);
	}
}

/* A copy of a statement; NULL on lack of memory. */
static read_t *
new_read(evp_reads_t *reads, const evp_db_statement_t *s)
{
	size_t		bytes = 0;
	read_t	   *read;
	char	   *at;

	for (int i = 0; i < s->nparams; i++)
		if (s->values[i] != NULL)
			bytes += s->formats[i] != 0 ? (size_t) s->lengths[i] : strlen(s->values[i]) + 1;
	read = malloc(sizeof(*read) + bytes);
	if (read == NULL)
		return NULL;
	*read = (read_t) {.reads = reads,.statement = *s};
	at = read->bytes;
	for (int i = 0; i < s->nparams; i++)
	{
		size_t		len;

		read->formats[i] = s->formats[i];
		if (s->values[i] == NULL)
			continue;
		len = s->formats[i] != 0 ? (size_t) s->lengths[i] : strlen(s->values[i]) + 1;
		memcpy(at, s->values[i], len);
		read->values[i] = at;
		read->lengths[i] = (int) len;
		at += len;
	}
	read->statement.values = read->values;
	read->statement.lengths = read->lengths;
	read->statement.formats = read->formats;
	return read;
}

void
evp_reads_run(evp_reads_t *reads, const evp_db_statement_t *statement, int64_t position, uint64_t since, evp_db_cb cb, void *arg)
{
	const evp_config_t *config = &reads->proxy->config;
	read_t	   *read = NULL;
	bool		behind = false;
	int			standby = -1;

	if (reads->count > 0 && !reads->stopped)
		standby = pick(reads, position, since, &behind);
	if (standby >= 0 || (behind && config->standby_wait > 0 && reads->waiting_count < config->db_queue))
		read = new_read(reads, statement);
	if (read == NULL)
	{
		if (reads->count > 0)
			EVP_COUNT(standby_missed);
		evp_db_run(reads->proxy->db, EVP_DB_READ, statement, cb, arg);
		return;
	}
	read->cb = cb;
	read->arg = arg;
	read->position = position;
	read->since = since;
	if (standby >= 0)
	{
		evp_db_run_on(reads->proxy->db, EVP_DB_STANDBY, (unsigned) standby, &read->statement, on_done, read);
		return;
	}
	read->until = evp_now(reads->proxy) + config->standby_wait;
	if (statement->deadline != 0 && statement->deadline < read->until)
		read->until = statement->deadline;
	DL_APPEND(reads->waiting, read);
	if (reads->waiting_count++ == 0)
		uv_timer_start(&reads->tick, on_tick, ASK_WAITING, ASK_WAITING);
}

size_t
evp_reads_waiting(const evp_reads_t *reads)
{
	return reads->waiting_count;
}

unsigned
evp_reads_near(const evp_reads_t *reads)
{
	unsigned	near = 0;

	for (unsigned i = 0; i < reads->count; i++)
		near += is_up(&reads->standbys[i]) && is_near(reads, &reads->standbys[i]);
	return near;
}

int64_t
evp_reads_lag(const evp_reads_t *reads)
{
	int64_t		lag = -1;

	for (unsigned i = 0; i < reads->count; i++)
	{
		standby_t  *standby = &reads->standbys[i];

		if (is_up(standby) && standby->shows != 0 && (int64_t) (evp_now(reads->proxy) - standby->shows) > lag)
			lag = (int64_t) (evp_now(reads->proxy) - standby->shows);
	}
	return lag;
}

void
evp_reads_put(const evp_reads_t *reads, evp_buf_t *b)
{
	bool		some = evp_reads_near(reads) > 0;
	bool		comma = false;

	evp_buf_appendf(b, "{\"from\":\"%s\",\"standbys\":[", some ? "standby" : "primary");
	for (unsigned i = 0; i < reads->count; i++)
	{
		standby_t  *standby = &reads->standbys[i];
		evp_db_connection_t at = evp_db_connection(reads->proxy->db, EVP_DB_STANDBY, i);

		if (!is_up(standby))
			continue;
		evp_buf_append_str(b, comma ? ",{\"host\":" : "{\"host\":");
		comma = true;
		evp_json_put_string(b, at.host, strlen(at.host), true);
		evp_buf_append_str(b, ",\"port\":");
		evp_json_put_string(b, at.port, strlen(at.port), true);
		evp_buf_appendf(b, ",\"read_from\":%s", is_near(reads, standby) ? "true" : "false");
		if (standby->shows != 0)
			evp_buf_appendf(b, ",\"lag_seconds\":%.3f}", (double) (evp_now(reads->proxy) - standby->shows) / 1000);
		else
			evp_buf_append_str(b, ",\"lag_seconds\":null}");
	}
	evp_buf_append_str(b, "]}");
}

/* ---- the module ---- */

evp_reads_t *
evp_reads_new(evp_proxy_t *proxy)
{
	evp_reads_t *reads = calloc(1, sizeof(*reads));

	if (reads == NULL)
		return NULL;
	reads->proxy = proxy;
	reads->count = evp_db_connections(proxy->db, EVP_DB_STANDBY);
	reads->standbys = calloc(reads->count + 1, sizeof(*reads->standbys));
	if (reads->standbys == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		free(reads);
		return NULL;
	}
	for (unsigned i = 0; i < reads->count; i++)
	{
		reads->standbys[i].reads = reads;
		reads->standbys[i].number = i;
	}
	uv_timer_init(proxy->loop, &reads->tick);
	reads->tick.data = reads;
	if (reads->count > 0)
	{
		evp_db_subscribe(proxy->db, on_state, reads);
		uv_timer_start(&reads->tick, on_tick, interval(reads), interval(reads));
	}
	return reads;
}

void
evp_reads_stop(evp_reads_t *reads)
{
	read_t	   *read,
			   *next;

	if (reads->stopped)
		return;
	reads->stopped = true;
	DL_FOREACH_SAFE(reads->waiting, read, next)
	{
		DL_DELETE(reads->waiting, read);
		reads->waiting_count--;
		to_primary(read);
	}
	uv_close((uv_handle_t *) &reads->tick, NULL);
}

void
evp_reads_free(evp_reads_t *reads)
{
	if (reads == NULL)
		return;
	free(reads->standbys);
	free(reads);
}
