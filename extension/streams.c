/*
 * streams.c
 *	  The end of a stream: its deletion, after which it may go on, and its
 *	  tombstone, after which it never does.  And the lock of a stream by name.
 *
 * Everything here that writes holds the stream's lock, so rows are found under
 * SnapshotSelf: the last committed state and what this transaction has written.
 *
 * Rows of _streams are written at once, not at PRE_COMMIT as events are: so a
 * savepoint that is rolled back takes a deletion with it, and needs no help for
 * that.  A row may say that versions are hidden which are still in the buffer.
 * A stream whose events are all in the buffer, or that never had any, gets a
 * row with a negative number, which its first event's position replaces.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/async.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"
#include "streams.h"

/* Bits of a number that tell those of one transaction apart: more than it can lock streams. */
#define NUMBER_BITS 20

PG_FUNCTION_INFO_V1(evento_delete_stream);
PG_FUNCTION_INFO_V1(evento_tombstone_stream);
PG_FUNCTION_INFO_V1(evento_lock_key);

/*
 * Makes the commit of this transaction wait for WAL flush and synchronous
 * standbys although it may have written nothing: for who answers that
 * something is stored that another transaction wrote.  Does nothing on a
 * standby, which has no say in that.
 */
void
evento_durable_commit(void)
{
	if (RecoveryInProgress())
		return;
	ForceSyncCommit();
	(void) evento_log_message("evento", "", 0);
}

/*
 * A number for a stream that has no event with a position yet.  Negative, and
 * made of the transaction's own id, so that no other transaction can come to
 * the same one at the same time; one that is there comes from another cluster
 * by way of a dump, or from this transaction.
 */
static int64
provisional_number(void)
{
	static uint32 counter = 0;
	uint64		xid = U64FromFullTransactionId(GetTopFullTransactionId());
	const uint64 mask = (UINT64CONST(1) << NUMBER_BITS) - 1;
	int64		no;

	if (xid > (uint64) (PG_INT64_MAX >> NUMBER_BITS))
		elog(ERROR, "transaction id is too large for the number of a stream");
	do
	{
		CHECK_FOR_INTERRUPTS();
		no = -(int64) ((xid << NUMBER_BITS) | (counter++ & mask));
	} while (evento_stream_no_exists(no, SnapshotSelf));
	return no;
}

/* The row of a stream that has one, as it is now; palloc'd. */
static HeapTuple
stored_row(Relation heap, int64 no)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;

	ScanKeyInit(&key, Anum_stream_no, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(no));
	scan = systable_beginscan(heap, evento_rel(EVENTO_REL_STREAMS_PKEY), true, SnapshotSelf,
							  1, &key);
	row = systable_getnext(scan);
	if (!HeapTupleIsValid(row))
		elog(ERROR, "stream " INT64_FORMAT " has lost its row", no);
	row = heap_copytuple(row);
	systable_endscan(scan);
	return row;
}

/*
 * Hides the events of a stream up to version, its last, in its row, which is
 * made where it has none.  Events that were hidden before keep the time of that.
 */
static void
hide_events(StreamArgument *stream, bool tombstone)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_STREAMS), RowExclusiveLock);
	HeapTuple	old = NULL;
	HeapTuple	row;
	Datum		values[Natts_stream];
	bool		nulls[Natts_stream] = {false};

	if (stream->exists)
	{
		old = stored_row(heap, stream->row.no);
		evento_deform_row(heap, Natts_stream, old, values, nulls);
	}
	else
	{
		values[Anum_stream_no - 1] = Int64GetDatum(provisional_number());
		values[Anum_stream_name - 1] =
			PointerGetDatum(cstring_to_text_with_len(stream->name, stream->len));
		nulls[Anum_stream_deleted_at - 1] = true;
	}
	values[Anum_stream_deleted_version - 1] = Int64GetDatum(stream->head);
	if (nulls[Anum_stream_deleted_at - 1] || stream->head > stream->row.deleted_version)
	{
		values[Anum_stream_deleted_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
		nulls[Anum_stream_deleted_at - 1] = false;
	}
	values[Anum_stream_tombstone - 1] = BoolGetDatum(tombstone);
	row = evento_form_row(heap, Natts_stream, values, nulls);
	evento_row_write(heap, row, old == NULL ? NULL : &old->t_self);
	CommandCounterIncrement();
	table_close(heap, NoLock);
}

