/*
 * router_test.c
 *    Routing: the real router and model, on a loop; sessions, links and the
 *    registry are played by this file.
 */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "link.h"
#include "message.h"
#include "metrics.h"
#include "registry.h"
#include "requests.h"
#include "router.h"
#include "session.h"

#define SENT_MAX 64
#define CUT_MS 5000
#define AVOID_MS 30000


/* ---- what is played ---- */

struct evp_session
{
	evp_session_info_t info;
};

/* A message that went to a session, or over a link. */
typedef struct sent
{
	evp_session_t *session;		/* NULL: a link */
	int64_t		proxy_id;
	char		instance[32];
	int64_t		session_no;
	evp_blob_t *blob;
	evp_message_t message;
} sent_t;

typedef struct fixture
{
	uv_loop_t	loop;
	evp_proxy_t proxy;
	evp_members_t *members;
	uint64_t	looks;			/* pictures asked for, and the number of the newest that came */
	uint64_t	seen;
	sent_t		sent[SENT_MAX];
	int			sent_count;
	char		linked[1024];	/* what else went over links, as text */
	/* the last callback */
	int			called;
	evp_call_status_t status;
	char		payload[64];
	evp_session_t sessions[4];
} fixture_t;

static fixture_t *f;

static void
record(evp_session_t *session, int64_t proxy_id, const char *instance, int64_t session_no, const evp_parts_t *parts)
{
	sent_t	   *s = &f->sent[f->sent_count++];
	const char *reason;
	evp_buf_t	b;

	assert_true(f->sent_count < SENT_MAX);
	evp_buf_init(&b, SIZE_MAX);
	for (unsigned k = 0; k < parts->n; k++)
		evp_buf_append(&b, parts->part[k].p, parts->part[k].n);
	assert_int_equal(b.len, parts->len);
	s->session = session;
	s->proxy_id = proxy_id;
	s->session_no = session_no;
	snprintf(s->instance, sizeof s->instance, "%s", instance);
	s->blob = evp_blob_from_buf(&b);
	assert_int_equal(evp_message_decode(&s->message, s->blob, &reason), 0);
	assert_int_equal(s->message.type, EVP_REQ);
}

const evp_session_info_t *
evp_session_info(const evp_session_t *session)
{
	return &session->info;
}

int
evp_session_send_parts(evp_session_t *session, const evp_parts_t *parts)
{
	record(session, 0, session->info.instance, 0, parts);
	return 0;
}

int
evp_links_send_call(evp_links_t *links, int64_t proxy_id, const uint8_t id[16], int64_t session_no, uint32_t timeout_ms,
					const char *bundle, const char *instance, const evp_parts_t *message)
{
	(void) links;
	assert_string_equal(bundle, "b");
	assert_true(timeout_ms > 0);
	record(NULL, proxy_id, instance, session_no, message);
	assert_memory_equal(f->sent[f->sent_count - 1].message.correlation, id, 16);
	return 0;
}

static void
linked(const char *what, int64_t to, int64_t session_no, int detail)
{
	size_t		len = strlen(f->linked);

	snprintf(f->linked + len, sizeof f->linked - len, "%s%s:%d:%d:%d", len > 0 ? " " : "", what, (int) to, (int) session_no, detail);
}

void
evp_links_send_cancel(evp_links_t *links, int64_t proxy_id, const uint8_t id[16])
{
	(void) links;
	(void) id;
	linked("cancel", proxy_id, 0, 0);
}

void
evp_links_send_result(evp_links_t *links, uint64_t link, const uint8_t id[16], int64_t session_no, evp_blob_t *rsp)
{
	(void) links;
	linked("result", (int64_t) link, session_no, id[0]);
	assert_true(rsp->len > 0);
}

void
evp_links_send_cut(evp_links_t *links, uint64_t link, const uint8_t id[16], int64_t session_no)
{
	(void) links;
	linked("cut", (int64_t) link, session_no, id[0]);
}

