/*
 * access_test.c
 *    Rules top down, tokens by their hash, patterns; and what makes no sense is
 *    refused.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "access.h"

static evp_access_address_t
address_of(const char *text)
{
	struct sockaddr_storage s;
	struct sockaddr_in *v4 = (struct sockaddr_in *) &s;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *) &s;
	evp_access_address_t a;

	memset(&s, 0, sizeof s);
	if (strchr(text, ':') != NULL)
	{
		v6->sin6_family = AF_INET6;
		assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
	}
	else
	{
		v4->sin_family = AF_INET;
		assert_int_equal(inet_pton(AF_INET, text, &v4->sin_addr), 1);
	}
	evp_access_address(&a, (struct sockaddr *) &s);
	return a;
}

/* Why a bundle at an address is not let in, "" where it is. */
static const char *
why(const evp_access_book_t *book, const char *address, const char *bundle)
{
	evp_access_peer_t peer = {.address = address_of(address),.bundle = evp_slice_str(bundle)};
	const evp_access_token_t *token;
	const char *reason = evp_access_check(book, &peer, 0, &token);

	assert_null(token);
	return reason == NULL ? "" : reason;
}

static void
test_rules(void **state)
{
	evp_access_book_t *book = evp_access_book_new();

	(void) state;
	assert_string_equal(why(book, "192.0.2.1", "orders"), "");
	assert_true(evp_access_add_rule(book, "10.1.0.0/16", "orders", "reject"));
	assert_true(evp_access_add_rule(book, "10.0.0.0/8", "orders*", "trust"));
	assert_true(evp_access_add_rule(book, "10.0.0.0/8", "*", "cert"));
	assert_true(evp_access_add_rule(book, "2001:db8::/33", "*", "trust"));
	assert_true(evp_access_add_rule(book, "192.0.2.77", "*", "trust"));
	assert_true(evp_access_add_rule(book, NULL, "everywhere", "trust"));
	assert_true(evp_access_add_rule(book, "10.0.0.0/8", "*", "trust"));
	evp_access_seal(book);
	/* The first that fits decides, though a later one would let it in. */
	assert_string_equal(why(book, "10.1.2.3", "orders"), "an access rule rejects it");
	assert_string_equal(why(book, "10.1.2.3", "orders-2"), "");
	assert_string_equal(why(book, "10.2.2.3", "orders"), "");
	assert_string_equal(why(book, "10.2.2.3", "billing"), "a client certificate is needed");
	assert_string_equal(why(book, "11.2.2.3", "orders"), "no access rule lets it in");
	assert_string_equal(why(book, "11.2.2.3", "everywhere"), "");
	assert_string_equal(why(book, "2001:db8:7fff::1", "x"), "");
	assert_string_equal(why(book, "2001:db8:8000::1", "x"), "no access rule lets it in");
	assert_string_equal(why(book, "192.0.2.77", "x"), "");
	assert_string_equal(why(book, "192.0.2.76", "x"), "no access rule lets it in");
	/* IPv4 in IPv6 is IPv4. */
	assert_string_equal(why(book, "::ffff:10.1.2.3", "orders"), "an access rule rejects it");
	evp_access_book_free(book);
}

/* Peers that come by IPv4 in IPv6 are IPv4, so ranges of such are as well. */
static void
test_mapped_ranges(void **state)
{
	evp_access_book_t *book = evp_access_book_new();

	(void) state;
	assert_true(evp_access_add_rule(book, "::ffff:10.1.2.3/128", "*", "reject"));
	assert_true(evp_access_add_rule(book, "::ffff:10.2.0.0/112", "*", "reject"));
	assert_true(evp_access_add_rule(book, "::ffff:0.0.0.0/96", "*", "cert"));
	assert_true(evp_access_add_rule(book, "::/0", "*", "trust"));
	assert_false(evp_access_add_rule(book, "::ffff:10.0.0.0/129", "*", "trust"));
	assert_string_equal(why(book, "10.1.2.3", "x"), "an access rule rejects it");
	assert_string_equal(why(book, "::ffff:10.1.2.3", "x"), "an access rule rejects it");
	assert_string_equal(why(book, "10.2.3.4", "x"), "an access rule rejects it");
	assert_string_equal(why(book, "10.1.2.4", "x"), "a client certificate is needed");
	assert_string_equal(why(book, "1::2", "x"), "");
	evp_access_book_free(book);
}

