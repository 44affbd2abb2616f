/*
 * session.h
 *    One bundle's connection: hello, registration, enable and disable,
 *    discovery, pings, chunks, bounds, and the one way in which it ends.
 */
#ifndef EVP_SESSION_H
#define EVP_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "access.h"
#include "buf.h"
#include "message.h"
#include "proxy.h"
#include "wire.h"

/* What others may read of a session; written by session.c, session_messages.c and (session_no, node) registry.c only. */
typedef struct evp_session_info
{
	char		   *bundle;
	char		   *instance;
	int64_t			bundle_version;
	bool			welcomed;		/* WLC was sent */
	bool			enabled;		/* evento:enable, and no disable since */
	bool			ready;			/* enabled and its discovery is in (or the time for it is up): takes requests */
	char		  **names;			/* payload names of its last registration */
	size_t			name_count;
	uint64_t		local_no;		/* rises with every welcomed session of this process */
	int64_t			session_no;		/* the database's number, 0 until registered there */
	void		   *node;			/* registry.c's */
	const evp_access_token_t *token;	/* that it was let in by, NULL: another way; its limits hold */
} evp_session_info_t;

const evp_session_info_t *evp_session_info(const evp_session_t *session);
evp_session_info_t *evp_session_info_rw(evp_session_t *session);	/* for registry.c */

/*
 * Queues a message (the CBOR item, without frame bytes) for sending; takes its
 * own reference of the blob.  0, or -1 where the session is closing or its
 * output bound is passed (it is then closed).
 */
int evp_session_send(evp_session_t *session, evp_blob_t *message);

/* The same for a message in parts (evp_message_pack), written one behind the other without a copy; references of their
 * own are taken. */
int evp_session_send_parts(evp_session_t *session, const evp_parts_t *parts);

/* Ends a session: one log line with peer and reason, handles closed once, others told. */
void evp_session_close(evp_session_t *session, const char *reason);

/*
 * What a session calls in other modules:
 *   registry.c  void evp_registry_session_welcomed(registry, session)  after WLC; closes an older session of the same
 *                                                                      instance here ("superseded")
 *               void evp_registry_session_changed(registry, session)   names, enabled or ready changed
 *               void evp_registry_session_closed(registry, session)    last call with this pointer
 *               void evp_registry_discovery(registry, session, const char *json, size_t len)
 *   router.c    void evp_router_response(router, session, const evp_message_t *rsp)
 *   requests.c  void evp_requests_request(requests, session, evp_message_t *req)
 *               void evp_requests_session_welcomed(requests, session)
 *               void evp_requests_session_closed(requests, session)
 *   feed.c      void evp_feed_session_changed(feed, session)           disabled or closed: let go what is held for it
 */

#endif /* EVP_SESSION_H */
