/*
 * registry.h
 *    Who is in the cluster: this proxy's registration and lease, the sessions
 *    it holds, and every other proxy's, mirrored from the database (NOTIFY
 *    evento_cluster, and a look every 2 s) and kept in memory while it is away.
 *    The model itself is members.h.
 */
#ifndef EVP_REGISTRY_H
#define EVP_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "members.h"
#include "proxy.h"

evp_registry_t *evp_registry_new(evp_proxy_t *proxy);
void evp_registry_stop(evp_registry_t *registry);
void evp_registry_free(evp_registry_t *registry);

/*
 * Takes this proxy out of the cluster, at an orderly end, before the modules are
 * stopped: nothing is registered any more, and done is called once the database
 * knows it, or cannot be told.  Not called from within; call it once.
 */
typedef void (*evp_registry_left_cb)(void *arg);
void evp_registry_leave(evp_registry_t *registry, evp_registry_left_cb done, void *arg);

/* This proxy's number in the database, 0 while it is not registered. */
int64_t evp_registry_proxy_id(const evp_registry_t *registry);
/* False once the lease was not renewed for 2.5 s, or, with the control connection lost, for 0.5 s: start nothing under a lock. */
bool evp_registry_lease_ok(const evp_registry_t *registry);
/*
 * Pictures that have been asked for so far; and whether one has come that was asked for since there were so many: who is in
 * none of it was not there at that time.  Where none has, one is asked for, and the router told when it is here; with the
 * database away, the last one holds.
 */
uint64_t evp_registry_looks(const evp_registry_t *registry);
bool evp_registry_has_looked(evp_registry_t *registry, uint64_t looks);
/* The secret links are authenticated with; NULL before the first registration. */
const uint8_t *evp_registry_secret(const evp_registry_t *registry, size_t *len);
/* The other proxies, the instances and their names. */
evp_members_t *evp_registry_members(evp_registry_t *registry);

/* From link.c: the link to a proxy came up; broke, or could not be made: its instances are cut; the proxy at its other
 * end has a new number. */
void evp_registry_proxy_found(evp_registry_t *registry, int64_t proxy_id);
void evp_registry_proxy_lost(evp_registry_t *registry, int64_t proxy_id);
void evp_registry_proxy_renamed(evp_registry_t *registry, int64_t from, int64_t to);

/* From router.c: the proxy that an instance was asked at said that the session has ended, or takes no requests. */
void evp_registry_session_lost(evp_registry_t *registry, evp_instance_t *instance, int64_t proxy_id, int64_t session_no);
void evp_registry_session_waiting(evp_registry_t *registry, evp_instance_t *instance, int64_t proxy_id, int64_t session_no);

/* From session.c, see session.h.  json is copied. */
void evp_registry_session_welcomed(evp_registry_t *registry, evp_session_t *session);
void evp_registry_session_changed(evp_registry_t *registry, evp_session_t *session);
void evp_registry_session_closed(evp_registry_t *registry, evp_session_t *session);
void evp_registry_discovery(evp_registry_t *registry, evp_session_t *session, const char *json, size_t len);

#endif /* EVP_REGISTRY_H */
