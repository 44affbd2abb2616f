/*
 * fair.h
 *    A queue in which those who put something in take turns: one that floods it
 *    waits behind what it has put in itself, the others behind one thing of its
 *    a round.  What comes from one source leaves in the order in which it came.
 *    Putting in, taking out, and finding who is next take the same time however
 *    much waits.
 */
#ifndef EVP_FAIR_H
#define EVP_FAIR_H

#include <stddef.h>
#include <stdint.h>

/* Sources besides bundles' sessions, which go by their local_no, counted up from 1. */
#define EVP_SOURCE_PROXY	UINT64_C(0)		/* what the proxy itself wants */
#define EVP_SOURCE_HTTP		UINT64_MAX		/* all of HTTP: a connection there has one request */
#define EVP_SOURCE_JOINT	(UINT64_MAX - 1)	/* what belongs to several sessions together */

typedef struct evp_fair_flow evp_fair_flow_t;	/* what waits of one source */

/* Something that waits; embed it. */
typedef struct evp_fair_item
{
	struct evp_fair_item *prev;
	struct evp_fair_item *next;
	evp_fair_flow_t *flow;
} evp_fair_item_t;

/* Zeroed, it is empty, and has no memory to free. */
typedef struct evp_fair
{
	evp_fair_flow_t *ring;			/* those that have something waiting, the one whose turn it is first */
	evp_fair_flow_t *table;			/* the same by source, where they are many */
	size_t		flows;
	size_t		count;				/* of all items */
} evp_fair_t;

/* What an item is embedded in. */
#define EVP_FAIR_OF(item, type, member) ((type *) (void *) ((char *) (item) - offsetof(type, member)))

/* Puts an item behind those of its source. */
void		evp_fair_put(evp_fair_t *fair, uint64_t source, evp_fair_item_t *item);

/* Puts it before all others, those of other sources too. */
void		evp_fair_put_first(evp_fair_t *fair, uint64_t source, evp_fair_item_t *item);

/* The item that is next; NULL where none waits.  It stays so until it is removed, or the turn passed. */
evp_fair_item_t *evp_fair_first(const evp_fair_t *fair);

/* The next but one and so on, in some order: every item once. */
evp_fair_item_t *evp_fair_after(const evp_fair_item_t *item);

/* Takes an item out.  The turn stays with its source, where that has more. */
void		evp_fair_remove(evp_fair_t *fair, evp_fair_item_t *item);

/* Ends the turn of a source, where it is its turn. */
void		evp_fair_pass(evp_fair_t *fair, uint64_t source);

#endif /* EVP_FAIR_H */
