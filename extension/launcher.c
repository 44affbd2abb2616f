/*
 * launcher.c
 *	  The launcher, which sees to it that each database with the extension has a
 *	  worker.
 *
 * The launcher is connected to no database.  When it starts it sends a worker
 * to each database in turn; one without the extension sends it back.  Later it
 * starts one wherever a session has begun to use the extension, and again
 * where one has died.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"
#include "worker.h"

/* Rest after a worker died, after no place was free, and how long to wait for one that starts. */
#define RESTART_MS 1000
#define NO_PLACE_MS 5000
#define START_MS 5000

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
	strlcpy(worker.bgw_library_name, EVENTO_LIBRARY, sizeof(worker.bgw_library_name));
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
		{
			pg_atomic_write_u32(&db->worker_trouble, EVENTO_TROUBLE_NO_CONNECTION);
			pg_atomic_write_u32(&db->worker_wanted, 0); /* the next commit asks again */
		}
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
		if (db != NULL)
			pg_atomic_write_u32(&db->worker_trouble, EVENTO_TROUBLE_NO_PLACE);
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

	evento_process_start();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	before_shmem_exit(on_launcher_exit, (Datum) 0);
	evento_set_launcher((uint32) evento_my_proc_number() + 1);
	wait_event = evento_wait_event("EventoLauncherMain");

	add_all_databases();
	for (;;)
		evento_process_rest(evento_launcher_woken(), launcher_turn(), wait_event, 1);	/* 1: be started again */
}

/* Registers the launcher. */
void
evento_launcher_init(void)
{
	BackgroundWorker launcher = {0};

	strlcpy(launcher.bgw_name, "evento launcher", BGW_MAXLEN);
	strlcpy(launcher.bgw_type, "evento launcher", BGW_MAXLEN);
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_ConsistentState;
	launcher.bgw_restart_time = 5;
	strlcpy(launcher.bgw_library_name, EVENTO_LIBRARY, sizeof(launcher.bgw_library_name));
	strlcpy(launcher.bgw_function_name, "evento_launcher_main", sizeof(launcher.bgw_function_name));
	RegisterBackgroundWorker(&launcher);
}
