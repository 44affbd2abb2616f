/*
 * payload.h
 *    Payloads of Java classes to what the log stores, and back to the very
 *    same text; and the metadata of messages.
 *
 * A bundle gives a serialized object (JSON text) and its objectClass.  Where
 * the text is exactly ["<class>",{…}] and objectClass is "class <class>", the
 * log stores the object alone, as data, and <class>, so that SQL reads
 * data->>'orderId'.  Any other shape is kept whole: data is the whole text and
 * class the whole objectClass.  A stored class that would be mistaken for the
 * first form gets a "=" before it.  So a stored class is read as:
 *
 *    "class …"    objectClass as it stands, data as it stands
 *    "=…"         objectClass is what follows the "=", data as it stands
 *    else         data is an object: ["<class>", data ], "class <class>";
 *                 data is not: objectClass as it stands, data as it stands
 *    NULL         as if it were the event's type
 */
#ifndef EVP_PAYLOAD_H
#define EVP_PAYLOAD_H

#include "buf.h"

/* The most that a stored class takes beyond the objectClass. */
#define EVP_PAYLOAD_CLASS_EXTRA 1

/* What the log stores.  type and data lie in the input; klass lies there too,
 * or in the arena where it needed a "=". */
typedef struct evp_payload
{
	evp_slice_t type;			/* the part of objectClass after its last dot */
	evp_slice_t klass;
	evp_slice_t data;
} evp_payload_t;

/*
 * Splits a serialized object.  Gives 1; 0 where it is nothing (objectClass is
 * null); -1 with *reason where it cannot be stored (no name, too long a name or
 * class, no memory).  data is not checked to be JSON: the database does that.
 */
int			evp_payload_split(evp_payload_t *out, evp_slice_t serialized_object, evp_slice_t object_class,
							  evp_arena_t *arena, const char **reason);

/* The name of a payload: the part of an objectClass after its last dot. */
evp_slice_t evp_payload_name(evp_slice_t object_class);

/* Appends the two fields serializedObject and objectClass, keys and values, to
 * a CBOR map.  type stands in for klass where that is null. */
void		evp_payload_put(evp_buf_t *b, evp_slice_t klass, evp_slice_t type, evp_slice_t data);

/* The same for "nothing": the text null, and null. */
void		evp_payload_put_nothing(evp_buf_t *b);

/*
 * Metadata as bundles send it, the bytes of a CBOR item (typed map of text to
 * text, or null), to the text of a JSON object.  Gives 1 and appends the text; 0 where
 * it is null; -1 with *reason where it is something else.
 */
int			evp_metadata_to_json(evp_buf_t *json, evp_slice_t cbor, const char **reason);

/*
 * The text of a JSON object to metadata as bundles read it.  Values that are
 * not text (only SQL writes such) become their JSON text, nulls stay.  What is
 * no object becomes null.
 */
void		evp_metadata_put(evp_buf_t *b, evp_slice_t json);

#endif							/* EVP_PAYLOAD_H */
