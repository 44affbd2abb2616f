/*
 * store.h
 *    The log as commands need it: load a story, append with an outcome.
 *    Appends of one loop turn go out as one packed batch (evento.append_batch)
 *    on the append lane; loads of one turn in one write on the read lane.
 */
#ifndef EVP_STORE_H
#define EVP_STORE_H

#include "buf.h"
#include "event.h"
#include "pack.h"
#include "proxy.h"

typedef enum evp_store_status
{
	EVP_STORE_OK,
	EVP_STORE_REPEAT,		/* append: its event was stored before, perhaps with other content; nothing was stored now */
	EVP_STORE_CONFLICT,		/* V0001: load again */
	EVP_STORE_BUSY,			/* 55P03, past the item's deadline: a stream lock or a ticketed lock is in the way */
	EVP_STORE_LOCKED,		/* 55P03, its detail beginning with "lock row", because a lock row of that name exists: take a ticket */
	EVP_STORE_LOCK_LOST,	/* V0008 */
	EVP_STORE_REFUSED,		/* the database said no for good: message says why */
	EVP_STORE_AWAY			/* no database, or the outcome stayed unknown, until the deadline */
} evp_store_status_t;

typedef struct evp_story
{
	int64_t		head;			/* version of the newest event, 0: none */
	const evp_event_t *stored;	/* the event with the id that was asked for, erased or not, or NULL */
	bool		has_snapshot;
	int64_t		snapshot_version;
	evp_slice_t snapshot_class, snapshot_state;
	const evp_event_t *events;	/* behind the snapshot, in order, erased ones left out; domain and service events, each with a class where
								 * any is known for its type */
	size_t		event_count;
	bool		standby;		/* it is a standby's: others may have appended since, or stored the event that was asked for */
	bool		visible;		/* it has a snapshot, or events, erased ones too: it is not deleted with all of them */
} evp_story_t;

typedef void (*evp_load_cb)(void *arg, evp_store_status_t status, const evp_story_t *story, const char *message);
typedef void (*evp_append_cb)(void *arg, evp_store_status_t status, int64_t first_version, int64_t last_version, const char *message);

evp_store_t *evp_store_new(evp_proxy_t *proxy);
void evp_store_stop(evp_store_t *store);
void evp_store_free(evp_store_t *store);

/* What is loaded beside the head and the event with an id. */
typedef enum evp_load_what
{
	EVP_LOAD_STORED,		/* nothing */
	EVP_LOAD_EVENTS,		/* all events */
	EVP_LOAD_SNAPSHOT		/* the newest snapshot and the events behind it */
} evp_load_what_t;

/* evento.load_stream, in turn with other sources (fair.h).  id: 16 bytes or NULL.  The story and the bytes it points at are
 * valid until the callback returns.  Waits at most database-wait for a database that is away, and is tried again until the
 * deadline where its connection is lost.  Called back exactly once, never from within. */
void evp_store_load(evp_store_t *store, uint64_t source, const char *stream, size_t len, const uint8_t *id, evp_load_what_t what,
					uint64_t deadline, evp_load_cb cb, void *arg);

/* The same with EVP_LOAD_SNAPSHOT, where reads go: from a standby that has what was committed before a time (reads.h), or
 * the primary. */
void evp_store_load_near(evp_store_t *store, uint64_t source, const char *stream, size_t len, const uint8_t *id, uint64_t since,
						 uint64_t deadline, evp_load_cb cb, void *arg);

/* One append (see pack.h), in turn with other sources (fair.h); one that is chained has the source of that before it.  Its
 * bytes are copied.  An outcome that is unknown is asked again with the same bytes and ids until the deadline; a busy stream
 * alone, on another connection. */
void evp_store_append(evp_store_t *store, uint64_t source, const evp_pack_item_t *append, uint64_t deadline, evp_append_cb cb,
					  void *arg);

/* The SQLSTATE of the refusal that a callback of evp_store_append is being told; "" where the database gave none. */
const char *evp_store_sqlstate(const evp_store_t *store);

/* An event that bundles appended: its class is remembered with its type (classes.h). */
void evp_store_class_seen(evp_store_t *store, evp_slice_t type, evp_slice_t klass);

/* How many appends wait or are not confirmed, and their bytes. */
void evp_store_queued(const evp_store_t *store, size_t *count, size_t *bytes);

/* Until when a request that needs the database waits for one that is away: the setting database-wait from now, and the
 * request's deadline. */
uint64_t evp_store_wait_until(const evp_store_t *store, uint64_t deadline);

#endif /* EVP_STORE_H */
