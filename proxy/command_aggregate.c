/*
 * command_aggregate.c
 *    Domain commands: the story is loaded at version v, or kept from the command
 *    before, the handler asked, and its event appended where the aggregate is
 *    still at version v; where it is not, all of it again, on the new story.
 *
 *    A kept story may be behind, or ahead of what is stored.  An event that was
 *    made of it is no worse for that: it is stored if nothing else was in
 *    between.  Anything else that the handler says of a kept story, a refusal
 *    above all, is not passed on: the command is run again on one newly loaded.
 *    The same goes for a story that was loaded from a standby (reads.h).
 *
 *    Commands without a lock have nothing to take a ticket for.  After some
 *    conflicts they call for turns: for a while all proxies take a ticket of the
 *    proxies' own for each command on the aggregate, and none runs ahead.
 *
 *    A command whose lockId is its aggregateId takes no ticket: its place in the
 *    queue and the expected version keep others out.  It takes one after some
 *    conflicts, so that callers at several proxies who want the same aggregate
 *    all the time get it in turn; and where others hold a lock of that name, for
 *    then its append is refused.
 */
#include <stdio.h>
#include <stdlib.h>

#include "command_run.h"
#include "db.h"
#include "metrics.h"
#include "registry.h"

/* Conflicts up to this many are answered at once, later ones after a pause that grows. */
#define TRIES_AT_ONCE	3
#define PAUSE_MOST		64

/* So often a command is run again where others have changed its story, without an event, while its handler was at work. */
#define RERUNS_MOST		3

#define MAX_REQUEST		((size_t) 256 * 1024 * 1024)
#define WRAPPING		256		/* what the request of a handler has beside command, state and events, about */

static void load(evp_command_t *command);
static void append(evp_command_t *command);
static void ask(evp_command_t *command, evp_slice_t state, evp_slice_t events);

static bool
locks_itself(const evp_command_t *command)
{
	return !evp_slice_is_null(command->graph->lock_id) && evp_slice_eq(command->graph->lock_id, command->graph->aggregate_id);
}

static bool
needs_ticket(const evp_command_t *command)
{
	return !evp_slice_is_null(command->graph->lock_id) && !locks_itself(command);
}

/* ---- kept stories ---- */

/* May it be run on a story that is behind the log? */
static bool
takes_old_story(const evp_command_t *command)
{
	/* With a registration that was renewed just now, what changes stories is heard of. */
	if (!evp_db_is_up(command->proxy->db) || !evp_registry_lease_ok(command->proxy->registry))
		return false;
	/* One that has its answer already is not to be run, but to append what it has, with the aggregate to itself. */
	return !command->fresh && command->tries == 0 && command->lock == NULL && !command->has_response && !needs_ticket(command) &&
		!command->graph->invalidate_snapshot && !evp_command_queue_shared(command) && !evp_command_is_in_turn(command);
}

const evp_kept_story_t *
evp_command_kept_story(const evp_command_t *command)
{
	if (!takes_old_story(command))
		return NULL;
	return evp_stories_find(command->commands->stories, command->graph->aggregate_id, evp_now(command->proxy));
}

/* When this proxy last appended to the command's stream, or to one with the same hash. */
static uint64_t *
appended_at(const evp_command_t *command)
{
	evp_slice_t name = command->graph->aggregate_id;
	uint32_t	hash = 2166136261u;

	for (size_t i = 0; i < name.n; i++)
		hash = (hash ^ name.p[i]) * 16777619u;
	return &command->commands->appended_at[(hash ^ hash >> 16) & (EVP_APPENDED - 1)];
}

/* The event is a part of the story that the next command is run on. */
static void
tell_story(const evp_command_t *command)
{
	evp_stories_t *stories = command->commands->stories;

	if (command->response.aggregate_deleted || !command->event.has_timestamp)
		evp_stories_drop(stories, command->graph->aggregate_id);
	else
		evp_stories_add(stories, command->graph->aggregate_id, &command->event, command->has_snapshot ? &command->snapshot : NULL);
}

/* ---- beginning ---- */

