/*
 * pg_target.c
 *    Where the database is: the connection string taken apart, its hosts looked
 *    up without blocking, and an attempt to connect to one of them begun.
 *
 *    libpq looks names up in the calling thread, and in an asynchronous connect
 *    it neither limits the time of an attempt nor goes on to the next host when
 *    one does not answer.  So each address is an attempt of its own.
 */
#include "pg_target.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PARAMS	64

/* What an attempt at one address may take without connect_timeout in the string. */
#define CONNECT_MS	3000

/* For so long what a host was is good enough where its lookup takes its time. */
#define REMEMBERED_MS	5000

typedef struct host
{
	char	   *host;				/* NULL: libpq's default */
	char	   *hostaddr;
	char	   *port;
} host_t;

struct evp_pg_params
{
	char	   *keywords[MAX_PARAMS];	/* all but host, hostaddr, port */
	char	   *values[MAX_PARAMS];
	size_t		count;
	host_t		hosts[EVP_PG_MAX_HOSTS];
	size_t		host_count;
	uint64_t	connect_ms;
	bool		standby;
};

static char *
copy_text(const char *s)
{
	return s == NULL || *s == '\0' ? NULL : strdup(s);
}

/* The n-th part of a list with commas, as a copy; NULL where it is empty or there are fewer. */
static char *
list_part(const char *list, size_t n)
{
	size_t		len;

	if (list == NULL)
		return NULL;
	while (n > 0)
	{
		list = strchr(list, ',');
		if (list == NULL)
			return NULL;
		list++;
		n--;
	}
	len = strcspn(list, ",");
	return len == 0 ? NULL : strndup(list, len);
}

static size_t
list_length(const char *list)
{
	size_t		n = 1;

	if (list == NULL || *list == '\0')
		return 0;
	for (; *list != '\0'; list++)
		n += *list == ',';
	return n;
}

static bool
add_param(evp_pg_params_t *params, const char *keyword, const char *value)
{
	if (params->count >= MAX_PARAMS)
		return false;
	params->keywords[params->count] = strdup(keyword);
	params->values[params->count] = strdup(value);
	if (params->keywords[params->count] == NULL || params->values[params->count] == NULL)
	{
		free(params->keywords[params->count]);
		free(params->values[params->count]);
		return false;
	}
	params->count++;
	return true;
}

static bool
has_param(const evp_pg_params_t *params, const char *keyword)
{
	for (size_t i = 0; i < params->count; i++)
		if (strcmp(params->keywords[i], keyword) == 0)
			return true;
	return false;
}

/* Splits the lists of hosts, addresses and ports.  One port, or one for each host, as libpq has it. */
static bool
split_hosts(evp_pg_params_t *params, const char *host, const char *hostaddr, const char *port, char *error, size_t size)
{
	size_t		n = list_length(hostaddr) > list_length(host) ? list_length(hostaddr) : list_length(host);
	size_t		ports = list_length(port);

	if (n == 0)
		n = 1;
	if (n > EVP_PG_MAX_HOSTS || (ports > 1 && ports != n) ||
		(list_length(host) > 0 && list_length(hostaddr) > 0 && list_length(host) != list_length(hostaddr)))
	{
		snprintf(error, size, "the connection string names %zu hosts and %zu ports; at most %d hosts, and one port or as many", n,
				 ports, EVP_PG_MAX_HOSTS);
		return false;
	}
	for (size_t i = 0; i < n; i++)
	{
		params->hosts[i].host = list_part(host, i);
		params->hosts[i].hostaddr = list_part(hostaddr, i);
		params->hosts[i].port = list_part(port, ports > 1 ? i : 0);
	}
	params->host_count = n;
	return true;
}

