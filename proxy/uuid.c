/*
 * uuid.c
 *    UUIDs: random ones, derived ones, and their text form.
 */
#include "uuid.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>

/* The namespace of ids that are derived from requests; never to be changed,
 * since ids in the log come from it. */
static const uint8_t event_space[16] = {
	0x7b, 0x1f, 0x6a, 0x52, 0x0c, 0x9e, 0x4d, 0x37, 0x9a, 0x64, 0x2e, 0xd8, 0x31, 0x05, 0xcb, 0x40
};

static void
set_version(uint8_t id[16], uint8_t version)
{
	id[6] = (uint8_t) ((id[6] & 0x0f) | (version << 4));
	id[8] = (uint8_t) ((id[8] & 0x3f) | 0x80);
}

/* Random bytes are drawn for many at a time: one call to the generator costs more than what else an id takes. */
static uint8_t pool[64][16];
static size_t pooled;

/* A child process must not give the ids that its parent gives. */
static void
on_fork(void)
{
	pooled = 0;
}

void
evp_uuid_v4(uint8_t out[16])
{
	static bool watched;

	if (!watched && pthread_atfork(NULL, NULL, on_fork) != 0)
		abort();
	watched = true;
	if (pooled == 0)
	{
		if (RAND_bytes(pool[0], sizeof(pool)) != 1)
			abort();
		pooled = sizeof(pool) / sizeof(pool[0]);
	}
	pooled--;
	memcpy(out, pool[pooled], 16);
	set_version(out, 4);
}

/* The version 5 UUID of several pieces one after another. */
static void
derive(const evp_slice_t *pieces, size_t n, uint8_t out[16])
{
	static EVP_MD_CTX *context;
	static EVP_MD *sha1;
	uint8_t		digest[EVP_MAX_MD_SIZE];
	bool		ok;

	/* Both are kept: EVP_sha1() would be looked up by its name for each id. */
	if (context == NULL)
		context = EVP_MD_CTX_new();
	if (sha1 == NULL)
		sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
	ok = context != NULL && sha1 != NULL && EVP_DigestInit_ex(context, sha1, NULL) == 1;
	for (size_t i = 0; ok && i < n; i++)
		ok = EVP_DigestUpdate(context, pieces[i].p, pieces[i].n) == 1;
	/* Only lack of memory or a crippled OpenSSL gets here; no id is better than a wrong one. */
	if (!ok || EVP_DigestFinal_ex(context, digest, NULL) != 1)
		abort();
	memcpy(out, digest, 16);
	set_version(out, 5);
}

void
evp_uuid_v5(const uint8_t space[16], const void *name, size_t n, uint8_t out[16])
{
	evp_slice_t pieces[2] = {evp_slice_of(space, 16), evp_slice_of(name, n)};

	derive(pieces, 2, out);
}

static void
put_u32(uint8_t out[4], uint32_t v)
{
	out[0] = (uint8_t) (v >> 24);
	out[1] = (uint8_t) (v >> 16);
	out[2] = (uint8_t) (v >> 8);
	out[3] = (uint8_t) v;
}

void
evp_uuid_event_id(evp_slice_t bundle, evp_slice_t instance, const uint8_t correlation[16],
				  evp_slice_t stream, uint8_t out[16])
{
	uint8_t		lengths[3][4];
	evp_slice_t pieces[8] = {
		evp_slice_of(event_space, 16),
		evp_slice_of(lengths[0], 4), bundle,
		evp_slice_of(lengths[1], 4), instance,
		evp_slice_of(correlation, 16),
		evp_slice_of(lengths[2], 4), stream
	};

	/* Texts come from frames of at most 256 MiB, so 32 bits hold their lengths; all ones stands for null. */
	put_u32(lengths[0], bundle.p == NULL ? UINT32_MAX : (uint32_t) bundle.n);
	put_u32(lengths[1], instance.p == NULL ? UINT32_MAX : (uint32_t) instance.n);
	put_u32(lengths[2], stream.p == NULL ? UINT32_MAX : (uint32_t) stream.n);
	derive(pieces, 8, out);
}

/* A dash stands before the bytes 4, 6, 8 and 10. */
static bool
dash_before(int i)
{
	return i == 4 || i == 6 || i == 8 || i == 10;
}

void
evp_uuid_format(const uint8_t id[16], char out[EVP_UUID_TEXT_LEN + 1])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++)
	{
		if (dash_before(i))
			*out++ = '-';
		*out++ = digits[id[i] >> 4];
		*out++ = digits[id[i] & 15];
	}
	*out = '\0';
}

static int
hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
evp_uuid_parse(const void *text, size_t n, uint8_t out[16])
{
	const uint8_t *p = text;
	uint8_t		id[16];

	if (n != EVP_UUID_TEXT_LEN)
		return false;
	for (int i = 0; i < 16; i++)
	{
		int			high;
		int			low;

		if (dash_before(i) && *p++ != '-')
			return false;
		high = hex_value(*p++);
		low = hex_value(*p++);
		if (high < 0 || low < 0)
			return false;
		id[i] = (uint8_t) (high << 4 | low);
	}
	memcpy(out, id, 16);
	return true;
}
