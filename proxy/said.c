/*
 * said.c
 *    What was last said of each of some places.  Digests of both are kept; two
 *    texts with the same one are not met in the life of a proxy.
 */
#include "said.h"

/* FNV-1a. */
static uint64_t
digest(const char *text)
{
	uint64_t	hash = UINT64_C(0xcbf29ce484222325);

	for (; *text != '\0'; text++)
		hash = (hash ^ (uint8_t) *text) * UINT64_C(0x100000001b3);
	return hash;
}

bool
evp_said_news(evp_said_t *said, const char *place, const char *text)
{
	const uint64_t place_digest = digest(place);
	const uint64_t text_digest = digest(text);
	const size_t kept = said->count < EVP_SAID_PLACES ? said->count : EVP_SAID_PLACES;
	size_t		i = 0;

	while (i < kept && said->items[i].place != place_digest)
		i++;
	if (i < kept && said->items[i].text == text_digest)
		return false;
	if (i == kept)
		i = said->count++ % EVP_SAID_PLACES;
	said->items[i].place = place_digest;
	said->items[i].text = text_digest;
	return true;
}

void
evp_said_forget(evp_said_t *said)
{
	said->count = 0;
}
