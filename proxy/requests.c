/*
 * requests.c
 *    Takes requests on, hands them out, answers each once, and sees to it that
 *    the answer reaches a caller that repeats itself or was away.
 */
#include "requests.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "callers.h"
#include "command.h"
#include "feed.h"
#include "link.h"
#include "log.h"
#include "metrics.h"
#include "payload.h"
#include "registry.h"
#include "router.h"
#include "session.h"
#include "wheel.h"

#define SWEEP_MS			250
#define DEFAULT_TIMEOUT_MS	30000
#define OVERDUE_MS			EVP_WHEEL_TICK_MS	/* whoever works on a request may say by itself that its time is up */

struct evp_requests
{
	evp_proxy_t *proxy;
	evp_callers_t callers;
	uv_timer_t	sweep;
	uv_timer_t	timer;			/* runs while the wheel holds something */
	evp_wheel_t wheel;			/* deadlines of open requests */
};

/* A request as others see it, and what it belongs to. */
typedef struct open_request
{
	evp_request_t public;		/* first */
	evp_entry_t *entry;			/* NULL once it is answered */
	uint64_t	begun;			/* uv_hrtime */
	evp_wheel_item_t due;
	char		names[];		/* the caller's key: bundle, zero byte, instance, zero byte */
} open_request_t;

/* Frees an entry, and gives back its request where it is open. */
static void
drop_entry(evp_requests_t *requests, evp_entry_t *entry)
{
	evp_request_t *request = entry->request;

	entry->request = NULL;
	evp_entry_free(&requests->callers, entry);
	if (request != NULL)
	{
		evp_wheel_remove(&requests->wheel, &((open_request_t *) request)->due);
		((open_request_t *) request)->entry = NULL;
		evp_request_unref(request);
	}
}

/* ---- answers ---- */

/* The whole of an answer in one block, with a reference for the caller; NULL without memory. */
static evp_blob_t *
join(const evp_slice_t *parts, size_t count)
{
	size_t		len = 0;
	evp_blob_t *blob;

	for (size_t i = 0; i < count; i++)
		len += parts[i].n;
	blob = evp_blob_alloc(len);
	if (blob == NULL)
		return NULL;
	len = 0;
	for (size_t i = 0; i < count; i++)
	{
		if (parts[i].n > 0)
			memcpy(blob->data + len, parts[i].p, parts[i].n);
		len += parts[i].n;
	}
	return blob;
}

/* The proxy where a caller is that is not connected here; 0: not known. */
static int64_t
proxy_of(evp_requests_t *requests, const evp_caller_t *caller)
{
	const evp_instance_t *instance = evp_members_instance(evp_registry_members(requests->proxy->registry), evp_caller_bundle(caller),
														  evp_caller_instance(caller));

	return instance != NULL && instance->session == NULL ? instance->proxy_id : 0;
}

/* Sends an answer to where its caller is; false when it is nowhere to be reached. */
static bool
send_answer(evp_requests_t *requests, const evp_caller_t *caller, const evp_parts_t *answer)
{
	int64_t		proxy_id;
	evp_blob_t *blob;
	bool		sent;

	if (caller->session != NULL)
		return evp_session_send_parts(caller->session, answer) == 0;
	proxy_id = proxy_of(requests, caller);
	if (proxy_id == 0)
		return false;
	blob = join(answer->part, answer->n);
	if (blob == NULL)
		return false;
	sent = evp_links_send_answer(requests->proxy->links, proxy_id, evp_caller_bundle(caller), evp_caller_instance(caller),
								 blob) == 0;
	evp_blob_unref(blob);
	return sent;
}

static void
trim(evp_requests_t *requests)
{
	evp_callers_trim(&requests->callers, requests->proxy->config.answer_bytes);
}

/* Sends an answer and puts its entry where it belongs then, which may end it; call trim behind it. */
static void
settle_answer(evp_requests_t *requests, evp_entry_t *entry)
{
	const evp_config_t *config = &requests->proxy->config;
	uint64_t	now = evp_now(requests->proxy);
	size_t		bytes = entry->answer.len + EVP_ENTRY_BYTES;
	bool		sent = send_answer(requests, entry->caller, &entry->answer);

	if (sent && !entry->command)
	{
		evp_recent_add(&requests->callers, entry, now);
		return;
	}
	evp_entry_remove(&requests->callers, entry);
	entry->sent_at = now;
	if (sent)
		evp_entry_add(&requests->callers, entry, EVP_ENTRY_KEPT, bytes, now + config->answer_keep);
	else
		evp_entry_add(&requests->callers, entry, EVP_ENTRY_AWAY, bytes, now + config->answer_away);
}

