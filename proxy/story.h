/*
 * story.h
 *    Loads stories; rows of evento.load_stream and evento.scan_all as events.
 */
#ifndef EVP_STORY_H
#define EVP_STORY_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "event.h"
#include "store.h"

/* The columns that both queries select behind their own first one. */
#define EVP_EVENT_COLUMNS \
	"position, version, id, type, context, kind, data, metadata," \
	" CASE WHEN class IS NULL AND type IS NOT NULL THEN evento._class_of(type) ELSE class END," \
	" \"timestamp\", recorded_at, force_telemetry"
#define EVP_EVENT_COLUMN_COUNT 12

/* The types of those columns, for evp_rows_are. */
#define EVP_EVENT_COLUMN_TYPES \
	EVP_OID_INT8, EVP_OID_INT8, EVP_OID_UUID, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_TEXT, EVP_OID_JSON, EVP_OID_JSON, \
	EVP_OID_TEXT, EVP_OID_TIMESTAMPTZ, EVP_OID_TIMESTAMPTZ, EVP_OID_BOOL

/*
 * Reads an event whose columns begin at first; its slices lie in the result.  False where a needed value is missing.
 * data is none of these: an event that was erased has none, and is not given to bundles.
 */
bool evp_story_event(const PGresult *rows, int row, int first, evp_event_t *event);

/*
 * Rows of load_stream (part, then the event columns) as a story.  Gives the
 * events in memory that the caller frees (NULL where there are none), and false
 * where the rows are of another shape.
 */
bool evp_story_read(const PGresult *rows, evp_story_t *story, evp_event_t **memory);

/* What evp_store_load does (store.h), and, with since, evp_store_load_near. */
void evp_story_load(evp_proxy_t *proxy, uint64_t source, const char *stream, size_t len, const uint8_t *id, evp_load_what_t what,
					const uint64_t *since, uint64_t deadline, evp_load_cb cb, void *arg);

#endif /* EVP_STORY_H */
