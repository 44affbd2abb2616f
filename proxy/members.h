/*
 * members.h
 *    The cluster as one proxy knows it: proxies, instances of bundles, and the
 *    payload names these handle.  A pure model, without a clock, a loop or a
 *    database: registry.c feeds it with what happens to the sessions here, with
 *    pictures from the database and with what the links notice.
 *
 *    Of two sessions of one instance the one with the higher number of the
 *    database holds.  A session here that has no number yet is the newest there
 *    is: the number that it is going to get is higher than all that are given.
 *
 *    Where memory runs out this aborts: a picture with holes would send commands
 *    astray.
 */
#ifndef EVP_MEMBERS_H
#define EVP_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct evp_session evp_session_t;
typedef struct evp_members evp_members_t;
struct evp_call;

typedef enum evp_instance_state
{
	EVP_INSTANCE_WAITING,	/* connected, not (yet) ready for requests */
	EVP_INSTANCE_READY,
	EVP_INSTANCE_CUT		/* its connection or its proxy was lost a short time ago */
} evp_instance_state_t;

/* One instance of a bundle somewhere in the cluster; gone ones are freed. */
typedef struct evp_instance
{
	char		   *bundle;
	char		   *instance;
	evp_instance_state_t state;
	evp_session_t  *session;	/* where it is connected here, else NULL */
	int64_t			proxy_id;	/* where it is connected elsewhere, else 0 */
	int64_t			session_no;	/* of the session it has, or had; 0: not known yet */
	char		  **names;
	size_t			name_count;
	uint64_t		cut_at;		/* when it was cut */

	unsigned		open;		/* router.c's: calls that it was asked from here and has not answered */
	struct evp_call *calls;		/* router.c's: these, and the ones it is to be asked again */
	uint64_t		last_pick;	/* members.c's from here on */
	unsigned		unanswered;	/* calls by which it was tried since it answered, with the first that ran out of its time */
	uint64_t		avoided_until;	/* others are asked first until then */
	bool			enabled;	/* as the database said last */
	int64_t			lost_no;	/* sessions up to this number are known to have ended */
	uint64_t		seen;		/* picture it was last in */
} evp_instance_t;

/* Another proxy. */
typedef struct evp_peer
{
	int64_t		proxy_id;
	char	   *internal;		/* "host:port" */
	bool		linked;			/* a link to it is up */
	bool		lost;			/* its link broke, and none could be made since */
	uint64_t	lost_at;
	uint64_t	missing_at;		/* when a picture first lacked it; 0: it is there */
	uint64_t	seen;
} evp_peer_t;

/* A row of a picture: a session, or a proxy without any (session_no 0, the rest NULL). */
typedef struct evp_member_row
{
	int64_t		proxy_id;
	const char *internal;
	int64_t		session_no;
	const char *bundle;
	const char *instance;
	bool		enabled;
	const char *const *names;
	size_t		name_count;
} evp_member_row_t;

/* Told while a call of this module runs; they must not call back into it. */
typedef struct evp_members_events
{
	/* Instances, their states or their names are not what they were. */
	void		(*on_changed) (void *arg);
	/* Its session ended or was replaced: what it was asked must be asked again. */
	void		(*on_cut) (void *arg, evp_instance_t *instance);
	/* It is about to be freed. */
	void		(*on_gone) (void *arg, evp_instance_t *instance);
	/* It has a new session at another proxy. */
	void		(*on_moved) (void *arg, evp_instance_t *instance);
} evp_members_events_t;

/* cut_ms: how long an instance that was cut is waited for.  avoid_ms: how long one that does not answer is avoided at most. */
evp_members_t *evp_members_new(const evp_members_events_t *events, void *arg, uint64_t cut_ms, uint64_t avoid_ms);
/* Frees everything; calls on_gone for nothing. */
void		evp_members_free(evp_members_t *m);

/*
 * A session here.  open: it was welcomed; *older is the session here of the same
 * instance that it replaces, or NULL.  set: what it handles.  number: what the
 * database calls it.  close: it has ended; nothing happens where another session
 * has replaced it.
 */
void		evp_members_open(evp_members_t *m, evp_session_t *session, const char *bundle, const char *instance, uint64_t now,
							 evp_session_t **older);
void		evp_members_set(evp_members_t *m, evp_session_t *session, const char *bundle, const char *instance, bool ready,
							char *const *names, size_t name_count);
void		evp_members_number(evp_members_t *m, evp_session_t *session, const char *bundle, const char *instance,
							   int64_t session_no);
void		evp_members_close(evp_members_t *m, evp_session_t *session, const char *bundle, const char *instance, uint64_t now);

/*
 * A picture from the database: every live proxy and every session that holds.
 * self: the number of this proxy, whose rows are left out.  A session here that
 * was superseded is taken from its instance and reported to on_superseded, which
 * may call nothing of this module until the merge has returned.
 */
typedef void (*evp_superseded_cb)(void *arg, evp_session_t *session, int64_t by_proxy);
void		evp_members_merge(evp_members_t *m, int64_t self, const evp_member_row_t *rows, size_t n, uint64_t now,
							  evp_superseded_cb on_superseded);

/*
 * Frees what has been cut for too long and is not elsewhere: seen_at is when the
 * newest picture was asked for, and while the database cannot be asked nobody
 * knows where an instance has gone.  True where something waits for a picture.
 */
bool		evp_members_expire(evp_members_t *m, uint64_t now, uint64_t seen_at);

/* The link to a proxy came up; broke, or could not be made; the proxy has another number. */
void		evp_members_proxy_found(evp_members_t *m, int64_t proxy_id);
void		evp_members_proxy_lost(evp_members_t *m, int64_t proxy_id, uint64_t now);
void		evp_members_proxy_renamed(evp_members_t *m, int64_t from, int64_t to);

/* The proxy that held a session of a number said that it has ended, or that it takes no requests. */
void		evp_members_session_lost(evp_members_t *m, evp_instance_t *instance, int64_t proxy_id, int64_t session_no, uint64_t now);
void		evp_members_session_waiting(evp_members_t *m, evp_instance_t *instance, int64_t proxy_id, int64_t session_no);

/* Instances that handle a name, whatever their state; valid until the next call that changes something. */
size_t		evp_members_find(evp_members_t *m, const char *name, size_t len, evp_instance_t *const **list);
evp_instance_t *evp_members_instance(evp_members_t *m, const char *bundle, const char *instance);
const evp_peer_t *evp_members_peer(evp_members_t *m, int64_t proxy_id);
/* Goes through the other proxies: NULL gives the first, the last gives NULL. */
const evp_peer_t *evp_members_next_peer(evp_members_t *m, const evp_peer_t *peer);

/* A call that an instance was asked ran out of its time; true where it is the first in a row.  Others are asked first for a
 * second, twice as long each further time, but for one call at the end of each such time; an answer in time ends it, and a new
 * session. */
bool		evp_members_unanswered(evp_members_t *m, evp_instance_t *instance, uint64_t now);
void		evp_members_answered(evp_instance_t *instance);

/* Of those that are ready one that is not avoided; of these the one with the fewest open calls, then one that is connected
 * here, then the one that was chosen longest ago.  NULL where none is ready. */
evp_instance_t *evp_members_pick(evp_members_t *m, evp_instance_t *const *list, size_t n, uint64_t now);

#endif /* EVP_MEMBERS_H */
