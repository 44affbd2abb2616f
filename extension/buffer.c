/*
 * buffer.c
 *	  What a transaction has appended and not yet written, and its savepoints.
 *
 * Appends check and buffer; rows are written when the transaction commits.
 * Entries (streams this transaction has locked) and events are two stacks: a
 * new element belongs to the running subtransaction, whose ancestors own all
 * that lies below, so the number of the owner never falls from bottom to top.
 * A rollback to a savepoint pops, a release relabels the top.
 *
 * Events are kept as the rows they will be; write.c fills in what is known at
 * PRE_COMMIT only, and writes them.  Rows beyond evento.append_memory go to a
 * temporary file (spill.c): all that are in memory at a time, so that the file
 * has the bottom of the stack and the memory its top.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "buffer.h"

/* Among advisory locks: 1 and 2 are the server's own, these are ours. */
#define LOCKTAG_CLASS_STREAM 0xE7E0
#define LOCKTAG_CLASS_ID 0xE7E2

/* Rows are given memory in blocks of this size at most, but for larger rows. */
#define MAX_ROWS_BLOCK (1024 * 1024)

/* Rows may have so much although the array of events takes all there is. */
#define MIN_ROWS_MEMORY (256 * 1024)

typedef struct EntryRef
{
	const EventoEntry *key;
	EventoEntry *entry;
	char		status;
} EntryRef;

static inline bool
same_name(const EventoEntry *a, const EventoEntry *b)
{
	return a->hash == b->hash && a->kind == b->kind && a->len == b->len &&
		memcmp(a->name, b->name, a->len) == 0;
}

#define SH_PREFIX entries
#define SH_ELEMENT_TYPE EntryRef
#define SH_KEY_TYPE const EventoEntry *
#define SH_KEY key
#define SH_HASH_KEY(tb, key) ((uint32) (key)->hash)
#define SH_EQUAL(tb, a, b) same_name(a, b)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* What this transaction has appended so far; NULL before its first append. */
static AppendBuffer *buffer = NULL;

/* Between PRE_COMMIT and the end: an append would never be written. */
static bool closed = false;

/* ---- entries and locks ---- */

static void
buffer_start(void)
{
	MemoryContext context;

	if (closed)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot append while the transaction is being committed")));
	if (buffer != NULL)
		return;
	context = AllocSetContextCreate(TopTransactionContext, "evento appends",
									ALLOCSET_DEFAULT_SIZES);
	buffer = MemoryContextAllocZero(context, sizeof(AppendBuffer));
	buffer->context = context;
	buffer->rows = AllocSetContextCreate(context, "evento rows", ALLOCSET_DEFAULT_MINSIZE,
										 ALLOCSET_DEFAULT_INITSIZE, MAX_ROWS_BLOCK);
	buffer->newest_streamless = -1;
	buffer->events_rel = evento_rel(EVENTO_REL_EVENTS);
	buffer->by_name = entries_create(context, 128, NULL);
	buffer->heads_epoch = pg_atomic_read_u32(&evento_db()->heads_epoch);
}

static uint64
hash_name(EventoLockKind kind, const char *name, int len)
{
	return hash_bytes_extended((const unsigned char *) name, len, (uint64) kind);
}

static bool
lock_name(EventoLockKind kind, uint64 hash, LOCKMODE mode, bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 kind == EVENTO_LOCK_STREAM ? LOCKTAG_CLASS_STREAM : LOCKTAG_CLASS_ID);
	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

