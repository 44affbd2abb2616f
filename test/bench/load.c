/*
 * load.c
 *	  Writes events as fast as a server takes them, and prints how many a second
 *	  were committed.
 *
 * load MODE CONNINFO LIMIT CLIENTS BATCH STREAMS TABLE
 *
 * MODE		append: append_batch
 *			append-ids: the same, each event with an id of the client's
 *			copy: COPY of the same rows into TABLE, a transaction a batch
 *			fill: one event into each stream, in order; LIMIT is not used
 *			young: append_batch into streams that end after EVENTS_A_STREAM
 *			events, while new ones begin; STREAMS live at a time
 * LIMIT	seconds, as in 4; or events, as in 1000000e
 *
 * Streams are order-1 to order-STREAMS, chosen at random (young: numbers go on
 * where the log's stand).  An append whose stream was busy (55P03) goes into
 * the next batch again.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../include/packed.h"
#include "client.h"

#define DATA_LENGTH		300
#define EVENTS_A_STREAM	100
#define MAX_BATCH		1000
#define ROW_LENGTH		1024	/* more than a packed item or a row of COPY takes */
#define MAX_CLIENTS		64
#define PG_EPOCH_US		INT64_C(946684800000000)

typedef enum Mode
{
	MODE_APPEND,
	MODE_APPEND_IDS,
	MODE_COPY,
	MODE_FILL,
	MODE_YOUNG
} Mode;

/* What all clients share; set before they start, the atomics besides. */
static struct
{
	Mode		mode;
	const char *conninfo;
	const char *table;
	double		seconds;		/* 0: events is the limit */
	int64_t		events;
	int			batch;
	int			streams;
	int64_t    *stream_no;		/* of each stream, for COPY */
	int64_t    *version;		/* of each stream's last row, for COPY; atomic */
	int64_t		position;		/* last position, for COPY; atomic */
	int64_t		chosen;			/* how many streams were chosen; atomic */
	int			oldest;			/* first stream that is young when it begins */
	pthread_barrier_t begin;
}			load;

typedef struct Client
{
	pthread_t	thread;
	PGconn	   *conn;
	uint64_t	random;
	int64_t		committed;		/* events */
	int64_t		busy;			/* appends that met a busy stream */
	double		elapsed;
	int			pending[MAX_BATCH];	/* streams of the batch */
	int			n_pending;
	unsigned char *out;
	size_t		length;
} Client;

/* xorshift64*: the choice of streams only has to be spread evenly. */
static uint64_t
next_random(Client *client)
{
	uint64_t	x = client->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	client->random = x;
	return x * UINT64_C(2685821657736338717);
}

static void
put(Client *client, const void *bytes, size_t n)
{
	memcpy(client->out + client->length, bytes, n);
	client->length += n;
}

static void
put_uint(Client *client, uint64_t value, int bytes)
{
	for (int i = bytes - 1; i >= 0; i--)
		client->out[client->length++] = (unsigned char) (value >> (8 * i));
}

static void
put_id(Client *client)
{
	put_uint(client, next_random(client), 8);
	put_uint(client, next_random(client), 8);
}

/* JSON of DATA_LENGTH bytes that differs from event to event. */
static void
put_data(Client *client, int stream)
{
	char		data[DATA_LENGTH + 1];
	int			n = snprintf(data, sizeof(data),
							 "{\"orderId\":\"order-%d\",\"customer\":\"customer-%05d\",\"amount\":%d.%02d,\"currency\":\"EUR\",\"note\":\"",
							 stream + 1, (int) (next_random(client) % 100000), (int) (next_random(client) % 1000), (int) (next_random(client) % 100));

	for (; n < DATA_LENGTH - 2; n++)
		data[n] = (char) ('a' + next_random(client) % 26);
	memcpy(data + DATA_LENGTH - 2, "\"}", 2);
	put(client, data, DATA_LENGTH);
}

static void
put_item(Client *client, int stream)
{
	static const char type[] = "OrderPlaced";
	char		name[32];
	size_t		name_length = (size_t) snprintf(name, sizeof(name), "order-%d", stream + 1);
	size_t		start = client->length;
	size_t		end;

	put_uint(client, 0, 4);
	put_uint(client, 0, 2);
	put_uint(client, (uint64_t) EVENTO_EXPECTED_ANY, 8);
	put_uint(client, name_length, 2);
	put(client, name, name_length);
	put_uint(client, 1, 2);
	put_uint(client, load.mode == MODE_APPEND_IDS ? EVENTO_EVENT_ID : 0, 1);
	if (load.mode == MODE_APPEND_IDS)
		put_id(client);
	put_uint(client, sizeof(type) - 1, 2);
	put(client, type, sizeof(type) - 1);
	put_uint(client, 0, 2);
	put_uint(client, 0, 2);
	put_uint(client, DATA_LENGTH, 4);
	put_data(client, stream);

	end = client->length;
	client->length = start;
	put_uint(client, end - start - 4, 4);
	client->length = end;
}