/* Sends an answer once more; where it cannot be sent it is kept for its caller, unless that has asked again. */
static void
send_recent(evp_requests_t *requests, evp_recent_t *recent)
{
	uint64_t	now = evp_now(requests->proxy);
	evp_entry_t *entry;

	if (send_answer(requests, recent->caller, &recent->answer))
	{
		evp_recent_sent(&requests->callers, recent, now);
		return;
	}
	if (evp_entry_find(recent->caller, recent->correlation) == NULL &&
		(entry = evp_entry_new(recent->caller, recent->correlation)) != NULL)
	{
		evp_parts_ref(&entry->answer, &recent->answer);
		entry->sent_at = recent->sent_at;
		evp_entry_add(&requests->callers, entry, EVP_ENTRY_AWAY, entry->answer.len + EVP_ENTRY_BYTES,
					  now + requests->proxy->config.answer_away);
	}
	evp_recent_free(&requests->callers, recent);
}

/* Encodes a RSP to a request; takes the fields beside type, correlation and time from rsp. */
static bool
pack_response(evp_parts_t *parts, evp_message_t *rsp, const uint8_t correlation[16])
{
	rsp->type = EVP_RSP;
	rsp->has_correlation = true;
	memcpy(rsp->correlation, correlation, 16);
	rsp->timestamp_ms = evp_wall_ms();
	return evp_message_pack(parts, rsp);
}

static evp_metric_kind_t
kind_of(const evp_request_t *request)
{
	switch (request->graph.kind)
	{
		case EVP_REQUEST_DOMAIN_COMMAND:
			return EVP_METRIC_AGGREGATE;
		case EVP_REQUEST_SERVICE_COMMAND:
			return EVP_METRIC_SERVICE;
		case EVP_REQUEST_QUERY:
			return EVP_METRIC_QUERY;
		case EVP_REQUEST_EVENT_FETCH:
			return EVP_METRIC_FETCH;
		case EVP_REQUEST_LAST_SEQUENCE:
			return EVP_METRIC_LAST_POSITION;
		case EVP_REQUEST_OTHER:
			break;
	}
	return EVP_METRIC_OTHER;
}

static evp_metric_outcome_t
outcome_of(const evp_message_t *rsp)
{
	if (!rsp->has_failure)
		return EVP_METRIC_ANSWERED;
	return evp_slice_is(rsp->failure_class, EVP_EX_TIMEOUT) ? EVP_METRIC_TIMEOUT :
		evp_slice_is(rsp->failure_class, EVP_EX_REFUSED) ? EVP_METRIC_REFUSED : EVP_METRIC_FAILED;
}

static void
respond(evp_request_t *request, evp_message_t *rsp)
{
	open_request_t *open = (open_request_t *) request;
	evp_requests_t *requests = request->proxy->requests;
	evp_entry_t *entry = open->entry;

	if (request->answered)
		return;
	request->answered = true;
	evp_wheel_remove(&requests->wheel, &open->due);
	evp_metrics.outcomes[kind_of(request)][outcome_of(rsp)]++;
	evp_histogram_add(&evp_metrics.request_seconds[kind_of(request)], &evp_bounds_seconds, (double) (uv_hrtime() - open->begun) / 1e9);
	if (entry == NULL)
		return;
	open->entry = NULL;
	entry->request = NULL;
	if (pack_response(&entry->answer, rsp, entry->correlation))
	{
		settle_answer(requests, entry);
		trim(requests);
	}
	else
	{
		evp_log(EVP_LOG_ERROR, "requests", NULL, "no memory for an answer to %s/%s", request->bundle, request->instance);
		drop_entry(requests, entry);
	}
	evp_request_unref(request);
}

