/*
 * graph.h
 *    The object graphs inside requests and responses: what the proxy reads of
 *    them, and those it writes.
 *
 * (The open request of a caller is evp_request_t, in requests.h; the graph in
 * its payload is evp_graph_request_t.)
 *
 * Every object is ["fully.qualified.Class", {fields}].  Reading looks only at
 * the fields the proxy needs and gives the bytes of what is passed on; writing
 * splices such bytes in unchanged.
 */
#ifndef EVP_GRAPH_H
#define EVP_GRAPH_H

#include "buf.h"
#include "event.h"

/* What a request wants, by the class of its body. */
typedef enum evp_graph_request_kind
{
	EVP_REQUEST_DOMAIN_COMMAND,
	EVP_REQUEST_SERVICE_COMMAND,
	EVP_REQUEST_QUERY,
	EVP_REQUEST_EVENT_FETCH,
	EVP_REQUEST_LAST_SEQUENCE,
	EVP_REQUEST_OTHER
} evp_graph_request_kind_t;

/*
 * An EventoRequest.  The slices lie in the payload (or in joined strings);
 * the request holds both until evp_graph_request_free.
 */
typedef struct evp_graph_request
{
	evp_graph_request_kind_t kind;
	evp_slice_t payload;		/* all of it, with a reference */
	evp_slice_t source_bundle_id;
	evp_slice_t source_instance_id;
	evp_slice_t correlation_id; /* text; not the frame's */
	int64_t		source_bundle_version;
	int64_t		timestamp_ms;
	int64_t		timeout;		/* in units */
	evp_slice_t unit;			/* name of a java.util.concurrent.TimeUnit */
	evp_slice_t body_class;		/* null where the body is null */
	evp_slice_t body;			/* bytes of the typed object, ["class",{…}] */

	/* commands and queries */
	evp_slice_t name;			/* of the payload, null where it has none */
	evp_slice_t aggregate_id;	/* commands; null allowed */
	evp_slice_t lock_id;		/* commands; null: no lock */
	bool		invalidate_snapshot;	/* domain commands */

	/* EventFetchRequest */
	evp_slice_t context;		/* null: as "*" */
	bool		has_last_sequence;	/* false: from the start */
	int64_t		last_sequence;
	int64_t		limit;
	evp_slice_t component_name;

	evp_arena_t arena;
} evp_graph_request_t;

/*
 * Parses the payload of a REQ, taking a reference to its owner (a copy where
 * it has none).  Gives 0; or -1 with *reason a static text, and then there is
 * nothing to free.
 */
int			evp_graph_request_parse(evp_graph_request_t *r, evp_slice_t payload, const char **reason);
void		evp_graph_request_free(evp_graph_request_t *r);

/* The request's timeout in milliseconds; fallback_ms where its unit is unknown or it is not positive. */
int64_t		evp_graph_request_timeout_ms(const evp_graph_request_t *r, int64_t fallback_ms);

/* What a handler answered, by the class of the response's body. */
typedef enum evp_graph_response_kind
{
	EVP_RESPONSE_DOMAIN_COMMAND,	/* DomainCommandResponseMessage */
	EVP_RESPONSE_SERVICE_EVENT, /* ServiceEventMessage */
	EVP_RESPONSE_EXCEPTION,		/* ExceptionWrapper */
	EVP_RESPONSE_OTHER
} evp_graph_response_kind_t;

typedef struct evp_graph_response
{
	evp_graph_response_kind_t kind;
	evp_slice_t payload;		/* all of it, with a reference */
	evp_slice_t correlation_id; /* text */
	evp_slice_t body_class;		/* null where the body is null */
	evp_slice_t body;			/* bytes of the typed object */

	/* the event: of a domain command response or a service event */
	evp_slice_t event;			/* bytes of its typed object; null: none */
	evp_slice_t event_object;	/* serializedObject, text */
	evp_slice_t event_class;	/* objectClass; null: nothing to append */
	int64_t		event_timestamp_ms;
	evp_slice_t event_metadata; /* bytes of the CBOR item, for evp_metadata_to_json; null: none */
	bool		event_force_telemetry;
	evp_slice_t event_context;	/* null: 'default' */

	/* the aggregate after the event: of a domain command response */
	bool		has_state;
	evp_slice_t state_object;	/* serializedObject, text */
	evp_slice_t state_class;	/* objectClass; null: no snapshot */
	bool		aggregate_deleted;

	evp_arena_t arena;
} evp_graph_response_t;

/* As evp_graph_request_parse, for the payload of a RSP. */
int			evp_graph_response_parse(evp_graph_response_t *r, evp_slice_t payload, const char **reason);
void		evp_graph_response_free(evp_graph_response_t *r);

/*
 * Writing.  All append to a buffer whose failure is sticky; check it at the
 * end.  Events whose klass is null are given the class "class <type>": put the
 * class last seen with that type into klass before, where one is known.
 */

/*
 * The state that a story begins with, as evp_graph_put_decorated takes it.
 * snapshot may be NULL; one without a class (only SQL saves such) is of no use to
 * a bundle: load the story without it.
 */
void		evp_graph_put_state(evp_buf_t *b, const evp_snapshot_t *snapshot);

/*
 * The request for the handler of a domain command: the caller's request with a
 * DecoratedDomainCommandMessage in place of its body.  state is what
 * evp_graph_put_state has written, events what evp_graph_put_event has, one
 * behind the other; service events are no part of a story.
 */
bool		evp_graph_put_decorated(evp_buf_t *b, const evp_graph_request_t *command, evp_slice_t state, evp_slice_t events);

/* What every EventoResponse has beside its body. */
typedef struct evp_graph_response_head
{
	evp_slice_t correlation_id; /* the EventoRequest's, text or null */
	int64_t		timestamp_ms;
	int64_t		request_timestamp_ms;
	int64_t		timeout;
	evp_slice_t unit;			/* null: SECONDS */
} evp_graph_response_head_t;

/* The head of the answer to a request. */
evp_graph_response_head_t evp_graph_response_head(const evp_graph_request_t *request, int64_t now_ms);

/* An EventoResponse around a body that is appended between the two calls. */
void		evp_graph_response_open(evp_buf_t *b, const evp_graph_response_head_t *head);
void		evp_graph_response_close(evp_buf_t *b, const evp_graph_response_head_t *head);

/* An EventoResponse with the given bytes as its body. */
bool		evp_graph_response_put(evp_buf_t *b, const evp_graph_response_head_t *head, evp_slice_t body);

/* Bodies. */
void		evp_graph_put_event(evp_buf_t *b, const evp_event_t *event); /* Domain- or ServiceEventMessage */
void		evp_graph_put_exception(evp_buf_t *b, const char *throwable, evp_slice_t message);
void		evp_graph_put_last_sequence(evp_buf_t *b, int64_t number);

/* A ServiceEventMessage with nothing in it: what a service command that brings no event answers. */
void		evp_graph_put_no_event(evp_buf_t *b, int64_t timestamp_ms);

/*
 * An EventoResponse with an EventFetchResponse, event by event, so that the
 * caller can stop when b->len has grown enough.
 */
void		evp_graph_fetch_open(evp_buf_t *b, const evp_graph_response_head_t *head);
void		evp_graph_fetch_add(evp_buf_t *b, const evp_event_t *event);
void		evp_graph_fetch_close(evp_buf_t *b, const evp_graph_response_head_t *head);

#endif							/* EVP_GRAPH_H */
