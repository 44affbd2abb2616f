/*
 * router.c
 *    See router.h.
 *
 *    A call of ours waits (in the queue of its name), has been asked, is tied (it
 *    was asked, its instance was cut, and it is to be asked again), or has ended
 *    and is told so at the end of the turn.  A call of another proxy is asked from
 *    beginning to end: that proxy keeps it over cuts.  Asked and tied calls are in
 *    the table by correlationId and in the list of their instance.
 */
#include "router.h"

#include <stdlib.h>
#include <string.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>
#include <utlist.h>

#include "fair.h"
#include "link.h"
#include "link_proto.h"
#include "log.h"
#include "metrics.h"
#include "registry.h"
#include "session.h"
#include "turn.h"
#include "uuid.h"
#include "wheel.h"

/* The asking proxy watches the time of its call; what it left behind here goes some time after that. */
#define FOREIGN_GRACE_MS 2000

/*
 * An aggregate's command that was asked over a link which is lost waits so long
 * for the link, or for its instance at another proxy, before another instance is
 * asked: that its handler runs twice does no harm, only one event is stored.
 */
#define UNLINKED_MS		500
#define UNLINKED_LOOK_MS	100

typedef enum evp_call_state
{
	EVP_CALL_WAITING,
	EVP_CALL_ASKED,
	EVP_CALL_TIED,
	EVP_CALL_ENDED
} evp_call_state_t;

/* Calls that wait for an instance that handles a name. */
typedef struct evp_queue
{
	char	   *name;
	size_t		len;
	evp_fair_t	calls;
	UT_hash_handle hh;
} evp_queue_t;

struct evp_call
{
	evp_wheel_item_t due;		/* first: a due item is a due call */
	evp_router_t *router;
	evp_call_state_t state;
	bool		foreign;		/* another proxy's */
	bool		again;			/* it is being asked for a second time or more */
	uint8_t		id[16];
	uint64_t	deadline;
	uint64_t	looks;			/* pictures of the cluster that had been asked for when it was made */
	UT_hash_handle hh;			/* in router->calls */

	evp_instance_t *target;		/* asked, tied */
	evp_call_t *target_prev;
	evp_call_t *target_next;
	int64_t		proxy_id;		/* where it was sent; 0: here */
	int64_t		session_no;		/* the session that was meant */
	uint64_t	tied_at;
	uint64_t	link;			/* foreign: by which it came */

	/* of ours */
	evp_call_t *prev;			/* in router->tied or router->ended */
	evp_call_t *next;
	evp_queue_t *queue;			/* waiting */
	evp_fair_item_t turn;		/* in that */
	uint64_t	source;
	evp_call_status_t status;	/* ended */
	evp_call_kind_t kind;
	size_t		name_len;
	bool		as_server;
	evp_slice_t payload_type,
				payload,
				source_bundle,
				source_instance,
				source_version;
	evp_parts_t message;		/* the REQ as it was sent, to be sent again */
	evp_call_cb cb;
	void	   *arg;
	char		name[];
};

struct evp_router
{
	evp_proxy_t *proxy;
	evp_turn_t	turn;
	uv_timer_t	timer;			/* runs while the wheel holds something */
	evp_wheel_t wheel;
	evp_call_t *calls;			/* by id */
	size_t		count;			/* of all, in any state */
	evp_queue_t *queues;
	evp_call_t *tied;			/* the longest tied first */
	uint64_t	tied_looked_at;
	evp_call_t *ended;
	size_t		ended_count;
	bool		changed;		/* who is where */
	bool		stopped;
};

static void place_call(evp_call_t *call);

/* ---- what a call is part of ---- */

/* The call whose turn it is; a queue has at least one. */
static evp_call_t *
first_of(const evp_queue_t *queue)
{
	return EVP_FAIR_OF(evp_fair_first(&queue->calls), evp_call_t, turn);
}