void
evp_request_answer(evp_request_t *request, const evp_slice_t *parts, size_t count)
{
	evp_message_t rsp;
	evp_blob_t *joined = NULL;

	if (request->answered)
		return;
	memset(&rsp, 0, sizeof(rsp));
	rsp.payload_type = request->message.payload_type;
	if (count == 1)
		rsp.payload = parts[0];
	else
	{
		joined = join(parts, count);
		if (joined == NULL)
		{
			evp_request_fail(request, EVP_EX_STATE, "no memory for the answer");
			return;
		}
		rsp.payload = evp_slice_blob(joined);
	}
	respond(request, &rsp);
	evp_blob_unref(joined);
}

static void
count_failure(const char *exception_class)
{
	if (strcmp(exception_class, EVP_EX_TIMEOUT) == 0)
		EVP_COUNT(timeouts);
	else
		EVP_COUNT(failures);
}

static void
fill_failure(evp_message_t *rsp, const char *exception_class, evp_slice_t message)
{
	memset(rsp, 0, sizeof(*rsp));
	rsp->has_failure = true;
	rsp->failure_class = evp_slice_str(exception_class);
	rsp->failure_message = message;
	count_failure(exception_class);
}

void
evp_request_fail(evp_request_t *request, const char *exception_class, const char *message)
{
	evp_message_t rsp;

	if (request->answered)
		return;
	fill_failure(&rsp, exception_class, evp_slice_str(message));
	respond(request, &rsp);
}

evp_request_t *
evp_request_ref(evp_request_t *request)
{
	request->refs++;
	return request;
}

void
evp_request_unref(evp_request_t *request)
{
	if (--request->refs > 0)
		return;
	evp_graph_request_free(&request->graph);
	evp_message_free(&request->message);
	free(request);
}

/* ---- requests ---- */

/* Answers a request that was not taken on, so that nothing remembers it. */
static void
refuse(evp_session_t *session, const evp_message_t *req, const char *exception_class, const char *message)
{
	evp_message_t rsp;
	evp_parts_t parts;

	fill_failure(&rsp, exception_class, evp_slice_str(message));
	evp_metrics.outcomes[EVP_METRIC_OTHER][outcome_of(&rsp)]++;
	if (!pack_response(&parts, &rsp, req->correlation))
		return;
	evp_session_send_parts(session, &parts);
	evp_parts_free(&parts);
}

static void
on_query_done(void *arg, evp_call_status_t status, const evp_message_t *message)
{
	evp_request_t *request = arg;
	char		text[700];
	evp_slice_t name = request->graph.name.p != NULL ? request->graph.name : request->message.payload_type;

	switch (status)
	{
		case EVP_CALL_OK:
			evp_request_answer(request, &message->payload, 1);
			break;
		case EVP_CALL_FAILURE:
			if (!request->answered)
			{
				evp_message_t rsp;

				memset(&rsp, 0, sizeof(rsp));
				rsp.has_failure = true;
				rsp.failure_class = message->failure_class;
				rsp.failure_message = message->failure_message;
				rsp.failure_stack = message->failure_stack;
				EVP_COUNT(failures);
				respond(request, &rsp);
			}
			break;
		case EVP_CALL_NO_HANDLER:
			snprintf(text, sizeof(text), "no handler for %.*s", (int) (name.n > 512 ? 512 : name.n), (const char *) name.p);
			evp_request_fail(request, EVP_EX_STATE, text);
			break;
		case EVP_CALL_GONE:
			snprintf(text, sizeof(text), "the handler of %.*s is gone", (int) (name.n > 512 ? 512 : name.n), (const char *) name.p);
			evp_request_fail(request, EVP_EX_STATE, text);
			break;
		case EVP_CALL_TIMEOUT:
			snprintf(text, sizeof(text), "no answer from a handler of %.*s in time", (int) (name.n > 512 ? 512 : name.n),
					 (const char *) name.p);
			evp_request_fail(request, EVP_EX_TIMEOUT, text);
			break;
		case EVP_CALL_REFUSED:
			evp_request_fail(request, EVP_EX_REFUSED, "too many open calls to handlers");
			break;
	}
	evp_request_unref(request);
}

