/*
 * http.c
 *    libmicrohttpd on the loop: its epoll descriptor is polled, its timeouts
 *    are a timer's.
 */
#include "http.h"

#include <inttypes.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "db.h"
#include "listen.h"
#include "log.h"
#include "registry.h"
#include "scrape.h"

#define CONNECTIONS_MAX	256
#define CONNECTION_TIMEOUT_S	30
#define CONNECTION_MEMORY		((size_t) 32 * 1024)
#define METRICS_MAX		((size_t) 1024 * 1024)

struct evp_http
{
	evp_proxy_t *proxy;
	struct MHD_Daemon *daemon;
	uv_poll_t	poll;
	uv_timer_t	timer;
};

static enum MHD_Result
send_text(struct MHD_Connection *connection, unsigned status, const char *type, const void *text, size_t len)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(len, (void *) text, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result rc;

	if (response == NULL)
		return MHD_NO;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	rc = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return rc;
}

static enum MHD_Result
send_line(struct MHD_Connection *connection, unsigned status, const char *line)
{
	return send_text(connection, status, "text/plain; charset=utf-8", line, strlen(line));
}

/* Why requests that need the log or other proxies would fail here, NULL where they would not. */
static const char *
not_ready(const evp_proxy_t *proxy)
{
	if (proxy->draining)
		return "about to stop\n";
	if (!evp_db_is_up(proxy->db))
		return "the database is not reachable\n";
	if (evp_registry_proxy_id(proxy->registry) == 0)
		return "not registered in the cluster\n";
	return NULL;
}

static enum MHD_Result
send_metrics(const evp_proxy_t *proxy, struct MHD_Connection *connection)
{
	evp_buf_t	b;
	enum MHD_Result rc;

	evp_buf_init(&b, METRICS_MAX);
	if (evp_scrape(proxy, &b))
		rc = send_text(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", b.data, b.len);
	else
		rc = send_line(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory\n");
	evp_buf_free(&b);
	return rc;
}

static enum MHD_Result
on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
		   const char *upload, size_t *upload_size, void **state)
{
	static char seen;
	evp_http_t *http = arg;
	const char *trouble;

	(void) version;
	(void) upload;
	if (*state == NULL)
	{
		*state = &seen;			/* the head has come: answer once its body, if any, has too */
		return MHD_YES;
	}
	if (*upload_size > 0)
	{
		*upload_size = 0;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return send_line(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
	if (strcmp(url, "/healthz") == 0)
		return http->proxy->draining ? send_line(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "about to stop\n") :
			send_line(connection, MHD_HTTP_OK, "ok\n");
	if (strcmp(url, "/readyz") == 0)
	{
		trouble = not_ready(http->proxy);
		return trouble == NULL ? send_line(connection, MHD_HTTP_OK, "ready\n") :
			send_line(connection, MHD_HTTP_SERVICE_UNAVAILABLE, trouble);
	}
	if (strcmp(url, "/metrics") == 0)
		return send_metrics(http->proxy, connection);
	return send_line(connection, MHD_HTTP_NOT_FOUND, "there are /healthz, /readyz and /metrics\n");
}

static void on_timer(uv_timer_t *timer);

static void
run(evp_http_t *http)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	MHD_run(http->daemon);
	if (MHD_get_timeout(http->daemon, &timeout) == MHD_YES)
		uv_timer_start(&http->timer, on_timer, timeout, 0);
	else
		uv_timer_stop(&http->timer);
}

static void
on_timer(uv_timer_t *timer)
{
	run(timer->data);
}

static void
on_poll(uv_poll_t *poll, int status, int events)
{
	(void) status;
	(void) events;
	run(poll->data);
}

static void
on_mhd_log(void *arg, const char *format, va_list args)
{
	char		text[500];
	size_t		len;

	(void) arg;
	vsnprintf(text, sizeof(text), format, args);
	len = strlen(text);
	while (len > 0 && text[len - 1] == '\n')
		text[--len] = '\0';
	evp_log(EVP_LOG_DEBUG, "http", NULL, "%s", text);
}

evp_http_t *
evp_http_new(evp_proxy_t *proxy)
{
	const evp_config_t *config = &proxy->config;
	const union MHD_DaemonInfo *info;
	evp_http_t *http = calloc(1, sizeof(*http));
	char		error[400];
	int			fd;

	if (http == NULL)
	{
		evp_log(EVP_LOG_ERROR, "http", NULL, "no memory");
		return NULL;
	}
	http->proxy = proxy;
	fd = evp_listen(config->http_address, (uint16_t) config->http_port, 128, false, error, sizeof(error));
	if (fd < 0)
	{
		evp_log(EVP_LOG_ERROR, "http", NULL, "%s (--http-address, --http-port)", error);
		free(http);
		return NULL;
	}
	http->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, http,
									MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
									MHD_OPTION_LISTEN_SOCKET, fd,
									MHD_OPTION_CONNECTION_LIMIT, (unsigned) CONNECTIONS_MAX,
									MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) CONNECTION_TIMEOUT_S,
									MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
									MHD_OPTION_END);
	info = http->daemon == NULL ? NULL : MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (info == NULL || uv_poll_init(proxy->loop, &http->poll, info->epoll_fd) < 0)
	{
		evp_log(EVP_LOG_ERROR, "http", NULL, "the HTTP server cannot be started");
		return NULL;			/* the process ends: nothing is taken down */
	}
	http->poll.data = http;
	uv_timer_init(proxy->loop, &http->timer);
	http->timer.data = http;
	uv_poll_start(&http->poll, UV_READABLE, on_poll);
	run(http);
	evp_log(EVP_LOG_INFO, "http", NULL, "health and metrics at http://%s:%" PRIu64, config->http_address, config->http_port);
	return http;
}

void
evp_http_stop(evp_http_t *http)
{
	uv_poll_stop(&http->poll);
	uv_close((uv_handle_t *) &http->poll, NULL);
	uv_close((uv_handle_t *) &http->timer, NULL);
}

void
evp_http_free(evp_http_t *http)
{
	MHD_stop_daemon(http->daemon);
	free(http);
}
