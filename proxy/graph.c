/*
 * graph.c
 *    The object graphs inside requests and responses: what the proxy reads of
 *    them, and those it writes.
 */
#include "graph.h"

#include "cbor.h"
#include "payload.h"
#include "typed.h"

#define APPLICATION	EVP_COMMON "modeling.messaging.message.application."
#define CONSUMER	EVP_COMMON "messaging.consumer."

#define CLASS_DOMAIN_COMMAND	APPLICATION "DomainCommandMessage"
#define CLASS_SERVICE_COMMAND	APPLICATION "ServiceCommandMessage"
#define CLASS_DECORATED			APPLICATION "DecoratedDomainCommandMessage"
#define CLASS_COMMAND_RESPONSE	APPLICATION "DomainCommandResponseMessage"
#define CLASS_DOMAIN_EVENT		APPLICATION "DomainEventMessage"
#define CLASS_SERVICE_EVENT		APPLICATION "ServiceEventMessage"
#define CLASS_QUERY				APPLICATION "QueryMessage"
#define CLASS_PAYLOAD			APPLICATION "SerializedPayload"
#define CLASS_STATE				EVP_COMMON "modeling.state.SerializedAggregateState"
#define CLASS_FETCH				CONSUMER "EventFetchRequest"
#define CLASS_FETCHED			CONSUMER "EventFetchResponse"
#define CLASS_LAST				CONSUMER "EventLastSequenceNumberRequest"
#define CLASS_LAST_RESPONSE		CONSUMER "EventLastSequenceNumberResponse"
#define CLASS_PUBLISHED			EVP_COMMON "modeling.messaging.dto.PublishedEvent"
#define CLASS_EXCEPTION			EVP_COMMON "modeling.exceptions.ExceptionWrapper"
#define CLASS_LIST				"java.util.ArrayList"

#define DEFAULT_CONTEXT			"default"

/* A boolean that null stands in for as false. */
static bool
bool_or_null(evp_cbor_t *r, bool *v)
{
	*v = false;
	return evp_cbor_take_null(r) || evp_cbor_bool(r, v);
}

/* The two texts of a SerializedPayload or SerializedAggregateState; both null
 * where there is no object.  object may be NULL where only the class matters. */
static bool
serialized(evp_cbor_t *r, evp_slice_t *object, evp_slice_t *object_class)
{
	evp_slice_t class;
	evp_slice_t key;

	if (object != NULL)
		*object = (evp_slice_t) {0};
	*object_class = (evp_slice_t) {0};
	if (evp_cbor_take_null(r))
		return true;
	if (!evp_typed_enter(r, &class))
		return false;
	while (evp_typed_field(r, &key))
	{
		if (evp_slice_is(key, "objectClass"))
			evp_cbor_name_or_null(r, object_class);
		else if (object != NULL && evp_slice_is(key, "serializedObject"))
			evp_cbor_text_or_null(r, object);
		else
			evp_cbor_skip(r, NULL);
	}
	return evp_typed_leave(r);
}

