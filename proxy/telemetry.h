/*
 * telemetry.h
 *    What bundles tell of their handlers, summed (sums.h) and brought to the
 *    database every few seconds.  A proxy's death loses what it has summed since.
 */
#ifndef EVP_TELEMETRY_H
#define EVP_TELEMETRY_H

#include "notice.h"
#include "proxy.h"

evp_telemetry_t *evp_telemetry_new(evp_proxy_t *proxy);
void		evp_telemetry_stop(evp_telemetry_t *telemetry);
void		evp_telemetry_free(evp_telemetry_t *telemetry);

/* A bundle has told how long a handler took, or what it invoked; other notices are passed over. */
void		evp_telemetry_notice(evp_telemetry_t *telemetry, const evp_session_t *session, const evp_notice_t *notice);

/* Sends what there is now: at an orderly end, before the proxy leaves. */
void		evp_telemetry_flush(evp_telemetry_t *telemetry);

#endif							/* EVP_TELEMETRY_H */
