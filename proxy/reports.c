/*
 * reports.c
 *    See reports.h.
 *
 *    A statement says how things are, not what is to be added: it may be
 *    repeated when its outcome is not known.
 */
#include "reports.h"

#include <inttypes.h>
#include <stdlib.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>

#include "db.h"
#include "feed.h"
#include "json.h"
#include "log.h"
#include "metrics.h"
#include "pg_array.h"
#include "session.h"

#define MODULE "reports"

#define BATCH			1000	/* reports in one statement */
#define RETRY_MS		1000
#define STATEMENT_MS	5000
#define MAX_NAME		512
#define MAX_ID			1600	/* of a consumer: three names and a version; with bundle and instance it fits an index */
#define MAX_JSON		((size_t) 16 * 1024 * 1024)

typedef struct report
{
	UT_hash_handle hh;
	bool		executor;		/* of an executor, not a consumer */
	evp_buf_t	key;			/* bundle, instance and name, a zero byte behind each */
	evp_slice_t bundle;			/* these lie in it */
	evp_slice_t instance;
	evp_slice_t name;			/* of the executor; the consumer's id */
	int64_t		version;

	/* a consumer */
	char	   *component;
	char	   *context;		/* NULL: no fetch has said it */
	const char *type;			/* NULL: nor has a registration */
	bool		fetched;
	bool		head;
	int64_t		position;
	int64_t		step;			/* the widest since the last statement, and where it began */
	int64_t		leapt;
	bool		has_stats;
	evp_consumer_stats_t stats; /* numbers only */

	evp_executor_stats_t numbers;	/* of an executor, without its name */
} report_t;

struct evp_reports
{
	evp_proxy_t *proxy;
	uv_timer_t	timer;
	report_t   *reports;
	evp_buf_t	json;			/* of the statement that is not done, where pending */
	bool		pending;
	bool		flying;
	bool		stopped;
	bool		complained;
	uint64_t	retry_at;
};

/* ---- gathering ---- */

static void
free_report(evp_reports_t *r, report_t *report)
{
	HASH_DEL(r->reports, report);
	evp_buf_free(&report->key);
	free(report->component);
	free(report->context);
	free(report);
}

/* The report of a consumer or executor of a session, a new one where there is none; NULL where there is no room. */
static report_t *
report_of(evp_reports_t *r, const evp_session_t *session, bool executor, evp_slice_t name)
{
	const evp_session_info_t *info = evp_session_info(session);
	size_t		bundle = strlen(info->bundle);
	size_t		instance = strlen(info->instance);
	report_t   *report;
	evp_buf_t	key;

	evp_buf_init(&key, SIZE_MAX / 2);
	evp_buf_append_u8(&key, executor);
	evp_buf_append(&key, info->bundle, bundle + 1);
	evp_buf_append(&key, info->instance, instance + 1);
	evp_buf_append(&key, name.p, name.n);
	if (key.failed)
		return NULL;
	HASH_FIND(hh, r->reports, key.data, key.len, report);
	if (report != NULL)
		evp_buf_free(&key);
	else if (name.n == 0 || name.n > MAX_ID || HASH_COUNT(r->reports) >= r->proxy->config.telemetry_entries ||
			 (report = calloc(1, sizeof *report)) == NULL)
	{
		evp_buf_free(&key);
		EVP_COUNT(telemetry_dropped);
		return NULL;
	}
	else
	{
		report->executor = executor;
		report->key = key;
		report->bundle = evp_slice_of(key.data + 1, bundle);
		report->instance = evp_slice_of(key.data + 1 + bundle + 1, instance);
		report->name = evp_slice_of(key.data + 1 + bundle + 1 + instance + 1, name.n);
		HASH_ADD_KEYPTR(hh, r->reports, report->key.data, report->key.len, report);
	}
	report->version = info->bundle_version;
	return report;
}

/* Keeps a copy of a name that a report lacks. */
static void
keep_name(char **to, evp_slice_t name)
{
	if (*to == NULL && !evp_slice_is_null(name) && name.n <= MAX_NAME)
		*to = strndup((const char *) name.p, name.n);
}

