/*
 * http.h
 *    The HTTP port: health, metrics, and the API to events, streams and the
 *    cluster.
 */
#ifndef EVP_HTTP_H
#define EVP_HTTP_H

#include "proxy.h"

evp_http_t *evp_http_new(evp_proxy_t *proxy);
/* Rules and tokens have changed, or a token has expired: what is under way goes on only where it still may. */
void evp_http_access_changed(evp_http_t *http);

/* The proxy drains: who waits for events is answered with what there is, streams end, and connections go with their next answer. */
void evp_http_drain(evp_http_t *http);
/* From now on requests to the API are refused, with nothing done. */
void evp_http_refuse_new(evp_http_t *http);
/* Requests to the API that are served, or whose answers are on their way. */
size_t evp_http_open(const evp_http_t *http);

void evp_http_stop(evp_http_t *http);
void evp_http_free(evp_http_t *http);

#endif /* EVP_HTTP_H */
