/*
 * fair_test.c
 *    Turns: who floods waits behind himself, the order of each is kept, and
 *    nothing is lost, with few sources and with many.
 */
#include "unit.h"

#include <stdlib.h>

#include "fair.h"

#define SOURCES 40
#define ITEMS	5000

typedef struct item
{
	evp_fair_item_t turn;
	uint64_t	source;
	unsigned	number;			/* in the order in which those of its source were put in */
	bool		waits;
} item_t;

static item_t *
first(const evp_fair_t *fair)
{
	evp_fair_item_t *turn = evp_fair_first(fair);

	return turn != NULL ? EVP_FAIR_OF(turn, item_t, turn) : NULL;
}

/* Takes the next out, and ends its turn. */
static item_t *
next(evp_fair_t *fair)
{
	item_t	   *item = first(fair);

	evp_fair_remove(fair, &item->turn);
	evp_fair_pass(fair, item->source);
	return item;
}

static void
put(evp_fair_t *fair, item_t *item, uint64_t source, unsigned number)
{
	*item = (item_t) {.source = source,.number = number,.waits = true};
	evp_fair_put(fair, source, &item->turn);
}

static void
test_flood(void **state)
{
	static item_t flood[1000];
	item_t		quiet[3];
	evp_fair_t	fair = {0};

	(void) state;
	assert_null(first(&fair));
	for (unsigned i = 0; i < 1000; i++)
		put(&fair, &flood[i], 7, i);
	for (unsigned i = 0; i < 3; i++)
		put(&fair, &quiet[i], 8, i);
	assert_int_equal(fair.count, 1003);
	for (unsigned i = 0; i < 3; i++)
	{
		assert_ptr_equal(next(&fair), &flood[i]);
		assert_ptr_equal(next(&fair), &quiet[i]);
	}
	for (unsigned i = 3; i < 1000; i++)
		assert_ptr_equal(next(&fair), &flood[i]);
	assert_null(first(&fair));
	assert_int_equal(fair.count, 0);
}

static void
test_turn(void **state)
{
	item_t		a[3],
				b[2];
	evp_fair_t	fair = {0};

	(void) state;
	for (unsigned i = 0; i < 3; i++)
		put(&fair, &a[i], 1, i);
	put(&fair, &b[0], 2, 0);
	/* The turn stays until it is passed, and only its owner can pass it. */
	evp_fair_remove(&fair, &a[0].turn);
	assert_ptr_equal(first(&fair), &a[1]);
	evp_fair_pass(&fair, 2);
	assert_ptr_equal(first(&fair), &a[1]);
	evp_fair_pass(&fair, 1);
	assert_ptr_equal(first(&fair), &b[0]);
	/* Before all others. */
	b[1] = (item_t) {.source = 2,.number = 1};
	evp_fair_put_first(&fair, 2, &b[1].turn);
	evp_fair_remove(&fair, &a[1].turn);
	evp_fair_put_first(&fair, 1, &a[1].turn);
	assert_ptr_equal(next(&fair), &a[1]);
	assert_ptr_equal(next(&fair), &b[1]);
	assert_ptr_equal(next(&fair), &a[2]);
	assert_ptr_equal(next(&fair), &b[0]);
	assert_null(first(&fair));
}

static void
test_random(void **state)
{
	static item_t items[ITEMS];
	evp_fair_t	fair = {0};
	unsigned	put_in[SOURCES] = {0},
				waiting[SOURCES] = {0};
	int			last[SOURCES];
	uint64_t	rounds[SOURCES] = {0},
				random = 42,
				round = 0;
	size_t		n = 0;

	(void) state;
	for (int i = 0; i < SOURCES; i++)
		last[i] = -1;
	while (n < ITEMS || fair.count > 0)
	{
		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		if (n < ITEMS && random >> 33 & 1)
		{
			/* Some flood. */
			uint64_t	source = (random >> 40) % 4 == 0 ? (random >> 48) % SOURCES : (random >> 48) % 2;

			put(&fair, &items[n++], source, put_in[source]++);
			if (waiting[source]++ == 0)
				rounds[source] = round;
		}
		else if (fair.count > 0 && (random >> 34) % 8 == 0)
		{
			/* One whose time is up, wherever it is. */
			item_t	   *item = &items[(random >> 40) % n];

			if (!item->waits)
				continue;
			item->waits = false;
			evp_fair_remove(&fair, &item->turn);
			waiting[item->source]--;
		}
		else if (fair.count > 0)
		{
			item_t	   *item = next(&fair);

			assert_true(item->waits && (int) item->number > last[item->source]);
			item->waits = false;
			last[item->source] = (int) item->number;
			waiting[item->source]--;
			/* Since its last turn, every other source had one at most. */
			assert_in_range(++round - rounds[item->source], 0, SOURCES);
			rounds[item->source] = round;
		}
		if (random % 97 == 0)
		{
			size_t		seen = 0;

			for (evp_fair_item_t *turn = evp_fair_first(&fair); turn != NULL; turn = evp_fair_after(turn))
				seen += EVP_FAIR_OF(turn, item_t, turn)->waits;
			assert_int_equal(seen, fair.count);
		}
	}
	assert_null(first(&fair));
	assert_null(fair.table);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_turn),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
