/*
 * rows_test.c
 *    Rows in binary form, and stories made of them.  The rows are made here, so
 *    that they can be wrong in ways that no database is.
 */
#include <stdio.h>
#include <stdlib.h>

#include "db.h"
#include "metrics.h"
#include "reads.h"
#include "rows.h"
#include "story.h"
#include "unit.h"

evp_metrics_t evp_metrics;

/* What story.c would ask the database. */
void
evp_db_run(evp_db_t *db, evp_db_lane_t lane, const evp_db_statement_t *statement, evp_db_cb cb, void *arg)
{
	(void) db;
	(void) lane;
	(void) statement;
	(void) cb;
	(void) arg;
	fail_msg("no database here");
}

void
evp_reads_run(evp_reads_t *reads, const evp_db_statement_t *statement, int64_t position, uint64_t since, evp_db_cb cb, void *arg)
{
	(void) reads;
	(void) position;
	(void) since;
	evp_db_run(NULL, EVP_DB_READ, statement, cb, arg);
}

bool
evp_db_is_passing(const char *sqlstate)
{
	(void) sqlstate;
	return false;
}

bool
evp_db_read_again(const evp_db_t *db, const evp_db_result_t *result, evp_db_tries_t *tries, uint64_t deadline)
{
	(void) db;
	(void) result;
	(void) tries;
	(void) deadline;
	return false;
}

uint64_t
evp_store_wait_until(const evp_store_t *store, uint64_t deadline)
{
	(void) store;
	return deadline;
}

#define MAX_COLUMNS 16

/* An empty result with columns of these types. */
static PGresult *
result_of(const Oid *types, int count, int format)
{
	PGresult   *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	PGresAttDesc columns[MAX_COLUMNS];

	for (int i = 0; i < count; i++)
		columns[i] = (PGresAttDesc) {.name = "c",.typid = types[i],.format = format};
	assert_true(PQsetResultAttrs(rows, count, columns));
	return rows;
}

static void
put(PGresult *rows, int row, int column, const void *value, int len)
{
	assert_true(PQsetvalue(rows, row, column, (char *) value, len));
}

static void
put_number(PGresult *rows, int row, int column, int64_t value)
{
	uint8_t		bytes[8];

	evp_param_int64(bytes, value);
	put(rows, row, column, bytes, 8);
}

static void
put_text(PGresult *rows, int row, int column, const char *text)
{
	put(rows, row, column, text, text == NULL ? -1 : (int) strlen(text));
}

static void
test_values(void **state)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_TEXT, EVP_OID_BOOL, EVP_OID_UUID, EVP_OID_TIMESTAMPTZ};
	static const int64_t numbers[] = {0, 1, -1, INT64_MIN, INT64_MAX, 0x0102030405060708};
	PGresult   *rows = result_of(types, 5, 1);
	int64_t		number = 42;
	uint8_t		id[16] = {0};
	bool		flag = false;

	(void) state;
	assert_true(evp_rows_are(rows, types, 5));
	assert_false(evp_rows_are(rows, types, 4));
	assert_false(evp_rows_are(rows, types + 1, 4));
	for (int i = 0; i < 6; i++)
	{
		put_number(rows, i, 0, numbers[i]);
		assert_true(evp_row_int64(rows, i, 0, &number));
		assert_int_equal(number, numbers[i]);
	}
	put_text(rows, 0, 1, "");
	put_text(rows, 1, 1, NULL);
	put_text(rows, 2, 1, "text");
	assert_false(evp_slice_is_null(evp_row_bytes(rows, 0, 1)));
	assert_int_equal(evp_row_bytes(rows, 0, 1).n, 0);
	assert_true(evp_slice_is_null(evp_row_bytes(rows, 1, 1)));
	assert_true(evp_row_is_null(rows, 1, 1));
	assert_true(evp_slice_is(evp_row_bytes(rows, 2, 1), "text"));

	put(rows, 0, 2, "\1", 1);
	assert_true(evp_row_bool(rows, 0, 2, &flag) && flag);
	put(rows, 0, 3, "0123456789abcdef", 16);
	assert_true(evp_row_uuid(rows, 0, 3, id));
	assert_memory_equal(id, "0123456789abcdef", 16);

	/* 2000-01-01, a millisecond and a microsecond before it, 1970, and the ends. */
	put_number(rows, 0, 4, 0);
	put_number(rows, 1, 4, -1);
	put_number(rows, 2, 4, INT64_C(-946684800000000));
	put_number(rows, 3, 4, INT64_C(-946684800000001));
	put_number(rows, 4, 4, INT64_MAX);
	put_number(rows, 5, 4, INT64_MIN);
	assert_true(evp_row_time_ms(rows, 0, 4, &number));
	assert_int_equal(number, INT64_C(946684800000));
	assert_true(evp_row_time_ms(rows, 1, 4, &number));
	assert_int_equal(number, INT64_C(946684799999));
	assert_true(evp_row_time_ms(rows, 2, 4, &number));
	assert_int_equal(number, 0);
	assert_true(evp_row_time_ms(rows, 3, 4, &number));
	assert_int_equal(number, -1);
	assert_true(evp_row_time_ms(rows, 4, 4, &number));
	assert_int_equal(number, INT64_MAX);
	assert_true(evp_row_time_ms(rows, 5, 4, &number));
	assert_int_equal(number, INT64_MIN);
	PQclear(rows);
}

