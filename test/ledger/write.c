/*
 * write.c
 *	  Clients that append, each in a thread of its own, and the record of what
 *	  they did, which is kept outside the server.
 *
 * An operation whose outcome is unknown, since the connection was lost while
 * its commit was under way, is repeated with the same ids until the outcome is
 * known: an append finds its ids, a transaction its row in the user's table.
 */
#include "ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static int	record_fd = -1;
static _Atomic int64_t *beliefs;
static atomic_int attempts,
			ended[4];

/* ---- the record ---- */

typedef struct Line
{
	char		text[1024];
	size_t		length;
} Line;

static void __attribute__((format(printf, 2, 3)))
add(Line *line, const char *format,...)
{
	va_list		args;
	int			n;

	va_start(args, format);
	n = vsnprintf(line->text + line->length, sizeof(line->text) - line->length, format, args);
	va_end(args);
	if (n < 0 || (size_t) n >= sizeof(line->text) - line->length)
		die("a line of the record is too long");
	line->length += (size_t) n;
}

/* One write a line: lines of several threads do not mix. */
static void
put(Line *line)
{
	add(line, "\n");
	if (write(record_fd, line->text, line->length) != (ssize_t) line->length)
		die("%s: %s", settings.file, strerror(errno));
}

static void
record_begin(const Operation *op)
{
	Line		line = {.length = 0};

	add(&line, "B %016" PRIx64 " %" PRId64 " %c %d", op->id, now_ns(), (char) op->kind, op->row);
	for (int i = 0; i < op->nitems; i++)
	{
		const Item *item = &op->items[i];

		if (item->expected == EXPECT_ANY)
			add(&line, " %d:*:%d:%c", item->stream, item->events, item->gone ? 'g' : 'k');
		else
			add(&line, " %d:%" PRId64 ":%d:%c", item->stream, item->expected, item->events, item->gone ? 'g' : 'k');
	}
	put(&line);
}

static void
record_again(const Operation *op)
{
	Line		line = {.length = 0};

	add(&line, "A %016" PRIx64 " %" PRId64, op->id, now_ns());
	put(&line);
}

static void
record_end(const Operation *op)
{
	Line		line = {.length = 0};
	int64_t		returned = op->returned != 0 ? op->returned : now_ns();

	ended[op->outcome]++;
	if (op->outcome == OUTCOME_UNKNOWN)
	{
		add(&line, "U %016" PRIx64 " %" PRId64 " %s", op->id, returned, op->why);
		put(&line);
		return;
	}
	add(&line, "E %016" PRIx64 " %" PRId64, op->id, returned);
	if (op->outcome == OUTCOME_OK)
	{
		add(&line, " ok %" PRId64 " %" PRId64, op->first, op->last);
		for (int i = 0; i < op->nitems; i++)
		{
			if (!op->items[i].gone)
				add(&line, " %" PRId64, op->items[i].version);
		}
	}
	else if (op->outcome == OUTCOME_CONFLICT)
		add(&line, " conflict %d %" PRId64, op->conflict_item, op->found);
	else
		add(&line, " failed %s", op->why[0] ? op->why : "-");
	put(&line);
}

/* ---- what clients believe ---- */

int64_t
believed(int stream)
{
	return beliefs[stream];
}

void
believe(int stream, int64_t version)
{
	int64_t		old = beliefs[stream];

	while (old < version && !atomic_compare_exchange_weak(&beliefs[stream], &old, version))
		;
}

/* xorshift64* */
uint64_t
client_random(Client *client, uint64_t below)
{
	uint64_t	x = client->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	client->random = x;
	return ((x * UINT64_C(2685821657736338717)) >> 16) % below;
}

/* ---- clients ---- */

static void
learn(const Operation *op)
{
	if (op->outcome == OUTCOME_OK)
	{
		for (int i = 0; i < op->nitems; i++)
		{
			if (op->items[i].stream != NO_STREAM && !op->items[i].gone)
				believe(op->items[i].stream, op->items[i].version);
		}
	}
	else if (op->outcome == OUTCOME_CONFLICT && op->items[op->conflict_item].stream != NO_STREAM)
		believe(op->items[op->conflict_item].stream, op->found);
}

