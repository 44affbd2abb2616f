/*
 * link.c
 *    See link.h: which proxies are dialled, and what frames mean.
 */
#include "link.h"

#include <inttypes.h>
#include <stdlib.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>
#include <utlist.h>

#include "link_io.h"
#include "listen.h"
#include "log.h"
#include "metrics.h"
#include "registry.h"
#include "requests.h"

#define TICK_MS			100
#define BACKOFF_MIN_MS	100
#define BACKOFF_MAX_MS	1000
#define MAX_GREETING	64		/* accepted links that have proven nothing yet */
#define BACKLOG			128

/* Another proxy, and the link on which we ask it. */
typedef struct evp_dial
{
	int64_t		proxy_id;
	evp_link_t *link;			/* NULL: to be made at retry_at */
	uint64_t	retry_at;
	uint64_t	backoff;
	unsigned	attempt;
	bool		complained;		/* its failure was logged, and it has not been up since */
	bool		refused;		/* something could not be sent for want of a link, and is to be told so */
	UT_hash_handle hh;
} evp_dial_t;

struct evp_links
{
	evp_proxy_t *proxy;
	evp_link_hub_t hub;
	uv_tcp_t	listener;
	uv_timer_t	timer;
	evp_dial_t *dials;
	bool		stopped;
};

static evp_links_t *
links_of(evp_link_t *link)
{
	return link->hub->proxy->links;
}

/* ---- dialling ---- */

static evp_dial_t *
find_dial(evp_links_t *links, int64_t proxy_id)
{
	evp_dial_t *d;

	HASH_FIND(hh, links->dials, &proxy_id, sizeof proxy_id, d);
	return d;
}

/* Forgets a proxy.  Its link is closed, and what was asked over it is cut. */
static void
drop_dial(evp_links_t *links, evp_dial_t *d, const char *reason)
{
	evp_link_t *link = d->link;
	int64_t		proxy_id = d->proxy_id;

	HASH_DEL(links->dials, d);
	free(d);
	if (link == NULL)
		return;
	link->owner = NULL;
	evp_link_close(link, reason);
	evp_registry_proxy_lost(links->proxy->registry, proxy_id);
}

static void
failed(evp_links_t *links, evp_dial_t *d)
{
	d->link = NULL;
	d->retry_at = evp_now(links->proxy) + d->backoff;
	d->backoff = d->backoff * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : d->backoff * 2;
	evp_registry_proxy_lost(links->proxy->registry, d->proxy_id);
}

static void
dial(evp_links_t *links, evp_dial_t *d)
{
	const evp_peer_t *peer = evp_members_peer(evp_registry_members(links->proxy->registry), d->proxy_id);
	char		host[256];
	uint16_t	port;

	if (peer != NULL && peer->internal != NULL && evp_config_host_port(peer->internal, host, sizeof host, &port))
		d->link = evp_link_dial(&links->hub, host, port, d->proxy_id, d->attempt++);
	if (d->link != NULL)
		d->link->owner = d;
	else
	{
		if (!d->complained)
			evp_log(EVP_LOG_WARNING, "link", NULL, "proxy %" PRId64 " has no address to connect to", d->proxy_id);
		d->complained = true;
		failed(links, d);
	}
}

static evp_dial_t *
make_dial(evp_links_t *links, int64_t proxy_id)
{
	evp_dial_t *d = calloc(1, sizeof *d);

	if (d == NULL)
		return NULL;
	d->proxy_id = proxy_id;
	d->backoff = BACKOFF_MIN_MS;
	HASH_ADD(hh, links->dials, proxy_id, sizeof d->proxy_id, d);
	return d;
}

void
evp_links_proxies_changed(evp_links_t *links)
{
	evp_members_t *members = evp_registry_members(links->proxy->registry);
	evp_dial_t *d,
			   *next;

	if (links->stopped)
		return;
	for (const evp_peer_t *peer = evp_members_next_peer(members, NULL); peer != NULL; peer = evp_members_next_peer(members, peer))
	{
		if (find_dial(links, peer->proxy_id) == NULL)
			make_dial(links, peer->proxy_id);
	}
	HASH_ITER(hh, links->dials, d, next)
	{
		if (evp_members_peer(members, d->proxy_id) == NULL)
			drop_dial(links, d, "the proxy has left the cluster");
		else if (d->link == NULL && d->retry_at == 0)
			dial(links, d);
	}
}

