/*
 * sequencer.c
 *	  Positions: reserves them durably, publishes who takes which, gives them
 *	  back; and the watermark, which follows from that.
 *
 * The next position is an atomic counter in shared memory.  A backend that is
 * about to commit appends first stores the counter in its slot (a lower bound
 * of what it will take), then takes its positions with one fetch-add; a full
 * barrier stands between.  The slot is emptied when the transaction has become
 * visible or is gone.  So whoever reads the counter first and the slots after
 * it knows of every position taken that may still be uncommitted.
 *
 * A crash takes the counter away.  Every position used by a commit lies below
 * something that nextval on evento._positions has returned before the commit
 * record was written: sequences are in the WAL and do not roll back.  The
 * sequence gives disjoint, rising blocks, the positions themselves come from
 * the counter, so no lock is needed to reserve.
 *
 * After a start, or when rows came in by COPY, the counter is not known and
 * has to be seeded: from the sequence, from the highest position in the table
 * (of any row, dead or alive), and from the watermark that was given out.
 * That happens under a heavyweight lock; whoever loads rows holds it in share
 * mode to the end of its transaction, so seeding waits for what it would miss.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/itup.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"

/* INCREMENT of evento._positions: so many positions one nextval reserves. */
#define POSITIONS_BLOCK 1024

/* Seeding refuses to come nearer than this to the end of bigint. */
#define POSITIONS_SPARE (INT64CONST(1) << 53)

/* Among advisory locks: 1 and 2 are the server's own, this one is ours. */
#define LOCKTAG_CLASS_SEED 0xE7E1

/* Columns of evento._identity and evento._jumps. */
enum
{
	Anum_identity_singleton = 1,
	Anum_identity_system_identifier,
	Anum_identity_database,
	Anum_identity_timeline,
	Natts_identity = Anum_identity_timeline
};
enum
{
	Anum_jumps_jumped_at = 1,
	Anum_jumps_last_position,
	Anum_jumps_next_position,
	Anum_jumps_reason,
	Natts_jumps = Anum_jumps_reason
};

/* What evento._identity says. */
typedef enum Identity
{
	IDENTITY_ABSENT,			/* nobody has appended here */
	IDENTITY_SAME,
	IDENTITY_OTHER				/* a promotion, a restore or a copy */
} Identity;

/*
 * Numbers of proxies, sessions and locks, which nobody may hold twice either.
 * So many are left out where some may have been given that are lost here.
 */
static const char *const number_sequences[] = {"_proxies_proxy_id_seq", "_sessions_seq", "_tickets"};
#define NUMBERS_JUMP (INT64CONST(1) << 32)

/* So many timelines and so long a time count for one jump at most: with the longest it stays within POSITIONS_SPARE. */
#define TIMELINES_MOST 256
#define TIME_MOST (100.0 * 365 * SECS_PER_DAY)

/* A jump grows by its own width in so many seconds. */
#define JUMP_GROWS 1000.0

/* What this transaction has done that its end has to follow up. */
static bool published = false;	/* the slot is taken */
static bool identity_written = false;
static bool rows_changed = false;
static bool jumped = false;

static bool
lock_seeding(LOCKMODE mode, bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, LOCKTAG_CLASS_SEED);
	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock_seeding(LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, LOCKTAG_CLASS_SEED);
	LockRelease(&tag, mode, false);
}

static void
atomic_max(pg_atomic_uint64 *target, uint64 value)
{
	uint64		old = pg_atomic_read_u64(target);

	while (old < value && !pg_atomic_compare_exchange_u64(target, &old, value))
		;
}

/* setval wants a privilege that those who append need not have. */
static void
set_sequence(Oid sequence, int64 next)
{
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	DirectFunctionCall3(setval3_oid, ObjectIdGetDatum(sequence), Int64GetDatum(next),
						BoolGetDatum(false));
	SetUserIdAndSecContext(user, context);
}

/*
 * The next block of the sequence.  What nextval logs goes to disk before any
 * position of the block is used: a commit would see to that, but where the
 * commit fails, readers are told to go past its positions all the same, and
 * after a crash these must not be given to other events.  nextval logs 32
 * blocks at a time, so this costs little.
 */
