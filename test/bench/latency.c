/*
 * latency.c
 *	  How long after an append another session's wait() returns.
 *
 * latency CONNINFO SECONDS
 *
 * One session appends, one event a transaction, with a pause between; another
 * is in wait() all the while.  Prints the medians, in microseconds, of the time
 * from sending an append to its answer, which is one commit, and of that to
 * the return of the wait() that was let go by it.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"


#define MAX_SAMPLES	100000
#define PAUSE_US	3000

/* One append; times in seconds. */
typedef struct Sample
{
	double		sent;
	double		answered;
	int64_t		position;
} Sample;

static struct
{
	pthread_mutex_t mutex;
	PGconn	   *writer;
	PGconn	   *waiter;
	double		seconds;
	Sample		samples[MAX_SAMPLES];
	int			n;
	bool		over;
	int64_t		watermarks[MAX_SAMPLES];	/* that wait() returned, and when */
	double		returned[MAX_SAMPLES];
	int			n_returned;
}			bench = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Runs a statement and gives the bigint in a column of its one row. */
static int64_t
query_bigint(PGconn *conn, const char *query)
{
	PGresult   *result = PQexec(conn, query);
	int64_t		value;

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		fail(query, conn);
	value = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
	PQclear(result);
	return value;
}

static void *
waiter_main(void *arg)
{
	int64_t		watermark = query_bigint(bench.waiter, "SELECT evento.watermark()");
	bool		over = false;

	(void) arg;
	while (!over && bench.n_returned < MAX_SAMPLES)
	{
		char		call[96];

		snprintf(call, sizeof(call), "CALL evento.wait(%" PRId64 ", '1s')", watermark);
		watermark = query_bigint(bench.waiter, call);
		bench.returned[bench.n_returned] = now();
		bench.watermarks[bench.n_returned++] = watermark;
		pthread_mutex_lock(&bench.mutex);
		over = bench.over;
		pthread_mutex_unlock(&bench.mutex);
	}
	return NULL;
}

static void
append_all(void)
{
	static const char *const append =
		"SELECT evento.append('latency-1', 'Tick', '{\"text\": \"%0250d\"}')";
	char		statement[400];
	double		start = now();

	while (now() - start < bench.seconds && bench.n < MAX_SAMPLES)
	{
		Sample	   *sample = &bench.samples[bench.n];
		struct timespec pause = {0, (PAUSE_US + (bench.n * 7919) % PAUSE_US) * 1000L};

		snprintf(statement, sizeof(statement), append, bench.n);
		sample->sent = now();
		(void) query_bigint(bench.writer, statement);
		sample->answered = now();
		sample->position = query_bigint(bench.writer, "SELECT last FROM evento.last_append()");
		bench.n++;
		nanosleep(&pause, NULL);
	}
	pthread_mutex_lock(&bench.mutex);
	bench.over = true;
	pthread_mutex_unlock(&bench.mutex);
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static double
median_us(double *values, int n)
{
	qsort(values, (size_t) n, sizeof(double), compare);
	return values[n / 2] * 1e6;
}

int
main(int argc, char **argv)
{
	static double commits[MAX_SAMPLES];
	static double waits[MAX_SAMPLES];
	pthread_t	thread;
	int			at = 0;
	int			n = 0;

	if (argc != 3)
	{
		fprintf(stderr, "usage: latency CONNINFO SECONDS\n");
		return 2;
	}
	bench.seconds = strtod(argv[2], NULL);
	bench.writer = PQconnectdb(argv[1]);
	bench.waiter = PQconnectdb(argv[1]);
	if (PQstatus(bench.writer) != CONNECTION_OK)
		fail("connect", bench.writer);
	if (PQstatus(bench.waiter) != CONNECTION_OK)
		fail("connect", bench.waiter);
	if (pthread_create(&thread, NULL, waiter_main, NULL) != 0)
		fail("thread", NULL);
	append_all();
	pthread_join(thread, NULL);

	/* The first return with a watermark that has an append's position. */
	for (int i = 0; i < bench.n; i++)
	{
		Sample	   *sample = &bench.samples[i];

		while (at < bench.n_returned && bench.watermarks[at] < sample->position)
			at++;
		if (at == bench.n_returned)
			break;
		commits[n] = sample->answered - sample->sent;
		waits[n++] = bench.returned[at] - sample->sent;
	}
	if (n == 0)
		fail("no wait() returned", NULL);
	printf("commit %.0f us, append to wait %.0f us, %d appends\n", median_us(commits, n), median_us(waits, n), n);
	PQfinish(bench.writer);
	PQfinish(bench.waiter);
	return 0;
}