static void
start_query(evp_requests_t *requests, evp_request_t *request)
{
	evp_call_spec_t spec;
	evp_slice_t name = request->graph.name.p != NULL ? request->graph.name : request->message.payload_type;

	memset(&spec, 0, sizeof(spec));
	spec.kind = EVP_CALL_QUERY;
	spec.name = (const char *) name.p;
	spec.name_len = name.n;
	spec.payload_type = request->message.payload_type;
	spec.payload = request->message.payload;
	spec.source_bundle = request->message.source_bundle_id;
	spec.source_instance = request->message.source_instance_id;
	spec.source_version = request->message.source_bundle_version;
	spec.source = request->source;
	spec.deadline = request->deadline;
	evp_request_ref(request);
	if (evp_router_call(requests->proxy->router, &spec, on_query_done, request) == NULL)
	{
		evp_request_fail(request, EVP_EX_REFUSED, "no memory");
		evp_request_unref(request);
	}
}

/* May the session that it came from, which the request of one that leaves does not know, send it?  What it is served or
 * routed by counts, as does what it says it is. */
static bool
may_send(const evp_session_t *session, const evp_request_t *request)
{
	const evp_access_token_t *token = evp_session_info(session)->token;
	evp_slice_t type = request->message.payload_type;
	evp_slice_t name = request->graph.name;

	if (token == NULL || token->may_send.p == NULL)
		return true;
	/* What the proxy itself serves goes by the class of the body, under whatever name it comes. */
	if (request->graph.kind == EVP_REQUEST_EVENT_FETCH || request->graph.kind == EVP_REQUEST_LAST_SEQUENCE)
		name = evp_payload_name(request->graph.body_class);
	return !evp_slice_is_null(type) && evp_access_allows(&token->may_send, type) &&
		(evp_slice_is_null(name) || evp_access_allows(&token->may_send, name));
}

static void
dispatch(evp_requests_t *requests, const evp_session_t *session, evp_request_t *request)
{
	evp_proxy_t *proxy = requests->proxy;
	evp_slice_t type = request->message.payload_type;
	char		text[700];

	if (!may_send(session, request))
	{
		snprintf(text, sizeof(text), "the token of this bundle does not allow it to send %.*s", (int) (type.n > 512 ? 512 : type.n),
				 type.p != NULL ? (const char *) type.p : "");
		evp_request_fail(request, EVP_EX_SECURITY, text);
		return;
	}

	switch (request->graph.kind)
	{
		case EVP_REQUEST_DOMAIN_COMMAND:
		case EVP_REQUEST_SERVICE_COMMAND:
			evp_commands_start(proxy->commands, request);
			return;
		case EVP_REQUEST_EVENT_FETCH:
			evp_feed_fetch(proxy->feed, request);
			return;
		case EVP_REQUEST_LAST_SEQUENCE:
			evp_feed_last(proxy->feed, request);
			return;
		case EVP_REQUEST_QUERY:
			if (request->graph.name.p != NULL || type.p != NULL)
			{
				start_query(requests, request);
				return;
			}
			break;
		case EVP_REQUEST_OTHER:
			break;
	}
	snprintf(text, sizeof(text), "no handler for %.*s", (int) (type.n > 512 ? 512 : type.n), type.p != NULL ? (const char *) type.p : "");
	evp_request_fail(request, EVP_EX_STATE, text);
}

/* True when the request was seen before and is done with: in flight, or answered again with the same bytes.  Queries and
 * fetches that were answered simply run again. */
static bool
is_repeat(evp_requests_t *requests, evp_caller_t *caller, const evp_message_t *req)
{
	evp_entry_t *entry = evp_entry_find(caller, req->correlation);

	if (entry == NULL)
		return false;
	EVP_COUNT(requests_repeated);
	if (entry->list != EVP_ENTRY_OPEN)
	{
		settle_answer(requests, entry);
		trim(requests);
	}
	return true;
}

/* Ends the requests whose time is up. */
static void
on_due(uv_timer_t *timer)
{
	evp_requests_t *requests = timer->data;
	evp_wheel_item_t *item;

	while ((item = evp_wheel_turn(&requests->wheel, evp_now(requests->proxy))) != NULL)
	{
		open_request_t *open = (open_request_t *) ((char *) item - offsetof(open_request_t, due));

		evp_request_fail(&open->public, EVP_EX_TIMEOUT, "the request was not answered in time");
	}
	if (requests->wheel.count == 0)
		uv_timer_stop(timer);
}

static void
set_deadline(evp_requests_t *requests, open_request_t *open)
{
	if (requests->wheel.count == 0)
	{
		evp_wheel_init(&requests->wheel, evp_now(requests->proxy));
		uv_timer_start(&requests->timer, on_due, EVP_WHEEL_TICK_MS, EVP_WHEEL_TICK_MS);
	}
	evp_wheel_add(&requests->wheel, &open->due, open->public.deadline + OVERDUE_MS);
}

