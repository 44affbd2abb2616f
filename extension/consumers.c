/*
 * consumers.c
 *	  What the consumers in SQL need of C: their locks, and up to where a
 *	  checkpoint may be set.
 *
 * A consumer is changed under a heavyweight lock of its name, which its
 * transaction keeps to its end.  A row lock would do for the fence, but could
 * not be given back by one who finds the consumer taken, and cannot be had on
 * a consumer that another transaction is making.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"

#include "compat.h"
#include "evento.h"

/* Among advisory locks; see buffer.c and sequencer.c for the others. */
#define LOCKTAG_CLASS_CONSUMER 0xE7E8

#define MAX_CONSUMER_LEN 255

PG_FUNCTION_INFO_V1(evento_consumer_check);
PG_FUNCTION_INFO_V1(evento_consumer_lock);
PG_FUNCTION_INFO_V1(evento_consumer_unlock);
PG_FUNCTION_INFO_V1(evento_consumer_limit);

static void
name_tag(text *name, LOCKTAG *tag)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(name),
										   VARSIZE_ANY_EXHDR(name), 0);

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 LOCKTAG_CLASS_CONSUMER);
}

/*
 * _consumer_check(name, caller): raises where the caller, a function that
 * changes a consumer, cannot write here, or the name is no name.
 */
Datum
evento_consumer_check(PG_FUNCTION_ARGS)
{
	text	   *name = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	int			len;

	evento_check_write(PG_ARGISNULL(1) ? "_consumer_check" : text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a consumer must not be NULL")));
	len = VARSIZE_ANY_EXHDR(name);
	if (len < 1 || len > MAX_CONSUMER_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a consumer must have 1 to %d bytes, not %d",
						MAX_CONSUMER_LEN, len)));
	PG_RETURN_VOID();
}

/*
 * _consumer_lock(name, wait): takes the lock of a consumer to the end of the
 * transaction.  False where another transaction has it and wait is false.
 */
Datum
evento_consumer_lock(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag;

	name_tag(PG_GETARG_TEXT_PP(0), &tag);
	PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, false, !PG_GETARG_BOOL(1)) !=
				   LOCKACQUIRE_NOT_AVAIL);
}

/* _consumer_unlock(name): gives it back, for one who has changed nothing under it. */
Datum
evento_consumer_unlock(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag;

	name_tag(PG_GETARG_TEXT_PP(0), &tag);
	LockRelease(&tag, ExclusiveLock, false);
	PG_RETURN_VOID();
}

/*
 * _consumer_limit(): the watermark as it is now, which the row of _watermark
 * follows.  NULL where shared memory does not know yet, early after a start.
 */
Datum
evento_consumer_limit(PG_FUNCTION_ARGS)
{
	evento_check_preloaded();
	if (RecoveryInProgress() || !evento_positions_known(evento_db()))
		PG_RETURN_NULL();
	PG_RETURN_INT64(evento_watermark_now());
}