EventoEntry *
evento_buffer_entry(EventoLockKind kind, const char *name, int len, bool wait)
{
	EventoEntry probe = {0};
	EntryRef   *ref;
	EventoEntry *entry;
	bool		found;

	buffer_start();
	probe.kind = kind;
	probe.name = unconstify(char *, name);
	probe.len = len;
	probe.hash = hash_name(kind, name, len);
	ref = entries_lookup(buffer->by_name, &probe);
	if (ref != NULL)
		return ref->entry;

	if (buffer->pending.nentries >= evento_max_streams_per_transaction)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("transaction appends to more than %d streams",
						evento_max_streams_per_transaction),
				 errhint("Append in several transactions, or raise evento.max_streams_per_transaction together with max_locks_per_transaction.")));
	if (!lock_name(kind, probe.hash, ExclusiveLock, wait))
		return NULL;

	if (buffer->pending.nentries == buffer->entries_size)
	{
		int			size = Max(64, buffer->entries_size * 2);

		buffer->pending.entries = buffer->pending.entries == NULL ?
			MemoryContextAlloc(buffer->context, size * sizeof(EventoEntry *)) :
			repalloc(buffer->pending.entries, size * sizeof(EventoEntry *));
		buffer->entries_size = size;
	}
	entry = MemoryContextAllocZero(buffer->context, sizeof(EventoEntry) + len);
	entry->kind = kind;
	entry->name = (char *) (entry + 1);
	memcpy(entry->name, name, len);
	entry->len = len;
	entry->hash = probe.hash;
	entry->subid = GetCurrentSubTransactionId();
	entry->newest = -1;
	ref = entries_insert(buffer->by_name, entry, &found);
	ref->entry = entry;
	buffer->pending.entries[buffer->pending.nentries++] = entry;
	return entry;
}

bool
evento_buffer_share(const char *name, int len)
{
	return lock_name(EVENTO_LOCK_STREAM, hash_name(EVENTO_LOCK_STREAM, name, len),
					 ShareLock, false);
}

/* What the transaction's own snapshot sees must be what is there. */
static void
check_head_visible(const EventoEntry *entry)
{
	Snapshot	snapshot = GetTransactionSnapshot();
	EventoStream seen;
	int64		head = 0;

	if (evento_stream_by_name(entry->name, entry->len, snapshot, &seen))
		head = evento_stream_head(seen.no, snapshot);
	if (head != entry->stored_head)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent append to stream \"%s\"",
						pnstrdup(entry->name, entry->len)),
				 errdetail("The transaction sees version " INT64_FORMAT ", the stream is at " INT64_FORMAT ".",
						   head, entry->stored_head),
				 errhint("Repeat the transaction.")));
}

/*
 * The file of evento._events, for as long as this (sub)transaction keeps the
 * lock on the table.
 */
Oid
evento_buffer_filenode(void)
{
	if (!OidIsValid(buffer->filenode))
	{
		Relation	rel = table_open(evento_rel(EVENTO_REL_EVENTS), AccessShareLock);

		buffer->filenode = rel->rd_rel->relfilenode;
		table_close(rel, NoLock);
	}
	return buffer->filenode;
}

/* Reads from the tables what is stored of a stream. */
static void
read_stored(EventoEntry *entry)
{
	if (buffer->lookup != NULL)
	{
		entry->exists = evento_lookup_name(buffer->lookup, entry->name, entry->len, &entry->row);
		entry->stored_head = entry->exists ? evento_lookup_head(buffer->lookup, entry->row.no) : 0;
	}
	else
	{
		/* Under the lock, SnapshotSelf is what is committed and what we wrote. */
		entry->exists = evento_stream_by_name(entry->name, entry->len, SnapshotSelf, &entry->row);
		entry->stored_head = entry->exists ? evento_stream_head(entry->row.no, SnapshotSelf) : 0;
	}
	if (!entry->exists)
		memset(&entry->row, 0, sizeof(entry->row));
}

void
evento_buffer_load(EventoEntry *entry)
{
	if (entry->loaded)
		return;
	memset(&entry->row, 0, sizeof(entry->row));
	if (!entry->changed &&
		evento_heads_find(evento_db(), evento_buffer_filenode(), entry->hash, entry->name, entry->len,
						  &entry->row.no, &entry->stored_head))
		entry->exists = true;
	else
		read_stored(entry);
	if (IsolationUsesXactSnapshot())
		check_head_visible(entry);
	entry->loaded = true;
}

/*
 * A batch has scans open, which belong to whoever called it.  What writes while
 * it runs, as a function in an index can, would find them, or end them.
 */
