/*
 * pg_target.h
 *    Where the database is: the connection string taken apart, its hosts looked
 *    up without blocking, and an attempt to connect to one of them begun.
 */
#ifndef EVP_PG_TARGET_H
#define EVP_PG_TARGET_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"

/* More hosts than this no connection string may name, and more addresses are not tried. */
#define EVP_PG_MAX_HOSTS 32
#define EVP_PG_MAX_TARGETS 64

/* A connection string, parsed, with what the proxy adds to it. */
typedef struct evp_pg_params evp_pg_params_t;

/* One address to try.  hostaddr NULL: host is a directory of a socket, or NULL for libpq's own default. */
typedef struct evp_pg_target
{
	char	   *host;
	char	   *hostaddr;
	char	   *port;
} evp_pg_target_t;

/*
 * Parses a connection string.  Adds, where it does not say otherwise: a session
 * that may write (target_session_attrs), keepalives that notice a dead server
 * within 5 s, no GSS.  standby: a session on a standby, whatever it says.  NULL
 * with a line of text in error where it is no connection string.
 */
evp_pg_params_t *evp_pg_params_new(const char *conninfo, const char *application_name, bool standby, char *error, size_t size);
void evp_pg_params_free(evp_pg_params_t *params);
bool evp_pg_params_standby(const evp_pg_params_t *params);

/* Milliseconds that an attempt at one address may take. */
uint64_t evp_pg_params_connect_ms(const evp_pg_params_t *params);

/* Begins to connect to a target, as PQconnectStart does.  NULL on lack of memory. */
PGconn *evp_pg_params_start(const evp_pg_params_t *params, const evp_pg_target_t *target);

/* Looks the hosts of a connection string up.  Embed it. */
typedef struct evp_pg_lookup evp_pg_lookup_t;
typedef void (*evp_pg_lookup_cb)(void *arg);
struct evp_pg_lookup
{
	evp_names_waiter_t waiter;	/* while not all have been answered */
	evp_names_t *names;
	const evp_pg_params_t *params;
	evp_name_t *asked[EVP_PG_MAX_HOSTS];	/* NULL: there is nothing to ask */
	bool		hurried;
	evp_pg_lookup_cb cb;
	void	   *arg;
	evp_pg_target_t targets[EVP_PG_MAX_TARGETS];
	size_t		count;
	char		error[160];			/* of the last host that could not be found */
};

void evp_pg_lookup_init(evp_pg_lookup_t *lookup, evp_names_t *names, const evp_pg_params_t *params, evp_pg_lookup_cb cb, void *arg);

/* Looks all hosts up, at once, and calls back, possibly from within, with targets and count filled, in the order of the
 * hosts (none: see error).  Must not be called while one runs. */
void evp_pg_lookup_start(evp_pg_lookup_t *lookup);

/* Does without the hosts that have not been answered yet, or with what they were a moment ago, as soon as there is any other:
 * calls back from within or later.  Nothing where none runs. */
void evp_pg_lookup_hurry(evp_pg_lookup_t *lookup);

/* Frees the targets; a lookup that runs does not call back. */
void evp_pg_lookup_stop(evp_pg_lookup_t *lookup);

#endif /* EVP_PG_TARGET_H */
