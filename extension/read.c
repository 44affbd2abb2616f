/*
 * read.c
 *	  The read functions: read_all and scan_all along the global order,
 *	  read_stream and load_stream along one stream.
 *
 * What follows the global order stops at the watermark.  On a primary, in READ
 * COMMITTED, the watermark comes from shared memory and the snapshot is taken
 * after it, so that the snapshot sees every event up to there.  A transaction
 * that keeps one snapshot, and a standby, take the watermark from its row as
 * the snapshot of the read itself sees it.
 *
 * Rows go to a tuplestore, which spills to disk beyond work_mem.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"

/* What all forms of a row have in common, in this order. */
enum
{
	COL_ID,
	COL_TYPE,
	COL_CONTEXT,
	COL_KIND,
	COL_DATA,
	COL_METADATA,
	COL_CLASS,
	COL_TIMESTAMP,
	COL_RECORDED_AT,
	COL_FORCE_TELEMETRY,
	COL_COUNT
};

/* Columns of scanned_event and of events, the widest rows. */
#define MAX_COLUMNS		(COL_COUNT + 4)

/* Those of a row of events: position, stream, version; and before version 0.2 of the schema no category. */
#define EVENTS_COLUMNS	(COL_COUNT + 4)

/* Those of a row of stream_part: part, position, version. */
#define PART_COLUMNS	(COL_COUNT + 3)

/* A set of texts: sorted, for bsearch. */
typedef struct TextSet
{
	text	  **members;
	int			count;
} TextSet;

typedef struct LogFilter
{
	text	   *context;		/* NULL: any */
	TextSet    *types;			/* NULL: any */
	TextSet    *categories;		/* NULL: any, and events without stream */
} LogFilter;

/* A read along the global order. */
typedef struct LogRead
{
	int64		after;
	int64		max;			/* rows, at most */
	int64		max_scan;		/* events looked at, at most */
	int64		max_bytes;		/* of data and metadata, at most, but one event */
	bool		tell_scanned;	/* scan_all: how far it looked, in a column before */
	LogFilter	filter;
} LogRead;

PG_FUNCTION_INFO_V1(evento_read_all);
PG_FUNCTION_INFO_V1(evento_scan_all);
PG_FUNCTION_INFO_V1(evento_read_stream);
PG_FUNCTION_INFO_V1(evento_load_stream);

/* ---- arguments ---- */

/*
 * A bigint argument with a least value; what is given for NULL.  Raises 22023
 * below the least.
 */
static int64
bigint_argument(FunctionCallInfo fcinfo, int n, const char *name, int64 least, int64 if_null)
{
	int64		value;

	if (PG_ARGISNULL(n))
		return if_null;
	value = PG_GETARG_INT64(n);
	if (value < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least " INT64_FORMAT ", not " INT64_FORMAT,
						name, least, value)));
	return value;
}

static int
compare_texts(const void *a, const void *b)
{
	const text *x = *(text *const *) a;
	const text *y = *(text *const *) b;
	int			xlen = VARSIZE_ANY_EXHDR(x);
	int			ylen = VARSIZE_ANY_EXHDR(y);
	int			order = memcmp(VARDATA_ANY(x), VARDATA_ANY(y), Min(xlen, ylen));

	return order != 0 ? order : xlen - ylen;
}

/*
 * A text[] argument as a set, NULL for NULL.  Raises 22023 where an element is
 * NULL.
 */
static TextSet *
set_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	TextSet    *set;
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;

	if (PG_ARGISNULL(n))
		return NULL;
	array = PG_GETARG_ARRAYTYPE_P(n);
	set = palloc(sizeof(TextSet));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, &set->count);
	set->members = palloc(sizeof(text *) * Max(set->count, 1));
	for (int i = 0; i < set->count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s must not contain NULL", name)));
		set->members[i] = DatumGetTextPP(elements[i]);
	}
	qsort(set->members, set->count, sizeof(text *), compare_texts);
	return set;
}

static bool
set_contains(const TextSet *set, text *value)
{
	return bsearch(&value, set->members, set->count, sizeof(text *), compare_texts) != NULL;
}

