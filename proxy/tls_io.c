/*
 * tls_io.c
 *    TLS over a stream of libuv.
 *
 *    The session reads from and writes to memory, by a BIO of our own: what it
 *    reads are the bytes in hand, which it takes whole, what it writes is
 *    gathered and goes out in one write.  It holds part of a record at most.
 */
#include "tls_io.h"

#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "buf.h"

#define RECORD		((size_t) 16384)	/* plain bytes of the longest record */
#define SEAL_BYTES	((size_t) 64 * 1024)	/* sealed before the kernel is asked to take them */
#define OUT_MAX		((size_t) 1024 * 1024)	/* of which a peer that does not read makes us hold */
#define MAX_NAMES	64
#define BINDING_LABEL "EXPORTER-evento-link"

struct evp_tls_io
{
	SSL		   *ssl;
	uv_stream_t *stream;
	const evp_tls_io_callbacks_t *callbacks;
	void	   *arg;
	const uint8_t *in;			/* sealed bytes in hand */
	size_t		in_left;
	evp_buf_t	out;			/* sealed, not with libuv yet */
	evp_buf_t	sent;			/* with libuv */
	uv_write_t	request;
	bool		writing;
	const uv_buf_t *bufs;		/* the caller's, not sealed yet */
	unsigned	n;
	size_t		offset;			/* into the first of them */
	evp_tls_io_written_cb cb;	/* of the write that is under way, NULL: none is */
	void	   *cb_arg;
	bool		secured;
	bool		failed;
};

static void pump(evp_tls_io_t *io);

/* ---- the session's end of it ---- */

