/*
 * turn.h
 *    "Call me once before the loop next waits": how modules gather what one
 *    turn of the loop brought and do it in one go, and how they keep the promise
 *    not to call back from within a call.
 */
#ifndef EVP_TURN_H
#define EVP_TURN_H

#include <stdbool.h>
#include <uv.h>

typedef void (*evp_turn_cb)(void *arg);

/* Embed it in something that lives until the loop has ended; the fields are turn.c's. */
typedef struct evp_turn
{
	uv_prepare_t prepare;
	uv_idle_t	idle;
	evp_turn_cb cb;
	void	   *arg;
	bool		awake;
	bool		stopped;
} evp_turn_t;

/* Sets up a turn on a loop; cb is called with arg once for any number of wakes. */
void evp_turn_init(evp_turn_t *turn, uv_loop_t *loop, evp_turn_cb cb, void *arg);

/* Asks for the call.  It comes before the loop next waits, and never from within this function. */
void evp_turn_wake(evp_turn_t *turn);

/* Closes the handles; wakes do nothing from now on. */
void evp_turn_stop(evp_turn_t *turn);

#endif /* EVP_TURN_H */
