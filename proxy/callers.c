/*
 * callers.c
 *    Callers by name, their entries by correlationId, and the lists of entries.
 */
#include "callers.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "metrics.h"

#define KEY_USUAL 256			/* no memory is asked for to look a shorter name up */

/* Makes a caller of a name that there is none of. */
static evp_caller_t *
make_caller(evp_callers_t *callers, const char *key, size_t len)
{
	evp_caller_t *caller = calloc(1, sizeof(*caller));

	if (caller == NULL || (caller->key = malloc(len + 1)) == NULL)
	{
		free(caller);
		return NULL;
	}
	memcpy(caller->key, key, len + 1);
	caller->key_len = len;
	HASH_ADD_KEYPTR(hh, callers->table, caller->key, caller->key_len, caller);
	return caller;
}

evp_caller_t *
evp_caller_find(evp_callers_t *callers, const char *bundle, const char *instance, bool make)
{
	size_t		bundle_len = strlen(bundle);
	size_t		instance_len = strlen(instance);
	size_t		len = bundle_len + 1 + instance_len;
	char		room[KEY_USUAL];
	char	   *key = len < sizeof(room) ? room : malloc(len + 1);
	evp_caller_t *caller = NULL;

	if (key == NULL)
		return NULL;
	memcpy(key, bundle, bundle_len + 1);
	memcpy(key + bundle_len + 1, instance, instance_len + 1);
	HASH_FIND(hh, callers->table, key, len, caller);
	if (caller == NULL && make)
		caller = make_caller(callers, key, len);
	if (key != room)
		free(key);
	return caller;
}

const char *
evp_caller_bundle(const evp_caller_t *caller)
{
	return caller->key;
}

const char *
evp_caller_instance(const evp_caller_t *caller)
{
	return caller->key + strlen(caller->key) + 1;
}

void
evp_caller_release(evp_callers_t *callers, evp_caller_t *caller)
{
	if (caller->session != NULL || caller->entries != NULL || caller->recent != NULL || caller->pins > 0)
		return;
	HASH_DEL(callers->table, caller);
	free(caller->key);
	free(caller);
}

evp_entry_t *
evp_entry_new(evp_caller_t *caller, const uint8_t correlation[16])
{
	evp_entry_t *entry = calloc(1, sizeof(*entry));

	if (entry == NULL)
		return NULL;
	memcpy(entry->correlation, correlation, sizeof(entry->correlation));
	entry->caller = caller;
	HASH_ADD(hh, caller->entries, correlation, sizeof(entry->correlation), entry);
	return entry;
}

evp_entry_t *
evp_entry_find(evp_caller_t *caller, const uint8_t correlation[16])
{
	evp_entry_t *entry;

	HASH_FIND(hh, caller->entries, correlation, 16, entry);
	return entry;
}

void
evp_entry_add(evp_callers_t *callers, evp_entry_t *entry, evp_entry_list_t list, size_t bytes, uint64_t ends_at)
{
	entry->list = list;
	entry->bytes = bytes;
	entry->ends_at = ends_at;
	DL_APPEND(callers->lists[list], entry);
	DL_APPEND2(entry->caller->own[list], entry, own_prev, own_next);
	if (list == EVP_ENTRY_OPEN)
	{
		evp_metrics.requests_open++;
		evp_metrics.request_bytes += bytes;
		entry->caller->open++;
	}
	else
	{
		evp_metrics.answers_kept++;
		evp_metrics.answer_bytes += bytes;
	}
}

void
evp_entry_remove(evp_callers_t *callers, evp_entry_t *entry)
{
	DL_DELETE(callers->lists[entry->list], entry);
	DL_DELETE2(entry->caller->own[entry->list], entry, own_prev, own_next);
	if (entry->list == EVP_ENTRY_OPEN)
	{
		evp_metrics.requests_open--;
		evp_metrics.request_bytes -= entry->bytes;
		entry->caller->open--;
	}
	else
	{
		evp_metrics.answers_kept--;
		evp_metrics.answer_bytes -= entry->bytes;
	}
}

void
evp_entry_free(evp_callers_t *callers, evp_entry_t *entry)
{
	evp_caller_t *caller = entry->caller;

	evp_entry_remove(callers, entry);
	HASH_DEL(caller->entries, entry);
	evp_parts_free(&entry->answer);
	free(entry);
	evp_caller_release(callers, caller);
}

void
evp_recent_add(evp_callers_t *callers, evp_entry_t *entry, uint64_t now)
{
	evp_recent_t *recent = malloc(sizeof(*recent));

	/* Without memory it cannot be sent again, that is all. */
	if (recent != NULL)
	{
		memcpy(recent->correlation, entry->correlation, sizeof(recent->correlation));
		recent->caller = entry->caller;
		recent->answer = entry->answer;
		recent->sent_at = now;
		entry->answer = (evp_parts_t) {0};
		DL_APPEND(callers->recent, recent);
		DL_APPEND2(recent->caller->recent, recent, caller_prev, caller_next);
		evp_metrics.answers_kept++;
		evp_metrics.answer_bytes += recent->answer.len + EVP_RECENT_BYTES;
	}
	evp_entry_free(callers, entry);
}

void
evp_recent_sent(evp_callers_t *callers, evp_recent_t *recent, uint64_t now)
{
	recent->sent_at = now;
	DL_DELETE(callers->recent, recent);
	DL_APPEND(callers->recent, recent);
}

void
evp_recent_free(evp_callers_t *callers, evp_recent_t *recent)
{
	evp_caller_t *caller = recent->caller;

	DL_DELETE(callers->recent, recent);
	DL_DELETE2(caller->recent, recent, caller_prev, caller_next);
	evp_metrics.answers_kept--;
	evp_metrics.answer_bytes -= recent->answer.len + EVP_RECENT_BYTES;
	evp_parts_free(&recent->answer);
	free(recent);
	evp_caller_release(callers, caller);
}

void
evp_callers_trim(evp_callers_t *callers, uint64_t most)
{
	static const evp_entry_list_t order[] = {EVP_ENTRY_KEPT, EVP_ENTRY_AWAY};

	while (evp_metrics.answer_bytes > most && callers->recent != NULL)
		evp_recent_free(callers, callers->recent);
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
	{
		while (evp_metrics.answer_bytes > most && callers->lists[order[i]] != NULL)
			evp_entry_free(callers, callers->lists[order[i]]);
	}
}
