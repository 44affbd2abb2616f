/*
 * watermark.c
 *	  The watermark that goes with a snapshot: marks in shared memory, and the
 *	  row in evento._watermark.
 *
 * A reader with a snapshot of its own may go up to a watermark that was
 * computed before that snapshot was taken.  The row says which that is: who
 * sees a version of it has the commits that it covers, everywhere and in every
 * isolation level.  But while somebody holds an old snapshot, no version of the
 * row can be removed, and hundreds of them a second would make table and
 * readers slow.  So the worker leaves marks in shared memory as well: a
 * watermark, and a transaction id that had not ended when it was computed.  A
 * snapshot before whose xmax that id lies was taken after that, and may use
 * the watermark.
 *
 * ProcArrayLock is held while a mark is made, so that no transaction ends
 * meanwhile: each snapshot then has the mark from its beginning, or never, and
 * what a transaction is told does not change under it.
 *
 * The row is for standbys, for a server without preload, and for snapshots
 * older than the marks.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "evento.h"

/* Columns of evento._watermark. */
enum
{
	Anum_watermark_singleton = 1,
	Anum_watermark_position,
	Natts_watermark = Anum_watermark_position
};

/*
 * How often the row is written while old snapshots keep all its versions: a
 * page takes some 180.  The first pages are for snapshots that are soon gone;
 * hours of one then cost 40 pages each, and standbys stay near.
 */
#define FEW_PAGES 8
#define FEW_PAGES_MS 100
#define MANY_PAGES 64
#define MANY_PAGES_MS 500

/* What this transaction has been told, where it keeps its snapshot. */
static LocalTransactionId told_lxid = InvalidLocalTransactionId;
static int64 told = 0;

/* ---- marks ---- */

void
evento_marks_init(EventoDb *db)
{
	pg_atomic_init_u64(&db->nmarks, 0);
	for (int i = 0; i < EVENTO_MARKS; i++)
	{
		pg_atomic_init_u64(&db->marks[i].position, 0);
		pg_atomic_init_u32(&db->marks[i].xid, InvalidTransactionId);
		pg_atomic_init_u32(&db->marks[i].sequence, InvalidOid);
	}
}

void
evento_mark_put(EventoDb *db, Oid sequence, int64 watermark)
{
	uint64		n = pg_atomic_read_u64(&db->nmarks);
	EventoMark *mark = &db->marks[n % EVENTO_MARKS];

	TransactionId xid;

	LWLockAcquire(ProcArrayLock, LW_SHARED);
	xid = XidFromFullTransactionId(evento_latest_completed_xid());
	TransactionIdAdvance(xid);
	pg_atomic_write_u64(&mark->position, (uint64) watermark);
	pg_atomic_write_u32(&mark->xid, xid);
	pg_atomic_write_u32(&mark->sequence, sequence);
	pg_write_barrier();
	pg_atomic_write_u64(&db->nmarks, n + 1);
	LWLockRelease(ProcArrayLock);
}

/* The newest mark that a snapshot may use. */
static bool
find_mark(EventoDb *db, Oid sequence, Snapshot snapshot, int64 *watermark)
{
	uint64		n = pg_atomic_read_u64(&db->nmarks);
	uint64		oldest = n > EVENTO_MARKS ? n - EVENTO_MARKS : 0;

	pg_read_barrier();
	for (uint64 i = n; i > oldest; i--)
	{
		EventoMark *mark = &db->marks[(i - 1) % EVENTO_MARKS];
		uint64		position = pg_atomic_read_u64(&mark->position);
		TransactionId xid = pg_atomic_read_u32(&mark->xid);
		Oid			of = pg_atomic_read_u32(&mark->sequence);

		/* The worker is writing, or has written, number nmarks over its place? */
		pg_read_barrier();
		if (pg_atomic_read_u64(&db->nmarks) >= i - 1 + EVENTO_MARKS)
			return false;

		/* Of an extension that has been dropped since: all before it is, too. */
		if (of != sequence)
			return false;
		if (TransactionIdFollows(snapshot->xmax, xid))
		{
			*watermark = (int64) position;
			return true;
		}
	}
	return false;
}

