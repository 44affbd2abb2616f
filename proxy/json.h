/*
 * json.h
 *    The little of JSON text that the proxy needs: escaping, and walking
 *    through an object without building a tree.
 */
#ifndef EVP_JSON_H
#define EVP_JSON_H

#include "buf.h"
#include "cbor.h"

#define EVP_JSON_MAX_DEPTH 512

/* Appends n bytes of UTF-8 as a JSON string with its quotes.  keep_nul false
 * writes U+FFFD for U+0000, which jsonb can't hold. */
void		evp_json_put_string(evp_buf_t *b, const void *p, size_t n, bool keep_nul);

/* Consumes one CBOR item and appends it as JSON text: keys of any scalar type become
 * text, strings are written as above, byte strings and numbers that JSON has no form
 * for become null.  False when the reader or the buffer has failed. */
bool		evp_json_put_cbor(evp_buf_t *b, evp_cbor_t *r, bool keep_nul);

/* The same for an object graph, fit for jsonb (keep_nul false): of a typed value, ["class", {…}] or ["class", […]], only
 * the value is written. */
bool		evp_json_put_graph(evp_buf_t *b, evp_cbor_t *r);

/* A position in JSON text.  error is set at the first thing that is not JSON. */
typedef struct evp_json
{
	const uint8_t *p;
	const uint8_t *end;
	bool		error;
} evp_json_t;

static inline void
evp_json_init(evp_json_t *j, evp_slice_t text)
{
	j->p = text.p;
	j->end = text.p == NULL ? NULL : text.p + text.n;
	j->error = false;
}

/* The first character of the next value ('{', '[', '"', a digit, 't' …), 0 at the end. */
int			evp_json_peek(evp_json_t *j);

/* Enters an object or array. */
bool		evp_json_enter(evp_json_t *j, char open);

/* Is there another member or element?  first is true at the first call after
 * entering and set to false; when there is none, the closing character is consumed. */
bool		evp_json_more(evp_json_t *j, char close, bool *first);

/* Consumes the colon behind a key. */
bool		evp_json_colon(evp_json_t *j);

/* Skips one value and gives its text (range may be NULL).  Checks the syntax. */
bool		evp_json_skip(evp_json_t *j, evp_slice_t *range);

/* Consumes a string and appends what it stands for, as UTF-8, to b.  A lone
 * surrogate is written as U+FFFD. */
bool		evp_json_string(evp_json_t *j, evp_buf_t *b);

/* True when nothing but white space is left and there was no error. */
bool		evp_json_done(evp_json_t *j);

/* Is the text one JSON value? */
bool		evp_json_valid(evp_slice_t text);

#endif							/* EVP_JSON_H */