static int64
next_block(Oid sequence)
{
	XLogRecPtr	before = XactLastRecEnd;
	int64		next = nextval_internal(sequence, false);

	if (XactLastRecEnd != before)
		XLogFlush(XactLastRecEnd);
	return next;
}

/*
 * The highest position that any row of the table has or had, as far as the
 * index remembers; 0 where there is none.
 */
int64
evento_newest_position(void)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_EVENTS), AccessShareLock);
	Relation	index = index_open(evento_rel(EVENTO_REL_EVENTS_POSITION), AccessShareLock);
	IndexScanDesc scan = evento_index_beginscan(heap, index, SnapshotAny, 0);
	int64		newest = 0;

	scan->xs_want_itup = true;
	index_rescan(scan, NULL, 0, NULL, 0);
	if (index_getnext_tid(scan, BackwardScanDirection) != NULL)
	{
		bool		isnull;
		Datum		position = index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull);

		if (!isnull)
			newest = DatumGetInt64(position);
	}
	index_endscan(scan);
	index_close(index, NoLock);
	table_close(heap, NoLock);
	return Max(newest, 0);
}

/* When positions jumped last; 0 where they never have. */
static TimestampTz
last_jump(void)
{
	Relation	rel = table_open(evento_rel(EVENTO_REL_JUMPS), AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, SnapshotSelf, 0, NULL);
	HeapTuple	tuple;
	TimestampTz last = 0;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Datum		values[Natts_jumps];
		bool		nulls[Natts_jumps];

		evento_deform_row(rel, Natts_jumps, tuple, values, nulls);
		last = Max(last, DatumGetTimestampTz(values[Anum_jumps_jumped_at - 1]));
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return last;
}

/*
 * Servers that come from the same one may jump without knowing of each other:
 * two standbys, promoted one after the other to timelines of the same number,
 * or two restores of one dump.  What both know is when the positions jumped
 * last, or else when the server that they belong to was made (its identifier
 * begins with that, in seconds since 1970).  So a jump is the wider the longer
 * ago that is, and who jumps later gets behind what the other gave away.
 */
static double
grown_jumps(uint64 system_identifier)
{
	TimestampTz made = time_t_to_timestamptz((pg_time_t) (system_identifier >> 32));
	TimestampTz jumped_at = last_jump();
	double		seconds = (double) (GetCurrentTimestamp() - Max(made, jumped_at)) / USECS_PER_SEC;

	return Min(Max(seconds, 0), TIME_MOST) / JUMP_GROWS;
}

/*
 * Compares evento._identity with this server.  Where there is a row, *row is a
 * copy of it, for replace_identity; reason says what differs.  *jumps is how
 * many times evento.position_jump positions are to be left out: once for each
 * timeline that was begun since, which may have come from the same backup and
 * have given away the positions behind a jump of its own; and what grown_jumps
 * says.
 */
