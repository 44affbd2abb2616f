/*
 * check.c
 *	  What can be said of an append without looking into the database, expected
 *	  versions, and how what is wrong is told.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "evento.h"

/* ---- outcomes ---- */

void
evento_outcome_set(EventoOutcome *outcome, int sqlstate, char *message, char *detail, const char *hint)
{
	outcome->sqlstate = sqlstate;
	outcome->message = message;
	outcome->detail = detail;
	outcome->hint = hint;
}

static void
outcome_invalid(EventoOutcome *outcome, char *message)
{
	evento_outcome_set(outcome, ERRCODE_INVALID_PARAMETER_VALUE, message, NULL, NULL);
}

void
evento_outcome_raise(const EventoOutcome *outcome)
{
	if (outcome->sqlstate == 0)
		return;
	ereport(ERROR,
			(errcode(outcome->sqlstate),
			 errmsg_internal("%s", outcome->message),
			 outcome->detail != NULL ? errdetail_internal("%s", outcome->detail) : 0,
			 outcome->hint != NULL ? errhint("%s", outcome->hint) : 0));
}

/* ---- checks ---- */

void
evento_check_preloaded(void)
{
	if (!evento_shmem_ready())
		ereport(ERROR,
				(errcode(ERRCODE_EVENTO_NOT_PRELOADED),
				 errmsg("evento is not preloaded"),
				 errhint("Add evento to shared_preload_libraries and restart the server.")));
}

void
evento_check_write(const char *what)
{
	evento_check_preloaded();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_EVENTO_READ_ONLY),
				 errmsg("cannot execute %s on a standby", what),
				 errhint("Connect to the primary.")));
	PreventCommandIfReadOnly(what);
	PreventCommandIfParallelMode(what);
	evento_buffer_check_idle();
}

