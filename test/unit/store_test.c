/*
 * store_test.c
 *    Appends on their way to a database that is played here: what goes into one
 *    batch, what is tried again, what each append hears.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../include/errcodes.h"
#include "db.h"
#include "metrics.h"
#include "pg_array.h"
#include "rows.h"
#include "store.h"
#include "unit.h"


/* ---- the database that is played ---- */

static evp_proxy_t proxy;
static bool db_up = true;
static int	idle = 1;

/* The batch in flight: at most one, as with one connection. */
static struct
{
	bool		open;
	evp_db_cb	cb;
	void	   *arg;
	uint32_t	items;
	char		bytes[4096];
	int			len;
}			flight;

void
evp_db_run(evp_db_t *db, evp_db_lane_t lane, const evp_db_statement_t *statement, evp_db_cb cb, void *arg)
{
	const uint8_t *p = (const uint8_t *) statement->values[0];

	(void) db;
	assert_false(flight.open);
	assert_int_equal(lane, EVP_DB_APPEND);
	flight.open = true;
	flight.cb = cb;
	flight.arg = arg;
	flight.items = (uint32_t) p[4] << 24 | (uint32_t) p[5] << 16 | (uint32_t) p[6] << 8 | p[7];
	flight.len = statement->lengths[0] < (int) sizeof(flight.bytes) ? statement->lengths[0] : (int) sizeof(flight.bytes);
	memcpy(flight.bytes, p, (size_t) flight.len);
	idle = 0;
}

void
evp_reads_run(evp_reads_t *reads, const evp_db_statement_t *statement, int64_t position, uint64_t since, evp_db_cb cb, void *arg)
{
	(void) reads;
	(void) position;
	(void) since;
	evp_db_run(NULL, EVP_DB_READ, statement, cb, arg);
}

int
evp_db_idle(const evp_db_t *db, evp_db_lane_t lane)
{
	(void) db;
	(void) lane;
	return db_up ? idle : 0;
}

bool
evp_db_lane_is_up(const evp_db_t *db, evp_db_lane_t lane)
{
	(void) db;
	(void) lane;
	return db_up;
}

const char *
evp_db_error(const evp_db_t *db)
{
	(void) db;
	return "it is away";
}

static evp_db_room_cb room_cb;
static void *room_arg;

void
evp_db_on_room(evp_db_t *db, evp_db_lane_t lane, evp_db_room_cb cb, void *arg)
{
	(void) db;
	(void) lane;
	room_cb = cb;
	room_arg = arg;
}

bool
evp_db_is_passing(const char *sqlstate)
{
	return strcmp(sqlstate, EVENTO_SQLSTATE_LOCK_NOT_AVAILABLE) == 0 || strcmp(sqlstate, EVENTO_SQLSTATE_SERIALIZATION) == 0;
}

/* Nothing is loaded here. */
bool
evp_db_read_again(const evp_db_t *db, const evp_db_result_t *result, evp_db_tries_t *tries, uint64_t deadline)
{
	(void) db;
	(void) result;
	(void) tries;
	(void) deadline;
	return false;
}

/* Ends what is in flight. */
static void
end_flight(const evp_db_result_t *result)
{
	assert_true(flight.open);
	flight.open = false;
	idle = 1;
	flight.cb(flight.arg, result);
	room_cb(room_arg);
}

/* Answers a batch with outcomes, "00000" and so on, "" ending them; detail is that of the last. */
static void
answer(const char *const *outcomes, const char *detail)
{
	static const Oid types[] = {EVP_OID_TEXT, EVP_OID_INT8, EVP_OID_INT8, EVP_OID_TEXT};
	PGresult   *rows = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	PGresAttDesc columns[4];
	uint8_t		version[8];

	for (int i = 0; i < 4; i++)
		columns[i] = (PGresAttDesc) {.name = "c",.typid = types[i],.format = 1};
	assert_true(PQsetResultAttrs(rows, 4, columns));
	for (int row = 0; outcomes[row] != NULL; row++)
	{
		evp_param_int64(version, row + 1);
		PQsetvalue(rows, row, 0, (char *) outcomes[row], 5);
		PQsetvalue(rows, row, 1, (char *) version, 8);
		PQsetvalue(rows, row, 2, (char *) version, 8);
		PQsetvalue(rows, row, 3, (char *) (outcomes[row + 1] == NULL ? detail : NULL), outcomes[row + 1] == NULL && detail ? (int) strlen(detail) : -1);
	}
	end_flight(&(evp_db_result_t) {.status = EVP_DB_OK,.rows = rows});
	PQclear(rows);
}

