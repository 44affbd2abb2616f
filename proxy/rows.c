/*
 * rows.c
 *    Reads the rows of a result in binary form.
 */
#include "rows.h"

#include <string.h>

/* Microseconds from 1970 to 2000, where PostgreSQL's times begin. */
#define EPOCH_US INT64_C(946684800000000)

bool
evp_rows_are(const PGresult *rows, const Oid *types, int count)
{
	if (PQnfields(rows) != count)
		return false;
	for (int i = 0; i < count; i++)
		if (PQftype(rows, i) != types[i] || PQfformat(rows, i) != 1)
			return false;
	return true;
}

bool
evp_row_is_null(const PGresult *rows, int row, int column)
{
	return PQgetisnull(rows, row, column) != 0;
}

/* The bytes of a value of a fixed length, or NULL. */
static const uint8_t *
fixed(const PGresult *rows, int row, int column, int length)
{
	if (row < 0 || row >= PQntuples(rows) || column < 0 || column >= PQnfields(rows) || PQgetisnull(rows, row, column) ||
		PQgetlength(rows, row, column) != length)
		return NULL;
	return (const uint8_t *) PQgetvalue(rows, row, column);
}

bool
evp_row_int64(const PGresult *rows, int row, int column, int64_t *value)
{
	const uint8_t *p = fixed(rows, row, column, 8);
	uint64_t	v = 0;

	if (p == NULL)
		return false;
	for (int i = 0; i < 8; i++)
		v = v << 8 | p[i];
	*value = (int64_t) v;
	return true;
}

bool
evp_row_bool(const PGresult *rows, int row, int column, bool *value)
{
	const uint8_t *p = fixed(rows, row, column, 1);

	if (p == NULL)
		return false;
	*value = p[0] != 0;
	return true;
}

bool
evp_row_uuid(const PGresult *rows, int row, int column, uint8_t value[16])
{
	const uint8_t *p = fixed(rows, row, column, 16);

	if (p == NULL)
		return false;
	memcpy(value, p, 16);
	return true;
}

bool
evp_row_time_ms(const PGresult *rows, int row, int column, int64_t *value)
{
	int64_t		us;

	if (!evp_row_int64(rows, row, column, &us))
		return false;
	if (us == INT64_MIN || us == INT64_MAX)
	{
		*value = us;
		return true;
	}
	/* Times PostgreSQL has lie far from the ends of the type. */
	if (us > INT64_MAX - EPOCH_US)
		return false;
	us += EPOCH_US;
	*value = us >= 0 ? us / 1000 : -((-us + 999) / 1000);
	return true;
}

evp_slice_t
evp_row_bytes(const PGresult *rows, int row, int column)
{
	if (row < 0 || row >= PQntuples(rows) || column < 0 || column >= PQnfields(rows) || PQgetisnull(rows, row, column))
		return (evp_slice_t) {.p = NULL};
	return evp_slice_of(PQgetvalue(rows, row, column), (size_t) PQgetlength(rows, row, column));
}

void
evp_param_int64(uint8_t out[8], int64_t value)
{
	uint64_t	v = (uint64_t) value;

	for (int i = 7; i >= 0; i--)
	{
		out[i] = (uint8_t) v;
		v >>= 8;
	}
}
