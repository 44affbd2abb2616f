/*
 * http_render.h
 *    What goes out over HTTP as text: events as JSON and as server-sent events,
 *    problems.  No libmicrohttpd, no libuv.
 */
#ifndef EVP_HTTP_RENDER_H
#define EVP_HTTP_RENDER_H

#include "event.h"

/* A time in ms since 1970 as a JSON string (RFC 3339, UTC). */
void		evp_http_put_time(evp_buf_t *b, int64_t ms);

/* A UUID as a JSON string. */
void		evp_http_put_id(evp_buf_t *b, const uint8_t id[16]);

/* An event as a JSON object; data and metadata stand in it byte for byte. */
void		evp_http_put_event(evp_buf_t *b, const evp_event_t *event);

/* An event as a server-sent event whose id is its position. */
void		evp_http_put_sse(evp_buf_t *b, const evp_event_t *event);

/* Percent-encodes a text for a path or a parameter. */
void		evp_http_encode(evp_buf_t *b, evp_slice_t text);

/* What went wrong, for application/problem+json (RFC 9457). */
typedef struct evp_http_problem
{
	unsigned	status;
	const char *type;			/* behind "urn:evento:" */
	const char *title;
	const char *detail;			/* NULL: none */
	const char *sqlstate;		/* NULL: none */
	const char *extra;			/* further members of the object, as JSON text that begins with a comma; NULL: none */
} evp_http_problem_t;

void		evp_http_put_problem(evp_buf_t *b, const evp_http_problem_t *problem);

/* Fills status, type and title by a SQLSTATE. */
void		evp_http_problem_of(evp_http_problem_t *problem, const char *sqlstate);

#endif							/* EVP_HTTP_RENDER_H */
