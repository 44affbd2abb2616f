/*
 * http_log.h
 *    Readers of the log over HTTP.  A cursor moves along the log: through the
 *    newest events in memory, which one read by feed.c serves to all, where
 *    these reach; else by reads of its own, of which few run at once.
 */
#ifndef EVP_HTTP_LOG_H
#define EVP_HTTP_LOG_H

#include "event.h"
#include "http_parse.h"
#include "jumps.h"
#include "proxy.h"

typedef struct evp_http_log evp_http_log_t;

typedef enum evp_cursor_state
{
	EVP_CURSOR_IDLE,			/* as far as it was asked to go; step takes it further */
	EVP_CURSOR_QUEUED,			/* waits for its turn to read */
	EVP_CURSOR_READING,
	EVP_CURSOR_HEAD				/* there is nothing more yet */
} evp_cursor_state_t;

/* Called while the cursor moves, never from within evp_cursor_step but for take and lost. */
typedef struct evp_cursor_events
{
	bool		(*take) (void *arg, const evp_event_t *event);	/* an event; false: no room, the cursor stays before it */
	void		(*lost) (void *arg, const evp_jump_t *jump);	/* it stands among positions that were left out; before what comes behind */
	void		(*ready) (void *arg);	/* a read has ended, or the log has grown: step again */
	void		(*failed) (void *arg, const char *sqlstate, const char *message);	/* a read failed; sqlstate "" : no database */
} evp_cursor_events_t;

typedef struct evp_cursor
{
	struct evp_cursor *prev;
	struct evp_cursor *next;
	evp_http_log_t *log;
	const evp_cursor_events_t *events;
	void	   *arg;
	const evp_http_query_t *filter;	/* the caller's, which lives as long */
	evp_cursor_state_t state;
	int64_t		position;		/* everything up to it was given, or does not match */
	bool		asked;			/* the database was asked once: an answer is not for want of a notification */
	int64_t		barred;			/* it goes on to here when it is known whether it stands in a jump; 0: it is not kept */
	int64_t		told;			/* the jump that it was told of last, by what is next there */
	int64_t		max;			/* of one read: events, */
	size_t		bytes;			/* and data */
	uint64_t	give_up;		/* a database that is away is waited for until then, with each read */
	void	   *read;			/* under way */
} evp_cursor_t;

evp_http_log_t *evp_http_log_new(evp_proxy_t *proxy);
void evp_http_log_stop(evp_http_log_t *log);
void evp_http_log_free(evp_http_log_t *log);

/* A cursor behind filter->after.  Nothing is called before the first step. */
void evp_cursor_init(evp_cursor_t *cursor, evp_http_log_t *log, const evp_http_query_t *filter, const evp_cursor_events_t *events, void *arg);
/* Moves on as far as memory reaches or there is room, and begins a read where memory does not reach. */
evp_cursor_state_t evp_cursor_step(evp_cursor_t *cursor);
/* Ends it: nothing is called any more. */
void evp_cursor_close(evp_cursor_t *cursor);

/* Does an event match? */
bool evp_cursor_wants(const evp_http_query_t *filter, const evp_event_t *event);

#endif /* EVP_HTTP_LOG_H */
