/*
 * shmem.c
 *	  Shared memory: one state per database, one slot per backend.
 *
 * Shared memory belongs to the cluster, a log to a database: each database
 * that uses the extension has an EventoDb, found once per session.  The
 * tranche's lock protects which EventoDb is whose, and what its worker last
 * failed of, nothing else; it is held over a few loads and stores, none of
 * which can raise.  The rest is atomics.
 *
 * Slots are indexed by the number of the process, so a backend finds its own
 * without a search, and a slot outlives its process without harm: it is empty
 * whenever its process is not committing appends.
 */
#include "postgres.h"

#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "evento.h"

#define TRANCHE_NAME "evento"

typedef struct EventoShared
{
	LWLock	   *lock;			/* protects EventoDb.dboid and worker_error */
	pg_atomic_uint32 epochs;	/* last that was given to EventoDb.heads_epoch */
	pg_atomic_uint32 launcher;	/* proc number + 1 of the launcher; 0: none */
	pg_atomic_uint32 launcher_woken;	/* it has been told to look */
	int			ndbs;
	int			nslots;
} EventoShared;

static EventoShared *shared = NULL;
static EventoDb *dbs = NULL;
static EventoSlot *slots = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static Size
dbs_offset(void)
{
	return CACHELINEALIGN(sizeof(EventoShared));
}

static Size
slots_offset(void)
{
	return CACHELINEALIGN(add_size(dbs_offset(), mul_size(evento_max_databases, sizeof(EventoDb))));
}

static Size
shmem_size(void)
{
	/* One line more, so that the slots can start on one. */
	return add_size(add_size(slots_offset(), PG_CACHE_LINE_SIZE),
					mul_size(MaxBackends, sizeof(EventoSlot)));
}

static void
on_shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(add_size(shmem_size(), evento_heads_size()));
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

static void
init_db(EventoDb *db, Oid dboid)
{
	db->incarnation = InvalidOid;
	pg_atomic_init_u64(&db->published, 0);
	pg_atomic_init_u32(&db->published_of, InvalidOid);
	pg_atomic_init_u32(&db->waiters, 0);
	pg_atomic_init_u32(&db->waiting, 0);
	pg_atomic_init_u32(&db->worker, 0);
	pg_atomic_init_u32(&db->worker_pid, 0);
	pg_atomic_init_u32(&db->worker_wanted, 0);
	pg_atomic_init_u32(&db->worker_trouble, EVENTO_TROUBLE_NONE);
	pg_atomic_init_u32(&db->worker_failing, 0);
	pg_atomic_init_u64(&db->worker_since, 0);
	db->worker_error[0] = '\0';
	db->worker_error_at = 0;
	pg_atomic_init_u64(&db->keep_off_until, 0);
	pg_atomic_init_u64(&db->proxies_since, 0);
	pg_atomic_init_u32(&db->heads_epoch, pg_atomic_add_fetch_u32(&shared->epochs, 1));
	pg_atomic_init_u32(&db->seeded, InvalidOid);
	pg_atomic_init_u64(&db->counter, 0);
	pg_atomic_init_u64(&db->reserved, 0);
	pg_atomic_init_u32(&db->wake, 0);
	pg_atomic_init_u64(&db->row_tid, 0);
	evento_marks_init(db);
	db->stats_since = GetCurrentTimestamp();
	for (int i = 0; i < EVENTO_STAT_COUNT; i++)
		pg_atomic_init_u64(&db->stats[i], 0);
	db->dboid = dboid;
}

static void
on_shmem_startup(void)
{
	bool		found;
	char	   *base;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	base = ShmemInitStruct("evento", shmem_size(), &found);
	shared = (EventoShared *) base;
	dbs = (EventoDb *) (base + dbs_offset());
	slots = (EventoSlot *) CACHELINEALIGN(base + slots_offset());
	if (!found)
	{
		shared->lock = &(GetNamedLWLockTranche(TRANCHE_NAME))->lock;
		pg_atomic_init_u32(&shared->epochs, 0);
		pg_atomic_init_u32(&shared->launcher, 0);
		pg_atomic_init_u32(&shared->launcher_woken, 0);
		shared->ndbs = evento_max_databases;
		shared->nslots = MaxBackends;
		for (int i = 0; i < shared->ndbs; i++)
		{
			ConditionVariableInit(&dbs[i].advanced);
			init_db(&dbs[i], InvalidOid);
		}
		for (int i = 0; i < shared->nslots; i++)
		{
			pg_atomic_init_u64(&slots[i].lower, 0);
			pg_atomic_init_u32(&slots[i].db, 0);
			pg_atomic_init_u32(&slots[i].pid, 0);
		}
	}
	evento_heads_startup();
	LWLockRelease(AddinShmemInitLock);
}

/* Asks for shared memory; only while libraries are preloaded. */
void
evento_shmem_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = on_shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = on_shmem_startup;
}

bool
evento_shmem_ready(void)
{
	return shared != NULL;
}

/* Finds the state of a database, or makes it; the caller holds the lock. */
static EventoDb *
find_db(Oid dboid, bool create)
{
	EventoDb   *unused = NULL;

	for (int i = 0; i < shared->ndbs; i++)
	{
		if (dbs[i].dboid == dboid)
			return &dbs[i];
		if (unused == NULL && !OidIsValid(dbs[i].dboid))
			unused = &dbs[i];
	}
	if (create && unused != NULL)
		init_db(unused, dboid);
	return create ? unused : NULL;
}