/* What the proxy sets where the connection string does not. */
static bool
add_defaults(evp_pg_params_t *params, const char *application_name)
{
	static const char *const defaults[][2] = {
		{"keepalives", "1"},
		{"keepalives_idle", "2"},
		{"keepalives_interval", "1"},
		{"keepalives_count", "3"},
		{"tcp_user_timeout", "5000"},
		{"gssencmode", "disable"},
	};

	if (!has_param(params, "target_session_attrs") &&
		!add_param(params, "target_session_attrs", params->standby ? "standby" : "read-write"))
		return false;
	for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
		if (!has_param(params, defaults[i][0]) && !add_param(params, defaults[i][0], defaults[i][1]))
			return false;
	return add_param(params, "application_name", application_name) && add_param(params, "client_encoding", "UTF8");
}

evp_pg_params_t *
evp_pg_params_new(const char *conninfo, const char *application_name, bool standby, char *error, size_t size)
{
	evp_pg_params_t *params;
	PQconninfoOption *options;
	const char *host = NULL,
			   *hostaddr = NULL,
			   *port = NULL;
	char	   *parse_error = NULL;
	bool		ok = true;

	snprintf(error, size, "out of memory");
	options = PQconninfoParse(conninfo, &parse_error);
	if (options == NULL)
	{
		if (parse_error != NULL)
		{
			snprintf(error, size, "%s", parse_error);
			error[strcspn(error, "\n")] = '\0';
			PQfreemem(parse_error);
		}
		return NULL;
	}
	params = calloc(1, sizeof(*params));
	if (params == NULL)
	{
		PQconninfoFree(options);
		return NULL;
	}
	params->connect_ms = CONNECT_MS;
	params->standby = standby;
	for (PQconninfoOption *o = options; ok && o->keyword != NULL; o++)
	{
		const char *value = o->val;
		bool		place = strcmp(o->keyword, "host") == 0 || strcmp(o->keyword, "hostaddr") == 0 || strcmp(o->keyword, "port") == 0;

		/* These three are needed before libpq reads its environment. */
		if (value == NULL && place && o->envvar != NULL)
			value = getenv(o->envvar);
		if (value == NULL || *value == '\0')
			continue;
		if (strcmp(o->keyword, "host") == 0)
			host = value;
		else if (strcmp(o->keyword, "hostaddr") == 0)
			hostaddr = value;
		else if (strcmp(o->keyword, "port") == 0)
			port = value;
		else if (strcmp(o->keyword, "connect_timeout") == 0 && atoi(value) > 0)
			params->connect_ms = (uint64_t) atoi(value) * 1000;
		else if (standby && strcmp(o->keyword, "target_session_attrs") == 0)
			continue;
		else if (strcmp(o->keyword, "application_name") != 0 && strcmp(o->keyword, "client_encoding") != 0)
			ok = add_param(params, o->keyword, value);
	}
	ok = ok && split_hosts(params, host, hostaddr, port, error, size) && add_defaults(params, application_name);
	PQconninfoFree(options);
	if (!ok)
	{
		evp_pg_params_free(params);
		return NULL;
	}
	return params;
}

void
evp_pg_params_free(evp_pg_params_t *params)
{
	if (params == NULL)
		return;
	for (size_t i = 0; i < params->count; i++)
	{
		free(params->keywords[i]);
		free(params->values[i]);
	}
	for (size_t i = 0; i < params->host_count; i++)
	{
		free(params->hosts[i].host);
		free(params->hosts[i].hostaddr);
		free(params->hosts[i].port);
	}
	free(params);
}

bool
evp_pg_params_standby(const evp_pg_params_t *params)
{
	return params->standby;
}

uint64_t
evp_pg_params_connect_ms(const evp_pg_params_t *params)
{
	return params->connect_ms;
}

PGconn *
evp_pg_params_start(const evp_pg_params_t *params, const evp_pg_target_t *target)
{
	const char *keywords[MAX_PARAMS + 4];
	const char *values[MAX_PARAMS + 4];
	size_t		n = 0;

	for (; n < params->count; n++)
	{
		keywords[n] = params->keywords[n];
		values[n] = params->values[n];
	}
	/* A NULL value is as if the keyword were not given. */
	keywords[n] = "host";
	values[n++] = target->host;
	keywords[n] = "hostaddr";
	values[n++] = target->hostaddr;
	keywords[n] = "port";
	values[n++] = target->port;
	keywords[n] = NULL;
	values[n] = NULL;
	return PQconnectStartParams(keywords, values, 0);
}

