/*
 * operation.c
 *	  One operation of each kind that is not a batch: made up, and tried.
 */
#include "ledger.h"

#include <stdlib.h>
#include <string.h>

/* The kinds, as often as they are drawn. */
static const char kinds[] = "aaaeeeeeeennnttttsslllxrr";

void
event_id(char id[37], uint64_t op, int event)
{
	snprintf(id, 37, "%08x-%04x-%04x-0000-%012x", (unsigned) (op >> 32), (unsigned) (op >> 16) & 0xffff, (unsigned) op & 0xffff,
			 (unsigned) event);
}

int
event_data(char *data, size_t size, const Client *client, uint64_t op, int event)
{
	int			n = snprintf(data, size, "{\"op\":\"%016" PRIx64 "\",\"client\":%d,\"event\":%d,\"padding\":\"%*s\"}", op, client->number,
							 event, settings.padding, "");

	if (n < 0 || (size_t) n >= size)
		die("the data of an event is too long");
	return n;
}

int64_t
found_version(const char *detail)
{
	const char *found = detail != NULL ? strstr(detail, "found ") : NULL;

	if (found == NULL)
		return -1;
	if (strncmp(found, "found version ", 14) == 0)
		return strtoll(found + 14, NULL, 10);
	if (strncmp(found, "found no stream", 15) == 0)
		return 0;
	return -1;
}

/* ---- making one up ---- */

static Item
make_item(Client *client, int stream, int percent_expected, int max_events)
{
	Item		item = {.stream = stream, .expected = EXPECT_ANY, .events = 1 + (int) client_random(client, (uint64_t) max_events)};

	if ((int) client_random(client, 100) < percent_expected)
		item.expected = believed(stream);
	return item;
}

static int
any_stream(Client *client)
{
	return (int) client_random(client, (uint64_t) settings.streams);
}

/* Appends to two or three streams, in one order for all, so that nobody waits in a circle. */
static void
make_several(Client *client, Operation *op)
{
	int			n = 2 + (int) client_random(client, 2);

	for (int i = 0; i < n; i++)
	{
		int			stream = any_stream(client);
		int			at = op->nitems;
		bool		there = false;

		for (int j = 0; j < op->nitems; j++)
			there = there || op->items[j].stream == stream;
		if (there)
			continue;
		while (at > 0 && op->items[at - 1].stream > stream)
		{
			op->items[at] = op->items[at - 1];
			at--;
		}
		op->items[at] = make_item(client, stream, 30, 3);
		op->nitems++;
	}
	/* One without stream comes last. */
	if (client_random(client, 4) == 0)
		op->items[op->nitems++] = (Item) {.stream = NO_STREAM, .expected = EXPECT_ANY, .events = 1};
}

void
operation_make(Client *client, Operation *op)
{
	int			stream = any_stream(client);

	op->id = client->next_id++;
	op->kind = (Kind) kinds[client_random(client, sizeof(kinds) - 1)];
	op->row = strchr("tslxr", (char) op->kind) != NULL;
	op->nitems = 1;
	switch (op->kind)
	{
		case KIND_ANY:
			op->items[0] = make_item(client, stream, 0, 1);
			break;
		case KIND_EXPECTED:
			op->items[0] = make_item(client, stream, 100, 1);
			break;
		case KIND_EVENTS:
			op->items[0] = make_item(client, stream, 50, 5);
			break;
		case KIND_LATE:
			op->items[0] = make_item(client, stream, 50, 2);
			break;
		case KIND_STREAMLESS:
			op->items[0] = (Item) {.stream = NO_STREAM, .expected = EXPECT_ANY, .events = 1 + (int) client_random(client, 3)};
			break;
		case KIND_SAVEPOINT:
			op->items[0] = make_item(client, stream, 50, 2);
			op->items[1] = make_item(client, stream, 0, 2);
			op->items[1].gone = true;
			op->items[2] = make_item(client, stream, 0, 1);
			op->nitems = 3;
			break;
		default:
			op->nitems = 0;
			make_several(client, op);
			break;
	}
}

