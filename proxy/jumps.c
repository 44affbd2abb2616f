/*
 * jumps.c
 *    Where the log left positions out, as the database tells it.  A jump is on
 *    record before anything behind it can be read.  So what was read when a
 *    position could be read has every jump that this may lie in; where it could
 *    not, all of it is read again, once for all who ask.
 */
#include "jumps.h"

#include <stdlib.h>
#include <string.h>

#include "db.h"
#include "fair.h"
#include "feed.h"
#include "log.h"
#include "rows.h"

#define MOST "1000"				/* the latest are known */
#define REFUSED_MS 60000		/* what the database refuses to tell is asked again after this */

struct evp_jumps
{
	evp_proxy_t *proxy;
	evp_jumps_cb cb;
	void	   *arg;
	evp_jump_t *jumps;
	size_t		count;
	int64_t		known;			/* this position could be read before they were; -1: none are known */
	int64_t		wanted;			/* will be known */
	uint64_t	history;		/* of the database (db.h), that they are of */
	uint64_t	refused_at;		/* 0: it has told */
	bool		asking;
	bool		stopped;
};

static void
forget(evp_jumps_t *jumps)
{
	for (size_t i = 0; i < jumps->count; i++)
		free(jumps->jumps[i].text);
	free(jumps->jumps);
	jumps->jumps = NULL;
	jumps->count = 0;
	jumps->known = -1;
	jumps->refused_at = 0;
}

static bool
take_rows(evp_jumps_t *jumps, const PGresult *rows)
{
	size_t		n = (size_t) PQntuples(rows);

	forget(jumps);
	jumps->jumps = calloc(n + 1, sizeof(*jumps->jumps));
	if (jumps->jumps == NULL)
		return false;
	for (size_t i = 0; i < n; i++)
	{
		evp_jump_t *jump = &jumps->jumps[i];
		evp_slice_t text = evp_row_bytes(rows, (int) i, 2);

		if (!evp_row_int64(rows, (int) i, 0, &jump->last) || !evp_row_int64(rows, (int) i, 1, &jump->next) || text.p == NULL ||
			(jump->text = strndup((const char *) text.p, text.n)) == NULL)
			return false;
		jumps->count++;
	}
	return true;
}

static void
on_rows(void *arg, const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_INT8, EVP_OID_TEXT};
	evp_jumps_t *jumps = arg;

	jumps->asking = false;
	if (jumps->stopped || jumps->history != evp_db_history(jumps->proxy->db))
		return;
	if (result->status == EVP_DB_OK && evp_rows_are(result->rows, types, 3))
	{
		if (!take_rows(jumps, result->rows))
		{
			forget(jumps);
			return;
		}
		jumps->known = jumps->wanted;
	}
	else if (result->status != EVP_DB_ERROR || evp_db_is_passing(result->sqlstate))
		return;					/* who wants to know asks again */
	else
	{
		/* A schema that is yet to be updated has no such view: readers go on. */
		evp_log(EVP_LOG_DEBUG, "http", NULL, "where the log left positions out is not known: %s", result->message);
		forget(jumps);
		jumps->known = INT64_MAX;
		jumps->refused_at = evp_now(jumps->proxy);
	}
	jumps->cb(jumps->arg);
}

static void
ask(evp_jumps_t *jumps, int64_t upto)
{
	static const char sql[] =
		"SELECT j.last_position, j.next_position, json_build_object('jumped_at', j.jumped_at, 'last_position', j.last_position,"
		" 'next_position', j.next_position, 'reason', j.reason)::text FROM evento.jumps j ORDER BY j.next_position DESC LIMIT " MOST;
	int64_t		watermark = evp_feed_watermark(jumps->proxy->feed);

	/* Until the feed has heard of another history, what it knows is of the one before. */
	if (jumps->asking || jumps->stopped || evp_feed_history(jumps->proxy->feed) != jumps->history)
		return;
	jumps->asking = true;
	jumps->wanted = upto > watermark ? upto : watermark > 0 ? watermark : 0;
	evp_db_run(jumps->proxy->db, EVP_DB_READ, &(evp_db_statement_t) {.sql = sql,.result_format = 1,.source = EVP_SOURCE_HTTP}, on_rows, jumps);
}

void
evp_jumps_look(evp_jumps_t *jumps)
{
	uint64_t	history = evp_db_history(jumps->proxy->db);

	if (jumps->history != history || (jumps->refused_at > 0 && evp_now(jumps->proxy) >= jumps->refused_at + REFUSED_MS))
	{
		forget(jumps);
		jumps->history = history;
	}
	if (jumps->known < 0)
		ask(jumps, 0);
}

bool
evp_jumps_known(evp_jumps_t *jumps, int64_t position, int64_t upto)
{
	evp_jumps_look(jumps);
	if (jumps->known >= position)
		return true;
	ask(jumps, upto);
	return false;
}

const evp_jump_t *
evp_jumps_find(const evp_jumps_t *jumps, int64_t position)
{
	for (size_t i = 0; i < jumps->count; i++)
		/* The last one before the next has only looked over what was left out. */
		if (jumps->jumps[i].last < position && position < jumps->jumps[i].next - 1)
			return &jumps->jumps[i];
	return NULL;
}

evp_jumps_t *
evp_jumps_new(evp_proxy_t *proxy, evp_jumps_cb cb, void *arg)
{
	evp_jumps_t *jumps = calloc(1, sizeof(*jumps));

	if (jumps == NULL)
		return NULL;
	jumps->proxy = proxy;
	jumps->cb = cb;
	jumps->arg = arg;
	jumps->known = -1;
	return jumps;
}

void
evp_jumps_stop(evp_jumps_t *jumps)
{
	jumps->stopped = true;
}

void
evp_jumps_free(evp_jumps_t *jumps)
{
	if (jumps == NULL)
		return;
	forget(jumps);
	free(jumps);
}