static void
test_no_address(void **state)
{
	evp_access_book_t *book = evp_access_book_new();
	evp_access_peer_t peer = {.bundle = evp_slice_str("orders")};
	const evp_access_token_t *token;

	(void) state;
	assert_true(evp_access_add_rule(book, "0.0.0.0/0", "*", "trust"));
	assert_true(evp_access_add_rule(book, "::/0", "*", "trust"));
	assert_non_null(evp_access_check(book, &peer, 0, &token));
	assert_string_equal(why(book, "1.2.3.4", "x"), "");
	assert_string_equal(why(book, "1::2", "x"), "");
	evp_access_book_free(book);
}

static void
test_cert(void **state)
{
	evp_access_book_t *book = evp_access_book_new();
	const char *const names[] = {"billing", "orders", NULL};
	const char *const none[] = {NULL};
	const char *const star[] = {"*", NULL};
	evp_access_peer_t peer = {.address = address_of("10.0.0.1"),.bundle = evp_slice_str("orders"),.cert_names = names};
	const evp_access_token_t *token;

	(void) state;
	assert_true(evp_access_add_rule(book, NULL, "*", "cert"));
	assert_null(evp_access_check(book, &peer, 0, &token));
	peer.bundle = evp_slice_str("order");
	assert_string_equal(evp_access_check(book, &peer, 0, &token), "the client certificate is for another name");
	peer.bundle = evp_slice_str("Orders");
	assert_non_null(evp_access_check(book, &peer, 0, &token));
	peer.bundle = evp_slice_str("orders");
	peer.cert_names = none;
	assert_non_null(evp_access_check(book, &peer, 0, &token));
	/* A name is a name, no pattern. */
	peer.cert_names = star;
	assert_non_null(evp_access_check(book, &peer, 0, &token));
	evp_access_book_free(book);
}

static void
test_tokens(void **state)
{
	evp_access_book_t *book = evp_access_book_new();
	char	   *patterns[] = {"Order*", "Ping"};
	const char *why_not = "the token is not known, has expired or is another bundle's";
	evp_access_token_t token = {.bundle = "orders",.expires = UINT64_MAX,.may_send = {patterns, 2},.http = EVP_ACCESS_HTTP_WRITE};
	evp_access_peer_t peer = {.address = address_of("10.0.0.1"),.bundle = evp_slice_str("orders")};
	const evp_access_token_t *found;
	uint8_t		hash[EVP_ACCESS_HASH];
	char		text[16];

	(void) state;
	assert_true(evp_access_add_rule(book, NULL, "*", "token"));
	for (int i = 0; i < 1000; i++)
	{
		snprintf(text, sizeof text, "token-%d", i);
		assert_true(evp_access_hash(evp_slice_str(text), token.hash));
		token.expires = i == 500 ? 1000 : UINT64_MAX;
		assert_true(evp_access_add_token(book, &token));
	}
	/* Two whose hashes begin alike. */
	assert_true(evp_access_hash(evp_slice_str("token-7"), token.hash));
	token.hash[31] ^= 1;
	token.bundle = "twin";
	token.expires = UINT64_MAX;
	assert_true(evp_access_add_token(book, &token));
	evp_access_seal(book);
	assert_string_equal(evp_access_check(book, &peer, 0, &found), "a token is needed");
	peer.token_hash = hash;
	for (int i = 0; i < 1000; i++)
	{
		snprintf(text, sizeof text, "token-%d", i);
		assert_true(evp_access_hash(evp_slice_str(text), hash));
		assert_null(evp_access_check(book, &peer, 999, &found));
		assert_string_equal(found->bundle, "orders");
		assert_int_equal(found->http, EVP_ACCESS_HTTP_WRITE);
	}
	assert_true(evp_access_hash(evp_slice_str("token-500"), hash));
	assert_string_equal(evp_access_check(book, &peer, 1000, &found), why_not);
	assert_null(found);
	assert_int_equal(evp_access_next_expiry(book, 0), 1000);
	assert_true(evp_access_next_expiry(book, 1000) == UINT64_MAX);
	assert_true(evp_access_hash(evp_slice_str("token-1000"), hash));
	assert_string_equal(evp_access_check(book, &peer, 0, &found), why_not);
	memcpy(hash, token.hash, sizeof hash);
	assert_string_equal(evp_access_check(book, &peer, 0, &found), why_not);
	peer.bundle = evp_slice_str("twin");
	assert_null(evp_access_check(book, &peer, 0, &found));
	assert_true(evp_access_allows(&found->may_send, evp_slice_str("OrderPlace")));
	assert_false(evp_access_allows(&found->may_send, evp_slice_str("Pin")));
	assert_true(evp_access_allows(&found->may_register, evp_slice_str("Anything")));
	evp_access_book_free(book);
}

