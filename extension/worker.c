/*
 * worker.c
 *	  The worker of a database, which publishes its watermark.
 *
 * A worker sleeps until a commit wakes it, computes the watermark, writes it
 * into its row, NOTIFYs, publishes it in shared memory and wakes who waits
 * there.  In recovery it follows the row instead.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/async.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/walreceiver.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"
#include "worker.h"

#define CHANNEL "evento"

/* The worker: while rows are being loaded; while somebody has the table of the row locked. */
#define UNSEEDED_MS 100
#define ROW_RETRY_MS 100

/* After a turn that failed: doubled each time; and how often the same error is logged. */
#define FAILED_MS 1000
#define FAILED_MAX_MS 30000
#define LOG_AGAIN_MS 300000

/* How many NOTIFYs between two looks at the queue, and from where on none is sent. */
#define NOTIFY_CHECK 256
#define NOTIFY_QUEUE_FULL 0.5

/* In recovery: with and without somebody who waits. */
#define FOLLOW_WAITED_MS 5
#define FOLLOW_IDLE_MS 1000

/* ---- for the launcher, too ---- */

void
evento_process_start(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

void
evento_process_rest(pg_atomic_uint32 *woken, long timeout_ms, uint32 wait_event, int exit_code)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms < 0 && pg_atomic_read_u32(woken) != 0)
		timeout_ms = 0;
	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	(void) WaitLatch(MyLatch, events, timeout_ms, wait_event);
	ResetLatch(MyLatch);
	if (ProcDiePending)
		proc_exit(exit_code);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* ---- the worker ---- */

/* The pid goes first: while there is a worker, it is that one's or nobody's. */
static void
resign(EventoDb *db)
{
	uint32		me = (uint32) evento_my_proc_number() + 1;

	if (pg_atomic_read_u32(&db->worker) != me)
		return;
	pg_atomic_write_u32(&db->worker_pid, 0);
	pg_write_barrier();
	pg_atomic_write_u32(&db->worker, 0);
	pg_memory_barrier();
}

static void
on_worker_exit(int code, Datum arg)
{
	resign(evento_db());

	/* Only the launcher that started us is told by the postmaster. */
	evento_wake_launcher();
}

/*
 * The extension is not here (any more).  Whoever uses it later asks for a
 * worker; one who did so meanwhile is not forgotten.
 */
EVENTO_NORETURN static void
retire(EventoDb *db)
{
	if (db != NULL)
	{
		resign(db);
		pg_atomic_exchange_u32(&db->worker_wanted, 0);
		if (pg_atomic_exchange_u32(&db->wake, 0) != 0)
			evento_wake_worker(db);
	}
	proc_exit(0);
}

/* The queue is looked at before the first, and again after an error. */
static int	notifies_since_check = NOTIFY_CHECK;

/*
 * NOTIFYs the watermark, unless the queue is filling because a session that
 * LISTENs sits in a transaction: a full queue would stop the watermark itself.
 */
static void
notify(EventoDb *db, int64 watermark)
{
	static bool full = false;
	char		payload[32];

	if (++notifies_since_check >= NOTIFY_CHECK)
	{
		bool		was_full = full;

		notifies_since_check = 0;
		full = DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) >
			NOTIFY_QUEUE_FULL;
		if (full && !was_full)
			ereport(WARNING,
					(errmsg("evento sends no notifications while the queue is more than half full"),
					 errhint("A session that LISTENs has been in a transaction for long: end it.")));
	}
	evento_stats_add(db, full ? EVENTO_STAT_NOTIFIES_LEFT_OUT : EVENTO_STAT_NOTIFIES, 1);
	if (full)
		return;
	snprintf(payload, sizeof(payload), INT64_FORMAT, watermark);
	Async_Notify(CHANNEL, payload);
}

/* Whether the view events asks for marks; that of version 0.1.0 reads the row. */
static bool
view_reads_marks(void)
{
	oidvector  *none = buildoidvector(NULL, 0);

	return SearchSysCacheExists3(PROCNAMEARGSNSP, CStringGetDatum("_watermark_seen"),
								 PointerGetDatum(none),
								 ObjectIdGetDatum(get_rel_namespace(evento_rel(EVENTO_REL_WATERMARK))));
}

/*
 * Computes the watermark in the transaction that runs; false where that cannot
 * be done now.
 */
