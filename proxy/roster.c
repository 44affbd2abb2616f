/*
 * roster.c
 *    See roster.h.
 */
#include "roster.h"

#include <stdlib.h>

#include "db.h"
#include "log.h"
#include "pg_array.h"
#include "session.h"

#define GATHER_MS		5		/* a bundle's hello, registration and enable come in one go */
#define RETRY_MS		250
#define BATCH_SESSIONS	64		/* in one statement */
#define BATCH_NAMES		5000
#define BATCH_CLOSED	1024
#define MAX_PARAMETER	((size_t) 64 * 1024 * 1024)

/* A session as the database knows it.  It outlives the session while a statement about it is under way. */
typedef struct evp_node
{
	struct evp_node *prev;
	struct evp_node *next;
	evp_session_t *session;		/* NULL: ended */
	uint64_t	opened_at;		/* evp_now time */
	int64_t		session_no;		/* 0: not registered; negative: nor now, but under that number before */
	bool		dirty;			/* the database's row is not as it should be */
	bool		flying;			/* it is in the statement under way */
	uint64_t	checked;		/* check whose rows had it */
} evp_node_t;

/* Numbers of sessions that have ended. */
typedef struct evp_numbers
{
	int64_t    *v;
	size_t		n;
	size_t		cap;
} evp_numbers_t;

struct evp_roster
{
	evp_proxy_t *proxy;
	evp_roster_events_t events;
	void	   *arg;
	uv_timer_t	timer;
	int64_t		proxy_id;
	evp_node_t *nodes;
	evp_numbers_t closed;		/* to be told */
	evp_numbers_t closing;		/* in the statement under way */
	bool		flying;
	bool		stopped;
	bool		single;			/* one session a statement: some session is not to the database's liking */
	evp_node_t *batch[BATCH_SESSIONS];	/* of the statement under way */
	size_t		batch_len;
	uint64_t	check;			/* counts the checks */
};

static void on_synced(void *arg, const evp_db_result_t *result);

static void
add_number(evp_numbers_t *list, int64_t v)
{
	if (list->n == list->cap)
	{
		size_t		cap = list->cap == 0 ? 16 : list->cap * 2;
		int64_t    *grown = realloc(list->v, cap * sizeof *grown);

		/* The row then stays until this proxy's next picture shows it as nobody's. */
		if (grown == NULL)
			return;
		list->v = grown;
		list->cap = cap;
	}
	list->v[list->n++] = v;
}

static bool
has_number(const evp_numbers_t *list, int64_t v)
{
	for (size_t i = 0; i < list->n; i++)
	{
		if (list->v[i] == v)
			return true;
	}
	return false;
}

static void
free_node(evp_roster_t *r, evp_node_t *node)
{
	if (node->prev != NULL)
		node->prev->next = node->next;
	else
		r->nodes = node->next;
	if (node->next != NULL)
		node->next->prev = node->prev;
	free(node);
}

/* ---- the statement ---- */

/* Its parameters after the proxy's number, in order. */
enum
{
	P_CLOSED,
	P_NUMBERS,
	P_BUNDLES,
	P_INSTANCES,
	P_VERSIONS,
	P_AGES,
	P_ENABLED,
	P_NAMES,
	P_NAME_COUNTS,
	P_ARRAYS
};

static const char sync_sql[] = "SELECT * FROM evento._session_sync($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
static const Oid sync_types[1 + P_ARRAYS] = {EVP_OID_INT8, EVP_OID_INT8_ARRAY, EVP_OID_INT8_ARRAY, EVP_OID_TEXT_ARRAY,
	EVP_OID_TEXT_ARRAY, EVP_OID_INT8_ARRAY, EVP_OID_INT4_ARRAY, EVP_OID_BOOL_ARRAY, EVP_OID_TEXT_ARRAY, EVP_OID_INT4_ARRAY};