void
evp_links_send_refusal(evp_links_t *links, uint64_t link, const uint8_t id[16], int64_t session_no, evp_refusal_t why)
{
	(void) links;
	(void) id;
	linked("refused", (int64_t) link, session_no, (int) why);
}

evp_members_t *
evp_registry_members(evp_registry_t *registry)
{
	(void) registry;
	return f->members;
}

uint64_t
evp_registry_looks(const evp_registry_t *registry)
{
	(void) registry;
	return f->looks;
}

bool
evp_registry_has_looked(evp_registry_t *registry, uint64_t looks)
{
	(void) registry;
	return f->seen > looks;
}

void
evp_registry_session_lost(evp_registry_t *registry, evp_instance_t *instance, int64_t proxy_id, int64_t session_no)
{
	(void) registry;
	evp_members_session_lost(f->members, instance, proxy_id, session_no, uv_now(&f->loop));
}

void
evp_registry_session_waiting(evp_registry_t *registry, evp_instance_t *instance, int64_t proxy_id, int64_t session_no)
{
	(void) registry;
	evp_members_session_waiting(f->members, instance, proxy_id, session_no);
}

static void
on_changed(void *arg)
{
	(void) arg;
	evp_router_instances_changed(f->proxy.router);
}

static void
on_cut(void *arg, evp_instance_t *i)
{
	(void) arg;
	evp_router_instance_cut(f->proxy.router, i);
}

static void
on_gone(void *arg, evp_instance_t *i)
{
	(void) arg;
	evp_router_instance_gone(f->proxy.router, i);
}

static void
on_moved(void *arg, evp_instance_t *i)
{
	(void) arg;
	(void) i;
}

static int
setup(void **state)
{
	static const evp_members_events_t events = {on_changed, on_cut, on_gone, on_moved};
	static char names[4][8] = {"s0", "s1", "s2", "s3"};

	(void) state;
	f = calloc(1, sizeof *f);
	uv_loop_init(&f->loop);
	f->proxy.loop = &f->loop;
	f->proxy.config.max_calls = 100000;
	snprintf(f->proxy.server_instance, sizeof f->proxy.server_instance, "server-1");
	for (int i = 0; i < 4; i++)
	{
		f->sessions[i].info.bundle = "b";
		f->sessions[i].info.instance = names[i];
	}
	f->seen = 1;
	memset(&evp_metrics, 0, sizeof evp_metrics);
	f->members = evp_members_new(&events, NULL, CUT_MS, AVOID_MS);
	f->proxy.router = evp_router_new(&f->proxy);
	return 0;
}

static void
forget_sent(void)
{
	for (int i = 0; i < f->sent_count; i++)
	{
		evp_message_free(&f->sent[i].message);
		evp_blob_unref(f->sent[i].blob);
	}
	f->sent_count = 0;
}

static int
teardown(void **state)
{
	(void) state;
	evp_router_stop(f->proxy.router);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	evp_router_free(f->proxy.router);
	evp_members_free(f->members);
	forget_sent();
	free(f);
	return 0;
}

/* ---- steps ---- */

static void
turn(void)
{
	uv_run(&f->loop, UV_RUN_NOWAIT);
}

static void
connect_here(int session, bool ready)
{
	evp_session_t *older;
	char	   *names[] = {"Q"};
	evp_session_info_t *info = &f->sessions[session].info;

	evp_members_open(f->members, &f->sessions[session], info->bundle, info->instance, uv_now(&f->loop), &older);
	evp_members_set(f->members, &f->sessions[session], info->bundle, info->instance, ready, names, 1);
	turn();
}

static void
disconnect(int session)
{
	evp_members_close(f->members, &f->sessions[session], "b", f->sessions[session].info.instance, uv_now(&f->loop));
	turn();
}

