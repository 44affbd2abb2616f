/*
 * catalog.c
 *	  Finds the extension's relations, streams by name or number, heads of
 *	  streams, event ids within a stream, and locks of commands.
 *
 * The OIDs of the relations are found by name once and kept until a relcache
 * invalidation names one of them.  That they are absent is never kept, so a
 * CREATE EXTENSION is seen without more.
 *
 * Lookups go straight to the index: no SPI, no planner.  Locks on relations
 * are kept until the end of the transaction, as the executor keeps them; the
 * next lookup of the same transaction then finds them in the local lock table.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/itup.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "evento.h"

#define EVENTO_SCHEMA "evento"

/* Columns of the index (stream_no, version) INCLUDE (id). */
enum
{
	Anum_index_stream_no = 1,
	Anum_index_version,
	Anum_index_id
};

static const char *const rel_names[EVENTO_REL_COUNT] = {
	[EVENTO_REL_EVENTS] = "_events",
	[EVENTO_REL_EVENTS_POSITION] = "_events_position",
	[EVENTO_REL_EVENTS_STREAM] = "_events_stream",
	[EVENTO_REL_STREAMS] = "_streams",
	[EVENTO_REL_STREAMS_PKEY] = "_streams_pkey",
	[EVENTO_REL_STREAMS_NAME] = "_streams_name_key",
	[EVENTO_REL_SNAPSHOTS] = "_snapshots",
	[EVENTO_REL_SNAPSHOTS_PKEY] = "_snapshots_pkey",
	[EVENTO_REL_POSITIONS] = "_positions",
	[EVENTO_REL_IDENTITY] = "_identity",
	[EVENTO_REL_JUMPS] = "_jumps",
	[EVENTO_REL_WATERMARK] = "_watermark",
	[EVENTO_REL_LOCKS] = "_locks",
	[EVENTO_REL_LOCKS_PKEY] = "_locks_pkey"
};

static Oid	rel_oids[EVENTO_REL_COUNT];
static bool rel_oids_valid = false;
static uint32 invalidations = 0;	/* that came in so far, of any relation */

/*
 * An invalidation of one of our relations (dropped, renamed, rebuilt), or of
 * everything, makes us look again.
 */
static void
on_relcache_invalidation(Datum arg, Oid relid)
{
	invalidations++;
	if (!rel_oids_valid)
		return;
	if (!OidIsValid(relid))
	{
		rel_oids_valid = false;
		return;
	}
	for (int i = 0; i < EVENTO_REL_COUNT; i++)
	{
		if (rel_oids[i] == relid)
		{
			rel_oids_valid = false;
			return;
		}
	}
}

/*
 * Fills the cache.  Gives the name of the first thing that is missing, or
 * NULL where all are there.
 */
static const char *
load_rel_oids(void)
{
	static bool registered = false;
	Oid			schema;
	Oid			found[EVENTO_REL_COUNT];
	uint32		before;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(on_relcache_invalidation, (Datum) 0);
		registered = true;
	}

	/* What is found counts only if nothing changed while it was looked for. */
	do
	{
		before = invalidations;
		schema = get_namespace_oid(EVENTO_SCHEMA, true);
		if (!OidIsValid(schema))
			return EVENTO_SCHEMA;
		for (int i = 0; i < EVENTO_REL_COUNT; i++)
		{
			found[i] = get_relname_relid(rel_names[i], schema);
			if (!OidIsValid(found[i]))
				return rel_names[i];
		}
	} while (before != invalidations);

	memcpy(rel_oids, found, sizeof(rel_oids));
	rel_oids_valid = true;
	return NULL;
}

/*
 * OID of a relation of the extension.  Needs a transaction.  Raises
 * undefined_table where this database has not got the extension.
 */
Oid
evento_rel(EventoRel rel)
{
	Assert(rel >= 0 && rel < EVENTO_REL_COUNT);

	if (unlikely(!rel_oids_valid))
	{
		const char *missing = load_rel_oids();

		if (missing != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("extension \"evento\" is missing or incomplete in this database"),
					 errdetail("There is no \"%s\".", missing),
					 errhint("Run CREATE EXTENSION evento.")));
	}
	return rel_oids[rel];
}

/*
 * True where this database has the extension, with all its relations.  Needs
 * a transaction.
 */
