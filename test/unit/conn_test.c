/*
 * conn_test.c
 *    A connection whose peer ends its side behind what it asks: the answer goes
 *    out all the same, in the clear and with TLS.
 */
#include "unit.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "conn.h"
#include "tls.h"

#define FRAME "\0\0\0\6\0asked"
#define FRAME_LEN (sizeof(FRAME) - 1)

typedef struct ends
{
	uv_loop_t	loop;
	evp_hub_t	hub;
	uv_tcp_t	listener;
	evp_conn_t	conn;
	unsigned	messages;
	const char *broken;
	bool		breach;
	bool		closed;
	int			fd;				/* the peer's */
} ends_t;

static SSL_CTX *server_ctx;

SSL *
evp_tls_session(evp_tls_t *tls, evp_tls_port_t port, bool dial)
{
	(void) tls;
	(void) port;
	(void) dial;
	return SSL_new(server_ctx);
}

static void
on_message(evp_conn_t *conn, evp_blob_t *message)
{
	evp_parts_t parts;

	((ends_t *) conn->hub->loop->data)->messages++;
	evp_parts_blob(&parts, evp_blob_ref(message));
	assert_int_equal(evp_conn_send(conn, &parts), 0);
}

static void
on_unfinished(evp_conn_t *conn)
{
	(void) conn;
}

static void
on_broken(evp_conn_t *conn, const char *reason, bool breach)
{
	ends_t	   *e = conn->hub->loop->data;

	e->broken = reason;
	e->breach = breach;
	evp_conn_close(conn);
}

static void
on_closed(evp_conn_t *conn)
{
	((ends_t *) conn->hub->loop->data)->closed = true;
}

static const evp_conn_callbacks_t callbacks = {on_message, on_unfinished, on_broken, on_closed};

static void
on_connection(uv_stream_t *listener, int status)
{
	ends_t	   *e = listener->data;

	assert_int_equal(status, 0);
	assert_int_equal(evp_conn_accept(&e->conn, &e->hub, listener, &callbacks), 0);
	e->conn.wire.max_frame = e->conn.wire.max_message = e->conn.wire.max_held = 1000;
	e->conn.wire.max_streams = 1;
}

/* A certificate that is signed by itself. */
static void
give_certificate(SSL_CTX *ctx)
{
	EVP_PKEY   *key = EVP_EC_gen("P-256");
	X509	   *cert = X509_new();

	assert_non_null(key);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -60);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *) "test", -1, -1, 0);
	X509_set_issuer_name(cert, X509_get_subject_name(cert));
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	assert_int_equal(SSL_CTX_use_certificate(ctx, cert), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey(ctx, key), 1);
	X509_free(cert);
	EVP_PKEY_free(key);
}

static void
turn(ends_t *e)
{
	for (int i = 0; i < 20; i++)
		uv_run(&e->loop, UV_RUN_NOWAIT);
}

/* Until the connection has ended; what the peer has written may be on its way for a moment. */
static void
turn_to_the_end(ends_t *e)
{
	for (int i = 0; i < 10000 && !e->closed; i++)
	{
		turn(e);
		uv_sleep(1);
	}
	assert_true(e->closed);
}

static void
begin(ends_t *e, bool tls)
{
	struct sockaddr_in at;
	int			len = sizeof at;

	memset(e, 0, sizeof *e);
	uv_loop_init(&e->loop);
	e->loop.data = e;
	evp_hub_init(&e->hub, &e->loop);
	e->hub.tls = tls ? (evp_tls_t *) e : NULL;	/* looked at by the stub alone */
	e->hub.max_held = e->hub.max_queued = e->hub.max_queued_total = 100000;
	uv_tcp_init(&e->loop, &e->listener);
	e->listener.data = e;
	uv_ip4_addr("127.0.0.1", 0, &at);
	assert_int_equal(uv_tcp_bind(&e->listener, (struct sockaddr *) &at, 0), 0);
	assert_int_equal(uv_listen((uv_stream_t *) &e->listener, 1, on_connection), 0);
	uv_tcp_getsockname(&e->listener, (struct sockaddr *) &at, &len);
	e->fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(e->fd, (struct sockaddr *) &at, sizeof at), 0);
	turn(e);
}

static void
finish(ends_t *e)
{
	assert_int_equal(e->messages, 1);
	assert_string_equal(e->broken, "closed by the peer");
	assert_false(e->breach);
	assert_true(e->closed);
	uv_close((uv_handle_t *) &e->listener, NULL);
	evp_hub_stop(&e->hub);
	turn(e);
	assert_int_equal(uv_loop_close(&e->loop), 0);
	evp_hub_free(&e->hub);
	close(e->fd);
}

static void
test_clear(void **state)
{
	char		text[64];
	ends_t		e;

	(void) state;
	begin(&e, false);
	assert_int_equal(write(e.fd, FRAME, FRAME_LEN), FRAME_LEN);
	shutdown(e.fd, SHUT_WR);
	turn_to_the_end(&e);
	assert_int_equal(read(e.fd, text, sizeof text), FRAME_LEN);
	assert_memory_equal(text, FRAME, FRAME_LEN);
	assert_int_equal(read(e.fd, text, sizeof text), 0);
	finish(&e);
}

/* What is asked and that this is all come in one read. */
static void
test_tls(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	SSL_CTX    *client_ctx = SSL_CTX_new(TLS_client_method());

	(void) state;
	server_ctx = SSL_CTX_new(TLS_server_method());
	give_certificate(server_ctx);
	for (size_t i = 0; i < 2; i++)
	{
		SSL		   *ssl;
		char		text[64];
		ends_t		e;
		int			rc = 0;

		begin(&e, true);
		SSL_CTX_set_max_proto_version(client_ctx, versions[i]);
		ssl = SSL_new(client_ctx);
		SSL_set_fd(ssl, e.fd);
		fcntl(e.fd, F_SETFL, O_NONBLOCK);
		for (int k = 0; k < 10000 && rc != 1; k++)
		{
			rc = SSL_connect(ssl);
			turn(&e);
			uv_sleep(rc != 1);
		}
		assert_int_equal(rc, 1);
		assert_int_equal(SSL_write(ssl, FRAME, FRAME_LEN), FRAME_LEN);
		assert_int_equal(SSL_shutdown(ssl), 0);
		turn_to_the_end(&e);
		fcntl(e.fd, F_SETFL, 0);
		assert_int_equal(SSL_read(ssl, text, sizeof text), FRAME_LEN);
		assert_memory_equal(text, FRAME, FRAME_LEN);
		/* And it is told that this was all. */
		assert_int_equal(SSL_read(ssl, text, sizeof text), 0);
		assert_int_equal(SSL_get_error(ssl, 0), SSL_ERROR_ZERO_RETURN);
		SSL_free(ssl);
		finish(&e);
	}
	SSL_CTX_free(client_ctx);
	SSL_CTX_free(server_ctx);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clear),
		cmocka_unit_test(test_tls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
