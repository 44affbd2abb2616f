/*
 * graph.c
 *    The object graphs of the simulated order application, as Java bundles
 *    write and read them.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../proxy/cbor.h"
#include "sim.h"

#define PKG "com.evento.common."
#define INTERNAL PKG "modeling.messaging.message.internal."
#define APPLICATION PKG "modeling.messaging.message.application."

#define MAX_JSON 256			/* of our own JSON, without the padding */

/* Opens ["class", {; close_typed closes it. */
static void
open_typed(evp_buf_t *b, const char *class)
{
	evp_cbor_open_array(b);
	evp_cbor_put_str(b, class);
	evp_cbor_open_map(b);
}

static void
close_typed(evp_buf_t *b)
{
	evp_cbor_close(b);
	evp_cbor_close(b);
}

static void
put_field(evp_buf_t *b, const char *key, const char *value)
{
	evp_cbor_put_str(b, key);
	if (value == NULL)
		evp_cbor_put_null(b);
	else
		evp_cbor_put_str(b, value);
}

static void
put_int_field(evp_buf_t *b, const char *key, int64_t value)
{
	evp_cbor_put_str(b, key);
	evp_cbor_put_int(b, value);
}

static void
put_bool_field(evp_buf_t *b, const char *key, bool value)
{
	evp_cbor_put_str(b, key);
	evp_cbor_put_bool(b, value);
}

/* serializedPayload, timestamp, metadata, forceTelemetry: what every message begins with. */
static void
put_message_head(evp_buf_t *b, const char *name, const char *json, unsigned pad)
{
	char		class[128];

	evp_cbor_put_str(b, "serializedPayload");
	open_typed(b, APPLICATION "SerializedPayload");
	evp_cbor_put_str(b, "serializedObject");
	if (name == NULL)
	{
		evp_cbor_put_str(b, "null");
		put_field(b, "objectClass", NULL);
	}
	else
	{
		char		head[MAX_JSON + 128];
		int			n = snprintf(head, sizeof(head), "[\"sim.%s\",{%s", name, json);
		static const char pad_open[] = ",\"pad\":\"";

		evp_cbor_put_text_header(b, (size_t) n + (pad ? sizeof(pad_open) - 1 + pad + 1 : 0) + 2);
		evp_buf_append(b, head, (size_t) n);
		if (pad)
		{
			uint8_t    *room;

			evp_buf_append(b, pad_open, sizeof(pad_open) - 1);
			room = evp_buf_reserve(b, pad);
			if (room != NULL)
			{
				for (unsigned i = 0; i < pad; i++)
					room[i] = (uint8_t) ('a' + i % 26);
				b->len += pad;
			}
			evp_buf_append(b, "\"", 1);
		}
		evp_buf_append(b, "}]", 2);
		snprintf(class, sizeof(class), "class sim.%s", name);
		put_field(b, "objectClass", class);
	}
	close_typed(b);
	put_int_field(b, "timestamp", sim_now_ms());
	put_field(b, "metadata", NULL);
	put_bool_field(b, "forceTelemetry", false);
}

/* EventoRequest up to its body. */
static void
open_request(evp_buf_t *b, const sim_bundle_t *from)
{
	uint8_t		id[16];
	char		text[EVP_UUID_TEXT_LEN + 1];

	evp_uuid_v4(id);
	evp_uuid_format(id, text);
	open_typed(b, INTERNAL "EventoRequest");
	put_field(b, "sourceBundleId", from->bundle);
	put_field(b, "sourceInstanceId", from->instance);
	put_field(b, "correlationId", text);
	put_int_field(b, "sourceBundleVersion", 1);
	evp_cbor_put_str(b, "body");
}

static void
close_request(evp_buf_t *b, unsigned timeout_ms)
{
	put_int_field(b, "timestamp", sim_now_ms());
	put_int_field(b, "timeout", timeout_ms);
	put_field(b, "unit", "MILLISECONDS");
	close_typed(b);
}

