/*
 * ask.h
 *    What a server asks a bundle of its consumers, and the answers.
 */
#ifndef EVP_ASK_H
#define EVP_ASK_H

#include "buf.h"

/* payloadType of such requests. */
#define EVP_ASK_PAYLOAD_TYPE "evento:server-admin-request"

typedef enum evp_ask_kind
{
	EVP_ASK_STATUS,				/* position, errors and dead events of a consumer */
	EVP_ASK_PROCESS,			/* handle the dead events that are to be tried again */
	EVP_ASK_DELETE,				/* forget a dead event */
	EVP_ASK_RETRY				/* mark a dead event to be tried again, or not */
} evp_ask_kind_t;

typedef struct evp_ask
{
	evp_ask_kind_t kind;
	evp_slice_t consumer;
	evp_slice_t component_type; /* Projector, Saga or Observer */
	int64_t		position;		/* of the dead event */
	bool		retry;
	evp_slice_t server_instance;
	evp_slice_t correlation;	/* text */
	int64_t		now_ms;
	int64_t		timeout_ms;
} evp_ask_t;

/* The kind of that name (status, process, delete, retry); false where there is none. */
bool		evp_ask_kind(evp_slice_t name, evp_ask_kind_t *kind);

/* Appends the payload of the REQ.  False when the buffer has failed. */
bool		evp_ask_put(evp_buf_t *b, const evp_ask_t *ask);

/*
 * The body of an answer (the payload of the RSP) as JSON text without the names
 * of classes, fit for jsonb; *failed: it is an exception.  Gives 0, or -1 with
 * *reason.
 */
int			evp_ask_answer(evp_buf_t *json, bool *failed, evp_slice_t payload, const char **reason);

#endif							/* EVP_ASK_H */