/* What is NULL, of another length or not there leaves the value alone. */
static void
test_wrong(void **state)
{
	static const Oid types[] = {EVP_OID_INT8, EVP_OID_UUID, EVP_OID_BOOL};
	PGresult   *rows = result_of(types, 3, 1);
	PGresult   *text = result_of(types, 3, 0);
	int64_t		number = 42;
	uint8_t		id[16] = {7};
	bool		flag = true;

	(void) state;
	assert_false(evp_rows_are(text, types, 3));
	put(rows, 0, 0, "1234567", 7);
	put(rows, 0, 1, "123456789012345", 15);
	put(rows, 0, 2, "", 0);
	put(rows, 1, 0, NULL, -1);
	for (int row = -1; row < 3; row++)
		for (int column = -1; column < 4; column++)
		{
			assert_false(evp_row_int64(rows, row, column, &number));
			assert_false(evp_row_time_ms(rows, row, column, &number));
			assert_false(evp_row_uuid(rows, row, column, id));
			assert_false(evp_row_bool(rows, row, column, &flag));
		}
	assert_int_equal(number, 42);
	assert_int_equal(id[0], 7);
	assert_true(flag);
	assert_true(evp_slice_is_null(evp_row_bytes(rows, 5, 0)));
	PQclear(rows);
	PQclear(text);
}

static const Oid story_types[] = {EVP_OID_TEXT, EVP_EVENT_COLUMN_TYPES};

/* A row of load_stream; type NULL leaves what only events have out. */
static void
put_part(PGresult *rows, int row, const char *part, int64_t position, int64_t version, const char *type, const char *data)
{
	for (int i = 0; i < 1 + EVP_EVENT_COLUMN_COUNT; i++)
		put(rows, row, i, NULL, -1);
	put_text(rows, row, 0, part);
	put_number(rows, row, 2, version);
	put_text(rows, row, 7, data);
	if (type == NULL)
		return;
	put_number(rows, row, 1, position);
	put(rows, row, 3, "0123456789abcdef", 16);
	put_text(rows, row, 4, type);
	put_text(rows, row, 5, "default");
	put_text(rows, row, 6, version % 2 == 0 ? "service" : "domain");
	put_number(rows, row, 10, 0);
	put_number(rows, row, 11, 1000);
	put(rows, row, 12, "\1", 1);
}