/* One instance elsewhere; proxy 0: none. */
static void
picture(int64_t proxy, const char *instance, int64_t session_no, bool enabled)
{
	static const char *const names[] = {"Q"};
	evp_member_row_t row = {.proxy_id = proxy,.internal = "x:1",.session_no = session_no,.bundle = "b",.instance = instance,.enabled = enabled,
	.names = names,.name_count = 1};

	evp_members_merge(f->members, 99, &row, proxy == 0 ? 0 : 1, uv_now(&f->loop), NULL);
	turn();
}

static void
give_up(void)
{
	uint64_t	when = uv_now(&f->loop) + CUT_MS;

	evp_members_expire(f->members, when, when);
	turn();
}

static void
on_ended(void *arg, evp_call_status_t status, const evp_message_t *message)
{
	assert_ptr_equal(arg, f);
	f->called++;
	f->status = status;
	snprintf(f->payload, sizeof f->payload, "%.*s", message == NULL ? 0 : (int) message->payload.n,
			 message == NULL ? "" : (const char *) message->payload.p);
}

static evp_call_t *
call_for(evp_call_kind_t kind, uint64_t ms)
{
	evp_call_spec_t spec = {.kind = kind,.name = "Q",.name_len = 1,.payload_type = evp_slice_str("Q"),.payload = evp_slice_str("question"),
	.as_server = kind != EVP_CALL_QUERY,.source_bundle = evp_slice_str("web"),.source_instance = evp_slice_str("web-1"),
	.source_version = evp_slice_str("3"),.deadline = uv_now(&f->loop) + ms};
	int			called = f->called;
	evp_call_t *call = evp_router_call(f->proxy.router, &spec, on_ended, f);

	assert_non_null(call);
	assert_int_equal(f->called, called);
	return call;
}

static evp_call_t *
call(evp_call_kind_t kind)
{
	return call_for(kind, 30000);
}

/* The RSP to a message, as its bytes. */
static evp_blob_t *
response(const uint8_t id[16], const char *payload, bool failure)
{
	evp_message_t rsp = {.type = EVP_RSP,.has_correlation = true,.payload = evp_slice_str(payload),.has_failure = failure,
	.failure_message = evp_slice_str("bad")};
	evp_buf_t	b;

	memcpy(rsp.correlation, id, 16);
	evp_buf_init(&b, SIZE_MAX);
	assert_true(evp_message_encode(&b, &rsp));
	return evp_blob_from_buf(&b);
}

/* A session answers the message that was sent as the k-th. */
static void
answer(int session, int k, const char *payload)
{
	evp_blob_t *blob = response(f->sent[k].message.correlation, payload, payload == NULL);
	evp_message_t rsp;
	const char *reason;

	assert_int_equal(evp_message_decode(&rsp, blob, &reason), 0);
	evp_router_response(f->proxy.router, &f->sessions[session], &rsp);
	evp_message_free(&rsp);
	evp_blob_unref(blob);
}

static void
answer_by_link(int k, const char *payload)
{
	evp_blob_t *blob = response(f->sent[k].message.correlation, payload, false);

	evp_router_link_answer(f->proxy.router, f->sent[k].message.correlation, blob);
	evp_blob_unref(blob);
}

static bool
same_id(int a, int b)
{
	return memcmp(f->sent[a].message.correlation, f->sent[b].message.correlation, 16) == 0;
}

#define expect_end(n, s) \
	do { \
		assert_int_equal(f->called, n); \
		assert_int_equal(f->status, s); \
	} while (0)

#define expect_linked(text) \
	do { \
		assert_string_equal(f->linked, text); \
		f->linked[0] = '\0'; \
	} while (0)

/* ---- tests ---- */