/* Makes an open request of a message, which is taken over; NULL without memory, and then nothing is changed. */
static evp_request_t *
request_new(evp_requests_t *requests, evp_caller_t *caller, evp_message_t *req, const evp_graph_request_t *graph)
{
	open_request_t *open = malloc(sizeof(*open) + caller->key_len + 1);
	evp_entry_t *entry = open != NULL ? evp_entry_new(caller, req->correlation) : NULL;
	uint64_t	timeout = req->timeout_ms > 0 ? (uint64_t) req->timeout_ms : DEFAULT_TIMEOUT_MS;
	uint64_t	now = evp_now(requests->proxy);

	if (entry == NULL)
	{
		free(open);
		return NULL;
	}
	if (timeout > requests->proxy->config.max_timeout)
		timeout = requests->proxy->config.max_timeout;
	memcpy(open->names, caller->key, caller->key_len + 1);
	open->public = (evp_request_t) {
		.proxy = requests->proxy,
		.refs = 1,				/* the entry's */
		.session = caller->session,
		.bundle = open->names,
		.instance = open->names + strlen(open->names) + 1,
		.message = *req,
		.graph = *graph,
		.received = now,
		.deadline = now + timeout,
	};
	memset(req, 0, sizeof(*req));
	open->entry = entry;
	open->begun = uv_hrtime();
	open->due = (evp_wheel_item_t) {0};
	set_deadline(requests, open);
	entry->request = &open->public;
	entry->command = graph->kind == EVP_REQUEST_DOMAIN_COMMAND || graph->kind == EVP_REQUEST_SERVICE_COMMAND;
	evp_entry_add(&requests->callers, entry, EVP_ENTRY_OPEN, open->public.message.payload.n + EVP_ENTRY_BYTES, 0);
	return &open->public;
}

/* Takes a request on; what its caller is told otherwise. */
static void
take(evp_requests_t *requests, evp_caller_t *caller, evp_session_t *session, evp_message_t *req)
{
	const evp_config_t *config = &requests->proxy->config;
	evp_graph_request_t graph;
	evp_request_t *request;
	const char *reason;
	char		text[256];

	if (is_repeat(requests, caller, req))
		return;
	if (caller->open >= config->max_requests || evp_metrics.requests_open >= config->max_requests_total ||
		evp_metrics.request_bytes + req->payload.n > config->request_bytes)
	{
		refuse(session, req, EVP_EX_REFUSED, caller->open >= config->max_requests ? "this instance has too many open requests" :
			   "this proxy has too many open requests");
		return;
	}
	if (req->payload.p == NULL)
	{
		refuse(session, req, EVP_EX_STATE, "unreadable request: it has no payload");
		return;
	}
	if (evp_graph_request_parse(&graph, req->payload, &reason) < 0)
	{
		snprintf(text, sizeof(text), "unreadable request: %s", reason);
		refuse(session, req, EVP_EX_STATE, text);
		return;
	}
	request = request_new(requests, caller, req, &graph);
	if (request == NULL)
	{
		evp_graph_request_free(&graph);
		refuse(session, req, EVP_EX_REFUSED, "no memory");
		return;
	}
	request->source = evp_session_info(session)->local_no;
	evp_request_ref(request);
	dispatch(requests, session, request);
	evp_request_unref(request);
}

void
evp_requests_request(evp_requests_t *requests, evp_session_t *session, evp_message_t *req)
{
	const evp_session_info_t *info = evp_session_info(session);
	/* One whose connection is let go has no session here any more, and may still have sent this. */
	evp_caller_t *caller = evp_caller_find(&requests->callers, info->bundle, info->instance, true);

	EVP_COUNT(requests);
	if (caller == NULL)
	{
		refuse(session, req, EVP_EX_REFUSED, "no memory");
		return;
	}
	/* Then its answer is waited for as that of one who has just left. */
	if (caller->session == NULL && caller->closed_at == 0)
		caller->closed_at = evp_now(requests->proxy);
	caller->pins++;
	take(requests, caller, session, req);
	caller->pins--;
	evp_caller_release(&requests->callers, caller);
}