/*
 * Whether a value fits a pattern in which * is any run of characters.  Bytes
 * do for UTF-8.  On a mismatch only the last * has to take one byte more, so
 * this is quadratic at worst, in strings of bounded length.
 */
static bool
glob_match(const char *pattern, int pattern_len, const char *value, int value_len)
{
	int			p = 0;
	int			v = 0;
	int			star = -1;
	int			star_v = 0;

	while (v < value_len)
	{
		if (p < pattern_len && pattern[p] == '*')
		{
			star = p++;
			star_v = v;
		}
		else if (p < pattern_len && pattern[p] == value[v])
		{
			p++;
			v++;
		}
		else if (star >= 0)
		{
			p = star + 1;
			v = ++star_v;
		}
		else
			return false;
	}
	while (p < pattern_len && pattern[p] == '*')
		p++;
	return p == pattern_len;
}

/* The filter that arguments context, types and categories make, from number n on. */
static void
filter_arguments(FunctionCallInfo fcinfo, int n, LogFilter *filter)
{
	filter->context = NULL;
	if (!PG_ARGISNULL(n))
	{
		text	   *context = PG_GETARG_TEXT_PP(n);
		int			len = VARSIZE_ANY_EXHDR(context);

		if (len > EVENTO_MAX_CONTEXT_LEN)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("context must have at most %d bytes, not %d",
							EVENTO_MAX_CONTEXT_LEN, len)));
		if (!(len == 1 && VARDATA_ANY(context)[0] == '*'))
			filter->context = context;
	}
	filter->types = set_argument(fcinfo, n + 1, "types");
	filter->categories = set_argument(fcinfo, n + 2, "categories");
}

/* ---- rows ---- */

/*
 * Fills the columns that all forms of a row share, from column first on, out
 * of a row of _events that is deformed.
 */
static void
fill_event(TupleTableSlot *event, Datum *values, bool *nulls)
{
	static const AttrNumber sources[COL_COUNT] = {
		[COL_ID] = Anum_event_id,
		[COL_TYPE] = Anum_event_type,
		[COL_CONTEXT] = Anum_event_context,
		[COL_KIND] = Anum_event_service,
		[COL_DATA] = Anum_event_data,
		[COL_METADATA] = Anum_event_metadata,
		[COL_CLASS] = Anum_event_class,
		[COL_TIMESTAMP] = Anum_event_timestamp,
		[COL_RECORDED_AT] = Anum_event_recorded_at,
		[COL_FORCE_TELEMETRY] = Anum_event_force_telemetry
	};
	static text *domain = NULL;
	static text *service = NULL;

	if (service == NULL)
	{
		MemoryContext before = MemoryContextSwitchTo(TopMemoryContext);

		domain = cstring_to_text("domain");
		service = cstring_to_text("service");
		MemoryContextSwitchTo(before);
	}

	for (int i = 0; i < COL_COUNT; i++)
	{
		values[i] = event->tts_values[sources[i] - 1];
		nulls[i] = event->tts_isnull[sources[i] - 1];
	}
	values[COL_KIND] = PointerGetDatum(DatumGetBool(values[COL_KIND]) ? service : domain);
}

static int64
event_bigint(TupleTableSlot *event, AttrNumber attribute)
{
	return DatumGetInt64(event->tts_values[attribute - 1]);
}

/* The category of a stream: what stands before the first - of its name, or the whole name. */
static text *
category_of(text *name)
{
	char	   *data = VARDATA_ANY(name);
	char	   *dash = memchr(data, '-', VARSIZE_ANY_EXHDR(name));

	return dash == NULL ? name : cstring_to_text_with_len(data, dash - data);
}

/*
 * Begins a result with rows of so many columns, or of less where the schema is
 * earlier.  The scripts of a later version than this library may have given the
 * row type more, of which this library knows nothing.
 */
static void
begin_rows(FunctionCallInfo fcinfo, int columns)
{
	TupleDesc	desc;

	InitMaterializedSRF(fcinfo, 0);
	desc = ((ReturnSetInfo *) fcinfo->resultinfo)->setDesc;
	if (desc->natts > columns)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the schema evento is of a later version than the library in this server"),
				 errdetail("Rows of %s have %d columns, the library knows %d.", format_type_be(desc->tdtypeid),
						   desc->natts, columns),
				 errhint("Restart the server, so that it loads the library that belongs to the schema.")));
}