bool
evento_installed(void)
{
	/* The schema alone proves nothing: anyone may have made one. */
	return rel_oids_valid ||
		(OidIsValid(get_extension_oid("evento", true)) && load_rel_oids() == NULL);
}

/* A page of _streams whose LSN a lookup has read. */
typedef struct CheckedPage
{
	BlockNumber block;
	XLogRecPtr	lsn;			/* invalid: it has not */
} CheckedPage;

#define CHECKED_PAGES 128

struct EventoLookup
{
	Snapshot	snapshot;
	uint64		serial;			/* of this session's lookups */
	MemoryContext context;		/* that it was begun in; scans are opened there */
	/* _streams: opened by the first lookup that needs them */
	Relation	streams;
	TupleTableSlot *stream_slot;
	Relation	name_index;
	IndexScanDesc name_scan;
	Relation	no_index;
	IndexScanDesc no_scan;
	/* _events, by stream and version */
	Relation	events;
	TupleTableSlot *event_slot;
	Relation	event_index;
	IndexScanDesc event_scan;
	IndexScanDesc id_scan;
	/* _locks, by name */
	Relation	locks;
	TupleTableSlot *lock_slot;
	Relation	lock_index;
	IndexScanDesc lock_scan;
	AttrNumber	fence_column;
	Buffer		vmbuffer;
	CheckedPage pages[CHECKED_PAGES];
};

/*
 * Starts a run of lookups under one snapshot, which must outlive it.  Gives a
 * palloc'd EventoLookup; end it with evento_lookup_end, or let an error do so.
 */
EventoLookup *
evento_lookup_begin(Snapshot snapshot)
{
	static uint64 serials = 0;
	EventoLookup *lookup = palloc0(sizeof(EventoLookup));

	lookup->snapshot = snapshot;
	lookup->serial = ++serials;
	lookup->context = CurrentMemoryContext;
	lookup->vmbuffer = InvalidBuffer;
	return lookup;
}

/* Ends a run of lookups and frees it; locks on relations stay. */
void
evento_lookup_end(EventoLookup *lookup)
{
	if (lookup->name_scan != NULL)
	{
		index_endscan(lookup->name_scan);
		index_close(lookup->name_index, NoLock);
	}
	if (lookup->no_scan != NULL)
	{
		index_endscan(lookup->no_scan);
		index_close(lookup->no_index, NoLock);
	}
	if (lookup->streams != NULL)
	{
		ExecDropSingleTupleTableSlot(lookup->stream_slot);
		table_close(lookup->streams, NoLock);
	}
	if (lookup->lock_scan != NULL)
	{
		index_endscan(lookup->lock_scan);
		ExecDropSingleTupleTableSlot(lookup->lock_slot);
		index_close(lookup->lock_index, NoLock);
		table_close(lookup->locks, NoLock);
	}
	if (lookup->event_scan != NULL)
		index_endscan(lookup->event_scan);
	if (lookup->id_scan != NULL)
		index_endscan(lookup->id_scan);
	if (lookup->events != NULL)
	{
		if (BufferIsValid(lookup->vmbuffer))
			ReleaseBuffer(lookup->vmbuffer);
		ExecDropSingleTupleTableSlot(lookup->event_slot);
		index_close(lookup->event_index, NoLock);
		table_close(lookup->events, NoLock);
	}
	pfree(lookup);
}

/* Opens a scan of _streams over one of its indexes, unless it is open. */
static void
open_streams(EventoLookup *lookup, EventoRel rel, Relation *index, IndexScanDesc *scan)
{
	MemoryContext caller;

	if (*scan != NULL)
		return;
	caller = MemoryContextSwitchTo(lookup->context);
	if (lookup->streams == NULL)
	{
		lookup->streams = table_open(evento_rel(EVENTO_REL_STREAMS), AccessShareLock);
		lookup->stream_slot = table_slot_create(lookup->streams, NULL);
	}
	*index = index_open(evento_rel(rel), AccessShareLock);
	*scan = evento_index_beginscan(lookup->streams, *index, lookup->snapshot, 1);
	MemoryContextSwitchTo(caller);
}

/*
 * Fills stream from the row in the slot and, where name is not NULL, gives the
 * name as a text palloc'd in context.  Empties the slot.
 */
