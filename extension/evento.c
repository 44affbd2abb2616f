/*
 * evento.c
 *	  Entry of the library: settings, and the start of every other part.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "compat.h"
#include "evento.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

int			evento_max_databases = 64;
int			evento_max_streams_per_transaction = 1000;
int			evento_max_event_size = 64 * 1024;
int			evento_max_transaction_size = 1024 * 1024;
int			evento_append_memory = 64 * 1024;
int			evento_max_json_depth = 256;
int			evento_cached_streams = 65536;
int			evento_id_window = 1000;
int			evento_cached_ids = 262144;
int			evento_position_jump = 1000000000;
int			evento_watermark_interval = 2;

static void
define_settings(void)
{
	DefineCustomIntVariable("evento.max_databases",
							"Databases of this server that can have the extension in use.",
							"Takes some hundred bytes of shared memory each.",
							&evento_max_databases, 64, 1, 10000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.cached_streams",
							"Streams whose newest version is kept in shared memory.",
							"Takes 128 bytes each; 0 keeps none.",
							&evento_cached_streams, 65536, 0, 16 * 1024 * 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.max_streams_per_transaction",
							"Streams that one transaction may append to.",
							"Each takes an entry in the server's lock table.",
							&evento_max_streams_per_transaction, 1000, 1, 1000000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.max_event_size",
							"Size of the data and metadata of one event.",
							NULL,
							&evento_max_event_size, 64 * 1024, 1, 512 * 1024,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.max_transaction_size",
							"Size of all events that one transaction may append.",
							"They are kept until the commit.",
							&evento_max_transaction_size, 1024 * 1024, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.append_memory",
							"Memory in which a transaction keeps its events until the commit.",
							"What is more goes to a temporary file.",
							&evento_append_memory, 64 * 1024, 64, MAX_KILOBYTES,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.max_json_depth",
							"Depth to which the JSON of an event may be nested.",
							NULL,
							&evento_max_json_depth, 256, 1, 10000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.id_window",
							"Newest events of a stream among which the id of an append is looked for.",
							"Event ids are unique within a stream as far as that.",
							&evento_id_window, 1000, 1, 1000000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.cached_ids",
							"Event ids that a session remembers of the streams it appends to.",
							"Takes 4 bytes each; 0 keeps none.",
							&evento_cached_ids, 262144, 0, 16 * 1024 * 1024,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.position_jump",
							"Positions left out after a promotion, a restore or a copy.",
							"And a thousandth of that for each second since the jump before. Should be more than could be appended and read without being replicated, and than is appended in a thousand seconds.",
							&evento_position_jump, 1000000000, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("evento.watermark_interval",
							"Least time between two writes of the watermark.",
							NULL,
							&evento_watermark_interval, 2, 0, 10000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	MarkGUCPrefixReserved("evento");
}

/*
 * Without shared_preload_libraries the library can be loaded and its functions
 * be created, but has neither settings nor shared memory: what needs them
 * raises V0004.
 */
void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	define_settings();
	evento_shmem_init();
	evento_buffer_init();
	evento_commit_init();
	evento_worker_init();
}
