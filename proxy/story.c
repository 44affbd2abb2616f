/*
 * story.c
 *    Loads stories: rows of evento.load_stream as a head, a stored event, a
 *    snapshot and events; reading them again where the database went away in
 *    the middle.
 */
#include "story.h"

#include <stdlib.h>

#include "db.h"
#include "metrics.h"
#include "reads.h"
#include "rows.h"

bool
evp_story_event(const PGresult *rows, int row, int first, evp_event_t *event)
{
	evp_slice_t kind = evp_row_bytes(rows, row, first + 5);

	*event = (evp_event_t) {.has_id = true,.has_timestamp = true};
	event->type = evp_row_bytes(rows, row, first + 3);
	event->context = evp_row_bytes(rows, row, first + 4);
	event->service = evp_slice_is(kind, "service");
	event->data = evp_row_bytes(rows, row, first + 6);
	event->metadata = evp_row_bytes(rows, row, first + 7);
	event->klass = evp_row_bytes(rows, row, first + 8);
	/* An event without stream has no version. */
	(void) evp_row_int64(rows, row, first + 1, &event->version);
	(void) evp_row_time_ms(rows, row, first + 10, &event->recorded_ms);
	(void) evp_row_bool(rows, row, first + 11, &event->force_telemetry);
	return evp_row_int64(rows, row, first, &event->position) && evp_row_uuid(rows, row, first + 2, event->id) &&
		evp_row_time_ms(rows, row, first + 9, &event->timestamp_ms) && event->type.p != NULL && kind.p != NULL;
}

/* A row of a story into its place; false where it makes no sense. */
static bool
take_part(const PGresult *rows, int row, evp_story_t *story, evp_event_t *stored, evp_event_t *events)
{
	evp_slice_t part = evp_row_bytes(rows, row, 0);

	if (evp_slice_is(part, "event"))
	{
		story->visible = true;
		if (!evp_story_event(rows, row, 1, &events[story->event_count]))
			return false;
		/* An erased event has nothing to tell. */
		if (events[story->event_count].data.p != NULL)
			story->event_count++;
		return true;
	}
	if (evp_slice_is(part, "head"))
		return evp_row_int64(rows, row, 2, &story->head);
	if (evp_slice_is(part, "stored"))
	{
		story->stored = stored;
		return evp_story_event(rows, row, 1, stored);
	}
	if (evp_slice_is(part, "snapshot"))
	{
		story->has_snapshot = true;
		story->visible = true;
		story->snapshot_state = evp_row_bytes(rows, row, 7);
		story->snapshot_class = evp_row_bytes(rows, row, 9);
		return evp_row_int64(rows, row, 2, &story->snapshot_version) && story->snapshot_state.p != NULL;
	}
	return false;
}

bool
evp_story_read(const PGresult *rows, evp_story_t *story, evp_event_t **memory)
{
	static const Oid types[] = {EVP_OID_TEXT, EVP_EVENT_COLUMN_TYPES};
	int			count = PQntuples(rows);

	*story = (evp_story_t) {.head = 0};
	*memory = NULL;
	if (count < 1 || !evp_rows_are(rows, types, 1 + EVP_EVENT_COLUMN_COUNT))
		return false;
	/* One more than rows: the stored event has its own place, so that the others lie side by side. */
	*memory = malloc(((size_t) count + 1) * sizeof(**memory));
	if (*memory == NULL)
		return false;
	story->events = *memory + 1;
	for (int row = 0; row < count; row++)
		if (!take_part(rows, row, story, *memory, *memory + 1))
		{
			free(*memory);
			*memory = NULL;
			return false;
		}
	return true;
}

/* A load that has not been answered. */
typedef struct load
{
	evp_proxy_t *proxy;
	evp_load_cb cb;
	void	   *arg;
	uint64_t	source;
	uint64_t	deadline;
	bool		has_id;
	uint8_t		id[16];
	evp_load_what_t what;
	bool		near;			/* a standby's will do that has what was committed before since */
	uint64_t	since;
	evp_db_tries_t tries;
	size_t		stream_len;
	char		stream[];
} load_t;

static void run_load(load_t *load);

static void
on_loaded(void *arg, const evp_db_result_t *result)
{
	load_t	   *load = arg;
	evp_story_t story;
	evp_event_t *memory = NULL;
	bool		passing;

	switch (result->status)
	{
		case EVP_DB_OK:
			if (evp_story_read(result->rows, &story, &memory))
			{
				story.standby = result->standby;
				load->cb(load->arg, EVP_STORE_OK, &story, NULL);
			}
			else
				load->cb(load->arg, EVP_STORE_REFUSED, NULL, "evento.load_stream is of another version, or memory is short");
			free(memory);
			break;
		case EVP_DB_UNKNOWN:
		case EVP_DB_ERROR:
			if (evp_db_read_again(load->proxy->db, result, &load->tries, load->deadline))
			{
				run_load(load);
				return;
			}
			passing = result->status == EVP_DB_UNKNOWN || evp_db_is_passing(result->sqlstate);
			load->cb(load->arg, passing ? EVP_STORE_AWAY : EVP_STORE_REFUSED, NULL, result->message);
			break;
		case EVP_DB_UNSENT:
			load->cb(load->arg, EVP_STORE_AWAY, NULL, result->message);
			break;
	}
	free(load);
}

static void
run_load(load_t *load)
{
	static const Oid types[] = {EVP_OID_TEXT, EVP_OID_UUID, EVP_OID_BOOL};
	static const int formats[] = {1, 1, 1};
	const char	snapshot = load->what == EVP_LOAD_SNAPSHOT;
	const char *values[] = {load->stream, load->has_id ? (const char *) load->id : NULL,
		load->what == EVP_LOAD_STORED ? NULL : &snapshot};
	const int	lengths[] = {(int) load->stream_len, 16, 1};
	const evp_db_statement_t statement = {.sql = "SELECT part, " EVP_EVENT_COLUMNS " FROM evento.load_stream($1, $2, $3)",
		.nparams = 3,.types = types,.values = values,.lengths = lengths,.formats = formats,.result_format = 1,
		.source = load->source,.deadline = evp_store_wait_until(load->proxy->store, load->deadline)};

	if (load->near)
		evp_reads_run(load->proxy->reads, &statement, 0, load->since, on_loaded, load);
	else
		evp_db_run(load->proxy->db, EVP_DB_READ, &statement, on_loaded, load);
}

void
evp_story_load(evp_proxy_t *proxy, uint64_t source, const char *stream, size_t len, const uint8_t *id, evp_load_what_t what,
			   const uint64_t *since, uint64_t deadline, evp_load_cb cb, void *arg)
{
	load_t	   *load = malloc(sizeof(*load) + len + 1);

	if (load == NULL)
		abort();
	load->proxy = proxy;
	load->cb = cb;
	load->arg = arg;
	load->source = source;
	load->deadline = deadline;
	load->has_id = id != NULL;
	if (id != NULL)
		memcpy(load->id, id, 16);
	load->what = what;
	load->near = since != NULL;
	load->since = since != NULL ? *since : 0;
	load->tries = (evp_db_tries_t) {.begun = evp_now(proxy)};
	load->stream_len = len;
	memcpy(load->stream, stream, len);
	load->stream[len] = '\0';
	EVP_COUNT(story_loads);
	run_load(load);
}
