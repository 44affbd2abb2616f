/*
 * link_io.c
 *    See link_io.h.
 */
#include "link_io.h"

#include <stdio.h>
#include <stdlib.h>
#include <openssl/rand.h>
#include <utlist.h>

#include "registry.h"
#include "tls.h"

#define BATCH_FRAMES	64
#define FRAME_BUFS		(1 + EVP_PARTS_MAX)

struct evp_link_out
{
	evp_link_out_t *next;
	evp_buf_t	head;			/* lengths and head */
	evp_parts_t message;
	size_t		len;
};

struct evp_link_batch
{
	uv_write_t	req;
	evp_link_t *link;
	evp_link_out_t *frames;
	size_t		len;
	unsigned	n;
	uv_buf_t	bufs[BATCH_FRAMES * FRAME_BUFS];
};

static void on_resolved(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found);
static void start_greeting(evp_link_t *link);

/* ---- life ---- */

static void
unpin(evp_link_t *link)
{
	if (--link->pins == 0)
		free(link);
}

static void
on_handle_closed(uv_handle_t *handle)
{
	evp_link_t *link = handle->data;

	evp_tls_io_free(link->tls);
	link->tls = NULL;
	unpin(link);
}

static void
free_frames(evp_link_out_t *frame)
{
	while (frame != NULL)
	{
		evp_link_out_t *next = frame->next;

		evp_buf_free(&frame->head);
		evp_parts_free(&frame->message);
		free(frame);
		frame = next;
	}
}

static void
shut(evp_link_t *link)
{
	evp_link_hub_t *hub = link->hub;

	if (!link->outgoing && link->state == EVP_LINK_GREETING)
		hub->greeting--;
	/* Cannot be stopped once it runs; on_resolved finds the link closing. */
	if (link->state == EVP_LINK_RESOLVING)
		uv_cancel((uv_req_t *) &link->lookup);
	link->state = EVP_LINK_CLOSING;
	DL_DELETE(hub->links, link);
	if (link->dirty)
		LL_DELETE2(hub->dirty, link, next_dirty);
	evp_link_reader_free(&link->reader);
	free_frames(link->urgent);
	free_frames(link->first);
	link->urgent = link->first = link->last = NULL;
	uv_close((uv_handle_t *) &link->tcp, on_handle_closed);
}

void
evp_link_close(evp_link_t *link, const char *reason)
{
	if (link->state == EVP_LINK_CLOSING)
		return;
	shut(link);
	link->hub->on_closed(link, reason);
}

static evp_link_t *
new_link(evp_link_hub_t *hub, bool outgoing)
{
	evp_link_t *link = calloc(1, sizeof *link);

	if (link == NULL)
		return NULL;
	if (uv_tcp_init(hub->proxy->loop, &link->tcp) != 0)
	{
		free(link);
		return NULL;
	}
	link->tcp.data = link;
	link->hub = hub;
	link->pins = 1;
	link->outgoing = outgoing;
	link->no = ++hub->last_no;
	link->begun_at = link->last_read = link->last_write = evp_now(hub->proxy);
	evp_link_reader_init(&link->reader);
	DL_APPEND(hub->links, link);
	return link;
}

/* ---- writing ---- */

static void write_more(evp_link_t *link);

/* A batch is done with: written, or never to be. */
static void
end_batch(evp_link_batch_t *batch)
{
	evp_link_t *link = batch->link;

	link->writing = NULL;
	link->queued -= batch->len;
	link->last_write = evp_now(link->hub->proxy);
	free_frames(batch->frames);
	free(batch);
}

static void
on_batch_written(void *arg, int status)
{
	evp_link_batch_t *batch = arg;
	evp_link_t *link = batch->link;

	end_batch(batch);
	if (link->state == EVP_LINK_CLOSING)
		return;
	if (status < 0)
		evp_link_close(link, uv_strerror(status));
	else
		write_more(link);
}

static void
on_written(uv_write_t *req, int status)
{
	on_batch_written(req, status);
}

/* The next frame that may be written: before the link is up, greetings only. */
static evp_link_out_t *
next_frame(evp_link_t *link)
{
	evp_link_out_t *frame = link->urgent;

	if (frame != NULL)
		link->urgent = frame->next;
	else if (link->state == EVP_LINK_UP && (frame = link->first) != NULL)
	{
		link->first = frame->next;
		if (link->first == NULL)
			link->last = NULL;
	}
	return frame;
}

