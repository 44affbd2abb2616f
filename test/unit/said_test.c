/*
 * said_test.c
 *    What was last said of each of some places.
 */
#include <stdio.h>

#include "said.h"
#include "unit.h"

static void
test_news(void **state)
{
	evp_said_t	said = {0};

	(void) state;
	assert_true(evp_said_news(&said, "a", "refused"));
	assert_false(evp_said_news(&said, "a", "refused"));
	/* In turn with another place, neither is news again. */
	assert_true(evp_said_news(&said, "b", "refused"));
	for (int i = 0; i < 10; i++)
	{
		assert_false(evp_said_news(&said, "a", "refused"));
		assert_false(evp_said_news(&said, "b", "refused"));
	}
	/* What changes is, and what changes back. */
	assert_true(evp_said_news(&said, "a", "starting up"));
	assert_true(evp_said_news(&said, "a", "refused"));
	assert_false(evp_said_news(&said, "b", "refused"));
	assert_true(evp_said_news(&said, "", ""));
	assert_false(evp_said_news(&said, "", ""));
	evp_said_forget(&said);
	assert_true(evp_said_news(&said, "a", "refused"));
	assert_true(evp_said_news(&said, "b", "refused"));
}

static void
test_many_places(void **state)
{
	evp_said_t	said = {0};
	char		place[20];

	(void) state;
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < EVP_SAID_PLACES; i++)
		{
			snprintf(place, sizeof(place), "%d", i);
			assert_int_equal(evp_said_news(&said, place, "refused"), round == 0);
		}
	/* One more, and the first is forgotten, the others are not. */
	assert_true(evp_said_news(&said, "more", "refused"));
	assert_false(evp_said_news(&said, "1", "refused"));
	assert_true(evp_said_news(&said, "0", "refused"));
	assert_false(evp_said_news(&said, "more", "refused"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_news),
		cmocka_unit_test(test_many_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
