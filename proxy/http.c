/*
 * http.c
 *    libmicrohttpd on the loop: its epoll descriptor is polled, its timeouts
 *    are a timer's.  Receives requests, finds who serves them and whether they
 *    may, and sends the answers; what the paths mean is in the modules of
 *    http_request.h.
 */
#include "http.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <utlist.h>

#include "db.h"
#include "http_request.h"
#include "listen.h"
#include "log.h"
#include "metrics.h"
#include "registry.h"
#include "scrape.h"
#include "tls.h"

#define CONNECTION_MEMORY		((size_t) 32 * 1024)
#define METRICS_MAX		((size_t) 1024 * 1024)
#define PROBLEM_MAX		((size_t) 1024 * 1024)
#define READ_ANYWAY		((uint64_t) 256 * 1024)	/* bodies beyond the bound that are read, so that their sender sees the answer */
#define TICK_MS			100
#define LEAST_SPEED		64		/* bytes a millisecond at which a body has to come in the long run */
#define RETRY_AFTER_S	"1"

struct evp_http
{
	evp_proxy_t *proxy;
	struct MHD_Daemon *daemon;
	uv_poll_t	poll;
	uv_timer_t	timer;
	uv_timer_t	tick;
	evp_http_request_t *requests;
	evp_http_peer_t *peers;
	evp_http_log_t *log;
	evp_http_cluster_t *cluster;
	bool		refusing;		/* nothing new is begun */
	bool		stopped;
};

/* A connection. */
struct evp_http_peer
{
	evp_http_peer_t *prev;
	evp_http_peer_t *next;
	struct MHD_Connection *connection;
	uint64_t	since;			/* a request is awaited, or comes in, since then; 0: it is served */
	uint64_t	received;		/* bytes of its body */
};

/* A path with a method. */
typedef struct evp_http_route
{
	const char *path;			/* what ends with "{stream}" has a name there */
	const char *method;
	evp_http_role_t needs;
	void		(*serve) (evp_http_request_t *request);
} evp_http_route_t;

static void get_health(evp_http_request_t *request);
static void get_ready(evp_http_request_t *request);
static void get_metrics(evp_http_request_t *request);

static const evp_http_route_t routes[] = {
	{"/healthz", "GET", EVP_HTTP_NONE, get_health},
	{"/readyz", "GET", EVP_HTTP_NONE, get_ready},
	{"/metrics", "GET", EVP_HTTP_NONE, get_metrics},
	{"/openapi.json", "GET", EVP_HTTP_NONE, evp_http_get_openapi},
	{"/cluster", "GET", EVP_HTTP_READ, evp_http_get_cluster},
	{"/events", "GET", EVP_HTTP_READ, evp_http_get_events},
	{"/streams/{stream}", "GET", EVP_HTTP_READ, evp_http_get_stream},
	{"/streams/{stream}", "POST", EVP_HTTP_WRITE, evp_http_post_stream}
};

#define ROUTE_COUNT (sizeof(routes) / sizeof(routes[0]))

static void on_timer(uv_timer_t *timer);

/* ---- answers ---- */

