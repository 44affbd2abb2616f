/*
 * append.c
 *	  The SQL-callable appends, and what every append goes through: checks,
 *	  locks, the rule of ids, the expected version, the buffer.
 *
 * Whatever can be wrong with one append alone comes back in an EventoOutcome:
 * append and append_events raise it, append_batch gives it as a row.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "compat.h"
#include "evento.h"

/* Prefix of the message in the WAL that makes a repeat wait as its first try did. */
#define REPEAT_MESSAGE "evento"

/* Columns of the type evento.new_event. */
enum
{
	Anum_new_type = 1,
	Anum_new_data,
	Anum_new_metadata,
	Anum_new_id,
	Anum_new_context,
	Anum_new_class,
	Anum_new_kind,
	Natts_new = Anum_new_kind
};

static char *
stream_label(const EventoAppend *append)
{
	return append->stream != NULL ?
		psprintf("stream \"%s\"", pnstrdup(append->stream, append->stream_len)) :
		pstrdup("an event without stream");
}

/* ---- ids ---- */

/*
 * UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits.  Random bytes
 * are drawn for many ids at a time.
 */
static void
make_id(pg_uuid_t *id, TimestampTz now)
{
	enum
	{
		RANDOM_BYTES = 10,
		POOLED = 64
	};
	static unsigned char pool[RANDOM_BYTES * POOLED];
	static int	left = 0;
	uint64		ms = (uint64) (now / 1000 + EVENTO_MS_UNIX_TO_POSTGRES);

	if (left == 0)
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = POOLED;
	}
	left--;
	for (int i = 0; i < 6; i++)
		id->data[i] = (unsigned char) (ms >> (40 - 8 * i));
	memcpy(&id->data[6], &pool[left * RANDOM_BYTES], RANDOM_BYTES);
	id->data[6] = (id->data[6] & 0x0f) | 0x70;
	id->data[8] = (id->data[8] & 0x3f) | 0x80;
}

static bool
same_text(Datum datum, const char *value, int len)
{
	text	   *stored = DatumGetTextPP(datum);
	bool		same = VARSIZE_ANY_EXHDR(stored) == len && memcmp(VARDATA_ANY(stored), value, len) == 0;

	/* A large one was put together for this alone. */
	if ((Pointer) stored != DatumGetPointer(datum))
		pfree(stored);
	return same;
}

/*
 * Whether the event in a slot has this type and data.  Of one whose data was
 * erased nobody can say what it had: the type decides.
 */
static bool
same_content(TupleTableSlot *slot, const EventoNewEvent *event)
{
	bool		type_isnull;
	bool		data_isnull;
	Datum		type = slot_getattr(slot, Anum_event_type, &type_isnull);
	Datum		data = slot_getattr(slot, Anum_event_data, &data_isnull);

	return !type_isnull && same_text(type, event->type, event->type_len) &&
		(data_isnull || same_text(data, event->data, event->data_len));
}

/*
 * Whether the event in a slot has this id.  *same, unless it is false already:
 * whether it has this type and data.
 */
static bool
same_event(TupleTableSlot *slot, const EventoNewEvent *event, bool *same)
{
	bool		isnull;
	Datum		id = slot_getattr(slot, Anum_event_id, &isnull);

	if (isnull || memcmp(DatumGetUUIDP(id), &event->id, UUID_LEN) != 0)
		return false;
	*same = *same && same_content(slot, event);
	return true;
}

/* The same for what is stored as a version of a stream. */
static bool
same_as_stored(const EventoEntry *entry, int64 version, const EventoNewEvent *event, bool *same)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_EVENTS), AccessShareLock);
	Relation	index = index_open(evento_rel(EVENTO_REL_EVENTS_STREAM), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	IndexScanDesc scan = evento_index_beginscan(heap, index, SnapshotSelf, 2);
	ScanKeyData keys[2];
	bool		found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(entry->row.no));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(version));
	index_rescan(scan, keys, 2, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot) && same_event(slot, event, same);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(heap, NoLock);
	return found;
}

/* The same for an event in the buffer. */
static bool
same_as_buffered(int64 at, const EventoNewEvent *event, bool *same)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_EVENTS), AccessShareLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(heap), &TTSOpsHeapTuple);
	bool		copied;
	bool		found;
	HeapTuple	tuple = evento_buffer_tuple(at, &copied);

	ExecStoreHeapTuple(tuple, slot, copied);
	found = same_event(slot, event, same);
	ExecDropSingleTupleTableSlot(slot);
	table_close(heap, NoLock);
	return found;
}

