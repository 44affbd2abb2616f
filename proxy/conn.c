/*
 * conn.c
 *    Reads frames, queues messages, writes frames.
 */
#include "conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>

#include "metrics.h"
#include "tls.h"

#define BATCH_FRAMES 64
#define BATCH_BYTES	((size_t) 1024 * 1024)	/* a batch takes no further frame beyond this */
#define FRAME_BUFS	(EVP_PARTS_MAX + 1)
#define STREAM_BYTES	((size_t) 256)	/* what an unfinished chunk stream takes beside its data, about */

struct evp_out
{
	evp_wire_out_t wire;
	size_t		len;
	evp_out_t  *next;
};

struct evp_batch
{
	uv_write_t	request;
	evp_conn_t *conn;
	evp_out_t  *done;			/* messages whose last frame is in this batch */
	size_t		bytes;
	unsigned	frames;
	unsigned	bufs;
	uv_buf_t	buf[BATCH_FRAMES * FRAME_BUFS];
	uint8_t		head[BATCH_FRAMES][sizeof(((evp_wire_frame_t *) 0)->head)];
};

static void ended(void *arg);
static void flush(evp_conn_t *conn);
static void resume(evp_conn_t *conn);

static void
mark_dirty(evp_conn_t *conn)
{
	if (conn->dirty)
		return;
	conn->dirty = true;
	conn->next_dirty = conn->hub->dirty;
	conn->hub->dirty = conn;
	evp_turn_wake(&conn->hub->turn);
}

static void
unmark_dirty(evp_conn_t *conn)
{
	evp_conn_t **link = &conn->hub->dirty;

	if (!conn->dirty)
		return;
	while (*link != conn)
		link = &(*link)->next_dirty;
	*link = conn->next_dirty;
	conn->dirty = false;
}

static void
on_turn(void *arg)
{
	evp_hub_t  *hub = arg;

	/* What is queued from within goes out in this turn as well. */
	while (hub->dirty != NULL)
	{
		evp_conn_t *conn = hub->dirty;

		hub->dirty = conn->next_dirty;
		conn->dirty = false;
		if (conn->doomed != NULL)
			conn->callbacks->on_broken(conn, conn->doomed, true);
		else
		{
			resume(conn);
			flush(conn);
		}
	}
}

void
evp_hub_init(evp_hub_t *hub, uv_loop_t *loop)
{
	hub->loop = loop;
	hub->tls = NULL;
	hub->dirty = NULL;
	hub->conns = NULL;
	hub->count = 0;
	hub->spare = NULL;
	hub->held = 0;
	hub->queued = 0;
	evp_turn_init(&hub->turn, loop, on_turn, hub);
}

void
evp_hub_stop(evp_hub_t *hub)
{
	evp_turn_stop(&hub->turn);
}

void
evp_hub_free(evp_hub_t *hub)
{
	free(hub->spare);
	hub->spare = NULL;
}

/* ---- input ---- */

static void
count_held(evp_conn_t *conn)
{
	size_t		held = evp_wire_held(&conn->wire) + conn->wire.n_streams * STREAM_BYTES;

	conn->hub->held = conn->hub->held - conn->held + held;
	conn->held = held;
}

/* Closes the connection that holds most unfinished input: what all hold is past its bound. */
static void
doom_holder(evp_hub_t *hub)
{
	evp_conn_t *largest = NULL;

	for (evp_conn_t *conn = hub->conns; conn != NULL; conn = conn->next)
	{
		if (conn->doomed == NULL && (largest == NULL || conn->held > largest->held))
			largest = conn;
	}
	if (largest == NULL)
		return;
	/* From now on it holds nothing: others that read in this turn are not closed for it. */
	hub->held -= largest->held;
	largest->held = 0;
	largest->doomed = "unfinished input of all connections passes input-bytes, and this one has most of it";
	mark_dirty(largest);
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	evp_conn_t *conn = handle->data;

	/* One buffer serves all: what is in it is used up before another connection reads. */
	(void) suggested;
	*buf = uv_buf_init((char *) conn->hub->buffer, EVP_CONN_READ_SIZE);
}

