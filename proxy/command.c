/*
 * command.c
 *    Starts, delays and ends commands, and holds what domain and service commands
 *    share: lock, call, append, answers.
 */
#include "command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "command_run.h"
#include "db.h"
#include "log.h"
#include "metrics.h"
#include "registry.h"
#include "rows.h"
#include "uuid.h"

#define MODULE "command"

#define TICK_MS			10
#define STORY_AGE		60000	/* in case a change of a story should not be told */
#define MAX_ANSWER		((size_t) 256 * 1024 * 1024)
#define WRAPPING		256		/* what an answer has beside its body, about */
#define MAX_METADATA	((size_t) 64 * 1024 * 1024)

/* ---- waiting ---- */

void
evp_command_next(evp_command_t *command, evp_command_step step)
{
	command->wait = EVP_WAIT_TURN;
	command->step = step;
	DL_APPEND2(command->commands->ready, command, before, after);
	evp_turn_wake(&command->commands->turn);
}

static void
on_turn(void *arg)
{
	evp_commands_t *commands = arg;
	evp_command_t *command;

	while ((command = commands->ready) != NULL)
	{
		DL_DELETE2(commands->ready, command, before, after);
		command->step(command);
	}
}

static void
on_tick(uv_timer_t *timer)
{
	evp_commands_t *commands = timer->data;
	uint64_t	now = evp_now(commands->proxy);
	evp_command_t *command,
			   *next;

	DL_FOREACH_SAFE2(commands->delayed, command, next, after)
		if (command->resume_at <= now)
		{
			DL_DELETE2(commands->delayed, command, before, after);
			evp_command_next(command, command->step);
		}
	if (commands->delayed == NULL)
		uv_timer_stop(&commands->tick);
}

void
evp_command_delay(evp_command_t *command, uint64_t ms, evp_command_step step)
{
	evp_commands_t *commands = command->commands;

	command->wait = EVP_WAIT_DELAY;
	command->step = step;
	command->resume_at = evp_now(command->proxy) + ms;
	DL_APPEND2(commands->delayed, command, before, after);
	if (!uv_is_active((uv_handle_t *) &commands->tick))
		uv_timer_start(&commands->tick, on_tick, TICK_MS, TICK_MS);
}

/* ---- the end ---- */

void
evp_command_drop_response(evp_command_t *command)
{
	if (command->has_response)
		evp_graph_response_free(&command->response);
	command->has_response = false;
	evp_arena_free(&command->arena);
	evp_buf_free(&command->metadata);
}

static void
free_command(evp_command_t *command)
{
	evp_command_drop_response(command);
	evp_request_unref(command->request);
	free(command);
}

/* Ends a command that has been answered, whatever it waits for. */
static void
end(evp_command_t *command)
{
	evp_commands_t *commands = command->commands;
	evp_command_wait_t wait = command->wait;

	if (wait == EVP_WAIT_DELAY)
		DL_DELETE2(commands->delayed, command, before, after);
	if (command->call != NULL)
		evp_router_cancel(command->call);
	command->call = NULL;
	if (command->lock != NULL)
		evp_locks_release(command->lock);
	command->lock = NULL;
	evp_command_leave_queue(command);
	DL_DELETE(commands->all, command);
	if (wait == EVP_WAIT_STORE)
		command->abandoned = true;
	else
		free_command(command);
}

bool
evp_command_store_done(evp_command_t *command)
{
	if (command->abandoned)
	{
		free_command(command);
		return true;
	}
	/* Whatever comes next, the store has let go. */
	command->wait = EVP_WAIT_CALL;
	return false;
}

void
evp_command_fail(evp_command_t *command, const char *exception_class, const char *message)
{
	evp_request_fail(command->request, exception_class, message);
	end(command);
}

bool
evp_command_is_late(evp_command_t *command)
{
	if (!command->request->answered)
		return false;
	end(command);
	return true;
}

void
evp_command_answer(evp_command_t *command, evp_slice_t payload)
{
	evp_request_answer(command->request, &payload, 1);
	end(command);
}