/* Version that has an id, among the newest ones buffered or stored; 0 for none. */
static int64
find_id(EventoEntry *entry, const EventoAppend *append, const pg_uuid_t *id)
{
	int			window = evento_id_window;
	int64		at = evento_buffer_find_id(entry, id, window);

	if (at >= 0)
		return evento_buffer_version(at);
	if (entry->stored_head == 0 || entry->buffered >= window)
		return 0;
	window -= (int) entry->buffered;
	if ((append->flags & EVENTO_ITEM_IDS_KNOWN) && append->expected >= 0)
	{
		if (append->expected >= entry->stored_head)
			return 0;
		window = (int) Min(window, entry->stored_head - append->expected);
	}
	else if (!evento_ids_may_have(evento_buffer_lookup(), evento_buffer_filenode(), entry->row.no,
								  entry->stored_head, id))
		return 0;
	if (evento_buffer_lookup() != NULL)
		return evento_lookup_id(evento_buffer_lookup(), entry->row.no, id, window);
	return evento_stream_find_id(entry->row.no, id, window, SnapshotSelf);
}

/*
 * A repeat stores nothing, but its caller takes success for "it is safe": so
 * this transaction, too, has to wait for the disk and for a synchronous standby.
 */
static void
outcome_repeat(EventoOutcome *outcome, int64 first, int64 last)
{
	outcome->repeat = true;
	outcome->first = first;
	outcome->last = last;
	(void) evento_log_message(REPEAT_MESSAGE, "", 0);
	ForceSyncCommit();
}

static void
outcome_id_clash(EventoOutcome *outcome, const EventoAppend *append, const char *detail)
{
	evento_outcome_set(outcome, ERRCODE_EVENTO_ID_CLASH,
				psprintf("event id is used for other content in %s", stream_label(append)),
				pstrdup(detail), NULL);
}

/*
 * The rule of ids: where the stream has all the ids that were given, where
 * they would stand had this append succeeded before, this is its repeat.  True
 * where that decides the outcome; false where no id is there yet.
 *
 * Ids are looked for among the newest versions only.  But one that is found
 * says where all the others must stand, be that further back.
 */
static bool
decide_by_ids(EventoEntry *entry, const EventoAppend *append, EventoOutcome *outcome)
{
	int64		before = -1;	/* version before the first event of the first try */
	bool		found = false;
	bool		fits;
	bool		same = true;

	for (int i = append->nevents - 1; i >= 0 && !found; i--)
	{
		int64		version;

		CHECK_FOR_INTERRUPTS();
		if (!append->events[i].has_id)
			continue;
		version = find_id(entry, append, &append->events[i].id);
		found = version != 0;
		before = version - 1 - i;
	}
	if (!found)
		return false;

	fits = before >= 0 && before + append->nevents <= entry->stored_head + entry->buffered;
	for (int i = append->nevents - 1; i >= 0 && fits; i--)
	{
		const EventoNewEvent *event = &append->events[i];
		int64		version = before + 1 + i;

		CHECK_FOR_INTERRUPTS();
		if (event->has_id)
			fits = version > entry->stored_head ?
				same_as_buffered(evento_buffer_find_version(entry, version), event, &same) :
				same_as_stored(entry, version, event, &same);
	}
	if (!fits)
		outcome_id_clash(outcome, append, "Some of the ids are there, others are not, or they stand elsewhere.");
	else if (!same && !(append->flags & EVENTO_ITEM_SAME_ID_WINS))
		outcome_id_clash(outcome, append, "The event that has the id differs in type or data.");
	else
		outcome_repeat(outcome, before + 1, before + append->nevents);
	return true;
}

