/*
 * jumps.h
 *    Where the log left positions out, after a failover or a restore: who stands
 *    among them has read events that are lost.
 */
#ifndef EVP_JUMPS_H
#define EVP_JUMPS_H

#include <stdint.h>

#include "proxy.h"

typedef struct evp_jumps evp_jumps_t;

typedef struct evp_jump
{
	int64_t		last;			/* the highest position that survived */
	int64_t		next;			/* the lowest from then on */
	char	   *text;			/* a JSON object, as GET /cluster gives it */
} evp_jump_t;

/* Called, never from within, when more is known than before. */
typedef void (*evp_jumps_cb)(void *arg);
evp_jumps_t *evp_jumps_new(evp_proxy_t *proxy, evp_jumps_cb cb, void *arg);
void evp_jumps_stop(evp_jumps_t *jumps);
void evp_jumps_free(evp_jumps_t *jumps);

/* Asks the database, where that was not done since it was met. */
void evp_jumps_look(evp_jumps_t *jumps);

/*
 * Is every jump known that a position may lie in?  If not, the database is
 * asked; upto is a position that can be read there, 0 for what is known of that.
 */
bool evp_jumps_known(evp_jumps_t *jumps, int64_t position, int64_t upto);

/* The jump, of those known, that left a position out.  NULL: none; valid until more is known. */
const evp_jump_t *evp_jumps_find(const evp_jumps_t *jumps, int64_t position);

#endif /* EVP_JUMPS_H */