static void
take_stream(EventoLookup *lookup, EventoStream *stream, text **name, MemoryContext context)
{
	TupleTableSlot *slot = lookup->stream_slot;

	slot_getsomeattrs(slot, Anum_stream_tombstone);
	stream->no = DatumGetInt64(slot->tts_values[Anum_stream_no - 1]);
	stream->deleted_version =
		DatumGetInt64(slot->tts_values[Anum_stream_deleted_version - 1]);
	stream->tombstone = DatumGetBool(slot->tts_values[Anum_stream_tombstone - 1]);
	stream->tid = slot->tts_tid;
	if (name != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(context);

		*name = DatumGetTextPCopy(slot->tts_values[Anum_stream_name - 1]);
		MemoryContextSwitchTo(caller);
	}

	/* The page need not stay pinned until the next lookup. */
	ExecClearTuple(slot);
}

/* Looks a single row of _streams up by one key, into the slot. */
static bool
find_stream(EventoLookup *lookup, IndexScanDesc scan, ScanKey key)
{
	index_rescan(scan, key, 1, NULL, 0);
	return index_getnext_slot(scan, ForwardScanDirection, lookup->stream_slot);
}

/*
 * Finds a stream by its name (len bytes, not terminated).  False, and stream
 * untouched, where there is none.
 */
bool
evento_lookup_name(EventoLookup *lookup, const char *name, int len, EventoStream *stream)
{
	ScanKeyData key;
	MemoryContext caller = MemoryContextSwitchTo(lookup->context);
	text	   *value = cstring_to_text_with_len(name, len);
	bool		found;

	open_streams(lookup, EVENTO_REL_STREAMS_NAME, &lookup->name_index, &lookup->name_scan);
	/* ScanKeyInit sets the "C" collation, which is that of the column. */
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(value));
	found = find_stream(lookup, lookup->name_scan, &key);
	if (found)
		take_stream(lookup, stream, NULL, NULL);
	pfree(value);
	MemoryContextSwitchTo(caller);
	return found;
}

/* Looks the row of _streams with a number up, into the slot. */
static bool
find_stream_no(EventoLookup *lookup, int64 no)
{
	MemoryContext caller = MemoryContextSwitchTo(lookup->context);
	ScanKeyData key;
	bool		found;

	open_streams(lookup, EVENTO_REL_STREAMS_PKEY, &lookup->no_index, &lookup->no_scan);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(no));
	found = find_stream(lookup, lookup->no_scan, &key);
	MemoryContextSwitchTo(caller);
	return found;
}

/* ---- streams that this session knows ---- */

/*
 * A row of _streams as it was looked up last.  For the same lookup it stands:
 * that has one snapshot.  A later one, whose snapshot is a newer one, may use
 * it as long as the page has the LSN that it had: then nothing has happened to
 * the row, by whatever way, here or on a standby.  That is only noted of a row
 * whose writer had committed, and that nobody was about to replace.
 */
typedef struct KnownStream
{
	EventoKnownStream stream;	/* no is 0 where there is nothing; name and category are one piece of memory */
	uint64		lookup;			/* serial of the lookup that has found or checked it */
	XLogRecPtr	lsn;			/* of the page; invalid: for later lookups it does not count */
	BlockNumber block;
	Buffer		buffer;			/* where the page was */
} KnownStream;

/* An entry is a cache line of most machines; a session that reads all has two MB of them. */
#define KNOWN_WAYS 4
#define KNOWN_SETS 8192

typedef struct KnownSet
{
	KnownStream ways[KNOWN_WAYS];
} KnownSet;

static KnownSet *known_sets = NULL;

static KnownSet *
known_set(int64 no)
{
	if (unlikely(known_sets == NULL))
		known_sets = MemoryContextAllocZero(TopMemoryContext, KNOWN_SETS * sizeof(KnownSet));
	return &known_sets[murmurhash32((uint32) no ^ (uint32) (no >> 32)) % KNOWN_SETS];
}