void
evento_buffer_check_idle(void)
{
	if (buffer != NULL && buffer->lookup != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot change streams within append_batch()")));
}

void
evento_buffer_lookups_begin(void)
{
	buffer_start();
	buffer->lookup = evento_lookup_begin(SnapshotSelf);
	buffer->lookup_subid = GetCurrentSubTransactionId();
}

void
evento_buffer_lookups_end(void)
{
	evento_lookup_end(buffer->lookup);
	buffer->lookup = NULL;
}

EventoLookup *
evento_buffer_lookup(void)
{
	return buffer->lookup;
}

/* ---- events ---- */

/* Forms the row of an event in the context of rows. */
static HeapTuple
form_event(EventoEntry *entry, int64 version, const EventoNewEvent *event, TimestampTz timestamp)
{
	Relation	rel = table_open(evento_rel(EVENTO_REL_EVENTS), AccessShareLock);
	Datum		values[Natts_event];
	bool		nulls[Natts_event] = {false};
	HeapTuple	tuple;
	MemoryContext caller;
	text	   *parts[5] = {NULL};

	parts[0] = cstring_to_text_with_len(event->type, event->type_len);
	parts[1] = cstring_to_text_with_len(event->context, event->context_len);
	if (event->class_name != NULL)
		parts[2] = cstring_to_text_with_len(event->class_name, event->class_len);
	parts[3] = cstring_to_text_with_len(event->data, event->data_len);
	if (event->metadata != NULL)
		parts[4] = cstring_to_text_with_len(event->metadata, event->metadata_len);

	values[Anum_event_position - 1] = Int64GetDatum(0);
	values[Anum_event_stream_no - 1] = Int64GetDatum(0);
	values[Anum_event_version - 1] = Int64GetDatum(version);
	nulls[Anum_event_stream_no - 1] = nulls[Anum_event_version - 1] = (entry == NULL);
	values[Anum_event_timestamp - 1] = TimestampTzGetDatum(timestamp);
	values[Anum_event_recorded_at - 1] = TimestampTzGetDatum(0);
	values[Anum_event_id - 1] = UUIDPGetDatum(&event->id);
	values[Anum_event_service - 1] = BoolGetDatum(event->service);
	values[Anum_event_force_telemetry - 1] = BoolGetDatum(event->force_telemetry);
	values[Anum_event_type - 1] = PointerGetDatum(parts[0]);
	values[Anum_event_context - 1] = PointerGetDatum(parts[1]);
	values[Anum_event_class - 1] = PointerGetDatum(parts[2]);
	nulls[Anum_event_class - 1] = (parts[2] == NULL);
	values[Anum_event_data - 1] = PointerGetDatum(parts[3]);
	values[Anum_event_metadata - 1] = PointerGetDatum(parts[4]);
	nulls[Anum_event_metadata - 1] = (parts[4] == NULL);

	caller = MemoryContextSwitchTo(buffer->rows);
	tuple = evento_form_row(rel, Natts_event, values, nulls);
	MemoryContextSwitchTo(caller);

	for (int i = 0; i < lengthof(parts); i++)
	{
		if (parts[i] != NULL)
			pfree(parts[i]);
	}
	table_close(rel, NoLock);
	return tuple;
}

/*
 * Puts the rows that are in memory into the file.  Until all are there, an
 * error leaves them in memory, and the next try begins anew.
 */
static void
spill_rows(void)
{
	EventoPending *pending = &buffer->pending;
	int64		end = 0;

	if (pending->spill == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(buffer->context);

		pending->spill = evento_spill_open();
		MemoryContextSwitchTo(caller);
	}
	if (pending->nspilled > 0)
	{
		EventoBuffered *last = &pending->events[pending->nspilled - 1];

		end = last->row.offset + MAXALIGN(last->len);
	}
	evento_spill_cut(pending->spill, end);

	for (int64 i = pending->nspilled; i < pending->nevents; i++)
	{
		static const char padding[MAXIMUM_ALIGNOF] = {0};
		uint32		len = pending->events[i].len;

		CHECK_FOR_INTERRUPTS();
		evento_spill_put(pending->spill, pending->events[i].row.tuple->t_data, len);
		evento_spill_put(pending->spill, padding, MAXALIGN(len) - len);
	}

	for (int64 i = pending->nspilled; i < pending->nevents; i++)
	{
		pending->events[i].row.offset = end;
		end += MAXALIGN(pending->events[i].len);
	}
	pending->nspilled = pending->nevents;
	MemoryContextReset(buffer->rows);
}

/* Makes room for one more event: in the array, and in memory for its row. */
static void
make_room(void)
{
	EventoPending *pending = &buffer->pending;
	Size		limit = (Size) evento_append_memory * 1024;
	Size		array;

	if (pending->nevents == buffer->events_size)
	{
		/* A large one grows by less, as there may be little left. */
		int64		more = Min(buffer->events_size, 16384 + buffer->events_size / 4);
		int64		size = Max(64, buffer->events_size + more);

		pending->events = pending->events == NULL ?
			MemoryContextAlloc(buffer->context, size * sizeof(EventoBuffered)) :
			repalloc_huge(pending->events, size * sizeof(EventoBuffered));
		buffer->events_size = size;
	}

	array = buffer->events_size * sizeof(EventoBuffered);
	limit = limit > array + MIN_ROWS_MEMORY ? limit - array : Min(limit, MIN_ROWS_MEMORY);
	if (unlikely(MemoryContextMemAllocated(buffer->rows, false) > limit) &&
		pending->nspilled < pending->nevents)
		spill_rows();
}

int64
evento_buffer_add(EventoEntry *entry, const EventoNewEvent *event, TimestampTz timestamp)
{
	int64	   *newest;
	EventoBuffered *new;
	HeapTuple	tuple;
	uint64		bytes;
	int64		version;

	Assert(entry == NULL || entry->loaded);
	buffer_start();
	make_room();
	version = entry != NULL ? entry->stored_head + entry->buffered + 1 : 0;

	tuple = form_event(entry, version, event, timestamp);
	bytes = tuple->t_len + sizeof(EventoBuffered);
	if (buffer->bytes + bytes > (uint64) evento_max_transaction_size * 1024)
	{
		heap_freetuple(tuple);
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("transaction appends more than %d kB", evento_max_transaction_size),
				 errhint("Append in several transactions, or raise evento.max_transaction_size.")));
	}
	buffer->bytes += bytes;

	newest = entry != NULL ? &entry->newest : &buffer->newest_streamless;
	new = &buffer->pending.events[buffer->pending.nevents];
	new->row.tuple = tuple;
	new->len = tuple->t_len;
	new->entry = entry;
	new->version = version;
	new->previous = *newest;
	new->id = event->id;
	new->subid = GetCurrentSubTransactionId();
	*newest = buffer->pending.nevents++;
	if (entry != NULL)
		entry->buffered++;
	return version;
}

