/*
 * http.h
 *    Health and metrics over HTTP: /healthz, /readyz, /metrics.
 */
#ifndef EVP_HTTP_H
#define EVP_HTTP_H

#include "proxy.h"

evp_http_t *evp_http_new(evp_proxy_t *proxy);
void evp_http_stop(evp_http_t *http);
void evp_http_free(evp_http_t *http);

#endif /* EVP_HTTP_H */
