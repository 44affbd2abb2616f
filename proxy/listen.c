/*
 * listen.c
 *    Opens listening sockets.
 */
#include "listen.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int
open_at(const struct addrinfo *at, int backlog, bool shared)
{
	int			fd = socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, at->ai_protocol);
	int			on = 1;
	int			saved;

	if (fd < 0)
		return -1;
	/* Lets a restarted proxy take its port while old connections are in TIME_WAIT; not one that another listens on. */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
		(!shared || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0) && bind(fd, at->ai_addr, at->ai_addrlen) == 0 &&
		listen(fd, backlog) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int
evp_listen(const char *address, uint16_t port, int backlog, bool shared, char *error, size_t size)
{
	struct addrinfo hints;
	struct addrinfo *found = NULL;
	char		service[8];
	int			fd;
	int			rc;

	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
	snprintf(service, sizeof(service), "%u", port);
	rc = getaddrinfo(address, service, &hints, &found);
	if (rc != 0)
	{
		snprintf(error, size, "cannot listen on %s port %u: %s", address, port, gai_strerror(rc));
		return -1;
	}
	fd = open_at(found, backlog, shared);
	if (fd < 0)
		snprintf(error, size, "cannot listen on %s port %u: %s", address, port, strerror(errno));
	freeaddrinfo(found);
	return fd;
}
