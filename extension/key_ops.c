/*
 * key_ops.c
 *	  Support of the operator class _key_ops: a GIN index on text for = alone.
 *
 * What indexes on keys of JSON are made of.  A value may be as long as an
 * event, and no append may fail at its commit because of an index: a B-tree
 * refuses long values, SP-GiST takes memory by their square, and a hash index
 * walks along all equal values at each insert.  GIN keeps equal values compactly; a
 * long one stands here by its beginning and a hash, and its finds are rechecked.
 */
#include "postgres.h"

#include "access/gin.h"
#include "access/stratnum.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "compat.h"
#include "evento.h"

/* Longer values are cut to this and followed by eight bytes, so none is taken for a short one. */
#define KEY_BYTES 255

/* What stands in the index for a value. */
static Datum
index_key(text *value)
{
	int			len = VARSIZE_ANY_EXHDR(value);
	const char *data = VARDATA_ANY(value);
	int			kept = Min(len, KEY_BYTES);
	uint64		hash = 0;
	bytea	   *key = palloc(VARHDRSZ + kept + sizeof(hash));

	memcpy(VARDATA(key), data, kept);
	if (len > KEY_BYTES)
	{
		hash = hash_bytes_extended((const unsigned char *) data, len, 0);
		memcpy(VARDATA(key) + kept, &hash, sizeof(hash));
		kept += sizeof(hash);
	}
	SET_VARSIZE(key, VARHDRSZ + kept);
	return PointerGetDatum(key);
}

/* _key_extract_value(text, internal nkeys) */
PG_FUNCTION_INFO_V1(evento_key_extract_value);
Datum
evento_key_extract_value(PG_FUNCTION_ARGS)
{
	int32	   *nkeys = (int32 *) PG_GETARG_POINTER(1);
	Datum	   *keys = palloc(sizeof(Datum));

	keys[0] = index_key(PG_GETARG_TEXT_PP(0));
	*nkeys = 1;
	PG_RETURN_POINTER(keys);
}

/* _key_extract_query(text, internal nkeys, int2 strategy, …): the value that is looked for. */
PG_FUNCTION_INFO_V1(evento_key_extract_query);
Datum
evento_key_extract_query(PG_FUNCTION_ARGS)
{
	int32	   *nkeys = (int32 *) PG_GETARG_POINTER(1);
	StrategyNumber strategy = PG_GETARG_UINT16(2);
	Datum	   *keys = palloc(sizeof(Datum));

	if (strategy != 1)
		elog(ERROR, "unrecognized strategy number: %d", strategy);
	keys[0] = index_key(PG_GETARG_TEXT_PP(0));
	*nkeys = 1;
	PG_RETURN_POINTER(keys);
}

/* _key_consistent(internal check, int2 strategy, text query, int4 nkeys, internal extra, internal recheck, …) */
PG_FUNCTION_INFO_V1(evento_key_consistent);
Datum
evento_key_consistent(PG_FUNCTION_ARGS)
{
	bool	   *check = (bool *) PG_GETARG_POINTER(0);
	text	   *query = PG_GETARG_TEXT_PP(2);
	bool	   *recheck = (bool *) PG_GETARG_POINTER(5);

	*recheck = VARSIZE_ANY_EXHDR(query) > KEY_BYTES;
	PG_RETURN_BOOL(check[0]);
}
