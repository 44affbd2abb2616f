/*
 * cbor.h
 *    A pull reader and a writer of CBOR; floating point numbers are libcbor's.
 *
 * The reader takes definite and indefinite lengths alike, skips tags, bounds
 * nesting, allocates nothing but the memory of strings that came in pieces,
 * and keeps its first error: after an error every call fails and
 * evp_cbor_more() is false, so that loops end and one check at the end
 * suffices.
 */
#ifndef EVP_CBOR_H
#define EVP_CBOR_H

#include "buf.h"

/* Arrays and maps inside one another.  Java's own reader stops at 1000; a
 * typed object takes two levels. */
#define EVP_CBOR_MAX_DEPTH 256

typedef enum evp_cbor_type
{
	EVP_CBOR_ERROR,				/* the reader has failed */
	EVP_CBOR_INT,				/* unsigned or negative */
	EVP_CBOR_BYTES,
	EVP_CBOR_TEXT,
	EVP_CBOR_ARRAY,
	EVP_CBOR_MAP,
	EVP_CBOR_BOOL,
	EVP_CBOR_NULL,				/* undefined too */
	EVP_CBOR_FLOAT,
	EVP_CBOR_END				/* no item left in the container, or in the input */
} evp_cbor_type_t;

typedef struct evp_cbor
{
	const uint8_t *p;			/* next byte */
	const uint8_t *end;
	evp_blob_t *owner;			/* of the bytes, for the slices given out */
	evp_arena_t *arena;			/* takes joined strings */
	const char *error;			/* static text, NULL as long as all is well */
	unsigned	depth;			/* containers entered */
	uint64_t	left[EVP_CBOR_MAX_DEPTH];	/* items left in each; see cbor.c */
} evp_cbor_t;

/* Reads the bytes of s.  Strings in pieces are joined into the arena. */
void		evp_cbor_init(evp_cbor_t *r, evp_slice_t s, evp_arena_t *arena);

/* The type of the next item, which is not consumed. */
evp_cbor_type_t evp_cbor_peek(evp_cbor_t *r);

/*
 * Containers.  After entering, evp_cbor_more() says whether there is another
 * item (in a map: another key); when it says no, it has left the container.
 * To leave early, use evp_cbor_leave(), which skips what is left.
 */
bool		evp_cbor_enter_array(evp_cbor_t *r);
bool		evp_cbor_enter_map(evp_cbor_t *r);
bool		evp_cbor_more(evp_cbor_t *r);
bool		evp_cbor_leave(evp_cbor_t *r);

/*
 * Values.  Each consumes one item and fails with an error where it is of
 * another type.  Text is checked to be UTF-8; strings in pieces are joined
 * first, into the arena, from which their slices then come.  evp_cbor_name is a
 * text for use as an identifier: one with U+0000, which PostgreSQL has no form
 * for, is an error.
 */
bool		evp_cbor_int(evp_cbor_t *r, int64_t *v);	/* error where it doesn't fit */
bool		evp_cbor_bool(evp_cbor_t *r, bool *v);
bool		evp_cbor_text(evp_cbor_t *r, evp_slice_t *v);
bool		evp_cbor_text_or_null(evp_cbor_t *r, evp_slice_t *v);
bool		evp_cbor_name(evp_cbor_t *r, evp_slice_t *v);
bool		evp_cbor_name_or_null(evp_cbor_t *r, evp_slice_t *v);
bool		evp_cbor_bytes(evp_cbor_t *r, evp_slice_t *v);
bool		evp_cbor_bytes_or_null(evp_cbor_t *r, evp_slice_t *v);
bool		evp_cbor_int_or_null(evp_cbor_t *r, int64_t *v, bool *is_null);	/* 0 where null; is_null may be NULL */
bool		evp_cbor_double(evp_cbor_t *r, double *v);

/* An integer of the full range: value v, or -1 - v where negative. */
bool		evp_cbor_uint(evp_cbor_t *r, uint64_t *v, bool *negative);

/* Consumes a null (or undefined) if that is what comes next. */
bool		evp_cbor_take_null(evp_cbor_t *r);

/* Skips one item, whatever it holds, and gives its bytes (range may be NULL). */
bool		evp_cbor_skip(evp_cbor_t *r, evp_slice_t *range);

/* Sets the error if there is none yet; always gives false.  reason is static text. */
bool		evp_cbor_fail(evp_cbor_t *r, const char *reason);

/* True when all was read without error and nothing is left behind the item. */
bool		evp_cbor_done(evp_cbor_t *r);

/* Is this UTF-8 (shortest forms, no surrogates, up to U+10FFFF)? */
bool		evp_utf8_valid(const uint8_t *p, size_t n);

/* The writer: each appends to the buffer, whose failure is sticky.  Integers
 * and lengths take the shortest form. */
void		evp_cbor_put_int(evp_buf_t *b, int64_t v);
void		evp_cbor_put_bool(evp_buf_t *b, bool v);
void		evp_cbor_put_null(evp_buf_t *b);
void		evp_cbor_put_double(evp_buf_t *b, double v);
void		evp_cbor_put_text(evp_buf_t *b, const void *p, size_t n);
static inline void
evp_cbor_put_str(evp_buf_t *b, const char *s)
{
	evp_cbor_put_text(b, s, strlen(s));	/* of a literal the compiler knows it */
}
void		evp_cbor_put_slice(evp_buf_t *b, evp_slice_t text); /* text or null */
void		evp_cbor_put_bytes(evp_buf_t *b, const void *p, size_t n);
void		evp_cbor_put_text_header(evp_buf_t *b, size_t n);	/* n bytes of text follow */
void		evp_cbor_put_bytes_header(evp_buf_t *b, size_t n);	/* n bytes follow */
void		evp_cbor_put_array_header(evp_buf_t *b, size_t n);	/* n items follow */
void		evp_cbor_open_array(evp_buf_t *b);	/* indefinite length, closed by evp_cbor_close */
void		evp_cbor_open_map(evp_buf_t *b);
void		evp_cbor_close(evp_buf_t *b);

#endif							/* EVP_CBOR_H */
