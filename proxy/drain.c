/*
 * drain.c
 *    See drain.h.
 */
#include "drain.h"

#include <inttypes.h>

#include "http.h"
#include "link.h"
#include "log.h"
#include "requests.h"
#include "router.h"
#include "server.h"

#define LOOK_MS 10				/* whether it is done is looked at so often */

/* What is left to finish. */
typedef struct remains
{
	size_t		connections;
	size_t		requests;
	size_t		answers;		/* whose callers have not come back yet */
	size_t		calls;
	size_t		bytes;			/* for other proxies */
	size_t		http;			/* requests */
} remains_t;

static void
look(const evp_proxy_t *proxy, remains_t *left)
{
	size_t		queued;
	size_t		held;

	evp_server_load(proxy->server, &queued, &held, &left->connections);
	evp_requests_left(proxy->requests, &left->requests, &left->answers);
	left->calls = evp_router_open(proxy->router);
	left->bytes = evp_links_queued(proxy->links);
	left->http = evp_http_open(proxy->http);
}

static void
on_timer(uv_timer_t *timer)
{
	evp_drain_t *drain = timer->data;
	const evp_config_t *config = &drain->proxy->config;
	uint64_t	passed = evp_now(drain->proxy) - drain->begun_at;
	remains_t	left;
	size_t		bundles;
	bool		early;

	look(drain->proxy, &left);
	bundles = left.connections + left.requests + left.answers + left.calls;
	early = passed < config->drain_delay;
	/* HTTP is served as long as something else is left, or a balancer may send more; what comes in then would go on for ever. */
	if (bundles + left.bytes == 0 && !early)
		evp_http_refuse_new(drain->proxy->http);
	if ((bundles + left.bytes + left.http > 0 || early) && passed < config->drain_time)
		return;
	if (bundles + left.http > 0)
		evp_log(EVP_LOG_WARNING, "drain", NULL,
				"after %" PRIu64 " ms: %zu connections, %zu requests, %zu answers, %zu calls and %zu HTTP requests are left", passed,
				left.connections, left.requests, left.answers, left.calls, left.http);
	else
		evp_log(EVP_LOG_INFO, "drain", NULL, "finished in %" PRIu64 " ms", passed);
	uv_close((uv_handle_t *) &drain->timer, NULL);
	drain->done(drain->arg);
}

void
evp_drain_begin(evp_drain_t *drain, evp_proxy_t *proxy, void (*done) (void *arg), void *arg)
{
	drain->proxy = proxy;
	drain->done = done;
	drain->arg = arg;
	drain->begun_at = evp_now(proxy);
	proxy->draining = true;
	evp_server_drain(proxy->server);
	evp_http_drain(proxy->http);
	/* Neither fails on a timer that is set up here. */
	uv_timer_init(proxy->loop, &drain->timer);
	drain->timer.data = drain;
	uv_timer_start(&drain->timer, on_timer, LOOK_MS, LOOK_MS);
}