/*
 * State of the database this session is connected to.  The first call of a
 * session looks it up, or makes it, and sees to it that it has a worker.
 */
EventoDb *
evento_db(void)
{
	static EventoDb *mine = NULL;

	if (likely(mine != NULL))
		return mine;

	Assert(OidIsValid(MyDatabaseId));
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	mine = find_db(MyDatabaseId, true);
	LWLockRelease(shared->lock);
	if (mine == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases of this server use evento"),
				 errhint("Raise evento.max_databases, which is %d, and restart the server.",
						 evento_max_databases)));
	if (pg_atomic_read_u32(&mine->worker) == 0)
		evento_wake_worker(mine);
	return mine;
}

int
evento_db_index(const EventoDb *db)
{
	return (int) (db - dbs);
}

/* State number index, and whose it is; NULL where it is free or beyond the last. */
EventoDb *
evento_db_at(int index, Oid *dboid)
{
	if (index < 0 || index >= shared->ndbs)
	{
		*dboid = InvalidOid;
		return NULL;
	}
	LWLockAcquire(shared->lock, LW_SHARED);
	*dboid = dbs[index].dboid;
	LWLockRelease(shared->lock);
	return OidIsValid(*dboid) ? &dbs[index] : NULL;
}

EventoDb *
evento_db_find(Oid dboid)
{
	EventoDb   *db;

	LWLockAcquire(shared->lock, LW_SHARED);
	db = find_db(dboid, false);
	LWLockRelease(shared->lock);
	return db;
}

/* A dropped database has no sessions, so nobody else looks at its state. */
void
evento_db_forget(Oid dboid)
{
	EventoDb   *db;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	db = find_db(dboid, false);
	if (db != NULL)
		init_db(db, InvalidOid);
	LWLockRelease(shared->lock);
}

void
evento_worker_error_set(EventoDb *db, const char *message)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	if (message == NULL)
		db->worker_error[0] = '\0';
	else
	{
		int			len = pg_mbcliplen(message, strlen(message), EVENTO_ERROR_SIZE - 1);

		memcpy(db->worker_error, message, len);
		db->worker_error[len] = '\0';
		db->worker_error_at = GetCurrentTimestamp();
	}
	LWLockRelease(shared->lock);
	pg_atomic_write_u32(&db->worker_failing, message != NULL);
}

void
evento_worker_error_get(EventoDb *db, char *message, TimestampTz *at)
{
	LWLockAcquire(shared->lock, LW_SHARED);
	memcpy(message, db->worker_error, EVENTO_ERROR_SIZE);
	*at = db->worker_error_at;
	LWLockRelease(shared->lock);
}

void
evento_heads_clear(EventoDb *db)
{
	/* Numbers are not given twice, so a state that is used again needs no care. */
	pg_atomic_write_u32(&db->heads_epoch, pg_atomic_add_fetch_u32(&shared->epochs, 1));
}

EventoSlot *
evento_my_slot(void)
{
	Assert(evento_my_proc_number() >= 0 && evento_my_proc_number() < shared->nslots);
	return &slots[evento_my_proc_number()];
}

EventoSlot *
evento_slots(int *count)
{
	*count = shared->nslots;
	return slots;
}

/* A latch of a process that has gone, or of its successor: a spurious wake-up. */
static void
set_latch_of(uint32 proc)
{
	if (proc != 0)
		SetLatch(&GetPGProcByNumber(proc - 1)->procLatch);
}

/*
 * Whoever sets the flag first sets the latch.  The worker clears the flag
 * before it looks at the slots, so nothing that happened before is missed.
 */
void
evento_wake_worker(EventoDb *db)
{
	uint32		worker = pg_atomic_read_u32(&db->worker);

	if (worker == 0)
	{
		/*
		 * None is running: say so, unless somebody has.  The flag goes first:
		 * one that is retiring looks at it after it has cleared the wish.
		 */
		pg_atomic_exchange_u32(&db->wake, 1);
		if (pg_atomic_exchange_u32(&db->worker_wanted, 1) == 0)
			evento_wake_launcher();
		set_latch_of(pg_atomic_read_u32(&db->worker));
	}
	else if (pg_atomic_exchange_u32(&db->wake, 1) == 0)
		set_latch_of(worker);
}

void
evento_wake_launcher(void)
{
	pg_atomic_exchange_u32(&shared->launcher_woken, 1);
	set_latch_of(pg_atomic_read_u32(&shared->launcher));
}

pg_atomic_uint32 *
evento_launcher_woken(void)
{
	return &shared->launcher_woken;
}

void
evento_set_launcher(uint32 proc)
{
	pg_atomic_write_u32(&shared->launcher, proc);
}

/*
 * SQL: _appending().  Backends of this database between taking positions and
 * the end of their commit.
 */
PG_FUNCTION_INFO_V1(evento_appending);
Datum
evento_appending(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	uint32		mine;

	evento_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	mine = (uint32) evento_db_index(evento_db());

	for (int i = 0; i < shared->nslots; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};
		uint64		lower = pg_atomic_read_u64(&slots[i].lower);

		if (lower == 0)
			continue;
		pg_read_barrier();
		if (pg_atomic_read_u32(&slots[i].db) != mine)
			continue;
		values[0] = Int32GetDatum((int32) pg_atomic_read_u32(&slots[i].pid));
		values[1] = Int64GetDatum((int64) lower);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
