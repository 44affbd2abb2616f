/*
 * dbhook.c
 *	  Commands that want a database to themselves (DROP, RENAME, a copy, a move)
 *	  would fail on our worker's connection: a hook makes it go before.  And the
 *	  end of the extension, of which the worker is told.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"
#include "worker.h"

/* How long a command keeps the worker off at most, and waits for it to go. */
#define KEEP_OFF_MS 60000
#define STOP_MS 5000

/* What follows our hooks: another library's, or the server's own. */
static ProcessUtility_hook_type next_process_utility = NULL;
static object_access_hook_type next_object_access = NULL;

/* This transaction drops the extension, as far as it got; it has done so. */
static bool dropping = false;
static bool dropped = false;

/* Makes the worker of a database go, and stay away; false where there is none. */
static bool
stop_worker(Oid dboid)
{
	EventoDb   *db = evento_db_find(dboid);
	TimestampTz start = GetCurrentTimestamp();
	int			told = 0;

	if (db == NULL)
		return false;
	pg_atomic_write_u64(&db->keep_off_until,
						(uint64) TimestampTzPlusMilliseconds(start, KEEP_OFF_MS));

	/* One that comes later sees that, and goes by itself. */
	pg_memory_barrier();
	while (pg_atomic_read_u32(&db->worker) != 0 &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), STOP_MS))
	{
		int			pid = (int) pg_atomic_read_u32(&db->worker_pid);

		if (pid > 0 && pid != told)
			kill(pid, SIGTERM);
		told = pid;
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

/* ---- the end of the extension ---- */

static void
on_object_access(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (next_object_access != NULL)
		next_object_access(access, class, object, sub, arg);
	if (access == OAT_DROP && class == ExtensionRelationId && evento_shmem_ready() &&
		object == get_extension_oid("evento", true))
		dropping = true;
}

static void
on_xact(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
	{
		dropped = dropping && event == XACT_EVENT_COMMIT;
		dropping = false;
	}
}

/*
 * The worker looks, finds no extension, and goes.  It knows the extension's
 * tables until it is told otherwise, which a transaction does behind the
 * callbacks for its commit and before it lets its locks go.
 */
static void
on_release(ResourceReleasePhase phase, bool commit, bool top_level, void *arg)
{
	EventoDb   *db;

	if (!dropped || !top_level || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	dropped = false;
	db = evento_db_find(MyDatabaseId);
	if (db != NULL && pg_atomic_read_u32(&db->worker) != 0)
		evento_wake_worker(db);
}

/* Installs the hooks. */
void
evento_dbhook_init(void)
{
	next_object_access = object_access_hook;
	object_access_hook = on_object_access;
	RegisterXactCallback(on_xact, NULL);
	RegisterResourceReleaseCallback(on_release, NULL);
	next_process_utility = ProcessUtility_hook ? ProcessUtility_hook : standard_ProcessUtility;
	ProcessUtility_hook = on_process_utility;
}
