/*
 * link_io.h
 *    One link: a TCP connection between two proxies, from the look-up of the
 *    name over the greeting to its end.  What is said on it is link.c's.
 */
#ifndef EVP_LINK_IO_H
#define EVP_LINK_IO_H

#include <stdbool.h>
#include <uv.h>

#include "link_proto.h"
#include "proxy.h"
#include "tls_io.h"
#include "turn.h"
#include "wire.h"

#define EVP_LINK_GREETING_MS	3000	/* from the first byte to the last of connecting and greeting */
#define EVP_LINK_PING_MS		1000	/* a ping is written after this without another write */
#define EVP_LINK_DEAD_MS		3000	/* it is closed after this without a byte */
#define EVP_LINK_READ_SIZE		((size_t) 256 * 1024)

typedef struct evp_link evp_link_t;
typedef struct evp_link_out evp_link_out_t;		/* a frame that waits to be written */
typedef struct evp_link_batch evp_link_batch_t;	/* frames in one write */

/* What all links share. */
typedef struct evp_link_hub
{
	evp_proxy_t *proxy;
	evp_turn_t	turn;			/* writes what the turn has queued */
	evp_link_t *dirty;			/* links that have something to do then */
	evp_link_t *links;			/* all that are not closing */
	size_t		greeting;		/* accepted ones that have proven nothing yet */
	uint64_t	last_no;
	uint64_t	ticked_at;

	/* Set by the owner.  Frames are valid until return. */
	void		(*on_up) (evp_link_t *link);
	void		(*on_frame) (evp_link_t *link, const evp_link_frame_t *frame);
	void		(*on_closed) (evp_link_t *link, const char *reason);	/* last call; never from within evp_link_send */

	uint8_t		buffer[EVP_LINK_READ_SIZE];
} evp_link_hub_t;

typedef enum evp_link_state
{
	EVP_LINK_RESOLVING,
	EVP_LINK_CONNECTING,
	EVP_LINK_GREETING,
	EVP_LINK_UP,
	EVP_LINK_CLOSING
} evp_link_state_t;

/* The fields are link_io.c's but for those marked. */
struct evp_link
{
	evp_link_hub_t *hub;		/* may be read */
	void	   *owner;			/* the owner's */
	uint64_t	no;				/* may be read: never the same again */
	bool		outgoing;		/* may be read */
	bool		was_up;			/* may be read */
	evp_link_state_t state;		/* may be read */
	int64_t		peer_id;		/* may be read; of the proxy at the other end, the owner sets it when that is renamed */
	char		peer[128];		/* may be read: address:port, for the log */

	uv_tcp_t	tcp;
	evp_tls_io_t *tls;			/* NULL: clear */
	uv_connect_t connect;
	uv_getaddrinfo_t lookup;
	char		port[8];
	unsigned	attempt;		/* which of a name's addresses */
	unsigned	pins;			/* handle, look-up under way */
	evp_link_greeting_t greeting;
	evp_link_reader_t reader;
	uint64_t	begun_at;
	uint64_t	last_read;
	uint64_t	last_write;
	evp_link_out_t *urgent;		/* greetings */
	evp_link_out_t *first;		/* the rest, written once it is up */
	evp_link_out_t *last;
	size_t		queued;			/* bytes that wait or are being written */
	evp_link_batch_t *writing;
	const char *doomed;			/* why it is to be closed at the end of the turn */
	bool		dirty;
	evp_link_t *next_dirty;
	evp_link_t *prev;
	evp_link_t *next;
};

void		evp_link_hub_init(evp_link_hub_t *hub, evp_proxy_t *proxy);
/* Closes all links, without on_closed, and the hub's handles. */
void		evp_link_hub_stop(evp_link_hub_t *hub);

/* Accepts a connection.  NULL where it cannot; it is then refused. */
evp_link_t *evp_link_accept(evp_link_hub_t *hub, uv_stream_t *listener);

/* Begins to connect to the proxy of a number, at the attempt-th of the host's addresses.  What goes wrong comes to
 * on_closed in a later turn.  NULL on lack of memory. */
evp_link_t *evp_link_dial(evp_link_hub_t *hub, const char *host, uint16_t port, int64_t peer_id, unsigned attempt);

/* Queues a frame, with references of its own to the message (NULL: none); it waits until the link is up.  0, or -1
 * where the link is closing or its output bound is passed: it is then closed at the end of the turn. */
int			evp_link_send(evp_link_t *link, const evp_link_frame_t *frame, const evp_parts_t *message);

/* Closes; on_closed is called from within.  The link is void. */
void		evp_link_close(evp_link_t *link, const char *reason);

/* Pings, and closes what is dead or does not get on; to be called a few times a second. */
void		evp_link_hub_tick(evp_link_hub_t *hub);

#endif /* EVP_LINK_IO_H */
