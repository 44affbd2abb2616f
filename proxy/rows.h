/*
 * rows.h
 *    Reads the rows of a result in binary form.  What is not of the shape that
 *    was asked for is refused, so that another version of the database's
 *    functions is an error and no misreading.
 */
#ifndef EVP_ROWS_H
#define EVP_ROWS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "pg_array.h"

/* Types by their number in pg_type, beside those of pg_array.h. */
#define EVP_OID_JSON		114
#define EVP_OID_TIMESTAMPTZ	1184
#define EVP_OID_UUID		2950

/* Are the columns of these types, each in binary form, no more and no fewer? */
bool evp_rows_are(const PGresult *rows, const Oid *types, int count);

/* True for NULL. */
bool evp_row_is_null(const PGresult *rows, int row, int column);

/* Values; false, with the value untouched, for NULL or a wrong length. */
bool evp_row_int64(const PGresult *rows, int row, int column, int64_t *value);
bool evp_row_bool(const PGresult *rows, int row, int column, bool *value);
bool evp_row_uuid(const PGresult *rows, int row, int column, uint8_t value[16]);

/* Milliseconds since 1970, rounded down; infinite times are the ends of int64_t. */
bool evp_row_time_ms(const PGresult *rows, int row, int column, int64_t *value);

/* Bytes of a text, json or bytea, without an owner: they live as long as the result.  Null for NULL. */
evp_slice_t evp_row_bytes(const PGresult *rows, int row, int column);

/* A bigint as a parameter in binary form. */
void evp_param_int64(uint8_t out[8], int64_t value);

#endif /* EVP_ROWS_H */