/* Moves what may be written into a batch; NULL on lack of memory. */
static evp_link_batch_t *
make_batch(evp_link_t *link)
{
	evp_link_batch_t *batch = malloc(sizeof *batch);
	evp_link_out_t *frame;
	evp_link_out_t **tail;

	if (batch == NULL)
		return NULL;
	batch->link = link;
	batch->frames = NULL;
	batch->len = 0;
	batch->n = 0;
	tail = &batch->frames;
	while (batch->n <= (BATCH_FRAMES - 1) * FRAME_BUFS && (frame = next_frame(link)) != NULL)
	{
		frame->next = NULL;
		*tail = frame;
		tail = &frame->next;
		batch->len += frame->len;
		batch->bufs[batch->n++] = uv_buf_init((char *) frame->head.data, (unsigned) frame->head.len);
		for (unsigned k = 0; k < frame->message.n; k++)
			batch->bufs[batch->n++] = uv_buf_init((char *) frame->message.part[k].p, (unsigned) frame->message.part[k].n);
	}
	return batch;
}

/* 0: the batch will be called back; 1: it is written; else a libuv error. */
static int
write_batch(evp_link_t *link, evp_link_batch_t *batch)
{
	if (link->tls != NULL)
		return evp_tls_io_write(link->tls, batch->bufs, batch->n, on_batch_written, batch);
	return uv_write(&batch->req, (uv_stream_t *) &link->tcp, batch->bufs, batch->n, on_written);
}

static void
write_more(evp_link_t *link)
{
	while (link->writing == NULL && (link->urgent != NULL || (link->state == EVP_LINK_UP && link->first != NULL)))
	{
		evp_link_batch_t *batch = make_batch(link);
		int			rc;

		if (batch == NULL)
		{
			evp_link_close(link, "out of memory");
			return;
		}
		link->writing = batch;
		rc = write_batch(link, batch);
		if (rc == 0)
			return;
		end_batch(batch);
		if (rc < 0)
		{
			evp_link_close(link, uv_strerror(rc));
			return;
		}
	}
}

static void
on_turn(void *arg)
{
	evp_link_hub_t *hub = arg;
	evp_link_t *link;

	while ((link = hub->dirty) != NULL)
	{
		hub->dirty = link->next_dirty;
		link->next_dirty = NULL;
		link->dirty = false;
		if (link->doomed != NULL)
			evp_link_close(link, link->doomed);
		else
			write_more(link);
	}
}

static void
make_dirty(evp_link_t *link)
{
	if (link->dirty)
		return;
	link->dirty = true;
	LL_PREPEND2(link->hub->dirty, link, next_dirty);
	evp_turn_wake(&link->hub->turn);
}

static int
doom(evp_link_t *link, const char *reason)
{
	link->doomed = reason;
	make_dirty(link);
	return -1;
}

/* Queues a frame; greetings go before everything else. */
static int
queue(evp_link_t *link, const evp_link_frame_t *frame, const evp_parts_t *message, bool greeting)
{
	size_t		message_len = message == NULL ? 0 : message->len;
	evp_link_out_t *out;

	if (link->state == EVP_LINK_CLOSING || link->doomed != NULL)
		return -1;
	if (link->queued > link->hub->proxy->config.output_bytes ||
		message_len > link->hub->proxy->config.output_bytes - link->queued)
		return doom(link, "too much waits to be sent");
	out = calloc(1, sizeof *out);
	if (out == NULL)
		return doom(link, "out of memory");
	evp_buf_init(&out->head, 8 + EVP_LINK_MAX_HEAD);
	if (!evp_link_put(&out->head, frame, message_len))
	{
		free_frames(out);
		return doom(link, "a frame cannot be made");
	}
	if (message != NULL)
		evp_parts_ref(&out->message, message);
	out->len = out->head.len + message_len;
	link->queued += out->len;
	if (greeting)
		LL_APPEND(link->urgent, out);
	else
	{
		if (link->last != NULL)
			link->last->next = out;
		else
			link->first = out;
		link->last = out;
	}
	make_dirty(link);
	return 0;
}

int
evp_link_send(evp_link_t *link, const evp_link_frame_t *frame, const evp_parts_t *message)
{
	return queue(link, frame, message, false);
}

/* ---- greeting ---- */