static void
free_targets(evp_pg_lookup_t *lookup)
{
	for (size_t i = 0; i < lookup->count; i++)
	{
		free(lookup->targets[i].host);
		free(lookup->targets[i].hostaddr);
		free(lookup->targets[i].port);
	}
	lookup->count = 0;
}

static void
add_target(evp_pg_lookup_t *lookup, const host_t *host, const char *hostaddr)
{
	evp_pg_target_t *target;

	if (lookup->count >= EVP_PG_MAX_TARGETS)
		return;
	target = &lookup->targets[lookup->count++];
	target->host = copy_text(host->host);
	target->hostaddr = copy_text(hostaddr);
	target->port = copy_text(host->port);
}

/* True where libpq has nothing to look up: an address, a directory, an abstract socket, or nothing at all. */
static bool
is_found(const host_t *host)
{
	struct in6_addr address;

	return host->hostaddr != NULL || host->host == NULL || host->host[0] == '/' || host->host[0] == '@' ||
		inet_pton(AF_INET, host->host, &address) == 1 || inet_pton(AF_INET6, host->host, &address) == 1;
}

/* Takes what is known of a host that was asked for. */
static void
add_answer(evp_pg_lookup_t *lookup, const host_t *host, const evp_name_t *name)
{
	if (name->running && !evp_name_is_fresh(name, REMEMBERED_MS))
		return;
	if (name->status != 0)
		snprintf(lookup->error, sizeof(lookup->error), "host \"%s\" was not found: %s", host->host, uv_strerror(name->status));
	else
		for (size_t i = 0; i < name->count; i++)
			add_target(lookup, host, name->addresses[i]);
}

/* Calls back where that is to be; true if so. */
static bool
finish(evp_pg_lookup_t *lookup)
{
	const evp_pg_params_t *params = lookup->params;
	bool		open = false;

	for (size_t i = 0; i < params->host_count; i++)
		open = open || (lookup->asked[i] != NULL && lookup->asked[i]->running);
	if (open && !lookup->hurried)
		return false;
	free_targets(lookup);
	snprintf(lookup->error, sizeof(lookup->error), "no address to connect to");
	for (size_t i = 0; i < params->host_count; i++)
	{
		const host_t *host = &params->hosts[i];

		if (is_found(host))
			add_target(lookup, host, host->hostaddr);
		else if (lookup->asked[i] != NULL)
			add_answer(lookup, host, lookup->asked[i]);
	}
	if (open && lookup->count == 0)
		return false;
	evp_names_leave(lookup->names, &lookup->waiter);
	lookup->cb(lookup->arg);
	return true;
}

static void
on_answer(evp_names_waiter_t *waiter)
{
	/* The waiter is its first member. */
	(void) finish((evp_pg_lookup_t *) waiter);
}

void
evp_pg_lookup_init(evp_pg_lookup_t *lookup, evp_names_t *names, const evp_pg_params_t *params, evp_pg_lookup_cb cb, void *arg)
{
	memset(lookup, 0, sizeof(*lookup));
	lookup->waiter.on_answer = on_answer;
	lookup->names = names;
	lookup->params = params;
	lookup->cb = cb;
	lookup->arg = arg;
}

void
evp_pg_lookup_start(evp_pg_lookup_t *lookup)
{
	const evp_pg_params_t *params = lookup->params;

	lookup->hurried = false;
	for (size_t i = 0; i < params->host_count; i++)
		lookup->asked[i] = is_found(&params->hosts[i]) ? NULL : evp_names_ask(lookup->names, params->hosts[i].host);
	if (!finish(lookup))
		evp_names_wait(lookup->names, &lookup->waiter);
}

void
evp_pg_lookup_hurry(evp_pg_lookup_t *lookup)
{
	if (!lookup->waiter.waits)
		return;
	lookup->hurried = true;
	(void) finish(lookup);
}

void
evp_pg_lookup_stop(evp_pg_lookup_t *lookup)
{
	evp_names_leave(lookup->names, &lookup->waiter);
	free_targets(lookup);
}
