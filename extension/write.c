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
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"

/* Rows that one table_multi_insert takes at most, and their bytes. */
#define SLICE_ROWS 1000
#define SLICE_BYTES (16 * 1024 * 1024)

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

/* Offset of a fixed-width column among those that stand first in every row. */
static char *
leading_column(HeapTuple tuple, bool has_stream, int attnum)
{
	int			before = attnum - 1;

	if (!has_stream && attnum > Anum_event_version)
		before -= 2;			/* stream_no and version are NULL: no room */
	return (char *) tuple->t_data + tuple->t_data->t_hoff + before * sizeof(int64);
}

/*
 * Fills in what was open: positions, in the order of the appends; the number
 * of a new stream, which is the position of its first event; the time.
 */
static void
fill_in(EventoBuffered *events, int64 nevents, int64 first)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int64 i = 0; i < nevents; i++)
	{
		EventoBuffered *event = &events[i];
		bool		has_stream = event->entry != NULL;
		int64		position = first + i;

		memcpy(leading_column(event->tuple, has_stream, Anum_event_position),
			   &position, sizeof(position));
		memcpy(leading_column(event->tuple, has_stream, Anum_event_recorded_at),
			   &now, sizeof(now));
		if (has_stream)
		{
			if (event->entry->row.no == 0)
				event->entry->row.no = position;
			memcpy(leading_column(event->tuple, true, Anum_event_stream_no),
				   &event->entry->row.no, sizeof(int64));
		}
	}
}

/* Rows of streams that are new; streams that were deleted and go on lose deleted_at. */
static void
write_streams(EventoEntry **entries, int nentries)
{
	Relation	rel = NULL;
	EventoRows	rows;

	for (int i = 0; i < nentries; i++)
	{
		EventoEntry *entry = entries[i];
		Datum		values[Natts_streams] = {0};
		bool		nulls[Natts_streams] = {false};
		HeapTuple	tuple;

		if (entry->kind != EVENTO_LOCK_STREAM || entry->buffered == 0 ||
			(entry->exists && entry->row.deleted_version == 0))
			continue;
		if (rel == NULL)
		{
			rel = table_open(evento_rel(EVENTO_REL_STREAMS), RowExclusiveLock);
			evento_rows_begin(&rows, rel);
		}
		values[Anum_streams_stream_no - 1] = Int64GetDatum(entry->row.no);
		values[Anum_streams_name - 1] =
			PointerGetDatum(cstring_to_text_with_len(entry->name, entry->len));
		values[Anum_streams_deleted_version - 1] = Int64GetDatum(entry->row.deleted_version);
		nulls[Anum_streams_deleted_at - 1] = true;
		values[Anum_streams_tombstone - 1] = BoolGetDatum(entry->row.tombstone);
		tuple = evento_form_row(rel, Natts_streams, values, nulls);
		if (!entry->exists)
			evento_rows_put(&rows, tuple, NULL);
		else if (entry->stored_head <= entry->row.deleted_version)
			evento_rows_put(&rows, tuple, &entry->row.tid);
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

/* Index entries of n rows that have just been written. */
static void
indexes_insert(IndexWriter *writer, Relation rel, TupleTableSlot **slots,
			   const EventoBuffered *events, int n)
{
	static bool nulls[3] = {false, false, false};

	if (writer->estate != NULL)
	{
		for (int i = 0; i < n; i++)
		{
			evento_insert_index_tuples(writer->rri, slots[i], writer->estate);
			ResetPerTupleExprContext(writer->estate);
		}
		return;
	}

	for (int i = 0; i < n; i++)
	{
		const EventoBuffered *event = &events[i];
		int64		position;
		Datum		values[3];

		memcpy(&position, leading_column(event->tuple, event->entry != NULL, Anum_event_position),
			   sizeof(position));
		values[0] = Int64GetDatum(position);
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

/* How many of n_left events fit into one slice. */
static int
slice_rows(const EventoBuffered *events, int64 n_left)
{
	uint64		bytes = 0;
	int			n = 0;

	while (n < SLICE_ROWS && n < n_left)
	{
		bytes += events[n].tuple->t_len;
		if (n > 0 && bytes > SLICE_BYTES)
			break;
		n++;
	}
	return n;
}

static void
write_events(Relation rel, EventoBuffered *events, int64 nevents)
{
	int			nslots = (int) Min(nevents, SLICE_ROWS);
	TupleTableSlot **slots = palloc(nslots * sizeof(TupleTableSlot *));
	BulkInsertState bistate = nevents > SLICE_ROWS ? GetBulkInsertState() : NULL;
	CommandId	cid = GetCurrentCommandId(true);
	MemoryContext slice_context;
	IndexWriter writer;

	indexes_open(&writer, rel);
	for (int i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	slice_context = AllocSetContextCreate(CurrentMemoryContext, "evento slice",
										  ALLOCSET_DEFAULT_SIZES);

	for (int64 from = 0; from < nevents;)
	{
		int			n = slice_rows(events + from, nevents - from);
		MemoryContext caller = MemoryContextSwitchTo(slice_context);

		CHECK_FOR_INTERRUPTS();

		/*
		 * A slot that owned its tuple would free it; one that does not would
		 * have it copied by the table.  So the slots own them, and the tuples
		 * are not looked at once a slot is used again.
		 */
		for (int i = 0; i < n; i++)
			ExecStoreHeapTuple(events[from + i].tuple, slots[i], true);
		if (n == 1)
			table_tuple_insert(rel, slots[0], cid, 0, bistate);
		else
			table_multi_insert(rel, slots, n, cid, 0, bistate);
		indexes_insert(&writer, rel, slots, events + from, n);
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
 * Fills in and writes.  A duplicate key means that rows came in by another way
 * since the counter was seeded.  The counter is marked unknown, and this
 * transaction is to be repeated; nothing goes on after the error, it is only
 * raised as another.  An index that a user has made raises what it raises.
 */
void
evento_write(Relation rel, EventoEntry **entries, int nentries,
			 EventoBuffered *events, int64 nevents, int64 first)
{
	MemoryContext caller = CurrentMemoryContext;

	fill_in(events, nevents, first);
	PG_TRY();
	{
		write_streams(entries, nentries);
		write_events(rel, events, nevents);
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
