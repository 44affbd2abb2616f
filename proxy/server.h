/*
 * server.h
 *    Accepts bundles' connections.
 */
#ifndef EVP_SERVER_H
#define EVP_SERVER_H

#include "conn.h"
#include "proxy.h"

evp_server_t *evp_server_new(evp_proxy_t *proxy);
void evp_server_stop(evp_server_t *server);
void evp_server_free(evp_server_t *server);

/* Goes by the bounds as they are set now. */
void evp_server_reload(evp_server_t *server);

/* Takes no more connections, and lets the bundles go that are connected; what they have sent is still taken.  Others
 * leave when they say hello. */
void evp_server_drain(evp_server_t *server);

/* From guard.c: the rules are others, or a token has expired.  Connections that are not let in any more are closed. */
void evp_server_access_changed(evp_server_t *server);

/* What waits to be sent, and what is unfinished input, of all connections, in bytes; and how many there are. */
void evp_server_load(const evp_server_t *server, size_t *queued, size_t *held, size_t *connections);

/* From session.c: makes a session of a connection that waits at the listener.  0; or a libuv error, after which there is
 * no session, and with UV_ENOMEM the connection still waits. */
int evp_session_accept(evp_proxy_t *proxy, evp_hub_t *hub, uv_stream_t *listener);
/* Lets every bundle of a hub go. */
void evp_session_leave_all(evp_hub_t *hub);
/* Looks at every session of a hub again, after the rules have changed. */
void evp_session_access_changed(evp_hub_t *hub);
/* Ends every session of a hub. */
void evp_session_close_all(evp_hub_t *hub, const char *reason);

#endif /* EVP_SERVER_H */