/* ---- trying it ---- */

void
operation_failed(Operation *op, const Answer *answer, bool committing)
{
	snprintf(op->why, sizeof(op->why), "%s", answer->state[0] ? answer->state : answer->ending == ENDED_LOST ? "lost" : "-");
	if (answer->ending == ENDED_LOST && committing)
		op->outcome = OUTCOME_UNKNOWN;
	else
		op->outcome = OUTCOME_FAILED;
}

/* Runs a statement of the operation; false, with its outcome, where it failed. */
static bool
step(Client *client, Operation *op, const char *sql, bool committing)
{
	Answer		answer = session_run(&client->session, sql, 0, NULL);
	bool		well = answer.ending == ENDED_WELL;

	if (!well)
		operation_failed(op, &answer, committing);
	else if (committing && client->session.sync_cut_short)
	{
		snprintf(op->why, sizeof(op->why), "not-replicated");
		op->outcome = OUTCOME_UNKNOWN;
		well = false;
	}
	answer_free(&answer);
	return well;
}

static char *
append_statement(Client *client, const Operation *op, int i, int first_event)
{
	const Item *item = &op->items[i];
	size_t		size = (size_t) (item->events * (settings.padding + 300) + 300);
	char	   *sql = malloc(size);
	char	   *data = malloc((size_t) settings.padding + 200);
	char		stream[40] = "NULL";
	char		expected[30] = "NULL";
	char		id[37];
	size_t		at;

	if (sql == NULL || data == NULL)
		die("out of memory");
	if (item->stream != NO_STREAM)
		snprintf(stream, sizeof(stream), "'" STREAM_PREFIX "%d'", item->stream);
	if (item->expected != EXPECT_ANY)
		snprintf(expected, sizeof(expected), "%" PRId64, item->expected);

	if (item->events == 1)
	{
		event_id(id, op->id, first_event);
		event_data(data, (size_t) settings.padding + 200, client, op->id, first_event);
		snprintf(sql, size, "SELECT evento.append(%s, '" EVENT_TYPE "', '%s', expected => %s, id => '%s')", stream, data, expected, id);
		free(data);
		return sql;
	}
	at = (size_t) snprintf(sql, size, "SELECT evento.append_events(%s, ARRAY[", stream);
	for (int event = first_event; event < first_event + item->events; event++)
	{
		event_id(id, op->id, event);
		event_data(data, (size_t) settings.padding + 200, client, op->id, event);
		at += (size_t) snprintf(sql + at, size - at, "%sROW('" EVENT_TYPE "', '%s', NULL, '%s', NULL, NULL, NULL)",
								event > first_event ? ", " : "", data, id);
	}
	snprintf(sql + at, size - at, "]::evento.new_event[], %s)", expected);
	free(data);
	return sql;
}

/* One append of the operation; a conflict is an outcome of its own. */
static bool
append(Client *client, Operation *op, int i, int first_event, bool committing)
{
	char	   *sql = append_statement(client, op, i, first_event);
	Answer		answer = session_run(&client->session, sql, 0, NULL);
	bool		well = false;

	free(sql);
	if (answer.ending == ENDED_WELL && committing && client->session.sync_cut_short)
	{
		snprintf(op->why, sizeof(op->why), "not-replicated");
		op->outcome = OUTCOME_UNKNOWN;
	}
	else if (answer.ending == ENDED_WELL)
	{
		op->items[i].version = answer_number(&answer, 0, 0);
		well = true;
	}
	else if (answer.ending == ENDED_ERROR && strcmp(answer.state, "V0001") == 0)
	{
		op->outcome = OUTCOME_CONFLICT;
		op->conflict_item = i;
		op->found = found_version(PQresultErrorField(answer.result, PG_DIAG_MESSAGE_DETAIL));
	}
	else
		operation_failed(op, &answer, committing);
	answer_free(&answer);
	return well;
}

