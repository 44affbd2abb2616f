/*
 * metrics.h
 *    Counters of the process, in one table behind /metrics.  Add a line here
 *    and count with EVP_COUNT(name).  What has labels, and histograms, stand
 *    below it; what is only known when somebody asks is in scrape.c.
 */
#ifndef EVP_METRICS_H
#define EVP_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"

/* X(field, prometheus name, type, help) */
#define EVP_METRICS(X) \
	X(sessions, "evento_proxy_sessions", "gauge", "Bundles connected.") \
	X(sessions_total, "evento_proxy_sessions_total", "counter", "Connections welcomed.") \
	X(protocol_errors, "evento_proxy_protocol_errors_total", "counter", "Connections closed for a breach of the protocol.") \
	X(requests, "evento_proxy_requests_total", "counter", "Requests received from bundles.") \
	X(requests_open, "evento_proxy_requests_open", "gauge", "Requests of bundles that are not answered yet.") \
	X(request_bytes, "evento_proxy_requests_open_bytes", "gauge", "Payloads of the open requests.") \
	X(answers_kept, "evento_proxy_answers_kept", "gauge", "Answers kept for callers that repeat or come back.") \
	X(answer_bytes, "evento_proxy_answers_kept_bytes", "gauge", "Bytes of the answers kept.") \
	X(requests_repeated, "evento_proxy_requests_repeated_total", "counter", "Requests dropped or answered again as repeats.") \
	X(failures, "evento_proxy_failures_total", "counter", "Requests answered with a failure.") \
	X(timeouts, "evento_proxy_timeouts_total", "counter", "Requests answered with a timeout.") \
	X(responses_unmatched, "evento_proxy_responses_unmatched_total", "counter", "Responses that no open call matched.") \
	X(calls_local, "evento_proxy_calls_local_total", "counter", "Calls to handlers connected here.") \
	X(calls_remote, "evento_proxy_calls_remote_total", "counter", "Calls to handlers at another proxy.") \
	X(calls_unanswered, "evento_proxy_calls_unanswered_total", "counter", "Calls whose time ran out while a handler had them.") \
	X(appends, "evento_proxy_appends_total", "counter", "Events appended.") \
	X(append_batches, "evento_proxy_append_batches_total", "counter", "Batches sent.") \
	X(append_unknown, "evento_proxy_append_unknown_total", "counter", "Batches whose outcome was unknown and asked again.") \
	X(conflicts, "evento_proxy_conflicts_total", "counter", "Appends that met another version and were tried again.") \
	X(append_retries, "evento_proxy_append_retries_total", "counter", "Appends sent again: their outcome was unknown, or their stream busy.") \
	X(story_loads, "evento_proxy_story_loads_total", "counter", "Stories loaded from the database.") \
	X(story_hits, "evento_proxy_story_hits_total", "counter", "Commands run on a story that was kept.") \
	X(story_bytes, "evento_proxy_story_bytes", "gauge", "Stories that are kept.") \
	X(fetches, "evento_proxy_fetches_total", "counter", "Event fetches received.") \
	X(fetched_events, "evento_proxy_fetched_events_total", "counter", "Events given to consumers.") \
	X(db_connects, "evento_proxy_db_connects_total", "counter", "Connections made to the database.") \
	X(db_up, "evento_proxy_db_up", "gauge", "1 while the database is reached.") \
	X(standbys, "evento_proxy_standbys", "gauge", "Connections to standbys that are near enough to be read from.") \
	X(standby_reads, "evento_proxy_standby_reads_total", "counter", "Reads that standbys did.") \
	X(standby_missed, "evento_proxy_standby_missed_total", "counter", "Reads for a standby that went to the primary: none was near enough, reached the position in time or did it.") \
	X(links, "evento_proxy_links", "gauge", "Links to other proxies.") \
	X(locks_waiting, "evento_proxy_locks_waiting", "gauge", "Commands that wait for a lock.") \
	X(notifications, "evento_proxy_notifications_total", "counter", "Notifications received from bundles.") \
	X(telemetry_dropped, "evento_proxy_telemetry_dropped_total", "counter", "Statistics of bundles that could not be read, found no room or were not stored.") \
	X(bytes_in, "evento_proxy_received_bytes_total", "counter", "Bytes received from bundles.") \
	X(bytes_out, "evento_proxy_sent_bytes_total", "counter", "Bytes sent to bundles.") \
	X(reads_paused, "evento_proxy_reads_paused_total", "counter", "Times that a connection had more to read than its share of a turn of the loop.") \
	X(connections, "evento_proxy_connections", "gauge", "Connections on the bundle port, welcomed or not.") \
	X(output_bytes, "evento_proxy_output_bytes", "gauge", "Bytes that wait to be sent to bundles.") \
	X(input_bytes, "evento_proxy_input_bytes", "gauge", "Bytes of frames and messages from bundles that are not complete yet.") \
	X(http_requests, "evento_proxy_http_requests_total", "counter", "Requests over HTTP.") \
	X(http_open, "evento_proxy_http_requests_open", "gauge", "Requests over HTTP that are not answered in full yet.") \
	X(http_waiting, "evento_proxy_http_waiting", "gauge", "Requests over HTTP that wait for events, and streams of events.") \
	X(http_bytes, "evento_proxy_http_held_bytes", "gauge", "Bodies and answers over HTTP in memory.") \
	X(http_events, "evento_proxy_http_events_total", "counter", "Events given over HTTP.")

