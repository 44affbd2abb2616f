/*
 * command_aggregate.c
 *    Domain commands: the story is loaded at version v, the handler asked, and
 *    its event appended where the aggregate is still at version v; where it is
 *    not, all of it again, on the new story.
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
#include "metrics.h"

/* Conflicts up to this many are answered at once, later ones after a pause that grows. */
#define TRIES_AT_ONCE	3
#define PAUSE_MOST		64

#define MAX_REQUEST		((size_t) 256 * 1024 * 1024)

static void load(evp_command_t *command);
static void append(evp_command_t *command);

static bool
locks_itself(const evp_command_t *command)
{
	return !evp_slice_is_null(command->graph->lock_id) && evp_slice_eq(command->graph->lock_id, command->graph->aggregate_id);
}

static void
drop_response(evp_command_t *command)
{
	if (command->has_response)
		evp_graph_response_free(&command->response);
	command->has_response = false;
}

/* Begins, or begins again after a lost lock. */
void
evp_command_aggregate(evp_command_t *command)
{
	drop_response(command);
	if (evp_now(command->proxy) >= command->request->deadline)
		evp_command_fail(command, EVP_EX_TIMEOUT, "other commands had the aggregate until the time was up");
	else if (evp_slice_is_null(command->graph->lock_id) || locks_itself(command))
		load(command);
	else
		evp_command_lock(command, load);
}

/* The aggregate changed under the command, or its lock was lost: all of it again, a bounded number of times. */
static void
try_again(evp_command_t *command, evp_command_step step)
{
	uint64_t	pause;

	drop_response(command);
	command->tries++;
	if (command->tries >= command->proxy->config.command_tries)
	{
		char		text[120];

		snprintf(text, sizeof(text), "the aggregate changed under the command %u times", command->tries);
		evp_command_answer_exception(command, evp_slice_str(text));
		return;
	}
	if (command->tries <= TRIES_AT_ONCE)
	{
		evp_command_next(command, step);
		return;
	}
	if (command->lock == NULL && locks_itself(command))
	{
		/* Callers at other proxies want the same aggregate all the time: from here on in turn with them. */
		evp_command_lock(command, step);
		return;
	}
	pause = UINT64_C(4) << (command->tries - TRIES_AT_ONCE < 4 ? command->tries - TRIES_AT_ONCE : 4);
	if (pause > PAUSE_MOST)
		pause = PAUSE_MOST;
	evp_command_delay(command, (uint64_t) random() % pause + 1, step);
}

/* ---- append ---- */

static void
on_appended(void *arg, evp_store_status_t status, int64_t first, int64_t last, const char *message)
{
	evp_command_t *command = arg;
	const evp_graph_response_t *response = &command->response;

	(void) first;
	(void) last;
	if (evp_command_store_done(command))
		return;
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
				try_again(command, load);
				return;
			}
			command->repeated = true;
			evp_command_next(command, load);
			return;
		case EVP_STORE_CONFLICT:
			EVP_COUNT(conflicts);
			try_again(command, load);
			return;
		case EVP_STORE_LOCKED:
			/* The handler's answer holds as long as the aggregate stays as it is. */
			evp_command_lock(command, append);
			return;
		case EVP_STORE_LOCK_LOST:
			evp_locks_release(command->lock);
			command->lock = NULL;
			try_again(command, evp_command_aggregate);
			return;
		case EVP_STORE_BUSY:
		case EVP_STORE_REFUSED:
		case EVP_STORE_AWAY:
			evp_command_store_failed(command, status, message);
			return;
	}
}

static void
append(evp_command_t *command)
{
	evp_pack_item_t item = {.flags = EVENTO_ITEM_IDS_KNOWN,.expected = command->head,.stream = command->graph->aggregate_id};

	if (!evp_command_may_start(command, evp_command_aggregate))
		return;
	if (command->lock == NULL && locks_itself(command))
		item.flags |= EVENTO_ITEM_UNLOCKED;
	evp_command_append(command, &item, false, on_appended);
}

/* ---- handler ---- */

static void
on_answer(void *arg, evp_call_status_t status, const evp_message_t *message)
{
	evp_command_t *command = arg;

	if (evp_command_call_failed(command, status, message))
		return;
	switch (command->response.kind)
	{
		case EVP_RESPONSE_EXCEPTION:
			evp_command_answer(command, command->response.payload);
			return;
		case EVP_RESPONSE_DOMAIN_COMMAND:
			if (evp_slice_is_null(command->response.event) || evp_slice_is_null(command->response.event_class))
			{
				/* Nothing happened. */
				evp_command_answer_body(command, command->response.event);
				return;
			}
			append(command);
			return;
		case EVP_RESPONSE_SERVICE_EVENT:
		case EVP_RESPONSE_OTHER:
			evp_command_fail(command, EVP_EX_STATE, "the handler's answer is none to a domain command");
			return;
	}
}

/* ---- story ---- */

static void
on_story(void *arg, evp_store_status_t status, const evp_story_t *story, const char *message)
{
	evp_command_t *command = arg;
	evp_snapshot_t snapshot;
	evp_buf_t	request;
	evp_blob_t *blob;

	if (evp_command_store_done(command))
		return;
	if (status != EVP_STORE_OK)
	{
		evp_command_store_failed(command, status, message);
		return;
	}
	if (story->stored != NULL)
	{
		evp_command_answer_event(command, story->stored);
		return;
	}
	if (!evp_command_may_start(command, evp_command_aggregate))
		return;
	command->head = story->head;
	if (story->has_snapshot)
	{
		snapshot.version = story->snapshot_version;
		snapshot.klass = story->snapshot_class;
		snapshot.state = story->snapshot_state;
	}
	evp_buf_init(&request, MAX_REQUEST);
	evp_graph_put_decorated(&request, command->graph, story->has_snapshot ? &snapshot : NULL, story->events, story->event_count);
	blob = evp_blob_from_buf(&request);
	if (blob == NULL)
	{
		evp_command_fail(command, EVP_EX_STATE, "the aggregate's story is too large to be sent to a handler");
		return;
	}
	evp_command_call(command, EVP_CALL_AGGREGATE, evp_slice_blob(blob), on_answer);
	evp_blob_unref(blob);
}

static void
load(evp_command_t *command)
{
	evp_slice_t name = command->graph->aggregate_id;

	drop_response(command);
	command->wait = EVP_WAIT_STORE;
	evp_store_load(command->proxy->store, (const char *) name.p, name.n, command->id,
				   command->graph->invalidate_snapshot ? EVP_LOAD_EVENTS : EVP_LOAD_SNAPSHOT,
				   evp_command_store_deadline(command), on_story, command);
}