/* Appends of all items, with what stands between them. */
static bool
append_all(Client *client, Operation *op)
{
	int			event = 0;

	for (int i = 0; i < op->nitems; i++)
	{
		bool		well = true;

		if (op->items[i].gone)
			well = step(client, op, "SAVEPOINT a", false);
		well = well && append(client, op, i, event, false);
		if (op->items[i].gone)
			well = well && step(client, op, "ROLLBACK TO a", false);
		if (!well)
			return false;
		event += op->items[i].events;
	}
	return true;
}

/* The row of the user's table keeps what a repeat has to answer. */
static const char *
row_statement(char *sql, size_t size, const Operation *op)
{
	int			at = snprintf(sql, size, "INSERT INTO public.ledger_rows VALUES (%" PRId64 ", ARRAY[", (int64_t) op->id);

	for (int i = 0; i < op->nitems; i++)
		at += snprintf(sql + at, size - (size_t) at, "%s%" PRId64, i > 0 ? "," : "", op->items[i].version);
	snprintf(sql + at, size - (size_t) at, "]::bigint[])");
	return sql;
}

/* The row is there: an attempt before has been committed. */
static void
answer_from_row(Client *client, Operation *op)
{
	char		sql[200];
	Answer		answer;

	op->outcome = OUTCOME_UNKNOWN;
	answer = session_run(&client->session, "ROLLBACK", 0, NULL);
	answer_free(&answer);
	snprintf(sql, sizeof(sql), "SELECT unnest(versions) FROM public.ledger_rows WHERE op = %" PRId64, (int64_t) op->id);
	answer = session_run(&client->session, sql, 0, NULL);
	if (answer.ending == ENDED_WELL && PQntuples(answer.result) == op->nitems)
	{
		for (int i = 0; i < op->nitems; i++)
			op->items[i].version = answer_number(&answer, i, 0);
		op->outcome = OUTCOME_OK;
	}
	else
		snprintf(op->why, sizeof(op->why), "row-not-read");
	answer_free(&answer);
}

static void
try_transaction(Client *client, Operation *op)
{
	char		sql[400];
	bool		well = step(client, op, "BEGIN", false) && append_all(client, op);

	if (well)
	{
		well = step(client, op, row_statement(sql, sizeof(sql), op), false);
		if (!well && op->doubtful && strcmp(op->why, "23505") == 0)
		{
			answer_from_row(client, op);
			return;
		}
	}
	if (well && (op->kind == KIND_LATE || client_random(client, 4) == 0))
		sleep_ms((double) client_random(client, (uint64_t) (settings.max_pause * 1000) + 1) / 1000.0);
	if (well && op->kind == KIND_ROLLBACK)
	{
		op->outcome = OUTCOME_FAILED;
		snprintf(op->why, sizeof(op->why), "rolled-back");
		well = false;
	}
	if (!well)
	{
		Answer		answer = session_run(&client->session, "ROLLBACK", 0, NULL);

		answer_free(&answer);
		return;
	}
	if (step(client, op, "COMMIT", true))
		op->outcome = OUTCOME_OK;
}

void
operation_try(Client *client, Operation *op)
{
	bool		first = !op->doubtful;

	op->why[0] = '\0';
	if (op->row)
		try_transaction(client, op);
	else if (append(client, op, 0, 0, true))
		op->outcome = OUTCOME_OK;
	op->returned = now_ns();

	/* A repeat stores nothing and gets no positions. */
	if (op->outcome == OUTCOME_OK && first && (settings.positions || client_random(client, 2) == 0))
	{
		Answer		answer = session_run(&client->session, "SELECT first, last FROM evento.last_append()", 0, NULL);

		op->first = answer_number(&answer, 0, 0);
		op->last = answer_number(&answer, 0, 1);
		answer_free(&answer);
	}
}