static void
test_token_text(void **state)
{
	char		text[EVP_ACCESS_MAX_TOKEN + 2];
	uint8_t		hash[EVP_ACCESS_HASH];

	(void) state;
	memset(text, 'x', sizeof text);
	assert_true(evp_access_hash(evp_slice_of(text, EVP_ACCESS_MAX_TOKEN), hash));
	assert_false(evp_access_hash(evp_slice_of(text, EVP_ACCESS_MAX_TOKEN + 1), hash));
	assert_false(evp_access_hash(evp_slice_of(text, 0), hash));
	assert_false(evp_access_hash(evp_slice_of(NULL, 0), hash));
}

static void
test_patterns(void **state)
{
	static const struct
	{
		const char *pattern;
		const char *name;
		bool		fits;
	}			cases[] = {
		{"a", "a", true}, {"a", "b", false}, {"a", "ab", false}, {"ab", "a", false}, {"", "", true}, {"", "a", false},
		{"*", "", true}, {"*", "anything", true}, {"a*", "a", true}, {"a*", "abc", true}, {"a*", "ba", false},
		{"*c", "abc", true}, {"*c", "abcd", false}, {"a*c", "ac", true}, {"a*c", "abcbc", true}, {"a*b*c", "a-c-b", false},
		{"a*b*c", "abbbc", true}, {"**", "x", true}, {"*aab", "aaaab", true}, {"orders-?", "orders-1", false}, {"x*", "", false}
	};
	char		many[600];

	(void) state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(evp_access_fits(cases[i].pattern, evp_slice_str(cases[i].name)), cases[i].fits);
	/* Many stars take no more than a product of the lengths. */
	for (size_t i = 0; i + 2 < sizeof many; i += 2)
		memcpy(many + i, "*a", 3);
	assert_false(evp_access_fits(many, evp_slice_str("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")));
}

static void
test_nonsense(void **state)
{
	evp_access_book_t *book = evp_access_book_new();
	evp_access_token_t token = {.bundle = "b"};
	char	   *long_name = calloc(1, 514);

	(void) state;
	memset(long_name, 'x', 513);
	assert_false(evp_access_add_rule(book, "10.0.0.0/33", "*", "trust"));
	assert_false(evp_access_add_rule(book, "10.0.0.0/", "*", "trust"));
	assert_false(evp_access_add_rule(book, "10.0.0.0/8x", "*", "trust"));
	assert_false(evp_access_add_rule(book, "10.0.0.0/-1", "*", "trust"));
	assert_false(evp_access_add_rule(book, "::1/129", "*", "trust"));
	assert_false(evp_access_add_rule(book, "localhost", "*", "trust"));
	assert_false(evp_access_add_rule(book, "1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111", "*", "trust"));
	assert_false(evp_access_add_rule(book, NULL, "*", "password"));
	assert_false(evp_access_add_rule(book, NULL, long_name, "trust"));
	assert_int_equal(evp_access_rule_count(book), 0);
	for (int i = 0; i < EVP_ACCESS_MAX_RULES; i++)
		assert_true(evp_access_add_rule(book, NULL, "*", "trust"));
	assert_false(evp_access_add_rule(book, NULL, "*", "trust"));
	for (int i = 0; i < EVP_ACCESS_MAX_TOKENS; i++)
		assert_true(evp_access_add_token(book, &token));
	assert_false(evp_access_add_token(book, &token));
	free(long_name);
	evp_access_book_free(book);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_mapped_ranges),
		cmocka_unit_test(test_no_address),
		cmocka_unit_test(test_cert),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_token_text),
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
