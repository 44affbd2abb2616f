/*
 * tail.h
 *    The newest events of the log, in memory: all of those between two positions,
 *    bounded in bytes and in age.  No libuv, no libpq.
 */
#ifndef EVP_TAIL_H
#define EVP_TAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "event.h"

typedef struct evp_tail
{
	struct evp_tail_entry **ring;	/* in the order of their positions, from first on */
	size_t		cap;			/* of ring, a power of two or 0 */
	size_t		first;
	size_t		count;
	size_t		bytes;
	size_t		max_bytes;
	bool		started;
	int64_t		from;			/* every event behind from ... */
	int64_t		to;				/* ... up to here is in it */
} evp_tail_t;

void evp_tail_init(evp_tail_t *tail, size_t max_bytes);
void evp_tail_free(evp_tail_t *tail);

/* Empties it: it begins behind a position, up to which others read by themselves. */
void evp_tail_start(evp_tail_t *tail, int64_t position);

/* Takes a copy of an event behind the last; the oldest make room.  Where memory runs out, it begins behind this event. */
void evp_tail_add(evp_tail_t *tail, const evp_event_t *event, uint64_t now);

/* There is nothing more up to this position. */
void evp_tail_reach(evp_tail_t *tail, int64_t position);

/* Lets go of events that came before a time. */
void evp_tail_trim(evp_tail_t *tail, uint64_t before);

/* True where all events behind a position are in it. */
bool evp_tail_covers(const evp_tail_t *tail, int64_t position);

/* The first event behind a position, NULL where there is none; valid until the tail is changed. */
const evp_event_t *evp_tail_next(const evp_tail_t *tail, int64_t position);

/* Does a text match a pattern in which * is any run of characters? */
bool evp_tail_match(evp_slice_t pattern, evp_slice_t text);

#endif /* EVP_TAIL_H */
