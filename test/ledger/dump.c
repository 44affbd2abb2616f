/*
 * dump.c
 *	  The final content of the log, as a file that check reads:
 *
 *	L position id version type stream	each event; stream - for none
 *	T op								each row of the user's table
 *	J last next							each jump of positions
 *	# end								nothing is missing
 */
#include "ledger.h"

#include <errno.h>
#include <string.h>

static const char *const parts[] = {
	"SELECT 'L ' || e.position || ' ' || e.id || ' ' || coalesce(e.version, 0) || ' ' || e.type || ' ' || coalesce(s.name, '-')"
	" FROM evento._events e LEFT JOIN evento._streams s USING (stream_no) ORDER BY e.position",
	"SELECT 'T ' || lpad(to_hex(op), 16, '0') FROM public.ledger_rows",
	"SELECT 'J ' || last_position || ' ' || next_position FROM evento._jumps ORDER BY next_position"
};

int
dump_main(void)
{
	Session		session = {.conninfo = settings.conninfo};
	FILE	   *file = fopen(settings.file, "w");

	if (file == NULL)
		die("%s: %s", settings.file, strerror(errno));
	if (!session_open(&session))
		die("could not connect");
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
	{
		PGresult   *result;

		if (!PQsendQuery(session.conn, parts[i]) || !PQsetSingleRowMode(session.conn))
			die("%s", PQerrorMessage(session.conn));
		while ((result = PQgetResult(session.conn)) != NULL)
		{
			if (PQresultStatus(result) == PGRES_SINGLE_TUPLE)
				fprintf(file, "%s\n", PQgetvalue(result, 0, 0));
			else if (PQresultStatus(result) != PGRES_TUPLES_OK)
				die("%s", PQerrorMessage(session.conn));
			PQclear(result);
		}
	}
	fprintf(file, "# end\n");
	if (fclose(file) != 0)
		die("%s: %s", settings.file, strerror(errno));
	session_close(&session);
	return 0;
}
