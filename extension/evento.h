/*
 * evento.h
 *	  What the files of the extension know of each other.
 *
 * catalog.c    finds the extension's relations, streams by name or number,
 *              and heads of streams
 * heads.c      a cache in shared memory of streams' numbers and versions
 * shmem.c      shared memory: one state per database, one slot per backend
 * sequencer.c  positions: reserve, publish, give back; the watermark
 * watermark.c  the watermark that goes with a snapshot: marks and the row
 * append.c     the SQL-callable appends, and the way of every append
 * check.c      what can be said of an append without looking into the database
 * batch.c      decodes the packed form
 * buffer.c     what a transaction has appended and not yet written, and its
 *              savepoints
 * commit.c     PRE_COMMIT, COMMIT, ABORT of such a transaction
 * spill.c      the temporary file of a transaction that appends much
 * write.c      the rows of a transaction's appends, at PRE_COMMIT
 * rows.c       single rows of the extension's tables
 * read.c       read_stream, read_all, scan_all, load_stream
 * json.c       text, which reads a key of a JSON value
 * key_ops.c    operator class of the indexes on keys of JSON
 * index.c      create_index, drop_index
 * index_plan.c what they are asked for: name and statement of an index
 * consumers.c  consumers in SQL: their locks
 * streams.c    delete_stream, tombstone_stream, lock keys
 * snapshots.c  save_snapshot, drop_snapshots
 * stream_metadata.c  set_stream_metadata, stream_metadata
 * erase.c      erase_stream
 * wait.c       wait, watermark
 * launcher.c   starts the worker of each database
 * worker.c     the worker of a database, which publishes its watermark
 * dbhook.c     makes the worker go before DROP DATABASE and its like
 * stats.c      counters, the view stats, what doctor() asks the library
 * compat.h     every PG_VERSION_NUM shim
 */
#ifndef EVENTO_H
#define EVENTO_H

#include "postgres.h"

#include "access/htup.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "../include/errcodes.h"
#include "../include/packed.h"

/* SQLSTATEs as ereport wants them. */
#define ERRCODE_EVENTO_WRONG_VERSION	MAKE_SQLSTATE('V', '0', '0', '0', '1')
#define ERRCODE_EVENTO_ID_CLASH			MAKE_SQLSTATE('V', '0', '0', '0', '2')
#define ERRCODE_EVENTO_STREAM_DELETED	MAKE_SQLSTATE('V', '0', '0', '0', '3')
#define ERRCODE_EVENTO_NOT_PRELOADED	MAKE_SQLSTATE('V', '0', '0', '0', '4')
#define ERRCODE_EVENTO_READ_ONLY		MAKE_SQLSTATE('V', '0', '0', '0', '5')
#define ERRCODE_EVENTO_MALFORMED_BATCH	MAKE_SQLSTATE('V', '0', '0', '0', '6')
#define ERRCODE_EVENTO_TWO_PHASE		MAKE_SQLSTATE('V', '0', '0', '0', '7')
#define ERRCODE_EVENTO_LOCK_LOST		MAKE_SQLSTATE('V', '0', '0', '0', '8')

/* Attribute numbers of evento._events; sql/evento.sql makes the table. */
enum
{
	Anum_event_position = 1,
	Anum_event_stream_no,
	Anum_event_version,
	Anum_event_timestamp,
	Anum_event_recorded_at,
	Anum_event_id,
	Anum_event_service,
	Anum_event_force_telemetry,
	Anum_event_type,
	Anum_event_context,
	Anum_event_class,
	Anum_event_data,
	Anum_event_metadata,
	Natts_event = Anum_event_metadata
};

/* Attribute numbers of evento._streams. */
enum
{
	Anum_stream_no = 1,
	Anum_stream_name,
	Anum_stream_deleted_version,
	Anum_stream_deleted_at,
	Anum_stream_tombstone,
	Natts_stream = Anum_stream_tombstone
};

/* ---- catalog.c ---- */

