/*
 * access.h
 *    Who may connect, and what a token allows: the rules and tokens of the
 *    database, held in memory, so that a look at them waits for nothing.
 *    Without a socket or a clock; guard.h loads them and watches over sessions.
 *
 *    A book is filled, sealed, and then never changed: a new one takes its place.
 */
#ifndef EVP_ACCESS_H
#define EVP_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "buf.h"

#define EVP_ACCESS_HASH			32	/* bytes of a SHA-256 */
#define EVP_ACCESS_MAX_RULES	1000
#define EVP_ACCESS_MAX_TOKENS	10000
#define EVP_ACCESS_MAX_NAMES	1000	/* of a token, to register and to send each */
#define EVP_ACCESS_MAX_TOKEN	1024	/* bytes of what a peer sends as one */

typedef enum evp_access_method
{
	EVP_ACCESS_TRUST,
	EVP_ACCESS_TOKEN,
	EVP_ACCESS_CERT,
	EVP_ACCESS_REJECT
} evp_access_method_t;

/* What a token allows over HTTP; each may do what those before it may. */
typedef enum evp_access_http
{
	EVP_ACCESS_HTTP_NONE,
	EVP_ACCESS_HTTP_READ,
	EVP_ACCESS_HTTP_WRITE,
	EVP_ACCESS_HTTP_ADMIN
} evp_access_http_t;

/* Patterns of names; p NULL: any name. */
typedef struct evp_access_names
{
	char	  **p;
	size_t		n;
} evp_access_names_t;

typedef struct evp_access_token
{
	uint8_t		hash[EVP_ACCESS_HASH];
	char	   *bundle;
	uint64_t	expires;		/* in the clock of now below; UINT64_MAX: never */
	evp_access_names_t may_register;
	evp_access_names_t may_send;
	evp_access_http_t http;
} evp_access_token_t;

typedef struct evp_access_book evp_access_book_t;

/* An address; IPv4 in IPv6 is IPv4.  n is 4 or 16, 0: unknown, which fits no range. */
typedef struct evp_access_address
{
	uint8_t		p[16];
	unsigned	n;
} evp_access_address_t;

/* Who wants to be let in, by what it has shown. */
typedef struct evp_access_peer
{
	evp_access_address_t address;
	evp_slice_t bundle;
	const uint8_t *token_hash;	/* EVP_ACCESS_HASH bytes; NULL: it sent none */
	const char *const *cert_names;	/* of its verified certificate, NULL at the end; NULL: it has none */
} evp_access_peer_t;

/* An empty book, in which nobody is kept out; NULL on lack of memory. */
evp_access_book_t *evp_access_book_new(void);
void		evp_access_book_free(evp_access_book_t *book);

/*
 * Adds the next rule.  address: "10.0.0.0/8" (NULL: any).  False, with the book
 * as it was, where a value makes no sense, there are too many or memory runs out.
 */
bool		evp_access_add_rule(evp_access_book_t *book, const char *address, const char *bundle, const char *method);

/* Adds a token, whose names are copied.  The same about false. */
bool		evp_access_add_token(evp_access_book_t *book, const evp_access_token_t *token);

/* Ends the filling. */
void		evp_access_seal(evp_access_book_t *book);

/*
 * Is the peer let in?  NULL where it is, and then in *token the token that it is
 * let in by (NULL: another way), which lives as long as the book; else why not,
 * a static text.
 */
const char *evp_access_check(const evp_access_book_t *book, const evp_access_peer_t *peer, uint64_t now, const evp_access_token_t **token);

/* The token with this hash that has not expired, or NULL. */
const evp_access_token_t *evp_access_find(const evp_access_book_t *book, const uint8_t hash[EVP_ACCESS_HASH], uint64_t now);

/* The hash of a token's text; false where it is none that could have been given out. */
bool		evp_access_hash(evp_slice_t text, uint8_t hash[EVP_ACCESS_HASH]);

/* When the next token expires, UINT64_MAX: never. */
uint64_t	evp_access_next_expiry(const evp_access_book_t *book, uint64_t now);

size_t		evp_access_rule_count(const evp_access_book_t *book);
size_t		evp_access_token_count(const evp_access_book_t *book);

/* Does one of the patterns fit the name? */
bool		evp_access_allows(const evp_access_names_t *names, evp_slice_t name);

/* Does a pattern, in which * stands for any characters, fit the name? */
bool		evp_access_fits(const char *pattern, evp_slice_t name);

/* From a socket's address. */
void		evp_access_address(evp_access_address_t *address, const struct sockaddr *from);

bool		evp_access_http_parse(const char *text, evp_access_http_t *http);

#endif							/* EVP_ACCESS_H */
