/*
 * members_test.c
 *    The cluster as one proxy knows it: merges of pictures, supersede, cut and
 *    gone, and the choice of an instance.
 */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "members.h"

#define AVOID_MS 5000
#define CUT_MS 5000
#define SELF 1

/* What the model told, as text: one letter an event and the instance. */
typedef struct told
{
	char		text[2048];
	int			changed;
} told_t;

static told_t told;
static evp_members_t *m;

/* Sessions are never looked into: addresses will do. */
static int	sessions[8];
#define SESSION(i) ((evp_session_t *) &sessions[i])

static void
tell(const char *what, const char *who)
{
	size_t		len = strlen(told.text);

	snprintf(told.text + len, sizeof told.text - len, "%s%s:%s", len > 0 ? " " : "", what, who);
}

static void
on_changed(void *arg)
{
	((told_t *) arg)->changed++;
}

static void
on_cut(void *arg, evp_instance_t *i)
{
	(void) arg;
	tell("cut", i->instance);
}

static void
on_gone(void *arg, evp_instance_t *i)
{
	(void) arg;
	tell("gone", i->instance);
}

static void
on_moved(void *arg, evp_instance_t *i)
{
	char		who[64];

	(void) arg;
	snprintf(who, sizeof who, "%s@%d", i->instance, (int) i->proxy_id);
	tell("moved", who);
}

static void
on_superseded(void *arg, evp_session_t *session, int64_t by)
{
	char		who[64];

	(void) arg;
	snprintf(who, sizeof who, "%d@%d", (int) ((int *) session - sessions), (int) by);
	tell("superseded", who);
}

/* What was told since the last time. */
#define expect_told(expected) \
	do { \
		assert_string_equal(told.text, expected); \
		told.text[0] = '\0'; \
	} while (0)

static int
setup(void **state)
{
	static const evp_members_events_t events = {on_changed, on_cut, on_gone, on_moved};

	(void) state;
	memset(&told, 0, sizeof told);
	m = evp_members_new(&events, &told, CUT_MS, AVOID_MS);
	return 0;
}

static int
teardown(void **state)
{
	(void) state;
	evp_members_free(m);
	return 0;
}

static const char *const name_q[] = {"Q"};
static const char *const names_qr[] = {"Q", "R", "Q"};

#define ROW(proxy, no, inst, on) \
	{.proxy_id = proxy, .internal = "127.0.0.1:" #proxy, .session_no = no, .bundle = "b", .instance = inst, .enabled = on, \
		.names = name_q, .name_count = 1}
#define PROXY(proxy) {.proxy_id = proxy, .internal = "127.0.0.1:" #proxy}

/* A picture at a time. */
#define merge(now, ...) \
	do { \
		const evp_member_row_t rows_[] = {__VA_ARGS__}; \
		evp_members_merge(m, SELF, rows_, sizeof rows_ / sizeof *rows_, now, on_superseded); \
	} while (0)

/* With a picture of that time. */
static void
expire(uint64_t now)
{
	assert_false(evp_members_expire(m, now, now));
}

static evp_instance_t *
instance(const char *name)
{
	return evp_members_instance(m, "b", name);
}

static size_t
handlers(const char *name)
{
	evp_instance_t *const *list;

	return evp_members_find(m, name, strlen(name), &list);
}

static evp_instance_t *
pick_at(const char *name, uint64_t now)
{
	evp_instance_t *const *list;
	size_t		n = evp_members_find(m, name, strlen(name), &list);

	return evp_members_pick(m, list, n, now);
}

static evp_instance_t *
pick(const char *name)
{
	return pick_at(name, 0);
}

/* Connects an instance here. */
static void
connect_here(int session, const char *name, bool ready, uint64_t now)
{
	evp_session_t *older;
	char	   *names[] = {"Q"};

	evp_members_open(m, SESSION(session), "b", name, now, &older);
	evp_members_set(m, SESSION(session), "b", name, ready, names, 1);
}

