/*
 * http_request.h
 *    A request over HTTP, between http.c, which receives and answers, and the
 *    modules that serve the paths.  A handler answers at once, or keeps the
 *    request waiting with work of its own and answers later.
 */
#ifndef EVP_HTTP_REQUEST_H
#define EVP_HTTP_REQUEST_H

#include <microhttpd.h>

#include "buf.h"
#include "http_auth.h"
#include "http_log.h"
#include "http_render.h"
#include "proxy.h"

#define EVP_HTTP_HEADERS 4		/* of an answer, beside its type */

typedef struct evp_http_request evp_http_request_t;
typedef struct evp_http_cluster evp_http_cluster_t;
typedef struct evp_http_peer evp_http_peer_t;

/* What waits in place of an answer. */
typedef struct evp_http_work
{
	void		(*drop) (void *work);	/* the request is gone: it must not be answered any more */
	void		(*tick) (void *work, uint64_t now);	/* ten times a second; may be NULL */
	void		(*leave) (void *work);	/* the proxy drains: no more waiting for events; may be NULL */
} evp_http_work_t;

struct evp_http_request
{
	evp_http_request_t *prev;
	evp_http_request_t *next;
	evp_http_t *http;
	evp_proxy_t *proxy;
	struct MHD_Connection *connection;
	evp_http_peer_t *peer;
	const struct evp_http_route *route;
	char	   *target;			/* as it came */
	evp_slice_t path;
	evp_slice_t query;
	evp_buf_t	body;
	size_t		held;			/* bytes of it that count for the setting http-bytes */
	bool		begun;			/* the head was looked at */
	bool		admitted;		/* it asks for something of the API, and may */
	bool		head;			/* HEAD: the answer's body is not sent */
	bool		suspended;
	const evp_http_work_t *kind;
	void	   *work;
	struct MHD_Response *response;	/* to be queued */
	unsigned	status;
	unsigned	header_count;
	struct
	{
		const char *name;		/* static */
		char		value[80];
	}			headers[EVP_HTTP_HEADERS];
};

/* A header of what came, NULL where there is none. */
const char *evp_http_header(const evp_http_request_t *request, const char *name);

/* Adds a header to the answer: before it. */
void evp_http_add_header(evp_http_request_t *request, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Answers.  The body is taken over; a buffer that has failed makes a 500.  To be called once. */
void evp_http_answer(evp_http_request_t *request, unsigned status, const char *type, evp_buf_t *body);
/* Answers with a problem.  With 503 the client is told when to come again. */
void evp_http_problem(evp_http_request_t *request, const evp_http_problem_t *problem);
/* The same for a status, a type and a title, with a detail or NULL. */
void evp_http_refuse(evp_http_request_t *request, unsigned status, const char *type, const char *title, const char *detail);
/* Answers with a body that comes piece by piece; takes the response over. */
void evp_http_answer_stream(evp_http_request_t *request, const char *type, struct MHD_Response *response);

/* Lets the request wait for work. */
void evp_http_wait(evp_http_request_t *request, const evp_http_work_t *kind, void *work);
/* Takes a connection whose stream has nothing to send from the loop, and gives it back.  Suspend is called by the stream's reader. */
void evp_http_suspend(evp_http_request_t *request);
void evp_http_resume(evp_http_request_t *request);

/* Is there room for so many bytes more?  False after a refusal. */
bool evp_http_hold(evp_http_request_t *request, size_t bytes);
/* How many bytes it holds by now, whether there is room or not. */
void evp_http_holds(evp_http_request_t *request, size_t bytes);
/* Room for one more request that waits for events; false after a refusal. */
bool evp_http_may_wait(evp_http_request_t *request);

/* The header of that name as a position or version, 0 without; false after a refusal. */
bool evp_http_seen(evp_http_request_t *request, const char *name, int64_t *value);

/* What the modules share. */
evp_http_log_t *evp_http_log_of(const evp_http_request_t *request);
evp_http_cluster_t *evp_http_cluster_of(const evp_http_request_t *request);

/* http_streams.c, http_events.c, http_sse.c, http_cluster.c, http_openapi.c: the paths. */
void evp_http_get_stream(evp_http_request_t *request);
void evp_http_post_stream(evp_http_request_t *request);
void evp_http_get_events(evp_http_request_t *request);
void evp_http_stream_events(evp_http_request_t *request, struct evp_http_query *query);	/* takes query over */
void evp_http_get_cluster(evp_http_request_t *request);
void evp_http_get_openapi(evp_http_request_t *request);

/* http_cluster.c: the picture of the cluster that is kept. */
evp_http_cluster_t *evp_http_cluster_new(evp_proxy_t *proxy);
void evp_http_cluster_tick(evp_http_cluster_t *cluster);
void evp_http_cluster_free(evp_http_cluster_t *cluster);

#endif /* EVP_HTTP_REQUEST_H */