static void
take_bytes(evp_conn_t *conn, const uint8_t *p, size_t n)
{
	int64_t		now = (int64_t) conn->last_read;

	while (n > 0 && !conn->closing && !conn->deaf)
	{
		evp_blob_t *message = NULL;
		int			rc = evp_wire_feed(&conn->wire, &p, &n, now, &message);

		if (rc < 0)
		{
			conn->callbacks->on_broken(conn, evp_wire_error(&conn->wire), true);
			return;
		}
		if (rc == 0)
			break;
		conn->callbacks->on_message(conn, message);
		evp_blob_unref(message);
	}
	if (conn->closing || conn->doomed != NULL)
		return;
	count_held(conn);
	if (conn->hub->held > conn->hub->max_held)
		doom_holder(conn->hub);
	if (evp_wire_deadline(&conn->wire) != INT64_MAX)
		conn->callbacks->on_unfinished(conn);
}

/* There is more on it than its share of a turn: the others come first. */
static void
pause_reading(evp_conn_t *conn)
{
	EVP_COUNT(reads_paused);
	conn->paused = true;
	uv_read_stop((uv_stream_t *) &conn->tcp);
	mark_dirty(conn);
}

static void
on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
	evp_conn_t *conn = stream->data;

	if (nread == 0 || conn->closing)
		return;
	if (nread < 0)
	{
		uv_read_stop(stream);
		if (nread == UV_EOF)
			ended(conn);
		else
			conn->callbacks->on_broken(conn, uv_strerror((int) nread), false);
		return;
	}
	conn->last_read = uv_now(conn->hub->loop);
	evp_metrics.bytes_in += (uint64_t) nread;
	if (conn->tls != NULL)
		evp_tls_io_input(conn->tls, (const uint8_t *) buf->base, (size_t) nread);
	else
		take_bytes(conn, (const uint8_t *) buf->base, (size_t) nread);
	if ((size_t) nread == EVP_CONN_READ_SIZE && !conn->closing)
		pause_reading(conn);
}

static void
resume(evp_conn_t *conn)
{
	if (!conn->paused)
		return;
	conn->paused = false;
	if (uv_read_start((uv_stream_t *) &conn->tcp, on_alloc, on_read) < 0)
		conn->callbacks->on_broken(conn, "closed by the peer", false);
}

uint64_t
evp_conn_deadline(const evp_conn_t *conn)
{
	int64_t		deadline = evp_wire_deadline(&conn->wire);

	return deadline == INT64_MAX ? UINT64_MAX : (uint64_t) (deadline < 0 ? 0 : deadline);
}

/* ---- output ---- */

static void
free_outs(evp_out_t *out)
{
	while (out != NULL)
	{
		evp_out_t  *next = out->next;

		evp_wire_out_free(&out->wire);
		free(out);
		out = next;
	}
}

/* Closes the connection that has most waiting to be sent: what all have is past its bound. */
static void
doom_largest(evp_hub_t *hub)
{
	evp_conn_t *largest = NULL;

	for (evp_conn_t *conn = hub->conns; conn != NULL; conn = conn->next)
	{
		if (conn->doomed == NULL && (largest == NULL || conn->queued > largest->queued))
			largest = conn;
	}
	if (largest != NULL)
	{
		largest->doomed = "output of all connections passes output-total, and this one has most of it";
		mark_dirty(largest);
	}
}

