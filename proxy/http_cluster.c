/*
 * http_cluster.c
 *    GET /cluster: proxies, bundles, nodes of the database and where the log has
 *    jumped, as the database tells them.  The last picture is kept: it answers
 *    those who ask within a second, and everybody while the database is away.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "db.h"
#include "http_request.h"
#include "json.h"
#include "reads.h"
#include "registry.h"
#include "rows.h"

#define FRESH_MS		1000	/* a picture as young as this is given as it is */
#define REFRESH_MS		10000	/* and none gets older than this while there is a database */
#define WAIT_MS			5000
#define PICTURE_MAX		((size_t) 64 * 1024 * 1024)

/* A request that waits for a picture. */
typedef struct waiter
{
	struct waiter *next;
	evp_http_request_t *request;
} waiter_t;

struct evp_http_cluster
{
	evp_proxy_t *proxy;
	evp_buf_t	picture;		/* the members of a JSON object, without its braces; empty: none yet */
	evp_buf_t	jumps;			/* a JSON array, which the next picture gets */
	uint64_t	taken_at;
	uint64_t	tried_at;
	bool		asking;
	waiter_t   *waiters;
};

static const char picture_sql[] =
"SELECT '\"proxies\":' || (SELECT coalesce(json_agg(json_build_object('id', proxy_id, 'name', name, 'advertised', advertised, 'internal', internal,"
" 'http', http, 'version', version, 'live', live, 'age_seconds', round(extract(epoch FROM clock_timestamp() - renewed_at), 3),"
" 'started_at', started_at, 'instances', instances, 'load', load) ORDER BY proxy_id), '[]') FROM evento.proxies)::text"
" || ',\"bundles\":' || (SELECT coalesce(json_agg(json_build_object('bundle', bundle, 'version', version, 'instance', instance, 'enabled', enabled,"
" 'proxy_id', proxy_id, 'proxy', proxy, 'connected_at', connected_at, 'names', names) ORDER BY bundle, instance), '[]') FROM evento.bundles)::text"
" || ',\"nodes\":' || (SELECT json_agg(n.node ORDER BY n.place, n.name) FROM"
" (SELECT 0 AS place, '' AS name, json_build_object('role', CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END, 'name', NULL,"
" 'address', host(inet_server_addr()), 'port', inet_server_port(), 'version', current_setting('server_version'), 'state', 'connected',"
" 'sync_state', NULL, 'lag_bytes', NULL, 'lag_seconds', NULL) AS node"
" UNION ALL SELECT 1, coalesce(r.application_name, ''), json_build_object('role',"
" CASE WHEN EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical') THEN 'subscriber'"
" WHEN r.state = 'backup' THEN 'backup' WHEN r.state = 'streaming' AND r.replay_lsn IS NULL THEN 'receiver' ELSE 'standby' END, 'name', r.application_name, 'address', host(r.client_addr),"
" 'port', NULL, 'version', NULL, 'state', r.state, 'sync_state', r.sync_state,"
" 'lag_bytes', CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn) END,"
" 'lag_seconds', round(extract(epoch FROM r.replay_lag), 3)) FROM pg_stat_replication r) n)::text";

/* Apart: a schema that is yet to be updated has no such view, and all the rest. */
static const char jumps_sql[] =
"SELECT coalesce(json_agg(json_build_object('jumped_at', j.jumped_at, 'last_position', j.last_position, 'next_position', j.next_position,"
" 'reason', j.reason) ORDER BY j.next_position), '[]')::text FROM (SELECT * FROM evento.jumps ORDER BY next_position DESC LIMIT 100) j";

static void
answer_picture(evp_http_cluster_t *cluster, evp_http_request_t *request)
{
	const evp_proxy_t *proxy = cluster->proxy;
	evp_buf_t	b;

	evp_buf_init(&b, PICTURE_MAX);
	evp_buf_append_str(&b, "{\"answered_by\":");
	evp_json_put_string(&b, proxy->config.name, strlen(proxy->config.name), true);
	evp_buf_appendf(&b, ",\"proxy_id\":%" PRId64 ",\"age_seconds\":%.3f,\"database\":%s,\"reads\":", evp_registry_proxy_id(proxy->registry),
					(double) (evp_now(proxy) - cluster->taken_at) / 1000, evp_db_is_up(proxy->db) ? "true" : "false");
	evp_reads_put(proxy->reads, &b);
	evp_buf_append_u8(&b, ',');
	evp_buf_append(&b, cluster->picture.data, cluster->picture.len);
	evp_buf_append_str(&b, "}\n");
	evp_http_answer(request, MHD_HTTP_OK, "application/json", &b);
}

static void
answer(evp_http_cluster_t *cluster, evp_http_request_t *request, const char *message)
{
	if (cluster->picture.len > 0)
		answer_picture(cluster, request);
	else
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "database-away", "There is no picture of the cluster yet", message);
}