static evp_graph_request_kind_t
request_kind(evp_slice_t class)
{
	static const struct
	{
		const char *class;
		evp_graph_request_kind_t kind;
	}			kinds[] = {
		{CLASS_DOMAIN_COMMAND, EVP_REQUEST_DOMAIN_COMMAND},
		{CLASS_SERVICE_COMMAND, EVP_REQUEST_SERVICE_COMMAND},
		{CLASS_QUERY, EVP_REQUEST_QUERY},
		{CLASS_FETCH, EVP_REQUEST_EVENT_FETCH},
		{CLASS_LAST, EVP_REQUEST_LAST_SEQUENCE},
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (evp_slice_is(class, kinds[i].class))
			return kinds[i].kind;
	return EVP_REQUEST_OTHER;
}

/* A field of a command or query. */
static void
command_field(evp_cbor_t *r, evp_graph_request_t *q, evp_slice_t key)
{
	evp_slice_t object_class;

	if (evp_slice_is(key, "serializedPayload"))
	{
		if (serialized(r, NULL, &object_class) && object_class.p != NULL)
			q->name = evp_payload_name(object_class);
	}
	else if (evp_slice_is(key, "aggregateId"))
		evp_cbor_name_or_null(r, &q->aggregate_id);
	else if (evp_slice_is(key, "lockId"))
		evp_cbor_name_or_null(r, &q->lock_id);
	else if (evp_slice_is(key, "invalidateAggregateSnapshot"))
		bool_or_null(r, &q->invalidate_snapshot);
	else
		evp_cbor_skip(r, NULL);
}

/* A field of an EventFetchRequest. */
static void
fetch_field(evp_cbor_t *r, evp_graph_request_t *q, evp_slice_t key)
{
	bool		null;

	if (evp_slice_is(key, "context"))
		evp_cbor_name_or_null(r, &q->context);
	else if (evp_slice_is(key, "lastSequenceNumber"))
	{
		evp_cbor_int_or_null(r, &q->last_sequence, &null);
		q->has_last_sequence = !null;
	}
	else if (evp_slice_is(key, "limit"))
		evp_cbor_int_or_null(r, &q->limit, NULL);
	else if (evp_slice_is(key, "componentName"))
		evp_cbor_name_or_null(r, &q->component_name);
	else
		evp_cbor_skip(r, NULL);
}

/* Reads the body at the reader: its bytes, class and fields. */
static void
request_body(evp_cbor_t *r, evp_graph_request_t *q)
{
	const uint8_t *start = r->p;
	evp_slice_t key;

	q->kind = EVP_REQUEST_OTHER;
	q->body_class = (evp_slice_t) {0};
	if (!evp_cbor_take_null(r))
	{
		if (!evp_typed_enter(r, &q->body_class))
			return;
		q->kind = request_kind(q->body_class);
		while (evp_typed_field(r, &key))
		{
			if (q->kind == EVP_REQUEST_EVENT_FETCH)
				fetch_field(r, q, key);
			else if (q->kind == EVP_REQUEST_OTHER || q->kind == EVP_REQUEST_LAST_SEQUENCE)
				evp_cbor_skip(r, NULL);
			else
				command_field(r, q, key);
		}
		evp_typed_leave(r);
	}
	q->body = (evp_slice_t) {.owner = r->owner,.p = start,.n = (size_t) (r->p - start)};
}

static void
request_field(evp_cbor_t *r, evp_graph_request_t *q, evp_slice_t key)
{
	if (evp_slice_is(key, "body"))
		request_body(r, q);
	else if (evp_slice_is(key, "sourceBundleId"))
		evp_cbor_name_or_null(r, &q->source_bundle_id);
	else if (evp_slice_is(key, "sourceInstanceId"))
		evp_cbor_name_or_null(r, &q->source_instance_id);
	else if (evp_slice_is(key, "correlationId"))
		evp_cbor_name_or_null(r, &q->correlation_id);
	else if (evp_slice_is(key, "sourceBundleVersion"))
		evp_cbor_int_or_null(r, &q->source_bundle_version, NULL);
	else if (evp_slice_is(key, "timestamp"))
		evp_cbor_int_or_null(r, &q->timestamp_ms, NULL);
	else if (evp_slice_is(key, "timeout"))
		evp_cbor_int_or_null(r, &q->timeout, NULL);
	else if (evp_slice_is(key, "unit"))
		evp_cbor_name_or_null(r, &q->unit);
	else
		evp_cbor_skip(r, NULL);
}

int
evp_graph_request_parse(evp_graph_request_t *q, evp_slice_t payload, const char **reason)
{
	evp_slice_t class;
	evp_slice_t key;
	evp_cbor_t	r;

	*q = (evp_graph_request_t) {.kind = EVP_REQUEST_OTHER};
	q->payload = evp_slice_ref(payload);
	if (q->payload.p == NULL)
	{
		*reason = payload.p == NULL ? "no payload" : "out of memory";
		return -1;
	}
	evp_cbor_init(&r, q->payload, &q->arena);
	if (evp_typed_enter(&r, &class))
	{
		if (!evp_slice_is(class, EVP_CLASS_REQUEST))
			evp_cbor_fail(&r, "payload is not an EventoRequest");
		while (evp_typed_field(&r, &key))
			request_field(&r, q, key);
		evp_typed_leave(&r);
	}
	if (r.error == NULL && q->body.p == NULL)
		evp_cbor_fail(&r, "EventoRequest without a body");
	if (evp_cbor_done(&r))
		return 0;
	*reason = r.error;
	evp_graph_request_free(q);
	return -1;
}

void
evp_graph_request_free(evp_graph_request_t *q)
{
	evp_arena_free(&q->arena);
	evp_slice_unref(&q->payload);
	*q = (evp_graph_request_t) {.kind = EVP_REQUEST_OTHER};
}

int64_t
evp_graph_request_timeout_ms(const evp_graph_request_t *q, int64_t fallback_ms)
{
	static const struct
	{
		const char *unit;
		int64_t		per_ms;		/* units in a millisecond, where smaller than one */
		int64_t		ms;			/* milliseconds in a unit */
	}			units[] = {
		{"SECONDS", 1, 1000}, {"MILLISECONDS", 1, 1}, {"MINUTES", 1, 60000}, {"HOURS", 1, 3600000},
		{"DAYS", 1, 86400000}, {"MICROSECONDS", 1000, 1}, {"NANOSECONDS", 1000000, 1},
	};

	if (q->timeout <= 0)
		return fallback_ms;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (evp_slice_is(q->unit, units[i].unit))
		{
			if (q->timeout > INT64_MAX / units[i].ms)
				return INT64_MAX;
			/* Below a millisecond there still is a time to wait. */
			if (q->timeout < units[i].per_ms)
				return 1;
			return q->timeout * units[i].ms / units[i].per_ms;
		}
	return fallback_ms;
}

/* A field of a DomainEventMessage or ServiceEventMessage. */
static void
event_field(evp_cbor_t *r, evp_graph_response_t *a, evp_slice_t key)
{
	if (evp_slice_is(key, "serializedPayload"))
	{
		if (serialized(r, &a->event_object, &a->event_class) && a->event_class.p != NULL && a->event_object.p == NULL)
			evp_cbor_fail(r, "event without serializedObject");
	}
	else if (evp_slice_is(key, "timestamp"))
		evp_cbor_int_or_null(r, &a->event_timestamp_ms, NULL);
	else if (evp_slice_is(key, "metadata"))
	{
		a->event_metadata = (evp_slice_t) {0};
		if (!evp_cbor_take_null(r))
			evp_cbor_skip(r, &a->event_metadata);
	}
	else if (evp_slice_is(key, "forceTelemetry"))
		bool_or_null(r, &a->event_force_telemetry);
	else if (evp_slice_is(key, "context"))
		evp_cbor_name_or_null(r, &a->event_context);
	else
		evp_cbor_skip(r, NULL);
}

/* The event of a domain command response. */
static void
domain_event(evp_cbor_t *r, evp_graph_response_t *a)
{
	const uint8_t *start = r->p;
	evp_slice_t class;
	evp_slice_t key;

	a->event = (evp_slice_t) {0};
	if (evp_cbor_take_null(r) || !evp_typed_enter(r, &class))
		return;
	while (evp_typed_field(r, &key))
		event_field(r, a, key);
	if (evp_typed_leave(r))
		a->event = (evp_slice_t) {.owner = r->owner,.p = start,.n = (size_t) (r->p - start)};
}

static void
command_response_field(evp_cbor_t *r, evp_graph_response_t *a, evp_slice_t key)
{
	if (evp_slice_is(key, "domainEventMessage"))
		domain_event(r, a);
	else if (evp_slice_is(key, "serializedAggregateState"))
	{
		a->has_state = evp_cbor_peek(r) != EVP_CBOR_NULL;
		if (serialized(r, &a->state_object, &a->state_class) && a->state_class.p != NULL && a->state_object.p == NULL)
			evp_cbor_fail(r, "aggregate state without serializedObject");
	}
	else if (evp_slice_is(key, "aggregateDeleted"))
		bool_or_null(r, &a->aggregate_deleted);
	else
		evp_cbor_skip(r, NULL);
}

static evp_graph_response_kind_t
response_kind(evp_slice_t class)
{
	if (evp_slice_is(class, CLASS_COMMAND_RESPONSE))
		return EVP_RESPONSE_DOMAIN_COMMAND;
	if (evp_slice_is(class, CLASS_SERVICE_EVENT))
		return EVP_RESPONSE_SERVICE_EVENT;
	if (evp_slice_is(class, CLASS_EXCEPTION))
		return EVP_RESPONSE_EXCEPTION;
	return EVP_RESPONSE_OTHER;
}

static void
response_body(evp_cbor_t *r, evp_graph_response_t *a)
{
	const uint8_t *start = r->p;
	evp_slice_t key;

	a->kind = EVP_RESPONSE_OTHER;
	a->body_class = (evp_slice_t) {0};
	if (!evp_cbor_take_null(r))
	{
		if (!evp_typed_enter(r, &a->body_class))
			return;
		a->kind = response_kind(a->body_class);
		while (evp_typed_field(r, &key))
		{
			if (a->kind == EVP_RESPONSE_DOMAIN_COMMAND)
				command_response_field(r, a, key);
			else if (a->kind == EVP_RESPONSE_SERVICE_EVENT)
				event_field(r, a, key);
			else
				evp_cbor_skip(r, NULL);
		}
		evp_typed_leave(r);
	}
	a->body = (evp_slice_t) {.owner = r->owner,.p = start,.n = (size_t) (r->p - start)};
	if (a->kind == EVP_RESPONSE_SERVICE_EVENT)
		a->event = a->body;
}

int
evp_graph_response_parse(evp_graph_response_t *a, evp_slice_t payload, const char **reason)
{
	evp_slice_t class;
	evp_slice_t key;
	evp_cbor_t	r;

	*a = (evp_graph_response_t) {.kind = EVP_RESPONSE_OTHER};
	a->payload = evp_slice_ref(payload);
	if (a->payload.p == NULL)
	{
		*reason = payload.p == NULL ? "no payload" : "out of memory";
		return -1;
	}
	evp_cbor_init(&r, a->payload, &a->arena);
	if (evp_typed_enter(&r, &class))
	{
		if (!evp_slice_is(class, EVP_CLASS_RESPONSE))
			evp_cbor_fail(&r, "payload is not an EventoResponse");
		while (evp_typed_field(&r, &key))
		{
			if (evp_slice_is(key, "body"))
				response_body(&r, a);
			else if (evp_slice_is(key, "correlationId"))
				evp_cbor_name_or_null(&r, &a->correlation_id);
			else
				evp_cbor_skip(&r, NULL);
		}
		evp_typed_leave(&r);
	}
	if (r.error == NULL && a->body.p == NULL)
		evp_cbor_fail(&r, "EventoResponse without a body");
	if (evp_cbor_done(&r))
		return 0;
	*reason = r.error;
	evp_graph_response_free(a);
	return -1;
}

void
evp_graph_response_free(evp_graph_response_t *a)
{
	evp_arena_free(&a->arena);
	evp_slice_unref(&a->payload);
	*a = (evp_graph_response_t) {.kind = EVP_RESPONSE_OTHER};
}

static void
open_list(evp_buf_t *b)
{
	evp_cbor_open_array(b);
	evp_cbor_put_str(b, CLASS_LIST);
	evp_cbor_open_array(b);
}

void
evp_graph_put_event(evp_buf_t *b, const evp_event_t *e)
{
	evp_typed_open(b, e->service ? CLASS_SERVICE_EVENT : CLASS_DOMAIN_EVENT);
	evp_cbor_put_str(b, "serializedPayload");
	evp_typed_open(b, CLASS_PAYLOAD);
	if (e->data.p != NULL)
		evp_payload_put(b, e->klass, e->type, e->data);
	else
		evp_payload_put_nothing(b);
	evp_typed_close(b);
	evp_typed_int(b, "timestamp", e->timestamp_ms);
	evp_cbor_put_str(b, "metadata");
	evp_metadata_put(b, e->metadata);
	evp_cbor_put_str(b, "forceTelemetry");
	evp_cbor_put_bool(b, e->force_telemetry);
	evp_cbor_put_str(b, "context");
	evp_cbor_put_slice(b, e->context.n == 0 ? evp_slice_str(DEFAULT_CONTEXT) : e->context);
	evp_typed_close(b);
}

void
evp_graph_put_no_event(evp_buf_t *b, int64_t timestamp_ms)
{
	evp_typed_open(b, CLASS_SERVICE_EVENT);
	evp_cbor_put_str(b, "serializedPayload");
	evp_typed_open(b, CLASS_PAYLOAD);
	evp_payload_put_nothing(b);
	evp_typed_close(b);
	evp_typed_int(b, "timestamp", timestamp_ms);
	evp_cbor_put_str(b, "metadata");
	evp_cbor_put_null(b);
	evp_cbor_put_str(b, "forceTelemetry");
	evp_cbor_put_bool(b, false);
	evp_cbor_put_str(b, "context");
	evp_cbor_put_str(b, DEFAULT_CONTEXT);
	evp_typed_close(b);
}

void
evp_graph_put_exception(evp_buf_t *b, const char *throwable, evp_slice_t message)
{
	evp_typed_open(b, CLASS_EXCEPTION);
	evp_cbor_put_str(b, "throwable");
	evp_cbor_put_str(b, throwable);
	evp_cbor_put_str(b, "message");
	evp_cbor_put_slice(b, message);
	evp_cbor_put_str(b, "stackTrace");
	evp_cbor_put_array_header(b, 0);
	evp_cbor_put_str(b, "cause");
	evp_cbor_put_null(b);
	evp_typed_close(b);
}

void
evp_graph_put_last_sequence(evp_buf_t *b, int64_t number)
{
	evp_typed_open(b, CLASS_LAST_RESPONSE);
	evp_typed_int(b, "number", number);
	evp_typed_close(b);
}

void
evp_graph_put_state(evp_buf_t *b, const evp_snapshot_t *snapshot)
{
	if (snapshot != NULL)
		evp_payload_put(b, snapshot->klass, (evp_slice_t) {0}, snapshot->state);
	else
		evp_payload_put_nothing(b);
}

bool
evp_graph_put_decorated(evp_buf_t *b, const evp_graph_request_t *command, evp_slice_t state, evp_slice_t events)
{
	const evp_slice_t all = command->payload;
	const evp_slice_t body = command->body;
	size_t		before = (size_t) (body.p - all.p);

	/* Only the body's bytes change; whatever else the caller wrote stays. */
	evp_buf_append(b, all.p, before);
	evp_typed_open(b, CLASS_DECORATED);
	evp_cbor_put_str(b, "commandMessage");
	evp_buf_append(b, body.p, body.n);
	evp_cbor_put_str(b, "serializedAggregateState");
	evp_typed_open(b, CLASS_STATE);
	evp_buf_append(b, state.p, state.n);
	evp_typed_close(b);
	evp_cbor_put_str(b, "eventStream");
	open_list(b);
	evp_buf_append(b, events.p, events.n);
	evp_typed_close(b);
	evp_typed_close(b);
	return evp_buf_append(b, body.p + body.n, all.n - before - body.n);
}

evp_graph_response_head_t
evp_graph_response_head(const evp_graph_request_t *request, int64_t now_ms)
{
	return (evp_graph_response_head_t) {
		.correlation_id = request->correlation_id,
		.timestamp_ms = now_ms,
		.request_timestamp_ms = request->timestamp_ms,
		.timeout = request->timeout,
		.unit = request->unit,
	};
}

void
evp_graph_response_open(evp_buf_t *b, const evp_graph_response_head_t *head)
{
	evp_typed_open(b, EVP_CLASS_RESPONSE);
	evp_cbor_put_str(b, "correlationId");
	evp_cbor_put_slice(b, head->correlation_id);
	evp_cbor_put_str(b, "body");
}

void
evp_graph_response_close(evp_buf_t *b, const evp_graph_response_head_t *head)
{
	evp_typed_int(b, "timestamp", head->timestamp_ms);
	evp_typed_int(b, "requestTimestamp", head->request_timestamp_ms);
	evp_typed_int(b, "timeout", head->timeout);
	evp_cbor_put_str(b, "unit");
	evp_cbor_put_slice(b, head->unit.p == NULL ? evp_slice_str("SECONDS") : head->unit);
	evp_typed_close(b);
}

bool
evp_graph_response_put(evp_buf_t *b, const evp_graph_response_head_t *head, evp_slice_t body)
{
	evp_graph_response_open(b, head);
	evp_buf_append(b, body.p, body.n);
	evp_graph_response_close(b, head);
	return !b->failed;
}

void
evp_graph_fetch_open(evp_buf_t *b, const evp_graph_response_head_t *head)
{
	evp_graph_response_open(b, head);
	evp_typed_open(b, CLASS_FETCHED);
	evp_cbor_put_str(b, "events");
	open_list(b);
}

void
evp_graph_fetch_add(evp_buf_t *b, const evp_event_t *e)
{
	evp_typed_open(b, CLASS_PUBLISHED);
	evp_typed_int(b, "eventSequenceNumber", e->position);
	evp_cbor_put_str(b, "aggregateId");
	evp_cbor_put_slice(b, e->stream);
	evp_cbor_put_str(b, "eventMessage");
	evp_graph_put_event(b, e);
	evp_cbor_put_str(b, "eventName");
	evp_cbor_put_slice(b, e->type);
	evp_typed_int(b, "createdAt", e->recorded_ms);
	evp_typed_close(b);
}

void
evp_graph_fetch_close(evp_buf_t *b, const evp_graph_response_head_t *head)
{
	evp_typed_close(b);				/* the list: its elements and its pair */
	evp_typed_close(b);
	evp_graph_response_close(b, head);
}
