/*
 * conn.h
 *    A TCP connection that carries frames: bytes in to messages, messages out
 *    to frames, with bounds on both sides.  Knows nothing of what they mean.
 *
 *    What all connections share (the bounds of all together, the buffer they
 *    read into, the list of those that have something to send) is the hub.
 *    Messages that are queued in one turn of the loop go out together, before
 *    the loop looks for new input.
 */
#ifndef EVP_CONN_H
#define EVP_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "proxy.h"
#include "tls_io.h"
#include "turn.h"
#include "wire.h"

#define EVP_CONN_READ_SIZE	((size_t) 64 * 1024)	/* what is read from one connection in a turn of the loop */
#define EVP_CONN_PEER_MAX	64

typedef struct evp_conn evp_conn_t;
typedef struct evp_out evp_out_t;		/* a message that is queued */
typedef struct evp_batch evp_batch_t;	/* frames that go out in one write */

typedef struct evp_hub
{
	uv_loop_t  *loop;
	evp_tls_t  *tls;			/* set by the owner, NULL: connections are clear */
	evp_turn_t	turn;			/* sends what the turn has queued */
	evp_conn_t *dirty;			/* have something to do then */
	evp_conn_t *conns;			/* all that are open */
	size_t		count;			/* of them */
	evp_batch_t *spare;
	size_t		held;			/* unfinished input of all */
	size_t		queued;			/* output that waits, of all */

	/* bounds, set by the owner before the first connection */
	size_t		max_held;
	size_t		max_queued;		/* of one connection */
	size_t		max_queued_total;
	uint8_t		buffer[EVP_CONN_READ_SIZE];
} evp_hub_t;

typedef struct evp_conn_callbacks
{
	/* A whole message has come; valid until return. */
	void		(*on_message) (evp_conn_t *conn, evp_blob_t *message);
	/* Bytes have come and a frame or message is unfinished: evp_conn_deadline may be nearer than before. */
	void		(*on_unfinished) (evp_conn_t *conn);
	/* The connection cannot go on: the owner calls evp_conn_close.  breach: by what the
	 * peer did (it broke the protocol, or a bound), not by what happened to the network. */
	void		(*on_broken) (evp_conn_t *conn, const char *reason, bool breach);
	/* After evp_conn_close: the memory is the owner's again. */
	void		(*on_closed) (evp_conn_t *conn);
} evp_conn_callbacks_t;

/* Embed it; the fields are conn.c's but for those marked. */
struct evp_conn
{
	uv_tcp_t	tcp;
	evp_hub_t  *hub;
	const evp_conn_callbacks_t *callbacks;
	evp_tls_io_t *tls;			/* NULL: clear */
	evp_wire_t	wire;			/* the owner may change its limits */
	char		peer[EVP_CONN_PEER_MAX];	/* address:port; may be read */
	uint64_t	last_read;		/* evp_now times; may be read */
	uint64_t	last_write;
	evp_out_t  *head;			/* messages to send */
	evp_out_t  *tail;
	size_t		queued;			/* bytes of them */
	size_t		held;			/* unfinished input as counted in the hub */
	evp_batch_t *writing;		/* frames that are with libuv */
	const char *doomed;			/* why it is to be closed at the end of this turn */
	bool		dirty;
	bool		paused;			/* reading goes on in the next turn */
	bool		finishing;		/* output ends with what is queued */
	bool		deaf;			/* and input is thrown away */
	bool		closing;
	uv_shutdown_t shutdown;
	bool		shut;
	evp_conn_t *next_dirty;
	evp_conn_t *prev;
	evp_conn_t *next;
};

/* Sets a hub up on a loop. */
void		evp_hub_init(evp_hub_t *hub, uv_loop_t *loop);
/* Closes its handles; every connection must be closing. */
void		evp_hub_stop(evp_hub_t *hub);
/* Frees what it holds, after the loop has ended. */
void		evp_hub_free(evp_hub_t *hub);

/*
 * Accepts a connection from a listener and begins to read.  0, or a libuv error:
 * the connection is then closing, and on_closed is called all the same.
 */
int			evp_conn_accept(evp_conn_t *conn, evp_hub_t *hub, uv_stream_t *listener, const evp_conn_callbacks_t *callbacks);

/* Queues a message, whose references are taken over in any case.  0, or -1 where the connection is closing or a bound
 * is passed; it is then closed at the end of the turn. */
int			evp_conn_send(evp_conn_t *conn, evp_parts_t *message);

/* Takes no more input and no more messages, sends what is queued and then says so to the peer (FIN). The owner closes
 * it when the peer has closed its side (on_broken) or it has waited long enough. */
void		evp_conn_finish(evp_conn_t *conn);

/* The same, but what the peer still writes comes to on_message. */
void		evp_conn_leave(evp_conn_t *conn);

/* True once all that was queued has been written and the peer told that nothing more comes. */
bool		evp_conn_has_left(const evp_conn_t *conn);

/* Closes; on_closed follows in a later turn.  A second call does nothing. */
void		evp_conn_close(evp_conn_t *conn);

/* The names of the certificate that the peer has shown, see tls_io.h. */
char	  **evp_conn_cert_names(const evp_conn_t *conn);

/* When an unfinished frame or message is overdue, UINT64_MAX where there is none. */
uint64_t	evp_conn_deadline(const evp_conn_t *conn);

#endif							/* EVP_CONN_H */
