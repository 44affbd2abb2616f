/*
 * write.c
 *	  Writes the rows of a transaction's appends at PRE_COMMIT: streams, events,
 *	  index entries.
 *
 * No executor, no triggers, no constraints: what the tables ask for was checked
 * when the events were buffered.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"

/* Rows that one table_multi_insert takes at most, and their bytes. */
#define SLICE_ROWS 1000
#define SLICE_BYTES (4 * 1024 * 1024)

/* Columns of evento._streams. */
enum
{
	Anum_streams_stream_no = 1,
	Anum_streams_name,
	Anum_streams_deleted_version,
	Anum_streams_deleted_at,
	Anum_streams_tombstone,
	Natts_streams = Anum_streams_tombstone
};

/* Place of a fixed-width column among those that stand first in every row. */
static char *
leading_column(HeapTuple tuple, bool has_stream, int attnum)
{
	int			before = attnum - 1;

	if (!has_stream && attnum > Anum_event_version)
		before -= 2;			/* stream_no and version are NULL: no room */
	return (char *) tuple->t_data + tuple->t_data->t_hoff + before * sizeof(int64);
}

/* A new stream has the position of its first event for its number. */
static void
number_streams(const EventoPending *pending, int64 first)
{
	for (int64 i = 0; i < pending->nevents; i++)
	{
		EventoEntry *entry = pending->events[i].entry;

		if (entry != NULL && entry->row.no <= 0)
			entry->row.no = first + i;
	}
}

/* Fills in what was open: the position, the number of the stream, the time. */
static void
fill_in(HeapTuple tuple, const EventoBuffered *event, int64 position, TimestampTz now)
{
	bool		has_stream = event->entry != NULL;

	memcpy(leading_column(tuple, has_stream, Anum_event_position), &position, sizeof(position));
	memcpy(leading_column(tuple, has_stream, Anum_event_recorded_at), &now, sizeof(now));
	if (has_stream)
		memcpy(leading_column(tuple, true, Anum_event_stream_no), &event->entry->row.no,
			   sizeof(int64));
}

/*
 * Rows of streams that are new, or that have their first event now and take its
 * position for their number; streams that were deleted and go on lose deleted_at.
 */