/* Relations and indexes of the extension, found by name, cached until an invalidation. */
typedef enum EventoRel
{
	EVENTO_REL_EVENTS,
	EVENTO_REL_EVENTS_POSITION,		/* index */
	EVENTO_REL_EVENTS_STREAM,		/* index */
	EVENTO_REL_STREAMS,
	EVENTO_REL_STREAMS_PKEY,		/* index on stream_no */
	EVENTO_REL_STREAMS_NAME,		/* unique index on name */
	EVENTO_REL_SNAPSHOTS,
	EVENTO_REL_SNAPSHOTS_PKEY,		/* index on stream */
	EVENTO_REL_POSITIONS,			/* sequence */
	EVENTO_REL_IDENTITY,
	EVENTO_REL_JUMPS,
	EVENTO_REL_WATERMARK,
	EVENTO_REL_LOCKS,
	EVENTO_REL_LOCKS_PKEY,			/* index on (name, ticket) */
	EVENTO_REL_COUNT
} EventoRel;

/* OID of a relation; ereports where the extension is not in this database. */
extern Oid	evento_rel(EventoRel rel);

/* True where this database has the extension. */
extern bool evento_installed(void);

/* A row of _streams. */
typedef struct EventoStream
{
	int64		no;				/* stream_no: position of its first event, negative before it has one */
	int64		deleted_version;	/* events up to this version are hidden */
	bool		tombstone;
	ItemPointerData tid;		/* of the row, for an update */
} EventoStream;

/* Finds a stream by name (not terminated, len bytes) under a snapshot; false where there is none. */
extern bool evento_stream_by_name(const char *name, int len, Snapshot snapshot, EventoStream *stream);

/* Is there a stream with a number, under a snapshot? */
extern bool evento_stream_no_exists(int64 no, Snapshot snapshot);

/* Version of the newest event of a stream that the snapshot sees, 0 where there is none. */
extern int64 evento_stream_head(int64 no, Snapshot snapshot);

/*
 * Walks the newest versions of a stream, at most window of them, in the index
 * for an event id; gives its version, or 0.
 */
extern int64 evento_stream_find_id(int64 no, const pg_uuid_t *id, int window, Snapshot snapshot);

/*
 * The same, for callers with many of them: relations and scans stay open
 * between lookups.  Valid until evento_lookup_end, or an error; the snapshot
 * must outlive it.  Lives in the memory context current at begin.
 */
typedef struct EventoLookup EventoLookup;
extern EventoLookup *evento_lookup_begin(Snapshot snapshot);
extern bool evento_lookup_name(EventoLookup *lookup, const char *name, int len, EventoStream *stream);
extern int64 evento_lookup_head(EventoLookup *lookup, int64 no);

/* What readers want to know of a stream; a session keeps it for many of them. */
typedef struct EventoKnownStream
{
	int64		no;
	int64		deleted_version;
	text	   *name;
	text	   *category;		/* what stands before the first - of the name */
} EventoKnownStream;
extern const EventoKnownStream *evento_lookup_known(EventoLookup *lookup, int64 no, bool newest);
extern int64 evento_lookup_id(EventoLookup *lookup, int64 no, const pg_uuid_t *id, int window);
extern void evento_lookup_ids(EventoLookup *lookup, int64 no, int64 from,
							  void (*take) (void *arg, const pg_uuid_t *id), void *arg);
extern bool evento_lookup_lock(EventoLookup *lookup, const char *name, int len, bool any,
							   int64 fence);
extern void evento_lookup_end(EventoLookup *lookup);

/* ---- ids.c ---- */

/*
 * False where this session knows that none of the newest evento.id_window
 * versions of a stream has an id.  The caller has the stream's lock; head is its
 * last version, filenode that of evento._events, lookup one under SnapshotSelf
 * or NULL.
 */
extern bool evento_ids_may_have(EventoLookup *lookup, Oid filenode, int64 no, int64 head,
								const pg_uuid_t *id);

/* An event with an id that was appended to a stream, at COMMIT; epoch: heads_epoch before it.  Never raises. */
extern void evento_ids_committed(Oid filenode, uint32 epoch, int64 no, int64 version,
								 const pg_uuid_t *id);

/* ---- snapshots.c ---- */

