/*
 * index.c
 *	  create_index and drop_index: indexes for queries, built beside the appends.
 *
 * CREATE INDEX CONCURRENTLY ends transactions in its middle, which nothing that
 * is called can do.  So a background worker runs it, and the procedure waits
 * for that worker, without a snapshot: the statement waits for all older ones.
 *
 * The two share a segment of memory, an IndexJob.  The worker answers there and
 * goes; where the caller is cancelled or ends, it sends the worker an interrupt.
 * Whatever is left half done the worker takes away itself, and where it cannot
 * (a crash), the next call does.
 *
 * _indexes has a row for every index from before its build.  Builds and drops
 * in a database wait for each other by a lock on that table: two of them on one
 * table would wait for each other's snapshots.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "index_plan.h"

#define LIBRARY "evento"

#define MAX_ERROR_TEXT 1024

typedef enum IndexAnswer
{
	INDEX_NO_ANSWER,			/* the worker has ended before it had one */
	INDEX_DONE,
	INDEX_NOTHING_TO_DO,		/* there already; or, to be dropped, not there */
	INDEX_ERROR
} IndexAnswer;

/* What caller and worker share.  The caller reads the answer once the worker has gone. */
typedef struct IndexJob
{
	Oid			dboid;
	bool		drop;
	int			maintenance_work_mem;
	int			parallel_workers;
	IndexPlan	plan;
	volatile bool cancelled;	/* the caller has gone */
	bool		added;			/* the worker has written the row of _indexes */

	IndexAnswer answer;
	int			sqlstate;
	char		message[MAX_ERROR_TEXT];
	char		detail[MAX_ERROR_TEXT];
	char		hint[MAX_ERROR_TEXT];
} IndexJob;

/* ---- the worker ---- */

static Oid
schema_relation(const char *name)
{
	return get_relname_relid(name, get_namespace_oid(SCHEMA, false));
}

static Oid
relation_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Starts a transaction as the owner of the table; memory is that of the worker.
 * No security context is set: CREATE INDEX CONCURRENTLY ends this transaction
 * and begins others, and outside of transactions there must be none.  What
 * others wrote (expressions of indexes) the statements evaluate in a
 * restricted one of their own, where no SET ROLE leads back to the superuser;
 * event triggers are superusers' own.
 */
static void
begin_as_owner(MemoryContext memory)
{
	Oid			indexes;

	StartTransactionCommand();
	indexes = schema_relation("_indexes");
	if (!OidIsValid(indexes))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("extension \"evento\" is missing or incomplete in this database")));
	SetUserIdAndSecContext(relation_owner(indexes), 0);
	MemoryContextSwitchTo(memory);
}

/* Ends it, as the superuser that the worker is. */
static void
commit_as_owner(MemoryContext memory)
{
	CommitTransactionCommand();
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	MemoryContextSwitchTo(memory);
}

/*
 * Runs a utility statement at top level, as if it had been typed: in a portal,
 * which keeps a snapshot for the event triggers that come behind the last of
 * the statement's own transactions.
 */
static void
run_statement(const char *sql, MemoryContext memory)
{
	PlannedStmt *planned = makeNode(PlannedStmt);
	RawStmt    *raw;
	Portal		portal;

	debug_query_string = sql;
	pgstat_report_activity(STATE_RUNNING, sql);
	begin_as_owner(memory);

	/* The statement outlives the transactions that it ends and begins. */
	raw = linitial_node(RawStmt, pg_parse_query(sql));
	planned->commandType = CMD_UTILITY;
	planned->canSetTag = true;
	planned->utilityStmt = raw->stmt;
	planned->stmt_location = raw->stmt_location;
	planned->stmt_len = raw->stmt_len;

	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, sql, CreateCommandTag(raw->stmt), list_make1(planned), NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	(void) evento_portal_run(portal, None_Receiver);
	PortalDrop(portal, false);
	commit_as_owner(memory);
	pgstat_report_activity(STATE_IDLE, NULL);
	debug_query_string = NULL;
}