/* Begins, or begins again. */
void
evp_command_aggregate(evp_command_t *command)
{
	const evp_kept_story_t *kept;

	evp_command_drop_response(command);
	if (evp_now(command->proxy) >= command->request->deadline)
	{
		evp_command_fail(command, EVP_EX_TIMEOUT, "other commands had the aggregate until the time was up");
		return;
	}
	if (needs_ticket(command) && command->lock == NULL)
	{
		evp_command_lock(command, load);
		return;
	}
	kept = evp_command_kept_story(command);
	if (kept != NULL)
	{
		EVP_COUNT(story_hits);
		command->kept = true;
		command->head = kept->head;
		command->epoch = evp_command_epoch(command);
		ask(command, evp_slice_of(kept->state.data, kept->state.len), evp_slice_of(kept->events.data, kept->events.len));
	}
	else if (evp_command_is_ahead(command))
	{
		/* The story that it was to be run on has gone since. */
		evp_command_requeue(command, evp_command_aggregate);
	}
	else if (command->lock == NULL && evp_command_is_in_turn(command))
		evp_command_take_turn(command, load);
	else
		load(command);
}

/* Its turn after conflicts. */
static void
again(evp_command_t *command)
{
	uint64_t	pause;

	/* The others have gone back to running ahead while it had its turn. */
	if (command->lock != NULL && command->in_turn && !evp_command_is_in_turn(command))
		evp_command_call_for_turns(command);
	/* Callers at other proxies want the same aggregate all the time: from here on in turn with them. */
	if (command->tries <= TRIES_AT_ONCE)
		evp_command_aggregate(command);
	else if (command->lock == NULL && locks_itself(command) && !evp_command_is_in_turn(command))
		evp_command_lock(command, load);
	else if (command->lock == NULL)
	{
		evp_command_call_for_turns(command);
		evp_command_take_turn(command, load);
	}
	else
	{
		if (!command->in_turn && !evp_command_is_in_turn(command))
			evp_command_call_for_turns(command);
		pause = UINT64_C(4) << (command->tries - TRIES_AT_ONCE < 4 ? command->tries - TRIES_AT_ONCE : 4);
		if (pause > PAUSE_MOST)
			pause = PAUSE_MOST;
		evp_command_delay(command, (uint64_t) random() % pause + 1, evp_command_aggregate);
	}
}

/* Runs it again with the aggregate to itself; one that holds a ticket has it still. */
static void
restart(evp_command_t *command, evp_command_step step)
{
	if (command->place == EVP_PLACE_RUNNING)
		evp_command_next(command, step);
	else
		evp_command_requeue(command, step);
}

/* The aggregate changed under the command, or its lock was lost: all of it again, a bounded number of times; until its time
 * is up where it goes in turn, for then only who does not has changed it. */
static void
try_again(evp_command_t *command)
{
	char		text[120];

	evp_command_drop_response(command);
	command->tries++;
	if (command->tries < command->proxy->config.command_tries || (command->lock != NULL && command->in_turn))
	{
		restart(command, again);
		return;
	}
	snprintf(text, sizeof(text), "the aggregate changed under the command %u times", command->tries);
	evp_command_answer_exception(command, evp_slice_str(text));
}

/* Runs it again on a story newly loaded, which is no try: what it was run on was only likely to be right. */
static void
run_fresh(evp_command_t *command)
{
	evp_command_drop_response(command);
	command->fresh = true;
	evp_command_requeue(command, evp_command_aggregate);
}

/* ---- append ---- */

/* With the ticket that the append lacked; the handler's answer holds as long as the aggregate stays as it is. */
static void
lock_and_append(evp_command_t *command)
{
	evp_command_lock(command, append);
}

