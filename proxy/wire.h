/*
 * wire.h
 *    Frames: bytes of a connection to messages, and messages to frames.
 *
 * In: the parser takes the bytes as they come, in any portions, and gives
 * whole messages (FULL bodies and reassembled chunk streams).  Out: a message
 * is one frame, or a sequence of chunks that is produced frame by frame, so
 * that other messages can go out between them.
 */
#ifndef EVP_WIRE_H
#define EVP_WIRE_H

#include "buf.h"

#define EVP_WIRE_MAX_FRAME		((size_t) 16 * 1024 * 1024 - 4) /* body of a frame */
#define EVP_WIRE_MAX_CHUNK		((size_t) 16 * 1024 * 1024 - 22)	/* data of a chunk */
#define EVP_WIRE_MAX_MESSAGE	((size_t) 256 * 1024 * 1024)
#define EVP_WIRE_MAX_HELD		((size_t) 512 * 1024 * 1024)	/* all unfinished streams of a connection */
#define EVP_WIRE_MAX_STREAMS	1024
#define EVP_WIRE_TIMEOUT_MS		60000	/* for a frame or a stream, from its first byte */
#define EVP_WIRE_SLOWEST		64	/* bytes a millisecond at which a large frame may take longer */

#define EVP_WIRE_FULL	0x00
#define EVP_WIRE_CHUNK	0x01

struct evp_wire_stream;

/* The state of one direction of a connection.  Embed it; the fields are the
 * parser's, but the limits may be lowered after evp_wire_init. */
typedef struct evp_wire
{
	/* limits */
	size_t		max_frame;
	size_t		max_message;
	size_t		max_held;
	size_t		max_streams;
	int64_t		timeout_ms;		/* of a frame */
	int64_t		stream_timeout_ms;	/* of a message in chunks */

	/* the frame that is being read */
	uint8_t		head[22];		/* length, type, stream id, last */
	size_t		head_len;
	size_t		body_len;		/* what its length field says */
	size_t		data_left;		/* data bytes of the frame still to come */
	evp_buf_t	full;			/* the part of a FULL body that has come */
	struct evp_wire_stream *chunk;	/* the stream that the data belongs to */
	int64_t		frame_since;	/* when its first byte came */

	/* unfinished streams, by id, the oldest first */
	struct evp_wire_stream *streams;
	size_t		n_streams;
	size_t		held;			/* bytes in them */

	const char *error;
} evp_wire_t;

/* A parser with the protocol's limits.  Allocates nothing. */
void		evp_wire_init(evp_wire_t *w);

/* Frees what is unfinished. */
void		evp_wire_free(evp_wire_t *w);

/*
 * Takes bytes from *p, *n, which move on by what was consumed, at most up to
 * the end of one message.  Gives 1 and in *message a blob (the caller's
 * reference) with exactly the CBOR item when a message is complete: call again
 * with what is left.  Gives 0 when all bytes are consumed.  Gives -1 on a
 * protocol error, which evp_wire_error() names; the connection is to be closed.
 * A length that a frame claims allocates nothing: memory grows with the bytes.
 */
int			evp_wire_feed(evp_wire_t *w, const uint8_t **p, size_t *n, int64_t now_ms, evp_blob_t **message);

/* When the oldest unfinished frame or stream is overdue (the clock of
 * now_ms), INT64_MAX where there is none. */
int64_t		evp_wire_deadline(const evp_wire_t *w);

/* -1, and the error set, when something is overdue; else 0. */
int			evp_wire_check(evp_wire_t *w, int64_t now_ms);

/* What was wrong, static text; NULL as long as all is well. */
const char *evp_wire_error(const evp_wire_t *w);

/* Bytes held for unfinished frames and streams. */
size_t		evp_wire_held(const evp_wire_t *w);

/*
 * A message to send, in up to three parts that follow one another: what was
 * encoded before the payload, the payload as it came in, what was encoded
 * behind it.  Each part holds a reference to its owner.
 */
#define EVP_PARTS_MAX 3
typedef struct evp_parts
{
	evp_slice_t part[EVP_PARTS_MAX];
	unsigned	n;
	size_t		len;			/* of all together */
} evp_parts_t;

/* A message that is the whole of one blob, whose reference is taken over. */
void		evp_parts_blob(evp_parts_t *parts, evp_blob_t *blob);

/* A second holder of the same bytes. */
void		evp_parts_ref(evp_parts_t *to, const evp_parts_t *from);

/* Gives up the references; the message is empty afterwards. */
void		evp_parts_free(evp_parts_t *parts);

/* A message on its way out. */
typedef struct evp_wire_out
{
	evp_parts_t message;
	size_t		max_frame;		/* EVP_WIRE_MAX_FRAME */
	size_t		sent;			/* bytes of it that frames were made for */
	bool		chunked;
	bool		done;
	uint8_t		stream[16];
} evp_wire_out_t;

/* One frame: header bytes, then the slices (borrowed from the message). */
typedef struct evp_wire_frame
{
	uint8_t		head[22];
	size_t		head_len;
	evp_slice_t part[EVP_PARTS_MAX];
	unsigned	n;
	size_t		len;			/* header and slices together */
} evp_wire_frame_t;

/* Begins to send a message, whose references are taken over. */
void		evp_wire_out_init(evp_wire_out_t *o, evp_parts_t *message);

/* The next frame of it.  False when there was none left. */
bool		evp_wire_out_next(evp_wire_out_t *o, evp_wire_frame_t *frame);

/* Frees the message; frames made from it are void. */
void		evp_wire_out_free(evp_wire_out_t *o);

/* Appends a message of any length to a buffer as the frames it takes. */
bool		evp_wire_frame(evp_buf_t *b, const void *message, size_t n);

#endif							/* EVP_WIRE_H */
