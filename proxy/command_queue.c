/*
 * command_queue.c
 *    The commands on one aggregate that meet in this proxy: one after the other,
 *    so that they don't conflict with each other, and callers in turn.  That is
 *    for speed: what keeps commands apart across proxies is the expected version
 *    of the append.
 *
 *    A command does not wait for the commit of the one before it.  When the
 *    handler has answered, its event goes into the kept story, the command into
 *    the chain, and the next one is run on that story, which is ahead of the log.
 *    While an append is on its way the chain grows; then all of it is sent at
 *    once, so that it lies side by side in one batch.
 *
 *    Where one of them is not stored, what was run on its event is worth nothing,
 *    and must not be stored even if the version it expects should come about by
 *    another's event: in a batch EVENTO_ITEM_CHAINED sees to that; what has not
 *    been sent is run again, and so is the command whose handler is at work,
 *    which is what the epoch is for.
 */
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#include "command_run.h"

#define SWEEP_MS		250

/* Commands whose events are not stored yet, at most. */
#define AHEAD_MOST		64

/* So many commands are run alone, each on a story newly loaded, after one was not stored: others want the aggregate too. */
#define ALONE_AFTER		8

struct evp_command_queue
{
	UT_hash_handle hh;
	evp_command_t *running;
	evp_fair_t	waiting;		/* EVP_WAIT_QUEUE */
	evp_command_t *chain;		/* EVP_WAIT_CHAIN: the handler has answered, the append is not sent */
	evp_command_t *sent;		/* EVP_WAIT_STORE, in the order in which they were sent */
	unsigned	ahead;			/* in the chain, or sent */
	unsigned	alone;			/* commands still to be run alone */
	uint64_t	epoch;			/* changes where one was not stored */
	size_t		len;
	char		name[];
};

/* Ends commands whose time runs out while others have their aggregate. */
static void
on_sweep(uv_timer_t *timer)
{
	evp_commands_t *commands = timer->data;
	uint64_t	now = evp_now(commands->proxy);
	evp_command_t *command,
			   *next;

	DL_FOREACH_SAFE(commands->all, command, next)
		if (command->wait == EVP_WAIT_QUEUE && command->request->deadline <= now)
			evp_command_fail(command, EVP_EX_TIMEOUT, "other commands had the aggregate until the time was up");
	if (commands->queued == 0)
		uv_timer_stop(&commands->sweep);
}