int
evp_conn_send(evp_conn_t *conn, evp_parts_t *message)
{
	evp_out_t  *out;

	if (conn->closing || conn->finishing || conn->doomed != NULL)
	{
		evp_parts_free(message);
		return -1;
	}
	out = malloc(sizeof(*out));
	if (out == NULL || message->len > conn->hub->max_queued - conn->queued)
	{
		free(out);
		evp_parts_free(message);
		/* Not closed from within: the caller may be in the middle of its own tables. */
		conn->doomed = out == NULL ? "no memory for its output" : "output passes output-bytes: it does not read";
		mark_dirty(conn);
		return -1;
	}
	out->len = message->len;
	out->next = NULL;
	evp_wire_out_init(&out->wire, message);
	if (conn->tail != NULL)
		conn->tail->next = out;
	else
		conn->head = out;
	conn->tail = out;
	conn->queued += out->len;
	conn->hub->queued += out->len;
	if (conn->hub->queued > conn->hub->max_queued_total)
		doom_largest(conn->hub);
	if (conn->writing == NULL)
		mark_dirty(conn);
	return conn->doomed == NULL ? 0 : -1;
}

static void
batch_add(evp_batch_t *batch, const evp_wire_frame_t *frame)
{
	memcpy(batch->head[batch->frames], frame->head, frame->head_len);
	batch->buf[batch->bufs++] = uv_buf_init((char *) batch->head[batch->frames], (unsigned) frame->head_len);
	for (unsigned i = 0; i < frame->n; i++)
	{
		if (frame->part[i].n > 0)
			batch->buf[batch->bufs++] = uv_buf_init((char *) frame->part[i].p, (unsigned) frame->part[i].n);
	}
	batch->frames++;
	batch->bytes += frame->len;
}

/*
 * Moves frames of queued messages into a batch.  A message in chunks gives one
 * and goes to the end of the queue, so that it doesn't hold up small ones.
 */
static void
batch_fill(evp_conn_t *conn, evp_batch_t *batch)
{
	batch->conn = conn;
	batch->done = NULL;
	batch->bytes = 0;
	batch->frames = 0;
	batch->bufs = 0;
	while (conn->head != NULL && batch->frames < BATCH_FRAMES && batch->bytes < BATCH_BYTES)
	{
		evp_out_t  *out = conn->head;
		evp_wire_frame_t frame;

		conn->head = out->next;
		if (conn->head == NULL)
			conn->tail = NULL;
		if (evp_wire_out_next(&out->wire, &frame))
			batch_add(batch, &frame);
		if (out->wire.done)
		{
			conn->queued -= out->len;
			conn->hub->queued -= out->len;
			out->next = batch->done;
			batch->done = out;
			continue;
		}
		out->next = NULL;
		if (conn->tail != NULL)
			conn->tail->next = out;
		else
			conn->head = out;
		conn->tail = out;
	}
}

static void
batch_release(evp_hub_t *hub, evp_batch_t *batch)
{
	free_outs(batch->done);
	batch->done = NULL;
	if (hub->spare == NULL)
		hub->spare = batch;
	else
		free(batch);
}

static void
on_shutdown(uv_shutdown_t *request, int status)
{
	/* The peer closes its side now, or the owner's patience ends. */
	(void) request;
	(void) status;
}

static void
on_batch_written(void *arg, int status)
{
	evp_batch_t *batch = arg;
	evp_conn_t *conn = batch->conn;

	conn->writing = NULL;
	batch_release(conn->hub, batch);
	if (conn->closing)
		return;
	if (status < 0)
	{
		conn->callbacks->on_broken(conn, uv_strerror(status), false);
		return;
	}
	conn->last_write = uv_now(conn->hub->loop);
	flush(conn);
}

static void
on_written(uv_write_t *request, int status)
{
	on_batch_written(request->data, status);
}

/* Drops the first n bytes from the buffers of a batch. */
static uv_buf_t *
batch_skip(evp_batch_t *batch, size_t n, unsigned *left)
{
	unsigned	i = 0;

	while (i < batch->bufs && n >= batch->buf[i].len)
		n -= batch->buf[i++].len;
	*left = batch->bufs - i;
	if (*left > 0)
	{
		batch->buf[i].base += n;
		batch->buf[i].len -= n;
	}
	return &batch->buf[i];
}

