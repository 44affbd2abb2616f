/*
 * wire.c
 *    Frames: bytes of a connection to messages, and messages to frames.
 */
#include "wire.h"

#include <stdlib.h>

#define uthash_fatal(msg) abort()
#include <uthash.h>

#include "uuid.h"

#define LENGTH_SIZE	4			/* the length field */
#define TYPE_END	5			/* with the type byte */
#define CHUNK_END	22			/* with stream id and last */
#define CHUNK_EXTRA	18			/* what a chunk's body has beside its data */

/* An unfinished chunk stream. */
typedef struct evp_wire_stream
{
	uint8_t		id[16];
	bool		last;			/* its last chunk is being read */
	int64_t		since;			/* when its first chunk came */
	evp_buf_t	data;
	UT_hash_handle hh;			/* keeps the order of insertion: the head is the oldest */
} evp_wire_stream_t;

void
evp_wire_init(evp_wire_t *w)
{
	*w = (evp_wire_t) {
		.max_frame = EVP_WIRE_MAX_FRAME,
		.max_message = EVP_WIRE_MAX_MESSAGE,
		.max_held = EVP_WIRE_MAX_HELD,
		.max_streams = EVP_WIRE_MAX_STREAMS,
		.timeout_ms = EVP_WIRE_TIMEOUT_MS,
		.stream_timeout_ms = EVP_WIRE_TIMEOUT_MS,
	};
	evp_buf_init(&w->full, 0);
}

/* Takes a stream out of the table and frees it. */
static void
stream_free(evp_wire_t *w, evp_wire_stream_t *s)
{
	HASH_DEL(w->streams, s);
	w->n_streams--;
	w->held -= s->data.len;
	evp_buf_free(&s->data);
	free(s);
}

void
evp_wire_free(evp_wire_t *w)
{
	while (w->streams != NULL)
		stream_free(w, w->streams);
	w->chunk = NULL;
	w->head_len = 0;
	evp_buf_free(&w->full);
}

const char *
evp_wire_error(const evp_wire_t *w)
{
	return w->error;
}

size_t
evp_wire_held(const evp_wire_t *w)
{
	return w->held + w->full.len;
}

/* When the frame that is being read is overdue.  Each EVP_WIRE_SLOWEST bytes of it that came give it a millisecond more. */
static int64_t
frame_deadline(const evp_wire_t *w)
{
	size_t		came = w->head_len < TYPE_END ? 0 : w->body_len - w->data_left;

	return w->frame_since + w->timeout_ms + (int64_t) (came / EVP_WIRE_SLOWEST);
}

int64_t
evp_wire_deadline(const evp_wire_t *w)
{
	int64_t		deadline = INT64_MAX;

	if (w->head_len > 0)
		deadline = frame_deadline(w);
	if (w->streams != NULL && w->streams->since + w->stream_timeout_ms < deadline)
		deadline = w->streams->since + w->stream_timeout_ms;
	return deadline;
}

static int
fail(evp_wire_t *w, const char *reason)
{
	if (w->error == NULL)
		w->error = reason;
	return -1;
}

int
evp_wire_check(evp_wire_t *w, int64_t now_ms)
{
	if (w->error != NULL)
		return -1;
	if (w->streams != NULL && now_ms >= w->streams->since + w->stream_timeout_ms)
		return fail(w, "chunk stream not finished in time");
	if (w->head_len > 0 && now_ms >= frame_deadline(w))
		return fail(w, "frame not finished in time");
	return 0;
}

static uint32_t
get_u32(const uint8_t *p)
{
	return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];
}