/*
 * Keeps or drops the snapshot of a stream.  The caller holds the stream's lock
 * and has checked version and state.  save: false where one of that version or
 * a newer one is there; drop: false where there was none.  class_name may be NULL.
 */
extern bool evento_snapshot_save(const char *name, int len, int64 version, text *class_name, text *state);
extern bool evento_snapshot_drop(const char *name, int len);

/* The snapshot of a stream, as an MVCC snapshot sees it. */
typedef struct EventoSnapshot
{
	int64		version;
	text	   *class_name;		/* or NULL */
	text	   *state;
	TimestampTz taken_at;
} EventoSnapshot;
extern bool evento_snapshot_find(const char *name, int len, Snapshot snapshot, EventoSnapshot *found);

/* ---- streams.c ---- */

/* V0003 where a stream was deleted for good. */
extern void evento_check_not_tombstoned(const char *name, int len, const EventoStream *row);

/*
 * For who answers "it is stored" of another's event: makes the commit of this
 * transaction wait for WAL flush and synchronous standbys all the same.
 */
extern void evento_durable_commit(void);

/* ---- append.c and buffer.c, for streams.c and read.c ---- */

/* V0004 without preload, V0005 on a standby, 25006 in a read-only transaction. */
extern void evento_check_write(const char *what);

/* V0004 without preload. */
extern void evento_check_preloaded(void);

/* Name of a stream as an argument: gives bytes and length; 22023 where NULL, empty, too long. */
extern const char *evento_check_stream_name(text *stream, int *len);

/* JSON as an argument or in a batch: 22P02 malformed or too deep, 22023 too large. */
extern void evento_check_json(const char *what, const char *json, int len);

/* Takes a stream's lock until the end of the transaction, waiting. */
extern void evento_lock_stream(const char *name, int len);

/*
 * Last version of a stream for one who has its lock, with what this
 * transaction has appended and not yet written; 0 where there is none.
 * Raises 40001 where the snapshot of the transaction cannot see the stored
 * head.  *buffered: whether this transaction has appended to it.
 * *exists: whether it has a row, which stream then holds; else that is all
 * zeros.  change: the caller is going to change that row.
 */
extern int64 evento_stream_head_locked(const char *name, int len, bool change,
									   EventoStream *stream, bool *exists, bool *buffered);

/* Compares an expected version (or NULL flag) with what is there; V0001, 22023. */
extern void evento_check_expected(const char *name, int len, bool any, int64 expected,
								  int64 head, int64 deleted_version);

/* Settings; evento.c defines them. */
extern int	evento_max_databases;
extern int	evento_max_streams_per_transaction;
extern int	evento_max_event_size;			/* kB */
extern int	evento_max_transaction_size;	/* kB */
extern int	evento_append_memory;	/* kB */
extern int	evento_max_json_depth;
extern int	evento_cached_streams;
extern int	evento_id_window;		/* newest versions in which an event id is looked for */
extern int	evento_cached_ids;
extern int	evento_position_jump;
extern int	evento_watermark_interval;	/* ms */

/* ---- append.c, for batch.c ---- */

/* One event as it came in; texts are neither terminated nor owned. */
typedef struct EventoNewEvent
{
	const char *type;
	const char *context;
	const char *class_name;		/* NULL: none */
	const char *data;
	const char *metadata;		/* NULL: none */
	int			type_len;
	int			context_len;
	int			class_len;
	int			data_len;
	int			metadata_len;
	bool		service;
	bool		force_telemetry;
	bool		has_id;			/* the caller gave it */
	bool		has_timestamp;
	pg_uuid_t	id;
	int64		timestamp_ms;	/* since 1970 */
} EventoNewEvent;