static Identity
compare_identity(HeapTuple *row, const char **reason, double *jumps)
{
	Relation	rel = table_open(evento_rel(EVENTO_REL_IDENTITY), AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, SnapshotSelf, 0, NULL);
	HeapTuple	tuple = heap_getnext(scan, ForwardScanDirection);
	Identity	identity = IDENTITY_ABSENT;

	*row = NULL;
	*reason = NULL;
	*jumps = 1;
	if (tuple != NULL)
	{
		Datum		values[Natts_identity];
		bool		nulls[Natts_identity];
		int64		timeline;
		char	   *found;
		char		own[32];

		*row = heap_copytuple(tuple);
		evento_deform_row(rel, Natts_identity, tuple, values, nulls);
		found = DatumGetCString(DirectFunctionCall1(numeric_out,
													values[Anum_identity_system_identifier - 1]));
		timeline = DatumGetInt64(values[Anum_identity_timeline - 1]);
		snprintf(own, sizeof(own), UINT64_FORMAT, GetSystemIdentifier());
		identity = IDENTITY_OTHER;
		if (strcmp(found, own) != 0)
			*reason = "another server: a restore or an upgrade";
		else if (!OidIsValid(DatumGetObjectId(values[Anum_identity_database - 1])))
			*reason = "rows that were loaded: a restore";
		else if (DatumGetObjectId(values[Anum_identity_database - 1]) != MyDatabaseId)
			*reason = "another database of this server: a copy";
		else if (timeline != (int64) GetWALInsertionTimeLine())
		{
			*reason = "another timeline: a promotion or a recovery to a point in time";
			*jumps = (double) Min(Max((int64) GetWALInsertionTimeLine() - timeline, 1), TIMELINES_MOST);
		}
		else
			identity = IDENTITY_SAME;
		*jumps += grown_jumps(strtoull(found, NULL, 10));
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return identity;
}

/* Writes this server's identity, in place of the row old where there is one. */
static void
write_identity(HeapTuple old)
{
	Relation	rel = table_open(evento_rel(EVENTO_REL_IDENTITY), RowExclusiveLock);
	Datum		values[Natts_identity];
	bool		nulls[Natts_identity] = {false};
	char		own[32];
	HeapTuple	tuple;

	snprintf(own, sizeof(own), UINT64_FORMAT, GetSystemIdentifier());
	values[Anum_identity_singleton - 1] = BoolGetDatum(true);
	values[Anum_identity_system_identifier - 1] =
		DirectFunctionCall3(numeric_in, CStringGetDatum(own), ObjectIdGetDatum(InvalidOid),
							Int32GetDatum(-1));
	values[Anum_identity_database - 1] = ObjectIdGetDatum(MyDatabaseId);
	values[Anum_identity_timeline - 1] = Int64GetDatum((int64) GetWALInsertionTimeLine());
	tuple = evento_form_row(rel, Natts_identity, values, nulls);
	evento_row_write(rel, tuple, old != NULL ? &old->t_self : NULL);
	table_close(rel, NoLock);

	/* The worker commits asynchronously otherwise. */
	ForceSyncCommit();
	identity_written = true;
}

static void
write_jump(int64 last, int64 next, const char *reason)
{
	Relation	rel = table_open(evento_rel(EVENTO_REL_JUMPS), RowExclusiveLock);
	Datum		values[Natts_jumps];
	bool		nulls[Natts_jumps] = {false};

	values[Anum_jumps_jumped_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_jumps_last_position - 1] = Int64GetDatum(last);
	values[Anum_jumps_next_position - 1] = Int64GetDatum(next);
	values[Anum_jumps_reason - 1] = CStringGetTextDatum(reason);
	evento_row_write(rel, evento_form_row(rel, Natts_jumps, values, nulls), NULL);
	table_close(rel, NoLock);

	ereport(LOG,
			(errmsg("evento: positions of database %u go on at " INT64_FORMAT " after " INT64_FORMAT,
					MyDatabaseId, next, last),
			 errdetail("They belong to %s.", reason)));
}

/*
 * Where the extension was dropped and created again, nothing is left of
 * before.  No slot is in use then: the drop has waited for every append.  The
 * caller holds the seeding lock.
 */
static void
adopt(EventoDb *db, Oid sequence)
{
	if (db->incarnation == sequence)
		return;
	if (OidIsValid(db->incarnation))
	{
		pg_atomic_write_u32(&db->seeded, InvalidOid);
		pg_atomic_write_u64(&db->counter, 0);
		pg_atomic_write_u64(&db->reserved, 0);
		pg_atomic_write_u64(&db->published, 0);
	}
	db->incarnation = sequence;
}

/* Where the jump is rolled back, the sequences stay where they are: no number is missed. */
static void
jump_numbers(Oid positions, double jumps)
{
	Oid			schema = get_rel_namespace(positions);

	for (int i = 0; i < lengthof(number_sequences); i++)
	{
		Oid			sequence = get_relname_relid(number_sequences[i], schema);

		if (OidIsValid(sequence))
			set_sequence(sequence, nextval_internal(sequence, false) + (int64) (jumps * NUMBERS_JUMP));
	}
}

/* Nobody is shown a position from here on before this transaction has ended; it may take some that are not below. */
static void
publish(EventoDb *db, uint64 lower)
{
	EventoSlot *slot = evento_my_slot();

	pg_atomic_write_u32(&slot->db, (uint32) evento_db_index(db));
	pg_atomic_write_u32(&slot->pid, (uint32) MyProcPid);
	pg_write_barrier();
	published = true;
	pg_atomic_write_u64(&slot->lower, lower);
	pg_memory_barrier();
}

/* Seeds the counter; the caller holds the seeding lock. */
static void
seed(EventoDb *db, Oid sequence)
{
	int64		newest = Max(evento_newest_position(), evento_watermark_row(SnapshotSelf));
	int64		next;
	double		jumps;
	HeapTuple	row;
	const char *reason;
	Identity	identity = compare_identity(&row, &reason, &jumps);

	adopt(db, sequence);
	if (newest > PG_INT64_MAX - POSITIONS_SPARE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("positions of evento are used up"),
				 errdetail("The highest is " INT64_FORMAT ".", newest)));

	next = next_block(sequence);
	if (identity == IDENTITY_OTHER)
	{
		set_sequence(sequence, Max(newest, next - 1) + (int64) (jumps * evento_position_jump) + 1);
		next = next_block(sequence);
		jump_numbers(sequence, jumps);
		write_jump(newest, next, reason);

		/* Who reads beyond it finds it on record. */
		if (!published)
			publish(db, (uint64) newest + 1);
	}
	else if (next <= newest)
	{
		set_sequence(sequence, newest + 1);
		next = next_block(sequence);
	}
	if (identity != IDENTITY_SAME)
		write_identity(row);

	/* Both only grow: transactions that took positions before go on undisturbed. */
	atomic_max(&db->reserved, (uint64) next + POSITIONS_BLOCK - 1);
	atomic_max(&db->counter, (uint64) next);
	pg_memory_barrier();
	pg_atomic_write_u32(&db->seeded, sequence);
}