static void
on_timer(uv_timer_t *timer)
{
	evp_links_t *links = timer->data;
	uint64_t	now = evp_now(links->proxy);
	evp_dial_t *d,
			   *next;

	evp_link_hub_tick(&links->hub);
	HASH_ITER(hh, links->dials, d, next)
	{
		if (d->refused)
		{
			d->refused = false;
			evp_registry_proxy_lost(links->proxy->registry, d->proxy_id);
			if (d->link != NULL && d->link->state == EVP_LINK_UP)
				evp_registry_proxy_found(links->proxy->registry, d->proxy_id);
		}
		if (d->link == NULL && now >= d->retry_at)
			dial(links, d);
	}
}

/* ---- what happens on links ---- */

static void
on_up(evp_link_t *link)
{
	evp_links_t *links = links_of(link);
	evp_dial_t *d = link->owner;

	evp_metrics.links++;
	evp_log(EVP_LOG_INFO, "link", link->peer, "%s proxy %" PRId64, link->outgoing ? "connected to" : "connection from",
			link->peer_id);
	if (d == NULL)
		return;
	d->backoff = BACKOFF_MIN_MS;
	d->complained = false;
	evp_registry_proxy_found(links->proxy->registry, d->proxy_id);
	evp_requests_proxy_found(links->proxy->requests, d->proxy_id);
}

static void
on_closed(evp_link_t *link, const char *reason)
{
	evp_links_t *links = links_of(link);
	evp_dial_t *d = link->owner;

	if (link->was_up)
		evp_metrics.links--;
	/* Attempts that go on failing are one line, not one a second. */
	evp_log(d != NULL && d->complained ? EVP_LOG_DEBUG : EVP_LOG_WARNING, "link", link->peer, "%s proxy %" PRId64 ": %s",
			link->outgoing ? "to" : "from", link->peer_id, reason);
	if (!link->outgoing)
		evp_router_link_closed(links->proxy->router, link->no);
	if (d == NULL)
		return;
	d->complained = !link->was_up;
	failed(links, d);
}

static bool
is_greeting(const evp_link_t *link)
{
	return !link->outgoing && link->state == EVP_LINK_GREETING;
}

static bool
same_address(const evp_link_t *a, const evp_link_t *b)
{
	size_t		n = (size_t) (strrchr(a->peer, ':') - a->peer);

	return strncmp(a->peer, b->peer, n + 1) == 0 && strchr(b->peer + n + 1, ':') == NULL;
}

/* Of those that have proven nothing the oldest, of the address that most of them are from: a proxy needs milliseconds. */
static evp_link_t *
least_likely(const evp_links_t *links)
{
	evp_link_t *found = NULL;
	size_t		most = 0;

	for (evp_link_t *link = links->hub.links; link != NULL; link = link->next)
	{
		size_t		count = 0;

		if (!is_greeting(link))
			continue;
		for (const evp_link_t *other = link; other != NULL; other = other->next)
			count += is_greeting(other) && same_address(link, other);
		if (count > most)
		{
			most = count;
			found = link;
		}
	}
	return found;
}

static void
on_connection(uv_stream_t *listener, int status)
{
	evp_links_t *links = listener->data;
	evp_link_t *link = status < 0 ? NULL : evp_link_accept(&links->hub, listener);

	if (status < 0)
		evp_log(EVP_LOG_WARNING, "link", NULL, "cannot accept: %s", uv_strerror(status));
	else if (link == NULL)
		evp_log(EVP_LOG_WARNING, "link", NULL, "cannot accept");
	else if (links->hub.greeting > MAX_GREETING && (link = least_likely(links)) != NULL)
		evp_link_close(link, "too many connections that have proven nothing");
}

/* The proxy at the other end goes by another number. */
static void
on_renamed(evp_link_t *link, int64_t to)
{
	evp_links_t *links = links_of(link);
	evp_dial_t *d = link->owner;
	evp_dial_t *other = find_dial(links, to);
	int64_t		from = link->peer_id;

	evp_log(EVP_LOG_INFO, "link", link->peer, "proxy %" PRId64 " is proxy %" PRId64 " now", from, to);
	link->peer_id = to;
	if (d == NULL || from == to)
		return;
	/* The database told of the new number before the proxy did: this link stands, the other is not needed. */
	if (other != NULL)
		drop_dial(links, other, "another link to the same proxy is up");
	HASH_DEL(links->dials, d);
	d->proxy_id = to;
	HASH_ADD(hh, links->dials, proxy_id, sizeof d->proxy_id, d);
	evp_registry_proxy_renamed(links->proxy->registry, from, to);
	evp_registry_proxy_found(links->proxy->registry, to);
	evp_requests_proxy_found(links->proxy->requests, to);
}