static void
unqueue(evp_call_t *call)
{
	evp_router_t *router = call->router;
	evp_queue_t *queue = call->queue;

	evp_fair_remove(&queue->calls, &call->turn);
	call->queue = NULL;
	if (queue->calls.count > 0)
		return;
	HASH_DEL(router->queues, queue);
	free(queue->name);
	free(queue);
}

/* Takes an asked or tied call from its instance and from the table. */
static void
untarget(evp_call_t *call)
{
	evp_router_t *router = call->router;

	if (call->state == EVP_CALL_ASKED)
		call->target->open--;
	else
		DL_DELETE(router->tied, call);
	DL_DELETE2(call->target->calls, call, target_prev, target_next);
	call->target = NULL;
	HASH_DEL(router->calls, call);
	evp_parts_free(&call->message);
}

static void
leave_state(evp_call_t *call)
{
	evp_router_t *router = call->router;

	switch (call->state)
	{
		case EVP_CALL_WAITING:
			if (call->queue != NULL)
				unqueue(call);
			break;
		case EVP_CALL_ASKED:
		case EVP_CALL_TIED:
			untarget(call);
			break;
		case EVP_CALL_ENDED:
			DL_DELETE(router->ended, call);
			router->ended_count--;
			break;
	}
	call->state = EVP_CALL_WAITING;
}

static void
free_call(evp_call_t *call)
{
	evp_router_t *router = call->router;

	leave_state(call);
	evp_wheel_remove(&router->wheel, &call->due);
	router->count--;
	evp_slice_unref(&call->payload_type);
	evp_slice_unref(&call->payload);
	evp_slice_unref(&call->source_bundle);
	evp_slice_unref(&call->source_instance);
	evp_slice_unref(&call->source_version);
	evp_parts_free(&call->message);
	free(call);
}

/* Ends a call of ours now, from a place where its callback may be called. */
static void
finish(evp_call_t *call, evp_call_status_t status, const evp_message_t *message)
{
	evp_call_cb cb = call->cb;
	void	   *arg = call->arg;

	free_call(call);
	cb(arg, status, message);
}

/* Ends a call of ours at the end of the turn. */
static void
end_later(evp_call_t *call, evp_call_status_t status)
{
	evp_router_t *router = call->router;

	leave_state(call);
	evp_wheel_remove(&router->wheel, &call->due);
	call->state = EVP_CALL_ENDED;
	call->status = status;
	DL_APPEND(router->ended, call);
	router->ended_count++;
	evp_turn_wake(&router->turn);
}

/* Puts a call back into the queue of its name, to be placed at the end of the turn. */
static void
wait_for_name(evp_call_t *call)
{
	evp_router_t *router = call->router;
	evp_queue_t *queue;

	leave_state(call);
	HASH_FIND(hh, router->queues, call->name, call->name_len, queue);
	if (queue == NULL)
	{
		queue = calloc(1, sizeof *queue);
		if (queue == NULL || (queue->name = malloc(call->name_len + 1)) == NULL)
		{
			free(queue);
			end_later(call, EVP_CALL_REFUSED);
			return;
		}
		memcpy(queue->name, call->name, call->name_len);
		queue->len = call->name_len;
		HASH_ADD_KEYPTR(hh, router->queues, queue->name, queue->len, queue);
	}
	call->queue = queue;
	evp_fair_put(&queue->calls, call->source, &call->turn);
}

static void
look_again(evp_router_t *router)
{
	router->changed = true;
	evp_turn_wake(&router->turn);
}

static evp_call_t *
find_call(evp_router_t *router, const uint8_t id[16])
{
	evp_call_t *call;

	HASH_FIND(hh, router->calls, id, sizeof call->id, call);
	return call;
}

/* ---- deadlines ---- */