int64
evento_watermark_seen(Snapshot snapshot)
{
	bool		keeps = IsolationUsesXactSnapshot();
	int64		watermark;

	if (keeps && told_lxid == evento_my_lxid())
		return told;
	if (!evento_shmem_ready() || snapshot->takenDuringRecovery || RecoveryInProgress() ||
		!find_mark(evento_db(), evento_rel(EVENTO_REL_POSITIONS), snapshot, &watermark))
		watermark = evento_watermark_row(snapshot);
	if (keeps)
	{
		/* Marks are kept for a while only, what was said of this snapshot has to stay. */
		told = watermark;
		told_lxid = evento_my_lxid();
	}
	return watermark;
}

/* ---- the watermark that was given out ---- */

int64
evento_watermark_published(EventoDb *db, Oid sequence)
{
	uint64		watermark;

	if (pg_atomic_read_u32(&db->published_of) != sequence)
		return 0;
	pg_read_barrier();
	watermark = pg_atomic_read_u64(&db->published);
	pg_read_barrier();
	return pg_atomic_read_u32(&db->published_of) == sequence ? (int64) watermark : 0;
}

void
evento_watermark_publish(EventoDb *db, Oid sequence, int64 before, int64 watermark)
{
	uint64		old = pg_atomic_read_u64(&db->published);

	if (pg_atomic_read_u32(&db->published_of) != sequence)
	{
		pg_atomic_write_u32(&db->published_of, InvalidOid);
		pg_write_barrier();
	}
	else if ((int64) old != before)
		return;

	/* Somebody who appends may just find that the extension is a new one. */
	if (!pg_atomic_compare_exchange_u64(&db->published, &old, (uint64) watermark))
		return;
	pg_write_barrier();
	pg_atomic_write_u32(&db->published_of, sequence);
	evento_stats_add(db, EVENTO_STAT_ADVANCES, 1);
	ConditionVariableBroadcast(&db->advanced);
}

/* ---- the row ---- */

/*
 * Looks for the version that a snapshot sees from where the newest was, and
 * along its successors.  All rows of the table are versions of one: any that
 * is seen is the one.
 */
static bool
find_from_hint(Relation rel, Snapshot snapshot, TupleTableSlot *slot)
{
	uint64		hint = evento_shmem_ready() ? pg_atomic_read_u64(&evento_db()->row_tid) : 0;
	TableScanDesc scan;
	ItemPointerData tid;

	if ((hint & 0xFFFF) == 0 || (hint >> 16) >= RelationGetNumberOfBlocks(rel))
		return false;
	ItemPointerSet(&tid, (BlockNumber) (hint >> 16), (OffsetNumber) (hint & 0xFFFF));
	scan = table_beginscan_tid(rel, snapshot);
	table_tuple_get_latest_tid(scan, &tid);
	table_endscan(scan);
	return table_tuple_fetch_row_version(rel, &tid, snapshot, slot);
}

/* The row as a snapshot sees it.  *tid: where it stands, invalid where there is none. */
static int64
find_row(Relation rel, Snapshot snapshot, ItemPointer tid)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = NULL;
	bool		found = IsMVCCSnapshot(snapshot) && find_from_hint(rel, snapshot, slot);
	int64		watermark = 0;

	if (!found)
	{
		scan = table_beginscan(rel, snapshot, 0, NULL);
		found = table_scan_getnextslot(scan, ForwardScanDirection, slot);
	}
	ItemPointerSetInvalid(tid);
	if (found)
	{
		bool		isnull;

		*tid = slot->tts_tid;
		watermark = DatumGetInt64(slot_getattr(slot, Anum_watermark_position, &isnull));
	}
	ExecDropSingleTupleTableSlot(slot);
	/* What the slot held was the scan's. */
	if (scan != NULL)
		table_endscan(scan);
	return watermark;
}