const char *
evento_check_stream_name(text *stream, int *len)
{
	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream must not be NULL")));
	*len = VARSIZE_ANY_EXHDR(stream);
	if (*len < 1 || *len > EVENTO_MAX_STREAM_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream must have 1 to %d bytes, not %d", EVENTO_MAX_STREAM_LEN, *len)));
	return VARDATA_ANY(stream);
}

/* What the depth of a JSON text is counted with. */
typedef struct DepthState
{
	JsonLexContext *lex;
	bool		exceeded;
} DepthState;

static EVENTO_JSON_ACTION
on_json_nesting(void *arg)
{
	DepthState *state = arg;

	if (state->lex->lex_level >= evento_max_json_depth)
	{
		state->exceeded = true;
		EVENTO_JSON_STOP(state->lex);
	}
	EVENTO_JSON_GO_ON;
}

/* Checks a JSON text; false with the outcome set where it is not well. */
static bool
check_json(const char *what, const char *json, int len, EventoOutcome *outcome)
{
	DepthState	state = {NULL, false};
	JsonSemAction actions = {0};
	JsonParseErrorType result;
	bool		ok = false;

	if (len > (int64) evento_max_event_size * 1024)
	{
		evento_outcome_set(outcome, ERRCODE_INVALID_PARAMETER_VALUE,
					psprintf("%s must have at most %d kB, not %d bytes",
							 what, evento_max_event_size, len),
					NULL, "evento.max_event_size sets the limit.");
		return false;
	}
	if (!pg_verifymbstr(json, len, true))
	{
		outcome_invalid(outcome, psprintf("%s is not valid UTF-8", what));
		return false;
	}

	state.lex = evento_json_lexer(json, len);
	actions.semstate = &state;
	actions.object_start = on_json_nesting;
	actions.array_start = on_json_nesting;
	result = pg_parse_json(state.lex, &actions);
	if (state.exceeded)
		evento_outcome_set(outcome, ERRCODE_INVALID_TEXT_REPRESENTATION,
					psprintf("%s is nested deeper than %d", what, evento_max_json_depth),
					NULL, "evento.max_json_depth sets the limit.");
	else if (result != JSON_SUCCESS)
		evento_outcome_set(outcome, ERRCODE_INVALID_TEXT_REPRESENTATION,
					psprintf("%s is not valid JSON", what),
					json_errdetail(result, state.lex), NULL);
	else
		ok = true;
	evento_json_lexer_free(state.lex);
	return ok;
}

void
evento_check_json(const char *what, const char *json, int len)
{
	EventoOutcome outcome = {0};

	check_json(what, json, len, &outcome);
	evento_outcome_raise(&outcome);
}

static bool
check_text(const char *what, const char *value, int len, int min, int max, EventoOutcome *outcome)
{
	if (len < min || len > max)
	{
		outcome_invalid(outcome, psprintf("%s must have %d to %d bytes, not %d", what, min, max, len));
		return false;
	}
	if (!pg_verifymbstr(value, len, true))
	{
		outcome_invalid(outcome, psprintf("%s is not valid UTF-8", what));
		return false;
	}
	return true;
}

static bool
check_timestamp(int64 ms, EventoOutcome *outcome)
{
	/* The limits of the type, in whole milliseconds. */
	if (ms >= MIN_TIMESTAMP / 1000 + EVENTO_MS_UNIX_TO_POSTGRES &&
		ms < END_TIMESTAMP / 1000 + EVENTO_MS_UNIX_TO_POSTGRES)
		return true;
	outcome_invalid(outcome, psprintf("timestamp is out of range: " INT64_FORMAT, ms));
	return false;
}

static bool
check_event(const EventoNewEvent *event, EventoOutcome *outcome)
{
	int64		size = (int64) event->data_len + event->metadata_len;

	if (!check_text("type", event->type, event->type_len, 1, EVENTO_MAX_TYPE_LEN, outcome) ||
		!check_text("context", event->context, event->context_len, 1, EVENTO_MAX_CONTEXT_LEN, outcome))
		return false;
	if (event->class_name != NULL &&
		!check_text("class", event->class_name, event->class_len, 1, EVENTO_MAX_CLASS_LEN, outcome))
		return false;
	if (event->has_timestamp && !check_timestamp(event->timestamp_ms, outcome))
		return false;
	if (size > (int64) evento_max_event_size * 1024)
	{
		evento_outcome_set(outcome, ERRCODE_INVALID_PARAMETER_VALUE,
					psprintf("data and metadata must have at most %d kB together, not " INT64_FORMAT " bytes",
							 evento_max_event_size, size),
					NULL, "evento.max_event_size sets the limit.");
		return false;
	}
	if (!check_json("data", event->data, event->data_len, outcome))
		return false;
	return event->metadata == NULL ||
		check_json("metadata", event->metadata, event->metadata_len, outcome);
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

/* An id may come once in one append. */
static bool
check_ids_distinct(const EventoAppend *append, EventoOutcome *outcome)
{
	pg_uuid_t  *ids;
	int			n = 0;
	bool		ok = true;

	if (append->nevents < 2)
		return true;
	ids = palloc(append->nevents * sizeof(pg_uuid_t));
	for (int i = 0; i < append->nevents; i++)
	{
		if (append->events[i].has_id)
			ids[n++] = append->events[i].id;
	}
	qsort(ids, n, sizeof(pg_uuid_t), compare_ids);
	for (int i = 1; i < n && ok; i++)
		ok = memcmp(&ids[i - 1], &ids[i], UUID_LEN) != 0;
	pfree(ids);
	if (!ok)
		evento_outcome_set(outcome, ERRCODE_EVENTO_ID_CLASH,
					pstrdup("an event id is given twice in one append"), NULL, NULL);
	return ok;
}

static const char *const expected_hint =
"NULL stands for any version, 0 for no stream yet, n for exactly n, -4 for an existing stream. Other negative numbers mean different things in different systems, so none of them is taken.";

/* Everything that can be said of an append without looking into the database. */
bool
evento_check_append(const EventoAppend *append, EventoOutcome *outcome)
{
	if (append->stream != NULL &&
		!check_text("stream", append->stream, append->stream_len, 1, EVENTO_MAX_STREAM_LEN, outcome))
		return false;
	if (append->nevents < 1)
	{
		outcome_invalid(outcome, pstrdup("there are no events to append"));
		return false;
	}
	if (append->expected < 0 && append->expected != EVENTO_EXPECTED_ANY &&
		append->expected != EVENTO_EXPECTED_EXISTS)
	{
		evento_outcome_set(outcome, ERRCODE_INVALID_PARAMETER_VALUE,
					psprintf("invalid expected version: " INT64_FORMAT, append->expected),
					NULL, expected_hint);
		return false;
	}
	if (append->stream == NULL && append->expected != EVENTO_EXPECTED_ANY)
	{
		outcome_invalid(outcome, pstrdup("an event without stream has no version that could be expected"));
		return false;
	}
	for (int i = 0; i < append->nevents; i++)
	{
		if (!check_event(&append->events[i], outcome))
			return false;
	}
	if ((append->flags & EVENTO_ITEM_LOCK) &&
		!check_text("lock", append->lock, append->lock_len, 1, EVENTO_MAX_STREAM_LEN, outcome))
		return false;
	if (append->stream == NULL && (append->flags & (EVENTO_ITEM_UNLOCKED | EVENTO_ITEM_SNAPSHOT |
													EVENTO_ITEM_DROP_SNAPSHOTS)))
	{
		outcome_invalid(outcome, pstrdup("an event without stream has neither locks nor snapshots of its own"));
		return false;
	}
	if (append->flags & EVENTO_ITEM_SNAPSHOT)
	{
		if (append->snapshot_class != NULL &&
			!check_text("class of the snapshot", append->snapshot_class, append->snapshot_class_len,
						1, EVENTO_MAX_CLASS_LEN, outcome))
			return false;
		if (!check_json("state of the snapshot", append->snapshot_state,
						append->snapshot_state_len, outcome))
			return false;
	}
	return check_ids_distinct(append, outcome);
}

/* ---- streams that are gone, expected versions ---- */

/* V0003: all that can be said to who would go on with a tombstone's stream. */
void
evento_outcome_deleted(EventoOutcome *outcome, const char *name, int len)
{
	evento_outcome_set(outcome, ERRCODE_EVENTO_STREAM_DELETED,
				psprintf("stream \"%s\" was deleted for good", pnstrdup(name, len)),
				NULL, "Its name is used up by tombstone_stream. Use another stream.");
}

/* Whether a stream at head, hidden up to deleted_version, is what was expected. */
bool
evento_expected_met(int64 expected, int64 head, int64 deleted_version)
{
	bool		hidden = head > 0 && head <= deleted_version;

	if (expected == EVENTO_EXPECTED_ANY)
		return true;
	if (expected == EVENTO_EXPECTED_EXISTS)
		return head > 0 && !hidden;
	if (expected == 0)
		return head == 0 || hidden;
	return head == expected;
}

void
evento_outcome_wrong_version(EventoOutcome *outcome, const char *name, int len, int64 expected,
					  int64 head, int64 deleted_version)
{
	char	   *wanted;
	char	   *found;

	if (expected == EVENTO_EXPECTED_EXISTS)
		wanted = pstrdup("an existing stream");
	else if (expected == 0)
		wanted = pstrdup("no stream");
	else
		wanted = psprintf("version " INT64_FORMAT, expected);
	if (head == 0)
		found = pstrdup("no stream");
	else if (head <= deleted_version)
		found = psprintf("a stream deleted at version " INT64_FORMAT, head);
	else
		found = psprintf("version " INT64_FORMAT, head);
	evento_outcome_set(outcome, ERRCODE_EVENTO_WRONG_VERSION,
				psprintf("wrong expected version of stream \"%s\"", pnstrdup(name, len)),
				psprintf("Expected %s, found %s.", wanted, found), NULL);
}

void
evento_check_expected(const char *name, int len, bool any, int64 expected,
					  int64 head, int64 deleted_version)
{
	EventoOutcome outcome = {0};

	if (any)
		return;
	if (expected < 0 && expected != EVENTO_EXPECTED_EXISTS)
		evento_outcome_set(&outcome, ERRCODE_INVALID_PARAMETER_VALUE,
					psprintf("invalid expected version: " INT64_FORMAT, expected),
					NULL, expected_hint);
	else if (!evento_expected_met(expected, head, deleted_version))
		evento_outcome_wrong_version(&outcome, name, len, expected, head, deleted_version);
	evento_outcome_raise(&outcome);
}