void
sim_put_request(evp_buf_t *b, const sim_bundle_t *from, const sim_command_t *c, unsigned timeout_ms)
{
	char		json[MAX_JSON];

	snprintf(json, sizeof(json), "\"orderId\":\"%s\",\"amount\":%lld", c->order, (long long) c->amount);
	open_request(b, from);
	open_typed(b, c->query ? APPLICATION "QueryMessage" :
			   c->service ? APPLICATION "ServiceCommandMessage" : APPLICATION "DomainCommandMessage");
	put_message_head(b, c->name, json, c->pad);
	if (!c->query)
	{
		put_field(b, "aggregateId", c->service ? NULL : c->order);
		put_field(b, "lockId", c->lock);
	}
	if (!c->query && !c->service)
	{
		put_bool_field(b, "invalidateAggregateCaches", false);
		put_bool_field(b, "invalidateAggregateSnapshot", false);
	}
	close_typed(b);
	close_request(b, timeout_ms);
}

void
sim_put_fetch(evp_buf_t *b, const sim_bundle_t *from, int64_t after, unsigned limit)
{
	open_request(b, from);
	open_typed(b, PKG "messaging.consumer.EventFetchRequest");
	put_field(b, "context", "*");
	put_int_field(b, "lastSequenceNumber", after);
	put_int_field(b, "limit", limit);
	put_field(b, "componentName", "SimProjector");
	close_typed(b);
	close_request(b, 30000);
}

void
sim_put_last(evp_buf_t *b, const sim_bundle_t *from)
{
	open_request(b, from);
	open_typed(b, PKG "messaging.consumer.EventLastSequenceNumberRequest");
	close_typed(b);
	close_request(b, 30000);
}

void
sim_put_registration(evp_buf_t *b, const sim_bundle_t *bundle)
{
	evp_cbor_open_map(b);
	put_int_field(b, "bundleVersion", 1);
	evp_cbor_put_str(b, "handlerPayloadTypes");
	evp_cbor_open_array(b);
	for (const char *const *n = bundle->names; *n != NULL; n++)
		evp_cbor_put_str(b, *n);
	evp_cbor_close(b);
	evp_cbor_close(b);
}

void
sim_put_discovery(evp_buf_t *b, const sim_bundle_t *bundle)
{
	evp_cbor_open_map(b);
	put_int_field(b, "bundleVersion", 1);
	put_field(b, "description", bundle->bundle);
	put_field(b, "detail", "");
	put_field(b, "repositoryUrl", "");
	put_field(b, "linePrefix", "L");
	evp_cbor_put_str(b, "handlers");
	evp_cbor_open_array(b);
	for (const char *const *n = bundle->names; *n != NULL; n++)
	{
		bool		query = strcmp(bundle->component, "Projection") == 0;

		evp_cbor_open_map(b);
		put_field(b, "componentType", bundle->component);
		put_field(b, "componentName", "Sim");
		put_field(b, "handlerType", query ? "QueryHandler" : "AggregateCommandHandler");
		put_field(b, "handledPayloadType", query ? "Query" : "DomainCommand");
		put_field(b, "handledPayload", *n);
		put_field(b, "returnType", NULL);
		put_bool_field(b, "returnIsMultiple", false);
		put_field(b, "associationProperty", NULL);
		put_field(b, "executor", "");
		evp_cbor_put_str(b, "invokedCommands");
		evp_cbor_open_map(b);
		evp_cbor_close(b);
		evp_cbor_put_str(b, "invokedQueries");
		evp_cbor_open_map(b);
		evp_cbor_close(b);
		evp_cbor_close(b);
	}
	evp_cbor_close(b);
	evp_cbor_put_str(b, "payloadInfo");
	evp_cbor_open_map(b);
	evp_cbor_close(b);
	evp_cbor_close(b);
}