int64
evento_watermark_row(Snapshot snapshot)
{
	Relation	rel = table_open(evento_rel(EVENTO_REL_WATERMARK), AccessShareLock);
	ItemPointerData tid;
	int64		watermark = find_row(rel, snapshot, &tid);

	table_close(rel, AccessShareLock);
	return watermark;
}

/*
 * Only the worker says where the newest version is: one who has an old
 * snapshot would send everybody down a long chain of versions.
 */
static void
remember_row(EventoDb *db, ItemPointer tid)
{
	if (ItemPointerIsValid(tid))
		pg_atomic_write_u64(&db->row_tid,
							((uint64) ItemPointerGetBlockNumber(tid) << 16) |
							ItemPointerGetOffsetNumber(tid));
}

int64
evento_watermark_follow(EventoDb *db, Snapshot snapshot)
{
	Relation	rel = table_open(evento_rel(EVENTO_REL_WATERMARK), AccessShareLock);
	ItemPointerData tid;
	int64		watermark = find_row(rel, snapshot, &tid);

	remember_row(db, &tid);
	table_close(rel, AccessShareLock);
	return watermark;
}

/* What only the worker knows of the row. */
static ItemPointerData written_at;	/* the version that its transaction has written */
static int	full_pages = 0;		/* left one after the other since nothing in them could be removed */
static TransactionId page_since = InvalidTransactionId; /* who wrote its first version into the page */

/* A version went into the page of its predecessor, or into another. */
static void
watch_pages(Relation rel, bool moved)
{
	bool		stuck;

	if (!moved && full_pages == 0)
		return;
	stuck = TransactionIdIsValid(page_since) &&
		!TransactionIdPrecedes(page_since, GetOldestNonRemovableTransactionId(rel));
	if (!stuck)
		full_pages = 0;
	else if (moved)
		full_pages++;
	if (moved)
		page_since = GetCurrentTransactionId();
}

int
evento_watermark_row_interval(void)
{
	if (full_pages <= FEW_PAGES)
		return 0;
	return full_pages <= MANY_PAGES ? FEW_PAGES_MS : MANY_PAGES_MS;
}

bool
evento_watermark_row_write(int64 watermark, bool wait)
{
	Oid			relid = evento_rel(EVENTO_REL_WATERMARK);
	Relation	rel;
	ItemPointerData old;
	Datum		values[Natts_watermark];
	bool		nulls[Natts_watermark] = {false};
	HeapTuple	row;
	bool		exists;

	if (!wait && !ConditionalLockRelationOid(relid, RowExclusiveLock))
		return false;
	rel = table_open(relid, wait ? RowExclusiveLock : NoLock);
	watermark = Max(watermark, find_row(rel, GetActiveSnapshot(), &old));
	exists = ItemPointerIsValid(&old);
	if (exists)
	{
		/* A scan would do that; who goes straight to a row does not. */
		Buffer		page = ReadBuffer(rel, ItemPointerGetBlockNumber(&old));

		heap_page_prune_opt(rel, page);
		ReleaseBuffer(page);
	}

	values[Anum_watermark_singleton - 1] = BoolGetDatum(true);
	values[Anum_watermark_position - 1] = Int64GetDatum(watermark);
	row = evento_form_row(rel, Natts_watermark, values, nulls);
	evento_row_write(rel, row, exists ? &old : NULL);
	written_at = row->t_self;
	if (exists && ItemPointerIsValid(&written_at))
		watch_pages(rel, ItemPointerGetBlockNumber(&old) != ItemPointerGetBlockNumber(&written_at));
	table_close(rel, NoLock);
	return true;
}

void
evento_watermark_row_written(EventoDb *db)
{
	remember_row(db, &written_at);
}

/* SQL: _watermark_seen().  For the view events; works without preload. */
PG_FUNCTION_INFO_V1(evento_watermark_seen_sql);
Datum
evento_watermark_seen_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(evento_watermark_seen(GetActiveSnapshot()));
}