static int
bio_read(BIO *bio, char *p, int n)
{
	evp_tls_io_t *io = BIO_get_data(bio);
	size_t		take = (size_t) n < io->in_left ? (size_t) n : io->in_left;

	BIO_clear_retry_flags(bio);
	if (take == 0)
	{
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(p, io->in, take);
	io->in += take;
	io->in_left -= take;
	return (int) take;
}

static int
bio_write(BIO *bio, const char *p, int n)
{
	evp_tls_io_t *io = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	return evp_buf_append(&io->out, p, (size_t) n) ? n : -1;
}

static long
bio_ctrl(BIO *bio, int command, long number, void *p)
{
	(void) bio;
	(void) number;
	(void) p;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO *
new_bio(evp_tls_io_t *io)
{
	static BIO_METHOD *method;
	BIO		   *bio;

	if (method == NULL)
	{
		method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "evento-proxy");
		if (method == NULL)
			return NULL;
		BIO_meth_set_read(method, bio_read);
		BIO_meth_set_write(method, bio_write);
		BIO_meth_set_ctrl(method, bio_ctrl);
	}
	bio = BIO_new(method);
	if (bio != NULL)
	{
		BIO_set_data(bio, io);
		BIO_set_init(bio, 1);
	}
	return bio;
}

/* ---- life ---- */

evp_tls_io_t *
evp_tls_io_new(SSL *ssl, bool dial, uv_stream_t *stream, const evp_tls_io_callbacks_t *callbacks, void *arg)
{
	evp_tls_io_t *io = calloc(1, sizeof *io);
	BIO		   *bio = io == NULL || ssl == NULL ? NULL : new_bio(io);

	if (bio == NULL)
	{
		SSL_free(ssl);
		free(io);
		return NULL;
	}
	SSL_set_bio(ssl, bio, bio);
	if (dial)
		SSL_set_connect_state(ssl);
	else
		SSL_set_accept_state(ssl);
	io->ssl = ssl;
	io->stream = stream;
	io->callbacks = callbacks;
	io->arg = arg;
	io->request.data = io;
	evp_buf_init(&io->out, OUT_MAX);
	evp_buf_init(&io->sent, OUT_MAX);
	return io;
}

/* Calls the write under way back. */
static void
finish_write(evp_tls_io_t *io, int status)
{
	evp_tls_io_written_cb cb = io->cb;

	io->cb = NULL;
	io->n = 0;
	cb(io->cb_arg, status);
}

void
evp_tls_io_free(evp_tls_io_t *io)
{
	if (io == NULL)
		return;
	if (io->cb != NULL)
		finish_write(io, UV_ECANCELED);
	SSL_free(io->ssl);
	evp_buf_free(&io->out);
	evp_buf_free(&io->sent);
	free(io);
}

static bool
is_closing(const evp_tls_io_t *io)
{
	return io->failed || uv_is_closing((uv_handle_t *) io->stream);
}

static void
fail(evp_tls_io_t *io, const char *reason, bool breach)
{
	if (is_closing(io))
		return;
	io->failed = true;
	io->callbacks->on_failed(io->arg, reason, breach);
}

/* Why OpenSSL gave up. */
static const char *
trouble(const evp_tls_io_t *io)
{
	long		verified = SSL_get_verify_result(io->ssl);
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	if (io->out.failed)
		return "TLS: it does not read";
	if (verified != X509_V_OK)
		return X509_verify_cert_error_string(verified);
	return reason != NULL ? reason : "TLS failed";
}

/* ---- writing ---- */

static bool
is_sealed(const evp_tls_io_t *io)
{
	return io->n == 0;
}

/* The next record's worth of the caller's bytes, copied together where they lie in pieces. */
static const uint8_t *
next_piece(evp_tls_io_t *io, size_t *n)
{
	static uint8_t room[RECORD];	/* one thread, and used up at once */
	size_t		filled = 0;

	if (io->bufs->len - io->offset >= RECORD)
	{
		const uint8_t *p = (const uint8_t *) io->bufs->base + io->offset;

		io->offset += RECORD;
		*n = RECORD;
		return p;
	}
	while (io->n > 0 && filled < RECORD)
	{
		size_t		left = io->bufs->len - io->offset;
		size_t		take = left < RECORD - filled ? left : RECORD - filled;

		if (take > 0)
			memcpy(room + filled, io->bufs->base + io->offset, take);
		filled += take;
		io->offset += take;
		if (io->offset == io->bufs->len)
		{
			io->bufs++;
			io->n--;
			io->offset = 0;
		}
	}
	*n = filled;
	return room;
}

/* Seals some of the caller's bytes; false where that cannot be done. */
static bool
seal(evp_tls_io_t *io)
{
	while (io->n > 0 && io->out.len < SEAL_BYTES)
	{
		size_t		n;
		const uint8_t *p = next_piece(io, &n);

		if (n == 0)
			continue;
		ERR_clear_error();
		if (SSL_write(io->ssl, p, (int) n) != (int) n)
			return false;
	}
	return true;
}

static void
on_written(uv_write_t *request, int status)
{
	evp_tls_io_t *io = request->data;

	io->writing = false;
	evp_buf_free(&io->sent);
	if (status < 0 || is_closing(io))
	{
		if (io->cb != NULL)
			finish_write(io, status < 0 ? status : UV_ECANCELED);
		return;
	}
	pump(io);
}

/* Gives the kernel what is sealed, and libuv what it does not take.  0, or a libuv error. */
static int
send_sealed(evp_tls_io_t *io)
{
	uv_buf_t	buf = uv_buf_init((char *) io->out.data, (unsigned) io->out.len);
	int			rc = uv_try_write(io->stream, &buf, 1);

	if (rc == UV_EAGAIN)
		rc = 0;
	if (rc < 0)
		return rc;
	if ((size_t) rc == io->out.len)
	{
		evp_buf_free(&io->out);
		return 0;
	}
	evp_buf_consume(&io->out, (size_t) rc);
	io->sent = io->out;
	evp_buf_init(&io->out, OUT_MAX);
	buf = uv_buf_init((char *) io->sent.data, (unsigned) io->sent.len);
	rc = uv_write(&io->request, io->stream, &buf, 1, on_written);
	if (rc == 0)
		io->writing = true;
	else
		evp_buf_free(&io->sent);
	return rc;
}

/* Seals and sends as much as goes.  0, or a libuv error. */
static int
push(evp_tls_io_t *io)
{
	while (!io->writing && !is_closing(io))
	{
		int			rc;

		if (io->secured && !seal(io))
			return UV_EPROTO;
		if (io->out.len == 0)
			break;
		rc = send_sealed(io);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The same from a callback of libuv. */
static void
pump(evp_tls_io_t *io)
{
	int			rc = push(io);

	if (io->cb != NULL && (rc < 0 || (is_sealed(io) && !io->writing)))
		finish_write(io, rc);
	else if (rc < 0)
		fail(io, uv_strerror(rc), false);
}

int
evp_tls_io_write(evp_tls_io_t *io, const uv_buf_t *bufs, unsigned n, evp_tls_io_written_cb cb, void *arg)
{
	int			rc;

	if (is_closing(io))
		return UV_ECANCELED;
	io->bufs = bufs;
	io->n = n;
	io->offset = 0;
	rc = push(io);
	if (rc == 0 && is_sealed(io) && !io->writing)
		return 1;
	if (rc < 0)
	{
		io->n = 0;
		return rc;
	}
	io->cb = cb;
	io->cb_arg = arg;
	return 0;
}

void
evp_tls_io_end(evp_tls_io_t *io)
{
	/* Behind what libuv still has there is no room: the stream ends without a word of TLS then. */
	if (!io->secured || io->writing || is_closing(io))
		return;
	ERR_clear_error();
	SSL_shutdown(io->ssl);
	if (io->out.len > 0)
		send_sealed(io);
}

/* ---- reading ---- */

/* One step of the handshake; true when the rest of the bytes in hand can be gone on with. */
static bool
shake_hands(evp_tls_io_t *io)
{
	int			rc;

	ERR_clear_error();
	rc = SSL_do_handshake(io->ssl);
	if (rc != 1 && SSL_get_error(io->ssl, rc) == SSL_ERROR_WANT_READ)
	{
		pump(io);
		return false;
	}
	if (rc != 1)
	{
		const char *reason = trouble(io);

		/* The alert that tells the peer. */
		push(io);
		fail(io, reason, true);
		return false;
	}
	io->secured = true;
	pump(io);
	if (!is_closing(io) && io->callbacks->on_secured != NULL)
		io->callbacks->on_secured(io->arg);
	return !is_closing(io);
}

void
evp_tls_io_input(evp_tls_io_t *io, const uint8_t *p, size_t n)
{
	static uint8_t plain[RECORD];

	io->in = p;
	io->in_left = n;
	if (is_closing(io) || (!io->secured && !shake_hands(io)))
		return;
	for (;;)
	{
		int			rc;

		ERR_clear_error();
		rc = SSL_read(io->ssl, plain, sizeof plain);
		if (rc <= 0)
		{
			int			error = SSL_get_error(io->ssl, rc);

			if (error == SSL_ERROR_WANT_READ)
				break;
			if (error == SSL_ERROR_ZERO_RETURN)
				io->callbacks->on_ended(io->arg);
			else
			{
				const char *reason = trouble(io);

				push(io);
				fail(io, reason, true);
			}
			return;
		}
		io->callbacks->on_plain(io->arg, plain, (size_t) rc);
		if (is_closing(io))
			return;
	}
	/* What the session itself had to say: tickets, keys. */
	if (io->out.len > 0)
		pump(io);
}

void
evp_tls_io_dial(evp_tls_io_t *io)
{
	io->in_left = 0;
	shake_hands(io);
}

/* ---- what it says of the peer ---- */

bool
evp_tls_io_secured(const evp_tls_io_t *io)
{
	return io->secured;
}

bool
evp_tls_io_binding(const evp_tls_io_t *io, uint8_t binding[EVP_TLS_BINDING])
{
	return io->secured &&
		SSL_export_keying_material(io->ssl, binding, EVP_TLS_BINDING, BINDING_LABEL, strlen(BINDING_LABEL), NULL, 0, 0) == 1;
}

/* Adds a name as UTF-8.  One with a zero byte in it would be read as another. */
static void
add_name(char **names, size_t *count, const ASN1_STRING *from)
{
	unsigned char *text = NULL;
	int			n = *count < MAX_NAMES ? ASN1_STRING_to_UTF8(&text, from) : -1;

	if (n > 0 && memchr(text, 0, (size_t) n) == NULL)
		names[(*count)++] = (char *) text;
	else
		OPENSSL_free(text);
}

/* The names in one piece of memory behind the pointers to them. */
static char **
pack_names(char *const *names, size_t count)
{
	size_t		size = (count + 1) * sizeof(char *);
	char	  **packed;
	char	   *to;

	for (size_t i = 0; i < count; i++)
		size += strlen(names[i]) + 1;
	packed = malloc(size);
	if (packed == NULL)
		return NULL;
	to = (char *) (packed + count + 1);
	for (size_t i = 0; i < count; i++)
	{
		packed[i] = to;
		to = stpcpy(to, names[i]) + 1;
	}
	packed[count] = NULL;
	return packed;
}

char	  **
evp_tls_io_names(const evp_tls_io_t *io)
{
	X509	   *cert = io->secured && SSL_get_verify_result(io->ssl) == X509_V_OK ? SSL_get1_peer_certificate(io->ssl) : NULL;
	GENERAL_NAMES *alternatives;
	X509_NAME  *subject;
	char	   *names[MAX_NAMES];
	char	  **packed;
	size_t		count = 0;
	int			at = -1;

	if (cert == NULL)
		return NULL;
	subject = X509_get_subject_name(cert);
	while ((at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0)
		add_name(names, &count, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	alternatives = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	for (int i = 0; alternatives != NULL && i < sk_GENERAL_NAME_num(alternatives); i++)
	{
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(alternatives, i);

		if (name->type == GEN_DNS)
			add_name(names, &count, name->d.dNSName);
	}
	packed = pack_names(names, count);
	for (size_t i = 0; i < count; i++)
		OPENSSL_free(names[i]);
	GENERAL_NAMES_free(alternatives);
	X509_free(cert);
	return packed;
}