/* first: before all others. */
static void
wait_in_queue(evp_command_t *command, evp_command_step step, bool first)
{
	evp_commands_t *commands = command->commands;

	command->place = EVP_PLACE_WAITING;
	command->wait = EVP_WAIT_QUEUE;
	command->step = step;
	(first ? evp_fair_put_first : evp_fair_put) (&command->queue->waiting, command->request->source, &command->turn);
	commands->queued++;
	if (!uv_is_active((uv_handle_t *) &commands->sweep))
		uv_timer_start(&commands->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
}

/* Takes a command out of where it is. */
static void
take_out(evp_command_t *command)
{
	evp_command_queue_t *queue = command->queue;

	switch (command->place)
	{
		case EVP_PLACE_RUNNING:
			queue->running = NULL;
			break;
		case EVP_PLACE_WAITING:
			evp_fair_remove(&queue->waiting, &command->turn);
			command->commands->queued--;
			break;
		case EVP_PLACE_CHAIN:
			DL_DELETE2(queue->chain, command, before, after);
			queue->ahead--;
			break;
		case EVP_PLACE_SENT:
			DL_DELETE2(queue->sent, command, before, after);
			queue->ahead--;
			break;
	}
}

/* May the next command be run now?  Alone in any case; while others are not stored yet, on a story that has their events. */
static bool
may_run(const evp_commands_t *commands, const evp_command_queue_t *queue, const evp_command_t *command)
{
	if (queue->chain == NULL && queue->sent == NULL)
		return true;
	return queue->ahead < AHEAD_MOST && evp_command_kept_story(command) != NULL && !commands->stopped;
}

static void
send_chain(evp_command_queue_t *queue)
{
	evp_command_t *command;
	bool		joint = false;

	queue->sent = queue->chain;
	queue->chain = NULL;
	/* One caller's place among the appends is no place for another's, who may not have thousands of them. */
	DL_FOREACH2(queue->sent, command, after)
		joint = joint || command->request->source != queue->sent->request->source;
	DL_FOREACH2(queue->sent, command, after)
	{
		command->place = EVP_PLACE_SENT;
		command->chained = command != queue->sent;
		command->joint = joint;
		evp_command_send(command);
	}
}

/* Sends the chain, and gives the next command its turn.  The queue is gone afterwards where nothing is left in it. */
static void
advance(evp_commands_t *commands, evp_command_queue_t *queue)
{
	evp_fair_item_t *first;
	evp_command_t *command;

	if (queue->sent == NULL && queue->chain != NULL && !commands->stopped)
		send_chain(queue);
	first = evp_fair_first(&queue->waiting);
	command = first != NULL ? EVP_FAIR_OF(first, evp_command_t, turn) : NULL;
	if (queue->running == NULL && command != NULL && may_run(commands, queue, command))
	{
		take_out(command);
		evp_fair_pass(&queue->waiting, command->request->source);
		command->place = EVP_PLACE_RUNNING;
		queue->running = command;
		evp_command_next(command, command->step);
	}
	if (queue->running == NULL && queue->waiting.count == 0 && queue->chain == NULL && queue->sent == NULL)
	{
		HASH_DEL(commands->queues, queue);
		free(queue);
	}
}

void
evp_command_enter_queue(evp_command_t *command, evp_slice_t name, evp_command_step step)
{
	evp_commands_t *commands = command->commands;
	evp_command_queue_t *queue;

	HASH_FIND(hh, commands->queues, name.p, name.n, queue);
	if (queue == NULL)
	{
		queue = calloc(1, sizeof(*queue) + name.n);
		if (queue == NULL)
			abort();
		queue->len = name.n;
		memcpy(queue->name, name.p, name.n);
		HASH_ADD(hh, commands->queues, name, queue->len, queue);
	}
	command->queue = queue;
	wait_in_queue(command, step, false);
	advance(commands, queue);
}

void
evp_command_leave_queue(evp_command_t *command)
{
	evp_command_queue_t *queue = command->queue;

	if (queue == NULL)
		return;
	take_out(command);
	command->queue = NULL;
	advance(command->commands, queue);
}

void
evp_command_requeue(evp_command_t *command, evp_command_step step)
{
	evp_command_queue_t *queue = command->queue;

	take_out(command);
	wait_in_queue(command, step, true);
	advance(command->commands, queue);
}

void
evp_command_chain(evp_command_t *command)
{
	evp_command_queue_t *queue = command->queue;

	take_out(command);
	command->place = EVP_PLACE_CHAIN;
	command->wait = EVP_WAIT_CHAIN;
	DL_APPEND2(queue->chain, command, before, after);
	queue->ahead++;
	advance(command->commands, queue);
}

/* What was run on a story that is worth nothing, and is not sent, is run again. */
static void
break_chain(evp_command_queue_t *queue)
{
	queue->epoch++;
	while (queue->chain != NULL)
	{
		/* From the last on, so that they wait in their order. */
		evp_command_t *last = queue->chain->before;

		take_out(last);
		evp_command_drop_response(last);
		wait_in_queue(last, evp_command_aggregate, true);
	}
}

void
evp_command_chain_broken(evp_command_t *command)
{
	evp_stories_drop(command->commands->stories, command->graph->aggregate_id);
	command->queue->alone = ALONE_AFTER;
	break_chain(command->queue);
}

void
evp_command_story_changed(evp_commands_t *commands, evp_slice_t name)
{
	evp_command_queue_t *queue;

	evp_stories_drop(commands->stories, name);
	HASH_FIND(hh, commands->queues, name.p, name.n, queue);
	if (queue == NULL)
		return;
	break_chain(queue);
	advance(commands, queue);
}

bool
evp_command_is_ahead(const evp_command_t *command)
{
	return command->queue->chain != NULL || command->queue->sent != NULL;
}

uint64_t
evp_command_epoch(const evp_command_t *command)
{
	return command->queue->epoch;
}

bool
evp_command_queue_shared(const evp_command_t *command)
{
	return command->queue->alone > 0;
}

void
evp_command_ran_alone(evp_command_t *command)
{
	if (command->queue->alone > 0)
		command->queue->alone--;
}