/* Writes a batch, as much as the socket takes at once; the rest is libuv's until on_batch_written.  1: it is written; 0: it
 * will be; else a libuv error. */
static int
write_batch(evp_conn_t *conn, evp_batch_t *batch)
{
	unsigned	left;
	uv_buf_t   *rest;
	int			rc;

	if (conn->tls != NULL)
		return evp_tls_io_write(conn->tls, batch->buf, batch->bufs, on_batch_written, batch);
	rc = uv_try_write((uv_stream_t *) &conn->tcp, batch->buf, batch->bufs);
	if (rc >= 0 && (size_t) rc == batch->bytes)
		return 1;
	if (rc < 0 && rc != UV_EAGAIN)
		return rc;
	if (rc > 0)
		conn->last_write = uv_now(conn->hub->loop);
	rest = batch_skip(batch, rc > 0 ? (size_t) rc : 0, &left);
	batch->request.data = batch;
	return uv_write(&batch->request, (uv_stream_t *) &conn->tcp, rest, left, on_written);
}

/* Writes what is queued, a batch at a time. */
static void
flush(evp_conn_t *conn)
{
	evp_hub_t  *hub = conn->hub;

	while (conn->head != NULL && conn->writing == NULL && !conn->closing)
	{
		evp_batch_t *batch = hub->spare != NULL ? hub->spare : malloc(sizeof(*batch));
		int			rc;

		hub->spare = NULL;
		if (batch == NULL)
		{
			conn->callbacks->on_broken(conn, "no memory for its output", false);
			return;
		}
		batch_fill(conn, batch);
		evp_metrics.bytes_out += batch->bytes;
		rc = write_batch(conn, batch);
		if (rc == 0)
		{
			conn->writing = batch;
			break;
		}
		batch_release(hub, batch);
		if (rc < 0)
		{
			conn->callbacks->on_broken(conn, uv_strerror(rc), false);
			return;
		}
		conn->last_write = uv_now(hub->loop);
	}
	if (conn->finishing && conn->head == NULL && conn->writing == NULL && !conn->shut && !conn->closing)
	{
		conn->shut = true;
		if (conn->tls != NULL)
			evp_tls_io_end(conn->tls);
		if (uv_shutdown(&conn->shutdown, (uv_stream_t *) &conn->tcp, on_shutdown) < 0)
			conn->callbacks->on_broken(conn, "closed by the peer", false);
	}
}

/* The peer has closed its side; it may still read.  One that is let go shows by that that it has read to the end, so
 * nothing more is written to it. */
static void
ended(void *arg)
{
	evp_conn_t *conn = arg;

	if (conn->doomed == NULL && (!conn->finishing || conn->deaf))
		flush(conn);
	if (conn->closing)
		return;
	if (conn->tls != NULL && conn->head == NULL && conn->writing == NULL && !conn->shut)
		evp_tls_io_end(conn->tls);
	conn->callbacks->on_broken(conn, "closed by the peer", false);
}

/* ---- TLS ---- */

static void
on_plain(void *arg, const uint8_t *p, size_t n)
{
	take_bytes(arg, p, n);
}

static void
on_tls_failed(void *arg, const char *reason, bool breach)
{
	evp_conn_t *conn = arg;

	conn->callbacks->on_broken(conn, reason, breach);
}

/* 0, or a libuv error. */
static int
begin_tls(evp_conn_t *conn)
{
	static const evp_tls_io_callbacks_t callbacks = {NULL, on_plain, ended, on_tls_failed};
	SSL		   *ssl = evp_tls_session(conn->hub->tls, EVP_TLS_BUNDLE, false);

	conn->tls = evp_tls_io_new(ssl, false, (uv_stream_t *) &conn->tcp, &callbacks, conn);
	return conn->tls == NULL ? UV_ENOBUFS : 0;
}

char	  **
evp_conn_cert_names(const evp_conn_t *conn)
{
	return conn->tls == NULL ? NULL : evp_tls_io_names(conn->tls);
}

