/*
 * asks.c
 *    See asks.h.
 *
 *    A request that was taken from the database is sent; then it has an answer,
 *    which is written, again and again where that fails, until its time is up.
 *    Who asked gives up at the same time.
 */
#include "asks.h"

#include <inttypes.h>
#include <stdlib.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>

#include "ask.h"
#include "db.h"
#include "json.h"
#include "log.h"
#include "members.h"
#include "registry.h"
#include "rows.h"
#include "session.h"
#include "uuid.h"

#define MODULE "asks"

#define TICK_MS			250
#define STATEMENT_MS	5000
#define MOST			1000	/* requests under way; others stay in the database until there is room */
#define MAX_PAYLOAD		((size_t) 64 * 1024)
#define MAX_ANSWER		((size_t) 16 * 1024 * 1024)	/* it must not hold up the renewal of the lease behind it */

typedef struct ask
{
	UT_hash_handle hh;			/* by correlationId */
	evp_asks_t *asks;
	uint8_t		id[16];
	char		request_id[EVP_UUID_TEXT_LEN + 1];
	uint64_t	session;		/* local_no of the session that was asked */
	char	   *bundle;
	char	   *instance;
	uint64_t	deadline;
	bool		answered;
	bool		failed;			/* answer: the instance says so, or there is none to hope for */
	bool		writing;
	evp_buf_t	answer;			/* JSON, with a zero byte behind it where answered */
} ask_t;

struct evp_asks
{
	evp_proxy_t *proxy;
	uv_timer_t	timer;
	ask_t	   *asks;
	bool		taking;
	bool		again;
	bool		stopped;
};

static void take(evp_asks_t *a);

static void
free_ask(ask_t *ask)
{
	HASH_DEL(ask->asks->asks, ask);
	evp_buf_free(&ask->answer);
	free(ask->bundle);
	free(ask->instance);
	free(ask);
}

/* ---- answers ---- */

static void
on_written(void *arg, const evp_db_result_t *result)
{
	ask_t	   *ask = arg;
	evp_asks_t *a = ask->asks;

	ask->writing = false;
	if (result->status == EVP_DB_ERROR)
		evp_log(EVP_LOG_WARNING, MODULE, ask->instance, "the answer of its consumer is not stored: %s", result->message);
	/* Otherwise the next tick tries again. */
	if (result->status == EVP_DB_OK || a->stopped || (result->status == EVP_DB_ERROR && !evp_db_is_passing(result->sqlstate)))
		free_ask(ask);
}

static void
write_answer(ask_t *ask)
{
	static const Oid types[3] = {EVP_OID_UUID, EVP_OID_JSONB, EVP_OID_BOOL};
	static const int formats[3] = {0, 0, 0};
	const char *values[3] = {ask->request_id, (const char *) ask->answer.data, ask->failed ? "t" : "f"};
	const int	lengths[3] = {EVP_UUID_TEXT_LEN, (int) ask->answer.len - 1, 1};
	evp_db_statement_t statement = {.sql = "SELECT evento._ask_done($1, $2, $3)",.nparams = 3,.types = types,.values = values,
	.lengths = lengths,.formats = formats,.deadline = evp_now(ask->asks->proxy) + STATEMENT_MS};

	if (ask->writing || !evp_db_is_up(ask->asks->proxy->db))
		return;
	ask->writing = true;
	evp_db_run(ask->asks->proxy->db, EVP_DB_CONTROL, &statement, on_written, ask);
}

/* Ends the request with a failure of ours or the bundle's, told as an exception is. */
static void
answer_failure(ask_t *ask, evp_slice_t class, evp_slice_t message)
{
	evp_buf_free(&ask->answer);
	evp_buf_init(&ask->answer, MAX_ANSWER);
	evp_buf_append_str(&ask->answer, "{\"throwable\":");
	evp_json_put_string(&ask->answer, class.p, class.n, false);
	evp_buf_append_str(&ask->answer, ",\"message\":");
	evp_json_put_string(&ask->answer, message.p, message.n, false);
	evp_buf_append(&ask->answer, "}", 2);
	ask->answered = true;
	ask->failed = true;
	if (ask->answer.failed)
		free_ask(ask);
	else
		write_answer(ask);
}