/*
 * The lock is given back at once, except where _identity was written: others
 * may not look at that before this transaction has ended.
 */
static void
seed_for_append(EventoDb *db, Oid sequence)
{
	lock_seeding(ExclusiveLock, true);
	if (pg_atomic_read_u32(&db->seeded) != sequence)
		seed(db, sequence);
	if (!identity_written)
		unlock_seeding(ExclusiveLock);
}

/*
 * Reserves up to a position.  A sequence that was set back (a restore does
 * that, after the rows) is set forward again, by one at a time.
 */
static void
reserve(EventoDb *db, Oid sequence, int64 first, int64 last)
{
	while (pg_atomic_read_u64(&db->reserved) < (uint64) last)
	{
		int64		next = next_block(sequence);

		if (next + POSITIONS_BLOCK <= first)
		{
			lock_seeding(ExclusiveLock, true);
			next = next_block(sequence);
			if (next + POSITIONS_BLOCK <= first)
			{
				set_sequence(sequence, first);
				next = next_block(sequence);
			}
			if (!identity_written)
				unlock_seeding(ExclusiveLock);
		}
		atomic_max(&db->reserved, (uint64) next + POSITIONS_BLOCK - 1);
	}
}

void
evento_numbers_check(void)
{
	EventoDb   *db = evento_db();

	if (unlikely(!evento_positions_known(db)))
		seed_for_append(db, evento_rel(EVENTO_REL_POSITIONS));

	/* A number that somebody was told is on disk, whatever synchronous_commit says. */
	ForceSyncCommit();
}

/* SQL: _numbers_check() */
PG_FUNCTION_INFO_V1(evento_numbers_check_sql);
Datum
evento_numbers_check_sql(PG_FUNCTION_ARGS)
{
	/* Without preload nobody gets a lock or appends. */
	if (evento_shmem_ready() && !RecoveryInProgress())
		evento_numbers_check();
	PG_RETURN_VOID();
}

int64
evento_positions_take(int64 n)
{
	EventoDb   *db = evento_db();
	Oid			sequence = evento_rel(EVENTO_REL_POSITIONS);
	int64		first;

	Assert(n > 0);

	if (unlikely(pg_atomic_read_u32(&db->seeded) != sequence))
		seed_for_append(db, sequence);

	/* Else it has seeded, and is not behind that. */
	if (likely(!published))
		publish(db, pg_atomic_read_u64(&db->counter));
	first = (int64) pg_atomic_fetch_add_u64(&db->counter, n);

	if (unlikely(pg_atomic_read_u64(&db->reserved) < (uint64) (first + n - 1)))
		reserve(db, sequence, first, first + n - 1);
	return first;
}

