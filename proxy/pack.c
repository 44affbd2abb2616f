/*
 * pack.c
 *    Writes batches for evento.append_batch in the packed form of
 *    include/packed.h.
 */
#include "pack.h"

#define BATCH_HEAD	(4 + 4)		/* magic, number of items */
#define ITEM_HEAD	(4 + 2 + 8 + 2) /* length, flags, expected, length of stream */
#define EVENT_HEAD	(1 + 2 + 2 + 2 + 4) /* flags and the four lengths that are always there */
#define EVENTS_MAX	UINT16_MAX

static void
put_u64(evp_buf_t *b, int64_t v)
{
	evp_buf_append_u64(b, (uint64_t) v);
}

static void
put_short(evp_buf_t *b, evp_slice_t s)
{
	evp_buf_append_u16(b, (uint16_t) s.n);
	evp_buf_append(b, s.p, s.n);
}

static void
put_long(evp_buf_t *b, evp_slice_t s)
{
	evp_buf_append_u32(b, (uint32_t) s.n);
	evp_buf_append(b, s.p, s.n);
}

static size_t
event_size(const evp_event_t *e)
{
	return EVENT_HEAD + (e->has_id ? 16 : 0) + (e->has_timestamp ? 8 : 0) + e->type.n + e->context.n + e->klass.n + e->data.n +
		(e->metadata.p != NULL ? 4 + e->metadata.n : 0);
}

size_t
evp_pack_size(const evp_pack_item_t *item)
{
	size_t		size = ITEM_HEAD + item->stream.n + 2;

	if (item->flags & EVENTO_ITEM_LOCK)
		size += 2 + item->lock.n + 8;
	if (item->flags & EVENTO_ITEM_SINCE)
		size += 8;
	if (item->flags & EVENTO_ITEM_SNAPSHOT)
		size += 2 + item->state_class.n + 4 + item->state.n;
	for (size_t i = 0; i < item->n_events; i++)
		size += event_size(&item->events[i]);
	return size;
}

size_t
evp_pack_since_offset(const evp_pack_item_t *item)
{
	return BATCH_HEAD + ITEM_HEAD + item->stream.n + (item->flags & EVENTO_ITEM_LOCK ? 2 + item->lock.n + 8 : 0);
}

static const char *
check_event(const evp_event_t *e)
{
	if (e->type.n == 0)
		return "event without a type";
	if (e->type.n > EVENTO_MAX_TYPE_LEN)
		return "type is too long";
	if (e->context.n > EVENTO_MAX_CONTEXT_LEN)
		return "context is too long";
	if (e->klass.n > EVENTO_MAX_CLASS_LEN)
		return "class is too long";
	if (e->data.n == 0)
		return "event without data";
	if (e->data.n > UINT32_MAX || e->metadata.n > UINT32_MAX)
		return "event is too long";
	return NULL;
}

static const char *
check_item(const evp_pack_item_t *item)
{
	const char *reason;

	if (item->flags & ~EVENTO_ITEM_FLAGS)
		return "unknown flag";
	if ((item->flags & EVENTO_ITEM_SNAPSHOT) && (item->flags & EVENTO_ITEM_DROP_SNAPSHOTS))
		return "snapshot to save and to drop at once";
	if (item->expected < 0 && item->expected != EVENTO_EXPECTED_ANY && item->expected != EVENTO_EXPECTED_EXISTS)
		return "unknown expected version";
	if (item->stream.p != NULL && item->stream.n == 0)
		return "stream without a name";
	if (item->stream.n > EVENTO_MAX_STREAM_LEN)
		return "name of the stream is too long";
	if ((item->flags & EVENTO_ITEM_LOCK) && item->lock.n == 0)
		return "lock without a name";
	if ((item->flags & EVENTO_ITEM_LOCK) && item->lock.n > EVENTO_MAX_STREAM_LEN)
		return "name of the lock is too long";
	if (item->flags & EVENTO_ITEM_SNAPSHOT)
	{
		if (item->state.n == 0)
			return "snapshot without a state";
		if (item->state.n > UINT32_MAX)
			return "snapshot is too long";
		if (item->state_class.n > EVENTO_MAX_CLASS_LEN)
			return "class of the snapshot is too long";
	}
	if (item->n_events == 0)
		return "append without events";
	if (item->n_events > EVENTS_MAX)
		return "too many events in one append";
	for (size_t i = 0; i < item->n_events; i++)
	{
		reason = check_event(&item->events[i]);
		if (reason != NULL)
			return reason;
	}
	return NULL;
}

static void
put_event(evp_buf_t *b, const evp_event_t *e)
{
	evp_buf_append_u8(b, (uint8_t) ((e->has_id ? EVENTO_EVENT_ID : 0) |
									(e->has_timestamp ? EVENTO_EVENT_TIMESTAMP : 0) |
									(e->metadata.p != NULL ? EVENTO_EVENT_METADATA : 0) |
									(e->service ? EVENTO_EVENT_SERVICE : 0) |
									(e->force_telemetry ? EVENTO_EVENT_FORCE_TELEMETRY : 0)));
	if (e->has_id)
		evp_buf_append(b, e->id, 16);
	if (e->has_timestamp)
		put_u64(b, e->timestamp_ms);
	put_short(b, e->type);
	put_short(b, e->context);
	put_short(b, e->klass);
	put_long(b, e->data);
	if (e->metadata.p != NULL)
		put_long(b, e->metadata);
}

void
evp_pack_open(evp_pack_t *pack, evp_buf_t *b)
{
	*pack = (evp_pack_t) {.buf = b,.start = b->len};
	evp_buf_append_u32(b, EVENTO_PACKED_MAGIC);
	evp_buf_append_u32(b, 0);
}

const char *
evp_pack_add(evp_pack_t *pack, const evp_pack_item_t *item)
{
	evp_buf_t  *b = pack->buf;
	const char *reason = check_item(item);
	size_t		size;

	if (reason != NULL)
		return reason;
	if (pack->n_items == EVENTO_PACKED_MAX_ITEMS)
		return "too many appends in one batch";
	size = evp_pack_size(item);
	if (b->failed || size - 4 > UINT32_MAX || size > b->max - b->len || evp_buf_reserve(b, size) == NULL)
		return "batch is too long";

	evp_buf_append_u32(b, (uint32_t) (size - 4));
	evp_buf_append_u16(b, item->flags);
	put_u64(b, item->expected);
	put_short(b, item->stream);
	if (item->flags & EVENTO_ITEM_LOCK)
	{
		put_short(b, item->lock);
		put_u64(b, item->fence);
	}
	if (item->flags & EVENTO_ITEM_SINCE)
		put_u64(b, item->since);
	if (item->flags & EVENTO_ITEM_SNAPSHOT)
	{
		put_short(b, item->state_class);
		put_long(b, item->state);
	}
	evp_buf_append_u16(b, (uint16_t) item->n_events);
	for (size_t i = 0; i < item->n_events; i++)
		put_event(b, &item->events[i]);
	pack->n_items++;
	return NULL;
}

bool
evp_pack_close(evp_pack_t *pack)
{
	if (pack->buf->failed || pack->n_items == 0)
		return false;
	evp_buf_set_u32(pack->buf, pack->start + 4, pack->n_items);
	return true;
}
