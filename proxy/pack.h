/*
 * pack.h
 *    Writes batches for evento.append_batch in the packed form of
 *    include/packed.h.
 */
#ifndef EVP_PACK_H
#define EVP_PACK_H

#include "../include/packed.h"
#include "buf.h"
#include "event.h"

/* One append.  What flags does not name is not written.  EVENTO_ITEM_SNAPSHOT
 * and EVENTO_ITEM_DROP_SNAPSHOTS exclude one another. */
typedef struct evp_pack_item
{
	uint16_t	flags;			/* EVENTO_ITEM_* */
	int64_t		expected;		/* EVENTO_EXPECTED_* or n */
	evp_slice_t stream;			/* null: none */
	evp_slice_t lock;			/* with EVENTO_ITEM_LOCK */
	int64_t		fence;
	int64_t		since;			/* with EVENTO_ITEM_SINCE */
	evp_slice_t state_class;	/* with EVENTO_ITEM_SNAPSHOT; null allowed */
	evp_slice_t state;
	const evp_event_t *events;	/* their stream is not looked at */
	size_t		n_events;
} evp_pack_item_t;

/* A batch under construction in a buffer of the caller's. */
typedef struct evp_pack
{
	evp_buf_t  *buf;
	size_t		start;			/* where the batch begins in it */
	uint32_t	n_items;
} evp_pack_t;

/* Begins a batch at the end of b. */
void		evp_pack_open(evp_pack_t *pack, evp_buf_t *b);

/*
 * Adds an append.  Gives NULL; or a static text where the append is out of
 * bounds (a length, a number, a missing part) or the buffer is full: the batch
 * is then as it was before.
 */
const char *evp_pack_add(evp_pack_t *pack, const evp_pack_item_t *item);

/* Writes the number of items.  False where there are none or the buffer has failed. */
bool		evp_pack_close(evp_pack_t *pack);

/* Where in a batch of this append alone its since is; for EVENTO_ITEM_SINCE. */
size_t		evp_pack_since_offset(const evp_pack_item_t *item);

/* The bytes that evp_pack_add would write for this append. */
size_t		evp_pack_size(const evp_pack_item_t *item);

#endif							/* EVP_PACK_H */