/* Changes _indexes; true where a row was. */
static bool
change_row(const char *sql, const char *what, MemoryContext memory)
{
	Oid			types[1] = {TEXTOID};
	Datum		values[1];
	bool		changed;

	begin_as_owner(memory);
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	values[0] = CStringGetTextDatum(what);
	if (SPI_execute_with_args(sql, 1, types, values, NULL, false, 0) < 0)
		elog(ERROR, "could not change _indexes");
	changed = SPI_processed > 0;
	SPI_finish();
	PopActiveSnapshot();
	commit_as_owner(memory);
	return changed;
}

static bool
remember(const IndexPlan *plan, MemoryContext memory)
{
	return change_row("INSERT INTO " SCHEMA "._indexes (what) VALUES ($1) ON CONFLICT DO NOTHING",
					  plan->what, memory);
}

static bool
forget(const IndexPlan *plan, MemoryContext memory)
{
	return change_row("DELETE FROM " SCHEMA "._indexes WHERE what OPERATOR(pg_catalog.=) $1",
					  plan->what, memory);
}

/* Looks for the index.  *valid: whether it can be used. */
static bool
find_index(const IndexPlan *plan, bool *valid, MemoryContext memory)
{
	Oid			index;
	HeapTuple	tuple;
	bool		present = false;

	*valid = false;
	begin_as_owner(memory);
	index = schema_relation(NameStr(plan->name));
	tuple = OidIsValid(index) ? SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index)) : NULL;
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);

		present = true;
		*valid = form->indisvalid && form->indisready && form->indislive;
		ReleaseSysCache(tuple);
	}
	commit_as_owner(memory);
	return present;
}

static void
drop_by_name(const IndexPlan *plan, MemoryContext memory)
{
	run_statement(psprintf("DROP INDEX CONCURRENTLY " SCHEMA ".%s",
						   quote_identifier(NameStr(plan->name))), memory);
}

/* A session's lock stays in shared memory unless it is released. */
static void
end_turn(int code, Datum arg)
{
	LockReleaseSession(DEFAULT_LOCKMETHOD);
}

/*
 * Waits for other builds and drops in this database, without a snapshot, and
 * keeps them off until this process ends, or has an error.
 */
static void
take_turn(MemoryContext memory)
{
	LockRelId	lock = {.dbId = MyDatabaseId};

	begin_as_owner(memory);
	lock.relId = schema_relation("_indexes");
	InvalidateCatalogSnapshot();
	LockRelationIdForSession(&lock, ShareUpdateExclusiveLock);
	commit_as_owner(memory);
}

static IndexAnswer
make_index(IndexJob *job, MemoryContext memory)
{
	const IndexPlan *plan = &job->plan;
	bool		valid;
	bool		present;

	take_turn(memory);
	job->added = remember(plan, memory);
	present = find_index(plan, &valid, memory);
	if (valid)
		return INDEX_NOTHING_TO_DO;
	if (present)
		drop_by_name(plan, memory);
	run_statement(plan->statement, memory);
	if (plan->analyze)
		run_statement(psprintf("ANALYZE " SCHEMA ".%s", plan->table), memory);
	return INDEX_DONE;
}

static IndexAnswer
drop_index(IndexJob *job, MemoryContext memory)
{
	const IndexPlan *plan = &job->plan;
	bool		valid;
	bool		present;

	take_turn(memory);
	present = find_index(plan, &valid, memory);
	if (present)
		drop_by_name(plan, memory);
	return forget(plan, memory) || present ? INDEX_DONE : INDEX_NOTHING_TO_DO;
}

/* Takes away what a build has left that failed. */
static void
clean_up(IndexJob *job, MemoryContext memory)
{
	bool		valid;

	take_turn(memory);
	if (find_index(&job->plan, &valid, memory) && !valid)
		drop_by_name(&job->plan, memory);
	if (job->added && !valid)
		forget(&job->plan, memory);
}

/* Tells the caller what an error says. */
static void
answer_error(IndexJob *job, const ErrorData *error)
{
	job->sqlstate = error->sqlerrcode;
	strlcpy(job->message, error->message ? error->message : "", MAX_ERROR_TEXT);
	strlcpy(job->detail, error->detail ? error->detail : "", MAX_ERROR_TEXT);
	strlcpy(job->hint, error->hint ? error->hint : "", MAX_ERROR_TEXT);
	job->answer = INDEX_ERROR;
}

