/*
 * bundle.c
 *    One connection of a simulated bundle: dials, says hello, registers, reads
 *    frames, and dials again, the next address in turn, when it is lost.  A name
 *    with several addresses is as many in turn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sim.h"

#define MAX_OUT ((size_t) 1024 * 1024 * 1024)
#define REDIAL_MS 100

typedef struct write_req
{
	uv_write_t	req;
	evp_buf_t	buf;
} write_req_t;

static sim_bundle_t *dirty;

static void dial(sim_bundle_t *b);
static void lost(sim_bundle_t *b, const char *why);

int64_t
sim_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void
free_bundle(sim_bundle_t *b)
{
	evp_wire_free(&b->wire);
	evp_buf_free(&b->out);
	evp_buf_free(&b->sealing);
	free(b);
}

/* Forgets a bundle that waits to be flushed. */
static void
undirty(sim_bundle_t *b)
{
	if (!b->dirty)
		return;
	for (sim_bundle_t **p = &dirty; *p != NULL; p = &(*p)->next_dirty)
		if (*p == b)
		{
			*p = b->next_dirty;
			break;
		}
	b->dirty = false;
}

static void
on_timer(uv_timer_t *t)
{
	dial(t->data);
}

static void
on_tcp_closed(uv_handle_t *h)
{
	sim_bundle_t *b = h->data;

	evp_tls_io_free(b->tls);
	b->tls = NULL;
	b->pins--;
	if (b->closing)
	{
		if (b->pins == 0)
			free_bundle(b);
		return;
	}
	b->address = (b->address + 1) % b->n_addresses;
	uv_timer_start(&b->timer, on_timer, REDIAL_MS, 0);
}

static void
on_timer_closed(uv_handle_t *h)
{
	sim_bundle_t *b = h->data;

	if (--b->pins == 0)
		free_bundle(b);
}

/* The connection is of no more use: close it, tell the player, dial again later. */
static void
lost(sim_bundle_t *b, const char *why)
{
	if (uv_is_closing((uv_handle_t *) &b->tcp))
		return;
	if (b->up && !b->closing && !b->sim->stopping && !b->sim->allow_failures)
		fprintf(stderr, "sim: %s at %s:%s lost its connection: %s\n", b->bundle,
				b->addresses[b->address].host, b->addresses[b->address].port, why);
	undirty(b);
	evp_wire_free(&b->wire);
	evp_wire_init(&b->wire);
	evp_buf_reset(&b->out);
	uv_close((uv_handle_t *) &b->tcp, on_tcp_closed);
	if (b->up)
	{
		b->up = false;
		if (!b->closing)
			b->ops->on_down(b);
	}
}

static void
on_written(uv_write_t *req, int status)
{
	write_req_t *w = (write_req_t *) req;
	sim_bundle_t *b = req->handle->data;

	evp_buf_free(&w->buf);
	free(w);
	if (status < 0 && status != UV_ECANCELED)
		lost(b, uv_strerror(status));
}

static void
make_dirty(sim_bundle_t *b)
{
	if (b->dirty)
		return;
	b->dirty = true;
	b->next_dirty = dirty;
	dirty = b;
}

static void
on_sealed(void *arg, int status)
{
	sim_bundle_t *b = arg;

	b->busy = false;
	evp_buf_free(&b->sealing);
	if (status < 0 && status != UV_ECANCELED)
		lost(b, uv_strerror(status));
	else if (status == 0 && b->out.len > 0)
		make_dirty(b);
}

/* The same for a connection with TLS, which takes one write at a time. */
static void
seal(sim_bundle_t *b)
{
	int			rc;

	if (b->busy)
		return;
	b->busy = true;
	b->sealing = b->out;
	evp_buf_init(&b->out, MAX_OUT);
	b->sealing_buf = uv_buf_init((char *) b->sealing.data, (unsigned) b->sealing.len);
	rc = evp_tls_io_write(b->tls, &b->sealing_buf, 1, on_sealed, b);
	if (rc != 0)
		on_sealed(b, rc < 0 ? rc : 0);
}

void
sim_bundles_flush(void)
{
	while (dirty != NULL)
	{
		sim_bundle_t *b = dirty;
		write_req_t *w;
		uv_buf_t	buf;
		int			rc;

		dirty = b->next_dirty;
		b->dirty = false;
		if (b->tls != NULL && !b->out.failed)
		{
			seal(b);
			continue;
		}
		w = malloc(sizeof(*w));
		if (w == NULL || b->out.failed)
		{
			free(w);
			lost(b, "out of memory");
			continue;
		}
		w->buf = b->out;
		evp_buf_init(&b->out, MAX_OUT);
		buf = uv_buf_init((char *) w->buf.data, (unsigned) w->buf.len);
		rc = uv_write(&w->req, (uv_stream_t *) &b->tcp, &buf, 1, on_written);
		if (rc < 0)
		{
			evp_buf_free(&w->buf);
			free(w);
			lost(b, uv_strerror(rc));
		}
	}
}

