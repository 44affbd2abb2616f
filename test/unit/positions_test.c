/*
 * positions_test.c
 *    How far the log was looked at for each consumer.
 */
#include <stdio.h>

#include "positions.h"
#include "unit.h"

static evp_consumer_key_t
key_of(const char *bundle, const char *component)
{
	return (evp_consumer_key_t) {{evp_slice_str(bundle), evp_slice_str("i"), evp_slice_str(component), evp_slice_str("*")}};
}

static void
test_positions(void **state)
{
	evp_positions_t *positions = evp_positions_new(3);
	evp_consumer_key_t a = key_of("b", "a"),
				b = key_of("ba", ""),
				c = key_of("b", "c"),
				d = key_of("b", "d");

	(void) state;
	assert_int_equal(evp_positions_get(positions, &a, 5), 5);
	evp_positions_set(positions, &a, 5, 100);
	assert_int_equal(evp_positions_get(positions, &a, 5), 100);
	/* One that asks from elsewhere (it was set back, or has read on) begins there. */
	assert_int_equal(evp_positions_get(positions, &a, 0), 0);
	assert_int_equal(evp_positions_get(positions, &a, 6), 6);
	/* The parts of a key do not run together. */
	assert_int_equal(evp_positions_get(positions, &b, 5), 5);
	evp_positions_set(positions, &b, 5, 200);
	assert_int_equal(evp_positions_get(positions, &a, 5), 100);
	evp_positions_set(positions, &c, 5, 300);

	/* Of more than the bound, the one that was set longest ago goes. */
	evp_positions_set(positions, &a, 5, 400);
	evp_positions_set(positions, &d, 5, 500);
	assert_int_equal(evp_positions_get(positions, &b, 5), 5);
	assert_int_equal(evp_positions_get(positions, &a, 5), 400);
	assert_int_equal(evp_positions_get(positions, &c, 5), 300);
	assert_int_equal(evp_positions_get(positions, &d, 5), 500);
	evp_positions_free(positions);
}

/* A key that is too long is not remembered, and is not mistaken for another. */
static void
test_long_key(void **state)
{
	static char name[5000];
	evp_positions_t *positions = evp_positions_new(3);
	evp_consumer_key_t key = key_of("b", name);

	(void) state;
	memset(name, 'x', sizeof(name) - 1);
	key.part[2] = evp_slice_of(name, sizeof(name) - 1);
	evp_positions_set(positions, &key, 1, 2);
	assert_int_equal(evp_positions_get(positions, &key, 1), 1);
	key = key_of("b", "");
	assert_int_equal(evp_positions_get(positions, &key, 1), 1);
	evp_positions_free(positions);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_positions),
		cmocka_unit_test(test_long_key),
	};

	return cmocka_run_group_tests_name("positions", tests, NULL, NULL);
}
