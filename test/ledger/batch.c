/*
 * batch.c
 *	  append_batch: each item is an operation of its own, with its own expected
 *	  version and outcome.
 */
#include "ledger.h"

#include <stdlib.h>
#include <string.h>

#include "../../include/errcodes.h"
#include "../../include/packed.h"

typedef struct Bytes
{
	unsigned char *data;
	size_t		length;
	size_t		size;
} Bytes;

static void
put(Bytes *bytes, const void *data, size_t n)
{
	if (bytes->length + n > bytes->size)
	{
		bytes->size = (bytes->length + n) * 2;
		bytes->data = realloc(bytes->data, bytes->size);
		if (bytes->data == NULL)
			die("out of memory");
	}
	memcpy(bytes->data + bytes->length, data, n);
	bytes->length += n;
}

static void
put_uint(Bytes *bytes, uint64_t value, int n)
{
	unsigned char out[8];

	for (int i = 0; i < n; i++)
		out[i] = (unsigned char) (value >> (8 * (n - 1 - i)));
	put(bytes, out, (size_t) n);
}

static void
put_text(Bytes *bytes, const char *text, int length_bytes)
{
	put_uint(bytes, strlen(text), length_bytes);
	put(bytes, text, strlen(text));
}

static void
put_event(Bytes *bytes, const Client *client, const Operation *op, int event)
{
	size_t		size = (size_t) settings.padding + 200;
	char	   *data = malloc(size);

	if (data == NULL)
		die("out of memory");
	event_data(data, size, client, op->id, event);
	put_uint(bytes, EVENTO_EVENT_ID, 1);
	put_uint(bytes, op->id, 8);
	put_uint(bytes, (uint64_t) event, 8);
	put_text(bytes, EVENT_TYPE, 2);
	put_uint(bytes, 0, 2);
	put_uint(bytes, 0, 2);
	put_text(bytes, data, 4);
	free(data);
}

static void
put_item(Bytes *bytes, const Client *client, const Operation *op, int64_t since)
{
	const Item *item = &op->items[0];
	size_t		start = bytes->length;
	size_t		length;

	put_uint(bytes, 0, 4);
	put_uint(bytes, item->stream == NO_STREAM ? EVENTO_ITEM_SINCE : 0, 2);
	put_uint(bytes, (uint64_t) (item->expected == EXPECT_ANY ? EVENTO_EXPECTED_ANY : item->expected), 8);
	if (item->stream == NO_STREAM)
	{
		put_uint(bytes, 0, 2);
		put_uint(bytes, (uint64_t) since, 8);
	}
	else
	{
		char		name[32];

		snprintf(name, sizeof(name), STREAM_PREFIX "%d", item->stream);
		put_text(bytes, name, 2);
	}
	put_uint(bytes, (uint64_t) item->events, 2);
	for (int i = 0; i < item->events; i++)
		put_event(bytes, client, op, i);
	length = bytes->length - start - 4;
	for (int i = 0; i < 4; i++)
		bytes->data[start + (size_t) i] = (unsigned char) (length >> (8 * (3 - i)));
}

int
batch_make(Client *client, Operation *ops)
{
	int			n = 2 + (int) client_random(client, MAX_BATCH - 2);

	for (int i = 0; i < n; i++)
	{
		Operation  *op = &ops[i];
		int			stream = client_random(client, 10) == 0 ? NO_STREAM : (int) client_random(client, (uint64_t) settings.streams);

		op->id = client->next_id++;
		op->kind = KIND_BATCH;
		op->nitems = 1;
		op->items[0] = (Item) {.stream = stream, .expected = EXPECT_ANY, .events = 1 + (int) client_random(client, 3)};
		if (stream != NO_STREAM && client_random(client, 2) == 0)
			op->items[0].expected = believed(stream);
	}
	return n;
}

/* The outcome of one item, as a row says it. */
static void
take_outcome(Operation *op, const Answer *answer, int row)
{
	const char *state = PQgetvalue(answer->result, row, 0);

	if (strcmp(state, EVENTO_SQLSTATE_OK) == 0)
	{
		op->outcome = OUTCOME_OK;
		op->items[0].version = answer_number(answer, row, 2);
	}
	else if (strcmp(state, "V0001") == 0)
	{
		op->outcome = OUTCOME_CONFLICT;
		op->conflict_item = 0;
		op->found = found_version(PQgetvalue(answer->result, row, 3));
	}
	else
	{
		op->outcome = OUTCOME_FAILED;
		snprintf(op->why, sizeof(op->why), "%s", state);
	}
}

void
batch_try(Client *client, Operation *ops, int n, int64_t *since)
{
	Bytes		bytes = {.data = NULL};
	Answer		answer;
	int			pending = 0;
	int			row = 0;
	bool		cut_short;

	/* What is looked for was not there before the first try. */
	if (*since < 0)
	{
		answer = session_run(&client->session, "SELECT evento.watermark()", 0, NULL);
		if (answer.ending == ENDED_WELL)
			*since = answer_number(&answer, 0, 0);
		else
		{
			for (int i = 0; i < n; i++)
				operation_failed(&ops[i], &answer, false);
			answer_free(&answer);
			return;
		}
		answer_free(&answer);
	}

	for (int i = 0; i < n; i++)
		pending += !ops[i].recorded;
	put_uint(&bytes, EVENTO_PACKED_MAGIC, 4);
	put_uint(&bytes, (uint64_t) pending, 4);
	for (int i = 0; i < n; i++)
	{
		if (!ops[i].recorded)
			put_item(&bytes, client, &ops[i], *since);
	}
	answer = session_run_bytes(&client->session, "SELECT outcome, first_version, last_version, detail FROM evento.append_batch($1)",
							   bytes.data, (int) bytes.length);
	cut_short = client->session.sync_cut_short;
	free(bytes.data);

	for (int i = 0; i < n; i++)
	{
		Operation  *op = &ops[i];

		if (op->recorded)
			continue;
		op->returned = now_ns();
		op->why[0] = '\0';
		if (answer.ending == ENDED_WELL && PQntuples(answer.result) == pending && !cut_short)
			take_outcome(op, &answer, row++);
		else if (answer.ending == ENDED_WELL)
		{
			op->outcome = OUTCOME_UNKNOWN;
			snprintf(op->why, sizeof(op->why), cut_short ? "not-replicated" : "rows-missing");
		}
		else
			operation_failed(op, &answer, true);
	}
	answer_free(&answer);
}