bool
evp_asks_response(evp_asks_t *a, const evp_session_t *session, const evp_message_t *rsp)
{
	const evp_session_info_t *info = evp_session_info(session);
	const char *reason;
	ask_t	   *ask;

	HASH_FIND(hh, a->asks, rsp->correlation, sizeof rsp->correlation, ask);
	if (ask == NULL || strcmp(ask->bundle, info->bundle) != 0 || strcmp(ask->instance, info->instance) != 0)
		return false;
	if (ask->answered)
		return true;
	if (rsp->has_failure || evp_slice_is_null(rsp->payload))
	{
		answer_failure(ask, rsp->failure_class, rsp->failure_message);
		return true;
	}
	evp_buf_init(&ask->answer, MAX_ANSWER);
	if (evp_ask_answer(&ask->answer, &ask->failed, rsp->payload, &reason) < 0)
	{
		char		text[160];

		snprintf(text, sizeof text, "unreadable answer: %s", reason);
		answer_failure(ask, evp_slice_str("evento-proxy"), evp_slice_str(text));
		return true;
	}
	if (!evp_buf_append_u8(&ask->answer, 0))
	{
		answer_failure(ask, evp_slice_str("evento-proxy"), evp_slice_str("the answer is too long"));
		return true;
	}
	ask->answered = true;
	write_answer(ask);
	return true;
}

void
evp_asks_session_closed(evp_asks_t *a, const evp_session_t *session)
{
	uint64_t	no = evp_session_info(session)->local_no;
	ask_t	   *ask,
			   *next;

	if (a->stopped)
		return;
	HASH_ITER(hh, a->asks, ask, next)
		if (!ask->answered && ask->session == no)
			answer_failure(ask, evp_slice_str("evento-proxy"), evp_slice_str("the instance's connection ended before it answered"));
}

/* ---- requests ---- */

/* Columns of evento._ask_take(). */
enum
{
	C_REQUEST_ID,
	C_BUNDLE,
	C_INSTANCE,
	C_ACTION,
	C_CONSUMER,
	C_COMPONENT_TYPE,
	C_POSITION,
	C_RETRY,
	C_TIMEOUT,
	C_COLUMNS
};

static const char take_sql[] =
"SELECT request_id, bundle, instance, action, consumer, component_type, position, retry, timeout_ms FROM evento._ask_take($1, $2)";

/* Sends the REQ. */
static bool
send_ask(ask_t *ask, evp_session_t *session, evp_ask_t *what)
{
	evp_message_t req = {.type = EVP_REQ,.has_correlation = true};
	char		text[EVP_UUID_TEXT_LEN + 1];
	evp_buf_t	b;
	evp_parts_t parts;
	bool		ok = false;

	evp_uuid_format(ask->id, text);
	what->correlation = evp_slice_str(text);
	what->server_instance = evp_slice_str(ask->asks->proxy->server_instance);
	what->now_ms = evp_wall_ms();
	evp_buf_init(&b, MAX_PAYLOAD);
	memcpy(req.correlation, ask->id, sizeof req.correlation);
	req.timestamp_ms = what->now_ms;
	req.source_bundle_id = evp_slice_str("evento-server");
	req.source_instance_id = what->server_instance;
	req.source_bundle_version = evp_slice_str("0");
	req.payload_type = evp_slice_str(EVP_ASK_PAYLOAD_TYPE);
	req.timeout_ms = what->timeout_ms;
	if (evp_ask_put(&b, what))
	{
		req.payload = evp_slice_of(b.data, b.len);
		if (evp_message_pack(&parts, &req))
		{
			ok = evp_session_send_parts(session, &parts) == 0;
			evp_parts_free(&parts);
		}
	}
	evp_buf_free(&b);
	return ok;
}

/* A row of _ask_take: the request it is becomes one of ours. */
static void
begin(evp_asks_t *a, const PGresult *rows, int row)
{
	evp_instance_t *instance = evp_members_instance(evp_registry_members(a->proxy->registry), PQgetvalue(rows, row, C_BUNDLE),
													PQgetvalue(rows, row, C_INSTANCE));
	evp_ask_t	what = {.consumer = evp_row_bytes(rows, row, C_CONSUMER),.component_type = evp_row_bytes(rows, row, C_COMPONENT_TYPE)};
	ask_t	   *ask = calloc(1, sizeof *ask);
	uint8_t		id[16];

	if (ask == NULL)
		return;
	ask->asks = a;
	evp_buf_init(&ask->answer, MAX_ANSWER);
	evp_uuid_v4(ask->id);
	HASH_ADD(hh, a->asks, id, sizeof ask->id, ask);
	ask->bundle = strdup(PQgetvalue(rows, row, C_BUNDLE));
	ask->instance = strdup(PQgetvalue(rows, row, C_INSTANCE));
	if (evp_row_uuid(rows, row, C_REQUEST_ID, id))
		evp_uuid_format(id, ask->request_id);
	evp_row_int64(rows, row, C_POSITION, &what.position);
	evp_row_bool(rows, row, C_RETRY, &what.retry);
	evp_row_int64(rows, row, C_TIMEOUT, &what.timeout_ms);
	ask->deadline = evp_now(a->proxy) + (uint64_t) what.timeout_ms;
	if (ask->bundle == NULL || ask->instance == NULL || !evp_ask_kind(evp_row_bytes(rows, row, C_ACTION), &what.kind))
		free_ask(ask);
	else if (instance == NULL || instance->session == NULL)
		answer_failure(ask, evp_slice_str("evento-proxy"), evp_slice_str("the instance's connection has ended"));
	else
	{
		ask->session = evp_session_info(instance->session)->local_no;
		if (!send_ask(ask, instance->session, &what))
			answer_failure(ask, evp_slice_str("evento-proxy"), evp_slice_str("the request could not be sent"));
	}
}

