/*
 * sums_test.c
 *    Sums of what bundles tell of their handlers.
 */
#include <stdio.h>

#include "unit.h"

#include "sums.h"

static bool
add(evp_sums_t *s, const char *bundle, int64_t version, const char *component, const char *action, const char *invoked, int64_t count, int64_t ms)
{
	evp_sum_t	sum = {.bundle = evp_slice_str(bundle),.version = version,.component = evp_slice_str(component),.action = evp_slice_str(action),
	.invoked = evp_slice_str(invoked),.count = count,.timed = ms > 0,.total_ms = ms,.max_ms = ms};

	return evp_sums_add(s, &sum);
}

static char taken[2000];

static void
on_sum(void *arg, const evp_sum_t *s)
{
	(void) arg;
	snprintf(taken + strlen(taken), sizeof(taken) - strlen(taken), "%.*s/%lld/%.*s/%.*s/%.*s %lld %lld %lld %lld\n", (int) s->bundle.n, (const char *) s->bundle.p,
			 (long long) s->version, (int) s->component.n, (const char *) s->component.p, (int) s->action.n, (const char *) s->action.p,
			 (int) s->invoked.n, (const char *) s->invoked.p, (long long) s->count, (long long) s->timed, (long long) s->total_ms, (long long) s->max_ms);
}

static void
test_sums(void **state)
{
	evp_sums_t *s = evp_sums_new(10);

	(void) state;
	assert_true(add(s, "b", 1, "C", "A", "", 1, 5));
	assert_true(add(s, "b", 1, "C", "A", "", 1, 9));
	assert_true(add(s, "b", 1, "C", "A", "", 1, 7));
	assert_true(add(s, "b", 1, "C", "A", "X", 4, 0));
	assert_true(add(s, "b", 2, "C", "A", "", 1, 0));
	/* The same letters, divided otherwise. */
	assert_true(add(s, "bC", 1, "", "A", "", 1, 1));
	assert_true(add(s, "b", 1, "CA", "", "", 1, 2));
	assert_int_equal(evp_sums_count(s), 5);
	taken[0] = '\0';
	assert_int_equal(evp_sums_take(s, 2, on_sum, NULL), 2);
	assert_string_equal(taken, "b/1/C/A/ 3 3 21 9\nb/1/C/A/X 4 0 0 0\n");
	assert_int_equal(evp_sums_count(s), 3);
	/* What was taken begins anew, behind the others. */
	assert_true(add(s, "b", 1, "C", "A", "", 1, 4));
	taken[0] = '\0';
	assert_int_equal(evp_sums_take(s, 100, on_sum, NULL), 4);
	assert_string_equal(taken, "b/2/C/A/ 1 0 0 0\nbC/1//A/ 1 1 1 1\nb/1/CA// 1 1 2 2\nb/1/C/A/ 1 1 4 4\n");
	assert_int_equal(evp_sums_take(s, 100, on_sum, NULL), 0);
	assert_int_equal(evp_sums_count(s), 0);
	evp_sums_free(s);
}

static void
test_bound(void **state)
{
	evp_sums_t *s = evp_sums_new(3);
	char		name[8];

	(void) state;
	for (int i = 0; i < 10; i++)
	{
		snprintf(name, sizeof(name), "A%d", i);
		assert_int_equal(add(s, "b", 1, "C", name, "", 1, 1), i < 3);
	}
	assert_true(add(s, "b", 1, "C", "A2", "", 1, 1));
	taken[0] = '\0';
	assert_int_equal(evp_sums_take(s, 1, on_sum, NULL), 1);
	/* What is known is remembered when it is zero, until that is to be forgotten. */
	assert_false(add(s, "b", 1, "C", "A9", "", 1, 1));
	evp_sums_forget(s);
	assert_true(add(s, "b", 1, "C", "A9", "", 1, 1));
	assert_false(add(s, "b", 1, "C", "A8", "", 1, 1));
	taken[0] = '\0';
	assert_int_equal(evp_sums_take(s, 10, on_sum, NULL), 3);
	assert_string_equal(taken, "b/1/C/A1/ 1 1 1 1\nb/1/C/A2/ 2 2 2 1\nb/1/C/A9/ 1 1 1 1\n");
	evp_sums_free(s);
	evp_sums_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sums),
		cmocka_unit_test(test_bound),
	};

	return cmocka_run_group_tests_name("sums", tests, NULL, NULL);
}