/* Looks for the id of an event without stream among the positions behind since. */
static bool
find_since(const EventoAppend *append, const EventoNewEvent *event, bool *same)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_EVENTS), AccessShareLock);
	Relation	index = index_open(evento_rel(EVENTO_REL_EVENTS_POSITION), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	IndexScanDesc scan = evento_index_beginscan(heap, index, SnapshotSelf, 1);
	ScanKeyData key;
	bool		found = false;

	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(append->since));
	index_rescan(scan, &key, 1, NULL, 0);
	while (!found && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		id;

		CHECK_FOR_INTERRUPTS();
		(void) slot_getattr(slot, Anum_event_stream_no, &isnull);
		if (!isnull)
			continue;
		id = slot_getattr(slot, Anum_event_id, &isnull);
		if (memcmp(DatumGetUUIDP(id), &event->id, UUID_LEN) == 0)
		{
			found = true;
			*same = same_content(slot, event);
		}
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(heap, NoLock);
	return found;
}

/*
 * Events without stream: each id is locked, looked for in the buffer, and with
 * EVENTO_ITEM_SINCE among the positions behind that.  True where the outcome
 * is decided.
 */
static bool
decide_streamless(const EventoAppend *append, EventoOutcome *outcome)
{
	int			given = 0;
	int			found = 0;
	bool		all_same = true;

	for (int i = 0; i < append->nevents; i++)
	{
		const EventoNewEvent *event = &append->events[i];
		int64		at;
		bool		same = true;

		if (!event->has_id)
			continue;
		given++;
		if (evento_buffer_entry(EVENTO_LOCK_ID, (const char *) event->id.data, UUID_LEN,
								append->wait) == NULL)
		{
			evento_outcome_set(outcome, ERRCODE_LOCK_NOT_AVAILABLE,
						pstrdup("the event id is being appended"), NULL, NULL);
			return true;
		}
		at = evento_buffer_find_id(NULL, &event->id, evento_id_window);
		if (at >= 0)
			(void) same_as_buffered(at, event, &same);
		else if (!(append->flags & EVENTO_ITEM_SINCE) || !find_since(append, event, &same))
			continue;
		found++;
		all_same = all_same && same;
	}
	if (found == 0)
		return false;
	if (found < given)
		outcome_id_clash(outcome, append, "Some of the ids are there, others are not.");
	else if (!all_same && !(append->flags & EVENTO_ITEM_SAME_ID_WINS))
		outcome_id_clash(outcome, append, "The event that has the id differs in type or data.");
	else
		outcome_repeat(outcome, 0, 0);
	return true;
}

/* ---- locks of commands ---- */

/*
 * Whether evento._locks has a row of a name: any, or the one with this fence.
 * The caller has the lock under which such rows are written.
 */
static bool
has_lock_row(const char *name, int len, bool any, int64 fence)
{
	EventoLookup *lookup = evento_buffer_lookup();
	bool		found;

	if (lookup != NULL)
		return evento_lookup_lock(lookup, name, len, any, fence);
	lookup = evento_lookup_begin(SnapshotSelf);
	found = evento_lookup_lock(lookup, name, len, any, fence);
	evento_lookup_end(lookup);
	return found;
}

/* True where an item may go on as far as locks of commands are concerned. */
static bool
check_command_locks(const EventoAppend *append, EventoOutcome *outcome)
{
	if (append->flags & EVENTO_ITEM_LOCK)
	{
		if (!evento_buffer_share(append->lock, append->lock_len))
		{
			evento_outcome_set(outcome, ERRCODE_LOCK_NOT_AVAILABLE,
						pstrdup("the lock is changing hands"), NULL, NULL);
			return false;
		}
		if (!has_lock_row(append->lock, append->lock_len, false, append->fence))
		{
			evento_outcome_set(outcome, ERRCODE_EVENTO_LOCK_LOST,
						psprintf("lock \"%s\" is no longer held with fence " INT64_FORMAT,
								 pnstrdup(append->lock, append->lock_len), append->fence),
						NULL, NULL);
			return false;
		}
	}
	if ((append->flags & EVENTO_ITEM_UNLOCKED) &&
		has_lock_row(append->stream, append->stream_len, true, 0))
	{
		evento_outcome_set(outcome, ERRCODE_LOCK_NOT_AVAILABLE,
					psprintf("lock row has the name of %s", stream_label(append)),
					NULL, NULL);
		return false;
	}
	return true;
}

/* ---- the way of every append ---- */