/* What bundles ask, and what becomes of it. */
typedef enum evp_metric_kind
{
	EVP_METRIC_AGGREGATE,
	EVP_METRIC_SERVICE,
	EVP_METRIC_QUERY,
	EVP_METRIC_FETCH,
	EVP_METRIC_LAST_POSITION,
	EVP_METRIC_OTHER,
	EVP_METRIC_KINDS
} evp_metric_kind_t;

typedef enum evp_metric_outcome
{
	EVP_METRIC_ANSWERED,
	EVP_METRIC_FAILED,
	EVP_METRIC_TIMEOUT,
	EVP_METRIC_REFUSED,
	EVP_METRIC_OUTCOMES
} evp_metric_outcome_t;

#define EVP_METRIC_LANES	5	/* of db.h */

#define EVP_BUCKETS_MAX		20

/* Values up to and including a bound are in its bucket; one more bucket is for those beyond all. */
typedef struct evp_histogram
{
	uint64_t	counts[EVP_BUCKETS_MAX + 1];
	double		sum;
} evp_histogram_t;

/* The bounds of a histogram, rising. */
typedef struct evp_bounds
{
	const double *at;
	unsigned	n;				/* at most EVP_BUCKETS_MAX */
} evp_bounds_t;

extern const evp_bounds_t evp_bounds_seconds;
extern const evp_bounds_t evp_bounds_items;

void evp_histogram_add(evp_histogram_t *h, const evp_bounds_t *bounds, double value);

typedef struct evp_metrics
{
	uint64_t	outcomes[EVP_METRIC_KINDS][EVP_METRIC_OUTCOMES];
	evp_histogram_t request_seconds[EVP_METRIC_KINDS];
	evp_histogram_t statement_seconds[EVP_METRIC_LANES];
	evp_histogram_t batch_appends;
#define EVP_METRIC_FIELD(field, name, type, help) uint64_t field;
	EVP_METRICS(EVP_METRIC_FIELD)
#undef EVP_METRIC_FIELD
} evp_metrics_t;

extern evp_metrics_t evp_metrics;

/* The names of the database's lanes, in the order of db.h. */
extern const char *const evp_metrics_lanes[EVP_METRIC_LANES];

#define EVP_COUNT(field) (evp_metrics.field++)

/* Appends all of them in the text format of Prometheus.  False when the buffer has failed. */
bool evp_metrics_render(evp_buf_t *b);

#endif /* EVP_METRICS_H */