static void
test_answered(void **state)
{
	(void) state;
	connect_here(0, true);
	call(EVP_CALL_AGGREGATE);
	call(EVP_CALL_QUERY);
	assert_int_equal(f->sent_count, 2);
	assert_slice(f->sent[0].message.source_bundle_id, "evento-server");
	assert_slice(f->sent[0].message.source_instance_id, "server-1");
	assert_slice(f->sent[0].message.source_bundle_version, "0");
	assert_slice(f->sent[1].message.source_bundle_id, "web");
	assert_slice(f->sent[1].message.source_instance_id, "web-1");
	assert_slice(f->sent[1].message.source_bundle_version, "3");
	assert_slice(f->sent[1].message.payload_type, "Q");
	assert_slice(f->sent[1].message.payload, "question");
	assert_true(f->sent[0].message.timeout_ms > 29000 && f->sent[0].message.timeout_ms <= 30000);
	assert_false(same_id(0, 1));
	assert_int_equal(evp_members_instance(f->members, "b", "s0")->open, 2);
	answer(0, 1, "answer");
	expect_end(1, EVP_CALL_OK);
	assert_string_equal(f->payload, "answer");
	answer(0, 0, NULL);
	expect_end(2, EVP_CALL_FAILURE);
	assert_int_equal(evp_members_instance(f->members, "b", "s0")->open, 0);
	/* Once more, and from nobody who was asked. */
	answer(0, 0, "again");
	assert_int_equal(f->called, 2);
	assert_int_equal(evp_metrics.responses_unmatched, 1);
	connect_here(1, true);
	call(EVP_CALL_QUERY);
	answer(f->sent[2].session == &f->sessions[0] ? 1 : 0, 2, "stolen");
	assert_int_equal(f->called, 2);
	assert_int_equal(evp_metrics.responses_unmatched, 2);
	answer(f->sent[2].session == &f->sessions[0] ? 0 : 1, 2, "own");
	expect_end(3, EVP_CALL_OK);
}

static void
test_nobody(void **state)
{
	(void) state;
	call(EVP_CALL_QUERY);
	assert_int_equal(f->called, 0);
	turn();
	expect_end(1, EVP_CALL_NO_HANDLER);
	/* The picture that is there is older than the calls: nobody knows. */
	f->looks = 1;
	call(EVP_CALL_QUERY);
	call(EVP_CALL_SERVICE);
	turn();
	assert_int_equal(f->called, 1);
	f->seen = 2;
	evp_router_instances_changed(f->proxy.router);
	turn();
	expect_end(3, EVP_CALL_NO_HANDLER);
}

static void
test_waits(void **state)
{
	(void) state;
	connect_here(0, false);
	call(EVP_CALL_QUERY);
	call(EVP_CALL_AGGREGATE);
	turn();
	assert_int_equal(f->called + f->sent_count, 0);
	/* In the order in which they came. */
	connect_here(0, true);
	assert_int_equal(f->sent_count, 2);
	assert_slice(f->sent[0].message.source_bundle_id, "web");
	answer(0, 0, "x");
	answer(0, 1, "y");
	expect_end(2, EVP_CALL_OK);
	/* A new one waits for one that is cut; when that is gone nobody is left. */
	disconnect(0);
	call(EVP_CALL_SERVICE);
	turn();
	assert_int_equal(f->called, 2);
	give_up();
	expect_end(3, EVP_CALL_NO_HANDLER);
}

static void
test_cut_and_back(void **state)
{
	(void) state;
	connect_here(0, true);
	connect_here(1, false);
	call(EVP_CALL_AGGREGATE);
	call(EVP_CALL_SERVICE);
	disconnect(0);
	assert_int_equal(f->sent_count, 2);
	/* Another instance may be ready: these two are not its. */
	connect_here(1, true);
	assert_int_equal(f->sent_count, 2);
	connect_here(0, false);
	assert_int_equal(f->sent_count, 2);
	connect_here(0, true);
	assert_int_equal(f->sent_count, 4);
	for (int k = 0; k < 2; k++)
	{
		assert_true(same_id(k, k + 2));
		assert_int_equal(f->sent[k].blob->len, f->sent[k + 2].blob->len);
		assert_memory_equal(f->sent[k].blob->data, f->sent[k + 2].blob->data, f->sent[k].blob->len);
	}
	answer(0, 2, "done");
	answer(0, 3, "done");
	expect_end(2, EVP_CALL_OK);
	assert_int_equal(evp_members_instance(f->members, "b", "s0")->open, 0);
}

