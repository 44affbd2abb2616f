/*
 * check.c
 *	  Holds the record of writers and readers against the final content of the
 *	  log, and prints a line for each violation.
 *
 * Streams are linearizable where one order of all their appends exists in which
 * each takes effect at one moment between its invocation and its return, and
 * each gets the answer that a stream at rest would have given: with head h, an
 * append expecting NULL or h is stored behind h, another is refused with "found
 * h".  In general such an order has to be searched for.  Here the versions give
 * it away: successful appends stand in the order of their versions (so versions
 * have to be dense, and the first of an append with an expected version is the
 * one behind that), and a conflict that found f stands between the append that
 * made f and the one that made f + 1; conflicts with the same f change nothing
 * and may stand in any order.  What is left to ask is whether moments can be
 * chosen that rise along this order: walking along it, give each operation the
 * latest invocation among it and all that stand before it (before its group,
 * for conflicts).  No earlier moment is possible, so the choice exists if and only if none of
 * these moments is behind the return of its operation.  Operations without an
 * answer return at the end of time: stored, they have taken effect, else never.
 * Streams are independent objects, and linearizability is local: each of them
 * being linearizable, all are.  Transactions over several streams are checked to
 * be stored all or nothing, in one block of positions.
 *
 * The same walk along all positions checks that the global order keeps to real
 * time: what returned before another was invoked stands before it.
 */
#include "history.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Violations by kind; each is printed so many times. */
#define PRINTED 5

typedef struct Count
{
	const char *kind;
	size_t		n;
} Count;
static Count counts[40];
static size_t violations;

