/*
 * requests.h
 *    The caller's side of a request: open once per (bundle, instance,
 *    correlationId), answered once, the answer kept for a caller that repeats
 *    or reconnects.  A repeat in flight is dropped; one that was answered gets
 *    the same bytes for 5 minutes (bounded in bytes); the answer for a caller
 *    that went away is kept 2 minutes and delivered where it comes back, here
 *    or, through router.c, at the proxy that the registry names.
 */
#ifndef EVP_REQUESTS_H
#define EVP_REQUESTS_H

#include "buf.h"
#include "graph.h"
#include "message.h"
#include "proxy.h"

typedef struct evp_request
{
	evp_proxy_t	   *proxy;
	unsigned		refs;
	bool			answered;
	evp_session_t  *session;		/* NULL once the caller's connection is gone */
	uint64_t		source;			/* its local_no: in queues it takes turns with others (fair.h) */
	const char	   *bundle;			/* the caller's, from its hello; they live as long as the request */
	const char	   *instance;
	evp_message_t	message;		/* the REQ, with what its slices lie in */
	evp_graph_request_t graph;		/* the parsed EventoRequest, slices into message.payload */
	uint64_t		received;		/* evp_now time */
	uint64_t		deadline;		/* evp_now time: when the caller gives up (bounded by a setting) */
} evp_request_t;

evp_requests_t *evp_requests_new(evp_proxy_t *proxy);
void evp_requests_stop(evp_requests_t *requests);
void evp_requests_free(evp_requests_t *requests);

/* A REQ has come: parse, drop or repeat duplicates, else dispatch by the body's class to
 *   command.c  void evp_commands_start(commands, request)    domain and service commands
 *   feed.c     void evp_feed_fetch(feed, request)            EventFetchRequest
 *              void evp_feed_last(feed, request)             EventLastSequenceNumberRequest
 *   and queries to router.c by itself (RSP forwarded with the caller's correlationId).
 * What the message holds is taken over: it is empty afterwards. */
void evp_requests_request(evp_requests_t *requests, evp_session_t *session, evp_message_t *req);

evp_request_t *evp_request_ref(evp_request_t *request);
void evp_request_unref(evp_request_t *request);

/*
 * Answers, once; a later answer is ignored.  payload: the CBOR of an
 * EventoResponse, as parts written one behind the other; references are taken.
 */
void evp_request_answer(evp_request_t *request, const evp_slice_t *parts, size_t count);
/* RSP with failure: see section 5 of the protocol for the class names callers know. */
void evp_request_fail(evp_request_t *request, const char *exception_class, const char *message);

#define EVP_EX_STATE	"java.lang.IllegalStateException"
#define EVP_EX_SECURITY	"java.lang.SecurityException"
#define EVP_EX_TIMEOUT	"com.evento.transport.RequestTimeoutException"
#define EVP_EX_REFUSED	"com.evento.transport.TooManyPendingRequestsException"

void evp_requests_session_welcomed(evp_requests_t *requests, evp_session_t *session);
void evp_requests_session_closed(evp_requests_t *requests, evp_session_t *session);
/* Behind evp_requests_session_closed: the caller has got all that was sent to it, nothing needs to be sent again. */
void evp_requests_session_read(evp_requests_t *requests, evp_session_t *session);
/* What keeps a proxy that drains: requests that are not answered, and answers whose callers went away so
 * shortly ago that they may still come back. */
void evp_requests_left(const evp_requests_t *requests, size_t *open, size_t *away);

/* The registry has learnt that an instance is at another proxy now: answers kept for it are sent there
 * (evp_links_send_answer).  Called in the middle of a change of the members, of which this only asks. */
void evp_requests_instance_moved(evp_requests_t *requests, const char *bundle, const char *instance);

/* From link.c: the link to a proxy is up, or the proxy goes by this number now.  Answers for callers there that could
 * not be sent before are sent. */
void evp_requests_proxy_found(evp_requests_t *requests, int64_t proxy_id);

/* Another proxy brings an answer (a whole RSP message) for an instance that is connected here. */
void evp_requests_deliver(evp_requests_t *requests, const char *bundle, const char *instance, evp_blob_t *rsp);

#endif /* EVP_REQUESTS_H */