/* Chooses what goes into the next statement; the number of names in it. */
static size_t
choose_batch(evp_roster_t *r)
{
	size_t		names = 0;
	size_t		most = r->single ? 1 : BATCH_SESSIONS;

	r->batch_len = 0;
	for (evp_node_t *node = r->nodes; node != NULL && r->batch_len < most; node = node->next)
	{
		size_t		count;

		if (!node->dirty)
			continue;
		count = evp_session_info(node->session)->name_count;
		if (r->batch_len > 0 && names + count > BATCH_NAMES)
			break;
		names += count;
		r->batch[r->batch_len++] = node;
	}
	return names;
}

static void
put_batch(evp_roster_t *r, evp_buf_t *array, size_t names)
{
	static const uint32_t element[P_ARRAYS] = {EVP_OID_INT8, EVP_OID_INT8, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_INT8,
	EVP_OID_INT4, EVP_OID_BOOL, EVP_OID_TEXT, EVP_OID_INT4};
	uint64_t	now = evp_now(r->proxy);

	for (int k = 0; k < P_ARRAYS; k++)
	{
		size_t		n = k == P_CLOSED ? r->closing.n : k == P_NAMES ? names : r->batch_len;

		evp_buf_init(&array[k], MAX_PARAMETER);
		evp_pg_array_begin(&array[k], element[k], n);
	}
	for (size_t k = 0; k < r->closing.n; k++)
		evp_pg_array_int8(&array[P_CLOSED], r->closing.v[k]);
	for (size_t k = 0; k < r->batch_len; k++)
	{
		const evp_session_info_t *info = evp_session_info(r->batch[k]->session);
		uint64_t	age;

		evp_pg_array_int8(&array[P_NUMBERS], r->batch[k]->session_no);
		evp_pg_array_text(&array[P_BUNDLES], info->bundle, strlen(info->bundle));
		evp_pg_array_text(&array[P_INSTANCES], info->instance, strlen(info->instance));
		evp_pg_array_int8(&array[P_VERSIONS], info->bundle_version);
		age = now - r->batch[k]->opened_at;
		evp_pg_array_int4(&array[P_AGES], age > INT32_MAX ? INT32_MAX : (int32_t) age);
		evp_pg_array_bool(&array[P_ENABLED], info->ready);
		for (size_t j = 0; j < info->name_count; j++)
			evp_pg_array_text(&array[P_NAMES], info->names[j], strlen(info->names[j]));
		evp_pg_array_int4(&array[P_NAME_COUNTS], (int32_t) info->name_count);
	}
}

/* Sends what there is to tell, unless a statement is under way or nobody would listen. */
static void
sync_now(evp_roster_t *r)
{
	evp_buf_t	array[P_ARRAYS];
	const char *values[1 + P_ARRAYS];
	int			lengths[1 + P_ARRAYS];
	int			formats[1 + P_ARRAYS];
	uint8_t		id[8];
	bool		failed = false;
	size_t		names;
	evp_db_statement_t statement = {.sql = sync_sql,.nparams = 1 + P_ARRAYS,.types = sync_types,.values = values,
	.lengths = lengths,.formats = formats,.result_format = 1,.deadline = evp_now(r->proxy) + 2000};

	if (r->flying || r->stopped || r->proxy_id == 0 || !evp_db_is_up(r->proxy->db))
		return;
	names = choose_batch(r);
	if (r->batch_len == 0)
		r->single = false;
	while (r->closed.n > 0 && r->closing.n < BATCH_CLOSED)
		add_number(&r->closing, r->closed.v[--r->closed.n]);
	if (r->batch_len == 0 && r->closing.n == 0)
		return;
	put_batch(r, array, names);
	for (int k = 0; k < 8; k++)
		id[k] = (uint8_t) ((uint64_t) r->proxy_id >> (56 - 8 * k));
	for (int k = 0; k < 1 + P_ARRAYS; k++)
	{
		values[k] = k == 0 ? (const char *) id : (const char *) array[k - 1].data;
		lengths[k] = k == 0 ? 8 : (int) array[k - 1].len;
		formats[k] = 1;
		failed |= k > 0 && array[k - 1].failed;
	}
	r->flying = true;
	for (size_t k = 0; k < r->batch_len; k++)
	{
		r->batch[k]->flying = true;
		r->batch[k]->dirty = false;
	}
	if (!failed)
		evp_db_run(r->proxy->db, EVP_DB_CONTROL, &statement, on_synced, r);
	else
		on_synced(r, &(evp_db_result_t) {.status = EVP_DB_UNSENT,.message = "out of memory"});
	for (int k = 0; k < P_ARRAYS; k++)
		evp_buf_free(&array[k]);
}

