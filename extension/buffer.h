/*
 * buffer.h
 *	  What the files that keep a transaction's appends know of each other.
 *
 * buffer.c     its streams and events until its end, and its savepoints
 * commit.c     PRE_COMMIT, COMMIT, ABORT
 */
#ifndef EVENTO_BUFFER_H
#define EVENTO_BUFFER_H

#include "evento.h"

/* What a transaction has appended so far. */
typedef struct AppendBuffer
{
	MemoryContext context;
	Oid			events_rel;		/* the table when the first append came */
	Oid			filenode;		/* its file; InvalidOid: look again */
	uint32		heads_epoch;	/* as it was before anything was looked at */
	struct entries_hash *by_name;
	EventoPending pending;
	MemoryContext rows;			/* of the events that are in memory */
	int			entries_size;
	int64		events_size;
	int64		newest_streamless;
	uint64		bytes;			/* of all rows, and of their places in the array */
	EventoLookup *lookup;
	SubTransactionId lookup_subid;
} AppendBuffer;

/* That of the running transaction; NULL before its first append. */
extern AppendBuffer *evento_buffer_current(void);

/* From here to the end of the transaction an append is refused. */
extern void evento_buffer_close(void);

/* The transaction has ended. */
extern void evento_buffer_end(void);

#endif							/* EVENTO_BUFFER_H */