/* The LSN that a page of _streams has now; invalid where it is no longer in that buffer. */
static XLogRecPtr
page_lsn(EventoLookup *lookup, BlockNumber block, Buffer buffer)
{
	CheckedPage *page = &lookup->pages[block % CHECKED_PAGES];

	/* Many of its streams come by in one lookup. */
	if (page->block != block || XLogRecPtrIsInvalid(page->lsn))
	{
		page->block = block;
		page->lsn = InvalidXLogRecPtr;
		if (ReadRecentBuffer(evento_rel_locator(lookup->streams), MAIN_FORKNUM, block, buffer))
		{
			page->lsn = BufferGetLSNAtomic(buffer);
			ReleaseBuffer(buffer);
		}
	}
	return page->lsn;
}

/* Whether what is known still holds for a snapshot that is newer. */
static bool
still_holds(EventoLookup *lookup, const KnownStream *known)
{
	return !XLogRecPtrIsInvalid(known->lsn) &&
		page_lsn(lookup, known->block, known->buffer) == known->lsn;
}

/* Notes the row in the slot of a lookup, and empties the slot. */
static void
make_known(EventoLookup *lookup, KnownStream *known)
{
	TupleTableSlot *slot = lookup->stream_slot;
	BufferHeapTupleTableSlot *heap_slot = (BufferHeapTupleTableSlot *) slot;
	EventoStream row;
	text	   *name;
	char	   *dash;
	int			len;
	int			category_len;
	XLogRecPtr	lsn = BufferGetLSNAtomic(heap_slot->buffer);
	char	   *texts;
	uint16		infomask;

	/* A change sets the bits first, and the LSN then. */
	pg_read_barrier();
	infomask = ((volatile HeapTupleHeaderData *) heap_slot->base.tuple->t_data)->t_infomask;
	known->stream.no = 0;
	known->lsn = InvalidXLogRecPtr;
	if ((infomask & HEAP_XMIN_COMMITTED) != 0 && (infomask & HEAP_XMAX_INVALID) != 0 &&
		RelationNeedsWAL(lookup->streams))
		known->lsn = lsn;
	known->block = BufferGetBlockNumber(heap_slot->buffer);
	known->buffer = heap_slot->buffer;

	take_stream(lookup, &row, &name, lookup->context);
	len = VARSIZE_ANY_EXHDR(name);
	dash = memchr(VARDATA_ANY(name), '-', len);
	category_len = dash == NULL ? len : dash - VARDATA_ANY(name);

	if (known->stream.name != NULL)
		pfree(known->stream.name);
	known->stream.name = NULL;
	texts = MemoryContextAlloc(TopMemoryContext,
							   MAXALIGN(VARHDRSZ + len) + VARHDRSZ + category_len);
	known->stream.name = (text *) texts;
	SET_VARSIZE(known->stream.name, VARHDRSZ + len);
	memcpy(VARDATA(known->stream.name), VARDATA_ANY(name), len);
	known->stream.category = (text *) (texts + MAXALIGN(VARHDRSZ + len));
	SET_VARSIZE(known->stream.category, VARHDRSZ + category_len);
	memcpy(VARDATA(known->stream.category), VARDATA_ANY(name), category_len);
	pfree(name);
	known->stream.deleted_version = row.deleted_version;
	known->lookup = lookup->serial;
	known->stream.no = row.no;
}

/*
 * What there is to know of a stream for readers; NULL where there is none.
 * newest: the snapshot of the lookup is newer than every earlier one of this
 * session.  What it gives is good until the next call.
 */
const EventoKnownStream *
evento_lookup_known(EventoLookup *lookup, int64 no, bool newest)
{
	KnownSet   *set = known_set(no);
	KnownStream *known = NULL;

	for (int i = 0; i < KNOWN_WAYS && known == NULL; i++)
	{
		if (set->ways[i].stream.no == no)
			known = &set->ways[i];
	}
	if (known != NULL && known->lookup == lookup->serial)
		return &known->stream;

	if (lookup->no_scan == NULL)
		open_streams(lookup, EVENTO_REL_STREAMS_PKEY, &lookup->no_index, &lookup->no_scan);
	if (known != NULL && newest && still_holds(lookup, known))
	{
		known->lookup = lookup->serial;
		return &known->stream;
	}

	/* In its place, or in that of the one that was not wanted for the longest time. */
	for (int i = 0; i < KNOWN_WAYS && (known == NULL || known->stream.no != no); i++)
	{
		if (known == NULL || set->ways[i].lookup < known->lookup)
			known = &set->ways[i];
	}
	if (!find_stream_no(lookup, no))
		return NULL;
	make_known(lookup, known);
	return &known->stream;
}