static void
test_local(void **state)
{
	evp_session_t *older = SESSION(7);
	char	   *names[] = {"Q", "R"};

	(void) state;
	evp_members_open(m, SESSION(0), "b", "i", 0, &older);
	assert_null(older);
	assert_int_equal(instance("i")->state, EVP_INSTANCE_WAITING);
	assert_int_equal(handlers("Q"), 0);
	evp_members_set(m, SESSION(0), "b", "i", false, names, 2);
	assert_int_equal(handlers("Q"), 1);
	assert_int_equal(handlers("R"), 1);
	assert_null(pick("Q"));
	evp_members_set(m, SESSION(0), "b", "i", true, names, 2);
	assert_ptr_equal(pick("Q"), instance("i"));
	/* A registration replaces the one before. */
	evp_members_set(m, SESSION(0), "b", "i", true, names, 1);
	assert_int_equal(handlers("R"), 0);
	expect_told("cut:i");

	/* The connection closes; it comes back in time. */
	evp_members_close(m, SESSION(0), "b", "i", 100);
	expect_told("cut:i");
	assert_int_equal(instance("i")->state, EVP_INSTANCE_CUT);
	assert_int_equal(handlers("Q"), 1);
	assert_null(pick("Q"));
	expire(100 + CUT_MS - 1);
	expect_told("");
	connect_here(1, "i", true, 5000);
	assert_ptr_equal(pick("Q")->session, SESSION(1));

	/* It does not come back. */
	evp_members_close(m, SESSION(1), "b", "i", 6000);
	told.text[0] = '\0';
	/* While nobody can tell whether it is elsewhere, it is waited for. */
	assert_true(evp_members_expire(m, 9000 + CUT_MS, 6000 + CUT_MS - 1));
	expect_told("");
	expire(6000 + CUT_MS);
	expect_told("gone:i");
	assert_null(instance("i"));
	assert_int_equal(handlers("Q"), 0);
}

static void
test_newer_session_here(void **state)
{
	evp_session_t *older;

	(void) state;
	connect_here(0, "i", true, 0);
	evp_members_number(m, SESSION(0), "b", "i", 5);
	told.text[0] = '\0';
	evp_members_open(m, SESSION(1), "b", "i", 10, &older);
	assert_ptr_equal(older, SESSION(0));
	expect_told("cut:i");
	/* The names of before stay until the new session registers: calls wait for it. */
	assert_int_equal(instance("i")->state, EVP_INSTANCE_WAITING);
	assert_int_equal(handlers("Q"), 1);
	/* The old one's end changes nothing any more, nor do its settings. */
	evp_members_close(m, SESSION(0), "b", "i", 11);
	evp_members_set(m, SESSION(0), "b", "i", true, NULL, 0);
	expect_told("");
	assert_ptr_equal(instance("i")->session, SESSION(1));
	assert_int_equal(handlers("Q"), 1);
}

static void
test_picture(void **state)
{
	evp_instance_t *i;

	(void) state;
	merge(0, ROW(2, 10, "x", true), ROW(2, 11, "y", false), PROXY(3), ROW(SELF, 12, "z", true));
	expect_told("moved:x@2 moved:y@2");
	i = instance("x");
	assert_int_equal(i->state, EVP_INSTANCE_READY);
	assert_int_equal(i->proxy_id, 2);
	assert_int_equal(instance("y")->state, EVP_INSTANCE_WAITING);
	assert_null(instance("z"));
	assert_string_equal(evp_members_peer(m, 3)->internal, "127.0.0.1:3");
	assert_null(evp_members_peer(m, SELF));
	assert_ptr_equal(pick("Q"), i);

	/* The same again tells nothing and changes nothing. */
	told.changed = 0;
	merge(1, ROW(2, 10, "x", true), ROW(2, 11, "y", false), PROXY(3));
	assert_int_equal(told.changed, 0);
	expect_told("");

	/* Enabled, other names, another address. */
	merge(2, ROW(2, 10, "x", true), {.proxy_id = 2,.internal = "10.0.0.2:1",.session_no = 11,.bundle = "b",.instance = "y",
			.enabled = true,.names = names_qr,.name_count = 3}, PROXY(3));
	assert_int_equal(told.changed, 1);
	assert_int_equal(instance("y")->state, EVP_INSTANCE_READY);
	assert_int_equal(handlers("R"), 1);
	assert_int_equal(handlers("Q"), 2);
	assert_string_equal(evp_members_peer(m, 2)->internal, "10.0.0.2:1");

	/* A session closes, a proxy goes. */
	merge(3, ROW(2, 11, "y", true));
	expect_told("cut:x");
	assert_int_equal(instance("x")->state, EVP_INSTANCE_CUT);
	assert_null(evp_members_peer(m, 3));
	/* A picture that is older than what was seen does not bring it back. */
	merge(4, ROW(2, 11, "y", true), ROW(2, 10, "x", true));
	assert_int_equal(instance("x")->state, EVP_INSTANCE_CUT);
	/* A new session does, at another proxy. */
	merge(5, ROW(2, 11, "y", true), ROW(4, 20, "x", true));
	expect_told("moved:x@4");
	assert_int_equal(instance("x")->state, EVP_INSTANCE_READY);
	/* A third has said hello only: what it handled before waits for it. */
	merge(6, ROW(2, 11, "y", true), {.proxy_id = 4,.internal = "127.0.0.1:4",.session_no = 30,.bundle = "b",.instance = "x"});
	expect_told("cut:x moved:x@4");
	assert_int_equal(instance("x")->state, EVP_INSTANCE_WAITING);
	assert_int_equal(handlers("Q"), 2);
	/* Enabled, it handles what it said. */
	merge(7, ROW(2, 11, "y", true), {.proxy_id = 4,.internal = "127.0.0.1:4",.session_no = 30,.bundle = "b",.instance = "x",
			.enabled = true});
	assert_int_equal(handlers("Q"), 1);
}

