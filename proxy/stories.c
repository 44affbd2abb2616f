/*
 * stories.c
 *    Stories that are kept: a table by stream, and a list in the order of use.
 */
#include "stories.h"

#include <stdlib.h>
#include <string.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>
#include <utlist.h>

#include "graph.h"

/* A story beyond this is not kept: to add to it and to copy it costs more than to load it. */
#define MAX_STORY ((size_t) 1024 * 1024)

/* What a story takes beside its bytes, about. */
#define STORY_BYTES 256

typedef struct entry
{
	UT_hash_handle hh;
	struct entry *prev;			/* the longest unused first */
	struct entry *next;
	evp_kept_story_t story;
	uint64_t	loaded_at;
	size_t		bytes;			/* as counted */
	size_t		len;
	char		stream[];
} entry_t;

struct evp_stories
{
	entry_t    *table;
	entry_t    *used;
	size_t		bytes;
	size_t		max_bytes;
	uint64_t	max_age;
};

evp_stories_t *
evp_stories_new(size_t max_bytes, uint64_t max_age)
{
	evp_stories_t *stories = calloc(1, sizeof(*stories));

	if (stories != NULL)
	{
		stories->max_bytes = max_bytes;
		stories->max_age = max_age;
	}
	return stories;
}

static void
drop(evp_stories_t *stories, entry_t *entry)
{
	HASH_DEL(stories->table, entry);
	DL_DELETE(stories->used, entry);
	stories->bytes -= entry->bytes;
	evp_buf_free(&entry->story.state);
	evp_buf_free(&entry->story.events);
	free(entry);
}

static entry_t *
find(evp_stories_t *stories, evp_slice_t stream)
{
	entry_t    *entry;

	HASH_FIND(hh, stories->table, stream.p, stream.n, entry);
	return entry;
}

/* Counts what an entry takes now; the longest unused of the others make room. */
static void
count(evp_stories_t *stories, entry_t *entry)
{
	stories->bytes -= entry->bytes;
	entry->bytes = STORY_BYTES + entry->len + entry->story.state.cap + entry->story.events.cap;
	stories->bytes += entry->bytes;
	while (stories->bytes > stories->max_bytes && stories->used != entry)
		drop(stories, stories->used);
}

static bool
too_large(const evp_stories_t *stories, const evp_kept_story_t *story)
{
	size_t		bytes = story->state.len + story->events.len;

	return story->state.failed || story->events.failed || bytes > MAX_STORY || bytes > stories->max_bytes / 8;
}

evp_kept_story_t *
evp_stories_find(evp_stories_t *stories, evp_slice_t stream, uint64_t now)
{
	entry_t    *entry = find(stories, stream);

	if (entry == NULL)
		return NULL;
	if (now - entry->loaded_at > stories->max_age)
	{
		drop(stories, entry);
		return NULL;
	}
	DL_DELETE(stories->used, entry);
	DL_APPEND(stories->used, entry);
	return &entry->story;
}

evp_kept_story_t *
evp_stories_put(evp_stories_t *stories, evp_slice_t stream, int64_t head, evp_buf_t *state, evp_buf_t *events, uint64_t now)
{
	evp_kept_story_t story = {.head = head,.state = *state,.events = *events};
	entry_t    *entry;

	evp_stories_drop(stories, stream);
	if (too_large(stories, &story) || (entry = calloc(1, sizeof(*entry) + stream.n)) == NULL)
		return NULL;
	evp_buf_init(state, state->max);
	evp_buf_init(events, events->max);
	entry->story = story;
	entry->loaded_at = now;
	entry->len = stream.n;
	memcpy(entry->stream, stream.p, stream.n);
	HASH_ADD(hh, stories->table, stream, entry->len, entry);
	DL_APPEND(stories->used, entry);
	count(stories, entry);
	return &entry->story;
}

void
evp_stories_add(evp_stories_t *stories, evp_slice_t stream, const evp_event_t *event, const evp_snapshot_t *snapshot)
{
	entry_t    *entry = find(stories, stream);

	if (entry == NULL)
		return;
	entry->story.head++;
	if (snapshot != NULL)
	{
		evp_buf_reset(&entry->story.state);
		evp_buf_reset(&entry->story.events);
		evp_graph_put_state(&entry->story.state, snapshot);
	}
	else
		evp_graph_put_event(&entry->story.events, event);
	if (too_large(stories, &entry->story))
		drop(stories, entry);
	else
		count(stories, entry);
}

void
evp_stories_drop(evp_stories_t *stories, evp_slice_t stream)
{
	entry_t    *entry = find(stories, stream);

	if (entry != NULL)
		drop(stories, entry);
}

void
evp_stories_clear(evp_stories_t *stories)
{
	while (stories->used != NULL)
		drop(stories, stories->used);
}

void
evp_stories_free(evp_stories_t *stories)
{
	if (stories == NULL)
		return;
	evp_stories_clear(stories);
	free(stories);
}

size_t
evp_stories_bytes(const evp_stories_t *stories)
{
	return stories->bytes;
}

size_t
evp_stories_count(const evp_stories_t *stories)
{
	return HASH_COUNT(stories->table);
}