static void
on_timer(uv_timer_t *timer)
{
	sync_now(timer->data);
}

static void
sync_in(evp_roster_t *r, uint64_t ms)
{
	/* The loop's time may be some way back within a long turn; that only makes this earlier. */
	if (!r->stopped && !r->flying && !uv_is_active((uv_handle_t *) &r->timer))
		uv_timer_start(&r->timer, on_timer, ms, 0);
}

/* What a statement did about a session. */
typedef enum evp_outcome
{
	ROW_GIVEN,					/* its row has the number that came back; 0: there is none */
	ROW_REFUSED,				/* the database does not take it */
	ROW_UNKNOWN
} evp_outcome_t;

static void
land(evp_roster_t *r, evp_node_t *node, evp_outcome_t outcome, int64_t session_no)
{
	node->flying = false;
	if (node->session == NULL)
	{
		if (outcome == ROW_GIVEN && session_no != 0)
			add_number(&r->closed, session_no);
		else if (node->session_no > 0)
			add_number(&r->closed, node->session_no);
		free_node(r, node);
	}
	else if (outcome == ROW_UNKNOWN)
		node->dirty = true;
	else if (outcome == ROW_GIVEN && node->session_no <= 0 && session_no == 0)
		r->events.on_superseded(r->arg, node->session);
	else if (outcome == ROW_GIVEN && node->session_no <= 0)
	{
		node->session_no = session_no;
		evp_session_info_rw(node->session)->session_no = session_no;
		r->events.on_number(r->arg, node->session, session_no);
	}
	/* Where the row of one that had a number is gone, the next picture will not have it either. */
}

/*
 * Was something in a session itself refused?  The others must not suffer for it:
 * each gets a statement of its own, and the one that fails alone is left out
 * until it changes.
 */
static bool
single_out(evp_roster_t *r, const evp_db_result_t *result)
{
	if (result->status != EVP_DB_ERROR || (strncmp(result->sqlstate, "22", 2) != 0 && strncmp(result->sqlstate, "54", 2) != 0))
		return false;
	r->single = true;
	if (r->batch_len != 1)
		return false;
	if (r->batch[0]->session != NULL)
		evp_log(EVP_LOG_ERROR, "registry", evp_session_info(r->batch[0]->session)->instance, "not registered: %s",
				result->message);
	return true;
}

static void
on_synced(void *arg, const evp_db_result_t *result)
{
	evp_roster_t *r = arg;
	bool		ok = result->status == EVP_DB_OK && (size_t) PQntuples(result->rows) == r->batch_len;
	bool		leave_out = single_out(r, result);

	r->flying = false;
	for (size_t k = 0; k < r->batch_len; k++)
	{
		bool		given = ok && PQgetlength(result->rows, (int) k, 0) == 8;

		land(r, r->batch[k], given ? ROW_GIVEN : leave_out ? ROW_REFUSED : ROW_UNKNOWN,
			 given ? evp_pg_int8(PQgetvalue(result->rows, (int) k, 0)) : 0);
	}
	r->batch_len = 0;
	for (size_t k = 0; !ok && k < r->closing.n; k++)
		add_number(&r->closed, r->closing.v[k]);
	r->closing.n = 0;
	if (r->stopped)
		return;
	if (ok)
		sync_in(r, 0);
	else
	{
		sync_in(r, RETRY_MS);
		if (result->status == EVP_DB_ERROR)
			r->events.on_refused(r->arg, result->message);
	}
}