static bool
compute(EventoDb *db, int64 *watermark)
{
	if (evento_positions_known(db))
		*watermark = evento_watermark_compute(db);
	else
	{
		if (!evento_positions_seed(db, watermark))
			return false;

		/* A mark is good for snapshots taken after a transaction with an id that is yet to come. */
		PopActiveSnapshot();
		CommitTransactionCommand();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
	}

	/* What was given out before a restart. */
	if (evento_watermark_published(db, evento_rel(EVENTO_REL_POSITIONS)) == 0)
		*watermark = Max(*watermark, evento_watermark_row(GetActiveSnapshot()));
	return true;
}

/* What one turn leaves to the next. */
static int64 row_position = 0;	/* that the row has; 0: not known */
static Oid	row_incarnation = InvalidOid;	/* of which extension that row is */
static TimestampTz row_next = 0;	/* when it may be written again */

/* How long the row still has to be left alone, in ms. */
static long
row_rest(TimestampTz now)
{
	int			interval = evento_watermark_row_interval();

	/* A clock that was set back says so for longer than any interval, and is not heeded. */
	if (interval == 0 || now >= row_next || row_next - now > interval * INT64CONST(1000))
		return 0;
	return TimestampDifferenceMilliseconds(now, row_next);
}

/* Writes the row where that may be done now. */
static void
write_row(EventoDb *db, int64 watermark, TimestampTz now)
{
	bool		crowded = evento_watermark_row_interval() > 0;
	bool		wait = !view_reads_marks();

	if (crowded && row_rest(now) > 0 && !wait)
		return;
	if (evento_watermark_row_write(watermark, wait))
	{
		row_position = watermark;
		evento_stats_add(db, EVENTO_STAT_ROW_WRITES, 1);
	}
	row_next = TimestampTzPlusMilliseconds(now, evento_watermark_row_interval());
}

/* A turn on a primary.  Gives how long to rest, -1 until woken. */
static long
advance(EventoDb *db)
{
	static TimestampTz next = 0;
	TimestampTz now = GetCurrentTimestamp();
	int64		before;
	int64		watermark;
	Oid			sequence;
	bool		moved;

	/* Too early: the flag stays up, so nobody sets our latch again. */
	if (now < next && next - now <= evento_watermark_interval * INT64CONST(1000))
		return TimestampDifferenceMilliseconds(now, next);

	pg_atomic_exchange_u32(&db->wake, 0);
	StartTransactionCommand();
	if (!evento_installed())
	{
		CommitTransactionCommand();
		retire(db);
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	sequence = evento_rel(EVENTO_REL_POSITIONS);
	if (!compute(db, &watermark))
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return UNSEEDED_MS;
	}
	if (row_incarnation != sequence)
		row_position = 0;
	row_incarnation = sequence;
	before = evento_watermark_published(db, sequence);
	moved = watermark > before;
	if (moved)
	{
		pgstat_report_activity(STATE_RUNNING, "publishing the watermark");
		evento_mark_put(db, sequence, watermark);
		(void) GetCurrentTransactionId();
		notify(db, watermark);
	}
	if (row_position < watermark)
		write_row(db, watermark, now);
	PopActiveSnapshot();
	CommitTransactionCommand();
	evento_watermark_row_written(db);
	if (moved)
	{
		evento_watermark_publish(db, sequence, before, watermark);
		pgstat_report_activity(STATE_IDLE, NULL);
		next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), evento_watermark_interval);
	}
	return row_position < watermark ? Max(row_rest(now), ROW_RETRY_MS) : -1;
}

