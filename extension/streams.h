/*
 * streams.h
 *	  What the files that change streams as a whole know of each other.
 *
 * streams.c          delete_stream, tombstone_stream
 * snapshots.c        save_snapshot, drop_snapshots
 * stream_metadata.c  set_stream_metadata, stream_metadata
 * erase.c            erase_stream
 */
#ifndef EVENTO_STREAMS_H
#define EVENTO_STREAMS_H

#include "evento.h"

/* A stream that a function was given, with its lock held. */
typedef struct StreamArgument
{
	const char *name;			/* not terminated */
	int			len;
	bool		exists;			/* has a row, which row then holds; else that is all zeros */
	EventoStream row;
	bool		buffered;		/* this transaction has appended to it, and may go on */
	int64		head;			/* its last version, buffered ones too; 0: none */
} StreamArgument;

/*
 * Checks that this session may write, takes the stream's lock and looks it up.
 * what: name of the function, for errors; change: its row is going to change.
 */
extern void evento_stream_argument(text *name, const char *what, bool change, StreamArgument *stream);

/*
 * Empties the metadata of a stream whose lock the caller holds; the next
 * revision is one more than that.  False where there was none.
 */
extern bool evento_metadata_clear(const char *name, int len);

/*
 * Tells proxies, when this commits, that the story of a stream has become
 * another one though its version has not: they keep stories (NOTIFY
 * evento_story, with the stream's name).
 */
extern void evento_story_changed(const char *name, int len);

/* OID of a relation that the first version of the extension has not got; 42P01 without. */
extern Oid	evento_later_rel(const char *name);

#endif							/* EVENTO_STREAMS_H */
