/*
 * secrets.c
 *    See secrets.h.
 */
#include "secrets.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

/* The flag whose value may hold one.  It has no abbreviation: --database-wait begins like it. */
#define FLAG "--database"

bool
evp_secrets_in(const char *conninfo)
{
	PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
	bool		found = false;

	/* What is no connection string is one with a slip in it. */
	if (options == NULL)
		return strstr(conninfo, "password") != NULL || strstr(conninfo, "://") != NULL;
	for (const PQconninfoOption *o = options; o->keyword != NULL; o++)
		found |= o->val != NULL && (strcmp(o->keyword, "password") == 0 || strcmp(o->keyword, "sslpassword") == 0);
	PQconninfoFree(options);
	return found;
}

/* The value in or behind an argument that is the flag; NULL where it is not.  Behind the last is a NULL. */
static char *
value_of(char **arg)
{
	if (strcmp(arg[0], FLAG) == 0)
		return arg[1];
	return strncmp(arg[0], FLAG "=", strlen(FLAG "=")) == 0 ? arg[0] + strlen(FLAG "=") : NULL;
}

/* A copy of the arguments; NULL on lack of memory. */
static char **
copy_arguments(int argc, char **argv)
{
	char	  **copy = calloc((size_t) argc + 1, sizeof *copy);

	for (int i = 0; copy != NULL && i < argc; i++)
	{
		copy[i] = strdup(argv[i]);
		if (copy[i] == NULL)
			return NULL;		/* what is copied until then is lost with the process, which will not last */
	}
	return copy;
}

char	  **
evp_secrets_hide(int argc, char **argv)
{
	static char **copy;			/* for as long as the process lasts */

	for (int i = 1; i < argc; i++)
	{
		char	   *value = value_of(&argv[i]);

		if (value == NULL || !evp_secrets_in(value))
			continue;
		if (copy == NULL)
			copy = copy_arguments(argc, argv);
		memset(value, '*', strlen(value));
		evp_log(EVP_LOG_WARNING, "main", NULL,
				"--database holds a password, which ps has shown to others until now: see passfile and PGPASSFILE");
	}
	return copy != NULL ? copy : argv;
}
