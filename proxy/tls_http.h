/*
 * tls_http.h
 *    The certificate of HTTP: libmicrohttpd speaks TLS by GnuTLS, and asks for
 *    the certificate at each handshake.  It passes nothing of ours along, so
 *    what is here is one for the process.
 */
#ifndef EVP_TLS_HTTP_H
#define EVP_TLS_HTTP_H

#include <microhttpd.h>
#include <stdbool.h>

#include "config.h"

/* Reads certificate and key for the handshakes to come; false, with a line in the log, where they are of no use, and
 * then those of before stay. */
bool		evp_tls_http_load(const evp_config_t *config);
void		evp_tls_http_free(void);

/* What MHD_start_daemon is given as MHD_OPTION_ARRAY, beside MHD_USE_TLS. */
const struct MHD_OptionItem *evp_tls_http_daemon(const char *min_version);

#endif							/* EVP_TLS_HTTP_H */
