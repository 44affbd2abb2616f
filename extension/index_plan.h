/*
 * index_plan.h
 *	  What the files of indexes for queries know of each other.
 *
 * index_plan.c  from what is to be indexed to a name and a statement
 * index.c       builds and drops, by a background worker
 */
#ifndef EVENTO_INDEX_PLAN_H
#define EVENTO_INDEX_PLAN_H

#include "evento.h"

#define SCHEMA "evento"

/* Bytes that what may have. */
#define MAX_WHAT 512

/* Each byte of a key may take two in a literal; the rest is a few dozen, and the path stands there twice. */
#define MAX_STATEMENT (4 * MAX_WHAT + 1024)

/* What an index is called, and how it is made. */
typedef struct IndexPlan
{
	char		what[MAX_WHAT * 2 + 1]; /* in its one form */
	NameData	name;
	const char *table;
	bool		analyze;		/* the planner wants statistics of its expression */
	char		statement[MAX_STATEMENT];
} IndexPlan;

/* What to do for an argument; 22023 where it says nothing that can be indexed. */
extern void evento_plan_index(text *argument, IndexPlan *plan);

#endif							/* EVENTO_INDEX_PLAN_H */
