/*
 * proxy.h
 *    The process as a whole: the modules of one evento-proxy and how they hang
 *    together.  Everything runs on one libuv loop, without threads.
 *
 *    bytes from bundles            session.c (server.c accepts), session_messages.c
 *      REQ  -> requests.c          the caller's open request, answered once
 *               -> command.c       aggregate and service commands
 *               -> feed.c          event fetch, last sequence number
 *               -> router.c        queries; and whatever command.c asks a handler
 *      RSP  -> router.c            the handler's answer to a call of ours
 *      NTF  -> session_messages.c  registration, enable, disable, discovery
 *               -> telemetry.c     sums of what handlers do
 *               -> reports.c       how consumers and executors stand
 *    bytes from other proxies      link.c -> router.c
 *    requests to consumers in SQL  asks.c
 *    who is where                  registry.c (kept in the database)
 *    who may connect               guard.c (rules and tokens of the database)
 *    SQL                           db.c; on it store.c (append, load), locks.c
 */
#ifndef EVP_PROXY_H
#define EVP_PROXY_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "config.h"

typedef struct evp_db evp_db_t;
typedef struct evp_reads evp_reads_t;
typedef struct evp_store evp_store_t;
typedef struct evp_locks evp_locks_t;
typedef struct evp_feed evp_feed_t;
typedef struct evp_commands evp_commands_t;
typedef struct evp_registry evp_registry_t;
typedef struct evp_router evp_router_t;
typedef struct evp_links evp_links_t;
typedef struct evp_requests evp_requests_t;
typedef struct evp_server evp_server_t;
typedef struct evp_http evp_http_t;
typedef struct evp_telemetry evp_telemetry_t;
typedef struct evp_reports evp_reports_t;
typedef struct evp_asks evp_asks_t;
typedef struct evp_guard evp_guard_t;
typedef struct evp_tls evp_tls_t;
typedef struct evp_session evp_session_t;

typedef struct evp_proxy
{
	uv_loop_t	   *loop;
	evp_config_t	config;
	char			server_instance[128];	/* in WLC and as source of our REQs */
	bool			draining;		/* it is about to stop, see drain.h */
	evp_tls_t	   *tls;
	evp_db_t	   *db;
	evp_reads_t	   *reads;
	evp_guard_t	   *guard;
	evp_store_t	   *store;
	evp_locks_t	   *locks;
	evp_feed_t	   *feed;
	evp_telemetry_t *telemetry;
	evp_reports_t *reports;
	evp_asks_t *asks;
	evp_commands_t *commands;
	evp_registry_t *registry;
	evp_router_t   *router;
	evp_links_t	   *links;
	evp_requests_t *requests;
	evp_server_t   *server;
	evp_http_t	   *http;
} evp_proxy_t;

/*
 * Every module has a pair of this shape, called by main.c:
 *     evp_<module>_t *evp_<module>_new(evp_proxy_t *proxy);   NULL and a log line on failure
 *     void evp_<module>_stop(evp_<module>_t *m);              closes its handles; the loop then runs until
 *                                                             all close callbacks are done
 *     void evp_<module>_free(evp_<module>_t *m);              after the loop has ended
 * in the order tls, db, reads, guard, store, locks, registry, router, links, requests,
 * feed, telemetry, reports, asks, commands, server, http; stop and free in the reverse order.  At an orderly end
 * main.c drains the proxy (drain.h), then calls evp_registry_leave, so that the
 * others stop sending to it, and stops the modules when that is done or 1 s has
 * passed.
 */

/* Milliseconds of the loop's monotonic clock; all deadlines in the proxy are in it. */
#define evp_now(proxy) uv_now((proxy)->loop)

/* Milliseconds since 1970, for the timestamps of messages; deadlines never are in it. */
static inline int64_t
evp_wall_ms(void)
{
	uv_timeval64_t now;

	uv_gettimeofday(&now);
	return (int64_t) now.tv_sec * 1000 + now.tv_usec / 1000;
}

#endif /* EVP_PROXY_H */