static void
test_story(void **state)
{
	PGresult   *rows = result_of(story_types, 1 + EVP_EVENT_COLUMN_COUNT, 1);
	evp_story_t story;
	evp_event_t *memory;

	(void) state;
	put_part(rows, 0, "head", 0, 5, NULL, NULL);
	put_part(rows, 1, "stored", 20, 2, "A", "{}");
	put_part(rows, 2, "snapshot", 0, 3, NULL, "{\"s\":1}");
	put_text(rows, 2, 9, "shop.State");
	put_part(rows, 3, "event", 40, 4, "B", "{\"b\":1}");
	put_part(rows, 4, "event", 50, 5, "C", "{}");
	assert_true(evp_story_read(rows, &story, &memory));
	assert_int_equal(story.head, 5);
	assert_int_equal(story.stored->position, 20);
	assert_int_equal(story.stored->version, 2);
	assert_true(story.has_snapshot);
	assert_int_equal(story.snapshot_version, 3);
	assert_true(evp_slice_is(story.snapshot_class, "shop.State"));
	assert_true(evp_slice_is(story.snapshot_state, "{\"s\":1}"));
	assert_int_equal(story.event_count, 2);
	assert_int_equal(story.events[0].position, 40);
	assert_true(story.events[0].service);
	assert_true(story.events[0].force_telemetry);
	assert_true(evp_slice_is(story.events[0].data, "{\"b\":1}"));
	assert_true(evp_slice_is_null(story.events[0].metadata));
	assert_int_equal(story.events[0].timestamp_ms, INT64_C(946684800000));
	assert_int_equal(story.events[0].recorded_ms, INT64_C(946684800001));
	assert_false(story.events[1].service);
	free(memory);
	PQclear(rows);
}

/* Erased events have no data: they are none of the story's, but one that was asked for is there. */
static void
test_erased(void **state)
{
	PGresult   *rows = result_of(story_types, 1 + EVP_EVENT_COLUMN_COUNT, 1);
	evp_story_t story;
	evp_event_t *memory;

	(void) state;
	put_part(rows, 0, "head", 0, 5, NULL, NULL);
	put_part(rows, 1, "stored", 20, 3, "A", NULL);
	put_part(rows, 2, "event", 20, 3, "A", NULL);
	put_part(rows, 3, "event", 30, 4, "B", "{\"b\":1}");
	put_part(rows, 4, "event", 40, 5, "C", NULL);
	assert_true(evp_story_read(rows, &story, &memory));
	assert_int_equal(story.head, 5);
	assert_int_equal(story.stored->version, 3);
	assert_true(evp_slice_is_null(story.stored->data));
	assert_int_equal(story.event_count, 1);
	assert_int_equal(story.events[0].version, 4);
	free(memory);
	PQclear(rows);
}

/* Rows that no such function gives are refused, whichever value is missing. */
static void
test_bad_story(void **state)
{
	static const int needed[] = {1, 3, 4, 6, 10};
	evp_story_t story;
	evp_event_t *memory;

	(void) state;
	for (size_t i = 0; i <= sizeof(needed) / sizeof(needed[0]); i++)
	{
		PGresult   *rows = result_of(story_types, 1 + EVP_EVENT_COLUMN_COUNT, 1);

		put_part(rows, 0, "head", 0, 1, NULL, NULL);
		put_part(rows, 1, i == 0 ? "other" : "event", 1, 1, "A", "{}");
		if (i > 0)
			put(rows, 1, needed[i - 1], NULL, -1);
		assert_false(evp_story_read(rows, &story, &memory));
		assert_null(memory);
		PQclear(rows);
	}
	{
		PGresult   *none = result_of(story_types, 1 + EVP_EVENT_COLUMN_COUNT, 1);
		PGresult   *few = result_of(story_types, 5, 1);

		put_text(few, 0, 0, "head");
		assert_false(evp_story_read(none, &story, &memory));
		assert_false(evp_story_read(few, &story, &memory));
		PQclear(none);
		PQclear(few);
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_story),
		cmocka_unit_test(test_erased),
		cmocka_unit_test(test_bad_story),
	};

	return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
