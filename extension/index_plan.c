/*
 * index_plan.c
 *	  What create_index and drop_index are asked for: the name of the index, and
 *	  the statement that makes it.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "compat.h"
#include "index_plan.h"

EVENTO_NORETURN static void
refuse_what(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("cannot index \"%s\"", what),
			 errhint("Say category, type, context, time, or a key of JSON such as data.orderId, data.customer.id or metadata.tenant; a key with other characters than letters, digits, _, -, $ and @ stands in double quotes.")));
}

static bool
bare_key_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		c == '_' || c == '-' || c == '$' || c == '@' || IS_HIGHBIT_SET(c);
}

/*
 * Reads the key that begins at at, bare or in double quotes (two of them stand
 * for one); gives what is behind it, or NULL where there is none.
 */
static const char *
read_key(const char *at, StringInfo key)
{
	resetStringInfo(key);
	if (*at != '"')
	{
		while (bare_key_byte(*at))
			appendStringInfoChar(key, *at++);
		return key->len > 0 ? at : NULL;
	}
	for (at++; *at != '\0'; at++)
	{
		if (*at == '"' && *++at != '"')
			return at;
		appendStringInfoChar(key, *at);
	}
	return NULL;
}

/* Appends a key as read_key reads it, in quotes only where it has to be. */
static void
write_key(StringInfo out, const StringInfoData *key)
{
	bool		bare = key->len > 0;

	for (int i = 0; i < key->len; i++)
		bare = bare && bare_key_byte(key->data[i]);
	if (bare)
	{
		appendStringInfoString(out, key->data);
		return;
	}
	appendStringInfoChar(out, '"');
	for (int i = 0; i < key->len; i++)
	{
		if (key->data[i] == '"')
			appendStringInfoChar(out, '"');
		appendStringInfoChar(out, key->data[i]);
	}
	appendStringInfoChar(out, '"');
}

/*
 * The name of the index on a path: some of the path, for people, and a hash,
 * since a name is short.
 */
static void
name_of_path(const char *path, Name name)
{
	char		readable[37];
	int			n = 0;

	for (; path[n] != '\0' && n < (int) sizeof(readable) - 1; n++)
	{
		char		c = path[n];

		readable[n] = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '_';
	}
	readable[n] = '\0';
	snprintf(NameStr(*name), NAMEDATALEN, "_events_%s_%016llx", readable,
			 (unsigned long long) hash_bytes_extended((const unsigned char *) path, strlen(path), 0));
}

/* The plan for a key of JSON. */
static void
plan_path(const char *what, IndexPlan *plan)
{
	const char *column = strncmp(what, "data.", 5) == 0 ? "data" :
		strncmp(what, "metadata.", 9) == 0 ? "metadata" : NULL;
	const char *at;
	StringInfoData canonical;
	StringInfoData call;
	StringInfoData key;

	if (column == NULL)
		refuse_what(what);
	initStringInfo(&canonical);
	initStringInfo(&call);
	initStringInfo(&key);
	appendStringInfoString(&canonical, column);
	appendStringInfo(&call, SCHEMA ".text(%s", column);
	for (at = what + strlen(column); *at != '\0';)
	{
		if (*at != '.' || (at = read_key(at + 1, &key)) == NULL)
			refuse_what(what);
		appendStringInfoChar(&canonical, '.');
		write_key(&canonical, &key);
		appendStringInfo(&call, ", %s", quote_literal_cstr(key.data));
	}
	appendStringInfoChar(&call, ')');

	strlcpy(plan->what, canonical.data, sizeof(plan->what));
	name_of_path(canonical.data, &plan->name);
	plan->table = "_events";
	plan->analyze = true;

	/*
	 * An append that had to empty a pending list would take long at its
	 * commit.  Events without the key need no entry.
	 */
	snprintf(plan->statement, sizeof(plan->statement),
			 "CREATE INDEX CONCURRENTLY %s ON " SCHEMA "._events USING gin (%s " SCHEMA "._key_ops) WITH (fastupdate = off) WHERE %s IS NOT NULL",
			 quote_identifier(NameStr(plan->name)), call.data, call.data);
}

void
evento_plan_index(text *argument, IndexPlan *plan)
{
	static const struct
	{
		const char *what;
		const char *name;
		const char *table;
		const char *columns;
		bool		analyze;
	}			fixed[] = {
		{"category", "_streams_category", "_streams", "(pg_catalog.split_part(name, '-', 1))", true},
		{"type", "_events_type", "_events", "type, position", false},
		{"context", "_events_context", "_events", "context, position", false},
		{"time", "_events_time", "_events", "recorded_at", false},
	};
	char	   *what = text_to_cstring(argument);

	memset(plan, 0, sizeof(*plan));
	if (strlen(what) > MAX_WHAT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("what to index must have at most %d bytes, not %zu", MAX_WHAT, strlen(what))));
	for (int i = 0; i < lengthof(fixed); i++)
	{
		if (strcmp(what, fixed[i].what) != 0)
			continue;
		strlcpy(plan->what, what, sizeof(plan->what));
		namestrcpy(&plan->name, fixed[i].name);
		plan->table = fixed[i].table;
		plan->analyze = fixed[i].analyze;
		snprintf(plan->statement, sizeof(plan->statement),
				 "CREATE INDEX CONCURRENTLY %s ON " SCHEMA ".%s (%s)",
				 fixed[i].name, fixed[i].table, fixed[i].columns);
		return;
	}
	plan_path(what, plan);
}

/* SQL: _index_plan(INOUT what text, OUT index_name text, OUT statement text) */
PG_FUNCTION_INFO_V1(evento_index_plan);
Datum
evento_index_plan(PG_FUNCTION_ARGS)
{
	IndexPlan	plan;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	evento_plan_index(PG_GETARG_TEXT_PP(0), &plan);
	values[0] = CStringGetTextDatum(plan.what);
	values[1] = CStringGetTextDatum(NameStr(plan.name));
	values[2] = CStringGetTextDatum(plan.statement);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
