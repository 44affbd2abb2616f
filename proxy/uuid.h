/*
 * uuid.h
 *    UUIDs: random ones, derived ones, and their text form.
 */
#ifndef EVP_UUID_H
#define EVP_UUID_H

#include "buf.h"

#define EVP_UUID_TEXT_LEN 36

/* A random UUID (version 4) from the system's generator.  Aborts when the
 * system has no randomness: ids that repeat would lose commands. */
void		evp_uuid_v4(uint8_t out[16]);

/* The UUID (version 5, SHA-1) of n bytes under a namespace. */
void		evp_uuid_v5(const uint8_t space[16], const void *name, size_t n, uint8_t out[16]);

/*
 * The id of the event that a request brings about: the same for every repeat
 * of the request, at whichever proxy.  bundle and instance are the REQ's
 * source, correlation its 16 bytes, stream the event's (null: none).  Each
 * part is counted with its length, so that no two requests share an id.
 */
void		evp_uuid_event_id(evp_slice_t bundle, evp_slice_t instance, const uint8_t correlation[16],
							  evp_slice_t stream, uint8_t out[16]);

/* Writes 36 lower case characters and a terminator. */
void		evp_uuid_format(const uint8_t id[16], char out[EVP_UUID_TEXT_LEN + 1]);

/* Reads the 36 character form, in either case.  False, and out untouched, for any other text. */
bool		evp_uuid_parse(const void *text, size_t n, uint8_t out[16]);

#endif							/* EVP_UUID_H */
