/*
 * heads.c
 *	  A cache in shared memory of streams' numbers and newest versions, which
 *	  saves an append two walks down an index.
 *
 * An entry is read and written only by one who has the stream's lock, so that
 * what it says stays true while it is used.  It is written at COMMIT, when the
 * append has become visible and the lock is still held: nobody can have seen
 * the stream without it.  Whatever else changes a stream takes its lock and
 * makes the entry go (delete_stream), or makes all of the database go: rows
 * that came in, or went, by another way.  Were an entry behind all the same,
 * the unique index on stream and version would refuse the append.
 *
 * The cache is an array of sets.  A set has a spinlock, held over a few
 * comparisons and copies; nothing raises there.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#include "compat.h"
#include "evento.h"

#define WAYS 4

/* Longer names are not cached: entries are of one size. */
#define NAME_SIZE 88

typedef struct Head
{
	Oid			dboid;			/* InvalidOid: empty */
	Oid			filenode;		/* of evento._events: a TRUNCATE makes a new one */
	uint32		epoch;			/* of the database's state */
	uint32		len;
	int64		no;
	int64		version;
	char		name[NAME_SIZE];
} Head;

typedef union HeadSet
{
	struct
	{
		slock_t		mutex;
		uint8		victim;		/* way to be replaced next */
		Head		ways[WAYS];
	};
	char		pad[512];
} HeadSet;

StaticAssertDecl(sizeof(HeadSet) == 512, "a set of heads fills its cache lines");

static HeadSet *sets = NULL;
static int	nsets = 0;

static int
count_sets(void)
{
	return (evento_cached_streams + WAYS - 1) / WAYS;
}

Size
evento_heads_size(void)
{
	return add_size(mul_size(count_sets(), sizeof(HeadSet)), PG_CACHE_LINE_SIZE);
}

/* The caller holds AddinShmemInitLock. */
void
evento_heads_startup(void)
{
	bool		found;
	char	   *base;

	if (count_sets() == 0)
		return;
	base = ShmemInitStruct("evento heads", evento_heads_size(), &found);
	sets = (HeadSet *) CACHELINEALIGN(base);
	nsets = count_sets();
	if (found)
		return;
	memset(sets, 0, nsets * sizeof(HeadSet));
	for (int i = 0; i < nsets; i++)
		SpinLockInit(&sets[i].mutex);
}

static HeadSet *
find_set(uint64 hash)
{
	return &sets[hash % (uint64) nsets];
}

/* The way of a stream in its set, or NULL; the caller holds the spinlock. */
static Head *
find_way(HeadSet *set, Oid filenode, uint32 epoch, const char *name, int len)
{
	for (int i = 0; i < WAYS; i++)
	{
		Head	   *head = &set->ways[i];

		if (head->dboid == MyDatabaseId && head->filenode == filenode && head->epoch == epoch &&
			head->len == (uint32) len && memcmp(head->name, name, len) == 0)
			return head;
	}
	return NULL;
}

bool
evento_heads_find(EventoDb *db, Oid filenode, uint64 hash, const char *name, int len,
				  int64 *no, int64 *version)
{
	uint32		epoch = pg_atomic_read_u32(&db->heads_epoch);
	HeadSet    *set;
	Head	   *head;

	if (nsets == 0 || len > NAME_SIZE)
		return false;
	set = find_set(hash);
	SpinLockAcquire(&set->mutex);
	head = find_way(set, filenode, epoch, name, len);
	if (head != NULL)
	{
		*no = head->no;
		*version = head->version;
	}
	SpinLockRelease(&set->mutex);
	evento_stats_count(head != NULL ? EVENTO_STAT_HEADS_FOUND : EVENTO_STAT_HEADS_MISSED, 1);
	return head != NULL;
}

void
evento_heads_store(EventoDb *db, Oid filenode, uint32 epoch, uint64 hash, const char *name, int len,
				   int64 no, int64 version)
{
	HeadSet    *set;
	Head	   *head;

	if (nsets == 0 || len > NAME_SIZE)
		return;

	/* Another may have stored an earlier head under the epoch that is now. */
	if (pg_atomic_read_u32(&db->heads_epoch) != epoch)
	{
		evento_heads_forget(db, filenode, hash, name, len);
		return;
	}
	set = find_set(hash);
	SpinLockAcquire(&set->mutex);
	head = find_way(set, filenode, epoch, name, len);
	if (head == NULL)
	{
		head = &set->ways[set->victim];
		set->victim = (set->victim + 1) % WAYS;
		head->dboid = MyDatabaseId;
		head->filenode = filenode;
		head->epoch = epoch;
		head->len = (uint32) len;
		memcpy(head->name, name, len);
	}
	head->no = no;
	head->version = version;
	SpinLockRelease(&set->mutex);
}

void
evento_heads_forget(EventoDb *db, Oid filenode, uint64 hash, const char *name, int len)
{
	HeadSet    *set;
	Head	   *head;

	if (nsets == 0 || len > NAME_SIZE)
		return;
	set = find_set(hash);
	SpinLockAcquire(&set->mutex);
	head = find_way(set, filenode, pg_atomic_read_u32(&db->heads_epoch), name, len);
	if (head != NULL)
		head->dboid = InvalidOid;
	SpinLockRelease(&set->mutex);
}
