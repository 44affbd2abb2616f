/*
 * roster.h
 *    Keeps the database's list of this proxy's sessions like the sessions that
 *    there are.  A session's changes are gathered and go out together with the
 *    others', one statement at a time (evento._session_sync); what changes
 *    while one is under way goes with the next.
 */
#ifndef EVP_ROSTER_H
#define EVP_ROSTER_H

#include "members.h"
#include "proxy.h"

typedef struct evp_roster evp_roster_t;

/* What it tells registry.c: how a session goes by now; that it has a successor elsewhere; that a statement was refused,
 * maybe because the registration is void. */
typedef struct evp_roster_events
{
	void		(*on_number) (void *arg, evp_session_t *session, int64_t session_no);
	void		(*on_superseded) (void *arg, evp_session_t *session);
	void		(*on_refused) (void *arg, const char *message);
} evp_roster_events_t;

/* NULL on lack of memory. */
evp_roster_t *evp_roster_new(evp_proxy_t *proxy, const evp_roster_events_t *events, void *arg);
void		evp_roster_stop(evp_roster_t *r);
void		evp_roster_free(evp_roster_t *r);

/* A session was welcomed; what it handles has changed; it has ended. They are told to the database within milliseconds
 * while this proxy is registered, else as soon as it is. */
void		evp_roster_open(evp_roster_t *r, evp_session_t *session);
void		evp_roster_change(evp_roster_t *r, evp_session_t *session);
void		evp_roster_close(evp_roster_t *r, evp_session_t *session);

/* The number under which sessions are registered from now on; 0: not at all. */
void		evp_roster_registered(evp_roster_t *r, int64_t proxy_id);

/*
 * Compares with this proxy's rows in a picture: begin, a call for each row, end.
 * Rows of no session here are taken out of the database.  Sessions without a row
 * have been superseded (on_superseded), unless again is true: the database may
 * have lost them, and they are registered anew where they have no successor.
 */
void		evp_roster_check_begin(evp_roster_t *r);
void		evp_roster_check_row(evp_roster_t *r, evp_session_t *session, int64_t session_no);
void		evp_roster_check_end(evp_roster_t *r, bool again);

#endif /* EVP_ROSTER_H */