#define OUTCOMES(...) ((const char *const []) {__VA_ARGS__, NULL})

/* ---- the appends ---- */

typedef struct heard
{
	int			calls;
	evp_store_status_t status;
	int64_t		first;
	char		message[200];
} heard_t;

static void
on_heard(void *arg, evp_store_status_t status, int64_t first, int64_t last, const char *message)
{
	heard_t    *heard = arg;

	(void) last;
	heard->calls++;
	heard->status = status;
	heard->first = first;
	snprintf(heard->message, sizeof(heard->message), "%s", message != NULL ? message : "");
}

static void
append_from(uint64_t source, heard_t *heard, uint16_t flags, const char *stream, uint64_t ms)
{
	evp_event_t event = {.type = evp_slice_str("T"),.data = evp_slice_str("{}"),.has_id = true};
	evp_pack_item_t item = {.flags = flags,.stream = evp_slice_str(stream),.events = &event,.n_events = 1};

	memset(heard, 0, sizeof(*heard));
	evp_store_append(proxy.store, source, &item, evp_now(&proxy) + ms, on_heard, heard);
	assert_int_equal(heard->calls, 0);
}

static void
append_with(heard_t *heard, uint16_t flags, const char *stream, uint64_t ms)
{
	append_from(1, heard, flags, stream, ms);
}

static void
append(heard_t *heard, const char *stream, uint64_t ms)
{
	append_with(heard, 0, stream, ms);
}

/* Turns the loop until a condition holds, for so long at most as twenty seconds of the processor, whoever else has it. */
#define turn_until(condition) \
	do { \
		clock_t		end_ = clock() + 20 * CLOCKS_PER_SEC; \
		while (!(condition) && clock() < end_) \
			uv_run(proxy.loop, UV_RUN_NOWAIT); \
		assert_true(condition); \
	} while (0)

static int
setup(void **state)
{
	(void) state;
	memset(&flight, 0, sizeof(flight));
	db_up = true;
	idle = 1;
	proxy.loop = malloc(sizeof(*proxy.loop));
	assert_int_equal(uv_loop_init(proxy.loop), 0);
	proxy.config.append_queue = 100;
	proxy.config.append_queue_bytes = 100000;
	proxy.config.database_wait = 300;
	proxy.store = evp_store_new(&proxy);
	return proxy.store == NULL;
}

static int
teardown(void **state)
{
	(void) state;
	evp_store_stop(proxy.store);
	if (flight.open)
		end_flight(&(evp_db_result_t) {.status = EVP_DB_UNKNOWN,.message = "stopped"});
	uv_run(proxy.loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(proxy.loop), 0);
	evp_store_free(proxy.store);
	free(proxy.loop);
	return 0;
}

static void
test_batches(void **state)
{
	heard_t		heard[5];

	(void) state;
	append(&heard[0], "a", 60000);
	append(&heard[1], "b", 60000);
	turn_until(flight.open);
	assert_int_equal(flight.items, 2);
	/* While it is under way, others gather. */
	for (int i = 2; i < 5; i++)
		append(&heard[i], "c", 60000);
	uv_run(proxy.loop, UV_RUN_NOWAIT);
	answer(OUTCOMES("00000", "V0001"), "was 3");
	assert_int_equal(heard[0].status, EVP_STORE_OK);
	assert_int_equal(heard[0].first, 1);
	assert_int_equal(heard[1].status, EVP_STORE_CONFLICT);
	turn_until(flight.open);
	assert_int_equal(flight.items, 3);
	answer(OUTCOMES("V0008", "23505", "00000"), "repeat");
	assert_int_equal(heard[2].status, EVP_STORE_LOCK_LOST);
	assert_int_equal(heard[3].status, EVP_STORE_REFUSED);
	assert_string_equal(heard[3].message, " (SQLSTATE 23505)");
	assert_int_equal(heard[4].status, EVP_STORE_REPEAT);
	for (int i = 0; i < 5; i++)
		assert_int_equal(heard[i].calls, 1);
}

