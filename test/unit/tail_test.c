/*
 * tail_test.c
 *    The newest events in memory.
 */
#include "tail.h"
#include "unit.h"

static evp_event_t
event_at(int64_t position, const char *data)
{
	return (evp_event_t) {.position = position,.type = evp_slice_str("T"),.context = evp_slice_str("default"),.data = evp_slice_str(data)};
}

static void
add(evp_tail_t *tail, int64_t position, const char *data, uint64_t now)
{
	evp_event_t event = event_at(position, data);

	evp_tail_add(tail, &event, now);
}

static int64_t
next(const evp_tail_t *tail, int64_t position)
{
	const evp_event_t *event = evp_tail_next(tail, position);

	return event == NULL ? 0 : event->position;
}

static void
test_range(void **state)
{
	evp_tail_t	tail;

	(void) state;
	evp_tail_init(&tail, 1000000);
	assert_false(evp_tail_covers(&tail, 0));
	add(&tail, 1, "before it is started", 0);
	assert_int_equal(tail.count, 0);

	evp_tail_start(&tail, 10);
	assert_false(evp_tail_covers(&tail, 9));
	assert_true(evp_tail_covers(&tail, 10));
	assert_true(evp_tail_covers(&tail, 99));
	assert_null(evp_tail_next(&tail, 10));
	add(&tail, 12, "a", 1);
	add(&tail, 15, "b", 2);
	add(&tail, 15, "again", 2);
	add(&tail, 13, "late", 2);
	assert_int_equal(tail.count, 2);
	assert_int_equal(next(&tail, 10), 12);
	assert_int_equal(next(&tail, 11), 12);
	assert_int_equal(next(&tail, 12), 15);
	assert_int_equal(next(&tail, 14), 15);
	assert_int_equal(next(&tail, 15), 0);
	evp_tail_reach(&tail, 20);
	assert_int_equal(tail.to, 20);
	evp_tail_reach(&tail, 18);
	assert_int_equal(tail.to, 20);
	add(&tail, 19, "below what was reached", 3);
	assert_int_equal(next(&tail, 15), 0);
	evp_tail_free(&tail);
	assert_false(evp_tail_covers(&tail, 99));
}

static void
test_copies(void **state)
{
	char		text[] = "{\"a\":1}";
	evp_event_t event = event_at(1, text);
	evp_tail_t	tail;
	const evp_event_t *copy;

	(void) state;
	event.version = 7;
	event.stream = evp_slice_str("s");
	event.metadata = evp_slice_of("", 0);
	evp_tail_init(&tail, 1000000);
	evp_tail_start(&tail, 0);
	evp_tail_add(&tail, &event, 0);
	memset(text, 'x', strlen(text));
	copy = evp_tail_next(&tail, 0);
	assert_true(evp_slice_is(copy->data, "{\"a\":1}"));
	assert_true(evp_slice_is(copy->stream, "s"));
	assert_true(evp_slice_is(copy->context, "default"));
	assert_int_equal(copy->version, 7);
	assert_true(evp_slice_is_null(copy->klass));
	assert_false(evp_slice_is_null(copy->metadata));
	evp_tail_free(&tail);
}

/* The oldest go, and the tail never says it covers what it has let go. */
static void
test_bounds(void **state)
{
	static char large[1001];
	evp_tail_t	tail;

	(void) state;
	memset(large, 'x', 1000);
	evp_tail_init(&tail, 10000);
	evp_tail_start(&tail, 0);
	for (int64_t i = 1; i <= 1000; i++)
	{
		add(&tail, i, large, (uint64_t) i);
		assert_true(tail.bytes <= 10000);
		for (int64_t p = tail.from; p < i; p++)
			assert_int_equal(next(&tail, p), p + 1);
	}
	assert_true(tail.count >= 5);
	assert_true(tail.from > 900);
	assert_false(evp_tail_covers(&tail, tail.from - 1));

	evp_tail_trim(&tail, 998);
	assert_int_equal(tail.from, 997);
	assert_int_equal(tail.count, 3);
	evp_tail_trim(&tail, 5000);
	assert_int_equal(tail.from, 1000);
	assert_int_equal(tail.count, 0);
	assert_int_equal(tail.bytes, 0);

	/* One that has no room at all is not in it, nor is what came before. */
	add(&tail, 1001, "small", 0);
	tail.max_bytes = 500;
	add(&tail, 1002, large, 0);
	assert_int_equal(tail.count, 0);
	assert_false(evp_tail_covers(&tail, 1001));
	assert_true(evp_tail_covers(&tail, 1002));
	evp_tail_free(&tail);
}

static void
test_match(void **state)
{
	static const struct
	{
		const char *pattern;
		const char *text;
		bool		match;
	}			cases[] = {
		{"*", "", true}, {"*", "anything", true}, {"**", "x", true}, {"a", "a", true}, {"a", "b", false}, {"a", "aa", false}, {"a", "", false},
		{"", "", true}, {"", "a", false}, {"a*", "a", true}, {"a*", "abc", true}, {"a*", "ba", false}, {"*a", "ba", true}, {"*a", "bab", false},
		{"*a*b*", "xaxb", true}, {"*a*b*", "ba", false}, {"a*c", "abcbc", true}, {"a*c", "abcb", false}, {"*ab", "aab", true},
		{"a%", "ab", false}, {"a?", "ab", false}, {"\xc3\xa9*", "\xc3\xa9t\xc3\xa9", true},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (evp_tail_match(evp_slice_str(cases[i].pattern), evp_slice_str(cases[i].text)) != cases[i].match)
			fail_msg("pattern \"%s\", text \"%s\"", cases[i].pattern, cases[i].text);

	/* Many stars take no time that grows with their number. */
	assert_false(evp_tail_match(evp_slice_str("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"),
								evp_slice_str("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")));
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_range),
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_match),
	};

	return cmocka_run_group_tests_name("tail", tests, NULL, NULL);
}