/*
 * A row of type events, or of scanned_event where scanned is not NULL.  stream
 * and category are NULL for an event without stream.
 */
static void
put_event(ReturnSetInfo *result, TupleTableSlot *event, text *stream, text *category,
		  int64 *scanned)
{
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
	int			n = 0;

	if (scanned != NULL)
	{
		values[n] = Int64GetDatum(*scanned);
		nulls[n++] = false;
	}
	values[n] = event->tts_values[Anum_event_position - 1];
	nulls[n++] = false;
	values[n] = PointerGetDatum(stream);
	nulls[n++] = (stream == NULL);
	values[n] = event->tts_values[Anum_event_version - 1];
	nulls[n++] = event->tts_isnull[Anum_event_version - 1];
	fill_event(event, &values[n], &nulls[n]);
	if (scanned == NULL && result->setDesc->natts == EVENTS_COLUMNS)
	{
		values[EVENTS_COLUMNS - 1] = PointerGetDatum(category);
		nulls[EVENTS_COLUMNS - 1] = (category == NULL);
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* ---- along the global order ---- */

/*
 * Pushes the snapshot of a read along the global order, and gives the
 * watermark that goes with it.  The caller pops it.
 */
static int64
push_log_snapshot(void)
{
	int64		watermark = 0;

	evento_check_preloaded();
	if (!RecoveryInProgress() && !IsolationUsesXactSnapshot() && evento_positions_known(evento_db()))
		watermark = evento_watermark_now();

	/*
	 * A later snapshot than the watermark; in an isolation level that keeps
	 * its snapshot, that one.
	 */
	PushActiveSnapshot(GetTransactionSnapshot());

	/* Also where shared memory does not know yet, early after a start. */
	if (watermark == 0)
		watermark = evento_watermark_seen(GetActiveSnapshot());
	return watermark;
}

/*
 * Whether an event passes context and types.  scratch is for values that need
 * decompression, which long ones may.
 */
static bool
event_wanted(LogFilter *filter, TupleTableSlot *event, MemoryContext scratch)
{
	MemoryContext before;
	bool		wanted = true;

	if (filter->types == NULL && filter->context == NULL)
		return true;

	before = MemoryContextSwitchTo(scratch);
	if (filter->types != NULL)
		wanted = set_contains(filter->types,
							  DatumGetTextPP(event->tts_values[Anum_event_type - 1]));
	if (wanted && filter->context != NULL)
	{
		text	   *context = DatumGetTextPP(event->tts_values[Anum_event_context - 1]);

		wanted = glob_match(VARDATA_ANY(filter->context), VARSIZE_ANY_EXHDR(filter->context),
							VARDATA_ANY(context), VARSIZE_ANY_EXHDR(context));
	}
	MemoryContextSwitchTo(before);
	MemoryContextReset(scratch);
	return wanted;
}

/* Bytes of data and metadata of an event, as they were given. */
static int64
event_bytes(TupleTableSlot *event)
{
	int64		bytes = 0;

	/* That of an erased event is NULL too. */
	if (!event->tts_isnull[Anum_event_data - 1])
		bytes += toast_raw_datum_size(event->tts_values[Anum_event_data - 1]) - VARHDRSZ;
	if (!event->tts_isnull[Anum_event_metadata - 1])
		bytes += toast_raw_datum_size(event->tts_values[Anum_event_metadata - 1]) - VARHDRSZ;
	return bytes;
}

/*
 * Reads the log between after and the watermark into the result.  Gives the
 * position up to which it has looked: nothing behind after and up to there
 * matches but what was given.
 */
static int64
read_range(ReturnSetInfo *result, LogRead *read, int64 watermark)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_EVENTS), AccessShareLock);
	Relation	index = index_open(evento_rel(EVENTO_REL_EVENTS_POSITION), AccessShareLock);
	TupleTableSlot *event = table_slot_create(heap, NULL);
	IndexScanDesc scan = evento_index_beginscan(heap, index, GetActiveSnapshot(), 2);
	EventoLookup *lookup = evento_lookup_begin(GetActiveSnapshot());
	MemoryContext per_event = AllocSetContextCreate(CurrentMemoryContext,
													"evento event of a read",
													ALLOCSET_SMALL_SIZES);
	ScanKeyData keys[2];
	int64		looked = 0;
	int64		given = 0;
	int64		bytes = 0;
	int64		scanned = read->after;
	bool		whole = false;

	/* Unless the transaction keeps its snapshot, that of this read is its newest. */
	bool		newest = !IsolationUsesXactSnapshot();

	ScanKeyInit(&keys[0], 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(read->after));
	ScanKeyInit(&keys[1], 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(watermark));
	index_rescan(scan, keys, 2, NULL, 0);

	while (given < read->max && looked < read->max_scan)
	{
		const EventoKnownStream *stream = NULL;

		CHECK_FOR_INTERRUPTS();
		if (!index_getnext_slot(scan, ForwardScanDirection, event))
		{
			whole = true;
			break;
		}
		looked++;

		slot_getsomeattrs(event, Anum_event_context);
		if (event_wanted(&read->filter, event, per_event))
		{
			bool		wanted = read->filter.categories == NULL;

			if (!event->tts_isnull[Anum_event_stream_no - 1])
			{
				int64		no = event_bigint(event, Anum_event_stream_no);

				stream = evento_lookup_known(lookup, no, newest);
				if (stream == NULL)
					elog(ERROR, "stream " INT64_FORMAT " of an event has no row", no);
				wanted = event_bigint(event, Anum_event_version) > stream->deleted_version &&
					(read->filter.categories == NULL ||
					 set_contains(read->filter.categories, stream->category));
			}
			if (wanted)
			{
				slot_getallattrs(event);
				if (read->max_bytes != PG_INT64_MAX)
				{
					bytes += event_bytes(event);
					if (given > 0 && bytes > read->max_bytes)
						break;
				}
				given++;
				scanned = event_bigint(event, Anum_event_position);
				put_event(result, event, stream ? stream->name : NULL,
						  stream ? stream->category : NULL,
						  read->tell_scanned ? &scanned : NULL);
			}
		}
		scanned = event_bigint(event, Anum_event_position);
	}

	evento_lookup_end(lookup);
	MemoryContextDelete(per_event);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(event);
	index_close(index, NoLock);
	table_close(heap, NoLock);

	/* At the end of what is readable, gaps behind the last event count too. */
	return whole ? Max(watermark, read->after) : scanned;
}

