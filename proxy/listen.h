/*
 * listen.h
 *    A listening TCP socket on an address and port.
 */
#ifndef EVP_LISTEN_H
#define EVP_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Opens a listening socket, non-blocking and closed on exec.  The address may
 * be a name: it is looked up blocking, so call this before the loop runs.
 * shared: other processes of this user may listen there as well, and the system
 * spreads connections over them.  Gives the descriptor, the caller's to close; or -1 and a line of text.
 */
int evp_listen(const char *address, uint16_t port, int backlog, bool shared, char *error, size_t size);

#endif /* EVP_LISTEN_H */
