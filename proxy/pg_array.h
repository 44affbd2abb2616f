/*
 * pg_array.h
 *    One-dimensional arrays in PostgreSQL's binary format, as parameters and
 *    results of statements.  No libpq, no NULLs.
 */
#ifndef EVP_PG_ARRAY_H
#define EVP_PG_ARRAY_H

#include "buf.h"

/* Oids of pg_type, which never change. */
#define EVP_OID_BOOL		16
#define EVP_OID_BYTEA		17
#define EVP_OID_INT8		20
#define EVP_OID_INT4		23
#define EVP_OID_TEXT		25
#define EVP_OID_JSONB		3802
#define EVP_OID_BOOL_ARRAY	1000
#define EVP_OID_INT4_ARRAY	1007
#define EVP_OID_TEXT_ARRAY	1009
#define EVP_OID_INT8_ARRAY	1016

/* An array that is being written: begin, exactly n elements, and the buffer is the value. */
void		evp_pg_array_begin(evp_buf_t *b, uint32_t element_oid, size_t n);
void		evp_pg_array_int8(evp_buf_t *b, int64_t v);
void		evp_pg_array_int4(evp_buf_t *b, int32_t v);
void		evp_pg_array_bool(evp_buf_t *b, bool v);
void		evp_pg_array_text(evp_buf_t *b, const char *text, size_t n);

/* An array that is being read. */
typedef struct evp_pg_array
{
	const uint8_t *p;
	size_t		left;
	size_t		n;				/* elements to come */
} evp_pg_array_t;

/* False where the bytes are no array of at most one dimension. */
bool		evp_pg_array_read(evp_pg_array_t *a, const void *value, size_t len);
/* The next element's bytes; false at the end, at a NULL and where the bytes do not hold it. */
bool		evp_pg_array_next(evp_pg_array_t *a, evp_slice_t *element);

/* A bigint's 8 bytes. */
int64_t		evp_pg_int8(const char *value);

#endif /* EVP_PG_ARRAY_H */