const char *
evp_http_header(const evp_http_request_t *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

void
evp_http_add_header(evp_http_request_t *request, const char *name, const char *format, ...)
{
	va_list		args;

	if (request->header_count == EVP_HTTP_HEADERS)
		abort();
	request->headers[request->header_count].name = name;
	va_start(args, format);
	vsnprintf(request->headers[request->header_count].value, sizeof(request->headers[0].value), format, args);
	va_end(args);
	request->header_count++;
}

/* What the request waits with; one whose work has a tick waits for events. */
static void
set_work(evp_http_request_t *request, const evp_http_work_t *kind, void *work)
{
	evp_metrics.http_waiting -= request->kind != NULL && request->kind->tick != NULL;
	evp_metrics.http_waiting += kind != NULL && kind->tick != NULL;
	request->kind = kind;
	request->work = work;
}

static void
give(evp_http_request_t *request, unsigned status, const char *type, struct MHD_Response *response)
{
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	if (request->proxy->draining)
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	for (unsigned i = 0; i < request->header_count; i++)
		MHD_add_response_header(response, request->headers[i].name, request->headers[i].value);
	request->status = status;
	request->response = response;
	set_work(request, NULL, NULL);
	evp_http_resume(request);
}

void
evp_http_answer(evp_http_request_t *request, unsigned status, const char *type, evp_buf_t *body)
{
	struct MHD_Response *response;
	bool		failed = body->failed;
	size_t		len = failed ? 0 : body->len;

	if (failed)
		evp_buf_free(body);
	if (len == 0)
		response = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
	else
		response = MHD_create_response_from_buffer(len, body->data, MHD_RESPMEM_MUST_FREE);
	if (response == NULL)
	{
		/* Nobody waits for an answer any more when it cannot be made: the connection's own time runs out. */
		evp_log(EVP_LOG_ERROR, "http", NULL, "out of memory");
		abort();
	}
	if (len > 0)
		evp_buf_init(body, body->max);	/* the response has its memory */
	else
		evp_buf_free(body);
	evp_http_holds(request, len);	/* until it is sent */
	give(request, failed ? MHD_HTTP_INTERNAL_SERVER_ERROR : status, type, response);
}

void
evp_http_answer_stream(evp_http_request_t *request, const char *type, struct MHD_Response *response)
{
	const evp_http_work_t *kind = request->kind;
	void	   *work = request->work;

	give(request, MHD_HTTP_OK, type, response);
	set_work(request, kind, work);	/* it goes on */
}

void
evp_http_problem(evp_http_request_t *request, const evp_http_problem_t *problem)
{
	evp_buf_t	b;

	evp_buf_init(&b, PROBLEM_MAX);
	evp_http_put_problem(&b, problem);
	if (problem->status == MHD_HTTP_SERVICE_UNAVAILABLE)
		evp_http_add_header(request, MHD_HTTP_HEADER_RETRY_AFTER, RETRY_AFTER_S);
	evp_http_answer(request, problem->status, "application/problem+json", &b);
}

void
evp_http_refuse(evp_http_request_t *request, unsigned status, const char *type, const char *title, const char *detail)
{
	evp_http_problem(request, &(evp_http_problem_t) {.status = status,.type = type,.title = title,.detail = detail});
}

static void
answer_line(evp_http_request_t *request, unsigned status, const char *line)
{
	evp_buf_t	b;

	evp_buf_init(&b, PROBLEM_MAX);
	evp_buf_append_str(&b, line);
	evp_http_answer(request, status, "text/plain; charset=utf-8", &b);
}

void
evp_http_wait(evp_http_request_t *request, const evp_http_work_t *kind, void *work)
{
	set_work(request, kind, work);
}

void
evp_http_suspend(evp_http_request_t *request)
{
	request->suspended = true;
	MHD_suspend_connection(request->connection);
}

void
evp_http_resume(evp_http_request_t *request)
{
	if (!request->suspended)
		return;
	request->suspended = false;
	MHD_resume_connection(request->connection);
	if (!request->http->stopped)
		uv_timer_start(&request->http->timer, on_timer, 0, 0);
}

bool
evp_http_hold(evp_http_request_t *request, size_t bytes)
{
	if (evp_metrics.http_bytes + bytes > request->proxy->config.http_bytes)
	{
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "busy", "Too much is under way",
						"Bodies and answers take as much memory as the setting http-bytes allows.");
		return false;
	}
	evp_http_holds(request, request->held + bytes);
	return true;
}

void
evp_http_holds(evp_http_request_t *request, size_t bytes)
{
	evp_metrics.http_bytes += bytes - request->held;
	request->held = bytes;
}

bool
evp_http_may_wait(evp_http_request_t *request)
{
	if (evp_metrics.http_waiting < request->proxy->config.http_waiting)
		return true;
	evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "busy", "Too many requests wait for events",
					"There are as many as the setting http-waiting allows.");
	return false;
}

evp_http_log_t *
evp_http_log_of(const evp_http_request_t *request)
{
	return request->http->log;
}

evp_http_cluster_t *
evp_http_cluster_of(const evp_http_request_t *request)
{
	return request->http->cluster;
}

/* ---- health and metrics ---- */