static void
test_supersede(void **state)
{
	evp_session_t *older;

	(void) state;
	/* Connected there, then here: while this session has no number it is the newest. */
	merge(0, ROW(2, 10, "i", true));
	told.text[0] = '\0';
	connect_here(0, "i", true, 1);
	expect_told("cut:i");
	merge(2, ROW(2, 10, "i", true));
	assert_ptr_equal(instance("i")->session, SESSION(0));
	evp_members_number(m, SESSION(0), "b", "i", 15);
	merge(3, ROW(2, 10, "i", true));
	assert_ptr_equal(instance("i")->session, SESSION(0));
	expect_told("");
	/* And what it left behind there cannot come back when this one closes. */
	evp_members_close(m, SESSION(0), "b", "i", 4);
	merge(5, ROW(2, 10, "i", true));
	assert_int_equal(instance("i")->state, EVP_INSTANCE_CUT);

	/* Connected here, then there. */
	evp_members_open(m, SESSION(1), "b", "i", 6, &older);
	evp_members_number(m, SESSION(1), "b", "i", 16);
	told.text[0] = '\0';
	merge(7, ROW(3, 17, "i", true));
	expect_told("cut:i moved:i@3 superseded:1@3");
	assert_null(instance("i")->session);
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
	/* The session that was superseded closes behind that. */
	evp_members_close(m, SESSION(1), "b", "i", 8);
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
	assert_int_equal(instance("i")->proxy_id, 3);
	expect_told("");
}

static void
test_own_number_elsewhere(void **state)
{
	(void) state;
	/* A registration whose outcome never came moved our sessions under a number that we do not know. */
	connect_here(0, "i", true, 0);
	evp_members_number(m, SESSION(0), "b", "i", 15);
	told.text[0] = '\0';
	merge(1, ROW(9, 15, "i", true));
	expect_told("");
	assert_ptr_equal(instance("i")->session, SESSION(0));
}

static void
test_link_breaks(void **state)
{
	(void) state;
	merge(0, ROW(2, 10, "i", true));
	evp_members_proxy_found(m, 2);
	told.text[0] = '\0';
	evp_members_proxy_lost(m, 2, 100);
	expect_told("cut:i");
	/* The database still lists it: that alone does not bring it back. */
	merge(200, ROW(2, 10, "i", true));
	assert_int_equal(instance("i")->state, EVP_INSTANCE_CUT);
	/* Another attempt that fails cuts nothing and does not begin the time anew. */
	evp_members_proxy_lost(m, 2, 3000);
	expect_told("");
	evp_members_proxy_found(m, 2);
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
	expect_told("");

	/* It stays broken: gone, and not there again with the next picture, until the link is. */
	evp_members_proxy_lost(m, 2, 10000);
	told.text[0] = '\0';
	evp_members_proxy_lost(m, 2, 14000);
	expire(10000 + CUT_MS);
	expect_told("gone:i");
	merge(15001, ROW(2, 10, "i", true), ROW(2, 11, "j", true));
	assert_null(instance("i"));
	assert_null(instance("j"));
	evp_members_proxy_found(m, 2);
	merge(15002, ROW(2, 10, "i", true), ROW(2, 11, "j", true));
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
	assert_int_equal(instance("j")->state, EVP_INSTANCE_READY);
}