static void
buffer_events(EventoEntry *entry, const EventoAppend *append, EventoOutcome *outcome)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < append->nevents; i++)
	{
		EventoNewEvent event = append->events[i];
		TimestampTz timestamp = event.has_timestamp ?
			(event.timestamp_ms - EVENTO_MS_UNIX_TO_POSTGRES) * 1000 : now;
		int64		version;

		CHECK_FOR_INTERRUPTS();
		if (!event.has_id)
			make_id(&event.id, now);
		version = evento_buffer_add(entry, &event, timestamp);
		if (i == 0)
			outcome->first = version;
		outcome->last = version;
	}
}

static void
follow_snapshots(const EventoAppend *append, const EventoOutcome *outcome)
{
	if (append->flags & EVENTO_ITEM_DROP_SNAPSHOTS)
		(void) evento_snapshot_drop(append->stream, append->stream_len);
	else if (append->flags & EVENTO_ITEM_SNAPSHOT)
		(void) evento_snapshot_save(append->stream, append->stream_len, outcome->last,
									append->snapshot_class == NULL ? NULL :
									cstring_to_text_with_len(append->snapshot_class,
															 append->snapshot_class_len),
									cstring_to_text_with_len(append->snapshot_state,
															 append->snapshot_state_len));
}

static void
append_item(const EventoAppend *append, EventoOutcome *outcome)
{
	EventoEntry *entry = NULL;
	int64		head;

	memset(outcome, 0, sizeof(*outcome));
	if (!evento_check_append(append, outcome))
		return;

	if (append->stream == NULL)
	{
		if (decide_streamless(append, outcome) || !check_command_locks(append, outcome))
			return;
		buffer_events(NULL, append, outcome);
		return;
	}

	entry = evento_buffer_entry(EVENTO_LOCK_STREAM, append->stream, append->stream_len, append->wait);
	if (entry == NULL)
	{
		evento_outcome_set(outcome, ERRCODE_LOCK_NOT_AVAILABLE,
					psprintf("%s is busy", stream_label(append)), NULL, NULL);
		return;
	}
	evento_buffer_load(entry);
	if (entry->row.tombstone)
	{
		/* Whether the id is there, too, is no longer of use to anyone. */
		evento_outcome_deleted(outcome, append->stream, append->stream_len);
		return;
	}
	if (decide_by_ids(entry, append, outcome) || !check_command_locks(append, outcome))
		return;

	head = entry->stored_head + entry->buffered;
	if (append->unchained)
		evento_outcome_set(outcome, ERRCODE_EVENTO_WRONG_VERSION,
					psprintf("the append to %s before this one was not stored", stream_label(append)),
					NULL, NULL);
	else if (!evento_expected_met(append->expected, head, entry->row.deleted_version) ||
			 ((append->flags & EVENTO_ITEM_NOT_DELETED) && head > 0 && head == entry->row.deleted_version))
		evento_outcome_wrong_version(outcome, append->stream, append->stream_len, append->expected,
							  head, entry->row.deleted_version);
	else
	{
		buffer_events(entry, append, outcome);
		follow_snapshots(append, outcome);
	}
}

void
evento_append_item(const EventoAppend *append, EventoOutcome *outcome)
{
	append_item(append, outcome);
	evento_stats_outcome(outcome);
}

/* ---- SQL ---- */

static bool
kind_is_service(text *kind)
{
	if (kind == NULL || same_text(PointerGetDatum(kind), "domain", 6))
		return false;
	if (!same_text(PointerGetDatum(kind), "service", 7))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("kind must be domain or service, not \"%s\"", text_to_cstring(kind))));
	return true;
}