/* The time of a call is up while its instance is at it. */
static void
not_answered(evp_call_t *call)
{
	evp_proxy_t *proxy = call->router->proxy;
	evp_instance_t *target = call->target;

	if (call->proxy_id != 0)
		evp_links_send_cancel(proxy->links, call->proxy_id, call->id);
	EVP_COUNT(calls_unanswered);
	/* A caller that gives little time could fill the log with it. */
	if (evp_members_unanswered(evp_registry_members(proxy->registry), target, evp_now(proxy)))
		evp_log(EVP_LOG_DEBUG, "router", NULL, "%s/%s has not answered in time: others are asked first until it does", target->bundle,
				target->instance);
}

/* Is there an instance that could be asked instead of the one that a call is tied to? */
static bool
has_another(const evp_call_t *call)
{
	evp_instance_t *const *list;
	size_t		n = evp_members_find(evp_registry_members(call->router->proxy->registry), call->name, call->name_len, &list);

	for (size_t i = 0; i < n; i++)
		if (list[i]->state == EVP_INSTANCE_READY)
			return true;
	return false;
}

/* Moves tied calls whose instances are behind a link that is lost. */
static void
leave_unlinked(evp_router_t *router)
{
	evp_members_t *members = evp_registry_members(router->proxy->registry);
	uint64_t	now = evp_now(router->proxy);
	evp_call_t *call,
			   *next;
	bool		moved = false;

	if (now < router->tied_looked_at + UNLINKED_LOOK_MS)
		return;
	router->tied_looked_at = now;
	DL_FOREACH_SAFE(router->tied, call, next)
	{
		const evp_peer_t *peer;

		if (now < call->tied_at + UNLINKED_MS)
			break;
		if (call->kind != EVP_CALL_AGGREGATE || call->proxy_id == 0)
			continue;
		peer = evp_members_peer(members, call->proxy_id);
		if ((peer == NULL || !peer->linked) && has_another(call))
		{
			wait_for_name(call);
			moved = true;
		}
	}
	if (moved)
		look_again(router);
}

static void
on_timer(uv_timer_t *timer)
{
	evp_router_t *router = timer->data;
	evp_wheel_item_t *item;

	leave_unlinked(router);

	while ((item = evp_wheel_turn(&router->wheel, evp_now(router->proxy))) != NULL)
	{
		evp_call_t *call = (evp_call_t *) item;

		if (call->foreign)
		{
			free_call(call);
			continue;
		}
		if (call->state == EVP_CALL_ASKED)
			not_answered(call);
		finish(call, EVP_CALL_TIMEOUT, NULL);
	}
	if (router->wheel.count == 0)
		uv_timer_stop(&router->timer);
}

static void
set_deadline(evp_call_t *call, uint64_t deadline)
{
	evp_router_t *router = call->router;

	call->deadline = deadline;
	if (router->wheel.count == 0)
	{
		/* It stood still while it was empty. */
		evp_wheel_init(&router->wheel, evp_now(router->proxy));
		uv_timer_start(&router->timer, on_timer, EVP_WHEEL_TICK_MS, EVP_WHEEL_TICK_MS);
	}
	evp_wheel_add(&router->wheel, &call->due, deadline);
}

static uint32_t
time_left(const evp_call_t *call)
{
	uint64_t	now = evp_now(call->router->proxy);

	if (call->deadline <= now)
		return 1;
	return call->deadline - now > UINT32_MAX ? UINT32_MAX : (uint32_t) (call->deadline - now);
}

/* ---- asking ---- */

/* Makes the REQ under a fresh id. */
static bool
make_message(evp_call_t *call)
{
	evp_message_t req;

	evp_uuid_v4(call->id);
	memset(&req, 0, sizeof req);
	req.type = EVP_REQ;
	req.has_correlation = true;
	memcpy(req.correlation, call->id, sizeof req.correlation);
	req.timestamp_ms = evp_wall_ms();
	req.source_bundle_id = call->as_server ? evp_slice_str("evento-server") : call->source_bundle;
	req.source_instance_id = call->as_server ? evp_slice_str(call->router->proxy->server_instance) : call->source_instance;
	req.source_bundle_version = call->as_server ? evp_slice_str("0") : call->source_version;
	req.payload_type = call->payload_type;
	req.payload = call->payload;
	req.timeout_ms = time_left(call);
	return evp_message_pack(&call->message, &req);
}