static evp_graph_response_head_t
response_head(const evp_command_t *command)
{
	return evp_graph_response_head(command->graph, evp_wall_ms());
}

/* Answers with an EventoResponse that was written to a buffer, which is freed. */
static void
answer_buffer(evp_command_t *command, evp_buf_t *b)
{
	evp_blob_t *blob = evp_blob_from_buf(b);

	if (blob == NULL)
	{
		evp_command_fail(command, EVP_EX_STATE, "the answer is too large");
		return;
	}
	evp_command_answer(command, evp_slice_blob(blob));
	evp_blob_unref(blob);
}

void
evp_command_answer_body(evp_command_t *command, evp_slice_t body)
{
	evp_graph_response_head_t head = response_head(command);
	static const uint8_t null[] = {0xf6};
	evp_buf_t	b;

	evp_buf_init(&b, MAX_ANSWER);
	evp_buf_reserve(&b, body.n + WRAPPING);
	evp_graph_response_put(&b, &head, evp_slice_is_null(body) ? evp_slice_of(null, sizeof(null)) : body);
	answer_buffer(command, &b);
}

void
evp_command_answer_event(evp_command_t *command, const evp_event_t *event)
{
	evp_graph_response_head_t head = response_head(command);
	evp_buf_t	b;

	evp_buf_init(&b, MAX_ANSWER);
	evp_graph_response_open(&b, &head);
	evp_graph_put_event(&b, event);
	evp_graph_response_close(&b, &head);
	answer_buffer(command, &b);
}

void
evp_command_answer_exception(evp_command_t *command, evp_slice_t message)
{
	evp_graph_response_head_t head = response_head(command);
	evp_buf_t	b;

	evp_buf_init(&b, MAX_ANSWER);
	evp_graph_response_open(&b, &head);
	evp_graph_put_exception(&b, "java.lang.RuntimeException", message);
	evp_graph_response_close(&b, &head);
	answer_buffer(command, &b);
}

/* ---- locks ---- */

static void
on_lock(void *arg, evp_lock_status_t status, int64_t fence)
{
	evp_command_t *command = arg;

	command->wait = EVP_WAIT_CALL;
	if (status == EVP_LOCK_HELD)
	{
		command->fence = fence;
		evp_command_next(command, command->step);
		return;
	}
	command->lock = NULL;
	if (status == EVP_LOCK_TIMEOUT)
		evp_command_fail(command, EVP_EX_TIMEOUT, "others had the lock until the time was up");
	else
		evp_command_fail(command, EVP_EX_STATE, "the lock could not be taken: the database is not reachable");
}

static void
take_ticket(evp_command_t *command, const char *name, size_t len, bool in_turn, evp_command_step step)
{
	if (command->lock != NULL)
		evp_locks_release(command->lock);
	command->wait = EVP_WAIT_LOCK;
	command->step = step;
	command->in_turn = in_turn;
	command->lock = evp_locks_take(command->proxy->locks, name, len, evp_command_store_deadline(command), on_lock, command);
}

void
evp_command_lock(evp_command_t *command, evp_command_step step)
{
	evp_slice_t name = command->graph->lock_id;

	take_ticket(command, (const char *) name.p, name.n, false, step);
}

/* A name for its turn that no lockId has, unless somebody wants to: it begins with a control character. */
void
evp_command_take_turn(evp_command_t *command, evp_command_step step)
{
	evp_slice_t aggregate = command->graph->aggregate_id;
	char		name[EVENTO_MAX_STREAM_LEN];
	size_t		len = aggregate.n < sizeof(name) - 1 ? aggregate.n : sizeof(name) - 1;

	/* The name of an aggregate that is as long as may be loses its last byte: two of them have the same turns then. */
	while (len < aggregate.n && len > 0 && (aggregate.p[len] & 0xc0) == 0x80)
		len--;
	name[0] = '\x01';
	memcpy(name + 1, aggregate.p, len);
	take_ticket(command, name, len + 1, true, step);
}

