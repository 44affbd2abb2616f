/*
 * commit.c
 *	  The end of a transaction that has appended: PRE_COMMIT, COMMIT, ABORT.
 *
 * At PRE_COMMIT the streams are looked at once more, positions are taken, and
 * what buffer.c holds is written.  After the commit the streams' heads go to
 * the cache, and the events' ids to what the session remembers.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "funcapi.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "buffer.h"

/* Positions taken at this PRE_COMMIT, and those of the last committed append. */
static int64 taken_first = 0;
static int64 taken_last = 0;
static int64 committed_first = 0;
static int64 committed_last = 0;

void		(*evento_published_hook) (void) = NULL;

/*
 * Rows have changed by another way since the first append: where they were of
 * this stream, its events would be without it, or stand at the wrong place.
 */
static void
load_again(EventoEntry *entry)
{
	bool		row_known = entry->loaded;
	bool		exists = entry->exists;
	int64		no = entry->row.no;
	int64		head = entry->stored_head;

	/* The row may also have been changed by us, or be gone with a savepoint. */
	entry->loaded = false;
	evento_buffer_load(entry);
	if (entry->stored_head != head ||
		(row_known && (entry->exists != exists || entry->row.no != no)))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not append: rows of stream \"%s\" were changed by another way",
						pnstrdup(entry->name, entry->len)),
				 errhint("Repeat the transaction.")));
}

/* The server takes a file that is open at the commit for forgotten. */
static void
close_spill(AppendBuffer *buffer)
{
	if (buffer->pending.spill == NULL)
		return;
	evento_spill_close(buffer->pending.spill);
	buffer->pending.spill = NULL;
	buffer->pending.nspilled = 0;
}

static void
on_pre_commit(AppendBuffer *buffer)
{
	MemoryContext caller;
	Relation	rel;

	if (buffer->pending.nevents == 0)
		return;
	if (buffer->events_rel != evento_rel(EVENTO_REL_EVENTS))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("extension \"evento\" was created anew since the append"),
				 errhint("Repeat the transaction.")));

	PushActiveSnapshot(GetTransactionSnapshot());
	caller = MemoryContextSwitchTo(buffer->context);

	/* Locks are waited for here, before anyone waits for our positions. */
	rel = table_open(buffer->events_rel, RowExclusiveLock);
	buffer->filenode = rel->rd_rel->relfilenode;
	for (int i = 0; i < buffer->pending.nentries; i++)
	{
		if (buffer->pending.entries[i]->buffered == 0)
			continue;
		if (pg_atomic_read_u32(&evento_db()->heads_epoch) == buffer->heads_epoch)
			evento_buffer_load(buffer->pending.entries[i]);
		else
			load_again(buffer->pending.entries[i]);
	}

	taken_first = evento_positions_take(buffer->pending.nevents);
	taken_last = taken_first + buffer->pending.nevents - 1;
	evento_write(rel, &buffer->pending, taken_first);

	table_close(rel, NoLock);
	MemoryContextSwitchTo(caller);
	PopActiveSnapshot();

	/* A reader must not see what a crash could take away again. */
	ForceSyncCommit();
	if (evento_published_hook != NULL)
		evento_published_hook();
}

/*
 * What was written is visible, and the locks are still held: the streams'
 * heads can be told to whoever comes next, and this session need not read the
 * ids that it knows.
 */
static void
remember_streams(const AppendBuffer *buffer)
{
	EventoDb   *db = evento_db();

	for (int i = 0; i < buffer->pending.nentries; i++)
	{
		EventoEntry *entry = buffer->pending.entries[i];

		if (entry->kind == EVENTO_LOCK_STREAM && entry->buffered > 0 && !entry->changed &&
			entry->row.deleted_version == 0 && !entry->row.tombstone)
			evento_heads_store(db, buffer->filenode, buffer->heads_epoch, entry->hash,
							   entry->name, entry->len, entry->row.no,
							   entry->stored_head + entry->buffered);
	}
	for (int64 i = 0; i < buffer->pending.nevents; i++)
	{
		const EventoBuffered *event = &buffer->pending.events[i];

		if (event->entry != NULL)
			evento_ids_committed(buffer->filenode, buffer->heads_epoch, event->entry->row.no,
								 event->version, &event->id);
	}
}

static void
on_end(bool committed)
{
	const AppendBuffer *buffer = evento_buffer_current();

	if (committed && taken_first != 0)
		remember_streams(buffer);
	if (buffer != NULL && buffer->pending.nevents > 0)
		evento_stats_events(committed, buffer->pending.nevents,
							buffer->bytes - buffer->pending.nevents * sizeof(EventoBuffered),
							taken_first != 0 ? taken_last - taken_first + 1 : 0);
	evento_stats_flush();
	evento_positions_end(committed);
	if (committed && taken_first != 0)
	{
		committed_first = taken_first;
		committed_last = taken_last;
	}
	taken_first = taken_last = 0;
	evento_buffer_end();
}

static void
on_xact(XactEvent event, void *arg)
{
	AppendBuffer *buffer = evento_buffer_current();

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			/* Also for functions in indexes that users have made. */
			evento_buffer_close();
			if (buffer != NULL)
			{
				on_pre_commit(buffer);
				close_spill(buffer);
			}
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (buffer != NULL && buffer->pending.nevents > 0)
				ereport(ERROR,
						(errcode(ERRCODE_EVENTO_TWO_PHASE),
						 errmsg("cannot PREPARE a transaction that has appended events"),
						 errdetail("Positions are taken when the session that appended commits.")));
			evento_positions_check_prepare();
			if (buffer != NULL)
				close_spill(buffer);
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			on_end(true);
			break;
		case XACT_EVENT_ABORT:
			on_end(false);
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			/* Parallel workers do not append. */
			break;
	}
}

void
evento_commit_init(void)
{
	RegisterXactCallback(on_xact, NULL);
}

/* SQL: last_append() */
PG_FUNCTION_INFO_V1(evento_last_append);
Datum
evento_last_append(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2];

	evento_check_preloaded();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum(committed_first);
	values[1] = Int64GetDatum(committed_last);
	nulls[0] = nulls[1] = (committed_first == 0);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