/* Sends the REQ to where its instance is. What cannot be sent comes back as a cut. */
static void
send_message(evp_call_t *call)
{
	evp_router_t *router = call->router;
	evp_instance_t *target = call->target;

	call->proxy_id = target->session != NULL ? 0 : target->proxy_id;
	call->session_no = target->session_no;
	if (target->session != NULL)
	{
		EVP_COUNT(calls_local);
		evp_session_send_parts(target->session, &call->message);
	}
	else if (call->message.len > EVP_LINK_MAX_MESSAGE)
		end_later(call, EVP_CALL_REFUSED);
	else
	{
		EVP_COUNT(calls_remote);
		evp_links_send_call(router->proxy->links, target->proxy_id, call->id, target->session_no, time_left(call),
							target->bundle, target->instance, &call->message);
	}
}

/* Asks an instance that is ready. */
static void
ask(evp_call_t *call, evp_instance_t *target)
{
	evp_router_t *router = call->router;

	leave_state(call);
	if (!make_message(call))
	{
		end_later(call, EVP_CALL_REFUSED);
		return;
	}
	call->again = false;
	call->state = EVP_CALL_ASKED;
	call->target = target;
	target->open++;
	DL_APPEND2(target->calls, call, target_prev, target_next);
	HASH_ADD(hh, router->calls, id, sizeof call->id, call);
	send_message(call);
}

/* Asks the instance of a tied call again. */
static void
ask_again(evp_call_t *call)
{
	evp_router_t *router = call->router;

	DL_DELETE(router->tied, call);
	call->state = EVP_CALL_ASKED;
	call->again = true;
	call->target->open++;
	send_message(call);
}

/* An asked call waits for its instance to return. */
static void
tie(evp_call_t *call)
{
	call->target->open--;
	call->state = EVP_CALL_TIED;
	call->tied_at = evp_now(call->router->proxy);
	DL_APPEND(call->router->tied, call);
}

/* Finds an instance for a call that waits; where there is none now but may be one soon, it (still) waits. */
static void
place_call(evp_call_t *call)
{
	evp_router_t *router = call->router;
	evp_registry_t *registry = router->proxy->registry;
	evp_instance_t *const *list;
	size_t		n = evp_members_find(evp_registry_members(registry), call->name, call->name_len, &list);
	evp_instance_t *target = evp_members_pick(evp_registry_members(registry), list, n, evp_now(router->proxy));

	if (target != NULL)
		ask(call, target);
	else if (n == 0 && evp_registry_has_looked(registry, call->looks))
		end_later(call, EVP_CALL_NO_HANDLER);
	else if (call->queue == NULL)
		wait_for_name(call);
}

/* Looks at everything that waits for an instance. */
static void
place_all(evp_router_t *router)
{
	evp_call_t *call,
			   *next_call;
	evp_queue_t *queue,
			   *next_queue;

	DL_FOREACH_SAFE(router->tied, call, next_call)
	{
		if (call->target->state == EVP_INSTANCE_READY)
			ask_again(call);
	}
	HASH_ITER(hh, router->queues, queue, next_queue)
	{
		/* The queue goes with its last call; one that is not placed stays, and so do those behind it. */
		for (size_t n = queue->calls.count; n > 0; n--)
		{
			uint64_t	source;

			call = first_of(queue);
			source = call->source;
			place_call(call);
			if (call->queue != NULL)
				break;
			if (n > 1)
				evp_fair_pass(&queue->calls, source);
		}
	}
}