int64
evento_buffer_find_id(EventoEntry *entry, const pg_uuid_t *id, int window)
{
	int64		at;

	if (buffer == NULL)
		return -1;
	at = entry != NULL ? entry->newest : buffer->newest_streamless;
	for (int i = 0; i < window && at >= 0; i++)
	{
		if (memcmp(&buffer->pending.events[at].id, id, UUID_LEN) == 0)
			return at;
		at = buffer->pending.events[at].previous;
	}
	return -1;
}

int64
evento_buffer_find_version(EventoEntry *entry, int64 version)
{
	int64		at = entry->newest;

	while (at >= 0 && buffer->pending.events[at].version > version)
		at = buffer->pending.events[at].previous;
	if (at < 0 || buffer->pending.events[at].version != version)
		elog(ERROR, "version " INT64_FORMAT " is not in the buffer", version);
	return at;
}

int64
evento_buffer_version(int64 at)
{
	Assert(at >= 0 && at < buffer->pending.nevents);
	return buffer->pending.events[at].version;
}

HeapTuple
evento_buffer_tuple(int64 at, bool *copied)
{
	const EventoBuffered *event = &buffer->pending.events[at];
	HeapTuple	tuple;

	Assert(at >= 0 && at < buffer->pending.nevents);
	*copied = at < buffer->pending.nspilled;
	if (!*copied)
		return event->row.tuple;
	tuple = palloc(HEAPTUPLESIZE + event->len);
	tuple->t_len = event->len;
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = InvalidOid;
	tuple->t_data = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
	evento_spill_get(buffer->pending.spill, event->row.offset, tuple->t_data, event->len);
	return tuple;
}

