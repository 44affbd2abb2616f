/*
 * http_parse.h
 *    What comes in over HTTP as text: targets with their parameters, values of
 *    headers, and the JSON of an append.  No libmicrohttpd, no libuv.
 */
#ifndef EVP_HTTP_PARSE_H
#define EVP_HTTP_PARSE_H

#include "event.h"

#define EVP_HTTP_MAX_LIST	100		/* types, and categories, that one request may name */
#define EVP_HTTP_MAX_EVENTS	10000	/* events of one append */

/* Parts a target at its "?"; both as they came, percent-encoded. */
void		evp_http_split(const char *target, evp_slice_t *path, evp_slice_t *query);

/* Appends what percent-encoded text stands for.  False for a broken escape, and for one that stands for a zero byte. */
bool		evp_http_decode(evp_slice_t text, bool plus_is_space, evp_buf_t *out);

/* The path behind a prefix, decoded, as a name of 1 to max bytes; its bytes lie in out. */
bool		evp_http_name(evp_slice_t path, const char *prefix, size_t max, evp_buf_t *out);

/* Digits alone, up to most. */
bool		evp_http_number(evp_slice_t text, int64_t most, int64_t *value);

/* Digits with ms (or nothing) or s behind, in milliseconds, up to a day. */
bool		evp_http_time(evp_slice_t text, uint64_t *ms);

/* "any", "none", "exists", -4 or a version from 0 on, as EVENTO_EXPECTED_* or n. */
bool		evp_http_expected(evp_slice_t text, int64_t *expected);

/* The version that was found, from the text of a V0001; false where it names none.  No stream is 0. */
bool		evp_http_found(const char *text, int64_t *found);

/* Texts of one parameter that is a list. */
typedef struct evp_http_list
{
	evp_slice_t items[EVP_HTTP_MAX_LIST];
	size_t		n;
} evp_http_list_t;

/* Parameters by name, as flags. */
enum
{
	EVP_HTTP_FROM = 1,			/* a version */
	EVP_HTTP_MAX = 2,			/* how many events */
	EVP_HTTP_BACKWARDS = 4,
	EVP_HTTP_AFTER = 8,			/* a position */
	EVP_HTTP_TYPES = 16,
	EVP_HTTP_CATEGORIES = 32,
	EVP_HTTP_CONTEXT = 64,
	EVP_HTTP_WAIT = 128
};

typedef struct evp_http_query
{
	unsigned	given;			/* EVP_HTTP_* */
	int64_t		from;
	int64_t		max;
	int64_t		after;
	int64_t		seen;			/* what the answer must have of the log: set by who has it, from a header */
	bool		backwards;
	uint64_t	wait;			/* ms */
	evp_slice_t context;		/* null: any */
	evp_http_list_t types;		/* empty: any */
	evp_http_list_t categories;
	evp_buf_t	text;			/* what the slices point at */
} evp_http_query_t;

/* Reads parameters among those allowed (flags).  True; or false with what is wrong.  Free it in either case. */
bool		evp_http_query_read(evp_http_query_t *query, evp_slice_t text, unsigned allowed, char *why, size_t size);
void		evp_http_query_free(evp_http_query_t *query);

/* The events of an append. */
typedef struct evp_http_events
{
	evp_event_t *events;		/* their data and metadata lie in the body */
	size_t		count;
	size_t		with_id;
	evp_buf_t	text;			/* their texts */
} evp_http_events_t;

/*
 * Reads the body of an append: a JSON object, or an array of them.  Gives 0; or
 * the status of the refusal (400, 413, 422) with what is wrong.  Free it in
 * either case.
 */
unsigned	evp_http_events_read(evp_http_events_t *events, evp_slice_t body, char *why, size_t size);
void		evp_http_events_free(evp_http_events_t *events);

#endif							/* EVP_HTTP_PARSE_H */
