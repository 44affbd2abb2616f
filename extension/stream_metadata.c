/*
 * stream_metadata.c
 *	  What users note of a stream: JSON, with a revision that counts its changes.
 *
 * It is kept by the stream's name, so a stream may have some before its first
 * event.  Who writes holds the stream's lock, so rows are found under
 * SnapshotSelf.  A row stays when its metadata is taken away: its revision goes
 * on, and never stands for two contents.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"
#include "streams.h"

/* Columns of evento._stream_metadata. */
enum
{
	Anum_metadata_stream = 1,
	Anum_metadata_metadata,
	Anum_metadata_revision,
	Anum_metadata_changed_at,
	Natts_metadata = Anum_metadata_changed_at
};

PG_FUNCTION_INFO_V1(evento_set_stream_metadata);
PG_FUNCTION_INFO_V1(evento_stream_metadata);

/* The row of a stream that a snapshot sees; palloc'd, NULL where there is none. */
static HeapTuple
find_row(Relation heap, const char *name, int len, Snapshot snapshot)
{
	text	   *stream = cstring_to_text_with_len(name, len);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;

	/* ScanKeyInit sets the "C" collation, which is that of the column. */
	ScanKeyInit(&key, Anum_metadata_stream, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(stream));
	scan = systable_beginscan(heap, evento_later_rel("_stream_metadata_pkey"), true, snapshot,
							  1, &key);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
		row = heap_copytuple(row);
	systable_endscan(scan);
	pfree(stream);
	return row;
}

/* Revision in a row; 0 where there is none. */
static int64
row_revision(Relation heap, HeapTuple row)
{
	bool		isnull;

	if (row == NULL)
		return 0;
	return DatumGetInt64(heap_getattr(row, Anum_metadata_revision, RelationGetDescr(heap),
									  &isnull));
}

/* Metadata in a row, which it points into; NULL where there is none. */
static text *
row_metadata(Relation heap, HeapTuple row)
{
	Datum		value;
	bool		isnull;

	if (row == NULL)
		return NULL;
	value = heap_getattr(row, Anum_metadata_metadata, RelationGetDescr(heap), &isnull);
	return isnull ? NULL : DatumGetTextPP(value);
}

/* Writes metadata (NULL: none) with a revision in place of the row that is there, or of none. */
static void
write_row(Relation heap, HeapTuple old, const char *name, int len, text *metadata, int64 revision)
{
	Datum		values[Natts_metadata];
	bool		nulls[Natts_metadata] = {false};
	HeapTuple	row;

	values[Anum_metadata_stream - 1] = PointerGetDatum(cstring_to_text_with_len(name, len));
	values[Anum_metadata_metadata - 1] = PointerGetDatum(metadata);
	nulls[Anum_metadata_metadata - 1] = (metadata == NULL);
	values[Anum_metadata_revision - 1] = Int64GetDatum(revision);
	values[Anum_metadata_changed_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	row = evento_form_row(heap, Natts_metadata, values, nulls);
	evento_row_write(heap, row, old == NULL ? NULL : &old->t_self);
	CommandCounterIncrement();
}

bool
evento_metadata_clear(const char *name, int len)
{
	Relation	heap = table_open(evento_later_rel("_stream_metadata"), RowExclusiveLock);
	HeapTuple	old = find_row(heap, name, len, SnapshotSelf);
	bool		had = row_metadata(heap, old) != NULL;

	if (had)
		write_row(heap, old, name, len, NULL, row_revision(heap, old) + 1);
	table_close(heap, NoLock);
	return had;
}

/* V0001 where the revision is not what was expected. */
static void
check_revision(const StreamArgument *stream, int64 expected, int64 revision)
{
	char	   *found = revision == 0 ? pstrdup("none") : psprintf(INT64_FORMAT, revision);

	if (expected < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid expected revision: " INT64_FORMAT, expected),
				 errhint("NULL stands for any revision, 0 for none yet, n for exactly n.")));
	if (expected != revision)
		ereport(ERROR,
				(errcode(ERRCODE_EVENTO_WRONG_VERSION),
				 errmsg("wrong expected revision of the metadata of stream \"%.*s\"",
						stream->len, stream->name),
				 errdetail("Expected %s, found %s.",
						   expected == 0 ? "none" : psprintf(INT64_FORMAT, expected), found)));
}

/*
 * set_stream_metadata(stream, metadata, expected_revision): keeps metadata in
 * place of what is there, NULL for none, and gives its revision.
 */
Datum
evento_set_stream_metadata(PG_FUNCTION_ARGS)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	text	   *metadata = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	StreamArgument stream;
	Relation	heap;
	HeapTuple	old;
	int64		revision;

	evento_check_write("set_stream_metadata");
	if (metadata != NULL)
		evento_check_json("metadata", VARDATA_ANY(metadata), VARSIZE_ANY_EXHDR(metadata));
	evento_stream_argument(name, "set_stream_metadata", false, &stream);
	evento_check_not_tombstoned(stream.name, stream.len, &stream.row);

	heap = table_open(evento_later_rel("_stream_metadata"), RowExclusiveLock);
	old = find_row(heap, stream.name, stream.len, SnapshotSelf);
	revision = row_revision(heap, old);
	if (!PG_ARGISNULL(2))
		check_revision(&stream, PG_GETARG_INT64(2), revision);
	if (IsolationUsesXactSnapshot() &&
		row_revision(heap, find_row(heap, stream.name, stream.len,
									GetTransactionSnapshot())) != revision)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent change of the metadata of stream \"%.*s\"",
						stream.len, stream.name),
				 errhint("Repeat the transaction.")));
	revision++;
	write_row(heap, old, stream.name, stream.len, metadata, revision);
	table_close(heap, NoLock);
	PG_RETURN_INT64(revision);
}

/* stream_metadata(stream): what was set, as the statement that calls this sees it. */
Datum
evento_stream_metadata(PG_FUNCTION_ARGS)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	int			len;
	const char *bytes = evento_check_stream_name(name, &len);
	Relation	heap = table_open(evento_later_rel("_stream_metadata"), AccessShareLock);
	text	   *metadata = row_metadata(heap, find_row(heap, bytes, len, GetActiveSnapshot()));

	table_close(heap, NoLock);
	if (metadata == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(metadata);
}