/* What may come from a proxy that we asked. */
static bool
on_answering_frame(evp_link_t *link, const evp_link_frame_t *frame)
{
	evp_router_t *router = links_of(link)->proxy->router;

	switch (frame->type)
	{
		case EVP_LINK_RESULT:
			evp_router_link_answer(router, frame->id, frame->message);
			return true;
		case EVP_LINK_CUT:
			evp_router_link_cut(router, frame->id, frame->session_no);
			return true;
		case EVP_LINK_REFUSED:
			evp_router_link_refused(router, frame->id, frame->session_no, frame->why);
			return true;
		default:
			return false;
	}
}

/* What may come from a proxy that asks us. */
static bool
on_asking_frame(evp_link_t *link, const evp_link_frame_t *frame)
{
	evp_proxy_t *proxy = links_of(link)->proxy;
	evp_link_call_t call;
	char		bundle[EVP_LINK_MAX_KEY + 1];
	char		instance[EVP_LINK_MAX_KEY + 1];

	switch (frame->type)
	{
		case EVP_LINK_CALL:
			call = (evp_link_call_t) {.session_no = frame->session_no,.timeout_ms = frame->timeout_ms,.bundle = frame->bundle,
			.instance = frame->instance,.message = frame->message};
			memcpy(call.id, frame->id, sizeof call.id);
			evp_router_link_call(proxy->router, link->no, &call);
			return true;
		case EVP_LINK_CANCEL:
			evp_router_link_cancel(proxy->router, link->no, frame->id);
			return true;
		case EVP_LINK_ANSWER:
			memcpy(bundle, frame->bundle.p, frame->bundle.n);
			bundle[frame->bundle.n] = '\0';
			memcpy(instance, frame->instance.p, frame->instance.n);
			instance[frame->instance.n] = '\0';
			evp_requests_deliver(proxy->requests, bundle, instance, frame->message);
			return true;
		default:
			return false;
	}
}

static void
on_frame(evp_link_t *link, const evp_link_frame_t *frame)
{
	if (frame->type == EVP_LINK_RENAMED)
		on_renamed(link, frame->proxy_id);
	else if (!(link->outgoing ? on_answering_frame(link, frame) : on_asking_frame(link, frame)))
		evp_link_close(link, "frame out of place");
}

/* ---- sending ---- */

/* The link on which a proxy is asked; it may still be on its way up. */
static evp_link_t *
link_to(evp_links_t *links, int64_t proxy_id)
{
	evp_dial_t *d = find_dial(links, proxy_id);

	if (links->stopped)
		return NULL;
	/* Known to be somewhere that the last picture does not show: the timer finds out. */
	if (d == NULL)
		d = make_dial(links, proxy_id);
	return d == NULL ? NULL : d->link;
}

int
evp_links_send_call(evp_links_t *links, int64_t proxy_id, const uint8_t id[16], int64_t session_no, uint32_t timeout_ms,
					const char *bundle, const char *instance, const evp_parts_t *message)
{
	evp_link_t *link = link_to(links, proxy_id);
	evp_dial_t *d;
	evp_link_frame_t frame = {.type = EVP_LINK_CALL,.session_no = session_no,.timeout_ms = timeout_ms,
	.bundle = evp_slice_str(bundle),.instance = evp_slice_str(instance)};

	memcpy(frame.id, id, sizeof frame.id);
	if (link == NULL && (d = find_dial(links, proxy_id)) != NULL)
		d->refused = true;
	return link == NULL ? -1 : evp_link_send(link, &frame, message);
}

void
evp_links_send_cancel(evp_links_t *links, int64_t proxy_id, const uint8_t id[16])
{
	evp_dial_t *d = find_dial(links, proxy_id);
	evp_link_frame_t frame = {.type = EVP_LINK_CANCEL};

	memcpy(frame.id, id, sizeof frame.id);
	if (d != NULL && d->link != NULL)
		evp_link_send(d->link, &frame, NULL);
}

int
evp_links_send_answer(evp_links_t *links, int64_t proxy_id, const char *bundle, const char *instance, evp_blob_t *rsp)
{
	evp_link_t *link = link_to(links, proxy_id);
	evp_link_frame_t frame = {.type = EVP_LINK_ANSWER,.bundle = evp_slice_str(bundle),.instance = evp_slice_str(instance)};
	evp_parts_t message = {.n = 1,.part = {evp_slice_blob(rsp)},.len = rsp->len};

	return link == NULL || rsp->len > EVP_LINK_MAX_MESSAGE ? -1 : evp_link_send(link, &frame, &message);
}