/*
 * The transaction has become visible, or is gone.  Its slot is emptied before
 * the worker is told to look.
 */
void
evento_positions_end(bool committed)
{
	bool		wake = rows_changed || jumped;

	if (rows_changed)
		evento_heads_clear(evento_db());
	if (identity_written && !committed)
	{
		/* What was seeded stands, but evento._identity does not say so. */
		evento_positions_unknown();
		wake = true;
	}
	if (published)
	{
		pg_memory_barrier();
		pg_atomic_write_u64(&evento_my_slot()->lower, 0);
		wake = true;
	}
	published = false;
	identity_written = false;
	rows_changed = false;
	jumped = false;
	if (wake)
		evento_wake_worker(evento_db());
}

/*
 * A subtransaction of one that wrote evento._identity is gone, and that row may
 * be gone with it.  Who seeds next finds it or writes it again: where it is
 * missing, a promotion would not be told from a log that was never used.
 */
void
evento_positions_abort_sub(void)
{
	if (identity_written)
		evento_positions_unknown();
}

/*
 * A prepared transaction is ended by another session, maybe after a restart:
 * nobody could follow up there what on_xact does for its own.
 */
void
evento_positions_check_prepare(void)
{
	if (identity_written || jumped || rows_changed)
		ereport(ERROR,
				(errcode(ERRCODE_EVENTO_TWO_PHASE),
				 rows_changed ?
				 errmsg("cannot PREPARE a transaction that has changed rows of evento's tables") :
				 errmsg("cannot PREPARE a transaction that has called jump_positions()"),
				 errdetail("What the server knows of positions and streams is brought up to date by the session that commits.")));
}

/* The next append seeds again, and looks into the tables. */
void
evento_positions_unknown(void)
{
	evento_heads_clear(evento_db());
	pg_atomic_exchange_u32(&evento_db()->seeded, InvalidOid);
}

bool
evento_positions_known(EventoDb *db)
{
	return pg_atomic_read_u32(&db->seeded) == evento_rel(EVENTO_REL_POSITIONS);
}

/*
 * What has been taken lies below the counter, what may still be uncommitted
 * not below the slots.  A slot taken after its turn in this scan belongs to
 * positions not below the counter as it was read first.
 */
static int64
compute_watermark(EventoDb *db, uint64 ceiling)
{
	uint32		mine = (uint32) evento_db_index(db);
	uint64		lowest = ceiling;
	EventoSlot *slots;
	int			count;

	pg_memory_barrier();
	slots = evento_slots(&count);
	for (int i = 0; i < count; i++)
	{
		uint64		lower = pg_atomic_read_u64(&slots[i].lower);

		if (lower == 0 || lower >= lowest)
			continue;
		pg_read_barrier();
		if (pg_atomic_read_u32(&slots[i].db) == mine)
			lowest = lower;
	}
	return Max((int64) lowest - 1,
			   evento_watermark_published(db, evento_rel(EVENTO_REL_POSITIONS)));
}

int64
evento_watermark_compute(EventoDb *db)
{
	return compute_watermark(db, pg_atomic_read_u64(&db->counter));
}

/*
 * Where the counter is not known (right after a start), the row is: it says
 * less than could be said, but nothing wrong.
 */
int64
evento_watermark_now(void)
{
	EventoDb   *db = evento_db();

	if (likely(evento_positions_known(db)))
		return evento_watermark_compute(db);
	return evento_watermark_row(GetLatestSnapshot());
}

/*
 * Nothing is seeded where nobody has appended yet: after a restore, the first
 * append finds what _identity then says.  The same where _identity is there and
 * the events are not: a parallel restore loads them in any order, and the jump
 * is to be on record with the last position that came.  All that is in the
 * table can be read all the same, since nobody is loading.
 */