/* One call of append_batch over the pending streams; the busy ones stay pending. */
static void
append_batch(Client *client)
{
	const char *value;
	int			length;
	int			format = 1;
	int			left = 0;
	PGresult   *result;

	client->length = 0;
	put_uint(client, EVENTO_PACKED_MAGIC, 4);
	put_uint(client, (uint64_t) client->n_pending, 4);
	for (int i = 0; i < client->n_pending; i++)
		put_item(client, client->pending[i]);

	value = (const char *) client->out;
	length = (int) client->length;
	result = PQexecPrepared(client->conn, "append", 1, &value, &length, &format, 0);
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != client->n_pending)
		fail("append_batch", client->conn);
	for (int i = 0; i < client->n_pending; i++)
	{
		const char *outcome = PQgetvalue(result, i, 0);

		if (strcmp(outcome, "00000") == 0)
			client->committed++;
		else if (strcmp(outcome, "55P03") == 0)
			client->pending[left++] = client->pending[i];
		else
		{
			fprintf(stderr, "load: an append had outcome %s\n", outcome);
			exit(1);
		}
	}
	client->busy += left;
	client->n_pending = left;
	PQclear(result);
}

static void
put_field(Client *client, const void *bytes, size_t n)
{
	put_uint(client, n, 4);
	put(client, bytes, n);
}

static void
put_int64_field(Client *client, int64_t value)
{
	put_uint(client, 8, 4);
	put_uint(client, (uint64_t) value, 8);
}

/* One row in COPY's binary format, which is faster to read than text. */
static void
put_row(Client *client, int stream, int64_t recorded_at)
{
	put_uint(client, 13, 2);
	put_int64_field(client, __atomic_add_fetch(&load.position, 1, __ATOMIC_RELAXED));
	put_int64_field(client, load.stream_no[stream]);
	put_int64_field(client, __atomic_add_fetch(&load.version[stream], 1, __ATOMIC_RELAXED));
	put_int64_field(client, recorded_at);
	put_int64_field(client, recorded_at);
	put_uint(client, 16, 4);
	put_id(client);
	put_field(client, "\0", 1);
	put_field(client, "\0", 1);
	put_field(client, "OrderPlaced", 11);
	put_field(client, "default", 7);
	put_uint(client, UINT32_MAX, 4);
	put_uint(client, DATA_LENGTH, 4);
	put_data(client, stream);
	put_uint(client, UINT32_MAX, 4);
}