static void
up(evp_link_t *link)
{
	evp_proxy_t *proxy = link->hub->proxy;
	int64_t		self = evp_registry_proxy_id(proxy->registry);

	if (!link->outgoing)
		link->hub->greeting--;
	link->state = EVP_LINK_UP;
	link->was_up = true;
	link->reader.max_message = EVP_LINK_MAX_MESSAGE;
	/* This proxy may have registered anew since it gave its number. */
	if (self != (link->outgoing ? link->greeting.dialler_id : link->greeting.acceptor_id))
		evp_link_send(link, &(evp_link_frame_t) {.type = EVP_LINK_RENAMED,.proxy_id = self}, NULL);
	make_dirty(link);
	link->hub->on_up(link);
}

static bool
make_nonce(uint8_t nonce[EVP_LINK_NONCE])
{
	return RAND_bytes(nonce, EVP_LINK_NONCE) == 1;
}

/* The acceptor's first turn to speak. */
static const char *
on_hello(evp_link_t *link, const evp_link_frame_t *hello)
{
	evp_link_greeting_t *g = &link->greeting;
	evp_registry_t *registry = link->hub->proxy->registry;
	uint8_t		mac[EVP_LINK_MAC];
	size_t		len;
	const uint8_t *secret = evp_registry_secret(registry, &len);

	if (secret == NULL)
		return "this proxy is not registered yet";
	memcpy(g->dialler_nonce, hello->nonce, EVP_LINK_NONCE);
	g->dialler_id = hello->proxy_id;
	g->acceptor_id = evp_registry_proxy_id(registry);
	link->peer_id = hello->proxy_id;
	if (!make_nonce(g->acceptor_nonce) || !evp_link_prove(g, true, secret, len, mac))
		return "no proof can be made";
	queue(link, &(evp_link_frame_t) {.type = EVP_LINK_CHALLENGE,.nonce = g->acceptor_nonce,.proxy_id = g->acceptor_id,.mac = mac},
		  NULL, true);
	return NULL;
}

/* The dialler's second turn. */
static const char *
on_challenge(evp_link_t *link, const evp_link_frame_t *challenge)
{
	evp_link_greeting_t *g = &link->greeting;
	uint8_t		mac[EVP_LINK_MAC];
	size_t		len;
	const uint8_t *secret = evp_registry_secret(link->hub->proxy->registry, &len);

	memcpy(g->acceptor_nonce, challenge->nonce, EVP_LINK_NONCE);
	g->acceptor_id = challenge->proxy_id;
	if (!evp_link_proven(g, true, secret, len, challenge->mac))
		return "it does not know the cluster's secret";
	if (challenge->proxy_id != link->peer_id)
		return "another proxy answers there";
	if (!evp_link_prove(g, false, secret, len, mac))
		return "no proof can be made";
	queue(link, &(evp_link_frame_t) {.type = EVP_LINK_PROOF,.mac = mac}, NULL, true);
	return NULL;
}

static const char *
on_proof(evp_link_t *link, const evp_link_frame_t *proof)
{
	size_t		len;
	const uint8_t *secret = evp_registry_secret(link->hub->proxy->registry, &len);

	if (!evp_link_proven(&link->greeting, false, secret, len, proof->mac))
		return "it does not know the cluster's secret";
	queue(link, &(evp_link_frame_t) {.type = EVP_LINK_WELCOME}, NULL, true);
	up(link);
	return NULL;
}

/* A frame before the link is up. Gives why it is to be closed, or NULL. */
static const char *
greet(evp_link_t *link, const evp_link_frame_t *frame)
{
	static const uint8_t none[EVP_LINK_NONCE];
	bool		begun;

	if (link->outgoing)
	{
		begun = memcmp(link->greeting.acceptor_nonce, none, sizeof none) != 0;
		if (frame->type == EVP_LINK_CHALLENGE && !begun)
			return on_challenge(link, frame);
		if (frame->type != EVP_LINK_WELCOME || !begun)
			return "greeting out of order";
		up(link);
		return NULL;
	}
	begun = memcmp(link->greeting.acceptor_nonce, none, sizeof none) != 0;
	if (frame->type == EVP_LINK_HELLO && !begun)
		return on_hello(link, frame);
	if (frame->type == EVP_LINK_PROOF && begun)
		return on_proof(link, frame);
	return "greeting out of order";
}

/* ---- reading ---- */

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	evp_link_t *link = handle->data;

	(void) suggested;
	*buf = uv_buf_init((char *) link->hub->buffer, sizeof link->hub->buffer);
}

/* Why the link is to be closed, or NULL. */
static const char *
take_frame(evp_link_t *link, const evp_blob_t *head, evp_blob_t *message)
{
	evp_link_frame_t frame;
	const char *reason = NULL;

	if (evp_link_decode(&frame, head, message, &reason) != 0)
		return reason;
	if (link->state == EVP_LINK_GREETING)
		return greet(link, &frame);
	if (frame.type < EVP_LINK_PING)
		return "greeting out of order";
	if (frame.type != EVP_LINK_PING)
		link->hub->on_frame(link, &frame);
	return NULL;
}