/* ---- callers come and go ---- */

/* The open requests of a caller learn where it is. */
static void
tell_open(evp_caller_t *caller)
{
	evp_entry_t *entry;

	DL_FOREACH2(caller->own[EVP_ENTRY_OPEN], entry, own_next)
	{
		if (entry->request != NULL)
			entry->request->session = caller->session;
	}
}

/* The first of a caller's answers of one list that was sent at a time or later, NULL where none was.  Most were sent long before. */
static evp_entry_t *
sent_since(evp_entry_t *head, uint64_t since)
{
	evp_entry_t *entry = head == NULL ? NULL : head->own_prev;

	if (entry == NULL || entry->sent_at < since)
		return NULL;
	while (entry != head && entry->own_prev->sent_at >= since)
		entry = entry->own_prev;
	return entry;
}

/* Sends a caller's answers of one list again, from one on to the last that was sent by then. */
static void
send_own(evp_requests_t *requests, evp_entry_t *entry, uint64_t until)
{
	evp_entry_t *last = NULL;
	evp_entry_t *next;

	/* What is sent goes to the end of a list, behind the last that is looked at. */
	for (next = entry; next != NULL; next = next->own_next)
		last = next;
	for (; entry != NULL && entry->sent_at <= until; entry = next)
	{
		next = entry == last ? NULL : entry->own_next;
		settle_answer(requests, entry);
	}
}

/* Sends what is kept for a caller who has come back, here or elsewhere: what could not be sent, and what was sent so
 * shortly before its connection broke that it may not have got there.  The caller may be freed then. */
static void
send_kept(evp_requests_t *requests, evp_caller_t *caller)
{
	uint64_t	window = requests->proxy->config.answer_again;
	uint64_t	since = caller->closed_at > window ? caller->closed_at - window : 0;

	caller->pins++;
	if (!caller->has_read)
	{
		send_own(requests, sent_since(caller->own[EVP_ENTRY_KEPT], since), caller->closed_at);
		for (evp_recent_t *recent = caller->recent, *after; recent != NULL; recent = after)
		{
			after = recent->caller_next;
			if (recent->sent_at >= since && recent->sent_at <= caller->closed_at)
				send_recent(requests, recent);
		}
	}
	send_own(requests, caller->own[EVP_ENTRY_AWAY], UINT64_MAX);
	trim(requests);
	caller->pins--;
	evp_caller_release(&requests->callers, caller);
}

void
evp_requests_session_welcomed(evp_requests_t *requests, evp_session_t *session)
{
	const evp_session_info_t *info = evp_session_info(session);
	evp_caller_t *caller = evp_caller_find(&requests->callers, info->bundle, info->instance, true);

	if (caller == NULL)
	{
		evp_log(EVP_LOG_ERROR, "requests", NULL, "no memory for %s/%s", info->bundle, info->instance);
		return;
	}
	caller->session = session;
	tell_open(caller);
	send_kept(requests, caller);
}

void
evp_requests_session_closed(evp_requests_t *requests, evp_session_t *session)
{
	const evp_session_info_t *info = evp_session_info(session);
	evp_caller_t *caller = evp_caller_find(&requests->callers, info->bundle, info->instance, false);

	if (caller == NULL || caller->session != session)
		return;
	caller->session = NULL;
	caller->closed_at = evp_now(requests->proxy);
	caller->has_read = false;
	tell_open(caller);
	if (proxy_of(requests, caller) != 0)
		send_kept(requests, caller);
	else
		evp_caller_release(&requests->callers, caller);
}

void
evp_requests_session_read(evp_requests_t *requests, evp_session_t *session)
{
	const evp_session_info_t *info = evp_session_info(session);
	evp_caller_t *caller = evp_caller_find(&requests->callers, info->bundle, info->instance, false);

	if (caller != NULL && caller->session == NULL)
		caller->has_read = true;
}

void
evp_requests_left(const evp_requests_t *requests, size_t *open, size_t *away)
{
	const evp_config_t *config = &requests->proxy->config;
	const evp_entry_t *entry;

	*open = evp_metrics.requests_open;
	*away = 0;
	DL_FOREACH(requests->callers.lists[EVP_ENTRY_AWAY], entry)
	{
		*away += entry->caller->closed_at + config->cut_time > evp_now(requests->proxy);
	}
}

