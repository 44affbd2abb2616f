/*
 * evento_pause.c
 *	  For tests: stops a transaction between taking positions and committing,
 *	  while another session holds an advisory lock; or for a time when it has
 *	  committed, and others have not been told what it has changed.
 *
 * Preloaded behind evento.  A session that sets evento_pause.lock to a number
 * waits, at each commit that appends, for the advisory lock of that number; one
 * that sets evento_pause.committed_ms waits so long in each commit.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/resowner.h"

PG_MODULE_MAGIC;

/* What evento calls when positions are taken and rows written. */
extern void (*evento_published_hook) (void);

static int	pause_lock = 0;
static int	committed_ms = 0;
static void (*prev_published_hook) (void) = NULL;

static void
on_published(void)
{
	if (prev_published_hook != NULL)
		prev_published_hook();
	if (pause_lock != 0)
		(void) DirectFunctionCall1(pg_advisory_xact_lock_int8, Int64GetDatum(pause_lock));
}

/* Behind the callbacks for a commit, before other sessions are told of changes to the catalogs. */
static void
on_release(ResourceReleasePhase phase, bool commit, bool top_level, void *arg)
{
	if (phase == RESOURCE_RELEASE_BEFORE_LOCKS && commit && top_level && committed_ms > 0 && MyBackendType == B_BACKEND)
		pg_usleep(committed_ms * 1000L);
}

void		_PG_init(void);

void
_PG_init(void)
{
	DefineCustomIntVariable("evento_pause.lock",
							"Number of the advisory lock that commits with appends wait for.",
							"0 waits for none.",
							&pause_lock, 0, 0, INT_MAX,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("evento_pause.committed_ms",
							"How long commits take when they are done, before others are told.",
							NULL,
							&committed_ms, 0, 0, 10000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	RegisterResourceReleaseCallback(on_release, NULL);
	prev_published_hook = evento_published_hook;
	evento_published_hook = on_published;
}