static void
take_bytes(void *arg, const uint8_t *p, size_t n)
{
	evp_link_t *link = arg;
	evp_blob_t *head;
	evp_blob_t *message;
	const char *reason = NULL;
	int			rc;

	while (link->state != EVP_LINK_CLOSING && (rc = evp_link_feed(&link->reader, &p, &n, &head, &message, &reason)) != 0)
	{
		if (rc > 0)
		{
			reason = take_frame(link, head, message);
			evp_blob_unref(head);
			evp_blob_unref(message);
		}
		if (reason != NULL)
		{
			evp_link_close(link, reason);
			return;
		}
	}
}

static void
on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
	evp_link_t *link = stream->data;

	if (nread < 0)
	{
		evp_link_close(link, nread == UV_EOF ? "closed by the other end" : uv_strerror((int) nread));
		return;
	}
	if (nread == 0)
		return;
	link->last_read = evp_now(link->hub->proxy);
	if (link->tls != NULL)
		evp_tls_io_input(link->tls, (const uint8_t *) buf->base, (size_t) nread);
	else
		take_bytes(link, (const uint8_t *) buf->base, (size_t) nread);
}

/* ---- connecting ---- */

static void
note_peer(evp_link_t *link)
{
	struct sockaddr_storage address;
	int			size = sizeof address;
	char		host[64] = "?";
	int			port = 0;

	if (uv_tcp_getpeername(&link->tcp, (struct sockaddr *) &address, &size) == 0)
	{
		if (address.ss_family == AF_INET6)
		{
			uv_ip6_name((struct sockaddr_in6 *) &address, host, sizeof host);
			port = ntohs(((struct sockaddr_in6 *) &address)->sin6_port);
		}
		else
		{
			uv_ip4_name((struct sockaddr_in *) &address, host, sizeof host);
			port = ntohs(((struct sockaddr_in *) &address)->sin_port);
		}
	}
	snprintf(link->peer, sizeof link->peer, "%s:%d", host, port);
}

/* The dialler's first turn, once the connection, and TLS where it is on, stands. */
static void
say_hello(evp_link_t *link)
{
	evp_link_greeting_t *g = &link->greeting;

	g->dialler_id = evp_registry_proxy_id(link->hub->proxy->registry);
	if (!make_nonce(g->dialler_nonce))
	{
		doom(link, "no nonce can be made");
		return;
	}
	queue(link, &(evp_link_frame_t) {.type = EVP_LINK_HELLO,.nonce = g->dialler_nonce,.proxy_id = g->dialler_id}, NULL, true);
}

static void
on_secured(void *arg)
{
	evp_link_t *link = arg;

	/* The proofs to come are good for this TLS connection only, whatever certificate someone in between may have. */
	link->greeting.bound = evp_tls_io_binding(link->tls, link->greeting.binding);
	if (!link->greeting.bound)
		doom(link, "TLS gives nothing to bind the greeting to");
	else if (link->outgoing)
		say_hello(link);
}

static void
on_tls_ended(void *arg)
{
	evp_link_close(arg, "closed by the other end");
}

static void
on_tls_failed(void *arg, const char *reason, bool breach)
{
	(void) breach;
	evp_link_close(arg, reason);
}

static bool
begin_tls(evp_link_t *link)
{
	static const evp_tls_io_callbacks_t callbacks = {on_secured, take_bytes, on_tls_ended, on_tls_failed};
	SSL		   *ssl = evp_tls_session(link->hub->proxy->tls, EVP_TLS_INTERNAL, link->outgoing);

	link->tls = evp_tls_io_new(ssl, link->outgoing, (uv_stream_t *) &link->tcp, &callbacks, link);
	return link->tls != NULL;
}

/* Both ends: the connection stands. */
static void
start_greeting(evp_link_t *link)
{
	int			rc;

	link->state = EVP_LINK_GREETING;
	if (!link->outgoing)
		link->hub->greeting++;
	uv_tcp_nodelay(&link->tcp, 1);
	rc = uv_read_start((uv_stream_t *) &link->tcp, on_alloc, on_read);
	if (rc != 0)
	{
		doom(link, uv_strerror(rc));
		return;
	}
	if (evp_tls_on(link->hub->proxy->tls, EVP_TLS_INTERNAL))
	{
		if (!begin_tls(link))
			doom(link, "out of memory");
		else if (link->outgoing)
			evp_tls_io_dial(link->tls);
	}
	else if (link->outgoing)
		say_hello(link);
}