static void
on_appended(void *arg, evp_store_status_t status, int64_t first, int64_t last, const char *message)
{
	evp_command_t *command = arg;
	const evp_graph_response_t *response = &command->response;

	(void) first;
	(void) last;
	if (evp_command_store_done(command))
		return;
	if (status != EVP_STORE_OK)
		evp_command_chain_broken(command);
	else
		*appended_at(command) = evp_now(command->proxy);
	switch (status)
	{
		case EVP_STORE_OK:
			evp_command_answer_body(command, response->event);
			return;
		case EVP_STORE_REPEAT:
			/* By another try of this request, perhaps with another event: that one is the answer, which a load finds.  If
			 * it does not, that is no reason to ask for ever. */
			if (command->repeated)
			{
				try_again(command);
				return;
			}
			command->repeated = true;
			command->fresh = true;
			restart(command, evp_command_aggregate);
			return;
		case EVP_STORE_CONFLICT:
			EVP_COUNT(conflicts);
			if (command->chained)
				run_fresh(command);
			else
				try_again(command);
			return;
		case EVP_STORE_LOCKED:
			/* One that was run on another's event goes with that, for the database has looked at the lock first. */
			if (command->chained)
				run_fresh(command);
			else
				restart(command, lock_and_append);
			return;
		case EVP_STORE_LOCK_LOST:
			evp_locks_release(command->lock);
			command->lock = NULL;
			try_again(command);
			return;
		case EVP_STORE_BUSY:
		case EVP_STORE_REFUSED:
		case EVP_STORE_AWAY:
			evp_command_store_failed(command, status, message);
			return;
	}
}

void
evp_command_send(evp_command_t *command)
{
	evp_pack_item_t item = {.expected = command->head,.stream = command->graph->aggregate_id};

	/*
	 * A story that was deleted meanwhile is another at the same version.  Only one that was loaded with nothing in it may
	 * be that of a deleted stream.
	 */
	if (command->kept || command->visible)
		item.flags |= EVENTO_ITEM_NOT_DELETED;
	/* Whoever has loaded the story has looked for the id as well. */
	if (!command->kept)
		item.flags |= EVENTO_ITEM_IDS_KNOWN;
	if (command->chained)
		item.flags |= EVENTO_ITEM_CHAINED;
	if ((command->lock == NULL || command->in_turn) && locks_itself(command))
		item.flags |= EVENTO_ITEM_UNLOCKED;
	evp_command_append(command, &item, on_appended);
}

/* Appends under a ticket, with the aggregate to itself. */
static void
append(evp_command_t *command)
{
	if (!evp_command_may_start(command, evp_command_aggregate))
		return;
	command->chained = false;
	command->joint = false;
	evp_stories_drop(command->commands->stories, command->graph->aggregate_id);
	evp_command_send(command);
}

/* ---- handler ---- */

static bool
has_event(const evp_graph_response_t *response)
{
	return response->kind == EVP_RESPONSE_DOMAIN_COMMAND && !evp_slice_is_null(response->event) &&
		!evp_slice_is_null(response->event_class);
}

static void
on_answer(void *arg, evp_call_status_t status, const evp_message_t *message)
{
	evp_command_t *command = arg;
	bool		changed;

	if (command->kept && status == EVP_CALL_FAILURE)
	{
		command->call = NULL;
		run_fresh(command);
		return;
	}
	if (evp_command_call_failed(command, status, message))
		return;
	changed = command->epoch != evp_command_epoch(command);
	if ((command->kept && (changed || !has_event(&command->response))) || (changed && command->reruns++ < RERUNS_MOST))
	{
		/* Where others have changed the story, its state may have what was erased of it: no snapshot must bring that back. */
		run_fresh(command);
		return;
	}
	switch (command->response.kind)
	{
		case EVP_RESPONSE_EXCEPTION:
			evp_command_answer(command, command->response.payload);
			return;
		case EVP_RESPONSE_DOMAIN_COMMAND:
			if (!has_event(&command->response))
			{
				/* Nothing happened. */
				evp_command_answer_body(command, command->response.event);
				return;
			}
			if (!evp_command_prepare(command, false))
				return;
			/* One that others change all the time gets no snapshot, and nothing is kept of it. */
			command->has_snapshot = command->has_snapshot && !changed;
			if (command->lock != NULL || changed)
				append(command);
			else
			{
				tell_story(command);
				evp_command_chain(command);
			}
			return;
		case EVP_RESPONSE_SERVICE_EVENT:
		case EVP_RESPONSE_OTHER:
			evp_command_fail(command, EVP_EX_STATE, "the handler's answer is none to a domain command");
			return;
	}
}