static void
test_reconnects_elsewhere(void **state)
{
	(void) state;
	merge(0, ROW(2, 10, "i", true), PROXY(3));
	evp_members_proxy_found(m, 2);
	evp_members_proxy_lost(m, 2, 100);
	told.text[0] = '\0';
	merge(600, ROW(3, 12, "i", true), PROXY(2));
	expect_told("moved:i@3");
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
	/* The broken proxy's link comes back: nothing of it is there any more. */
	evp_members_proxy_found(m, 2);
	assert_int_equal(instance("i")->proxy_id, 3);
	/* A session that is new at a proxy whose link is broken waits for the link. */
	evp_members_proxy_lost(m, 2, 700);
	merge(800, ROW(2, 13, "i", true), PROXY(3));
	assert_int_equal(instance("i")->state, EVP_INSTANCE_CUT);
	evp_members_proxy_found(m, 2);
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
}

static void
test_told_by_proxy(void **state)
{
	evp_instance_t *i;

	(void) state;
	merge(0, ROW(2, 10, "i", true));
	i = instance("i");
	told.text[0] = '\0';
	/* About another session, or another proxy: nothing. */
	evp_members_session_lost(m, i, 2, 9, 1);
	evp_members_session_lost(m, i, 3, 10, 1);
	evp_members_session_waiting(m, i, 2, 9);
	assert_int_equal(i->state, EVP_INSTANCE_READY);
	/* It takes no requests just now; the next picture knows. */
	evp_members_session_waiting(m, i, 2, 10);
	assert_int_equal(i->state, EVP_INSTANCE_WAITING);
	expect_told("");
	merge(2, ROW(2, 10, "i", true));
	assert_int_equal(i->state, EVP_INSTANCE_READY);
	/* It is over: no picture brings that session back. */
	evp_members_session_lost(m, i, 2, 10, 3);
	expect_told("cut:i");
	merge(4, ROW(2, 10, "i", true));
	assert_int_equal(i->state, EVP_INSTANCE_CUT);
	evp_members_proxy_found(m, 2);
	assert_int_equal(i->state, EVP_INSTANCE_CUT);
	merge(5, ROW(2, 11, "i", true));
	assert_int_equal(i->state, EVP_INSTANCE_READY);
}

static void
test_database_returns(void **state)
{
	(void) state;
	/* A picture lacks a proxy that a link reaches: it may not have registered anew yet. */
	merge(0, ROW(2, 10, "i", true));
	evp_members_proxy_found(m, 2);
	told.text[0] = '\0';
	merge(1000, PROXY(3));
	expect_told("");
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
	/* It does, and says so over the link before the database shows it. */
	evp_members_proxy_renamed(m, 2, 7);
	assert_null(evp_members_peer(m, 2));
	assert_true(evp_members_peer(m, 7)->linked);
	assert_string_equal(evp_members_peer(m, 7)->internal, "127.0.0.1:2");
	merge(1100, ROW(7, 10, "i", true), PROXY(3));
	expect_told("");
	assert_int_equal(instance("i")->proxy_id, 7);
	expire(1000 + 2 * CUT_MS);
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
	/* A picture from before that changes nothing. */
	merge(1200, ROW(2, 10, "i", true), PROXY(3));
	expect_told("");
	assert_int_equal(instance("i")->proxy_id, 7);
	merge(1300, ROW(7, 10, "i", true), PROXY(3));

	/* One that does not register again is lost after its time. */
	merge(20000, PROXY(3));
	expire(20000 + CUT_MS - 1);
	expect_told("");
	expire(20000 + CUT_MS);
	expect_told("cut:i");
	assert_null(evp_members_peer(m, 7));
}

static void
test_renamed_after_picture(void **state)
{
	(void) state;
	merge(0, ROW(2, 10, "i", true));
	evp_members_proxy_found(m, 2);
	told.text[0] = '\0';
	/* The database was faster than the link: the link that stands is the one that counts. */
	merge(1000, ROW(7, 10, "i", true));
	expect_told("");
	assert_int_equal(instance("i")->proxy_id, 2);
	evp_members_proxy_renamed(m, 2, 7);
	assert_int_equal(instance("i")->proxy_id, 7);
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
	assert_true(evp_members_peer(m, 7)->linked);
	/* Without a link the picture is believed. */
	evp_members_proxy_lost(m, 7, 2000);
	told.text[0] = '\0';
	merge(2100, ROW(8, 10, "i", true));
	expect_told("");
	assert_int_equal(instance("i")->proxy_id, 8);
	assert_int_equal(instance("i")->state, EVP_INSTANCE_READY);
}