/* A turn in recovery. */
static long
follow(EventoDb *db)
{
	static bool warned = false;
	static TimestampTz waited_until = 0;
	TimestampTz now = GetCurrentTimestamp();
	int64		before;
	int64		watermark;
	Oid			sequence;

	if (!warned && !hot_standby_feedback)
		ereport(WARNING,
				(errmsg("hot_standby_feedback is off"),
				 errdetail("Reads of evento on this standby can be cancelled by cleanup on the primary."),
				 errhint("Set hot_standby_feedback = on.")));
	warned = true;

	pg_atomic_exchange_u32(&db->wake, 0);
	if (pg_atomic_exchange_u32(&db->waiters, 0) != 0)
		waited_until = TimestampTzPlusMilliseconds(now, FOLLOW_IDLE_MS);

	StartTransactionCommand();
	if (!evento_installed())
	{
		CommitTransactionCommand();
		retire(db);
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	sequence = evento_rel(EVENTO_REL_POSITIONS);
	before = evento_watermark_published(db, sequence);
	watermark = evento_watermark_follow(db, GetActiveSnapshot());
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (watermark != before)
		evento_watermark_publish(db, sequence, before, watermark);
	return now < waited_until ? FOLLOW_WAITED_MS : FOLLOW_IDLE_MS;
}

/* Settings of the cluster that would get into the worker's way. */
static void
set_own_settings(void)
{
	static const char *const settings[][2] = {
		/* The row says what is on disk already; seeding forces its commit. */
		{"synchronous_commit", "off"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* Logs what ended a turn, unless it did so a moment ago, and keeps it for stats. */
static void
report_failure(EventoDb *db)
{
	static char last[EVENTO_ERROR_SIZE] = "";
	static TimestampTz logged_at = 0;
	ErrorData  *error = CopyErrorData();
	TimestampTz now = GetCurrentTimestamp();

	if (strncmp(last, error->message, sizeof(last) - 1) != 0 ||
		TimestampDifferenceExceeds(logged_at, now, LOG_AGAIN_MS))
	{
		EmitErrorReport();
		logged_at = now;
		strlcpy(last, error->message, sizeof(last));
	}
	evento_worker_error_set(db, error->message);
	evento_stats_add(db, EVENTO_STAT_WORKER_ERRORS, 1);
}

/*
 * One turn.  One that fails (a table is broken, the disk is full) is tried again
 * later, and less and less often; gives how long to rest.
 */
static long
turn(EventoDb *db)
{
	static int	failures = 0;
	static TimestampTz again = 0;
	MemoryContext context = CurrentMemoryContext;
	volatile long timeout = -1;

	if (failures > 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (now < again && again - now <= FAILED_MAX_MS * INT64CONST(1000))
			return TimestampDifferenceMilliseconds(now, again);
	}
	PG_TRY();
	{
		timeout = RecoveryInProgress() ? follow(db) : advance(db);
		failures = 0;
		if (pg_atomic_read_u32(&db->worker_failing) != 0)
			pg_atomic_write_u32(&db->worker_failing, 0);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(context);
		report_failure(db);
		AbortCurrentTransaction();
		LWLockReleaseAll();
		FlushErrorState();
		notifies_since_check = NOTIFY_CHECK;
		row_position = 0;
		timeout = Min(FAILED_MS << Min(failures, 10), FAILED_MAX_MS);
		failures++;
		again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	return timeout;
}

void
evento_worker_main(Datum arg)
{
	Oid			dboid = DatumGetObjectId(arg);
	EventoDb   *db;
	uint32		nobody = 0;
	uint32		wait_event;
	bool		installed;
	MemoryContext turn_context;

	evento_process_start();
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	set_own_settings();

	StartTransactionCommand();
	installed = evento_installed();
	CommitTransactionCommand();
	if (!installed)
		retire(evento_db_find(dboid));

	db = evento_db();
	if (!pg_atomic_compare_exchange_u32(&db->worker, &nobody,
										(uint32) evento_my_proc_number() + 1))
		proc_exit(0);			/* there is one */
	before_shmem_exit(on_worker_exit, (Datum) 0);
	pg_atomic_write_u32(&db->worker_pid, (uint32) MyProcPid);
	pg_atomic_write_u64(&db->worker_since, (uint64) GetCurrentTimestamp());
	pg_atomic_write_u32(&db->worker_trouble, EVENTO_TROUBLE_NONE);
	pg_atomic_write_u32(&db->worker_failing, 0);
	pg_atomic_write_u32(&db->worker_wanted, 1);

	/* Somebody wants the database to himself, and may have looked before we were there. */
	pg_memory_barrier();
	if ((TimestampTz) pg_atomic_read_u64(&db->keep_off_until) > GetCurrentTimestamp())
		proc_exit(0);
	evento_stats_add(db, EVENTO_STAT_WORKER_STARTS, 1);
	evento_wake_launcher();
	wait_event = evento_wait_event("EventoWorkerMain");
	turn_context = AllocSetContextCreate(TopMemoryContext, "evento turn", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		long		timeout;

		MemoryContextReset(turn_context);
		MemoryContextSwitchTo(turn_context);
		timeout = turn(db);
		pgstat_report_stat(false);
		evento_process_rest(&db->wake, timeout, wait_event, 0);
	}
}

/* Only while libraries are preloaded. */
void
evento_worker_init(void)
{
	/* pg_upgrade wants nobody to write while it works. */
	if (IsBinaryUpgrade)
		return;
	evento_launcher_init();
	evento_dbhook_init();
}
