/*
 * command_service.c
 *    Service commands: the handler is asked once, and the event that it may bring
 *    is appended to the stream that the command names, or to none.
 */
#include <stdio.h>

#include "command_run.h"
#include "feed.h"

#define WATERMARK_PAUSE 20

static void ask(evp_command_t *command);

static bool
has_stream(const evp_command_t *command)
{
	return !evp_slice_is_null(command->graph->aggregate_id);
}

/* ---- append ---- */

static void
on_stored(void *arg, evp_store_status_t status, const evp_story_t *story, const char *message)
{
	evp_command_t *command = arg;

	if (evp_command_store_done(command) || evp_command_is_late(command))
		return;
	if (status != EVP_STORE_OK)
		evp_command_store_failed(command, status, message);
	else if (story->stored != NULL)
		evp_command_answer_event(command, story->stored);
	else if (command->has_response)
	{
		/* Stored and hidden since, by a deletion of the stream. */
		evp_command_answer(command, command->response.payload);
	}
	else
		ask(command);
}

/* Is the event of this request stored already? */
static void
look(evp_command_t *command)
{
	evp_slice_t name = command->graph->aggregate_id;

	if (!has_stream(command))
	{
		ask(command);
		return;
	}
	command->wait = EVP_WAIT_STORE;
	evp_store_load(command->proxy->store, command->request->source, (const char *) name.p, name.n, command->id, EVP_LOAD_STORED,
				   evp_command_store_deadline(command), on_stored, command);
}

static void
on_appended(void *arg, evp_store_status_t status, int64_t first, int64_t last, const char *message)
{
	evp_command_t *command = arg;

	(void) first;
	(void) last;
	if (evp_command_store_done(command))
		return;
	switch (status)
	{
		case EVP_STORE_OK:
			evp_command_answer(command, command->response.payload);
			return;
		case EVP_STORE_REPEAT:
			/* By another try of this request, perhaps with another event: that one is the answer, where it can be found. */
			if (has_stream(command))
				look(command);
			else
				evp_command_answer(command, command->response.payload);
			return;
		case EVP_STORE_LOCK_LOST:
			/* The handler has run, and is not asked twice. */
			evp_command_fail(command, EVP_EX_STATE, "the handler has run, and its event was not stored: the lock was lost meanwhile");
			return;
		case EVP_STORE_CONFLICT:
		case EVP_STORE_LOCKED:
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
	evp_pack_item_t item = {.expected = EVENTO_EXPECTED_ANY,.stream = command->graph->aggregate_id};

	if (!has_stream(command))
	{
		/* A repeat of this append looks for its event behind this position. */
		command->since = evp_feed_watermark(command->proxy->feed);
		if (command->since < 0)
		{
			if (evp_now(command->proxy) >= evp_command_store_deadline(command))
				evp_command_fail(command, EVP_EX_STATE, "the handler has run, and its event was not stored: the database is not reachable");
			else
				evp_command_delay(command, WATERMARK_PAUSE, append);
			return;
		}
		item.flags |= EVENTO_ITEM_SINCE;
		item.since = command->since;
	}
	evp_command_append(command, &item, on_appended);
}

/* ---- handler ---- */

static void
on_answer(void *arg, evp_call_status_t status, const evp_message_t *message)
{
	evp_command_t *command = arg;

	if (evp_command_call_failed(command, status, message))
		return;
	if (command->response.kind == EVP_RESPONSE_SERVICE_EVENT && !evp_slice_is_null(command->response.event_class))
	{
		if (evp_command_prepare(command, true))
			append(command);
	}
	else
		evp_command_answer(command, command->response.payload);
}

static void
ask(evp_command_t *command)
{
	if (evp_command_may_start(command, evp_command_service))
		evp_command_call(command, EVP_CALL_SERVICE, command->graph->payload, on_answer);
}

void
evp_command_service(evp_command_t *command)
{
	if (evp_slice_is_null(command->graph->lock_id))
		look(command);
	else
		evp_command_lock(command, look);
}
