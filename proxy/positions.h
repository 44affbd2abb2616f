/*
 * positions.h
 *    How far the log was looked at in vain for each consumer, so that one with a
 *    rare context does not look at the same events with every fetch.
 */
#ifndef EVP_POSITIONS_H
#define EVP_POSITIONS_H

#include <stddef.h>
#include <stdint.h>

#include "buf.h"

typedef struct evp_positions evp_positions_t;

/* Remembers at most so many consumers, those that asked last.  NULL on lack of memory. */
evp_positions_t *evp_positions_new(size_t most);
void evp_positions_clear(evp_positions_t *positions);
void evp_positions_free(evp_positions_t *positions);

/* A consumer: its bundle, instance, component and context. */
typedef struct evp_consumer_key
{
	evp_slice_t part[4];
} evp_consumer_key_t;

/* Nothing for this consumer lies between the two positions. */
void evp_positions_set(evp_positions_t *positions, const evp_consumer_key_t *key, int64_t after, int64_t scanned);

/* Where a consumer that asks for what is behind a position can begin to look. */
int64_t evp_positions_get(evp_positions_t *positions, const evp_consumer_key_t *key, int64_t after);

#endif /* EVP_POSITIONS_H */