/* A batch that fails as a whole goes on one by one. */
static void
test_whole_failure(void **state)
{
	heard_t		heard[3];
	evp_db_result_t error = {.status = EVP_DB_ERROR,.sqlstate = "54000",.message = "no"};

	(void) state;
	for (int i = 0; i < 3; i++)
		append(&heard[i], "a", 60000);
	turn_until(flight.open);
	end_flight(&error);
	for (int i = 0; i < 3; i++)
	{
		turn_until(flight.open);
		assert_int_equal(flight.items, 1);
		if (i == 1)
			end_flight(&error);
		else
			answer(OUTCOMES("00000"), NULL);
	}
	assert_int_equal(heard[0].status, EVP_STORE_OK);
	assert_int_equal(heard[1].status, EVP_STORE_REFUSED);
	assert_string_equal(heard[1].message, "no (SQLSTATE 54000)");
	assert_int_equal(heard[2].status, EVP_STORE_OK);
}

/* A busy stream is tried again alone until its time is up; a lock row is told at once. */
static void
test_busy(void **state)
{
	heard_t		heard[3];
	int			tries = 0;

	(void) state;
	append(&heard[0], "a", 60000);
	append(&heard[1], "b", 2500);
	append(&heard[2], "c", 60000);
	turn_until(flight.open);
	answer(OUTCOMES("00000", "55P03", "55P03"), "lock row has the name of c");
	assert_int_equal(heard[0].status, EVP_STORE_OK);
	assert_int_equal(heard[2].status, EVP_STORE_LOCKED);
	assert_int_equal(heard[1].calls, 0);
	while (heard[1].calls == 0)
	{
		turn_until(flight.open || heard[1].calls > 0);
		if (!flight.open)
			break;
		assert_int_equal(flight.items, 1);
		answer(OUTCOMES("55P03"), "stream b is busy");
		tries++;
	}
	assert_int_equal(heard[1].status, EVP_STORE_BUSY);
	assert_string_equal(heard[1].message, "stream b is busy");
	assert_in_range(tries, 3, 400);
}

/* What was sent and not confirmed is sent again, byte for byte. */
static void
test_unknown(void **state)
{
	heard_t		heard[2];
	char		bytes[sizeof(flight.bytes)];
	int			len;

	(void) state;
	append(&heard[0], "a", 60000);
	append(&heard[1], "b", 60000);
	turn_until(flight.open);
	len = flight.len;
	memcpy(bytes, flight.bytes, (size_t) len);
	end_flight(&(evp_db_result_t) {.status = EVP_DB_UNKNOWN,.message = "lost"});
	turn_until(flight.open);
	assert_int_equal(flight.items, 2);
	assert_int_equal(flight.len, len);
	assert_memory_equal(flight.bytes, bytes, (size_t) len);
	/* Lost again: one of them may be what kills the connection. */
	end_flight(&(evp_db_result_t) {.status = EVP_DB_UNKNOWN,.message = "lost"});
	for (int i = 0; i < 2; i++)
	{
		turn_until(flight.open);
		assert_int_equal(flight.items, 1);
		answer(OUTCOMES("00000"), i == 0 ? "repeat" : NULL);
	}
	assert_int_equal(heard[0].status, EVP_STORE_REPEAT);
	assert_int_equal(heard[1].status, EVP_STORE_OK);
}

/* Its id is looked for only when it may be there: that is a walk over all that came since. */
static void
test_without_stream(void **state)
{
	const evp_event_t event = {.has_id = true,.type = evp_slice_str("T"),.data = evp_slice_str("{}")};
	const evp_pack_item_t item = {.expected = EVENTO_EXPECTED_ANY,.flags = EVENTO_ITEM_SINCE | EVENTO_ITEM_LOCK,
	.lock = evp_slice_str("lock"),.fence = 1,.since = 0x0102030405060708,.events = &event,.n_events = 1};
	static const char nowhere[] = "\x7f\xff\xff\xff\xff\xff\xff\xff";
	static const char since[] = "\1\2\3\4\5\6\7\10";
	heard_t		heard = {0};

	(void) state;
	evp_store_append(proxy.store, 1, &item, evp_now(&proxy) + 60000, on_heard, &heard);
	for (int i = 0; i < 3; i++)
	{
		turn_until(flight.open);
		assert_int_equal(memmem(flight.bytes, (size_t) flight.len, i < 2 ? nowhere : since, 8) != NULL, true);
		assert_int_equal(memmem(flight.bytes, (size_t) flight.len, i < 2 ? since : nowhere, 8) != NULL, false);
		if (i < 2)
			end_flight(&(evp_db_result_t) {.status = i == 0 ? EVP_DB_UNSENT : EVP_DB_UNKNOWN,.message = "lost"});
	}
	answer(OUTCOMES("00000"), "repeat");
	assert_int_equal(heard.status, EVP_STORE_REPEAT);
}

