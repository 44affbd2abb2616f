/*
 * unit.h
 *    What the unit tests share: cmocka with the headers it needs, the recorded
 *    frames, and a generator of numbers that repeats.
 */
#ifndef EVP_UNIT_H
#define EVP_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "buf.h"
#include "graph.h"
#include "message.h"

/* A recorded frame: its file's name and its body (type byte and message). */
typedef struct unit_golden
{
	char	   *name;
	evp_blob_t *body;
	evp_blob_t *message;		/* the body without the type byte */
} unit_golden_t;

/* All recorded frames in order of their names; *n is set.  unit_golden_free frees them. */
unit_golden_t *unit_golden_load(size_t *n);
void		unit_golden_free(unit_golden_t *golden, size_t n);

/* The recorded frame whose name begins with prefix; fails the test where there is none. */
const unit_golden_t *unit_golden_find(const unit_golden_t *golden, size_t n, const char *prefix);

/* A recorded frame decoded, and the parsed payload of one that is a REQ or a
 * RSP; the test fails where that can't be done.  The caller frees them. */
evp_message_t unit_message(const unit_golden_t *g);
evp_graph_request_t unit_request(const unit_golden_t *g);
evp_graph_response_t unit_response(const unit_golden_t *g);

/* The next number of a xorshift generator; *state must not be 0. */
uint64_t	unit_random(uint64_t *state);

/* A copy of the bytes with a few random changes: flipped bits, other values,
 * a cut, a piece taken out, a piece doubled. */
evp_blob_t *unit_mutate(const uint8_t *p, size_t n, uint64_t *state);

/* Fails the test, naming both, where a slice has not this text. */
#define assert_slice(slice, text) unit_assert_slice((slice), (text), __FILE__, __LINE__)
void		unit_assert_slice(evp_slice_t s, const char *text, const char *file, int line);

/* A blob of the bytes that hexadecimal digits (blanks allowed) stand for. */
evp_blob_t *unit_hex(const char *digits);

#endif							/* EVP_UNIT_H */
