/*
 * consume.c
 *	  A reader that is a durable consumer: its checkpoint moves in the server,
 *	  in the transaction that fetches.
 *
 * A page counts as given once that transaction has been committed.  Where
 * nobody knows whether it was, the checkpoint tells with the next claim: the
 * record has each event once, unless the server gives it twice.
 */
#include "ledger.h"

#include <stdlib.h>
#include <string.h>

/* A page whose commit is under way; result is NULL where there is none. */
typedef struct Page
{
	PGresult   *result;
	int64_t		scanned;		/* the checkpoint behind it */
} Page;

static void
forget(Page *page)
{
	PQclear(page->result);
	page->result = NULL;
}

/* The page was given: all of its rows but the last, which only says how far the scan came. */
static void
take(FILE *file, Page *page)
{
	record_page(file, page->result);
	forget(page);
}

static bool
run(Session *session, const char *sql, Answer *answer)
{
	*answer = session_run(session, sql, 0, NULL);
	return answer->ending == ENDED_WELL;
}

static bool
run_only(Session *session, const char *sql)
{
	Answer		answer;
	bool		well = run(session, sql, &answer);

	answer_free(&answer);
	return well;
}

/* Claims within the transaction; false where that failed or another has the consumer. */
static bool
claim(Session *session, int64_t *epoch, int64_t *position)
{
	char		sql[200];
	Answer		answer;
	bool		well;

	snprintf(sql, sizeof(sql), "SELECT epoch, position FROM evento.consumer_claim('%s', '0')", settings.name);
	well = run(session, sql, &answer) && PQntuples(answer.result) == 1;
	*epoch = answer_number(&answer, 0, 0);
	*position = answer_number(&answer, 0, 1);
	answer_free(&answer);
	return well;
}

/* Fetches a page and moves the checkpoint behind it. */
static bool
fetch(Session *session, int64_t epoch, int64_t position, Page *page)
{
	char		sql[300];
	Answer		answer;
	int			n;

	snprintf(sql, sizeof(sql), "SELECT position, id, coalesce(version, 0), coalesce(stream, '-'), scanned FROM evento.consumer_fetch('%s', 500)",
			 settings.name);
	if (!run(session, sql, &answer))
	{
		answer_free(&answer);
		return false;
	}
	n = PQntuples(answer.result);
	page->result = answer.result;
	page->scanned = n > 0 ? answer_number(&answer, n - 1, 4) : position;
	if (page->scanned <= position)
		return true;
	snprintf(sql, sizeof(sql), "SELECT evento.consumer_ack('%s', %" PRId64 ", %" PRId64 ")", settings.name, page->scanned, epoch);
	if (run_only(session, sql))
		return true;
	forget(page);
	return false;
}

/* One transaction.  False where it failed; *empty where there was nothing new. */
static bool
turn(Session *session, FILE *file, Page *page, bool *empty)
{
	int64_t		epoch;
	int64_t		position;

	if (!run_only(session, "BEGIN") || !claim(session, &epoch, &position))
		return false;
	if (page->result != NULL)
	{
		/* That of the commit nobody knew about. */
		if (position >= page->scanned)
			take(file, page);
		else
			forget(page);
	}
	if (!fetch(session, epoch, position, page))
		return false;
	*empty = page->scanned <= position;
	if (!run_only(session, "COMMIT"))
	{
		/* Only a connection that was lost leaves it open. */
		if (session->conn != NULL)
			forget(page);
		return false;
	}
	take(file, page);
	return true;
}

void
consume(FILE *file)
{
	Session		session = {.conninfo = settings.conninfo};
	Page		page = {.result = NULL};

	while (session_open(&session))
	{
		bool		last_turn = stopping;
		bool		empty = false;

		if (!turn(&session, file, &page, &empty))
		{
			(void) run_only(&session, "ROLLBACK");
			sleep_ms(20);
		}
		else if (empty)
		{
			if (last_turn)
				break;
			sleep_ms(3);
		}
	}
	forget(&page);
	session_close(&session);
}