static void __attribute__((format(printf, 2, 3)))
violation(const char *kind, const char *format,...)
{
	va_list		args;
	size_t		i = 0;

	violations++;
	while (counts[i].kind != NULL && strcmp(counts[i].kind, kind) != 0)
		i++;
	counts[i].kind = kind;
	if (++counts[i].n > PRINTED)
		return;
	printf("violation: %s: ", kind);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

#define ID "%016" PRIx64

/* ---- what the log has ---- */

static const PastItem *
item_of(const Past *past, uint64_t event)
{
	for (int i = 0; i < past->nitems; i++)
	{
		if (event < (uint64_t) (past->items[i].first_event + past->items[i].events))
			return &past->items[i];
	}
	return NULL;
}

/* Each event of the log was sent by somebody, for that stream, and not taken back. */
static void
place_events(History *history)
{
	for (size_t i = 0; i < history->nlog; i++)
	{
		const Seen *seen = &history->log[i];
		Past	   *past = history_find(history, seen->op);
		const PastItem *item = past != NULL ? item_of(past, seen->event) : NULL;
		const Seen **place;

		if (i > 0 && seen->position == history->log[i - 1].position)
			violation("position used twice", "%" PRId64 " in the log", seen->position);
		else if (i > 0 && seen->position < history->log[i - 1].position)
			die("the content of the log is not in order");
		if (item == NULL)
		{
			if (seen->ours || seen->stream >= 0)
				violation("sent by nobody", "event " ID " %" PRIu64 " at position %" PRId64, seen->op, seen->event, seen->position);
			continue;
		}
		place = &history->stored[past->first_event + seen->event];
		if (*place != NULL)
			violation("stored twice", "event %" PRIu64 " of operation " ID ", at positions %" PRId64 " and %" PRId64, seen->event,
					  past->id, (*place)->position, seen->position);
		*place = seen;
		if (seen->stream != item->stream)
			violation("in another stream", "event %" PRIu64 " of operation " ID " at position %" PRId64, seen->event, past->id, seen->position);
		if (item->gone)
			violation("stored though rolled back", "event %" PRIu64 " of operation " ID ", to a savepoint", seen->event, past->id);
		if (past->outcome == PAST_FAILED || past->outcome == PAST_CONFLICT)
			violation("stored though failed", "event %" PRIu64 " of operation " ID " at position %" PRId64, seen->event, past->id, seen->position);
	}
}

/* ---- operations ---- */

/* How many of the events that should be there are there. */
static int
count_stored(const History *history, const Past *past, int *wanted)
{
	int			there = 0;

	*wanted = 0;
	for (int i = 0; i < past->nitems; i++)
	{
		const PastItem *item = &past->items[i];

		for (int e = item->first_event; !item->gone && e < item->first_event + item->events; e++)
		{
			(*wanted)++;
			there += history->stored[past->first_event + (size_t) e] != NULL;
		}
	}
	return there;
}

/* A stored operation has the versions and positions that it was told, in one block. */
static void
check_places(const History *history, const Past *past)
{
	const Seen *before = NULL;

	for (int i = 0; i < past->nitems; i++)
	{
		const PastItem *item = &past->items[i];

		for (int e = item->first_event; !item->gone && e < item->first_event + item->events; e++)
		{
			const Seen *seen = history->stored[past->first_event + (size_t) e];
			int64_t		behind = item->first_event + item->events - 1 - e;

			if (before == NULL && past->first != 0 && seen->position != past->first)
				violation("another position than acknowledged", "operation " ID ": %" PRId64 ", not %" PRId64, past->id, seen->position, past->first);
			if (before != NULL && seen->position != before->position + 1)
				violation("positions not in one block", "operation " ID " at %" PRId64 " and %" PRId64, past->id, before->position, seen->position);
			before = seen;
			if (past->outcome == PAST_OK && seen->version != (item->stream == NO_STREAM ? 0 : item->version - behind))
				violation("another version than acknowledged", "operation " ID ", stream %d: %" PRId64 ", not %" PRId64, past->id, item->stream,
						  seen->version, item->version - behind);
			if (item->expected != EXPECT_ANY && seen->version != item->expected + 1 + e - item->first_event)
				violation("stored at another version than expected", "operation " ID ", stream %d: expected %" PRId64 ", stored at %" PRId64,
						  past->id, item->stream, item->expected, seen->version);
		}
	}
	if (before != NULL && past->last != 0 && before->position != past->last)
		violation("another position than acknowledged", "operation " ID ": ends at %" PRId64 ", not %" PRId64, past->id, before->position, past->last);
}

/* Whether something may be lost at all. */
static bool
lossy(const History *history)
{
	return history->terms.by_time ? history->terms.lossy_after != INT64_MAX : history->njumps > 0;
}

/* Whether a failover or a restore may have taken an operation away. */
static bool
may_be_lost(const History *history, const Past *past)
{
	if (history->terms.by_time)
		return lossy(history) && past->returned >= history->terms.lossy_after;
	if (history->njumps == 0)
		return false;
	return past->first == 0 || (history_given_up(history, past->first) && history_given_up(history, past->last));
}

static void
check_operations(History *history)
{
	for (size_t i = 0; i < history->nrows; i++)
	{
		Past	   *past = history_find(history, history->rows[i]);

		if (past == NULL || !past->row)
			violation("row of nobody", ID " in the user's table", history->rows[i]);
		else
			past->row_there = true;
	}
	for (size_t i = 0; i < history->npast; i++)
	{
		Past	   *past = &history->past[i];
		int			wanted;
		int			there = count_stored(history, past, &wanted);

		if (there != 0 && there != wanted)
			violation("torn", "operation " ID " (%c): %d of %d events are there", past->id, past->kind, there, wanted);
		else if (past->outcome == PAST_OK && there == 0)
		{
			past->lost = may_be_lost(history, past);
			if (!past->lost)
				violation("acknowledged and lost", "operation " ID " (%c), returned at %" PRId64, past->id, past->kind, past->returned);
		}
		if (past->row && past->row_there != (there > 0))
			violation("torn", "operation " ID " (%c): %d events are there, and %s row", past->id, past->kind, there, past->row_there ? "its" : "no");
		if (there > 0 && past->invoked > history->terms.absent_after)
			violation("stored though invoked later", "operation " ID " (%c), invoked at %" PRId64, past->id, past->kind, past->invoked);
		if (there == wanted)
			check_places(history, past);
	}
}

/* ---- streams ---- */

/* Something that has to take effect at its place in an order. */
typedef struct Step
{
	int			stream;
	int64_t		version;		/* of an event; of what a conflict found */
	bool		conflict;		/* behind the event of that version */
	const Past *past;
	int64_t		position;
} Step;

static int
compare_steps(const void *a, const void *b)
{
	const Step *x = a;
	const Step *y = b;

	if (x->stream != y->stream)
		return x->stream < y->stream ? -1 : 1;
	if (x->version != y->version)
		return x->version < y->version ? -1 : 1;
	return x->conflict - y->conflict;
}

/* Walks along one stream; steps[0 .. n - 1] in order. */
static void
check_stream(const Step *steps, size_t n, bool torn_off)
{
	int64_t		head = 0;
	int64_t		latest = INT64_MIN;	/* invocation of an append so far */
	int64_t		latest_read = INT64_MIN;	/* of a conflict so far */
	int64_t		latest_position = 0;
	const Past *last = NULL;

	for (size_t i = 0; i < n; i++)
	{
		const Step *step = &steps[i];
		int64_t		before = latest > latest_read ? latest : latest_read;

		if (!step->conflict)
		{
			if (step->version != head + 1)
				violation("versions not dense", "stream %d: %" PRId64 " behind %" PRId64, step->stream, step->version, head);
			if (step->position < latest_position)
				violation("versions against positions", "stream %d, version %" PRId64 " at %" PRId64, step->stream, step->version, step->position);
			latest_position = step->position;
			head = step->version;
			last = step->past;
			if (step->past == NULL)
				continue;
			if (step->past->returned < before)
				violation("not linearizable", "stream %d: version %" PRId64 " (operation " ID ") had returned before what stands in front of it was invoked",
						  step->stream, step->version, step->past->id);
			if (step->past->invoked > latest)
				latest = step->past->invoked;
			continue;
		}
		/* A failover takes away what a conflict has found. */
		if (torn_off)
			continue;
		if (step->version != head)
		{
			violation("conflict with a version that never was", "stream %d: operation " ID " found %" PRId64 ", the last is %" PRId64, step->stream,
					  step->past->id, step->version, head);
			continue;
		}
		for (size_t next = i + 1; i > 0 && next < n && steps[next].version <= head + 1; next++)
		{
			if (!steps[next].conflict && steps[next].past != NULL && steps[next].past == last)
				violation("conflict in the middle of an append", "stream %d: operation " ID " found version %" PRId64, step->stream, step->past->id, step->version);
		}
		if (step->past->items[step->past->conflict_item].expected == step->version)
			violation("conflict without reason", "stream %d: operation " ID " expected %" PRId64 " and found it", step->stream, step->past->id, step->version);
		if (step->past->returned < latest)
			violation("not linearizable", "stream %d: operation " ID " found version %" PRId64 ", which was not there yet", step->stream,
					  step->past->id, step->version);
		if (step->past->again > latest_read)
			latest_read = step->past->again;
	}
}

static void
check_streams(const History *history)
{
	Step	   *steps = calloc(history->nlog + history->npast + 1, sizeof(Step));
	char	   *torn_off;
	int			streams = 0;
	size_t		n = 0;

	if (steps == NULL)
		die("out of memory");
	for (size_t i = 0; i < history->nlog; i++)
	{
		const Seen *seen = &history->log[i];

		if (seen->stream < 0)
			continue;
		steps[n++] = (Step) {.stream = seen->stream, .version = seen->version, .past = history_find(history, seen->op), .position = seen->position};
	}
	for (size_t i = 0; i < history->npast; i++)
	{
		const Past *past = &history->past[i];

		for (int j = 0; j < past->nitems; j++)
			streams = past->items[j].stream >= streams ? past->items[j].stream + 1 : streams;
		if (past->outcome == PAST_CONFLICT)
			steps[n++] = (Step) {.stream = past->items[past->conflict_item].stream, .version = past->found, .conflict = true, .past = past};
	}
	torn_off = calloc((size_t) streams + 1, 1);
	if (torn_off == NULL)
		die("out of memory");
	for (size_t i = 0; lossy(history) && i < history->npast; i++)
	{
		const Past *past = &history->past[i];

		for (int j = 0; (past->lost || past->doubtful || past->outcome == PAST_UNKNOWN) && j < past->nitems; j++)
		{
			if (past->items[j].stream >= 0)
				torn_off[past->items[j].stream] = 1;
		}
	}

	qsort(steps, n, sizeof(Step), compare_steps);
	for (size_t from = 0, to; from < n; from = to)
	{
		for (to = from; to < n && steps[to].stream == steps[from].stream; to++)
			;
		check_stream(steps + from, to - from, steps[from].stream < streams && torn_off[steps[from].stream]);
	}
	free(torn_off);
	free(steps);
}

/* ---- the global order ---- */

static void
check_real_time(const History *history)
{
	int64_t		latest = INT64_MIN;

	for (size_t i = 0; i < history->nlog; i++)
	{
		const Past *past = history_find(history, history->log[i].op);

		if (past == NULL || past->outcome == PAST_FAILED)
			continue;
		if (past->returned < latest)
			violation("global order against real time", "position %" PRId64 " (operation " ID ") had returned before what stands in front of it was invoked",
					  history->log[i].position, past->id);
		if (past->invoked > latest)
			latest = past->invoked;
	}
}

/* ---- readers ---- */

static bool
same_event(const Seen *a, const Seen *b)
{
	return a->op == b->op && a->event == b->event && a->version == b->version && a->stream == b->stream;
}

/* Whether a reader may have been given what the log has not. */
static bool
read_may_be_lost(const History *history, const Seen *seen)
{
	const Past *past = history_find(history, seen->op);

	if (!history->terms.by_time)
		return history_given_up(history, seen->position);
	return past != NULL ? may_be_lost(history, past) : lossy(history);
}

/*
 * What one reader was given is the log, without a gap, up to where it has come.
 * What it was given besides goes to others, for comparison.
 */
static void
check_reader(const History *history, const Reader *reader, bool complete, Seen *others, size_t *nothers)
{
	size_t		at = 0;
	int64_t		last = reader->nseen > 0 ? reader->seen[reader->nseen - 1].position : 0;

	for (size_t i = 0; i < reader->nseen; i++)
	{
		const Seen *seen = &reader->seen[i];

		if (i > 0 && seen->position <= reader->seen[i - 1].position)
		{
			violation("reader out of order", "%s: %" PRId64 " behind %" PRId64, reader->file, seen->position, reader->seen[i - 1].position);
			return;
		}
		for (; at < history->nlog && history->log[at].position < seen->position; at++)
			violation("skipped by a reader", "%s: position %" PRId64, reader->file, history->log[at].position);
		if (at < history->nlog && history->log[at].position == seen->position)
		{
			if (!same_event(seen, &history->log[at]))
				violation("position given to another event", "%s was given " ID " %" PRIu64 " at %" PRId64 ", which is " ID " %" PRIu64, reader->file,
						  seen->op, seen->event, seen->position, history->log[at].op, history->log[at].event);
			at++;
		}
		else
		{
			others[(*nothers)++] = *seen;
			if (!read_may_be_lost(history, seen))
				violation("read and lost", "%s: position %" PRId64, reader->file, seen->position);
		}
	}
	if (complete && at < history->nlog)
		violation("reader behind", "%s has come to %" PRId64 ", the log to %" PRId64, reader->file, last, history->log[history->nlog - 1].position);
}

static int
compare_seen(const void *a, const void *b)
{
	const Seen *x = a;
	const Seen *y = b;

	return (x->position > y->position) - (x->position < y->position);
}

/* Also what is lost was one event a position, for all who were given it. */
static void
check_readers(const History *history, bool complete)
{
	size_t		most = history->npast;
	size_t		n = 0;
	Seen	   *others;

	for (size_t i = 0; i < history->nreaders; i++)
		most += history->readers[i].nseen;
	others = calloc(most + 1, sizeof(Seen));
	if (others == NULL)
		die("out of memory");
	for (size_t i = 0; i < history->nreaders; i++)
		check_reader(history, &history->readers[i], complete, others, &n);

	/* An acknowledged append that was lost has had its first position, too. */
	for (size_t i = 0; i < history->npast; i++)
	{
		const Past *past = &history->past[i];

		if (past->lost && past->first != 0)
			others[n++] = (Seen) {.position = past->first, .op = past->id, .event = (uint64_t) (past->items[0].gone ? past->items[0].events : 0),
				.version = past->items[0].version, .stream = past->items[0].stream};
	}
	qsort(others, n, sizeof(Seen), compare_seen);
	for (size_t i = 1; i < n; i++)
	{
		if (others[i].position == others[i - 1].position && (others[i].op != others[i - 1].op || others[i].event != others[i - 1].event))
			violation("position given to another event", "%" PRId64 " was " ID " for one and " ID " for another", others[i].position,
					  others[i - 1].op, others[i].op);
	}
	free(others);
}

/* ---- all of it ---- */

int
check_main(int nfiles, char **files, const Terms *terms)
{
	History		history = {.terms = *terms};
	size_t		by_outcome[4] = {0};
	size_t		lost = 0;
	size_t		given = 0;

	history_load(&history, nfiles, files);
	place_events(&history);
	check_operations(&history);
	check_streams(&history);
	check_real_time(&history);
	check_readers(&history, terms->complete);

	for (size_t i = 0; i < history.npast; i++)
	{
		by_outcome[history.past[i].outcome]++;
		lost += history.past[i].lost;
	}
	for (size_t i = 0; i < history.nreaders; i++)
		given += history.readers[i].nseen;
	for (size_t i = 0; counts[i].kind != NULL; i++)
		printf("%zu times: %s\n", counts[i].n, counts[i].kind);
	printf("operations %zu acknowledged %zu conflicts %zu failed %zu unknown %zu lost %zu events %zu readers %zu read %zu violations %zu\n",
		   history.npast, by_outcome[PAST_OK], by_outcome[PAST_CONFLICT], by_outcome[PAST_FAILED], by_outcome[PAST_UNKNOWN], lost, history.nlog,
		   history.nreaders, given, violations);
	return violations > 0 ? 1 : 0;
}
