/*
 * locks.h
 *    Cluster-wide locks of commands (lockId): FIFO tickets in the database,
 *    taken and released in batches, fenced.
 */
#ifndef EVP_LOCKS_H
#define EVP_LOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "proxy.h"

typedef struct evp_lock evp_lock_t;	/* one ticket of ours */

typedef enum evp_lock_status
{
	EVP_LOCK_HELD,
	EVP_LOCK_TIMEOUT,		/* others had it until the deadline */
	EVP_LOCK_AWAY			/* the database could not be asked, or would not have it */
} evp_lock_status_t;

typedef void (*evp_lock_cb)(void *arg, evp_lock_status_t status, int64_t fence);

evp_locks_t *evp_locks_new(evp_proxy_t *proxy);
void evp_locks_stop(evp_locks_t *locks);
void evp_locks_free(evp_locks_t *locks);

/* A proxy may have died: what waits is asked after more often for some time, for the database knows sooner than its lease tells. */
void evp_locks_hurry(evp_locks_t *locks);

/* How many are asked for or held. */
size_t evp_locks_count(const evp_locks_t *locks);

/* Asks for a lock; called back exactly once, never from within.  On anything but HELD the ticket is given back already
 * and the handle is void.  A lock that is held stays so while this proxy's registration does: whoever uses it lets the
 * database check name and fence. */
evp_lock_t *evp_locks_take(evp_locks_t *locks, const char *name, size_t len, uint64_t deadline, evp_lock_cb cb, void *arg);
/* Gives a ticket back, held or waiting (then its callback will not be called); the handle is void. */
void evp_locks_release(evp_lock_t *lock);

#endif /* EVP_LOCKS_H */