/* Encodes a message behind what is queued. */
static void
put(sim_bundle_t *b, const evp_message_t *m)
{
	evp_buf_t	one;

	evp_buf_init(&one, MAX_OUT);
	evp_message_encode(&one, m);
	if (one.failed)
		b->out.failed = true;
	else
		evp_wire_frame(&b->out, one.data, one.len);
	evp_buf_free(&one);
	make_dirty(b);
}

bool
sim_bundle_send(sim_bundle_t *b, const evp_message_t *m)
{
	if (!b->up)
		return false;
	put(b, m);
	return true;
}

void
sim_bundle_notify(sim_bundle_t *b, const char *type, const evp_buf_t *payload)
{
	evp_message_t m = {.type = EVP_NTF,.has_correlation = true,.timestamp_ms = sim_now_ms()};

	evp_uuid_v4(m.correlation);
	m.payload_type = evp_slice_str(type);
	m.payload = payload ? evp_slice_of(payload->data, payload->len) : evp_slice_of("", 0);
	put(b, &m);
}

static void
on_welcome(sim_bundle_t *b)
{
	evp_buf_t	buf;

	evp_buf_init(&buf, 1024 * 1024);
	sim_put_registration(&buf, b);
	sim_bundle_notify(b, "evento:bundle-registration", &buf);
	evp_buf_reset(&buf);
	sim_put_discovery(&buf, b);
	sim_bundle_notify(b, "evento:bundle-discovery", &buf);
	evp_buf_free(&buf);
	sim_bundle_notify(b, "evento:enable", NULL);
	b->up = true;
	if (!b->was_up)
	{
		b->was_up = true;
		b->sim->ready++;
	}
	b->ops->on_welcome(b);
}

static void
on_message(sim_bundle_t *b, const evp_message_t *m)
{
	switch (m->type)
	{
		case EVP_WLC:
			on_welcome(b);
			break;
		case EVP_REJ:
			fprintf(stderr, "sim: %s was rejected: %.*s %.*s\n", b->bundle, (int) m->code.n, m->code.p,
					(int) m->reason.n, m->reason.p);
			lost(b, "rejected");
			break;
		case EVP_PNG:
			{
				evp_message_t pong = {.type = EVP_PON,.has_correlation = true,.sequence = m->sequence,
					.timestamp_ms = sim_now_ms(),.origin_timestamp_ms = m->timestamp_ms};

				memcpy(pong.correlation, m->correlation, sizeof(pong.correlation));
				put(b, &pong);
				break;
			}
		case EVP_REQ:
			b->ops->on_request(b, m);
			break;
		case EVP_RSP:
			b->ops->on_response(b, m);
			break;
		default:
			break;
	}
}

static void
on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
	static char room[256 * 1024];	/* one thread, and used up before the next read */

	(void) h;
	(void) suggested;
	*buf = uv_buf_init(room, sizeof(room));
}

static void
take_bytes(void *arg, const uint8_t *p, size_t left)
{
	sim_bundle_t *b = arg;

	for (;;)
	{
		evp_blob_t *blob;
		evp_message_t m;
		const char *reason;
		int			rc = evp_wire_feed(&b->wire, &p, &left, (int64_t) uv_now(b->sim->loop), &blob);

		if (rc == 0)
			return;
		if (rc < 0)
		{
			sim_wrong(b->sim, "a frame cannot be read: %s", evp_wire_error(&b->wire));
			lost(b, "bad frame");
			return;
		}
		if (evp_message_decode(&m, blob, &reason) < 0)
		{
			evp_blob_unref(blob);
			sim_wrong(b->sim, "a message cannot be read: %s", reason);
			lost(b, "bad message");
			return;
		}
		evp_blob_unref(blob);
		on_message(b, &m);
		evp_message_free(&m);
		if (uv_is_closing((uv_handle_t *) &b->tcp))
			return;
	}
}

/* The peer has ended its side only: it takes what is queued. */
static void
on_ended(void *arg)
{
	sim_bundle_t *b = arg;

	sim_bundles_flush();
	if (!uv_is_closing((uv_handle_t *) &b->tcp))
		lost(b, "the proxy has hung up");
}

static void
on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	sim_bundle_t *b = s->data;

	if (n < 0)
	{
		if (n == UV_EOF)
			on_ended(b);
		else if (!uv_is_closing((uv_handle_t *) &b->tcp))
			lost(b, uv_strerror((int) n));
	}
	else if (n > 0 && b->tls != NULL)
		evp_tls_io_input(b->tls, (const uint8_t *) buf->base, (size_t) n);
	else if (n > 0)
		take_bytes(b, (const uint8_t *) buf->base, (size_t) n);
}