void
evp_command_call_for_turns(evp_command_t *command)
{
	static const Oid types[] = {EVP_OID_TEXT};
	static const int formats[] = {1};
	evp_slice_t name = command->graph->aggregate_id;
	const char *values[] = {(const char *) name.p};
	const int	lengths[] = {(int) name.n};

	evp_db_run(command->proxy->db, EVP_DB_CONTROL,
			   &(evp_db_statement_t) {.sql = "SELECT pg_catalog.pg_notify('evento_turn', $1)",.nparams = 1,.types = types,.values = values,
			   .lengths = lengths,.formats = formats,.result_format = 1,.deadline = evp_command_store_deadline(command)}, NULL, NULL);
}

bool
evp_command_may_start(evp_command_t *command, evp_command_step again)
{
	if (command->lock == NULL || evp_registry_lease_ok(command->proxy->registry))
		return true;
	if (evp_now(command->proxy) >= command->request->deadline)
	{
		evp_command_fail(command, EVP_EX_TIMEOUT, "this proxy's registration ran out, and its locks with it");
		return false;
	}
	evp_locks_release(command->lock);
	command->lock = NULL;
	evp_command_delay(command, 100, again);
	return false;
}

/* ---- the handler ---- */

void
evp_command_call(evp_command_t *command, evp_call_kind_t kind, evp_slice_t payload, evp_call_cb cb)
{
	const evp_graph_request_t *graph = command->graph;
	evp_call_spec_t spec = {
		.kind = kind,
		.name = (const char *) graph->name.p,
		.name_len = graph->name.n,
		.payload_type = command->request->message.payload_type,
		.payload = payload,
		.as_server = true,
		.source = command->request->source,
		.deadline = command->request->deadline,
	};

	command->wait = EVP_WAIT_CALL;
	command->call = evp_router_call(command->proxy->router, &spec, cb, command);
	if (command->call == NULL)
		evp_command_fail(command, EVP_EX_REFUSED, "out of memory");
}

bool
evp_command_call_failed(evp_command_t *command, evp_call_status_t status, const evp_message_t *message)
{
	char		text[640];
	int			n = command->graph->name.n < 256 ? (int) command->graph->name.n : 256;
	const char *name = (const char *) command->graph->name.p;
	const char *reason;
	evp_slice_t why;

	command->call = NULL;
	switch (status)
	{
		case EVP_CALL_OK:
			if (evp_graph_response_parse(&command->response, message->payload, &reason) == 0)
			{
				command->has_response = true;
				return false;
			}
			snprintf(text, sizeof(text), "the handler's answer cannot be read: %s", reason);
			evp_command_fail(command, EVP_EX_STATE, text);
			return true;
		case EVP_CALL_FAILURE:
			/* The caller gets the handler's own words. */
			why = !evp_slice_is_null(message->failure_message) ? message->failure_message : message->failure_class;
			evp_command_answer_exception(command, evp_slice_is_null(why) ? evp_slice_str("the handler failed") : why);
			return true;
		case EVP_CALL_NO_HANDLER:
			snprintf(text, sizeof(text), "no handler for %.*s", n, name);
			evp_command_fail(command, EVP_EX_STATE, text);
			return true;
		case EVP_CALL_GONE:
			snprintf(text, sizeof(text), "the handler of %.*s was asked and is gone: it may have run", n, name);
			evp_command_fail(command, EVP_EX_STATE, text);
			return true;
		case EVP_CALL_TIMEOUT:
			snprintf(text, sizeof(text), "the handler of %.*s did not answer in time", n, name);
			evp_command_fail(command, EVP_EX_TIMEOUT, text);
			return true;
		case EVP_CALL_REFUSED:
			snprintf(text, sizeof(text), "too many calls are open, among them no room for %.*s", n, name);
			evp_command_fail(command, EVP_EX_REFUSED, text);
			return true;
	}
	abort();
}

/* ---- the store ---- */

uint64_t
evp_command_store_deadline(const evp_command_t *command)
{
	const evp_request_t *request = command->request;
	uint64_t	margin = (request->deadline - request->received) / 5;

	/* The caller is to hear why before it gives up by itself. */
	return request->deadline - (margin < 1000 ? margin : 1000);
}

