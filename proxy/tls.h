/*
 * tls.h
 *    TLS on the ports: certificates, keys and CA as the settings name them,
 *    read at the start and again at SIGHUP.  Connections that stand keep what
 *    they began with.  What goes over a connection is tls_io.c's.
 */
#ifndef EVP_TLS_H
#define EVP_TLS_H

#include <stdbool.h>
#include <time.h>
#include <microhttpd.h>
#include <openssl/ssl.h>

#include "proxy.h"

typedef enum evp_tls_port
{
	EVP_TLS_BUNDLE,
	EVP_TLS_INTERNAL,
	EVP_TLS_HTTP
} evp_tls_port_t;

evp_tls_t  *evp_tls_new(evp_proxy_t *proxy);
void		evp_tls_stop(evp_tls_t *tls);
void		evp_tls_free(evp_tls_t *tls);

/* Does a port speak TLS?  It then speaks nothing else. */
bool		evp_tls_on(const evp_tls_t *tls, evp_tls_port_t port);

/* When the certificate that the ports show ends, in seconds since 1970; 0 where none speaks TLS. */
time_t		evp_tls_ends(const evp_tls_t *tls);

/* Reads the files again, as the settings name them now.  Where they are of no use all stays as it was: false. */
bool		evp_tls_reload(evp_tls_t *tls);

/* A session for a connection that was accepted at the bundle port or the internal one, or, with dial, that this proxy
 * makes to another's internal port.  NULL on lack of memory. */
SSL		   *evp_tls_session(evp_tls_t *tls, evp_tls_port_t port, bool dial);

/* What libmicrohttpd is to be started with, an array that ends with MHD_OPTION_END; nothing where HTTP is clear. */
const struct MHD_OptionItem *evp_tls_http_options(const evp_tls_t *tls);

#endif							/* EVP_TLS_H */
