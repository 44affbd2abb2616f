/*
 * batch.c
 *	  append_batch: decodes the packed form of include/packed.h, hands each
 *	  item to the way of every append, and gives a row for each.
 *
 * What breaks the form (lengths, unknown flags) fails the call: nothing after
 * it could be trusted.  What is wrong inside an item fails that item.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "evento.h"

/* Where the decoder stands. */
typedef struct Reader
{
	const char *start;
	const char *at;
	const char *end;			/* of the item, or of the batch between items */
	int			item;			/* from 1; 0: before the first */
} Reader;

EVENTO_NORETURN static void
malformed(const Reader *reader, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_EVENTO_MALFORMED_BATCH),
			 errmsg("malformed batch: %s", what),
			 errdetail("Item %d, byte %zu.", reader->item, (size_t) (reader->at - reader->start))));
}

/* Gives n bytes and steps over them. */
static const char *
take(Reader *reader, size_t n, const char *what)
{
	const char *bytes = reader->at;

	if (n > (size_t) (reader->end - reader->at))
		malformed(reader, psprintf("%s runs over the end", what));
	reader->at += n;
	return bytes;
}

static int
take_u8(Reader *reader, const char *what)
{
	return (unsigned char) *take(reader, 1, what);
}

static int
take_u16(Reader *reader, const char *what)
{
	uint16		value;

	memcpy(&value, take(reader, sizeof(value), what), sizeof(value));
	return pg_ntoh16(value);
}

static uint32
take_u32(Reader *reader, const char *what)
{
	uint32		value;

	memcpy(&value, take(reader, sizeof(value), what), sizeof(value));
	return pg_ntoh32(value);
}

static int64
take_i64(Reader *reader, const char *what)
{
	uint64		value;

	memcpy(&value, take(reader, sizeof(value), what), sizeof(value));
	return (int64) pg_ntoh64(value);
}

/* A text with a length of 16 bits; NULL where it is empty. */
static const char *
take_text(Reader *reader, int *len, const char *what)
{
	*len = take_u16(reader, what);
	if (*len == 0)
		return NULL;
	return take(reader, *len, what);
}

/* A text with a length of 32 bits.  The batch is a bytea, so its length fits an int. */
static const char *
take_long_text(Reader *reader, int *len, const char *what)
{
	uint32		n = take_u32(reader, what);
	const char *bytes = take(reader, n, what);

	*len = (int) n;
	return bytes;
}

static void
read_event(Reader *reader, EventoNewEvent *event)
{
	int			flags = take_u8(reader, "flags of an event");

	if (flags & ~EVENTO_EVENT_FLAGS)
		malformed(reader, psprintf("unknown event flags 0x%02x", flags));
	memset(event, 0, sizeof(*event));
	event->service = (flags & EVENTO_EVENT_SERVICE) != 0;
	event->force_telemetry = (flags & EVENTO_EVENT_FORCE_TELEMETRY) != 0;
	if (flags & EVENTO_EVENT_ID)
	{
		event->has_id = true;
		memcpy(event->id.data, take(reader, UUID_LEN, "id of an event"), UUID_LEN);
	}
	if (flags & EVENTO_EVENT_TIMESTAMP)
	{
		event->has_timestamp = true;
		event->timestamp_ms = take_i64(reader, "timestamp of an event");
	}
	event->type = take_text(reader, &event->type_len, "type of an event");
	event->context = take_text(reader, &event->context_len, "context of an event");
	if (event->context == NULL)
	{
		event->context = "default";
		event->context_len = strlen("default");
	}
	event->class_name = take_text(reader, &event->class_len, "class of an event");
	event->data = take_long_text(reader, &event->data_len, "data of an event");
	if (flags & EVENTO_EVENT_METADATA)
		event->metadata = take_long_text(reader, &event->metadata_len, "metadata of an event");
}