/* read_all and scan_all, once their arguments are known. */
static void
run_log_read(FunctionCallInfo fcinfo, LogRead *read)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		watermark;
	int64		scanned;

	begin_rows(fcinfo, MAX_COLUMNS);
	watermark = push_log_snapshot();
	scanned = read_range(result, read, watermark);
	PopActiveSnapshot();

	if (read->tell_scanned)
	{
		Datum		values[MAX_COLUMNS] = {0};
		bool		nulls[MAX_COLUMNS];

		memset(nulls, true, sizeof(nulls));
		values[0] = Int64GetDatum(scanned);
		nulls[0] = false;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/*
 * read_all(after, max, context, types, categories): events of the global
 * order behind a position, up to the watermark.  A NULL means what its
 * default means, NULL for max no limit.
 */
Datum
evento_read_all(PG_FUNCTION_ARGS)
{
	LogRead		read = {0};

	read.after = bigint_argument(fcinfo, 0, "after", 0, 0);
	read.max = bigint_argument(fcinfo, 1, "max", 0, PG_INT64_MAX);
	filter_arguments(fcinfo, 2, &read.filter);
	read.max_scan = PG_INT64_MAX;
	read.max_bytes = PG_INT64_MAX;
	run_log_read(fcinfo, &read);
	PG_RETURN_NULL();
}

/*
 * scan_all(after, max, context, types, categories, max_scan, max_bytes): the
 * same, bounded also by events looked at and bytes given, and closed by a row
 * that says how far it looked.
 */
Datum
evento_scan_all(PG_FUNCTION_ARGS)
{
	LogRead		read = {0};

	read.after = bigint_argument(fcinfo, 0, "after", 0, 0);
	read.max = bigint_argument(fcinfo, 1, "max", 0, PG_INT64_MAX);
	filter_arguments(fcinfo, 2, &read.filter);
	read.max_scan = bigint_argument(fcinfo, 5, "max_scan", 1, PG_INT64_MAX);
	read.max_bytes = bigint_argument(fcinfo, 6, "max_bytes", 1, PG_INT64_MAX);
	read.tell_scanned = true;
	run_log_read(fcinfo, &read);
	PG_RETURN_NULL();
}

/* ---- along a stream ---- */

/* Called with each event of a stream, deformed. */
typedef void (*EventSink) (ReturnSetInfo *result, TupleTableSlot *event, text *stream,
						   text *category);

/*
 * Gives the events of a stream between two versions (both inclusive) to a
 * sink, at most max of them, in either direction, under the active snapshot.
 */
static void
walk_stream(ReturnSetInfo *result, int64 no, text *name, int64 first, int64 last,
			int64 max, bool backwards, EventSink sink)
{
	Relation	heap;
	Relation	index;
	TupleTableSlot *event;
	text	   *category;
	IndexScanDesc scan;
	ScanKeyData keys[3];

	if (first > last || max == 0)
		return;

	heap = table_open(evento_rel(EVENTO_REL_EVENTS), AccessShareLock);
	index = index_open(evento_rel(EVENTO_REL_EVENTS_STREAM), AccessShareLock);
	event = table_slot_create(heap, NULL);
	category = category_of(name);
	scan = evento_index_beginscan(heap, index, GetActiveSnapshot(), 3);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(no));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(first));
	ScanKeyInit(&keys[2], 2, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(last));
	index_rescan(scan, keys, 3, NULL, 0);
	while (max-- > 0 &&
		   index_getnext_slot(scan, backwards ? BackwardScanDirection : ForwardScanDirection,
							  event))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(event);
		sink(result, event, name, category);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(event);
	index_close(index, NoLock);
	table_close(heap, NoLock);
}