void
evp_reports_fetch(evp_reports_t *r, const evp_session_t *session, evp_slice_t component, evp_slice_t context, int64_t position,
				  bool head)
{
	const evp_session_info_t *info = evp_session_info(session);
	char		id[MAX_ID + 1];
	int			n;
	report_t   *report;

	if (evp_slice_is_null(component) || component.n == 0 || component.n > MAX_NAME || context.n > MAX_NAME)
		return;
	/* As the library names its consumers. */
	n = snprintf(id, sizeof id, "%s_%.*s_%" PRId64 "_%.*s", info->bundle, (int) component.n, (const char *) component.p,
				 info->bundle_version, (int) context.n, (const char *) context.p);
	report = report_of(r, session, false, evp_slice_of(id, (size_t) n));
	if (report == NULL)
		return;
	keep_name(&report->component, component);
	keep_name(&report->context, context);

	/* The positions in between are not told; one where the log jumps next has to be: it may be of an event that is lost. */
	if (report->fetched && position < report->position)
		report->step = 0;
	else if (report->fetched && position - report->position > report->step)
	{
		report->step = position - report->position;
		report->leapt = report->position;
	}
	report->fetched = true;
	report->head = head;
	report->position = position;
}

/* Of one notice. */
typedef struct reporter
{
	evp_reports_t *reports;
	const evp_session_t *session;
} reporter_t;

static void
on_consumer(void *arg, const char *type, evp_slice_t component, evp_slice_t consumer)
{
	reporter_t *reporter = arg;
	report_t   *report = report_of(reporter->reports, reporter->session, false, consumer);

	if (report == NULL)
		return;
	report->type = type;
	keep_name(&report->component, component);
}

static void
on_stats(void *arg, const evp_consumer_stats_t *stats)
{
	reporter_t *reporter = arg;
	report_t   *report = report_of(reporter->reports, reporter->session, false, stats->consumer);

	if (report == NULL)
		return;
	keep_name(&report->component, stats->component);
	report->has_stats = true;
	report->stats = *stats;
}

static void
on_executor(void *arg, const evp_executor_stats_t *stats)
{
	reporter_t *reporter = arg;
	report_t   *report = report_of(reporter->reports, reporter->session, true, stats->name);

	if (report != NULL)
		report->numbers = *stats;
}

void
evp_reports_notice(evp_reports_t *r, const evp_session_t *session, const evp_notice_t *notice)
{
	reporter_t	reporter = {.reports = r,.session = session};
	const char *reason;
	int			rc = 0;

	if (notice->kind == EVP_NOTICE_CONSUMERS)
		rc = evp_notice_consumers(notice, on_consumer, &reporter, &reason);
	else if (notice->kind == EVP_NOTICE_STATISTICS &&
			 (rc = evp_notice_executors(notice, on_executor, &reporter, &reason)) == 0)
		rc = evp_notice_stats(notice, on_stats, &reporter, &reason);
	if (rc < 0)
		evp_log(EVP_LOG_DEBUG, MODULE, evp_session_info(session)->instance, "a notification of its consumers is left out: %s", reason);
}

/* ---- the statement ---- */

static void
put_text(evp_buf_t *b, const char *key, const void *p, size_t n)
{
	evp_buf_appendf(b, ",\"%s\":", key);
	evp_json_put_string(b, p, n, false);
}

static void
put_int(evp_buf_t *b, const char *key, int64_t v)
{
	evp_buf_appendf(b, ",\"%s\":%" PRId64, key, v);
}

static void
put_report(evp_buf_t *b, const report_t *report)
{
	evp_buf_appendf(b, "{\"version\":%" PRId64, report->version);
	put_text(b, "bundle", report->bundle.p, report->bundle.n);
	put_text(b, "instance", report->instance.p, report->instance.n);
	put_text(b, report->executor ? "executor" : "consumer", report->name.p, report->name.n);
	if (report->executor)
	{
		put_int(b, "capacity", report->numbers.capacity);
		put_int(b, "in_flight", report->numbers.in_flight);
		put_int(b, "admitted", report->numbers.admitted);
		put_int(b, "rejected", report->numbers.rejected);
		put_int(b, "completed", report->numbers.completed);
		put_int(b, "failed", report->numbers.failed);
	}
	if (report->component != NULL)
		put_text(b, "component", report->component, strlen(report->component));
	if (report->type != NULL)
		put_text(b, "component_type", report->type, strlen(report->type));
	if (report->context != NULL)
		put_text(b, "context", report->context, strlen(report->context));
	if (report->fetched)
	{
		put_int(b, "position", report->position);
		evp_buf_append_str(b, report->head ? ",\"head\":true" : ",\"head\":false");
		if (report->step > 0)
			put_int(b, "leapt", report->leapt);
	}
	if (report->has_stats)
	{
		put_int(b, "in_flight", report->stats.in_flight);
		put_int(b, "submit_timeouts", report->stats.submit_timeouts);
		put_int(b, "transient_failures", report->stats.transient_failures);
	}
	evp_buf_append_u8(b, '}');
}

