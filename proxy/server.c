/*
 * server.c
 *    The listener for bundles, and the hub of their connections.
 */
#include "server.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "listen.h"
#include "log.h"
#include "tls.h"

#define REFUSAL_LOG_MS 1000		/* refusals for lack of room are logged once in so long */

struct evp_server
{
	evp_proxy_t *proxy;
	uv_tcp_t	listener;
	evp_hub_t	hub;
	uv_tcp_t	drop;			/* a connection that is refused */
	bool		dropping;
	bool		drop_next;		/* and another one waits */
	uint64_t	refused;		/* since the last line about it */
	uint64_t	refused_logged_at;
};

static void refuse(evp_server_t *server);

static void
on_dropped(uv_handle_t *handle)
{
	evp_server_t *server = handle->data;

	server->dropping = false;
	if (server->drop_next && !uv_is_closing((uv_handle_t *) &server->listener))
	{
		server->drop_next = false;
		refuse(server);
	}
}

/* Takes the connection that waits and drops it, without needing memory. */
static void
refuse(evp_server_t *server)
{
	if (server->dropping)
	{
		server->drop_next = true;	/* libuv holds the next one back until this one is gone */
		return;
	}
	server->dropping = true;
	uv_tcp_init(server->proxy->loop, &server->drop);
	server->drop.data = server;
	uv_accept((uv_stream_t *) &server->listener, (uv_stream_t *) &server->drop);
	uv_close((uv_handle_t *) &server->drop, on_dropped);
}

static void
log_refusal(evp_server_t *server)
{
	uint64_t	now = evp_now(server->proxy);

	server->refused++;
	if (server->refused_logged_at != 0 && now - server->refused_logged_at < REFUSAL_LOG_MS)
		return;
	evp_log(EVP_LOG_WARNING, "server", NULL, "refused %" PRIu64 " connections: there are %zu, as many as max-connections allows",
			server->refused, server->hub.count);
	server->refused = 0;
	server->refused_logged_at = now;
}

static void
on_connection(uv_stream_t *listener, int status)
{
	evp_server_t *server = listener->data;
	int			rc = status;

	if (rc == 0 && server->hub.count >= server->proxy->config.max_connections)
	{
		log_refusal(server);
		refuse(server);
		return;
	}
	if (rc == 0)
		rc = evp_session_accept(server->proxy, &server->hub, listener);
	if (rc == UV_ENOMEM)
		refuse(server);
	if (rc < 0)
		evp_log(EVP_LOG_WARNING, "server", NULL, "a connection was lost while it was accepted: %s", uv_strerror(rc));
}

evp_server_t *
evp_server_new(evp_proxy_t *proxy)
{
	const evp_config_t *config = &proxy->config;
	evp_server_t *server = calloc(1, sizeof(*server));
	char		error[400];
	int			fd;
	int			rc;

	if (server == NULL)
	{
		evp_log(EVP_LOG_ERROR, "server", NULL, "no memory");
		return NULL;
	}
	server->proxy = proxy;
	fd = evp_listen(config->bundle_address, (uint16_t) config->bundle_port, (int) config->listen_backlog, config->workers > 1, error,
					sizeof(error));
	if (fd < 0)
	{
		evp_log(EVP_LOG_ERROR, "server", NULL, "%s (--bundle-address, --bundle-port)", error);
		free(server);
		return NULL;
	}
	evp_hub_init(&server->hub, proxy->loop);
	server->hub.tls = evp_tls_on(proxy->tls, EVP_TLS_BUNDLE) ? proxy->tls : NULL;
	evp_server_reload(server);
	/* Makes no socket, so it cannot fail. */
	uv_tcp_init(proxy->loop, &server->listener);
	server->listener.data = server;
	rc = uv_tcp_open(&server->listener, fd);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *) &server->listener, (int) config->listen_backlog, on_connection);
	if (rc < 0)
		evp_log(EVP_LOG_ERROR, "server", NULL, "cannot listen on %s port %" PRIu64 ": %s", config->bundle_address,
				config->bundle_port, uv_strerror(rc));
	if (rc < 0)
		return NULL;			/* the process ends: nothing is taken down */
	evp_log(EVP_LOG_INFO, "server", NULL, "bundles connect to %s port %" PRIu64 "%s", config->bundle_address, config->bundle_port,
			server->hub.tls != NULL ? " with TLS" : "");
	return server;
}

void
evp_server_reload(evp_server_t *server)
{
	const evp_config_t *config = &server->proxy->config;

	server->hub.max_held = config->input_bytes;
	server->hub.max_queued = config->output_bytes;
	server->hub.max_queued_total = config->output_total;
}

void
evp_server_drain(evp_server_t *server)
{
	uv_close((uv_handle_t *) &server->listener, NULL);
	evp_session_leave_all(&server->hub);
}

void
evp_server_stop(evp_server_t *server)
{
	if (!uv_is_closing((uv_handle_t *) &server->listener))
		uv_close((uv_handle_t *) &server->listener, NULL);
	evp_session_close_all(&server->hub, "this proxy stops");
	evp_hub_stop(&server->hub);
}

void
evp_server_free(evp_server_t *server)
{
	evp_hub_free(&server->hub);
	free(server);
}

void
evp_server_access_changed(evp_server_t *server)
{
	evp_session_access_changed(&server->hub);
}

void
evp_server_load(const evp_server_t *server, size_t *queued, size_t *held, size_t *connections)
{
	*queued = server->hub.queued;
	*held = server->hub.held;
	*connections = server->hub.count;
}
