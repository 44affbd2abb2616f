/*
 * event.h
 *    A stored event, as it travels between the database, HTTP and bundles.
 */
#ifndef EVP_EVENT_H
#define EVP_EVENT_H

#include "buf.h"

/*
 * The slices borrow: whoever fills an event sees to the life of its bytes.
 * Texts are UTF-8 without terminator; data and metadata are JSON text.
 */
typedef struct evp_event
{
	int64_t		position;		/* 0 before it is stored */
	int64_t		version;		/* 0 without stream */
	int64_t		timestamp_ms;	/* the message's own, ms since 1970 */
	int64_t		recorded_ms;	/* when it was stored */
	uint8_t		id[16];
	bool		has_id;			/* for append: false lets the server make one */
	bool		has_timestamp;	/* for append: false means the time of the append */
	bool		service;		/* kind 'service', else 'domain' */
	bool		force_telemetry;
	evp_slice_t stream;			/* null: in no stream */
	evp_slice_t type;
	evp_slice_t context;		/* null or empty: 'default' */
	evp_slice_t klass;			/* null: appended without one; see payload.h */
	evp_slice_t data;			/* null: erased, with the metadata */
	evp_slice_t metadata;		/* null: none */
} evp_event_t;

/* A snapshot of a stream's state: JSON text and its class, as payload.h stores them. */
typedef struct evp_snapshot
{
	int64_t		version;
	evp_slice_t klass;
	evp_slice_t state;
} evp_snapshot_t;

#endif							/* EVP_EVENT_H */
