/*
 * names.c
 *    See names.h: names, each with its last answer and the request for the next.
 */
#include "names.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Of these libuv gives half to lookups. */
#define POOL_SIZE	"32"

struct evp_names
{
	uv_loop_t  *loop;
	evp_name_t *list;
	evp_names_waiter_t *waiters;
	bool		stopped;
};

void
evp_names_prepare(void)
{
	setenv("UV_THREADPOOL_SIZE", POOL_SIZE, 0);
}

evp_names_t *
evp_names_new(uv_loop_t *loop)
{
	evp_names_t *names = calloc(1, sizeof(*names));

	if (names != NULL)
		names->loop = loop;
	return names;
}

void
evp_names_stop(evp_names_t *names)
{
	evp_name_t *name;

	names->stopped = true;
	LL_FOREACH(names->list, name)
	{
		/* One that has begun goes on, and the loop waits for it. */
		if (name->running)
			(void) uv_cancel((uv_req_t *) &name->request);
	}
}

void
evp_names_free(evp_names_t *names)
{
	evp_name_t *name,
			   *next;

	if (names == NULL)
		return;
	LL_FOREACH_SAFE(names->list, name, next)
		free(name);
	free(names);
}

static void
on_addresses(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
	evp_name_t *name = request->data;
	evp_names_t *names = name->names;
	evp_names_waiter_t *waiter,
			   *next;

	name->running = false;
	name->status = status;
	name->answered_at = uv_now(names->loop);
	name->count = 0;
	for (struct addrinfo *a = list; status == 0 && a != NULL && name->count < EVP_NAME_MAX_ADDRESSES; a = a->ai_next)
	{
		char	   *text = name->addresses[name->count];

		if (getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(name->addresses[0]), NULL, 0, NI_NUMERICHOST) == 0)
			name->count++;
	}
	uv_freeaddrinfo(list);
	if (names->stopped)
		return;
	DL_FOREACH_SAFE(names->waiters, waiter, next)
		waiter->on_answer(waiter);
}

static evp_name_t *
find(evp_names_t *names, const char *host)
{
	size_t		size = strlen(host) + 1;
	evp_name_t *name;

	LL_FOREACH(names->list, name)
	{
		if (strcmp(name->host, host) == 0)
			return name;
	}
	name = calloc(1, sizeof(*name) + size);
	if (name == NULL)
		return NULL;
	memcpy(name->host, host, size);
	name->names = names;
	name->request.data = name;
	LL_PREPEND(names->list, name);
	return name;
}

evp_name_t *
evp_names_ask(evp_names_t *names, const char *host)
{
	static const struct addrinfo hints = {.ai_family = AF_UNSPEC,.ai_socktype = SOCK_STREAM};
	evp_name_t *name = find(names, host);
	int			status;

	if (name == NULL || name->running)
		return name;
	status = uv_getaddrinfo(names->loop, &name->request, on_addresses, host, NULL, &hints);
	name->running = status == 0;
	if (status != 0)
	{
		name->status = status;
		name->answered_at = uv_now(names->loop);
		name->count = 0;
	}
	return name;
}

bool
evp_name_is_fresh(const evp_name_t *name, uint64_t ms)
{
	return name->count > 0 && uv_now(name->names->loop) - name->answered_at <= ms;
}

void
evp_names_wait(evp_names_t *names, evp_names_waiter_t *waiter)
{
	waiter->waits = true;
	DL_APPEND(names->waiters, waiter);
}

void
evp_names_leave(evp_names_t *names, evp_names_waiter_t *waiter)
{
	if (!waiter->waits)
		return;
	waiter->waits = false;
	DL_DELETE(names->waiters, waiter);
}
