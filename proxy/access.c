/*
 * access.c
 *    Rules and tokens in memory.
 *
 *    A token is found by the hash of what was sent: how long that takes tells
 *    nothing of any token, and the hashes are compared in constant time all the
 *    same.
 */
#include "access.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#define MAX_PATTERN	512			/* bytes of a pattern, a bundle's id and a name */

typedef struct rule
{
	bool		any;			/* address */
	evp_access_address_t address;
	unsigned	bits;
	char	   *bundle;
	evp_access_method_t method;
} rule_t;

struct evp_access_book
{
	rule_t	   *rules;
	size_t		rule_count;
	evp_access_token_t *tokens; /* in the order of their hashes once it is sealed */
	size_t		token_count;
};

/* ---- filling ---- */

evp_access_book_t *
evp_access_book_new(void)
{
	return calloc(1, sizeof(evp_access_book_t));
}

static void
free_names(evp_access_names_t *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->p[i]);
	free(names->p);
}

static void
free_token(evp_access_token_t *token)
{
	free(token->bundle);
	free_names(&token->may_register);
	free_names(&token->may_send);
}

void
evp_access_book_free(evp_access_book_t *book)
{
	if (book == NULL)
		return;
	for (size_t i = 0; i < book->rule_count; i++)
		free(book->rules[i].bundle);
	for (size_t i = 0; i < book->token_count; i++)
		free_token(&book->tokens[i]);
	free(book->rules);
	free(book->tokens);
	free(book);
}

static bool
parse_method(const char *text, evp_access_method_t *method)
{
	static const char *const names[] = {"trust", "token", "cert", "reject"};

	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
	{
		if (strcmp(text, names[i]) == 0)
		{
			*method = (evp_access_method_t) i;
			return true;
		}
	}
	return false;
}

bool
evp_access_http_parse(const char *text, evp_access_http_t *http)
{
	static const char *const names[] = {"none", "read", "write", "admin"};

	for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
	{
		if (strcmp(text, names[i]) == 0)
		{
			*http = (evp_access_http_t) i;
			return true;
		}
	}
	return false;
}

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* IPv4 in IPv6, as that of a peer is read. */
static void
unmap(evp_access_address_t *address, unsigned *bits)
{
	if (address->n != 16 || *bits < 96 || memcmp(address->p, mapped, sizeof mapped) != 0)
		return;
	memmove(address->p, address->p + 12, 4);
	memset(address->p + 4, 0, 12);
	address->n = 4;
	*bits -= 96;
}

/* "10.0.0.0/8", "2001:db8::/32"; without bits, all of them. */
static bool
parse_range(const char *text, evp_access_address_t *address, unsigned *bits)
{
	char		host[INET6_ADDRSTRLEN + 1];
	size_t		len = strcspn(text, "/");
	char	   *end;
	unsigned long given;

	if (len >= sizeof host)
		return false;
	memcpy(host, text, len);
	host[len] = '\0';
	address->n = strchr(host, ':') != NULL ? 16 : 4;
	if (inet_pton(address->n == 16 ? AF_INET6 : AF_INET, host, address->p) != 1)
		return false;
	*bits = address->n * 8;
	if (text[len] != '\0')
	{
		if (text[len + 1] < '0' || text[len + 1] > '9')
			return false;
		given = strtoul(text + len + 1, &end, 10);
		if (*end != '\0' || given > *bits)
			return false;
		*bits = (unsigned) given;
	}
	unmap(address, bits);
	return true;
}

/* Room for one more in an array of count elements that grows by doubling. */
static void *
grown(void *array, size_t count, size_t size)
{
	return (count & (count - 1)) != 0 ? array : realloc(array, (count == 0 ? 1 : count * 2) * size);
}