void
evp_command_store_failed(evp_command_t *command, evp_store_status_t status, const char *message)
{
	evp_command_fail(command, status == EVP_STORE_BUSY ? EVP_EX_TIMEOUT : EVP_EX_STATE, message);
}

bool
evp_command_prepare(evp_command_t *command, bool service)
{
	const evp_graph_response_t *response = &command->response;
	evp_event_t *event = &command->event;
	evp_payload_t payload,
				state;
	const char *reason = NULL;
	int			has_metadata = 0;

	if (evp_payload_split(&payload, response->event_object, response->event_class, &command->arena, &reason) <= 0)
		goto refused;
	if (response->event_metadata.p != NULL &&
		(has_metadata = evp_metadata_to_json(&command->metadata, response->event_metadata, &reason)) < 0)
		goto refused;
	*event = (evp_event_t) {.has_id = true,.service = service};
	memcpy(event->id, command->id, sizeof(event->id));
	event->timestamp_ms = response->event_timestamp_ms;
	event->has_timestamp = event->timestamp_ms > 0;
	event->force_telemetry = response->event_force_telemetry;
	event->context = response->event_context;
	event->type = payload.type;
	event->klass = payload.klass;
	event->data = payload.data;
	if (has_metadata > 0)
		event->metadata = evp_slice_of(command->metadata.data, command->metadata.len);

	command->has_snapshot = !service && !response->aggregate_deleted && response->has_state && !evp_slice_is_null(response->state_class);
	if (command->has_snapshot)
	{
		if (evp_payload_split(&state, response->state_object, response->state_class, &command->arena, &reason) < 0)
			goto refused;
		command->snapshot = (evp_snapshot_t) {.klass = state.klass,.state = state.data};
	}
	return true;

refused:
	evp_command_fail(command, EVP_EX_STATE, reason != NULL ? reason : "the handler's event has no class");
	return false;
}

void
evp_command_append(evp_command_t *command, evp_pack_item_t *item, evp_append_cb cb)
{
	item->flags |= EVENTO_ITEM_SAME_ID_WINS;
	if (command->lock != NULL && !command->in_turn)
	{
		item->flags |= EVENTO_ITEM_LOCK;
		item->lock = command->graph->lock_id;
		item->fence = command->fence;
	}
	if (!command->event.service && command->response.aggregate_deleted)
		item->flags |= EVENTO_ITEM_DROP_SNAPSHOTS;
	else if (command->has_snapshot)
	{
		item->flags |= EVENTO_ITEM_SNAPSHOT;
		item->state_class = command->snapshot.klass;
		item->state = command->snapshot.state;
	}
	evp_store_class_seen(command->proxy->store, command->event.type, command->event.klass);
	item->events = &command->event;
	item->n_events = 1;
	command->wait = EVP_WAIT_STORE;
	evp_store_append(command->proxy->store, command->joint ? EVP_SOURCE_JOINT : command->request->source, item,
					 evp_command_store_deadline(command), cb, command);
}

/* ---- the module ---- */

/* What makes a command impossible to begin, or NULL. */
static const char *
what_is_wrong(const evp_graph_request_t *graph)
{
	bool		domain = graph->kind == EVP_REQUEST_DOMAIN_COMMAND;

	if (evp_slice_is_null(graph->name) || graph->name.n == 0)
		return "the command has no payload class";
	if (domain && evp_slice_is_null(graph->aggregate_id))
		return "the command has no aggregateId";
	if (!evp_slice_is_null(graph->aggregate_id) &&
		(graph->aggregate_id.n == 0 || graph->aggregate_id.n > EVENTO_MAX_STREAM_LEN))
		return "the command's aggregateId is not of 1 to 512 bytes";
	if (!evp_slice_is_null(graph->lock_id) && (graph->lock_id.n == 0 || graph->lock_id.n > EVENTO_MAX_STREAM_LEN))
		return "the command's lockId is not of 1 to 512 bytes";
	if ((!evp_slice_is_null(graph->aggregate_id) && memchr(graph->aggregate_id.p, 0, graph->aggregate_id.n) != NULL) ||
		(!evp_slice_is_null(graph->lock_id) && memchr(graph->lock_id.p, 0, graph->lock_id.n) != NULL))
		return "the command's aggregateId or lockId has a zero character";
	return NULL;
}