static void
open_response(evp_buf_t *b, const sim_task_t *task)
{
	open_typed(b, INTERNAL "EventoResponse");
	evp_cbor_put_str(b, "correlationId");
	evp_cbor_put_slice(b, task->correlation);
	evp_cbor_put_str(b, "body");
}

static void
close_response(evp_buf_t *b, const sim_task_t *task)
{
	put_int_field(b, "timestamp", sim_now_ms());
	put_int_field(b, "requestTimestamp", task->timestamp);
	put_int_field(b, "timeout", task->timeout);
	put_field(b, "unit", "MILLISECONDS");
	close_typed(b);
}

static void
put_event_message(evp_buf_t *b, const char *class, const char *event, const char *json)
{
	open_typed(b, class);
	put_message_head(b, event, json, 0);
	put_field(b, "context", "default");
	close_typed(b);
}

void
sim_put_event_answer(evp_buf_t *b, const sim_task_t *task, const char *event, const char *json, const char *state)
{
	open_response(b, task);
	open_typed(b, APPLICATION "DomainCommandResponseMessage");
	evp_cbor_put_str(b, "domainEventMessage");
	put_event_message(b, APPLICATION "DomainEventMessage", event, json);
	evp_cbor_put_str(b, "serializedAggregateState");
	if (state == NULL)
		evp_cbor_put_null(b);
	else
	{
		char		text[MAX_JSON + 64];

		snprintf(text, sizeof(text), "[\"sim.OrderState\",{%s}]", state);
		open_typed(b, PKG "modeling.state.SerializedAggregateState");
		put_field(b, "serializedObject", text);
		put_field(b, "objectClass", "class sim.OrderState");
		close_typed(b);
	}
	put_bool_field(b, "aggregateDeleted", false);
	close_typed(b);
	close_response(b, task);
}

void
sim_put_service_answer(evp_buf_t *b, const sim_task_t *task, const char *event, const char *json)
{
	open_response(b, task);
	put_event_message(b, APPLICATION "ServiceEventMessage", event, json);
	close_response(b, task);
}

void
sim_put_view_answer(evp_buf_t *b, const sim_task_t *task, evp_slice_t order, int64_t amount)
{
	open_response(b, task);
	open_typed(b, PKG "modeling.messaging.query.Single");
	evp_cbor_put_str(b, "data");
	open_typed(b, "sim.OrderView");
	evp_cbor_put_str(b, "orderId");
	evp_cbor_put_slice(b, order);
	put_int_field(b, "amount", amount);
	close_typed(b);
	close_typed(b);
	close_response(b, task);
}

void
sim_put_exception_answer(evp_buf_t *b, const sim_task_t *task, const char *throwable, const char *text)
{
	open_response(b, task);
	open_typed(b, PKG "modeling.exceptions.ExceptionWrapper");
	put_field(b, "throwable", throwable);
	put_field(b, "message", text);
	evp_cbor_put_str(b, "stackTrace");
	evp_cbor_open_array(b);
	evp_cbor_close(b);
	put_field(b, "cause", NULL);
	close_typed(b);
	close_response(b, task);
}

/* ---- reading ---- */

/* Enters ["class", {fields}] and gives the class; the caller reads the map to its end and then calls leave_typed. */
static bool
enter_typed(evp_cbor_t *r, evp_slice_t *class)
{
	return evp_cbor_enter_array(r) && evp_cbor_more(r) && evp_cbor_text(r, class) && evp_cbor_more(r);
}

static void
leave_typed(evp_cbor_t *r)
{
	evp_cbor_leave(r);
}

static bool
ends_with(evp_slice_t s, const char *end)
{
	size_t		n = strlen(end);

	return s.n >= n && memcmp(s.p + s.n - n, end, n) == 0;
}