/* The head of a chunk is complete: finds or begins its stream and checks the bounds. */
static int
chunk_begin(evp_wire_t *w, int64_t now_ms)
{
	const uint8_t *id = w->head + TYPE_END;
	evp_wire_stream_t *s;

	if (w->head[CHUNK_END - 1] > 1)
		return fail(w, "malformed chunk");
	w->data_left = w->body_len - CHUNK_EXTRA;
	HASH_FIND(hh, w->streams, id, 16, s);
	if (s == NULL)
	{
		if (w->n_streams >= w->max_streams)
			return fail(w, "too many unfinished chunk streams");
		s = calloc(1, sizeof(*s));
		if (s == NULL)
			return fail(w, "out of memory");
		memcpy(s->id, id, 16);
		s->since = now_ms;
		evp_buf_init(&s->data, w->max_message);
		HASH_ADD(hh, w->streams, id, 16, s);
		w->n_streams++;
	}
	if (w->data_left > w->max_message - s->data.len)
		return fail(w, "message too long");
	if (w->data_left > w->max_held - w->held)
		return fail(w, "too many bytes in unfinished chunk streams");
	s->last = w->head[CHUNK_END - 1] == 1;
	w->chunk = s;
	return 0;
}

/*
 * Reads bytes of the frame's head.  Gives 1 when data follows, 0 when more of
 * the head is to come (or an empty frame has passed), -1 on error.
 */
static int
head_feed(evp_wire_t *w, const uint8_t **p, size_t *n, int64_t now_ms)
{
	while (*n > 0)
	{
		if (w->head_len == 0)
			w->frame_since = now_ms;
		w->head[w->head_len++] = **p;
		++*p;
		--*n;
		if (w->head_len == LENGTH_SIZE)
		{
			w->body_len = get_u32(w->head);
			if (w->body_len > w->max_frame)
				return fail(w, "frame too long");
			if (w->body_len == 0)
				w->head_len = 0;
		}
		else if (w->head_len == TYPE_END)
		{
			if (w->head[LENGTH_SIZE] == EVP_WIRE_FULL)
			{
				w->data_left = w->body_len - 1;
				/* Growing by doubling ends at exactly the frame's size. */
				evp_buf_init(&w->full, w->data_left);
				return 1;
			}
			if (w->head[LENGTH_SIZE] != EVP_WIRE_CHUNK)
				return fail(w, "unknown frame type");
			if (w->body_len < CHUNK_EXTRA)
				return fail(w, "malformed chunk");
		}
		else if (w->head_len == CHUNK_END)
			return chunk_begin(w, now_ms) == 0 ? 1 : -1;
	}
	return 0;
}

/* Takes data of a FULL frame: 1 with a message, 0 when more is to come, -1. */
static int
full_feed(evp_wire_t *w, const uint8_t *p, size_t n, evp_blob_t **message)
{
	w->data_left -= n;
	if (w->data_left == 0 && w->full.len == 0)
		*message = evp_blob_new(p, n);
	else if (!evp_buf_append(&w->full, p, n))
		return fail(w, "out of memory");
	else if (w->data_left > 0)
		return 0;
	else
		*message = evp_blob_from_buf(&w->full);
	w->head_len = 0;
	return *message != NULL ? 1 : fail(w, "out of memory");
}

/* Takes data of a chunk: 1 with a message, 0 when more is to come, -1. */
static int
chunk_feed(evp_wire_t *w, const uint8_t *p, size_t n, evp_blob_t **message)
{
	evp_wire_stream_t *s = w->chunk;

	w->data_left -= n;
	if (!evp_buf_append(&s->data, p, n))
		return fail(w, "out of memory");
	w->held += n;
	if (w->data_left > 0)
		return 0;
	w->head_len = 0;
	w->chunk = NULL;
	if (!s->last)
		return 0;
	w->held -= s->data.len;
	*message = evp_blob_from_buf(&s->data);
	stream_free(w, s);
	return *message != NULL ? 1 : fail(w, "out of memory");
}

int
evp_wire_feed(evp_wire_t *w, const uint8_t **p, size_t *n, int64_t now_ms, evp_blob_t **message)
{
	*message = NULL;
	if (w->error != NULL)
		return -1;

	/* Data of zero bytes is taken at once, so that no message waits for bytes of the next. */
	for (;;)
	{
		bool		full;
		size_t		take;
		int			rc;

		full = w->head_len == TYPE_END && w->head[LENGTH_SIZE] == EVP_WIRE_FULL;
		if (!full && w->head_len < CHUNK_END)
		{
			rc = head_feed(w, p, n, now_ms);
			if (rc <= 0)
				return rc;
			continue;
		}
		if (*n == 0 && w->data_left > 0)
			return 0;
		take = *n < w->data_left ? *n : w->data_left;
		rc = full ? full_feed(w, *p, take, message) : chunk_feed(w, *p, take, message);
		*p += take;
		*n -= take;
		if (rc != 0)
			return rc;
	}
}

