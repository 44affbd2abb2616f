/*
 * positions.c
 *    How far the log was looked at in vain for each consumer.
 */
#include "positions.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

/* Longer names are not remembered. */
#define MAX_KEY 4096

typedef struct position
{
	UT_hash_handle hh;			/* the table's order is that of the last use */
	int64_t		after;
	int64_t		scanned;
	size_t		len;
	uint8_t		key[];
} position_t;

struct evp_positions
{
	position_t *table;
	size_t		most;
	evp_buf_t	key;			/* of the consumer that is asked about */
};

evp_positions_t *
evp_positions_new(size_t most)
{
	evp_positions_t *positions = calloc(1, sizeof(*positions));

	if (positions == NULL)
		return NULL;
	positions->most = most;
	evp_buf_init(&positions->key, MAX_KEY);
	return positions;
}

void
evp_positions_clear(evp_positions_t *positions)
{
	position_t *position,
			   *next;

	HASH_ITER(hh, positions->table, position, next)
	{
		HASH_DEL(positions->table, position);
		free(position);
	}
}

void
evp_positions_free(evp_positions_t *positions)
{
	if (positions == NULL)
		return;
	evp_positions_clear(positions);
	evp_buf_free(&positions->key);
	free(positions);
}

/* Writes the key into the buffer, each part with its length, and finds what is remembered; NULL where nothing is. */
static position_t *
find(evp_positions_t *positions, const evp_consumer_key_t *key)
{
	position_t *position;

	evp_buf_reset(&positions->key);
	for (size_t i = 0; i < sizeof(key->part) / sizeof(key->part[0]); i++)
	{
		evp_buf_append_u32(&positions->key, (uint32_t) key->part[i].n);
		evp_buf_append(&positions->key, key->part[i].p, key->part[i].n);
	}
	if (positions->key.failed)
		return NULL;
	HASH_FIND(hh, positions->table, positions->key.data, positions->key.len, position);
	return position;
}

void
evp_positions_set(evp_positions_t *positions, const evp_consumer_key_t *key, int64_t after, int64_t scanned)
{
	position_t *position = find(positions, key);

	if (positions->key.failed)
		return;
	if (position != NULL)
		HASH_DEL(positions->table, position);
	else
	{
		if (HASH_COUNT(positions->table) >= positions->most)
		{
			position_t *oldest = positions->table;

			HASH_DEL(positions->table, oldest);
			free(oldest);
		}
		position = malloc(sizeof(*position) + positions->key.len);
		if (position == NULL)
			return;
		position->len = positions->key.len;
		memcpy(position->key, positions->key.data, position->len);
	}
	position->after = after;
	position->scanned = scanned;
	HASH_ADD(hh, positions->table, key, position->len, position);
}

int64_t
evp_positions_get(evp_positions_t *positions, const evp_consumer_key_t *key, int64_t after)
{
	position_t *position = find(positions, key);

	return position != NULL && position->after == after && position->scanned > after ? position->scanned : after;
}