/* ---- savepoints ---- */

static void
on_subxact_abort(SubTransactionId subid)
{
	while (buffer->pending.nevents > 0 && buffer->pending.events[buffer->pending.nevents - 1].subid >= subid)
	{
		EventoBuffered *event = &buffer->pending.events[--buffer->pending.nevents];

		buffer->bytes -= event->len + sizeof(EventoBuffered);
		if (event->entry != NULL)
		{
			event->entry->newest = event->previous;
			event->entry->buffered--;
		}
		else
			buffer->newest_streamless = event->previous;

		/* What is in the file is cut off when more comes to it. */
		if (buffer->pending.nevents >= buffer->pending.nspilled)
			heap_freetuple(event->row.tuple);
	}
	buffer->pending.nspilled = Min(buffer->pending.nspilled, buffer->pending.nevents);
	while (buffer->pending.nentries > 0 && buffer->pending.entries[buffer->pending.nentries - 1]->subid >= subid)
	{
		EventoEntry *entry = buffer->pending.entries[--buffer->pending.nentries];

		entries_delete(buffer->by_name, entry);
		pfree(entry);
	}

	/* Rows of _streams that the subtransaction wrote are gone with it. */
	for (int i = 0; i < buffer->pending.nentries; i++)
		buffer->pending.entries[i]->loaded = false;

	/* The lock on the table may have gone, too. */
	buffer->filenode = InvalidOid;

	/* The scans died with the resource owner of whoever had opened them. */
	if (buffer->lookup != NULL && buffer->lookup_subid >= subid)
		buffer->lookup = NULL;
}

static void
on_subxact_commit(SubTransactionId subid, SubTransactionId parent)
{
	for (int64 i = buffer->pending.nevents - 1; i >= 0 && buffer->pending.events[i].subid >= subid; i--)
		buffer->pending.events[i].subid = parent;
	for (int i = buffer->pending.nentries - 1; i >= 0 && buffer->pending.entries[i]->subid >= subid; i--)
		buffer->pending.entries[i]->subid = parent;
}

static void
on_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		evento_positions_abort_sub();
	if (buffer == NULL)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		on_subxact_abort(subid);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		on_subxact_commit(subid, parent);
}

/* ---- for commit.c ---- */

void
evento_buffer_init(void)
{
	RegisterSubXactCallback(on_subxact, NULL);
}

AppendBuffer *
evento_buffer_current(void)
{
	return buffer;
}

void
evento_buffer_close(void)
{
	closed = true;
}

void
evento_buffer_end(void)
{
	closed = false;

	/* Its memory goes with the transaction. */
	buffer = NULL;
}

/* ---- for streams.c ---- */

void
evento_lock_stream(const char *name, int len)
{
	(void) evento_buffer_entry(EVENTO_LOCK_STREAM, name, len, true);
}

int64
evento_stream_head_locked(const char *name, int len, bool change, EventoStream *stream,
						  bool *exists, bool *buffered)
{
	EventoEntry *entry = evento_buffer_entry(EVENTO_LOCK_STREAM, name, len, true);

	/* Where the row is about to change nobody may rely on what is cached. */
	if (change)
	{
		entry->changed = true;
		entry->loaded = false;
		evento_heads_forget(evento_db(), evento_buffer_filenode(), entry->hash, entry->name, entry->len);
	}
	evento_buffer_load(entry);
	*stream = entry->row;
	*exists = entry->exists;
	*buffered = entry->buffered > 0;

	/* What the caller writes is looked up by who comes next. */
	if (change)
		entry->loaded = false;
	return entry->stored_head + entry->buffered;
}