/* One append: events for one stream, all or none. */
typedef struct EventoAppend
{
	const char *stream;			/* NULL: none */
	int			stream_len;
	int			nevents;
	EventoNewEvent *events;
	int64		expected;		/* EVENTO_EXPECTED_* or n */
	bool		wait;			/* for busy streams; else 55P03 */
	int			flags;			/* EVENTO_ITEM_* */
	bool		unchained;		/* EVENTO_ITEM_CHAINED, to an item that was not stored */
	const char *lock;			/* with EVENTO_ITEM_LOCK */
	int			lock_len;
	int64		fence;
	int64		since;			/* with EVENTO_ITEM_SINCE */
	const char *snapshot_class; /* with EVENTO_ITEM_SNAPSHOT; NULL: none */
	int			snapshot_class_len;
	const char *snapshot_state;
	int			snapshot_state_len;
} EventoAppend;

/* What became of it. */
typedef struct EventoOutcome
{
	int			sqlstate;		/* 0: appended, or there already */
	bool		repeat;			/* there already: nothing was stored */
	int64		first;			/* versions, 0 without stream */
	int64		last;
	char	   *message;		/* palloc'd, NULL with sqlstate 0 */
	char	   *detail;			/* palloc'd or NULL */
	const char *hint;			/* constant or NULL */
} EventoOutcome;

/*
 * Checks an append and buffers its events for the commit.  What is wrong with
 * this append alone comes back in outcome; what ends the transaction raises.
 */
extern void evento_append_item(const EventoAppend *append, EventoOutcome *outcome);

/* ---- check.c, for append.c ---- */

/* Milliseconds between 1970 and 2000, where TimestampTz starts. */
#define EVENTO_MS_UNIX_TO_POSTGRES \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000)

/* False, with the outcome set, where an append is wrong in itself. */
extern bool evento_check_append(const EventoAppend *append, EventoOutcome *outcome);

/* Whether a stream at head, hidden up to deleted_version, is what was expected. */
extern bool evento_expected_met(int64 expected, int64 head, int64 deleted_version);

/* message and detail are palloc'd (detail may be NULL), hint is a constant or NULL. */
extern void evento_outcome_set(EventoOutcome *outcome, int sqlstate, char *message, char *detail,
							   const char *hint);
extern void evento_outcome_wrong_version(EventoOutcome *outcome, const char *name, int len,
										 int64 expected, int64 head, int64 deleted_version);

extern void evento_outcome_deleted(EventoOutcome *outcome, const char *name, int len);

/* Raises what an outcome says; nothing where it is a success. */
extern void evento_outcome_raise(const EventoOutcome *outcome);

/* ---- buffer.c, for append.c and batch.c ---- */

typedef enum EventoLockKind
{
	EVENTO_LOCK_STREAM,			/* a stream, or the lock of commands of that name */
	EVENTO_LOCK_ID				/* the id of an event without stream */
} EventoLockKind;

/* A stream that this transaction has locked. */
typedef struct EventoEntry
{
	EventoLockKind kind;
	int			len;
	char	   *name;
	uint64		hash;
	SubTransactionId subid;		/* that holds the lock */
	bool		changed;		/* the row is, or was to be, changed in this transaction */
	bool		loaded;			/* exists, row and stored_head are known */
	bool		exists;
	EventoStream row;
	int64		stored_head;	/* version of the newest event in the table */
	int64		buffered;		/* events behind that, not yet written */
	int64		newest;			/* the newest of these in the buffer, or -1 */
} EventoEntry;

/*
 * Gives the entry of a name, with its lock held exclusively to the end of the
 * transaction.  NULL where it is busy and wait is false.  54000 beyond
 * evento.max_streams_per_transaction.
 */
extern EventoEntry *evento_buffer_entry(EventoLockKind kind, const char *name, int len, bool wait);

/* Fills in what is stored of a stream; 40001 where the transaction's snapshot cannot see it. */
extern void evento_buffer_load(EventoEntry *entry);

/* The file of evento._events, for one who has an entry. */
extern Oid	evento_buffer_filenode(void);

/* Takes a stream's lock in share mode, without waiting; false where it is busy. */
extern bool evento_buffer_share(const char *name, int len);

/* Buffers one event; entry is NULL without stream.  Gives its version, or 0. */
extern int64 evento_buffer_add(EventoEntry *entry, const EventoNewEvent *event, TimestampTz timestamp);

