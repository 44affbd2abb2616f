/*
 * buf.h
 *    Bytes: growable buffers with a bound, and shared immutable blocks.
 *
 * An evp_buf_t is written to by one owner.  An evp_blob_t is a block that many
 * hold at the same time: payloads are forwarded as slices of the blob in which
 * they came in, without a copy.  Nothing here is thread safe: a proxy has one
 * thread.
 */
#ifndef EVP_BUF_H
#define EVP_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * A growable buffer.  data[0 .. len) is filled, data[len .. cap) is room.
 *
 * Failure is sticky: once an append went past max (or memory ran out), failed
 * is set, nothing is added any more, and every later call returns false.  So a
 * long sequence of appends needs one check, at its end.
 */
typedef struct evp_buf
{
	uint8_t    *data;
	size_t		len;
	size_t		cap;
	size_t		max;			/* len never exceeds this */
	bool		failed;
} evp_buf_t;

/* An empty buffer that holds at most max bytes.  Allocates nothing yet. */
void		evp_buf_init(evp_buf_t *b, size_t max);

/* Frees the memory; the buffer is then as after evp_buf_init. */
void		evp_buf_free(evp_buf_t *b);

/* Empties the buffer and clears failed; keeps the memory for the next use. */
void		evp_buf_reset(evp_buf_t *b);

/* Room for n more bytes, at data + len, or NULL.  The caller adds to len what it used. */
uint8_t    *evp_buf_grow(evp_buf_t *b, size_t n);	/* the same where more memory may be needed for them */
static inline uint8_t *
evp_buf_reserve(evp_buf_t *b, size_t n)
{
	/* The first call allocates even for n = 0: data is then a valid address. */
	if (b->failed || b->data == NULL || n > b->cap - b->len || n > b->max - b->len)
		return evp_buf_grow(b, n);
	return b->data + b->len;
}

/* Append; false when the buffer has failed.  Integers go in network byte order. */
static inline bool
evp_buf_append(evp_buf_t *b, const void *p, size_t n)
{
	uint8_t    *room = evp_buf_reserve(b, n);

	if (room == NULL)
		return false;
	if (n > 0)
		memcpy(room, p, n);
	b->len += n;
	return true;
}
bool		evp_buf_append_str(evp_buf_t *b, const char *s);
bool		evp_buf_append_u8(evp_buf_t *b, uint8_t v);
bool		evp_buf_append_u16(evp_buf_t *b, uint16_t v);
bool		evp_buf_append_u32(evp_buf_t *b, uint32_t v);
bool		evp_buf_append_u64(evp_buf_t *b, uint64_t v);
bool		evp_buf_appendf(evp_buf_t *b, const char *format,...) __attribute__((format(printf, 2, 3)));

/* Overwrites 4 or 8 bytes at offset, which are there already (a length known late). */
void		evp_buf_set_u32(evp_buf_t *b, size_t offset, uint32_t v);
void		evp_buf_set_u64(evp_buf_t *b, size_t offset, uint64_t v);

/* Removes n bytes (at most len) from the front. */
void		evp_buf_consume(evp_buf_t *b, size_t n);

/*
 * A shared block of bytes.  Whoever stores a pointer holds a reference; the
 * last evp_blob_unref frees it.  The bytes are written before the blob is
 * shared and never after.
 */
typedef struct evp_blob
{
	size_t		refs;
	size_t		len;
	uint8_t    *data;
	struct evp_blob *next;		/* in the arena that holds it, see below */
} evp_blob_t;

/* A new blob with one reference: a copy of n bytes, or n bytes yet to be
 * written.  NULL when memory ran out. */
evp_blob_t *evp_blob_new(const void *p, size_t n);
evp_blob_t *evp_blob_alloc(size_t n);

/* A new blob with one reference that takes over the memory of a buffer, which
 * is empty afterwards.  NULL when the buffer had failed (its memory is freed). */
evp_blob_t *evp_blob_from_buf(evp_buf_t *b);

/* One reference more; gives its argument.  NULL is allowed. */
evp_blob_t *evp_blob_ref(evp_blob_t *blob);

/* One reference less.  NULL is allowed. */
void		evp_blob_unref(evp_blob_t *blob);

/*
 * A range of bytes.  p NULL is "no value" (null); n 0 with p set is an empty
 * value.  owner is the blob that the bytes lie in, NULL where they lie in
 * memory of another kind.  A slice itself holds no reference, unless it was
 * made by evp_slice_ref.
 */
typedef struct evp_slice
{
	evp_blob_t *owner;
	const uint8_t *p;
	size_t		n;
} evp_slice_t;

/* A slice of memory that is not a blob's: the caller sees to its life. */
static inline evp_slice_t
evp_slice_of(const void *p, size_t n)
{
	return (evp_slice_t) {.owner = NULL,.p = p,.n = n};
}

static inline evp_slice_t
evp_slice_str(const char *s)
{
	return (evp_slice_t) {.owner = NULL,.p = (const uint8_t *) s,.n = s ? strlen(s) : 0};
}

/* The whole of a blob, without a reference. */
static inline evp_slice_t
evp_slice_blob(evp_blob_t *blob)
{
	return (evp_slice_t) {.owner = blob,.p = blob->data,.n = blob->len};
}

static inline bool
evp_slice_is_null(evp_slice_t s)
{
	return s.p == NULL;
}

/* Same bytes; null equals null only. */
static inline bool
evp_slice_eq(evp_slice_t a, evp_slice_t b)
{
	return (a.p == NULL) == (b.p == NULL) && a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool
evp_slice_is(evp_slice_t a, const char *s)
{
	return a.p != NULL && a.n == strlen(s) && memcmp(a.p, s, a.n) == 0;
}

/* A slice that holds a reference to its bytes: the owner's, or those of a new
 * blob with a copy where there is no owner.  Null stays null.  On lack of
 * memory the result is null although the argument was not. */
evp_slice_t evp_slice_ref(evp_slice_t s);

/* Gives that reference back and makes the slice null. */
void		evp_slice_unref(evp_slice_t *s);

/*
 * An arena: a chain of blobs that live as long as a decoded message does, for
 * values that don't lie in one piece in the input (joined strings).
 */
typedef struct evp_arena
{
	evp_blob_t *blobs;
} evp_arena_t;

/* A writable block of n bytes, held by the arena; NULL when memory ran out. */
evp_blob_t *evp_arena_alloc(evp_arena_t *a, size_t n);

/* Gives up the arena's references; the arena is empty afterwards. */
void		evp_arena_free(evp_arena_t *a);

#endif							/* EVP_BUF_H */