static void
get_health(evp_http_request_t *request)
{
	if (request->proxy->draining)
		answer_line(request, MHD_HTTP_SERVICE_UNAVAILABLE, "about to stop\n");
	else
		answer_line(request, MHD_HTTP_OK, "ok\n");
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

static void
get_ready(evp_http_request_t *request)
{
	const char *trouble = not_ready(request->proxy);

	if (trouble == NULL)
		answer_line(request, MHD_HTTP_OK, "ready\n");
	else
		answer_line(request, MHD_HTTP_SERVICE_UNAVAILABLE, trouble);
}

static void
get_metrics(evp_http_request_t *request)
{
	evp_buf_t	b;

	evp_buf_init(&b, METRICS_MAX);
	evp_scrape(request->proxy, &b);
	evp_http_answer(request, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &b);
}

/* ---- requests ---- */

static bool
path_matches(const char *path, evp_slice_t given)
{
	const char *name = strchr(path, '{');
	size_t		n = name == NULL ? strlen(path) : (size_t) (name - path);

	return (name == NULL ? given.n == n : given.n > n) && memcmp(given.p, path, n) == 0;
}

/* Finds the route; false after the answer that there is none, which names those that there are. */
static bool
find_route(evp_http_request_t *request, const char *method)
{
	evp_buf_t	list;
	char		allow[80] = "";
	bool		found = false;

	for (size_t i = 0; i < ROUTE_COUNT; i++)
	{
		size_t		n = strlen(allow);

		if (!path_matches(routes[i].path, request->path))
			continue;
		found = true;
		if (strcmp(routes[i].method, request->head ? "GET" : method) == 0)
		{
			request->route = &routes[i];
			return true;
		}
		snprintf(allow + n, sizeof(allow) - n, "%s%s", n > 0 ? ", " : "", strcmp(routes[i].method, "GET") == 0 ? "GET, HEAD" : routes[i].method);
	}
	if (found)
	{
		evp_http_add_header(request, MHD_HTTP_HEADER_ALLOW, "%s", allow);
		evp_http_refuse(request, MHD_HTTP_METHOD_NOT_ALLOWED, "method", "The path does not have this method", NULL);
		return false;
	}
	evp_buf_init(&list, PROBLEM_MAX);
	for (size_t i = 0; i < ROUTE_COUNT; i++)
		evp_buf_appendf(&list, "%s\"%s %s\"", i == 0 ? ",\"paths\":[" : ",", routes[i].method, routes[i].path);
	evp_buf_append(&list, "]", 2);	/* with its end */
	evp_http_problem(request, &(evp_http_problem_t) {.status = MHD_HTTP_NOT_FOUND,.type = "no-path",.title = "There is no such path",
					 .extra = list.failed ? NULL : (const char *) list.data});
	evp_buf_free(&list);
	return false;
}

static evp_http_credentials_t
credentials_of(const evp_http_request_t *request)
{
	return (evp_http_credentials_t) {.authorization = evp_http_header(request, MHD_HTTP_HEADER_AUTHORIZATION),
		.host = evp_http_header(request, MHD_HTTP_HEADER_HOST)};
}

/* Do its credentials allow what it asks for? */
static bool
is_allowed(const evp_http_request_t *request)
{
	const evp_http_credentials_t credentials = credentials_of(request);

	return request->route->needs == EVP_HTTP_NONE || evp_http_authorize(request->proxy, &credentials) >= request->route->needs;
}

static bool
may(evp_http_request_t *request)
{
	const evp_http_credentials_t credentials = credentials_of(request);

	if (is_allowed(request))
		return true;
	if (!evp_http_can_tell(request->proxy, &credentials))
	{
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "not-ready", "Whose token it is is not known yet",
						"The proxy has not read the tokens from the database.");
		return false;
	}
	if (evp_http_header(request, MHD_HTTP_HEADER_AUTHORIZATION) == NULL)
	{
		evp_http_add_header(request, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer realm=\"evento\"");
		evp_http_refuse(request, MHD_HTTP_UNAUTHORIZED, "unauthorized", "Not without credentials",
						"Beyond a loopback address a bearer token is asked for (evento.create_bundle_token), unless the setting http-api is open.");
	}
	else
		evp_http_refuse(request, MHD_HTTP_FORBIDDEN, "forbidden", "Not with these credentials", NULL);
	return false;
}