/* serializedObject of a SerializedPayload or SerializedAggregateState; null where its class is null. */
static void
read_serialized(evp_cbor_t *r, evp_slice_t *object)
{
	evp_slice_t class;
	evp_slice_t key;
	evp_slice_t object_class = {0};

	if (evp_cbor_take_null(r))
		return;
	if (!enter_typed(r, &class) || !evp_cbor_enter_map(r))
		return;
	while (evp_cbor_more(r) && evp_cbor_text(r, &key))
	{
		if (evp_slice_is(key, "serializedObject"))
			evp_cbor_text_or_null(r, object);
		else if (evp_slice_is(key, "objectClass"))
			evp_cbor_text_or_null(r, &object_class);
		else
			evp_cbor_skip(r, NULL);
	}
	leave_typed(r);
	if (evp_slice_is_null(object_class))
		*object = (evp_slice_t) {0};
}

/* The serialized payload of a message whose map comes next. */
static void
read_message(evp_cbor_t *r, evp_slice_t *object)
{
	evp_slice_t key;

	if (!evp_cbor_enter_map(r))
		return;
	while (evp_cbor_more(r) && evp_cbor_text(r, &key))
	{
		if (evp_slice_is(key, "serializedPayload"))
			read_serialized(r, object);
		else
			evp_cbor_skip(r, NULL);
	}
}

static void
read_typed_message(evp_cbor_t *r, evp_slice_t *object)
{
	evp_slice_t class;

	if (evp_cbor_take_null(r))
		return;
	if (enter_typed(r, &class))
	{
		read_message(r, object);
		leave_typed(r);
	}
}

/* The name in ["sim.Name",{…}]. */
static evp_slice_t
name_of(evp_slice_t json)
{
	const uint8_t *q;

	if (json.n < 7 || memcmp(json.p, "[\"sim.", 6) != 0 || (q = memchr(json.p + 6, '"', json.n - 6)) == NULL)
		return (evp_slice_t) {0};
	return evp_slice_of(json.p + 6, (size_t) (q - json.p) - 6);
}

/* The story of a domain command: its events must follow one another. */
static void
read_story(evp_cbor_t *r, sim_task_t *task)
{
	evp_slice_t class;
	int64_t		revision = -1;

	if (!enter_typed(r, &class) || !evp_cbor_enter_array(r))
		return;
	while (evp_cbor_more(r))
	{
		evp_slice_t object = {0};
		int64_t		next;

		read_typed_message(r, &object);
		next = sim_json_number(object, "revision");
		if (next < 1 || (revision >= 0 && next != revision + 1))
			task->story_dense = false;
		if (task->events == 0)
		{
			int64_t		base = evp_slice_is_null(task->snapshot) ? 0 : sim_json_number(task->snapshot, "revision");

			if (next != base + 1)
				task->story_dense = false;
		}
		revision = next;
		task->events++;
		task->last_event = object;
	}
	leave_typed(r);
}

static void
read_decorated(evp_cbor_t *r, sim_task_t *task)
{
	evp_slice_t key;

	if (!evp_cbor_enter_map(r))
		return;
	while (evp_cbor_more(r) && evp_cbor_text(r, &key))
	{
		if (evp_slice_is(key, "commandMessage"))
			read_typed_message(r, &task->command);
		else if (evp_slice_is(key, "serializedAggregateState"))
			read_serialized(r, &task->snapshot);
		else if (evp_slice_is(key, "eventStream"))
			read_story(r, task);
		else
			evp_cbor_skip(r, NULL);
	}
}