static void
on_turn(void *arg)
{
	evp_router_t *router = arg;
	size_t		n;

	if (router->changed)
	{
		router->changed = false;
		place_all(router);
	}
	/* What ends while these are told is the next turn's. */
	for (n = router->ended_count; n > 0 && router->ended != NULL; n--)
		finish(router->ended, router->ended->status, NULL);
	if (router->ended != NULL)
		evp_turn_wake(&router->turn);
}

/* ---- calls of ours ---- */

evp_router_t *
evp_router_new(evp_proxy_t *proxy)
{
	evp_router_t *router = calloc(1, sizeof *router);

	if (router == NULL)
	{
		evp_log(EVP_LOG_ERROR, "router", NULL, "out of memory");
		return NULL;
	}
	router->proxy = proxy;
	evp_wheel_init(&router->wheel, evp_now(proxy));
	evp_turn_init(&router->turn, proxy->loop, on_turn, router);
	uv_timer_init(proxy->loop, &router->timer);
	router->timer.data = router;
	return router;
}

void
evp_router_stop(evp_router_t *router)
{
	evp_call_t *call,
			   *next;
	evp_queue_t *queue;

	if (router->stopped)
		return;
	router->stopped = true;
	evp_turn_stop(&router->turn);
	uv_close((uv_handle_t *) &router->timer, NULL);
	HASH_ITER(hh, router->calls, call, next)
	{
		if (call->foreign)
			free_call(call);
		else
			end_later(call, EVP_CALL_TIMEOUT);
	}
	while ((queue = router->queues) != NULL)
		end_later(first_of(queue), EVP_CALL_TIMEOUT);
	while (router->ended != NULL)
		finish(router->ended, router->ended->status, NULL);
}

void
evp_router_free(evp_router_t *router)
{
	free(router);
}

size_t
evp_router_open(const evp_router_t *router)
{
	return router->count;
}

static evp_slice_t
keep(evp_slice_t s, bool *ok)
{
	evp_slice_t kept = evp_slice_ref(s);

	*ok &= evp_slice_is_null(kept) == evp_slice_is_null(s);
	return kept;
}

evp_call_t *
evp_router_call(evp_router_t *router, const evp_call_spec_t *spec, evp_call_cb cb, void *arg)
{
	evp_call_t *call;
	bool		ok = true;

	if (router->stopped || (call = calloc(1, sizeof *call + spec->name_len)) == NULL)
		return NULL;
	call->router = router;
	call->kind = spec->kind;
	call->source = spec->source;
	call->cb = cb;
	call->arg = arg;
	call->as_server = spec->as_server;
	call->looks = evp_registry_looks(router->proxy->registry);
	memcpy(call->name, spec->name, spec->name_len);
	call->name_len = spec->name_len;
	call->payload_type = keep(spec->payload_type, &ok);
	call->payload = keep(spec->payload, &ok);
	call->source_bundle = keep(spec->source_bundle, &ok);
	call->source_instance = keep(spec->source_instance, &ok);
	call->source_version = keep(spec->source_version, &ok);
	router->count++;
	if (!ok)
	{
		free_call(call);
		return NULL;
	}
	if (router->count > router->proxy->config.max_calls)
	{
		end_later(call, EVP_CALL_REFUSED);
		return call;
	}
	set_deadline(call, spec->deadline);
	place_call(call);
	return call;
}

void
evp_router_cancel(evp_call_t *call)
{
	if (call->state == EVP_CALL_ASKED && call->proxy_id != 0)
		evp_links_send_cancel(call->router->proxy->links, call->proxy_id, call->id);
	free_call(call);
}

/* ---- from session.c ---- */

