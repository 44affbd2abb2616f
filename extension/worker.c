/*
 * worker.c
 *	  The launcher, and the worker of a database that publishes its watermark.
 *
 * The launcher is connected to no database.  When it starts it sends a worker
 * to each database in turn; one without the extension sends it back.  Later it
 * starts one wherever a session has begun to use the extension, and again
 * where one has died.
 *
 * A worker sleeps until a commit wakes it, computes the watermark, writes it
 * into its row, NOTIFYs, publishes it in shared memory and wakes who waits
 * there.  In recovery it follows the row instead.
 *
 * Commands that want a database to themselves (DROP, RENAME, a copy, a move)
 * would fail on our worker's connection: a hook makes it go before.
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database.h"
#include "commands/async.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/walreceiver.h"
#include "storage/bufmgr.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"

#define LIBRARY "evento"
#define CHANNEL "evento"

/* The launcher: rest after a worker died, after no place was free, and how long to wait for one that starts. */
#define RESTART_MS 1000
#define NO_PLACE_MS 10000
#define START_MS 5000

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

/* How long a command keeps the worker off at most, and waits for it to go. */
#define KEEP_OFF_MS 60000
#define STOP_MS 5000

/* Columns of evento._watermark. */
enum
{
	Anum_watermark_singleton = 1,
	Anum_watermark_position,
	Natts_watermark = Anum_watermark_position
};

/* A database that has, or may need, a worker; in the launcher. */
typedef struct Candidate
{
	Oid			dboid;
	BackgroundWorkerHandle *handle; /* NULL: not started */
	TimestampTz since;			/* when it was started */
	TimestampTz not_before;		/* when it may be started */
	bool		complained;		/* that there is no place */
} Candidate;

static List *candidates = NIL;	/* of Candidate *, in TopMemoryContext */

/* What follows our hook: another library's, or the server's own. */
static ProcessUtility_hook_type next_process_utility = NULL;

/* ---- what both have in common ---- */

static void
start_process(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

/*
 * Sleeps until woken, or for timeout_ms (-1: for ever).  Told to go, it goes
 * with this code; in the middle of a turn that would be an error instead.
 *
 * woken is what those who wake raise before they set the latch, and a turn
 * lowers when it begins.  The latch alone does not tell: whatever a turn waits
 * for (a lock, a page that another process reads) waits on the same latch and
 * resets it.
 */
static void
rest(pg_atomic_uint32 *woken, long timeout_ms, uint32 wait_event, int exit_code)
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

/* ---- the launcher ---- */

static Candidate *
find_candidate(Oid dboid)
{
	ListCell   *cell;

	foreach(cell, candidates)
	{
		Candidate  *candidate = lfirst(cell);

		if (candidate->dboid == dboid)
			return candidate;
	}
	return NULL;
}

static void
add_candidate(Oid dboid)
{
	MemoryContext caller;
	Candidate  *candidate;

	if (find_candidate(dboid) != NULL)
		return;
	caller = MemoryContextSwitchTo(TopMemoryContext);
	candidate = palloc0(sizeof(Candidate));
	candidate->dboid = dboid;
	candidates = lappend(candidates, candidate);
	MemoryContextSwitchTo(caller);
}

/* Every database that can be connected to and is no template. */
static void
add_all_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		/* A limit below -1 marks one whose DROP was interrupted. */
		if (database->datallowconn && !database->datistemplate && database->datconnlimit >= -1)
			add_candidate(database->oid);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
}

/* *exists: whether there is such a database, which sessions may use all the same. */
static bool
can_connect(Oid dboid, bool *exists)
{
	HeapTuple	tuple;
	bool		ok = false;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	*exists = HeapTupleIsValid(tuple);
	if (*exists)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		ok = database->datallowconn && database->datconnlimit >= -1;
		ReleaseSysCache(tuple);
	}
	CommitTransactionCommand();
	return ok;
}

static bool
start_worker(Candidate *candidate)
{
	BackgroundWorker worker = {0};
	MemoryContext caller;
	bool		started;

	snprintf(worker.bgw_name, BGW_MAXLEN, "evento worker for database %u", candidate->dboid);
	strlcpy(worker.bgw_type, "evento worker", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, LIBRARY, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "evento_worker_main", sizeof(worker.bgw_function_name));
	worker.bgw_main_arg = ObjectIdGetDatum(candidate->dboid);
	worker.bgw_notify_pid = MyProcPid;

	caller = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &candidate->handle);
	MemoryContextSwitchTo(caller);
	if (!started)
		candidate->handle = NULL;
	return started;
}