/* Decides by the head what can be decided; false where the request is answered already. */
static bool
begin(evp_http_request_t *request, const char *method)
{
	const char *length = evp_http_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
	int64_t		bytes;

	EVP_COUNT(http_requests);
	request->head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
	if (!find_route(request, method))
		return false;
	if (request->http->stopped || (request->http->refusing && request->route->needs != EVP_HTTP_NONE))
	{
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "stopping", "The proxy is shutting down", NULL);
		return false;
	}
	if (!may(request))
		return false;
	if (length != NULL && (!evp_http_number(evp_slice_str(length), INT64_MAX, &bytes) || (uint64_t) bytes > request->body.max))
	{
		evp_http_refuse(request, MHD_HTTP_CONTENT_TOO_LARGE, "too-large", "The body is too large", "The setting http-body bounds it.");
		return false;
	}
	request->admitted = request->route->needs != EVP_HTTP_NONE;
	return true;
}

/* A piece of the body.  What is not wanted any more is passed over. */
static void
take_body(evp_http_request_t *request, const char *bytes, size_t n)
{
	if (request->response != NULL)
		return;
	if (n > request->body.max - request->body.len)
	{
		evp_buf_free(&request->body);
		evp_http_holds(request, 0);
		evp_http_refuse(request, MHD_HTTP_CONTENT_TOO_LARGE, "too-large", "The body is too large", "The setting http-body bounds it.");
	}
	else if (!evp_http_hold(request, n) || !evp_buf_append(&request->body, bytes, n))
	{
		evp_buf_free(&request->body);
		evp_http_holds(request, 0);
		if (request->response == NULL)
			evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "busy", "No memory for the body", NULL);
	}
}

static enum MHD_Result
queue(evp_http_request_t *request)
{
	struct MHD_Response *response = request->response;
	enum MHD_Result rc;

	request->response = NULL;
	rc = MHD_queue_response(request->connection, request->status, response);
	MHD_destroy_response(response);
	return rc;
}

/* A body that is refused is read all the same where it is short: its sender may look for the answer only behind it. */
static bool
read_anyway(const evp_http_request_t *request)
{
	const char *length = evp_http_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
	int64_t		bytes = 0;

	return length != NULL && evp_http_number(evp_slice_str(length), INT64_MAX, &bytes) && (uint64_t) bytes <= request->body.max + READ_ANYWAY;
}

static enum MHD_Result
on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
		   const char *upload, size_t *upload_size, void **state)
{
	evp_http_request_t *request = *state;

	(void) arg;
	(void) connection;
	(void) url;
	(void) version;
	if (request == NULL)
		return MHD_NO;			/* no memory for it */
	if (!request->begun)
	{
		request->begun = true;
		if (!begin(request, method) && evp_http_header(request, MHD_HTTP_HEADER_TRANSFER_ENCODING) == NULL &&
			evp_http_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH) != NULL && !read_anyway(request))
			return queue(request);
		return MHD_YES;
	}
	if (*upload_size > 0)
	{
		if (request->peer != NULL)
			request->peer->received += *upload_size;
		take_body(request, upload, *upload_size);
		*upload_size = 0;
		return MHD_YES;
	}
	if (request->peer != NULL)
		request->peer->since = 0;
	/* Behind the last turn of the loop nothing may begin that would wait. */
	if (request->response == NULL && request->kind == NULL && request->http->stopped)
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "stopping", "The proxy is shutting down", NULL);
	else if (request->response == NULL && request->kind == NULL)
		request->route->serve(request);
	if (request->response != NULL)
		return queue(request);
	evp_http_suspend(request);
	return MHD_YES;
}

static void
await_request(evp_http_peer_t *peer, uint64_t now)
{
	if (peer == NULL)
		return;
	peer->since = now;
	peer->received = 0;
}

static void
on_connection(void *arg, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode what)
{
	evp_http_t *http = arg;
	evp_http_peer_t *peer = *context;

	if (what == MHD_CONNECTION_NOTIFY_STARTED)
	{
		peer = calloc(1, sizeof(*peer));
		if (peer == NULL)
			return;				/* it goes without a bound in time */
		peer->connection = connection;
		await_request(peer, evp_now(http->proxy));
		DL_APPEND(http->peers, peer);
		*context = peer;
	}
	else if (peer != NULL)
	{
		DL_DELETE(http->peers, peer);
		free(peer);
		*context = NULL;
	}
}

