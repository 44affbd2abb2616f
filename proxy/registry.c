/*
 * registry.c
 *    This proxy's registration and lease, and its picture of the cluster: when
 *    to ask the database, and what follows from the answers.
 */
#include "registry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalogue.h"
#include "db.h"
#include "link.h"
#include "locks.h"
#include "log.h"
#include "metrics.h"
#include "pg_array.h"
#include "requests.h"
#include "roster.h"
#include "router.h"
#include "session.h"

#define TICK_MS			100
#define LOOK_MS			2000	/* a picture is taken at least so often */
#define LOOK_LEAST_MS	50		/* and no more often for calls that nobody is known to handle */
#define RETRY_MS		250
/* The lease is 5 s of the database's clock, and locks rest on half of it (evp_registry_lease_ok): one renewal in that
 * time may be late or lost. */
#define RENEW_MS		1000
#define LEASE_OK_MS		2500
#define LEASE_LOST_MS	500		/* the same where the control connection was lost: others may have the locks after 1 s */
#define LEAVE_MS		1000
#define COMPLAIN_MS		10000	/* the same complaint is logged once in that time */
#define MAX_SECRET		64
#define MAX_SUPERSEDED	4096	/* sessions that one picture may close; the next one finds the rest */

struct evp_registry
{
	evp_proxy_t *proxy;
	evp_members_t *members;
	evp_roster_t *roster;
	evp_catalogue_t *catalogue;
	uv_timer_t	timer;

	int64_t		proxy_id;		/* the last that was given; 0 before the first */
	bool		registered;		/* the database knew it when it was asked last */
	uint8_t		secret[MAX_SECRET];
	size_t		secret_len;
	uint64_t	renewed_at;		/* when the last renewal that succeeded was sent */
	uint64_t	asked_at;		/* when the statement under way, or the last one, was sent */
	bool		unsure;			/* it was away since, and the registration may have run out */
	bool		asking;			/* a registration or a renewal is under way */

	bool		looking;		/* a picture is under way */
	bool		look_again;		/* something has changed since it was asked for */
	uint64_t	looked_at;
	uint64_t	seen_at;		/* when the newest picture that came was asked for */
	uint64_t	looks;			/* pictures asked for */
	uint64_t	seen;			/* the number of the newest that came */
	bool		wanted;			/* a call waits for a picture that was asked for behind it */
	bool		knows;
	bool		distrust;		/* the database was away: it may have lost sessions of ours */

	char		complaint[256]; /* what was logged last of what goes on failing */
	uint64_t	complained_at;

	bool		leaving;
	bool		stopped;
	evp_registry_left_cb on_left;
	void	   *left_arg;

	/* Sessions that a merge has found superseded, closed after it. */
	evp_session_t *superseded[MAX_SUPERSEDED];
	int64_t		superseded_by[MAX_SUPERSEDED];
	size_t		superseded_len;
};

static void look(evp_registry_t *r);
static void leave_now(evp_registry_t *r);

/* Logs what goes wrong, not each time that it is tried again. */
static void
complain(evp_registry_t *r, const char *what, const char *message)
{
	char		text[sizeof r->complaint];
	uint64_t	now = evp_now(r->proxy);

	snprintf(text, sizeof text, "%s: %s", what, message);
	if (strcmp(text, r->complaint) == 0 && now - r->complained_at < COMPLAIN_MS)
		return;
	memcpy(r->complaint, text, sizeof text);
	r->complained_at = now;
	evp_log(EVP_LOG_WARNING, "registry", NULL, "%s", text);
}

/* ---- what the model tells ---- */

static void
on_changed(void *arg)
{
	evp_registry_t *r = arg;

	evp_router_instances_changed(r->proxy->router);
}

static void
on_cut(void *arg, evp_instance_t *instance)
{
	evp_registry_t *r = arg;

	evp_router_instance_cut(r->proxy->router, instance);
}

static void
on_gone(void *arg, evp_instance_t *instance)
{
	evp_registry_t *r = arg;

	evp_router_instance_gone(r->proxy->router, instance);
}

static void
on_moved(void *arg, evp_instance_t *instance)
{
	evp_registry_t *r = arg;

	evp_requests_instance_moved(r->proxy->requests, instance->bundle, instance->instance);
}

