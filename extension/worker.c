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
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"
#include "worker.h"

#define CHANNEL "evento"

/* The worker: while rows are being loaded; while old snapshots keep dead rows of _watermark. */
#define UNSEEDED_MS 100
#define CROWDED_BLOCKS 16
#define CROWDED_MS 50

/* How many NOTIFYs between two looks at the queue, and from where on none is sent. */
#define NOTIFY_CHECK 256
#define NOTIFY_QUEUE_FULL 0.5

/* In recovery: with and without somebody who waits. */
#define FOLLOW_WAITED_MS 5
#define FOLLOW_IDLE_MS 1000

/* Columns of evento._watermark. */
enum
{
	Anum_watermark_singleton = 1,
	Anum_watermark_position,
	Natts_watermark = Anum_watermark_position
};

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

static void
on_worker_exit(int code, Datum arg)
{
	EventoDb   *db = evento_db();
	uint32		me = (uint32) evento_my_proc_number() + 1;

	pg_atomic_compare_exchange_u32(&db->worker, &me, 0);

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
	uint32		me = (uint32) evento_my_proc_number() + 1;

	if (db != NULL)
	{
		pg_atomic_compare_exchange_u32(&db->worker, &me, 0);
		pg_atomic_exchange_u32(&db->worker_wanted, 0);
		if (pg_atomic_exchange_u32(&db->wake, 0) != 0)
			evento_wake_worker(db);
	}
	proc_exit(0);
}

/*
 * Writes the watermark into its row, never backwards; gives what stands there
 * then.  *blocks: size of the table.
 */
static int64
write_row(int64 watermark, BlockNumber *blocks)
{
	Relation	rel = table_open(evento_rel(EVENTO_REL_WATERMARK), RowExclusiveLock);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	HeapTuple	old = heap_getnext(scan, ForwardScanDirection);
	Datum		values[Natts_watermark];
	bool		nulls[Natts_watermark] = {false};
	HeapTuple	new;

	if (old != NULL)
	{
		evento_deform_row(rel, Natts_watermark, old, values, nulls);
		watermark = Max(watermark, DatumGetInt64(values[Anum_watermark_position - 1]));
	}
	values[Anum_watermark_singleton - 1] = BoolGetDatum(true);
	values[Anum_watermark_position - 1] = Int64GetDatum(watermark);
	new = evento_form_row(rel, Natts_watermark, values, nulls);
	evento_row_write(rel, new, old != NULL ? &old->t_self : NULL);
	table_endscan(scan);
	*blocks = RelationGetNumberOfBlocks(rel);
	table_close(rel, NoLock);
	return watermark;
}

/*
 * NOTIFYs the watermark, unless the queue is filling because a session that
 * LISTENs sits in a transaction: a full queue would stop the watermark itself.
 */
static void
notify(int64 watermark)
{
	static int	since_check = NOTIFY_CHECK;
	static bool full = false;
	char		payload[32];

	if (++since_check >= NOTIFY_CHECK)
	{
		bool		was_full = full;

		since_check = 0;
		full = DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) >
			NOTIFY_QUEUE_FULL;
		if (full && !was_full)
			ereport(WARNING,
					(errmsg("evento sends no notifications while the queue is more than half full"),
					 errhint("A session that LISTENs has been in a transaction for long: end it.")));
	}
	if (full)
		return;
	snprintf(payload, sizeof(payload), INT64_FORMAT, watermark);
	Async_Notify(CHANNEL, payload);
}

static void
publish(EventoDb *db, int64 watermark)
{
	pg_atomic_write_u64(&db->published, (uint64) watermark);
	ConditionVariableBroadcast(&db->advanced);
}

/* A turn on a primary.  Gives how long to rest, -1 until woken. */
static long
advance(EventoDb *db)
{
	static TimestampTz next = 0;
	static BlockNumber blocks = 0;
	TimestampTz now = GetCurrentTimestamp();
	int64		watermark;

	/*
	 * Too early: the flag stays up, so nobody sets our latch again.  A clock
	 * that was set back says so for longer than any interval, and is not heeded.
	 */
	if (now < next &&
		next - now <= Max(evento_watermark_interval, CROWDED_MS) * INT64CONST(1000))
		return TimestampDifferenceMilliseconds(now, next);

	pg_atomic_exchange_u32(&db->wake, 0);
	StartTransactionCommand();
	if (!evento_installed())
	{
		CommitTransactionCommand();
		retire(db);
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	if (evento_positions_known(db))
		watermark = evento_watermark_compute(db);
	else if (!evento_positions_seed(db, &watermark))
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return UNSEEDED_MS;
	}
	if (watermark <= (int64) pg_atomic_read_u64(&db->published))
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return -1;
	}

	pgstat_report_activity(STATE_RUNNING, "publishing the watermark");
	watermark = write_row(watermark, &blocks);
	notify(watermark);
	PopActiveSnapshot();
	CommitTransactionCommand();
	publish(db, watermark);
	pgstat_report_activity(STATE_IDLE, NULL);
	next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									   blocks > CROWDED_BLOCKS ?
									   Max(evento_watermark_interval, CROWDED_MS) :
									   evento_watermark_interval);
	return -1;
}

/* A turn in recovery. */
static long
follow(EventoDb *db)
{
	static bool warned = false;
	static TimestampTz waited_until = 0;
	TimestampTz now = GetCurrentTimestamp();
	int64		watermark;

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
	watermark = evento_watermark_row(GetActiveSnapshot());
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (watermark != (int64) pg_atomic_read_u64(&db->published))
		publish(db, watermark);
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

void
evento_worker_main(Datum arg)
{
	Oid			dboid = DatumGetObjectId(arg);
	EventoDb   *db;
	uint32		nobody = 0;
	uint32		wait_event;
	bool		installed;

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
	pg_atomic_write_u32(&db->worker_wanted, 1);
	evento_wake_launcher();
	wait_event = evento_wait_event("EventoWorkerMain");

	for (;;)
		evento_process_rest(&db->wake, RecoveryInProgress() ? follow(db) : advance(db), wait_event, 0);
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
