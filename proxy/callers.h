/*
 * callers.h
 *    The table behind requests.c: callers, and for each the requests that are
 *    open and the answers that are kept.
 *
 *    An entry is in one list at a time: open, until it is answered; then away,
 *    when the answer could not be sent; or kept, when a repeat is to get the
 *    same bytes (commands).  Each list but the first is in the order in which
 *    its entries end.
 *
 *    Of the others, which simply run again when they are repeated, only the
 *    answer stays for a short time, in case the connection that it went out on
 *    is about to break.  Nothing looks for these, and there are as many as a
 *    proxy answers in that time: they are no entries, so that the table of those
 *    that are looked for stays small.
 */
#ifndef EVP_CALLERS_H
#define EVP_CALLERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>

#include "requests.h"
#include "wire.h"

/* What they take beside the message, about. */
#define EVP_ENTRY_BYTES 512
#define EVP_RECENT_BYTES 256

typedef enum evp_entry_list
{
	EVP_ENTRY_OPEN,
	EVP_ENTRY_AWAY,
	EVP_ENTRY_KEPT,
	EVP_ENTRY_LISTS
} evp_entry_list_t;

typedef struct evp_entry evp_entry_t;
typedef struct evp_recent evp_recent_t;

/* A bundle's instance that is connected here, or has entries. */
typedef struct evp_caller
{
	char	   *key;			/* bundle, a zero byte, instance */
	size_t		key_len;
	evp_session_t *session;		/* NULL while it is not connected here */
	uint64_t	closed_at;		/* when its last session here ended */
	bool		has_read;		/* and it had got everything that was sent on it */
	evp_entry_t *entries;		/* by correlationId, in the order of their making */
	evp_entry_t *own[EVP_ENTRY_LISTS];	/* the same, by list, each in the order in which they came there */
	evp_recent_t *recent;		/* sent a short time ago */
	unsigned	open;
	unsigned	pins;			/* who works on it and does not want it freed */
	UT_hash_handle hh;
} evp_caller_t;

struct evp_entry
{
	uint8_t		correlation[16];
	evp_caller_t *caller;
	evp_request_t *request;		/* while it is open; a reference */
	evp_parts_t answer;			/* then */
	bool		command;
	evp_entry_list_t list;
	size_t		bytes;			/* as counted in the list's metric */
	uint64_t	sent_at;		/* evp_now time of the answer */
	uint64_t	ends_at;		/* when it leaves its list */
	evp_entry_t *prev;
	evp_entry_t *next;
	evp_entry_t *own_prev;		/* among the caller's in the same list */
	evp_entry_t *own_next;
	UT_hash_handle hh;
};

/* An answer that was sent a short time ago. */
struct evp_recent
{
	evp_caller_t *caller;
	uint8_t		correlation[16];
	evp_parts_t answer;
	uint64_t	sent_at;
	evp_recent_t *prev;			/* of all, in the order in which they were sent */
	evp_recent_t *next;
	evp_recent_t *caller_prev;	/* of the caller's */
	evp_recent_t *caller_next;
};

typedef struct evp_callers
{
	evp_caller_t *table;
	evp_entry_t *lists[EVP_ENTRY_LISTS];
	evp_recent_t *recent;
} evp_callers_t;

/* The caller of this name; make: made where there is none.  NULL where there is none, or no memory. */
evp_caller_t *evp_caller_find(evp_callers_t *callers, const char *bundle, const char *instance, bool make);

/* Its two names, the caller's as long as it lives. */
const char *evp_caller_bundle(const evp_caller_t *caller);
const char *evp_caller_instance(const evp_caller_t *caller);

/* Frees a caller that nothing needs any more. */
void evp_caller_release(evp_callers_t *callers, evp_caller_t *caller);

/* A new entry of a caller, in no list yet; the correlationId is not there.  NULL without memory. */
evp_entry_t *evp_entry_new(evp_caller_t *caller, const uint8_t correlation[16]);
evp_entry_t *evp_entry_find(evp_caller_t *caller, const uint8_t correlation[16]);

/* Puts an entry at the end of a list, counting bytes for it; takes it out of its list. */
void evp_entry_add(evp_callers_t *callers, evp_entry_t *entry, evp_entry_list_t list, size_t bytes, uint64_t ends_at);
void evp_entry_remove(evp_callers_t *callers, evp_entry_t *entry);

/* Frees an entry that is in a list and has no request any more; its caller may go with it. */
void evp_entry_free(evp_callers_t *callers, evp_entry_t *entry);

/* Puts the answer of an entry, which was sent now, in the place of the entry; its caller stays. */
void evp_recent_add(evp_callers_t *callers, evp_entry_t *entry, uint64_t now);
/* It was sent once more. */
void evp_recent_sent(evp_callers_t *callers, evp_recent_t *recent, uint64_t now);
/* Its caller may go with it. */
void evp_recent_free(evp_callers_t *callers, evp_recent_t *recent);

/* Drops the oldest answers, the least needed first, until those kept take at most so many bytes. */
void evp_callers_trim(evp_callers_t *callers, uint64_t most);

#endif /* EVP_CALLERS_H */