static void
on_superseded(void *arg, evp_session_t *session, int64_t by_proxy)
{
	evp_registry_t *r = arg;

	if (r->superseded_len == MAX_SUPERSEDED)
		return;
	r->superseded[r->superseded_len] = session;
	r->superseded_by[r->superseded_len++] = by_proxy;
}

/* The roster knows: its successor is somewhere, or has ended as well. */
static void
on_roster_superseded(void *arg, evp_session_t *session)
{
	(void) arg;
	evp_session_close(session, "superseded by another proxy");
}

static void
on_number(void *arg, evp_session_t *session, int64_t session_no)
{
	evp_registry_t *r = arg;
	const evp_session_info_t *info = evp_session_info(session);

	evp_members_number(r->members, session, info->bundle, info->instance, session_no);
}

static void
on_refused(void *arg, const char *message)
{
	evp_registry_t *r = arg;

	complain(r, "sessions are not registered", message);
	/* The registration may be gone: find out at the next tick. */
	if (!r->asking)
		r->asked_at = 0;
}

/* ---- registration and lease ---- */

/* The database has this proxy's registration: its sessions belong there, and pictures make sense. */
static void
confirmed(evp_registry_t *r)
{
	r->unsure = false;
	evp_roster_registered(r->roster, r->proxy_id);
	look(r);
}

static void
on_registered(void *arg, const evp_db_result_t *result)
{
	evp_registry_t *r = arg;

	r->asking = false;
	if (r->stopped)
		return;
	if (result->status == EVP_DB_OK && PQntuples(result->rows) == 1 && PQgetlength(result->rows, 0, 0) == 8 &&
		PQgetlength(result->rows, 0, 1) >= 16 && PQgetlength(result->rows, 0, 1) <= MAX_SECRET)
	{
		bool		anew = r->proxy_id != 0;

		r->proxy_id = evp_pg_int8(PQgetvalue(result->rows, 0, 0));
		r->secret_len = (size_t) PQgetlength(result->rows, 0, 1);
		memcpy(r->secret, PQgetvalue(result->rows, 0, 1), r->secret_len);
		r->registered = true;
		r->renewed_at = r->asked_at;
		r->distrust = true;
		evp_log(EVP_LOG_INFO, "registry", NULL, "registered as proxy %" PRId64, r->proxy_id);
		if (anew)
			evp_links_renamed(r->proxy->links);
		if (!r->leaving)
			confirmed(r);
	}
	else
		complain(r, "not registered", result->status == EVP_DB_OK ? "the database's answer makes no sense" : result->message);
	if (r->leaving)
		leave_now(r);
}

static void
send_registration(evp_registry_t *r)
{
	static const Oid types[6] = {EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_INT8};
	static const int formats[6] = {0, 0, 0, 0, 0, 0};
	const evp_config_t *config = &r->proxy->config;
	char		http[384];
	char		replaces[24];
	const char *values[6] = {config->name, config->advertised, config->internal_advertised, http, EVP_VERSION,
	r->proxy_id != 0 ? replaces : NULL};
	int			lengths[6];
	evp_db_statement_t statement = {.sql = "SELECT * FROM evento._proxy_register($1, $2, $3, $4, $5, $6)",.nparams = 6,
	.types = types,.values = values,.lengths = lengths,.formats = formats,.result_format = 1,
	.deadline = evp_now(r->proxy) + RENEW_MS};

	snprintf(http, sizeof http, strchr(config->http_address, ':') != NULL ? "[%s]:%" PRIu64 : "%s:%" PRIu64,
			 config->http_address, config->http_port);
	snprintf(replaces, sizeof replaces, "%" PRId64, r->proxy_id);
	for (int k = 0; k < 6; k++)
		lengths[k] = values[k] == NULL ? 0 : (int) strlen(values[k]);
	r->asking = true;
	r->asked_at = evp_now(r->proxy);
	evp_db_run(r->proxy->db, EVP_DB_CONTROL, &statement, on_registered, r);
}

static void
on_renewed(void *arg, const evp_db_result_t *result)
{
	evp_registry_t *r = arg;

	r->asking = false;
	if (r->stopped || r->leaving)
		return;
	if (result->status == EVP_DB_OK && PQntuples(result->rows) == 1 && strcmp(PQgetvalue(result->rows, 0, 0), "t") == 0)
	{
		r->renewed_at = r->asked_at;
		if (r->unsure)
			confirmed(r);
	}
	else if (result->status == EVP_DB_OK)
	{
		evp_log(EVP_LOG_WARNING, "registry", NULL, "the registration as proxy %" PRId64 " has run out", r->proxy_id);
		r->registered = false;
		evp_roster_registered(r->roster, 0);
		r->asked_at = 0;
	}
	else if (result->status == EVP_DB_ERROR)
		complain(r, "the registration is not renewed", result->message);
}