static void
test_pick(void **state)
{
	evp_instance_t *first;
	evp_instance_t *second;

	(void) state;
	merge(0, ROW(2, 10, "r1", true), ROW(3, 11, "r2", true), ROW(3, 12, "r3", false));
	/* In turn among equals. */
	first = pick("Q");
	second = pick("Q");
	assert_ptr_not_equal(first, second);
	assert_ptr_equal(pick("Q"), first);
	assert_ptr_equal(pick("Q"), second);
	/* The one with less to do. */
	first->open = 2;
	second->open = 1;
	assert_ptr_equal(pick("Q"), second);
	assert_ptr_equal(pick("Q"), second);
	/* One that is here before equals elsewhere, not before one with less to do. */
	connect_here(0, "here", true, 1);
	assert_ptr_equal(pick("Q"), instance("here"));
	instance("here")->open = 1;
	assert_ptr_equal(pick("Q"), instance("here"));
	instance("here")->open = 2;
	assert_ptr_equal(pick("Q"), second);
	/* Only those that are ready. */
	evp_members_proxy_lost(m, second->proxy_id, 2);
	evp_members_close(m, SESSION(0), "b", "here", 3);
	assert_ptr_equal(pick("Q"), first);
	assert_int_equal(handlers("Q"), 4);
	assert_null(pick("Nothing"));
}

/* One that lets calls run out of their time is asked after others, and once in a while to see whether it answers. */
static void
test_unanswered(void **state)
{
	static const uint64_t waits[] = {1000, 2000, 4000, AVOID_MS, AVOID_MS};
	evp_instance_t *silent;
	evp_instance_t *other;
	uint64_t	now = 100;

	(void) state;
	merge(0, ROW(2, 10, "silent", true), ROW(3, 11, "other", true));
	silent = instance("silent");
	other = instance("other");
	/* Though it has less to do. */
	other->open = 50;
	assert_ptr_equal(pick_at("Q", now), silent);
	assert_true(evp_members_unanswered(m, silent, now));
	for (size_t k = 0; k < sizeof waits / sizeof *waits; k++)
	{
		/* Others that run out change nothing. */
		assert_false(evp_members_unanswered(m, silent, now + 1));
		assert_ptr_equal(pick_at("Q", now), other);
		now += waits[k];
		assert_ptr_equal(pick_at("Q", now - 1), other);
		/* One call, and then others again. */
		assert_ptr_equal(pick_at("Q", now), silent);
	}
	/* Not by one that cannot be asked. */
	evp_members_proxy_lost(m, 3, now);
	assert_ptr_equal(pick_at("Q", now), silent);
	evp_members_proxy_found(m, 3);
	assert_ptr_equal(pick_at("Q", now), other);
	/* One that does not answer either: as without all that. */
	assert_true(evp_members_unanswered(m, other, now));
	assert_ptr_equal(pick_at("Q", now), silent);
	evp_members_answered(other);
	assert_ptr_equal(pick_at("Q", now), other);
	evp_members_answered(silent);
	assert_ptr_equal(pick_at("Q", now), silent);
	/* A new session begins anew, here and elsewhere. */
	assert_true(evp_members_unanswered(m, silent, now));
	merge(now, ROW(2, 12, "silent", true), ROW(3, 11, "other", true));
	assert_ptr_equal(pick_at("Q", now), silent);
	assert_true(evp_members_unanswered(m, silent, now));
	connect_here(0, "silent", true, now);
	assert_ptr_equal(pick_at("Q", now), silent);
}

/* Names with parts in common, and an empty one, are told apart. */
static void
test_keys(void **state)
{
	evp_session_t *older;

	(void) state;
	evp_members_open(m, SESSION(0), "a", "bc", 0, &older);
	evp_members_open(m, SESSION(1), "ab", "c", 0, &older);
	assert_null(older);
	assert_ptr_equal(evp_members_instance(m, "a", "bc")->session, SESSION(0));
	assert_ptr_equal(evp_members_instance(m, "ab", "c")->session, SESSION(1));
	assert_null(evp_members_instance(m, "abc", ""));
	/* Each proxy once, however one goes through them. */
	merge(0, PROXY(2), PROXY(3), PROXY(4));
	int			n = 0;

	for (const evp_peer_t *p = evp_members_next_peer(m, NULL); p != NULL; p = evp_members_next_peer(m, p))
		n++;
	assert_int_equal(n, 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_local),
		TEST(test_newer_session_here),
		TEST(test_picture),
		TEST(test_supersede),
		TEST(test_own_number_elsewhere),
		TEST(test_link_breaks),
		TEST(test_reconnects_elsewhere),
		TEST(test_told_by_proxy),
		TEST(test_database_returns),
		TEST(test_renamed_after_picture),
		TEST(test_pick),
		TEST(test_unanswered),
		TEST(test_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
