/*
 * spill.c
 *	  A temporary file in which a transaction puts what it cannot keep in memory
 *	  until its commit.
 *
 * The file is a stack of bytes: what is put comes to its end, a rollback to a
 * savepoint cuts it off.  It belongs to the transaction, not to the savepoint
 * in which it was begun, and counts against temp_file_limit.  Whoever has it
 * open closes it before the commit; an abort closes it by itself.
 *
 * A failed write leaves everything as it was: what is behind "flushed" stays
 * in the buffer, and is written to the same place by the next try.
 */
#include "postgres.h"

#include "commands/tablespace.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "evento.h"

#define SPILL_BUFFER (128 * 1024)

/* So many bytes are read at a time, at most. */
#define SPILL_CHUNK (1024 * 1024)

struct EventoSpill
{
	File		file;
	int64		flushed;		/* so many bytes are in the file */
	int			used;			/* and so many behind them in the buffer */
	char		buffer[SPILL_BUFFER];
};

EventoSpill *
evento_spill_open(void)
{
	EventoSpill *spill = palloc(sizeof(EventoSpill));
	ResourceOwner caller = CurrentResourceOwner;

	PrepareTempTablespaces();
	CurrentResourceOwner = TopTransactionResourceOwner;
	PG_TRY();
	{
		spill->file = OpenTemporaryFile(false);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = caller;
	}
	PG_END_TRY();
	spill->flushed = 0;
	spill->used = 0;
	return spill;
}

/* Writes the buffer behind what is in the file. */
static void
flush(EventoSpill *spill)
{
	int			done = 0;

	while (done < spill->used)
	{
		int			written;

		CHECK_FOR_INTERRUPTS();
		errno = 0;
		written = (int) FileWrite(spill->file, spill->buffer + done, spill->used - done,
								  spill->flushed + done, WAIT_EVENT_BUFFILE_WRITE);
		if (written <= 0)
		{
			/* A write that says nothing of an error has found no room. */
			if (errno == 0)
				errno = ENOSPC;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write to temporary file \"%s\": %m",
							FilePathName(spill->file))));
		}
		done += written;
	}
	spill->flushed += spill->used;
	spill->used = 0;
}

void
evento_spill_put(EventoSpill *spill, const void *data, Size len)
{
	const char *at = data;

	while (len > 0)
	{
		Size		n;

		if (spill->used == SPILL_BUFFER)
			flush(spill);
		n = Min(len, (Size) (SPILL_BUFFER - spill->used));
		memcpy(spill->buffer + spill->used, at, n);
		spill->used += (int) n;
		at += n;
		len -= n;
	}
}

int64
evento_spill_end(const EventoSpill *spill)
{
	return spill->flushed + spill->used;
}

void
evento_spill_cut(EventoSpill *spill, int64 end)
{
	Assert(end >= 0 && end <= evento_spill_end(spill));

	if (end >= spill->flushed)
		spill->used = (int) (end - spill->flushed);
	else
	{
		spill->flushed = end;
		spill->used = 0;
	}
}

void
evento_spill_get(EventoSpill *spill, int64 offset, void *data, Size len)
{
	char	   *to = data;

	if (offset < 0 || len > (Size) (evento_spill_end(spill) - offset))
		elog(ERROR, "reading behind the end of what was spilled");
	while (len > 0)
	{
		if (offset >= spill->flushed)
		{
			memcpy(to, spill->buffer + (offset - spill->flushed), len);
			break;
		}
		else
		{
			int			wanted = (int) Min(Min(len, SPILL_CHUNK), (Size) (spill->flushed - offset));
			int			n;

			CHECK_FOR_INTERRUPTS();
			n = (int) FileRead(spill->file, to, wanted, offset, WAIT_EVENT_BUFFILE_READ);
			if (n < 0)
				ereport(ERROR,
						(errcode_for_file_access(),
						 errmsg("could not read from temporary file \"%s\": %m",
								FilePathName(spill->file))));
			if (n == 0)
				ereport(ERROR,
						(errcode(ERRCODE_IO_ERROR),
						 errmsg("could not read from temporary file \"%s\": it ends at " INT64_FORMAT
								" of " INT64_FORMAT " bytes",
								FilePathName(spill->file), offset, spill->flushed)));
			to += n;
			offset += n;
			len -= n;
		}
	}
}

void
evento_spill_close(EventoSpill *spill)
{
	FileClose(spill->file);
	pfree(spill);
}
