/*
 * telemetry.c
 *    See telemetry.h.
 *
 *    One statement is under way at a time, and is repeated as it is until its
 *    outcome is known: its number tells the database that it has it already, so
 *    a connection that is lost in a commit adds nothing twice.
 */
#include "telemetry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "db.h"
#include "log.h"
#include "metrics.h"
#include "rows.h"
#include "session.h"
#include "sums.h"
#include "uuid.h"

#define MODULE "telemetry"

#define BATCH_SUMS		1000	/* in one statement: it must not hold up the renewal of the lease behind it */
#define RETRY_MS		1000
#define STATEMENT_MS	5000
#define FORGET_MS		((uint64_t) 3600 * 1000)	/* names nobody mentions any more make room for others so often */
#define MAX_NAME		512
#define MAX_PARAMETER	((size_t) 16 * 1024 * 1024)
#define MAX_SERVICE_MS	((int64_t) 24 * 3600 * 1000)	/* more is a clock that was set */

/* Parameters of the statement behind source and number. */
enum
{
	P_BUNDLES,
	P_VERSIONS,
	P_COMPONENTS,
	P_ACTIONS,
	P_INVOKED,
	P_COUNTS,
	P_TIMED,
	P_TOTALS,
	P_MAXIMA,
	P_ARRAYS
};

struct evp_telemetry
{
	evp_proxy_t *proxy;
	uv_timer_t	timer;
	evp_sums_t *sums;
	char		source[EVP_UUID_TEXT_LEN + 1];	/* this process */
	int64_t		number;			/* of the last statement */
	evp_buf_t	array[P_ARRAYS];	/* of the statement that is not done, where pending */
	size_t		batch;			/* sums in it */
	bool		pending;
	bool		flying;
	bool		more;			/* at once when that is done */
	bool		stopped;
	bool		complained;
	uint64_t	forgot_at;
	uint64_t	retry_at;
};

/* ---- summing ---- */

static bool
is_name(evp_slice_t s)
{
	return !evp_slice_is_null(s) && s.n > 0 && s.n <= MAX_NAME;
}

static void
add(evp_telemetry_t *t, const evp_sum_t *sum)
{
	if (!evp_sums_add(t->sums, sum))
		EVP_COUNT(telemetry_dropped);
}

/* Of one notice of invocations. */
typedef struct invoker
{
	evp_telemetry_t *telemetry;
	evp_sum_t	sum;
} invoker_t;

static void
on_invocation(void *arg, evp_slice_t name, int64_t count)
{
	invoker_t  *invoker = arg;

	if (!is_name(name) || count <= 0 || count > INT32_MAX)
		return;
	invoker->sum.invoked = name;
	invoker->sum.count = count;
	add(invoker->telemetry, &invoker->sum);
}

void
evp_telemetry_notice(evp_telemetry_t *t, const evp_session_t *session, const evp_notice_t *notice)
{
	const evp_session_info_t *info = evp_session_info(session);
	evp_sum_t	sum = {.bundle = evp_slice_str(info->bundle),.version = info->bundle_version,.component = notice->component,
	.action = notice->action,.invoked = evp_slice_str("")};
	const char *reason;

	if (notice->kind != EVP_NOTICE_SERVICE_TIME && notice->kind != EVP_NOTICE_INVOCATIONS)
		return;
	if (!is_name(notice->component) || !is_name(notice->action))
	{
		EVP_COUNT(telemetry_dropped);
		return;
	}
	if (notice->kind == EVP_NOTICE_SERVICE_TIME)
	{
		/* A bundle's clock may be set between the two. */
		if (notice->end_ms > notice->start_ms && notice->start_ms > 0 && notice->end_ms - notice->start_ms <= MAX_SERVICE_MS)
			sum.total_ms = sum.max_ms = notice->end_ms - notice->start_ms;
		sum.timed = 1;
		add(t, &sum);
	}
	else
	{
		/* One comes for each call, whatever it invoked; of commands and queries nothing else does. */
		invoker_t	invoker = {.telemetry = t,.sum = sum};

		sum.count = 1;
		add(t, &sum);

		if (evp_notice_invocations(notice, on_invocation, &invoker, &reason) < 0)
			EVP_COUNT(telemetry_dropped);
	}
}

/* ---- the statement ---- */

static void
drop_pending(evp_telemetry_t *t)
{
	for (int k = 0; k < P_ARRAYS; k++)
		evp_buf_free(&t->array[k]);
	t->pending = false;
}

static void
put_sum(void *arg, const evp_sum_t *sum)
{
	evp_telemetry_t *t = arg;

	evp_pg_array_text(&t->array[P_BUNDLES], (const char *) sum->bundle.p, sum->bundle.n);
	evp_pg_array_int8(&t->array[P_VERSIONS], sum->version);
	evp_pg_array_text(&t->array[P_COMPONENTS], (const char *) sum->component.p, sum->component.n);
	evp_pg_array_text(&t->array[P_ACTIONS], (const char *) sum->action.p, sum->action.n);
	evp_pg_array_text(&t->array[P_INVOKED], (const char *) sum->invoked.p, sum->invoked.n);
	evp_pg_array_int8(&t->array[P_COUNTS], sum->count);
	evp_pg_array_int8(&t->array[P_TIMED], sum->timed);
	evp_pg_array_int8(&t->array[P_TOTALS], sum->total_ms);
	evp_pg_array_int8(&t->array[P_MAXIMA], sum->max_ms);
}

