/*
 * scrape.c
 *    See scrape.h.
 */
#include "scrape.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "command.h"
#include "db.h"
#include "locks.h"
#include "metrics.h"
#include "reads.h"
#include "router.h"
#include "server.h"
#include "store.h"
#include "tls.h"

_Static_assert(EVP_METRIC_LANES == EVP_DB_LANES, "metrics.h does not include db.h");

/* What waits somewhere, and how much may. */
typedef struct queue
{
	const char *name;
	uint64_t	size;
	uint64_t	limit;
} queue_t;

static const char *const db_queue_names[EVP_DB_LANES] = {"db_control", "db_lock", "db_append", "db_read", "db_standby"};

static void
append_family(evp_buf_t *b, const char *unit, const char *of, const queue_t *queues, size_t n)
{
	evp_buf_appendf(b, "# HELP evento_proxy_queue_%s %s that wait or are kept, of each queue.\n# TYPE evento_proxy_queue_%s gauge\n", unit, of, unit);
	for (size_t i = 0; i < n; i++)
		evp_buf_appendf(b, "evento_proxy_queue_%s{queue=\"%s\"} %" PRIu64 "\n", unit, queues[i].name, queues[i].size);
	evp_buf_appendf(b, "# HELP evento_proxy_queue_limit_%s The most of that, as set.\n# TYPE evento_proxy_queue_limit_%s gauge\n", unit, unit);
	for (size_t i = 0; i < n; i++)
		evp_buf_appendf(b, "evento_proxy_queue_limit_%s{queue=\"%s\"} %" PRIu64 "\n", unit, queues[i].name, queues[i].limit);
}

static void
append_queues(const evp_proxy_t *proxy, evp_buf_t *b)
{
	const evp_config_t *config = &proxy->config;
	queue_t		items[5 + EVP_DB_LANES];
	queue_t		bytes[5 + EVP_DB_LANES];
	size_t		n_items = 0;
	size_t		n_bytes = 0;
	size_t		count;
	size_t		size;

	items[n_items++] = (queue_t) {"connections", evp_metrics.connections, config->max_connections};
	items[n_items++] = (queue_t) {"requests", evp_metrics.requests_open, config->max_requests_total};
	items[n_items++] = (queue_t) {"calls", evp_router_open(proxy->router), config->max_calls};
	items[n_items++] = (queue_t) {"locks", evp_locks_count(proxy->locks), config->lock_queue};
	bytes[n_bytes++] = (queue_t) {"requests", evp_metrics.request_bytes, config->request_bytes};
	bytes[n_bytes++] = (queue_t) {"answers", evp_metrics.answer_bytes, config->answer_bytes};
	bytes[n_bytes++] = (queue_t) {"input", evp_metrics.input_bytes, config->input_bytes};
	bytes[n_bytes++] = (queue_t) {"output", evp_metrics.output_bytes, config->output_total};
	evp_store_queued(proxy->store, &count, &size);
	items[n_items++] = (queue_t) {"appends", count, config->append_queue};
	bytes[n_bytes++] = (queue_t) {"appends", size, config->append_queue_bytes};
	for (int lane = 0; lane < EVP_DB_LANES; lane++)
	{
		evp_db_queued(proxy->db, (evp_db_lane_t) lane, &count, &size);
		if (lane == EVP_DB_STANDBY)
			count = evp_reads_waiting(proxy->reads);
		items[n_items++] = (queue_t) {db_queue_names[lane], count, config->db_queue};
		bytes[n_bytes++] = (queue_t) {db_queue_names[lane], size, config->db_queue_bytes};
	}
	append_family(b, "items", "Things", items, n_items);
	append_family(b, "bytes", "Bytes", bytes, n_bytes);
}

static void
append_pipelines(const evp_proxy_t *proxy, evp_buf_t *b)
{
	evp_buf_appendf(b, "# HELP evento_proxy_db_statements_in_flight Statements sent to the database and not yet answered.\n"
					"# TYPE evento_proxy_db_statements_in_flight gauge\n");
	for (int lane = 0; lane < EVP_DB_LANES; lane++)
		evp_buf_appendf(b, "evento_proxy_db_statements_in_flight{lane=\"%s\"} %u\n", evp_metrics_lanes[lane],
						evp_db_in_flight(proxy->db, (evp_db_lane_t) lane));
}

/* The second number of /proc/self/statm, 0 where it cannot be read. */
static uint64_t
resident_pages(void)
{
	char		text[128];
	int			fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	ssize_t		n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	uint64_t	total;
	uint64_t	resident;

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return sscanf(text, "%" SCNu64 " %" SCNu64, &total, &resident) == 2 ? resident : 0;
}

static void
append_process(evp_buf_t *b)
{
	struct rusage usage = {0};
	struct rlimit files = {0};

	getrusage(RUSAGE_SELF, &usage);
	getrlimit(RLIMIT_NOFILE, &files);
	evp_buf_appendf(b, "# HELP process_cpu_seconds_total CPU time of the process.\n# TYPE process_cpu_seconds_total counter\n"
					"process_cpu_seconds_total %.6f\n",
					(double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	evp_buf_appendf(b, "# HELP process_resident_memory_bytes Resident memory of the process.\n# TYPE process_resident_memory_bytes gauge\n"
					"process_resident_memory_bytes %" PRIu64 "\n", resident_pages() * (uint64_t) sysconf(_SC_PAGESIZE));
	evp_buf_appendf(b, "# HELP process_max_fds Descriptors that the process may have open.\n# TYPE process_max_fds gauge\n"
					"process_max_fds %" PRIu64 "\n", (uint64_t) files.rlim_cur);
	evp_buf_appendf(b, "# HELP evento_proxy_build_info The version that runs.\n# TYPE evento_proxy_build_info gauge\n"
					"evento_proxy_build_info{version=\"" EVP_VERSION "\"} 1\n");
}

static void
append_certificate(const evp_proxy_t *proxy, evp_buf_t *b)
{
	const time_t ends = evp_tls_ends(proxy->tls);

	if (ends == 0)
		return;
	evp_buf_appendf(b, "# HELP evento_proxy_certificate_end_timestamp_seconds When the certificate of this proxy ends.\n"
					"# TYPE evento_proxy_certificate_end_timestamp_seconds gauge\n"
					"evento_proxy_certificate_end_timestamp_seconds %lld\n", (long long) ends);
}

static void
append_standby_lag(const evp_proxy_t *proxy, evp_buf_t *b)
{
	const int64_t lag = evp_reads_lag(proxy->reads);

	if (lag < 0)
		return;
	evp_buf_appendf(b, "# HELP evento_proxy_standby_lag_seconds How old at most the oldest picture is that a connected standby shows.\n"
					"# TYPE evento_proxy_standby_lag_seconds gauge\n"
					"evento_proxy_standby_lag_seconds %.3f\n", (double) lag / 1000);
}

bool
evp_scrape(const evp_proxy_t *proxy, evp_buf_t *b)
{
	size_t		queued;
	size_t		held;
	size_t		connections;

	evp_server_load(proxy->server, &queued, &held, &connections);
	evp_metrics.output_bytes = queued;
	evp_metrics.input_bytes = held;
	evp_metrics.connections = connections;
	evp_metrics.db_up = evp_db_is_up(proxy->db);
	evp_metrics.standbys = evp_reads_near(proxy->reads);
	evp_metrics.story_bytes = evp_commands_story_bytes(proxy->commands);
	evp_metrics_render(b);
	append_pipelines(proxy, b);
	append_queues(proxy, b);
	append_process(b);
	append_certificate(proxy, b);
	append_standby_lag(proxy, b);
	return !b->failed;
}
