/*
 * link.h
 *    Direct connections between proxies on the internal network: each proxy
 *    dials every other one for what it asks, and answers on the connections
 *    that the others dialled.  Both ends prove that they know the cluster's
 *    secret (link_proto.h); each writes at least every second, and a link is
 *    dead after 3 s without a byte.
 */
#ifndef EVP_LINK_H
#define EVP_LINK_H

#include "buf.h"
#include "proxy.h"
#include "router.h"
#include "wire.h"

evp_links_t *evp_links_new(evp_proxy_t *proxy);
void evp_links_stop(evp_links_t *links);
void evp_links_free(evp_links_t *links);

/* Bytes that wait to be written on all links. */
size_t evp_links_queued(const evp_links_t *links);

/* From registry.c: the proxies of the cluster, or their addresses, have changed. */
void evp_links_proxies_changed(evp_links_t *links);
/* From registry.c: this proxy goes by another number now; the others are told over the links there are. */
void evp_links_renamed(evp_links_t *links);

/*
 * Asks an instance at another proxy: the whole REQ message, of which references
 * are taken.  What becomes of it comes to evp_router_link_answer, _cut or
 * _refused, a link that breaks or cannot be made to evp_registry_proxy_lost.
 * What is sent while the link is being made waits for it.  0, or -1 where it
 * cannot be sent: evp_registry_proxy_lost is then called in a later turn.
 */
int evp_links_send_call(evp_links_t *links, int64_t proxy_id, const uint8_t id[16], int64_t session_no, uint32_t timeout_ms,
						const char *bundle, const char *instance, const evp_parts_t *message);
/* The asking side wants no answer to a call any more. */
void evp_links_send_cancel(evp_links_t *links, int64_t proxy_id, const uint8_t id[16]);

/* The answering side, to the link that the call came by; nothing happens where that is gone.  An answer that is too long
 * for a link (link_proto.h) goes as a refusal. */
void evp_links_send_result(evp_links_t *links, uint64_t link, const uint8_t id[16], int64_t session_no, evp_blob_t *rsp);
void evp_links_send_cut(evp_links_t *links, uint64_t link, const uint8_t id[16], int64_t session_no);
void evp_links_send_refusal(evp_links_t *links, uint64_t link, const uint8_t id[16], int64_t session_no, evp_refusal_t why);

/* An answer (whole RSP message) kept for a caller that is connected at another proxy now; it comes to
 * evp_requests_deliver there.  0, or -1 where it cannot be sent. */
int evp_links_send_answer(evp_links_t *links, int64_t proxy_id, const char *bundle, const char *instance, evp_blob_t *rsp);

#endif /* EVP_LINK_H */
