/*
 * stories_test.c
 *    Stories that are kept.
 */
#include <stdio.h>

#include "graph.h"
#include "stories.h"
#include "unit.h"

static const evp_event_t event = {.type = {.p = (const uint8_t *) "T",.n = 1},.data = {.p = (const uint8_t *) "{}",.n = 2},.timestamp_ms = 1};

static evp_kept_story_t *
put(evp_stories_t *stories, const char *stream, int64_t head, size_t bytes, uint64_t now)
{
	evp_buf_t	state,
				events;
	evp_kept_story_t *kept;

	evp_buf_init(&state, SIZE_MAX);
	evp_buf_init(&events, SIZE_MAX);
	evp_buf_append_str(&state, "state");
	memset(evp_buf_reserve(&events, bytes), 'e', bytes);
	events.len = bytes;
	kept = evp_stories_put(stories, evp_slice_str(stream), head, &state, &events, now);
	if (kept != NULL)
		assert_int_equal(state.len + events.len, 0);
	else
		assert_int_equal(events.len, bytes);
	evp_buf_free(&state);
	evp_buf_free(&events);
	return kept;
}

static const evp_kept_story_t *
find(evp_stories_t *stories, const char *stream, uint64_t now)
{
	return evp_stories_find(stories, evp_slice_str(stream), now);
}

static void
test_put(void **state)
{
	evp_stories_t *stories = evp_stories_new(1000000, 1000);
	const evp_kept_story_t *kept;

	(void) state;
	assert_null(find(stories, "a", 0));
	put(stories, "a", 3, 10, 100);
	put(stories, "ab", 4, 10, 100);
	assert_int_equal(find(stories, "a", 100)->head, 3);
	assert_int_equal(find(stories, "ab", 100)->head, 4);
	assert_null(find(stories, "b", 100));
	put(stories, "a", 7, 20, 100);
	kept = find(stories, "a", 100);
	assert_int_equal(kept->head, 7);
	assert_int_equal(kept->events.len, 20);
	assert_memory_equal(kept->state.data, "state", 5);
	assert_int_equal(evp_stories_count(stories), 2);

	/* It lives as long as was said, whatever is added. */
	assert_non_null(find(stories, "a", 1100));
	assert_null(find(stories, "a", 1101));
	assert_int_equal(evp_stories_count(stories), 1);
	evp_stories_drop(stories, evp_slice_str("ab"));
	evp_stories_drop(stories, evp_slice_str("ab"));
	assert_int_equal(evp_stories_count(stories), 0);
	assert_int_equal(evp_stories_bytes(stories), 0);
	evp_stories_free(stories);
}

static void
test_add(void **state)
{
	evp_stories_t *stories = evp_stories_new(1000000, 1000);
	const evp_snapshot_t snapshot = {.klass = evp_slice_str("shop.S"),.state = evp_slice_str("{\"s\":1}")};
	const evp_kept_story_t *kept;
	evp_buf_t	expected;

	(void) state;
	/* To a story that is not kept: nothing. */
	evp_stories_add(stories, evp_slice_str("a"), &event, NULL);
	assert_int_equal(evp_stories_count(stories), 0);

	put(stories, "a", 3, 0, 0);
	evp_stories_add(stories, evp_slice_str("a"), &event, NULL);
	evp_stories_add(stories, evp_slice_str("a"), &event, NULL);
	kept = find(stories, "a", 0);
	assert_int_equal(kept->head, 5);
	evp_buf_init(&expected, SIZE_MAX);
	evp_graph_put_event(&expected, &event);
	evp_graph_put_event(&expected, &event);
	assert_int_equal(kept->events.len, expected.len);
	assert_memory_equal(kept->events.data, expected.data, expected.len);
	assert_memory_equal(kept->state.data, "state", 5);

	/* A state takes the place of all that led to it. */
	evp_stories_add(stories, evp_slice_str("a"), &event, &snapshot);
	kept = find(stories, "a", 0);
	assert_int_equal(kept->head, 6);
	assert_int_equal(kept->events.len, 0);
	evp_buf_reset(&expected);
	evp_graph_put_state(&expected, &snapshot);
	assert_int_equal(kept->state.len, expected.len);
	assert_memory_equal(kept->state.data, expected.data, expected.len);
	evp_buf_free(&expected);
	evp_stories_free(stories);
}

static void
test_bounds(void **state)
{
	evp_stories_t *stories = evp_stories_new(100000, 1000);
	char		name[20];
	size_t		n;

	(void) state;
	/* One that would take more than an eighth of all is not kept, nor is what was before it. */
	assert_non_null(put(stories, "large", 1, 1000, 0));
	assert_null(put(stories, "large", 2, 13000, 0));
	assert_null(find(stories, "large", 0));

	for (int i = 0; i < 1000; i++)
	{
		snprintf(name, sizeof(name), "s-%d", i);
		assert_non_null(put(stories, name, i, 500, 0));
		/* The one that is used all the time stays. */
		if (i > 0)
			assert_non_null(find(stories, "s-0", 0));
		assert_true(evp_stories_bytes(stories) <= 100000);
	}
	n = evp_stories_count(stories);
	assert_true(n > 50 && n < 300);
	assert_non_null(find(stories, "s-999", 0));
	assert_null(find(stories, "s-1", 0));

	/* One that grows too large goes. */
	for (int i = 0; i < 1000 && find(stories, "s-0", 0) != NULL; i++)
		evp_stories_add(stories, evp_slice_str("s-0"), &event, NULL);
	assert_null(find(stories, "s-0", 0));
	assert_true(evp_stories_bytes(stories) <= 100000);
	evp_stories_clear(stories);
	assert_int_equal(evp_stories_count(stories), 0);
	assert_int_equal(evp_stories_bytes(stories), 0);
	evp_stories_free(stories);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_put),
		cmocka_unit_test(test_add),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests_name("stories", tests, NULL, NULL);
}