/* Outcomes that stay unknown, and a database that stays away, are told apart and told in time. */
static void
test_time(void **state)
{
	heard_t		heard[4];
	clock_t		begun = clock();
	uint64_t	begin;

	(void) state;
	append(&heard[0], "a", 2000);
	turn_until(flight.open);
	append(&heard[1], "b", 2000);
	turn_until(heard[0].calls > 0 && heard[1].calls > 0);
	assert_int_equal(heard[0].status, EVP_STORE_AWAY);
	assert_non_null(strstr(heard[0].message, "unknown"));
	assert_int_equal(heard[1].status, EVP_STORE_AWAY);
	assert_null(strstr(heard[1].message, "unknown"));
	/* The loop turns without a rest: what it took of the processor is no more than the time. */
	assert_true(clock() - begun < 3 * CLOCKS_PER_SEC);

	/* The connection goes with a late answer on it, which nobody hears. */
	db_up = false;
	end_flight(&(evp_db_result_t) {.status = EVP_DB_UNKNOWN,.message = "lost"});
	begin = uv_hrtime();
	append(&heard[2], "c", 60000);
	turn_until(heard[2].calls > 0);
	assert_int_equal(heard[2].status, EVP_STORE_AWAY);
	assert_string_equal(heard[2].message, "the database is not reachable: it is away");
	assert_true(uv_hrtime() - begin > UINT64_C(250000000));

	/* Back in time, it is as if nothing had been. */
	proxy.config.database_wait = 60000;
	append(&heard[3], "d", 60000);
	uv_run(proxy.loop, UV_RUN_NOWAIT);
	assert_false(flight.open);
	db_up = true;
	room_cb(room_arg);
	turn_until(flight.open);
	answer(OUTCOMES("00000"), NULL);
	assert_int_equal(heard[3].status, EVP_STORE_OK);
	for (int i = 0; i < 4; i++)
		assert_int_equal(heard[i].calls, 1);
}

/*
 * What was chained to an append that has ended before it was sent does not lie
 * behind another of the same stream instead.
 */
static void
test_chain_without_its_first(void **state)
{
	heard_t		before,
				other,
				heard[3];

	(void) state;
	append(&before, "b", 60000);
	turn_until(flight.open);
	append(&other, "a", 60000);
	append(&heard[0], "a", 100);
	append_with(&heard[1], EVENTO_ITEM_CHAINED, "a", 60000);
	append_with(&heard[2], EVENTO_ITEM_CHAINED, "a", 60000);
	turn_until(heard[0].calls > 0);
	assert_int_equal(heard[0].status, EVP_STORE_AWAY);
	answer(OUTCOMES("00000"), NULL);
	turn_until(flight.open);
	assert_int_equal(flight.items, 1);
	answer(OUTCOMES("00000"), NULL);
	assert_int_equal(other.status, EVP_STORE_OK);
	turn_until(flight.open);
	assert_int_equal(flight.items, 2);
	answer(OUTCOMES("V0001", "V0001"), NULL);
	assert_int_equal(heard[1].status, EVP_STORE_CONFLICT);
	assert_int_equal(heard[2].status, EVP_STORE_CONFLICT);

	/* Nor where the first never got in, or is given up when its batch was lost. */
	append(&before, "b", 60000);
	turn_until(flight.open);
	append(&other, "a", 60000);
	append(&heard[0], "", 60000);
	append_with(&heard[1], EVENTO_ITEM_CHAINED, "a", 60000);
	answer(OUTCOMES("00000"), NULL);
	for (int i = 0; i < 2; i++)
	{
		turn_until(flight.open);
		assert_int_equal(flight.items, 1);
		answer(OUTCOMES(i == 0 ? "00000" : "V0001"), NULL);
	}
	assert_int_equal(heard[0].status, EVP_STORE_REFUSED);

	append(&other, "a", 60000);
	append(&heard[0], "a", 2000);
	append_with(&heard[1], EVENTO_ITEM_CHAINED, "a", 60000);
	turn_until(flight.open);
	assert_int_equal(flight.items, 3);
	turn_until(heard[0].calls > 0);
	end_flight(&(evp_db_result_t) {.status = EVP_DB_UNKNOWN,.message = "lost"});
	for (int i = 0; i < 2; i++)
	{
		turn_until(flight.open);
		assert_int_equal(flight.items, 1);
		answer(OUTCOMES(i == 0 ? "00000" : "V0001"), NULL);
	}
	assert_int_equal(other.status, EVP_STORE_OK);
	assert_int_equal(heard[1].status, EVP_STORE_CONFLICT);
}