static void
test_unasked_answer(void **state)
{
	(void) state;
	connect_here(0, true);
	call(EVP_CALL_SERVICE);
	disconnect(0);
	/* It is back, not ready yet, and answers at once what it was asked before. */
	connect_here(0, false);
	answer(0, 0, "done");
	expect_end(1, EVP_CALL_OK);
	connect_here(0, true);
	assert_int_equal(f->sent_count, 1);
}

static void
test_gone(void **state)
{
	(void) state;
	connect_here(0, true);
	call(EVP_CALL_AGGREGATE);
	call(EVP_CALL_SERVICE);
	call(EVP_CALL_QUERY);
	connect_here(1, true);
	disconnect(0);
	/* The query has moved, under another id. */
	assert_int_equal(f->sent_count, 4);
	assert_ptr_equal(f->sent[3].session, &f->sessions[1]);
	assert_slice(f->sent[3].message.source_bundle_id, "web");
	assert_false(same_id(2, 3));
	give_up();
	expect_end(1, EVP_CALL_GONE);
	assert_int_equal(f->sent_count, 5);
	assert_ptr_equal(f->sent[4].session, &f->sessions[1]);
	assert_false(same_id(0, 4));
	assert_slice(f->sent[4].message.source_bundle_id, "evento-server");
	answer(1, 4, "elsewhere");
	expect_end(2, EVP_CALL_OK);
	answer(1, 3, "moved");
	expect_end(3, EVP_CALL_OK);
	/* With nobody else an aggregate command has no handler. */
	call(EVP_CALL_AGGREGATE);
	disconnect(1);
	give_up();
	expect_end(4, EVP_CALL_NO_HANDLER);
}

static void
test_remote(void **state)
{
	(void) state;
	picture(2, "r", 10, true);
	call(EVP_CALL_AGGREGATE);
	assert_int_equal(f->sent_count, 1);
	assert_int_equal(f->sent[0].proxy_id, 2);
	assert_int_equal(f->sent[0].session_no, 10);
	answer_by_link(0, "far");
	expect_end(1, EVP_CALL_OK);
	assert_string_equal(f->payload, "far");

	/* Its session ends there; it returns at a third proxy, and then here. */
	call(EVP_CALL_SERVICE);
	evp_router_link_cut(f->proxy.router, f->sent[1].message.correlation, 10);
	turn();
	assert_int_equal(f->sent_count, 2);
	picture(2, "r", 10, true);
	assert_int_equal(f->sent_count, 2);
	picture(3, "r", 11, true);
	assert_int_equal(f->sent_count, 3);
	assert_int_equal(f->sent[2].proxy_id, 3);
	assert_int_equal(f->sent[2].session_no, 11);
	assert_true(same_id(1, 2));
	/* The first proxy's word about the session before that is old news. */
	evp_router_link_cut(f->proxy.router, f->sent[1].message.correlation, 10);
	evp_router_link_refused(f->proxy.router, f->sent[1].message.correlation, 10, EVP_REFUSAL_NO_SESSION);
	turn();
	assert_int_equal(f->sent_count, 3);
	f->sessions[0].info.instance = "r";
	connect_here(0, true);
	assert_int_equal(f->sent_count, 4);
	assert_ptr_equal(f->sent[3].session, &f->sessions[0]);
	assert_true(same_id(1, 3));
	answer(0, 3, "home");
	expect_end(2, EVP_CALL_OK);
}