/*
 * Looks for an id among the newest window events buffered for a stream (NULL:
 * for none).  Gives where it lies in the buffer, or -1.
 */
extern int64 evento_buffer_find_id(EventoEntry *entry, const pg_uuid_t *id, int window);

/* Where the event lies that is buffered as a version of a stream; it has to be there. */
extern int64 evento_buffer_find_version(EventoEntry *entry, int64 version);

/*
 * A buffered event: its version (0 without stream), and its row.  *copied:
 * whether the row was read from the temporary file, and is palloc'd for the
 * caller to free.
 */
extern int64 evento_buffer_version(int64 at);
extern HeapTuple evento_buffer_tuple(int64 at, bool *copied);

/* Raises while append_batch is at work. */
extern void evento_buffer_check_idle(void);

/* From here to the end (or an error), streams are looked up with scans kept open. */
extern void evento_buffer_lookups_begin(void);
extern void evento_buffer_lookups_end(void);

/* EventoLookup of that time, or NULL. */
extern EventoLookup *evento_buffer_lookup(void);

extern void evento_buffer_init(void);

/* ---- commit.c ---- */

/* Called, where not NULL, at PRE_COMMIT between taking positions and the commit. */
extern PGDLLEXPORT void (*evento_published_hook) (void);

extern void evento_commit_init(void);

/* ---- spill.c ---- */

typedef struct EventoSpill EventoSpill;

/* palloc'd in the current context, which has to live as long as the transaction. */
extern EventoSpill *evento_spill_open(void);

/* Puts bytes behind the end. */
extern void evento_spill_put(EventoSpill *spill, const void *data, Size len);
extern int64 evento_spill_end(const EventoSpill *spill);

/* Makes the end of what lies below the bytes from there on.  Never raises. */
extern void evento_spill_cut(EventoSpill *spill, int64 end);

extern void evento_spill_get(EventoSpill *spill, int64 offset, void *data, Size len);

/* To be called before the commit; an error does it by itself. */
extern void evento_spill_close(EventoSpill *spill);

/* ---- write.c ---- */

/* An event that waits for its commit. */
typedef struct EventoBuffered
{
	union
	{
		HeapTuple	tuple;
		int64		offset;		/* of t_data in the temporary file */
	}			row;
	EventoEntry *entry;			/* NULL: without stream */
	int64		version;
	int64		previous;		/* of the same stream, or of those without; -1: none */
	pg_uuid_t	id;
	SubTransactionId subid;
	uint32		len;			/* of the row; in the file aligned as MAXALIGN does */
} EventoBuffered;

/* All that wait in a transaction. */
typedef struct EventoPending
{
	EventoEntry **entries;
	int			nentries;
	EventoBuffered *events;
	int64		nevents;
	int64		nspilled;		/* the rows of so many are in the file, one behind the other */
	EventoSpill *spill;			/* NULL: none so far */
} EventoPending;

/*
 * Gives events their positions, from first on, and writes them and their
 * streams.  rel is evento._events, locked.  Frees the tuples in memory.
 */
extern void evento_write(Relation rel, const EventoPending *pending, int64 first);

/* ---- rows.c ---- */

/* Rows being written into one table. */
typedef struct EventoRows
{
	Relation	rel;
	struct ResultRelInfo *indexes;
	struct EState *estate;		/* NULL: the indexes are plain */
	struct TupleTableSlot *slot;
} EventoRows;

/* A row of the natts columns of a table of ours; raises where it has been given others. */
extern HeapTuple evento_form_row(Relation rel, int natts, Datum *values, bool *nulls);
extern void evento_deform_row(Relation rel, int natts, HeapTuple row, Datum *values, bool *nulls);

/* Writes rows, and whatever indexes the table has; old: what it takes the place of, or NULL. */
extern void evento_rows_begin(EventoRows *rows, Relation rel);
extern void evento_rows_put(EventoRows *rows, HeapTuple row, ItemPointer old);
extern void evento_rows_end(EventoRows *rows);
extern void evento_row_write(Relation rel, HeapTuple row, ItemPointer old);

/* ---- shmem.c ---- */