bool
sim_read_task(sim_task_t *task, evp_slice_t payload)
{
	evp_cbor_t	r;
	evp_slice_t class;
	evp_slice_t key;

	memset(task, 0, sizeof(*task));
	task->story_dense = true;
	evp_cbor_init(&r, payload, &task->arena);
	if (!enter_typed(&r, &class) || !evp_cbor_enter_map(&r))
		return false;
	while (evp_cbor_more(&r) && evp_cbor_text(&r, &key))
	{
		if (evp_slice_is(key, "correlationId"))
			evp_cbor_text(&r, &task->correlation);
		else if (evp_slice_is(key, "timestamp"))
			evp_cbor_int(&r, &task->timestamp);
		else if (evp_slice_is(key, "timeout"))
			evp_cbor_int(&r, &task->timeout);
		else if (evp_slice_is(key, "body") && enter_typed(&r, &class))
		{
			if (ends_with(class, ".DecoratedDomainCommandMessage"))
				read_decorated(&r, task);
			else
				read_message(&r, &task->command);
			leave_typed(&r);
		}
		else
			evp_cbor_skip(&r, NULL);
	}
	leave_typed(&r);
	task->name = name_of(task->command);
	return r.error == NULL && !evp_slice_is_null(task->name);
}

/* The view in a Single's data. */
static void
read_single(evp_cbor_t *r, sim_answer_t *answer)
{
	evp_slice_t key;
	evp_slice_t class;

	if (!evp_cbor_enter_map(r))
		return;
	while (evp_cbor_more(r) && evp_cbor_text(r, &key))
	{
		if (!evp_slice_is(key, "data") || !enter_typed(r, &class) || !evp_cbor_enter_map(r))
		{
			evp_cbor_skip(r, NULL);
			continue;
		}
		while (evp_cbor_more(r) && evp_cbor_text(r, &key))
		{
			if (evp_slice_is(key, "orderId"))
				evp_cbor_text(r, &answer->view_order);
			else if (evp_slice_is(key, "amount"))
				evp_cbor_int(r, &answer->view_amount);
			else
				evp_cbor_skip(r, NULL);
		}
		leave_typed(r);
	}
}

static void
read_exception(evp_cbor_t *r, sim_answer_t *answer)
{
	evp_slice_t key;

	if (!evp_cbor_enter_map(r))
		return;
	while (evp_cbor_more(r) && evp_cbor_text(r, &key))
	{
		if (evp_slice_is(key, "throwable"))
			evp_cbor_text_or_null(r, &answer->throwable);
		else if (evp_slice_is(key, "message"))
			evp_cbor_text_or_null(r, &answer->text);
		else
			evp_cbor_skip(r, NULL);
	}
}

bool
sim_read_answer(sim_answer_t *answer, evp_slice_t payload)
{
	evp_cbor_t	r;
	evp_slice_t class;
	evp_slice_t key;

	memset(answer, 0, sizeof(*answer));
	evp_cbor_init(&r, payload, &answer->arena);
	if (!enter_typed(&r, &class) || !evp_cbor_enter_map(&r))
		return false;
	while (evp_cbor_more(&r) && evp_cbor_text(&r, &key))
	{
		if (!evp_slice_is(key, "body") || !enter_typed(&r, &class))
		{
			evp_cbor_skip(&r, NULL);
			continue;
		}
		answer->body_class = class;
		if (ends_with(class, ".Single"))
			read_single(&r, answer);
		else if (ends_with(class, ".ExceptionWrapper"))
			read_exception(&r, answer);
		else
			read_message(&r, &answer->event);
		leave_typed(&r);
	}
	leave_typed(&r);
	return r.error == NULL;
}

static void
read_published(evp_cbor_t *r, sim_event_t *e)
{
	evp_slice_t key;
	evp_slice_t class;

	if (!enter_typed(r, &class) || !evp_cbor_enter_map(r))
		return;
	while (evp_cbor_more(r) && evp_cbor_text(r, &key))
	{
		if (evp_slice_is(key, "eventSequenceNumber"))
			evp_cbor_int(r, &e->sequence);
		else if (evp_slice_is(key, "aggregateId"))
			evp_cbor_text_or_null(r, &e->aggregate);
		else if (evp_slice_is(key, "eventName"))
			evp_cbor_text_or_null(r, &e->name);
		else if (evp_slice_is(key, "eventMessage"))
			read_typed_message(r, &e->object);
		else
			evp_cbor_skip(r, NULL);
	}
	leave_typed(r);
}

