/*
 * rows.c
 *	  Forms, takes apart and writes single rows of the extension's tables.
 *
 * The tables are ours, but their owner can alter them: indexes that were added
 * are kept up, columns that were added and dropped again are left empty.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "catalog/indexing.h"
#include "executor/executor.h"
#include "utils/rel.h"

#include "compat.h"
#include "evento.h"

/* Raises where a table has other columns than its first natts, but dropped ones. */
static void
check_columns(Relation rel, int natts)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if (desc->natts < natts)
		elog(ERROR, "%s has %d columns, not %d", RelationGetRelationName(rel), desc->natts, natts);
	for (int i = natts; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" of extension \"evento\" has been given a column \"%s\"",
							RelationGetRelationName(rel),
							NameStr(TupleDescAttr(desc, i)->attname)),
					 errhint("Drop the column.")));
	}
}

/* Forms a row out of the natts columns that a table of ours has, in the current context. */
HeapTuple
evento_form_row(Relation rel, int natts, Datum *values, bool *nulls)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Datum	   *all_values;
	bool	   *all_nulls;
	HeapTuple	row;

	if (likely(desc->natts == natts))
		return heap_form_tuple(desc, values, nulls);

	check_columns(rel, natts);
	all_values = palloc0(desc->natts * sizeof(Datum));
	all_nulls = palloc(desc->natts * sizeof(bool));
	memset(all_nulls, true, desc->natts * sizeof(bool));
	memcpy(all_values, values, natts * sizeof(Datum));
	memcpy(all_nulls, nulls, natts * sizeof(bool));
	row = heap_form_tuple(desc, all_values, all_nulls);
	pfree(all_values);
	pfree(all_nulls);
	return row;
}

/* Gives the first natts columns of a row; what is not inline points into it. */
void
evento_deform_row(Relation rel, int natts, HeapTuple row, Datum *values, bool *nulls)
{
	for (int i = 0; i < natts; i++)
		values[i] = heap_getattr(row, i + 1, RelationGetDescr(rel), &nulls[i]);
}

/* Whether all indexes are such as the catalogs have: on plain columns, of all rows. */
static bool
plain_indexes(const ResultRelInfo *rri)
{
	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		const IndexInfo *info = rri->ri_IndexRelationInfo[i];

		if (info->ii_Expressions != NIL || info->ii_Predicate != NIL ||
			info->ii_ExclusionOps != NULL ||
			!rri->ri_IndexRelationDescs[i]->rd_index->indimmediate)
			return false;
	}
	return true;
}

/* Starts writing into a table, which the caller has open and locked. */
void
evento_rows_begin(EventoRows *rows, Relation rel)
{
	rows->rel = rel;
	rows->indexes = CatalogOpenIndexes(rel);
	rows->estate = NULL;
	if (!plain_indexes(rows->indexes))
	{
		rows->estate = CreateExecutorState();
		rows->slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	}
}

/* Writes one row, in place of that at old where that is not NULL. */
void
evento_rows_put(EventoRows *rows, HeapTuple row, ItemPointer old)
{
	if (likely(rows->estate == NULL))
	{
		if (old == NULL)
			CatalogTupleInsertWithInfo(rows->rel, row, rows->indexes);
		else
			CatalogTupleUpdateWithInfo(rows->rel, old, row, rows->indexes);
		return;
	}

	ExecStoreHeapTuple(row, rows->slot, false);
	if (old == NULL)
	{
		simple_table_tuple_insert(rows->rel, rows->slot);
		evento_insert_index_tuples(rows->indexes, rows->slot, rows->estate);
	}
	else
	{
		EventoUpdateIndexes how;

		simple_table_tuple_update(rows->rel, old, rows->slot, InvalidSnapshot, &how);
		evento_update_index_tuples(rows->indexes, rows->slot, rows->estate, how);
	}
	ExecClearTuple(rows->slot);
	ResetPerTupleExprContext(rows->estate);
}

void
evento_rows_end(EventoRows *rows)
{
	if (rows->estate != NULL)
	{
		ExecDropSingleTupleTableSlot(rows->slot);
		FreeExecutorState(rows->estate);
	}
	CatalogCloseIndexes(rows->indexes);
}

/* Writes a single row. */
void
evento_row_write(Relation rel, HeapTuple row, ItemPointer old)
{
	EventoRows	rows;

	evento_rows_begin(&rows, rel);
	evento_rows_put(&rows, row, old);
	evento_rows_end(&rows);
}
