/*
 * tls_io.h
 *    TLS over a stream of libuv: sealed bytes in, plain bytes out, and the
 *    other way round.  What waits to be sealed stays the caller's; of sealed
 *    bytes there are some 64 kB at a time.
 */
#ifndef EVP_TLS_IO_H
#define EVP_TLS_IO_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

typedef struct evp_tls_io evp_tls_io_t;

/* None of these is called from within evp_tls_io_write. */
typedef struct evp_tls_io_callbacks
{
	/* The handshake is done, the peer's certificate, where one is asked for, is verified. May be NULL. */
	void		(*on_secured) (void *arg);
	/* Plain bytes have come; valid until return. */
	void		(*on_plain) (void *arg, const uint8_t *p, size_t n);
	/* The peer has said that nothing more comes from it: the owner writes what can be written at once, and closes the stream. */
	void		(*on_ended) (void *arg);
	/* It cannot go on: the owner closes the stream.  breach: by what the peer did.  reason is a static text. */
	void		(*on_failed) (void *arg, const char *reason, bool breach);
} evp_tls_io_callbacks_t;

/* As uv_write_cb. */
typedef void (*evp_tls_io_written_cb) (void *arg, int status);

/* Takes the session over in any case.  NULL on lack of memory. */
evp_tls_io_t *evp_tls_io_new(SSL *ssl, bool dial, uv_stream_t *stream, const evp_tls_io_callbacks_t *callbacks, void *arg);

/* In or after the stream's close callback: a write that waits is called back, with UV_ECANCELED. */
void		evp_tls_io_free(evp_tls_io_t *io);

/* The dialling end speaks first. */
void		evp_tls_io_dial(evp_tls_io_t *io);

/* Bytes that were read from the stream. */
void		evp_tls_io_input(evp_tls_io_t *io, const uint8_t *p, size_t n);

/*
 * Writes plain bytes, one write at a time.  1: all of them are with the kernel;
 * 0: the callback will come, and until then the buffers must stay; a libuv error
 * otherwise.
 */
int			evp_tls_io_write(evp_tls_io_t *io, const uv_buf_t *bufs, unsigned n, evp_tls_io_written_cb cb, void *arg);

/* Tells the peer that nothing more comes, once all is written; uv_shutdown may follow at once. */
void		evp_tls_io_end(evp_tls_io_t *io);

bool		evp_tls_io_secured(const evp_tls_io_t *io);

/* 32 bytes that both ends of this one connection have, and nobody else.  False before it is secured. */
#define EVP_TLS_BINDING 32
bool		evp_tls_io_binding(const evp_tls_io_t *io, uint8_t binding[EVP_TLS_BINDING]);

/* The common name and the DNS names of the peer's certificate, NULL at the end; NULL where it has shown none.  The
 * caller frees it in one piece. */
char	  **evp_tls_io_names(const evp_tls_io_t *io);

#endif							/* EVP_TLS_IO_H */
