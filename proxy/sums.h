/*
 * sums.h
 *    Sums of what bundles tell of their handlers, in memory, with a bound on
 *    how many things are summed.  A pure model: telemetry.c brings the sums to
 *    the database.
 */
#ifndef EVP_SUMS_H
#define EVP_SUMS_H

#include "buf.h"

typedef struct evp_sums evp_sums_t;

/* What is summed: the calls of a handler; or, with invoked, what these invoked. */
typedef struct evp_sum
{
	evp_slice_t bundle;
	int64_t		version;
	evp_slice_t component;
	evp_slice_t action;
	evp_slice_t invoked;		/* empty: the handler itself */
	int64_t		count;
	int64_t		timed;			/* calls of which a service time was told */
	int64_t		total_ms;
	int64_t		max_ms;
} evp_sum_t;

/* Sums at most so many things.  NULL on lack of memory. */
evp_sums_t *evp_sums_new(size_t most);
void		evp_sums_free(evp_sums_t *s);

/* Adds; names are copied and hold no U+0000.  False where there is no room for one thing more. */
bool		evp_sums_add(evp_sums_t *s, const evp_sum_t *sum);

/* Things whose sums are not zero. */
size_t		evp_sums_count(const evp_sums_t *s);

/* Gives at most so many of these to the callback and sets them to zero; they are remembered.  Gives their number. */
typedef void (*evp_sums_cb) (void *arg, const evp_sum_t *sum);
size_t		evp_sums_take(evp_sums_t *s, size_t most, evp_sums_cb cb, void *arg);

/* Forgets the things whose sums are zero, so that there is room for others. */
void		evp_sums_forget(evp_sums_t *s);

#endif							/* EVP_SUMS_H */
