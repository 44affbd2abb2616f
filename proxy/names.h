/*
 * names.h
 *    Addresses of hosts by their names, looked up without blocking: one request
 *    for each name at a time, whoever wants it.
 *
 *    A resolver may take many seconds for one name, of a machine that is gone
 *    say, and answer others at once; a request that runs cannot be taken back.
 */
#ifndef EVP_NAMES_H
#define EVP_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

/* More addresses of one name are not looked at. */
#define EVP_NAME_MAX_ADDRESSES 32

/* More lookups than libuv runs by itself, which is two: names that are not answered are not to hold up the others.  Called
 * before there is a loop. */
void evp_names_prepare(void);

typedef struct evp_names evp_names_t;

/* NULL on lack of memory. */
evp_names_t *evp_names_new(uv_loop_t *loop);

/* Nobody is told any more. */
void evp_names_stop(evp_names_t *names);

/* After the loop has ended. */
void evp_names_free(evp_names_t *names);

typedef struct evp_name
{
	struct evp_name *next;
	evp_names_t *names;
	uv_getaddrinfo_t request;
	bool		running;			/* request is in use */
	int			status;				/* of the last answer: 0, or an error of libuv's */
	uint64_t	answered_at;		/* in the loop's time */
	size_t		count;
	char		addresses[EVP_NAME_MAX_ADDRESSES][64];	/* with an interface's name, where it is of one */
	char		host[];
} evp_name_t;

/* Begins to look a name up, unless that is under way.  What was found before stays until there is another answer, and the
 * name itself until names are freed.  NULL on lack of memory. */
evp_name_t *evp_names_ask(evp_names_t *names, const char *host);

/* True where the last answer is no older than that, and gave addresses. */
bool	evp_name_is_fresh(const evp_name_t *name, uint64_t ms);

/* One who is told of each answer until it leaves, as it may when it is told; nobody else may then. */
typedef struct evp_names_waiter
{
	struct evp_names_waiter *prev;
	struct evp_names_waiter *next;
	bool		waits;
	void		(*on_answer) (struct evp_names_waiter *waiter);
} evp_names_waiter_t;

void evp_names_wait(evp_names_t *names, evp_names_waiter_t *waiter);
void evp_names_leave(evp_names_t *names, evp_names_waiter_t *waiter);

#endif /* EVP_NAMES_H */