bool
evp_access_add_rule(evp_access_book_t *book, const char *address, const char *bundle, const char *method)
{
	rule_t		rule = {.any = address == NULL};
	rule_t	   *rules;

	if (book->rule_count >= EVP_ACCESS_MAX_RULES || !parse_method(method, &rule.method) ||
		(address != NULL && !parse_range(address, &rule.address, &rule.bits)) || strlen(bundle) > MAX_PATTERN)
		return false;
	rules = grown(book->rules, book->rule_count, sizeof *rules);
	if (rules == NULL)
		return false;
	book->rules = rules;
	rule.bundle = strdup(bundle);
	if (rule.bundle == NULL)
		return false;
	book->rules[book->rule_count++] = rule;
	return true;
}

static bool
copy_names(evp_access_names_t *to, const evp_access_names_t *from)
{
	if (from->p == NULL)
		return true;
	if (from->n > EVP_ACCESS_MAX_NAMES)
		return false;
	to->p = calloc(from->n + 1, sizeof *to->p);
	if (to->p == NULL)
		return false;
	for (; to->n < from->n; to->n++)
	{
		to->p[to->n] = strdup(from->p[to->n]);
		if (to->p[to->n] == NULL)
			return false;
	}
	return true;
}

bool
evp_access_add_token(evp_access_book_t *book, const evp_access_token_t *token)
{
	evp_access_token_t copy = {.expires = token->expires,.http = token->http};
	evp_access_token_t *tokens;

	if (book->token_count >= EVP_ACCESS_MAX_TOKENS)
		return false;
	tokens = grown(book->tokens, book->token_count, sizeof *tokens);
	if (tokens == NULL)
		return false;
	book->tokens = tokens;
	memcpy(copy.hash, token->hash, EVP_ACCESS_HASH);
	copy.bundle = strdup(token->bundle);
	if (copy.bundle == NULL || !copy_names(&copy.may_register, &token->may_register) || !copy_names(&copy.may_send, &token->may_send))
	{
		free_token(&copy);
		return false;
	}
	book->tokens[book->token_count++] = copy;
	return true;
}

static int
by_hash(const void *a, const void *b)
{
	return memcmp(((const evp_access_token_t *) a)->hash, ((const evp_access_token_t *) b)->hash, EVP_ACCESS_HASH);
}

void
evp_access_seal(evp_access_book_t *book)
{
	if (book->token_count > 0)
		qsort(book->tokens, book->token_count, sizeof *book->tokens, by_hash);
}

/* ---- asking ---- */

size_t
evp_access_rule_count(const evp_access_book_t *book)
{
	return book->rule_count;
}

size_t
evp_access_token_count(const evp_access_book_t *book)
{
	return book->token_count;
}

uint64_t
evp_access_next_expiry(const evp_access_book_t *book, uint64_t now)
{
	uint64_t	next = UINT64_MAX;

	for (size_t i = 0; i < book->token_count; i++)
	{
		if (book->tokens[i].expires > now && book->tokens[i].expires < next)
			next = book->tokens[i].expires;
	}
	return next;
}

bool
evp_access_hash(evp_slice_t text, uint8_t hash[EVP_ACCESS_HASH])
{
	return text.p != NULL && text.n > 0 && text.n <= EVP_ACCESS_MAX_TOKEN && SHA256(text.p, text.n, hash) != NULL;
}

/* The first eight bytes, by which tokens lie in order. */
static uint64_t
prefix(const uint8_t *hash)
{
	uint64_t	n = 0;

	for (int i = 0; i < 8; i++)
		n = n << 8 | hash[i];
	return n;
}

const evp_access_token_t *
evp_access_find(const evp_access_book_t *book, const uint8_t hash[EVP_ACCESS_HASH], uint64_t now)
{
	uint64_t	wanted = prefix(hash);
	size_t		low = 0;
	size_t		high = book->token_count;

	while (low < high)
	{
		size_t		middle = low + (high - low) / 2;

		if (prefix(book->tokens[middle].hash) < wanted)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < book->token_count && prefix(book->tokens[low].hash) == wanted; low++)
	{
		if (CRYPTO_memcmp(book->tokens[low].hash, hash, EVP_ACCESS_HASH) == 0)
			return book->tokens[low].expires > now ? &book->tokens[low] : NULL;
	}
	return NULL;
}

