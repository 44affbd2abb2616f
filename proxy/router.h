/*
 * router.h
 *    From a payload name to an answer: chooses an instance in the cluster, asks
 *    it here or over a link, hides cuts of its connection.
 *
 *    An instance is READY; CUT for 5 s after its socket closed (or its proxy's
 *    link broke); then GONE.  A call that was sent to an instance that is cut is
 *    sent again, the same REQ under the same correlationId, to the same instance
 *    at whichever proxy it returns; the bundle runs it once.  When it is gone,
 *    aggregate calls go to another instance under a fresh correlationId (nothing
 *    was stored), service calls end in EVP_CALL_GONE; queries move to another
 *    at once.  A call for a name whose only instances are cut, or connected and
 *    not ready yet, waits for them (within its deadline); where there is
 *    none in a picture of the cluster that is younger than the call, it ends in
 *    EVP_CALL_NO_HANDLER.
 */
#ifndef EVP_ROUTER_H
#define EVP_ROUTER_H

#include "buf.h"
#include "members.h"
#include "message.h"
#include "proxy.h"

typedef enum evp_call_kind
{
	EVP_CALL_AGGREGATE,
	EVP_CALL_SERVICE,
	EVP_CALL_QUERY
} evp_call_kind_t;

typedef enum evp_call_status
{
	EVP_CALL_OK,			/* message is the RSP, with a payload */
	EVP_CALL_FAILURE,		/* message is the RSP, with a failure */
	EVP_CALL_NO_HANDLER,
	EVP_CALL_GONE,			/* the handler was asked and is gone: it may have run */
	EVP_CALL_TIMEOUT,
	EVP_CALL_REFUSED		/* bounds of open calls */
} evp_call_status_t;

/* All slices are copied or referenced by evp_router_call; none need outlive it. */
typedef struct evp_call_spec
{
	evp_call_kind_t kind;
	const char	   *name;			/* payload name that is routed on */
	size_t			name_len;
	evp_slice_t		payload_type;	/* of the REQ */
	evp_slice_t		payload;		/* of the REQ; not copied where it has an owner */
	bool			as_server;		/* source fields the server's own; else the caller's, as given below */
	evp_slice_t		source_bundle, source_instance, source_version;
	uint64_t		source;			/* whose call it is: those that wait take turns (fair.h) */
	uint64_t		deadline;		/* evp_now time */
} evp_call_spec_t;

typedef struct evp_call evp_call_t;
/* message is valid until return; take references of its slices to keep them. */
typedef void (*evp_call_cb)(void *arg, evp_call_status_t status, const evp_message_t *message);

evp_router_t *evp_router_new(evp_proxy_t *proxy);
/* Ends every call in EVP_CALL_TIMEOUT, from within. */
void evp_router_stop(evp_router_t *router);
void evp_router_free(evp_router_t *router);

/* Calls that have not ended, other proxies' among them. */
size_t evp_router_open(const evp_router_t *router);

/*
 * Begins a call under a fresh random correlationId.  The callback is called
 * exactly once, never from within this call, unless the call is cancelled; the
 * handle is void from then on.  NULL on lack of memory, and then the callback
 * is never called.
 */
evp_call_t *evp_router_call(evp_router_t *router, const evp_call_spec_t *spec, evp_call_cb cb, void *arg);
/* Forgets a call: its callback will not be called, a late answer is dropped. */
void evp_router_cancel(evp_call_t *call);

/* From session.c. The message of a response must hold its blob: it may be passed on to another proxy. */
void evp_router_response(evp_router_t *router, evp_session_t *session, const evp_message_t *rsp);

/* From registry.c.  Something about who is where has changed: waiting calls look again. */
void evp_router_instances_changed(evp_router_t *router);
/* What an instance was asked on its last session, or over the link to it, is asked again when it is ready. */
void evp_router_instance_cut(evp_router_t *router, evp_instance_t *instance);
/* The instance is about to be freed. */
void evp_router_instance_gone(evp_router_t *router, evp_instance_t *instance);

/* From link.c, the asking side: what became of a call that was sent to another proxy.  The blob of an answer is a
 * whole RSP message, and stays the caller's. */
void evp_router_link_answer(evp_router_t *router, const uint8_t id[16], evp_blob_t *rsp);
/* The session it was sent to has ended; session_no is what the call was sent with. */
void evp_router_link_cut(evp_router_t *router, const uint8_t id[16], int64_t session_no);
/* It was not sent at all. */
typedef enum evp_refusal
{
	EVP_REFUSAL_NO_SESSION = 1,	/* no such instance there */
	EVP_REFUSAL_NOT_READY = 2,	/* it takes no requests */
	EVP_REFUSAL_FULL = 3		/* too many open calls */
} evp_refusal_t;
void evp_router_link_refused(evp_router_t *router, const uint8_t id[16], int64_t session_no, evp_refusal_t why);

/* From link.c, the answering side: another proxy asks one of our instances.  link tells whom to answer. */
typedef struct evp_link_call
{
	uint8_t		id[16];			/* correlationId of the REQ */
	int64_t		session_no;		/* the session that the asking proxy means; goes back with a cut or a refusal */
	uint32_t	timeout_ms;		/* left when it was sent */
	evp_slice_t bundle;
	evp_slice_t instance;
	evp_blob_t *message;		/* the whole REQ */
} evp_link_call_t;
void evp_router_link_call(evp_router_t *router, uint64_t link, const evp_link_call_t *call);
/* The asking proxy wants no answer any more. */
void evp_router_link_cancel(evp_router_t *router, uint64_t link, const uint8_t id[16]);
/* The link by which the calls came has ended: nobody is there to answer. */
void evp_router_link_closed(evp_router_t *router, uint64_t link);

#endif /* EVP_ROUTER_H */
