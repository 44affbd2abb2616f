/*
 * command.h
 *    Coordinates commands at the caller's proxy: lock, story, handler, append,
 *    answer; repeats on conflict; exactly once by the event's derived id.
 */
#ifndef EVP_COMMAND_H
#define EVP_COMMAND_H

#include "proxy.h"
#include "requests.h"

evp_commands_t *evp_commands_new(evp_proxy_t *proxy);
void evp_commands_stop(evp_commands_t *commands);
void evp_commands_free(evp_commands_t *commands);

/* Begins a domain or service command; the request is answered in the end, whatever happens. */
void evp_commands_start(evp_commands_t *commands, evp_request_t *request);

/* What the stories take that are kept. */
size_t evp_commands_story_bytes(const evp_commands_t *commands);

#endif /* EVP_COMMAND_H */