/* Adds databases where a session asked for a worker. */
static void
add_wanted(void)
{
	for (int i = 0; i < evento_max_databases; i++)
	{
		Oid			dboid;
		EventoDb   *db = evento_db_at(i, &dboid);

		if (db != NULL && pg_atomic_read_u32(&db->worker_wanted) != 0 &&
			pg_atomic_read_u32(&db->worker) == 0)
			add_candidate(dboid);
	}
}

/*
 * Looks how a started worker does.  True while it is not known whether its
 * database has the extension.  Sets *remove where it needs no worker.
 */
static bool
check_started(Candidate *candidate, TimestampTz now, bool *remove)
{
	EventoDb   *db = evento_db_find(candidate->dboid);
	pid_t		pid;

	switch (GetBackgroundWorkerPid(candidate->handle, &pid))
	{
		case BGWH_POSTMASTER_DIED:
			proc_exit(1);
		case BGWH_STOPPED:
			pfree(candidate->handle);
			candidate->handle = NULL;
			candidate->not_before = TimestampTzPlusMilliseconds(now, RESTART_MS);
			*remove = db == NULL || pg_atomic_read_u32(&db->worker_wanted) == 0;
			return false;
		case BGWH_STARTED:
		case BGWH_NOT_YET_STARTED:
			break;
	}
	if (db != NULL && pg_atomic_read_u32(&db->worker) != 0)
		return false;
	return !TimestampDifferenceExceeds(candidate->since, now, START_MS);
}

/* Starts the worker of a candidate whose time has come.  False: it is not needed. */
static bool
try_start(Candidate *candidate, TimestampTz now)
{
	EventoDb   *db = evento_db_find(candidate->dboid);
	bool		exists;

	if (db != NULL && pg_atomic_read_u32(&db->worker) != 0)
		return false;
	if (!can_connect(candidate->dboid, &exists))
	{
		if (!exists)
			evento_db_forget(candidate->dboid);
		else if (db != NULL)
			pg_atomic_write_u32(&db->worker_wanted, 0); /* the next commit asks again */
		return false;
	}
	if (start_worker(candidate))
	{
		candidate->since = now;
		candidate->complained = false;
	}
	else
	{
		candidate->not_before = TimestampTzPlusMilliseconds(now, NO_PLACE_MS);
		if (!candidate->complained)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no background worker is free for evento in database %u", candidate->dboid),
					 errdetail("The watermark of that database does not move."),
					 errhint("Raise max_worker_processes and restart the server.")));
		candidate->complained = true;
	}
	return true;
}

static TimestampTz
earliest_start(const Candidate *candidate)
{
	EventoDb   *db = evento_db_find(candidate->dboid);
	TimestampTz keep_off = db == NULL ? 0 : (TimestampTz) pg_atomic_read_u64(&db->keep_off_until);

	return Max(candidate->not_before, keep_off);
}

/* One look at everything; gives how long to rest, -1 until woken. */
static long
launcher_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		undecided = false;
	long		timeout = -1;
	ListCell   *cell;

	pg_atomic_exchange_u32(evento_launcher_woken(), 0);
	add_wanted();
	foreach(cell, candidates)
	{
		Candidate  *candidate = lfirst(cell);
		bool		remove = false;

		if (candidate->handle != NULL)
			undecided |= check_started(candidate, now, &remove);
		if (remove)
		{
			candidates = foreach_delete_current(candidates, cell);
			pfree(candidate);
		}
	}

	/* One at a time, so that a probe of many databases takes few places. */
	foreach(cell, candidates)
	{
		Candidate  *candidate = lfirst(cell);
		TimestampTz start;

		if (candidate->handle != NULL)
			continue;
		start = earliest_start(candidate);
		if (start > now)
		{
			long		wait = TimestampDifferenceMilliseconds(now, start) + 1;

			timeout = timeout < 0 ? wait : Min(timeout, wait);
		}
		else if (undecided)
			continue;
		else if (!try_start(candidate, now))
		{
			candidates = foreach_delete_current(candidates, cell);
			pfree(candidate);
		}
		else if (candidate->handle != NULL)
			undecided = true;
		else
			timeout = timeout < 0 ? NO_PLACE_MS : Min(timeout, NO_PLACE_MS);
	}
	if (undecided)
		timeout = timeout < 0 ? START_MS : Min(timeout, START_MS);
	return timeout;
}

static void
on_launcher_exit(int code, Datum arg)
{
	evento_set_launcher(0);
}

void
evento_launcher_main(Datum arg)
{
	uint32		wait_event;

	start_process();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	before_shmem_exit(on_launcher_exit, (Datum) 0);
	evento_set_launcher((uint32) evento_my_proc_number() + 1);
	wait_event = evento_wait_event("EventoLauncherMain");

	add_all_databases();
	for (;;)
		rest(evento_launcher_woken(), launcher_turn(), wait_event, 1);	/* 1: be started again */
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

	start_process();
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
		rest(&db->wake, RecoveryInProgress() ? follow(db) : advance(db), wait_event, 0);
}