void
evp_commands_start(evp_commands_t *commands, evp_request_t *request)
{
	const char *wrong = what_is_wrong(&request->graph);
	evp_command_t *command;

	if (wrong != NULL || commands->stopped)
	{
		evp_request_fail(request, EVP_EX_STATE, wrong != NULL ? wrong : "the proxy is shutting down");
		return;
	}
	command = calloc(1, sizeof(*command));
	if (command == NULL)
	{
		evp_request_fail(request, EVP_EX_REFUSED, "out of memory");
		return;
	}
	command->proxy = commands->proxy;
	command->commands = commands;
	command->request = evp_request_ref(request);
	command->graph = &request->graph;
	command->since = -1;
	evp_buf_init(&command->metadata, MAX_METADATA);
	evp_uuid_event_id(evp_slice_str(request->bundle), evp_slice_str(request->instance), request->message.correlation,
					  request->graph.aggregate_id, command->id);
	DL_APPEND(commands->all, command);
	if (request->graph.kind == EVP_REQUEST_DOMAIN_COMMAND)
		evp_command_enter_queue(command, request->graph.aggregate_id, evp_command_aggregate);
	else
		evp_command_next(command, evp_command_service);
}

/* Somebody has changed a story otherwise than by an append. */
static void
on_story_changed(void *arg, const char *payload)
{
	evp_commands_t *commands = arg;

	commands->story_changes++;
	commands->story_changed_at = evp_now(commands->proxy);
	evp_command_story_changed(commands, evp_slice_str(payload));
}

static void
on_turns(void *arg, const char *payload)
{
	evp_command_go_in_turn(arg, evp_slice_str(payload));
}

/* What was told while nobody listened is not told again. */
static void
on_database(void *arg, bool up)
{
	evp_commands_t *commands = arg;

	(void) up;
	commands->story_changes++;
	commands->story_changed_at = evp_now(commands->proxy);
	evp_stories_clear(commands->stories);
}

evp_commands_t *
evp_commands_new(evp_proxy_t *proxy)
{
	evp_commands_t *commands = calloc(1, sizeof(*commands));

	if (commands != NULL)
		commands->stories = evp_stories_new(proxy->config.story_cache, STORY_AGE);
	if (commands == NULL || commands->stories == NULL)
	{
		free(commands);
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	commands->proxy = proxy;
	evp_turn_init(&commands->turn, proxy->loop, on_turn, commands);
	uv_timer_init(proxy->loop, &commands->tick);
	uv_timer_init(proxy->loop, &commands->sweep);
	commands->tick.data = commands;
	commands->sweep.data = commands;
	evp_command_turns_init(commands);
	evp_db_subscribe(proxy->db, on_database, commands);
	evp_db_listen(proxy->db, "evento_story", on_story_changed, commands);
	evp_db_listen(proxy->db, "evento_turn", on_turns, commands);
	return commands;
}

void
evp_commands_stop(evp_commands_t *commands)
{
	if (commands->stopped)
		return;
	commands->stopped = true;
	while (commands->all != NULL)
	{
		evp_command_t *command = commands->all;

		if (command->wait == EVP_WAIT_TURN)
			DL_DELETE2(commands->ready, command, before, after);
		evp_command_fail(command, EVP_EX_STATE, "the proxy is shutting down");
	}
	evp_turn_stop(&commands->turn);
	uv_close((uv_handle_t *) &commands->tick, NULL);
	uv_close((uv_handle_t *) &commands->sweep, NULL);
	evp_command_turns_stop(commands);
}

size_t
evp_commands_story_bytes(const evp_commands_t *commands)
{
	return evp_stories_bytes(commands->stories);
}

void
evp_commands_free(evp_commands_t *commands)
{
	if (commands != NULL)
		evp_stories_free(commands->stories);
	free(commands);
}
