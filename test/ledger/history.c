/*
 * history.c
 *	  Reads the files of write, read and dump.
 */
#include "history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct Source
{
	const char *file;
	size_t		line;
	History    *history;
	Reader	   *reader;			/* for R lines */
} Source;

static void __attribute__((noreturn))
malformed(const Source *source)
{
	die("%s, line %zu is malformed", source->file, source->line);
}

/* Makes room for one more of an array that grows. */
static void *
grow(void *array, size_t n, size_t element)
{
	/* Powers of two, from 64 on. */
	if (n != 0 && (n < 64 || (n & (n - 1)) != 0))
		return array;
	array = realloc(array, (n < 64 ? 64 : n * 2) * element);
	if (array == NULL)
		die("out of memory");
	return array;
}

/* ---- fields ---- */

static char *
field(Source *source, char **rest)
{
	char	   *found = strsep(rest, " ");

	if (found == NULL || *found == '\0')
		malformed(source);
	return found;
}

static int64_t
number(Source *source, char **rest)
{
	char	   *text = field(source, rest);
	char	   *end;
	long long	value;

	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno != 0 || *end != '\0')
		malformed(source);
	return value;
}

static uint64_t
hex(Source *source, const char *text, int digits)
{
	uint64_t	value = 0;

	for (int i = 0; i < digits; i++)
	{
		char		c = text[i];

		if (c >= '0' && c <= '9')
			value = value << 4 | (uint64_t) (c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (uint64_t) (c - 'a' + 10);
		else
			malformed(source);
	}
	return value;
}

static void
read_id(Source *source, char **rest, Seen *seen)
{
	char	   *text = field(source, rest);
	char		digits[33];
	int			n = 0;

	for (; *text != '\0' && n < 32; text++)
	{
		if (*text != '-')
			digits[n++] = *text;
	}
	if (n != 32)
		malformed(source);
	seen->op = hex(source, digits, 16);
	seen->event = hex(source, digits + 16, 16);
}

/* The rest of the line is the name of a stream. */
static int
read_stream(Source *source, const char *rest)
{
	size_t		prefix = sizeof(STREAM_PREFIX) - 1;

	if (rest == NULL)
		malformed(source);
	if (strcmp(rest, "-") == 0)
		return NO_STREAM;
	if (strncmp(rest, STREAM_PREFIX, prefix) != 0)
		return OTHER_STREAM;
	return (int) strtol(rest + prefix, NULL, 10);
}

/* ---- lines ---- */

/* Operations are found by id while lines come: by a table with open addressing. */
static size_t *slots;
static size_t nslots;

static size_t
slot_of(const History *history, uint64_t id)
{
	size_t		at = (size_t) (id * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (nslots - 1);

	while (slots[at] != 0 && history->past[slots[at] - 1].id != id)
		at = (at + 1) & (nslots - 1);
	return at;
}

static void
index_past(History *history)
{
	if (nslots > history->npast * 2)
	{
		slots[slot_of(history, history->past[history->npast - 1].id)] = history->npast;
		return;
	}
	nslots = nslots == 0 ? 1024 : nslots * 2;
	free(slots);
	slots = calloc(nslots, sizeof(*slots));
	if (slots == NULL)
		die("out of memory");
	for (size_t i = 0; i < history->npast; i++)
		slots[slot_of(history, history->past[i].id)] = i + 1;
}

Past *
history_find(const History *history, uint64_t op)
{
	size_t		at;

	if (nslots == 0)
		return NULL;
	at = slot_of(history, op);
	return slots[at] != 0 ? &history->past[slots[at] - 1] : NULL;
}

static Past *
known(Source *source, char **rest)
{
	char	   *text = field(source, rest);
	Past	   *past;

	if (strlen(text) != 16)
		malformed(source);
	past = history_find(source->history, hex(source, text, 16));
	if (past == NULL)
		malformed(source);
	return past;
}

/* stream:expected:events:fate */
static void
read_item(Source *source, char *text, Past *past)
{
	PastItem   *item = &past->items[past->nitems];
	char		expected[30];
	char		fate;

	if (past->nitems == MAX_ITEMS ||
		sscanf(text, "%d:%29[^:]:%d:%c", &item->stream, expected, &item->events, &fate) != 4 ||
		item->events < 1 || item->events > MAX_EVENTS)
		malformed(source);
	item->expected = strcmp(expected, "*") == 0 ? EXPECT_ANY : strtoll(expected, NULL, 10);
	item->gone = fate == 'g';
	item->first_event = past->nevents;
	past->nevents += item->events;
	past->nitems++;
}

static void
read_begin(Source *source, char *rest)
{
	History    *history = source->history;
	char	   *text = field(source, &rest);
	Past	   *past;

	if (strlen(text) != 16)
		malformed(source);
	history->past = grow(history->past, history->npast, sizeof(Past));
	past = &history->past[history->npast++];
	memset(past, 0, sizeof(*past));
	past->id = hex(source, text, 16);
	past->invoked = past->again = number(source, &rest);
	past->returned = INT64_MAX;
	past->kind = *field(source, &rest);
	past->row = number(source, &rest) != 0;
	while (rest != NULL)
		read_item(source, field(source, &rest), past);
	past->first_event = history->nevents;
	history->nevents += (size_t) past->nevents;
	index_past(history);
}

static void
read_end(Source *source, char *rest)
{
	Past	   *past = known(source, &rest);
	const char *outcome;

	past->returned = number(source, &rest);
	outcome = field(source, &rest);
	if (strcmp(outcome, "ok") == 0)
	{
		past->outcome = PAST_OK;
		past->first = number(source, &rest);
		past->last = number(source, &rest);
		for (int i = 0; i < past->nitems; i++)
		{
			if (!past->items[i].gone)
				past->items[i].version = number(source, &rest);
		}
	}
	else if (strcmp(outcome, "conflict") == 0)
	{
		past->outcome = PAST_CONFLICT;
		past->conflict_item = (int) number(source, &rest);
		past->found = number(source, &rest);
		if (past->conflict_item < 0 || past->conflict_item >= past->nitems)
			malformed(source);
	}
	else
		past->outcome = PAST_FAILED;
}

static void
read_seen(Source *source, char *rest)
{
	Reader	   *reader = source->reader;
	Seen	   *seen;

	reader->seen = grow(reader->seen, reader->nseen, sizeof(Seen));
	seen = &reader->seen[reader->nseen++];
	(void) number(source, &rest);
	seen->position = number(source, &rest);
	read_id(source, &rest, seen);
	seen->version = number(source, &rest);
	seen->stream = read_stream(source, rest);
}

static void
read_logged(Source *source, char *rest)
{
	History    *history = source->history;
	Seen	   *seen;

	history->log = grow(history->log, history->nlog, sizeof(Seen));
	seen = &history->log[history->nlog++];
	seen->position = number(source, &rest);
	read_id(source, &rest, seen);
	seen->version = number(source, &rest);
	seen->ours = strcmp(field(source, &rest), EVENT_TYPE) == 0;
	seen->stream = read_stream(source, rest);
}

static void
read_line(Source *source, char *line)
{
	History    *history = source->history;
	char	   *rest = line + 2;
	Past	   *past;

	if (line[0] == '#')
	{
		history->dumped = history->dumped || strcmp(line, "# end") == 0;
		return;
	}
	if (line[0] == '\0' || line[1] != ' ')
		malformed(source);
	switch (line[0])
	{
		case 'B':
			read_begin(source, rest);
			break;
		case 'A':
			past = known(source, &rest);
			past->again = number(source, &rest);
			break;
		case 'U':
			known(source, &rest)->doubtful = true;
			break;
		case 'E':
			read_end(source, rest);
			break;
		case 'R':
			read_seen(source, rest);
			break;
		case 'L':
			read_logged(source, rest);
			break;
		case 'T':
			history->rows = grow(history->rows, history->nrows, sizeof(uint64_t));
			history->rows[history->nrows++] = hex(source, field(source, &rest), 16);
			break;
		case 'J':
			history->jumps = grow(history->jumps, history->njumps, sizeof(Jump));
			history->jumps[history->njumps].last = number(source, &rest);
			history->jumps[history->njumps++].next = number(source, &rest);
			break;
		default:
			malformed(source);
	}
}

static void
load_file(History *history, const char *name)
{
	FILE	   *file = fopen(name, "r");
	Reader		reader = {.file = name};
	Source		source = {.file = name, .history = history, .reader = &reader};
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		length;
	bool		is_reader = false;

	if (file == NULL)
		die("%s: %s", name, strerror(errno));
	while ((length = getline(&line, &size, file)) > 0)
	{
		source.line++;
		if (line[length - 1] != '\n')
			malformed(&source);
		line[length - 1] = '\0';
		is_reader = is_reader || strncmp(line, "# reader", 8) == 0;
		read_line(&source, line);
	}
	free(line);
	fclose(file);
	if (is_reader || reader.nseen > 0)
	{
		history->readers = grow(history->readers, history->nreaders, sizeof(Reader));
		history->readers[history->nreaders++] = reader;
	}
}

void
history_load(History *history, int nfiles, char **files)
{
	for (int i = 0; i < nfiles; i++)
		load_file(history, files[i]);
	if (!history->dumped)
		die("no file has the content of the log to its end");
	history->stored = calloc(history->nevents + 1, sizeof(*history->stored));
	if (history->stored == NULL)
		die("out of memory");
}

bool
history_given_up(const History *history, int64_t position)
{
	for (size_t i = 0; i < history->njumps; i++)
	{
		if (position > history->jumps[i].last && position < history->jumps[i].next)
			return true;
	}
	return false;
}
