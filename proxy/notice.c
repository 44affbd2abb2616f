/*
 * notice.c
 *    See notice.h.
 */
#include "notice.h"

#include "cbor.h"
#include "typed.h"

#define PERFORMANCE EVP_COMMON "performance."

static evp_notice_kind_t
notice_kind(evp_slice_t class)
{
	static const struct
	{
		const char *class;
		evp_notice_kind_t kind;
	}			kinds[] = {
		{PERFORMANCE "PerformanceServiceTimeMessage", EVP_NOTICE_SERVICE_TIME},
		{PERFORMANCE "PerformanceInvocationsMessage", EVP_NOTICE_INVOCATIONS},
		{EVP_INTERNAL "discovery.BundleConsumerRegistrationMessage", EVP_NOTICE_CONSUMERS},
		{EVP_INTERNAL "consumer.ConsumerStatsMessage", EVP_NOTICE_STATISTICS},
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (evp_slice_is(class, kinds[i].class))
			return kinds[i].kind;
	return EVP_NOTICE_OTHER;
}

/* Keeps the bytes of what comes next, null where it is null. */
static void
take_range(evp_cbor_t *r, evp_slice_t *range)
{
	if (evp_cbor_take_null(r))
		*range = (evp_slice_t) {0};
	else
		evp_cbor_skip(r, range);
}

static void
performance_field(evp_cbor_t *r, evp_notice_t *n, evp_slice_t key)
{
	if (evp_slice_is(key, "component"))
		evp_cbor_name_or_null(r, &n->component);
	else if (evp_slice_is(key, "action"))
		evp_cbor_name_or_null(r, &n->action);
	else if (evp_slice_is(key, "start"))
		evp_cbor_int_or_null(r, &n->start_ms, NULL);
	else if (evp_slice_is(key, "end"))
		evp_cbor_int_or_null(r, &n->end_ms, NULL);
	else if (evp_slice_is(key, "invocations"))
		take_range(r, &n->invocations);
	else
		evp_cbor_skip(r, NULL);
}

static void
consumers_field(evp_cbor_t *r, evp_notice_t *n, evp_slice_t key)
{
	if (evp_slice_is(key, "projectorConsumers"))
		take_range(r, &n->projectors);
	else if (evp_slice_is(key, "sagaConsumers"))
		take_range(r, &n->sagas);
	else if (evp_slice_is(key, "observerConsumers"))
		take_range(r, &n->observers);
	else
		evp_cbor_skip(r, NULL);
}

static void
statistics_field(evp_cbor_t *r, evp_notice_t *n, evp_slice_t key)
{
	if (evp_slice_is(key, "executors"))
		take_range(r, &n->executors);
	else if (evp_slice_is(key, "consumers"))
		take_range(r, &n->consumers);
	else
		evp_cbor_skip(r, NULL);
}

static void
read_body(evp_cbor_t *r, evp_notice_t *n)
{
	evp_slice_t class;
	evp_slice_t key;

	if (!evp_typed_enter(r, &class))
		return;
	n->kind = notice_kind(class);
	while (evp_typed_field(r, &key))
	{
		switch (n->kind)
		{
			case EVP_NOTICE_SERVICE_TIME:
			case EVP_NOTICE_INVOCATIONS:
				performance_field(r, n, key);
				break;
			case EVP_NOTICE_CONSUMERS:
				consumers_field(r, n, key);
				break;
			case EVP_NOTICE_STATISTICS:
				statistics_field(r, n, key);
				break;
			case EVP_NOTICE_OTHER:
				evp_cbor_skip(r, NULL);
				break;
		}
	}
	evp_typed_leave(r);
}

int
evp_notice_parse(evp_notice_t *n, evp_slice_t payload, const char **reason)
{
	evp_cbor_t	r;
	evp_slice_t class;
	evp_slice_t key;
	bool		body = false;

	*n = (evp_notice_t) {.kind = EVP_NOTICE_OTHER};
	evp_cbor_init(&r, payload, &n->arena);
	if (evp_typed_enter(&r, &class) && !evp_slice_is(class, EVP_CLASS_MESSAGE))
		evp_cbor_fail(&r, "payload is not an EventoMessage");
	while (evp_typed_field(&r, &key))
	{
		if (!evp_slice_is(key, "body"))
			evp_cbor_skip(&r, NULL);
		else if (body)
			evp_cbor_fail(&r, "EventoMessage with two bodies");
		else
		{
			body = true;
			read_body(&r, n);
		}
	}
	evp_typed_leave(&r);
	if (r.error == NULL && !body)
		evp_cbor_fail(&r, "EventoMessage without a body");
	if (evp_cbor_done(&r))
		return 0;
	*reason = r.error;
	evp_notice_free(n);
	return -1;
}

void
evp_notice_free(evp_notice_t *n)
{
	evp_arena_free(&n->arena);
	*n = (evp_notice_t) {.kind = EVP_NOTICE_OTHER};
}

/* ---- lists ---- */

/* Enters a collection, ["class",[…]] or ["class",{…}], of which only what it holds matters. */
static bool
enter_collection(evp_cbor_t *r, evp_cbor_type_t type)
{
	evp_slice_t class;

	return evp_cbor_enter_array(r) && evp_cbor_name(r, &class) &&
		(type == EVP_CBOR_MAP ? evp_cbor_enter_map(r) : evp_cbor_enter_array(r));
}

/* The end of a walk. */
static int
walked(evp_cbor_t *r, evp_arena_t *arena, const char **reason)
{
	bool		ok = evp_cbor_done(r);

	if (!ok)
		*reason = r->error;
	evp_arena_free(arena);
	return ok ? 0 : -1;
}

int
evp_notice_invocations(const evp_notice_t *n, evp_notice_invocation_cb cb, void *arg, const char **reason)
{
	evp_arena_t arena = {0};
	evp_cbor_t	r;
	evp_slice_t name;
	int64_t		count;

	if (evp_slice_is_null(n->invocations))
		return 0;
	evp_cbor_init(&r, n->invocations, &arena);
	enter_collection(&r, EVP_CBOR_MAP);
	while (evp_cbor_more(&r))
		if (evp_cbor_name(&r, &name) && evp_cbor_int_or_null(&r, &count, NULL))
			cb(arg, name, count);
	evp_typed_leave(&r);
	return walked(&r, &arena, reason);
}

static int
walk_consumers(evp_slice_t map, const char *type, evp_notice_consumer_cb cb, void *arg, const char **reason)
{
	evp_arena_t arena = {0};
	evp_cbor_t	r;
	evp_slice_t component;
	evp_slice_t consumer;

	if (evp_slice_is_null(map))
		return 0;
	evp_cbor_init(&r, map, &arena);
	enter_collection(&r, EVP_CBOR_MAP);
	while (evp_cbor_more(&r))
	{
		if (!evp_cbor_name(&r, &component) || evp_cbor_take_null(&r))
			continue;
		enter_collection(&r, EVP_CBOR_ARRAY);
		while (evp_cbor_more(&r))
			if (evp_cbor_name(&r, &consumer))
				cb(arg, type, component, consumer);
		evp_typed_leave(&r);
	}
	evp_typed_leave(&r);
	return walked(&r, &arena, reason);
}

int
evp_notice_consumers(const evp_notice_t *n, evp_notice_consumer_cb cb, void *arg, const char **reason)
{
	if (walk_consumers(n->projectors, "Projector", cb, arg, reason) < 0 || walk_consumers(n->sagas, "Saga", cb, arg, reason) < 0)
		return -1;
	return walk_consumers(n->observers, "Observer", cb, arg, reason);
}

static void
executor_field(evp_cbor_t *r, evp_executor_stats_t *s, evp_slice_t key)
{
	if (evp_slice_is(key, "name"))
		evp_cbor_name_or_null(r, &s->name);
	else if (evp_slice_is(key, "capacity"))
		evp_cbor_int_or_null(r, &s->capacity, NULL);
	else if (evp_slice_is(key, "inFlight"))
		evp_cbor_int_or_null(r, &s->in_flight, NULL);
	else if (evp_slice_is(key, "admitted"))
		evp_cbor_int_or_null(r, &s->admitted, NULL);
	else if (evp_slice_is(key, "rejected"))
		evp_cbor_int_or_null(r, &s->rejected, NULL);
	else if (evp_slice_is(key, "completed"))
		evp_cbor_int_or_null(r, &s->completed, NULL);
	else if (evp_slice_is(key, "failed"))
		evp_cbor_int_or_null(r, &s->failed, NULL);
	else
		evp_cbor_skip(r, NULL);
}

static void
stats_field(evp_cbor_t *r, evp_consumer_stats_t *s, evp_slice_t key)
{
	if (evp_slice_is(key, "consumerId"))
		evp_cbor_name_or_null(r, &s->consumer);
	else if (evp_slice_is(key, "componentName"))
		evp_cbor_name_or_null(r, &s->component);
	else if (evp_slice_is(key, "inFlight"))
		evp_cbor_int_or_null(r, &s->in_flight, NULL);
	else if (evp_slice_is(key, "submitTimeouts"))
		evp_cbor_int_or_null(r, &s->submit_timeouts, NULL);
	else if (evp_slice_is(key, "transientFailures"))
		evp_cbor_int_or_null(r, &s->transient_failures, NULL);
	else
		evp_cbor_skip(r, NULL);
}

int
evp_notice_executors(const evp_notice_t *n, evp_notice_executor_cb cb, void *arg, const char **reason)
{
	evp_arena_t arena = {0};
	evp_cbor_t	r;
	evp_slice_t class;
	evp_slice_t key;

	if (evp_slice_is_null(n->executors))
		return 0;
	evp_cbor_init(&r, n->executors, &arena);
	enter_collection(&r, EVP_CBOR_ARRAY);
	while (evp_cbor_more(&r))
	{
		evp_executor_stats_t stats = {0};

		evp_typed_enter(&r, &class);
		while (evp_typed_field(&r, &key))
			executor_field(&r, &stats, key);
		if (evp_typed_leave(&r) && !evp_slice_is_null(stats.name))
			cb(arg, &stats);
	}
	evp_typed_leave(&r);
	return walked(&r, &arena, reason);
}

int
evp_notice_stats(const evp_notice_t *n, evp_notice_stats_cb cb, void *arg, const char **reason)
{
	evp_arena_t arena = {0};
	evp_cbor_t	r;
	evp_slice_t class;
	evp_slice_t key;

	if (evp_slice_is_null(n->consumers))
		return 0;
	evp_cbor_init(&r, n->consumers, &arena);
	enter_collection(&r, EVP_CBOR_ARRAY);
	while (evp_cbor_more(&r))
	{
		evp_consumer_stats_t stats = {0};

		evp_typed_enter(&r, &class);
		while (evp_typed_field(&r, &key))
			stats_field(&r, &stats, key);
		if (evp_typed_leave(&r) && !evp_slice_is_null(stats.consumer))
			cb(arg, &stats);
	}
	evp_typed_leave(&r);
	return walked(&r, &arena, reason);
}