void
evp_requests_instance_moved(evp_requests_t *requests, const char *bundle, const char *instance)
{
	evp_caller_t *caller = evp_caller_find(&requests->callers, bundle, instance, false);

	if (caller != NULL && caller->session == NULL)
		send_kept(requests, caller);
}

void
evp_requests_proxy_found(evp_requests_t *requests, int64_t proxy_id)
{
	evp_entry_t *entry = requests->callers.lists[EVP_ENTRY_AWAY];
	evp_entry_t *last = entry != NULL ? entry->prev : NULL;
	evp_entry_t *next;

	/* One that cannot be sent this time either goes to the end of the list, behind the last that is looked at. */
	for (; entry != NULL; entry = next)
	{
		next = entry != last ? entry->next : NULL;
		if (entry->caller->session == NULL && proxy_of(requests, entry->caller) == proxy_id)
			settle_answer(requests, entry);
	}
	trim(requests);
}

void
evp_requests_deliver(evp_requests_t *requests, const char *bundle, const char *instance, evp_blob_t *rsp)
{
	evp_caller_t *caller;
	evp_entry_t *entry;
	evp_message_t message;
	const char *reason;

	if (evp_message_decode(&message, rsp, &reason) < 0 || message.type != EVP_RSP || !message.has_correlation)
	{
		evp_log(EVP_LOG_WARNING, "requests", NULL, "another proxy brought an answer that cannot be read");
		return;
	}
	caller = evp_caller_find(&requests->callers, bundle, instance, true);
	if (caller == NULL)
	{
		evp_message_free(&message);
		return;
	}
	entry = evp_entry_find(caller, message.correlation);
	if (entry != NULL && entry->list == EVP_ENTRY_OPEN)
	{
		/* The caller has repeated its request here meanwhile: this is the answer to that as well. */
		evp_request_t *request = evp_request_ref(entry->request);

		respond(request, &message);
		evp_request_unref(request);
	}
	else if (entry == NULL && (entry = evp_entry_new(caller, message.correlation)) != NULL)
	{
		evp_parts_blob(&entry->answer, evp_blob_ref(rsp));
		entry->command = true;
		evp_entry_add(&requests->callers, entry, EVP_ENTRY_OPEN, 0, 0);
		settle_answer(requests, entry);
		trim(requests);
	}
	else
		evp_caller_release(&requests->callers, caller);
	evp_message_free(&message);
}

/* ---- beginning, time, end ---- */

static void
on_sweep(uv_timer_t *timer)
{
	evp_requests_t *requests = timer->data;
	uint64_t	now = evp_now(requests->proxy);
	uint64_t	again = requests->proxy->config.answer_again;

	for (int list = EVP_ENTRY_AWAY; list < EVP_ENTRY_LISTS; list++)
	{
		while (requests->callers.lists[list] != NULL && requests->callers.lists[list]->ends_at <= now)
			drop_entry(requests, requests->callers.lists[list]);
	}
	while (requests->callers.recent != NULL && requests->callers.recent->sent_at + again <= now)
		evp_recent_free(&requests->callers, requests->callers.recent);
}

evp_requests_t *
evp_requests_new(evp_proxy_t *proxy)
{
	evp_requests_t *requests = calloc(1, sizeof(*requests));

	if (requests == NULL)
	{
		evp_log(EVP_LOG_ERROR, "requests", NULL, "no memory");
		return NULL;
	}
	requests->proxy = proxy;
	/* Neither fails on a timer that is set up here. */
	uv_timer_init(proxy->loop, &requests->sweep);
	requests->sweep.data = requests;
	uv_timer_start(&requests->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	uv_timer_init(proxy->loop, &requests->timer);
	requests->timer.data = requests;
	return requests;
}

void
evp_requests_stop(evp_requests_t *requests)
{
	uv_close((uv_handle_t *) &requests->sweep, NULL);
	uv_close((uv_handle_t *) &requests->timer, NULL);
}

void
evp_requests_free(evp_requests_t *requests)
{
	for (int list = 0; list < EVP_ENTRY_LISTS; list++)
	{
		while (requests->callers.lists[list] != NULL)
			drop_entry(requests, requests->callers.lists[list]);
	}
	while (requests->callers.recent != NULL)
		evp_recent_free(&requests->callers, requests->callers.recent);
	free(requests);
}
