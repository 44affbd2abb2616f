/*
 * stats.c
 *	  Counters, the view stats, and what doctor() asks the library.
 *
 * A session counts in memory of its own and adds to the database's counters
 * when its transaction ends: a handful of additions on one line per commit,
 * none per append.  A transaction that fails still counts what it met with.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"

static int64 pending[EVENTO_STAT_COUNT];

/* Where pending belongs; NULL: nothing is pending. */
static EventoDb *pending_db = NULL;

void
evento_stats_count(EventoStat stat, int64 n)
{
	if (unlikely(pending_db == NULL))
		pending_db = evento_db();
	pending[stat] += n;
}

void
evento_stats_outcome(const EventoOutcome *outcome)
{
	evento_stats_count(EVENTO_STAT_APPENDS, 1);
	if (likely(outcome->sqlstate == 0))
	{
		if (outcome->repeat)
			evento_stats_count(EVENTO_STAT_REPEATS, 1);
	}
	else if (outcome->sqlstate == ERRCODE_EVENTO_WRONG_VERSION)
		evento_stats_count(EVENTO_STAT_CONFLICTS, 1);
	else if (outcome->sqlstate == ERRCODE_EVENTO_ID_CLASH)
		evento_stats_count(EVENTO_STAT_ID_CLASHES, 1);
	else if (outcome->sqlstate == ERRCODE_LOCK_NOT_AVAILABLE)
		evento_stats_count(EVENTO_STAT_BUSY, 1);
	else
		evento_stats_count(EVENTO_STAT_REFUSED, 1);
}

void
evento_stats_events(bool committed, int64 events, uint64 bytes, int64 positions)
{
	/* Who has buffered events has counted their append: the database is known. */
	if (pending_db == NULL)
		return;
	if (committed)
	{
		pending[EVENTO_STAT_TRANSACTIONS]++;
		pending[EVENTO_STAT_EVENTS] += events;
		pending[EVENTO_STAT_BYTES] += (int64) bytes;
	}
	else
	{
		pending[EVENTO_STAT_ROLLED_BACK]++;
		pending[EVENTO_STAT_ROLLED_BACK_EVENTS] += events;
		pending[EVENTO_STAT_GAPS] += positions;
	}
}

void
evento_stats_flush(void)
{
	if (likely(pending_db == NULL))
		return;
	for (int i = 0; i < EVENTO_STAT_COUNT; i++)
	{
		if (pending[i] != 0)
			evento_stats_add(pending_db, (EventoStat) i, pending[i]);
		pending[i] = 0;
	}
	pending_db = NULL;
}

/* ---- SQL ---- */

static const char *
worker_state(EventoDb *db)
{
	if (pg_atomic_read_u32(&db->worker) != 0)
		return pg_atomic_read_u32(&db->worker_failing) != 0 ? "failing" : "running";
	if ((TimestampTz) pg_atomic_read_u64(&db->keep_off_until) > GetCurrentTimestamp())
		return "kept off";
	switch (pg_atomic_read_u32(&db->worker_trouble))
	{
		case EVENTO_TROUBLE_NO_PLACE:
			return "no place";
		case EVENTO_TROUBLE_NO_CONNECTION:
			return "no connections";
		default:
			return pg_atomic_read_u32(&db->worker_wanted) != 0 ? "starting" : "none";
	}
}

/* Columns of _stats(); what is counted stands behind them, as in EventoStat. */
enum
{
	STATS_SINCE,
	STATS_NEXT_POSITION,
	STATS_RESERVED,
	STATS_WATERMARK,
	STATS_READABLE,
	STATS_WAITING,
	STATS_WORKER_PID,
	STATS_WORKER_STATE,
	STATS_WORKER_SINCE,
	STATS_WORKER_ERROR,
	STATS_WORKER_ERROR_AT,
	STATS_COUNTERS
};

#define STATS_COLUMNS (STATS_COUNTERS + EVENTO_STAT_COUNT)

/*
 * SQL: _stats().  The published watermark is read before the one that is
 * computed, which is read before the counter: what each says bounds the next.
 */
PG_FUNCTION_INFO_V1(evento_stats);
Datum
evento_stats(PG_FUNCTION_ARGS)
{
	EventoDb   *db;
	TupleDesc	desc;
	Datum		values[STATS_COLUMNS];
	bool		nulls[STATS_COLUMNS] = {false};
	char		error[EVENTO_ERROR_SIZE];
	TimestampTz error_at;
	TimestampTz since;

	evento_check_preloaded();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (desc->natts != STATS_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of evento and the extension in this database are of different versions"),
				 errhint("ALTER EXTENSION evento UPDATE, or restart the server where the library is the older one.")));
	db = evento_db();

	values[STATS_SINCE] = TimestampTzGetDatum(db->stats_since);
	values[STATS_READABLE] = Int64GetDatum(evento_watermark_published(db, evento_rel(EVENTO_REL_POSITIONS)));
	if (!RecoveryInProgress() && evento_positions_known(db))
	{
		values[STATS_WATERMARK] = Int64GetDatum(evento_watermark_compute(db));
		values[STATS_NEXT_POSITION] = Int64GetDatum((int64) pg_atomic_read_u64(&db->counter));
		values[STATS_RESERVED] = Int64GetDatum((int64) pg_atomic_read_u64(&db->reserved));
	}
	else
		nulls[STATS_NEXT_POSITION] = nulls[STATS_RESERVED] = nulls[STATS_WATERMARK] = true;
	values[STATS_WAITING] = Int32GetDatum((int32) pg_atomic_read_u32(&db->waiting));

	since = (TimestampTz) pg_atomic_read_u64(&db->worker_since);
	values[STATS_WORKER_PID] = Int32GetDatum((int32) pg_atomic_read_u32(&db->worker_pid));
	values[STATS_WORKER_SINCE] = TimestampTzGetDatum(since);
	nulls[STATS_WORKER_PID] = nulls[STATS_WORKER_SINCE] = pg_atomic_read_u32(&db->worker) == 0;
	values[STATS_WORKER_STATE] = CStringGetTextDatum(worker_state(db));
	evento_worker_error_get(db, error, &error_at);
	values[STATS_WORKER_ERROR] = CStringGetTextDatum(error);
	values[STATS_WORKER_ERROR_AT] = TimestampTzGetDatum(error_at);
	nulls[STATS_WORKER_ERROR] = nulls[STATS_WORKER_ERROR_AT] = error[0] == '\0';

	for (int i = 0; i < EVENTO_STAT_COUNT; i++)
		values[STATS_COUNTERS + i] = Int64GetDatum((int64) pg_atomic_read_u64(&db->stats[i]));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * SQL: _library().  Needs no preload: it says whether there is one.
 */
PG_FUNCTION_INFO_V1(evento_library);
Datum
evento_library(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false};
	int			used = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(EVENTO_VERSION);
	values[1] = BoolGetDatum(evento_shmem_ready());
	if (evento_shmem_ready())
	{
		for (int i = 0; i < evento_max_databases; i++)
		{
			Oid			dboid;

			used += evento_db_at(i, &dboid) != NULL;
		}
	}
	else
		nulls[2] = true;
	values[2] = Int32GetDatum(used);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
