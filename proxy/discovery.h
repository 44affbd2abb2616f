/*
 * discovery.h
 *    What bundles say of themselves: registration and discovery payloads.
 */
#ifndef EVP_DISCOVERY_H
#define EVP_DISCOVERY_H

#include "buf.h"

#define EVP_MAX_NAMES		1000000	/* payload names of one bundle, whatever max-names says */
#define EVP_MAX_NAME_LEN	512

/* A registration: names are as the bundle gave them, in its order. */
typedef struct evp_registration
{
	int64_t		bundle_version;
	evp_slice_t *names;			/* lie in the payload or the arena */
	size_t		n_names;
	evp_slice_t payload;		/* with a reference */
	evp_arena_t arena;
} evp_registration_t;

/* Parses the payload of evento:bundle-registration, taking a reference to its
 * owner (a copy where it has none).  Gives 0; or -1 with *reason a static text,
 * and then there is nothing to free. */
int			evp_registration_parse(evp_registration_t *r, evp_slice_t payload, const char **reason);
void		evp_registration_free(evp_registration_t *r);

/*
 * The payload of evento:bundle-discovery as JSON text with the same field
 * names, fit for jsonb: keys that are integers become text, U+0000 becomes
 * U+FFFD, what JSON has no form for becomes null.  Appends to json and gives the
 * bundleVersion (0 where it has none).  Gives 0, or -1 with *reason.
 */
int			evp_discovery_to_json(evp_buf_t *json, evp_slice_t payload, int64_t *bundle_version, const char **reason);

#endif							/* EVP_DISCOVERY_H */
