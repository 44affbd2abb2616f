/*
 * replay.c
 *    Runs a fuzz target over files and folders as a plain test: each file as
 *    it is, cut at every length up to a bound, and with a fixed number of
 *    changes that are the same in every run.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX	(1024 * 1024)
#define CUTS_MAX	512
#define CHANGES		200

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t runs;

static uint64_t
next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* One run over a block of exactly this size, so that a sanitizer sees a step beyond it. */
static void
run(const uint8_t *data, size_t size)
{
	uint8_t    *copy = malloc(size == 0 ? 1 : size);

	if (copy == NULL)
		abort();
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
	runs++;
}

static void
run_file(const char *path)
{
	static uint8_t data[INPUT_MAX];
	static uint8_t changed[INPUT_MAX];
	FILE	   *f = fopen(path, "rb");
	uint64_t	seed = 88172645463325252u;
	size_t		size;

	if (f == NULL)
	{
		perror(path);
		exit(2);
	}
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	run(data, size);
	for (size_t n = 0; n < size && n < CUTS_MAX; n++)
		run(data, n);
	for (int i = 0; i < CHANGES && size > 0; i++)
	{
		memcpy(changed, data, size);
		for (unsigned n = 1 + next_random(&seed) % 4; n > 0; n--)
			changed[next_random(&seed) % size] = (uint8_t) next_random(&seed);
		run(changed, size);
	}
}

static int
is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void
run_path(const char *path)
{
	struct dirent **entries;
	int			n = scandir(path, &entries, is_visible, alphasort);

	if (n < 0)
	{
		run_file(path);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		char		name[4096];

		snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		run_file(name);
		free(entries[i]);
	}
	free(entries);
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	printf("%zu runs\n", runs);
	return runs > 0 ? 0 : 1;
}
