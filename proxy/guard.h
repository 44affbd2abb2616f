/*
 * guard.h
 *    Keeps the rules and tokens of access.h like the database's (NOTIFY
 *    evento_access), and lets sessions know when they have changed or a token
 *    has expired.  While the database is away what was known last holds.
 */
#ifndef EVP_GUARD_H
#define EVP_GUARD_H

#include "access.h"
#include "proxy.h"

evp_guard_t *evp_guard_new(evp_proxy_t *proxy);
void evp_guard_stop(evp_guard_t *guard);
void evp_guard_free(evp_guard_t *guard);

/* False until the rules are known for the first time: nobody can be let in or refused before. */
bool evp_guard_ready(const evp_guard_t *guard);

/* As evp_access_check; the guard is ready.  The token is void when evp_session_access_changed was called. */
const char *evp_guard_check(const evp_guard_t *guard, const evp_access_peer_t *peer, const evp_access_token_t **token);

/*
 * For HTTP: what a bearer token allows, EVP_ACCESS_HTTP_NONE
 * where it is unknown, has expired, or nothing is known yet.  Never waits.
 */
evp_access_http_t evp_guard_http(const evp_guard_t *guard, evp_slice_t token);

#endif /* EVP_GUARD_H */
