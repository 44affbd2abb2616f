/*
 * workers.h
 *    Several processes on one bundle port, each a proxy of its own in the
 *    cluster, and the parent that watches them.
 */
#ifndef EVP_WORKERS_H
#define EVP_WORKERS_H

#include <stdbool.h>

#include "config.h"

#define EVP_WORKERS_MAX 64
#define EVP_WORKER_BEAT_MS 1000	/* a worker writes to its parent so often */

typedef struct evp_worker
{
	int			number;			/* from 0 */
	int			parent;			/* descriptor to write to: EVP_WORKER_READY, then EVP_WORKER_ALIVE again and again */
} evp_worker_t;

#define EVP_WORKER_READY "r"
#define EVP_WORKER_ALIVE "a"

/*
 * Starts as many workers as the settings say and comes back in each of them, with
 * its number; call it before anything has been made that a fork would share.  In
 * the parent it gives false, when all workers have ended, with the status to exit
 * with.  At SIGHUP the parent reads its settings again, from argc and argv too, as
 * each worker does: one that is started later has the same as the others.
 */
bool		evp_workers_run(evp_config_t *config, int argc, char **argv, evp_worker_t *worker, int *status);

#endif							/* EVP_WORKERS_H */