/* Sends a frame to the link that a call came by, if it is still there. */
static void
send_back(evp_links_t *links, uint64_t no, const uint8_t id[16], evp_link_frame_t *frame, const evp_parts_t *message)
{
	evp_link_t *link;

	memcpy(frame->id, id, sizeof frame->id);
	DL_SEARCH_SCALAR(links->hub.links, link, no, no);
	if (link != NULL)
		evp_link_send(link, frame, message);
}

void
evp_links_send_result(evp_links_t *links, uint64_t link, const uint8_t id[16], int64_t session_no, evp_blob_t *rsp)
{
	evp_parts_t message = {.n = 1,.part = {evp_slice_blob(rsp)},.len = rsp->len};

	if (rsp->len <= EVP_LINK_MAX_MESSAGE)
		send_back(links, link, id, &(evp_link_frame_t) {.type = EVP_LINK_RESULT}, &message);
	else
		evp_links_send_refusal(links, link, id, session_no, EVP_REFUSAL_FULL);
}

void
evp_links_send_cut(evp_links_t *links, uint64_t link, const uint8_t id[16], int64_t session_no)
{
	send_back(links, link, id, &(evp_link_frame_t) {.type = EVP_LINK_CUT,.session_no = session_no}, NULL);
}

void
evp_links_send_refusal(evp_links_t *links, uint64_t link, const uint8_t id[16], int64_t session_no, evp_refusal_t why)
{
	send_back(links, link, id, &(evp_link_frame_t) {.type = EVP_LINK_REFUSED,.session_no = session_no,.why = (uint8_t) why}, NULL);
}

void
evp_links_renamed(evp_links_t *links)
{
	evp_link_frame_t frame = {.type = EVP_LINK_RENAMED,.proxy_id = evp_registry_proxy_id(links->proxy->registry)};
	evp_link_t *link;

	DL_FOREACH(links->hub.links, link)
	{
		if (link->state == EVP_LINK_UP)
			evp_link_send(link, &frame, NULL);
	}
}

/* ---- life ---- */

evp_links_t *
evp_links_new(evp_proxy_t *proxy)
{
	const evp_config_t *config = &proxy->config;
	evp_links_t *links = calloc(1, sizeof *links);
	char		error[400];
	int			fd;
	int			rc;

	if (links == NULL)
	{
		evp_log(EVP_LOG_ERROR, "link", NULL, "out of memory");
		return NULL;
	}
	links->proxy = proxy;
	fd = evp_listen(config->internal_address, (uint16_t) config->internal_port, BACKLOG, false, error, sizeof error);
	if (fd < 0)
	{
		evp_log(EVP_LOG_ERROR, "link", NULL, "%s (--internal-address, --internal-port)", error);
		free(links);
		return NULL;
	}
	evp_link_hub_init(&links->hub, proxy);
	links->hub.on_up = on_up;
	links->hub.on_frame = on_frame;
	links->hub.on_closed = on_closed;
	uv_tcp_init(proxy->loop, &links->listener);
	links->listener.data = links;
	rc = uv_tcp_open(&links->listener, fd);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *) &links->listener, BACKLOG, on_connection);
	if (rc < 0)
	{
		/* The process ends: nothing is taken down. */
		evp_log(EVP_LOG_ERROR, "link", NULL, "cannot listen on %s port %" PRIu64 ": %s", config->internal_address,
				config->internal_port, uv_strerror(rc));
		return NULL;
	}
	uv_timer_init(proxy->loop, &links->timer);
	links->timer.data = links;
	uv_timer_start(&links->timer, on_timer, TICK_MS, TICK_MS);
	evp_log(EVP_LOG_INFO, "link", NULL, "proxies connect to %s port %" PRIu64, config->internal_address, config->internal_port);
	return links;
}

size_t
evp_links_queued(const evp_links_t *links)
{
	size_t		queued = 0;

	for (const evp_link_t *link = links->hub.links; link != NULL; link = link->next)
	{
		if (link->state == EVP_LINK_UP)
			queued += link->queued;
	}
	return queued;
}

void
evp_links_stop(evp_links_t *links)
{
	if (links->stopped)
		return;
	links->stopped = true;
	uv_close((uv_handle_t *) &links->listener, NULL);
	uv_close((uv_handle_t *) &links->timer, NULL);
	evp_link_hub_stop(&links->hub);
}

void
evp_links_free(evp_links_t *links)
{
	evp_dial_t *d,
			   *next;

	if (links == NULL)
		return;
	HASH_ITER(hh, links->dials, d, next)
	{
		HASH_DEL(links->dials, d);
		free(d);
	}
	free(links);
}