/* Where a stream's append lies in the batch in flight; -1: not among its first. */
static long
place_of(const char *stream)
{
	const char *at = memmem(flight.bytes, (size_t) flight.len, stream, strlen(stream));

	return at == NULL ? -1 : at - flight.bytes;
}

/* One who has hundreds waiting takes turns with others. */
static void
test_flood(void **state)
{
	static heard_t flood[600],
				quiet[2];

	(void) state;
	proxy.config.append_queue = 1000;
	idle = 0;
	for (int i = 0; i < 600; i++)
		append_from(1, &flood[i], 0, "flood", 60000);
	append_from(2, &quiet[0], 0, "quiet-0", 60000);
	append_from(2, &quiet[1], 0, "quiet-1", 60000);
	idle = 1;
	turn_until(flight.open);
	assert_int_equal(flight.items, 250);
	assert_true(place_of("flood") < place_of("quiet-0"));
	assert_true(place_of("quiet-0") < place_of("quiet-1"));
	end_flight(&(evp_db_result_t) {.status = EVP_DB_UNKNOWN,.message = "lost"});
	/* So they do when they are tried again. */
	turn_until(flight.open);
	assert_int_equal(flight.items, 250);
	assert_true(place_of("quiet-0") >= 0 && place_of("quiet-1") >= 0);
}

/* A chain stays together, whoever else waits. */
static void
test_chain_of_many(void **state)
{
	static heard_t flood[249],
				chain[4],
				other;

	(void) state;
	proxy.config.append_queue = 1000;
	idle = 0;
	append_from(1, &chain[0], 0, "chain-0", 60000);
	append_from(1, &chain[1], EVENTO_ITEM_CHAINED, "chain-1", 60000);
	append_from(1, &chain[2], EVENTO_ITEM_CHAINED, "chain-2", 60000);
	append_from(2, &other, 0, "other", 60000);
	idle = 1;
	turn_until(flight.open);
	assert_int_equal(flight.items, 4);
	assert_true(place_of("chain-0") < place_of("chain-1") && place_of("chain-1") < place_of("chain-2") &&
				place_of("chain-2") < place_of("other"));
	answer(OUTCOMES("00000", "00000", "00000", "00000"), NULL);

	/* Cut in two, its rest would be refused: it stands on what is not committed. */
	idle = 0;
	for (int i = 0; i < 249; i++)
		append_from(1, &flood[i], 0, "flood", 60000);
	for (int i = 0; i < 4; i++)
		append_from(1, &chain[i], i > 0 ? EVENTO_ITEM_CHAINED : 0, "chain", 60000);
	append_from(1, &other, 0, "other", 60000);
	idle = 1;
	turn_until(flight.open);
	assert_int_equal(flight.items, 253);
}

static void
test_bounds(void **state)
{
	static heard_t heard[101];
	heard_t		bad;

	(void) state;
	idle = 0;
	for (int i = 0; i < 101; i++)
		append(&heard[i], "a", 60000);
	turn_until(heard[100].calls > 0);
	assert_int_equal(heard[100].status, EVP_STORE_REFUSED);
	assert_int_equal(heard[99].calls, 0);
	idle = 1;
	append(&bad, "", 60000);
	turn_until(bad.calls > 0);
	assert_int_equal(bad.status, EVP_STORE_REFUSED);
	/* Those that wait hear of the end. */
	evp_store_stop(proxy.store);
	if (flight.open)
		end_flight(&(evp_db_result_t) {.status = EVP_DB_UNKNOWN,.message = "stopped"});
	for (int i = 0; i < 101; i++)
		assert_int_equal(heard[i].calls, 1);
	assert_int_equal(heard[5].status, EVP_STORE_AWAY);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_batches, setup, teardown),
		cmocka_unit_test_setup_teardown(test_whole_failure, setup, teardown),
		cmocka_unit_test_setup_teardown(test_busy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown, setup, teardown),
		cmocka_unit_test_setup_teardown(test_without_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(test_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_chain_without_its_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
		cmocka_unit_test_setup_teardown(test_chain_of_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