/* libmicrohttpd closes what does not move; this is for what moves by a byte now and then. */
static void
close_creeping(evp_http_t *http, uint64_t now)
{
	evp_http_peer_t *peer;

	DL_FOREACH(http->peers, peer)
	{
		const union MHD_ConnectionInfo *info;

		if (peer->since == 0 || now < peer->since + 2 * http->proxy->config.http_timeout + peer->received / LEAST_SPEED)
			continue;
		peer->since = 0;
		info = MHD_get_connection_info(peer->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		if (info != NULL)
			shutdown(info->connect_fd, SHUT_RDWR);
	}
}

/* The first thing of a request: its target, before anything is decoded. */
static void *
on_target(void *arg, const char *target, struct MHD_Connection *connection)
{
	evp_http_t *http = arg;
	evp_http_request_t *request = calloc(1, sizeof(*request));
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	if (request == NULL)
		return NULL;
	request->target = strdup(target);
	if (request->target == NULL)
	{
		free(request);
		return NULL;
	}
	request->http = http;
	request->proxy = http->proxy;
	request->connection = connection;
	request->peer = info == NULL ? NULL : info->socket_context;
	await_request(request->peer, evp_now(http->proxy));
	evp_http_split(request->target, &request->path, &request->query);
	evp_buf_init(&request->body, http->proxy->config.http_body);
	DL_APPEND(http->requests, request);
	evp_metrics.http_open++;
	return request;
}

static void
on_completed(void *arg, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why)
{
	evp_http_request_t *request = *state;

	(void) arg;
	(void) connection;
	(void) why;
	if (request == NULL)
		return;
	*state = NULL;
	if (request->kind != NULL)
		request->kind->drop(request->work);
	set_work(request, NULL, NULL);
	await_request(request->peer, evp_now(request->proxy));
	if (request->response != NULL)
		MHD_destroy_response(request->response);
	evp_http_holds(request, 0);
	DL_DELETE(request->http->requests, request);
	evp_metrics.http_open--;
	evp_buf_free(&request->body);
	free(request->target);
	free(request);
}

/* ---- the daemon on the loop ---- */

/* As many connections as there may be? */
static bool
is_full(const evp_http_t *http)
{
	return MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections >= http->proxy->config.http_connections;
}

static void
run(evp_http_t *http)
{
	MHD_UNSIGNED_LONG_LONG timeout;
	bool		full = is_full(http);

	MHD_run(http->daemon);
	/* While it is full it does not look at the listening socket, and begins to only in a run that finds room. */
	if (full && !is_full(http))
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
on_tick(uv_timer_t *timer)
{
	evp_http_t *http = timer->data;
	evp_http_request_t *request;

	DL_FOREACH(http->requests, request)
		if (request->kind != NULL && request->kind->tick != NULL)
			request->kind->tick(request->work, evp_now(http->proxy));
	evp_http_cluster_tick(http->cluster);
	close_creeping(http, evp_now(http->proxy));
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

static struct MHD_Daemon *
start_daemon(evp_http_t *http, int fd)
{
	const evp_config_t *config = &http->proxy->config;
	const unsigned tls = evp_tls_on(http->proxy->tls, EVP_TLS_HTTP) ? MHD_USE_TLS : 0;

	return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | tls, 0, NULL, NULL, on_request, http,
							MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
							MHD_OPTION_LISTEN_SOCKET, fd,
							MHD_OPTION_URI_LOG_CALLBACK, on_target, http,
							MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
							MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
							MHD_OPTION_CONNECTION_LIMIT, (unsigned) config->http_connections,
							MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) (config->http_timeout / 1000),
							MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
							MHD_OPTION_ARRAY, evp_tls_http_options(http->proxy->tls),
							MHD_OPTION_END);
}

evp_http_t *
evp_http_new(evp_proxy_t *proxy)
{
	const evp_config_t *config = &proxy->config;
	const union MHD_DaemonInfo *info;
	evp_http_t *http = calloc(1, sizeof(*http));
	char		error[400];
	int			fd;

	if (http != NULL)
	{
		http->log = evp_http_log_new(proxy);
		http->cluster = evp_http_cluster_new(proxy);
	}
	if (http == NULL || http->log == NULL || http->cluster == NULL)
	{
		evp_log(EVP_LOG_ERROR, "http", NULL, "no memory");
		return NULL;			/* the process ends: nothing is taken down */
	}
	http->proxy = proxy;
	fd = evp_listen(config->http_address, (uint16_t) config->http_port, 128, false, error, sizeof(error));
	if (fd < 0)
	{
		evp_log(EVP_LOG_ERROR, "http", NULL, "%s (--http-address, --http-port)", error);
		return NULL;
	}
	http->daemon = start_daemon(http, fd);
	info = http->daemon == NULL ? NULL : MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (info == NULL || uv_poll_init(proxy->loop, &http->poll, info->epoll_fd) < 0)
	{
		evp_log(EVP_LOG_ERROR, "http", NULL, "the HTTP server cannot be started");
		return NULL;
	}
	http->poll.data = http;
	uv_timer_init(proxy->loop, &http->timer);
	http->timer.data = http;
	uv_timer_init(proxy->loop, &http->tick);
	http->tick.data = http;
	uv_timer_start(&http->tick, on_tick, TICK_MS, TICK_MS);
	uv_poll_start(&http->poll, UV_READABLE, on_poll);
	run(http);
	evp_log(EVP_LOG_INFO, "http", NULL, "health, metrics and events at %s://%s:%" PRIu64,
			evp_tls_on(proxy->tls, EVP_TLS_HTTP) ? "https" : "http", config->http_address, config->http_port);
	return http;
}

/* Lets a request wait no longer.  One whose stream has begun cannot be told why: it ends at its reader's next call. */
static void
end_work(evp_http_request_t *request, unsigned status, const char *type, const char *title, const char *detail)
{
	request->kind->drop(request->work);
	set_work(request, NULL, NULL);
	if (request->status == 0)
		evp_http_refuse(request, status, type, title, detail);
	evp_http_resume(request);
}

void
evp_http_access_changed(evp_http_t *http)
{
	evp_http_request_t *request;

	/* What waits for something else than events is over soon. */
	DL_FOREACH(http->requests, request)
	{
		if (request->kind != NULL && request->kind->tick != NULL && !is_allowed(request))
			end_work(request, MHD_HTTP_FORBIDDEN, "forbidden", "Not with these credentials any more", NULL);
	}
}

void
evp_http_drain(evp_http_t *http)
{
	evp_http_request_t *request;

	DL_FOREACH(http->requests, request)
	{
		if (request->kind != NULL && request->kind->leave != NULL)
			request->kind->leave(request->work);
	}
}

void
evp_http_refuse_new(evp_http_t *http)
{
	http->refusing = true;
}

size_t
evp_http_open(const evp_http_t *http)
{
	const evp_http_request_t *request;
	size_t		open = 0;

	DL_FOREACH(http->requests, request)
		open += request->admitted;
	return open;
}

void
evp_http_stop(evp_http_t *http)
{
	evp_http_request_t *request;

	http->stopped = true;
	evp_http_log_stop(http->log);
	DL_FOREACH(http->requests, request)
	{
		if (request->kind != NULL)
			end_work(request, MHD_HTTP_SERVICE_UNAVAILABLE, "stopping", "The proxy is shutting down",
					 "What was asked for may still happen: repeat it with the same ids.");
	}
	/* Answers go out as far as the sockets take them. */
	MHD_run(http->daemon);
	MHD_run(http->daemon);
	uv_poll_stop(&http->poll);
	uv_close((uv_handle_t *) &http->poll, NULL);
	uv_close((uv_handle_t *) &http->timer, NULL);
	uv_close((uv_handle_t *) &http->tick, NULL);
}

void
evp_http_free(evp_http_t *http)
{
	MHD_stop_daemon(http->daemon);
	evp_http_cluster_free(http->cluster);
	evp_http_log_free(http->log);
	free(http);
}
