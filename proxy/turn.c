/*
 * turn.c
 *    "Call me once before the loop next waits."  A prepare handle makes the
 *    call; an idle handle keeps the loop from waiting where the wake came after
 *    this turn's prepare handles had run.
 */
#include "turn.h"

#include <stdlib.h>

static void
on_prepare(uv_prepare_t *handle)
{
	evp_turn_t *turn = handle->data;

	/* Asleep before the call: what the callback wakes is another turn's. */
	turn->awake = false;
	uv_prepare_stop(&turn->prepare);
	uv_idle_stop(&turn->idle);
	turn->cb(turn->arg);
}

static void
on_idle(uv_idle_t *handle)
{
	(void) handle;
}

void
evp_turn_init(evp_turn_t *turn, uv_loop_t *loop, evp_turn_cb cb, void *arg)
{
	/* These two cannot fail: they only fill the structs in. */
	uv_prepare_init(loop, &turn->prepare);
	uv_idle_init(loop, &turn->idle);
	turn->prepare.data = turn;
	turn->idle.data = turn;
	turn->cb = cb;
	turn->arg = arg;
	turn->awake = false;
	turn->stopped = false;
}

void
evp_turn_wake(evp_turn_t *turn)
{
	if (turn->awake || turn->stopped)
		return;
	turn->awake = true;
	uv_prepare_start(&turn->prepare, on_prepare);
	uv_idle_start(&turn->idle, on_idle);
}

void
evp_turn_stop(evp_turn_t *turn)
{
	if (turn->stopped)
		return;
	turn->stopped = true;
	uv_close((uv_handle_t *) &turn->prepare, NULL);
	uv_close((uv_handle_t *) &turn->idle, NULL);
}