/* The one text of a result; null where it is something else. */
static evp_slice_t
text_of(const evp_db_result_t *result)
{
	static const Oid types[] = {EVP_OID_TEXT};

	if (result->status == EVP_DB_OK && evp_rows_are(result->rows, types, 1) && PQntuples(result->rows) == 1)
		return evp_row_bytes(result->rows, 0, 0);
	return (evp_slice_t) {0};
}

static void
on_picture(void *arg, const evp_db_result_t *result)
{
	evp_http_cluster_t *cluster = arg;
	waiter_t   *waiters = cluster->waiters;
	evp_slice_t text = text_of(result);

	cluster->asking = false;
	cluster->waiters = NULL;
	if (text.p != NULL && text.n < PICTURE_MAX / 2)
	{
		evp_buf_free(&cluster->picture);
		evp_buf_append(&cluster->picture, text.p, text.n);
		evp_buf_append_str(&cluster->picture, ",\"jumps\":");
		evp_buf_append(&cluster->picture, cluster->jumps.data, cluster->jumps.len);
		cluster->taken_at = evp_now(cluster->proxy);
	}
	while (waiters != NULL)
	{
		waiter_t   *next = waiters->next;

		if (waiters->request != NULL)
			answer(cluster, waiters->request, result->message);
		free(waiters);
		waiters = next;
	}
}

static void
run(evp_http_cluster_t *cluster, const char *sql, evp_db_cb cb)
{
	evp_db_run(cluster->proxy->db, EVP_DB_READ,
			   &(evp_db_statement_t) {.sql = sql,.result_format = 1,.deadline = cluster->tried_at + WAIT_MS}, cb, cluster);
}

static void
on_jumps(void *arg, const evp_db_result_t *result)
{
	evp_http_cluster_t *cluster = arg;
	evp_slice_t text = text_of(result);

	/* There is no database to ask for the rest. */
	if (result->status == EVP_DB_UNSENT || result->status == EVP_DB_UNKNOWN)
	{
		on_picture(cluster, result);
		return;
	}
	evp_buf_free(&cluster->jumps);
	if (text.p != NULL)
		evp_buf_append(&cluster->jumps, text.p, text.n);
	else
		evp_buf_append_str(&cluster->jumps, "[]");
	run(cluster, picture_sql, on_picture);
}

static void
ask(evp_http_cluster_t *cluster)
{
	if (cluster->asking)
		return;
	cluster->asking = true;
	cluster->tried_at = evp_now(cluster->proxy);
	run(cluster, jumps_sql, on_jumps);
}

static void
drop_waiter(void *work)
{
	((waiter_t *) work)->request = NULL;
}

static const evp_http_work_t waiter_work = {.drop = drop_waiter};

void
evp_http_get_cluster(evp_http_request_t *request)
{
	evp_http_cluster_t *cluster = evp_http_cluster_of(request);
	bool		fresh = cluster->picture.len > 0 && evp_now(cluster->proxy) < cluster->taken_at + FRESH_MS;
	waiter_t   *waiter;

	if (request->query.n > 0)
	{
		evp_http_refuse(request, MHD_HTTP_BAD_REQUEST, "bad-request", "A parameter is not understood", "There are none.");
		return;
	}
	/* Without a database nothing better comes; where there is one, connections for reads may be yet to be made. */
	if (fresh || (!evp_db_lane_is_up(cluster->proxy->db, EVP_DB_READ) &&
				  (cluster->picture.len > 0 || !evp_db_is_up(cluster->proxy->db))))
	{
		answer(cluster, request, "the database is not reachable");
		return;
	}
	waiter = calloc(1, sizeof(*waiter));
	if (waiter == NULL)
	{
		evp_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "busy", "No memory", NULL);
		return;
	}
	waiter->request = request;
	waiter->next = cluster->waiters;
	cluster->waiters = waiter;
	evp_http_wait(request, &waiter_work, waiter);
	ask(cluster);
}

void
evp_http_cluster_tick(evp_http_cluster_t *cluster)
{
	uint64_t	now = evp_now(cluster->proxy);
	uint64_t	patience = cluster->picture.len > 0 ? REFRESH_MS : FRESH_MS;

	if (now >= cluster->taken_at + patience && now >= cluster->tried_at + FRESH_MS && evp_db_lane_is_up(cluster->proxy->db, EVP_DB_READ))
		ask(cluster);
}

evp_http_cluster_t *
evp_http_cluster_new(evp_proxy_t *proxy)
{
	evp_http_cluster_t *cluster = calloc(1, sizeof(*cluster));

	if (cluster == NULL)
		return NULL;
	cluster->proxy = proxy;
	evp_buf_init(&cluster->picture, PICTURE_MAX);
	evp_buf_init(&cluster->jumps, PICTURE_MAX / 4);
	return cluster;
}

void
evp_http_cluster_free(evp_http_cluster_t *cluster)
{
	evp_buf_free(&cluster->picture);
	evp_buf_free(&cluster->jumps);
	free(cluster);
}