/*
 * Tries operations (one, or those of a batch) until each has an outcome that is
 * known.  What only says that this attempt stored nothing does not end an
 * operation of which an earlier attempt may have.
 */
static void
perform(Client *client, Operation *ops, int n)
{
	int			left = n;
	int64_t		since = -1;

	for (int i = 0; i < n; i++)
		record_begin(&ops[i]);
	while (left > 0 && session_open(&client->session))
	{
		attempts++;
		if (ops[0].kind == KIND_BATCH)
			batch_try(client, ops, n, &since);
		else
			operation_try(client, &ops[0]);

		for (int i = 0; i < n; i++)
		{
			Operation  *op = &ops[i];

			if (op->recorded)
				continue;
			if (op->doubtful && op->outcome == OUTCOME_FAILED && strcmp(op->why, "V0002") != 0)
				op->outcome = OUTCOME_UNKNOWN;
			record_end(op);
			learn(op);
			op->doubtful = op->outcome == OUTCOME_UNKNOWN;
			op->recorded = !op->doubtful;
			if (op->recorded)
				left--;
			else if (session_open(&client->session))
				record_again(op);
			op->returned = 0;
		}
		if (left > 0)
			sleep_ms(5);
	}
}

static void *
client_main(void *arg)
{
	Client	   *client = arg;
	Operation	ops[MAX_BATCH];

	while (!stopping)
	{
		int			n = 1;

		if (!session_open(&client->session))
			break;
		memset(ops, 0, sizeof(ops));
		if (settings.batch && client_random(client, 4) == 0)
			n = batch_make(client, ops);
		else
			operation_make(client, &ops[0]);
		perform(client, ops, n);
		if (settings.think > 0)
			sleep_ms((double) client_random(client, (uint64_t) (settings.think * 2) + 1));
	}
	session_close(&client->session);
	return NULL;
}

int
write_main(void)
{
	Client	   *clients = calloc((size_t) settings.clients, sizeof(Client));
	uint64_t	tag;
	int64_t		until = now_ns() + (int64_t) (settings.seconds * 1e9);

	beliefs = calloc((size_t) settings.streams, sizeof(*beliefs));
	if (clients == NULL || beliefs == NULL)
		die("out of memory");
	record_fd = open(settings.file, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (record_fd < 0)
		die("%s: %s", settings.file, strerror(errno));
	if (getrandom(&tag, sizeof(tag), 0) != sizeof(tag))
		die("no random numbers");

	for (int i = 0; i < settings.clients; i++)
	{
		Client	   *client = &clients[i];

		client->session.conninfo = settings.conninfo;
		client->number = i;
		client->random = tag ^ ((uint64_t) (i + 1) * UINT64_C(0x9e3779b97f4a7c15));
		if (client->random == 0)
			client->random = 1;
		/* 19 bits that tell this writer, 12 the client, 32 count: a bigint that is positive. */
		client->next_id = ((tag & 0x7ffff) << 44) | ((uint64_t) i << 32);
		if (pthread_create(&client->thread, NULL, client_main, client) != 0)
			die("could not start a thread");
	}
	while (!stopping)
	{
		if (settings.seconds > 0 && now_ns() >= until)
			stopping = true;
		sleep_ms(20);
	}
	for (int i = 0; i < settings.clients; i++)
		pthread_join(clients[i].thread, NULL);
	close(record_fd);
	printf("%d attempts: %d acknowledged, %d conflicts, %d failed, %d unknown\n", attempts, ended[OUTCOME_OK],
		   ended[OUTCOME_CONFLICT], ended[OUTCOME_FAILED], ended[OUTCOME_UNKNOWN]);
	free(beliefs);
	free(clients);
	return 0;
}
