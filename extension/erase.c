/*
 * erase.c
 *	  Takes data and metadata out of all events of a stream, for good, and
 *	  leaves the events where they are.
 *
 * The only place that changes rows of _events.  Types, ids, versions and
 * positions stay, so that no order and no reader's place in it is touched;
 * neither is the stream's row, nor what is cached of it.  Rows are changed by
 * the table's own update, without triggers: it drops what lies in the TOAST
 * table, and is replicated.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"
#include "streams.h"

/* A reason is for people to read. */
#define MAX_REASON_LEN 4096

/* Columns of evento._erasures. */
enum
{
	Anum_erasure_stream = 1,
	Anum_erasure_reason,
	Anum_erasure_erased_by,
	Anum_erasure_erased_at,
	Anum_erasure_first_version,
	Anum_erasure_last_version,
	Anum_erasure_events,
	Natts_erasure = Anum_erasure_events
};

/* What an erasure came to. */
typedef struct Erased
{
	int64		events;
	int64		first;			/* versions, 0 where there were none */
	int64		last;
} Erased;

PG_FUNCTION_INFO_V1(evento_erase_stream);

/* The reason as an argument: 22023 where it says nothing. */
static text *
reason_argument(FunctionCallInfo fcinfo, int n)
{
	text	   *reason = PG_ARGISNULL(n) ? NULL : PG_GETARG_TEXT_PP(n);
	int			len = reason == NULL ? 0 : VARSIZE_ANY_EXHDR(reason);
	bool		blank = true;

	for (int i = 0; i < len && blank; i++)
		blank = strchr(" \t\n\r\f\v", VARDATA_ANY(reason)[i]) != NULL;
	if (blank)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason of an erasure must not be empty"),
				 errhint("Say who asked for it, and why: it is recorded in evento.erasures.")));
	if (len > MAX_REASON_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason of an erasure must have at most %d bytes, not %d",
						MAX_REASON_LEN, len)));
	return reason;
}

/* Writes the row of the event in the slot anew, without data and metadata. */
static void
erase_event(EventoRows *rows, TupleTableSlot *event)
{
	int			columns[] = {Anum_event_data, Anum_event_metadata};
	Datum		values[lengthof(columns)] = {0};
	bool		nulls[lengthof(columns)] = {true, true};
	ItemPointerData place = event->tts_tid;
	bool		should_free;
	HeapTuple	old = ExecFetchSlotHeapTuple(event, false, &should_free);
	HeapTuple	row = heap_modify_tuple_by_cols(old, RelationGetDescr(rows->rel),
												lengthof(columns), columns, values, nulls);

	evento_rows_put(rows, row, &place);
	heap_freetuple(row);
	if (should_free)
		heap_freetuple(old);
}

/*
 * Erases the events of a stream, hidden ones too.  Those that have neither data
 * nor metadata are left as they are: an erasure may be repeated.
 */
static void
erase_events(int64 no, Erased *erased)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_EVENTS), RowExclusiveLock);
	Relation	index = index_open(evento_rel(EVENTO_REL_EVENTS_STREAM), AccessShareLock);
	TupleTableSlot *event = table_slot_create(heap, NULL);

	/* Sees all that is committed, whatever the transaction's own does, and not what is written here. */
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan = evento_index_beginscan(heap, index, snapshot, 1);
	MemoryContext per_event = AllocSetContextCreate(CurrentMemoryContext,
													"evento event of an erasure",
													ALLOCSET_DEFAULT_SIZES);
	EventoRows	rows;
	ScanKeyData key;

	evento_rows_begin(&rows, heap);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(no));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, event))
	{
		MemoryContext caller;
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (slot_attisnull(event, Anum_event_data) && slot_attisnull(event, Anum_event_metadata))
			continue;
		erased->last = DatumGetInt64(slot_getattr(event, Anum_event_version, &isnull));
		if (erased->events++ == 0)
			erased->first = erased->last;
		caller = MemoryContextSwitchTo(per_event);
		erase_event(&rows, event);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(per_event);
	}
	evento_rows_end(&rows);
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(event);
	index_close(index, NoLock);
	table_close(heap, NoLock);
	MemoryContextDelete(per_event);
	CommandCounterIncrement();
}

static void
record_erasure(const StreamArgument *stream, text *reason, const Erased *erased)
{
	Relation	heap = table_open(evento_later_rel("_erasures"), RowExclusiveLock);
	Datum		values[Natts_erasure];
	bool		nulls[Natts_erasure] = {false};

	values[Anum_erasure_stream - 1] =
		PointerGetDatum(cstring_to_text_with_len(stream->name, stream->len));
	values[Anum_erasure_reason - 1] = PointerGetDatum(reason);

	/* Who logged in, whatever role they have taken since. */
	values[Anum_erasure_erased_by - 1] =
		CStringGetTextDatum(GetUserNameFromId(GetSessionUserId(), false));
	values[Anum_erasure_erased_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_erasure_first_version - 1] = Int64GetDatum(erased->first);
	values[Anum_erasure_last_version - 1] = Int64GetDatum(erased->last);
	nulls[Anum_erasure_first_version - 1] = nulls[Anum_erasure_last_version - 1] =
		(erased->events == 0);
	values[Anum_erasure_events - 1] = Int64GetDatum(erased->events);
	evento_row_write(heap, evento_form_row(heap, Natts_erasure, values, nulls), NULL);
	CommandCounterIncrement();
	table_close(heap, NoLock);
}

/*
 * erase_stream(stream, reason): erases the events of a stream, its snapshot and
 * its metadata, and gives how many events had something to erase.
 */
Datum
evento_erase_stream(PG_FUNCTION_ARGS)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	text	   *reason;
	StreamArgument stream;
	Erased		erased = {0};
	bool		had_metadata;

	evento_check_write("erase_stream");
	reason = reason_argument(fcinfo, 1);
	evento_stream_argument(name, "erase_stream", false, &stream);
	if (stream.buffered)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot erase stream \"%.*s\" in the transaction that appends to it",
						stream.len, stream.name),
				 errhint("Commit the append first, or erase before it.")));

	had_metadata = evento_metadata_clear(stream.name, stream.len);
	if (!stream.exists && !had_metadata)
		ereport(ERROR,
				(errcode(ERRCODE_EVENTO_WRONG_VERSION),
				 errmsg("there is no stream \"%.*s\" to erase", stream.len, stream.name),
				 errhint("Names of streams are compared byte by byte: look for it in evento.streams.")));
	if (stream.exists)
		erase_events(stream.row.no, &erased);
	(void) evento_snapshot_drop(stream.name, stream.len);
	record_erasure(&stream, reason, &erased);
	evento_story_changed(stream.name, stream.len);

	/* Who was told that it is erased can rely on it. */
	ForceSyncCommit();
	PG_RETURN_INT64(erased.events);
}