/* Ends the failed transaction, and gives its error. */
static ErrorData *
take_error(MemoryContext memory)
{
	ErrorData  *error;

	MemoryContextSwitchTo(memory);
	error = CopyErrorData();
	EmitErrorReport();
	FlushErrorState();
	AbortCurrentTransaction();
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	MemoryContextSwitchTo(memory);
	return error;
}

static void
run_job(IndexJob *job, MemoryContext memory)
{
	volatile bool failed = false;

	PG_TRY();
	{
		job->answer = job->drop ? drop_index(job, memory) : make_index(job, memory);
	}
	PG_CATCH();
	{
		answer_error(job, take_error(memory));
		failed = true;
	}
	PG_END_TRY();
	if (!failed || job->drop)
		return;

	/* An interrupt that came late is not meant for this. */
	QueryCancelPending = false;
	PG_TRY();
	{
		clean_up(job, memory);
	}
	PG_CATCH();
	{
		(void) take_error(memory);
	}
	PG_END_TRY();
}

/* A setting for this worker, which the database may have set otherwise. */
static void
set_integer(const char *name, int value)
{
	char		buffer[16];

	snprintf(buffer, sizeof(buffer), "%d", value);
	SetConfigOption(name, buffer, PGC_USERSET, PGC_S_OVERRIDE);
}

void
evento_index_main(Datum arg)
{
	dsm_segment *segment;
	IndexJob   *job;
	MemoryContext memory;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		proc_exit(0);			/* the caller has gone already */
	job = dsm_segment_address(segment);

	BackgroundWorkerInitializeConnectionByOid(job->dboid, InvalidOid, 0);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_OVERRIDE);
	set_integer("lock_timeout", 0);
	if (GetConfigOption("transaction_timeout", true, false) != NULL)	/* new in PostgreSQL 17 */
		set_integer("transaction_timeout", 0);
	set_integer("maintenance_work_mem", job->maintenance_work_mem);
	set_integer("max_parallel_maintenance_workers", job->parallel_workers);

	memory = AllocSetContextCreate(TopMemoryContext, "evento index", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(memory);
	before_shmem_exit(end_turn, (Datum) 0);
	if (!job->cancelled)
		run_job(job, memory);
	dsm_detach(segment);
	proc_exit(0);
}

/* ---- the caller ---- */

/* What the caller leaves to its clean-up. */
typedef struct IndexWait
{
	IndexJob   *job;
	BackgroundWorkerHandle *handle;
} IndexWait;

/* The caller goes, by an error or for good: so does the worker. */
static void
abandon(int code, Datum arg)
{
	IndexWait  *wait = (IndexWait *) DatumGetPointer(arg);
	pid_t		pid;

	wait->job->cancelled = true;
	switch (GetBackgroundWorkerPid(wait->handle, &pid))
	{
		case BGWH_STARTED:
			kill(pid, SIGINT);
			break;
		case BGWH_NOT_YET_STARTED:
			TerminateBackgroundWorker(wait->handle);
			break;
		default:
			break;
	}
}

static BackgroundWorkerHandle *
start_index_worker(dsm_segment *segment, const IndexPlan *plan)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;

	snprintf(worker.bgw_name, BGW_MAXLEN, "evento index %s", NameStr(plan->name));
	strlcpy(worker.bgw_type, "evento index", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, LIBRARY, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "evento_index_main", sizeof(worker.bgw_function_name));
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(segment));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free to build an index"),
				 errhint("Raise max_worker_processes and restart the server.")));
	return handle;
}

