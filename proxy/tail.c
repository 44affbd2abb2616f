/*
 * tail.c
 *    The newest events of the log, in memory: a ring of copies, in the order of
 *    their positions.
 */
#include "tail.h"

#include <stdlib.h>
#include <string.h>

#define LEAST_CAP 64

struct evp_tail_entry
{
	evp_event_t event;
	size_t		bytes;
	uint64_t	at;				/* when it came */
	uint8_t		data[];			/* what the event's slices point at */
};

static struct evp_tail_entry *
entry_at(const evp_tail_t *tail, size_t i)
{
	return tail->ring[(tail->first + i) & (tail->cap - 1)];
}

void
evp_tail_init(evp_tail_t *tail, size_t max_bytes)
{
	memset(tail, 0, sizeof(*tail));
	tail->max_bytes = max_bytes;
}

/* Lets the oldest event go. */
static void
drop_first(evp_tail_t *tail)
{
	struct evp_tail_entry *entry = entry_at(tail, 0);

	tail->from = entry->event.position;
	tail->bytes -= entry->bytes;
	tail->first = (tail->first + 1) & (tail->cap - 1);
	tail->count--;
	free(entry);
}

static void
drop_all(evp_tail_t *tail)
{
	while (tail->count > 0)
		drop_first(tail);
}

void
evp_tail_free(evp_tail_t *tail)
{
	drop_all(tail);
	free(tail->ring);
	evp_tail_init(tail, tail->max_bytes);
}

void
evp_tail_start(evp_tail_t *tail, int64_t position)
{
	drop_all(tail);
	tail->started = true;
	tail->from = position;
	tail->to = position;
}

/* Copies a slice to *at, which moves on. */
static evp_slice_t
copy_slice(uint8_t **at, evp_slice_t s)
{
	evp_slice_t copy = {.p = NULL};

	if (s.p == NULL)
		return copy;
	copy = evp_slice_of(*at, s.n);
	if (s.n > 0)
		memcpy(*at, s.p, s.n);
	*at += s.n;
	return copy;
}

static struct evp_tail_entry *
copy_event(const evp_event_t *event, uint64_t now)
{
	size_t		n = event->stream.n + event->type.n + event->context.n + event->klass.n + event->data.n + event->metadata.n;
	struct evp_tail_entry *entry = malloc(sizeof(*entry) + n + 1);
	uint8_t    *at;

	if (entry == NULL)
		return NULL;
	entry->event = *event;
	entry->bytes = sizeof(*entry) + n;
	entry->at = now;
	at = entry->data;
	entry->event.stream = copy_slice(&at, event->stream);
	entry->event.type = copy_slice(&at, event->type);
	entry->event.context = copy_slice(&at, event->context);
	entry->event.klass = copy_slice(&at, event->klass);
	entry->event.data = copy_slice(&at, event->data);
	entry->event.metadata = copy_slice(&at, event->metadata);
	return entry;
}

static bool
grow(evp_tail_t *tail)
{
	size_t		cap = tail->cap == 0 ? LEAST_CAP : tail->cap * 2;
	struct evp_tail_entry **ring;

	if (tail->count < tail->cap)
		return true;
	ring = calloc(cap, sizeof(*ring));
	if (ring == NULL)
		return false;
	for (size_t i = 0; i < tail->count; i++)
		ring[i] = entry_at(tail, i);
	free(tail->ring);
	tail->ring = ring;
	tail->cap = cap;
	tail->first = 0;
	return true;
}

void
evp_tail_add(evp_tail_t *tail, const evp_event_t *event, uint64_t now)
{
	struct evp_tail_entry *entry;

	if (!tail->started || event->position <= tail->to)
		return;
	entry = copy_event(event, now);
	if (entry == NULL || entry->bytes > tail->max_bytes || !grow(tail))
	{
		free(entry);
		evp_tail_start(tail, event->position);
		return;
	}
	tail->ring[(tail->first + tail->count) & (tail->cap - 1)] = entry;
	tail->count++;
	tail->bytes += entry->bytes;
	tail->to = event->position;
	while (tail->bytes > tail->max_bytes)
		drop_first(tail);
}

void
evp_tail_reach(evp_tail_t *tail, int64_t position)
{
	if (tail->started && position > tail->to)
		tail->to = position;
}

void
evp_tail_trim(evp_tail_t *tail, uint64_t before)
{
	while (tail->count > 0 && entry_at(tail, 0)->at < before)
		drop_first(tail);
}

bool
evp_tail_covers(const evp_tail_t *tail, int64_t position)
{
	return tail->started && position >= tail->from;
}

const evp_event_t *
evp_tail_next(const evp_tail_t *tail, int64_t position)
{
	size_t		low = 0,
				high = tail->count;

	while (low < high)
	{
		size_t		middle = low + (high - low) / 2;

		if (entry_at(tail, middle)->event.position > position)
			high = middle;
		else
			low = middle + 1;
	}
	return low < tail->count ? &entry_at(tail, low)->event : NULL;
}

bool
evp_tail_match(evp_slice_t pattern, evp_slice_t text)
{
	size_t		p = 0,
				t = 0,
				star = SIZE_MAX,	/* behind the last * met */
				resume = 0;		/* where its run ends, to be tried one further */

	while (t < text.n)
	{
		if (p < pattern.n && pattern.p[p] == '*')
		{
			star = ++p;
			resume = t;
		}
		else if (p < pattern.n && pattern.p[p] == text.p[t])
		{
			p++;
			t++;
		}
		else if (star != SIZE_MAX)
		{
			p = star;
			t = ++resume;
		}
		else
			return false;
	}
	while (p < pattern.n && pattern.p[p] == '*')
		p++;
	return p == pattern.n;
}