void
evp_router_response(evp_router_t *router, evp_session_t *session, const evp_message_t *rsp)
{
	evp_call_t *call = find_call(router, rsp->correlation);
	const evp_session_info_t *info = evp_session_info(session);

	/* It may come on another session than the call was sent on, but only from the instance that was asked. */
	if (call == NULL || strcmp(call->target->bundle, info->bundle) != 0 || strcmp(call->target->instance, info->instance) != 0)
	{
		EVP_COUNT(responses_unmatched);
		return;
	}
	if (call->foreign)
	{
		evp_links_send_result(router->proxy->links, call->link, call->id, call->session_no, rsp->blob);
		free_call(call);
	}
	else
	{
		evp_members_answered(call->target);
		finish(call, rsp->has_failure || evp_slice_is_null(rsp->payload) ? EVP_CALL_FAILURE : EVP_CALL_OK, rsp);
	}
}

/* ---- from registry.c ---- */

void
evp_router_instances_changed(evp_router_t *router)
{
	if (router->queues != NULL || router->tied != NULL)
		look_again(router);
}

void
evp_router_instance_cut(evp_router_t *router, evp_instance_t *instance)
{
	evp_call_t *call,
			   *next;

	for (call = instance->calls; call != NULL; call = next)
	{
		next = call->target_next;
		if (call->state != EVP_CALL_ASKED)
			continue;
		if (call->foreign)
		{
			evp_links_send_cut(router->proxy->links, call->link, call->id, call->session_no);
			free_call(call);
		}
		else if (call->kind == EVP_CALL_QUERY)
			wait_for_name(call);
		else
			tie(call);
	}
	look_again(router);
}

void
evp_router_instance_gone(evp_router_t *router, evp_instance_t *instance)
{
	while (instance->calls != NULL)
	{
		evp_call_t *call = instance->calls;

		if (call->foreign)
			free_call(call);
		else if (call->kind == EVP_CALL_SERVICE)
			end_later(call, EVP_CALL_GONE);
		else
			wait_for_name(call);
	}
	look_again(router);
}

/* ---- from link.c: the asking side ---- */

void
evp_router_link_answer(evp_router_t *router, const uint8_t id[16], evp_blob_t *rsp)
{
	evp_call_t *call = find_call(router, id);
	evp_message_t message;
	const char *reason;

	if (call == NULL || call->foreign)
	{
		EVP_COUNT(responses_unmatched);
		return;
	}
	if (evp_message_decode(&message, rsp, &reason) != 0)
	{
		evp_log(EVP_LOG_WARNING, "router", NULL, "unreadable answer from another proxy: %s", reason);
		return;
	}
	if (message.type == EVP_RSP)
	{
		evp_members_answered(call->target);
		finish(call, message.has_failure || evp_slice_is_null(message.payload) ? EVP_CALL_FAILURE : EVP_CALL_OK, &message);
	}
	evp_message_free(&message);
}

/* The call that a cut or a refusal is about; NULL where it has been asked elsewhere since. */
static evp_call_t *
call_sent_to(evp_router_t *router, const uint8_t id[16], int64_t session_no)
{
	evp_call_t *call = find_call(router, id);

	if (call == NULL || call->foreign || call->proxy_id == 0 || call->session_no != session_no)
		return NULL;
	return call;
}

void
evp_router_link_cut(evp_router_t *router, const uint8_t id[16], int64_t session_no)
{
	evp_call_t *call = call_sent_to(router, id, session_no);

	if (call != NULL)
		evp_registry_session_lost(router->proxy->registry, call->target, call->proxy_id, session_no);
}

