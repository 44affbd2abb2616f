/*
 * compat.h
 *	  Every difference between the server versions that evento builds for.
 */
#ifndef EVENTO_COMPAT_H
#define EVENTO_COMPAT_H

#include "access/genam.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "catalog/pg_database.h"
#include "common/jsonapi.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/message.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/wait_event.h"

/* 16 took the macros of variable length out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* Stands before all else of a declaration; 18 has a form for every compiler. */
#if PG_VERSION_NUM >= 180000
#define EVENTO_NORETURN pg_noreturn
#else
#define EVENTO_NORETURN pg_attribute_noreturn()
#endif

/* 18 takes a place for instrumentation. */
#if PG_VERSION_NUM >= 180000
#define evento_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define evento_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* 18 knows by itself whether a portal is run once. */
#if PG_VERSION_NUM >= 180000
#define evento_portal_run(portal, dest) \
	PortalRun(portal, FETCH_ALL, true, dest, dest, NULL)
#else
#define evento_portal_run(portal, dest) \
	PortalRun(portal, FETCH_ALL, true, true, dest, dest, NULL)
#endif

/* 16 calls where a relation's files are by another name. */
#if PG_VERSION_NUM >= 160000
#define evento_rel_locator(rel) ((rel)->rd_locator)
#else
#define evento_rel_locator(rel) ((rel)->rd_node)
#endif

/* 17 asks whether a stronger lock counts. */
#if PG_VERSION_NUM >= 170000
#define evento_lock_held_by_me(tag, mode) LockHeldByMe(tag, mode, false)
#else
#define evento_lock_held_by_me(tag, mode) LockHeldByMe(tag, mode)
#endif

/* The place of this process in the array of processes; below MaxBackends for sessions and workers. */
#if PG_VERSION_NUM >= 170000
#define evento_my_proc_number() ((int) MyProcNumber)
#else
#define evento_my_proc_number() (MyProc->pgprocno)
#endif

/* 17 moved what the transaction manager keeps in shared memory, and the number of a transaction in its session. */
#if PG_VERSION_NUM >= 170000
#define evento_latest_completed_xid() (TransamVariables->latestCompletedXid)
#define evento_my_lxid() (MyProc->vxid.lxid)
#else
#define evento_latest_completed_xid() (ShmemVariableCache->latestCompletedXid)
#define evento_my_lxid() (MyProc->lxid)
#endif

/* 17 lets the caller choose whether to flush; a commit follows here. */
#if PG_VERSION_NUM >= 170000
#define evento_log_message(prefix, message, size) \
	LogLogicalMessage(prefix, message, size, true, false)
#else
#define evento_log_message(prefix, message, size) \
	LogLogicalMessage(prefix, message, size, true)
#endif

/* 16 added onlySummarizing. */
#if PG_VERSION_NUM >= 160000
#define evento_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, false)
typedef TU_UpdateIndexes EventoUpdateIndexes;
#define evento_update_index_tuples(rri, slot, estate, how) \
	((how) == TU_None ? NIL : \
	 ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL, (how) == TU_Summarizing))
#else
#define evento_insert_index_tuples(rri, slot, estate) \
	ExecInsertIndexTuples(rri, slot, estate, false, false, NULL, NIL)
typedef bool EventoUpdateIndexes;
#define evento_update_index_tuples(rri, slot, estate, how) \
	((how) ? evento_insert_index_tuples(rri, slot, estate) : NIL)
#endif

/* 16 replaced the checks of single kinds of objects. */
#if PG_VERSION_NUM >= 160000
#define evento_owns_database(dboid) \
	object_ownercheck(DatabaseRelationId, dboid, GetUserId())
#else
#define evento_owns_database(dboid) \
	pg_database_ownercheck(dboid, GetUserId())
#endif

/* 17 lets extensions name what they wait for. */
static inline uint32
evento_wait_event(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * A JSON action can stop the parser since 16.  Before, it makes the parser
 * believe that the text ends behind the present token, which is an error there.
 */
#if PG_VERSION_NUM >= 160000
#define EVENTO_JSON_ACTION JsonParseErrorType
#define EVENTO_JSON_GO_ON return JSON_SUCCESS
#define EVENTO_JSON_STOP(lex) return JSON_SEM_ACTION_FAILED
#else
#define EVENTO_JSON_ACTION void
#define EVENTO_JSON_GO_ON return
#define EVENTO_JSON_STOP(lex) \
	do { \
		(lex)->input_length = (int) ((lex)->token_terminator - (lex)->input); \
		return; \
	} while (0)
#endif

/* A lexer without de-escaping; palloc'd. */
static inline JsonLexContext *
evento_json_lexer(const char *json, int len)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, json, len, PG_UTF8, false);
#else
	return makeJsonLexContextCstringLen(unconstify(char *, json), len, PG_UTF8, false);
#endif
}

static inline void
evento_json_lexer_free(JsonLexContext *lex)
{
#if PG_VERSION_NUM >= 170000
	freeJsonLexContext(lex);
#else
	pfree(lex);
#endif
}

#endif							/* EVENTO_COMPAT_H */