static void
sink_event(ReturnSetInfo *result, TupleTableSlot *event, text *stream, text *category)
{
	put_event(result, event, stream, category, NULL);
}

/*
 * read_stream(stream, from_version, max, backwards): events of one stream.
 * STABLE: it sees what the statement that calls it sees.
 */
Datum
evento_read_stream(PG_FUNCTION_ARGS)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	bool		backwards = PG_ARGISNULL(3) ? false : PG_GETARG_BOOL(3);
	int64		from;
	int64		max;
	int			len;
	const char *bytes = evento_check_stream_name(name, &len);
	EventoStream stream;

	from = bigint_argument(fcinfo, 1, "from_version", 1, backwards ? PG_INT64_MAX : 1);
	max = bigint_argument(fcinfo, 2, "max", 0, PG_INT64_MAX);
	begin_rows(fcinfo, EVENTS_COLUMNS);

	if (evento_stream_by_name(bytes, len, GetActiveSnapshot(), &stream))
	{
		int64		oldest = stream.deleted_version + 1;

		walk_stream((ReturnSetInfo *) fcinfo->resultinfo, stream.no, name,
					backwards ? oldest : Max(oldest, from),
					backwards ? from : PG_INT64_MAX,
					max, backwards, sink_event);
	}
	PG_RETURN_NULL();
}

/* A row of type stream_part with an event in it. */
static void
put_part(ReturnSetInfo *result, TupleTableSlot *event, const char *part)
{
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];

	values[0] = CStringGetTextDatum(part);
	values[1] = event->tts_values[Anum_event_position - 1];
	values[2] = event->tts_values[Anum_event_version - 1];
	nulls[0] = nulls[1] = nulls[2] = false;
	fill_event(event, &values[3], &nulls[3]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	pfree(DatumGetPointer(values[0]));
}

