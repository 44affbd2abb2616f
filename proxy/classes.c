/*
 * classes.c
 *    Tells the database which class bundles use for an event type, once for each
 *    in the life of the process.
 */
#include "classes.h"

#include <stdlib.h>
#include <uthash.h>

#include "log.h"
#include "rows.h"

/* More pairs than any application has; beyond it nothing is remembered, and nothing told. */
#define MAX_PAIRS 20000

typedef struct pair
{
	UT_hash_handle hh;
	evp_classes_t *classes;
	char		key[];			/* type, a zero byte, class */
} pair_t;

struct evp_classes
{
	evp_db_t   *db;
	pair_t	   *pairs;
};

evp_classes_t *
evp_classes_new(evp_db_t *db)
{
	evp_classes_t *classes = calloc(1, sizeof(*classes));

	if (classes != NULL)
		classes->db = db;
	return classes;
}

void
evp_classes_free(evp_classes_t *classes)
{
	pair_t	   *pair,
			   *next;

	if (classes == NULL)
		return;
	HASH_ITER(hh, classes->pairs, pair, next)
	{
		HASH_DEL(classes->pairs, pair);
		free(pair);
	}
	free(classes);
}

static void
on_told(void *arg, const evp_db_result_t *result)
{
	pair_t	   *pair = arg;

	if (result->status == EVP_DB_OK)
		return;
	/* The next event with this class tells it again. */
	evp_log(EVP_LOG_DEBUG, "db", NULL, "the class of an event type was not kept: %s", result->message);
	HASH_DEL(pair->classes->pairs, pair);
	free(pair);
}

void
evp_classes_seen(evp_classes_t *classes, evp_slice_t type, evp_slice_t klass)
{
	static const Oid types[] = {EVP_OID_TEXT, EVP_OID_TEXT};
	static const int formats[] = {1, 1};
	const char *values[2];
	int			lengths[2];
	size_t		len = type.n + 1 + klass.n;
	pair_t	   *pair,
			   *known = NULL;

	if (klass.p == NULL || type.p == NULL || HASH_COUNT(classes->pairs) >= MAX_PAIRS)
		return;
	pair = malloc(sizeof(*pair) + len);
	if (pair == NULL)
		return;
	memcpy(pair->key, type.p, type.n);
	pair->key[type.n] = '\0';
	memcpy(pair->key + type.n + 1, klass.p, klass.n);
	pair->classes = classes;
	HASH_FIND(hh, classes->pairs, pair->key, len, known);
	if (known != NULL)
	{
		free(pair);
		return;
	}
	HASH_ADD(hh, classes->pairs, key, len, pair);
	values[0] = pair->key;
	lengths[0] = (int) type.n;
	values[1] = pair->key + type.n + 1;
	lengths[1] = (int) klass.n;
	evp_db_run(classes->db, EVP_DB_CONTROL,
			   &(evp_db_statement_t) {.sql = "SELECT evento._class_seen($1, $2)",.nparams = 2,.types = types,.values = values,
			   .lengths = lengths,.formats = formats,.result_format = 1}, on_told, pair);
}