/* ---- commands that want a database to themselves ---- */

/* Makes the worker of a database go, and stay away; false where there is none. */
static bool
stop_worker(Oid dboid)
{
	EventoDb   *db = evento_db_find(dboid);
	TimestampTz start = GetCurrentTimestamp();
	uint32		worker;
	int			pid;

	if (db == NULL)
		return false;
	pg_atomic_write_u64(&db->keep_off_until,
						(uint64) TimestampTzPlusMilliseconds(start, KEEP_OFF_MS));
	worker = pg_atomic_read_u32(&db->worker);
	if (worker == 0)
		return true;
	/* One that is just leaving has no pid any more. */
	pid = GetPGProcByNumber(worker - 1)->pid;
	if (pid > 0)
		kill(pid, SIGTERM);
	while (pg_atomic_read_u32(&db->worker) != 0 &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), STOP_MS))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

static void
allow_worker(Oid dboid)
{
	EventoDb   *db = evento_db_find(dboid);

	if (db == NULL)
		return;
	pg_atomic_write_u64(&db->keep_off_until, 0);
	evento_wake_launcher();
}

/* Name of the database that a command wants to itself, or NULL. */
static const char *
exclusive_database(Node *statement)
{
	List	   *options = NIL;
	const char *option = NULL;
	const char *name = NULL;
	ListCell   *cell;

	if (IsA(statement, DropdbStmt))
		return castNode(DropdbStmt, statement)->dbname;
	if (IsA(statement, RenameStmt))
		return castNode(RenameStmt, statement)->renameType == OBJECT_DATABASE ?
			castNode(RenameStmt, statement)->subname : NULL;
	if (IsA(statement, CreatedbStmt))
	{
		options = castNode(CreatedbStmt, statement)->options;
		option = "template";
		name = "template1";
	}
	else if (IsA(statement, AlterDatabaseStmt))
	{
		options = castNode(AlterDatabaseStmt, statement)->options;
		option = "tablespace";
	}
	foreach(cell, options)
	{
		DefElem    *element = lfirst_node(DefElem, cell);

		if (strcmp(element->defname, option) == 0 && element->arg != NULL)
			name = IsA(statement, CreatedbStmt) ? defGetString(element) :
				castNode(AlterDatabaseStmt, statement)->dbname;
	}
	return name;
}

/* Whether this user may do such a thing with the database: others cannot stop its worker. */
static bool
may_have_database(Oid dboid, Node *statement)
{
	HeapTuple	tuple;
	bool		is_template = false;

	if (evento_owns_database(dboid))
		return true;
	if (!IsA(statement, CreatedbStmt))
		return false;
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	if (HeapTupleIsValid(tuple))
	{
		is_template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return is_template;
}

static void
on_process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				   ProcessUtilityContext context, ParamListInfo params,
				   QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *qc)
{
	const char *name = evento_shmem_ready() ? exclusive_database(pstmt->utilityStmt) : NULL;
	Oid			dboid = name != NULL ? get_database_oid(name, true) : InvalidOid;
	bool		drop = IsA(pstmt->utilityStmt, DropdbStmt);

	if (!OidIsValid(dboid) || dboid == MyDatabaseId ||
		!may_have_database(dboid, pstmt->utilityStmt) || !stop_worker(dboid))
	{
		next_process_utility(pstmt, query, read_only_tree, context, params, environment, dest, qc);
		return;
	}

	PG_TRY();
	{
		next_process_utility(pstmt, query, read_only_tree, context, params, environment, dest, qc);
		if (drop)
			evento_db_forget(dboid);
	}
	PG_FINALLY();
	{
		allow_worker(dboid);
	}
	PG_END_TRY();
}

/* Registers the launcher and the hook; only while libraries are preloaded. */
void
evento_worker_init(void)
{
	BackgroundWorker launcher = {0};

	/* pg_upgrade wants nobody to write while it works. */
	if (IsBinaryUpgrade)
		return;

	strlcpy(launcher.bgw_name, "evento launcher", BGW_MAXLEN);
	strlcpy(launcher.bgw_type, "evento launcher", BGW_MAXLEN);
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_ConsistentState;
	launcher.bgw_restart_time = 5;
	strlcpy(launcher.bgw_library_name, LIBRARY, sizeof(launcher.bgw_library_name));
	strlcpy(launcher.bgw_function_name, "evento_launcher_main", sizeof(launcher.bgw_function_name));
	RegisterBackgroundWorker(&launcher);

	next_process_utility = ProcessUtility_hook ? ProcessUtility_hook : standard_ProcessUtility;
	ProcessUtility_hook = on_process_utility;
}