static void
test_link_breaks(void **state)
{
	(void) state;
	picture(2, "r", 10, true);
	call(EVP_CALL_SERVICE);
	call(EVP_CALL_QUERY);
	evp_members_proxy_lost(f->members, 2, uv_now(&f->loop));
	turn();
	assert_int_equal(f->sent_count, 2);
	evp_members_proxy_found(f->members, 2);
	turn();
	assert_int_equal(f->sent_count, 4);
	assert_true(same_id(0, 2) || same_id(0, 3));
	evp_members_proxy_lost(f->members, 2, uv_now(&f->loop));
	turn();
	give_up();
	/* The service command may have run; the query has nobody. */
	assert_int_equal(f->called, 2);
}

static void
test_refused(void **state)
{
	(void) state;
	picture(2, "r", 10, true);
	call(EVP_CALL_SERVICE);
	connect_here(0, true);
	/* Not sent at all: it may go elsewhere. */
	evp_router_link_refused(f->proxy.router, f->sent[0].message.correlation, 10, EVP_REFUSAL_NO_SESSION);
	turn();
	assert_int_equal(f->sent_count, 2);
	assert_ptr_equal(f->sent[1].session, &f->sessions[0]);
	answer(0, 1, "here");
	expect_end(1, EVP_CALL_OK);
	assert_int_equal(evp_members_instance(f->members, "b", "r")->state, EVP_INSTANCE_CUT);
	disconnect(0);
	give_up();

	/* Not ready there: it waits until it is. */
	picture(2, "r", 20, true);
	call(EVP_CALL_AGGREGATE);
	evp_router_link_refused(f->proxy.router, f->sent[2].message.correlation, 20, EVP_REFUSAL_NOT_READY);
	turn();
	assert_int_equal(f->sent_count, 3);
	picture(2, "r", 20, true);
	assert_int_equal(f->sent_count, 4);
	/* Asked once, then cut, then refused: bound to its instance. */
	evp_router_link_cut(f->proxy.router, f->sent[3].message.correlation, 20);
	turn();
	picture(2, "r", 21, true);
	assert_int_equal(f->sent_count, 5);
	connect_here(1, true);
	evp_router_link_refused(f->proxy.router, f->sent[4].message.correlation, 21, EVP_REFUSAL_NO_SESSION);
	turn();
	assert_int_equal(f->sent_count, 5);
	picture(2, "r", 22, true);
	assert_int_equal(f->sent_count, 6);
	assert_true(same_id(3, 5));
	answer_by_link(5, "done");
	expect_end(2, EVP_CALL_OK);
	disconnect(1);

	/* Full. */
	call(EVP_CALL_QUERY);
	evp_router_link_refused(f->proxy.router, f->sent[6].message.correlation, 22, EVP_REFUSAL_FULL);
	turn();
	expect_end(3, EVP_CALL_REFUSED);
}

/* The refusal of the first cuts the session; those behind it were not delivered either. */
static void
test_refused_together(void **state)
{
	(void) state;
	picture(2, "r", 10, true);
	call(EVP_CALL_SERVICE);
	call(EVP_CALL_SERVICE);
	call(EVP_CALL_AGGREGATE);
	connect_here(0, true);
	for (int i = 0; i < 3; i++)
		evp_router_link_refused(f->proxy.router, f->sent[i].message.correlation, 10, EVP_REFUSAL_NO_SESSION);
	turn();
	assert_int_equal(f->sent_count, 6);
	for (int i = 3; i < 6; i++)
	{
		assert_ptr_equal(f->sent[i].session, &f->sessions[0]);
		answer(0, i, "here");
		expect_end(i - 2, EVP_CALL_OK);
	}
}

static void
ask_from_link(uint64_t link, uint8_t id, const char *instance, int64_t session_no)
{
	evp_message_t req = {.type = EVP_REQ,.has_correlation = true,.correlation = {id},.payload_type = evp_slice_str("Q"),
	.payload = evp_slice_str("question")};
	evp_link_call_t asked = {.id = {id},.session_no = session_no,.timeout_ms = 1000,.bundle = evp_slice_str("b"),
	.instance = evp_slice_str(instance)};
	evp_buf_t	b;

	evp_buf_init(&b, SIZE_MAX);
	assert_true(evp_message_encode(&b, &req));
	asked.message = evp_blob_from_buf(&b);
	evp_router_link_call(f->proxy.router, link, &asked);
	evp_blob_unref(asked.message);
}

