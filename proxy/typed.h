/*
 * typed.h
 *    Typed objects, ["fully.qualified.Class", {fields}], of which all object
 *    graphs consist, and the classes that every one of them begins with.
 */
#ifndef EVP_TYPED_H
#define EVP_TYPED_H

#include "buf.h"
#include "cbor.h"

#define EVP_COMMON			"com.evento.common."
#define EVP_INTERNAL		EVP_COMMON "modeling.messaging.message.internal."
#define EVP_CLASS_REQUEST	EVP_INTERNAL "EventoRequest"
#define EVP_CLASS_RESPONSE	EVP_INTERNAL "EventoResponse"
#define EVP_CLASS_MESSAGE	EVP_INTERNAL "EventoMessage"

/* Enters ["class",{…}] up to its fields. */
bool		evp_typed_enter(evp_cbor_t *r, evp_slice_t *class);

/* The next field's name; fields whose name is no text are skipped.  False behind the last one. */
bool		evp_typed_field(evp_cbor_t *r, evp_slice_t *key);

/* Behind the last field: the typed object ends here. */
bool		evp_typed_leave(evp_cbor_t *r);

/* Writes a typed object around the fields that are put between the two calls. */
void		evp_typed_open(evp_buf_t *b, const char *class);
void		evp_typed_close(evp_buf_t *b);

/* A field; null where the text is. */
void		evp_typed_int(evp_buf_t *b, const char *key, int64_t v);
void		evp_typed_text(evp_buf_t *b, const char *key, evp_slice_t v);

#endif							/* EVP_TYPED_H */
