/*
 * catalogue.h
 *    Brings what bundles say of themselves (discovery) into the database, one
 *    description after the other, kept while the database is away.  Which are
 *    known already is told there, since other proxies bring theirs.
 */
#ifndef EVP_CATALOGUE_H
#define EVP_CATALOGUE_H

#include <stddef.h>
#include <stdint.h>

#include "proxy.h"

typedef struct evp_catalogue evp_catalogue_t;

/* NULL on lack of memory. */
evp_catalogue_t *evp_catalogue_new(evp_proxy_t *proxy);
void		evp_catalogue_stop(evp_catalogue_t *c);
void		evp_catalogue_free(evp_catalogue_t *c);

/* A bundle's description as JSON, which is copied. It replaces one of the same bundle and version that waits. */
void		evp_catalogue_add(evp_catalogue_t *c, const char *bundle, int64_t version, const char *json, size_t len);

/* The database is reached again: what waits is sent. */
void		evp_catalogue_up(evp_catalogue_t *c);

#endif /* EVP_CATALOGUE_H */