static void
event_from_sql(EventoNewEvent *event, text *type, text *data, text *metadata, pg_uuid_t *id,
			   text *context, text *class_name, text *kind)
{
	memset(event, 0, sizeof(*event));
	if (type == NULL || data == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be NULL", type == NULL ? "type" : "data")));
	event->type = VARDATA_ANY(type);
	event->type_len = VARSIZE_ANY_EXHDR(type);
	event->data = VARDATA_ANY(data);
	event->data_len = VARSIZE_ANY_EXHDR(data);
	if (metadata != NULL)
	{
		event->metadata = VARDATA_ANY(metadata);
		event->metadata_len = VARSIZE_ANY_EXHDR(metadata);
	}
	if (id != NULL)
	{
		event->has_id = true;
		event->id = *id;
	}
	event->context = context != NULL ? VARDATA_ANY(context) : "default";
	event->context_len = context != NULL ? VARSIZE_ANY_EXHDR(context) : 7;
	if (class_name != NULL)
	{
		event->class_name = VARDATA_ANY(class_name);
		event->class_len = VARSIZE_ANY_EXHDR(class_name);
	}
	event->service = kind_is_service(kind);
}

static void
append_from_sql(EventoAppend *append, text *stream, EventoNewEvent *events, int nevents,
				bool any, int64 expected, EventoOutcome *outcome)
{
	memset(append, 0, sizeof(*append));
	if (stream != NULL)
	{
		append->stream = VARDATA_ANY(stream);
		append->stream_len = VARSIZE_ANY_EXHDR(stream);
	}
	append->events = events;
	append->nevents = nevents;
	append->expected = any ? EVENTO_EXPECTED_ANY : expected;
	/* What stands for any version in the packed form is no version in SQL. */
	if (!any && expected == EVENTO_EXPECTED_ANY)
		evento_check_expected("", 0, false, expected, 0, 0);
	append->wait = true;
	evento_append_item(append, outcome);
	evento_outcome_raise(outcome);
}

#define GETARG_TEXT_OR_NULL(n) (PG_ARGISNULL(n) ? NULL : PG_GETARG_TEXT_PP(n))

/* SQL: append(stream, type, data, metadata, expected, id, context, class, kind) */
PG_FUNCTION_INFO_V1(evento_append);
Datum
evento_append(PG_FUNCTION_ARGS)
{
	EventoNewEvent event;
	EventoAppend append;
	EventoOutcome outcome;

	evento_check_write("append()");
	event_from_sql(&event, GETARG_TEXT_OR_NULL(1), GETARG_TEXT_OR_NULL(2), GETARG_TEXT_OR_NULL(3),
				   PG_ARGISNULL(5) ? NULL : PG_GETARG_UUID_P(5),
				   GETARG_TEXT_OR_NULL(6), GETARG_TEXT_OR_NULL(7), GETARG_TEXT_OR_NULL(8));
	append_from_sql(&append, GETARG_TEXT_OR_NULL(0), &event, 1,
					PG_ARGISNULL(4), PG_ARGISNULL(4) ? 0 : PG_GETARG_INT64(4), &outcome);
	if (append.stream == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(outcome.last);
}

/* One element of new_event[]. */
static void
event_from_composite(EventoNewEvent *event, Datum composite)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(composite);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
											  HeapTupleHeaderGetTypMod(header));
	HeapTupleData tuple;
	Datum		values[Natts_new];
	bool		nulls[Natts_new];
	text	   *texts[Natts_new];

	if (desc->natts != Natts_new)
		elog(ERROR, "evento.new_event has %d attributes, not %d", desc->natts, Natts_new);
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, values, nulls);
	ReleaseTupleDesc(desc);

	for (int i = 0; i < Natts_new; i++)
		texts[i] = nulls[i] || i == Anum_new_id - 1 ? NULL : DatumGetTextPP(values[i]);
	event_from_sql(event, texts[Anum_new_type - 1], texts[Anum_new_data - 1],
				   texts[Anum_new_metadata - 1],
				   nulls[Anum_new_id - 1] ? NULL : DatumGetUUIDP(values[Anum_new_id - 1]),
				   texts[Anum_new_context - 1], texts[Anum_new_class - 1], texts[Anum_new_kind - 1]);
}

/* SQL: append_events(stream, events new_event[], expected) */
PG_FUNCTION_INFO_V1(evento_append_events);
Datum
evento_append_events(PG_FUNCTION_ARGS)
{
	ArrayType  *array;
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int16		typlen;
	bool		typbyval;
	char		typalign;
	EventoNewEvent *events;
	EventoAppend append;
	EventoOutcome outcome;

	evento_check_write("append_events()");
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events must not be NULL")));
	array = PG_GETARG_ARRAYTYPE_P(1);
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign, &elements, &nulls, &n);
	events = palloc(Max(n, 1) * sizeof(EventoNewEvent));
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("event %d must not be NULL", i + 1)));
		event_from_composite(&events[i], elements[i]);
	}
	append_from_sql(&append, GETARG_TEXT_OR_NULL(0), events, n,
					PG_ARGISNULL(2), PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2), &outcome);
	if (append.stream == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(outcome.last);
}
