/*
 * drain.h
 *    The first part of an orderly end: no bundle comes in any more, those that
 *    are here are let go, and what they have asked is finished.  So is what was
 *    asked over HTTP, but for waiting for events, which ends.  What comes over HTTP
 *    meanwhile, and for drain-delay, is served: a balancer that asks for the
 *    proxy's health has not heard of its end yet.
 *
 *    A bundle that is let go gets what is queued for it and the end of the
 *    stream; it reconnects, through the balancer, at another proxy.  To all
 *    others its connection was cut: calls to it are repeated to it where it
 *    comes back, and so are answers sent there.
 */
#ifndef EVP_DRAIN_H
#define EVP_DRAIN_H

#include "proxy.h"

typedef struct evp_drain
{
	evp_proxy_t *proxy;
	uv_timer_t	timer;
	uint64_t	begun_at;
	void		(*done) (void *arg);
	void	   *arg;
} evp_drain_t;

/* Begins; done is called once nothing is left to finish, or drain-time has passed, and not from within. */
void		evp_drain_begin(evp_drain_t *drain, evp_proxy_t *proxy, void (*done) (void *arg), void *arg);

#endif							/* EVP_DRAIN_H */
