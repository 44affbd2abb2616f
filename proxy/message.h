/*
 * message.h
 *    The eight messages of the bundle protocol, decoded and encoded.
 *
 * Decoding accepts what bundles accept: definite and indefinite lengths, UUIDs
 * as bytes or text, keys in any order, unknown and missing keys.  Encoding
 * writes what bundles write: "@t" first, then every key in the protocol's
 * order, null where empty.
 */
#ifndef EVP_MESSAGE_H
#define EVP_MESSAGE_H

#include "buf.h"
#include "wire.h"

#define EVP_PROTOCOL_VERSION	2
#define EVP_MAX_CAPABILITIES	16	/* of a hello; more are ignored */

typedef enum evp_message_type
{
	EVP_HEL,
	EVP_WLC,
	EVP_REJ,
	EVP_PNG,
	EVP_PON,
	EVP_REQ,
	EVP_RSP,
	EVP_NTF
} evp_message_type_t;

/*
 * A message.  The fields that its type has not got are zero.  After decoding,
 * slices lie in the message's blob (or in joined strings), which the message
 * holds until evp_message_free; keep single ones longer with evp_slice_ref.
 * For encoding, fill the fields and leave blob and arena alone.
 */
typedef struct evp_message
{
	evp_message_type_t type;
	bool		has_correlation;	/* else null or missing */
	uint8_t		correlation[16];
	int64_t		timestamp_ms;

	/* HEL, WLC */
	int64_t		protocol_version;
	evp_slice_t bundle_id;
	evp_slice_t instance_id;	/* of WLC: serverInstanceId */
	evp_slice_t bundle_version; /* text */
	evp_slice_t auth_token;		/* null: none */
	evp_slice_t capabilities[EVP_MAX_CAPABILITIES];
	unsigned	n_capabilities;

	/* REJ */
	evp_slice_t code;
	evp_slice_t reason;

	/* PNG, PON */
	int64_t		sequence;
	int64_t		origin_timestamp_ms;

	/* REQ */
	evp_slice_t source_bundle_id;
	evp_slice_t source_instance_id;
	evp_slice_t source_bundle_version;	/* text */
	int64_t		timeout_ms;

	/* REQ, RSP, NTF */
	evp_slice_t payload_type;
	evp_slice_t payload;

	/* RSP */
	bool		has_failure;
	evp_slice_t failure_class;	/* exceptionClassName */
	evp_slice_t failure_message;
	evp_slice_t failure_stack;

	evp_blob_t *blob;
	evp_arena_t arena;
} evp_message_t;

/*
 * Decodes the CBOR item that is the whole of blob, of which the message takes
 * a reference of its own.  Gives 0; or -1 with *reason a static text (bad CBOR,
 * a field of the wrong type, an unknown "@t"), and then there is nothing to free.
 */
int			evp_message_decode(evp_message_t *m, evp_blob_t *blob, const char **reason);

/* Frees what a decoded message holds. */
void		evp_message_free(evp_message_t *m);

/* Appends the message as one CBOR item; false when the buffer has failed. */
bool		evp_message_encode(evp_buf_t *b, const evp_message_t *m);

/*
 * The message as parts to send.  A payload of more than a kilobyte that
 * has an owner is not copied: the parts hold a reference to it.  False on lack
 * of memory.
 */
bool		evp_message_pack(evp_parts_t *parts, const evp_message_t *m);

/* "HEL", "WLC", …; for logs and metrics. */
const char *evp_message_name(evp_message_type_t type);

#endif							/* EVP_MESSAGE_H */