static void
test_foreign(void **state)
{
	(void) state;
	ask_from_link(7, 1, "s0", 5);
	expect_linked("refused:7:5:1");
	connect_here(0, false);
	ask_from_link(7, 1, "s0", 5);
	expect_linked("refused:7:5:2");
	connect_here(0, true);
	ask_from_link(7, 1, "s0", 5);
	expect_linked("");
	assert_int_equal(f->sent_count, 1);
	assert_int_equal(evp_members_instance(f->members, "b", "s0")->open, 1);
	answer(0, 0, "answer");
	expect_linked("result:7:5:1");
	assert_int_equal(evp_members_instance(f->members, "b", "s0")->open, 0);
	answer(0, 0, "answer");
	expect_linked("");
	assert_int_equal(evp_metrics.responses_unmatched, 1);

	/* The session ends: the asking proxy is told, with the number it gave. */
	ask_from_link(7, 2, "s0", 5);
	ask_from_link(8, 3, "s0", 6);
	disconnect(0);
	assert_true(strcmp(f->linked, "cut:7:5:2 cut:8:6:3") == 0 || strcmp(f->linked, "cut:8:6:3 cut:7:5:2") == 0);
	f->linked[0] = '\0';
	/* It is back and asked again, over another link; the answer goes there. */
	connect_here(0, true);
	ask_from_link(9, 2, "s0", 11);
	ask_from_link(10, 2, "s0", 11);
	assert_int_equal(f->sent_count, 5);
	assert_int_equal(evp_members_instance(f->members, "b", "s0")->open, 1);
	/* The link by which it came first means nothing any more. */
	evp_router_link_closed(f->proxy.router, 9);
	evp_router_link_cancel(f->proxy.router, 9, f->sent[4].message.correlation);
	answer(0, 4, "answer");
	expect_linked("result:10:11:2");

	/* Nobody waits for the answer. */
	ask_from_link(7, 4, "s0", 11);
	evp_router_link_closed(f->proxy.router, 7);
	answer(0, 5, "answer");
	ask_from_link(8, 5, "s0", 11);
	evp_router_link_cancel(f->proxy.router, 8, f->sent[6].message.correlation);
	answer(0, 6, "answer");
	expect_linked("");
	assert_int_equal(evp_metrics.responses_unmatched, 3);

	/* An answer on a link is for calls of ours only, and a full proxy says so. */
	ask_from_link(7, 6, "s0", 11);
	answer_by_link(7, "mixed up");
	assert_int_equal(evp_metrics.responses_unmatched, 4);
	f->proxy.config.max_calls = 1;
	ask_from_link(7, 7, "s0", 11);
	expect_linked("refused:7:11:3");
}

static void
wait_ms(uint64_t ms)
{
	uint64_t	until = uv_hrtime() + ms * 1000000;

	do
	{
		uv_sleep(5);
		turn();
	} while (uv_hrtime() < until);
	/* What the last of them found late may be told in the next. */
	turn();
}