/* Opens a scan of _events by stream and version, with a number of keys, unless it is open. */
static void
open_events(EventoLookup *lookup, IndexScanDesc *scan, int nkeys)
{
	if (*scan != NULL)
		return;
	if (lookup->events == NULL)
	{
		lookup->events = table_open(evento_rel(EVENTO_REL_EVENTS), AccessShareLock);
		lookup->event_slot = table_slot_create(lookup->events, NULL);
		lookup->event_index = index_open(evento_rel(EVENTO_REL_EVENTS_STREAM),
										 AccessShareLock);
	}
	*scan = evento_index_beginscan(lookup->events, lookup->event_index, lookup->snapshot,
								   nkeys);

	/*
	 * Asking for the index tuple makes the scan keep its pin on the leaf page,
	 * so that the heap line an entry points to cannot be given to another row
	 * while the entry is looked at: that is needed for snapshots that are not
	 * MVCC.
	 */
	(*scan)->xs_want_itup = true;
}

/*
 * Starts a walk over the versions of a stream, newest first, in the index
 * alone.
 */
static void
walk_begin(EventoLookup *lookup, int64 no)
{
	ScanKeyData key;

	open_events(lookup, &lookup->event_scan, 1);
	ScanKeyInit(&key, Anum_index_stream_no, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(no));
	index_rescan(lookup->event_scan, &key, 1, NULL, 0);
}

/* The next entry, visible or not; its columns are in the scan's xs_itup. */
static bool
walk_next(EventoLookup *lookup)
{
	CHECK_FOR_INTERRUPTS();
	return index_getnext_tid(lookup->event_scan, BackwardScanDirection) != NULL;
}

/* Whether the snapshot sees the row of the entry that the walk stands on. */
static bool
walk_visible(EventoLookup *lookup)
{
	IndexScanDesc scan = lookup->event_scan;
	bool		visible;

	if (VM_ALL_VISIBLE(lookup->events, ItemPointerGetBlockNumber(&scan->xs_heaptid),
					   &lookup->vmbuffer))
		return true;
	visible = index_fetch_heap(scan, lookup->event_slot);
	ExecClearTuple(lookup->event_slot);
	return visible;
}

static int64
walk_version(EventoLookup *lookup)
{
	IndexScanDesc scan = lookup->event_scan;
	bool		isnull;

	return DatumGetInt64(index_getattr(scan->xs_itup, Anum_index_version,
									   scan->xs_itupdesc, &isnull));
}

/* The event id in the entry that a scan stands on. */
static pg_uuid_t *
scan_id(IndexScanDesc scan)
{
	bool		isnull;

	return DatumGetUUIDP(index_getattr(scan->xs_itup, Anum_index_id,
									   scan->xs_itupdesc, &isnull));
}

/*
 * Version of the newest event of a stream that the snapshot sees, hidden or
 * not; 0 where there is none.
 */
int64
evento_lookup_head(EventoLookup *lookup, int64 no)
{
	MemoryContext caller = MemoryContextSwitchTo(lookup->context);
	int64		head = 0;

	walk_begin(lookup, no);
	/* Entries of appends that failed at commit stay until a vacuum. */
	while (head == 0 && walk_next(lookup))
	{
		if (walk_visible(lookup))
			head = walk_version(lookup);
	}
	MemoryContextSwitchTo(caller);
	return head;
}

/*
 * Looks for an event id among the newest window versions of a stream; gives
 * its version, or 0.
 */
int64
evento_lookup_id(EventoLookup *lookup, int64 no, const pg_uuid_t *id, int window)
{
	MemoryContext caller = MemoryContextSwitchTo(lookup->context);
	int64		oldest = 0;		/* 0 until the first visible entry has said it */
	int64		found = 0;

	walk_begin(lookup, no);
	while (found == 0 && walk_next(lookup))
	{
		int64		version = walk_version(lookup);

		/*
		 * The window starts at the newest version that is visible: entries
		 * that appends left which failed at commit may stand before it.
		 */
		if (oldest == 0)
		{
			if (!walk_visible(lookup))
				continue;
			oldest = Max(version - window + 1, 1);
			if (memcmp(scan_id(lookup->event_scan), id, UUID_LEN) == 0)
				found = version;
			continue;
		}
		if (version < oldest)
			break;
		/* Visibility may cost a look at the heap: only where the id fits. */
		if (memcmp(scan_id(lookup->event_scan), id, UUID_LEN) == 0 && walk_visible(lookup))
			found = version;
	}
	MemoryContextSwitchTo(caller);
	return found;
}