static void
raise_answer(const IndexJob *job)
{
	switch (job->answer)
	{
		case INDEX_DONE:
			break;
		case INDEX_NOTHING_TO_DO:
			ereport(NOTICE,
					(errmsg(job->drop ? "there is no index on \"%s\", skipping" :
							"index on \"%s\" already exists, skipping", job->plan.what)));
			break;
		case INDEX_NO_ANSWER:
			ereport(ERROR,
					(errcode(ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("the background worker for the index on \"%s\" has ended early", job->plan.what),
					 errhint("The server log may say why. Repeat the CALL, which also takes away what is left.")));
			break;
		case INDEX_ERROR:
			ereport(ERROR,
					(errcode(job->sqlstate),
					 errmsg_internal("%s", job->message),
					 job->detail[0] != '\0' ? errdetail_internal("%s", job->detail) : 0,
					 job->hint[0] != '\0' ? errhint("%s", job->hint) : 0,
					 errcontext("background worker for the index on \"%s\"", job->plan.what)));
			break;
	}
}

/*
 * Has a worker make or drop an index, and waits for its end.  False where there
 * was nothing to do, with a NOTICE; raises what the worker raised.
 */
static bool
have_done(const IndexPlan *plan, bool drop)
{
	dsm_segment *segment = dsm_create(sizeof(IndexJob), 0);
	IndexJob   *job = dsm_segment_address(segment);
	IndexWait	wait;
	BgwHandleStatus status;
	bool		done;

	memset(job, 0, sizeof(*job));
	job->dboid = MyDatabaseId;
	job->drop = drop;
	job->maintenance_work_mem = maintenance_work_mem;
	job->parallel_workers = max_parallel_maintenance_workers;
	job->plan = *plan;
	job->answer = INDEX_NO_ANSWER;

	/* Before the worker looks whom to wait for: this session would be among them, and it waits for the worker. */
	evento_release_snapshots();
	wait.job = job;
	wait.handle = start_index_worker(segment, plan);
	PG_ENSURE_ERROR_CLEANUP(abandon, PointerGetDatum(&wait));
	{
		status = WaitForBackgroundWorkerShutdown(wait.handle);
	}
	PG_END_ENSURE_ERROR_CLEANUP(abandon, PointerGetDatum(&wait));
	if (status == BGWH_POSTMASTER_DIED)
		ereport(FATAL,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("the postmaster has died")));
	EnsurePortalSnapshotExists();
	raise_answer(job);
	done = job->answer == INDEX_DONE;
	dsm_detach(segment);
	return done;
}

/* The worker waits for whoever uses the table; not for this session. */
static void
check_holds_no_lock(void)
{
	static const EventoRel tables[] = {EVENTO_REL_EVENTS, EVENTO_REL_STREAMS};

	for (int i = 0; i < lengthof(tables); i++)
	{
		Relation	rel = RelationIdGetRelation(evento_rel(tables[i]));
		bool		held;

		if (!RelationIsValid(rel))
			continue;
		held = CheckRelationLockedByMe(rel, AccessShareLock, true);
		RelationClose(rel);
		if (held)
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("an index cannot be built or dropped in a transaction that has used the log"),
					 errhint("COMMIT first.")));
	}
}

/* The view indexes knows what there should be and is not: a list of text. */
static List *
missing_indexes(void)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *missing = NIL;

	SPI_connect();
	if (SPI_execute("SELECT i.what FROM " SCHEMA ".indexes i WHERE NOT i.valid", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the view indexes");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		what = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		missing = lappend(missing, DatumGetTextPCopy(what));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return missing;
}

static void
check_may_change(FunctionCallInfo fcinfo, const char *what)
{
	evento_check_write(what);
	evento_check_not_atomic(fcinfo, what);
	check_holds_no_lock();
}

/* SQL: CALL create_index(what) */
PG_FUNCTION_INFO_V1(evento_create_index);
Datum
evento_create_index(PG_FUNCTION_ARGS)
{
	IndexPlan	plan;
	List	   *whats;
	ListCell   *cell;

	check_may_change(fcinfo, "evento.create_index()");
	whats = PG_ARGISNULL(0) ? missing_indexes() : list_make1(PG_GETARG_TEXT_PP(0));
	foreach(cell, whats)
	{
		evento_plan_index((text *) lfirst(cell), &plan);
		if (have_done(&plan, false) && PG_ARGISNULL(0))
			ereport(NOTICE, (errmsg("built the index on \"%s\"", plan.what)));
	}
	PG_RETURN_VOID();
}

/* SQL: CALL drop_index(what) */
PG_FUNCTION_INFO_V1(evento_drop_index);
Datum
evento_drop_index(PG_FUNCTION_ARGS)
{
	IndexPlan	plan;

	check_may_change(fcinfo, "evento.drop_index()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("what must not be NULL")));
	evento_plan_index(PG_GETARG_TEXT_PP(0), &plan);
	(void) have_done(&plan, true);
	PG_RETURN_VOID();
}
