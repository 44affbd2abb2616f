/*
 * evento_pause.c
 *	  For tests: stops a transaction between taking positions and committing,
 *	  while another session holds an advisory lock.
 *
 * Preloaded behind evento.  A session that sets evento_pause.lock to a number
 * waits, at each commit that appends, for the advisory lock of that number.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

/* What evento calls when positions are taken and rows written. */
extern void (*evento_published_hook) (void);

static int	pause_lock = 0;
static void (*prev_published_hook) (void) = NULL;

static void
on_published(void)
{
	if (prev_published_hook != NULL)
		prev_published_hook();
	if (pause_lock != 0)
		(void) DirectFunctionCall1(pg_advisory_xact_lock_int8, Int64GetDatum(pause_lock));
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
	prev_published_hook = evento_published_hook;
	evento_published_hook = on_published;
}