static void
send_renewal(evp_registry_t *r)
{
	static const Oid types[2] = {EVP_OID_INT8, EVP_OID_JSONB};
	static const int formats[2] = {0, 0};
	char		id[24];
	char		load[96];
	const char *values[2] = {id, load};
	int			lengths[2];
	evp_db_statement_t statement = {.sql = "SELECT evento._proxy_renew($1, $2)",.nparams = 2,.types = types,
	.values = values,.lengths = lengths,.formats = formats,.deadline = evp_now(r->proxy) + RENEW_MS};

	lengths[0] = snprintf(id, sizeof id, "%" PRId64, r->proxy_id);
	lengths[1] = snprintf(load, sizeof load, "{\"sessions\": %" PRIu64 ", \"requests\": %" PRIu64 ", \"links\": %" PRIu64 "}",
						  evp_metrics.sessions, evp_metrics.requests_open, evp_metrics.links);
	r->asking = true;
	r->asked_at = evp_now(r->proxy);
	evp_db_run(r->proxy->db, EVP_DB_CONTROL, &statement, on_renewed, r);
}

/* ---- pictures ---- */

/* The rows of a picture, with the memory that they point to. */
typedef struct evp_picture
{
	evp_member_row_t *rows;
	size_t		n;
	evp_buf_t	text;			/* zero-terminated names */
	const char **names;
	size_t		name_count;
} evp_picture_t;

/* Columns of evento._cluster(). */
enum
{
	C_PROXY_ID,
	C_INTERNAL,
	C_SESSION_NO,
	C_BUNDLE,
	C_INSTANCE,
	C_ENABLED,
	C_NAMES,
	C_COLUMNS
};

static const char cluster_sql[] = "SELECT proxy_id, internal, session_no, bundle, instance, enabled, names FROM evento._cluster()";

static void
free_picture(evp_picture_t *p)
{
	free(p->rows);
	free(p->names);
	evp_buf_free(&p->text);
}

/*
 * The names of all rows are first copied one behind the other, each with a zero
 * byte, and pointed to when the copy does not move any more.
 */
static bool
copy_names(evp_picture_t *p, const PGresult *rows, int row)
{
	evp_pg_array_t array;
	evp_slice_t name;

	if (!evp_pg_array_read(&array, PQgetvalue(rows, row, C_NAMES), (size_t) PQgetlength(rows, row, C_NAMES)))
		return false;
	for (; array.n > 0; p->rows[row].name_count++)
	{
		if (!evp_pg_array_next(&array, &name) || !evp_buf_append(&p->text, name.p, name.n) || !evp_buf_append_u8(&p->text, 0))
			return false;
	}
	p->name_count += p->rows[row].name_count;
	return true;
}

static bool
point_to_names(evp_picture_t *p)
{
	const char *text = (const char *) p->text.data;
	size_t		used = 0;

	p->names = calloc(p->name_count + 1, sizeof *p->names);
	if (p->names == NULL)
		return false;
	for (size_t k = 0; k < p->n; k++)
	{
		p->rows[k].names = p->names + used;
		for (size_t j = 0; j < p->rows[k].name_count; j++)
		{
			p->names[used++] = text;
			text += strlen(text) + 1;
		}
	}
	return true;
}

