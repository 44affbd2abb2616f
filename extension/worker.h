/*
 * worker.h
 *	  What the background processes of evento have in common; for launcher.c,
 *	  worker.c and dbhook.c.
 */
#ifndef EVENTO_WORKER_H
#define EVENTO_WORKER_H

#include "port/atomics.h"

#define EVENTO_LIBRARY "evento"

/* Installs the handlers of a background process, and lets signals in. */
extern void evento_process_start(void);

/*
 * Sleeps until woken, or for timeout_ms (-1: for ever).  Told to go, it goes
 * with this code; in the middle of a turn that would be an error instead.
 *
 * woken is what those who wake raise before they set the latch, and a turn
 * lowers when it begins.  The latch alone does not tell: whatever a turn waits
 * for (a lock, a page that another process reads) waits on the same latch and
 * resets it.
 */
extern void evento_process_rest(pg_atomic_uint32 *woken, long timeout_ms, uint32 wait_event,
								int exit_code);

/* Register the launcher, and the hook on commands; only while libraries are preloaded. */
extern void evento_launcher_init(void);
extern void evento_dbhook_init(void);

#endif							/* EVENTO_WORKER_H */
