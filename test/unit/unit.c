/*
 * unit.c
 *    What the unit tests share.
 */
#include "unit.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define FILES_MAX 1000

static int
is_frame(const struct dirent *entry)
{
	size_t		n = strlen(entry->d_name);

	return n > 4 && strcmp(entry->d_name + n - 4, ".bin") == 0;
}

static evp_blob_t *
read_file(const char *path)
{
	FILE	   *f = fopen(path, "rb");
	evp_buf_t	b;
	uint8_t		piece[4096];
	size_t		n;

	assert_non_null(f);
	evp_buf_init(&b, SIZE_MAX);
	while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
		evp_buf_append(&b, piece, n);
	fclose(f);
	return evp_blob_from_buf(&b);
}

unit_golden_t *
unit_golden_load(size_t *n)
{
	struct dirent **entries;
	int			found = scandir(GOLDEN_DIR, &entries, is_frame, alphasort);
	unit_golden_t *golden;

	assert_true(found > 0 && found <= FILES_MAX);
	*n = (size_t) found;
	golden = calloc(*n, sizeof(*golden));
	assert_non_null(golden);
	for (size_t i = 0; i < *n; i++)
	{
		char		path[4096];

		snprintf(path, sizeof(path), "%s/%s", GOLDEN_DIR, entries[i]->d_name);
		golden[i].name = strdup(entries[i]->d_name);
		golden[i].body = read_file(path);
		assert_non_null(golden[i].body);
		assert_true(golden[i].body->len > 1);
		golden[i].message = evp_blob_new(golden[i].body->data + 1, golden[i].body->len - 1);
		free(entries[i]);
	}
	free(entries);
	return golden;
}

void
unit_golden_free(unit_golden_t *golden, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		free(golden[i].name);
		evp_blob_unref(golden[i].body);
		evp_blob_unref(golden[i].message);
	}
	free(golden);
}

const unit_golden_t *
unit_golden_find(const unit_golden_t *golden, size_t n, const char *prefix)
{
	for (size_t i = 0; i < n; i++)
		if (strncmp(golden[i].name, prefix, strlen(prefix)) == 0)
			return &golden[i];
	fail_msg("no recorded frame %s", prefix);
	return NULL;
}

evp_message_t
unit_message(const unit_golden_t *g)
{
	evp_message_t m;
	const char *reason = NULL;

	if (evp_message_decode(&m, g->message, &reason) != 0)
		fail_msg("%s: %s", g->name, reason);
	return m;
}

evp_graph_request_t
unit_request(const unit_golden_t *g)
{
	evp_message_t m = unit_message(g);
	evp_graph_request_t q;
	const char *reason = NULL;

	if (evp_graph_request_parse(&q, m.payload, &reason) != 0)
		fail_msg("%s: %s", g->name, reason);
	evp_message_free(&m);
	return q;
}

evp_graph_response_t
unit_response(const unit_golden_t *g)
{
	evp_message_t m = unit_message(g);
	evp_graph_response_t a;
	const char *reason = NULL;

	if (evp_graph_response_parse(&a, m.payload, &reason) != 0)
		fail_msg("%s: %s", g->name, reason);
	evp_message_free(&m);
	return a;
}

uint64_t
unit_random(uint64_t *state)
{
	uint64_t	x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

evp_blob_t *
unit_mutate(const uint8_t *p, size_t n, uint64_t *state)
{
	evp_buf_t	b;
	unsigned	changes = 1 + unit_random(state) % 4;

	evp_buf_init(&b, SIZE_MAX);
	evp_buf_append(&b, p, n);
	while (changes-- > 0 && b.len > 0)
	{
		size_t		at = unit_random(state) % b.len;
		size_t		most = b.len - at < 64 ? b.len - at : 64;
		size_t		len = 1 + unit_random(state) % most;
		uint8_t		piece[64];

		switch (unit_random(state) % 6)
		{
			case 0:
				b.data[at] ^= (uint8_t) (1u << unit_random(state) % 8);
				break;
			case 1:
				b.data[at] = (uint8_t) unit_random(state);
				break;
			case 2:
				b.len = at;
				break;
			case 3:
				memmove(b.data + at, b.data + at + len, b.len - at - len);
				b.len -= len;
				break;
			case 4:
				memcpy(piece, b.data + at, len);
				evp_buf_append(&b, piece, len);
				break;
			default:
				/* A head that claims much, or opens a container. */
				b.data[at] = (uint8_t[]) {0x9f, 0xbf, 0x5b, 0x7b, 0x9b, 0xbb, 0x5f, 0x7f, 0xff, 0xc1}
				[unit_random(state) % 10];
		}
	}
	/* A block of exactly this size, so that a sanitizer sees every step beyond it. */
	{
		evp_blob_t *blob = evp_blob_new(b.data, b.len);

		evp_buf_free(&b);
		return blob;
	}
}

void
unit_assert_slice(evp_slice_t s, const char *text, const char *file, int line)
{
	if (text == NULL ? s.p == NULL : evp_slice_is(s, text))
		return;
	print_error("%s:%d: \"%.*s\"%s is not \"%s\"\n", file, line, (int) s.n, s.p == NULL ? "" : (const char *) s.p,
				s.p == NULL ? " (null)" : "", text == NULL ? "(null)" : text);
	_fail(file, line);
}

evp_blob_t *
unit_hex(const char *digits)
{
	evp_buf_t	b;
	unsigned	value = 0;
	unsigned	half = 0;

	evp_buf_init(&b, SIZE_MAX);
	for (; *digits != '\0'; digits++)
	{
		if (*digits == ' ')
			continue;
		value = value << 4 | (unsigned) strtol((char[2]) {*digits, '\0'}, NULL, 16);
		if (++half % 2 == 0)
			evp_buf_append_u8(&b, (uint8_t) value);
	}
	assert_int_equal(half % 2, 0);
	{
		evp_blob_t *blob = evp_blob_new(b.data, b.len);

		evp_buf_free(&b);
		return blob;
	}
}