/* False where the result makes no sense or memory runs out; free the picture in any case. */
static bool
read_picture(evp_picture_t *p, const PGresult *rows)
{
	memset(p, 0, sizeof *p);
	evp_buf_init(&p->text, SIZE_MAX / 2);
	if (PQnfields(rows) != C_COLUMNS)
		return false;
	p->n = (size_t) PQntuples(rows);
	p->rows = calloc(p->n + 1, sizeof *p->rows);
	if (p->rows == NULL)
		return false;
	for (int k = 0; k < PQntuples(rows); k++)
	{
		evp_member_row_t *row = &p->rows[k];

		if (PQgetlength(rows, k, C_PROXY_ID) != 8)
			return false;
		row->proxy_id = evp_pg_int8(PQgetvalue(rows, k, C_PROXY_ID));
		row->internal = PQgetvalue(rows, k, C_INTERNAL);
		if (PQgetisnull(rows, k, C_SESSION_NO))
			continue;
		if (PQgetlength(rows, k, C_SESSION_NO) != 8 || PQgetlength(rows, k, C_ENABLED) != 1)
			return false;
		row->session_no = evp_pg_int8(PQgetvalue(rows, k, C_SESSION_NO));
		row->bundle = PQgetvalue(rows, k, C_BUNDLE);
		row->instance = PQgetvalue(rows, k, C_INSTANCE);
		row->enabled = PQgetvalue(rows, k, C_ENABLED)[0] != 0;
		if (!copy_names(p, rows, k))
			return false;
	}
	return point_to_names(p);
}

/* This proxy's own rows tell whether the database knows of its sessions what it should. */
static void
check_own(evp_registry_t *r, const evp_picture_t *p)
{
	bool		listed = false;

	for (size_t k = 0; k < p->n; k++)
		listed |= p->rows[k].proxy_id == r->proxy_id;
	/* Not there: the registration has run out, as the next renewal will find. */
	if (!listed)
		return;
	evp_roster_check_begin(r->roster);
	for (size_t k = 0; k < p->n; k++)
	{
		const evp_member_row_t *row = &p->rows[k];
		evp_instance_t *instance;

		if (row->proxy_id != r->proxy_id || row->session_no == 0)
			continue;
		instance = evp_members_instance(r->members, row->bundle, row->instance);
		evp_roster_check_row(r->roster, instance == NULL ? NULL : instance->session, row->session_no);
	}
	/* A session whose row is gone without this proxy's doing was superseded, and its successor has ended since. */
	evp_roster_check_end(r->roster, r->distrust);
	r->distrust = false;
}

static void
close_superseded(evp_registry_t *r)
{
	size_t		n = r->superseded_len;

	r->superseded_len = 0;
	for (size_t k = 0; k < n; k++)
	{
		char		reason[64];

		snprintf(reason, sizeof reason, "superseded by proxy %" PRId64, r->superseded_by[k]);
		evp_session_close(r->superseded[k], reason);
	}
}

static void
on_picture(void *arg, const evp_db_result_t *result)
{
	evp_registry_t *r = arg;
	evp_picture_t picture;
	bool		full;

	r->looking = false;
	if (r->stopped || r->leaving)
		return;
	if (result->status == EVP_DB_OK)
	{
		if (read_picture(&picture, result->rows))
		{
			evp_members_merge(r->members, r->proxy_id, picture.rows, picture.n, evp_now(r->proxy), on_superseded);
			r->knows = true;
			r->seen_at = r->looked_at;
			r->seen = r->looks;
			evp_router_instances_changed(r->proxy->router);
			evp_links_proxies_changed(r->proxy->links);
			full = r->superseded_len == MAX_SUPERSEDED;
			close_superseded(r);
			/* Behind that: a session that was superseded has no row either. */
			if (!full)
				check_own(r, &picture);
		}
		else
			evp_log(EVP_LOG_ERROR, "registry", NULL, "the database's picture of the cluster makes no sense");
		free_picture(&picture);
	}
	else if (result->status == EVP_DB_ERROR)
		complain(r, "no picture of the cluster", result->message);
	if (r->look_again)
		look(r);
}

/* Asks for a picture; where one is under way already, for another one behind it. */
static void
look(evp_registry_t *r)
{
	evp_db_statement_t statement = {.sql = cluster_sql,.result_format = 1,.deadline = evp_now(r->proxy) + LOOK_MS};

	r->look_again = r->looking;
	if (r->looking || r->stopped || r->leaving || !r->registered || r->unsure || !evp_db_is_up(r->proxy->db))
		return;
	r->looking = true;
	r->looked_at = evp_now(r->proxy);
	r->looks++;
	r->wanted = false;
	evp_db_run(r->proxy->db, EVP_DB_CONTROL, &statement, on_picture, r);
}

static void
on_cluster_notify(void *arg, const char *payload)
{
	(void) payload;
	look(arg);
}

/* ---- time ---- */

