/*
 * history.h
 *	  What check.c holds against each other: the record of the writers, what
 *	  readers were given, and the final content of the log.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include "ledger.h"

/* An event as the log, a reader or a writer has it. */
typedef struct Seen
{
	int64_t		position;
	uint64_t	op;				/* the two halves of its id */
	uint64_t	event;
	int64_t		version;
	int			stream;			/* number, NO_STREAM, or OTHER_STREAM */
	bool		ours;			/* type Ledger: somebody must have sent it */
} Seen;

#define OTHER_STREAM (-2)		/* not one of the writers' */

typedef struct PastItem
{
	int			stream;
	int64_t		expected;
	int			events;
	bool		gone;
	int64_t		version;		/* that was acknowledged */
	int			first_event;	/* number within the operation */
} PastItem;

typedef enum PastOutcome
{
	PAST_UNKNOWN,
	PAST_OK,
	PAST_CONFLICT,
	PAST_FAILED
} PastOutcome;

typedef struct Past
{
	uint64_t	id;
	int64_t		invoked;		/* its first attempt */
	int64_t		again;			/* its last */
	int64_t		returned;		/* INT64_MAX: unknown */
	int64_t		first;			/* positions, 0 not asked */
	int64_t		last;
	char		kind;
	bool		row;
	bool		row_there;
	bool		doubtful;		/* some attempt had an unknown outcome */
	bool		lost;			/* acknowledged, and in a range that a failover lost */
	PastOutcome outcome;
	int			conflict_item;
	int64_t		found;
	int			nitems;
	int			nevents;
	size_t		first_event;	/* index in history.stored */
	PastItem	items[MAX_ITEMS];
} Past;

typedef struct Reader
{
	const char *file;
	Seen	   *seen;
	size_t		nseen;
	size_t		size;
} Reader;

typedef struct Jump
{
	int64_t		last;			/* positions between these were given up */
	int64_t		next;
} Jump;

typedef struct History
{
	Terms		terms;
	Past	   *past;
	size_t		npast;
	Seen	   *log;			/* in the order of the dump */
	size_t		nlog;
	const Seen **stored;		/* of each event of each operation: where it is, or NULL */
	size_t		nevents;
	uint64_t   *rows;
	size_t		nrows;
	Jump	   *jumps;
	size_t		njumps;
	Reader	   *readers;
	size_t		nreaders;
	bool		dumped;
} History;

extern void history_load(History *history, int nfiles, char **files);
extern Past *history_find(const History *history, uint64_t op);

/* Whether a failover may have lost what stood there. */
extern bool history_given_up(const History *history, int64_t position);

#endif							/* HISTORY_H */
