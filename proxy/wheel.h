/*
 * wheel.h
 *    Deadlines by the ten thousand: a timing wheel, in which setting and
 *    taking back a deadline is a list operation.  Due times are met within
 *    EVP_WHEEL_TICK_MS, never early.  Knows no clock: its owner turns it.
 */
#ifndef EVP_WHEEL_H
#define EVP_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVP_WHEEL_TICK_MS	32
#define EVP_WHEEL_SLOTS		1024	/* a round is 32 s; what is due later stays where it is for more rounds */

/* A deadline; embed it.  Zeroed, it is in no wheel. */
typedef struct evp_wheel_item
{
	struct evp_wheel_item *next;
	struct evp_wheel_item **link;	/* what points at this item; NULL: in no wheel */
	uint64_t	due;
} evp_wheel_item_t;

typedef struct evp_wheel
{
	evp_wheel_item_t *slots[EVP_WHEEL_SLOTS];
	uint64_t	tick;			/* the last one that was worked off */
	size_t		count;			/* items in it */
} evp_wheel_t;

/* Times are milliseconds of one monotonic clock. */
void		evp_wheel_init(evp_wheel_t *w, uint64_t now);

/* Sets a deadline, anew where the item has one already.  A due time in the past is met at the next turn. */
void		evp_wheel_add(evp_wheel_t *w, evp_wheel_item_t *item, uint64_t due);

/* Takes it back; nothing happens where it is in no wheel. */
void		evp_wheel_remove(evp_wheel_t *w, evp_wheel_item_t *item);

/*
 * Takes an item out that is due by now; NULL when no more is.  Call it until it
 * gives NULL, at least once a tick while the wheel holds something; items may be
 * added and removed between the calls.
 */
evp_wheel_item_t *evp_wheel_turn(evp_wheel_t *w, uint64_t now);

#endif /* EVP_WHEEL_H */
