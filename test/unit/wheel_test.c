/*
 * wheel_test.c
 *    Deadlines: never early, never more than a tick late, in any order.
 */
#include "unit.h"

#include <stdlib.h>

#include "wheel.h"

#define ITEMS 2000

typedef struct item
{
	evp_wheel_item_t wheel;
	uint64_t	due;
	bool		set;
	bool		met;
} item_t;

/* Turns the wheel up to a time; each item that comes must be due, and not long since. */
static size_t
turn(evp_wheel_t *w, uint64_t before, uint64_t now)
{
	evp_wheel_item_t *due;
	size_t		n = 0;

	while ((due = evp_wheel_turn(w, now)) != NULL)
	{
		item_t	   *item = (item_t *) due;

		assert_true(item->set && !item->met);
		assert_true(item->due <= now);
		assert_true(item->due + EVP_WHEEL_TICK_MS > before);
		item->met = true;
		n++;
	}
	return n;
}

static void
test_random(void **state)
{
	static item_t items[ITEMS];
	static evp_wheel_t w;
	uint64_t	random = 42;
	uint64_t	now = 1000003;
	size_t		met = 0;
	size_t		removed = 0;

	(void) state;
	evp_wheel_init(&w, now);
	for (size_t i = 0; i < ITEMS; i++)
	{
		/* Up to three rounds ahead, some in the past. */
		items[i].due = now - 500 + unit_random(&random) % (3 * EVP_WHEEL_SLOTS * EVP_WHEEL_TICK_MS);
		if (items[i].due < now)
			items[i].due = now;
		items[i].set = true;
		evp_wheel_add(&w, &items[i].wheel, items[i].due);
	}
	for (size_t i = 0; i < ITEMS; i += 7)
	{
		evp_wheel_remove(&w, &items[i].wheel);
		evp_wheel_remove(&w, &items[i].wheel);
		items[i].set = false;
		removed++;
	}
	assert_int_equal(w.count, ITEMS - removed);
	while (w.count > 0)
	{
		uint64_t	before = now;

		now += unit_random(&random) % 50;
		met += turn(&w, before - EVP_WHEEL_TICK_MS, now);
		assert_true(now < 1000003 + 4 * EVP_WHEEL_SLOTS * EVP_WHEEL_TICK_MS);
	}
	assert_int_equal(met, ITEMS - removed);
}

static void
test_pause(void **state)
{
	static evp_wheel_t w;
	item_t		a = {.due = 5000,.set = true};
	item_t		b = {.due = 10 * EVP_WHEEL_SLOTS * EVP_WHEEL_TICK_MS,.set = true};

	(void) state;
	evp_wheel_init(&w, 0);
	evp_wheel_add(&w, &a.wheel, a.due);
	evp_wheel_add(&w, &b.wheel, b.due);
	/* Nobody turned it for several rounds. */
	assert_int_equal(turn(&w, 0, b.due - 1), 1);
	assert_true(a.met);
	assert_int_equal(turn(&w, 0, b.due + EVP_WHEEL_TICK_MS), 1);
	assert_true(b.met);
	assert_int_equal(w.count, 0);
}

static void
test_again(void **state)
{
	static evp_wheel_t w;
	item_t		a = {.due = 300,.set = true};

	(void) state;
	evp_wheel_init(&w, 0);
	evp_wheel_add(&w, &a.wheel, 100);
	evp_wheel_add(&w, &a.wheel, a.due);
	assert_int_equal(w.count, 1);
	assert_int_equal(turn(&w, 0, 299), 0);
	assert_int_equal(turn(&w, 0, 300 + EVP_WHEEL_TICK_MS), 1);
	/* What is due already comes with the next turn, not never. */
	a.met = false;
	a.due = 1;
	evp_wheel_add(&w, &a.wheel, a.due);
	assert_ptr_equal(evp_wheel_turn(&w, 400), &a.wheel);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
