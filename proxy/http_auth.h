/*
 * http_auth.h
 *    Who may do what over HTTP: one function decides, by what a request brings.
 */
#ifndef EVP_HTTP_AUTH_H
#define EVP_HTTP_AUTH_H

#include "proxy.h"

/* Each includes those before it. */
typedef enum evp_http_role
{
	EVP_HTTP_NONE,			/* health, metrics, the API's description */
	EVP_HTTP_READ,			/* events, streams, the cluster */
	EVP_HTTP_WRITE,			/* appends */
	EVP_HTTP_ADMIN
} evp_http_role_t;

/* What a request brings; NULL what it does not. */
typedef struct evp_http_credentials
{
	const char *authorization;	/* the header, as it came */
	const char *host;			/* the header */
} evp_http_credentials_t;

/* False while nobody knows what they allow: they bring a token, and the tokens have not been read yet. */
bool evp_http_can_tell(const evp_proxy_t *proxy, const evp_http_credentials_t *credentials);

/* Not blocking, and without a look into the database: from the proxy's memory. */
evp_http_role_t evp_http_authorize(const evp_proxy_t *proxy, const evp_http_credentials_t *credentials);

#endif /* EVP_HTTP_AUTH_H */
