/*
 * http_openapi.c
 *    GET /openapi.json: the API's description, openapi.json, as it was when
 *    this was built.
 */
#include "http_request.h"

static const char document[] =
#include "openapi.inc"
;

void
evp_http_get_openapi(evp_http_request_t *request)
{
	evp_buf_t	b;

	evp_buf_init(&b, sizeof(document));
	evp_buf_append(&b, document, sizeof(document) - 1);
	evp_http_answer(request, MHD_HTTP_OK, "application/json", &b);
}