static void
ask(evp_command_t *command, evp_slice_t state, evp_slice_t events)
{
	evp_buf_t	request;
	evp_blob_t *blob;

	evp_buf_init(&request, MAX_REQUEST);
	evp_buf_reserve(&request, command->graph->payload.n + state.n + events.n + WRAPPING);
	evp_graph_put_decorated(&request, command->graph, state, events);
	blob = evp_blob_from_buf(&request);
	if (blob == NULL)
	{
		evp_command_fail(command, EVP_EX_STATE, "the aggregate's story is too large to be sent to a handler");
		return;
	}
	evp_command_call(command, EVP_CALL_AGGREGATE, evp_slice_blob(blob), on_answer);
	evp_blob_unref(blob);
}

/* ---- story ---- */

/* Asks the handler on a story that was loaded, and keeps that, unless it has changed on the way. */
static void
ask_on(evp_command_t *command, const evp_story_t *story)
{
	evp_commands_t *commands = command->commands;
	const evp_kept_story_t *kept = NULL;
	evp_snapshot_t snapshot = {.version = story->snapshot_version,.klass = story->snapshot_class,.state = story->snapshot_state};
	evp_buf_t	state,
				events;

	command->kept = story->standby;
	command->visible = story->visible;
	command->head = story->head;
	evp_command_ran_alone(command);
	evp_buf_init(&state, MAX_REQUEST);
	evp_buf_init(&events, MAX_REQUEST);
	evp_graph_put_state(&state, story->has_snapshot ? &snapshot : NULL);
	for (size_t i = 0; i < story->event_count && !events.failed; i++)
		if (!story->events[i].service)
			evp_graph_put_event(&events, &story->events[i]);
	/* One that was kept before may be another: this command's event must not go into it. */
	evp_stories_drop(commands->stories, command->graph->aggregate_id);
	if (evp_db_is_up(command->proxy->db) && command->changes == commands->story_changes && command->lock == NULL &&
		!command->graph->invalidate_snapshot)
		kept = evp_stories_put(commands->stories, command->graph->aggregate_id, story->head, &state, &events, evp_now(command->proxy));
	if (kept != NULL)
		ask(command, evp_slice_of(kept->state.data, kept->state.len), evp_slice_of(kept->events.data, kept->events.len));
	else if (!state.failed && !events.failed)
		ask(command, evp_slice_of(state.data, state.len), evp_slice_of(events.data, events.len));
	else
		evp_command_fail(command, EVP_EX_STATE, "the aggregate's story is too large to be sent to a handler");
	evp_buf_free(&state);
	evp_buf_free(&events);
}

static void
on_story(void *arg, evp_store_status_t status, const evp_story_t *story, const char *message)
{
	evp_command_t *command = arg;

	if (evp_command_store_done(command) || evp_command_is_late(command))
		return;
	if (status != EVP_STORE_OK)
		evp_command_store_failed(command, status, message);
	else if (story->stored != NULL && story->standby)
	{
		/* The primary may still wait for another standby to have it: that it is stored is the primary's to say. */
		command->fresh = true;
		load(command);
	}
	else if (story->stored != NULL)
		evp_command_answer_event(command, story->stored);
	else if (evp_command_may_start(command, evp_command_aggregate))
		ask_on(command, story);
}

static void
load(evp_command_t *command)
{
	evp_slice_t name = command->graph->aggregate_id;
	uint64_t	changed_at = command->commands->story_changed_at;
	uint64_t	since = *appended_at(command) > changed_at ? *appended_at(command) : changed_at;

	evp_command_drop_response(command);
	command->changes = command->commands->story_changes;
	command->epoch = evp_command_epoch(command);
	command->wait = EVP_WAIT_STORE;
	/* What was erased or deleted must not come back by a snapshot that is made of an old story. */
	if (takes_old_story(command))
		evp_store_load_near(command->proxy->store, command->request->source, (const char *) name.p, name.n, command->id, since,
							evp_command_store_deadline(command), on_story, command);
	else
		evp_store_load(command->proxy->store, command->request->source, (const char *) name.p, name.n, command->id,
				   command->graph->invalidate_snapshot ? EVP_LOAD_EVENTS : EVP_LOAD_SNAPSHOT,
				   evp_command_store_deadline(command), on_story, command);
}