static void
test_deadlines(void **state)
{
	(void) state;
	connect_here(0, true);
	uv_update_time(&f->loop);
	call_for(EVP_CALL_SERVICE, 20);
	call_for(EVP_CALL_QUERY, 10000);
	wait_ms(120);
	expect_end(1, EVP_CALL_TIMEOUT);
	assert_int_equal(evp_members_instance(f->members, "b", "s0")->unanswered, 1);
	answer(0, 0, "late");
	assert_int_equal(evp_members_instance(f->members, "b", "s0")->unanswered, 1);
	assert_int_equal(f->called, 1);
	assert_int_equal(evp_metrics.responses_unmatched, 1);
	answer(0, 1, "in time");
	expect_end(2, EVP_CALL_OK);
	assert_int_equal(evp_members_instance(f->members, "b", "s0")->unanswered, 0);
	/* One that waits, and one that is elsewhere, which is told. */
	disconnect(0);
	call_for(EVP_CALL_QUERY, 20);
	wait_ms(120);
	expect_end(3, EVP_CALL_TIMEOUT);
	picture(2, "r", 10, true);
	call_for(EVP_CALL_QUERY, 20);
	wait_ms(120);
	expect_end(4, EVP_CALL_TIMEOUT);
	expect_linked("cancel:2:0:0");
	assert_int_equal(evp_members_instance(f->members, "b", "r")->unanswered, 1);
	assert_int_equal(evp_metrics.calls_unanswered, 2);
	/* What another proxy asked is forgotten some time after its deadline; nothing is told. */
	assert_int_equal(uv_loop_alive(&f->loop), 0);
}

static void
test_cancel_and_bounds(void **state)
{
	evp_call_t *asked;
	evp_call_t *waiting;
	evp_call_t *ended;

	(void) state;
	/* It has ended, and is not told so any more. */
	ended = call(EVP_CALL_QUERY);
	evp_router_cancel(ended);
	connect_here(0, true);
	asked = call(EVP_CALL_QUERY);
	disconnect(0);
	waiting = call(EVP_CALL_SERVICE);
	evp_router_cancel(asked);
	evp_router_cancel(waiting);
	turn();
	assert_int_equal(f->called, 0);
	connect_here(0, true);
	f->proxy.config.max_calls = 2;
	call(EVP_CALL_QUERY);
	call(EVP_CALL_QUERY);
	call(EVP_CALL_QUERY);
	turn();
	expect_end(1, EVP_CALL_REFUSED);
}

/* Calls that are begun from callbacks, and the end of everything. */
static void
on_ended_again(void *arg, evp_call_status_t status, const evp_message_t *message)
{
	on_ended(arg, status, message);
	if (f->called < 5)
	{
		evp_call_spec_t spec = {.name = "Nothing",.name_len = 7,.payload = evp_slice_str("x"),.deadline = uv_now(&f->loop) + 1000};

		assert_non_null(evp_router_call(f->proxy.router, &spec, on_ended_again, f));
	}
}

static void
test_from_callbacks(void **state)
{
	evp_call_spec_t spec = {.name = "Nothing",.name_len = 7,.payload = evp_slice_str("x"),.deadline = uv_now(&f->loop) + 1000};

	(void) state;
	assert_non_null(evp_router_call(f->proxy.router, &spec, on_ended_again, f));
	for (int i = 0; i < 10; i++)
		turn();
	expect_end(5, EVP_CALL_NO_HANDLER);
}

static void
test_stop(void **state)
{
	evp_call_spec_t spec = {.name = "Q",.name_len = 1,.payload = evp_slice_str("x"),.deadline = uv_now(&f->loop) + 1000};

	(void) state;
	connect_here(0, true);
	call(EVP_CALL_QUERY);
	call(EVP_CALL_SERVICE);
	ask_from_link(7, 1, "s0", 5);
	disconnect(0);
	call(EVP_CALL_QUERY);
	evp_router_stop(f->proxy.router);
	expect_end(3, EVP_CALL_TIMEOUT);
	assert_null(evp_router_call(f->proxy.router, &spec, on_ended, f));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_answered),
		TEST(test_nobody),
		TEST(test_waits),
		TEST(test_cut_and_back),
		TEST(test_unasked_answer),
		TEST(test_gone),
		TEST(test_remote),
		TEST(test_link_breaks),
		TEST(test_refused),
		TEST(test_refused_together),
		TEST(test_foreign),
		TEST(test_deadlines),
		TEST(test_cancel_and_bounds),
		TEST(test_from_callbacks),
		TEST(test_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