/*
 * Gives the id of every entry of a stream from a version on, newest first,
 * whether its event is visible or not.
 */
void
evento_lookup_ids(EventoLookup *lookup, int64 no, int64 from,
				  void (*take) (void *arg, const pg_uuid_t *id), void *arg)
{
	MemoryContext caller = MemoryContextSwitchTo(lookup->context);
	ScanKeyData keys[2];

	/* A key for the version, too: with one for the stream alone a scan reads all that it has on a page. */
	open_events(lookup, &lookup->id_scan, 2);
	ScanKeyInit(&keys[0], Anum_index_stream_no, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(no));
	ScanKeyInit(&keys[1], Anum_index_version, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(from));
	index_rescan(lookup->id_scan, keys, 2, NULL, 0);
	while (index_getnext_tid(lookup->id_scan, BackwardScanDirection) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		take(arg, scan_id(lookup->id_scan));
	}
	MemoryContextSwitchTo(caller);
}

/* Whether _locks has a row of a name: any, or the one with this fence. */
bool
evento_lookup_lock(EventoLookup *lookup, const char *name, int len, bool any, int64 fence)
{
	MemoryContext caller = MemoryContextSwitchTo(lookup->context);
	text	   *value = cstring_to_text_with_len(name, len);
	ScanKeyData key;
	bool		found = false;

	if (lookup->lock_scan == NULL)
	{
		lookup->locks = table_open(evento_rel(EVENTO_REL_LOCKS), AccessShareLock);
		lookup->lock_slot = table_slot_create(lookup->locks, NULL);
		lookup->lock_index = index_open(evento_rel(EVENTO_REL_LOCKS_PKEY), AccessShareLock);
		lookup->fence_column = get_attnum(RelationGetRelid(lookup->locks), "fence");
		lookup->lock_scan = evento_index_beginscan(lookup->locks, lookup->lock_index,
												   lookup->snapshot, 1);
	}
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(value));
	index_rescan(lookup->lock_scan, &key, 1, NULL, 0);
	while (!found && index_getnext_slot(lookup->lock_scan, ForwardScanDirection, lookup->lock_slot))
	{
		bool		isnull;
		Datum		held = slot_getattr(lookup->lock_slot, lookup->fence_column, &isnull);

		CHECK_FOR_INTERRUPTS();
		found = any || (!isnull && DatumGetInt64(held) == fence);
	}
	ExecClearTuple(lookup->lock_slot);
	pfree(value);
	MemoryContextSwitchTo(caller);
	return found;
}

/* A single evento_lookup_name. */
bool
evento_stream_by_name(const char *name, int len, Snapshot snapshot, EventoStream *stream)
{
	EventoLookup *lookup = evento_lookup_begin(snapshot);
	bool		found = evento_lookup_name(lookup, name, len, stream);

	evento_lookup_end(lookup);
	return found;
}

/* Is there a stream with a number? */
bool
evento_stream_no_exists(int64 no, Snapshot snapshot)
{
	EventoLookup *lookup = evento_lookup_begin(snapshot);
	bool		found = find_stream_no(lookup, no);

	evento_lookup_end(lookup);
	return found;
}

/* A single evento_lookup_head. */
int64
evento_stream_head(int64 no, Snapshot snapshot)
{
	EventoLookup *lookup = evento_lookup_begin(snapshot);
	int64		head = evento_lookup_head(lookup, no);

	evento_lookup_end(lookup);
	return head;
}

/* A single evento_lookup_id. */
int64
evento_stream_find_id(int64 no, const pg_uuid_t *id, int window, Snapshot snapshot)
{
	EventoLookup *lookup = evento_lookup_begin(snapshot);
	int64		version = evento_lookup_id(lookup, no, id, window);

	evento_lookup_end(lookup);
	return version;
}
