/*
 * session.c
 *	  A connection that is made again when it was lost, and statements that end
 *	  in one of three ways.
 *
 * Nothing here blocks for ever: some seconds after the stop it is given up.
 */
#include "ledger.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

static void
on_notice(void *arg, const PGresult *result)
{
	Session    *session = arg;
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);

	/* The commit was not confirmed by a standby: a caller must not take it for safe. */
	if ((message && strstr(message, "synchronous replication")) || (detail && strstr(detail, "might not have been replicated")))
		session->sync_cut_short = true;
}

/* One attempt to connect; NULL where it failed. */
static PGconn *
connect_once(Session *session)
{
	static const char *const keys[] = {"dbname", "connect_timeout", "application_name", NULL};
	const char *const values[] = {session->conninfo, "5", "evento-ledger", NULL};
	PGconn	   *conn = PQconnectdbParams(keys, values, 1);

	if (PQstatus(conn) == CONNECTION_OK)
	{
		PQsetNoticeReceiver(conn, on_notice, session);
		return conn;
	}
	PQfinish(conn);
	return NULL;
}

bool
session_open(Session *session)
{
	if (session->conn != NULL && PQstatus(session->conn) == CONNECTION_OK)
		return true;
	session_close(session);
	while (!given_up())
	{
		session->conn = connect_once(session);
		if (session->conn != NULL)
		{
			/* An id is to be found however much was appended since the first try. */
			Answer		answer = session_run(session, "SET evento.id_window = 100000", 0, NULL);
			bool		lost = answer.ending == ENDED_LOST;

			answer_free(&answer);
			if (!lost)
				return true;
		}
		session_close(session);
		sleep_ms(50);
	}
	return false;
}

void
session_close(Session *session)
{
	if (session->conn != NULL)
		PQfinish(session->conn);
	session->conn = NULL;
}

/* Waits until a result can be taken without blocking; false where it is lost or given up. */
static bool
await(Session *session)
{
	while (PQisBusy(session->conn))
	{
		struct pollfd fd = {.fd = PQsocket(session->conn), .events = POLLIN};

		if (PQflush(session->conn) == 1)
			fd.events |= POLLOUT;
		if (given_up())
			return false;
		if (poll(&fd, 1, 200) < 0 && errno != EINTR)
			return false;
		if (fd.revents != 0 && !PQconsumeInput(session->conn))
		{
			/* What the server said before it went is still to be taken. */
			break;
		}
	}
	return true;
}

/* An error stays, rows take the place of nothing. */
static void
take(Answer *answer, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE)
	{
		const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

		if (answer->ending == ENDED_ERROR)
		{
			PQclear(result);
			return;
		}
		answer->ending = ENDED_ERROR;
		snprintf(answer->state, sizeof(answer->state), "%s", state ? state : "");
	}
	PQclear(answer->result);
	answer->result = result;
}

/* Takes the answer to what was sent, to its very end: the commit comes behind the rows. */
static Answer
finish(Session *session, bool sent)
{
	Answer		answer = {.ending = ENDED_WELL};

	while (sent)
	{
		PGresult   *result;

		if (!await(session))
		{
			sent = false;
			break;
		}
		result = PQgetResult(session->conn);
		if (result == NULL)
			break;
		take(&answer, result);
	}
	if (!sent || PQstatus(session->conn) != CONNECTION_OK)
	{
		answer.ending = ENDED_LOST;
		session_close(session);
	}
	return answer;
}

Answer
session_run(Session *session, const char *sql, int nparams, const char *const *params)
{
	session->sync_cut_short = false;
	if (session->conn == NULL)
		return (Answer) {.ending = ENDED_LOST};
	return finish(session, PQsendQueryParams(session->conn, sql, nparams, NULL, params, NULL, NULL, 0));
}

Answer
session_run_bytes(Session *session, const char *sql, const unsigned char *bytes, int length)
{
	const char *value = (const char *) bytes;
	int			format = 1;

	session->sync_cut_short = false;
	if (session->conn == NULL)
		return (Answer) {.ending = ENDED_LOST};
	return finish(session, PQsendQueryParams(session->conn, sql, 1, NULL, &value, &length, &format, 0));
}

void
answer_free(Answer *answer)
{
	PQclear(answer->result);
	answer->result = NULL;
}

int64_t
answer_number(const Answer *answer, int row, int column)
{
	if (answer->result == NULL || row >= PQntuples(answer->result) || column >= PQnfields(answer->result) ||
		PQgetisnull(answer->result, row, column))
		return 0;
	return strtoll(PQgetvalue(answer->result, row, column), NULL, 10);
}
