/*
 * client.h
 *    What the clients of the benches share.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <errno.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Ends the program; conn: whose error it is, or NULL. */
static inline void
fail(const char *what, PGconn *conn)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, conn ? PQerrorMessage(conn) : "");
	exit(1);
}

/* Seconds of a clock that only goes forward. */
static inline double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

#endif							/* BENCH_CLIENT_H */