static void
on_connected(uv_connect_t *connect, int status)
{
	evp_link_t *link = connect->data;

	if (link->state == EVP_LINK_CLOSING)
		return;
	if (status < 0)
		evp_link_close(link, uv_strerror(status));
	else
		start_greeting(link);
}

static void
on_resolved(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found)
{
	evp_link_t *link = lookup->data;
	struct addrinfo *choice = found;
	unsigned	count = 0;
	int			rc = status;

	if (link->state == EVP_LINK_RESOLVING && status == 0)
	{
		for (struct addrinfo *a = found; a != NULL; a = a->ai_next)
			count++;
		for (unsigned k = count == 0 ? 0 : link->attempt % count; k > 0; k--)
			choice = choice->ai_next;
		link->state = EVP_LINK_CONNECTING;
		link->connect.data = link;
		rc = choice == NULL ? UV_EAI_NONAME : uv_tcp_connect(&link->connect, &link->tcp, choice->ai_addr, on_connected);
	}
	uv_freeaddrinfo(found);
	if (link->state != EVP_LINK_CLOSING && rc != 0)
		evp_link_close(link, uv_strerror(rc));
	unpin(link);
}

evp_link_t *
evp_link_dial(evp_link_hub_t *hub, const char *host, uint16_t port, int64_t peer_id, unsigned attempt)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,.ai_flags = AI_NUMERICSERV};
	evp_link_t *link = new_link(hub, true);
	int			rc;

	if (link == NULL)
		return NULL;
	link->state = EVP_LINK_RESOLVING;
	link->peer_id = peer_id;
	link->attempt = attempt;
	snprintf(link->peer, sizeof link->peer, "%.100s:%u", host, port);
	snprintf(link->port, sizeof link->port, "%u", port);
	link->lookup.data = link;
	rc = uv_getaddrinfo(hub->proxy->loop, &link->lookup, on_resolved, host, link->port, &hints);
	if (rc == 0)
		link->pins++;
	else
	{
		/* There is no look-up to cancel. */
		link->state = EVP_LINK_CONNECTING;
		doom(link, uv_strerror(rc));
	}
	return link;
}

evp_link_t *
evp_link_accept(evp_link_hub_t *hub, uv_stream_t *listener)
{
	evp_link_t *link = new_link(hub, false);

	if (link == NULL)
		return NULL;
	link->state = EVP_LINK_CONNECTING;
	if (uv_accept(listener, (uv_stream_t *) &link->tcp) != 0)
	{
		shut(link);
		return NULL;
	}
	note_peer(link);
	start_greeting(link);
	return link;
}

/* ---- the hub ---- */

void
evp_link_hub_init(evp_link_hub_t *hub, evp_proxy_t *proxy)
{
	memset(hub, 0, sizeof *hub);
	hub->proxy = proxy;
	hub->ticked_at = evp_now(proxy);
	evp_turn_init(&hub->turn, proxy->loop, on_turn, hub);
}

void
evp_link_hub_stop(evp_link_hub_t *hub)
{
	while (hub->links != NULL)
		shut(hub->links);
	evp_turn_stop(&hub->turn);
}

void
evp_link_hub_tick(evp_link_hub_t *hub)
{
	uint64_t	now = evp_now(hub->proxy);
	/* After a pause of this process what the others wrote lies unread in the sockets. */
	bool		paused = now - hub->ticked_at > EVP_LINK_DEAD_MS / 2;
	evp_link_t *link,
			   *next;

	hub->ticked_at = now;
	DL_FOREACH_SAFE(hub->links, link, next)
	{
		if (paused)
			link->last_read = now;
		if (link->state != EVP_LINK_UP)
		{
			if (now - link->begun_at >= EVP_LINK_GREETING_MS)
				evp_link_close(link, link->state == EVP_LINK_GREETING ? "no greeting in time" : "no connection in time");
		}
		else if (now - link->last_read >= EVP_LINK_DEAD_MS)
			evp_link_close(link, "silent for 3 s");
		else if (now - link->last_write >= EVP_LINK_PING_MS && link->writing == NULL && link->first == NULL)
		{
			link->last_write = now;
			evp_link_send(link, &(evp_link_frame_t) {.type = EVP_LINK_PING}, NULL);
		}
	}
}