/* Takes what goes into the next statement; false where there is nothing. */
static bool
gather(evp_telemetry_t *t)
{
	static const uint32_t element[P_ARRAYS] = {EVP_OID_TEXT, EVP_OID_INT8, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_TEXT,
	EVP_OID_INT8, EVP_OID_INT8, EVP_OID_INT8, EVP_OID_INT8};
	size_t		n = evp_sums_count(t->sums);

	if (n == 0)
		return false;
	t->batch = n < BATCH_SUMS ? n : BATCH_SUMS;
	for (int k = 0; k < P_ARRAYS; k++)
	{
		evp_buf_init(&t->array[k], MAX_PARAMETER);
		evp_pg_array_begin(&t->array[k], element[k], t->batch);
	}
	evp_sums_take(t->sums, t->batch, put_sum, t);
	t->number++;
	t->pending = true;
	for (int k = 0; k < P_ARRAYS; k++)
		if (t->array[k].failed)
		{
			evp_metrics.telemetry_dropped += t->batch;
			drop_pending(t);
			return false;
		}
	return true;
}

static void
on_stored(void *arg, const evp_db_result_t *result)
{
	evp_telemetry_t *t = arg;

	t->flying = false;
	if (result->status == EVP_DB_OK)
	{
		drop_pending(t);
		t->complained = false;
	}
	else if (result->status == EVP_DB_ERROR && !evp_db_is_passing(result->sqlstate))
	{
		/* What the database cannot take will be no better next time. */
		if (!t->complained)
			evp_log(EVP_LOG_WARNING, MODULE, NULL, "statistics of handlers are not stored: %s", result->message);
		t->complained = true;
		evp_metrics.telemetry_dropped += t->batch;
		drop_pending(t);
	}
	else
		t->retry_at = evp_now(t->proxy) + RETRY_MS;
	if (!t->stopped && !t->pending && t->more)
		evp_telemetry_flush(t);
}

static void
send_pending(evp_telemetry_t *t)
{
	static const Oid types[2 + P_ARRAYS] = {EVP_OID_UUID, EVP_OID_INT8, EVP_OID_TEXT_ARRAY, EVP_OID_INT8_ARRAY, EVP_OID_TEXT_ARRAY,
	EVP_OID_TEXT_ARRAY, EVP_OID_TEXT_ARRAY, EVP_OID_INT8_ARRAY, EVP_OID_INT8_ARRAY, EVP_OID_INT8_ARRAY, EVP_OID_INT8_ARRAY};
	char		number[24];
	const char *values[2 + P_ARRAYS] = {t->source, number};
	int			lengths[2 + P_ARRAYS];
	int			formats[2 + P_ARRAYS] = {0, 0};
	evp_db_statement_t statement = {.sql = "SELECT evento._telemetry($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
	.nparams = 2 + P_ARRAYS,.types = types,.values = values,.lengths = lengths,.formats = formats,
	.deadline = evp_now(t->proxy) + STATEMENT_MS};

	lengths[0] = (int) strlen(t->source);
	lengths[1] = snprintf(number, sizeof number, "%" PRId64, t->number);
	for (int k = 0; k < P_ARRAYS; k++)
	{
		values[2 + k] = (const char *) t->array[k].data;
		lengths[2 + k] = (int) t->array[k].len;
		formats[2 + k] = 1;
	}
	t->flying = true;
	evp_db_run(t->proxy->db, EVP_DB_CONTROL, &statement, on_stored, t);
}

void
evp_telemetry_flush(evp_telemetry_t *t)
{
	t->more = false;
	if (t->flying || t->stopped || !evp_db_is_up(t->proxy->db))
		return;
	if (t->pending ? evp_now(t->proxy) < t->retry_at : !gather(t))
		return;
	t->more = evp_sums_count(t->sums) > 0;
	send_pending(t);
}

static void
on_timer(uv_timer_t *timer)
{
	evp_telemetry_t *t = timer->data;
	uint64_t	now = evp_now(t->proxy);

	evp_telemetry_flush(t);
	if (now < t->forgot_at + FORGET_MS)
		return;
	t->forgot_at = now;
	evp_sums_forget(t->sums);
}

/* ---- life ---- */

evp_telemetry_t *
evp_telemetry_new(evp_proxy_t *proxy)
{
	evp_telemetry_t *t = calloc(1, sizeof *t);
	uint8_t		id[16];

	if (t == NULL || (t->sums = evp_sums_new(proxy->config.telemetry_entries)) == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		free(t);
		return NULL;
	}
	t->proxy = proxy;
	evp_uuid_v4(id);
	evp_uuid_format(id, t->source);
	t->forgot_at = evp_now(proxy);
	uv_timer_init(proxy->loop, &t->timer);
	t->timer.data = t;
	uv_timer_start(&t->timer, on_timer, proxy->config.telemetry_interval, proxy->config.telemetry_interval);
	return t;
}

void
evp_telemetry_stop(evp_telemetry_t *t)
{
	if (t->stopped)
		return;
	t->stopped = true;
	uv_close((uv_handle_t *) &t->timer, NULL);
}

void
evp_telemetry_free(evp_telemetry_t *t)
{
	if (t == NULL)
		return;
	drop_pending(t);
	evp_sums_free(t->sums);
	free(t);
}
