/*
 * sums.c
 *    See sums.h.
 */
#include "sums.h"

#include <stdlib.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>
#include <utlist.h>

#define NAMES 4

typedef struct entry
{
	UT_hash_handle hh;
	struct entry *prev;			/* in the list of those that are not zero */
	struct entry *next;
	evp_sum_t	sum;			/* its names lie in key */
	size_t		key_len;
	uint8_t		key[];			/* version, and the names with a zero byte behind each */
} entry_t;

struct evp_sums
{
	size_t		most;
	size_t		n;
	size_t		n_filled;
	entry_t    *entries;
	entry_t    *filled;
	evp_buf_t	key;			/* of the one that is looked for */
};

evp_sums_t *
evp_sums_new(size_t most)
{
	evp_sums_t *s = calloc(1, sizeof *s);

	if (s != NULL)
	{
		s->most = most;
		evp_buf_init(&s->key, 1024 * 1024);
	}
	return s;
}

void
evp_sums_free(evp_sums_t *s)
{
	entry_t    *entry,
			   *next;

	if (s == NULL)
		return;
	HASH_ITER(hh, s->entries, entry, next)
	{
		HASH_DEL(s->entries, entry);
		free(entry);
	}
	evp_buf_free(&s->key);
	free(s);
}

/* A new entry of the key that s->key holds. */
static entry_t *
add_entry(evp_sums_t *s, const evp_sum_t *sum)
{
	entry_t    *entry;
	evp_slice_t *names[NAMES];
	uint8_t    *p;

	if (s->n >= s->most)
		return NULL;
	entry = calloc(1, sizeof *entry + s->key.len);
	if (entry == NULL)
		return NULL;
	memcpy(entry->key, s->key.data, s->key.len);
	entry->key_len = s->key.len;
	entry->sum = (evp_sum_t) {.bundle = sum->bundle,.version = sum->version,.component = sum->component,.action = sum->action,
	.invoked = sum->invoked};
	names[0] = &entry->sum.bundle;
	names[1] = &entry->sum.component;
	names[2] = &entry->sum.action;
	names[3] = &entry->sum.invoked;
	p = entry->key + 8;
	for (int k = 0; k < NAMES; k++)
	{
		*names[k] = evp_slice_of(p, names[k]->n);
		p += names[k]->n + 1;
	}
	HASH_ADD_KEYPTR(hh, s->entries, entry->key, entry->key_len, entry);
	s->n++;
	return entry;
}

static bool
is_zero(const evp_sum_t *sum)
{
	return sum->count == 0 && sum->timed == 0;
}

bool
evp_sums_add(evp_sums_t *s, const evp_sum_t *sum)
{
	const evp_slice_t names[NAMES] = {sum->bundle, sum->component, sum->action, sum->invoked};
	entry_t    *entry;

	evp_buf_reset(&s->key);
	evp_buf_append_u64(&s->key, (uint64_t) sum->version);
	for (int k = 0; k < NAMES; k++)
	{
		evp_buf_append(&s->key, names[k].p, names[k].n);
		evp_buf_append_u8(&s->key, 0);
	}
	if (s->key.failed)
		return false;
	HASH_FIND(hh, s->entries, s->key.data, s->key.len, entry);
	if (entry == NULL && (entry = add_entry(s, sum)) == NULL)
		return false;
	if (is_zero(&entry->sum) && !is_zero(sum))
	{
		DL_APPEND(s->filled, entry);
		s->n_filled++;
	}
	entry->sum.count += sum->count;
	entry->sum.timed += sum->timed;
	entry->sum.total_ms += sum->total_ms;
	if (sum->max_ms > entry->sum.max_ms)
		entry->sum.max_ms = sum->max_ms;
	return true;
}

size_t
evp_sums_count(const evp_sums_t *s)
{
	return s->n_filled;
}

size_t
evp_sums_take(evp_sums_t *s, size_t most, evp_sums_cb cb, void *arg)
{
	size_t		n;

	for (n = 0; n < most && s->filled != NULL; n++)
	{
		entry_t    *entry = s->filled;

		cb(arg, &entry->sum);
		DL_DELETE(s->filled, entry);
		s->n_filled--;
		entry->sum.count = 0;
		entry->sum.timed = 0;
		entry->sum.total_ms = 0;
		entry->sum.max_ms = 0;
	}
	return n;
}

void
evp_sums_forget(evp_sums_t *s)
{
	entry_t    *entry,
			   *next;

	HASH_ITER(hh, s->entries, entry, next)
	{
		if (!is_zero(&entry->sum))
			continue;
		HASH_DEL(s->entries, entry);
		s->n--;
		free(entry);
	}
}