/* The token for a bundle; null where none was given. */
static evp_slice_t
token_of(const sim_bundle_t *b)
{
	size_t		len = strlen(b->bundle);

	for (unsigned i = 0; i < b->sim->n_tokens; i++)
	{
		const char *token = b->sim->tokens[i];

		if (strncmp(token, b->bundle, len) == 0 && token[len] == '=')
			return evp_slice_str(token + len + 1);
	}
	return evp_slice_of(NULL, 0);
}

static void
say_hello(void *arg)
{
	sim_bundle_t *b = arg;
	evp_message_t hello = {.type = EVP_HEL,.has_correlation = true,.protocol_version = EVP_PROTOCOL_VERSION};

	evp_uuid_v4(hello.correlation);
	hello.bundle_id = evp_slice_str(b->bundle);
	hello.instance_id = evp_slice_str(b->instance);
	hello.bundle_version = evp_slice_str("1");
	hello.auth_token = token_of(b);
	hello.timestamp_ms = sim_now_ms();
	put(b, &hello);
}

static void
on_tls_failed(void *arg, const char *reason, bool breach)
{
	(void) breach;
	lost(arg, reason);
}

static void
on_connected(uv_connect_t *req, int status)
{
	static const evp_tls_io_callbacks_t callbacks = {say_hello, take_bytes, on_ended, on_tls_failed};
	sim_bundle_t *b = req->data;

	if (status < 0)
	{
		if (status != UV_ECANCELED)
			lost(b, uv_strerror(status));
		return;
	}
	uv_tcp_nodelay(&b->tcp, 1);
	uv_read_start((uv_stream_t *) &b->tcp, on_alloc, on_read);
	if (b->sim->tls == NULL)
	{
		say_hello(b);
		return;
	}
	b->tls = evp_tls_io_new(SSL_new(b->sim->tls), true, (uv_stream_t *) &b->tcp, &callbacks, b);
	if (b->tls == NULL)
		lost(b, "out of memory");
	else
		evp_tls_io_dial(b->tls);
}

/* The address of a name whose turn it is. */
static const struct addrinfo *
take_turn(sim_bundle_t *b, const struct addrinfo *res)
{
	const struct addrinfo *a = res;
	unsigned	n = 0;

	for (; a != NULL; a = a->ai_next)
		n++;
	n = b->dials++ % n;
	for (a = res; n > 0; n--)
		a = a->ai_next;
	return a;
}

static void
on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
	sim_bundle_t *b = req->data;
	int			rc = status;

	b->pins--;
	if (b->closing)
	{
		uv_freeaddrinfo(res);
		if (b->pins == 0)
			free_bundle(b);
		return;
	}
	if (rc == 0)
	{
		b->connect.data = b;
		rc = uv_tcp_connect(&b->connect, &b->tcp, take_turn(b, res)->ai_addr, on_connected);
	}
	uv_freeaddrinfo(res);
	if (rc < 0)
		lost(b, uv_strerror(rc));
}

static void
dial(sim_bundle_t *b)
{
	const sim_address_t *a = &b->addresses[b->address];
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,.ai_family = AF_UNSPEC};

	uv_tcp_init(b->sim->loop, &b->tcp);
	b->tcp.data = b;
	b->pins++;
	b->resolve.data = b;
	if (uv_getaddrinfo(b->sim->loop, &b->resolve, on_resolved, a->host, a->port, &hints) < 0)
		lost(b, "cannot resolve");
	else
		b->pins++;
}

sim_bundle_t *
sim_bundle_new(sim_t *sim, const char *bundle, const char *component, const char *const *names,
			   const sim_address_t *addresses, unsigned n_addresses, unsigned first,
			   const sim_bundle_ops_t *ops, void *arg)
{
	sim_bundle_t *b = calloc(1, sizeof(*b));
	uint8_t		id[16];

	if (b == NULL)
		return NULL;
	b->sim = sim;
	b->ops = ops;
	b->arg = arg;
	b->bundle = bundle;
	b->component = component;
	b->names = names;
	b->addresses = addresses;
	b->n_addresses = n_addresses;
	b->address = first % n_addresses;
	b->dials = first / n_addresses;
	evp_uuid_v4(id);
	evp_uuid_format(id, b->instance);
	evp_wire_init(&b->wire);
	evp_buf_init(&b->out, MAX_OUT);
	uv_timer_init(sim->loop, &b->timer);
	b->timer.data = b;
	b->pins = 1;
	sim->expected_ready++;
	dial(b);
	return b;
}

void
sim_bundle_close(sim_bundle_t *b)
{
	if (b->closing)
		return;
	b->closing = true;
	undirty(b);
	uv_close((uv_handle_t *) &b->timer, on_timer_closed);
	if (b->pins > 1 && !uv_is_closing((uv_handle_t *) &b->tcp) && b->tcp.data == b)
		uv_close((uv_handle_t *) &b->tcp, on_tcp_closed);
}
