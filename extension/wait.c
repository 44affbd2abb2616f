/*
 * wait.c
 *	  wait, which sleeps until the watermark has passed a position, and
 *	  watermark.
 *
 * The worker of the database publishes the watermark in shared memory and
 * broadcasts; sessions sleep on that.  They hold no snapshot meanwhile: on the
 * primary it would keep dead rows alive, on a standby stop the very replay that
 * is waited for.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"

/* A waiter on a standby tells the worker so often that it is there. */
#define STANDBY_NAP_MS 500

/* Longest sleep in one go; a longer timeout is slept in several. */
#define NAP_MS 60000

void
evento_check_not_atomic(FunctionCallInfo fcinfo, const char *what)
{
	bool		atomic = fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic;

	if (atomic || IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot be called %s", what,
						atomic ? "inside a transaction block or a function" :
						"in a transaction with isolation level REPEATABLE READ or SERIALIZABLE"),
				 errdetail("It has to let go of the snapshot while it waits."),
				 errhint(atomic ? "CALL it on its own." :
						 "SET default_transaction_isolation = 'read committed'.")));
}

/* SQL: _on_its_own(what), for procedures in other languages. */
PG_FUNCTION_INFO_V1(evento_on_its_own);
Datum
evento_on_its_own(PG_FUNCTION_ARGS)
{
	evento_check_not_atomic(fcinfo, PG_ARGISNULL(0) ? "this" : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/* Microseconds of an interval, months at 30 days; 22023 where negative or NULL. */
static int64
timeout_us(FunctionCallInfo fcinfo, int argno)
{
	Interval   *interval;
	double		us;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be NULL")));
	interval = PG_GETARG_INTERVAL_P(argno);
	us = (double) interval->time +
		((double) interval->month * DAYS_PER_MONTH + interval->day) * (double) USECS_PER_DAY;
	if (us < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));

	/* Ten years are as good as for ever, and overflow nothing. */
	return (int64) Min(us, 10.0 * DAYS_PER_YEAR * USECS_PER_DAY);
}

/* Position up to which everything committed before this moment lies. */
static int64
committed_by_now(EventoDb *db)
{
	if (RecoveryInProgress())
		return evento_watermark_row(GetLatestSnapshot());
	if (evento_positions_known(db))
		return (int64) pg_atomic_read_u64(&db->counter) - 1;
	return evento_newest_position();
}

/*
 * Lets go of every snapshot, as a COMMIT in a procedure does.  A CALL that
 * gives a row has one registered besides the active one, to keep what its row
 * points to; ours points to nothing.
 */
void
evento_release_snapshots(void)
{
	Portal		portal = ActivePortal;

	if (portal != NULL && portal->holdSnapshot != NULL)
	{
		if (portal->resowner != NULL)
			UnregisterSnapshotFromOwner(portal->holdSnapshot, portal->resowner);
		portal->holdSnapshot = NULL;
	}
	ForgetPortalSnapshots();
	InvalidateCatalogSnapshot();
}

/*
 * Sleeps until the published watermark has reached target or the time is up.
 * The caller holds no snapshot.
 */
static void
sleep_until(EventoDb *db, Oid sequence, int64 target, TimestampTz deadline)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = evento_wait_event("EventoWait");

	evento_stats_add(db, EVENTO_STAT_WAITS, 1);
	ConditionVariablePrepareToSleep(&db->advanced);
	while (evento_watermark_published(db, sequence) < target)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		bool		standby = RecoveryInProgress();

		if (left <= 0)
			break;
		if (standby)
		{
			pg_atomic_write_u32(&db->waiters, 1);
			evento_wake_worker(db);
		}
		else if (pg_atomic_read_u32(&db->worker) == 0)
			evento_wake_worker(db);
		(void) ConditionVariableTimedSleep(&db->advanced,
										   Min(left, standby ? STANDBY_NAP_MS : NAP_MS),
										   wait_event);
	}
	ConditionVariableCancelSleep();
	evento_stats_add(db, evento_watermark_published(db, sequence) < target ?
					 EVENTO_STAT_WAIT_TIMEOUTS : EVENTO_STAT_WAIT_WAKEUPS, 1);
}

/* Also where the wait, or the session, is ended by force. */
static void
count_out(int code, Datum db)
{
	pg_atomic_fetch_sub_u32(&((EventoDb *) DatumGetPointer(db))->waiting, 1);
}

/* SQL: CALL wait(after, timeout, INOUT watermark) */
PG_FUNCTION_INFO_V1(evento_wait);
Datum
evento_wait(PG_FUNCTION_ARGS)
{
	EventoDb   *db;
	Oid			sequence;
	TimestampTz deadline;
	int64		target;
	TupleDesc	desc;
	Datum		values[1];
	bool		nulls[1] = {false};

	evento_check_preloaded();
	evento_check_not_atomic(fcinfo, "evento.wait()");
	deadline = GetCurrentTimestamp() + timeout_us(fcinfo, 1);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);

	db = evento_db();
	sequence = evento_rel(EVENTO_REL_POSITIONS);
	if (PG_ARGISNULL(0))
		target = committed_by_now(db);
	else if (PG_GETARG_INT64(0) == PG_INT64_MAX)
		target = PG_INT64_MAX;
	else
		target = PG_GETARG_INT64(0) + 1;

	if (evento_watermark_published(db, sequence) < target)
	{
		evento_release_snapshots();
		pg_atomic_fetch_add_u32(&db->waiting, 1);
		PG_ENSURE_ERROR_CLEANUP(count_out, PointerGetDatum(db));
		{
			sleep_until(db, sequence, target, deadline);
		}
		PG_END_ENSURE_ERROR_CLEANUP(count_out, PointerGetDatum(db));
		count_out(0, PointerGetDatum(db));
		EnsurePortalSnapshotExists();
	}
	values[0] = Int64GetDatum(evento_watermark_published(db, sequence));
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

/* SQL: watermark().  That of the snapshot which its caller reads with. */
PG_FUNCTION_INFO_V1(evento_watermark);
Datum
evento_watermark(PG_FUNCTION_ARGS)
{
	evento_check_preloaded();
	PG_RETURN_INT64(evento_watermark_seen(GetActiveSnapshot()));
}