void
evp_router_link_refused(evp_router_t *router, const uint8_t id[16], int64_t session_no, evp_refusal_t why)
{
	evp_call_t *call = call_sent_to(router, id, session_no);
	evp_instance_t *target;
	int64_t		proxy_id;

	if (call == NULL)
		return;
	target = call->target;
	proxy_id = call->proxy_id;
	/*
	 * Only one that was asked before is bound to this instance, and may have run
	 * there.  Others may be tied to it all the same: where several were on their
	 * way, the refusal of the first has cut the session.
	 */
	if (why == EVP_REFUSAL_FULL)
		end_later(call, call->again && call->kind == EVP_CALL_SERVICE ? EVP_CALL_GONE : EVP_CALL_REFUSED);
	else if (!call->again || call->kind == EVP_CALL_QUERY)
		wait_for_name(call);
	else if (call->state == EVP_CALL_ASKED)
		tie(call);
	if (why == EVP_REFUSAL_NO_SESSION)
		evp_registry_session_lost(router->proxy->registry, target, proxy_id, session_no);
	else if (why == EVP_REFUSAL_NOT_READY)
		evp_registry_session_waiting(router->proxy->registry, target, proxy_id, session_no);
	look_again(router);
}

/* ---- from link.c: the answering side ---- */

/* Files another proxy's call under its instance. */
static evp_call_t *
add_foreign(evp_router_t *router, const evp_link_call_t *asked, evp_instance_t *target)
{
	evp_call_t *call = calloc(1, sizeof *call);

	if (call == NULL)
		return NULL;
	call->router = router;
	call->foreign = true;
	call->state = EVP_CALL_ASKED;
	memcpy(call->id, asked->id, sizeof call->id);
	call->target = target;
	target->open++;
	DL_APPEND2(target->calls, call, target_prev, target_next);
	HASH_ADD(hh, router->calls, id, sizeof call->id, call);
	router->count++;
	return call;
}

/* Why a call cannot be passed to its instance; 0 where it can. */
static evp_refusal_t
reason_to_refuse(evp_router_t *router, const evp_instance_t *target, const evp_call_t *known)
{
	if (target == NULL || target->session == NULL)
		return EVP_REFUSAL_NO_SESSION;
	if (target->state != EVP_INSTANCE_READY)
		return EVP_REFUSAL_NOT_READY;
	if (known != NULL ? !known->foreign || known->target != target : router->count >= router->proxy->config.max_calls)
		return EVP_REFUSAL_FULL;
	return 0;
}

void
evp_router_link_call(evp_router_t *router, uint64_t link, const evp_link_call_t *asked)
{
	char		bundle[EVP_LINK_MAX_KEY + 1];
	char		instance[EVP_LINK_MAX_KEY + 1];
	evp_call_t *call = find_call(router, asked->id);
	evp_instance_t *target;
	evp_refusal_t why;
	evp_parts_t parts = {.n = 1,.part = {evp_slice_blob(asked->message)},.len = asked->message->len};

	if (router->stopped)
		return;
	memcpy(bundle, asked->bundle.p, asked->bundle.n);
	bundle[asked->bundle.n] = '\0';
	memcpy(instance, asked->instance.p, asked->instance.n);
	instance[asked->instance.n] = '\0';
	target = evp_members_instance(evp_registry_members(router->proxy->registry), bundle, instance);
	why = reason_to_refuse(router, target, call);
	if (why == 0 && call == NULL && (call = add_foreign(router, asked, target)) == NULL)
		why = EVP_REFUSAL_FULL;
	if (why != 0)
	{
		evp_links_send_refusal(router->proxy->links, link, asked->id, asked->session_no, why);
		return;
	}
	/* One that is known is asked again after a cut, over this link or another one. */
	call->link = link;
	call->session_no = asked->session_no;
	set_deadline(call, evp_now(router->proxy) + asked->timeout_ms + FOREIGN_GRACE_MS);
	EVP_COUNT(calls_local);
	evp_session_send_parts(target->session, &parts);
}

void
evp_router_link_cancel(evp_router_t *router, uint64_t link, const uint8_t id[16])
{
	evp_call_t *call = find_call(router, id);

	if (call != NULL && call->foreign && call->link == link)
		free_call(call);
}

void
evp_router_link_closed(evp_router_t *router, uint64_t link)
{
	evp_call_t *call,
			   *next;

	HASH_ITER(hh, router->calls, call, next)
	{
		if (call->foreign && call->link == link)
			free_call(call);
	}
}