/* What is counted, per database, from the start of the server; stats.c gives them out. */
typedef enum EventoStat
{
	EVENTO_STAT_TRANSACTIONS,	/* committed, with events */
	EVENTO_STAT_EVENTS,
	EVENTO_STAT_BYTES,			/* of their rows */
	EVENTO_STAT_ROLLED_BACK,	/* transactions with events that were not committed */
	EVENTO_STAT_ROLLED_BACK_EVENTS,
	EVENTO_STAT_GAPS,			/* positions taken by these, and used by nobody */
	EVENTO_STAT_APPENDS,		/* single appends and items of batches */
	EVENTO_STAT_BATCHES,		/* calls of append_batch */
	EVENTO_STAT_REPEATS,		/* was there already */
	EVENTO_STAT_CONFLICTS,		/* V0001 */
	EVENTO_STAT_ID_CLASHES,		/* V0002 */
	EVENTO_STAT_BUSY,			/* 55P03 */
	EVENTO_STAT_REFUSED,		/* whatever else */
	EVENTO_STAT_HEADS_FOUND,
	EVENTO_STAT_HEADS_MISSED,
	EVENTO_STAT_ADVANCES,
	EVENTO_STAT_ROW_WRITES,
	EVENTO_STAT_NOTIFIES,
	EVENTO_STAT_NOTIFIES_LEFT_OUT,
	EVENTO_STAT_WAITS,
	EVENTO_STAT_WAIT_WAKEUPS,
	EVENTO_STAT_WAIT_TIMEOUTS,
	EVENTO_STAT_WORKER_STARTS,
	EVENTO_STAT_WORKER_ERRORS,
	EVENTO_STAT_COUNT
} EventoStat;

/* Why a worker that is wanted does not run; EventoDb.worker_trouble. */
#define EVENTO_TROUBLE_NONE 0
#define EVENTO_TROUBLE_NO_PLACE 1	/* max_worker_processes */
#define EVENTO_TROUBLE_NO_CONNECTION 2	/* the database lets nobody in */

#define EVENTO_ERROR_SIZE 256

/* A watermark for snapshots whose xmax is above xid; watermark.c. */
#define EVENTO_MARKS 512
typedef struct EventoMark
{
	pg_atomic_uint64 position;
	pg_atomic_uint32 xid;
	pg_atomic_uint32 sequence;	/* the incarnation that it is about */
} EventoMark;