static void
tick(evp_registry_t *r)
{
	uint64_t	now = evp_now(r->proxy);

	if (evp_members_expire(r->members, now, r->seen_at) && !r->looking)
		look(r);
	if (r->leaving || !evp_db_is_up(r->proxy->db))
		return;
	if (!r->asking && !r->registered && (r->asked_at == 0 || now - r->asked_at >= RETRY_MS))
		send_registration(r);
	else if (!r->asking && r->registered && now - r->asked_at >= RENEW_MS)
		send_renewal(r);
	if (r->registered && !r->unsure &&
		(r->look_again || now - r->looked_at >= LOOK_MS || (r->wanted && now - r->looked_at >= LOOK_LEAST_MS)))
		look(r);
}

static void
on_timer(uv_timer_t *timer)
{
	tick(timer->data);
}

static void
on_db_state(void *arg, bool up)
{
	evp_registry_t *r = arg;

	if (r->stopped || !up)
		return;
	r->distrust = true;
	/* Is the registration still good?  Nothing is built on it before that is known. */
	r->unsure = true;
	evp_roster_registered(r->roster, 0);
	if (!r->asking)
		r->asked_at = 0;
	evp_catalogue_up(r->catalogue);
	tick(r);
}

/* ---- life ---- */

evp_registry_t *
evp_registry_new(evp_proxy_t *proxy)
{
	static const evp_members_events_t members_events = {.on_changed = on_changed,.on_cut = on_cut,.on_gone = on_gone,
	.on_moved = on_moved};
	static const evp_roster_events_t roster_events = {.on_number = on_number,.on_superseded = on_roster_superseded,
	.on_refused = on_refused};
	evp_registry_t *r = calloc(1, sizeof *r);

	if (r != NULL)
	{
		r->proxy = proxy;
		r->roster = evp_roster_new(proxy, &roster_events, r);
		r->catalogue = evp_catalogue_new(proxy);
	}
	if (r == NULL || r->roster == NULL || r->catalogue == NULL)
	{
		evp_log(EVP_LOG_ERROR, "registry", NULL, "out of memory");
		return NULL;
	}
	r->members = evp_members_new(&members_events, r, proxy->config.cut_time, proxy->config.avoid_time);
	uv_timer_init(proxy->loop, &r->timer);
	r->timer.data = r;
	uv_timer_start(&r->timer, on_timer, TICK_MS, TICK_MS);
	evp_db_subscribe(proxy->db, on_db_state, r);
	evp_db_listen(proxy->db, "evento_cluster", on_cluster_notify, r);
	return r;
}

void
evp_registry_stop(evp_registry_t *r)
{
	if (r->stopped)
		return;
	r->stopped = true;
	uv_close((uv_handle_t *) &r->timer, NULL);
	evp_roster_stop(r->roster);
	evp_catalogue_stop(r->catalogue);
}

void
evp_registry_free(evp_registry_t *r)
{
	if (r == NULL)
		return;
	evp_members_free(r->members);
	evp_roster_free(r->roster);
	evp_catalogue_free(r->catalogue);
	explicit_bzero(r->secret, sizeof r->secret);
	free(r);
}

static void
on_left(void *arg, const evp_db_result_t *result)
{
	evp_registry_t *r = arg;

	if (result->status != EVP_DB_OK)
		evp_log(EVP_LOG_WARNING, "registry", NULL, "the database was not told that this proxy leaves: %s", result->message);
	r->proxy_id = 0;
	r->registered = false;
	if (r->on_left != NULL && !r->stopped)
		r->on_left(r->left_arg);
	r->on_left = NULL;
}

static void
leave_now(evp_registry_t *r)
{
	static const Oid types[1] = {EVP_OID_INT8};
	static const int formats[1] = {0};
	char		id[24];
	const char *values[1] = {id};
	int			lengths[1];
	evp_db_statement_t statement = {.sql = "SELECT evento._proxy_leave($1)",.nparams = 1,.types = types,.values = values,
	.lengths = lengths,.formats = formats,.deadline = evp_now(r->proxy) + LEAVE_MS};

	lengths[0] = snprintf(id, sizeof id, "%" PRId64, r->proxy_id);
	evp_db_run(r->proxy->db, EVP_DB_CONTROL, &statement, on_left, r);
}

