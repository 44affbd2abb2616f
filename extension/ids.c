/*
 * ids.c
 *	  What a session remembers of the ids of events in the streams that it
 *	  appends to, so that a new id costs no walk over evento.id_window versions.
 *
 * Of a stream there are hashes of its ids, from one version to another: those
 * of all events in between, and maybe of some that are not, or no longer,
 * there.  So that none fits proves something, and that one does proves nothing.
 * Versions are only added at the end, and their ids stay: what was seen once
 * holds, and what others have appended since is read when it is needed.
 *
 * All of it is void, as the heads are (heads.c), where rows came or went by
 * another way, or the table has another file.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "evento.h"

/* Room that a stream's hashes begin with. */
#define LEAST_ROOM 32

typedef struct StreamIds
{
	int64		no;				/* key of the table */
	dlist_node	used;
	int64		first;			/* hashes has those of all versions from this one */
	int64		last;			/* to this one; before first: of none */
	int			count;
	int			room;
	uint32	   *hashes;
} StreamIds;

static MemoryContext context = NULL;
static HTAB *streams;
static dlist_head by_use;		/* the longest unused first */
static int64 total_room;		/* of all streams */
static Oid	known_filenode;
static uint32 known_epoch;

static void
forget_all(void)
{
	if (context != NULL)
		MemoryContextDelete(context);
	context = NULL;
}

/* Nothing is remembered yet, of this file and epoch. */
static void
begin(Oid filenode, uint32 epoch)
{
	MemoryContext fresh = AllocSetContextCreate(CurrentMemoryContext, "evento ids",
												ALLOCSET_DEFAULT_SIZES);
	HASHCTL		ctl = {.keysize = sizeof(int64), .entrysize = sizeof(StreamIds), .hcxt = fresh};

	streams = hash_create("evento ids", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	dlist_init(&by_use);
	total_room = 0;
	known_filenode = filenode;
	known_epoch = epoch;
	MemoryContextSetParent(fresh, TopMemoryContext);
	context = fresh;
}

static void
forget(StreamIds *ids)
{
	dlist_delete(&ids->used);
	total_room -= ids->room;
	if (ids->hashes != NULL)
		pfree(ids->hashes);
	hash_search(streams, &ids->no, HASH_REMOVE, NULL);
}

static uint32
hash_id(const pg_uuid_t *id)
{
	return hash_bytes(id->data, UUID_LEN);
}

/* For evento_lookup_ids. */
static void
add(void *arg, const pg_uuid_t *id)
{
	StreamIds  *ids = arg;

	if (ids->count == ids->room)
	{
		int			room = Max(LEAST_ROOM, ids->room * 2);

		ids->hashes = ids->hashes == NULL ?
			MemoryContextAlloc(context, room * sizeof(uint32)) :
			repalloc(ids->hashes, room * sizeof(uint32));
		total_room += room - ids->room;
		ids->room = room;
	}
	ids->hashes[ids->count++] = hash_id(id);
}

/* Adds what was appended since, up to the newest version. */
static void
learn(StreamIds *ids, EventoLookup *lookup, int64 head)
{
	EventoLookup *own = lookup == NULL ? evento_lookup_begin(SnapshotSelf) : NULL;

	evento_lookup_ids(own != NULL ? own : lookup, ids->no, ids->last + 1, add, ids);
	if (own != NULL)
		evento_lookup_end(own);

	/* Had an error been raised before this, there would be some hashes too many. */
	ids->last = head;
}

static bool
has_hash(const StreamIds *ids, uint32 hash)
{
	uint32		found = 0;

	/* To the end in any case: so the compiler can look at several at a time. */
	for (int i = 0; i < ids->count; i++)
		found |= (ids->hashes[i] == hash);
	return found != 0;
}

/*
 * False where none of the newest evento.id_window versions of a stream, whose
 * last is head, has an id; true where that has to be looked for.  The caller
 * has the stream's lock, and knows head by SnapshotSelf.  lookup: under
 * SnapshotSelf, or NULL.
 */
bool
evento_ids_may_have(EventoLookup *lookup, Oid filenode, int64 no, int64 head, const pg_uuid_t *id)
{
	/* As it was before anything is looked at. */
	uint32		epoch = pg_atomic_read_u32(&evento_db()->heads_epoch);
	int64		oldest = Max(head - evento_id_window + 1, 1);
	StreamIds  *ids;
	bool		found;

	if (context != NULL &&
		(known_filenode != filenode || known_epoch != epoch || evento_cached_ids == 0))
		forget_all();
	if (head - oldest >= evento_cached_ids / 2)
		return true;
	if (context == NULL)
		begin(filenode, epoch);

	ids = hash_search(streams, &no, HASH_FIND, NULL);
	if (ids != NULL && (ids->last > head || ids->first > oldest ||
						ids->count + (head - ids->last) > 2 * (int64) evento_id_window))
	{
		/* Of versions that are gone, of too few, or of too many that are out of the window now. */
		forget(ids);
		ids = NULL;
	}
	if (ids == NULL)
	{
		ids = hash_search(streams, &no, HASH_ENTER, &found);
		ids->first = oldest;
		ids->last = oldest - 1;
		ids->count = ids->room = 0;
		ids->hashes = NULL;
		dlist_push_tail(&by_use, &ids->used);
	}
	else
	{
		dlist_delete(&ids->used);
		dlist_push_tail(&by_use, &ids->used);
	}
	if (ids->last < head)
		learn(ids, lookup, head);
	while (total_room > evento_cached_ids && dlist_head_node(&by_use) != &ids->used)
		forget(dlist_container(StreamIds, used, dlist_head_node(&by_use)));
	return has_hash(ids, hash_id(id));
}

/*
 * Adds the id of an event that this session has appended, at COMMIT, when the
 * stream's lock is still held; epoch is heads_epoch as it was before the rows
 * were looked at.  Only where that takes no memory.  Never raises.
 */
void
evento_ids_committed(Oid filenode, uint32 epoch, int64 no, int64 version, const pg_uuid_t *id)
{
	StreamIds  *ids;

	if (context == NULL || known_filenode != filenode || known_epoch != epoch)
		return;
	ids = hash_search(streams, &no, HASH_FIND, NULL);
	if (ids == NULL || ids->last != version - 1 || ids->count == ids->room)
		return;
	ids->hashes[ids->count++] = hash_id(id);
	ids->last = version;
}