void
evp_parts_blob(evp_parts_t *parts, evp_blob_t *blob)
{
	*parts = (evp_parts_t) {.part = {evp_slice_blob(blob)},.n = 1,.len = blob->len};
}

void
evp_parts_ref(evp_parts_t *to, const evp_parts_t *from)
{
	*to = *from;
	for (unsigned i = 0; i < to->n; i++)
		evp_blob_ref(to->part[i].owner);
}

void
evp_parts_free(evp_parts_t *parts)
{
	for (unsigned i = 0; i < parts->n; i++)
		evp_slice_unref(&parts->part[i]);
	*parts = (evp_parts_t) {0};
}

void
evp_wire_out_init(evp_wire_out_t *o, evp_parts_t *message)
{
	*o = (evp_wire_out_t) {.message = *message,.max_frame = EVP_WIRE_MAX_FRAME};
	*message = (evp_parts_t) {0};
}

void
evp_wire_out_free(evp_wire_out_t *o)
{
	evp_parts_free(&o->message);
	o->done = true;
}

static void
put_u32(uint8_t *p, size_t v)
{
	p[0] = (uint8_t) (v >> 24);
	p[1] = (uint8_t) (v >> 16);
	p[2] = (uint8_t) (v >> 8);
	p[3] = (uint8_t) v;
}

/* The slices of a message that hold its bytes from `from` on, n of them. */
static void
frame_slices(evp_wire_frame_t *f, const evp_parts_t *m, size_t from, size_t n)
{
	f->n = 0;
	for (unsigned i = 0; i < m->n && n > 0; i++)
	{
		evp_slice_t s = m->part[i];

		if (from >= s.n)
		{
			from -= s.n;
			continue;
		}
		s.p += from;
		s.n -= from;
		from = 0;
		if (s.n > n)
			s.n = n;
		n -= s.n;
		f->part[f->n++] = s;
	}
}

bool
evp_wire_out_next(evp_wire_out_t *o, evp_wire_frame_t *frame)
{
	size_t		left = o->message.len - o->sent;
	size_t		n = left;

	if (o->done)
		return false;
	if (o->sent == 0 && left > o->max_frame - 1)
	{
		o->chunked = true;
		evp_uuid_v4(o->stream);
	}
	if (o->chunked)
	{
		if (n > o->max_frame - CHUNK_EXTRA)
			n = o->max_frame - CHUNK_EXTRA;
		put_u32(frame->head, n + CHUNK_EXTRA);
		frame->head[LENGTH_SIZE] = EVP_WIRE_CHUNK;
		memcpy(frame->head + TYPE_END, o->stream, 16);
		frame->head[CHUNK_END - 1] = n == left;
		frame->head_len = CHUNK_END;
	}
	else
	{
		put_u32(frame->head, n + 1);
		frame->head[LENGTH_SIZE] = EVP_WIRE_FULL;
		frame->head_len = TYPE_END;
	}
	frame_slices(frame, &o->message, o->sent, n);
	frame->len = frame->head_len + n;
	o->sent += n;
	o->done = o->sent == o->message.len;
	return true;
}

bool
evp_wire_frame(evp_buf_t *b, const void *message, size_t n)
{
	evp_wire_out_t out = {
		.message = {.part = {evp_slice_of(message, n)},.n = 1,.len = n},
		.max_frame = EVP_WIRE_MAX_FRAME
	};
	evp_wire_frame_t frame;

	while (evp_wire_out_next(&out, &frame))
	{
		evp_buf_append(b, frame.head, frame.head_len);
		for (unsigned i = 0; i < frame.n; i++)
			evp_buf_append(b, frame.part[i].p, frame.part[i].n);
	}
	return !b->failed;
}