static void
sink_stored(ReturnSetInfo *result, TupleTableSlot *event, text *stream, text *category)
{
	put_part(result, event, "stored");
}

static void
sink_part(ReturnSetInfo *result, TupleTableSlot *event, text *stream, text *category)
{
	put_part(result, event, "event");
}

/* A row of type stream_part without an event: the head, or a snapshot. */
static void
put_head(ReturnSetInfo *result, int64 head)
{
	Datum		values[MAX_COLUMNS] = {0};
	bool		nulls[MAX_COLUMNS];

	memset(nulls, true, sizeof(nulls));
	values[0] = CStringGetTextDatum("head");
	values[2] = Int64GetDatum(head);
	nulls[0] = nulls[2] = false;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_snapshot(ReturnSetInfo *result, EventoSnapshot *snapshot)
{
	Datum		values[MAX_COLUMNS] = {0};
	bool		nulls[MAX_COLUMNS];

	memset(nulls, true, sizeof(nulls));
	values[0] = CStringGetTextDatum("snapshot");
	values[2] = Int64GetDatum(snapshot->version);
	values[3 + COL_DATA] = PointerGetDatum(snapshot->state);
	values[3 + COL_RECORDED_AT] = TimestampTzGetDatum(snapshot->taken_at);
	nulls[0] = nulls[2] = nulls[3 + COL_DATA] = nulls[3 + COL_RECORDED_AT] = false;
	if (snapshot->class_name != NULL)
	{
		values[3 + COL_CLASS] = PointerGetDatum(snapshot->class_name);
		nulls[3 + COL_CLASS] = false;
	}
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * The parts of a stream that is there, under the active snapshot: stored,
 * snapshot, events.
 */
static void
load_parts(ReturnSetInfo *result, text *name, EventoStream *stream, int64 head,
		   int64 stored, bool with_snapshot, bool with_events)
{
	int64		behind = stream->deleted_version;

	if (stored > stream->deleted_version)
		walk_stream(result, stream->no, name, stored, stored, 1, false, sink_stored);
	if (!with_events)
		return;

	if (with_snapshot)
	{
		EventoSnapshot snapshot;

		/* One of before a deletion, or ahead of what is read here, is of no use. */
		if (evento_snapshot_find(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name),
								 GetActiveSnapshot(), &snapshot) &&
			snapshot.version > stream->deleted_version && snapshot.version <= head)
		{
			put_snapshot(result, &snapshot);
			behind = snapshot.version;
		}
	}
	walk_stream(result, stream->no, name, behind + 1, head, PG_INT64_MAX, false, sink_part);
}

/*
 * load_stream(stream, id, snapshot): head, the event with that id, the newest
 * snapshot, and the events behind it, all as one snapshot sees them.
 */
Datum
evento_load_stream(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	pg_uuid_t  *id = PG_ARGISNULL(1) ? NULL : PG_GETARG_UUID_P(1);
	bool		with_events = !PG_ARGISNULL(2);
	bool		with_snapshot = with_events && PG_GETARG_BOOL(2);
	int			len;
	const char *bytes = evento_check_stream_name(name, &len);
	EventoLookup *lookup;
	EventoStream stream;
	int64		head = 0;
	int64		stored = 0;
	bool		found;

	begin_rows(fcinfo, PART_COLUMNS);
	PushActiveSnapshot(GetTransactionSnapshot());

	lookup = evento_lookup_begin(GetActiveSnapshot());
	found = evento_lookup_name(lookup, bytes, len, &stream);
	if (found)
	{
		head = evento_lookup_head(lookup, stream.no);
		if (id != NULL)
			stored = evento_lookup_id(lookup, stream.no, id, evento_id_window);
	}
	evento_lookup_end(lookup);

	put_head(result, head);
	if (found)
		load_parts(result, name, &stream, head, stored, with_snapshot, with_events);
	PopActiveSnapshot();

	/*
	 * The caller will answer that the event is stored.  Its writer may still
	 * wait for a synchronous standby, having been cut off from its own caller:
	 * so the commit of this transaction waits for that too.
	 */
	if (stored > 0)
		evento_durable_commit();
	PG_RETURN_NULL();
}
