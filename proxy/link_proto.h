/*
 * link_proto.h
 *    What proxies say to each other: the frames of a link, and how both ends
 *    prove that they know the cluster's secret.  Without a socket or a clock.
 *
 * A frame is two lengths (u32 each), a head of the first and a message of the
 * second length (0: none): a message arrives in a block of its own and is passed
 * on without a copy.  The head begins with a type byte.  Numbers are in network
 * byte order; text is a u16 length and bytes.
 *
 *    dialler                                  acceptor
 *    HELLO "EVPL" version nonce proxy_id  ->
 *                                         <-  CHALLENGE nonce proxy_id mac
 *    PROOF mac                            ->
 *                                         <-  WELCOME
 *
 * mac is HMAC-SHA256 under the secret over a text that names the role of the one
 * who proves, both nonces, both numbers and what binds it to the TLS connection,
 * where there is one: what one end says is of no use in the other's role or in
 * another conversation, nor to someone in between.  Before an end is proven it may send
 * no message at all.
 *
 *    PING                                     both, at least every second
 *    RENAMED proxy_id                         both: my number is this now
 *    CALL id session_no timeout bundle instance REQ                  dialler
 *    CANCEL id                                                       dialler
 *    RESULT id RSP | CUT id session_no | REFUSED id session_no why   acceptor
 *    ANSWER bundle instance RSP               dialler: for a caller that has moved
 */
#ifndef EVP_LINK_PROTO_H
#define EVP_LINK_PROTO_H

#include "buf.h"

#define EVP_LINK_VERSION		1
#define EVP_LINK_NONCE			32
#define EVP_LINK_MAC			32
#define EVP_LINK_BINDING		32
#define EVP_LINK_MAX_HEAD		2048
/* More than the longest message that a bundle may send. */
#define EVP_LINK_MAX_MESSAGE	((size_t) 300 * 1024 * 1024)
#define EVP_LINK_MAX_KEY		512 /* bytes of a bundle's or an instance's name */

typedef enum evp_link_type
{
	EVP_LINK_HELLO = 1,
	EVP_LINK_CHALLENGE,
	EVP_LINK_PROOF,
	EVP_LINK_WELCOME,
	EVP_LINK_PING,
	EVP_LINK_RENAMED,
	EVP_LINK_CALL,
	EVP_LINK_CANCEL,
	EVP_LINK_RESULT,
	EVP_LINK_CUT,
	EVP_LINK_REFUSED,
	EVP_LINK_ANSWER
} evp_link_type_t;

/* A frame; the fields that its type has not got are zero.  A decoded one lies in the blobs that were decoded. */
typedef struct evp_link_frame
{
	evp_link_type_t type;
	uint8_t		id[16];			/* CALL, CANCEL, RESULT, CUT, REFUSED */
	int64_t		session_no;		/* CALL, CUT, REFUSED */
	uint32_t	timeout_ms;		/* CALL */
	uint8_t		why;			/* REFUSED */
	int64_t		proxy_id;		/* HELLO, CHALLENGE, RENAMED */
	const uint8_t *nonce;		/* HELLO, CHALLENGE: EVP_LINK_NONCE bytes */
	const uint8_t *mac;			/* CHALLENGE, PROOF: EVP_LINK_MAC bytes */
	evp_slice_t bundle;			/* CALL, ANSWER; without zero bytes, 1 to EVP_LINK_MAX_KEY long */
	evp_slice_t instance;
	evp_blob_t *message;		/* CALL, RESULT, ANSWER, when decoded: borrowed */
} evp_link_frame_t;

/*
 * Appends the lengths and the head of a frame to a buffer; message_len bytes are
 * to follow it (0 for the types without).  False when the buffer has failed, a
 * name is too long, or the message is.
 */
bool		evp_link_put(evp_buf_t *b, const evp_link_frame_t *frame, size_t message_len);

/* Decodes a head and its message (NULL: none).  0; or -1 with *reason a static text. */
int			evp_link_decode(evp_link_frame_t *frame, const evp_blob_t *head, evp_blob_t *message, const char **reason);

/* The reading half of a link: bytes in any portions to whole frames. */
typedef struct evp_link_reader
{
	size_t		max_message;	/* 0 at first; the owner raises it */
	uint8_t		lengths[8];
	size_t		lengths_len;	/* of them that have come */
	size_t		head_len;		/* what the lengths say */
	size_t		message_len;
	evp_buf_t	head;			/* what has come: grows only as bytes come */
	evp_buf_t	message;
} evp_link_reader_t;

void		evp_link_reader_init(evp_link_reader_t *r);
void		evp_link_reader_free(evp_link_reader_t *r);

/*
 * Takes bytes from *p, *n, which move on by what was consumed, at most up to the
 * end of one frame.  1, and in *head and *message (NULL: none) the frame, whose
 * references are the caller's; 0 when all bytes are consumed; -1 with *reason a
 * static text.
 */
int			evp_link_feed(evp_link_reader_t *r, const uint8_t **p, size_t *n, evp_blob_t **head, evp_blob_t **message,
						  const char **reason);

/* The two ends of a conversation, for their proofs. */
typedef struct evp_link_greeting
{
	uint8_t		dialler_nonce[EVP_LINK_NONCE];
	uint8_t		acceptor_nonce[EVP_LINK_NONCE];
	int64_t		dialler_id;
	int64_t		acceptor_id;
	bool		bound;			/* the link speaks TLS */
	uint8_t		binding[EVP_LINK_BINDING];	/* then what only this one connection has */
} evp_link_greeting_t;

/* The proof of one end. False where it cannot be computed. */
bool		evp_link_prove(const evp_link_greeting_t *g, bool acceptor, const uint8_t *secret, size_t secret_len,
						   uint8_t mac[EVP_LINK_MAC]);
/* Is it that proof?  Takes the same time for every wrong one. */
bool		evp_link_proven(const evp_link_greeting_t *g, bool acceptor, const uint8_t *secret, size_t secret_len,
							const uint8_t *mac);

#endif /* EVP_LINK_PROTO_H */