/* One star is kept to go back to: the last, since what an earlier one could take more of, that one can as well. */
bool
evp_access_fits(const char *pattern, evp_slice_t name)
{
	const char *star = NULL;
	size_t		i = 0;
	size_t		from = 0;

	while (i < name.n)
	{
		if (*pattern == '*')
		{
			star = pattern++;
			from = i;
		}
		else if (*pattern != '\0' && *pattern == (char) name.p[i])
		{
			pattern++;
			i++;
		}
		else if (star != NULL)
		{
			pattern = star + 1;
			i = ++from;
		}
		else
			return false;
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

bool
evp_access_allows(const evp_access_names_t *names, evp_slice_t name)
{
	if (names->p == NULL)
		return true;
	for (size_t i = 0; i < names->n; i++)
	{
		if (evp_access_fits(names->p[i], name))
			return true;
	}
	return false;
}

void
evp_access_address(evp_access_address_t *address, const struct sockaddr *from)
{
	memset(address, 0, sizeof *address);
	if (from->sa_family == AF_INET)
	{
		address->n = 4;
		memcpy(address->p, &((const struct sockaddr_in *) from)->sin_addr, 4);
	}
	else if (from->sa_family == AF_INET6)
	{
		const uint8_t *p = ((const struct sockaddr_in6 *) from)->sin6_addr.s6_addr;

		address->n = memcmp(p, mapped, sizeof mapped) == 0 ? 4 : 16;
		memcpy(address->p, address->n == 4 ? p + 12 : p, address->n);
	}
}

static bool
rule_fits(const rule_t *rule, const evp_access_peer_t *peer)
{
	unsigned	whole = rule->bits / 8;
	unsigned	rest = rule->bits % 8;

	if (!rule->any)
	{
		if (peer->address.n != rule->address.n || memcmp(peer->address.p, rule->address.p, whole) != 0)
			return false;
		if (rest > 0 && ((peer->address.p[whole] ^ rule->address.p[whole]) >> (8 - rest)) != 0)
			return false;
	}
	return evp_access_fits(rule->bundle, peer->bundle);
}

static const char *
check_token(const evp_access_book_t *book, const evp_access_peer_t *peer, uint64_t now, const evp_access_token_t **token)
{
	const evp_access_token_t *found;

	if (peer->token_hash == NULL)
		return "a token is needed";
	found = evp_access_find(book, peer->token_hash, now);
	/* One text for both: which tokens there are is nobody's business. */
	if (found == NULL || !evp_slice_is(peer->bundle, found->bundle))
		return "the token is not known, has expired or is another bundle's";
	*token = found;
	return NULL;
}

static const char *
check_cert(const evp_access_peer_t *peer)
{
	if (peer->cert_names == NULL)
		return "a client certificate is needed";
	for (const char *const *name = peer->cert_names; *name != NULL; name++)
	{
		if (evp_slice_is(peer->bundle, *name))
			return NULL;
	}
	return "the client certificate is for another name";
}

const char *
evp_access_check(const evp_access_book_t *book, const evp_access_peer_t *peer, uint64_t now, const evp_access_token_t **token)
{
	*token = NULL;
	if (book->rule_count == 0)
		return NULL;
	for (size_t i = 0; i < book->rule_count; i++)
	{
		if (!rule_fits(&book->rules[i], peer))
			continue;
		switch (book->rules[i].method)
		{
			case EVP_ACCESS_TRUST:
				return NULL;
			case EVP_ACCESS_TOKEN:
				return check_token(book, peer, now, token);
			case EVP_ACCESS_CERT:
				return check_cert(peer);
			case EVP_ACCESS_REJECT:
				return "an access rule rejects it";
		}
	}
	return "no access rule lets it in";
}