/* The state of one database.  Fields without a note are atomics anyone may read. */
typedef struct EventoDb
{
	Oid			dboid;			/* the tranche's lock; InvalidOid: free */
	Oid			incarnation;	/* the seeding lock: the sequence this state is about */
	pg_atomic_uint64 published; /* watermark; written by the worker, and when seeding anew */
	pg_atomic_uint32 published_of;	/* the sequence that it is about; by the worker */
	ConditionVariable advanced; /* broadcast when published moved */
	pg_atomic_uint32 waiters;	/* on a standby: somebody is in wait() */
	pg_atomic_uint32 waiting;	/* sessions in wait() */
	pg_atomic_uint32 worker;	/* proc number + 1 of the worker; 0: none */
	pg_atomic_uint32 worker_pid;	/* 0: none, or one that is just starting or ending */
	pg_atomic_uint32 worker_wanted;
	pg_atomic_uint32 worker_trouble;	/* EVENTO_TROUBLE_*; by the launcher */
	pg_atomic_uint32 worker_failing;	/* its last turn ended with worker_error */
	pg_atomic_uint64 worker_since;	/* TimestampTz of its start */
	char		worker_error[EVENTO_ERROR_SIZE];	/* the tranche's lock; '' : none */
	TimestampTz worker_error_at;	/* the tranche's lock */
	pg_atomic_uint64 keep_off_until;	/* TimestampTz; no worker is started before */
	pg_atomic_uint64 proxies_since; /* TimestampTz of the first renewal of a proxy, 0: none yet */
	pg_atomic_uint32 heads_epoch;	/* entries of heads.c with another one are void */
	pg_atomic_uint32 seeded;	/* the sequence for which counter is right, or InvalidOid */
	char		pad1[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 counter;	/* next position */
	pg_atomic_uint64 reserved;	/* last position that the sequence has reserved */
	char		pad2[PG_CACHE_LINE_SIZE];
	pg_atomic_uint32 wake;		/* the worker has been told to look */
	char		pad3[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 row_tid;	/* newest version of the row: block << 16 | offset; 0: unknown */
	pg_atomic_uint64 nmarks;	/* that were made so far, by the worker; the last are kept */
	EventoMark	marks[EVENTO_MARKS];
	TimestampTz stats_since;	/* written when the state is made */
	pg_atomic_uint64 stats[EVENTO_STAT_COUNT];
	char		pad4[PG_CACHE_LINE_SIZE];
} EventoDb;

/* What a backend says while it commits appends; padded to a cache line. */
typedef union EventoSlot
{
	struct
	{
		pg_atomic_uint64 lower; /* its positions are not below; 0: none */
		pg_atomic_uint32 db;	/* index of its database's state */
		pg_atomic_uint32 pid;
	};
	char		pad[64];
} EventoSlot;

extern void evento_shmem_init(void);

/* True where the library was preloaded and shared memory is there. */
extern bool evento_shmem_ready(void);

/* State of this session's database, made where it is new; 53400 where there is no room. */
extern EventoDb *evento_db(void);
extern int	evento_db_index(const EventoDb *db);

/* State by index (NULL where free) or by database (NULL where unknown). */
extern EventoDb *evento_db_at(int index, Oid *dboid);
extern EventoDb *evento_db_find(Oid dboid);

/* Forgets a database that is gone. */
extern void evento_db_forget(Oid dboid);

extern EventoSlot *evento_my_slot(void);
extern EventoSlot *evento_slots(int *count);

/* Tells the worker of a database, or the launcher to start one.  Never raises. */
extern void evento_wake_worker(EventoDb *db);
extern void evento_wake_launcher(void);

/* The flag that evento_wake_launcher raises. */
extern pg_atomic_uint32 *evento_launcher_woken(void);

/* The launcher says where it is (proc number + 1), or that it goes (0). */
extern void evento_set_launcher(uint32 proc);

/* What the worker of a database died of last, or why its turn failed; NULL forgets it. */
extern void evento_worker_error_set(EventoDb *db, const char *message);

/* The same, into a buffer of EVENTO_ERROR_SIZE; '' where there is none. */
extern void evento_worker_error_get(EventoDb *db, char *message, TimestampTz *at);

/* Makes every entry of heads.c void that belongs to this database.  Never raises. */
extern void evento_heads_clear(EventoDb *db);

/* ---- watermark.c ---- */

/*
 * The watermark up to which a snapshot sees everything, which does not change
 * while a transaction keeps its snapshot.  Needs no preload.
 */
extern int64 evento_watermark_seen(Snapshot snapshot);

/*
 * The watermark that the worker has given out, of the extension whose sequence
 * this is; 0 where that is of another that was dropped since.  publish gives it
 * out, unless it is not before any more.
 */
extern int64 evento_watermark_published(EventoDb *db, Oid sequence);
extern void evento_watermark_publish(EventoDb *db, Oid sequence, int64 before, int64 watermark);

/* The same as its row has it, which may be behind; 0 where it is missing. */
extern int64 evento_watermark_row(Snapshot snapshot);

/* The same for the worker on a standby, which tells the others where it found the row. */
extern int64 evento_watermark_follow(EventoDb *db, Snapshot snapshot);

/*
 * For the worker on a primary, with an active snapshot: writes the row, never
 * backwards.  False where somebody has the table locked and wait is false.
 * Then, once that is committed, tells the others where the row is.  The
 * interval is how long, in ms, to leave the row alone between two writes, since
 * old snapshots keep all its versions; 0: no need.
 */
extern bool evento_watermark_row_write(int64 watermark, bool wait);
extern void evento_watermark_row_written(EventoDb *db);
extern int	evento_watermark_row_interval(void);

/*
 * Leaves a watermark for every snapshot that is taken once a transaction with
 * an id has ended from now on.  For the worker, before it commits.
 */
extern void evento_mark_put(EventoDb *db, Oid sequence, int64 watermark);
extern void evento_marks_init(EventoDb *db);

/* ---- stats.c ---- */

/*
 * Counts; what a session counts is added to shared memory when its transaction
 * ends, so that an append costs no more than a few additions of its own.
 */
extern void evento_stats_count(EventoStat stat, int64 n);

/* Counts what became of an append. */
extern void evento_stats_outcome(const EventoOutcome *outcome);

/* At COMMIT or ABORT of a transaction that has buffered events.  Never raises. */
extern void evento_stats_events(bool committed, int64 events, uint64 bytes, int64 positions);

/* At the end of every transaction.  Never raises. */
extern void evento_stats_flush(void);

/* Counts at once; for the worker. */
static inline void
evento_stats_add(EventoDb *db, EventoStat stat, int64 n)
{
	pg_atomic_fetch_add_u64(&db->stats[stat], n);
}

/* ---- heads.c ---- */

extern Size evento_heads_size(void);
extern void evento_heads_startup(void);

/*
 * Number and newest version of a stream whose lock the caller has; false where
 * they are not cached.  filenode: of evento._events.  hash: of the name.
 */
extern bool evento_heads_find(EventoDb *db, Oid filenode, uint64 hash, const char *name, int len,
							  int64 *no, int64 *version);

/*
 * Remembers them, at COMMIT, for a stream that is not deleted; epoch is
 * heads_epoch as it was before the rows were looked at.  Never raises.
 */
extern void evento_heads_store(EventoDb *db, Oid filenode, uint32 epoch, uint64 hash,
							   const char *name, int len, int64 no, int64 version);

/* For one who is about to change the stream's row.  Never raises. */
extern void evento_heads_forget(EventoDb *db, Oid filenode, uint64 hash, const char *name, int len);

/* ---- sequencer.c ---- */

/*
 * Publishes that this backend is going to commit n events, takes positions for
 * them and gives the first.  May write the sequence and _identity.
 */
extern int64 evento_positions_take(int64 n);

/*
 * For who is about to give numbers of proxies, sessions or locks: sees to it
 * that their sequences are behind all that were given before a promotion.
 */
extern void evento_numbers_check(void);

/* At COMMIT or ABORT.  Never raises. */
extern void evento_positions_end(bool committed);

/* At the end of a subtransaction that is rolled back.  Never raises. */
extern void evento_positions_abort_sub(void);

/* V0007 where a transaction cannot be prepared for two-phase commit. */
extern void evento_positions_check_prepare(void);

/* Rows may have come in by another way: seed again before the next position. */
extern void evento_positions_unknown(void);

/*
 * For the worker, in a transaction of its own: seeds where the counter is
 * unknown and this is not a restore in progress.  False: somebody is loading
 * rows or seeding; try later.  *watermark: up to where all is committed.
 */
extern bool evento_positions_seed(EventoDb *db, int64 *watermark);

/* True where the counter of this database is known. */
extern bool evento_positions_known(EventoDb *db);

/* Watermark by counter and slots; the counter has to be known. */
extern int64 evento_watermark_compute(EventoDb *db);

/* The watermark of this database, computed now; only on a primary. */
extern int64 evento_watermark_now(void);

/* The highest position in the table, of any row; 0 where there is none. */
extern int64 evento_newest_position(void);

/* ---- wait.c, for index.c ---- */

/* For procedures that let go of the snapshot: 25001 where that cannot be. */
extern void evento_check_not_atomic(FunctionCallInfo fcinfo, const char *what);

/* Lets go of every snapshot; EnsurePortalSnapshotExists() takes one again. */
extern void evento_release_snapshots(void);

/* ---- index.c ---- */

extern PGDLLEXPORT void evento_index_main(Datum arg);

/* ---- launcher.c and worker.c ---- */

extern void evento_worker_init(void);
extern PGDLLEXPORT void evento_launcher_main(Datum arg);
extern PGDLLEXPORT void evento_worker_main(Datum arg);

#endif							/* EVENTO_H */