/* Moves reports into the next statement; false where there is none. */
static bool
gather(evp_reports_t *r)
{
	report_t   *report,
			   *next;
	size_t		n = 0;

	evp_feed_heads(r->proxy->feed, r);
	if (r->reports == NULL)
		return false;
	evp_buf_init(&r->json, MAX_JSON);
	evp_buf_append_u8(&r->json, '[');
	HASH_ITER(hh, r->reports, report, next)
	{
		if (n == BATCH)
			break;
		if (n++ > 0)
			evp_buf_append_u8(&r->json, ',');
		put_report(&r->json, report);
		free_report(r, report);
	}
	evp_buf_append(&r->json, "]", 2);	/* a parameter in text form ends with a zero byte */
	r->pending = !r->json.failed;
	if (!r->pending)
	{
		evp_metrics.telemetry_dropped += n;
		evp_buf_free(&r->json);
	}
	return r->pending;
}

static void
on_stored(void *arg, const evp_db_result_t *result)
{
	evp_reports_t *r = arg;

	r->flying = false;
	if (result->status != EVP_DB_OK && !(result->status == EVP_DB_ERROR && !evp_db_is_passing(result->sqlstate)))
	{
		r->retry_at = evp_now(r->proxy) + RETRY_MS;
		return;
	}
	if (result->status == EVP_DB_ERROR && !r->complained)
		evp_log(EVP_LOG_WARNING, MODULE, NULL, "how consumers of bundles stand is not stored: %s", result->message);
	r->complained = result->status == EVP_DB_ERROR;
	evp_buf_free(&r->json);
	r->pending = false;
	if (r->reports != NULL && !r->stopped)
		evp_reports_flush(r);
}

void
evp_reports_flush(evp_reports_t *r)
{
	static const Oid types[1] = {EVP_OID_JSONB};
	static const int formats[1] = {0};
	const char *values[1];
	int			lengths[1];
	evp_db_statement_t statement = {.sql = "SELECT evento._reports($1)",.nparams = 1,.types = types,.values = values,
	.lengths = lengths,.formats = formats,.deadline = evp_now(r->proxy) + STATEMENT_MS};

	if (r->flying || r->stopped || !evp_db_is_up(r->proxy->db))
		return;
	if (r->pending ? evp_now(r->proxy) < r->retry_at : !gather(r))
		return;
	values[0] = (const char *) r->json.data;
	lengths[0] = (int) r->json.len - 1;
	r->flying = true;
	evp_db_run(r->proxy->db, EVP_DB_CONTROL, &statement, on_stored, r);
}

static void
on_timer(uv_timer_t *timer)
{
	evp_reports_flush(timer->data);
}

/* ---- life ---- */

evp_reports_t *
evp_reports_new(evp_proxy_t *proxy)
{
	evp_reports_t *r = calloc(1, sizeof *r);

	if (r == NULL)
	{
		evp_log(EVP_LOG_ERROR, MODULE, NULL, "out of memory");
		return NULL;
	}
	r->proxy = proxy;
	uv_timer_init(proxy->loop, &r->timer);
	r->timer.data = r;
	uv_timer_start(&r->timer, on_timer, proxy->config.telemetry_interval, proxy->config.telemetry_interval);
	return r;
}

void
evp_reports_stop(evp_reports_t *r)
{
	if (r->stopped)
		return;
	r->stopped = true;
	uv_close((uv_handle_t *) &r->timer, NULL);
}

void
evp_reports_free(evp_reports_t *r)
{
	report_t   *report,
			   *next;

	if (r == NULL)
		return;
	HASH_ITER(hh, r->reports, report, next)
		free_report(r, report);
	evp_buf_free(&r->json);
	free(r);
}
