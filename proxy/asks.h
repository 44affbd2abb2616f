/*
 * asks.h
 *    The administration of bundles' consumers: requests that SQL has left in the
 *    database (NOTIFY evento_ask) for instances that are connected here are sent
 *    to them, and their answers written back.
 */
#ifndef EVP_ASKS_H
#define EVP_ASKS_H

#include "message.h"
#include "proxy.h"

evp_asks_t *evp_asks_new(evp_proxy_t *proxy);
void		evp_asks_stop(evp_asks_t *asks);
void		evp_asks_free(evp_asks_t *asks);

/* A bundle's response: true where it is the answer to one of these requests. */
bool		evp_asks_response(evp_asks_t *asks, const evp_session_t *session, const evp_message_t *rsp);

/* A session has ended: what its instance was asked is answered with that. */
void		evp_asks_session_closed(evp_asks_t *asks, const evp_session_t *session);

#endif							/* EVP_ASKS_H */
