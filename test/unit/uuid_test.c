/*
 * uuid_test.c
 *    UUIDs: random, derived, text.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

#include "uuid.h"

/* RFC 4122's namespace of DNS names, and the version 5 UUID of www.example.com in it. */
static const uint8_t dns[16] = {0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};

static void
test_v5(void **state)
{
	uint8_t		id[16];
	char		text[EVP_UUID_TEXT_LEN + 1];

	(void) state;
	evp_uuid_v5(dns, "www.example.com", 15, id);
	evp_uuid_format(id, text);
	assert_string_equal(text, "2ed6657d-e927-568b-95e1-2665a8aea6a2");
}

static void
test_v4(void **state)
{
	uint8_t		ids[200][16];

	(void) state;
	for (int i = 0; i < 200; i++)
	{
		evp_uuid_v4(ids[i]);
		assert_int_equal(ids[i][6] >> 4, 4);
		assert_int_equal(ids[i][8] >> 6, 2);
		for (int j = 0; j < i; j++)
			assert_memory_not_equal(ids[j], ids[i], 16);
	}
}

/* What one process draws, the child of another does not. */
static void
test_v4_fork(void **state)
{
	uint8_t		ours[16];
	uint8_t		theirs[16];
	int			ends[2];
	pid_t		pid;

	(void) state;
	evp_uuid_v4(ours);
	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	evp_uuid_v4(ours);
	if (pid == 0)
		_exit(write(ends[1], ours, 16) == 16 ? 0 : 1);
	assert_int_equal(read(ends[0], theirs, 16), 16);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(ends[0]);
	close(ends[1]);
	assert_memory_not_equal(ours, theirs, 16);
}

static void
test_text(void **state)
{
	uint8_t		id[16] = {0};
	char		text[EVP_UUID_TEXT_LEN + 1];

	(void) state;
	assert_true(evp_uuid_parse("33EC6a6c-0dff-454d-940c-b5716c30eddd", 36, id));
	evp_uuid_format(id, text);
	assert_string_equal(text, "33ec6a6c-0dff-454d-940c-b5716c30eddd");
	assert_false(evp_uuid_parse("33ec6a6c-0dff-454d-940c-b5716c30edd", 35, id));
	assert_false(evp_uuid_parse("33ec6a6c-0dff-454d-940c_b5716c30eddd", 36, id));
	assert_false(evp_uuid_parse("33ec6a6c-0dff-454d-940c-b5716c30eddg", 36, id));
	assert_int_equal(id[0], 0x33);	/* untouched by what failed */
}

static void
test_event_id(void **state)
{
	uint8_t		correlation[16] = "0123456789abcde";
	uint8_t		other[16] = "0123456789abcdf";
	uint8_t		ids[7][16];
	char		text[EVP_UUID_TEXT_LEN + 1];

	(void) state;
	evp_uuid_event_id(evp_slice_str("bundle"), evp_slice_str("one"), correlation, evp_slice_str("s"), ids[0]);
	evp_uuid_event_id(evp_slice_str("bundl"), evp_slice_str("eone"), correlation, evp_slice_str("s"), ids[1]);
	evp_uuid_event_id(evp_slice_str("bundle"), evp_slice_str("one"), other, evp_slice_str("s"), ids[2]);
	evp_uuid_event_id(evp_slice_str("bundle"), evp_slice_str("one"), correlation, evp_slice_str("t"), ids[3]);
	evp_uuid_event_id(evp_slice_str("bundle"), evp_slice_str("one"), correlation, evp_slice_str(NULL), ids[4]);
	evp_uuid_event_id(evp_slice_str("bundle"), evp_slice_str("one"), correlation, evp_slice_str(""), ids[5]);
	evp_uuid_event_id(evp_slice_str("bundle"), evp_slice_str("two"), correlation, evp_slice_str("s"), ids[6]);
	for (int i = 0; i < 7; i++)
	{
		assert_int_equal(ids[i][6] >> 4, 5);
		for (int j = 0; j < i; j++)
			assert_memory_not_equal(ids[i], ids[j], 16);
	}
	evp_uuid_event_id(evp_slice_str("bundle"), evp_slice_str("one"), correlation, evp_slice_str("s"), ids[1]);
	assert_memory_equal(ids[0], ids[1], 16);
	/* Ids are in logs: how they are derived may never change. */
	evp_uuid_format(ids[0], text);
	assert_string_equal(text, "1abf3f14-4d52-5e54-a218-f3f3c66305a3");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v5),
		cmocka_unit_test(test_v4),
		cmocka_unit_test(test_v4_fork),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_event_id),
	};

	return cmocka_run_group_tests_name("uuid", tests, NULL, NULL);
}