/*
 * What delete_stream and tombstone_stream begin with: the stream, locked, and
 * found to be what was expected.
 */
static void
open_stream(FunctionCallInfo fcinfo, const char *what, StreamArgument *stream)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	int64		expected = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);

	evento_stream_argument(name, what, true, stream);
	evento_check_not_tombstoned(stream->name, stream->len, &stream->row);
	evento_check_expected(stream->name, stream->len, PG_ARGISNULL(1), expected, stream->head,
						  stream->row.deleted_version);
}

/*
 * delete_stream(stream, expected): hides the events of a stream from every
 * read, also those that this transaction has appended, and gives its last
 * version, 0 where there is no such stream.
 */
Datum
evento_delete_stream(PG_FUNCTION_ARGS)
{
	StreamArgument stream;

	open_stream(fcinfo, "delete_stream", &stream);

	/* One that is hidden already keeps the time of its deletion. */
	if (stream.head > stream.row.deleted_version)
		hide_events(&stream, false);
	(void) evento_snapshot_drop(stream.name, stream.len);
	evento_story_changed(stream.name, stream.len);

	/* Nobody shall see it deleted, and see it again after a crash. */
	ForceSyncCommit();
	PG_RETURN_INT64(stream.head);
}

/*
 * tombstone_stream(stream, expected): the same for ever, also for a stream that
 * there never was.
 */
Datum
evento_tombstone_stream(PG_FUNCTION_ARGS)
{
	StreamArgument stream;

	open_stream(fcinfo, "tombstone_stream", &stream);
	hide_events(&stream, true);
	(void) evento_snapshot_drop(stream.name, stream.len);
	(void) evento_metadata_clear(stream.name, stream.len);
	evento_story_changed(stream.name, stream.len);
	ForceSyncCommit();
	PG_RETURN_INT64(stream.head);
}

/* A stream as the first argument of a function that changes something of it. */
void
evento_stream_argument(text *name, const char *what, bool change, StreamArgument *stream)
{
	evento_check_write(what);
	stream->name = evento_check_stream_name(name, &stream->len);
	stream->head = evento_stream_head_locked(stream->name, stream->len, change, &stream->row,
											 &stream->exists, &stream->buffered);
}

void
evento_story_changed(const char *name, int len)
{
	char	   *payload = pnstrdup(name, len);

	Async_Notify("evento_story", payload);
	pfree(payload);
}

/*
 * OID of a relation that the first version of the extension has not got.  The
 * functions that ask have come with it, but may be called by who has dropped it.
 */
Oid
evento_later_rel(const char *name)
{
	Oid			rel = get_relname_relid(name, get_rel_namespace(evento_rel(EVENTO_REL_STREAMS)));

	if (!OidIsValid(rel))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("extension \"evento\" is incomplete in this database"),
				 errdetail("There is no \"%s\".", name),
				 errhint("Run ALTER EXTENSION evento UPDATE.")));
	return rel;
}

/* V0003 where a stream was deleted for good. */
void
evento_check_not_tombstoned(const char *name, int len, const EventoStream *row)
{
	EventoOutcome outcome = {0};

	if (!row->tombstone)
		return;
	evento_outcome_deleted(&outcome, name, len);
	evento_outcome_raise(&outcome);
}

/*
 * _lock_key(name): takes, for this transaction, the lock that an append to the
 * stream of that name takes.
 */
Datum
evento_lock_key(PG_FUNCTION_ARGS)
{
	int			len;
	const char *bytes;

	evento_check_write("_lock_key");
	bytes = evento_check_stream_name(PG_GETARG_TEXT_PP(0), &len);
	evento_lock_stream(bytes, len);
	evento_numbers_check();
	PG_RETURN_VOID();
}
