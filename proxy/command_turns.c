/*
 * command_turns.c
 *    Aggregates whose commands go in turn at all proxies, for commands at several
 *    of them got into each other's way there.  They are kept by name, since the
 *    word may come while no command on the aggregate is here, and the next one is
 *    to heed it.
 *
 *    The word holds for some seconds.  A command that has its turn, and a handler
 *    that takes longer, says it again.
 */
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#include "command_run.h"

#define IN_TURN_MS		3000
#define LOOK_MS			500
#define RENEW_MS		1500	/* the word is said again when it holds no longer than this */

/* So many aggregates are known at most.  Commands on one more compete for it, as they did before: the version decides. */
#define MARKS_MOST		4096

/* In the order in which they end. */
struct evp_command_mark
{
	UT_hash_handle hh;
	uint64_t	until;
	size_t		len;
	char		name[];
};

static evp_command_mark_t *
find(const evp_commands_t *commands, evp_slice_t name)
{
	evp_command_mark_t *mark;

	HASH_FIND(hh, commands->marks, name.p, name.n, mark);
	return mark;
}

static void
forget_past(evp_commands_t *commands, uint64_t now)
{
	evp_command_mark_t *mark;

	while ((mark = commands->marks) != NULL && mark->until <= now)
	{
		HASH_DEL(commands->marks, mark);
		free(mark);
	}
}

static void
on_look(uv_timer_t *timer)
{
	evp_commands_t *commands = timer->data;
	uint64_t	now = evp_now(commands->proxy);
	evp_command_t *command;

	DL_FOREACH(commands->all, command)
		if (command->in_turn && command->lock != NULL && command->wait != EVP_WAIT_LOCK)
		{
			const evp_command_mark_t *mark = find(commands, command->graph->aggregate_id);

			if (mark != NULL && mark->until < now + RENEW_MS)
				evp_command_call_for_turns(command);
		}
	forget_past(commands, now);
	if (commands->marks == NULL)
		uv_timer_stop(timer);
}

void
evp_command_turns_init(evp_commands_t *commands)
{
	uv_timer_init(commands->proxy->loop, &commands->look);
	commands->look.data = commands;
}

void
evp_command_turns_stop(evp_commands_t *commands)
{
	forget_past(commands, UINT64_MAX);
	uv_close((uv_handle_t *) &commands->look, NULL);
}

void
evp_command_go_in_turn(evp_commands_t *commands, evp_slice_t name)
{
	uint64_t	now = evp_now(commands->proxy);
	evp_command_mark_t *mark;

	if (commands->stopped)
		return;
	forget_past(commands, now);
	mark = find(commands, name);
	if (mark != NULL)
		HASH_DEL(commands->marks, mark);
	else if (HASH_COUNT(commands->marks) >= MARKS_MOST)
		return;
	else
	{
		mark = calloc(1, sizeof(*mark) + name.n);
		if (mark == NULL)
			return;
		mark->len = name.n;
		memcpy(mark->name, name.p, name.n);
	}
	mark->until = now + IN_TURN_MS;
	HASH_ADD(hh, commands->marks, name, mark->len, mark);
	if (!uv_is_active((uv_handle_t *) &commands->look))
		uv_timer_start(&commands->look, on_look, LOOK_MS, LOOK_MS);
}

bool
evp_command_is_in_turn(const evp_command_t *command)
{
	const evp_command_mark_t *mark = find(command->commands, command->graph->aggregate_id);

	return mark != NULL && evp_now(command->proxy) < mark->until;
}