void
evp_registry_leave(evp_registry_t *r, evp_registry_left_cb done, void *arg)
{
	if (r->leaving)
		return;
	r->leaving = true;
	r->on_left = done;
	r->left_arg = arg;
	evp_roster_registered(r->roster, 0);
	/* A registration under way is waited for: it would stand there for nobody. */
	if (!(r->asking && !r->registered))
		leave_now(r);
}

int64_t
evp_registry_proxy_id(const evp_registry_t *r)
{
	return r->proxy_id;
}

bool
evp_registry_lease_ok(const evp_registry_t *r)
{
	bool		connected = !r->unsure && evp_db_is_up(r->proxy->db);

	/* By the clock itself: the loop's time stands still in a long turn, and while the process is stopped in one. */
	return r->registered && uv_hrtime() / 1000000 - r->renewed_at < (connected ? LEASE_OK_MS : LEASE_LOST_MS);
}

uint64_t
evp_registry_looks(const evp_registry_t *r)
{
	return r->looks;
}

bool
evp_registry_has_looked(evp_registry_t *r, uint64_t looks)
{
	uint64_t	now = evp_now(r->proxy);

	if (r->knows && (r->seen > looks || r->stopped || r->leaving || !evp_db_is_up(r->proxy->db)))
		return true;
	if (r->wanted || (r->looking && r->looks > looks))
		return false;
	r->wanted = true;
	if (now - r->looked_at >= LOOK_LEAST_MS)
		look(r);
	else
		uv_timer_start(&r->timer, on_timer, r->looked_at + LOOK_LEAST_MS - now, TICK_MS);
	return false;
}

const uint8_t *
evp_registry_secret(const evp_registry_t *r, size_t *len)
{
	*len = r->secret_len;
	return r->secret_len == 0 ? NULL : r->secret;
}

evp_members_t *
evp_registry_members(evp_registry_t *r)
{
	return r->members;
}

/* ---- from link.c ---- */

void
evp_registry_proxy_found(evp_registry_t *r, int64_t proxy_id)
{
	evp_members_proxy_found(r->members, proxy_id);
	/* Its instances may have been given up. */
	look(r);
}

void
evp_registry_proxy_lost(evp_registry_t *r, int64_t proxy_id)
{
	const evp_peer_t *peer = evp_members_peer(r->members, proxy_id);

	/* One that is only tried in vain was not here. */
	if (peer != NULL && peer->linked)
		evp_locks_hurry(r->proxy->locks);
	evp_members_proxy_lost(r->members, proxy_id, evp_now(r->proxy));
}

void
evp_registry_proxy_renamed(evp_registry_t *r, int64_t from, int64_t to)
{
	evp_members_proxy_renamed(r->members, from, to);
}

/* ---- from router.c ---- */

void
evp_registry_session_lost(evp_registry_t *r, evp_instance_t *instance, int64_t proxy_id, int64_t session_no)
{
	evp_members_session_lost(r->members, instance, proxy_id, session_no, evp_now(r->proxy));
}

void
evp_registry_session_waiting(evp_registry_t *r, evp_instance_t *instance, int64_t proxy_id, int64_t session_no)
{
	evp_members_session_waiting(r->members, instance, proxy_id, session_no);
}

/* ---- from session.c ---- */

void
evp_registry_session_welcomed(evp_registry_t *r, evp_session_t *session)
{
	const evp_session_info_t *info = evp_session_info(session);
	evp_session_t *older;

	evp_members_open(r->members, session, info->bundle, info->instance, evp_now(r->proxy), &older);
	evp_roster_open(r->roster, session);
	if (older != NULL)
		evp_session_close(older, "superseded by a newer connection of the same instance");
}

void
evp_registry_session_changed(evp_registry_t *r, evp_session_t *session)
{
	const evp_session_info_t *info = evp_session_info(session);

	evp_members_set(r->members, session, info->bundle, info->instance, info->ready, info->names, info->name_count);
	evp_roster_change(r->roster, session);
}

void
evp_registry_session_closed(evp_registry_t *r, evp_session_t *session)
{
	const evp_session_info_t *info = evp_session_info(session);

	evp_roster_close(r->roster, session);
	evp_members_close(r->members, session, info->bundle, info->instance, evp_now(r->proxy));
}

void
evp_registry_discovery(evp_registry_t *r, evp_session_t *session, const char *json, size_t len)
{
	const evp_session_info_t *info = evp_session_info(session);

	evp_catalogue_add(r->catalogue, info->bundle, info->bundle_version, json, len);
}
