/*
 * said.h
 *    What was last said of each of some places, so that a log is told of news
 *    alone, however often, and of however many places in turn, the same is found.
 */
#ifndef EVP_SAID_H
#define EVP_SAID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of more places, the one that was met longest ago is forgotten. */
#define EVP_SAID_PLACES 128

/* All zero: nothing was said. */
typedef struct evp_said
{
	struct
	{
		uint64_t	place;
		uint64_t	text;
	}			items[EVP_SAID_PLACES];
	size_t		count;			/* of places ever met */
} evp_said_t;

/* Whether this text is not what was last said of the place; from now on it is. */
bool evp_said_news(evp_said_t *said, const char *place, const char *text);

void evp_said_forget(evp_said_t *said);

#endif /* EVP_SAID_H */
