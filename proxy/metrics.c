/*
 * metrics.c
 *    The counters, and their text for Prometheus.
 */
#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>

evp_metrics_t evp_metrics;

static const double seconds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
static const double items[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

const evp_bounds_t evp_bounds_seconds = {seconds, sizeof(seconds) / sizeof(seconds[0])};
const evp_bounds_t evp_bounds_items = {items, sizeof(items) / sizeof(items[0])};

const char *const evp_metrics_lanes[EVP_METRIC_LANES] = {"control", "lock", "append", "read", "standby"};
static const char *const kinds[EVP_METRIC_KINDS] = {"aggregate", "service", "query", "fetch", "last_position", "other"};
static const char *const outcomes[EVP_METRIC_OUTCOMES] = {"answered", "failed", "timeout", "refused"};

void
evp_histogram_add(evp_histogram_t *h, const evp_bounds_t *bounds, double value)
{
	unsigned	i = 0;

	while (i < bounds->n && value > bounds->at[i])
		i++;
	h->counts[i]++;
	h->sum += value;
}

static void
append_head(evp_buf_t *b, const char *name, const char *type, const char *help)
{
	evp_buf_appendf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* label: "name=\"value\"", or empty. */
static void
append_histogram(evp_buf_t *b, const char *name, const char *label, const evp_histogram_t *h, const evp_bounds_t *bounds)
{
	const char *comma = label[0] != '\0' ? "," : "";
	uint64_t	total = 0;

	for (unsigned i = 0; i < bounds->n; i++)
	{
		total += h->counts[i];
		evp_buf_appendf(b, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, label, comma, bounds->at[i], total);
	}
	total += h->counts[bounds->n];
	evp_buf_appendf(b, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, label, comma, total);
	if (label[0] != '\0')
		evp_buf_appendf(b, "%s_sum{%s} %.9g\n%s_count{%s} %" PRIu64 "\n", name, label, h->sum, name, label, total);
	else
		evp_buf_appendf(b, "%s_sum %.9g\n%s_count %" PRIu64 "\n", name, h->sum, name, total);
}

static void
append_outcomes(evp_buf_t *b)
{
	append_head(b, "evento_proxy_requests_finished_total", "counter", "Requests that were answered, by what they asked and what became of it.");
	for (int kind = 0; kind < EVP_METRIC_KINDS; kind++)
	{
		for (int outcome = 0; outcome < EVP_METRIC_OUTCOMES; outcome++)
			evp_buf_appendf(b, "evento_proxy_requests_finished_total{kind=\"%s\",outcome=\"%s\"} %" PRIu64 "\n", kinds[kind],
							outcomes[outcome], evp_metrics.outcomes[kind][outcome]);
	}
}

static void
append_histograms(evp_buf_t *b)
{
	char		label[64];

	append_head(b, "evento_proxy_request_duration_seconds", "histogram", "Time from a request to its answer; fetches include the time they are held.");
	for (int kind = 0; kind < EVP_METRIC_KINDS; kind++)
	{
		snprintf(label, sizeof(label), "kind=\"%s\"", kinds[kind]);
		append_histogram(b, "evento_proxy_request_duration_seconds", label, &evp_metrics.request_seconds[kind], &evp_bounds_seconds);
	}
	append_head(b, "evento_proxy_db_statement_duration_seconds", "histogram", "Round trips to the database: time from a statement to its answer.");
	for (int lane = 0; lane < EVP_METRIC_LANES; lane++)
	{
		snprintf(label, sizeof(label), "lane=\"%s\"", evp_metrics_lanes[lane]);
		append_histogram(b, "evento_proxy_db_statement_duration_seconds", label, &evp_metrics.statement_seconds[lane], &evp_bounds_seconds);
	}
	append_head(b, "evento_proxy_append_batch_items", "histogram", "Appends in a batch.");
	append_histogram(b, "evento_proxy_append_batch_items", "", &evp_metrics.batch_appends, &evp_bounds_items);
}

bool
evp_metrics_render(evp_buf_t *b)
{
#define EVP_METRIC_LINES(field, name, type, help) \
	append_head(b, name, type, help); \
	evp_buf_appendf(b, name " %" PRIu64 "\n", evp_metrics.field);
	EVP_METRICS(EVP_METRIC_LINES)
#undef EVP_METRIC_LINES
	append_outcomes(b);
	append_histograms(b);
	return !b->failed;
}
