/*
 * stories.h
 *    Stories of aggregates that are kept for the next command: the state and the
 *    events behind it, as the handler's request has them, and the version that
 *    the next append expects.  No libuv, no libpq.
 *
 *    What is kept may be behind the database: another proxy appends without
 *    telling.  The expected version shows that at the append; a result that is
 *    not appended has to be checked otherwise.
 */
#ifndef EVP_STORIES_H
#define EVP_STORIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "event.h"

typedef struct evp_stories evp_stories_t;

/* A story that is kept; valid until stories are changed by another call than evp_stories_add. */
typedef struct evp_kept_story
{
	int64_t		head;			/* version of the newest event, which may not be committed yet */
	evp_buf_t	state;			/* evp_graph_put_state */
	evp_buf_t	events;			/* evp_graph_put_event, one behind the other */
} evp_kept_story_t;

/* Keeps stories of max_bytes together, each for max_age milliseconds after its load.  NULL on lack of memory. */
evp_stories_t *evp_stories_new(size_t max_bytes, uint64_t max_age);
void evp_stories_free(evp_stories_t *stories);

/* The story of a stream, or NULL; now in milliseconds. */
evp_kept_story_t *evp_stories_find(evp_stories_t *stories, evp_slice_t stream, uint64_t now);

/*
 * Keeps a story that was loaded, in place of one that was kept before; the
 * longest unused make room.  Takes the buffers over, which are empty afterwards.
 * NULL where it is too large to be kept, or memory is short: they are the caller's still.
 */
evp_kept_story_t *evp_stories_put(evp_stories_t *stories, evp_slice_t stream, int64_t head, evp_buf_t *state, evp_buf_t *events,
								  uint64_t now);

/*
 * Adds the next event to a kept story; snapshot: the state at it, which takes
 * the place of all events, or NULL.  The story is dropped where it became too
 * large.
 */
void evp_stories_add(evp_stories_t *stories, evp_slice_t stream, const evp_event_t *event, const evp_snapshot_t *snapshot);

/* Forgets the story of a stream, or all. */
void evp_stories_drop(evp_stories_t *stories, evp_slice_t stream);
void evp_stories_clear(evp_stories_t *stories);

/* Bytes that the kept ones take, about, and how many they are. */
size_t evp_stories_bytes(const evp_stories_t *stories);
size_t evp_stories_count(const evp_stories_t *stories);

#endif /* EVP_STORIES_H */