/* Reads one item, whose end the reader has; the texts point into the batch. */
static void
read_item(Reader *reader, EventoAppend *append)
{
	/* The shortest event: flags, four lengths. */
	const int	min_event = 1 + 3 * sizeof(uint16) + sizeof(uint32);

	memset(append, 0, sizeof(*append));
	append->flags = take_u16(reader, "flags of an item");
	if (append->flags & ~EVENTO_ITEM_FLAGS)
		malformed(reader, psprintf("unknown item flags 0x%04x", append->flags));
	append->expected = take_i64(reader, "expected version");
	append->stream = take_text(reader, &append->stream_len, "stream");
	if (append->flags & EVENTO_ITEM_LOCK)
	{
		append->lock = take_text(reader, &append->lock_len, "lock");
		append->fence = take_i64(reader, "fence");
	}
	if (append->flags & EVENTO_ITEM_SINCE)
		append->since = take_i64(reader, "since");
	if (append->flags & EVENTO_ITEM_SNAPSHOT)
	{
		append->snapshot_class = take_text(reader, &append->snapshot_class_len,
										   "class of a snapshot");
		append->snapshot_state = take_long_text(reader, &append->snapshot_state_len,
												"state of a snapshot");
	}

	append->nevents = take_u16(reader, "number of events");
	if (append->nevents == 0)
		malformed(reader, "an item without events");
	if (append->nevents > (reader->end - reader->at) / min_event)
		malformed(reader, "more events announced than there is room for");
	append->events = palloc(append->nevents * sizeof(EventoNewEvent));
	for (int i = 0; i < append->nevents; i++)
		read_event(reader, &append->events[i]);
	if (reader->at != reader->end)
		malformed(reader, "bytes left over in an item");
}

static void
put_outcome(ReturnSetInfo *rsinfo, const EventoAppend *append, const EventoOutcome *outcome)
{
	Datum		values[4] = {0};
	bool		nulls[4] = {false, true, true, true};
	const char *detail = NULL;

	if (outcome->sqlstate == 0)
	{
		values[0] = CStringGetTextDatum(EVENTO_SQLSTATE_OK);
		if (append->stream != NULL)
		{
			values[1] = Int64GetDatum(outcome->first);
			values[2] = Int64GetDatum(outcome->last);
			nulls[1] = nulls[2] = false;
		}
		/* Whoever answers with an event must answer with the stored one. */
		if (outcome->repeat)
			detail = "repeat";
	}
	else
	{
		values[0] = CStringGetTextDatum(unpack_sql_state(outcome->sqlstate));
		detail = outcome->detail == NULL ? outcome->message :
			psprintf("%s: %s", outcome->message, outcome->detail);
	}
	if (detail != NULL)
	{
		values[3] = CStringGetTextDatum(detail);
		nulls[3] = false;
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* SQL: append_batch(appends bytea) */
PG_FUNCTION_INFO_V1(evento_append_batch);
Datum
evento_append_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bytea	   *batch;
	Reader		reader = {0};
	uint32		nitems;
	MemoryContext per_item;
	MemoryContext caller;
	const char *before = NULL;	/* stream of the last item, where it has appended something */
	int			before_len = 0;

	evento_check_write("append_batch()");
	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_EVENTO_MALFORMED_BATCH),
				 errmsg("malformed batch: it is NULL")));
	batch = PG_GETARG_BYTEA_PP(0);
	reader.start = reader.at = VARDATA_ANY(batch);
	reader.end = reader.start + VARSIZE_ANY_EXHDR(batch);

	if (take_u32(&reader, "magic") != EVENTO_PACKED_MAGIC)
		malformed(&reader, "it does not start with the magic number");
	nitems = take_u32(&reader, "number of items");
	if (nitems < 1 || nitems > EVENTO_PACKED_MAX_ITEMS)
		malformed(&reader, psprintf("%u items, not 1 to %d", nitems, EVENTO_PACKED_MAX_ITEMS));

	evento_stats_count(EVENTO_STAT_BATCHES, 1);

	/* In the memory of this call, which an error gives back, too. */
	evento_buffer_lookups_begin();
	per_item = AllocSetContextCreate(CurrentMemoryContext, "evento batch item",
									 ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(per_item);
	for (uint32 i = 0; i < nitems; i++)
	{
		const char *batch_end = reader.end;
		EventoAppend append;
		EventoOutcome outcome;
		uint32		len;

		CHECK_FOR_INTERRUPTS();
		reader.item = (int) i + 1;
		len = take_u32(&reader, "length of an item");
		if (len > (size_t) (reader.end - reader.at))
			malformed(&reader, "an item runs over the end");
		reader.end = reader.at + len;
		read_item(&reader, &append);
		reader.end = batch_end;

		append.unchained = (append.flags & EVENTO_ITEM_CHAINED) &&
			!(before != NULL && append.stream != NULL && append.stream_len == before_len &&
			  memcmp(append.stream, before, before_len) == 0);
		evento_append_item(&append, &outcome);
		before = outcome.sqlstate == 0 && !outcome.repeat ? append.stream : NULL;
		before_len = append.stream_len;
		put_outcome(rsinfo, &append, &outcome);
		MemoryContextReset(per_item);
	}
	if (reader.at != reader.end)
		malformed(&reader, "bytes left over behind the last item");
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(per_item);
	evento_buffer_lookups_end();
	return (Datum) 0;
}
