/*
 * evento_fault.c
 *	  For tests: commits the faults that "make check-valgrind" and "make
 *	  check-asserts" are there to find, to show that they do.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(evento_fault_uninitialised);
PG_FUNCTION_INFO_V1(evento_fault_freed);
PG_FUNCTION_INFO_V1(evento_fault_assertion);

/* Decides by memory that nobody has written. */
Datum
evento_fault_uninitialised(PG_FUNCTION_ARGS)
{
	volatile int *memory = palloc(64 * sizeof(int));

	/* What counts is a branch: copies of such memory are no error. */
	if (memory[7] > memory[11])
		elog(DEBUG1, "memory that nobody has written made us come here");
	PG_RETURN_BOOL(true);
}

/* Reads memory that was given back. */
Datum
evento_fault_freed(PG_FUNCTION_ARGS)
{
	volatile int *memory = palloc0(64 * sizeof(int));
	int			value;

	pfree((void *) memory);
	value = memory[7];
	PG_RETURN_BOOL(value > 0);
}

/* States what does not hold. */
Datum
evento_fault_assertion(PG_FUNCTION_ARGS)
{
	Assert(CurrentMemoryContext == NULL);
	PG_RETURN_BOOL(CurrentMemoryContext != NULL);
}
