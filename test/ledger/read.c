/*
 * read.c
 *	  A reader that follows the log from position 0, and the record of what it
 *	  was given, in order.
 *
 *	R time position id version stream	stream - for none
 *
 * It goes on behind the last position that it has recorded, also after its
 * connection was lost.  At SIGTERM it reads what is left.
 */
#include "ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE "500"
#define COLUMNS "position, id, coalesce(version, 0), coalesce(stream, '-')"

typedef struct Mode
{
	const char *name;
	const char *start;			/* once a connection, or NULL */
	const char *wait;			/* before each page; %s is the last position */
	const char *fetch;
} Mode;

static const Mode modes[] = {
	{"read_all", NULL, NULL, "SELECT " COLUMNS " FROM evento.read_all(%s, " PAGE ")"},
	{"view", NULL, NULL, "SELECT " COLUMNS " FROM evento.events WHERE position > %s ORDER BY position LIMIT " PAGE},
	{"wait", NULL, "CALL evento.wait(%s, '1s')", "SELECT " COLUMNS " FROM evento.read_all(%s, " PAGE ")"},
	{"notify", "LISTEN evento", NULL, "SELECT " COLUMNS " FROM evento.read_all(%s, " PAGE ")"}
};

/* Runs a statement in which %s is a position; false where it failed. */
static bool
run(Session *session, const char *format, int64_t position, Answer *answer)
{
	char		number[24];
	char		sql[400];

	snprintf(number, sizeof(number), "%" PRId64, position);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(sql, sizeof(sql), format, number);
#pragma GCC diagnostic pop
	*answer = session_run(session, sql, 0, NULL);
	return answer->ending == ENDED_WELL;
}

void
record_page(FILE *file, const PGresult *result)
{
	int64_t		now = now_ns();

	for (int i = 0; i < PQntuples(result); i++)
	{
		if (!PQgetisnull(result, i, 0))
			fprintf(file, "R %" PRId64 " %s %s %s %s\n", now, PQgetvalue(result, i, 0), PQgetvalue(result, i, 1),
					PQgetvalue(result, i, 2), PQgetvalue(result, i, 3));
	}
	if (fflush(file) != 0)
		die("%s: %s", settings.file, strerror(errno));
}

/* Waits for a notification, for a second at most. */
static void
await_notify(Session *session)
{
	for (int i = 0; i < 100 && !stopping; i++)
	{
		PGnotify   *notify;
		bool		any = false;

		if (!PQconsumeInput(session->conn))
			return;
		while ((notify = PQnotifies(session->conn)) != NULL)
		{
			PQfreemem(notify);
			any = true;
		}
		if (any)
			return;
		sleep_ms(10);
	}
}

/* One turn of a mode that keeps its position itself; false where the turn failed. */
static bool
turn(Session *session, const Mode *mode, FILE *file, int64_t *after, bool *empty)
{
	Answer		answer;
	bool		well = true;

	if (mode->wait != NULL && *empty && !stopping)
	{
		well = run(session, mode->wait, *after, &answer);
		answer_free(&answer);
	}
	if (!well)
		return false;
	well = run(session, mode->fetch, *after, &answer);
	if (well)
	{
		int			n = PQntuples(answer.result);

		record_page(file, answer.result);
		*empty = n == 0;
		if (n > 0)
			*after = answer_number(&answer, n - 1, 0);
	}
	answer_free(&answer);
	return well;
}

static void
follow(const Mode *mode, FILE *file)
{
	Session		session = {.conninfo = settings.conninfo};
	int64_t		after = 0;
	bool		empty = false;

	while (session_open(&session))
	{
		PGconn	   *conn = session.conn;
		bool		well = true;

		if (mode->start != NULL)
		{
			Answer		answer = session_run(&session, mode->start, 0, NULL);

			well = answer.ending == ENDED_WELL;
			answer_free(&answer);
		}
		while (well && session.conn == conn)
		{
			/* What is left when it is stopped is what it finds from now on. */
			bool		last_turn = stopping;

			well = turn(&session, mode, file, &after, &empty);
			if (!well || !empty)
				continue;
			if (last_turn)
			{
				session_close(&session);
				return;
			}
			if (strcmp(mode->name, "notify") == 0)
				await_notify(&session);
			else if (mode->wait == NULL)
				sleep_ms(3);
		}
		session_close(&session);
		sleep_ms(50);
	}
}

int
read_main(void)
{
	FILE	   *file = fopen(settings.file, "a");

	if (file == NULL)
		die("%s: %s", settings.file, strerror(errno));
	if (strcmp(settings.mode, "consumer") == 0)
	{
		fprintf(file, "# reader %s\n", settings.mode);
		consume(file);
		fclose(file);
		return 0;
	}
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
	{
		if (strcmp(settings.mode, modes[i].name) == 0)
		{
			fprintf(file, "# reader %s\n", settings.mode);
			follow(&modes[i], file);
			fclose(file);
			return 0;
		}
	}
	die("no such mode: %s", settings.mode);
}