/* One COPY of the pending streams, which is one transaction. */
static void
copy_batch(Client *client, const char *statement)
{
	static const char signature[] = "PGCOPY\n\377\r\n";
	struct timespec t;
	PGresult   *result;

	clock_gettime(CLOCK_REALTIME, &t);
	client->length = 0;
	put(client, signature, sizeof(signature));
	put_uint(client, 0, 8);
	for (int i = 0; i < client->n_pending; i++)
		put_row(client, client->pending[i], (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000 - PG_EPOCH_US);
	put_uint(client, UINT16_MAX, 2);

	result = PQexec(client->conn, statement);
	if (PQresultStatus(result) != PGRES_COPY_IN)
		fail("COPY", client->conn);
	PQclear(result);
	if (PQputCopyData(client->conn, (const char *) client->out, (int) client->length) != 1 || PQputCopyEnd(client->conn, NULL) != 1)
		fail("COPY", client->conn);
	while ((result = PQgetResult(client->conn)) != NULL)
	{
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail("COPY", client->conn);
		PQclear(result);
	}
	client->committed += client->n_pending;
	client->n_pending = 0;
}

/* Makes the batch full; false where there is nothing left to fill. */
static bool
choose_streams(Client *client)
{
	while (client->n_pending < load.batch)
	{
		int			stream;

		int64_t		chosen = __atomic_fetch_add(&load.chosen, 1, __ATOMIC_RELAXED);

		if (load.events > 0 && chosen >= load.events)
			break;
		if (load.mode == MODE_FILL)
			stream = (int) chosen;
		else
			stream = (int) (next_random(client) % (uint64_t) load.streams);
		if (load.mode == MODE_YOUNG)
			stream += load.oldest + (int) (chosen / EVENTS_A_STREAM);
		client->pending[client->n_pending++] = stream;
	}
	return client->n_pending > 0;
}

static void *
client_main(void *arg)
{
	Client	   *client = arg;
	char		statement[256];
	double		start;

	snprintf(statement, sizeof(statement), "COPY %s FROM STDIN (FORMAT binary)", load.table);
	if (load.mode != MODE_COPY)
	{
		PGresult   *result = PQprepare(client->conn, "append", "SELECT outcome FROM evento.append_batch($1)", 0, NULL);

		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail("prepare", client->conn);
		PQclear(result);
	}

	pthread_barrier_wait(&load.begin);
	start = now();
	while ((load.events > 0 || now() - start < load.seconds) && choose_streams(client))
	{
		if (load.mode == MODE_COPY)
			copy_batch(client, statement);
		else
			append_batch(client);
	}
	client->elapsed = now() - start;
	return NULL;
}

/* Learns numbers and versions of the streams, and the last position, for COPY. */
static void
read_streams(PGconn *conn)
{
	char		query[512];
	PGresult   *result;

	load.stream_no = calloc((size_t) load.streams, sizeof(int64_t));
	load.version = calloc((size_t) load.streams, sizeof(int64_t));
	if (!load.stream_no || !load.version)
		fail("out of memory", NULL);
	snprintf(query, sizeof(query),
			 "SELECT substr(s.name, 7)::int - 1, s.stream_no, (SELECT max(e.version) FROM %s e WHERE e.stream_no = s.stream_no) "
			 "FROM evento._streams s WHERE s.name ~ '^order-[0-9]+$'", load.table);
	result = PQexec(conn, query);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("streams", conn);
	for (int i = 0; i < PQntuples(result); i++)
	{
		int			stream = atoi(PQgetvalue(result, i, 0));

		if (stream < 0 || stream >= load.streams)
			continue;
		load.stream_no[stream] = strtoll(PQgetvalue(result, i, 1), NULL, 10);
		load.version[stream] = strtoll(PQgetvalue(result, i, 2), NULL, 10);
	}
	PQclear(result);
	snprintf(query, sizeof(query), "SELECT max(position) FROM %s", load.table);
	result = PQexec(conn, query);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("positions", conn);
	load.position = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
	PQclear(result);
}

/* Where young streams go on: behind the newest, but for those that still live. */
static void
find_oldest(PGconn *conn)
{
	PGresult   *result = PQexec(conn, "SELECT count(*) FROM evento._streams");

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("streams", conn);
	load.oldest = atoi(PQgetvalue(result, 0, 0));
	load.oldest = load.oldest > load.streams ? load.oldest - load.streams : 0;
	PQclear(result);
}

int
main(int argc, char **argv)
{
	static const char *const modes[] = {"append", "append-ids", "copy", "fill", "young"};
	enum
	{
		N_MODES = sizeof(modes) / sizeof(modes[0])
	};
	static Client clients[MAX_CLIENTS];
	int			n_clients;
	int64_t		committed = 0;
	int64_t		busy = 0;
	double		rate = 0;

	if (argc != 8)
	{
		fprintf(stderr, "usage: load append|append-ids|copy|fill|young CONNINFO SECONDS|EVENTSe CLIENTS BATCH STREAMS TABLE\n");
		return 2;
	}
	while ((int) load.mode < N_MODES && strcmp(argv[1], modes[load.mode]) != 0)
		load.mode++;
	load.conninfo = argv[2];
	if (argv[3][0] != '\0' && argv[3][strlen(argv[3]) - 1] == 'e')
		load.events = strtoll(argv[3], NULL, 10);
	else
		load.seconds = strtod(argv[3], NULL);
	n_clients = atoi(argv[4]);
	load.batch = atoi(argv[5]);
	load.streams = atoi(argv[6]);
	load.table = argv[7];
	if (load.mode == MODE_FILL)
		load.events = load.streams;
	if ((int) load.mode >= N_MODES || n_clients < 1 || n_clients > MAX_CLIENTS || load.batch < 1 || load.batch > MAX_BATCH || load.streams < 1)
	{
		fprintf(stderr, "load: an argument is out of bounds\n");
		return 2;
	}

	pthread_barrier_init(&load.begin, NULL, (unsigned) n_clients);
	for (int i = 0; i < n_clients; i++)
	{
		clients[i].random = UINT64_C(0x9e3779b97f4a7c15) * (uint64_t) (i + 1) + (uint64_t) time(NULL);
		clients[i].out = malloc((size_t) load.batch * ROW_LENGTH + ROW_LENGTH);
		clients[i].conn = PQconnectdb(load.conninfo);
		if (!clients[i].out || PQstatus(clients[i].conn) != CONNECTION_OK)
			fail("connect", clients[i].conn);
	}
	if (load.mode == MODE_COPY)
		read_streams(clients[0].conn);
	if (load.mode == MODE_YOUNG)
		find_oldest(clients[0].conn);
	for (int i = 0; i < n_clients; i++)
	{
		if (pthread_create(&clients[i].thread, NULL, client_main, &clients[i]) != 0)
			fail("thread", NULL);
	}
	for (int i = 0; i < n_clients; i++)
	{
		pthread_join(clients[i].thread, NULL);
		committed += clients[i].committed;
		busy += clients[i].busy;
		rate += (double) clients[i].committed / clients[i].elapsed;
		PQfinish(clients[i].conn);
		free(clients[i].out);
	}
	free(load.stream_no);
	free(load.version);
	pthread_barrier_destroy(&load.begin);
	printf("%.0f events/s, %" PRId64 " events, %" PRId64 " busy\n", rate, committed, busy);
	return 0;
}
