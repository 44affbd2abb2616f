/*
 * relay.c
 *    What passing bytes on costs without looking at them: the measure for
 *    requests through a proxy.
 *
 *    bench-relay relay PORT TO     every connection to PORT gets one to TO, and both all that the other says
 *    bench-relay echo PORT         gives back all that it is sent
 *    bench-relay load PORT SECONDS CONNECTIONS CALLERS BYTES [gather]
 *                                  closed loops that send BYTES and wait for as many; prints "N exchanges/s".
 *                                  gather: what one read brings on is sent by one write
 *
 *    The first two print "ready", and run until SIGTERM.  Addresses are 127.0.0.1.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define READ_MAX 65536

/* A connection; what comes in goes out by to. */
typedef struct peer
{
	uv_tcp_t	tcp;
	struct peer *to;
	bool		closing;
	char		buffer[READ_MAX];
	/* load */
	size_t		owed;			/* bytes of answers that are still to come */
	unsigned	callers;
} peer_t;

typedef struct out
{
	uv_write_t	request;
	char		bytes[];
} out_t;

static uv_loop_t *loop;
static int	forward_to;			/* relay: port; 0: echo */
static size_t message;
static bool gather;
static uint64_t exchanges;

static void
die(const char *what, int error)
{
	fprintf(stderr, "bench-relay: %s: %s\n", what, uv_strerror(error));
	exit(1);
}

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	peer_t	   *peer = handle->data;

	(void) suggested;
	*buf = uv_buf_init(peer->buffer, READ_MAX);
}

static void
on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void
close_peer(peer_t *peer)
{
	if (peer->closing)
		return;
	peer->closing = true;
	if (peer->to != NULL && peer->to != peer)
	{
		peer->to->to = NULL;
		close_peer(peer->to);
	}
	uv_close((uv_handle_t *) &peer->tcp, on_closed);
}

static void
on_written(uv_write_t *request, int status)
{
	(void) status;
	free(request);
}

/* Sends a copy, as the proxy must. */
static void
send_bytes(peer_t *peer, const char *bytes, size_t n)
{
	out_t	   *out = malloc(sizeof(*out) + n);
	uv_buf_t	buf;

	if (out == NULL)
		abort();
	if (bytes != NULL)
		memcpy(out->bytes, bytes, n);
	else
		memset(out->bytes, 'x', n);
	buf = uv_buf_init(out->bytes, (unsigned) n);
	if (uv_write(&out->request, (uv_stream_t *) &peer->tcp, &buf, 1, on_written) != 0)
	{
		free(out);
		close_peer(peer);
	}
}

static void
on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	peer_t	   *peer = stream->data;

	if (n < 0 || peer->to == NULL)
		close_peer(peer);
	else if (n > 0)
		send_bytes(peer->to, buf->base, (size_t) n);
}

static peer_t *
new_peer(void)
{
	peer_t	   *peer = calloc(1, sizeof(*peer));

	if (peer == NULL)
		abort();
	uv_tcp_init(loop, &peer->tcp);
	uv_tcp_nodelay(&peer->tcp, 1);
	peer->tcp.data = peer;
	return peer;
}

static void
on_forward(uv_connect_t *request, int status)
{
	peer_t	   *peer = request->handle->data;

	free(request);
	if (status < 0 || peer->to == NULL)
	{
		close_peer(peer);
		return;
	}
	uv_read_start((uv_stream_t *) &peer->tcp, on_alloc, on_read);
	uv_read_start((uv_stream_t *) &peer->to->tcp, on_alloc, on_read);
}

static void
connect_peer(peer_t *peer, int port, uv_connect_cb cb)
{
	uv_connect_t *request = malloc(sizeof(*request));
	struct sockaddr_in address;
	int			error;

	if (request == NULL)
		abort();
	uv_ip4_addr("127.0.0.1", port, &address);
	error = uv_tcp_connect(request, &peer->tcp, (const struct sockaddr *) &address, cb);
	if (error != 0)
		die("connect", error);
}

static void
on_connection(uv_stream_t *server, int status)
{
	peer_t	   *peer = new_peer();

	if (status < 0 || uv_accept(server, (uv_stream_t *) &peer->tcp) != 0)
	{
		close_peer(peer);
		return;
	}
	if (forward_to == 0)
	{
		peer->to = peer;
		uv_read_start((uv_stream_t *) &peer->tcp, on_alloc, on_read);
		return;
	}
	peer->to = new_peer();
	peer->to->to = peer;
	connect_peer(peer->to, forward_to, on_forward);
}

static void
serve(int port)
{
	static uv_tcp_t server;
	struct sockaddr_in address;
	int			error;

	uv_tcp_init(loop, &server);
	uv_ip4_addr("127.0.0.1", port, &address);
	error = uv_tcp_bind(&server, (const struct sockaddr *) &address, 0);
	if (error == 0)
		error = uv_listen((uv_stream_t *) &server, 128, on_connection);
	if (error != 0)
		die("listen", error);
	puts("ready");
	fflush(stdout);
	uv_run(loop, UV_RUN_DEFAULT);
}

/* ---- load ---- */

static void
on_answers(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	peer_t	   *peer = stream->data;
	size_t		left;
	size_t		done;

	(void) buf;
	if (n < 0)
		die("an answer", (int) n);
	left = (size_t) n;
	for (done = 0; left >= peer->owed; done++)
	{
		left -= peer->owed;
		peer->owed = message;
	}
	peer->owed -= left;
	exchanges += done;
	if (gather && done > 0)
		send_bytes(peer, NULL, done * message);
	for (; !gather && done > 0; done--)
		send_bytes(peer, NULL, message);
}

static void
on_loader(uv_connect_t *request, int status)
{
	peer_t	   *peer = request->handle->data;

	free(request);
	if (status < 0)
		die("connect", status);
	peer->owed = message;
	uv_read_start((uv_stream_t *) &peer->tcp, on_alloc, on_answers);
	for (unsigned i = 0; i < peer->callers; i++)
		send_bytes(peer, NULL, message);
}

static void
on_end(uv_timer_t *timer)
{
	(void) timer;
	uv_stop(loop);
}

static void
load(int port, double seconds, unsigned connections, unsigned callers)
{
	static uv_timer_t timer;

	for (unsigned i = 0; i < connections; i++)
	{
		peer_t	   *peer = new_peer();

		peer->callers = callers / connections + (i < callers % connections);
		connect_peer(peer, port, on_loader);
	}
	uv_timer_init(loop, &timer);
	uv_timer_start(&timer, on_end, (uint64_t) (seconds * 1000), 0);
	uv_run(loop, UV_RUN_DEFAULT);
	printf("%.0f exchanges/s\n", (double) exchanges / seconds);
}

int
main(int argc, char **argv)
{
	loop = uv_default_loop();
	if (argc == 4 && strcmp(argv[1], "relay") == 0)
	{
		forward_to = atoi(argv[3]);
		serve(atoi(argv[2]));
	}
	else if (argc == 3 && strcmp(argv[1], "echo") == 0)
		serve(atoi(argv[2]));
	else if ((argc == 7 || (argc == 8 && strcmp(argv[7], "gather") == 0)) && strcmp(argv[1], "load") == 0 && atoi(argv[4]) > 0 &&
			 atol(argv[6]) > 0)
	{
		gather = argc == 8;
		message = (size_t) atol(argv[6]);
		load(atoi(argv[2]), atof(argv[3]), (unsigned) atoi(argv[4]), (unsigned) atoi(argv[5]));
	}
	else
	{
		fprintf(stderr, "wrong use, see the head of test/bench/relay.c\n");
		return 2;
	}
	return 0;
}