int
sim_read_events(evp_slice_t payload, sim_event_cb cb, void *arg)
{
	evp_arena_t arena = {0};
	evp_cbor_t	r;
	evp_slice_t class;
	evp_slice_t key;
	int			n = 0;
	bool		found = false;

	evp_cbor_init(&r, payload, &arena);
	if (!enter_typed(&r, &class) || !evp_cbor_enter_map(&r))
		return -1;
	while (evp_cbor_more(&r) && evp_cbor_text(&r, &key))
	{
		if (!evp_slice_is(key, "body") || !enter_typed(&r, &class) || !evp_cbor_enter_map(&r))
		{
			evp_cbor_skip(&r, NULL);
			continue;
		}
		while (evp_cbor_more(&r) && evp_cbor_text(&r, &key))
		{
			found = true;
			if (!enter_typed(&r, &class) || !evp_cbor_enter_array(&r))
				break;
			while (evp_cbor_more(&r))
			{
				sim_event_t e = {0};

				read_published(&r, &e);
				if (r.error == NULL)
					cb(arg, &e);
				n++;
			}
			leave_typed(&r);
		}
		leave_typed(&r);
	}
	leave_typed(&r);
	evp_arena_free(&arena);
	return r.error != NULL || !found ? -1 : n;
}

bool
sim_read_last(evp_slice_t payload, int64_t *number)
{
	evp_arena_t arena = {0};
	evp_cbor_t	r;
	evp_slice_t class;
	evp_slice_t key;
	bool		found = false;

	evp_cbor_init(&r, payload, &arena);
	if (!enter_typed(&r, &class) || !evp_cbor_enter_map(&r))
		return false;
	while (evp_cbor_more(&r) && evp_cbor_text(&r, &key))
	{
		if (!evp_slice_is(key, "body") || !enter_typed(&r, &class) || !evp_cbor_enter_map(&r))
		{
			evp_cbor_skip(&r, NULL);
			continue;
		}
		while (evp_cbor_more(&r) && evp_cbor_text(&r, &key))
			found = evp_slice_is(key, "number") ? evp_cbor_int(&r, number) : evp_cbor_skip(&r, NULL);
		leave_typed(&r);
	}
	leave_typed(&r);
	evp_arena_free(&arena);
	return r.error == NULL && found;
}

/* Where the value of a key begins in our own JSON, which has no blanks and no nested objects. */
static const char *
json_value(evp_slice_t json, const char *key, size_t *left)
{
	size_t		n = strlen(key);
	const char *p = (const char *) json.p;
	const char *end = p + json.n;

	if (evp_slice_is_null(json))
		return NULL;
	while ((p = memmem(p, (size_t) (end - p), key, n)) != NULL)
	{
		const char *behind = p + n;

		if (p > (const char *) json.p && p[-1] == '"' && end - behind > 1 && behind[0] == '"' && behind[1] == ':')
		{
			*left = (size_t) (end - behind) - 2;
			return behind + 2;
		}
		p = behind;
	}
	return NULL;
}

int64_t
sim_json_number(evp_slice_t json, const char *key)
{
	size_t		left;
	const char *p = json_value(json, key, &left);
	int64_t		v = 0;

	if (p == NULL || left == 0 || *p < '0' || *p > '9')
		return -1;
	for (; left > 0 && *p >= '0' && *p <= '9' && v < INT64_MAX / 100; p++, left--)
		v = v * 10 + (*p - '0');
	return v;
}

evp_slice_t
sim_json_text(evp_slice_t json, const char *key)
{
	size_t		left;
	const char *p = json_value(json, key, &left);
	const char *q;

	if (p == NULL || left < 2 || *p != '"' || (q = memchr(p + 1, '"', left - 1)) == NULL)
		return (evp_slice_t) {0};
	return evp_slice_of(p + 1, (size_t) (q - p) - 1);
}