static void
write_streams(EventoEntry **entries, int nentries)
{
	Relation	rel = NULL;
	EventoRows	rows;

	for (int i = 0; i < nentries; i++)
	{
		EventoEntry *entry = entries[i];
		int64		deleted_version = entry->row.deleted_version;
		bool		goes_on = entry->stored_head + entry->buffered > deleted_version;
		Datum		values[Natts_streams] = {0};
		bool		nulls[Natts_streams] = {false};
		HeapTuple	tuple;

		if (entry->kind != EVENTO_LOCK_STREAM || entry->buffered == 0)
			continue;
		if (entry->exists && entry->stored_head > 0 &&
			(entry->stored_head > deleted_version || !goes_on))
			continue;
		if (rel == NULL)
		{
			rel = table_open(evento_rel(EVENTO_REL_STREAMS), RowExclusiveLock);
			evento_rows_begin(&rows, rel);
		}
		values[Anum_streams_stream_no - 1] = Int64GetDatum(entry->row.no);
		values[Anum_streams_name - 1] =
			PointerGetDatum(cstring_to_text_with_len(entry->name, entry->len));
		values[Anum_streams_deleted_version - 1] = Int64GetDatum(deleted_version);

		/* What is deleted here, before its first event had a number, was deleted just now. */
		values[Anum_streams_deleted_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
		nulls[Anum_streams_deleted_at - 1] = goes_on;
		values[Anum_streams_tombstone - 1] = BoolGetDatum(entry->row.tombstone);
		tuple = evento_form_row(rel, Natts_streams, values, nulls);
		evento_rows_put(&rows, tuple, entry->exists ? &entry->row.tid : NULL);
		heap_freetuple(tuple);
	}
	if (rel != NULL)
	{
		evento_rows_end(&rows);
		table_close(rel, NoLock);
	}
}

/* What it takes to write index entries of events. */
typedef struct IndexWriter
{
	/* The two that carry the log: we know their columns. */
	Relation	position;
	Relation	stream;
	IndexInfo  *position_info;
	IndexInfo  *stream_info;

	/* All of them, where a user has made others. */
	EState	   *estate;
	ResultRelInfo *rri;
} IndexWriter;

/* True where the table has the two indexes we know and no others. */
static bool
only_own_indexes(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	bool		own = list_length(indexes) == 2 &&
		list_member_oid(indexes, evento_rel(EVENTO_REL_EVENTS_POSITION)) &&
		list_member_oid(indexes, evento_rel(EVENTO_REL_EVENTS_STREAM));

	list_free(indexes);
	return own;
}

static void
indexes_open(IndexWriter *writer, Relation rel)
{
	memset(writer, 0, sizeof(*writer));
	if (only_own_indexes(rel))
	{
		writer->position = index_open(evento_rel(EVENTO_REL_EVENTS_POSITION), RowExclusiveLock);
		writer->position_info = BuildIndexInfo(writer->position);
		writer->stream = index_open(evento_rel(EVENTO_REL_EVENTS_STREAM), RowExclusiveLock);
		writer->stream_info = BuildIndexInfo(writer->stream);
	}
	else
	{
		writer->estate = CreateExecutorState();
		writer->rri = makeNode(ResultRelInfo);
		InitResultRelInfo(writer->rri, rel, 0, NULL, 0);
		ExecOpenIndices(writer->rri, false);
	}
}

static void
indexes_close(IndexWriter *writer)
{
	if (writer->estate != NULL)
	{
		ExecCloseIndices(writer->rri);
		FreeExecutorState(writer->estate);
	}
	else
	{
		index_close(writer->position, NoLock);
		index_close(writer->stream, NoLock);
	}
}

/* Index entries of n rows that have just been written, from a position on. */
static void
indexes_insert(IndexWriter *writer, Relation rel, TupleTableSlot **slots,
			   const EventoBuffered *events, int n, int64 position)
{
	static bool nulls[3] = {false, false, false};

	if (writer->estate != NULL)
	{
		Oid			user;
		int			context;
		int			settings = NewGUCNestLevel();

		/*
		 * Expressions are of the owner's making and run as the owner, as when
		 * the index is built.  So what they call is not looked for where who
		 * appends would have it found.  An error ends the transaction, and all
		 * of this with it.
		 */
		GetUserIdAndSecContext(&user, &context);
		SetUserIdAndSecContext(rel->rd_rel->relowner, context | SECURITY_RESTRICTED_OPERATION);
		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		for (int i = 0; i < n; i++)
		{
			evento_insert_index_tuples(writer->rri, slots[i], writer->estate);
			ResetPerTupleExprContext(writer->estate);
		}
		AtEOXact_GUC(false, settings);
		SetUserIdAndSecContext(user, context);
		return;
	}

	for (int i = 0; i < n; i++)
	{
		const EventoBuffered *event = &events[i];
		Datum		values[3];

		values[0] = Int64GetDatum(position + i);
		index_insert(writer->position, values, nulls, &slots[i]->tts_tid, rel,
					 UNIQUE_CHECK_YES, false, writer->position_info);
		if (event->entry == NULL)
			continue;
		values[0] = Int64GetDatum(event->entry->row.no);
		values[1] = Int64GetDatum(event->version);
		values[2] = UUIDPGetDatum(&event->id);
		index_insert(writer->stream, values, nulls, &slots[i]->tts_tid, rel,
					 UNIQUE_CHECK_YES, false, writer->stream_info);
	}
}

/* How many events, from one on, fit into one slice: all in memory, or all in the file. */
static int
slice_rows(const EventoPending *pending, int64 from)
{
	int64		end = from < pending->nspilled ? pending->nspilled : pending->nevents;
	uint64		bytes = 0;
	int			n = 0;

	while (n < SLICE_ROWS && from + n < end)
	{
		bytes += MAXALIGN(pending->events[from + n].len);
		if (n > 0 && bytes > SLICE_BYTES)
			break;
		n++;
	}
	return n;
}

/*
 * Puts n events, from one on, into slots, ready to be written.
 *
 * A slot that owns its tuple frees it; from one that does not, the table
 * copies it.  So the slots own what was in memory, and it is not looked at
 * once a slot is used again; of what is read from the file, all rows of the
 * slice lie in one piece of memory.
 */
static void
fill_slots(const EventoPending *pending, int64 from, int n, TupleTableSlot **slots,
		   int64 position, TimestampTz now)
{
	const EventoBuffered *events = pending->events + from;
	HeapTuple	read;
	char	   *rows;
	int64		start;
	int64		end;

	if (from >= pending->nspilled)
	{
		for (int i = 0; i < n; i++)
		{
			fill_in(events[i].row.tuple, &events[i], position + i, now);
			ExecStoreHeapTuple(events[i].row.tuple, slots[i], true);
		}
		return;
	}

	start = events[0].row.offset;
	end = events[n - 1].row.offset + MAXALIGN(events[n - 1].len);
	rows = palloc(end - start);
	evento_spill_get(pending->spill, start, rows, end - start);
	read = palloc(n * sizeof(HeapTupleData));
	for (int i = 0; i < n; i++)
	{
		read[i].t_len = events[i].len;
		ItemPointerSetInvalid(&read[i].t_self);
		read[i].t_tableOid = InvalidOid;
		read[i].t_data = (HeapTupleHeader) (rows + (events[i].row.offset - start));
		fill_in(&read[i], &events[i], position + i, now);
		ExecStoreHeapTuple(&read[i], slots[i], false);
		ExecMaterializeSlot(slots[i]);
	}
	pfree(read);
	pfree(rows);
}

static void
write_events(Relation rel, const EventoPending *pending, int64 first)
{
	int			nslots = (int) Min(pending->nevents, SLICE_ROWS);
	TupleTableSlot **slots = palloc(nslots * sizeof(TupleTableSlot *));
	BulkInsertState bistate = pending->nevents > SLICE_ROWS ? GetBulkInsertState() : NULL;
	CommandId	cid = GetCurrentCommandId(true);
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext slice_context;
	IndexWriter writer;

	indexes_open(&writer, rel);
	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	slice_context = AllocSetContextCreate(CurrentMemoryContext, "evento slice",
										  ALLOCSET_DEFAULT_SIZES);

	for (int64 from = 0; from < pending->nevents;)
	{
		int			n = slice_rows(pending, from);
		MemoryContext caller = MemoryContextSwitchTo(slice_context);

		CHECK_FOR_INTERRUPTS();
		fill_slots(pending, from, n, slots, first + from, now);
		if (n == 1)
			table_tuple_insert(rel, slots[0], cid, 0, bistate);
		else
			table_multi_insert(rel, slots, n, cid, 0, bistate);
		indexes_insert(&writer, rel, slots, pending->events + from, n, first + from);
		from += n;
		MemoryContextSwitchTo(caller);
		MemoryContextReset(slice_context);
	}

	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	if (bistate != NULL)
		FreeBulkInsertState(bistate);
	table_finish_bulk_insert(rel, 0);
	indexes_close(&writer);
	MemoryContextDelete(slice_context);
}

/* Whether an index is one that only what came in by another way can violate. */
static bool
is_own_index(const char *name)
{
	static const char *const own[] = {
		"_events_position", "_events_stream", "_streams_pkey", "_streams_name_key"
	};

	for (int i = 0; i < lengthof(own); i++)
	{
		if (name != NULL && strcmp(name, own[i]) == 0)
			return true;
	}
	return false;
}

/*
 * Writes.  A duplicate key means that rows came in by another way
 * since the counter was seeded.  The counter is marked unknown, and this
 * transaction is to be repeated; nothing goes on after the error, it is only
 * raised as another.  An index that a user has made raises what it raises.
 */
void
evento_write(Relation rel, const EventoPending *pending, int64 first)
{
	MemoryContext caller = CurrentMemoryContext;

	number_streams(pending, first);
	PG_TRY();
	{
		write_streams(pending->entries, pending->nentries);
		write_events(rel, pending, first);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (geterrcode() != ERRCODE_UNIQUE_VIOLATION)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (!is_own_index(error->constraint_name))
			PG_RE_THROW();
		evento_positions_unknown();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not append: rows came into evento's tables by another way"),
				 errdetail("%s%s%s", error->message, error->detail ? ": " : "",
						   error->detail ? error->detail : ""),
				 errhint("Repeat the transaction.")));
	}
	PG_END_TRY();
}
