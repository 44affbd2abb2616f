/*
 * metrics.c
 *    The counters, and their text for Prometheus.
 */
#include "metrics.h"

#include <inttypes.h>

evp_metrics_t evp_metrics;

bool
evp_metrics_render(evp_buf_t *b)
{
#define EVP_METRIC_LINES(field, name, type, help) \
	evp_buf_appendf(b, "# HELP " name " " help "\n# TYPE " name " " type "\n" name " %" PRIu64 "\n", evp_metrics.field);
	EVP_METRICS(EVP_METRIC_LINES)
#undef EVP_METRIC_LINES
	return !b->failed;
}
