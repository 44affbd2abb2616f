/*
 * presence.c
 *	  Whether a proxy is there: a lock that the session of its control connection
 *	  holds, shared, for as long as it lasts.
 *
 * A process that is killed takes its connections with it, and the server ends
 * their sessions at once: its lock is free long before its lease has run out.
 * Who is unplugged or frozen keeps the session, and so what it has until its
 * lease ends.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"

/* Among advisory locks; see buffer.c, sequencer.c and consumers.c for the others. */
#define LOCKTAG_CLASS_PROXY 0xE7F0

/* After a start or a promotion proxies have this long to come back before one of them is taken for gone. */
#define RETURN_MS 2000

PG_FUNCTION_INFO_V1(evento_proxy_stays);
PG_FUNCTION_INFO_V1(evento_proxy_gone);

static void
proxy_tag(int64 proxy_id, LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) ((uint64) proxy_id >> 32), (uint32) proxy_id,
						 LOCKTAG_CLASS_PROXY);
}

/*
 * _proxy_stays(proxy_id): this session is a proxy's, and shows by its end that
 * the proxy is gone.  The lock is shared, because a connection that was lost
 * may have left a session behind that has not noticed.
 */
Datum
evento_proxy_stays(PG_FUNCTION_ARGS)
{
	uint64		unset = 0;
	LOCKTAG		tag;

	/* Without preload nobody gets a lock of a command. */
	if (!evento_shmem_ready() || RecoveryInProgress())
		PG_RETURN_VOID();
	pg_atomic_compare_exchange_u64(&evento_db()->proxies_since, &unset, (uint64) GetCurrentTimestamp());
	proxy_tag(PG_GETARG_INT64(0), &tag);
	if (!evento_lock_held_by_me(&tag, ShareLock))
		(void) LockAcquire(&tag, ShareLock, true, false);
	PG_RETURN_VOID();
}

/*
 * _proxy_gone(proxy_id): whether no session is that proxy's.  False, too, while
 * it may not have come back yet: the caller looks again.
 */
Datum
evento_proxy_gone(PG_FUNCTION_ARGS)
{
	TimestampTz since;
	LOCKTAG		tag;

	if (!evento_shmem_ready() || RecoveryInProgress())
		PG_RETURN_BOOL(false);
	since = (TimestampTz) pg_atomic_read_u64(&evento_db()->proxies_since);
	if (since == 0 || !TimestampDifferenceExceeds(since, GetCurrentTimestamp(), RETURN_MS))
		PG_RETURN_BOOL(false);
	proxy_tag(PG_GETARG_INT64(0), &tag);
	if (evento_lock_held_by_me(&tag, ShareLock) ||
		LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		PG_RETURN_BOOL(false);
	LockRelease(&tag, ExclusiveLock, false);
	PG_RETURN_BOOL(true);
}