static void
on_taken(void *arg, const evp_db_result_t *result)
{
	static const Oid types[C_COLUMNS] = {EVP_OID_UUID, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_TEXT,
	EVP_OID_INT8, EVP_OID_BOOL, EVP_OID_INT8};
	evp_asks_t *a = arg;

	a->taking = false;
	if (a->stopped)
		return;
	if (result->status == EVP_DB_ERROR)
		evp_log(EVP_LOG_WARNING, MODULE, NULL, "requests to consumers are not read: %s", result->message);
	else if (result->status == EVP_DB_OK && !evp_rows_are(result->rows, types, C_COLUMNS))
		evp_log(EVP_LOG_WARNING, MODULE, NULL, "evento._ask_take is of another version");
	else if (result->status == EVP_DB_OK)
		for (int row = 0; row < PQntuples(result->rows); row++)
			begin(a, result->rows, row);
	if (a->again)
		take(a);
}

/* Takes the requests for instances here.  Whoever asks is reminded by its own clock where this fails. */
static void
take(evp_asks_t *a)
{
	static const Oid types[2] = {EVP_OID_INT8, EVP_OID_INT8};
	static const int formats[2] = {0, 0};
	size_t		count = HASH_COUNT(a->asks);
	char		id[24];
	char		most[24];
	const char *values[2] = {id, most};
	int			lengths[2];
	evp_db_statement_t statement = {.sql = take_sql,.nparams = 2,.types = types,.values = values,.lengths = lengths,
	.formats = formats,.result_format = 1,.deadline = evp_now(a->proxy) + STATEMENT_MS};

	a->again = a->taking;
	if (a->taking || a->stopped || count >= MOST || evp_registry_proxy_id(a->proxy->registry) == 0 || !evp_db_is_up(a->proxy->db))
		return;
	a->taking = true;
	lengths[0] = snprintf(id, sizeof id, "%" PRId64, evp_registry_proxy_id(a->proxy->registry));
	lengths[1] = snprintf(most, sizeof most, "%zu", MOST - count);
	evp_db_run(a->proxy->db, EVP_DB_CONTROL, &statement, on_taken, a);
}

static void
on_notify(void *arg, const char *payload)
{
	(void) payload;
	take(arg);
}

/* Writes again what could not be written, and lets go what nobody waits for any more. */
static void
on_timer(uv_timer_t *timer)
{
	evp_asks_t *a = timer->data;
	uint64_t	now = evp_now(a->proxy);
	ask_t	   *ask,
			   *next;

	HASH_ITER(hh, a->asks, ask, next)
	{
		if (ask->writing)
			continue;
		if (now >= ask->deadline)
			free_ask(ask);
		else if (ask->answered)
			write_answer(ask);
	}
}

/* ---- life ---- */

evp_asks_t *
evp_asks_new(evp_proxy_t *proxy)
{
	evp_asks_t *a = calloc(1, sizeof *a);

	if (a == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	a->proxy = proxy;
	uv_timer_init(proxy->loop, &a->timer);
	a->timer.data = a;
	uv_timer_start(&a->timer, on_timer, TICK_MS, TICK_MS);
	evp_db_listen(proxy->db, "evento_ask", on_notify, a);
	return a;
}

void
evp_asks_stop(evp_asks_t *a)
{
	ask_t	   *ask,
			   *next;

	if (a->stopped)
		return;
	a->stopped = true;
	uv_close((uv_handle_t *) &a->timer, NULL);
	HASH_ITER(hh, a->asks, ask, next)
		if (!ask->writing)
			free_ask(ask);
}

void
evp_asks_free(evp_asks_t *a)
{
	free(a);
}