/* ---- beginning and end ---- */

static void
name_peer(evp_conn_t *conn)
{
	struct sockaddr_storage address;
	int			len = sizeof(address);
	char		host[INET6_ADDRSTRLEN] = "";

	snprintf(conn->peer, sizeof(conn->peer), "unknown");
	if (uv_tcp_getpeername(&conn->tcp, (struct sockaddr *) &address, &len) < 0)
		return;
	if (address.ss_family == AF_INET && uv_ip4_name((struct sockaddr_in *) &address, host, sizeof(host)) == 0)
		snprintf(conn->peer, sizeof(conn->peer), "%s:%d", host, ntohs(((struct sockaddr_in *) &address)->sin_port));
	else if (address.ss_family == AF_INET6 && uv_ip6_name((struct sockaddr_in6 *) &address, host, sizeof(host)) == 0)
		snprintf(conn->peer, sizeof(conn->peer), "[%s]:%d", host, ntohs(((struct sockaddr_in6 *) &address)->sin6_port));
}

int
evp_conn_accept(evp_conn_t *conn, evp_hub_t *hub, uv_stream_t *listener, const evp_conn_callbacks_t *callbacks)
{
	int			rc;

	memset(conn, 0, sizeof(*conn));
	conn->hub = hub;
	conn->callbacks = callbacks;
	conn->last_read = conn->last_write = uv_now(hub->loop);
	evp_wire_init(&conn->wire);
	conn->next = hub->conns;
	if (hub->conns != NULL)
		hub->conns->prev = conn;
	hub->conns = conn;
	hub->count++;
	snprintf(conn->peer, sizeof(conn->peer), "unknown");
	/* Makes no socket, so it cannot fail. */
	uv_tcp_init(hub->loop, &conn->tcp);
	conn->tcp.data = conn;
	rc = uv_accept(listener, (uv_stream_t *) &conn->tcp);
	if (rc == 0)
	{
		name_peer(conn);
		rc = uv_tcp_nodelay(&conn->tcp, 1);
	}
	if (rc == 0 && hub->tls != NULL)
		rc = begin_tls(conn);
	if (rc == 0)
		rc = uv_read_start((uv_stream_t *) &conn->tcp, on_alloc, on_read);
	if (rc < 0)
		evp_conn_close(conn);
	return rc;
}

void
evp_conn_finish(evp_conn_t *conn)
{
	if (conn->closing || conn->deaf)
		return;
	conn->deaf = true;
	evp_wire_free(&conn->wire);
	count_held(conn);
	evp_conn_leave(conn);
}

void
evp_conn_leave(evp_conn_t *conn)
{
	if (conn->closing || conn->finishing)
		return;
	conn->finishing = true;
	mark_dirty(conn);
}

bool
evp_conn_has_left(const evp_conn_t *conn)
{
	return conn->shut;
}

static void
on_tcp_closed(uv_handle_t *handle)
{
	evp_conn_t *conn = handle->data;

	/* Writes that were under way have been called back before this. */
	free_outs(conn->head);
	conn->head = conn->tail = NULL;
	evp_tls_io_free(conn->tls);
	conn->tls = NULL;
	evp_wire_free(&conn->wire);
	conn->callbacks->on_closed(conn);
}

void
evp_conn_close(evp_conn_t *conn)
{
	evp_hub_t  *hub = conn->hub;

	if (conn->closing)
		return;
	conn->closing = true;
	unmark_dirty(conn);
	if (conn->prev != NULL)
		conn->prev->next = conn->next;
	else
		hub->conns = conn->next;
	if (conn->next != NULL)
		conn->next->prev = conn->prev;
	hub->count--;
	hub->held -= conn->held;
	conn->held = 0;
	hub->queued -= conn->queued;
	conn->queued = 0;
	uv_close((uv_handle_t *) &conn->tcp, on_tcp_closed);
}