bool
evento_positions_seed(EventoDb *db, int64 *watermark)
{
	Oid			sequence = evento_rel(EVENTO_REL_POSITIONS);

	if (!lock_seeding(ExclusiveLock, false))
		return false;
	adopt(db, sequence);
	if (pg_atomic_read_u32(&db->seeded) != sequence)
	{
		HeapTuple	row;
		const char *reason;
		double		jumps;
		Identity	identity = compare_identity(&row, &reason, &jumps);

		if (identity == IDENTITY_SAME ||
			(identity == IDENTITY_OTHER && evento_newest_position() > 0))
			seed(db, sequence);
	}
	if (pg_atomic_read_u32(&db->seeded) == sequence)
		*watermark = evento_watermark_compute(db);
	else
		*watermark = compute_watermark(db, (uint64) evento_newest_position() + 1);
	if (!identity_written)
		unlock_seeding(ExclusiveLock);
	return true;
}

/*
 * Leaves out width positions, and gives in *last the last one from before.  The sequence goes
 * first, so whoever takes positions meanwhile, on either side of the jump, finds
 * them reserved; the counter only grows, and is exchanged with what was last
 * read, so that no position from before lies behind *last.  The caller holds
 * the seeding lock.
 */
static int64
jump(EventoDb *db, Oid sequence, int64 width, int64 *last)
{
	uint64		old = pg_atomic_read_u64(&db->counter);
	int64		next;
	bool		done = false;

	if ((int64) old > PG_INT64_MAX - POSITIONS_SPARE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("positions of evento are used up"),
				 errdetail("The next is " UINT64_FORMAT ".", old)));
	while (!done)
	{
		next = Max(next_block(sequence), (int64) old);
		set_sequence(sequence, next + width);
		next = next_block(sequence);
		atomic_max(&db->reserved, (uint64) next + POSITIONS_BLOCK - 1);

		/* A small jump may have been overtaken. */
		while (old < (uint64) next && !done)
			done = pg_atomic_compare_exchange_u64(&db->counter, &old, (uint64) next);
	}
	*last = (int64) old - 1;
	return next;
}

/* SQL: jump_positions(reason) */
PG_FUNCTION_INFO_V1(evento_jump_positions);
Datum
evento_jump_positions(PG_FUNCTION_ARGS)
{
	EventoDb   *db;
	Oid			sequence;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false};
	HeapTuple	row;
	const char *reason;
	double		jumps;
	int64		last;
	int64		next;

	evento_check_write("jump_positions()");
	if (PG_ARGISNULL(0) || VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason must not be NULL or empty"),
				 errhint("It is kept in evento._jumps for those who find the gap later.")));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	db = evento_db();
	sequence = evento_rel(EVENTO_REL_POSITIONS);
	lock_seeding(ExclusiveLock, true);
	if (pg_atomic_read_u32(&db->seeded) != sequence)
		seed(db, sequence);
	(void) compare_identity(&row, &reason, &jumps);
	next = jump(db, sequence, (int64) (jumps * evento_position_jump), &last);
	jump_numbers(sequence, jumps);
	if (!identity_written)
		unlock_seeding(ExclusiveLock);
	write_jump(last, next, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	ForceSyncCommit();
	jumped = true;

	values[0] = Int64GetDatum(last);
	values[1] = Int64GetDatum(next);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * Trigger before a statement that changes _events or _streams other than
 * through append: a restore, or a repair by a superuser.  What is cached of
 * streams is void; rows that come into _events may also have positions which
 * the counter has yet to give.
 */
PG_FUNCTION_INFO_V1(evento_events_loaded);
Datum
evento_events_loaded(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function %s has to be called as a trigger", "evento._events_loaded")));

	/* Without preload nobody appends, and a start with it knows nothing yet. */
	if (evento_shmem_ready())
	{
		TriggerData *trigger = (TriggerData *) fcinfo->context;
		EventoDb   *db = evento_db();

		/* For ourselves; again for the others when they can see it. */
		evento_heads_clear(db);
		rows_changed = true;

		if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) &&
			RelationGetRelid(trigger->tg_relation) == evento_rel(EVENTO_REL_EVENTS))
		{
			lock_seeding(ShareLock, true);
			pg_atomic_exchange_u32(&db->seeded, InvalidOid);
		}
	}
	return PointerGetDatum(NULL);
}
