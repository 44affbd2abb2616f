/*
 * catalogue.c
 *    See catalogue.h.
 */
#include "catalogue.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db.h"
#include "log.h"
#include "pg_array.h"

#define MAX_WAITING		256			/* descriptions */
#define MAX_BYTES		((size_t) 64 * 1024 * 1024)
#define RETRY_MS		1000

typedef struct evp_description
{
	struct evp_description *next;
	char	   *bundle;
	int64_t		version;
	size_t		len;
	char		json[];
} evp_description_t;

struct evp_catalogue
{
	evp_proxy_t *proxy;
	uv_timer_t	timer;
	evp_description_t *first;	/* the one that is under way, where flying */
	size_t		count;
	size_t		bytes;
	bool		flying;
	bool		stopped;
};

static void
drop_first(evp_catalogue_t *c)
{
	evp_description_t *d = c->first;

	c->first = d->next;
	c->count--;
	c->bytes -= d->len;
	free(d->bundle);
	free(d);
}

static void send_first(evp_catalogue_t *c);

static void
on_timer(uv_timer_t *timer)
{
	send_first(timer->data);
}

static void
on_stored(void *arg, const evp_db_result_t *result)
{
	evp_catalogue_t *c = arg;

	c->flying = false;
	if (c->stopped)
		return;
	if (result->status == EVP_DB_OK)
	{
		drop_first(c);
		send_first(c);
	}
	else if (result->status == EVP_DB_ERROR && !evp_db_is_passing(result->sqlstate))
	{
		/* What the database cannot take will be no better next time, and must not hold up the others. */
		evp_log(EVP_LOG_WARNING, "registry", c->first->bundle, "its description is not stored: %s", result->message);
		drop_first(c);
		send_first(c);
	}
	else
		uv_timer_start(&c->timer, on_timer, RETRY_MS, 0);
}

static void
send_first(evp_catalogue_t *c)
{
	static const Oid types[3] = {EVP_OID_TEXT, EVP_OID_INT8, EVP_OID_JSONB};
	char		version[24];
	const char *values[3];
	int			lengths[3];
	static const int formats[3] = {0, 0, 0};
	evp_db_statement_t statement = {.sql = "SELECT evento._discover($1, $2, $3)",.nparams = 3,.types = types,
	.values = values,.lengths = lengths,.formats = formats};

	if (c->flying || c->stopped || c->first == NULL || !evp_db_is_up(c->proxy->db))
		return;
	snprintf(version, sizeof version, "%" PRId64, c->first->version);
	values[0] = c->first->bundle;
	values[1] = version;
	values[2] = c->first->json;
	lengths[0] = (int) strlen(c->first->bundle);
	lengths[1] = (int) strlen(version);
	lengths[2] = (int) c->first->len;
	c->flying = true;
	evp_db_run(c->proxy->db, EVP_DB_CONTROL, &statement, on_stored, c);
}

evp_catalogue_t *
evp_catalogue_new(evp_proxy_t *proxy)
{
	evp_catalogue_t *c = calloc(1, sizeof *c);

	if (c == NULL)
		return NULL;
	c->proxy = proxy;
	uv_timer_init(proxy->loop, &c->timer);
	c->timer.data = c;
	return c;
}

void
evp_catalogue_stop(evp_catalogue_t *c)
{
	if (c->stopped)
		return;
	c->stopped = true;
	uv_close((uv_handle_t *) &c->timer, NULL);
}

void
evp_catalogue_free(evp_catalogue_t *c)
{
	if (c == NULL)
		return;
	while (c->first != NULL)
		drop_first(c);
	free(c);
}

/* Takes out one of the same bundle and version that waits behind the one under way. */
static void
replace_waiting(evp_catalogue_t *c, const char *bundle, int64_t version)
{
	evp_description_t **link = c->first != NULL && c->flying ? &c->first->next : &c->first;

	for (; *link != NULL; link = &(*link)->next)
	{
		evp_description_t *d = *link;

		if (d->version != version || strcmp(d->bundle, bundle) != 0)
			continue;
		*link = d->next;
		c->count--;
		c->bytes -= d->len;
		free(d->bundle);
		free(d);
		return;
	}
}

void
evp_catalogue_add(evp_catalogue_t *c, const char *bundle, int64_t version, const char *json, size_t len)
{
	evp_description_t *d;
	evp_description_t **link = &c->first;

	if (c->stopped)
		return;
	replace_waiting(c, bundle, version);
	if (c->count >= MAX_WAITING || len > MAX_BYTES - c->bytes)
	{
		evp_log(EVP_LOG_WARNING, "registry", bundle, "its description is not stored: too many wait for the database");
		return;
	}
	d = malloc(sizeof *d + len + 1);
	if (d == NULL || (d->bundle = strdup(bundle)) == NULL)
	{
		free(d);
		evp_log(EVP_LOG_ERROR, "registry", bundle, "its description is not stored: out of memory");
		return;
	}
	d->next = NULL;
	d->version = version;
	d->len = len;
	memcpy(d->json, json, len);
	d->json[len] = '\0';
	while (*link != NULL)
		link = &(*link)->next;
	*link = d;
	c->count++;
	c->bytes += len;
	send_first(c);
}

void
evp_catalogue_up(evp_catalogue_t *c)
{
	send_first(c);
}