/* ---- the sessions ---- */

evp_roster_t *
evp_roster_new(evp_proxy_t *proxy, const evp_roster_events_t *events, void *arg)
{
	evp_roster_t *r = calloc(1, sizeof *r);

	if (r == NULL)
		return NULL;
	r->proxy = proxy;
	r->events = *events;
	r->arg = arg;
	uv_timer_init(proxy->loop, &r->timer);
	r->timer.data = r;
	return r;
}

void
evp_roster_stop(evp_roster_t *r)
{
	if (r->stopped)
		return;
	r->stopped = true;
	uv_close((uv_handle_t *) &r->timer, NULL);
}

void
evp_roster_free(evp_roster_t *r)
{
	if (r == NULL)
		return;
	while (r->nodes != NULL)
		free_node(r, r->nodes);
	free(r->closed.v);
	free(r->closing.v);
	free(r);
}

void
evp_roster_open(evp_roster_t *r, evp_session_t *session)
{
	evp_node_t *node = calloc(1, sizeof *node);

	if (node == NULL)
	{
		evp_log(EVP_LOG_ERROR, "registry", evp_session_info(session)->instance, "out of memory: not registered");
		return;
	}
	node->session = session;
	node->opened_at = evp_now(r->proxy);
	node->dirty = true;
	node->next = r->nodes;
	if (node->next != NULL)
		node->next->prev = node;
	r->nodes = node;
	evp_session_info_rw(session)->node = node;
	sync_in(r, GATHER_MS);
}

void
evp_roster_change(evp_roster_t *r, evp_session_t *session)
{
	evp_node_t *node = evp_session_info(session)->node;

	if (node == NULL)
		return;
	node->dirty = true;
	sync_in(r, GATHER_MS);
}

void
evp_roster_close(evp_roster_t *r, evp_session_t *session)
{
	evp_session_info_t *info = evp_session_info_rw(session);
	evp_node_t *node = info->node;

	if (node == NULL)
		return;
	info->node = NULL;
	info->session_no = 0;
	node->session = NULL;
	node->dirty = false;
	if (node->flying)
		return;
	if (node->session_no > 0)
		add_number(&r->closed, node->session_no);
	free_node(r, node);
	sync_in(r, GATHER_MS);
}

void
evp_roster_registered(evp_roster_t *r, int64_t proxy_id)
{
	r->proxy_id = proxy_id;
	sync_in(r, 0);
}

/* ---- pictures ---- */

void
evp_roster_check_begin(evp_roster_t *r)
{
	r->check++;
}

void
evp_roster_check_row(evp_roster_t *r, evp_session_t *session, int64_t session_no)
{
	evp_node_t *node = session == NULL ? NULL : evp_session_info(session)->node;

	if (node != NULL && node->session_no == session_no)
		node->checked = r->check;
	else if (!has_number(&r->closed, session_no) && !has_number(&r->closing, session_no))
	{
		/* Registered by a statement whose outcome never came. */
		add_number(&r->closed, session_no);
		sync_in(r, 0);
	}
}

void
evp_roster_check_end(evp_roster_t *r, bool again)
{
	evp_node_t *next;

	for (evp_node_t *node = r->nodes; node != NULL; node = next)
	{
		next = node->next;
		if (node->session == NULL || node->session_no <= 0 || node->checked == r->check)
			continue;
		if (!again)
		{
			r->events.on_superseded(r->arg, node->session);
			continue;
		}
		node->session_no = -node->session_no;
		node->dirty = true;
		evp_session_info_rw(node->session)->session_no = 0;
		r->events.on_number(r->arg, node->session, 0);
		sync_in(r, 0);
	}
}
