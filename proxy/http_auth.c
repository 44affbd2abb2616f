/*
 * http_auth.c
 *    Who may do what over HTTP.  Where the setting http-api is "open" everybody
 *    may; else only who comes to a loopback address, or brings a token of the
 *    database.
 */
#include "http_auth.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "guard.h"

/* Is it an address, or a name, that can only mean this machine? */
static bool
is_loopback(const char *host, size_t n)
{
	char		text[64];
	struct in_addr v4;
	struct in6_addr v6;

	if (n >= 2 && host[0] == '[' && host[n - 1] == ']')
	{
		host++;
		n -= 2;
	}
	if (n == 0 || n >= sizeof(text))
		return false;
	memcpy(text, host, n);
	text[n] = '\0';
	if (strcasecmp(text, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, text, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, text, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* A header Host without its port. */
static bool
names_loopback(const char *host)
{
	size_t		n = strlen(host);
	const char *colon = strrchr(host, ':');

	if (colon != NULL && host[0] != '[')
		n = (size_t) (colon - host);
	else if (host[0] == '[' && strchr(host, ']') != NULL)
		n = (size_t) (strchr(host, ']') + 1 - host);
	return is_loopback(host, n);
}

static evp_http_role_t
role_of(evp_access_http_t allowed)
{
	switch (allowed)
	{
		case EVP_ACCESS_HTTP_READ:
			return EVP_HTTP_READ;
		case EVP_ACCESS_HTTP_WRITE:
			return EVP_HTTP_WRITE;
		case EVP_ACCESS_HTTP_ADMIN:
			return EVP_HTTP_ADMIN;
		case EVP_ACCESS_HTTP_NONE:
			break;
	}
	return EVP_HTTP_NONE;
}

static bool
brings_token(const evp_http_credentials_t *credentials)
{
	return credentials->authorization != NULL && strncasecmp(credentials->authorization, "Bearer ", 7) == 0;
}

bool
evp_http_can_tell(const evp_proxy_t *proxy, const evp_http_credentials_t *credentials)
{
	return !brings_token(credentials) || evp_guard_ready(proxy->guard);
}

evp_http_role_t
evp_http_authorize(const evp_proxy_t *proxy, const evp_http_credentials_t *credentials)
{
	const evp_config_t *config = &proxy->config;

	/* Who brings a token may do what that allows, and no more. */
	if (brings_token(credentials))
		return role_of(evp_guard_http(proxy->guard, evp_slice_str(credentials->authorization + 7)));
	if (strcmp(config->http_api, "open") == 0)
		return EVP_HTTP_ADMIN;
	/* A page in a browser of this machine can make it ask under a name of the page's own: that name is then in Host. */
	if (is_loopback(config->http_address, strlen(config->http_address)) &&
		(credentials->host == NULL || names_loopback(credentials->host)))
		return EVP_HTTP_ADMIN;
	return EVP_HTTP_NONE;
}
