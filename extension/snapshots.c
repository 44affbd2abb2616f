/*
 * snapshots.c
 *	  States of streams that were kept: one of each stream, the newest.
 *
 * Who writes here holds the stream's lock, so rows are found under
 * SnapshotSelf: the last committed state and what this transaction has written.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "streams.h"

/* Columns of evento._snapshots. */
enum
{
	Anum_snapshot_stream = 1,
	Anum_snapshot_version,
	Anum_snapshot_class,
	Anum_snapshot_state,
	Anum_snapshot_taken_at,
	Natts_snapshot = Anum_snapshot_taken_at
};

PG_FUNCTION_INFO_V1(evento_save_snapshot);
PG_FUNCTION_INFO_V1(evento_drop_snapshots);

/* Starts the search for the snapshot of a stream, in _snapshots that is open. */
static SysScanDesc
begin_snapshot_scan(Relation heap, Datum stream, Snapshot snapshot)
{
	ScanKeyData key;

	/* ScanKeyInit sets the "C" collation, which is that of the column. */
	ScanKeyInit(&key, Anum_snapshot_stream, BTEqualStrategyNumber, F_TEXTEQ, stream);
	return systable_beginscan(heap, evento_rel(EVENTO_REL_SNAPSHOTS_PKEY), true, snapshot,
							  1, &key);
}

/*
 * Finds the snapshot of a stream as an MVCC snapshot sees it.  Texts are
 * palloc'd in the current context and detoasted.
 */
bool
evento_snapshot_find(const char *name, int len, Snapshot snapshot, EventoSnapshot *found)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_SNAPSHOTS), AccessShareLock);
	Datum		stream = PointerGetDatum(cstring_to_text_with_len(name, len));
	SysScanDesc scan = begin_snapshot_scan(heap, stream, snapshot);
	HeapTuple	tuple = systable_getnext(scan);

	if (HeapTupleIsValid(tuple))
	{
		Datum		values[Natts_snapshot];
		bool		nulls[Natts_snapshot];

		evento_deform_row(heap, Natts_snapshot, tuple, values, nulls);
		found->version = DatumGetInt64(values[Anum_snapshot_version - 1]);
		found->class_name = nulls[Anum_snapshot_class - 1] ? NULL :
			DatumGetTextPCopy(values[Anum_snapshot_class - 1]);
		found->state = DatumGetTextPCopy(values[Anum_snapshot_state - 1]);
		found->taken_at = DatumGetTimestampTz(values[Anum_snapshot_taken_at - 1]);
	}
	systable_endscan(scan);
	table_close(heap, NoLock);
	return HeapTupleIsValid(tuple);
}

/*
 * Keeps a snapshot of a stream, whose lock the caller holds.  class_name may
 * be NULL.  False, and nothing done, where one of this version or a newer one
 * is there: a version's state does not change.
 */
bool
evento_snapshot_save(const char *name, int len, int64 version, text *class_name, text *state)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_SNAPSHOTS), RowExclusiveLock);
	Datum		values[Natts_snapshot];
	bool		nulls[Natts_snapshot] = {0};
	SysScanDesc scan;
	HeapTuple	old;
	HeapTuple	row;
	bool		newer = true;

	values[Anum_snapshot_stream - 1] = PointerGetDatum(cstring_to_text_with_len(name, len));
	values[Anum_snapshot_version - 1] = Int64GetDatum(version);
	values[Anum_snapshot_class - 1] = PointerGetDatum(class_name);
	nulls[Anum_snapshot_class - 1] = (class_name == NULL);
	values[Anum_snapshot_state - 1] = PointerGetDatum(state);
	values[Anum_snapshot_taken_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());

	scan = begin_snapshot_scan(heap, values[Anum_snapshot_stream - 1], SnapshotSelf);
	old = systable_getnext(scan);
	if (HeapTupleIsValid(old))
	{
		bool		isnull;

		newer = version > DatumGetInt64(heap_getattr(old, Anum_snapshot_version,
													 RelationGetDescr(heap), &isnull));
	}

	if (newer)
	{
		row = evento_form_row(heap, Natts_snapshot, values, nulls);
		evento_row_write(heap, row, HeapTupleIsValid(old) ? &old->t_self : NULL);
		heap_freetuple(row);

		/* The same statement may replace it once more. */
		CommandCounterIncrement();
	}
	systable_endscan(scan);
	table_close(heap, NoLock);
	return newer;
}

/*
 * Drops the snapshot of a stream, whose lock the caller holds.  False where
 * there was none.
 */
bool
evento_snapshot_drop(const char *name, int len)
{
	Relation	heap = table_open(evento_rel(EVENTO_REL_SNAPSHOTS), RowExclusiveLock);
	Datum		stream = PointerGetDatum(cstring_to_text_with_len(name, len));
	SysScanDesc scan = begin_snapshot_scan(heap, stream, SnapshotSelf);
	HeapTuple	old = systable_getnext(scan);

	if (HeapTupleIsValid(old))
	{
		CatalogTupleDelete(heap, &old->t_self);
		CommandCounterIncrement();
	}
	systable_endscan(scan);
	table_close(heap, NoLock);
	return HeapTupleIsValid(old);
}

/*
 * save_snapshot(stream, version, state, class): keeps a stream's state as it
 * is after the event of that version.
 */
Datum
evento_save_snapshot(PG_FUNCTION_ARGS)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	text	   *state = PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2);
	text	   *class_name = PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3);
	int64		version;
	int64		head;
	int			len;
	const char *bytes;
	EventoStream stream;
	bool		exists;
	bool		buffered;

	evento_check_write("save_snapshot");
	bytes = evento_check_stream_name(name, &len);
	if (PG_ARGISNULL(1) || PG_GETARG_INT64(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("version of a snapshot must be at least 1")));
	version = PG_GETARG_INT64(1);
	if (state == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("state of a snapshot must not be NULL")));
	evento_check_json("state", VARDATA_ANY(state), VARSIZE_ANY_EXHDR(state));
	if (class_name != NULL && VARSIZE_ANY_EXHDR(class_name) > EVENTO_MAX_CLASS_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("class must have at most %d bytes, not %d",
						EVENTO_MAX_CLASS_LEN, (int) VARSIZE_ANY_EXHDR(class_name))));

	head = evento_stream_head_locked(bytes, len, false, &stream, &exists, &buffered);
	evento_check_not_tombstoned(bytes, len, &stream);
	if (version > head || (exists && version <= stream.deleted_version))
		ereport(ERROR,
				(errcode(ERRCODE_EVENTO_WRONG_VERSION),
				 errmsg("stream \"%.*s\" has no event of version " INT64_FORMAT,
						len, bytes, version),
				 errdetail("Its last version is " INT64_FORMAT ".", head),
				 errhint("A snapshot is the state after an event that the stream has.")));
	evento_story_changed(bytes, len);
	PG_RETURN_BOOL(evento_snapshot_save(bytes, len, version, class_name, state));
}

/* drop_snapshots(stream): true where there was one. */
Datum
evento_drop_snapshots(PG_FUNCTION_ARGS)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	const char *bytes;
	int			len;

	evento_check_write("drop_snapshots");
	bytes = evento_check_stream_name(name, &len);
	evento_lock_stream(bytes, len);
	evento_story_changed(bytes, len);
	PG_RETURN_BOOL(evento_snapshot_drop(bytes, len));
}
